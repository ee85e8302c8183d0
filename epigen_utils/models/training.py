"""Training with the Hugging Face Trainer, resumable from the last checkpoint.

To use several devices or processes, start the same program with ``torchrun`` or ``accelerate launch``.
"""

import contextlib
import dataclasses
import gc
import hashlib
import itertools
import json
import shutil
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Protocol

import datasets
import numpy as np
import pandas as pd
import torch
from accelerate.utils import extract_model_from_parallel
from torch.utils.data import Dataset, Sampler
from transformers import PreTrainedModel, Trainer, TrainerCallback, TrainingArguments
from transformers.trainer_pt_utils import LengthGroupedSampler
from transformers.trainer_utils import get_last_checkpoint
from transformers.utils import logging

from epigen_utils.errors import DataError
from epigen_utils.files import whole_folder
from epigen_utils.models import attention_kernels, batching, presets
from epigen_utils.models.blocks import compiled_blocks
from epigen_utils.models.precision import product_format, why_unavailable

#: Steps on a GPU between two looks at whether the loss is finite.
_STEPS_PER_LOOK = 50


class Objective(Protocol):
    """Training objective: batches, loss and validation."""

    #: Rows of the data set, with their position ``row`` and the ``epoch``, -> batch whose ``labels`` define the model's
    #: loss. Its randomness must depend on these alone, so that a resumed run equals an uninterrupted one.
    collate: Callable[[list[dict]], dict[str, torch.Tensor]]
    #: Extra identity of a run (such as a hash of the labels): a finished run is reused only if settings, model and this
    #: match.
    about: dict[str, object]
    #: Model, batch, number of labels over all devices and accumulated parts (None: this batch) -> loss; None: the
    #: model's own.
    loss: Callable[[PreTrainedModel, dict[str, torch.Tensor], int | None], torch.Tensor] | None

    def measure(self, model: PreTrainedModel, valid: Dataset) -> dict[str, float]:
        """Metrics on held-out rows, including ``loss``."""


