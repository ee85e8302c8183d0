"""Distillation of a frozen teacher into students by masked genes: paper B, sections 2.2 and 2.3, Figure 4.

The divergence covers masked genes only, as in the paper's code; neither model projects other positions to the
vocabulary (`models.masked_positions_only`).
"""

import hashlib
import json
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import numpy as np
import optuna
import pandas as pd
import torch
from transformers import PretrainedConfig, PreTrainedModel

from epigen_utils import evaluation, losses, masked_genes, models, training
from epigen_utils.batching import MaskedGenes
from epigen_utils.errors import DataError
from epigen_utils.files import write_atomically
from epigen_utils.models import IGNORED
from epigen_utils.training import Settings
from epigen_utils.vocabularies import Vocabulary

#: Paper B's code: AdamW at 3e-4 with a decay of 0.01 (its configuration gives 0.1, which the code does not read), 2,000
#: steps of warm-up, a cosine schedule, gradients clipped at 1, and 24, later 32, cells per step in two parts;
#: BertConfig's attention dropout.
PUBLISHED = Settings(
    learning_rate=3e-4,
    warmup_steps=2000,
    weight_decay=0.01,
    batch_size=16,
    accumulate=2,
    steps=600_000,
    schedule="cosine",
    attention_dropout=True,
)
#: Periods of the cosine in the logs of the 4.3M student: 0 at 100,000 steps, then up and down again until 600,000.
PUBLISHED_CYCLES = (600_000 - 2000) / (100_000 - 2000) / 2
#: Cells per forward pass outside training.
CELLS = 16


class Teacher:
    """A frozen model and its predictions of masked genes.

    Final hidden states (as wide as the model) are cached instead of logits (as wide as the vocabulary); the output
    embedding maps one to the other.

    Raises
    ------
    DataError
        If the sizes of the model's and the given vocabulary differ.
    """

    def __init__(self, model: PreTrainedModel, vocabulary: Vocabulary):
        if model.config.vocab_size != vocabulary.size:
            raise DataError(
                f"teacher: it names {model.config.vocab_size} tokens, the vocabulary {vocabulary.name!r} has "
                f"{vocabulary.size}; give the vocabulary.json that lies beside the teacher"
            )
        self.model, self.vocabulary = model.eval().requires_grad_(False), vocabulary
        self.fingerprint = training.fingerprint(model)

    def _move_to_device_of(self, values: torch.Tensor) -> None:
        # `model.to` visits every submodule even if nothing moves, which costs time in each step.
        if self.model.device != values.device:
            self.model.to(values.device)

    @torch.no_grad()
    def states(self, batch: dict[str, torch.Tensor]) -> torch.Tensor:
        """Final hidden states of the masked genes, in the order of the batch: genes x width."""
        self._move_to_device_of(batch["input_ids"])
        hidden = self.model.base_model(batch["input_ids"], attention_mask=batch["attention_mask"]).last_hidden_state
        return self.model.cls.predictions.transform(hidden[batch["labels"] != IGNORED])  # (masked genes, width)

    @torch.no_grad()
    def logits(self, states: torch.Tensor) -> torch.Tensor:
        """Logits from final hidden states: genes x vocabulary."""
        self._move_to_device_of(states)
        return self.model.cls.predictions.decoder(states)


