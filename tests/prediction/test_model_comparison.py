import numpy as np
import pytest
from sklearn.linear_model import LogisticRegression

from epigen_utils.expression import fold_selection
from epigen_utils.prediction import model_comparison, sample_cohort
from epigen_utils.stats import intervals

PLAIN = fold_selection.baseline_models()["logistic regression"]


def test_experiments_are_held_out_one_by_one(mirror):
    cohort = sample_cohort.load_cohort("rat-seizures")
    assert cohort.sizes() == {"sham": 10, "seizures": 8}
    found = model_comparison.predict_out_of_fold(
        cohort, fold_selection.FoldPipeline(PLAIN, cohort.genes, 64), n_repeats=5
    )
    assert found["repeat"].nunique() == 1
    held = found.groupby("fold")["row"].apply(lambda rows: set(cohort.batch[rows]))
    assert sorted(map(tuple, held)) == [("kainate",), ("kindling",)]
    assert found["donor"].nunique() == 18


def test_shuffles_stay_within_an_experiment(mirror, monkeypatch):
    cohort = sample_cohort.load_cohort("rat-seizures")
    seen = []
    monkeypatch.setattr(
        fold_selection.FoldPipeline, "fit", lambda self, X, y: seen.append(y) or (_ for _ in ()).throw(StopIteration)
    )
    with pytest.raises((StopIteration, RuntimeError)):
        model_comparison.permuted_label_aucs(
            cohort, fold_selection.FoldPipeline(PLAIN, cohort.genes, 8), n_permutations=3
        )
    assert len(seen) == 1
    assert (seen[0] == "seizures").sum() in (3, 5), "one experiment, with as many seizures as it has"


def test_shuffled_labels_score_at_chance():
    cohort = sample_cohort.simulated_cohort(0, 0, n=15)
    X = np.random.default_rng(0).normal(size=(30, 2)) + 3 * (cohort.y == "case")[:, None]
    features = sample_cohort.with_values(cohort, X)
    null = model_comparison.permuted_label_aucs(features, LogisticRegression(), n_splits=3, n_permutations=19)
    assert len(null) == 19
    assert abs(null.mean() - 0.5) < 0.1
    mean, low, high = intervals.student_interval(null)
    assert low < mean < high


def test_an_ablation_sets_variants_beside_the_base_in_the_same_folds():
    cohort = sample_cohort.simulated_cohort(1, 100)
    base = fold_selection.FoldPipeline(PLAIN, cohort.genes, 64, "expression difference")
    majority = fold_selection.FoldPipeline(fold_selection.baseline_models()["majority"], cohort.genes, 64)
    table = model_comparison.ablation(cohort, base, {"same": base, "majority": majority}).set_index("variant")
    assert np.isnan(table["difference"].iloc[0])
    assert table.loc["same", "difference"] == 0
    assert table.loc["majority", "difference"] == pytest.approx(0.5 - table["auc"].iloc[0], abs=0.05)
    assert np.isnan(table.loc["same", "difference low"]), "all folds alike say nothing of the spread"
    assert model_comparison.training_auc(cohort, majority) == 0.5


def test_what_an_auc_can_be_is_a_share_of_the_pairs_within_folds():
    """Three against three in three folds: three pairs, and no AUC near 0.90."""
    cohort = sample_cohort.simulated_cohort(0, 0, n=3)
    predictions = model_comparison.predict_out_of_fold(
        cohort, fold_selection.FoldPipeline(fold_selection.baseline_models()["majority"], cohort.genes, 4), n_splits=3
    )
    row = model_comparison.attainable_scores(cohort, predictions, target=0.90)
    assert (row["pairs"], row["pairs in one fold"]) == (9, 3)
    assert row["nearest to 0.90"] == 1.0
    assert row["smallest p"] == pytest.approx(1 / 20)
    # Each donor has one sample of either class: labels are exchanged within donors.
    cohort.adata.obs["donor"] = ["x", "y", "z"] * 2
    cohort.adata.uns["epigen"]["donor"] = "donor"
    assert model_comparison.attainable_scores(cohort, predictions, target=0.90)["smallest p"] == pytest.approx(1 / 8)


