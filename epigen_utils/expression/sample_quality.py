"""Sample quality: expressed genes, distances, components associated with the sample table, outlying samples."""

import anndata
import numpy as np
import pandas as pd
from scipy.spatial.distance import pdist, squareform
from scipy.stats import false_discovery_control, median_abs_deviation
from statsmodels.regression.linear_model import OLS

from epigen_utils.data import orthologs
from epigen_utils.expression import formulas, normalisation
from epigen_utils.stats import projections


def depth_and_detection(adata: anndata.AnnData) -> pd.DataFrame:
    """Sequencing depth (counts a sample) and detection (genes with a count) of every sample."""
    table = normalisation.count_table(adata)
    return pd.DataFrame({"depth": table.sum(axis=1), "detected": (table > 0).sum(axis=1)})


#: Genes that neurons of every kind express, by human symbol, and the median of them (counts per million) in a tissue
#: with neurons: hundreds in hippocampus, below one in smooth muscle.
NEURONAL_MARKERS = ("SNAP25", "SYT1", "SYN1", "SYP", "STMN2", "RBFOX3", "ELAVL4")
LEAST_NEURONAL_CPM = 10.0


def neuronal_expression(adata: anndata.AnnData) -> float:
    """Median over `NEURONAL_MARKERS` of their mean counts per million; NaN if the data have none of their names.

    A gene of neurons that is counted in a tissue without any is noise, and says nothing of what a method would find.
    """
    markers = orthologs.find_genes(adata, list(NEURONAL_MARKERS)).dropna(subset=["gene"])
    counts = normalisation.count_table(adata)
    per_million = counts[list(markers["gene"])].div(counts.sum(axis=1), axis=0).mul(1e6).mean()
    # Zebrafish has two paralogs of most.
    return float(per_million.groupby(markers["human"].to_numpy()).max().median())


def has_neurons(adata: anndata.AnnData) -> bool:
    """Whether samples contain neurons, by their `neuronal_expression`."""
    return neuronal_expression(adata) >= LEAST_NEURONAL_CPM


def neuronal_note(adata: anndata.AnnData) -> str:
    """A sentence on a cohort whose neuronal genes cannot be examined; empty if it `has_neurons`."""
    value = neuronal_expression(adata)
    if np.isnan(value):
        return "This cohort has no gene symbols, so its neuronal genes cannot be identified."
    if value >= LEAST_NEURONAL_CPM:
        return ""
    return (
        f"This tissue has no neurons: neuronal genes (those of {', '.join(NEURONAL_MARKERS)} that the data "
        f"contain) have a median of {value:.2g} counts per million."
    )


#: Mean normalised count from which a gene is expressed: below it the interval of a log2 fold change is as wide as any
#: change that could be of interest.
LEAST_MEAN_COUNT = 10.0


def expressed_genes(adata: anndata.AnnData) -> pd.Index:
    """Ids of the expressed genes: of a mean normalised count, DESeq2's baseMean, of at least `LEAST_MEAN_COUNT`.

    Raises
    ------
    DataError
        If size factors are undefined (`normalisation.size_factors`).
    """
    normalised = normalisation.count_table(adata).div(normalisation.size_factors(adata), axis=0)
    return adata.var_names[(normalised.mean() >= LEAST_MEAN_COUNT).to_numpy()]


def find_expressed(adata: anndata.AnnData, human: list[str]) -> tuple[pd.DataFrame, str]:
    """Find the expressed genes of a data set that correspond to human symbols, and name the others.

    Returns
    -------
    Rows of `orthologs.find_genes` with an expressed gene; a sentence on the genes of the data that are not expressed
    and so are left out, empty if all are.
    """
    found = orthologs.find_genes(adata, human).dropna(subset=["gene"])
    expressed = found["gene"].isin(expressed_genes(adata))
    names = found.loc[~expressed, "symbol"].drop_duplicates().tolist()
    note = (
        f"{' and '.join(filter(None, [', '.join(names[:-1]), *names[-1:]]))} {'is' if len(names) == 1 else 'are'} not "
        f"expressed in this data set (mean normalised count below {LEAST_MEAN_COUNT:g}) and therefore not shown."
    )
    return found[expressed].reset_index(drop=True), note if names else ""


def expressed_sets(adata: anndata.AnnData, sets: dict[str, list[str]]) -> tuple[dict[str, list[str]], str]:
    """The expressed genes of gene sets, and how many of each set they are.

    Parameters
    ----------
    sets
        Name -> gene ids of the data set (`orthologs.find_gene_sets`).

    Returns
    -------
    The sets without the genes that are not expressed, a set without any left out; a sentence with the number of
    expressed genes of each set, empty if all are expressed.
    """
    expressed = set(expressed_genes(adata))
    kept = {name: [gene for gene in ids if gene in expressed] for name, ids in sets.items()}
    shares = ", ".join(f"{name.replace('_', ' ')} {len(kept[name])} of {len(ids)}" for name, ids in sets.items() if ids)
    note = (
        f"Only genes of a panel that are expressed in this data set are used (mean normalised count of at least "
        f"{LEAST_MEAN_COUNT:g}): {shares}."
    )
    return {name: ids for name, ids in kept.items() if ids}, note if kept != sets else ""


