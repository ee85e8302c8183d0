"""Masked genes without a network: gene counts, ranks, neighbours, naive Bayes, and the oracle of simulated cells."""

import anndata
import numpy as np
import pandas as pd
from scipy import sparse
from transformers import PreTrainedModel

from epigen_utils.geneformer import masked_genes
from epigen_utils.geneformer.encoded_cells import EncodedCells, token_ids
from epigen_utils.geneformer.masked_genes import MASK_TOKEN_SHARE, RANDOM_GENE_SHARE
from epigen_utils.geneformer.vocabularies import MASK, Vocabulary
from epigen_utils.models.batching import IGNORED
from epigen_utils.stats import intervals

#: Lower edges of the rank bins of the by-rank baseline.
RANK_EDGES = (0, 16, 32, 64, 128, 256, 512, 1024, 2048)
#: Definitions of columns of `way_to_ceiling`'s table, for a page.
WAY_COLUMNS = {
    "n": "hidden genes",
    "nll": "mean loss in nats",
    "share": "share of the way from the unigram's loss to the oracle's",
}


class _Baseline:
    """A baseline that gives each selected gene of a cell a probability for every token."""

    def _probabilities(
        self, ids: np.ndarray, shown: np.ndarray, selected: np.ndarray, vocabulary: Vocabulary
    ) -> np.ndarray:
        """Probabilities, selected genes x vocabulary, from a cell's tokens, what it shows, and which are selected."""
        raise NotImplementedError

    def predict(self, cells: EncodedCells, vocabulary: Vocabulary, *, seed: int, single: bool = False) -> pd.DataFrame:
        """Predict the same masked genes as `predict_masked_genes`, in the same format."""
        collate, of_cells, parts = masked_genes.MaskedGenes(vocabulary, seed=seed, single=single), token_ids(cells), []
        for rows, batch in collate.batches(cells, 256):
            for row, shown, labels in zip(rows, batch["input_ids"].numpy(), batch["labels"].numpy(), strict=True):
                ids = of_cells[row]
                shown, selected = shown[: len(ids)], labels[: len(ids)] != IGNORED
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
    cells; within and outside the bounds, genes are as probable as in all training cells. Visible genes are ruled
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


class NaiveBayesBaseline(_Baseline):
    """Baseline without a network: naive Bayes over the other genes of the cell.

    The probability of a gene is its share of the training cells' tokens times the share of its cells that have each
    gene shown. Genes that go together are not independent, so the log-likelihood of the cell is multiplied by an
    exponent, which is chosen on training cells. Visible genes are ruled out.

    Parameters
    ----------
    n_cells
        Training cells on which the exponent is chosen; the counts are of the others.
    n_evidence
        Genes that are read, the most variable in their presence: a table of all genes by all would not fit.
    """

    #: Exponents that are tried.
    EXPONENTS = (0.02, 0.05, 0.1, 0.2, 0.3, 0.5, 1.0)

    def __init__(
        self,
        train: EncodedCells,
        vocabulary: Vocabulary,
        *,
        n_cells: int = 300,
        n_evidence: int = 2000,
        seed: int = 0,
    ):
        cells = token_ids(train)
        chosen_on, counted = cells[:n_cells], cells[n_cells:] or cells
        rows, tokens = np.repeat(np.arange(len(counted)), [len(ids) for ids in counted]), np.concatenate(counted)
        is_gene = np.isin(tokens, vocabulary.gene_tokens)
        shape = (len(counted), vocabulary.size)
        present = sparse.csr_matrix((is_gene.astype(np.float32), (rows, tokens)), shape=shape)
        alone = np.asarray(present.sum(axis=0)).ravel()  # cells with each gene
        self.log_prior = np.full(vocabulary.size, -np.inf)
        self.log_prior[vocabulary.gene_tokens] = np.log(alone[vocabulary.gene_tokens] + 1)
        share = (alone + 1) / (len(counted) + 2)
        evidence = np.argsort(-share * (1 - share), kind="stable")[:n_evidence]
        self.column = np.full(vocabulary.size, -1)
        self.column[evidence] = np.arange(len(evidence))
        together = (present.T @ present[:, evidence]).toarray()  # (asked, shown)
        # A gene's share in the cells of a rare gene is drawn towards its share in all cells.
        self.log_share = np.log((together + 10 * share[evidence]) / (alone[:, None] + 10)) - np.log(share[evidence])
        losses, asked = {}, {"input_ids": chosen_on}
        for exponent in self.EXPONENTS:
            self.exponent = exponent
            losses[exponent] = self.predict(asked, vocabulary, seed=seed)["nll"].mean()
        self.exponent = min(losses, key=losses.get)

    def _probabilities(
        self, ids: np.ndarray, _shown: np.ndarray, selected: np.ndarray, _vocabulary: Vocabulary
    ) -> np.ndarray:
        seen = ids[~selected]
        read = self.column[seen]
        score = self.log_prior + self.exponent * self.log_share[:, read[read >= 0]].sum(axis=1)
        score[seen] = -np.inf
        probability = np.exp(score - score.max())
        return np.tile(probability / probability.sum(), (int(selected.sum()), 1))


