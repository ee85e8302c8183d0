import anndata
import numpy as np
import pandas as pd
import pytest
from scipy import stats

from epigen_utils import paths
from epigen_utils.data import datasets, orthologs
from epigen_utils.expression import effects


def test_table_one_keeps_paralogs_apart_and_says_what_is_not_there():
    fish = datasets.load("airway-as-zebrafish")[:, ["gria1a", "gria1b", "fosb"]].copy()
    results = {
        "DM": pd.DataFrame(
            {"baseMean": 9.0, "log2FoldChange": [1.0, -2.0, 0.5], "lfcSE": 0.1, "padj": [0.01, 0.01, 0.5]},
            index=fish.var_names,
        )
    }
    changes = {"GRIA1": 1.5, "FOSB": 1.2, "SST": -0.8}
    reported = pd.DataFrame({"function": "f", "log2FoldChange": pd.Series(changes), "padj": 0.001})
    rows = effects.reported_gene_effects(fish, results, reported, alpha=0.05)
    assert rows["gene"].tolist() == ["gria1a", "gria1b", "fosb", "not in the data"]
    assert rows["same sign"].tolist()[:3] == ["yes", "no", "not called"]
    np.testing.assert_allclose(rows.loc[0, ["low", "high"]].astype(float), [1 - 0.196, 1 + 0.196])
    assert rows["reported"].tolist() == [1.5, 1.5, 1.2, -0.8]
    assert rows["function"].tolist() == ["f"] * 4
    assert rows["reported padj"].tolist() == [0.001] * 4
    claimed = effects.claimed_effects(rows, neurons=True)
    assert claimed["gene"].to_dict() == {"GRIA1": "gria1a", "FOSB": "fosb"}
    shown = effects.expressed_effects(rows, pd.DataFrame({"symbol": ["gria1b", "fosb"]}))
    assert shown["gene"].tolist() == ["gria1b", "fosb", "not in the data"], "and claims are judged by all"


def test_a_gene_that_was_not_tested_checks_nothing():
    """GRIA2 of smooth muscle: a change of -2.06 beside the paper's -2.1, of less than one count and without a p-value."""
    table = pd.DataFrame({"human": ["GRIA1", "GRIA2"], "log2FoldChange": [-0.24, -2.06], "padj": [1.0, np.nan]})
    assert effects.claimed_effects(table, neurons=True)["tested"].to_dict() == {"GRIA1": True, "GRIA2": False}
    assert not effects.claimed_effects(table, neurons=False)["tested"].any(), "no gene, in a tissue without neurons"


def test_false_discoveries_and_power_by_hand():
    results = pd.DataFrame({"baseMean": 5.0, "padj": [0.01, 0.01, 0.01, 0.5, 0.5, np.nan]})
    truth = pd.Series([0.0, 1.5, -1.5, 1.5, 0.0, 0.0])
    rate, low, high = effects.false_discovery_proportion(results, truth, alpha=0.05)
    assert rate == pytest.approx(1 / 3)
    assert low == pytest.approx(0.0084, abs=1e-4)
    assert high == pytest.approx(0.9057, abs=1e-4)
    power = effects.power_by_effect_size(results, truth, alpha=0.05, edges=(0, 1, 2))
    assert power["genes"].tolist() == [3, 0, 3]
    assert power["found"].iloc[[0, 2]].tolist() == pytest.approx([1 / 3, 2 / 3])
    assert np.isnan(effects.false_discovery_proportion(results.assign(padj=1.0), truth, alpha=0.05)[0])


def test_planted_changes_of_pooled_levels_and_of_another_reference():
    fish = datasets.load("airway-as-zebrafish")
    truth = fish.varm["log2_fold_change"]
    pooled = effects.planted_fold_changes(truth, fish, ("genotype", "DM+5a1", "WT"))
    np.testing.assert_allclose(pooled, (truth["DM"] + truth["5a1"]) / 2)
    between = effects.planted_fold_changes(truth, fish, ("genotype", "DM", "5a1"))
    np.testing.assert_allclose(between, truth["DM"] - truth["5a1"])


def test_a_cohort_beside_a_published_table():
    """Rat symbols against mouse symbols meet at the human orthologs that are one to one on both sides."""
    fish = datasets.load("airway-as-zebrafish")
    one = orthologs.one_to_one_orthologs("danio_rerio")
    pairs = {human: symbol for symbol, human in one.items() if symbol in fish.var_names}
    mouse = orthologs.one_to_one_orthologs("mus_musculus")
    shared = [(symbol, pairs[human]) for symbol, human in mouse.items() if human in pairs][:40]
    change = np.linspace(-2, 2, 40)
    published = pd.DataFrame({"gene": [a for a, _ in shared], "log2FoldChange": change, "padj": 0.01})
    table = pd.DataFrame({"log2FoldChange": np.nan, "padj": np.nan}, index=fish.var_names)
    table.loc[[b for _, b in shared], "log2FoldChange"] = 2 * change
    table.loc[[b for _, b in shared[:10]], "padj"] = 0.001
    found = effects.compare_with_published(fish, {"KO": table}, published, "mus_musculus", alpha=0.05).set_index(
        "table"
    )
    assert found.loc["published", "called"] == 40
    assert found.loc["KO", "median"] == pytest.approx(2 * found.loc["published", "median"])
    assert found.loc["KO", "Spearman"] == pytest.approx(1)
    assert found.loc["KO", "both called"] == 10
    assert found.loc["KO", "same sign"] == 1


