"""Cells in chunks, from memory or from h5ad files larger than memory; where their counts and gene ids are."""

import warnings
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import anndata
import h5py
import numpy as np
import pandas as pd
import pyarrow as pa
from anndata.io import read_elem, sparse_dataset
from scipy import sparse

from epigen_utils.data import readers, schema
from epigen_utils.errors import DataError, first_line

#: Prefix of human Ensembl ids, as in ``data/species.yml``.
HUMAN_PREFIX = "ENSG0"
#: Names of layers that say that they hold counts, after ``counts`` itself.
COUNT_LAYERS = ("raw_counts", "raw_count", "count", "raw", "umi_counts", "umis", "umi")
#: Column of var with the kind of each feature of a file of 10x Genomics, and the kind that is a gene.
FEATURE_TYPES, GENE_TYPE = "feature_types", "Gene Expression"


@dataclass
class CellChunk:
    """A chunk of the cells of a source: names, sample table and, read on request, counts."""

    source: "CellSource"
    rows: np.ndarray
    matrix: object

    @property
    def names(self) -> pd.Index:
        return self.source.obs.index[self.rows]

    @property
    def obs(self) -> pd.DataFrame:
        return self.source.table.iloc[self.rows]

    def depth(self, counts: sparse.csr_matrix) -> np.ndarray:
        """Depth of each cell by the sample table (`schema.DEPTH_COLUMN`, NaN if none), else the sum of its counts."""
        obs = self.source.obs
        if schema.DEPTH_COLUMN in obs:
            return pd.to_numeric(np.asarray(obs[schema.DEPTH_COLUMN].iloc[self.rows]), errors="coerce").astype(float)
        return np.asarray(counts.sum(axis=1, dtype=np.float64)).ravel()

    def counts(self) -> sparse.csr_matrix:
        """Counts of the chunk, cells x genes."""
        first, last = int(self.rows[0]), int(self.rows[-1]) + 1
        try:
            block = sparse.csr_matrix(self.matrix[first:last])
        except (OSError, ValueError, IndexError) as error:
            raise DataError(f"{self.source.where}: damaged ({first_line(error)}); fetch or write it again") from None
        schema.check_positions(self.source.where, block)
        block = block if len(self.rows) == last - first else block[self.rows - first]
        if not block.has_canonical_format:
            block = block.copy()
            block.sum_duplicates()
        return block if self.source.columns is None else block[:, self.source.columns]


class CellSource:
    """Counts, cells x genes, that are read in chunks.

    Attributes
    ----------
    where
        Name of the data in error messages.
    genes, ensembl_ids
        Name and Ensembl id, without version, of each gene; the id is empty where there is none.
    columns
        Columns of the file that are genes; None for all.
    obs
        The sample table, one row per cell.
    uns
        Description of the data set, as in an AnnData of `epigen_utils.data.datasets`.
    rows
        Positions of the selected cells (``keep``: a mask or positions; all cells by default).
    table, schema
        Sample table of the cells as Arrow stores it, and its Arrow schema.
    """

    def __init__(
        self,
        where: str,
        matrix: object,
        var: pd.DataFrame,
        obs: pd.DataFrame,
        uns: dict,
        keep: np.ndarray | None = None,
    ):
        self.where, self.matrix, self.obs, self.uns = where, matrix, obs, uns
        is_gene = are_genes(var)
        self.columns = None if is_gene.all() else np.flatnonzero(is_gene)
        var = var[is_gene]
        self.genes = var.index.astype(str)
        self.ensembl_ids, found = _ensembl_ids(where, var)
        about = self.uns.get("epigen", {})
        for note in (_left_out(is_gene), found):
            if note and about.get("nature") == "your own" and note not in about.get("notes", []):
                schema.add_note(about, note)
        keep = np.arange(len(obs)) if keep is None else np.asarray(keep)
        self.rows = np.flatnonzero(keep) if keep.dtype == bool else np.sort(keep)
        self.table = _arrow_compatible(obs)
        self.schema = pa.Schema.from_pandas(self.table, preserve_index=False).remove_metadata()

    @property
    def n_obs(self) -> int:
        return len(self.rows)

    @property
    def n_vars(self) -> int:
        return len(self.genes)

    def counts_of(self, position: int) -> np.ndarray:
        """Counts of one cell, shape (genes,)."""
        return CellChunk(self, np.array([position]), self.matrix).counts().toarray().ravel()

    def parts(self, size: int) -> Iterator[CellChunk]:
        """The selected cells in the order of the file, at most ``size`` at a time."""
        for first in range(0, len(self.obs), size):
            rows = self.rows[np.searchsorted(self.rows, first) : np.searchsorted(self.rows, first + size)]
            if len(rows):
                yield CellChunk(self, rows, self.matrix)


