"""Log posteriors of dispersions as polynomials of the log dispersion around a point of each gene.

Where counts are many, a search stays close to its start. What it needs of the samples is then a few moments, computed
once: a step takes a time that does not grow with their number, and the searches with and without a prior share them.

In the deviation s of the log dispersion from the centre, log(1 + mu alpha) is a constant and log(1 + p (exp(s) - 1))
with p = mu alpha / (1 + mu alpha): its series in z = exp(s) - 1 has the powers of p, of which sums are taken. Log gamma
is, for a small count, a sum of such logarithms, and otherwise Stirling's series, in q = r / (y + r) with r = 1 / alpha
and v = exp(-s) - 1. Tables are samples x genes.
"""

import dataclasses
import math
from collections.abc import Iterator

import numpy as np
import torch
from torch import Tensor

from epigen_utils.deseq import design as designs
from epigen_utils.deseq import elementwise
from epigen_utils.deseq.posteriors import Posterior

#: Degree of the polynomials, and how far from its centre one is used: what they leave out is then within the
#: rounding of a log posterior of large counts, and at most 1e-9.
DEGREE, RADIUS = 16, 0.6

#: Samples from which on an expansion pays, and the least log dispersion at which rounding leaves it exact enough.
LEAST_SAMPLES, LEAST_CENTRE = 20, math.log(1e-4)

#: Points of the determinant's polynomial, in units of `RADIUS`.
NODES = np.cos(np.pi * np.arange(9) / 8)


def _series_of_powers() -> np.ndarray:
    """Series of the powers of exp(s) - 1 in s, by columns."""
    base = np.array([0.0] + [1 / math.factorial(k) for k in range(1, DEGREE + 1)])
    columns = [np.eye(DEGREE + 1)[0]]
    for _ in range(DEGREE):
        columns.append(np.convolve(columns[-1], base)[: DEGREE + 1])
    return np.column_stack(columns)


_ORDERS = np.arange(DEGREE + 1)

#: Series in s: of the powers of z and of v; of log(1 + p z) from the powers of p, from the first on; and of a series
#: times exp(-s).
OF_Z = _series_of_powers()
OF_V = OF_Z * (-1.0) ** _ORDERS[:, None]
OF_LOG = OF_Z[:, 1:] * (-1.0) ** (_ORDERS[1:] - 1) / _ORDERS[1:]
DECAY = np.array([[(-1) ** (k - i) / math.factorial(k - i) if i <= k else 0 for i in _ORDERS] for k in _ORDERS])

#: Takes values at `NODES` to coefficients.
OF_NODES = np.linalg.inv(np.vander(NODES, increasing=True))


@dataclasses.dataclass(slots=True)
class Expansion:
    """Log posteriors of genes near their centres; has the methods of `Posterior` that a search needs.

    Attributes
    ----------
    coefficients
        Of the powers of (log dispersion - centre) / `RADIUS`, from the 0th on, powers x genes; without the prior.
    centre
        Log dispersions, genes; NaN for a gene that is not expanded.
    rounding
        As that of `Posterior`.
    centres, variance
        The normal prior; None for none.
    """

    coefficients: Tensor
    centre: Tensor
    rounding: Tensor
    centres: Tensor | None = None
    variance: float | None = None

    @classmethod
    def empty(cls, like: Tensor) -> "Expansion":
        """Of no gene yet; ``like`` has a value a gene."""
        return cls(like.new_zeros((DEGREE + 1, len(like))), torch.full_like(like, torch.nan), torch.zeros_like(like))

    def put(self, genes: Tensor, posterior: Posterior, centre: Tensor) -> None:
        """Expand some genes, by their positions; their posterior is without a prior."""
        self.coefficients[:, genes] = _expand(posterior, centre).to(self.centre.device)
        self.centre[genes], self.rounding[genes] = (x.to(self.centre.device) for x in (centre, posterior.rounding))

    def with_prior(self, centres: Tensor | None, variance: float | None) -> "Expansion":
        """The same under a prior."""
        return dataclasses.replace(self, centres=centres, variance=variance)

    def of(self, genes: Tensor) -> "Expansion":
        """The same for some genes, by their positions."""
        centres = None if self.centres is None else self.centres[genes]
        coefficients = elementwise.take(self.coefficients, genes)
        return Expansion(coefficients, self.centre[genes], self.rounding[genes], centres, self.variance)

    kept = of

    def reach(self, log_alpha: Tensor) -> Tensor:
        """How far from log dispersions an expansion may be used, genes; below zero where it may not be used there."""
        return (RADIUS - (log_alpha - self.centre).abs()).nan_to_num(nan=-1.0)

    def evaluate(self, log_alpha: Tensor) -> tuple[Tensor, Tensor]:
        """Log posterior up to a constant of the gene, genes, and where that is."""
        value = _horner(self.coefficients, (log_alpha - self.centre) / RADIUS)
        if self.variance is not None:
            value -= 0.5 * (log_alpha - self.centres).square() / self.variance
        return value, log_alpha

    def slope(self, log_alpha: Tensor) -> Tensor:
        """Derivative of the log posterior, genes."""
        slope = _horner(_derivative(self.coefficients), (log_alpha - self.centre) / RADIUS)
        return slope if self.variance is None else slope - (log_alpha - self.centres) / self.variance

    def slopes(self, moved: Tensor, log_alpha: Tensor, slope: Tensor) -> Tensor:
        """The slopes with new ones of the genes in a mask."""
        return torch.where(moved, self.slope(log_alpha), slope)

    def curvature(self, log_alpha: Tensor) -> Tensor:
        """Negative second derivative of the log posterior, at least 0, genes."""
        second = _derivative(_derivative(self.coefficients))
        curvature = -_horner(second, (log_alpha - self.centre) / RADIUS)
        return (curvature if self.variance is None else curvature + 1 / self.variance).clamp(min=0)


