"""Embeddings of cells and genes: hidden states of any layer, with several poolings.

Layers are numbered as in official Geneformer: 0 is the last, -1 the one before it, down to the input embeddings.
"""

import copy
from collections.abc import Iterator

import numpy as np
import pandas as pd
import torch
from scipy import sparse
from sklearn.decomposition import TruncatedSVD
from torch import nn
from transformers import PreTrainedModel

from epigen_utils.errors import DataError, suggest
from epigen_utils.geneformer.encoded_cells import EncodedCells, token_ids
from epigen_utils.geneformer.vocabularies import CLS, EOS, MASK, PAD, Vocabulary
from epigen_utils.models import batching

#: Poolings of a cell's states to one vector; ``first`` takes the state of ``<cls>`` in V2, of the top gene in V1.
POOLINGS = ("mean", "max", "first")


def truncate_model(model: PreTrainedModel, layer: int = -1) -> PreTrainedModel:
    """Return the model truncated after a layer, with shared weights, so that no unused layer is computed.

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
    part, encoder = _shallow_copy(base), _shallow_copy(base.encoder)
    encoder.layer = nn.ModuleList(list(base.encoder.layer)[:n])
    part.encoder, part.pooler = encoder, None
    return part.eval()


def start_from_coexpression(
    model: PreTrainedModel, cells: EncodedCells, vocabulary: Vocabulary, *, seed: int = 0
) -> PreTrainedModel:
    """Set a fresh model's gene embeddings, in place, to the leading axes of co-expression in encoded cells.

    The axes are those of a truncated singular value decomposition of cells x genes, where a gene counts from 1 for the
    first of a cell to 0.2 for the last, and 0 where it is missing; their spread is that of the weights they replace.
    Training then begins with genes of like cells side by side, and leaves the plateau of gene frequencies sooner.
    """
    ids = token_ids(cells)
    weights = np.concatenate([np.linspace(1, 0.2, len(cell)) for cell in ids])
    ends = np.cumsum([0, *map(len, ids)])
    matrix = sparse.csr_matrix((weights, np.concatenate(ids), ends), shape=(len(ids), vocabulary.size))
    table = model.get_input_embeddings().weight
    axes = TruncatedSVD(min(table.shape[1], min(matrix.shape) - 1), random_state=seed).fit(matrix)
    vectors = np.zeros(table.shape)
    vectors[:, : len(axes.components_)] = axes.components_.T * np.sqrt(axes.singular_values_)
    vectors *= float(table.detach().std()) / vectors[vocabulary.gene_tokens].std()
    with torch.no_grad():
        table[vocabulary.gene_tokens] = torch.from_numpy(vectors[vocabulary.gene_tokens]).to(table)
    return model


def _shallow_copy(module: nn.Module) -> nn.Module:
    """Shallow copy of a module with its own dictionary of submodules."""
    duplicate = copy.copy(module)
    duplicate._modules = module._modules.copy()
    return duplicate


@torch.no_grad()
def cell_hidden_states(
    model: PreTrainedModel,
    cells: list[np.ndarray],
    vocabulary: Vocabulary,
    *,
    layer: int = -1,
    positions: list[np.ndarray] | None = None,
) -> Iterator[tuple[np.ndarray, torch.Tensor, torch.Tensor, torch.Tensor]]:
    """Iterate over the hidden states of cells in batches.

    Parameters
    ----------
    cells
        Token ids of each cell.
    positions
        Position of each token; by default counted from 0.

    Yields
    ------
    Positions of the batch's cells; token ids (cells x length, padded); states (cells x length x width); and a mask of
    the positions that hold genes (cells x length), neither padding nor special tokens.
    """
    part = truncate_model(model, layer)
    tokens = vocabulary.tokens
    special = torch.tensor([tokens[name] for name in (PAD, MASK, CLS, EOS) if name in tokens])
    for rows in batching.length_batches([len(cell) for cell in cells]):
        batch = batching.pad_batch([cells[row] for row in rows], tokens[PAD])
        ids = batch["input_ids"]
        genes = ~torch.isin(ids, special)
        if positions is not None:
            batch["position_ids"] = batching.pad([positions[row] for row in rows], 0)
        states = part(**batching.to_device(batch, model.device)).last_hidden_state  # (cells, length, width)
        yield rows, ids, states.float().cpu(), genes


def pool_states(states: torch.Tensor, genes: torch.Tensor, pooling: str = "mean") -> torch.Tensor:
    """Pool the states of a cell's positions to one vector: cells x width.

    Parameters
    ----------
    states
        Cells x length x width.
    genes
        Mask of positions that hold genes, cells x length.
    pooling
        One of `POOLINGS`.

    Raises
    ------
    DataError
        If the pooling is unknown.
    """
    if pooling not in POOLINGS:
        raise DataError(f"pooling {pooling!r}: {suggest(pooling, POOLINGS)}")
    if pooling == "first":
        return states[:, 0]  # (cells, width)
    if pooling == "max":
        return states.masked_fill(~genes[..., None], -torch.inf).amax(dim=1)  # (cells, width)
    return (states * genes[..., None]).sum(dim=1) / genes.sum(dim=1, keepdim=True)  # (cells, width)


def embed_cells(
    model: PreTrainedModel, cells: EncodedCells, vocabulary: Vocabulary, *, layer: int = -1, pooling: str = "mean"
) -> np.ndarray:
    """Embed cells: one vector a cell, in the order of the cells, cells x width, 32-bit.

    ``mean`` and ``max`` exclude padding and special tokens, as in official Geneformer.
    """
    ids = token_ids(cells)
    embeddings = np.empty((len(ids), model.config.hidden_size), np.float32)
    for rows, _, states, genes in cell_hidden_states(model, ids, vocabulary, layer=layer):
        embeddings[rows] = pool_states(states, genes, pooling).numpy()
    return embeddings


def embed_genes(
    model: PreTrainedModel, cells: EncodedCells, vocabulary: Vocabulary, *, layer: int = -1
) -> tuple[pd.DataFrame, pd.Series]:
    """Contextual embedding of each gene: the mean of its states over the cells that express it.

    Returns
    -------
    Genes x width, by Ensembl id in the vocabulary's order, and the number of cells that express each gene.
    """
    sums = torch.zeros(vocabulary.size, model.config.hidden_size, dtype=torch.float64)
    n = torch.zeros(vocabulary.size)
    for _, ids, states, genes in cell_hidden_states(model, token_ids(cells), vocabulary, layer=layer):
        sums.index_add_(0, ids[genes], states[genes].double())  # states[genes]: (gene positions, width)
        n.index_add_(0, ids[genes], torch.ones(int(genes.sum())))
    names = [gene for gene in vocabulary.genes if n[vocabulary.tokens[gene]] > 0]
    rows = [vocabulary.tokens[gene] for gene in names]
    return pd.DataFrame((sums[rows] / n[rows, None]).numpy(), names), pd.Series(n[rows].numpy().astype(int), names)


def state_centres(
    embeddings: np.ndarray, labels: np.ndarray, levels: list[str], *, statistic: str = "mean", where: str = "state"
) -> dict[str, np.ndarray]:
    """Centre of each state: the mean, or the median, of the embeddings of its cells.

    Raises
    ------
    DataError
        If a state has no cells.
    """
    labels = np.asarray(labels).astype(str)
    states = list(dict.fromkeys(labels))
    for level in levels:
        if level not in states:
            raise DataError(f"{where}: no cell is {level!r}; there are {', '.join(states[:10])}")
    middle = {"mean": np.mean, "median": np.median}[statistic]
    return {level: middle(embeddings[labels == level], axis=0) for level in levels}
