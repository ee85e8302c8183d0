"""Plots of sample classification and of what training takes of a device; each draws on an axes and returns it."""

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.patches import Rectangle

from epigen_utils.plots import layout, style


def roc_curves(ax: Axes, bands: dict[str, pd.DataFrame], aucs: dict[str, float]) -> Axes:
    """ROC curves with the range over partitions into folds (`two_classes.roc_band`)."""
    ax.plot([0, 1], [0, 1], **style.DASHED)
    for name, band, colour, _ in style.series(bands.items()):
        ax.fill_between(band["fpr"], band["low"], band["high"], color=colour, alpha=0.12, linewidth=0)
        ax.plot(band["fpr"], band["tpr"], color=colour, label=f"{name} ({aucs[name]:.2f})")
    ax.set(xlim=(-0.01, 1), ylim=(0, 1.02), xlabel="false positive rate", ylabel="true positive rate")
    ax.legend(title="AUC", fontsize=8, loc="lower right")
    return ax


def model_aucs(ax: Axes, table: pd.DataFrame, *, reported: float = np.nan) -> Axes:
    """AUC of each model with its interval, with permuted labels where present, and the AUC that the paper reports.

    Parameters
    ----------
    table
        Columns ``model``, ``auc``, ``auc low``, ``auc high`` and optionally ``shuffled``.
    """
    layout.intervals(ax, table, "auc", ends=("auc low", "auc high"), label="held out, 95% interval")
    if "shuffled" in table and table["shuffled"].notna().any():
        ax.plot(table["shuffled"], range(len(table)), "x", color=style.HIGHLIGHT, label="permuted labels")
    ax.axvline(0.5, **style.DASHED)
    if np.isfinite(reported):
        ax.axvline(reported, color=style.PALETTE[3], linestyle=":", linewidth=1.5, label=f"paper A, {reported:.2f}")
    layout.rows(ax, table["model"])
    ax.set(xlim=(0, 1.02), xlabel="AUC")
    layout.legend_above(ax, ncols=3, fontsize=7, columnspacing=1.0, handletextpad=0.4)
    return ax


def selection_leakage(ax: Axes, table: pd.DataFrame) -> Axes:
    """AUC of cohorts with and without planted signal, genes selected inside or outside the folds.

    Parameters
    ----------
    table
        Columns ``planted``, ``genes chosen`` and ``auc``, one row per cohort.
    """
    rng = np.random.default_rng(0)
    kinds = list(table.groupby(["planted", "genes chosen"], sort=False)["auc"])
    colours = style.colours(["", *dict.fromkeys(table["genes chosen"])])
    for x, ((_, selection), values) in enumerate(kinds):
        ax.plot(x + rng.uniform(-0.12, 0.12, len(values)), values, "o", color=colours[selection], alpha=0.7)
        ax.hlines(values.mean(), x - 0.25, x + 0.25, color="black", linewidth=1.5)
    ax.axhline(0.5, **style.DASHED)
    layout.columns(ax, [f"{planted}\n{selection}" for (planted, selection), _ in kinds], fontsize=8)
    ax.set(ylim=(0, 1.05), ylabel="AUC")
    return ax


def learning_curves(ax: Axes, table: pd.DataFrame) -> Axes:
    """AUC against training samples per class: folds as dots, mean as a line (`model_comparison.learning_curve`)."""
    for name, folds, colour, _ in style.series(table.groupby("model", sort=False)):
        means = folds.groupby("per class")["auc"].mean()
        ax.plot(folds["per class"], folds["auc"], ".", color=colour, alpha=0.35)
        ax.plot(means.index, means, "o-", color=colour, label=name)
    ax.axhline(0.5, **style.DASHED)
    ax.axvspan(12, 16, color=style.MUTED, alpha=0.2, linewidth=0)
    ax.set_xscale("log")
    sizes = sorted(set(table["per class"]))
    ax.set_xticks(sizes, [str(size) for size in sizes])
    ax.minorticks_off()
    ax.set(ylim=(0.25, 1.0), xlabel="training samples of each class", ylabel="AUC on held-out donors")
    ax.text(13.9, 0.27, "paper A's n", ha="center", fontsize=7, color="#444444")
    ax.legend(fontsize=8, loc="lower right")
    return ax


