import keyword
import re

import anndata
import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from epigen_utils.errors import DataError
from epigen_utils.expression import formulas


@pytest.fixture
def adata():
    obs = {
        "condition": list("aabb"),
        "cell.type": list("xyxy"),
        "my age": ["31", "42", "29", "55"],
        "dose": [10, 2, 2, 10],
    }
    return anndata.AnnData(obs=pd.DataFrame(obs, index=list("1234")))


@pytest.mark.parametrize(
    ("design", "formula", "factors", "numbers"),
    [
        ("condition", "~condition", set(), set()),
        ("~ factor(batch) + as.numeric(`my age`)", "~batch + `my age`", {"batch"}, {"my age"}),
        ("~as.factor(cell.type)", "~`cell.type`", {"cell.type"}, set()),
        ("~I(center(age)^2) + a^2", "~I(center(age)**2) + a^2", set(), set()),
        ("~`a.b` + bs(age, 0.5)", "~`a.b` + bs(age, 0.5)", set(), set()),
    ],
)
def test_formulas_of_r_as_formulaic_reads_them(design, formula, factors, numbers):
    assert formulas.parse(design) == (formula, factors, numbers)


def test_the_columns_that_a_formula_names(adata):
    assert formulas.columns_of_design(adata, "~log(`my age`) + cell.type") == ["cell.type", "my age"]
    assert formulas.columns_of_design(adata, "~condition") == ["condition"]


@pytest.mark.parametrize(
    ("factor", "column"), [("scale(dose)", "dose"), ("log(`my age`)", "my age"), ("C(`cell.type`)", "cell.type")]
)
def test_a_term_is_of_columns_and_not_of_functions(adata, factor, column):
    adata.obs["dose"] = [1.5, 2.0, 2.5, 4.0]
    adata.obs["my age"] = [31.5, 42.0, 29.0, 55.0]
    terms = formulas.variables_of_terms(adata, formulas.model_of(adata, f"~{factor}:condition"))
    assert list(terms.values())[-1] == {factor: {column}, "condition": {"condition"}}


def test_names_that_are_no_identifiers_are_quoted():
    assert [formulas.quoted(name) for name in ("age", "my age", "a.b", "1st")] == ["age", "`my age`", "`a.b`", "`1st`"]


def test_levels_that_are_numbers_are_in_their_order(adata):
    levels = formulas.levels_of(formulas.covariates(adata.obs)["dose"])
    assert levels == ["2", "10"], "as in R, where text would begin with 10"
    assert list(formulas.model_of(adata, "~dose")) == ["Intercept", "dose[T.10]"]
    with pytest.raises(DataError, match="'condition' has 'a', no number"):
        formulas.model_of(adata, "~numeric(condition)")


VALUES = st.one_of(
    st.lists(st.integers(-3, 40), min_size=6, max_size=6),
    st.lists(st.sampled_from([0.5, 1.0, 2.0, 31.25]), min_size=6, max_size=6),
    st.lists(st.sampled_from(["a", "b", "1", "x y"]), min_size=6, max_size=6),
    st.lists(st.booleans(), min_size=6, max_size=6),
)


@settings(max_examples=max(80, settings.default.max_examples))
@given(values=VALUES)
def test_text_and_typed_columns_are_taken_alike(values):
    typed = pd.DataFrame({"x": values})
    words = typed.astype(object).map(str)
    ours, theirs = (formulas.covariates(table)["x"] for table in (typed, words))
    assert pd.api.types.is_numeric_dtype(ours) == pd.api.types.is_numeric_dtype(theirs)
    if pd.api.types.is_numeric_dtype(ours):
        np.testing.assert_array_equal(ours, theirs)
    else:
        assert ours.astype(str).tolist() == theirs.astype(str).tolist()
        assert formulas.levels_of(ours) == formulas.levels_of(theirs)


#: Names of columns as tables have them, words of Python among them.
NAMES = st.one_of(
    st.text("abX01 ._-~|+*:()^/%µé", min_size=1, max_size=8).filter(
        lambda name: name == name.strip() and not re.fullmatch(r"[\d.]+", name)
    ),
    st.sampled_from(["class", "in", "None", "log", "C", "factor", "Intercept", "cell", "cell type", "cell.type"]),
)


@given(
    names=st.lists(NAMES, min_size=1, max_size=4, unique=True),
    wrapped=st.sampled_from(["", "factor", "as.factor", "C"]),
)
def test_every_column_can_be_named_and_names_no_other(names, wrapped):
    obs = pd.DataFrame({name: list("aabbcc") for name in names}, index=list("123456"))
    if wrapped == "C" and (keyword.iskeyword(names[0]) or not names[0].isascii()):
        wrapped = "factor"  # within a function Python reads the name
    first = formulas.quoted(names[0])
    design = f"~{wrapped}({first})" if wrapped else f"~{first}"
    adata = anndata.AnnData(obs=obs)
    assert formulas.columns_of_design(adata, design) == names[:1]
    model = formulas.model_of(adata, design)
    assert model.shape == (6, 3)
    (of_term,) = list(formulas.variables_of_terms(adata, model).values())[1:]
    assert list(of_term.values()) == [{names[0]}]


@pytest.mark.parametrize("column", ["0", "1", "2024", "0.5"])
def test_a_column_that_a_formula_takes_for_a_number_is_refused(column):
    adata = anndata.AnnData(obs=pd.DataFrame({column: list("aabb")}, index=list("1234")))
    for design in (f"~`{column}`", f"~factor(`{column}`)"):
        with pytest.raises(DataError, match=f"the column '{column}' would be taken for a number; rename it"):
            formulas.model_of(adata, design)


def test_functions_and_arguments_are_no_columns():
    obs = pd.DataFrame({name: [1.5, 2.0, 2.5, 4.0] for name in ("log", "degree", "age")}, index=list("1234"))
    adata = anndata.AnnData(obs=obs)
    assert formulas.columns_of_design(adata, "~log(age) + poly(age, degree=2)") == ["age"]
    assert formulas.columns_of_design(adata, "~I(log == 2)") == ["log"]
