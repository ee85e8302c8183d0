"""A page is a notebook and a run: the plan of a profile, and one run of it by papermill.

``notebooks/profiles/<profile>.yml`` lists the runs of each notebook with their parameter values; the Snakefile turns
the plan into jobs. ``python -m epigen_utils.runs '<run as JSON>'`` is what a job calls.
"""

import contextlib
import dataclasses
import hashlib
import json
import os
import re
import shutil
import sys
import time
from pathlib import Path

import yaml

from epigen_utils import notebooks, paths, processes, registry, sample_sheets
from epigen_utils.errors import DataError, closest

#: Parameters that name a data set; a run is stale when the registry's entry of one changes.
DATASETS = ("dataset", "published", "gene_sets", "diet", "probes", "factors", "tokenised", "configuration", "sheet")


@dataclasses.dataclass(frozen=True)
class Run:
    """One run of one notebook: ``notebook`` is ``paper/NN_slug``, ``name`` is ``main`` or the run's own."""

    profile: str
    notebook: str
    name: str
    parameters: dict

    @property
    def key(self) -> str:
        """As pages and claims name it: ``paper/NN_slug`` or ``paper/NN_slug--name``."""
        return self.notebook + ("" if self.name == "main" else f"--{self.name}")

    @property
    def rule(self) -> str:
        """As the Snakefile names its job."""
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
        """Folder of the pipeline from reads to counts that it shows, where its notebook takes a sample sheet."""
        return self.results / "reads" if "sheet" in self.parameters else None

    @property
    def search_jobs(self) -> int:
        """Jobs that its grid search is spread over, which end before it begins; none where its profile asks for none."""
        return int(self.parameters.get("search_jobs", 0))

    def searched(self, job: int) -> Path:
        """What such a job leaves."""
        return self.results / "grid" / f"{job}.done"

    @property
    def log(self) -> Path:
        return self.results / "log.txt"

    @property
    def page(self) -> Path:
        return paths.BOOK / f"{self.key}.ipynb"

    @property
    def needs(self) -> notebooks.Needs:
        return notebooks.needs(self.source)

    @property
    def datasets(self) -> list[str]:
        """Names or paths that its parameters give: lists, mappings (``sequences``), and each of `DATASETS` as one."""
        single = [self.parameters.get(name) for name in DATASETS]
        lists = [name for kind in ("cohorts", "corpora", "sets") for name in self.parameters.get(kind, [])]
        return [*filter(None, single), *lists, *self.parameters.get("sequences", {}).values()]

    @property
    def simulated(self) -> bool:
        known = registry.registry()
        return any(not known[name].real for name in self.datasets if name in known)

    @property
    def inputs(self) -> list[Path]:
        """Files whose change makes the run stale: notebook, modules, the chapter's claims, data of the user's own."""
        claims = paths.CLAIMS / f"{self.notebook.replace('/', '_')}.csv"
        own = [
            Path(name)
            for name in [*self.datasets, self.parameters.get("metadata", "")]
            if name and name not in registry.registry()
        ]
        return [
            self.source,
            *notebooks.modules(self.source, simulated=self.simulated),
            *([claims] if claims.exists() else []),
            *own,
        ]

    @property
    def fingerprint(self) -> str:
        """What else makes it stale: the parameter values, and the registry's entries with the hashes of their files."""
        known = registry.registry()
        entries = [repr(known[name]) for name in registry.with_bases(self.datasets)]
        return hashlib.sha256(json.dumps([self.parameters, entries], sort_keys=True).encode()).hexdigest()

    def to_json(self) -> str:
        return json.dumps(dataclasses.asdict(self))


def profiles() -> list[str]:
    """Names of the profiles there are."""
    return sorted(path.stem for path in paths.PROFILES.glob("*.yml"))


