"""Separation of the classes by models that have not seen a sample: each sample is held out once (cross-fitting).

A silhouette among held-out samples alone needs several of each class, and of three wild types one is held out. Here a
held-out sample is compared with the training samples of its fold, in the plane of that fold's model.
"""

from collections.abc import Iterator

import numpy as np
import pandas as pd
from scipy.spatial.distance import cdist
from scipy.stats import t as student
from sklearn.base import clone

from epigen_utils.errors import DataError
from epigen_utils.gpt2 import sentence_states
from epigen_utils.gpt2.classifier import GPT2Classifier
from epigen_utils.interpretation import representations
from epigen_utils.prediction.sample_cohort import SampleCohort
from epigen_utils.stats import folds, intervals, projections

#: Planes in which held-out samples are compared with the training samples of their fold.
BY_PCA, BY_TSNE, BY_COUNTS = "fine-tuned, by PCA", "fine-tuned, by t-SNE", "raw counts, by PCA"


def silhouettes_among_training(
    train: np.ndarray, labels: np.ndarray, held_out: np.ndarray, held_out_labels: np.ndarray
) -> np.ndarray:
    """Silhouette of each held-out sample among training samples of two classes.

    (b - a) / max(a, b), with a the mean distance to the training samples of the sample's own class, and b that to those
    of the other: 0 on average where a sample's place says nothing of its class.

    Parameters
    ----------
    train, held_out
        Samples x dimensions.

    Examples
    --------
    >>> import numpy as np
    >>> from epigen_utils.interpretation import cross_fitting
    >>> train, labels = np.array([[0.0], [2.0], [9.0], [11.0]]), np.array(list("aabb"))
    >>> cross_fitting.silhouettes_among_training(train, labels, np.array([[1.0], [1.0]]), np.array(["a", "b"])).round(2)
    array([ 0.89, -0.89])
    """
    names = np.unique(labels)
    distances = np.stack([cdist(held_out, train[labels == name]).mean(axis=1) for name in names], axis=1)
    own = names == np.asarray(held_out_labels)[:, None]  # (samples, 2)
    a, b = distances[own], distances[~own]
    return (b - a) / np.maximum(np.maximum(a, b), np.finfo(float).tiny)


def held_out_positions(
    cohort: SampleCohort,
    classifier: GPT2Classifier,
    *,
    n_genes: int,
    n_splits: int = 2,
    layer: int = -1,
    pooling: str = "mean",
    n_layouts: int = 1,
    seed: int = 0,
) -> pd.DataFrame:
    """Where each sample lies for the model that was fine-tuned without its fold, in each plane.

    Parameters
    ----------
    n_splits
        Folds of donors, or of experiments; more are taken if so few leave less than two training samples of a class.
    n_layouts
        Random starts of t-SNE, which lays out training and held-out samples of a fold together.

    Returns
    -------
    A row a sample and plane: ``sample``, ``donor``, ``class``, ``fold``, ``plane``, ``silhouette``
    (`silhouettes_among_training`, mean over layouts) and ``overlap`` (whether the sample is nearer to the other class's
    mean than to its own).

    Raises
    ------
    DataError
        If no number of folds leaves two training samples of each class.
    """
    tables = []
    for fold, (train, test) in enumerate(_folds(cohort, n_splits, seed)):
        parts = representations.split_of_rows(cohort, train, test, n_genes=n_genes)
        model = clone(classifier).fit(parts.tables[0], parts.labels[0].to_numpy())
        states = [
            sentence_states.sample_embeddings(model, values, layer=layer, pooling=pooling).to_numpy()
            for values in parts.tables
        ]
        counts = [cohort.values[rows].astype(float) for rows in (train, test)]
        planes = {BY_PCA: [_principal_plane(*states)], BY_COUNTS: [_principal_plane(*counts)]}
        planes[BY_TSNE] = _joint_layouts(*states, n_layouts=n_layouts, seed=seed)
        labels = [part.astype(str).to_numpy() for part in parts.labels]
        for plane, layouts in planes.items():
            if layouts:
                scores = np.mean([_scores(*points, *labels) for points in layouts], axis=0)  # (2, samples)
                row = {"sample": cohort.adata.obs_names[test], "donor": cohort.units[test], "class": labels[1]}
                row |= {"fold": fold, "plane": plane, "silhouette": scores[0], "overlap": scores[1] > 0.5}
                tables.append(pd.DataFrame(row))
    return pd.concat(tables, ignore_index=True)


