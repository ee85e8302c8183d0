"""Tables of what ``benchmarks/training.py`` recorded of a device.

``results`` is what it wrote: parts, each with ``rows``. None, or a part that is absent or ended early, gives tables
without rows. A number is the median of its repeats; ``low`` and ``high`` are their range.
"""

from collections.abc import Iterable

import numpy as np
import pandas as pd

from epigen_utils.models import hardware, precision_losses
from epigen_utils.models.precision import PRECISIONS

#: Lists of a recorded row that hold its repeats.
REPEATED = ("seconds", "tokens a second", "TFLOP/s", "TB/s")
#: Kind of a kernel -> what its name has; the first that fits.
KERNEL_KINDS = {
    "attention": ("flash", "fmha", "attention", "cudnn_generated_fort_native_sdpa"),
    "matrix products": ("gemm", "nvjet", "cutlass", "cublas", "xmma", "splitk"),
    "optimiser": ("adam", "multi_tensor"),
    "elementwise, norms and loss": ("triton", "elementwise", "softmax", "layer_norm", "reduce", "vectorized", "copy"),
}


def source(results: dict) -> str:
    """Where numbers are from, as text: device, date and, where it is known, commit.

    Parameters
    ----------
    results
        With ``device``, ``date`` and perhaps ``commit``.
    """
    commit = f", commit {results['commit']}" if results.get("commit") else ""
    return f"{results['device']}, {results['date']}{commit}"


def machine(results: dict | None) -> str:
    """Versions that matter to a device, as text: its driver, CUDA, PyTorch, and what multiplies in fp8."""
    about = recorded_rows(results, "peak", "device").to_dict("records") or [{}]
    words = {"driver": "driver {}", "cuda": "CUDA {}", "torch": "PyTorch {}", "fp8": "fp8 by {}"}
    return ", ".join(form.format(about[0][name]) for name, form in words.items() if about[0].get(name))


def recorded_rows(results: dict | None, part: str, what: str = "") -> pd.DataFrame:
    """Rows of a part, those of one ``what`` if given: repeats as median, ``<column> low`` and ``<column> high``."""
    rows = (results or {}).get(part, {"rows": []})["rows"]
    return pd.DataFrame([_with_ranges(row) for row in rows if not what or row.get("what") == what])


def _with_ranges(row: dict) -> dict:
    flat = {}
    for name, content in row.items():
        if name in REPEATED and isinstance(content, list):
            flat |= {name: float(np.median(content)), f"{name} low": min(content), f"{name} high": max(content)}
        else:
            flat[name] = content
    return flat


def unfinished(results: dict | None, parts: Iterable[str]) -> dict[str, str]:
    """Parts that are absent, ended early or were left out in part, and why."""
    found = {}
    for part in parts:
        content = (results or {}).get(part, {"rows": []})
        reasons = [content[key] for key in ("ended", "left out") if key in content]
        if reasons or not content["rows"]:
            found[part] = "; ".join(reasons) or "not measured"
    return found


def data_sheet(specifications: pd.DataFrame, device: str) -> pd.Series:
    """The maker's numbers of a device, by quantity; none of a device that the table does not have.

    Parameters
    ----------
    specifications
        ``device``, ``quantity``, ``value``; the longest name of a device that fits counts.
    device
        As the driver names it, such as ``NVIDIA H100 80GB HBM3``, which is an SXM.
    """
    named = device.replace("80GB HBM3", "SXM")
    kinds = [kind for kind in specifications["device"].unique() if kind in named]
    own = specifications[specifications["device"] == max(kinds, key=len, default="")]
    return pd.Series(own["value"].to_numpy(), own["quantity"].to_numpy(), dtype=float)


def peaks(results: dict | None, sheet: pd.Series) -> pd.DataFrame:
    """What the device multiplies and copies, measured and by its data sheet.

    Returns
    -------
    ``quantity`` (a precision, or ``memory``), ``unit``, ``measured`` (the most of the repeats), ``low`` (the least) and
    ``data sheet``; either may be missing.
    """
    by_sheet = {name: sheet[name] for name in (*PRECISIONS, "memory") if name in sheet}
    found = {name: {} for name in by_sheet}
    for what, unit in (("product", "TFLOP/s"), ("copy", "TB/s")):
        for row in recorded_rows(results, "peak", what).to_dict("records"):
            numbers = {"measured": row[f"{unit} high"], "low": row[f"{unit} low"]}
            found[row.get("precision", "memory")] = numbers
    rows = [
        {
            "quantity": name,
            "unit": "TB/s" if name == "memory" else "TFLOP/s",
            "data sheet": by_sheet.get(name),
            **numbers,
        }
        for name, numbers in found.items()
    ]
    table = pd.DataFrame(rows, columns=["quantity", "unit", "measured", "low", "data sheet"])
    return table.astype(dict.fromkeys(["measured", "low", "data sheet"], float))


