import numpy as np
import pandas as pd
import pytest
from scipy.stats import ttest_ind, ttest_rel

from epigen_utils import paths
from epigen_utils.data import datasets, simulated_bulk
from epigen_utils.errors import DataError
from epigen_utils.expression import designs, differential, effects, normalisation

REFERENCE = paths.DATA / "reference"


DESIGN, CONTRAST = "~type + condition", ("condition", "treated", "untreated")


def reference(name):
    return pd.read_csv(REFERENCE / f"pasilla_{name}.csv.gz", index_col=0, skipinitialspace=True)


@pytest.fixture(scope="module")
def pasilla():
    """Every eighth gene, as data/reference/deseq2.R takes them."""
    adata = datasets.load("pasilla")[:, ::8].copy()
    adata.obs["type"] = adata.obs["type"].str.replace("-", "_")
    return adata


@pytest.fixture(scope="module")
def ours(pasilla):
    return differential.deseq(pasilla, design=DESIGN, contrast=CONTRAST)


def test_columns_are_deseq2s_in_the_order_of_the_genes(pasilla, ours):
    assert list(ours.columns) == ["baseMean", "log2FoldChange", "lfcSE", "stat", "pvalue", "padj"]
    assert list(ours.index) == list(pasilla.var_names)


def test_base_means_are_those_of_r(ours):
    np.testing.assert_allclose(ours["baseMean"], reference("results")["baseMean"].reindex(ours.index), rtol=1e-8)


