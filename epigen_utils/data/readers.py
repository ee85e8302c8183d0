"""Readers of expression files into AnnData: text tables, h5ad and GCT, with genes in rows or in columns."""

import functools
import json
import re
import warnings
import zlib
from collections import Counter
from pathlib import Path

import anndata
import numpy as np
import pandas as pd

from epigen_utils.errors import DataError
from epigen_utils.files import open_text

#: Ensembl gene id.
ENSEMBL_GENE_ID = r"ENS[A-Z]*G\d+"


def _header(path: Path, sep: str) -> list[str]:
    """Column names; R's write.table omits the name of the first column, which is then added."""
    with open_text(path, encoding="utf-8-sig") as stream:
        names, row = (
            [cell.strip().strip('"') for cell in stream.readline().rstrip("\r\n").split(sep)] for _ in range(2)
        )
    if len(names) == 1 and names[0]:
        raise DataError(
            f"{path}: one column only, {names[0][:40]!r}; separate columns by {'commas' if sep == ',' else 'tabs'}"
        )
    return ["gene", *names] if len(row) == len(names) + 1 else names


#: Exceptions of a malformed file.
READ_ERRORS = (pd.errors.ParserError, pd.errors.EmptyDataError, UnicodeDecodeError, OSError, EOFError, zlib.error)


def _separator(path: Path) -> str:
    return "," if ".csv" in path.suffixes else "\t"


def _infer_orientation(frame: pd.DataFrame, samples: pd.DataFrame | None) -> str:
    """Orientation of a table, ``rows`` or ``columns`` of genes, and the evidence for it."""
    axes = {"rows": (frame.index, frame.columns), "columns": (frame.columns, frame.index)}
    if samples is not None:
        n_samples = {side: names.astype(str).isin(samples.index).sum() for side, (_ids, names) in axes.items()}
        if n_samples["rows"] != n_samples["columns"]:
            return f"{max(n_samples, key=n_samples.get)}: the others are the sample table's ids"
    for side, (ids, names) in axes.items():
        if mostly_ensembl_ids(ids) and not mostly_ensembl_ids(names):
            return f"{side}: they have Ensembl's ids"
    if frame.shape[1] > 2 * frame.shape[0]:
        return "columns: there are many more of them than of rows"
    return "rows, as is usual: nothing speaks against it"


def mostly_ensembl_ids(names: pd.Index | pd.Series) -> bool:
    """Whether most names are Ensembl ids; old annotations include a few others (LRG_1)."""
    return len(names) > 0 and bool(names.astype(str).str.match(ENSEMBL_GENE_ID).mean() > 0.5)


def without_ensembl_version(names: pd.Index | pd.Series) -> pd.Index | pd.Series:
    """Ensembl ids without the version suffix that GENCODE appends."""
    return names.astype(str).str.replace(r"\.\d+$", "", regex=True)


def describe_user_file(path: Path) -> dict[str, object]:
    """Description of a user's file, with the keys that registered data sets have in ``uns["epigen"]``."""
    about = {"name": path.name, "title": path.name, "nature": "your own", "species": "not stated", "measure": "counts"}
    return about | {"licence": "yours", "citation": "", "sha256": {}}


def _to_numbers(path: Path, frame: pd.DataFrame, sides: tuple[str, str] = ("gene", "sample")) -> pd.DataFrame:
    """Convert the frame to numbers; the error names the first cell that is not one."""
    is_text = [not pd.api.types.is_numeric_dtype(dtype) for dtype in frame.dtypes]
    for column in frame.columns[is_text]:
        bad = pd.to_numeric(frame[column], errors="coerce").isna() & frame[column].notna()
        if bad.any():
            where = f"{sides[0]} {frame.index[bad][0]!r}, {sides[1]} {column!r}"
            raise DataError(f"{path}: {where}: {frame.loc[bad, column].iloc[0]!r} is not a number; mend the cell")
    return frame.apply(pd.to_numeric) if any(is_text) else frame


