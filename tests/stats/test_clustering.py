import numpy as np
import pandas as pd
import pytest
from scipy.cluster.hierarchy import linkage
from scipy.spatial.distance import squareform
from sklearn.metrics import silhouette_score

from epigen_utils.data import datasets
from epigen_utils.expression import normalisation
from epigen_utils.stats import clustering


def test_silhouette_value_is_scikit_learns():
    points = pd.DataFrame(np.random.default_rng(0).normal(size=(10, 2)))
    labels = pd.Series(list("aaaaabbbbb"))
    assert clustering.silhouette_test(points, labels)["value"] == pytest.approx(silhouette_score(points, labels))


def test_cluster_agreement():
    rng = np.random.default_rng(0)
    labels = pd.Series(pd.Categorical(["a"] * 6 + ["b"] * 6))
    apart = pd.DataFrame(rng.normal(size=(12, 20))) + np.where(labels == "a", 0, 1)[:, None] * rng.normal(0, 9, 20)
    found = clustering.cluster_agreement(clustering.ward_on_pearson(normalisation.gene_zscores(apart)), labels)
    assert found["value"] == 1
    assert found["p"] == pytest.approx(2 / 924), "the labels and their mirror image"
    mixed = clustering.cluster_agreement(clustering.ward_on_pearson(pd.DataFrame(rng.normal(size=(12, 20)))), labels)
    assert mixed["p"] > 0.05


def test_ward_on_pearson_against_numpy():
    table = pd.DataFrame(np.random.default_rng(0).normal(size=(6, 9)))
    distance = 1 - np.corrcoef(table)
    np.fill_diagonal(distance, 0)
    np.testing.assert_allclose(clustering.ward_on_pearson(table), linkage(squareform(distance, checks=False), "ward"))


def test_silhouette_of_table_two_is_the_audited_one():
    adata = datasets.load("table-two")
    planes = clustering.principal_planes(normalisation.raw_and_log_matrices(adata), adata.obs["condition"])[
        0
    ].set_index("matrix")
    assert planes.loc["raw counts", "PC1"] == pytest.approx(0.650, abs=5e-4)
    assert planes.loc["raw counts", "PC1 + PC2"] == pytest.approx(0.861, abs=5e-4)
    assert planes.loc["log2 counts", "PC1"] == pytest.approx(0.637, abs=5e-4)
    assert planes.loc["log2, size factors", "PC1"] == pytest.approx(0.430, abs=5e-4)
    assert planes.loc["log2, size factors", "PC1 + PC2"] == pytest.approx(0.778, abs=5e-4)
    assert planes["silhouette"].round(2).tolist() == [0.15, 0.17, -0.07]
    assert planes["smallest_p"].tolist() == pytest.approx([1 / 220] * 3)
