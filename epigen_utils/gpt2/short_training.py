"""Training runs that are too short for a checkpoint, without the Trainer, in less than half of the time.

A step of a model of two layers takes the Trainer longer to prepare than to compute. The loop here does what the Trainer
does with the same settings (tests/gpt2/test_short_training.py compares the weights): AdamW without decay of biases and
layer norms, linear decay after a warm-up, clipped gradients, and the order of rows of `training.fit`. The weights are
equal for models without dropout; with dropout the masks are others.
"""

import hashlib
import math
import os
from pathlib import Path

import numpy as np
import torch
import transformers
from safetensors.torch import load_model, save_model
from torch import nn

from epigen_utils.errors import DataError
from epigen_utils.files import whole_file
from epigen_utils.gpt2 import objectives, sentence_model, sentences
from epigen_utils.models import batching, losses
from epigen_utils.models.training import Settings

#: Modules that determine the weights beside the data, the settings and the libraries.
_MODULES = (objectives, sentence_model, sentences, losses, batching)


def code_fingerprint() -> str:
    """SHA-256 of the code that determines the weights, and of the versions of its libraries."""
    digest = hashlib.sha256(f"{torch.__version__} {transformers.__version__}".encode())
    for path in (__file__, *(module.__file__ for module in _MODULES)):
        digest.update(Path(path).read_bytes())
    return digest.hexdigest()


def count_steps(n_rows: int, settings: Settings) -> int:
    """Number of training steps over so many rows."""
    return settings.steps or math.ceil(settings.epochs * math.ceil(n_rows / settings.batch_size))


def is_short(n_rows: int, settings: Settings, precision: str) -> bool:
    """Whether `train` may replace `training.fit`: one process, and no checkpoint, evaluation or mixed precision."""
    plain = settings.schedule == "linear" and settings.accumulate == 1 and not settings.grouped
    plain = plain and precision == "fp32" and not settings.checkpointing and not settings.evaluate_every
    return plain and count_steps(n_rows, settings) < settings.save_every and int(os.environ.get("WORLD_SIZE", 1)) == 1


def fit(
    model: nn.Module, objective: objectives.SentenceObjective, settings: Settings, *, seed: int = 0, output_dir: Path
) -> None:
    """Train a model in place by `train`, or load the weights of an equal run; the folder is that of this run alone."""
    weights = output_dir / "model.safetensors"
    if not weights.exists():
        train(model, objective, settings, seed=seed)
        with whole_file(weights) as part:
            save_model(model, part)
    load_model(model, weights)
    model.to("cuda" if torch.cuda.is_available() else "cpu")


def train(model: nn.Module, objective: objectives.SentenceObjective, settings: Settings, *, seed: int = 0) -> None:
    """Train a model in place on all sentences of an objective.

    Raises
    ------
    DataError
        If the loss is not finite.
    """
    device = "cuda" if torch.cuda.is_available() else "cpu"
    model.to(device).train()
    torch.manual_seed(seed)
    weights = [weight for weight in model.parameters() if weight.requires_grad]
    optimiser = _optimiser(model, settings)
    n_steps, n_rows = count_steps(len(objective), settings), len(objective)
    step, epoch = 0, 0
    while step < n_steps:
        generator = torch.Generator().manual_seed(seed * 1_000_003 + epoch)
        for rows in torch.randperm(n_rows, generator=generator).split(settings.batch_size)[: n_steps - step]:
            batch = objective.collate([{"row": row} for row in rows.tolist()])
            batch = {name: tensor.to(device) for name, tensor in batch.items()}
            loss = objective.loss(model, batch, None)
            if not np.isfinite(loss.item()):
                raise DataError(
                    f"step {step + 1}: the loss is {loss.item()}; lower the learning rate ({settings.learning_rate:g})"
                )
            loss.backward()
            nn.utils.clip_grad_norm_(weights, settings.clip)
            for group in optimiser.param_groups:
                group["lr"] = settings.learning_rate * _schedule(step, n_steps, settings.warmup_steps)
            optimiser.step()
            optimiser.zero_grad()
            step += 1
        epoch += 1


def _optimiser(model: nn.Module, settings: Settings) -> torch.optim.AdamW:
    norms = [module for module in model.modules() if isinstance(module, nn.LayerNorm)]
    undecayed = {id(weight) for norm in norms for weight in norm.parameters()}
    decayed, others = [], []
    for name, weight in model.named_parameters():
        if weight.requires_grad:
            (others if id(weight) in undecayed or "bias" in name else decayed).append(weight)
    groups = [{"params": decayed, "weight_decay": settings.weight_decay}, {"params": others, "weight_decay": 0.0}]
    return torch.optim.AdamW(groups, lr=settings.learning_rate, fused=True)


def _schedule(step: int, n_steps: int, warmup_steps: int) -> float:
    """Share of the learning rate at a step, from 0: rises linearly over the warm-up, then decays linearly to 0."""
    if step < warmup_steps:
        return step / max(1, warmup_steps)
    return max(0.0, (n_steps - step) / max(1, n_steps - warmup_steps))
