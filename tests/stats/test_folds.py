import contextlib

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from epigen_utils.errors import DataError
from epigen_utils.stats import folds


def test_whole_donors_are_held_out():
    donors = np.repeat(list("abcdefgh"), [5, 10, 15, 5, 10, 20, 5, 30])
    held = folds.hold_out(donors, share=0.2, seed=1)
    assert 0.2 <= held.mean() < 0.6
    assert not set(donors[held]) & set(donors[~held])
    assert (folds.hold_out(donors, share=0.2, seed=1) == held).all()
    assert folds.hold_out(np.array(list("ab")), share=0.9, seed=0).sum() == 1
    with pytest.raises(DataError, match="all 3 rows are of one group"):
        folds.hold_out(np.array(list("aaa")), share=0.2, seed=0)


def test_folds_leave_every_class_to_learn_from():
    """Groups of both classes, one of them with nearly all of one: some divisions would leave it to no training fold."""
    sizes = {"one": (1, 7), "two": (4, 1), "three": (7, 0)}
    y = np.concatenate([np.repeat(["a", "b"], n) for n in sizes.values()])
    groups = np.repeat(list(sizes), [sum(n) for n in sizes.values()])
    for seed in range(10):
        for train, _ in folds.donor_folds(y, groups, n_splits=2, seed=seed):
            assert set(y[train]) == {"a", "b"}
    with pytest.raises(DataError, match="leave a class without training samples"):
        list(folds.donor_folds(np.array(list("ab")), np.array(list("xy")), n_splits=2, seed=0))


def test_mistakes_in_classes_are_one_line():
    ids = np.arange(5)
    with pytest.raises(DataError, match="classes: 1"):
        folds.feasible_n_splits(np.array(["a"] * 5), ids, 3)
    with pytest.raises(DataError, match="classes: 3"):
        folds.feasible_n_splits(np.array(list("aabbc")), ids, 3)
    with pytest.raises(DataError, match="class 'b': in one fold at most"):
        folds.feasible_n_splits(np.array(list("aaaab")), ids, 3)
    assert folds.feasible_n_splits(np.array(list("aaabb")), ids, 5) == 2


#: A row a cell: its class and its donor.
CELLS = st.lists(st.tuples(st.sampled_from("abc"), st.integers(0, 9)), min_size=2, max_size=40)


@given(rows=CELLS, n_splits=st.integers(2, 6), seed=st.integers(0, 99))
def test_folds_cover_each_cell_once_and_keep_donors_apart(rows, n_splits, seed):
    y, donors = np.array([name for name, _ in rows]), np.array([donor for _, donor in rows])
    found = None
    with contextlib.suppress(DataError):
        found = list(folds.donor_folds(y, donors, n_splits=n_splits, seed=seed))
    if found is None:
        assert folds.fewest_donors(y, donors) < 2 or len(set(y)) > 2, "two classes of two donors each can be divided"
        return
    assert 2 <= len(found) <= min(n_splits, folds.fewest_donors(y, donors))
    assert sorted(np.concatenate([test for _, test in found])) == list(range(len(y)))
    for train, test in found:
        assert sorted([*train, *test]) == list(range(len(y)))
        assert not set(donors[train]) & set(donors[test])
        assert set(y[train]) == set(y)


@given(
    donors=st.lists(st.integers(0, 9), min_size=2, max_size=40), share=st.floats(0.01, 0.99), seed=st.integers(0, 99)
)
def test_held_out_donors_are_whole_and_no_more_than_needed(donors, share, seed):
    donors = np.array(donors)
    if len(set(donors)) < 2:
        return
    held = folds.hold_out(donors, share=share, seed=seed)
    inside, outside = set(donors[held]), set(donors[~held])
    assert inside
    assert outside
    assert not inside & outside
    assert held.sum() >= share * len(donors) or len(outside) == 1
    assert held.sum() - max((donors == donor).sum() for donor in inside) < share * len(donors)
