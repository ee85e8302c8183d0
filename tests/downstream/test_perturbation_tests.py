"""Against the tables of official Geneformer's statistics, on its own shifts and on made-up ones."""

import numpy as np
import pandas as pd
import pytest
from scipy import stats

from epigen_utils.downstream import perturbation_tests
from epigen_utils.errors import DataError
from epigen_utils.geneformer import vocabularies


@pytest.fixture
def official(mirror):
    return mirror / "reference/geneformer_official"


@pytest.fixture
def synthetic(official):
    names = {token: gene for gene, token in vocabularies.official_vocabulary("v1").tokens.items()}
    held = pd.read_csv(official / "synthetic_shifts_input.csv.gz", keep_default_na=False)
    held["gene"] = held["token"].map(names)
    return held


def same(ours, theirs, but=()):
    both = ours.merge(theirs, on="Ensembl_ID", suffixes=("", "_theirs"))
    assert len(both) == len(ours) == len(theirs)
    shared = [column for column in theirs if column in ours and column not in ("Ensembl_ID", "Gene_name", *but)]
    assert len(shared) >= 2
    for column in shared:
        np.testing.assert_allclose(both[column], both[f"{column}_theirs"], atol=1e-9, err_msg=column)


def test_goal_state_shift_as_official(official, synthetic):
    theirs = pd.read_csv(official / "stats_goal_state_shift_all.csv", index_col=0)
    held = pd.read_csv(official / "goal_delete_all_2cells.csv")
    shifts = pd.DataFrame({"cell": pd.factorize(held["cell_id"])[0], "gene": held["ensembl_id"]})
    same(perturbation_tests.goal_state_shift(shifts.assign(shift_day5=held["shift_to_day5"]), "day5"), theirs)
    wide = synthetic[synthetic["set"] == "goal"].pivot(index=["gene", "cell"], columns="state", values="value")
    found = perturbation_tests.goal_state_shift(wide.add_prefix("shift_").reset_index(), "day5", alternatives=("alt1",))
    theirs = pd.read_csv(official / "synthetic_stats_goal_state_shift.csv", index_col=0)
    same(found, theirs)
    assert list(found["Ensembl_ID"]) == list(theirs["Ensembl_ID"])


def cosines(synthetic, name):
    return synthetic[synthetic["set"] == name].rename(columns={"value": "cosine"}).reset_index(drop=True)


def test_vs_null_as_official(official, synthetic):
    found = perturbation_tests.vs_null(cosines(synthetic, "test"), cosines(synthetic, "null"))
    same(found, pd.read_csv(official / "synthetic_stats_vs_null.csv", index_col=0))
    assert found["Null_avg_shift"].isna().any()
    assert (found.loc[found["Null_avg_shift"].isna(), "Test_vs_null_pval"] == 1).all()


def test_mixture_model_as_official_where_its_components_are_in_order(official):
    parts = [pd.read_csv(official / f"delete_all_{name}2cells.csv") for name in ("test", "null")]
    held = pd.concat(parts, ignore_index=True).rename(columns={"ensembl_id": "gene", "cosine_similarity": "cosine"})
    same(perturbation_tests.mixture_model(held), pd.read_csv(official / "stats_mixture_model.csv", index_col=0))


def test_mixture_model_is_right_where_official_has_the_components_reversed(official, synthetic):
    """Official: 22 genes of impact, those below the lower mean; ours: the 40 that were made so."""
    theirs = pd.read_csv(official / "synthetic_stats_mixture_model.csv", index_col=0)
    found = perturbation_tests.mixture_model(cosines(synthetic, "test"))
    assert theirs["Impact_component"].sum() == 22
    assert found["Impact_component"].sum() == 40
    assert set(theirs.loc[theirs["Impact_component"] == 1, "Ensembl_ID"]) < set(
        found.loc[found["Impact_component"] == 1, "Ensembl_ID"]
    )
    same(found, theirs, but=("Impact_component", "Impact_component_percent"))


