"""Plots of cells, corpora, encodings and pretraining; each draws on an axes and returns it."""

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.ticker import MaxNLocator, PercentFormatter

from epigen_utils.plots import style


def curation_flow(ax: Axes, table: pd.DataFrame) -> Axes:
    """Shares of each data set's cells that remain or that a curation step removes (`curation.filter_flow`)."""
    names = list(dict.fromkeys(table["dataset"]))
    remaining = table.groupby("dataset", sort=False)["left"].last()
    total = remaining + table.groupby("dataset", sort=False)["removed"].sum()
    left = np.zeros(len(names))
    parts = {"stays": remaining} | {
        step: part.set_index("dataset")["removed"] for step, part in table.groupby("step", sort=False)
    }
    for (step, cells), colour in zip(parts.items(), style.PALETTE, strict=False):
        share = (cells / total)[names].to_numpy()
        ax.barh(names, share, left=left, color=colour, height=0.65, label=step)
        left += share
    for y, name in enumerate(names):
        ax.text(1.01, y, f"{remaining[name]:,} of {total[name]:,} stay", va="center", fontsize=8)
    ax.set_xlim(0, 1)
    ax.xaxis.set_major_formatter(PercentFormatter(1))
    ax.invert_yaxis()
    ax.set_xlabel("share of the data set's cells")
    ax.legend(ncols=3, loc="lower center", bbox_to_anchor=(0.5, 1.0), fontsize=8)
    return ax


def depth_and_mitochondria(ax: Axes, cells: pd.DataFrame, *, title: str) -> Axes:
    """Mitochondrial share against total counts of each cell, coloured by the removing step (`curation.curate`)."""
    colour = dict(zip(["", "metadata", "empty", "mitochondrial", "depth", "genes"], style.PALETTE, strict=False))
    for step, group in cells[cells["total"] > 0].groupby("removed", sort=True):
        ax.scatter(
            group["total"],
            group["mitochondrial"],
            s=8 if step else 4,
            color=colour[step],
            edgecolor="none",
            label=f"{step or 'stays'} ({len(group):,})",
            rasterized=True,
        )
    ax.set_xscale("log")
    ax.xaxis.set_major_formatter("{x:,.0f}")
    ax.yaxis.set_major_formatter(PercentFormatter(1))
    ax.set_ylim(0, max(cells["mitochondrial"].max() * 1.05, 0.01))
    ax.set_xlabel("counts in the cell")
    ax.set_ylabel("mitochondrial share")
    ax.set_title(title)
    ax.legend(fontsize=7, markerscale=2)
    return ax


def median_errors(ax: Axes, exact: pd.Series, approximate: pd.Series) -> Axes:
    """Relative error of approximate medians, in per cent, against the exact medians."""
    error = 100 * (approximate / exact - 1)
    ax.scatter(exact, error, s=5, color=style.MUTED, edgecolor="none", rasterized=True)
    ax.axhline(0, color="black", linewidth=0.8)
    ax.set_xscale("log")
    ax.xaxis.set_major_formatter("{x:,g}")
    ax.set_xlabel("exact non-zero median, counts in 10,000")
    ax.set_ylabel("t-digest less exact (%)")
    return ax


def length_histogram(ax: Axes, lengths: np.ndarray, *, marks: dict[str, float], label: str = "genes in a cell") -> Axes:
    """Histogram of cell lengths in tokens, with named lengths marked."""
    ax.hist(lengths, bins=50, color=style.PALETTE[2], edgecolor="white", linewidth=0.3)
    top = ax.get_ylim()[1]
    for i, (name, length) in enumerate(marks.items()):
        ax.axvline(length, color=style.HIGHLIGHT, linewidth=1.2, linestyle="--")
        right = length > 0.7 * ax.get_xlim()[1]
        ax.annotate(
            f"{name} {length:,.0f}",
            (length, top * (0.97 - 0.09 * i)),
            xytext=(-4 if right else 4, 0),
            textcoords="offset points",
            ha="right" if right else "left",
            va="top",
            fontsize=8,
        )
    ax.set_xlabel(label)
    ax.set_ylabel("cells")
    return ax


