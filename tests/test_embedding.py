import numpy as np
import pandas as pd
import pytest

from epigen_utils import embedding


def test_pca_against_the_singular_values():
    table = pd.DataFrame(np.random.default_rng(0).normal(size=(12, 30)))
    scores, shares = embedding.pca(table)
    singular = np.linalg.svd(table - table.mean(), compute_uv=False)
    np.testing.assert_allclose(shares, (singular**2 / (singular**2).sum())[:2])
    np.testing.assert_allclose(scores.pow(2).sum() ** 0.5, singular[:2])


def test_pca_needs_two_of_each():
    with pytest.raises(ValueError, match="the table is 1 x 5"):
        embedding.pca(pd.DataFrame(np.ones((1, 5))))


def test_tsne_is_repeatable_and_refuses_an_illegal_perplexity():
    table = pd.DataFrame(np.random.default_rng(0).normal(size=(12, 5)))
    first = embedding.tsne(table, perplexity=3, seed=1)
    pd.testing.assert_frame_equal(first, embedding.tsne(table, perplexity=3, seed=1))
    with pytest.raises(ValueError, match="perplexity 30 must be below the number of samples, 12"):
        embedding.tsne(table, perplexity=30, seed=1)


def test_legal_perplexities():
    assert embedding.legal_perplexities(12) == [2, 3]
    assert embedding.legal_perplexities(6) == []
    assert embedding.legal_perplexities(200) == [2, 3, 5, 10, 30]


def test_umap_keeps_apart_what_is_apart_and_follows_from_the_seed():
    rng = np.random.default_rng(0)
    table = np.vstack([rng.normal(0, 0.1, (30, 5)), rng.normal(5, 0.1, (30, 5))])
    plane = embedding.umap(table, seed=0)
    np.testing.assert_array_equal(plane, embedding.umap(table, seed=0))
    one, other = plane[:30], plane[30:]
    assert np.linalg.norm(one.mean(axis=0) - other.mean(axis=0)) > 2 * max(one.std(), other.std()) ** 0.5
