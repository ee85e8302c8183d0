"""Cells in chunks, from memory or from h5ad files larger than memory."""

import warnings
from collections.abc import Iterator
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
from epigen_utils.errors import DataError

#: Columns of var that may hold Ensembl ids if the index does not.
ENSEMBL_COLUMNS = ("ensembl_id", "gene_ids", "feature_id", "gene_id")


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
        """Depth of each cell from the sample table (`schema.DEPTH_COLUMN`), else the sum of its counts."""
        obs = self.source.obs
        if schema.DEPTH_COLUMN in obs:
            return obs[schema.DEPTH_COLUMN].to_numpy(np.float64)[self.rows]
        return np.asarray(counts.sum(axis=1, dtype=np.float64)).ravel()

    def counts(self) -> sparse.csr_matrix:
        """Counts of the chunk, cells x genes."""
        first, last = int(self.rows[0]), int(self.rows[-1]) + 1
        block = sparse.csr_matrix(self.matrix[first:last])
        return block if len(self.rows) == last - first else block[self.rows - first]


class CellSource:
    """Counts, cells x genes, that are read in chunks.

    Attributes
    ----------
    where
        Name of the data in error messages.
    genes, ensembl_ids
        Name and Ensembl id, without version, of each column.
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
        self.genes = var.index.astype(str)
        self.ensembl_ids = _ensembl_ids(where, var)
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
        super().__init__(where, sparse.csr_matrix(adata.layers["counts"]), adata.var, adata.obs, dict(adata.uns), keep)


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
            with warnings.catch_warnings():
                warnings.filterwarnings("ignore", message=".* names are not unique")
                element = _counts_element(path, self.file)
                var = read_elem(self.file["raw/var" if element.startswith("raw") else "var"])
                obs = read_elem(self.file["obs"])
            uns = {"epigen": readers.describe_user_file(path) | {"species": "homo_sapiens"}}
            super().__init__(str(path), _row_sliceable(self.file[element]), var, obs, uns, keep)
        except (OSError, KeyError, DataError) as error:
            if self.file:
                self.file.close()
            if isinstance(error, DataError):
                raise
            raise DataError(f"{path}: cannot be read as h5ad ({str(error).splitlines()[0]}); check the file") from None

    def __enter__(self) -> "H5adCells":
        return self

    def __exit__(self, *_exception: object) -> None:
        self.file.close()


def _counts_element(path: Path, file: h5py.File) -> str:
    """Name of the matrix of counts of an h5ad: the first matrix whose leading values are integers."""
    names = [name for name in ("layers/counts", "X", "raw/X") if name in file]
    for name in names:
        matrix = file[name]
        values = (matrix["data"] if isinstance(matrix, h5py.Group) else matrix)[:1000]
        if schema.are_integers(values, 0).all():
            return name
    raise DataError(f"{path}: no counts in {', '.join(names) or 'it'}; put the raw counts in layers['counts']")


def _row_sliceable(element: h5py.Group | h5py.Dataset) -> object:
    """A matrix whose rows can be sliced; one stored by columns is converted to CSR in memory."""
    if isinstance(element, h5py.Dataset):
        return element
    stored = sparse_dataset(element)
    return stored if stored.format == "csr" else stored.to_memory().tocsr()


def _ensembl_ids(where: str, var: pd.DataFrame) -> np.ndarray:
    for ids in [*(var[column] for column in ENSEMBL_COLUMNS if column in var), var.index.to_series()]:
        if readers.mostly_ensembl_ids(ids):
            return readers.without_ensembl_version(ids).to_numpy()
    raise DataError(
        f"{where}: no Ensembl ids, {var.index[0]!r} for one; "
        "put them in var['ensembl_id'] (genes.gene_table has them by symbol)"
    )


def _arrow_compatible(obs: pd.DataFrame) -> pd.DataFrame:
    """The sample table, with the names of the cells, as strings, numbers and booleans, which Arrow can store."""
    table = pd.DataFrame({"cell_id": obs.index.astype(str)}, index=obs.index)
    for column in obs:
        values = obs[column]
        if isinstance(values.dtype, pd.CategoricalDtype) or not pd.api.types.is_numeric_dtype(values):
            values = values.astype(object).map(str, na_action="ignore")
        table[str(column)] = values
    return table.drop(columns=["input_ids", "length"], errors="ignore")
