"""Calibration of the Biology-Attention Alignment Metric: effects of position, set size and co-expressed genes.

The attention of an untrained model carries no biology, so that a calibrated test rejects one in twenty of them.
"""

import numpy as np
import pandas as pd

from epigen_utils.gpt2 import readout_attention
from epigen_utils.gpt2.classifier import GPT2Classifier, iter_seeds
from epigen_utils.interpretation import alignment
from epigen_utils.stats import intervals

#: Level of the tests.
ALPHA = 0.05


def untrained_models(
    classifier: GPT2Classifier,
    values: pd.DataFrame,
    y: np.ndarray,
    sets: dict[str, list[str]],
    *,
    seeds: range,
    n_permutations: int = 199,
) -> pd.DataFrame:
    """BAAM of untrained models, one per seed; every rejection is a false positive.

    Returns
    -------
    A row a seed and set: ``seed``, ``set`` and the columns of `alignment.baam`.
    """
    rows = []
    for model in iter_seeds(classifier, values, y, seeds, trained=False):
        readout = readout_attention.compute_attention(model, values)
        for name, members in sets.items():
            options = {"name": name, "n_permutations": n_permutations, "seed": model.seed}
            row = alignment.baam_of_readout(readout, readout.mean, members, **options)
            rows.append({"seed": model.seed, "set": name, **row})
    return pd.DataFrame(rows)


def false_positive_rates(table: pd.DataFrame, *, by: str = "set") -> pd.DataFrame:
    """False-positive rate of each null hypothesis at level `ALPHA`.

    Returns
    -------
    A row a group and null: the group, ``null``, ``called`` (rejections), ``tests``, ``share`` with its exact interval
    (``low``, ``high``).
    """
    rows = []
    for name, tests in table.groupby(by, sort=False):
        for null in ("random", "matched"):
            called = int((tests[f"p {null}"] <= ALPHA).sum())
            low, high = intervals.binomial_interval(called, len(tests))
            row = {by: name, "null": null, "called": called, "tests": len(tests), "share": called / len(tests)}
            rows.append(row | {"low": low, "high": high})
    return pd.DataFrame(rows)


def sets_by_position(values: pd.DataFrame, *, size: int) -> dict[str, list[str]]:
    """Three sets without biology: the most and the least expressed genes, and genes evenly spaced over all ranks."""
    order = values.mean().sort_values(ascending=False, kind="stable").index
    spread = order[np.linspace(0, len(order) - 1, size).round().astype(int)]
    return {"first in the sentences": list(order[:size]), "last": list(order[-size:]), "all along": list(spread)}


def random_sets_by_size(
    scores: np.ndarray, positions: np.ndarray, *, sizes: list[int], n_sets: int = 200, seed: int = 0
) -> pd.DataFrame:
    """BAAM of random gene sets of each size below the number of genes: a row a set, ``size``, ``baam``."""
    rng = np.random.default_rng(seed)
    genes = np.flatnonzero(np.isfinite(scores).any(axis=0))
    rows = []
    for size in [size for size in sizes if size < len(genes)]:
        for _ in range(n_sets):
            inside = np.isin(np.arange(scores.shape[1]), rng.choice(genes, size, replace=False))
            value = alignment.baam(scores, positions, inside, n_permutations=1, n_bootstrap=0)["baam"]
            rows.append({"size": size, "baam": value})
    return pd.DataFrame(rows)


def simulated_families(
    *, copies: list[int], n_genes: int = 240, size: int = 24, n_samples: int = 12, n_sets: int = 200, seed: int = 0
) -> pd.DataFrame:
    """BAAM of noise in which the genes of a family receive similar attention, for sets of whole families.

    Both null hypotheses take the members of a set for independent, which these are not.

    Returns
    -------
    A row a family size and set: ``copies`` (the family size) and the columns of `alignment.baam`.
    """
    rows = []
    for n_copies in copies:
        for draw in range(n_sets):
            rng = np.random.default_rng([seed, n_copies, draw])
            families = np.arange(n_genes) // n_copies
            scores = rng.normal(size=n_genes // n_copies)[families] + 0.3 * rng.normal(size=(n_samples, n_genes))
            positions = np.argsort(np.argsort(rng.random((n_samples, n_genes)), axis=1), axis=1) / n_genes
            chosen = rng.choice(n_genes // n_copies, size // n_copies, replace=False)
            options = {"n_permutations": 199, "n_bootstrap": 0, "seed": draw}
            row = alignment.baam(scores, positions, np.isin(families, chosen), **options)
            rows.append({"copies": n_copies, **row})
    return pd.DataFrame(rows)
