"""Scores over donors: intervals only where donors are enough, and paired differences of models."""

import numpy as np
import pandas as pd
import pytest
from sklearn.metrics import f1_score

from epigen_utils.downstream import donor_scores
from epigen_utils.stats import multiclass

CLASSES = ["dcm", "hcm", "nf"]


def predicted(per_class=5, cells=20, right=0.8, seed=0, labels_of="donor"):
    """Predictions of a made-up model on ``per_class`` donors of each class, or of donors that have all classes."""
    rng = np.random.default_rng(seed)
    rows = []
    for number in range(per_class * 3):
        for _ in range(cells):
            true = CLASSES[number % 3] if labels_of == "donor" else CLASSES[rng.integers(3)]
            p = rng.dirichlet([1, 1, 1]) * 0.4
            named = CLASSES.index(true) if rng.random() < right else int(rng.integers(3))
            p[named] += 0.6
            row = {"donor": f"d{number}", "true": true, "predicted": CLASSES[int(p.argmax())]}
            rows.append(row | {f"p_{name}": share for name, share in zip(CLASSES, p, strict=True)})
    return pd.DataFrame(rows).rename_axis("row").reset_index()


def test_three_donors_have_no_interval_and_four_have_one():
    three = donor_scores.score_tables({"m": predicted(per_class=3)})["m"]
    assert three[["low", "high"]].isna().all().all()
    assert three["value"].notna().all()
    four = donor_scores.score_tables({"m": predicted(per_class=4)})["m"]
    assert four[["low", "high"]].notna().all().all()
    pd.testing.assert_frame_equal(
        four, multiclass.scores_with_intervals(predicted(per_class=4)).set_index("score"), check_like=True
    )


def test_a_rare_class_takes_its_own_interval_and_the_mean_over_classes():
    cells = predicted(per_class=5)
    cells = cells[~cells["donor"].isin(["d0", "d3", "d6"])]  # two donors with DCM are left
    table = donor_scores.score_tables({"m": cells})["m"]
    assert np.isnan(table.at["recall, dcm", "low"])
    assert np.isnan(table.at["macro-F1", "low"])
    assert table.at["recall, nf", "low"] <= table.at["recall, nf", "value"] <= table.at["recall, nf", "high"]
    words = "no intervals, since the class with fewest donors has 2 of 12"
    assert donor_scores.interval_words(cells) == words
    several = predicted(per_class=1, labels_of="cell")
    assert donor_scores.interval_words(several) == "no intervals, since there are only 3 donors"
    assert donor_scores.interval_words(predicted()) == "95% intervals by bootstrap over 15 donors"


def test_donors_of_several_classes_count_together():
    cells = predicted(per_class=2, labels_of="cell")
    assert donor_scores.smallest_class(cells) == 6
    assert donor_scores.score_tables({"m": cells})["m"]["low"].notna().all()
    assert set(donor_scores.accuracy_by_donor({"m": cells})["class"]) == {""}


def test_each_donor_has_its_own_accuracy():
    cells = predicted()
    table = donor_scores.accuracy_by_donor({"m": cells})
    assert len(table) == 15
    assert (table["accuracy"] * table["cells"]).sum() == pytest.approx((cells["true"] == cells["predicted"]).sum())
    assert table.set_index("donor").loc["d1", "class"] == "hcm"


def test_summary_gives_a_p_only_where_shuffles_are_enough():
    tables = donor_scores.score_tables({"few": predicted(), "many": predicted()})
    permuted = {
        name: pd.DataFrame({"macro_f1": [0.8, *[0.3] * n], "p": 1 / (n + 1)}) for name, n in (("few", 1), ("many", 19))
    }
    summary = donor_scores.model_summary(tables, permuted).set_index("model")
    assert summary["shuffles"].to_dict() == {"few": 1, "many": 19}
    assert np.isnan(summary.at["few", "p"])
    assert summary.at["many", "p"] == 0.05
    assert summary["shuffled"].tolist() == pytest.approx([0.3, 0.3])
    assert list(donor_scores.model_summary(tables)) == [
        "model",
        "macro-F1",
        "low",
        "high",
        "accuracy",
        "accuracy low",
        "accuracy high",
    ]


def test_gaps_are_of_macro_f1_and_paired_over_donors():
    good, poor = predicted(right=0.9), predicted(right=0.3, seed=1)
    poor["true"] = good["true"]
    gaps = donor_scores.macro_f1_gaps({"good": good, "poor": poor, "same": good}, [("good", "poor"), ("good", "same")])
    first, second = gaps.to_dict("records")
    f1 = [f1_score(table["true"], table["predicted"], average="macro") for table in (good, poor)]
    assert first["difference"] == pytest.approx(f1[0] - f1[1])
    assert first["low"] < first["difference"] < first["high"]
    assert first["apart"]
    assert (second["difference"], second["low"], second["high"], second["apart"]) == (0, 0, 0, False)
    assert donor_scores.describe_gap(gaps.iloc[0]).startswith(f"{first['difference']:.2f} above poor (95% interval")
    assert ", which includes 0)" in donor_scores.describe_gap(gaps.iloc[1])
    few = donor_scores.macro_f1_gaps({"a": predicted(2), "b": predicted(2, seed=1)}, [("a", "b")])
    assert few["low"].isna().all()
    assert not few["apart"].any()
    assert "too few" in donor_scores.describe_gap(few.iloc[0])


def test_retention_has_no_interval_over_few_donors():
    tables = {"teacher": predicted(3), "student": predicted(3, right=0.7)}
    row = donor_scores.retention_table(tables, ["student"], "teacher").iloc[0]
    expected = multiclass.retention(tables["student"], tables["teacher"])
    assert row["by accuracy"] == expected["by accuracy"]
    assert np.isnan(row["by lift high"])
    tables = {"teacher": predicted(6), "student": predicted(6, right=0.7)}
    assert donor_scores.retention_table(tables, ["student"], "teacher").notna().all().all()


def test_a_teacher_that_is_no_better_than_the_largest_class_has_no_lift_to_retain():
    tables = {"teacher": predicted().assign(predicted="hcm"), "student": predicted(right=0.7)}
    row = donor_scores.retention_table(tables, ["student"], "teacher").iloc[0]
    assert row[["by lift", "by lift low", "by lift high"]].isna().all()
    assert row["by accuracy"] > 1


def test_classes_that_a_model_does_not_name():
    cells = predicted()
    silent = cells.assign(predicted=cells["predicted"].replace("dcm", "hcm"))
    assert donor_scores.unnamed_classes({"all": cells, "silent": silent}) == {"silent": ["dcm"]}


def test_confidence_is_of_diseased_cells_that_are_named_rightly():
    cells = predicted()
    found = donor_scores.confidence(cells, "nf")
    right = cells[(cells["true"] == cells["predicted"]) & (cells["true"] != "nf")]
    assert found["n"] == len(right)
    assert found["value"] == pytest.approx(right[["p_dcm", "p_hcm", "p_nf"]].max(axis=1).mean())
    assert found["low"] < found["value"] < found["high"]
    wrong = cells.assign(predicted="nf")
    assert donor_scores.confidence(wrong, "nf")["n"] == 0