#: Deviation of the correlation, in scaled median absolute deviations, below which a sample is an outlier.
OUTLIER_DEVIATION = -5.0


def annotation_tracks(obs: pd.DataFrame, group: str, *, max_tracks: int = 4) -> pd.DataFrame:
    """Annotation tracks of a heat map: the group, and other columns of the sample table with few levels, as text.

    A column qualifies with two to eight levels, fewer than there are samples, and without missing values. One that only
    renames the levels of an earlier track is left out.
    """
    columns = {group: obs[group]}
    for column in obs:
        words = obs[column].astype(str)
        few = 2 <= words.nunique() <= 8 and words.nunique() < len(obs) and obs[column].notna().all()
        codes = pd.factorize(words)[0]
        if few and not any((codes == pd.factorize(other.astype(str))[0]).all() for other in columns.values()):
            columns[column] = words
    return pd.DataFrame(dict(list(columns.items())[:max_tracks]), index=obs.index)


def sample_distances(table: pd.DataFrame) -> pd.DataFrame:
    """Euclidean distances of samples, samples x samples; the table is samples x genes on a log-like scale."""
    return pd.DataFrame(squareform(pdist(table.to_numpy(dtype=float))), table.index, table.index)


def components_and_metadata(table: pd.DataFrame, obs: pd.DataFrame, *, n_components: int = 5) -> pd.DataFrame:
    """Share of each principal component that a column of the sample table explains (a linear model for each column).

    Parameters
    ----------
    table
        Samples x genes, on a log-like scale.
    obs
        The sample table; `formulas.covariates` decides which columns are numeric and which are factors. A column is
        left out if it is constant, has missing values, or leaves no residual degrees of freedom.

    Returns
    -------
    A row a column and component: ``column``, ``component``, ``variance`` (share that the component explains), ``R2``,
    ``p`` (F test) and ``padj`` (Benjamini-Hochberg over all rows).
    """
    obs = formulas.covariates(obs)
    points, shares = projections.pca(table, n_components=min(n_components, len(table) - 1))
    rows = []
    for column in obs:
        predictors = _predictors(obs[column])
        if not 0 < predictors.shape[1] < len(obs) - 1:
            continue
        model = np.column_stack([np.ones(len(obs)), predictors])
        for name, share in zip(points, shares, strict=True):
            fit = OLS(points[name].to_numpy(), model).fit()
            row = {"column": str(column), "component": name, "variance": share}
            rows.append(row | {"R2": fit.rsquared, "p": float(fit.f_pvalue)})
    associations = pd.DataFrame(rows, columns=["column", "component", "variance", "R2", "p"])
    associations["padj"] = false_discovery_control(associations["p"]) if len(associations) else []
    return associations


def _predictors(values: pd.Series) -> np.ndarray:
    """Columns of a linear model: one for numbers, levels - 1 for a factor, none if constant or with missing values."""
    if values.isna().any() or values.nunique() < 2:
        return np.empty((len(values), 0))
    if pd.api.types.is_numeric_dtype(values):
        return values.to_numpy(dtype=float)[:, None]
    return pd.get_dummies(values.astype(str), drop_first=True).to_numpy(dtype=float)


def outlying_samples(table: pd.DataFrame, groups: pd.Series) -> pd.DataFrame:
    """Correlation of every sample with the others, and samples for which it is outlying.

    Parameters
    ----------
    table
        Samples x genes, on a log-like scale.
    groups
        Group of each sample, for the table only.

    Returns
    -------
    A row a sample: ``sample``, ``group``, ``correlation`` (median Pearson correlation with the other samples),
    ``deviation`` (from the samples' median, in median absolute deviations scaled to a normal distribution's standard
    deviation) and ``unlike the others`` (yes if the deviation is below `OUTLIER_DEVIATION`).
    """
    r = np.corrcoef(table.to_numpy(dtype=float))
    np.fill_diagonal(r, np.nan)
    median = np.nanmedian(r, axis=1)
    spread = median_abs_deviation(median, scale="normal")
    deviation = (median - np.median(median)) / spread if spread > 0 else np.zeros(len(median))
    quality = pd.DataFrame({"sample": table.index, "group": groups.astype(str).to_numpy(), "correlation": median})
    quality["deviation"] = deviation
    quality["unlike the others"] = np.where(deviation < OUTLIER_DEVIATION, "yes", "no")
    return quality
