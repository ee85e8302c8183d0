import numpy as np
import pytest
from deseq_units import by_sample, counts, design, worst
from scipy.integrate import quad

from epigen_utils.deseq import fitting, size_factors, transformation
from epigen_utils.deseq.trends import Trend
from epigen_utils.errors import DataError

SOME = slice(1, 9)


@pytest.mark.parametrize(
    ("name", "terms", "options"),
    [
        ("blind", (), {}),
        ("few", (), {"n_genes": 60}),
        ("design", ("batch", "condition"), {}),
        ("mean", ("condition",), {"trend_kind": "mean"}),
        ("local", ("condition",), {"trend_kind": "local"}),
    ],
)
def test_a_transformation_is_rs(name, terms, options):
    """Worst seen: 2e-8; 4e-6 of the local trend, which R integrates by a spline with other ends."""
    ours = transformation.vst(counts(), design(*terms), **options)
    assert worst(ours[:, SOME], by_sample("vst", name)) < (1e-4 if name == "local" else 1e-6)


def test_genes_are_chosen_evenly_over_their_means():
    means = np.array([1, 100, 30, 6, 4, 50, 7, 20])
    assert transformation.spread_over_means(means, 3).tolist() == [3, 2, 1]
    assert transformation.spread_over_means(means, 6).tolist() == [3, 6, 7, 2, 5, 1]
    with pytest.raises(DataError, match=r"6 genes have a mean normalised count above 5, 1000 are required; take all"):
        transformation.spread_over_means(means, 1000)


def parametric(asymptote, extra):
    return Trend("parametric", lambda x: asymptote + extra / x, (asymptote, extra))


@pytest.mark.parametrize("trend", [parametric(0.07, 2.5), Trend("mean", lambda x: 0.2 + 0 * x, (0.2,))])
def test_the_slope_is_one_over_the_standard_deviation(trend):
    """Up to a constant: of counts at the mean, with the Poisson part."""
    at = np.array([0.5, 4, 60, 2e3])
    rise = transformation.transform(at * 1.001, trend, 1.0) - transformation.transform(at * 0.999, trend, 1.0)
    expected = 0.002 * at / np.sqrt(at + trend(at) * at**2)
    np.testing.assert_allclose(rise / expected, rise[0] / expected[0], rtol=1e-5)


@pytest.mark.parametrize("trend", [parametric(0.07, 2.5), Trend("mean", lambda x: 0.2 + 0 * x, (0.2,))])
def test_large_counts_are_on_the_log2_scale(trend):
    values = transformation.transform(np.array([1e7, 2e7]), trend, 1.0)
    np.testing.assert_allclose(values, np.log2([1e7, 2e7]), atol=1e-5)


def test_a_local_trend_is_integrated():
    """The trend of the parametric kind, integrated by the other branch, has its shape."""
    closed = parametric(0.07, 2.5)
    normalised = np.exp(np.random.default_rng(0).uniform(0, 9, size=(6, 400)))
    ours = transformation.transform(normalised, Trend("local", closed.function), 1.0)

    def between(low, high):
        return quad(lambda x: 1 / np.sqrt(x + closed(x) * x**2), low, high, limit=200)[0]

    order = np.argsort(normalised.ravel())[[200, 900, 1600, 2300]]
    x, y = normalised.ravel()[order], ours.ravel()[order]
    whole = between(x[0], x[-1])
    for i in (1, 2):
        assert (y[i] - y[0]) / (y[-1] - y[0]) == pytest.approx(between(x[0], x[i]) / whole, abs=2e-3)


def test_factors_are_given_or_estimated():
    own = size_factors.estimate(counts())
    first = transformation.vst(counts(), design())
    np.testing.assert_allclose(transformation.vst(counts(), design(), factors=own), first)
    of_counts = np.repeat(own[:, None], 150, axis=1)
    np.testing.assert_allclose(transformation.vst(counts(), design(), factors=of_counts, n_genes=60), transformation.vst(counts(), design(), n_genes=60))  # fmt: skip


def test_the_trend_is_of_the_design():
    blind, informed = (fitting.fit_trend(counts(), design(*terms)).trend for terms in ((), ("condition",)))
    assert blind.coefficients[0] > informed.coefficients[0], "effects count as scatter where the design is not told"
