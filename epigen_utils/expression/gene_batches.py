"""PyDESeq2's estimates for all genes of a data set at once.

PyDESeq2 fits one gene after another, by general solvers. Here what does not depend on the optimiser runs on arrays,
genes x samples, and each likelihood is evaluated with its gradient. Operations and their order are those of PyDESeq2:
at dispersions near zero the likelihood is flat, and where an optimiser stops there depends on the last bit.
"""

import dataclasses
from collections.abc import Callable

import numpy as np
import scipy
from pydeseq2 import utils
from pydeseq2.default_inference import DefaultInference
from scipy.linalg import lapack, lstsq
from scipy.optimize import minimize
from scipy.special import gammaln, psi
from scipy.stats import norm

#: Genes whose dispersions are estimated together; the optimiser's work space is 10 kB a gene.
GENES_AT_ONCE = 2048

#: SciPy whose L-BFGS-B is known to run step by step; that function is internal, its arguments differ by version.
STEPPED_VERSION = "1.17."

#: What the optimiser asks for after a step.
NEW_ITERATION, EVALUATE, CONVERGED = 1, 3, 4


class GeneBatchInference(DefaultInference):
    """`DefaultInference` of PyDESeq2, which documents the methods, in one process and without repeated work.

    Designs have full rank (`designs.check_design`).
    """

    def __init__(self) -> None:
        super().__init__(n_cpus=1)

    def lin_reg_mu(self, counts, size_factors, design_matrix, min_mu):
        smallest = max(design_matrix.shape) * np.finfo(float).eps
        normalised = (counts / size_factors[:, None]).T.copy()
        coefficients = [lstsq(design_matrix, y, cond=smallest, check_finite=False)[0] for y in normalised]
        return np.maximum(size_factors * _predictions(design_matrix, np.array(coefficients)), min_mu).T

    def irls(self, counts, size_factors, design_matrix, disp, min_mu, beta_tol, **options):
        max_beta, max_steps = options.get("max_beta", 30), options.get("maxiter", 250)
        ridge = np.diag(np.repeat(1e-6, design_matrix.shape[1]))
        y, alpha, q_r = counts.T.astype(float), disp[:, None], np.linalg.qr(design_matrix)
        starts = _predictions(q_r[0].T, np.log(y / size_factors + 0.1))
        beta = np.array([lapack.dtrtrs(q_r[1], start)[0] for start in starts])
        mu = np.maximum(size_factors * np.exp(_predictions(design_matrix, beta)), min_mu)
        fixed = len(counts) * (1 / disp) * np.log(disp)
        logbinom = gammaln(y + 1 / alpha) - gammaln(y + 1) - gammaln(1 / alpha)
        deviance, failed = np.full(len(y), 1000.0), np.zeros(len(y), bool)
        genes, step = np.arange(len(y)), 0
        while len(genes):
            step += 1
            weights = mu[genes] / (1.0 + mu[genes] * alpha[genes])
            working = np.log(mu[genes] / size_factors) + (y[genes] - mu[genes]) / mu[genes]
            scores = _predictions(design_matrix.T, weights * working)
            information = _information(design_matrix, weights) + ridge
            solved = [lapack.dposv(matrix, score)[1:] for matrix, score in zip(information, scores, strict=True)]
            proposed, errors = np.array([x for x, _ in solved]), np.array([error for _, error in solved])
            failed[genes] = (np.abs(proposed) > max_beta).any(axis=1) | (errors != 0) | (step >= max_steps)
            proposed, genes = proposed[~failed[genes]], genes[~failed[genes]]
            beta[genes] = proposed
            mu[genes] = np.maximum(size_factors * np.exp(_predictions(design_matrix, proposed)), min_mu)
            inverse, means = 1 / alpha[genes], mu[genes]
            varying = -logbinom[genes] + (y[genes] + inverse) * np.log(inverse + means) - y[genes] * np.log(means)
            former, deviance[genes] = deviance[genes], -2 * (fixed[genes] + varying.sum(axis=1))
            genes = genes[np.abs(deviance[genes] - former) / (np.abs(deviance[genes]) + 0.1) > beta_tol]
        weights = mu / (1.0 + mu * alpha)
        covariances = np.linalg.inv(_information(design_matrix, weights) + ridge)
        leverage = np.einsum("ij,gjk,ki->gi", design_matrix, covariances, design_matrix.T)
        leverage = np.sqrt(weights) * leverage * np.sqrt(weights)
        mu = size_factors * np.exp(_predictions(design_matrix, beta))
        converged = np.ones(len(y), bool)
        for gene in np.flatnonzero(failed):  # PyDESeq2 starts again, with another optimiser
            beta[gene], mu[gene], leverage[gene], converged[gene] = utils.irls_solver(
                counts[:, gene], size_factors, design_matrix, disp[gene], min_mu, beta_tol, **options
            )
        return beta, mu.T, leverage.T, converged

    def alpha_mle(
        self, counts, design_matrix, mu, alpha_hat, min_disp, max_disp, prior_disp_var=None, cr_reg=True, **options
    ):
        prior = prior_disp_var if options.pop("prior_reg", False) else None
        if not cr_reg or options:
            raise NotImplementedError("dispersions without Cox and Reid's adjustment, or by another optimiser")
        y, means, starts = counts.T.astype(float), mu.T.copy(), np.log(alpha_hat)
        columns = (y, means, gammaln(y + 1), y * np.log(means), starts)
        found, converged = np.empty(len(y)), np.empty(len(y), bool)
        for first in range(0, len(y), GENES_AT_ONCE):
            part = slice(first, first + GENES_AT_ONCE)
            losses = _DispersionLosses(*(column[part] for column in columns), design_matrix, prior)
            found[part], converged[part] = minimise_each(losses, starts[part], (np.log(min_disp), np.log(max_disp)))
        for gene in np.flatnonzero(~converged):
            found[gene] = utils.grid_fit_alpha(
                counts[:, gene], design_matrix, mu[:, gene], alpha_hat[gene], min_disp, max_disp
            )
        return np.exp(found), converged

    def wald_test(self, design_matrix, disp, lfc, mu, ridge_factor, contrast, lfc_null, alt_hypothesis=None):
        if alt_hypothesis is not None:
            raise NotImplementedError("tests of another hypothesis than that of a difference")
        means = mu.T.copy()
        information = _information(design_matrix, means / (1 + means * disp[:, None]))
        direction = np.linalg.inv(information + ridge_factor) @ contrast
        error = np.sqrt((direction[:, None, :] @ information @ direction[:, :, None])[:, 0, 0])
        statistic = (lfc - lfc_null) @ contrast / error
        return 2 * norm.sf(np.abs(statistic)), statistic, error


