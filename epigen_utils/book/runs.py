"""The plan of a profile, and the execution of one of its runs by papermill; each run becomes a page.

``notebooks/profiles/<profile>.yml`` lists the runs of each notebook with their parameter values; the Snakefile turns
the plan into jobs, each of which calls ``python -m epigen_utils.book.runs '<run as JSON>'``.
"""

import dataclasses
import functools
import hashlib
import json
import os
import re
import shutil
import sys
import time
from pathlib import Path

from epigen_utils import paths, processes, warm_start
from epigen_utils.book import notebooks, progress
from epigen_utils.data import registry
from epigen_utils.errors import DataError, suggest
from epigen_utils.files import sha256
from epigen_utils.reads import sample_sheets


@dataclasses.dataclass(frozen=True)
class Run:
    """A run of a notebook (``paper/NN_slug``); its name is ``main`` in the first run of a chapter."""

    profile: str
    notebook: str
    name: str
    parameters: dict

    @property
    def key(self) -> str:
        """Key of the run on pages and in claims."""
        return notebooks.run_key(self.notebook, self.name)

    @property
    def rule(self) -> str:
        """Name of its rule in the Snakefile."""
        return self.key.replace("/", "_").replace("-", "_")

    @property
    def source(self) -> Path:
        return paths.NOTEBOOKS / f"{self.notebook}.ipynb"

    @property
    def results(self) -> Path:
        return paths.RESULTS / self.profile / self.notebook / self.name

    @property
    def executed(self) -> Path:
        return self.results / "notebook.ipynb"

    @property
    def metrics(self) -> Path:
        return self.results / "metrics.json"

    @property
    def reads(self) -> Path | None:
        """Folder of its pipeline from reads to counts, if its notebook takes a sample sheet."""
        return self.results / "reads" if "sheet" in self.parameters else None

    @property
    def search_jobs(self) -> int:
        """Number of jobs that share its grid search and end before it begins; 0 unless its profile sets it."""
        return int(self.parameters.get("search_jobs", 0))

    def searched(self, job: int) -> Path:
        """File that marks a job of the grid search as finished."""
        return self.results / "grid" / f"{job}.done"

    @property
    def log(self) -> Path:
        return self.results / "log.txt"

    @property
    def page(self) -> Path:
        return paths.BOOK / f"{self.key}.ipynb"

    @property
    def needs(self) -> notebooks.Needs:
        return notebooks.declared_needs(self.source)

    @property
    def datasets(self) -> list[str]:
        """Names or paths of its data sets, from the parameters that its notebook declares as ``datasets``."""
        names, values = [], notebooks.default_values(self.source) | self.parameters
        for parameter in self.needs.datasets:
            value = values.get(parameter) or []
            value = list(value.values()) if isinstance(value, dict) else value
            names += [value] if isinstance(value, str) else value
        return names

    @property
    def simulated(self) -> bool:
        registered = registry.entries()
        return any(not registered[name].real for name in self.datasets if name in registered)

    @property
    def sources(self) -> list[Path]:
        """Files of the project whose change puts the run out of date: notebook, modules, tables they name, claims."""
        claims_file = paths.CLAIMS / f"{self.notebook.replace('/', '_')}.csv"
        modules = notebooks.imported_modules(self.source, simulated=self.simulated)
        return [
            self.source,
            *sorted(notebooks.with_tables(modules)),
            *([claims_file] if claims_file.exists() else []),
        ]

    @property
    def user_files(self) -> list[Path]:
        """The user's own files that it reads."""
        names = [*self.datasets, self.parameters.get("metadata", "")]
        return [Path(name) for name in names if name and name not in registry.entries()]

    @property
    def fingerprint(self) -> str:
        """Hash of the parameter values, of the contents of `sources`, and of the registry's entries of its data."""
        registered = registry.entries()
        entries = [repr(registered[name]) for name in registry.with_bases(self.datasets)]
        contents = {str(path.relative_to(paths.ROOT)): _content_hash(path) for path in self.sources}
        identity = json.dumps([self.parameters, entries, contents], sort_keys=True)
        return hashlib.sha256(identity.encode()).hexdigest()

    @property
    def finished(self) -> bool:
        """Whether its results and its executed notebook are there."""
        return self.executed.exists() and self.metrics.exists()

    def to_json(self) -> str:
        return json.dumps(dataclasses.asdict(self))


@functools.cache
def _content_hash(path: Path) -> str:
    return sha256(path)


