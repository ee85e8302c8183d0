import numpy as np
import pytest
import torch
from deseq_units import by_sample, counts, design, table, tensor, worst
from scipy.stats import trim_mean

from epigen_utils.deseq import outliers
from epigen_utils.deseq.design import Design

FACTORS = table("samples")["ratio"].to_numpy()[:, None]
BATCH = Design.of(design("batch", "condition"))
SOME = slice(1, 21)


@pytest.fixture
def cooks():
    y = tensor(counts()[:, SOME])
    return outliers.cooks_distances(
        y,
        outliers.robust_dispersions(y / tensor(FACTORS), BATCH),
        *(tensor(by_sample("samples_batch", name)) for name in ("mu", "hat")),
        BATCH,
    )


def test_cooks_distances_are_rs(cooks):
    """With R's means and leverages of eight digits. Worst seen: 6e-7, where a count is near its mean."""
    assert worst(cooks, by_sample("samples_batch", "cooks"), absolute=1e-9) < 1e-5


def test_the_largest_distance_is_rs(cooks):
    assert worst(outliers.largest_distance(cooks, BATCH), table("fit_batch")["maxCooks"].iloc[SOME]) < 1e-6


def test_distances_count_where_a_cell_has_three_samples():
    cooks = tensor([[9, 1], [2, 2], [3, 3], [4, 1], [5, 7]])
    pairs = Design.of([[1, 0], [1, 0], [1, 1], [1, 1], [1, 1]])
    assert outliers.largest_distance(cooks, pairs).tolist() == [5, 7]
    single = Design.of(np.column_stack([np.ones(5), np.arange(5)]))
    assert outliers.largest_distance(cooks, single).isnan().all()


@pytest.mark.parametrize(("terms", "quantile"), [((), 9.0738), (("condition",), 6.9266), (("batch", "dose"), 6.2167)])
def test_the_cutoff_is_the_tabulated_quantile(terms, quantile):
    """Of F with 1 and 13, 2 and 12, 3 and 11 degrees of freedom."""
    assert outliers.cutoff(Design.of(design(*terms))) == pytest.approx(quantile, abs=1e-4)


@pytest.mark.parametrize("share", [0, 0.125, 0.2, 1 / 3])
@pytest.mark.parametrize("n", [3, 8, 14])
def test_trimmed_means_are_scipys(n, share):
    values = np.random.default_rng(n).normal(size=(n, 20))
    np.testing.assert_allclose(outliers.trimmed_mean(tensor(values), share), trim_mean(values, share, axis=0))


def test_robust_dispersions_ignore_one_outlier_and_are_the_moments_of_the_rest():
    rng = np.random.default_rng(5)
    y = rng.negative_binomial(1 / 0.3, 1 / (1 + 100 * 0.3), size=(40, 400)).astype(float)
    group = Design.of(np.column_stack([np.ones(40), np.repeat([0, 1], 20)]))
    clean = outliers.robust_dispersions(tensor(y), group)
    assert float(clean.median()) == pytest.approx(0.3, rel=0.35), "the larger of two groups"
    y[7] += 1e4
    assert (outliers.robust_dispersions(tensor(y), group) / clean).median() < 1.2
    assert outliers.robust_dispersions(torch.full((6, 2), 9.0, dtype=torch.float64), Design.of(np.ones((6, 1)))).tolist() == [0.04, 0.04]  # fmt: skip


def test_replacements_are_trimmed_means_at_the_samples_depth():
    y, outlying = counts()[:, 5:8].astype(float), torch.zeros(14, 3, dtype=torch.bool)
    outlying[2, 1] = True
    found = outliers.replacements(tensor(y), tensor(FACTORS), outlying)
    expected = y.copy()
    expected[2, 1] = np.floor(trim_mean(y[:, 1] / FACTORS[:, 0], 0.2) * FACTORS[2, 0])
    np.testing.assert_array_equal(found, expected)


def test_counts_larger_than_the_suspect():
    y = tensor([[5, 1], [7, 2], [9, 3], [8, 4]])
    cooks = tensor([[9, 0], [0, 0], [0, 0], [0, 9]])
    assert outliers.larger_counts(y, cooks).tolist() == [3, 0]
