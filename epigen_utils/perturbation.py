"""In silico perturbation: genes deleted, overexpressed, inhibited or activated, and how far the cell moves.

Paper B, abstract and section 4.1; Theodoris et al. 2023, Methods. Conventions are official Geneformer's ``InSilicoPerturber``,
and where that is wrong or stops ours gives the right answer (tests/test_perturbation.py names each place):

- Without states the effect is the mean, over the genes that are left on both sides, of the cosine of a gene's states before and
  after; with pooling ``first`` it is the cosine of the cell's own vector.
- With states it is cos(perturbed cell, state) - cos(cell, state), and the perturbed genes are part of both means.
- Genes that are given together are perturbed together. To be deleted, inhibited or activated a cell must show all of them; all
  cells can overexpress, and a gene that a cell does not show is put in.
"""

import contextlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np
import pandas as pd
import torch
from torch.nn.functional import cosine_similarity
from transformers import PreTrainedModel

from epigen_utils import hidden_states, models
from epigen_utils.errors import DataError
from epigen_utils.vocabularies import CLS, EOS, Vocabulary


@dataclass(frozen=True)
class Cell:
    """A cell as ids of its genes, highest first, with what stands before and behind them."""

    genes: np.ndarray
    before: np.ndarray
    behind: np.ndarray

    @classmethod
    def of(cls, ids: np.ndarray, vocabulary: Vocabulary) -> "Cell":
        """Take special tokens off."""
        first = int(ids[0] == vocabulary.tokens.get(CLS, -1))
        last = len(ids) - int(ids[-1] == vocabulary.tokens.get(EOS, -1))
        return cls(ids[first:last], ids[:first], ids[last:])

    def with_genes(self, genes: np.ndarray) -> np.ndarray:
        """Ids with other genes."""
        return np.concatenate([self.before, genes, self.behind])


def _deleted(genes: np.ndarray, tokens: np.ndarray, _quartiles: int) -> np.ndarray:
    return genes[~np.isin(genes, tokens)]


def _overexpressed(genes: np.ndarray, tokens: np.ndarray, _quartiles: int) -> np.ndarray:
    return np.concatenate([tokens, genes[~np.isin(genes, tokens)]]).astype(genes.dtype)


def _moved(genes: np.ndarray, tokens: np.ndarray, quartiles: int) -> np.ndarray:
    """Each gene to the middle of the quarter of the cell's ranks that is ``quartiles`` further to the front."""
    found = genes[~np.isin(genes, tokens)]
    for token in tokens:
        at = int(np.flatnonzero(genes == token)[0])
        quarter = at * 4 // len(genes)
        wanted = min(max(quarter - quartiles, 0), 3)
        place = at if wanted == quarter else int((wanted + 0.5) / 4 * len(genes))
        found = np.insert(found, min(place, len(found)), token)
    return found


#: What becomes of a cell's genes, and whether the cell must show them.
KINDS: dict[str, tuple[Callable, bool]] = {
    "delete": (_deleted, True),
    "overexpress": (_overexpressed, False),
    "inhibit": (lambda genes, tokens, quartiles: _moved(genes, tokens, -quartiles), True),
    "activate": (_moved, True),
}


def delete(model: PreTrainedModel, cells: object, vocabulary: Vocabulary, genes: list[str] | str = "all", **options):
    """Take genes out of the cells; parameters and columns as of `perturb`."""
    return perturb(model, cells, vocabulary, "delete", genes, **options)


def overexpress(
    model: PreTrainedModel, cells: object, vocabulary: Vocabulary, genes: list[str] | str = "all", **options
):
    """Put genes first; parameters and columns as of `perturb`."""
    return perturb(model, cells, vocabulary, "overexpress", genes, **options)


