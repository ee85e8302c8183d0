"""Figures. Each function takes an axes, draws on it and gives it back; `heatmap` needs a figure of its own."""

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import seaborn as sns
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Patch
from matplotlib.ticker import MaxNLocator
from scipy.cluster.hierarchy import linkage
from scipy.spatial.distance import pdist

from epigen_utils import expression, style

sns.set_theme(style="ticks")
style.use()


def _levels(labels: pd.Series) -> list[str]:
    """Groups in the order that colours are given: the reference first."""
    return list(labels.cat.categories) if hasattr(labels, "cat") else sorted(labels.unique())


def _short(value: float, _position: int) -> str:
    """Tick labels that fit: 250000 as 250k."""
    return f"{value / 1000:g}k" if abs(value) >= 10_000 else f"{value:g}"


def embedding(
    ax: Axes, points: pd.DataFrame, labels: pd.Series, *, shares: np.ndarray | None = None, title: str = ""
) -> Axes:
    """Samples in two dimensions, coloured and marked by group; ``shares`` are the variances that the axes explain."""
    levels = _levels(labels)
    colour, marker = style.colours(levels), style.markers(levels)
    for level in levels:
        chosen = points[(labels == level).to_numpy()]
        ax.scatter(
            *chosen.to_numpy().T[:2],
            color=colour[level],
            marker=marker[level],
            s=46,
            edgecolor="white",
            label=f"{level} (n = {len(chosen)})",
        )
    for set_label, name, i in ((ax.set_xlabel, points.columns[0], 0), (ax.set_ylabel, points.columns[1], 1)):
        set_label(name if shares is None else f"{name} ({shares[i]:.1%} of variance)")
    ax.set_title(title)
    ax.margins(0.12)
    for axis in (ax.xaxis, ax.yaxis):
        axis.set_major_locator(MaxNLocator(5))
        axis.set_major_formatter(_short)
    return ax


def rank_against_rank(ax: Axes, ranked: pd.DataFrame) -> Axes:
    """Rank by variance against rank by mean; a gene on the diagonal has the same place in both orders."""
    n = len(ranked)
    ax.plot([1, n], [1, n], color=style.MUTED, linewidth=1, zorder=0)
    ax.scatter(
        ranked["rank_by_mean"],
        ranked["rank_by_variance"],
        color=style.HIGHLIGHT,
        s=30 if n < 100 else 4,
        edgecolor="none",
    )
    ax.set_xlabel("rank by mean count")
    ax.set_ylabel("rank by variance of counts")
    for axis in (ax.xaxis, ax.yaxis):
        axis.set_major_locator(MaxNLocator(5, integer=True))
    ax.set_aspect("equal")
    return ax


def shares(ax: Axes, values: pd.Series, *, label: str) -> Axes:
    """Horizontal bars of shares that sum to one, largest on top, with the running sum at each bar's end."""
    values = values.sort_values(ascending=False)
    running = values.cumsum()
    ax.barh(np.arange(len(values)), values, color=style.PALETTE[2], height=0.72)
    for i, (share, total) in enumerate(zip(values, running, strict=True)):
        ax.text(share + 0.004, i, f"{total:.0%}", va="center", fontsize=8, color="#444444")
    ax.set_yticks(np.arange(len(values)), values.index, fontsize=8)
    ax.invert_yaxis()
    ax.xaxis.set_major_formatter("{x:.0%}")
    ax.set_xlabel(label)
    return ax


def bars(ax: Axes, values: pd.Series, labels: pd.Series, *, ylabel: str) -> Axes:
    """A bar a sample, coloured by group, in the order of the groups."""
    levels = _levels(labels)
    order = np.argsort([levels.index(label) for label in labels], kind="stable")
    colour = style.colours(levels)
    ax.bar(np.arange(len(values)), values.to_numpy()[order], color=[colour[labels.iloc[i]] for i in order], width=0.85)
    few = len(values) <= 24
    ax.set_xticks(np.arange(len(values)) if few else [], values.index[order] if few else [], rotation=90, fontsize=8)
    ax.set_xlabel("" if few else f"{len(values)} samples")
    ax.set_ylabel(ylabel)
    return ax


