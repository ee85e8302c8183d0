import numpy as np
import pytest
import scipy
from pydeseq2.default_inference import DefaultInference
from pydeseq2.ds import DeseqStats

from epigen_utils.data import datasets, simulated_bulk
from epigen_utils.expression import designs, differential, gene_batches, normalisation
from epigen_utils.expression.gene_batches import GeneBatchInference


def fit(adata, design, inference):
    """PyDESeq2's data set after `differential.fit_design`, and its test of the last coefficient."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(differential, "GeneBatchInference", lambda: inference)
        dds = differential.fit_design(adata, design=design).dds
    with normalisation.quiet_pydeseq2():
        vector = np.eye(dds.obsm["design_matrix"].shape[1])[-1]
        test = DeseqStats(dds, contrast=vector, inference=inference, quiet=True)
        test.summary()
    return dds, test.results_df


@pytest.fixture(scope="module")
def airway():
    """Genes of any depth: some lie where the likelihood of the dispersion is flat."""
    return datasets.load("airway")[:, ::160].copy()


@pytest.fixture(scope="module")
def outliers():
    """Seven replicates with outlying counts, which PyDESeq2 replaces before it fits their genes again."""
    adata = simulated_bulk.negative_binomial_cohort(
        groups={"c": 7, "m": 7}, reference="c", n_genes=120, n_changed=20, seed=4
    )
    adata.layers["counts"][0, :10] *= 60
    adata.layers["counts"][:7, 20:24] = 0  # no count in a group: coefficients run away
    return adata


@pytest.mark.parametrize(("name", "design"), [("airway", "~cell + dex"), ("outliers", "~group"), ("outliers", "~1")])
def test_estimates_are_those_of_pydeseq2(request, name, design):
    adata = request.getfixturevalue(name)
    (ours, our_results), (theirs, their_results) = (
        fit(adata, design, inference) for inference in (GeneBatchInference(), DefaultInference(n_cpus=1))
    )
    for column in ("genewise_dispersions", "fitted_dispersions", "dispersions"):
        np.testing.assert_allclose(ours.var[column], theirs.var[column], rtol=1e-9, err_msg=column)
    for column in ("_genewise_converged", "_MAP_converged", "_LFC_converged", "refitted", "_pvalue_cooks_outlier"):
        assert ours.var[column].equals(theirs.var[column]), column
    np.testing.assert_allclose(ours.varm["LFC"], theirs.varm["LFC"], rtol=1e-9, atol=1e-12)
    np.testing.assert_allclose(our_results, their_results, rtol=1e-9, atol=1e-12)
    assert name != "outliers" or theirs.var["refitted"].any(), "the outliers test nothing"


def test_genes_that_diverge_are_left_to_pydeseq2(outliers):
    arguments = {"size_factors": np.ones(14), "min_mu": 0.5, "beta_tol": 1e-8, "max_beta": 2.0, "min_beta": -2.0}
    arguments |= {"counts": outliers.layers["counts"], "disp": np.full(120, 0.1)}
    arguments["design_matrix"] = designs.design_matrix(outliers, "~group").to_numpy(float)
    ours, theirs = (inference.irls(**arguments) for inference in (GeneBatchInference(), DefaultInference(n_cpus=1)))
    for one, other in zip(ours, theirs, strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-9)
    assert (np.abs(theirs[0]).max(axis=1) == 2).any(), "no gene reaches the bound"


@pytest.mark.skipif(not scipy.__version__.startswith(gene_batches.STEPPED_VERSION), reason="another SciPy")
def test_steps_together_end_where_steps_one_by_one_do(monkeypatch):
    """Also in a SciPy whose optimiser cannot be stepped: slower, and the same."""
    centers = np.array([-3.0, 0.2, 5.0, 1.0])

    def losses(x, positions):
        distance = x - centers[positions]
        return np.cosh(distance) + distance**4, np.sinh(distance) + 4 * distance**3

    together = gene_batches.minimise_each(losses, np.zeros(4), (-4.0, 2.0))
    monkeypatch.setattr(gene_batches, "STEPPED_VERSION", "none")
    one_by_one = gene_batches.minimise_each(losses, np.zeros(4), (-4.0, 2.0))
    for one, other in zip(together, one_by_one, strict=True):
        np.testing.assert_array_equal(one, other)
    np.testing.assert_allclose(together[0], [-3, 0.2, 2, 1], atol=1e-3)
    assert together[1].all()


def test_what_the_batches_cannot_do_is_refused():
    nothing = dict.fromkeys(["counts", "design_matrix", "mu", "alpha_hat", "min_disp", "max_disp"])
    with pytest.raises(NotImplementedError, match="without Cox and Reid"):
        GeneBatchInference().alpha_mle(**nothing, cr_reg=False)
    nothing = dict.fromkeys(["design_matrix", "disp", "lfc", "mu", "ridge_factor", "contrast", "lfc_null"])
    with pytest.raises(NotImplementedError, match="another hypothesis"):
        GeneBatchInference().wald_test(**nothing, alt_hypothesis="greater")
