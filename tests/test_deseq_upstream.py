"""Where PyDESeq2 0.5.4 differs from R DESeq2 1.38.3, and where R itself is doubtful: each row of data/upstream_deseq2.csv.

R's numbers are those of data/reference/deseq2_units.R. PyDESeq2 runs here.
"""

import csv
import warnings

import numpy as np
import pandas as pd
import pytest
import torch
from deseq_units import adata, by_sample, counts, design, single, table
from pydeseq2.dds import DeseqDataSet
from pydeseq2.default_inference import DefaultInference
from pydeseq2.ds import DeseqStats
from scipy.special import polygamma

from epigen_utils import paths
from epigen_utils.data import datasets
from epigen_utils.deseq import dispersions, fitting, glm, size_factors, testing, trends
from epigen_utils.deseq.posteriors import Posterior
from epigen_utils.expression import formulas, normalisation

B_AGAINST_A = ["condition", "b", "a"]
INFERENCE = DefaultInference(n_cpus=1)


def data_set(data, formula, **options):
    """PyDESeq2's object."""
    return DeseqDataSet(
        counts=normalisation.count_table(data),
        metadata=formulas.covariates(data.obs),
        design=formula,
        inference=INFERENCE,
        quiet=True,
        **options,
    )


def pydeseq2(data, formula, contrast, **options):
    """PyDESeq2's fit and test, without its warnings; results by the names of the genes."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        fit = data_set(data, formula, **options)
        fit.deseq2()
        test = DeseqStats(fit, contrast=contrast, inference=INFERENCE, quiet=True)
        test.summary()
    return fit, test


@pytest.fixture(scope="module")
def batch():
    return pydeseq2(adata(), "~batch + condition", B_AGAINST_A)


@pytest.fixture(scope="module")
def pasilla():
    return datasets.load("pasilla")


def test_the_table_names_these_tests_and_says_what_each_is():
    with open(paths.DATA / "upstream_deseq2.csv", newline="") as file:
        rows = list(csv.DictReader(file))
    assert list(rows[0]) == ["id", "where", "what", "consequence", "size", "test"]
    assert len({row["id"] for row in rows}) == len(rows)
    assert {row["where"] for row in rows} == {"PyDESeq2 0.5.4", "R DESeq2 1.38.3"}
    assert all(all(row.values()) for row in rows)
    named = {row["test"] for row in rows}
    here = {name for name in globals() if name.startswith("test_") and not name.startswith("test_the_table")}
    assert named == {f"tests/test_deseq_upstream.py::{name}" for name in here}


# PyDESeq2


def test_pydeseq2_takes_trigamma_with_three_degrees_of_freedom(pasilla):
    """Five samples, two coefficients: R matches simulated residuals, PyDESeq2 subtracts trigamma, and is at the least."""
    five = pasilla[["treated1", "treated2", "untreated1", "untreated2", "untreated3"], ::32].copy()
    fit, _ = pydeseq2(five, "~condition", ["condition", "treated", "untreated"])
    assert fit.uns["prior_disp_var"] == 0.25
    assert single("prior_variance.five") == pytest.approx(0.5365, abs=1e-4)


def test_pydeseq2_fits_another_trend_to_the_same_dispersions(pasilla):
    """R's gene-wise dispersions of every eighth gene, with the trend that R fits to them."""
    theirs = pd.read_csv(paths.DATA / "reference" / "pasilla_dispersions.csv.gz", index_col=0, skipinitialspace=True)
    means = pd.read_csv(paths.DATA / "reference" / "pasilla_results.csv.gz", index_col=0, skipinitialspace=True)
    eighth = pasilla[:, means.index]
    kept = theirs["genewise"].notna().to_numpy()
    genewise, mean, trend = theirs["genewise"][kept], means["baseMean"].to_numpy()[kept], theirs["trend"][kept]
    fit = data_set(eighth[:, kept].copy(), "~condition")
    fit.fit_size_factors()
    fit.var["genewise_dispersions"], fit.var["_normed_means"], fit.var["non_zero"] = genewise.to_numpy(), mean, True
    fit.non_zero_genes = fit.var_names
    fit.fit_dispersion_trend()
    ours = trends.fit(mean, genewise.to_numpy(), "parametric")
    np.testing.assert_allclose(ours(mean), trend, rtol=1e-6)
    assert ours.coefficients[1] == pytest.approx(2.553, abs=1e-3)
    assert fit.uns["trend_coeffs"].iloc[1] == pytest.approx(1.812, abs=1e-3)


