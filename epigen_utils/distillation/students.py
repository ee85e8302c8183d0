"""Distillation of a frozen teacher into students by masked genes: paper B, sections 2.2 and 2.3, Figure 4.

The divergence covers masked genes only, as in the paper's code; neither model projects other positions to the
vocabulary (`masked_heads.masked_positions_only`).
"""

from dataclasses import asdict, dataclass, replace
from pathlib import Path

import datasets
import numpy as np
import optuna
import pandas as pd
import torch
from transformers import PretrainedConfig, PreTrainedModel

from epigen_utils import files
from epigen_utils.distillation import teachers
from epigen_utils.errors import DataError, first_line
from epigen_utils.geneformer import embeddings, masked_genes
from epigen_utils.geneformer.encoded_cells import EncodedCells
from epigen_utils.geneformer.masked_genes import MaskedGenes
from epigen_utils.models import batching, losses, presets, search, training
from epigen_utils.models.batching import IGNORED
from epigen_utils.models.training import Settings
from epigen_utils.stats import folds

#: Paper B's code: AdamW at 3e-4 with a decay of 0.01 (its configuration gives 0.1, which the code does not read), 2,000
#: steps of warm-up, a cosine schedule, gradients clipped at 1, and 24, later 32, cells per step in two parts;
#: BertConfig's attention dropout.
PUBLISHED_SETTINGS = Settings(
    learning_rate=3e-4,
    warmup_steps=2000,
    weight_decay=0.01,
    batch_size=16,
    accumulate=2,
    steps=600_000,
    schedule="cosine",
    attention_dropout=True,
)


class DistillationObjective:
    """Training objective (`training.fit`): masked genes and a teacher's distribution over them.

    Parameters
    ----------
    alpha, temperature, scaled, alpha_on
        Options of `losses.distillation_loss`.
    seed
        Seed of the masks.
    cached_states
        Cached states of the teacher; without them the teacher runs in each step.

    Raises
    ------
    DataError
        If `losses.check_distillation_options` fails.
    """

    def __init__(
        self,
        teacher: teachers.Teacher,
        *,
        alpha: float = losses.ALPHA,
        temperature: float = losses.TEMPERATURE,
        scaled: bool = True,
        alpha_on: str = "ce",
        seed: int = 0,
        cached_states: teachers.CachedStates | None = None,
    ):
        losses.check_distillation_options(alpha, temperature, alpha_on)
        self.teacher, self.cached_states = teacher, cached_states
        self.options = {"alpha": alpha, "temperature": temperature, "scaled": scaled, "alpha_on": alpha_on}
        self.masked = MaskedGenes(teacher.vocabulary, seed=seed)
        self.about = self.options | {"teacher": teacher.fingerprint, "vocabulary": teacher.vocabulary.sha256}
        self.about["masks"] = seed
        self.valid, self.valid_batches = None, []

    def collate(self, rows: list[dict]) -> dict[str, torch.Tensor]:
        """Batch of `MaskedGenes`, with ``teacher_states`` if they are cached."""
        batch = self.masked(rows)
        return batch if self.cached_states is None else batch | {"teacher_states": self.cached_states.states(rows)}

    def loss(self, model: PreTrainedModel, batch: dict[str, torch.Tensor], n_labels: int | None) -> torch.Tensor:
        """Loss of a batch, averaged over its masked genes, or over ``n_labels`` of all parts and devices.

        Raises
        ------
        DataError
            If the student's vocabulary differs from the teacher's.
        """
        states = batch.pop("teacher_states", None)
        states = self.teacher.states(batch) if states is None else states
        terms = self._terms(model(**batch).logits, states, batch)
        n_asked = (batch["labels"] != IGNORED).sum() if n_labels is None else n_labels
        return terms["total"] / torch.as_tensor(n_asked).clamp(min=1)

    def _terms(
        self, logits: torch.Tensor, states: torch.Tensor, batch: dict[str, torch.Tensor]
    ) -> dict[str, torch.Tensor]:
        labels = batch["labels"][batch["labels"] != IGNORED]  # (masked genes,)
        told = self.teacher.logits(states, batch)
        return losses.distillation_loss(logits, told, labels, reduction="sum", **self.options)

    @torch.no_grad()
    def measure(self, model: PreTrainedModel, valid: EncodedCells) -> dict[str, float]:
        """Means over masked genes: ``loss``, ``ce`` and ``kl`` (nats), and ``accuracy``."""
        model.eval()
        if self.valid is not valid:
            self.valid, self.valid_batches = valid, []
            for _, batch in self.masked.batches(valid, masked_genes.INFERENCE_BATCH_SIZE):
                batch = batching.to_device(batch, model.device)
                self.valid_batches.append((batch, self.teacher.states(batch)))
        sums, n_correct, n = dict.fromkeys(("total", "ce", "kl"), 0.0), 0, 0
        for batch, states in self.valid_batches:
            labels = batch["labels"][batch["labels"] != IGNORED]
            logits = model(**batch).logits
            terms = self._terms(logits, states, batch)
            sums = {name: value + float(terms[name]) for name, value in sums.items()}
            n_correct += int((logits.argmax(dim=-1) == labels).sum())
            n += len(labels)
        means = {name: value / max(n, 1) for name, value in sums.items()}
        return {"loss": means.pop("total"), **means, "accuracy": n_correct / max(n, 1)}


