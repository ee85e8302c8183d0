"""How the Biology-Attention Alignment Metric misleads: by place, by size of the set, by genes that are there twice.

Attention of untrained models knows no biology: a right test calls one in twenty of them.
"""

import numpy as np
import pandas as pd
from scipy.stats import binomtest
from sklearn.base import clone

from epigen_utils import attention, sentence_attention
from epigen_utils.sentence_classes import GPT2Classifier

#: Level of the tests.
ALPHA = 0.05


def untrained(
    classifier: GPT2Classifier,
    values: pd.DataFrame,
    y: np.ndarray,
    sets: dict[str, list[str]],
    *,
    seeds: range,
    n_permutations: int = 199,
) -> pd.DataFrame:
    """BAAM of models that have learned nothing, one a seed; their attention knows no biology, so that every call is a false one.

    Returns
    -------
    A row a seed and set, as `attention.baam` gives it, with ``seed`` and ``set``.
    """
    rows = []
    for seed in seeds:
        made = clone(classifier).set_params(seed=seed).untrained(values, y)
        found = sentence_attention.read(made, values)
        for name, members in sets.items():
            inside = np.isin(found.genes, members)
            options = {"name": name, "n_permutations": n_permutations, "n_bootstrap": 0, "seed": seed}
            row = attention.baam(found.mean, found.places, inside, **options)
            rows.append({"seed": seed, "set": name, **row})
    return pd.DataFrame(rows)


def rejections(table: pd.DataFrame, *, by: str = "set") -> pd.DataFrame:
    """How often each null calls what is not there: a row a group and null, ``called`` of ``tests``, ``share`` with its exact interval."""
    rows = []
    for name, found in table.groupby(by, sort=False):
        for null in ("random", "matched"):
            called = int((found[f"p {null}"] <= ALPHA).sum())
            low, high = binomtest(called, len(found)).proportion_ci()
            row = {by: name, "null": null, "called": called, "tests": len(found), "share": called / len(found)}
            rows.append(row | {"low": low, "high": high})
    return pd.DataFrame(rows)


def early_and_late(values: pd.DataFrame, *, size: int) -> dict[str, list[str]]:
    """Three sets without biology: the genes that are expressed most, those that are least, and every so many of all between."""
    order = values.mean().sort_values(ascending=False, kind="stable").index
    spread = order[np.linspace(0, len(order) - 1, size).round().astype(int)]
    return {"first in the sentences": list(order[:size]), "last": list(order[-size:]), "all along": list(spread)}


def by_size(
    scores: np.ndarray, places: np.ndarray, *, sizes: list[int], n_sets: int = 200, seed: int = 0
) -> pd.DataFrame:
    """BAAM of random sets of several sizes below the number of genes, for attention as it is: ``size``, ``baam``."""
    rng = np.random.default_rng(seed)
    genes = np.flatnonzero(np.isfinite(scores).any(axis=0))
    rows = []
    for size in [size for size in sizes if size < len(genes)]:
        for _ in range(n_sets):
            inside = np.isin(np.arange(scores.shape[1]), rng.choice(genes, size, replace=False))
            found = attention.baam(scores, places, inside, n_permutations=1, n_bootstrap=0)
            rows.append({"size": size, "baam": found["baam"]})
    return pd.DataFrame(rows)


def duplicated(
    *, copies: list[int], n_genes: int = 240, size: int = 24, n_samples: int = 12, n_sets: int = 200, seed: int = 0
) -> pd.DataFrame:
    """BAAM where attention is noise, but genes come in families that are attended to alike, and the set is of whole families.

    Returns
    -------
    A row a size of family and set, as `attention.baam` gives it, with ``copies``: both nulls take members for independent.
    """
    rows = []
    for n_copies in copies:
        for draw in range(n_sets):
            rng = np.random.default_rng([seed, n_copies, draw])
            families = np.arange(n_genes) // n_copies
            scores = rng.normal(size=n_genes // n_copies)[families] + 0.3 * rng.normal(size=(n_samples, n_genes))
            places = np.argsort(np.argsort(rng.random((n_samples, n_genes)), axis=1), axis=1) / n_genes
            chosen = rng.choice(n_genes // n_copies, size // n_copies, replace=False)
            options = {"n_permutations": 199, "n_bootstrap": 0, "seed": draw}
            found = attention.baam(scores, places, np.isin(families, chosen), **options)
            rows.append({"copies": n_copies, **found})
    return pd.DataFrame(rows)
