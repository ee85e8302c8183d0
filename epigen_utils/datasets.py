"""A name or a path becomes an AnnData that keeps the contract of `epigen_utils.schema`.

``load("airway")`` takes a data set of the registry; ``load("my.h5ad", group="condition")`` or
``load("counts.csv", metadata="samples.csv", group="condition")`` takes one of the user's own.
"""

import gzip
import hashlib
import re
import warnings
import zlib
from pathlib import Path

import anndata
import numpy as np
import pandas as pd
from scipy import sparse

from epigen_utils import registry, schema
from epigen_utils.errors import DataError
from epigen_utils.files import sha256

#: Above this many values a matrix is kept sparse.
SPARSE_ABOVE = 20_000_000


def load(
    name_or_path: str | Path,
    *,
    metadata: str | Path = "",
    group: str = "",
    reference: str = "",
    donor: str = "",
    species: str = "",
    task: str = "",
) -> anndata.AnnData:
    """Load and check a data set.

    Parameters
    ----------
    name_or_path
        A name of ``data/registry.yml``, or the path of an h5ad, CSV or TSV file (genes in rows, gene ids in the first
        column, samples in the others), gzipped or not.
    metadata
        For CSV and TSV: a table with a row a sample, sample ids in the first column.
    group, reference, donor
        Column of the groups, the level that others are compared with, column of the donors; the registry's by default.
    species
        Of a data set of one's own, as the registry writes it (``mus_musculus``); needed only for orthologs.
    task
        What the data must be fit for (`schema.TASKS`); by default ``groups`` where a group is known, else ``counts``.

    Returns
    -------
    AnnData, samples x genes; ``uns["epigen"]`` says what it is and the SHA-256 of what it was read from.

    Raises
    ------
    DataError
        One line with the file, the place and the mend.
    """
    name = str(name_or_path)
    path = Path(name)
    own = name not in registry.registry() and (path.suffix != "" or path.exists())
    if own:
        adata, about = _load_own(path, Path(metadata) if metadata else None)
    elif metadata:
        raise DataError(f"{name}: a data set of the registry has its own sample table; leave metadata out")
    else:
        adata, about = _load_registered(name)
    given = {"group": group, "reference": reference, "donor": donor, "species": species}
    about |= {key: value for key, value in given.items() if value}
    adata.uns["epigen"] = about
    if task and task not in schema.TASKS:
        raise DataError(f"task {task!r}: {registry.closest(task, schema.TASKS)}")
    if not task:
        task = "intensity" if about["measure"] == "intensity" else "groups" if about.get("group") else "counts"
    if problems := schema.check(adata, task=task):
        more = f" (and {len(problems) - 1} more)" if len(problems) > 1 else ""
        raise DataError(f"{name}: {problems[0]}{more}")
    if group := about.get("group"):
        levels = adata.obs[group].astype(str)
        first = [about["reference"]] if about.get("reference") else []
        adata.obs[group] = pd.Categorical(levels, [*first, *(x for x in dict.fromkeys(levels) if x not in first)])
    return adata


def _load_registered(name: str) -> tuple[anndata.AnnData, dict]:
    entry = registry.entry(name)
    if entry.kind not in ("bulk", "cells"):
        raise DataError(f"{name}: is {entry.kind}, not an expression matrix; take its files with registry.fetch")
    simulated = [spec for spec in entry.files.values() if spec.source == "simulated"]
    if simulated:
        from epigen_utils import simulate

        adata = getattr(simulate, simulated[0].simulated)(**simulated[0].args)
        hashes = {"simulated": hashlib.sha256(np.ascontiguousarray(adata.layers["counts"]).tobytes()).hexdigest()}
    else:
        found = registry.fetch(name)
        adata = _finish(READERS[entry.read](found, **entry.options), entry.measure, name)
        hashes = {role: sha256(path) for role, path in found.items()}
    keep = {"group": entry.group, "reference": entry.reference, "donor": entry.donor}
    about = {
        "name": name,
        "title": entry.title,
        "nature": entry.nature,
        "species": entry.species,
        "measure": entry.measure,
    }
    about |= {"licence": entry.licence, "citation": entry.citation, "sha256": hashes}
    return adata, about | {key: value for key, value in keep.items() if value}


def _load_own(path: Path, metadata: Path | None) -> tuple[anndata.AnnData, dict]:
    for wanted in filter(None, (path, metadata)):
        if wanted.is_dir():
            raise DataError(f"{wanted}: is a directory; give a file")
        if not wanted.is_file():
            raise DataError(f"{wanted}: no such file; check the path")
    suffix = "".join(path.suffixes[-2:] if path.suffix == ".gz" else path.suffixes[-1:]).lower()
    if suffix == ".h5ad":
        if metadata:
            raise DataError(f"{metadata}: an h5ad has its own sample table (obs); leave metadata out")
        adata = read_h5ad({"counts": path})
    elif suffix.removesuffix(".gz") in (".csv", ".tsv", ".txt"):
        found = {"counts": path} | ({"samples": metadata} if metadata else {})
        adata = read_table(found)
    else:
        raise DataError(f"{path}: {suffix or 'no'} suffix; give .h5ad, .csv or .tsv (also .gz)")
    about = {"name": path.name, "title": path.name, "nature": "your own", "species": "not stated", "measure": "counts"}
    hashes = {part.name: sha256(part) for part in filter(None, (path, metadata))}
    return _finish(adata, "counts", str(path)), about | {"licence": "yours", "citation": "", "sha256": hashes}


