"""DESeq2's fit of a design to counts: size factors, dispersions, coefficients, outliers; for all genes, in chunks.

Beside the counts and one table of means as large as they are (samples x genes, 8 bytes a value each), the work space is
that of a part of the genes for each thread: about 20 tables of `parts.SIZE` values.
"""

import dataclasses
import functools
from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor

from epigen_utils.deseq import dispersions, elementwise, glm, outliers, parts, size_factors, trends
from epigen_utils.deseq.design import Design
from epigen_utils.errors import DataError

#: Samples in a cell that let an outlier of it be replaced, R's default.
MIN_REPLICATES = 7

#: Spreads of log dispersions above the trend beyond which a gene keeps its own.
OUTLIER_SD = 2.0

#: Estimates of genes whose outliers are replaced that are those of their second fit.
REFITTED = ("base_mean", "genewise", "trend", "map", "dispersion", "outlier", "beta", "optimised")


@dataclasses.dataclass(slots=True)
class Estimates:
    """Estimates of genes: 1-d tensors of genes, but for ``beta`` (coefficients x genes, natural log)."""

    base_mean: Tensor
    genewise: Tensor
    trend: Tensor
    map: Tensor
    dispersion: Tensor
    outlier: Tensor
    beta: Tensor
    #: Whether a general optimiser fitted the model of the gene-wise fit, since the iteration did not converge.
    optimised: Tensor
    replaced: Tensor
    #: Largest Cook's distance among samples whose cell has replicates, and counts above the one with the largest, for
    #: either test.
    cooks_wald: Tensor
    n_larger_wald: Tensor
    cooks_lrt: Tensor
    n_larger_lrt: Tensor

    @classmethod
    def empty(cls, n_genes: int, n_coefficients: int, device: torch.device) -> "Estimates":
        """Of genes that are not fitted yet: numbers NaN, masks False."""

        def column(value: float, dtype: torch.dtype) -> Tensor:
            return torch.full((n_genes,), value, dtype=dtype, device=device)

        columns = {field.name: column(torch.nan, torch.float64) for field in dataclasses.fields(cls)}
        columns |= {name: column(False, torch.bool) for name in ("outlier", "optimised", "replaced")}
        columns |= {name: column(0, torch.int64) for name in ("n_larger_wald", "n_larger_lrt")}
        columns["beta"] = columns["beta"].repeat(n_coefficients, 1)
        return cls(**columns)

    def put(self, genes: Tensor | slice, **columns: Tensor) -> None:
        """Write columns of some genes, by their positions."""
        for name, values in columns.items():
            getattr(self, name)[..., genes] = values


@dataclasses.dataclass(slots=True)
class Fit:
    """A design fitted to counts; `testing` has its tests.

    Attributes
    ----------
    present
        Positions of the genes with counts, in ascending order of their largest one, so that genes that need the same
        computations stand together. What follows has these genes only.
    n_genes
        Number of all genes.
    counts
        Samples x genes, outliers replaced.
    factors
        Size factors, samples x 1, or per-gene factors, samples x genes.
    genes
        Estimates, a value a gene.
    seen
        Whether a count was above zero before outliers were replaced, samples x genes.
    replaces
        Whether a cell has enough samples for its outliers to be replaced.
    trend
        The dispersion trend; None where dispersions are the gene-wise ones.
    scatter, prior_variance
        Variance of log dispersions around the trend, and of their prior.
    """

    present: np.ndarray
    n_genes: int
    counts: Tensor
    factors: Tensor
    design: Design
    genes: Estimates
    seen: Tensor
    replaces: bool = False
    trend: trends.Trend | None = None
    scatter: float = float("nan")
    prior_variance: float = float("nan")

    def of(self, genes: Tensor) -> "Fit":
        """The same for some genes, by their positions, without their estimates; on the CPU if they are few."""
        counts, factors, seen, design = self.counts_of(genes), self.factors_of(genes), self.seen[:, genes], self.design
        if parts.are_few(counts):
            counts, factors, seen, design = counts.cpu(), factors.cpu(), seen.cpu(), design.on_cpu
        estimates = Estimates.empty(len(genes), design.n_coefficients, counts.device)
        taken = {"counts": counts, "factors": factors, "seen": seen, "design": design, "genes": estimates}
        return dataclasses.replace(self, present=self.present[genes.cpu().numpy()], **taken)

    def all_parts(self) -> list[Tensor]:
        """Positions of the genes, in parts."""
        return parts.split(torch.arange(self.counts.shape[1], device=self.counts.device), len(self.counts))

    def tested_parts(self) -> list[Tensor]:
        """Positions of the genes that have coefficients, in parts."""
        return parts.split(self.genes.beta[0].isfinite().nonzero().squeeze(1), len(self.counts))

    def counts_of(self, genes: Tensor) -> Tensor:
        """Counts of some genes, samples x genes."""
        return elementwise.take(self.counts, genes)

    def factors_of(self, genes: Tensor) -> Tensor:
        """Factors of some genes, samples x 1 or samples x genes."""
        return self.factors if self.factors.shape[1] == 1 else self.factors[:, genes]

    def means(self, genes: Tensor) -> Tensor:
        """Fitted means of some genes, samples x genes, as counts."""
        return self.factors_of(genes) * elementwise.exp(self.design.matrix @ self.genes.beta[:, genes])

    def of_all(self, column: Tensor, missing: float = np.nan) -> np.ndarray:
        """A column of the genes with counts as one of all genes."""
        values = np.full(self.n_genes, float(missing))
        values[self.present] = column.cpu().numpy()
        return values