def _predictions(matrix: np.ndarray, rows: np.ndarray) -> np.ndarray:
    """The matrix times each row, by one product a row: a product of the whole rounds differently."""
    return (matrix @ rows[:, :, None])[:, :, 0]


def _information(design_matrix: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """X' W X of every gene, genes x coefficients x coefficients; the weights are genes x samples."""
    return (design_matrix.T * weights[:, None, :]) @ design_matrix


@dataclasses.dataclass(slots=True)
class _DispersionLosses:
    """Negative log likelihoods of log dispersions, with Cox and Reid's adjustment and a prior, and their slopes.

    `utils.fit_alpha_mle` of PyDESeq2 documents them. Tables are genes x samples.
    """

    y: np.ndarray
    mu: np.ndarray
    log_factorials: np.ndarray
    fixed: np.ndarray
    centers: np.ndarray
    design_matrix: np.ndarray
    prior: float | None

    def __call__(self, log_alpha: np.ndarray, genes: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        y, mu, alpha = self.y[genes], self.mu[genes], np.exp(log_alpha)[:, None]
        inverse = 1 / alpha
        shifted, mean_shifted, scaled = y + inverse, mu + inverse, 1 + mu * alpha
        logbinom = gammaln(shifted) - self.log_factorials[genes] - gammaln(inverse)
        varying = -logbinom + shifted * np.log(mean_shifted) - self.fixed[genes]
        value = y.shape[1] * inverse[:, 0] * np.log(alpha[:, 0]) + varying.sum(axis=1)
        slope = (psi(inverse) - psi(shifted) + np.log(scaled) + (y - mu) / mean_shifted).sum(axis=1)
        slope = alpha[:, 0] * -(np.float_power(inverse[:, 0], 2) * slope)  # a scalar's power, which rounds differently
        weights = mu / scaled
        information = _information(self.design_matrix, weights)
        change = _information(self.design_matrix, -(weights**2))
        adjustment = 0.5 * np.linalg.slogdet(information)[1]
        trace = (np.linalg.inv(information) * change).reshape(len(y), change[0].size).sum(axis=1)
        adjustment_slope = (0.5 * trace) * alpha[:, 0]
        if self.prior is not None:
            distance = log_alpha - self.centers[genes]
            adjustment += np.float_power(distance, 2) / (2 * self.prior)
            adjustment_slope += distance / self.prior
        return value + adjustment, slope + adjustment_slope


def minimise_each(losses: Callable, starts: np.ndarray, bounds: tuple[float, float]) -> tuple[np.ndarray, np.ndarray]:
    """L-BFGS-B (Byrd et al. 1995) on many functions of one variable each, with SciPy's defaults.

    SciPy minimises one function at a time, at ten times the cost of a step; here all take their steps together.

    Parameters
    ----------
    losses
        Maps an array of arguments and the positions of their functions to values and slopes.
    starts
        First argument of each function.

    Returns
    -------
    Arguments, and whether each converged, both of shape (functions,).
    """
    if not scipy.__version__.startswith(STEPPED_VERSION):
        return _minimise_one_by_one(losses, starts, bounds)
    from scipy.optimize import _lbfgsb  # here, since another version may not have it

    n, corrections = len(starts), 10
    x, slopes, values = np.clip(starts, *bounds)[:, None], np.zeros((n, 1)), np.zeros(n)
    low, high, bounded = np.array(bounds[:1]), np.array(bounds[1:]), np.array([2], np.int32)
    work = np.zeros((n, 10 * corrections + 5 + 11 * corrections**2))
    whole = [np.zeros((n, size), np.int32) for size in (3, 2, 4, 44, 2)]
    doubles = np.zeros((n, 29))
    options = (2.2204460492503131e-09 / np.finfo(float).eps, 1e-5)
    running = np.arange(n)
    while True:
        for i in running:
            iwa, task, lsave, isave, ln_task = (table[i] for table in whole)
            state = (work[i], iwa, task, lsave, isave, doubles[i])
            while True:
                _lbfgsb.setulb(
                    corrections, x[i], low, high, bounded, values[i], slopes[i], *options, *state, 20, ln_task
                )
                if task[0] != NEW_ITERATION:
                    break
        running = running[whole[1][running, 0] == EVALUATE]
        if not len(running):
            return x[:, 0], whole[1][:, 0] == CONVERGED
        values[running], slopes[running, 0] = losses(x[running, 0], running)


def _minimise_one_by_one(
    losses: Callable, starts: np.ndarray, bounds: tuple[float, float]
) -> tuple[np.ndarray, np.ndarray]:
    def loss_of(position: int) -> Callable:
        return lambda x: tuple(part[0] for part in losses(x, np.array([position])))

    options = {"jac": True, "method": "L-BFGS-B", "bounds": [bounds]}
    fits = [minimize(loss_of(i), starts[i : i + 1], **options) for i in range(len(starts))]
    return np.array([fit.x[0] for fit in fits]), np.array([fit.success for fit in fits], bool)
