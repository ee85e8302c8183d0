"""The contract of a data set, checked once, when it is loaded.

A data set is an AnnData: samples or cells in rows, genes in columns; integer counts in ``layers["counts"]`` (arrays:
intensities in ``layers["intensity"]``); ``var`` indexed by a stable gene id, with ``symbol``; ``obs`` with the group
column, and ``donor`` if the donors are known.
"""

import anndata
import numpy as np
import pandas as pd
from scipy import sparse

#: Tolerance for counts that passed through floating-point arithmetic.
INTEGER_TOLERANCE = 1e-6
#: Column of obs with the depth of a cell over all genes, including genes that a file omits; Geneformer's own name.
DEPTH_COLUMN = "n_counts"

TASKS = ("counts", "intensity", "groups", "donors")


def stored_values(matrix) -> np.ndarray:
    """Values of a matrix; those that are stored if it is sparse."""
    return matrix.data if sparse.issparse(matrix) else np.asarray(matrix)


def are_integers(values: np.ndarray, tolerance: float = INTEGER_TOLERANCE) -> np.ndarray:
    """Mask of the values that are integers, within a tolerance; missing values are not."""
    if np.issubdtype(values.dtype, np.integer):
        return np.ones(values.shape, bool)
    return np.isclose(values, np.rint(values), rtol=0, atol=tolerance)


def listed_columns(adata: anndata.AnnData) -> str:
    """Columns of the sample table, for messages."""
    return f"columns: {', '.join(map(str, adata.obs)) or 'none'}"


def check(adata: anndata.AnnData, *, task: str) -> list[str]:
    """List the problems that make a data set unfit for a task, each with its remedy in one line.

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

    Examples
    --------
    >>> from epigen_utils.data import datasets, schema
    >>> adata = datasets.load("table-two")
    >>> schema.check(adata, task="groups")
    []
    >>> adata.layers["counts"][0, 0] = -1
    >>> print(schema.check(adata, task="groups")[0])
    gene 'LL0000013464', sample 'WT1': negative value -1; give raw counts
    """
    if task not in TASKS:
        raise ValueError(f"task {task!r} is not one of {', '.join(TASKS)}")
    if 0 in adata.shape:
        return [f"matrix: empty, {adata.n_obs} samples x {adata.n_vars} genes; give at least one of each"]
    measure = "intensity" if task == "intensity" else adata.uns.get("epigen", {}).get("measure", "counts")
    problems = [*_check_names(adata), *_check_values(adata, measure)]
    if task in ("groups", "donors"):
        problems += _check_groups(adata)
    if task == "donors" or (task == "groups" and adata.uns["epigen"].get("donor")):
        problems += _check_donors(adata)
    return problems


def _check_names(adata: anndata.AnnData) -> list[str]:
    problems = []
    for kind, index in (("gene", adata.var_names), ("sample", adata.obs_names)):
        if index.has_duplicates:
            name = index[index.duplicated()][0]
            times = int((index == name).sum())
            remedy = f"keep one, or rename: each {kind} needs its own id"
            problems.append(f"{kind} {name!r}: given {times} times; {remedy}")
    return problems


def _check_values(adata: anndata.AnnData, measure: str) -> list[str]:
    if measure not in adata.layers:
        return [f"layers[{measure!r}]: missing; put the raw {measure} there"]
    matrix = adata.layers[measure]
    values = stored_values(matrix)
    if not np.issubdtype(values.dtype, np.number):
        return [f"layers[{measure!r}]: values of type {values.dtype}; give numbers"]
    if (missing := ~np.isfinite(values)).any():
        where = _location(adata, matrix, missing)
        return [f"{where}: missing or infinite value, {int(missing.sum())} in all; fill or drop it"]
    if (negative := values < 0).any():
        where = _location(adata, matrix, negative)
        return [f"{where}: negative value {values[negative].flat[0]:g}; give raw {measure}"]
    whole_numbers = np.issubdtype(values.dtype, np.integer) or measure != "counts"
    if not whole_numbers and (fractional := ~are_integers(values)).any():
        where, value = _location(adata, matrix, fractional), values[fractional].flat[0]
        if fractional.sum() > max(1, 0.05 * np.count_nonzero(values)):
            share = fractional.sum() / np.count_nonzero(values)
            what = f"{value:g} is not an integer, nor are {share:.0%} of the non-zero values"
            return [
                f"{where}: {what}; these look normalised: give the raw counts, or round_counts if they are estimates"
            ]
        return [f"{where}: {value:g} is not an integer; give raw counts, or round_counts if they are estimates"]
    if not values.any():
        return [f"layers[{measure!r}]: every value is zero; give a matrix with counts in it"]
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


def _check_groups(adata: anndata.AnnData) -> list[str]:
    about = adata.uns.get("epigen", {})
    group, reference = about.get("group"), about.get("reference")
    if not group:
        return [f"obs: no group column is named; name one ({listed_columns(adata)})"]
    if group not in adata.obs:
        return [f"obs: no group column {group!r}; name one that is there ({listed_columns(adata)})"]
    if (empty := adata.obs[group].isna()).any():
        sample = adata.obs_names[empty][0]
        return [f"obs[{group!r}], sample {sample!r}: no group; fill it in, or drop the sample"]
    sizes = adata.obs[group].astype(str).value_counts(sort=False)
    if len(sizes) < 2:
        return [f"obs[{group!r}]: one group only, {sizes.index[0]!r}; a comparison needs two"]
    problems = [
        f"obs[{group!r}]: group {name!r} has one sample; add a replicate, or drop the group"
        for name in sizes.index[sizes == 1]
    ]
    if reference and reference not in sizes.index:
        levels = ", ".join(sizes.index)
        problems.append(f"obs[{group!r}]: no reference level {reference!r}; levels: {levels}")
    return problems


def _check_donors(adata: anndata.AnnData) -> list[str]:
    donor = adata.uns.get("epigen", {}).get("donor")
    if not donor or donor not in adata.obs:
        what = f"no donor column {donor!r}" if donor else "no donor column is named"
        return [f"obs: {what}; name the column that says who each sample is from ({listed_columns(adata)})"]
    if (empty := pd.isna(adata.obs[donor])).any():
        return [f"obs[{donor!r}], sample {adata.obs_names[empty][0]!r}: no donor; fill it in"]
    return []
