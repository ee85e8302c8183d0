"""Plots of in silico perturbation; each draws on an axes and returns it."""

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.ticker import LogLocator

from epigen_utils.plots import layout, style


def shift_volcano(
    ax: Axes,
    table: pd.DataFrame,
    *,
    target: str,
    unit: str,
    called: pd.Series,
    planted: set[str] | None = None,
    n_labels: int = 8,
) -> Axes:
    """-log10 of the p-value against the shift towards the target state; coloured are the genes that are called.

    Parameters
    ----------
    table
        Result of `perturbation_tests.goal_state_shift`.
    unit, called
        What p-values are over, donors or cells, and which genes are called (`perturbation_tests.called_genes`).
    planted
        Ensembl ids of planted regulators, marked.
    """
    p = {"donors": "Donor_pval", "cells": "Goal_end_vs_random_pval"}[unit]
    tested = table.dropna(subset=[p])
    shift, height = tested["Shift_to_goal_end"], -np.log10(tested[p].clip(lower=1e-300))
    layout.called_points(ax, shift, height, called[tested.index].to_numpy(), colour=style.PALETTE[2], size=8)
    if planted:
        subset = tested["Ensembl_ID"].isin(planted).to_numpy()
        label = f"planted regulators ({subset.sum()})"
        ax.scatter(shift[subset], height[subset], s=34, facecolor="none", edgecolor=style.HIGHLIGHT, label=label)
    top = tested.assign(height=height).nlargest(4 * n_labels, "height")
    points = top[["Shift_to_goal_end", "height"]].to_numpy()
    span = (shift.abs().max() or 1, height.max() or 1)
    layout.name_points(ax, points, list(top["Gene_name"]), span=span, gap=(0.25, 0.05), limit=n_labels)
    ax.axvline(0, **style.THIN)
    ax.margins(x=0.15)
    ax.set_xlabel(f"shift towards {target} (difference of cosines)")
    ax.set_ylabel(f"-log10 p over {unit}")
    layout.legend_above(ax, ncols=2, fontsize=8, markerscale=1.5)
    return ax


def top_shifts(ax: Axes, table: pd.DataFrame, *, target: str, donors: pd.DataFrame | None = None) -> Axes:
    """Shifts of the given genes with their intervals over donors, where there are any, in the order given.

    Parameters
    ----------
    donors
        Shift of each gene (Ensembl id) in each donor (`perturbation_tests.donor_shifts`), drawn as small dots.
    """
    if "Donor_low" in table:
        if donors is not None:
            values = donors.reindex(table["Ensembl_ID"])
            at = np.repeat(np.arange(len(table)), values.shape[1])
            ax.scatter(values.to_numpy().ravel(), at, s=10, color=style.MUTED, edgecolor="none", label="one donor")
        label = "mean, 95% t interval" if table["Donor_low"].notna().any() else "mean"
        layout.intervals(ax, table, "Donor_shift", ends=("Donor_low", "Donor_high"), linewidth=1.6, label=label)
        ax.set_xlabel(f"shift towards {target} over the mean of all genes")
        layout.legend_above(ax, ncols=2, fontsize=8)
    else:
        ax.plot(table["Shift_to_goal_end"], range(len(table)), "o", color=style.PALETTE[2])
        ax.set_xlabel(f"shift towards {target} (difference of cosines)")
    sizes = [f"{row.Gene_name} ({row.N_Detections} cells)" for row in table.itertuples()]
    layout.rows(ax, sizes)
    ax.axvline(0, **style.THIN)
    return ax


def planted_recall_curves(ax: Axes, curves: dict[str, np.ndarray]) -> Axes:
    """Recall of the planted genes against the share of the ranking, by kind of perturbation; the diagonal is chance.

    Parameters
    ----------
    curves
        Kind -> whether each gene is planted, in the order of the ranking.
    """
    for name, hits, colour, _ in style.series(curves.items()):
        share = np.arange(len(hits) + 1) / len(hits)
        recall = np.concatenate([[0], np.cumsum(hits)]) / max(hits.sum(), 1)
        ax.step(share, recall, color=colour, label=f"{name} ({hits.sum()})")
    ax.plot([0, 1], [0, 1], **style.DASHED)
    layout.percent(ax, "xy")
    ax.set(xlabel="genes examined, in order of shift towards the target state", ylabel="planted regulators found")
    ax.legend(loc="lower right", fontsize=8)
    return ax


def recall_against_passes(ax: Axes, table: pd.DataFrame, *, column: str, top: int, required: float) -> Axes:
    """Recall of variants of a screen against how many times fewer passes of the model they take than the exact run.

    Parameters
    ----------
    table
        Result of `screening_recall.cost_recall_curve`.
    column
        Column with the number of the exact ``top`` genes that the screen recovers.
    required
        Required number of recovered genes, a dashed line.
    """
    rows = table.sort_values("times fewer passes", ignore_index=True, kind="stable").to_dict("records")
    for number, row in enumerate(rows, start=1):
        point = (row["times fewer passes"], row[column])
        # Neighbours cost nearly the same: numbers, alternately above and below, do not overlap as names would.
        ax.plot(*point, "o", color=style.PALETTE[2], label=f"{number}  {row['variant']}")
        ax.annotate(str(number), point, xytext=(0, 6 if number % 2 else -13), textcoords="offset points", ha="center")
    ax.axhline(required, color=style.HIGHLIGHT, linestyle="--", linewidth=1)
    layout.log_scale(ax, "x", form="{x:g}")
    ax.xaxis.set_major_locator(LogLocator(base=10, subs=(1, 2, 5)))
    ylabel = f"of the exact top {top}, found in the first quarter"
    ax.set(ylim=(0, top * 1.12), xlabel="times fewer passes of the model than the exact run", ylabel=ylabel)
    ax.margins(x=0.15)
    ax.legend(handlelength=0, markerscale=0, loc="center left", bbox_to_anchor=(1.0, 0.5), fontsize=8)
    return ax
