"""Data and designs at the edge of what can be analysed: R's answer, or one clear line.

R's results and messages are those of data/reference/deseq2_units.R, on the first 60 genes of the cohort.
"""

import dataclasses
from collections.abc import Callable

import anndata
import numpy as np
import pandas as pd
import pytest
from deseq_units import adata, table, worst

from epigen_utils.errors import DataError
from epigen_utils.expression import differential

B_AGAINST_A = ("condition", "b", "a")
#: Samples of which one is in the second condition.
FEW = [0, 1, 7]
RESULTS = ["baseMean", "log2FoldChange", "lfcSE", "stat", "pvalue", "padj"]


@dataclasses.dataclass(frozen=True)
class Case:
    """An analysis: how the cohort is changed, the design, the contrast and options."""

    change: Callable[[anndata.AnnData], anndata.AnnData | None] = lambda data: None
    design: str = "~condition"
    contrast: tuple | dict | None = B_AGAINST_A
    options: dict = dataclasses.field(default_factory=dict)

    def run(self) -> pd.DataFrame:
        data = adata(slice(60))
        changed = self.change(data)
        data = data if changed is None else changed
        return differential.deseq(data, design=self.design, contrast=self.contrast, **self.options)


def counts(edit, dtype=float):
    """A change of the counts, samples x genes, in place."""

    def change(data):
        values = data.layers["counts"].astype(dtype)
        edit(values, data.obs)
        data.layers["counts"] = values

    return change


def samples(**columns):
    """A change of the sample table: new columns, or functions of it that give them."""

    def change(data):
        for name, values in columns.items():
            data.obs[name] = values(data.obs) if callable(values) else values

    return change


def scale(gene, factor, most=np.inf):
    def edit(values, obs):
        values[:, gene] = np.minimum(values[:, gene] * factor, most)

    return counts(edit, np.int64)


def a_zero_in_every_gene(values, obs):
    values[np.arange(60) % 14, np.arange(60)] = 0


def set_to(value, *where):
    def edit(values, obs):
        values[where or slice(None)] = value

    return counts(edit)


def only_in_r(values, obs):
    values[obs["group"] != "r", 6] = 0


def three_groups(data):
    data.obs["group"] = pd.Categorical(list("pppppqqqqqrrrr"))
    counts(only_in_r)(data)


def one_outlier_in_p(data):
    three_groups(data)
    data.layers["counts"][0, 6] = 5000


def few_counts(values, obs):
    values[:, 6:8] = 0
    values[3, 6] = 1
    values[[1, 8], 7] = 2


def outliers_in_many_genes(data):
    """Of the thirteenth gene, which comes first, one is beyond the cut-off by the distances of one test alone."""
    values = data.layers["counts"].copy()
    for gene in range(6, 61):
        values[gene % 14, gene - 1] = values[gene % 14, gene - 1] * (1 + 2 * gene % 17) + 5
    data.layers["counts"] = values
    return data[:, [12, *range(12), *range(13, 60)]].copy()


def empty_cell(values, obs):
    values[(obs["condition"] == "b") & (obs["batch"] == "y"), 6] = 0


def not_both(data):
    return data[~((data.obs["condition"] == "b") & (data.obs["batch"] == "y"))].copy()


def even(data):
    """40 genes in eight samples that vary less than Poisson counts do."""
    data = data[[0, 1, 2, 3, 7, 8, 9, 10], :40].copy()
    data.layers["counts"] = 50 + np.array([[-3, -1, 0, 2, 1, 3, -2, 0]]).T + np.arange(1, 41)
    return data


def genes(*positions):
    return lambda data: data[:, list(positions)].copy()


ODD = {"a": "wild type/+", "b": "knock-out (5%)"}
INTERACTION = {"batch[T.y]:condition[T.b]": 1}
GENEWISE = {"trend": "none", "min_replicates_for_replace": None}

