"""Learning curves on a GPU: Geneformer's published size on blood cells, and its students with and without it.

    python benchmarks/learning.py --prepare FOLDER
    python benchmarks/learning.py --carried FOLDER [--seconds 200] [--peak 989] [--out FILE] [--smoke]

The first encodes the cells of `pbmc-40` in Geneformer V1's vocabulary and computes the baselines, on any machine. The
second trains ``geneformer-10m``, then each student twice: by the cross entropy alone, and with the teacher (Eq. 4 of
paper B). Order, weights and masks have seed 0; the held-out donors are those of the page on pretraining.

The number of steps follows from ``--seconds``, which count from the start of the program, and from the speed of a
short pilot; it is the same for all students, up to `MAX_EPOCHS`. The result is written after each model.
"""

import argparse
import copy
import dataclasses
import datetime
import importlib.metadata
import math
import multiprocessing
import os
import sys
import tempfile
import time
from pathlib import Path

import datasets
import numpy as np
import pandas as pd
import psutil
import pyarrow as pa
import torch
from transformers import PreTrainedModel

# Also where the package is not installed, as on a lent GPU.
sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from epigen_utils import files
from epigen_utils.distillation import costs, students, teachers
from epigen_utils.geneformer import embeddings, masked_genes, vocabularies
from epigen_utils.geneformer.masked_genes import MaskedGenes
from epigen_utils.models import presets, training
from epigen_utils.models.batching import IGNORED

#: Of this process, so that the imports count.
START = psutil.Process().create_time()
SEED = 0
STUDENTS = ("student-2m", "student-3m", "student-4.3m")
BATCH = 144
#: Cells of a forward pass in evaluation; on a CPU, logits of many cells are allocated anew each time.
EVALUATION_BATCH = 256 if torch.cuda.is_available() else 16
#: Off the logits of genes that the cell shows elsewhere, as on the page on pretraining.
VISIBLE_PENALTY = 6.0
#: A longer decay of the learning rate would overfit some 6,000 cells before its end.
MAX_EPOCHS = 60
WARMUP_SHARE = 0.05
#: Of the time that is left after the pilots.
TEACHER_SHARE = 0.38
#: Of the time of a student that is planned for; the rest is for slower steps than the pilot's.
PLANNED_SHARE = 0.9
ABOUT = {
    "published settings": "12 x 12 cells a step, AdamW, 1e-3, linear decay, weight decay 0.001, dropout of the presets "
    "(teacher 0.02, students 0.1), bf16; alpha 0.65 on the cross entropy, temperature 2.5",
    "deviations": [
        "5% of the steps are warm-up (published: 10,000 of some 570,000), and epochs follow from the time",
        "one GPU instead of 12, with the same cells a step; batches of like length, in random order",
        f"{VISIBLE_PENALTY:g} off the logits of genes that the cell shows elsewhere (published: none)",
        "gene embeddings start from co-expression in the training cells, with the spread of the weights they replace "
        "in the genes that occur; genes that do not occur start at zero (published: random)",
        "students: batch, rate and decay of the pretraining (published: 32 cells, 3e-4, cosine, decay 0.01)",
        "teacher of the students: the weights with the least loss on every fourth held-out cell; of the students, and "
        "in the teacher's row `last`, the last weights count",
        "evaluation and the teacher's forward pass in TF32, training in bf16 by automatic mixed precision",
    ],
    "operations": "3 (N t + 4 L d s + 0.15 t (2 d^2 + 2 d V)), with a teacher and once more its forward pass; "
    "N = L (8 d^2 + 4 d f), twice the parameters of the layers; t real tokens, s the sum of squared lengths, L layers, "
    "d width, f feed-forward width, V vocabulary; no padding. MFU: operations a second over the peak",
    "seconds": "of the training steps alone; evaluation is timed apart. Tokens a second from the first evaluation on",
    "train_loss": "of students with a teacher the sum of both terms; the other losses are cross entropies",
    "gains": "nats saved a hidden gene, means over cells, with 95% bootstrap intervals over donors",
}


