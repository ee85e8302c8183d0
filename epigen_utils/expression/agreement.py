"""Agreement of an implementation with a reference: by column, by gene and by call; recorded comparisons as tables."""

import statistics

import numpy as np
import pandas as pd

from epigen_utils.expression import differential

#: Largest difference of a column from the reference's that counts as equal, relative to it or absolute.
TOLERANCES = {
    "baseMean": (1e-8, 0.0),
    "log2FoldChange": (1e-3, 1e-6),
    "lfcSE": (1e-3, 1e-6),
    "pvalue": (1e-2, 1e-300),
}
#: Columns whose largest differences are recorded, and their names in tables.
RECORDED_COLUMNS = {"log2FoldChange": "log2FC", "lfcSE": "lfcSE", "pvalue": "p"}
#: The engine of this book, as benchmarks/deseq.json names it.
OWN_ENGINE = "epigen_utils"


def compare_with_reference(results: pd.DataFrame, reference: pd.DataFrame) -> pd.DataFrame:
    r"""Differences of a results table from that of a reference implementation, by column.

    Parameters
    ----------
    results, reference
        A row a gene, DESeq2's columns.

    Returns
    -------
    A row a column: ``column``, ``genes`` (with a value in both), ``NA here`` and ``NA there`` (genes that the one or
    the reference alone leaves without a value), and ``median``, ``99%`` and ``largest`` of \|results - reference\|,
    relative to the reference for ``baseMean``.
    """
    reference = reference.reindex(results.index)
    rows = []
    for column in differential.DESEQ_COLUMNS:
        counted = reference["baseMean"] > 0
        a, b = results.loc[counted, column], reference.loc[counted, column]
        difference = ((a - b) / (b if column == "baseMean" else 1)).abs().dropna()
        row = {"column": column, "genes": len(difference), "NA here": int((a.isna() & b.notna()).sum())}
        row |= {"NA there": int((a.notna() & b.isna()).sum()), "median": difference.median()}
        rows.append(row | {"99%": difference.quantile(0.99), "largest": difference.max()})
    return pd.DataFrame(rows)


def compare_tables(results: pd.DataFrame, reference: pd.DataFrame) -> dict[str, float]:
    r"""Agreement of two tables with the same rows, over all entries.

    Returns
    -------
    ``Pearson``, and ``median``, ``99%`` (quantile) and ``largest`` of \|results - reference\|.
    """
    reference = reference.loc[results.index, results.columns]
    difference = (results - reference).abs().to_numpy().ravel()
    row = {"Pearson": float(np.corrcoef(results.to_numpy().ravel(), reference.to_numpy().ravel())[0, 1])}
    return row | dict(zip(("median", "99%", "largest"), np.quantile(difference, [0.5, 0.99, 1]), strict=True))


def compare_calls(results: pd.DataFrame, reference: pd.DataFrame, *, alpha: float) -> dict[str, int]:
    """Genes that two implementations call: ``called``, ``by both``, ``alone`` and ``reference alone``."""
    mine, theirs = (table["padj"].reindex(results.index) < alpha for table in (results, reference))
    both = int((mine & theirs).sum())
    counts = {"called": int(mine.sum()), "by both": both, "alone": int(mine.sum()) - both}
    return counts | {"reference alone": int(theirs.sum()) - both}


def differing_genes(results: pd.DataFrame, reference: pd.DataFrame, *, alpha: float) -> pd.DataFrame:
    """Every gene on which two implementations differ: in a missing value, in one beyond `TOLERANCES`, in the call.

    Returns
    -------
    A row a difference: ``gene``, ``column`` (``call`` where the adjusted p-values lie on either side of ``alpha``), and
    the values ``here`` and ``there``, of ``padj`` for a call.
    """
    reference = reference.reindex(results.index)
    parts = []
    for column in differential.DESEQ_COLUMNS:
        a, b = results[column], reference[column]
        differs = a.isna() != b.isna()
        if column in TOLERANCES:
            relative, absolute = TOLERANCES[column]
            differs |= (a - b).abs() > np.maximum(absolute, relative * b.abs())
        parts.append(pd.DataFrame({"column": column, "here": a, "there": b})[differs])
    a, b = results["padj"], reference["padj"]
    parts.append(pd.DataFrame({"column": "call", "here": a, "there": b})[(a < alpha) != (b < alpha)])
    return pd.concat(parts).rename_axis("gene").reset_index()


def list_datasets(record: dict) -> pd.DataFrame:
    """Agreement by data set, of ``data/recorded/deseq-parity.json``.

    Returns
    -------
    A row a data set: ``data set``, ``samples``, ``genes``, ``called`` (by R), ``calls differ``, ``NA differ``,
    ``beyond`` (genes beyond a tolerance), and the largest relative difference of fold changes, their errors and
    p-values: ``log2FC``, ``lfcSE``, ``p``.
    """
    names = {"name": "data set", "samples": "samples", "genes": "genes", "called by R": "called"}
    names |= {"calls that differ": "calls differ", "NA that differ": "NA differ", "n beyond": "beyond"}
    rows = []
    for dataset in record["data sets"]:
        errors = dataset.get("errors", {})
        row = {label: dataset.get(name) for name, label in names.items()}
        rows.append(row | {label: errors.get(name, {}).get("largest") for name, label in RECORDED_COLUMNS.items()})
    return pd.DataFrame(rows).convert_dtypes()