class InMemoryCells(CellSource):
    """An AnnData with counts in ``layers["counts"]``."""

    def __init__(self, adata: anndata.AnnData, keep: np.ndarray | None = None):
        where = adata.uns.get("epigen", {}).get("name", "data")
        if "counts" not in adata.layers:
            raise DataError(f"{where}: no layers['counts']; put the raw counts there")
        counts = adata.layers["counts"]
        if not np.issubdtype(counts.dtype, np.number):
            raise DataError(f"{where}: layers['counts'] has values of type {counts.dtype}; give raw counts")
        super().__init__(where, sparse.csr_matrix(counts), adata.var, adata.obs, dict(adata.uns), keep)


class H5adCells(CellSource):
    """An h5ad file; only its sample table and gene table are held in memory.

    Raises
    ------
    DataError
        If the file cannot be read, or has no matrix of counts.
    """

    def __init__(self, path: str | Path, keep: np.ndarray | None = None):
        path = Path(path)
        if not path.is_file():
            raise DataError(f"{path}: no such file; check the path")
        self.file = None
        try:
            self.file = h5py.File(path)
            names = [f"layers/{name}" for name in self.file.get("layers", ())]
            names += [name for name in ("X", "raw/X") if name in self.file]
            element = counts_element(str(path), {name: _leading_values(self.file[name]) for name in names})
            if element is None:
                raise DataError(f"{path}: no counts in {', '.join(names)}; put the raw counts in layers['counts']")
            with warnings.catch_warnings():
                warnings.filterwarnings("ignore", message=".* names are not unique")
                var = read_elem(self.file["raw/var" if element.startswith("raw") else "var"])
                obs = read_elem(self.file["obs"])
            about = readers.describe_user_file(path) | {"species": "homo_sapiens"}
            if note := counts_note(element):
                schema.add_note(about, note)
            super().__init__(str(path), _row_sliceable(self.file[element]), var, obs, {"epigen": about}, keep)
        except Exception as error:
            if self.file:
                self.file.close()
            if isinstance(error, DataError):
                raise
            # anndata and h5py raise what the bytes of a broken file lead to.
            raise DataError(f"{path}: cannot be read as h5ad ({first_line(error)}); check the file") from None

    def __enter__(self) -> "H5adCells":
        return self

    def __exit__(self, *_exception: object) -> None:
        self.file.close()


def has_human_ids(path: str | Path) -> bool:
    """Whether an h5ad that can be read has human Ensembl ids (`ensembl_column`)."""
    try:
        with H5adCells(path) as source:
            return bool(pd.Series(source.ensembl_ids).str.startswith(HUMAN_PREFIX).mean() > 0.5)
    except DataError:
        return False  # `datasets.load` says what is wrong with it


def counts_element(where: str, values: Mapping[str, np.ndarray]) -> str | None:
    """Name of the matrix that holds counts: the first that has integers alone.

    Parameters
    ----------
    values
        Some values of each matrix of an AnnData: ``layers/<name>``, ``X``, ``raw/X``. Layers that are named as counts
        go first (`COUNT_LAYERS`), then X, then raw, then another layer, if one alone has integers.

    Returns
    -------
    None if no matrix has integers alone, or ``layers/counts`` is there and has others.

    Raises
    ------
    DataError
        If only layers have integers, and it is not clear which of them are the counts.
    """
    integers = [
        name
        for name, some in values.items()
        if np.issubdtype(some.dtype, np.number) and some.size and schema.are_integers(some).all() and some.min() >= 0
    ]
    if "layers/counts" in values and "layers/counts" not in integers:
        return None
    lower = {name.lower(): name for name in integers}
    for name in ("layers/counts", *(f"layers/{layer}" for layer in COUNT_LAYERS), "x", "raw/x"):
        if name in lower:
            return lower[name]
    if len(integers) > 1:
        named = ", ".join(name.removeprefix("layers/") for name in integers)
        raise DataError(f"{where}: which layer has the counts is not clear, of {named}; name it 'counts'")
    return integers[0] if integers else None


