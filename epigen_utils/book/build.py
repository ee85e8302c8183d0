"""A build: the order of its runs, Snakemake on the plan of a profile, under a lock, and the site that it leaves."""

import contextlib
import dataclasses
import fcntl
import functools
import hashlib
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Collection, Iterator
from pathlib import Path
from typing import TextIO

from epigen_utils import paths, processes, warm_start
from epigen_utils.book import progress, runs
from epigen_utils.errors import DataError, first_error
from epigen_utils.files import sha256

#: Chapters whose pages a first build shows before the others, stage by stage: a site is built after each stage.
EARLY_STAGES = (
    ("epilepsy/01_datasets", "epilepsy/02_table_two"),
    ("epilepsy/03_differential_expression", "geneformer/02_rank_value_encoding"),
)

#: Modules that write what Sphinx reads.
SITE_MODULES = (
    "claims",
    "coverage",
    "ledger",
    "markup",
    "notebooks",
    "progress",
    "recorded",
    "site",
    "sphinx_pages",
    "verdict_pages",
)


def early_stages(planned: list[runs.Run], user_runs: Collection[str] = ()) -> list[list[runs.Run]]:
    """Main runs, and runs on the user's data, of the chapters of each stage; stages without any are left out."""
    stages = [
        [run for run in planned if run.notebook in chapters and run.name in ("main", *user_runs)]
        for chapters in EARLY_STAGES
    ]
    stages = [stage for stage in stages if stage]
    # The whole site follows at once after a stage that would hold every run.
    return stages if sum(map(len, stages)) < len(planned) else stages[:-1]


def stage_sites(profile: str, stages: list[list[runs.Run]]) -> list[Path]:
    """Files that mark the site after each early stage as built."""
    return [paths.BUILD / f"{profile}.stage{stage}" for stage in range(len(stages))]


def chain_seconds(planned: list[runs.Run], seconds: dict[str, float]) -> dict[str, float]:
    """Time of each run and of the longest chain of runs that wait for it, by run key.

    A build starts the longest chains first, so that no core is idle at its end.

    Parameters
    ----------
    seconds
        Recorded time of each run, by run key; a run without one counts `progress.UNKNOWN_SECONDS`.
    """
    waiting = {run.key: [] for run in planned}
    by_metrics = {run.metrics: run.key for run in planned}
    for run in planned:
        for metrics in runs.upstream_metrics(run, planned):
            waiting[by_metrics[metrics]].append(run.key)

    @functools.cache
    def chain(key: str) -> float:
        return seconds.get(key, progress.UNKNOWN_SECONDS) + max(map(chain, waiting[key]), default=0.0)

    return {run.key: chain(run.key) for run in planned}


@dataclasses.dataclass(frozen=True)
class Plan:
    """What a build does: all runs of a profile and of the user's data (`runs.plan_runs`), and where.

    Attributes
    ----------
    own
        The user's data sets, as `runs.plan_runs` takes them.
    cores
        Cores of this host to use.
    executor
        A Snakemake workflow profile, such as ``workflow/slurm``; empty: this host.
    """

    profile: str
    own: list[dict]
    runs: list[runs.Run]
    cores: int
    executor: str = ""

    @functools.cached_property
    def remaining(self) -> progress.Remaining:
        """Runs that the build has still to do; Snakemake's output fills and empties it."""
        seconds = progress.recorded_seconds(self.profile)
        chains = chain_seconds(self.runs, seconds)
        return progress.Remaining({run.rule: run.key for run in self.runs}, chains, seconds, self.cores)


def do_runs(plan: Plan, chosen: list[runs.Run]) -> None:
    """Do some runs of a plan, and those whose results they read.

    Raises
    ------
    DataError
        If another build is running, or a run fails.
    """
    with _build_lock() as jobs:
        _run_snakemake(plan, [run.metrics for run in chosen], jobs)


def build_book(plan: Plan) -> None:
    """Do all runs and build the site; a build that fails or is stopped leaves a site of the runs that are finished.

    Raises
    ------
    DataError
        If another build is running, a run or the site fails, or the build was interrupted.
    """
    stages, first = [], not (paths.SITE / "index.html").exists()
    if first:
        early = early_stages(runs.without_missing_tools(plan.runs), runs.user_run_names(plan.own))
        stages = stage_sites(plan.profile, early)
    with _build_lock() as jobs:
        if first:
            paths.SITE_DONE.unlink(missing_ok=True)
        try:
            _run_snakemake(plan, [*stages, paths.SITE_DONE], jobs, early=bool(stages))
        except (DataError, KeyboardInterrupt) as error:
            try:
                _leave_site(plan)
            except (DataError, OSError) as other:
                print(f"epigen: the site of what is finished was not written ({other})", file=sys.stderr)
            if isinstance(error, DataError):
                raise
            raise DataError("the build was stopped; what was finished is kept: build again to go on") from None


def _leave_site(plan: Plan) -> None:
    """Build a site of the finished runs, if there are any."""
    from epigen_utils.book import site  # here, since a build that ends well has a process of its own for it

    pending = plan.remaining.pending
    if any(run.finished and run.key not in pending for run in plan.runs):
        print("epigen: writing the site of what is finished", file=sys.stderr)
        site.build_site(plan.profile, plan.runs, plan.own, partial=True, pending=pending)


