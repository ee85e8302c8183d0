import numpy as np

from epigen_utils.data import sample_table


def test_summary_and_missing_metadata(small):
    small.uns["epigen"] |= {"nature": "real", "species": "mus_musculus"}
    row = sample_table.cohort_summary(small)
    assert row["groups"] == "a 3, b 3"
    assert row["donors"] == "3"
    assert row["median depth"] == np.median([114, 105, 121, 109, 116, 113])
    assert row["median genes detected"] == 4
    small.obs["Sex"] = ["f", None, "m", "m", "f", "f"]
    missing = sample_table.missing_metadata(small)
    assert missing["donor"] == "donor"
    assert missing["sex"] == "Sex, 1 empty"
    assert missing["age"] == "missing"


def test_samples_with_a_field(small):
    small.obs["diet"] = ["ketogenic", None, "control", "control", None, "control"]
    assert sample_table.count_with_field(small, "treatment") == 4
    assert sample_table.count_with_field(small, "donor") == 6
    assert sample_table.count_with_field(small, "sex") == 0
    small.uns["epigen"]["group"] = "diet"
    assert sample_table.count_with_field(small, "treatment") == 0, "the group is no description of itself"
