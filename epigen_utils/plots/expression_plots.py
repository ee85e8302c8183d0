"""Plots of expression and its statistics; each draws on an axes and returns it, but for `upset`, a figure."""

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import seaborn as sns
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Patch
from matplotlib.ticker import MaxNLocator

from epigen_utils.plots import layout, style


def upset(sets: dict[str, set], *, n_intersections: int = 15) -> Figure:
    """UpSet plot: sizes of the exclusive intersections of sets, largest first, and their sets (Lex et al. 2014)."""
    names = list(sets)
    membership = pd.DataFrame({name: pd.Series(True, index=sorted(sets[name])) for name in names}).notna()
    sizes = membership.value_counts().head(n_intersections) if len(membership) else pd.Series(dtype=int)
    width, height = 1.8 + 0.5 * max(len(sizes), 5), 0.34 * len(names)
    ratios = {"height_ratios": [2.4, height]}
    figure, (above, below) = plt.subplots(2, sharex=True, figsize=(width, 2.6 + height), **ratios)
    above.margins(y=0.12)
    above.bar_label(above.bar(range(len(sizes)), sizes, color=style.PALETTE[2]), fmt="{:,.0f}", fontsize=8)
    above.set_ylabel("genes called")
    for x, is_member in enumerate(sizes.index):
        rows = np.flatnonzero(is_member)
        below.scatter([x] * len(names), range(len(names)), color="#dddddd", s=42)
        below.scatter([x] * len(rows), rows, color="black", s=42)
        below.plot([x, x], [rows.min(), rows.max()], color="black")
    layout.rows(below, [f"{name} ({len(sets[name]):,})" for name in names], margin=0.5)
    for ax in (above, below):
        ax.tick_params(axis="x", length=0, labelbottom=False)
    below.spines[["left", "bottom"]].set_visible(False)
    below.tick_params(axis="y", length=0)
    return figure


def variance_rank_against_mean_rank(ax: Axes, ranked: pd.DataFrame) -> Axes:
    """Rank by variance against rank by mean; a gene on the diagonal has the same rank in both orders."""
    n = len(ranked)
    ax.plot([1, n], [1, n], color=style.MUTED, linewidth=1, zorder=0)
    dots = {"color": style.HIGHLIGHT, "s": 30 if n < 100 else 4, "edgecolor": "none"}
    ax.scatter(ranked["rank_by_mean"], ranked["rank_by_variance"], **dots)
    for axis in (ax.xaxis, ax.yaxis):
        axis.set_major_locator(MaxNLocator(5, integer=True))
    ax.set(aspect="equal", xlabel="rank by mean count", ylabel="rank by variance of counts")
    return ax


def sample_bars(ax: Axes, values: pd.Series, labels: pd.Series, *, ylabel: str) -> Axes:
    """One bar per sample, coloured by group, in the order of the groups."""
    levels = layout.group_order(labels)
    order = np.argsort([levels.index(label) for label in labels], kind="stable")
    colour = style.colours(levels)
    ax.bar(range(len(values)), values.to_numpy()[order], color=[colour[labels.iloc[i]] for i in order], width=0.85)
    few = layout.sample_ticks(ax, values.index[order], most=24)
    ax.set(xlabel="" if few else f"{len(values)} samples", ylabel=ylabel)
    return ax


def volcano(ax: Axes, results: pd.DataFrame, names: pd.Series, *, alpha: float, n_labels: int = 8) -> Axes:
    """-log10 of the p-value against the log2 fold change; called genes coloured, the most significant named."""
    tested = results.dropna(subset=["pvalue"])
    called = tested["padj"] < alpha
    height = -np.log10(tested["pvalue"].clip(lower=1e-300))
    layout.called_points(ax, tested["log2FoldChange"], height, called)
    top = height[called].nlargest(3 * n_labels)
    points = np.column_stack([tested.loc[top.index, "log2FoldChange"], top])
    top_names = [str(name) for name in names[top.index]]
    span = (np.ptp(tested["log2FoldChange"]), height.max())
    layout.name_points(ax, points, top_names, span=span, gap=(0.2, 0.04), limit=n_labels)
    ax.axvline(0, **style.THIN)
    ax.set(xlabel="log2 fold change", ylabel="-log10 p")
    layout.legend_above(ax, ncols=2, markerscale=2)
    return ax


