"""Tests of a fit: Wald and likelihood-ratio, thresholds on the fold change, Cook's cut-off, independent filtering.

Arrays have a value a gene; NaN stands where R has NA.
"""

import dataclasses
import math

import numpy as np
import torch
from scipy.special import chdtrc, ndtr
from torch import Tensor

from epigen_utils.deseq import glm, outliers, parts
from epigen_utils.deseq.design import Design
from epigen_utils.deseq.fitting import Fit
from epigen_utils.errors import DataError

ALTERNATIVES = ("greaterAbs", "lessAbs", "greater", "less")


@dataclasses.dataclass(slots=True)
class Tests:
    """Results of one test, genes each: fold changes and errors are log2."""

    base_mean: np.ndarray
    log2_fold_change: np.ndarray
    error: np.ndarray
    statistic: np.ndarray
    pvalue: np.ndarray
    padj: np.ndarray


@parts.one_thread_each()
def wald(
    fit: Fit,
    contrast: np.ndarray,
    *,
    compared: np.ndarray | None = None,
    threshold: float = 0.0,
    alternative: str = "greaterAbs",
    **filters: float | bool,
) -> Tests:
    """Wald test of a linear combination of the coefficients.

    Parameters
    ----------
    contrast
        Weights, coefficients.
    compared
        Mask of the samples that the contrast compares, by default those that its weights concern; a gene without counts
        in them has fold change 0.
    threshold, alternative
        Of the log2 fold change: ``greaterAbs`` tests whether its size is above the threshold, ``lessAbs`` whether that
        is below it, ``greater`` whether it is above the threshold, ``less`` whether it is below minus the threshold.
    filters
        Options of `finish`.

    Raises
    ------
    DataError
        If the alternative is unknown, the threshold is negative or, for ``lessAbs``, zero.
    """
    change, error = _estimate(fit, contrast, compared)
    statistic, pvalue = _test(change, error, threshold, alternative)
    return finish(fit, "wald", change, error, statistic, pvalue, **filters)


@parts.one_thread_each()
def likelihood_ratio(
    fit: Fit,
    reduced: np.ndarray,
    contrast: np.ndarray,
    *,
    compared: np.ndarray | None = None,
    **filters: float | bool,
) -> Tests:
    """Likelihood-ratio test of a design against a smaller one; fold changes are those of the ``contrast``.

    Parameters
    ----------
    reduced
        Model matrix, samples x coefficients, spanned by that of the fit.
    compared
        As in `wald`.
    filters
        Options of `finish`.

    Raises
    ------
    DataError
        If the reduced design is not smaller, or not within the full one.
    """
    smaller = Design.of(reduced, fit.counts.device)
    if not smaller.n_coefficients:
        raise DataError("reduced design: it has no terms; leave the intercept in (~1)")
    lost = smaller.matrix - fit.design.basis @ (fit.design.basis.T @ smaller.matrix)
    df = fit.design.n_coefficients - smaller.n_coefficients
    if df < 1 or lost.abs().max() > 1e-8 * smaller.matrix.abs().max():
        raise DataError("reduced design: it must leave out terms of the full one, and add none")
    change, error = _estimate(fit, contrast, compared)
    gains = torch.full_like(fit.genes.base_mean, torch.nan)

    def compare(genes: Tensor) -> None:
        y, alphas = fit.counts_of(genes), fit.genes.dispersion[genes]
        factors = fit.factors_of(genes)
        restricted = glm.regress(y, factors, alphas, smaller)
        full, less = (glm.log_likelihood(y, mu, alphas) for mu in (fit.means(genes), restricted.mu))
        gains[genes] = full - less

    parts.for_each(compare, fit.tested_parts())
    statistic = fit.of_all(2 * gains)
    pvalue = chdtrc(df, np.maximum(statistic, 0))
    return finish(fit, "lrt", change, error, statistic, pvalue, **filters)


def _estimate(fit: Fit, contrast: np.ndarray, compared: np.ndarray | None) -> tuple[np.ndarray, np.ndarray]:
    """Log2 fold changes and their standard errors, genes; `wald` documents ``compared``."""
    vector = torch.as_tensor(np.asarray(contrast, dtype=float), device=fit.counts.device)
    change, error = vector @ fit.genes.beta, torch.full_like(fit.genes.base_mean, torch.nan)

    def estimate(genes: Tensor) -> None:
        alpha = fit.genes.dispersion[genes]
        error[genes] = glm.standard_errors(fit.means(genes), alpha, fit.design, vector[None])[0]

    parts.for_each(estimate, fit.tested_parts())
    change, error = fit.of_all(change / math.log(2)), fit.of_all(error / math.log(2))
    change[_without_counts(fit, _compared_samples(fit.design, contrast) if compared is None else compared)] = 0.0
    return change, error


