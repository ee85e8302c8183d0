"""Whether the test keeps its word: against R, on simulated cohorts with and without effects, on real data shuffled."""

from collections.abc import Iterable

import anndata
import numpy as np
import pandas as pd
from scipy.stats import t as student

from epigen_utils import designs, differential, effects, evaluation, simulate

COMPARED = ["baseMean", "log2FoldChange", "lfcSE", "stat", "pvalue", "padj"]


def against_reference(ours: pd.DataFrame, theirs: pd.DataFrame, *, min_mean: float) -> pd.DataFrame:
    r"""How far the columns of a results table are from those of another implementation.

    Parameters
    ----------
    ours, theirs
        A row a gene, DESeq2's columns.
    min_mean
        Genes with a smaller mean are left out of all columns but the first: at a count or two estimates are ill defined.

    Returns
    -------
    A row a column: ``column``, ``genes`` (with a value on both sides), ``only ours`` and ``only theirs`` (with a value on one
    side), and the median, 99% quantile and maximum of \|ours - theirs\|; for ``baseMean`` relative to theirs.
    """
    theirs = theirs.reindex(ours.index)
    rows = []
    for column in COMPARED:
        keep = theirs["baseMean"] > (0 if column == "baseMean" else min_mean)
        a, b = ours.loc[keep, column], theirs.loc[keep, column]
        difference = ((a - b) / (b if column == "baseMean" else 1)).abs().dropna()
        row = {"column": column, "genes": len(difference), "only ours": int((a.notna() & b.isna()).sum())}
        row |= {"only theirs": int((a.isna() & b.notna()).sum()), "median": difference.median()}
        rows.append(row | {"99%": difference.quantile(0.99), "largest": difference.max()})
    return pd.DataFrame(rows)


def between_tables(ours: pd.DataFrame, theirs: pd.DataFrame) -> dict[str, float]:
    r"""Correlation over all entries, and median, 99% quantile and maximum of \|ours - theirs\|, of two tables of the same rows."""
    theirs = theirs.loc[ours.index, ours.columns]
    difference = (ours - theirs).abs().to_numpy().ravel()
    row = {"Pearson": float(np.corrcoef(ours.to_numpy().ravel(), theirs.to_numpy().ravel())[0, 1])}
    return row | dict(zip(("median", "99%", "largest"), np.quantile(difference, [0.5, 0.99, 1]), strict=True))


def calls_that_differ(ours: pd.DataFrame, theirs: pd.DataFrame, *, alpha: float) -> pd.DataFrame:
    """Every gene that one implementation calls and the other does not.

    Returns
    -------
    A row a gene: ``gene``, ``called by`` (ours or theirs), ``baseMean``, and ``log2FoldChange``, ``lfcSE`` and ``padj`` of both.
    """
    theirs = theirs.reindex(ours.index)
    called = ours["padj"] < alpha
    differ = called != (theirs["padj"] < alpha)
    found = pd.DataFrame({"gene": ours.index[differ], "called by": np.where(called[differ], "ours", "theirs")})
    found["baseMean"] = theirs.loc[differ, "baseMean"].to_numpy()
    for column in ("log2FoldChange", "lfcSE", "padj"):
        for name, table in (("ours", ours), ("theirs", theirs)):
            found[f"{column}, {name}"] = table.loc[differ, column].to_numpy()
    return found


