"""Random analyses: our differential expression beside R DESeq2's, the fit, the calls and the refusals.

    python tests/fuzz_deseq.py --draws 20 --seed 1 [--record FILE.json] [--keep FOLDER] [--only N]
    python tests/fuzz_deseq.py --again FOLDER          # ours anew, beside what R gave for the cases that were kept
    python tests/fuzz_deseq.py --fix tests/reference   # R's numbers for machines without R

`deseq_draws` draws the cases, and data/reference/deseq2_cases.R runs R on them. The exit code is 1 if a disagreement has
no listed cause (`CAUSES`).
"""

import argparse
import collections
import dataclasses
import gzip
import itertools
import json
import math
import os
import shutil
import subprocess
import sys
import tempfile
import traceback
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path

import deseq_draws
import numpy as np
import pandas as pd
from deseq_draws import Case

from epigen_utils import paths
from epigen_utils.errors import DataError
from epigen_utils.expression import agreement
from epigen_utils.files import write_atomically

SCRIPT = paths.DATA / "reference" / "deseq2_cases.R"
#: Cases that one R process runs; loading DESeq2 takes as long as a few of them.
BATCH = 50
#: Steps from which the end of R's iteration depends on rounding; at 100 it gives up (argument maxit of nbinomWaldTest).
MAX_STEPS = 80
#: Largest relative difference of a local trend.
LOCAL_TREND = 0.2
#: Mean counts above which sums of log likelihoods are rounded by as much as what decides on the first step of R's search
#: for a dispersion, where that starts at the end of it, and by as much as the change (1e-6) that ends any.
ROUNDED = 1e5, 1e7
#: Genes that a record lists of a finding.
LISTED = 20
#: Share of the values of a quantity that may be outside of its tolerance.
SHARE_OFF = 0.001


@dataclasses.dataclass(frozen=True)
class Tolerance:
    """Largest difference: relative to R's value, or absolute, whichever is larger."""

    relative: float
    absolute: float = 0.0


#: Of dispersions, whose smallest is 1e-8: R fits no trend to gene-wise ones below the first, and takes those below the
#: second for the smallest.
LEAST_USED, LEAST_DISPERSION = 1e-6, 1e-7

#: By quantity; those of a results table are the ones that the engine promises.
TOLERANCES = {
    **{name: Tolerance(*bounds) for name, bounds in agreement.TOLERANCES.items()},
    "size factor": Tolerance(1e-8),
    "genewise": Tolerance(1e-3, LEAST_USED),
    "trend": Tolerance(1e-3),
    "map": Tolerance(1e-3, LEAST_DISPERSION),
    "final": Tolerance(1e-3, LEAST_DISPERSION),
    "stat": Tolerance(1e-3, 1e-6),
    "padj": Tolerance(1e-2, 1e-300),
    "shrunken log2FoldChange": Tolerance(1e-3, 1e-6),
    "shrunken lfcSE": Tolerance(1e-3, 1e-6),
}
DISPERSIONS = {"dispGeneEst": "genewise", "dispFit": "trend", "dispMAP": "map", "dispersion": "final"}
RESULTS = ("baseMean", "log2FoldChange", "lfcSE", "stat", "pvalue", "padj")


@dataclasses.dataclass
class Outcome:
    """What one side made of a case.

    Attributes
    ----------
    refusal
        Its message, if it refused the case.
    crash
        The traceback of an error that is no refusal; only ours.
    warnings
        Warnings that a user would see; only ours.
    results
        A row a gene, in DESeq2's columns.
    dispersions
        A row a gene with counts: genewise, trend, map, final, outlier.
    flagged, unsettled
        Genes that R flags (``betaConv``), and those on which R's iteration took all its steps, so that its numbers are
        those at which its general optimiser stopped; masks of ``results``. R does not say it of the fit that gene-wise
        dispersions come from: there, ours counts.
    rounded
        Genes for which rounding decides how R's search for a dispersion ends, likewise: those with the largest counts,
        and those with large ones whose search starts at its end.
    replaced
        Genes of which R replaced an outlier, likewise.
    fit
        What R says of its fit: ``fitType`` (after a fall-back), ``dispPriorVar`` and more; of either, ``shrinkError``,
        why fold changes were not shrunken.
    """

    refusal: str | None = None
    crash: str | None = None
    warnings: tuple[str, ...] = ()
    results: pd.DataFrame | None = None
    dispersions: pd.DataFrame | None = None
    size_factors: pd.Series | None = None
    shrunken: pd.DataFrame | None = None
    flagged: pd.Series | None = None
    unsettled: pd.Series | None = None
    rounded: pd.Series | None = None
    replaced: pd.Series | None = None
    fit: dict = dataclasses.field(default_factory=dict)

    def unsettled_in(self, quantity: str) -> pd.Series:
        """Mask of the genes on which R's iteration took all its steps, in the model that a quantity comes from."""
        if self.shrunken is not None and "shrunken" in quantity:
            return self.shrunken["betaIter"] >= MAX_STEPS
        return self.unsettled

    def loose(self, quantity: str) -> pd.Series:
        """Mask of the genes that R does not settle: these, and those that rounding decides."""
        return self.unsettled_in(quantity) | self.rounded


