"""Layout helpers, and plots of expression, its statistics and scores; each draws on an axes and returns it."""

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import seaborn as sns
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Patch
from matplotlib.ticker import MaxNLocator

from epigen_utils import style

sns.set_theme(style="ticks")
style.use()


def in_order(labels: pd.Series) -> list[str]:
    """Groups in the order in which colours are assigned: the reference first."""
    return list(labels.cat.categories) if hasattr(labels, "cat") else sorted(labels.unique())


def _short(value: float, _position: int) -> str:
    """A short tick label: 250000 as 250k."""
    return f"{value / 1000:g}k" if abs(value) >= 10_000 else f"{value:g}"


def embedding(
    ax: Axes, points: pd.DataFrame, labels: pd.Series, *, shares: np.ndarray | None = None, title: str = ""
) -> Axes:
    """Samples in two dimensions, coloured and marked by group; ``shares`` are the axes' shares of the variance."""
    levels = in_order(labels)
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
        axis.set_major_formatter(_short)
    return ax


def rank_against_rank(ax: Axes, ranked: pd.DataFrame) -> Axes:
    """Rank by variance against rank by mean; a gene on the diagonal has the same rank in both orders."""
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


def bars(ax: Axes, values: pd.Series, labels: pd.Series, *, ylabel: str) -> Axes:
    """One bar per sample, coloured by group, in the order of the groups."""
    levels = in_order(labels)
    order = np.argsort([levels.index(label) for label in labels], kind="stable")
    colour = style.colours(levels)
    ax.bar(np.arange(len(values)), values.to_numpy()[order], color=[colour[labels.iloc[i]] for i in order], width=0.85)
    few = len(values) <= 24
    ax.set_xticks(np.arange(len(values)) if few else [], values.index[order] if few else [], rotation=90, fontsize=8)
    ax.set_xlabel("" if few else f"{len(values)} samples")
    ax.set_ylabel(ylabel)
    return ax