@dataclass(frozen=True)
class StudentRun:
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


def plan_runs(
    students: list[str], *, n_seeds: int, seed: int = 0, controls: bool = False, **options: object
) -> list[StudentRun]:
    """Runs of each student with a teacher, and by the cross entropy alone, for each seed.

    Parameters
    ----------
    controls
        Whether to add controls of the first student: the published alpha and temperature, if it has others; alpha on
        the divergence, as in the paper's code, or on the cross entropy where the others have it there; no squared
        temperature, as in Eq. 6; and the learning rate of the paper's logs, which rises and decays again after the run,
        over the same number of steps each.
    options
        Of the runs with a teacher.
    """
    runs = []
    for offset in range(n_seeds):
        suffix = f", seed {offset}" if offset else ""
        for name in students:
            runs.append(StudentRun(name + suffix, name, seed=seed + offset, **options))
            runs.append(StudentRun(f"{name}, CE only{suffix}", name, alpha=None, seed=seed + offset))
    if controls:
        first = runs[0]
        published = replace(first, alpha=losses.ALPHA, temperature=losses.TEMPERATURE)
        if published != first:
            published = replace(published, name=f"{first.name}, published loss")
            runs.append(published)
        other = "ce" if first.alpha_on == "kl" else "kl"
        runs.append(replace(first, name=f"{first.name}, alpha on {other.upper()}", alpha_on=other))
        runs.append(replace(published, name=f"{published.name}, T² left out", scaled=False))
        runs.append(replace(first, name=f"{first.name}, restarted, 3 times as long", cycles=1.5, stretch=3))
    return runs


def fit(
    run: StudentRun,
    teacher: teachers.Teacher,
    train: datasets.Dataset,
    valid: datasets.Dataset,
    *,
    settings: Settings,
    folder: Path,
    cached_states: teachers.CachedStates | None = None,
    mask_seed: int = 0,
    precision: str = "fp32",
    coexpression: bool = False,
) -> tuple[PreTrainedModel, pd.DataFrame]:
    """Train one student, or load it if its run is finished.

    Parameters
    ----------
    folder
        Parent of the runs' folders.
    coexpression
        Whether gene embeddings start by `embeddings.start_from_coexpression`, with a teacher and without.

    Returns
    -------
    The student, and the history of `training.fit` with ``accuracy`` and the losses on held-out cells.

    Raises
    ------
    DataError
        If the run's loss options are invalid (`DistillationObjective`).
    """
    model = presets.build(student_config(run.student, teacher.model.config), "masked-lm", seed=run.seed)
    if coexpression:
        embeddings.start_from_coexpression(model, train, teacher.vocabulary, seed=run.seed)
    if run.alpha is None:
        objective = masked_genes.MaskedGeneObjective(teacher.vocabulary, seed=mask_seed)
    else:
        names = ("alpha", "temperature", "scaled", "alpha_on")
        options = {name: getattr(run, name) for name in names}
        cached_states = cached_states if run.stretch == 1 else None
        objective = DistillationObjective(teacher, **options, seed=mask_seed, cached_states=cached_states)
    schedule = {"cycles": run.cycles} if settings.schedule == "cosine" else {}
    history = training.fit(
        model,
        train,
        valid,
        objective=objective,
        precision=precision,
        seed=run.seed,
        output_dir=Path(folder) / folder_name(run.name),
        settings=replace(settings, epochs=settings.epochs * run.stretch, **schedule),
        progress=False,
    )
    return model, history


def folder_name(name: str) -> str:
    """Name of a run's folder."""
    return "-".join(name.replace(",", "").replace("²", "2").split())


