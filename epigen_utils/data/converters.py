"""Files of other formats: cells as 10x Genomics, loom, zarr and R have them, and published files as h5ad and text.

A converter takes the original files of a data set by role, and the path to write. `content_sha256` identifies what was
written, whatever the version of the library that wrote it.
"""

import ast
import csv
import gzip
import hashlib
import json
import lzma
import os
import re
import tempfile
import warnings
import zipfile
import zlib
from collections.abc import Callable
from pathlib import Path

import anndata
import h5py
import numpy as np
import pandas as pd
from scipy import io as matrix_market
from scipy import sparse

from epigen_utils.containers import check_hdf5, check_packed, check_zarr, read_plain_pickle
from epigen_utils.data import schema
from epigen_utils.errors import DataError, first_line


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
    """The only object of an R data file, ``.rda`` or ``.rds``."""
    import rdata  # here, since who reads pickles does without it

    try:
        check_packed(path)
        with warnings.catch_warnings():
            # Classes that only R knows arrive as plain attributes, which is what is read here.
            warnings.simplefilter("ignore")
            if path.suffix.lower() == ".rds":
                return rdata.read_rds(path)
            return next(iter(rdata.read_rda(path).values()))
    except DataError:
        raise
    except Exception as error:  # noqa: BLE001 - rdata checks little: a broken file raises what its bytes lead to
        reason = first_line(error)
        raise DataError(f"{path}: no R data file ({reason}); fetch it again, or save it by saveRDS") from None


def _read_experiment(path: Path) -> anndata.AnnData:
    """An R SummarizedExperiment or SingleCellExperiment: its assay ``counts``, or the first one, as X.

    Raises
    ------
    DataError
        If the file holds another object.
    """
    experiment = _read_r_object(path)
    try:
        assays = experiment.assays.data.listData
        name = "counts" if "counts" in assays else next(iter(assays))
        matrix, names = _r_matrix(assays[name])
        cells = _r_table(experiment.colData)
    except (AttributeError, TypeError, StopIteration):
        raise DataError(
            f"{path}: no SummarizedExperiment or SingleCellExperiment; in R, saveRDS(as.SingleCellExperiment(x), file)"
        ) from None
    genes = pd.DataFrame(index=range(matrix.shape[1]))
    ranges = getattr(experiment, "rowRanges", None)
    for holder in (experiment, ranges, getattr(ranges, "unlistData", None)):
        table = getattr(holder, "elementMetadata", None)
        if table is not None and getattr(table, "listData", None) and int(np.ravel(table.nrows)[0]) == len(genes):
            genes = _r_table(table)
            break
    genes.index, cells.index = (
        pd.Index(names[axis] if names[axis] is not None else range(len(table)), dtype=str)
        for axis, table in ((0, genes), (1, cells))
    )
    return anndata.AnnData(matrix, obs=cells, var=genes)


def _r_matrix(values: object) -> tuple[sparse.csr_matrix, list]:
    """A matrix of R, genes x cells, as cells x genes, and its names of rows and columns."""
    if hasattr(values, "Dim"):
        # Compressed columns of genes x cells are compressed rows of cells x genes.
        matrix = sparse.csr_matrix((values.x, values.i, values.p), shape=np.asarray(values.Dim)[::-1])
        return matrix, list(values.Dimnames)
    names = [values.coords[side].to_numpy() if side in values.coords else None for side in values.dims]
    return sparse.csr_matrix(np.asarray(values).T), names


def _r_table(frame: object) -> pd.DataFrame:
    """Columns of a DataFrame of Bioconductor that are vectors or factors."""
    n = int(np.ravel(frame.nrows)[0])
    columns = {name: column for name, column in dict(frame.listData or {}).items() if np.shape(column) == (n,)}
    return pd.DataFrame(columns, index=range(n))


def single_cell_experiment(originals: dict[str, Path], target: Path, *, columns: dict[str, str]) -> None:
    """Counts and cell table of an R SingleCellExperiment, as h5ad.

    Parameters
    ----------
    columns
        Columns of the cell table to keep, by their names there, and their names here.
    """
    adata = _read_experiment(originals["experiment"])
    cells = adata.obs[list(columns)].rename(columns=columns)
    _write_h5ad(adata.X, cells, pd.DataFrame(index=adata.var_names), target)


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


def _write_h5ad(counts: sparse.csr_matrix, cells: pd.DataFrame, genes: pd.DataFrame, target: Path) -> None:
    adata = anndata.AnnData(counts.astype(np.float32), obs=cells, var=genes)
    adata.write_h5ad(target, compression="gzip")


