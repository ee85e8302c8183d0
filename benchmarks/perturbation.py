"""All single-gene deletions of a cell: exact ones beside official Geneformer's, and the screen beside exact ones.

    python benchmarks/perturbation.py [--device cuda] [--genes 930] [--copies 100] [--teacher FOLDER] [--out FILE]

Exact: the peer does what official Geneformer's perturber does, 100 perturbed copies at a time through a masked
language model that keeps the hidden states of all layers and computes the logits of all tokens, of which the mean of
the second-to-last layer's states is used. Both sides have the same model (random weights), the same cells of random
genes, and the same genes to delete, a cell's first ``--copies``, in fp32; seconds are scaled to all genes of a cell.
Ours is `perturbation.delete`, with bf16 beside it. On a GPU all genes are deleted, the peer is timed in bf16 too, and
each run takes as many cells as last `RUN_SECONDS`, after a run that is not timed.

Screen: `screening_recall.cost_recall_curve` on held-out cells of the simulated cardiomyopathy, by a model that is
fine-tuned here from ``--teacher``, the folder with ``model`` and ``vocabulary.json`` of the pretraining chapter's
run. Without one, or with ``--screen-cells 0``, this part is left out.
"""

import argparse
import math
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from transformers import BertForMaskedLM, PreTrainedModel

# Also where the package is not installed, as on a lent GPU.
sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from epigen_utils import paths
from epigen_utils.book import provenance
from epigen_utils.downstream import perturbation
from epigen_utils.geneformer import embeddings, vocabularies
from epigen_utils.models import presets

BATCH = 100
#: Least seconds of a timed run on a GPU, and most cells.
RUN_SECONDS, MAX_CELLS = 0.5, 32
TEACHER = paths.ROOT / "results/demo/geneformer/03_pretraining/main/models/teacher"


@torch.no_grad()
def official_procedure(model: PreTrainedModel, copies: torch.Tensor, precision: str) -> torch.Tensor:
    """The peer's embeddings of the copies, fp32: see above."""
    found = []
    for first in range(0, len(copies), BATCH):
        batch = copies[first : first + BATCH]
        given = {"attention_mask": torch.ones_like(batch), "output_hidden_states": True}
        with torch.autocast(model.device.type, torch.bfloat16, enabled=precision == "bf16"):
            states = BertForMaskedLM.forward(model, batch, **given).hidden_states
        found.append(states[model.config.num_hidden_layers - 1].float().mean(dim=1))
    return torch.cat(found)


def seconds_of(run: Callable[[int], object], n_cells: int, device: str) -> tuple[float, object]:
    """Seconds of a run on the first cells, once the device has finished, and what it returns."""
    if device == "cuda":
        torch.cuda.synchronize()
    start = time.perf_counter()
    result = run(n_cells)
    if device == "cuda":
        torch.cuda.synchronize()
    return time.perf_counter() - start, result


