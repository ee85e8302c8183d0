import numpy as np
import pandas as pd
import pytest

from epigen_utils.errors import DataError
from epigen_utils.stats import projections


def test_pca_against_the_singular_values():
    table = pd.DataFrame(np.random.default_rng(0).normal(size=(12, 30)))
    scores, shares = projections.pca(table)
    singular = np.linalg.svd(table - table.mean(), compute_uv=False)
    np.testing.assert_allclose(shares, (singular**2 / (singular**2).sum())[:2])
    np.testing.assert_allclose(scores.pow(2).sum() ** 0.5, singular[:2])


def test_pca_needs_two_of_each():
    with pytest.raises(ValueError, match="2 components need as many samples and features; the table is 1 x 5"):
        projections.pca(pd.DataFrame(np.ones((1, 5))))


def test_tsne_is_repeatable_and_refuses_an_illegal_perplexity():
    table = pd.DataFrame(np.random.default_rng(0).normal(size=(12, 5)))
    first = projections.tsne(table, perplexity=3, seed=1)
    pd.testing.assert_frame_equal(first, projections.tsne(table, perplexity=3, seed=1))
    with pytest.raises(ValueError, match="perplexity 30 must be below the number of samples, 12"):
        projections.tsne(table, perplexity=30, seed=1)


def test_legal_perplexities():
    assert projections.feasible_perplexities(12) == [2, 3]
    assert projections.feasible_perplexities(6) == []
    assert projections.feasible_perplexities(200) == [2, 3, 5, 10, 30]


def test_umap_keeps_apart_what_is_apart_and_follows_from_the_seed():
    rng = np.random.default_rng(0)
    table = np.vstack([rng.normal(0, 0.1, (30, 5)), rng.normal(5, 0.1, (30, 5))])
    plane = projections.umap(table, seed=0)
    np.testing.assert_array_equal(plane, projections.umap(table, seed=0))
    one, other = plane[:30], plane[30:]
    assert np.linalg.norm(one.mean(axis=0) - other.mean(axis=0)) > 2 * max(one.std(), other.std()) ** 0.5


@pytest.mark.parametrize("layout", [projections.pca, lambda table: projections.tsne(table, perplexity=2, seed=0)])
def test_samples_that_are_all_alike_have_no_layout(layout):
    with pytest.raises(DataError, match="embeddings: all 12 samples are alike; the model does not separate them"):
        layout(pd.DataFrame(np.ones((12, 5))))


def test_one_sample_has_no_layout():
    one = pd.DataFrame(np.ones((1, 5)))
    with pytest.raises(DataError, match="t-SNE of 1 sample: there is nothing to lay out"):
        projections.tsne(one, perplexity=2, seed=0)
    with pytest.raises(DataError, match="UMAP needs four samples at least, not 1"):
        projections.umap(one, seed=0)


def test_a_grid_of_layouts_starts_anew_for_each_seed():
    rng = np.random.default_rng(0)
    table = pd.DataFrame(np.vstack([rng.normal(0, 1, (10, 5)), rng.normal(6, 1, (10, 5))]))
    labels = pd.Series(["a"] * 10 + ["b"] * 10)
    found, planes = projections.tsne_grid(table, labels, perplexities=[2, 5], seeds=[0, 1])
    assert len(found) == len(planes) == 4
    assert not np.allclose(planes[2, 0], planes[2, 1])
    with pytest.raises(DataError, match="perplexity 20 must be below the number of samples, 20; give at most 6"):
        projections.tsne_grid(table, labels, perplexities=[20], seeds=[0])


def test_two_components_of_noise_have_much_of_the_variance_of_few_samples():
    """The audit of paper A: 0.41 for 12 samples and 20 features, 0.20 for 1,600."""
    assert projections.noise_variance_share(12, 20) == pytest.approx(0.41, abs=0.02)
    assert projections.noise_variance_share(12, 1600, n_draws=5) == pytest.approx(0.20, abs=0.01)
