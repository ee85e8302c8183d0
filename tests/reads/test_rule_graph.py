from epigen_utils.reads import pipeline, rule_graph, sample_sheets, simulated_reads


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
