"""Inference cost of students and teacher, and a distillation step beside the plain way.

    python benchmarks/distillation.py [--cells 24] [--length 512] [--batches 3] [--threads 1] [--device cpu]

Speed: classifiers of the published sizes with random weights, evaluated on cells of one length, in PyTorch, in ONNX
and in ONNX with weights in 8 bits; each in a process of its own, whose highest memory, less that of its imports, is
noted (Linux).

Steps: one student of 4.3M parameters and a teacher of 10M, the same batches of cells of like length (quantiles of
Genecorpus-30M's lengths, cut off at ``--length``), the same masks, fp32. The peer is what a Hugging Face Trainer with
length grouping and a loss of one's own does: both models project every position to the vocabulary, and PyTorch's
cross entropy and divergence are taken of the masked ones. Ours has the same loss and gradients (the largest
difference is noted), from the masked positions only, by a loss that computes its gradient in the forward pass, and
with cached teacher states.
"""

import argparse
import multiprocessing
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import torch
from torch.nn.functional import cross_entropy, kl_div, log_softmax
from transformers import BertForMaskedLM, PreTrainedModel

# Also where the package is not installed, as on a lent GPU.
sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from epigen_utils.book import provenance
from epigen_utils.data import simulated_cells
from epigen_utils.distillation import export, students, teachers
from epigen_utils.geneformer import vocabularies
from epigen_utils.geneformer.masked_genes import MaskedGenes
from epigen_utils.models import batching, losses, presets
from epigen_utils.models.batching import IGNORED

MODELS = ("geneformer-10m", "student-4.3m", "student-3m", "student-2m")
VOCABULARY = vocabularies.vocabulary_from_medians(
    {f"ENSG{i:011d}": 1.0 for i in range(presets.V1_VOCABULARY_SIZE - 2)}, name="benchmark"
)


def asked(name: str, how: str, n_cells: int, length: int, threads: int, folder: str) -> dict[str, object]:
    """Cells a second and memory of one model in one form; run in a process of its own."""
    torch.set_num_threads(threads)
    rng = np.random.default_rng(0)
    cells = torch.from_numpy(
        np.stack([rng.permutation(presets.V1_VOCABULARY_SIZE - 2)[:length] + 2 for _ in range(n_cells)])
    )
    parts, mask = cells.split(8), torch.ones(8, length, dtype=torch.long)
    before = memory("VmRSS")
    Path("/proc/self/clear_refs").write_text("5")  # the highest so far is that of the imports
    if how == "PyTorch":
        model = presets.build(presets.preset(name, num_labels=3), "cell-class").eval()
        size = sum(weight.numel() * weight.element_size() for weight in model.parameters())

        def ask(part: torch.Tensor) -> None:
            with torch.no_grad():
                model(input_ids=part, attention_mask=mask)
    else:
        path = Path(folder) / name / how
        size, session = path.stat().st_size, export.OnnxModel(path, threads=threads)

        def ask(part: torch.Tensor) -> None:
            session.logits(part, mask)

    ask(parts[0])
    start = time.perf_counter()
    for part in parts:
        ask(part)
    speed = n_cells / (time.perf_counter() - start)
    grown = memory("VmHWM") - before
    row = {"model": name, "form": how, "cells a second": round(speed, 2), "weights, MB": round(size / 1e6, 2)}
    return row | {"highest memory, MB": round(grown)}


def memory(kind: str) -> float:
    """Of this process, in MB, as Linux tells it: ``VmRSS`` now, ``VmHWM`` the highest."""
    line = next(line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith(kind))
    return int(line.split()[1]) / 1024


def speeds(n_cells: int, length: int, threads: int) -> list[dict[str, object]]:
    """Each model in each form."""
    rows, apart = [], multiprocessing.get_context("spawn")
    with tempfile.TemporaryDirectory() as folder:
        for name in MODELS:
            export.write_onnx(presets.build(presets.preset(name, num_labels=3), "cell-class"), Path(folder) / name)
            for how in ("PyTorch", export.FP32_FILE, export.INT8_FILE):
                with apart.Pool(1) as pool:
                    rows.append(pool.apply(asked, (name, how, n_cells, length, threads, folder)))
    first = rows[0]["cells a second"]
    return [row | {"times the teacher": round(row["cells a second"] / first, 1)} for row in rows]


def batches(n: int, size: int, length: int) -> list[list[dict]]:
    """Batches of cells of like length, as length grouping makes them."""
    rng = np.random.default_rng(0)
    share, genes = zip(*sorted(simulated_cells.GENECORPUS_LENGTHS.items()), strict=True)
    wanted = np.minimum(np.interp((np.arange(n * size) + 0.5) / (n * size), share, genes), length).astype(int)
    cells = [
        {"input_ids": rng.permutation(presets.V1_VOCABULARY_SIZE - 2)[:k] + 2, "row": row}
        for row, k in enumerate(wanted)
    ]
    return [cells[first : first + size] for first in range(0, len(cells), size)]


