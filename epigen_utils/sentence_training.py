"""How GPT-2's fine-tuning is set, and what it takes: the paper's grid search, and the memory of its model.

Paper A, section III.B: "hyperparameters, including learning rate, batch size, sequence length, and number of epochs, were optimized
through grid search on a held-out validation set".
"""

import itertools
import time
from dataclasses import replace

import numpy as np
import pandas as pd
import torch
from sklearn.base import clone
from sklearn.metrics import log_loss
from torch._subclasses.fake_tensor import FakeTensorMode

from epigen_utils import evaluation, models, sentence_models
from epigen_utils.errors import DataError, closest
from epigen_utils.sentence_classes import GPT2Classifier
from epigen_utils.sentence_models import GeneSentenceModel
from epigen_utils.sentences import POSITIONS, GeneSentenceEncoder

#: What the paper searched over.
SEARCHED = ("learning_rate", "batch_size", "max_length", "epochs")
GIB = 2**30


def search(
    classifier: GPT2Classifier,
    train: tuple[pd.DataFrame, np.ndarray],
    held: tuple[pd.DataFrame, np.ndarray],
    positive: str,
    grid: dict[str, list],
) -> pd.DataFrame:
    """Fine-tune once for each point of a grid and measure on held-out samples; points that were done before are read back.

    Parameters
    ----------
    train, held
        Log2 expression (samples x genes) and classes; both of the training fold.
    grid
        Values of any of `SEARCHED`.

    Returns
    -------
    A row a point: the searched, ``auc``, ``loss`` (nats) and ``seconds``; in the order of the grid.

    Raises
    ------
    DataError
        If something else is to be searched.
    """
    if other := [name for name in grid if name not in SEARCHED]:
        raise DataError(f"grid over {other[0]!r}: {closest(other[0], SEARCHED)}")
    truth = np.asarray(held[1]) == positive
    rows = []
    for point in itertools.product(*grid.values()):
        values = dict(zip(grid, point, strict=True))
        made = with_settings(classifier, values)
        start = time.perf_counter()
        made.fit(*train)
        p = evaluation.probability_of(made, held[0], positive)
        found = {"auc": evaluation.auc(p, truth), "loss": log_loss(truth, p, labels=[False, True])}
        rows.append(values | found | {"seconds": time.perf_counter() - start})
    return pd.DataFrame(rows)


def variants(
    classifier: GPT2Classifier,
    *,
    aligned: float,
    prior: tuple[str, ...] | str,
    vectors: pd.DataFrame | None = None,
    language_epochs: float = 0.0,
) -> dict[str, GPT2Classifier]:
    """What the ablation compares with a classifier, by name, each with one thing changed."""
    changes = {"genes and ranks alone": {"shown": "rank"}, "continuous expression": {"shown": "continuous"}}
    changes["hybrid loss"] = {"aligned": aligned, "prior": prior}
    if vectors is not None:
        changes["6-mer start"] = {"vectors": vectors}
    if language_epochs:
        changes["language stage first"] = {"language_epochs": language_epochs}
    return {name: clone(classifier).set_params(**change) for name, change in changes.items()}


def with_settings(classifier: GPT2Classifier, values: dict[str, float]) -> GPT2Classifier:
    """A classifier with other values of `SEARCHED`."""
    made = clone(classifier)
    settings = {name: value for name, value in values.items() if name != "max_length"}
    changes = {"settings": replace(made.settings, **settings)}
    return made.set_params(**changes, **({"max_length": int(values["max_length"])} if "max_length" in values else {}))


def best(table: pd.DataFrame, grid: dict[str, list]) -> dict[str, float]:
    """The point with the highest AUC; of equally high ones that with the lowest loss."""
    row = table.sort_values(["auc", "loss"], ascending=[False, True]).iloc[0]
    return {name: type(values[0])(row[name]) for name, values in grid.items()}


def dry_run(
    preset: str,
    *,
    n_genes: int,
    n_words: int = 50_257,
    length: int = POSITIONS,
    batch_size: int = 1,
    checkpointing: bool = False,
) -> dict[str, float]:
    """Build a model, take a step forward and back, and count what it keeps, on meta tensors: shapes without data.

    Parameters
    ----------
    n_genes, n_words
        Of the vocabulary here, and of GPT-2's own.

    Returns
    -------
    ``parameters`` (as published, with GPT-2's vocabulary), ``ours`` (with genes in the place of words), and in GiB ``weights``,
    ``gradients``, ``optimiser`` (AdamW's two moments) in fp32, and ``activations``: what backward needs of forward.
    """
    config = _without_data(preset, n_genes, length)
    with FakeTensorMode():
        published = models.n_parameters(models.build(models.preset(preset, vocab_size=n_words), "causal-lm"))
        model = GeneSentenceModel(config).train()
        if checkpointing:
            models.checkpointed(model)
        batch = {name: torch.ones((batch_size, length), dtype=torch.long) for name in ("input_ids", "bins")}
        activations = activation_bytes(model, batch)
        n = models.n_parameters(model)
    sizes = {"weights": 4 * n, "gradients": 4 * n, "optimiser": 8 * n, "activations": activations}
    return {"parameters": published, "ours": n} | {name: size / GIB for name, size in sizes.items()}


def recurrent_layers(preset: str) -> int:
    """Layers of a model that pass a state on through time, such as backpropagation through time is for."""
    with FakeTensorMode():
        model = models.build(models.preset(preset), "causal-lm")
        return sum(isinstance(module, torch.nn.RNNBase) for module in model.modules())


def activation_bytes(model: GeneSentenceModel, batch: dict[str, torch.Tensor]) -> int:
    """Bytes that a forward pass keeps for the way back, weights apart; the pass back is taken too."""
    own = {id(parameter) for parameter in model.parameters()}
    kept: dict[int, torch.Tensor] = {}

    def keep(tensor: torch.Tensor) -> torch.Tensor:
        base = tensor if tensor._base is None else tensor._base
        if id(base) not in own:
            kept[id(base)] = base
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        loss = model(**batch).logits.float().square().sum()
        size = sum(tensor.numel() * tensor.element_size() for tensor in kept.values())
    loss.backward()
    return size


def _without_data(preset: str, n_genes: int, length: int) -> object:
    encoder = GeneSentenceEncoder(tuple(map(str, range(n_genes))), np.arange(9.0), np.arange(10.0), np.zeros(1), length)
    return sentence_models.configured(preset, encoder, ["control", "case"])


def narrow_step(preset: str, *, n_genes: int = 200, length: int = 64, seed: int = 0) -> dict[str, float]:
    """One real step of a copy as deep as a preset and with as many heads, four numbers each: loss before and after it."""
    config = _without_data(preset, n_genes, length)
    config.n_embd = 4 * config.n_head
    model = sentence_models.build(config, seed=seed).train()
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
