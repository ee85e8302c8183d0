"""Normalisation of bulk counts: size factors, log2, VST, TPM, and gene variances. Tables are samples x genes."""

import anndata
import numpy as np
import pandas as pd

from epigen_utils.deseq import size_factors as deseq_size_factors
from epigen_utils.deseq import transformation
from epigen_utils.errors import DataError
from epigen_utils.expression import designs


def count_table(adata: anndata.AnnData) -> pd.DataFrame:
    """The counts as a dense table, samples x genes."""
    values = adata.layers["counts"]
    values = values.toarray() if hasattr(values, "toarray") else values
    return pd.DataFrame(values, index=adata.obs_names, columns=adata.var_names)


def sum_by_donor(adata: anndata.AnnData, contrast: str = "") -> anndata.AnnData:
    """Sum the counts of each donor's samples if every donor is in one group; otherwise return the data set unchanged.

    Samples of one animal are not independent: tested as if they were, they turn differences between animals into
    differences between groups. A donor in several groups is a block instead (`designs.design_and_contrasts`).

    Returns
    -------
    Donors x genes, named by donor; ``obs`` has the columns that are constant within every donor.
    """
    about = adata.uns["epigen"]
    variable = designs.parse_contrast(contrast)[0] if contrast else ""
    if not designs.donors_are_nested(adata, variable) or not adata.obs[about["donor"]].duplicated().any():
        return adata
    donor = adata.obs[about["donor"]]
    codes, donors = pd.factorize(donor)
    sums = np.zeros((len(donors), adata.n_vars), np.int64)
    np.add.at(sums, codes, count_table(adata).to_numpy())
    first = adata.obs.groupby(codes, sort=False)
    same = [column for column in adata.obs if (first[column].nunique(dropna=False) == 1).all()]
    obs = adata.obs.loc[~donor.duplicated(), same].set_axis(donors.astype(str))
    summed = anndata.AnnData(obs=obs, var=adata.var.copy(), layers={"counts": sums}, uns=adata.uns.copy())
    summed.uns["samples_of_donors"] = adata.n_obs
    return summed


def size_factors(adata: anndata.AnnData, kind: str = "") -> pd.Series:
    """Median-of-ratios size factors, one a sample.

    Parameters
    ----------
    kind
        ``ratio``, or ``poscounts`` for data in which no gene is detected in every sample
        (`deseq.size_factors.log_geometric_means`, which documents errors); by default what the data set was loaded
        with, else ``ratio``.

    Raises
    ------
    DataError
        Naming a sample without counts; or if no gene gives a ratio.

    Examples
    --------
    >>> import anndata
    >>> import numpy as np
    >>> from epigen_utils.expression import normalisation
    >>> counts = np.array([[10, 20, 40], [20, 40, 80], [40, 80, 160]])
    >>> normalisation.size_factors(anndata.AnnData(layers={"counts": counts})).round(3).to_dict()
    {'0': 0.5, '1': 1.0, '2': 2.0}
    """
    kind = kind or adata.uns.get("epigen", {}).get("size_factors", "ratio")
    counts = count_table(adata).to_numpy()
    if not counts.any(axis=1).all():
        raise DataError(f"size factors: sample {adata.obs_names[~counts.any(axis=1)][0]!r} has no counts; drop it")
    factors = deseq_size_factors.estimate(counts, kind)
    return pd.Series(factors, index=adata.obs_names, name="size_factor")


def log2_normalised(adata: anndata.AnnData) -> pd.DataFrame:
    """log2(count / size factor + 1), samples x genes."""
    return np.log2(count_table(adata).div(size_factors(adata), axis=0) + 1)


def log_scale_expression(adata: anndata.AnnData) -> pd.DataFrame:
    """Log-scale expression: the blind `vst` of counts, or log2 of array intensities plus one; samples x genes."""
    if adata.uns["epigen"]["measure"] == "counts":
        return vst(adata[:, count_table(adata).sum().to_numpy() > 0].copy())
    values = np.asarray(adata.layers["intensity"], dtype=float)
    return pd.DataFrame(np.log2(values + 1), adata.obs_names, adata.var_names)