def exact(name: str, genes: int, n_copies: int, repeats: int, device: str) -> dict[str, object]:
    """One model size: seconds of the peer and of ours, and how far they differ."""
    on_gpu = device == "cuda"
    model = presets.build(presets.preset(name), "masked-lm").eval().to(device)
    known = {f"ENSG{i:011d}": 1.0 for i in range(model.config.vocab_size - 2)}
    vocabulary = vocabularies.vocabulary_from_medians(known, name="benchmark")
    rng = np.random.default_rng(0)
    cells = [rng.permutation(vocabulary.gene_tokens)[:genes] for _ in range(MAX_CELLS if on_gpu else 1)]
    goal = {"goal": rng.normal(size=model.config.hidden_size).astype(np.float32)}
    names = {token: gene for gene, token in vocabulary.tokens.items()}

    def copies(cell: np.ndarray) -> torch.Tensor:
        return torch.from_numpy(np.stack([np.delete(cell, place) for place in range(n_copies)])).to(device)

    # Copies of the peer's are made before it is timed; ours makes its own.
    given = [copies(cell) for cell in cells]

    def peer(n_cells: int, precision: str) -> torch.Tensor:
        return torch.cat([official_procedure(model, given[i], precision) for i in range(n_cells)])

    def ours(n_cells: int, precision: str) -> np.ndarray:
        chosen = "all" if n_copies == genes else [names[token] for token in cells[0][:n_copies]]
        options = {"genes": chosen, "together": False, "states": goal, "precision": precision}
        found = perturbation.delete(model, {"input_ids": cells[:n_cells]}, vocabulary, **options)
        return found["shift_goal"].to_numpy()

    runs = {"peer": lambda n: peer(n, "fp32")} | ({"peer, bf16": lambda n: peer(n, "bf16")} if on_gpu else {})
    runs |= {f"ours, {precision}": lambda n, p=precision: ours(n, p) for precision in ("fp32", "bf16")}
    n_cells = dict.fromkeys(runs, 1)
    if on_gpu:
        for what, run in runs.items():
            seconds_of(run, 1, device)
            n_cells[what] = min(math.ceil(RUN_SECONDS / seconds_of(run, 1, device)[0]), MAX_CELLS)
    seconds, results = {what: [] for what in runs}, {}
    for _ in range(repeats):
        for what, run in runs.items():
            took, results[what] = seconds_of(run, n_cells[what], device)
            # For all genes of one cell.
            seconds[what].append(took * genes / (n_copies * n_cells[what]))
    embedded = embeddings.embed_cells(model, {"input_ids": list(given[0].cpu().numpy())}, vocabulary)
    middle = {what: statistics.median(each) for what, each in seconds.items()}
    shifts = {what: results[what][:n_copies] for what in runs if what.startswith("ours")}
    theirs = results["peer"][:n_copies].cpu().numpy()
    return {
        "model": name,
        "genes": genes,
        "copies measured": n_copies,
        "cells of a run": n_cells,
        "seconds for all genes of the cell": {what: float(f"{s:.4g}") for what, s in middle.items()},
        "seconds of each repeat": {what: [float(f"{s:.4g}") for s in each] for what, each in seconds.items()},
        "perturbed cells a second": {
            what: {"median": round(genes / middle[what], 1), "least": round(genes / max(each), 1)}
            | {"most": round(genes / min(each), 1)}
            for what, each in seconds.items()
        },
        "times as fast as the peer": {what: round(middle["peer"] / s, 2) for what, s in middle.items()},
        "max difference of embeddings from the peer's": float(np.abs(embedded - theirs).max()),
        "bf16: max difference of shifts": float(np.abs(shifts["ours, bf16"] - shifts["ours, fp32"]).max()),
        "largest shift": float(np.abs(shifts["ours, fp32"]).max()),
    }


def screened(teacher: Path, n_cells: int, repeats: int) -> list[dict[str, object]]:
    """Curves of both layers, towards one state and towards two."""
    from epigen_utils.data import datasets
    from epigen_utils.downstream import cell_classifier, screening_recall
    from epigen_utils.geneformer import encoding
    from epigen_utils.models import training
    from epigen_utils.stats import folds

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
    parser.add_argument("--device", choices=["cpu", "cuda"], default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--genes", type=int, default=930)
    parser.add_argument("--copies", type=int, help=f"default: {BATCH}, or all genes on a GPU")
    parser.add_argument("--repeats", type=int, help="default: 2, or 3 on a GPU")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--screen-cells", type=int, default=8)
    parser.add_argument("--teacher", type=Path, default=TEACHER)
    parser.add_argument("--out", type=Path, default=Path(__file__).with_suffix(".json"))
    given = parser.parse_args()
    torch.set_num_threads(given.threads)
    on_gpu = given.device == "cuda"
    n_copies = given.copies or (given.genes if on_gpu else min(BATCH, given.genes))
    repeats = given.repeats or (3 if on_gpu else 2)
    models = ("bert-tiny", "geneformer-10m")
    to_screen = given.screen_cells and given.teacher.exists()
    result = {
        "what": "seconds for the deletion of every single gene of a cell",
        "exact": [exact(name, given.genes, n_copies, repeats, given.device) for name in models],
        "screen": screened(given.teacher, given.screen_cells, repeats) if to_screen else [],
        "repeats, whose median counts; of the screen's the best": repeats,
    }
    device = torch.cuda.get_device_name() if on_gpu else f"CPU, {given.threads} threads"
    provenance.write_benchmark(given.out, result, device=device)


if __name__ == "__main__":
    main()
