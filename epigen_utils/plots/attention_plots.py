"""Plots of attention, alignment and attribution; each draws on an axes and returns it, but for `gene_pair_heatmap`, a figure."""

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import seaborn as sns
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from epigen_utils.plots import style


def attention_by_position(ax: Axes, tables: dict[str, pd.DataFrame]) -> Axes:
    """Attention by relative position in the sentence, one line per model (`readout_attention.mean_attention_by_position`)."""
    for (name, table), colour, marker in zip(tables.items(), style.PALETTE[1:], style.MARKERS, strict=False):
        ax.plot(table["place"], table["attention"], marker + "-", color=colour, markersize=4, label=name)
    ax.axhline(1, color=style.MUTED, linestyle="--", linewidth=1)
    ax.set(xlim=(0, 1), ylim=(0, None), xlabel="place in the sentence (0 first)", ylabel="attention, 1 is even")
    ax.legend(fontsize=8)
    return ax


def head_grid(
    ax: Axes,
    table: pd.DataFrame,
    *,
    value: str,
    label: str,
    centre: float | None = None,
    pvalue: str = "",
) -> Axes:
    """A value for each head, layers x heads; a star where the column ``pvalue`` is below 0.05."""
    wide = table.pivot(index="layer", columns="head", values=value)
    spread = np.nanmax(np.abs(wide.to_numpy() - (centre or 0))) or 1.0
    limits = {} if centre is None else {"vmin": centre - spread, "vmax": centre + spread}
    image = ax.imshow(wide, aspect="auto", cmap="viridis" if centre is None else style.DIVERGING, **limits)
    stars = table.pivot(index="layer", columns="head", values=pvalue) < 0.05 if pvalue else None
    box = {"facecolor": "white", "alpha": 0.7, "edgecolor": "none", "pad": 1.0}
    for y, x in np.ndindex(wide.shape):
        # Numbers are drawn only where there is room, stars always.
        text = f"{wide.iat[y, x]:.2f}" if wide.size <= 64 else ""
        if stars is not None and stars.iat[y, x]:
            text += "*"
        if text:
            ax.text(x, y, text, ha="center", va="center", fontsize=8, bbox=box)
    ax.set_xticks(range(wide.shape[1]), wide.columns)
    ax.set_yticks(range(wide.shape[0]), wide.index)
    ax.set(xlabel="head", ylabel="layer")
    ax.grid(visible=False)
    ax.tick_params(length=0)
    ax.figure.colorbar(image, ax=ax, label=label, pad=0.02)
    return ax


def gene_set_baam(ax: Axes, table: pd.DataFrame) -> Axes:
    """BAAM of gene sets with its interval, and the mean of the position-matched null (`alignment.baam_of_sets`)."""
    y = np.arange(len(table))
    ax.axvline(0.5, color=style.MUTED, linestyle="--", linewidth=1)
    ax.hlines(y, table["low"], table["high"], color=style.PALETTE[2], linewidth=2)
    ax.plot(table["baam"], y, "o", color=style.PALETTE[2], label="BAAM, 95% interval")
    ax.plot(table["matched"], y, "x", color=style.HIGHLIGHT, markeredgewidth=2, label="sets at the same places")
    names = [f"{row['set']} ({row['genes']})" for row in table.to_dict("records")]
    ax.set_yticks(y, names)
    ax.invert_yaxis()
    ax.set(xlim=(0, 1), xlabel="probability that a gene of the set gets more attention")
    ax.legend(loc="lower center", bbox_to_anchor=(0.4, 1.0), ncols=2, fontsize=7)
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
    ax.axhline(0.5, color=style.MUTED, linestyle="--", linewidth=1)
    ax.set_xticks(range(len(kinds)), kinds)
    ax.set(ylim=(0, 1.04), xlim=(-0.5, len(kinds) - 0.5), ylabel="BAAM, last layer")
    ax.legend(fontsize=7, loc="lower left", ncols=2)
    return ax


def score_correlations(ax: Axes, table: pd.DataFrame) -> Axes:
    """Spearman correlations between methods of scoring genes (`attribution.score_correlations`)."""
    image = ax.imshow(table, cmap=style.DIVERGING, vmin=-1, vmax=1)
    for y, x in np.ndindex(table.shape):
        if np.isfinite(table.iat[y, x]):
            shade = "white" if abs(table.iat[y, x]) > 0.6 else "black"
            ax.text(x, y, f"{table.iat[y, x]:.2f}", ha="center", va="center", fontsize=7, color=shade)
    ax.set_xticks(range(len(table)), table.columns, rotation=45, ha="right", fontsize=8)
    ax.set_yticks(range(len(table)), table.index, fontsize=8)
    ax.grid(visible=False)
    ax.tick_params(length=0)
    ax.figure.colorbar(image, ax=ax, label="Spearman correlation", pad=0.02)
    return ax


