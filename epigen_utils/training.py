"""Training by the Hugging Face Trainer: one door, which resumes where it was broken off.

Several devices, or processes, come by starting the same program with ``torchrun`` or ``accelerate launch``.
"""

import contextlib
import dataclasses
import hashlib
import json
import shutil
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Protocol

import numpy as np
import pandas as pd
import torch
from accelerate.utils import extract_model_from_parallel
from torch.utils.data import Dataset, Sampler
from transformers import PreTrainedModel, Trainer, TrainerCallback, TrainingArguments
from transformers.trainer_pt_utils import LengthGroupedSampler
from transformers.trainer_utils import get_last_checkpoint
from transformers.utils import logging

from epigen_utils import models
from epigen_utils import precision as precisions
from epigen_utils.errors import DataError


class Objective(Protocol):
    """What a model is trained for."""

    #: Rows of the data set, each with its position as ``row`` and with the ``epoch``, -> batch; the model's loss follows from
    #: its ``labels``. What is random in it must depend on these alone, or a resumed run is another run.
    collate: Callable[[list[dict]], dict[str, torch.Tensor]]
    #: What a finished run is only taken for the same by, beside settings and model, such as the labels' hash.
    about: dict[str, object]
    #: Model, batch, and the labels of all devices and accumulated parts (None: of this batch) -> loss; None for the model's own.
    loss: Callable[[PreTrainedModel, dict[str, torch.Tensor], int | None], torch.Tensor] | None

    def measure(self, model: PreTrainedModel, valid: Dataset) -> dict[str, float]:
        """Numbers on held-out rows, ``loss`` among them."""


@dataclasses.dataclass(frozen=True)
class Settings:
    """Hyper-parameters; by default those of Geneformer's pretraining, on one device.

    AdamW, linear decay after a warm-up (paper B, section 1.4; Geneformer's pretraining example: 1e-3, 10,000 steps, weight
    decay 0.001, 12 cells a device, 3 epochs).

    Attributes
    ----------
    epochs, steps
        How long; steps, where given, take precedence.
    grouped
        Whether cells of like length share a batch, by the library's own sampler (mega-batches of 50, sorted).
    attention_dropout
        Whether attention weights are dropped as the configuration says (Geneformer: 0.02). Without it a step on a CPU takes a
        third of the time (`models.attending`, `models.without_attention_dropout`).
    cycles
        Of a cosine schedule over the whole run: 0.5, the default, falls once; 1 rises again.
    checkpointing
        Whether activations are computed again on the way back instead of being kept: less memory, a third more time.
    evaluate_every, save_every
        In steps; the first can be 0, for never.
    """

    learning_rate: float = 1e-3
    warmup_steps: int = 10_000
    weight_decay: float = 0.001
    batch_size: int = 12
    accumulate: int = 1
    epochs: float = 3.0
    steps: int | None = None
    schedule: str = "linear"
    cycles: float | None = None
    clip: float = 1.0
    grouped: bool = True
    attention_dropout: bool = False
    checkpointing: bool = False
    evaluate_every: int = 500
    save_every: int = 500


