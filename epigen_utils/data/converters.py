"""Published files of other formats as the files that the book reads: R objects, pickles and lists to h5ad and text.

A converter takes the original files of a data set by role, and the path to write. `content_sha256` identifies what was
written, whatever the version of the library that wrote it.
"""

import ast
import gzip
import hashlib
import io
import json
import lzma
import pickle
import warnings
from collections.abc import Callable
from pathlib import Path

import anndata
import numpy as np
import pandas as pd
from scipy import sparse

from epigen_utils.errors import DataError


def content_sha256(path: Path) -> str:
    """SHA-256 of what a file holds: of an h5ad its counts, names, and columns of cells and genes; else of its text.

    Counts are hashed as a sparse matrix of 64-bit integers, cells in rows; columns as text, in alphabetical order.
    """
    if path.suffix != ".h5ad":
        content = path.read_bytes()
        expand = {".gz": gzip.decompress, ".xz": lzma.decompress}.get(path.suffix, bytes)
        return hashlib.sha256(expand(content)).hexdigest()
    adata = anndata.read_h5ad(path)
    counts = sparse.csr_matrix(adata.X)
    counts.sort_indices()
    digest = hashlib.sha256()
    for array in (counts.indptr, counts.indices, counts.data):
        digest.update(np.asarray(array, dtype=np.int64).tobytes())
    for table in (adata.obs, adata.var):
        text = table[sorted(table)].astype(str).to_csv(sep="\t", lineterminator="\n")
        digest.update(text.encode() + b"\0")
    return digest.hexdigest()


def _read_r_object(path: Path) -> object:
    """The only object of an R data file."""
    import rdata  # here, since who reads pickles does without it

    try:
        with warnings.catch_warnings():
            # Classes that only R knows arrive as plain attributes, which is what is read here.
            warnings.simplefilter("ignore")
            objects = rdata.read_rda(path)
    except (ValueError, NotImplementedError, EOFError, OSError) as error:
        raise DataError(f"{path}: no R data file ({error}); fetch it again") from None
    return next(iter(objects.values()))


def single_cell_experiment(originals: dict[str, Path], target: Path, *, columns: dict[str, str]) -> None:
    """Counts and cell table of an R SingleCellExperiment, as h5ad.

    Parameters
    ----------
    columns
        Columns of the cell table to keep, by their names there, and their names here.
    """
    experiment = _read_r_object(originals["experiment"])
    counts = experiment.assays.data.listData["counts"]
    # Compressed columns of genes x cells are compressed rows of cells x genes.
    matrix = sparse.csr_matrix((counts.x, counts.i, counts.p), shape=counts.Dim[::-1])
    genes, cells = counts.Dimnames
    table = pd.DataFrame({columns[name]: experiment.colData.listData[name] for name in columns}, index=cells)
    _write_h5ad(matrix, table, pd.DataFrame(index=genes), target)


def scgps_samples(originals: dict[str, Path], target: Path) -> None:
    """Counts of scGPS's samples, by day, as h5ad; each original is an R list of a matrix, clusters and genes.

    The matrices hold counts divided by a size factor of each cell; the smallest value of a cell is its count of one.
    A gene that a sample lacks was not detected there.

    Raises
    ------
    DataError
        If values of a cell are no multiples of its smallest one.
    """
    parts = []
    for day, path in originals.items():
        listed = _read_r_object(path)
        matrix, clusters, genes = (
            next(v for k, v in listed.items() if k.endswith(end)) for end in ("counts", "clusters", "geneInfo")
        )
        values = np.asarray(matrix).T
        multiples = values / np.where(values > 0, values, np.inf).min(axis=1, keepdims=True)
        counts = np.rint(multiples)
        if np.abs(multiples - counts).max() > 0.05:
            raise DataError(f"{path}: values of a cell are no multiples of the smallest; fetch it again")
        names = pd.Index(genes["EnsemblID"].astype(str))
        table = pd.DataFrame(
            {"day": day, "cluster": [f"{day}_c{cluster}" for cluster in clusters]},
            index=[f"{day}_{i}" for i in range(len(counts))],
        )
        parts.append(
            anndata.AnnData(
                sparse.csr_matrix(counts),
                obs=table,
                var=pd.DataFrame({"gene_name": genes["GeneSymbol"].to_numpy()}, index=names),
            )
        )
    joined = anndata.concat(parts, join="outer", fill_value=0)
    joined = joined[:, joined.var_names.sort_values()]
    genes = pd.concat([part.var for part in parts])
    _write_h5ad(joined.X, joined.obs, genes[~genes.index.duplicated()].loc[joined.var_names], target)


