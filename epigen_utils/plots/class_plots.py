"""Plots of classifications, by class and by donor; each draws on an axes and returns it."""

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.ticker import PercentFormatter
from scipy.cluster.hierarchy import leaves_list, linkage
from sklearn.metrics import roc_curve

from epigen_utils.downstream.gene_labels import PUBLISHED_AUCS
from epigen_utils.plots import style
from epigen_utils.stats import multiclass


def confusion_matrix(ax: Axes, counts: pd.DataFrame) -> Axes:
    """Confusion counts, coloured by the share of the true class (`multiclass.confusion_counts`)."""
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


def probability_heatmap(ax: Axes, predictions: pd.DataFrame, *, max_cells: int = 400, seed: int = 0) -> Axes:
    """Class probabilities of at most ``max_cells`` random cells, clustered within each true class (paper B, Figure 6)."""
    names = multiclass.class_names(predictions)
    sample = predictions.sample(min(max_cells, len(predictions)), random_state=seed)
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


def macro_f1_by_model(ax: Axes, table: pd.DataFrame, *, chance: float) -> Axes:
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


def scores_by_class(ax: Axes, table: pd.DataFrame, classes: list[str]) -> Axes:
    """Precision, recall and F1 of each class with intervals (`multiclass.scores_with_intervals`)."""
    table = table.set_index("score")
    for i, kind in enumerate(("precision", "recall", "F1")):
        values = table.loc[[f"{kind}, {name}" for name in classes]]
        x = np.arange(len(classes)) + 0.22 * (i - 1)
        ax.vlines(x, values["low"], values["high"], color=style.PALETTE[i + 1], linewidth=2)
        ax.plot(x, values["value"], "o", color=style.PALETTE[i + 1], label=kind)
    n_donors = [int(table.loc[f"recall, {name}", "donors"]) for name in classes]
    ax.set_xticks(range(len(classes)), [f"{name}\n({n} donors)" for name, n in zip(classes, n_donors, strict=True)])
    ax.set_xlim(-0.6, len(classes) - 0.4)
    ax.set_ylim(0, 1)
    ax.yaxis.set_major_formatter(PercentFormatter(1))
    ax.legend(ncols=3, loc="lower center", bbox_to_anchor=(0.5, 1.0), fontsize=8)
    return ax


def calibration_curve(ax: Axes, table: pd.DataFrame) -> Axes:
    """Accuracy against the mean predicted probability, by bin (`multiclass.probability_calibration`); dot area grows with cells."""
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


def donor_accuracy(ax: Axes, table: pd.DataFrame) -> Axes:
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


def cell_projection(ax: Axes, coordinates: np.ndarray, labels: np.ndarray, *, title: str, method: str = "UMAP") -> Axes:
    """Cells in two dimensions, coloured by a label; a legend for at most eight labels."""
    levels = sorted(set(labels))
    colour = style.colours(levels)
    for level in levels:
        rows = labels == level
        ax.scatter(
            *coordinates[rows].T,
            s=5,
            color=colour[level],
            edgecolor="none",
            label=f"{level} ({rows.sum():,})",
            rasterized=True,
        )
    ax.set_xlabel(f"{method} 1")
    ax.set_ylabel(f"{method} 2")
    ax.set_xticks([])
    ax.set_yticks([])
    ax.set_title(title)
    if len(levels) <= 8:
        ax.legend(markerscale=3, fontsize=7, loc="upper center", bbox_to_anchor=(0.5, -0.1), ncols=min(len(levels), 4))
    return ax


#: Kinds of features in the order of their colours, which thus do not depend on the kinds that a table has.
GENE_FEATURES = ("fresh weights", "mean expression", "pretrained", "detection", "mean and detection", "coexpression")


def gene_class_aucs(ax: Axes, table: pd.DataFrame) -> Axes:
    """AUC with its interval by task and kind of features; published means with one standard deviation as bands.

    Parameters
    ----------
    table
        Columns ``task``, ``positive``, ``negative``, ``features``, ``auc``, ``low``, ``high`` (`gene_classes.compare_features`).
    """
    tasks, kinds = (list(dict.fromkeys(table[column])) for column in ("task", "features"))
    levels = dict.fromkeys([*GENE_FEATURES, *kinds])
    colour, marker = style.colours(levels), style.markers(levels)
    for y, task in enumerate(tasks):
        if task in PUBLISHED_AUCS:
            mean, sd = PUBLISHED_AUCS[task]["mean"], PUBLISHED_AUCS[task]["sd"]
            ends = [y - 0.42, y + 0.42]
            ax.fill_betweenx(ends, mean - sd, mean + sd, color=style.MUTED, alpha=0.3, lw=0)
            ax.plot([mean, mean], ends, color="black", lw=1, ls="--", label="published, fine-tuned")
    for shift, kind in enumerate(kinds):
        values = table[table["features"] == kind].set_index("task").reindex(tasks)
        y = np.arange(len(tasks)) + 0.7 * ((shift + 0.5) / len(kinds) - 0.5)
        error = [(values["auc"] - values["low"]).to_numpy(), (values["high"] - values["auc"]).to_numpy()]
        ax.errorbar(
            values["auc"], y, xerr=error, fmt=marker[kind], color=colour[kind], label=kind, markersize=5, lw=1.2
        )
    ax.axvline(0.5, color=style.MUTED, linewidth=0.8)
    names = [
        f"{task}\n{group['positive'].iloc[0]} v {group['negative'].iloc[0]}"
        for task, group in table.groupby("task", sort=False)
    ]
    ax.set_yticks(range(len(tasks)), names)
    ax.set_ylim(len(tasks) - 0.5, -0.5)
    ax.set_xlim(min(0.3, table["low"].min() - 0.02), 1.01)
    ax.set_xlabel("AUC of genes that were held out")
    ax.legend(loc="upper left", bbox_to_anchor=(1.01, 1), fontsize=8)
    return ax


def gene_class_roc_curves(ax: Axes, scores: pd.DataFrame, *, title: str) -> Axes:
    """ROC curves of one task, averaged over folds, one per kind of features.

    Parameters
    ----------
    scores
        Columns ``features``, ``repeat``, ``fold``, ``score`` and ``is_positive`` (`gene_classes.compare_features`).
    """
    grid = np.linspace(0, 1, 101)
    kinds = list(dict.fromkeys(scores["features"]))
    colour = style.colours(dict.fromkeys([*GENE_FEATURES, *kinds]))
    for kind in kinds:
        curves = []
        for _, fold in scores[scores["features"] == kind].groupby(["repeat", "fold"]):
            fpr, tpr, _ = roc_curve(fold["is_positive"], fold["score"])
            curves.append(np.interp(grid, fpr, tpr))
        ax.plot(grid, np.r_[0, np.mean(curves, axis=0)[1:]], color=colour[kind], label=kind, linewidth=1.4)
    ax.plot([0, 1], [0, 1], color=style.MUTED, linewidth=0.8)
    ax.set_aspect("equal")
    ax.set_xlabel("share of negative genes")
    ax.set_ylabel("share of positive genes")
    ax.set_title(title)
    return ax