def student_config(name: str, teacher_config: PretrainedConfig) -> PretrainedConfig:
    """Configuration of a student with the published ratios of student to teacher (Geneformer-V1-10M).

    For a teacher of the published shape it is the preset: four layers for six, and a half, three eighths or a quarter
    of the width. Widths are rounded to a multiple of the heads, layers up. The activation is the preset's; vocabulary,
    positions and initialisation are the teacher's, and beside a teacher of another width its dropout.
    """
    published_student, published_teacher = presets.preset(name), presets.preset("geneformer-10m")
    heads = published_student.num_attention_heads
    width = teacher_config.hidden_size * published_student.hidden_size / published_teacher.hidden_size
    width = max(round(width / heads), 1) * heads
    layers = teacher_config.num_hidden_layers * published_student.num_hidden_layers
    # What `masked_heads.lower_visible` reads, which the published teacher lacks.
    names = ("visible_penalty", "mask_token_id") if hasattr(teacher_config, "visible_penalty") else ()
    if teacher_config.hidden_size != published_teacher.hidden_size:
        names += ("hidden_dropout_prob", "attention_probs_dropout_prob")
    return presets.preset(
        name,
        vocab_size=teacher_config.vocab_size,
        hidden_size=width,
        intermediate_size=4 * width,
        num_hidden_layers=-(-layers // published_teacher.num_hidden_layers),
        max_position_embeddings=teacher_config.max_position_embeddings,
        initializer_range=teacher_config.initializer_range,
        pad_token_id=teacher_config.pad_token_id,
        **{name: getattr(teacher_config, name) for name in names},
    )


def tune_distillation(
    teacher: teachers.Teacher,
    student: str,
    cells: datasets.Dataset,
    donors: np.ndarray,
    *,
    settings: Settings,
    folder: Path,
    n_trials: int,
    seed: int = 0,
) -> pd.DataFrame:
    """Search alpha, temperature and learning rate by the cross entropy on donors held out from the training donors.

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
    held_out = folds.hold_out(np.asarray(donors), share=0.25, seed=seed)
    train, valid = cells.select(np.flatnonzero(~held_out)), cells.select(np.flatnonzero(held_out))
    base_rate = settings.learning_rate

    def score(trial: optuna.Trial) -> dict[str, float]:
        alpha = trial.suggest_float("alpha", 0.0, 1.0)
        temperature = trial.suggest_float("temperature", 1.0, 6.0)
        rate = trial.suggest_float("learning_rate", base_rate / 5, base_rate * 5, log=True)
        run = StudentRun(f"trial {trial.number}", student, alpha=alpha, temperature=temperature, seed=seed)
        trial_settings = replace(settings, learning_rate=rate)
        model, _ = fit(run, teacher, train, valid, settings=trial_settings, folder=folder, mask_seed=seed)
        predictions = masked_genes.predict_masked_genes(model, valid, teacher.vocabulary, seed=seed)
        return {"ce": predictions["nll"].mean(), "accuracy": predictions["correct"].mean()}

    return search.search(score, by="ce", direction="minimize", n_trials=n_trials, seed=seed)


def write_runs(folder: Path, runs: list[StudentRun]) -> None:
    """Write the runs beside their folders, as ``students.json``."""
    files.write_json(Path(folder) / "students.json", [asdict(run) for run in runs])


def read_runs(folder: Path) -> list[StudentRun]:
    """Read the runs written by `write_runs`.

    Raises
    ------
    DataError
        If the file is missing or damaged.
    """
    remedy = "give the folder models of geneformer/06_distillation"
    path = Path(folder) / "students.json"
    try:
        return [StudentRun(**run) for run in files.read_json(path, remedy, list)]
    except TypeError as error:
        raise DataError(f"{path}: not as it was written ({first_line(error)}); {remedy}") from None


def load_student(folder: Path, run: StudentRun) -> PreTrainedModel:
    """Load a trained student."""
    return presets.load_checkpoint(str(Path(folder) / folder_name(run.name) / "model"))


def teacher_preset(teacher: str, students: str) -> str:
    """Preset of a page's teacher, for claims about the published teacher and students.

    Empty if the teacher is the published size but a student is not the preset that it is named for, as where its
    teacher was another one, or where there are no trained students.

    Parameters
    ----------
    teacher
        Folder of the teacher; empty for fresh weights of ``bert-tiny``.
    students
        Folder of `write_runs`; empty for fresh weights.
    """
    name = presets.preset_of(teacher) if teacher else "bert-tiny"
    if name not in presets.NAMED_FOR_SIZE:
        return name
    runs = read_runs(Path(students)) if students else []
    named = [presets.preset_of(Path(students) / folder_name(run.name)) == run.student for run in runs]
    return name if named and all(named) else ""


def untrained_students(runs: list[StudentRun], teacher_model: PreTrainedModel) -> dict[str, PreTrainedModel]:
    """Students with their initial weights, by the name of the run."""
    return {
        run.name: presets.build(student_config(run.student, teacher_model.config), "masked-lm", seed=run.seed)
        for run in runs
    }
