"""Pseudo-time of cells and the genes along it: paper A, section VI, names trajectories as a way to interpret a model.

A pseudo-time is compared with labels that it does not use, with one component of the variance, with permuted labels,
and with cells whose genes were permuted one by one.
"""

import itertools
from dataclasses import dataclass

import anndata
import numpy as np
import pandas as pd
import scanpy
from scipy.stats import rankdata, spearmanr

from epigen_utils.errors import DataError, suggest
from epigen_utils.stats import intervals, permutation, projections, two_classes

#: Names of the orders of cells that `orders_of_cells` computes.
PSEUDOTIME, BY_RANKS, NULL = "pseudo-time", "pseudo-time from ranks", "pseudo-time, genes permuted"
COMPONENT, DEPTH = "PC1", "counts in the cell"

#: Names of the two sets of cells that a page compares.
ALL_CELLS, ONE_FATE = "all cells", "one fate"


def log_expression(adata: anndata.AnnData) -> pd.DataFrame:
    """log(1 + counts in 10,000) of the genes that any cell expresses, cells x genes, by symbol.

    Of genes with the same symbol, the one with more counts is kept.
    """
    counts = adata.layers["counts"].astype(np.float32)
    part = anndata.AnnData(counts, obs=adata.obs[[]].copy(), var=adata.var[["symbol"]].astype(str))
    totals = np.asarray(part.X.sum(axis=0)).ravel()
    order = np.argsort(-totals, kind="stable")
    first = order[~part.var["symbol"].iloc[order].duplicated().to_numpy()]
    kept = np.sort(first[totals[first] > 0])
    scanpy.pp.normalize_total(part, target_sum=1e4)
    scanpy.pp.log1p(part)
    values = part.X[:, kept]
    values = values.toarray() if hasattr(values, "toarray") else values
    return pd.DataFrame(values, adata.obs_names, part.var["symbol"].iloc[kept].to_numpy())


def gene_values(values: pd.DataFrame, gene: str) -> pd.Series:
    """Expression of one gene, by cell; raises `DataError` if no cell expresses it."""
    if gene not in values:
        raise DataError(f"gene {gene!r}: no cell expresses it; {suggest(gene, list(values.columns))}")
    return values[gene]


def variable_genes(values: pd.DataFrame, n_genes: int, without: list[str]) -> list[str]:
    """The most variable genes of log expression (scanpy's dispersions), without those that validate the result."""
    table = values.drop(columns=without, errors="ignore")
    part = anndata.AnnData(table.to_numpy(np.float32), var=pd.DataFrame(index=table.columns))
    scanpy.pp.highly_variable_genes(part, n_top_genes=min(n_genes, table.shape[1]))
    return list(part.var_names[part.var["highly_variable"]])


def ranks_in_cells(values: pd.DataFrame) -> pd.DataFrame:
    """The rank of each gene among those that the cell expresses, in (0, 1]; the highest has 1, absent genes 0.

    Examples
    --------
    >>> import pandas as pd
    >>> from epigen_utils.expression import trajectories
    >>> values = pd.DataFrame({"a": [3.0, 0.0], "b": [1.0, 2.0], "c": [0.0, 5.0]}, index=["x", "y"])
    >>> trajectories.ranks_in_cells(values)
         a    b    c
    x  1.0  0.5  0.0
    y  0.0  0.5  1.0
    """
    table = values.to_numpy()
    expressed = table > 0
    absent = (~expressed).sum(axis=1, keepdims=True)
    ranks = (rankdata(table, axis=1) - absent) / np.maximum(expressed.sum(axis=1, keepdims=True), 1)
    return pd.DataFrame(np.where(expressed, ranks, 0.0), values.index, values.columns)