@dataclasses.dataclass(frozen=True)
class Finding:
    """A disagreement in one quantity.

    Attributes
    ----------
    quantity
        A key of ``TOLERANCES``, ``NA of ...``, ``outlier``, ``calls``, ``refusal``, ``crash``
        or ``warning``.
    n_off, n
        Genes (samples) that differ, and those compared.
    worst
        The gene that differs most, with both values, or the messages.
    error
        The largest difference, relative to R's value; NaN where there is none.
    settled
        Whether it is of the genes that R settles: its iteration ended by itself, and rounding did not end its search for
        a dispersion.
    genes
        All genes that differ.
    cause
        The listed cause, or None.
    """

    quantity: str
    n_off: int
    n: int
    worst: str
    error: float = math.nan
    settled: bool = True
    genes: tuple[str, ...] = dataclasses.field(default=(), repr=False)
    cause: str | None = None

    def __str__(self) -> str:
        count = f" {self.n_off} of {self.n}" if self.n else ""
        count += "" if self.settled else " unsettled"
        error = "" if math.isnan(self.error) else f", by {self.error:.1e}"
        return f"{self.quantity}:{count}{error} ({self.worst}) [{self.cause or 'NO LISTED CAUSE'}]"


@dataclasses.dataclass(frozen=True)
class Comparison:
    """A case, both outcomes, and all findings."""

    case: Case
    ours: Outcome
    theirs: Outcome
    findings: list[Finding]

    def found(self, *quantities: str, settled: bool) -> bool:
        """Whether a finding is on one of some quantities, of settled genes or of the others."""
        return any(finding.quantity in quantities and finding.settled == settled for finding in self.findings)


@dataclasses.dataclass(frozen=True)
class Cause:
    """Why ours and R's may differ.

    Attributes
    ----------
    quantities
        The quantities of findings that it explains.
    applies
        Whether it does explain a finding.
    """

    name: str
    quantities: frozenset[str]
    applies: Callable[[Comparison, Finding], bool]
    explanation: str


#: What is estimated for a gene by itself, and what follows from the trend of dispersions, and from the p-values.
OF_A_GENE = frozenset({*DISPERSIONS.values(), *RESULTS[:5], "outlier", "NA of pvalue"}) - {"trend"}
SHRUNKEN = frozenset({"shrunken log2FoldChange", "shrunken lfcSE"})
AFTER_TREND = (OF_A_GENE - {"genewise", "baseMean"}) | SHRUNKEN | {"trend"}
AFTER_PVALUES = frozenset({"padj", "NA of padj", "calls"})


def is_after_trend(comparison: Comparison) -> bool:
    """Whether the trend went through gene-wise dispersions of genes that R does not settle, and no others differ."""
    return comparison.found("genewise", settled=False) and not comparison.found("genewise", settled=True)


def is_of(genes: pd.Series, comparison: Comparison, finding: Finding) -> bool:
    """Whether a finding is on some genes that R does not settle; the trend at a gene differs where its mean does.

    The mean does where an outlier is replaced by one side alone, as Cook's distances follow from the fit.
    """
    if finding.settled or not genes[list(finding.genes)].all():
        return False
    return finding.quantity != "trend" or comparison.found("baseMean", settled=False)


def is_after_pvalues(comparison: Comparison) -> bool:
    """Whether p-values differ, all of them for a listed cause."""
    causes = [found.cause for found in comparison.findings if found.quantity in ("pvalue", "NA of pvalue")]
    return bool(causes) and None not in causes


