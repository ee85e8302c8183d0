"""How well masked genes are predicted: the same cells and masks for every model, and rivals that read no cell.

Paper B, section 3.1, reports MLM accuracy and perplexity without saying over what they are averaged; its code averages over
batches. Here tokens, cells and batches are each averaged over, since they differ.
"""

import numpy as np
import pandas as pd
import torch
from torch import nn
from transformers import PreTrainedModel

from epigen_utils import evaluation
from epigen_utils.batching import MaskedGenes
from epigen_utils.models import IGNORED
from epigen_utils.vocabularies import Vocabulary

#: Bins of the rank that the by-rank rival counts genes in.
RANKS = (0, 16, 32, 64, 128, 256, 512, 1024, 2048)


class Objective:
    """Masked genes as something to train for (`training.fit`); ``measure`` asks with the same masks each time."""

    loss = None

    def __init__(self, vocabulary: Vocabulary, *, seed: int = 0):
        self.vocabulary, self.seed = vocabulary, seed
        self.collate = MaskedGenes(vocabulary, seed=seed)
        self.about = {"masked genes of": vocabulary.sha256, "masks": seed}

    def measure(self, model: PreTrainedModel, valid: object) -> dict[str, float]:
        """Mean loss (nats) and accuracy over masked genes."""
        found = predict(model, valid, self.vocabulary, seed=self.seed)
        return {"loss": float(found["nll"].mean()), "accuracy": float(found["correct"].mean())}


def ordered(cells: list | object) -> list[dict]:
    """Cells as rows with their position as ``row``, longest first, so that batches have little padding."""
    rows = [{"input_ids": np.asarray(ids), "row": row} for row, ids in enumerate(cells["input_ids"])]
    return sorted(rows, key=lambda row: -len(row["input_ids"]))


@torch.no_grad()
def predict(
    model: PreTrainedModel,
    cells: object,
    vocabulary: Vocabulary,
    *,
    seed: int,
    batch_size: int = 16,
) -> pd.DataFrame:
    """Ask a model for masked genes; the masks depend on the seed and the position of a cell, on nothing else.

    Parameters
    ----------
    cells
        Encoded cells: something whose ``["input_ids"]`` are token ids.

    Returns
    -------
    A row a masked gene: ``cell`` (position), ``rank`` (position in it), ``token`` (true), ``nll`` (nats) and ``correct``.
    """
    model.eval()
    collate = MaskedGenes(vocabulary, seed=seed)
    rows, found = ordered(cells), []
    for first in range(0, len(rows), batch_size):
        part = rows[first : first + batch_size]
        batch = {name: values.to(model.device) for name, values in collate(part).items()}
        asked = batch["labels"] != IGNORED
        if not asked.any():
            continue
        logits, true = model(**batch).logits.float(), batch["labels"][asked]
        cell, rank = (place.cpu().numpy() for place in torch.where(asked))
        found.append(
            pd.DataFrame(
                {
                    "cell": np.array([row["row"] for row in part])[cell],
                    "rank": rank,
                    "token": true.cpu().numpy(),
                    "nll": nn.functional.cross_entropy(logits, true, reduction="none").cpu().numpy(),
                    "correct": (logits.argmax(-1) == true).cpu().numpy(),
                }
            )
        )
    return pd.concat(found).sort_values(["cell", "rank"], ignore_index=True)


class Unigram:
    """Rivals that count genes in the training cells and read nothing of the cell that they are asked about.

    Parameters
    ----------
    train
        Encoded cells.
    by_rank
        Whether genes are counted by where in the cell they stand (`RANKS`), which only the mask's place is needed for.
    without_seen
        Whether genes that the cell shows elsewhere are ruled out, since a cell names each gene once.
    """

    def __init__(self, train: object, vocabulary: Vocabulary, *, by_rank: bool = False, without_seen: bool = False):
        self.edges = np.array(RANKS if by_rank else (0,))
        self.without_seen = without_seen
        genes = vocabulary.gene_tokens
        self.counts = np.zeros((len(self.edges), vocabulary.size))
        self.counts[:, genes] = 1.0  # a gene that was never seen is possible
        for ids in train["input_ids"]:
            ids = np.asarray(ids)
            np.add.at(self.counts, (self._bin(np.arange(len(ids))), ids), np.isin(ids, genes).astype(float))

    def _bin(self, rank: np.ndarray) -> np.ndarray:
        return np.searchsorted(self.edges, rank, side="right") - 1

    def predict(self, cells: object, vocabulary: Vocabulary, *, seed: int) -> pd.DataFrame:
        """As `predict`, for the same masks."""
        collate, found = MaskedGenes(vocabulary, seed=seed), []
        for row in ordered(cells):
            batch = collate([row])
            asked = (batch["labels"][0] != IGNORED).numpy()
            rank = np.flatnonzero(asked)
            if not len(rank):
                continue
            counts = self.counts[self._bin(rank)]
            if self.without_seen:
                counts = counts.copy()
                counts[:, np.unique(row["input_ids"][~asked])] = 0
            true = row["input_ids"][asked]
            share = counts[np.arange(len(rank)), true] / counts.sum(axis=1)
            found.append(
                pd.DataFrame(
                    {
                        "cell": row["row"],
                        "rank": rank,
                        "token": true,
                        "nll": -np.log(share),
                        "correct": counts.argmax(axis=1) == true,
                    }
                )
            )
        return pd.concat(found).sort_values(["cell", "rank"], ignore_index=True)


