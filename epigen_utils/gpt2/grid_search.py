"""Grid search of GPT-2's fine-tuning settings on held-out samples: paper A, section III.B.

"hyperparameters, including learning rate, batch size, sequence length, and number of epochs, were optimized through
grid search on a held-out validation set".
"""

import itertools
import time
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Protocol

import numpy as np
import pandas as pd
from sklearn.base import clone
from sklearn.metrics import log_loss

from epigen_utils.errors import DataError, suggest
from epigen_utils.expression import fold_selection
from epigen_utils.gpt2 import sentence_model
from epigen_utils.gpt2.classifier import FINE_TUNING_SETTINGS, GPT2Classifier
from epigen_utils.models.checkpoints import Checkpoint
from epigen_utils.stats import folds, two_classes

#: Settings that the paper searched.
SEARCHED = ("learning_rate", "batch_size", "max_length", "epochs")
#: Log2 expression, samples x genes, and the samples' classes.
LabelledSamples = tuple[pd.DataFrame, np.ndarray]


def search_grid(
    classifier: GPT2Classifier,
    train: LabelledSamples,
    held_out: LabelledSamples,
    positive: str,
    grid: dict[str, list],
) -> pd.DataFrame:
    """Fine-tune at each point of a grid and evaluate on held-out samples; finished points are read from their runs.

    Parameters
    ----------
    train, held_out
        Log2 expression (samples x genes) and classes; both of the training fold.
    positive
        The positive class.
    grid
        Values of any of `SEARCHED`.

    Returns
    -------
    A row a point, in the order of the grid: the searched settings, ``auc``, ``loss`` (nats) and ``seconds``.

    Raises
    ------
    DataError
        If the grid has a setting that is not in `SEARCHED`.
    """
    if other := [name for name in grid if name not in SEARCHED]:
        raise DataError(f"grid over {other[0]!r}: {suggest(other[0], SEARCHED)}")
    truth = np.asarray(held_out[1]) == positive
    rows = []
    for point in itertools.product(*grid.values()):
        values = dict(zip(grid, point, strict=True))
        candidate = with_settings(classifier, values)
        start = time.perf_counter()
        candidate.fit(*train)
        p = folds.class_probability(candidate, held_out[0], positive)
        scores = {"auc": two_classes.roc_auc(p, truth), "loss": log_loss(truth, p, labels=[False, True])}
        rows.append(values | scores | {"seconds": time.perf_counter() - start})
    return pd.DataFrame(rows)


def with_settings(classifier: GPT2Classifier, point: dict[str, float]) -> GPT2Classifier:
    """A copy of a classifier with other values of `SEARCHED`."""
    candidate = clone(classifier)
    settings = {name: value for name, value in point.items() if name != "max_length"}
    changes = {"settings": replace(candidate.settings, **settings)}
    if "max_length" in point:
        changes["max_length"] = int(point["max_length"])
    return candidate.set_params(**changes)


def best_point(table: pd.DataFrame, grid: dict[str, list]) -> dict[str, float]:
    """The point with the highest AUC; ties are resolved by the lowest loss."""
    row = table.sort_values(["auc", "loss"], ascending=[False, True]).iloc[0]
    return {name: type(values[0])(row[name]) for name, values in grid.items()}


class SearchCohort(Protocol):
    """Attributes of a two-class cohort that the search reads (`sample_cohort.SampleCohort`).

    ``values`` are samples x ``genes``; ``groups`` (donors or experiments) are held out as a whole.
    """

    values: np.ndarray
    genes: list[str]
    y: np.ndarray
    positive: str
    groups: np.ndarray


@dataclass(frozen=True)
class SearchFold:
    """A cohort divided into training and test samples, and the training samples divided again for the search.

    Attributes
    ----------
    inside, outside
        Training samples on which the search trains, and those on which it evaluates; size factors and genes are from
        ``inside`` alone.
    train, test
        All training samples, and the test samples; size factors and genes are from ``train`` alone.
    """

    cohort: SearchCohort
    inside: LabelledSamples
    outside: LabelledSamples
    train: LabelledSamples
    test: LabelledSamples


def divide_twice(cohort: SearchCohort, *, n_genes: int = 32, seed: int = 0) -> SearchFold:
    """Hold out one in four folds of donors for the test, and one in three of the others for the search.

    Raises
    ------
    DataError
        If a class has too few donors, or experiments, to be divided twice.
    """
    train, test = _divided(cohort.y, cohort.groups, 4, seed)
    inside, outside = (train[rows] for rows in _divided(cohort.y[train], cohort.groups[train], 3, seed))
    parts = []
    for learned, evaluated in ((inside, outside), (train, test)):
        selection = fold_selection.FoldPipeline(None, cohort.genes, n_genes, fold_selection.SELECTIONS[1])
        tables = selection.tables(cohort.values[learned], cohort.y[learned], cohort.values[evaluated])
        parts += zip(tables, (cohort.y[learned], cohort.y[evaluated]), strict=True)
    return SearchFold(cohort, *parts)


def _divided(y: np.ndarray, groups: np.ndarray, n_splits: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    n_splits = folds.feasible_n_splits(y, groups, n_splits)
    return next(folds.donor_folds(y, groups, n_splits=n_splits, seed=seed))


def base_classifier(
    *,
    results_dir: str,
    model: str = "gpt2-tiny",
    start: str | Checkpoint = "",
    revision: str = "",
    position_input: str = "bins",
    epochs: float = 8.0,
    learning_rate: float = 1e-3,
    batch_size: int = 8,
    precision: str = "fp32",
    seed: int = 0,
) -> GPT2Classifier:
    """The classifier with its settings outside the search; parameters are those of the notebook."""
    settings = replace(FINE_TUNING_SETTINGS, epochs=epochs, learning_rate=learning_rate, batch_size=batch_size)
    options = {"folder": Path(results_dir) / "models", "precision": precision, "seed": seed}
    options["start"] = sentence_model.find_start(start, revision=revision)
    return GPT2Classifier(settings=settings, preset=model, position_input=position_input, **options)
