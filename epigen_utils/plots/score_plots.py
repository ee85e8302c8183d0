"""Plots of scores, shares and permutation nulls; each draws on an axes and returns it."""

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.ticker import MaxNLocator

from epigen_utils.plots import layout, style


def cumulative_shares(ax: Axes, values: pd.Series, *, label: str) -> Axes:
    """Horizontal bars of shares that sum to one, largest on top, with the cumulative share at each bar's end."""
    values = values.sort_values(ascending=False)
    ax.barh(range(len(values)), values, color=style.PALETTE[2], height=0.72)
    for i, (share, total) in enumerate(zip(values, values.cumsum(), strict=True)):
        ax.text(share + 0.004, i, f"{total:.0%}", va="center", fontsize=8, color="#444444")
    layout.rows(ax, values.index, fontsize=8)
    ax.xaxis.set_major_formatter("{x:.0%}")
    ax.set_xlabel(label)
    return ax


def attainable_values(
    ax: Axes, values: pd.Series, *, claimed: float, half_width: float, limits: tuple[float, float], label: str
) -> Axes:
    """Attainable values of a score, as ticks on a line, against the interval that a rounded claim allows."""
    ax.axvspan(claimed - half_width, claimed + half_width, color=style.HIGHLIGHT, alpha=0.25, linewidth=0)
    ax.axvline(claimed, color=style.HIGHLIGHT, linewidth=1)
    ax.vlines(values, 0, 1, color=style.PALETTE[2], linewidth=1.4)
    ax.set_xlim(*limits)
    ax.set_yticks([])
    ax.spines["left"].set_visible(False)
    ax.set_ylabel(label, rotation=0, ha="right", va="center")
    return ax


def group_scores(ax: Axes, values: pd.Series, labels: pd.Series, *, title: str) -> Axes:
    """Score of each sample by group, with the group mean."""
    for x, (_level, members, look) in enumerate(layout.groups(labels)):
        offsets = np.linspace(-0.15, 0.15, members.sum()) if members.sum() > 1 else 0
        dots = {"s": 30, "edgecolor": "white"} | look
        layout.points_with_mean(ax, x, offsets, values[members], reach=0.28, linewidth=1.2, **dots)
    ax.axhline(0, zorder=0, **style.THIN)
    levels = layout.group_order(labels)
    ax.set_xticks(range(len(levels)), levels)
    ax.set(ylabel="mean z over genes", title=title)
    return ax


def values_by_seed(ax: Axes, table: pd.DataFrame, *, level: float | None = None, ylabel: str) -> Axes:
    """Values of each column (seeds are rows), with the column mean; ``level`` is the nominal or expected value."""
    for x, name in enumerate(table):
        values = table[name].dropna()
        dots = {"color": style.MUTED, "s": 14, "edgecolor": "none"}
        layout.points_with_mean(ax, x, np.linspace(-0.2, 0.2, len(values)), values, reach=0.3, **dots)
    if level is not None:
        ax.axhline(level, color=style.HIGHLIGHT, linestyle="--", linewidth=1)
    names = [name.replace(*((" to ", "\nto ") if " to " in name else (" ", "\n"))) for name in table]
    layout.columns(ax, names, margin=0.6, fontsize=8)
    ax.set(ylim=(0, None), ylabel=ylabel)
    return ax


def permutation_null(ax: Axes, values: pd.Series, *, level: float | None = None, xlabel: str) -> Axes:
    """Statistic under the observed labels (the first value) among those under permuted labels; ``level`` is nominal."""
    null = np.sort(values.to_numpy()[1:])
    ax.plot(null, np.arange(len(null)), "o", color=style.MUTED, label="permuted", clip_on=False)
    ax.axvline(values.iloc[0], color=style.HIGHLIGHT, label="observed")
    if level is not None:
        ax.axvline(level, color="black", linestyle="--", linewidth=1, label="level")
    ax.set(yticks=[], ylabel="permutations", xlim=(0, None), xlabel=xlabel)
    ax.xaxis.set_major_locator(MaxNLocator(5))
    layout.legend_above(ax, ncols=3, fontsize=8)
    return ax