def test_places_of_reported_changes_in_a_published_table():
    published = pd.DataFrame(
        {"gene": ["Gria1", "Gria2", "Fosb", "Sst"], "log2FoldChange": [0.1, -0.2, 2.0, -1.0], "padj": 0.01}
    )
    found = effects.reported_among_published(pd.Series({"GRIA1": 1.5, "PVALB": 0.1}), published, "mus_musculus")
    assert found["as large"].tolist() == [0.25, 1.0]
    assert found.loc[0, "published"] == 0.1
    assert np.isnan(found.loc[1, "published"])


def test_overlaps_against_fishers_exact_test():
    universe = [f"g{i}" for i in range(200)]
    chosen = universe[:50]
    sets = {"over": universe[:8] + universe[100:104] + ["elsewhere"], "even": universe[40:80]}
    table = effects.over_representation(chosen, sets, universe).set_index("set")
    assert table.loc["over", ["genes", "chosen"]].tolist() == [12, 8]
    assert table.loc["over", "expected"] == pytest.approx(3)
    for name, hits, size in (("over", 8, 12), ("even", 10, 40)):
        counts = [[hits, size - hits], [50 - hits, 200 - 50 - size + hits]]
        assert table.loc[name, "p"] == pytest.approx(stats.fisher_exact(counts, alternative="greater").pvalue)
    assert table["padj"].tolist() == pytest.approx(stats.false_discovery_control(table["p"]).tolist())
    outside = effects.over_representation([*chosen, "elsewhere"], sets, universe).set_index("set")
    pd.testing.assert_frame_equal(outside, table)


def test_a_joint_change_is_positive_only_if_every_part_is():
    table = pd.DataFrame({"change": [1.5, -2.0], "low": [0.5, -3.0], "high": [2.5, -1.0]}, index=["up", "down"])
    signs = {"up": 1, "down": -1}
    joint = effects.joint_change(table, signs, column="change")
    assert joint == {"number": 1.5, "low": 0.5, "high": 2.5}
    table.loc["down"] = [0.4, -0.2, 1.0]
    joint = effects.joint_change(table, signs, column="change")
    assert joint == pytest.approx({"number": -0.4, "low": -1.0, "high": 0.2})
    table.loc["down"] = [2.0, 1.0, 3.0]
    assert effects.joint_change(table, signs, column="change")["high"] < 0
    assert effects.joint_change(table.drop("down"), signs, column="change") is None


def test_the_interval_of_a_joint_change_covers_the_weaker_one():
    """Of 2,000 pairs of estimates whose weaker change is zero, at most 2.5% have an interval above zero."""
    rng = np.random.default_rng(0)
    up, down = rng.normal(0, 1, 2000), rng.normal(-3, 1, 2000)
    above = 0
    for change in zip(up, down, strict=True):
        table = pd.DataFrame({"change": change}, index=["up", "down"])
        table["low"], table["high"] = table["change"] - 1.96, table["change"] + 1.96
        above += effects.joint_change(table, {"up": 1, "down": -1}, column="change")["low"] > 0
    assert above / 2000 < 0.035


def test_the_contrast_of_all_mutants_is_the_widest():
    contrasts = {"DM": ("g", "DM", "WT"), "mutants": ("g", "DM+5a1", "WT"), "5a1": ("g", "5a1", "WT")}
    adata = anndata.AnnData(obs=pd.DataFrame({"g": ["DM", "5a1", "WT", "CD4+CD8+"]}, list("abcd")))
    assert effects.most_pooled(adata, contrasts) == "mutants"
    assert effects.most_pooled(adata, {"a": ("g", "DM", "WT"), "b": ("g", "5a1", "WT")}) == "a"
    assert effects.most_pooled(adata, {"both": ("g", "CD4+CD8+", "WT")} | contrasts) == "mutants", "a level, no pool"


def test_pooled_changes_by_a_t_test(small):
    values = pd.DataFrame({"up": [1.0, 2, 3, 7, 8, 9], "same": [1.0, 2, 3, 1, 2, 3]}, index=small.obs_names)
    del small.uns["epigen"]["donor"]
    small.obs["condition"] = pd.Categorical(small.obs["condition"])
    changes = effects.pooled_changes(small, values).set_index("feature")
    assert changes.loc["up", "difference"] == pytest.approx(6)
    assert changes.loc["up", "p"] == pytest.approx(stats.ttest_ind([1, 2, 3], [7, 8, 9]).pvalue)
    assert changes.loc["same", "low"] == pytest.approx(-changes.loc["same", "high"])
    assert effects.pooled_changes(small, values[[]]).empty
    alone = small[[0, 1, 2, 3]].copy()
    assert effects.pooled_changes(alone, values.iloc[:4]).empty, "one sample of a group cannot be tested"


def test_shares_as_large_counts_tested_genes_only():
    results = {"KO": pd.DataFrame({"log2FoldChange": [2.0, -1.0, 0.1, 5.0], "pvalue": [0.1, 0.2, 0.3, np.nan]})}
    table = effects.shares_as_large(results, pd.Series({"A": -1.0, "B": 3.0}))
    assert table["KO"].tolist() == pytest.approx([2 / 3, 0.0])


def test_the_balance_of_table_one_turns_with_the_reading_of_gria2():
    """The sign of the index hangs on a choice of this book's, so that it gives no verdict."""
    printed = pd.read_csv(paths.DATA / "table_one.csv").set_index("gene")["log2FoldChange"]
    table = effects.balance_readings(printed)
    assert table["index"].tolist() == pytest.approx([-0.35, 1.75])
    assert table["inhibition"].tolist() == pytest.approx([0.05, 0.05])
