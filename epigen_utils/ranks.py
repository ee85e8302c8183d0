"""What rank value encoding brings to the front, what it keeps when a cell is read less deeply, and what it loses."""

import anndata
import numpy as np
import pandas as pd
from scipy import sparse
from scipy.stats import spearmanr

from epigen_utils import cells, evaluation
from epigen_utils.encoding import TARGET_SUM, RankValueEncoder
from epigen_utils.vocabularies import of_medians


def plain(encoder: RankValueEncoder) -> RankValueEncoder:
    """The same encoder with all medians one: ranks by expression alone, which the medians are meant to mend."""
    flat = of_medians(dict.fromkeys(encoder.vocabulary.genes, 1.0), name="by counts", special=encoder.special)
    return RankValueEncoder.of(flat, max_length=encoder.max_length, least_coverage=encoder.least_coverage)


def first_genes(adata: anndata.AnnData, encoder: RankValueEncoder, cell: int, *, n: int) -> pd.DataFrame:
    """The first genes of a cell, with what they are ranked by: ``rank``, ``gene``, ``symbol``, ``count``, ``median``, ``value``."""
    one = adata[[cell]].copy()
    source = cells.InMemory(one)
    column = {gene: place for place, gene in enumerate(source.ensembl_ids)}
    (part,) = source.parts(1)
    counts, depth = part.counts().toarray().ravel(), part.depth(part.counts())[0]
    rows = []
    for rank, gene in enumerate(encoder.decode(encoder.encode(one)["input_ids"][0])[:n]):
        count, median = counts[column[gene]], encoder.vocabulary.medians[gene]
        row = {"rank": rank, "gene": gene, "symbol": one.var["symbol"].iloc[column[gene]], "count": int(count)}
        rows.append(row | {"median": median, "value": count / depth * TARGET_SUM / median})
    return pd.DataFrame(rows)


def places(encoded: object, encoder: RankValueEncoder, classes: dict[str, set[str]]) -> pd.DataFrame:
    """How far to the front of its cell each class of genes stands.

    Parameters
    ----------
    encoded
        Cells, something whose ``["input_ids"]`` are token ids.
    classes
        Name -> Ensembl ids.

    Returns
    -------
    A row a cell and class with a gene on both sides: ``cell`` (position), ``class``, ``genes``, ``place`` (mean relative rank, 0
    the first, 1 the last) and ``auc`` (probability that a gene of the class stands before one that is not; 0.5 by chance).
    """
    vocabulary, tokens = encoder.vocabulary, encoder.vocabulary.tokens
    inside = {name: np.zeros(vocabulary.size, bool) for name in classes}
    for name, members in classes.items():
        inside[name][[tokens[gene] for gene in members if gene in tokens]] = True
    genes = np.zeros(vocabulary.size, bool)
    genes[vocabulary.gene_tokens] = True
    rows = []
    for cell, ids in enumerate(encoded["input_ids"]):
        ids = np.asarray(ids)
        ids = ids[genes[ids]]
        rank = np.arange(len(ids))
        for name, member in inside.items():
            of_class = member[ids]
            n = int(of_class.sum())
            if 0 < n < len(ids):
                auc = evaluation.auc(-rank, of_class)
                place = rank[of_class].mean() / max(len(ids) - 1, 1)
                rows.append({"cell": cell, "class": name, "genes": n, "place": place, "auc": auc})
    return pd.DataFrame(rows, columns=["cell", "class", "genes", "place", "auc"])


def over_units(
    found: pd.DataFrame,
    units: np.ndarray,
    *,
    value: str = "auc",
    by: str = "class",
    n_bootstrap: int = 1000,
    seed: int = 0,
) -> pd.DataFrame:
    """Mean over cells with a 95% bootstrap interval in which whole units (donors, or cells) are drawn.

    Parameters
    ----------
    found
        With ``cell``, ``by`` and ``value``.
    units
        Who each cell is from, by position.

    Returns
    -------
    A row a level of ``by``: the level, ``mean``, ``low``, ``high``, ``cells`` and ``units``.
    """
    rng = np.random.default_rng(seed)
    rows = []
    for level, table in found.groupby(by, sort=False):
        of_units = np.asarray(units)[table["cell"]]
        mean, low, high, n = evaluation.mean_over_units(table[value], of_units, n_bootstrap=n_bootstrap, rng=rng)
        rows.append({by: level, "mean": mean, "low": low, "high": high, "cells": len(table), "units": n})
    return pd.DataFrame(rows)


