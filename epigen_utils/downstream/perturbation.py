"""In silico perturbation: genes deleted, overexpressed, inhibited or activated, and how far the cell moves.

Paper B, abstract and section 4.1; Theodoris et al. 2023, Methods. The conventions are those of official Geneformer's
``InSilicoPerturber``. Deviations, where it is wrong or fails, are listed in tests/downstream/test_perturbation.py.

- Without states the effect is the cosine of a gene's hidden states before and after, averaged over the genes present on
  both sides; with pooling ``first`` it is the cosine of the cell's own vector.
- With states it is cos(perturbed cell, state) - cos(cell, state), and both means include the perturbed genes.
- Genes given together are perturbed together. Deletion, inhibition and activation require that a cell expresses all of
  them; overexpression applies to every cell and inserts a gene that the cell does not express.
"""

import contextlib
import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np
import pandas as pd
import torch
from torch.nn.functional import cosine_similarity
from transformers import PreTrainedModel

from epigen_utils.errors import DataError
from epigen_utils.geneformer import embeddings
from epigen_utils.geneformer.encoded_cells import EncodedCells, token_ids
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
    def of(cls, ids: np.ndarray, vocabulary: Vocabulary) -> "CellTokens":
        """Separate the genes from the special tokens."""
        first = int(ids[0] == vocabulary.tokens.get(CLS, -1))
        last = len(ids) - int(ids[-1] == vocabulary.tokens.get(EOS, -1))
        return cls(ids[first:last], ids[:first], ids[last:])

    def with_genes(self, genes: np.ndarray) -> np.ndarray:
        """Token ids of the cell with its genes replaced."""
        return np.concatenate([self.before, genes, self.behind])


def _nowhere(ranks: np.ndarray, _n_genes: int, _quartiles: int) -> np.ndarray:
    return ranks[:, :0]


def _in_front(ranks: np.ndarray, _n_genes: int, _quartiles: int) -> np.ndarray:
    return np.broadcast_to(np.arange(ranks.shape[1]), ranks.shape)


def _by_quartiles(ranks: np.ndarray, n_genes: int, quartiles: int) -> np.ndarray:
    """Each gene ``quartiles`` quarters of the cell's ranks to the front, in the middle of the target quarter."""
    quarters = ranks * 4 // n_genes
    targets = np.clip(quarters - quartiles, 0, 3)
    places = np.where(targets == quarters, ranks, ((targets + 0.5) / 4 * n_genes).astype(np.int64))
    n_others = n_genes - ranks.shape[1]
    return np.minimum(places, n_others + np.arange(ranks.shape[1]))


#: Where perturbed genes return after all were taken out, one after another, from their ranks, the cell's number of
#: genes and the quartiles: perturbations x genes; and whether the cell must express them.
PERTURBATIONS: dict[str, tuple[Callable[[np.ndarray, int, int], np.ndarray], bool]] = {
    "delete": (_nowhere, True),
    "overexpress": (_in_front, False),
    "inhibit": (lambda ranks, n_genes, quartiles: _by_quartiles(ranks, n_genes, -quartiles), True),
    "activate": (_by_quartiles, True),
}


def delete(
    model: PreTrainedModel, cells: EncodedCells, vocabulary: Vocabulary, genes: list[str] | str = "all", **options
):
    """Delete genes from cells: `perturb` with kind ``delete``.

    Examples
    --------
    >>> from epigen_utils.downstream import perturbation
    >>> from epigen_utils.geneformer import vocabularies
    >>> from epigen_utils.models import presets
    >>> genes = ["ENSG00000000001", "ENSG00000000002", "ENSG00000000003"]
    >>> vocabulary = vocabularies.vocabulary_from_medians(dict.fromkeys(genes, 1.0), name="mine")
    >>> model = presets.build(presets.preset("bert-tiny", vocab_size=vocabulary.size), "masked-lm")
    >>> cells = {"input_ids": [[2, 3, 4], [4, 2]]}
    >>> effects = perturbation.delete(model, cells, vocabulary, genes[:1])
    >>> effects[["cell", "gene", "rank"]]
       cell             gene  rank
    0     0  ENSG00000000001     0
    1     1  ENSG00000000001     1
    >>> bool((effects["cosine"] < 1).all())
    True
    """
    return perturb(model, cells, vocabulary, "delete", genes, **options)


def overexpress(
    model: PreTrainedModel, cells: EncodedCells, vocabulary: Vocabulary, genes: list[str] | str = "all", **options
):
    """Move genes to the front of cells: `perturb` with kind ``overexpress``."""
    return perturb(model, cells, vocabulary, "overexpress", genes, **options)


