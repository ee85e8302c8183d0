"""What attention looks at: how widely, how far to the front, at which class of genes, and whether at planted regulators.

Paper B, section 1.4.1; Theodoris et al. 2023. Attention follows rank, so that every comparison here is with genes of like rank.
Attention is no explanation: a head can look at a gene and do nothing with what it sees.

The Biology-Attention Alignment Metric (`baam`): paper A names it once and defines nothing. Here it is the probability that a gene of a
set gets more attention than a gene outside it, within one sentence, mean over sentences: 0.5 for attention that knows nothing of the
set. Genes that a loss was told of must not be in the set.
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

#: Bins of mean rank within which random genes stand for those of a class.
BINS = 20
#: Sets that each null of `baam` draws.
PERMUTATIONS = 999


@torch.no_grad()
def matrices(
    model: PreTrainedModel, cells: object, vocabulary: Vocabulary, *, batch_size: int = 16
) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Attention of each cell: token ids (length) and weights (layers x heads x queries x keys), which sum to one over keys.

    Fused attention gives no weights, so the model is asked in its plain form, which is set back afterwards.
    """
    model.eval()
    with models.attending(model, "eager"):
        ids = [np.asarray(cell) for cell in cells["input_ids"]]
        order = np.argsort([-len(cell) for cell in ids], kind="stable")
        for first in range(0, len(order), batch_size):
            some = [ids[cell] for cell in order[first : first + batch_size]]
            batch = pad(some, vocabulary.tokens[PAD]).to(model.device)
            mask = (batch != vocabulary.tokens[PAD]).long()
            layers = model.base_model(batch, attention_mask=mask, output_attentions=True).attentions
            weights = torch.stack(layers, dim=1).float().cpu().numpy()
            for row, cell in enumerate(some):
                yield cell, weights[row, :, :, : len(cell), : len(cell)]


def widths(model: PreTrainedModel, cells: object, vocabulary: Vocabulary, *, front: float = 0.1) -> pd.DataFrame:
    """How widely each head looks, and how much of its attention goes to the first ranks.

    Returns
    -------
    A row a cell, layer and head: ``cell`` (number in the order of lengths), ``layer``, ``head`` (from 1), ``width`` (exp of the
    mean entropy over queries, over the length: 1 looks at all genes alike) and ``front`` (share of attention to the first
    ``front`` of the ranks, over what even attention would give them).
    """
    rows = []
    for number, (cell, weights) in enumerate(matrices(model, cells, vocabulary)):
        n = len(cell)
        first = max(round(front * n), 1)
        entropy = -(weights * np.log(np.maximum(weights, 1e-12))).sum(axis=-1).mean(axis=-1)
        to_front = weights[..., :first].sum(axis=-1).mean(axis=-1) / (first / n)
        for layer, head in np.ndindex(entropy.shape):
            row = {"cell": number, "layer": layer + 1, "head": head + 1, "width": np.exp(entropy[layer, head]) / n}
            rows.append(row | {"front": to_front[layer, head]})
    return pd.DataFrame(rows)


def received(model: PreTrainedModel, cells: object, vocabulary: Vocabulary) -> tuple[pd.DataFrame, np.ndarray]:
    """Attention that each gene receives, with what its rank explains taken out.

    For each head the log of the mean attention over queries, times the length, less its mean over all genes at the same rank.

    Returns
    -------
    A row a gene that a cell shows: ``token``, ``cells`` and ``rank`` (mean relative rank); and the gene's mean residual, genes x
    layers x heads.
    """
    tokens, places, values = [], [], []
    for cell, weights in matrices(model, cells, vocabulary):
        tokens.append(cell)
        places.append(np.arange(len(cell)))
        values.append(np.log(np.maximum(weights.mean(axis=-2) * len(cell), 1e-12)).transpose(2, 0, 1))
    token, place, value = np.concatenate(tokens), np.concatenate(places), np.concatenate(values)
    lengths = np.repeat([len(cell) for cell in tokens], [len(cell) for cell in tokens])
    bins = np.minimum((place / lengths * 4 * BINS).astype(int), 4 * BINS - 1)
    value = value - _mean_by(bins, value, 4 * BINS)[bins]
    names, codes = np.unique(token, return_inverse=True)
    table = pd.DataFrame({"token": names, "cells": np.bincount(codes)})
    table["rank"] = np.bincount(codes, place / lengths) / table["cells"]
    return table, _mean_by(codes, value, len(names))


def _mean_by(codes: np.ndarray, values: np.ndarray, n: int) -> np.ndarray:
    sums = np.zeros((n, *values.shape[1:]))
    np.add.at(sums, codes, values)
    return sums / np.maximum(np.bincount(codes, minlength=n), 1).reshape(-1, *[1] * (values.ndim - 1))


