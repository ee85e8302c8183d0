"""Encoded cells with labels and donors, from a data set or from tokenised cells."""

from dataclasses import dataclass
from pathlib import Path

import anndata
import datasets as arrow
import numpy as np
import pandas as pd

from epigen_utils.data import cell_source, datasets, genes, orthologs, sample_table, schema
from epigen_utils.errors import DataError
from epigen_utils.files import whole_file
from epigen_utils.geneformer import curation, encoded_cells, encoding
from epigen_utils.geneformer.vocabularies import Vocabulary, vocabulary_from_medians
from epigen_utils.stats import folds


@dataclass(frozen=True)
class CellCohort:
    """Encoded cells with a label and a donor each.

    Attributes
    ----------
    adata
        The cells under human Ensembl ids; of tokenised cells, their table and genes without counts.
    labels, donors
        Label and donor of each cell, strings.
    counts
        Whether ``adata`` has counts; tokenised cells have none.
    label
        Column of the labels.
    """

    adata: anndata.AnnData
    encoded: arrow.Dataset
    vocabulary: Vocabulary
    labels: np.ndarray
    donors: np.ndarray
    counts: bool
    label: str

    def levels(self, first: str = "") -> list[str]:
        """Sorted classes, with ``first`` in front."""
        return sorted(set(self.labels), key=lambda name: (name != first, name))


def load_cell_cohort(
    dataset: str,
    vocabulary: Vocabulary | None,
    *,
    label: str = "",
    donor: str = "",
    species: str = "",
    metadata: str = "",
    keep: str = "",
    max_length: int = 2048,
    max_cells: int = 0,
    per_donor: bool = True,
    seed: int = 0,
) -> CellCohort:
    """Load labelled cells and encode them.

    Cells without a label, a donor or counts of the vocabulary's genes are left out; ``uns["epigen"]["notes"]`` says how
    many.

    Parameters
    ----------
    dataset
        Argument of `datasets.load`, for example the h5ad of Chaffin et al. 2022; or tokenised cells: a folder, or a
        name such as ``human-dcm-hcm-nf`` (`encoded_cells.find_encoded`).
    vocabulary
        Vocabulary of the model; None: built from the medians of these cells, which are independent of the labels.
        Required for tokenised cells, which must have been encoded with it (`encoded_cells.load_encoded_cells`).
    label, donor
        Columns of the sample table; by default the registry's.
    species, metadata
        Arguments of `datasets.load`.
    keep
        Cells to keep, ``column=value,value``; paper B:
        ``cell_type=Cardiomyocyte1,Cardiomyocyte2,Cardiomyocyte3``.
    max_cells
        Largest number of cells, drawn at random; 0 for all.
    per_donor
        Whether labels belong to donors rather than to cells (`folds.check_donors`).

    Raises
    ------
    DataError
        If the cells cannot be loaded, mapped to human genes (`orthologs.humanise`) or encoded, a column is missing, no
        cell is kept, the tokens are of another vocabulary, or `folds.check_donors` fails.
    """
    columns = {"species": species, "metadata": metadata, "group": label, "donor": donor}
    adata, encoded = _load(dataset, vocabulary, max_length, **columns)
    columns = {"label": adata.uns["epigen"].get("group"), "donor": adata.uns["epigen"].get("donor")}
    for role, column in columns.items():
        sample_table.read_column(adata, column, role=role, dataset_name=dataset)
    rows = selected_rows(dataset, adata.obs, keep)
    rows = rows[_has_values(adata, rows, columns)]
    if not len(rows):
        raise DataError(f"{dataset}: no cell has a {' and a '.join(columns)}; name columns that are filled in")
    if max_cells and len(rows) > max_cells:
        rows = np.sort(np.random.default_rng(seed).choice(rows, max_cells, replace=False))
    adata = adata[rows].copy()
    counts = encoded is None
    if counts:
        vocabulary = vocabulary or vocabulary_from_medians(curation.exact_medians([adata]), name=dataset)
        adata = encodable_cells(adata, vocabulary)
        encoded = encoding.RankValueEncoder.of(vocabulary, max_length=max_length).encode(adata)
    else:
        encoded = encoded.select(rows)
    labels, donors = (adata.obs[column].astype(str).to_numpy() for column in columns.values())
    folds.check_donors(labels, donors, per_donor=per_donor)
    return CellCohort(adata, encoded, vocabulary, labels, donors, counts, columns["label"])


