"""Plots of classifications, by class and by donor; each draws on an axes and returns it."""

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from scipy.cluster.hierarchy import leaves_list, linkage
from sklearn.metrics import roc_curve

from epigen_utils.downstream.gene_labels import PUBLISHED_AUCS
from epigen_utils.plots import layout, style
from epigen_utils.stats import multiclass


def confusion_matrix(ax: Axes, counts: pd.DataFrame) -> Axes:
    """Confusion counts, coloured by the share of the true class (`multiclass.confusion_counts`)."""
    share = counts.div(counts.sum(axis=1).clip(lower=1), axis=0)
    notes = share.map("{:.0%}".format) + "\n" + counts.map("{:,}".format)
    share.index = [f"{name}\n(n = {n:,})" for name, n in counts.sum(axis=1).items()]
    layout.annotated_matrix(ax, share, notes, white=share > 0.5, cmap="Blues", vmin=0, vmax=1)
    ax.set(xlabel="predicted", ylabel="true")
    ax.spines[:].set_visible(False)
    return ax


def printed_confusion(ax: Axes, shares: pd.DataFrame, sizes: pd.Series, *, title: str) -> Axes:
    """A confusion matrix as a paper prints it: shares of the true class, without counts.

    Parameters
    ----------
    shares
        True x predicted class, as printed (strings).
    sizes
        Cells of each true class.
    """
    value = shares.astype(float)
    value.index = [f"{name}\n(n = {sizes[name]:,})" for name in shares.index]
    notes = shares.map(lambda word: f"0{word}" if word.startswith(".") else word)
    layout.annotated_matrix(ax, value, notes, white=value > 0.5, cmap="Blues", vmin=0, vmax=1)
    ax.set(xlabel="predicted", ylabel="true", title=title)
    ax.spines[:].set_visible(False)
    return ax


def probability_heatmap(ax: Axes, predictions: pd.DataFrame, *, max_cells: int = 400, seed: int = 0) -> Axes:
    """Class probabilities of up to ``max_cells`` random cells, clustered within true classes (paper B, Figure 6)."""
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
    ax.set(xlabel="cells by true class", ylabel="predicted")
    ax.tick_params(length=0)
    ax.figure.colorbar(image, ax=ax, label="probability", pad=0.02)
    return ax


def score_by_model(
    ax: Axes,
    table: pd.DataFrame,
    *,
    score: str = "macro-F1",
    ends: tuple[str, str] = ("low", "high"),
    chance: float,
    published: dict[str, float] | None = None,
    donors: pd.DataFrame | None = None,
) -> Axes:
    """A score of each model on held-out donors with its interval, where there is one, beside chance and a paper's.

    Parameters
    ----------
    table
        Columns ``model``, the one named by ``score``, and its ``ends``; with ``shuffled`` (NaN if not run), macro-F1 of
        the same model with labels permuted among donors is drawn too.
    chance
        The score of always predicting the largest class.
    published
        Model -> the score that a paper prints, on its own data.
    donors
        Columns ``model`` and ``accuracy``, a row a donor, drawn as small dots.
    """
    y = {name: i for i, name in enumerate(table["model"])}
    if donors is not None:
        dots = {"s": 9, "color": style.MUTED, "edgecolor": "none", "alpha": 0.6}
        ax.scatter(donors["accuracy"], donors["model"].map(y), label="one donor", zorder=0, **dots)
    with_ends = table[ends[0]].notna().any()
    layout.intervals(ax, table, score, ends=ends, label="all cells" + (", 95% interval" if with_ends else ""))
    if score == "macro-F1" and "shuffled" in table:
        ax.plot(table["shuffled"], range(len(table)), "x", color=style.HIGHLIGHT, label="labels permuted among donors")
    if published:
        at = [y[name] + 0.25 for name in published]
        ax.plot(list(published.values()), at, "D", color="black", markerfacecolor="white", label="paper, its own data")
    ax.axvline(chance, label="always the largest class", **style.DASHED)
    layout.rows(ax, table["model"])
    ax.set(xlim=(0, 1.02), xlabel=score)
    layout.legend_above(ax, ncols=2, fontsize=8)
    return ax