def _test(change: np.ndarray, error: np.ndarray, threshold: float, alternative: str) -> tuple[np.ndarray, np.ndarray]:
    """Wald statistics and p-values."""
    if alternative not in ALTERNATIVES:
        raise DataError(f"alternative {alternative!r}: there is {', '.join(ALTERNATIVES)}")
    if not threshold >= 0 or (threshold == 0 and alternative == "lessAbs"):
        raise DataError(
            f"threshold {threshold:g}: it must be {'positive' if alternative == 'lessAbs' else 'at least 0'}"
        )
    above, below = (change - threshold) / error, (change + threshold) / error
    if alternative == "greater":
        return np.maximum(above, 0), ndtr(-above)
    if alternative == "less":
        return np.minimum(below, 0), ndtr(below)
    if alternative == "lessAbs":
        return np.minimum(np.maximum(-above, 0), np.maximum(below, 0)), np.maximum(ndtr(above), ndtr(-below))
    distance = (np.abs(change) - threshold) / error
    return np.sign(change) * np.maximum(distance, 0), np.minimum(1, 2 * ndtr(-distance))


def _compared_samples(design: Design, contrast: np.ndarray) -> np.ndarray:
    """Samples that a numeric contrast compares: all if its weights have one sign, since it then compares no groups."""
    contrast = np.asarray(contrast, dtype=float)
    if (contrast >= 0).all() or (contrast <= 0).all():
        return np.zeros(design.n_samples, bool)
    return np.abs(design.matrix.cpu().numpy()) @ (contrast != 0) != 0


def _without_counts(fit: Fit, samples: np.ndarray) -> np.ndarray:
    """Mask of the genes that have coefficients and no counts in some samples; none if there are no samples."""
    seen = fit.seen[torch.as_tensor(samples, device=fit.seen.device)]
    if not len(seen):
        return np.zeros(fit.n_genes, bool)
    return fit.of_all(~seen.any(dim=0) & fit.genes.beta[0].isfinite(), missing=0) > 0


def finish(
    fit: Fit,
    test: str,
    change: np.ndarray,
    error: np.ndarray,
    statistic: np.ndarray,
    pvalue: np.ndarray,
    *,
    alpha: float = 0.1,
    cooks_filter: bool = True,
    independent_filter: bool = True,
    two_groups: bool = False,
) -> Tests:
    """Leave outliers without a p-value, and adjust the others.

    Parameters
    ----------
    test
        ``wald`` or ``lrt``, whose Cook's distances are taken.
    alpha
        FDR that independent filtering is tuned for.
    cooks_filter, independent_filter
        Whether outliers, and genes with low means, are left out.
    two_groups
        Whether the design is one factor of two levels, where R spares an outlier with three larger counts.

    Raises
    ------
    DataError
        If ``alpha`` is not between 0 and 1.
    """
    if not 0 < alpha < 1:
        raise DataError(f"alpha {alpha:g}: a false discovery rate is between 0 and 1")
    mean = fit.of_all(fit.genes.base_mean, missing=0)
    all_zero = fit.of_all(fit.genes.base_mean == 0, missing=0) > 0  # nothing is left without the outlier
    for column, value in ((change, 0.0), (error, 0.0), (statistic, 0.0), (pvalue, 1.0)):
        column[all_zero] = value
    if cooks_filter:
        flagged = fit.of_all(getattr(fit.genes, f"cooks_{test}")) > outliers.cutoff(fit.design)
        if two_groups:
            flagged &= fit.of_all(getattr(fit.genes, f"n_larger_{test}")) < 3
        pvalue[flagged] = np.nan
    padj = filtered_fdr(pvalue, mean, alpha) if independent_filter else benjamini_hochberg(pvalue)
    return Tests(mean, change, error, statistic, pvalue, padj)


