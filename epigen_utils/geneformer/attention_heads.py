"""Attention of Geneformer's heads: width, share on first ranks, preference for gene classes, recovery of regulators.

Paper B, section 1.4.1; Theodoris et al. 2023. Attention depends on rank, so preferences are tested against genes of
similar rank, and, as Theodoris et al. do, against all other genes. Attention is not an explanation: a head can attend
to a gene without any effect on the output.
"""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import pandas as pd
import torch
from scipy.stats import false_discovery_control, mannwhitneyu
from transformers import PreTrainedModel

from epigen_utils.geneformer.encoded_cells import EncodedCells, token_ids
from epigen_utils.geneformer.vocabularies import PAD, Vocabulary
from epigen_utils.models import attention_kernels, batching
from epigen_utils.stats import intervals, permutation, two_classes

#: Bins of mean rank within which random genes are matched to those of a class.
RANK_BINS = 20
#: Bins of relative rank whose mean attention is subtracted from that of their genes.
CORRECTION_BINS = 80
#: Definitions of columns of the tables here, for a page.
CHANGE_COLUMNS = {
    "measure": "width, or front, of a layer's attention",
    "change": "last layer minus first layer",
    "units": "number of donors, or of cells where donors are unknown",
}
COUNT_COLUMNS = {
    "against": "genes with which the class is compared",
    "prefer": "heads that attend more to the class",
    "avoid": "heads that attend less to the class",
    "share": "share of heads that attend more to the class",
}
EDGE_COLUMNS = {
    "auc": "AUC of linked against other pairs",
    "null": "mean AUC over permutations of the regulators",
    "p": "two-sided permutation test",
    "pairs": "pairs of gene and regulator in five or more cells",
}
#: Permutations drawn at once.
PERMUTATION_CHUNK = 200
#: What attention to a class of genes is compared with (`head_preferences`).
LIKE_RANK, ALL_OTHERS = "genes of similar rank", "all other genes"


@torch.no_grad()
def attention_matrices(
    model: PreTrainedModel, cells: EncodedCells, vocabulary: Vocabulary, *, batch_size: int = 16
) -> Iterator[tuple[int, np.ndarray, np.ndarray]]:
    """Iterate over cells, longest first: position, token ids and attention, layers x heads x queries x keys.

    Attention sums to one over keys. Fused attention returns no weights, so the model switches to eager attention for
    the duration.
    """
    model.eval()
    with attention_kernels.attention_implementation(model, "eager"):
        ids = token_ids(cells)
        for rows in batching.length_batches([len(cell) for cell in ids], size=batch_size):
            cell_ids = [ids[row] for row in rows]
            batch = batching.pad_batch(cell_ids, vocabulary.tokens[PAD], model.device)
            layers = model.base_model(**batch, output_attentions=True).attentions
            weights = torch.stack(layers, dim=1).float().cpu().numpy()  # (cells, layers, heads, queries, keys)
            for row, cell, matrix in zip(rows, cell_ids, weights, strict=True):
                yield int(row), cell, matrix[:, :, : len(cell), : len(cell)]


def head_widths(
    model: PreTrainedModel, cells: EncodedCells, vocabulary: Vocabulary, *, front: float = 0.1
) -> pd.DataFrame:
    """Width of each head's attention, and its share on the first ranks.

    Returns
    -------
    One row a cell, layer and head:

    - ``cell`` (position), ``layer``, ``head`` (from 1);
    - ``width``: exp of the mean entropy over queries, divided by the length; 1 for uniform attention;
    - ``front``: attention to the first ``front`` of the ranks, relative to uniform attention.
    """
    rows = []
    for number, cell, weights in attention_matrices(model, cells, vocabulary):
        n = len(cell)
        first = max(round(front * n), 1)
        entropy = -(weights * np.log(np.maximum(weights, 1e-12))).sum(axis=-1).mean(axis=-1)  # (layers, heads)
        to_front = weights[..., :first].sum(axis=-1).mean(axis=-1) / (first / n)
        for layer, head in np.ndindex(entropy.shape):
            row = {"cell": number, "layer": layer + 1, "head": head + 1, "width": np.exp(entropy[layer, head]) / n}
            rows.append(row | {"front": to_front[layer, head]})
    return pd.DataFrame(rows)


