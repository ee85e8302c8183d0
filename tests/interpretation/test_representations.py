from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
from sklearn.base import clone
from sklearn.metrics import adjusted_rand_score, silhouette_score

from epigen_utils.errors import DataError
from epigen_utils.gpt2 import classifier, sentence_states
from epigen_utils.gpt2.classifier import GPT2Classifier
from epigen_utils.interpretation import representations
from epigen_utils.plots import embedding_plots, layout
from epigen_utils.prediction import sample_cohort
from epigen_utils.stats import intervals


@pytest.fixture(scope="module")
def found(tmp_path_factory):
    parts = representations.split_cohort(sample_cohort.load_cohort("seizures-sim"), n_genes=24)
    model = GPT2Classifier(
        settings=replace(classifier.FINE_TUNING_SETTINGS, epochs=3), folder=tmp_path_factory.mktemp("m")
    )
    return parts, model, representations.compute_representations(parts, model)


def test_each_representation_is_of_the_samples_that_it_says(found):
    parts, _, (tables, _) = found
    train, held = (list(table.index) for table in parts.tables)
    assert list(tables) == [
        representations.RAW_COUNTS,
        representations.VST,
        representations.LOG2_GENES,
        representations.UNTRAINED,
        representations.HELD_OUT,
        representations.TRAINING_SAMPLES,
        representations.SHUFFLED_LABELS,
        representations.SHUFFLED_READOUT,
    ]
    for name, one in tables.items():
        told = name in list(tables)[5:]
        assert one.trained_with_labels == told
        assert list(one.table.index) == (train if told else held)
        assert list(one.labels.index) == list(one.table.index)
        assert len(one.groups) == len(one.table)
    told = tables[representations.SHUFFLED_LABELS].labels
    assert sorted(told) == sorted(parts.labels[0])
    assert abs(adjusted_rand_score(told, parts.labels[0])) < 0.1
    assert not np.allclose(tables[representations.UNTRAINED].table, tables[representations.HELD_OUT].table)


def test_apart_beside_noise(found):
    _, _, (tables, _) = found
    table, planes = representations.class_separation(tables, n_permutations=99)
    assert len(table) == 8
    assert (table["PC1 + PC2"] > table["noise"]).all()
    assert table["p"].isna().tolist() == [False] * 5 + [True] * 3
    assert table["p"].dropna().between(0.01, 1).all()
    stable = table.set_index("representation").loc[representations.VST]
    assert (stable["overlap"], stable["p"]) == (0, 0.01)
    assert planes[representations.HELD_OUT].shape == (16, 2)
    layouts = representations.planar_layouts(tables[representations.HELD_OUT].table, perplexity=3)
    assert list(layouts) == ["PCA", "t-SNE", "UMAP"]


def test_overlap_counts_samples_nearer_to_the_other_mean():
    plane = pd.DataFrame({"x": [0.0, 1.0, 9.0, 10.0, 11.0, 12.0], "y": 0.0})
    assert representations.count_overlapping(plane, pd.Series(list("aaabbb"))) == 1
    assert representations.count_overlapping(plane, pd.Series(list("aabbbb"))) == 0


def test_what_a_model_was_told_is_given_back_once_it_is_learned_by_heart(found, tmp_path):
    parts, _, _ = found
    settings = replace(classifier.FINE_TUNING_SETTINGS, epochs=25)
    by_heart = GPT2Classifier(settings=settings, folder=tmp_path)
    spaces, models = representations.compute_representations(parts, by_heart)
    _, planes = representations.class_separation(spaces, n_permutations=19)
    model, name = models[representations.SHUFFLED_LABELS], representations.SHUFFLED_READOUT
    told = representations.memorisation(model, parts.tables[0], spaces[name], planes[name], n_permutations=199)
    assert told["accuracy"] == 1.0
    assert told["silhouette"] > 0.5
    assert told["p"] < 0.05
    words = representations.describe_memorisation(told, told)
    assert "predicts 100% of them correctly" in words
    assert "only held-out samples" in words
    assert told["majority"] < 0.7
    hidden = told | {"p": 0.03}
    words = representations.describe_memorisation(hidden, hidden)
    assert "has memorised permuted labels, and neither figure shows it" in words
    nothing = hidden | {"accuracy": told["majority"]}
    assert "has not memorised them" in representations.describe_memorisation(nothing, nothing)