class Remembered:
    """A teacher's states on disk, for every cell and epoch, as functions of the masks (seed, cell and epoch).

    Worth the disk space if several students learn from one teacher, or if the teacher is much larger than its student
    (benchmarks/distillation.py).
    """

    def __init__(self, states: np.ndarray, starts: np.ndarray, n_cells: int):
        self.values, self.starts, self.n_cells = states, starts, n_cells

    @classmethod
    def of(cls, teacher: Teacher, cells: object, *, epochs: float, seed: int, folder: Path) -> "Remembered":
        """Read the states from the folder, or compute them and write them there atomically.

        Parameters
        ----------
        cells
            Encoded cells, something whose ``["input_ids"]`` are token ids.
        epochs
            Rounded up to whole epochs.
        seed
            Seed of the masks.
        """
        ids = [np.asarray(cell) for cell in cells["input_ids"]]
        n_epochs = int(np.ceil(epochs))
        digest = hashlib.sha256(f"{teacher.fingerprint} {teacher.vocabulary.sha256} {n_epochs} {seed}".encode())
        for cell in ids:
            digest.update(cell.astype(np.int64).tobytes() + b"|")
        folder = Path(folder) / digest.hexdigest()[:16]
        if not folder.is_dir():
            cls._write(teacher, ids, n_epochs, seed, folder)
        starts = np.load(folder / "starts.npy")
        return cls(np.load(folder / "states.npy", mmap_mode="r"), starts, len(ids))

    @staticmethod
    def _write(teacher: Teacher, ids: list[np.ndarray], n_epochs: int, seed: int, folder: Path) -> None:
        collate = MaskedGenes(teacher.vocabulary, seed=seed)
        order = np.argsort([-len(cell) for cell in ids], kind="stable")
        cell_states: list[np.ndarray] = [np.empty(0)] * (n_epochs * len(ids))  # (masked genes, width) of each cell
        for epoch in range(n_epochs):
            for first in range(0, len(ids), CELLS):
                rows = order[first : first + CELLS]
                batch = collate([{"input_ids": ids[row], "row": int(row), "epoch": epoch} for row in rows])
                device = teacher.model.device
                states = teacher.states({name: values.to(device) for name, values in batch.items()}).cpu().numpy()
                n_masked = (batch["labels"] != IGNORED).sum(dim=1).tolist()
                for row, part in zip(rows, np.split(states, np.cumsum(n_masked)[:-1]), strict=True):
                    cell_states[epoch * len(ids) + row] = part
        temporary = folder.with_name(f".{folder.name}.part")
        temporary.mkdir(parents=True, exist_ok=True)
        np.save(temporary / "starts.npy", np.cumsum([0, *(len(states) for states in cell_states)]))
        np.save(temporary / "states.npy", np.concatenate(cell_states))
        temporary.rename(folder)

    def states(self, rows: list[dict]) -> torch.Tensor:
        """States of the masked genes of cells with ``row`` and ``epoch``, in the order of the cells: genes x width."""
        indices = [row["epoch"] * self.n_cells + row["row"] for row in rows]
        parts = [self.values[self.starts[index] : self.starts[index + 1]] for index in indices]
        return torch.from_numpy(np.concatenate(parts))


class Objective:
    """Training objective (`training.fit`): masked genes and a teacher's distribution over them.

    Parameters
    ----------
    alpha, temperature, scaled, alpha_on
        Options of `losses.distillation_loss`.
    seed
        Seed of the masks.
    remembered
        Cached states of the teacher; without them the teacher runs in each step.

    Raises
    ------
    DataError
        If `losses.check_distillation` fails.
    """

    def __init__(
        self,
        teacher: Teacher,
        *,
        alpha: float = losses.ALPHA,
        temperature: float = losses.TEMPERATURE,
        scaled: bool = True,
        alpha_on: str = "ce",
        seed: int = 0,
        remembered: Remembered | None = None,
    ):
        losses.check_distillation(alpha, temperature, alpha_on)
        self.teacher, self.remembered = teacher, remembered
        self.options = {"alpha": alpha, "temperature": temperature, "scaled": scaled, "alpha_on": alpha_on}
        self.masked = MaskedGenes(teacher.vocabulary, seed=seed)
        self.about = self.options | {"teacher": teacher.fingerprint, "vocabulary": teacher.vocabulary.sha256}
        self.about["masks"] = seed
        self.valid, self.valid_batches = None, []

    def collate(self, rows: list[dict]) -> dict[str, torch.Tensor]:
        """Batch of `MaskedGenes`, with ``teacher_states`` if they are cached."""
        batch = self.masked(rows)
        return batch if self.remembered is None else batch | {"teacher_states": self.remembered.states(rows)}

    def loss(self, model: PreTrainedModel, batch: dict[str, torch.Tensor], n_labels: int | None) -> torch.Tensor:
        """Loss of a batch, averaged over its masked genes, or over ``n_labels`` of all parts and devices.

        Raises
        ------
        DataError
            If the student's vocabulary differs from the teacher's.
        """
        states = batch.pop("teacher_states", None)
        states = self.teacher.states(batch) if states is None else states
        labels = batch["labels"][batch["labels"] != IGNORED]  # (masked genes,)
        terms = self._terms(model(**batch).logits, states, labels)
        return terms["total"] / max(int(len(labels) if n_labels is None else n_labels), 1)

    def _terms(self, logits: torch.Tensor, states: torch.Tensor, labels: torch.Tensor) -> dict[str, torch.Tensor]:
        return losses.distillation_loss(logits, self.teacher.logits(states), labels, reduction="sum", **self.options)

    @torch.no_grad()
    def measure(self, model: PreTrainedModel, valid: object) -> dict[str, float]:
        """Means over masked genes: ``loss``, ``ce`` and ``kl`` (nats), and ``accuracy``."""
        model.eval()
        if self.valid is not valid:
            rows = masked_genes.ordered(valid)
            batches = [self.masked(rows[first : first + CELLS]) for first in range(0, len(rows), CELLS)]
            batches = [{name: values.to(model.device) for name, values in batch.items()} for batch in batches]
            self.valid, self.valid_batches = valid, [(batch, self.teacher.states(batch)) for batch in batches]
        sums, n_correct, n = dict.fromkeys(("total", "ce", "kl"), 0.0), 0, 0
        for batch, states in self.valid_batches:
            labels = batch["labels"][batch["labels"] != IGNORED]
            logits = model(**batch).logits
            terms = self._terms(logits, states, labels)
            sums = {name: value + float(terms[name]) for name, value in sums.items()}
            n_correct += int((logits.argmax(dim=-1) == labels).sum())
            n += len(labels)
        means = {name: value / max(n, 1) for name, value in sums.items()}
        return {"loss": means.pop("total"), **means, "accuracy": n_correct / max(n, 1)}


