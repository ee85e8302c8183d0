"""Tables as people write them, and sample tables: which columns there are, what they hold, and what is missing."""

import codecs
import csv
import json
import re
import zlib
from dataclasses import dataclass
from pathlib import Path

import anndata
import numpy as np
import pandas as pd

from epigen_utils.containers import check_packed, read_rows, read_workbook
from epigen_utils.data import fetching, genes, geo, registry, schema
from epigen_utils.errors import DataError, first_line
from epigen_utils.files import first_lines, is_gzipped

#: Exceptions of a malformed file.
READ_ERRORS = (pd.errors.ParserError, pd.errors.EmptyDataError, UnicodeError, OSError, EOFError, zlib.error, csv.Error)

# A line of a wide table is one field where another separator is tried.
csv.field_size_limit(2**31 - 1)

#: Words for a value that is missing. None and null are levels: a treatment is None, an allele null.
MISSING = ("", "NA", "N/A", "#N/A", "#N/A N/A", "#NA", "<NA>", "n/a", "NaN", "nan", "-NaN", "-nan")
#: Ends of the names of Excel's files that are read.
EXCEL = (".xlsx", ".xlsm")
#: Lines from which the form of a table is found out, and the characters that they may have.
N_PEEKED, MOST_PEEKED = 50, 100_000_000


@dataclass(frozen=True)
class Layout:
    """How a table of text is written: separator, encoding, names of the columns, and the first rows, as words.

    ``skipped`` lines stand before the first row; ``notes`` say what was found out.
    """

    sep: str
    encoding: str
    names: tuple[str, ...]
    skipped: int
    rows: list[list[str]]
    notes: tuple[str, ...] = ()

    @property
    def width(self) -> int:
        """Number of columns, with those that have no name."""
        return max(map(len, [self.names, *self.rows]))

    @property
    def options(self) -> dict:
        """Options of `pandas.read_csv`; a row's number and ``skipped`` + 1 are its line in the file."""
        form = {"sep": r"\s+" if self.sep == " " else self.sep, "encoding": self.encoding, "skiprows": self.skipped}
        form |= {"header": None, "names": range(self.width), "index_col": False, "skip_blank_lines": False}
        return form | {"decimal": "," if self.sep == ";" else "."}


def peek(path: Path, *, skip: int = 0, header: list[str] | None = None) -> Layout:
    """The form of a CSV or TSV file: separated by commas, tabs, semicolons or blanks, whatever its name says.

    R's ``write.table`` leaves out that of the first column, which is then
    empty here. Lines before the table that begin with ``#`` are passed over, as featureCounts writes one.

    Parameters
    ----------
    skip, header
        Lines before the table, and the names of its columns if it has no header.

    Raises
    ------
    DataError
        If the file cannot be read, has one column only, or its header does not fit its rows.
    """
    try:
        encoding = _encoding(path)
        check_packed(path)
        lines = first_lines(path, skip + N_PEEKED, MOST_PEEKED, encoding=encoding)[skip:]
        by_name = "," if ".csv" in path.name.lower() else "\t"
        parsed = {sep: _split(lines, sep) for sep in dict.fromkeys([by_name, ",", "\t", ";", " "])}
    except READ_ERRORS as error:
        raise DataError(f"{path}: cannot be read as a table ({first_line(error)}); save it as UTF-8 text") from None
    fits = {sep: _fit(rows, header) for sep, (_, rows) in parsed.items()}
    # Blanks separate columns where nothing else does.
    sep = max([sep for sep in fits if sep != " "], key=fits.get)
    sep = sep if fits[sep] > (1, True) else " " if fits[" "] > (1, True) else by_name
    skipped, rows = parsed[sep]
    if not rows:
        return Layout(sep, encoding, (), skip, [])
    names = header or rows.pop(0)
    width = _width(names, rows)
    longer = sum(any(map(str.strip, row[len(names) :])) for row in rows)
    # One row that is too long is none of R's tables: who reads the rows names it.
    names = ["", *names] if width == len(names) + 1 and 2 * longer > len(rows) and not header else list(names)
    if width > len(names) and 2 * longer > len(rows):
        raise DataError(f"{path}: {len(names)} names of columns, and {width} values in a row; name each column")
    if len(names) == 1:
        separator = "commas" if by_name == "," else "tabs"
        raise DataError(f"{path}: one column only, {names[0][:40]!r}; separate columns by {separator}")
    words = {",": "commas", "\t": "tabs", ";": "semicolons", " ": "blanks"}
    notes = () if sep == by_name else (f"{path.name} is read as separated by {words[sep]}.",)
    return Layout(sep, encoding, tuple(names), skip + skipped + (header is None), rows, notes)


