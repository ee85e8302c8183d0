import numpy as np
import pandas as pd
import pytest

from epigen_utils import paths
from epigen_utils.data import datasets
from epigen_utils.expression import normalisation

REFERENCE = paths.DATA / "reference"


def test_size_factors_are_those_of_r_deseq2():
    reference = pd.read_csv(REFERENCE / "table_two_size_factors.csv", index_col=0)["size_factor"]
    ours = normalisation.size_factors(datasets.load("table-two"))
    np.testing.assert_allclose(ours, reference[ours.index], rtol=1e-10)


def test_size_factors_need_a_gene_in_every_sample(small):
    small.layers["counts"] = np.eye(6, 4, dtype=int)
    with pytest.raises(ValueError, match="sample 's4' has no counts; drop it"):
        normalisation.size_factors(small)
    small.layers["counts"] = 1 - np.eye(6, 4, dtype=int)
    with pytest.raises(ValueError, match="no gene is detected in every sample"):
        normalisation.size_factors(small)


def test_log2_normalised_removes_depth(small):
    deeper = small.copy()
    deeper.layers["counts"] = small.layers["counts"] * np.array([[1], [2], [4], [1], [2], [4]])
    scaled = normalisation.size_factors(deeper) / normalisation.size_factors(small)
    np.testing.assert_allclose(scaled / scaled.iloc[0], [1, 2, 4, 1, 2, 4])


def test_rank_genes_against_numpy(small):
    ranked = normalisation.rank_genes(small)
    table = small.layers["counts"]
    np.testing.assert_allclose(ranked["variance"], table.var(axis=0, ddof=1))
    np.testing.assert_allclose(ranked["share_of_variance"].sum(), 1)
    assert ranked["rank_by_mean"].tolist() == (np.argsort(np.argsort(-table.mean(axis=0))) + 1).tolist()
    assert ranked["symbol"].tolist() == ["G1", "G2", "G3", "G4"]


def test_table_two_is_in_the_order_of_its_mean():
    ranked = normalisation.rank_genes(datasets.load("table-two"))
    assert ranked["rank_by_mean"].tolist() == list(range(1, 21))
    assert ranked["share_of_variance"].max() == pytest.approx(0.356, abs=5e-4)


def test_top_variable_genes_breaks_ties_by_order():
    table = pd.DataFrame([[0, 0, 0], [2, 2, 4]], columns=["a", "b", "c"])
    assert list(normalisation.top_variable_genes(table, 2)) == ["c", "a"]


def test_variance_ranks_and_set_scores_by_hand():
    table = pd.DataFrame({"x": [0.0, 4.0], "y": [0.0, 2.0], "z": [1.0, 1.0]}, index=["s", "t"])
    ranks = normalisation.variance_ranks({"m": table, "n": -table[["y", "x", "z"]]}, ["y", "z"])
    assert ranks.loc["y"].tolist() == [2, 2]
    assert ranks.loc["z"].tolist() == [3, 3]
    scores = normalisation.gene_set_scores(table, {"both": ["x", "y"], "flat": ["z"], "none": ["q"]})
    half = 1 / np.sqrt(2)
    np.testing.assert_allclose(scores["both"], [-half, half])
    assert scores["flat"].isna().all()
    assert scores["none"].isna().all()
    assert list(normalisation.gene_zscores(table).columns) == ["x", "y"]


def test_matrices_side_by_side():
    adata = datasets.load("negative-binomial-sim")
    lengths = pd.Series(1000.0, adata.var_names[:50])
    tables = normalisation.normalised_matrices(adata, design="~group", lengths=lengths)
    assert list(tables) == ["raw counts", "log2 counts", "log2, size factors", "VST, blind", "VST, design", "log2 TPM"]
    assert tables["log2 TPM"].shape == (12, 50)
    del tables["log2 TPM"]
    found = normalisation.compare_normalisations(tables, n_top=20).set_index("matrix")
    assert found.loc["raw counts", "top shared"] == 20
    assert found.loc["raw counts", "Spearman"] > 0.8, "the spread of counts grows with their mean"
    assert abs(found.loc["VST, blind", "Spearman"]) < 0.5
    assert found["largest share"].idxmax() == "raw counts"
    assert "log2 TPM" not in normalisation.normalised_matrices(adata, design="~group")


def test_scores_have_an_index_of_excitation_and_inhibition():
    table = pd.DataFrame({"e": [1.0, 2, 3], "i": [3.0, 2, 1], "x": [1.0, 1, 1]})
    scores = normalisation.gene_set_scores(table, {"Glutamatergic": ["e"], "GABAergic": ["i"], "none": ["x"]})
    assert scores["E/I index"].tolist() == [-2, 0, 2]
    assert scores["none"].isna().all()
    assert "E/I index" not in normalisation.gene_set_scores(table, {"Glutamatergic": ["e"]})


def test_log_scale_of_counts_is_the_vst_and_of_intensities_the_log(small):
    small.uns["epigen"]["measure"] = "intensity"
    small.layers["intensity"] = np.full((6, 4), 7.0)
    assert (normalisation.log_scale_expression(small) == 3).all().all()
    adata = datasets.load("negative-binomial-sim")
    adata.layers["counts"][:, 0] = 0
    assert normalisation.log_scale_expression(adata).shape == (12, 1999), "a gene without counts has no value"