def class_aucs_by_encoding(ax: Axes, table: pd.DataFrame) -> Axes:
    """AUC of each class of genes by encoding, with intervals; above one half, the class ranks before other genes.

    Parameters
    ----------
    table
        ``class``, ``encoding``, ``mean``, ``low``, ``high``.
    """
    classes = list(dict.fromkeys(table["class"]))
    encodings = list(dict.fromkeys(table["encoding"]))
    for shift, (name, colour) in enumerate(zip(encodings, (style.PALETTE[2], style.HIGHLIGHT), strict=False)):
        aucs = table[table["encoding"] == name].set_index("class").reindex(classes)
        y = np.arange(len(classes)) + 0.24 * (shift - (len(encodings) - 1) / 2)
        error = [(aucs["mean"] - aucs["low"]).to_numpy(), (aucs["high"] - aucs["mean"]).to_numpy()]
        ax.errorbar(aucs["mean"].to_numpy(), y, xerr=error, fmt="os"[shift], color=colour, label=name, markersize=5)
    ax.axvline(0.5, color=style.MUTED, linewidth=0.8)
    ax.set_yticks(range(len(classes)), classes)
    ax.set_ylim(len(classes) - 0.4, -0.6)
    ax.set_xlim(0, 1)
    ax.set_xlabel("probability of standing before another gene (AUC)")
    ax.legend(loc="lower center", bbox_to_anchor=(0.5, 1.0), ncols=2)
    return ax


def thinning_curves(ax: Axes, table: pd.DataFrame) -> Axes:
    """Agreement of thinned with full encodings against the share of counts kept: medians and quartiles over cells."""
    names = {"kept": "genes still detected", "top": "first genes still first", "spearman": "Spearman of the ranks"}
    for (column, name), colour, marker in zip(names.items(), style.PALETTE[1:], style.MARKERS, strict=False):
        quartiles = table.groupby("share")[column].quantile([0.25, 0.5, 0.75]).unstack()
        ax.fill_between(quartiles.index, quartiles[0.25], quartiles[0.75], color=colour, alpha=0.15, linewidth=0)
        ax.plot(quartiles.index, quartiles[0.5], color=colour, marker=marker, label=name)
    ax.set_xscale("log")
    ax.set_xticks(sorted(table["share"].unique()))
    ax.xaxis.set_major_formatter(PercentFormatter(1))
    ax.xaxis.set_minor_formatter("")
    ax.set_ylim(0, 1.02)
    ax.set_xlabel("share of the counts that is kept")
    ax.set_ylabel("of the full encoding")
    ax.legend(fontsize=8)
    return ax


def pretraining_loss(ax: Axes, history: pd.DataFrame, baseline_losses: dict[str, float]) -> Axes:
    """Held-out and training loss against tokens seen; losses of baselines that ignore the input as lines."""
    ax.plot(
        history["tokens"] / 1e6, history["loss"], color=style.PALETTE[2], marker="o", markersize=3, label="held out"
    )
    trained = history[history["train_loss"] > 0]
    ax.plot(
        trained["tokens"] / 1e6,
        trained["train_loss"],
        color=style.PALETTE[6],
        label="training, mean since the last point",
    )
    for (name, loss), dash in zip(baseline_losses.items(), ("--", "-.", ":", (0, (1, 3))), strict=False):
        ax.axhline(loss, color=style.HIGHLIGHT, linestyle=dash, linewidth=1.2, label=name)
    ax.set_xlabel("tokens seen (millions)")
    ax.set_ylabel("loss (nats a masked gene)")
    ax.legend(fontsize=7)
    return ax


def mean_by_rank(ax: Axes, predictions: dict[str, pd.DataFrame], *, value: str, label: str) -> Axes:
    """Mean of a column of predictions by the masked gene's rank in its cell, one line per model."""
    for (name, table), colour, marker in zip(predictions.items(), style.PALETTE[1:], style.MARKERS, strict=False):
        edges = np.unique(np.r_[0, 2 ** np.arange(2, 12)])
        bins = np.searchsorted(edges, table["rank"], side="right") - 1
        mean = table.groupby(bins)[value].mean()
        ax.plot(edges[mean.index] + 1, mean, color=colour, marker=marker, markersize=4, label=name)
    ax.set_xscale("log", base=2)
    ax.xaxis.set_major_formatter("{x:,.0f}")
    ax.set_xlabel("rank of the masked gene in its cell")
    ax.set_ylabel(label)
    ax.legend(fontsize=7)
    return ax


