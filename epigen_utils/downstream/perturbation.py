"""In silico perturbation: genes deleted, overexpressed, inhibited or activated, and how far the cell moves.

Paper B, abstract and section 4.1; Theodoris et al. 2023, Methods. The conventions are those of official Geneformer's
``InSilicoPerturber``. Deviations, where it is wrong or fails, are listed in tests/downstream/test_perturbation.py.

- Without states the effect is the cosine of a gene's hidden states before and after, averaged over the genes present on
  both sides; with pooling ``first`` it is the cosine of the cell's own vector.
- With states it is cos(perturbed cell, state) - cos(cell, state), and both means include the perturbed genes.
- Genes given together are perturbed together. Deletion, inhibition and activation require that a cell expresses all of
  them; overexpression applies to every cell and inserts a gene that the cell does not express.
"""

from collections.abc import Callable, Iterator

import numpy as np
import pandas as pd
import torch
from transformers import PreTrainedModel

from epigen_utils.downstream.perturbed_cells import Batch, CellTokens, Part, read_batches
from epigen_utils.errors import DataError
from epigen_utils.geneformer.encoded_cells import EncodedCells, token_ids
from epigen_utils.geneformer.vocabularies import CLS, EOS, Vocabulary


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
        Maximum length of a cell, special tokens included: a longer one is truncated before it is perturbed;
        overexpression truncates both the perturbed and the original cell. Default: the model's positions.
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
        vocabulary, no cell expresses the genes to be perturbed, or nothing of a cell would remain; if a cell has no
        tokens, or ``max_length`` is not within the model's positions.
    """
    options = {"together": together, "quartiles": quartiles, "keep_places": keep_places, "max_length": max_length}
    parts = _checked_parts(model, cells, vocabulary, kind, genes, **options)
    batches = read_batches(model, parts, vocabulary, layer, precision, keep_places=keep_places)
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
    return _shift_tables(read_batches(model, parts, vocabulary, layer, precision), states, model.device)


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
) -> Iterator["Part"]:
    if kind not in PERTURBATIONS:
        raise DataError(f"perturbation {kind!r}: there are {', '.join(PERTURBATIONS)}")
    if keep_places and kind != "delete":
        raise DataError(f"keep_places: only deletions can keep places, not {kind!r}; leave it out")
    positions = model.config.max_position_embeddings
    longest = positions if max_length is None else max_length
    if longest > positions:
        raise DataError(f"max_length {longest}: the model has {positions} positions; give at most as many")
    if longest <= 2 * (CLS in vocabulary.tokens and EOS in vocabulary.tokens):
        raise DataError(f"max_length {longest}: leaves no room for genes; give more")
    ids = token_ids(cells)
    if empty := [number for number, cell in enumerate(ids) if not len(cell)]:
        raise DataError(f"cell {empty[0]} has no tokens ({len(empty)} such cells here); leave it out")
    split_cells = [CellTokens.of(cell.astype(np.int64), vocabulary, longest) for cell in ids]
    groups = None
    if isinstance(genes, str):
        if genes != "all":
            raise DataError(f"genes {genes!r}: give a list of Ensembl ids, or 'all'")
    else:
        if not len(genes):
            raise DataError("genes: none is given; give Ensembl ids, or 'all'")
        known = set(vocabulary.genes)
        if missing := [gene for gene in genes if gene not in known]:
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
    return _parts(split_cells, vocabulary, kind, groups, quartiles, longest)


def _parts(
    cells: list[CellTokens],
    vocabulary: Vocabulary,
    kind: str,
    groups: np.ndarray | None,
    quartiles: int,
    max_length: int,
) -> Iterator[Part]:
    """Perturbations in the order of the cells, of each group (groups x genes; None: of each gene of a cell)."""
    placed, must_express = PERTURBATIONS[kind]
    nothing = True
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
            n_base, nothing = n - (whole - n_after), False
            if n_base < 1:
                raise DataError(
                    f"max_length {max_length}: leaves no room for the genes of cell {number} behind the {n_genes} in "
                    "front; give more, or perturb fewer"
                )
            removed = np.sort(np.where(of < 0, np.iinfo(np.int32).max, of), axis=1) - np.arange(n_genes)
            shown = of[:, 0] if n_genes == 1 else np.full(len(of), -1)
            rows = [
                (number, "+".join(names[token] for token in group), rank if rank < 0 else rank + first)
                for group, rank in zip(lacking.tolist(), shown.tolist(), strict=True)
            ]
            yield Part(cell, n_base, n_after, lacking, removed + first, inserted + first, rows)
    if nothing:
        raise DataError(
            f"cells: nothing of any would remain, so that there is nothing to {kind}; give longer cells, or fewer genes"
        )


def _shift_tables(
    batches: Iterator[Batch], states: dict[str, dict[str, np.ndarray]], device: torch.device
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