def speeds(results: dict | None, part: str, found_peaks: pd.DataFrame, sheet: pd.Series) -> pd.DataFrame:
    """Rates of a part, training and inference, with their share of the measured and of the maker's peak.

    Returns
    -------
    Columns of the rows, ``of measured`` and ``of data sheet`` (missing where there is no such peak), and ``times``, the
    tokens a second relative to the part's first row of the same ``what`` and ``model``. Rows that ran out of memory
    are left out.
    """
    table = recorded_rows(results, part)
    if "tokens a second" not in table:
        return pd.DataFrame(columns=["model", "precision", "what", "tokens a second"])
    table = table.dropna(subset="tokens a second").reset_index(drop=True)
    measured = found_peaks.set_index("quantity")["measured"]
    table["of measured"] = table["TFLOP/s"] / table["precision"].map(measured).astype(float)
    table["of data sheet"] = table["TFLOP/s"] / table["precision"].map(sheet).astype(float)
    first = table.groupby(["model", "what"])["tokens a second"].transform("first")
    return table.assign(times=table["tokens a second"] / first)


def with_ranges(table: pd.DataFrame, columns: list[str]) -> pd.DataFrame:
    """Columns of `speeds`, those that it has; after ``tokens a second`` their ``range`` as text."""
    if table.empty:
        return table
    ends = table[["tokens a second low", "tokens a second high"]].itertuples(index=False)
    at = columns.index("tokens a second") + 1
    named = table.assign(range=[f"{low:,.0f} to {high:,.0f}" for low, high in ends])
    return named.reindex(columns=[*columns[:at], "range", *columns[at:]]).dropna(axis="columns", how="all")


def memory_by_part(results: dict | None) -> pd.DataFrame:
    """GiB of a training step of the largest batch, by part.

    Returns
    -------
    ``way``, ``weights``, ``gradients``, ``optimiser``, ``activations``.
    """
    table = recorded_rows(results, "ladder", "memory")
    parts = ["weights", "gradients", "optimiser", "activations"]
    if table.empty or "activations" not in table:
        return pd.DataFrame(columns=["way", *parts])
    return table.assign(way=table["how"])[["way", *parts]]


def kernel_shares(results: dict | None) -> pd.Series:
    """Share of a step's time by kind of kernel (`KERNEL_KINDS`), ``other`` and ``idle``; empty without a profile."""
    table = recorded_rows(results, "profile")
    if table.empty:
        return pd.Series(dtype=float)
    profile = table.iloc[-1]
    shares = dict.fromkeys([*KERNEL_KINDS, "other"], 0.0)
    for name, share in profile["kernels"].items():
        fits = [kind for kind, words in KERNEL_KINDS.items() if any(word in name.lower() for word in words)]
        shares[fits[0] if fits else "other"] += share
    # The kernels beyond the longest twenty have no name.
    shares["other"] += 1 - sum(shares.values())
    busy = min(profile["busy"] / profile["seconds of two steps"], 1.0)
    return pd.Series({kind: share * busy for kind, share in shares.items()} | {"idle": 1 - busy})


def loss_curves(results: dict | None) -> pd.DataFrame:
    """Held-out loss over steps and seconds: ``precision``, ``seed``, ``step``, ``seconds``, ``loss`` (nats)."""
    rows = [
        {"precision": row["precision"], "seed": row["seed"], **point}
        for row in recorded_rows(results, "precision").to_dict("records")
        for point in row["curve"]
    ]
    return pd.DataFrame(rows, columns=["precision", "seed", "step", "seconds", "loss"])


def fine_tunes(results: dict | None, *, dollars_an_hour: float) -> pd.DataFrame:
    """Fine-tunings of a cohort of the paper's size.

    Returns
    -------
    Columns of the rows, ``hours``, ``dollars`` of a rented device and, where the driver tells the energy, ``kWh``.
    """
    table = recorded_rows(results, "fine-tune")
    if table.empty:
        return pd.DataFrame(columns=["model", "precision", "samples", "steps", "hours"])
    hours = table["seconds"] / 3600
    table = table.assign(hours=hours, dollars=hours * dollars_an_hour)
    return table.assign(kWh=table["joules"] / 3.6e6) if "joules" in table else table