def counts_note(element: str) -> str:
    """A sentence that says where the counts were found; empty for the places where they are expected."""
    if element in ("layers/counts", "X"):
        return ""
    place = "raw, with its genes" if element == "raw/X" else f"layers[{element.removeprefix('layers/')!r}]"
    return f"The counts are those of {place}, the first matrix of integers; layers['counts'] would go first."


def take_counts(adata: anndata.AnnData, where: str, *, estimated: bool = False) -> tuple[anndata.AnnData, str]:
    """The data set with its counts in ``layers["counts"]``, under the genes that they are of.

    Parameters
    ----------
    estimated
        Whether the counts may be estimates: those of raw are taken, then, where X has logarithms.

    Returns
    -------
    The data set, unchanged if no matrix has counts; `counts_note`.

    Raises
    ------
    DataError
        As `counts_element`.
    """
    matrices = {f"layers/{name}": adata.layers[name] for name in adata.layers}
    matrices |= {"X": adata.X} if adata.X is not None else {}
    matrices |= {"raw/X": adata.raw.X} if adata.raw is not None else {}
    values = {name: schema.stored_values(matrix) for name, matrix in matrices.items()}
    element = counts_element(where, values)
    if element is None:
        where_they_may_be = ("X", "raw/X") if estimated and "layers/counts" not in values else ()
        logarithms = [name for name in where_they_may_be if name in values and schema.may_be_logarithms(values[name])]
        if logarithms != ["X"] or adata.raw is None:
            return adata, ""
        whole = anndata.AnnData(adata.raw.X, obs=adata.obs, var=adata.raw.var, uns=adata.uns)
        return whole, "The estimates of counts are those of raw, with its genes: X has logarithms."
    if element == "raw/X" and not adata.raw.var_names.equals(adata.var_names):
        whole = anndata.AnnData(obs=adata.obs, var=adata.raw.var, layers={"counts": adata.raw.X}, uns=adata.uns)
        return whole, counts_note(element)
    adata.layers["counts"] = matrices[element]
    return adata, counts_note(element)


def _leading_values(element: h5py.Group | h5py.Dataset) -> np.ndarray:
    """The first values that are stored of a matrix."""
    return np.asarray((element["data"] if isinstance(element, h5py.Group) else element)[:1000]).ravel()


def _row_sliceable(element: h5py.Group | h5py.Dataset) -> object:
    """A matrix whose rows can be sliced; one stored by columns is converted to CSR in memory."""
    if isinstance(element, h5py.Dataset):
        return element
    if element["data"].shape != element["indices"].shape:
        raise KeyError("as many indices as data")
    stored = sparse_dataset(element)
    return stored if stored.format == "csr" else stored.to_memory().tocsr()


def are_genes(var: pd.DataFrame) -> np.ndarray:
    """Mask of the features that are genes; in files of 10x Genomics antibodies and others stand among them."""
    if FEATURE_TYPES not in var or not (of_genes := var[FEATURE_TYPES].astype(str) == GENE_TYPE).any():
        return np.ones(len(var), bool)
    return of_genes.to_numpy()


def _left_out(is_gene: np.ndarray) -> str:
    n = int((~is_gene).sum())
    return f"{n:,} features that are no genes were left out (var[{FEATURE_TYPES!r}])." if n else ""


def genes_alone(adata: anndata.AnnData) -> tuple[anndata.AnnData, str]:
    """The data set without features that are no genes (`are_genes`), and a sentence that says so."""
    is_gene = are_genes(adata.var)
    return (adata if is_gene.all() else adata[:, is_gene].copy()), _left_out(is_gene)


#: Two of three signs make rows cells: many of them, little depth, few genes detected in one.
CELL_SIGNS = {"rows": 200, "depth": 100_000, "detection": 0.4}


