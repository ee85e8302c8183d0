import matplotlib.pyplot as plt
import numpy as np
import pandas as pd

from epigen_utils.plots import embedding_plots

LABELS = pd.Series(pd.Categorical(list("aaabbb"), ["b", "a"]), index=[f"s{i}" for i in range(6)])


POINTS = pd.DataFrame(np.random.default_rng(0).normal(size=(6, 2)), LABELS.index, ["PC1", "PC2"])


def test_embedding_shows_every_sample_once_and_names_its_axes():
    ax = embedding_plots.projection(plt.figure().subplots(), POINTS, LABELS, shares=np.array([0.5, 0.25]), title="t")
    assert sum(len(drawn.get_offsets()) for drawn in ax.collections) == 6
    assert ax.get_xlabel() == "PC1 (50.0% of variance)"
    assert [text.get_text() for text in ax.legend().get_texts()] == ["b (n = 3)", "a (n = 3)"]


def test_values_of_cells_in_the_plane(ax):
    drawn = embedding_plots.values_in_plane(ax, POINTS, pd.Series(range(6), POINTS.index), label="time")
    assert drawn.collections[0].get_array().tolist() == [0, 1, 2, 3, 4, 5]
    assert ax.figure.axes[-1].get_ylabel() == "time"


def test_values_by_label_have_a_row_and_a_median_each(ax):
    labels = pd.Series(list("xxyyzz"), LABELS.index)
    drawn = embedding_plots.values_by_label(
        ax, pd.Series([0.0, 2, 4, 6, 8, 10], LABELS.index), labels, LABELS, xlabel="t"
    )
    assert [text.get_text() for text in drawn.get_yticklabels()] == ["x (n = 2)", "y (n = 2)", "z (n = 2)"]
    medians = [segment[0][0] for segment in drawn.collections[-1].get_segments()]
    assert medians == [1, 5, 9]


def test_orders_and_markers_and_curves(ax):
    table = pd.DataFrame({"order": ["a", "b"], "auc": [0.9, 0.5], "auc low": [0.8, 0.4], "auc high": [1.0, 0.6]})
    drawn = embedding_plots.order_aucs(ax, table)
    assert [text.get_text() for text in drawn.get_yticklabels()] == ["a", "b"]
    ax.clear()
    rows = [(order, gene, "up", rho) for order in ("a", "b") for gene, rho in (("G1", 0.5), ("G2", -0.2))]
    table = pd.DataFrame(rows, columns=["order", "gene", "expected", "spearman"])
    table = table.assign(**{"spearman low": table["spearman"] - 0.1, "spearman high": table["spearman"] + 0.1})
    drawn = embedding_plots.marker_correlations(ax, table, title="t")
    assert [text.get_text() for text in drawn.get_yticklabels()] == ["G1 (up)", "G2 (up)"]
    assert [line.get_xdata().tolist() for line in drawn.get_lines()[:2]] == [[0.5, -0.2], [0.5, -0.2]]
    ax.clear()
    table = pd.DataFrame({"gene": ["g"] * 3, "pseudotime": [0, 0.5, 1], "mean": [1, 2, 3]})
    drawn = embedding_plots.curves_along(ax, table.assign(low=table["mean"] - 1, high=table["mean"] + 1), title="t")
    assert drawn.get_lines()[0].get_ydata().tolist() == [1, 2, 3]