def perturb(
    model: PreTrainedModel,
    cells: EncodedCells,
    vocabulary: Vocabulary,
    kind: str,
    genes: list[str] | str = "all",
    *,
    together: bool = True,
    states: dict[str, np.ndarray] | None = None,
    layer: int = -1,
    pooling: str = "mean",
    quartiles: int = 1,
    keep_places: bool = False,
    max_length: int | None = None,
    precision: str = "fp32",
) -> pd.DataFrame:
    """Perturb cells and measure how far each moves.

    Parameters
    ----------
    kind
        One of `PERTURBATIONS`. ``inhibit`` and ``activate`` move a gene by quarters of the cell's ranks, to the
        middle of the target quarter.
    genes
        Ensembl ids, or ``all`` for every gene of a cell one by one (overexpression skips the first, which cannot rise).
    together
        Whether a list of genes is perturbed together or one by one.
    states
        Name -> centre of the state's cells (`embeddings.state_centres`), width; effects are then shifts towards each
        state.
    quartiles
        Quarters by which genes move.
    keep_places
        Whether the genes remaining after a deletion keep their positions. Officially every later gene moves up by one,
        which moves the cell too, whichever gene was deleted (`epigen_utils.downstream.screening`); with kept
        positions the effect is that of the gene's absence alone.
    max_length
        Maximum length of a cell, special tokens included; overexpression truncates both the perturbed and the original
        cell to it. Default: the model's positions.
    precision
        ``fp32``, or ``bf16`` by automatic mixed precision.

    Returns
    -------
    A row a cell and perturbation:

    - ``cell``: position of the cell
    - ``gene``: Ensembl id, or ids joined by +
    - ``rank``: position among the cell's ids; -1 if the gene is not expressed, or several are perturbed
    - ``cosine``, or ``shift_<state>`` for each state: the effect

    Raises
    ------
    DataError
        If there is no such kind, ``keep_places`` is set for another kind than a deletion, a gene is not in the
        vocabulary, or no cell expresses the genes to be perturbed.
    """
    options = {"together": together, "quartiles": quartiles, "keep_places": keep_places, "max_length": max_length}
    parts = _checked_parts(model, cells, vocabulary, kind, genes, **options)
    batches = _batches(model, parts, vocabulary, layer, precision, keep_places=keep_places)
    if states:
        return _shift_tables(batches, {pooling: states}, model.device)[pooling]
    rows, effects = [], []
    for batch in batches:
        rows += batch.rows
        effects.append(batch.cosines(pooling))
    return _effect_table(rows, torch.cat(effects)[:, None], ["cosine"])


def shifts_by_pooling(
    model: PreTrainedModel,
    cells: EncodedCells,
    vocabulary: Vocabulary,
    kind: str,
    genes: list[str] | str = "all",
    *,
    states: dict[str, dict[str, np.ndarray]],
    together: bool = True,
    layer: int = -1,
    precision: str = "fp32",
) -> dict[str, pd.DataFrame]:
    """Shifts of cells read in several ways from one pass of the model: the table of `perturb` by pooling.

    Parameters
    ----------
    states
        Pooling -> states as for `perturb`, centred with the same pooling.
    """
    parts = _checked_parts(model, cells, vocabulary, kind, genes, together=together)
    return _shift_tables(_batches(model, parts, vocabulary, layer, precision), states, model.device)


def _checked_parts(
    model: PreTrainedModel,
    cells: EncodedCells,
    vocabulary: Vocabulary,
    kind: str,
    genes: list[str] | str,
    *,
    together: bool,
    quartiles: int = 1,
    keep_places: bool = False,
    max_length: int | None = None,
) -> Iterator["_Part"]:
    if kind not in PERTURBATIONS:
        raise DataError(f"perturbation {kind!r}: there are {', '.join(PERTURBATIONS)}")
    if keep_places and kind != "delete":
        raise DataError(f"keep_places: only deletions can keep places, not {kind!r}; leave it out")
    split_cells = [CellTokens.of(ids.astype(np.int64), vocabulary) for ids in token_ids(cells)]
    groups = None
    if not isinstance(genes, str):
        if missing := [gene for gene in genes if gene not in vocabulary.tokens]:
            raise DataError(
                f"gene {missing[0]!r}: not in the vocabulary {vocabulary.name!r}; give Ensembl ids that are"
            )
        named = [list(dict.fromkeys(genes))] if together else [[gene] for gene in genes]
        groups = np.array([[vocabulary.tokens[gene] for gene in group] for group in named])
        for group, tokens in zip(named, groups, strict=True):
            if PERTURBATIONS[kind][1] and not any(np.isin(tokens, cell.genes).all() for cell in split_cells):
                raise DataError(
                    f"gene {'+'.join(group)!r}: no cell expresses {'it' if len(group) == 1 else 'them all'}, "
                    f"so that there is nothing to {kind}; choose another, or overexpress"
                )
    return _parts(split_cells, vocabulary, kind, groups, quartiles, max_length or model.config.max_position_embeddings)