def planted_gene_recovery(ax: Axes, table: pd.DataFrame) -> Axes:
    """AUROC of planted genes by method and model, with intervals (`attribution_checks.mean_over_cohorts`)."""
    methods = list(dict.fromkeys(table["way"]))
    models = {
        "trained": (style.PALETTE[2], "o"),
        "random weights": (style.PALETTE[0], "s"),
        "no model": (style.PALETTE[1], "D"),
    }
    for (model, (colour, marker)), shift in zip(models.items(), (-0.15, 0.15, 0.0), strict=True):
        aurocs = table[table["model"] == model]
        y = aurocs["way"].map(methods.index) + shift
        ax.hlines(y, aurocs["auroc low"], aurocs["auroc high"], color=colour, linewidth=2)
        ax.plot(aurocs["auroc"], y, marker, color=colour, label=model)
    ax.axvline(0.5, color=style.MUTED, linestyle="--", linewidth=1)
    ax.set_yticks(range(len(methods)), methods)
    ax.invert_yaxis()
    ax.set(xlim=(0, 1.02), xlabel="AUROC of the genes that make the class")
    ax.legend(loc="lower center", bbox_to_anchor=(0.4, 1.0), ncols=3, fontsize=7)
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
    for x, method in enumerate(ranks.columns):
        share = (1 - (ranks[method] - 1) / max(n - 1, 1)).fillna(0)
        ax.scatter(
            [x] * len(ranks), range(len(ranks)), s=12 + 150 * share**3, c=share, cmap="viridis_r", vmin=0, vmax=1
        )
    ax.set_xticks(range(ranks.shape[1]), ranks.columns, rotation=45, ha="right", fontsize=8)
    ax.set_yticks(range(len(ranks)), [str(names.get(gene, gene)) for gene in ranks.index], fontsize=8)
    ax.invert_yaxis()
    ax.set_xlim(-0.6, ranks.shape[1] - 0.4)
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
    # clustermap lays its axes out itself.
    with plt.rc_context({"figure.constrained_layout.use": False}):
        clustered = sns.clustermap(
            logs,
            method="ward",
            cmap=style.DIVERGING,
            vmin=-limit,
            vmax=limit,
            mask=table.isna(),
            figsize=(size + 0.6, size),
            dendrogram_ratio=0.1,
            cbar_pos=(0.0, 0.88, 0.02, 0.1),
            cbar_kws={"label": label},
            xticklabels=True,
            yticklabels=True,
        )
    clustered.ax_heatmap.set_facecolor("#bbbbbb")
    clustered.ax_cbar.tick_params(labelsize=7)
    clustered.ax_cbar.yaxis.label.set_size(7)
    clustered.ax_heatmap.tick_params(axis="both", labelsize=7.5, length=0)
    clustered.ax_heatmap.set(xlabel="looked at", ylabel="looking")
    return clustered.figure


def rejection_rates(ax: Axes, table: pd.DataFrame, *, by: str) -> Axes:
    """False rejections of each null at 5%, with intervals (`alignment_checks.false_positive_rates`)."""
    groups = list(dict.fromkeys(table[by]))
    for (null, rates), colour, shift in zip(
        table.groupby("null", sort=False), style.PALETTE[1:], (-0.1, 0.1), strict=False
    ):
        x = rates[by].map(groups.index) + shift
        ax.vlines(x, rates["low"], rates["high"], color=colour, linewidth=2)
        ax.plot(x, rates["share"], "o", color=colour, label=f"{null} sets")
    ax.axhline(0.05, color=style.MUTED, linestyle="--", linewidth=1)
    ax.set_xticks(range(len(groups)), groups)
    ax.set(ylim=(0, 1.02), xlim=(-0.5, len(groups) - 0.5), ylabel="share called at 5%")
    ax.legend(fontsize=8)
    return ax


def baam_by_set_size(ax: Axes, table: pd.DataFrame) -> Axes:
    """BAAM of random gene sets by size, one dot per set (`alignment_checks.random_sets_by_size`)."""
    rng = np.random.default_rng(0)
    groups = sorted(set(table["size"]))
    x = table["size"].map(groups.index) + rng.uniform(-0.18, 0.18, len(table))
    ax.plot(x, table["baam"], ".", color=style.PALETTE[2], alpha=0.5)
    ax.axhline(0.5, color=style.MUTED, linestyle="--", linewidth=1)
    ax.set_xticks(range(len(groups)), [f"{size:g}" for size in groups])
    ax.set(ylim=(0, 1.02), xlabel="genes of the set", ylabel="BAAM of random sets")
    return ax
