"""Batches of encoded cells: gene masks, padding to the longest cell of a batch, and the cost of padding."""

from collections.abc import Iterator

import numpy as np
import torch


def pad(sequences: list, value: int, length: int | None = None) -> torch.Tensor:
    """Token ids of unequal length as one array, cells x length, padded on the right."""
    padded = torch.full((len(sequences), length or max(map(len, sequences))), value)
    for row, cell in enumerate(sequences):
        padded[row, : len(cell)] = torch.as_tensor(np.asarray(cell, dtype=np.int64))
    return padded


def padding_cost(lengths: np.ndarray, batches: list[np.ndarray], *, pad_to: int | None = None) -> dict[str, float]:
    """Cost of the padding of a set of batches.

    Parameters
    ----------
    lengths
        Tokens of each cell.
    batches
        Positions of the cells of each batch.
    pad_to
        Length of every row; by default the longest of its batch.

    Returns
    -------
    ``share``
        Share of the positions that are padding.
    ``linear``, ``quadratic``
        Sums of row lengths and of squared row lengths, relative to the unpadded cells: the cost per token and per token
        pair.
    """
    widths = np.array([pad_to or lengths[batch].max() for batch in batches], float)
    sizes = np.array([len(batch) for batch in batches], float)
    cell_lengths = lengths[np.concatenate(batches)].astype(float)
    n_positions = (sizes * widths).sum()
    return {
        "share": 1 - cell_lengths.sum() / n_positions,
        "linear": n_positions / cell_lengths.sum(),
        "quadratic": (sizes * widths**2).sum() / np.square(cell_lengths).sum(),
    }


#: Positions in a batch, padding included.
POSITIONS_PER_BATCH = 16_384


def length_batches(lengths: np.ndarray, *, positions: int = POSITIONS_PER_BATCH) -> Iterator[np.ndarray]:
    """Batch rows by length, longest first, with at most ``positions`` padded positions a batch (or one row)."""
    order = np.argsort(-np.asarray(lengths), kind="stable")
    while len(order):
        size = max(positions // int(lengths[order[0]]), 1)
        yield order[:size]
        order = order[size:]


#: Label of a position that is not predicted.
IGNORED = -100
