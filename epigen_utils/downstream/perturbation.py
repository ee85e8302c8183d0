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
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

import numpy as np
import pandas as pd
import torch
from torch.nn.functional import cosine_similarity
from transformers import PreTrainedModel

from epigen_utils.errors import DataError
from epigen_utils.geneformer import embeddings
from epigen_utils.geneformer.encoded_cells import EncodedCells, token_ids
from epigen_utils.geneformer.vocabularies import CLS, EOS, Vocabulary
from epigen_utils.models import attention_kernels, batching


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


def _deleted(genes: np.ndarray, tokens: np.ndarray, _quartiles: int) -> np.ndarray:
    return genes[~np.isin(genes, tokens)]


def _overexpressed(genes: np.ndarray, tokens: np.ndarray, _quartiles: int) -> np.ndarray:
    return np.concatenate([tokens, genes[~np.isin(genes, tokens)]]).astype(genes.dtype)


def _moved_by_quartiles(genes: np.ndarray, tokens: np.ndarray, quartiles: int) -> np.ndarray:
    """Move each gene ``quartiles`` quarters of the cell's ranks to the front, to the middle of the target quarter."""
    moved = genes[~np.isin(genes, tokens)]
    for token in tokens:
        rank = int(np.flatnonzero(genes == token)[0])
        quarter = rank * 4 // len(genes)
        target = min(max(quarter - quartiles, 0), 3)
        position = rank if target == quarter else int((target + 0.5) / 4 * len(genes))
        moved = np.insert(moved, min(position, len(moved)), token)
    return moved


