"""Costs of a model and its training: parameters by part, floating-point operations by token.

Paper B, section 2.3 (Eq. 3) and its claims of 1/25 of the compute and 1/20 of the data. A multiplication and an
addition are two operations; softmax, norms and activations, below 1% of the total, are omitted.
"""

import copy

import pandas as pd
import torch
from transformers import PretrainedConfig

from epigen_utils.geneformer.masked_genes import MASKED_SHARE
from epigen_utils.models import presets

#: GPU-hours of Geneformer's pretraining: 12 V100 for 3 days (paper B, section 2.1).
PRETRAINING_GPU_HOURS = 12 * 3 * 24
#: Classes of paper B's cardiomyopathy task, section 3.2.
N_CLASSES = 3
#: What the columns of `parameter_table` mean.
PARAMETER_COLUMNS = {
    "L": "layers",
    "d": "width",
    "f": "feed-forward width",
    "share": "parameters relative to the first model's",
    "genes": "gene embedding, tied to the output layer",
    "positions": "position embedding",
    "layers": "attention and feed-forward",
    "rest": "token types, their norm, and the masked-gene head",
    "in embedding": "share of the parameters in the gene and position embeddings",
    "Eq. 3": "parameters by the paper's formula",
}


def parameters_by_part(config: PretrainedConfig) -> dict[str, int]:
    """Parameters of a masked language model by part.

    Returns
    -------
    ``genes`` (embedding, tied to the output), ``positions``, ``layers``, ``rest``.
    """
    with torch.device("meta"):
        model = presets.HEADS["masked-lm"](config)
    counts = {"genes": 0, "positions": 0, "layers": 0, "rest": 0}
    for name, weight in model.named_parameters():
        part = "rest"
        for kind, module in (("genes", "word_embeddings"), ("positions", "position_embeddings"), ("layers", "encoder")):
            part = kind if module in name else part
        counts[part] += weight.numel()
    return counts


def classifier_parameters(config: PretrainedConfig) -> int:
    """Parameters with the head of paper B's cardiomyopathy classifier (pooler and three classes) for the masked genes'.

    Section 2.3 counts "the classification head"; the students are distilled with a head that names masked genes.
    """
    config = copy.deepcopy(config)
    config.num_labels = N_CLASSES
    with torch.device("meta"):
        return presets.n_parameters(presets.HEADS["cell-class"](config))


def equation_3_parameters(config: PretrainedConfig, *, feed_forward_ratio: int | None = None) -> int:
    """Parameters by paper B's Eq. 3: 2 V d + L (4 d^2 + 2 d d_ff).

    Parameters
    ----------
    feed_forward_ratio
        Ratio of d_ff to d, typically 4 according to the paper; by default the configuration's.
    """
    d = config.hidden_size
    d_ff = config.intermediate_size if feed_forward_ratio is None else feed_forward_ratio * d
    return 2 * config.vocab_size * d + config.num_hidden_layers * (4 * d**2 + 2 * d * d_ff)


def parameter_table(configs: dict[str, PretrainedConfig]) -> pd.DataFrame:
    """Parameters of models.

    Returns
    -------
    One row per model: ``model``, ``L`` (layers), ``d`` (width), ``f`` (feed-forward width), ``parameters``, ``share``
    (relative to the first model), the counts of `parameters_by_part`, ``in embedding`` (share of genes and positions),
    ``Eq. 3``.
    """
    rows = []
    for name, config in configs.items():
        counts = parameters_by_part(config)
        total = sum(counts.values())
        row = {"model": name, "L": config.num_hidden_layers, "d": config.hidden_size, "f": config.intermediate_size}
        row |= {"parameters": total, **counts}
        row["in embedding"] = (counts["genes"] + counts["positions"]) / total
        rows.append(row | {"Eq. 3": equation_3_parameters(config)})
    sizes = pd.DataFrame(rows)
    sizes.insert(5, "share", sizes["parameters"] / sizes["parameters"].iloc[0])
    return sizes


def forward_operations(
    config: PretrainedConfig, tokens: float, squared_lengths: float, *, masked_share: float = MASKED_SHARE
) -> float:
    """Operations of a forward pass over cells that projects only masked genes to the vocabulary.

    Parameters
    ----------
    tokens, squared_lengths
        Sums over the cells of their lengths and of their squared lengths (attention).
    masked_share
        Share of the tokens that are masked.
    """
    d, d_ff, n = config.hidden_size, config.intermediate_size, config.num_hidden_layers
    linear = tokens * n * (8 * d**2 + 4 * d * d_ff)
    attention = squared_lengths * n * 4 * d
    return linear + attention + masked_share * tokens * (2 * d**2 + 2 * d * config.vocab_size)


def training_operations(
    config: PretrainedConfig, tokens: float, squared_lengths: float, *, teacher_config: PretrainedConfig | None = None
) -> float:
    """Operations of training on cells: forward pass, backward pass (twice that) and the teacher's forward pass."""
    operations = 3 * forward_operations(config, tokens, squared_lengths)
    return operations + (forward_operations(teacher_config, tokens, squared_lengths) if teacher_config else 0)


def published_costs(logs: pd.DataFrame, lengths: pd.Series, *, corpus: float, epochs: float = 3) -> pd.DataFrame:
    """Training costs of paper B's students relative to Geneformer's pretraining, in two units.

    GPUs differ, so that a ratio of GPU-hours is none of operations.

    Parameters
    ----------
    logs
        ``student``, ``cells`` (seen so far), ``hours`` (on one GPU).
    lengths
        ``mean`` and ``standard deviation`` of the tokens per cell.
    corpus, epochs
        Cells of the teacher's corpus, and passes over it.

    Returns
    -------
    One row per model: ``model``, ``cells`` seen, ``corpora`` (cells relative to the corpus), ``operations``,
    ``GPU-hours``, ``TFLOP/s`` (operations a second and GPU, in 10^12), and the teacher's relative to the model's in
    ``data`` (cells), ``compute, operations`` and ``compute, GPU-hours``.
    """
    squares = lengths["mean"] ** 2 + lengths["standard deviation"] ** 2
    teacher_config = presets.preset("geneformer-10m")
    last = logs.groupby("student", sort=False).last()
    trained = {"geneformer-10m": (epochs * corpus, None, PRETRAINING_GPU_HOURS)}
    trained |= {name: (row["cells"], teacher_config, row["hours"]) for name, row in last.iterrows()}
    rows = []
    for name, (cells, teacher, hours) in trained.items():
        config = presets.preset(name)
        operations = training_operations(config, cells * lengths["mean"], cells * squares, teacher_config=teacher)
        row = {"model": name, "cells": cells, "corpora": cells / corpus, "operations": operations, "GPU-hours": hours}
        rows.append(row | {"TFLOP/s": operations / hours / 3600 / 1e12})
    comparison = pd.DataFrame(rows)
    for ratio, unit in (("data", "cells"), ("compute, operations", "operations"), ("compute, GPU-hours", "GPU-hours")):
        comparison[ratio] = comparison[unit].iloc[0] / comparison[unit]
    return comparison