def simulated(
    seeds: Iterable[int],
    *,
    groups: dict[str, int],
    n_genes: int,
    n_changed: int,
    alpha: float,
    edges: tuple[float, ...],
) -> pd.DataFrame:
    """False discoveries and power on simulated cohorts (`simulate.negative_binomial_cohort`), and the same without effects.

    Parameters
    ----------
    groups
        Two groups and their sizes, the reference first.
    edges
        Limits of the planted sizes that power is given by.

    Returns
    -------
    A row a seed: ``seed``, ``called``, ``false discoveries`` (share of the called; 0 where nothing is), a column a bin of
    sizes (share called), and of the cohort without effects ``rejected, null`` (share of p-values below ``alpha``) and
    ``called, null``.
    """
    reference, target = groups
    rows = []
    for seed in seeds:
        row = {"seed": seed}
        for changed in (n_changed, 0):
            cohort = simulate.negative_binomial_cohort(
                groups=groups, reference=reference, n_genes=n_genes, n_changed=changed, seed=seed
            )
            found = differential.deseq(cohort, design="~group", contrast=("group", target, reference), alpha=alpha)
            n_called = int((found["padj"] < alpha).sum())
            if changed:
                truth = cohort.varm["log2_fold_change"][target]
                rate = effects.false_discovery_rate(found, truth, alpha=alpha)[0]
                power = effects.against_truth(found, truth, alpha=alpha, edges=edges).iloc[1:]
                row |= {"called": n_called, "false discoveries": rate if n_called else 0.0}
                row |= dict(zip(power["size"], power["found"], strict=True))
            else:
                row |= {"rejected, null": (found["pvalue"].dropna() < alpha).mean(), "called, null": n_called}
        rows.append(row)
    return pd.DataFrame(rows)


def over_seeds(table: pd.DataFrame) -> pd.DataFrame:
    """Mean of each column over seeds with its 95% t interval: ``quantity``, ``mean``, ``low``, ``high``, ``seeds``.

    A seed without a value, such as one that has no gene in a bin, is left out of that row.
    """
    rows = []
    for name in table.columns.drop("seed"):
        values = table[name].dropna()
        half = student.ppf(0.975, len(values) - 1) * values.sem() if len(values) > 1 else np.nan
        mean = values.mean()
        rows.append({"quantity": name, "mean": mean, "low": mean - half, "high": mean + half, "seeds": len(values)})
    return pd.DataFrame(rows)


def shuffled(
    adata: anndata.AnnData,
    *,
    design: str,
    contrast: tuple[str, str, str],
    donors: np.ndarray | None,
    n_shuffles: int,
    alpha: float,
    seed: int,
) -> pd.DataFrame:
    """Differential expression of real data under its own labels, and under shuffled ones.

    Only samples of the two groups are used; pooled levels become one group. Labels are shuffled as `evaluation.labelings` does; of a labeling and its mirror
    image one is tested. Counts of genes are correlated, so that the number called swings widely from shuffle to shuffle.

    Returns
    -------
    A row a labeling, the observed one first: ``labels`` (observed or shuffled), ``agree`` (share of the samples that keep
    their label or, if more, get the other), ``called``, ``rejected`` (share of p-values below ``alpha``).

    Raises
    ------
    DataError
        As of `differential.deseq`, if the observed labels cannot be tested.
    """
    variable, target, reference = contrast
    designs.check_contrast(adata, contrast)
    words = adata.obs[variable].astype(str)
    targets = words.isin(designs.levels(adata, variable, target)).to_numpy()
    kept = targets | (words == reference).to_numpy()
    observed = np.where(targets, target, reference)[kept]
    chosen = None if donors is None else np.asarray(donors)[kept]
    new = list(evaluation.labelings(observed, donors=chosen, n_permutations=4 * n_shuffles, seed=seed))
    # Where they are few they come in alphabetical order, of which the first are all alike.
    order = np.random.default_rng(seed).permutation(len(new))
    seen, rows = set(), []
    for labels in [observed, *(new[place] for place in order)]:
        key = tuple(labels == labels[0])
        if key in seen or len(rows) > n_shuffles:
            continue
        seen.add(key)
        cohort = adata[kept].copy()
        cohort.obs[variable] = pd.Categorical(labels, [reference, target])
        if rows and not designs.is_full_rank(designs.matrix(cohort, design)):
            continue  # the shuffle made the groups one with another term
        found = differential.deseq(cohort, design=design, contrast=(variable, target, reference), alpha=alpha)
        same = (labels == observed).mean()
        row = {"labels": "shuffled" if rows else "observed", "agree": max(same, 1 - same)}
        rows.append(
            row | {"called": int((found["padj"] < alpha).sum()), "rejected": (found["pvalue"].dropna() < alpha).mean()}
        )
    return pd.DataFrame(rows)
