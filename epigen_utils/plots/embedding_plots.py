"""Plots of embeddings of samples and genes; each draws on an axes and returns it."""

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.lines import Line2D
from matplotlib.ticker import MaxNLocator

from epigen_utils.plots import layout, style


def small_projection(ax: Axes, points: pd.DataFrame, labels: pd.Series, *, title: str = "") -> Axes:
    """Samples in two dimensions without ticks, for many small panels: only neighbourhoods can be read off."""
    for _level, members, look in layout.groups(labels):
        ax.scatter(*points[members].to_numpy().T, s=22, edgecolor="white", linewidth=0.4, **look)
    ax.set(xticks=[], yticks=[])
    ax.set_xlabel(points.columns[0], fontsize=7)
    ax.set_ylabel(points.columns[1], fontsize=7)
    ax.set_title(title, fontsize=8)
    ax.margins(0.1)
    return ax


def marker_legend(ax: Axes, labels: pd.Series) -> Axes:
    """Legend of the classes above an axes, for many panels that share them."""
    handles = [Line2D([], [], linestyle="", label=level, **look) for level, _, look in layout.groups(labels)]
    legend_position = {"loc": "lower left", "bbox_to_anchor": (-0.05, 1.12), "borderpad": 0}
    ax.legend(handles=handles, fontsize=8, ncols=len(handles), **legend_position)
    return ax


def silhouette_by_representation(ax: Axes, table: pd.DataFrame) -> Axes:
    """Silhouette of the classes in PC1 and PC2, with p, by representation (`representations.class_separation`)."""
    ax.axvline(0, color=style.MUTED, linewidth=1)
    for y, (value, p) in enumerate(zip(table["silhouette"], table["p"], strict=True)):
        ax.hlines(y, 0, value, color=style.PALETTE[2], linewidth=2)
        ax.plot(value, y, "o", color=style.HIGHLIGHT if p < 0.05 else style.PALETTE[2], markersize=7)
        ax.text(1.04, y, "trained on its classes" if np.isnan(p) else f"p = {p:.2g}", va="center", fontsize=8)
    layout.rows(ax, table["representation"])
    ax.set(xlim=(-0.5, 1.0), xlabel="silhouette in the plane of PC1 and PC2")
    return ax


def variance_against_noise(ax: Axes, table: pd.DataFrame) -> Axes:
    """Variance share of PC1 and PC2, and that of noise of the same shape (`representations.class_separation`)."""
    y = np.arange(len(table))
    ax.barh(y, table["PC1 + PC2"], color=style.PALETTE[2], height=0.6, label="PC1 and PC2")
    ax.plot(table["noise"], y, "|", color=style.HIGHLIGHT, markersize=16, markeredgewidth=2.5, label="noise alone")
    ax.axvline(0.65, color=style.PALETTE[3], linestyle=":", linewidth=1.5, label="paper A, 65%")
    layout.rows(ax, table["representation"])
    ax.xaxis.set_major_formatter("{x:.0%}")
    ax.set(xlim=(0, 1), xlabel="share of the variance")
    layout.legend_above(ax, x=0.4, ncols=3, fontsize=7)
    return ax


def training_trajectories(ax: Axes, table: pd.DataFrame, *, part: str) -> Axes:
    """Trajectories of samples over training, from the open marker to the filled one; the limits span both parts.

    Parameters
    ----------
    table
        Columns ``part``, ``class``, ``sample``, ``epochs``, ``PC1`` and ``PC2``
        (`representations.training_trajectory`).
    """
    pc1, pc2 = table["PC1"], table["PC2"]
    table = table[table["part"] == part]
    colours = style.colours(layout.group_order(table["class"]))
    for _sample, path in table.groupby("sample", sort=False):
        path = path.sort_values("epochs")
        ax.plot(path["PC1"], path["PC2"], color=colours[path["class"].iloc[0]], alpha=0.35, linewidth=0.8)
    for level, members, look in layout.groups(table["class"]):
        epochs = table["epochs"][members]
        first, last = (table[members & (table["epochs"] == end)] for end in (epochs.min(), epochs.max()))
        hollow = {"facecolor": "none", "edgecolor": look["color"], "marker": look["marker"]}
        ax.scatter(first["PC1"], first["PC2"], s=18, **hollow)
        ax.scatter(last["PC1"], last["PC2"], s=18, label=level, **look)
    ax.set(xlabel="PC1 of all times", ylabel="PC2 of all times")
    for set_limits, values in ((ax.set_xlim, pc1), (ax.set_ylim, pc2)):
        pad = 0.06 * np.ptp(values)
        set_limits(values.min() - pad, values.max() + pad)
    ax.set_title(f"samples: {part}", fontsize=9)
    return ax


def silhouette_over_epochs(ax: Axes, table: pd.DataFrame) -> Axes:
    """Silhouette of the classes over training, for training samples and for held-out samples."""
    layout.lines(ax, table.groupby("part", sort=False), "epochs", "silhouette", markersize=6)
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
    look = {"cmap": "viridis", "s": 26, "edgecolor": "white", "linewidth": 0.3}
    dots = ax.scatter(table["expression"], table["variance of states"], c=shade, **look)
    points = table[["expression", "variance of states"]].to_numpy()
    span = np.maximum(np.ptp(points, axis=0), 1e-12)
    named = table["gene"].isin(list(names)).to_numpy()
    written = [names[gene] for gene in table["gene"][named]]
    layout.name_points(ax, points[named], written, span=span, gap=(0.16, 0.05), offset=(4, 3))
    ax.figure.colorbar(dots, ax=ax, label="log10 variance of expression", pad=0.02)
    ax.set(xlabel="mean expression (log2)", ylabel="variance of the gene's states")
    return ax