def throughput_bars(ax: Axes, table: pd.DataFrame) -> Axes:
    """Real tokens per second of each variant of a training step, with its speed-up over the plain variant."""
    ax.barh(table["step"], table["tokens a second"], color=style.PALETTE[2], height=0.65)
    for y, (rate, times) in enumerate(zip(table["tokens a second"], table["times"], strict=True)):
        ax.text(rate, y, f" {times:.1f} x", va="center", fontsize=8)
    ax.set_xlim(0, table["tokens a second"].max() * 1.15)
    ax.xaxis.set_major_formatter("{x:,.0f}")
    ax.invert_yaxis()
    ax.set_xlabel("real tokens a second")
    return ax


def mean_by_layer(ax: Axes, tables: dict[str, pd.DataFrame], *, value: str, label: str) -> Axes:
    """Mean over cells of a column for each head, by layer; one colour per model, the mean over heads as a line."""
    for (name, table), colour, marker in zip(tables.items(), (style.PALETTE[2], style.PALETTE[0]), "os", strict=False):
        heads = table.groupby(["layer", "head"])[value].mean()
        ax.scatter(heads.index.get_level_values("layer"), heads, color=colour, marker=marker, s=18, alpha=0.7)
        ax.plot(heads.groupby("layer").mean(), color=colour, marker=marker, label=name)
    ax.axhline(1, color=style.MUTED, linewidth=0.8)
    ax.xaxis.set_major_locator(MaxNLocator(integer=True))
    ax.set_ylim(bottom=0)
    ax.set_xlabel("layer")
    ax.set_ylabel(label)
    ax.legend(fontsize=8)
    return ax


def head_preferences(ax: Axes, table: pd.DataFrame, *, alpha: float) -> Axes:
    """Log ratio of each head's attention to a gene class over genes of like rank; filled if padj < ``alpha``."""
    groups = list(table.groupby(["class", "model"], sort=False))
    for y, ((_kind, model), heads) in enumerate(groups):
        colour = style.PALETTE[2] if model != "fresh weights" else style.PALETTE[0]
        called = heads["padj"] < alpha
        spread = np.linspace(-0.25, 0.25, len(heads))
        for subset, fill in ((called, colour), (~called, "none")):
            ax.scatter(heads["difference"][subset], y + spread[subset], facecolor=fill, edgecolor=colour, s=26)
    ax.axvline(0, color=style.MUTED, linewidth=0.8)
    ax.set_yticks(range(len(groups)), [f"{kind}, {model}" for (kind, model), _ in groups])
    ax.set_ylim(len(groups) - 0.5, -0.5)
    ax.set_xlabel("log attention over that to genes of like rank")
    return ax


def edge_aucs(ax: Axes, table: pd.DataFrame, *, baseline: float) -> Axes:
    """AUC of each head for planted links, by layer; one colour per model, the baseline as a dashed line."""
    for (name, heads), colour, marker in zip(
        table.groupby("model", sort=False), (style.PALETTE[2], style.PALETTE[0]), "os", strict=False
    ):
        shift = 0.08 * (-1 if marker == "o" else 1)
        ax.scatter(heads["layer"] + shift, heads["auc"], color=colour, marker=marker, label=name)
    ax.axhline(0.5, color=style.MUTED, linewidth=0.8)
    ax.axhline(baseline, color=style.HIGHLIGHT, linestyle="--", label="correlation of expression")
    ax.xaxis.set_major_locator(MaxNLocator(integer=True))
    ax.set_xlabel("layer")
    ax.set_ylabel("AUC of planted links")
    ax.legend(fontsize=8)
    return ax


def cell_composition(ax: Axes, table: pd.DataFrame) -> Axes:
    """Shares of cells of each kind (rows) in each data set (columns), as stacked bars."""
    left = np.zeros(table.shape[1])
    colours = style.PALETTE if len(table) <= len(style.PALETTE) else plt.get_cmap("tab20").colors
    for i, (kind, cells) in enumerate(table.iterrows()):
        share = (cells / table.sum()).to_numpy()
        ax.barh(
            list(table.columns),
            share,
            left=left,
            color=colours[i % len(colours)],
            label=str(kind),
            edgecolor="white",
        )
        left += share
    ax.xaxis.set_major_formatter(PercentFormatter(1))
    ax.set_xlim(0, 1)
    ax.invert_yaxis()
    ax.set_xlabel("share of the cells")
    ax.legend(ncols=2, loc="upper left", bbox_to_anchor=(0, -0.3), fontsize=8)
    return ax