def test_pydeseq2_finds_the_maximum_where_r_keeps_a_guess(batch):
    theirs = table("fit_batch")["dispGeneEst"]
    used = (theirs > 1e-6).to_numpy()
    ratio = batch[0].var["genewise_dispersions"].to_numpy()[used] / theirs.to_numpy()[used]
    assert 0.15 < (np.abs(ratio - 1) > 0.01).mean() < 0.25
    assert np.abs(np.median(ratio) - 1) < 1e-4


def rising():
    """80 genes whose dispersions rise with the mean, as in deseq2_units.R."""
    means, z = np.exp(np.linspace(2, 8, 80)), np.array([-1.2, -0.4, 0.5, 1.1, -1, 0.3, -0.2, 0.9])
    spread = np.sqrt(1 / means + 0.01 * means**0.4) * (1 + 0.3 * np.sin(np.arange(1, 81)))
    values = np.rint(means * (1 + np.outer(z, spread))).astype(int)
    data = adata(slice(80))[[0, 1, 2, 3, 7, 8, 9, 10]].copy()
    data.layers["counts"] = values
    return data


def test_pydeseq2_falls_back_to_a_constant_trend():
    fit, _ = pydeseq2(rising(), "~condition", B_AGAINST_A)
    some = [0, 39, 79]
    assert fit.uns["disp_function_type"] == "mean"
    assert len(set(fit.var["fitted_dispersions"].iloc[some].round(12))) == 1
    ours = fitting.fit(rising().layers["counts"], np.column_stack([np.ones(8), np.repeat([0, 1], 4)]))
    assert ours.trend.kind == "local"
    np.testing.assert_allclose(ours.of_all(ours.genes.trend)[some], single("rising"), rtol=1e-4)
    assert single("rising").max() > 3 * single("rising").min()


def test_pydeseq2_compares_groups_without_counts():
    """A gene seen in the third of three groups alone, the first two compared."""
    data = adata()
    data.obs["group"] = pd.Categorical(list("pppppqqqqqrrrr"))
    data.layers["counts"][data.obs["group"] != "r", 6] = 0
    _, test = pydeseq2(data, "~group", ["group", "q", "p"])
    found = test.results_df.loc["g7"]
    assert found["log2FoldChange"] == pytest.approx(-0.717, abs=5e-3)
    assert found["pvalue"] < 0.8
    theirs = table("edge_cases").query("case == 'nothing in the two groups' and gene == 'g7'").iloc[0]
    assert (theirs["log2FoldChange"], theirs["pvalue"]) == (0, 1)


SPARED = [9, 11, 10, 400, 8, 12, 10, 900, 1100, 1000, 950, 1050, 1000, 980]


def with_spared():
    """A gene with an outlier among small counts, and seven larger counts in the other condition."""
    data = adata()
    data.layers["counts"][:, 19] = SPARED
    return data


def test_pydeseq2_spares_outliers_with_three_larger_counts_in_any_design():
    _, test = pydeseq2(with_spared(), "~batch + condition", B_AGAINST_A, refit_cooks=False)
    assert test.results_df["pvalue"].iloc[19] < 1e-6
    assert np.isnan(single("spared")[1])


def alternative(batch, name):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        test = DeseqStats(
            batch[0], contrast=B_AGAINST_A, inference=INFERENCE, quiet=True, lfc_null=0.5, alt_hypothesis=name
        )
        test.summary()
    return test.results_df["pvalue"].to_numpy()


def test_pydeseq2_gives_no_one_sided_p_value_above_a_half(batch):
    """Its statistic is cut at zero before the p-value is taken; R's after."""
    for name, largest in (("greater", 0.5), ("lessAbs", 0.5)):
        assert np.nanmax(alternative(batch, name)) == largest
        assert table("tests_batch")[f"pvalue.{name}"].max() > 0.99


def test_pydeseq2_tests_less_against_the_other_side(batch):
    """R's `less` asks whether a fold change is below minus the threshold, PyDESeq2's whether it is below the threshold."""
    ours, theirs = alternative(batch, "less"), table("tests_batch")["pvalue.less"].to_numpy()
    unchanged = np.abs(table("fit_batch")["log2FoldChange"].to_numpy()) < 0.1
    assert np.nanmedian(ours[unchanged]) < 0.1
    assert np.nanmedian(theirs[unchanged]) > 0.9


