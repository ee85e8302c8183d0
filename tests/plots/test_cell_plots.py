import numpy as np
import pandas as pd
import pytest

from epigen_utils.plots import cell_plots


def test_flow_ends_at_all_cells(ax):
    table = pd.DataFrame(
        {"dataset": ["a", "a", "b", "b"], "step": ["x", "y"] * 2, "removed": [5, 10, 0, 2], "left": [95, 85, 20, 18]}
    )
    cell_plots.curation_flow(ax, table)
    ends = pd.Series([bar.get_x() + bar.get_width() for bar in ax.patches])
    assert ends.max() == pytest.approx(1)
    assert [text.get_text() for text in ax.texts] == ["85 of 100 stay", "18 of 20 stay"]


def test_cells_without_mitochondrial_counts_have_an_axis_from_zero(ax):
    cells = pd.DataFrame({"total": [10, 100], "mitochondrial": [0.0, 0.0], "removed": ["", "depth"]})
    cell_plots.depth_and_mitochondria(ax, cells, title="t")
    assert ax.get_ylim() == (0, 0.01)
    assert [text.get_text() for text in ax.get_legend().get_texts()] == ["stays (1)", "depth (1)"]


def test_places_of_one_class_are_inside(ax):
    rows = pd.DataFrame(
        {"class": ["h", "h"], "encoding": ["a", "b"], "mean": [0.3, 0.8], "low": [0.2, 0.7], "high": [0.4, 0.9]}
    )
    cell_plots.class_aucs_by_encoding(ax, rows)
    low, high = sorted(ax.get_ylim())
    drawn = [y for line in ax.lines for y in line.get_ydata() if line.get_label() in ("a", "b")]
    assert all(low < y < high for y in drawn)


def test_many_kinds_have_colours_of_their_own(ax):
    table = pd.DataFrame(np.eye(12, dtype=int), [f"kind {i}" for i in range(12)], [f"set {i}" for i in range(12)])
    cell_plots.cell_composition(ax, table)
    assert len({bar.get_facecolor() for bar in ax.patches}) == 12


def test_lengths_and_thinning_name_what_they_mark(ax):
    cell_plots.length_histogram(ax, np.arange(100), marks={"median": 50, "kept": 90})
    assert [text.get_text() for text in ax.texts] == ["median 50", "kept 90"]
    ax.clear()
    table = pd.DataFrame({"share": [0.5, 0.1], "kept": [0.8, 0.3], "top": [0.6, 0.2], "spearman": [0.9, 0.4]})
    cell_plots.thinning_curves(ax, table)
    assert len(ax.get_legend().get_texts()) == 3
    ax.clear()
    cell_plots.median_errors(ax, pd.Series([1.0, 2.0]), pd.Series([1.1, 2.0]))
    np.testing.assert_allclose(ax.collections[0].get_offsets()[:, 1], [10, 0])


def test_the_published_lengths_are_drawn_beside_those_of_the_run(ax):
    """The outline has as many cells as the run, a quarter of them between two quartiles."""
    quantiles = {0.0: 7, 0.25: 74, 0.5: 234, 0.75: 897, 1.0: 2048}
    lengths = np.r_[np.arange(7, 74).repeat(3), np.arange(74, 2049)]
    cell_plots.length_histogram(ax, lengths, marks={}, quantiles=quantiles)
    heights, ends, _ = next(patch for patch in ax.patches if hasattr(patch, "get_data")).get_data()
    width = (lengths.max() - lengths.min()) / 50
    np.testing.assert_allclose(heights * np.diff(ends) / width, len(lengths) / 4)
    ax.clear()
    cell_plots.cumulative_lengths(ax, lengths, quantiles)
    run, published = ax.lines
    assert published.get_xydata().tolist() == [[length, share] for share, length in quantiles.items()]
    assert run.get_ydata()[-1] == 1


def test_the_pipeline_has_a_box_a_step_and_says_what_is_removed(ax):
    steps = pd.DataFrame(
        {"step": ["raw counts", "filter: depth"], "cells": [1000, 990], "removed": [np.nan, 10], "what": ["a", "b"]}
    )
    cell_plots.curation_pipeline(ax, steps)
    texts = [text.get_text() for text in ax.texts if text.get_text()]
    assert texts == ["raw counts\n1,000 cells", "a", "filter: depth\n990 cells", "10 removed: b"]