def diffusion_pseudotime(
    values: pd.DataFrame, start: pd.Series, *, n_components: int = 20, n_neighbors: int = 15, seed: int = 0
) -> pd.DataFrame:
    """Diffusion pseudo-time (Haghverdi et al. 2016), by scanpy.

    The root is the cell at one end of the first diffusion component: the end at which ``start`` is higher. No label of
    the cells is used.

    Parameters
    ----------
    values
        Cells x genes.
    start
        A quantity of each cell that is high at the start, such as the expression of a gene.
    n_components
        Principal components that the graph of neighbours is made from.

    Returns
    -------
    A row a cell: ``pseudotime`` in [0, 1], and ``component``, the first diffusion component, rising from the root.

    Raises
    ------
    DataError
        If the graph of neighbours falls apart, so that some cells cannot be reached from the root.
    """
    part = anndata.AnnData(values.to_numpy(np.float32), obs=pd.DataFrame(index=values.index))
    n_components = min(n_components, min(part.shape) - 1)
    scanpy.pp.pca(part, n_comps=n_components, svd_solver="full", random_state=seed)
    scanpy.pp.neighbors(part, n_neighbors=n_neighbors, use_rep="X_pca", random_state=seed)
    scanpy.tl.diffmap(part, random_state=seed)
    # The component before it is constant.
    component = part.obsm["X_diffmap"][:, 1]
    component = component * _falling_sign(component, start.loc[values.index])
    part.uns["iroot"] = int(np.argmin(component))
    scanpy.tl.dpt(part)
    times = part.obs["dpt_pseudotime"].to_numpy(float)
    if not np.isfinite(times).all():
        n = int((~np.isfinite(times)).sum())
        raise DataError(f"pseudo-time: {n} of {len(times)} cells cannot be reached from the root; raise n_neighbors")
    return pd.DataFrame({"pseudotime": times, "component": component}, values.index)


def _falling_sign(order: np.ndarray | pd.Series, start: pd.Series) -> float:
    """The sign that makes ``start`` fall along an order."""
    if start.nunique() < 2:
        raise DataError("pseudo-time: the quantity that marks the start is the same in all cells; name another gene")
    return -1.0 if spearmanr(order, start).statistic > 0 else 1.0


def orders_of_cells(
    values: pd.DataFrame, depth: pd.Series, start: pd.Series, *, seed: int = 0, **options: int
) -> pd.DataFrame:
    """Orders of the same cells: by pseudo-time, and by what it has to surpass; cells x orders.

    Ranks are those within a cell (a gene sentence has no more); PC1 runs from the end at which ``start`` is higher.

    Parameters
    ----------
    options
        For `diffusion_pseudotime`.
    """
    rng = np.random.default_rng(seed)
    permuted = pd.DataFrame(rng.permuted(values.to_numpy(), axis=0), values.index, values.columns)
    component = projections.pca(values)[0]["PC1"]
    sign = _falling_sign(component, start.loc[values.index])
    by_time = {
        name: diffusion_pseudotime(table, start, seed=seed, **options)["pseudotime"]
        for name, table in {PSEUDOTIME: values, BY_RANKS: ranks_in_cells(values), NULL: permuted}.items()
    }
    orders = {PSEUDOTIME: by_time[PSEUDOTIME], BY_RANKS: by_time[BY_RANKS], COMPONENT: sign * component}
    return pd.DataFrame(orders | {DEPTH: depth.loc[values.index], NULL: by_time[NULL]})


def agreement_with_labels(
    orders: pd.DataFrame,
    labels: pd.Series,
    late: str,
    *,
    n_permutations: int = 999,
    n_bootstrap: int = 1000,
    seed: int = 0,
) -> pd.DataFrame:
    """How well each order of cells agrees with two known times.

    Parameters
    ----------
    labels
        Time of each cell, two levels.
    late
        The later level.

    Returns
    -------
    A row an order: ``order``; ``auc``, the probability that a late cell comes after an early one, with `` low`` and
    `` high`` (Newcombe's interval, of cells); ``p``, two-sided, from permuted labels; ``difference`` to the AUC of the
    first order, with `` low`` and `` high`` (bootstrap over the cells of each time, both orders together).

    Raises
    ------
    DataError
        If there are not two levels, or no level is ``late``.
    """
    levels = sorted(set(labels.astype(str)))
    if len(levels) != 2 or late not in levels:
        raise DataError(
            f"times of the cells: {', '.join(levels)}; two are needed, and {late!r}: {suggest(late, levels)}"
        )
    is_late = (labels.astype(str) == late).to_numpy()
    sizes = int(is_late.sum()), int((~is_late).sum())
    drawn = intervals.resample_donors(is_late, n_bootstrap, np.random.default_rng(seed))
    first = orders[orders.columns[0]].to_numpy()
    rows = []
    for name, order in orders.items():
        values = order.to_numpy()
        auc, p = _auc_with_p(values, is_late, n_permutations, seed)
        low, high = intervals.auc_interval(auc, *sizes)
        row = {"order": name, "auc": auc, "auc low": low, "auc high": high, "p": p}
        gaps = [
            two_classes.roc_auc(values[rows_], is_late[rows_]) - two_classes.roc_auc(first[rows_], is_late[rows_])
            for rows_ in drawn
        ]
        row["difference"] = auc - two_classes.roc_auc(first, is_late)
        row["difference low"], row["difference high"] = np.quantile(gaps, [0.025, 0.975])
        rows.append(row)
    return pd.DataFrame(rows)