def group_legend(ax: Axes, labels: pd.Series, **options) -> Axes:
    """Legend of the groups for a plot coloured by group; ``options`` go to `matplotlib.axes.Axes.legend`."""
    levels = in_order(labels)
    sizes = labels.value_counts()
    ax.legend(
        handles=[
            Patch(color=colour, label=f"{level} (n = {sizes[level]})")
            for level, colour in style.colours(levels).items()
        ],
        **options,
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
    """Attainable values of a score, as ticks on a line, against the interval that a rounded claim allows."""
    ax.axvspan(claimed - half_width, claimed + half_width, color=style.HIGHLIGHT, alpha=0.25, linewidth=0)
    ax.axvline(claimed, color=style.HIGHLIGHT, linewidth=1)
    ax.vlines(values, 0, 1, color=style.PALETTE[2], linewidth=1.4)
    ax.set_xlim(*limits)
    ax.set_yticks([])
    ax.spines["left"].set_visible(False)
    ax.set_ylabel(label, rotation=0, ha="right", va="center")
    return ax


def spaced(positions: np.ndarray, *, gap: tuple[float, float], limit: int | None = None) -> list[int]:
    """Points whose names fit beside those of the points before them.

    Parameters
    ----------
    positions
        Points x 2, the most important first, in units of the axes' spans.
    gap
        Names overlap if their points are nearer than this in both directions.

    Returns
    -------
    list of int
        Rows of ``positions``, at most ``limit``.
    """
    chosen: list[int] = []
    for i, position in enumerate(positions):
        if all((np.abs(position - positions[j]) >= gap).any() for j in chosen):
            chosen.append(i)
    return chosen[:limit]


def volcano(ax: Axes, results: pd.DataFrame, names: pd.Series, *, alpha: float, n_labels: int = 8) -> Axes:
    """-log10 of the p-value against the log2 fold change; called genes coloured, the most significant named."""
    tested = results.dropna(subset=["pvalue"])
    called = tested["padj"] < alpha
    height = -np.log10(tested["pvalue"].clip(lower=1e-300))
    for subset, colour, word in ((~called, style.MUTED, "not called"), (called, style.HIGHLIGHT, "called")):
        ax.scatter(
            tested["log2FoldChange"][subset],
            height[subset],
            s=6,
            color=colour,
            edgecolor="none",
            label=f"{word} ({int(subset.sum()):,})",
            rasterized=True,
        )
    top = height[called].nlargest(3 * n_labels)
    points = np.column_stack([tested.loc[top.index, "log2FoldChange"], top])
    for i in spaced(points / (8, height.max()), gap=(0.2, 0.04), limit=n_labels):
        name = str(names[top.index[i]])
        ax.annotate(name, points[i], fontsize=7, xytext=(3, 2), textcoords="offset points")
    ax.axvline(0, color=style.MUTED, linewidth=0.8)
    ax.set_xlabel("log2 fold change")
    ax.set_ylabel("-log10 p")
    ax.legend(loc="lower center", bbox_to_anchor=(0.5, 1.0), ncols=2, markerscale=2)
    return ax


def mean_against_change(ax: Axes, results: pd.DataFrame, *, alpha: float) -> Axes:
    """The log2 fold change against the mean of the normalised counts (MA plot); called genes coloured."""
    tested = results[results["baseMean"] > 0]
    called = tested["padj"] < alpha
    for subset, colour in ((~called, style.MUTED), (called, style.HIGHLIGHT)):
        ax.scatter(
            tested["baseMean"][subset],
            tested["log2FoldChange"][subset],
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
    """Histogram of the p-values; a calibrated test gives a flat one but for a peak at zero."""
    ax.hist(
        results["pvalue"].dropna(), bins=np.linspace(0, 1, 41), color=style.PALETTE[2], edgecolor="white", linewidth=0.4
    )
    ax.set_xlabel("p-value")
    ax.set_ylabel("genes")
    return ax


def spread_against_mean(ax: Axes, table: pd.DataFrame, *, title: str) -> Axes:
    """Standard deviation of each gene against the rank of its mean, with the running median; flat if stabilised."""
    table = table.loc[:, table.std() > 0]
    rank, sd = table.mean().rank(), table.std()
    few = len(rank) < 100
    ax.scatter(rank, sd, s=30 if few else 3, color=style.MUTED, edgecolor="none", rasterized=True)
    bins = pd.qcut(rank, min(25, len(rank) // 4 or 1), duplicates="drop")
    medians = pd.DataFrame({"rank": rank, "sd": sd}).groupby(bins, observed=True).median()
    ax.plot(medians["rank"], medians["sd"], color=style.HIGHLIGHT, linewidth=2, label="running median")
    if sd.max() > 50:
        ax.set_yscale("log")
        ax.yaxis.set_major_formatter("{x:,g}")
        ax.yaxis.set_minor_formatter("")
    ax.xaxis.set_major_locator(MaxNLocator(4, integer=True))
    ax.xaxis.set_major_formatter(_short)
    ax.set_xlabel("genes by mean, lowest first")
    ax.set_ylabel("standard deviation")
    ax.set_title(title)
    return ax


def components_and_metadata(ax: Axes, found: pd.DataFrame, *, alpha: float) -> Axes:
    """Share of each principal component that a column of the sample table explains; a star where padj < ``alpha``.

    Parameters
    ----------
    found
        Columns ``component``, ``column``, ``variance``, ``R2`` and ``padj`` (`samples.components_and_metadata`).
    """
    components, columns = list(dict.fromkeys(found["component"])), list(dict.fromkeys(found["column"]))
    explained = found.pivot(index="column", columns="component", values="R2").loc[columns, components]
    significant = found.pivot(index="column", columns="component", values="padj").loc[columns, components] < alpha
    notes = explained.map("{:.2f}".format) + significant.map({True: "*", False: ""}.get)
    variance = found.drop_duplicates("component").set_index("component")["variance"]
    colours = {"cmap": "rocket_r", "vmin": 0, "vmax": 1, "cbar_kws": {"label": "R²"}}
    sns.heatmap(explained, ax=ax, annot=notes, fmt="", linewidths=0.5, **colours)
    names = [f"{name}\n{variance[name]:.0%}" for name in components]
    ax.set_xticks(np.arange(len(components)) + 0.5, names, rotation=0)
    ax.set_yticklabels(columns, rotation=0)
    ax.set_xlabel("component, and the share of variance it explains")
    ax.set_ylabel("")
    ax.tick_params(length=0)
    return ax


def outliers(ax: Axes, found: pd.DataFrame, *, limit: float) -> Axes:
    """Median correlation of each sample with the others, in scaled deviations from the median sample.

    Parameters
    ----------
    found
        Columns ``sample``, ``group`` and ``deviation`` (`samples.outliers`).
    """
    levels = list(dict.fromkeys(found["group"]))
    colour, marker = style.colours(levels), style.markers(levels)
    x = pd.Series(range(len(found)), found.index)
    for level in levels:
        members = found["group"] == level
        ax.scatter(
            x[members], found["deviation"][members], color=colour[level], marker=marker[level], s=36, label=level
        )
    ax.axhline(limit, color=style.HIGHLIGHT, linestyle="--", linewidth=1)
    few = len(found) <= 40
    ax.set_xticks(x if few else [], found["sample"] if few else [], rotation=90, fontsize=8)
    ax.set_ylabel("deviation (scaled MAD)")
    ax.legend(loc="lower center", bbox_to_anchor=(0.5, 1.0), ncols=min(len(levels), 4))
    return ax


def dispersions(ax: Axes, table: pd.DataFrame) -> Axes:
    """Dispersion against mean: the gene-wise estimates, the trend, and the final estimates that the test uses.

    Gene-wise estimates far below the trend, most of them at the numerical floor, are drawn at the lower edge.

    Parameters
    ----------
    table
        Columns ``baseMean``, ``genewise``, ``trend`` and ``final`` (`differential.Fit.dispersions`).
    """
    estimates = table.dropna(subset=["genewise", "final"]).sort_values("baseMean")
    dots = {"s": 5, "edgecolor": "none", "rasterized": True}
    mean, edge = estimates["baseMean"], estimates["trend"].min() / 300
    ax.scatter(mean, estimates["genewise"].clip(lower=edge), color=style.MUTED, label="gene's own", **dots)
    ax.scatter(mean, estimates["final"], color=style.PALETTE[2], label="tested with", **dots)
    ax.plot(mean, estimates["trend"], color=style.HIGHLIGHT, linewidth=2, label="trend")
    ax.set_xscale("log")
    ax.set_yscale("log")
    for axis in (ax.xaxis, ax.yaxis):
        axis.set_major_formatter("{x:,g}")
        axis.set_minor_formatter("")
    ax.set_xlabel("mean of normalised counts")
    ax.set_ylabel("dispersion")
    ax.legend(loc="lower center", bbox_to_anchor=(0.5, 1.0), ncols=3, markerscale=2)
    return ax


def enrichment(ax: Axes, table: pd.DataFrame, *, alpha: float) -> Axes:
    """Normalised enrichment scores, one bar per gene set; those with FDR < ``alpha`` in colour."""
    table = table.sort_values("NES")
    colours = np.where(table["FDR"] < alpha, style.HIGHLIGHT, style.MUTED)
    ax.barh(np.arange(len(table)), table["NES"], color=colours, height=0.72)
    ax.set_yticks(np.arange(len(table)), table["set"], fontsize=8)
    ax.axvline(0, color="black", linewidth=0.8)
    ax.set_xlabel("normalised enrichment score")
    ax.margins(y=0.01)
    handles = [Patch(color=style.HIGHLIGHT, label=f"FDR < {alpha:g}"), Patch(color=style.MUTED, label="not")]
    ax.legend(handles=handles, loc="lower center", bbox_to_anchor=(0.5, 1.0), ncols=2)
    return ax


def intervals(ax: Axes, rows: pd.DataFrame) -> Axes:
    """Log2 fold changes with their 95% intervals, one row each; the paper's value as a diamond on the same line.

    Parameters
    ----------
    rows
        `effects.table_one` without the genes that are not in the data.
    """
    y = np.arange(len(rows))
    ax.hlines(y, rows["low"], rows["high"], color=style.PALETTE[2])
    ax.plot(rows["log2FoldChange"], y, "o", color=style.PALETTE[2], label="this run, 95% interval")
    ax.plot(rows["reported"], y, "D", color=style.HIGHLIGHT, markersize=5, label="paper A, Table I")
    ax.axvline(0, color=style.MUTED, linewidth=0.8)
    ax.set_yticks(y, [f"{row.human}: {row.gene}, {row.contrast}" for row in rows.itertuples()], fontsize=8)
    ax.invert_yaxis()
    # The interval of a gene with one or two counts would set the scale.
    reach = 1.3 * max(rows[["log2FoldChange", "reported"]].abs().max().max(), 1) if len(rows) else 1
    ax.set_xlim(-reach, reach)
    ax.set_xlabel("log2 fold change")
    ax.legend(loc="upper center", bbox_to_anchor=(0.5, -0.14 - 0.6 / max(len(rows), 4)), ncols=2)
    return ax


def scores(ax: Axes, values: pd.Series, labels: pd.Series, *, title: str) -> Axes:
    """Score of each sample by group, with the group mean."""
    levels = in_order(labels)
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


def by_seed(ax: Axes, table: pd.DataFrame, *, level: float | None = None, ylabel: str) -> Axes:
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


def shuffles(ax: Axes, values: pd.Series, *, level: float | None = None, xlabel: str) -> Axes:
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


def sample_sizes(ax: Axes, table: pd.DataFrame, *, seen: float) -> Axes:
    """Samples per group against the difference that a treatment restores, or against the margin of equivalence.

    Parameters
    ----------
    table
        Columns ``effect``, ``interaction`` and ``equivalence`` (`power.restoration`).
    seen
        A difference observed in this cohort, in standard deviations, marked on the axis.
    """
    for column, colour, mark, label in (
        ("interaction", style.PALETTE[2], "o", "to see it: genotype x treatment, each of four groups"),
        ("equivalence", style.HIGHLIGHT, "s", "to call it restored: equivalence, each of two groups"),
    ):
        finite = table[np.isfinite(table[column])]
        ax.plot(finite["effect"], finite[column], marker=mark, color=colour, label=label)
    ax.set_yscale("log")
    ax.yaxis.set_major_formatter("{x:,g}")
    ax.yaxis.set_minor_formatter("")
    ax.axvline(seen, color=style.MUTED, linestyle="--", linewidth=1, label=f"this cohort's difference ({seen:.2f})")
    ax.set_xlabel("difference, in standard deviations within groups")
    ax.set_ylabel("samples a group, power 80%")
    ax.legend(loc="lower center", bbox_to_anchor=(0.5, 1.0))
    return ax


def differences(ax: Axes, found: pd.DataFrame) -> Axes:
    """Differences with their 95% intervals, one row per contrast and feature.

    Parameters
    ----------
    found
        Columns ``contrast``, ``feature``, ``difference``, ``low`` and ``high`` (`differential.linear`).
    """
    y = np.arange(len(found))
    ax.hlines(y, found["low"], found["high"], color=style.PALETTE[2])
    ax.plot(found["difference"], y, "o", color=style.PALETTE[2])
    ax.axvline(0, color=style.MUTED, linewidth=0.8)
    several = found["contrast"].nunique() > 1
    names = [f"{row.feature}, {row.contrast}" if several else row.feature for row in found.itertuples()]
    ax.set_yticks(y, [name.replace("_", " ") for name in names], fontsize=8)
    ax.invert_yaxis()
    ax.set_xlabel("difference (z), 95% interval")
    return ax
