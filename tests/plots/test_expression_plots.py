import matplotlib
import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import pytest

from epigen_utils.expression import sample_quality
from epigen_utils.plots import expression_plots, score_plots, style


def test_upset_counts_each_gene_once():
    figure = expression_plots.upset({"one": {"a", "b", "c"}, "two": {"c", "d"}, "none": set()})
    above, below = figure.axes
    assert [text.get_text() for text in above.texts] == ["2", "1", "1"]
    assert [text.get_text() for text in below.get_yticklabels()] == ["one (3)", "two (2)", "none (0)"]


@pytest.fixture(autouse=True)
def _close():
    yield
    plt.close("all")


LABELS = pd.Series(pd.Categorical(list("aaabbb"), ["b", "a"]), index=[f"s{i}" for i in range(6)])


def test_bars_are_in_the_order_of_the_groups():
    ax = expression_plots.sample_bars(
        plt.figure().subplots(), pd.Series(range(6), LABELS.index), LABELS, ylabel="depth"
    )
    assert [text.get_text() for text in ax.get_xticklabels()] == ["s3", "s4", "s5", "s0", "s1", "s2"]
    assert [patch.get_height() for patch in ax.patches] == [3, 4, 5, 0, 1, 2]


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
    ax = expression_plots.volcano(
        plt.figure().subplots(), RESULTS, pd.Series({"g1": "Gria1", "g2": "x", "g3": "y"}), alpha=0.05
    )
    assert [text.get_text() for text in ax.get_legend().get_texts()] == ["not called (1)", "called (1)"]
    assert [text.get_text() for text in ax.texts] == ["Gria1"]


def test_mean_against_change_and_pvalues():
    ax = expression_plots.ma_plot(plt.figure().subplots(), RESULTS, alpha=0.05)
    assert sum(len(drawn.get_offsets()) for drawn in ax.collections) == 3
    ax.figure.canvas.draw()
    assert not any("mathdefault" in text.get_text() for text in ax.get_xticklabels())
    ax = expression_plots.pvalue_histogram(plt.figure().subplots(), RESULTS)
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
    ax = expression_plots.fold_change_intervals(plt.figure().subplots(), rows)
    assert [text.get_text() for text in ax.get_yticklabels()] == ["SST: Sst, KO"]
    assert [line.get_xydata().tolist() for line in ax.lines[:2]] == [[[0.2, 0]], [[-0.8, 0]]]
    assert ax.collections[0].get_segments()[0].tolist() == [[-1, 0], [1.4, 0]]
    ax = score_plots.group_scores(plt.figure().subplots(), pd.Series(range(6), LABELS.index), LABELS, title="t")
    assert [text.get_text() for text in ax.get_xticklabels()] == ["b", "a"]


def test_dispersions_far_below_the_trend_are_drawn_at_the_edge():
    table = pd.DataFrame({"baseMean": [1.0, 10, 100], "genewise": [1e-8, 0.5, 0.1], "trend": 0.3, "final": 0.2})
    ax = expression_plots.dispersion_estimates(plt.figure().subplots(), table, trend="local")
    assert sorted(ax.collections[0].get_offsets()[:, 1]) == pytest.approx([0.001, 0.1, 0.5])
    assert [text.get_text() for text in ax.get_legend().get_texts()] == ["gene's own", "tested with", "local trend"]


def test_values_by_group_have_means_or_a_line_for_each_level_of_another_factor():
    values = pd.Series([1.0, 2, 3, 4, 5, 9], LABELS.index)
    ax = expression_plots.values_by_group(plt.figure().subplots(), values, LABELS, title="gene")
    assert [text.get_text() for text in ax.get_xticklabels()] == ["b", "a"]
    means = sorted(
        segment[0][1] for drawn in ax.collections if hasattr(drawn, "get_segments") for segment in drawn.get_segments()
    )
    assert means == [2, 6]
    other = pd.Series(list("xyyxxy"), LABELS.index)
    ax = expression_plots.values_by_group(plt.figure().subplots(), values, LABELS, other=other, title="gene")
    assert [line.get_xydata().tolist() for line in ax.lines] == [[[0, 4.5], [1, 1]], [[0, 9], [1, 2.5]]]
    table = pd.DataFrame({"g1": values, "g2": values, "g3": values, "g4": values})
    figure = expression_plots.genes_by_group(table, LABELS, list("1234"), other=other, ylabel="log2")
    assert [ax.get_title(loc="left") for ax in figure.axes] == ["1", "2", "3", "4"]
    assert [ax.get_ylabel() for ax in figure.axes] == ["log2", "", "", "log2"]
    assert [text.get_text() for text in figure.legends[0].get_texts()] == ["x", "y"]
    assert not expression_plots.genes_by_group(table, LABELS, list("1234"), ylabel="log2").legends


def test_enrichment_colours_what_is_below_the_rate():
    table = pd.DataFrame({"set": ["up", "down"], "NES": [2.0, -1.0], "FDR": [0.01, 0.4]})
    ax = expression_plots.enrichment_scores(plt.figure().subplots(), table, alpha=0.05)
    assert [text.get_text() for text in ax.get_yticklabels()] == ["down", "up"]
    assert [patch.get_width() for patch in ax.patches[:2]] == [-1, 2]
    assert matplotlib.colors.to_hex(ax.patches[1].get_facecolor()) == style.HIGHLIGHT


def test_components_and_metadata_mark_what_is_found():
    found = pd.DataFrame(
        {
            "column": ["batch", "batch", "sex", "sex"],
            "component": ["PC1", "PC2"] * 2,
            "variance": [0.6, 0.2] * 2,
            "R2": [0.9, 0.1, 0.2, 0.3],
            "padj": [0.01, 0.5, 0.5, 0.5],
        }
    )
    ax = expression_plots.component_heatmap(plt.figure().subplots(), found, alpha=0.05)
    assert [text.get_text() for text in ax.texts] == ["0.90*", "0.10", "0.20", "0.30"]
    assert [text.get_text() for text in ax.get_xticklabels()] == ["PC1\n60%", "PC2\n20%"]


def test_spread_and_outliers_show_every_gene_and_sample():
    table = pd.DataFrame(np.random.default_rng(0).poisson(5, size=(6, 200)), LABELS.index)
    table[0] = 1
    ax = expression_plots.sd_against_mean(plt.figure().subplots(), table, title="t")
    assert len(ax.collections[0].get_offsets()) == 199, "a constant gene has no spread"
    found = sample_quality.outlying_samples(table, LABELS)
    ax = expression_plots.sample_outliers(plt.figure().subplots(), found, limit=-5)
    assert sum(len(drawn.get_offsets()) for drawn in ax.collections) == 6