@dataclasses.dataclass(frozen=True)
class Settings:
    """Hyper-parameters; by default those of Geneformer's pretraining, on one device.

    AdamW, linear decay after a warm-up (paper B, section 1.4; Geneformer's pretraining example: 1e-3, 10,000 steps,
    weight decay 0.001, 12 cells a device, 3 epochs).

    Attributes
    ----------
    epochs, steps
        Length of the run; steps, if given, take precedence.
    grouped
        Whether cells of similar length share a batch: the Trainer's sampler, which sorts mega-batches of 50 batches,
        and then the batches in random order.
    attention_dropout
        Whether to apply the configuration's attention dropout (Geneformer: 0.02). Without it a step on a CPU takes a
        third of the time (`attention_kernels.attention_implementation`, `attention_kernels.disable_attention_dropout`).
    cycles
        Periods of a cosine schedule over the whole run: 0.5, the default, decays once; 1 rises again.
    checkpointing
        Whether activations are recomputed in the backward pass instead of stored: less memory, a third more time.
    compiled
        Whether the model's blocks are compiled (`blocks.compiled_blocks`), which pays on a GPU.
    evaluate_every, save_every
        Intervals in steps; ``evaluate_every`` of 0 disables evaluation.
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
    compiled: bool = False
    evaluate_every: int = 500
    save_every: int = 500


def fit(
    model: PreTrainedModel,
    train: datasets.Dataset,
    valid: datasets.Dataset,
    *,
    objective: Objective,
    precision: str = "fp32",
    seed: int = 0,
    output_dir: str | Path,
    settings: Settings | None = None,
    progress: bool = True,
) -> pd.DataFrame:
    """Train a model in place; an interrupted run resumes from its last checkpoint, a finished run is loaded.

    Parameters
    ----------
    train, valid
        Rows of encoded cells with their ``length``, which batches are grouped by.
    precision
        One of `precision.PRECISIONS`.
    seed
        Seed of the order of the cells and of dropout.
    output_dir
        Holds checkpoints during the run, and ``model`` (safetensors and configuration) and ``history.csv`` at its end.
        A run with other settings in this folder is removed.

    Returns
    -------
    One row per evaluation: ``step``, ``epoch``, ``tokens`` (without padding, so far), ``seconds``, ``learning_rate``,
    ``train_loss`` (mean since the previous row), and the objective's metrics.

    Raises
    ------
    ValueError
        If the precision is not available, with the reason.
    DataError
        If the loss is not finite.
    """
    settings = settings or Settings()
    if reason := why_unavailable(precision):
        raise ValueError(reason)
    if not settings.attention_dropout:
        attention_kernels.disable_attention_dropout(model)
    output_dir = Path(output_dir)
    identity = {"settings": dataclasses.asdict(settings), "precision": precision, "seed": seed, "cells": len(train)}
    identity |= {"objective": objective.about, "start": weights_fingerprint(model)}
    identity |= {"model": json.loads(model.config.to_json_string(use_diff=True))}
    _discard_other_run(output_dir, identity)
    if (output_dir / "model").is_dir():
        return _load_finished(model, output_dir)
    if settings.checkpointing:
        presets.enable_gradient_checkpointing(model)
    is_encoder = model.config.model_type == "bert"
    by_matmul = precision == "bf16" and not settings.attention_dropout and is_encoder and not torch.cuda.is_available()
    with contextlib.ExitStack() as during:
        during.enter_context(product_format(model, precision))
        if by_matmul:
            during.enter_context(attention_kernels.attention_implementation(model, "matmul"))
        if settings.grouped:
            during.enter_context(attention_kernels.without_cudnn())
        if settings.compiled:
            during.enter_context(compiled_blocks(model))
        watch = _ProgressCallback(objective, valid)
        trainer = _Trainer(
            model=model,
            args=_training_arguments(
                settings, precision=precision, seed=seed, output_dir=output_dir, progress=progress
            ),
            train_dataset=_Rows(train),
            eval_dataset=valid,
            data_collator=watch.collate,
            callbacks=[watch],
        )
        with _quiet(), _frozen_garbage():
            trainer.train(resume_from_checkpoint=get_last_checkpoint(str(output_dir)))
    # Inference runs in fp32, as it does for a finished run that is loaded.
    extract_model_from_parallel(model, keep_fp32_wrapper=False)
    history = pd.DataFrame(trainer.state.log_history)
    history = history[history["measured"].notna()] if "measured" in history else history.iloc[:0]
    history = history.drop(columns=["measured"], errors="ignore").drop_duplicates("step", keep="last")
    if trainer.is_world_process_zero():
        _save_finished(model, history, output_dir)
    return history.reset_index(drop=True)


def _training_arguments(
    settings: Settings, *, precision: str, seed: int, output_dir: Path, progress: bool
) -> TrainingArguments:
    return TrainingArguments(
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
        bf16=precision in ("bf16", "fp8"),
        fp16=precision == "fp16",
        use_cpu=not torch.cuda.is_available(),
        seed=seed,
        save_steps=settings.save_every,
        save_total_limit=1,
        eval_strategy="steps" if settings.evaluate_every else "no",
        eval_steps=settings.evaluate_every or None,
        logging_strategy="no",
        # It would look at each step's loss on the host; `_Trainer.training_step` does that itself.
        logging_nan_inf_filter=False,
        report_to=[],
        disable_tqdm=not progress,
        remove_unused_columns=False,
        ddp_find_unused_parameters=False,
    )


def _load_finished(model: PreTrainedModel, output_dir: Path) -> pd.DataFrame:
    with _quiet():
        finished = type(model).from_pretrained(output_dir / "model", local_files_only=True)
    model.load_state_dict(finished.state_dict())
    model.to("cuda" if torch.cuda.is_available() else "cpu")
    return pd.read_csv(output_dir / "history.csv")


def _save_finished(model: PreTrainedModel, history: pd.DataFrame, output_dir: Path) -> None:
    history.to_csv(output_dir / "history.csv", index=False)
    with _quiet(), whole_folder(output_dir / "model") as part:
        model.save_pretrained(part)
    for checkpoint in output_dir.glob("checkpoint-*"):
        shutil.rmtree(checkpoint)


def folder_by_hash(parent: str | Path, identity: bytes) -> Path:
    """Folder of a run, named by the SHA-256 of its identity, so that an equal run resumes there."""
    return Path(parent) / hashlib.sha256(identity).hexdigest()[:16]


def weights_fingerprint(model: PreTrainedModel) -> str:
    """SHA-256 of a model's weights and of which of them are trainable."""
    digest = hashlib.sha256()
    for name, weight in model.named_parameters():
        digest.update(f"{name} {weight.requires_grad}".encode())
        digest.update(weight.detach().cpu().contiguous().view(torch.uint8).numpy())
    return digest.hexdigest()