def _folds(cohort: SampleCohort, n_splits: int, seed: int) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    y, groups = cohort.y, cohort.groups
    most = folds.feasible_n_splits(y, groups, len(y))
    for n in range(min(n_splits, most), most + 1):
        splits = list(folds.donor_folds(y, groups, n_splits=n, seed=seed))
        if all(np.unique(y[train], return_counts=True)[1].min() >= 2 for train, _ in splits):
            return iter(splits)
    raise DataError(f"{cohort.name}: no folds leave two training samples of each class; give more samples or donors")


def _principal_plane(train: np.ndarray, held_out: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Both in the plane of the first two principal components of the training samples."""
    centre = train.mean(axis=0)
    axes = np.linalg.svd(train - centre, full_matrices=False)[2][:2]
    return (train - centre) @ axes.T, (held_out - centre) @ axes.T


def _joint_layouts(
    train: np.ndarray, held_out: np.ndarray, *, n_layouts: int, seed: int
) -> list[tuple[np.ndarray, np.ndarray]]:
    """Layouts of both together by t-SNE, at the middle one of the feasible perplexities; none if there is none."""
    together = pd.DataFrame(np.concatenate([train, held_out]))
    allowed = projections.feasible_perplexities(len(together))
    layouts = []
    for start in range(seed, seed + n_layouts if allowed else seed):
        points = projections.tsne(together, perplexity=allowed[len(allowed) // 2], seed=start, init="random").to_numpy()
        layouts.append((points[: len(train)], points[len(train) :]))
    return layouts


def _scores(train: np.ndarray, held_out: np.ndarray, labels: np.ndarray, held_out_labels: np.ndarray) -> np.ndarray:
    """Silhouettes, and 1 where a sample is nearer to the other class's mean: 2 x held-out samples."""
    names = np.unique(labels)
    means = np.array([train[labels == name].mean(axis=0) for name in names])
    nearest = names[cdist(held_out, means).argmin(axis=1)]
    return np.array(
        [silhouettes_among_training(train, labels, held_out, held_out_labels), nearest != held_out_labels], float
    )


def balanced_mean(table: pd.DataFrame, column: str, *, limit: float) -> tuple[float, float, float]:
    """Mean over classes of the mean over donors, with a 95% interval over donors: mean, low, high.

    Both classes count alike, since a model that puts every sample to the larger class would else be above 0. The
    interval is Welch's, with the variance multiplied by 1 + folds / (folds - 1) for the training samples that folds
    share (after Nadeau and Bengio 2003); NaN if a class has fewer donors than `intervals.LEAST_UNITS`.

    Parameters
    ----------
    table
        Columns ``class``, ``donor``, ``fold`` and the column of values.
    limit
        Largest absolute value that the mean can have; the interval ends there.
    """
    donors = table.groupby(["class", "donor"])[column].mean().groupby(level="class")
    mean, errors, n_folds = float(donors.mean().mean()), donors.var() / donors.size(), table["fold"].nunique()
    if donors.size().min() < intervals.LEAST_UNITS:
        return mean, np.nan, np.nan
    error = errors.sum()
    # Welch and Satterthwaite's degrees of freedom.
    freedom = error**2 / (errors**2 / (donors.size() - 1)).sum() if error > 0 else 1.0
    half = student.ppf(0.975, freedom) * np.sqrt(error * (1 + n_folds / (n_folds - 1))) / donors.ngroups
    return mean, float(max(mean - half, -limit)), float(min(mean + half, limit))


def separation_by_plane(positions: pd.DataFrame) -> pd.DataFrame:
    """Separation of the classes among held-out samples, in each plane of `held_out_positions`.

    Returns
    -------
    A row a plane: ``plane``, ``silhouette``, ``low``, ``high`` (`balanced_mean`), ``overlap`` (number of samples),
    ``samples``, ``folds``.
    """
    rows = []
    for plane, part in positions.groupby("plane", sort=False):
        mean, low, high = balanced_mean(part, "silhouette", limit=1.0)
        row = {"plane": plane, "silhouette": mean, "low": low, "high": high, "overlap": int(part["overlap"].sum())}
        rows.append(row | {"samples": len(part), "folds": part["fold"].nunique()})
    return pd.DataFrame(rows)


def plane_difference(positions: pd.DataFrame, plane: str, other: str) -> tuple[float, float, float]:
    """How much further apart the classes lie in one plane than in another: difference, low, high (`balanced_mean`)."""
    keys = ["sample", "donor", "class", "fold"]
    wide = positions.pivot(index=keys, columns="plane", values="silhouette").reset_index()
    if not {plane, other} <= set(wide):
        return np.nan, np.nan, np.nan
    return balanced_mean(wide.assign(difference=wide[plane] - wide[other]), "difference", limit=2.0)
