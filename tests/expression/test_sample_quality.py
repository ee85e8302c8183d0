import numpy as np
import pandas as pd
import pytest
from scipy.stats import f_oneway, linregress

from epigen_utils.data import datasets, genes, orthologs
from epigen_utils.expression import sample_quality
from epigen_utils.stats import projections


def test_quality(small):
    quality = sample_quality.depth_and_detection(small)
    assert quality["depth"].tolist() == small.layers["counts"].sum(axis=1).tolist()
    assert quality["detected"].tolist() == [3, 4, 3, 4, 4, 4]


@pytest.fixture
def table():
    rng = np.random.default_rng(1)
    values = rng.normal(size=(12, 60))
    values[:6] += 2 * rng.normal(size=60)
    return pd.DataFrame(values, [f"s{i}" for i in range(12)])


def test_distances_by_hand():
    found = sample_quality.sample_distances(pd.DataFrame([[0, 0], [3, 4]], ["a", "b"]))
    assert found.loc["a", "b"] == 5
    assert found.loc["a", "a"] == 0


def test_components_follow_what_they_follow_with_scipys_p(table):
    obs = pd.DataFrame({"group": ["x"] * 6 + ["y"] * 6, "age": np.arange(12.0), "same": "z"}, table.index)
    obs["kind"] = list("pqrpqrpqrpqr")
    found = sample_quality.components_and_metadata(table, obs, n_components=3).set_index(["column", "component"])
    assert set(found.index.get_level_values("column")) == {"group", "age", "kind"}
    assert found.loc[("group", "PC1"), "R2"] > 0.9
    assert found.loc[("group", "PC1"), "padj"] < 0.001
    points = projections.pca(table, n_components=3)[0]
    by_kind = f_oneway(*(points["PC2"][(obs["kind"] == kind).to_numpy()] for kind in "pqr")).pvalue
    assert found.loc[("kind", "PC2"), "p"] == pytest.approx(by_kind)
    slope = linregress(obs["age"], points["PC3"])
    assert found.loc[("age", "PC3"), "p"] == pytest.approx(slope.pvalue)
    assert found.loc[("age", "PC3"), "R2"] == pytest.approx(slope.rvalue**2)


def test_columns_that_say_nothing_are_passed_over(table):
    obs = pd.DataFrame({"id": table.index, "empty": [None] + ["a", "b"] * 5 + ["a"]}, table.index)
    assert sample_quality.components_and_metadata(table, obs).empty


def test_a_sample_of_noise_is_unlike_the_others():
    rng = np.random.default_rng(2)
    profile = rng.normal(size=300)
    table = pd.DataFrame(profile + 0.2 * rng.normal(size=(10, 300)), [f"s{i}" for i in range(10)])
    table.iloc[4] = rng.normal(size=300)
    found = sample_quality.outlying_samples(table, pd.Series(["a", "b"] * 5, table.index)).set_index("sample")
    assert found.index[found["unlike the others"] == "yes"].tolist() == ["s4"]
    assert found.loc["s4", "correlation"] == pytest.approx(np.median(np.delete(np.corrcoef(table)[4], 4)))


def test_tracks_are_the_group_and_what_sorts_samples():
    obs = pd.DataFrame({"id": list("abcdef"), "group": list("xxxyyy"), "same": list("pppqqq"), "batch": list("uvuvuv")})
    obs["one"] = "k"
    assert list(sample_quality.annotation_tracks(obs, "group")) == ["group", "batch"]


def test_smooth_muscle_has_no_neurons_and_a_brain_has():
    muscle = datasets.load("airway-as-mouse")
    assert sample_quality.neuronal_expression(muscle) < 1.5
    assert not sample_quality.has_neurons(muscle)
    assert "no neurons" in sample_quality.neuronal_note(muscle)
    brain = muscle.copy()
    markers = orthologs.find_genes(brain, list(sample_quality.NEURONAL_MARKERS)).dropna()["gene"]
    brain.layers["counts"][:, brain.var_names.get_indexer(markers)] += 5000
    assert sample_quality.has_neurons(brain)
    assert sample_quality.neuronal_note(brain) == ""


def test_genes_without_names_are_not_called_a_tissue_without_neurons():
    nameless = datasets.load("table-two")
    assert np.isnan(sample_quality.neuronal_expression(nameless))
    assert not sample_quality.has_neurons(nameless)
    assert "has no gene symbols" in sample_quality.neuronal_note(nameless)


def test_expressed_genes_have_ten_counts_after_size_factors(small):
    two = small[:2].copy()
    two.layers["counts"] = np.array([[8, 12, 0, 100], [32, 0, 32, 400]])  # size factors 1/2 and 2
    # Normalised: 16 and 16, 24 and 0, 0 and 16, 200 and 200; the raw means of the second and third are 6 and 16.
    assert list(sample_quality.expressed_genes(two)) == ["g1", "g2", "g4"]


def test_genes_of_neurons_are_left_out_of_muscle_by_name():
    genes_of_paper = ["GRIA1", "GRIA2", "SST", "PVALB", "FOSB"]
    mouse, note = sample_quality.find_expressed(datasets.load("airway-as-mouse"), genes_of_paper)
    assert mouse["symbol"].tolist() == ["Gria1", "Fosb"]
    assert note == (
        "Gria2, Sst and Pvalb are not expressed in this data set (mean normalised count below 10) and therefore not shown."
    )
    fish, note = sample_quality.find_expressed(datasets.load("airway-as-zebrafish"), genes_of_paper)
    assert fish["symbol"].tolist() == ["gria1a", "gria1b"], "paralogs are expressed or not, each for itself"
    assert note.startswith("gria2a, gria2b, sst1.1, sst1.2, pvalb2, pvalb7, pvalb6 and fosb are not expressed")
    assert sample_quality.find_expressed(datasets.load("airway-as-mouse"), ["PVALB"])[1].startswith("Pvalb is not")


def test_where_all_genes_are_expressed_nothing_is_left_out():
    muscle = datasets.load("airway-as-mouse")
    names = ["GRIA1", "FOSB", "VIM", "not a gene"]
    found, note = sample_quality.find_expressed(muscle, names)
    pd.testing.assert_frame_equal(found, orthologs.find_genes(muscle, names).dropna())
    assert note == ""
    sets = {"one": ["Gria1", "Fosb"], "two": ["Vim"]}
    assert sample_quality.expressed_sets(muscle, sets) == (sets, "")


def test_panels_keep_their_expressed_genes():
    muscle = datasets.load("airway-as-mouse")
    panels = orthologs.find_gene_sets(muscle, genes.gene_panels())
    kept, note = sample_quality.expressed_sets(muscle, panels | {"absent_panel": []})
    assert kept["GABAergic"] == ["Calb2", "Cck", "Reln"]
    assert "GABAergic 3 of 16, GABA A receptors 2 of 19, Glutamatergic 8 of 19" in note
    assert "absent" not in note
    assert sample_quality.expressed_sets(muscle, {"none": ["Pvalb", "Sst"]})[0] == {}