def test_pydeseq2_has_no_p_value_where_nothing_is_left():
    _, test = pydeseq2(adata(), "~condition", B_AGAINST_A)
    assert np.isnan(test.results_df["pvalue"].iloc[1])
    assert table("fit_replaced")["pvalue"].iloc[1] == 1


def test_pydeseq2_takes_other_size_factors_where_no_gene_is_everywhere():
    data = adata(slice(28))
    data.layers["counts"][np.arange(28) % 14, np.arange(28)] = 0
    fit = data_set(data, "~condition")
    with pytest.warns(UserWarning, match="Switching to iterative mode"):
        fit.fit_size_factors()
    poscounts = size_factors.estimate(data.layers["counts"], "poscounts")
    assert np.abs(fit.obs["size_factors"] / poscounts - 1).max() > 0.05
    assert "every gene contains at least one zero" in table("edge_refusals").loc["no gene everywhere", "message"]


def test_pydeseq2_stabilises_low_counts_to_other_values():
    fit = data_set(adata(), "~batch + condition")
    fit.vst(use_design=False)
    off = np.abs(np.asarray(fit.layers["vst_counts"])[:, 1:9] - by_sample("vst", "blind").to_numpy())
    assert off.max() == pytest.approx(0.54, abs=0.02)
    assert off[by_sample("vst", "blind").to_numpy() > 8].max() < 0.07


def with_dose(change):
    data = adata()
    data.obs["dose"] = change(data.obs["dose"])
    return data


def test_pydeseq2_gives_p_values_of_zero_for_a_covariate_of_large_scale():
    """Of the fifth gene, which has an outlier: 1.4e-4 as given, 0 times 10,000."""
    given, times = (
        pydeseq2(with_dose(lambda dose, scale=scale: dose * scale), "~dose", np.array([0, 1.0]))[1].results_df
        for scale in (1, 1e4)
    )
    assert given["pvalue"].iloc[4] == pytest.approx(1.45e-4, rel=0.01)
    assert times["pvalue"].iloc[4] == 0


def test_pydeseq2_has_no_answer_for_a_covariate_far_from_zero():
    found = pydeseq2(with_dose(lambda dose: dose + 1000), "~dose", np.array([0, 1.0]))[1].results_df
    assert found["pvalue"].iloc[1:].isna().sum() > 3


def test_pydeseq2_goes_on_without_a_trend():
    """Counts that vary less than Poisson's: R refuses; PyDESeq2's trend is missing, and gene-wise estimates are used."""
    data = adata(slice(40))[[0, 1, 2, 3, 7, 8, 9, 10]].copy()
    data.layers["counts"] = 50 + np.array([[-3, -1, 0, 2, 1, 3, -2, 0]]).T + np.arange(1, 41)
    fit, test = pydeseq2(data, "~condition", B_AGAINST_A)
    assert fit.var["fitted_dispersions"].isna().all()
    assert test.results_df["pvalue"].notna().all()
    assert "One can instead use the gene-wise" in table("edge_refusals").loc["less variable than Poisson", "message"]


@pytest.mark.slow
def test_pydeseq2_gives_larger_deviations_after_shrinkage(pasilla):
    """Gene FBgn0000024 of the vignette: 0.199 there; fold changes agree."""
    kept = pasilla[:, (pasilla.layers["counts"] >= 10).sum(axis=0) >= 3].copy()
    _, test = pydeseq2(kept, "~condition", ["condition", "treated", "untreated"])
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        test.lfc_shrink(coeff="condition[T.treated]")
    found = test.results_df.loc["FBgn0000024"]
    assert found["log2FoldChange"] == pytest.approx(0.017865, rel=0.02)
    assert found["lfcSE"] > 1.25 * 0.199499


# R


