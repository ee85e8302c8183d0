"""From counts to comparable values: size factors, log2, variance. Shapes are samples x genes throughout."""

import contextlib
import warnings

import anndata
import numpy as np
import pandas as pd
from pydeseq2.dds import DeseqDataSet
from pydeseq2.preprocessing import deseq2_norm_fit, deseq2_norm_transform

from epigen_utils import designs
from epigen_utils.errors import DataError


def counts(adata: anndata.AnnData) -> pd.DataFrame:
    """The counts as a dense table, samples x genes."""
    values = adata.layers["counts"]
    values = values.toarray() if hasattr(values, "toarray") else values
    return pd.DataFrame(values, index=adata.obs_names, columns=adata.var_names)


def by_donor(adata: anndata.AnnData) -> anndata.AnnData:
    """The counts of a donor's samples summed, where each donor is in one group; otherwise the data set as it is.

    Two samples of one animal are no two animals: tested as if they were, they make any difference between animals look
    like one between groups. Where a donor is in several groups it is a block instead (`designs.contrasts_of`).

    Returns
    -------
    Donors x genes, named by donor; of ``obs`` the columns that are the same in all samples of every donor.
    """
    about = adata.uns["epigen"]
    if not designs.donors_are_nested(adata) or not adata.obs[about["donor"]].duplicated().any():
        return adata
    donor = adata.obs[about["donor"]]
    codes, donors = pd.factorize(donor)
    sums = np.zeros((len(donors), adata.n_vars), np.int64)
    np.add.at(sums, codes, counts(adata).to_numpy())
    first = adata.obs.groupby(codes, sort=False)
    same = [column for column in adata.obs if (first[column].nunique(dropna=False) == 1).all()]
    obs = adata.obs.loc[~donor.duplicated(), same].set_axis(donors.astype(str))
    found = anndata.AnnData(obs=obs, var=adata.var.copy(), layers={"counts": sums}, uns=adata.uns.copy())
    found.uns["samples_of_donors"] = adata.n_obs
    return found


def size_factors(adata: anndata.AnnData) -> pd.Series:
    """Median-of-ratios size factors, one a sample (Love et al. 2014; computed by PyDESeq2).

    Raises
    ------
    DataError
        If no gene is detected in every sample, so that no ratio is defined.
    """
    table = counts(adata).to_numpy()
    if not (table > 0).all(axis=0).any():
        raise DataError(
            "size factors: no gene is detected in every sample, so that no ratio is defined; drop the shallowest samples"
        )
    log_means, kept = deseq2_norm_fit(table)
    _, factors = deseq2_norm_transform(table, log_means, kept)
    return pd.Series(factors, index=adata.obs_names, name="size_factor")


def log2_normalised(adata: anndata.AnnData) -> pd.DataFrame:
    """log2(count / size factor + 1), samples x genes."""
    return np.log2(counts(adata).div(size_factors(adata), axis=0) + 1)


def on_log_scale(adata: anndata.AnnData) -> pd.DataFrame:
    """Values for scores: the blind `vst` of counts, the log2 of array intensities (plus one); samples x genes."""
    if adata.uns["epigen"]["measure"] == "counts":
        return vst(adata[:, counts(adata).sum().to_numpy() > 0].copy())
    values = np.asarray(adata.layers["intensity"], dtype=float)
    return pd.DataFrame(np.log2(values + 1), adata.obs_names, adata.var_names)


def matrices(adata: anndata.AnnData) -> dict[str, pd.DataFrame]:
    """The same samples as raw counts, their log2, and log2 after size factors; samples x genes, by name."""
    table = counts(adata)
    return {"raw counts": table, "log2 counts": np.log2(table + 1), "log2, size factors": log2_normalised(adata)}


def log_proportions(adata: anndata.AnnData) -> np.ndarray:
    """Log of one plus counts at a depth of 10,000, cells x genes: the usual scale of single cells."""
    values = counts(adata).to_numpy(dtype=float)
    return np.log1p(values / np.maximum(values.sum(axis=1, keepdims=True), 1) * 1e4)


def vst(adata: anndata.AnnData, *, design: str = "") -> pd.DataFrame:
    """Variance stabilising transformation of DESeq2, on the log2 scale for large counts; samples x genes.

    Parameters
    ----------
    design
        Formula whose groups the dispersions are estimated within; empty is blind to the samples' groups (``blind=TRUE``
        in R). The trend is fitted on all genes, as R's ``varianceStabilizingTransformation`` does; R's ``vst`` fits it on
        1,000.

    Raises
    ------
    DataError
        As `size_factors`, and as `designs.check`.
    """
    size_factors(adata)
    if design:
        designs.check(adata, design)
    metadata = designs.covariates(adata.obs)
    dds = DeseqDataSet(counts=counts(adata), metadata=metadata, design=design or "~1", quiet=True)
    with quiet_pydeseq2():
        dds.fit_size_factors()
        if design:
            dds.fit_genewise_dispersions(vst=True)
        dds.vst_fit(use_design=bool(design))
        values = dds.vst_transform()
    return pd.DataFrame(values, adata.obs_names, adata.var_names)


