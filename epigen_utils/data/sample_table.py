"""Columns of a sample table: which there are, what they hold, and what is missing."""

import anndata
import numpy as np
import pandas as pd

from epigen_utils.data import fetching, geo, registry, schema
from epigen_utils.errors import DataError


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


def read_column(adata: anndata.AnnData, name: str | None, *, role: str, dataset_name: str) -> pd.Series:
    """A column of the sample table, as strings.

    Parameters
    ----------
    role
        Role of the column, such as ``donor``, for the message.
    dataset_name
        Name of the data set, for the message.

    Raises
    ------
    DataError
        If the column does not exist.
    """
    if name not in adata.obs:
        columns = schema.listed_columns(adata)
        raise DataError(f"{dataset_name}: no {role} column {name!r}; name one that is there ({columns})")
    return adata.obs[name].astype(str)


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