#: The disagreements that are allowed, in order: a later one may ask for the cause that another finding got.
CAUSES = (
    Cause(
        "few genes",
        frozenset({"refusal"}),
        lambda comparison, finding: (
            "too few for a local trend" in (comparison.ours.refusal or "")
            and comparison.theirs.fit.get("fitType") == "local"
        ),
        "ours refuses a local trend through fewer genes than a window takes; R draws one",
    ),
    Cause(
        "one sample",
        frozenset({"refusal"}),
        lambda comparison, finding: "has one sample" in (comparison.ours.refusal or ""),
        "ours refuses to compare a level that has one sample; R compares it",
    ),
    Cause(
        "R's optimiser",
        OF_A_GENE | SHRUNKEN | AFTER_PVALUES | {"trend"},
        lambda comparison, finding: is_of(comparison.theirs.unsettled_in(finding.quantity), comparison, finding),
        "R's iteration took nearly or all its 100 steps (betaIter), and what it reports is where that or a general optimiser stopped",
    ),
    Cause(
        "R's rounding",
        OF_A_GENE | SHRUNKEN | AFTER_PVALUES,
        lambda comparison, finding: is_of(comparison.theirs.loose(finding.quantity), comparison, finding),
        "means above 1e7, or above 1e5 where R's search for a dispersion takes two steps at most: rounding ends it",
    ),
    Cause(
        "trend through these",
        AFTER_TREND,
        lambda comparison, finding: is_after_trend(comparison),
        "the trend and prior are fitted to gene-wise dispersions, of which some differ for R's optimiser or rounding",
    ),
    Cause(
        "prior through these",
        SHRUNKEN,
        lambda comparison, finding: comparison.found("log2FoldChange", settled=False),
        "the prior of fold changes is as wide as all of them, of which some are where R's optimiser stopped",
    ),
    Cause(
        "shrunken with outliers",
        SHRUNKEN | {f"NA of {name}" for name in SHRUNKEN},
        lambda comparison, finding: comparison.theirs.replaced[list(finding.genes)].all(),
        "R's lfcShrink (normal) fits the counts as they were, those whose outliers the test replaced included",
    ),
    Cause(
        "local trend",
        AFTER_TREND,
        lambda comparison, finding: (
            comparison.theirs.fit.get("fitType") == "local"
            and comparison.found("trend", settled=True)
            and all(found.error <= LOCAL_TREND for found in comparison.findings if found.quantity == "trend")
        ),
        "a local trend is locfit's in R; ours has its mesh and its weights, and yet differs in some data, why is not known",
    ),
    Cause(
        "adjusted with others",
        AFTER_PVALUES,
        lambda comparison, finding: is_after_pvalues(comparison),
        "adjusted p-values depend on all p-values, of which some differ for a listed cause",
    ),
)


def with_causes(comparison: Comparison) -> list[Finding]:
    """The findings, each with the first listed cause that explains it."""
    for cause in CAUSES:
        for i, finding in enumerate(comparison.findings):
            if finding.cause is None and finding.quantity in cause.quantities and cause.applies(comparison, finding):
                comparison.findings[i] = dataclasses.replace(finding, cause=cause.name)
    return comparison.findings


# Our side


def run_ours(case: Case) -> Outcome:
    """Run a case through `epigen_utils.expression.differential`."""
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        try:
            found = analyse(case)
        except DataError as error:
            found = Outcome(refusal=str(error))
        except Exception:  # noqa: BLE001 - any other error is what this looks for
            found = Outcome(crash=traceback.format_exc())
    places = {f"{warning.message} ({Path(warning.filename).name}:{warning.lineno})": None for warning in caught}
    return dataclasses.replace(found, warnings=tuple(places))