def cell_format(path: Path) -> str:
    """Format of a file or folder of cells that is no h5ad and no table of text: a key of `CELL_READERS`, or empty."""
    suffix = path.suffix.lower()
    if suffix in (".h5", ".loom", ".rds"):
        return suffix
    groups = any((path / name).exists() for name in (".zgroup", "zarr.json"))
    if path.name.lower().endswith((".zarr", ".zarr.zip")) or groups:
        return ".zarr"
    return "10x" if path.is_dir() and any(path.glob("*matrix.mtx*")) else ""


#: End of the names of STAR's files of counts (``--quantMode GeneCounts``), and its columns, by the library's strand.
STAR_ENDING, STAR_STRANDS = "ReadsPerGene.out.tab", {1: "unstranded", 2: "forward", 3: "reverse"}
#: Share of the reads on one strand from which a library is of that strand.
STRANDED = 0.8


def count_files(folder: Path) -> list[Path]:
    """The files of a folder with a file of counts a sample, as HTSeq and STAR leave them.

    Raises
    ------
    DataError
        If it has quantifications of transcripts instead.
    """
    if next(folder.glob("**/quant.sf"), None) or next(folder.glob("**/abundance.[th]*"), None):
        remedy = "give the table of genes that tximport or nf-core makes of them, with round_counts"
        raise DataError(f"{folder}: salmon's or kallisto's transcripts; {remedy}")
    named = [file for file in sorted(folder.iterdir()) if re.search(r"\.(txt|tsv|tab|counts?)(\.gz)?$", file.name)]
    return [file for file in named if STAR_ENDING in file.name] or named


def read_count_files(folder: Path) -> tuple[pd.DataFrame, list[str]]:
    """Counts of a folder with a file a sample (`count_files`), genes x samples, named by their files; and notes.

    Raises
    ------
    DataError
        Naming a file that is no table of genes and counts, or has other genes, or another strand, than the first.
    """
    files, columns, strands = count_files(folder), {}, []
    is_star = STAR_ENDING in files[0].name
    common = os.path.commonprefix([file.name[::-1] for file in files])[::-1]
    ending = STAR_ENDING if is_star else "".join(re.findall(r"[._-].*$", common))
    options = {"sep": "\t", "header": None, "index_col": 0, "comment": "#", "dtype": {0: str}, "keep_default_na": False}
    for file in files:
        try:
            check_packed(file)
            table = pd.read_csv(file, **options).astype(np.int64)
        except (ValueError, OverflowError, OSError, EOFError, zlib.error) as error:
            if isinstance(error, DataError):
                raise
            reason = f"no genes and counts as HTSeq or STAR write them ({first_line(error)})"
            raise DataError(f"{file}: {reason}; leave it out") from None
        if table.shape[1] != (3 if is_star else 1):
            raise DataError(f"{file}: {table.shape[1] + 1} columns; HTSeq writes two, STAR four: leave it out")
        strands.append(_strand(table) if is_star else 1)
        columns[file.name.partition(ending)[0].strip("._-") if ending else file.name] = table[strands[-1]]
        if not table.index.equals(next(iter(columns.values())).index):
            raise DataError(f"{file}: other genes, or in another order, than {files[0].name}; count all alike")
        if strands[-1] != strands[0]:
            here, first = (STAR_STRANDS[strand] for strand in (strands[-1], strands[0]))
            raise DataError(f"{file}: a {here} library, and {files[0].name} a {first} one; give samples of one kind")
    said = f" Of STAR's columns, that of {STAR_STRANDS[strands[0]]} libraries is taken." if is_star else ""
    return pd.DataFrame(columns).rename_axis(None), [f"Samples are {len(files)} files of {folder.name}.{said}"]


def _strand(counts: pd.DataFrame) -> int:
    """Column of STAR's counts that fits the strand of the library."""
    of_genes = counts[~counts.index.str.startswith("N_")].sum()
    share = of_genes[2] / max(of_genes[2] + of_genes[3], 1)
    return 2 if share > STRANDED else 3 if share < 1 - STRANDED else 1


def read_cells(path: Path) -> anndata.AnnData:
    """Read cells of a format of `CELL_READERS`; X is the matrix as it is there, names of genes as they are there.

    Raises
    ------
    DataError
        If the file cannot be read.
    """
    try:
        with warnings.catch_warnings():
            # `schema.check` reports a duplicated name.
            warnings.filterwarnings("ignore", message=".* names are not unique")
            adata = CELL_READERS[cell_format(path)](path)
    except DataError:
        raise
    except Exception as error:  # noqa: BLE001 - each format's library raises errors of its own on a broken file
        raise DataError(f"{path}: cannot be read ({first_line(error)}); check the file") from None
    schema.check_matrices(str(path), adata)
    return adata


