"""Masked genes: masks, training objective, and evaluation on the same cells and masks.

Paper B, section 3.1, reports MLM accuracy and perplexity without stating the unit of averaging; its code averages over
batches. The averages over tokens, cells and batches differ, so all three are reported. Of the selected genes a tenth
stays in its place, and a model need only copy it; so accuracy is also given by what a position shows (`KINDS`).
"""

import itertools
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
#: What a selected position shows: the mask token, another gene, or the gene itself.
KINDS = ("hidden", "replaced", "unchanged")
#: Definitions of columns of `accuracy_by_kind`'s table, for a page.
KIND_COLUMNS = {
    "kind": "what the position shows: the mask token (hidden), another gene (replaced) or the gene itself (unchanged)",
    "n": "selected genes",
    "accuracy": "share of genes predicted correctly",
    "perplexity": "exp of the mean loss",
}
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
    single
        Whether one gene of each cell is selected instead, and hidden.
    """

    vocabulary: Vocabulary
    pad_to: int | None = None
    seed: int = 0
    single: bool = False

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
        special = torch.isin(ids, self.special)
        selected = (selection < MASKED_SHARE) & ~special
        if self.single:
            drawn, action = selection.masked_fill(special, torch.inf), torch.zeros_like(action)
            selected = (drawn == drawn.amin(dim=1, keepdim=True)) & ~special
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
    single: bool = False,
) -> pd.DataFrame:
    """Predict masked genes; the masks are a function of the seed and the position of each cell only.

    Parameters
    ----------
    single
        Whether one gene of each cell is masked (`MaskedGenes`).

    Returns
    -------
    One row per selected gene: ``cell`` (position), ``rank`` (position in the cell), ``token`` (true), ``shown`` (token
    in its place), ``nll`` (nats), ``correct``, and ``kind`` (of `KINDS`).
    """
    model.eval()
    parts = []
    for rows, batch in MaskedGenes(vocabulary, seed=seed, single=single).batches(cells, batch_size):
        batch = batching.to_device(batch, model.device)
        masked = batch["labels"] != IGNORED  # (cells, length)
        if not masked.any():
            continue
        logits, true = model(**batch).logits.float(), batch["labels"][masked]  # (masked genes, vocabulary)
        cell, rank = torch.where(masked)
        nll = nn.functional.cross_entropy(logits, true, reduction="none")
        tensors = (rank, true, batch["input_ids"][masked], nll, logits.argmax(-1) == true)
        parts.append((rows[cell.cpu().numpy()], *(tensor.cpu().numpy() for tensor in tensors)))
    return prediction_table(parts, vocabulary)


def prediction_table(parts: list[tuple], vocabulary: Vocabulary) -> pd.DataFrame:
    """Table of `predict_masked_genes` from parts, each with its columns ``cell`` to ``correct``."""
    columns = ("cell", "rank", "token", "shown", "nll", "correct")
    tables = [pd.DataFrame(dict(zip(columns, part, strict=True))) for part in parts]
    table = pd.concat(tables).sort_values(["cell", "rank"], ignore_index=True)
    return table.assign(kind=kinds_of_positions(table["token"], table["shown"], vocabulary))


def kinds_of_positions(token: pd.Series, shown: pd.Series, vocabulary: Vocabulary) -> pd.Categorical:
    """What each selected position shows; a random gene that is the true one counts as unchanged."""
    codes = np.select([shown == vocabulary.tokens[MASK], shown != token], [0, 1], 2)
    return pd.Categorical.from_codes(codes, KINDS)


def mask_cell(ids: np.ndarray, collate: MaskedGenes, *, row: int) -> tuple[np.ndarray, np.ndarray]:
    """Visible token of each position of a cell, and whether the position is selected."""
    batch = collate([{"input_ids": ids, "row": row}])
    return batch["input_ids"][0].numpy(), (batch["labels"][0] != IGNORED).numpy()


def summarise_predictions(
    predictions: pd.DataFrame, *, batch_size: int = 16, n_bootstrap: int = 1000, seed: int = 0, donors: object = None
) -> pd.DataFrame:
    """Accuracy and perplexity averaged in three ways, with 95% bootstrap intervals over cells, or over donors.

    Intervals are NaN with fewer than `intervals.LEAST_UNITS` donors; `metrics_by_donor` gives the donors' values.

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
    bootstrap_weights, n_units = _bootstrap_weights(per_cell.index, donors, n_bootstrap, rng)
    rows = []
    for over, mean in means.items():
        (value,) = mean(per_cell, np.ones((1, len(per_cell))))
        row = {"over": over, "n": {"token": len(predictions), "cell": len(per_cell), "batch": batches.max() + 1}[over]}
        rows.append(row | _with_limits(value, mean(per_cell, bootstrap_weights), n_units))
    return pd.DataFrame(rows)


