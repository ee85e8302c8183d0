"""Properties of rank value encoding: genes ranked first, stability at lower depth, loss of magnitude."""

import anndata
import numpy as np
import pandas as pd
from scipy import sparse
from scipy.stats import spearmanr

from epigen_utils.data import cell_source
from epigen_utils.geneformer.encoded_cells import EncodedCells, token_ids
from epigen_utils.geneformer.encoding import TARGET_SUM, RankValueEncoder
from epigen_utils.geneformer.vocabularies import vocabulary_from_medians
from epigen_utils.stats import intervals, two_classes

#: Definitions of columns of the tables here, for a page.
GENE_COLUMNS = {
    "rank": "from 0",
    "count": "count of the gene in the cell",
    "median": "median of the gene's non-zero values, counts per 10,000",
    "value": "Eq. 1",
}
MEAN_COLUMNS = {
    "mean": "mean AUC over cells; chance is 0.5",
    "cells": "cells with genes inside and outside the class",
    "units": "number of donors, or of cells where donors are unknown",
}
MAGNITUDE_COLUMNS = {
    "pairs": "cell-gene pairs",
    "off": "root mean square error of log2 expression predicted from the rank",
    "within": "squared correlation of expression and rank within a gene, across cells, on the log scale",
}


def unit_median_encoder(encoder: RankValueEncoder) -> RankValueEncoder:
    """Return the encoder with all medians set to one, a baseline that ranks genes by expression alone."""
    flat = vocabulary_from_medians(
        dict.fromkeys(encoder.vocabulary.genes, 1.0), name="by counts", special=encoder.special
    )
    return RankValueEncoder.of(flat, max_length=encoder.max_length, least_coverage=encoder.least_coverage)


def first_genes(adata: anndata.AnnData, encoder: RankValueEncoder, cell: int, *, n: int) -> pd.DataFrame:
    """First genes of a cell and the values they are ranked by.

    Returns
    -------
    One row a gene: ``rank``, ``gene``, ``symbol``, ``count``, ``median``, ``value``.
    """
    single = adata[[cell]].copy()
    source = cell_source.InMemoryCells(single)
    column = {gene: position for position, gene in enumerate(source.ensembl_ids)}
    (part,) = source.parts(1)
    counts, depth = part.counts().toarray().ravel(), part.depth(part.counts())[0]
    rows = []
    for rank, gene in enumerate(encoder.decode(encoder.encode(single)["input_ids"][0])[:n]):
        count, median = counts[column[gene]], encoder.vocabulary.medians[gene]
        row = {"rank": rank, "gene": gene, "symbol": single.var["symbol"].iloc[column[gene]], "count": int(count)}
        rows.append(row | {"median": median, "value": count / depth * TARGET_SUM / median})
    return pd.DataFrame(rows)


def class_ranks(encoded: EncodedCells, encoder: RankValueEncoder, classes: dict[str, set[str]]) -> pd.DataFrame:
    """Relative rank of each class of genes within each cell.

    Parameters
    ----------
    classes
        Name -> Ensembl ids.

    Returns
    -------
    One row a cell and class, if the cell has genes in and outside the class:

    - ``cell`` (position), ``class``, ``genes`` (of the class, in the cell);
    - ``place``: mean relative rank, 0 the first, 1 the last;
    - ``auc``: probability that a gene of the class ranks before one outside it; 0.5 by chance.
    """
    vocabulary, tokens = encoder.vocabulary, encoder.vocabulary.tokens
    inside = {name: np.zeros(vocabulary.size, bool) for name in classes}
    for name, members in classes.items():
        inside[name][[tokens[gene] for gene in members if gene in tokens]] = True
    genes = np.zeros(vocabulary.size, bool)
    genes[vocabulary.gene_tokens] = True
    rows = []
    for cell, ids in enumerate(token_ids(encoded)):
        ids = ids[genes[ids]]
        rank = np.arange(len(ids))
        for name, member in inside.items():
            of_class = member[ids]
            n = int(of_class.sum())
            if 0 < n < len(ids):
                auc = two_classes.roc_auc(-rank, of_class)
                relative_rank = rank[of_class].mean() / max(len(ids) - 1, 1)
                rows.append({"cell": cell, "class": name, "genes": n, "place": relative_rank, "auc": auc})
    return pd.DataFrame(rows, columns=["cell", "class", "genes", "place", "auc"])