def _encoding(path: Path) -> str:
    if is_gzipped(path):
        return "utf-8-sig"
    with open(path, "rb") as stream:
        return "utf-16" if stream.read(2) in (codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE) else "utf-8-sig"


def _split(lines: list[str], sep: str) -> tuple[int, list[list[str]]]:
    """Number of lines of comment and of blank lines, and the rows after them, as words."""

    def blank(row: list[str]) -> bool:
        return not any(cell.strip() for cell in row)

    rows = list(csv.reader(lines, delimiter=sep, skipinitialspace=sep == " "))
    if sep == " ":
        rows = [row[:-1] if row and not row[-1] else row for row in rows]
    skipped = 0
    while len(rows) > skipped + 1 and (blank(rows[skipped]) or rows[skipped][0].startswith("#")):
        if (
            not blank(rows[skipped])
            and len(rows[skipped + 1]) - len(rows[skipped]) in (0, 1)
            and len(rows[skipped + 1]) > 1
        ):
            rows[skipped][0] = rows[skipped][0].lstrip("#")
            break
        skipped += 1
    return skipped, [row for row in rows[skipped:] if not blank(row)]


def _width(names: list[str], rows: list[list[str]]) -> int:
    """Number of columns of rows, without those that no name and no value is in, which Excel leaves behind."""
    width = max(map(len, rows), default=len(names))
    while width > len(names) and all(len(row) < width or not row[width - 1].strip() for row in rows):
        width -= 1
    return max(width, len(names))


def _fit(rows: list[list[str]], header: list[str] | None) -> tuple[int, bool]:
    """Columns of rows that have as many as their header, or one more, as R writes them; and whether as many."""
    if not rows:
        return 0, True
    names, *data = [header, *rows] if header else rows
    width = _width(names, data)
    return (width, width == len(names)) if width - len(names) in (0, 1) else (1, False)


def read_parquet(path: Path) -> pd.DataFrame:
    """A table of Parquet with its index, if it is more than the numbers of the rows, as the first columns."""
    table = pd.read_parquet(path)
    return table if isinstance(table.index, pd.RangeIndex) else table.reset_index()


def read_words(path: Path, *, header: list[str] | None = None) -> tuple[pd.DataFrame, list[str]]:
    """A table with every value as a word, without blanks at its ends, and NaN for those of `MISSING`.

    Parameters
    ----------
    path
        CSV or TSV, gzipped or not, Excel (the first sheet), Parquet, or JSON: a list with an object for each row.

    Returns
    -------
    The table, with the row in the file as index, and notes on how it was read.

    Raises
    ------
    DataError
        As `peek`; or if a column has no name, or a name is given twice.
    """
    notes, first_row, suffix = [], 1, path.suffix.lower()
    try:
        if suffix == ".parquet":
            table = read_parquet(path)
            table = table.astype(str).where(table.notna())
        elif suffix == ".json":
            table = pd.DataFrame(json.loads(path.read_text(encoding="utf-8-sig")), dtype=str)
        elif suffix in EXCEL:
            table, first_row = read_workbook(path), 2
        else:
            layout = peek(path, header=header)
            table = read_rows(path, **layout.options, dtype=str, keep_default_na=False)
            table.columns = [*layout.names, *[""] * (table.shape[1] - len(layout.names))]
            notes, first_row = list(layout.notes), layout.skipped + 1
        names = list(table.columns)
    except DataError:
        raise
    except Exception as error:  # noqa: BLE001 - each format's library raises errors of its own on a broken file
        raise DataError(f"{path}: cannot be read as a table ({first_line(error)}); check the file") from None
    if any(padded := [name for name in map(str, names) if name != name.strip()]):
        notes.append(f"Blanks at the ends of names were taken off in {path.name}, as in column {padded[0]!r}.")
    table.columns = [str(name).strip() for name in names]
    padded = table.map(lambda value: isinstance(value, str) and value != value.strip())
    if padded.any(axis=None):
        column = padded.any()[padded.any()].index[0]
        value = table[column][padded[column].to_numpy()].iloc[0]
        notes.append(f"Blanks at the ends of words were taken off in {path.name}, as in {value!r}.")
        table = table.map(lambda value: value.strip() if isinstance(value, str) else value)
    table = table.mask(table.isin(MISSING))
    if unnamed := [i for i, name in enumerate(table) if i and not name and table.iloc[:, i].notna().any()]:
        row = table.index[table.iloc[:, unnamed[0]].notna()][0] + first_row
        raise DataError(f"{path}: row {row}: a value in column {unnamed[0] + 1}, which has no name; name the column")
    kept = [bool(name) or table.iloc[:, i].notna().any() for i, name in enumerate(table)]
    table = table.loc[table.notna().any(axis=1), kept]
    if table.columns.has_duplicates:
        twice = table.columns[table.columns.duplicated()][0]
        raise DataError(f"{path}: column {twice!r}: given twice; keep one, or rename")
    return table.set_axis(table.index + first_row), notes


