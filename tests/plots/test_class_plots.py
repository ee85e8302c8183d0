import numpy as np
import pandas as pd
import pytest

from epigen_utils.plots import class_plots
from epigen_utils.stats import multiclass


@pytest.fixture
def predictions():
    rng = np.random.default_rng(0)
    p = pd.DataFrame(rng.dirichlet([1, 1], 60), columns=["p_ill", "p_well"])
    said = p.idxmax(axis=1).str.removeprefix("p_")
    true = np.repeat(["ill", "well"], 30)
    return pd.DataFrame({"donor": np.repeat(list("abcdef"), 10), "true": true, "predicted": said}).join(p)


def test_confusion_shows_shares_and_counts(ax, predictions):
    counts = multiclass.confusion_counts(predictions)
    class_plots.confusion_matrix(ax, counts)
    share = counts.iat[0, 0] / counts.iloc[0].sum()
    assert ax.texts[0].get_text() == f"{share:.0%}\n{counts.iat[0, 0]}"
    assert ax.get_yticklabels()[0].get_text() == "ill\n(n = 30)"
    np.testing.assert_array_equal(ax.images[0].get_array(), counts / 30)


def test_heatmap_has_every_cell_under_its_true_class(ax, predictions):
    class_plots.probability_heatmap(ax, predictions, max_cells=60)
    values = np.asarray(ax.images[0].get_array())
    assert values.shape == (2, 60)
    np.testing.assert_allclose(np.sort(values[0, :30]), np.sort(predictions["p_ill"][:30]))


def test_scores_by_class_and_model_and_their_calibration(ax, predictions):
    table = multiclass.scores_with_intervals(predictions, n_bootstrap=50)
    class_plots.scores_by_class(ax, table, ["ill", "well"])
    assert ax.get_xticklabels()[0].get_text() == "ill\n(3 donors)"
    values = table.set_index("score").loc[["precision, ill", "precision, well"]]
    np.testing.assert_allclose(ax.lines[0].get_xydata(), np.column_stack([[-0.22, 0.78], values["value"]]))
    ends = [segment[:, 1] for segment in ax.collections[0].get_segments()]
    np.testing.assert_allclose(ends, values[["low", "high"]])
    ax.clear()
    bins = multiclass.probability_calibration(predictions)[0]
    class_plots.calibration_curve(ax, bins)
    assert sum(int(text.get_text()) for text in ax.texts) == 60
    np.testing.assert_array_equal(ax.collections[0].get_offsets(), bins[["said", "right"]])


def test_a_score_by_model_beside_chance_the_paper_and_the_donors(ax):
    rows = pd.DataFrame({"model": ["m", "n"], "macro-F1": [0.8, 0.5], "low": 0.4, "high": 0.9})
    rows = rows.assign(shuffled=[0.3, np.nan], accuracy=[0.7, 0.6])
    class_plots.score_by_model(ax, rows, chance=0.3, published={"n": 0.75})
    assert [label.get_text() for label in ax.get_yticklabels()] == ["m", "n"]
    value, shuffled, paper, chance = (line.get_xdata() for line in ax.lines)
    np.testing.assert_array_equal(value, [0.8, 0.5])
    np.testing.assert_array_equal(shuffled, [0.3, np.nan])
    np.testing.assert_array_equal(paper, [0.75])
    assert ax.lines[2].get_ydata() == [1.25]
    assert chance == [0.3, 0.3]
    ax.clear()
    donors = pd.DataFrame({"model": ["m", "m", "n"], "accuracy": [0.2, 0.9, 0.6]})
    rows = rows.assign(low=np.nan, high=np.nan)
    class_plots.score_by_model(ax, rows, score="accuracy", chance=0.5, donors=donors)
    np.testing.assert_allclose(ax.collections[0].get_offsets(), [[0.2, 0], [0.9, 0], [0.6, 1]])
    words = [text.get_text() for text in ax.get_legend().get_texts()]
    assert words == ["one donor", "all cells", "always the largest class"]


def test_a_printed_matrix_says_what_the_paper_prints(ax):
    shares = pd.DataFrame({"ill": [".9", ".0041"], "well": [".1", ".83"]}, index=["ill", "well"])
    class_plots.printed_confusion(ax, shares, pd.Series({"ill": 1200, "well": 30}), title="paper")
    assert [text.get_text() for text in ax.texts] == ["0.9", "0.1", "0.0041", "0.83"]
    assert [label.get_text() for label in ax.get_yticklabels()] == ["ill\n(n = 1,200)", "well\n(n = 30)"]
    np.testing.assert_array_equal(ax.images[0].get_array(), shares.astype(float))


def test_printed_scores_stand_beside_ours(ax, predictions):
    printed = pd.DataFrame({"precision": [0.9, 0.8], "recall": [0.7, 0.6], "f1": [0.79, 0.69], "n": [2913, 9808]})
    printed.index = ["ill", "well"]
    table = multiclass.scores_with_intervals(predictions, n_bootstrap=20)
    class_plots.scores_by_class(ax, table, ["ill", "well"], published=printed)
    np.testing.assert_allclose([line.get_ydata() for line in ax.lines[1::2]], printed[["precision", "recall", "f1"]].T)
    ax.clear()
    class_plots.printed_scores_by_class(ax, printed)
    assert [label.get_text() for label in ax.get_xticklabels()] == ["ill\n(n = 2,913)", "well\n(n = 9,808)"]
    assert ax.texts[0].get_text() == "90.0%"


def test_donors_that_are_named_wrongly_are_black(ax, predictions):
    people = multiclass.donor_predictions(predictions)
    class_plots.donor_accuracy(ax, people)
    black = sum(
        (colour[:3] == 0).all()
        for dots in ax.collections
        for colour in dots.get_facecolor()
        if len(dots.get_offsets()) > 0
    )
    assert black == (people["true"] != people["predicted"]).sum()
    heights = [y for dots in ax.collections[1::2] for y in dots.get_offsets()[:, 1]]
    assert sorted(heights) == sorted(people["right"])
    assert ax.get_xticklabels()[0].get_text() == "ill\n(3 donors)"


def test_points_have_a_legend_only_where_labels_are_few(ax):
    plane = np.random.default_rng(0).normal(size=(40, 2))
    class_plots.cell_projection(ax, plane, np.resize(["a", "b"], 40), title="t")
    assert len(ax.get_legend().get_texts()) == 2
    np.testing.assert_array_equal(ax.collections[0].get_offsets(), plane[::2])
    ax.clear()
    class_plots.cell_projection(ax, plane, np.arange(40).astype(str), title="t")
    assert ax.get_legend() is None