def prepare(folder: Path, vocabulary: str) -> None:
    """Write cells, labels, vocabulary and the baselines' predictions to a folder."""
    from epigen_utils.geneformer import cell_cohorts
    from epigen_utils.geneformer import masked_gene_baselines as baselines

    official = vocabularies.official_vocabulary(vocabulary) if vocabulary else None
    corpus = cell_cohorts.load_corpus("pbmc-40", held_out=0.25, vocabulary=official, seed=SEED)
    cells = [np.asarray(cell) for part in (corpus.train, corpus.valid) for cell in part["input_ids"]]
    obs = pd.concat([corpus.adata.obs[~corpus.held_out], corpus.adata.obs[corpus.held_out]])
    folder.mkdir(parents=True, exist_ok=True)
    with files.whole_file(folder / "cells.npz") as part, open(part, "wb") as stream:
        np.savez_compressed(
            stream,
            tokens=np.concatenate(cells).astype(np.uint16),
            lengths=np.array([len(cell) for cell in cells], np.uint16),
            n_train=len(corpus.train),
            donors=obs[corpus.adata.uns["epigen"]["donor"]].astype(str).to_numpy(str),
            cell_types=obs[corpus.adata.uns["epigen"]["group"]].astype(str).to_numpy(str),
        )
    vocabularies.save_vocabulary(corpus.vocabulary, folder / "vocabulary.json")
    rules = {"unigram": {}, "by rank, seen ruled out": {"by_rank": True, "without_seen": True}}
    models = {name: baselines.UnigramBaseline(corpus.train, corpus.vocabulary, **rule) for name, rule in rules.items()}
    models["neighbours"] = baselines.NeighbourBaseline(corpus.train, corpus.vocabulary)
    parts = [
        model.predict(corpus.valid, corpus.vocabulary, seed=SEED).assign(model=name) for name, model in models.items()
    ]
    smaller = dict.fromkeys(("cell", "rank", "token", "shown"), np.uint16) | {"nll": np.float32}
    table = pd.concat(parts, ignore_index=True).astype(smaller | {"kind": str})
    with files.whole_file(folder / "baselines.parquet") as part:
        table.to_parquet(part, compression="zstd", index=False)


@dataclasses.dataclass
class Cells:
    """Cells of the folder that `prepare` wrote.

    Attributes
    ----------
    train, valid, curve
        Encoded cells; ``curve`` is every fourth of ``valid``, for the curves.
    donors
        Donor of each cell of ``valid``.
    baselines
        Predictions of the baselines by name, as of `masked_genes.predict_masked_genes`.
    """

    train: datasets.Dataset
    valid: datasets.Dataset
    curve: datasets.Dataset
    donors: np.ndarray
    vocabulary: vocabularies.Vocabulary
    baselines: dict[str, pd.DataFrame]


def read(folder: Path, *, smoke: bool) -> Cells:
    """Read the folder; for a smoke run, the first cells of both parts."""
    stored = np.load(folder / "cells.npz")
    ends = np.cumsum(stored["lengths"], dtype=np.int32)
    tokens = pa.ListArray.from_arrays(np.append(np.int32(0), ends), stored["tokens"].astype(np.int64))
    table = pa.table({"input_ids": tokens, "length": stored["lengths"].astype(np.int64)})
    n, n_valid = int(stored["n_train"]), 500 if smoke else len(table)
    train, valid = (table.slice(0, 3 * BATCH if smoke else n), table.slice(n, n_valid))
    train, valid = datasets.Dataset(train), datasets.Dataset(valid)
    predictions = pd.read_parquet(folder / "baselines.parquet")
    # Masks are a function of a cell's position, so that the first cells have the same ones.
    predictions = predictions[predictions["cell"] < n_valid]
    return Cells(
        train=train,
        valid=valid,
        curve=valid.select(range(0, len(valid), 4)),
        donors=stored["donors"][n:][: len(valid)],
        vocabulary=vocabularies.load_vocabulary(folder / "vocabulary.json"),
        baselines={name: part.reset_index(drop=True) for name, part in predictions.groupby("model", sort=False)},
    )


