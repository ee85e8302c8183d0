"""Samples in the plane: PCA and t-SNE by scikit-learn, UMAP by scanpy, with what makes them comparable stated."""

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
    Scores, samples x components (columns PC1, PC2, ...), and the share of the variance that each explains, in [0, 1].

    Raises
    ------
    DataError
        If there are fewer samples or features than components, or all samples are alike.
    """
    if min(table.shape) < n_components:
        raise DataError(
            f"{n_components} components need as many samples and features; the table is {table.shape[0]} x {table.shape[1]}"
        )
    _check_spread(table)
    model = PCA(n_components, svd_solver="full")
    scores = model.fit_transform(table.to_numpy(dtype=float))
    return pd.DataFrame(
        scores, table.index, [f"PC{i + 1}" for i in range(n_components)]
    ), model.explained_variance_ratio_


def tsne(table: pd.DataFrame, *, perplexity: float, seed: int, init: str = "pca") -> pd.DataFrame:
    """t-SNE of the table into two dimensions (van der Maaten and Hinton 2008).

    Parameters
    ----------
    init
        ``pca``, which leaves nothing to the seed, or ``random``.

    Raises
    ------
    DataError
        If the perplexity is not below the number of samples, or all samples are alike.
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
    """t-SNE at every perplexity, from several random starts: what is seen at one of them only is the method's, not the data's.

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


def noise_share(n_samples: int, n_features: int, *, n_draws: int = 100, seed: int = 0) -> float:
    """Share of the variance that two principal components have, on average, of noise alike in all directions.

    With few samples it is large: of 12 samples and 20 features 0.41, so that a share says little without it.
    """
    rng = np.random.default_rng(seed)
    drawn = [pca(pd.DataFrame(rng.normal(size=(n_samples, n_features))))[1][:2].sum() for _ in range(n_draws)]
    return float(np.mean(drawn))


def _check_spread(table: pd.DataFrame) -> None:
    values = table.to_numpy(dtype=float)
    if np.ptp(values, axis=0).max(initial=0.0) == 0:
        raise DataError(f"embeddings: all {len(table)} samples are alike; the model does not tell them apart at all")


def legal_perplexities(n_samples: int, wanted: tuple[float, ...] = (2, 3, 5, 10, 30)) -> list[float]:
    """Those of the wanted perplexities that leave each point three neighbours for each unit (3 * perplexity < n)."""
    return [perplexity for perplexity in wanted if 3 * perplexity < n_samples]


def umap(table: np.ndarray, *, seed: int, n_neighbors: int = 15) -> np.ndarray:
    """UMAP into two dimensions (McInnes et al. 2018) by scanpy, rows x 2; neighbours are fewer where there are few rows."""
    import scanpy  # heavy, and needed by few chapters

    if len(table) < 4:
        raise DataError(f"UMAP needs four samples at least, not {len(table)}; give more")
    held = anndata.AnnData(obsm={"X": np.asarray(table, np.float32)}, shape=(len(table), 0))
    scanpy.pp.neighbors(held, n_neighbors=min(n_neighbors, len(table) - 1), use_rep="X", random_state=seed)
    scanpy.tl.umap(held, random_state=seed)
    return held.obsm["X_umap"]
