"""The contract of a data set, checked once, when it is loaded.

A data set is an AnnData: samples or cells in rows, genes in columns; integer counts in ``layers["counts"]`` (arrays:
intensities in ``layers["intensity"]``); ``var`` indexed by a stable gene id, with ``symbol``; ``obs`` with the group
column, and ``donor`` if the donors are known.
"""

from collections.abc import Iterable

import anndata
import numpy as np
import pandas as pd
from scipy import sparse

from epigen_utils.errors import DataError

#: Tolerance for counts that passed through floating-point arithmetic.
INTEGER_TOLERANCE = 1e-6
#: Integers above are not exact as floating-point numbers; no count is as large.
LARGEST_COUNT = 2.0**53
#: Column of obs with the depth of a cell over all genes, including genes that a file omits; Geneformer's own name.
DEPTH_COLUMN = "n_counts"

TASKS = ("counts", "intensity", "samples", "groups", "donors")


def stored_values(matrix) -> np.ndarray:
    """Values of a matrix; those that are stored if it is sparse."""
    return matrix.data if sparse.issparse(matrix) else np.asarray(matrix)


def check_matrices(where: str, adata: anndata.AnnData) -> None:
    """Refuse complex numbers, and sparse matrices with positions outside of them, at which scipy would read.

    Raises
    ------
    DataError
        Naming the matrix.
    """
    matrices = {f"layers[{name!r}]": adata.layers[name] for name in adata.layers} | {"X": adata.X}
    matrices |= {"raw": adata.raw.X} if adata.raw is not None else {}
    for name, matrix in matrices.items():
        if np.issubdtype(getattr(matrix, "dtype", float), np.complexfloating):
            raise DataError(f"{where}: {name}: complex numbers; give counts")
        check_positions(f"{where}: {name}", matrix)


def check_positions(where: str, matrix: object) -> None:
    """Refuse a sparse matrix as `check_matrices` does."""
    if sparse.issparse(matrix) and matrix.format in ("csr", "csc"):
        try:
            matrix.check_format(full_check=True)
        except ValueError as error:
            raise DataError(f"{where}: damaged ({error}); fetch or write the file again") from None


def are_integers(values: np.ndarray, tolerance: float = INTEGER_TOLERANCE) -> np.ndarray:
    """Mask of the values that are integers, within a tolerance; missing values are not."""
    if np.issubdtype(values.dtype, np.integer):
        return np.ones(values.shape, bool)
    return np.isclose(values, np.rint(values), rtol=0, atol=tolerance)


def listed_columns(adata: anndata.AnnData) -> str:
    """Columns of the sample table, for messages."""
    return f"columns: {', '.join(map(str, adata.obs)) or 'none'}"


def add_note(about: dict, sentence: str) -> None:
    """Add a guess made at the door to ``uns["epigen"]["notes"]``, which the banner and ``epigen check`` show."""
    about["notes"] = [*about.get("notes", []), sentence]


def find_level(levels: Iterable[object], word: object) -> str | None:
    """The level that a word names: the same word, else the only one that is the same number or truth value.

    A command line and a table write the same level differently: ``1`` and ``1.0``, ``False`` and ``FALSE``.

    Returns
    -------
    The level as text; None if there is none, or several are meant equally.

    Examples
    --------
    >>> from epigen_utils.data import schema
    >>> schema.find_level(["0.0", "1.0"], 1), schema.find_level(["wt", "ko"], "WT")
    ('1.0', None)
    """
    names = list(dict.fromkeys(map(str, levels)))
    if str(word) in names:
        return str(word)
    same = [name for name in names if _meaning(name) == _meaning(str(word))]
    return same[0] if len(same) == 1 else None


def _meaning(word: str) -> object:
    """The number or truth value that a word stands for; itself otherwise."""
    if word.lower() in ("true", "false"):
        return word.lower()
    try:
        return float(word)
    except ValueError:
        return word


def without_blanks(adata: anndata.AnnData) -> list[str]:
    """Take blanks off the ends of names of samples, genes and columns, and of the words of ``obs``, in place.

    Returns
    -------
    What had blanks, for a note: at most one example of each kind.

    Raises
    ------
    DataError
        If two columns differ in blanks alone.
    """
    found = []
    for kind, names in (("sample", "obs_names"), ("gene", "var_names")):
        index = getattr(adata, names).astype(str)
        if (padded := index[index != index.str.strip()]).size:
            found.append(f"{kind} {padded[0]!r}")
            setattr(adata, names, index.str.strip())
    columns = [str(column).strip() for column in adata.obs]
    if len(twice := {column for column in columns if columns.count(column) > 1}):
        raise DataError(f"column {min(twice)!r}: there twice, with and without a blank; rename one")
    found += [f"column {column!r}" for column in adata.obs if str(column) != str(column).strip()][:1]
    adata.obs.columns = columns
    for column in columns:
        values = adata.obs[column]
        if pd.api.types.is_numeric_dtype(values) or pd.api.types.is_datetime64_any_dtype(values):
            continue
        words = values.astype(object).map(lambda value: value.strip() if isinstance(value, str) else value)
        changed = (words != values.astype(object)) & values.notna()
        if changed.any():
            found.append(f"{column} {values[changed].iloc[0]!r}")
            if isinstance(values.dtype, pd.CategoricalDtype):
                kept = dict.fromkeys(str(level).strip() for level in values.cat.categories)
                words = pd.Categorical(words, list(kept), ordered=bool(values.cat.ordered))
            adata.obs[column] = words
    return found


