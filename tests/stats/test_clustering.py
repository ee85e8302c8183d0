import numpy as np
import pandas as pd
import pytest
from scipy.cluster.hierarchy import linkage
from scipy.spatial.distance import squareform
from sklearn.metrics import silhouette_score

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
