"""Numbers of runs that are too large for the profile that shows them, kept in ``data/recorded/<profile>-<device>.json``.

``make sweeps`` runs the profile ``sweeps`` and writes such a file; so does a run on a GPU. A page shows them in a column of
their own, never mixed with its own numbers.
"""

import datetime
import importlib.metadata
import json
import platform
from pathlib import Path

import pandas as pd

from epigen_utils import paths, provenance, runs
from epigen_utils.files import write_atomically


def write(profile: str, device: str) -> Path:
    """Keep the metrics of every finished run of a profile, with date, commit, device and the runs' parameters.

    Parameters
    ----------
    device
        What it ran on, letters, digits and -, such as ``cpu`` or ``h100``.
    """
    done = {}
    for run in runs.plan(profile):
        found = json.loads(run.metrics.read_text())
        parameters = {name: value for name, value in run.parameters.items() if name != "results_dir"}
        done[run.key] = {"parameters": parameters, "seed": found["seed"], "metrics": found["metrics"]}
    about = {"profile": profile, "device": device, "machine": provenance.machine()}
    about |= {"date": datetime.date.today().isoformat(), "commit": provenance.commit()}
    target = paths.RECORDED / f"{profile}-{device}.json"
    target.parent.mkdir(exist_ok=True)
    write_atomically(target, json.dumps(about | {"runs": done}, indent=1, sort_keys=True) + "\n")
    return target


def of_notebook(notebook: str) -> pd.DataFrame:
    """Recorded numbers of a notebook's runs.

    Parameters
    ----------
    notebook
        ``paper/NN_slug``.

    Returns
    -------
    A row a run and metric: ``run``, ``metric``, ``value``, ``low``, ``high``, ``n`` (missing where the run gave none),
    ``device``, ``date``, ``commit``, ``seed``. Empty where nothing is recorded.
    """
    columns = ["run", "metric", "value", "low", "high", "n", "device", "date", "commit", "seed"]
    rows = []
    for path in sorted(paths.RECORDED.glob("*.json")):
        about = json.loads(path.read_text())
        for key, run in about["runs"].items():
            own, _, name = key.partition("--")
            if own == notebook:
                what = {"run": name or "main", "seed": run["seed"]}
                what |= {key: about[key] for key in ("device", "date", "commit")}
                rows += [what | {"metric": metric} | found for metric, found in run["metrics"].items()]
    return pd.DataFrame(rows, columns=columns)


def keep_benchmark(path: Path, result: dict, *, device: str) -> None:
    """Write what a script of ``benchmarks/`` found, with device, machine, date and versions behind it, and print it."""
    about = {"device": device, "machine": provenance.machine(), "date": datetime.date.today().isoformat()}
    about |= {name: importlib.metadata.version(name) for name in ("torch", "transformers")}
    text = json.dumps(result | about | {"python": platform.python_version()}, indent=1)
    write_atomically(path, text + "\n")
    print(text)


def benchmark(name: str) -> dict | None:
    """What a script of ``benchmarks/`` left; None where it was not run."""
    path = paths.BENCHMARKS / f"{name}.json"
    return json.loads(path.read_text()) if path.exists() else None


def beside(summary: pd.DataFrame, notebook: str) -> pd.DataFrame:
    """A page's own table with a column for each recorded run that has the same metrics, as text with its interval.

    Parameters
    ----------
    summary
        A row a metric, its name in the column ``metric``.
    """
    table = summary.copy()
    for (name, device, date), found in of_notebook(notebook).groupby(["run", "device", "date"], sort=False):
        found = found.set_index("metric").reindex(summary["metric"])
        text = [
            ""
            if pd.isna(row.value)
            else f"{row.value:.3f}" + ("" if pd.isna(row.low) else f" ({row.low:.3f} to {row.high:.3f})")
            for row in found.itertuples()
        ]
        table[f"recorded: {name}, {device}, {date}"] = text
    return table
