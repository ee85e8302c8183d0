"""Attention of Geneformer's heads: width, share on first ranks, preference for gene classes, recovery of regulators.

Paper B, section 1.4.1; Theodoris et al. 2023. Attention depends on rank, so all comparisons are with genes of similar
rank. Attention is not an explanation: a head can attend to a gene without any effect on the output.
"""

from collections.abc import Iterator

import numpy as np
import pandas as pd
import torch
from scipy.stats import false_discovery_control
from transformers import PreTrainedModel

from epigen_utils.geneformer.encoded_cells import EncodedCells, token_ids
from epigen_utils.geneformer.vocabularies import PAD, Vocabulary
from epigen_utils.models import attention_kernels, batching
from epigen_utils.stats import permutation, two_classes

#: Bins of mean rank within which random genes are matched to those of a class.
RANK_BINS = 20
#: Bins of relative rank whose mean attention is subtracted from that of their genes.
CORRECTION_BINS = 80


@torch.no_grad()
def attention_matrices(
    model: PreTrainedModel, cells: EncodedCells, vocabulary: Vocabulary, *, batch_size: int = 16
) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Iterate over cells: token ids (length) and attention (layers x heads x queries x keys), summing to one over keys.

    Fused attention returns no weights, so the model switches to eager attention for the duration.
    """
    model.eval()
    with attention_kernels.attention_implementation(model, "eager"):
        ids = token_ids(cells)
        for rows in batching.length_batches([len(cell) for cell in ids], size=batch_size):
            cell_ids = [ids[row] for row in rows]
            batch = batching.pad_batch(cell_ids, vocabulary.tokens[PAD], model.device)
            layers = model.base_model(**batch, output_attentions=True).attentions
            weights = torch.stack(layers, dim=1).float().cpu().numpy()  # (cells, layers, heads, queries, keys)
            for row, cell in enumerate(cell_ids):
                yield cell, weights[row, :, :, : len(cell), : len(cell)]


def head_widths(
    model: PreTrainedModel, cells: EncodedCells, vocabulary: Vocabulary, *, front: float = 0.1
) -> pd.DataFrame:
    """Width of each head's attention, and its share on the first ranks.

    Returns
    -------
    One row a cell, layer and head:

    - ``cell`` (index in descending order of length), ``layer``, ``head`` (from 1);
    - ``width``: exp of the mean entropy over queries, divided by the length; 1 for uniform attention;
    - ``front``: attention to the first ``front`` of the ranks, relative to uniform attention.
    """
    rows = []
    for number, (cell, weights) in enumerate(attention_matrices(model, cells, vocabulary)):
        n = len(cell)
        first = max(round(front * n), 1)
        entropy = -(weights * np.log(np.maximum(weights, 1e-12))).sum(axis=-1).mean(axis=-1)  # (layers, heads)
        to_front = weights[..., :first].sum(axis=-1).mean(axis=-1) / (first / n)
        for layer, head in np.ndindex(entropy.shape):
            row = {"cell": number, "layer": layer + 1, "head": head + 1, "width": np.exp(entropy[layer, head]) / n}
            rows.append(row | {"front": to_front[layer, head]})
    return pd.DataFrame(rows)


def attention_received(
    model: PreTrainedModel, cells: EncodedCells, vocabulary: Vocabulary
) -> tuple[pd.DataFrame, np.ndarray]:
    """Attention that each gene receives, corrected for its rank.

    For each head: the log of the mean attention over queries, times the length, minus its mean over genes in the
    same of `CORRECTION_BINS` bins of relative rank.

    Returns
    -------
    One row a gene in any cell: ``token``, ``cells`` (number of cells) and ``rank`` (mean relative rank); and the genes'
    mean residuals, genes x layers x heads.
    """
    tokens, positions, values = [], [], []
    for cell, weights in attention_matrices(model, cells, vocabulary):
        tokens.append(cell)
        positions.append(np.arange(len(cell)))
        log_attention = np.log(np.maximum(weights.mean(axis=-2) * len(cell), 1e-12))  # (layers, heads, genes)
        values.append(log_attention.transpose(2, 0, 1))  # (genes, layers, heads)
    token, position, value = np.concatenate(tokens), np.concatenate(positions), np.concatenate(values)
    lengths = np.repeat([len(cell) for cell in tokens], [len(cell) for cell in tokens])
    bins = np.minimum((position / lengths * CORRECTION_BINS).astype(int), CORRECTION_BINS - 1)
    value = value - _mean_by(bins, value, CORRECTION_BINS)[bins]
    names, codes = np.unique(token, return_inverse=True)
    table = pd.DataFrame({"token": names, "cells": np.bincount(codes)})
    table["rank"] = np.bincount(codes, position / lengths) / table["cells"]
    return table, _mean_by(codes, value, len(names))


def _mean_by(codes: np.ndarray, values: np.ndarray, n: int) -> np.ndarray:
    sums = np.zeros((n, *values.shape[1:]))
    np.add.at(sums, codes, values)
    return sums / np.maximum(np.bincount(codes, minlength=n), 1).reshape(-1, *[1] * (values.ndim - 1))


def head_preferences(
    table: pd.DataFrame, residuals: np.ndarray, members: set[int], *, n_permutations: int = 999, seed: int = 0
) -> pd.DataFrame:
    """Test which heads attend more to genes of a class than to other genes of similar rank.

    The null draws, from each bin of mean rank, as many random genes as the class has there: genes, not cells, are
    exchanged.

    Parameters
    ----------
    table, residuals
        Output of `attention_received`.
    members
        Token ids of the class.

    Returns
    -------
    One row a head: ``layer``, ``head``, ``difference`` (mean residual of the class minus that of the null), ``p``
    (one-sided, `permutation.pvalue`) and ``padj`` (Benjamini-Hochberg over heads).
    """
    inside = table["token"].isin(members).to_numpy()
    bins = pd.qcut(table["rank"], RANK_BINS, labels=False, duplicates="drop").to_numpy()
    rng = np.random.default_rng(seed)
    observed = residuals[inside].mean(axis=0)  # (layers, heads)
    null = np.empty((n_permutations, *observed.shape))  # (permutations, layers, heads)
    groups = [np.flatnonzero(bins == level) for level in np.unique(bins)]
    sizes = [int(inside[group].sum()) for group in groups]
    for draw in range(n_permutations):
        chosen = [rng.choice(group, size, replace=False) for group, size in zip(groups, sizes, strict=True) if size]
        null[draw] = residuals[np.concatenate(chosen)].mean(axis=0)
    difference = observed - null.mean(axis=0)
    rows = []
    for layer, head in np.ndindex(observed.shape):
        p = permutation.pvalue(observed[layer, head], null[:, layer, head])
        rows.append({"layer": layer + 1, "head": head + 1, "difference": difference[layer, head], "p": p})
    heads = pd.DataFrame(rows)
    heads["padj"] = false_discovery_control(heads["p"])
    return heads


def regulator_attention(
    model: PreTrainedModel,
    cells: EncodedCells,
    vocabulary: Vocabulary,
    regulon: pd.DataFrame,
    *,
    min_cells: int = 5,
    n_permutations: int = 199,
    seed: int = 0,
) -> pd.DataFrame:
    """Test whether target genes attend to their regulators more than other genes do.

    The score of a gene-regulator pair that co-occurs in at least ``min_cells`` cells is the mean attention from gene
    to regulator, relative to uniform attention. The null permutes the regulators over the columns of the network, which
    preserves how much attention each regulator receives.

    Parameters
    ----------
    regulon
        Weights, genes x regulators, by Ensembl id; non-zero if the regulator acts on the gene.

    Returns
    -------
    One row a head: ``layer``, ``head``, ``auc`` (of linked pairs against the others), ``null`` (its mean under
    permutation), ``p`` and ``pairs``.
    """
    genes = [gene for gene in regulon.index if gene in vocabulary.tokens]
    names = [gene for gene in regulon.columns if gene in vocabulary.tokens]
    row = np.full(vocabulary.size, -1)
    column = row.copy()
    row[[vocabulary.tokens[gene] for gene in genes]] = np.arange(len(genes))
    column[[vocabulary.tokens[gene] for gene in names]] = np.arange(len(names))
    sums, n = None, np.zeros((len(genes), len(names)))
    for cell, weights in attention_matrices(model, cells, vocabulary):
        if sums is None:
            sums = np.zeros((*weights.shape[:2], *n.shape))  # (layers, heads, genes, regulators)
        queries, keys = np.flatnonzero(row[cell] >= 0), np.flatnonzero(column[cell] >= 0)
        pairs = np.ix_(row[cell[queries]], column[cell[keys]])
        n[pairs] += 1
        sums[(slice(None), slice(None), *pairs)] += weights[:, :, queries][:, :, :, keys] * len(cell)
    linked = regulon.loc[genes, names].to_numpy() != 0
    itself = np.array(genes)[:, None] == np.array(names)[None]
    seen = (n >= min_cells) & ~itself
    rng = np.random.default_rng(seed)
    orders = [rng.permutation(len(names)) for _ in range(n_permutations)]
    rows = []
    for layer, head in np.ndindex(sums.shape[:2]):
        score = np.divide(sums[layer, head], n, out=np.zeros_like(n), where=n > 0)[seen]
        auc = two_classes.roc_auc(score, linked[seen])
        null = np.array([two_classes.roc_auc(score, linked[:, order][seen]) for order in orders])
        result = {"layer": layer + 1, "head": head + 1, "auc": auc, "null": null.mean()}
        rows.append(result | {"p": permutation.pvalue(auc, null), "pairs": int(seen.sum())})
    return pd.DataFrame(rows)


def coexpression_auc(values: np.ndarray, genes: list[str], regulon: pd.DataFrame) -> float:
    """Baseline of `regulator_attention`: AUC of the absolute correlation of expression between gene and regulator.

    Parameters
    ----------
    values
        Cells x genes, on a log-like scale.
    genes
        Ensembl ids of the columns.
    """
    column_of = {gene: i for i, gene in enumerate(genes)}
    rows = [gene for gene in regulon.index if gene in column_of and values[:, column_of[gene]].std() > 0]
    columns = [gene for gene in regulon.columns if gene in column_of and values[:, column_of[gene]].std() > 0]
    scaled = (values - values.mean(axis=0)) / np.maximum(values.std(axis=0), 1e-12)
    r = scaled[:, [column_of[g] for g in rows]].T @ scaled[:, [column_of[g] for g in columns]] / len(values)
    other = np.array(rows)[:, None] != np.array(columns)[None]
    return two_classes.roc_auc(np.abs(r)[other], (regulon.loc[rows, columns].to_numpy() != 0)[other])