def perturb(
    model: PreTrainedModel,
    cells: object,
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
    """Perturb cells and say how far each moves.

    Parameters
    ----------
    cells
        Encoded cells, something whose ``["input_ids"]`` are token ids.
    kind
        Of `KINDS`. ``inhibit`` and ``activate`` move a gene by quarters of the cell's ranks, to the middle of the new one.
    genes
        Ensembl ids; ``all`` for each gene of each cell on its own (overexpressing leaves out the first, which cannot rise).
    together
        Whether a list is perturbed together; else one by one.
    states
        Name -> where its cells lie (`hidden_states.centres`); the effects are then shifts towards each.
    quartiles
        How far genes move.
    keep_places
        Whether the genes that are left by a deletion keep the positions that they had. Officially every later gene moves up by one,
        which moves the cell too, whichever gene it was (`epigen_utils.screening`); kept, what is seen is the gene's absence alone.
    max_length
        Of a cell, special tokens included; what an overexpressed gene pushes over it is cut off, also from the cell as it was. By
        default the model's positions.
    precision
        ``fp32``, or ``bf16`` by automatic mixed precision.

    Returns
    -------
    A row a cell and perturbation: ``cell`` (position), ``gene`` (Ensembl id, or ids joined by +), ``rank`` (position among the
    cell's ids; -1 where it is not shown, or several are perturbed) and ``cosine``, or ``shift_<state>`` for each state.

    Raises
    ------
    DataError
        If there is no such kind, places are to be kept by another kind than a deletion, a gene is not in the vocabulary, or no cell shows what is to be perturbed.
    """
    if kind not in KINDS:
        raise DataError(f"perturbation {kind!r}: there are {', '.join(KINDS)}")
    if keep_places and kind != "delete":
        raise DataError(f"keep_places: only deletions can keep places, not {kind!r}; leave it out")
    ids = [np.asarray(cell).astype(np.int64) for cell in cells["input_ids"]]
    most = max_length or model.config.max_position_embeddings
    jobs = _jobs([Cell.of(cell, vocabulary) for cell in ids], vocabulary, kind, genes, together, quartiles, most)
    targets = torch.tensor(np.stack(list(states.values()))).float() if states else None
    run = _Run(model, vocabulary, layer, pooling, precision, keep_places)
    rows, effects = [], []
    for batch in _batched(jobs):
        rows += [(job.cell, job.gene, job.rank) for job in batch]
        effects.append(run.shifts(batch, targets) if states else run.cosines(batch)[:, None])
    found = pd.DataFrame(rows, columns=["cell", "gene", "rank"])
    columns = [f"shift_{name}" for name in states] if states else ["cosine"]
    found[columns] = torch.cat(effects).numpy()
    return found.sort_values(["cell", "rank"], kind="stable", ignore_index=True)


def affected(
    model: PreTrainedModel,
    cells: object,
    vocabulary: Vocabulary,
    genes: list[str],
    *,
    kind: str = "delete",
    layer: int = -1,
) -> pd.DataFrame:
    """Which other genes feel it when genes are perturbed together.

    Returns
    -------
    A row a gene that is left in some cell: ``gene``, ``cells``, ``cosine`` (mean of its state before and after over the cells) and
    ``sd``.
    """
    ids = [np.asarray(cell).astype(np.int64) for cell in cells["input_ids"]]
    most = model.config.max_position_embeddings
    jobs = _jobs([Cell.of(cell, vocabulary) for cell in ids], vocabulary, kind, genes, True, 1, most)
    run = _Run(model, vocabulary, layer, "mean", "fp32")
    tokens, cosines = [], []
    for batch in _batched(jobs):
        for job, cosine in run.each(batch):
            tokens.append(job.base[job.old])
            cosines.append(cosine.numpy())
    names = {token: gene for gene, token in vocabulary.tokens.items()}
    table = pd.DataFrame({"token": np.concatenate(tokens), "cosine": np.concatenate(cosines).astype(float)})
    found = table.groupby("token")["cosine"].agg(cells="size", cosine="mean", sd=lambda values: values.std(ddof=0))
    found.insert(0, "gene", [names[token] for token in found.index])
    return found.reset_index(drop=True)


@dataclass(frozen=True)
class _Job:
    """One perturbed cell: its ids before and after, and the positions in them of the genes that are compared."""

    cell: int
    gene: str
    rank: int
    base: np.ndarray
    ids: np.ndarray
    old: np.ndarray
    new: np.ndarray


def _jobs(
    cells: list[Cell],
    vocabulary: Vocabulary,
    kind: str,
    genes: list[str] | str,
    together: bool,
    quartiles: int,
    max_length: int,
) -> Iterator[_Job]:
    """Perturbed cells, one cell after the other; raises before the first where there is none."""
    change, must_show = KINDS[kind]
    names = {token: gene for gene, token in vocabulary.tokens.items()}
    if isinstance(genes, str):
        wanted = None
    else:
        if lost := [gene for gene in genes if gene not in vocabulary.tokens]:
            raise DataError(f"gene {lost[0]!r}: not in the vocabulary {vocabulary.name!r}; give Ensembl ids that are")
        groups = [genes] if together else [[gene] for gene in genes]
        wanted = [np.array([vocabulary.tokens[gene] for gene in group]) for group in groups]
        for group, tokens in zip(groups, wanted, strict=True):
            if must_show and not any(np.isin(tokens, cell.genes).all() for cell in cells):
                raise DataError(
                    f"gene {'+'.join(group)!r}: no cell expresses {'it' if len(group) == 1 else 'them all'}, so that there is "
                    f"nothing to {kind}; choose another, or overexpress"
                )

    def of_cell(number: int, cell: Cell) -> Iterator[_Job]:
        first = int(kind == "overexpress")
        for tokens in [cell.genes[i : i + 1] for i in range(first, len(cell.genes))] if wanted is None else wanted:
            there = np.isin(tokens, cell.genes)
            if must_show and not there.all():
                continue
            room = max_length - len(cell.before) - len(cell.behind)
            after = change(cell.genes, tokens, quartiles)
            base = cell.genes[: len(cell.genes) - max(len(after) - room, 0)]
            after = after[:room]
            if not len(after):
                continue
            # Genes keep their order but for those that are perturbed, so that both sides are in the same.
            left = np.isin(after, base) & ~np.isin(after, tokens)
            old = np.isin(base, after) & ~np.isin(base, tokens)
            rank = (
                int(np.flatnonzero(cell.genes == tokens[0])[0]) + len(cell.before)
                if len(tokens) == 1 and there[0]
                else -1
            )
            places = (np.flatnonzero(side) + len(cell.before) for side in (old, left))
            gene, sides = "+".join(names[t] for t in tokens), map(cell.with_genes, (base, after))
            yield _Job(number, gene, rank, *sides, *places)

    return (job for number, cell in enumerate(cells) for job in of_cell(number, cell))


def _batched(jobs: Iterator[_Job]) -> Iterator[list[_Job]]:
    """Jobs in their order, as many at once as `hidden_states.POSITIONS` holds of the longest."""
    batch: list[_Job] = []
    for job in jobs:
        longest = max(len(other.ids) for other in [*batch[-1:], job, *batch[:1]])
        if batch and (len(batch) + 1) * longest > hidden_states.POSITIONS:
            yield batch
            batch = []
        batch.append(job)
    if batch:
        yield batch


class _Run:
    """A model with the unperturbed states of the cells at hand."""

    def __init__(
        self,
        model: PreTrainedModel,
        vocabulary: Vocabulary,
        layer: int,
        pooling: str,
        precision: str,
        keep_places: bool = False,
    ):
        self.model, self.vocabulary, self.keep_places = model, vocabulary, keep_places
        self.layer, self.pooling, self.precision = layer, pooling, precision
        self.before: dict[tuple[int, int], tuple[torch.Tensor, torch.Tensor]] = {}

    def states(
        self, cells: list[np.ndarray], places: list[np.ndarray] | None = None
    ) -> list[tuple[torch.Tensor, torch.Tensor]]:
        """Of each cell its states, length x width, and which of its positions are genes."""
        found: list = [None] * len(cells)
        with _precise(self.model, self.precision):
            for rows, _, states, genes in hidden_states.of_cells(
                self.model, cells, self.vocabulary, layer=self.layer, places=places
            ):
                for place, row in enumerate(rows):
                    n = len(cells[row])
                    found[row] = (states[place, :n], genes[place, :n])
        return found

    def both(self, batch: list[_Job]) -> Iterator[tuple[_Job, tuple, tuple]]:
        wanted = {(job.cell, len(job.base)): job.base for job in batch}
        self.before = {key: known for key, known in self.before.items() if key in wanted}
        if new := [key for key in wanted if key not in self.before]:
            self.before |= dict(zip(new, self.states([wanted[key] for key in new]), strict=True))
        # A deletion leaves the others in their order, so that theirs are the places of the cell as it was.
        places = [np.flatnonzero(np.isin(job.base, job.ids)) for job in batch] if self.keep_places else None
        for job, after in zip(batch, self.states([job.ids for job in batch], places), strict=True):
            yield job, self.before[job.cell, len(job.base)], after

    def each(self, batch: list[_Job]) -> Iterator[tuple[_Job, torch.Tensor]]:
        """Cosine of each gene that is left, before and after."""
        for job, (old, _), (new, _) in self.both(batch):
            yield job, cosine_similarity(old[job.old], new[job.new], dim=-1)

    def cosines(self, batch: list[_Job]) -> torch.Tensor:
        if self.pooling == "mean":
            return torch.stack([cosine.mean() for _, cosine in self.each(batch)])
        sides = [(self.pooled(*old), self.pooled(*new)) for _, old, new in self.both(batch)]
        return torch.stack([cosine_similarity(old, new, dim=-1) for old, new in sides])

    def shifts(self, batch: list[_Job], states: torch.Tensor) -> torch.Tensor:
        found = []
        for _, old, new in self.both(batch):
            before, after = self.pooled(*old), self.pooled(*new)
            found.append(cosine_similarity(after[None], states) - cosine_similarity(before[None], states))
        return torch.stack(found)

    def pooled(self, states: torch.Tensor, genes: torch.Tensor) -> torch.Tensor:
        return hidden_states.pool(states[None], genes[None], self.pooling)[0]


def _precise(model: PreTrainedModel, precision: str) -> contextlib.AbstractContextManager:
    if precision == "fp32":
        return contextlib.nullcontext()
    stack = contextlib.ExitStack()
    stack.enter_context(torch.autocast(model.device.type, torch.bfloat16))
    if model.device.type == "cpu":
        stack.enter_context(models.attending(model, "matmul"))
    return stack
