"""Load a data set by name or path into an AnnData that satisfies the contract of `epigen_utils.data.schema`.

``load("airway")`` loads a data set of the registry; ``load("my.h5ad", group="condition")`` or
``load("counts.csv", metadata="samples.csv", group="condition")`` loads a user's own file.
"""

import hashlib
from collections.abc import Iterator
from pathlib import Path

import anndata
import numpy as np
import pandas as pd
from scipy import sparse

from epigen_utils.data import cell_source, converters, fetching, genes, geo, readers, registry, sample_table, schema
from epigen_utils.errors import DataError, suggest
from epigen_utils.files import check_regular, sha256

#: What the message says of formats of cells.
CELL_FORMATS = ".h5, .loom, .zarr, .rds or a folder of 10x Genomics"
#: A dense matrix with more values than this is stored sparse.
MAX_DENSE_VALUES = 20_000_000


def load(
    name_or_path: str | Path,
    *,
    metadata: str | Path = "",
    group: str = "",
    reference: str = "",
    donor: str = "",
    batch: str = "",
    species: str = "",
    genes_in: str = "",
    task: str = "",
    round_counts: bool = False,
    size_factors: str = "",
) -> anndata.AnnData:
    """Load and check a data set.

    Parameters
    ----------
    name_or_path
        A name of ``data/registry.yml``, or the path of an h5ad, CSV, TSV (gzipped or not) or Excel file.
    metadata
        Sample table of a CSV, TSV or Excel file: one row per sample.
    group, reference, donor, batch
        Column of the groups, reference level of the comparisons, columns of the donors and of the experiments; the
        registry's by default.
    species
        Species of a user's file, such as ``mus_musculus`` or mouse (`genes.species_named`); needed only for orthologs.
    genes_in
        ``rows`` or ``columns`` of a user's file; inferred if empty (`readers.read_table`). ``rows:COLUMN`` also names
        the column of ids, if it is not the first.
    task
        Requirements to check (`schema.TASKS`); by default ``intensity`` for arrays, ``groups`` if a group column is
        named, else ``counts``.
    round_counts
        Whether to round counts that are estimates, such as RSEM's or salmon's, to integers.
    size_factors
        How the samples' depths are estimated: ``ratio`` (the default), or ``poscounts`` for data in which no gene is
        detected in every sample (`deseq.size_factors.log_geometric_means`).

    Returns
    -------
    AnnData, samples x genes; ``uns["epigen"]`` describes the data and gives the SHA-256 of each file read.

    Raises
    ------
    DataError
        In one line: the file, the place in it and the repair.

    Examples
    --------
    >>> from epigen_utils.data import datasets
    >>> adata = datasets.load("table-two")
    >>> adata.shape
    (12, 20)
    >>> adata.obs["condition"].value_counts().to_dict()
    {'mutant': 9, 'WT': 3}
    >>> adata.uns["epigen"]["licence"]
    'facts of a publication'
    """
    name = str(name_or_path)
    path, metadata = Path(name), str(metadata)
    is_user_file = name not in registry.entries() and (path.suffix != "" or path.exists())
    if is_user_file:
        adata, about = _load_user_file(path, Path(metadata) if metadata else None, genes_in, round_counts)
    elif metadata:
        raise DataError(f"{name}: a data set of the registry has its own sample table; leave metadata out")
    else:
        adata, about = _load_registered(name)
    if size_factors and size_factors not in schema.SIZE_FACTORS:
        raise DataError(f"size_factors {size_factors!r}: {suggest(size_factors, schema.SIZE_FACTORS)}")
    overrides = {"group": group, "reference": reference, "donor": donor, "batch": batch, "size_factors": size_factors}
    overrides["species"] = genes.species_named(species) if str(species) else ""
    # Of a column or level named 0 or False.
    about |= {key: str(value) for key, value in overrides.items() if str(value)}
    if about.get("reference") and about.get("group") in adata.obs:
        levels = adata.obs[about["group"]].dropna()
        about["reference"] = schema.find_level(levels, about["reference"]) or about["reference"]
    adata.uns["epigen"] = about
    if (
        round_counts
        and about["measure"] == "counts"
        and np.isfinite(schema.stored_values(adata.layers["counts"])).all()
        and not _are_too_large(adata.layers["counts"])
    ):
        if not _are_integers(adata.layers["counts"]):
            if schema.may_be_logarithms(values := schema.stored_values(adata.layers["counts"])):
                what = f"the largest value is {values.max():g}: these are logarithms, not estimates of counts"
                raise DataError(f"{name}: round_counts: {what}; give the counts")
            schema.add_note(about, "Counts are estimates, and rounded (parameter round_counts).")
        adata.layers["counts"] = _round_to_integers(adata.layers["counts"])
    if task and task not in schema.TASKS:
        raise DataError(f"task {task!r}: {suggest(task, schema.TASKS)}")
    if not task:
        task = "intensity" if about["measure"] == "intensity" else "groups" if about.get("group") else "counts"
    problems = schema.check(adata, task=task)
    if about.get("kind") == "bulk" and not problems and task in ("groups", "donors"):
        problems = schema.check_comparable(adata)
    if problems:
        more = f" (and {len(problems) - 1} more)" if len(problems) > 1 else ""
        raise DataError(f"{name}: {problems[0]}{more}")
    if group := about.get("group"):
        levels = adata.obs[group].astype(object).map(str, na_action="ignore")
        reference_first = [about["reference"]] if about.get("reference") in set(levels) else []
        adata.obs[group] = pd.Categorical(levels, list(dict.fromkeys([*reference_first, *levels.dropna()])))
    if (donor := about.get("donor")) in adata.obs:
        # Numbers of donors are names, not quantities.
        adata.obs[donor] = pd.Categorical(adata.obs[donor].astype(object).map(str, na_action="ignore"))
    if about.get("kind") == "bulk":
        schema.plain_numbers(adata, (about.get("group"), donor, about.get("batch")))
    return adata


