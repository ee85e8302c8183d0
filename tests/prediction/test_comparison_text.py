import numpy as np
import pandas as pd

from epigen_utils.prediction import comparison_text
from epigen_utils.stats import permutation


def test_the_words_of_a_learning_curve_say_how_many_there_were():
    rows = [("GPT-2", 4, 8, 0.6), ("LR", 4, 8, 0.7), ("RF", 4, 8, 0.5), ("GPT-2", 163, 787, 0.8), ("LR", 163, 787, 0.9)]
    curve = pd.DataFrame(rows, columns=["model", "per class", "samples", "auc"])
    assert comparison_text.describe_learning_curve(curve, ours="GPT-2") == (
        "With 4 samples of each class GPT-2 has an AUC of 0.60, the better of the two baselines 0.70; "
        "with 163 of the rarer class, 787 samples in all, 0.80 and 0.90."
    )


def test_fewer_than_nineteen_shuffles_are_said_to_give_no_p():
    assert comparison_text.describe_permutations(0) == (
        "GPT-2 was not trained on permuted labels and has no p-value here, which needs at least 19."
    )
    assert "on only 1 permutation of the labels and has no p-value" in comparison_text.describe_permutations(1)
    assert "on only 18 permutations of the labels and has no p-value" in comparison_text.describe_permutations(18)
    assert "which give its p-value" in comparison_text.describe_permutations(permutation.MIN_PERMUTATIONS)


def test_a_difference_has_both_ends_of_its_interval_or_says_that_folds_agree():
    nothing = {"difference": 0.0, "low": np.nan, "high": np.nan}
    assert (
        comparison_text.describe_difference(nothing) == "the same (no interval: the folds agree, or there is only one)"
    )
    one = comparison_text.describe_difference(nothing | {"difference": -0.2})
    assert one == "0.20 lower (no interval: the folds agree, or there is only one)"
    change = {"difference": 0.2, "low": -0.1, "high": 0.5}
    assert comparison_text.describe_difference(change) == "0.20 higher (95% interval: 0.10 lower to 0.50 higher)"


def test_a_score_worse_than_naming_the_majority_is_said_to_be():
    majority = pd.Series({"accuracy": 0.80, "brier": 0.16})
    worse = comparison_text.describe_against_majority(pd.Series({"accuracy": 0.76, "brier": 0.21}), majority)
    assert worse.count("worse than") == 2
    better = comparison_text.describe_against_majority(pd.Series({"accuracy": 0.9, "brier": 0.1}), majority)
    assert better.count("better than") == 2
    same = comparison_text.describe_against_majority(pd.Series({"accuracy": 0.801, "brier": 0.162}), majority)
    assert same.count("equal to") == 2


def test_data_sets_at_the_ceiling_are_named():
    rows = [("easy", "base", 1.0), ("easy", "variant", 0.9), ("hard", "base", 0.7), ("hard", "variant", 1.0)]
    table = pd.DataFrame(rows, columns=["data set", "variant", "auc"])
    assert comparison_text.describe_ceilings(table).startswith("On easy the unchanged model has an AUC of 1.00")
    assert comparison_text.describe_ceilings(table[table["data set"] == "hard"]) == ""


def test_pretraining_at_the_ceiling_shows_nothing():
    rows = [("BERT", 1.0, 1.0, 0.0, np.nan, np.nan, 8), ("GPT-2", 0.8, 0.7, 0.1, -0.1, 0.3, 123)]
    gains = pd.DataFrame(rows, columns=["network", "published", "random", "difference", "low", "high", "n"])
    text = comparison_text.describe_pretraining(gains)
    assert text.count("at the ceiling") == 1
    assert "fold by fold the first is 0.10 higher (95% interval: 0.10 lower to 0.30 higher)" in text