def raw_and_log_matrices(adata: anndata.AnnData) -> dict[str, pd.DataFrame]:
    """Raw counts, log2 of counts plus one, and `log2_normalised`; samples x genes, by name."""
    table = count_table(adata)
    return {"raw counts": table, "log2 counts": np.log2(table + 1), "log2, size factors": log2_normalised(adata)}


def vst(adata: anndata.AnnData, *, design: str = "", n_genes: int | None = None) -> pd.DataFrame:
    """Variance stabilising transformation of DESeq2, on the log2 scale for large counts; samples x genes.

    Parameters
    ----------
    design
        Formula for the estimation of dispersions; empty for a blind transformation (``blind=TRUE`` in R).
    n_genes
        Genes that the dispersion trend is fitted on: None for all, as in R's ``varianceStabilizingTransformation``;
        R's ``vst`` takes 1000.

    Raises
    ------
    DataError
        If no gene is detected in every sample, or the design cannot be fitted (`designs.check_design`).

    Examples
    --------
    >>> from epigen_utils.data import datasets
    >>> from epigen_utils.expression import normalisation
    >>> table = normalisation.vst(datasets.load("table-two"))
    >>> table.iloc[:3, :2].round(2)
    gene  LL0000013464  LL0000009394
    WT1          18.14         18.05
    WT2          17.96         18.05
    WT3          17.92         18.09
    """
    if design:
        designs.check_design(adata, design)
    matrix = designs.design_matrix(adata, design or "~1").to_numpy(dtype=float)
    factors = size_factors(adata).to_numpy()
    values = transformation.vst(count_table(adata).to_numpy(), matrix, factors=factors, n_genes=n_genes)
    return pd.DataFrame(values, adata.obs_names, adata.var_names)


def normalised_matrices(
    adata: anndata.AnnData, *, design: str, lengths: pd.Series | None = None
) -> dict[str, pd.DataFrame]:
    """The same samples under each normalisation in use, TPM included if lengths are given; samples x genes, by name.

    Parameters
    ----------
    design
        Formula of the VST that is not blind.
    lengths
        Gene id -> length in bases.
    """
    tables = {**raw_and_log_matrices(adata), "VST, blind": vst(adata), "VST, design": vst(adata, design=design)}
    if lengths is not None and len(lengths):
        tables["log2 TPM"] = np.log2(tpm(adata, lengths) + 1)
    return tables


#: What columns of `compare_normalisations` mean, for readers.
COMPARISON_COLUMNS = {
    "Spearman": "correlation of a gene's standard deviation with its mean; 0 where the variance is stabilised",
    "largest share": "share of the summed variance that one gene holds",
}


def compare_normalisations(tables: dict[str, pd.DataFrame], *, n_top: int) -> pd.DataFrame:
    """Effect of each normalisation on the gene variances, which determine heat maps and PCA.

    Returns
    -------
    A row a matrix: ``matrix``, ``Spearman`` (of standard deviation with mean, over genes that vary; 0 if the variance
    is stabilised), ``largest share`` (of the summed variance in one gene), ``top shared`` (number of genes among the
    ``n_top`` most variable ones of both this and the first matrix).
    """
    first = top_variable_genes(next(iter(tables.values())), n_top)
    rows = []
    for name, table in tables.items():
        spread, mean = table.std(), table.mean()
        varies = spread > 0
        row = {"matrix": name, "Spearman": spread[varies].corr(mean[varies], method="spearman")}
        row["largest share"] = (spread**2).max() / (spread**2).sum()
        rows.append(row | {"top shared": len(first.intersection(top_variable_genes(table, n_top)))})
    return pd.DataFrame(rows)


