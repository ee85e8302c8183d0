"""The contract of a data set, checked once, when it is loaded.

A data set is an AnnData: samples or cells in rows, genes in columns; integer counts in ``layers["counts"]`` (arrays:
intensities in ``layers["intensity"]``); ``var`` indexed by a stable gene id, with ``symbol``; ``obs`` with the group
column, and ``donor`` if the donors are known.
"""

from dataclasses import dataclass

import anndata
import numpy as np
import pandas as pd
from scipy import sparse

#: Tolerance for counts that passed through floating-point arithmetic.
INTEGER_TOLERANCE = 1e-6
#: Column of obs with the depth of a cell over all genes, including genes that a file omits; Geneformer's own name.
DEPTH_COLUMN = "n_counts"

TASKS = ("counts", "intensity", "groups", "donors")


@dataclass(frozen=True)
class Problem:
    """A violation of the contract: where, what, and the remedy, in one line."""

    where: str
    what: str
    remedy: str

    def __str__(self) -> str:
        return f"{self.where}: {self.what}; {self.remedy}"


def check(adata: anndata.AnnData, *, task: str) -> list[Problem]:
    """List the problems that make a data set unfit for a task; empty if there are none.

    Parameters
    ----------
    adata
        Samples x genes; ``uns["epigen"]`` may name the ``group``, ``reference`` and ``donor``.
    task
        ``counts`` (non-negative integers), ``intensity`` (non-negative numbers), ``groups`` (counts, and a group column
        with at least two groups, each of at least two samples), ``donors`` (groups, and a donor for every sample).

    Raises
    ------
    ValueError
        If the task is not one of these.
    """
    if task not in TASKS:
        raise ValueError(f"task {task!r} is not one of {', '.join(TASKS)}")
    if 0 in adata.shape:
        return [Problem("matrix", f"empty, {adata.n_obs} samples x {adata.n_vars} genes", "give at least one of each")]
    measure = "intensity" if task == "intensity" else adata.uns.get("epigen", {}).get("measure", "counts")
    problems = [*_check_names(adata), *_check_values(adata, measure)]
    if task in ("groups", "donors"):
        problems += _check_groups(adata)
    if task == "donors" or (task == "groups" and adata.uns["epigen"].get("donor")):
        problems += _check_donors(adata)
    return problems


def _check_names(adata: anndata.AnnData) -> list[Problem]:
    problems = []
    for kind, index in (("gene", adata.var_names), ("sample", adata.obs_names)):
        if index.has_duplicates:
            name = index[index.duplicated()][0]
            times = int((index == name).sum())
            remedy = f"keep one, or rename: each {kind} needs its own id"
            problems.append(Problem(f"{kind} {name!r}", f"given {times} times", remedy))
    return problems


def _check_values(adata: anndata.AnnData, measure: str) -> list[Problem]:
    if measure not in adata.layers:
        return [Problem(f"layers[{measure!r}]", "missing", f"put the raw {measure} there")]
    matrix = adata.layers[measure]
    values = matrix.data if sparse.issparse(matrix) else np.asarray(matrix)
    if not np.issubdtype(values.dtype, np.number):
        return [Problem(f"layers[{measure!r}]", f"values of type {values.dtype}", "give numbers")]
    if np.issubdtype(values.dtype, np.integer):
        fractional = np.zeros(0, bool)
    else:
        if (missing := ~np.isfinite(values)).any():
            where = _location(adata, matrix, missing)
            return [Problem(where, f"missing or infinite value, {int(missing.sum())} in all", "fill or drop it")]
        fractional = np.abs(values - np.rint(values)) > INTEGER_TOLERANCE
    if (negative := values < 0).any():
        where = _location(adata, matrix, negative)
        return [Problem(where, f"negative value {values[negative].flat[0]:g}", f"give raw {measure}")]
    if measure == "counts" and fractional.any():
        where, value = _location(adata, matrix, fractional), values[fractional].flat[0]
        if fractional.sum() > max(1, 0.05 * np.count_nonzero(values)):
            share = fractional.sum() / np.count_nonzero(values)
            what = f"{value:g} is not an integer, nor are {share:.0%} of the non-zero values"
            return [Problem(where, what, "these look normalised: give the raw counts")]
        return [Problem(where, f"{value:g} is not an integer", "give raw counts, or round it if it is an estimate")]
    if not values.any():
        return [Problem(f"layers[{measure!r}]", "every value is zero", "give a matrix with counts in it")]
    return []


def _location(adata: anndata.AnnData, matrix, bad: np.ndarray) -> str:
    """Gene and sample of the first bad value; ``bad`` masks the matrix, or its stored values if it is sparse."""
    first = int(np.flatnonzero(bad)[0])
    if sparse.issparse(matrix):
        coo = matrix.tocoo()
        row, column = coo.row[first], coo.col[first]
    else:
        row, column = np.unravel_index(first, matrix.shape)
    return f"gene {adata.var_names[column]!r}, sample {adata.obs_names[row]!r}"


def _check_groups(adata: anndata.AnnData) -> list[Problem]:
    about = adata.uns.get("epigen", {})
    group, reference = about.get("group"), about.get("reference")
    columns = ", ".join(map(str, adata.obs.columns)) or "none"
    if not group:
        return [Problem("obs", "no group column is named", f"name one (columns: {columns})")]
    if group not in adata.obs:
        return [Problem("obs", f"no group column {group!r}", f"name one that is there (columns: {columns})")]
    if (empty := adata.obs[group].isna()).any():
        where = f"obs[{group!r}], sample {adata.obs_names[empty][0]!r}"
        return [Problem(where, "no group", "fill it in, or drop the sample")]
    sizes = adata.obs[group].astype(str).value_counts(sort=False)
    if len(sizes) < 2:
        return [Problem(f"obs[{group!r}]", f"one group only, {sizes.index[0]!r}", "a comparison needs two")]
    problems = [
        Problem(f"obs[{group!r}]", f"group {name!r} has one sample", "add a replicate, or drop the group")
        for name in sizes.index[sizes == 1]
    ]
    if reference and reference not in sizes.index:
        levels = ", ".join(sizes.index)
        problems.append(Problem(f"obs[{group!r}]", f"no reference level {reference!r}", f"levels: {levels}"))
    return problems


def _check_donors(adata: anndata.AnnData) -> list[Problem]:
    donor = adata.uns.get("epigen", {}).get("donor")
    if not donor or donor not in adata.obs:
        columns = ", ".join(map(str, adata.obs.columns)) or "none"
        what = f"no donor column {donor!r}" if donor else "no donor column is named"
        return [Problem("obs", what, f"name the column that says who each sample is from (columns: {columns})")]
    if (empty := pd.isna(adata.obs[donor])).any():
        return [Problem(f"obs[{donor!r}], sample {adata.obs_names[empty][0]!r}", "no donor", "fill it in")]
    return []
