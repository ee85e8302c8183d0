from dataclasses import replace

import numpy as np
import pandas as pd
import pytest

from epigen_utils.errors import DataError
from epigen_utils.gpt2 import classifier
from epigen_utils.gpt2.classifier import GPT2Classifier
from epigen_utils.interpretation import cross_fitting, representations
from epigen_utils.prediction import sample_cohort


@pytest.fixture(scope="module")
def few(tmp_path_factory):
    """Three wild types against nine mutants, as in the paper's zebrafish series."""
    cohort = sample_cohort.load_cohort("airway-as-zebrafish")
    settings = replace(classifier.FINE_TUNING_SETTINGS, epochs=3)
    model = GPT2Classifier(settings=settings, folder=tmp_path_factory.mktemp("m"))
    return cohort, model, cross_fitting.held_out_positions(cohort, model, n_genes=8, n_layouts=2)


def test_of_three_against_nine_every_sample_is_held_out_once(few):
    cohort, _, positions = few
    by_model = positions[positions["plane"] == cross_fitting.BY_PCA]
    assert sorted(by_model["sample"]) == sorted(cohort.adata.obs_names)
    assert by_model["fold"].nunique() == 3, "two folds would leave one wild type to learn from"
    assert (by_model[by_model["class"] == "WT"].groupby("fold").size() == 1).all()
    assert positions["silhouette"].between(-1, 1).all()
    assert set(positions["plane"]) == {cross_fitting.BY_PCA, cross_fitting.BY_TSNE, cross_fitting.BY_COUNTS}
    table = cross_fitting.separation_by_plane(positions)
    assert (table["samples"] == 12).all()
    assert table[["low", "high"]].isna().all(axis=None), "three wild types give no interval"
    gain, *ends = cross_fitting.plane_difference(positions, cross_fitting.BY_TSNE, cross_fitting.BY_PCA)
    assert np.isnan(ends).all()
    wide = table.set_index("plane")["silhouette"]
    assert gain == pytest.approx(wide[cross_fitting.BY_TSNE] - wide[cross_fitting.BY_PCA])


def test_the_first_fold_is_that_of_the_page():
    """So that its model is the one that the page has trained already."""
    cohort = sample_cohort.load_cohort("seizures-sim")
    parts = representations.split_cohort(cohort, n_genes=8, n_splits=2, seed=3)
    train, test = next(cross_fitting._folds(cohort, 2, 3))
    np.testing.assert_array_equal(parts.rows[0], train)
    np.testing.assert_array_equal(parts.rows[1], test)


def test_a_class_of_three_samples_or_less_is_refused_in_one_line():
    cohort = sample_cohort.load_cohort("seizures-sim")
    cohort = replace(cohort, adata=cohort.adata[[0, 1, 16, 17]])
    with pytest.raises(DataError, match="no folds leave two training samples of each class"):
        cross_fitting.held_out_positions(cohort, GPT2Classifier(), n_genes=4)


def positions_of(rng, *, shift, n=(4, 12), bias=0.0):
    """Silhouettes of held-out samples: of either class by the shift, and biased to the larger class."""
    classes = np.repeat(["WT", "mutant"], n)
    values = shift + np.where(classes == "mutant", bias, -bias) + 0.1 * rng.normal(size=sum(n))
    folds = np.concatenate([np.arange(size) % 3 for size in n])
    return pd.DataFrame({"class": classes, "donor": np.arange(sum(n)), "fold": folds, "silhouette": values})


def test_putting_all_samples_to_the_larger_class_is_no_separation():
    rng = np.random.default_rng(0)
    biased = positions_of(rng, shift=0.0, bias=0.5)
    assert biased["silhouette"].mean() > 0.2
    mean, low, high = cross_fitting.balanced_mean(biased, "silhouette", limit=1.0)
    assert abs(mean) < 0.1
    assert low < 0 < high


def test_the_interval_over_donors_holds_the_truth_about_as_often_as_it_says():
    """Of 400 intervals at 95%, and wider for the shared training samples: more than 92% of them."""
    rng = np.random.default_rng(1)
    held = 0
    for _ in range(400):
        _, low, high = cross_fitting.balanced_mean(positions_of(rng, shift=0.2), "silhouette", limit=1.0)
        held += low <= 0.2 <= high
    assert held > 0.92 * 400
    far = cross_fitting.balanced_mean(positions_of(rng, shift=0.6), "silhouette", limit=1.0)
    assert far[1] > 0, "four against twelve can be decided"


def test_three_donors_of_a_class_have_no_interval_and_four_have_one():
    rng = np.random.default_rng(3)
    for n, known in (((3, 9), False), ((9, 3), False), ((4, 4), True)):
        mean, low, high = cross_fitting.balanced_mean(positions_of(rng, shift=0.6, n=n), "silhouette", limit=1.0)
        assert mean > 0.4
        assert np.isfinite([low, high]).all() == known, n


def test_samples_of_a_donor_count_once():
    rng = np.random.default_rng(2)
    table = positions_of(rng, shift=0.2)
    doubled = pd.concat([table, table], ignore_index=True)
    assert cross_fitting.balanced_mean(doubled, "silhouette", limit=1.0) == pytest.approx(
        cross_fitting.balanced_mean(table, "silhouette", limit=1.0)
    )
    one = table[(table["class"] == "mutant") | (table["donor"] == 0)]
    assert np.isnan(cross_fitting.balanced_mean(one, "silhouette", limit=1.0)[1:]).all()
