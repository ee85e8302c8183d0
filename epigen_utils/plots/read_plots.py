"""Plots of the pipeline from reads to counts; each draws on an axes and returns it."""

import textwrap

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.patches import Rectangle

from epigen_utils.plots import layout, style
from epigen_utils.reads import rule_graph, tool_reports

#: FastQC verdict -> colour and symbol.
VERDICT_MARKS = {"pass": (style.PALETTE[3], "✓"), "warn": (style.PALETTE[5], "!"), "fail": (style.PALETTE[1], "×")}
#: Colours of the fates of reads; the first is the desired one.
FATE_COLOURS = (style.PALETTE[2], style.PALETTE[5], style.PALETTE[4], style.PALETTE[6], style.PALETTE[0])


def pipeline_stages(ax: Axes, table: pd.DataFrame) -> Axes:
    """Stages from the top down, each with its chapters beside it and an arrow that says what it passes on.

    Parameters
    ----------
    table
        `rule_graph.stage_chapters`, with ``title``.
    """
    box = {"boxstyle": "round,pad=0.4", "linewidth": 1.2, "facecolor": "#d6e6f2", "edgecolor": style.PALETTE[2]}
    arrow = {"arrowstyle": "-|>", "color": style.MUTED, "shrinkA": 18, "shrinkB": 26}
    top, above = 0.0, None
    for (number, stage, passed), chapters in table.groupby(["number", "stage", "passes on"], sort=False):
        bottom = top - len(chapters) + 1
        middle = (top + bottom) / 2
        if above is not None:
            ax.annotate("", (0, middle), (0, above), arrowprops=arrow)
        name = textwrap.fill(f"{number} {stage}", 20, break_on_hyphens=False)
        ax.text(0, middle, name, ha="center", va="center", fontsize=9, bbox=box)
        ax.plot([0.38, 0.38], [top + 0.3, bottom - 0.3], color=style.PALETTE[2], linewidth=1.2)
        for row, title in enumerate(chapters["title"]):
            ax.text(0.42, top - row, title, va="center", fontsize=8)
        if passed:
            ax.text(0.06, bottom - 1, passed, va="center", fontsize=8, style="italic", color=style.PALETTE[1])
        top, above = bottom - 2, middle
    ax.set(xlim=(-0.4, 1.3), ylim=(bottom - 0.6, 0.8))
    ax.axis("off")
    return ax