def plan(profile: str = "demo", own: dict | None = None) -> list[Run]:
    """The runs of a profile, in the order of the chapters.

    Parameters
    ----------
    own
        A data set of the user's: ``dataset`` (path), ``group``, perhaps ``metadata``, ``reference``, ``donor``. Every notebook that
        takes a sample table gets one more run on it; those on cells take none. Or reads: ``sheet``, and what `epigen_utils.reads` takes
        beside it; the counts that are made of them are the data set. ``sizes`` (group -> samples, or donors where there are any): chapters
        that need more are left out (`left_out`).

    Raises
    ------
    DataError
        If the profile or a notebook is not there, a parameter is one that the notebook does not have, or a notebook
        waits for a chapter that the profile does not run.
    """
    path = paths.PROFILES / f"{profile}.yml"
    if not path.exists():
        raise DataError(f"{path}: no such profile; there are {', '.join(profiles())}")
    listed = _listed(path)
    found = [
        _run(path, profile, notebook, name, values)
        for notebook, named in listed.items()
        for name, values in named.items()
    ]
    if own:
        found += _own_runs(found, profile, own)
    known = {run.notebook for run in found}
    for run in found:
        if lost := set(run.needs.after) - known:
            raise DataError(f"{run.source}: waits for {min(lost)!r}, which {path.name} does not run; add it there")
    return found


def _listed(path: Path) -> dict[str, dict]:
    """What a profile lists: notebook -> run -> parameter values."""
    try:
        listed = yaml.safe_load(path.read_text()) or {}
    except yaml.YAMLError as error:
        where = getattr(error, "problem_mark", None)
        raise DataError(f"{path}: not YAML{f', line {where.line + 1}' if where else ''}; mend it") from None
    for notebook, named in listed.items():
        if not isinstance(named, dict) or not all(isinstance(values, dict | None) for values in named.values()):
            raise DataError(f"{path}: {notebook}: write the name of a run, and its parameters under it")
    return listed


def _run(path: Path, profile: str, notebook: str, name: str, values: dict | None, made: str = "") -> Run:
    """A run, checked; ``made`` is a file that another run makes first."""
    run = Run(profile, notebook, name, {})
    if not run.source.exists():
        raise DataError(f"{path}: {notebook}: no notebook {run.source.relative_to(paths.ROOT)}; mend the name")
    if not re.fullmatch(r"[\w-]+", name):
        raise DataError(f"{path}: {notebook}: run {name!r}; use letters, digits, - and _")
    values = dict(values or {})
    check_parameters(f"{path}: {notebook}: {name}", run.source, values)
    values |= {"results_dir": str(run.results.relative_to(paths.ROOT))}
    run = dataclasses.replace(run, parameters=values)
    if run.reads:
        run.parameters["reads_dir"] = str(run.reads.relative_to(paths.ROOT))
    for dataset in run.datasets:
        if dataset not in registry.registry() and dataset != made and not Path(dataset).is_file():
            near = closest(dataset, registry.registry())
            raise DataError(f"{path}: {notebook}: {name}: {dataset}: no such data set or file; {near}")
    return run


def check_parameters(where: str, source: Path, values: dict) -> None:
    """Refuse a parameter that the notebook does not have: papermill itself would let it pass."""
    known = notebooks.parameters(source)
    for name in values:
        if name not in known:
            raise DataError(f"{where}: unknown parameter {name!r}; {closest(name, known)}")


def _own_runs(found: list[Run], profile: str, own: dict) -> list[Run]:
    given = own.get("sheet") or own["dataset"]
    name = own_name(given)
    if any(run.name == name for run in found):
        raise DataError(f"{given}: the profile has a run called {name!r}; rename the file")
    main = [run for run in found if run.name == "main"]
    runs, made, options = [], "", {key: value for key, value in own.items() if value}
    if "sheet" in options:
        of_reads = next(run for run in main if run.reads)
        known = notebooks.parameters(of_reads.source)
        values = {key: value for key, value in options.items() if key in known}
        runs.append(_run(Path(given), profile, of_reads.notebook, name, values))
        samples = sample_sheets.read(given)
        made = str(runs[0].reads / "counts.h5ad")
        options |= {"dataset": made, "group": "group"} | (
            {"donor": "donor"} if all(one.donor for one in samples) else {}
        )
        own = own | {"sizes": sample_sheets.sizes(samples)}
    lost = left_out(main, own)
    for run in main:
        known = notebooks.parameters(run.source)
        if "metadata" not in known or run.notebook in lost:
            continue
        values = {"cohorts": [options["dataset"]]} if "cohorts" in known else {"dataset": options["dataset"]}
        values |= {key: value for key, value in options.items() if key != "dataset" and key in known}
        runs.append(_run(Path(given), profile, run.notebook, name, values, made))
    return runs