def summary(
    predictions: pd.DataFrame, *, batch_size: int = 16, n_bootstrap: int = 1000, seed: int = 0, donors: object = None
) -> pd.DataFrame:
    """Accuracy and perplexity averaged in three ways, with 95% bootstrap intervals over cells, or over donors.

    Over tokens every masked gene counts the same, and perplexity is exp of the mean loss. Over cells each cell counts the
    same, and perplexity is the mean of the cells' own. Over batches (random ones, as paper B's evaluation has them) the mean
    is of each batch's accuracy and exp(loss).

    Parameters
    ----------
    donors
        Who each cell is from, by position; whole donors are then drawn.

    Returns
    -------
    Rows ``token``, ``cell`` and ``batch`` in ``over``; ``accuracy``, ``perplexity``, each with ``low`` and ``high``; ``n``
    (tokens, cells, batches).
    """
    per_cell, rng = _per_cell(predictions), np.random.default_rng(seed)
    batches = rng.permutation(len(per_cell)) // batch_size
    means = {"token": _over_tokens, "cell": _over_cells, "batch": lambda cells: _over_batches(cells, batches)}
    drawn, _ = _weights(per_cell.index, donors, n_bootstrap, rng)
    rows = []
    for over, mean in means.items():
        value = mean(per_cell.assign(w=1.0))
        resampled = np.array([mean(per_cell.assign(w=weights)) for weights in drawn])
        low, high = np.nanquantile(resampled, [0.025, 0.975], axis=0)
        row = {"over": over, "n": {"token": len(predictions), "cell": len(per_cell), "batch": batches.max() + 1}[over]}
        for place, name in enumerate(("accuracy", "perplexity")):
            row |= {name: value[place], f"{name} low": low[place], f"{name} high": high[place]}
        rows.append(row)
    return pd.DataFrame(rows)


def difference(
    one: pd.DataFrame, other: pd.DataFrame, *, n_bootstrap: int = 1000, seed: int = 0, donors: object = None
) -> dict[str, float]:
    """How many nats a masked gene the first saves against the second, over the same masks, mean over cells.

    Returns
    -------
    ``difference`` (positive where the first is better) with ``low`` and ``high`` (95% bootstrap over donors, or cells) and
    ``units``.
    """
    saved = (other["nll"] - one["nll"]).groupby(one["cell"]).mean()
    units = saved.index.to_numpy() if donors is None else np.asarray(donors)[saved.index]
    rng = np.random.default_rng(seed)
    mean, low, high, n = evaluation.mean_over_units(saved, units, n_bootstrap=n_bootstrap, rng=rng)
    return {"difference": mean, "low": low, "high": high, "units": n}


def gap(
    one: pd.DataFrame, other: pd.DataFrame, *, n_bootstrap: int = 1000, seed: int = 0, donors: object = None
) -> dict[str, float]:
    """How much worse or better a model is than another, asked for the same masked genes; means over tokens.

    Returns
    -------
    ``accuracy`` and ``perplexity`` of ``one`` less those of ``other``, each with ``low`` and ``high`` (95% bootstrap over donors, or
    cells, the same ones drawn for both), and ``units``.
    """
    tables = [_per_cell(table) for table in (one, other)]
    drawn, n_units = _weights(tables[0].index, donors, n_bootstrap, np.random.default_rng(seed))

    def between(weights: np.ndarray) -> np.ndarray:
        first, second = (np.array(_over_tokens(table.assign(w=weights))) for table in tables)
        return first - second

    value = between(np.ones(len(tables[0])))
    low, high = np.quantile([between(weights) for weights in drawn], [0.025, 0.975], axis=0)
    found = {"units": n_units}
    for place, name in enumerate(("accuracy", "perplexity")):
        found |= {name: value[place], f"{name} low": low[place], f"{name} high": high[place]}
    return found


def _per_cell(predictions: pd.DataFrame) -> pd.DataFrame:
    """Masked genes, their summed loss and the right answers of each cell."""
    return predictions.groupby("cell").agg(n=("nll", "size"), nll=("nll", "sum"), correct=("correct", "sum"))


def _weights(
    cells: pd.Index, donors: object, n_bootstrap: int, rng: np.random.Generator
) -> tuple[list[np.ndarray], int]:
    """How often each cell counts when donors, or without them cells, are drawn again; and how many of these there are."""
    units = cells.to_numpy() if donors is None else np.asarray(donors)[cells]
    codes, names = pd.factorize(units)
    n = len(names)
    drawn = [np.bincount(rng.integers(n, size=n), minlength=n)[codes].astype(float) for _ in range(n_bootstrap)]
    return drawn, n


def _over_tokens(cells: pd.DataFrame) -> tuple[float, float]:
    n = (cells["n"] * cells["w"]).sum()
    return (cells["correct"] * cells["w"]).sum() / n, np.exp((cells["nll"] * cells["w"]).sum() / n)


def _over_cells(cells: pd.DataFrame) -> tuple[float, float]:
    weights = cells["w"] / cells["w"].sum()
    return (weights * cells["correct"] / cells["n"]).sum(), (weights * np.exp(cells["nll"] / cells["n"])).sum()


def _over_batches(cells: pd.DataFrame, batches: np.ndarray) -> tuple[float, float]:
    w = cells["w"].to_numpy()
    n, nll, correct = (np.bincount(batches, cells[name].to_numpy() * w) for name in ("n", "nll", "correct"))
    there = n > 0
    return (correct[there] / n[there]).mean(), np.exp(nll[there] / n[there]).mean()