#: What R answers.
ANSWERED = {
    "one residual degree": Case(lambda data: data[FEW].copy(), contrast={"condition[T.b]": 1}),
    "one gene: gene-wise": Case(genes(5), options=GENEWISE),
    "two genes: mean trend": Case(genes(5, 6), options={"trend": "mean"}),
    "three genes: mean trend": Case(genes(5, 6, 7), options={"trend": "mean"}),
    "counts of 1e9": Case(scale(5, 10**7, 2 * 10**9)),
    "one sample with counts": Case(options={"min_replicates_for_replace": None}),
    "no gene everywhere: poscounts": Case(counts(a_zero_in_every_gene), options={"size_factors": "poscounts"}),
    "not integers: rounded": Case(counts(lambda values, obs: np.copyto(values, np.rint(values * 1.1 + 0.3)))),
    "nothing in the two groups": Case(three_groups, "~group", ("group", "q", "p")),
    "nothing in the two groups: by name": Case(three_groups, "~group", {"group[T.q]": 1}),
    "nothing in one cell: interaction": Case(counts(empty_cell), "~batch * condition", INTERACTION),
    "odd names": Case(
        samples(condition=lambda obs: obs["condition"].cat.rename_categories(ODD)),
        contrast=("condition", ODD["b"], ODD["a"]),
    ),
    "less variable than Poisson: gene-wise": Case(even, options=GENEWISE),
    "gene-wise": Case(options=GENEWISE),
    "intercept alone": Case(counts(few_counts), "~1", {"Intercept": 1}),
    "an outlier is all of a group": Case(
        one_outlier_in_p, "~group", ("group", "q", "p"), {"min_replicates_for_replace": 3}
    ),
    "replaced for a likelihood ratio": Case(
        outliers_in_many_genes,
        "~batch + condition",
        options={"reduced": "~batch", "min_replicates_for_replace": 3},
    ),
    "replaced from 3 on": Case(options={"min_replicates_for_replace": 3}),
}
#: Why the tolerance of a case is not 1e-5, relative to R's value, and what it is.
OPTIMISER = "a gene that leaves the iteration goes to a general optimiser, which stops elsewhere"
TOLERANCES = {
    "counts of 1e9": (2e-3, "likelihoods of 1e10 are rounded to 1e-6, where R's search stops"),
    "one sample with counts": (1e-4, OPTIMISER),
    "an outlier is all of a group": (1e-3, OPTIMISER),
    "gene-wise": (1e-4, OPTIMISER),
    "nothing in the two groups": (1e-2, OPTIMISER),
    "nothing in the two groups: by name": (1e-2, OPTIMISER),
    "nothing in one cell: interaction": (1e-3, OPTIMISER),
}


@pytest.mark.parametrize("name", ANSWERED)
def test_the_answer_is_rs(name):
    theirs = table("edge_cases").query("case == @name").set_index("gene")[RESULTS]
    ours = ANSWERED[name].run().loc[theirs.index]
    tolerance = TOLERANCES.get(name, (1e-5,))[0]
    for column in RESULTS:
        # without effects, fold changes are what the iteration leaves: one of 1e-6 is none
        assert worst(ours[column], theirs[column], absolute=2e-6) < tolerance, column


def test_every_answer_of_r_is_compared():
    assert set(ANSWERED) == set(table("edge_cases")["case"])


#: What R refuses, and a part of our line.
REFUSED = {
    "no residual degrees": (
        Case(lambda data: data[FEW].copy(), "~batch + condition", {"condition[T.b]": 1}),
        "3 coefficients for 3 samples leave nothing to estimate dispersion from; add replicates",
    ),
    "one gene": (Case(genes(5)), "take trend='none'"),
    "two genes": (Case(genes(5, 6)), "2 genes are too few for a local trend; take trend='mean'"),
    "all counts equal": (Case(set_to(7)), "every count is the same"),
    "all genes constant": (
        Case(counts(lambda values, obs: np.copyto(values, np.arange(1, 61)))),
        "",
    ),
    "all counts zero": (Case(set_to(0)), "every count is zero"),
    "no gene everywhere": (Case(counts(a_zero_in_every_gene)), "size_factors='poscounts'"),
    "not integers": (Case(counts(lambda values, obs: np.add(values, 0.3, out=values))), "round_counts=True"),
    "negative": (Case(set_to(-1, 0, 5)), "negative"),
    "missing count": (Case(set_to(np.nan, 0, 5)), ""),
    "a sample without counts": (Case(set_to(0, 0)), "sample 's1' has no counts; drop it"),
    "a sample without counts: poscounts": (
        Case(set_to(0, 0), options={"size_factors": "poscounts"}),
        "'s1' has no counts",
    ),
    "no samples in a cell": (Case(not_both, "~batch * condition", INTERACTION), "cannot be separated"),
    "constant covariate": (Case(samples(k=3.5), "~k + condition"), "k cannot be separated"),
    "collinear columns": (
        Case(samples(twice=lambda obs: 2 * obs["dose"] + 1), "~dose + twice + condition"),
        "dose and twice cannot be separated",
    ),
    "condition twice": (
        Case(samples(other=lambda obs: obs["condition"]), "~other + condition"),
        "other[T.b] and condition[T.b] cannot be separated",
    ),
    "missing covariate": (
        Case(samples(dose=lambda obs: obs["dose"].where(obs.index != "s3")), "~dose + condition"),
        "sample 's3' lacks a value",
    ),
    "target missing": (Case(contrast=("condition", "z", "a")), "has no level 'z' (levels: a, b)"),
    "level with itself": (Case(contrast=("condition", "a", "a")), "'a' is compared with itself"),
    "not in the design": (Case(contrast=("batch", "y", "x")), "'batch' is not in the design '~condition'"),
    "all weights zero": (Case(contrast={"condition[T.b]": 0}), "zero"),
    "reduced not nested": (Case(design="~batch + condition", options={"reduced": "~dose"}), "reduced design"),
    "reduced as large": (
        Case(design="~batch + condition", options={"reduced": "~batch + condition"}),
        "reduced design",
    ),
    "lessAbs at zero": (Case(options={"alt_hypothesis": "lessAbs"}), "threshold 0: it must be positive"),
    "negative threshold": (Case(options={"lfc_threshold": -1}), "threshold -1: it must be at least 0"),
    "less variable than Poisson": (Case(even), "take trend='none'"),
    "replaced from 2 on": (Case(options={"min_replicates_for_replace": 2}), "3"),
    "negative size factors": (
        Case(options={"size_factors": pd.Series(-1.0, [f"s{i + 1}" for i in range(14)])}),
        "size factors",
    ),
    "far covariate": (
        Case(samples(dose=lambda obs: obs["dose"] + 1e4), "~dose", {"dose": 1}),
        "centre and scale the numeric covariates",
    ),
}
#: R refuses integers above 2^31; ours are as exact as floats are, to 2^53.
FITTED_BY_OURS = {"counts above 2^31"}


