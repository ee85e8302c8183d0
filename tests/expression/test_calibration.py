import numpy as np
import pandas as pd
import pytest

from epigen_utils.data import simulated_bulk
from epigen_utils.errors import DataError
from epigen_utils.expression import calibration, differential, normalisation


@pytest.fixture(scope="module")
def rates():
    return calibration.error_rates_on_simulations(
        range(3), groups={"c": 6, "m": 6}, n_genes=300, n_changed=40, alpha=0.05, edges=(0, 1, 10), n_compared=1
    )


def test_simulated_cohorts_have_few_false_discoveries_and_much_power(rates):
    assert rates["test"].tolist() == [*calibration.TESTS, *calibration.TESTS[:-1] * 2], "PyDESeq2 on the first alone"
    assert rates["seed"].unique().tolist() == [0, 1, 2]
    summary = calibration.summarise_rates(rates, alpha=0.05).set_index("metric")
    assert summary.loc["power_1_to_10", "mean"] > 0.8
    assert summary.loc["fdr", "mean"] < 0.2
    assert 0.01 < summary.loc["null_rejected", "mean"] < 0.1
    assert summary.loc["null_rejected", "cohorts"] == 3
    assert summary.loc["fdr_pydeseq2", "cohorts"] == summary.loc["fdr_difference_of_pydeseq2", "cohorts"] == 1
    assert summary.loc["null_any_called", "high"] == pytest.approx(1 - 0.025 ** (1 / 3)), "none of three"


def test_means_over_cohorts_have_students_interval_cut_for_shares():
    """By hand: false discoveries of 0.0, 0.1, 0.2 and 0.3; the bin of a cohort without genes is left out."""
    rows = [
        {"seed": i, "test": test, "called": 10 * i, "false discoveries": i / 10, "tail": 0.01, "0 to 1": power}
        | {"rejected, null": 0.05, "called, null": i}
        for i, power in enumerate([np.nan, 1.0, 1.0, 1.0])
        for test in calibration.TESTS[:-1]
    ]
    found = calibration.summarise_rates(pd.DataFrame(rows), alpha=0.05).set_index("metric")
    half = 3.182446 * np.std([0, 0.1, 0.2, 0.3], ddof=1) / 2
    assert found.loc["fdr", ["mean", "low", "high"]].tolist() == pytest.approx([0.15, 0, 0.15 + half])
    assert found.loc["called", "low"] == pytest.approx(15 - 100 * half), "no share"
    assert found.loc["power_0_to_1", ["mean", "cohorts"]].tolist() == [1, 3]
    assert found.loc["power_0_to_1", ["low", "high"]].isna().all(), "three cohorts"
    assert found.loc["null_any_called", "mean"] == 0.75
    assert "fdr_pydeseq2" not in found.index


def test_the_known_dispersion_is_the_one_tested_with():
    cohort = simulated_bulk.negative_binomial_cohort(
        groups={"c": 3, "m": 3}, reference="c", n_genes=50, n_changed=0, dispersion=0.5
    )
    fitted = differential.fit_design(cohort, design="~group")
    known = calibration.with_known_dispersion(fitted, 0.5)
    assert set(known.dispersions["final"]) == {0.5}
    assert fitted.dispersions["final"].nunique() > 40, "the other fit keeps its own"
    counts = normalisation.count_table(cohort).div(normalisation.size_factors(cohort), axis=0)
    change = np.log2(counts[3:].mean() / counts[:3].mean())
    found = known.results(("group", "m", "c"))["log2FoldChange"]
    assert np.corrcoef(found, change)[0, 1] > 0.999


def test_what_an_interval_says_of_the_level():
    say = calibration.describe_rate
    assert say(0.064, 0.061, 0.067, alpha=0.05) == "0.064 (95% interval 0.061 to 0.067): above the nominal 0.05"
    assert say(0.05, 0.04, 0.06, alpha=0.05).endswith(", which includes the nominal 0.05")
    assert say(0.03, 0.02, 0.04, alpha=0.05).endswith(": below the nominal 0.05")


def test_permutations_stay_within_donors_and_lose_the_difference():
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
    assert found["labels"].tolist() == ["observed"] + ["permuted"] * 7, "2^4 ways, each with its mirror image"
    assert found["agree"].tolist()[0] == 1
    assert set(found["agree"][1:]) == {0.5, 0.75}
    assert found["called"][0] > 2 * found["called"][1:].max()


def test_observed_labels_that_cannot_be_tested_are_never_taken_for_permuted_ones():
    adata = simulated_bulk.negative_binomial_cohort(groups={"c": 3, "m": 3}, reference="c", n_genes=60, n_changed=0)
    adata.obs["batch"] = list("xxxyyy")
    chosen = {"design": "~batch + group", "contrast": ("group", "m", "c"), "donors": None}
    with pytest.raises(DataError, match="cannot be separated"):
        calibration.calls_under_permutation(adata, **chosen, n_permutations=3, alpha=0.05, seed=0)


def test_permutations_are_drawn_from_all_and_pooled_levels_are_one_group():
    adata = simulated_bulk.negative_binomial_cohort(
        groups={"c": 4, "m": 2, "n": 2}, reference="c", n_genes=60, n_changed=0, seed=2
    )
    found = calibration.calls_under_permutation(
        adata, design="~group", contrast=("group", "m+n", "c"), donors=None, n_permutations=12, alpha=0.05, seed=0
    )
    assert len(found) == 13
    assert (found["agree"][1:] == 0.5).sum() > 3, "the first permutations in alphabetical order keep most labels"
