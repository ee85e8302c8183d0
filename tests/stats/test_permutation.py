import itertools

import numpy as np
import pandas as pd
import pytest
from scipy import stats
from sklearn.metrics import f1_score, roc_auc_score, silhouette_score

from epigen_utils import datasets, evaluation, expression, figures
from epigen_utils.errors import DataError


def test_all_labelings_are_visited_where_they_are_few():
    """Against SciPy's exact permutation test of a difference of means."""
    rng = np.random.default_rng(0)
    values = rng.normal(size=9)
    labels = np.array(["a"] * 4 + ["b"] * 5)
    score = lambda new: values[new == "a"].mean() - values[new == "b"].mean()  # noqa: E731
    observed, p, null = evaluation.permutation_pvalue(score, labels)
    exact = stats.permutation_test(
        (values[:4], values[4:]),
        lambda x, y: x.mean() - y.mean(),
        alternative="greater",
        permutation_type="independent",
    )
    assert observed == pytest.approx(exact.statistic)
    assert p == pytest.approx(exact.pvalue)
    assert len(null) == 125


def test_blocks_keep_labels_within_donors():
    labels = np.array(["a", "b"] * 4)
    blocks = np.repeat(list("wxyz"), 2)
    seen = []
    evaluation.permutation_pvalue(lambda new: seen.append(tuple(new)) or 0.0, labels, donors=blocks)
    assert len(set(seen)) == 2**4
    assert all(sorted(pair) == ["a", "b"] for new in seen for pair in np.reshape(new, (4, 2)).tolist())


def test_labels_go_with_whole_donors_where_a_donor_has_one():
    labels = np.repeat(["a", "a", "a", "b", "b", "b"], 2)
    donors = np.repeat(list("uvwxyz"), 2)
    seen = []
    evaluation.permutation_pvalue(lambda new: seen.append(tuple(new)) or 0.0, labels, donors=donors)
    assert len(set(seen)) == 20, "3 of 6 donors"
    assert all(first == second for new in seen for first, second in np.reshape(new, (6, 2)).tolist())


def test_one_labeling_is_refused():
    with pytest.raises(DataError, match="leave one permutation only"):
        evaluation.permutation_pvalue(lambda new: 0.0, np.array(["a", "a"]), donors=np.array(["x", "y"]))


def test_many_labelings_are_drawn_at_random_and_repeatably():
    values = np.arange(40.0)
    labels = np.repeat(["a", "b"], 20)
    score = lambda new: values[new == "b"].mean()  # noqa: E731
    first = evaluation.permutation_pvalue(score, labels, n_permutations=99, seed=3)
    again = evaluation.permutation_pvalue(score, labels, n_permutations=99, seed=3)
    assert first[1] == again[1] == pytest.approx(1 / 100)
    assert len(first[2]) == 99


def test_p_is_uniform_under_the_null():
    rng = np.random.default_rng(1)
    labels = np.repeat(["a", "b"], [3, 9])
    found = []
    for _ in range(200):
        values = rng.normal(size=12)
        found.append(evaluation.permutation_pvalue(lambda new, v=values: v[new == "a"].mean(), labels)[1])
    rejections = sum(p <= 0.05 for p in found)
    assert 3 <= rejections <= 19, "the binomial's 99% range for 200 tests at 5%"


def test_silhouette_of_table_two_is_the_audited_one():
    adata = datasets.load("table-two")
    planes = evaluation.principal_planes(expression.matrices(adata), adata.obs["condition"])[0].set_index("matrix")
    assert planes.loc["raw counts", "PC1"] == pytest.approx(0.650, abs=5e-4)
    assert planes.loc["raw counts", "PC1 + PC2"] == pytest.approx(0.861, abs=5e-4)
    assert planes.loc["log2 counts", "PC1"] == pytest.approx(0.637, abs=5e-4)
    assert planes.loc["log2, size factors", "PC1"] == pytest.approx(0.430, abs=5e-4)
    assert planes.loc["log2, size factors", "PC1 + PC2"] == pytest.approx(0.778, abs=5e-4)
    assert planes["silhouette"].round(2).tolist() == [0.15, 0.17, -0.07]
    assert planes["smallest_p"].tolist() == pytest.approx([1 / 220] * 3)


def test_silhouette_value_is_scikit_learns():
    points = pd.DataFrame(np.random.default_rng(0).normal(size=(10, 2)))
    labels = pd.Series(list("aaaaabbbbb"))
    assert evaluation.silhouette(points, labels)["value"] == pytest.approx(silhouette_score(points, labels))


@pytest.mark.parametrize(("positive", "negative"), [(1, 3), (2, 3), (3, 3)])
def test_attainable_values_by_enumeration(positive, negative):
    """Every ranking of the samples, and every prediction, scored by scikit-learn."""
    n = positive + negative
    truth = np.array([1] * positive + [0] * negative)
    aucs = {round(roc_auc_score(truth, order), 9) for order in itertools.permutations(range(n))}
    assert sorted(aucs) == pytest.approx(evaluation.attainable_auc(positive, negative))
    tied = {round(roc_auc_score(truth, order), 9) for order in itertools.product(range(n), repeat=n)} if n < 6 else None
    if tied:
        assert sorted(tied) == pytest.approx(evaluation.attainable_auc(positive, negative, ties=True))
    f1 = {round(f1_score(truth, guess, zero_division=0), 9) for guess in itertools.product((0, 1), repeat=n)}
    assert sorted(f1) == pytest.approx(evaluation.attainable_f1(positive, negative))