def grid_search_heatmap(ax: Axes, table: pd.DataFrame, *, rows: str, columns: str, value: str) -> Axes:
    """Grid search as a heat map: the best value over the other hyperparameters; the best cell is framed."""
    grid = table.pivot_table(index=rows, columns=columns, values=value, aggfunc="max").sort_index(ascending=False)
    y, x = np.unravel_index(np.nanargmax(grid), grid.shape)
    ax.add_patch(Rectangle((x - 0.5, y - 0.5), 1, 1, fill=False, edgecolor=style.HIGHLIGHT, linewidth=2.5))
    options = {"white": ~(grid > 0.75), "label": f"{value.upper()} on the inner fold"}
    named = grid.rename("{:g}".format, axis=0).rename("{:g}".format, axis=1)
    lowest = min(0.5, float(np.nanmin(grid)))
    layout.annotated_matrix(ax, named, grid.map("{:.2f}".format), cmap="viridis", vmin=lowest, vmax=1, **options)
    ax.set(xlabel=columns.replace("_", " "), ylabel=rows.replace("_", " "))
    return ax


def curves_by_epoch(ax: Axes, runs: dict[str, pd.DataFrame], *, column: str, ylabel: str) -> Axes:
    """A column of the training histories of several runs against the epoch (`training.fit`)."""
    layout.lines(ax, runs.items(), "epoch", column)
    ax.set(xlabel="epoch", ylabel=ylabel, ylim=(0, None))
    ax.legend(fontsize=8)
    return ax


def training_memory(ax: Axes, table: pd.DataFrame, *, devices: dict[str, float]) -> Axes:
    """Memory that training uses by part, one bar per method, against the memory of devices.

    Parameters
    ----------
    table
        Column ``way``, and one column per part, GiB.
    devices
        Device -> memory, GiB.
    """
    parts = dict(table.drop(columns="way").items())
    layout.stacked_bars(ax, table["way"], parts)
    for name, size in devices.items():
        ax.axvline(size, color="black", linestyle="--", linewidth=1)
        ax.text(size * 0.99, -0.4, name, ha="right", fontsize=7)
    ax.set_xlabel("GiB")
    ax.legend(fontsize=8, loc="upper center", bbox_to_anchor=(0.5, -0.2), ncols=len(parts))
    return ax


def rates_with_range(ax: Axes, table: pd.DataFrame, *, names: pd.Series, value: str) -> Axes:
    """Rates as bars from the top, with the range of their repeats (``low`` to ``high``)."""
    ax.barh(range(len(table)), table[value], color=style.PALETTE[2], height=0.65)
    ax.hlines(range(len(table)), table["low"], table["high"], color="black", linewidth=1.5)
    layout.rows(ax, names, margin=0.6, fontsize=8)
    ax.set(xlim=(0, 1.08 * table["high"].max()), xlabel=value)
    return ax


