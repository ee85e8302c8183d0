"""Masked genes: masks, training objective, evaluation on the same cells and masks, and baselines without input.

Paper B, section 3.1, reports MLM accuracy and perplexity without stating the unit of averaging; its code averages over
batches. The averages over tokens, cells and batches differ, so all three are reported.
"""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import pandas as pd
import torch
from torch import nn
from transformers import PreTrainedModel

from epigen_utils.geneformer.encoded_cells import EncodedCells, token_ids
from epigen_utils.geneformer.vocabularies import MASK, PAD, Vocabulary
from epigen_utils.models import batching
from epigen_utils.models.batching import IGNORED
from epigen_utils.stats import intervals

#: Share of a cell's genes that are predicted; of these, the shares replaced by the mask token and by a random gene
#: (paper B, section 1.4.2; Devlin et al. 2019).
MASKED_SHARE, MASK_TOKEN_SHARE, RANDOM_GENE_SHARE = 0.15, 0.8, 0.1
#: Cells per forward pass outside training.
INFERENCE_BATCH_SIZE = 16


@dataclass
class MaskedGenes:
    """Collate encoded cells into a batch with masked genes.

    Each gene is selected with probability 15%; of the selected genes 80% become the mask token, 10% a random gene, and
    10% stay. Special tokens and padding are neither selected nor used as a random gene.

    Attributes
    ----------
    vocabulary
        Vocabulary of the encoding.
    pad_to
        Length of every row; by default the longest of the batch.
    seed
        A cell's mask is a function of this seed, its ``row`` and its ``epoch`` (0 if absent) only, and so the same in
        every batch, process, resumed run and model.
    """

    vocabulary: Vocabulary
    pad_to: int | None = None
    seed: int = 0

    def __post_init__(self) -> None:
        """Look up the ids of genes and special tokens once."""
        tokens = self.vocabulary.tokens
        self.pad, self.mask = tokens[PAD], tokens[MASK]
        self.genes = torch.from_numpy(self.vocabulary.gene_tokens)
        self.special = torch.tensor([tokens[token] for token in tokens if token.startswith("<")])

    def __call__(self, rows: list[dict]) -> dict[str, torch.Tensor]:
        """Batch of cells: ``input_ids``, ``attention_mask`` and ``labels``, each cells x length, 64-bit integers."""
        ids = batching.pad([row["input_ids"] for row in rows], self.pad, self.pad_to)
        selection, action, replacement = self._draws(rows, ids.shape)
        selected = (selection < MASKED_SHARE) & ~torch.isin(ids, self.special)
        labels = torch.where(selected, ids, IGNORED)
        masked = torch.where(selected & (action < MASK_TOKEN_SHARE), self.mask, ids)
        swapped = selected & (action >= MASK_TOKEN_SHARE) & (action < MASK_TOKEN_SHARE + RANDOM_GENE_SHARE)
        # The draw is 1 at padding, and would index past the last gene.
        genes = self.genes[(replacement * len(self.genes)).long().clamp(max=len(self.genes) - 1)]
        masked = torch.where(swapped, genes, masked)
        return {"input_ids": masked, "attention_mask": (ids != self.pad).long(), "labels": labels}

    def batches(
        self, cells: EncodedCells, size: int, *, epoch: int = 0
    ) -> Iterator[tuple[np.ndarray, dict[str, torch.Tensor]]]:
        """Positions of the cells of each batch of ``size`` cells, longest first, and the batch."""
        ids = token_ids(cells)
        for rows in batching.length_batches([len(cell) for cell in ids], size=size):
            yield rows, self([{"input_ids": ids[row], "row": int(row), "epoch": epoch} for row in rows])

    def _draws(self, rows: list[dict], shape: torch.Size) -> torch.Tensor:
        draws = np.ones((3, *shape), np.float32)  # (3, cells, length)
        for index, row in enumerate(rows):
            rng = np.random.default_rng([self.seed, row.get("epoch", 0), row["row"]])
            draws[:, index, : len(row["input_ids"])] = rng.random((3, len(row["input_ids"])), np.float32)
        return torch.from_numpy(draws)


#: Lower edges of the rank bins of the by-rank baseline.
RANK_EDGES = (0, 16, 32, 64, 128, 256, 512, 1024, 2048)


class MaskedGeneObjective:
    """Training objective (`training.fit`): masked genes; ``measure`` uses the same masks each time."""

    loss = None

    def __init__(self, vocabulary: Vocabulary, *, seed: int = 0):
        self.vocabulary, self.seed = vocabulary, seed
        self.collate = MaskedGenes(vocabulary, seed=seed)
        self.about = {"masked genes of": vocabulary.sha256, "masks": seed}

    def measure(self, model: PreTrainedModel, valid: EncodedCells) -> dict[str, float]:
        """Mean loss (nats) and accuracy over masked genes."""
        predictions = predict_masked_genes(model, valid, self.vocabulary, seed=self.seed)
        return {"loss": float(predictions["nll"].mean()), "accuracy": float(predictions["correct"].mean())}


