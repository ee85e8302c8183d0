import pytest

from epigen_utils import paths
from epigen_utils.errors import DataError
from epigen_utils.interpretation import gene_sets
from epigen_utils.prediction import sample_cohort


def test_sets_of_microrna_names_without_regard_to_punctuation():
    found = gene_sets.sets_of_cohort(sample_cohort.load_cohort("tcga-brca-subtype"), ["mirna-families"])
    assert found["miR-200 family"] == ["hsa.mir.200a", "hsa.mir.200b", "hsa.mir.200c", "hsa.mir.141", "hsa.mir.429"]
    assert len(found["let-7 family"]) == 12


def test_a_simulation_brings_its_truth_and_panels_go_through_orthologs():
    assert len(gene_sets.sets_of_cohort(sample_cohort.load_cohort("seizures-sim"), [])["planted"]) == 200
    found = gene_sets.sets_of_cohort(sample_cohort.load_cohort("airway"), [str(paths.DATA / "gene_panels.gmt")])
    assert "planted" not in found
    assert found["Astrogliosis"]


def test_a_nuisance_is_not_planted():
    cohort = sample_cohort.simulated_cohort_with_nuisance(0, 16)
    truth = cohort.adata.varm["log2_fold_change"]
    assert set(gene_sets.planted_genes(cohort)) == set(truth.index[truth["case"] != 0])
    assert (truth["nuisance"] != 0).sum() == 16


def test_halves_share_nothing_and_follow_from_the_seed():
    told, untold = gene_sets.split_set(list("abcdefg"), seed=3)
    assert sorted(told + untold) == list("abcdefg")
    assert gene_sets.split_set(list("gfedcba"), seed=3) == (told, untold)
    with pytest.raises(DataError, match="give a larger set"):
        gene_sets.split_set(["a"])


def test_mistakes(tmp_path):
    assert gene_sets.sets_of_cohort(sample_cohort.load_cohort("nothing-sim"), ["gene-panels"]) == {}
    bad = tmp_path / "sets.gmt"
    bad.write_text("one\tsource\tA\nanother one\n")
    with pytest.raises(DataError, match=r"sets.gmt: line 2: a set is a name, a source and genes"):
        gene_sets.read_gene_sets(str(bad))


def test_a_random_set_stands_in_where_no_set_has_genes():
    shown = [f"g{i}" for i in range(40)]
    sets = {"a": ["g3", "g4", "x"], "b": ["y"]}
    assert gene_sets.sets_in_sentences(sets, shown) == {"a": ["g3", "g4"]}
    assert list(gene_sets.sets_in_sentences({"b": ["y"]}, shown)) == ["random genes"]
    assert list(gene_sets.sets_in_sentences({"all": shown}, shown)) == ["random genes"]
    assert len(gene_sets.sets_in_sentences({}, shown)["random genes"]) == 4
    assert gene_sets.union_of_sets({"a": ["g4"], "b": ["g3", "g4"]}) == ["g3", "g4"]
    with pytest.raises(DataError, match="gene set 'aa': did you mean 'a'"):
        gene_sets.union_of_sets({"a": ["g4"]}, "aa")
