"""Plots of classifications, by class and by donor; each draws on an axes and returns it."""

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.ticker import PercentFormatter
from scipy.cluster.hierarchy import leaves_list, linkage

from epigen_utils import scores, style


def confusion(ax: Axes, counts: pd.DataFrame) -> Axes:
    """Confusion counts, coloured by the share of the true class (`scores.confusion`)."""
    share = counts.div(counts.sum(axis=1).clip(lower=1), axis=0)
    ax.imshow(share, cmap="Blues", vmin=0, vmax=1, aspect="auto")
    for row, column in np.ndindex(counts.shape):
        dark = share.iat[row, column] > 0.5
        text = f"{share.iat[row, column]:.0%}\n{counts.iat[row, column]:,}"
        ax.text(column, row, text, ha="center", va="center", fontsize=8, color="white" if dark else "black")
    ax.set_xticks(range(len(counts)), counts.columns)
    ax.set_yticks(range(len(counts)), [f"{name}\n(n = {n:,})" for name, n in counts.sum(axis=1).items()])
    ax.set_xlabel("predicted")
    ax.set_ylabel("true")
    ax.spines[:].set_visible(False)
    ax.tick_params(length=0)
    return ax


def heatmap(ax: Axes, predictions: pd.DataFrame, *, most: int = 400, seed: int = 0) -> Axes:
    """Class probabilities of at most ``most`` random cells, clustered within each true class (paper B, Figure 6)."""
    names = scores.levels(predictions)
    sample = predictions.sample(min(most, len(predictions)), random_state=seed)
    columns, bounds = [], [0]
    for name in names:
        p = sample.loc[sample["true"] == name, [f"p_{level}" for level in names]].to_numpy()
        columns.append(p[leaves_list(linkage(p, "average"))] if len(p) > 2 else p)
        bounds.append(bounds[-1] + len(p))
    image = ax.imshow(np.vstack(columns).T, cmap="magma", vmin=0, vmax=1, aspect="auto", interpolation="nearest")
    for bound in bounds[1:-1]:
        ax.axvline(bound - 0.5, color="white", linewidth=1.5)
    middle = [(low + high) / 2 - 0.5 for low, high in zip(bounds, bounds[1:], strict=False)]
    ax.set_xticks(middle, [f"{name}\n(n = {n})" for name, n in zip(names, np.diff(bounds), strict=True)])
    ax.set_yticks(range(len(names)), names)
    ax.set_xlabel("cells, by their true class")
    ax.set_ylabel("predicted")
    ax.tick_params(length=0)
    ax.figure.colorbar(image, ax=ax, label="probability", pad=0.02)
    return ax


def model_scores(ax: Axes, table: pd.DataFrame, *, chance: float) -> Axes:
    """Macro-F1 of each model with its interval, and of the same model with labels permuted among donors.

    Parameters
    ----------
    table
        Columns ``model``, ``value``, ``low``, ``high`` and ``shuffled`` (NaN if not run).
    chance
        Macro-F1 of always predicting the largest class.
    """
    y = np.arange(len(table))
    ax.hlines(y, table["low"], table["high"], color=style.PALETTE[2], linewidth=2)
    ax.plot(table["value"], y, "o", color=style.PALETTE[2], label="held-out donors, 95% interval")
    ax.plot(table["shuffled"], y, "x", color=style.HIGHLIGHT, label="labels shuffled among donors")
    ax.axvline(chance, color=style.MUTED, linestyle="--", linewidth=1, label="largest class always")
    ax.set_yticks(y, table["model"])
    ax.invert_yaxis()
    ax.set_xlim(0, 1)
    ax.set_xlabel("macro-F1")
    ax.legend(loc="lower center", bbox_to_anchor=(0.5, 1.0), ncols=2, fontsize=8)
    return ax


