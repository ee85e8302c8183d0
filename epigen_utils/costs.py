"""What a model and its training cost: parameters by part, floating-point operations by token.

Paper B, section 2.3 (Eq. 3) and its claims of 1/25 of the compute and 1/20 of the data. A multiplication and an addition are two
operations; softmax, norms and activations are left out, being less than a hundredth.
"""

import pandas as pd
import torch
from transformers import PretrainedConfig

from epigen_utils import models
from epigen_utils.batching import MASKED


def parts(config: PretrainedConfig) -> dict[str, int]:
    """Parameters of a masked language model: ``genes`` (embedding, tied to the output), ``positions``, ``layers``, ``rest``."""
    with torch.device("meta"):
        model = models.HEADS["masked-lm"](config)
    found = {"genes": 0, "positions": 0, "layers": 0, "rest": 0}
    for name, weight in model.named_parameters():
        kind = "rest"
        for part, sign in (("genes", "word_embeddings"), ("positions", "position_embeddings"), ("layers", "encoder")):
            kind = part if sign in name else kind
        found[kind] += weight.numel()
    return found


def equation_three(config: PretrainedConfig, *, ratio: int | None = None) -> int:
    """What paper B's Eq. 3 counts: 2 V d + L (4 d^2 + 2 d d_ff).

    Parameters
    ----------
    ratio
        Of the feed-forward width to the width; by default the configuration's. The paper says it is typically 4.
    """
    d, wide = config.hidden_size, config.intermediate_size
    wide = wide if ratio is None else ratio * d
    return 2 * config.vocab_size * d + config.num_hidden_layers * (4 * d**2 + 2 * d * wide)


def table(configs: dict[str, PretrainedConfig]) -> pd.DataFrame:
    """A row a model: ``model``, ``parameters``, its `parts`, ``share`` (of the first), ``in embedding`` (share, genes and positions), ``Eq. 3``."""
    rows = []
    for name, config in configs.items():
        found = parts(config)
        whole = sum(found.values())
        row = {"model": name, "parameters": whole, **found}
        row["in embedding"] = (found["genes"] + found["positions"]) / whole
        rows.append(row | {"Eq. 3": equation_three(config)})
    made = pd.DataFrame(rows)
    made.insert(2, "share", made["parameters"] / made["parameters"].iloc[0])
    return made


def forward(config: PretrainedConfig, tokens: float, squares: float, *, asked: float = MASKED) -> float:
    """Operations of a pass over cells that projects only the genes that are asked for to the vocabulary.

    Parameters
    ----------
    tokens, squares
        Sums over the cells of their lengths, and of their squared lengths, which attention goes by.
    asked
        Share of the tokens.
    """
    d, wide, n = config.hidden_size, config.intermediate_size, config.num_hidden_layers
    linear = tokens * n * (8 * d**2 + 4 * d * wide)
    attention = squares * n * 4 * d
    return linear + attention + asked * tokens * (2 * d**2 + 2 * d * config.vocab_size)


def training(
    config: PretrainedConfig, tokens: float, squares: float, *, teacher: PretrainedConfig | None = None
) -> float:
    """Operations of training on cells: a pass forward and twice that back, and the teacher's forward where there is one."""
    found = 3 * forward(config, tokens, squares)
    return found + (forward(teacher, tokens, squares) if teacher else 0)


def published(logs: pd.DataFrame, lengths: pd.Series, *, corpus: float, epochs: float = 3) -> pd.DataFrame:
    """What paper B's students cost beside Geneformer's pretraining.

    Parameters
    ----------
    logs
        ``student``, ``cells`` (seen so far), ``hours``.
    lengths
        ``mean`` and ``standard deviation`` of the tokens of a cell.
    corpus, epochs
        Cells of the teacher's corpus, and how often it saw each.

    Returns
    -------
    A row a model: ``model``, ``cells`` seen, ``corpora`` (cells over the corpus), ``data`` and ``compute`` (how many times less than the
    teacher's), ``operations``, ``hours``.
    """
    squares = lengths["mean"] ** 2 + lengths["standard deviation"] ** 2
    full = models.preset("geneformer-10m")
    seen = {"geneformer-10m": (epochs * corpus, None)}
    last = logs.groupby("student", sort=False).last()
    seen |= {name: (row["cells"], full) for name, row in last.iterrows()}
    rows = []
    for name, (cells, teacher) in seen.items():
        config = models.preset(name)
        spent = training(config, cells * lengths["mean"], cells * squares, teacher=teacher)
        hours = last["hours"].get(name)
        rows.append({"model": name, "cells": cells, "corpora": cells / corpus, "operations": spent, "hours": hours})
    made = pd.DataFrame(rows)
    made["data"] = made["cells"].iloc[0] / made["cells"]
    made["compute"] = made["operations"].iloc[0] / made["operations"]
    return made
