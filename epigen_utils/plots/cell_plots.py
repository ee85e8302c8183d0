"""Plots of cells, corpora, encodings and pretraining; each draws on an axes and returns it."""

import itertools

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.patches import Patch, Rectangle
from matplotlib.ticker import MaxNLocator

from epigen_utils.plots import layout, style


def curation_flow(ax: Axes, table: pd.DataFrame) -> Axes:
    """Shares of each data set's cells that remain or that a curation step removes (`curation.filter_flow`)."""
    names = list(dict.fromkeys(table["dataset"]))
    remaining = table.groupby("dataset", sort=False)["left"].last()
    total = remaining + table.groupby("dataset", sort=False)["removed"].sum()
    shares = {"stays": (remaining / total)[names]}
    for step, part in table.groupby("step", sort=False):
        shares[step] = (part.set_index("dataset")["removed"] / total)[names]
    layout.stacked_bars(ax, names, shares, style.PALETTE, height=0.65)
    for y, name in enumerate(names):
        ax.text(1.01, y, f"{remaining[name]:,} of {total[name]:,} stay", va="center", fontsize=8)
    layout.percent(ax, "x")
    ax.set(xlim=(0, 1), xlabel="share of the data set's cells")
    layout.legend_above(ax, ncols=3, fontsize=8)
    return ax


def curation_pipeline(ax: Axes, steps: pd.DataFrame) -> Axes:
    """Curation pipeline from the top down with the cells of a run (`curation_checks.pipeline_steps`)."""
    box = {"boxstyle": "round,pad=0.5", "facecolor": "#d6e6f2", "edgecolor": style.PALETTE[2], "linewidth": 1.2}
    side = box | {"facecolor": "white", "edgecolor": style.MUTED}
    for y, row in enumerate(steps.itertuples()):
        middle = {"ha": "center", "va": "center", "fontsize": 9}
        ax.text(0.22, -y, f"{row.step}\n{row.cells:,.0f} cells", bbox=box, **middle)
        if y:
            ax.annotate("", (0.22, -y + 0.3), (0.22, -y + 0.7), arrowprops={"arrowstyle": "-|>", "color": style.MUTED})
        if np.isnan(row.removed):
            ax.text(0.46, -y, row.what, va="center", fontsize=8)
            continue
        ax.annotate("", (0.45, -y), (0.36, -y), arrowprops={"arrowstyle": "-|>", "color": style.HIGHLIGHT})
        ax.text(0.46, -y, f"{row.removed:,.0f} removed: {row.what}", va="center", fontsize=8, bbox=side)
    ax.set(xlim=(0, 1), ylim=(-len(steps) + 0.5, 0.5))
    ax.axis("off")
    return ax


def depth_and_mitochondria(ax: Axes, cells: pd.DataFrame, *, title: str) -> Axes:
    """Mitochondrial share against total counts of each cell, coloured by the removing step (`curation.curate`)."""
    colour = dict(zip(["", "metadata", "empty", "mitochondrial", "depth", "genes"], style.PALETTE, strict=False))
    for step, group in cells[cells["total"] > 0].groupby("removed", sort=True):
        dots = {"s": 8 if step else 4, "color": colour[step], "edgecolor": "none", "rasterized": True}
        label = f"{step or 'stays'} ({len(group):,})"
        ax.scatter(group["total"], group["mitochondrial"], label=label, **dots)
    layout.log_scale(ax, "x", form="{x:,.0f}")
    layout.percent(ax, "y")
    top = max(cells["mitochondrial"].max() * 1.05, 0.01)
    ax.set(ylim=(0, top), xlabel="counts in the cell", ylabel="mitochondrial share", title=title)
    ax.legend(fontsize=7, markerscale=2)
    return ax


def median_errors(ax: Axes, exact: pd.Series, approximate: pd.Series) -> Axes:
    """Relative error of approximate medians, in per cent, against the exact medians."""
    error = 100 * (approximate / exact - 1)
    ax.scatter(exact, error, s=5, color=style.MUTED, edgecolor="none", rasterized=True)
    ax.axhline(0, color="black", linewidth=0.8)
    layout.log_scale(ax, "x")
    ax.set(xlabel="exact non-zero median, counts per 10,000", ylabel="t-digest less exact (%)")
    return ax


