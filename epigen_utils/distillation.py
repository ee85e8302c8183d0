"""Students that learn from a frozen teacher what genes are masked: paper B, sections 2.2 and 2.3, Figure 4.

The divergence is taken where genes are asked for and nowhere else, as in the paper's code; neither model projects other positions
to the vocabulary (`models.masked_positions_only`).
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

#: Paper B's code: AdamW at 3e-4 with a decay of 0.01 (its configuration says 0.1, which the code does not read), 2,000 steps of
#: warm-up, a cosine, gradients clipped at 1, and 24, later 32, cells a step in two parts. Attention dropout is BertConfig's.
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
#: Half turns of the cosine in the logs of the 4.3M student: to 0 at 100,000 steps, and up and down again until 600,000.
PUBLISHED_CYCLES = (600_000 - 2000) / (100_000 - 2000) / 2
#: Cells that go through a model at once outside training.
CELLS = 16


class Teacher:
    """A frozen model and what it thinks of masked genes.

    What is kept of it for later is the state from which it names a gene, as wide as the model, and not the logits, as wide as the
    vocabulary: a product with its output embedding makes the one of the other.

    Raises
    ------
    DataError
        If the model's vocabulary is of another size than the one that is given.
    """

    def __init__(self, model: PreTrainedModel, vocabulary: Vocabulary):
        if model.config.vocab_size != vocabulary.size:
            raise DataError(
                f"teacher: it names {model.config.vocab_size} tokens, the vocabulary {vocabulary.name!r} has {vocabulary.size}; "
                "give the vocabulary.json that lies beside the teacher"
            )
        self.model, self.vocabulary = model.eval().requires_grad_(False), vocabulary
        self.fingerprint = training.fingerprint(model)

    def _beside(self, values: torch.Tensor) -> None:
        # Moving a model to where it is already walks over all of its parts, which is felt in each step.
        if self.model.device != values.device:
            self.model.to(values.device)

    @torch.no_grad()
    def states(self, batch: dict[str, torch.Tensor]) -> torch.Tensor:
        """States of the genes that are asked for, in the order of the batch: genes x width."""
        self._beside(batch["input_ids"])
        hidden = self.model.base_model(batch["input_ids"], attention_mask=batch["attention_mask"]).last_hidden_state
        return self.model.cls.predictions.transform(hidden[batch["labels"] != IGNORED])

    @torch.no_grad()
    def logits(self, states: torch.Tensor) -> torch.Tensor:
        """Logits, genes x vocabulary."""
        self._beside(states)
        return self.model.cls.predictions.decoder(states)


class Remembered:
    """States of a teacher on disk, for every cell and epoch: they follow from the masks, which follow from seed, cell and epoch.

    Worth its disk where several students learn from one teacher, or one teacher is much larger than its student
    (benchmarks/distillation.py).
    """

    def __init__(self, states: np.ndarray, starts: np.ndarray, n_cells: int):
        self.values, self.starts, self.n_cells = states, starts, n_cells

    @classmethod
    def of(cls, teacher: Teacher, cells: object, *, epochs: float, seed: int, folder: Path) -> "Remembered":
        """Read what lies in the folder, or ask the teacher and write it there, beside and then renamed.

        Parameters
        ----------
        cells
            Encoded cells, something whose ``["input_ids"]`` are token ids.
        epochs
            A part of one counts whole.
        seed
            Of the masks.
        """
        ids = [np.asarray(cell) for cell in cells["input_ids"]]
        n_epochs = int(np.ceil(epochs))
        digest = hashlib.sha256(f"{teacher.fingerprint} {teacher.vocabulary.sha256} {n_epochs} {seed}".encode())
        for cell in ids:
            digest.update(cell.astype(np.int64).tobytes() + b"|")
        folder = Path(folder) / digest.hexdigest()[:16]
        if not folder.is_dir():
            cls._ask(teacher, ids, n_epochs, seed, folder)
        starts = np.load(folder / "starts.npy")
        return cls(np.load(folder / "states.npy", mmap_mode="r"), starts, len(ids))

    @staticmethod
    def _ask(teacher: Teacher, ids: list[np.ndarray], n_epochs: int, seed: int, folder: Path) -> None:
        collate = MaskedGenes(teacher.vocabulary, seed=seed)
        order = np.argsort([-len(cell) for cell in ids], kind="stable")
        found: list[np.ndarray] = [np.empty(0)] * (n_epochs * len(ids))
        for epoch in range(n_epochs):
            for first in range(0, len(ids), CELLS):
                some = order[first : first + CELLS]
                batch = collate([{"input_ids": ids[row], "row": int(row), "epoch": epoch} for row in some])
                device = teacher.model.device
                states = teacher.states({name: values.to(device) for name, values in batch.items()}).cpu().numpy()
                n = (batch["labels"] != IGNORED).sum(dim=1).tolist()
                parts = np.split(states, np.cumsum(n)[:-1])
                for row, part in zip(some, parts, strict=True):
                    found[epoch * len(ids) + row] = part
        part = folder.with_name(f".{folder.name}.part")
        part.mkdir(parents=True, exist_ok=True)
        np.save(part / "starts.npy", np.cumsum([0, *(len(states) for states in found)]))
        np.save(part / "states.npy", np.concatenate(found))
        part.rename(folder)

    def states(self, rows: list[dict]) -> torch.Tensor:
        """Of cells with their ``row`` and ``epoch``, in their order: genes x width."""
        places = [row["epoch"] * self.n_cells + row["row"] for row in rows]
        parts = [self.values[self.starts[place] : self.starts[place + 1]] for place in places]
        return torch.from_numpy(np.concatenate(parts))


class Objective:
    """Masked genes, and what a teacher thinks of them, as something to train for (`training.fit`).

    Parameters
    ----------
    alpha, temperature, scaled, alpha_on
        As of `losses.distillation_loss`.
    seed
        Of the masks.
    remembered
        What the teacher said, where it was asked before; without it the teacher is asked in each step.

    Raises
    ------
    DataError
        As `losses.check_distillation`.
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
        self.valid, self.asked = None, []

    def collate(self, rows: list[dict]) -> dict[str, torch.Tensor]:
        """As `MaskedGenes`, with ``teacher_states`` where they are remembered."""
        batch = self.masked(rows)
        return batch if self.remembered is None else batch | {"teacher_states": self.remembered.states(rows)}

    def loss(self, model: PreTrainedModel, batch: dict[str, torch.Tensor], n_asked: int | None) -> torch.Tensor:
        """Of a batch, over all genes that are asked for in it, or in all parts and on all devices.

        Raises
        ------
        DataError
            If the student has another vocabulary.
        """
        states = batch.pop("teacher_states", None)
        states = self.teacher.states(batch) if states is None else states
        labels = batch["labels"][batch["labels"] != IGNORED]
        logits = model(**batch).logits
        found = losses.distillation_loss(logits, self.teacher.logits(states), labels, reduction="sum", **self.options)
        return found["total"] / max(int(len(labels) if n_asked is None else n_asked), 1)

    @torch.no_grad()
    def measure(self, model: PreTrainedModel, valid: object) -> dict[str, float]:
        """Means over masked genes: ``loss``, ``ce`` and ``kl`` (nats), and ``accuracy``."""
        model.eval()
        if self.valid is not valid:
            rows = masked_genes.ordered(valid)
            batches = [self.masked(rows[first : first + CELLS]) for first in range(0, len(rows), CELLS)]
            batches = [{name: values.to(model.device) for name, values in batch.items()} for batch in batches]
            self.valid, self.asked = valid, [(batch, self.teacher.states(batch)) for batch in batches]
        sums, right, n = dict.fromkeys(("total", "ce", "kl"), 0.0), 0, 0
        for batch, states in self.asked:
            labels = batch["labels"][batch["labels"] != IGNORED]
            logits = model(**batch).logits
            found = losses.distillation_loss(
                logits, self.teacher.logits(states), labels, reduction="sum", **self.options
            )
            sums = {name: value + float(found[name]) for name, value in sums.items()}
            right += int((logits.argmax(dim=-1) == labels).sum())
            n += len(labels)
        means = {name: value / max(n, 1) for name, value in sums.items()}
        return {"loss": means.pop("total"), **means, "accuracy": right / max(n, 1)}