class DrawnMasks:
    """Collate as `MaskedGenes` does, from masks that several processes have drawn ahead for all epochs.

    A process draws the masks of some 20,000 cells a second, which would be a third of a training step.
    """

    def __init__(self, cells: datasets.Dataset, vocabulary: vocabularies.Vocabulary, *, epochs: int):
        ids = masked_genes.token_ids(cells)
        self.starts = np.cumsum([0, *map(len, ids)])
        self.pad = vocabulary.tokens[vocabularies.PAD]
        # Forked before CUDA is used: a process of its own would import all libraries again.
        context = multiprocessing.get_context("fork")
        with context.Pool(min(os.cpu_count(), 16), _start_drawing, (ids, vocabulary)) as pool:
            self.epochs = pool.map(_draw_epoch, range(epochs), chunksize=1)

    def __call__(self, rows: list[dict]) -> dict[str, torch.Tensor]:
        """Batch of cells, as of `MaskedGenes`."""
        lengths = np.array([len(row["input_ids"]) for row in rows])
        filled = np.arange(lengths.max()) < lengths[:, None]  # (cells, length)
        batch = {}
        for name, part, value in (("input_ids", 0, self.pad), ("labels", 1, IGNORED)):
            values = np.full(filled.shape, value)
            values[filled] = np.concatenate([self._of_cell(part, row["epoch"], row["row"]) for row in rows])
            batch[name] = torch.from_numpy(values)
        return batch | {"attention_mask": torch.from_numpy(filled.astype(np.int64))}

    def _of_cell(self, part: int, epoch: int, row: int) -> np.ndarray:
        return self.epochs[epoch][part][self.starts[row] : self.starts[row + 1]]


def _start_drawing(ids: list[np.ndarray], vocabulary: vocabularies.Vocabulary) -> None:
    global drawn_cells, draw
    torch.set_num_threads(1)  # a forked process must not use the threads of its parent
    drawn_cells, draw = ids, MaskedGenes(vocabulary, seed=SEED)


def _draw_epoch(epoch: int) -> np.ndarray:
    """Tokens shown and labels of all cells, one after the other: 2 x tokens."""
    parts = []
    for first in range(0, len(drawn_cells), BATCH):
        cells = drawn_cells[first : first + BATCH]
        batch = draw([{"input_ids": ids, "row": first + i, "epoch": epoch} for i, ids in enumerate(cells)])
        filled = batch["attention_mask"].bool()
        parts.append(torch.stack([batch["input_ids"][filled], batch["labels"][filled]]).numpy().astype(np.int32))
    return np.concatenate(parts, axis=1)


class Watched:
    """An objective whose masks are drawn ahead, and whose evaluation is timed and keeps the best weights."""

    def __init__(self, objective: training.Objective, masks: DrawnMasks, vocabulary: vocabularies.Vocabulary):
        self.loss, self.about, self.collate, self.vocabulary = objective.loss, objective.about, masks, vocabulary
        self.best_loss, self.best_weights, self.seconds = math.inf, {}, 0.0

    def measure(self, model: PreTrainedModel, valid: datasets.Dataset) -> dict[str, float]:
        """Loss (nats), and accuracy, over all selected genes and over the hidden ones."""
        wait()
        start = time.perf_counter()
        predictions = predict(model, valid, self.vocabulary)
        hidden = predictions[predictions["kind"] == "hidden"]
        metrics = {"loss": float(predictions["nll"].mean()), "accuracy": float(predictions["correct"].mean())}
        metrics |= {"hidden loss": float(hidden["nll"].mean()), "hidden accuracy": float(hidden["correct"].mean())}
        if metrics["loss"] < self.best_loss:
            self.best_loss = metrics["loss"]
            self.best_weights = {name: weight.detach().clone() for name, weight in model.state_dict().items()}
        self.seconds += time.perf_counter() - start
        return metrics | {"evaluation seconds": self.seconds}


def wait() -> None:
    """Wait for the GPU, so that its work counts where it was asked for."""
    if torch.cuda.is_available():
        torch.cuda.synchronize()


def predict(model: PreTrainedModel, cells: datasets.Dataset, vocabulary: vocabularies.Vocabulary) -> pd.DataFrame:
    """Predictions of `masked_genes.predict_masked_genes` in large batches."""
    return masked_genes.predict_masked_genes(model, cells, vocabulary, seed=SEED, batch_size=EVALUATION_BATCH)