def fit(
    model: PreTrainedModel,
    train: Dataset,
    valid: Dataset,
    *,
    objective: Objective,
    precision: str = "fp32",
    seed: int = 0,
    output_dir: str | Path,
    settings: Settings | None = None,
    progress: bool = True,
) -> pd.DataFrame:
    """Train a model, in place; a run that was broken off goes on from its last checkpoint, a finished one is read again.

    Parameters
    ----------
    train, valid
        Rows of encoded cells; ``length`` is what they are grouped by.
    precision
        ``fp32``, or ``bf16`` or ``fp16`` by automatic mixed precision.
    seed
        Of the order of the cells, of masks and of dropout.
    output_dir
        Checkpoints while it runs; in the end ``model`` (safetensors and configuration) and ``history.csv``. A run with other
        settings that is found there is removed.

    Returns
    -------
    A row an evaluation: ``step``, ``epoch``, ``tokens`` (real ones seen), ``seconds``, ``learning_rate``, ``train_loss`` (mean since
    the last), and what the objective measures.

    Raises
    ------
    ValueError
        If the precision cannot be used here, with the reason.
    DataError
        If the loss is no finite number.
    """
    settings = settings or Settings()
    if precision == "fp8" or (reason := precisions.obstacle(precision)):
        raise ValueError("fp8: these models are trained in bf16" if precision == "fp8" else reason)
    if not settings.attention_dropout:
        model = models.without_attention_dropout(model)
    output_dir = Path(output_dir)
    wanted = {"settings": dataclasses.asdict(settings), "precision": precision, "seed": seed, "cells": len(train)}
    wanted |= {"objective": objective.about, "start": fingerprint(model)}
    wanted |= {"model": json.loads(model.config.to_json_string(use_diff=True))}
    _forget_others(output_dir, wanted)
    if (output_dir / "model").is_dir():
        with _quiet():
            finished = type(model).from_pretrained(output_dir / "model", local_files_only=True)
        model.load_state_dict(finished.state_dict())
        model.to("cuda" if torch.cuda.is_available() else "cpu")
        return pd.read_csv(output_dir / "history.csv")
    arguments = TrainingArguments(
        output_dir=str(output_dir),
        per_device_train_batch_size=settings.batch_size,
        gradient_accumulation_steps=settings.accumulate,
        learning_rate=settings.learning_rate,
        warmup_steps=settings.warmup_steps,
        weight_decay=settings.weight_decay,
        lr_scheduler_type=settings.schedule,
        lr_scheduler_kwargs={"num_cycles": settings.cycles} if settings.cycles is not None else None,
        max_grad_norm=settings.clip,
        num_train_epochs=settings.epochs,
        max_steps=settings.steps or -1,
        train_sampling_strategy="group_by_length" if settings.grouped else "random",
        bf16=precision == "bf16",
        fp16=precision == "fp16",
        use_cpu=not torch.cuda.is_available(),
        seed=seed,
        save_steps=settings.save_every,
        save_total_limit=1,
        eval_strategy="steps" if settings.evaluate_every else "no",
        eval_steps=settings.evaluate_every or None,
        logging_strategy="no",
        report_to=[],
        disable_tqdm=not progress,
        remove_unused_columns=False,
        ddp_find_unused_parameters=False,
    )
    if settings.checkpointing:
        models.checkpointed(model)
    watch = _Watch(objective, valid)
    rows = _Rows(train)
    trainer = _Trainer(
        model=model,
        args=arguments,
        train_dataset=rows,
        eval_dataset=valid,
        data_collator=watch.collate,
        callbacks=[watch],
    )
    encoder = model.config.model_type == "bert"
    by_matmul = precision == "bf16" and not settings.attention_dropout and encoder and not torch.cuda.is_available()
    attending = models.attending(model, "matmul") if by_matmul else contextlib.nullcontext()
    with attending, _quiet():
        trainer.train(resume_from_checkpoint=get_last_checkpoint(str(output_dir)))
    # What is asked of a model is computed in fp32, whether it was trained now or read again.
    extract_model_from_parallel(model, keep_fp32_wrapper=False)
    history = pd.DataFrame(trainer.state.log_history)
    history = history[history["measured"].notna()] if "measured" in history else history.iloc[:0]
    history = history.drop(columns=["measured"], errors="ignore").drop_duplicates("step", keep="last")
    if trainer.is_world_process_zero():
        history.to_csv(output_dir / "history.csv", index=False)
        with _quiet():
            model.save_pretrained(output_dir / ".model.part")
        (output_dir / ".model.part").rename(output_dir / "model")
        for checkpoint in output_dir.glob("checkpoint-*"):
            shutil.rmtree(checkpoint)
    return history.reset_index(drop=True)


def fingerprint(model: PreTrainedModel) -> str:
    """SHA-256 of the weights that a run starts from, and of which of them learn."""
    digest = hashlib.sha256()
    for name, weight in model.named_parameters():
        digest.update(f"{name} {weight.requires_grad}".encode())
        digest.update(weight.detach().cpu().contiguous().view(torch.uint8).numpy())
    return digest.hexdigest()


def _forget_others(output_dir: Path, wanted: dict) -> None:
    """Keep what a run of the same settings left in a folder; nothing of another."""
    output_dir.mkdir(parents=True, exist_ok=True)
    note = output_dir / "settings.json"
    text = json.dumps(wanted, indent=1, sort_keys=True)
    if note.exists() and note.read_text() != text:
        for name in ("model", ".model.part", *(path.name for path in output_dir.glob("checkpoint-*"))):
            shutil.rmtree(output_dir / name, ignore_errors=True)
    shutil.rmtree(output_dir / ".model.part", ignore_errors=True)
    note.write_text(text)


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Without the Trainer's logs, which it prints as dictionaries, and a bar for each file that is saved."""
    shown = logging.is_progress_bar_enabled()
    logging.disable_progress_bar()
    try:
        with contextlib.redirect_stdout(None):
            yield
    finally:
        if shown:
            logging.enable_progress_bar()