def means_by_class(
    ranks: pd.DataFrame,
    units: np.ndarray,
    *,
    value: str = "auc",
    by: str = "class",
    n_bootstrap: int = 1000,
    seed: int = 0,
) -> pd.DataFrame:
    """Mean over cells with a 95% interval from a bootstrap over units (donors, or cells).

    The interval is NaN with fewer than `intervals.LEAST_UNITS` units.

    Parameters
    ----------
    ranks
        Table with columns ``cell``, ``by`` and ``value``.
    units
        Unit of each cell, by position.

    Returns
    -------
    One row a level of ``by``: the level, ``mean``, ``low``, ``high``, ``cells`` and ``units``.
    """
    rng = np.random.default_rng(seed)
    rows = []
    for level, table in ranks.groupby(by, sort=False):
        of_units = np.asarray(units)[table["cell"]]
        mean, low, high, n = intervals.bootstrap_mean(table[value], of_units, n_bootstrap=n_bootstrap, rng=rng)
        if n < intervals.LEAST_UNITS:
            low = high = np.nan
        rows.append({by: level, "mean": mean, "low": low, "high": high, "cells": len(table), "units": n})
    return pd.DataFrame(rows, columns=[by, "mean", "low", "high", "cells", "units"])


def rank_changes(by_rank: pd.DataFrame, by_counts: pd.DataFrame, units: np.ndarray, *, seed: int = 0) -> pd.DataFrame:
    """Change of each class's AUC from one encoding to another, cell by cell, in the format of `means_by_class`.

    Parameters
    ----------
    by_rank, by_counts
        Output of `class_ranks` for the same cells; the change is the first minus the second.
    """
    both = by_rank.merge(by_counts, on=["cell", "class"], suffixes=("", " by counts"))
    return means_by_class(both.assign(auc=both["auc"] - both["auc by counts"]), units, seed=seed)


def thinning_stability(
    adata: anndata.AnnData, encoder: RankValueEncoder, *, shares: tuple[float, ...], n_top: int = 100, seed: int = 0
) -> pd.DataFrame:
    """Stability of the encoding when counts are thinned, as if the cells had been sequenced less deeply.

    Parameters
    ----------
    shares
        Shares of the counts that remain, by binomial thinning.
    n_top
        Number of first genes to compare.

    Returns
    -------
    One row a cell and share:

    - ``cell``, ``share``;
    - ``kept``: share of the cell's genes still detected;
    - ``top``: share of its first ``n_top`` genes still among the first;
    - ``spearman``: correlation of the ranks of genes in both encodings.
    """
    rng = np.random.default_rng(seed)
    counts = sparse.csr_matrix(adata.layers["counts"])
    full_ids = token_ids(encoder.encode(adata))
    rows = []
    for share in shares:
        thinned = counts.copy()
        thinned.data = rng.binomial(thinned.data.astype(np.int64), share)
        thinned.eliminate_zeros()
        nonempty = np.flatnonzero(np.asarray(thinned.sum(axis=1)).ravel() > 0)
        thinned_cells = anndata.AnnData(
            var=adata.var, obs=adata.obs[[]].iloc[nonempty], layers={"counts": thinned[nonempty]}, uns=adata.uns
        )
        for cell, after in zip(nonempty, token_ids(encoder.encode(thinned_cells)), strict=True):
            before = full_ids[cell]
            both, i, j = np.intersect1d(before, after, return_indices=True)
            n = min(n_top, len(before))
            top = len(np.intersect1d(before[:n], after[:n])) / n
            row = {"cell": int(cell), "share": share, "kept": len(both) / len(before), "top": top}
            rows.append(row | {"spearman": spearmanr(i, j).statistic if len(both) > 2 else np.nan})
    return pd.DataFrame(rows)