class Run:
    """The models of one run, their result, and its file."""

    def __init__(self, data: Cells, *, teacher: str, seconds: float, peak: float, rate: float, out: Path):
        self.data, self.teacher, self.deadline = data, teacher, START + seconds
        self.peak, self.rate, self.out = peak, rate, out
        self.squares = float(np.square(np.asarray(data.train["length"], float)).mean())
        self.result = {"what": "learning curves of the published sizes on held-out donors of pbmc-40"} | ABOUT
        self.result |= {"models": {}, "gains": {}, "skipped": [], "finished": False}
        self.predictions: dict[str, pd.DataFrame] = {}
        self.fresh: dict[str, PreTrainedModel] = {}

    def left(self) -> float:
        """Seconds until the deadline."""
        return self.deadline - time.time()

    def write(self) -> None:
        """Write the result so far."""
        files.write_json(self.out, self.result | {"seconds since the start": round(time.time() - START, 1)})

    def model(self, name: str) -> PreTrainedModel:
        """A model with its initial weights, which are the same each time."""
        if name not in self.fresh:
            self.fresh[name] = self._fresh_model(name)
        return copy.deepcopy(self.fresh[name])

    def _fresh_model(self, name: str) -> PreTrainedModel:
        vocabulary, cells = self.data.vocabulary, self.data.train
        options = {"visible_penalty": VISIBLE_PENALTY, "mask_token_id": vocabulary.tokens[vocabularies.MASK]}
        config = presets.preset(self.teacher, vocab_size=vocabulary.size, **options)
        config = config if name == self.teacher else students.student_config(name, config)
        model = presets.build(config, "masked-lm", seed=SEED)
        table = model.get_input_embeddings().weight.detach()
        spread = table.std()
        embeddings.start_from_coexpression(model, cells, vocabulary, seed=SEED)
        # That function's spread is over all genes of the vocabulary, of which few occur here.
        rows = np.unique(np.concatenate(masked_genes.token_ids(cells)))
        table[rows] *= spread / table[rows].std()
        return model

    def fit(
        self, name: str, masks: DrawnMasks, expert: teachers.Teacher | None, *, steps: int, every: int
    ) -> tuple[PreTrainedModel, Watched, pd.DataFrame]:
        """Train a model, with a teacher if one is given; ``seconds`` of the history are without evaluation."""
        model, vocabulary = self.model(name), self.data.vocabulary
        objective = masked_genes.MaskedGeneObjective(vocabulary, seed=SEED)
        if expert is not None:
            objective = students.DistillationObjective(expert, seed=SEED)
        watched = Watched(objective, masks, vocabulary)
        settings = training.Settings(
            learning_rate=self.rate,
            warmup_steps=math.ceil(WARMUP_SHARE * steps),
            batch_size=BATCH,
            steps=steps,
            attention_dropout=True,
            evaluate_every=every,
            save_every=steps,
        )
        with tempfile.TemporaryDirectory() as folder:
            options = {"precision": "bf16", "seed": SEED, "output_dir": folder, "settings": settings, "progress": False}
            history = training.fit(model, self.data.train, self.data.curve, objective=watched, **options)
        history["seconds"] -= history["evaluation seconds"]
        return model, watched, history

    def speed(self, name: str, masks: DrawnMasks, expert: teachers.Teacher | None, *, steps: int) -> float:
        """Seconds of a step, from the second half of a pilot."""
        _, _, history = self.fit(name, masks, expert, steps=2 * steps, every=steps)
        return float(history["seconds"].diff().iloc[-1] / steps)

    def record(
        self, name: str, model: PreTrainedModel, history: pd.DataFrame, expert: teachers.Teacher | None, wall: float
    ) -> None:
        """Score the weights, which are the last ones, and write the curve."""
        last, best = history.iloc[-1], history.loc[history["loss"].idxmin()]
        tokens, seconds = float(last["tokens"]), float(last["seconds"])
        # The start of the Trainer and of CUDA is before the first evaluation.
        speed = float(np.divide(*(last[["tokens", "seconds"]] - history.iloc[0][["tokens", "seconds"]])))
        squares = float(tokens / np.mean(self.data.train["length"]) * self.squares)
        taught_by = expert.model.config if expert is not None else None
        operations = costs.training_operations(model.config, tokens, squares, teacher_config=taught_by)
        columns = ["step", "epoch", "tokens", "seconds", "learning_rate", "train_loss"]
        columns += ["loss", "accuracy", "hidden loss", "hidden accuracy"]
        row = {"parameters": presets.n_parameters(model), "size": presets.describe_size(model)}
        row |= {"steps": int(last["step"]), "epochs": float(last["epoch"]), "real tokens": int(tokens)}
        row |= {"seconds": seconds, "evaluation seconds": float(last["evaluation seconds"]), "wall seconds": wall}
        tflops = operations / tokens * speed / 1e12
        row |= {"tokens a second": speed, "operations": operations, "TFLOP/s": tflops, "MFU": tflops / self.peak}
        row |= {"best of the curve": plain(best[columns]), "last of the curve": plain(last[columns])}
        row["curve"] = [plain(point) for point in history[columns].to_dict("records")]
        self.result["models"][name] = row | self.score(name, predict(model, self.data.valid, self.data.vocabulary))
        self.write()

    def score(self, name: str, predictions: pd.DataFrame) -> dict[str, object]:
        """Held-out metrics of predictions, which are kept."""
        self.predictions[name] = predictions
        kinds = masked_genes.accuracy_by_kind({name: predictions}, donors=self.data.donors, seed=SEED)
        averages = masked_genes.summarise_predictions(predictions, donors=self.data.donors, seed=SEED)
        by_kind = kinds.drop(columns="model").assign(loss=np.log(kinds["perplexity"])).set_index("kind")
        return {
            "held out": {kind: plain(row) for kind, row in by_kind.to_dict("index").items()},
            "averages": {over: plain(row) for over, row in averages.set_index("over").to_dict("index").items()},
        }

    def gain(self, first: str, second: str) -> None:
        """Record the nats a hidden gene that the first model saves against the second."""
        tables = (self.predictions[name] for name in (first, second))
        hidden = [table[table["kind"] == "hidden"] for table in tables]
        found = masked_genes.loss_reduction(*hidden, donors=self.data.donors, seed=SEED)
        values = found.pop("values")
        self.result["gains"][f"{first} over {second}"] = plain(found) | {"donors": plain(values)}
        self.write()