def _read_10x_folder(path: Path) -> anndata.AnnData:
    """A folder of 10x Genomics, of STARsolo or kallisto: matrix.mtx, genes.tsv or features.tsv, and barcodes.tsv."""
    parts = {}
    for part, names in {"matrix": "matrix.mtx", "genes": "features.tsv|genes.tsv", "cells": "barcodes.tsv"}.items():
        found = [file for name in names.split("|") for file in sorted(path.glob(f"*{name}*"))]
        if len(found) != 1:
            files = f"{f'{len(found)} files' if found else 'no file'} {names.replace('|', ' or ')}"
            raise DataError(f"{path}: {files} (or .gz); give the folder of one sample, with one of each")
        parts[part] = found[0]
        check_packed(found[0])
    # A quotation mark is part of a name, and NA a gene.
    options = {"sep": "\t", "header": None, "dtype": str, "quoting": csv.QUOTE_NONE, "keep_default_na": False}
    tables = {side: pd.read_csv(parts[side], **options) for side in ("genes", "cells")}
    # Before the matrix is read, which has room for what its header says.
    *sizes, _, _, values, _ = matrix_market.mminfo(parts["matrix"])
    if values in ("pattern", "complex"):
        raise DataError(f"{parts['matrix']}: a matrix of kind {values}; give counts")
    for side, n in zip(("genes", "cells"), sizes, strict=True):
        if len(tables[side]) != n:
            raise DataError(f"{parts[side]}: {len(tables[side])} lines, and {n} {side} in the matrix")
    matrix = sparse.csr_matrix(matrix_market.mmread(parts["matrix"]).T)
    genes = tables["genes"]
    var = genes.set_axis(["gene_ids", "symbol", "feature_types", *genes.columns[3:]][: genes.shape[1]], axis=1)
    obs = pd.DataFrame(index=tables["cells"][0].to_numpy())
    return anndata.AnnData(matrix, obs=obs, var=var.set_axis(var.pop("gene_ids").to_numpy()))


def _read_10x_h5(path: Path) -> anndata.AnnData:
    import scanpy  # here, as few read such files, and its import takes a second

    check_hdf5(path)
    return scanpy.read_10x_h5(path, gex_only=False)


def _read_zarr(path: Path) -> anndata.AnnData:
    check_zarr(path)
    if path.is_dir():
        return anndata.read_zarr(path)
    with tempfile.TemporaryDirectory() as folder, zipfile.ZipFile(path) as archive:
        archive.extractall(folder)
        return anndata.read_zarr(folder)


#: Cells of a loom file that are read at once.
LOOM_CHUNK = 2048


def _read_loom(path: Path) -> anndata.AnnData:
    """A loom file, genes x cells; its ``matrix`` becomes X, other layers stay layers."""
    check_hdf5(path, at_once=LOOM_CHUNK)
    with h5py.File(path) as file:
        tables = []
        for side in ("col_attrs", "row_attrs"):
            columns = {name: file[side][name][()] for name in file[side] if file[side][name].ndim == 1}
            columns = {k: v.astype(str) if v.dtype.kind in "SO" else v for k, v in columns.items()}
            names = ("CellID", "obs_names", "cell_id") if side == "col_attrs" else ("Accession", "Gene", "var_names")
            index = next((name for name in names if name in columns), None)
            n = file["matrix"].shape[side == "col_attrs"]
            if wrong := [name for name, values in columns.items() if len(values) != n]:
                raise DataError(f"{path}: {side}/{wrong[0]} has {len(columns[wrong[0]])} values, and the matrix {n}")
            index = pd.Index(columns.pop(index) if index else range(n), dtype=str)
            tables.append(pd.DataFrame(columns, index=index))

        def cells_by_genes(values: h5py.Dataset) -> sparse.csr_matrix:
            starts = range(0, values.shape[1], LOOM_CHUNK)
            return sparse.vstack([sparse.csr_matrix(values[:, i : i + LOOM_CHUNK].T) for i in starts], format="csr")

        layers = {name: cells_by_genes(file["layers"][name]) for name in file.get("layers", ())}
        return anndata.AnnData(cells_by_genes(file["matrix"]), obs=tables[0], var=tables[1], layers=layers)


#: Formats of cells other than h5ad and text.
CELL_READERS: dict[str, Callable[[Path], anndata.AnnData]] = {
    "10x": _read_10x_folder,
    ".h5": _read_10x_h5,
    ".loom": _read_loom,
    ".zarr": _read_zarr,
    ".rds": _read_experiment,
}

CONVERTERS: dict[str, Callable[..., None]] = {
    "single_cell_experiment": single_cell_experiment,
    "scgps_samples": scgps_samples,
    "homologene_table": homologene_table,
    "label_lists": label_lists,
    "dictionary_table": dictionary_table,
}
