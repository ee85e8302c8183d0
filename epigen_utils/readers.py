"""Files of expression values as AnnData: text tables, h5ad and GCT; genes in rows or in columns."""

import functools
import gzip
import re
import warnings
import zlib
from collections import Counter
from pathlib import Path

import anndata
import numpy as np
import pandas as pd

from epigen_utils.errors import DataError

#: A gene id of Ensembl.
ENSEMBL = r"ENS[A-Z]*G\d+"


def _header(path: Path, sep: str) -> list[str]:
    """Names of the columns; a file as R's write.table leaves it has none for the first, and gets one."""
    opener = gzip.open if path.suffix == ".gz" else open
    with opener(path, "rt", encoding="utf-8-sig") as stream:
        names, row = (
            [cell.strip().strip('"') for cell in stream.readline().rstrip("\r\n").split(sep)] for _ in range(2)
        )
    if len(names) == 1 and names[0]:
        raise DataError(
            f"{path}: one column only, {names[0][:40]!r}; separate columns by {'commas' if sep == ',' else 'tabs'}"
        )
    return ["gene", *names] if len(row) == len(names) + 1 else names


#: What reading a table can raise that is the file's fault.
UNREADABLE = (pd.errors.ParserError, pd.errors.EmptyDataError, UnicodeDecodeError, OSError, EOFError, zlib.error)


def _sep(path: Path) -> str:
    return "," if ".csv" in path.suffixes else "\t"


def _genes_in(frame: pd.DataFrame, samples: pd.DataFrame | None) -> str:
    """Where the genes of a table stand, and what tells it."""
    axes = {"rows": (frame.index, frame.columns), "columns": (frame.columns, frame.index)}
    if samples is not None:
        known = {side: names.astype(str).isin(samples.index).sum() for side, (_ids, names) in axes.items()}
        if known["rows"] != known["columns"]:
            return f"{max(known, key=known.get)}: the others are the sample table's ids"
    for side, (ids, names) in axes.items():
        if mostly_ensembl(ids) and not mostly_ensembl(names):
            return f"{side}: they have Ensembl's ids"
    if frame.shape[1] > 2 * frame.shape[0]:
        return "columns: there are many more of them than of rows"
    return "rows, as is usual: nothing speaks against it"


def mostly_ensembl(names: pd.Index | pd.Series) -> bool:
    """Whether most names are Ensembl's; old annotations add a few of other kinds (LRG_1)."""
    return len(names) > 0 and bool(names.astype(str).str.match(ENSEMBL).mean() > 0.5)


def without_version(names: pd.Index | pd.Series) -> pd.Index | pd.Series:
    """Ensembl ids without the version that GENCODE writes behind them."""
    return names.astype(str).str.replace(r"\.\d+$", "", regex=True)


def about_own(path: Path) -> dict[str, object]:
    """What a file of the user's says of itself, as the registry does of its own."""
    about = {"name": path.name, "title": path.name, "nature": "your own", "species": "not stated", "measure": "counts"}
    return about | {"licence": "yours", "citation": "", "sha256": {}}


def _numbers(path: Path, frame: pd.DataFrame, sides: tuple[str, str] = ("gene", "sample")) -> pd.DataFrame:
    """The frame as numbers; the first cell that is not one is named."""
    words = [not pd.api.types.is_numeric_dtype(dtype) for dtype in frame.dtypes]
    for column in frame.columns[words]:
        bad = pd.to_numeric(frame[column], errors="coerce").isna() & frame[column].notna()
        if bad.any():
            where = f"{sides[0]} {frame.index[bad][0]!r}, {sides[1]} {column!r}"
            raise DataError(f"{path}: {where}: {frame.loc[bad, column].iloc[0]!r} is not a number; mend the cell")
    return frame.apply(pd.to_numeric) if any(words) else frame


def read_table(
    found: dict[str, Path],
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
    subset: bool | str = False,
    strip: str = "",
    donor_pattern: str = "",
    recode: dict | None = None,
) -> anndata.AnnData:
    r"""Values as text, ids in the first column.

    Parameters
    ----------
    found
        ``counts``, and perhaps ``samples``, a table with a row a sample.
    genes_in
        ``rows`` or ``columns``; empty to find out from the sample table, the Ensembl ids or the shape, in this order. What
        was found, and from what, is kept in ``uns["genes_in"]``.
    drop, symbol
        Columns of the counts that are no samples; the one that holds gene symbols.
    labels, donor_pattern
        Groups read off the sample names, ``{column: {regular expression: level}}``, null for samples to leave out; and
        the donor, the part of a name that a regular expression captures.
    skip_rows, header, drop_rows
        For files with lines before the header, without names for the first columns, or with rows that are no genes
        (a regular expression).
    sample_header, sample_index, strip
        Names for a sample table without a header; which of its columns holds the sample ids; what to cut from the ids.
    subset
        Whether the sample table may describe more samples than the counts hold; ``both``: and the counts hold more than it does.
    recode
        New columns out of those of the sample table, ``{column: {from: column, levels: {level: level}}}``.

    Raises
    ------
    DataError
        Naming the file and the gene or sample that is twice there, missing on one side, or not a number.
    """
    path = found["counts"]
    frame = pd.read_parquet(path) if path.suffix == ".parquet" else _read_counts_text(path, skip_rows, header)
    if drop_rows:
        frame = frame[~frame.index.astype(str).str.match(drop_rows)]
    symbols = frame[symbol].astype(str) if symbol else None
    frame = frame.drop(columns=[*(drop or []), *([symbol] if symbol else [])])
    table = _read_samples(found["samples"], sample_header, sample_index, strip) if "samples" in found else None
    said = f"{genes_in}, as asked" if genes_in else _genes_in(frame, table)
    frame = _numbers(path, frame, ("gene", "sample") if said.startswith("rows") else ("sample", "gene"))
    frame = frame.T if said.startswith("rows") else frame
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
    adata.uns["genes_in"] = said
    if table is not None:
        if subset == "both":
            adata = adata[adata.obs_names.isin(table.index)].copy()
        adata.obs = _join_samples(found, adata.obs_names, table, bool(subset))
    for column, made in (recode or {}).items():
        adata.obs[column] = _recoded(found["samples"], adata.obs[made["from"]], made["levels"])
    for column, levels in (labels or {}).items():
        adata.obs[column] = [_label(path, name, levels) for name in adata.obs_names]
        adata = adata[adata.obs[column].notna().to_numpy()].copy()
    if donor_pattern:
        adata.obs["donor"] = adata.obs_names.str.extract(donor_pattern, expand=False).to_numpy()
    return adata


