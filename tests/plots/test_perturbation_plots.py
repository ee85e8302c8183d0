import numpy as np
import pandas as pd
import pytest

from epigen_utils.downstream import perturbation_tests
from epigen_utils.plots import perturbation_plots, style


@pytest.fixture
def table():
    rng = np.random.default_rng(0)
    found = pd.DataFrame({"Gene_name": [f"S{i}" for i in range(30)], "Ensembl_ID": [f"g{i}" for i in range(30)]})
    found["N_Detections"] = range(10, 40)
    found["Shift_to_goal_end"] = rng.normal(size=30)
    found["Goal_end_vs_random_pval"], found["Goal_end_FDR"] = rng.random(30), rng.random(30)
    found["Donor_shift"], found["Donor_pval"] = found["Shift_to_goal_end"], rng.random(30)
    found["Donor_FDR"] = [0.01] * 3 + [0.5] * 27
    return found.assign(Donor_low=found["Donor_shift"] - 1, Donor_high=found["Donor_shift"] + 1)


def volcano(ax, table, **options):
    unit, called = perturbation_tests.called_genes(table, 0.05)
    perturbation_plots.shift_volcano(ax, table, target="nf", unit=unit, called=called, **options)


def test_volcano_goes_by_donors_where_they_are_known(ax, table):
    volcano(ax, table, planted={"g1", "g2"})
    assert [text.get_text() for text in ax.get_legend().get_texts()] == [
        "not called (27)",
        "called (3)",
        "planted regulators (2)",
    ]
    assert "donors" in ax.get_ylabel()
    names = ["Donor_shift", "Donor_pval", "Donor_FDR", "Donor_low", "Donor_high"]
    volcano(ax, table.drop(columns=names))
    assert "cells" in ax.get_ylabel()


def test_volcano_colours_and_text_count_the_same_genes(ax, table):
    _, called = perturbation_tests.called_genes(table, 0.05)
    volcano(ax, table)
    coloured = next(dots for dots in ax.collections if dots.get_label().startswith("called"))
    np.testing.assert_array_equal(coloured.get_offsets()[:, 0], table.loc[called, "Shift_to_goal_end"])


def test_top_genes_are_in_order_with_intervals(ax, table):
    best = table.nlargest(5, "Shift_to_goal_end")
    donors = pd.DataFrame({"d1": best["Donor_shift"] - 1, "d2": best["Donor_shift"] + 1}).set_index(best["Ensembl_ID"])
    perturbation_plots.top_shifts(ax, best, target="nf", donors=donors)
    names = [f"{row.Gene_name} ({row.N_Detections} cells)" for row in best.itertuples()]
    assert [label.get_text() for label in ax.get_yticklabels()] == names
    assert ax.yaxis_inverted()
    np.testing.assert_allclose(ax.collections[0].get_offsets()[:, 0], donors.to_numpy().ravel())


def test_steps_rise_at_planted_genes(ax):
    perturbation_plots.planted_recall_curves(ax, {"deleted": np.array([True, False, True, False])})
    x, y = ax.lines[0].get_data()
    assert list(y) == [0, 0.5, 0.5, 1, 1]
    assert list(x) == [0, 0.25, 0.5, 0.75, 1]


def test_recall_names_its_variants(ax):
    table = pd.DataFrame({"variant": ["a", "b"], "times fewer passes": [100.0, 20.0], "found": [30.0, 46.0]})
    perturbation_plots.recall_against_passes(ax, table, column="found", top=50, required=45)
    assert [text.get_text() for text in ax.get_legend().get_texts()] == ["1  b", "2  a"]
    assert [text.get_text() for text in ax.texts] == ["1", "2"]
    assert "passes" in ax.get_xlabel()
    assert ax.lines[-1].get_color() == style.HIGHLIGHT
