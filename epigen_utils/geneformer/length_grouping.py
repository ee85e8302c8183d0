"""Batching strategies for cells of unequal length, and the throughput of training steps in real tokens per second.

Paper B, section 2.4.1 and Figure 5. Real tokens exclude padding.
"""

import contextlib
import time
from collections.abc import Callable

import datasets
import numpy as np
import torch
from torch import nn
from transformers import PretrainedConfig, PreTrainedModel
from transformers.trainer_pt_utils import get_length_grouped_indices

from epigen_utils.geneformer.masked_genes import MaskedGenes
from epigen_utils.geneformer.vocabularies import Vocabulary
from epigen_utils.models import batching
from epigen_utils.models.attention_kernels import attention_implementation, disable_attention_dropout
from epigen_utils.models.batching import IGNORED
from epigen_utils.models.presets import build

#: Definitions of columns of the tables here, for a page.
PADDING_COLUMNS = {
    "batches": "how batches are formed; packed: cells end to end in rows of the full length",
    "padding": "share of the positions that is padding",
    "linear": "positions relative to the cells without padding",
    "quadratic": "pairs of positions in a row, relative to the cells without padding",
    "faster, linear": "speed-up over rows of the full length, if cost is linear in positions",
    "faster, quadratic": "the same, if cost is linear in pairs of positions",
}
STEP_COLUMNS = {
    "tokens a second": "tokens without padding",
    "times": "speed relative to the plain step",
    "padding": "share of the positions that is padding",
    "loss": "mean loss over the pass, nats per selected gene; all rows train alike but for rounding and dropout",
}
#: Ways of forming batches.
STRATEGIES = ("random", "grouped", "sorted")


def make_batches(lengths: np.ndarray, strategy: str, *, batch_size: int, seed: int = 0) -> list[np.ndarray]:
    """Positions of the cells of each batch.

    Parameters
    ----------
    strategy
        ``random``; ``grouped``, the Hugging Face sampler (random mega-batches of at most 50 batches, each sorted by
        length); ``sorted``, all cells by length, with the least padding and no randomness.

    Raises
    ------
    ValueError
        If the strategy is unknown.
    """
    if strategy not in STRATEGIES:
        raise ValueError(f"strategy {strategy!r} is not one of {', '.join(STRATEGIES)}")
    generator = torch.Generator().manual_seed(seed)
    if strategy == "random":
        order = torch.randperm(len(lengths), generator=generator).numpy()
    elif strategy == "grouped":
        order = np.array(get_length_grouped_indices(list(lengths), batch_size, generator=generator))
    else:
        return list(batching.length_batches(lengths, size=batch_size))
    return [order[first : first + batch_size] for first in range(0, len(order), batch_size)]


def pack_cells(lengths: np.ndarray, *, row_length: int) -> list[np.ndarray]:
    """Pack cells end to end into rows of at most ``row_length`` tokens (first fit, longest cell first)."""
    rows: list[list[int]] = []
    free: list[int] = []
    for cell in np.argsort(-np.asarray(lengths), kind="stable"):
        row = next((row for row, space in enumerate(free) if space >= lengths[cell]), None)
        if row is None:
            rows.append([])
            free.append(row_length)
            row = len(rows) - 1
        rows[row].append(int(cell))
        free[row] -= int(lengths[cell])
    return [np.array(row) for row in rows]


def packed_batch(collate: MaskedGenes, rows: list[dict]) -> dict[str, torch.Tensor]:
    """Cells end to end in one row: attention within each cell only, positions counted from each cell's start."""
    batch = collate(rows)
    real = batch["attention_mask"].bool()  # (cells, length)
    cell = torch.where(real)[0]  # (real tokens,)
    return {
        "input_ids": batch["input_ids"][real][None],  # (1, real tokens), as labels and positions
        "labels": batch["labels"][real][None],
        "position_ids": torch.cat([torch.arange(int(n)) for n in real.sum(axis=1)])[None],
        "attention_mask": (cell[:, None] == cell[None, :])[None, None],  # (1, 1, real tokens, real tokens)
    }