def test_an_auc_of_090_cannot_be_had_of_3_against_9():
    for ties, nearest in ((False, 24 / 27), (True, 24.5 / 27)):
        assert evaluation.nearest(evaluation.attainable_auc(3, 9, ties=ties), 0.90) == pytest.approx(nearest)
    assert abs(evaluation.nearest(evaluation.attainable_auc(12, 12), 0.90) - 0.90) < 0.005
    lattices = evaluation.auc_lattices([(3, 9), (12, 12)])
    assert list(lattices["classes"].unique()) == ["3 v 9", "3 v 9, ties", "12 v 12"]


def test_overlaps_against_fishers_exact_test():
    universe = [f"g{i}" for i in range(200)]
    chosen = universe[:50]
    sets = {"over": universe[:8] + universe[100:104] + ["elsewhere"], "even": universe[40:80]}
    table = evaluation.overlaps(chosen, sets, universe).set_index("set")
    assert table.loc["over", ["genes", "chosen"]].tolist() == [12, 8]
    assert table.loc["over", "expected"] == pytest.approx(3)
    for name, hits, size in (("over", 8, 12), ("even", 10, 40)):
        counts = [[hits, size - hits], [50 - hits, 200 - 50 - size + hits]]
        assert table.loc[name, "p"] == pytest.approx(stats.fisher_exact(counts, alternative="greater").pvalue)
    assert table["padj"].tolist() == pytest.approx(stats.false_discovery_control(table["p"]).tolist())


def test_cluster_agreement():
    rng = np.random.default_rng(0)
    labels = pd.Series(pd.Categorical(["a"] * 6 + ["b"] * 6))
    apart = pd.DataFrame(rng.normal(size=(12, 20))) + np.where(labels == "a", 0, 1)[:, None] * rng.normal(0, 9, 20)
    found = evaluation.cluster_agreement(figures.ward_on_pearson(expression.scaled(apart)), labels)
    assert found["value"] == 1
    assert found["p"] == pytest.approx(2 / 924), "the labels and their mirror image"
    mixed = evaluation.cluster_agreement(figures.ward_on_pearson(pd.DataFrame(rng.normal(size=(12, 20)))), labels)
    assert mixed["p"] > 0.05


def test_whole_donors_are_held_out():
    donors = np.repeat(list("abcdefgh"), [5, 10, 15, 5, 10, 20, 5, 30])
    held = evaluation.hold_out(donors, share=0.2, seed=1)
    assert 0.2 <= held.mean() < 0.6
    assert not set(donors[held]) & set(donors[~held])
    assert (evaluation.hold_out(donors, share=0.2, seed=1) == held).all()
    assert evaluation.hold_out(np.array(list("ab")), share=0.9, seed=0).sum() == 1
    with pytest.raises(DataError, match="all 3 rows are of one group"):
        evaluation.hold_out(np.array(list("aaa")), share=0.2, seed=0)


def test_auc_is_scikit_learns_also_with_ties():
    rng = np.random.default_rng(0)
    score, positive = rng.integers(5, size=60), rng.random(60) < 0.3
    assert evaluation.auc(score, positive) == pytest.approx(roc_auc_score(positive, score))
    assert np.isnan(evaluation.auc(score, np.ones(60, bool)))


def test_an_interval_over_donors_is_as_wide_as_donors_differ():
    rng = np.random.default_rng(0)
    donors = np.repeat(np.arange(8), 50)
    values = rng.normal(size=8)[donors] + rng.normal(0, 0.01, 400)
    mean, low, high, n = evaluation.mean_over_units(values, donors, n_bootstrap=500, rng=rng)
    assert (mean, n) == (pytest.approx(values.mean()), 8)
    assert high - low > 0.5
    _, low, high, n = evaluation.mean_over_units(values, np.arange(400), n_bootstrap=500, rng=rng)
    assert high - low < 0.3
    assert n == 400


def test_folds_leave_every_class_to_learn_from():
    """Groups of both classes, one of them with nearly all of one: some divisions would leave it to no training fold."""
    sizes = {"one": (1, 7), "two": (4, 1), "three": (7, 0)}
    y = np.concatenate([np.repeat(["a", "b"], n) for n in sizes.values()])
    groups = np.repeat(list(sizes), [sum(n) for n in sizes.values()])
    for seed in range(10):
        for train, _ in evaluation.donor_folds(y, groups, n_splits=2, seed=seed):
            assert set(y[train]) == {"a", "b"}
    with pytest.raises(DataError, match="leave a class without any to learn from"):
        list(evaluation.donor_folds(np.array(list("ab")), np.array(list("xy")), n_splits=2, seed=0))


def test_how_many_labelings_there_are():
    labels = np.array(list("aabb"))
    assert evaluation.n_labelings(labels) == 5
    assert evaluation.n_labelings(labels, np.array(list("xyxy"))) == 3
    assert evaluation.n_labelings(labels, np.array(list("xxyy"))) == 1
    for donors in (None, np.array(list("xyxy")), np.array(list("xxyy"))):
        assert len(list(evaluation.labelings(labels, donors=donors))) == evaluation.n_labelings(labels, donors)
