"""Baselines of masked genes without a model: gene counts, ranks, and what can be read off the masked cell."""

import numpy as np
import pandas as pd

from epigen_utils.geneformer import masked_genes
from epigen_utils.geneformer.encoded_cells import EncodedCells, token_ids
from epigen_utils.geneformer.masked_genes import MASK_TOKEN_SHARE, RANDOM_GENE_SHARE
from epigen_utils.geneformer.vocabularies import MASK, Vocabulary

#: Lower edges of the rank bins of the by-rank baseline.
RANK_EDGES = (0, 16, 32, 64, 128, 256, 512, 1024, 2048)


class UnigramBaseline:
    """Baseline without a model: gene counts of the training cells, and what can be read off the masked cell.

    Parameters
    ----------
    by_rank
        Whether to count genes by rank bin (`RANK_EDGES`); prediction then uses the rank of the masked gene.
    without_seen
        Whether to exclude the genes of the cell that are not selected, since a cell contains each gene once.
    copy
        Whether to use the gene that a selected position shows: by Bayes' rule, it is the true one with odds of the
        probability of that gene over that of a random one, since as many genes stay as are replaced.
    """

    def __init__(
        self,
        train: EncodedCells,
        vocabulary: Vocabulary,
        *,
        by_rank: bool = False,
        without_seen: bool = False,
        copy: bool = False,
    ):
        self.edges = np.array(RANK_EDGES if by_rank else (0,))
        self.without_seen, self.copy = without_seen, copy
        genes = vocabulary.gene_tokens
        self.counts = np.zeros((len(self.edges), vocabulary.size))
        self.counts[:, genes] = 1.0  # unseen genes get non-zero probability
        for ids in token_ids(train):
            np.add.at(self.counts, (self._bin(np.arange(len(ids))), ids), np.isin(ids, genes).astype(float))

    def _bin(self, rank: np.ndarray) -> np.ndarray:
        return np.searchsorted(self.edges, rank, side="right") - 1

    def predict(self, cells: EncodedCells, vocabulary: Vocabulary, *, seed: int) -> pd.DataFrame:
        """Predict the same masked genes as `predict_masked_genes`, in the same format."""
        collate, parts = masked_genes.MaskedGenes(vocabulary, seed=seed), []
        for row, ids in enumerate(token_ids(cells)):
            shown, selected = masked_genes.mask_cell(ids, collate, row=row)
            rank, true, shown = np.flatnonzero(selected), ids[selected], shown[selected]
            if not len(rank):
                continue
            probability = self.counts[self._bin(rank)]  # (masked genes, vocabulary)
            if self.without_seen:
                probability[:, np.unique(ids[~selected])] = 0
            probability /= probability.sum(axis=1, keepdims=True)
            if self.copy:
                self._copy_shown(probability, shown, vocabulary)
            nll = -np.log(probability[np.arange(len(rank)), true])
            parts.append((row, rank, true, shown, nll, probability.argmax(axis=1) == true))
        return masked_genes.prediction_table(parts, vocabulary)

    @staticmethod
    def _copy_shown(probability: np.ndarray, shown: np.ndarray, vocabulary: Vocabulary) -> None:
        """Update probabilities, masked genes x vocabulary, in place where a gene is shown."""
        rows = np.flatnonzero(shown != vocabulary.tokens[MASK])
        unchanged_share = 1 - MASK_TOKEN_SHARE - RANDOM_GENE_SHARE
        left = unchanged_share * probability[rows, shown[rows]]
        left = left / (left + RANDOM_GENE_SHARE / len(vocabulary.gene_tokens))
        probability[rows] *= (1 - left)[:, None]
        probability[rows, shown[rows]] += left
