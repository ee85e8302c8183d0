"""Plots of gene sentences; each draws on an axes and returns it."""

import numpy as np
import pandas as pd
from matplotlib.axes import Axes

from epigen_utils.plots import layout, style


def sentence_words(ax: Axes, table: pd.DataFrame, *, n_bins: int, columns: int = 8) -> Axes:
    """The first genes of a sentence, in reading order, coloured by expression bin.

    Parameters
    ----------
    table
        Columns ``gene`` and ``bin`` (0 lowest), in the order of the sentence.
    """
    shades = [(1 - 0.75 * share, 1 - 0.45 * share, 1 - 0.15 * share) for share in np.linspace(0, 1, max(n_bins, 2))]
    for i, row in enumerate(table.itertuples()):
        x, y = i % columns, i // columns
        box = {"facecolor": shades[row.bin], "edgecolor": "none", "boxstyle": "round,pad=0.35"}
        colour = "white" if row.bin > 0.75 * n_bins else "black"
        ax.text(x, y, f"{row.gene}\n{row.bin + 1}", ha="center", va="center", fontsize=7, bbox=box, color=colour)
    ax.set(xlim=(-0.6, columns - 0.4), ylim=((len(table) - 1) // columns + 0.6, -0.6))
    ax.axis("off")
    return ax


def coverage_by_length(ax: Axes, table: pd.DataFrame, *, marks: dict[str, float]) -> Axes:
    """Shares of expressed genes and of counts in a sentence, against its length (`sentences.sentence_coverage`).

    Parameters
    ----------
    marks
        Name -> marked length.
    """
    for column, label, colour in (("genes", "expressed genes", 1), ("counts", "counts", 2)):
        ax.plot(table["length"], table[column], color=style.PALETTE[colour], label=label)
    for (name, length), dash in zip(marks.items(), ("--", ":", "-."), strict=False):
        ax.axvline(length, color=style.MUTED, linestyle=dash, linewidth=1.2, label=f"{name} ({length:,.0f})")
    layout.log_scale(ax, "x", form="{x:,.0f}", base=2)
    layout.percent(ax, "y")
    ax.set(ylim=(0, 1.03), xlabel="genes in the sentence", ylabel="share kept")
    ax.legend(fontsize=7, loc="upper left")
    return ax


def r2_by_bins(ax: Axes, table: pd.DataFrame, *, rank_r2: float) -> Axes:
    """Variance of expression explained (R²) against the number of bins, one line per kind of bins.

    Parameters
    ----------
    table
        Columns ``kind``, ``bins`` and ``r2``.
    rank_r2
        R² of ranks alone.
    """
    kinds = {f"bins by {kind}": part for kind, part in table.groupby("kind", sort=False)}
    layout.lines(ax, kinds.items(), "bins", "r2")
    ax.axhline(rank_r2, color="black", linestyle="--", linewidth=1, label="ranks alone")
    layout.log_scale(ax, "x", form="{x:,.0f}", base=2)
    ax.set(xlabel="bins", ylabel="R², held-out samples")
    ax.legend(fontsize=7)
    return ax


def decoded_against_true(ax: Axes, true: np.ndarray, decoded: np.ndarray, *, label: str) -> Axes:
    """Expression decoded from sentences against true expression, one dot per gene."""
    ax.scatter(true, decoded, s=3, color=style.PALETTE[2], alpha=0.15, edgecolor="none", rasterized=True)
    top = max(float(np.max(true)), float(np.max(decoded))) * 1.03
    ax.plot([0, top], [0, top], color="black", linewidth=0.8)
    ax.set(xlim=(0, top), ylim=(0, top), xlabel="log2 expression", ylabel=f"decoded from {label}")
    return ax


def zero_shot_attention(ax: Axes, tables: dict[str, pd.DataFrame]) -> Axes:
    """Attention by relative position in the sentence, one line per model (`zero_shot.text_attention_by_position`)."""
    layout.lines(ax, tables.items(), "place", "attention")
    ax.axhline(1, **style.DASHED)
    layout.percent(ax, "x")
    ax.set(xlabel="position in the sentence", ylabel="attention relative to uniform", ylim=(0, None))
    ax.legend(fontsize=8)
    return ax
