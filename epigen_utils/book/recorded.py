"""Metrics of runs that are too large for the profile that shows them: ``data/recorded/<profile>-<device>.json``.

``make sweeps`` runs the profile ``sweeps`` and writes such a file; so does a run on a GPU. A page shows recorded
numbers in a column of their own, apart from those that it computed.
"""

import datetime
import importlib.metadata
import json
import platform
from pathlib import Path

import pandas as pd

from epigen_utils import paths
from epigen_utils.book import markup, notebooks, provenance, runs
from epigen_utils.files import write_atomically


def record_runs(profile: str, device: str) -> Path:
    """Record the metrics of all runs of a profile, with date, commit, device and the runs' parameters.

    Parameters
    ----------
    device
        What the runs used, in letters, digits and -, such as ``cpu`` or ``h100``.
    """
    records = {}
    for run in runs.plan_runs(profile):
        results = json.loads(run.metrics.read_text())
        parameters = {name: value for name, value in run.parameters.items() if name != "results_dir"}
        records[run.key] = {"parameters": parameters, "seed": results["seed"], "metrics": results["metrics"]}
    content = {
        "profile": profile,
        "device": device,
        "machine": provenance.machine_description(),
        "date": datetime.date.today().isoformat(),
        "commit": provenance.current_commit(),
        "runs": records,
    }
    target = paths.RECORDED / f"{profile}-{device}.json"
    write_atomically(target, json.dumps(content, indent=1, sort_keys=True) + "\n")
    return target


def recorded_metrics(notebook: str) -> pd.DataFrame:
    """Recorded metrics of a notebook's runs.

    Parameters
    ----------
    notebook
        ``paper/NN_slug``.

    Returns
    -------
    A row for each run and metric, none if nothing is recorded; ``value``, ``low``, ``high`` and ``n`` are missing where
    the run gave none. Columns: ``run``, ``metric``, ``value``, ``low``, ``high``, ``n``, ``device``, ``date``,
    ``commit``, ``seed``.
    """
    columns = ["run", "metric", "value", "low", "high", "n", "device", "date", "commit", "seed"]
    rows = []
    for path in sorted(paths.RECORDED.glob("*.json")):
        content = json.loads(path.read_text())
        for key, run in content["runs"].items():
            recorded_notebook, name = notebooks.split_run_key(key)
            if recorded_notebook == notebook:
                source = {"run": name, "seed": run["seed"]}
                source |= {field: content[field] for field in ("device", "date", "commit")}
                rows += [source | {"metric": metric} | numbers for metric, numbers in run["metrics"].items()]
    return pd.DataFrame(rows, columns=columns)


def write_benchmark(path: Path, result: dict, *, device: str) -> None:
    """Write and print the result of a script of ``benchmarks/``, followed by device, machine, date and versions."""
    about = {"device": device, "machine": provenance.machine_description(), "date": datetime.date.today().isoformat()}
    about |= {name: importlib.metadata.version(name) for name in ("torch", "transformers")}
    text = json.dumps(result | about | {"python": platform.python_version()}, indent=1)
    write_atomically(path, text + "\n")
    print(text)


def read_benchmark(name: str) -> dict | None:
    """The result of a script of ``benchmarks/``; None if there is none."""
    path = paths.BENCHMARKS / f"{name}.json"
    return json.loads(path.read_text()) if path.exists() else None


def add_recorded_columns(summary: pd.DataFrame, notebook: str) -> pd.DataFrame:
    """Add to a page's table a column for each recorded run: its value of the same metric with the interval, as text.

    Parameters
    ----------
    summary
        A row for each metric, its name in the column ``metric``.
    """
    table = summary.copy()
    for (name, device, date), metrics in recorded_metrics(notebook).groupby(["run", "device", "date"], sort=False):
        rows = metrics.set_index("metric").reindex(summary["metric"]).itertuples()
        table[f"recorded: {name}, {device}, {date}"] = [
            markup.with_interval(row.value, row.low, row.high, ".3f") for row in rows
        ]
    return table
