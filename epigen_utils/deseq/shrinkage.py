"""Shrunken fold changes: DESeq2's normal prior, and apeglm's heavy-tailed one (Zhu, Ibrahim and Love 2019)."""

import math

import numpy as np
import torch
from scipy.optimize import brentq
from scipy.stats import norm
from torch import Tensor

from epigen_utils.deseq import design as designs
from epigen_utils.deseq import elementwise, glm, parts
from epigen_utils.deseq.fitting import Fit
from epigen_utils.errors import DataError

#: Variance of the prior of log2 coefficients that are not shrunken (R), and of natural-log ones in apeglm, a scale.
WIDE_VARIANCE, WIDE_SCALE = 1e6, 15.0

#: Share of the largest coefficients by which the width of the normal prior is matched.
UPPER = 0.05


@parts.one_thread_each()
def normal(fit: Fit, coefficient: int, *, intercept: int | None = 0) -> tuple[np.ndarray, np.ndarray]:
    """Log2 fold change of a coefficient and its standard error under a normal prior (Love et al. 2014, eq. 10-12).

    Every coefficient but the intercept has a prior of its own, whose width matches the largest maximum-likelihood
    estimates. R's ``lfcShrink(type = "normal", coef = ...)``.

    Parameters
    ----------
    intercept
        Position of the intercept; None if the design has none.

    Returns
    -------
    Fold changes and errors, of all genes.

    Raises
    ------
    DataError
        If the fit has no dispersion trend, by which coefficients are weighted.
    """
    if fit.trend is None:
        raise DataError("shrinkage: the normal prior needs a dispersion trend; take shrink='apeglm', or fit a trend")
    beta = fit.genes.beta.cpu().numpy() / math.log(2)
    weights = 1 / (1 / fit.genes.base_mean + fit.genes.trend).cpu().numpy()
    variances = [
        WIDE_VARIANCE if position == intercept else _prior_variance(row, weights) for position, row in enumerate(beta)
    ]
    penalties = 1 / torch.as_tensor(variances, dtype=torch.float64, device=fit.counts.device)
    vector = torch.zeros_like(penalties)
    vector[coefficient] = 1.0
    change, error = (torch.full_like(fit.genes.base_mean, torch.nan) for _ in range(2))

    def shrink(genes: Tensor) -> None:
        alpha = fit.genes.dispersion[genes]
        fitted = glm.regress(fit.counts_of(genes), fit.factors_of(genes), alpha, fit.design, penalties)
        change[genes] = fitted.beta[coefficient]
        error[genes] = glm.standard_errors(fitted.mu, alpha, fit.design, vector[None], penalties)[0]

    parts.for_each(shrink, fit.tested_parts())
    return fit.of_all(change / math.log(2)), fit.of_all(error / math.log(2))


def _prior_variance(beta: np.ndarray, weights: np.ndarray) -> float:
    """Variance of the normal whose upper quantile is that of the weighted sizes of log2 coefficients."""
    usable = np.isfinite(beta) & (np.abs(beta) < 10)
    if not usable.any():
        return WIDE_VARIANCE
    quantile = weighted_quantile(np.abs(beta[usable]), weights[usable], 1 - UPPER)
    return float((quantile / norm.ppf(1 - UPPER / 2)) ** 2)


def weighted_quantile(values: np.ndarray, weights: np.ndarray, share: float) -> float:
    """Quantile of values that count by their weights, whose sum is taken as the number of values."""
    distinct, places = np.unique(values, return_inverse=True)
    reached = np.cumsum(np.bincount(places, weights * len(values) / weights.sum()))
    position = 1 + (reached[-1] - 1) * share
    low = max(math.floor(position), 1)
    high, part = min(low + 1, reached[-1]), position % 1
    at = [distinct[min(np.searchsorted(reached, order), len(distinct) - 1)] for order in (low, high)]
    return float((1 - part) * at[0] + part * at[1])