class _Rows(Dataset):
    """Cells that know their position and the epoch."""

    def __init__(self, cells: Dataset):
        self.cells, self.epoch = cells, 0
        self.lengths = [int(length) for length in cells["length"]]

    def __len__(self) -> int:
        return len(self.cells)

    def __getitem__(self, row: int) -> dict:
        return self.__getitems__([row])[0]

    def __getitems__(self, rows: list[int]) -> list[dict]:
        # A batch at once: read one by one from Arrow, cells take as long as the forward pass of a small model.
        found = self.cells[rows]["input_ids"]
        return [{"input_ids": ids, "row": row, "epoch": self.epoch} for row, ids in zip(rows, found, strict=True)]


class _Order(Sampler):
    """An order of the rows that follows from the seed and the epoch, so that an epoch can be gone on with in its middle."""

    def __init__(self, rows: _Rows, seed: int, batch_size: int | None):
        self.rows, self.seed, self.batch_size = rows, seed, batch_size

    def __len__(self) -> int:
        return len(self.rows)

    def set_epoch(self, epoch: int) -> None:
        """Called by the Trainer before each epoch."""
        self.rows.epoch = epoch

    def __iter__(self) -> Iterator[int]:
        drawn = torch.Generator().manual_seed(self.seed * 1_000_003 + self.rows.epoch)
        if self.batch_size is None:
            return iter(torch.randperm(len(self.rows), generator=drawn).tolist())
        return iter(LengthGroupedSampler(self.batch_size, lengths=self.rows.lengths, generator=drawn))


class _Watch(TrainerCallback):
    """Counts real tokens and the loss between evaluations."""

    def __init__(self, objective: Objective, valid: Dataset):
        self.objective, self.valid = objective, valid
        self.tokens, self.loss, self.steps, self.start = 0, 0.0, 0, time.perf_counter()

    def collate(self, rows: list[dict]) -> dict[str, torch.Tensor]:
        """The objective's, counted."""
        self.tokens += sum(len(row["input_ids"]) for row in rows)
        return self.objective.collate(rows)


class _Trainer(Trainer):
    """The Trainer, with the objective's own measurement in the place of its evaluation loop."""

    @property
    def watch(self) -> _Watch:
        return next(callback for callback in self.callback_handler.callbacks if isinstance(callback, _Watch))

    def _get_train_sampler(self, *_arguments: object) -> Sampler:
        grouped = self.args.train_sampling_strategy == "group_by_length"
        size = self.args.per_device_train_batch_size * self.args.gradient_accumulation_steps
        return _Order(self.train_dataset, self.args.seed, size if grouped else None)

    def compute_loss(
        self, model: torch.nn.Module, inputs: dict, return_outputs: bool = False, num_items_in_batch: object = None
    ) -> torch.Tensor:
        """The objective's loss, where it has one."""
        if self.watch.objective.loss is None:
            return super().compute_loss(model, inputs, return_outputs, num_items_in_batch)
        loss = self.watch.objective.loss(model, inputs, num_items_in_batch)
        # Each device has divided by the labels of all, and their gradients are averaged.
        return loss if num_items_in_batch is None else loss * self.accelerator.num_processes

    def training_step(self, *arguments, **options) -> torch.Tensor:
        """Keep the loss for the history."""
        loss = super().training_step(*arguments, **options)
        if not np.isfinite(float(loss)):
            raise DataError(
                f"step {self.state.global_step + 1}: the loss is {float(loss)}; lower the learning rate "
                f"({self.args.learning_rate:g}), or use fp32"
            )
        self.watch.loss += float(loss)
        self.watch.steps += 1
        return loss

    def evaluate(self, *_arguments, **_options) -> dict[str, float]:
        """Measure, and log the numbers with what was seen so far."""
        watch = self.watch
        was_training = self.model.training
        found = watch.objective.measure(self.accelerator.unwrap_model(self.model), watch.valid)
        self.model.train(was_training)
        seen = {"tokens": watch.tokens, "seconds": time.perf_counter() - watch.start, "measured": 1.0}
        seen["learning_rate"] = self.lr_scheduler.get_last_lr()[0]
        # Each of the accumulated parts of a batch has its share of the loss.
        seen["train_loss"] = watch.loss / max(watch.steps, 1) * self.args.gradient_accumulation_steps
        watch.loss, watch.steps = 0.0, 0
        self.log(seen | found)
        # Else the Trainer asks again where an epoch ends, after no step at all.
        self.control.should_evaluate = False
        return {f"eval_{name}": number for name, number in found.items()}
