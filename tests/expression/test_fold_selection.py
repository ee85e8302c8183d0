import numpy as np
import pandas as pd
import pytest
from pydeseq2.preprocessing import deseq2_norm
from sklearn.linear_model import LogisticRegression

from epigen_utils.errors import DataError
from epigen_utils.expression import fold_selection
from epigen_utils.prediction import model_comparison
from epigen_utils.stats import intervals


@pytest.fixture
def counts():
    return np.random.default_rng(0).negative_binomial(5, 0.05, (12, 50)) + 1


def test_frozen_factors_are_pydeseq2s_and_know_nothing_of_a_new_sample(counts):
    normed, _ = deseq2_norm(counts)
    made = fold_selection.FrozenSizeFactors().fit(counts)
    np.testing.assert_allclose(made.transform(counts), np.log2(normed + 1))
    alone = made.transform(counts[:1] * 7)
    np.testing.assert_allclose(alone, made.transform(counts[:1]), atol=1e-12)


def test_samples_that_cannot_be_normalised_are_named(counts):
    with pytest.raises(DataError, match="no gene is detected in every training sample; drop"):
        fold_selection.FrozenSizeFactors().fit(np.eye(3))
    made = fold_selection.FrozenSizeFactors().fit(counts)
    with pytest.raises(DataError, match="sample 1 of 2: has too few of the genes"):
        made.transform(np.vstack([counts[:1], np.zeros((1, 50), int)]))


def test_genes_by_variance_and_by_difference():
    values = np.array([[0, 5, 1, 3.0], [9, 5, 1, 3], [0, 6, 1, 3], [9, 6, 1, 3]])
    y = np.array(["a", "a", "b", "b"])
    assert fold_selection.ranked_genes(values, y, "variance")[0] == 0
    assert fold_selection.ranked_genes(values, y, "expression difference")[0] == 1
    with pytest.raises(DataError, match="did you mean 'variance'"):
        fold_selection.ranked_genes(values, y, "varianze")


def test_genes_are_chosen_in_the_training_samples_alone(counts):
    y = np.repeat(["a", "b"], 6)
    made = fold_selection.FoldPipeline(LogisticRegression(), [f"g{i}" for i in range(50)], 5, "expression difference")
    rows = np.r_[0:4, 6:10]
    first = made.fit(counts[rows], y[rows]).chosen_.copy()
    other = counts.copy()
    other[[4, 5, 10, 11]] = 1000
    np.testing.assert_array_equal(made.fit(other[rows], y[rows]).chosen_, first)
    learned, asked = made.tables(counts[rows], y[rows], counts[4:6])
    assert isinstance(learned, pd.DataFrame)
    assert list(learned.columns) == list(asked.columns) == [f"g{i}" for i in first]


def test_the_leak_is_seen():
    """What makes the other numbers trusted: genes chosen with all labels find a signal where there is none."""
    truth = {"nothing": 0}
    table = model_comparison.auc_on_simulations(
        lambda some: model_comparison.selection_inside_and_outside(some, n_genes=64), seeds=range(4), changed=truth
    )
    means = table.groupby("model")["auc"].mean()
    assert means["outside"] > 0.9
    low, high = intervals.auc_interval(means["inside the folds"], 32, 32)
    assert low < 0.5 < high


def test_every_rival_finds_what_is_planted_and_nothing_where_nothing_is():
    truths = {"strong": 200, "nothing": 0}
    table = model_comparison.auc_on_simulations(
        lambda some: fold_selection.pipelines_by_selection(
            fold_selection.baseline_models(), some.genes, 64, ("expression difference",)
        ),
        seeds=range(4),
        changed=truths,
    )
    found = intervals.means_over_cohorts(table, ["planted", "model"], "auc").set_index(["planted", "model"])
    for name in ("logistic regression", "random forest"):
        assert found.loc[("strong", f"{name}, by expression difference"), "auc"] > 0.95
        row = found.loc[("nothing", f"{name}, by expression difference")]
        assert row["auc low"] < 0.5 < row["auc high"]
    assert found.loc[("strong", "majority, by expression difference"), "auc"] == 0.5