@dataclass(frozen=True)
class Run:
    """A student to be trained.

    Attributes
    ----------
    name
        What it is called in tables and folders.
    student
        Preset.
    alpha
        None for cross entropy alone, without a teacher.
    cycles
        As of `training.Settings`.
    stretch
        How many times as long as the others it goes on.
    seed
        Of its weights and the order of the cells; masks are the same for all.
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
    """Each student from its teacher; and of the first, the controls that paper B lacks.

    Controls are cross entropy alone, with as many seeds as the distilled student; alpha on the divergence, as in the paper's code;
    no squared temperature, as in Eq. 6; and the learning rate of the paper's logs, which at the end of a run comes back and falls
    again over as many steps each.
    """
    first = students[0]
    runs = [Run(name, name, seed=seed, **options) for name in students]
    for more in range(n_seeds):
        if more:
            runs.append(Run(f"{first}, seed {more}", first, seed=seed + more, **options))
        name = f"{first}, CE only" + (f", seed {more}" if more else "")
        runs.append(Run(name, first, alpha=None, seed=seed + more))
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
    """Train one student, or read it where it is finished.

    Parameters
    ----------
    folder
        In which each run has a folder of its own.

    Returns
    -------
    The student, and its history as of `training.fit`; ``accuracy`` and the losses are of held-out cells.

    Raises
    ------
    DataError
        As `Objective`.
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
    """A name as one of a folder."""
    return "-".join(name.replace(",", "").replace("²", "2").split())