def _read_counts_text(path: Path, skip_rows: int, header: list[str] | None) -> pd.DataFrame:
    sep = _sep(path)
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
    except UNREADABLE as error:
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


def _recoded(path: Path, values: pd.Series, levels: dict[str, str]) -> list[str]:
    if len(other := values[~values.isin(list(levels))]):
        raise DataError(
            f"{path}: sample {other.index[0]!r}: {other.iloc[0]!r} is none of {', '.join(levels)}; mend recode"
        )
    return [levels[value] for value in values]


def _read_samples(path: Path, header: list[str] | None, index: str, strip: str) -> pd.DataFrame:
    try:
        if path.suffix == ".parquet":
            table = pd.read_parquet(path).astype(str).reset_index()
        else:
            table = pd.read_csv(
                path, sep=_sep(path), dtype=str, encoding="utf-8-sig", header=None if header else 0, names=header
            )
    except UNREADABLE as error:
        raise DataError(f"{path}: cannot be read as a table ({str(error).strip()}); check the file") from None
    table = table.set_index(index or table.columns[0])
    table.index = table.index.str.replace(strip, "", regex=True) if strip else table.index
    if table.index.has_duplicates:
        raise DataError(
            f"{path}: sample {table.index[table.index.duplicated()][0]!r}: given twice; keep one row a sample"
        )
    return table


def _join_samples(found: dict[str, Path], names: pd.Index, table: pd.DataFrame, subset: bool) -> pd.DataFrame:
    if len(lost := names.difference(table.index, sort=False)):
        raise DataError(
            f"{found['samples']}: sample {lost[0]!r} of {found['counts'].name} has no row; add it ({len(lost)} missing)"
        )
    if len(lost := table.index.difference(names, sort=False)) and not subset:
        raise DataError(
            f"{found['counts']}: sample {lost[0]!r} of {found['samples'].name} has no column; add it, or drop its row"
        )
    return table.loc[names].rename_axis(None)


def _label(path: Path, name: str, levels: dict[str, str | None]) -> str | None:
    for pattern, level in levels.items():
        if re.search(pattern, name):
            return level
    raise DataError(f"{path}: sample {name!r} matches none of {', '.join(levels)}; mend the labels in the registry")


def read_h5ad(
    found: dict[str, Path], *, genes_in: str = "", var_index: str = "", labels: dict | None = None
) -> anndata.AnnData:
    """An AnnData file; ``var_index`` names the column of ``var`` that holds the stable gene id.

    Genes are in columns, as AnnData has them; a file that has them in rows is turned round if ``genes_in`` says so, or if
    it is empty and only the rows have Ensembl's ids.
    """
    path = found["counts"]
    try:
        with warnings.catch_warnings():
            # The schema says which name it is.
            warnings.filterwarnings("ignore", message=".* names are not unique")
            adata = anndata.read_h5ad(path)
    except (OSError, KeyError) as error:
        raise DataError(f"{path}: cannot be read as h5ad ({str(error).splitlines()[0]}); check the file") from None
    if genes_in == "rows" or (not genes_in and mostly_ensembl(adata.obs_names) and not mostly_ensembl(adata.var_names)):
        adata = adata.T.copy()
        adata.uns["genes_in"] = f"rows, {'as asked' if genes_in else 'which have Ensembl ids'}"
    if var_index:
        adata.var["symbol"] = adata.var_names
        adata.var_names = adata.var[var_index].astype(str)
    for column, levels in (labels or {}).items():
        adata.obs[column] = [_label(path, name, levels) for name in adata.obs_names]
    return adata


def read_gct(
    found: dict[str, Path], *, gene_id: str = "NAME", symbol: str = "Description", labels: dict
) -> anndata.AnnData:
    """A GCT 1.2 matrix (two lines, then NAME, Description, samples); which of the two columns is the stable id."""
    path = found["counts"]
    frame = pd.read_csv(path, sep="\t", skiprows=2).dropna(axis="columns", how="all").set_index(gene_id)
    symbols = frame.pop(symbol)
    frame = _numbers(path, frame)
    adata = anndata.AnnData(
        obs=pd.DataFrame(index=frame.columns),
        var=pd.DataFrame({"symbol": symbols.fillna("").to_numpy()}, index=frame.index.astype(str)),
        X=frame.to_numpy().T,
    )
    for column, levels in labels.items():
        adata.obs[column] = [_label(path, name, levels) for name in adata.obs_names]
    return adata


#: Names that the registry's `read` may give.
READERS = {"table": functools.partial(read_table, genes_in="rows"), "h5ad": read_h5ad, "gct": read_gct}
