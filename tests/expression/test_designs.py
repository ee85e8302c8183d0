import anndata
import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from epigen_utils import paths
from epigen_utils.data import datasets, registry, simulated_bulk
from epigen_utils.errors import DataError
from epigen_utils.expression import designs, differential, normalisation


@pytest.fixture
def small():
    """Six samples, three donors with one of each condition."""
    adata = simulated_bulk.negative_binomial_cohort(groups={"a": 3, "b": 3}, reference="a", n_genes=80, n_changed=8)
    adata.obs["condition"] = pd.Categorical(list("aaabbb"))
    adata.obs["donor"] = list("xyzxyz")
    adata.uns["epigen"] = {"name": "n.h5ad", "group": "condition", "donor": "donor", "measure": "counts"}
    return adata


def test_contrast_as_text():
    assert designs.parse_contrast("condition, ko,wt") == ("condition", "ko", "wt")
    for text in ("condition,ko", "a,b,c,d", "a,,b"):
        with pytest.raises(DataError, match="variable,target,reference"):
            designs.parse_contrast(text)


def test_contrasts_come_from_the_caller_the_table_or_the_groups(small):
    fish = datasets.load("airway-as-zebrafish")
    design, found = designs.design_and_contrasts(fish)
    assert design == "~batch + genotype"
    singles = {name: ("genotype", name, "WT") for name in ("DM", "5a1", "5b1")}
    assert found == singles | {"mutants": ("genotype", "DM+5a1+5b1", "WT")}
    design, found = designs.design_and_contrasts(fish, contrast="genotype,DM,5a1")
    assert design == "~genotype"
    assert found == {"DM against 5a1": ("genotype", "DM", "5a1")}
    small.obs["condition"] = small.obs["condition"].astype("category")
    design, found = designs.design_and_contrasts(small)
    assert design == "~donor + condition"
    assert found == {"b against a": ("condition", "b", "a")}


def test_a_registered_set_with_another_group_or_reference_leaves_the_table(small):
    airway = datasets.load("airway", reference="trt")
    assert designs.design_and_contrasts(airway)[1] == {"untrt against trt": ("dex", "untrt", "trt")}


def test_donors_are_names_and_whole_numbers_with_repeats_are_factors(small, tmp_path):
    small.obs["donor"] = [1, 2, 3, 1, 2, 3]
    small.obs["batch"] = [7, 8, 8, 7, 8, 7]
    small.obs["age"] = [31, 42, 29, 55, 61, 38]
    small.X = small.layers["counts"]
    small.write_h5ad(tmp_path / "own.h5ad")
    own = datasets.load(tmp_path / "own.h5ad", group="condition", donor="donor")
    assert "donor[T.2]" in designs.design_matrix(own, designs.design_and_contrasts(own)[0])
    assert "batch[T.8]" in designs.design_matrix(own, "~batch + condition")
    assert "age" in designs.design_matrix(own, "~age + condition")
    found = differential.deseq(own, design="~batch + condition", contrast=("batch", "8", "7"))
    assert found["pvalue"].notna().any()


def test_donors_in_one_group_are_summed_not_blocked(small):
    assert normalisation.sum_by_donor(small) is small, "paired donors are blocks"
    small.obs["donor"] = list("xxyuuv")
    small.obs["sex"] = list("ffmmmm")
    small.obs["lane"] = list("121212")
    assert designs.design_and_contrasts(small)[0] == "~condition"
    summed = normalisation.sum_by_donor(small)
    assert list(summed.obs_names) == list("xyuv")
    assert list(summed.obs) == ["group", "condition", "donor", "sex"]
    counts = small.layers["counts"]
    np.testing.assert_array_equal(
        summed.layers["counts"], [counts[:2].sum(0), counts[2], counts[3:5].sum(0), counts[5]]
    )
    small.obs["donor"] = list("abcdef")
    assert normalisation.sum_by_donor(small) is small
    assert designs.design_and_contrasts(small)[0] == "~condition"


