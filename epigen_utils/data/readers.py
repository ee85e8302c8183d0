"""Readers of expression files into AnnData: text tables, h5ad and GCT, with genes in rows or in columns."""

import functools
import itertools
import re
import warnings
from collections import Counter
from pathlib import Path

import anndata
import numpy as np
import pandas as pd

from epigen_utils.containers import check_hdf5, read_rows
from epigen_utils.data import converters, sample_table, schema
from epigen_utils.errors import DataError, first_line

#: Ensembl gene id.
ENSEMBL_GENE_ID = r"ENS[A-Z]*G\d+"


#: Rows that counting programs write beside the genes: HTSeq's, STAR's and featureCounts'.
_NO_GENES = (
    r"(__)?(no_feature|ambiguous|too_low_aQual|not_aligned|alignment_not_unique)"
    r"|N_(unmapped|multimapping|noFeature|ambiguous)|Unassigned_\w+"
)
#: Names of columns of gene ids, and of what else is said of genes, without dots, blanks, hyphens, underscores and case.
_ID_COLUMNS = ("geneid", "ensemblgeneid", "ensemblid", "ensembl", "gene", "id", "featureid", "targetid", "name")
_SYMBOL_COLUMNS = ("genename", "genesymbol", "symbol", "externalgenename", "hgncsymbol", "mgisymbol")
_GENE_COLUMNS = (
    *("length", "genelength", "effectivelength", "chr", "chrom", "chromosome", "seqname", "start", "end", "strand"),
    *("biotype", "genebiotype", "genetype", "description", "entrezid", "entrezgene", "entrezgeneid", "ncbigeneid"),
    *("txid", "transcriptid", "transcriptids", "exoncount"),
)


def _bare(name: object) -> str:
    return re.sub(r"[\W_]", "", str(name)).lower()


def _infer_orientation(frame: pd.DataFrame, samples: pd.DataFrame | None) -> str:
    """Orientation of a table, ``rows`` or ``columns`` of genes, and the evidence for it."""
    axes = {"rows": (frame.index, frame.columns), "columns": (frame.columns, frame.index)}
    if samples is not None:
        n_samples = {
            side: sample_table.matching_names(names, samples.index).isin(samples.index).sum()
            for side, (_ids, names) in axes.items()
        }
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
            raise DataError(f"{path}: {where}: {frame.loc[bad, column].iloc[0]!r} is not a number; correct the cell")
    # Without coercion, pandas stops at an integer of more than 64 bits, which `schema.check` names.
    return frame.apply(pd.to_numeric, errors="coerce") if any(is_text) else frame


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
        ``rows`` or ``columns``; if empty, inferred from the sample table, the Ensembl ids or the shape, in this order;
        after a colon, the name of the column of ids (``rows:gene_id``), which is otherwise the first, or that of
        Ensembl's ids.
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
    genes_in, _, id_column = genes_in.partition(":")
    frame, notes = _read_counts(path, skip_rows, header, id_column)
    if drop_rows:
        frame = frame[~frame.index.astype(str).str.match(drop_rows)]
    about_genes = pd.DataFrame({"symbol": frame[symbol].astype(str)} if symbol else {}, index=frame.index)
    frame = frame.drop(columns=[*(drop or []), *([symbol] if symbol else [])])
    samples = None
    if "samples" in inputs:
        options = {"header": sample_header, "index": sample_index, "strip": strip, "columns": sample_columns}
        samples, said = sample_table.read_samples(inputs["samples"], axes=(frame.index, frame.columns), **options)
        notes += said
    orientation = f"{genes_in}, as given" if genes_in else _infer_orientation(frame, samples)
    genes_in_rows = orientation.startswith("rows")
    if genes_in_rows and not (symbol or drop):
        frame, about_genes, said = _without_gene_columns(frame, () if samples is None else samples.index)
        notes += said
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
    if genes_in_rows:
        adata.var = about_genes.set_axis(adata.var_names)
    adata, said = without_other_rows(adata)
    notes += said
    adata.uns["genes_in"] = orientation
    if samples is not None:
        names = sample_table.matching_names(adata.obs_names, samples.index)
        if (renamed := adata.obs_names[names != adata.obs_names]).size:
            here = names[names != adata.obs_names][0]
            notes.append(f"Samples are named as in the sample table: {renamed[0]!r} of the counts is {here!r} there.")
            adata.obs_names = names
        if subset == "both":
            adata = adata[adata.obs_names.isin(samples.index)].copy()
        adata.obs = _join_samples(inputs, adata.obs_names, samples, bool(subset))
    for column, recoding in (recode or {}).items():
        adata.obs[column] = _recode(inputs["samples"], adata.obs[recoding["from"]], recoding["levels"])
    adata = _with_labels(path, adata, labels)
    if donor_pattern:
        adata.obs["donor"] = adata.obs_names.str.extract(donor_pattern, expand=False).to_numpy()
    adata.uns["notes"] = notes
    return adata


