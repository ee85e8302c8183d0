"""Permutation of labels within donors or among them, and permutation tests."""

import itertools
import math
from collections.abc import Callable, Iterator

import numpy as np

from epigen_utils.errors import DataError

#: Fewest permutations with which a one-sided p can be 0.05.
MIN_PERMUTATIONS = 19


def permuted_labels(
    labels: np.ndarray, *, donors: np.ndarray | None = None, n_permutations: int = 999, seed: int = 0
) -> Iterator[np.ndarray]:
    """Permuted labels in the order of `permutation_test`, which documents the parameters and errors."""
    units, blocks, codes = _exchangeable_blocks(np.asarray(labels), donors)
    n_others = count_permutations(labels, donors)
    if not n_others:
        raise DataError(
            "permutation test: donors and groups leave one permutation only; give more donors, or leave donor out"
        )
    if n_others <= n_permutations:
        every = _all_permutations(units, blocks)
        permutations = (permuted for permuted in every if not np.array_equal(permuted, units))
    else:
        permutations = _random_permutations(units, blocks, n_permutations, np.random.default_rng(seed))
    yield from (permuted if codes is None else permuted[codes] for permuted in permutations)


def permutation_test(
    score: Callable[[np.ndarray], float],
    labels: np.ndarray,
    *,
    donors: np.ndarray | None = None,
    n_permutations: int = 999,
    seed: int = 0,
) -> tuple[float, float, np.ndarray]:
    """One-sided permutation test of a score of labels.

    All distinct permutations are enumerated if there are at most ``n_permutations + 1``; otherwise ``n_permutations``
    are drawn at random. `pvalue` gives p.

    Parameters
    ----------
    score
        Maps an array of labels to a number; larger is more extreme.
    labels
        Label of each sample.
    donors
        Donor of each sample. If every donor has samples of one label only, donors exchange labels and the samples of a
        donor stay together; otherwise labels are permuted within donors.

    Returns
    -------
    The observed score, p, and the scores of the m permutations, shape (m,).

    Raises
    ------
    DataError
        If the design allows no permutation other than the observed labels.

    Examples
    --------
    >>> import numpy as np
    >>> from epigen_utils.stats import permutation
    >>> values = np.array([1.0, 2.0, 3.0, 7.0, 8.0, 9.0])
    >>> def difference(labels):
    ...     return values[labels == "b"].mean() - values[labels == "a"].mean()
    >>> observed, p, null = permutation.permutation_test(difference, np.array(list("aaabbb")))
    >>> print(observed, p, len(null))
    6.0 0.05 19
    """
    observed = score(np.asarray(labels))
    permutations = permuted_labels(labels, donors=donors, n_permutations=n_permutations, seed=seed)
    null = np.array([score(permuted) for permuted in permutations])
    return observed, pvalue(observed, null), null


def pvalue(observed: float, null: np.ndarray) -> float:
    """One-sided p = (b + 1) / (m + 1), b of m null scores being at least the observed one (Phipson and Smyth 2010)."""
    return float(((null >= observed - 1e-12).sum() + 1) / (len(null) + 1))


def two_sided_pvalue(observed: float, null: np.ndarray) -> float:
    """Twice the smaller of both one-sided p-values (`pvalue`), at most 1, for a score on either side of chance.

    Examples
    --------
    >>> import numpy as np
    >>> from epigen_utils.stats import permutation
    >>> null = np.linspace(0.4, 0.6, 39)
    >>> [permutation.two_sided_pvalue(observed, null) for observed in (0.9, 0.1, 0.5)]
    [0.05, 0.05, 1.0]
    """
    return min(2 * min(pvalue(observed, null), pvalue(-observed, -null)), 1.0)


def count_permutations(labels: np.ndarray, donors: np.ndarray | None = None) -> int:
    """Number of permutations, by the rules of `permutation_test`, that differ from the observed labels."""
    units, blocks, _ = _exchangeable_blocks(np.asarray(labels), donors)
    return math.prod(_count_arrangements(units[index]) for index in blocks) - 1


def _exchangeable_blocks(
    labels: np.ndarray, donors: np.ndarray | None
) -> tuple[np.ndarray, list[np.ndarray], np.ndarray | None]:
    """Labels of the exchangeable units, blocks of units, and, if the units are donors, the donor of each sample."""
    codes = np.zeros(len(labels), int) if donors is None else np.unique(donors, return_inverse=True)[1]
    members = [np.flatnonzero(codes == code) for code in range(codes.max() + 1)]
    if donors is None or any(len(set(labels[index])) > 1 for index in members):
        return labels, members, None
    return np.array([labels[index[0]] for index in members]), [np.arange(len(members))], codes


def _count_arrangements(labels: np.ndarray) -> int:
    sizes = np.unique(labels, return_counts=True)[1]
    return math.factorial(len(labels)) // math.prod(math.factorial(size) for size in sizes)


def _arrangements(labels: list):
    """Distinct orders of a multiset, by choosing the positions of each label in turn."""
    if len(set(labels)) <= 1:
        yield list(labels)
        return
    first = labels[0]
    rest = [label for label in labels if label != first]
    for positions in itertools.combinations(range(len(labels)), len(labels) - len(rest)):
        for others in _arrangements(rest):
            remaining = iter(others)
            yield [first if i in positions else next(remaining) for i in range(len(labels))]


def _all_permutations(labels: np.ndarray, members: list[np.ndarray]):
    for choice in itertools.product(*(list(_arrangements(list(labels[index]))) for index in members)):
        permuted = labels.copy()
        for index, values in zip(members, choice, strict=True):
            permuted[index] = values
        yield permuted


def _random_permutations(labels: np.ndarray, members: list[np.ndarray], n: int, rng: np.random.Generator):
    for _ in range(n):
        permuted = labels.copy()
        for index in members:
            permuted[index] = rng.permutation(labels[index])
        yield permuted
