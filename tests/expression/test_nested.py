import anndata
import numpy as np
import pandas as pd
import pytest

from epigen_utils.data import simulated_bulk
from epigen_utils.errors import DataError
from epigen_utils.expression import differential, nested


@pytest.fixture
def samples():
    table = {"batch": list("xyxyxyxy"), "line": list("aabbccaa"), "sex": list("mfmfmfmf"), "the age": np.arange(8.0)}
    table |= {"cell.line": table["line"], "the line": table["line"]}
    return anndata.AnnData(obs=pd.DataFrame(table, index=[f"s{i}" for i in range(8)]))


@pytest.mark.parametrize(
    ("design", "variable", "expected"),
    [
        ("~line", "line", "~1"),
        ("~0 + line", "line", "~1"),
        ("~batch + line", "line", "~batch"),
        ("~0 + batch + line", "line", "~0 + batch"),
        ("~batch * line", "line", "~batch"),
        ("~`the age` + C(line)", "line", "~`the age`"),
        ("~as.factor(batch) + as.factor(line)", "line", "~factor(batch)"),
        ("~batch + as.factor(cell.line)", "cell.line", "~batch"),
        ("~factor(batch) + factor(`the line`)", "the line", "~factor(batch)"),
        ("~as.numeric(`the age`) + line", "line", "~numeric(`the age`)"),
        ("~batch + sex", "sex", ""),
        ("~`the age`", "the age", ""),
    ],
)
def test_the_group_is_left_out_where_it_has_more_than_two_levels(samples, design, variable, expected):
    assert nested.reduced_design(samples, design, variable) == expected


def test_what_a_test_asks(samples):
    ask = nested.question
    assert ask(samples, "~batch * line", "~batch + line", "line") == "Does the effect of `line` depend on `batch`?"
    assert ask(samples, "~batch + line", "~batch", "line").startswith(
        "Does the gene differ between any of the 3 levels"
    )
    assert ask(samples, "~batch * line", "~batch", "line").endswith("left out, `line`, `batch:line`?")
    assert nested.other_factor(samples, "~batch * line", "~batch + line", "line") == "batch"
    assert nested.other_factor(samples, "~line:`the age` + line", "~line", "line") == "the age"
    assert nested.other_factor(samples, "~batch + line", "~batch", "line") == ""


@pytest.fixture(scope="module")
def cohort():
    """Three groups; genes that differ in any are planted."""
    return simulated_bulk.negative_binomial_cohort(
        groups={"wt": 4, "m1": 4, "m2": 4}, reference="wt", n_genes=300, n_changed=40, dispersion=0.02, seed=1
    )


def test_the_test_of_all_groups_finds_what_either_contrast_finds(cohort):
    fitted = differential.fit_design(cohort, design="~group")
    reduced = nested.reduced_design(cohort, "~group", "group")
    assert nested.n_left_out(fitted, reduced) == 2
    joint = fitted.likelihood_ratio(reduced)
    contrasts = {name: fitted.results(("group", name, "wt")) for name in ("m1", "m2")}
    table = nested.calls_beside_contrasts(joint, contrasts, name="joint", alpha=0.05).set_index("test")
    assert table.index.tolist() == ["joint", "m1", "m2"]
    assert table.loc["joint", "called"] == table.loc["joint", "by both"] > table.loc["m1", "called"] > 15
    assert (table["by both"] >= 0.9 * table["called"]).all()
    truth = (cohort.varm["log2_fold_change"] != 0).any(axis=1)
    assert truth[joint["padj"] < 0.05].mean() > 0.85


def test_an_unrelated_design_is_refused(cohort):
    cohort.obs["batch"] = list("xy") * 6
    with pytest.raises(DataError, match="reduced design"):
        differential.fit_design(cohort, design="~group").likelihood_ratio("~batch")