def analyse(case: Case) -> Outcome:
    """Fit and test a case.

    Raises
    ------
    DataError
        If it is refused.
    """
    from epigen_utils.expression import differential  # here: drawing and comparing do without

    adata, options = case.adata(), case.options
    factors = options.size_factors
    fitted = differential.fit_design(
        adata,
        design=case.design,
        size_factors=factors if isinstance(factors, str) else pd.Series(factors, adata.obs_names),
        normalization_factors=case.normalization_factors,
        trend=options.trend,
        min_replicates_for_replace=options.min_replicates_for_replace,
        test="wald" if case.reduced is None else "lrt",
    )
    test = {
        "alpha": options.alpha,
        "independent_filter": options.independent_filter,
        "cooks_filter": options.cooks_filter,
    }
    shrunken, refusals = None, {}
    if case.reduced is not None:
        results = fitted.likelihood_ratio(case.reduced_design, case.contrast, **test)
    else:
        test |= {"lfc_threshold": options.lfc_threshold, "alt_hypothesis": options.alt_hypothesis}
        results = fitted.results(case.contrast, **test)
        if options.shrink:
            try:
                shrunken = fitted.results(case.contrast, shrink=options.shrink, **test)
            except DataError as error:
                refusals["shrinkError"] = str(error)
    return Outcome(
        results=results,
        dispersions=fitted.dispersions,
        size_factors=None if case.normalization_factors is not None else size_factors_of(fitted),
        shrunken=shrunken,
        unsettled=optimised_in(fitted),
        fit=refusals,
    )


def optimised_in(fitted) -> pd.Series:
    """Genes on which the iteration for the gene-wise dispersions did not settle."""
    return pd.Series(fitted.fit.of_all(fitted.fit.genes.optimised, missing=0) > 0, fitted.adata.var_names)


def size_factors_of(fitted) -> pd.Series:
    """The size factors that a fit used."""
    return pd.Series(fitted.fit.factors.cpu().numpy().ravel(), fitted.adata.obs_names)


# R's side


def missing_r() -> str | None:
    """Why R DESeq2 cannot be run here; None if it can."""
    if not shutil.which("Rscript"):
        return "Rscript is not in the path"
    question = 'cat(all(nzchar(sapply(c("DESeq2", "jsonlite", "locfit"), function(p) system.file(package = p)))))'
    done = subprocess.run(["Rscript", "-e", question], capture_output=True, text=True, check=False)
    return None if done.stdout == "TRUE" else "R has no DESeq2, jsonlite or locfit"


def run_r(folder: Path) -> dict:
    """Run R on a folder of cases.

    Returns
    -------
    The versions of R and DESeq2.

    Raises
    ------
    RuntimeError
        If R fails as a whole, or the script could not do what a case asks.
    """
    command = ["Rscript", str(SCRIPT), str(folder)]
    done = subprocess.run(
        command, env=os.environ | {"OMP_NUM_THREADS": "1"}, capture_output=True, text=True, check=False
    )
    if done.returncode:
        raise RuntimeError(f"{' '.join(command)}: {done.stderr.strip()[-2000:]}")
    for path in folder.glob("*/error.txt"):
        if "HARNESS" in path.read_text():
            raise RuntimeError(f"{path}: {path.read_text()}")
    return json.loads((folder / "session.json").read_text())


def read_r(folder: Path) -> Outcome:
    """What R made of a case.

    Raises
    ------
    RuntimeError
        If R was not run on it.
    """
    if (refusal := folder / "error.txt").exists():
        return Outcome(refusal=" ".join(refusal.read_text().split()))
    path = deseq_draws.table_file(folder, "results")
    if not path.exists():
        raise RuntimeError(f"{folder}: no results.csv and no error.txt; run {SCRIPT.name} on it")
    table = pd.read_csv(path, index_col=0)
    converged = [name for name in ("betaConv", "fullBetaConv", "reducedBetaConv") if name in table]
    dispersions = table[table["dispGeneEst"].notna()].rename(columns=DISPERSIONS)
    if "map" not in dispersions:
        dispersions["map"] = np.nan
    steps = [name for name in ("betaIter", "reducedBetaIter") if name in table]
    size_factors = deseq_draws.table_file(folder, "size_factors")
    shrunken = deseq_draws.table_file(folder, "shrink")
    return Outcome(
        results=table[list(RESULTS)],
        dispersions=dispersions[[*DISPERSIONS.values(), "dispOutlier"]].rename(columns={"dispOutlier": "outlier"}),
        size_factors=pd.read_csv(size_factors, index_col=0)["sizeFactor"] if size_factors.exists() else None,
        shrunken=pd.read_csv(shrunken, index_col=0) if shrunken.exists() else None,
        flagged=(table[converged] == False).any(axis=1),  # noqa: E712 - a missing value is no flag
        unsettled=(table[steps] >= MAX_STEPS).any(axis=1),
        rounded=decided_by_rounding(table),
        replaced=(table["replace"] == True) if "replace" in table else pd.Series(False, table.index),  # noqa: E712
        fit=json.loads((folder / "fit.json").read_text()),
    )