def benjamini_hochberg(pvalue: np.ndarray) -> np.ndarray:
    """Adjusted p-values; missing ones are left out."""
    padj = np.full(len(pvalue), np.nan)
    order = np.argsort(-pvalue, kind="stable")  # NaN last
    order = order[: np.count_nonzero(~np.isnan(pvalue))]
    ranks = np.arange(len(order), 0, -1)
    padj[order] = np.minimum(1, np.minimum.accumulate(len(order) / ranks * pvalue[order]))
    return padj


def filtered_fdr(pvalue: np.ndarray, mean: np.ndarray, alpha: float, n_cutoffs: int = 50) -> np.ndarray:
    """Adjusted p-values of the genes above a mean, chosen so that about the most are called (R's ``results``).

    The number called is smoothed over the quantiles of the mean; the lowest quantile whose number is within a residual
    of the smooth maximum is taken.
    """
    lowest = (mean == 0).mean()
    quantiles = np.linspace(lowest, 0.95 if lowest < 0.95 else 1.0, n_cutoffs)
    cutoffs = _quantiles(mean, quantiles)
    called = _called_above(pvalue, mean, cutoffs, alpha)
    chosen = 0
    if called.max() > 10:
        smooth = lowess(quantiles, called.astype(float))
        some = called > 0
        least = smooth.max() - np.sqrt(np.square(called[some] - smooth[some]).mean())
        chosen = int((called > least).argmax())
    return benjamini_hochberg(np.where(mean >= cutoffs[chosen], pvalue, np.nan))


def _called_above(pvalue: np.ndarray, mean: np.ndarray, cutoffs: np.ndarray, alpha: float) -> np.ndarray:
    """Number of genes called at each cut-off of the mean."""
    order = np.argsort(pvalue, kind="stable")[: np.count_nonzero(~np.isnan(pvalue))]
    p, mean = pvalue[order], mean[order]
    called = []
    for cutoff in cutoffs:
        kept = p[mean >= cutoff]
        passing = np.flatnonzero(len(kept) / np.arange(1, len(kept) + 1) * kept < alpha)
        called.append(passing[-1] + 1 if len(passing) else 0)
    return np.array(called)


def _quantiles(values: np.ndarray, shares: np.ndarray) -> np.ndarray:
    """Quantiles in R's arithmetic, since a gene on a cut-off must stay on it."""
    ordered = np.sort(values)
    index = (len(values) - 1) * shares
    low = np.floor(index).astype(int)
    high, weight = np.ceil(index).astype(int), index - low
    return np.where(ordered[low] == ordered[high], ordered[low], (1 - weight) * ordered[low] + weight * ordered[high])


def lowess(x: np.ndarray, y: np.ndarray, *, share: float = 0.2, n_robust: int = 3) -> np.ndarray:
    """Locally weighted straight lines (Cleveland 1979) with robust weights.

    R's ``lowess`` where points are further apart than a hundredth of their range.
    """
    n = len(x)
    distances = np.abs(x[:, None] - x)
    n_near = max(2, min(n, int(share * n + 1e-7)))
    window = np.sort(distances, axis=1)[:, n_near - 1 : n_near]
    near = np.where(distances <= 0.999 * window, (1 - (distances / window) ** 3) ** 3, 0.0)
    near[distances <= 0.001 * window] = 1.0
    robust = np.ones(n)
    for _ in range(n_robust + 1):
        weights = near * robust
        total = weights.sum(axis=1, keepdims=True)
        weights = weights / np.where(total > 0, total, 1)
        centre = (weights * x).sum(axis=1, keepdims=True)
        spread = (weights * (x - centre) ** 2).sum(axis=1, keepdims=True)
        tilted = np.sqrt(spread) > 0.001 * (x[-1] - x[0])
        lever = np.where(tilted, (x[:, None] - centre) / np.where(tilted, spread, 1), 0)
        fitted = np.where(total[:, 0] > 0, (weights * (1 + lever * (x - centre)) * y).sum(axis=1), y)
        residuals = np.abs(y - fitted)
        middle = np.sort(residuals)
        scale = 3 * (middle[n // 2] + middle[n - n // 2 - 1]) if n % 2 == 0 else 6 * middle[n // 2]
        if scale < 1e-7 * residuals.mean():
            break
        robust = np.where(residuals <= 0.999 * scale, (1 - (residuals / scale) ** 2) ** 2, 0.0)
        robust[residuals <= 0.001 * scale] = 1.0
    return fitted