def compare_padding(lengths: np.ndarray, *, batch_size: int, full_length: int, seed: int = 0) -> list[dict]:
    """Compare the padding of the strategies, of rows of full length, and of packed rows.

    Returns
    -------
    One row per strategy: ``batches``, ``pad tokens``, ``padding`` (share of the positions), ``linear`` and
    ``quadratic`` (positions, and pairs within rows, relative to the unpadded cells), ``faster, linear`` and
    ``faster, quadratic`` (relative to rows of full length).
    """
    groups = {name: make_batches(lengths, name, batch_size=batch_size, seed=seed) for name in STRATEGIES}
    costs = {"full length": batching.padding_cost(lengths, groups["random"], pad_to=full_length)}
    costs |= {name: batching.padding_cost(lengths, positions) for name, positions in groups.items()}
    n_positions = len(pack_cells(lengths, row_length=full_length)) * full_length
    # Block-diagonal attention computes only the pairs within cells, hence the quadratic cost of 1.
    linear = n_positions / lengths.sum()
    costs["packed"] = {"share": 1 - lengths.sum() / n_positions, "linear": linear, "quadratic": 1.0}
    reference = costs["full length"]
    table = []
    for name, cost in costs.items():
        row = {"batches": name, "pad tokens": round(lengths.sum() * (cost["linear"] - 1)), "padding": cost["share"]}
        row |= {"linear": cost["linear"], "quadratic": cost["quadratic"]}
        row |= {f"faster, {order}": reference[order] / cost[order] for order in ("linear", "quadratic")}
        table.append(row)
    return table


def sample_by_length(cells: datasets.Dataset, n_cells: int) -> list[dict]:
    """Sample ``n_cells`` cells at evenly spaced quantiles of length, as rows: few cells represent all lengths."""
    order = np.argsort(np.asarray(cells["length"]), kind="stable")
    chosen = order[((np.arange(n_cells) + 0.5) / n_cells * len(order)).astype(int)]
    return [{"input_ids": np.asarray(cells[int(cell)]["input_ids"]), "row": int(cell)} for cell in chosen]


def cell_lengths(rows: list[dict]) -> np.ndarray:
    """Tokens of each cell."""
    return np.array([len(row["input_ids"]) for row in rows])


def time_training_variants(
    config: PretrainedConfig,
    rows: list[dict],
    vocabulary: Vocabulary,
    *,
    batch_size: int,
    full_length: int,
    seed: int = 0,
    repeats: int = 1,
    device: str = "cpu",
    padded_every: int = 1,
) -> list[dict]:
    """Time training steps on the same cells with the same masks; each variant adds one change to the previous one.

    Parameters
    ----------
    rows
        Cells in the order of their lengths.
    padded_every
        The slow variants, with random batches, use every n-th cell only.

    Returns
    -------
    One row per variant: ``step``, ``tokens a second`` (real, the best of the repeats), ``times`` (relative to the plain
    step), ``padding`` and ``loss``. The last variant is the Hugging Face Trainer's
    ``train_sampling_strategy="group_by_length"``.
    """

    def batch_makers(cells: list[dict], strategy: str, pad_to: int | None) -> list[Callable]:
        collate = MaskedGenes(vocabulary, pad_to=pad_to, seed=seed)
        groups = make_batches(cell_lengths(cells), strategy, batch_size=batch_size, seed=seed)
        return [lambda group=group: collate([cells[cell] for cell in group]) for group in groups]

    collate = MaskedGenes(vocabulary, seed=seed)
    packed_rows = pack_cells(cell_lengths(rows), row_length=full_length)
    pack = [lambda row=row: packed_batch(collate, [rows[cell] for cell in row]) for row in packed_rows]
    # The sampler's mega-batches hold more cells than are timed; within one mega-batch, batches are sorted by length.
    grouped = batch_makers(rows, "sorted", None)
    subset = rows[::padded_every]
    variants = {  # batches, bf16, logits of all positions, attention dropout
        "plain": (batch_makers(subset, "random", full_length), False, True, True),
        "random": (batch_makers(subset, "random", None), False, True, True),
        "grouped": (grouped, False, True, True),
        "grouped, masked logits": (grouped, False, False, True),
        "grouped, masked logits, bf16": (grouped, True, False, True),
        "ours: and attention by matmul": (grouped, True, False, False),
        "ours, packed": (pack, True, False, False),
        "the Trainer's: grouped, bf16": (grouped, True, True, True),
    }
    timings: dict[str, list[dict]] = {name: [] for name in variants}
    for _ in range(repeats):  # in turn, so that other load on the machine affects all variants
        for name, (makers, bf16, all_logits, dropout) in variants.items():
            model = build(config, "masked-lm", seed=seed).to(device)
            model = model if dropout else disable_attention_dropout(model)
            by_matmul = bf16 and not dropout and device == "cpu"
            with attention_implementation(model, "matmul") if by_matmul else contextlib.nullcontext():
                measure_throughput(model, makers[-1:], bf16=bf16, all_logits=all_logits)
                timings[name].append(measure_throughput(model, makers, bf16=bf16, all_logits=all_logits))
    table = []
    for name, runs in timings.items():
        best = max(run["tokens a second"] for run in runs)
        row = {"step": name, "tokens a second": best, "padding": runs[0]["padding"], "loss": runs[0]["loss"]}
        table.append(row | {"times": best / table[0]["tokens a second"] if table else 1.0})
    return table