@torch.no_grad()
def predict_masked_genes(
    model: PreTrainedModel,
    cells: EncodedCells,
    vocabulary: Vocabulary,
    *,
    seed: int,
    batch_size: int = INFERENCE_BATCH_SIZE,
) -> pd.DataFrame:
    """Predict masked genes; the masks are a function of the seed and the position of each cell only.

    Returns
    -------
    One row per masked gene: ``cell`` (position), ``rank`` (position in the cell), ``token`` (true), ``nll`` (nats),
    ``correct``.
    """
    model.eval()
    parts = []
    for rows, batch in MaskedGenes(vocabulary, seed=seed).batches(cells, batch_size):
        batch = batching.to_device(batch, model.device)
        masked = batch["labels"] != IGNORED  # (cells, length)
        if not masked.any():
            continue
        logits, true = model(**batch).logits.float(), batch["labels"][masked]  # (masked genes, vocabulary)
        cell, rank = (index.cpu().numpy() for index in torch.where(masked))
        nll = nn.functional.cross_entropy(logits, true, reduction="none")
        correct = logits.argmax(-1) == true
        parts.append((rows[cell], rank, true.cpu().numpy(), nll.cpu().numpy(), correct.cpu().numpy()))
    return _prediction_table(parts)


def _prediction_table(parts: list[tuple]) -> pd.DataFrame:
    """Table of `predict_masked_genes` from the columns of its parts."""
    columns = ("cell", "rank", "token", "nll", "correct")
    tables = [pd.DataFrame(dict(zip(columns, part, strict=True))) for part in parts]
    return pd.concat(tables).sort_values(["cell", "rank"], ignore_index=True)


class UnigramBaseline:
    """Baseline that predicts from gene counts of the training cells and ignores the input.

    Parameters
    ----------
    by_rank
        Whether to count genes by rank bin (`RANK_EDGES`); prediction then uses the rank of the masked gene.
    without_seen
        Whether to exclude the unmasked genes of the cell, since a cell contains each gene once.
    """

    def __init__(
        self, train: EncodedCells, vocabulary: Vocabulary, *, by_rank: bool = False, without_seen: bool = False
    ):
        self.edges = np.array(RANK_EDGES if by_rank else (0,))
        self.without_seen = without_seen
        genes = vocabulary.gene_tokens
        self.counts = np.zeros((len(self.edges), vocabulary.size))
        self.counts[:, genes] = 1.0  # unseen genes get non-zero probability
        for ids in token_ids(train):
            np.add.at(self.counts, (self._bin(np.arange(len(ids))), ids), np.isin(ids, genes).astype(float))

    def _bin(self, rank: np.ndarray) -> np.ndarray:
        return np.searchsorted(self.edges, rank, side="right") - 1

    def predict(self, cells: EncodedCells, vocabulary: Vocabulary, *, seed: int) -> pd.DataFrame:
        """Predict the same masked genes as `predict_masked_genes`, in the same format."""
        collate, parts = MaskedGenes(vocabulary, seed=seed), []
        for row, ids in enumerate(token_ids(cells)):
            masked = (collate([{"input_ids": ids, "row": row}])["labels"][0] != IGNORED).numpy()
            rank = np.flatnonzero(masked)
            if not len(rank):
                continue
            counts = self.counts[self._bin(rank)]  # (masked genes, vocabulary)
            if self.without_seen:
                counts = counts.copy()
                counts[:, np.unique(ids[~masked])] = 0
            true = ids[masked]
            probability = counts[np.arange(len(rank)), true] / counts.sum(axis=1)
            parts.append((row, rank, true, -np.log(probability), counts.argmax(axis=1) == true))
        return _prediction_table(parts)


def summarise_predictions(
    predictions: pd.DataFrame, *, batch_size: int = 16, n_bootstrap: int = 1000, seed: int = 0, donors: object = None
) -> pd.DataFrame:
    """Accuracy and perplexity averaged in three ways, with 95% bootstrap intervals over cells, or over donors.

    Over tokens, masked genes have equal weights, and perplexity is exp of the mean loss. Over cells, cells have equal
    weights, and perplexity is the mean over cells of exp(loss). Over batches (random, as in paper B's evaluation),
    accuracy and exp(loss) of each batch are averaged.

    Parameters
    ----------
    donors
        Donor of each cell, by position; the bootstrap then resamples donors.

    Returns
    -------
    Rows ``token``, ``cell`` and ``batch`` in ``over``; ``accuracy``, ``perplexity``, each with ``low`` and ``high``;
    ``n`` (tokens, cells, batches).
    """
    per_cell, rng = _per_cell(predictions), np.random.default_rng(seed)
    batches = rng.permutation(len(per_cell)) // batch_size
    means = {"token": _over_tokens, "cell": _over_cells, "batch": lambda *table: _over_batches(*table, batches)}
    bootstrap_weights, _ = _bootstrap_weights(per_cell.index, donors, n_bootstrap, rng)
    rows = []
    for over, mean in means.items():
        (value,) = mean(per_cell, np.ones((1, len(per_cell))))
        low, high = np.nanquantile(mean(per_cell, bootstrap_weights), [0.025, 0.975], axis=0)
        row = {"over": over, "n": {"token": len(predictions), "cell": len(per_cell), "batch": batches.max() + 1}[over]}
        for i, name in enumerate(("accuracy", "perplexity")):
            row |= {name: value[i], f"{name} low": low[i], f"{name} high": high[i]}
        rows.append(row)
    return pd.DataFrame(rows)


