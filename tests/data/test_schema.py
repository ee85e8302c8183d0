import anndata
import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import sparse

from epigen_utils.data import schema
from epigen_utils.errors import DataError


def only(adata, task="groups"):
    problems = schema.check(adata, task=task)
    assert len(problems) == 1, problems
    assert "\n" not in str(problems[0])
    return str(problems[0])


def test_a_good_set_has_no_problem(small):
    for task in ("counts", "groups", "donors"):
        assert schema.check(small, task=task) == []


@pytest.mark.parametrize("make", [np.asarray, sparse.csr_matrix], ids=["dense", "sparse"])
@pytest.mark.parametrize(
    ("value", "said"),
    [
        (-2, "negative value -2"),
        (np.nan, "missing or infinite value, 1 in all"),
        (np.inf, "missing or infinite value"),
        (9.5, "9.5 is not an integer"),
    ],
)
def test_a_bad_value_is_named_with_its_gene_and_sample(small, make, value, said):
    counts = small.layers["counts"].astype(float)
    counts[3, 2] = value
    small.layers["counts"] = make(counts)
    problem = only(small, "counts")
    assert said in problem
    assert "gene 'g3', sample 's3'" in problem


def test_normalised_data_are_called_so(small):
    small.layers["counts"] = np.log1p(small.layers["counts"])
    assert "look normalised" in only(small, "counts")


def test_floating_point_noise_is_not_normalisation(small):
    small.layers["counts"] = small.layers["counts"] + 1e-9
    assert schema.check(small, task="counts") == []


def test_all_zero_and_empty(small):
    small.layers["counts"] = np.zeros((6, 4), int)
    assert "every value is zero" in only(small, "counts")
    assert "empty, 0 samples x 4 genes" in only(small[:0].copy(), "counts")
    assert "empty, 6 samples x 0 genes" in only(small[:, :0].copy(), "counts")


def test_duplicate_names(small):
    small.var_names = ["g1", "g1", "g3", "g4"]
    small.obs_names = ["s0", "s1", "s2", "s2", "s4", "s5"]
    said = [str(problem) for problem in schema.check(small, task="counts")]
    assert "gene 'g1'" in said[0]
    assert "sample 's2'" in said[1]


def test_groups(small):
    small.obs["condition"] = list("aaaabc")
    said = " ".join(map(str, schema.check(small, task="groups")))
    assert "group 'b' has one sample" in said
    assert "group 'c' has one sample" in said
    small.obs["condition"] = "a"
    assert "one group only" in only(small)
    small.obs["condition"] = ["a", "a", "a", "b", "b", None]
    assert "sample 's5'" in only(small)
    small.uns["epigen"]["group"] = "treatment"
    assert "no group column 'treatment'" in only(small)
    assert "columns: condition, donor" in only(small)


def test_reference_must_be_a_group(small):
    small.uns["epigen"]["reference"] = "WT"
    assert "no reference level 'WT'" in only(small)


def test_donors(small):
    small.obs["donor"] = ["x", "y", "z", "x", "y", None]
    assert "sample 's5'" in only(small, "donors")
    small.uns["epigen"]["donor"] = "animal"
    assert "no donor column 'animal'" in only(small, "donors")


def test_intensities_need_no_integers():
    adata = anndata.AnnData(
        obs=pd.DataFrame(index=["s"]), var=pd.DataFrame(index=["g"]), layers={"intensity": np.array([[1.5]])}
    )
    assert schema.check(adata, task="intensity") == []
    adata.layers["intensity"] = np.array([[-1.5]])
    assert "negative value -1.5" in only(adata, "intensity")


def test_an_unknown_task_is_an_error(small):
    with pytest.raises(ValueError, match="not one of"):
        schema.check(small, task="count")


@pytest.mark.parametrize(
    ("levels", "word", "found"),
    [
        (["0.0", "1.0"], 1, "1.0"),
        (["1", "1.0"], "1", "1"),
        (["1", "1.0"], 1.00, "1.0"),
        (["1.0", "1.00"], 1, None),
        (["TRUE", "FALSE"], False, "FALSE"),
        (["None", "drug"], None, "None"),
        (["007", "8"], 7, "007"),
        (["wt", "WT"], "Wt", None),
        ([True, False], "true", "True"),
    ],
)
def test_a_level_is_found_by_what_it_means(levels, word, found):
    assert schema.find_level(levels, word) == found


def test_blanks_are_taken_off_and_levels_joined(small):
    small.obs["condition"] = pd.Categorical(["a", "a ", "a", "b", "b", "b"], ["b", "a ", "a"])
    small.obs = small.obs.rename(columns={"donor": "donor "}).rename(index={"s1": " s1"})
    small.obs["depth"] = [1.5] * 6
    assert schema.without_blanks(small) == ["sample ' s1'", "column 'donor '", "condition 'a '"]
    assert list(small.obs["condition"].cat.categories) == ["b", "a"]
    assert list(small.obs) == ["condition", "donor", "depth"]
    assert schema.without_blanks(small) == []
    small.obs["donor "] = 1
    with pytest.raises(DataError, match="column 'donor': there twice, with and without a blank"):
        schema.without_blanks(small)