def after_thinning(
    adata: anndata.AnnData, encoder: RankValueEncoder, *, shares: tuple[float, ...], n_top: int = 100, seed: int = 0
) -> pd.DataFrame:
    """Encode the same cells again with fewer of their counts, as if they had been sequenced less deeply.

    Parameters
    ----------
    shares
        Of the counts that are kept, by binomial draws.
    n_top
        Genes at the front that are compared.

    Returns
    -------
    A row a cell and share: ``cell``, ``share``, ``kept`` (share of its genes that are still detected), ``top`` (share of
    its first ``n_top`` that are still among the first) and ``spearman`` (of the ranks of genes in both).
    """
    rng = np.random.default_rng(seed)
    counts = sparse.csr_matrix(adata.layers["counts"])
    full = [np.asarray(ids) for ids in encoder.encode(adata)["input_ids"]]
    rows = []
    for share in shares:
        thin = counts.copy()
        thin.data = rng.binomial(thin.data.astype(np.int64), share)
        thin.eliminate_zeros()
        left = np.flatnonzero(np.asarray(thin.sum(axis=1)).ravel() > 0)
        some = anndata.AnnData(
            var=adata.var, obs=adata.obs[[]].iloc[left], layers={"counts": thin[left]}, uns=adata.uns
        )
        again = encoder.encode(some)["input_ids"]
        for cell, ids in zip(left, again, strict=True):
            before, after = full[cell], np.asarray(ids)
            both, i, j = np.intersect1d(before, after, return_indices=True)
            n = min(n_top, len(before))
            top = len(np.intersect1d(before[:n], after[:n])) / n
            row = {"cell": int(cell), "share": share, "kept": len(both) / len(before), "top": top}
            rows.append(row | {"spearman": spearmanr(i, j).statistic if len(both) > 2 else np.nan})
    return pd.DataFrame(rows)


def magnitude(adata: anndata.AnnData, encoder: RankValueEncoder, classes: dict[str, set[str]]) -> pd.DataFrame:
    """How well expression can be told from ranks: one line of log expression on log rank over all cells, residuals by class.

    Expression is counts over depth, times 10,000. The line is fitted twice: on the rank alone, and with the gene's own mean
    taken out on both sides, which says how much of a gene's change between cells its rank still tells.

    Returns
    -------
    A row a class, and one for all genes: ``class``, ``pairs`` (cell and gene), ``off`` (root mean square residual in log2
    units) and ``within`` (squared correlation of a gene's log expression with its log rank between cells).
    """
    encoded = encoder.encode(adata)
    names = encoder.vocabulary.genes
    place = {encoder.vocabulary.tokens[gene]: i for i, gene in enumerate(names)}
    source = cells.InMemory(adata)
    column = {gene: i for i, gene in enumerate(source.ensembl_ids)}
    (part,) = source.parts(source.n_obs)
    counts = part.counts()
    depth = part.depth(counts)
    rows = []
    for cell, tokens in enumerate(encoded["input_ids"]):
        gene = np.array([place[token] for token in tokens if token in place])
        value = counts[cell].toarray().ravel()[[column[names[i]] for i in gene]] / depth[cell] * TARGET_SUM
        rows.append(pd.DataFrame({"gene": gene, "rank": np.log2(np.arange(len(gene)) + 1), "value": np.log2(value)}))
    pairs = pd.concat(rows, ignore_index=True)
    slope, start = np.polyfit(pairs["rank"], pairs["value"], 1)
    pairs["residual"] = pairs["value"] - (start + slope * pairs["rank"])
    centred = pairs[["rank", "value"]] - pairs.groupby("gene")[["rank", "value"]].transform("mean")
    pairs[["rank", "value"]] = centred
    found = []
    for name, members in {"all genes": set(names), **classes}.items():
        some = pairs[np.isin(pairs["gene"], [i for i, gene in enumerate(names) if gene in members])]
        if len(some):
            off = float(np.sqrt(np.square(some["residual"]).mean()))
            within = float(np.square(some["rank"].corr(some["value"])))
            found.append({"class": name, "pairs": len(some), "off": off, "within": within})
    return pd.DataFrame(found)


def gene_classes(genes: pd.DataFrame, factors: list[str]) -> dict[str, set[str]]:
    """Classes of genes that paper B speaks of, as Ensembl ids.

    Parameters
    ----------
    genes
        ``symbol`` by Ensembl id; with columns ``regulator`` and ``housekeeping`` where they were planted, as in a simulated corpus.
    factors
        Symbols of transcription factors; may be empty.

    Returns
    -------
    ``housekeeping`` (planted, else ribosomal proteins by their symbols, RPL and RPS, which every cell makes) and ``transcription
    factors`` (planted regulators, else those listed); without what is not known.
    """
    if "housekeeping" in genes:
        found = {"housekeeping": genes["housekeeping"], "transcription factors": genes["regulator"]}
    else:
        ribosomal = genes["symbol"].fillna("").str.fullmatch(r"RP[LS]\d+[AXYL]?\d*")
        found = {"housekeeping": ribosomal, "transcription factors": genes["symbol"].isin(factors)}
    return {name: set(genes.index[member]) for name, member in found.items() if member.any()}