def expression_from_ranks(
    adata: anndata.AnnData, encoder: RankValueEncoder, classes: dict[str, set[str]]
) -> pd.DataFrame:
    """How well ranks predict expression: regression of log expression on log rank over all cells, residuals by class.

    Expression is counts over depth, times 10,000. The line is fitted twice: on the rank alone, and with each gene's
    mean subtracted on both sides, which measures how much of a gene's variation between cells its rank retains.

    Returns
    -------
    One row a class, and one for all genes:

    - ``class``, ``pairs`` (number of cell-gene pairs);
    - ``off``: root mean square residual in log2 units;
    - ``within``: squared correlation of a gene's log expression with its log rank between cells.
    """
    encoded = encoder.encode(adata)
    names = encoder.vocabulary.genes
    index_of = {encoder.vocabulary.tokens[gene]: i for i, gene in enumerate(names)}
    source = cell_source.InMemoryCells(adata)
    column = {gene: i for i, gene in enumerate(source.ensembl_ids)}
    (part,) = source.parts(source.n_obs)
    counts = part.counts()
    depth = part.depth(counts)
    rows = []
    for cell, tokens in enumerate(encoded["input_ids"]):
        gene = np.array([index_of[token] for token in tokens if token in index_of])
        value = counts[cell].toarray().ravel()[[column[names[i]] for i in gene]] / depth[cell] * TARGET_SUM
        rows.append(pd.DataFrame({"gene": gene, "rank": np.log2(np.arange(len(gene)) + 1), "value": np.log2(value)}))
    pairs = pd.concat(rows, ignore_index=True)
    slope, intercept = np.polyfit(pairs["rank"], pairs["value"], 1)
    pairs["residual"] = pairs["value"] - (intercept + slope * pairs["rank"])
    centred = pairs[["rank", "value"]] - pairs.groupby("gene")[["rank", "value"]].transform("mean")
    pairs[["rank", "value"]] = centred
    by_class = []
    for name, members in {"all genes": set(names), **classes}.items():
        in_class = pairs[np.isin(pairs["gene"], [i for i, gene in enumerate(names) if gene in members])]
        if len(in_class):
            rms = float(np.sqrt(np.square(in_class["residual"]).mean()))
            r2 = float(np.square(in_class["rank"].corr(in_class["value"])))
            by_class.append({"class": name, "pairs": len(in_class), "off": rms, "within": r2})
    return pd.DataFrame(by_class)


def reference_gene_classes(genes: pd.DataFrame, factors: list[str]) -> dict[str, set[str]]:
    """Classes of genes that paper B discusses, as Ensembl ids.

    Parameters
    ----------
    genes
        ``symbol`` by Ensembl id; a simulated corpus also has columns ``regulator`` and ``housekeeping``.
    factors
        Symbols of transcription factors; may be empty.

    Returns
    -------
    ``housekeeping`` (planted genes, else ribosomal proteins by their symbols, RPL and RPS, which every cell expresses)
    and ``transcription factors`` (planted regulators, else those listed); empty classes are omitted.
    """
    if "housekeeping" in genes:
        classes = {"housekeeping": genes["housekeeping"], "transcription factors": genes["regulator"]}
    else:
        ribosomal = genes["symbol"].fillna("").str.fullmatch(r"RP[LS]\d+[AXYL]?\d*")
        classes = {"housekeeping": ribosomal, "transcription factors": genes["symbol"].isin(factors)}
    return {name: set(genes.index[member]) for name, member in classes.items() if member.any()}
