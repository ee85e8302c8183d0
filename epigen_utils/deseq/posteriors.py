"""Log posteriors of the dispersions of many genes: the Cox-Reid adjusted likelihood, with or without a prior.

Tables are samples x genes.
"""

import dataclasses

import torch
from torch import Tensor

from epigen_utils.deseq import design as designs
from epigen_utils.deseq import elementwise, parts
from epigen_utils.deseq.design import Design

#: The rounding of a log posterior for each count that is in it.
ROUNDING = 5e-15

#: Rows of `Posterior.tails` for each sample up to which they save time.
TAIL_ROWS = 3

#: Share of genes from which slopes of all are evaluated rather than of some.
FULL_SHARE = 0.7

#: What a posterior has of each gene, and what of it slopes need.
TABLES = ("counts", "mu", "centres", "residuals", "beyond", "excess", "rounding", "tails", "large")
SLOPE_TABLES = ("counts", "centres", "residuals", "excess", "tails", "large")


@dataclasses.dataclass(slots=True)
class Posterior:
    """Log posterior of log dispersions, one a gene, with Cox and Reid's adjustment (Love et al. 2014, eq. 6-8).

    Attributes
    ----------
    counts, mu
        Samples x genes; means as counts, above zero.
    design
        Of which the adjustment is.
    centres, variance
        The normal prior of the log dispersion; None for none.
    residuals, excess, rounding
        Counts less means, each gene's sum of them, and what rounding does to its log posterior. By `prepare`.
    tails, large, beyond
        Number of samples with more than 0, 1, 2, ... counts, rows x genes, and each count or, if more, the number of
        these rows, and each gene's sum of counts beyond that: the log gamma of a small count is a sum of logarithms,
        which many samples share. ``large`` is None where all counts are as small as that.
    """

    counts: Tensor
    mu: Tensor
    design: Design
    centres: Tensor | None = None
    variance: float | None = None
    residuals: Tensor | None = None
    beyond: Tensor | None = None
    excess: Tensor | None = None
    rounding: Tensor | None = None
    tails: Tensor | None = None
    large: Tensor | None = None

    def prepare(self) -> "Posterior":
        """Compute what all evaluations share."""
        self.residuals = self.counts - self.mu
        total, self.excess = self.counts.sum(dim=0), self.residuals.sum(dim=0)
        self.rounding = ROUNDING * (len(self.counts) + total)
        largest = int(self.counts.max())
        n_rows = largest if largest <= TAIL_ROWS * len(self.counts) else elementwise.SERIES_FROM
        self.tails = count_tails(self.counts, n_rows)
        self.beyond = total - self.tails.sum(dim=0)
        if n_rows < largest:
            self.large = self.counts.clamp(min=n_rows)
        return self

    def of(self, genes: Tensor, names: tuple[str, ...] = TABLES) -> "Posterior":
        """The same for some genes, by their positions; with ``names``, only some tables of it."""
        tables = {name: getattr(self, name) for name in names}
        parts = {name: None if table is None else elementwise.take(table, genes) for name, table in tables.items()}
        return Posterior(**{"counts": None, "mu": None} | parts, design=self.design, variance=self.variance)

    def kept(self, genes: Tensor) -> "Posterior":
        """The same for some genes, in the memory of the CPU if they are few."""
        kept = self.of(genes)
        return kept.on_cpu() if parts.are_few(kept.counts) else kept

    def on_cpu(self) -> "Posterior":
        """The same in the memory of the CPU."""
        tables = {name: getattr(self, name) for name in TABLES}
        tables = {name: None if table is None else table.cpu() for name, table in tables.items()}
        return Posterior(**tables, design=self.design.on_cpu, variance=self.variance)

    def log_gammas(self, log_alpha: Tensor) -> Tensor:
        """Sum over samples of log gamma(y + r) - log gamma(r) + y log(alpha) where r is 1 / alpha, genes."""
        alpha = log_alpha.exp()
        sums = elementwise.log1p(alpha * self.rows()).mul_(self.tails).sum(dim=0)
        if self.large is None:
            return sums
        r, n_rows, n_samples = 1 / alpha, len(self.tails), len(self.counts)
        gammas = elementwise.log_gamma(self.large + r).sum(dim=0) - n_samples * elementwise.log_gamma(n_rows + r)
        return sums + gammas + self.beyond * log_alpha

    def _digammas(self, r: Tensor) -> Tensor:
        """Derivative of `log_gammas` with respect to r."""
        sums = (self.tails / (r + self.rows())).sum(dim=0)
        if self.large is None:
            return sums
        digammas = elementwise.digamma(self.large + r).sum(dim=0)
        return sums + digammas - len(self.counts) * elementwise.digamma(len(self.tails) + r)

    def rows(self) -> Tensor:
        return torch.arange(len(self.tails), dtype=self.tails.dtype, device=self.tails.device)[:, None]

    def evaluate(self, log_alpha: Tensor) -> tuple[Tensor, "Point"]:
        """Log posterior up to a constant of the gene, genes, and what its slope there needs."""
        alpha = log_alpha.exp()
        r = 1 / alpha
        scaled = self.mu * alpha
        log_scaled = elementwise.log1p(scaled)
        weights = self.mu / scaled.add_(1)
        sum_logs = log_scaled.sum(dim=0)
        # log(mu + r) is log(1 + mu alpha) - log(alpha)
        value = self.log_gammas(log_alpha) - log_scaled.mul_(self.counts).sum(dim=0) - r * sum_logs
        factor = designs.cholesky(self.design.information(weights))
        value -= 0.5 * (designs.log_determinant(factor) + self.design.log_scale)
        if self.variance is not None:
            value -= 0.5 * (log_alpha - self.centres).square() / self.variance
        return value, Point(log_alpha, weights, sum_logs, factor)

    def slope(self, point: "Point") -> Tensor:
        """Derivative of the log posterior at a point, genes."""
        alpha = point.log_alpha.exp()
        r = 1 / alpha
        # the sum of (y - mu) alpha / (1 + mu alpha), of which 1 / (1 + mu alpha) is 1 - alpha times the weight
        terms = alpha * (self.excess - alpha * (self.residuals * point.weights).sum(dim=0)) + point.sum_logs
        slope = r * (terms - self._digammas(r))
        change = self.design.information(point.weights.square())
        slope += 0.5 * alpha * (designs.inverse(point.factor) * change).sum(dim=(0, 1))
        if self.variance is not None:
            slope -= (point.log_alpha - self.centres) / self.variance
        return slope

    def slopes(self, moved: Tensor, point: "Point", slope: Tensor) -> Tensor:
        """The slopes with new ones, at the point, of the genes in a mask."""
        n_moved = int(moved.sum())
        if n_moved > FULL_SHARE * len(moved):
            return torch.where(moved, self.slope(point), slope)
        if n_moved:
            places = moved.nonzero().squeeze(1)
            slope[places] = self.of(places, SLOPE_TABLES).slope(point.of(places))
        return slope

    def reach(self, log_alpha: Tensor) -> Tensor:
        """How far from log dispersions the posterior may be evaluated, genes: anywhere."""
        return torch.full_like(log_alpha, torch.inf)

    def curvature(self, point: "Point") -> Tensor:
        """Approximate negative second derivative of the log posterior at a point, for large counts, genes."""
        of_a_sample = (point.log_alpha.exp() * point.weights).square_().mean(dim=0)
        curvature = 0.5 * self.design.residual_df * of_a_sample
        return curvature if self.variance is None else curvature + 1 / self.variance


@dataclasses.dataclass(slots=True)
class Point:
    """What evaluations at a log dispersion share.

    Attributes
    ----------
    weights
        mu / (1 + mu alpha), samples x genes.
    sum_logs
        Sum over samples of log(1 + mu alpha), genes.
    factor
        Cholesky factors of X' W X.
    """

    log_alpha: Tensor
    weights: Tensor
    sum_logs: Tensor
    factor: Tensor

    def of(self, genes: Tensor) -> "Point":
        """The same for some genes, by their positions."""
        return Point(*(elementwise.take(getattr(self, name), genes) for name in self.__slots__))


def count_tails(counts: Tensor, n_rows: int) -> Tensor:
    """Number of samples with more than k counts, k from 0 to below the number of rows, x genes."""
    histogram = torch.zeros((n_rows + 1, counts.shape[1]), dtype=counts.dtype, device=counts.device)
    histogram.scatter_add_(0, counts.clamp(max=n_rows).to(torch.int64), torch.ones_like(counts))
    return len(counts) - histogram[:-1].cumsum(dim=0)
