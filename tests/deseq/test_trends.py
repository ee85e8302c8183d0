import numpy as np
import pytest
from deseq_units import single, table, worst

from epigen_utils.deseq import trends
from epigen_utils.errors import DataError


def estimates(name):
    """Mean counts and gene-wise dispersions of the cohort's genes with counts, by R."""
    found = table(name).dropna(subset=["dispGeneEst"])
    return found["baseMean"].to_numpy(), found["dispGeneEst"].to_numpy(), found["dispFit"].to_numpy()


def test_a_parametric_trend_is_rs():
    """Worst seen: 5e-9, the digits of the table."""
    means, genewise, theirs = estimates("fit_batch")
    found = trends.fit(means, genewise, "parametric")
    assert found.kind == "parametric"
    assert worst(found.coefficients, single("trend.batch")) < 1e-7
    assert worst(found(means), theirs) < 1e-7


def test_a_gamma_regression_is_that_of_glm():
    x = np.array([0.3, 0.5, 1.1, 1.7, 2.4, 3.3, 4.6, 7.9])
    y = np.array([2.1, 0.7, 1.4, 0.35, 0.61, 0.2, 0.33, 0.11])
    found, settled = trends.gamma_regression(np.column_stack([np.ones(8), 1 / x]), y, np.array([0.1, 1.0]))
    assert settled
    assert worst(found, single("gamma")) < 1e-9


def test_a_gamma_regression_that_cannot_start_or_is_short_says_so():
    design = np.column_stack([np.ones(5), np.arange(5.0)])
    assert trends.gamma_regression(design, np.ones(5), np.array([-1.0, 0.1])) == (None, False)
    assert trends.gamma_regression(design[:1], np.ones(1), np.array([1.0, 0.1])) == (None, False)


def test_dispersions_that_rise_with_the_mean_get_a_local_trend():
    means = np.exp(np.linspace(0, 8, 200))
    genewise = 0.01 * means**0.3
    assert trends.fit_parametric(means, genewise) is None
    found = trends.fit(means, genewise, "parametric")
    assert found.kind == "local"
    np.testing.assert_allclose(found(means), genewise, rtol=0.02)


def test_genes_far_from_the_trend_do_not_bend_it():
    means = np.exp(np.linspace(0, 8, 300))
    genewise = 0.1 + 3 / means
    genewise[::10] *= 1e4
    assert trends.fit_parametric(means, genewise) == pytest.approx((0.1, 3.0), rel=1e-6)


def test_the_mean_is_rs():
    means, genewise, _ = estimates("trend_local")
    found = trends.fit(means, genewise, "mean")
    assert found(means[:3]).tolist() == list(found.coefficients) * 3
    assert worst(found.coefficients, single("trend.mean")) < 1e-8


def test_a_local_trend_is_rs():
    """Worst seen: 2e-8."""
    means, genewise, theirs = estimates("trend_local")
    assert worst(trends.fit(means, genewise, "local")(means), theirs) < 1e-6


def test_a_local_regression_is_locfits_within_and_beyond_the_data():
    i = np.arange(40)
    x, y = i / 6 + np.sin(i) / 3, np.cos(i / 5) + np.sin(i * i) / 4
    curve = trends.local_regression(x, y, np.exp(x / 2))
    theirs = single("locfit")
    np.testing.assert_allclose(curve(np.array([-1, 0.2, 1, 2.5, 4, 5.5, 6.4, 8])), theirs, rtol=1e-6)


def test_refusals_are_one_line():
    with pytest.raises(DataError, match="trend 'loess': there is parametric, local, mean and none"):
        trends.fit(np.ones(3), np.ones(3), "loess")
    with pytest.raises(DataError, match="take trend='none'"):
        trends.fit(np.ones(3), np.full(3, 1e-8), "parametric")
    with pytest.raises(DataError, match="2 genes are too few for a local trend; take trend='mean'"):
        trends.fit(np.array([3.0, 40]), np.array([0.1, 0.2]), "local")


def test_the_scatter_is_rs():
    _, genewise, trend = estimates("fit_batch")
    assert worst(trends.scatter(genewise, trend), single("scatter.batch")) < 1e-7


def test_the_prior_variance_is_rs():
    _, genewise, trend = estimates("fit_batch")
    assert worst(trends.prior_variance(genewise, trend, 11), single("prior_variance.batch")) < 1e-7


@pytest.mark.parametrize("df", [1, 2, 3, 9])
def test_the_prior_variance_is_rs_estimate_on_any_residuals(df):
    """R draws with three or fewer degrees of freedom; its candidates are 0.008 apart, and the same one is met."""
    i = np.arange(1, single(f"genes.df{df}") + 1)
    found = trends.prior_variance(np.exp(-2 + 3 * np.sin(i**2)), np.full(len(i), np.exp(-2.2)), df)
    assert found == pytest.approx(single(f"prior_variance.df{df}"), rel=1e-12)


def test_the_prior_variance_is_a_quarter_at_least():
    genewise = np.full(50, 0.1)
    for df in (1, 2, 3, 4, 20):
        assert trends.prior_variance(genewise, genewise, df) == 0.25


def test_intervals_of_a_histogram_are_closed_on_the_right_and_ends_are_out():
    counts = trends.histogram(np.array([-11, -10, -9.6, 0, 0.1, 0.5, 9.9, 10, 12]))
    assert counts.sum() == 5
    assert (counts[0], counts[19], counts[20], counts[39]) == (1, 1, 2, 1)


def test_the_smoothing_is_linear_and_keeps_a_line():
    first, second = np.random.default_rng(0).normal(size=(2, 200))
    np.testing.assert_allclose(
        trends.smooth(first + 2 * second), trends.smooth(first) + 2 * trends.smooth(second), atol=1e-12
    )
    np.testing.assert_allclose(trends.smooth(np.linspace(0, 8, 200)), trends.FINE, atol=1e-9)
