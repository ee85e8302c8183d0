"""Layout helpers, and plots of expression, its statistics and scores; each draws on an axes and returns it."""

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
    figure, (above, below) = plt.subplots(
        2,
        1,
        sharex=True,
        figsize=(1.8 + 0.5 * max(len(sizes), 5), 2.6 + 0.34 * len(names)),
        height_ratios=[2.4, 0.34 * len(names)],
    )
    above.bar(range(len(sizes)), sizes, color=style.PALETTE[2])
    for x, size in enumerate(sizes):
        above.text(x, size, f"{size:,}", ha="center", va="bottom", fontsize=8)
    above.set_ylabel("genes called")
    above.margins(y=0.12)
    for x, is_member in enumerate(sizes.index):
        rows = np.flatnonzero(is_member)
        below.scatter([x] * len(names), range(len(names)), color="#dddddd", s=42)
        below.scatter([x] * len(rows), rows, color="black", s=42)
        below.plot([x, x], [rows.min(), rows.max()], color="black")
    below.set_yticks(range(len(names)), [f"{name} ({len(sets[name]):,})" for name in names])
    below.set_ylim(len(names) - 0.5, -0.5)
    for ax in (above, below):
        ax.tick_params(axis="x", length=0, labelbottom=False)
    below.spines[["left", "bottom"]].set_visible(False)
    below.tick_params(axis="y", length=0)
    return figure


def variance_rank_against_mean_rank(ax: Axes, ranked: pd.DataFrame) -> Axes:
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


def sample_bars(ax: Axes, values: pd.Series, labels: pd.Series, *, ylabel: str) -> Axes:
    """One bar per sample, coloured by group, in the order of the groups."""
    levels = layout.group_order(labels)
    order = np.argsort([levels.index(label) for label in labels], kind="stable")
    colour = style.colours(levels)
    ax.bar(np.arange(len(values)), values.to_numpy()[order], color=[colour[labels.iloc[i]] for i in order], width=0.85)
    few = len(values) <= 24
    ax.set_xticks(np.arange(len(values)) if few else [], values.index[order] if few else [], rotation=90, fontsize=8)
    ax.set_xlabel("" if few else f"{len(values)} samples")
    ax.set_ylabel(ylabel)
    return ax


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
    for i in layout.spaced_labels(points / (8, height.max()), gap=(0.2, 0.04), limit=n_labels):
        name = str(names[top.index[i]])
        ax.annotate(name, points[i], fontsize=7, xytext=(3, 2), textcoords="offset points")
    ax.axvline(0, color=style.MUTED, linewidth=0.8)
    ax.set_xlabel("log2 fold change")
    ax.set_ylabel("-log10 p")
    ax.legend(loc="lower center", bbox_to_anchor=(0.5, 1.0), ncols=2, markerscale=2)
    return ax


def ma_plot(ax: Axes, results: pd.DataFrame, *, alpha: float) -> Axes:
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


def pvalue_histogram(ax: Axes, results: pd.DataFrame) -> Axes:
    """Histogram of the p-values; a calibrated test gives a flat one but for a peak at zero."""
    ax.hist(
        results["pvalue"].dropna(), bins=np.linspace(0, 1, 41), color=style.PALETTE[2], edgecolor="white", linewidth=0.4
    )
    ax.set_xlabel("p-value")
    ax.set_ylabel("genes")
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
        ax.set_yscale("log")
        ax.yaxis.set_major_formatter("{x:,g}")
        ax.yaxis.set_minor_formatter("")
    ax.xaxis.set_major_locator(MaxNLocator(4, integer=True))
    ax.xaxis.set_major_formatter(layout.short_number)
    ax.set_xlabel("genes by mean, lowest first")
    ax.set_ylabel("standard deviation")
    ax.set_title(title)
    return ax


