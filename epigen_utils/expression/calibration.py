"""Calibration of the differential-expression test: agreement with R, type-I error and FDR, permuted real data."""

from collections.abc import Iterable

import anndata
import numpy as np
import pandas as pd

from epigen_utils.data import simulated_bulk
from epigen_utils.expression import designs, differential, effects
from epigen_utils.stats import intervals, permutation


def compare_with_reference(ours: pd.DataFrame, theirs: pd.DataFrame, *, min_mean: float) -> pd.DataFrame:
    r"""Differences of a results table from that of another implementation, by column.

    Parameters
    ----------
    ours, theirs
        A row a gene, DESeq2's columns.
    min_mean
        Genes with a mean up to this are compared in ``baseMean`` only: at a count or two, estimates are ill defined.

    Returns
    -------
    A row a column: ``column``, ``genes`` (with a value in both), ``only ours`` and ``only theirs`` (genes with a value
    in one), and ``median``, ``99%`` and ``largest`` of \|ours - theirs\|, for ``baseMean`` relative to theirs.
    """
    theirs = theirs.reindex(ours.index)
    rows = []
    for column in differential.DESEQ_COLUMNS:
        expressed = theirs["baseMean"] > (0 if column == "baseMean" else min_mean)
        a, b = ours.loc[expressed, column], theirs.loc[expressed, column]
        difference = ((a - b) / (b if column == "baseMean" else 1)).abs().dropna()
        row = {"column": column, "genes": len(difference), "only ours": int((a.notna() & b.isna()).sum())}
        row |= {"only theirs": int((a.isna() & b.notna()).sum()), "median": difference.median()}
        rows.append(row | {"99%": difference.quantile(0.99), "largest": difference.max()})
    return pd.DataFrame(rows)


def compare_tables(ours: pd.DataFrame, theirs: pd.DataFrame) -> dict[str, float]:
    r"""Agreement of two tables with the same rows, over all entries.

    Returns
    -------
    ``Pearson``, and ``median``, ``99%`` (quantile) and ``largest`` of \|ours - theirs\|.
    """
    theirs = theirs.loc[ours.index, ours.columns]
    difference = (ours - theirs).abs().to_numpy().ravel()
    row = {"Pearson": float(np.corrcoef(ours.to_numpy().ravel(), theirs.to_numpy().ravel())[0, 1])}
    return row | dict(zip(("median", "99%", "largest"), np.quantile(difference, [0.5, 0.99, 1]), strict=True))


def discordant_calls(ours: pd.DataFrame, theirs: pd.DataFrame, *, alpha: float) -> pd.DataFrame:
    """Genes that only one of two implementations calls.

    Returns
    -------
    A row a gene: ``gene``, ``called by`` (ours or theirs), ``baseMean``, and ``log2FoldChange``, ``lfcSE`` and ``padj``
    of both.
    """
    theirs = theirs.reindex(ours.index)
    called = ours["padj"] < alpha
    differ = called != (theirs["padj"] < alpha)
    discordant = pd.DataFrame({"gene": ours.index[differ], "called by": np.where(called[differ], "ours", "theirs")})
    discordant["baseMean"] = theirs.loc[differ, "baseMean"].to_numpy()
    for column in ("log2FoldChange", "lfcSE", "padj"):
        for name, table in (("ours", ours), ("theirs", theirs)):
            discordant[f"{column}, {name}"] = table.loc[differ, column].to_numpy()
    return discordant


def error_rates_on_simulations(
    seeds: Iterable[int],
    *,
    groups: dict[str, int],
    n_genes: int,
    n_changed: int,
    alpha: float,
    edges: tuple[float, ...],
) -> pd.DataFrame:
    """False discoveries and power on simulated cohorts with effects, and type-I error on cohorts without.

    Parameters
    ----------
    groups
        Two groups and their sizes, the reference first.
    edges
        Bin edges of the planted sizes, by which power is given.

    Returns
    -------
    A row a seed: ``seed``, ``called``, ``false discoveries`` (share of the called; 0 if none), a column a bin of sizes
    (share called), and, of the cohort without effects, ``rejected, null`` (share of p-values below ``alpha``) and
    ``called, null``.
    """
    reference, target = groups
    rows = []
    for seed in seeds:
        row = {"seed": seed}
        for changed in (n_changed, 0):
            cohort = simulated_bulk.negative_binomial_cohort(
                groups=groups, reference=reference, n_genes=n_genes, n_changed=changed, seed=seed
            )
            results = differential.deseq(cohort, design="~group", contrast=("group", target, reference), alpha=alpha)
            n_called = int((results["padj"] < alpha).sum())
            if changed:
                truth = cohort.varm["log2_fold_change"][target]
                rate = effects.false_discovery_proportion(results, truth, alpha=alpha)[0]
                by_size = effects.power_by_effect_size(results, truth, alpha=alpha, edges=edges).iloc[1:]
                row |= {"called": n_called, "false discoveries": rate if n_called else 0.0}
                row |= dict(zip(by_size["size"], by_size["found"], strict=True))
            else:
                row |= {"rejected, null": (results["pvalue"].dropna() < alpha).mean(), "called, null": n_called}
        rows.append(row)
    return pd.DataFrame(rows)


def means_over_seeds(table: pd.DataFrame) -> pd.DataFrame:
    """Mean of each column over seeds with Student's 95% interval: ``quantity``, ``mean``, ``low``, ``high``, ``seeds``.

    Missing values, such as those of a bin without genes, are left out.
    """
    rows = []
    for name in table.columns.drop("seed"):
        values = table[name].dropna()
        mean, low, high = intervals.student_interval(values)
        rows.append({"quantity": name, "mean": mean, "low": low, "high": high, "seeds": len(values)})
    return pd.DataFrame(rows)


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
    A row a permutation, the observed labels first: ``labels`` (observed or shuffled), ``agree`` (share of the samples
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
        row = {"labels": "shuffled" if rows else "observed", "agree": max(same, 1 - same)}
        row |= {"called": int((results["padj"] < alpha).sum())}
        rows.append(row | {"rejected": (results["pvalue"].dropna() < alpha).mean()})
    return pd.DataFrame(rows)
