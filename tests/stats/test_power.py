import numpy as np
import pytest
from scipy.stats import t, ttest_ind

from epigen_utils.stats import power


def test_interaction_against_simulation():
    rng = np.random.default_rng(0)
    n, effect = 6, 2.5
    cells = rng.normal(size=(4000, 4, n))
    cells[:, 3] += effect
    difference = cells[:, 3].mean(1) - cells[:, 2].mean(1) - cells[:, 1].mean(1) + cells[:, 0].mean(1)
    error = np.sqrt(cells.var(axis=2, ddof=1).mean(axis=1) * 4 / n)
    found = (2 * t.sf(np.abs(difference / error), 4 * (n - 1)) < 0.05).mean()
    assert power.interaction_power(effect, 1, n) == pytest.approx(found, abs=0.02)


def test_equivalence_against_simulation():
    rng = np.random.default_rng(0)
    n, margin = 20, 1.0
    a, b = rng.normal(size=(2, 4000, n))
    low = ttest_ind(a + margin, b, axis=1, alternative="greater").pvalue < 0.05
    high = ttest_ind(a - margin, b, axis=1, alternative="less").pvalue < 0.05
    assert power.equivalence_power(margin, 1, n) == pytest.approx((low & high).mean(), abs=0.03)


def test_power_grows_with_n_also_where_scipys_noncentral_t_fails():
    values = [power.interaction_power(0.1, 1, n) for n in (10, 70, 80, 500, 5000, 50_000)]
    assert values == sorted(values)
    assert values[-1] == pytest.approx(1)


def test_smallest_n_is_the_smallest():
    for effect in (0.3, 1.0, 3.0):
        n = power.smallest_sample_size(lambda n, effect=effect: power.interaction_power(effect, 1, n))
        assert power.interaction_power(effect, 1, int(n)) >= 0.8
        assert n == 2 or power.interaction_power(effect, 1, int(n) - 1) < 0.8
    assert power.smallest_sample_size(lambda n: 0.5) == np.inf


def test_a_smaller_effect_needs_more_samples():
    table = power.restoration_sample_sizes((0.5, 1.0))
    assert table["effect"].tolist() == [0.5, 1.0]
    assert table["interaction"].is_monotonic_decreasing
    assert table["equivalence"].is_monotonic_decreasing
    assert (table["interaction"] > table["equivalence"]).all()