def _discard_other_run(output_dir: Path, identity: dict) -> None:
    """Remove a run with another identity from the folder, and note this run's identity there."""
    output_dir.mkdir(parents=True, exist_ok=True)
    note = output_dir / "settings.json"
    text = json.dumps(identity, indent=1, sort_keys=True)
    if note.exists() and note.read_text() != text:
        for name in ("model", *(path.name for path in output_dir.glob("checkpoint-*"))):
            shutil.rmtree(output_dir / name, ignore_errors=True)
    note.write_text(text)


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Suppress the Trainer's logs, printed as dictionaries, and the progress bar of each saved file."""
    bar_enabled = logging.is_progress_bar_enabled()
    logging.disable_progress_bar()
    try:
        with contextlib.redirect_stdout(None):
            yield
    finally:
        if bar_enabled:
            logging.enable_progress_bar()


@contextlib.contextmanager
def _frozen_garbage() -> Iterator[None]:
    """Exempt the objects of the process so far from garbage collection, which the Trainer runs in full at its start."""
    gc.freeze()
    try:
        yield
    finally:
        gc.unfreeze()


class _Rows(Dataset):
    """Cells with their position and the epoch."""

    def __init__(self, cells: datasets.Dataset):
        self.cells, self.epoch = cells.with_format("arrow", columns=["input_ids"]), 0
        self.lengths = batching.stored_lengths(cells)

    def __len__(self) -> int:
        return len(self.cells)

    def __getitem__(self, row: int) -> dict:
        return self.__getitems__([row])[0]

    def __getitems__(self, rows: list[int]) -> list[dict]:
        # A batch at once, as arrays: reading cells one by one takes as long as the forward pass of a small model.
        column = self.cells[rows]["input_ids"].combine_chunks()
        cells = np.split(column.flatten().to_numpy(), np.cumsum(column.value_lengths().to_numpy())[:-1])
        return [{"input_ids": ids, "row": row, "epoch": self.epoch} for row, ids in zip(rows, cells, strict=True)]


class _RowSampler(Sampler):
    """Order of the rows as a function of seed and epoch, so that training can resume within an epoch."""

    def __init__(self, rows: _Rows, seed: int, batch_size: int | None):
        self.rows, self.seed, self.batch_size = rows, seed, batch_size

    def __len__(self) -> int:
        return len(self.rows)

    def set_epoch(self, epoch: int) -> None:
        """Set the epoch; the Trainer calls this before each one."""
        self.rows.epoch = epoch

    def __iter__(self) -> Iterator[int]:
        generator = torch.Generator().manual_seed(self.seed * 1_000_003 + self.rows.epoch)
        if self.batch_size is None:
            return iter(torch.randperm(len(self.rows), generator=generator).tolist())
        rows = list(LengthGroupedSampler(self.batch_size, lengths=self.rows.lengths, generator=generator))
        whole = len(rows) // self.batch_size
        # The library's sampler ends here, with the batches of a mega-batch from long cells to short ones. Steps of so
        # like batches leave a model on the plateau of gene frequencies; in random order it learns.
        order = torch.randperm(whole, generator=generator).tolist()
        batches = [rows[batch * self.batch_size : (batch + 1) * self.batch_size] for batch in order]
        return iter([*itertools.chain.from_iterable(batches), *rows[whole * self.batch_size :]])


