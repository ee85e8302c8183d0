import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from epigen_utils.stats import intervals


def test_intervals_over_seeds_are_those_of_t():
    values = pd.Series([0.1, 0.3, 0.2, 0.4])
    mean, low, high = intervals.student_interval(values)
    wanted = stats.t.interval(0.95, 3, loc=values.mean(), scale=stats.sem(values))
    assert (low, high) == pytest.approx(wanted)
    assert mean == pytest.approx(0.25)
    assert np.isnan(intervals.student_interval(pd.Series([0.1]))[1])


def test_an_interval_over_donors_is_as_wide_as_donors_differ():
    rng = np.random.default_rng(0)
    donors = np.repeat(np.arange(8), 50)
    values = rng.normal(size=8)[donors] + rng.normal(0, 0.01, 400)
    mean, low, high, n = intervals.bootstrap_mean(values, donors, n_bootstrap=500, rng=rng)
    assert (mean, n) == (pytest.approx(values.mean()), 8)
    assert high - low > 0.5
    _, low, high, n = intervals.bootstrap_mean(values, np.arange(400), n_bootstrap=500, rng=rng)
    assert high - low < 0.3
    assert n == 400


def test_intervals_of_an_auc():
    """Newcombe 2006, method 5: what Hanley and McNeil's variance says when solved for the AUC."""
    low, high = intervals.auc_interval(0.8, 20, 30)
    for end in (low, high):
        spread = 1 + 24 * ((1 - end) / (2 - end) + end / (1 + end))
        assert abs(0.8 - end) == pytest.approx(
            stats.norm.ppf(0.975) * np.sqrt(end * (1 - end) * spread / 600), rel=1e-6
        )
    assert low < 0.8 < high
    assert intervals.auc_interval(1.0, 3, 3)[0] < 0.7
    assert intervals.auc_interval(1.0, 3, 3)[1] == 1
    assert intervals.auc_interval(0.0, 3, 3) == pytest.approx((0, 1 - intervals.auc_interval(1.0, 3, 3)[0]))


def test_overlapping_training_sets_widen_the_interval():
    values = np.random.default_rng(0).normal(0.1, 0.05, 10)
    mean, low, high = intervals.nadeau_bengio_interval(values, test_share=0.2)
    plain = stats.t.interval(0.95, 9, values.mean(), stats.sem(values))
    assert mean == pytest.approx(values.mean())
    assert (high - low) / (plain[1] - plain[0]) == pytest.approx(np.sqrt((0.1 + 0.25) / 0.1))
    assert np.isnan(intervals.nadeau_bengio_interval(values[:1], test_share=0.2)[1])
    values = np.array([0.8, 0.9, 0.7, 0.85, 0.75])
    half = 2.7764451 * np.sqrt((1 / 5 + 1 / 4) * values.var(ddof=1))
    by_hand = (pytest.approx(0.8), pytest.approx(0.8 - half), pytest.approx(0.8 + half))
    assert intervals.nadeau_bengio_interval(values, test_share=1 / 5) == by_hand


def test_ends_of_a_row():
    row = {"low": 0.1, "high": 0.2, "accuracy low": np.nan, "accuracy high": 1}
    assert intervals.ends(row) == {"low": 0.1, "high": 0.2}
    ends = intervals.ends(row, "accuracy")
    assert np.isnan(ends["low"])
    assert ends["high"] == 1


@given(n=st.tuples(st.integers(1, 60), st.integers(1, 60)), share=st.floats(0, 1), n_folds=st.integers(1, 10))
def test_an_interval_of_any_auc_holds_it_and_is_the_other_classs_reversed(n, share, n_folds):
    auc = round(share * 2 * n[0] * n[1]) / (2 * n[0] * n[1])
    low, high = intervals.auc_interval(auc, *n, n_folds=n_folds)
    assert 0 <= low <= auc <= high <= 1
    assert high - low > 0.01
    other = intervals.auc_interval(1 - auc, *n[::-1], n_folds=n_folds)
    assert other == pytest.approx((1 - high, 1 - low), abs=1e-6)
    if n_folds > 1:
        one = intervals.auc_interval(auc, *n)
        assert low <= one[0] + 1e-9
        assert one[1] <= high + 1e-9, "folds share training samples"
