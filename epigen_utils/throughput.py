"""Ways of making batches of cells of unlike length, and how many real tokens a second a training step gets through with each.

Paper B, section 2.4.1 and Figure 5. A token is real if it is no padding.
"""

import contextlib
import time
from collections.abc import Callable

import numpy as np
import torch
from torch import nn
from transformers import PretrainedConfig, PreTrainedModel
from transformers.trainer_pt_utils import get_length_grouped_indices

from epigen_utils import batching
from epigen_utils.batching import MaskedGenes
from epigen_utils.models import IGNORED, attending, build, without_attention_dropout
from epigen_utils.vocabularies import Vocabulary

#: How cells come into batches.
STRATEGIES = ("random", "grouped", "sorted")


def batches(lengths: np.ndarray, strategy: str, *, batch_size: int, seed: int = 0) -> list[np.ndarray]:
    """Positions of the cells of each batch.

    Parameters
    ----------
    strategy
        ``random``; ``grouped``, the Hugging Face sampler (random mega-batches of at most 50 batches, each sorted by length);
        ``sorted``, all cells by length, which leaves the least padding and no randomness.

    Raises
    ------
    ValueError
        If there is no such strategy.
    """
    if strategy not in STRATEGIES:
        raise ValueError(f"strategy {strategy!r} is not one of {', '.join(STRATEGIES)}")
    drawn = torch.Generator().manual_seed(seed)
    if strategy == "random":
        order = torch.randperm(len(lengths), generator=drawn).numpy()
    elif strategy == "grouped":
        order = np.array(get_length_grouped_indices(list(lengths), batch_size, generator=drawn))
    else:
        order = np.argsort(-np.asarray(lengths), kind="stable")
    return [order[first : first + batch_size] for first in range(0, len(order), batch_size)]


def packed(lengths: np.ndarray, *, room: int) -> list[np.ndarray]:
    """Cells laid end to end in rows of at most ``room`` tokens, longest first into the first row that has room for it."""
    rows: list[list[int]] = []
    left: list[int] = []
    for cell in np.argsort(-np.asarray(lengths), kind="stable"):
        place = next((row for row, free in enumerate(left) if free >= lengths[cell]), None)
        if place is None:
            rows.append([])
            left.append(room)
            place = len(rows) - 1
        rows[place].append(int(cell))
        left[place] -= int(lengths[cell])
    return [np.array(row) for row in rows]


def packed_batch(collate: MaskedGenes, rows: list[dict]) -> dict[str, torch.Tensor]:
    """Cells end to end in one row, each attending to itself alone, positions counted from each cell's own start."""
    one = collate(rows)
    real = one["attention_mask"].bool()
    cell = torch.where(real)[0]
    ids, labels = one["input_ids"][real][None], one["labels"][real][None]
    place = torch.cat([torch.arange(int(n)) for n in real.sum(axis=1)])[None]
    return {
        "input_ids": ids,
        "labels": labels,
        "position_ids": place,
        "attention_mask": (cell[:, None] == cell[None, :])[None, None],
    }


def compared(lengths: np.ndarray, *, batch_size: int, full: int, seed: int = 0) -> list[dict]:
    """Padding by the way batches are made.

    Returns
    -------
    A row a way: ``batches``, ``pad tokens``, ``padding`` (share of the positions), ``linear`` and ``quadratic`` (positions,
    and pairs within rows, over what the cells alone need), ``faster, linear`` and ``faster, quadratic`` (than rows of the full
    length).
    """
    made = {name: batches(lengths, name, batch_size=batch_size, seed=seed) for name in STRATEGIES}
    costs = {"full length": batching.padding(lengths, made["random"], pad_to=full)}
    costs |= {name: batching.padding(lengths, groups) for name, groups in made.items()}
    rows = packed(lengths, room=full)
    # Pairs of a packed row are those within its cells, where attention knows of the blocks.
    costs["packed"] = {"share": 1 - lengths.sum() / (len(rows) * full), "linear": len(rows) * full / lengths.sum()}
    costs["packed"]["quadratic"] = 1.0
    first = costs["full length"]
    table = []
    for name, cost in costs.items():
        row = {"batches": name, "pad tokens": round(lengths.sum() * (cost["linear"] - 1)), "padding": cost["share"]}
        row |= {"linear": cost["linear"], "quadratic": cost["quadratic"]}
        row |= {f"faster, {by}": first[by] / cost[by] for by in ("linear", "quadratic")}
        table.append(row)
    return table


def spread(encoded: object, n: int) -> list[dict]:
    """Cells with evenly spread quantiles of length, as rows, so that few of them stand for all."""
    order = np.argsort(np.asarray(encoded["length"]), kind="stable")
    chosen = order[((np.arange(n) + 0.5) / n * len(order)).astype(int)]
    return [{"input_ids": np.asarray(encoded[int(cell)]["input_ids"]), "row": int(cell)} for cell in chosen]


def lengths_of(rows: list[dict]) -> np.ndarray:
    """Tokens of each cell."""
    return np.array([len(row["input_ids"]) for row in rows])