def plain(values: pd.Series | dict) -> dict[str, object]:
    """Values as JSON has them: five digits, whole numbers whole, and null where there is none."""
    numbers = {}
    for name, value in dict(values).items():
        if isinstance(value, str) or float(value).is_integer():
            numbers[name] = value if isinstance(value, str) else int(value)
        else:
            numbers[name] = None if math.isnan(value) else float(f"{value:.5g}")
    return numbers


def rounded_steps(steps: float, points: int, most: int) -> tuple[int, int]:
    """Steps, and steps between evaluations, of which there are ``points``; the last step is evaluated."""
    every = max(int(min(steps, most) / points), 1)
    return points * every, every


def run_all(run: Run, masks: DrawnMasks, *, points: int, pilot: int) -> None:
    """Train teacher and students within the time that is left."""
    most = len(masks.epochs) * math.ceil(len(run.data.train) / BATCH)
    step = run.speed(run.teacher, masks, None, steps=pilot)
    steps, every = rounded_steps(TEACHER_SHARE * run.left() / step, points, most)
    run.result["seconds of a step, pilot"] = {run.teacher: step}
    start = time.perf_counter()
    model, watched, history = run.fit(run.teacher, masks, None, steps=steps, every=every)
    run.record(f"{run.teacher}, last", model, history, None, time.perf_counter() - start)
    # Evaluation, the start of the Trainer and the final scores take a student as long.
    overhead = time.perf_counter() - start - history["seconds"].iloc[-1]
    model.load_state_dict(watched.best_weights)
    best = run.score(run.teacher, predict(model, run.data.valid, run.data.vocabulary))
    run.result["models"][run.teacher] = {"step": int(history.loc[history["loss"].idxmin(), "step"])} | best
    for baseline in run.data.baselines:
        run.gain(run.teacher, baseline)
    expert = teachers.Teacher(model, run.data.vocabulary)
    sides = {", alone": None, ", taught": expert}
    pilots = {side: run.speed(STUDENTS[-1], masks, given, steps=pilot) for side, given in sides.items()}
    run.result["seconds of a step, pilot"] |= {STUDENTS[-1] + side: seconds for side, seconds in pilots.items()}
    pair_step, pair_seconds = sum(pilots.values()), PLANNED_SHARE * run.left() / len(STUDENTS)
    steps, every = rounded_steps((pair_seconds - 2 * overhead) / pair_step, points, most)
    pair_seconds = steps * pair_step + 2 * overhead
    for name in STUDENTS:
        if run.left() < pair_seconds:
            reason = f"{pair_seconds:.0f} s expected, {run.left():.0f} s left"
            run.result["skipped"].append({"student": name, "reason": reason})
            continue
        start = time.perf_counter()
        for side, given in sides.items():
            begun = time.perf_counter()
            model, _, history = run.fit(name, masks, given, steps=steps, every=every)
            run.record(name + side, model, history, given, time.perf_counter() - begun)
        run.gain(f"{name}, taught", f"{name}, alone")
        pair_seconds = time.perf_counter() - start