def decided_by_rounding(table: pd.DataFrame) -> pd.Series:
    """Mask of the genes of R's table for which rounding decides how the search for a dispersion ends."""
    mean = table["baseMean"]
    return (mean > ROUNDED[1]) | ((mean > ROUNDED[0]) & (table["dispGeneIter"] <= 2))


# Comparison


@dataclasses.dataclass
class Row:
    """A case, compared."""

    case: Case
    verdict: str
    findings: list[Finding]
    errors: dict[str, float]
    n_called: int = 0
    n_flagged: int = 0
    n_unsettled: int = 0
    refusal: str = ""

    @property
    def unexplained(self) -> list[Finding]:
        """Findings without a listed cause."""
        return [finding for finding in self.findings if finding.cause is None]

    def __str__(self) -> str:
        case = self.case
        n, n_genes = case.counts.shape
        test = f"against {case.reduced_design!r}" if case.reduced is not None else "Wald"
        lines = [
            f"{case.number:4d}  {self.verdict:18s} {n:2d} x {n_genes:3d}  {case.design}  {test}  {case.contrast}"
            f"  ({', '.join(kind for kind in case.kinds if kind.partition(': ')[0] not in ('design', 'test', 'contrast'))})"
        ]
        if self.refusal:
            lines.append(f"      {self.refusal}")
        return "\n".join(lines + [f"      {finding}" for finding in self.findings])


def compare(case: Case, ours: Outcome, theirs: Outcome) -> Row:
    """Compare what both sides made of a case."""
    if ours.crash or ours.refusal or theirs.refusal:
        return compare_refusals(case, ours, theirs)
    theirs.unsettled = theirs.unsettled | ours.unsettled.reindex(theirs.unsettled.index)
    findings, errors = [Finding("warning", 0, 0, text) for text in ours.warnings], {}
    for found, error in compare_values(ours, theirs):
        findings += found
        errors |= error
    findings += compare_calls(case, ours, theirs)
    findings = with_causes(Comparison(case, ours, theirs, findings))
    called = int((theirs.results["padj"] < case.options.alpha).sum())
    verdict = "differs" if findings else "equal"
    return Row(case, verdict, findings, errors, called, int(theirs.flagged.sum()), int(theirs.unsettled.sum()))


def compare_refusals(case: Case, ours: Outcome, theirs: Outcome) -> Row:
    """Compare where a side refused or ours crashed."""
    if ours.crash:
        last = ours.crash.strip().splitlines()[-1]
        return Row(case, "crash", [Finding("crash", 0, 0, f"{last}; R: {theirs.refusal or 'fits'}")], {})
    if ours.refusal and theirs.refusal:
        return Row(case, "refused by both", [], {}, refusal=f"ours: {ours.refusal} | R: {theirs.refusal}")
    who, message = ("ours", ours.refusal) if ours.refusal else ("R", theirs.refusal)
    findings = with_causes(Comparison(case, ours, theirs, [Finding("refusal", 0, 0, message)]))
    return Row(case, f"only {who} refuses", findings, {})


def compare_values(ours: Outcome, theirs: Outcome) -> Iterator[tuple[list[Finding], dict[str, float]]]:
    """Findings and worst errors of every quantity with a tolerance."""
    if ours.size_factors is not None and theirs.size_factors is not None:
        yield compare_column("size factor", ours.size_factors, theirs.size_factors)
    groups = groups_of(theirs, "")
    for name in RESULTS:
        yield compare_column(name, ours.results[name], theirs.results[name], groups)
    mine, their = ours.dispersions.reindex(theirs.dispersions.index), theirs.dispersions
    for name in DISPERSIONS.values():
        yield compare_column(name, mine[name], their[name], groups)
    off = mine["outlier"].eq(True) != their["outlier"].eq(True)
    yield findings_of("outlier", off, groups, lambda gene: f"{gene}: R {bool(their['outlier'][gene])}"), {}
    if bool(mine_refused := ours.fit.get("shrinkError")) != bool(their_refused := theirs.fit.get("shrinkError")):
        text = f"ours: {mine_refused or 'shrinks'} | R: {their_refused or 'shrinks'}"
        yield [Finding("refusal to shrink", 0, 0, text)], {}
    if theirs.shrunken is not None and ours.shrunken is not None:
        for name in ("log2FoldChange", "lfcSE"):
            groups = groups_of(theirs, "shrunken")
            yield compare_column(f"shrunken {name}", ours.shrunken[name], theirs.shrunken[name], groups)