def test_a_model_that_has_not_learned_is_said_to_have_not():
    learned = representations.describe_learning({"auc": 0.9, "low": 0.7, "high": 0.97})
    assert "has learned" in learned
    assert "has not learned" in representations.describe_learning({"auc": 0.57, "low": 0.45, "high": 0.69})


def test_figure_4_is_drawn_of_all_samples(found):
    parts, model, _ = found
    drawn = representations.states_of_all_samples(parts.cohort, model, n_genes=24)
    assert list(drawn.table.index) == list(parts.cohort.adata.obs_names)
    assert drawn.trained_with_labels
    assert (drawn.labels.astype(str) == parts.cohort.y).all()


def test_trajectory_starts_where_nothing_moved(found):
    parts, classifier, _ = found
    moves, summary = representations.training_trajectory(parts, classifier, epochs=[0, 3])
    untrained = clone(classifier).untrained(parts.tables[0], parts.labels[0].to_numpy())
    start = summary[summary["epochs"] == 0].set_index("part")["silhouette"]
    for part, values, labels in zip(("training", "held out"), parts.tables, parts.labels, strict=True):
        states = sentence_states.sample_embeddings(untrained, values)
        assert start[part] == pytest.approx(silhouette_score(states, labels.astype(str)), abs=1e-6)
    ends = moves.set_index(["sample", "epochs"])[["PC1", "PC2"]].unstack()
    assert (ends.xs(0, axis=1, level=1) - ends.xs(3, axis=1, level=1)).abs().to_numpy().min() > 0
    assert len(moves) == 64
    assert list(moves["class"].cat.categories) == ["control", "case"]


def test_plots_draw_what_they_are_given(found):
    parts, classifier, (tables, _) = found
    table, planes = representations.class_separation(tables, n_permutations=19)
    moves, summary = representations.training_trajectory(parts, classifier, epochs=[0, 3])
    _, axes = layout.panels(6, columns=3, width=3, height=3)
    labels = tables[representations.HELD_OUT].labels
    drawn = embedding_plots.small_projection(axes[0], planes[representations.HELD_OUT], labels, title="t")
    assert sum(len(dots.get_offsets()) for dots in drawn.collections) == 16
    legend = embedding_plots.marker_legend(axes[0], labels).get_legend()
    assert [text.get_text() for text in legend.get_texts()] == ["control", "case"]
    assert [text.get_text() for text in embedding_plots.silhouette_by_representation(axes[1], table).texts][
        -1
    ] == "trained on its classes"
    assert len(embedding_plots.variance_against_noise(axes[2], table).patches) == 8
    assert len(embedding_plots.training_trajectories(axes[3], moves, part="training").lines) == 16
    assert len(embedding_plots.silhouette_over_epochs(axes[4], summary).get_legend().get_texts()) == 2
    genes = pd.DataFrame({"gene": list("abc"), "expression": [1.0, 1.01, 5.0], "variance of states": [1.0, 1.0, 3.0]})
    genes["variance of expression"] = 1.0
    written = embedding_plots.gene_state_variance(axes[5], genes, names={"a": "A", "b": "B", "c": "C"})
    # B would lie on A.
    assert [text.get_text() for text in written.texts] == ["A", "C"]


def test_classes_by_turns():
    labels = ["a", "a", "a", "b", "a", "b"]
    assert representations.alternate_classes(labels).tolist() == [0, 3, 1, 5, 2, 4]
    assert representations.alternate_classes(labels, 3).tolist() == [0, 3, 1]


