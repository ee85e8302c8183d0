"""A pretraining step at the teacher's size, plain and as this project does it, and beside the Hugging Face Trainer's, in one run.

    python benchmarks/pretraining.py [--cells 64] [--batch 8] [--out benchmarks/pretraining.json]

The cells are random genes in the lengths of Genecorpus-30M (`simulate.GENECORPUS_LENGTHS`), the vocabulary has 25,426 tokens, the
model is Geneformer's published one. Rungs of the ladder, each one more change:

1. plain: random batches padded to 2,048, logits at every position, fp32;
2. grouped: the Hugging Face length-grouped sampler, padded to the longest of the batch;
3. masked logits: the vocabulary's projection where a gene is asked for, and nowhere else;
4. bf16: automatic mixed precision.

The plain step is made of straw: nobody trains so. The second peer is the Trainer as people run it today, which is rung 2 in the same
precision as ours (``train_sampling_strategy="group_by_length"``, all logits). What is compared is real tokens a second, padding not
counted; masks and cells are the same for all, and so is the loss that comes out, but for rounding.
"""

import argparse
import json
import platform
import statistics
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from epigen_utils import batching, models, throughput, vocabularies

#: Quantile -> length, as in `simulate.GENECORPUS_LENGTHS`, which cannot be imported where there is no anndata.
LENGTHS = {0.0: 7, 0.25: 74, 0.5: 234, 0.75: 897, 0.93: 2048, 1.0: 2048}


def cells(n: int, vocabulary: vocabularies.Vocabulary, seed: int) -> list[dict]:
    """Cells with evenly spread quantiles of length, so that few of them stand for many."""
    rng = np.random.default_rng(seed)
    at = (np.arange(n) + 0.5) / n
    lengths = np.interp(at, list(LENGTHS), list(LENGTHS.values())).astype(int)
    genes = np.array([vocabulary.tokens[gene] for gene in vocabulary.genes])
    return [{"input_ids": rng.permutation(genes)[:length], "row": row} for row, length in enumerate(lengths)]


def rungs(rows: list[dict], vocabulary: vocabularies.Vocabulary, batch_size: int) -> dict[str, dict]:
    """Name -> how to make each batch, and the options of the step."""
    lengths = np.array([len(row["input_ids"]) for row in rows])

    def made(strategy: str, pad_to: int | None) -> list[Callable]:
        collate = batching.MaskedGenes(vocabulary, pad_to=pad_to)
        groups = throughput.batches(lengths, strategy, batch_size=batch_size)
        return [lambda group=group: collate([rows[cell] for cell in group]) for group in groups]

    collate = batching.MaskedGenes(vocabulary)
    pack = [
        lambda row=row: throughput.packed_batch(collate, [rows[cell] for cell in row])
        for row in throughput.packed(lengths, room=2048)
    ]
    grouped = made("grouped", None)
    return {
        "plain": {"made": made("random", 2048), "bf16": False, "all_logits": True},
        "random, padded to the batch": {"made": made("random", None), "bf16": False, "all_logits": True},
        "grouped": {"made": grouped, "bf16": False, "all_logits": True},
        "grouped, masked logits": {"made": grouped, "bf16": False, "all_logits": False},
        "grouped, masked logits, bf16": {"made": grouped, "bf16": True, "all_logits": False},
        "packed, masked logits, bf16": {"made": pack, "bf16": True, "all_logits": False},
        "Trainer, group_by_length, bf16": {"made": grouped, "bf16": True, "all_logits": True},
    }


def main() -> None:
    """Time every rung in turn, write the result."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--cells", type=int, default=64)
    parser.add_argument("--batch", type=int, default=8)
    parser.add_argument("--repeats", type=int, default=2)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--model", default="geneformer-10m")
    parser.add_argument("--out", type=Path, default=Path(__file__).with_suffix(".json"))
    given = parser.parse_args()
    torch.set_num_threads(given.threads)
    device = "cuda" if torch.cuda.is_available() else "cpu"
    config = models.preset(given.model)
    vocabulary = vocabularies.of_medians({f"ENSG{i:011d}": 1.0 for i in range(config.vocab_size - 2)}, name="benchmark")
    rows = cells(given.cells, vocabulary, seed=0)
    ladder = rungs(rows, vocabulary, given.batch)
    found = {name: [] for name in ladder}
    for _ in range(given.repeats):  # in turn, so that a noisy neighbour meets all of them
        for name, options in ladder.items():
            model = models.build(config, "masked-lm").to(device)
            warm = {key: value for key, value in options.items() if key != "made"}
            throughput.measure(model, options["made"][-1:], **warm)
            found[name].append(throughput.measure(model, **options))
            print(name, round(found[name][-1]["tokens a second"]), file=sys.stderr)
    best = {name: max(run["tokens a second"] for run in runs) for name, runs in found.items()}
    ours = "grouped, masked logits, bf16"
    result = {
        "what": "real tokens a second of a pretraining step",
        "model": given.model,
        "cells": given.cells,
        "batch": given.batch,
        "mean length": float(np.mean([len(row["input_ids"]) for row in rows])),
        "tokens a second": {name: round(value) for name, value in best.items()},
        "times as fast as plain": {name: round(value / best["plain"], 1) for name, value in best.items()},
        "ours over the Trainer, same precision": round(best[ours] / best["Trainer, group_by_length, bf16"], 2),
        "padding": {name: round(runs[0]["padding"], 3) for name, runs in found.items()},
        "loss": {name: round(statistics.mean(run["loss"] for run in runs), 3) for name, runs in found.items()},
        "repeats": given.repeats,
        "device": torch.cuda.get_device_name() if device == "cuda" else f"cpu, {given.threads} threads",
        "torch": torch.__version__,
        "python": platform.python_version(),
    }
    given.out.write_text(json.dumps(result, indent=1) + "\n")
    print(json.dumps(result, indent=1))


if __name__ == "__main__":
    main()