#: Ends of file names that programs make sample names of.
_ENDINGS = r"(_?Aligned(\.sortedByCoord)?\.out|\.sorted|\.markdup)*\.(bam|sam|cram)$|(\.fq|\.fastq)(\.gz)?$"


def sample_key(name: str) -> str:
    """A sample's name as R's ``make.names``, another case and the path of its alignments would leave it."""
    stem = re.sub(_ENDINGS, "", str(name).replace("\\", "/").rpartition("/")[2])
    return re.sub(r"^x(?=[\d.])", "", genes.normalise_name(stem))


def matching_names(names: pd.Index, ids: pd.Index) -> pd.Index:
    """Sample names of a matrix as the sample table has them, where their form alone differs.

    Names are unchanged that the table does not have, and all where two of either side have the same form.

    Examples
    --------
    >>> import pandas as pd
    >>> from epigen_utils.data import sample_table
    >>> names = pd.Index(["bam/S1.sorted.bam", "X2.a", "other"])
    >>> list(sample_table.matching_names(names, pd.Index(["s1", "2-a"])))
    ['s1', '2-a', 'other']
    """
    names = names.astype(str)
    keys, of_ids = names.map(sample_key), ids.map(sample_key)
    if names.isin(ids).all() or keys.has_duplicates or of_ids.has_duplicates:
        return names
    known = dict(zip(of_ids, ids, strict=True))
    return pd.Index([known.get(key, name) for key, name in zip(keys, names, strict=True)], dtype=object)


def read_samples(
    path: Path,
    *,
    axes: tuple[pd.Index, ...] = (),
    header: list[str] | None = None,
    index: str = "",
    strip: str = "",
    columns: dict[str, str] | None = None,
) -> tuple[pd.DataFrame, list[str]]:
    """Read a sample table: one row per sample.

    Parameters
    ----------
    axes
        Names of the rows and of the columns of the matrix: the ids are in the column that has most of either, the
        first column if none has more.
    header, index, strip, columns
        As in `readers.read_table`.

    Returns
    -------
    The table by sample id, and notes on how it was read.

    Raises
    ------
    DataError
        If it cannot be read, or a sample has no id or is given twice.
    """
    table, notes = read_words(path, header=header)
    if not len(table.columns):
        raise DataError(f"{path}: no samples; give a row or an object for each")
    first = table.columns[0]
    if not index and axes:
        keys = [set(axis.map(sample_key)) for axis in axes]
        hits = {
            column: max(len(axis & set(table[column].dropna().map(sample_key))) for axis in keys) for column in table
        }
        index = max(hits, key=hits.get)
        if index != first:
            notes.append(f"The samples' ids are in column {index!r} of {path.name}, whose values the counts have.")
    ids = table[index or first]
    if strip:
        ids = ids.str.replace(strip, "", regex=True)
    if ids.isna().any():
        raise DataError(f"{path}: row {ids.index[ids.isna()][0]}: no sample id; fill it in")
    table = table.drop(columns=[index or first, *([""] if "" in table and index else [])]).set_index(pd.Index(ids))
    if table.index.has_duplicates:
        twice = table.index[table.index.duplicated()][0]
        raise DataError(f"{path}: sample {twice!r}: given twice; keep one row a sample")
    return (table[list(columns)].rename(columns=columns) if columns else table), notes