@pytest.mark.parametrize("make", [np.asarray, sparse.csr_matrix], ids=["dense", "sparse"])
def test_samples_that_cannot_be_compared(make):
    rng = np.random.default_rng(0)
    counts = rng.poisson(50, (4, 30)) + 1

    def said(values):
        adata = anndata.AnnData(layers={"counts": make(values)})
        return schema.check(adata, task="samples")

    assert said(counts) == []
    assert "sample '2': has no counts; drop it" in said(counts * np.array([1, 1, 0, 1])[:, None])[0]
    assert "samples '0' and '3': the same counts" in said(counts[[0, 1, 2, 0]])[0]
    assert "counts of one gene only" in said(counts * (np.arange(30) == 3))[0]
    zeros = np.where(np.arange(30) % 4 == np.arange(4)[:, None], 0, counts)
    assert "take size_factors=poscounts" in said(zeros)[0]
    shares = counts / counts.sum(axis=1, keepdims=True) * 1e6
    assert "these are TPM or CPM" in said(np.rint(shares).astype(int))[0]


def test_numbers_that_anndata_made_factors_of(small):
    small.obs["age"] = pd.Categorical(["31", "42", "31", "5", "6", "7"])
    small.obs["chip"] = pd.Categorical([1, 2, 1, 2, 1, 2])
    small.obs["donor"] = pd.Categorical(list("123123"))
    schema.plain_numbers(small, ("condition", "donor", None))
    assert [small.obs[column].dtype.name for column in ("age", "chip", "donor")] == ["object", "category", "category"]


LEVELS = st.one_of(
    st.sampled_from(["0", "1", "1.0", "1.00", "01", "1e0", "nan", "NaN", "inf", "True", "TRUE", "false", "None", "wt"]),
    st.floats().map(str),
    st.text("aB1. ", min_size=1, max_size=4),
)


@given(levels=st.lists(LEVELS, min_size=1, max_size=6, unique=True), word=LEVELS, order=st.randoms())
def test_a_level_is_found_by_its_own_word_in_any_order_of_the_levels(levels, word, order):
    mixed = order.sample(levels, len(levels))
    assert [schema.find_level(mixed, level) for level in levels] == levels
    found = schema.find_level(levels, word)
    assert found == schema.find_level(mixed, word)
    assert found is None or found in levels


VALUES = st.sampled_from([0.0, 1.0, 2.0, 7.0, 1e9, 3 + 1e-9, 0.5, -1.0, -0.0, np.nan, np.inf])


@given(
    values=st.lists(st.lists(VALUES, min_size=3, max_size=3), min_size=1, max_size=4).map(np.array),
    measure=st.sampled_from(["counts", "intensity"]),
    order=st.randoms(),
)
def test_values_are_refused_alike_in_any_form_and_order(values, measure, order):
    whole = values.round() if measure == "counts" else values
    close = np.isfinite(values).all() and np.abs(values - whole).max() < 1e-6
    wanted = bool(close and (values >= 0).all() and values.any())

    def accepted(matrix):
        names = [f"s{i}" for i in range(matrix.shape[0])], [f"g{i}" for i in range(matrix.shape[1])]
        obs, var = (pd.DataFrame(index=some) for some in names)
        adata = anndata.AnnData(obs=obs, var=var, layers={measure: matrix}, uns={"epigen": {"measure": measure}})
        problems = schema.check(adata, task=measure)
        assert not any("\n" in problem for problem in problems)
        return problems == []

    mixed = values[order.sample(range(len(values)), len(values))][:, order.sample(range(3), 3)]
    for some in (values, mixed):
        assert [accepted(some), accepted(sparse.csr_matrix(some)), accepted(sparse.csc_matrix(some))] == [wanted] * 3


@pytest.mark.parametrize(("array", "value"), [("indices", 99), ("indices", -1), ("indptr", 99)])
def test_positions_outside_of_a_sparse_matrix_are_refused(small, array, value):
    """scipy would read whatever stands there."""
    matrix = sparse.csr_matrix(small.layers["counts"])
    getattr(matrix, array)[1] = value
    damaged = anndata.AnnData(matrix, obs=small.obs, var=small.var)
    with pytest.raises(DataError, match="here: X: damaged .*; fetch or write the file again"):
        schema.check_matrices("here", damaged)


def test_complex_numbers_are_no_counts(small):
    small.X = small.layers["counts"].astype(complex)
    with pytest.raises(DataError, match="here: X: complex numbers; give counts"):
        schema.check_matrices("here", small)


def test_an_integer_of_more_than_64_bits_is_no_count(small):
    small.layers["counts"] = small.layers["counts"].astype(float)
    small.layers["counts"][1, 2] = 1e30
    assert schema.check(small, task="counts") == [
        "gene 'g3', sample 's1': 1e+30 is too large for a count; correct the cell"
    ]