def test_a_cohort_too_small_for_halves():
    cohort = sample_cohort.load_cohort("seizures-sim")
    cohort = replace(cohort, adata=cohort.adata[[0, 1, 16, 17]])
    with pytest.raises(DataError, match="2 'control', 2 'case': too few to train on two of each class"):
        representations.split_cohort(cohort, n_genes=5)


def test_three_against_nine_as_in_the_paper():
    """One of the three is held out, whatever the seed; there is no second way."""
    cohort = sample_cohort.load_cohort("airway-as-zebrafish")
    for seed in range(5):
        parts = representations.split_cohort(cohort, n_genes=8, seed=seed)
        assert [(labels == "WT").sum() for labels in parts.labels] == [2, 1]
        assert len(parts.tables[1]) >= 3
    with pytest.raises(DataError, match="in more than one way"):
        representations.split_cohort(cohort, n_genes=8, fold=1)
    # What the model makes of these is Figure 4's: no p can be low.
    shown = {"held": representations.Representation(parts.tables[1], parts.labels[1], parts.groups[1])}
    table, _ = representations.class_separation(shown, n_permutations=99)
    assert table["smallest p"].item() > 0.05


def test_labels_that_mean_nothing_are_not_the_true_ones():
    """Of two against two a labeling drawn blindly is the true one, or its mirror image, in two of six draws."""
    labels = np.array(["a", "a", "b", "b"])
    for seed in range(8):
        told = representations.uninformative_permutation(labels, np.arange(4), seed=seed)
        assert sorted(told) == sorted(labels)
        assert adjusted_rand_score(labels, told) < 0.5


def test_further_apart_than_another_plane():
    rng = np.random.default_rng(0)
    labels = pd.Series(np.repeat(["a", "b"], 20))
    noise = pd.DataFrame(rng.normal(size=(40, 2)))
    shown = representations.Representation(noise, labels, np.arange(40))
    far = representations.separation_difference(noise + 4 * (labels == "b").to_numpy()[:, None], noise, shown)
    assert far["value"] > 0.4
    assert far["p"] == 0.001
    p = []
    for _ in range(20):
        one, other = (pd.DataFrame(rng.normal(size=(40, 2))) for _ in range(2))
        p.append(representations.separation_difference(one, other, shown, n_permutations=99)["p"])
    assert 0.3 < np.mean(p) < 0.7


def test_auc_of_the_held_out_counts_donors_once():
    cohort = sample_cohort.load_cohort("seizures-sim")
    parts = representations.split_cohort(cohort, n_genes=5)
    truth = parts.labels[1].to_numpy() == cohort.positive
    best = representations.held_out_auc(parts, truth.astype(float))
    assert (best["auc"], best["high"]) == (1.0, pytest.approx(1.0))
    assert representations.held_out_auc(parts, 1 - truth)["auc"] == 0.0
    assert best["low"] == pytest.approx(intervals.auc_interval(1.0, 8, 8)[0])
    # The same samples, two of each donor.
    order = np.argsort(cohort.y, kind="stable")
    adata = cohort.adata.copy()
    adata.obs["pair"] = np.argsort(order) // 2
    adata.uns["epigen"]["donor"] = "pair"
    paired = replace(parts, cohort=replace(cohort, adata=adata))
    assert representations.held_out_auc(paired, truth.astype(float))["low"] < best["low"]


def test_genes_that_are_asked_for_take_the_place_of_others():
    cohort = sample_cohort.load_cohort("seizures-sim")
    plain = list(representations.split_cohort(cohort, n_genes=12).tables[0])
    other = next(gene for gene in cohort.genes if gene not in plain)
    for always in ([plain[0]], [plain[0], other]):
        found = list(representations.split_cohort(cohort, n_genes=12, always=always).tables[0])
        assert len(found) == 12
        assert set(always) <= set(found)