@parts.one_thread_each()
def apeglm(fit: Fit, coefficient: int, errors: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Log2 fold change of a coefficient and its posterior standard deviation under a Cauchy prior.

    The prior's scale is estimated from all maximum-likelihood estimates and their errors; the other coefficients have a
    wide normal prior.

    Parameters
    ----------
    errors
        Standard errors of the coefficient's estimates, log2, of all genes.

    Returns
    -------
    Fold changes and standard deviations, of all genes.
    """
    mle = fit.of_all(fit.genes.beta[coefficient])
    scale = min(1.0, math.sqrt(cauchy_variance(mle, errors * math.log(2))))
    change, error = (torch.full_like(fit.genes.base_mean, torch.nan) for _ in range(2))

    def shrink(genes: Tensor) -> None:
        change[genes], error[genes] = _mode(fit, genes, coefficient, scale)

    parts.for_each(shrink, fit.tested_parts())
    return fit.of_all(change / math.log(2)), fit.of_all(error / math.log(2))


def cauchy_variance(estimates: np.ndarray, errors: np.ndarray) -> float:
    """Variance of the true effects behind estimates with errors (Efron and Morris 1975), at least 1e-6.

    Raises
    ------
    DataError
        If no estimate has an error.
    """
    usable = np.isfinite(estimates) & np.isfinite(errors) & (errors > 0)
    if not usable.any():
        raise DataError("shrinkage: no gene has an estimate with an error; leave the fold changes unshrunk")
    squares, noise = estimates[usable] ** 2, errors[usable] ** 2

    def excess(variance: float) -> float:
        weights = 1 / np.square(variance + noise)
        return float(((squares - noise) * weights).sum() / weights.sum() - variance)

    least, most = 1e-6, 400.0
    return least if excess(least) < 0 else brentq(excess, least, most)


def _mode(fit: Fit, genes: Tensor, coefficient: int, scale: float) -> tuple[Tensor, Tensor]:
    """Posterior mode of a coefficient and its standard deviation there, natural log, by Newton's method.

    A Cauchy prior can have two modes: the search starts at the estimate and at zero, and the higher one is taken.
    """
    best = None
    for shrunken in (False, True):
        beta = fit.genes.beta[:, genes].clone()
        if shrunken:
            beta[coefficient] = 0.0
        height, beta, spread = _climb(fit, genes, beta, coefficient, scale)
        if best is None:
            best = [height, beta, spread]
        else:
            higher = height > best[0]
            best = [torch.where(higher, new, old) for new, old in zip((height, beta, spread), best, strict=True)]
    return best[1], best[2]


def _climb(fit: Fit, genes: Tensor, beta: Tensor, coefficient: int, scale: float) -> tuple[Tensor, Tensor, Tensor]:
    """Log posterior, coefficient and its standard deviation where Newton's method from ``beta`` converges, else NaN."""
    y, factors, alpha = fit.counts_of(genes), fit.factors_of(genes), fit.genes.dispersion[genes]
    matrix, p = fit.design.matrix, fit.design.n_coefficients
    products = (matrix[:, :, None] * matrix[:, None, :]).reshape(len(matrix), -1).T
    wide = torch.full_like(matrix[0], 1 / WIDE_SCALE**2)
    wide[coefficient] = 0.0
    own = torch.zeros_like(wide)
    own[coefficient] = 1.0
    log_factors = elementwise.log(factors)

    def height(beta: Tensor) -> Tensor:
        eta = log_factors + matrix @ beta
        likelihood = (y * eta - (y + 1 / alpha) * elementwise.log1p(elementwise.exp(eta) * alpha)).sum(dim=0)
        return likelihood - (0.5 * wide @ beta.square()) - torch.log1p((beta[coefficient] / scale).square())

    def slope_and_curvature(beta: Tensor, *, convex: bool) -> tuple[Tensor, Tensor]:
        mu = elementwise.exp(log_factors + matrix @ beta)
        share = 1 + mu * alpha
        b = beta[coefficient]
        slope = matrix.T @ ((y - mu) / share) - wide[:, None] * beta
        slope[coefficient] -= 2 * b / (scale**2 + b.square())
        curvature = (products @ (mu * (1 + y * alpha) / share.square())).reshape(p, p, -1) + torch.diag(wide)[
            :, :, None
        ]
        prior = 2 * (scale**2 - b.square()) / (scale**2 + b.square()).square()
        curvature[coefficient, coefficient] += prior.clamp(min=0) if convex else prior
        return slope, curvature

    value = height(beta)
    for _ in range(100):
        slope, curvature = slope_and_curvature(beta, convex=True)
        step = designs.solve(designs.cholesky(curvature), slope)
        size = torch.ones_like(value)
        for _ in range(30):
            proposal = beta + size * step
            proposed = height(proposal)
            worse = ~(proposed >= value - 1e-12 * value.abs())
            if not worse.any():
                break
            size = torch.where(worse, size / 2, size)
        beta = torch.where(worse, beta, proposal)
        change, value = (proposed - value).abs(), torch.where(worse, value, proposed)
        converged = worse | ((change < 1e-10 * (1 + value.abs())) & (step.abs().amax(dim=0) < 1e-6))
        if converged.all():
            break
    _, curvature = slope_and_curvature(beta, convex=False)
    variance = designs.inverse(designs.cholesky(curvature))[coefficient, coefficient]
    missing = torch.full_like(value, torch.nan)
    return (
        torch.where(converged, value, -torch.inf),
        torch.where(converged, beta[coefficient], missing),
        torch.where(converged, variance.sqrt(), missing),
    )
