import numpy as np
import pytest
from deseq_units import counts, design, single, table, worst
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import chi2, false_discovery_control, norm

from epigen_utils.deseq import fitting, testing
from epigen_utils.errors import DataError

B_AGAINST_A = np.array([0, 0, 1.0])
TESTS = table("tests_batch")
#: Genes on which R's iteration settles.
SETTLED = (table("fit_batch")["betaIter"] < 100).to_numpy()


@pytest.fixture(scope="module")
def batch():
    return fitting.fit(counts(), design("batch", "condition"))


@pytest.fixture(scope="module")
def wald(batch):
    return testing.wald(batch, B_AGAINST_A, alpha=0.05)


@pytest.mark.parametrize(
    ("name", "column"),
    [
        ("base_mean", "baseMean"),
        ("log2_fold_change", "log2FoldChange"),
        ("error", "lfcSE"),
        ("statistic", "stat"),
        ("pvalue", "pvalue"),
    ],
)
def test_walds_columns_are_rs(wald, name, column):
    """Worst seen: 5e-8, the digits of the table."""
    assert worst(getattr(wald, name)[SETTLED], table("fit_batch")[column][SETTLED], absolute=1e-7) < 1e-5


def test_adjusted_p_values_are_rs_with_filters_and_without(batch, wald):
    """Three genes are flagged by Cook's distance."""
    theirs = table("fit_batch")
    assert worst(wald.padj, theirs["padj"]) < 1e-5
    assert np.flatnonzero(np.isnan(wald.pvalue) & (wald.base_mean > 0)).tolist() == [1, 4, 14]
    unfiltered = testing.wald(batch, B_AGAINST_A, cooks_filter=False, independent_filter=False)
    assert worst(unfiltered.padj[SETTLED], TESTS["padj.unfiltered"][SETTLED]) < 1e-5


@pytest.mark.parametrize("alternative", testing.ALTERNATIVES)
def test_thresholds_are_rs(batch, alternative):
    found = testing.wald(batch, B_AGAINST_A, threshold=0.5, alternative=alternative)
    assert worst(found.statistic[SETTLED], TESTS[f"stat.{alternative}"][SETTLED], absolute=1e-7) < 1e-5
    assert worst(found.pvalue[SETTLED], TESTS[f"pvalue.{alternative}"][SETTLED], absolute=1e-12) < 1e-5
    assert worst(found.padj, TESTS[f"padj.{alternative}"], absolute=1e-12) < 1e-5


def test_p_values_are_those_of_the_normal(wald):
    kept = ~np.isnan(wald.pvalue)
    np.testing.assert_allclose(wald.pvalue[kept], 2 * norm.sf(np.abs(wald.statistic[kept])), rtol=1e-10)


def test_without_a_threshold_the_two_sides_sum_to_one(batch):
    greater, less = (testing.wald(batch, B_AGAINST_A, alternative=side).pvalue for side in ("greater", "less"))
    kept = ~np.isnan(greater)
    np.testing.assert_allclose((greater + less)[kept], 1)


def test_a_turned_contrast_turns_the_sign(batch, wald):
    turned = testing.wald(batch, -B_AGAINST_A, alpha=0.05)
    np.testing.assert_allclose(turned.log2_fold_change, -wald.log2_fold_change)
    np.testing.assert_allclose(turned.pvalue, wald.pvalue)


def test_the_likelihood_ratio_is_rs(batch):
    found = testing.likelihood_ratio(batch, design("batch"), B_AGAINST_A)
    assert worst(found.statistic[SETTLED], TESTS["stat.LRT"][SETTLED], absolute=1e-6) < 1e-5
    assert worst(found.pvalue[SETTLED], TESTS["pvalue.LRT"][SETTLED], absolute=1e-12) < 1e-4
    kept = ~np.isnan(found.pvalue)
    np.testing.assert_allclose(found.pvalue[kept], chi2.sf(np.maximum(found.statistic[kept], 0), 1))


def test_leaving_out_more_terms_never_lowers_the_statistic(batch):
    both = testing.likelihood_ratio(batch, design(), B_AGAINST_A).statistic
    assert (both[5:] >= testing.likelihood_ratio(batch, design("batch"), B_AGAINST_A).statistic[5:] - 1e-3).all()


@pytest.mark.parametrize("reduced", [("dose",), ("batch", "condition"), ("batch", "condition", "dose")], ids="+".join)
def test_a_reduced_design_must_be_within(batch, reduced):
    with pytest.raises(DataError, match="it must leave out terms of the full one, and add none"):
        testing.likelihood_ratio(batch, design(*reduced), B_AGAINST_A)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"alternative": "two"}, "alternative 'two': there is greaterAbs, lessAbs, greater, less"),
        ({"alternative": "lessAbs"}, "threshold 0: it must be positive"),
        ({"threshold": -1}, "threshold -1: it must be at least 0"),
    ],
)
def test_mistakes_are_one_line(batch, options, message):
    with pytest.raises(DataError, match=message):
        testing.wald(batch, B_AGAINST_A, **options)