def cohort_summary(adata: anndata.AnnData) -> dict[str, object]:
    """A row of the table of cohorts: what the data are, samples, group sizes, donors, genes, depth and detection."""
    about = adata.uns["epigen"]
    values = adata.layers[about["measure"]]
    sizes = adata.obs[about["group"]].value_counts(sort=False) if about.get("group") else {}
    donor = about.get("donor")
    return {
        "cohort": about["name"],
        "data": about["nature"],
        "species": about["species"].replace("_", " ").capitalize(),
        "samples": adata.n_obs,
        "groups": ", ".join(f"{name} {size}" for name, size in sizes.items()),
        "donors": str(adata.obs[donor].nunique()) if donor else "not stated",
        "genes": adata.n_vars,
        "median depth": float(np.median(np.asarray(values.sum(axis=1)))),
        "median genes detected": float(np.median(np.asarray((values > 0).sum(axis=1)))),
    }


#: File of ``data/``: metadata that an analyst needs, and the names of their columns in sample tables.
METADATA_FILE = "metadata_columns.yml"


def _metadata_column(adata: anndata.AnnData, field: str) -> str | None:
    """Column of the sample table that holds a field of ``data/metadata_columns.yml``, other than the group."""
    about = adata.uns["epigen"]
    if field == "donor" and about.get("donor"):
        return about["donor"]
    column = _column_of_field(adata.obs.drop(columns=about.get("group", []), errors="ignore"), field)
    # A column with one value per sample is an accession, not a batch.
    return None if field == "batch" and column is not None and adata.obs[column].nunique() == adata.n_obs else column


def _column_of_field(table: pd.DataFrame, field: str) -> str | None:
    columns = {str(column).lower(): column for column in table.columns}
    return next((columns[name] for name in registry.read_data_file(METADATA_FILE)[field] if name in columns), None)


def stated_treatments(adata: anndata.AnnData) -> list[str] | None:
    """The treatments that the samples are described with: by the sample table, else by GEO's, if the series is there.

    Returns
    -------
    Distinct values; None if neither table has one, which says nothing of how samples were treated.
    """
    # The group, too, says how samples were treated.
    if stated := _values_of_field(adata.obs, "treatment"):
        return stated
    entry = registry.entries().get(adata.uns["epigen"]["name"])
    if entry is None or "series" not in entry.files:
        return None
    return _values_of_field(geo.read_sample_table(fetching.fetch(entry.name)["series"]), "treatment")


def _values_of_field(table: pd.DataFrame, field: str) -> list[str] | None:
    column = _column_of_field(table, field)
    return None if column is None else sorted(table[column].dropna().astype(str).unique()) or None


def read_column(
    adata: anndata.AnnData, name: str | None, *, role: str, dataset_name: str, complete: bool = False
) -> pd.Series:
    """A column of the sample table, as strings; NaN where a value is missing.

    Parameters
    ----------
    role
        Role of the column, such as ``donor``, for the message.
    dataset_name
        Name of the data set, for the message.
    complete
        Whether every sample must have a value.

    Raises
    ------
    DataError
        If the column does not exist, or lacks a value that it must have.
    """
    if name not in adata.obs:
        columns = schema.listed_columns(adata)
        raise DataError(f"{dataset_name}: no {role} column {name!r}; name one that is there ({columns})")
    values = adata.obs[name].astype(object).map(str, na_action="ignore")
    if complete and values.isna().any():
        sample = adata.obs_names[values.isna()][0]
        raise DataError(f"{dataset_name}: sample {sample!r} lacks a value of {name!r}; fill it in, or drop the sample")
    return values


def count_with_field(adata: anndata.AnnData, field: str) -> int:
    """Number of samples with a value of a field of ``data/metadata_columns.yml``; 0 if no column holds it."""
    column = _metadata_column(adata, field)
    return 0 if column is None else int(adata.obs[column].notna().sum())


def missing_metadata(adata: anndata.AnnData) -> dict[str, str]:
    """For each field of ``data/metadata_columns.yml``: its column and the samples without a value, or ``missing``."""
    row = {"cohort": adata.uns["epigen"]["name"]}
    for field in registry.read_data_file(METADATA_FILE):
        column = _metadata_column(adata, field)
        empty = adata.n_obs - count_with_field(adata, field)
        row[field] = "missing" if column is None else f"{column}, {empty} empty" if empty else str(column)
    return row