def loss_reduction(
    first: pd.DataFrame, second: pd.DataFrame, *, n_bootstrap: int = 1000, seed: int = 0, donors: object = None
) -> dict[str, float]:
    """Reduction of the loss per masked gene by the first model relative to the second, mean over cells.

    Both models are evaluated on the same masks.

    Returns
    -------
    ``difference`` (nats, positive if the first is better) with ``low`` and ``high`` (95% bootstrap over donors, or
    cells), and ``units`` (their number).
    """
    saved = (second["nll"] - first["nll"]).groupby(first["cell"]).mean()
    units = saved.index.to_numpy() if donors is None else np.asarray(donors)[saved.index]
    rng = np.random.default_rng(seed)
    mean, low, high, n = intervals.bootstrap_mean(saved, units, n_bootstrap=n_bootstrap, rng=rng)
    return {"difference": mean, "low": low, "high": high, "units": n}


def metric_differences(
    first: pd.DataFrame, second: pd.DataFrame, *, n_bootstrap: int = 1000, seed: int = 0, donors: object = None
) -> dict[str, float]:
    """Differences of two models on the same masked genes, means over tokens.

    Returns
    -------
    ``accuracy`` and ``perplexity`` of ``first`` minus those of ``second``, each with ``low`` and ``high`` (95% paired
    bootstrap over donors, or cells), and ``units`` (their number).
    """
    tables = [_per_cell(table) for table in (first, second)]
    bootstrap_weights, n_units = _bootstrap_weights(tables[0].index, donors, n_bootstrap, np.random.default_rng(seed))

    def differences(weights: np.ndarray) -> np.ndarray:
        first_metrics, second_metrics = (_over_tokens(table, weights) for table in tables)
        return first_metrics - second_metrics

    (value,) = differences(np.ones((1, len(tables[0]))))
    low, high = np.quantile(differences(bootstrap_weights), [0.025, 0.975], axis=0)
    result = {"units": n_units}
    for i, name in enumerate(("accuracy", "perplexity")):
        result |= {name: value[i], f"{name} low": low[i], f"{name} high": high[i]}
    return result


def _per_cell(predictions: pd.DataFrame) -> pd.DataFrame:
    """Number of masked genes, summed loss and number of correct predictions of each cell."""
    return predictions.groupby("cell").agg(n=("nll", "size"), nll=("nll", "sum"), correct=("correct", "sum"))


def _bootstrap_weights(
    cells: pd.Index, donors: object, n_bootstrap: int, rng: np.random.Generator
) -> tuple[np.ndarray, int]:
    """Weights of the cells in each bootstrap draw of donors (or of cells, without donors), and the number of units.

    Weights are draws x cells.
    """
    units = cells.to_numpy() if donors is None else np.asarray(donors)[cells]
    codes, names = pd.factorize(units)
    n = len(names)
    drawn = intervals.resample_donors(np.zeros(n), n_bootstrap, rng)
    return np.array([np.bincount(rows, minlength=n)[codes] for rows in drawn], float), n


def _over_tokens(cells: pd.DataFrame, weights: np.ndarray) -> np.ndarray:
    """Accuracy and perplexity of each draw, draws x 2, by weights of the cells, draws x cells."""
    n, nll, correct = (weights @ cells[name].to_numpy(float) for name in ("n", "nll", "correct"))
    return np.stack([correct / n, np.exp(nll / n)], axis=1)


def _over_cells(cells: pd.DataFrame, weights: np.ndarray) -> np.ndarray:
    metrics = np.stack([cells["correct"] / cells["n"], np.exp(cells["nll"] / cells["n"])], axis=1)  # (cells, 2)
    return weights @ metrics / weights.sum(axis=1, keepdims=True)


def _over_batches(cells: pd.DataFrame, weights: np.ndarray, batches: np.ndarray) -> np.ndarray:
    order = np.argsort(batches, kind="stable")
    starts = np.flatnonzero(np.diff(batches[order], prepend=-1))
    weights = weights[:, order]
    sums = {}  # (draws, batches)
    for name in ("n", "nll", "correct"):
        sums[name] = np.add.reduceat(weights * cells[name].to_numpy(float)[order], starts, axis=1)
    in_draw = sums["n"] > 0
    n = np.where(in_draw, sums["n"], 1)
    metrics = np.stack([sums["correct"] / n, np.exp(sums["nll"] / n)], axis=1)  # (draws, 2, batches)
    return metrics.mean(axis=2, where=in_draw[:, None])