def test_a_masked_cell_shows_what_the_model_sees_and_what_stood_there(ax):
    table = pd.DataFrame(
        {
            "kind": ["context", "hidden", "replaced", "unchanged", "context"],
            "text": ["A", "[MASK]", "X", "D", "E"],
            "symbol": ["A", "B", "C", "D", "E"],
        }
    )
    cell_plots.masked_cell(ax, table, columns=2, rows=2)
    texts = [text.get_text() for text in ax.texts]
    assert texts[:6] == ["A", "[MASK]", "(B)", "X", "(C)", "D"]
    assert "all 5 positions" in texts[6]
    assert len(ax.patches) == 4 + 5, "the first four genes, and every position in the strip"
    names = [text.get_text() for text in ax.get_legend().get_texts()]
    assert names == ["not selected (2)", "hidden (1)", "replaced (1)", "unchanged (1)"]


def test_donors_are_points(ax):
    table = pd.DataFrame({"model": ["a", "a", "b", "b"], "donor": ["x", "y"] * 2, "accuracy": [0.1, 0.2, 0.3, 0.4]})
    cell_plots.values_by_donor(ax, table, "accuracy", label="accuracy")
    assert [line.get_xdata().tolist() for line in ax.lines] == [[0.1, 0.3], [0.2, 0.4]]
    assert [text.get_text() for text in ax.get_legend().get_texts()] == ["x", "y"]
    ax.clear()
    many = pd.DataFrame({"model": "a", "donor": range(20), "accuracy": np.arange(20) / 20})
    cell_plots.values_by_donor(ax, many, "accuracy", label="accuracy")
    assert ax.lines[-1].get_xdata().tolist() == pytest.approx([many["accuracy"].median()])
    assert ax.get_legend().get_texts()[0].get_text() == "median and quartiles of 20 donors"


def test_learning_and_rivals_are_all_named(ax):
    history = pd.DataFrame({"tokens": [1e6, 2e6], "loss": [3.0, 2.0], "train_loss": [3.2, 0.0]})
    names = [f"baseline {i}" for i in range(7)]
    cell_plots.pretraining_loss(ax, history, dict.fromkeys(names, 2.5))
    assert [text.get_text() for text in ax.get_legend().get_texts()][-7:] == names
    assert len(ax.lines[1].get_xdata()) == 1, "a point without training since the last has no training loss"


def test_by_rank_averages_within_doubling_bins(ax):
    table = pd.DataFrame({"rank": [0, 1, 5, 6], "correct": [1.0, 0.0, 1.0, 1.0]})
    cell_plots.mean_by_rank(ax, {"model": table}, value="correct", label="accuracy")
    assert ax.lines[0].get_ydata().tolist() == [0.5, 1.0]


def test_layers_heads_and_edges(ax):
    table = pd.DataFrame({"layer": [1, 1, 2, 2], "head": [1, 2, 1, 2], "width": [0.2, 0.4, 0.6, 0.8]})
    cell_plots.mean_by_layer(ax, {"pretrained": table}, value="width", label="width")
    assert ax.lines[0].get_ydata().tolist() == pytest.approx([0.3, 0.7])
    ax.clear()
    found = pd.DataFrame({"class": "tf", "model": "pretrained", "difference": [0.5, 0.1], "padj": [0.01, 0.5]})
    cell_plots.head_preferences(ax, found, alpha=0.05)
    called, other = ax.collections
    assert ax.get_xlabel().endswith("genes of similar rank")
    assert (len(called.get_offsets()), len(other.get_offsets())) == (1, 1)
    ax.clear()
    heads = pd.DataFrame({"model": ["a", "b"], "layer": [1, 1], "auc": [0.6, 0.5]})
    cell_plots.edge_aucs(ax, heads, baseline=0.7)
    assert [text.get_text() for text in ax.get_legend().get_texts()] == ["a", "b", "correlation of expression"]


def test_ladder_says_how_many_times(ax):
    table = pd.DataFrame({"step": ["plain", "ours"], "tokens a second": [100.0, 4000.0], "times": [1.0, 40.0]})
    cell_plots.throughput_bars(ax, table)
    assert [text.get_text() for text in ax.texts] == [" 1.0 x", " 40.0 x"]
