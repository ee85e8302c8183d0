"""Jobs of a grid search: ``python -m epigen_utils.commands.search_jobs '<run as JSON>' <job>`` trains a share of it."""

import inspect
import itertools
import json
import sys
from collections.abc import Callable

from epigen_utils import processes
from epigen_utils.book import notebooks
from epigen_utils.book.runs import Run
from epigen_utils.gpt2 import grid_search
from epigen_utils.prediction import sample_cohort


def load_search_fold(
    *,
    dataset: str,
    metadata: str = "",
    group: str = "",
    reference: str = "",
    donor: str = "",
    round_counts: bool = False,
    max_samples: int = 0,
    n_genes: int = 32,
    seed: int = 0,
) -> grid_search.SearchFold:
    """Load a cohort and divide it by `grid_search.divide_twice`; parameters are those of the notebook."""
    columns = {"metadata": metadata, "group": group, "reference": reference, "donor": donor}
    columns |= {"round_counts": round_counts}
    cohort = sample_cohort.subsample_cohort(sample_cohort.load_cohort(dataset, **columns), max_samples, seed)
    return grid_search.divide_twice(cohort, n_genes=n_genes, seed=seed)


def train_job(run: Run, job: int) -> None:
    """Train every n-th point of a run's grid, n being its number of jobs, starting with point ``job``."""
    values = notebooks.default_values(run.source) | run.parameters

    def arguments(function: Callable) -> dict:
        return {name: values[name] for name in inspect.signature(function).parameters if name in values}

    data = load_search_fold(**arguments(load_search_fold))
    points = list(itertools.product(*values["grid"].values()))[job :: run.search_jobs]
    for point in points:
        grid = {name: [value] for name, value in zip(values["grid"], point, strict=True)}
        grid_search.search_grid(
            grid_search.base_classifier(**arguments(grid_search.base_classifier)),
            data.inside,
            data.outside,
            data.cohort.positive,
            grid,
        )


def main(run: str, job: str) -> int:
    """Train one job's points of a run (JSON) whose notebook has a ``grid``; the notebook then reads them."""
    return processes.run_job(lambda: train_job(Run(**json.loads(run)), int(job)))


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
