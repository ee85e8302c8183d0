import numpy as np
import pytest
import torch
from deseq_units import tensor
from scipy.special import digamma, gammaln

from epigen_utils.deseq import elementwise

RANGES = {"tiny": (1e-8, 1e-2), "small": (0.1, 5), "shifted": (5.5, 60), "series": (11, 4e3), "huge": (1e6, 1e11)}
DEVICES = ["cpu", pytest.param("cuda", marks=pytest.mark.requires_gpu)]


def values(low, high, shape=(7, 50)):
    return np.exp(np.random.default_rng(3).uniform(np.log(low), np.log(high), size=shape))


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("name", RANGES)
def test_gamma_functions_are_those_of_scipy(name, device):
    x = values(*RANGES[name])
    table = tensor(x).to(device)
    for ours, theirs in ((elementwise.log_gamma, gammaln), (elementwise.digamma, digamma)):
        np.testing.assert_allclose(ours(table).cpu(), theirs(x), rtol=3e-14, atol=3e-14)
    np.testing.assert_array_equal(table.cpu(), x)


def test_a_series_and_the_library_agree_where_one_takes_over():
    for lowest in (4.999, 5.001, 8.5, 9.999, 10.001):
        x = np.array([[lowest, 20, 3e3]])
        np.testing.assert_allclose(elementwise.log_gamma(tensor(x)), gammaln(x), rtol=3e-15)
        np.testing.assert_allclose(elementwise.digamma(tensor(x)), digamma(x), rtol=3e-15)


@pytest.mark.parametrize("device", DEVICES)
def test_logarithms_and_exponentials(device):
    x = values(1e-12, 1e12)
    table = tensor(x).to(device)
    np.testing.assert_allclose(elementwise.log(table).cpu(), np.log(x), rtol=1e-15)
    np.testing.assert_allclose(elementwise.log1p(table).cpu(), np.log1p(x), rtol=1e-15)
    np.testing.assert_allclose(elementwise.exp(elementwise.log(table)).cpu(), x, rtol=1e-13)
    assert elementwise.log(table[:, :0]).shape == (7, 0)


@pytest.mark.parametrize("device", DEVICES)
def test_samples_are_sorted_within_genes(device):
    x = np.random.default_rng(4).poisson(5, size=(9, 30)).astype(float)
    np.testing.assert_array_equal(elementwise.sort_samples(tensor(x).to(device)).cpu(), np.sort(x, axis=0))
    assert torch.equal(elementwise.sort_samples(tensor(x)[:, ::2]), tensor(np.sort(x, axis=0)[:, ::2]))
