import numpy as np
import pytest
import torch
from deseq_units import counts, design, log_posterior, table, tensor

from epigen_utils.deseq import dispersions, posteriors
from epigen_utils.deseq.design import Design
from epigen_utils.deseq.posteriors import Posterior

FACTORS = table("samples")["ratio"].to_numpy()[:, None]
SEEN = np.flatnonzero(counts().any(axis=0))


def linear_means(y, model):
    normalised = tensor(y / FACTORS)
    return tensor(FACTORS) * dispersions.linear_means(normalised, model)


@pytest.mark.parametrize("small", [True, False], ids=["small counts", "all counts"])
@pytest.mark.parametrize("variance", [None, 0.7])
def test_the_posterior_is_scipys_likelihood_adjusted(small, variance):
    matrix = design("batch", "condition")
    some = SEEN[counts()[:, SEEN].max(axis=0) < 40] if small else SEEN
    y, model = counts()[:, some], Design.of(matrix)
    mu = linear_means(y, model).clamp(min=0.5)
    centres = None if variance is None else tensor(np.linspace(-4, 1, len(some)))
    posterior = Posterior(tensor(y), mu, model, centres, variance).prepare()
    assert (posterior.large is None) == small
    low, high = (tensor(np.full(len(some), at)) for at in (-6.0, 0.5))
    ours = posterior.evaluate(high)[0] - posterior.evaluate(low)[0]
    for gene in range(0, len(some), 5):
        centre = None if centres is None else float(centres[gene])
        args = y[:, gene], mu[:, gene].numpy(), matrix
        theirs = log_posterior(*args, 0.5, centre, variance) - log_posterior(*args, -6.0, centre, variance)
        assert float(ours[gene]) == pytest.approx(theirs, rel=1e-9, abs=1e-8)


@pytest.mark.parametrize("terms", [(), ("condition",), ("batch", "dose")], ids="+".join)
@pytest.mark.parametrize("variance", [None, 0.7])
def test_the_slope_is_that_of_finite_differences(terms, variance):
    y, model = counts()[:, SEEN], Design.of(design(*terms))
    mu = linear_means(y, model).clamp(min=0.5)
    posterior = Posterior(tensor(y), mu, model, tensor(np.full(len(SEEN), -2.0)), variance).prepare()
    for at in (-7.0, -3.0, -0.5, 1.5):
        log_alpha = tensor(np.full(len(SEEN), at))
        slope = posterior.slope(posterior.evaluate(log_alpha)[1])
        step = 1e-4
        ends = [posterior.evaluate(log_alpha + sign * step)[0] for sign in (1, -1)]
        np.testing.assert_allclose(slope, (ends[0] - ends[1]) / (2 * step), rtol=1e-4, atol=1e-4)


def test_some_genes_of_a_posterior_are_those_genes():
    y, model = counts()[:, SEEN], Design.of(design("condition"))
    posterior = Posterior(tensor(y), linear_means(y, model).clamp(min=0.5), model).prepare()
    log_alpha = tensor(np.linspace(-5, 1, len(SEEN)))
    some = torch.tensor([3, 40, 7])
    value, point = posterior.evaluate(log_alpha)
    again = posterior.of(some)
    np.testing.assert_allclose(again.evaluate(log_alpha[some])[0], value[some], rtol=1e-12)
    np.testing.assert_allclose(again.slope(point.of(some)), posterior.slope(point)[some], rtol=1e-9, atol=1e-9)


def test_count_tails_by_hand():
    tails = posteriors.count_tails(tensor([[0, 2], [1, 2], [3, 0]]), 3)
    assert tails.tolist() == [[2, 2], [1, 2], [1, 0]]