def length_histogram(
    ax: Axes,
    lengths: np.ndarray,
    *,
    marks: dict[str, float],
    label: str = "genes in a cell",
    quantiles: dict[float, float] | None = None,
) -> Axes:
    """Histogram of cell lengths in tokens, with named lengths marked.

    Parameters
    ----------
    quantiles
        Quantile -> length of published lengths, drawn as an outline: as many cells between two lengths as there should
        be of all.
    """
    bins = np.histogram_bin_edges(lengths, 50)
    ax.hist(lengths, bins=bins, color=style.PALETTE[2], edgecolor="white", linewidth=0.3, label="this run")
    if quantiles:
        shares, ends = np.diff(sorted(quantiles)), np.array([quantiles[share] for share in sorted(quantiles)])
        heights = shares * len(lengths) * (bins[1] - bins[0]) / np.diff(ends)
        ax.stairs(heights, ends, color="black", linewidth=1.4, label="Genecorpus-30M, from its quartiles")
        ax.legend(fontsize=7, loc="center right")
    top = ax.get_ylim()[1]
    for i, (name, length) in enumerate(marks.items()):
        ax.axvline(length, color=style.HIGHLIGHT, linewidth=1.2, linestyle="--")
        side, offset = ("right", -4) if length > 0.7 * ax.get_xlim()[1] else ("left", 4)
        point = (length, top * (0.97 - 0.09 * i))
        text = {"xytext": (offset, 0), "textcoords": "offset points", "ha": side, "va": "top", "fontsize": 8}
        ax.annotate(f"{name} {length:,.0f}", point, **text)
    ax.set(xlabel=label, ylabel="cells")
    return ax


def cumulative_lengths(ax: Axes, lengths: np.ndarray, quantiles: dict[float, float]) -> Axes:
    """Share of the cells up to each length, and published quantiles as points."""
    ordered = np.sort(lengths)
    ax.plot(ordered, np.arange(1, len(ordered) + 1) / len(ordered), color=style.PALETTE[2], label="this run")
    for share, length in quantiles.items():
        ax.annotate(f"{length:,.0f}", (length, share), xytext=(6, -9), textcoords="offset points", fontsize=7)
    published = {"color": "black", "label": "Genecorpus-30M, published"}
    ax.plot(list(quantiles.values()), list(quantiles), "D", markersize=5, **published)
    layout.log_scale(ax, "x", form="{x:,.0f}")
    layout.percent(ax, "y")
    ax.set(ylim=(-0.02, 1.04), xlabel="tokens of a cell", ylabel="cumulative share of cells")
    ax.legend(fontsize=8, loc="upper left")
    return ax


#: Kind of position (`masked_genes.KINDS`, and those not selected) -> colour.
MASK_COLOURS = {
    "context": "#e8eaed",
    "hidden": style.PALETTE[2],
    "replaced": style.PALETTE[1],
    "unchanged": style.PALETTE[3],
}