@dataclass(frozen=True)
class Run:
    """A student and how it is trained.

    Attributes
    ----------
    name
        Name in tables; its folder is named after it.
    student
        Name of the preset.
    alpha
        None: cross entropy alone, without a teacher.
    cycles
        Periods of a cosine schedule (`training.Settings`).
    stretch
        Length of the run relative to the others.
    seed
        Seed of the weights and of the order of the cells; all runs share the masks.
    """

    name: str
    student: str
    alpha: float | None = losses.ALPHA
    temperature: float = losses.TEMPERATURE
    scaled: bool = True
    alpha_on: str = "ce"
    cycles: float = 0.5
    stretch: int = 1
    seed: int = 0


def plan(students: list[str], *, n_seeds: int, seed: int = 0, **options: object) -> list[Run]:
    """Runs of each distilled student, and controls of the first student that paper B lacks.

    The controls are cross entropy alone, with as many seeds as the distilled student; alpha on the divergence, as in
    the paper's code; no squared temperature, as in Eq. 6; and the learning rate of the paper's logs, which rises and
    decays again after the run, over the same number of steps each.
    """
    first = students[0]
    runs = [Run(name, name, seed=seed, **options) for name in students]
    for offset in range(n_seeds):
        if offset:
            runs.append(Run(f"{first}, seed {offset}", first, seed=seed + offset, **options))
        name = f"{first}, CE only" + (f", seed {offset}" if offset else "")
        runs.append(Run(name, first, alpha=None, seed=seed + offset))
    runs.append(replace(runs[0], name=f"{first}, alpha on KL", alpha_on="kl"))
    runs.append(replace(runs[0], name=f"{first}, T² left out", scaled=False))
    return [*runs, replace(runs[0], name=f"{first}, restarted, 3 times as long", cycles=1.5, stretch=3)]


def fit(
    run: Run,
    teacher: Teacher,
    train: object,
    valid: object,
    *,
    settings: Settings,
    folder: Path,
    remembered: Remembered | None = None,
    mask_seed: int = 0,
    precision: str = "fp32",
) -> tuple[PreTrainedModel, pd.DataFrame]:
    """Train one student, or load it if its run is finished.

    Parameters
    ----------
    folder
        Parent of the runs' folders.

    Returns
    -------
    The student, and the history of `training.fit` with ``accuracy`` and the losses on held-out cells.

    Raises
    ------
    DataError
        If the run's loss options are invalid (`Objective`).
    """
    model = models.build(student(run.student, teacher.model.config), "masked-lm", seed=run.seed)
    if run.alpha is None:
        objective = masked_genes.Objective(teacher.vocabulary, seed=mask_seed)
    else:
        names = ("alpha", "temperature", "scaled", "alpha_on")
        options = {name: getattr(run, name) for name in names}
        remembered = remembered if run.stretch == 1 else None
        objective = Objective(teacher, **options, seed=mask_seed, remembered=remembered)
    schedule = {"cycles": run.cycles} if settings.schedule == "cosine" else {}
    history = training.fit(
        model,
        train,
        valid,
        objective=objective,
        precision=precision,
        seed=run.seed,
        output_dir=Path(folder) / slug(run.name),
        settings=replace(settings, epochs=settings.epochs * run.stretch, **schedule),
        progress=False,
    )
    return model, history


