"""The paper's grid search: GPT-2 fine-tuned at every point of a grid and measured on samples held back; spread over jobs where asked.

Paper A, section III.B: "hyperparameters, including learning rate, batch size, sequence length, and number of epochs, were optimized
through grid search on a held-out validation set".

``python -m epigen_utils.grid_search '<run as JSON>' <job>`` trains the points of one job of a run whose notebook takes a ``grid``; the
notebook finds them done.
"""

import inspect
import itertools
import json
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pandas as pd
from sklearn.base import clone
from sklearn.metrics import log_loss

from epigen_utils import evaluation, in_fold, notebooks, processes, sample_cohorts, sample_scores, sentence_classes
from epigen_utils.errors import DataError, closest
from epigen_utils.runs import Run
from epigen_utils.sample_cohorts import SampleCohort
from epigen_utils.sentence_classes import GPT2Classifier

#: What the paper searched over.
SEARCHED = ("learning_rate", "batch_size", "max_length", "epochs")


#: Log2 expression, samples x genes, and the samples' classes.
Part = tuple[pd.DataFrame, np.ndarray]


def search(
    classifier: GPT2Classifier,
    train: Part,
    held: Part,
    positive: str,
    grid: dict[str, list],
) -> pd.DataFrame:
    """Fine-tune once for each point of a grid and measure on held-out samples; points that were done before are read back.

    Parameters
    ----------
    train, held
        Log2 expression (samples x genes) and classes; both of the training fold.
    grid
        Values of any of `SEARCHED`.

    Returns
    -------
    A row a point: the searched, ``auc``, ``loss`` (nats) and ``seconds``; in the order of the grid.

    Raises
    ------
    DataError
        If something else is to be searched.
    """
    if other := [name for name in grid if name not in SEARCHED]:
        raise DataError(f"grid over {other[0]!r}: {closest(other[0], SEARCHED)}")
    truth = np.asarray(held[1]) == positive
    rows = []
    for point in itertools.product(*grid.values()):
        values = dict(zip(grid, point, strict=True))
        made = with_settings(classifier, values)
        start = time.perf_counter()
        made.fit(*train)
        p = evaluation.probability_of(made, held[0], positive)
        found = {"auc": evaluation.auc(p, truth), "loss": log_loss(truth, p, labels=[False, True])}
        rows.append(values | found | {"seconds": time.perf_counter() - start})
    return pd.DataFrame(rows)


def with_settings(classifier: GPT2Classifier, values: dict[str, float]) -> GPT2Classifier:
    """A classifier with other values of `SEARCHED`."""
    made = clone(classifier)
    settings = {name: value for name, value in values.items() if name != "max_length"}
    changes = {"settings": replace(made.settings, **settings)}
    return made.set_params(**changes, **({"max_length": int(values["max_length"])} if "max_length" in values else {}))


def best(table: pd.DataFrame, grid: dict[str, list]) -> dict[str, float]:
    """The point with the highest AUC; of equally high ones that with the lowest loss."""
    row = table.sort_values(["auc", "loss"], ascending=[False, True]).iloc[0]
    return {name: type(values[0])(row[name]) for name, values in grid.items()}


@dataclass(frozen=True)
class Fold:
    """A cohort whose training samples are divided once more for the search.

    Attributes
    ----------
    inside, outside
        Training samples that the search learns from, and those that it is measured on; size factors and genes are of the first alone.
    train, test
        All training samples, and the samples asked about at the end; size factors and genes are of all training samples.
    """

    cohort: SampleCohort
    inside: Part
    outside: Part
    train: Part
    test: Part


def fold(
    *,
    dataset: str,
    metadata: str = "",
    group: str = "",
    reference: str = "",
    donor: str = "",
    max_samples: int = 0,
    n_genes: int = 32,
    seed: int = 0,
) -> Fold:
    """One fold of donors in four is tested on, and one in three of the others is held back.

    Raises
    ------
    DataError
        If a class has too few donors, or experiments, to be divided twice.
    """
    columns = {"metadata": metadata, "group": group, "reference": reference, "donor": donor}
    cohort = sample_cohorts.part(sample_cohorts.load(dataset, **columns), max_samples, seed)
    train, test = _divided(cohort.y, cohort.groups, 4, seed)
    inner, held = _divided(cohort.y[train], cohort.groups[train], 3, seed)
    parts = []
    for known, asked in ((train[inner], train[held]), (train, test)):
        made = in_fold.InFold(None, cohort.genes, n_genes, in_fold.SELECTIONS[1])
        tables = made.tables(cohort.counts[known], cohort.y[known], cohort.counts[asked])
        parts += zip(tables, (cohort.y[known], cohort.y[asked]), strict=True)
    return Fold(cohort, *parts)


def _divided(y: np.ndarray, groups: np.ndarray, n_splits: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    n_splits = sample_scores.check_folds(y, groups, n_splits)
    return next(evaluation.donor_folds(y, groups, n_splits=n_splits, seed=seed))


def classifier(
    *,
    results_dir: str,
    model: str = "gpt2-tiny",
    start: str = "",
    shown: str = "bins",
    epochs: float = 8.0,
    learning_rate: float = 1e-3,
    batch_size: int = 8,
    precision: str = "fp32",
    seed: int = 0,
) -> GPT2Classifier:
    """What is searched for, as its page sets it outside the search."""
    settings = replace(sentence_classes.SETTINGS, epochs=epochs, learning_rate=learning_rate, batch_size=batch_size)
    kept = {"folder": Path(results_dir) / "models", "precision": precision, "seed": seed}
    return GPT2Classifier(settings=settings, preset=model, start=start, shown=shown, **kept)


def train_job(run: Run, job: int) -> None:
    """Train every so many points of a run's grid, beginning with that of the job's number."""
    values = notebooks.defaults(run.source) | run.parameters

    def given(function: Callable) -> dict:
        return {name: values[name] for name in inspect.signature(function).parameters if name in values}

    found = fold(**given(fold))
    points = list(itertools.product(*values["grid"].values()))[job :: run.search_jobs]
    for point in points:
        one = {name: [value] for name, value in zip(values["grid"], point, strict=True)}
        search(classifier(**given(classifier)), found.inside, found.outside, found.cohort.positive, one)


def main(run: str, job: str) -> int:
    """Entry of a job."""
    return processes.job(lambda: train_job(Run(**json.loads(run)), int(job)))


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