def test_fold_changes_agree_with_r_where_there_are_counts(ours):
    theirs = reference("results").reindex(ours.index)
    assert (ours["log2FoldChange"].isna() == theirs["log2FoldChange"].isna()).all(), "genes without counts"
    seen = theirs["baseMean"] > 10
    change = (ours.loc[seen, "log2FoldChange"] - theirs.loc[seen, "log2FoldChange"]).abs()
    assert change.max() < 1e-5
    for column in ("lfcSE", "stat"):
        np.testing.assert_allclose(ours.loc[seen, column], theirs.loc[seen, column], rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize(("name", "filters"), [("results", True), ("results_unfiltered", False)])
def test_calls_agree_with_r(pasilla, name, filters):
    ours = differential.deseq(
        pasilla, design=DESIGN, contrast=CONTRAST, independent_filter=filters, cooks_filter=filters
    )
    theirs = reference(name).reindex(ours.index)
    assert ((ours["padj"] < 0.05) == (theirs["padj"] < 0.05)).all()
    assert (ours["padj"].isna() == theirs["padj"].isna()).all()


def test_the_sign_follows_the_contrast(pasilla, ours):
    turned = differential.deseq(pasilla, design=DESIGN, contrast=("condition", "untreated", "treated"))
    np.testing.assert_allclose(turned["log2FoldChange"], -ours["log2FoldChange"])


def test_shrinkage_leaves_p_values_and_pulls_in_fold_changes(pasilla, ours):
    shrunk = differential.deseq(pasilla, design=DESIGN, contrast=CONTRAST, shrink="apeglm")
    np.testing.assert_allclose(shrunk["pvalue"], ours["pvalue"])
    assert shrunk["log2FoldChange"].abs().sum() < ours["log2FoldChange"].abs().sum()
    with pytest.raises(DataError, match="the normal prior is not for designs with interactions; take shrink='apeglm'"):
        differential.deseq(pasilla, design="~type * condition", contrast=CONTRAST, shrink="normal")


def test_planted_changes_are_found_and_all_zero_genes_are_na():
    adata = datasets.load("negative-binomial-sim")
    adata.layers["counts"][:, 0] = 0
    found = differential.deseq(adata, design="~group", contrast=("group", "mutant", "control"))
    assert found.iloc[0].drop("baseMean").isna().all()
    assert found.iloc[0]["baseMean"] == 0
    truth = adata.varm["log2_fold_change"]["mutant"]
    big = (truth.abs() > 1) & (found["baseMean"] > 20)
    assert (found.loc[big, "padj"] < 0.05).mean() > 0.9
    assert np.corrcoef(found.loc[big, "log2FoldChange"], truth[big])[0, 1] > 0.98


def refused(adata, design, contrast):
    with pytest.raises(DataError) as caught:
        differential.deseq(adata, design=design, contrast=contrast)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_mistakes_are_one_line(small):
    small.obs["batch"] = list("xxxyyy")
    small.obs["lone"] = list("pqqqqq")
    ok = ("condition", "b", "a")
    assert "'batch[T.y]' cannot" in refused(small, "~batch + condition", ok).replace(
        "batch[T.y] and", "'batch[T.y]' cannot"
    )
    assert "has no level 'wt' (levels: a, b)" in refused(small, "~condition", ("condition", "b", "wt"))
    assert "no column 'genotype'" in refused(small, "~condition", ("genotype", "b", "a"))
    assert "'p' of 'lone' has one sample" in refused(small, "~lone", ("lone", "p", "q"))
    assert "compared with itself" in refused(small, "~condition", ("condition", "a", "a"))
    assert "design '~tissue'" in refused(small, "~tissue", ok)
    small.obs["empty"] = ["x", None, "y", "x", "y", "x"]
    assert "sample 's1' lacks a value" in refused(small, "~empty + condition", ok)
    lone = small[[0, 3]].copy()
    assert "has one sample; a comparison needs replicates" in refused(lone, "~condition", ok)
    nothing = small.copy()
    nothing.layers["counts"][:, :] = 1 - np.eye(*nothing.shape, dtype=int)
    assert "no gene is detected in every sample" in refused(nothing, "~condition", ok)
    two = small[[0, 1, 3, 4]].copy()
    two.obs["donor"] = list("xyzw")
    assert "cannot be separated" in refused(two, "~donor + condition", ok)
    few = small[[0, 3, 1, 4]].copy()
    few.obs["batch"] = list("xyyx")
    few.obs["other"] = list("xxyy")
    assert "leave nothing to estimate dispersion from" in refused(few, "~batch * other", ("batch", "y", "x"))
    for device, message in (("mps", "device 'mps': known: cpu, cuda"), ("cpus", "device 'cpus': did you mean 'cpu'")):
        with pytest.raises(DataError, match=message):
            differential.deseq(small, design="~condition", contrast=ok, device=device)
    with pytest.raises(DataError, match="engine 'r'"):
        differential.deseq(small, design="~condition", contrast=ok, engine="r")


def test_vst_against_its_namesakes_in_r(pasilla):
    for name, design in (("vst_blind", ""), ("vst_design", DESIGN)):
        ours = normalisation.vst(pasilla, design=design)
        theirs = reference(name).T.loc[ours.index, ours.columns]
        np.testing.assert_allclose(ours, theirs, atol=1e-5, err_msg=name)


def test_tpm(small):
    lengths = pd.Series({"g1": 1000, "g2": 2000, "g4": 500})
    found = normalisation.tpm(small, lengths)
    assert list(found.columns) == ["g1", "g2", "g4"]
    np.testing.assert_allclose(found.sum(axis=1), 1e6)
    row = np.array([5 / 1000, 0, 100 / 500])
    np.testing.assert_allclose(found.iloc[0], row / row.sum() * 1e6)
    with pytest.raises(ValueError, match="none of the 4 genes has a length"):
        normalisation.tpm(small, pd.Series({"ENSG1": 1}))


def test_several_contrasts_of_one_fit_and_pooled_levels():
    adata = simulated_bulk.negative_binomial_cohort(
        groups={"wt": 4, "m1": 4, "m2": 4}, reference="wt", n_genes=300, n_changed=60, seed=3
    )
    fitted = differential.fit_design(adata, design="~group")
    one, two = (fitted.results(("group", name, "wt")) for name in ("m1", "m2"))
    pooled = fitted.results(("group", "m1+m2", "wt"))
    np.testing.assert_allclose(pooled["log2FoldChange"], (one["log2FoldChange"] + two["log2FoldChange"]) / 2)
    assert (pooled["lfcSE"] < one["lfcSE"]).mean() > 0.9, "eight mutants say more than four"
    turned = fitted.results(("group", "wt", "m2"))
    np.testing.assert_allclose(turned["log2FoldChange"], -two["log2FoldChange"])
    with pytest.raises(DataError, match="no level 'm3'"):
        fitted.results(("group", "m1+m3", "wt"))
    with pytest.raises(DataError, match="'wt' is compared with itself"):
        fitted.results(("group", "m1+wt", "wt"))
    with pytest.raises(DataError, match="not one coefficient"):
        fitted.results(("group", "m1+m2", "wt"), shrink="apeglm")


def test_dispersions_beside_r(pasilla):
    """The three columns are R's gene-wise, trend and final dispersions; the fits differ as far as stated here."""
    ours = differential.fit_design(pasilla, design=DESIGN).dispersions
    theirs = (
        pd.read_csv(REFERENCE / "pasilla_dispersions.csv.gz", index_col=0, skipinitialspace=True)
        .set_index(reference("results").index)
        .reindex(ours.index)
    )
    seen = ours["baseMean"] > 50
    for column, theirs_column in (("genewise", "genewise"), ("trend", "trend"), ("final", "dispersion")):
        ratio = np.log2(ours.loc[seen, column] / theirs.loc[seen, theirs_column])
        assert abs(ratio.median()) < 0.5, column
    assert np.corrcoef(np.log(ours.loc[seen, "final"]), np.log(theirs.loc[seen, "dispersion"]))[0, 1] > 0.95


def test_linear_is_students_t_and_with_donors_the_paired_one(small):
    rng = np.random.default_rng(0)
    table = pd.DataFrame(rng.normal(size=(6, 3)), small.obs_names, list("xyz"))
    pairs = {"b": ("condition", "b", "a")}
    found = differential.linear_contrasts(small, table, design="~condition", contrasts=pairs).set_index("feature")
    a, b = table[:3], table[3:]
    np.testing.assert_allclose(found["p"], ttest_ind(b, a).pvalue)
    interval = ttest_ind(b, a).confidence_interval()
    np.testing.assert_allclose(found[["low", "high"]].T, [interval.low, interval.high])
    paired = differential.linear_contrasts(small, table, design="~donor + condition", contrasts=pairs)
    np.testing.assert_allclose(paired["p"], ttest_rel(b, a).pvalue)
    np.testing.assert_allclose(paired["difference"], b.mean().to_numpy() - a.mean().to_numpy())
    assert differential.linear_contrasts(small, table * 0, design="~condition", contrasts=pairs)["p"].isna().all()
    with pytest.raises(DataError, match="no level 'c'"):
        differential.linear_contrasts(small, table, design="~condition", contrasts={"c": ("condition", "c", "a")})


def test_shuffles_call_little_where_the_groups_differ_in_all():
    adata = simulated_bulk.negative_binomial_cohort(groups={"c": 5, "m": 5}, reference="c", n_genes=150, n_changed=0)
    adata.obs["group"] = pd.Categorical(adata.obs["group"], ["c", "m"])
    adata.uns["epigen"] = {"name": "n", "group": "group", "measure": "counts"}
    table = pd.DataFrame(np.random.default_rng(0).normal(size=(10, 150)), adata.obs_names)
    table.iloc[5:, :20] += 6
    design, contrasts = designs.design_and_contrasts(adata)
    observed = (differential.linear_contrasts(adata, table, design=design, contrasts=contrasts)["padj"] < 0.05).sum()
    null = differential.count_called_under_permutation(adata, table, alpha=0.05, n_permutations=30, seed=0)
    assert 20 <= observed <= 25
    assert len(null) == 30
    assert np.median(null) == 0


def test_summary_counts(ours):
    row = effects.summarise_contrasts({"treated": ours}, alpha=0.05).iloc[0]
    called = ours["padj"] < 0.05
    assert row["up"] + row["down"] == called.sum()
    assert row["genes with counts"] == (ours["baseMean"] > 0).sum()