def read_table(
    inputs: dict[str, Path],
    *,
    genes_in: str = "",
    drop: list[str] | None = None,
    symbol: str = "",
    labels: dict | None = None,
    skip_rows: int = 0,
    header: list[str] | None = None,
    drop_rows: str = "",
    sample_header: list[str] | None = None,
    sample_index: str = "",
    sample_columns: dict[str, str] | None = None,
    subset: bool | str = False,
    strip: str = "",
    donor_pattern: str = "",
    recode: dict | None = None,
) -> anndata.AnnData:
    r"""Read a table of text, or a Parquet file, with ids in the first column.

    Parameters
    ----------
    inputs
        Paths by role: ``counts``, and optionally ``samples``, a table with one row per sample, or a JSON list with one
        object per sample.
    genes_in
        ``rows`` or ``columns``; if empty, inferred from the sample table, the Ensembl ids or the shape, in this order.
        The orientation and the evidence for it are stored in ``uns["genes_in"]``.
    drop, symbol
        Columns of the counts that are not samples; the column of gene symbols.
    labels, donor_pattern
        Groups derived from the sample names, ``{column: {regular expression: level}}`` (level null: drop the sample);
        regular expression that captures the donor in a sample name.
    skip_rows, header, drop_rows
        Lines before the header; names of all columns, for a file without them; regular expression of rows that are not
        genes.
    sample_header, sample_index, strip
        Names of the columns of a sample table without a header; its column of sample ids; regular expression to remove
        from the ids.
    sample_columns
        Columns of the sample table to keep, by their names there, and their names here; all, as they are, by default.
    subset
        Whether the sample table may hold samples that the counts lack; ``both``: the counts may also hold samples that
        the table lacks.
    recode
        New columns derived from columns of the sample table, ``{column: {from: column, levels: {level: level}}}``.

    Raises
    ------
    DataError
        If a gene or sample is duplicated or missing on one side, or a value is not a number; the message names the file
        and the gene or sample.
    """
    path = inputs["counts"]
    frame = pd.read_parquet(path) if path.suffix == ".parquet" else _read_counts_text(path, skip_rows, header)
    if drop_rows:
        frame = frame[~frame.index.astype(str).str.match(drop_rows)]
    symbols = frame[symbol].astype(str) if symbol else None
    frame = frame.drop(columns=[*(drop or []), *([symbol] if symbol else [])])
    samples = None
    if "samples" in inputs:
        samples = _read_samples(inputs["samples"], sample_header, sample_index, strip, sample_columns)
    orientation = f"{genes_in}, as asked" if genes_in else _infer_orientation(frame, samples)
    genes_in_rows = orientation.startswith("rows")
    frame = _to_numbers(path, frame, ("gene", "sample") if genes_in_rows else ("sample", "gene"))
    frame = frame.T if genes_in_rows else frame
    if frame.columns.has_duplicates:
        twice = frame.columns[frame.columns.duplicated()][0]
        raise DataError(f"{path}: gene {twice!r}: given more than once; keep one row, or rename")
    adata = anndata.AnnData(
        obs=pd.DataFrame(index=frame.index.astype(str)),
        var=pd.DataFrame(index=frame.columns.astype(str)),
        X=frame.to_numpy(),
    )
    if symbols is not None:
        adata.var["symbol"] = symbols.to_numpy()
    adata.uns["genes_in"] = orientation
    if samples is not None:
        if subset == "both":
            adata = adata[adata.obs_names.isin(samples.index)].copy()
        adata.obs = _join_samples(inputs, adata.obs_names, samples, bool(subset))
    for column, recoding in (recode or {}).items():
        adata.obs[column] = _recode(inputs["samples"], adata.obs[recoding["from"]], recoding["levels"])
    adata = _with_labels(path, adata, labels)
    if donor_pattern:
        adata.obs["donor"] = adata.obs_names.str.extract(donor_pattern, expand=False).to_numpy()
    return adata


def _read_counts_text(path: Path, skip_rows: int, header: list[str] | None) -> pd.DataFrame:
    sep = _separator(path)
    try:
        names = header or (None if skip_rows else _header(path, sep))
        frame = pd.read_csv(
            path,
            sep=sep,
            skiprows=skip_rows if header or not names else 1,
            header=None if names else 0,
            names=range(len(names)) if names else None,
            encoding="utf-8-sig",
        )
    except READ_ERRORS as error:
        raise DataError(f"{path}: cannot be read as a table ({str(error).strip()}); check the file") from None
    if names and (twice := [name for name, times in Counter(names[1:]).items() if times > 1]):
        raise DataError(f"{path}: sample {twice[0]!r}: given {names.count(twice[0])} times; keep one, or rename")
    if names:
        frame.columns = names
    if frame.iloc[:, 0].hasnans:
        row = int(np.flatnonzero(frame.iloc[:, 0].isna())[0])
        raise DataError(f"{path}: row {row + 2}: no gene id; fill it in")
    frame.index = frame.pop(frame.columns[0]).astype(str)
    return frame


def _recode(path: Path, values: pd.Series, levels: dict[str, str]) -> list[str]:
    if len(other := values[~values.isin(list(levels))]):
        raise DataError(
            f"{path}: sample {other.index[0]!r}: {other.iloc[0]!r} is none of {', '.join(levels)}; mend recode"
        )
    return [levels[value] for value in values]


