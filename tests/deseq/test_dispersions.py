import numpy as np
import pytest
import torch
from deseq_units import counts, design, log_posterior, table, tensor, worst
from scipy.optimize import minimize_scalar

from epigen_utils.deseq import dispersions
from epigen_utils.deseq.design import Design
from epigen_utils.deseq.dispersions import Genes, Search

FACTORS = table("samples")["ratio"].to_numpy()[:, None]
#: Of a log dispersion of 14 samples.
BOUNDS = np.log(1e-8), np.log(14)
SEEN = np.flatnonzero(counts().any(axis=0))


def linear_means(y, model):
    normalised = tensor(y / FACTORS)
    return tensor(FACTORS) * dispersions.linear_means(normalised, model)


@pytest.fixture
def genes():
    """The cohort's genes with counts, their means by condition."""
    y, model = counts()[:, SEEN], Design.of(design("condition"))
    means = linear_means(y, model).clamp(min=0.5)
    return Genes(tensor(y), means, model)


@pytest.fixture
def guesses(genes):
    normalised = genes.counts / tensor(FACTORS)
    return dispersions.initial_dispersions(normalised, genes.design, float((1 / FACTORS).mean()))


def test_first_guesses_are_the_smaller_moment():
    """By the formulas of the manual page of estimateDispersionsGeneEst: rough residuals, and moments, above 1e-8."""
    y = counts()[:, SEEN]
    normalised = y / FACTORS
    group = design("condition")[:, 1]
    mu = np.maximum(np.stack([normalised[group == level].mean(axis=0) for level in group]), 1)
    rough = (((normalised - mu) ** 2 - mu) / mu**2).sum(axis=0) / 12
    mean = normalised.mean(axis=0)
    moments = (normalised.var(axis=0, ddof=1) - (1 / FACTORS).mean() * mean) / mean**2
    expected = np.minimum(np.maximum(rough, 0), moments).clip(1e-8, 14)
    initial = dispersions.initial_dispersions(tensor(normalised), Design.of(design("condition")), (1 / FACTORS).mean())
    np.testing.assert_allclose(initial, expected, rtol=1e-10)
    assert initial.min() == 1e-8


def test_the_highest_is_ten_or_the_number_of_samples():
    assert (dispersions.max_dispersion(6), dispersions.max_dispersion(40)) == (10, 40)


def test_genewise_is_rs(genes, guesses):
    """Worst seen: all within 1e-7."""
    theirs = table("trend_local")["dispGeneEst"].to_numpy()[SEEN]
    assert worst(dispersions.genewise(genes, guesses), theirs, absolute=1e-7) < 1e-5


def test_genewise_is_the_maximum_or_the_guess_where_little_is_gained(genes, guesses):
    """R keeps the guess where the search gains less than a millionth of the log posterior, without its constant."""
    ours, n_kept = dispersions.genewise(genes, guesses), 0
    first = genes.posterior(torch.arange(len(SEEN)), None, None).evaluate(guesses.log())[0].abs().numpy()
    for gene in range(1, len(SEEN), 5):
        args = genes.counts[:, gene].numpy(), genes.means[:, gene].numpy(), genes.design.matrix.numpy()
        best = minimize_scalar(lambda at, args=args: -log_posterior(*args, at), bounds=BOUNDS, method="bounded")
        gap = -best.fun - log_posterior(*args, float(ours[gene].log()))
        kept = abs(float(ours[gene] / guesses[gene]) - 1) < 1e-9
        n_kept += kept
        assert gap < (first[gene] / 1e6 if kept else 3e-6), gene
    assert n_kept >= 3


def test_map_is_between_the_genes_own_and_the_trend_and_near_the_maximum(genes, guesses):
    own = dispersions.genewise(genes, guesses)
    trend = torch.full_like(own, 0.12)
    found = dispersions.maximum_a_posteriori(genes, own, trend, 0.4)
    low, high = torch.minimum(own, trend), torch.maximum(own, trend)
    assert ((found > low * 0.99) & (found < high * 1.01)).all()
    gaps = []
    for gene in range(0, len(SEEN), 9):
        args = genes.counts[:, gene].numpy(), genes.means[:, gene].numpy(), genes.design.matrix.numpy()
        best = minimize_scalar(
            lambda at, args=args: -log_posterior(*args, at, np.log(0.12), 0.4), bounds=BOUNDS, method="bounded"
        )
        gaps.append(-best.fun - log_posterior(*args, np.log(float(found[gene])), np.log(0.12), 0.4))
    assert max(gaps) < 1e-5
    strong = dispersions.maximum_a_posteriori(genes, own, trend, 1e-4)
    np.testing.assert_allclose(strong, trend, rtol=0.1)


