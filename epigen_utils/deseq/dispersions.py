"""Dispersions of many genes: Cox-Reid adjusted likelihood, with or without a prior, along R's own path.

R maximises by a line search that stops at a gain of one millionth, so that an estimate depends on the path to it. To
agree in the tests, the search takes R's steps here, for all genes at once; first steps that the curvature rules out are
passed over (`Search.begin`), and a step is accepted within rounding. Tables are samples x genes.
"""

import dataclasses
import functools
import math

import torch
from torch import Tensor

from epigen_utils.deseq import design as designs
from epigen_utils.deseq import elementwise, parts
from epigen_utils.deseq.design import Design

LOWEST, START_STEP, ACCEPT, GAIN, MAX_STEPS = 1e-8, 1.0, 1e-4, 1e-6, 100

#: Numbers of steps after which the genes that are not done are put together.
ROUNDS = (8, 10, MAX_STEPS)

#: Bounds of the log dispersion during the search, and points of each of the two grids that follow where it fails.
BOUNDS, GRID = (-30.0, 10.0), 20

#: Log dispersion below which a search is given up, and the rounding of a log posterior for each count that is in it.
LEFT, ROUNDING = math.log(LOWEST / 10), 5e-15

#: Rows of `Posterior.tails` for each sample up to which they save time, and the share of genes from which all are
#: evaluated rather than some.
TAIL_ROWS, FULL_SHARE = 3, 0.7

#: What a posterior has of each gene, and what of it slopes need.
TABLES = ("counts", "mu", "centres", "residuals", "beyond", "excess", "rounding", "tails", "large")
SLOPE_TABLES = ("counts", "centres", "residuals", "excess", "tails", "large")


def max_dispersion(n_samples: int) -> float:
    """The largest dispersion that an estimate may have."""
    return max(10.0, n_samples)


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

    def on_cpu(self) -> "Posterior":
        """The same in the memory of the CPU."""
        tables = {name: getattr(self, name) for name in TABLES}
        tables = {name: None if table is None else table.cpu() for name, table in tables.items()}
        return Posterior(**tables, design=self.design.on_cpu, variance=self.variance)

    def _log_gammas(self, log_alpha: Tensor) -> Tensor:
        """Sum over samples of log gamma(y + r) - log gamma(r) + y log(alpha) where r is 1 / alpha, genes."""
        alpha = log_alpha.exp()
        sums = elementwise.log1p(alpha * self._rows()).mul_(self.tails).sum(dim=0)
        if self.large is None:
            return sums
        r, n_rows, n_samples = 1 / alpha, len(self.tails), len(self.counts)
        gammas = elementwise.log_gamma(self.large + r).sum(dim=0) - n_samples * elementwise.log_gamma(n_rows + r)
        return sums + gammas + self.beyond * log_alpha

    def _digammas(self, r: Tensor) -> Tensor:
        """Derivative of `_log_gammas` with respect to r."""
        sums = (self.tails / (r + self._rows())).sum(dim=0)
        if self.large is None:
            return sums
        digammas = elementwise.digamma(self.large + r).sum(dim=0)
        return sums + digammas - len(self.counts) * elementwise.digamma(len(self.tails) + r)

    def _rows(self) -> Tensor:
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
        value = self._log_gammas(log_alpha) - log_scaled.mul_(self.counts).sum(dim=0) - r * sum_logs
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