def list_differences(record: dict) -> pd.DataFrame:
    """Every listed gene of the recorded data sets beyond a tolerance, both values, the relative error and the cause."""
    columns = {"gene": "gene", "column": "column", "ours": "here", "R": "there", "error": "error", "cause": "cause"}
    rows = [
        {"data set": dataset["name"]} | {label: gene[name] for name, label in columns.items()}
        for dataset in record["data sets"]
        for gene in dataset.get("beyond", [])
    ]
    return pd.DataFrame(rows, columns=["data set", *columns.values()])


def summarise_causes(differences: pd.DataFrame) -> pd.DataFrame:
    """`list_differences` by cause, the most frequent first: ``cause``, ``genes``, ``data sets``, ``largest error``."""
    causes = differences.groupby("cause")
    table = causes.agg(
        **{"genes": ("gene", "size"), "data sets": ("data set", "nunique"), "largest error": ("error", "max")}
    )
    return table.sort_values("genes", ascending=False, kind="stable").reset_index()


def list_versions(record: dict) -> pd.DataFrame:
    """Fold changes beyond a tolerance of R DESeq2 1.50.2's: of this engine and of R 1.38.3, by data set."""
    rows = []
    for dataset in record["data sets"]:
        if versions := dataset.get("R 1.50.2"):
            row = {"data set": dataset["name"], "genes": versions["ours"]["genes"]}
            rows.append(row | {"this engine": versions["ours"]["beyond"], "R 1.38.3": versions["R 1.38.3"]["beyond"]})
    return pd.DataFrame(rows, columns=["data set", "genes", "this engine", "R 1.38.3"])


def add_causes(differing: pd.DataFrame, record: dict | None, dataset: str) -> pd.DataFrame:
    """`differing_genes` with the ``cause`` that is recorded for a gene of a data set, or ``not known``."""
    known = list_differences(record or {"data sets": []})
    known = known[known["data set"] == dataset].set_index("gene")["cause"].to_dict()
    return differing.assign(cause=[known.get(gene, "not known") for gene in differing["gene"]])


def count_equal_calls(record: dict) -> tuple[int, int]:
    """Number of the recorded random analyses with equal calls, and of those that both fit."""
    n_fitted = sum(record["verdicts"].get(verdict, 0) for verdict in ("equal", "differs"))
    differ = [any(finding["quantity"] == "calls" for finding in row["findings"]) for row in record["rows"]]
    return n_fitted - sum(differ), n_fitted


def list_causes(record: dict) -> pd.DataFrame:
    """Disagreements of the random analyses by cause, of ``data/recorded/deseq-fuzz.json``."""
    counts = record["findings by cause"]
    rows = [{"cause": name, "findings": n, "what it is": record["causes"].get(name, "")} for name, n in counts.items()]
    return pd.DataFrame(rows, columns=["cause", "findings", "what it is"]).sort_values("findings", ascending=False)


def list_errors(record: dict) -> pd.DataFrame:
    """Largest relative error of each quantity in the random analyses, beside its tolerance."""
    errors = record["worst relative error within tolerance or share"]
    rows = [{"quantity": name, "tolerance": row["tolerance"], "largest": row["worst"]} for name, row in errors.items()]
    return pd.DataFrame(rows)


def describe_gpu(record: dict | None) -> str:
    """Times of this book's engine on a recorded GPU (``data/recorded/``), in sentences (MyST); empty without one."""
    runs = [run for run in (record or {}).get("deseq", {"runs": []})["runs"] if run["device"] != "cpu"]
    if not runs:
        return ""
    times = [
        f"{statistics.median(run['seconds']):.2f} s for {run['samples']} samples "
        f"({min(run['seconds']):.2f} to {max(run['seconds']):.2f} in {run['repeats']} repeats)"
        for run in runs
    ]
    differing = sum(run["calls that differ from R's"] for run in runs)
    calls = f"Its calls differ from R's for {differing} genes." if differing else "It calls the same genes as R."
    about = f"On an {record['device']} ({record['date']}, commit {record['commit']})"
    return f"{about} this book's engine takes {'; '.join(times)}, transfers included. {calls}"


def list_speeds(benchmark: dict) -> pd.DataFrame:
    """Times of ``benchmarks/deseq.json`` beside those of this book's engine, repeat by repeat.

    Returns
    -------
    A row a run: ``samples``, ``cores``, ``engine``, ``seconds`` (median), ``MiB`` (peak), ``times ours`` (median over
    the repeats of its time over that of this book's engine on as many cores, with the smallest and largest in ``low``
    and ``high``; missing in the engine's own rows), and ``calls that differ`` from R's.
    """
    rows, runs = [], benchmark["runs"]
    ours = {
        (run["samples"], run["cores"]): run["seconds"]
        for run in runs
        if (run["engine"], run["device"]) == (OWN_ENGINE, "cpu")
    }
    for run in runs:
        on_cpu = run["device"] == "cpu"
        engine = "this book's engine" if run["engine"] == OWN_ENGINE else run["engine"]
        row = {"samples": run["samples"], "cores": run["cores"]}
        row |= {"engine": engine if on_cpu else f"{engine}, {benchmark.get('device', run['device'])}"}
        row |= {"seconds": statistics.median(run["seconds"]), "MiB": run["MiB"]}
        own = ours.get((run["samples"], run["cores"]))
        if own and not (run["engine"] == OWN_ENGINE and on_cpu):
            ratios = sorted(theirs / mine for theirs, mine in zip(run["seconds"], own, strict=False))
            row |= {"times ours": statistics.median(ratios), "low": ratios[0], "high": ratios[-1]}
        rows.append(row | {"calls that differ": run.get("calls that differ from R's", np.nan)})
    columns = ["samples", "cores", "engine", "seconds", "times ours", "low", "high", "MiB", "calls that differ"]
    return pd.DataFrame(rows, columns=columns)
