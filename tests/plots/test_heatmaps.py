import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import pytest

from epigen_utils.expression import sample_quality
from epigen_utils.plots import heatmaps


@pytest.fixture(autouse=True)
def _close():
    yield
    plt.close("all")


LABELS = pd.Series(pd.Categorical(list("aaabbb"), ["b", "a"]), index=[f"s{i}" for i in range(6)], name="group")


TRACKS = pd.DataFrame({"group": LABELS, "batch": list("xyzxyz")}, index=LABELS.index)


def words(figure):
    figure.canvas.draw()
    return {text.get_text() for ax in figure.axes for text in [*ax.get_yticklabels(), *ax.texts]}


def test_heatmap_leaves_constant_genes_out_and_shows_names_as_text():
    table = pd.DataFrame(np.random.default_rng(0).normal(size=(6, 4)), LABELS.index, list("wxyz"))
    table["w"] = 1.0
    figure = heatmaps.clustered_heatmap(table, TRACKS, names=pd.Series({"x": "<b>$x$</b>"}), value="log2 count")
    figure.canvas.draw()
    names = {text.get_text() for ax in figure.axes for text in ax.get_yticklabels()}
    assert "<b>$x$</b>" in names
    assert "w" not in names
    with pytest.raises(ValueError, match="at least two genes"):
        heatmaps.clustered_heatmap(table[["w", "x"]], TRACKS, value="v")


def test_heatmap_has_a_track_for_each_column_and_for_the_sets():
    table = pd.DataFrame(np.random.default_rng(0).normal(size=(6, 4)), LABELS.index, list("wxyz"))
    figure = heatmaps.clustered_heatmap(
        table, TRACKS, members={"first": ["x", "y"], "second": ["y"], "none": ["q"]}, value="v"
    )
    shown = [text.get_text() for text in figure.legends[0].get_texts()]
    assert shown == ["group", "b", "a", "batch", "x", "y", "z", "panel", "first", "second"]


def test_distances_are_in_the_order_of_the_tree():
    table = pd.DataFrame({"g": [0.0, 5.0, 0.1, 5.1, 0.2, 5.2]}, LABELS.index)
    figure = heatmaps.distance_heatmap(sample_quality.sample_distances(table), LABELS)
    figure.canvas.draw()
    order = next(names for ax in figure.axes if len(names := [text.get_text() for text in ax.get_yticklabels()]) == 6)
    assert {frozenset(order[:3]), frozenset(order[3:])} == {
        frozenset(["s0", "s2", "s4"]),
        frozenset(["s1", "s3", "s5"]),
    }
