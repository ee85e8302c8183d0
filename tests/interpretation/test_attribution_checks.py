from dataclasses import replace

import numpy as np
import pandas as pd
from sklearn.base import clone

from epigen_utils.gpt2 import classifier
from epigen_utils.gpt2.classifier import GPT2Classifier
from epigen_utils.interpretation import attribution_checks, representations
from epigen_utils.prediction import sample_cohort
from epigen_utils.stats import intervals

QUICK = replace(classifier.FINE_TUNING_SETTINGS, epochs=2)


def test_tests_find_what_is_planted_and_random_weights_do_not(tmp_path):
    """Plain tests must find it, or nothing is planted; random weights must not, or the decoys are none (Adebayo et al. 2018)."""
    classifier = GPT2Classifier(settings=QUICK, position_input="continuous", folder=tmp_path)
    options = {
        "max_explained": 8,
        "max_occluded": 4,
        "cohort": lambda seed: sample_cohort.simulated_cohort_with_nuisance(seed, 16, n=24),
    }
    found = attribution_checks.recovery_in_simulations(classifier, seeds=range(4), **options)
    means = found.groupby(["model", "way"])["auroc"].mean()
    assert means["no model", "F test"] > 0.95
    assert abs(means["random weights"].mean() - 0.5) < 0.15
    beyond = attribution_checks.compare_with_random_weights(found)
    assert set(beyond["way"]) == set(found.loc[found["model"] == "trained", "way"])
    np.testing.assert_allclose(beyond["difference"], beyond["trained"] - beyond["random weights"], atol=1e-12)
    assert (beyond["random is"] == "at chance").sum() >= 5
    words = attribution_checks.recovery_summary(
        intervals.means_over_cohorts(found, ["way", "model"], "auroc"), beyond, 0.9
    )
    assert "by occlusion" in words
    table = intervals.means_over_cohorts(found, ["way", "model"], "auroc")
    assert (table["cohorts"] == 4).all()
    assert ((table["auroc low"] <= table["auroc"]) & (table["auroc"] <= table["auroc high"])).all()


def test_what_a_model_decides_by_is_found_in_trained_weights_only(tmp_path):
    classifier = GPT2Classifier(
        settings=attribution_checks.SIMULATION_SETTINGS, position_input="continuous", folder=tmp_path
    )
    found = attribution_checks.recovery_in_simulations(classifier, seeds=range(2), max_explained=24, max_occluded=8)
    means = found.groupby(["model", "way"])["auroc"].mean()
    assert found.loc[found["model"] == "trained", "auc"].min() > 0.85
    ways = ["integrated gradients", "gradient x input", "occlusion"]
    assert means["trained"][ways].mean() > max(means["random weights"][ways].mean(), 0.5) + 0.05


def test_the_hybrid_loss_pulls_attention_to_the_half_that_it_was_told_of(tmp_path):
    cohort = sample_cohort.load_cohort("seizures-sim")
    parts = representations.split_cohort(cohort, n_genes=40)
    train, y = parts.tables[0], parts.labels[0].to_numpy()
    told, untold = list(train.columns[:8]), list(train.columns[8:16])
    plain = GPT2Classifier(settings=replace(QUICK, epochs=10), folder=tmp_path)
    models = {
        "plain": clone(plain).fit(train, y),
        "hybrid": clone(plain).set_params(aligned=1.0, prior=told).fit(train, y),
    }
    table = attribution_checks.alignment_of_halves(models, parts.tables[1], {"prior": told, "other": untold})
    value = table.set_index(["model", "half"])["baam"]
    assert value["hybrid", "prior"] > value["plain", "prior"] + 0.2
    assert table["genes"].eq(8).all()
    assert table["others"].eq(24).all()


def test_stability_by_way(tmp_path):
    cohort = sample_cohort.load_cohort("seizures-sim")
    parts = [representations.split_cohort(cohort, n_genes=12, fold=fold) for fold in (0, 1)]
    classifier = GPT2Classifier(settings=QUICK, folder=tmp_path)
    tables = [attribution_checks.fold_scores(part, classifier, max_explained=3, max_occluded=2) for part in parts]
    given = tables[0]["attention"].rank(ascending=False)
    table = attribution_checks.stability_table({"folds": tables, "same": [tables[0], tables[0]]}, control=given)
    assert np.allclose(table[table["between"] == "same"]["mean"], 1)
    assert set(table["way"]) == set(tables[0].columns)


def test_parts_share_no_sample_and_hold_the_genes_asked_for():
    cohort = sample_cohort.load_cohort("seizures-sim")
    plain = representations.split_cohort(cohort, n_genes=12)
    extra = next(gene for gene in cohort.genes if gene not in plain.tables[0])
    parts = representations.split_cohort(cohort, n_genes=12, always=[extra, "no such gene"])
    assert extra in parts.tables[0]
    assert parts.tables[0].shape[1] == 12
    assert set(parts.tables[0]) - {extra} <= set(plain.tables[0])
    assert not set(parts.tables[0].index) & set(parts.tables[1].index)


def test_a_difference_from_random_weights_below_chance_is_not_counted():
    rows = [
        {"way": way, "seed": seed, "model": model, "auroc": mean + 0.01 * (seed - 1), "auc": 0.9}
        for way, means in {"occlusion": (0.7, 0.5), "rollout": (0.6, 0.4)}.items()
        for model, mean in zip(("trained", "random weights"), means, strict=True)
        for seed in range(3)
    ]
    table = attribution_checks.compare_with_random_weights(pd.DataFrame(rows)).set_index("way")
    assert table["random is"].tolist() == ["at chance", "below chance"]
    assert table["trained is"].tolist() == ["above chance", "above chance"]
    assert (table["low"] > 0).all()
    ways = ["occlusion", "integrated gradients", "gradient x input", "attention"]
    found = [{"model": "trained", "way": way, "auroc": 0.7} for way in ways]
    found.append({"model": "no model", "way": "random forest", "auroc": 0.9})
    words = attribution_checks.recovery_summary(pd.DataFrame(found), table.reset_index(), 0.9)
    assert "1 of 2 scores recover these genes above chance" in words
    assert "With random weights rollout lies below chance" in words


def test_what_seeds_agree_on_is_said_with_the_interval_that_there_is():
    trained, untrained = pd.Series({"beyond the test": 0.6}), pd.Series({"beyond the test": 0.5})
    say = attribution_checks.describe_stability_gain
    assert "there is none" in say(untrained, trained, -0.1, np.nan, np.nan)
    assert "without an interval, which needs three seeds" in say(trained, untrained, 0.1, np.nan, np.nan)
    assert "+0.10 (95% interval over seeds -0.05 to +0.25)" in say(trained, untrained, 0.1, -0.05, 0.25)
    assert say(trained, untrained, np.nan, np.nan, np.nan).startswith("With one model")