@pytest.fixture(scope="module")
def grid(pasilla):
    """Of pasilla's genes with counts: R's path by ours, moment guesses, and the maximum of the posterior on a grid."""
    columns = [pasilla.obs["type"] == "single-read", pasilla.obs["condition"] == "treated"]
    matrix = np.column_stack([np.ones(7), *columns]).astype(float)
    fit = fitting.fit_trend(pasilla.layers["counts"], matrix)
    guesses = dispersions.initial_dispersions(fit.counts / fit.factors, fit.design, float((1 / fit.factors).mean()))
    means = glm.regress(fit.counts, fit.factors, guesses, fit.design).mu.clamp(min=0.5)
    posterior = Posterior(fit.counts, means, fit.design).prepare()

    def at(alpha):
        return posterior.evaluate(alpha.log())[0].numpy()

    points = torch.linspace(np.log(1e-8), np.log(10), 240, dtype=torch.float64)
    values = np.stack([at(torch.full_like(guesses, float(point.exp()))) for point in points])
    found = pd.DataFrame(
        {
            "mean": fit.genes.base_mean,
            "R": fit.genes.genewise,
            "guess": guesses,
            "best": points[values.argmax(axis=0)].exp(),
            "gain": values.max(axis=0) - at(fit.genes.genewise),
        }
    )
    return found.set_index(pasilla.var_names[fit.present])


#: Genes of which R's gene-wise dispersions are recorded.
GENES = ["FBgn0067861", "FBgn0038237", "FBgn0031664", "FBgn0037376", "FBgn0039503", "FBgn0052640"]


def test_r_stays_at_the_smallest_dispersion(grid):
    """A search that starts at 1e-8 has no slope there, however much higher the posterior is elsewhere."""
    np.testing.assert_allclose(grid["R"].loc[GENES], single("genewise"), rtol=1e-6)
    start = grid.loc[GENES[:2]]
    assert (start["R"] == 1e-8).all()
    assert (start["best"] > 0.1).all()
    assert (start["gain"] > 4.5).all()
    seen = grid[grid["mean"] > 10]
    stuck = (seen["R"] < 1e-7) & (seen["best"] > 1e-3)
    assert 600 < stuck.sum() < 800
    assert len(seen) == 7999


def test_r_keeps_a_moment_estimate(grid):
    """Where the search gains less than a millionth of the log posterior, which is the larger the larger the counts."""
    kept = grid.loc[GENES[2:4]]
    np.testing.assert_allclose(kept["R"], kept["guess"])
    assert (kept["best"] > 400 * kept["R"]).all()
    assert (kept["gain"] > 0.3).all()
    seen = grid[(grid["mean"] > 10) & (grid["R"] > 1e-6) & (np.abs(grid["R"] / grid["guess"] - 1) < 1e-9)]
    assert 60 < (np.abs(seen["best"] / seen["R"] - 1) > 0.2).sum() < 90


def test_r_ends_a_search_where_the_posterior_is_flat(grid):
    """A step that gains less than 1e-6 ends it."""
    early = grid.loc[GENES[4:]]
    assert (early["guess"] < early["R"]).all(), "it has moved"
    assert (early["best"] > 7 * early["R"]).all()
    assert early["gain"].between(0.02, 0.05).all()


def test_where_rs_search_near_zero_ends_depends_on_rounding(pasilla):
    """FBgn0051547, `~1`: 100 steps to 4.6e-5, whose posterior is 3e-7 above that at 1e-8; doubles of 100 keep 1e-14 each."""
    y = pasilla[:, "FBgn0051547"].layers["counts"][:, 0].astype(int)
    factors = size_factors.estimate(pasilla.layers["counts"])
    mu = np.maximum(factors * (y / factors).mean(), 0.5)

    def log_posterior(alpha):
        """Without cancellation: log gammas as sums of logarithms."""
        terms = sum(np.log1p(alpha * np.arange(n)).sum() for n in y) - ((y + 1 / alpha) * np.log1p(alpha * mu)).sum()
        return terms - 0.5 * np.log((1 / (1 / mu + alpha)).sum())

    found = single("flat")
    assert found == pytest.approx(4.6219e-5, rel=1e-4)
    assert 1e-7 < log_posterior(found) - log_posterior(1e-8) < 1e-6
    assert log_posterior(1e-4) < log_posterior(1e-8) + 1e-6


def test_r_measures_a_gene_unseen_in_a_group_by_a_mean_of_a_half(batch):
    """Weights of the standard error have means of 0.5 at least; with the means themselves it is half as large again."""
    theirs = table("fit_batch").iloc[2]
    fit = fitting.fit(counts(), design("batch", "condition"))
    place = torch.as_tensor(np.flatnonzero(fit.present == 2))
    mu, alpha = fit.means(place), fit.genes.dispersion[place]
    weights = (mu / (1 + mu * alpha))[:, 0].numpy()
    matrix = fit.design.matrix.numpy()
    error = np.sqrt(np.linalg.inv(matrix.T * weights @ matrix)[2, 2]) / np.log(2)
    assert theirs["lfcSE"] == pytest.approx(0.8022, abs=1e-4)
    assert error == pytest.approx(1.230, abs=2e-3)
    assert batch[1].results_df["lfcSE"].iloc[2] == pytest.approx(error, rel=2e-3)
    assert theirs["pvalue"] < 1e-48
    assert batch[1].results_df["pvalue"].iloc[2] > 1e-23


