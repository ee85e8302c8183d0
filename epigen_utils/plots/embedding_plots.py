"""Plots of embeddings of samples and genes; each draws on an axes and returns it."""

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.lines import Line2D
from matplotlib.ticker import MaxNLocator

from epigen_utils.plots import layout, style


def small_projection(ax: Axes, points: pd.DataFrame, labels: pd.Series, *, title: str = "") -> Axes:
    """Samples in two dimensions without ticks, for many small panels: only neighbourhoods can be read off."""
    levels = layout.group_order(labels)
    colour, marker = style.colours(levels), style.markers(levels)
    for level in levels:
        members = points[(labels == level).to_numpy()].to_numpy()
        ax.scatter(*members.T, color=colour[level], marker=marker[level], s=22, edgecolor="white", linewidth=0.4)
    ax.set(xticks=[], yticks=[])
    ax.set_xlabel(points.columns[0], fontsize=7)
    ax.set_ylabel(points.columns[1], fontsize=7)
    ax.set_title(title, fontsize=8)
    ax.margins(0.1)
    return ax


def marker_legend(ax: Axes, labels: pd.Series) -> Axes:
    """Legend of the classes above an axes, for many panels that share them."""
    levels = layout.group_order(labels)
    colour, marker = style.colours(levels), style.markers(levels)
    handles = [Line2D([], [], linestyle="", color=colour[level], marker=marker[level], label=level) for level in levels]
    ax.legend(
        handles=handles, fontsize=8, ncols=len(levels), loc="lower left", bbox_to_anchor=(-0.05, 1.12), borderpad=0
    )
    return ax


def silhouette_by_representation(ax: Axes, table: pd.DataFrame) -> Axes:
    """Silhouette of the classes in PC1 and PC2 with its p-value, by representation (`representations.class_separation`)."""
    ax.axvline(0, color=style.MUTED, linewidth=1)
    for y, (value, p) in enumerate(zip(table["silhouette"], table["p"], strict=True)):
        ax.hlines(y, 0, value, color=style.PALETTE[2], linewidth=2)
        ax.plot(value, y, "o", color=style.HIGHLIGHT if p < 0.05 else style.PALETTE[2], markersize=7)
        ax.text(1.04, y, "told its classes" if np.isnan(p) else f"p = {p:.2g}", va="center", fontsize=8)
    ax.set_yticks(range(len(table)), table["representation"])
    ax.invert_yaxis()
    ax.set(xlim=(-0.5, 1.0), xlabel="silhouette in the plane of PC1 and PC2")
    return ax


def variance_against_noise(ax: Axes, table: pd.DataFrame) -> Axes:
    """Variance share of PC1 and PC2, and that of noise of the same shape (`representations.class_separation`)."""
    y = np.arange(len(table))
    ax.barh(y, table["PC1 + PC2"], color=style.PALETTE[2], height=0.6, label="PC1 and PC2")
    ax.plot(table["noise"], y, "|", color=style.HIGHLIGHT, markersize=16, markeredgewidth=2.5, label="noise alone")
    ax.axvline(0.65, color=style.PALETTE[3], linestyle=":", linewidth=1.5, label="paper A, 65%")
    ax.set_yticks(y, table["representation"])
    ax.invert_yaxis()
    ax.xaxis.set_major_formatter(lambda share, _: f"{share:.0%}")
    ax.set(xlim=(0, 1), xlabel="share of the variance")
    ax.legend(loc="lower center", bbox_to_anchor=(0.4, 1.0), ncols=3, fontsize=7)
    return ax


