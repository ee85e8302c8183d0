"""What a model makes of cells and genes: hidden states of any layer, pooled in several ways.

Layers are counted as official Geneformer counts them: 0 is the last, -1 the one before it, and so on to the embeddings.
"""

import copy
from collections.abc import Iterator

import numpy as np
import pandas as pd
import torch
from torch import nn
from transformers import PreTrainedModel

from epigen_utils.batching import pad
from epigen_utils.errors import DataError, closest
from epigen_utils.vocabularies import CLS, EOS, MASK, PAD, Vocabulary

#: Positions, padding included, that go through a model at once.
POSITIONS = 16_384
#: How the states of a cell's genes become one vector; ``first`` is that of ``<cls>`` in V2, of the top gene in V1.
POOLINGS = ("mean", "max", "first")


def up_to(model: PreTrainedModel, layer: int = -1) -> PreTrainedModel:
    """The part of a model below a layer, its weights shared, so that nothing is computed that is not read.

    Raises
    ------
    DataError
        If the model has no such layer.
    """
    base = model.base_model
    n = base.config.num_hidden_layers + layer
    if not 0 <= n <= base.config.num_hidden_layers:
        raise DataError(
            f"layer {layer}: the model has layers 0 (last) to -{base.config.num_hidden_layers} (embeddings)"
        )
    part, encoder = _shared(base), _shared(base.encoder)
    encoder.layer = nn.ModuleList(list(base.encoder.layer)[:n])
    part.encoder, part.pooler = encoder, None
    return part.eval()


def _shared(module: nn.Module) -> nn.Module:
    """The same module with a list of parts of its own."""
    found = copy.copy(module)
    found._modules = module._modules.copy()
    return found


def batches(lengths: np.ndarray, *, positions: int = POSITIONS) -> Iterator[np.ndarray]:
    """Rows in batches of like length, longest first, with at most so many positions each (or one row)."""
    order = np.argsort(-np.asarray(lengths), kind="stable")
    while len(order):
        size = max(positions // int(lengths[order[0]]), 1)
        yield order[:size]
        order = order[size:]


@torch.no_grad()
def of_cells(
    model: PreTrainedModel,
    cells: list[np.ndarray],
    vocabulary: Vocabulary,
    *,
    layer: int = -1,
    places: list[np.ndarray] | None = None,
) -> Iterator[tuple[np.ndarray, torch.Tensor, torch.Tensor, torch.Tensor]]:
    """Hidden states, a batch of cells at a time.

    Parameters
    ----------
    cells
        Token ids of each.
    places
        Position of each token; by default from 0 on.

    Yields
    ------
    Positions of the batch's cells; token ids (cells x length, padded); states (cells x length x width); and which positions
    hold genes, neither padding nor special.
    """
    part = up_to(model, layer)
    tokens = vocabulary.tokens
    special = torch.tensor([tokens[name] for name in (PAD, MASK, CLS, EOS) if name in tokens])
    for rows in batches(np.array([len(cell) for cell in cells])):
        ids = pad([cells[row] for row in rows], tokens[PAD])
        genes = ~torch.isin(ids, special)
        mask = (ids != tokens[PAD]).long().to(model.device)
        where = {} if places is None else {"position_ids": pad([places[row] for row in rows], 0).to(model.device)}
        yield rows, ids, part(ids.to(model.device), attention_mask=mask, **where).last_hidden_state.float().cpu(), genes


def pool(states: torch.Tensor, genes: torch.Tensor, how: str = "mean") -> torch.Tensor:
    """States of a cell's positions as one vector a cell.

    Parameters
    ----------
    states
        Cells x length x width.
    genes
        Cells x length, true where there is a gene.
    how
        Of `POOLINGS`.

    Raises
    ------
    DataError
        If there is no such pooling.
    """
    if how not in POOLINGS:
        raise DataError(f"pooling {how!r}: {closest(how, POOLINGS)}")
    if how == "first":
        return states[:, 0]
    if how == "max":
        return states.masked_fill(~genes[..., None], -torch.inf).amax(dim=1)
    return (states * genes[..., None]).sum(dim=1) / genes.sum(dim=1, keepdim=True)


def embed(
    model: PreTrainedModel, cells: object, vocabulary: Vocabulary, *, layer: int = -1, pooling: str = "mean"
) -> np.ndarray:
    """One vector a cell, in the order of the cells: cells x width, 32-bit.

    Padding is left out, and with ``mean`` and ``max`` special tokens are too, as official Geneformer does.

    Parameters
    ----------
    cells
        Encoded cells, something whose ``["input_ids"]`` are token ids.
    """
    ids = [np.asarray(cell) for cell in cells["input_ids"]]
    found = np.empty((len(ids), model.config.hidden_size), np.float32)
    for rows, _, states, genes in of_cells(model, ids, vocabulary, layer=layer):
        found[rows] = pool(states, genes, pooling).numpy()
    return found


def embed_genes(
    model: PreTrainedModel, cells: object, vocabulary: Vocabulary, *, layer: int = -1
) -> tuple[pd.DataFrame, pd.Series]:
    """Contextual embedding of each gene: the mean of its states over the cells that show it.

    Returns
    -------
    Genes x width, by Ensembl id in the vocabulary's order, and the number of cells that each was taken over.
    """
    sums = torch.zeros(vocabulary.size, model.config.hidden_size, dtype=torch.float64)
    n = torch.zeros(vocabulary.size)
    for _, ids, states, genes in of_cells(
        model, [np.asarray(cell) for cell in cells["input_ids"]], vocabulary, layer=layer
    ):
        sums.index_add_(0, ids[genes], states[genes].double())
        n.index_add_(0, ids[genes], torch.ones(int(genes.sum())))
    shown = [gene for gene in vocabulary.genes if n[vocabulary.tokens[gene]] > 0]
    rows = [vocabulary.tokens[gene] for gene in shown]
    return pd.DataFrame((sums[rows] / n[rows, None]).numpy(), shown), pd.Series(n[rows].numpy().astype(int), shown)


def centres(
    embeddings: np.ndarray, labels: np.ndarray, levels: list[str], *, how: str = "mean", where: str = "state"
) -> dict[str, np.ndarray]:
    """Where the cells of each state lie: the mean, or the median, of their embeddings.

    Raises
    ------
    DataError
        If a state has no cell.
    """
    labels = np.asarray(labels).astype(str)
    known = list(dict.fromkeys(labels))
    for level in levels:
        if level not in known:
            raise DataError(f"{where}: no cell is {level!r}; there are {', '.join(known[:10])}")
    middle = {"mean": np.mean, "median": np.median}[how]
    return {level: middle(embeddings[labels == level], axis=0) for level in levels}
