import datasets as arrow
import numpy as np
import pandas as pd
import pytest

from epigen_utils import paths
from epigen_utils.distillation import student_comparison, students
from epigen_utils.geneformer import masked_genes, vocabularies
from epigen_utils.models import presets


def test_a_frozen_model_drifts_where_cells_and_masks_do():
    vocabulary = vocabularies.vocabulary_from_medians({f"ENSG{i}": 1.0 for i in range(40)}, name="v")
    shape = {"hidden_size": 16, "intermediate_size": 32, "initializer_range": 0.3}
    net = presets.build(presets.preset("bert-tiny", vocab_size=vocabulary.size, **shape), "masked-lm")
    rng = np.random.default_rng(0)
    ids = [(rng.permutation(40)[:20] + 2).tolist() for _ in range(60)]
    cells = arrow.Dataset.from_dict({"input_ids": ids, "length": [20] * 60}).with_format("numpy")
    found = student_comparison.repeated_evaluations(net, cells, vocabulary, n_draws=4, n_cells=20)
    assert found["perplexity"].nunique() == 4
    fixed = [masked_genes.predict_masked_genes(net, cells, vocabulary, seed=0)["nll"].mean() for _ in range(2)]
    assert fixed[0] == fixed[1]


def test_a_teacher_s_gain_is_of_a_student_and_a_seed():
    runs = students.plan_runs(["student-4.3m", "student-3m"], n_seeds=2)
    asked = pd.DataFrame({"cell": [0, 0, 1, 1], "nll": 1.0, "correct": [True, False, True, False]})
    predictions = {run.name: asked for run in runs}
    predictions["student-3m, seed 1"] = asked.assign(correct=True, nll=0.0)
    found = student_comparison.teacher_gains(runs, predictions, donors=np.array(["a", "b"]))
    assert found[["student", "seed"]].to_numpy().tolist() == [
        ["student-4.3m", 0],
        ["student-4.3m", 1],
        ["student-3m", 0],
        ["student-3m", 1],
    ]
    assert found["accuracy"].tolist() == [0, 0, 0, 0.5]
    assert found["perplexity"].tolist() == pytest.approx([0, 0, 0, 1 - np.e])
    assert found["accuracy low"].isna().all(), "of two donors there is no interval"


def history(**columns):
    return pd.DataFrame({"step": [10, 20, 40], **columns})


def test_examples_are_counted_back_from_the_better_end():
    taught = history(ce=[6.0, 5.0, 4.0], accuracy=[0.1, 0.1, 0.1])
    alone = history(ce=[7.0, 6.0, 4.5], accuracy=[0.1, 0.2, 0.3])
    # The taught one is at 4.5 between steps 20 and 40, the other one at an accuracy of 0.1 from its first evaluation on.
    assert student_comparison.relative_examples(taught, alone, "ce") == 30 / 40
    assert student_comparison.relative_examples(alone, taught, "ce") == 40 / 30
    assert student_comparison.relative_examples(taught, alone, "accuracy") == 40 / 10
    assert student_comparison.relative_examples(taught, taught, "ce") == 1


def test_examples_are_paired_by_seed_and_a_student_alone_has_its_loss_as_cross_entropy():
    runs = students.plan_runs(["student-4.3m", "student-3m"], n_seeds=2, controls=True)
    pairs = student_comparison.seed_pairs(runs)
    assert pairs[1] == {"distilled": "student-4.3m, seed 1", "CE only": "student-4.3m, CE only, seed 1"}
    assert set(pairs) == set(student_comparison.seed_pairs(runs, "student-3m")) == {0, 1}
    assert pairs[0] == {"distilled": "student-4.3m", "CE only": "student-4.3m, CE only"}, "controls are no pair"
    taught = history(loss=[9.0, 9.0, 9.0], ce=[6.0, 5.0, 4.0], accuracy=[0.1, 0.2, 0.3])
    alone = history(loss=[7.0, 6.0, 5.0], accuracy=[0.1, 0.2, 0.3])
    histories = {pair["distilled"]: taught for pair in pairs.values()}
    histories |= {pair["CE only"]: alone for pair in pairs.values()}
    found = student_comparison.examples_by_seed(runs, histories)
    assert found.to_dict("list") == {"seed": [0, 1], "by cross entropy": [0.5, 0.5], "by accuracy": [1, 1]}


def test_one_seed_has_no_interval():
    assert student_comparison.over_seeds(pd.Series([0.5])) == {"number": 0.5, "n": 1}
    both = student_comparison.over_seeds(pd.Series([0.5, 2.0]), ratio=True)
    assert both["number"] == 1
    assert both["low"] == 1 / both["high"] < 0.5


#: Two cells of two donors; what the positions show is hidden, replaced and unchanged by turns.
ASKED = pd.DataFrame({"cell": [0, 0, 0, 1, 1, 1], "kind": [*masked_genes.KINDS] * 2, "nll": 1.0})
PREDICTIONS = {
    "teacher": ASKED.assign(correct=[True, False, True, False, False, True]),
    "copy rule": ASKED.assign(correct=[False, False, True] * 2, nll=2.0),
}
DONORS = np.array(["a", "b"])