def plan_runs(profile: str = "demo", *own: dict) -> list[Run]:
    """The runs of a profile, in the order of the chapters.

    Parameters
    ----------
    own
        The user's data sets, each with ``dataset`` (path), ``group`` and optionally ``name`` (`user_run`),
        ``metadata``, ``reference``, ``donor``: every notebook that takes a sample table gets a further run on it, or,
        if its ``kind`` is ``cells``, every notebook that takes cells (`notebooks.Needs`); ``start``, ``goal``,
        ``teacher`` and ``distil`` are of cells. Or reads: ``sheet`` and the other options of
        `pipeline.plan_pipeline`; the counts made from them are the data set.
        Chapters that need more than ``sizes`` (group -> samples, or donors if there are any) are left out
        (`progress.excluded_notebooks`). One that was ``refused`` (why) gets no run.

    Raises
    ------
    DataError
        If the profile or a notebook does not exist, a notebook does not have a parameter, or it depends on a chapter
        that the profile does not run.
    """
    path = paths.PROFILES / f"{profile}.yml"
    if not path.exists():
        raise DataError(f"{path}: no such profile; there are {', '.join(notebooks.profile_names())}")
    planned = [
        _checked_run(path, profile, notebook, name, values)
        for notebook, chapter_runs in notebooks.read_profile(path).items()
        for name, values in chapter_runs.items()
    ]
    for user_data in own:
        if "refused" not in user_data:
            planned += _user_runs(planned, profile, user_data)
    chapters = {run.notebook for run in planned}
    for run in planned:
        if absent := set(run.needs.after) - chapters:
            raise DataError(f"{run.source}: waits for {min(absent)!r}, which {path.name} does not run; add it there")
    return planned


def profile_data(profile: str) -> list[str]:
    """Names of the data sets that the runs of a profile name, and of those on which the simulated ones are based.

    Raises
    ------
    DataError
        As `plan_runs`.
    """
    return registry.with_bases([name for run in plan_runs(profile) for name in run.datasets])


def _checked_run(path: Path, profile: str, notebook: str, name: str, values: dict | None, pending: str = "") -> Run:
    """A run, checked; ``pending`` is a data file that another run will write."""
    run = Run(profile, notebook, name, {})
    if not run.source.exists():
        source = run.source.relative_to(paths.ROOT) if run.source.is_relative_to(paths.ROOT) else run.source
        raise DataError(f"{path}: {notebook}: no notebook {source}; correct the name")
    if not re.fullmatch(r"[\w-]+", name):
        raise DataError(f"{path}: {notebook}: run {name!r}; use letters, digits, - and _")
    values = values or {}
    where = f"{path}: {notebook}: {name}"
    notebooks.check_parameters(where, run.source, values)
    # In YAML, a name without a value is None: it has the notebook's default.
    values = {parameter: value for parameter, value in values.items() if value is not None}
    values = notebooks.cast_parameters(where, run.source, values)
    values |= {"results_dir": str(run.results.relative_to(paths.ROOT))}
    run = dataclasses.replace(run, parameters=values)
    if run.reads:
        run.parameters["reads_dir"] = str(run.reads.relative_to(paths.ROOT))
    for dataset in run.datasets:
        if dataset not in registry.entries() and dataset != pending and not Path(dataset).exists():
            near = suggest(dataset, registry.entries())
            raise DataError(f"{path}: {notebook}: {name}: {dataset}: no such data set or file; {near}")
    return run


def _user_runs(planned: list[Run], profile: str, user_data: dict) -> list[Run]:
    """Runs on the user's data: the reads chapter if they are reads, then each chapter that takes a sample table."""
    file = user_data.get("sheet") or user_data["dataset"]
    name = user_run(user_data)
    if any(run.name == name for run in planned):
        raise DataError(f"{file}: the profile has a run called {name!r}; rename it")
    main_runs = [run for run in planned if run.name == "main"]
    user_runs, counts = [], ""
    options = {key: value for key, value in user_data.items() if value and key not in progress.FACTS}
    # Snakemake passes values of its configuration as strings.
    if str(options.pop("round_counts", False)).lower() == "true":
        options["round_counts"] = True
    if "sheet" in options:
        reads_run = next(run for run in main_runs if run.reads)
        declared = notebooks.declared_parameters(reads_run.source)
        values = {key: value for key, value in options.items() if key in declared}
        user_runs.append(_checked_run(Path(file), profile, reads_run.notebook, name, values))
        samples = sample_sheets.read_sheet(file)
        counts = str(user_runs[0].reads / "counts.h5ad")
        options |= {"dataset": counts, "group": "group"}
        if all(sample.donor for sample in samples):
            options["donor"] = "donor"
        user_data = user_data | {"sizes": sample_sheets.group_sizes(samples)}
    excluded = progress.excluded_notebooks(main_runs, user_data)
    for run in main_runs:
        declared = notebooks.declared_parameters(run.source)
        if not progress.takes(run, user_data) or run.notebook in excluded:
            continue
        if user_data.get("kind") == "cells":
            values = _cell_values(run, options, user_runs)
            user_runs.append(_checked_run(Path(file), profile, run.notebook, name, values))
            continue
        values = {"cohorts": [options["dataset"]]} if "cohorts" in declared else {"dataset": options["dataset"]}
        values |= {key: value for key, value in options.items() if key != "dataset" and key in declared}
        user_runs.append(_checked_run(Path(file), profile, run.notebook, name, values, counts))
    return user_runs


