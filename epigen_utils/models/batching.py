"""Batches of encoded cells: padding to the longest cell of a batch, and the cost of padding."""

from collections.abc import Iterator

import datasets
import numpy as np
import torch


def pad(sequences: list, value: int, length: int | None = None) -> torch.Tensor:
    """Token ids of unequal length as one array, cells x length, padded on the right."""
    padded = torch.full((len(sequences), length or max(map(len, sequences))), value)
    for row, cell in enumerate(sequences):
        padded[row, : len(cell)] = torch.as_tensor(np.asarray(cell, dtype=np.int64))
    return padded


def pad_batch(sequences: list, pad_id: int, device: torch.device | str = "cpu") -> dict[str, torch.Tensor]:
    """``input_ids`` padded by `pad` and their ``attention_mask``, each cells x length."""
    ids = pad(sequences, pad_id)
    return to_device({"input_ids": ids, "attention_mask": (ids != pad_id).long()}, device)


def to_device(batch: dict[str, torch.Tensor], device: torch.device | str) -> dict[str, torch.Tensor]:
    """Move the tensors of a batch to a device."""
    return {name: values.to(device) for name, values in batch.items()}


def stored_lengths(cells: datasets.Dataset) -> np.ndarray:
    """Column ``length`` of encoded cells as an array, in their order.

    `datasets` would give the lengths of selected cells one by one, a minute for tens of millions.
    """
    lengths = cells.data.column("length").to_numpy()
    return lengths if cells._indices is None else lengths[cells._indices.column(0).to_numpy()]


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


def length_batches(
    lengths: np.ndarray, *, size: int | None = None, positions: int = POSITIONS_PER_BATCH
) -> Iterator[np.ndarray]:
    """Batch rows by length, longest first, which reduces padding.

    A batch has ``size`` rows or, if no size is given, at most ``positions`` padded positions (or one row).
    """
    order = np.argsort(-np.asarray(lengths), kind="stable")
    while len(order):
        n_rows = size or max(positions // int(lengths[order[0]]), 1)
        yield order[:n_rows]
        order = order[n_rows:]


#: Label of a position that is not predicted.
IGNORED = -100