def homologene_table(originals: dict[str, Path], target: Path, *, taxa: list[int]) -> None:
    """HomoloGene's groups of some taxa as tab-separated text, gzipped."""
    groups = _read_r_object(originals["groups"])
    text = groups[groups["Taxonomy"].isin(taxa)].to_csv(sep="\t", index=False)
    target.write_bytes(gzip.compress(text.encode(), mtime=0))


def label_lists(originals: dict[str, Path], target: Path) -> None:
    """Lists of genes by label as JSON; the original has a row a label, with its list as Python writes it."""
    table = pd.read_csv(originals["labels"], header=0, names=["label", "genes"])
    lists = {label: ast.literal_eval(genes) for label, genes in table.itertuples(index=False)}
    target.write_text(json.dumps(lists, indent=0))


def dictionary_table(originals: dict[str, Path], target: Path, *, columns: tuple[str, str]) -> None:
    """A pickled dictionary as tab-separated text, compressed by xz."""
    rows = [columns, *read_plain_pickle(originals["dictionary"]).items()]
    text = "".join(f"{key}\t{value}\n" for key, value in rows)
    target.write_bytes(lzma.compress(text.encode(), preset=9 | lzma.PRESET_EXTREME))


class _PlainUnpickler(pickle.Unpickler):
    """Unpickles dictionaries, strings and numbers; the only callables admitted are stand-ins for NumPy's scalars."""

    def find_class(self, module: str, name: str) -> object:
        if module in ("numpy.core.multiarray", "numpy._core.multiarray") and name == "scalar":
            return _plain_scalar
        if (module, name) == ("numpy", "dtype"):
            return _DtypeStub
        raise pickle.UnpicklingError(f"asks for {module}.{name}")


class _DtypeStub:
    """Stands in for ``numpy.dtype`` in a pickle; only the type code is used."""

    def __init__(self, code: str, *_rest: object):
        self.code = code

    def __setstate__(self, _state: object) -> None:
        """Ignore byte order and alignment: the type code's defaults apply."""


def _plain_scalar(kind: _DtypeStub, content: bytes) -> float:
    dtype = np.dtype(kind.code)
    if dtype.kind not in "iuf":
        raise pickle.UnpicklingError(f"holds a value of type {kind.code}")
    return np.frombuffer(content, dtype).item()


def read_plain_pickle(path: Path) -> dict:
    """Read a pickled dictionary of strings and numbers without executing any code of the file.

    Raises
    ------
    DataError
        If the file is missing or broken, references anything but plain values, or holds no dictionary.
    """
    if not path.is_file():
        raise DataError(f"{path}: no such file; check the folder")
    try:
        dictionary = _PlainUnpickler(io.BytesIO(path.read_bytes())).load()
    except (pickle.UnpicklingError, EOFError, ValueError, TypeError, AttributeError, IndexError, KeyError) as error:
        repair = "refused, since a dictionary needs no code; take the published file"
        raise DataError(f"{path}: no plain pickle ({error}): {repair}") from None
    if not isinstance(dictionary, dict) or not all(isinstance(key, str) for key in dictionary):
        raise DataError(f"{path}: holds no dictionary of names; take the published file")
    return dictionary


def _write_h5ad(counts: sparse.csr_matrix, cells: pd.DataFrame, genes: pd.DataFrame, target: Path) -> None:
    adata = anndata.AnnData(counts.astype(np.float32), obs=cells, var=genes)
    adata.write_h5ad(target, compression="gzip")


CONVERTERS: dict[str, Callable[..., None]] = {
    "single_cell_experiment": single_cell_experiment,
    "scgps_samples": scgps_samples,
    "homologene_table": homologene_table,
    "label_lists": label_lists,
    "dictionary_table": dictionary_table,
}
