"""Samples in the plane: PCA and t-SNE by scikit-learn, with what makes them comparable stated."""

import anndata
import numpy as np
import pandas as pd
from sklearn.decomposition import PCA
from sklearn.manifold import TSNE


def pca(table: pd.DataFrame, n_components: int = 2) -> tuple[pd.DataFrame, np.ndarray]:
    """Principal components of the centred, unscaled table.

    Parameters
    ----------
    table
        Samples x features.

    Returns
    -------
    Scores, samples x components (columns PC1, PC2, ...), and the share of the variance that each explains, in [0, 1].

    Raises
    ------
    ValueError
        If there are fewer samples or features than components.
    """
    if min(table.shape) < n_components:
        raise ValueError(
            f"{n_components} components need as many samples and features; the table is {table.shape[0]} x {table.shape[1]}"
        )
    model = PCA(n_components, svd_solver="full")
    scores = model.fit_transform(table.to_numpy(dtype=float))
    return pd.DataFrame(
        scores, table.index, [f"PC{i + 1}" for i in range(n_components)]
    ), model.explained_variance_ratio_


def tsne(table: pd.DataFrame, *, perplexity: float, seed: int) -> pd.DataFrame:
    """t-SNE of the table into two dimensions (van der Maaten and Hinton 2008).

    Raises
    ------
    ValueError
        If the perplexity is not below the number of samples.
    """
    if perplexity >= len(table):
        raise ValueError(f"perplexity {perplexity:g} must be below the number of samples, {len(table)}")
    model = TSNE(perplexity=perplexity, init="pca", random_state=seed)
    return pd.DataFrame(model.fit_transform(table.to_numpy(dtype=np.float32)), table.index, ["t-SNE 1", "t-SNE 2"])


def legal_perplexities(n_samples: int, wanted: tuple[float, ...] = (2, 3, 5, 10, 30)) -> list[float]:
    """Those of the wanted perplexities that leave each point three neighbours for each unit (3 * perplexity < n)."""
    return [perplexity for perplexity in wanted if 3 * perplexity < n_samples]


def umap(table: np.ndarray, *, seed: int, n_neighbors: int = 15) -> np.ndarray:
    """UMAP into two dimensions (McInnes et al. 2018) by scanpy, rows x 2; neighbours are fewer where there are few rows."""
    import scanpy  # heavy, and needed by chapters on cells only

    held = anndata.AnnData(obsm={"X": np.asarray(table, np.float32)}, shape=(len(table), 0))
    scanpy.pp.neighbors(held, n_neighbors=min(n_neighbors, len(table) - 1), use_rep="X", random_state=seed)
    scanpy.tl.umap(held, random_state=seed)
    return held.obsm["X_umap"]