def _read_counts(
    path: Path, skip_rows: int, header: list[str] | None, id_column: str
) -> tuple[pd.DataFrame, list[str]]:
    """A matrix with its ids as index, and notes; missing values are NaN, but an id may be NA or nan."""
    if path.is_dir():
        return converters.read_count_files(path)
    if path.suffix == ".parquet":
        frame = sample_table.read_parquet(path)
        frame = frame.set_index(frame.columns[0])
        return frame.set_axis(frame.index.astype(str)), []
    is_excel = path.suffix.lower() in sample_table.EXCEL
    if is_excel:
        frame, notes = sample_table.read_words(path)
        names, rows = tuple(frame.columns), frame.head(sample_table.N_PEEKED).fillna("").to_numpy().tolist()
        frame.columns = range(len(names))
    else:
        layout = sample_table.peek(path, skip=skip_rows, header=header)
        names, rows, notes = tuple(name.strip() for name in layout.names), layout.rows, list(layout.notes)
        if padded := [name for name in layout.names if name != name.strip()]:
            notes.append(f"Blanks at the ends of names were taken off in {path.name}, as in {padded[0]!r}.")
    twice = [name for name, times in Counter(names).items() if times > 1 and name]
    if twice:
        raise DataError(f"{path}: sample {twice[0]!r}: given {names.count(twice[0])} times; keep one, or rename")
    if id_column and id_column not in names:
        raise DataError(f"{path}: no column {id_column!r} of ids; columns: {', '.join(names[:8])}")
    position = names.index(id_column) if id_column else _id_position(names, rows)
    if position:
        asked = "as given" if id_column else "write rows:COLUMN for another (parameter genes_in)"
        notes.append(f"Ids are taken from column {names[position]!r}, {asked}.")
    if not is_excel:
        # A converter leaves ids as they are; missing values by column, and reading in parts, cost seconds where a table
        # has a column a gene.
        options = layout.options | {"keep_default_na": False, "na_values": sample_table.MISSING, "low_memory": False}
        options["converters"] = {position: str}
        try:
            frame = read_rows(path, **options) if names else pd.DataFrame(columns=[0])
        except sample_table.READ_ERRORS as error:
            raise DataError(f"{path}: cannot be read as a table ({first_line(error)}); check the file") from None
        frame.index += layout.skipped + 1  # the lines of the file
    written = frame.notna().to_numpy() & (frame != "").to_numpy()
    frame, written = frame[written.any(axis=1)], written[written.any(axis=1)]
    names = names or ("gene",)
    names += ("",) * (frame.shape[1] - len(names))
    numbers = [i for i in range(position) if _counts_up(rows, i)]
    for i in (i for i, name in enumerate(names) if not name and i not in (position, *numbers) and written[:, i].any()):
        row = frame.index[written[:, i].argmax()]
        raise DataError(f"{path}: row {row}: a value in column {i + 1}, which has no name; name the column")
    ids = frame[position].fillna("").astype(str).str.strip()
    if (ids == "").any():
        raise DataError(f"{path}: row {ids.index[ids == ''][0]}: no gene id; fill it in")
    kept = [i for i, name in enumerate(names) if name and i not in (position, *numbers)]
    index = pd.Index(ids.to_numpy(), name=names[position] or "gene")
    return frame[kept].set_axis([names[i] for i in kept], axis=1).set_axis(index), notes


def _counts_up(rows: list[list[str]], column: int) -> bool:
    """Whether a column holds the numbers of the rows, from 0 or 1, as data frames are written."""
    values = [row[column].strip() for row in rows if len(row) > column]
    return len(values) > 2 and any(values == [str(i) for i in range(k, k + len(values))] for k in (0, 1))


