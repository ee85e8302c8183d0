"""Cells in parts: from memory or from h5ad files larger than it, and encoded cells as Arrow on disk."""

import json
import shutil
import warnings
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

import anndata
import datasets
import h5py
import numpy as np
import pandas as pd
import pyarrow as pa
from anndata.io import read_elem, sparse_dataset
from scipy import sparse

from epigen_utils import readers, schema
from epigen_utils.errors import DataError

#: Columns of var that hold Ensembl ids, where they are not the index.
ENSEMBL_COLUMNS = ("ensembl_id", "gene_ids", "feature_id", "gene_id")


@dataclass
class Part:
    """Some cells of a source: their names, their sample table and, when asked for, their counts."""

    source: "Source"
    rows: np.ndarray
    matrix: object

    @property
    def names(self) -> pd.Index:
        return self.source.obs.index[self.rows]

    @property
    def obs(self) -> pd.DataFrame:
        return self.source.table.iloc[self.rows]

    def depth(self, counts: sparse.csr_matrix) -> np.ndarray:
        """Depth of each cell as the sample table states it (`schema.DEPTH`), else the sum of its counts."""
        obs = self.source.obs
        if schema.DEPTH in obs:
            return obs[schema.DEPTH].to_numpy(np.float64)[self.rows]
        return np.asarray(counts.sum(axis=1, dtype=np.float64)).ravel()

    def counts(self) -> sparse.csr_matrix:
        """Cells x genes, as many rows as there are names."""
        first, last = int(self.rows[0]), int(self.rows[-1]) + 1
        block = sparse.csr_matrix(self.matrix[first:last])
        return block if len(self.rows) == last - first else block[self.rows - first]


class Source:
    """Cells x genes that can be taken in parts.

    Attributes
    ----------
    where
        What an error calls it.
    genes, ensembl_ids
        Name and Ensembl id, without version, of each column.
    obs
        The sample table, a row a cell.
    uns
        What the data set says of itself, as in an AnnData of `epigen_utils.datasets`.
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
        self.table = _plain(obs)
        #: Of the columns of the sample table, which Arrow holds as words, numbers, or yes and no.
        self.schema = pa.Schema.from_pandas(self.table, preserve_index=False).remove_metadata()

    @property
    def n_obs(self) -> int:
        return len(self.rows)

    @property
    def n_vars(self) -> int:
        return len(self.genes)

    def parts(self, size: int) -> Iterator[Part]:
        """The cells that are kept, in the file's order, at most ``size`` at a time."""
        for first in range(0, len(self.obs), size):
            rows = self.rows[np.searchsorted(self.rows, first) : np.searchsorted(self.rows, first + size)]
            if len(rows):
                yield Part(self, rows, self.matrix)


class InMemory(Source):
    """An AnnData whose counts are in ``layers["counts"]``."""

    def __init__(self, adata: anndata.AnnData, keep: np.ndarray | None = None):
        where = adata.uns.get("epigen", {}).get("name", "data")
        if "counts" not in adata.layers:
            raise DataError(f"{where}: no layers['counts']; put the raw counts there")
        super().__init__(where, sparse.csr_matrix(adata.layers["counts"]), adata.var, adata.obs, dict(adata.uns), keep)


