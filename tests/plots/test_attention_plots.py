import matplotlib.pyplot as plt
import numpy as np
import pandas as pd

from epigen_utils.plots import attention_plots


def heads():
    return pd.DataFrame(
        {"layer": [1, 1, 2, 2], "head": [1, 2, 1, 2], "baam": [0.4, 0.5, 0.6, 0.9], "padj": [1, 1, 1, 0.01]}
    )


def test_the_grid_marks_what_is_sure():
    ax = attention_plots.head_grid(plt.subplots()[1], heads(), value="baam", label="BAAM", centre=0.5, pvalue="padj")
    assert [text.get_text() for text in ax.texts] == ["0.40", "0.50", "0.60", "0.90*"]


def test_sets_stand_with_their_sizes_and_nulls():
    table = pd.DataFrame({"set": ["A"], "genes": [7], "baam": [0.6], "low": [0.5], "high": [0.7], "matched": [0.52]})
    ax = attention_plots.gene_set_baam(plt.subplots()[1], table)
    assert ax.get_yticklabels()[0].get_text() == "A (7)"


def test_halves_calls_and_sizes():
    halves = pd.DataFrame(
        {"model": ["x", "x", "y", "y"], "half": ["told", "not told"] * 2, "baam": [0.5, 0.5, 0.9, 0.5], "matched": 0.5}
    )
    ax = attention_plots.set_halves_baam(plt.subplots()[1], halves)
    assert [label.get_text() for label in ax.get_xticklabels()] == ["x", "y"]
    calls = pd.DataFrame(
        {"set": ["a", "a"], "null": ["random", "matched"], "share": [0.2, 0.05], "low": 0.0, "high": 0.5}
    )
    assert len(attention_plots.rejection_rates(plt.subplots()[1], calls, by="set").get_legend().get_texts()) == 2
    sizes = pd.DataFrame({"size": [1, 1, 5], "baam": [0.1, 0.9, 0.5]})
    assert len(attention_plots.baam_by_set_size(plt.subplots()[1], sizes).get_xticklabels()) == 2


def test_places_ways_and_recovery():
    lines = {"m": pd.DataFrame({"place": [0.1, 0.9], "attention": [2.0, 0.5]})}
    assert attention_plots.attention_by_position(plt.subplots()[1], lines).get_ylim()[0] == 0
    matrix = pd.DataFrame([[1.0, -0.2], [-0.2, 1.0]], ["a", "b"], ["a", "b"])
    assert len(attention_plots.score_correlations(plt.subplots()[1], matrix).texts) == 4
    table = pd.DataFrame({"way": ["w", "w", "v"], "model": ["trained", "random weights", "no model"]})
    table = table.assign(auroc=0.6, **{"auroc low": 0.5, "auroc high": 0.7})
    assert len(attention_plots.planted_gene_recovery(plt.subplots()[1], table).get_yticklabels()) == 2
    places = pd.DataFrame({"one": [1.0, 9.0], "other": [np.nan, 2.0]}, ["a", "b"])
    ax = attention_plots.gene_rankings(plt.subplots()[1], places, pd.Series({"a": "A"}), n=10)
    assert [label.get_text() for label in ax.get_yticklabels()] == ["A", "b"]


def test_gene_gene_attention_is_clustered_with_its_names():
    rng = np.random.default_rng(0)
    table = pd.DataFrame(rng.uniform(0.2, 3, (8, 8)), list("abcdefgh"), list("abcdefgh"))
    table.iloc[0, 5] = np.nan
    figure = attention_plots.gene_pair_heatmap(table, label="log2")
    shown = {label.get_text() for ax in figure.axes for label in ax.get_yticklabels()}
    assert set("abcdefgh") <= shown
