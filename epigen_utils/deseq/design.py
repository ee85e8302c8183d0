"""The design of a fit, and the linear algebra of many genes at once: a small system a gene, genes along the last axis.

A model is fitted in an orthonormal basis of its columns, so that covariates of any scale leave the systems well
conditioned; coefficients, covariances and the ridge are those of the columns given.
"""

import dataclasses
import functools

import numpy as np
import torch
from torch import Tensor

from epigen_utils.deseq import elementwise


@dataclasses.dataclass(frozen=True)
class Design:
    """A model matrix of full rank, samples x coefficients, on the device of the counts."""

    matrix: Tensor

    @classmethod
    def of(cls, matrix: np.ndarray, device: str | torch.device = "cpu") -> "Design":
        """From an array, samples x coefficients."""
        return cls(torch.as_tensor(np.array(matrix, dtype=float), dtype=torch.float64, device=device))

    @property
    def n_samples(self) -> int:
        return self.matrix.shape[0]

    @property
    def n_coefficients(self) -> int:
        return self.matrix.shape[1]

    @property
    def residual_df(self) -> int:
        return self.n_samples - self.n_coefficients

    @functools.cached_property
    def on_cpu(self) -> "Design":
        """The same in the memory of the CPU."""
        return self if self.matrix.device.type == "cpu" else Design(self.matrix.cpu())

    @functools.cached_property
    def _qr(self) -> tuple[Tensor, Tensor]:
        # by the CPU on every device: another library may turn the signs of columns, by which bases would differ
        if self.on_cpu is self:
            return torch.linalg.qr(self.matrix)
        basis, upper = (part.to(self.matrix.device) for part in self.on_cpu._qr)
        return basis, upper

    @property
    def basis(self) -> Tensor:
        """Orthonormal columns that span those of the matrix, samples x coefficients."""
        return self._qr[0]

    @functools.cached_property
    def to_coefficients(self) -> Tensor:
        """Takes coefficients of the basis to those of the matrix, coefficients x coefficients."""
        upper = self.on_cpu._qr[1]
        inverse = torch.linalg.solve_triangular(upper, torch.eye(len(upper), dtype=upper.dtype), upper=True)
        return inverse.to(self.matrix.device)

    @functools.cached_property
    def log_scale(self) -> float:
        """What the log determinant of X' W X has above that of the basis."""
        return float(2 * self.on_cpu._qr[1].diagonal().abs().log().sum())

    @functools.cached_property
    def _products(self) -> Tensor:
        products = self.basis[:, :, None] * self.basis[:, None, :]
        return products.reshape(self.n_samples, -1).contiguous()

    def information(self, weights: Tensor) -> Tensor:
        """B' W B of every gene in the basis B, coefficients x coefficients x genes; weights are samples x genes."""
        p = self.n_coefficients
        return (self._products.T @ weights).reshape(p, p, -1)

    def quadratic(self, matrices: Tensor) -> Tensor:
        """Quadratic form b' M b of each sample's row b of the basis and each gene's matrix M, samples x genes."""
        return self._products @ matrices.reshape(self.n_coefficients**2, -1)

    def ridge(self, penalties: Tensor) -> Tensor:
        """Penalties of the squared coefficients, one a coefficient, as a matrix in the basis."""
        return self.to_coefficients.T @ (penalties[:, None] * self.to_coefficients)

    @functools.cached_property
    def cells(self) -> np.ndarray:
        """Index of each sample's cell; samples of a cell have the same row of the matrix."""
        return np.unique(self.on_cpu.matrix.numpy(), axis=0, return_inverse=True)[1].ravel()

    def in_cells_of(self, n: int) -> np.ndarray:
        """Mask of the samples whose cell has at least ``n`` samples."""
        return np.bincount(self.cells)[self.cells] >= n

    @property
    def is_groups(self) -> bool:
        """Whether the model has one coefficient a cell, so that linear means are those of the groups."""
        return self.cells.max() + 1 == self.n_coefficients

    @property
    def is_intercept(self) -> bool:
        return self.n_coefficients == 1 and bool((self.matrix == 1).all())


def cholesky(matrices: Tensor) -> Tensor:
    """Lower triangular factors of positive definite matrices, coefficients x coefficients x genes.

    A matrix that is not positive definite gives NaN. Values above the diagonal are undefined.
    """
    factor = matrices.clone()
    for k in range(len(factor)):
        factor[k, k].sqrt_()
        column = factor[k + 1 :, k].div_(factor[k, k])
        for row in range(k + 1, len(factor)):
            factor[row, k + 1 : row + 1].addcmul_(column[row - k - 1], column[: row - k], value=-1)
    return factor


def log_determinant(factor: Tensor) -> Tensor:
    """Log determinants of the matrices whose Cholesky factors are given, genes."""
    return 2 * elementwise.log(factor.diagonal().T.contiguous()).sum(dim=0)


def solve(factor: Tensor, vectors: Tensor) -> Tensor:
    """Solutions of the systems whose Cholesky factors are given, coefficients x genes."""
    x, p = vectors.clone(), len(factor)
    for k in range(p):
        x[k] /= factor[k, k]
        x[k + 1 :].addcmul_(factor[k + 1 :, k], x[k], value=-1)
    for k in reversed(range(p)):
        x[k] /= factor[k, k]
        x[:k].addcmul_(factor[k, :k], x[k], value=-1)
    return x


def inverse(factor: Tensor) -> Tensor:
    """Inverses of the matrices whose Cholesky factors are given, coefficients x coefficients x genes."""
    p = len(factor)
    lower, result = torch.zeros_like(factor), torch.zeros_like(factor)
    for row in range(p):
        scale = 1 / factor[row, row]
        for k in range(row):
            lower[row, : k + 1].addcmul_(factor[row, k], lower[k, : k + 1], value=-1)
        lower[row, :row] *= scale
        lower[row, row] = scale
        part = lower[row, : row + 1]
        result[: row + 1, : row + 1].addcmul_(part[:, None], part)
    return result


def apply(matrices: Tensor, vectors: Tensor) -> Tensor:
    """M v of every gene: coefficients x coefficients x genes times coefficients x genes."""
    return (matrices * vectors).sum(dim=1)