def left_out(planned: list[Run], own: dict) -> dict[str, str]:
    """Notebook -> why a data set of the user's gets no run of it: how many of each group there are (``own["sizes"]``) is known beforehand."""
    if own.get("sizes") is None:
        return {}
    # Numbers come as words through a configuration of Snakemake's.
    sizes = {group: int(n) for group, n in own["sizes"].items()}
    found = {}
    for run in planned:
        needs = run.needs
        if "metadata" not in notebooks.parameters(run.source):
            continue
        least, fewest = max(needs.samples, 2), min(sizes, key=sizes.get, default="")
        if len(sizes) < 2 or (needs.groups and len(sizes) != needs.groups):
            found[run.notebook] = f"it takes {needs.groups or 'two or more'} groups, and there are {len(sizes)}"
        elif sizes[fewest] < least:
            found[run.notebook] = (
                f"it needs {least} samples or donors of each group, and {fewest!r} has {sizes[fewest]}"
            )
    return found


def own_name(path: str) -> str:
    """Name of the runs on a file of the user's: its stem, letters, digits, - and _ only."""
    return re.sub(r"[^\w-]+", "-", Path(path).name.split(".")[0]).strip("-") or "own"


def missing_tools(planned: list[Run]) -> dict[str, list[str]]:
    """Notebook -> programs it calls that are not on the PATH."""
    wanted = {run.notebook: [tool for tool in run.needs.tools if not shutil.which(tool)] for run in planned}
    return {notebook: tools for notebook, tools in wanted.items() if tools}


def without_missing_tools(planned: list[Run]) -> list[Run]:
    """The plan less the notebooks whose programs are not installed, and less those that wait for them."""
    lost = set(missing_tools(planned))
    while more := {run.notebook for run in planned if run.notebook not in lost and lost & set(run.needs.after)}:
        lost |= more
    return [run for run in planned if run.notebook not in lost]


def after(run: Run, planned: list[Run]) -> list[Path]:
    """Metrics files that a run waits for: of the same run name where the chapter has one, else of its main run."""
    files = []
    for notebook in run.needs.after:
        named = {other.name: other for other in planned if other.notebook == notebook}
        files.append((named.get(run.name) or named["main"]).metrics)
    return files


#: Variables by which numerical libraries learn how many threads they may take.
THREAD_VARIABLES = (
    "OMP_NUM_THREADS",
    "OPENBLAS_NUM_THREADS",
    "MKL_NUM_THREADS",
    "NUMBA_NUM_THREADS",
    "VECLIB_MAXIMUM_THREADS",
)


def execute(run: Run, threads: int) -> None:
    """Run a notebook by papermill, written beside and renamed, logged to ``log.txt``.

    Raises
    ------
    DataError
        One line: what the notebook raised, and where its traceback is.
    """
    import papermill

    for variable in THREAD_VARIABLES:
        os.environ[variable] = str(threads)
    for name in registry.with_bases(run.datasets):
        registry.fetch(name)
    run.results.mkdir(parents=True, exist_ok=True)
    part = run.executed.with_name("notebook.failed.ipynb")
    started = time.perf_counter()
    with open(run.log, "w") as log, _stderr_into(log) as terminal:
        bar = {"desc": run.key, "leave": False, "mininterval": 0.5, "file": terminal}
        try:
            papermill.execute_notebook(
                run.source, part, parameters=run.parameters, kernel_name="python3", cwd=paths.ROOT, progress_bar=bar
            )
        except papermill.exceptions.PapermillExecutionError as error:
            log.write("\n".join(error.traceback))
            what = error.evalue if error.ename == "DataError" else f"{error.ename}: {error.evalue}"
            raise DataError(f"{run.key}: {what} (traceback: {run.log})") from None
    part.replace(run.executed)
    print(f"{run.key}: {time.perf_counter() - started:.1f} s", file=sys.stderr)


@contextlib.contextmanager
def _stderr_into(log):
    """Send what this process and its kernel write to stderr into the log; gives a stream that still reaches the terminal."""
    sys.stderr.flush()
    with os.fdopen(os.dup(2), "w") as terminal:
        os.dup2(log.fileno(), 2)
        try:
            yield terminal
        finally:
            sys.stderr.flush()
            os.dup2(terminal.fileno(), 2)


def main(argument: str, threads: str = "1") -> int:
    """Entry of a job."""
    return processes.job(lambda: execute(Run(**json.loads(argument)), int(threads)))


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