@parts.one_thread_each()
def fit(
    counts: np.ndarray,
    design: np.ndarray,
    *,
    factors: str | np.ndarray = "ratio",
    trend_kind: str = "parametric",
    min_replicates: int | None = MIN_REPLICATES,
    test: str = "wald",
    device: str = "cpu",
) -> Fit:
    """Fit a design (Love, Huber and Anders 2014), with the estimates of R DESeq2 1.38.

    Parameters
    ----------
    counts
        Samples x genes, whole numbers.
    design
        Model matrix of full rank, samples x coefficients.
    factors
        ``ratio`` or ``poscounts`` (`size_factors.estimate`); or size factors, samples; or factors of every count,
        samples x genes, for gene lengths that differ between samples.
    trend_kind
        ``parametric``, ``local`` or ``mean`` (`trends.fit`); ``none`` to test with the gene-wise dispersions.
    min_replicates
        Samples that a cell must have for its outliers to be replaced; None to replace none.
    test
        ``wald`` or ``lrt``, the test that follows: R's outliers are those of its Cook's distances.
    device
        Of torch.

    Raises
    ------
    DataError
        If the counts or the design cannot be fitted: all counts zero or equal, no residual degrees of freedom, no size
        factors, no trend.
    """
    if min_replicates is not None and min_replicates < outliers.LEAST_SAMPLES:
        raise DataError(
            f"outliers: they are replaced from {outliers.LEAST_SAMPLES} samples in a cell on; ask for no fewer"
        )
    result, genes = _fit_trend(counts, design, factors, trend_kind, device)
    if result.trend:
        own, at_means = (column.cpu().numpy() for column in (result.genes.genewise, result.genes.trend))
        result.scatter = trends.scatter(own, at_means)
        result.prior_variance = trends.prior_variance(own, at_means, result.design.residual_df)
    replaceable = result.design.in_cells_of(min_replicates or len(result.counts) + 1)
    result.replaces = bool(replaceable.any())
    _fit_models(result, genes, functools.partial(_judge_outliers, result, replaceable, test))
    outlying = result.genes.replaced.nonzero().squeeze(1)
    if len(outlying):
        _refit(result, outlying)
    return result


@parts.one_thread_each()
def fit_trend(
    counts: np.ndarray,
    design: np.ndarray,
    *,
    factors: str | np.ndarray = "ratio",
    trend_kind: str = "parametric",
    device: str = "cpu",
) -> Fit:
    """Gene-wise dispersions and their trend alone, for transformations; `fit` documents parameters and errors."""
    return _fit_trend(counts, design, factors, trend_kind, device)[0]


def _fit_trend(
    counts: np.ndarray,
    design: np.ndarray,
    factors: str | np.ndarray,
    trend_kind: str,
    device: str,
) -> tuple[Fit, dispersions.Genes]:
    check(counts, design)
    result = _start(counts, design, factors, device)
    genes = _fit_genewise(result)
    if trend_kind != "none":
        base, own = result.genes.base_mean.cpu().numpy(), result.genes.genewise.cpu().numpy()
        result.trend = trends.fit(base, own, trend_kind)
        result.genes.trend[:] = torch.as_tensor(result.trend(base))
    return result, genes


def _start(counts: np.ndarray, design: np.ndarray, factors: str | np.ndarray, device: str) -> Fit:
    model, largest = Design.of(design, device), counts.max(axis=0)
    present = np.argsort(largest, kind="stable")[np.count_nonzero(largest == 0) :]
    if isinstance(factors, str):
        factors = size_factors.estimate(counts, factors)
    f = np.array(factors, dtype=float)
    if not (np.isfinite(f) & (f > 0)).all():
        raise DataError("size factors: each must be a positive number")
    f = torch.as_tensor(f[:, None] if f.ndim == 1 else np.ascontiguousarray(f[:, present]), device=device)
    y = torch.as_tensor(counts.take(present, axis=1).astype(float, copy=False), device=device)
    genes = Estimates.empty(y.shape[1], model.n_coefficients, y.device)
    return Fit(present, counts.shape[1], y, f, model, genes, y > 0)