def student(name: str, teacher: PretrainedConfig) -> PretrainedConfig:
    """A student beside this teacher as the published one stands beside Geneformer-V1-10M.

    Beside a teacher of the published shape it is the preset: four layers for six, and half, three eighths or a quarter of the
    width. Widths are rounded to a multiple of the heads, layers up; dropout and activation are the preset's, vocabulary, positions
    and the size of fresh weights the teacher's.
    """
    own, full = models.preset(name), models.preset("geneformer-10m")
    heads = own.num_attention_heads
    width = max(round(teacher.hidden_size * own.hidden_size / full.hidden_size / heads), 1) * heads
    return models.preset(
        name,
        vocab_size=teacher.vocab_size,
        hidden_size=width,
        intermediate_size=4 * width,
        num_hidden_layers=-(-teacher.num_hidden_layers * own.num_hidden_layers // full.num_hidden_layers),
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
    """Search alpha, temperature and learning rate, by the cross entropy on donors held out inside the training donors (optuna, TPE).

    Parameters
    ----------
    cells, donors
        Encoded cells of the training donors, and who each is from.
    settings
        Of each trial, but for the learning rate, which is searched a factor of five around theirs.

    Returns
    -------
    A row a trial, best first: ``alpha``, ``temperature``, ``learning_rate``, ``ce``, ``accuracy``.
    """
    out = evaluation.hold_out(np.asarray(donors), share=0.25, seed=seed)
    inside, outside = cells.select(np.flatnonzero(~out)), cells.select(np.flatnonzero(out))
    rows = []

    def score(trial: optuna.Trial) -> float:
        rate = settings.learning_rate
        chosen = {
            "alpha": trial.suggest_float("alpha", 0.0, 1.0),
            "temperature": trial.suggest_float("temperature", 1.0, 6.0),
            "learning_rate": trial.suggest_float("learning_rate", rate / 5, rate * 5, log=True),
        }
        some = replace(settings, learning_rate=chosen["learning_rate"])
        run = Run(f"trial {trial.number}", preset, alpha=chosen["alpha"], temperature=chosen["temperature"], seed=seed)
        model, _ = fit(run, teacher, inside, outside, settings=some, folder=folder, mask_seed=seed)
        found = masked_genes.predict(model, outside, teacher.vocabulary, seed=seed)
        rows.append({**chosen, "ce": found["nll"].mean(), "accuracy": found["correct"].mean()})
        return rows[-1]["ce"]

    optuna.logging.set_verbosity(optuna.logging.WARNING)
    optuna.create_study(sampler=optuna.samplers.TPESampler(seed=seed)).optimize(score, n_trials=n_trials)
    return pd.DataFrame(rows).sort_values("ce", ignore_index=True)


def note(folder: Path, runs: list[Run]) -> None:
    """Keep beside the students which run each folder is of, as ``students.json``."""
    write_atomically(Path(folder) / "students.json", json.dumps([asdict(run) for run in runs], indent=1))


def noted(folder: Path) -> list[Run]:
    """Read what `note` wrote.

    Raises
    ------
    DataError
        If it is not there.
    """
    try:
        return [Run(**run) for run in json.loads((Path(folder) / "students.json").read_text())]
    except OSError:
        raise DataError(f"{folder}: no students.json; give the folder models of geneformer/06_distillation") from None


def load(folder: Path, run: Run) -> PreTrainedModel:
    """A student that was trained."""
    return models.load(str(Path(folder) / slug(run.name) / "model"))


def untrained(runs: list[Run], teacher: PreTrainedModel) -> dict[str, PreTrainedModel]:
    """Students as they start, by the name of the run."""
    return {run.name: models.build(student(run.student, teacher.config), "masked-lm", seed=run.seed) for run in runs}