class _ProgressCallback(TrainerCallback):
    """Counts tokens without padding, and accumulates the loss between evaluations."""

    def __init__(self, objective: Objective, valid: Dataset):
        self.objective, self.valid = objective, valid
        self.tokens, self.loss, self.steps, self.start = 0, torch.zeros(()), 0, time.perf_counter()

    def collate(self, rows: list[dict]) -> dict[str, torch.Tensor]:
        """Collate by the objective and count the tokens."""
        self.tokens += sum(len(row["input_ids"]) for row in rows)
        return self.objective.collate(rows)


class _Trainer(Trainer):
    """The Trainer, with the objective's validation in place of its evaluation loop."""

    @property
    def watch(self) -> _ProgressCallback:
        return next(callback for callback in self.callback_handler.callbacks if isinstance(callback, _ProgressCallback))

    def _get_train_sampler(self, *_arguments: object) -> Sampler:
        grouped = self.args.train_sampling_strategy == "group_by_length"
        size = self.args.per_device_train_batch_size * self.args.gradient_accumulation_steps
        return _RowSampler(self.train_dataset, self.args.seed, size if grouped else None)

    def floating_point_ops(self, _inputs: dict) -> int:
        """Return 0: the Trainer's count, which no one reads, walks over all weights in each step."""
        return 0

    def compute_loss(
        self, model: torch.nn.Module, inputs: dict, return_outputs: bool = False, num_items_in_batch: object = None
    ) -> torch.Tensor:
        """Return the objective's loss, or else the model's."""
        if self.watch.objective.loss is None:
            return super().compute_loss(model, inputs, return_outputs, num_items_in_batch)
        loss = self.watch.objective.loss(model, inputs, num_items_in_batch)
        # Each device divides by the number of labels over all devices, and the Trainer averages their gradients.
        return loss if num_items_in_batch is None else loss * self.accelerator.num_processes

    def training_step(self, *arguments, **options) -> torch.Tensor:
        """Train one step and accumulate its loss for the history."""
        loss = super().training_step(*arguments, **options)
        self.watch.loss = self.watch.loss.to(loss.device) + loss.detach()
        self.watch.steps += 1
        # A GPU would wait for the host's look at the loss.
        every = 1 if loss.device.type == "cpu" else _STEPS_PER_LOOK
        if (self.state.global_step + 1) % every == 0 and not np.isfinite(float(self.watch.loss)):
            raise DataError(
                f"step {self.state.global_step + 1}: the loss is {float(self.watch.loss)}; lower the learning rate "
                f"({self.args.learning_rate:g}), or use fp32"
            )
        return loss

    def evaluate(self, *_arguments, **_options) -> dict[str, float]:
        """Measure the objective's metrics and log them with the progress so far."""
        watch = self.watch
        was_training = self.model.training
        metrics = watch.objective.measure(self.accelerator.unwrap_model(self.model), watch.valid)
        self.model.train(was_training)
        progress = {"tokens": watch.tokens, "seconds": time.perf_counter() - watch.start, "measured": 1.0}
        progress["learning_rate"] = self.lr_scheduler.get_last_lr()[0]
        # The Trainer divides the loss of each accumulated part by the number of parts.
        progress["train_loss"] = float(watch.loss) / max(watch.steps, 1) * self.args.gradient_accumulation_steps
        watch.loss, watch.steps = torch.zeros(()), 0
        self.log(progress | metrics)
        # Otherwise the Trainer would evaluate again at the end of the epoch, without a step in between.
        self.control.should_evaluate = False
        return {f"eval_{name}": value for name, value in metrics.items()}
