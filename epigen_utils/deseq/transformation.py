"""The variance stabilising transformation of counts (Anders and Huber 2010; R's ``vst``)."""

import numpy as np
from scipy.interpolate import CubicSpline

from epigen_utils.deseq import fitting, size_factors
from epigen_utils.deseq.trends import Trend
from epigen_utils.errors import DataError

#: Mean normalised count above which a gene may be among the few that R's ``vst`` fits the trend on.
LEAST_MEAN = 5


def vst(
    counts: np.ndarray,
    design: np.ndarray,
    *,
    factors: str | np.ndarray = "ratio",
    n_genes: int | None = None,
    trend_kind: str = "parametric",
) -> np.ndarray:
    """Transform counts to a scale on which their variance hardly depends on their mean; log2 for large counts.

    Parameters
    ----------
    counts, design, factors, trend_kind
        As in `fitting.fit`; an intercept alone as the design for a blind transformation.
    n_genes
        Number of genes that the dispersion trend is fitted on, evenly over the means above `LEAST_MEAN`: 1000 in R's
        ``vst``; None for all, as in R's ``varianceStabilizingTransformation``.

    Returns
    -------
    Samples x genes.

    Raises
    ------
    DataError
        As `fitting.fit`; or if there are fewer genes above the mean than requested.
    """
    if isinstance(factors, str):
        factors = size_factors.estimate(counts, factors)
    by_sample = np.asarray(factors, dtype=float)
    by_sample = by_sample[:, None] if by_sample.ndim == 1 else by_sample
    normalised = counts / by_sample
    chosen = slice(None) if n_genes is None else spread_over_means(normalised.mean(axis=0), n_genes)
    given = factors if np.ndim(factors) == 1 else by_sample[:, chosen]
    fit = fitting.fit_trend(counts[:, chosen], design, factors=given, trend_kind=trend_kind)
    return transform(normalised, fit.trend, float((1 / by_sample.mean(axis=1)).mean()))


def spread_over_means(means: np.ndarray, n_genes: int) -> np.ndarray:
    """Positions of genes evenly over the order of their means, of those above `LEAST_MEAN`.

    Raises
    ------
    DataError
        If there are not so many.
    """
    above = np.flatnonzero(means > LEAST_MEAN)
    if len(above) < n_genes:
        raise DataError(
            f"vst: {len(above)} genes have a mean normalised count above {LEAST_MEAN}, {n_genes} are required; "
            "take all genes (n_genes=None)"
        )
    order = above[np.argsort(means[above], kind="stable")]
    return order[np.round(np.linspace(1, len(order), n_genes)).astype(int) - 1]


def transform(normalised: np.ndarray, trend: Trend, mean_inverse_factor: float) -> np.ndarray:
    """Transform normalised counts by a dispersion trend.

    Parameters
    ----------
    normalised
        Counts over size factors, samples x genes.
    mean_inverse_factor
        Mean over samples of one over the size factor; for a local trend.
    """
    if trend.kind == "parametric":
        asymptote, extra = trend.coefficients
        scaled = asymptote * normalised
        root = np.sqrt(scaled * (1 + extra + scaled))
        return np.log2((1 + extra + 2 * scaled + 2 * root) / (4 * asymptote))
    if trend.kind == "mean":
        (alpha,) = trend.coefficients
        return (2 * np.arcsinh(np.sqrt(alpha * normalised)) - np.log(alpha) - np.log(4)) / np.log(2)
    return _integrate(normalised, trend, mean_inverse_factor)


def _integrate(normalised: np.ndarray, trend: Trend, mean_inverse_factor: float) -> np.ndarray:
    """One over the standard deviation, integrated, and scaled to log2 between two high quantiles of the means."""
    grid = np.sinh(np.linspace(0, np.arcsinh(normalised.max()), 1000))[1:]
    rate = 1 / np.sqrt(trend(grid) * grid**2 + mean_inverse_factor * grid)
    steps = np.diff(grid) * (rate[1:] + rate[:-1]) / 2
    curve = CubicSpline(np.arcsinh((grid[1:] + grid[:-1]) / 2), np.cumsum(steps))
    low, high = np.quantile(normalised.mean(axis=0), [0.95, 0.999])
    scale = (np.log2(high) - np.log2(low)) / (curve(np.arcsinh(high)) - curve(np.arcsinh(low)))
    return np.log2(low) + scale * (curve(np.arcsinh(normalised)) - curve(np.arcsinh(low)))