def masked_cell(ax: Axes, table: pd.DataFrame, *, columns: int = 8, rows: int = 6) -> Axes:
    """First genes of a masked cell as the model sees them, in reading order, and all its positions as a strip below.

    Parameters
    ----------
    table
        Columns ``kind``, ``text`` (what the position shows) and ``symbol`` (the gene that stands there), by rank.
    """
    for i, row in enumerate(table.head(rows * columns).itertuples()):
        x, y = i % columns, -(i // columns)
        ax.add_patch(Rectangle((x, y), 0.94, 0.86, color=MASK_COLOURS[row.kind], linewidth=0))
        colour = "black" if row.kind == "context" else "white"
        middle = {"ha": "center", "va": "center", "color": colour}
        ax.text(x + 0.47, y + (0.43 if row.text == row.symbol else 0.58), row.text, fontsize=7, **middle)
        if row.text != row.symbol:
            ax.text(x + 0.47, y + 0.26, f"({row.symbol})", fontsize=6, **middle)
    width = columns / len(table)
    for i, kind in enumerate(table["kind"]):
        ax.add_patch(Rectangle((i * width, -rows - 0.2), width, 0.5, color=MASK_COLOURS[kind], linewidth=0))
    ax.text(0, -rows - 0.3, f"all {len(table):,} positions, the first on the left", va="top", fontsize=8)
    counts = table["kind"].value_counts()
    names = {"context": "not selected"}
    handles = [
        Patch(color=colour, label=f"{names.get(kind, kind)} ({counts.get(kind, 0):,})")
        for kind, colour in MASK_COLOURS.items()
    ]
    layout.legend_above(ax, handles=handles, ncols=4, fontsize=8)
    ax.set(xlim=(0, columns), ylim=(-rows - 0.8, 1))
    ax.axis("off")
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
        layout.error_bars(ax, aucs, "mean", y, colour=colour, marker="os"[shift], label=name)
    ax.axvline(0.5, **style.THIN)
    layout.rows(ax, classes, margin=0.6)
    ax.set(xlim=(0, 1), xlabel="probability of ranking before another gene (AUC)")
    layout.legend_above(ax, ncols=2)
    return ax


def thinning_curves(ax: Axes, table: pd.DataFrame) -> Axes:
    """Agreement of thinned with full encodings against the share of counts kept: medians and quartiles over cells."""
    names = {"kept": "genes still detected", "top": "first genes still first", "spearman": "Spearman of the ranks"}
    for column, name, colour, marker in style.series(names.items()):
        quartiles = table.groupby("share")[column].quantile([0.25, 0.5, 0.75]).unstack()
        ax.fill_between(quartiles.index, quartiles[0.25], quartiles[0.75], color=colour, alpha=0.15, linewidth=0)
        ax.plot(quartiles.index, quartiles[0.5], color=colour, marker=marker, label=name)
    ax.set_xscale("log")
    ax.set_xticks(sorted(table["share"].unique()))
    layout.percent(ax, "x")
    ax.xaxis.set_minor_formatter("")
    ax.set(ylim=(0, 1.02), xlabel="share of the counts kept", ylabel="of the full encoding")
    ax.legend(fontsize=8)
    return ax


def pretraining_loss(ax: Axes, history: pd.DataFrame, baseline_losses: dict[str, float]) -> Axes:
    """Held-out and training loss against tokens seen; losses of baselines that ignore the input as lines."""
    history = history.assign(tokens=history["tokens"] / 1e6)
    ax.plot("tokens", "loss", data=history, color=style.PALETTE[2], marker="o", markersize=3, label="held out")
    trained = history[history["train_loss"] > 0]
    label = "training, mean since the last point"
    ax.plot("tokens", "train_loss", data=trained, color=style.PALETTE[6], label=label)
    dashes = itertools.cycle(("--", "-.", ":", (0, (1, 3)), (0, (5, 1, 1, 1, 1, 1)), "-"))
    for (name, loss), dash in zip(baseline_losses.items(), dashes, strict=False):
        ax.axhline(loss, color=style.HIGHLIGHT, linestyle=dash, linewidth=1.2, label=name)
    ax.set(xlabel="tokens seen (millions)", ylabel="loss (nats per masked gene)")
    layout.legend_above(ax, fontsize=7, ncols=3)
    return ax


def mean_by_rank(ax: Axes, predictions: dict[str, pd.DataFrame], *, value: str, label: str) -> Axes:
    """Mean of a column of predictions by the masked gene's rank in its cell, one line per model."""
    edges = np.r_[0, 2 ** np.arange(2, 12)]
    for name, table, colour, marker in style.series(predictions.items()):
        bins = np.searchsorted(edges, table["rank"], side="right") - 1
        mean = table.groupby(bins)[value].mean()
        ax.plot(edges[mean.index] + 1, mean, color=colour, marker=marker, markersize=4, label=name)
    layout.log_scale(ax, "x", form="{x:,.0f}", base=2)
    ax.set(xlabel="rank of the masked gene in its cell", ylabel=label)
    ax.legend(fontsize=7)
    return ax


def values_by_donor(ax: Axes, table: pd.DataFrame, value: str, *, label: str) -> Axes:
    """A metric of each model by donor (`masked_genes.metrics_by_donor`).

    A point a donor, those of one donor joined; of more donors than there are colours, medians and quartiles.
    """
    models = list(dict.fromkeys(table["model"]))
    donors = list(table.groupby("donor", sort=True))
    if len(donors) < len(style.PALETTE):
        for donor, points, colour, marker in style.series(donors):
            y = points["model"].map(models.index)
            ax.plot(points[value], y, marker=marker, color=colour, linewidth=0.8, markersize=6, label=str(donor))
        ax.legend(fontsize=7, title="held-out donor", title_fontsize=7)
    else:
        quartiles = table.groupby("model")[value].quantile([0.25, 0.5, 0.75]).unstack().loc[models]
        ends, name = (0.25, 0.75), f"median and quartiles of {len(donors)} donors"
        layout.intervals(ax, quartiles, 0.5, ends=ends, label=name)
        ax.legend(fontsize=7)
    layout.rows(ax, models, margin=0.5, fontsize=8)
    if table[value].max() <= 1:
        layout.percent(ax, "x")
    ax.set_xlabel(label)
    return ax


def throughput_bars(ax: Axes, table: pd.DataFrame) -> Axes:
    """Real tokens per second of each variant of a training step, with its speed-up over the plain variant."""
    layout.noted_bars(ax, table["step"], table["tokens a second"], table["times"].map(" {:.1f} x".format))
    ax.xaxis.set_major_formatter("{x:,.0f}")
    ax.set_xlabel("tokens a second, without padding")
    return ax


def mean_by_layer(ax: Axes, tables: dict[str, pd.DataFrame], *, value: str, label: str) -> Axes:
    """Mean over cells of a column for each head, by layer; one colour per model, the mean over heads as a line."""
    for name, table, colour, marker in style.series(tables.items(), (style.PALETTE[2], style.PALETTE[0])):
        heads = table.groupby(["layer", "head"])[value].mean()
        ax.scatter(heads.index.get_level_values("layer"), heads, color=colour, marker=marker, s=18, alpha=0.7)
        ax.plot(heads.groupby("layer").mean(), color=colour, marker=marker, label=name)
    ax.axhline(1, **style.THIN)
    ax.xaxis.set_major_locator(MaxNLocator(integer=True))
    ax.set(ylim=(0, None), xlabel="layer", ylabel=label)
    ax.legend(fontsize=8)
    return ax


def head_preferences(ax: Axes, table: pd.DataFrame, *, alpha: float, against: str = "genes of similar rank") -> Axes:
    """Log ratio of each head's attention to a gene class over other genes; filled if padj < ``alpha``."""
    groups = list(table.groupby(["class", "model"], sort=False))
    for y, ((_kind, model), heads) in enumerate(groups):
        colour = style.PALETTE[2] if model != "fresh weights" else style.PALETTE[0]
        called = heads["padj"] < alpha
        spread = np.linspace(-0.25, 0.25, len(heads))
        for subset, fill in ((called, colour), (~called, "none")):
            ax.scatter(heads["difference"][subset], y + spread[subset], facecolor=fill, edgecolor=colour, s=26)
    ax.axvline(0, **style.THIN)
    layout.rows(ax, [f"{kind}, {model}" for (kind, model), _ in groups], margin=0.5)
    ax.set_xlabel(f"log ratio to attention on {against}")
    return ax


def edge_aucs(ax: Axes, table: pd.DataFrame, *, baseline: float) -> Axes:
    """AUC of each head for planted links, by layer; one colour per model, the baseline as a dashed line."""
    models = table.groupby("model", sort=False)
    for name, heads, colour, marker in style.series(models, (style.PALETTE[2], style.PALETTE[0])):
        shift = 0.08 * (-1 if marker == "o" else 1)
        ax.scatter(heads["layer"] + shift, heads["auc"], color=colour, marker=marker, label=name)
    ax.axhline(0.5, **style.THIN)
    ax.axhline(baseline, color=style.HIGHLIGHT, linestyle="--", label="correlation of expression")
    ax.xaxis.set_major_locator(MaxNLocator(integer=True))
    ax.set(xlabel="layer", ylabel="AUC of planted links")
    ax.legend(fontsize=8)
    return ax


def cell_composition(ax: Axes, table: pd.DataFrame) -> Axes:
    """Shares of cells of each kind (rows) in each data set (columns), as stacked bars."""
    colours = style.PALETTE if len(table) <= len(style.PALETTE) else plt.get_cmap("tab20").colors
    shares = {str(kind): cells / table.sum() for kind, cells in table.iterrows()}
    layout.stacked_bars(ax, table.columns, shares, itertools.cycle(colours), edgecolor="white")
    layout.percent(ax, "x")
    ax.set(xlim=(0, 1), xlabel="share of the cells")
    ax.legend(ncols=2, loc="upper left", bbox_to_anchor=(0, -0.3), fontsize=8)
    return ax