def _load(
    dataset: str, vocabulary: Vocabulary | None, max_length: int, **columns: str
) -> tuple[anndata.AnnData, arrow.Dataset | None]:
    """Cells under human Ensembl ids, and their tokens if they are tokenised; ``uns`` names the given columns."""
    if found := encoded_cells.find_encoded(dataset):
        folder, about = found
        encoded = encoded_cells.load_encoded_cells(folder, vocabulary, max_length=max_length)
        about |= {role: columns[role] for role in ("group", "donor") if columns[role]}
        return encoded_cells.cell_table(encoded, vocabulary, about), encoded
    return _load_counts(dataset, **columns), None


def _load_counts(dataset: str, **options: str) -> anndata.AnnData:
    """Cells with counts, under human Ensembl ids."""
    return genes.add_symbols(orthologs.humanise(datasets.load(dataset, task="counts", **options)))


def _has_values(adata: anndata.AnnData, rows: np.ndarray, columns: dict[str, str]) -> np.ndarray:
    """Mask of the rows with a value in each column; notes say how many have none, by role."""
    complete = np.ones(len(rows), bool)
    for role, column in columns.items():
        values = adata.obs[column].iloc[rows].astype(object)
        missing = (values.isna() | values.astype(str).str.strip().isin(sample_table.MISSING)).to_numpy()
        if missing.any():
            number = f"{int(missing.sum()):,} of {len(rows):,} cells"
            schema.add_note(adata.uns["epigen"], f"{number} have no {role} in obs[{column!r}] and are left out.")
        complete &= ~missing
    return complete


def encodable_cells(adata: anndata.AnnData, vocabulary: Vocabulary | None) -> anndata.AnnData:
    """The cells with counts of genes of a vocabulary, or of any genes; a note says how many others are left out.

    Raises
    ------
    DataError
        If there are none.
    """
    inside = np.ones(adata.n_vars, bool)
    if vocabulary is not None:
        ids = pd.Series(cell_source.InMemoryCells(adata).ensembl_ids)
        ids = ids.str.upper().map(vocabulary.mapping) if vocabulary.mapping else ids
        inside = ids.isin(vocabulary.medians).to_numpy()
    filled = np.asarray((adata.layers["counts"][:, inside] > 0).sum(axis=1)).ravel() > 0
    if filled.all() or not inside.any():
        return adata  # the encoder says so, where no gene is of the vocabulary
    about, genes_known = adata.uns["epigen"], f" of genes in the vocabulary {vocabulary.name!r}" if vocabulary else ""
    if not filled.any():
        raise DataError(f"{about['name']}: no cell has counts{genes_known}; give cells with counts")
    number = f"{int((~filled).sum()):,} of {adata.n_obs:,} cells"
    schema.add_note(about, f"{number} have no counts{genes_known} and are left out.")
    return adata[filled].copy()


def selected_rows(where: str, table: pd.DataFrame, keep: str) -> np.ndarray:
    """Positions of the cells to keep, by ``column=value,value``; all if it is empty.

    Raises
    ------
    DataError
        If there is no such column, or no such cell.
    """
    if not keep:
        return np.arange(len(table))
    column, _, values = keep.partition("=")
    if column not in table:
        raise DataError(f"{where}: no column {column!r} to keep cells by; there are {', '.join(map(str, table))}")
    rows = np.flatnonzero(table[column].astype(str).isin(values.split(",")))
    if not len(rows):
        levels = ", ".join(table[column].astype(str).unique()[:10])
        raise DataError(f"{where}: no cell has {keep!r}; {column} is one of {levels}")
    return rows


def test_cell_mask(donors: np.ndarray, test_donors: list[str]) -> np.ndarray:
    """Mask that is true for cells of the test donors.

    Raises
    ------
    DataError
        If a test donor is not among the donors.
    """
    found = {donor: schema.find_level(donors, donor) for donor in test_donors}
    if missing := [donor for donor, name in found.items() if name is None]:
        raise DataError(
            f"test donor {str(missing[0])!r}: not among the donors, '{donors[0]}' for one; correct the list"
        )
    return np.isin(donors, list(found.values()))


def save_h5ad(adata: anndata.AnnData, path: Path) -> None:
    """Write an h5ad beside and rename it; ``uns`` is dropped, since h5ad cannot store all of its values."""
    stripped = adata.copy()
    stripped.uns = {}
    with whole_file(path) as part:
        stripped.write_h5ad(part)


