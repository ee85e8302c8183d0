"""Baselines of masked genes without a model: gene counts, ranks, neighbours, and what can be read off the cell."""

import numpy as np
import pandas as pd

from epigen_utils.geneformer import masked_genes
from epigen_utils.geneformer.encoded_cells import EncodedCells, token_ids
from epigen_utils.geneformer.masked_genes import MASK_TOKEN_SHARE, RANDOM_GENE_SHARE
from epigen_utils.geneformer.vocabularies import MASK, Vocabulary

#: Lower edges of the rank bins of the by-rank baseline.
RANK_EDGES = (0, 16, 32, 64, 128, 256, 512, 1024, 2048)


class _Baseline:
    """A baseline that gives each selected gene of a cell a probability for every token."""

    def _probabilities(
        self, ids: np.ndarray, shown: np.ndarray, selected: np.ndarray, vocabulary: Vocabulary
    ) -> np.ndarray:
        """Probabilities, selected genes x vocabulary, from a cell's tokens, what it shows, and which are selected."""
        raise NotImplementedError

    def predict(self, cells: EncodedCells, vocabulary: Vocabulary, *, seed: int) -> pd.DataFrame:
        """Predict the same masked genes as `predict_masked_genes`, in the same format."""
        collate, parts = masked_genes.MaskedGenes(vocabulary, seed=seed), []
        for row, ids in enumerate(token_ids(cells)):
            shown, selected = masked_genes.mask_cell(ids, collate, row=row)
            rank, true = np.flatnonzero(selected), ids[selected]
            if not len(rank):
                continue
            probability = self._probabilities(ids, shown, selected, vocabulary)
            nll = -np.log(probability[np.arange(len(rank)), true])
            parts.append((row, rank, true, shown[selected], nll, probability.argmax(axis=1) == true))
        return masked_genes.prediction_table(parts, vocabulary)


class UnigramBaseline(_Baseline):
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

    def _probabilities(
        self, ids: np.ndarray, shown: np.ndarray, selected: np.ndarray, vocabulary: Vocabulary
    ) -> np.ndarray:
        probability = self.counts[self._bin(np.flatnonzero(selected))]
        if self.without_seen:
            probability[:, np.unique(ids[~selected])] = 0
        probability /= probability.sum(axis=1, keepdims=True)
        if self.copy:
            self._copy_shown(probability, shown[selected], vocabulary)
        return probability

    @staticmethod
    def _copy_shown(probability: np.ndarray, shown: np.ndarray, vocabulary: Vocabulary) -> None:
        """Update probabilities, masked genes x vocabulary, in place where a gene is shown."""
        rows = np.flatnonzero(shown != vocabulary.tokens[MASK])
        unchanged_share = 1 - MASK_TOKEN_SHARE - RANDOM_GENE_SHARE
        left = unchanged_share * probability[rows, shown[rows]]
        left = left / (left + RANDOM_GENE_SHARE / len(vocabulary.gene_tokens))
        probability[rows] *= (1 - left)[:, None]
        probability[rows, shown[rows]] += left


class NeighbourBaseline(_Baseline):
    """Baseline without a model: genes whose median lies between those of the genes shown before and after.

    A rank value encoding puts a cell's genes in the order of count over median. Most genes of a cell have one of a few
    small counts, and genes of one count stand in the order of their medians; so the neighbours of a hidden gene bound
    its median, whatever the cell. Where the medians of the neighbours are in the other order, the count changes between
    them, and the gene has either count.

    The share of true genes within these bounds, by how many genes these hold and by the order, is counted in training
    cells; within and outside the bounds, genes are as probable as in all training cells. Genes that are shown are ruled
    out.

    Parameters
    ----------
    n_cells
        Training cells in which the share is counted.
    """

    def __init__(self, train: EncodedCells, vocabulary: Vocabulary, *, n_cells: int = 1000, seed: int = 0):
        self.unigram = UnigramBaseline(train, vocabulary).counts[0]
        self.medians = np.full(vocabulary.size, np.nan)
        self.medians[vocabulary.gene_tokens] = [vocabulary.medians[gene] for gene in vocabulary.genes]
        # The first row: no gene within the bounds.
        within, asked = (np.full((2, 2 + int(np.log2(vocabulary.size))), start) for start in (0.5, 1.0))
        collate = masked_genes.MaskedGenes(vocabulary, seed=seed)
        for row, ids in enumerate(token_ids(train)[:n_cells]):
            shown, selected = masked_genes.mask_cell(ids, collate, row=row)
            candidates, cell_kind = self._candidates(ids, selected)
            true = ids[selected]
            np.add.at(within, cell_kind, candidates[np.arange(len(true)), true])
            np.add.at(asked, cell_kind, 1.0)
        self.share_within = within / asked

    def _candidates(self, ids: np.ndarray, selected: np.ndarray) -> tuple[np.ndarray, tuple[np.ndarray, np.ndarray]]:
        """Genes within the bounds, selected genes x vocabulary; whether the order is kept, and the binned number."""
        shown = np.flatnonzero(~selected)
        padded = np.concatenate([[-np.inf], self.medians[ids[shown]], [np.inf]])
        place = np.searchsorted(shown, np.flatnonzero(selected))
        lower, upper = padded[place][:, None], padded[place + 1][:, None]
        in_order = lower <= upper
        above, below = self.medians >= lower, self.medians <= upper
        candidates = np.where(in_order, above & below, above | below)
        candidates[:, ids[shown]] = False
        number = candidates.sum(axis=1)
        return candidates, (in_order[:, 0].astype(int), np.ceil(np.log2(number + 1)).astype(int))

    def _probabilities(
        self, ids: np.ndarray, _shown: np.ndarray, selected: np.ndarray, vocabulary: Vocabulary
    ) -> np.ndarray:
        candidates, kind = self._candidates(ids, selected)
        prior = np.where(np.isin(np.arange(vocabulary.size), ids[~selected]), 0.0, self.unigram)
        probability = np.zeros(candidates.shape)
        for part, share in ((candidates, self.share_within[kind]), (~candidates, 1 - self.share_within[kind])):
            weighted = part * prior
            total = weighted.sum(axis=1, keepdims=True)
            probability += share[:, None] * np.divide(weighted, total, out=np.zeros_like(weighted), where=total > 0)
        return probability / probability.sum(axis=1, keepdims=True)
