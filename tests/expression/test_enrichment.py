import numpy as np
import pandas as pd
import pytest
from scipy.stats import false_discovery_control

from epigen_utils.expression import enrichment


@pytest.fixture
def ranked():
    rng = np.random.default_rng(0)
    return pd.Series(rng.normal(size=500), [f"G{i}" for i in range(500)])


def test_enrichment_finds_the_planted_sets_and_their_direction(ranked):
    order = list(ranked.sort_values(ascending=False).index)
    sets = {"up": order[:30], "down": order[-30:], "spread": order[::17], "tiny": order[:3], "absent": ["X1", "X2"]}
    found = enrichment.gene_set_enrichment(ranked, sets, n_permutations=200).set_index("set")
    assert set(found.index) == {"up", "down", "spread"}
    assert found.loc["up", "NES"] > 2
    assert found.loc["down", "NES"] < -2
    assert (found.loc[["up", "down"], "FDR"] < 0.01).all()
    assert found.loc["spread", "FDR"] > 0.1
    assert found.loc["up", "genes"] == 30
    assert set(found.loc["up", "leading"].split(";")) <= set(order[:30])


def test_enrichment_is_the_same_again_and_empty_without_sets(ranked):
    sets = {"some": list(ranked.index[:40]), "others": list(ranked.index[40:90])}
    one, two = (
        enrichment.gene_set_enrichment(ranked.sample(frac=1, random_state=i), sets, n_permutations=50) for i in (1, 2)
    )
    pd.testing.assert_frame_equal(one, two)
    assert enrichment.gene_set_enrichment(ranked, {"absent": ["X"]}).empty


def test_strong_sets_have_small_p_values_but_none_below_the_least(ranked):
    """Ten sets of 50 genes; of the strongest a thousand permutations alone would say zero."""
    order = list(ranked.sort_values(ascending=False).index)
    sets = {f"set {i}": order[50 * i : 50 * (i + 1)] for i in range(10)}
    found = enrichment.gene_set_enrichment(ranked, sets).set_index("set")
    assert found["p"].min() == enrichment.LEAST_P
    np.testing.assert_allclose(found["FDR"], false_discovery_control(found["p"]))