def groups_of(theirs: Outcome, quantity: str) -> dict[bool, pd.Series]:
    """Masks of the genes that R settles, and of the others, both without what R flags."""
    loose = theirs.loose(quantity)
    return {True: ~theirs.flagged & ~loose, False: ~theirs.flagged & loose}


def findings_of(
    name: str, off: pd.Series, groups: dict[bool, pd.Series], describe: Callable[[str], str]
) -> list[Finding]:
    """A finding for each group of genes that has one where something is off."""
    findings = []
    for settled, mask in groups.items():
        some = off & mask.reindex(off.index)
        if some.any():
            n, genes = int(mask.reindex(off.index).sum()), tuple(off.index[some])
            findings.append(Finding(name, len(genes), n, describe(genes[0]), settled=settled, genes=genes))
    return findings


def compare_column(
    name: str, ours: pd.Series, theirs: pd.Series, groups: dict[bool, pd.Series] | None = None
) -> tuple[list[Finding], dict[str, float]]:
    """Findings on one quantity, where it is missing and in its values, and the worst error of settled genes."""
    ours, everything = ours.reindex(theirs.index).astype(float), pd.Series(True, theirs.index)
    groups, tolerance = groups or {True: everything}, TOLERANCES[name]

    def describe(gene: str) -> str:
        return f"{gene}: ours {ours[gene]:.6g}, R {theirs[gene]:.6g}"

    findings = findings_of(f"NA of {name}", ours.isna() != theirs.isna(), groups, describe)
    worst = {}
    for settled, mask in groups.items():
        both = ours.notna() & theirs.notna() & mask.reindex(theirs.index)
        if not both.any():
            continue
        x, y = ours[both], theirs[both]
        with np.errstate(divide="ignore", invalid="ignore"):
            difference = np.where(x == y, 0, (x - y).abs())
            relative = pd.Series(np.where(difference > tolerance.absolute, difference / y.abs(), 0), x.index)
        off = relative > tolerance.relative
        if settled:
            worst[name] = float(relative.max())
        if off.sum() > (SHARE_OFF * len(off) if settled else 0):
            text, error = describe(relative.idxmax()), float(relative.max())
            findings.append(Finding(name, int(off.sum()), len(off), text, error, settled, tuple(off.index[off])))
    return findings, worst


def compare_calls(case: Case, ours: Outcome, theirs: Outcome) -> list[Finding]:
    """Genes that one side alone calls; the number beside theirs is that of the genes that R calls."""
    x, y = (side.results["padj"].reindex(theirs.results.index) for side in (ours, theirs))
    off = (x < case.options.alpha) != (y < case.options.alpha)
    findings = []
    for settled, mask in groups_of(theirs, "calls").items():
        some = off & mask
        if some.any():
            gene, n = some.idxmax(), int((y < case.options.alpha).sum())
            text = f"{gene}: padj ours {x[gene]:.4g}, R {y[gene]:.4g}"
            findings.append(Finding("calls", int(some.sum()), n, text, settled=settled, genes=tuple(some.index[some])))
    return findings


# Runs


def batches(seed: int, numbers: list[int], folder: Path) -> Iterator[tuple[list[Path], dict]]:
    """Draw cases, write them below a folder and run R on them; gives their folders and R's versions."""
    for start in range(0, len(numbers), BATCH):
        part = folder / f"from_{numbers[start]:04d}"
        written = []
        for number in numbers[start : start + BATCH]:
            deseq_draws.write(deseq_draws.draw(seed, number), part / f"{number:04d}")
            written.append(part / f"{number:04d}")
        yield written, run_r(part)


def compare_folder(folder: Path) -> Row:
    """Run ours on a case that R has run, and keep our results beside R's."""
    case = deseq_draws.read(folder)
    ours = run_ours(case)
    if ours.results is not None:
        ours.results.join(ours.dispersions, rsuffix=" of dispersions").to_csv(folder / "ours.csv")
    (folder / "ours.txt").write_text(ours.crash or ours.refusal or "")
    return compare(case, ours, read_r(folder))


