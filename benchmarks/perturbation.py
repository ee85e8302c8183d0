"""All single-gene deletions of a cell: exact ones beside official Geneformer's, and the screen beside exact ones.

    python benchmarks/perturbation.py [--genes 930] [--copies 100] [--teacher FOLDER] [--out FILE]

Exact: the peer does what official Geneformer's perturber does, 100 perturbed copies at a time through a masked
language model that keeps the hidden states of all layers and computes the logits of all tokens, of which the mean of
the second-to-last layer's states is used. Both sides have the same model (random weights), the same cell of random
genes, and the same genes to delete, the cell's first ``--copies``, in fp32; seconds are scaled to all genes of the
cell. Ours is `perturbation.delete`, with bf16 beside it.

Screen: `screening_recall.cost_recall_curve` on held-out cells of the simulated cardiomyopathy, by a model that is
fine-tuned here from ``--teacher``, the folder with ``model`` and ``vocabulary.json`` of the pretraining chapter's
run. Without one, this part is left out.
"""

import argparse
import tempfile
import time
from pathlib import Path

import numpy as np
import torch
from transformers import BertForMaskedLM, PreTrainedModel

from epigen_utils import paths
from epigen_utils.book import recorded
from epigen_utils.data import datasets
from epigen_utils.downstream import cell_classifier, perturbation, screening_recall
from epigen_utils.geneformer import embeddings, encoding, vocabularies
from epigen_utils.models import presets, training
from epigen_utils.stats import folds

BATCH = 100
TEACHER = paths.ROOT / "results/demo/geneformer/03_pretraining/main/models/teacher"


@torch.no_grad()
def official_procedure(model: PreTrainedModel, copies: torch.Tensor) -> torch.Tensor:
    """The peer's embeddings of the copies: see above."""
    found = []
    for first in range(0, len(copies), BATCH):
        batch = copies[first : first + BATCH]
        given = {"attention_mask": torch.ones_like(batch), "output_hidden_states": True}
        states = BertForMaskedLM.forward(model, batch, **given).hidden_states
        found.append(states[model.config.num_hidden_layers - 1].mean(dim=1))
    return torch.cat(found)


def exact(name: str, genes: int, n_copies: int, repeats: int) -> dict[str, object]:
    """One model size: seconds of the peer and of ours, and how far they differ."""
    model = presets.build(presets.preset(name), "masked-lm").eval()
    known = {f"ENSG{i:011d}": 1.0 for i in range(model.config.vocab_size - 2)}
    vocabulary = vocabularies.vocabulary_from_medians(known, name="benchmark")
    rng = np.random.default_rng(0)
    cell = rng.permutation(vocabulary.gene_tokens)[:genes].astype(np.int64)
    copies = torch.from_numpy(np.stack([np.delete(cell, place) for place in range(n_copies)]))
    names = {token: gene for gene, token in vocabulary.tokens.items()}
    options = {"genes": [names[token] for token in cell[:n_copies]], "together": False}
    goal = {"goal": rng.normal(size=model.config.hidden_size).astype(np.float32)}
    runs = {
        "peer": lambda: official_procedure(model, copies),
        **{
            f"ours, {precision}": lambda precision=precision: perturbation.delete(
                model, {"input_ids": [cell]}, vocabulary, states=goal, precision=precision, **options
            )
            for precision in ("fp32", "bf16")
        },
    }
    best, results = dict.fromkeys(runs, np.inf), {}
    for _ in range(repeats):
        for what, run in runs.items():
            start = time.perf_counter()
            results[what] = run()
            best[what] = min(best[what], time.perf_counter() - start)
    ours = embeddings.embed_cells(model, {"input_ids": list(copies.numpy())}, vocabulary)
    shifts = {what: results[what]["shift_goal"].to_numpy() for what in runs if what != "peer"}
    return {
        "model": name,
        "genes": genes,
        "copies measured": n_copies,
        "seconds for all genes of the cell": {what: round(s * genes / n_copies, 2) for what, s in best.items()},
        "times as fast as the peer": {what: round(best["peer"] / s, 2) for what, s in best.items()},
        "max difference of embeddings from the peer's": float(np.abs(ours - results["peer"].numpy()).max()),
        "bf16: max difference of shifts": float(np.abs(shifts["ours, bf16"] - shifts["ours, fp32"]).max()),
        "largest shift": float(np.abs(shifts["ours, fp32"]).max()),
    }


def screened(teacher: Path, n_cells: int, repeats: int) -> list[dict[str, object]]:
    """Curves of both layers, towards one state and towards two."""
    vocabulary = vocabularies.load_vocabulary(str(teacher / "vocabulary.json"))
    adata = datasets.load("cardiomyopathy-sim")
    encoded = encoding.RankValueEncoder.of(vocabulary, max_length=512).encode(adata)
    classes, donors = (adata.obs[column].to_numpy().astype(str) for column in ("disease", "donor"))
    train, test = next(iter(folds.donor_folds(classes, donors, n_splits=5, seed=0)))
    settings = training.Settings(learning_rate=1e-3, warmup_steps=50, epochs=4, weight_decay=0.01, batch_size=12)
    with tempfile.TemporaryDirectory() as folder:
        start = presets.load_checkpoint(str(teacher / "model"))
        tuned = cell_classifier.CellClassifier(encoded, vocabulary, start, Path(folder), settings=settings)
        model = tuned.fit(train, classes[train]).model_
    cells = [np.asarray(encoded[int(row)]["input_ids"]) for row in test if encoded[int(row)]["length"] >= 400]
    cells, found = {"input_ids": cells[:n_cells]}, []
    for layer in (-1, 0):
        embedded = embeddings.embed_cells(model, encoded.select(train), vocabulary, layer=layer)
        places = embeddings.state_centres(embedded, classes[train], ["nf", "dcm"])
        for names in (["nf"], ["nf", "dcm"]):
            states = {name: places[name] for name in names}
            table = screening_recall.cost_recall_curve(model, cells, vocabulary, states, layer=layer, repeats=repeats)
            about = {"layer": layer, "states": len(names), "cells": len(cells["input_ids"])}
            about["mean length"] = float(np.mean([len(cell) for cell in cells["input_ids"]]))
            found.append(about | {"curve": table.round(3).to_dict("records")})
    return found


def main() -> None:
    """Time all in turn, write the result."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--genes", type=int, default=930)
    parser.add_argument("--copies", type=int, default=BATCH)
    parser.add_argument("--repeats", type=int, default=2)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--screen-cells", type=int, default=8)
    parser.add_argument("--teacher", type=Path, default=TEACHER)
    parser.add_argument("--out", type=Path, default=Path(__file__).with_suffix(".json"))
    given = parser.parse_args()
    torch.set_num_threads(given.threads)
    result = {
        "what": "seconds for the deletion of every single gene of a cell",
        "exact": [exact(name, given.genes, given.copies, given.repeats) for name in ("bert-tiny", "geneformer-10m")],
        "screen": screened(given.teacher, given.screen_cells, given.repeats) if given.teacher.exists() else [],
        "repeats, the best of which counts": given.repeats,
    }
    recorded.write_benchmark(given.out, result, device=f"CPU, {given.threads} threads")


if __name__ == "__main__":
    main()
