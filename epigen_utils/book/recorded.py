"""Metrics of runs that are too large for the profile that shows them: ``data/recorded/<profile>-<device>.json``.

``make sweeps`` runs the profile ``sweeps`` and writes such a file; so does a run on a GPU. A page shows recorded
numbers in tables or columns of their own, apart from those that it computed.
"""

import datetime
import json
from collections.abc import Collection
from pathlib import Path

import pandas as pd

from epigen_utils import paths
from epigen_utils.book import markup, notebooks, provenance, runs
from epigen_utils.files import write_atomically


def record_runs(profile: str, device: str, chosen: Collection[str] = ()) -> Path:
    """Record the metrics of a profile's runs, with date, commit, machine and the runs' parameters.

    Parameters
    ----------
    device
        What the runs used, in letters, digits and -, such as ``cpu`` or ``h100``.
    chosen
        Keys of the runs to record; what is recorded of the profile's others stays. Empty: all.
    """
    target = paths.RECORDED / f"{profile}-{device}.json"
    planned = runs.plan_runs(profile)
    known = json.loads(target.read_text())["runs"] if target.exists() else {}
    records = {run.key: known[run.key] for run in planned if chosen and run.key in known}
    made = {
        "machine": provenance.machine_description(),
        "date": datetime.date.today().isoformat(),
        "commit": provenance.current_commit(),
    }
    for run in planned:
        if not chosen or run.key in chosen:
            results = json.loads(run.metrics.read_text())
            parameters = notebooks.default_values(run.source) | run.parameters
            del parameters["results_dir"]
            of_run = {"parameters": parameters, "seed": results["seed"], "metrics": results["metrics"]}
            records[run.key] = of_run | made
    content = {"profile": profile, "device": device, "runs": records}
    write_atomically(target, json.dumps(content, indent=1, sort_keys=True) + "\n")
    return target


def read_record(name: str) -> dict | None:
    """What is recorded in ``data/recorded/<name>.json``; None if nothing is."""
    return _read_if_there(paths.RECORDED / f"{name}.json")


def _read_if_there(path: Path) -> dict | None:
    return json.loads(path.read_text()) if path.exists() else None


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
    ``commit``, ``seed``, ``parameters`` (a dictionary).
    """
    columns = ["run", "metric", "value", "low", "high", "n", "device", "date", "commit", "seed", "parameters"]
    rows = []
    for path in sorted(paths.RECORDED.glob("*.json")):
        content = json.loads(path.read_text())
        for key, run in content.get("runs", {}).items():
            recorded_notebook, name = notebooks.split_run_key(key)
            if recorded_notebook == notebook:
                source = {"run": name, "device": content["device"]}
                source |= {field: run[field] for field in ("seed", "date", "commit", "parameters")}
                rows += [source | {"metric": metric} | numbers for metric, numbers in run["metrics"].items()]
    return pd.DataFrame(rows, columns=columns)


def as_text(metrics: pd.DataFrame, metric: str) -> str:
    """A metric with its interval as text, or ``not recorded``; ``metrics`` are of one run, indexed by metric."""
    if metric not in metrics.index:
        return "not recorded"
    return markup.with_interval(*metrics.loc[metric, ["value", "low", "high"]], ".3f")


def read_benchmark(name: str) -> dict | None:
    """The result of a script of ``benchmarks/``; None if there is none."""
    return _read_if_there(paths.BENCHMARKS / f"{name}.json")


def kernels_table() -> str:
    """What `benchmarks/kernels.py` found, as MyST: a row for each chapter, kind of kernels and number of threads."""
    record = read_record("kernels")
    if record is None:
        return "This is not measured yet; `python benchmarks/kernels.py` measures it.\n"
    table = pd.DataFrame(record["rows"])
    largest = ["none" if row.largest == 0 else f"{row.largest:.1e} ({row.metric})" for row in table.itertuples()]
    table = table[["chapter", "kernels", "threads"]].assign(
        **{"numbers": table["numbers"], "that differ": table["differ"], "largest relative difference": largest}
    )
    used = "; ".join(f"{name}: {', '.join(libraries)}" for name, libraries in record["libraries"].items())
    caption = f"Numbers of a run that differ from those of the first row of its chapter ({markup.escape_text(used)}; "
    caption += f"{markup.escape_text(record['device'])}, {record['date']})."
    return markup.myst_table(table.astype(str), caption=caption, label="kernels")


def recorded_columns(notebook: str, metrics: dict[str, str], *, heading: str, order: str = "") -> pd.DataFrame:
    """Metrics of a notebook's recorded runs: a row a metric, a column a run, values with their intervals as text.

    Parameters
    ----------
    metrics
        Metric -> what the row is called.
    heading
        Of a column, a format of the run's parameters, such as ``{n_seeds} cohorts``.
    order
        Parameter whose value puts the runs in order; as recorded by default.

    Returns
    -------
    The first column is ``quantity``; metrics that no run has are left out. Without recorded runs there is no row.
    """
    recorded = recorded_metrics(notebook)
    recorded = recorded[recorded["metric"].isin(metrics)]
    names = [metric for metric in metrics if metric in set(recorded["metric"])]
    table = pd.DataFrame({"quantity": [metrics[metric] for metric in names]})
    of_runs = [(rows["parameters"].iloc[0], rows) for _, rows in recorded.groupby(["run", "device"], sort=False)]
    for parameters, rows in sorted(of_runs, key=lambda run: run[0][order]) if order else of_runs:
        by_metric = rows.set_index("metric").reindex(names).itertuples()
        table[heading.format(**parameters)] = [
            markup.with_interval(row.value, row.low, row.high, ".3g") for row in by_metric
        ]
    return table