class Search:
    """Line searches of genes: gradient steps with backtracking that end, as R's do, at a step that gains under 1e-6.

    Columns of some genes are worked on where their posterior is, which may be the CPU for a few genes of a GPU.

    Attributes
    ----------
    log_alpha, first, value
        Genes: where the search is, and the log posterior at its start and there.
    steps
        Number of steps taken, genes.
    """

    def __init__(self, start: Tensor) -> None:
        self.log_alpha = start.clone()
        self.first, self.value, self.slope, self.accepted = (torch.zeros_like(start) for _ in range(4))
        self.step = torch.full_like(start, START_STEP)
        self.steps = torch.zeros(len(start), dtype=torch.int64, device=start.device)
        self.done = torch.zeros(len(start), dtype=torch.bool, device=start.device)

    def _read(self, names: tuple[str, ...], genes: Tensor, posterior: Posterior) -> list[Tensor]:
        return [getattr(self, name)[genes].to(posterior.counts.device) for name in names]

    def _write(self, genes: Tensor, **columns: Tensor) -> None:
        for name, column in columns.items():
            getattr(self, name)[genes] = column.to(genes.device)

    def begin(self, genes: Tensor, posterior: Posterior) -> None:
        """Evaluate some genes where they start, and pass over first steps that are too long for the curvature there.

        They are taken for rejected if the shortest of them is; where it is not, the search begins with the longest.
        """
        a, step, steps = self._read(("log_alpha", "step", "steps"), genes, posterior)
        value, point = posterior.evaluate(a)
        slope = posterior.slope(point)
        step = _within_bounds(a, step, slope)
        n_halvings = posterior.curvature(point).mul_(step / 2).log2().floor().clamp(min=0)
        places = (n_halvings > 0).nonzero().squeeze(1)
        if len(places):
            trial = step[places] / 2 ** n_halvings[places]
            proposed, _ = posterior.of(places).evaluate(a[places] + trial * slope[places])
            rejected = ~_improves(proposed, value[places], trial, slope[places], posterior.rounding[places])
            places = places[rejected]
            step[places] = trial[rejected] / 2
            steps[places] = n_halvings[places].to(torch.int64) + 1
        self._write(genes, first=value, value=value, slope=slope, step=step, steps=steps)

    def advance(self, genes: Tensor, posterior: Posterior, n_rounds: int) -> None:
        """Take some genes' steps until they are done, or so many."""
        names = ("log_alpha", "value", "slope", "step", "steps", "accepted", "done")
        a, value, slope, step, steps, accepted, done = self._read(names, genes, posterior)
        for left in reversed(range(n_rounds)):
            step = _within_bounds(a, step, slope)
            proposal = a + step * slope
            proposed, point = posterior.evaluate(proposal)
            better = _improves(proposed, value, step, slope, posterior.rounding) & ~done
            steps += ~done
            ended = better & (proposed - value < GAIN)
            gone = better & ~ended & (proposal < LEFT)
            # A search that leaves below keeps the former value, by which R then rejects a first step that leaves.
            value = torch.where(better & ~gone, proposed, value)
            a = torch.where(better, proposal, a)
            done |= ended | gone | (steps >= MAX_STEPS)
            moved = better & ~done
            accepted += better
            n_moved = int(moved.sum())
            if n_moved > FULL_SHARE * len(a):
                slope = torch.where(moved, posterior.slope(point), slope)
            elif n_moved:
                places = moved.nonzero().squeeze(1)
                slope[places] = posterior.of(places, SLOPE_TABLES).slope(point.of(places))
            longer = torch.clamp(step * 1.1, max=START_STEP)
            longer = torch.where(accepted % 5 == 0, longer / 2, longer)
            step = torch.where(better, longer, step / 2)
            n_done = int(done.sum())
            if n_done == len(a) or not left or n_done > (1 - FULL_SHARE) * len(a):
                columns = (a, value, slope, step, steps, accepted, done)
                self._write(genes, **dict(zip(names, columns, strict=True)))
                if n_done == len(a) or not left:
                    return
                keep = (~done).nonzero().squeeze(1)
                genes, posterior = genes[keep.to(genes.device)], posterior.of(keep)
                if parts.are_few(posterior.counts):
                    posterior = posterior.on_cpu()
                a, value, slope, step, steps, accepted, done = (
                    column[keep].to(posterior.counts.device) for column in columns
                )


def _within_bounds(a: Tensor, step: Tensor, slope: Tensor) -> Tensor:
    """Steps cut to what keeps a log dispersion within `BOUNDS`."""
    ends = a + step * slope
    step = torch.where(ends < BOUNDS[0], (BOUNDS[0] - a) / slope, step)
    return torch.where(ends > BOUNDS[1], (BOUNDS[1] - a) / slope, step)


def _improves(proposed: Tensor, value: Tensor, step: Tensor, slope: Tensor, rounding: Tensor) -> Tensor:
    """Whether a step is accepted: by the rule of Armijo, less what rounding does."""
    return proposed >= value + step * ACCEPT * slope.square() - rounding