def scores_by_class(
    ax: Axes, table: pd.DataFrame, classes: list[str], *, published: pd.DataFrame | None = None
) -> Axes:
    """Precision, recall and F1 of each class with intervals, where there are any (`multiclass.scores_with_intervals`).

    Parameters
    ----------
    published
        Columns ``precision``, ``recall`` and ``f1`` by class, as a paper prints them, drawn hollow.
    """
    table = table.set_index("score")
    for i, kind in enumerate(("precision", "recall", "F1")):
        values = table.loc[[f"{kind}, {name}" for name in classes]]
        at = np.arange(len(classes)) + 0.22 * (i - 1)
        colour = style.PALETTE[i + 1]
        layout.intervals(ax, values, "value", at=at, vertical=True, colour=colour, label=kind)
        if published is not None:
            hollow = {"color": colour, "markerfacecolor": "white", "zorder": 3}
            ax.plot(at + 0.08, published.loc[classes, kind.lower()], "D", markersize=5, **hollow)
    n_donors = [int(table.loc[f"recall, {name}", "donors"]) for name in classes]
    names = [f"{name}\n({n} donors)" for name, n in zip(classes, n_donors, strict=True)]
    _class_columns(ax, names)
    return ax


def printed_scores_by_class(ax: Axes, table: pd.DataFrame) -> Axes:
    """Precision, recall and F1 of each class as a paper prints them.

    Parameters
    ----------
    table
        Columns ``precision``, ``recall``, ``f1`` and ``n`` (cells) by class.
    """
    for i, kind in enumerate(("precision", "recall", "F1")):
        at = np.arange(len(table)) + 0.22 * (i - 1)
        ax.plot(at, table[kind.lower()], "D", color=style.PALETTE[i + 1], markerfacecolor="white", label=kind)
        for x, value in zip(at, table[kind.lower()], strict=True):
            note = {"xytext": (0, -7), "textcoords": "offset points", "ha": "center", "va": "top"}
            ax.annotate(f"{value:.1%}", (x, value), rotation=90, fontsize=7, **note)
    _class_columns(ax, [f"{name}\n(n = {n:,})" for name, n in table["n"].items()])
    return ax


def _class_columns(ax: Axes, names: list[str]) -> None:
    layout.columns(ax, names, margin=0.6)
    ax.set_ylim(0, 1)
    layout.percent(ax, "y")
    layout.legend_above(ax, ncols=3, fontsize=8)


def calibration_curve(ax: Axes, table: pd.DataFrame) -> Axes:
    """Accuracy against mean predicted probability (`multiclass.probability_calibration`); dot area grows with cells."""
    ax.plot([0, 1], [0, 1], **style.DASHED)
    ax.plot(table["said"], table["right"], color=style.PALETTE[2], linewidth=1)
    sizes = 15 + 185 * table["cells"] / table["cells"].max()
    ax.scatter(table["said"], table["right"], s=sizes, color=style.PALETTE[2], edgecolor="white")
    for row in table.itertuples():
        ax.annotate(f"{row.cells:,}", (row.said, row.right), xytext=(6, -10), textcoords="offset points", fontsize=7)
    layout.percent(ax, "xy")
    limits = (0, 1.04)
    ax.set(
        xlim=limits,
        ylim=limits,
        xlabel="probability of the predicted class",
        ylabel="share of cells predicted correctly",
    )
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
    layout.percent(ax, "y")
    ax.set(ylim=(0, 1.03), ylabel="share of cells predicted correctly")
    return ax


def cell_projection(ax: Axes, coordinates: np.ndarray, labels: np.ndarray, *, title: str, method: str = "UMAP") -> Axes:
    """Cells in two dimensions, coloured by a label; a legend for at most eight labels."""
    levels = sorted(set(labels))
    dots = {"s": 5, "edgecolor": "none", "rasterized": True}
    for level, colour in style.colours(levels).items():
        rows = labels == level
        ax.scatter(*coordinates[rows].T, color=colour, label=f"{level} ({rows.sum():,})", **dots)
    ax.set(xlabel=f"{method} 1", ylabel=f"{method} 2", xticks=[], yticks=[], title=title)
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
        Columns ``task``, ``positive``, ``negative``, ``features``, ``auc``, ``low``, ``high``
        (`gene_classes.compare_features`).
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
        look = {"marker": marker[kind], "colour": colour[kind], "label": kind, "linewidth": 1.2}
        layout.error_bars(ax, values, "auc", y, **look)
    ax.axvline(0.5, **style.THIN)
    first = table.drop_duplicates("task")
    layout.rows(ax, [f"{row.task}\n{row.positive} v {row.negative}" for row in first.itertuples()], margin=0.5)
    ax.set(xlim=(min(0.3, table["low"].min() - 0.02), 1.01), xlabel="AUC on held-out genes")
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
    ax.plot([0, 1], [0, 1], **style.THIN)
    ax.set(aspect="equal", xlabel="share of negative genes", ylabel="share of positive genes", title=title)
    return ax