def _load_registered(name: str) -> tuple[anndata.AnnData, dict]:
    entry = registry.entry(name)
    if entry.kind not in ("bulk", "cells"):
        raise DataError(f"{name}: is {entry.kind}, not an expression matrix; take its files with fetching.fetch")
    simulated = next((spec for spec in entry.files.values() if spec.source == "simulated"), None)
    if simulated:
        # Imported here, so that only runs on simulated data depend on these modules (`notebooks.imported_modules`).
        from epigen_utils.data import simulated_bulk, simulated_cells

        arguments = dict(simulated.args)
        if "base" in arguments:
            arguments["base"] = load(arguments["base"])
        adata = getattr({"bulk": simulated_bulk, "cells": simulated_cells}[entry.kind], simulated.simulated)(
            **arguments
        )
        hashes = {"simulated": _sha256_of(adata.layers["counts"])}
    else:
        inputs = fetching.fetch(name)
        adata = readers.READERS[entry.read](inputs, **entry.options)
        if entry.measure == "counts":
            adata, _ = cell_source.take_counts(adata, name)
        adata = _standardise(adata, entry.measure, name)
        hashes = {role: sha256(path) for role, path in inputs.items()}
    design = {"group": entry.group, "reference": entry.reference, "donor": entry.donor, "batch": entry.batch}
    about = entry.facts | {"measure": entry.measure, "sha256": hashes}
    return adata, about | {key: value for key, value in design.items() if value}


def check_stated(name: str) -> Iterator[tuple[bool, str]]:
    """Compare a data set of the registry with the numbers that publications state of it (`registry.Stated`).

    Yields
    ------
    Whether a number holds, and a line with the number found and the one stated; of data that cannot be read, False and
    the reason.
    """
    for numbers in (_stated_records, _stated_samples):
        try:
            for what, found, stated in numbers(registry.entry(name)):
                low, _, high = str(stated).partition("..")
                holds = int(low) <= found <= int(high or low)
                yield holds, f"{name}: {what}: {found:,}, stated {stated}: {'holds' if holds else 'DOES NOT HOLD'}"
        except DataError as error:
            yield False, f"{name}: what is stated of it cannot be checked: {error}"


def _stated_records(entry: registry.Entry) -> Iterator[tuple[str, int, int | str]]:
    for role, stated in entry.stated.records.items():
        yield f"records of {role}", _count_records(fetching.fetch(entry.name)[role], entry.stated.keep), stated