def group_legend(ax: Axes, labels: pd.Series, **where) -> Axes:
    """A legend of the groups for axes that were coloured by group."""
    levels = _levels(labels)
    sizes = labels.value_counts()
    ax.legend(
        handles=[
            Patch(color=colour, label=f"{level} (n = {sizes[level]})")
            for level, colour in style.colours(levels).items()
        ],
        **where,
    )
    return ax


def panels(n: int, *, columns: int, width: float, height: float) -> tuple[Figure, list[Axes]]:
    """A figure of ``n`` axes, each ``width`` x ``height`` inches, in rows of at most ``columns``."""
    columns = min(n, columns)
    rows = -(-n // columns)
    figure, grid = plt.subplots(rows, columns, figsize=(width * columns, height * rows), squeeze=False)
    for ax in grid.flat[n:]:
        ax.remove()
    return figure, list(grid.flat[:n])


def lattice(
    ax: Axes, values: pd.Series, *, claimed: float, half_width: float, limits: tuple[float, float], label: str
) -> Axes:
    """The values that a score can take, as ticks on a line, against the interval that a rounded claim allows."""
    ax.axvspan(claimed - half_width, claimed + half_width, color=style.HIGHLIGHT, alpha=0.25, linewidth=0)
    ax.axvline(claimed, color=style.HIGHLIGHT, linewidth=1)
    ax.vlines(values, 0, 1, color=style.PALETTE[2], linewidth=1.4)
    ax.set_xlim(*limits)
    ax.set_yticks([])
    ax.spines["left"].set_visible(False)
    ax.set_ylabel(label, rotation=0, ha="right", va="center")
    return ax


def volcano(ax: Axes, results: pd.DataFrame, names: pd.Series, *, alpha: float, n_labels: int = 8) -> Axes:
    """-log10 of the p-value against the log2 fold change; called genes coloured, the surest few named."""
    tested = results.dropna(subset=["pvalue"])
    called = tested["padj"] < alpha
    height = -np.log10(tested["pvalue"].clip(lower=1e-300))
    for chosen, colour in ((~called, style.MUTED), (called, style.HIGHLIGHT)):
        label = f"{'' if colour == style.HIGHLIGHT else 'not '}called ({int(chosen.sum()):,})"
        ax.scatter(
            tested["log2FoldChange"][chosen],
            height[chosen],
            s=6,
            color=colour,
            edgecolor="none",
            label=label,
            rasterized=True,
        )
    for gene in height[called].nlargest(n_labels).index:
        ax.annotate(
            str(names[gene]),
            (tested.loc[gene, "log2FoldChange"], height[gene]),
            fontsize=7,
            xytext=(3, 2),
            textcoords="offset points",
        )
    ax.axvline(0, color=style.MUTED, linewidth=0.8)
    ax.set_xlabel("log2 fold change")
    ax.set_ylabel("-log10 p")
    ax.legend(loc="lower center", bbox_to_anchor=(0.5, 1.0), ncols=2, markerscale=2)
    return ax


def mean_against_change(ax: Axes, results: pd.DataFrame, *, alpha: float) -> Axes:
    """The log2 fold change against the mean of the normalised counts (MA plot); called genes coloured."""
    tested = results[results["baseMean"] > 0]
    called = tested["padj"] < alpha
    for chosen, colour in ((~called, style.MUTED), (called, style.HIGHLIGHT)):
        ax.scatter(
            tested["baseMean"][chosen],
            tested["log2FoldChange"][chosen],
            s=6,
            color=colour,
            edgecolor="none",
            rasterized=True,
        )
    ax.axhline(0, color="black", linewidth=0.8)
    ax.set_xscale("log")
    ax.xaxis.set_major_formatter("{x:,g}")
    ax.xaxis.set_minor_formatter("")
    ax.set_xlabel("mean of normalised counts")
    ax.set_ylabel("log2 fold change")
    return ax


def pvalues(ax: Axes, results: pd.DataFrame) -> Axes:
    """Histogram of the p-values: flat but for a peak at zero where the test is calibrated."""
    ax.hist(
        results["pvalue"].dropna(), bins=np.linspace(0, 1, 41), color=style.PALETTE[2], edgecolor="white", linewidth=0.4
    )
    ax.set_xlabel("p-value")
    ax.set_ylabel("genes")
    return ax


def dispersions(ax: Axes, table: pd.DataFrame) -> Axes:
    """Dispersion against mean: each gene's own estimate, the trend, and the one that is tested with.

    Parameters
    ----------
    table
        As `differential.Fit.dispersions` gives it.
    """
    rows = table.dropna(subset=["genewise", "final"]).sort_values("baseMean")
    dots = {"s": 5, "edgecolor": "none", "rasterized": True}
    ax.scatter(rows["baseMean"], rows["genewise"], color=style.MUTED, label="gene's own", **dots)
    ax.scatter(rows["baseMean"], rows["final"], color=style.PALETTE[2], label="tested with", **dots)
    ax.plot(rows["baseMean"], rows["trend"], color=style.HIGHLIGHT, linewidth=2, label="trend")
    ax.set_xscale("log")
    ax.set_yscale("log")
    for axis in (ax.xaxis, ax.yaxis):
        axis.set_major_formatter("{x:,g}")
        axis.set_minor_formatter("")
    ax.set_xlabel("mean of normalised counts")
    ax.set_ylabel("dispersion")
    ax.legend(loc="lower center", bbox_to_anchor=(0.5, 1.0), ncols=3, markerscale=2)
    return ax


def upset(sets: dict[str, set], *, n_shown: int = 15) -> Figure:
    """Sizes of the exclusive intersections of sets, largest first, and which sets each is of (Lex et al. 2014)."""
    names = list(sets)
    member = pd.DataFrame({name: pd.Series(True, index=sorted(sets[name])) for name in names}).notna()
    sizes = member.value_counts().head(n_shown) if len(member) else pd.Series(dtype=int)
    figure, (above, below) = plt.subplots(
        2,
        1,
        sharex=True,
        figsize=(1.8 + 0.5 * max(len(sizes), 5), 2.6 + 0.34 * len(names)),
        height_ratios=[2.4, 0.34 * len(names)],
    )
    above.bar(range(len(sizes)), sizes, color=style.PALETTE[2])
    for place, size in enumerate(sizes):
        above.text(place, size, f"{size:,}", ha="center", va="bottom", fontsize=8)
    above.set_ylabel("genes called")
    above.margins(y=0.12)
    for place, inside in enumerate(sizes.index):
        rows = np.flatnonzero(inside)
        below.scatter([place] * len(names), range(len(names)), color="#dddddd", s=42)
        below.scatter([place] * len(rows), rows, color="black", s=42)
        below.plot([place, place], [rows.min(), rows.max()], color="black")
    below.set_yticks(range(len(names)), [f"{name} ({len(sets[name]):,})" for name in names])
    below.set_ylim(len(names) - 0.5, -0.5)
    for ax in (above, below):
        ax.tick_params(axis="x", length=0, labelbottom=False)
    below.spines[["left", "bottom"]].set_visible(False)
    below.tick_params(axis="y", length=0)
    return figure


def enrichment(ax: Axes, table: pd.DataFrame, *, alpha: float) -> Axes:
    """Normalised enrichment scores, a bar a set; those below the false discovery rate in colour."""
    rows = table.sort_values("NES")
    sure = rows["FDR"] < alpha
    ax.barh(np.arange(len(rows)), rows["NES"], color=np.where(sure, style.HIGHLIGHT, style.MUTED), height=0.72)
    ax.set_yticks(np.arange(len(rows)), rows["set"], fontsize=8)
    ax.axvline(0, color="black", linewidth=0.8)
    ax.set_xlabel("normalised enrichment score")
    ax.margins(y=0.01)
    handles = [Patch(color=style.HIGHLIGHT, label=f"FDR < {alpha:g}"), Patch(color=style.MUTED, label="not")]
    ax.legend(handles=handles, loc="lower center", bbox_to_anchor=(0.5, 1.0), ncols=2)
    return ax


def intervals(ax: Axes, rows: pd.DataFrame) -> Axes:
    """Log2 fold changes with their 95% intervals, a row each; the paper's value as a diamond on the same line.

    Parameters
    ----------
    rows
        As `effects.table_one` gives them, without the genes that are not in the data.
    """
    place = np.arange(len(rows))
    ax.hlines(place, rows["low"], rows["high"], color=style.PALETTE[2])
    ax.plot(rows["log2FoldChange"], place, "o", color=style.PALETTE[2], label="this run, 95% interval")
    ax.plot(rows["reported"], place, "D", color=style.HIGHLIGHT, markersize=5, label="paper A, Table I")
    ax.axvline(0, color=style.MUTED, linewidth=0.8)
    ax.set_yticks(place, [f"{row.human}: {row.gene}, {row.contrast}" for row in rows.itertuples()], fontsize=8)
    ax.invert_yaxis()
    ax.set_xlabel("log2 fold change")
    ax.legend(loc="upper center", bbox_to_anchor=(0.5, -0.14 - 0.6 / max(len(rows), 4)), ncols=2)
    return ax


def scores(ax: Axes, values: pd.Series, labels: pd.Series, *, title: str) -> Axes:
    """A score of every sample by group, with the group's mean."""
    levels = _levels(labels)
    colour, marker = style.colours(levels), style.markers(levels)
    for place, level in enumerate(levels):
        inside = values[(labels == level).to_numpy()]
        spread = place + np.linspace(-0.15, 0.15, len(inside)) if len(inside) > 1 else [place]
        ax.scatter(spread, inside, color=colour[level], marker=marker[level], s=30, edgecolor="white")
        ax.hlines(inside.mean(), place - 0.28, place + 0.28, color="black", linewidth=1.2)
    ax.axhline(0, color=style.MUTED, linewidth=0.8, zorder=0)
    ax.set_xticks(range(len(levels)), levels)
    ax.set_ylabel("mean z over genes")
    ax.set_title(title)
    return ax


def heatmap(table: pd.DataFrame, labels: pd.Series, *, names: pd.Series | None = None, value: str) -> Figure:
    """Genes x samples, each gene centred and scaled, then both clustered by Ward linkage on Pearson distance (1 - r).

    Parameters
    ----------
    table
        Samples x genes; a gene that is constant over samples has no correlation and is left out.
    labels
        Group of each sample, shown as a colour bar.
    names
        Gene id -> the name to show.
    value
        What the colours mean before scaling, for the colour bar's label.

    Raises
    ------
    ValueError
        If fewer than two genes vary.
    """
    table = expression.scaled(table)
    if table.shape[1] < 2:
        raise ValueError("a heat map needs at least two genes that vary over samples")
    scaled = table.T
    levels = _levels(labels)
    colour = style.colours(levels)
    if names is not None:
        scaled.index = [str(names.get(gene, gene)) for gene in scaled.index]
    few = len(labels) <= 40
    # clustermap lays its axes out itself.
    with plt.rc_context({"figure.constrained_layout.use": False}):
        grid = sns.clustermap(
            scaled,
            row_linkage=ward_on_pearson(table.T),
            col_linkage=ward_on_pearson(table),
            col_colors=[colour[label] for label in labels],
            cmap=style.DIVERGING,
            center=0,
            figsize=(7.5, 2.6 + 0.2 * len(scaled)),
            dendrogram_ratio=(0.14, 0.12 if len(scaled) > 30 else 0.2),
            colors_ratio=0.025,
            cbar_pos=(0.01, 0.88, 0.02, 0.1),
            cbar_kws={"label": f"{value}\n(z by gene)"},
            xticklabels=few,
            yticklabels=True,
        )
    grid.ax_cbar.tick_params(labelsize=7)
    grid.ax_cbar.yaxis.label.set_size(7)
    grid.ax_heatmap.set_xlabel("" if few else f"{len(labels)} samples")
    grid.ax_heatmap.set_ylabel("")
    grid.ax_heatmap.tick_params(axis="both", labelsize=8, length=0)
    handles = [Patch(color=colour[level], label=level) for level in levels]
    grid.ax_col_dendrogram.legend(
        title=str(labels.name or ""), handles=handles, loc="upper left", bbox_to_anchor=(1.0, 1.0), fontsize=8
    )
    return grid.figure


def ward_on_pearson(table: pd.DataFrame) -> np.ndarray:
    """Ward linkage of the rows on Pearson distance 1 - r, as paper A's section III.C names it; SciPy's format."""
    return linkage(np.clip(pdist(table.to_numpy(dtype=float), "correlation"), 0, None), method="ward")