def roofline(ax: Axes, points: pd.DataFrame, peaks: pd.DataFrame) -> Axes:
    """Training steps below what the device can do: the lesser of its peak and of its memory's rate.

    Parameters
    ----------
    points
        `recorded_speeds.roofline_points`.
    peaks
        `recorded_speeds.peaks`; where one was not measured, the data sheet's is drawn, dashed.
    """
    by_name = peaks.set_index("quantity")
    roofs = by_name["measured"].fillna(by_name["data sheet"])
    memory, roofs = roofs["memory"], roofs.drop("memory")
    colour, marker = style.colours(roofs.index), style.markers(dict.fromkeys(points["model"]))
    steps = points["operations a byte"]
    x = np.geomspace(min(steps.min() / 2, roofs.max() / memory / 8), 2 * steps.max(), 200)
    for name, peak in roofs.items():
        dash = "--" if np.isnan(by_name.loc[name, "measured"]) else "-"
        label = f"{name}, {float(f'{peak:.3g}'):,g} TFLOP/s"
        ax.plot(x, np.minimum(peak, memory * x), dash, color=colour[name], linewidth=1.2, label=label)
    for (model, precision), own in points.groupby(["model", "precision"], sort=False):
        look = {"marker": marker[model], "color": colour[precision]}
        ax.plot(own["operations a byte"], own["TFLOP/s"], linestyle="", **look)
    for name in marker:
        ax.plot([], [], linestyle="", marker=marker[name], color="black", label=name)
    ax.legend(fontsize=8, loc="upper left", bbox_to_anchor=(1.0, 1.0))
    layout.log_scale(ax, "xy")
    ax.set(xlabel="operations per byte of minimum traffic", ylabel="TFLOP/s")
    return ax


def shares_of_peak(ax: Axes, table: pd.DataFrame, columns: dict[str, str]) -> Axes:
    """Share of peaks that each way of training reaches, a row of bars a way.

    Parameters
    ----------
    table
        ``how``, and a column for each peak.
    columns
        Column -> what the legend calls the peak.
    """
    height = 0.8 / len(columns)
    for i, (column, label) in enumerate(columns.items()):
        at = np.arange(len(table)) + (i - (len(columns) - 1) / 2) * height
        bars = ax.barh(at, table[column], height=height, color=style.PALETTE[2 + i], label=label)
        ax.bar_label(bars, ["" if pd.isna(share) else f"{share:.0%}" for share in table[column]], fontsize=7, padding=2)
    layout.rows(ax, table["how"], margin=0.6, fontsize=8)
    layout.percent(ax, "x")
    ax.set(xlim=(0, 1.15 * np.nanmax(table[list(columns)])), xlabel="share of the peak of the row's precision")
    layout.legend_above(ax, ncols=len(columns), fontsize=8)
    return ax


def loss_by_precision(ax: Axes, curves: pd.DataFrame, *, x: str) -> Axes:
    """Held-out loss against ``step`` or ``seconds`` by precision, a line a seed (`recorded_speeds.loss_curves`)."""
    for name, runs, colour, marker in style.series(curves.groupby("precision", sort=False)):
        for i, (_, run) in enumerate(runs.groupby("seed")):
            label = name if i == 0 else None
            ax.plot(run[x], run["loss"], color=colour, marker=marker, markersize=3, linewidth=1, label=label)
    ax.set(xlabel={"step": "steps", "seconds": "seconds of training"}[x], ylabel="held-out loss (nats)")
    ax.legend(fontsize=8)
    return ax


def shares_of_step(ax: Axes, shares: pd.Series) -> Axes:
    """Where the time of a step goes, largest share on top (`recorded_speeds.kernel_shares`)."""
    ordered = shares[shares > 0].sort_values(ascending=False)
    bars = ax.barh(range(len(ordered)), ordered, color=style.PALETTE[2], height=0.65)
    ax.bar_label(bars, [f"{share:.1%}" for share in ordered], fontsize=8, padding=2)
    layout.rows(ax, ordered.index, margin=0.6, fontsize=8)
    layout.percent(ax, "x")
    ax.set(xlim=(0, 1.15 * ordered.max()), xlabel="share of the step's time")
    return ax


def step_times(ax: Axes, table: pd.DataFrame) -> Axes:
    """Seconds of a step by step, one line a student (`recorded_speeds.seconds_a_step`)."""
    for name, log, colour, _ in style.series(table.groupby("student", sort=False)):
        ax.plot(log["step"], log["seconds"], color=colour, linewidth=1.2, label=name)
    layout.log_scale(ax, "y")
    ax.xaxis.set_major_formatter(layout.short_number)
    ax.set(xlabel="step", ylabel="seconds of a step")
    ax.legend(fontsize=8)
    return ax
