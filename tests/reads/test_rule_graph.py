import re

from epigen_utils import paths
from epigen_utils.book import runs
from epigen_utils.reads import pipeline, rule_graph, sample_sheets, simulated_reads


def test_the_stages_are_the_papers(mirror):
    text = (mirror.parent / "papers" / "paper_a_epilepsy_gpt2xl.txt").read_text()
    sentence = re.search(r"The methodology spans five core stages: (.*?)\.", text)[1]
    numbered = ", ".join(f"({number}) {stage}" for number, stage in enumerate(rule_graph.STAGES, start=1))
    assert sentence == numbered.replace(", (5)", ", and (5)")


def test_every_chapter_of_paper_a_is_in_one_stage():
    named = rule_graph.stage_chapters()["chapter"].tolist()
    everywhere = {run.notebook for run in runs.plan_runs("demo") if run.notebook.startswith("epilepsy/")}
    assert sorted(f"epilepsy/{chapter}" for chapter in named) == sorted(everywhere)
    assert all((paths.NOTEBOOKS / "epilepsy" / f"{chapter}.ipynb").exists() for chapter in named)


def test_the_graph_is_what_snakemake_says(tmp_path):
    sheet = simulated_reads.write_cohort(tmp_path, groups={"a": 3}, n_fragments=20, n_genes=4)
    samples = tuple(sample_sheets.read_sheet(sheet))
    made = pipeline.Pipeline(
        str(tmp_path / "out"), samples, str(tmp_path / "genome.fa"), str(tmp_path / "annotation.gtf")
    )
    edges = {tuple(edge) for edge in rule_graph.rule_edges(made).to_numpy()}
    assert edges == {
        ("checked", "fastp"),
        ("checked", "fastqc"),
        ("fastp", "align"),
        ("index", "align"),
        ("align", "count"),
        ("count", "merge"),
        ("merge", "multiqc"),
        ("fastqc", "multiqc"),
    }