def normalised(adata: anndata.AnnData, *, design: str, lengths: pd.Series | None = None) -> dict[str, pd.DataFrame]:
    """The same samples in every matrix that the papers or the field name; samples x genes, by name.

    Parameters
    ----------
    design
        Of the VST that is not blind (`vst`).
    lengths
        Gene id -> length in bases, for TPM; without them there is none.
    """
    found = {**matrices(adata), "VST, blind": vst(adata), "VST, design": vst(adata, design=design)}
    if lengths is not None and len(lengths):
        found["log2 TPM"] = np.log2(tpm(adata, lengths) + 1)
    return found


def compare(tables: dict[str, pd.DataFrame], *, n_top: int) -> pd.DataFrame:
    """What a normalisation does to the variances that heat maps and PCA go by.

    Returns
    -------
    A row a matrix: ``matrix``, ``Spearman`` (of a gene's standard deviation with its mean, over genes that vary; 0 where
    the variance is stable), ``largest share`` (of the summed variance, held by one gene), ``top shared`` (of the first
    matrix's ``n_top`` most variable genes, how many are among this one's).
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
        Gene id -> length in bases; genes without one are left out, since they have no rate.

    Raises
    ------
    ValueError
        If no gene of the data set has a length.
    """
    known = lengths.reindex(adata.var_names).dropna()
    if known.empty:
        raise ValueError(f"none of the {adata.n_vars} genes has a length; check that both use the same ids")
    rate = counts(adata)[known.index].div(known, axis=1)
    return rate.div(rate.sum(axis=1), axis=0) * 1e6


@contextlib.contextmanager
def quiet_pydeseq2():
    """Leave out what PyDESeq2 warns of and then handles itself, by falling back to another fit as R does."""
    with warnings.catch_warnings():
        for message in ("The dispersion trend curve fitting did not converge", "As the residual degrees of freedom"):
            warnings.filterwarnings("ignore", message=message)
        yield


def rank_genes(adata: anndata.AnnData) -> pd.DataFrame:
    """Every gene with its mean, variance and share of the summed variance, over samples, of raw counts; and its ranks.

    Returns
    -------
    A row a gene: ``symbol`` (where symbols are not the ids), ``mean`` (counts), ``variance`` (counts squared, n - 1), ``share_of_variance``,
    ``rank_by_mean``, ``rank_by_variance`` (1 = largest, ties share the mean of their places), in the order of the data set.
    """
    table = counts(adata)
    ranked = pd.DataFrame({"mean": table.mean(), "variance": table.var()})
    if (adata.var["symbol"] != adata.var_names).any():
        ranked.insert(0, "symbol", adata.var["symbol"])
    ranked["share_of_variance"] = ranked["variance"] / ranked["variance"].sum()
    for key in ("mean", "variance"):
        ranked[f"rank_by_{key}"] = ranked[key].rank(ascending=False)
    return ranked


def scaled(table: pd.DataFrame) -> pd.DataFrame:
    """Each gene centred and divided by its standard deviation over samples; genes that do not vary are left out."""
    table = table.loc[:, table.std() > 0]
    return (table - table.mean()) / table.std()


def top_variable_genes(table: pd.DataFrame, n: int) -> pd.Index:
    """Names of the ``n`` genes with the largest variance over samples, largest first; ties by the table's order."""
    return table.var().sort_values(ascending=False, kind="stable").index[:n]


def variance_ranks(tables: dict[str, pd.DataFrame], genes: list[str]) -> pd.DataFrame:
    """Place of genes by their variance over samples in several matrices; 1 is the most variable, ties share a place."""
    places = {name: table.var().rank(ascending=False)[genes] for name, table in tables.items()}
    return pd.DataFrame(places)


def set_scores(table: pd.DataFrame, sets: dict[str, list[str]]) -> pd.DataFrame:
    """Mean of the scaled expression of each set's genes in every sample (a z-score averaged over genes).

    Parameters
    ----------
    table
        Samples x genes, on a log-like scale.
    sets
        Name -> gene ids; genes that are not there or do not vary are passed over.

    Returns
    -------
    Samples x sets; NaN for a set without a gene that varies. Where there are sets ``Glutamatergic`` and ``GABAergic``,
    ``E/I index`` is the first less the second.
    """
    z = scaled(table)
    found = {name: z[[gene for gene in ids if gene in z]].mean(axis=1) for name, ids in sets.items()}
    if {"Glutamatergic", "GABAergic"} <= set(found):
        found["E/I index"] = found["Glutamatergic"] - found["GABAergic"]
    return pd.DataFrame(found, index=table.index)


def quality(adata: anndata.AnnData) -> pd.DataFrame:
    """Sequencing depth (counts a sample) and detection (genes with a count) of every sample."""
    table = counts(adata)
    return pd.DataFrame({"depth": table.sum(axis=1), "detected": (table > 0).sum(axis=1)})
