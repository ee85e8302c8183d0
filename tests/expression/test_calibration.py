import numpy as np
import pandas as pd
import pytest

from epigen_utils.data import simulated_bulk
from epigen_utils.errors import DataError
from epigen_utils.expression import calibration


def results(**columns):
    base = {"baseMean": 100.0, "log2FoldChange": 0.0, "lfcSE": 0.1, "stat": 0.0, "pvalue": 0.5, "padj": 0.5}
    return pd.DataFrame(base | columns, index=["a", "b", "c", "d"])


def test_differences_and_calls_by_hand():
    theirs = results(padj=[0.01, 0.06, 0.01, np.nan], baseMean=[100, 100, 100, 1.0])
    ours = results(padj=[0.01, 0.04, 0.2, 0.3], baseMean=[101, 100, 100, 1.0])
    found = calibration.compare_with_reference(ours, theirs, min_mean=10).set_index("column")
    assert found.loc["baseMean", "largest"] == pytest.approx(0.01)
    assert found.loc["baseMean", "genes"] == 4
    assert found.loc["padj", "genes"] == 3
    assert found.loc["padj", "largest"] == pytest.approx(0.19)
    calls = calibration.discordant_calls(ours, theirs, alpha=0.05)
    assert calls[["gene", "called by"]].to_numpy().tolist() == [["b", "ours"], ["c", "theirs"]]
    assert calls["padj, theirs"].tolist() == [0.06, 0.01]


def test_tables_are_compared_entry_by_entry():
    theirs = pd.DataFrame([[1.0, 2], [3, 4]], ["x", "y"], ["g", "h"])
    found = calibration.compare_tables(pd.DataFrame([[3.0, 4.5], [1, 2]], ["y", "x"], ["g", "h"]), theirs)
    assert found["largest"] == 0.5
    assert found["median"] == 0


def test_simulated_cohorts_have_few_false_discoveries_and_much_power():
    runs = calibration.error_rates_on_simulations(
        range(3), groups={"c": 6, "m": 6}, n_genes=300, n_changed=40, alpha=0.05, edges=(0, 1, 10)
    )
    assert list(runs["seed"]) == [0, 1, 2]
    summary = calibration.means_over_seeds(runs).set_index("quantity")
    assert summary.loc["1 to 10", "mean"] > 0.8
    assert summary.loc["false discoveries", "mean"] < 0.2
    assert 0.01 < summary.loc["rejected, null", "mean"] < 0.1
    assert summary.loc["rejected, null", "seeds"] == 3


def test_over_seeds_is_students_interval():
    found = calibration.means_over_seeds(
        pd.DataFrame({"seed": [1, 2, 3], "x": [1.0, 2.0, 3.0], "y": [np.nan, 1.0, 1.0]})
    )
    assert found["mean"].tolist() == [2, 1]
    assert found["high"][0] - 2 == pytest.approx(4.302653 / np.sqrt(3))
    assert found["seeds"].tolist() == [3, 2]


def test_shuffles_stay_within_donors_and_lose_the_difference():
    adata = simulated_bulk.negative_binomial_cohort(
        groups={"c": 4, "m": 4}, reference="c", n_genes=200, n_changed=80, dispersion=0.02, seed=1
    )
    adata.obs["donor"] = list("wxyz") * 2
    found = calibration.calls_under_permutation(
        adata,
        design="~donor + group",
        contrast=("group", "m", "c"),
        donors=adata.obs["donor"].to_numpy(),
        n_permutations=99,
        alpha=0.05,
        seed=0,
    )
    assert found["labels"].tolist() == ["observed"] + ["shuffled"] * 7, "2^4 labelings, each with its mirror image"
    assert found["agree"].tolist()[0] == 1
    assert set(found["agree"][1:]) == {0.5, 0.75}
    assert found["called"][0] > 2 * found["called"][1:].max()


def test_observed_labels_that_cannot_be_tested_are_never_taken_for_shuffled_ones():
    adata = simulated_bulk.negative_binomial_cohort(groups={"c": 3, "m": 3}, reference="c", n_genes=60, n_changed=0)
    adata.obs["batch"] = list("xxxyyy")
    chosen = {"design": "~batch + group", "contrast": ("group", "m", "c"), "donors": None}
    with pytest.raises(DataError, match="cannot be told apart"):
        calibration.calls_under_permutation(adata, **chosen, n_permutations=3, alpha=0.05, seed=0)


def test_shuffles_are_drawn_from_all_labelings_and_pooled_levels_are_one_group():
    adata = simulated_bulk.negative_binomial_cohort(
        groups={"c": 4, "m": 2, "n": 2}, reference="c", n_genes=60, n_changed=0, seed=2
    )
    found = calibration.calls_under_permutation(
        adata, design="~group", contrast=("group", "m+n", "c"), donors=None, n_permutations=12, alpha=0.05, seed=0
    )
    assert len(found) == 13
    assert (found["agree"][1:] == 0.5).sum() > 3, "the first labelings in alphabetical order keep most labels"
