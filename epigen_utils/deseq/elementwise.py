"""Logarithms, exponentials, gamma functions and sorting of float64 tables, by the fastest library at hand.

On a CPU numpy's logarithm takes a third of torch's time, scipy's log gamma two thirds, numpy's sort of a row a fifth
(`benchmarks/deseq.py` prints all four); elsewhere torch's run on the device. Inputs are not changed.
"""

import math
from collections.abc import Sequence

import numpy as np
import torch
from scipy.special import gammaln
from torch import Tensor


def _on_cpu(function: np.ufunc, table: Tensor) -> Tensor:
    result = torch.empty_like(table)
    with np.errstate(over="ignore"):  # a step that leaves the range of numbers is one that the caller gives up
        function(table.numpy(), out=result.numpy())
    return result


def log(table: Tensor) -> Tensor:
    """Natural logarithm."""
    return _on_cpu(np.log, table) if table.device.type == "cpu" else table.log()


def log1p(table: Tensor) -> Tensor:
    """Natural logarithm of one more."""
    return _on_cpu(np.log1p, table) if table.device.type == "cpu" else table.log1p()


def exp(table: Tensor) -> Tensor:
    """Exponential."""
    return _on_cpu(np.exp, table) if table.device.type == "cpu" else table.exp()


#: Coefficients of Stirling's series of log gamma, in odd powers of one over the argument; from `SERIES_FROM` on they
#: give 15 digits. Smaller arguments are shifted there, but not by more than it costs less than the library's function.
STIRLING = (1 / 12, -1 / 360, 1 / 1260, -1 / 1680, 1 / 1188, -691 / 360360, 1 / 156)
SERIES_FROM, MOST_SHIFTS = 10, 5


def _shifts(table: Tensor) -> int:
    return max(0, math.ceil(SERIES_FROM - float(table.min()))) if table.numel() else SERIES_FROM


def log_gamma(table: Tensor) -> Tensor:
    """Logarithm of the gamma function."""
    if table.device.type != "cpu":
        return torch.lgamma(table)
    n_shifts = _shifts(table)
    if n_shifts > MOST_SHIFTS:
        return _on_cpu(gammaln, table)
    product, x = table, table
    if n_shifts:
        x = table + 1
        for _ in range(1, n_shifts):
            product = product * x
            x.add_(1)
    inverse = x.reciprocal()
    result = _polynomial(inverse.square(), STIRLING).mul_(inverse)
    result.add_((x - 0.5).mul_(log(x)).sub_(x)).add_(0.5 * math.log(2 * math.pi))
    return result.sub_(log(product)) if n_shifts else result


def digamma(table: Tensor) -> Tensor:
    """Derivative of `log_gamma`."""
    if table.device.type != "cpu":
        return torch.digamma(table)
    n_shifts = _shifts(table)
    if n_shifts > MOST_SHIFTS:
        return torch.digamma(table)
    x = table + n_shifts
    inverse = x.reciprocal()
    square = inverse.square()
    result = _polynomial(square, [-(2 * k + 1) * c for k, c in enumerate(STIRLING)]).mul_(square)
    result.add_(log(x)).sub_(inverse.mul_(0.5))
    for shift in range(n_shifts):
        result.sub_((table + shift).reciprocal_())
    return result


def _polynomial(x: Tensor, coefficients: Sequence[float]) -> Tensor:
    result = torch.full_like(x, coefficients[-1])
    for coefficient in reversed(coefficients[:-1]):
        result.mul_(x).add_(coefficient)
    return result


def sort_samples(table: Tensor) -> Tensor:
    """Each gene's values in ascending order, samples x genes."""
    if table.device.type != "cpu":
        return table.sort(dim=0).values
    return torch.from_numpy(np.sort(np.ascontiguousarray(table.numpy().T), axis=1)).T.contiguous()
