"""From counts to comparable values: size factors, log2, variance. Shapes are samples x genes throughout."""

import anndata
import numpy as np
import pandas as pd
from pydeseq2.preprocessing import deseq2_norm_fit, deseq2_norm_transform


def counts(adata: anndata.AnnData) -> pd.DataFrame:
    """The counts as a dense table, samples x genes."""
    values = adata.layers["counts"]
    values = values.toarray() if hasattr(values, "toarray") else values
    return pd.DataFrame(values, index=adata.obs_names, columns=adata.var_names)


def size_factors(adata: anndata.AnnData) -> pd.Series:
    """Median-of-ratios size factors, one a sample (Love et al. 2014; computed by PyDESeq2).

    Raises
    ------
    ValueError
        If no gene is detected in every sample, so that no ratio is defined.
    """
    table = counts(adata).to_numpy()
    if not (table > 0).all(axis=0).any():
        raise ValueError("no gene is detected in every sample: median-of-ratios size factors are not defined")
    log_means, kept = deseq2_norm_fit(table)
    _, factors = deseq2_norm_transform(table, log_means, kept)
    return pd.Series(factors, index=adata.obs_names, name="size_factor")


def log2_normalised(adata: anndata.AnnData) -> pd.DataFrame:
    """log2(count / size factor + 1), samples x genes."""
    return np.log2(counts(adata).div(size_factors(adata), axis=0) + 1)


def matrices(adata: anndata.AnnData) -> dict[str, pd.DataFrame]:
    """The same samples as raw counts, their log2, and log2 after size factors; samples x genes, by name."""
    table = counts(adata)
    return {"raw counts": table, "log2 counts": np.log2(table + 1), "log2, size factors": log2_normalised(adata)}


def rank_genes(adata: anndata.AnnData) -> pd.DataFrame:
    """Every gene with its mean, variance and share of the summed variance, over samples, of raw counts; and its ranks.

    Returns
    -------
    A row a gene: ``symbol`` (where symbols are not the ids), ``mean`` (counts), ``variance`` (counts squared, n - 1), ``share_of_variance``,
    ``rank_by_mean``, ``rank_by_variance`` (1 = largest), in the order of the data set.
    """
    table = counts(adata)
    ranked = pd.DataFrame({"mean": table.mean(), "variance": table.var()})
    if (adata.var["symbol"] != adata.var_names).any():
        ranked.insert(0, "symbol", adata.var["symbol"])
    ranked["share_of_variance"] = ranked["variance"] / ranked["variance"].sum()
    for key in ("mean", "variance"):
        ranked[f"rank_by_{key}"] = ranked[key].rank(ascending=False, method="first").astype(int)
    return ranked


def top_variable_genes(table: pd.DataFrame, n: int) -> pd.Index:
    """Names of the ``n`` genes with the largest variance over samples, largest first; ties by the table's order."""
    return table.var().sort_values(ascending=False, kind="stable").index[:n]


def quality(adata: anndata.AnnData) -> pd.DataFrame:
    """Sequencing depth (counts a sample) and detection (genes with a count) of every sample."""
    table = counts(adata)
    return pd.DataFrame({"depth": table.sum(axis=1), "detected": (table > 0).sum(axis=1)})
