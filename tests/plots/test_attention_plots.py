import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import pytest

from epigen_utils.plots import attention_plots


def heads():
    return pd.DataFrame(
        {"layer": [1, 1, 2, 2], "head": [1, 2, 1, 2], "baam": [0.4, 0.5, 0.6, 0.9], "padj": [1, 1, 1, 0.01]}
    )


def test_the_grid_marks_what_is_sure():
    ax = attention_plots.head_grid(plt.subplots()[1], heads(), value="baam", label="BAAM", centre=0.5, pvalue="padj")
    assert [text.get_text() for text in ax.texts] == ["0.40", "0.50", "0.60", "0.90*"]
    assert [text.get_position() for text in ax.texts] == [(0, 0), (1, 0), (0, 1), (1, 1)], "head, layer"
    assert ax.images[0].get_array().tolist() == [[0.4, 0.5], [0.6, 0.9]]
    assert ax.images[0].get_clim() == pytest.approx((0.1, 0.9)), "even about the centre"


def test_sets_stand_with_their_sizes_and_nulls():
    table = pd.DataFrame({"set": ["A"], "genes": [7], "baam": [0.6], "low": [0.5], "high": [0.7], "matched": [0.52]})
    ax = attention_plots.gene_set_baam(plt.subplots()[1], table)
    assert ax.get_yticklabels()[0].get_text() == "A (7)"
    _, baam, matched = ax.lines
    assert (baam.get_xydata().tolist(), matched.get_xydata().tolist()) == ([[0.6, 0]], [[0.52, 0]])
    assert ax.collections[0].get_segments()[0].tolist() == [[0.5, 0], [0.7, 0]]


def test_halves_calls_and_sizes():
    halves = pd.DataFrame(
        {"model": ["x", "x", "y", "y"], "half": ["prior", "other"] * 2, "baam": [0.5, 0.5, 0.9, 0.5], "matched": 0.5}
    )
    ax = attention_plots.set_halves_baam(plt.subplots()[1], halves)
    assert [label.get_text() for label in ax.get_xticklabels()] == ["x", "y"]
    np.testing.assert_allclose(ax.lines[0].get_xydata(), [[-0.18, 0.5], [0.82, 0.9]])
    np.testing.assert_allclose(ax.lines[3].get_xydata(), [[0.18, 0.5], [1.18, 0.5]])
    calls = pd.DataFrame(
        {"set": ["a", "a"], "null": ["random", "matched"], "share": [0.2, 0.05], "low": 0.0, "high": 0.5}
    )
    ax = attention_plots.rejection_rates(plt.subplots()[1], calls, by="set")
    assert len(ax.get_legend().get_texts()) == 2
    assert [line.get_xydata().tolist() for line in ax.lines[:2]] == [[[-0.1, 0.2]], [[0.1, 0.05]]]
    assert ax.collections[0].get_segments()[0].tolist() == [[-0.1, 0], [-0.1, 0.5]]
    sizes = pd.DataFrame({"size": [1, 1, 5], "baam": [0.1, 0.9, 0.5]})
    ax = attention_plots.baam_by_set_size(plt.subplots()[1], sizes)
    assert len(ax.get_xticklabels()) == 2
    x, y = ax.lines[0].get_data()
    assert (np.round(x).tolist(), y.tolist()) == ([0, 0, 1], [0.1, 0.9, 0.5])


def test_places_ways_and_recovery():
    lines = {"m": pd.DataFrame({"place": [0.1, 0.9], "attention": [2.0, 0.5]})}
    ax = attention_plots.attention_by_position(plt.subplots()[1], lines)
    assert ax.get_ylim()[0] == 0
    assert ax.lines[0].get_xydata().tolist() == [[0.1, 2], [0.9, 0.5]]
    matrix = pd.DataFrame([[1.0, -0.2], [-0.2, 1.0]], ["a", "b"], ["a", "b"])
    ax = attention_plots.score_correlations(plt.subplots()[1], matrix)
    assert [text.get_text() for text in ax.texts] == ["1.00", "-0.20", "-0.20", "1.00"]
    assert ax.images[0].get_array().tolist() == matrix.to_numpy().tolist()
    table = pd.DataFrame({"way": ["w", "w", "v"], "model": ["trained", "random weights", "no model"]})
    table = table.assign(auroc=[0.9, 0.5, 0.6], **{"auroc low": 0.5, "auroc high": 0.95})
    ax = attention_plots.planted_gene_recovery(plt.subplots()[1], table)
    assert len(ax.get_yticklabels()) == 2
    points = [line.get_xydata().ravel().tolist() for line in ax.lines[:3]]
    assert points == [[0.9, -0.15], [0.5, 0.15], [0.6, 1]], "trained, random weights, no model"
    places = pd.DataFrame({"one": [1.0, 9.0], "other": [np.nan, 2.0]}, ["a", "b"])
    ax = attention_plots.gene_rankings(plt.subplots()[1], places, pd.Series({"a": "A"}), n=10)
    assert [label.get_text() for label in ax.get_yticklabels()] == ["A", "b"]
    one, other = ax.collections
    assert (one.get_offsets().tolist(), other.get_offsets().tolist()) == ([[0, 0], [0, 1]], [[1, 0], [1, 1]])
    np.testing.assert_allclose(one.get_array(), [1, 1 / 9])
    np.testing.assert_allclose(other.get_array(), [0, 8 / 9])


def test_gene_gene_attention_is_clustered_with_its_names():
    rng = np.random.default_rng(0)
    table = pd.DataFrame(rng.uniform(0.2, 3, (8, 8)), list("abcdefgh"), list("abcdefgh"))
    table.iloc[0, 5] = np.nan
    figure = attention_plots.gene_pair_heatmap(table, label="log2")
    shown = {label.get_text() for ax in figure.axes for label in ax.get_yticklabels()}
    assert set("abcdefgh") <= shown
