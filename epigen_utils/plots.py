"""Plots. Each function takes an axes, draws on it and gives it back; `figures` has those that lay out their own."""

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
    """Groups in the order that colours are given: the reference first."""
    return list(labels.cat.categories) if hasattr(labels, "cat") else sorted(labels.unique())


def _short(value: float, _position: int) -> str:
    """Tick labels that fit: 250000 as 250k."""
    return f"{value / 1000:g}k" if abs(value) >= 10_000 else f"{value:g}"


def embedding(
    ax: Axes, points: pd.DataFrame, labels: pd.Series, *, shares: np.ndarray | None = None, title: str = ""
) -> Axes:
    """Samples in two dimensions, coloured and marked by group; ``shares`` are the variances that the axes explain."""
    levels = in_order(labels)
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
    levels = in_order(labels)
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
    levels = in_order(labels)
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
    named = []
    for gene in height[called].nlargest(3 * n_labels).index:
        here = np.array([tested.loc[gene, "log2FoldChange"] / 8, height[gene] / height.max()])
        # A name that would lie on another is left out.
        if len(named) == n_labels or any((np.abs(here - there) < (0.2, 0.04)).all() for there in named):
            continue
        named.append(here)
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


def spread_against_mean(ax: Axes, table: pd.DataFrame, *, title: str) -> Axes:
    """Standard deviation of each gene against the rank of its mean, with the running median; flat where it is stable."""
    table = table.loc[:, table.std() > 0]
    rank, spread = table.mean().rank(), table.std()
    few = len(rank) < 100
    ax.scatter(rank, spread, s=30 if few else 3, color=style.MUTED, edgecolor="none", rasterized=True)
    bins = pd.qcut(rank, min(25, len(rank) // 4 or 1), duplicates="drop")
    middle = pd.DataFrame({"rank": rank, "spread": spread}).groupby(bins, observed=True).median()
    ax.plot(middle["rank"], middle["spread"], color=style.HIGHLIGHT, linewidth=2, label="running median")
    if spread.max() > 50:
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
        As `samples.components_and_metadata` gives it.
    """
    components, columns = list(dict.fromkeys(found["component"])), list(dict.fromkeys(found["column"]))
    cells = found.pivot(index="column", columns="component", values="R2").loc[columns, components]
    sure = found.pivot(index="column", columns="component", values="padj").loc[columns, components] < alpha
    notes = cells.map("{:.2f}".format) + sure.map({True: "*", False: ""}.get)
    shares = found.drop_duplicates("component").set_index("component")["variance"]
    sns.heatmap(
        cells, ax=ax, annot=notes, fmt="", cmap="rocket_r", vmin=0, vmax=1, linewidths=0.5, cbar_kws={"label": "R²"}
    )
    ax.set_xticks(np.arange(len(components)) + 0.5, [f"{name}\n{shares[name]:.0%}" for name in components], rotation=0)
    ax.set_yticklabels(columns, rotation=0)
    ax.set_xlabel("component, and the share of variance it explains")
    ax.set_ylabel("")
    ax.tick_params(length=0)
    return ax


def outliers(ax: Axes, found: pd.DataFrame, *, limit: float) -> Axes:
    """Each sample's median correlation with the others, in deviations from the median sample.

    Parameters
    ----------
    found
        As `samples.outliers` gives it.
    """
    levels = list(dict.fromkeys(found["group"]))
    colour, marker = style.colours(levels), style.markers(levels)
    place = pd.Series(range(len(found)), found.index)
    for level in levels:
        inside = found["group"] == level
        ax.scatter(
            place[inside], found["deviation"][inside], color=colour[level], marker=marker[level], s=36, label=level
        )
    ax.axhline(limit, color=style.HIGHLIGHT, linestyle="--", linewidth=1)
    few = len(found) <= 40
    ax.set_xticks(place if few else [], found["sample"] if few else [], rotation=90, fontsize=8)
    ax.set_ylabel("deviation (scaled MAD)")
    ax.legend(loc="lower center", bbox_to_anchor=(0.5, 1.0), ncols=min(len(levels), 4))
    return ax


def dispersions(ax: Axes, table: pd.DataFrame) -> Axes:
    """Dispersion against mean: each gene's own estimate, the trend, and the one that is tested with.

    Estimates far below the trend, most of them zero but for a numerical floor, are drawn at the lower edge.

    Parameters
    ----------
    table
        As `differential.Fit.dispersions` gives it.
    """
    rows = table.dropna(subset=["genewise", "final"]).sort_values("baseMean")
    dots = {"s": 5, "edgecolor": "none", "rasterized": True}
    edge = rows["trend"].min() / 300
    ax.scatter(rows["baseMean"], rows["genewise"].clip(lower=edge), color=style.MUTED, label="gene's own", **dots)
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
    # A gene of a count or two has an interval as wide as the page.
    reach = 1.3 * max(rows[["log2FoldChange", "reported"]].abs().max().max(), 1) if len(rows) else 1
    ax.set_xlim(-reach, reach)
    ax.set_xlabel("log2 fold change")
    ax.legend(loc="upper center", bbox_to_anchor=(0.5, -0.14 - 0.6 / max(len(rows), 4)), ncols=2)
    return ax


def scores(ax: Axes, values: pd.Series, labels: pd.Series, *, title: str) -> Axes:
    """A score of every sample by group, with the group's mean."""
    levels = in_order(labels)
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


def by_seed(ax: Axes, table: pd.DataFrame, *, level: float | None = None, ylabel: str) -> Axes:
    """A point a row in each column, with the column's mean as a bar; ``level`` is what was asked for."""
    for place, name in enumerate(table):
        values = table[name].dropna()
        ax.scatter(place + np.linspace(-0.2, 0.2, len(values)), values, color=style.MUTED, s=14, edgecolor="none")
        ax.hlines(values.mean(), place - 0.3, place + 0.3, color="black", linewidth=1.5)
    if level is not None:
        ax.axhline(level, color=style.HIGHLIGHT, linestyle="--", linewidth=1)
    ax.set_xticks(range(table.shape[1]), [name.replace(" to ", "\nto ") for name in table], fontsize=8)
    ax.set_xlim(-0.6, table.shape[1] - 0.4)
    ax.set_ylim(bottom=0)
    ax.set_ylabel(ylabel)
    return ax


def shuffles(ax: Axes, values: pd.Series, *, level: float | None = None, xlabel: str) -> Axes:
    """A value of the observed labels, the first, among those of shuffled ones."""
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
    """Samples a group against the difference that a treatment takes back, or that still counts as none.

    Parameters
    ----------
    table
        As `power.restoration` gives it.
    seen
        A difference of this cohort, in standard deviations, marked on the axis.
    """
    for column, colour, mark, label in (
        ("interaction", style.PALETTE[2], "o", "to see it: genotype x treatment, each of four groups"),
        ("equivalence", style.HIGHLIGHT, "s", "to call it restored: equivalence, each of two groups"),
    ):
        shown = table[np.isfinite(table[column])]
        ax.plot(shown["effect"], shown[column], marker=mark, color=colour, label=label)
    ax.set_yscale("log")
    ax.yaxis.set_major_formatter("{x:,g}")
    ax.yaxis.set_minor_formatter("")
    ax.axvline(seen, color=style.MUTED, linestyle="--", linewidth=1, label=f"this cohort's difference ({seen:.2f})")
    ax.set_xlabel("difference, in standard deviations within groups")
    ax.set_ylabel("samples a group, power 80%")
    ax.legend(loc="lower center", bbox_to_anchor=(0.5, 1.0))
    return ax


def differences(ax: Axes, found: pd.DataFrame) -> Axes:
    """Differences with their 95% intervals, a row a contrast and feature.

    Parameters
    ----------
    found
        As `differential.linear` gives it.
    """
    place = np.arange(len(found))
    ax.hlines(place, found["low"], found["high"], color=style.PALETTE[2])
    ax.plot(found["difference"], place, "o", color=style.PALETTE[2])
    ax.axvline(0, color=style.MUTED, linewidth=0.8)
    several = found["contrast"].nunique() > 1
    names = [f"{row.feature}, {row.contrast}" if several else row.feature for row in found.itertuples()]
    ax.set_yticks(place, [name.replace("_", " ") for name in names], fontsize=8)
    ax.invert_yaxis()
    ax.set_xlabel("difference (z), 95% interval")
    return ax