def refusal(case):
    with pytest.raises(DataError) as caught:
        case.run()
    assert "\n" not in str(caught.value)
    return str(caught.value)


@pytest.mark.parametrize("name", REFUSED)
def test_what_r_refuses_is_refused_in_one_line(name):
    case, text = REFUSED[name]
    assert text in refusal(case)


def test_every_refusal_of_r_is_compared():
    assert set(REFUSED) | FITTED_BY_OURS == set(table("edge_refusals").index)


def test_counts_above_the_largest_integer_of_r_are_fitted():
    """A gene of 1e10 has the fold change of the same gene with counts that R takes, and leaves the others' as they are."""
    ours, small = Case(scale(5, 10**8)).run(), Case(scale(5, 10**3)).run()
    assert ours["baseMean"].iloc[5] > 2**33
    change, error = (ours[name].iloc[5] - small[name].iloc[5] for name in ("log2FoldChange", "lfcSE"))
    assert abs(change) < 0.01 * small["lfcSE"].iloc[5]
    assert abs(error) < 0.05 * small["lfcSE"].iloc[5]


#: What R fits and ours refuses, in one line.
STRICTER = {
    "three genes": (Case(genes(5, 6, 7)), "3 genes are too few for a local trend; take trend='mean'"),
    "one sample of a level": (
        Case(lambda data: data[FEW].copy()),
        "'b' of 'condition' has one sample; a comparison needs replicates",
    ),
}


@pytest.mark.parametrize("name", STRICTER)
def test_what_ours_alone_refuses_is_refused_in_one_line(name):
    case, text = STRICTER[name]
    assert text in refusal(case)


def unused_level(data):
    data.obs["condition"] = data.obs["condition"].cat.add_categories(["unused"])


def test_a_level_without_samples_changes_nothing():
    """R drops it, with a note."""
    pd.testing.assert_frame_equal(Case(unused_level).run(), Case().run())


#: Mistakes beside R's.
MISTAKES = {
    "alpha": (Case(options={"alpha": 2}), "alpha"),
    "threshold": (Case(options={"lfc_threshold": float("nan")}), "threshold"),
    "infinite count": (Case(set_to(np.inf, 0, 5)), ""),
    "factors of some samples": (Case(options={"size_factors": pd.Series(1.0, ["s1", "s2"])}), "s3"),
    "factors of some genes": (
        Case(options={"normalization_factors": pd.DataFrame(1.0, [f"s{i + 1}" for i in range(14)], ["g1", "g2"])}),
        "g3",
    ),
    "factors of zero": (
        Case(
            options={
                "normalization_factors": pd.DataFrame(
                    0.0, [f"s{i + 1}" for i in range(14)], [f"g{i + 1}" for i in range(60)]
                )
            }
        ),
        "factors",
    ),
    "contrast of two parts": (Case(contrast=("condition", "b")), "contrast"),
    "no design": (Case(design=""), "design"),
    "reduced to nothing": (Case(options={"reduced": "~0"}, contrast=None), "reduced"),
    "device": (Case(options={"device": "cuda:99"}), "cuda:99"),
    "shrunken difference of coefficients": (
        Case(three_groups, "~group", ("group", "r", "q"), {"shrink": "normal"}),
        "this contrast is not one coefficient",
    ),
    "infinite covariate": (
        Case(samples(dose=lambda obs: obs["dose"].where(obs.index != "s3", np.inf)), "~dose + condition"),
        "design '~dose + condition'",
    ),
}


@pytest.mark.parametrize("name", MISTAKES)
def test_other_mistakes_are_refused_in_one_line(name):
    case, text = MISTAKES[name]
    assert text in refusal(case)
