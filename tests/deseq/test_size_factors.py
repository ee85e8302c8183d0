import numpy as np
import pytest
from deseq_units import counts, table, worst

from epigen_utils.deseq import size_factors
from epigen_utils.errors import DataError


def with_holes():
    """The cohort, with a zero for every gene in one sample in turn."""
    holes = counts()
    holes[np.arange(150) % 14, np.arange(150)] = 0
    return holes


def test_ratio_is_rs():
    assert worst(size_factors.estimate(counts()), table("samples")["ratio"]) < 1e-12


def test_poscounts_is_rs_where_no_gene_is_everywhere():
    assert worst(size_factors.estimate(with_holes(), "poscounts"), table("samples")["poscounts"]) < 1e-12


def test_poscounts_have_a_geometric_mean_of_one():
    assert np.log(size_factors.estimate(counts(), "poscounts")).mean() == pytest.approx(0, abs=1e-12)


def test_twice_the_depth_is_twice_the_factor():
    doubled = counts()
    doubled[3] *= 2
    first, second = (np.log(size_factors.estimate(values)) for values in (counts(), doubled))
    change = second - first
    assert change[3] - change[0] == pytest.approx(np.log(2))
    np.testing.assert_allclose(np.delete(change, 3), change[0])


def test_log_geometric_means_by_hand():
    values = np.array([[1, 0, 0], [4, 4, 0], [16, 2, 0]])
    np.testing.assert_allclose(np.exp(size_factors.log_geometric_means(values)), [4, 0, 0])
    np.testing.assert_allclose(np.exp(size_factors.log_geometric_means(values, "poscounts")), [4, 2, 0])


def refused(values, kind="ratio"):
    with pytest.raises(DataError) as caught:
        size_factors.estimate(values, kind)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_refusals_are_one_line():
    assert "size_factors='poscounts'" in refused(with_holes())
    assert "size factors 'median'" in refused(counts(), "median")
    empty = counts()
    empty[2] = 0
    assert "row 3 has no counts" in refused(empty, "poscounts")
    with pytest.raises(DataError, match="in every cell; drop the shallowest cells"):
        size_factors.log_geometric_means(with_holes(), unit="cell")
