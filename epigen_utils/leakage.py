"""Whether what a model is tested on was among what it learned from: donors, and near-copies of cells."""

from collections.abc import Iterable

import numpy as np
import pandas as pd
from scipy import sparse

#: Genes at the front of a cell that are compared, and the share of them from which two cells are near-copies. Cells of one type
#: share far fewer; a copy that was read less deeply shares most.
FRONT, ALIKE = 64, 0.9
#: Cells compared at once.
CHUNK = 2048


def near_copies(
    one: Iterable[np.ndarray], other: Iterable[np.ndarray], *, front: int = FRONT, alike: float = ALIKE
) -> pd.DataFrame:
    """Pairs of cells of two sets whose first genes are nearly the same.

    Parameters
    ----------
    one, other
        Token ids of each cell.
    front
        Genes at the front; pairs of which one has fewer are compared by its own number.
    alike
        Share of those genes that both have in front.

    Returns
    -------
    ``one`` and ``other`` (positions) and ``shared``, the best partner of each cell of the other set that has one.
    """
    left, right = _fronts(one, front), _fronts(other, front)
    width = max(left.shape[1], right.shape[1])
    left.resize(left.shape[0], width)
    right.resize(right.shape[0], width)
    of_left, of_right = (np.asarray(side.sum(axis=1)).ravel() for side in (left, right))
    rows = []
    for first in range(0, right.shape[0], CHUNK):
        part = right[first : first + CHUNK]
        both = np.asarray((part @ left.T).todense(), dtype=float)
        # The larger of the two, or a cell of three genes would be in every other.
        share = both / np.maximum(of_right[first : first + CHUNK, None], of_left)
        best = share.argmax(axis=1)
        top = share[np.arange(len(best)), best]
        rows += [(int(best[i]), first + int(i), float(top[i])) for i in np.flatnonzero(top >= alike)]
    return pd.DataFrame(rows, columns=["one", "other", "shared"])


def _fronts(cells: Iterable[np.ndarray], front: int) -> sparse.csr_matrix:
    tokens = [np.asarray(cell)[:front] for cell in cells]
    indptr = np.concatenate([[0], np.cumsum([len(cell) for cell in tokens])])
    indices = np.concatenate(tokens).astype(np.int64)
    return sparse.csr_matrix((np.ones(len(indices), np.int32), indices, indptr))


def audit(encoded: object, donors: np.ndarray, test: np.ndarray, **limits) -> tuple[pd.DataFrame, list[str]]:
    """Look for donors, and for near-copies of cells, on both sides of a split.

    Parameters
    ----------
    encoded
        Cells; something whose ``["input_ids"]`` are token ids.
    donors
        Who each cell is from.
    test
        True where a cell is tested on, false where it is learned from.
    limits
        As of `near_copies`.

    Returns
    -------
    A row a pair of donors with near-copies: ``training``, ``test`` (donors), ``cells`` (of the test donor that have a near-copy
    there) and ``share`` (of the test donor's cells), most first; and a sentence for each thing found, none if nothing is.
    """
    donors, test = np.asarray(donors).astype(str), np.asarray(test, bool)
    ids = [np.asarray(cell) for cell in encoded["input_ids"]]
    sides = [np.flatnonzero(~test), np.flatnonzero(test)]
    both = sorted(set(donors[sides[0]]) & set(donors[sides[1]]))
    found = [
        f"donor {str(donor)!r} is on both sides: {(test & (donors == donor)).sum()} of its cells are tested on"
        for donor in both
    ]
    pairs = near_copies(*([ids[row] for row in side] for side in sides), **limits)
    table = pd.DataFrame({"training": donors[sides[0][pairs["one"]]], "test": donors[sides[1][pairs["other"]]]})
    table = table.groupby(["training", "test"]).size().rename("cells").reset_index()
    table["share"] = table["cells"] / table["test"].map(pd.Series(donors[test]).value_counts())
    table = table.sort_values("cells", ascending=False, ignore_index=True)
    found += [
        f"{row.cells} cells of donor {row.test!r} ({row.share:.0%} of them) are near-copies of cells of donor {row.training!r}"
        for row in table.itertuples()
        if row.training not in both or row.test not in both
    ]
    return table, found
