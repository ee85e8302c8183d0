"""Plots of how well classes of genes are told apart; each takes an axes and gives it back."""

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from sklearn.metrics import roc_curve

from epigen_utils import style
from epigen_utils.gene_labels import PUBLISHED

#: Kinds of features that keep their colour whether a model was pretrained or not.
KINDS = ("fresh weights", "mean expression", "pretrained", "detection", "mean and detection", "coexpression")


def aucs(ax: Axes, rows: pd.DataFrame) -> Axes:
    """AUC with its interval by task and kind of features; the published mean with one standard deviation as a band.

    Parameters
    ----------
    rows
        ``task``, ``features``, ``auc``, ``low``, ``high``; `gene_classes.compare`.
    """
    tasks, kinds = (list(dict.fromkeys(rows[column])) for column in ("task", "features"))
    colour, marker = (pick(dict.fromkeys([*KINDS, *kinds])) for pick in (style.colours, style.markers))
    for place, task in enumerate(tasks):
        if task in PUBLISHED:
            mean, sd = PUBLISHED[task]["mean"], PUBLISHED[task]["sd"]
            ax.fill_betweenx([place - 0.42, place + 0.42], mean - sd, mean + sd, color=style.MUTED, alpha=0.3, lw=0)
            ax.plot(
                [mean, mean], [place - 0.42, place + 0.42], color="black", lw=1, ls="--", label="published, fine-tuned"
            )
    for shift, kind in enumerate(kinds):
        some = rows[rows["features"] == kind].set_index("task").reindex(tasks)
        y = np.arange(len(tasks)) + 0.7 * ((shift + 0.5) / len(kinds) - 0.5)
        error = [(some["auc"] - some["low"]).to_numpy(), (some["high"] - some["auc"]).to_numpy()]
        ax.errorbar(some["auc"], y, xerr=error, fmt=marker[kind], color=colour[kind], label=kind, markersize=5, lw=1.2)
    ax.axvline(0.5, color=style.MUTED, linewidth=0.8)
    names = [
        f"{task}\n{some['positive'].iloc[0]} v {some['negative'].iloc[0]}"
        for task, some in rows.groupby("task", sort=False)
    ]
    ax.set_yticks(range(len(tasks)), names)
    ax.set_ylim(len(tasks) - 0.5, -0.5)
    ax.set_xlim(min(0.3, rows["low"].min() - 0.02), 1.01)
    ax.set_xlabel("AUC of genes that were held out")
    ax.legend(loc="upper left", bbox_to_anchor=(1.01, 1), fontsize=8)
    return ax


def rocs(ax: Axes, scores: pd.DataFrame, *, title: str) -> Axes:
    """Mean over folds of the ROC curve of each kind of features, one task.

    Parameters
    ----------
    scores
        ``features``, ``repeat``, ``fold``, ``score``, ``is_positive``; `gene_classes.compare`.
    """
    grid = np.linspace(0, 1, 101)
    kinds = list(dict.fromkeys(scores["features"]))
    colour = style.colours(dict.fromkeys([*KINDS, *kinds]))
    for kind in kinds:
        curves = []
        for _, fold in scores[scores["features"] == kind].groupby(["repeat", "fold"]):
            false, true, _ = roc_curve(fold["is_positive"], fold["score"])
            curves.append(np.interp(grid, false, true))
        ax.plot(grid, np.r_[0, np.mean(curves, axis=0)[1:]], color=colour[kind], label=kind, linewidth=1.4)
    ax.plot([0, 1], [0, 1], color=style.MUTED, linewidth=0.8)
    ax.set_aspect("equal")
    ax.set_xlabel("share of negative genes")
    ax.set_ylabel("share of positive genes")
    ax.set_title(title)
    return ax
