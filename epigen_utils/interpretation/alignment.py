"""Plots of the classification of genes; each draws on an axes and returns it."""

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from sklearn.metrics import roc_curve

from epigen_utils import style
from epigen_utils.gene_labels import PUBLISHED

#: Kinds of features in the order of their colours, which thus do not depend on the kinds that a table has.
KINDS = ("fresh weights", "mean expression", "pretrained", "detection", "mean and detection", "coexpression")


def aucs(ax: Axes, rows: pd.DataFrame) -> Axes:
    """AUC with its interval by task and kind of features; published means with one standard deviation as bands.

    Parameters
    ----------
    rows
        Columns ``task``, ``positive``, ``negative``, ``features``, ``auc``, ``low``, ``high`` (`gene_classes.compare`).
    """
    tasks, kinds = (list(dict.fromkeys(rows[column])) for column in ("task", "features"))
    levels = dict.fromkeys([*KINDS, *kinds])
    colour, marker = style.colours(levels), style.markers(levels)
    for y, task in enumerate(tasks):
        if task in PUBLISHED:
            mean, sd = PUBLISHED[task]["mean"], PUBLISHED[task]["sd"]
            ends = [y - 0.42, y + 0.42]
            ax.fill_betweenx(ends, mean - sd, mean + sd, color=style.MUTED, alpha=0.3, lw=0)
            ax.plot([mean, mean], ends, color="black", lw=1, ls="--", label="published, fine-tuned")
    for shift, kind in enumerate(kinds):
        values = rows[rows["features"] == kind].set_index("task").reindex(tasks)
        y = np.arange(len(tasks)) + 0.7 * ((shift + 0.5) / len(kinds) - 0.5)
        error = [(values["auc"] - values["low"]).to_numpy(), (values["high"] - values["auc"]).to_numpy()]
        ax.errorbar(
            values["auc"], y, xerr=error, fmt=marker[kind], color=colour[kind], label=kind, markersize=5, lw=1.2
        )
    ax.axvline(0.5, color=style.MUTED, linewidth=0.8)
    names = [
        f"{task}\n{group['positive'].iloc[0]} v {group['negative'].iloc[0]}"
        for task, group in rows.groupby("task", sort=False)
    ]
    ax.set_yticks(range(len(tasks)), names)
    ax.set_ylim(len(tasks) - 0.5, -0.5)
    ax.set_xlim(min(0.3, rows["low"].min() - 0.02), 1.01)
    ax.set_xlabel("AUC of genes that were held out")
    ax.legend(loc="upper left", bbox_to_anchor=(1.01, 1), fontsize=8)
    return ax


def rocs(ax: Axes, scores: pd.DataFrame, *, title: str) -> Axes:
    """ROC curves of one task, averaged over folds, one per kind of features.

    Parameters
    ----------
    scores
        Columns ``features``, ``repeat``, ``fold``, ``score`` and ``is_positive`` (`gene_classes.compare`).
    """
    grid = np.linspace(0, 1, 101)
    kinds = list(dict.fromkeys(scores["features"]))
    colour = style.colours(dict.fromkeys([*KINDS, *kinds]))
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
