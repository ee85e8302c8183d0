"""What samples say of themselves: distances, principal components beside the sample table, samples unlike the others."""

import numpy as np
import pandas as pd
from scipy.spatial.distance import pdist, squareform
from scipy.stats import f as f_distribution
from scipy.stats import false_discovery_control, median_abs_deviation

from epigen_utils import designs, embedding

#: Median absolute deviations below the median correlation at which a sample is called unlike the others.
OUTLIER = -5.0


def tracks(obs: pd.DataFrame, group: str, *, most: int = 4) -> pd.DataFrame:
    """The group, and other columns of the sample table that sort samples into a few kinds, as words.

    Kinds are few where there are two to eight of them and some sample shares each; a column that only renames the group, or
    another, is left out.
    """
    kept = {group: obs[group]}
    for column in obs:
        words = obs[column].astype(str)
        sorts = 2 <= words.nunique() <= 8 and words.nunique() < len(obs) and obs[column].notna().all()
        codes = pd.factorize(words)[0]
        if sorts and not any((codes == pd.factorize(other.astype(str))[0]).all() for other in kept.values()):
            kept[column] = words
    return pd.DataFrame(dict(list(kept.items())[:most]), index=obs.index)


def distances(table: pd.DataFrame) -> pd.DataFrame:
    """Euclidean distances of samples, samples x samples; the table is samples x genes on a log-like scale."""
    return pd.DataFrame(squareform(pdist(table.to_numpy(dtype=float))), table.index, table.index)


def components_and_metadata(table: pd.DataFrame, obs: pd.DataFrame, *, n_components: int = 5) -> pd.DataFrame:
    """How much of each principal component a column of the sample table explains (linear model, one column at a time).

    Parameters
    ----------
    table
        Samples x genes, on a log-like scale.
    obs
        The sample table, read as by `designs.covariates`: numbers are a slope, words are levels. A column that is constant, has missing values, or leaves
        no sample over is passed over.

    Returns
    -------
    A row a column and component: ``column``, ``component``, ``variance`` (share that the component explains), ``R2``, ``p``
    (F test) and ``padj`` (Benjamini-Hochberg over all rows).
    """
    obs = designs.covariates(obs)
    points, shares = embedding.pca(table, n_components=min(n_components, len(table) - 1))
    rows = []
    for column in obs:
        predictors = _predictors(obs[column])
        df = predictors.shape[1], len(obs) - predictors.shape[1] - 1
        if df[0] == 0 or df[1] < 1:
            continue
        full = np.column_stack([np.ones(len(obs)), predictors])
        for name, share in zip(points, shares, strict=False):
            y = points[name].to_numpy()
            residual = y - full @ np.linalg.lstsq(full, y, rcond=None)[0]
            r2 = 1 - residual @ residual / np.square(y - y.mean()).sum()
            statistic = (r2 / df[0]) / max((1 - r2) / df[1], 1e-300)
            row = {"column": str(column), "component": name, "variance": share, "R2": r2}
            rows.append(row | {"p": float(f_distribution.sf(statistic, *df))})
    found = pd.DataFrame(rows, columns=["column", "component", "variance", "R2", "p"])
    found["padj"] = false_discovery_control(found["p"]) if len(found) else []
    return found


def _predictors(values: pd.Series) -> np.ndarray:
    """Columns of a linear model: one for numbers, one less than there are levels for words, none if it says nothing."""
    if values.isna().any() or values.nunique() < 2:
        return np.empty((len(values), 0))
    if pd.api.types.is_numeric_dtype(values):
        return values.to_numpy(dtype=float)[:, None]
    return pd.get_dummies(values.astype(str), drop_first=True).to_numpy(dtype=float)


def outliers(table: pd.DataFrame, groups: pd.Series) -> pd.DataFrame:
    """Samples that correlate less with the others than the others do.

    Parameters
    ----------
    table
        Samples x genes, on a log-like scale.
    groups
        Group of each sample, only shown.

    Returns
    -------
    A row a sample: ``sample``, ``group``, ``correlation`` (median Pearson correlation with the other samples), ``deviation``
    (from the samples' median, in median absolute deviations scaled to a normal distribution's standard deviation) and
    ``unlike the others`` (below `OUTLIER`).
    """
    r = np.corrcoef(table.to_numpy(dtype=float))
    np.fill_diagonal(r, np.nan)
    median = np.nanmedian(r, axis=1)
    spread = median_abs_deviation(median, scale="normal")
    deviation = (median - np.median(median)) / spread if spread > 0 else np.zeros(len(median))
    found = pd.DataFrame({"sample": table.index, "group": groups.astype(str).to_numpy(), "correlation": median})
    found["deviation"] = deviation
    found["unlike the others"] = np.where(deviation < OUTLIER, "yes", "no")
    return found
