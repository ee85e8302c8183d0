import numpy as np
import pandas as pd
import pytest

from epigen_utils.plots import layout, style

TABLE = pd.DataFrame({"auc": [0.8, 0.6], "low": [0.7, 0.5], "high": [0.9, 0.8]})


def segments(collection):
    """Ends of the lines of a collection: lines x (x1, y1, x2, y2)."""
    return [segment.ravel().tolist() for segment in collection.get_segments()]


def test_panels():
    _, axes = layout.panels(3, columns=2, width=2, height=1)
    assert len(axes) == 3


def test_groups_start_with_the_reference_and_count_their_samples(ax):
    labels = pd.Series(pd.Categorical(list("aab"), ["b", "a"]))
    assert layout.group_order(labels) == ["b", "a"]
    assert layout.group_order(pd.Series(["b", "a"])) == ["a", "b"]
    (_, first, look), (_, second, _) = layout.groups(labels)
    assert (first.tolist(), second.tolist()) == ([False, False, True], [True, True, False])
    assert look == {"color": style.PALETTE[0], "marker": "o"}
    legend = layout.group_legend(ax, labels).get_legend()
    assert [text.get_text() for text in legend.get_texts()] == ["b (n = 1)", "a (n = 2)"]


def test_labels_keep_a_distance_in_one_direction():
    positions = np.array([[0, 0], [0.1, 0.01], [0.1, 0.5], [0.9, 0.0]])
    assert layout.spaced_labels(positions, gap=(0.2, 0.1)) == [0, 2, 3]
    assert layout.spaced_labels(positions, gap=(0.2, 0.1), limit=2) == [0, 2]
    assert layout.spaced_labels(np.empty((0, 2)), gap=(0.2, 0.1)) == []


def test_names_stand_at_their_points(ax):
    layout.name_points(ax, np.array([[0.0, 0], [1, 1], [30, 30]]), list("abc"), span=(100, 100), gap=(0.1, 0.1))
    assert [(text.get_text(), text.xy[0]) for text in ax.texts] == [("a", 0), ("c", 30)]


def test_called_points_are_drawn_over_the_others(ax):
    values = pd.Series([1.0, 2, 3])
    layout.called_points(ax, values, values * 10, values > 2)
    others, called = ax.collections
    assert others.get_offsets().tolist() == [[1, 10], [2, 20]]
    assert called.get_offsets().tolist() == [[3, 30]]
    assert [dots.get_label() for dots in ax.collections] == ["not called (2)", "called (1)"]


def test_numbers_of_axes_are_plain(ax):
    ax.plot([300, 4000], [0.1, 0.9])
    layout.log_scale(ax, "x")
    layout.percent(ax, "y")
    ax.figure.canvas.draw()
    words = [label.get_text() for label in [*ax.get_xticklabels(), *ax.get_xticklabels(minor=True)]]
    assert "1,000" in words
    assert not any("$" in word for word in words)
    assert {"20%", "80%"} <= {label.get_text() for label in ax.get_yticklabels()}
    assert [layout.short_number(value, 0) for value in (9_999, 250_000)] == ["9999", "250k"]


def test_rows_start_at_the_top_and_columns_at_the_left(ax):
    layout.rows(ax, ["a", "b"], margin=0.5)
    layout.columns(ax, ["c", "d", "e"], margin=0.6)
    assert ax.get_ylim() == (1.5, -0.5)
    assert ax.get_xlim() == (-0.6, 2.6)
    assert [label.get_text() for label in ax.get_yticklabels()] == ["a", "b"]
    assert not layout.sample_ticks(ax, list("abc"), most=2)
    assert len(ax.get_xticks()) == 0


def test_intervals_lie_in_rows_or_columns(ax):
    layout.intervals(ax, TABLE, "auc")
    layout.intervals(ax, TABLE, "auc", at=np.array([5, 6]), vertical=True)
    across, along = ax.collections
    assert segments(across) == [[0.7, 0, 0.9, 0], [0.5, 1, 0.8, 1]]
    assert segments(along) == [[5, 0.7, 5, 0.9], [6, 0.5, 6, 0.8]]
    assert [line.get_xydata().tolist() for line in ax.lines] == [[[0.8, 0], [0.6, 1]], [[5, 0.8], [6, 0.6]]]


def test_error_bars_reach_to_the_ends_of_the_interval(ax):
    layout.error_bars(ax, TABLE, "auc", np.array([0, 1]), colour="black", marker="o")
    np.testing.assert_allclose(segments(ax.collections[0]), [[0.7, 0, 0.9, 0], [0.5, 1, 0.8, 1]])


def test_lines_have_markers_where_points_are_few(ax):
    layout.lines(ax, {"a": TABLE, "b": TABLE[:1]}.items(), "low", "auc", most_markers=1)
    assert [line.get_xydata().tolist() for line in ax.lines] == [[[0.7, 0.8], [0.5, 0.6]], [[0.7, 0.8]]]
    assert [line.get_label() for line in ax.lines] == ["a", "b"]
    assert [line.get_marker() for line in ax.lines] == ["", "s"]


def test_bars_are_stacked_and_noted(ax):
    layout.stacked_bars(ax, ["a", "b"], {"x": TABLE["low"], "y": TABLE["high"]})
    assert [(bar.get_x(), bar.get_width()) for bar in ax.patches] == [
        (0, 0.7),
        (0, 0.5),
        (0.7, pytest.approx(0.9)),
        (0.5, pytest.approx(0.8)),
    ]
    ax.clear()
    layout.noted_bars(ax, ["a", "b"], TABLE["auc"], ["one", "two"])
    assert [(text.get_text(), *text.xy) for text in ax.texts] == [("one", 0.8, 0), ("two", 0.6, 1)]


def test_the_bar_is_at_the_mean(ax):
    layout.points_with_mean(ax, 3, np.array([-0.1, 0.1]), TABLE["auc"], reach=0.2)
    dots, bar = ax.collections
    np.testing.assert_allclose(dots.get_offsets(), [[2.9, 0.8], [3.1, 0.6]])
    np.testing.assert_allclose(segments(bar), [[2.8, 0.7, 3.2, 0.7]])


def test_a_matrix_has_its_values_and_its_notes_in_place(ax):
    notes = pd.DataFrame([["a", "", "b"], ["", "", "c"]])
    layout.annotated_matrix(ax, TABLE, notes, white=TABLE > 0.8, label="share")
    assert ax.images[0].get_array().tolist() == TABLE.to_numpy().tolist()
    positions = [(text.get_text(), *text.get_position(), text.get_color()) for text in ax.texts]
    assert positions == [("a", 0, 0, "black"), ("b", 2, 0, "white"), ("c", 2, 1, "black")]
    assert [label.get_text() for label in ax.get_xticklabels()] == ["auc", "low", "high"]
    assert ax.figure.axes[1].get_ylabel() == "share"


def test_a_clustered_heat_map_keeps_each_value_with_its_row():
    table = pd.DataFrame([[0.0, 1], [9, 8], [0.1, 1.1]], list("abc"), list("xy"))
    grid = layout.clustermap(table, label="value", label_size=7, col_cluster=False, yticklabels=True)
    order = [label.get_text() for label in grid.ax_heatmap.get_yticklabels()]
    assert sorted(order) == ["a", "b", "c"]
    drawn = np.asarray(grid.ax_heatmap.collections[0].get_array()).reshape(3, 2)
    np.testing.assert_array_equal(drawn, table.loc[order])