def _horner(coefficients: Tensor, x: Tensor) -> Tensor:
    value = coefficients[-1].clone()
    for coefficient in coefficients[:-1].flip(0):
        value.mul_(x).add_(coefficient)
    return value


def _derivative(coefficients: Tensor) -> Tensor:
    """Coefficients of the derivative with respect to the log dispersion."""
    powers = torch.arange(1, len(coefficients), dtype=coefficients.dtype, device=coefficients.device)
    return coefficients[1:] * powers[:, None] / RADIUS


def _expand(posterior: Posterior, centre: Tensor) -> Tensor:
    """Coefficients of `Expansion`."""
    value, point = posterior.evaluate(centre)
    alpha, n_coefficients = centre.exp(), posterior.design.n_coefficients
    r, p = 1 / alpha, point.weights * alpha
    sums, products = [], []
    for power in _powers(p, DEGREE):
        sums.append(power.sum(dim=0))
        products.append(posterior.design.information(power))
    logs = _apply(OF_LOG, torch.stack(sums))
    logs[0] = point.sum_logs
    series = _log_gammas(posterior, r) - _apply(OF_LOG, _moments(p, posterior.counts)) - r * _apply(DECAY, logs)
    series[1] += 0.5 * n_coefficients  # the information is r times that of weights p (1 + z) / (1 + p z), a derivative
    series *= series.new_tensor(RADIUS**_ORDERS)[:, None]
    series[: len(NODES)] -= 0.5 * _log_determinants(_apply(OF_LOG, torch.stack(products)))
    series[0] = value
    return series


def _apply(matrix: np.ndarray, tables: Tensor) -> Tensor:
    """A matrix times tables, along their first axis."""
    return torch.tensordot(torch.as_tensor(matrix, device=tables.device), tables, 1)


def _powers(p: Tensor, n: int) -> Iterator[Tensor]:
    """The first powers of a table, each in the place of the one before."""
    power = p.clone()
    yield power
    for _ in range(n - 1):
        yield power.mul_(p)


def _moments(p: Tensor, weights: Tensor | None = None, n: int = DEGREE) -> Tensor:
    """Sums over rows of the first powers of p, with weights, powers x genes."""
    if weights is None:
        return torch.stack([power.sum(dim=0) for power in _powers(p, n)])
    term = weights * p
    sums = [term.sum(dim=0)]
    for _ in range(n - 1):
        sums.append(term.mul_(p).sum(dim=0))
    return torch.stack(sums)


def _log_gammas(posterior: Posterior, r: Tensor) -> Tensor:
    """Series in s, without its constant, of `Posterior.log_gammas`."""
    rows = posterior.rows()
    series = _apply(OF_LOG, _moments(rows / (rows + r), posterior.tails))
    if posterior.large is None:
        return series
    n_samples, least = len(posterior.counts), len(rows) + r
    x = posterior.large + r
    n_moments = DEGREE + 3
    moments = _moments(r / x, n=n_moments) - n_samples * _moments((r / least)[None], n=n_moments)
    orders = r.new_tensor(_ORDERS[1:])[:, None]
    signs = (-1) ** orders
    # (x - 1/2) log(x) - x, of which the terms that moments of order 0 would give cancel
    terms = 0.5 * signs / orders * moments[:DEGREE]
    terms[0] += r * (elementwise.log(x).sum(dim=0) - n_samples * least.log())
    terms[1:] += r * (signs / (orders * (orders - 1)))[1:] * moments[: DEGREE - 1]
    for k, coefficient in enumerate(elementwise.STIRLING[:5]):
        power = 2 * k + 1  # of 1 / x
        some = moments[power : power + DEGREE]  # of high orders few: they are small
        binomials = r.new_tensor([(-1) ** m * math.comb(power + m - 1, m) for m in range(1, len(some) + 1)])
        terms[: len(some)] += coefficient * binomials[:, None] * some / r**power
    series += _apply(OF_V[:, 1:], terms)
    series[1] += posterior.beyond
    return series


def _log_determinants(pairs: Tensor) -> Tensor:
    """Coefficients, in units of `RADIUS`, of log det of the derivative of matrices given as series in s."""
    derivative = pairs[1:] * pairs.new_tensor(_ORDERS[1:])[:, None, None, None]
    matrices = _apply(np.vander(NODES * RADIUS, DEGREE, increasing=True), derivative)
    factors = designs.cholesky(matrices.permute(1, 2, 0, 3).flatten(2))
    return _apply(OF_NODES, designs.log_determinant(factors).reshape(len(NODES), -1))
