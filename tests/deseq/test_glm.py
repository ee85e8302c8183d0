import math

import numpy as np
import pytest
import statsmodels.api as sm
import torch
from deseq_units import by_sample, counts, design, table, tensor, worst
from scipy.stats import nbinom
from statsmodels.genmod.families import NegativeBinomial

from epigen_utils.deseq import glm
from epigen_utils.deseq.design import Design

BATCH = table("fit_batch")
#: Genes on which R's iteration settles, and their positions.
SETTLED = np.flatnonzero(BATCH["betaIter"] < 100)
FACTORS = table("samples")["ratio"].to_numpy()[:, None]
COEFFICIENTS = ["Intercept", "batch_y_vs_x", "condition_b_vs_a"]


def data(genes):
    """Counts, factors, R's dispersions and the design of some genes."""
    model = Design.of(design("batch", "condition"))
    return tensor(counts()[:, genes]), tensor(FACTORS), tensor(BATCH["dispersion"].iloc[genes]), model


@pytest.fixture(scope="module")
def settled():
    return glm.regress(*data(SETTLED))


def test_coefficients_are_rs(settled):
    """With R's dispersions of eight digits. Worst seen: 4e-8."""
    theirs = BATCH[COEFFICIENTS].iloc[SETTLED].T
    assert settled.settled.all()
    assert worst(settled.beta / math.log(2), theirs, absolute=1e-8) < 1e-6


def test_means_are_the_coefficients(settled):
    y, factors, _, model = data(SETTLED)
    np.testing.assert_allclose(settled.mu, factors * (model.matrix @ settled.beta).exp(), rtol=1e-10)


def test_errors_are_rs(settled):
    _, _, alpha, model = data(SETTLED)
    ours = glm.standard_errors(settled.mu, alpha, model, torch.eye(3, dtype=torch.float64)) / math.log(2)
    assert worst(ours, BATCH[[f"SE_{name}" for name in COEFFICIENTS]].iloc[SETTLED].T) < 1e-6


def test_the_error_of_a_difference_is_that_of_the_turned_design():
    y, factors, alpha, model = data(SETTLED[3:])
    contrast = tensor([[0, -1, 1]])
    turned = Design.of(model.matrix.numpy() @ np.linalg.inv([[1, 0, 0], [0, 1, 0], [0, -1, 1]]))
    fit, again = glm.regress(y, factors, alpha, model), glm.regress(y, factors, alpha, turned)
    np.testing.assert_allclose(contrast[0] @ fit.beta, again.beta[2], rtol=1e-4, atol=1e-6)
    np.testing.assert_allclose(
        glm.standard_errors(fit.mu, alpha, model, contrast)[0],
        glm.standard_errors(again.mu, alpha, turned, tensor([[0, 0, 1]]))[0],
        rtol=1e-4,
    )


def test_the_fit_is_that_of_statsmodels():
    genes = SETTLED[5:60:11]
    y, factors, alpha, model = data(genes)
    fit = glm.regress(y, factors, alpha, model)
    for place in range(len(genes)):
        family = NegativeBinomial(alpha=float(alpha[place]))
        other = sm.GLM(y[:, place].numpy(), model.matrix.numpy(), family=family, offset=np.log(FACTORS[:, 0]))
        np.testing.assert_allclose(fit.beta[:, place], other.fit(tol=1e-12).params, rtol=1e-4, atol=1e-4)


def test_the_likelihood_is_scipys_and_its_double_rs_deviance(settled):
    y, _, alpha, _ = data(SETTLED)
    ours = glm.log_likelihood(y, settled.mu, alpha)
    r = 1 / alpha.numpy()
    np.testing.assert_allclose(ours, nbinom.logpmf(y, r, r / (r + settled.mu.numpy())).sum(axis=0), rtol=1e-9)
    assert worst(-2 * ours, BATCH["deviance"].iloc[SETTLED]) < 1e-6


def test_leverages_are_rs():
    """But for the fifth gene, whose leverages R takes where its iteration was given up."""
    y, factors, alpha, model = data(np.arange(1, 21))
    ours = glm.leverages(tensor(by_sample("samples_batch", "mu")), alpha, model)
    settled = np.delete(np.arange(20), 3)
    assert worst(ours[:, settled], by_sample("samples_batch", "hat").iloc[:, settled]) < 1e-7
    np.testing.assert_allclose(ours.sum(dim=0), 3, rtol=1e-3)


def test_an_intercept_alone_is_the_mean_of_normalised_counts():
    y, factors, alpha, _ = data(SETTLED)
    fit = glm.regress(y, factors, alpha, Design.of(design()))
    np.testing.assert_allclose(fit.beta[0].exp(), (y / factors).mean(dim=0))
    np.testing.assert_allclose(fit.mu, factors * (y / factors).mean(dim=0))


def test_where_the_iteration_fails_the_optimiser_ends_near_rs():
    """R's optimiser takes slopes from finite differences, and stops early: numbers agree to a hundredth."""
    unsettled = np.flatnonzero(BATCH["betaIter"] >= 100)
    assert len(unsettled), "the cohort has such a gene, with its outlier"
    fit = glm.regress(*data(unsettled))
    assert not fit.settled.any()
    assert worst(fit.beta / math.log(2), BATCH[COEFFICIENTS].iloc[unsettled].T) < 1e-2


@pytest.mark.parametrize("scale", [0.5, 1e4])
def test_the_scale_of_a_covariate_changes_its_coefficient_alone(scale):
    y, factors, alpha, _ = data(SETTLED[3:])
    first = glm.regress(y, factors, alpha, Design.of(design("condition", "dose")), tensor([0, 0, 0]))
    scaled = Design.of(design("condition", "dose") * [1, 1, scale])
    second = glm.regress(y, factors, alpha, scaled, tensor([0, 0, 0]))
    both = first.settled & second.settled & (second.beta.abs() < 25).all(dim=0)
    assert both.sum() > 130
    np.testing.assert_allclose(second.beta[:2, both], first.beta[:2, both], rtol=1e-6, atol=1e-8)
    np.testing.assert_allclose(scale * second.beta[2, both], first.beta[2, both], rtol=1e-6, atol=1e-8)
    np.testing.assert_allclose(second.mu[:, both], first.mu[:, both], rtol=1e-6)


def test_a_penalty_shrinks_the_coefficient_that_it_is_of():
    y, factors, alpha, model = data(SETTLED[3:])
    free = glm.regress(y, factors, alpha, model)
    held = glm.regress(y, factors, alpha, model, tensor([1e-6, 1e-6, 1e3]))
    assert held.beta[2].abs().max() < 0.05
    assert (held.beta[1] - free.beta[1]).abs().median() < 0.1
    vectors = tensor([[0, 0, 1]])
    error = glm.standard_errors(held.mu, alpha, model, vectors, tensor([1e-6, 1e-6, 1e3]))
    assert (error < glm.standard_errors(free.mu, alpha, model, vectors)).all()


def test_factors_of_every_count_that_are_the_samples_give_the_same(settled):
    y, factors, alpha, model = data(SETTLED)
    again = glm.regress(y, factors.expand(14, len(SETTLED)).contiguous(), alpha, model)
    np.testing.assert_allclose(again.beta, settled.beta, rtol=1e-12)


def test_genes_do_not_depend_on_each_other(settled):
    y, factors, alpha, model = data(SETTLED[7:9])
    np.testing.assert_allclose(glm.regress(y, factors, alpha, model).beta, settled.beta[:, 7:9], rtol=1e-10)