def _auc_with_p(values: np.ndarray, is_late: np.ndarray, n_permutations: int, seed: int) -> tuple[float, float]:
    ranks = rankdata(values)
    n = int(is_late.sum())
    permuted = permutation.permuted_labels(is_late, n_permutations=n_permutations, seed=seed)
    sums = np.array([ranks[labels].sum() for labels in permuted])
    null = (sums - n * (n + 1) / 2) / (n * (len(is_late) - n))
    auc = two_classes.roc_auc(values, is_late)
    return auc, permutation.two_sided_pvalue(auc, null)


def markers_along(
    values: pd.DataFrame,
    orders: pd.DataFrame,
    labels: pd.Series,
    markers: dict[str, str],
    *,
    n_permutations: int = 999,
    seed: int = 0,
) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Spearman correlation of marker genes with orders of cells, *within* each time.

    Cells of different times differ for any reason; within a time only the order itself can tie a marker to it.

    Parameters
    ----------
    markers
        Gene -> direction with time, ``up`` or ``down``, known beforehand; genes not in ``values`` are left out.

    Returns
    -------
    A row an order, time and marker: ``order``, ``time``, ``gene``, ``expected``, ``share`` of the time's cells that
    express it, ``spearman`` with `` low`` and `` high`` (Fisher's z), two-sided permutation ``p``, and ``as expected``:
    the sign is the one known. Markers of which all cells of a time have one value are left out there.

    A row an order: ``order``, ``right`` (signs as expected) of ``tests``, ``mean`` correlation in the expected
    direction, and its two-sided ``p``. The order is permuted within each time, for all markers together, since markers
    depend on each other.

    Raises
    ------
    DataError
        If no marker varies within a time.
    """
    rng = np.random.default_rng(seed)
    known = {gene: 1.0 if direction == "up" else -1.0 for gene, direction in markers.items() if gene in values}
    rows, nulls = [], {name: [] for name in orders}
    for time in sorted(set(labels.astype(str))):
        inside = (labels.astype(str) == time).to_numpy()
        shuffles = np.argsort(rng.random((n_permutations, inside.sum())), axis=1)
        half = intervals.Z_95 / np.sqrt(inside.sum() - 3)
        for name, order in orders.items():
            ranks = _standard_ranks(order.to_numpy()[inside])
            for gene, sign in known.items():
                expression = values.loc[inside, gene].to_numpy()
                if len(np.unique(expression)) < 2:
                    continue
                scores = _standard_ranks(expression)
                rho, null = float(ranks @ scores), ranks[shuffles] @ scores
                low, high = np.tanh(np.arctanh(np.clip(rho, -1 + 1e-12, 1 - 1e-12)) + np.array([-half, half]))
                row = {"order": name, "time": time, "gene": gene, "expected": markers[gene]}
                row |= {"share": float((expression > 0).mean()), "spearman": rho, "spearman low": low}
                row |= {"spearman high": high, "p": permutation.two_sided_pvalue(rho, null)}
                rows.append(row | {"as expected": rho * sign > 0})
                nulls[name].append(sign * null)
    if not rows:
        raise DataError(f"markers {', '.join(markers) or '(none)'}: no cell has them, or all alike; name others")
    table, summary = pd.DataFrame(rows), []
    for name, part in table.groupby("order", sort=False):
        mean = float((part["spearman"] * part["gene"].map(known)).mean())
        row = {"order": name, "right": int(part["as expected"].sum()), "tests": len(part), "mean": mean}
        summary.append(row | {"p": permutation.two_sided_pvalue(mean, np.mean(nulls[name], axis=0))})
    return table, pd.DataFrame(summary)


def over_settings(
    values: pd.DataFrame,
    start: pd.Series,
    labels: pd.Series,
    late: str,
    *,
    neighbors: list[int],
    components: list[int],
    first: pd.Series | None = None,
    seed: int = 0,
) -> pd.DataFrame:
    """Robustness of the pseudo-time: its value at several settings.

    ``first`` is the pseudo-time at the first setting, where it has been computed already.

    Returns
    -------
    A row a setting: ``neighbours``, ``components``; ``auc`` for the later time, overall; and the smallest Spearman
    correlation ``within`` a time, with the pseudo-time of the first setting. Missing where the graph falls apart.
    """
    times = labels.astype(str).to_numpy()
    rows, reference = [], None if first is None else first.loc[values.index].to_numpy()
    for n_neighbors, n_components in itertools.product(neighbors, components):
        rows.append(row := {"neighbours": n_neighbors, "components": n_components, "auc": np.nan, "within": np.nan})
        options = {"n_neighbors": n_neighbors, "n_components": n_components, "seed": seed}
        try:
            known = reference is not None and len(rows) == 1
            order = reference if known else diffusion_pseudotime(values, start, **options)["pseudotime"].to_numpy()
        except DataError:
            continue
        reference = order if reference is None else reference
        row["auc"] = two_classes.roc_auc(order, times == late)
        row["within"] = min(spearmanr(order[times == one], reference[times == one]).statistic for one in set(times))
    return pd.DataFrame(rows)


def _standard_ranks(values: np.ndarray) -> np.ndarray:
    """Ranks of each column, centred and of length one, so that a product of two is Spearman's correlation."""
    ranks = rankdata(values, axis=0)
    ranks -= ranks.mean(axis=0)
    lengths = np.linalg.norm(ranks, axis=0)
    return ranks / np.where(lengths > 0, lengths, np.inf)


def expression_along(values: pd.DataFrame, order: pd.Series, genes: list[str], *, n_bins: int = 12) -> pd.DataFrame:
    """Mean expression of genes in bins of equally many cells along an order.

    Returns
    -------
    A row a gene and bin: ``gene``, ``pseudotime`` (mean of the bin's cells), ``cells``, ``mean``, ``low`` and ``high``
    (Student's 95% interval over the cells).
    """
    bins = np.minimum((order.rank(method="first") - 1) * n_bins // len(order), n_bins - 1).to_numpy(int)
    rows = []
    for gene in genes:
        for number in range(bins.max() + 1):
            inside = bins == number
            mean, low, high = intervals.student_interval(values.loc[inside, gene].to_numpy())
            row = {"gene": gene, "pseudotime": float(order[inside].mean()), "cells": int(inside.sum())}
            rows.append(row | {"mean": mean, "low": low, "high": high})
    return pd.DataFrame(rows)


def genes_along(values: pd.DataFrame, order: pd.Series, labels: pd.Series, *, least: float = 0.1) -> pd.DataFrame:
    """Genes by their correlation with an order within the times, those that ``least`` of the cells express.

    Returns
    -------
    A row a gene, by the size of ``within``: ``gene``, ``share`` of the cells, ``spearman`` over all cells, and
    ``within``: the mean of the correlations within each time.
    """
    share = (values > 0).mean()
    table = values.loc[:, share >= least]
    times = labels.astype(str).to_numpy()

    def correlations(inside: np.ndarray) -> np.ndarray:
        return _standard_ranks(order.to_numpy()[inside]) @ _standard_ranks(table.to_numpy()[inside])

    within = np.mean([correlations(times == time) for time in sorted(set(times))], axis=0)
    found = pd.DataFrame({"gene": table.columns, "share": share[table.columns].to_numpy()})
    found["spearman"], found["within"] = correlations(np.ones(len(times), bool)), within
    return found.iloc[np.argsort(-np.abs(within), kind="stable")].reset_index(drop=True)


@dataclass(frozen=True)
class Comparison:
    """Orders of cells (`orders_of_cells`) from ``genes``, and their markers (`markers_along`, the first table).

    ``agreement`` is `agreement_with_labels`, with ``right``, ``tests``, ``mean`` and ``mean p`` of the second table.
    """

    genes: list[str]
    orders: pd.DataFrame
    agreement: pd.DataFrame
    markers: pd.DataFrame


def compare_orders(
    values: pd.DataFrame,
    depth: pd.Series,
    start_gene: str,
    labels: pd.Series,
    late: str,
    markers: dict[str, str],
    *,
    n_genes: int,
    n_permutations: int = 999,
    seed: int = 0,
    **options: int,
) -> Comparison:
    """All orders of some cells, against their times and, within the times, against markers; ``options`` as there."""
    labels = labels.loc[values.index]
    start = gene_values(values, start_gene)
    genes = variable_genes(values, n_genes, without=[start_gene, *markers])
    orders = orders_of_cells(values[genes], depth, start, seed=seed, **options)
    test = {"n_permutations": n_permutations, "seed": seed}
    table, summary = markers_along(values, orders, labels, markers, **test)
    agreement = agreement_with_labels(orders, labels, late, **test)
    return Comparison(genes, orders, agreement.merge(summary.rename(columns={"p": "mean p"}), on="order"), table)