def layer_changes(
    heads: pd.DataFrame, units: np.ndarray, *, n_bootstrap: int = 1000, seed: int = 0
) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Change of width and front from the first layer to the last, mean over heads and cells.

    Parameters
    ----------
    heads
        Output of `head_widths`.
    units
        Donor of each cell, by position; without donors, the cells themselves.

    Returns
    -------
    First, one row for ``width`` and one for ``front``: ``measure``, ``first``, ``last``, ``change``, its ``low`` and
    ``high`` (95% bootstrap over units; NaN with fewer than `intervals.LEAST_UNITS`) and ``units``. Second, the change
    of each unit, units x measures.
    """
    measures = ["width", "front"]
    by_layer = heads.groupby(["cell", "layer"])[measures].mean().unstack("layer")
    layers, rng = sorted(set(heads["layer"])), np.random.default_rng(seed)
    of_cells = np.asarray(units)[by_layer.index]
    rows, changes = [], {}
    for measure in measures:
        first, last = by_layer[measure][layers[0]], by_layer[measure][layers[-1]]
        changes[measure] = last - first
        mean, low, high, n = intervals.bootstrap_mean(last - first, of_cells, n_bootstrap=n_bootstrap, rng=rng)
        if n < intervals.LEAST_UNITS:
            low = high = np.nan
        row = {"measure": measure, "first": first.mean(), "last": last.mean(), "change": mean}
        rows.append(row | {"low": low, "high": high, "units": n})
    return pd.DataFrame(rows), pd.DataFrame(changes).groupby(of_cells).mean()


@dataclass(frozen=True)
class ReceivedAttention:
    """Attention that genes receive from the heads of a model.

    Attributes
    ----------
    genes
        One row a gene in any cell: ``token``, ``cells`` (number of cells) and ``rank`` (mean relative rank).
    log_attention
        Log of the mean attention over queries, times the length, mean over cells, genes x layers x heads.
    residuals
        The same minus its mean over genes in the same of `CORRECTION_BINS` bins of relative rank.
    """

    genes: pd.DataFrame
    log_attention: np.ndarray
    residuals: np.ndarray


def attention_received(model: PreTrainedModel, cells: EncodedCells, vocabulary: Vocabulary) -> ReceivedAttention:
    """Measure the attention that each gene receives."""
    tokens, positions, values = [], [], []
    for _, cell, weights in attention_matrices(model, cells, vocabulary):
        tokens.append(cell)
        positions.append(np.arange(len(cell)))
        log_attention = np.log(np.maximum(weights.mean(axis=-2) * len(cell), 1e-12))  # (layers, heads, genes)
        values.append(log_attention.transpose(2, 0, 1))  # (genes, layers, heads)
    token, position, value = np.concatenate(tokens), np.concatenate(positions), np.concatenate(values)
    lengths = np.repeat([len(cell) for cell in tokens], [len(cell) for cell in tokens])
    bins = np.minimum((position / lengths * CORRECTION_BINS).astype(int), CORRECTION_BINS - 1)
    residual = value - _mean_by(bins, value, CORRECTION_BINS)[bins]
    names, codes = np.unique(token, return_inverse=True)
    genes = pd.DataFrame({"token": names, "cells": np.bincount(codes)})
    genes["rank"] = np.bincount(codes, position / lengths) / genes["cells"]
    return ReceivedAttention(genes, _mean_by(codes, value, len(names)), _mean_by(codes, residual, len(names)))


def _mean_by(codes: np.ndarray, values: np.ndarray, n: int) -> np.ndarray:
    sums = np.zeros((n, *values.shape[1:]))
    np.add.at(sums, codes, values)
    return sums / np.maximum(np.bincount(codes, minlength=n), 1).reshape(-1, *[1] * (values.ndim - 1))


def head_preferences(
    received: ReceivedAttention,
    members: set[int],
    *,
    against: str = LIKE_RANK,
    n_permutations: int = 1999,
    seed: int = 0,
) -> pd.DataFrame:
    """Test which heads attend more, or less, to genes of a class than to other genes.

    Parameters
    ----------
    members
        Token ids of the class.
    against
        `LIKE_RANK`: random genes, from each of `RANK_BINS` bins of mean rank as many as the class has there; attention
        is corrected for rank, and genes, not cells, are exchanged. `ALL_OTHERS`: Wilcoxon's rank-sum test against all
        other genes, as in Theodoris et al. 2023, where a class that stands in front is preferred by any head that
        looks to the front.

    Returns
    -------
    One row a head: ``layer``, ``head``, ``difference`` (mean log attention to the class minus that to the others),
    ``p`` (two-sided) and ``padj`` (Benjamini-Hochberg over heads).
    """
    inside = received.genes["token"].isin(members).to_numpy()
    if against == ALL_OTHERS:
        groups = received.log_attention[inside], received.log_attention[~inside]
        difference = groups[0].mean(axis=0) - groups[1].mean(axis=0)  # (layers, heads)
        p = mannwhitneyu(*groups, axis=0).pvalue
    else:
        observed, null = _matched_null(received, inside, n_permutations, seed)
        difference = observed - null.mean(axis=0)
        p = np.empty_like(difference)
        for head in np.ndindex(p.shape):
            p[head] = permutation.two_sided_pvalue(observed[head], null[(slice(None), *head)])
    heads = pd.DataFrame(
        {"layer": layer + 1, "head": head + 1, "difference": difference[layer, head], "p": p[layer, head]}
        for layer, head in np.ndindex(p.shape)
    )
    heads["padj"] = false_discovery_control(heads["p"])
    return heads


def compare_preferences(
    received: dict[str, ReceivedAttention], classes: dict[str, set[int]], **options: int
) -> pd.DataFrame:
    """`head_preferences` of each model for each class of genes, against genes of similar rank and all others.

    Parameters
    ----------
    received
        Model -> attention that its genes receive.
    classes
        Class -> token ids.
    options
        For `head_preferences`.

    Returns
    -------
    The heads with ``model``, ``class`` and ``against``. A class of which none or all of the cells' genes are members
    has no row.
    """
    parts = [
        head_preferences(attention, members, against=against, **options).assign(
            **{"model": model, "class": kind, "against": against}
        )
        for against in (LIKE_RANK, ALL_OTHERS)
        for model, attention in received.items()
        for kind, members in classes.items()
        if 0 < attention.genes["token"].isin(members).sum() < len(attention.genes)
    ]
    columns = ["model", "class", "against", "layer", "head", "difference", "p", "padj"]
    return pd.concat(parts, ignore_index=True)[columns] if parts else pd.DataFrame(columns=columns)


def count_preferences(preferences: pd.DataFrame, *, alpha: float) -> pd.DataFrame:
    """Heads that are called in each direction.

    Returns
    -------
    One row a model, class and comparison: ``model``, ``class``, ``against``, ``prefer`` and ``avoid`` (heads that
    attend more, and less), ``heads`` (all) and ``share`` (that prefer).
    """
    rows = []
    for (model, kind, against), heads in preferences.groupby(["model", "class", "against"], sort=False):
        called = heads["padj"] < alpha
        more, less = (int((called & (sign * heads["difference"] > 0)).sum()) for sign in (1, -1))
        row = {"model": model, "class": kind, "against": against, "prefer": more, "avoid": less}
        rows.append(row | {"heads": len(heads), "share": more / len(heads)})
    return pd.DataFrame(rows, columns=["model", "class", "against", "prefer", "avoid", "heads", "share"])


def _matched_null(
    received: ReceivedAttention, inside: np.ndarray, n_permutations: int, seed: int
) -> tuple[np.ndarray, np.ndarray]:
    """Mean residual of a class, layers x heads, and of genes of like mean rank, permutations x layers x heads."""
    bins = pd.qcut(received.genes["rank"], RANK_BINS, labels=False, duplicates="drop").to_numpy()
    in_order = inside[np.argsort(bins, kind="stable")]
    values = received.residuals.reshape(len(inside), -1)  # (genes, layers x heads)
    rng, null = np.random.default_rng(seed), []
    for n_draws in [PERMUTATION_CHUNK] * (n_permutations // PERMUTATION_CHUNK) + [n_permutations % PERMUTATION_CHUNK]:
        # Genes in random order within their bins; those at the places of the class are its stand-ins.
        order = np.argsort(rng.random((n_draws, len(inside))) + bins, axis=1)
        drawn = np.zeros(order.shape)
        np.put_along_axis(drawn, order, np.broadcast_to(in_order, order.shape), axis=1)
        null.append(drawn @ values / inside.sum())
    shape = received.residuals.shape[1:]
    return received.residuals[inside].mean(axis=0), np.concatenate(null).reshape(-1, *shape)


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
    permutation), ``p`` (two-sided) and ``pairs``.
    """
    genes = [gene for gene in regulon.index if gene in vocabulary.tokens]
    names = [gene for gene in regulon.columns if gene in vocabulary.tokens]
    row = np.full(vocabulary.size, -1)
    column = row.copy()
    row[[vocabulary.tokens[gene] for gene in genes]] = np.arange(len(genes))
    column[[vocabulary.tokens[gene] for gene in names]] = np.arange(len(names))
    sums, n = None, np.zeros((len(genes), len(names)))
    for _, cell, weights in attention_matrices(model, cells, vocabulary):
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
        rows.append(result | {"p": permutation.two_sided_pvalue(auc, null), "pairs": int(seen.sum())})
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