def tpm(adata: anndata.AnnData, lengths: pd.Series) -> pd.DataFrame:
    """Transcripts per million: counts over gene length, scaled to a sum of one million in each sample.

    Parameters
    ----------
    lengths
        Gene id -> length in bases; genes without a length are left out.

    Raises
    ------
    ValueError
        If no gene of the data set has a length.

    Examples
    --------
    >>> import anndata
    >>> import numpy as np
    >>> import pandas as pd
    >>> from epigen_utils.expression import normalisation
    >>> adata = anndata.AnnData(var={"var_names": ["g1", "g2"]}, layers={"counts": np.array([[10, 10], [0, 5]])})
    >>> normalisation.tpm(adata, pd.Series({"g1": 1000, "g2": 4000}))
             g1         g2
    0  800000.0   200000.0
    1       0.0  1000000.0
    """
    bases = lengths.reindex(adata.var_names).dropna()
    if bases.empty:
        raise ValueError(f"none of the {adata.n_vars} genes has a length; check that both use the same ids")
    rate = count_table(adata)[bases.index].div(bases, axis=1)
    return rate.div(rate.sum(axis=1), axis=0) * 1e6


def rank_genes(adata: anndata.AnnData) -> pd.DataFrame:
    """Mean and variance of every gene's raw counts over samples, and its ranks by both.

    Returns
    -------
    A row a gene, in the order of the data set: ``symbol`` (if symbols are not the ids), ``mean`` (counts), ``variance``
    (counts squared, n - 1), ``share_of_variance``, ``rank_by_mean``, ``rank_by_variance`` (1 is largest, ties share the
    mean rank).
    """
    table = count_table(adata)
    ranked = pd.DataFrame({"mean": table.mean(), "variance": table.var()})
    if (adata.var["symbol"] != adata.var_names).any():
        ranked.insert(0, "symbol", adata.var["symbol"])
    ranked["share_of_variance"] = ranked["variance"] / ranked["variance"].sum()
    for key in ("mean", "variance"):
        ranked[f"rank_by_{key}"] = ranked[key].rank(ascending=False)
    return ranked


def gene_zscores(table: pd.DataFrame) -> pd.DataFrame:
    """z-scores of each gene over samples; genes that do not vary are left out."""
    table = table.loc[:, table.std() > 0]
    return (table - table.mean()) / table.std()


def top_variable_genes(table: pd.DataFrame, n: int) -> pd.Index:
    """Names of the ``n`` genes with the largest variance over samples, largest first; ties in the table's order.

    Examples
    --------
    >>> import pandas as pd
    >>> from epigen_utils.expression import normalisation
    >>> table = pd.DataFrame({"g1": [1.0, 1.0, 1.0], "g2": [0.0, 5.0, 9.0], "g3": [2.0, 3.0, 4.0]})
    >>> normalisation.top_variable_genes(table, 2).tolist()
    ['g2', 'g3']
    """
    return table.var().sort_values(ascending=False, kind="stable").index[:n]


def variance_ranks(tables: dict[str, pd.DataFrame], genes: list[str]) -> pd.DataFrame:
    """Ranks of genes by their variance over samples in several matrices; 1 is the most variable, ties share a rank."""
    return pd.DataFrame({name: table.var().rank(ascending=False)[genes] for name, table in tables.items()})


def gene_set_scores(table: pd.DataFrame, sets: dict[str, list[str]]) -> pd.DataFrame:
    """Mean z-score of each set's genes in every sample.

    Parameters
    ----------
    table
        Samples x genes, on a log-like scale.
    sets
        Name -> gene ids; genes that are missing or do not vary are ignored.

    Returns
    -------
    Samples x sets; NaN for a set without a gene that varies. With sets ``Glutamatergic`` and ``GABAergic``, ``E/I
    index`` is the first minus the second.
    """
    z = gene_zscores(table)
    scores = {name: z[[gene for gene in ids if gene in z]].mean(axis=1) for name, ids in sets.items()}
    if {"Glutamatergic", "GABAergic"} <= set(scores):
        scores["E/I index"] = scores["Glutamatergic"] - scores["GABAergic"]
    return pd.DataFrame(scores, index=table.index)