def slug(name: str) -> str:
    """Name of a run's folder."""
    return "-".join(name.replace(",", "").replace("²", "2").split())


def student(name: str, teacher: PretrainedConfig) -> PretrainedConfig:
    """Configuration of a student with the published ratios of student to teacher (Geneformer-V1-10M).

    For a teacher of the published shape it is the preset: four layers for six, and a half, three eighths or a quarter
    of the width. Widths are rounded to a multiple of the heads, layers up. Dropout and activation are the preset's;
    vocabulary, positions and initialisation are the teacher's.
    """
    published_student, published_teacher = models.preset(name), models.preset("geneformer-10m")
    heads = published_student.num_attention_heads
    width = teacher.hidden_size * published_student.hidden_size / published_teacher.hidden_size
    width = max(round(width / heads), 1) * heads
    layers = teacher.num_hidden_layers * published_student.num_hidden_layers
    return models.preset(
        name,
        vocab_size=teacher.vocab_size,
        hidden_size=width,
        intermediate_size=4 * width,
        num_hidden_layers=-(-layers // published_teacher.num_hidden_layers),
        max_position_embeddings=teacher.max_position_embeddings,
        initializer_range=teacher.initializer_range,
        pad_token_id=teacher.pad_token_id,
    )


def tune(
    teacher: Teacher,
    preset: str,
    cells: object,
    donors: np.ndarray,
    *,
    settings: Settings,
    folder: Path,
    n_trials: int,
    seed: int = 0,
) -> pd.DataFrame:
    """Search alpha, temperature and learning rate (optuna, TPE).

    The criterion is the cross entropy on donors held out from the training donors.

    Parameters
    ----------
    cells, donors
        Encoded cells of the training donors, and the donor of each.
    settings
        Settings of each trial; the learning rate is searched within a factor of five.

    Returns
    -------
    One row per trial, best first: ``alpha``, ``temperature``, ``learning_rate``, ``ce``, ``accuracy``.
    """
    held_out = evaluation.hold_out(np.asarray(donors), share=0.25, seed=seed)
    train, valid = cells.select(np.flatnonzero(~held_out)), cells.select(np.flatnonzero(held_out))
    rows = []

    def score(trial: optuna.Trial) -> float:
        base_rate = settings.learning_rate
        alpha = trial.suggest_float("alpha", 0.0, 1.0)
        temperature = trial.suggest_float("temperature", 1.0, 6.0)
        rate = trial.suggest_float("learning_rate", base_rate / 5, base_rate * 5, log=True)
        run = Run(f"trial {trial.number}", preset, alpha=alpha, temperature=temperature, seed=seed)
        trial_settings = replace(settings, learning_rate=rate)
        model, _ = fit(run, teacher, train, valid, settings=trial_settings, folder=folder, mask_seed=seed)
        predictions = masked_genes.predict(model, valid, teacher.vocabulary, seed=seed)
        row = {"alpha": alpha, "temperature": temperature, "learning_rate": rate}
        rows.append(row | {"ce": predictions["nll"].mean(), "accuracy": predictions["correct"].mean()})
        return rows[-1]["ce"]

    optuna.logging.set_verbosity(optuna.logging.WARNING)
    optuna.create_study(sampler=optuna.samplers.TPESampler(seed=seed)).optimize(score, n_trials=n_trials)
    return pd.DataFrame(rows).sort_values("ce", ignore_index=True)


def note(folder: Path, runs: list[Run]) -> None:
    """Write the runs beside their folders, as ``students.json``."""
    write_atomically(Path(folder) / "students.json", json.dumps([asdict(run) for run in runs], indent=1))


def noted(folder: Path) -> list[Run]:
    """Read the runs written by `note`.

    Raises
    ------
    DataError
        If the file is missing.
    """
    try:
        return [Run(**run) for run in json.loads((Path(folder) / "students.json").read_text())]
    except OSError:
        raise DataError(f"{folder}: no students.json; give the folder models of geneformer/06_distillation") from None


def load(folder: Path, run: Run) -> PreTrainedModel:
    """Load a trained student."""
    return models.load(str(Path(folder) / slug(run.name) / "model"))


def untrained(runs: list[Run], teacher: PreTrainedModel) -> dict[str, PreTrainedModel]:
    """Students with their initial weights, by the name of the run."""
    return {run.name: models.build(student(run.student, teacher.config), "masked-lm", seed=run.seed) for run in runs}
