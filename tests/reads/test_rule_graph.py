from epigen_utils import notebooks, paths, reads, sample_sheets, simulate_reads, workflow


def test_the_graph_is_what_snakemake_says(tmp_path):
    sheet = simulate_reads.cohort(tmp_path, groups={"a": 3}, n_fragments=20, n_genes=4)
    samples = tuple(sample_sheets.read(sheet))
    made = reads.Pipeline(str(tmp_path / "out"), samples, str(tmp_path / "genome.fa"), str(tmp_path / "annotation.gtf"))
    edges = {tuple(edge) for edge in workflow.rules(made).to_numpy()}
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


def test_chapters_that_take_counts_come_in_the_book_s_order():
    table = workflow.chapters()
    assert table["chapter"].iloc[0] == "01_datasets"
    assert {"03_differential_expression", "11_attention"} <= set(table["chapter"])
    assert "12_reads_to_counts" not in set(table["chapter"])
    assert table["title"].iloc[0] == notebooks.title(paths.NOTEBOOKS / "epilepsy" / "01_datasets.ipynb")
