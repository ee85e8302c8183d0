import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import pytest
from scipy.cluster.hierarchy import linkage
from scipy.spatial.distance import squareform

from epigen_utils import plots, style


@pytest.fixture(autouse=True)
def _close():
    yield
    plt.close("all")


LABELS = pd.Series(pd.Categorical(list("aaabbb"), ["b", "a"]), index=[f"s{i}" for i in range(6)])
POINTS = pd.DataFrame(np.random.default_rng(0).normal(size=(6, 2)), LABELS.index, ["PC1", "PC2"])


def test_embedding_shows_every_sample_once_and_names_its_axes():
    ax = plots.embedding(plt.figure().subplots(), POINTS, LABELS, shares=np.array([0.5, 0.25]), title="t")
    assert sum(len(drawn.get_offsets()) for drawn in ax.collections) == 6
    assert ax.get_xlabel() == "PC1 (50.0% of variance)"
    assert [text.get_text() for text in ax.legend().get_texts()] == ["b (n = 3)", "a (n = 3)"]


def test_shares_give_the_running_sum():
    ax = plots.shares(plt.figure().subplots(), pd.Series([0.2, 0.5, 0.3], ["x", "y", "z"]), label="share")
    assert [text.get_text() for text in ax.texts] == ["50%", "80%", "100%"]
    assert [text.get_text() for text in ax.get_yticklabels()] == ["y", "z", "x"]


def test_bars_are_in_the_order_of_the_groups():
    ax = plots.bars(plt.figure().subplots(), pd.Series(range(6), LABELS.index), LABELS, ylabel="depth")
    assert [text.get_text() for text in ax.get_xticklabels()] == ["s3", "s4", "s5", "s0", "s1", "s2"]
    assert [patch.get_height() for patch in ax.patches] == [3, 4, 5, 0, 1, 2]


def test_ward_on_pearson_against_numpy():
    table = pd.DataFrame(np.random.default_rng(0).normal(size=(6, 9)))
    distance = 1 - np.corrcoef(table)
    np.fill_diagonal(distance, 0)
    np.testing.assert_allclose(plots.ward_on_pearson(table), linkage(squareform(distance, checks=False), "ward"))


def test_heatmap_leaves_constant_genes_out_and_shows_names_as_text():
    table = pd.DataFrame(np.random.default_rng(0).normal(size=(6, 4)), LABELS.index, list("wxyz"))
    table["w"] = 1.0
    figure = plots.heatmap(table, LABELS, names=pd.Series({"x": "<b>$x$</b>"}), value="log2 count")
    figure.canvas.draw()
    names = {text.get_text() for ax in figure.axes for text in ax.get_yticklabels()}
    assert "<b>$x$</b>" in names
    assert "w" not in names
    with pytest.raises(ValueError, match="at least two genes"):
        plots.heatmap(table[["w", "x"]], LABELS, value="v")


def test_panels():
    _, axes = plots.panels(3, columns=2, width=2, height=1)
    assert len(axes) == 3


def test_groups_differ_by_colour_and_marker():
    levels = [f"g{i}" for i in range(8)]
    assert len(set(style.colours(levels).values())) == 8
    assert len(set(style.markers(levels).values())) == 8


RESULTS = pd.DataFrame(
    {
        "baseMean": [10.0, 100, 0.5],
        "log2FoldChange": [2.0, -1, 0],
        "pvalue": [1e-9, 0.5, np.nan],
        "padj": [1e-8, 0.6, np.nan],
    },
    index=["g1", "g2", "g3"],
)


def test_volcano_counts_and_names_what_is_called():
    ax = plots.volcano(plt.figure().subplots(), RESULTS, pd.Series({"g1": "Gria1", "g2": "x", "g3": "y"}), alpha=0.05)
    assert [text.get_text() for text in ax.get_legend().get_texts()] == ["not called (1)", "called (1)"]
    assert [text.get_text() for text in ax.texts] == ["Gria1"]


def test_mean_against_change_and_pvalues():
    ax = plots.mean_against_change(plt.figure().subplots(), RESULTS, alpha=0.05)
    assert sum(len(drawn.get_offsets()) for drawn in ax.collections) == 3
    ax.figure.canvas.draw()
    assert not any("mathdefault" in text.get_text() for text in ax.get_xticklabels())
    ax = plots.pvalues(plt.figure().subplots(), RESULTS)
    assert sum(patch.get_height() for patch in ax.patches) == 2


def test_intervals_and_scores():
    rows = pd.DataFrame(
        {
            "human": ["SST"],
            "gene": ["Sst"],
            "contrast": ["KO"],
            "log2FoldChange": [0.2],
            "low": [-1],
            "high": [1.4],
            "reported": [-0.8],
        }
    )
    ax = plots.intervals(plt.figure().subplots(), rows)
    assert [text.get_text() for text in ax.get_yticklabels()] == ["SST: Sst, KO"]
    assert ax.lines[1].get_xdata().tolist() == [-0.8]
    ax = plots.scores(plt.figure().subplots(), pd.Series(range(6), LABELS.index), LABELS, title="t")
    assert [text.get_text() for text in ax.get_xticklabels()] == ["b", "a"]