def pipeline_graph(ax: Axes, edges: pd.DataFrame, chapters: pd.DataFrame, *, columns: int = 2) -> Axes:
    """Graph of the rules (`rule_graph.rule_edges`) above the chapters on counts (`notebooks.chapters_on_counts`)."""
    positions = rule_graph.rule_positions(edges)
    box = {"boxstyle": "round,pad=0.4", "linewidth": 1.2}
    for first, then in edges.itertuples(index=False):
        arrow = {"arrowstyle": "-|>", "color": style.MUTED, "shrinkA": 22, "shrinkB": 24}
        ax.annotate("", positions[then], positions[first], arrowprops=arrow)
    blue = box | {"facecolor": "#d6e6f2", "edgecolor": style.PALETTE[2]}
    orange = box | {"facecolor": "#fbe5d6", "edgecolor": style.PALETTE[1]}
    for name, (x, y) in positions.items():
        ax.text(x, y, name, ha="center", va="center", fontsize=9, bbox=blue)
    last, low = max(x for x, _ in positions.values()), min(y for _, y in positions.values()) - 1.2
    arrow = {"arrowstyle": "-|>", "color": style.PALETTE[1], "shrinkA": 16}
    ax.annotate("", (positions["merge"][0], low + 0.3), positions["merge"], arrowprops=arrow)
    for i, title in enumerate(chapters["title"]):
        x, y = (i % columns + 0.5) * last / columns, low - 0.6 * (i // columns)
        ax.text(x, y, title.split(":")[0], ha="center", va="center", fontsize=8, bbox=orange)
    bottom = low - 0.6 * ((len(chapters) - 1) // columns)
    ax.set(xlim=(-0.6, last + 0.6), ylim=(bottom - 0.4, max(y for _, y in positions.values()) + 0.5))
    ax.axis("off")
    return ax


def quality_by_position(ax: Axes, table: pd.DataFrame) -> Axes:
    """Mean base quality by position, before (dashed) and after trimming (`tool_reports.quality_by_position`)."""
    colours = {1: style.PALETTE[2], 2: style.PALETTE[1]}
    for (_sample, mate, when), file in table.groupby(["sample", "mate", "when"]):
        line = "--" if when == "before" else "-"
        ax.plot(file["position"], file["quality"], line, color=colours[mate], linewidth=1, alpha=0.7)
    for mate in sorted(set(table["mate"])):
        ax.plot([], [], "-", color=colours[mate], label=f"mate {mate}, after trimming")
    ax.plot([], [], "--", color=style.MUTED, label="before")
    ax.axhline(30, color=style.MUTED, linewidth=1, linestyle=":")
    ax.set(xlabel="position in the read (base)", ylabel="mean quality (Phred)", ylim=(0, 42))
    ax.legend(fontsize=8, ncols=3, loc="lower left")
    return ax


def fastqc_verdicts(ax: Axes, table: pd.DataFrame) -> Axes:
    """FastQC verdicts, files x modules (`tool_reports.fastqc_verdicts`)."""
    for (y, x), verdict in np.ndenumerate(table.to_numpy()):
        colour, symbol = VERDICT_MARKS[verdict]
        ax.add_patch(Rectangle((x - 0.48, y - 0.48), 0.96, 0.96, color=colour, linewidth=0))
        ax.text(x, y, symbol, ha="center", va="center", fontsize=9, color="white", weight="bold")
    ax.set_xticks(range(table.shape[1]), table.columns, rotation=35, ha="right", fontsize=8)
    ax.set_yticks(range(len(table)), table.index, fontsize=8)
    ax.set(xlim=(-0.5, table.shape[1] - 0.5), ylim=(len(table) - 0.5, -0.5))
    ax.grid(visible=False)
    ax.tick_params(length=0)
    return ax


def stacked_shares(ax: Axes, table: pd.DataFrame, parts: list[str], *, xlabel: str) -> Axes:
    """Fates of each sample's reads: stacked shares that sum to one (`tool_reports.sample_summary`)."""
    layout.stacked_bars(ax, table["sample"], dict(table[parts].items()), FATE_COLOURS, height=0.7)
    text = {"ha": "center", "va": "center", "fontsize": 8, "color": "white"}
    for part, bars in zip(parts, ax.containers, strict=False):
        for bar, share in zip(bars, table[part], strict=True):
            if share >= 0.1:
                ax.text(*bar.get_center(), f"{share:.1%}", **text)
    ax.xaxis.set_major_formatter("{x:.0%}")
    ax.set(xlim=(0, 1), xlabel=xlabel)
    layout.legend_above(ax, x=0.45, ncols=len(parts), fontsize=7)
    return ax


def separate_shares(ax: Axes, table: pd.DataFrame, parts: list[str]) -> Axes:
    """Shares that need not sum to one, one marker each, one row per sample (`tool_reports.sample_summary`)."""
    dots = {"markersize": 7, "clip_on": False, "zorder": 3}
    for name, shares, colour, marker in style.series(table[parts].items()):
        ax.plot(shares, table["sample"], marker, color=colour, label=name, **dots)
    ax.invert_yaxis()
    ax.xaxis.set_major_formatter("{x:.0%}")
    ax.set(xlim=(0, max(0.05, 1.1 * table[parts].max().max())), xlabel="share of the reads, or of their alignments")
    layout.legend_above(ax, x=0.45, ncols=len(parts), fontsize=8)
    return ax


def strand_shares(ax: Axes, table: pd.DataFrame) -> Axes:
    """Share of each library's fragments on the strand of the RNA, and the ranges that count as (un)stranded.

    Parameters
    ----------
    table
        Columns ``sample`` and ``on the strand``.
    """
    low, high = 1 - tool_reports.STRANDED, tool_reports.STRANDED
    half = tool_reports.UNSTRANDED
    for span, name in (((0, low), "reverse"), ((0.5 - half, 0.5 + half), "unstranded"), ((high, 1), "forward")):
        ax.axvspan(*span, color=style.PALETTE[2], alpha=0.1, linewidth=0)
        ax.text(np.mean(span), -0.85, name, ha="center", va="center", fontsize=8, color=style.PALETTE[2])
    ax.plot(table["on the strand"], range(len(table)), "o", color=style.PALETTE[1], markersize=8)
    ax.set_yticks(range(len(table)), table["sample"])
    ax.xaxis.set_major_formatter("{x:.0%}")
    ax.set(xlim=(-0.02, 1.02), ylim=(len(table) - 0.4, -1.2), xlabel="fragments in genes on the strand of the RNA")
    return ax


def counts_against_truth(ax: Axes, table: pd.DataFrame) -> Axes:
    """Counted against planted fragments, one dot per gene and sample (`read_counts.counts_with_truth`)."""
    top = table[["planted", "counted"]].max().max() * 1.3
    ax.plot([0.7, top], [0.7, top], color=style.MUTED, linewidth=1)
    for sample, genes, colour, marker in style.series(table.groupby("sample", sort=False), style.PALETTE):
        # A logarithmic axis has no zero.
        fragments = genes[["planted", "counted"]].clip(lower=0.8)
        ax.plot(fragments["planted"], fragments["counted"], marker, color=colour, markersize=4, alpha=0.6, label=sample)
    layout.log_scale(ax, "xy", form="{x:g}")
    ax.set(xlabel="planted fragments", ylabel="counted fragments")
    ax.legend(fontsize=7)
    return ax


def step_seconds(ax: Axes, table: pd.DataFrame) -> Axes:
    """Seconds of every step, summed over samples, with the share of the total (`tool_reports.time_by_step`)."""
    layout.noted_bars(ax, table["step"], table["seconds"], table["share"].map(" {:.0%}".format))
    ax.set_xlabel("seconds over all jobs")
    return ax


def amdahl_curve(ax: Axes, table: pd.DataFrame, *, step: str, claimed: float) -> Axes:
    """Amdahl's law: speed-up of the whole pipeline against that of one step (`tool_reports.overall_speedup`)."""
    times = np.geomspace(1, 100, 60)
    ax.plot(times, [tool_reports.overall_speedup(table, step=step, speedup=x) for x in times], color=style.PALETTE[2])
    overall = tool_reports.overall_speedup(table, step=step, speedup=claimed)
    ax.plot(claimed, overall, "o", color=style.HIGHLIGHT, markersize=8)
    text = {"xytext": (-4, 8), "textcoords": "offset points", "ha": "right", "fontsize": 8}
    ax.annotate(f"{claimed:g} times: {overall:.1f}", (claimed, overall), **text)
    ax.plot(times, times, label="if this step took all the time", **style.DASHED)
    layout.log_scale(ax, "xy", form="{x:g}")
    ax.set(ylim=(0.9, 100), xlabel=f"speed-up of {step}", ylabel="speed-up of the pipeline")
    ax.legend(fontsize=8, loc="upper left")
    return ax