class OracleBaseline(_Baseline):
    r"""The ceiling: a hidden gene's probability given all other genes, by the model that the cells were drawn from.

    Cells of `simulated_cells.plackett_luce_cells` are Plackett-Luce rankings in one of some states. With the rates
    :math:`w` of a state, each over the gene's median, a cell :math:`s` has the probability

    .. math:: \prod_j w_{s_j} \Big/ \Big(\sum_g w_g - \sum_{k<j} w_{s_k}\Big),

    and the gene at a position follows by Bayes' rule over states and candidates. One gene of a cell may be hidden
    (``single``); of several the joint probability has no closed form.

    Parameters
    ----------
    log_rates
        Genes x states, as in the data set's ``varm``.
    state_probability
        Of each state.
    """

    def __init__(self, log_rates: pd.DataFrame, state_probability: np.ndarray, vocabulary: Vocabulary):
        medians = pd.Series(vocabulary.medians)
        log_rates = log_rates.loc[list(vocabulary.genes)]
        self.rates = np.zeros((log_rates.shape[1], vocabulary.size))  # (states, tokens)
        rates = np.exp(log_rates.to_numpy()) / medians[log_rates.index].to_numpy()[:, None]
        self.rates[:, vocabulary.gene_tokens] = rates.T
        self.log_prior = np.log(state_probability)

    def _probabilities(
        self, ids: np.ndarray, _shown: np.ndarray, selected: np.ndarray, _vocabulary: Vocabulary
    ) -> np.ndarray:
        (place,) = np.flatnonzero(selected)
        before, after = ids[:place], ids[place + 1 :]
        candidates = np.setdiff1d(np.flatnonzero(self.rates[0]), np.concatenate([before, after]))
        total = self.rates.sum(axis=1)
        # What is left to draw from at each position up to the hidden one: (states, place + 1).
        left = total[:, None] - np.cumsum(np.pad(self.rates[:, before], ((0, 0), (1, 0))), axis=1)
        shared = self.log_prior + np.log(self.rates[:, [*before, *after]]).sum(axis=1) - np.log(left).sum(axis=1)
        rates = self.rates[:, candidates]  # (states, candidates)
        later = left[:, -1:] - np.cumsum(np.pad(self.rates[:, after], ((0, 0), (1, 0))), axis=1)[:, :-1]
        score = shared[:, None] + np.log(rates)
        # A logarithm of products, since one of each factor dominates the time; 16 factors cannot overflow.
        for first in range(0, len(after), 16):
            # What is left to draw from after the candidate has been drawn: (states, candidates, later positions).
            left_later = later[:, None, first : first + 16] - rates[..., None]
            score -= np.log(np.prod(left_later, axis=2))
        probability = np.zeros(self.rates.shape[1])
        probability[candidates] = np.exp(score - score.max()).sum(axis=0)
        return (probability / probability.sum())[None]


def predict_single_genes(
    models: dict[str, PreTrainedModel],
    train: EncodedCells,
    valid: EncodedCells,
    adata: anndata.AnnData,
    vocabulary: Vocabulary,
    *,
    seed: int,
) -> dict[str, pd.DataFrame]:
    """Predictions of one hidden gene a cell: of models, and by ``unigram``, ``naive Bayes`` and ``oracle``.

    Parameters
    ----------
    train
        Cells that the baselines count; the unigram rules out the visible genes of a cell.
    adata
        Cells of `simulated_cells.plackett_luce_cells`, for the oracle.
    """
    baselines = {
        "unigram": UnigramBaseline(train, vocabulary, without_seen=True),
        "naive Bayes": NaiveBayesBaseline(train, vocabulary),
        "oracle": OracleBaseline(adata.varm["log_rates"], adata.uns["state_probability"], vocabulary),
    }
    predictions = {name: rule.predict(valid, vocabulary, seed=seed, single=True) for name, rule in baselines.items()}
    return predictions | {
        name: masked_genes.predict_masked_genes(model, valid, vocabulary, seed=seed, single=True)
        for name, model in models.items()
    }


def way_to_ceiling(
    predictions: dict[str, pd.DataFrame],
    *,
    donors: object,
    floor: str = "unigram",
    ceiling: str = "oracle",
    seed: int = 0,
) -> pd.DataFrame:
    """How far each model is from the loss of the floor to that of the ceiling, on the same masked genes.

    Returns
    -------
    One row a model: ``model``, ``n`` (masked genes), ``accuracy`` and ``share`` of the way, 0 at the floor and 1 at the
    ceiling, each with `` low`` and `` high`` (95% bootstrap over donors, the same draws for all), and ``nll`` (nats).
    """
    names = [ceiling, *(name for name in predictions if name != ceiling)]
    by_donor = {
        name: table.groupby(np.asarray(donors)[table["cell"]]).agg(
            n=("nll", "size"), nll=("nll", "sum"), correct=("correct", "sum")
        )
        for name, table in predictions.items()
    }
    n_donors = len(by_donor[ceiling])
    drawn = intervals.resample_donors(np.zeros(n_donors), 1000, np.random.default_rng(seed))
    draws = np.vstack([np.arange(n_donors), *drawn])  # the first draw is the sample itself
    sums = {name: table.to_numpy(float)[draws].sum(axis=1) for name, table in by_donor.items()}  # (draws, 3)
    loss = {name: total[:, 1] / total[:, 0] for name, total in sums.items()}
    rows = []
    for name in names:
        scores = {"accuracy": sums[name][:, 2] / sums[name][:, 0]}
        scores["share"] = (loss[floor] - loss[name]) / (loss[floor] - loss[ceiling])
        row = {"model": name, "n": len(predictions[name]), "nll": loss[name][0]}
        for score, values in scores.items():
            low, high = np.quantile(values[1:], [0.025, 0.975]) if n_donors >= intervals.LEAST_UNITS else [np.nan] * 2
            row |= {score: values[0], f"{score} low": low, f"{score} high": high}
        rows.append(row)
    return pd.DataFrame(rows)
