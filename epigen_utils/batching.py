"""From encoded cells to batches: masks, padding to the longest of the batch, and how much of a batch is padding."""

from dataclasses import dataclass

import numpy as np
import torch

from epigen_utils.models import IGNORED
from epigen_utils.vocabularies import MASK, PAD, Vocabulary

#: Share of the genes of a cell that are to be predicted, and what becomes of them (paper B, section 1.4.2; Devlin et al. 2019).
MASKED, KEPT_AS_MASK, REPLACED = 0.15, 0.8, 0.1


@dataclass
class MaskedGenes:
    """Collates encoded cells into a batch with genes to predict.

    Of the genes of each cell 15% are chosen; of those 80% become the mask token, 10% another gene at random, 10% stay.
    Special tokens and padding are never chosen, nor are they put in a gene's place.

    Attributes
    ----------
    vocabulary
        Of the encoding.
    pad_to
        Length of every row; by default the longest of the batch.
    seed
        A cell's mask depends on this, on its ``row`` and on its ``epoch`` (0 where it has none), and on nothing else: it is the
        same in every batch, process and resumed run, and in every model that is asked.
    """

    vocabulary: Vocabulary
    pad_to: int | None = None
    seed: int = 0

    def __post_init__(self) -> None:
        """Look up the ids of genes and special tokens once."""
        tokens = self.vocabulary.tokens
        self.pad, self.mask = tokens[PAD], tokens[MASK]
        self.genes = torch.from_numpy(self.vocabulary.gene_tokens)
        self.special = torch.tensor([tokens[token] for token in tokens if token.startswith("<")])

    def __call__(self, rows: list[dict]) -> dict[str, torch.Tensor]:
        """Batch of cells: ``input_ids``, ``attention_mask`` and ``labels``, each cells x length, 64-bit integers."""
        ids = pad([row["input_ids"] for row in rows], self.pad, self.pad_to)
        able = ~torch.isin(ids, self.special)
        draw, kind, other = self._drawn(rows, ids.shape)
        chosen = (draw < MASKED) & able
        labels = torch.where(chosen, ids, IGNORED)
        masked = torch.where(chosen & (kind < KEPT_AS_MASK), self.mask, ids)
        swapped = chosen & (kind >= KEPT_AS_MASK) & (kind < KEPT_AS_MASK + REPLACED)
        # Where there is padding, the number is one.
        which = (other * len(self.genes)).long().clamp(max=len(self.genes) - 1)
        masked = torch.where(swapped, self.genes[which], masked)
        return {"input_ids": masked, "attention_mask": (ids != self.pad).long(), "labels": labels}

    def _drawn(self, rows: list[dict], shape: torch.Size) -> torch.Tensor:
        drawn = np.ones((3, *shape), np.float32)
        for place, row in enumerate(rows):
            rng = np.random.default_rng([self.seed, row.get("epoch", 0), row["row"]])
            drawn[:, place, : len(row["input_ids"])] = rng.random((3, len(row["input_ids"])), np.float32)
        return torch.from_numpy(drawn)


def pad(cells: list, value: int, length: int | None = None) -> torch.Tensor:
    """Token ids of unlike length as one array, cells x length, filled up on the right."""
    found = torch.full((len(cells), length or max(map(len, cells))), value)
    for row, cell in enumerate(cells):
        found[row, : len(cell)] = torch.as_tensor(np.asarray(cell, dtype=np.int64))
    return found


def padding(lengths: np.ndarray, batches: list[np.ndarray], *, pad_to: int | None = None) -> dict[str, float]:
    """What a way of making batches costs in padding.

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
    ``share`` of the positions that are padding; ``linear`` and ``quadratic``: positions, and summed squares of row lengths,
    over what the cells alone would need, which is what a cost per token and a cost per pair of tokens go by.
    """
    wide = np.array([pad_to or lengths[batch].max() for batch in batches], float)
    rows = np.array([len(batch) for batch in batches], float)
    of_cells = lengths[np.concatenate(batches)].astype(float)
    positions = (rows * wide).sum()
    return {
        "share": 1 - of_cells.sum() / positions,
        "linear": positions / of_cells.sum(),
        "quadratic": (rows * wide**2).sum() / np.square(of_cells).sum(),
    }