def by_class(ax: Axes, table: pd.DataFrame, names: list[str]) -> Axes:
    """Precision, recall and F1 of each class with intervals (`scores.with_intervals`)."""
    table = table.set_index("score")
    for i, kind in enumerate(("precision", "recall", "F1")):
        values = table.loc[[f"{kind}, {name}" for name in names]]
        x = np.arange(len(names)) + 0.22 * (i - 1)
        ax.vlines(x, values["low"], values["high"], color=style.PALETTE[i + 1], linewidth=2)
        ax.plot(x, values["value"], "o", color=style.PALETTE[i + 1], label=kind)
    n_donors = [int(table.loc[f"recall, {name}", "donors"]) for name in names]
    ax.set_xticks(range(len(names)), [f"{name}\n({n} donors)" for name, n in zip(names, n_donors, strict=True)])
    ax.set_xlim(-0.6, len(names) - 0.4)
    ax.set_ylim(0, 1)
    ax.yaxis.set_major_formatter(PercentFormatter(1))
    ax.legend(ncols=3, loc="lower center", bbox_to_anchor=(0.5, 1.0), fontsize=8)
    return ax


def calibration(ax: Axes, table: pd.DataFrame) -> Axes:
    """Accuracy against the mean predicted probability, by bin (`scores.calibration`); dot area grows with cells."""
    ax.plot([0, 1], [0, 1], color=style.MUTED, linestyle="--", linewidth=1)
    ax.plot(table["said"], table["right"], color=style.PALETTE[2], linewidth=1)
    sizes = 15 + 185 * table["cells"] / table["cells"].max()
    ax.scatter(table["said"], table["right"], s=sizes, color=style.PALETTE[2], edgecolor="white")
    for row in table.itertuples():
        ax.annotate(f"{row.cells:,}", (row.said, row.right), xytext=(6, -10), textcoords="offset points", fontsize=7)
    ax.set_xlim(0, 1.04)
    ax.set_ylim(0, 1.04)
    for axis in (ax.xaxis, ax.yaxis):
        axis.set_major_formatter(PercentFormatter(1))
    ax.set_xlabel("probability of the named class")
    ax.set_ylabel("cells where it is right")
    return ax


def donors(ax: Axes, table: pd.DataFrame) -> Axes:
    """Share of each donor's cells predicted correctly, by class; donors that are predicted wrongly are black."""
    first = 0
    ticks = []
    for name, colour in style.colours(sorted(set(table["true"]))).items():
        members = table[table["true"] == name].sort_values("right")
        x = np.arange(first, first + len(members))
        wrong = (members["predicted"] != members["true"]).to_numpy()
        ax.vlines(x, 0, members["right"], color=colour, linewidth=1.2)
        ax.scatter(x, members["right"], s=26, color=np.where(wrong, "black", colour), zorder=3)
        ticks.append((x.mean(), f"{name}\n({len(members)} donors)"))
        first += len(members) + 1
    ax.set_xticks(*zip(*ticks, strict=True))
    ax.set_ylim(0, 1.03)
    ax.yaxis.set_major_formatter(PercentFormatter(1))
    ax.set_ylabel("cells named rightly")
    return ax


def points(ax: Axes, plane: np.ndarray, labels: np.ndarray, *, title: str, name: str = "UMAP") -> Axes:
    """Cells in two dimensions, coloured by a label; a legend for at most eight labels."""
    levels = sorted(set(labels))
    colour = style.colours(levels)
    for level in levels:
        rows = labels == level
        ax.scatter(
            *plane[rows].T,
            s=5,
            color=colour[level],
            edgecolor="none",
            label=f"{level} ({rows.sum():,})",
            rasterized=True,
        )
    ax.set_xlabel(f"{name} 1")
    ax.set_ylabel(f"{name} 2")
    ax.set_xticks([])
    ax.set_yticks([])
    ax.set_title(title)
    if len(levels) <= 8:
        ax.legend(markerscale=3, fontsize=7, loc="upper center", bbox_to_anchor=(0.5, -0.1), ncols=min(len(levels), 4))
    return ax
