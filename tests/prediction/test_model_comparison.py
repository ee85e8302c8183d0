from dataclasses import replace

import anndata
import numpy as np
import pandas as pd
import pytest

from epigen_utils import in_fold, sample_cohorts
from epigen_utils.errors import DataError

PLAIN = in_fold.rivals()["logistic regression"]


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
    cohort = sample_cohorts.load(own("aabbcc"), group="group", reference="b")
    assert cohort.sizes() == {"b": 2, "not b": 4}
    assert sample_cohorts.load(own("aabb"), group="group", reference="b").positive == "a"


def test_mistakes_are_one_line(own):
    with pytest.raises(DataError, match="no group column is named"):
        sample_cohorts.load(own("aabb"))
    with pytest.raises(DataError, match="all 4 samples are 'a'|at least two groups|one group"):
        sample_cohorts.load(own("aaaa"), group="group")
    with pytest.raises(DataError, match="class 'b': in one fold at most"):
        sample_cohorts.asked(sample_cohorts.load(own("aaab"), group="group"), PLAIN)
    with pytest.raises(DataError, match="did you mean 'planted'"):
        sample_cohorts.prior_genes(sample_cohorts.load("seizures-sim"), "plantet")
    with pytest.raises(DataError, match="has no gene of the prior 'planted'"):
        sample_cohorts.prior_genes(sample_cohorts.load("airway"), "planted")


def test_experiments_are_held_out_one_by_one(mirror):
    cohort = sample_cohorts.load("rat-seizures")
    assert cohort.sizes() == {"sham": 10, "seizures": 8}
    found = sample_cohorts.asked(cohort, in_fold.InFold(PLAIN, cohort.genes, 64), n_repeats=5)
    assert found["repeat"].nunique() == 1
    held = found.groupby("fold")["row"].apply(lambda rows: set(cohort.batch[rows]))
    assert sorted(map(tuple, held)) == [("kainate",), ("kindling",)]
    assert found["donor"].nunique() == 18


def test_shuffles_stay_within_an_experiment(mirror, monkeypatch):
    cohort = sample_cohorts.load("rat-seizures")
    seen = []
    monkeypatch.setattr(
        in_fold.InFold, "fit", lambda self, X, y: seen.append(y) or (_ for _ in ()).throw(StopIteration)
    )
    with pytest.raises((StopIteration, RuntimeError)):
        sample_cohorts.shuffled(cohort, in_fold.InFold(PLAIN, cohort.genes, 8), n_permutations=3)
    assert len(seen) == 1
    assert (seen[0] == "seizures").sum() in (3, 5), "one experiment, with as many seizures as it has"


def test_tumours_of_a_patient_are_on_one_side():
    cohort = sample_cohorts.load("tcga-brca-subtype")
    assert cohort.sizes() == {"ductal": 780, "lobular": 204}
    assert len(set(cohort.units)) < len(cohort.y)
    part = sample_cohorts.part(cohort, 160, 0)
    assert 120 < len(part.y) < 200
    assert part.adata.n_obs == len(part.y)
    found = sample_cohorts.asked(part, in_fold.InFold(PLAIN, part.genes, 32))
    assert (found.groupby("donor")["fold"].nunique() == 1).all()


def test_an_ablation_sets_variants_beside_the_base_in_the_same_folds():
    cohort = sample_cohorts.simulated(1, 100)
    base = in_fold.InFold(PLAIN, cohort.genes, 64, "expression difference")
    majority = in_fold.InFold(in_fold.rivals()["majority"], cohort.genes, 64)
    table = sample_cohorts.ablation(cohort, base, {"same": base, "majority": majority}).set_index("variant")
    assert np.isnan(table["difference"].iloc[0])
    assert table.loc["same", "difference"] == 0
    assert table.loc["majority", "difference"] == pytest.approx(0.5 - table["auc"].iloc[0], abs=0.05)
    assert sample_cohorts.overfitting(cohort, majority, sample_cohorts.asked(cohort, majority)) == 0


def test_what_species_share_is_found_and_shuffled_labels_find_nothing():
    one, other = (sample_cohorts.load(name) for name in ("species-one-sim", "species-other-sim"))
    truth = [cohort.adata.varm["log2_fold_change"]["case"] for cohort in (one, other)]
    pd.testing.assert_series_equal(*truth)
    table, found = sample_cohorts.transferred(one, other, in_fold.rivals(), n_genes=64)
    auc = table.set_index("model")["auc"]
    assert auc["logistic regression"] > 0.95
    assert auc["majority"] == 0.5
    assert len(found["random forest"]) == 32
    null = sample_cohorts.transferred_shuffled(one, other, n_genes=64, n_permutations=9)
    assert abs(null.mean() - 0.5) < 0.25
    with pytest.raises(DataError, match="0 genes in common"):
        sample_cohorts.transferred(one, sample_cohorts.load("airway"), in_fold.rivals())


def test_what_an_auc_can_be_is_a_share_of_the_pairs_within_folds():
    """Three against three in three folds: three pairs, and no AUC near 0.90."""
    cohort = sample_cohorts.simulated(0, 0, n=3)
    predictions = sample_cohorts.asked(
        cohort, in_fold.InFold(in_fold.rivals()["majority"], cohort.genes, 4), n_splits=3
    )
    row = sample_cohorts.attainable(cohort, predictions, target=0.90)
    assert (row["pairs"], row["pairs in one fold"]) == (9, 3)
    assert row["nearest to 0.90"] == 1.0
    assert row["smallest p"] == pytest.approx(1 / 20)
    # Each donor has one sample of either class: labels are exchanged within donors.
    paired = replace(cohort, units=np.array(["x", "y", "z"] * 2))
    assert sample_cohorts.attainable(paired, predictions, target=0.90)["smallest p"] == pytest.approx(1 / 8)


def test_too_few_labelings_give_no_p():
    cohort = sample_cohorts.simulated(0, 200, n=6)
    models = {"LR": in_fold.InFold(in_fold.rivals()["logistic regression"], cohort.genes, 8)}
    few, _ = sample_cohorts.compare(cohort, models, n_splits=3, n_shuffles=2)
    assert few["labelings"].item() == 2
    assert few["p"].isna().all()
    enough, _ = sample_cohorts.compare(cohort, models, n_splits=3, n_shuffles=19)
    assert enough["p"].item() == 0.05
