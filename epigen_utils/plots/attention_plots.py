"""Plots of attention, alignment and attribution; each draws on an axes and returns it, or lays out a figure."""

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from epigen_utils.plots import layout, style


def attention_by_position(ax: Axes, tables: dict[str, pd.DataFrame]) -> Axes:
    """Attention by relative position, one line per model (`readout_attention.mean_attention_by_position`)."""
    layout.lines(ax, tables.items(), "place", "attention")
    ax.axhline(1, **style.DASHED)
    ax.set(
        xlim=(0, 1), ylim=(0, None), xlabel="position in the sentence (0 first)", ylabel="attention relative to uniform"
    )
    ax.legend(fontsize=8)
    return ax


def head_grid(
    ax: Axes, table: pd.DataFrame, *, value: str, label: str, centre: float | None = None, pvalue: str = ""
) -> Axes:
    """A value for each head, layers x heads; a star where the column ``pvalue`` is below 0.05."""
    wide = table.pivot(index="layer", columns="head", values=value)
    # Numbers are drawn only where there is room, stars always.
    notes = wide.map(("{:.2f}" if wide.size <= 64 else "").format)
    if pvalue:
        significant = table.pivot(index="layer", columns="head", values=pvalue) < 0.05
        notes += significant.map({True: "*", False: ""}.get)
    options = {"cmap": "viridis"}
    if centre is not None:
        spread = np.nanmax(np.abs(wide.to_numpy() - centre)) or 1.0
        options = {"cmap": style.DIVERGING, "vmin": centre - spread, "vmax": centre + spread}
    box = {"facecolor": "white", "alpha": 0.7, "edgecolor": "none", "pad": 1.0}
    layout.annotated_matrix(ax, wide, notes, label=label, box=box, **options)
    ax.set(xlabel="head", ylabel="layer")
    return ax


def gene_set_baam(ax: Axes, table: pd.DataFrame) -> Axes:
    """BAAM of gene sets with its interval, and the mean of the position-matched null (`alignment.baam_of_sets`)."""
    ax.axvline(0.5, **style.DASHED)
    layout.intervals(ax, table, "baam", label="BAAM, 95% interval")
    crosses = {"color": style.HIGHLIGHT, "markeredgewidth": 2, "label": "sets at the same places"}
    ax.plot(table["matched"], range(len(table)), "x", **crosses)
    layout.rows(ax, [f"{row['set']} ({row['genes']})" for row in table.to_dict("records")])
    ax.set(xlim=(0, 1), xlabel="probability that a gene of the set gets more attention")
    layout.legend_above(ax, x=0.4, ncols=2, fontsize=7)
    return ax


def set_halves_baam(ax: Axes, table: pd.DataFrame) -> Axes:
    """BAAM of both halves of a gene set by model, one dot per seed; crosses are sets at matched positions.

    Parameters
    ----------
    table
        Columns ``model`` (what it was trained with), ``half``, ``baam`` and ``matched``.
    """
    kinds = list(dict.fromkeys(table["model"]))
    halves = zip(table.groupby("half", sort=False), style.PALETTE[1:], (-0.14, 0.14), strict=False)
    for (half, runs), colour, shift in halves:
        x = runs["model"].map(kinds.index) + shift
        ax.plot(x - 0.04, runs["baam"], "o", color=colour, alpha=0.8, label=half)
        ax.plot(x + 0.04, runs["matched"], "x", color=colour, label=f"{half}: sets at the same places")
    ax.axhline(0.5, **style.DASHED)
    layout.columns(ax, kinds)
    ax.set(ylim=(0, 1.04), ylabel="BAAM, last layer")
    ax.legend(fontsize=7, loc="lower left", ncols=2)
    return ax


def score_correlations(ax: Axes, table: pd.DataFrame) -> Axes:
    """Spearman correlations between methods of scoring genes (`attribution.score_correlations`)."""
    notes = table.map("{:.2f}".format).where(table.notna(), "")
    options = {"white": table.abs() > 0.6, "label": "Spearman correlation", "fontsize": 7, "aspect": "equal"}
    layout.annotated_matrix(ax, table, notes, cmap=style.DIVERGING, vmin=-1, vmax=1, **options)
    ax.set_xticks(range(len(table)), table.columns, rotation=45, ha="right", fontsize=8)
    ax.set_yticks(range(len(table)), table.index, fontsize=8)
    return ax


