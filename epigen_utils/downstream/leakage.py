"""Leakage between training and test cells: shared donors and near-copies of cells."""

from collections.abc import Iterable

import numpy as np
import pandas as pd
from scipy import sparse

from epigen_utils.geneformer.encoded_cells import EncodedCells, token_ids

#: Number of first genes compared, and the share of them in common from which two cells are near-copies. Cells of one
#: type share far fewer; a copy sequenced less deeply shares most.
N_FIRST_GENES, MIN_SHARED = 64, 0.9
#: Cells compared at once.
CHUNK = 2048


def near_copies(
    cells: Iterable[np.ndarray],
    other_cells: Iterable[np.ndarray],
    *,
    front: int = N_FIRST_GENES,
    alike: float = MIN_SHARED,
) -> pd.DataFrame:
    """Find pairs of cells of two sets whose first genes are nearly the same.

    Parameters
    ----------
    cells, other_cells
        Token ids of each cell.
    front
        Number of first genes to compare.
    alike
        Smallest share of common genes, of the larger number of first genes in the pair.

    Returns
    -------
    One row a cell of ``other_cells`` with a near-copy in ``cells``, its best match: ``one`` and ``other``
    (positions in ``cells`` and ``other_cells``) and ``shared`` (share of common genes).
    """
    left, right = _first_genes(cells, front), _first_genes(other_cells, front)
    width = max(left.shape[1], right.shape[1])
    left.resize(left.shape[0], width)
    right.resize(right.shape[0], width)
    n_left, n_right = (np.asarray(side.sum(axis=1)).ravel() for side in (left, right))
    rows = []
    for first in range(0, right.shape[0], CHUNK):
        chunk = right[first : first + CHUNK]
        common = np.asarray((chunk @ left.T).todense(), dtype=float)
        # The denominator is the larger cell: otherwise a cell of three genes would match any cell that contains them.
        share = common / np.maximum(n_right[first : first + CHUNK, None], n_left)
        best = share.argmax(axis=1)
        highest = share[np.arange(len(best)), best]
        rows += [(int(best[i]), first + int(i), float(highest[i])) for i in np.flatnonzero(highest >= alike)]
    return pd.DataFrame(rows, columns=["one", "other", "shared"])


def _first_genes(cells: Iterable[np.ndarray], front: int) -> sparse.csr_matrix:
    tokens = [np.asarray(cell)[:front] for cell in cells]
    indptr = np.concatenate([[0], np.cumsum([len(cell) for cell in tokens])])
    indices = np.concatenate(tokens).astype(np.int64)
    return sparse.csr_matrix((np.ones(len(indices), np.int32), indices, indptr))


def audit_split(
    encoded: EncodedCells, donors: np.ndarray, test: np.ndarray, **limits
) -> tuple[pd.DataFrame, list[str]]:
    """Find donors, and near-copies of cells, on both sides of a split.

    Parameters
    ----------
    donors
        Donor of each cell.
    test
        True for test cells, false for training cells.
    limits
        ``front`` and ``alike`` of `near_copies`.

    Returns
    -------
    One row a pair of donors with near-copies, in descending order of ``cells``: ``training``, ``test`` (donors),
    ``cells`` (of the test donor with a near-copy in the training donor) and ``share`` (of the test donor's cells); and
    a list with one sentence for each finding.
    """
    donors, test = np.asarray(donors).astype(str), np.asarray(test, bool)
    ids = token_ids(encoded)
    sides = [np.flatnonzero(~test), np.flatnonzero(test)]
    shared = sorted(set(donors[sides[0]]) & set(donors[sides[1]]))
    findings = [
        f"donor {str(donor)!r} is on both sides: {(test & (donors == donor)).sum()} of its cells are tested on"
        for donor in shared
    ]
    pairs = near_copies(*([ids[row] for row in side] for side in sides), **limits)
    table = pd.DataFrame({"training": donors[sides[0][pairs["one"]]], "test": donors[sides[1][pairs["other"]]]})
    table = table.groupby(["training", "test"]).size().rename("cells").reset_index()
    table["share"] = table["cells"] / table["test"].map(pd.Series(donors[test]).value_counts())
    table = table.sort_values("cells", ascending=False, ignore_index=True)
    findings += [
        f"{row.cells} cells of donor {row.test!r} ({row.share:.0%} of them) are near-copies of cells of donor "
        f"{row.training!r}"
        for row in table.itertuples()
        if row.training not in shared or row.test not in shared
    ]
    return table, findings