def component_heatmap(ax: Axes, associations: pd.DataFrame, *, alpha: float) -> Axes:
    """Share of each principal component that a column of the sample table explains; a star where padj < ``alpha``.

    Parameters
    ----------
    associations
        Columns ``component``, ``column``, ``variance``, ``R2`` and ``padj`` (`sample_quality.components_and_metadata`).
    """
    components, columns = list(dict.fromkeys(associations["component"])), list(dict.fromkeys(associations["column"]))
    explained = associations.pivot(index="column", columns="component", values="R2").loc[columns, components]
    significant = (
        associations.pivot(index="column", columns="component", values="padj").loc[columns, components] < alpha
    )
    notes = explained.map("{:.2f}".format) + significant.map({True: "*", False: ""}.get)
    variance = associations.drop_duplicates("component").set_index("component")["variance"]
    colours = {"cmap": "rocket_r", "vmin": 0, "vmax": 1, "cbar_kws": {"label": "R²"}}
    sns.heatmap(explained, ax=ax, annot=notes, fmt="", linewidths=0.5, **colours)
    names = [f"{name}\n{variance[name]:.0%}" for name in components]
    ax.set_xticks(np.arange(len(components)) + 0.5, names, rotation=0)
    ax.set_yticklabels(columns, rotation=0)
    ax.set_xlabel("component, and the share of variance it explains")
    ax.set_ylabel("")
    ax.tick_params(length=0)
    return ax


def sample_outliers(ax: Axes, table: pd.DataFrame, *, limit: float) -> Axes:
    """Median correlation of each sample with the others, in scaled deviations from the median sample.

    Parameters
    ----------
    table
        Columns ``sample``, ``group`` and ``deviation`` (`sample_quality.outlying_samples`).
    """
    levels = list(dict.fromkeys(table["group"]))
    colour, marker = style.colours(levels), style.markers(levels)
    x = pd.Series(range(len(table)), table.index)
    for level in levels:
        members = table["group"] == level
        ax.scatter(
            x[members], table["deviation"][members], color=colour[level], marker=marker[level], s=36, label=level
        )
    ax.axhline(limit, color=style.HIGHLIGHT, linestyle="--", linewidth=1)
    few = len(table) <= 40
    ax.set_xticks(x if few else [], table["sample"] if few else [], rotation=90, fontsize=8)
    ax.set_ylabel("deviation (scaled MAD)")
    ax.legend(loc="lower center", bbox_to_anchor=(0.5, 1.0), ncols=min(len(levels), 4))
    return ax


def dispersion_estimates(ax: Axes, table: pd.DataFrame) -> Axes:
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


def enrichment_scores(ax: Axes, table: pd.DataFrame, *, alpha: float) -> Axes:
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


def fold_change_intervals(ax: Axes, table: pd.DataFrame) -> Axes:
    """Log2 fold changes with their 95% intervals, one row each; the paper's value as a diamond on the same line.

    Parameters
    ----------
    table
        `effects.reported_gene_effects` without the genes that are not in the data.
    """
    y = np.arange(len(table))
    ax.hlines(y, table["low"], table["high"], color=style.PALETTE[2])
    ax.plot(table["log2FoldChange"], y, "o", color=style.PALETTE[2], label="this run, 95% interval")
    ax.plot(table["reported"], y, "D", color=style.HIGHLIGHT, markersize=5, label="paper A, Table I")
    ax.axvline(0, color=style.MUTED, linewidth=0.8)
    ax.set_yticks(y, [f"{row.human}: {row.gene}, {row.contrast}" for row in table.itertuples()], fontsize=8)
    ax.invert_yaxis()
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
    ax.set_yscale("log")
    ax.yaxis.set_major_formatter("{x:,g}")
    ax.yaxis.set_minor_formatter("")
    ax.axvline(
        cohort_effect,
        color=style.MUTED,
        linestyle="--",
        linewidth=1,
        label=f"this cohort's difference ({cohort_effect:.2f})",
    )
    ax.set_xlabel("difference, in standard deviations within groups")
    ax.set_ylabel("samples a group, power 80%")
    ax.legend(loc="lower center", bbox_to_anchor=(0.5, 1.0))
    return ax


def difference_intervals(ax: Axes, table: pd.DataFrame) -> Axes:
    """Differences with their 95% intervals, one row per contrast and feature.

    Parameters
    ----------
    table
        Columns ``contrast``, ``feature``, ``difference``, ``low`` and ``high`` (`differential.linear_contrasts`).
    """
    y = np.arange(len(table))
    ax.hlines(y, table["low"], table["high"], color=style.PALETTE[2])
    ax.plot(table["difference"], y, "o", color=style.PALETTE[2])
    ax.axvline(0, color=style.MUTED, linewidth=0.8)
    several = table["contrast"].nunique() > 1
    names = [f"{row.feature}, {row.contrast}" if several else row.feature for row in table.itertuples()]
    ax.set_yticks(y, [name.replace("_", " ") for name in names], fontsize=8)
    ax.invert_yaxis()
    ax.set_xlabel("difference (z), 95% interval")
    return ax