def projection(
    ax: Axes, points: pd.DataFrame, labels: pd.Series, *, shares: np.ndarray | None = None, title: str = ""
) -> Axes:
    """Samples in two dimensions, coloured and marked by group; ``shares`` are the axes' shares of the variance."""
    for level, members, look in layout.groups(labels):
        x, y = points[members].to_numpy().T[:2]
        ax.scatter(x, y, s=46, edgecolor="white", label=f"{level} (n = {len(x)})", **look)
    for set_label, name, i in ((ax.set_xlabel, points.columns[0], 0), (ax.set_ylabel, points.columns[1], 1)):
        set_label(name if shares is None else f"{name} ({shares[i]:.1%} of variance)")
    ax.set_title(title)
    ax.margins(0.12)
    for axis in (ax.xaxis, ax.yaxis):
        axis.set_major_locator(MaxNLocator(5))
        axis.set_major_formatter(layout.short_number)
    return ax


def values_in_plane(ax: Axes, points: pd.DataFrame, values: pd.Series, *, label: str) -> Axes:
    """Cells in two dimensions, coloured by a value; ``label`` names it at the colour bar."""
    dots = ax.scatter(*points.to_numpy().T[:2], c=values, s=8, cmap="viridis", edgecolor="none", rasterized=True)
    ax.figure.colorbar(dots, ax=ax, label=label, pad=0.02)
    ax.set(xlabel=points.columns[0], ylabel=points.columns[1])
    return ax


def values_by_label(ax: Axes, values: pd.Series, labels: pd.Series, groups: pd.Series, *, xlabel: str) -> Axes:
    """A value of each cell by label, a row a label with its median, coloured by the group that the label is of."""
    names = sorted(set(labels.astype(str)))
    spread = np.random.default_rng(0).uniform(-0.3, 0.3, len(values))
    row = labels.astype(str).map({name: place for place, name in enumerate(names)}).to_numpy()
    for level, members, look in layout.groups(groups):
        ax.scatter(
            values[members], row[members] + spread[members], s=7, alpha=0.6, label=level, rasterized=True, **look
        )
    medians = values.groupby(row).median()
    ax.vlines(medians, medians.index - 0.36, medians.index + 0.36, color="black", linewidth=2)
    layout.rows(ax, [f"{name} (n = {(row == place).sum()})" for place, name in enumerate(names)], margin=0.6)
    ax.set_xlabel(xlabel)
    layout.legend_above(ax, ncols=4, fontsize=8, markerscale=2)
    return ax


def order_aucs(ax: Axes, table: pd.DataFrame) -> Axes:
    """AUC of each order of cells for the later time, with its interval (`trajectories.agreement_with_labels`)."""
    layout.intervals(ax, table, "auc", ends=("auc low", "auc high"), markersize=7)
    ax.axvline(0.5, **style.THIN)
    layout.rows(ax, table["order"], margin=0.6)
    ax.set(xlim=(0, 1.02), xlabel="probability that a late cell comes after an early one (AUC)")
    return ax


def marker_correlations(ax: Axes, table: pd.DataFrame, *, title: str) -> Axes:
    """Correlation of markers with each order of cells, with intervals (`trajectories.markers_along`, of one time)."""
    genes = list(dict.fromkeys(table["gene"]))
    orders = table.groupby("order", sort=False)
    palette = (style.PALETTE[2], style.PALETTE[1], style.PALETTE[0])
    for shift, (name, part, colour, marker) in enumerate(style.series(orders, palette)):
        rows = part.set_index("gene").reindex(genes)
        at = np.arange(len(genes)) + 0.24 * (shift - (len(orders) - 1) / 2)
        ends = ("spearman low", "spearman high")
        options = {"colour": colour, "marker": marker, "linewidth": 1.2, "markersize": 4, "label": name}
        layout.intervals(ax, rows, "spearman", ends=ends, at=at, **options)
    ax.axvline(0, **style.THIN)
    expected = table.drop_duplicates("gene").set_index("gene")["expected"]
    layout.rows(ax, [f"{gene} ({expected[gene]})" for gene in genes], margin=0.7, fontsize=8)
    ax.set(xlim=(-1, 1), xlabel="Spearman correlation", title=title)
    return ax


def curves_along(ax: Axes, table: pd.DataFrame, *, title: str) -> Axes:
    """Mean expression of genes along an order of cells, with intervals (`trajectories.expression_along`)."""
    for name, part, colour, marker in style.series(table.groupby("gene", sort=False)):
        ax.fill_between(part["pseudotime"], part["low"], part["high"], color=colour, alpha=0.15, linewidth=0)
        ax.plot(part["pseudotime"], part["mean"], color=colour, marker=marker, markersize=4, label=name)
    ax.set(xlabel="pseudo-time", ylabel="log(1 + counts per 10,000)", title=title)
    ax.legend(fontsize=7, ncols=2)
    return ax
