import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sklearn import metrics

from epigen_utils.errors import DataError
from epigen_utils.stats import multiclass

#: Published confusion counts (Geneformer's cell classification example), true class in rows.
PUBLISHED = pd.DataFrame(
    [[3794, 385, 328], [562, 8680, 566], [13, 485, 2415]], ["nf", "hcm", "dcm"], ["nf", "hcm", "dcm"]
)


def predictions(n_donors=9, cells=20, right=0.8, seed=0):
    rng = np.random.default_rng(seed)
    donors = np.repeat([f"d{i}" for i in range(n_donors)], cells)
    true = np.repeat(np.resize(["a", "b", "c"], n_donors), cells)
    p = rng.dirichlet([1, 1, 1], len(true))
    hit = rng.random(len(true)) < right
    p[hit, pd.Categorical(true).codes[hit]] += 1
    p = pd.DataFrame(p / p.sum(axis=1, keepdims=True), columns=["p_a", "p_b", "p_c"])
    said = p.idxmax(axis=1).str.removeprefix("p_")
    return pd.DataFrame({"donor": donors, "true": true, "predicted": said}).join(p)


def test_what_follows_from_the_published_counts():
    whole, by_class = multiclass.scores_from_counts(PUBLISHED)
    assert whole["accuracy"] == pytest.approx(0.864233, abs=5e-7)
    assert whole["macro_f1"] == pytest.approx(0.842651, abs=5e-7)
    assert whole["majority"] == pytest.approx(9808 / 17228)
    assert by_class.set_index("class").loc["hcm", "precision"] == pytest.approx(8680 / 9550)
    two = multiclass.sensitivity_specificity(PUBLISHED, "nf")
    assert two["specificity"] == pytest.approx(3794 / 4507)
    assert two["sensitivity"] == pytest.approx((8680 + 566 + 485 + 2415) / (9808 + 2913))


def test_counts_and_scores_are_scikit_learns():
    found = predictions()
    counts = multiclass.confusion_counts(found)
    assert (counts.to_numpy() == metrics.confusion_matrix(found["true"], found["predicted"])).all()
    whole, by_class = multiclass.scores_from_counts(counts)
    expected = metrics.precision_recall_fscore_support(found["true"], found["predicted"])
    for name, values in zip(("precision", "recall", "f1", "n"), expected, strict=True):
        np.testing.assert_allclose(by_class[name], values)
    assert whole["macro_f1"] == pytest.approx(metrics.f1_score(found["true"], found["predicted"], average="macro"))


def test_intervals_are_over_donors_and_hold_the_value():
    found = predictions()
    table = multiclass.scores_with_intervals(found, n_bootstrap=300).set_index("score")
    assert ((table["low"] <= table["value"]) & (table["value"] <= table["high"])).all()
    assert table.loc["accuracy", "donors"] == 9
    assert table.loc["recall, a", ["cells", "donors"]].tolist() == [60, 3]
    # One donor of three is always wrong: over donors that is wide, over cells it would not be.
    found.loc[found["donor"] == "d0", "predicted"] = "b"
    wide = multiclass.scores_with_intervals(found, n_bootstrap=300).set_index("score").loc["recall, a"]
    assert wide["high"] - wide["low"] > 0.3


def test_donors_are_named_by_their_mean_probability():
    found = predictions(right=1.0)
    found.loc[found["donor"] == "d0", ["p_a", "p_b", "p_c"]] = [0.4, 0.6, 0.0]
    people = multiclass.donor_predictions(found).set_index("donor")
    assert people.loc["d0", "predicted"] == "b"
    assert (people.drop("d0")["true"] == people.drop("d0")["predicted"]).all()
    share = multiclass.share_of_donors_correct(people)
    assert share["value"] == pytest.approx(8 / 9)
    assert 0.5 < share["low"] < share["value"] < share["high"] < 1
    with pytest.raises(DataError, match="has cells of two classes"):
        multiclass.donor_predictions(found.assign(donor="one"))


