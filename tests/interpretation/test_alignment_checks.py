import numpy as np
import pytest

from epigen_utils.errors import DataError
from epigen_utils.gpt2 import readout_attention
from epigen_utils.gpt2.classifier import GPT2Classifier
from epigen_utils.interpretation import alignment, alignment_checks, representations
from epigen_utils.prediction import sample_cohort


@pytest.fixture(scope="module")
def part():
    cohort = sample_cohort.subsample_cohort(sample_cohort.load_cohort("seizures-sim"), 16, 0)
    return representations.split_cohort(cohort, n_genes=96)


def test_untrained_models_are_called_one_time_in_twenty(part):
    """Of 200 tests at 5%, a right one calls 3 to 19 (the binomial's 99% range)."""
    sets = {"all along": alignment_checks.sets_by_position(part.tables[0], size=12)["all along"]}
    labels = part.labels[0].to_numpy()
    table = alignment_checks.untrained_models(GPT2Classifier(), part.tables[0], labels, sets, seeds=range(200))
    found = alignment_checks.false_positive_rates(table).set_index("null")["called"]
    assert 3 <= found["matched"] <= 19
    assert 3 <= found["random"] <= 19


def test_place_alone_is_called_against_random_sets_and_not_against_matched_ones():
    rng = np.random.default_rng(0)
    places = np.argsort(np.argsort(np.arange(120) + rng.normal(0, 8, (10, 120)), axis=1), axis=1) / 120
    scores = np.exp(-2 * places)
    members = np.zeros(120, bool)
    members[0:40:3] = True
    found = alignment.baam(scores, places, members, n_permutations=199)
    assert found["baam"] > 0.8
    assert found["p random"] == 0.01
    assert found["p matched"] > 0.05


def test_families_are_called_more_often_than_single_genes():
    table = alignment_checks.false_positive_rates(
        alignment_checks.simulated_families(copies=[1, 8], n_sets=60), by="copies"
    )
    share = table[table["null"] == "matched"].set_index("copies")["share"]
    assert share[1] < 0.15 < share[8]


def test_small_sets_give_any_value(part):
    fresh = GPT2Classifier().untrained(part.tables[0], part.labels[0].to_numpy())
    found = readout_attention.compute_attention(fresh, part.tables[0])
    spread = (
        alignment_checks.random_sets_by_size(found.mean, found.positions, sizes=[1, 40], n_sets=60)
        .groupby("size")["baam"]
        .std()
    )
    assert spread[1] > 3 * spread[40]
    assert set(alignment_checks.random_sets_by_size(found.mean, found.positions, sizes=[2, 96], n_sets=3)["size"]) == {
        2
    }


def test_a_set_without_members_and_one_of_all_genes():
    scores = np.random.default_rng(0).random((3, 10))
    with pytest.raises(DataError, match="GABAergic: has no member among the 10 genes of the sentences; give a set"):
        alignment.baam(scores, scores, np.zeros(10, bool), name="GABAergic")
    with pytest.raises(DataError, match="everything: all 10 genes of the sentences are members"):
        alignment.baam(scores, scores, np.ones(10, bool), name="everything")
    with pytest.raises(DataError, match="A, B: none has a member among the 10 genes"):
        alignment.baam_of_sets(scores, scores, list("abcdefghij"), {"A": ["x"], "B": ["y"]})