def site_fingerprint() -> str:
    """Hash of what a site is made of beside the runs: pages written by hand, claims, tables, and modules."""
    kinds = (".md", ".bib", ".css", ".js", ".svg", ".png")
    files = [path for path in paths.BOOK.rglob("*.*") if path.suffix in kinds and paths.GENERATED not in path.parents]
    files += [paths.TOC, paths.ROOT / "_config.yml", paths.ROOT / "CONTRIBUTING.md", *paths.CLAIMS.glob("*.csv")]
    files += [paths.PACKAGE / "book" / f"{name}.py" for name in SITE_MODULES]
    files += [paths.DATA / name for name in ("paper_items.csv", "verdicts.yml")]
    files += paths.RECORDED.glob("kernels.json")
    contents = {str(path.relative_to(paths.ROOT)): sha256(path) for path in files}
    return hashlib.sha256(json.dumps(contents, sort_keys=True).encode()).hexdigest()


def _reach_the_present(plan: Plan) -> None:
    """Give outputs whose time stamps are of the future the present one, since Snakemake compares time stamps.

    Raises
    ------
    DataError
        If a file of the user's is of the future.
    """
    outputs = [paths.SITE_DONE, *paths.BUILD.glob(f"{plan.profile}.stage*")]
    for run in plan.runs:
        outputs += [run.executed, run.metrics, *map(run.searched, range(run.search_jobs))]
        outputs += run.reads.rglob("*") if run.reads else []
    now = time.time()
    for path in outputs:
        if path.exists() and path.stat().st_mtime > now:
            os.utime(path)
    for path in {path for run in plan.runs for path in run.user_files}:
        if path.exists() and path.stat().st_mtime > now:
            raise DataError(f"{path}: its time stamp is of the future; touch it, or set the clock of this machine")


@contextlib.contextmanager
def _build_lock() -> Iterator[TextIO]:
    """Hold the lock of the build; yields the lock of its jobs, which a killed build's jobs hold until they end."""
    for folder in (paths.BUILD, paths.RESULTS, paths.BOOK):
        folder.mkdir(exist_ok=True)
        if not os.access(folder, os.W_OK | os.X_OK):
            raise DataError(f"{folder}: cannot be written (read-only, or not yours); change its permissions")
    with open(paths.BUILD_LOCK, "a+") as building, open(paths.JOBS_LOCK, "a+") as jobs:
        try:
            fcntl.flock(building, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            building.seek(0)
            raise DataError(
                f"another build is running here (process {building.read().strip()}); wait for it, or stop it"
            ) from None
        building.truncate(0)
        building.write(str(os.getpid()))
        building.flush()
        # Jobs of a killed build end within a second.
        fcntl.flock(jobs, fcntl.LOCK_EX)
        fcntl.flock(jobs, fcntl.LOCK_SH)
        yield jobs


def _run_snakemake(plan: Plan, targets: list[os.PathLike], jobs: TextIO, *, early: bool = False) -> None:
    """Run Snakemake under `_build_lock`, so that Snakemake's own locks can be cleared after a killed build.

    Parameters
    ----------
    early
        Whether the sites of the early stages are among the targets.
    """
    if "MAKELEVEL" in os.environ:
        processes.exit_with_process(os.getppid())
    limits = ["--workflow-profile", plan.executor] if plan.executor else processes.snakemake_limits(plan.cores)
    configuration = {"profile": plan.profile, "early": int(early)}
    configuration |= {"own": json.dumps(plan.own)} if plan.own else {}
    command = processes.snakemake_command(paths.ROOT / "Snakefile", paths.ROOT, *limits, **configuration)
    options = {
        "env": os.environ | processes.build_environment(os.getpid()),
        "cwd": paths.ROOT,
        "pass_fds": [jobs.fileno()],
        "preexec_fn": processes.kill_with_parent,
    }
    shutil.rmtree(paths.ROOT / ".snakemake" / "locks", ignore_errors=True)  # a killed build's
    _reach_the_present(plan)
    command += ["--rerun-incomplete", "--keep-going", "--quiet", "host", "reason", "--", *map(str, targets)]
    with (
        warm_start.server() as address,
        subprocess.Popen(
            command,
            stderr=subprocess.PIPE,
            stdout=subprocess.DEVNULL,
            **options | {"env": options["env"] | address},
        ) as process,
        open(paths.BUILD_LOG, "w") as log,
    ):
        try:
            error_printed = progress.follow_build(process.stderr, log, plan.remaining)
        except KeyboardInterrupt:
            # A terminal has interrupted Snakemake too; a second signal would cut its clean-up short.
            try:
                process.communicate(timeout=10)
            except subprocess.TimeoutExpired:
                process.send_signal(signal.SIGINT)
                process.communicate()
            raise
        except OSError:  # the log cannot be written
            process.kill()
            raise
    if process.returncode != 0:
        cause = "" if error_printed else f" ({first_error(paths.BUILD_LOG.read_text())})"
        raise DataError(
            f"the build stopped{cause}; what was finished is kept: repair it, build again (log: {paths.BUILD_LOG})"
        )