@dataclasses.dataclass(slots=True)
class Genes:
    """Genes whose dispersions are looked for: their counts and means, samples x genes."""

    counts: Tensor
    means: Tensor
    design: Design

    def posterior(self, some: Tensor, centres: Tensor | None, variance: float | None) -> Posterior:
        """Of some of these genes."""
        counts, means = elementwise.take(self.counts, some), elementwise.take(self.means, some)
        posterior = Posterior(counts, means, self.design, None if centres is None else centres[some], variance)
        return (posterior.on_cpu() if parts.are_few(counts) else posterior).prepare()

    def search(self, start: Tensor, centres: Tensor | None = None, variance: float | None = None) -> Search:
        """Line searches from a start; the few genes that take long go on together."""
        searches = Search(start)

        def advance(turn: int, some: Tensor) -> None:
            posterior = self.posterior(some, centres, variance)
            if turn == 0:
                searches.begin(some, posterior)
            searches.advance(some, posterior, ROUNDS[turn])

        for turn in range(len(ROUNDS)):
            parts.for_each(functools.partial(advance, turn), self._split(~searches.done))
        return searches

    def search_grids(self, wanted: Tensor, centres: Tensor | None = None, variance: float | None = None) -> Tensor:
        """Dispersions on two grids, the second around the best point of the first, of the genes in a mask."""
        ends = math.log(LOWEST), math.log(max_dispersion(len(self.counts)))
        width = (ends[1] - ends[0]) / (GRID - 1)
        coarse, fine = (torch.linspace(*span, GRID, dtype=self.counts.dtype) for span in (ends, (-width, width)))
        best = torch.empty_like(self.means[0])

        def look(some: Tensor) -> None:
            posterior = self.posterior(some, centres, variance)
            first, second = (grid[:, None].to(posterior.counts.device) for grid in (coarse, fine))
            centre = _best(posterior, first.expand(GRID, len(some)))
            best[some] = _best(posterior, centre + second).to(best.device)

        parts.for_each(look, self._split(wanted))
        return best[wanted].exp()

    def _split(self, wanted: Tensor) -> list[Tensor]:
        return parts.split(wanted.nonzero().squeeze(1), len(self.counts))


def _best(posterior: Posterior, grid: Tensor) -> Tensor:
    values = torch.stack([posterior.evaluate(points)[0] for points in grid])
    return grid.gather(0, values.argmax(dim=0, keepdim=True)).squeeze(0)


def initial_dispersions(normalised: Tensor, design: Design, mean_inverse_factor: float) -> Tensor:
    """Where searches start: the smaller of two moment estimates, genes.

    Parameters
    ----------
    normalised
        Counts over size factors, samples x genes.
    mean_inverse_factor
        Mean over samples of one over the size factor.
    """
    mu = linear_means(normalised, design).clamp(min=1)
    rough = (((normalised - mu).square() - mu) / mu.square()).sum(dim=0) / design.residual_df
    mean = normalised.mean(dim=0)
    variance = (normalised - mean).square().sum(dim=0) / (len(normalised) - 1)
    moments = (variance - mean_inverse_factor * mean) / mean.square()
    guess = torch.minimum(rough.clamp(min=0), moments)
    return guess.clamp(LOWEST, max_dispersion(design.n_samples))


def linear_means(normalised: Tensor, design: Design) -> Tensor:
    """Least-squares means of normalised counts, samples x genes."""
    return design.basis @ (design.basis.T @ normalised)


def genewise(genes: Genes, guesses: Tensor) -> Tensor:
    """Dispersion of each gene from its own counts, genes; ``guesses`` by `initial_dispersions`."""
    searches = genes.search(guesses.log())
    top = max_dispersion(len(genes.counts))
    alpha = searches.log_alpha.exp().clamp(max=top)
    alpha = torch.where(searches.value < searches.first + searches.first.abs() / 1e6, guesses, alpha)
    failed = ((searches.steps >= MAX_STEPS) | (searches.steps == 1)) & (alpha > 10 * LOWEST)
    alpha[failed] = genes.search_grids(failed)
    return alpha.clamp(LOWEST, top)


def maximum_a_posteriori(genes: Genes, genewise: Tensor, trend: Tensor, variance: float) -> Tensor:
    """Dispersions under a normal prior of their logs around the trend, genes."""
    centres = trend.log()
    searches = genes.search(torch.where(genewise > 0.1 * trend, genewise, trend).log(), centres, variance)
    alpha = searches.log_alpha.exp()
    failed = searches.steps >= MAX_STEPS
    alpha[failed] = genes.search_grids(failed, centres, variance)
    return alpha.clamp(LOWEST, max_dispersion(len(genes.counts)))