def roofline_points(*tables: pd.DataFrame) -> pd.DataFrame:
    """Training steps with their operations a byte (`hardware.operations_a_byte`), the fastest of each, fastest first.

    Returns
    -------
    A row a model and precision: ``model``, ``precision``, ``operations a byte``, ``TFLOP/s``.
    """
    columns = ["model", "precision", "operations a byte", "TFLOP/s"]
    filled = [table[table["what"] == "training"] for table in tables if len(table)]
    if not filled:
        return pd.DataFrame(columns=columns)
    steps = pd.concat([table[["model", "precision", "rows", "length", "TFLOP/s"]] for table in filled])
    steps = steps.sort_values("TFLOP/s", ascending=False).drop_duplicates(["model", "precision"])
    steps["operations a byte"] = [
        hardware.operations_a_byte(row.model, row.rows * row.length, row.length, row.precision)
        for row in steps.itertuples()
    ]
    return steps[columns].reset_index(drop=True)


def headline(ladder: pd.DataFrame, curves: pd.DataFrame, fine_tuned: pd.DataFrame) -> dict[str, dict[str, float]]:
    """The numbers that the papers' and others' statements are set beside, each with ``value``, ``low`` and ``high``.

    Parameters
    ----------
    ladder
        `speeds` of the part ``ladder``: GPT-2 XL.
    curves, fine_tuned
        `loss_curves` and `fine_tunes`.

    Returns
    -------
    By name, those that were measured: ``mfu_bf16`` (per cent of the data sheet's peak), ``tflops_fp8``,
    ``fp8_times_bf16`` (tokens a second; range of the repeats of both), ``fp8_times_equal_loss`` (until the same
    held-out loss, beside bf16), ``fp8_loss`` (nats beyond fp32 after equal steps, range over seeds), ``fp8_converged``
    (share of seeds), ``fine_tune_hours`` and ``fine_tune_step_seconds``.
    """
    found = {}
    steps = ladder[ladder["what"] == "training"] if len(ladder) else ladder
    best = {name: rows.loc[rows["tokens a second"].idxmax()] for name, rows in steps.groupby("precision")}
    if "bf16" in best and pd.notna(best["bf16"]["of data sheet"]):
        row = best["bf16"]
        scale = 100 * row["of data sheet"] / row["TFLOP/s"]
        found["mfu_bf16"] = {"value": scale * row["TFLOP/s"]} | _ends(row, "TFLOP/s", scale)
    if "fp8" in best:
        found["tflops_fp8"] = {"value": best["fp8"]["TFLOP/s"]} | _ends(best["fp8"], "TFLOP/s")
    if {"fp8", "bf16"} <= set(best):
        found["fp8_times_bf16"] = _ratio(best["fp8"], best["bf16"], "tokens a second")
    for reference in ("fp32", "bf16"):
        losses = precision_losses.equal_steps_and_seconds(curves, reference).set_index("precision")
        if "fp8" in losses.index and reference == "fp32":
            row = losses.loc["fp8"]
            found["fp8_loss"] = {"value": row["equal steps"], "low": row["low"], "high": row["high"]}
            found["fp8_converged"] = {"value": row["converged"]}
        elif "fp8" in losses.index:
            found["fp8_times_equal_loss"] = {"value": losses.loc["fp8", "times, loss"]}
    xl = fine_tuned[(fine_tuned["model"] == "gpt2-xl") & (fine_tuned["precision"] == "bf16")]
    if len(xl):
        found["fine_tune_hours"] = {"value": xl["hours"].iloc[0]}
        found["fine_tune_step_seconds"] = {"value": xl["seconds of a step"].iloc[0]}
    return found


def describe(found: dict[str, dict[str, float]]) -> str:
    """`headline` in sentences, of what was measured."""
    value = {name: number["value"] for name, number in found.items()}
    parts = []
    if "mfu_bf16" in value:
        parts.append(f"Training of GPT-2 XL in bf16 reaches {value['mfu_bf16']:.0f}% of the data sheet's peak.")
    if "fp8_times_bf16" in value:
        parts.append(f"In fp8 it makes {as_text(found['fp8_times_bf16'])} times the tokens a second of bf16.")
    if "fp8_times_equal_loss" in value:
        times = f"{value['fp8_times_equal_loss']:.2f} times as fast as in bf16"
        parts.append(f"GPT-2 with 124 million parameters reaches the same held-out loss in fp8 {times}.")
    if "fp8_loss" in value:
        parts.append(f"After equal steps the loss in fp8 is {as_text(found['fp8_loss'])} nats beyond that in fp32.")
    if "fine_tune_hours" in value:
        parts.append(f"A fine-tuning of GPT-2 XL takes {60 * value['fine_tune_hours']:.1f} minutes.")
    return " ".join(parts)


def as_text(number: dict[str, float]) -> str:
    """A number with its range, if it has one, such as ``1.19 (1.15 to 1.24)``."""
    ends = f" ({number['low']:.3g} to {number['high']:.3g})" if "low" in number else ""
    return f"{number['value']:.3g}{ends}"


