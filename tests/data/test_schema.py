import anndata
import numpy as np
import pandas as pd
import pytest
from scipy import sparse

from epigen_utils.data import schema


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
