import numpy as np
import pytest

from epigen_utils.data import simulated_bulk
from epigen_utils.errors import DataError
from epigen_utils.expression import differential

CONTRAST = ("group", "m", "c")


@pytest.fixture(scope="module")
def cohort():
    return simulated_bulk.negative_binomial_cohort(
        groups={"c": 6, "m": 6}, reference="c", n_genes=200, n_changed=30, seed=2
    )


def test_the_second_engine_agrees_with_the_first_in_columns_means_and_about_in_the_rest(cohort):
    first, second = (
        differential.deseq(cohort, design="~group", contrast=CONTRAST, engine=engine) for engine in differential.ENGINES
    )
    assert list(second) == list(first) == differential.DESEQ_COLUMNS
    assert list(second.index) == list(cohort.var_names)
    np.testing.assert_allclose(second["baseMean"], first["baseMean"])
    seen = first["baseMean"] > 20
    assert (second["log2FoldChange"] - first["log2FoldChange"]).abs()[seen].max() < 0.02
    assert ((second["padj"] < 0.05) != (first["padj"] < 0.05)).sum() <= 2


def test_filters_can_be_left_out(cohort):
    found = differential.deseq(
        cohort, design="~group", contrast=CONTRAST, engine="pydeseq2", independent_filter=False, cooks_filter=False
    )
    assert found.loc[found["baseMean"] > 0, "padj"].notna().all()


def test_a_design_that_cannot_be_fitted_is_refused(cohort):
    with pytest.raises(DataError, match="design '~tissue'"):
        differential.deseq(cohort, design="~tissue", contrast=CONTRAST, engine="pydeseq2")


@pytest.mark.parametrize(
    "options",
    [{"reduced": "~1"}, {"contrast": {"group[T.m]": 1}}, {"lfc_threshold": 1}, {"shrink": "normal"}],
    ids=lambda options: next(iter(options)),
)
def test_what_the_second_engine_cannot_is_refused(cohort, options):
    with pytest.raises(DataError, match="engine 'pydeseq2': it tests contrasts of levels"):
        differential.deseq(cohort, engine="pydeseq2", **{"design": "~group", "contrast": CONTRAST} | options)
