import numpy as np
import pandas as pd

from epigen_utils.expression import differential
from epigen_utils.interpretation import biomarkers
from epigen_utils.prediction import sample_cohort


def test_the_test_is_deseq2_on_the_samples_given():
    cohort = sample_cohort.load_cohort("seizures-sim")
    rows = np.arange(0, 32, 2)
    found = biomarkers.differential_expression(cohort, rows)
    adata = cohort.adata[rows][:, cohort.genes].copy()
    expected = differential.deseq(adata, design="~group", contrast=("group", "case", "control"))
    np.testing.assert_allclose(found["stat"], expected["stat"])


def test_named_genes_stand_at_their_places():
    scores = pd.DataFrame({"one": [3.0, 1.0, 2.0], "other": [1.0, 1.0, 5.0]}, list("abc"))
    named = pd.DataFrame({"human": ["A", "B", "C"], "gene": ["a", "b", None]})
    table = biomarkers.ranks_of_named_genes(scores, named)
    assert table["one"].tolist()[:2] == [1.0, 3.0]
    assert table["other"].tolist()[:2] == [2.5, 2.5]
    assert np.isnan(table["one"][2])


def test_enrichment_has_one_fdr_over_ways_and_sets():
    genes = [f"g{i}" for i in range(100)]
    scores = pd.DataFrame({"finds": np.arange(100)[::-1], "does not": np.arange(100)}, genes)
    table = biomarkers.set_enrichment(scores, {"first": genes[:10], "last": genes[50:60]}, n_top=10)
    sure = table[table["padj"] < 0.05]
    assert sure[["way", "set"]].to_numpy().tolist() == [["finds", "first"]]
    assert len(table) == 4


def test_plain_scores_find_what_differs():
    rng = np.random.default_rng(0)
    values = pd.DataFrame(rng.normal(5, 1, (30, 8)), columns=list("abcdefgh"))
    y = np.repeat(["x", "y"], 15)
    values.loc[15:, "d"] += 3
    values["h"] = 2.0
    assert biomarkers.scores_without_model(values, y).loc["h", "F test"] == 0
    assert (biomarkers.scores_without_model(values, y)[["F test", "random forest"]].idxmax() == "d").all()