def test_columns_with_any_name(small):
    small.obs = small.obs.rename(columns={"condition": "cell type", "donor": "do-nor"})
    small.uns["epigen"] |= {"group": "cell type", "donor": "do-nor"}
    design, contrasts = designs.design_and_contrasts(small)
    assert design == "~`do-nor` + `cell type`"
    found = differential.deseq(small, design=design, contrast=contrasts["b against a"])
    assert found["pvalue"].notna().all()
    assert len(set(designs.permutation_blocks(small, design, contrasts["b against a"]))) == 3


def test_what_cannot_be_compared_is_one_line(small):
    for contrast, said in (
        (("donor", "x", "y"), "'donor' is not in the design '~condition'; add it"),
        (("condition", "c", "a"), "no level 'c'"),
    ):
        with pytest.raises(DataError, match=said):
            differential.deseq(small, design="~condition", contrast=contrast)
    small.obs["age"] = [31.5, 42.0, 29.0, 31.5, 42.0, 38.0]
    with pytest.raises(DataError, match="'age' is a number in the design"):
        differential.deseq(small, design="~age", contrast=("age", "42.0", "31.5"))
    with pytest.raises(DataError, match="leave nothing to estimate"):
        normalisation.vst(small[[0, 3]], design="~donor + condition")
    small.uns["epigen"].pop("group")
    with pytest.raises(DataError, match=r"n.h5ad: nothing to compare; name a group or a contrast \(columns: "):
        designs.design_and_contrasts(small)


def test_every_row_of_the_contrasts_is_of_a_known_data_set():
    table = pd.read_csv(paths.CONTRASTS, dtype=str, keep_default_na=False)
    assert list(table.columns) == ["id", "variable", "reference", "target", "blocking"]
    assert table["id"].is_unique
    for name in table["id"].str.partition(":")[0]:
        registry.entry(name)


def test_numbers_are_covariates_where_levels_would_be_too_many(small):
    small.obs["age"] = ["31", "42", "29", "55", "61", "38"]
    assert list(designs.design_matrix(small, "~age + condition")) == ["Intercept", "age", "condition[T.b]"]
    small.obs["batch"] = list("121212")
    assert "batch[T.2]" in designs.design_matrix(small, "~batch + condition")


def test_blocks_are_donors_or_what_the_design_blocks_on():
    airway = datasets.load("airway")
    assert list(designs.permutation_blocks(airway, "~cell + dex", ("dex", "trt", "untrt"))) == list(airway.obs["cell"])
    sim = datasets.load("airway-as-mouse")
    blocked = designs.permutation_blocks(sim, "~batch + genotype", ("genotype", "KO", "WT"))
    assert list(blocked) == list(sim.obs["batch"])
    assert designs.permutation_blocks(sim, "~genotype", ("genotype", "KO", "WT")) is None
    sim.obs = sim.obs.rename(columns={"batch": "chip + lane"})
    blocked = designs.permutation_blocks(sim, "~`chip + lane` * genotype", ("genotype", "KO", "WT"))
    assert list(blocked) == list(sim.obs["chip + lane"])


def test_an_empty_column_outside_the_design_changes_nothing(small):
    contrast = ("condition", "b", "a")
    expected = designs.contrast_vector(small, "~donor + condition", contrast)
    small.obs["notes"] = pd.Series([np.nan] * 6, index=small.obs_names, dtype=object)
    np.testing.assert_array_equal(designs.contrast_vector(small, "~donor + condition", contrast), expected)


@pytest.mark.parametrize("number", ["age", "log(age)", "scale(age)"])
def test_an_interacting_effect_is_taken_at_zero_of_the_number_in_the_design(small, number):
    small.obs["age"] = [31.5, 42.0, 29.0, 55.0, 61.0, 38.0]
    design = f"~condition * {number}"
    assert designs.effect_is_at(small, design, "condition") == {number: "0"}
    assert f"its effect at {number} = 0 " in designs.describe_design(small, design, "condition")
    vector = designs.contrast_vector(small, design, ("condition", "b", "a"))
    assert dict(zip(designs.design_matrix(small, design), vector, strict=True)) == {
        "Intercept": 0,
        "condition[T.b]": 1,
        number: 0,
        f"condition[T.b]:{number}": 0,
    }


