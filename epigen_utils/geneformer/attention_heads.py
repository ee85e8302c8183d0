"""Attention of Geneformer's heads: width, share on first ranks, preference for gene classes, recovery of regulators.

Paper B, section 1.4.1; Theodoris et al. 2023. Attention depends on rank, so all comparisons are with genes of similar
rank. Attention is not an explanation: a head can attend to a gene without any effect on the output.
"""

from collections.abc import Iterator

import numpy as np
import pandas as pd
import torch
from scipy.stats import false_discovery_control, rankdata
from transformers import PreTrainedModel

from epigen_utils import evaluation, models
from epigen_utils.batching import pad
from epigen_utils.errors import DataError
from epigen_utils.vocabularies import PAD, Vocabulary

#: Bins of mean rank within which random genes are matched to those of a class.
BINS = 20
#: Bins of mean relative position within which the matched null of `baam` draws genes.
PLACE_BINS = 20
#: Random sets in each null of `baam`.
PERMUTATIONS = 999


@torch.no_grad()
def matrices(
    model: PreTrainedModel, cells: object, vocabulary: Vocabulary, *, batch_size: int = 16
) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Iterate over cells: token ids (length) and attention (layers x heads x queries x keys), summing to one over keys.

    Fused attention returns no weights, so the model switches to eager attention for the duration.
    """
    model.eval()
    with models.attending(model, "eager"):
        ids = [np.asarray(cell) for cell in cells["input_ids"]]
        order = np.argsort([-len(cell) for cell in ids], kind="stable")
        for first in range(0, len(order), batch_size):
            cell_ids = [ids[cell] for cell in order[first : first + batch_size]]
            batch = pad(cell_ids, vocabulary.tokens[PAD]).to(model.device)  # (cells, length)
            mask = (batch != vocabulary.tokens[PAD]).long()
            layers = model.base_model(batch, attention_mask=mask, output_attentions=True).attentions
            weights = torch.stack(layers, dim=1).float().cpu().numpy()  # (cells, layers, heads, queries, keys)
            for row, cell in enumerate(cell_ids):
                yield cell, weights[row, :, :, : len(cell), : len(cell)]


def widths(model: PreTrainedModel, cells: object, vocabulary: Vocabulary, *, front: float = 0.1) -> pd.DataFrame:
    """Width of each head's attention, and its share on the first ranks.

    Returns
    -------
    One row a cell, layer and head:

    - ``cell`` (index in descending order of length), ``layer``, ``head`` (from 1);
    - ``width``: exp of the mean entropy over queries, divided by the length; 1 for uniform attention;
    - ``front``: attention to the first ``front`` of the ranks, relative to uniform attention.
    """
    rows = []
    for number, (cell, weights) in enumerate(matrices(model, cells, vocabulary)):
        n = len(cell)
        first = max(round(front * n), 1)
        entropy = -(weights * np.log(np.maximum(weights, 1e-12))).sum(axis=-1).mean(axis=-1)  # (layers, heads)
        to_front = weights[..., :first].sum(axis=-1).mean(axis=-1) / (first / n)
        for layer, head in np.ndindex(entropy.shape):
            row = {"cell": number, "layer": layer + 1, "head": head + 1, "width": np.exp(entropy[layer, head]) / n}
            rows.append(row | {"front": to_front[layer, head]})
    return pd.DataFrame(rows)


def received(model: PreTrainedModel, cells: object, vocabulary: Vocabulary) -> tuple[pd.DataFrame, np.ndarray]:
    """Attention that each gene receives, corrected for its rank.

    For each head: the log of the mean attention over queries, times the length, minus its mean over genes of the same
    rank.

    Returns
    -------
    One row a gene in any cell: ``token``, ``cells`` (number of cells) and ``rank`` (mean relative rank); and the genes'
    mean residuals, genes x layers x heads.
    """
    tokens, positions, values = [], [], []
    for cell, weights in matrices(model, cells, vocabulary):
        tokens.append(cell)
        positions.append(np.arange(len(cell)))
        log_attention = np.log(np.maximum(weights.mean(axis=-2) * len(cell), 1e-12))  # (layers, heads, genes)
        values.append(log_attention.transpose(2, 0, 1))  # (genes, layers, heads)
    token, position, value = np.concatenate(tokens), np.concatenate(positions), np.concatenate(values)
    lengths = np.repeat([len(cell) for cell in tokens], [len(cell) for cell in tokens])
    bins = np.minimum((position / lengths * 4 * BINS).astype(int), 4 * BINS - 1)
    value = value - _mean_by(bins, value, 4 * BINS)[bins]
    names, codes = np.unique(token, return_inverse=True)
    table = pd.DataFrame({"token": names, "cells": np.bincount(codes)})
    table["rank"] = np.bincount(codes, position / lengths) / table["cells"]
    return table, _mean_by(codes, value, len(names))


def _mean_by(codes: np.ndarray, values: np.ndarray, n: int) -> np.ndarray:
    sums = np.zeros((n, *values.shape[1:]))
    np.add.at(sums, codes, values)
    return sums / np.maximum(np.bincount(codes, minlength=n), 1).reshape(-1, *[1] * (values.ndim - 1))


def preferences(
    table: pd.DataFrame, residuals: np.ndarray, members: set[int], *, n_permutations: int = 999, seed: int = 0
) -> pd.DataFrame:
    """Test which heads attend more to genes of a class than to other genes of similar rank.

    The null draws, from each bin of mean rank, as many random genes as the class has there: genes, not cells, are
    exchanged.

    Parameters
    ----------
    table, residuals
        Output of `received`.
    members
        Token ids of the class.

    Returns
    -------
    One row a head: ``layer``, ``head``, ``difference`` (mean residual of the class minus that of the null), ``p``
    (one-sided, (b + 1) / (m + 1)) and ``padj`` (Benjamini-Hochberg over heads).
    """
    inside = table["token"].isin(members).to_numpy()
    bins = pd.qcut(table["rank"], BINS, labels=False, duplicates="drop").to_numpy()
    rng = np.random.default_rng(seed)
    observed = residuals[inside].mean(axis=0)  # (layers, heads)
    null = np.empty((n_permutations, *observed.shape))  # (permutations, layers, heads)
    groups = [np.flatnonzero(bins == level) for level in np.unique(bins)]
    sizes = [int(inside[group].sum()) for group in groups]
    for draw in range(n_permutations):
        chosen = [rng.choice(group, size, replace=False) for group, size in zip(groups, sizes, strict=True) if size]
        null[draw] = residuals[np.concatenate(chosen)].mean(axis=0)
    p = ((null >= observed).sum(axis=0) + 1) / (n_permutations + 1)
    rows = [
        {
            "layer": layer + 1,
            "head": head + 1,
            "difference": (observed - null.mean(axis=0))[layer, head],
            "p": p[layer, head],
        }
        for layer, head in np.ndindex(p.shape)
    ]
    heads = pd.DataFrame(rows)
    heads["padj"] = false_discovery_control(heads["p"])
    return heads


def regulators_found(
    model: PreTrainedModel,
    cells: object,
    vocabulary: Vocabulary,
    regulon: pd.DataFrame,
    *,
    least_cells: int = 5,
    n_permutations: int = 199,
    seed: int = 0,
) -> pd.DataFrame:
    """Test whether target genes attend to their regulators more than other genes do.

    The score of a gene-regulator pair that co-occurs in at least ``least_cells`` cells is the mean attention from gene
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
    for cell, weights in matrices(model, cells, vocabulary):
        if sums is None:
            sums = np.zeros((*weights.shape[:2], *n.shape))  # (layers, heads, genes, regulators)
        queries, keys = np.flatnonzero(row[cell] >= 0), np.flatnonzero(column[cell] >= 0)
        pairs = np.ix_(row[cell[queries]], column[cell[keys]])
        n[pairs] += 1
        sums[(slice(None), slice(None), *pairs)] += weights[:, :, queries][:, :, :, keys] * len(cell)
    linked = regulon.loc[genes, names].to_numpy() != 0
    itself = np.array(genes)[:, None] == np.array(names)[None]
    seen = (n >= least_cells) & ~itself
    rng = np.random.default_rng(seed)
    orders = [rng.permutation(len(names)) for _ in range(n_permutations)]
    rows = []
    for layer, head in np.ndindex(sums.shape[:2]):
        score = np.divide(sums[layer, head], n, out=np.zeros_like(n), where=n > 0)[seen]
        auc = evaluation.auc(score, linked[seen])
        null = np.array([evaluation.auc(score, linked[:, order][seen]) for order in orders])
        result = {"layer": layer + 1, "head": head + 1, "auc": auc, "null": null.mean()}
        rows.append(result | {"p": ((null >= auc).sum() + 1) / (n_permutations + 1), "pairs": int(seen.sum())})
    return pd.DataFrame(rows)