def run_draws(seed: int, numbers: list[int], folder: Path) -> tuple[list[Row], dict]:
    """Compare the cases of some numbers, and print each."""
    rows, versions = [], {}
    for written, session in batches(seed, numbers, folder):
        versions = session
        rows += [shown(compare_folder(path)) for path in written]
    return rows, versions


def run_again(folder: Path) -> tuple[list[Row], dict]:
    """Compare cases that were kept, below any depth of a folder."""
    rows = [shown(compare_folder(path.parent)) for path in sorted(folder.glob("**/case.json"))]
    session = next(folder.glob("**/session.json"), None)
    return rows, json.loads(session.read_text()) if session else {}


def shown(row: Row) -> Row:
    """Print a row."""
    print(row, flush=True)
    return row


def summary(rows: list[Row]) -> dict:
    """Counts of verdicts and causes, and the largest error of each quantity where no finding is on it."""
    worst = {name: {"tolerance": tolerance.relative, "worst": 0.0} for name, tolerance in TOLERANCES.items()}
    for row in rows:
        found = {finding.quantity for finding in row.findings if finding.settled}
        for name, error in row.errors.items():
            if name not in found:
                worst[name]["worst"] = max(worst[name]["worst"], error)
    causes = collections.Counter(finding.cause or "no listed cause" for row in rows for finding in row.findings)
    return {
        "drawn": len(rows),
        "verdicts": dict(collections.Counter(row.verdict for row in rows)),
        "differ for a listed cause alone": sum(bool(row.findings) and not row.unexplained for row in rows),
        "without a listed cause": [row.case.number for row in rows if row.unexplained],
        "findings by cause": dict(causes),
        "called by R": sum(row.n_called for row in rows),
        "genes that R flags": sum(row.n_flagged for row in rows),
        "genes on which R's iteration does not settle": sum(row.n_unsettled for row in rows),
        "worst relative error within tolerance or share": worst,
        "kinds": dict(sorted(collections.Counter(kind for row in rows for kind in row.case.kinds).items())),
    }


def record(rows: list[Row], versions: dict, seed: int, path: Path) -> None:
    """Write the summary, and a row a case that has findings."""
    content = {
        "made by": f"tests/fuzz_deseq.py --seed {seed} --draws {len(rows)}",
        "versions": versions,
        **summary(rows),
        "causes": {cause.name: cause.explanation for cause in CAUSES},
        "refused by both": {row.case.number: row.refusal for row in rows if row.verdict == "refused by both"},
        "rows": [
            {
                "number": row.case.number,
                "verdict": row.verdict,
                "samples": row.case.counts.shape[0],
                "genes": row.case.counts.shape[1],
                "design": row.case.design,
                "reduced": row.case.reduced_design,
                "contrast": row.case.contrast,
                "kinds": row.case.kinds,
                "called by R": row.n_called,
                "findings": [
                    dataclasses.asdict(finding)
                    | {"error": None if math.isnan(finding.error) else finding.error, "genes": finding.genes[:LISTED]}
                    for finding in row.findings
                ],
                "refusal": row.refusal or None,
            }
            for row in rows
            if row.findings
        ],
    }
    write_atomically(path, json.dumps(content, ensure_ascii=False).replace('{"number"', '\n{"number"') + "\n")


# Fixed references

#: What the fixed cases are to have between them; each is the first draw with these kinds that R fits parametrically.
WANTED = {
    "batch": ("design: batch", "contrast: reference", "test: Wald", "size factors: ratio"),
    "interaction_lrt": ("design: interaction", "test: LRT"),
    "levels_poscounts": ("design: levels", "size factors: poscounts", "contrast: between"),
    "pairs_factors": ("design: pairs", "size factors: normalization factors"),
    "numeric_weights": ("design: numeric", "contrast: weights"),
    "less_abs": ("alternative: lessAbs", "contrast: swapped"),
    "outliers_replaced": ("counts: outliers", "min_replicates_for_replace: 3", "test: Wald"),
    "mean_trend": ("trend: mean", "design: two groups", "counts: huge"),
    "real": ("data: airway", "test: Wald"),
}
#: Genes of a fixed case, candidates that R tries for each, and kinds whose genes R often does not settle, or that have
#: no parametric trend.
FIXED_GENES, CANDIDATES = (80, 250), 3
LEFT_OUT = {
    "counts: zero inflation",
    "counts: single samples",
    "counts: poisson",
    "counts: all equal",
    "contrast: wrong",
}