def _finish(adata: anndata.AnnData, measure: str, where: str) -> anndata.AnnData:
    """Put the values where the contract wants them; integers become integers, large matrices sparse."""
    if measure not in adata.layers:
        adata.layers[measure] = _raw_values(adata, measure, where)
    values = adata.layers[measure]
    adata.uns["share_of_integers"] = _share_of_integers(values)
    if measure == "counts" and _are_integers(values):
        values = _rounded(values)
    if not sparse.issparse(values) and values.size > SPARSE_ABOVE:
        values = sparse.csr_matrix(values)
    adata.layers[measure] = values
    adata.X = None
    if "symbol" not in adata.var:
        named = next((column for column in ("gene_symbol", "gene_name", "gene_symbols") if column in adata.var), None)
        adata.var["symbol"] = adata.var[named].astype(str) if named else adata.var_names.astype(str)
    ensembl = adata.var_names.str.match(r"ENS[A-Z]*G\d+")
    if "ensembl_id" not in adata.var and ensembl.sum() > 0.5 * len(ensembl):
        # Some old annotations add a few ids of other kinds (LRG_1).
        adata.var["ensembl_id"] = adata.var_names.where(ensembl, "")
    return adata


def _raw_values(adata: anndata.AnnData, measure: str, where: str):
    """X if it may be raw, else raw.X if it has the same genes; the schema has the last word."""
    raw = adata.raw
    if adata.X is not None and (measure != "counts" or _are_integers(adata.X) or raw is None):
        return adata.X
    if raw is not None and raw.shape == adata.shape:
        return raw.X
    raise DataError(f"{where}: no counts in layers['counts'], X or raw.X; put the raw counts in layers['counts']")


def _are_integers(values) -> bool:
    data = values.data if sparse.issparse(values) else np.asarray(values)
    if not np.issubdtype(data.dtype, np.number):
        return False
    if np.issubdtype(data.dtype, np.integer):
        return True
    return bool(np.isfinite(data).all() and (np.abs(data - np.rint(data)) <= schema.NOISE).all())


def _share_of_integers(values) -> float:
    """Of the non-zero values as they stand in the file, before any rounding."""
    data = values.data if sparse.issparse(values) else np.asarray(values)
    if not np.issubdtype(data.dtype, np.number) or not (data != 0).any():
        return 0.0
    data = data[data != 0]
    return float((data == np.floor(data)).mean())


def _rounded(values):
    if sparse.issparse(values):
        values = values.copy()
        values.data = np.rint(values.data)
        return values.astype(np.int64)
    return np.rint(values).astype(np.int64)


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


def _numbers(path: Path, frame: pd.DataFrame) -> pd.DataFrame:
    """The frame as numbers; the first cell that is not one is named."""
    for column in frame.columns[[not pd.api.types.is_numeric_dtype(dtype) for dtype in frame.dtypes]]:
        bad = pd.to_numeric(frame[column], errors="coerce").isna() & frame[column].notna()
        if bad.any():
            gene = frame.index[bad][0]
            raise DataError(
                f"{path}: gene {gene!r}, sample {column!r}: {frame.loc[bad, column].iloc[0]!r} is not a number; mend the cell"
            )
    return frame.apply(pd.to_numeric)


def read_table(
    found: dict[str, Path],
    *,
    transposed: bool = False,
    drop: list[str] | None = None,
    symbol: str = "",
    labels: dict | None = None,
    skip_rows: int = 0,
    header: list[str] | None = None,
    drop_rows: str = "",
    sample_header: list[str] | None = None,
    sample_index: str = "",
    subset: bool = False,
    strip: str = "",
    donor_pattern: str = "",
) -> anndata.AnnData:
    r"""Counts as text: genes in rows (or in columns, ``transposed``), ids in the first column.

    Parameters
    ----------
    found
        ``counts``, and perhaps ``samples``, a table with a row a sample.
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
        Whether the sample table may describe more samples than the counts hold.

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
    frame = _numbers(path, frame)
    frame = frame if transposed else frame.T
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
    if "samples" in found:
        table = _read_samples(found["samples"], sample_header, sample_index, strip)
        adata.obs = _join_samples(found, adata.obs_names, table, subset)
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
    if names and (twice := [name for name in dict.fromkeys(names[1:]) if names[1:].count(name) > 1]):
        raise DataError(f"{path}: sample {twice[0]!r}: given {names.count(twice[0])} times; keep one, or rename")
    if names:
        frame.columns = names
    if frame.iloc[:, 0].hasnans:
        row = int(np.flatnonzero(frame.iloc[:, 0].isna())[0])
        raise DataError(f"{path}: row {row + 2}: no gene id; fill it in")
    frame.index = frame.pop(frame.columns[0]).astype(str)
    return frame


def _read_samples(path: Path, header: list[str] | None, index: str, strip: str) -> pd.DataFrame:
    try:
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


def read_h5ad(found: dict[str, Path], *, var_index: str = "", labels: dict | None = None) -> anndata.AnnData:
    """An AnnData file; ``var_index`` names the column of ``var`` that holds the stable gene id."""
    path = found["counts"]
    try:
        with warnings.catch_warnings():
            # The schema says which name it is.
            warnings.filterwarnings("ignore", message=".* names are not unique")
            adata = anndata.read_h5ad(path)
    except (OSError, KeyError) as error:
        raise DataError(f"{path}: cannot be read as h5ad ({str(error).splitlines()[0]}); check the file") from None
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
READERS = {"table": read_table, "h5ad": read_h5ad, "gct": read_gct}
