"""Calibration of the differential-expression test: type-I error and FDR on simulated cohorts, permuted real data."""

import copy
import dataclasses
from collections.abc import Iterable

import anndata
import numpy as np
import pandas as pd
import torch

from epigen_utils.data import simulated_bulk
from epigen_utils.deseq import glm
from epigen_utils.expression import designs, differential, effects
from epigen_utils.stats import intervals, permutation

#: Tests of a simulated cohort. All but the last have the same fit; the first is the default one.
DEFAULT, UNFILTERED, LIKELIHOOD_RATIO, KNOWN, PYDESEQ2 = TESTS = (
    "default",
    "no filters",
    "likelihood ratio",
    "known dispersion",
    "PyDESeq2",
)
#: Metrics of `summarise_rates` that are no shares.
NO_SHARES = ("called", "fdr_difference_of_pydeseq2")


def with_known_dispersion(fitted: differential.FittedDesign, dispersion: float) -> differential.FittedDesign:
    """The same fit with one dispersion for all genes instead of estimated ones; judgements of outliers stay."""
    fit = fitted.fit
    genes = copy.copy(fit.genes)
    genes.dispersion = torch.full_like(genes.dispersion, dispersion)
    genes.beta = glm.regress(fit.counts, fit.factors, genes.dispersion, fit.design).beta
    known = dataclasses.replace(fit, genes=genes)
    return dataclasses.replace(fitted, fit_for=lambda test: known)


def _results_by_test(
    cohort: anndata.AnnData, contrast: tuple[str, str, str], *, alpha: float, dispersion: float, compare: bool
) -> dict[str, pd.DataFrame]:
    """Results of each of `TESTS`, by name; PyDESeq2's only if ``compare``."""
    fitted = differential.fit_design(cohort, design="~group")
    known = with_known_dispersion(fitted, dispersion)
    tables = {
        DEFAULT: fitted.results(contrast, alpha=alpha),
        UNFILTERED: fitted.results(contrast, alpha=alpha, independent_filter=False, cooks_filter=False),
        LIKELIHOOD_RATIO: fitted.likelihood_ratio("~1", contrast, alpha=alpha),
        KNOWN: known.results(contrast, alpha=alpha),
    }
    if compare:
        tables[PYDESEQ2] = differential.deseq(
            cohort, design="~group", contrast=contrast, alpha=alpha, engine="pydeseq2"
        )
    return tables


def error_rates_on_simulations(
    seeds: Iterable[int],
    *,
    groups: dict[str, int],
    n_genes: int,
    n_changed: int,
    alpha: float,
    edges: tuple[float, ...],
    n_compared: int = 0,
    dispersion: float = 0.1,
) -> pd.DataFrame:
    """False discoveries and power on simulated cohorts with effects, and type-I error on cohorts without.

    Parameters
    ----------
    groups
        Two groups and their sizes, the reference first.
    edges
        Bin edges of the planted sizes, by which power is given.
    n_compared
        Number of the seeds whose cohorts PyDESeq2 tests too.
    dispersion
        Of the counts that are drawn.

    Returns
    -------
    A row a seed and test (`TESTS`): ``seed``, ``test``, ``called``, ``false discoveries`` (share of the called; 0 if
    none), ``tail`` (share of the p-values of unchanged genes below a tenth of ``alpha``), a column a bin of sizes
    (share called), and, of the default test on a cohort without effects, ``rejected, null`` (share of p-values below
    ``alpha``) and ``called, null``.
    """
    reference, target = groups
    contrast, rows = ("group", target, reference), []
    options = {"groups": groups, "reference": reference, "n_genes": n_genes, "dispersion": dispersion}
    for i, seed in enumerate(seeds):
        cohort = simulated_bulk.negative_binomial_cohort(**options, n_changed=n_changed, seed=seed)
        unchanged = simulated_bulk.negative_binomial_cohort(**options, n_changed=0, seed=seed)
        null = differential.deseq(unchanged, design="~group", contrast=contrast, alpha=alpha)
        truth = cohort.varm["log2_fold_change"][target]
        tables = _results_by_test(cohort, contrast, alpha=alpha, dispersion=dispersion, compare=i < n_compared)
        for test, results in tables.items():
            n_called = int((results["padj"] < alpha).sum())
            rate = effects.false_discovery_proportion(results, truth, alpha=alpha)[0] if n_called else 0.0
            tail = (results["pvalue"][truth == 0].dropna() < alpha / 10).mean()
            by_size = effects.power_by_effect_size(results, truth, alpha=alpha, edges=edges).iloc[1:]
            row = {"seed": seed, "test": test, "called": n_called, "false discoveries": rate, "tail": tail}
            row |= dict(zip(by_size["size"], by_size["found"], strict=True))
            if test == DEFAULT:
                row |= {"rejected, null": (null["pvalue"].dropna() < alpha).mean()}
                row |= {"called, null": int((null["padj"] < alpha).sum())}
            rows.append(row)
    return pd.DataFrame(rows)


def by_test(rates: pd.DataFrame, column: str) -> pd.DataFrame:
    """A column of `error_rates_on_simulations`, seeds x tests."""
    wide = rates.pivot(index="seed", columns="test", values=column)
    return wide[[test for test in TESTS if test in wide]]


