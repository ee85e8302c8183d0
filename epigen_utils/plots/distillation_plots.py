"""Plots of students and their teacher; each draws on an axes and returns it."""

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.patches import FancyBboxPatch
from matplotlib.ticker import EngFormatter, MaxNLocator, PercentFormatter

from epigen_utils.plots import layout, style

#: Boxes of `distillation_scheme`: text -> centre (x, y) and index of the palette's colour.
SCHEME_BOXES = {
    "cell, 15% of\nits genes hidden": (0.11, 0.5, 0),
    "teacher\n(frozen)": (0.40, 0.78, 2),
    "student\n(learns)": (0.40, 0.22, 1),
    "its probabilities\nat temperature T": (0.70, 0.78, 2),
    "its probabilities\nat T, and at 1": (0.70, 0.22, 1),
    "the hidden genes": (0.94, 0.02, 0),
}


def distillation_scheme(ax: Axes, *, ce_weight: str, kl_weight: str) -> Axes:
    """Diagram of distillation after paper B's Figure 4.

    Parameters
    ----------
    ce_weight, kl_weight
        Weights of the two losses, as text.
    """
    for text, (x, y, colour) in SCHEME_BOXES.items():
        box = FancyBboxPatch((x - 0.095, y - 0.1), 0.19, 0.2, boxstyle="round,pad=0.01", lw=1.4)
        box.set(facecolor="white", edgecolor=style.PALETTE[colour])
        ax.add_patch(box)
        ax.text(x, y, text, ha="center", va="center", fontsize=8)
    arrow = {"arrowstyle": "-|>", "color": style.MUTED, "lw": 1.4, "shrinkA": 0, "shrinkB": 0}
    for start, end in (
        ((0.215, 0.56), (0.295, 0.74)),
        ((0.215, 0.44), (0.295, 0.26)),
        ((0.505, 0.78), (0.595, 0.78)),
        ((0.505, 0.22), (0.595, 0.22)),
    ):
        ax.annotate("", end, start, arrowprops=arrow)
    both = arrow | {"arrowstyle": "<|-|>"}
    ax.annotate("", (0.70, 0.33), (0.70, 0.67), arrowprops=both)
    ax.annotate("", (0.90, 0.13), (0.805, 0.20), arrowprops=both)
    ax.text(0.715, 0.5, f"{kl_weight} × divergence", va="center", fontsize=8)
    ax.text(0.83, 0.27, f"{ce_weight} × cross entropy", va="center", fontsize=8)
    ax.set(xlim=(0, 1.1), ylim=(-0.12, 0.92))
    ax.axis("off")
    return ax


def parameters_by_part(ax: Axes, table: pd.DataFrame) -> Axes:
    """Parameters of each model by part, one bar per model (`costs.parameter_table`)."""
    names = {"genes": "gene embedding", "positions": "positions", "layers": "layers", "rest": "head, types and norm"}
    layout.stacked_bars(ax, table["model"], {name: table[column] for column, name in names.items()}, height=0.65)
    for y, total in enumerate(table["parameters"]):
        ax.text(total, y, f" {total:,}", va="center", fontsize=8)
    ax.xaxis.set_major_formatter(EngFormatter())
    ax.set(xlim=(0, table["parameters"].max() * 1.25), xlabel="parameters")
    layout.legend_above(ax, ncols=2, fontsize=8)
    return ax


def curves_by_step(
    ax: Axes, histories: dict[str, pd.DataFrame], *, value: str, label: str, legend: bool = True
) -> Axes:
    """A column of several training histories against steps, one line per run."""
    layout.lines(ax, histories.items(), "step", value, most_markers=39, markersize=3.5, linewidth=1.3)
    ax.xaxis.set_major_formatter(EngFormatter(sep=""))
    ax.set(xlabel="step", ylabel=label)
    if legend:
        ax.legend(fontsize=7)
    return ax


