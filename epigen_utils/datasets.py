"""A name or a path becomes an AnnData that keeps the contract of `epigen_utils.schema`.

``load("airway")`` takes a data set of the registry; ``load("my.h5ad", group="condition")`` or
``load("counts.csv", metadata="samples.csv", group="condition")`` takes one of the user's own.
"""

import hashlib
from pathlib import Path

import anndata
import numpy as np
import pandas as pd
from scipy import sparse

from epigen_utils import readers, registry, schema
from epigen_utils.errors import DataError, closest
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
    batch: str = "",
    species: str = "",
    genes_in: str = "",
    task: str = "",
) -> anndata.AnnData:
    """Load and check a data set.

    Parameters
    ----------
    name_or_path
        A name of ``data/registry.yml``, or the path of an h5ad, CSV or TSV file (ids in the first column), gzipped or not.
    metadata
        For CSV and TSV: a table with a row a sample, sample ids in the first column.
    group, reference, donor, batch
        Column of the groups, the level that others are compared with, columns of the donors and of the experiments; the registry's by
        default.
    species
        Of a data set of one's own, as the registry writes it (``mus_musculus``); needed only for orthologs.
    genes_in
        ``rows`` or ``columns`` of a file of one's own; empty to find out (`readers.read_table`).
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
        adata, about = _load_own(path, Path(metadata) if metadata else None, genes_in)
    elif metadata:
        raise DataError(f"{name}: a data set of the registry has its own sample table; leave metadata out")
    else:
        adata, about = _load_registered(name)
    given = {"group": group, "reference": reference, "donor": donor, "batch": batch, "species": species}
    about |= {key: value for key, value in given.items() if value}
    adata.uns["epigen"] = about
    if task and task not in schema.TASKS:
        raise DataError(f"task {task!r}: {closest(task, schema.TASKS)}")
    if not task:
        task = "intensity" if about["measure"] == "intensity" else "groups" if about.get("group") else "counts"
    if problems := schema.check(adata, task=task):
        more = f" (and {len(problems) - 1} more)" if len(problems) > 1 else ""
        raise DataError(f"{name}: {problems[0]}{more}")
    if group := about.get("group"):
        levels = adata.obs[group].astype(str)
        first = [about["reference"]] if about.get("reference") else []
        adata.obs[group] = pd.Categorical(levels, [*first, *(x for x in dict.fromkeys(levels) if x not in first)])
    if (donor := about.get("donor")) in adata.obs:
        # A donor's number is a name.
        adata.obs[donor] = pd.Categorical(adata.obs[donor].astype(object).map(str, na_action="ignore"))
    return adata


def _load_registered(name: str) -> tuple[anndata.AnnData, dict]:
    entry = registry.entry(name)
    if entry.kind not in ("bulk", "cells"):
        raise DataError(f"{name}: is {entry.kind}, not an expression matrix; take its files with registry.fetch")
    simulated = [spec for spec in entry.files.values() if spec.source == "simulated"]
    if simulated:
        from epigen_utils import simulate

        adata = getattr(simulate, simulated[0].simulated)(**simulated[0].args)
        hashes = {"simulated": _sha256_of(adata.layers["counts"])}
    else:
        found = registry.fetch(name)
        adata = _finish(readers.READERS[entry.read](found, **entry.options), entry.measure, name)
        hashes = {role: sha256(path) for role, path in found.items()}
    keep = {"group": entry.group, "reference": entry.reference, "donor": entry.donor, "batch": entry.batch}
    about = {
        "name": name,
        "title": entry.title,
        "nature": entry.nature,
        "species": entry.species,
        "measure": entry.measure,
    }
    about |= {"licence": entry.licence, "citation": entry.citation, "sha256": hashes}
    return adata, about | {key: value for key, value in keep.items() if value}


def _sha256_of(values: np.ndarray | sparse.csr_matrix) -> str:
    digest = hashlib.sha256()
    for part in (values.indptr, values.indices, values.data) if sparse.issparse(values) else (values,):
        digest.update(np.ascontiguousarray(part).tobytes())
    return digest.hexdigest()


def _load_own(path: Path, metadata: Path | None, genes_in: str) -> tuple[anndata.AnnData, dict]:
    if genes_in not in ("", "rows", "columns"):
        raise DataError(f"genes_in {genes_in!r}: write rows or columns, or leave it empty")
    for wanted in filter(None, (path, metadata)):
        if wanted.is_dir():
            raise DataError(f"{wanted}: is a directory; give a file")
        if not wanted.is_file():
            raise DataError(f"{wanted}: no such file; check the path")
    suffix = "".join(path.suffixes[-2:] if path.suffix == ".gz" else path.suffixes[-1:]).lower()
    if suffix == ".h5ad":
        if metadata:
            raise DataError(f"{metadata}: an h5ad has its own sample table (obs); leave metadata out")
        adata = readers.read_h5ad({"counts": path}, genes_in=genes_in)
    elif suffix.removesuffix(".gz") in (".csv", ".tsv", ".txt"):
        found = {"counts": path} | ({"samples": metadata} if metadata else {})
        adata = readers.read_table(found, genes_in=genes_in)
    else:
        raise DataError(f"{path}: {suffix or 'no'} suffix; give .h5ad, .csv or .tsv (also .gz)")
    about = readers.about_own(path)
    about["genes_in"] = adata.uns.pop("genes_in", "columns, as an h5ad has them")
    about["sha256"] = {part.name: sha256(part) for part in filter(None, (path, metadata))}
    return _finish(adata, "counts", str(path)), about


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
    if "ensembl_id" not in adata.var and readers.mostly_ensembl(adata.var_names):
        known = adata.var_names.str.match(readers.ENSEMBL)
        adata.var["ensembl_id"] = readers.without_version(adata.var_names).where(known, "")
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
