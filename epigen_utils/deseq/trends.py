"""The trend of dispersions over means, and how far genes scatter around it (Love et al. 2014, eq. 6 and 9)."""

import dataclasses
import functools
from collections.abc import Callable

import numpy as np
from scipy.interpolate import CubicHermiteSpline
from scipy.special import polygamma

from epigen_utils.deseq.dispersions import LOWEST
from epigen_utils.errors import DataError

#: Smallest prior variance of log dispersions.
LEAST_VARIANCE = 0.25

#: Median absolute deviation of a standard normal is one over this.
MAD_SCALE = 1.4826

#: Share of the genes in a local regression's window (locfit's ``nn``), and length of a cell of its mesh, in windows.
WINDOW, CELL = 0.7, 0.8


@dataclasses.dataclass(frozen=True)
class Trend:
    """A fitted trend: its kind, its function of mean counts, and the coefficients of a parametric or constant one."""

    kind: str
    function: Callable[[np.ndarray], np.ndarray]
    coefficients: tuple[float, ...] = ()

    def __call__(self, means: np.ndarray) -> np.ndarray:
        return self.function(means)


def fit(means: np.ndarray, genewise: np.ndarray, kind: str) -> Trend:
    """Fit the trend of gene-wise dispersions over mean normalised counts.

    Parameters
    ----------
    kind
        ``parametric`` (asymptote + extra / mean), ``local`` where its fit fails; ``local``, a local regression of the
        logarithms; ``mean``, a constant.

    Raises
    ------
    DataError
        If no gene's dispersion is above the minimum, or the kind is unknown.
    """
    if kind not in ("parametric", "local", "mean"):
        raise DataError(f"trend {kind!r}: there is parametric, local, mean and none")
    usable = genewise > 100 * LOWEST
    if not usable.any():
        raise DataError(
            "dispersions: those of all genes are within two orders of magnitude of the smallest allowed, so that no "
            "trend can be fitted; these counts vary no more than Poisson counts do: take trend='none'"
        )
    if kind == "mean":
        above = np.sort(genewise[genewise > 10 * LOWEST])
        cut = int(len(above) * 0.001)
        constant = float(above[cut : len(above) - cut].mean())
        return Trend("mean", lambda x: np.full(len(x), constant), (constant,))
    if kind == "parametric":
        coefficients = fit_parametric(means[usable], genewise[usable])
        if coefficients is not None:
            asymptote, extra = coefficients
            return Trend("parametric", lambda x: asymptote + extra / x, (asymptote, extra))
    curve = local_regression(np.log(means[usable]), np.log(genewise[usable]), means[usable])
    return Trend("local", lambda x: np.exp(curve(np.log(x))))


def fit_parametric(means: np.ndarray, genewise: np.ndarray) -> tuple[float, float] | None:
    """Asymptote and extra of dispersion = asymptote + extra / mean; None where the fit fails.

    A gamma regression is repeated without the genes far from its last fit, until the coefficients stay.
    """
    coefficients = np.array([0.1, 1.0])
    design = np.column_stack([np.ones(len(means)), 1 / means])
    for _ in range(11):
        residuals = genewise / (design @ coefficients)
        good = (residuals > 1e-4) & (residuals < 15)
        fitted, converged = gamma_regression(design[good], genewise[good], coefficients)
        if fitted is None or not (fitted > 0).all():
            return None
        change = np.square(np.log(fitted / coefficients)).sum()
        coefficients = fitted
        if change < 1e-6 and converged:
            return float(fitted[0]), float(fitted[1])
    return None


def gamma_regression(design: np.ndarray, y: np.ndarray, start: np.ndarray) -> tuple[np.ndarray | None, bool]:
    """Gamma regression with identity link by R's iteration, which halves a step that leaves the valid means.

    Returns
    -------
    Coefficients, or None where no valid ones are met, and whether the deviance settled.
    """
    if len(y) < design.shape[1]:
        return None, False
    former, mu = start, design @ start
    if not _is_valid(mu):
        return None, False
    deviance = _gamma_deviance(y, mu)
    for _ in range(25):
        fitted = np.linalg.lstsq(design / mu[:, None], y / mu, rcond=None)[0]
        if not np.isfinite(fitted).all():
            return fitted, False
        for _ in range(27):
            mu = design @ fitted
            if _is_valid(mu) and np.isfinite(_gamma_deviance(y, mu)):
                break
            fitted = (fitted + former) / 2
        else:
            return None, False
        last, deviance = deviance, _gamma_deviance(y, mu)
        if abs(deviance - last) / (abs(deviance) + 0.1) < 1e-8:
            return fitted, True
        former = fitted
    return fitted, False


def _is_valid(mu: np.ndarray) -> bool:
    return bool(np.isfinite(mu).all() and (mu > 0).all())


def _gamma_deviance(y: np.ndarray, mu: np.ndarray) -> float:
    return float(-2 * (np.log(y / mu) - (y - mu) / mu).sum())


def scatter(genewise: np.ndarray, trend: np.ndarray) -> float:
    """Variance of log dispersions around the trend, by the median absolute deviation."""
    residuals = _log_residuals(genewise, trend)
    return float((MAD_SCALE * np.median(np.abs(residuals - np.median(residuals)))) ** 2)


def _log_residuals(genewise: np.ndarray, trend: np.ndarray) -> np.ndarray:
    usable = genewise >= 100 * LOWEST
    return np.log(genewise[usable]) - np.log(trend[usable])