def test_a_gene_without_counts_in_what_is_compared_has_no_change():
    """Three groups; the seventh gene is seen in the third alone."""
    group = np.repeat([0, 1, 2], [5, 5, 4])
    values = counts()
    values[group < 2, 6] = 0
    fit = fitting.fit(values, np.column_stack([np.ones(14), group == 1, group == 2]))
    levels = testing.wald(fit, np.array([0, 1, 0]), compared=group < 2)
    assert (levels.log2_fold_change[6], levels.statistic[6], levels.pvalue[6]) == (0, 0, 1)
    assert testing.wald(fit, np.array([0, 1, 0])).log2_fold_change[6] != 0, "a coefficient compares no samples"
    assert testing.wald(fit, np.array([0, -1, 1])).log2_fold_change[6] != 0, "the third group is compared"


def test_an_outlier_with_three_larger_counts_is_spared_between_two_groups(batch):
    flagged = np.isnan(testing.wald(batch, B_AGAINST_A).pvalue)
    n_larger = batch.genes.n_larger_wald.clone()
    for n, expected in ((3, np.arange(len(flagged)) == 0), (2, flagged)):  # the first gene is without counts
        batch.genes.n_larger_wald[:] = n
        pvalue = testing.wald(batch, B_AGAINST_A, two_groups=True).pvalue
        batch.genes.n_larger_wald[:] = n_larger
        np.testing.assert_array_equal(np.isnan(pvalue), expected)


def test_benjamini_and_hochberg_are_scipys():
    p = np.random.default_rng(2).beta(0.5, 1, size=300)
    p[:5] = p[7]
    np.testing.assert_allclose(testing.benjamini_hochberg(p), false_discovery_control(p))
    with_missing = np.concatenate([[np.nan], p, [np.nan]])
    found = testing.benjamini_hochberg(with_missing)
    np.testing.assert_allclose(found[1:-1], false_discovery_control(p))
    assert np.isnan(found[[0, -1]]).all()
    assert np.isnan(testing.benjamini_hochberg(np.full(3, np.nan))).all()


def test_called_genes_are_counted_as_they_are_adjusted():
    rng = np.random.default_rng(3)
    p, mean = rng.beta(0.3, 1, size=400), rng.exponential(100, size=400)
    p[::17] = np.nan
    cutoffs = np.quantile(mean, [0, 0.2, 0.6])
    expected = [(testing.benjamini_hochberg(np.where(mean >= cutoff, p, np.nan)) < 0.1).sum() for cutoff in cutoffs]
    assert testing._called_above(p, mean, cutoffs, 0.1).tolist() == expected


def test_filtering_removes_genes_of_low_means_that_cost_calls():
    """Half of the genes have low means and no effect; with few calls nothing is removed."""
    rng = np.random.default_rng(4)
    mean = np.concatenate([np.linspace(0.1, 1, 1000), np.linspace(50, 5000, 1000)])
    p = np.concatenate([rng.uniform(size=1000), rng.beta(0.2, 1, size=1000)])
    padj = testing.filtered_fdr(p, mean, 0.05)
    assert np.isnan(padj[:1000]).mean() > 0.8
    assert (padj < 0.05).sum() > (testing.benjamini_hochberg(p) < 0.05).sum()
    few = testing.filtered_fdr(np.concatenate([[1e-9] * 5, p[5:1000]]), mean[:1000], 0.05)
    assert not np.isnan(few).any()


def test_quantiles_are_rs_and_exact_on_ties():
    values = np.array([40, 3, 0.7, 3, 0.1, 12, 3])
    ours = testing._quantiles(values, np.array([0, 0.1, 0.4, 0.62, 0.95, 1]))
    np.testing.assert_allclose(ours, single("quantile"), rtol=1e-15)
    tied = np.full(11, 0.1 + 0.2)
    assert (testing._quantiles(tied, np.linspace(0, 1, 50)) == tied[0]).all()


def test_lowess_is_rs():
    u = np.arange(1, 51)
    v = 40 + 30 * np.sin(u / 9) - u / 3
    v[[6, 30]] += 25
    np.testing.assert_allclose(testing.lowess(u, v), single("lowess"), rtol=1e-12)


def test_lowess_keeps_a_line_and_a_constant():
    x = np.linspace(0.1, 0.95, 50)
    np.testing.assert_allclose(testing.lowess(x, 3 * x + 1), 3 * x + 1)
    np.testing.assert_allclose(testing.lowess(x, np.full(50, 7.0)), 7)


@given(
    p=st.lists(st.sampled_from([np.nan, 0.0, 1e-300, 0.001, 0.02, 0.05, 0.5, 0.99, 1.0]), min_size=1, max_size=30),
    order=st.randoms(),
)
def test_adjusted_p_values_keep_the_order_and_are_never_smaller(p, order):
    p = np.array(p)
    padj, known = testing.benjamini_hochberg(p), ~np.isnan(p)
    assert (np.isnan(padj) == ~known).all()
    assert ((padj >= p) & (padj <= 1))[known].all()
    assert (np.diff(padj[known][np.argsort(p[known])]) >= 0).all()
    np.testing.assert_allclose(padj[known], false_discovery_control(p[known]) if known.any() else [])
    mixed = order.sample(range(len(p)), len(p))
    np.testing.assert_array_equal(testing.benjamini_hochberg(p[mixed]), padj[mixed])