def _with_limits(value: np.ndarray, bootstrapped: np.ndarray, n_units: int) -> dict[str, float]:
    """Accuracy and perplexity with the limits of their intervals, as columns."""
    limits = np.full((2, 2), np.nan)
    if n_units >= intervals.LEAST_UNITS:
        limits = np.nanquantile(bootstrapped, [0.025, 0.975], axis=0)
    columns = {}
    for i, name in enumerate(("accuracy", "perplexity")):
        columns |= {name: value[i], f"{name} low": limits[0, i], f"{name} high": limits[1, i]}
    return columns


def accuracy_by_kind(
    predictions: dict[str, pd.DataFrame], *, n_bootstrap: int = 1000, seed: int = 0, donors: object = None
) -> pd.DataFrame:
    """Accuracy and perplexity over the hidden, replaced and unchanged positions apart, and over all, means over tokens.

    Parameters
    ----------
    predictions
        Model -> output of `predict_masked_genes`, or of a baseline (`masked_gene_baselines`).
    donors
        Donor of each cell, by position; the bootstrap then resamples donors.

    Returns
    -------
    One row a model and kind: ``model``, ``kind`` (of `KINDS`, or ``all``), ``n`` (genes), ``accuracy`` and
    ``perplexity``, each with ``low`` and ``high``, as `summarise_predictions` returns them.
    """
    rows = []
    for (model, table), kind in itertools.product(predictions.items(), (*KINDS, "all")):
        part = table if kind == "all" else table[table["kind"] == kind]
        if part.empty:
            continue
        per_cell = _per_cell(part)
        weights, n_units = _bootstrap_weights(per_cell.index, donors, n_bootstrap, np.random.default_rng(seed))
        (value,) = _over_tokens(per_cell, np.ones((1, len(per_cell))))
        row = {"model": model, "kind": kind, "n": len(part)}
        rows.append(row | _with_limits(value, _over_tokens(per_cell, weights), n_units))
    return pd.DataFrame(rows)


def metrics_by_donor(predictions: dict[str, pd.DataFrame], donors: object) -> pd.DataFrame:
    """Means over the tokens of each donor.

    Returns
    -------
    One row a model and donor: ``model``, ``donor``, ``cells``, ``n`` (genes), ``accuracy``, ``hidden accuracy`` (where
    the mask token is shown), ``perplexity``.
    """
    parts = []
    for model, table in predictions.items():
        table = table.assign(donor=np.asarray(donors)[table["cell"]])
        by_donor = table.groupby("donor").agg(
            cells=("cell", "nunique"), n=("nll", "size"), accuracy=("correct", "mean"), loss=("nll", "mean")
        )
        hidden = table[table["kind"] == "hidden"].groupby("donor")["correct"].mean()
        by_donor.insert(3, "hidden accuracy", hidden.reindex(by_donor.index))
        by_donor["perplexity"] = np.exp(by_donor.pop("loss"))
        parts.append(by_donor.reset_index().assign(model=model))
    table = pd.concat(parts, ignore_index=True)
    return table[["model", *table.columns.drop("model")]]