def _cell_values(run: Run, options: dict, user_runs: list[Run]) -> dict:
    """Parameter values of a chapter on the user's cells; ``user_runs`` are those before it."""
    declared = notebooks.declared_parameters(run.source)
    values = dict(run.needs.cells)
    values |= {"corpora": [options["dataset"]]} if "corpora" in declared else {}
    results = {other.notebook: other.parameters["results_dir"] for other in user_runs}
    made = {name: f"{results[n]}/{folder}" for name, (n, folder) in progress.MADE_OF_CELLS.items() if n in results}
    given = {"label": options.get("group", ""), "healthy": options.get("reference") or options.get("goal", "")}
    return values | {name: value for name, value in (made | given | options).items() if name in declared}


def user_run(user_data: dict) -> str:
    """Name of the runs on a user's data set: its ``name``, or its file's stem, reduced to letters, digits, - and _."""
    file = user_data.get("sheet") or user_data["dataset"]
    return user_data.get("name") or re.sub(r"[^\w-]+", "-", Path(file).name.split(".")[0]).strip("-") or "own"


def user_run_names(own: list[dict]) -> list[str]:
    """Names of the runs on the user's data sets, without those that were refused."""
    return [user_run(user_data) for user_data in own if "refused" not in user_data]


def missing_tools(planned: list[Run]) -> dict[str, list[str]]:
    """Notebook -> programs it calls that are not on the PATH."""
    missing = {run.notebook: [tool for tool in run.needs.tools if not shutil.which(tool)] for run in planned}
    return {notebook: tools for notebook, tools in missing.items() if tools}


def without_missing_tools(planned: list[Run]) -> list[Run]:
    """The plan without notebooks whose programs are not installed, and without those that depend on them."""
    excluded = set(missing_tools(planned))
    while dependents := {
        run.notebook for run in planned if run.notebook not in excluded and excluded & set(run.needs.after)
    }:
        excluded |= dependents
    return [run for run in planned if run.notebook not in excluded]


def upstream_metrics(run: Run, planned: list[Run]) -> list[Path]:
    """Metrics files on which a run depends, one for each chapter whose results it reads.

    They are those of the run that its parameters name, else of the run of the same name, else of the chapter's main;
    a run on cells that names no model of a chapter reads none.
    """
    files = []
    for notebook in run.needs.after:
        by_name = {other.name: other for other in planned if other.notebook == notebook}
        named = [
            other
            for other in by_name.values()
            if any(str(value).startswith(f"{other.parameters['results_dir']}/") for value in run.parameters.values())
        ]
        same = [by_name[run.name]] if run.name in by_name else []
        main = [by_name["main"]] if run.needs.cells is None else []
        files += [other.metrics for other in (named or same or main)[:1]]
    return files


def execute_run(run: Run, threads: int) -> None:
    """Run a notebook by papermill, with a log in ``log.txt``; the executed notebook gets its name once it is complete.

    Raises
    ------
    DataError
        If the notebook raises; one line, with the error and the file that has the traceback.
    """
    # Imported here, since planning runs nothing.
    import papermill

    from epigen_utils.data import fetching

    for variable in processes.THREAD_VARIABLES:
        os.environ[variable] = str(threads)
    for name in registry.with_bases(run.datasets):
        fetching.fetch(name)
    run.results.mkdir(parents=True, exist_ok=True)
    part = run.executed.with_name("notebook.failed.ipynb")
    started = time.perf_counter()
    with open(run.log, "w") as log, processes.stderr_into(log) as terminal:
        bar = {"desc": run.key, "leave": False, "mininterval": 0.5, "file": terminal}
        try:
            papermill.execute_notebook(
                run.source,
                part,
                parameters=run.parameters,
                kernel_name="python3",
                kernel_manager_class=warm_start.kernel_manager(notebooks.library_imports(run.source)),
                cwd=paths.ROOT,
                progress_bar=bar,
            )
        except papermill.exceptions.PapermillExecutionError as error:
            log.write("\n".join(error.traceback))
            cause = error.evalue if error.ename == "DataError" else f"{error.ename}: {error.evalue}"
            raise DataError(f"{run.key}: {cause} (traceback: {run.log})") from None
    part.replace(run.executed)
    print(f"{run.key}: {time.perf_counter() - started:.1f} s", file=sys.stderr)


def main(argument: str, threads: str = "1") -> int:
    """Entry of a job."""
    return processes.run_job(lambda: execute_run(Run(**json.loads(argument)), int(threads)))


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
