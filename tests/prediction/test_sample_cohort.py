import anndata
import numpy as np
import pandas as pd
import pytest

from epigen_utils.errors import DataError
from epigen_utils.expression import fold_selection
from epigen_utils.prediction import model_comparison, sample_cohort

PLAIN = fold_selection.baseline_models()["logistic regression"]


@pytest.fixture
def own(tmp_path):
    """A file of samples in groups as they are named."""

    def write(groups, name="own.h5ad"):
        counts = np.random.default_rng(0).poisson(50, (len(groups), 20))
        obs = pd.DataFrame({"group": list(groups)}, [f"s{i}" for i in range(len(groups))])
        anndata.AnnData(counts, obs, pd.DataFrame(index=[f"g{i}" for i in range(20)])).write_h5ad(tmp_path / name)
        return str(tmp_path / name)

    return write


def test_the_reference_is_one_class_and_everything_else_the_other(own):
    cohort = sample_cohort.load_cohort(own("aabbcc"), group="group", reference="b")
    assert cohort.sizes() == {"b": 2, "not b": 4}
    assert sample_cohort.load_cohort(own("aabb"), group="group", reference="b").positive == "a"


def test_embeddings_take_the_place_of_counts_and_samples_stay(own):
    cohort = sample_cohort.load_cohort(own("aabb"), group="group")
    assert (cohort.values == cohort.adata.to_df("counts")[cohort.genes]).all(axis=None)
    embedded = sample_cohort.with_values(cohort, np.eye(4, 3))
    np.testing.assert_array_equal(embedded.values, np.eye(4, 3))
    assert "counts" not in embedded.adata.layers
    assert (embedded.y == cohort.y).all()
    assert (embedded.units == cohort.units).all()


def test_mistakes_are_one_line(own):
    with pytest.raises(DataError, match="no group column is named"):
        sample_cohort.load_cohort(own("aabb"))
    with pytest.raises(DataError, match="all 4 samples are 'a'|at least two groups|one group"):
        sample_cohort.load_cohort(own("aaaa"), group="group")
    with pytest.raises(DataError, match="class 'b': in one fold at most"):
        model_comparison.predict_out_of_fold(sample_cohort.load_cohort(own("aaab"), group="group"), PLAIN)
    with pytest.raises(DataError, match="did you mean 'planted'"):
        sample_cohort.prior_genes(sample_cohort.load_cohort("seizures-sim"), "plantet")
    with pytest.raises(DataError, match="has no gene of the prior 'planted'"):
        sample_cohort.prior_genes(sample_cohort.load_cohort("airway"), "planted")


def test_tumours_of_a_patient_are_on_one_side():
    cohort = sample_cohort.load_cohort("tcga-brca-subtype")
    assert cohort.sizes() == {"ductal": 780, "lobular": 204}
    assert len(set(cohort.units)) < len(cohort.y)
    part = sample_cohort.subsample_cohort(cohort, 160, 0)
    assert 120 < len(part.y) < 200
    assert part.adata.n_obs == len(part.y)
    found = model_comparison.predict_out_of_fold(part, fold_selection.FoldPipeline(PLAIN, part.genes, 32))
    assert (found.groupby("donor")["fold"].nunique() == 1).all()
