import numpy as np
import pandas as pd
import pytest

from epigen_utils.data import datasets, genes, orthologs, simulated_bulk
from epigen_utils.expression import designs, differential


def test_counts_have_the_model_s_mean_and_variance():
    """Without depth and effects the counts are negative binomial: variance = mu + dispersion * mu^2."""
    adata = simulated_bulk.negative_binomial_cohort(
        groups={"a": 4000}, reference="a", n_genes=5, dispersion=0.2, seed=1
    )
    counts = adata.layers["counts"]
    mean, variance = counts.mean(axis=0), counts.var(axis=0)
    spread = np.exp2(np.random.default_rng(0).uniform(-0.5, 0.5, 200_000))
    cv2 = spread.var() / spread.mean() ** 2
    expected = mean + mean**2 * (0.2 * (1 + cv2) + cv2)
    np.testing.assert_allclose(variance, expected, rtol=0.12)


def test_planted_fold_changes_are_there():
    adata = simulated_bulk.negative_binomial_cohort(
        groups={"a": 300, "b": 300}, reference="a", n_genes=200, n_changed=20, seed=2
    )
    counts = adata.layers["counts"]
    groups = adata.obs["group"].to_numpy()
    seen = np.log2(counts[groups == "b"].mean(axis=0) / counts[groups == "a"].mean(axis=0))
    truth = adata.varm["log2_fold_change"]["b"]
    assert np.corrcoef(seen, truth)[0, 1] > 0.98
    assert (truth != 0).sum() == 20


def test_reference_must_be_a_group():
    with pytest.raises(ValueError, match="reference 'c'"):
        simulated_bulk.negative_binomial_cohort(groups={"a": 2}, reference="c")


@pytest.fixture(scope="module")
def fish():
    return datasets.load("airway-as-zebrafish")


@pytest.fixture(scope="module")
def mouse():
    return datasets.load("airway-as-mouse")


def test_a_thinned_cohort_has_the_wanted_design(fish):
    assert fish.obs["genotype"].value_counts().to_dict() == {"WT": 3, "DM": 3, "5a1": 3, "5b1": 3}
    assert fish.obs.groupby("library", observed=True)["genotype"].nunique().eq(2).all(), "parts go to different groups"
    assert fish.obs.groupby("genotype", observed=True)["batch"].nunique().eq(2).all()
    assert {"gria1a", "gria1b"} <= set(fish.var_names)
    assert np.linalg.matrix_rank(designs.design_matrix(fish, "~batch + genotype")) == 5


def test_thinning_only_takes_away_and_parts_add_up_to_less_than_the_library(fish):
    airway = datasets.load("airway")
    depth = fish.layers["counts"].sum(axis=1)
    for library, members in fish.obs.groupby("library", observed=True).indices.items():
        assert depth[members].sum() < airway[library].layers["counts"].sum()


def test_unchanged_genes_are_not_thinned(mouse):
    """In two groups of whole libraries, a gene without an effect keeps the counts of its human ortholog."""
    airway = genes.add_symbols(datasets.load("airway"))
    same = mouse.varm["log2_fold_change"].eq(0).all(axis=1)
    symbol = mouse.var_names[same.to_numpy() & (mouse.layers["counts"].mean(axis=0) > 100)][0]
    human = orthologs.ortholog_pairs("mus_musculus").set_index("symbol").loc[symbol, "human"]
    column = list(airway.var["symbol"]).index(human)
    for sample in mouse.obs_names:
        library = mouse.obs.loc[sample, "library"]
        assert mouse[sample, symbol].layers["counts"].item() == airway[library].layers["counts"][0, column]


def test_the_planted_effects_are_recovered_by_deseq2(mouse):
    """Of every eighth gene, changed or not: as many false calls among the called as of all, in an eighth of the time."""
    some = mouse[:, ::8].copy()
    found = differential.deseq(some, design="~batch + genotype", contrast=("genotype", "KO", "WT"))
    truth = some.varm["log2_fold_change"]["KO"]
    seen = (found["baseMean"] > 100) & (truth != 0)
    assert np.corrcoef(found.loc[seen, "log2FoldChange"], truth[seen])[0, 1] > 0.9
    called = found["padj"] < 0.05
    assert (truth[called] == 0).mean() < 0.2


def test_equal_seeds_give_equal_cohorts_and_truth_differs_by_seed():
    design = {
        "base": datasets.load("airway")[:, ::8].copy(),
        "n_changed": 60,
        "species": "mus_musculus",
        "groups": {"WT": 4, "KO": 4},
        "reference": "WT",
        "batch": "dex",
    }
    first, again, other = (simulated_bulk.thinned_cohort(**design, seed=seed) for seed in (1, 1, 2))
    assert (first.layers["counts"] == again.layers["counts"]).all()
    assert not first.varm["log2_fold_change"].equals(other.varm["log2_fold_change"])


def test_no_effect_is_a_value_of_table_one(fish, mouse):
    table_one = {"GRIA1": 1.5, "GRIA2": -2.1, "SST": -0.8, "PVALB": 0.9, "FOSB": 1.2}
    for adata in (fish, mouse):
        rows = orthologs.find_genes(adata, list(table_one)).dropna()
        for row in rows.itertuples():
            planted = adata.varm["log2_fold_change"].loc[row.gene]
            assert (planted - table_one[row.human]).abs().min() > 0.05


def test_decoys_vary_as_much_as_what_makes_the_class():
    groups = {"control": 200, "case": 200}
    adata = simulated_bulk.two_factor_cohort(groups=groups, reference="control", seed=1)
    truth, nuisance = adata.varm["log2_fold_change"], adata.obs["nuisance"] == "present"
    assert ((truth["case"] != 0) & (truth["nuisance"] != 0)).sum() == 0
    assert (truth["case"] != 0).sum() == (truth["nuisance"] != 0).sum() == 16
    assert pd.crosstab(adata.obs["group"], nuisance).to_numpy().tolist() == [[100, 100], [100, 100]]
    logs = np.log2(adata.layers["counts"] + 1)
    for column, present in (("case", (adata.obs["group"] == "case").to_numpy()), ("nuisance", nuisance.to_numpy())):
        found = logs[present].mean(axis=0) - logs[~present].mean(axis=0)
        assert np.corrcoef(found, truth[column])[0, 1] > 0.95
