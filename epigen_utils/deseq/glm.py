"""Negative binomial regression of many genes by iteratively reweighted least squares (Love et al. 2014, eq. 1-4).

Tables are samples x genes; coefficients are natural logarithms, coefficients x genes.
"""

import dataclasses
import math

import numpy as np
import torch
from scipy.optimize import minimize
from scipy.special import gammaln
from torch import Tensor

from epigen_utils.deseq import design as designs
from epigen_utils.deseq import elementwise, parts
from epigen_utils.deseq.design import Design

#: Relative change of the deviance that ends the iteration, its longest length, the smallest mean (counts), and the
#: size of a coefficient (natural log) at which R gives up a gene.
TOLERANCE, MAX_STEPS, LEAST_MEAN, LARGEST = 1e-8, 100, 0.5, 30.0

#: Ridge of log2 coefficients, R's default: too weak to shrink, it keeps systems solvable.
RIDGE = 1e-6


@dataclasses.dataclass(slots=True)
class Fit:
    """Fitted models.

    Attributes
    ----------
    beta
        Coefficients x genes, natural log.
    mu
        Means, samples x genes, as counts.
    last_mu
        Means at which the iteration ended, at least `LEAST_MEAN`: R's leverages are of these, also where a general
        optimiser went on.
    settled
        Mask of the genes on which the iteration settled; a general optimiser fitted the others.
    """

    beta: Tensor
    mu: Tensor
    last_mu: Tensor
    settled: Tensor


def regress(counts: Tensor, factors: Tensor, alpha: Tensor, design: Design, penalties: Tensor | None = None) -> Fit:
    """Fit every gene's model; genes on which the iteration fails are fitted by L-BFGS-B, as in R.

    Parameters
    ----------
    factors
        Size factors, samples x 1, or per-gene factors, samples x genes.
    alpha
        Dispersions, genes.
    penalties
        Of squared log2 coefficients, one a coefficient; `RIDGE` by default.
    """
    if design.is_intercept and penalties is None:
        mean = (counts / factors).mean(dim=0)
        mu = factors * mean
        return Fit(mean.log()[None], mu, mu, torch.ones_like(mean, dtype=torch.bool))
    fitted, last_log_mu, settled, start = _iterate(counts, factors, alpha, design, _penalties(design, penalties))
    beta = design.to_coefficients @ fitted
    mu = factors * elementwise.exp(design.basis @ fitted)
    last_mu = mu.clamp(min=LEAST_MEAN)
    last_mu[:, ~settled] = elementwise.exp(last_log_mu)
    for gene in (~settled).nonzero().squeeze(1).tolist():
        column = factors[:, gene if factors.shape[1] > 1 else 0]
        first = beta[:, gene] if (beta[:, gene].abs() < LARGEST).all() else design.to_coefficients @ start[:, gene]
        log2 = _optimise(counts[:, gene], column, alpha[gene], design, _penalties(design, penalties), first)
        beta[:, gene] = log2 * math.log(2)
        mu[:, gene] = column * (design.matrix @ beta[:, gene]).exp()
    return Fit(beta, mu, last_mu, settled)


def _penalties(design: Design, penalties: Tensor | None) -> Tensor:
    return torch.full_like(design.matrix[0], RIDGE) if penalties is None else penalties


def _ridge(design: Design, penalties: Tensor) -> Tensor:
    """Penalties of squared log2 coefficients as a matrix in the basis, in natural logarithms, with an axis of genes."""
    return design.ridge(penalties / math.log(2) ** 2)[:, :, None]


