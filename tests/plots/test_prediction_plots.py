import numpy as np
import pandas as pd

from epigen_utils.plots import prediction_plots


def test_scores_show_intervals_shuffles_and_the_paper(ax):
    table = pd.DataFrame({"model": ["LR", "GPT-2"], "auc": [0.8, 0.7], "auc low": [0.6, 0.5], "auc high": [0.9, 0.9]})
    prediction_plots.model_aucs(ax, table.assign(shuffled=[0.5, np.nan]), reported=0.9)
    assert [text.get_text() for text in ax.get_yticklabels()] == ["LR", "GPT-2"]
    labels = [text.get_text() for text in ax.get_legend().get_texts()]
    assert labels == ["held out, 95% interval", "labels shuffled", "paper A, 0.90"]


def test_roc_names_its_aucs(ax):
    band = pd.DataFrame({"fpr": [0, 1], "tpr": [0, 1], "low": [0, 1], "high": [0, 1]})
    prediction_plots.roc_curves(ax, {"LR": band}, {"LR": 0.876})
    assert [text.get_text() for text in ax.get_legend().get_texts()] == ["LR (0.88)"]


def test_leak_has_a_column_for_each_way(ax):
    table = pd.DataFrame({"planted": ["no", "no"], "genes chosen": ["inside", "outside"], "auc": [0.5, 1]})
    prediction_plots.selection_leakage(ax, table)
    assert [text.get_text() for text in ax.get_xticklabels()] == ["no\ninside", "no\noutside"]


def test_learning_curve_is_on_the_sizes_there_are(ax):
    table = pd.DataFrame({"model": "LR", "per class": [12, 12, 64], "auc": [0.6, 0.7, 0.8]})
    prediction_plots.learning_curves(ax, table)
    assert [text.get_text() for text in ax.get_xticklabels()] == ["12", "64"]


def test_the_best_point_is_framed(ax):
    table = pd.DataFrame({"a": [1, 1, 2, 2], "b": [3, 4, 3, 4], "auc": [0.5, 0.9, 0.6, 0.7]})
    prediction_plots.grid_search_heatmap(ax, table, rows="a", columns="b", value="auc")
    frame = ax.patches[0]
    assert frame.get_xy() == (0.5, 0.5), "columns 3, 4; rows 2, 1 from the top"
    assert len(ax.texts) == 4


def test_history_draws_a_run_each(ax):
    run = pd.DataFrame({"epoch": [1, 2], "loss": [0.7, 0.5]})
    prediction_plots.curves_by_epoch(ax, {"a": run, "b": run}, column="loss", ylabel="loss")
    assert len(ax.lines) == 2


def test_memory_is_stacked_and_devices_are_named(ax):
    table = pd.DataFrame({"way": ["x"], "weights": [2.0], "activations": [3.0]})
    prediction_plots.training_memory(ax, table, devices={"H100": 74.5})
    assert ax.patches[1].get_x() == 2
    assert ax.texts[0].get_text() == "H100"
