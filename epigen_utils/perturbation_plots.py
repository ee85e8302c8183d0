"""Plots of perturbations; each takes an axes and gives it back."""

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.ticker import LogLocator, NullFormatter, PercentFormatter

from epigen_utils import style


def volcano(
    ax: Axes, table: pd.DataFrame, *, goal: str, planted: set[str] | None = None, alpha: float, n_labels: int = 8
) -> Axes:
    """Shift towards the goal against -log10 of the p-value over donors, or over cells where donors are not known.

    Parameters
    ----------
    table
        `perturbation_stats.goal_state_shift`'s.
    planted
        Ensembl ids to mark.
    """
    by_donor = "Donor_pval" in table and table["Donor_pval"].notna().any()
    p, fdr = ("Donor_pval", "Donor_FDR") if by_donor else ("Goal_end_vs_random_pval", "Goal_end_FDR")
    shown = table.dropna(subset=[p])
    height = -np.log10(shown[p].clip(lower=1e-300))
    called = (shown[fdr] < alpha).to_numpy()
    for rows, colour, word in ((~called, style.MUTED, "not called"), (called, style.PALETTE[2], "called")):
        x, y = shown["Shift_to_goal_end"][rows], height[rows]
        ax.scatter(x, y, s=8, color=colour, edgecolor="none", label=f"{word} ({rows.sum():,})", rasterized=True)
    if planted:
        rows = shown["Ensembl_ID"].isin(planted).to_numpy()
        x, y = shown["Shift_to_goal_end"][rows], height[rows]
        ax.scatter(x, y, s=34, facecolor="none", edgecolor=style.HIGHLIGHT, label=f"planted regulators ({rows.sum()})")
    spread = shown["Shift_to_goal_end"].abs().max() or 1
    named: list[np.ndarray] = []
    for row in shown.assign(height=height).nlargest(4 * n_labels, "height").itertuples():
        here = np.array([row.Shift_to_goal_end / spread, row.height / (height.max() or 1)])
        # A name that would lie on another is left out.
        if len(named) < n_labels and all((np.abs(here - there) > (0.25, 0.05)).any() for there in named):
            named.append(here)
            place = (row.Shift_to_goal_end, row.height)
            ax.annotate(row.Gene_name, place, xytext=(3, 2), textcoords="offset points", fontsize=7)
    ax.axvline(0, color=style.MUTED, linewidth=0.8)
    ax.margins(x=0.15)
    ax.set_xlabel(f"shift towards {goal} (difference of cosines)")
    ax.set_ylabel(f"-log10 p over {'donors' if by_donor else 'cells'}")
    ax.legend(loc="lower center", bbox_to_anchor=(0.5, 1.0), ncols=2, fontsize=8, markerscale=1.5)
    return ax


def top_genes(ax: Axes, table: pd.DataFrame, *, goal: str) -> Axes:
    """Genes with the largest shifts and their intervals over donors, the largest first."""
    place = np.arange(len(table))
    if "Donor_low" in table:
        ax.hlines(place, table["Donor_low"], table["Donor_high"], color=style.PALETTE[2])
        ax.plot(table["Donor_shift"], place, "o", color=style.PALETTE[2])
        ax.set_xlabel(f"shift towards {goal} over the mean of all genes, 95% interval over donors")
    else:
        ax.plot(table["Shift_to_goal_end"], place, "o", color=style.PALETTE[2])
        ax.set_xlabel(f"shift towards {goal} (difference of cosines)")
    ax.set_yticks(place, table["Gene_name"])
    ax.invert_yaxis()
    ax.axvline(0, color=style.MUTED, linewidth=0.8)
    return ax


def found_by_rank(ax: Axes, curves: dict[str, np.ndarray]) -> Axes:
    """Share of the planted genes that are among the first so many, by kind of perturbation; the diagonal is chance.

    Parameters
    ----------
    curves
        Name -> whether each gene is planted, in the order of the ranking.
    """
    for (name, hits), colour in zip(curves.items(), style.PALETTE[1:], strict=False):
        x = np.arange(len(hits) + 1) / len(hits)
        ax.step(
            x, np.concatenate([[0], np.cumsum(hits)]) / max(hits.sum(), 1), color=colour, label=f"{name} ({hits.sum()})"
        )
    ax.plot([0, 1], [0, 1], color=style.MUTED, linestyle="--", linewidth=1)
    for axis in (ax.xaxis, ax.yaxis):
        axis.set_major_formatter(PercentFormatter(1))
    ax.set_xlabel("genes looked at, by shift towards the goal")
    ax.set_ylabel("planted regulators found")
    ax.legend(loc="lower right", fontsize=8)
    return ax


def recall_against_cost(ax: Axes, table: pd.DataFrame, *, found: str, top: int, wanted: float) -> Axes:
    """What a screen finds against how many times faster than the exact run it is; `screening.curve`.

    Parameters
    ----------
    found
        Column with the genes found of the ``top``.
    wanted
        Genes found that are asked for, as a dashed line.
    """
    for place, row in enumerate(table.sort_values("times faster", ignore_index=True).to_dict("records"), start=1):
        at = (row["times faster"], row[found])
        # Neighbours cost nearly the same, so that names would lie on each other.
        ax.plot(*at, "o", color=style.PALETTE[2], label=f"{place}  {row['variant']}")
        ax.annotate(str(place), at, xytext=(0, 6 if place % 2 else -13), textcoords="offset points", ha="center")
    ax.axhline(wanted, color=style.HIGHLIGHT, linestyle="--", linewidth=1)
    ax.set_xscale("log")
    ax.xaxis.set_major_locator(LogLocator(base=10, subs=(1, 2, 5)))
    ax.xaxis.set_major_formatter("{x:g}")
    ax.xaxis.set_minor_formatter(NullFormatter())
    ax.set_ylim(0, top * 1.12)
    ax.set_xlabel("times faster than the exact run")
    ax.set_ylabel(f"of the exact top {top}, found in the first quarter")
    ax.margins(x=0.15)
    ax.legend(handlelength=0, markerscale=0, loc="center left", bbox_to_anchor=(1.0, 0.5), fontsize=8)
    return ax
