import dataclasses

import numpy as np
import pytest
import torch
from deseq_units import counts, design, single, table, worst

from epigen_utils.deseq import fitting, parts
from epigen_utils.deseq.fitting import Estimates
from epigen_utils.errors import DataError

LN2 = np.log(2)
#: Estimates, and R's names of them.
DISPERSIONS = {"base_mean": "baseMean", "genewise": "dispGeneEst", "trend": "dispFit", "map": "dispMAP"}


def settled(name):
    """Mask of the genes with counts on which R's iteration settles."""
    return (table(name)["betaIter"] < 100).to_numpy()


@pytest.fixture(scope="module")
def batch():
    return fitting.fit(counts(), design("batch", "condition"))


@pytest.mark.parametrize("name", [*DISPERSIONS, "dispersion"])
def test_dispersions_are_rs(batch, name):
    """Worst seen: 2e-6, of a gene that the general optimiser fits."""
    ours, theirs = batch.of_all(getattr(batch.genes, name)), table("fit_batch")[DISPERSIONS.get(name, name)].to_numpy()
    seen = batch.present
    assert worst(ours[seen], theirs[seen], absolute=1e-7) < 1e-5


def test_the_trend_its_scatter_and_the_prior_are_rs(batch):
    assert batch.trend.kind == "parametric"
    assert worst(batch.trend.coefficients, single("trend.batch")) < 1e-6
    assert worst(batch.scatter, single("scatter.batch")) < 1e-6
    assert worst(batch.prior_variance, single("prior_variance.batch")) < 1e-6


def test_dispersion_outliers_are_rs(batch):
    theirs = table("fit_batch")["dispOutlier"].eq(True)
    assert theirs.sum() == 2
    np.testing.assert_array_equal(batch.of_all(batch.genes.outlier, missing=0) > 0, theirs)


def test_coefficients_are_rs(batch):
    """Worst seen: all within 1e-7."""
    mask = settled("fit_batch")
    for row, name in zip(batch.genes.beta, ["Intercept", "batch_y_vs_x", "condition_b_vs_a"], strict=True):
        assert worst(batch.of_all(row)[mask] / LN2, table("fit_batch")[name][mask], absolute=1e-7) < 1e-5


def test_a_numeric_covariate_is_rs():
    fit = fitting.fit(counts(), design("dose"))
    mask = settled("fit_dose")
    assert mask.sum() > 140
    theirs = table("fit_dose")[mask]
    assert worst(fit.of_all(fit.genes.genewise)[mask], theirs["dispGeneEst"], absolute=1e-7) < 1e-5
    assert worst(fit.of_all(fit.genes.dispersion)[mask], theirs["dispersion"], absolute=1e-7) < 1e-5
    assert worst(fit.of_all(fit.genes.beta[1])[mask] / LN2, theirs["dose"], absolute=1e-7) < 1e-5


@pytest.fixture(scope="module")
def replaced():
    return fitting.fit(counts(), design("condition"))


def test_outliers_are_replaced_where_r_does(replaced):
    theirs = table("fit_replaced")
    assert theirs["replace"].eq(True).sum() >= 2
    flags = replaced.of_all(replaced.genes.replaced, missing=0) > 0
    np.testing.assert_array_equal(flags, theirs["replace"].eq(True))
    assert worst(replaced.of_all(replaced.genes.base_mean, missing=0), theirs["baseMean"]) < 1e-7
    left = theirs["baseMean"] > 0
    ours = replaced.of_all(replaced.genes.dispersion)
    assert worst(ours[left], theirs["dispersion"][left], absolute=1e-7) < 1e-5


def test_a_gene_of_which_nothing_is_left_has_no_coefficients(replaced):
    """The second gene has counts in one sample, which is an outlier."""
    assert replaced.of_all(replaced.genes.base_mean)[1] == 0
    assert np.isnan(replaced.of_all(replaced.genes.beta[1])[1])


def test_no_outlier_is_replaced_where_cells_are_too_small_or_none_may_be():
    for least in (8, None):
        fit = fitting.fit(counts(), design("condition"), min_replicates=least)
        assert not fit.genes.replaced.any()
        np.testing.assert_array_equal(fit.counts, counts()[:, fit.present])


@pytest.mark.parametrize("terms", [("condition",), ("batch", "dose")], ids="+".join)
def test_the_size_of_a_part_changes_nothing(monkeypatch, terms):
    """But for rounding, which shows in a gene of which the posterior is flat."""

    def of(size):
        monkeypatch.setitem(parts.SIZE, "cpu", size)
        return fitting.fit(counts(), design(*terms))

    small, large = of(2**10), of(2**17)
    for name in ("genewise", "dispersion", "beta", "cooks_wald"):
        np.testing.assert_allclose(getattr(small.genes, name), getattr(large.genes, name), rtol=1e-4, atol=1e-9)


