"""Recall of the screen against exhaustive deletion."""

import time
from collections.abc import Iterator

import numpy as np
import pandas as pd
from scipy.stats import pearsonr, spearmanr
from transformers import PreTrainedModel

from epigen_utils.downstream import perturbation, screening
from epigen_utils.errors import DataError
from epigen_utils.geneformer.encoded_cells import EncodedCells
from epigen_utils.geneformer.vocabularies import Vocabulary

#: Estimates that `cost_recall_curve` compares: name -> options of `screening.screen`.
SCREEN_VARIANTS: dict[str, dict[str, object]] = {
    "gradient, 1 pass": {"rule": "gradient", "steps": 1, "exact_runs": 0},
    "secant, 1 pass": {"steps": 1, "exact_runs": 0},
    "secant, 2 passes": {"exact_runs": 0},
    "secant, 2 passes, 4 exact": {"exact_runs": 4},
    "secant, 2 passes, 8 exact": {},
    "secant, 3 passes, 8 exact": {"steps": 3},
    "secant, 2 passes, 16 exact": {"exact_runs": 16},
    "secant, 2 passes, 32 exact": {"exact_runs": 32},
    "secant, 5 passes": {"steps": 5, "exact_runs": 0},
    "secant, 9 passes": {"steps": 9, "exact_runs": 0},
    "secant, 9 passes, 16 exact": {"steps": 9, "exact_runs": 16},
}


def top_gene_recall(
    estimated: pd.DataFrame,
    exact: pd.DataFrame,
    *,
    column: str,
    top: int = 50,
    share: float = 0.25,
    signed: bool = False,
) -> pd.DataFrame:
    """Recall of the genes that move a cell most among the first-ranked genes of an estimate.

    Parameters
    ----------
    estimated, exact
        Tables of `screening.screen` and of `perturbation.delete`, for the same cells.
    column
        ``shift_<state>``.
    share
        Share of the cell's genes that is taken from the estimate.
    signed
        Whether genes are sorted by the shift towards the state, or by its absolute value.

    Returns
    -------
    A row a cell: ``cell``, ``genes`` (of the cell), ``kept`` (genes taken from the estimate), ``top`` (at most the
    cell's genes), ``found`` and ``recall``.

    Raises
    ------
    DataError
        If the tables do not have the same genes, or lack the column.
    """
    rows = []
    for cell, both in _joined(estimated, exact, column).groupby("cell"):
        estimate, truth = (both[side] if signed else both[side].abs() for side in ("estimated", "exact"))
        n_first, n_top = int(np.ceil(share * len(both))), min(top, len(both))
        n_recalled = len(estimate.nlargest(n_first).index.intersection(truth.nlargest(n_top).index))
        rows.append((cell, len(both), n_first, n_top, n_recalled, n_recalled / n_top))
    return pd.DataFrame(rows, columns=["cell", "genes", "kept", "top", "found", "recall"])


def _joined(estimated: pd.DataFrame, exact: pd.DataFrame, column: str) -> pd.DataFrame:
    keys = ["cell", "gene", "rank"]
    for table in (estimated, exact):
        if column not in table:
            raise DataError(f"column {column!r}: not in the table; give states of the same names to both")
    both = estimated[[*keys, column]].merge(exact[[*keys, column]], on=keys, suffixes=("_estimated", "_exact"))
    if not len(both) == len(estimated) == len(exact):
        raise DataError(f"estimated and exact: {len(both)} genes in common of {len(exact)}; give both the same cells")
    return both.rename(columns={f"{column}_{side}": side for side in ("estimated", "exact")})


def cost_recall_curve(
    model: PreTrainedModel,
    cells: EncodedCells,
    vocabulary: Vocabulary,
    states: dict[str, np.ndarray],
    *,
    layer: int = -1,
    variants: dict[str, dict[str, object]] | None = None,
    top: int = 50,
    shares: tuple[float, ...] = (0.1, 0.15, 0.25, 0.5),
    repeats: int = 0,
) -> pd.DataFrame:
    """Run estimates and exact deletions, and compare cost and recall.

    Parameters
    ----------
    variants
        Name -> options of `screening.screen`; default `SCREEN_VARIANTS`.
    repeats
        Number of timings of each variant, in turn, after a run of each that is not timed; the shortest counts.

    Returns
    -------
    A row a variant:

    - ``variant``, ``passes`` (`screening.n_passes`), ``exact passes`` (mean genes of a cell), ``times fewer passes``
    - ``seconds``, ``exact seconds``, ``times faster``, only with ``repeats``
    - ``spearman``, ``pearson``: means over cells and states
    - ``top <n> in <share>``, ``signed top <n> in <share>``: how many of the top genes, by size or signed, are in that
      share of the estimate; means over cells and states
    - ``worst top <n> in <share>``: the minimum over cells and states
    """
    variants = SCREEN_VARIANTS if variants is None else variants
    seconds: dict[str, list[float]] = {name: [] for name in ["exact", *variants]}
    tables = {}
    for repeat in range(repeats + 1):
        for name in seconds:
            start = time.perf_counter()
            if name == "exact":
                tables[name] = perturbation.delete(model, cells, vocabulary, states=states, layer=layer)
            else:
                tables[name] = screening.screen(model, cells, vocabulary, states, layer=layer, **variants[name])
            # The first run of each also warms up, and is not timed.
            seconds[name] += [time.perf_counter() - start] if repeat else []
    exact = tables.pop("exact")
    genes = len(exact) / exact["cell"].nunique()
    rows = []
    for name, table in tables.items():
        passes = screening.n_passes(len(states), **variants[name])
        row = {"variant": name, "passes": passes, "exact passes": genes, "times fewer passes": genes / passes}
        if repeats:
            shortest, exact_shortest = min(seconds[name]), min(seconds["exact"])
            row |= {"seconds": shortest, "exact seconds": exact_shortest, "times faster": exact_shortest / shortest}
        rows.append(row | _agreement(table, exact, [f"shift_{state}" for state in states], top, shares))
    return pd.DataFrame(rows)


def _agreement(
    table: pd.DataFrame, exact: pd.DataFrame, columns: list[str], top: int, shares: tuple[float, ...]
) -> dict[str, float]:
    scores = {"spearman": np.mean(list(_correlations(table, exact, columns, spearmanr)))}
    scores["pearson"] = np.mean(list(_correlations(table, exact, columns, pearsonr)))
    for share in shares:
        for signed in (False, True):
            options = {"top": top, "share": share, "signed": signed}
            counts = pd.concat([top_gene_recall(table, exact, column=column, **options) for column in columns])["found"]
            scores[f"{'signed ' if signed else ''}top {top} in {share:g}"] = counts.mean()
            if not signed:
                scores[f"worst top {top} in {share:g}"] = counts.min()
    return {name: float(value) for name, value in scores.items()}


def _correlations(table: pd.DataFrame, exact: pd.DataFrame, columns: list[str], kind: object) -> Iterator[float]:
    for column in columns:
        for _, both in _joined(table, exact, column).groupby("cell"):
            yield float(kind(both["estimated"], both["exact"]).statistic)