def prior_variance(
    genewise: np.ndarray, trend: np.ndarray, residual_df: int, tables: dict[str, np.ndarray] | None = None
) -> float:
    """Variance of the prior of log dispersions: the scatter less what estimation adds.

    The sampling variance of a log dispersion is trigamma(df / 2); with three or fewer residual degrees of freedom it is
    too far from normal for that, and the variance is the one whose simulated residuals look most like those observed;
    ``tables`` are those of the simulation, by default the packed ones (data/reference/deseq2_tables.py).
    """
    if residual_df > 3:
        return max(scatter(genewise, trend) - float(polygamma(1, residual_df / 2)), LEAST_VARIANCE)
    tables = _simulated() if tables is None else tables
    return max(_matched_variance(_log_residuals(genewise, trend), residual_df, tables), LEAST_VARIANCE)


#: Breaks of the histograms of log residuals, and the candidate variances between which a minimum is looked for.
BREAKS, FINE = np.arange(-20, 21) / 2, np.linspace(0, 8, 1000)


def _matched_variance(residuals: np.ndarray, residual_df: int, tables: dict[str, np.ndarray]) -> float:
    """The variance at which simulated residuals differ least, by Kullback-Leibler divergence, from those observed."""
    observed = _densities(histogram(residuals))
    simulated = _densities(tables["counts"][residual_df - 1])
    both = np.concatenate([simulated, np.broadcast_to(observed, simulated.shape)], axis=1)
    small = np.where(both > 0, both, np.inf).min(axis=1, keepdims=True)
    divergences = (observed * (np.log(observed + small) - np.log(simulated + small))).sum(axis=1)
    return float(FINE[smooth(divergences, tables).argmin()])


@functools.cache
def _simulated() -> dict[str, np.ndarray]:
    """R's seeded histograms and its loess, by data/reference/deseq2_tables.R."""
    from epigen_utils import paths  # what it imports, the engine needs for few samples alone

    with np.load(paths.DATA / "reference/deseq2_prior_variance.npz") as tables:
        return dict(tables)


def histogram(values: np.ndarray) -> np.ndarray:
    """Counts of values between the breaks, each interval closed on the right as in R."""
    inside = values[(values > BREAKS[0]) & (values < BREAKS[-1])]
    return np.bincount(np.searchsorted(BREAKS, inside) - 1, minlength=len(BREAKS) - 1)


def _densities(counts: np.ndarray) -> np.ndarray:
    return counts / counts.sum(axis=-1, keepdims=True) / np.diff(BREAKS)


def smooth(values: np.ndarray, tables: dict[str, np.ndarray] | None = None) -> np.ndarray:
    """R's loess (span 0.2) through values at 200 equally spaced variances, at the variances of `FINE`.

    A loess with given positions is linear in its values: the tables hold value and slope at each vertex of its mesh,
    and the weights of the cubics between them.
    """
    tables = _simulated() if tables is None else tables
    heights, slopes, cell = tables["values"] @ values, tables["slopes"] @ values, tables["cell"].astype(int)
    parts = np.stack([heights[cell], heights[cell + 1], slopes[cell], slopes[cell + 1]], axis=1)
    return (tables["weights"] * parts).sum(axis=1)


def local_regression(x: np.ndarray, y: np.ndarray, weights: np.ndarray) -> Callable[[np.ndarray], np.ndarray]:
    """Weighted local quadratic regression as R's locfit has it by default (Loader 1999).

    Values and slopes are computed at the vertices of a mesh that is as fine as the windows are narrow, with cubics
    between them; beyond the data the curve bends as the quadratic through all points does.

    Raises
    ------
    DataError
        If there are too few points for a window.
    """
    n_near = int(len(x) * WINDOW)
    if n_near < 3 or len(np.unique(x)) < 3:
        raise DataError(f"dispersions: {len(x)} genes are too few for a local trend; take trend='mean'")

    def at(vertex: float) -> tuple[float, float, float]:
        """Width of the window, value and slope at a vertex."""
        distances = np.abs(x - vertex)
        width = np.partition(distances, n_near - 1)[n_near - 1]
        near = np.where(distances < width, (1 - np.minimum(distances / width, 1) ** 3) ** 3, 0.0)
        value, slope, _ = _quadratic(x - vertex, y, near * weights)
        return width, value, slope

    vertices = {float(end): at(end) for end in (x.min(), x.max())}
    cells = [(x.min(), x.max())]
    while cells:
        low, high = cells.pop()
        if high - low > CELL * min(vertices[low][0], vertices[high][0]):
            middle = (low + high) / 2
            vertices[middle] = at(middle)
            cells += [(low, middle), (middle, high)]
    knots = np.array(sorted(vertices))
    values, slopes = np.array([vertices[knot][1:] for knot in knots]).T
    inside = CubicHermiteSpline(knots, values, slopes)
    bend = _quadratic(x - np.average(x, weights=weights), y, weights)[2]

    def curve(points: np.ndarray) -> np.ndarray:
        within = np.clip(points, knots[0], knots[-1])
        beyond = points - within
        slope = np.where(beyond < 0, slopes[0], slopes[-1])
        return inside(within) + slope * beyond + bend * beyond**2

    return curve


def _quadratic(x: np.ndarray, y: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """Coefficients of a weighted quadratic, the constant first."""
    roots = np.sqrt(weights)
    return np.linalg.lstsq(np.vander(x, 3, increasing=True) * roots[:, None], y * roots, rcond=None)[0]