def check(counts: np.ndarray, design: np.ndarray) -> None:
    """Refuse counts and designs that cannot be fitted.

    Raises
    ------
    DataError
        If a count is missing, infinite or negative, all are zero or the same, or no residual degree of freedom is left.
    """
    if not np.isfinite(counts).all():
        raise DataError("counts: a value is missing or infinite; fill or drop it")
    if (counts < 0).any():
        raise DataError("counts: a value is negative; give raw counts")
    if not counts.size or not (counts > 0).any():
        raise DataError("counts: every count is zero; nothing can be fitted")
    if (counts == counts[0, 0]).all():
        raise DataError("counts: every count is the same; nothing can be fitted")
    if len(design) <= design.shape[1]:
        raise DataError(
            f"design: {design.shape[1]} coefficients for {len(design)} samples leave nothing to estimate dispersion "
            "from; add replicates"
        )


def _fit_genewise(fit: Fit) -> dispersions.Genes:
    """Base means and gene-wise dispersions; gives what the dispersions were searched with."""
    factors = fit.factors
    inverse_factor = float((1 / (factors if factors.shape[1] == 1 else factors.mean(dim=1))).mean())
    means = torch.empty_like(fit.counts)
    guesses = torch.empty_like(means[0])

    def guess(genes: Tensor) -> None:
        y, f = fit.counts_of(genes), fit.factors_of(genes)
        normalised = y / f
        guesses[genes] = dispersions.initial_dispersions(normalised, fit.design, inverse_factor)
        if fit.design.is_groups:
            means[:, genes] = f * dispersions.linear_means(normalised, fit.design)
        else:
            model = glm.regress(y, f, guesses[genes], fit.design)
            means[:, genes] = model.mu
            fit.genes.put(genes, optimised=~model.settled)
        fit.genes.put(genes, base_mean=normalised.mean(dim=0))

    parts.for_each(guess, fit.all_parts())
    if not means.isfinite().all():
        raise DataError("design: its coefficients leave the range of numbers; centre and scale the numeric covariates")
    means.clamp_(min=glm.LEAST_MEAN)
    genes = dispersions.Genes(fit.counts, means, fit.design)
    fit.genes.genewise = dispersions.genewise(genes, guesses)
    return genes


def _fit_models(
    fit: Fit, genes: dispersions.Genes, judge: Callable[[Tensor, glm.Fit, Tensor], None] | None = None
) -> None:
    """Final dispersions and coefficients; ``genes`` are those of the gene-wise fit."""
    estimates = fit.genes
    genewise = estimates.genewise
    estimates.dispersion = genewise.clone()
    if fit.trend is not None:
        estimates.trend = trend = torch.as_tensor(fit.trend(estimates.base_mean.cpu().numpy()), device=genewise.device)
        estimates.map = dispersions.maximum_a_posteriori(genes, genewise, trend, fit.prior_variance)
        estimates.outlier = genewise.log() > trend.log() + OUTLIER_SD * fit.scatter**0.5
        estimates.dispersion = torch.where(estimates.outlier, genewise, estimates.map)

    def regress(some: Tensor) -> None:
        model = glm.regress(fit.counts_of(some), fit.factors_of(some), estimates.dispersion[some], fit.design)
        estimates.put(some, beta=model.beta)
        if judge is not None:
            judge(some, model, elementwise.take(genes.means, some))

    parts.for_each(regress, fit.all_parts())


def _judge_outliers(fit: Fit, replaceable: np.ndarray, test: str, part: Tensor, model: glm.Fit, means: Tensor) -> None:
    """Cook's distances of some genes; outliers in cells of enough samples are replaced, and their genes marked.

    R's distances for a likelihood-ratio test are those from the means of the gene-wise fit.
    """
    y, f = fit.counts_of(part), fit.factors_of(part)
    leverages = glm.leverages(model.last_mu, fit.genes.dispersion[part], fit.design)
    alpha = outliers.robust_dispersions(y / f, fit.design)
    kept = torch.as_tensor(~replaceable, device=y.device)[:, None]
    distances = {
        name: outliers.cooks_distances(y, alpha, mu, leverages, fit.design)
        for name, mu in (("lrt", means), ("wald", model.mu))
    }
    for name, cooks in distances.items():
        largest = outliers.largest_distance(cooks * kept, fit.design)  # an outlier that is replaced is not flagged
        fit.genes.put(part, **{f"cooks_{name}": largest, f"n_larger_{name}": outliers.larger_counts(y, cooks)})
    beyond = distances[test] > outliers.cutoff(fit.design)
    if fit.replaces and beyond.any():
        fit.counts[:, part] = outliers.replacements(y, f, beyond & ~kept)
        fit.genes.put(part, replaced=beyond.any(dim=0))


def _refit(fit: Fit, outlying: Tensor) -> None:
    """Fit genes again on counts whose outliers are replaced, with the trend and prior of the first fit."""
    left = (fit.counts[:, outlying] > 0).any(dim=0)
    fit.genes.beta[:, outlying[~left]] = torch.nan
    fit.genes.base_mean[outlying[~left]] = 0.0
    genes = outlying[left]
    again = fit.of(genes)
    _fit_models(again, _fit_genewise(again))
    fit.genes.put(genes, **{name: getattr(again.genes, name).to(genes.device) for name in REFITTED})