def ladder(
    config: PretrainedConfig,
    rows: list[dict],
    vocabulary: Vocabulary,
    *,
    batch_size: int,
    full: int,
    seed: int = 0,
    repeats: int = 1,
    device: str = "cpu",
    padded_every: int = 1,
) -> list[dict]:
    """Time training steps on the same cells with the same masks, each rung with one more change than the last.

    Parameters
    ----------
    rows
        Cells in the order of their lengths.
    padded_every
        The slow rungs, with random batches, are timed on one in so many of the cells.

    Returns
    -------
    A row a rung: ``step``, ``tokens a second`` (real ones, the best of the repeats), ``times`` (over the plain step),
    ``padding`` and ``loss``. The last rung is what the Hugging Face Trainer does with
    ``train_sampling_strategy="group_by_length"``.
    """

    def made(some: list[dict], strategy: str, pad_to: int | None) -> list[Callable]:
        collate = MaskedGenes(vocabulary, pad_to=pad_to, seed=seed)
        groups = batches(lengths_of(some), strategy, batch_size=batch_size, seed=seed)
        return [lambda group=group: collate([some[cell] for cell in group]) for group in groups]

    collate = MaskedGenes(vocabulary, seed=seed)
    rooms = packed(lengths_of(rows), room=full)
    pack = [lambda row=row: packed_batch(collate, [rows[cell] for cell in row]) for row in rooms]
    # The sampler's mega-batches hold hundreds of cells, more than are timed: within one, batches are of the cells in order.
    grouped = made(rows, "sorted", None)
    few = rows[::padded_every]
    rungs = {
        "plain": (made(few, "random", full), False, True, True),
        "random": (made(few, "random", None), False, True, True),
        "grouped": (grouped, False, True, True),
        "grouped, masked logits": (grouped, False, False, True),
        "grouped, masked logits, bf16": (grouped, True, False, True),
        "ours: and attention by matmul": (grouped, True, False, False),
        "ours, packed": (pack, True, False, False),
        "the Trainer's: grouped, bf16": (grouped, True, True, True),
    }
    found: dict[str, list[dict]] = {name: [] for name in rungs}
    for _ in range(repeats):  # in turn, so that a noisy neighbour meets all of them
        for name, (making, bf16, all_logits, dropout) in rungs.items():
            model = build(config, "masked-lm", seed=seed).to(device)
            model = model if dropout else without_attention_dropout(model)
            by_matmul = bf16 and not dropout and device == "cpu"
            with attending(model, "matmul") if by_matmul else contextlib.nullcontext():
                measure(model, making[-1:], bf16=bf16, all_logits=all_logits)
                found[name].append(measure(model, making, bf16=bf16, all_logits=all_logits))
    table = []
    for name, runs in found.items():
        best = max(run["tokens a second"] for run in runs)
        row = {"step": name, "tokens a second": best, "padding": runs[0]["padding"], "loss": runs[0]["loss"]}
        table.append(row | {"times": best / table[0]["tokens a second"] if table else 1.0})
    return table


def step(
    model: PreTrainedModel,
    batch: dict[str, torch.Tensor],
    optimizer: torch.optim.Optimizer,
    *,
    bf16: bool,
    all_logits: bool,
) -> float:
    """One training step; the loss.

    Parameters
    ----------
    all_logits
        Whether every position is projected to the vocabulary, as `BertForMaskedLM` does of itself.
    """
    device = next(model.parameters()).device.type
    mixed = torch.autocast(device, torch.bfloat16) if bf16 else contextlib.nullcontext()
    with mixed:
        if all_logits:
            inputs = {name: values for name, values in batch.items() if name != "labels"}
            logits = type(model).forward(model, **inputs).logits
            loss = nn.functional.cross_entropy(
                logits.view(-1, logits.shape[-1]).float(), batch["labels"].view(-1), ignore_index=IGNORED
            )
        else:
            loss = model(**batch).loss
    loss.backward()
    optimizer.step()
    optimizer.zero_grad(set_to_none=True)
    return float(loss.detach())


def measure(
    model: PreTrainedModel,
    made: list[Callable[[], dict[str, torch.Tensor]]],
    *,
    bf16: bool = False,
    all_logits: bool = False,
) -> dict[str, float]:
    """Train for one pass over batches, and count.

    Parameters
    ----------
    made
        Makes each batch, which is part of the time.

    Returns
    -------
    ``tokens`` (real), ``seconds``, ``tokens a second``, ``padding`` (share of the positions) and ``loss`` (mean over batches).
    """
    model.train()
    # Fused, as the Trainer has it by default.
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-4, fused=True)
    tokens = positions = 0
    losses = []
    start = time.perf_counter()
    for make in made:
        batch = make()
        mask = batch["attention_mask"]
        tokens += int(mask.sum()) if mask.ndim == 2 else batch["input_ids"].numel()
        positions += batch["input_ids"].numel()
        on_device = {name: values.to(model.device) for name, values in batch.items()}
        losses.append(step(model, on_device, optimizer, bf16=bf16, all_logits=all_logits))
    if model.device.type == "cuda":
        torch.cuda.synchronize()
    seconds = time.perf_counter() - start
    return {
        "tokens": tokens,
        "seconds": seconds,
        "tokens a second": tokens / seconds,
        "padding": 1 - tokens / positions,
        "loss": float(np.mean(losses)),
    }