def _read_samples(
    path: Path, header: list[str] | None, index: str, strip: str, columns: dict[str, str] | None
) -> pd.DataFrame:
    try:
        if path.suffix == ".parquet":
            table = pd.read_parquet(path).astype(str).reset_index()
        elif path.suffix == ".json":
            table = pd.DataFrame(json.loads(path.read_text(encoding="utf-8-sig")), dtype=str)
        else:
            table = pd.read_csv(
                path, sep=_separator(path), dtype=str, encoding="utf-8-sig", header=None if header else 0, names=header
            )
    except (*READ_ERRORS, ValueError) as error:
        raise DataError(f"{path}: cannot be read as a table ({str(error).strip()}); check the file") from None
    if not len(table.columns):
        raise DataError(f"{path}: no samples; give a row or an object for each")
    table = table.set_index(index or table.columns[0])
    table.index = table.index.str.replace(strip, "", regex=True) if strip else table.index
    if table.index.has_duplicates:
        raise DataError(
            f"{path}: sample {table.index[table.index.duplicated()][0]!r}: given twice; keep one row a sample"
        )
    return table[list(columns)].rename(columns=columns) if columns else table


def _join_samples(inputs: dict[str, Path], names: pd.Index, table: pd.DataFrame, subset: bool) -> pd.DataFrame:
    if len(missing := names.difference(table.index, sort=False)):
        raise DataError(
            f"{inputs['samples']}: sample {missing[0]!r} of {inputs['counts'].name} has no row; "
            f"add it ({len(missing)} missing)"
        )
    if len(surplus := table.index.difference(names, sort=False)) and not subset:
        raise DataError(
            f"{inputs['counts']}: sample {surplus[0]!r} of {inputs['samples'].name} has no column; "
            "add it, or drop its row"
        )
    return table.loc[names].rename_axis(None)


def _with_labels(path: Path, adata: anndata.AnnData, labels: dict | None) -> anndata.AnnData:
    """Add the groups that the sample names give; samples of level null are dropped."""
    for column, levels in (labels or {}).items():
        adata.obs[column] = [_level_of_sample(path, name, levels) for name in adata.obs_names]
        adata = adata[adata.obs[column].notna().to_numpy()].copy()
    return adata


def _level_of_sample(path: Path, name: str, levels: dict[str, str | None]) -> str | None:
    for pattern, level in levels.items():
        if re.search(pattern, name):
            return level
    raise DataError(f"{path}: sample {name!r} matches none of {', '.join(levels)}; mend the labels in the registry")


def read_h5ad(
    inputs: dict[str, Path], *, genes_in: str = "", var_index: str = "", labels: dict | None = None
) -> anndata.AnnData:
    """Read an AnnData file; ``var_index`` names the column of ``var`` that holds the stable gene id.

    A file with genes in rows is transposed if ``genes_in`` is ``rows``, or if it is empty and only the rows have
    Ensembl ids.
    """
    path = inputs["counts"]
    try:
        with warnings.catch_warnings():
            # `schema.check` reports the duplicated name.
            warnings.filterwarnings("ignore", message=".* names are not unique")
            adata = anndata.read_h5ad(path)
    except (OSError, KeyError) as error:
        raise DataError(f"{path}: cannot be read as h5ad ({str(error).splitlines()[0]}); check the file") from None
    if genes_in == "rows" or (
        not genes_in and mostly_ensembl_ids(adata.obs_names) and not mostly_ensembl_ids(adata.var_names)
    ):
        adata = adata.T.copy()
        adata.uns["genes_in"] = f"rows, {'as asked' if genes_in else 'which have Ensembl ids'}"
    if var_index:
        adata.var["symbol"] = adata.var_names
        adata.var_names = adata.var[var_index].astype(str)
    return _with_labels(path, adata, labels)


def read_gct(
    inputs: dict[str, Path], *, gene_id: str = "NAME", symbol: str = "Description", labels: dict
) -> anndata.AnnData:
    """Read a GCT 1.2 matrix (two lines, then NAME, Description, samples).

    ``gene_id`` and ``symbol`` say which of the two columns is the stable id and which the symbol.
    """
    path = inputs["counts"]
    frame = pd.read_csv(path, sep="\t", skiprows=2).dropna(axis="columns", how="all").set_index(gene_id)
    symbols = frame.pop(symbol)
    frame = _to_numbers(path, frame)
    adata = anndata.AnnData(
        obs=pd.DataFrame(index=frame.columns),
        var=pd.DataFrame({"symbol": symbols.fillna("").to_numpy()}, index=frame.index.astype(str)),
        X=frame.to_numpy().T,
    )
    return _with_labels(path, adata, labels)


#: Values of the registry's `read`.
READERS = {"table": functools.partial(read_table, genes_in="rows"), "h5ad": read_h5ad, "gct": read_gct}