def table(result: dict) -> pd.DataFrame:
    """Short table: hidden genes of held-out donors, by model and baseline."""
    rows = []
    for name, model in (result["baselines"] | result["models"]).items():
        hidden = model["held out"]["hidden"]
        row = {"model": name, "steps": model.get("steps"), "seconds": model.get("seconds")}
        row |= {"tokens/s": model.get("tokens a second"), "MFU": model.get("MFU"), "hidden loss": hidden["loss"]}
        rows.append(row | {key: hidden[key] for key in ("accuracy", "accuracy low", "accuracy high")})
    return pd.DataFrame(rows)


def main() -> None:
    """Prepare, or train."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--prepare", type=Path)
    parser.add_argument("--vocabulary", default="v1", help="empty: of the training cells, no published size then")
    parser.add_argument("--carried", type=Path)
    parser.add_argument("--teacher", default="")
    parser.add_argument("--rate", type=float, default=1e-3, help="learning rate")
    parser.add_argument("--epochs", type=int, default=MAX_EPOCHS, help="most epochs of a model")
    parser.add_argument("--seconds", type=float, default=200.0)
    parser.add_argument("--peak", type=float, default=989.0, help="of the device, dense bf16, TFLOP/s")
    parser.add_argument("--smoke", action="store_true", help="a few steps of each, on a small teacher by default")
    parser.add_argument("--out", type=Path, default=Path(__file__).with_suffix(".json"))
    given = parser.parse_args()
    if given.prepare:
        prepare(given.prepare, given.vocabulary)
        return
    torch.set_float32_matmul_precision("high")
    data = read(given.carried, smoke=given.smoke)
    begun = time.perf_counter()
    masks = DrawnMasks(data.train, data.vocabulary, epochs=2 if given.smoke else given.epochs)
    drawing = time.perf_counter() - begun
    teacher = given.teacher or ("bert-tiny" if given.smoke else "geneformer-10m")
    options = {"seconds": given.seconds, "peak": given.peak, "rate": given.rate, "out": given.out}
    run = Run(data, teacher=teacher, **options)
    run.result |= {
        "device": torch.cuda.get_device_name() if torch.cuda.is_available() else "CPU",
        "date": datetime.date.today().isoformat(),
        "versions": {name: importlib.metadata.version(name) for name in ("torch", "transformers", "accelerate")},
        "smoke": given.smoke,
        "budget, seconds": given.seconds,
        "peak, TFLOP/s": given.peak,
        "learning rate": given.rate,
        "seed": SEED,
        "batch": BATCH,
        "vocabulary": {"name": data.vocabulary.name, "tokens": data.vocabulary.size},
        "train": {"cells": len(data.train), "tokens": sum(data.train["length"]), "longest": max(data.train["length"])},
        "held out": {"cells": len(data.valid), "donors": len(set(data.donors)), "tokens": sum(data.valid["length"])},
        "drawing of masks, seconds": drawing,
    }
    run.result["baselines"] = {name: run.score(name, part) for name, part in data.baselines.items()}
    run.write()
    run_all(run, masks, points=2 if given.smoke else 15, pilot=2 if given.smoke else 40)
    run.result["finished"] = True
    run.write()
    print(table(run.result).to_string(index=False, float_format="{:.4g}".format))
    for name, found in run.result["gains"].items():
        print(f"{name}: {found['difference']:+.4f} nats a hidden gene ({found['low']} to {found['high']})")


if __name__ == "__main__":
    main()