def training_trajectories(ax: Axes, table: pd.DataFrame, *, part: str) -> Axes:
    """Trajectories of samples over training, from the open marker to the filled one; the limits span both parts.

    Parameters
    ----------
    table
        Columns ``part``, ``class``, ``sample``, ``epochs``, ``PC1`` and ``PC2`` (`representations.training_trajectory`).
    """
    pc1, pc2 = table["PC1"], table["PC2"]
    table = table[table["part"] == part]
    levels = layout.group_order(table["class"])
    colour, marker = style.colours(levels), style.markers(levels)
    for _sample, path in table.groupby("sample", sort=False):
        path = path.sort_values("epochs")
        shade = colour[path["class"].iloc[0]]
        ax.plot(path["PC1"], path["PC2"], color=shade, alpha=0.35, linewidth=0.8)
    for level in levels:
        members = table[table["class"] == level]
        first, last = (members[members["epochs"] == end] for end in (members["epochs"].min(), members["epochs"].max()))
        ax.scatter(first["PC1"], first["PC2"], facecolor="none", edgecolor=colour[level], marker=marker[level], s=18)
        ax.scatter(last["PC1"], last["PC2"], color=colour[level], marker=marker[level], s=18, label=level)
    ax.set(xlabel="PC1 of all times", ylabel="PC2 of all times")
    for set_limits, values in ((ax.set_xlim, pc1), (ax.set_ylim, pc2)):
        pad = 0.06 * np.ptp(values)
        set_limits(values.min() - pad, values.max() + pad)
    ax.set_title(f"samples: {part}", fontsize=9)
    return ax


def silhouette_over_epochs(ax: Axes, table: pd.DataFrame) -> Axes:
    """Silhouette of the classes over training, for training samples and for held-out samples."""
    for (part, samples), colour, marker in zip(
        table.groupby("part", sort=False), style.PALETTE[1:], style.MARKERS, strict=False
    ):
        ax.plot(samples["epochs"], samples["silhouette"], marker + "-", color=colour, label=part)
    ax.axhline(0, color=style.MUTED, linewidth=1)
    ax.set(xlabel="epochs of fine-tuning", ylabel="silhouette, all dimensions")
    ax.legend(fontsize=8)
    return ax


def gene_state_variance(ax: Axes, table: pd.DataFrame, *, names: dict[str, str]) -> Axes:
    """Variance of each gene's hidden states against its mean expression, coloured by the variance of its expression.

    Parameters
    ----------
    table
        Columns ``gene``, ``expression``, ``variance of states`` and ``variance of expression``
        (`sentence_states.gene_state_variances`).
    names
        Gene -> name written beside its point.
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
    points = table[["expression", "variance of states"]].to_numpy()
    span = np.maximum(np.ptp(points, axis=0), 1e-12)
    named = np.flatnonzero(table["gene"].isin(list(names)))
    for i in named[layout.spaced_labels(points[named] / span, gap=(0.16, 0.05))]:
        name = names[table["gene"].iat[i]]
        ax.annotate(name, points[i], xytext=(4, 3), textcoords="offset points", fontsize=7)
    ax.figure.colorbar(dots, ax=ax, label="log10 variance of expression", pad=0.02)
    ax.set(xlabel="mean expression (log2)", ylabel="variance of the gene's states")
    return ax


def projection(
    ax: Axes, points: pd.DataFrame, labels: pd.Series, *, shares: np.ndarray | None = None, title: str = ""
) -> Axes:
    """Samples in two dimensions, coloured and marked by group; ``shares`` are the axes' shares of the variance."""
    levels = layout.group_order(labels)
    colour, marker = style.colours(levels), style.markers(levels)
    for level in levels:
        members = points[(labels == level).to_numpy()]
        ax.scatter(
            *members.to_numpy().T[:2],
            color=colour[level],
            marker=marker[level],
            s=46,
            edgecolor="white",
            label=f"{level} (n = {len(members)})",
        )
    for set_label, name, i in ((ax.set_xlabel, points.columns[0], 0), (ax.set_ylabel, points.columns[1], 1)):
        set_label(name if shares is None else f"{name} ({shares[i]:.1%} of variance)")
    ax.set_title(title)
    ax.margins(0.12)
    for axis in (ax.xaxis, ax.yaxis):
        axis.set_major_locator(MaxNLocator(5))
        axis.set_major_formatter(layout.short_number)
    return ax