def own_losses(ours: torch.Tensor, theirs: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
    """Eq. 4 by PyTorch's own losses, of logits of the masked genes."""
    soft = [log_softmax(logits / losses.TEMPERATURE, dim=-1) for logits in (ours, theirs)]
    kl = kl_div(*soft, reduction="batchmean", log_target=True) * losses.TEMPERATURE**2
    return losses.ALPHA * cross_entropy(ours, labels) + (1 - losses.ALPHA) * kl


def plain_loss(student: PreTrainedModel, teacher: PreTrainedModel, batch: dict) -> torch.Tensor:
    """The peer's: logits of every position, PyTorch's own losses of the masked ones."""
    inputs = {"input_ids": batch["input_ids"], "attention_mask": batch["attention_mask"]}
    with torch.no_grad():
        theirs = BertForMaskedLM.forward(teacher, **inputs).logits
    ours = BertForMaskedLM.forward(student, **inputs).logits
    where = batch["labels"] != IGNORED
    return own_losses(ours[where], theirs[where], batch["labels"][where])


def autograd_loss(student: PreTrainedModel, teacher: teachers.Teacher, batch: dict) -> torch.Tensor:
    """Asked positions only, with PyTorch's own losses."""
    theirs, labels = teacher.logits(teacher.states(batch), batch), batch["labels"][batch["labels"] != IGNORED]
    return own_losses(student(**batch).logits, theirs, labels)


def steps(n: int, size: int, length: int, repeats: int, device: str) -> dict[str, object]:
    """Seconds of the same training steps in four ways, and how far their gradients differ."""
    teacher_model = presets.build(presets.preset("geneformer-10m"), "masked-lm", seed=1).eval().to(device)
    teacher = teachers.Teacher(teacher_model, VOCABULARY)
    student = presets.build(presets.preset("student-4.3m"), "masked-lm").eval().to(device)
    groups = batches(n, size, length)
    collate = MaskedGenes(VOCABULARY)
    made = [batching.to_device(collate(rows), device) for rows in groups]
    objective = students.DistillationObjective(teacher)
    states = [teacher.states(batch) for batch in made]
    ways = {
        "peer: all positions, PyTorch's losses": lambda i: plain_loss(student, teacher_model, made[i]),
        "asked positions only": lambda i: autograd_loss(student, teacher, made[i]),
        "and the loss in one pass": lambda i: objective.loss(student, dict(made[i]), None),
        "and the teacher remembered": lambda i: objective.loss(student, made[i] | {"teacher_states": states[i]}, None),
    }
    optimiser = torch.optim.AdamW(student.parameters(), lr=0.0)
    best, gradients = dict.fromkeys(ways, np.inf), {}
    for _ in range(repeats):
        for name, loss in ways.items():
            start = time.perf_counter()
            for i in range(len(made)):
                optimiser.zero_grad()
                loss(i).backward()
                optimiser.step()
            if device == "cuda":
                torch.cuda.synchronize()
            best[name] = min(best[name], time.perf_counter() - start)
            gradients[name] = torch.cat([weight.grad.ravel() for weight in student.parameters()])
    first, *_ = ways
    scale = gradients[first].abs().max()
    rows = [
        {
            "step": name,
            "seconds": round(seconds, 4),
            "times": round(best[first] / seconds, 2),
            "gradient off by": float((gradients[name] - gradients[first]).abs().max() / scale),
        }
        for name, seconds in best.items()
    ]
    return {
        "cells": n * size,
        "tokens": int(sum(len(row["input_ids"]) for rows in groups for row in rows)),
        "rows": rows,
    }


def main() -> None:
    """Time all, write the result."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--cells", type=int, default=24)
    parser.add_argument("--length", type=int, default=512)
    parser.add_argument("--batches", type=int, default=3)
    parser.add_argument("--batch", type=int, default=8)
    parser.add_argument("--repeats", type=int, default=2)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--device", choices=["cpu", "cuda"], default="cpu", help="cuda: the steps alone")
    parser.add_argument("--out", type=Path, default=Path(__file__).with_suffix(".json"))
    given = parser.parse_args()
    torch.set_num_threads(given.threads)
    result = {
        "what": "cells a second of classifiers of the published sizes, and seconds of the same steps of distillation",
        "length": given.length,
        "steps": steps(given.batches, given.batch, given.length, given.repeats, given.device),
        "speed": speeds(given.cells, given.length, given.threads) if given.device == "cpu" else [],
        "repeats, the best of which counts": given.repeats,
    }
    device = torch.cuda.get_device_name() if given.device == "cuda" else f"CPU, {given.threads} threads"
    provenance.write_benchmark(given.out, result, device=device)


if __name__ == "__main__":
    main()
