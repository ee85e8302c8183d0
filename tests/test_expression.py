import numpy as np
import pandas as pd
import pytest

from epigen_utils import datasets, expression, paths

REFERENCE = paths.ROOT / "tests" / "reference"


def test_size_factors_are_those_of_r_deseq2():
    reference = pd.read_csv(REFERENCE / "table_two_size_factors.csv", index_col=0)["size_factor"]
    ours = expression.size_factors(datasets.load("table-two"))
    np.testing.assert_allclose(ours, reference[ours.index], rtol=1e-10)


def test_size_factors_need_a_gene_in_every_sample(small):
    small.layers["counts"] = np.eye(6, 4, dtype=int)
    with pytest.raises(ValueError, match="no gene is detected in every sample"):
        expression.size_factors(small)


def test_log2_normalised_removes_depth(small):
    deeper = small.copy()
    deeper.layers["counts"] = small.layers["counts"] * np.array([[1], [2], [4], [1], [2], [4]])
    scaled = expression.size_factors(deeper) / expression.size_factors(small)
    np.testing.assert_allclose(scaled / scaled.iloc[0], [1, 2, 4, 1, 2, 4])


def test_rank_genes_against_numpy(small):
    ranked = expression.rank_genes(small)
    table = small.layers["counts"]
    np.testing.assert_allclose(ranked["variance"], table.var(axis=0, ddof=1))
    np.testing.assert_allclose(ranked["share_of_variance"].sum(), 1)
    assert ranked["rank_by_mean"].tolist() == (np.argsort(np.argsort(-table.mean(axis=0))) + 1).tolist()
    assert ranked["symbol"].tolist() == ["G1", "G2", "G3", "G4"]


def test_table_two_is_in_the_order_of_its_mean():
    ranked = expression.rank_genes(datasets.load("table-two"))
    assert ranked["rank_by_mean"].tolist() == list(range(1, 21))
    assert ranked["share_of_variance"].max() == pytest.approx(0.356, abs=5e-4)


def test_top_variable_genes_breaks_ties_by_order():
    table = pd.DataFrame([[0, 0, 0], [2, 2, 4]], columns=["a", "b", "c"])
    assert list(expression.top_variable_genes(table, 2)) == ["c", "a"]


def test_quality(small):
    quality = expression.quality(small)
    assert quality["depth"].tolist() == small.layers["counts"].sum(axis=1).tolist()
    assert quality["detected"].tolist() == [3, 4, 3, 4, 4, 4]


def test_variance_ranks_and_set_scores_by_hand():
    table = pd.DataFrame({"x": [0.0, 4.0], "y": [0.0, 2.0], "z": [1.0, 1.0]}, index=["s", "t"])
    ranks = expression.variance_ranks({"m": table, "n": -table[["y", "x", "z"]]}, ["y", "z"])
    assert ranks.loc["y"].tolist() == [2, 2]
    assert ranks.loc["z"].tolist() == [3, 3]
    scores = expression.set_scores(table, {"both": ["x", "y"], "flat": ["z"], "none": ["q"]})
    half = 1 / np.sqrt(2)
    np.testing.assert_allclose(scores["both"], [-half, half])
    assert scores["flat"].isna().all()
    assert scores["none"].isna().all()
    assert list(expression.scaled(table).columns) == ["x", "y"]