def test_calibration_by_hand():
    p = pd.DataFrame({"p_a": [0.9] * 10 + [0.6] * 10, "p_b": [0.1] * 10 + [0.4] * 10})
    found = p.assign(true=["a"] * 9 + ["b"] + ["a"] * 3 + ["b"] * 7, predicted="a", donor="d")
    table, errors = multiclass.probability_calibration(found)
    assert table["said"].tolist() == pytest.approx([0.6, 0.9])
    assert table["right"].tolist() == pytest.approx([0.3, 0.9])
    assert errors["error"] == pytest.approx(0.15)
    assert errors["brier"] == pytest.approx(
        np.mean([2 * 0.1**2] * 9 + [2 * 0.9**2] + [2 * 0.4**2] * 3 + [2 * 0.6**2] * 7)
    )


def test_bounds_of_rounded_shares_hold_what_was_rounded():
    sizes = PUBLISHED.sum(axis=1)
    shares = PUBLISHED.div(sizes, axis=0).map("{:.2f}".format)
    bounds = multiclass.scores_from_shares(shares, sizes).set_index("score")
    whole, by_class = multiclass.scores_from_counts(PUBLISHED)
    truth = {"accuracy": whole["accuracy"]}
    for row in by_class.to_dict("records"):
        truth |= {f"{kind}, {row['class']}": row[kind.lower()] for kind in ("precision", "recall", "F1")}
    for name, value in truth.items():
        assert bounds.loc[name, "low"] <= value <= bounds.loc[name, "high"], name
        assert bounds.loc[name, "high"] - bounds.loc[name, "low"] < 0.06


def test_mistakes_are_one_line():
    with pytest.raises(DataError, match="give counts, not shares"):
        multiclass.scores_from_counts(PUBLISHED / 2)
    with pytest.raises(DataError, match="give the same"):
        multiclass.scores_from_counts(PUBLISHED.iloc[:, ::-1])
    with pytest.raises(DataError, match="healthy class 'well'"):
        multiclass.sensitivity_specificity(PUBLISHED, "well")


def test_what_a_student_keeps_by_the_papers_own_numbers():
    """Retention of 84.53% against 86.14% where the largest class has 56.93%: 98.1%, and 94.5% of what is above it."""
    largest = 9808 / 17228
    assert pytest.approx(0.981, abs=5e-4) == 0.8453 / 0.8614
    assert multiclass.lift(0.8453, largest) / multiclass.lift(0.8614, largest) == pytest.approx(0.945, abs=1e-3)


def test_retention_is_over_donors_and_of_the_same_cells():
    rng = np.random.default_rng(0)
    donor = np.repeat(np.arange(12), 30)
    true = np.where(donor % 3 == 0, "a", "b")
    table = {"row": np.arange(360), "donor": donor, "true": true, "p_a": 0.5, "p_b": 0.5}
    swapped = np.where(true == "a", "b", "a")
    teacher = pd.DataFrame(table | {"predicted": np.where(rng.random(360) < 0.1, swapped, true)})
    student = pd.DataFrame(table | {"predicted": np.where(rng.random(360) < 0.2, swapped, true)})
    found = multiclass.retention(student, teacher, n_bootstrap=200)
    assert found["by lift"] < found["by accuracy"] < 1
    assert found["by lift low"] < found["by lift"] < found["by lift high"]
    same = multiclass.retention(teacher, teacher, n_bootstrap=50)
    assert (same["by accuracy low"], same["by lift high"]) == (1, 1)
    with pytest.raises(DataError, match="different cells"):
        multiclass.retention(student[1:], teacher)


@given(
    pairs=st.lists(st.tuples(st.sampled_from("abcd"), st.sampled_from("abcd")), min_size=1, max_size=40),
    order=st.permutations("abcd"),
)
def test_scores_of_any_counts_are_scikit_learns_in_any_order_of_classes(pairs, order):
    true, predicted = zip(*pairs, strict=True)
    counts = pd.DataFrame(metrics.confusion_matrix(true, predicted, labels=order), list(order), list(order))
    whole, by_class = multiclass.scores_from_counts(counts)
    expected = metrics.precision_recall_fscore_support(true, predicted, labels=order, zero_division=0)
    for name, values in zip(("precision", "recall", "f1", "n"), expected, strict=True):
        np.testing.assert_allclose(by_class[name], values)
    assert whole["accuracy"] == pytest.approx(metrics.accuracy_score(true, predicted))
    assert whole["macro_f1"] == pytest.approx(np.mean(expected[2]))
    assert whole["majority"] == pytest.approx(max(map(true.count, true)) / len(true))
