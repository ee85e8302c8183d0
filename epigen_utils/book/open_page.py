"""The page of a run while its notebook runs: its folder, parameters, data sets and metrics."""

import re
import shutil
import time
from dataclasses import dataclass, field
from pathlib import Path

from IPython.core.getipython import get_ipython
from IPython.display import display

from epigen_utils import paths
from epigen_utils.book import markup, notebooks


@dataclass
class Page:
    """What the page of a run has shown and recorded so far."""

    notebook: str
    results: Path
    seed: int
    parameters: dict
    profile: str
    run: str
    started: float = field(default_factory=time.perf_counter)
    metrics: dict = field(default_factory=dict)
    datasets: dict = field(default_factory=dict)
    model: str = ""
    unplaced: list = field(default_factory=list)  # metrics recorded since the last figure or table
    last_place: str = ""

    @property
    def key(self) -> str:
        return notebooks.run_key(self.notebook, self.run)

    def place(self, kind: str, name: str) -> str:
        """The label of a figure or table, to which the metrics recorded before it now lead."""
        label = markup.output_label(self.key, kind, name)
        self.last_place = markup.anchor(label)
        self._place_metrics()
        return label

    def _place_metrics(self) -> None:
        for metric in self.unplaced:
            self.metrics[metric]["at"] = self.last_place
        self.unplaced.clear()

    def close(self) -> None:
        """Let metrics recorded after the last figure or table lead to it."""
        if self.last_place:
            self._place_metrics()

    def link(self, path: Path) -> str:
        """The path as a link in a page: relative to the book's root if it lies in the checkout, else unchanged."""
        path = path.resolve()
        return f"/../{path.relative_to(paths.ROOT)}" if path.is_relative_to(paths.ROOT) else str(path)


_page: Page | None = None


def begin(notebook: str, *, results_dir: str, seed: int, model: str = "") -> None:
    """Open the page of a run; figures and tables of an earlier finished run in the same folder are deleted.

    Parameters
    ----------
    notebook
        ``paper/NN_slug``.
    results_dir
        ``results/<profile>/<paper>/<NN_slug>/<run>``, or any folder for a notebook that is run alone.
    model
        Model of the run, for claims about a model.

    Raises
    ------
    DataError
        If papermill was given a parameter that the notebook does not have, or a value that cannot be of its type;
        papermill itself accepts any.
    """
    global _page
    results = Path(str(results_dir))
    folder = results.resolve()
    parts = folder.relative_to(paths.RESULTS).parts if folder.is_relative_to(paths.RESULTS) else ()
    profile, run = (parts[0], parts[-1]) if len(parts) == 4 else ("alone", "alone")
    values = _parameter_values(notebook)  # a refused one leaves the finished run as it is
    finished = (results / "metrics.json").exists()
    for kind in ("figures", "tables"):
        if finished:
            shutil.rmtree(results / kind, ignore_errors=True)
        (results / kind).mkdir(parents=True, exist_ok=True)
    (results / "metrics.json").unlink(missing_ok=True)
    _page = Page(notebook, results, seed, values, profile, run, model=model)


def _parameter_values(notebook: str) -> dict:
    """Values in this run of the parameters that the notebook declares, in the notebook too in the types it declares."""
    shell = get_ipython()
    source = paths.NOTEBOOKS / f"{notebook}.ipynb"
    if shell is None or not source.exists():
        return {}
    declared = notebooks.declared_parameters(source)
    injected = next((cell for cell in shell.user_ns["In"] if cell.startswith("# Parameters\n")), "")
    given = re.findall(r"^(\w+) = ", injected, re.M)
    notebooks.check_parameters(notebook, source, given)
    # What papermill made of the words that it was given would go on from here.
    shell.user_ns.update(notebooks.cast_parameters(notebook, source, {name: shell.user_ns[name] for name in given}))
    return {name: shell.user_ns[name] for name in declared if name in shell.user_ns}


def current_page() -> Page:
    """The page that is open.

    Raises
    ------
    RuntimeError
        If `begin` was not called.
    """
    if _page is None:
        raise RuntimeError("no page is open: call report.begin first")
    return _page


def show(myst: str, plain: str) -> None:
    """Show an output as MyST for the book and as HTML for Jupyter."""
    display({"text/markdown": myst, "text/html": plain}, raw=True)