def model_gaps(
    ax: Axes,
    pooled: pd.DataFrame,
    by_donor: pd.DataFrame | None = None,
    *,
    value: str,
    label: str,
    percent: bool = False,
) -> Axes:
    """Gap of each model to another one, one row each: pooled as a marker, each donor as a ring, an interval if known.

    Parameters
    ----------
    pooled
        Columns ``model``, the one named by ``value``, and the latter with the suffixes ``" low"`` and ``" high"``, NaN
        where there are too few donors for an interval.
    by_donor
        Columns ``model``, ``donor`` and the one named by ``value``; None: no rings.
    """
    layout.intervals(ax, pooled, value, ends=(f"{value} low", f"{value} high"), label="all donors")
    names = list(pooled["model"])
    if by_donor is not None:
        donors = by_donor[by_donor["model"].isin(names)]
        rings = {"markerfacecolor": "none", "color": style.HIGHLIGHT, "markersize": 5, "label": "a donor"}
        ax.plot(donors[value], donors["model"].map(names.index), "o", **rings)
    layout.rows(ax, names, margin=0.5)
    ax.axvline(0, **style.THIN)
    ax.xaxis.set_major_locator(MaxNLocator(5))
    if percent:
        ax.xaxis.set_major_formatter(PercentFormatter(1, decimals=None))
    ax.set_xlabel(label)
    return ax


def teacher_retention(ax: Axes, table: pd.DataFrame) -> Axes:
    """Share of the teacher's accuracy, and of its lift over the largest class, that each student retains.

    Parameters
    ----------
    table
        Columns ``model``, ``source`` (``this run`` or the paper's), ``by accuracy`` and ``by lift``; for this run also
        these two with the suffixes ``" low"`` and ``" high"``.
    """
    names = list(dict.fromkeys(table["model"]))
    kinds = (("by accuracy", style.PALETTE[2], "o", -0.12), ("by lift", style.PALETTE[1], "s", 0.12))
    for name, colour, marker, shift in kinds:
        for source, part in table.groupby("source", sort=False):
            this_run = source == "this run"
            x = part["model"].map(names.index) + shift + (0 if this_run else 0.06)
            fill = colour if this_run else "white"
            ax.plot(x, part[name], marker, color=colour, markerfacecolor=fill, label=f"{name}, {source}")
            if this_run:
                ax.vlines(x, part[f"{name} low"], part[f"{name} high"], color=colour, linewidth=1.5)
    ax.axhline(1, **style.THIN)
    ax.set_xticks(range(len(names)), names)
    layout.percent(ax, "y")
    ax.set_ylabel("left of the teacher")
    ax.legend(fontsize=7)
    return ax


def cost_ratios(ax: Axes, table: pd.DataFrame) -> Axes:
    """Ratios of the teacher's to each student's cells, operations and GPU-hours.

    Parameters
    ----------
    table
        `costs.published_costs` without its first row.
    """
    y = np.arange(len(table))
    ratios = {"data": "cells", "compute, operations": "operations", "compute, GPU-hours": "GPU-hours"}
    for shift, (column, name), colour in zip((-0.27, 0, 0.27), ratios.items(), style.PALETTE[1:], strict=False):
        bars = ax.barh(y + shift, table[column], height=0.25, color=colour, label=name)
        box = {"facecolor": "white", "edgecolor": "none", "pad": 0.8}
        ax.bar_label(bars, fmt=" 1/{:.1f}", fontsize=8, bbox=box)
    ax.axvline(20, color=style.PALETTE[1], linestyle="--", linewidth=1, label="data, as the paper says")
    ax.axvline(25, color=style.PALETTE[0], linestyle="--", linewidth=1, label="compute, as the paper says")
    layout.rows(ax, table["model"])
    ax.set_xlabel("times less than the teacher's pretraining")
    layout.legend_above(ax, ncols=3, fontsize=7)
    return ax


def limits_about_one(table: pd.DataFrame) -> tuple[float, float]:
    """Axis limits symmetric about 1, with a margin of 15% beyond the values."""
    reach = 1.15 * max(float((table - 1).abs().max().max()), 0.01)
    return 1 - reach, 1 + reach