def fix(seed: int, folder: Path) -> None:
    """Write cases and R's numbers in a compact form, one folder each."""
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    with tempfile.TemporaryDirectory() as name:
        for wanted, kinds in WANTED.items():
            compact(first_fitted(seed, kinds, Path(name) / wanted), folder / wanted)
        shutil.copy(next(Path(name).glob("**/session.json")), folder / "session.json")


def first_fitted(seed: int, kinds: tuple[str, ...], root: Path) -> Path:
    """Folder of the first draw that has some kinds and few genes, and that R fits well; R tries a few at a time."""
    drawn = (deseq_draws.draw(seed, number) for number in itertools.count())
    suitable = (case for case in drawn if is_suitable(case, kinds))
    while some := list(itertools.islice(suitable, CANDIDATES)):
        part = root / f"{some[0].number:05d}"
        for case in some:
            deseq_draws.write(case, part / f"{case.number:05d}")
        run_r(part)
        for path in sorted(path.parent for path in part.glob("*/case.json")):
            if is_fitted(path, kinds):
                return path
    raise AssertionError("drawing has no end")


def is_suitable(case: Case, kinds: tuple[str, ...]) -> bool:
    """Whether a case may become a fixed one, before R is asked."""
    few = FIXED_GENES[0] <= case.counts.shape[1] <= FIXED_GENES[1]
    return few and set(kinds) <= set(case.kinds) and not LEFT_OUT & set(case.kinds)


def is_fitted(folder: Path, kinds: tuple[str, ...]) -> bool:
    """Whether R fitted a case, with the trend that was asked for, nearly all genes settled and some small p-values."""
    theirs = read_r(folder)
    trend = "mean" if "trend: mean" in kinds else "parametric"
    if theirs.refusal is not None or theirs.fit["fitType"] != trend:
        return False
    return bool((theirs.results["pvalue"] < 0.1).any() and theirs.unsettled.mean() < 0.05)


def compact(source: Path, target: Path) -> None:
    """Copy what a comparison needs: tables with nine digits, compressed."""
    shutil.rmtree(target, ignore_errors=True)
    target.mkdir(parents=True)
    for name in ("counts", "normalization_factors", "results", "size_factors", "shrink"):
        path = source / f"{name}.csv"
        if path.exists():
            table = pd.read_csv(path, index_col=0)
            digits = None if name in ("counts", "normalization_factors", "size_factors") else "%.9g"
            text = table.to_csv(float_format=digits, na_rep="NA")
            (target / f"{name}.csv.gz").write_bytes(gzip.compress(text.encode(), mtime=0))
    for name in ("case.json", "samples.csv", "fit.json"):
        shutil.copy(source / name, target / name)


def main(arguments: list[str] | None = None) -> int:
    """Run the command line; gives its exit code."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--draws", type=int, default=20, help="number of cases")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--first", type=int, default=0, help="number of the first case")
    parser.add_argument("--only", type=int, help="the case of this number alone")
    parser.add_argument("--record", type=Path, help="JSON file for the report")
    parser.add_argument("--keep", type=Path, help="folder for the cases, with R's results and ours")
    parser.add_argument("--again", type=Path, help="compare cases that --keep kept, without R")
    parser.add_argument("--fix", type=Path, help="write the fixed references into this folder")
    options = parser.parse_args(arguments)
    if options.again is None and (reason := missing_r()):
        print(f"fuzz_deseq: {reason}; `make r` installs it where it can", file=sys.stderr)
        return 2
    if options.fix:
        fix(options.seed, options.fix)
        return 0
    if options.again:
        rows, versions = run_again(options.again)
    else:
        numbers = list(range(options.first, options.first + options.draws))
        with tempfile.TemporaryDirectory() as temporary:
            folder = options.keep or Path(temporary)
            numbers = numbers if options.only is None else [options.only]
            rows, versions = run_draws(options.seed, numbers, folder)
    if options.record:
        record(rows, versions, options.seed, options.record)
    found = summary(rows)
    print(json.dumps({key: value for key, value in found.items() if key != "kinds"}, indent=1))
    return 1 if found["without a listed cause"] else 0


if __name__ == "__main__":
    sys.exit(main())
