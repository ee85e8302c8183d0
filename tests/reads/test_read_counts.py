"""Counts of a pipeline, from files as featureCounts writes them; `test_pipeline` runs the tools themselves."""

import anndata
import numpy as np
import pandas as pd
import pytest

from epigen_utils.reads import read_counts, tool_reports
from epigen_utils.reads.pipeline import Pipeline
from epigen_utils.reads.sample_sheets import Sample

COUNTS = pd.DataFrame({"s1": [10, 0, 30], "s2": [5, 5, 60]}, index=["g1", "g2", "g3"])
LENGTHS = [500, 1000, 2000]


@pytest.fixture
def pipeline(tmp_path, monkeypatch):
    """A pipeline of two samples that have been counted."""
    samples = tuple(Sample(name, (f"{name}.fq",), group=name) for name in COUNTS)
    planned = Pipeline(str(tmp_path), samples, "g.fa", "g.gtf")
    for folder in ("counted", "reference"):
        (tmp_path / folder).mkdir()
    for name, counts in COUNTS.items():
        lines = ["# Program:featureCounts", f"Geneid\tChr\tStart\tEnd\tStrand\tLength\t{name}.bam"]
        lines += [
            f"{gene}\t1\t1\t{length}\t+\t{length}\t{n}"
            for gene, length, n in zip(COUNTS.index, LENGTHS, counts, strict=True)
        ]
        (tmp_path / "counted" / f"{name}.txt").write_text("\n".join(lines) + "\n")
    exon = '1\ttest\texon\t1\t500\t.\t+\t.\tgene_id "{0}"; transcript_id "t{0}"; gene_name "name-{0}";\n'
    (tmp_path / "reference" / "annotation.gtf").write_text("".join(map(exon.format, COUNTS.index)))
    summary = pd.DataFrame({"sample": list(COUNTS), "group": ["a", "b"], "donor": ["", ""], "reads": [50, 80]})
    monkeypatch.setattr(tool_reports, "sample_summary", lambda pipeline: summary)
    return planned


def test_text_and_anndata_have_the_same_counts(pipeline):
    read_counts.write_counts(pipeline)
    adata = anndata.read_h5ad(pipeline.counts)
    np.testing.assert_array_equal(adata.layers["counts"], COUNTS.T)
    per_base = COUNTS.div(LENGTHS, axis=0)
    np.testing.assert_allclose(adata.layers["tpm"], (per_base / per_base.sum() * 1e6).T)
    assert adata.var["symbol"].tolist() == ["name-g1", "name-g2", "name-g3"]
    assert adata.var["length"].tolist() == LENGTHS
    assert list(adata.obs) == ["group", "reads"], "a sheet without donors gives no donors"
    text = pd.read_csv(pipeline.root / "counts.tsv", sep="\t", index_col="gene_id")
    assert list(text) == ["gene_name", "length", "s1", "s2"]
    pd.testing.assert_frame_equal(text[["s1", "s2"]], COUNTS, check_names=False)
    assert not list(pipeline.root.glob("*.part*"))


def test_the_description_is_that_of_the_sheet(pipeline):
    read_counts.write_counts(pipeline)
    about = read_counts.load_counts(pipeline, "folder/mine.csv").uns["epigen"]
    assert (about["title"], about["nature"]) == ("counts of mine.csv", "your own")
    about = read_counts.load_counts(pipeline, "ggal-gut").uns["epigen"]
    assert (about["name"], about["nature"]) == ("ggal-gut", "real")


def test_agreement_with_the_truth_by_hand(pipeline):
    read_counts.write_counts(pipeline)
    truth = pd.DataFrame({"s1": [10, 10, 30], "s2": [5, 5, 60]}, index=COUNTS.index)
    table = read_counts.counts_with_truth(pipeline, truth)
    assert table.iloc[1].tolist() == ["s1", "g2", 10, 0]
    first, second = read_counts.agreement_with_truth(table).to_dict("records")
    assert (first["planted"], first["counted"], first["found"]) == (50, 40, 0.8)
    expected = np.corrcoef(np.log2([11, 11, 31]), np.log2([11, 1, 31]))[0, 1]
    assert first["correlation"] == pytest.approx(expected)
    assert (second["found"], second["correlation"]) == (1, pytest.approx(1))
