"""Paper B's printed matrices against arithmetic by hand, and against every matrix that rounds to them."""

import numpy as np
import pandas as pd
import pytest

from epigen_utils import paths
from epigen_utils.downstream import published_matrices
from epigen_utils.stats import multiclass


def printed(name):
    return pd.read_csv(paths.DATA / name, index_col="true", dtype=str)


@pytest.fixture(scope="module")
def figure6():
    return printed("cardiomyopathy_figure6.csv")


@pytest.fixture(scope="module")
def figure7():
    return printed("student_figure7.csv")


@pytest.fixture(scope="module")
def sizes():
    return pd.read_csv(paths.DATA / "student_figure8.csv").set_index("class")["n"]


def test_no_donor_is_both_to_choose_by_and_to_test_on():
    split = pd.read_csv(paths.DATA / "cardiomyopathy_split.csv", index_col="part")
    assert published_matrices.shared_donors(split) == 0
    split.loc["train and eval", "individuals"] = "eval: 1422 1510 1602"
    assert published_matrices.shared_donors(split) == 1


def test_detector_against_screener(figure6, figure7, sizes):
    teacher, student = (published_matrices.detection(shares, sizes, "nf") for shares in (figure6, figure7))
    assert teacher["value"].round(3).to_dict() == {"sensitivity": 0.963, "specificity": 0.83, "precision": 0.888}
    assert student["value"].round(3).to_dict() == {"sensitivity": 0.943, "specificity": 0.85, "precision": 0.842}
    assert ((student["low"] < student["value"]) & (student["value"] < student["high"])).all()
    more_sensitive = published_matrices.difference(teacher.loc["sensitivity"], student.loc["sensitivity"])
    more_specific = published_matrices.difference(student.loc["specificity"], teacher.loc["specificity"])
    more_precise = published_matrices.difference(student.loc["precision"], teacher.loc["precision"])
    assert more_sensitive["low"] > 0
    assert more_specific["low"] > 0
    assert more_precise["high"] < 0


def test_bounds_hold_for_every_matrix_that_rounds_to_the_printed_one(figure7, sizes):
    """Shares drawn within the rounding, taken as they are: no score leaves its range."""
    _, low, high = multiclass.printed_bounds(figure7)
    ranges = published_matrices.detection(figure7, sizes, "nf")
    rng = np.random.default_rng(0)
    for _ in range(200):
        shares = low + (high - low) * rng.random(low.shape)
        counts = shares.mul(sizes[shares.index], axis=0)
        found = multiclass.sensitivity_specificity(counts / shares.sum(axis=1).to_numpy()[:, None], "nf")
        assert found["specificity"] == pytest.approx(ranges.at["specificity", "value"], abs=0.02)
        missed = counts.loc[["hcm", "dcm"], "nf"].sum() / sizes[["hcm", "dcm"]].sum()
        assert ranges.at["sensitivity", "low"] - 1e-9 <= 1 - missed <= ranges.at["sensitivity", "high"] + 1e-9
        precision = counts.at["nf", "nf"] / counts["nf"].sum()
        assert ranges.at["precision", "low"] - 1e-9 <= precision <= ranges.at["precision", "high"] + 1e-9


def test_most_cells_wrongly_called_dcm_are_hcm(figure7, sizes):
    table = published_matrices.false_calls(figure7, sizes, "dcm")
    assert table["cells"].round().to_dict() == {"nf": 352, "hcm": 961}
    assert table.at["hcm", "value"] == pytest.approx(961.2 / (961.2 + 351.5), abs=1e-3)
    assert 0.72 < table.at["hcm", "low"] < table.at["hcm", "value"] < table.at["hcm", "high"] < 0.74
    assert table["value"].sum() == pytest.approx(1)


def test_the_loader_gives_students_other_heads_than_their_training():
    table = published_matrices.head_counts(["student-4.3m", "student-3m", "student-2m"])
    assert table["width"].tolist() == [128, 96, 64]
    assert table["heads in training"].tolist() == [4, 4, 4]
    assert table["heads in the loader"].tolist() == [2, 1, 1]


def test_a_row_for_each_matrix(figure6, figure7, sizes):
    table = published_matrices.detection_table({"teacher": figure6, "student": figure7}, sizes, "nf")
    assert table["model"].tolist() == ["teacher", "student"]
    assert (table["sensitivity low"] < table["sensitivity high"]).all()


def test_sentences_say_the_numbers(figure6, figure7, sizes):
    scores = [published_matrices.detection(shares, sizes, "nf") for shares in (figure6, figure7)]
    words = published_matrices.describe_detection(*scores)
    assert "sensitivity less the student's is +0.020" in words
    assert "the trade-off of section 5 holds" in words
    assert "the trade-off of section 5 does not hold" in published_matrices.describe_detection(*reversed(scores))
    assert "84.2% here, against 88.8% for the teacher" in words
    by_class = pd.read_csv(paths.DATA / "student_figure8.csv").set_index("class")
    wrong = published_matrices.false_calls(figure7, sizes, "dcm")
    words = published_matrices.describe_imbalance(by_class, "nf", "dcm", wrong)
    assert "73.8% come from diseased donors" in words
    assert "an F1 0.118 below that of the largest" in words
    assert "73.2% are HCM, which makes up 68.5%" in words
