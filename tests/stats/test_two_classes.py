import numpy as np
import pandas as pd
import pytest
from scipy import stats
from sklearn.dummy import DummyClassifier
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import brier_score_loss, f1_score, roc_auc_score

from epigen_utils import evaluation, sample_scores
from epigen_utils.errors import DataError


def predictions(n=20, repeats=2, seed=0):
    rng = np.random.default_rng(seed)
    parts = []
    for repeat in range(repeats):
        true = np.repeat(["a", "b"], n // 2)
        p = np.clip(0.3 * (true == "b") + rng.uniform(0, 0.7, n), 0, 1)
        part = pd.DataFrame(
            {"row": range(n), "fold": 0, "repeat": repeat, "donor": [f"d{i}" for i in range(n)], "true": true}
        )
        parts.append(part.assign(predicted=np.where(p > 0.5, "b", "a"), p_b=p, p_a=1 - p))
    return pd.concat(parts, ignore_index=True)


def test_scores_are_scikit_learns():
    found = predictions(repeats=1)
    true = found["true"] == "b"
    scores = sample_scores.pooled(found, "b")
    assert scores["auc"] == pytest.approx(roc_auc_score(true, found["p_b"]))
    assert scores["f1"] == pytest.approx(f1_score(true, found["predicted"] == "b"))
    assert scores["brier"] == pytest.approx(brier_score_loss(true, found["p_b"]))


def test_pairs_of_different_folds_are_not_compared():
    found = predictions(repeats=1)
    found["fold"] = np.arange(20) % 2
    found["p_b"] += 5 * found["fold"]
    parts = [roc_auc_score(part["true"] == "b", part["p_b"]) for _, part in found.groupby("fold")]
    assert sample_scores.pooled(found, "b")["auc"] == pytest.approx(np.mean(parts))
    assert sample_scores.pairs_within(found, "b") == 50
    X, y = np.zeros((10, 1)), np.array(["a"] * 4 + ["b"] * 6)
    found = sample_scores.repeated(
        DummyClassifier(strategy="prior"), X, y, np.arange(10), n_splits=3, n_repeats=2, seed=0
    )
    assert sample_scores.of_repeats(found, "b")["auc"] == 0.5


def test_intervals_of_an_auc():
    """Newcombe 2006, method 5: what Hanley and McNeil's variance says when solved for the AUC."""
    low, high = sample_scores.auc_interval(0.8, 20, 30)
    for end in (low, high):
        spread = 1 + 24 * ((1 - end) / (2 - end) + end / (1 + end))
        assert abs(0.8 - end) == pytest.approx(
            stats.norm.ppf(0.975) * np.sqrt(end * (1 - end) * spread / 600), rel=1e-6
        )
    assert low < 0.8 < high
    assert sample_scores.auc_interval(1.0, 3, 3)[0] < 0.7
    assert sample_scores.auc_interval(1.0, 3, 3)[1] == 1
    assert sample_scores.auc_interval(0.0, 3, 3) == pytest.approx((0, 1 - sample_scores.auc_interval(1.0, 3, 3)[0]))


def test_on_nothing_the_interval_of_a_cross_validation_holds_chance():
    """Scores of folds depend on each other: the interval of independent scores leaves chance far more often than it says."""
    rng, outside = np.random.default_rng(0), {True: 0, False: 0}
    y = np.repeat(["a", "b"], 16)
    for seed in range(100):
        X = rng.normal(size=(32, 40))
        found = sample_scores.repeated(
            LogisticRegression(C=0.1), X, y, np.arange(32), n_splits=5, n_repeats=1, seed=seed
        )
        auc = sample_scores.pooled(found, "b")["auc"]
        for known in outside:
            low, high = sample_scores.auc_interval(auc, 16, 16, folds=5 if known else 1)
            outside[known] += not low <= 0.5 <= high
    assert outside[True] <= 12
    assert outside[False] > outside[True]


def test_the_interval_covers_what_it_says():
    """Binormal scores with a true AUC of 0.76, 12 against 12."""
    rng, inside = np.random.default_rng(0), 0
    truth = stats.norm.cdf(1 / np.sqrt(2))
    for _ in range(300):
        p = np.r_[rng.normal(0, 1, 12), rng.normal(1, 1, 12)]
        low, high = sample_scores.auc_interval(evaluation.auc(p, np.arange(24) > 11), 12, 12)
        inside += low <= truth <= high
    assert 0.91 < inside / 300 < 0.99


def test_donors_are_counted_once():
    found = predictions()
    found["donor"] = "d" + (found["row"] // 2).astype(str)
    one, two = sample_scores.of_repeats(predictions(), "b"), sample_scores.of_repeats(found, "b")
    assert (one["donors"], two["donors"], two["n"]) == (20, 10, 20)
    assert two["auc high"] - two["auc low"] > one["auc high"] - one["auc low"]
    assert one["f1 low"] <= one["f1"] <= one["f1 high"]
    # Twenty alike samples of a donor say as much as one.
    many = pd.concat([predictions().assign(donor=lambda table: "d" + table["row"].astype(str))] * 20, ignore_index=True)
    alike = sample_scores.of_repeats(many.assign(row=range(len(many))), "b")
    assert alike["donors"] == 20
    for name in ("f1 low", "f1 high", "auc low", "auc high"):
        assert alike[name] == pytest.approx(one[name], abs=0.03), name


def test_a_donor_with_samples_of_both_classes_is_one():
    paired = predictions()
    paired["donor"] = "d" + paired.groupby(["repeat", "true"]).cumcount().astype(str)
    found = sample_scores.of_repeats(paired, "b")
    assert (found["n"], found["donors"]) == (20, 10)
    assert found["f1 low"] <= found["f1"] <= found["f1 high"]


def test_overlapping_training_sets_widen_the_interval():
    values = np.random.default_rng(0).normal(0.1, 0.05, 10)
    mean, low, high = sample_scores.corrected_interval(values, test_share=0.2)
    plain = stats.t.interval(0.95, 9, values.mean(), stats.sem(values))
    assert mean == pytest.approx(values.mean())
    assert (high - low) / (plain[1] - plain[0]) == pytest.approx(np.sqrt((0.1 + 0.25) / 0.1))
    assert np.isnan(sample_scores.corrected_interval(values[:1], test_share=0.2)[1])


def test_a_model_beside_itself_is_no_better():
    found = predictions()
    found["fold"] = found["row"] % 4
    assert sample_scores.beside(found, found, "b") == {"difference": 0, "low": 0, "high": 0}
    other = found.assign(p_b=1 - found["p_b"])
    few = sample_scores.beside(found[found["fold"] < 2], other[other["fold"] < 2], "b")
    assert -1 <= few["low"] <= few["difference"] <= few["high"] <= 1


def test_mistakes_in_classes_are_one_line():
    ids = np.arange(5)
    with pytest.raises(DataError, match="classes: 1"):
        sample_scores.check_folds(np.array(["a"] * 5), ids, 3)
    with pytest.raises(DataError, match="classes: 3"):
        sample_scores.check_folds(np.array(list("aabbc")), ids, 3)
    with pytest.raises(DataError, match="class 'b': in one fold at most"):
        sample_scores.check_folds(np.array(list("aaaab")), ids, 3)
    assert sample_scores.check_folds(np.array(list("aaabb")), ids, 5) == 2


def test_learning_curve_takes_parts_of_parts():
    rng = np.random.default_rng(0)
    y = np.repeat(["a", "b"], 40)
    X = rng.normal(size=(80, 3)) + (y == "b")[:, None]
    table = sample_scores.learning_curve(
        {"LR": LogisticRegression()}, X, y, np.arange(80), "b", sizes=[4, 8, 99, 0], n_splits=4, seed=0
    )
    assert sorted(set(table["per class"])) == [4, 8, 30]
    assert table.groupby("per class")["auc"].mean().iloc[-1] > 0.7
    assert (table["samples"] == 2 * table["per class"]).all(), "both classes have as many here"


def test_the_words_of_a_learning_curve_say_how_many_there_were():
    rows = [("GPT-2", 4, 8, 0.6), ("LR", 4, 8, 0.7), ("RF", 4, 8, 0.5), ("GPT-2", 163, 787, 0.8), ("LR", 163, 787, 0.9)]
    curve = pd.DataFrame(rows, columns=["model", "per class", "samples", "auc"])
    assert sample_scores.learning_in_words(curve, ours="GPT-2") == (
        "With 4 samples of each class GPT-2 has an AUC of 0.60, the better of the plain models 0.70; "
        "with 163 of the rarer class, 787 samples in all, 0.80 and 0.90."
    )


def test_roc_starts_and_ends_where_it_must():
    band = sample_scores.roc_band(predictions(), "b")
    assert band[["fpr", "tpr"]].iloc[0].tolist() == [0, 0]
    assert band["tpr"].iloc[-1] == 1
    assert (band["low"] <= band["high"]).all()


def test_shuffled_labels_score_at_chance():
    rng = np.random.default_rng(0)
    y = np.repeat(["a", "b"], 15)
    X = rng.normal(size=(30, 2)) + 3 * (y == "b")[:, None]
    null = sample_scores.shuffled(LogisticRegression(), X, y, np.arange(30), "b", n_splits=3, n_permutations=19, seed=0)
    assert len(null) == 19
    assert abs(null.mean() - 0.5) < 0.1
    mean, low, high = sample_scores.over_seeds(null)
    assert low < mean < high