def _ends(row: pd.Series, column: str, scale: float = 1.0) -> dict[str, float]:
    return {end: scale * row[f"{column} {end}"] for end in ("low", "high")}


def _ratio(row: pd.Series, other: pd.Series, column: str) -> dict[str, float]:
    """A rate over another one: of the medians, and the least and most that their repeats allow."""
    ends = {
        "low": row[f"{column} low"] / other[f"{column} high"],
        "high": row[f"{column} high"] / other[f"{column} low"],
    }
    return {"value": row[column] / other[column]} | ends


def times_the_cpu(sizes: pd.DataFrame, cpu_sizes: pd.DataFrame) -> pd.DataFrame:
    """Tokens a second of each model in its fastest precision, on both devices, and how many times the CPU's.

    Parameters
    ----------
    sizes, cpu_sizes
        `speeds` of the part ``sizes``.

    Returns
    -------
    ``what`` (training or inference), ``model``, ``device``, ``CPU``, ``value``, ``low``, ``high``.
    """
    fastest = [
        {key: rows.loc[rows["tokens a second"].idxmax()] for key, rows in table.groupby(["what", "model"], sort=False)}
        for table in (sizes, cpu_sizes)
    ]
    rows = []
    for (what, model), ours in fastest[0].items():
        if (cpu := fastest[1].get((what, model))) is not None:
            row = {"what": what, "model": model, "device": ours["tokens a second"], "CPU": cpu["tokens a second"]}
            rows.append(row | _ratio(ours, cpu, "tokens a second"))
    return pd.DataFrame(rows, columns=["what", "model", "device", "CPU", "value", "low", "high"])


def beside_published(published: pd.DataFrame, found: dict[str, dict[str, float]]) -> pd.DataFrame:
    """What others have published beside `headline`: ``ours`` is a number with its range as text, empty if not measured.

    Parameters
    ----------
    published
        ``work``, ``what``, ``device``, ``published``, ``unit``, ``ours`` (name in `headline`), ``source``.
    """
    texts = {name: as_text(number) for name, number in found.items()}
    return published.assign(ours=published["ours"].map(texts).fillna("")).drop(columns="source")


def other_programs(record: dict | None, cpu: dict[str, dict | None]) -> pd.DataFrame:
    """The other benchmarks of a record beside the CPU's: in silico perturbation, the DESeq2 engine, distillation.

    Parameters
    ----------
    record
        ``perturbation``, ``deseq`` and ``distillation`` as their scripts wrote them, as far as they ran.
    cpu
        The same from the CPU.

    Returns
    -------
    ``what``, ``unit``, ``device``, ``CPU``; a row is left out where the device has no number.
    """
    rows = []
    for name, numbers in (("device", record or {}), ("CPU", cpu)):
        for cell in (numbers.get("perturbation") or {}).get("exact", []):
            for how, seconds in cell["seconds for all genes of the cell"].items():
                what = f"deletions of {cell['genes']} genes, {cell['model']}, {how}"
                rows.append((what, "cells a second", name, cell["genes"] / seconds))
        for run in (numbers.get("deseq") or {}).get("runs", []):
            if run["engine"] == "epigen_utils" and (run["device"] == "cpu") == (name == "CPU"):
                rows.append((f"DESeq2 of {run['samples']} samples", "seconds", name, run["median seconds"]))
        distilled = numbers.get("distillation") or {"steps": {"rows": []}}
        for step in distilled["steps"]["rows"]:
            what = f"distillation, up to {distilled['length']:,} genes, {step['step']}"
            rows.append((what, "cells a second", name, distilled["steps"]["cells"] / step["seconds"]))
    table = pd.DataFrame(rows, columns=["what", "unit", "where", "number"])
    options = {"index": ["what", "unit"], "columns": "where", "values": "number", "aggfunc": "first", "sort": False}
    table = table.pivot_table(**options)
    table = table.reindex(columns=["device", "CPU"]).dropna(subset="device")
    return table.reset_index().rename_axis(columns=None)


def seconds_a_step(logs: pd.DataFrame) -> pd.DataFrame:
    """Seconds of a step between two validations of a training log: ``student``, ``step``, ``seconds``.

    Parameters
    ----------
    logs
        ``student``, ``step``, ``hours`` (since the start), in order.
    """
    by_student = logs.groupby("student", sort=False)
    seconds = 3600 * by_student["hours"].diff() / by_student["step"].diff()
    return logs[["student", "step"]].assign(seconds=seconds).dropna().reset_index(drop=True)


def fall(seconds: pd.Series, *, of: int = 20) -> float:
    """How many times as long the first steps took as the last: medians of ``of`` values each."""
    return float(seconds.head(of).median() / seconds.tail(of).median())
