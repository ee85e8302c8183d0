import numpy as np
import pytest

from epigen_utils import simulate


def test_counts_have_the_model_s_mean_and_variance():
    """Without depth and effects the counts are negative binomial: variance = mu + dispersion * mu^2."""
    adata = simulate.negative_binomial_cohort(groups={"a": 4000}, reference="a", n_genes=5, dispersion=0.2, seed=1)
    counts = adata.layers["counts"]
    mean, variance = counts.mean(axis=0), counts.var(axis=0)
    spread = np.exp2(np.random.default_rng(0).uniform(-0.5, 0.5, 200_000))
    cv2 = spread.var() / spread.mean() ** 2
    expected = mean + mean**2 * (0.2 * (1 + cv2) + cv2)
    np.testing.assert_allclose(variance, expected, rtol=0.12)


def test_planted_fold_changes_are_there():
    adata = simulate.negative_binomial_cohort(
        groups={"a": 300, "b": 300}, reference="a", n_genes=200, n_changed=20, seed=2
    )
    counts = adata.layers["counts"]
    groups = adata.obs["group"].to_numpy()
    seen = np.log2(counts[groups == "b"].mean(axis=0) / counts[groups == "a"].mean(axis=0))
    truth = adata.varm["log2_fold_change"]["b"]
    assert np.corrcoef(seen, truth)[0, 1] > 0.98
    assert (truth != 0).sum() == 20


def test_reference_must_be_a_group():
    with pytest.raises(ValueError, match="reference 'c'"):
        simulate.negative_binomial_cohort(groups={"a": 2}, reference="c")
