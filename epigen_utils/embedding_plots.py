"""Plots of samples and genes as a model sees them; each takes an axes and gives it back."""

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.lines import Line2D

from epigen_utils import plots, style


def plane(ax: Axes, points: pd.DataFrame, labels: pd.Series, *, title: str = "") -> Axes:
    """Samples in a small plane without ticks, for many side by side; only neighbourhood is to be read off."""
    levels = plots.in_order(labels)
    colour, marker = style.colours(levels), style.markers(levels)
    for level in levels:
        some = points[(labels == level).to_numpy()].to_numpy()
        ax.scatter(*some.T, color=colour[level], marker=marker[level], s=22, edgecolor="white", linewidth=0.4)
    ax.set(xticks=[], yticks=[])
    ax.set_xlabel(points.columns[0], fontsize=7)
    ax.set_ylabel(points.columns[1], fontsize=7)
    ax.set_title(title, fontsize=8)
    ax.margins(0.1)
    return ax


def groups(ax: Axes, labels: pd.Series) -> Axes:
    """A legend of the classes above an axes, for many planes that share them."""
    levels = plots.in_order(labels)
    colour, marker = style.colours(levels), style.markers(levels)
    handles = [Line2D([], [], linestyle="", color=colour[level], marker=marker[level], label=level) for level in levels]
    ax.legend(
        handles=handles, fontsize=8, ncols=len(levels), loc="lower left", bbox_to_anchor=(-0.05, 1.12), borderpad=0
    )
    return ax


def separation(ax: Axes, table: pd.DataFrame) -> Axes:
    """Silhouette of the classes in the first two components, a row a representation, with its p (`representations.apart`)."""
    place = np.arange(len(table))
    ax.axvline(0, color=style.MUTED, linewidth=1)
    for row, (value, p) in enumerate(zip(table["silhouette"], table["p"], strict=True)):
        ax.hlines(row, 0, value, color=style.PALETTE[2], linewidth=2)
        ax.plot(value, row, "o", color=style.HIGHLIGHT if p < 0.05 else style.PALETTE[2], markersize=7)
        ax.text(1.04, row, "told its classes" if np.isnan(p) else f"p = {p:.2g}", va="center", fontsize=8)
    ax.set_yticks(place, table["representation"])
    ax.invert_yaxis()
    ax.set(xlim=(-0.5, 1.0), xlabel="silhouette in the plane of PC1 and PC2")
    return ax


def against_noise(ax: Axes, table: pd.DataFrame) -> Axes:
    """Share of the variance in two components, and what noise has for as many samples and features; `representations.apart`."""
    place = np.arange(len(table))
    ax.barh(place, table["PC1 + PC2"], color=style.PALETTE[2], height=0.6, label="PC1 and PC2")
    ax.plot(table["noise"], place, "|", color=style.HIGHLIGHT, markersize=16, markeredgewidth=2.5, label="noise alone")
    ax.axvline(0.65, color=style.PALETTE[3], linestyle=":", linewidth=1.5, label="paper A, 65%")
    ax.set_yticks(place, table["representation"])
    ax.invert_yaxis()
    ax.xaxis.set_major_formatter(lambda share, _: f"{share:.0%}")
    ax.set(xlim=(0, 1), xlabel="share of the variance")
    ax.legend(loc="lower center", bbox_to_anchor=(0.4, 1.0), ncols=3, fontsize=7)
    return ax


def paths(ax: Axes, table: pd.DataFrame, *, part: str) -> Axes:
    """Where samples of a part go as training goes on, one line each, from the open mark to the full one; axes hold both parts.

    Parameters
    ----------
    table
        As `representations.trajectory` gives it.
    """
    across, up = table["PC1"], table["PC2"]
    table = table[table["part"] == part]
    levels = plots.in_order(table["class"])
    colour, marker = style.colours(levels), style.markers(levels)
    for _sample, path in table.groupby("sample", sort=False):
        path = path.sort_values("epochs")
        shade = colour[path["class"].iloc[0]]
        ax.plot(path["PC1"], path["PC2"], color=shade, alpha=0.35, linewidth=0.8)
    for level in levels:
        some = table[table["class"] == level]
        first, last = (some[some["epochs"] == end] for end in (some["epochs"].min(), some["epochs"].max()))
        ax.scatter(first["PC1"], first["PC2"], facecolor="none", edgecolor=colour[level], marker=marker[level], s=18)
        ax.scatter(last["PC1"], last["PC2"], color=colour[level], marker=marker[level], s=18, label=level)
    ax.set(xlabel="PC1 of all times", ylabel="PC2 of all times")
    for set_limits, values in ((ax.set_xlim, across), (ax.set_ylim, up)):
        pad = 0.06 * np.ptp(values)
        set_limits(values.min() - pad, values.max() + pad)
    ax.set_title(f"samples: {part}", fontsize=9)
    return ax


def over_epochs(ax: Axes, table: pd.DataFrame) -> Axes:
    """Silhouette of the classes as training goes on, for samples it learns from and for those it does not."""
    for (part, found), colour, marker in zip(
        table.groupby("part", sort=False), style.PALETTE[1:], style.MARKERS, strict=False
    ):
        ax.plot(found["epochs"], found["silhouette"], marker + "-", color=colour, label=part)
    ax.axhline(0, color=style.MUTED, linewidth=1)
    ax.set(xlabel="epochs of fine-tuning", ylabel="silhouette, all dimensions")
    ax.legend(fontsize=8)
    return ax


def gene_variance(ax: Axes, table: pd.DataFrame, *, labelled: dict[str, str]) -> Axes:
    """Variance of each gene's states against its mean expression, coloured by the variance of its expression; `sentence_states.of_genes`.

    Parameters
    ----------
    labelled
        Gene -> the name to write beside it.
    """
    shade = np.log10(table["variance of expression"].clip(lower=1e-6))
    dots = ax.scatter(
        table["expression"],
        table["variance of states"],
        c=shade,
        cmap="viridis",
        s=26,
        edgecolor="white",
        linewidth=0.3,
    )
    span = np.array([np.ptp(table["expression"]), np.ptp(table["variance of states"])])
    written = []
    for gene, x, y in table[["gene", "expression", "variance of states"]].itertuples(index=False):
        # A name that would lie on another is left out.
        here = np.array([x, y]) / np.maximum(span, 1e-12)
        if gene not in labelled or any((np.abs(here - there) < (0.16, 0.05)).all() for there in written):
            continue
        written.append(here)
        ax.annotate(labelled[gene], (x, y), xytext=(4, 3), textcoords="offset points", fontsize=7)
    ax.figure.colorbar(dots, ax=ax, label="log10 variance of expression", pad=0.02)
    ax.set(xlabel="mean expression (log2)", ylabel="variance of the gene's states")
    return ax
