import datasets as arrow
import numpy as np
import pandas as pd

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


def test_seeds_are_paired():
    runs = students.plan_runs(["student-4.3m", "student-3m"], n_seeds=3)
    metrics = pd.DataFrame({"accuracy": range(len(runs)), "perplexity": 1.0}, [run.name for run in runs])
    found = student_comparison.compare_by_seed(runs, metrics)
    assert list(found["seed"]) == [0, 1, 2]
    names = ["student-4.3m", "student-4.3m, seed 1", "student-4.3m, seed 2"]
    assert list(found["accuracy, distilled"]) == list(metrics.loc[names, "accuracy"])
    assert found["accuracy, CE only"].iloc[2] == metrics.loc["student-4.3m, CE only, seed 2", "accuracy"]


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
