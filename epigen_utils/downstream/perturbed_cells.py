"""Perturbed cells as a model reads them: in batches whose token ids are computed on the model's device."""

import contextlib
import math
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import torch
from torch.nn.functional import cosine_similarity
from transformers import PreTrainedModel

from epigen_utils.geneformer import embeddings
from epigen_utils.geneformer.vocabularies import CLS, EOS, PAD, Vocabulary
from epigen_utils.models import attention_kernels, batching

#: States of a batch on a CUDA device, positions x width: 256 MB in fp32, which keeps the device busy at any width.
VALUES_PER_CUDA_BATCH = 2**26


@dataclass(frozen=True)
class CellTokens:
    """Token ids of a cell: its genes, highest first, and the special tokens before and behind them."""

    genes: np.ndarray
    before: np.ndarray
    behind: np.ndarray

    @classmethod
    def of(cls, ids: np.ndarray, vocabulary: Vocabulary, max_length: int | None = None) -> "CellTokens":
        """Separate the genes from the special tokens; a length, these included, to which the cell is truncated."""
        first = int(ids[0] == vocabulary.tokens.get(CLS, -1))
        last = len(ids) - int(ids[-1] == vocabulary.tokens.get(EOS, -1))
        end = last if max_length is None else min(last, max_length - (len(ids) - last))
        return cls(ids[first:end], ids[:first], ids[last:])

    def with_genes(self, genes: np.ndarray) -> np.ndarray:
        """Token ids of the cell with its genes replaced."""
        return np.concatenate([self.before, genes, self.behind])


@dataclass(frozen=True)
class Part:
    """Perturbations of one cell that leave it equally long; places count from its first token, special ones too.

    Attributes
    ----------
    n_base, n_after
        Genes of the cell unperturbed, truncated as the perturbed one is, and perturbed.
    tokens
        Perturbed genes, perturbations x genes.
    removed
        Places that they leave, ascending, each less the number of those before it; beyond the cell if it lacks the
        gene. Perturbations x genes.
    inserted
        Places to which they return, one after another, perturbations x genes (x 0 if they do not).
    rows
        ``cell``, ``gene`` and ``rank`` of each perturbation (`perturbation.perturb`).
    """

    cell: CellTokens
    n_base: int
    n_after: int
    tokens: np.ndarray
    removed: np.ndarray
    inserted: np.ndarray
    rows: list[tuple[int, str, int]]

    def length(self, n_genes: int) -> int:
        """Tokens of the cell with that many genes."""
        return len(self.cell.before) + n_genes + len(self.cell.behind)

    def bounds(self, n_genes: int) -> tuple[int, int, int, int]:
        """Place of the first gene, end of that many, length with them; and the end of the unperturbed ones."""
        first = len(self.cell.before)
        return first, first + n_genes, self.length(n_genes), first + self.n_base


def _grouped(parts: Iterator[Part], positions: int) -> Iterator[list[Part]]:
    """Consecutive parts of at most that many padded positions together, or one part that has more."""
    group, n_cells, longest = [], 0, 0
    for part in parts:
        n_cells, longest = n_cells + len(part.rows), max(longest, part.length(part.n_after))
        if group and n_cells * longest > positions:
            yield group
            group, n_cells, longest = [], len(part.rows), part.length(part.n_after)
        group.append(part)
    if group:
        yield group


@dataclass(frozen=True)
class Cells:
    """Cells as a model reads them.

    Attributes
    ----------
    states
        Hidden states, cells x length x width.
    genes
        Mask of the positions that hold genes, cells x length.
    sources
        Place that each position's token had before the perturbation, beyond the cell if it had none; cells x length.
    """

    states: torch.Tensor
    genes: torch.Tensor
    sources: torch.Tensor

    def pooled(self, pooling: str) -> torch.Tensor:
        """Cells x width."""
        return embeddings.pool_states(self.states, self.genes, pooling)


@dataclass(frozen=True)
class Batch:
    """Perturbed cells, their rows of the table, and the unperturbed cells, of which each is the one at ``of``."""

    rows: list[tuple[int, str, int]]
    of: torch.Tensor
    before: Cells
    after: Cells

    def cosines(self, pooling: str) -> torch.Tensor:
        """Cosine of each cell before and after: of its vector, or the mean over its unperturbed genes."""
        if pooling != "mean":
            return cosine_similarity(self.before.pooled(pooling)[self.of], self.after.pooled(pooling), dim=-1)
        length = self.before.genes.shape[1]
        partners = self.of[:, None], self.after.sources.clamp(max=length - 1)
        compared = self.after.genes & (self.after.sources < length) & self.before.genes[partners]
        cosines = cosine_similarity(self.before.states[partners], self.after.states, dim=-1)  # (cells, length)
        return cosines.where(compared, 0).sum(dim=1) / compared.sum(dim=1)

    def shifts(self, pooling: str, centres: torch.Tensor) -> torch.Tensor:
        """Cells x states, from the centres of the states, states x width."""
        before, after = (
            cosine_similarity(side.pooled(pooling)[:, None], centres, dim=-1) for side in (self.before, self.after)
        )
        return after - before[self.of]


