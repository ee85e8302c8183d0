"""Batches of encoded cells: gene masks, padding to the longest cell of a batch, and the cost of padding."""

from dataclasses import dataclass

import numpy as np
import torch

from epigen_utils.models import IGNORED
from epigen_utils.vocabularies import MASK, PAD, Vocabulary

#: Share of a cell's genes that are predicted; of these, the shares replaced by the mask token and by a random gene
#: (paper B, section 1.4.2; Devlin et al. 2019).
MASKED, KEPT_AS_MASK, REPLACED = 0.15, 0.8, 0.1


@dataclass
class MaskedGenes:
    """Collate encoded cells into a batch with masked genes.

    Each gene is selected with probability 15%; of the selected genes 80% become the mask token, 10% a random gene, and
    10% stay. Special tokens and padding are neither selected nor used as a random gene.

    Attributes
    ----------
    vocabulary
        Vocabulary of the encoding.
    pad_to
        Length of every row; by default the longest of the batch.
    seed
        A cell's mask is a function of this seed, its ``row`` and its ``epoch`` (0 if absent) only, and so the same in
        every batch, process, resumed run and model.
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
        selection, action, replacement = self._draws(rows, ids.shape)
        selected = (selection < MASKED) & ~torch.isin(ids, self.special)
        labels = torch.where(selected, ids, IGNORED)
        masked = torch.where(selected & (action < KEPT_AS_MASK), self.mask, ids)
        swapped = selected & (action >= KEPT_AS_MASK) & (action < KEPT_AS_MASK + REPLACED)
        # The draw is 1 at padding, and would index past the last gene.
        genes = self.genes[(replacement * len(self.genes)).long().clamp(max=len(self.genes) - 1)]
        masked = torch.where(swapped, genes, masked)
        return {"input_ids": masked, "attention_mask": (ids != self.pad).long(), "labels": labels}

    def _draws(self, rows: list[dict], shape: torch.Size) -> torch.Tensor:
        draws = np.ones((3, *shape), np.float32)  # (3, cells, length)
        for index, row in enumerate(rows):
            rng = np.random.default_rng([self.seed, row.get("epoch", 0), row["row"]])
            draws[:, index, : len(row["input_ids"])] = rng.random((3, len(row["input_ids"])), np.float32)
        return torch.from_numpy(draws)


def pad(cells: list, value: int, length: int | None = None) -> torch.Tensor:
    """Token ids of unequal length as one array, cells x length, padded on the right."""
    padded = torch.full((len(cells), length or max(map(len, cells))), value)
    for row, cell in enumerate(cells):
        padded[row, : len(cell)] = torch.as_tensor(np.asarray(cell, dtype=np.int64))
    return padded


def padding(lengths: np.ndarray, batches: list[np.ndarray], *, pad_to: int | None = None) -> dict[str, float]:
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
