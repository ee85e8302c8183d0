"""A corpus: cells of some donors to learn from, cells of others to be asked about, encoded with one vocabulary."""

from dataclasses import dataclass

import anndata
import datasets as arrow
import numpy as np

from epigen_utils import curation, datasets, encoding, evaluation, genes, schema, tokenised, vocabularies
from epigen_utils.vocabularies import Vocabulary


@dataclass(frozen=True)
class Corpus:
    """Encoded cells of one data set.

    Attributes
    ----------
    adata
        All cells, under human Ensembl ids.
    train, valid
        Encoded cells: of the donors to learn from, and of the held-out ones.
    donors
        Who each cell of ``valid`` is from.
    held_out
        Which cells of ``adata`` are in ``valid``.
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
        As `datasets.load` takes them, or a folder of tokenised cells (`tokenised.load`). Without a donor each cell is its own.
    held_out
        Share of the cells; 0 to hold none out.
    vocabulary
        By default of the medians of the training cells alone; tokenised cells need theirs.

    Raises
    ------
    DataError
        As `datasets.load`, `genes.humanised`, `evaluation.hold_out` and `encoding.RankValueEncoder.encode`.
    """
    encoded = None
    if tokenised.there(dataset):
        adata, encoded = tokenised.load(dataset, vocabulary, max_length=max_length)
        adata.uns["epigen"] |= {"donor": donor} if donor else {}
    else:
        adata = genes.named(genes.humanised(datasets.load(dataset, donor=donor, species=species, task="counts")))
    by = adata.uns["epigen"].get("donor")
    units = schema.column(adata, by, role="donor", where=dataset).to_numpy() if by else adata.obs_names.to_numpy()
    out = evaluation.hold_out(units, share=held_out, seed=seed) if held_out else np.zeros(adata.n_obs, bool)
    if vocabulary is None:
        vocabulary = vocabularies.of_medians(curation.exact_medians([adata[~out].copy()]), name=dataset)
    encoder = encoding.RankValueEncoder.of(vocabulary, max_length=max_length)
    encoded = encoder.encode(adata) if encoded is None else encoded
    train, valid = (encoded.select(np.flatnonzero(rows)) for rows in (~out, out))
    return Corpus(adata, vocabulary, encoder, train, valid, units[out], out)
