"""A pretraining step at the teacher's size: the plain way, this project's, and the Hugging Face Trainer's, in one run.

    python benchmarks/pretraining.py [--cells 64] [--batch 4] [--out benchmarks/pretraining.json]

The cells are random genes in the lengths of Genecorpus-30M (paper B, Figure 5), the vocabulary has 25,426 tokens, and
the model is Geneformer's published one. `length_grouping.time_training_variants` times each rung on the same cells
with the same masks: the plain step (random batches padded to 2,048, logits at every position, fp32), the weakest
baseline; the length-grouped sampler; logits where a gene is masked and nowhere else; bf16; attention by plain matrix
products, for which the dropout of attention weights (0.02) is left out; and the second peer, the Trainer with
``train_sampling_strategy="group_by_length"`` in the same precision. Real tokens are counted, padding is not. The
losses are the same but for rounding, so the training is too.
"""

import argparse
import json
import platform
import sys
from pathlib import Path

import numpy as np
import torch

# Also where the package is not installed, as on a lent GPU.
sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from epigen_utils.geneformer import length_grouping, vocabularies
from epigen_utils.models import presets

#: Quantile -> length of a cell, cut off at 2,048; as `simulated_cells.GENECORPUS_LENGTHS`.
LENGTHS = {0.0: 7, 0.25: 74, 0.5: 234, 0.75: 897, 0.93: 2048, 1.0: 2048}


def cells(n: int, vocabulary: vocabularies.Vocabulary, seed: int) -> list[dict]:
    """Cells with evenly spread quantiles of length, so that few of them stand for many."""
    rng = np.random.default_rng(seed)
    lengths = np.interp((np.arange(n) + 0.5) / n, list(LENGTHS), list(LENGTHS.values())).astype(int)
    genes = np.array([vocabulary.tokens[gene] for gene in vocabulary.genes])
    return [{"input_ids": rng.permutation(genes)[:length], "row": row} for row, length in enumerate(lengths)]


def held_out(steps: int, seed: int) -> dict[str, float]:
    """Loss on held-out donors after equal tokens: as published, and as it is trained here, in bf16 both times."""
    import tempfile

    from epigen_utils.geneformer import cell_cohorts, masked_genes
    from epigen_utils.models import training

    corpus = cell_cohorts.load_corpus("corpus-sim", max_length=128, seed=seed)
    objective, found = masked_genes.MaskedGeneObjective(corpus.vocabulary, seed=seed), {}
    for name, dropout in (("attention dropout 0.02, fused kernel", True), ("ours: none, by matmul", False)):
        changes = {"vocab_size": len(corpus.vocabulary.tokens), "attention_probs_dropout_prob": 0.02}
        model = presets.build(presets.preset("bert-tiny", **changes), "masked-lm", seed=seed)
        settings = training.Settings(
            warmup_steps=50,
            batch_size=8,
            steps=steps,
            attention_dropout=dropout,
            evaluate_every=steps,
            save_every=steps,
        )
        with tempfile.TemporaryDirectory() as folder:
            given = {"precision": "bf16", "seed": seed, "output_dir": folder, "settings": settings, "progress": False}
            history = training.fit(model, corpus.train.with_format("numpy"), corpus.valid, objective=objective, **given)
        found[name] = round(float(history["loss"].iloc[-1]), 4)
    return found


def main() -> None:
    """Time every rung in turn, write the result."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--cells", type=int, default=64)
    parser.add_argument("--batch", type=int, default=4)
    parser.add_argument("--repeats", type=int, default=1)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--held-out", type=int, default=0, help="steps of the comparison of losses alone, no timing")
    parser.add_argument("--model", default="geneformer-10m")
    parser.add_argument("--out", type=Path, default=Path(__file__).with_suffix(".json"))
    given = parser.parse_args()
    torch.set_num_threads(given.threads)
    if given.held_out:
        result = json.loads(given.out.read_text())
        result["held-out loss"] = {f"seed {seed}": held_out(given.held_out, seed) for seed in (0, 1)}
        given.out.write_text(json.dumps(result, indent=1) + "\n")
        print(json.dumps(result["held-out loss"], indent=1))
        return
    device = "cuda" if torch.cuda.is_available() else "cpu"
    config = presets.preset(given.model)
    vocabulary = vocabularies.vocabulary_from_medians(
        {f"ENSG{i:011d}": 1.0 for i in range(config.vocab_size - 2)}, name="benchmark"
    )
    rows = cells(given.cells, vocabulary, seed=0)
    options = {"batch_size": given.batch, "full_length": 2048, "repeats": given.repeats, "device": device}
    options["padded_every"] = 4
    steps = length_grouping.time_training_variants(config, rows, vocabulary, **options)
    speed = {row["step"]: row["tokens a second"] for row in steps}
    ours, trainer = speed["ours: and attention by matmul"], speed["the Trainer's: grouped, bf16"]
    result = {
        "what": "real tokens a second of a pretraining step",
        "model": given.model,
        "cells": given.cells,
        "batch": given.batch,
        "mean length": float(np.mean([len(row["input_ids"]) for row in rows])),
        "steps": steps,
        "ours over the plain step": round(ours / speed["plain"], 1),
        "ours over the Trainer's, same precision": round(ours / trainer, 2),
        "repeats": given.repeats,
        "device": torch.cuda.get_device_name() if device == "cuda" else f"CPU, {given.threads} threads",
        "torch": torch.__version__,
        "python": platform.python_version(),
    }
    given.out.write_text(json.dumps(result, indent=1) + "\n")
    print(json.dumps(result, indent=1))


if __name__ == "__main__":
    main()