def preferences(
    table: pd.DataFrame, residuals: np.ndarray, members: set[int], *, n_permutations: int = 999, seed: int = 0
) -> pd.DataFrame:
    """Which heads look more at genes of a class than at other genes of like rank.

    The null draws as many genes at random as the class has in each bin of mean rank, so that genes, not cells, are exchanged.

    Parameters
    ----------
    table, residuals
        As `received` gives them.
    members
        Token ids of the class.

    Returns
    -------
    A row a head: ``layer``, ``head``, ``difference`` (mean residual of the class less that of the null), ``p`` (one-sided,
    (b + 1) / (m + 1)) and ``padj`` (Benjamini-Hochberg over heads).
    """
    inside = table["token"].isin(members).to_numpy()
    bins = pd.qcut(table["rank"], BINS, labels=False, duplicates="drop").to_numpy()
    rng = np.random.default_rng(seed)
    observed = residuals[inside].mean(axis=0)
    null = np.empty((n_permutations, *observed.shape))
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
    found = pd.DataFrame(rows)
    found["padj"] = false_discovery_control(found["p"])
    return found


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
    """Whether targets look at their own regulators more than other genes do.

    For each pair of a gene and a regulator that stand in at least ``least_cells`` cells together, the mean attention from the gene
    to the regulator, over what even attention would give. The null permutes which regulator a column of the network belongs to,
    so that genes that all attend to stay so.

    Parameters
    ----------
    regulon
        Weights, genes x regulators, by Ensembl id; not zero where the regulator sets the gene.

    Returns
    -------
    A row a head: ``layer``, ``head``, ``auc`` (of linked pairs above the others), ``null`` (its mean under permutation), ``p``
    and ``pairs``.
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
            sums = np.zeros((*weights.shape[:2], *n.shape))
        queries, keys = np.flatnonzero(row[cell] >= 0), np.flatnonzero(column[cell] >= 0)
        at = np.ix_(row[cell[queries]], column[cell[keys]])
        n[at] += 1
        sums[(slice(None), slice(None), *at)] += weights[:, :, queries][:, :, :, keys] * len(cell)
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
        rank = {"layer": layer + 1, "head": head + 1, "auc": auc, "null": null.mean()}
        rows.append(rank | {"p": ((null >= auc).sum() + 1) / (n_permutations + 1), "pairs": int(seen.sum())})
    return pd.DataFrame(rows)


def coexpression(values: np.ndarray, genes: list[str], regulon: pd.DataFrame) -> float:
    """The plain rival of `regulators_found`: the AUC of the absolute correlation of expression between gene and regulator.

    Parameters
    ----------
    values
        Cells x genes, on a log-like scale.
    genes
        Ensembl ids of the columns.
    """
    place = {gene: i for i, gene in enumerate(genes)}
    rows = [gene for gene in regulon.index if gene in place and values[:, place[gene]].std() > 0]
    columns = [gene for gene in regulon.columns if gene in place and values[:, place[gene]].std() > 0]
    scaled = (values - values.mean(axis=0)) / np.maximum(values.std(axis=0), 1e-12)
    r = scaled[:, [place[g] for g in rows]].T @ scaled[:, [place[g] for g in columns]] / len(values)
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
    """BAAM of one gene set, with its interval and both nulls.

    Parameters
    ----------
    scores
        Attention, samples x genes; NaN where a sentence does not show a gene (`sentence_attention.read`).
    places
        Relative place of each gene, as `scores`.
    members
        True for genes of the set.
    name
        Of the set, for errors.
    units
        Donors of the samples; None: each is its own.
    n_bootstrap
        Draws of the interval; 0 for none.

    Returns
    -------
    ``baam``; ``low`` and ``high``, 95%, over genes of the set and donors drawn anew, the genes outside as they are; missing for one gene;
    ``random`` and ``matched``, the means over random sets and over sets with as many genes in each of `BINS` bins of mean place;
    ``p random`` and ``p matched``, one-sided, (b + 1) / (m + 1); ``genes`` of the set, and ``others``.

    Raises
    ------
    DataError
        If no gene of the set, or none outside it, is among the genes.
    """
    kept = np.isfinite(scores).any(axis=0)
    inside = np.asarray(members, bool)[kept]
    if not inside.any():
        raise DataError(
            f"{name}: has no member among the {kept.sum():,} genes of the sentences; give a set of these genes, or choose more genes"
        )
    if inside.all():
        raise DataError(
            f"{name}: all {kept.sum():,} genes of the sentences are members; nothing is left to compare with"
        )
    ranks = rankdata(scores[:, kept], axis=1, nan_policy="omit")
    shown = np.isfinite(scores[:, kept])
    ranks = np.where(shown, ranks, 0.0)
    place = np.nanmean(places[:, kept], axis=0)
    rng = np.random.default_rng(seed)
    sets = {"random": _drawn(inside, np.zeros(len(inside), int), n_permutations, rng)}
    sets["matched"] = _drawn(inside, _bins(place), n_permutations, rng)
    observed = float(_values(inside[None], ranks, shown)[0])
    codes = np.arange(len(shown)) if units is None else np.unique(units, return_inverse=True)[1]
    low, high = _interval(inside, ranks, shown, codes, n_bootstrap, rng)
    found = {"baam": observed, "low": low, "high": high}
    nulls = {kind: _values(drawn, ranks, shown) for kind, drawn in sets.items()}
    found |= {kind: float(null.mean()) for kind, null in nulls.items()}
    for kind, null in nulls.items():
        found[f"p {kind}"] = float(((null >= observed - 1e-12).sum() + 1) / (n_permutations + 1))
    return found | {"genes": int(inside.sum()), "others": int((~inside).sum())}


def _bins(place: np.ndarray) -> np.ndarray:
    return (rankdata(place, method="ordinal").astype(int) - 1) * BINS // len(place)


def _drawn(inside: np.ndarray, bins: np.ndarray, n: int, rng: np.random.Generator) -> np.ndarray:
    """Sets x genes, with as many members in each bin as the set has."""
    order = np.argsort(rng.random((n, len(inside))) + bins, axis=1)
    found = np.zeros(order.shape, bool)
    np.put_along_axis(found, order, np.broadcast_to(inside[np.argsort(bins, kind="stable")], order.shape), axis=1)
    return found


def _values(sets: np.ndarray, ranks: np.ndarray, shown: np.ndarray) -> np.ndarray:
    """BAAM of many sets: the mean, over sentences that show genes on both sides, of the rank sum's AUROC."""
    weights = sets.astype(float)
    k, n = weights @ shown.T.astype(float), shown.sum(axis=1)
    pairs = k * (n - k)
    with np.errstate(invalid="ignore"):
        return np.nanmean(np.where(pairs > 0, (weights @ ranks.T - k * (k + 1) / 2) / pairs, np.nan), axis=1)


