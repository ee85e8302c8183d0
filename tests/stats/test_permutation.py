import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from epigen_utils.errors import DataError
from epigen_utils.stats import permutation


def test_all_labelings_are_visited_where_they_are_few():
    """Against SciPy's exact permutation test of a difference of means."""
    rng = np.random.default_rng(0)
    values = rng.normal(size=9)
    labels = np.array(["a"] * 4 + ["b"] * 5)
    score = lambda new: values[new == "a"].mean() - values[new == "b"].mean()  # noqa: E731
    observed, p, null = permutation.permutation_test(score, labels)
    exact = stats.permutation_test(
        (values[:4], values[4:]),
        lambda x, y: x.mean() - y.mean(),
        alternative="greater",
        permutation_type="independent",
    )
    assert observed == pytest.approx(exact.statistic)
    assert p == pytest.approx(exact.pvalue)
    assert len(null) == 125


def test_blocks_keep_labels_within_donors():
    labels = np.array(["a", "b"] * 4)
    blocks = np.repeat(list("wxyz"), 2)
    seen = []
    permutation.permutation_test(lambda new: seen.append(tuple(new)) or 0.0, labels, donors=blocks)
    assert len(set(seen)) == 2**4
    assert all(sorted(pair) == ["a", "b"] for new in seen for pair in np.reshape(new, (4, 2)).tolist())


def test_labels_go_with_whole_donors_where_a_donor_has_one():
    labels = np.repeat(["a", "a", "a", "b", "b", "b"], 2)
    donors = np.repeat(list("uvwxyz"), 2)
    seen = []
    permutation.permutation_test(lambda new: seen.append(tuple(new)) or 0.0, labels, donors=donors)
    assert len(set(seen)) == 20, "3 of 6 donors"
    assert all(first == second for new in seen for first, second in np.reshape(new, (6, 2)).tolist())


def test_one_labeling_is_refused():
    with pytest.raises(DataError, match="leave one permutation only"):
        permutation.permutation_test(lambda new: 0.0, np.array(["a", "a"]), donors=np.array(["x", "y"]))


def test_many_labelings_are_drawn_at_random_and_repeatably():
    values = np.arange(40.0)
    labels = np.repeat(["a", "b"], 20)
    score = lambda new: values[new == "b"].mean()  # noqa: E731
    first = permutation.permutation_test(score, labels, n_permutations=99, seed=3)
    again = permutation.permutation_test(score, labels, n_permutations=99, seed=3)
    assert first[1] == again[1] == pytest.approx(1 / 100)
    assert len(first[2]) == 99


def test_p_is_uniform_under_the_null():
    rng = np.random.default_rng(1)
    labels = np.repeat(["a", "b"], [3, 9])
    found = []
    for _ in range(200):
        values = rng.normal(size=12)
        found.append(permutation.permutation_test(lambda new, v=values: v[new == "a"].mean(), labels)[1])
    rejections = sum(p <= 0.05 for p in found)
    assert 3 <= rejections <= 19, "the binomial's 99% range for 200 tests at 5%"


def test_how_many_labelings_there_are():
    labels = np.array(list("aabb"))
    assert permutation.count_permutations(labels) == 5
    assert permutation.count_permutations(labels, np.array(list("xyxy"))) == 3
    assert permutation.count_permutations(labels, np.array(list("xxyy"))) == 1
    for donors in (None, np.array(list("xyxy")), np.array(list("xxyy"))):
        assert len(list(permutation.permuted_labels(labels, donors=donors))) == permutation.count_permutations(
            labels, donors
        )


def test_two_sided_p_is_twice_the_smaller_tail_on_both_sides():
    null = np.arange(1, 20) / 20
    one = permutation.two_sided_pvalue(1.0, null)
    assert one == permutation.two_sided_pvalue(0.0, null) == pytest.approx(2 / 20)
    assert permutation.two_sided_pvalue(0.5, null) == 1


@given(
    rows=st.lists(st.tuples(st.sampled_from("abc"), st.sampled_from("vwxyz")), min_size=2, max_size=9),
    known=st.booleans(),
)
def test_permuted_labels_are_distinct_and_keep_what_donors_have(rows, known):
    labels, donors = np.array(rows).T
    blocks = [donors == donor for donor in set(donors)] if known else [np.ones(len(labels), bool)]
    nested = known and all(len(set(labels[block])) == 1 for block in blocks)
    n = permutation.count_permutations(labels, donors if known else None)
    if n == 0:
        with pytest.raises(DataError, match="leave one permutation only"):
            list(permutation.permuted_labels(labels, donors=donors if known else None))
        return
    found = list(permutation.permuted_labels(labels, donors=donors if known else None, n_permutations=40, seed=1))
    assert len(found) == min(n, 40)
    if n <= 40:
        assert len({tuple(new) for new in found}) == n
        assert not any(np.array_equal(new, labels) for new in found)
    for new in found:
        if nested:
            assert all(len(set(new[block])) == 1 for block in blocks)
            assert sorted(new[block][0] for block in blocks) == sorted(labels[block][0] for block in blocks)
        else:
            assert all(sorted(new[block]) == sorted(labels[block]) for block in blocks)


TENTHS = st.integers(-30, 30).map(lambda number: number / 10)


@given(null=st.lists(TENTHS, min_size=1, max_size=40).map(np.array), observed=TENTHS, higher=TENTHS)
def test_p_is_above_0_at_most_1_and_falls_with_the_score(null, observed, higher):
    least = 1 / (len(null) + 1)
    one = permutation.pvalue(observed, null)
    assert least <= one <= 1
    assert one == pytest.approx((np.sum(null >= observed - 1e-9) + 1) * least)
    assert permutation.pvalue(max(observed, higher), null) <= one
    both = permutation.two_sided_pvalue(observed, null)
    assert 0 < both <= 1
    assert both == permutation.two_sided_pvalue(-observed, -null)
    assert both <= 2 * one