@torch.no_grad()
def read_batches(
    model: PreTrainedModel,
    parts: Iterator[Part],
    vocabulary: Vocabulary,
    layer: int,
    precision: str,
    *,
    keep_places: bool = False,
) -> Iterator[Batch]:
    """Perturbed cells in the order of the parts, all tensors on the model's device.

    Token ids are computed there from a few numbers a perturbation, which are moved once a group of parts: a transfer
    waits until a GPU has finished all work before it.
    """
    reader = _Reader(embeddings.truncate_model(model, layer), vocabulary, precision, keep_places)
    positions = batching.POSITIONS_PER_BATCH
    if model.device.type == "cuda":
        positions = VALUES_PER_CUDA_BATCH // model.config.hidden_size
    for group in _grouped(parts, positions):
        whole = batching.pad([part.cell.with_genes(part.cell.genes) for part in group], vocabulary.tokens[PAD])
        whole = whole.to(model.device)
        tokens, removed, inserted = (
            torch.from_numpy(np.concatenate([getattr(part, name) for part in group])).to(model.device)
            for name in ("tokens", "removed", "inserted")
        )
        rows = [row for part in group for row in part.rows]
        of = np.repeat(np.arange(len(group)), [len(part.rows) for part in group])
        of = torch.from_numpy(of).to(model.device)
        base, after = (
            torch.tensor([part.bounds(getattr(part, name)) for part in group], device=model.device)
            for name in ("n_base", "n_after")
        )
        lengths = {part.length(part.n_after) for part in group}
        unchanged = [values[: len(group), :0] for values in (tokens, removed, inserted)]
        before = reader.read(whole, base, unchanged, {part.length(part.n_base) for part in group})
        n_batches = math.ceil(len(rows) / max(positions // max(lengths), 1))
        size = math.ceil(len(rows) / n_batches)
        for start in range(0, len(rows), size):
            some = slice(start, start + size)
            changes = [values[some] for values in (tokens, removed, inserted)]
            read = reader.read(whole[of[some]], after[of[some]], changes, lengths)
            yield Batch(rows[some], of[some], before, read)


@dataclass(frozen=True)
class _Reader:
    """A model that reads perturbed cells, up to a layer."""

    model: PreTrainedModel
    vocabulary: Vocabulary
    precision: str
    keep_places: bool

    def read(self, whole: torch.Tensor, bounds: torch.Tensor, changes: list[torch.Tensor], lengths: set[int]) -> Cells:
        """Perturb cells and read them.

        Parameters
        ----------
        whole
            Token ids of the cells before, cells x length.
        bounds
            `Part.bounds` of the cells after, cells x 4.
        changes
            ``tokens``, ``removed`` and ``inserted`` of `Part`, each cells x genes.
        lengths
            Lengths of the cells after.
        """
        tokens, removed, inserted = changes
        first, end, length, base_end = (column[:, None] for column in bounds.unbind(dim=1))
        places = torch.arange(max(lengths), device=whole.device).expand(len(whole), -1)  # (cells, length)
        sources = places
        for place in removed[:, :, None].unbind(dim=1):
            sources = sources + (places >= place)
        for k, place in enumerate(inserted[:, :, None].unbind(dim=1)):
            moved = sources.gather(1, places - (places > place).long())
            sources = moved.where(places != place, whole.shape[1] + k)
        there = places < length
        # A truncated cell keeps the special token behind its genes.
        sources = sources.where(places != end, base_end).where(there, 0)
        ids = torch.cat([whole, tokens], dim=1).gather(1, sources)
        known = self.vocabulary.tokens
        ids = ids.where(places != end, known.get(EOS, 0)).where(there, known[PAD])
        given = {"input_ids": ids}
        # Without a mask PyTorch can choose its fastest kernel.
        if len(lengths) > 1:
            given["attention_mask"] = there.long()
        if self.keep_places:
            given["position_ids"] = sources
        with _autocast(self.model, self.precision):
            states = self.model(**given).last_hidden_state
        return Cells(states.float(), (places >= first) & (places < end), sources)


def _autocast(model: PreTrainedModel, precision: str) -> contextlib.AbstractContextManager:
    if precision == "fp32":
        return contextlib.nullcontext()
    stack = contextlib.ExitStack()
    stack.enter_context(torch.autocast(model.device.type, torch.bfloat16))
    if model.device.type == "cpu":
        stack.enter_context(attention_kernels.attention_implementation(model, "matmul"))
    return stack
