from dataclasses import replace

import numpy as np
import pandas as pd
import pytest

from epigen_utils import embedding_plots, plots, representations, sample_cohorts, sentence_classes
from epigen_utils.errors import DataError
from epigen_utils.sentence_classes import GPT2Classifier


@pytest.fixture(scope="module")
def found(tmp_path_factory):
    parts = representations.halves(sample_cohorts.load("seizures-sim"), n_genes=24)
    classifier = GPT2Classifier(
        settings=replace(sentence_classes.SETTINGS, epochs=3), folder=tmp_path_factory.mktemp("m")
    )
    return parts, classifier, representations.of_halves(parts, classifier)


def test_each_representation_is_of_the_samples_that_it_says(found):
    parts, _, (tables, _) = found
    train, held = (list(table.index) for table in parts.tables)
    assert list(tables) == [
        representations.RAW,
        representations.STABLE,
        representations.SAME,
        representations.FRESH,
        representations.HELD,
        representations.SEEN,
        representations.SHUFFLED,
    ]
    for name, one in tables.items():
        told = name in (representations.SEEN, representations.SHUFFLED)
        assert one.told == told
        assert list(one.table.index) == (train if told else held)
        assert list(one.labels.index) == list(one.table.index)
        assert len(one.units) == len(one.table)
    told = tables[representations.SHUFFLED].labels
    assert sorted(told) == sorted(parts.labels[0])
    assert list(told) != list(parts.labels[0])
    assert not np.allclose(tables[representations.FRESH].table, tables[representations.HELD].table)


def test_apart_beside_noise(found):
    _, _, (tables, _) = found
    table, planes = representations.apart(tables, n_permutations=99)
    assert len(table) == 7
    assert (table["PC1 + PC2"] > table["noise"]).all()
    assert table["p"].isna().tolist() == [False] * 5 + [True] * 2
    assert table["p"].dropna().between(0.01, 1).all()
    stable = table.set_index("representation").loc[representations.STABLE]
    assert (stable["overlap"], stable["p"]) == (0, 0.01)
    assert planes[representations.HELD].shape == (16, 2)
    layouts = representations.layouts(tables[representations.HELD].table, perplexity=3)
    assert list(layouts) == ["PCA", "t-SNE", "UMAP"]


def test_trajectory_starts_where_nothing_moved(found):
    parts, classifier, _ = found
    moves, summary = representations.trajectory(parts, classifier, epochs=[0, 3])
    start = summary[summary["epochs"] == 0]
    assert len(start) == 2
    ends = moves.set_index(["sample", "epochs"])[["PC1", "PC2"]].unstack()
    assert (ends.xs(0, axis=1, level=1) - ends.xs(3, axis=1, level=1)).abs().to_numpy().min() > 0
    assert len(moves) == 64
    assert list(moves["class"].cat.categories) == ["control", "case"]


def test_plots_draw_what_they_are_given(found):
    parts, classifier, (tables, _) = found
    table, planes = representations.apart(tables, n_permutations=19)
    moves, summary = representations.trajectory(parts, classifier, epochs=[0, 3])
    _, axes = plots.panels(6, columns=3, width=3, height=3)
    labels = tables[representations.HELD].labels
    drawn = embedding_plots.plane(axes[0], planes[representations.HELD], labels, title="t")
    assert sum(len(dots.get_offsets()) for dots in drawn.collections) == 16
    legend = embedding_plots.groups(axes[0], labels).get_legend()
    assert [text.get_text() for text in legend.get_texts()] == ["control", "case"]
    assert [text.get_text() for text in embedding_plots.separation(axes[1], table).texts][-1] == "told its classes"
    assert len(embedding_plots.against_noise(axes[2], table).patches) == 7
    assert len(embedding_plots.paths(axes[3], moves, part="training").lines) == 16
    assert len(embedding_plots.over_epochs(axes[4], summary).get_legend().get_texts()) == 2
    genes = pd.DataFrame({"gene": list("abc"), "expression": [1.0, 1.01, 5.0], "variance of states": [1.0, 1.0, 3.0]})
    genes["variance of expression"] = 1.0
    written = embedding_plots.gene_variance(axes[5], genes, labelled={"a": "A", "b": "B", "c": "C"})
    # B would lie on A.
    assert [text.get_text() for text in written.texts] == ["A", "C"]


def test_classes_by_turns():
    labels = ["a", "a", "a", "b", "a", "b"]
    assert representations.of_both_classes(labels).tolist() == [0, 3, 1, 5, 2, 4]
    assert representations.of_both_classes(labels, 3).tolist() == [0, 3, 1]


def test_a_cohort_too_small_for_halves():
    cohort = sample_cohorts.load("seizures-sim")
    rows = [0, 1, 2, 16, 17, 18]
    few = replace(
        cohort, adata=cohort.adata[rows], counts=cohort.counts[rows], y=cohort.y[rows], units=cohort.units[rows]
    )
    with pytest.raises(DataError, match="fewer than two samples of 'c.*' to (learn from|hold out); give more samples"):
        representations.halves(few, n_genes=5)
