"""Dispersions of many genes: Cox-Reid adjusted likelihood, with or without a prior, along R's own path.

R maximises by a line search that stops at a gain of one millionth, so that an estimate depends on the path to it. To
agree in the tests, the search takes R's steps here, for all genes at once; first steps that the curvature rules out are
passed over (`Search.begin`), and a step is accepted within rounding. Of many samples, steps near the start are taken on
`expansions` of the posteriors. Tables are samples x genes.
"""

import dataclasses
import functools
import math

import torch
from torch import Tensor

from epigen_utils.deseq import elementwise, expansions, parts
from epigen_utils.deseq.design import Design
from epigen_utils.deseq.expansions import Expansion
from epigen_utils.deseq.posteriors import FULL_SHARE, Posterior

LOWEST, START_STEP, ACCEPT, GAIN, MAX_STEPS = 1e-8, 1.0, 1e-4, 1e-6, 100

#: Numbers of steps after which the genes that are not done are put together.
ROUNDS = (8, 10, MAX_STEPS)

#: Bounds of the log dispersion during the search, and points of each of the two grids that follow where it fails.
BOUNDS, GRID = (-30.0, 10.0), 20

#: Log dispersion below which a search is given up.
LEFT = math.log(LOWEST / 10)


def max_dispersion(n_samples: int) -> float:
    """The largest dispersion that an estimate may have."""
    return max(10.0, n_samples)


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
        self.done, self.begun = (torch.zeros_like(start, dtype=torch.bool) for _ in range(2))

    def _read(self, names: tuple[str, ...], genes: Tensor, posterior: Posterior | Expansion) -> list[Tensor]:
        return [getattr(self, name)[genes].to(posterior.rounding.device) for name in names]

    def _write(self, genes: Tensor, **columns: Tensor) -> None:
        for name, column in columns.items():
            getattr(self, name)[genes] = column.to(genes.device)

    def begin(self, genes: Tensor, posterior: Posterior | Expansion) -> None:
        """Evaluate some genes where they start, and pass over first steps that are too long for the curvature there.

        They are taken for rejected if the shortest of them is; where it is not, the search begins with the longest.
        Steps beyond the reach of an expansion are passed over likewise; where that is not allowed, the gene does not
        begin, until it is given the posterior itself.
        """
        new = (~self.begun[genes]).nonzero().squeeze(1)
        if not len(new):
            return
        if len(new) < len(genes):
            genes, posterior = genes[new], posterior.of(new.to(posterior.rounding.device))
        a, step, steps = self._read(("log_alpha", "step", "steps"), genes, posterior)
        value, point = posterior.evaluate(a)
        slope = posterior.slope(point)
        step = _within_bounds(a, step, slope)
        too_curved = posterior.curvature(point).mul_(step / 2).log2().floor().clamp(min=0)
        too_far = ((step * slope).abs() / posterior.reach(a)).log2().ceil().clamp(min=0)
        n_halvings, begun = torch.maximum(too_curved, too_far), too_far == 0
        places = (n_halvings > 0).nonzero().squeeze(1)
        if len(places):
            trial = step[places] / 2 ** n_halvings[places]
            proposed, _ = posterior.of(places).evaluate(a[places] + trial * slope[places])
            rejected = ~_improves(proposed, value[places], trial, slope[places], posterior.rounding[places])
            places = places[rejected]
            step[places] = trial[rejected] / 2
            steps[places] = n_halvings[places].to(torch.int64) + 1
            begun[places] = True
        columns = {"first": value, "value": value, "slope": slope, "step": step, "steps": steps}
        self._write(genes[begun.to(genes.device)], **{name: column[begun] for name, column in columns.items()})
        self.begun[genes] = begun.to(genes.device)

    def advance(self, genes: Tensor, posterior: Posterior | Expansion, n_rounds: int) -> None:
        """Take some genes' steps until they are done or beyond what the posterior covers, or so many."""
        names = ("log_alpha", "value", "slope", "step", "steps", "accepted", "done")
        a, value, slope, step, steps, accepted, done = self._read(names, genes, posterior)
        for left in reversed(range(n_rounds)):
            step = _within_bounds(a, step, slope)
            proposal = a + step * slope
            idle = done | (posterior.reach(proposal) < 0)
            proposed, point = posterior.evaluate(proposal)
            better = _improves(proposed, value, step, slope, posterior.rounding) & ~idle
            steps += ~idle
            ended = better & (proposed - value < GAIN)
            gone = better & ~ended & (proposal < LEFT)
            # A search that leaves below keeps the former value, by which R then rejects a first step that leaves.
            value = torch.where(better & ~gone, proposed, value)
            a = torch.where(better, proposal, a)
            done |= ended | gone | (steps >= MAX_STEPS)
            moved = better & ~done
            accepted += better
            slope = posterior.slopes(moved, point, slope)
            longer = torch.clamp(step * 1.1, max=START_STEP)
            longer = torch.where(accepted % 5 == 0, longer / 2, longer)
            step = torch.where(idle, step, torch.where(better, longer, step / 2))
            idle |= done
            n_idle = int(idle.sum())
            if n_idle == len(a) or not left or n_idle > (1 - FULL_SHARE) * len(a):
                columns = (a, value, slope, step, steps, accepted, done)
                self._write(genes, **dict(zip(names, columns, strict=True)))
                if n_idle == len(a) or not left:
                    return
                keep = (~idle).nonzero().squeeze(1)
                genes, posterior = genes[keep.to(genes.device)], posterior.kept(keep)
                a, value, slope, step, steps, accepted, done = (
                    column[keep].to(posterior.rounding.device) for column in columns
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
    #: Of their log posteriors, shared by searches.
    expansion: Expansion | None = None

    def posterior(self, some: Tensor, centres: Tensor | None, variance: float | None) -> Posterior:
        """Of some of these genes."""
        counts, means = elementwise.take(self.counts, some), elementwise.take(self.means, some)
        posterior = Posterior(counts, means, self.design, None if centres is None else centres[some], variance)
        return (posterior.on_cpu() if parts.are_few(counts) else posterior).prepare()

    def search(self, start: Tensor, centres: Tensor | None = None, variance: float | None = None) -> Search:
        """Line searches from a start; the few genes that take long go on together."""
        searches = Search(start)
        if len(self.counts) >= expansions.LEAST_SAMPLES:
            self._search_near(searches, centres, variance)

        def advance(turn: int, some: Tensor) -> None:
            posterior = self.posterior(some, centres, variance)
            searches.begin(some, posterior)
            searches.advance(some, posterior, ROUNDS[turn])

        for turn in range(len(ROUNDS)):
            parts.for_each(functools.partial(advance, turn), self._split(~searches.done))
        return searches

    def _search_near(self, searches: Search, centres: Tensor | None, variance: float | None) -> None:
        """Take searches as far as expansions around their starts allow."""
        if self.expansion is None:
            self.expansion = Expansion.empty(searches.log_alpha)
        usable = searches.log_alpha > expansions.LEAST_CENTRE
        too_far = self.expansion.reach(searches.log_alpha) < expansions.RADIUS / 2

        def expand(some: Tensor) -> None:
            posterior = self.posterior(some, None, None)
            self.expansion.put(some, posterior, searches.log_alpha[some].to(posterior.rounding.device))

        parts.for_each(expand, self._split(usable & too_far))
        near, some = self.expansion.with_prior(centres, variance), usable.nonzero().squeeze(1)
        searches.begin(some, near.of(some))
        some = some[searches.begun[some]]
        searches.advance(some, near.of(some), MAX_STEPS)

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