def _iterate(
    counts: Tensor, factors: Tensor, alpha: Tensor, design: Design, penalties: Tensor
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Coefficients in the basis; last log means of the genes that did not settle; those that did, a mask; the start."""
    ridge, device = _ridge(design, penalties), counts.device
    log_factors = elementwise.log(factors)
    start = design.basis.T @ elementwise.log(counts / factors + 0.1)
    fitted, settled = start.clone(), torch.zeros_like(alpha, dtype=torch.bool)
    unsettled, left = [torch.arange(0, device=device)], [counts[:, :0]]
    genes, deviance = torch.arange(len(alpha), device=device), torch.zeros_like(alpha)
    y, a, gamma, shared = counts, alpha, start, factors.shape[1] == 1
    fixed = _log_binomials(y, a)
    log_mu = (log_factors + design.basis @ gamma).clamp(min=math.log(LEAST_MEAN))
    mu = elementwise.exp(log_mu)
    for step in range(MAX_STEPS):
        weights = mu / (mu * a).add_(1)
        working = (y / mu).sub_(1).add_(log_mu).sub_(log_factors).mul_(weights)
        gamma = designs.solve(designs.cholesky(design.information(weights) + ridge), design.basis.T @ working)
        before, log_mu = log_mu, (log_factors + design.basis @ gamma).clamp(min=math.log(LEAST_MEAN))
        mu = elementwise.exp(log_mu)
        last, deviance = deviance, -2 * _log_likelihood(y, log_mu, mu, a, fixed)
        change = (deviance - last).abs() / (deviance.abs() + 0.1)
        too_large = ((design.to_coefficients @ gamma).abs() > LARGEST).any(dim=0)
        failed = too_large | ~change.isfinite()
        good = (change < TOLERANCE) & ~failed if step else torch.zeros_like(failed)
        ended = good | failed
        if step == MAX_STEPS - 1:
            ended = torch.ones_like(ended)
        if ended.any():
            some, bad = genes[ended].to(device), ended & ~good
            fitted[:, some], settled[some] = gamma[:, ended].to(device), good[ended].to(device)
            unsettled.append(genes[bad].to(device))
            left.append(torch.where(too_large, before, log_mu)[:, bad].to(device))
            keep = (~ended).nonzero().squeeze(1)
            if not len(keep):
                break
            genes, a, fixed, deviance = genes[keep], a[keep], fixed[keep], deviance[keep]
            y, mu, log_mu = (elementwise.take(table, keep) for table in (y, mu, log_mu))
            log_factors = log_factors if shared else elementwise.take(log_factors, keep)
            if parts.are_few(y):
                genes, a, fixed, deviance, y, mu, log_mu, log_factors, ridge = (
                    table.cpu() for table in (genes, a, fixed, deviance, y, mu, log_mu, log_factors, ridge)
                )
                design = design.on_cpu
    return fitted, torch.cat(left, dim=1)[:, torch.cat(unsettled).argsort()], settled, start


def _log_binomials(counts: Tensor, alpha: Tensor) -> Tensor:
    """The part of the log likelihood that is without the means, genes."""
    r = 1 / alpha
    terms = elementwise.log_gamma(counts + r) - elementwise.log_gamma(counts + 1)
    return terms.sum(dim=0) - len(counts) * elementwise.log_gamma(r) + counts.sum(dim=0) * alpha.log()


def _log_likelihood(counts: Tensor, log_mu: Tensor, mu: Tensor, alpha: Tensor, fixed: Tensor) -> Tensor:
    return fixed + (counts * log_mu).sub_((counts + 1 / alpha).mul_(elementwise.log1p(mu * alpha))).sum(dim=0)


def log_likelihood(counts: Tensor, mu: Tensor, alpha: Tensor) -> Tensor:
    """Negative binomial log likelihood, genes; means below the smallest number count as that."""
    mu = mu.clamp(min=torch.finfo(mu.dtype).tiny)
    return _log_likelihood(counts, elementwise.log(mu), mu, alpha, _log_binomials(counts, alpha))


def _optimise(
    counts: Tensor, factors: Tensor, alpha: Tensor, design: Design, penalties: Tensor, start: Tensor
) -> Tensor:
    """Minimise the penalised likelihood of one gene over log2 coefficients, with slopes by central differences.

    R's optim, with its defaults: which is not exact, but where it stops is what R reports.
    """
    y, x, f = (part.cpu().numpy() for part in (counts, design.matrix, factors))
    a, weights = float(alpha), penalties.cpu().numpy()
    # what ends the search is relative to the whole likelihood
    constant = (gammaln(y + 1 / a) - gammaln(1 / a) - gammaln(y + 1)).sum() + y.sum() * np.log(a)

    def loss(beta: np.ndarray) -> np.ndarray:
        """Of coefficients x points."""
        eta = np.log(f)[:, None] + np.log(2) * (x @ beta)
        likelihood = y[:, None] * eta - (y[:, None] + 1 / a) * np.logaddexp(0, eta + np.log(a))
        return -likelihood.sum(axis=0) - constant + 0.5 * weights @ np.square(beta)

    def with_slopes(beta: np.ndarray) -> tuple[float, np.ndarray]:
        shifts = 1e-3 * np.eye(len(beta))
        values = loss(np.column_stack([beta[:, None], beta[:, None] + shifts, beta[:, None] - shifts]))
        return float(values[0]), (values[1 : len(beta) + 1] - values[len(beta) + 1 :]) / 2e-3

    options = {"maxiter": 100, "maxcor": 5, "ftol": 1e7 * np.finfo(float).eps, "gtol": 0.0}
    optimum = minimize(
        with_slopes,
        np.clip(start.cpu().numpy() / np.log(2), -LARGEST, LARGEST),
        jac=True,
        method="L-BFGS-B",
        bounds=[(-LARGEST, LARGEST)] * len(x[0]),
        options=options,
    )
    return torch.as_tensor(optimum.x, dtype=start.dtype, device=start.device)


def weights_and_inverse(
    mu: Tensor, alpha: Tensor, design: Design, penalties: Tensor | None = None
) -> tuple[Tensor, Tensor, Tensor]:
    """Weights (samples x genes), the inverse of the penalised information and the information (in the basis)."""
    ridge = 0.0
    if penalties is not None or not design.is_intercept:
        mu, ridge = mu.clamp(min=LEAST_MEAN), _ridge(design, _penalties(design, penalties))
    weights = mu / (1 + mu * alpha)
    information = design.information(weights)
    return weights, designs.inverse(designs.cholesky(information + ridge)), information


def leverages(mu: Tensor, alpha: Tensor, design: Design) -> Tensor:
    """Diagonal of the hat matrix, samples x genes."""
    weights, inverse, _ = weights_and_inverse(mu, alpha, design)
    return weights * design.quadratic(inverse)


def standard_errors(
    mu: Tensor, alpha: Tensor, design: Design, vectors: Tensor, penalties: Tensor | None = None
) -> Tensor:
    """Standard errors of linear combinations of the coefficients, natural log.

    Parameters
    ----------
    vectors
        Combinations x coefficients.

    Returns
    -------
    Combinations x genes.
    """
    _, inverse, information = weights_and_inverse(mu, alpha, design, penalties)
    errors = []
    for vector in vectors @ design.to_coefficients:
        direction = (inverse * vector[None, :, None]).sum(dim=1)
        errors.append((direction * designs.apply(information, direction)).sum(dim=0).clamp(min=0).sqrt())
    return torch.stack(errors)
