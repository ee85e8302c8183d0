import numpy as np
import pandas as pd

from epigen_utils.plots import prediction_plots


def test_scores_show_intervals_shuffles_and_the_paper(ax):
    table = pd.DataFrame({"model": ["LR", "GPT-2"], "auc": [0.8, 0.7], "auc low": [0.6, 0.5], "auc high": [0.9, 0.9]})
    prediction_plots.model_aucs(ax, table.assign(shuffled=[0.5, np.nan]), reported=0.9)
    assert [text.get_text() for text in ax.get_yticklabels()] == ["LR", "GPT-2"]
    labels = [text.get_text() for text in ax.get_legend().get_texts()]
    assert labels == ["held out, 95% interval", "permuted labels", "paper A, 0.90"]
    auc, shuffled = (line.get_xydata() for line in ax.lines[:2])
    np.testing.assert_array_equal(auc, [[0.8, 0], [0.7, 1]])
    np.testing.assert_array_equal(shuffled, [[0.5, 0], [np.nan, 1]])
    ends = [segment.tolist() for segment in ax.collections[0].get_segments()]
    assert ends == [[[0.6, 0], [0.9, 0]], [[0.5, 1], [0.9, 1]]]


def test_roc_names_its_aucs(ax):
    band = pd.DataFrame({"fpr": [0, 1], "tpr": [0.2, 1], "low": [0, 1], "high": [0.5, 1]})
    prediction_plots.roc_curves(ax, {"LR": band}, {"LR": 0.876})
    assert [text.get_text() for text in ax.get_legend().get_texts()] == ["LR (0.88)"]
    assert ax.lines[1].get_xydata().tolist() == [[0, 0.2], [1, 1]]
    assert {(0, 0), (0, 0.5), (1, 1)} <= {tuple(point) for point in ax.collections[0].get_paths()[0].vertices}


def test_leak_has_a_column_for_each_way(ax):
    table = pd.DataFrame({"planted": ["no", "no"], "genes chosen": ["inside", "outside"], "auc": [0.5, 1]})
    prediction_plots.selection_leakage(ax, table)
    assert [text.get_text() for text in ax.get_xticklabels()] == ["no\ninside", "no\noutside"]
    assert [line.get_ydata().tolist() for line in ax.lines[:2]] == [[0.5], [1]]
    means = [bar.get_segments()[0].tolist() for bar in ax.collections]
    assert means == [[[-0.25, 0.5], [0.25, 0.5]], [[0.75, 1], [1.25, 1]]]


def test_learning_curve_is_on_the_sizes_there_are(ax):
    table = pd.DataFrame({"model": "LR", "per class": [12, 12, 64], "auc": [0.6, 0.7, 0.8]})
    prediction_plots.learning_curves(ax, table)
    assert [text.get_text() for text in ax.get_xticklabels()] == ["12", "64"]
    folds, means = ax.lines[:2]
    assert folds.get_xydata().tolist() == [[12, 0.6], [12, 0.7], [64, 0.8]]
    np.testing.assert_allclose(means.get_xydata(), [[12, 0.65], [64, 0.8]])


def test_the_best_point_is_framed(ax):
    table = pd.DataFrame({"a": [1, 1, 2, 2], "b": [3, 4, 3, 4], "auc": [0.5, 0.9, 0.6, 0.7]})
    prediction_plots.grid_search_heatmap(ax, table, rows="a", columns="b", value="auc")
    frame = ax.patches[0]
    assert frame.get_xy() == (0.5, 0.5), "columns 3, 4; rows 2, 1 from the top"
    assert [text.get_text() for text in ax.texts] == ["0.60", "0.70", "0.50", "0.90"]
    assert ax.images[0].get_array().tolist() == [[0.6, 0.7], [0.5, 0.9]]
    assert [label.get_text() for label in ax.get_yticklabels()] == ["2", "1"]


def test_history_draws_a_run_each(ax):
    run = pd.DataFrame({"epoch": [1, 2], "loss": [0.7, 0.5]})
    prediction_plots.curves_by_epoch(ax, {"a": run, "b": run}, column="loss", ylabel="loss")
    assert [line.get_xydata().tolist() for line in ax.lines] == [[[1, 0.7], [2, 0.5]]] * 2


