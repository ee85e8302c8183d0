import numpy as np

from epigen_utils.downstream import leakage


def cells(n=60, length=80, seed=0):
    rng = np.random.default_rng(seed)
    return [rng.choice(400, length, replace=False) for _ in range(n)]


def test_a_clean_split_says_nothing():
    donors = np.repeat(list("abcdef"), 10)
    table, found = leakage.audit_split({"input_ids": cells()}, donors, np.isin(donors, ["e", "f"]))
    assert found == []
    assert table.empty


def test_a_donor_on_both_sides_is_named():
    donors = np.repeat(list("abcdef"), 10)
    test = np.isin(donors, ["e", "f"])
    test[3] = True
    _, found = leakage.audit_split({"input_ids": cells()}, donors, test)
    assert found == ["donor 'a' is on both sides: 1 of its cells are tested on"]


def test_a_donor_that_is_there_twice_under_two_names_is_named():
    """The copies are read a little differently: two of the first 64 genes are others, and two have changed places."""
    some = cells()
    for i in range(10):
        copy = some[i].copy()
        copy[[5, 6]] = copy[[6, 5]]
        copy[[10, 20]] = 500, 501
        some[50 + i] = copy
    donors = np.repeat(list("abcdef"), 10)
    table, found = leakage.audit_split({"input_ids": some}, donors, np.isin(donors, ["e", "f"]))
    assert found == ["10 cells of donor 'f' (100% of them) are near-copies of cells of donor 'a'"]
    assert table.loc[0, ["training", "test", "cells"]].tolist() == ["a", "f", 10]


def test_a_short_cell_is_no_copy_of_a_long_one():
    long = cells(1)[0]
    assert leakage.near_copies([long], [long[:5]]).empty
    assert leakage.near_copies([long[:5]], [long[:5]])["shared"].tolist() == [1.0]