def _count_records(path: Path, keep: dict[str, list[str]]) -> int:
    """Samples of a series matrix, rows of a folder of Arrow that have the values of ``keep``, or rows of a table."""
    if path.name.endswith("_series_matrix.txt.gz"):
        return len(geo.read_sample_table(path))
    if not path.is_dir():
        return len(pd.read_csv(path, sep="\t"))
    # Here, as no other data set is published as Arrow.
    import datasets as arrow
    import pyarrow as pa

    try:
        stored = arrow.load_from_disk(str(path))
        n_kept = 0
        for batch in stored.data.select(list(keep)).to_batches() if keep else ():
            kept = [batch[column].to_pandas().isin(values) for column, values in keep.items()]
            n_kept += int(np.all(kept, axis=0).sum())
        return n_kept if keep else len(stored)
    except (pa.ArrowInvalid, KeyError, OSError, ValueError) as error:
        reason = str(error).splitlines()[0]
        raise DataError(
            f"{path}: cannot be read as a folder of Arrow ({reason}); delete {path.parent}, fetch it again"
        ) from None


def _stated_samples(entry: registry.Entry) -> Iterator[tuple[str, int, int | str]]:
    stated = entry.stated
    if not (stated.samples or stated.table):
        return
    adata = load(entry.name)
    for level, number in stated.samples.items():
        yield f"samples of {entry.group} {level}", int((adata.obs[entry.group] == level).sum()), number
    if stated.table:
        table = load(stated.table)
        genes = table.var_names.intersection(adata.var_names)
        yield f"genes of {stated.table}", len(genes), table.n_vars
        ours, theirs = (sparse.csr_matrix(a[:, genes].layers["counts"]).toarray().tolist() for a in (adata, table))
        found = sum(counts in ours for counts in theirs) if len(genes) else 0
        yield f"samples of {stated.table} with its counts", found, table.n_obs


def _sha256_of(values: np.ndarray | sparse.csr_matrix) -> str:
    digest = hashlib.sha256()
    for part in (values.indptr, values.indices, values.data) if sparse.issparse(values) else (values,):
        digest.update(np.ascontiguousarray(part).tobytes())
    return digest.hexdigest()


def _load_user_file(
    path: Path, metadata: Path | None, genes_in: str, round_counts: bool
) -> tuple[anndata.AnnData, dict]:
    if genes_in not in ("", "rows", "columns") and not genes_in.startswith(("rows:", "columns:")):
        raise DataError(f"genes_in {genes_in!r}: write rows or columns, or leave it empty")
    cell_format = converters.cell_format(path) if path.exists() else ""
    for file in filter(None, (path, metadata)):
        if file.is_dir() and not (file == path and (cell_format or converters.count_files(path))):
            raise DataError(f"{file}: is a directory; give a file, or a folder of 10x Genomics, zarr, HTSeq or STAR")
        if not file.exists():
            raise DataError(f"{file}: no such file; check the path")
        if not file.is_dir():
            check_regular(file)
    suffix = "".join(path.suffixes[-2:] if path.suffix.lower() == ".gz" else path.suffixes[-1:]).lower()
    about = readers.describe_user_file(path)
    if suffix == ".h5ad" or cell_format:
        if metadata and not cell_format:
            raise DataError(f"{metadata}: an h5ad has its own sample table (obs); leave metadata out")
        read = converters.read_cells(path) if cell_format else readers.read_h5ad({"counts": path}, genes_in=genes_in)
        adata, notes = readers.without_other_rows(read)
        try:
            padded = schema.without_blanks(adata)
        except DataError as error:
            raise DataError(f"{path}: {error}") from None
        if padded:
            notes.append(f"Blanks at the ends of words were taken off: {', '.join(padded)}.")
    elif path.is_dir() or suffix in sample_table.EXCEL or suffix.removesuffix(".gz") in (".csv", ".tsv", ".txt"):
        inputs = {"counts": path} | ({"samples": metadata} if metadata else {})
        adata = readers.read_table(inputs, genes_in=genes_in)
        notes = adata.uns.pop("notes")
    else:
        formats = f".h5ad, .csv, .tsv (also .gz) or .xlsx, or of cells {CELL_FORMATS}"
        raise DataError(f"{path}: {suffix or 'no'} suffix; give {formats}")
    genes.check_dates(path, adata.var_names)
    if metadata and cell_format:
        table, said = sample_table.read_samples(metadata, axes=(adata.obs_names,))
        n_found = int(adata.obs_names.isin(table.index).sum())
        if not n_found:
            here, there = (next(iter(index), "none") for index in (table.index, adata.obs_names))
            names = f"cells are {here!r} here and {there!r} there"
            raise DataError(f"{metadata}: has no cell of {path.name}: {names}; name them as there")
        if (both := adata.obs.columns.intersection(table.columns)).size:
            said = [*said, f"The table's columns replace those of {path.name}: {', '.join(both)}."]
        adata.obs = adata.obs.drop(columns=both).join(table)
        notes += [*said, f"{n_found:,} of {adata.n_obs:,} cells are in the table."]
    if suffix == ".h5ad" or cell_format:
        adata, of_counts = cell_source.take_counts(adata, str(path), estimated=round_counts)
        adata, of_features = cell_source.genes_alone(adata)
        notes += filter(None, (of_counts, of_features, cell_source.index_by_ensembl_ids(adata, str(path))))
    for note in notes:
        schema.add_note(about, note)
    about["genes_in"] = adata.uns.pop("genes_in", "columns, as an h5ad has them")
    files = {file.name: file for file in filter(None, (path, metadata)) if file.is_file()}
    files |= {str(file.relative_to(path)): file for file in sorted(path.rglob("*")) if file.is_file()}
    about["sha256"] = {name: sha256(file) for name, file in files.items()}
    adata = _standardise(adata, "counts", str(path))
    about["kind"], evidence = cell_source.kind_of(adata)
    if about["kind"] == "cells":
        schema.add_note(about, evidence)
        if adata.obs_names.has_duplicates:
            adata.obs_names_make_unique()
            schema.add_note(about, "Names of cells that are given more than once were made unique by a number.")
    return adata, about