def test_too_few_permutations_give_no_p():
    cohort = sample_cohort.simulated_cohort(0, 200, n=6)
    models = {
        "LR": fold_selection.FoldPipeline(fold_selection.baseline_models()["logistic regression"], cohort.genes, 8)
    }
    few, _ = model_comparison.compare_models(cohort, models, n_splits=3, n_permutations=2)
    assert few["permutations"].item() == 2
    assert few["p"].isna().all()
    enough, _ = model_comparison.compare_models(cohort, models, n_splits=3, n_permutations=19)
    assert enough["p"].item() == 0.05
    assert enough["smallest p"].item() == 0.05
    assert few["smallest p"].isna().all()


def test_learning_curve_takes_parts_of_parts():
    rng = np.random.default_rng(0)
    y = np.repeat(["a", "b"], 40)
    X = rng.normal(size=(80, 3)) + (y == "b")[:, None]
    table = model_comparison.learning_curve(
        {"LR": LogisticRegression()}, X, y, np.arange(80), "b", sizes=[4, 8, 99, 0], n_splits=4, seed=0
    )
    assert sorted(set(table["per class"])) == [4, 8, 30]
    assert table.groupby("per class")["auc"].mean().iloc[-1] > 0.7
    assert (table["samples"] == 2 * table["per class"]).all(), "both classes have as many here"


def test_a_p_has_a_floor_where_permutations_are_few_and_come_in_mirror_images():
    """Four donors with a sample of either class: 16 permutations, of which the mirror image ranks as well."""
    cohort = sample_cohort.simulated_cohort(0, 0, n=4)
    cohort.adata.obs["donor"] = list("wxyz") * 2
    cohort.adata.uns["epigen"]["donor"] = "donor"
    X = np.random.default_rng(0).normal(size=(8, 2)) + 9 * (cohort.y == "case")[:, None]
    table, _ = model_comparison.compare_models(
        sample_cohort.with_values(cohort, X), {"LR": LogisticRegression()}, n_splits=4, n_permutations=19
    )
    row = table.iloc[0]
    assert (row["auc"], row["permutations"]) == (1.0, 15)
    assert row["p"] == row["smallest p"] == 2 / 16


def test_published_and_random_weights_are_compared_in_the_same_folds():
    cohort = sample_cohort.simulated_cohort(0, 0, n=20)
    rng = np.random.default_rng(0)
    signal = (cohort.y == "case")[:, None]
    inputs = {"with": rng.normal(size=(40, 3)) + signal, "without": rng.normal(size=(40, 3))}
    predictions = {}
    for name, X in inputs.items():
        features = sample_cohort.with_values(cohort, X)
        _, found = model_comparison.compare_models(features, {name: LogisticRegression()}, n_splits=4, n_repeats=3)
        predictions |= found
    pairs = {"net": ("with", "without"), "same": ("with", "with")}
    gains = model_comparison.pretraining_gains(predictions, pairs, cohort.positive).set_index("network")
    net = gains.loc["net"]
    assert net["published"] - net["random"] == pytest.approx(net["difference"], abs=0.05)
    assert net["low"] < net["difference"] < net["high"]
    assert (net["n"], gains.loc["same", "difference"]) == (40, 0)
    assert np.isnan(gains.loc["same", ["low", "high"]].astype(float)).all()


def test_a_model_stands_beside_the_best_plain_model_with_its_genes():
    cohort = sample_cohort.simulated_cohort(1, 100)
    models = fold_selection.pipelines_by_selection(
        {"GPT-2": PLAIN} | fold_selection.baseline_models(), cohort.genes, 32
    )
    comparison, predictions = model_comparison.compare_models(cohort, models, n_splits=4)
    found = model_comparison.against_plain_models(comparison, predictions, cohort)
    assert found.ours.name == "GPT-2, by expression difference"
    assert found.baseline.name.endswith("by expression difference")
    assert (
        found.baseline["auc"]
        >= comparison.set_index("model").loc["logistic regression, by expression difference", "auc"]
    )
    assert found.difference["difference"] <= 0


def test_folds_that_differ_by_rounding_alone_tell_nothing_of_spread(monkeypatch):
    for high, known in ((0.1 + 0.2, False), (0.4, True)):
        change = {"difference": 0.3, "low": 0.3, "high": high}
        monkeypatch.setattr(model_comparison.two_classes, "auc_difference", lambda *_, change=change: change)
        found = model_comparison.paired_difference(None, None, "b")
        assert np.isfinite([found["low"], found["high"]]).all() == known
