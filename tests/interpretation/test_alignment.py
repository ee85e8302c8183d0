import numpy as np
import pytest

from epigen_utils.interpretation import alignment
from epigen_utils.stats import two_classes


def test_baam_is_the_mean_auroc_over_sentences():
    rng = np.random.default_rng(0)
    scores, places = rng.random((5, 30)), np.tile(np.arange(30) / 30, (5, 1))
    members = np.arange(30) % 4 == 0
    scores[0, 3], scores[2, 4] = np.nan, np.nan
    expected = []
    for row in scores:
        shown = np.isfinite(row)
        expected.append(two_classes.roc_auc(row[shown], members[shown]))
    found = alignment.baam(scores, places, members, n_permutations=99)
    assert found["baam"] == pytest.approx(np.mean(expected))
    assert found["low"] < found["baam"] < found["high"]
    assert found["random"] == pytest.approx(0.5, abs=0.03)
    assert np.isnan(alignment.baam(scores, places, np.arange(30) == 5, n_permutations=9)["low"])


def test_a_set_with_less_attention_is_called_too():
    """Reader's item: a BAAM surely below 0.5 had a p of 1."""
    rng = np.random.default_rng(0)
    scores, members = rng.random((6, 80)), np.arange(80) < 12
    places = np.argsort(np.argsort(rng.random((6, 80)), axis=1), axis=1) / 80
    lower = np.where(members, scores - 0.6, scores)
    found = alignment.baam(lower - lower.min(), places, members, n_permutations=199)
    assert found["high"] < 0.5
    assert found["p random"] == found["p matched"] == 0.01
    higher = alignment.baam(np.where(members, scores + 0.6, scores), places, members, n_permutations=199)
    assert higher["low"] > 0.5
    assert higher["p matched"] == 0.01
    assert alignment.baam(scores, places, members, n_permutations=199)["p random"] > 0.05


def test_baam_of_heads_finds_the_head_that_looks():
    rng = np.random.default_rng(0)
    paid, places = rng.random((2, 3, 8, 60)), np.argsort(np.argsort(rng.random((8, 60)), axis=1), axis=1) / 60
    members = np.arange(60) < 10
    paid[1, 2, :, :10] += 0.6
    table = alignment.baam_of_heads(paid, places, members, name="set")
    best = table.loc[table["baam"].idxmax()]
    assert (best["layer"], best["head"]) == (2, 3)
    assert (table["padj"] < 0.05).sum() == 1


def test_an_interval_holds_its_value_where_sentences_show_unequal_shares_of_a_set():
    """Half of the sentences show two genes of twenty, which stand high; a mean over genes and sentences alike would leave these out."""
    rng = np.random.default_rng(1)
    scores, places = rng.random((20, 120)), np.tile(np.arange(120) / 120, (20, 1))
    members = np.arange(120) < 20
    scores[:10, :20] *= 0.2
    scores[10:, :20] += 0.9
    scores[10:, 2:20] = np.nan
    found = alignment.baam(scores, places, members, n_permutations=9)
    assert found["low"] < found["baam"] < found["high"]


def test_the_interval_of_baam_draws_donors():
    rng = np.random.default_rng(2)
    places = np.tile(np.arange(80) / 80, (24, 1))
    scores = rng.random((24, 80))
    donors = np.repeat(np.arange(6), 4)
    # What a donor is like, all of its samples are.
    scores[:, :40] += rng.normal(0, 0.6, 6)[donors][:, None]
    members = np.arange(80) < 40
    alone, by_donor = (
        alignment.baam(scores, places, members, units=units, n_permutations=9) for units in (None, donors)
    )
    assert by_donor["high"] - by_donor["low"] > 1.3 * (alone["high"] - alone["low"])
    assert by_donor["baam"] == alone["baam"]
    none = alignment.baam(scores, places, members, n_permutations=9, n_bootstrap=0)
    assert np.isnan([none["low"], none["high"]]).all()
    assert none["p matched"] == alone["p matched"]
