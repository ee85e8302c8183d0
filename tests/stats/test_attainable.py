import itertools

import numpy as np
import pytest
from sklearn.metrics import f1_score, roc_auc_score

from epigen_utils.stats import attainable


@pytest.mark.parametrize(("positive", "negative"), [(1, 3), (2, 3), (3, 3)])
def test_attainable_values_by_enumeration(positive, negative):
    """Every ranking of the samples, and every prediction, scored by scikit-learn."""
    n = positive + negative
    truth = np.array([1] * positive + [0] * negative)
    aucs = {round(roc_auc_score(truth, order), 9) for order in itertools.permutations(range(n))}
    assert sorted(aucs) == pytest.approx(attainable.attainable_auc(positive, negative))
    tied = {round(roc_auc_score(truth, order), 9) for order in itertools.product(range(n), repeat=n)} if n < 6 else None
    if tied:
        assert sorted(tied) == pytest.approx(attainable.attainable_auc(positive, negative, ties=True))
    f1 = {round(f1_score(truth, guess, zero_division=0), 9) for guess in itertools.product((0, 1), repeat=n)}
    assert sorted(f1) == pytest.approx(attainable.attainable_f1(positive, negative))


def test_an_auc_of_090_cannot_be_had_of_3_against_9():
    for ties, nearest in ((False, 24 / 27), (True, 24.5 / 27)):
        assert attainable.nearest_value(attainable.attainable_auc(3, 9, ties=ties), 0.90) == pytest.approx(nearest)
    assert abs(attainable.nearest_value(attainable.attainable_auc(12, 12), 0.90) - 0.90) < 0.005
    lattices = attainable.auc_lattices([(3, 9), (12, 12)])
    assert list(lattices["classes"].unique()) == ["3 v 9", "3 v 9, ties", "12 v 12"]
