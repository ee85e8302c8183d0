import numpy as np
import pandas as pd

from epigen_utils.plots import sentence_plots


def test_words_are_in_reading_order(ax):
    sentence_plots.sentence_words(ax, pd.DataFrame({"gene": list("abc"), "bin": [2, 1, 0]}), n_bins=3, columns=2)
    assert [text.get_text() for text in ax.texts] == ["a\n3", "b\n2", "c\n1"]
    assert [text.get_position() for text in ax.texts] == [(0, 0), (1, 0), (0, 1)]


def test_marks_are_named_with_their_lengths(ax):
    table = pd.DataFrame({"length": [1, 1024, 20000], "genes": [0.1, 0.5, 1], "counts": [0.3, 0.8, 1]})
    sentence_plots.coverage_by_length(ax, table, marks={"GPT-2": 1024})
    assert [text.get_text() for text in ax.get_legend().get_texts()][-1] == "GPT-2 (1,024)"


def test_bins_of_each_kind_and_ranks_are_drawn(ax):
    table = pd.DataFrame({"kind": ["quantile", "quantile", "width"], "bins": [2, 4, 2], "r2": [0.5, 0.7, 0.4]})
    sentence_plots.r2_by_bins(ax, table, rank_r2=0.9)
    labels = [text.get_text() for text in ax.get_legend().get_texts()]
    assert labels == ["bins by quantile", "bins by width", "ranks alone"]


def test_both_axes_reach_as_far(ax):
    sentence_plots.decoded_against_true(ax, np.array([1.0, 4.0]), np.array([1.0, 5.0]), label="bins")
    assert ax.get_xlim() == ax.get_ylim()
