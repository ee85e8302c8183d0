"""Labelled cells of donors, encoded: from a data set, or from cells that were tokenised before."""

import json
from dataclasses import dataclass
from pathlib import Path

import anndata
import datasets as arrow
import numpy as np
import pandas as pd

from epigen_utils import curation, datasets, encoding, evaluation, genes, schema, tokenised, vocabularies
from epigen_utils.errors import DataError
from epigen_utils.files import write_atomically
from epigen_utils.vocabularies import Vocabulary


@dataclass(frozen=True)
class Cohort:
    """Encoded cells with a label and a donor each.

    Attributes
    ----------
    adata
        The cells under human Ensembl ids; of tokenised cells the sample table alone.
    labels, donors
        Words, a cell each.
    label
        Column of the labels.
    counts
        Whether ``adata`` has counts, which tokenised cells have lost.
    """

    adata: anndata.AnnData
    encoded: arrow.Dataset
    vocabulary: Vocabulary
    labels: np.ndarray
    donors: np.ndarray
    counts: bool
    label: str

    def levels(self, first: str = "") -> list[str]:
        """Classes, one of them first."""
        return sorted(set(self.labels), key=lambda name: (name != first, name))


def load(
    dataset: str,
    vocabulary: Vocabulary | None,
    *,
    label: str = "",
    donor: str = "",
    species: str = "",
    keep: str = "",
    max_length: int = 2048,
    max_cells: int = 0,
    per_donor: bool = True,
    seed: int = 0,
) -> Cohort:
    """Load labelled cells and encode them.

    Parameters
    ----------
    dataset
        As `datasets.load` takes it, for example the h5ad of Chaffin et al. 2022 with its columns; or a folder of tokenised cells, such
        as Geneformer's ``human_dcm_hcm_nf.dataset``.
    vocabulary
        That of the model; none to take the medians of these cells, which know no labels. Tokenised cells need one, and those that say
        of themselves which they are of must be of it.
    label, donor
        Columns; by default the registry's.
    keep
        Cells to keep, ``column=value,value``: paper B keeps ``cell_type=Cardiomyocyte1,Cardiomyocyte2,Cardiomyocyte3``.
    max_cells
        A random part of them at most; 0 for all.
    per_donor
        As of `evaluation.check_donors`.

    Raises
    ------
    DataError
        As `datasets.load`, `genes.humanised`, `encoding.RankValueEncoder.encode` and `evaluation.check_donors`; and if a column is
        missing, no cell is kept, or the tokens are of another vocabulary.
    """
    folder = Path(dataset)
    if tokenised.there(folder):
        adata, encoded = tokenised.load(folder, vocabulary, max_length=max_length)
    else:
        given = {"donor": donor, "species": species, "task": "counts"}
        adata, encoded = genes.named(genes.humanised(datasets.load(dataset, group=label, **given))), None
    about = adata.uns["epigen"]
    columns = {"label": label or about.get("group"), "donor": donor or about.get("donor")}
    for role, column in columns.items():
        schema.column(adata, column, role=role, where=dataset)
    rows = _kept(dataset, adata.obs, keep)
    rows = rows[adata.obs[list(columns.values())].iloc[rows].notna().all(axis=1).to_numpy()]
    if max_cells and len(rows) > max_cells:
        rows = np.sort(np.random.default_rng(seed).choice(rows, max_cells, replace=False))
    adata = adata[rows].copy()
    if encoded is None:
        if vocabulary is None:
            vocabulary = vocabularies.of_medians(curation.exact_medians([adata]), name=dataset)
        shown = np.asarray((adata.layers["counts"] > 0).sum(axis=1)).ravel() > 0
        adata = adata[shown].copy()
        encoded, counts = encoding.RankValueEncoder.of(vocabulary, max_length=max_length).encode(adata), True
    else:
        encoded, counts = encoded.select(rows), False
    labels, donors = (adata.obs[column].astype(str).to_numpy() for column in columns.values())
    evaluation.check_donors(labels, donors, per_donor=per_donor)
    return Cohort(adata, encoded, vocabulary, labels, donors, counts, columns["label"])


def _kept(where: str, table: pd.DataFrame, keep: str) -> np.ndarray:
    if not keep:
        return np.arange(len(table))
    column, _, values = keep.partition("=")
    if column not in table:
        raise DataError(f"{where}: no column {column!r} to keep cells by; there are {', '.join(map(str, table))}")
    rows = np.flatnonzero(table[column].astype(str).isin(values.split(",")))
    if not len(rows):
        known = ", ".join(table[column].astype(str).unique()[:10])
        raise DataError(f"{where}: no cell has {keep!r}; {column} is one of {known}")
    return rows


def split(donors: np.ndarray, test: list[str]) -> np.ndarray:
    """True for cells of the test donors.

    Raises
    ------
    DataError
        If one of them is not there.
    """
    if lost := [donor for donor in map(str, test) if donor not in set(donors)]:
        raise DataError(f"test donor {lost[0]!r}: not among the donors, '{donors[0]}' for one; mend the list")
    return np.isin(donors, list(map(str, test)))


def save(adata: anndata.AnnData, path: Path) -> None:
    """Write an h5ad, beside and then renamed; of ``uns`` what a file can hold."""
    kept = adata.copy()
    kept.uns = {}
    part = path.with_name(f".{path.name}.part")
    kept.write_h5ad(part)
    part.rename(path)


def note(folder: Path, **facts: object) -> None:
    """Keep beside a model what those who use it must know, as ``cohort.json``: the donors that it has not seen, its classes."""
    write_atomically(folder / "cohort.json", json.dumps(facts, indent=1))


def noted(folder: Path) -> dict:
    """Read what `note` wrote.

    Raises
    ------
    DataError
        If it is not there.
    """
    try:
        return json.loads((folder / "cohort.json").read_text())
    except OSError:
        raise DataError(
            f"{folder}: no cohort.json; give the folder of a classifier of geneformer/08_cardiomyopathy"
        ) from None