def plain_numbers(adata: anndata.AnnData, roles: Iterable[str | None]) -> None:
    """Make words of factors whose levels are numbers, in place, except columns with a role.

    anndata makes factors of words that it writes, so that an age would be one in an h5ad and none in a file of text.
    """
    for column in adata.obs.columns.difference(list(filter(None, roles))):
        values = adata.obs[column]
        levels = values.cat.categories if isinstance(values.dtype, pd.CategoricalDtype) else pd.Index([1])
        if pd.api.types.is_numeric_dtype(levels):
            continue
        if pd.to_numeric(levels.astype(str).to_series(), errors="coerce").notna().all():
            adata.obs[column] = values.astype(object)


#: How size factors are estimated: values of the parameter ``size_factors``.
SIZE_FACTORS = ("ratio", "poscounts")
#: No logarithm of a count is as large, and the largest of estimated counts is larger.
LARGEST_LOGARITHM = 30


def may_be_logarithms(values: np.ndarray) -> bool:
    """Whether numbers that are not all integers are too small for estimates of counts."""
    return bool(values.size and np.issubdtype(values.dtype, np.number) and values.max() < LARGEST_LOGARITHM)


def check(adata: anndata.AnnData, *, task: str) -> list[str]:
    """List the problems that make a data set unfit for a task, each with its remedy in one line.

    Parameters
    ----------
    adata
        Samples x genes; ``uns["epigen"]`` may name the ``group``, ``reference`` and ``donor``.
    task
        ``counts`` (non-negative integers), ``intensity`` (non-negative numbers), ``samples`` (counts of bulk samples
        that can be compared, `check_comparable`), ``groups`` (counts, and a group column with at least two groups, each
        of at least two samples), ``donors`` (groups, and a donor for every sample).

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
    about = adata.uns.get("epigen", {})
    if task == "donors" or (task == "groups" and about.get("donor")):
        problems += _check_donors(adata)
    elif task in ("counts", "samples"):
        problems += [
            f"obs: no {role} column {about[role]!r}; name one that is there ({listed_columns(adata)})"
            for role in ("group", "donor")
            if about.get(role) and about[role] not in adata.obs
        ]
    if task == "samples" and not problems:
        problems = check_comparable(adata)
    return problems


def check_comparable(adata: anndata.AnnData) -> list[str]:
    """List what makes samples of bulk unfit for a comparison: one gene, no depth, copies, transcripts per million.

    Size factors are taken from genes that every sample has, and dispersions from how much replicates differ.
    """
    counts = adata.layers["counts"]
    depths = np.asarray(counts.sum(axis=1)).ravel()
    if (depths == 0).any():
        return [f"sample {adata.obs_names[depths == 0][0]!r}: has no counts; drop it"]
    detected = np.asarray((counts > 0).sum(axis=0)).ravel()
    if (detected > 0).sum() < 2:
        return ["matrix: counts of one gene only; depth and dispersion are found from many: give the whole table"]
    if np.allclose(depths, 1e6, rtol=1e-3):
        return ["layers['counts']: each sample sums to a million; these are TPM or CPM: give the counts"]
    if (copies := _copies(adata)) is not None:
        first, second = copies
        return [f"samples {first!r} and {second!r}: the same counts in every gene; replicates are no copies: drop one"]
    kind = adata.uns.get("epigen", {}).get("size_factors", "ratio")
    if kind == "ratio" and not (detected == adata.n_obs).any():
        least = adata.obs_names[int(np.asarray((counts > 0).sum(axis=1)).ravel().argmin())]
        return [
            f"matrix: no gene is detected in every sample (fewest genes: sample {least!r}); take "
            "size_factors=poscounts (--size-factors poscounts), or drop the shallowest samples"
        ]
    return []


#: Fewest genes in which no two replicates have the same counts by chance.
_MIN_GENES_OF_COPIES = 20


def _copies(adata: anndata.AnnData) -> tuple[str, str] | None:
    """Two samples with the same counts in every gene, if there are enough genes to tell."""
    counts, seen = adata.layers["counts"], {}
    if ((counts > 0).sum(axis=0) > 0).sum() < _MIN_GENES_OF_COPIES:
        return None
    for row, name in enumerate(adata.obs_names):
        values = counts[row].toarray().tobytes() if sparse.issparse(counts) else counts[row].tobytes()
        if values in seen:
            return seen[values], name
        seen[values] = name
    return None


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
    if measure == "counts" and (large := values > LARGEST_COUNT).any():
        where = _location(adata, matrix, large)
        return [f"{where}: {values[large].flat[0]:g} is too large for a count; correct the cell"]
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