def drawn(n_donors=6, cells=10, genes=30, effect=0.0, seed=0):
    """Shifts in which donors differ, and one gene moves cells of all donors."""
    rng = np.random.default_rng(seed)
    table = pd.MultiIndex.from_product(
        [range(n_donors * cells), [f"g{i}" for i in range(genes)]], names=["cell", "gene"]
    )
    table = table.to_frame(index=False)
    donors = np.repeat([f"d{i}" for i in range(n_donors)], cells)
    own = rng.normal(0, 0.5, (n_donors, genes))
    table["shift_goal"] = own[table["cell"] // cells, table["gene"].str[1:].astype(int)] + rng.normal(
        0, 0.1, len(table)
    )
    table.loc[table["gene"] == "g0", "shift_goal"] += effect
    return table, donors


def test_rank_sum_is_scipys_also_with_ties():
    rng = np.random.default_rng(0)
    table = pd.DataFrame(
        {"cell": range(60), "gene": ["a"] * 20 + ["b"] * 40, "shift_goal": rng.integers(4, size=60) / 4}
    )
    found = perturbation_tests.goal_state_shift(table, "goal").set_index("Ensembl_ID")
    values = table["shift_goal"]
    assert found.loc["a", "Goal_end_vs_random_pval"] == pytest.approx(stats.ranksums(values[:20], values).pvalue)


def test_donors_are_counted_and_not_only_cells():
    table, donors = drawn()
    found = perturbation_tests.goal_state_shift(table, "goal", donors=donors)
    # No gene has an effect, but each donor has its own: over cells that looks like one.
    assert found["Sig"].mean() > 0.2
    assert (found["Donor_FDR"] < 0.05).sum() == 0
    assert (found["N_Donors"] == 6).all()
    table, donors = drawn(effect=3.0)
    found = perturbation_tests.goal_state_shift(table, "goal", donors=donors).set_index("Ensembl_ID")
    assert found.index[0] == "g0"
    assert found.loc["g0", "Donor_FDR"] < 0.05
    centred = table["shift_goal"] - table.groupby(donors[table["cell"]])["shift_goal"].transform("mean")
    mine = table["gene"] == "g0"
    by_donor = centred[mine].groupby(donors[table.loc[mine, "cell"]]).mean()
    assert found.loc["g0", "Donor_pval"] == pytest.approx(stats.ttest_1samp(by_donor, 0).pvalue)


def test_two_donors_are_too_few_to_test():
    table, donors = drawn(n_donors=2)
    found = perturbation_tests.goal_state_shift(table, "goal", donors=donors)
    assert found["Donor_pval"].isna().all()


def test_three_donors_have_a_p_and_no_interval():
    table, donors = drawn(n_donors=3)
    found = perturbation_tests.goal_state_shift(table, "goal", donors=donors)
    assert found["Donor_pval"].notna().all()
    assert found["Donor_low"].isna().all()


def with_rare_genes(n_rare=200, **options):
    """Shifts of `drawn`, and of many genes that one to three cells of one donor each express."""
    table, donors = drawn(**options)
    rng = np.random.default_rng(1)
    rare = pd.DataFrame({"cell": rng.integers(60, size=3 * n_rare), "gene": np.repeat(range(n_rare), 3)})
    rare = rare.drop_duplicates().assign(gene=lambda one: "rare" + one["gene"].astype(str))
    rare["shift_goal"] = rng.normal(0, 0.5, len(rare))
    return pd.concat([table, rare], ignore_index=True), donors


def test_genes_of_few_cells_are_left_out_before_the_correction():
    """A gene that moves all donors' cells is called once the genes that nothing could call are not counted."""
    table, donors = with_rare_genes(effect=0.9)
    fewest = perturbation_tests.fewest_detections(60)
    assert fewest == 6
    every = perturbation_tests.goal_state_shift(table, "goal", donors=donors).set_index("Ensembl_ID")
    tested = perturbation_tests.goal_state_shift(table, "goal", donors=donors, min_cells=fewest).set_index("Ensembl_ID")
    assert len(every) == 230
    assert sorted(tested.index) == sorted(f"g{i}" for i in range(30))
    assert (tested["N_Detections"] >= fewest).all()
    pd.testing.assert_series_equal(tested["Donor_pval"], every.loc[tested.index, "Donor_pval"])
    assert (every["Donor_pval"].notna()).sum() > 30
    assert tested.at["g0", "Donor_FDR"] < every.at["g0", "Donor_FDR"]
    over_cells = stats.false_discovery_control(every.loc[tested.index, "Goal_end_vs_random_pval"])
    np.testing.assert_allclose(tested["Goal_end_FDR"], over_cells)