def loss_reduction(
    first: pd.DataFrame, second: pd.DataFrame, *, n_bootstrap: int = 1000, seed: int = 0, donors: object = None
) -> dict[str, float]:
    """Reduction of the loss per masked gene by the first model relative to the second, mean over cells.

    Both models are evaluated on the same masks.

    Returns
    -------
    ``difference`` (nats, positive if the first is better) with ``low`` and ``high`` (95% bootstrap; NaN with fewer than
    `intervals.LEAST_UNITS`), ``units`` (number of donors, or cells), their name ``unit``, and ``values`` (of each).
    """
    saved = (second["nll"] - first["nll"]).groupby(first["cell"]).mean()
    units = saved.index.to_numpy() if donors is None else np.asarray(donors)[saved.index]
    rng = np.random.default_rng(seed)
    mean, low, high, n = intervals.bootstrap_mean(saved, units, n_bootstrap=n_bootstrap, rng=rng)
    if n < intervals.LEAST_UNITS:
        low = high = np.nan
    row = {"difference": mean, "low": low, "high": high, "units": n, "unit": "cells" if donors is None else "donors"}
    return row | {"values": saved.groupby(units).mean().to_dict()}


def is_sure(gain: dict[str, object]) -> bool:
    """Whether a reduction of the loss lies above 0: its whole interval or, of few donors, the value of each."""
    return (min(gain["values"].values()) if pd.isna(gain["low"]) else gain["low"]) > 0


def describe_gain(gain: dict[str, object], model: str, baseline: str, kind: str) -> str:
    """The result of `loss_reduction` as a sentence in MyST, with its interval or the values of its units."""
    side = "below" if gain["difference"] >= 0 else "above"
    sentence = f"The loss of {model} lies {abs(gain['difference']):.2f} nats per {kind} gene {side} that of {baseline}"
    units, low, high = f"{gain['units']} {gain['unit']}", f"{gain['low']:+.2f}", f"{gain['high']:+.2f}"
    if not pd.isna(gain["low"]):
        return f"{sentence} (mean over cells; 95% interval of the reduction {low} to {high} over {units})."
    values = ", ".join(f"{value:+.2f}" for value in gain["values"].values())
    return f"{sentence} (reduction in each of {units}: {values})."


def describe_learning(
    gain: dict[str, object], hidden_gain: dict[str, object], by_kind: pd.DataFrame, *, model: str, copy: str
) -> list[str]:
    """What a model has learned that baselines do not know, in sentences (MyST).

    Parameters
    ----------
    gain, hidden_gain
        `loss_reduction` over the baseline ``copy`` at all positions, and over the strongest baseline at hidden ones.
    by_kind
        Output of `accuracy_by_kind`, with both.
    """
    sentences = [
        describe_gain(gain, f"`{model}`", f"the {copy}", "selected"),
        describe_gain(hidden_gain, f"`{model}`", "the strongest baseline", "hidden"),
    ]
    accuracy = by_kind[by_kind["kind"] == "all"].set_index("model")["accuracy"]
    if not (is_sure(gain) and is_sure(hidden_gain)):
        sentences.append("**This model has not learned** more than the baselines know.")
    elif accuracy[model] < accuracy[copy]:
        sentences.append(
            "It has learned which genes are likely, but not to copy a visible gene: over all selected positions, the "
            f"{copy} predicts more genes correctly."
        )
    return sentences


def metric_differences(
    first: pd.DataFrame, second: pd.DataFrame, *, n_bootstrap: int = 1000, seed: int = 0, donors: object = None
) -> dict[str, float]:
    """Differences of two models on the same masked genes, means over tokens.

    Returns
    -------
    ``accuracy`` and ``perplexity`` of ``first`` minus those of ``second``, each with ``low`` and ``high`` (95% paired
    bootstrap over donors, or cells; NaN with fewer than `intervals.LEAST_UNITS`), and ``units`` (their number).
    """
    tables = [_per_cell(table) for table in (first, second)]
    bootstrap_weights, n_units = _bootstrap_weights(tables[0].index, donors, n_bootstrap, np.random.default_rng(seed))

    def differences(weights: np.ndarray) -> np.ndarray:
        first_metrics, second_metrics = (_over_tokens(table, weights) for table in tables)
        return first_metrics - second_metrics

    (value,) = differences(np.ones((1, len(tables[0]))))
    return {"units": n_units} | _with_limits(value, differences(bootstrap_weights), n_units)


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