def test_memory_is_stacked_and_devices_are_named(ax):
    table = pd.DataFrame({"way": ["x"], "weights": [2.0], "activations": [3.0]})
    prediction_plots.training_memory(ax, table, devices={"H100": 74.5})
    assert [(bar.get_x(), bar.get_width()) for bar in ax.patches] == [(0, 2), (2, 3)]
    assert ax.lines[0].get_xdata() == [74.5, 74.5]
    assert ax.texts[0].get_text() == "H100"


def test_rates_are_bars_with_the_range_of_their_repeats(ax):
    table = pd.DataFrame({"precision": ["fp32", "bf16"], "TFLOP/s": [1.0, 3.0], "low": [0.9, 2.0], "high": [1.1, 4.0]})
    prediction_plots.rates_with_range(ax, table, names=table["precision"], value="TFLOP/s")
    assert [bar.get_width() for bar in ax.patches] == [1, 3]
    assert ax.collections[0].get_segments()[1].tolist() == [[2, 1], [4, 1]]
    assert ax.get_xlim() == (0, 4.32)
    assert [text.get_text() for text in ax.get_yticklabels()] == ["fp32", "bf16"]


def test_a_roof_is_the_lesser_of_peak_and_memory(ax):
    points = pd.DataFrame({"model": ["gpt2", "gpt2-xl"], "precision": ["bf16", "fp8"]})
    points[["operations a byte", "TFLOP/s"]] = [[100.0, 80.0], [1000.0, 600.0]]
    peaks = pd.DataFrame(
        {"quantity": ["bf16", "fp8", "memory"], "measured": [700, np.nan, 4], "data sheet": [900, 1900, 5]}
    )
    prediction_plots.roofline(ax, points, peaks)
    bf16, fp8, first, second = ax.lines[:4]
    x, y = bf16.get_data()
    np.testing.assert_allclose(y, np.minimum(700, 4 * x))
    assert fp8.get_ydata().max() == 1900, "the data sheet's, as none was measured"
    assert (bf16.get_linestyle(), fp8.get_linestyle()) == ("-", "--")
    assert first.get_xydata().tolist() == [[100, 80]]
    assert second.get_color() == fp8.get_color()
    labels = ["bf16, 700 TFLOP/s", "fp8, 1,900 TFLOP/s", "gpt2", "gpt2-xl"]
    assert [text.get_text() for text in ax.get_legend().get_texts()] == labels


def test_shares_of_two_peaks_stand_in_pairs(ax):
    table = pd.DataFrame({"how": ["bf16", "fp8"], "of measured": [0.7, 0.5], "of data sheet": [0.5, np.nan]})
    prediction_plots.shares_of_peak(ax, table, {"of measured": "measured", "of data sheet": "data sheet"})
    assert [text.get_text() for text in ax.texts] == ["70%", "50%", "50%", ""]
    assert [text.get_text() for text in ax.get_legend().get_texts()] == ["measured", "data sheet"]


def test_losses_have_a_line_a_seed_and_a_label_a_precision(ax):
    curves = pd.DataFrame({"precision": ["fp32"] * 4, "seed": [0, 0, 1, 1], "step": [0, 5] * 2, "loss": [9, 6, 9, 7]})
    prediction_plots.loss_by_precision(ax, curves, x="step")
    assert [line.get_xydata().tolist() for line in ax.lines] == [[[0, 9], [5, 6]], [[0, 9], [5, 7]]]
    assert [text.get_text() for text in ax.get_legend().get_texts()] == ["fp32"]


def test_a_steps_time_is_in_order_of_its_parts(ax):
    prediction_plots.shares_of_step(ax, pd.Series({"idle": 0.1, "matrix products": 0.9, "optimiser": 0.0}))
    assert [text.get_text() for text in ax.get_yticklabels()] == ["matrix products", "idle"]
    assert [bar.get_width() for bar in ax.patches] == [0.9, 0.1]


def test_step_times_have_a_line_a_student(ax):
    table = pd.DataFrame({"student": ["a", "a", "b"], "step": [1000, 2000, 1000], "seconds": [0.8, 0.07, 0.1]})
    prediction_plots.step_times(ax, table)
    assert ax.lines[0].get_xydata().tolist() == [[1000, 0.8], [2000, 0.07]]
    assert ax.get_yscale() == "log"
