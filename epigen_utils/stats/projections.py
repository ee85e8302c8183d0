"""Projections of samples into the plane: PCA and t-SNE by scikit-learn, UMAP by scanpy, and checks of them."""

import anndata
import numpy as np
import pandas as pd
from sklearn.decomposition import PCA
from sklearn.manifold import TSNE
from sklearn.metrics import silhouette_score

from epigen_utils.errors import DataError


def pca(table: pd.DataFrame, n_components: int = 2) -> tuple[pd.DataFrame, np.ndarray]:
    """Principal components of the centred, unscaled table.

    Parameters
    ----------
    table
        Samples x features.

    Returns
    -------
    Scores, samples x components (columns PC1, PC2, ...), and each component's share of the variance, in [0, 1].

    Raises
    ------
    DataError
        If there are fewer samples or features than components, or all samples are equal.
    """
    if min(table.shape) < n_components:
        raise DataError(
            f"{n_components} components need as many samples and features; "
            f"the table is {table.shape[0]} x {table.shape[1]}"
        )
    _check_spread(table)
    model = PCA(n_components, svd_solver="full")
    columns = [f"PC{i + 1}" for i in range(n_components)]
    scores = pd.DataFrame(model.fit_transform(table.to_numpy(dtype=float)), table.index, columns)
    return scores, model.explained_variance_ratio_


def tsne(table: pd.DataFrame, *, perplexity: float, seed: int, init: str = "pca") -> pd.DataFrame:
    """t-SNE of the table into two dimensions (van der Maaten and Hinton 2008).

    Parameters
    ----------
    init
        ``pca``, with which the layout does not depend on the seed, or ``random``.

    Raises
    ------
    DataError
        If the perplexity is not below the number of samples, or all samples are equal.
    """
    if len(table) < 2:
        raise DataError(f"t-SNE of {len(table)} sample: there is nothing to lay out; give more samples")
    if perplexity >= len(table):
        fit = f"give at most {(len(table) - 1) // 3 or 1}"
        raise DataError(f"perplexity {perplexity:g} must be below the number of samples, {len(table)}; {fit}")
    _check_spread(table)
    model = TSNE(perplexity=perplexity, init=init, random_state=seed)
    return pd.DataFrame(model.fit_transform(table.to_numpy(dtype=np.float32)), table.index, ["t-SNE 1", "t-SNE 2"])


def tsne_grid(
    table: pd.DataFrame, labels: pd.Series, *, perplexities: list[float], seeds: list[int]
) -> tuple[pd.DataFrame, dict[tuple[float, int], pd.DataFrame]]:
    """t-SNE at several perplexities and random starts; structure seen in one layout only is an artefact.

    Returns
    -------
    A row a layout (``perplexity``, ``seed``, ``silhouette`` of the groups in the plane), and the layouts.
    """
    rows, planes = [], {}
    for perplexity in perplexities:
        for seed in seeds:
            planes[perplexity, seed] = tsne(table, perplexity=perplexity, seed=seed, init="random")
            value = silhouette_score(planes[perplexity, seed], labels.astype(str))
            rows.append({"perplexity": perplexity, "seed": seed, "silhouette": float(value)})
    return pd.DataFrame(rows, columns=["perplexity", "seed", "silhouette"]), planes


def noise_variance_share(n_samples: int, n_features: int, *, n_draws: int = 100, seed: int = 0) -> float:
    """Mean share of the variance that two principal components explain of isotropic Gaussian noise.

    It is the baseline for such a share, and large with few samples: 0.41 for 12 samples and 20 features.
    """
    rng = np.random.default_rng(seed)
    shares = [pca(pd.DataFrame(rng.normal(size=(n_samples, n_features))))[1][:2].sum() for _ in range(n_draws)]
    return float(np.mean(shares))


def _check_spread(table: pd.DataFrame) -> None:
    values = table.to_numpy(dtype=float)
    if np.ptp(values, axis=0).max(initial=0.0) == 0:
        raise DataError(f"embeddings: all {len(table)} samples are alike; the model does not separate them at all")


def feasible_perplexities(n_samples: int, wanted: tuple[float, ...] = (2, 3, 5, 10, 30)) -> list[float]:
    """The perplexities among those wanted that leave three neighbours a unit of perplexity (3 * perplexity < n)."""
    return [perplexity for perplexity in wanted if 3 * perplexity < n_samples]


def umap(table: np.ndarray, *, seed: int, n_neighbors: int = 15) -> np.ndarray:
    """UMAP into two dimensions (McInnes et al. 2018) by scanpy, rows x 2; at most ``n_neighbors`` neighbours."""
    import scanpy  # slow to import, and needed by few chapters

    if len(table) < 4:
        raise DataError(f"UMAP needs four samples at least, not {len(table)}; give more")
    adata = anndata.AnnData(obsm={"X": np.asarray(table, np.float32)}, shape=(len(table), 0))
    scanpy.pp.neighbors(adata, n_neighbors=min(n_neighbors, len(table) - 1), use_rep="X", random_state=seed)
    scanpy.tl.umap(adata, random_state=seed)
    return adata.obsm["X_umap"]