def test_the_order_of_genes_changes_nothing(batch):
    order = np.random.default_rng(1).permutation(150)
    turned = fitting.fit(counts()[:, order], design("batch", "condition"))
    for name in ("genewise", "dispersion", "cooks_wald"):
        ours = turned.of_all(getattr(turned.genes, name))
        # where the general optimiser stops depends on rounding
        np.testing.assert_allclose(ours, batch.of_all(getattr(batch.genes, name))[order], rtol=1e-4, atol=1e-9)


def test_the_order_of_samples_changes_nothing(batch):
    turned = fitting.fit(counts()[::-1], design("batch", "condition")[::-1])
    np.testing.assert_allclose(turned.genes.dispersion, batch.genes.dispersion, rtol=1e-5, atol=1e-9)


def test_the_scale_of_a_covariate_changes_its_coefficient_alone():
    """But for genes that fit any slope, such as one seen in a single sample: there the weak ridge decides."""
    matrix = design("condition", "dose")
    first, second = (fitting.fit(counts()[:, 5:], matrix * [1, 1, scale]) for scale in (1, 1e4))
    np.testing.assert_allclose(second.genes.dispersion, first.genes.dispersion, rtol=1e-4)
    np.testing.assert_allclose(second.genes.beta[2] * 1e4, first.genes.beta[2], rtol=1e-3, atol=1e-5)
    np.testing.assert_allclose(second.genes.beta[:2], first.genes.beta[:2], rtol=1e-3, atol=1e-5)


def test_factors_of_every_count_that_are_the_samples_change_nothing(batch):
    factors = batch.factors.numpy()[:, 0]
    for given in (factors, np.repeat(factors[:, None], 150, axis=1)):
        again = fitting.fit(counts(), design("batch", "condition"), factors=given)
        np.testing.assert_allclose(again.genes.dispersion, batch.genes.dispersion, rtol=1e-6, atol=1e-9)
        np.testing.assert_allclose(again.genes.beta, batch.genes.beta, rtol=1e-6, atol=1e-9)


def test_without_a_trend_the_genewise_dispersions_are_used():
    fit = fitting.fit(counts(), design("condition"), trend_kind="none", min_replicates=None)
    assert fit.trend is None
    assert torch.equal(fit.genes.dispersion, fit.genes.genewise)
    assert fit.genes.map.isnan().all()


def test_a_trend_alone_is_that_of_the_whole_fit(batch):
    alone = fitting.fit_trend(counts(), design("batch", "condition"))
    assert alone.trend.coefficients == batch.trend.coefficients
    assert alone.genes.beta.isnan().all()


def test_columns_are_of_all_genes_in_their_order(batch):
    assert batch.n_genes == 150
    assert sorted(batch.present.tolist()) == list(range(1, 150)), "the first has no counts"
    largest = counts()[:, batch.present].max(axis=0)
    assert (np.diff(largest) >= 0).all()
    mean = batch.of_all(batch.genes.base_mean, missing=-1)
    assert mean[0] == -1
    np.testing.assert_allclose(mean[1:], (counts() / table("samples")["ratio"].to_numpy()[:, None]).mean(axis=0)[1:])
    assert sorted(torch.cat(batch.tested_parts()).tolist()) == list(range(149))


def test_estimates_begin_empty():
    empty = Estimates.empty(4, 3, torch.device("cpu"))
    assert empty.beta.shape == (3, 4)
    empty.put(torch.tensor([1, 2]), beta=torch.ones(3, 2, dtype=torch.float64), outlier=torch.tensor([True, False]))
    assert empty.beta[0].isnan().tolist() == [True, False, False, True]
    assert empty.outlier.tolist() == [False, True, False, False]


@pytest.mark.parametrize(
    ("values", "terms", "message"),
    [
        (np.zeros((14, 5)), ("condition",), "every count is zero"),
        (np.full((14, 5), 7), ("condition",), "every count is the same"),
        (np.zeros((14, 0)), ("condition",), "every count is zero"),
    ],
)
def test_counts_that_say_nothing_are_refused(values, terms, message):
    with pytest.raises(DataError, match=message):
        fitting.fit(values, design(*terms))


def test_no_residual_degrees_of_freedom_are_refused():
    few = [0, 1, 7]
    with pytest.raises(DataError, match="3 coefficients for 3 samples leave nothing"):
        fitting.fit(counts()[few], design("batch", "condition")[few])


@pytest.mark.requires_gpu
@pytest.mark.parametrize("few", [0, parts.FEW])
def test_a_gpu_gives_the_same(batch, monkeypatch, few):
    monkeypatch.setattr(parts, "FEW", few)
    there = fitting.fit(counts(), design("batch", "condition"), device="cuda")
    for field in dataclasses.fields(Estimates):
        ours, theirs = (getattr(fit.genes, field.name).cpu() for fit in (there, batch))
        np.testing.assert_allclose(ours, theirs, rtol=1e-5, atol=1e-7, err_msg=field.name)
