"""Scores, their nulls, and the values that a score can take at all."""

import itertools
import math
from collections.abc import Callable

import numpy as np
import pandas as pd
from sklearn.metrics import silhouette_score

from epigen_utils import embedding


def permutation_pvalue(
    score: Callable[[np.ndarray], float],
    labels: np.ndarray,
    *,
    blocks: np.ndarray | None = None,
    n_permutations: int = 999,
    seed: int = 0,
) -> tuple[float, float, np.ndarray]:
    """Test one-sidedly how often permuted labels score at least as high.

    All distinct labelings are visited where they are no more than ``n_permutations + 1``; otherwise labels are shuffled
    at random. p = (b + 1) / (m + 1) (Phipson and Smyth 2010), with m the labelings other than the observed one.

    Parameters
    ----------
    score
        Of an array of labels, larger is more extreme.
    labels
        One a sample.
    blocks
        Labels are permuted within these only (donors within a batch, a pair within a donor).

    Returns
    -------
    The observed score, p, and the scores of the permuted labelings, shape (m,).
    """
    labels = np.asarray(labels)
    blocks = np.zeros(len(labels), int) if blocks is None else np.unique(blocks, return_inverse=True)[1]
    members = [np.flatnonzero(blocks == block) for block in range(blocks.max() + 1)]
    n_labelings = math.prod(_n_arrangements(labels[index]) for index in members)
    if n_labelings <= n_permutations + 1:
        permuted = (new for new in _all_labelings(labels, members) if not np.array_equal(new, labels))
    else:
        permuted = _shuffled_labelings(labels, members, n_permutations, np.random.default_rng(seed))
    observed = score(labels)
    null = np.array([score(new) for new in permuted])
    return observed, float(((null >= observed - 1e-12).sum() + 1) / (len(null) + 1)), null


def _n_arrangements(labels: np.ndarray) -> int:
    sizes = np.unique(labels, return_counts=True)[1]
    return math.factorial(len(labels)) // math.prod(math.factorial(size) for size in sizes)


def _arrangements(labels: list):
    """Distinct orders of a multiset, by placing each label's positions in turn."""
    if len(set(labels)) <= 1:
        yield list(labels)
        return
    first = labels[0]
    rest = [label for label in labels if label != first]
    for places in itertools.combinations(range(len(labels)), len(labels) - len(rest)):
        for others in _arrangements(rest):
            remaining = iter(others)
            yield [first if i in places else next(remaining) for i in range(len(labels))]


def _all_labelings(labels: np.ndarray, members: list[np.ndarray]):
    for choice in itertools.product(*(list(_arrangements(list(labels[index]))) for index in members)):
        new = labels.copy()
        for index, values in zip(members, choice, strict=True):
            new[index] = values
        yield new


def _shuffled_labelings(labels: np.ndarray, members: list[np.ndarray], n: int, rng: np.random.Generator):
    for _ in range(n):
        new = labels.copy()
        for index in members:
            new[index] = rng.permutation(labels[index])
        yield new


def silhouette(
    points: pd.DataFrame,
    labels: pd.Series,
    *,
    blocks: np.ndarray | None = None,
    n_permutations: int = 999,
    seed: int = 0,
) -> dict[str, float]:
    """Mean silhouette of the groups (Rousseeuw 1987) with its permutation p-value; -1 mixed, 1 apart.

    Returns
    -------
    ``value``, ``p``, ``n`` (samples) and ``smallest_p``, the p that the best of all labelings visited would have got.
    """
    table = points.to_numpy()
    observed, p, null = permutation_pvalue(
        lambda new: silhouette_score(table, new),
        labels.astype(str).to_numpy(),
        blocks=blocks,
        n_permutations=n_permutations,
        seed=seed,
    )
    visited = np.append(null, observed)
    smallest = float((visited >= visited.max() - 1e-12).mean())
    return {"value": float(observed), "p": p, "n": len(table), "smallest_p": smallest}


def principal_planes(
    tables: dict[str, pd.DataFrame], labels: pd.Series, **test
) -> tuple[pd.DataFrame, dict[str, pd.DataFrame]]:
    """PCA of the same samples in several matrices, and how far apart their groups lie in each plane.

    Parameters
    ----------
    tables
        Name -> samples x features.
    test
        As for `silhouette`.

    Returns
    -------
    A row a matrix (``matrix``, ``PC1``, ``PC1 + PC2`` as shares of the variance, ``silhouette``, ``p``,
    ``smallest_p``), and the scores, samples x 2, by name.
    """
    rows, planes = [], {}
    for name, table in tables.items():
        planes[name], shares = embedding.pca(table)
        apart = silhouette(planes[name], labels, **test)
        row = {"matrix": name, "PC1": shares[0], "PC1 + PC2": shares[:2].sum(), "silhouette": apart["value"]}
        rows.append(row | {key: apart[key] for key in ("p", "smallest_p")})
    return pd.DataFrame(rows), planes


def attainable_auc(n_positive: int, n_negative: int, *, ties: bool = False) -> np.ndarray:
    """Every AUC that one pooled evaluation can give: k / (n_positive * n_negative); half steps where scores may tie."""
    steps = n_positive * n_negative * (2 if ties else 1)
    return np.arange(steps + 1) / steps


def auc_lattices(sizes: list[tuple[int, int]]) -> pd.DataFrame:
    """Attainable AUCs by class sizes, the first pair also with ties: columns ``classes`` (its name) and ``auc``."""
    named = [(f"{a} v {b}", attainable_auc(a, b)) for a, b in sizes]
    first, second = sizes[0]
    named.insert(1, (f"{first} v {second}, ties", attainable_auc(first, second, ties=True)))
    return pd.concat([pd.DataFrame({"classes": name, "auc": values}) for name, values in named], ignore_index=True)


def attainable_f1(n_positive: int, n_negative: int) -> np.ndarray:
    """Every F1 = 2 TP / (2 TP + FP + FN) that one pooled evaluation can give, ascending."""
    values = {0.0}
    for true_positive in range(1, n_positive + 1):
        for false_positive in range(n_negative + 1):
            values.add(2 * true_positive / (n_positive + true_positive + false_positive))
    return np.array(sorted(values))


def nearest(values: np.ndarray, target: float) -> float:
    """The value closest to the target; the lower one of two equally close."""
    return float(values[np.argmin(np.abs(values - target))])
