"""A corpus for pretraining: encoded cells of training donors and of held-out donors, with one vocabulary."""

from dataclasses import dataclass

import anndata
import datasets as arrow
import numpy as np

from epigen_utils import curation, datasets, encoding, evaluation, genes, schema, tokenised
from epigen_utils.vocabularies import Vocabulary, of_medians


@dataclass(frozen=True)
class Corpus:
    """Encoded cells of one data set.

    Attributes
    ----------
    adata
        All cells, under human Ensembl ids.
    train, valid
        Encoded cells of the training donors, and of the held-out donors.
    donors
        Donor of each cell of ``valid``.
    held_out
        True for cells of ``adata`` that are in ``valid``.
    """

    adata: anndata.AnnData
    vocabulary: Vocabulary
    encoder: encoding.RankValueEncoder
    train: arrow.Dataset
    valid: arrow.Dataset
    donors: np.ndarray
    held_out: np.ndarray


def load(
    dataset: str,
    *,
    species: str = "",
    donor: str = "",
    max_length: int = 2048,
    held_out: float = 0.25,
    vocabulary: Vocabulary | None = None,
    seed: int = 0,
) -> Corpus:
    """Load cells, hold out whole donors, and encode both parts.

    Parameters
    ----------
    dataset, species, donor
        Arguments of `datasets.load`; or ``dataset`` is a folder of tokenised cells (`tokenised.load`). Without a donor
        column, each cell counts as a donor.
    held_out
        Share of the cells to hold out; 0 for none.
    vocabulary
        By default built from the medians of the training cells alone; required for tokenised cells.

    Raises
    ------
    DataError
        If the cells cannot be loaded, mapped to human genes (`genes.humanised`), split by donor (`evaluation.hold_out`)
        or encoded.
    """
    encoded = None
    if tokenised.there(dataset):
        adata, encoded = tokenised.load(dataset, vocabulary, max_length=max_length)
        adata.uns["epigen"] |= {"donor": donor} if donor else {}
    else:
        adata = genes.named(genes.humanised(datasets.load(dataset, donor=donor, species=species, task="counts")))
    column = adata.uns["epigen"].get("donor")
    units = adata.obs_names.to_numpy()
    if column:
        units = schema.column(adata, column, role="donor", where=dataset).to_numpy()
    is_held_out = evaluation.hold_out(units, share=held_out, seed=seed) if held_out else np.zeros(adata.n_obs, bool)
    if vocabulary is None:
        vocabulary = of_medians(curation.exact_medians([adata[~is_held_out].copy()]), name=dataset)
    encoder = encoding.RankValueEncoder.of(vocabulary, max_length=max_length)
    encoded = encoder.encode(adata) if encoded is None else encoded
    train, valid = (encoded.select(np.flatnonzero(rows)) for rows in (~is_held_out, is_held_out))
    return Corpus(adata, vocabulary, encoder, train, valid, units[is_held_out], is_held_out)
