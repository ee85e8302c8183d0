import numpy as np
import pandas as pd
import pytest

from epigen_utils import paths
from epigen_utils.geneformer import corpus_lengths, length_grouping

MOMENTS = corpus_lengths.read_moments(paths.DATA / "genecorpus_lengths.csv")


def moments_of(lengths):
    quartiles = np.quantile(lengths, [0.25, 0.5, 0.75])
    return pd.Series(
        {
            "mean": lengths.mean(),
            "standard deviation": lengths.std(),
            "lower quartile": quartiles[0],
            "median": quartiles[1],
            "upper quartile": quartiles[2],
            "smallest": lengths.min(),
            "largest": lengths.max(),
            "full length": 2048,
            "cells": len(lengths),
        }
    )


@pytest.fixture
def lengths():
    return np.minimum(np.exp(np.random.default_rng(0).normal(5.6, 1.3, 20_000)).astype(int) + 7, 2048)


def test_bounds_are_those_of_the_lengths_themselves(lengths):
    bounds = corpus_lengths.padding_bounds(moments_of(lengths))
    assert bounds["padding"] == pytest.approx((2048 - lengths).sum() / (2048 * len(lengths)))
    assert bounds["squared padding"] == pytest.approx(np.square(1 - lengths / 2048).mean())
    assert bounds["padding of pairs"] == pytest.approx(1 - np.square(lengths / 2048).mean())
    assert bounds["linear"] == pytest.approx(1 / (1 - bounds["padding"]))
    assert bounds["quadratic"] == pytest.approx(1 / (1 - bounds["padding of pairs"]))


def test_published_bounds():
    """No way of batching comes near 29.4 times; and 62% is the mean of the squared share (62.8%), cut off."""
    bounds = corpus_lengths.padding_bounds(MOMENTS)
    assert bounds["linear"] == pytest.approx(3.68, abs=0.005)
    assert bounds["quadratic"] == pytest.approx(5.83, abs=0.005)
    assert bounds["padding"] == pytest.approx(0.728, abs=0.0005)
    assert bounds["squared padding"] == pytest.approx(0.628, abs=0.0005)


@pytest.mark.parametrize("batch_size", [8, 16, 32])
def test_the_bound_of_random_batches_lies_below_what_they_waste(lengths, batch_size):
    moments = moments_of(lengths)
    least = corpus_lengths.least_random_padding(moments, share_whole=(lengths < 2048).mean(), batch_size=batch_size)
    batches = length_grouping.make_batches(lengths, "random", batch_size=batch_size)
    padded = sum(len(batch) * lengths[batch].max() for batch in batches)
    assert 0.7 * (1 - lengths.sum() / padded) < least < 1 - lengths.sum() / padded


def test_most_of_a_random_batch_of_genecorpus_is_padding():
    least = corpus_lengths.least_random_padding(MOMENTS, share_whole=0.93, batch_size=16)
    assert least == pytest.approx(0.669, abs=0.001)


def test_every_bound_is_in_the_table():
    bounds = corpus_lengths.padding_bounds(MOMENTS)
    table = corpus_lengths.bounds_table(bounds, random_padding=0.67, batch_size=16)
    assert table["value"].tolist() == [*bounds.values(), 0.67]
    assert table["bound"].is_unique


def test_the_size_of_the_work_by_hand():
    table = corpus_lengths.training_size(MOMENTS, epochs=3, n_parameters=10_288_722, tokens_per_second=5000)
    value = table.set_index("quantity")["value"]
    tokens = 27_406_216 * 556.56
    assert value.iloc[0] == pytest.approx(tokens * 8 / 1e9) == pytest.approx(122, abs=0.5)
    assert value.iloc[1] == pytest.approx(value.iloc[0] / 4)
    assert value.iloc[2] == pytest.approx(0.1646, abs=1e-3)
    assert value.iloc[4] == pytest.approx(3 * tokens / 5000 / 86_400)