def test_fewest_cells_are_a_tenth_and_three():
    assert [perturbation_tests.fewest_detections(n) for n in (2, 8, 30, 31, 64)] == [2, 3, 3, 4, 7]


def test_impact_and_contrast_leave_out_genes_of_few_cells():
    table = with_rare_genes()[0].rename(columns={"shift_goal": "cosine"})
    found = perturbation_tests.mixture_model(table, min_cells=6)
    assert (found["N_Detections"] >= 6).all()
    null = table[table["gene"] != "g1"]
    found = perturbation_tests.vs_null(table, null, min_cells=6)
    assert sorted(found["Ensembl_ID"]) == sorted(f"g{i}" for i in range(30) if i != 1)
    assert (found[["N_Detections_test", "N_Detections_null"]] >= 6).all().all()


def test_called_are_genes_over_donors_or_over_cells_where_donors_are_few():
    table, donors = drawn(effect=3.0)
    over_donors = perturbation_tests.goal_state_shift(table, "goal", donors=donors)
    unit, called = perturbation_tests.called_genes(over_donors, 0.05)
    assert unit == "donors"
    assert over_donors.loc[called, "Ensembl_ID"].tolist() == ["g0"]
    table, donors = drawn(n_donors=2, effect=3.0)
    over_cells = perturbation_tests.goal_state_shift(table, "goal", donors=donors)
    unit, called = perturbation_tests.called_genes(over_cells, 0.05)
    assert unit == "cells"
    assert called.sum() == over_cells["Sig"].sum()


def test_donor_shifts_by_hand():
    table = pd.DataFrame({"cell": [0, 0, 1, 1, 2], "gene": ["a", "b", "a", "b", "a"]})
    table["shift_goal"] = [1.0, 3.0, 2.0, 4.0, 7.0]
    found = perturbation_tests.donor_shifts(table, "shift_goal", np.array(["x", "x", "y"]))
    assert found.loc["a", "x"] == pytest.approx(1.5 - 2.5)
    assert found.loc["b", "x"] == pytest.approx(3.5 - 2.5)
    assert found.loc["a", "y"] == 0
    assert np.isnan(found.loc["b", "y"])


def test_mistakes_are_one_line():
    table, _ = drawn()
    with pytest.raises(DataError, match="none was perturbed in 61 cells"):
        perturbation_tests.goal_state_shift(table, "goal", min_cells=61)
    with pytest.raises(DataError, match="goal 'cure': no shifts towards it; there are goal"):
        perturbation_tests.goal_state_shift(table, "cure")
    with pytest.raises(DataError, match="fewer than two genes"):
        perturbation_tests.mixture_model(pd.DataFrame({"gene": ["a"], "cosine": [1.0]}))


def test_the_plain_difference_by_hand():
    vocabulary = vocabularies.vocabulary_from_medians({"g1": 1.0, "g2": 1.0}, name="v")
    cells = {"input_ids": [[2, 3], [3, 2], [3]]}
    found = perturbation_tests.rank_difference_baseline(cells, vocabulary, ["ill", "well", "well"], "ill", "well")
    assert found.to_dict() == {"g1": 1 - 0.25, "g2": 0.5 - 1.0}


def test_planted_genes_are_scored_over_donors():
    table, donors = drawn(effect=3.0)
    found = perturbation_tests.planted_gene_scores(table, {"g0"}, "shift_goal", donors, n_bootstrap=50)
    assert (found["auc"], found["genes"], found["planted"], found["donors"]) == (1.0, 30, 1, 6)
    assert found["first"] == 1
    assert found["by_chance"] == pytest.approx(20 / 30)
    rest = perturbation_tests.planted_gene_scores(
        table, {f"g{i}" for i in range(1, 16)}, "shift_goal", donors, n_bootstrap=200
    )
    assert rest["low"] < 0.5 < rest["high"] + 0.1
    table, donors = drawn(n_donors=3)
    few = perturbation_tests.planted_gene_scores(table, {"g0"}, "shift_goal", donors, n_bootstrap=20)
    assert np.isnan(few["low"])
    assert np.isnan(few["high"])