def _standardise(adata: anndata.AnnData, measure: str, where: str) -> anndata.AnnData:
    """Move the values to the layer of the contract; integer-valued floats become integers, large matrices sparse."""
    if measure not in adata.layers:
        if adata.X is None:
            places = "layers['counts'], X or raw.X"
            raise DataError(f"{where}: no counts in {places}; put the raw counts in layers['counts']")
        adata.layers[measure] = adata.X
    values = adata.layers[measure]
    adata.uns["share_of_integers"] = _share_of_integers(values)
    if measure == "counts" and _are_integers(values):
        values = _round_to_integers(values)
    if not sparse.issparse(values) and values.size > MAX_DENSE_VALUES:
        values = sparse.csr_matrix(values)
    adata.layers[measure] = values
    adata.X = None
    if "symbol" not in adata.var:
        column = next((column for column in ("gene_symbol", "gene_name", "gene_symbols") if column in adata.var), None)
        adata.var["symbol"] = adata.var[column].astype(str) if column else adata.var_names.astype(str)
    if "ensembl_id" not in adata.var and readers.mostly_ensembl_ids(adata.var_names):
        is_ensembl = adata.var_names.str.match(readers.ENSEMBL_GENE_ID)
        adata.var["ensembl_id"] = readers.without_ensembl_version(adata.var_names).where(is_ensembl, "")
    return adata


def _are_integers(values) -> bool:
    data = schema.stored_values(values)
    if _are_too_large(values):
        return False
    if np.issubdtype(data.dtype, np.integer):
        return True
    return bool(np.issubdtype(data.dtype, np.number) and np.isfinite(data).all() and schema.are_integers(data).all())


def _are_too_large(values) -> bool:
    """Whether there is a value that `schema.check` refuses, and that no integer may stand for."""
    data = schema.stored_values(values)
    return bool(np.issubdtype(data.dtype, np.number) and (data > schema.LARGEST_COUNT).any())


def _share_of_integers(values) -> float:
    """Share of integers among the non-zero values of the file, before any rounding."""
    data = schema.stored_values(values)
    if not np.issubdtype(data.dtype, np.number) or not (data != 0).any():
        return 0.0
    return float(schema.are_integers(data[data != 0], 0).mean())


def _round_to_integers(values):
    if sparse.issparse(values):
        values = values.copy()
        values.data = np.rint(values.data)
        return values.astype(np.int64)
    return np.rint(values).astype(np.int64)