def ma_plot(ax: Axes, results: pd.DataFrame, *, alpha: float) -> Axes:
    """The log2 fold change against the mean of the normalised counts (MA plot); called genes coloured."""
    tested = results[results["baseMean"] > 0]
    called = tested["padj"] < alpha
    layout.called_points(ax, tested["baseMean"], tested["log2FoldChange"], called)
    ax.axhline(0, color="black", linewidth=0.8)
    layout.log_scale(ax, "x")
    ax.set(xlabel="mean of normalised counts", ylabel="log2 fold change")
    return ax


def pvalue_histogram(ax: Axes, results: pd.DataFrame) -> Axes:
    """Histogram of the p-values; a calibrated test gives a flat one but for a peak at zero."""
    bars = {"color": style.PALETTE[2], "edgecolor": "white", "linewidth": 0.4}
    ax.hist(results["pvalue"].dropna(), bins=np.linspace(0, 1, 41), **bars)
    ax.set(xlabel="p-value", ylabel="genes")
    return ax


def sd_against_mean(ax: Axes, table: pd.DataFrame, *, title: str) -> Axes:
    """Standard deviation of each gene against the rank of its mean, with the running median; flat if stabilised."""
    table = table.loc[:, table.std() > 0]
    rank, sd = table.mean().rank(), table.std()
    few = len(rank) < 100
    ax.scatter(rank, sd, s=30 if few else 3, color=style.MUTED, edgecolor="none", rasterized=True)
    bins = pd.qcut(rank, min(25, len(rank) // 4 or 1), duplicates="drop")
    medians = pd.DataFrame({"rank": rank, "sd": sd}).groupby(bins, observed=True).median()
    ax.plot(medians["rank"], medians["sd"], color=style.HIGHLIGHT, linewidth=2, label="running median")
    if sd.max() > 50:
        layout.log_scale(ax, "y")
    ax.xaxis.set_major_locator(MaxNLocator(4, integer=True))
    ax.xaxis.set_major_formatter(layout.short_number)
    ax.set(xlabel="genes by mean, lowest first", ylabel="standard deviation", title=title)
    return ax


def component_heatmap(ax: Axes, associations: pd.DataFrame, *, alpha: float) -> Axes:
    """Share of each principal component that a column of the sample table explains; a star where padj < ``alpha``.

    Parameters
    ----------
    associations
        Columns ``component``, ``column``, ``variance``, ``R2`` and ``padj`` (`sample_quality.components_and_metadata`).
    """
    components, columns = associations["component"].unique(), associations["column"].unique()
    wide = associations.pivot(index="column", columns="component", values=["R2", "padj"]).loc[columns]
    explained, significant = wide["R2"][components], wide["padj"][components] < alpha
    notes = explained.map("{:.2f}".format) + significant.map({True: "*", False: ""}.get)
    variance = associations.drop_duplicates("component").set_index("component")["variance"]
    colours = {"cmap": "rocket_r", "vmin": 0, "vmax": 1, "cbar_kws": {"label": "R²"}}
    sns.heatmap(explained, ax=ax, annot=notes, fmt="", linewidths=0.5, **colours)
    names = [f"{name}\n{variance[name]:.0%}" for name in components]
    ax.set_xticks(np.arange(len(components)) + 0.5, names, rotation=0)
    ax.set_yticklabels(columns, rotation=0)
    ax.set(xlabel="component, and the share of variance it explains", ylabel="")
    ax.tick_params(length=0)
    return ax


def sample_outliers(ax: Axes, table: pd.DataFrame, *, limit: float) -> Axes:
    """Median correlation of each sample with the others, in scaled deviations from the median sample.

    Parameters
    ----------
    table
        Columns ``sample``, ``group`` and ``deviation`` (`sample_quality.outlying_samples`).
    """
    labels = pd.Series(pd.Categorical(table["group"], table["group"].unique()))
    for level, members, look in layout.groups(labels):
        ax.scatter(np.flatnonzero(members), table["deviation"][members], s=36, label=level, **look)
    ax.axhline(limit, color=style.HIGHLIGHT, linestyle="--", linewidth=1)
    layout.sample_ticks(ax, table["sample"], most=40)
    ax.set_ylabel("deviation (scaled MAD)")
    layout.legend_above(ax, ncols=min(table["group"].nunique(), 4))
    return ax


def dispersion_estimates(ax: Axes, table: pd.DataFrame, *, trend: str) -> Axes:
    """Dispersion against mean: the gene-wise estimates, the trend, and the final estimates that the test uses.

    Gene-wise estimates far below the trend, most of them at the numerical floor, are drawn at the lower edge.

    Parameters
    ----------
    table
        Columns ``baseMean``, ``genewise``, ``trend`` and ``final`` (`differential.FittedDesign.dispersions`).
    trend
        Kind of the trend.
    """
    estimates = table.dropna(subset=["genewise", "final"]).sort_values("baseMean")
    dots = {"s": 5, "edgecolor": "none", "rasterized": True}
    mean, edge = estimates["baseMean"], estimates["trend"].min() / 300
    ax.scatter(mean, estimates["genewise"].clip(lower=edge), color=style.MUTED, label="gene's own", **dots)
    ax.scatter(mean, estimates["final"], color=style.PALETTE[2], label="tested with", **dots)
    ax.plot(mean, estimates["trend"], color=style.HIGHLIGHT, linewidth=2, label=f"{trend} trend")
    layout.log_scale(ax, "xy")
    ax.set(xlabel="mean of normalised counts", ylabel="dispersion")
    layout.legend_above(ax, ncols=3, markerscale=2)
    return ax


def enrichment_scores(ax: Axes, table: pd.DataFrame, *, alpha: float) -> Axes:
    """Normalised enrichment scores, one bar per gene set; those with FDR < ``alpha`` in colour."""
    table = table.sort_values("NES")
    colours = np.where(table["FDR"] < alpha, style.HIGHLIGHT, style.MUTED)
    ax.barh(range(len(table)), table["NES"], color=colours, height=0.72)
    ax.set_yticks(range(len(table)), table["set"], fontsize=8)
    ax.axvline(0, color="black", linewidth=0.8)
    ax.set_xlabel("normalised enrichment score")
    ax.margins(y=0.01)
    handles = [Patch(color=style.HIGHLIGHT, label=f"FDR < {alpha:g}"), Patch(color=style.MUTED, label="not")]
    layout.legend_above(ax, handles=handles, ncols=2)
    return ax


def fold_change_intervals(ax: Axes, table: pd.DataFrame) -> Axes:
    """Log2 fold changes with their 95% intervals, one row each; the paper's value as a diamond on the same line.

    Parameters
    ----------
    table
        `effects.reported_gene_effects` without the genes that are not in the data.
    """
    layout.intervals(ax, table, "log2FoldChange", linewidth=1.6, label="this run, 95% interval")
    diamonds = {"color": style.HIGHLIGHT, "markersize": 5, "label": "paper A, Table I"}
    ax.plot(table["reported"], range(len(table)), "D", **diamonds)
    ax.axvline(0, **style.THIN)
    layout.rows(ax, [f"{row.human}: {row.gene}, {row.contrast}" for row in table.itertuples()], fontsize=8)
    # The interval of a gene with one or two counts would set the scale.
    reach = 1.3 * max(table[["log2FoldChange", "reported"]].abs().max().max(), 1) if len(table) else 1
    ax.set_xlim(-reach, reach)
    ax.set_xlabel("log2 fold change")
    ax.legend(loc="upper center", bbox_to_anchor=(0.5, -0.14 - 0.6 / max(len(table), 4)), ncols=2)
    return ax


def sample_sizes(ax: Axes, table: pd.DataFrame, *, cohort_effect: float) -> Axes:
    """Samples per group against the difference that a treatment restores, or against the margin of equivalence.

    Parameters
    ----------
    table
        Columns ``effect``, ``interaction`` and ``equivalence`` (`power.restoration_sample_sizes`).
    cohort_effect
        A difference observed in this cohort, in standard deviations, marked on the axis.
    """
    for column, colour, mark, label in (
        ("interaction", style.PALETTE[2], "o", "to see it: genotype x treatment, each of four groups"),
        ("equivalence", style.HIGHLIGHT, "s", "to call it restored: equivalence, each of two groups"),
    ):
        finite = table[np.isfinite(table[column])]
        ax.plot(finite["effect"], finite[column], marker=mark, color=colour, label=label)
    layout.log_scale(ax, "y")
    ax.axvline(cohort_effect, label=f"this cohort's difference ({cohort_effect:.2f})", **style.DASHED)
    ax.set(xlabel="difference, in standard deviations within groups", ylabel="samples a group, power 80%")
    layout.legend_above(ax)
    return ax


def difference_intervals(ax: Axes, table: pd.DataFrame) -> Axes:
    """Differences with their 95% intervals, one row per contrast and feature.

    Parameters
    ----------
    table
        Columns ``contrast``, ``feature``, ``difference``, ``low`` and ``high`` (`differential.linear_contrasts`).
    """
    layout.intervals(ax, table, "difference", linewidth=1.6)
    ax.axvline(0, **style.THIN)
    several = table["contrast"].nunique() > 1
    names = [f"{row.feature}, {row.contrast}" if several else row.feature for row in table.itertuples()]
    layout.rows(ax, [name.replace("_", " ") for name in names], fontsize=8)
    ax.set_xlabel("difference (z), 95% interval")
    return ax


def genes_by_group(
    table: pd.DataFrame, labels: pd.Series, titles: list[str], *, other: pd.Series | None = None, ylabel: str
) -> Figure:
    """Values of genes by group, a panel each (`values_by_group`); ``table`` is samples x genes."""
    figure, axes = layout.panels(table.shape[1], columns=3, width=3, height=2.5)
    for ax, gene, title in zip(axes, table, titles, strict=True):
        values_by_group(ax, table[gene], labels, other=other, title=title)
    for ax in axes[::3]:
        ax.set_ylabel(ylabel)
    if other is not None:
        figure.legend(*axes[0].get_legend_handles_labels(), loc="outside upper center", ncols=4)
    return figure


def values_by_group(
    ax: Axes, values: pd.Series, labels: pd.Series, *, other: pd.Series | None = None, title: str
) -> Axes:
    """Values of the samples by group, with group means; with another factor, a line of means for each of its levels.

    Lines that are not parallel show that the effect of the group depends on the other factor.
    """
    levels = layout.group_order(labels)
    place = labels.map({level: i for i, level in enumerate(levels)}).astype(float)
    if other is None:
        for level, members, look in layout.groups(labels):
            offsets = np.linspace(-0.15, 0.15, members.sum()) if members.sum() > 1 else 0
            dots = {"s": 26, "edgecolor": "white"} | look
            layout.points_with_mean(ax, levels.index(level), offsets, values[members], reach=0.28, **dots)
    else:
        for level, members, look in layout.groups(other):
            ax.scatter(place[members], values[members], s=26, edgecolor="white", label=level, **look)
            means = values[members].groupby(place[members]).mean()
            ax.plot(means.index, means, color=look["color"], linewidth=1.5)
    layout.columns(ax, levels, fontsize=8)
    ax.set_title(title, fontsize=9)
    return ax
