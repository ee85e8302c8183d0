"""The order of a build's runs: first what its first pages show, then the longest chains of runs."""

import functools
from pathlib import Path

from epigen_utils import paths
from epigen_utils.book import runs
from epigen_utils.book.runs import Run

#: Seconds that a run without a recorded time counts.
UNKNOWN_SECONDS = 30.0
#: Chapters whose pages a first build shows before the others, stage by stage: a site is built after each stage.
EARLY_STAGES = (
    ("epilepsy/01_datasets", "epilepsy/02_table_two"),
    ("epilepsy/03_differential_expression", "geneformer/02_rank_value_encoding"),
)


def early_stages(planned: list[Run], user_run: str = "") -> list[list[Run]]:
    """Main runs, and runs on the user's data, of the chapters of each stage; stages without any are left out."""
    stages = [
        [run for run in planned if run.notebook in chapters and run.name in ("main", user_run)]
        for chapters in EARLY_STAGES
    ]
    stages = [stage for stage in stages if stage]
    # The whole site follows at once after a stage that would hold every run.
    return stages if sum(map(len, stages)) < len(planned) else stages[:-1]


def stage_sites(profile: str, stages: list[list[Run]]) -> list[Path]:
    """Files that mark the site after each early stage as built."""
    return [paths.BUILD / f"{profile}.stage{stage}" for stage in range(len(stages))]


def chain_seconds(planned: list[Run], seconds: dict[str, float]) -> dict[str, float]:
    """Time of each run and of the longest chain of runs that wait for it, by run key.

    A build starts the longest chains first, so that no core is idle at its end.

    Parameters
    ----------
    seconds
        Recorded time of each run, by run key; a run without one counts `UNKNOWN_SECONDS`.
    """
    waiting = {run.key: [] for run in planned}
    by_metrics = {run.metrics: run.key for run in planned}
    for run in planned:
        for metrics in runs.upstream_metrics(run, planned):
            waiting[by_metrics[metrics]].append(run.key)

    @functools.cache
    def chain(key: str) -> float:
        return seconds.get(key, UNKNOWN_SECONDS) + max(map(chain, waiting[key]), default=0.0)

    return {run.key: chain(run.key) for run in planned}