@dataclass(frozen=True)
class _Part:
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
        ``cell``, ``gene`` and ``rank`` of each perturbation (`perturb`).
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


def _parts(
    cells: list[CellTokens],
    vocabulary: Vocabulary,
    kind: str,
    groups: np.ndarray | None,
    quartiles: int,
    max_length: int,
) -> Iterator[_Part]:
    """Perturbations in the order of the cells, of each group (groups x genes; None: of each gene of a cell)."""
    placed, must_express = PERTURBATIONS[kind]
    names = {token: gene for gene, token in vocabulary.tokens.items()}
    for number, cell in enumerate(cells):
        n, first = len(cell.genes), len(cell.before)
        rank_of = np.full(vocabulary.size, -1)
        rank_of[cell.genes] = np.arange(n)
        tokens = cell.genes[int(kind == "overexpress") :, None] if groups is None else groups
        ranks = rank_of[tokens]  # (perturbations, genes), as tokens
        n_missing = (ranks < 0).sum(axis=1)
        n_genes = tokens.shape[1]
        for missing in [0] if must_express else np.unique(n_missing):
            of, lacking = ranks[n_missing == missing], tokens[n_missing == missing]
            inserted = placed(of, n, quartiles)
            whole = n - (n_genes - missing) + inserted.shape[1]
            n_after = min(whole, max_length - first - len(cell.behind))
            if not (len(of) and n_after):
                continue
            removed = np.sort(np.where(of < 0, np.iinfo(np.int32).max, of), axis=1) - np.arange(n_genes)
            shown = of[:, 0] if n_genes == 1 else np.full(len(of), -1)
            rows = [
                (number, "+".join(names[token] for token in group), rank if rank < 0 else rank + first)
                for group, rank in zip(lacking.tolist(), shown.tolist(), strict=True)
            ]
            yield _Part(cell, n - (whole - n_after), n_after, lacking, removed + first, inserted + first, rows)


def _grouped(parts: Iterator[_Part], positions: int) -> Iterator[list[_Part]]:
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
class _Cells:
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
class _Batch:
    """Perturbed cells, their rows of the table, and the unperturbed cells, of which each is the one at ``of``."""

    rows: list[tuple[int, str, int]]
    of: torch.Tensor
    before: _Cells
    after: _Cells

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
def _batches(
    model: PreTrainedModel,
    parts: Iterator[_Part],
    vocabulary: Vocabulary,
    layer: int,
    precision: str,
    *,
    keep_places: bool = False,
) -> Iterator[_Batch]:
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
            yield _Batch(rows[some], of[some], before, read)


@dataclass(frozen=True)
class _Reader:
    """A model that reads perturbed cells, up to a layer."""

    model: PreTrainedModel
    vocabulary: Vocabulary
    precision: str
    keep_places: bool

    def read(self, whole: torch.Tensor, bounds: torch.Tensor, changes: list[torch.Tensor], lengths: set[int]) -> _Cells:
        """Perturb cells and read them.

        Parameters
        ----------
        whole
            Token ids of the cells before, cells x length.
        bounds
            `_Part.bounds` of the cells after, cells x 4.
        changes
            ``tokens``, ``removed`` and ``inserted`` of `_Part`, each cells x genes.
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
        return _Cells(states.float(), (places >= first) & (places < end), sources)


def _shift_tables(
    batches: Iterator[_Batch], states: dict[str, dict[str, np.ndarray]], device: torch.device
) -> dict[str, pd.DataFrame]:
    targets = {
        pooling: torch.tensor(np.stack(list(some.values()))).float().to(device) for pooling, some in states.items()
    }
    rows, effects = [], {pooling: [] for pooling in states}
    for batch in batches:
        rows += batch.rows
        for pooling, centres in targets.items():
            effects[pooling].append(batch.shifts(pooling, centres))
    return {
        pooling: _effect_table(rows, torch.cat(parts), [f"shift_{name}" for name in states[pooling]])
        for pooling, parts in effects.items()
    }


def _effect_table(rows: list[tuple[int, str, int]], effects: torch.Tensor, columns: list[str]) -> pd.DataFrame:
    """Table of `perturb` from its rows and their effects, rows x columns."""
    table = pd.DataFrame(rows, columns=["cell", "gene", "rank"])
    table[columns] = effects.cpu().numpy()
    return table.sort_values(["cell", "rank"], kind="stable", ignore_index=True)


def _autocast(model: PreTrainedModel, precision: str) -> contextlib.AbstractContextManager:
    if precision == "fp32":
        return contextlib.nullcontext()
    stack = contextlib.ExitStack()
    stack.enter_context(torch.autocast(model.device.type, torch.bfloat16))
    if model.device.type == "cpu":
        stack.enter_context(attention_kernels.attention_implementation(model, "matmul"))
    return stack