def planted_gene_recovery(ax: Axes, table: pd.DataFrame) -> Axes:
    """AUROC of planted genes by method and model, with intervals over cohorts (`intervals.means_over_cohorts`)."""
    methods = list(dict.fromkeys(table["way"]))
    for model, palette_index, marker, shift in (
        ("trained", 2, "o", -0.15),
        ("random weights", 0, "s", 0.15),
        ("no model", 1, "D", 0.0),
    ):
        aurocs = table[table["model"] == model]
        look = {"colour": style.PALETTE[palette_index], "marker": marker, "label": model}
        at = aurocs["way"].map(methods.index) + shift
        layout.intervals(ax, aurocs, "auroc", ends=("auroc low", "auroc high"), at=at, **look)
    ax.axvline(0.5, **style.DASHED)
    layout.rows(ax, methods)
    ax.set(xlim=(0, 1.02), xlabel="AUROC of the genes that determine the class")
    layout.legend_above(ax, x=0.4, ncols=3, fontsize=7)
    return ax


def gene_rankings(ax: Axes, ranks: pd.DataFrame, names: pd.Series, *, n: int) -> Axes:
    """Ranks of genes by several methods: the better the rank, the larger and darker the dot.

    Parameters
    ----------
    ranks
        Genes x methods, 1 is best (`biomarkers.gene_ranks`); genes are drawn in the order given.
    n
        Number of ranked genes.
    """
    shares = (1 - (ranks - 1) / max(n - 1, 1)).fillna(0)
    for x, share in enumerate(shares.to_numpy().T):
        dots = {"s": 12 + 150 * share**3, "c": share, "cmap": "viridis_r", "vmin": 0, "vmax": 1}
        ax.scatter(np.full(len(ranks), x), range(len(ranks)), **dots)
    layout.columns(ax, ranks.columns, margin=0.6, rotation=45, ha="right", fontsize=8)
    layout.rows(ax, [str(names.get(gene, gene)) for gene in ranks.index], fontsize=8)
    ax.tick_params(length=0)
    return ax


def gene_pair_heatmap(table: pd.DataFrame, *, label: str) -> Figure:
    """Gene-gene attention, query genes x key genes, both clustered by Ward linkage.

    Parameters
    ----------
    table
        Genes x genes, by name, relative to even attention (1). NaN where the genes never follow each other: drawn
        grey, and clustered as 1.
    """
    logs = np.log2(table.clip(lower=1e-3)).fillna(0)
    limit = float(np.quantile(np.abs(logs.to_numpy()), 0.98)) or 1.0
    size = 2.6 + 0.2 * len(table)
    colours = {"cmap": style.DIVERGING, "vmin": -limit, "vmax": limit, "mask": table.isna()}
    sizes = {"figsize": (size + 0.6, size), "dendrogram_ratio": 0.1, "cbar_pos": (0.0, 0.88, 0.02, 0.1)}
    names = {"label_size": 7.5, "xticklabels": True, "yticklabels": True}
    clustered = layout.clustermap(logs, method="ward", label=label, **colours, **sizes, **names)
    clustered.ax_heatmap.set_facecolor("#bbbbbb")
    clustered.ax_cbar.yaxis.label.set_size(7)
    clustered.ax_heatmap.set(xlabel="gene attended to", ylabel="attending gene")
    return clustered.figure


def rejection_rates(ax: Axes, table: pd.DataFrame, *, by: str) -> Axes:
    """False rejections of each null at 5%, with intervals (`alignment_checks.false_positive_rates`)."""
    groups = list(dict.fromkeys(table[by]))
    nulls = zip(table.groupby("null", sort=False), style.PALETTE[1:], (-0.1, 0.1), strict=False)
    for (null, rates), colour, shift in nulls:
        at = rates[by].map(groups.index) + shift
        layout.intervals(ax, rates, "share", at=at, vertical=True, colour=colour, label=f"{null} sets")
    ax.axhline(0.05, **style.DASHED)
    layout.columns(ax, groups)
    ax.set(ylim=(0, 1.02), ylabel="share called at 5%")
    ax.legend(fontsize=8)
    return ax


def baam_by_set_size(ax: Axes, table: pd.DataFrame) -> Axes:
    """BAAM of random gene sets by size, one dot per set (`alignment_checks.random_sets_by_size`)."""
    rng = np.random.default_rng(0)
    groups = sorted(set(table["size"]))
    x = table["size"].map(groups.index) + rng.uniform(-0.18, 0.18, len(table))
    ax.plot(x, table["baam"], ".", color=style.PALETTE[2], alpha=0.5)
    ax.axhline(0.5, **style.DASHED)
    ax.set_xticks(range(len(groups)), [f"{size:g}" for size in groups])
    ax.set(ylim=(0, 1.02), xlabel="genes in the set", ylabel="BAAM of random sets")
    return ax
