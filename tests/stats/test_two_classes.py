import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats
from sklearn.dummy import DummyClassifier
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import brier_score_loss, f1_score, roc_auc_score

from epigen_utils.stats import attainable, folds, intervals, two_classes


def test_auc_is_scikit_learns_also_with_ties():
    rng = np.random.default_rng(0)
    score, positive = rng.integers(5, size=60), rng.random(60) < 0.3
    assert two_classes.roc_auc(score, positive) == pytest.approx(roc_auc_score(positive, score))
    assert np.isnan(two_classes.roc_auc(score, np.ones(60, bool)))


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
    scores = two_classes.pooled_scores(found, "b")
    assert scores["auc"] == pytest.approx(roc_auc_score(true, found["p_b"]))
    assert scores["f1"] == pytest.approx(f1_score(true, found["predicted"] == "b"))
    assert scores["brier"] == pytest.approx(brier_score_loss(true, found["p_b"]))


def test_pairs_of_different_folds_are_not_compared():
    found = predictions(repeats=1)
    found["fold"] = np.arange(20) % 2
    found["p_b"] += 5 * found["fold"]
    parts = [roc_auc_score(part["true"] == "b", part["p_b"]) for _, part in found.groupby("fold")]
    assert two_classes.pooled_scores(found, "b")["auc"] == pytest.approx(np.mean(parts))
    assert two_classes.count_pairs_within_folds(found, "b") == 50
    X, y = np.zeros((10, 1)), np.array(["a"] * 4 + ["b"] * 6)
    found = folds.repeat_cross_validation(
        DummyClassifier(strategy="prior"), X, y, np.arange(10), n_splits=3, n_repeats=2, seed=0
    )
    assert two_classes.scores_over_repeats(found, "b")["auc"] == 0.5


def test_on_nothing_the_interval_of_a_cross_validation_holds_chance():
    """Scores of folds depend on each other: an interval of independent scores leaves chance more often than it says."""
    rng, outside = np.random.default_rng(0), {True: 0, False: 0}
    y = np.repeat(["a", "b"], 16)
    for seed in range(100):
        X = rng.normal(size=(32, 40))
        found = folds.repeat_cross_validation(
            LogisticRegression(C=0.1), X, y, np.arange(32), n_splits=5, n_repeats=1, seed=seed
        )
        auc = two_classes.pooled_scores(found, "b")["auc"]
        for known in outside:
            low, high = intervals.auc_interval(auc, 16, 16, n_folds=5 if known else 1)
            outside[known] += not low <= 0.5 <= high
    assert outside[True] <= 12
    assert outside[False] > outside[True]


def test_the_interval_covers_what_it_says():
    """Binormal scores with a true AUC of 0.76, 12 against 12."""
    rng, inside = np.random.default_rng(0), 0
    truth = stats.norm.cdf(1 / np.sqrt(2))
    for _ in range(300):
        p = np.r_[rng.normal(0, 1, 12), rng.normal(1, 1, 12)]
        low, high = intervals.auc_interval(two_classes.roc_auc(p, np.arange(24) > 11), 12, 12)
        inside += low <= truth <= high
    assert 0.91 < inside / 300 < 0.99


def test_donors_are_counted_once():
    found = predictions()
    found["donor"] = "d" + (found["row"] // 2).astype(str)
    one, two = two_classes.scores_over_repeats(predictions(), "b"), two_classes.scores_over_repeats(found, "b")
    assert (one["donors"], two["donors"], two["n"]) == (20, 10, 20)
    assert two["auc high"] - two["auc low"] > one["auc high"] - one["auc low"]
    assert one["f1 low"] <= one["f1"] <= one["f1 high"]
    # Twenty alike samples of a donor say as much as one.
    many = pd.concat([predictions().assign(donor=lambda table: "d" + table["row"].astype(str))] * 20, ignore_index=True)
    alike = two_classes.scores_over_repeats(many.assign(row=range(len(many))), "b")
    assert alike["donors"] == 20
    for name in ("f1 low", "f1 high", "auc low", "auc high"):
        assert alike[name] == pytest.approx(one[name], abs=0.03), name


def test_a_donor_with_samples_of_both_classes_is_one():
    paired = predictions()
    paired["donor"] = "d" + paired.groupby(["repeat", "true"]).cumcount().astype(str)
    found = two_classes.scores_over_repeats(paired, "b")
    assert (found["n"], found["donors"]) == (20, 10)
    assert found["f1 low"] <= found["f1"] <= found["f1 high"]


def test_f1_of_three_donors_of_a_class_has_no_interval_and_of_four_has_one():
    found = predictions()
    for n, known in ((3, False), (4, True)):
        for few, many in (("a", "b"), ("b", "a")):
            first = found["row"] % 10 < n
            scores = two_classes.scores_over_repeats(found[first | (found["true"] == many)], "b")
            assert np.isfinite([scores["f1 low"], scores["f1 high"]]).all() == known, few
            assert np.isfinite([scores["f1"], scores["auc low"], scores["accuracy low"]]).all()
    paired = found[found["row"] % 10 < 4].assign(donor=lambda table: "d" + (table["row"] % 10).astype(str))
    assert np.isfinite(two_classes.scores_over_repeats(paired, "b")["f1 low"]), "four donors of both classes"


def test_a_model_beside_itself_is_no_better():
    found = predictions()
    found["fold"] = found["row"] % 4
    assert two_classes.auc_difference(found, found, "b") == {"difference": 0, "low": 0, "high": 0}
    other = found.assign(p_b=1 - found["p_b"])
    few = two_classes.auc_difference(found[found["fold"] < 2], other[other["fold"] < 2], "b")
    assert -1 <= few["low"] <= few["difference"] <= few["high"] <= 1


def test_roc_starts_and_ends_where_it_must():
    band = two_classes.roc_band(predictions(), "b")
    assert band[["fpr", "tpr"]].iloc[0].tolist() == [0, 0]
    assert band["tpr"].iloc[-1] == 1
    assert (band["low"] <= band["high"]).all()


@given(rows=st.lists(st.tuples(st.integers(-9, 9), st.booleans()), min_size=2, max_size=25), order=st.randoms())
def test_an_auc_depends_on_the_order_of_scores_alone(rows, order):
    score, positive = np.array([score for score, _ in rows]), np.array([positive for _, positive in rows])
    auc = two_classes.roc_auc(score, positive)
    if positive.all() or not positive.any():
        assert np.isnan(auc)
        return
    assert auc == pytest.approx(roc_auc_score(positive, score))
    for same in (np.exp(score / 3), score * 7.5 - 2, score.astype(float) ** 3):
        assert two_classes.roc_auc(same, positive) == auc
    mixed = order.sample(range(len(rows)), len(rows))
    assert two_classes.roc_auc(score[mixed], positive[mixed]) == auc
    assert two_classes.roc_auc(-score, positive) == pytest.approx(1 - auc)
    assert two_classes.roc_auc(score, ~positive) == pytest.approx(1 - auc)
    lattice = attainable.attainable_auc(positive.sum(), (~positive).sum(), ties=True)
    assert attainable.nearest_value(lattice, auc) == pytest.approx(auc)