def _interval(
    inside: np.ndarray, ranks: np.ndarray, shown: np.ndarray, units: np.ndarray, n: int, rng: np.random.Generator
) -> tuple[float, float]:
    """Each gene of the set has a share of the genes outside that it stands above; genes, and units of sentences, are drawn anew."""
    # Of one gene nothing can be said about others of its kind.
    if not n or inside.sum() < 2:
        return np.nan, np.nan
    above = _above(inside, ranks, shown)
    known = np.isfinite(above)
    genes = rng.multinomial(above.shape[1], np.full(above.shape[1], 1 / above.shape[1]), size=n).T
    n_units = units.max() + 1
    weights = rng.multinomial(n_units, np.full(n_units, 1 / n_units), size=n).T[units]
    with np.errstate(invalid="ignore"):
        # A sentence counts as one, however many genes of the set it shows; where it shows none of those drawn, not at all.
        of_sentence = (np.where(known, above, 0.0) @ genes) / (known.astype(float) @ genes)
        weights = np.where(np.isfinite(of_sentence), weights, 0)
        drawn = np.nansum(weights * of_sentence, axis=0) / weights.sum(axis=0)
    low, high = np.nanquantile(drawn, [0.025, 0.975])
    return float(low), float(high)


def _above(inside: np.ndarray, ranks: np.ndarray, shown: np.ndarray) -> np.ndarray:
    """Share of the genes outside a set that each of its genes stands above, sentences x genes of the set; NaN where one is not shown."""
    scores = np.where(shown, ranks, np.nan)
    genes, others = scores[:, inside], scores[:, ~inside]
    outside = np.sort(np.where(np.isnan(others), np.inf, others), axis=1)
    m = shown[:, ~inside].sum(axis=1)
    above = np.full(genes.shape, np.nan)
    for row in np.flatnonzero(m):
        left, right = (np.searchsorted(outside[row, : m[row]], genes[row], side=side) for side in ("left", "right"))
        above[row] = np.where(np.isfinite(genes[row]), (left + right) / 2 / m[row], np.nan)
    return above


def baam_of_sets(
    scores: np.ndarray, places: np.ndarray, genes: list[str], sets: dict[str, list[str]], **options
) -> pd.DataFrame:
    """`baam` of several sets: a row a set that has members, ``set`` first, and ``padj``, Benjamini-Hochberg over the matched nulls."""
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
    """`baam` head by head, without intervals: a row a head, ``layer`` and ``head`` (from 1) first; ``padj`` over all heads, matched.

    Parameters
    ----------
    paid
        Layers x heads x samples x genes.
    """
    rows = []
    for layer, head in np.ndindex(paid.shape[:2]):
        options = {"name": name, "n_permutations": n_permutations, "n_bootstrap": 0, "seed": seed}
        found = baam(paid[layer, head], places, members, **options)
        rows.append({"layer": layer + 1, "head": head + 1, **found})
    table = pd.DataFrame(rows).drop(columns=["low", "high"])
    table["padj"] = false_discovery_control(table["p matched"])
    return table