#: Change of a cell's genes, and whether the cell must express the perturbed ones.
PERTURBATIONS: dict[str, tuple[Callable, bool]] = {
    "delete": (_deleted, True),
    "overexpress": (_overexpressed, False),
    "inhibit": (lambda genes, tokens, quartiles: _moved_by_quartiles(genes, tokens, -quartiles), True),
    "activate": (_moved_by_quartiles, True),
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
    jobs = _checked_jobs(model, cells, vocabulary, kind, genes, **options)
    run = _Run(model, vocabulary, layer, precision, keep_places)
    if states:
        return _shift_tables(run, jobs, {pooling: states})[pooling]
    rows, effects = [], []
    for batch in _batched(jobs):
        rows += [(job.cell, job.gene, job.rank) for job in batch]
        effects.append(run.cosines(batch, pooling))
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
    jobs = _checked_jobs(model, cells, vocabulary, kind, genes, together=together)
    return _shift_tables(_Run(model, vocabulary, layer, precision, keep_places=False), jobs, states)


def _checked_jobs(
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
) -> Iterator["_Job"]:
    if kind not in PERTURBATIONS:
        raise DataError(f"perturbation {kind!r}: there are {', '.join(PERTURBATIONS)}")
    if keep_places and kind != "delete":
        raise DataError(f"keep_places: only deletions can keep places, not {kind!r}; leave it out")
    max_length = max_length or model.config.max_position_embeddings
    split_cells = [CellTokens.of(ids.astype(np.int64), vocabulary) for ids in token_ids(cells)]
    return _jobs(split_cells, vocabulary, kind, genes, together, quartiles, max_length)


def _shift_tables(
    run: "_Run", jobs: Iterator["_Job"], states: dict[str, dict[str, np.ndarray]]
) -> dict[str, pd.DataFrame]:
    targets = {pooling: torch.tensor(np.stack(list(some.values()))).float() for pooling, some in states.items()}
    rows, effects = [], {pooling: [] for pooling in states}
    for batch in _batched(jobs):
        rows += [(job.cell, job.gene, job.rank) for job in batch]
        for pooling, shifts in run.shifts(batch, targets).items():
            effects[pooling].append(shifts)
    return {
        pooling: _effect_table(rows, torch.cat(parts), [f"shift_{name}" for name in states[pooling]])
        for pooling, parts in effects.items()
    }


def _effect_table(rows: list[tuple], effects: torch.Tensor, columns: list[str]) -> pd.DataFrame:
    """Table of `perturb` from its rows and their effects, rows x columns."""
    table = pd.DataFrame(rows, columns=["cell", "gene", "rank"])
    table[columns] = effects.numpy()
    return table.sort_values(["cell", "rank"], kind="stable", ignore_index=True)


@dataclass(frozen=True)
class _Job:
    """One perturbed cell: its ids before (``base``) and after, and the positions of the compared genes in both."""

    cell: int
    gene: str
    rank: int
    base: np.ndarray
    ids: np.ndarray
    base_positions: np.ndarray
    positions: np.ndarray


def _jobs(
    cells: list[CellTokens],
    vocabulary: Vocabulary,
    kind: str,
    genes: list[str] | str,
    together: bool,
    quartiles: int,
    max_length: int,
) -> Iterator[_Job]:
    """Perturbed cells in the order of the cells.

    Raises
    ------
    DataError
        On the call, before the first job, if a gene is unknown or no cell expresses what is to be perturbed.
    """
    change, must_express = PERTURBATIONS[kind]
    names = {token: gene for gene, token in vocabulary.tokens.items()}
    token_groups = None
    if not isinstance(genes, str):
        if missing := [gene for gene in genes if gene not in vocabulary.tokens]:
            raise DataError(
                f"gene {missing[0]!r}: not in the vocabulary {vocabulary.name!r}; give Ensembl ids that are"
            )
        groups = [genes] if together else [[gene] for gene in genes]
        token_groups = [np.array([vocabulary.tokens[gene] for gene in group]) for group in groups]
        for group, tokens in zip(groups, token_groups, strict=True):
            if must_express and not any(np.isin(tokens, cell.genes).all() for cell in cells):
                raise DataError(
                    f"gene {'+'.join(group)!r}: no cell expresses {'it' if len(group) == 1 else 'them all'}, "
                    f"so that there is nothing to {kind}; choose another, or overexpress"
                )

    def cell_jobs(number: int, cell: CellTokens) -> Iterator[_Job]:
        first = int(kind == "overexpress")
        max_genes = max_length - len(cell.before) - len(cell.behind)
        each_gene = (cell.genes[i : i + 1] for i in range(first, len(cell.genes)))
        for tokens in each_gene if token_groups is None else token_groups:
            expressed = np.isin(tokens, cell.genes)
            if must_express and not expressed.all():
                continue
            after = change(cell.genes, tokens, quartiles)
            base = cell.genes[: len(cell.genes) - max(len(after) - max_genes, 0)]
            after = after[:max_genes]
            if not len(after):
                continue
            # The unperturbed genes keep their order, so that both masks select the same genes in the same order.
            in_base = np.isin(base, after) & ~np.isin(base, tokens)
            in_after = np.isin(after, base) & ~np.isin(after, tokens)
            positions = (np.flatnonzero(mask) + len(cell.before) for mask in (in_base, in_after))
            rank = -1
            if len(tokens) == 1 and expressed[0]:
                rank = int(np.flatnonzero(cell.genes == tokens[0])[0]) + len(cell.before)
            gene = "+".join(names[token] for token in tokens)
            yield _Job(number, gene, rank, *map(cell.with_genes, (base, after)), *positions)

    return (job for number, cell in enumerate(cells) for job in cell_jobs(number, cell))


def _batched(jobs: Iterator[_Job]) -> Iterator[list[_Job]]:
    """Consecutive jobs in batches of at most `batching.POSITIONS_PER_BATCH` padded positions."""
    batch: list[_Job] = []
    for job in jobs:
        longest = max(len(other.ids) for other in [*batch[-1:], job, *batch[:1]])
        if batch and (len(batch) + 1) * longest > batching.POSITIONS_PER_BATCH:
            yield batch
            batch = []
        batch.append(job)
    if batch:
        yield batch


@dataclass
class _Run:
    """A model with a cache of the unperturbed hidden states of the current batch's cells."""

    model: PreTrainedModel
    vocabulary: Vocabulary
    layer: int
    precision: str
    keep_places: bool
    unperturbed: dict[tuple[int, int], tuple[torch.Tensor, torch.Tensor]] = field(default_factory=dict)

    def states(
        self, cells: list[np.ndarray], positions: list[np.ndarray] | None = None
    ) -> list[tuple[torch.Tensor, torch.Tensor]]:
        """For each cell its states (length x width) and the mask of its gene positions (length)."""
        outputs: list = [None] * len(cells)
        with _autocast(self.model, self.precision):
            for rows, _, states, genes in embeddings.cell_hidden_states(
                self.model, cells, self.vocabulary, layer=self.layer, positions=positions
            ):
                for i, row in enumerate(rows):
                    length = len(cells[row])
                    outputs[row] = (states[i, :length], genes[i, :length])
        return outputs

    def both(self, batch: list[_Job]) -> Iterator[tuple[_Job, tuple, tuple]]:
        bases = {(job.cell, len(job.base)): job.base for job in batch}
        self.unperturbed = {key: states for key, states in self.unperturbed.items() if key in bases}
        if missing := [key for key in bases if key not in self.unperturbed]:
            self.unperturbed |= dict(zip(missing, self.states([bases[key] for key in missing]), strict=True))
        # A deletion preserves the order of the other genes, so these indices are their original positions.
        positions = [np.flatnonzero(np.isin(job.base, job.ids)) for job in batch] if self.keep_places else None
        for job, after in zip(batch, self.states([job.ids for job in batch], positions), strict=True):
            yield job, self.unperturbed[job.cell, len(job.base)], after

    def cosines(self, batch: list[_Job], pooling: str) -> torch.Tensor:
        """Cosine of each job's cell before and after: of its vector, or the mean over its unperturbed genes."""
        cosines = []
        for job, before, after in self.both(batch):
            if pooling == "mean":
                sides = before[0][job.base_positions], after[0][job.positions]  # (genes, width) each
            else:
                sides = _pooled(*before, pooling), _pooled(*after, pooling)  # (width,) each
            cosines.append(cosine_similarity(*sides, dim=-1).mean())
        return torch.stack(cosines)

    def shifts(self, batch: list[_Job], targets: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
        """Jobs x states of each pooling, from the centres of its states, states x width."""
        shifts = {pooling: [] for pooling in targets}
        for _, *sides in self.both(batch):
            for pooling, centres in targets.items():
                before, after = (cosine_similarity(_pooled(*side, pooling)[None], centres) for side in sides)
                shifts[pooling].append(after - before)
        return {pooling: torch.stack(parts) for pooling, parts in shifts.items()}


def _pooled(states: torch.Tensor, genes: torch.Tensor, pooling: str) -> torch.Tensor:
    return embeddings.pool_states(states[None], genes[None], pooling)[0]


def _autocast(model: PreTrainedModel, precision: str) -> contextlib.AbstractContextManager:
    if precision == "fp32":
        return contextlib.nullcontext()
    stack = contextlib.ExitStack()
    stack.enter_context(torch.autocast(model.device.type, torch.bfloat16))
    if model.device.type == "cpu":
        stack.enter_context(attention_kernels.attention_implementation(model, "matmul"))
    return stack