def _id_position(names: tuple[str, ...], rows: list[list[str]]) -> int:
    """Position of the column of ids: that of Ensembl's, or the next one of words where the first counts the rows."""

    def column(position: int) -> pd.Series:
        return pd.Series([row[position].strip() for row in rows if len(row) > position], dtype=str)

    of_genes = [i for i, name in enumerate(names) if _bare(name) in (*_ID_COLUMNS, *_SYMBOL_COLUMNS)]
    if of_genes and names and not mostly_ensembl_ids(column(0)):
        for position in of_genes:
            if mostly_ensembl_ids(column(position)):
                return position
    if names and _counts_up(rows, 0):
        for position in range(1, len(names)):
            if pd.to_numeric(column(position), errors="coerce").isna().mean() > 0.5:
                return position
    return 0


def _without_gene_columns(frame: pd.DataFrame, samples) -> tuple[pd.DataFrame, pd.DataFrame, list[str]]:
    """A matrix without the columns that say something of genes, those columns as a table of genes, and a note.

    They stand before or after the samples; ``samples`` are the names of the sample table.
    """
    names, known = list(frame), set(map(sample_table.sample_key, samples))
    bare = list(map(_bare, names))
    kinds = {*_ID_COLUMNS, *_SYMBOL_COLUMNS, *_GENE_COLUMNS}
    if ("start", "end") not in itertools.pairwise(bare):
        kinds -= {"start", "end"}  # of a treatment, not of a gene
    is_sample = [
        word not in kinds or sample_table.sample_key(name) in known for name, word in zip(names, bare, strict=True)
    ]
    found = []
    if any(is_sample):
        found = names[: is_sample.index(True)] + names[len(names) - is_sample[::-1].index(True) :]
    about = frame[found].copy()
    symbols = next((name for name in found if _bare(name) in _SYMBOL_COLUMNS), None) or next(
        (name for name in found if _bare(name) in _ID_COLUMNS and not pd.api.types.is_numeric_dtype(frame[name])), None
    )
    if symbols:
        words = about.pop(symbols)
        about.insert(0, "symbol", words.where(words.notna(), frame.index.to_series()).astype(str).str.strip())
    for name in about:
        if not pd.api.types.is_numeric_dtype(about[name]):
            about[name] = about[name].astype(str)
    columns = "column" if len(found) == 1 else "columns"
    said = [f"Of genes, not samples: {columns} {', '.join(found)}; rename what is a sample."] if found else []
    return frame.drop(columns=found), about, said


def without_other_rows(adata: anndata.AnnData) -> tuple[anndata.AnnData, list[str]]:
    """A data set without the rows that counting programs write beside the genes, and a note that names them."""
    others = np.array([bool(re.fullmatch(_NO_GENES, name)) for name in adata.var_names.astype(str)], bool)
    if not others.any():
        return adata, []
    names = ", ".join(adata.var_names[others])
    return adata[:, ~others].copy(), [f"Rows that are no genes are left out: {names}."]


def _recode(path: Path, values: pd.Series, levels: dict[str, str]) -> list[str]:
    if len(other := values[~values.isin(list(levels))]):
        raise DataError(
            f"{path}: sample {other.index[0]!r}: {other.iloc[0]!r} is none of {', '.join(levels)}; correct recode"
        )
    return [levels[value] for value in values]


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
    raise DataError(f"{path}: sample {name!r} matches none of {', '.join(levels)}; correct the labels in the registry")


def read_h5ad(
    inputs: dict[str, Path], *, genes_in: str = "", var_index: str = "", labels: dict | None = None
) -> anndata.AnnData:
    """Read an AnnData file; ``var_index`` names the column of ``var`` that holds the stable gene id.

    A file with genes in rows is transposed if ``genes_in`` is ``rows``, or if it is empty and only the rows have
    Ensembl ids.
    """
    path = inputs["counts"]
    try:
        check_hdf5(path)
        with warnings.catch_warnings():
            # `schema.check` reports the duplicated name.
            warnings.filterwarnings("ignore", message=".* names are not unique")
            adata = anndata.read_h5ad(path)
    except DataError:
        raise
    except Exception as error:  # noqa: BLE001 - anndata and h5py raise what the bytes of a broken file lead to
        raise DataError(f"{path}: cannot be read as h5ad ({first_line(error)}); check the file") from None
    schema.check_matrices(str(path), adata)
    if genes_in == "rows" or (
        not genes_in and mostly_ensembl_ids(adata.obs_names) and not mostly_ensembl_ids(adata.var_names)
    ):
        adata = adata.T.copy()
        adata.uns["genes_in"] = f"rows, {'as given' if genes_in else 'which have Ensembl ids'}"
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