def kind_of(adata: anndata.AnnData) -> tuple[str, str]:
    """Whether the rows of a data set are ``cells`` or samples of ``bulk``, and a sentence with the evidence.

    Parameters
    ----------
    adata
        Counts in ``layers["counts"]``.
    """
    if not np.issubdtype(adata.layers["counts"].dtype, np.number):
        return "bulk", "Rows are samples of bulk: values are no numbers."  # which `schema.check` refuses
    counts = sparse.csr_matrix(adata.layers["counts"])
    depth = float(np.median(np.asarray(counts.sum(axis=1)))) if adata.n_obs else 0.0
    detected = float(np.median(np.diff(counts.indptr)) / max(adata.n_vars, 1)) if adata.n_obs else 0.0
    signs = [adata.n_obs >= CELL_SIGNS["rows"], depth < CELL_SIGNS["depth"], detected < CELL_SIGNS["detection"]]
    kind = "cells" if sum(signs) >= 2 else "bulk"
    evidence = f"{adata.n_obs:,} rows, with a median of {depth:,.0f} counts in {detected:.0%} of the genes"
    return kind, f"Rows are {'cells' if kind == 'cells' else 'samples of bulk'}: {evidence}."


def ensembl_column(where: str, var: pd.DataFrame) -> str | None:
    """Column of a gene table that holds Ensembl ids; empty for the index, None if nothing does.

    Raises
    ------
    DataError
        If two columns hold different ones, and the index and ``ensembl_id`` hold none.
    """
    if "ensembl_id" in var and readers.mostly_ensembl_ids(var["ensembl_id"]):
        return "ensembl_id"
    if readers.mostly_ensembl_ids(var.index):
        return ""
    words = [column for column in var if not pd.api.types.is_numeric_dtype(var[column])]
    found = [column for column in words if readers.mostly_ensembl_ids(var[column])]
    for other in found[1:]:
        if not var[other].astype(str).equals(var[found[0]].astype(str)):
            both = f"{found[0]!r} and {other!r}"
            raise DataError(f"{where}: var has Ensembl ids in {both}; name the right ones 'ensembl_id'")
    return found[0] if found else None


def index_by_ensembl_ids(adata: anndata.AnnData, where: str) -> str:
    """Name the genes by the column of var that holds Ensembl ids, in place, where the names are none.

    Names become ``symbol``, unless there is such a column; a gene without an id keeps its name.

    Returns
    -------
    A sentence that says so; empty if nothing was changed.
    """
    column = ensembl_column(where, adata.var)
    if not column or readers.mostly_ensembl_ids(adata.var_names):
        return ""
    ids = adata.var[column].astype(str)
    is_id = ids.str.match(readers.ENSEMBL_GENE_ID).to_numpy()
    names = adata.var_names.astype(str)
    if "symbol" not in adata.var:
        adata.var["symbol"] = names
    adata.var["ensembl_id"] = readers.without_ensembl_version(ids).where(is_id, "").to_numpy()
    adata.var_names = np.where(is_id, ids, names)
    return _column_note(column)


def _column_note(column: str) -> str:
    return f"Genes are those of var[{column!r}], which has Ensembl ids; a column 'ensembl_id' would go first."


def _ensembl_ids(where: str, var: pd.DataFrame) -> tuple[np.ndarray, str]:
    """Ensembl id, without version, of each gene; a sentence that names the column, if it is not the expected one."""
    if not len(var):
        raise DataError(f"{where}: no genes; give a matrix with some")
    column = ensembl_column(where, var)
    if column is None:
        raise DataError(
            f"{where}: no Ensembl ids, {var.index[0]!r} for one; "
            "put them in var['ensembl_id'] (genes.gene_table has them by symbol)"
        )
    ids = readers.without_ensembl_version(var[column] if column else var.index.to_series()).to_numpy()
    return ids, _column_note(column) if column not in ("", "ensembl_id") else ""


def _arrow_compatible(obs: pd.DataFrame) -> pd.DataFrame:
    """The sample table, with the names of the cells, as strings, numbers and booleans, which Arrow can store."""
    table = pd.DataFrame({"cell_id": obs.index.astype(str)}, index=obs.index)
    for column in obs:
        values = obs[column]
        if isinstance(values.dtype, pd.CategoricalDtype) or not pd.api.types.is_numeric_dtype(values):
            values = values.astype(object).map(str, na_action="ignore")
        table[str(column)] = values
    return table.drop(columns=["input_ids", "length"], errors="ignore")