def training_step(
    model: PreTrainedModel,
    batch: dict[str, torch.Tensor],
    optimizer: torch.optim.Optimizer,
    *,
    bf16: bool,
    all_logits: bool,
) -> float:
    """Run one training step and return its loss.

    Parameters
    ----------
    all_logits
        Whether to project every position to the vocabulary, `BertForMaskedLM`'s default.
    """
    device = next(model.parameters()).device.type
    mixed = torch.autocast(device, torch.bfloat16) if bf16 else contextlib.nullcontext()
    with mixed:
        if all_logits:
            inputs = {name: values for name, values in batch.items() if name != "labels"}
            logits = type(model).forward(model, **inputs).logits  # (cells, length, vocabulary)
            loss = nn.functional.cross_entropy(
                logits.view(-1, logits.shape[-1]).float(), batch["labels"].view(-1), ignore_index=IGNORED
            )
        else:
            loss = model(**batch).loss
    loss.backward()
    optimizer.step()
    optimizer.zero_grad(set_to_none=True)
    return float(loss.detach())


def measure_throughput(
    model: PreTrainedModel,
    batch_makers: list[Callable[[], dict[str, torch.Tensor]]],
    *,
    bf16: bool = False,
    all_logits: bool = False,
) -> dict[str, float]:
    """Train for one pass over batches and measure the throughput.

    Parameters
    ----------
    batch_makers
        Functions that each make a batch; their time counts.

    Returns
    -------
    ``tokens`` (real), ``seconds``, ``tokens a second``, ``padding`` (share of the positions) and ``loss`` (mean over
    batches).
    """
    model.train()
    # Fused, as by default in the Trainer.
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-4, fused=True)
    tokens = positions = 0
    losses = []
    start = time.perf_counter()
    for make in batch_makers:
        batch = make()
        mask = batch["attention_mask"]
        tokens += int(mask.sum()) if mask.ndim == 2 else batch["input_ids"].numel()  # packed rows have no padding
        positions += batch["input_ids"].numel()
        on_device = batching.to_device(batch, model.device)
        losses.append(training_step(model, on_device, optimizer, bf16=bf16, all_logits=all_logits))
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


def describe_benchmark(benchmark: dict) -> str:
    """How the published size's ladder (``benchmarks/pretraining.json``) compares with the paper's 29.4, in MyST."""
    speed = {row["step"]: row["tokens a second"] for row in benchmark["steps"]}
    over_trainer = benchmark["ours over the Trainer's, same precision"]
    return (
        f"The whole step is {benchmark['ours over the plain step']:.1f} times as fast as the plain one. "
        "If that is near the paper's 29.4, it is a coincidence: the plain step here pads every row to 2,048, projects "
        "every position to the vocabulary in 32 bits and runs on a CPU, and ours leaves out the dropout of attention. "
        f"Grouping by length alone is {speed['grouped'] / speed['plain']:.1f} times as fast as the plain step and "
        f"{speed['grouped'] / speed['random']:.1f} times as fast as random batches, the paper's baseline; against the "
        f"Trainer's grouping in the same precision, the whole step is {over_trainer:.1f} times as fast."
    )