@dataclass(frozen=True)
class Corpus:
    """Encoded cells of one data set.

    Attributes
    ----------
    adata
        All cells, under human Ensembl ids; of tokenised cells, the table of those of ``valid``, without counts.
    train, valid
        Encoded cells of the training donors, and of the held-out donors.
    donors, train_donors
        Donor of each cell of ``valid``, and of ``train``.
    held_out
        True for cells that are in ``valid``.
    """

    adata: anndata.AnnData
    vocabulary: Vocabulary
    encoder: encoding.RankValueEncoder
    train: arrow.Dataset
    valid: arrow.Dataset
    donors: np.ndarray
    train_donors: np.ndarray
    held_out: np.ndarray


def load_corpus(
    dataset: str,
    *,
    species: str = "",
    metadata: str = "",
    donor: str = "",
    max_length: int = 2048,
    held_out: float = 0.25,
    vocabulary: Vocabulary | None = None,
    seed: int = 0,
) -> Corpus:
    """Load cells, hold out whole donors, and encode both parts.

    Parameters
    ----------
    dataset, species, metadata, donor
        As for `load_cell_cohort`. Without a donor column, each cell counts as a donor.
    held_out
        Share of the cells to hold out; 0 for none.
    vocabulary
        By default built from the medians of the training cells alone; required for tokenised cells.

    Raises
    ------
    DataError
        If the cells cannot be loaded, mapped to human genes, split by donor (`folds.hold_out`) or encoded.
    """
    if found := encoded_cells.find_encoded(dataset):
        folder, about = found
        about |= {"donor": donor} if donor else {}
        encoded = encoded_cells.load_encoded_cells(folder, vocabulary, max_length=max_length)
        about["cells"] = len(encoded)
        units = _donors_of_tokens(dataset, encoded, about.get("donor"))
    else:
        adata, encoded = _load_counts(dataset, species=species, metadata=metadata, donor=donor), None
        units = adata.obs_names.to_numpy()
        if column := adata.uns["epigen"].get("donor"):
            units = sample_table.read_column(adata, column, role="donor", dataset_name=dataset).to_numpy()
    if not found:
        kept = encodable_cells(adata, vocabulary)
        units, adata = units[adata.obs_names.isin(kept.obs_names)], kept
    is_held_out = folds.hold_out(units, share=held_out, seed=seed) if held_out else np.zeros(len(units), bool)
    if vocabulary is None:
        vocabulary = vocabulary_from_medians(curation.exact_medians([adata[~is_held_out].copy()]), name=dataset)
    encoder = encoding.RankValueEncoder.of(vocabulary, max_length=max_length)
    encoded = encoder.encode(adata) if encoded is None else encoded
    train, valid = (encoded.select(np.flatnonzero(rows)) for rows in (~is_held_out, is_held_out))
    if found:
        adata = encoded_cells.cell_table(valid, vocabulary, about)
    return Corpus(adata, vocabulary, encoder, train, valid, units[is_held_out], units[~is_held_out], is_held_out)


def _donors_of_tokens(dataset: str, encoded: arrow.Dataset, column: str | None) -> np.ndarray:
    """Donor of each tokenised cell; without a column, the number of the cell, since names of millions take much room.

    Raises
    ------
    DataError
        If there is no such column.
    """
    if not column:
        return np.arange(len(encoded))
    if column not in encoded.column_names:
        known = ", ".join(encoded.column_names)
        raise DataError(f"{dataset}: no donor column {column!r}; name one that is there ({known})")
    return encoded.select_columns([column]).to_pandas()[column].astype(str).to_numpy()


def sample_cells(cells: arrow.Dataset, max_cells: int, *, seed: int = 0) -> arrow.Dataset:
    """A random part of the cells, in their order: ``max_cells`` at most, or all for 0."""
    if not 0 < max_cells < len(cells):
        return cells
    return cells.select(np.sort(np.random.default_rng(seed).choice(len(cells), max_cells, replace=False)))


def example_cell(
    dataset: str, corpus: Corpus, *, max_length: int = 2048
) -> tuple[anndata.AnnData, np.ndarray, Vocabulary]:
    """A cell to show: its data set, token ids and vocabulary.

    Parameters
    ----------
    dataset
        Argument of `datasets.load`; the cell of median length is shown, by the medians of its own data set. Empty: the
        first held-out cell of the corpus.
    """
    if not dataset:
        return corpus.adata, np.asarray(corpus.valid[0]["input_ids"]), corpus.vocabulary
    adata = _load_counts(dataset)
    vocabulary = vocabulary_from_medians(curation.exact_medians([adata]), name=dataset)
    encoded = encoding.RankValueEncoder.of(vocabulary, max_length=max_length).encode(adata)
    middle = int(np.argsort(encoded["length"], kind="stable")[len(encoded) // 2])
    return adata, np.asarray(encoded[middle]["input_ids"]), vocabulary
