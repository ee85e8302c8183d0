"""Separation and agreement of clusters: silhouette, adjusted Rand index, hierarchical clustering."""

import numpy as np
import pandas as pd
from scipy.cluster.hierarchy import fcluster, linkage
from scipy.spatial.distance import pdist
from sklearn.metrics import adjusted_rand_score, silhouette_score

from epigen_utils.stats import permutation, projections


def silhouette_test(
    points: pd.DataFrame,
    labels: pd.Series,
    *,
    donors: np.ndarray | None = None,
    n_permutations: int = 999,
    seed: int = 0,
) -> dict[str, float]:
    """Mean silhouette of the groups (Rousseeuw 1987), from -1 (mixed) to 1 (separated), with its permutation p-value.

    Returns
    -------
    ``value``, ``p``, ``n`` (samples), ``m`` (permutations) and ``smallest_p`` (the p-value that the best of the
    permutations and the observed labels would have).
    """
    table = points.to_numpy()
    observed, p, null = permutation.permutation_test(
        lambda permuted: silhouette_score(table, permuted),
        labels.astype(str).to_numpy(),
        donors=donors,
        n_permutations=n_permutations,
        seed=seed,
    )
    values = np.append(null, observed)
    smallest = float((values >= values.max() - 1e-12).mean())
    return {"value": float(observed), "p": p, "n": len(table), "m": len(null), "smallest_p": smallest}


def cluster_agreement(
    tree: np.ndarray, labels: pd.Series, *, donors: np.ndarray | None = None, n_permutations: int = 999, seed: int = 0
) -> dict[str, float]:
    """Adjusted Rand index of the groups with the clusters of a tree cut into as many, with its permutation p-value.

    Parameters
    ----------
    tree
        Linkage of the samples, SciPy's format.

    Returns
    -------
    ``value`` (1 perfect, 0 chance), ``p``, ``n``.
    """
    clusters = fcluster(tree, labels.nunique(), "maxclust")
    observed, p, _ = permutation.permutation_test(
        lambda permuted: adjusted_rand_score(permuted, clusters),
        labels.astype(str).to_numpy(),
        donors=donors,
        n_permutations=n_permutations,
        seed=seed,
    )
    return {"value": float(observed), "p": p, "n": len(labels)}


def ward_on_pearson(table: pd.DataFrame) -> np.ndarray:
    """Ward linkage of the rows on Pearson distance 1 - r (paper A, section III.C); a SciPy linkage matrix."""
    return linkage(np.clip(pdist(table.to_numpy(dtype=float), "correlation"), 0, None), method="ward")


def principal_planes(
    tables: dict[str, pd.DataFrame], labels: pd.Series, **test
) -> tuple[pd.DataFrame, dict[str, pd.DataFrame]]:
    """PCA of the same samples in several matrices, and the separation of their groups in each plane.

    Parameters
    ----------
    tables
        Name -> samples x features.
    test
        Options of `silhouette_test`.

    Returns
    -------
    A row a matrix: ``matrix``, ``PC1`` and ``PC1 + PC2`` (shares of the variance), ``silhouette``, ``p``, ``m``,
    ``smallest_p``; and the scores by name, samples x 2.
    """
    rows, planes = [], {}
    for name, table in tables.items():
        planes[name], shares = projections.pca(table)
        separation = silhouette_test(planes[name], labels, **test)
        row = {"matrix": name, "PC1": shares[0], "PC1 + PC2": shares[:2].sum(), "silhouette": separation["value"]}
        rows.append(row | {key: separation[key] for key in ("p", "m", "smallest_p")})
    return pd.DataFrame(rows), planes
