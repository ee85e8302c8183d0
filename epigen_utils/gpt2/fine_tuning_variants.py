"""Variants of GPT-2's fine-tuning for the ablation, and its memory by a dry run: paper A, section III.B."""

import numpy as np
import pandas as pd
import torch
from sklearn.base import clone
from torch._subclasses.fake_tensor import FakeTensorMode

from epigen_utils.gpt2 import sentence_model
from epigen_utils.gpt2.classifier import GPT2Classifier
from epigen_utils.gpt2.sentence_model import GeneSentenceModel
from epigen_utils.gpt2.sentences import GPT2_POSITIONS, GeneSentenceEncoder
from epigen_utils.models import presets
from epigen_utils.models.training import Settings

GIB = 2**30


def ablation_variants(
    classifier: GPT2Classifier,
    *,
    aligned: float,
    prior: tuple[str, ...] | str,
    vectors: pd.DataFrame | None = None,
    language_epochs: float = 0.0,
) -> dict[str, GPT2Classifier]:
    """Variants of a classifier for the ablation, by name, each with one change."""
    inputs = {"genes and ranks alone": "rank", "continuous expression": "continuous"}
    changes = {name: {"position_input": value} for name, value in inputs.items()}
    changes["hybrid loss"] = {"aligned": aligned, "prior": prior}
    if vectors is not None:
        changes["6-mer start"] = {"vectors": vectors}
    if language_epochs:
        changes["language stage first"] = {"language_epochs": language_epochs}
    return {name: clone(classifier).set_params(**change) for name, change in changes.items()}


def memory_dry_run(
    preset: str,
    *,
    n_genes: int,
    n_words: int = 50_257,
    length: int = GPT2_POSITIONS,
    batch_size: int = 1,
    checkpointing: bool = False,
) -> dict[str, float]:
    """Memory of one training step of GPT-2 as `transformers` computes it, on fake tensors (shapes without data).

    Parameters
    ----------
    n_genes, n_words
        Vocabulary sizes: genes here, words of GPT-2.

    Returns
    -------
    ``parameters`` (as published, with words), ``ours`` (with genes), and in GiB ``weights``, ``gradients``,
    ``optimiser`` (AdamW's two moments) in fp32, and ``activations`` (saved for the backward pass).
    """
    config = _config_without_data(preset, n_genes, length)
    with FakeTensorMode():
        published = presets.n_parameters(presets.build(presets.preset(preset, vocab_size=n_words), "causal-lm"))
        model = GeneSentenceModel(config).train()
        if checkpointing:
            presets.enable_gradient_checkpointing(model)
        batch = {name: torch.ones((batch_size, length), dtype=torch.long) for name in ("input_ids", "bins")}
        activations = activation_bytes(model, batch)
        n = presets.n_parameters(model)
    sizes = {"weights": 4 * n, "gradients": 4 * n, "optimiser": 8 * n, "activations": activations}
    return {"parameters": published, "ours": n} | {name: size / GIB for name, size in sizes.items()}


def published_sizes(preset: str, *, n_words: int = 50_257) -> tuple[int, int]:
    """Parameters of a GPT-2 as published, and those without its embeddings of words and positions.

    Examples
    --------
    >>> from epigen_utils.gpt2 import fine_tuning_variants
    >>> fine_tuning_variants.published_sizes("gpt2-xl")
    (1557611200, 1475561600)
    """
    with FakeTensorMode():
        model = presets.build(presets.preset(preset, vocab_size=n_words), "causal-lm")
        embeddings = (model.transformer.wte, model.transformer.wpe)
        n = presets.n_parameters(model)
        return n, n - sum(presets.n_parameters(table) for table in embeddings)


def stated_settings(settings: Settings, grid: dict[str, list], *, precision: str, n_validated: int) -> pd.DataFrame:
    """What section III.B states of fine-tuning beside what a run does: ``what``, ``paper A``, ``this run``.

    Parameters
    ----------
    settings, grid, precision
        Of the run.
    n_validated
        Samples on which the search evaluates.
    """

    def values(name: str, fixed: float) -> str:
        return ", ".join(f"{value:g}" for value in grid.get(name, [fixed]))

    searched = "searched; values not stated"
    rows = [
        ("loss", "cross entropy; the contributions name the hybrid loss", "both, compared"),
        ("optimiser", "not stated", f"AdamW, weight decay {settings.weight_decay:g}"),
        ("schedule", "not stated", f"{settings.schedule} decay after {settings.warmup_steps} steps of warm-up"),
        ("learning rate", searched, values("learning_rate", settings.learning_rate)),
        ("batch size", searched, values("batch_size", settings.batch_size)),
        ("sequence length", searched, values("max_length", GPT2_POSITIONS)),
        ("epochs", searched, values("epochs", settings.epochs)),
        ("validation", "a held-out validation set; size not stated", f"{n_validated} samples"),
        ("precision", "FP8/FP16 mixed precision", precision),
    ]
    return pd.DataFrame(rows, columns=["what", "paper A", "this run"])


def recurrent_layers(preset: str) -> int:
    """Number of recurrent layers, the ones to which backpropagation through time applies."""
    with FakeTensorMode():
        model = presets.build(presets.preset(preset), "causal-lm")
        return sum(isinstance(module, torch.nn.RNNBase) for module in model.modules())


def activation_bytes(model: GeneSentenceModel, batch: dict[str, torch.Tensor]) -> int:
    """Bytes of the tensors saved in a forward pass, weights excluded; the backward pass is run too."""
    parameters = {id(parameter) for parameter in model.parameters()}
    saved: dict[int, torch.Tensor] = {}

    def save(tensor: torch.Tensor) -> torch.Tensor:
        # Views share the storage of their base, which counts once.
        base = tensor if tensor._base is None else tensor._base
        if id(base) not in parameters:
            saved[id(base)] = base
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(save, lambda tensor: tensor):
        # All positions of the last layer too, as a stage of language modelling needs them.
        loss = model(**batch, all_positions=True).logits.float().square().sum()
        size = sum(tensor.numel() * tensor.element_size() for tensor in saved.values())
    loss.backward()
    return size


def _config_without_data(preset: str, n_genes: int, length: int) -> object:
    names, means = tuple(map(str, range(n_genes))), np.zeros(n_genes)
    encoder = GeneSentenceEncoder(names, np.arange(9.0), np.arange(10.0), means, means, length)
    config = sentence_model.sentence_config(preset, encoder, ["control", "case"])
    config.activation_function = "gelu_new"
    return config


def narrow_training_step(preset: str, *, n_genes: int = 200, length: int = 64, seed: int = 0) -> dict[str, float]:
    """Loss before and after one real training step of a model with a preset's layers and heads, of width 4 a head."""
    config = _config_without_data(preset, n_genes, length)
    config.n_embd = 4 * config.n_head
    model = sentence_model.build_sentence_model(config, seed=seed).train()
    rng = torch.Generator().manual_seed(seed)
    ids = torch.stack([torch.randperm(n_genes, generator=rng)[:length] + 1 for _ in range(4)])
    batch = {"input_ids": ids, "bins": torch.randint(10, ids.shape, generator=rng)}
    labels = torch.tensor([0, 1, 0, 1])
    optimiser = torch.optim.AdamW(model.parameters(), lr=1e-5)
    losses = []
    model.eval()
    for _ in range(2):
        loss = torch.nn.functional.cross_entropy(model(**batch).logits, labels)
        losses.append(loss.item())
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
    return {"layers": config.n_layer, "before": losses[0], "after": losses[1]}
