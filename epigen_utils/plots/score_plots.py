"""Plots of scores, shares and permutation nulls; each draws on an axes and returns it."""

import numpy as np
import pandas as pd
from matplotlib.axes import Axes

from epigen_utils.plots import layout, style


def cumulative_shares(ax: Axes, values: pd.Series, *, label: str) -> Axes:
    """Horizontal bars of shares that sum to one, largest on top, with the cumulative share at each bar's end."""
    values = values.sort_values(ascending=False)
    cumulative = values.cumsum()
    ax.barh(np.arange(len(values)), values, color=style.PALETTE[2], height=0.72)
    for i, (share, total) in enumerate(zip(values, cumulative, strict=True)):
        ax.text(share + 0.004, i, f"{total:.0%}", va="center", fontsize=8, color="#444444")
    ax.set_yticks(np.arange(len(values)), values.index, fontsize=8)
    ax.invert_yaxis()
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
    levels = layout.group_order(labels)
    colour, marker = style.colours(levels), style.markers(levels)
    for x, level in enumerate(levels):
        members = values[(labels == level).to_numpy()]
        spread = x + np.linspace(-0.15, 0.15, len(members)) if len(members) > 1 else [x]
        ax.scatter(spread, members, color=colour[level], marker=marker[level], s=30, edgecolor="white")
        ax.hlines(members.mean(), x - 0.28, x + 0.28, color="black", linewidth=1.2)
    ax.axhline(0, color=style.MUTED, linewidth=0.8, zorder=0)
    ax.set_xticks(range(len(levels)), levels)
    ax.set_ylabel("mean z over genes")
    ax.set_title(title)
    return ax


def values_by_seed(ax: Axes, table: pd.DataFrame, *, level: float | None = None, ylabel: str) -> Axes:
    """Values of each column (seeds are rows), with the column mean; ``level`` is the nominal or expected value."""
    for x, name in enumerate(table):
        values = table[name].dropna()
        ax.scatter(x + np.linspace(-0.2, 0.2, len(values)), values, color=style.MUTED, s=14, edgecolor="none")
        ax.hlines(values.mean(), x - 0.3, x + 0.3, color="black", linewidth=1.5)
    if level is not None:
        ax.axhline(level, color=style.HIGHLIGHT, linestyle="--", linewidth=1)
    ax.set_xticks(range(table.shape[1]), [name.replace(" to ", "\nto ") for name in table], fontsize=8)
    ax.set_xlim(-0.6, table.shape[1] - 0.4)
    ax.set_ylim(bottom=0)
    ax.set_ylabel(ylabel)
    return ax


def permutation_null(ax: Axes, values: pd.Series, *, level: float | None = None, xlabel: str) -> Axes:
    """Statistic under the observed labels (the first value) among those under permuted labels; ``level`` is nominal."""
    null = np.sort(values.to_numpy()[1:])
    ax.plot(null, np.arange(len(null)), "o", color=style.MUTED, label="shuffled")
    ax.axvline(values.iloc[0], color=style.HIGHLIGHT, label="observed")
    if level is not None:
        ax.axvline(level, color="black", linestyle="--", linewidth=1, label="level")
    ax.set_yticks([])
    ax.set_ylabel("labelings")
    ax.set_xlim(left=0)
    ax.set_xlabel(xlabel)
    ax.legend(loc="lower center", bbox_to_anchor=(0.5, 1.0), ncols=3, fontsize=8)
    return ax