def test_table_one_has_the_papers_measure_and_each_kind_apart():
    kinds = masked_genes.accuracy_by_kind(PREDICTIONS, donors=DONORS)
    found = student_comparison.table_one(PREDICTIONS, kinds, donors=DONORS).set_index("model")
    assert found["accuracy"].to_dict() == {"teacher": 0.5, "copy rule": 1 / 3}
    columns = ["hidden accuracy", "replaced", "unchanged"]
    assert found.loc["teacher", columns].tolist() == [0.5, 0, 1]
    assert found.loc["copy rule", columns].tolist() == [0, 0, 1]
    assert found.loc["teacher", "hidden perplexity"] == np.e


def test_gaps_of_two_donors_are_the_donors():
    pooled, by_donor = student_comparison.paired_gaps(PREDICTIONS, "teacher", donors=DONORS)
    assert pooled["accuracy low"].isna().all()
    assert by_donor["accuracy"].tolist() == [-1 / 3, 0]
    table = student_comparison.gap_table(pooled, by_donor)
    assert [*table] == [
        "model",
        "units",
        "accuracy",
        "perplexity",
        *(f"{s}, {d}" for s in ("accuracy", "perplexity") for d in "ab"),
    ]
    assert table.loc[0, ["units", "accuracy", "accuracy, a"]].tolist() == pytest.approx([2, -1 / 6, -1 / 3])


def test_gaps_of_four_donors_have_an_interval_and_no_column_each():
    repeated = {name: pd.concat([table, table.assign(cell=table["cell"] + 2)]) for name, table in PREDICTIONS.items()}
    pooled, by_donor = student_comparison.paired_gaps(repeated, "teacher", donors=np.array([*"abcd"]))
    table = student_comparison.gap_table(pooled, by_donor)
    assert {"accuracy low", "accuracy high"} < set(table)
    assert "accuracy, a" not in table
    assert table.loc[0, "accuracy low"] <= table.loc[0, "accuracy"] <= table.loc[0, "accuracy high"]


def test_what_a_loss_does_after_the_rate_was_zero():
    rate = pd.Series([0.1, 1.0, 0.5, 0.0, 0.5, 1.0, 0.0])
    loss = pd.Series([9.0, 8.0, 4.0, 3.0, 3.5, 2.0, 1.0])
    assert student_comparison.loss_change_after_decay(loss, rate) == {"rise": 0.5, "fall": 2.0}
    assert student_comparison.loss_change_after_decay(loss[:4], rate[:4]) == {"rise": 0, "fall": 0}
    assert student_comparison.loss_change_after_decay(loss, rate + 0.2) == {"rise": 0, "fall": 0}


def test_the_published_loss_falls_again_when_its_rate_comes_back():
    """The logs of the 4.3M student, means over 10,000 steps."""
    logs = pd.read_csv(paths.DATA / "student_logs.csv").query("student == 'student-4.3m'")
    means = logs.groupby(logs["step"] // 10_000)[["val_ce", "learning_rate"]].mean()
    found = student_comparison.loss_change_after_decay(means["val_ce"], means["learning_rate"])
    assert found["fall"] > 0.1


def test_spread_is_over_the_mean():
    assert student_comparison.relative_range(pd.Series([1.0, 2.0, 3.0])) == 1
    assert np.isnan(student_comparison.relative_range(pd.Series([0.0, 0.0])))


def test_ways_are_means_over_seeds_with_the_gain_paired():
    runs = students.plan_runs(["student-4.3m", "student-2m"], n_seeds=3)
    share = {run.name: 0.5 + 0.01 * run.seed + (0.1 if run.alpha is not None else 0.0) for run in runs}
    ways = pd.DataFrame({"model": list(share), "share": list(share.values()), "accuracy": 0.2})
    found = student_comparison.ways_over_seeds(runs, ways).set_index(["student", "kind"])
    row = found.loc[("student-4.3m", "distilled")]
    assert row["share"] == pytest.approx(0.61)
    assert row["share low"] < 0.61 < row["share high"]
    gain = found.loc[("student-2m", "gain")]
    assert [gain["share low"], gain["share high"]] == pytest.approx([0.1, 0.1]), "each seed gains the same"
    one = student_comparison.ways_over_seeds(runs[:4], ways)
    assert one["share low"].isna().all(), "one seed has no interval"


def test_recorded_ways_are_read_back_and_told():
    rows = []
    for model, kind, share in [
        ("teacher", "", 0.8),
        ("naive Bayes", "", 0.5),
        ("student-4.3m", "distilled", 0.7),
        ("student-4.3m", "CE only", 0.6),
        ("student-4.3m", "gain", 0.1),
    ]:
        for score in ("share", "accuracy"):
            metric = f"way_{score}_{student_comparison.way_key(model, kind)}"
            ends = {"value": share, "low": share - 0.02, "high": share + 0.02, "n": 5}
            rows.append({"run": "stream", "metric": metric} | ends)
    found = student_comparison.recorded_ways(pd.DataFrame(rows), ["student-4.3m", "student-2m"])
    assert list(found["model"]) == [
        "naive Bayes",
        "teacher",
        "student-4.3m, distilled",
        "student-4.3m, CE only",
        "student-4.3m, gain",
    ]
    first, second = student_comparison.describe_ways(found)
    assert "the teacher covers 80.0% (78.0% to 82.0%)" in first
    assert "above all of theirs" in first
    assert "student-4.3m +10.00% (+8.00% to +12.00%)" in second