def test_a_factor_may_be_written_as_c(small):
    contrast = ("condition", "b", "a")
    np.testing.assert_array_equal(designs.contrast_vector(small, "~C(condition)", contrast), [0, 1])


def test_transformed_covariates_have_the_columns_of_r():
    """``model.matrix(~ scale(age) + log(age) + poly(age, 2))`` of R 4.2, without the intercept."""
    ages = [21.0, 34, 34, 47, 52, 60, 71, 80]
    of_r = {
        "scale(age)": [-1.4419807964, -0.792777321, -0.792777321, -0.1435738455, 0.1061197989, 0.5056296299]
        + [1.0549556476, 1.5044042075],
        "log(age)": np.log(ages),
        "poly(age, 2)": [
            [-0.5450175118071, 0.5844263026320],
            [-0.2996416623355, -0.0717787066029],
            [-0.2996416623355, -0.0717787066029],
            [-0.0542658128639, -0.3633129461208],
            [0.0401095138559, -0.3783398155374],
            [0.1911100366077, -0.2901764159217],
            [0.3987357553913, 0.0565399475169],
            [0.5686113434870, 0.5344203406369],
        ],
    }
    adata = anndata.AnnData(np.ones((8, 1)), obs=pd.DataFrame({"age": ages}, index=list("abcdefgh")))
    for term, columns in of_r.items():
        found = designs.design_matrix(adata, f"~ {term}").to_numpy()[:, 1:]
        np.testing.assert_allclose(found, np.reshape(columns, found.shape), atol=1e-10)


LEVELS = ["wild type", "+/-", "a+b", "2", "10", "été"]


@st.composite
def tables(draw):
    """A group of three levels or more, and a batch, in which some levels may be confounded."""
    n = draw(st.integers(3, 12))
    levels = draw(st.lists(st.sampled_from(LEVELS), min_size=3, max_size=4, unique=True))
    group = [*levels, *draw(st.lists(st.sampled_from(levels), min_size=n - 3, max_size=n - 3))]
    batch = draw(st.lists(st.sampled_from(["x", "y", "z"]), min_size=len(group), max_size=len(group)))
    obs = pd.DataFrame({"group": group, "batch": batch}, index=[f"s{i}" for i in range(len(group))])
    return anndata.AnnData(obs=obs, uns={"epigen": {"name": "n"}}), levels


@given(table=tables(), design=st.sampled_from(["~group", "~batch + group", "~batch * group"]))
def test_contrasts_round_a_circle_add_up_to_nothing(table, design):
    adata, (one, two, three, *_) = table
    circle = [(one, two), (two, three), (three, one)]
    vectors = [designs.contrast_vector(adata, design, ("group", *pair)) for pair in circle]
    np.testing.assert_allclose(np.sum(vectors, axis=0), 0, atol=1e-12)
    if design == "~group":
        y = np.arange(adata.n_obs) ** 2.0
        coefficients = np.linalg.lstsq(designs.design_matrix(adata, design).to_numpy(float), y)[0]
        means = pd.Series(y).groupby(adata.obs["group"].to_numpy()).mean()
        assert vectors[0] @ coefficients == pytest.approx(means[one] - means[two])


@given(table=tables(), design=st.sampled_from(["~group", "~batch + group", "~batch * group"]), order=st.randoms())
def test_a_design_is_refused_where_its_coefficients_cannot_be_estimated(table, design, order):
    adata, _ = table
    mixed = adata[order.sample(range(adata.n_obs), adata.n_obs)].copy()
    model = designs.design_matrix(mixed, design)
    pd.testing.assert_frame_equal(model.sort_index(), designs.design_matrix(adata, design).sort_index())
    rank = np.linalg.matrix_rank(model.to_numpy(float))
    if rank == model.shape[1] < len(model):
        designs.check_design(mixed, design)
        return
    with pytest.raises(
        DataError, match="cannot be separated" if rank < model.shape[1] else "leave nothing to estimate"
    ):
        designs.check_design(mixed, design)