def coexpression(values: np.ndarray, genes: list[str], regulon: pd.DataFrame) -> float:
    """Baseline of `regulators_found`: AUC of the absolute correlation of expression between gene and regulator.

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
    return evaluation.auc(np.abs(r)[other], (regulon.loc[rows, columns].to_numpy() != 0)[other])


def baam(
    scores: np.ndarray,
    places: np.ndarray,
    members: np.ndarray,
    *,
    name: str = "gene set",
    units: np.ndarray | None = None,
    n_permutations: int = PERMUTATIONS,
    n_bootstrap: int = 1000,
    seed: int = 0,
) -> dict[str, float]:
    """Biology-Attention Alignment Metric of one gene set, with its interval and two nulls.

    Paper A names the metric once without a definition. Here it is the probability that a gene of the set receives more
    attention than a gene outside it within one sentence, averaged over sentences: 0.5 for attention independent of the
    set. The set must not contain genes that the training loss used.

    Parameters
    ----------
    scores
        Attention, samples x genes; NaN if a sentence lacks the gene (`sentence_attention.read`).
    places
        Relative position of each gene, in the shape of `scores`.
    members
        True for genes of the set.
    name
        Name of the set, for errors.
    units
        Donor of each sample; None: each sample is a unit.
    n_bootstrap
        Bootstrap draws for the interval; 0 for none.

    Returns
    -------
    - ``baam``;
    - ``low``, ``high``: 95% interval over resampled genes of the set and donors, genes outside fixed; NaN for one gene;
    - ``random``, ``matched``: means over random sets, and over sets with as many genes in each of `PLACE_BINS` bins of
      mean position;
    - ``p random``, ``p matched``: one-sided, (b + 1) / (m + 1);
    - ``genes`` (of the set), ``others``.

    Raises
    ------
    DataError
        If no gene of the set, or none outside it, is among the genes.
    """
    observable = np.isfinite(scores).any(axis=0)
    inside = np.asarray(members, bool)[observable]
    if not inside.any():
        raise DataError(
            f"{name}: has no member among the {observable.sum():,} genes of the sentences; give a set of these genes, "
            "or choose more genes"
        )
    if inside.all():
        raise DataError(
            f"{name}: all {observable.sum():,} genes of the sentences are members; nothing is left to compare with"
        )
    ranks = rankdata(scores[:, observable], axis=1, nan_policy="omit")
    present = np.isfinite(scores[:, observable])
    ranks = np.where(present, ranks, 0.0)
    mean_position = np.nanmean(places[:, observable], axis=0)
    rng = np.random.default_rng(seed)
    sets = {"random": _drawn(inside, np.zeros(len(inside), int), n_permutations, rng)}
    sets["matched"] = _drawn(inside, _bins(mean_position), n_permutations, rng)
    observed = float(_values(inside[None], ranks, present)[0])
    codes = np.arange(len(present)) if units is None else np.unique(units, return_inverse=True)[1]
    low, high = _interval(inside, ranks, present, codes, n_bootstrap, rng)
    result = {"baam": observed, "low": low, "high": high}
    nulls = {kind: _values(drawn, ranks, present) for kind, drawn in sets.items()}
    result |= {kind: float(null.mean()) for kind, null in nulls.items()}
    for kind, null in nulls.items():
        result[f"p {kind}"] = float(((null >= observed - 1e-12).sum() + 1) / (n_permutations + 1))
    return result | {"genes": int(inside.sum()), "others": int((~inside).sum())}


def _bins(positions: np.ndarray) -> np.ndarray:
    return (rankdata(positions, method="ordinal").astype(int) - 1) * PLACE_BINS // len(positions)


def _drawn(inside: np.ndarray, bins: np.ndarray, n: int, rng: np.random.Generator) -> np.ndarray:
    """Draw random sets, sets x genes, with as many members in each bin as the given set."""
    order = np.argsort(rng.random((n, len(inside))) + bins, axis=1)
    drawn = np.zeros(order.shape, bool)
    np.put_along_axis(drawn, order, np.broadcast_to(inside[np.argsort(bins, kind="stable")], order.shape), axis=1)
    return drawn


def _values(sets: np.ndarray, ranks: np.ndarray, present: np.ndarray) -> np.ndarray:
    """BAAM of many sets: mean AUROC, by rank sums, over sentences with genes in and outside the set."""
    weights = sets.astype(float)
    k, n = weights @ present.T.astype(float), present.sum(axis=1)
    pairs = k * (n - k)
    with np.errstate(invalid="ignore"):
        return np.nanmean(np.where(pairs > 0, (weights @ ranks.T - k * (k + 1) / 2) / pairs, np.nan), axis=1)


def _interval(
    inside: np.ndarray, ranks: np.ndarray, present: np.ndarray, units: np.ndarray, n: int, rng: np.random.Generator
) -> tuple[float, float]:
    """Interval from a bootstrap over genes of the set and over units of sentences."""
    # A single gene carries no information about the spread between genes.
    if not n or inside.sum() < 2:
        return np.nan, np.nan
    above = _above(inside, ranks, present)
    finite = np.isfinite(above)
    genes = rng.multinomial(above.shape[1], np.full(above.shape[1], 1 / above.shape[1]), size=n).T
    n_units = units.max() + 1
    weights = rng.multinomial(n_units, np.full(n_units, 1 / n_units), size=n).T[units]
    with np.errstate(invalid="ignore"):
        # Sentences have equal weight, whatever their number of set genes; those with none of the drawn genes have none.
        per_sentence = (np.where(finite, above, 0.0) @ genes) / (finite.astype(float) @ genes)  # (sentences, draws)
        weights = np.where(np.isfinite(per_sentence), weights, 0)
        drawn = np.nansum(weights * per_sentence, axis=0) / weights.sum(axis=0)
    low, high = np.nanquantile(drawn, [0.025, 0.975])
    return float(low), float(high)


def _above(inside: np.ndarray, ranks: np.ndarray, present: np.ndarray) -> np.ndarray:
    """Share of genes outside the set that each set gene outranks, sentences x genes of the set; NaN if it is absent."""
    scores = np.where(present, ranks, np.nan)
    genes, others = scores[:, inside], scores[:, ~inside]
    outside = np.sort(np.where(np.isnan(others), np.inf, others), axis=1)
    m = present[:, ~inside].sum(axis=1)
    above = np.full(genes.shape, np.nan)
    for row in np.flatnonzero(m):
        left, right = (np.searchsorted(outside[row, : m[row]], genes[row], side=side) for side in ("left", "right"))
        above[row] = np.where(np.isfinite(genes[row]), (left + right) / 2 / m[row], np.nan)
    return above


def baam_of_sets(
    scores: np.ndarray, places: np.ndarray, genes: list[str], sets: dict[str, list[str]], **options
) -> pd.DataFrame:
    """`baam` of several sets.

    Returns
    -------
    One row a set with members: ``set``, the keys of `baam`, and ``padj`` (Benjamini-Hochberg over ``p matched``).
    """
    rows = []
    for name, members in sets.items():
        inside = np.isin(genes, list(members))
        if (inside & np.isfinite(scores).any(axis=0)).any():
            rows.append({"set": name, **baam(scores, places, inside, name=name, **options)})
    if not rows:
        raise DataError(f"{', '.join(sets)}: none has a member among the {len(genes):,} genes of the sentences")
    table = pd.DataFrame(rows)
    table["padj"] = false_discovery_control(table["p matched"])
    return table


def baam_of_heads(
    paid: np.ndarray,
    places: np.ndarray,
    members: np.ndarray,
    *,
    name: str,
    n_permutations: int = PERMUTATIONS,
    seed: int = 0,
) -> pd.DataFrame:
    """`baam` of each head, without intervals.

    Parameters
    ----------
    paid
        Attention, layers x heads x samples x genes.

    Returns
    -------
    One row a head: ``layer``, ``head`` (from 1), the keys of `baam`, and ``padj`` over all heads, from ``p matched``.
    """
    rows = []
    for layer, head in np.ndindex(paid.shape[:2]):
        options = {"name": name, "n_permutations": n_permutations, "n_bootstrap": 0, "seed": seed}
        result = baam(paid[layer, head], places, members, **options)
        rows.append({"layer": layer + 1, "head": head + 1, **result})
    table = pd.DataFrame(rows).drop(columns=["low", "high"])
    table["padj"] = false_discovery_control(table["p matched"])
    return table