def test_a_search_never_ends_below_its_start(genes, guesses):
    found = genes.search(guesses.log())
    assert found.done.all()
    assert (found.value >= found.first - 1e-9).all()
    assert found.steps.max() <= dispersions.MAX_STEPS
    again, all_genes = Search(guesses.log()), torch.arange(len(SEEN))
    posterior = genes.posterior(all_genes, None, None)
    again.begin(all_genes, posterior)
    again.advance(all_genes, posterior, dispersions.MAX_STEPS)
    np.testing.assert_allclose(again.log_alpha, found.log_alpha, atol=1e-8, err_msg="in one pass or three")


def step_by_step(posterior, a):
    """R's search of one gene, every step of it: where it ends, the number of steps, and of those rejected at first."""
    value, point = posterior.evaluate(a)
    slope, step, accepted, rejected_first = posterior.slope(point), 1.0, 0, 0
    for n_steps in range(1, 101):  # noqa: B007 - returned
        end = a + step * slope
        if not -30 <= end <= 10:
            step = float((-30 - a if end < -30 else 10 - a) / slope)
        proposed, point = posterior.evaluate(a + step * slope)
        if proposed < value + 1e-4 * step * slope**2 - posterior.rounding:
            step /= 2
            rejected_first += not accepted
            continue
        gain, a, value, accepted = proposed - value, a + step * slope, proposed, accepted + 1
        if gain < 1e-6 or a < np.log(1e-9):
            break
        slope, step = posterior.slope(point), min(step * 1.1, 1)
        step /= 2 if accepted % 5 == 0 else 1
    return float(a), n_steps, rejected_first


@pytest.mark.parametrize("variance", [None, 0.5])
def test_a_search_goes_the_way_of_single_steps(variance):
    rng = np.random.default_rng(11)
    model = Design.of(np.column_stack([np.ones(120), np.arange(120) % 2]))
    mean, alpha = np.exp(rng.uniform(-1, 7, 80)), np.exp(rng.normal(-2, 1.5, 80))
    y = tensor(rng.poisson(rng.gamma(1 / alpha, alpha * mean, (120, 80))))
    y = y[:, (y > 0).any(dim=0)]
    means = dispersions.linear_means(y, model).clamp(min=0.5)
    start = dispersions.initial_dispersions(y, model, 1.0).log() + tensor(rng.normal(0, 1, y.shape[1]))
    genes = Genes(y, means, model)
    centres = None if variance is None else torch.full_like(start, -2.0)
    searches = genes.search(start, centres, variance)
    singles = [
        step_by_step(genes.posterior(place[None], centres, variance), start[place])
        for place in torch.arange(y.shape[1])
    ]
    ends, steps, rejected = (np.array(column) for column in zip(*singles, strict=True))
    np.testing.assert_allclose(searches.log_alpha.exp(), np.exp(ends), rtol=1e-6, atol=1e-9)
    curved = ends > -10  # below, rounding of a flat posterior has a part in the steps
    np.testing.assert_array_equal(searches.steps[curved], steps[curved])
    assert np.mean(rejected > 2) > 0.5, "first steps are passed over in most of these searches"


def test_the_grids_find_the_maximum_to_a_step_of_the_second(genes):
    wanted = torch.zeros(len(SEEN), dtype=torch.bool)
    wanted[[5, 60, 61]] = True
    found = genes.search_grids(wanted).log()
    step = 2 * (np.log(14) - np.log(1e-8)) / 19 / 19
    for place, gene in enumerate([5, 60, 61]):
        args = genes.counts[:, gene].numpy(), genes.means[:, gene].numpy(), genes.design.matrix.numpy()
        best = minimize_scalar(lambda at, args=args: -log_posterior(*args, at), bounds=BOUNDS, method="bounded")
        assert abs(float(found[place]) - best.x) < step
    assert not len(genes.search_grids(torch.zeros_like(wanted)))


def test_the_order_of_genes_does_not_matter(genes, guesses):
    turned = Genes(genes.counts.flip(1), genes.means.flip(1), genes.design)
    ours, theirs = dispersions.genewise(genes, guesses), dispersions.genewise(turned, guesses.flip(0)).flip(0)
    np.testing.assert_allclose(ours, theirs, rtol=1e-10)
