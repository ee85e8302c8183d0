import numpy as np
import pytest
import torch
from deseq_units import tensor

from epigen_utils.deseq import dispersions, expansions
from epigen_utils.deseq.design import Design
from epigen_utils.deseq.expansions import RADIUS, Expansion
from epigen_utils.deseq.posteriors import Posterior

N_GENES = 60


def simulated(kind, n_terms, n_samples=40):
    """Posterior of genes with small, mixed or large counts, or with few large ones, and their log dispersions."""
    rng = np.random.default_rng(n_terms)
    matrix = np.column_stack([np.ones(n_samples), np.arange(n_samples) % 2, rng.normal(size=n_samples)])[:, :n_terms]
    low, high = {"small": (-1, 2), "mixed": (0, 8), "large": (6, 12)}[kind]
    mean, log_alpha = np.exp(rng.uniform(low, high, N_GENES)), rng.uniform(np.log(1e-4), 1, N_GENES)
    alpha = np.exp(log_alpha)
    mu = mean * np.exp(rng.normal(0, 0.3, (n_samples, 1)))
    y = rng.poisson(rng.gamma(1 / alpha, alpha * mu))
    return Posterior(tensor(y), tensor(mu).clamp(min=0.5), Design.of(matrix)).prepare(), tensor(log_alpha)


def expanded(posterior, centre):
    expansion = Expansion.empty(centre)
    expansion.put(torch.arange(len(centre)), posterior, centre)
    return expansion


@pytest.mark.parametrize("n_terms", [1, 2, 3])
@pytest.mark.parametrize("kind", ["small", "mixed", "large"])
def test_an_expansion_is_the_posterior_to_rounding(kind, n_terms):
    """Worst seen: values 3e-10 of small counts and 3e-8 of large ones, which is their rounding; slopes 1e-8."""
    posterior, centre = simulated(kind, n_terms)
    assert (posterior.large is None) == (kind == "small")
    expansion = expanded(posterior, centre)
    for share in (-1, -0.5, 0, 0.3, 1):
        at = centre + share * RADIUS
        value, point = posterior.evaluate(at)
        np.testing.assert_allclose(expansion.evaluate(at)[0], value, rtol=1e-13, atol=5e-9)
        np.testing.assert_allclose(expansion.slope(at), posterior.slope(point), rtol=1e-9, atol=1e-7)


def test_a_prior_is_added():
    posterior, centre = simulated("mixed", 2)
    prior = {"centres": centre - 1, "variance": 0.7}
    both = Posterior(posterior.counts, posterior.mu, posterior.design, **prior).prepare()
    expansion = expanded(posterior, centre).with_prior(**prior)
    value, point = both.evaluate(centre + 0.2)
    np.testing.assert_allclose(expansion.evaluate(centre + 0.2)[0], value, rtol=1e-10, atol=1e-8)
    np.testing.assert_allclose(expansion.slope(centre + 0.2), both.slope(point), rtol=1e-8, atol=1e-7)


@pytest.mark.parametrize("variance", [None, 0.7])
def test_the_curvature_is_that_of_finite_differences_and_never_below_zero(variance):
    posterior, centre = simulated("mixed", 2)
    expansion = expanded(posterior, centre).with_prior(None if variance is None else centre, variance)
    at, step = centre + 0.1, 1e-4
    ends = [expansion.slope(at + sign * step) for sign in (1, -1)]
    expected = ((ends[1] - ends[0]) / (2 * step)).clamp(min=0)
    np.testing.assert_allclose(expansion.curvature(at), expected, rtol=1e-5, atol=1e-5)
    assert expansion.curvature(at).max() > 1


def test_the_reach_ends_at_the_radius_and_is_negative_where_nothing_is_expanded():
    posterior, centre = simulated("small", 1)
    expansion, some = Expansion.empty(centre), torch.tensor([4, 2, 9])
    assert (expansion.reach(centre) < 0).all()
    expansion.put(some, posterior.of(some), centre[some])
    assert torch.equal((expansion.reach(centre) >= 0).nonzero().squeeze(1), some.sort().values)
    np.testing.assert_allclose(expansion.reach(centre + 0.25)[some], RADIUS - 0.25)
    assert (expansion.reach(centre - 1.01 * RADIUS) < 0).all()
    taken = expansion.of(some)
    np.testing.assert_array_equal(taken.evaluate(centre[some])[0], expansion.evaluate(centre)[0][some])
    assert torch.equal(taken.rounding, posterior.rounding[some])


def test_searches_with_and_without_a_prior_share_an_expansion_and_end_where_exact_ones_do(monkeypatch):
    posterior, start = simulated("mixed", 2, n_samples=200)
    n_expanded = []

    def put(self, genes, *args, put=Expansion.put):
        n_expanded.append(len(genes))
        put(self, genes, *args)

    monkeypatch.setattr(Expansion, "put", put)

    def searches():
        genes = dispersions.Genes(posterior.counts, posterior.mu, posterior.design)
        own = genes.search(start)
        return own, genes.search(own.log_alpha, start, 0.5)

    near = searches()
    assert N_GENES - 10 <= sum(n_expanded) < 1.5 * N_GENES, "expanded once, but for the few that move far"
    monkeypatch.setattr(expansions, "LEAST_SAMPLES", 1000)
    for ours, exact in zip(near, searches(), strict=True):
        np.testing.assert_allclose(ours.log_alpha, exact.log_alpha, atol=1e-6)
        assert torch.equal(ours.steps, exact.steps)
    assert sum(n_expanded) < 1.5 * N_GENES