class CountsFile(Source):
    """An h5ad on disk, of which only the sample table and the gene table are held in memory.

    Raises
    ------
    DataError
        If the file cannot be read, or holds no matrix of counts.
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
                place = _counts_in(path, self.file)
                table = "raw/var" if place.startswith("raw") else "var"
                parts = read_elem(self.file[table]), read_elem(self.file["obs"])
            about = {"epigen": readers.about_own(path) | {"species": "homo_sapiens"}}
            super().__init__(str(path), _matrix(self.file[place]), *parts, about, keep)
        except (OSError, KeyError, DataError) as error:
            if self.file:
                self.file.close()
            if isinstance(error, DataError):
                raise
            raise DataError(f"{path}: cannot be read as h5ad ({str(error).splitlines()[0]}); check the file") from None

    def __enter__(self) -> "CountsFile":
        return self

    def __exit__(self, *_exception: object) -> None:
        self.file.close()


def _counts_in(path: Path, file: h5py.File) -> str:
    """Where an h5ad has its counts; the first place that holds whole numbers."""
    there = [place for place in ("layers/counts", "X", "raw/X") if place in file]
    for place in there:
        matrix = file[place]
        some = (matrix["data"] if isinstance(matrix, h5py.Group) else matrix)[:1000]
        if (some == np.floor(some)).all():
            return place
    raise DataError(f"{path}: no counts in {', '.join(there) or 'it'}; put the raw counts in layers['counts']")


def _matrix(element: h5py.Group | h5py.Dataset) -> object:
    """Something whose rows can be sliced; by columns, a matrix is turned round in memory."""
    if isinstance(element, h5py.Dataset):
        return element
    stored = sparse_dataset(element)
    return stored if stored.format == "csr" else stored.to_memory().tocsr()


def _ensembl_ids(where: str, var: pd.DataFrame) -> np.ndarray:
    names = [var[column] for column in ENSEMBL_COLUMNS if column in var] + [var.index.to_series()]
    for ids in names:
        if readers.mostly_ensembl(ids):
            return readers.without_version(ids).to_numpy()
    raise DataError(
        f"{where}: no Ensembl ids, {var.index[0]!r} for one; put them in var['ensembl_id'] (genes.table has them by symbol)"
    )


def _plain(obs: pd.DataFrame) -> pd.DataFrame:
    """The sample table, with the cells' names, as words, numbers, and yes and no."""
    table = pd.DataFrame({"cell_id": obs.index.astype(str)}, index=obs.index)
    for column in obs:
        values = obs[column]
        if isinstance(values.dtype, pd.CategoricalDtype) or not pd.api.types.is_numeric_dtype(values):
            values = values.astype(object).map(str, na_action="ignore")
        table[str(column)] = values
    return table.drop(columns=["input_ids", "length"], errors="ignore")


def write_arrow(
    folder: Path, batches: Iterable[pa.RecordBatch], schema: pa.Schema, card: dict[str, object]
) -> datasets.Dataset:
    """Batches as a folder that ``datasets.load_from_disk`` maps into memory; written beside, then renamed.

    Parameters
    ----------
    card
        Kept as ``vocabulary.json``.
    """
    part = folder.with_name(f".{folder.name}.part")
    shutil.rmtree(part, ignore_errors=True)
    part.mkdir(parents=True)
    try:
        with (
            pa.OSFile(str(part / "data-00000-of-00001.arrow"), "wb") as sink,
            pa.ipc.new_stream(sink, schema) as writer,
        ):
            for batch in batches:
                writer.write_batch(batch)
        datasets.DatasetInfo(features=datasets.Features.from_arrow_schema(schema)).write_to_directory(str(part))
        state = {
            "_data_files": [{"filename": "data-00000-of-00001.arrow"}],
            "_fingerprint": str(card["sha256"])[:16],
            "_format_columns": None,
            "_format_kwargs": {},
            "_format_type": None,
            "_output_all_columns": False,
            "_split": None,
        }
        (part / "state.json").write_text(json.dumps(state, indent=1))
        (part / "vocabulary.json").write_text(json.dumps(card, indent=1))
        shutil.rmtree(folder, ignore_errors=True)
        part.rename(folder)
    finally:
        shutil.rmtree(part, ignore_errors=True)
    return load_arrow(folder)


def load_arrow(folder: str | Path) -> datasets.Dataset:
    """Encoded cells of a folder, mapped from disk.

    Raises
    ------
    DataError
        If the folder holds none.
    """
    folder = Path(folder)
    if not (folder / "state.json").is_file():
        raise DataError(f"{folder}: no encoded cells; encode a file into it first")
    return datasets.load_from_disk(str(folder))