def test_r_forgets_replaced_counts_when_it_shrinks():
    """The fifth gene of `~condition`: its outlier is replaced for the test and not for `lfcShrink(type = "normal")`."""
    tested, (shrunken, _) = table("fit_replaced").iloc[4], single("forgotten")
    assert tested["replace"]
    assert abs(tested["log2FoldChange"]) < 0.02
    assert shrunken == pytest.approx(-4.879, abs=1e-3)


def test_r_spares_outliers_with_larger_counts_in_two_groups_alone():
    spared, flagged = single("spared")
    assert spared == pytest.approx(4.07e-4, rel=0.01)
    assert np.isnan(flagged)
    for terms, two_groups in ((("condition",), True), (("batch", "condition"), False)):
        fit = fitting.fit(with_spared().layers["counts"], design(*terms), min_replicates=None)
        contrast = np.eye(len(terms) + 1)[-1]
        ours = testing.wald(fit, contrast, two_groups=two_groups).pvalue[19]
        assert np.isnan(ours) != two_groups


def test_r_depends_on_the_scale_of_a_covariate():
    """The fifth gene of `~dose`: R's optimiser takes slopes over steps of a thousandth in the coefficient."""
    given, times = single("scaled")
    assert given == pytest.approx(1.45e-4, rel=0.01)
    assert times == pytest.approx(0.508, abs=1e-3)


def test_r_shrinks_by_a_covariate_far_from_zero():
    """`~dose` and `~dose + 1000`, as of years: the weak ridge is on the intercept too, which is then far from zero."""
    change, error, called = single("shifted.0.")
    far_change, far_error, far_called = single("shifted.1000.")
    assert (called, far_called) == (2, 0)
    assert far_change < 0.5 * change
    assert far_error > 4 * error
    assert "computationally singular" in table("edge_refusals").loc["far covariate", "message"]


def test_rs_filter_jumps_with_the_level():
    """Cut-off, tested and called genes at three levels; ours are the same."""
    fit = fitting.fit(counts(), design("condition"))
    for alpha, tested in ((0.03, 148), (0.05, 139), (0.1, 148)):
        theirs = single(f"filter.{alpha}.")
        ours = testing.wald(fit, np.array([0, 1]), alpha=alpha, two_groups=True).padj
        assert theirs[1] == tested
        assert (np.isfinite(ours).sum(), (ours < alpha).sum()) == (theirs[1], theirs[2])


def test_rs_simulated_prior_variance_is_off_by_its_draws():
    """5,000 log dispersions of variance 0.5 with three degrees of freedom: 0.57, twenty times; trigamma gives 0.38."""
    rng = np.random.default_rng(1)
    simulated, by_trigamma = [], []
    trend = np.ones(5000)
    for _ in range(20):
        genewise = np.exp(rng.normal(0, 0.5**0.5, 5000)) * rng.chisquare(3, 5000) / 3
        simulated.append(trends.prior_variance(genewise, trend, 3))
        by_trigamma.append(trends.scatter(genewise, trend) - polygamma(1, 1.5))
    assert np.mean(simulated) == pytest.approx(0.57, abs=0.02)
    assert np.std(simulated) < 0.04
    assert np.mean(by_trigamma) == pytest.approx(0.38, abs=0.03)


def test_r_takes_no_counts_above_its_integers():
    assert "NA values are not allowed" in table("edge_refusals").loc["counts above 2^31", "message"]
    values = counts()[:, :60]
    values[:, 5] *= 10**8
    assert values[:, 5].max() > 2**31
    fit = fitting.fit(values, design("condition"))
    assert np.isfinite(fit.of_all(fit.genes.dispersion)[5])


def test_r_answers_by_name_what_it_does_not_by_levels():
    """A gene without counts in the two levels: a p-value of 1 by the contrast, another by the coefficient, which is it."""
    cases = table("edge_cases").query("gene == 'g7'").set_index("case")["pvalue"]
    assert cases["nothing in the two groups"] == 1
    assert cases["nothing in the two groups: by name"] == pytest.approx(0.618, abs=1e-3)