def summarise_rates(rates: pd.DataFrame, *, alpha: float) -> pd.DataFrame:
    """Means over cohorts, of the default test if a row names no other.

    Parameters
    ----------
    rates
        `error_rates_on_simulations`.

    Returns
    -------
    A row a quantity: ``quantity``, ``mean``, ``low``, ``high`` (Student's 95% interval, of a share cut at 0 and 1; of a
    share of cohorts Clopper and Pearson's; none of fewer than four cohorts) and ``cohorts``, and its name in
    ``metric``. Missing values, for example of a bin without genes, are left out.
    """
    default = rates[rates["test"] == DEFAULT].set_index("seed")
    discoveries, tails = by_test(rates, "false discoveries"), by_test(rates, "tail")
    columns = {f"false discoveries{_suffix(test)}": (f"fdr{_slug(test)}", discoveries[test]) for test in discoveries}
    if PYDESEQ2 in discoveries:
        difference = discoveries[PYDESEQ2] - discoveries[DEFAULT]
        columns["false discoveries, PyDESeq2 less default"] = ("fdr_difference_of_pydeseq2", difference)
    for test in (DEFAULT, KNOWN):
        columns[f"p below {alpha / 10:g}, unchanged genes{_suffix(test)}"] = (f"tail{_slug(test)}", tails[test])
    columns[f"p below {alpha:g}, unchanged cohorts"] = ("null_rejected", default["rejected, null"])
    columns["called"] = ("called", default["called"])
    for size in (name for name in rates if " to " in name):
        columns[f"power, {size}"] = (f"power_{size.replace(' ', '_').replace('.', '_')}", default[size])
    rows = []
    for quantity, (metric, values) in columns.items():
        values = values.dropna()
        mean, low, high = intervals.student_interval(values)
        if len(values) < intervals.LEAST_UNITS:
            low = high = np.nan
        elif metric not in NO_SHARES:
            low, high = max(low, 0.0), min(high, 1.0)
        ends = {"mean": mean, "low": low, "high": high}
        rows.append({"quantity": quantity, **ends, "cohorts": len(values), "metric": metric})
    some, n = int((default["called, null"] > 0).sum()), len(default)
    ends = dict(zip(("low", "high"), intervals.binomial_interval(some, n), strict=True))
    row = {"quantity": "any gene called, unchanged cohorts", "mean": some / n, **ends, "cohorts": n}
    rows.append(row | {"metric": "null_any_called"})
    return pd.DataFrame(rows)


def _suffix(test: str) -> str:
    return "" if test == DEFAULT else f", {test}"


def _slug(test: str) -> str:
    return "" if test == DEFAULT else "_" + test.lower().replace(" ", "_")


def describe_rate(mean: float, low: float, high: float, *, alpha: float) -> str:
    """A false discovery rate with its interval, compared with the nominal level."""
    rate = f"{mean:.3f} (95% interval {low:.3f} to {high:.3f})"
    if low > alpha:
        return f"{rate}: above the nominal {alpha:g}"
    if high < alpha:
        return f"{rate}: below the nominal {alpha:g}"
    return f"{rate}, which includes the nominal {alpha:g}"


def calls_under_permutation(
    adata: anndata.AnnData,
    *,
    design: str,
    contrast: tuple[str, str, str],
    donors: np.ndarray | None,
    n_permutations: int,
    alpha: float,
    seed: int,
) -> pd.DataFrame:
    """Differential expression of real data with the observed labels and with permuted ones.

    Only samples of the two groups are used; pooled levels become one group. `permutation.permuted_labels` permutes the
    labels; of a permutation and its mirror image (the two labels swapped) only one is tested. Genes are correlated, so
    the number called varies widely between permutations.

    Returns
    -------
    A row a permutation, the observed labels first: ``labels`` (observed or permuted), ``agree`` (share of the samples
    whose label is unchanged, in the permutation or its mirror image, whichever is larger), ``called``, ``rejected``
    (share of p-values below ``alpha``).

    Raises
    ------
    DataError
        If the observed labels cannot be tested (`differential.deseq`).
    """
    variable, target, reference = contrast
    designs.check_contrast(adata, contrast)
    words = adata.obs[variable].astype(str)
    targets = words.isin(designs.target_levels(adata, variable, target)).to_numpy()
    compared = targets | (words == reference).to_numpy()
    observed = np.where(targets, target, reference)[compared]
    units = None if donors is None else np.asarray(donors)[compared]
    permutations = list(
        permutation.permuted_labels(observed, donors=units, n_permutations=4 * n_permutations, seed=seed)
    )
    # Enumerated permutations come in lexicographic order, in which the first ones hardly differ.
    order = np.random.default_rng(seed).permutation(len(permutations))
    seen, rows = set(), []
    for labels in [observed, *(permutations[i] for i in order)]:
        key = tuple(labels == labels[0])
        if key in seen or len(rows) > n_permutations:
            continue
        seen.add(key)
        cohort = adata[compared].copy()
        cohort.obs[variable] = pd.Categorical(labels, [reference, target])
        if rows and not designs.is_full_rank(designs.design_matrix(cohort, design)):
            continue  # the permutation confounded the groups with another term
        results = differential.deseq(cohort, design=design, contrast=(variable, target, reference), alpha=alpha)
        same = (labels == observed).mean()
        row = {"labels": "permuted" if rows else "observed", "agree": max(same, 1 - same)}
        row |= {"called": int((results["padj"] < alpha).sum())}
        rows.append(row | {"rejected": (results["pvalue"].dropna() < alpha).mean()})
    return pd.DataFrame(rows)
