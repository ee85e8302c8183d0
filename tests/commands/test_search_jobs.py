import numpy as np
import pytest

from epigen_utils.book import runs
from epigen_utils.commands import search_jobs
from epigen_utils.errors import DataError
from epigen_utils.expression import fold_selection
from epigen_utils.prediction import sample_cohort
from epigen_utils.stats import folds, two_classes


def test_a_job_says_in_one_line_what_is_wrong(tmp_path, capsys):
    values = {
        "dataset": "seizures-sim",
        "grid": {"learning_rat": [1.0]},
        "search_jobs": 1,
        "results_dir": str(tmp_path),
    }
    run = runs.Run("demo", "epilepsy/06_fine_tuning", "main", values)
    assert search_jobs.main(run.to_json(), "0") == 1
    assert capsys.readouterr().err == "epigen: grid over 'learning_rat': did you mean 'learning_rate'?\n"


def test_a_search_is_measured_on_samples_that_chose_nothing(tmp_path):
    """Of cohorts without any difference; genes chosen with the samples held back would find one (AUC 1.00)."""
    found = []
    for seed in range(12):
        path = tmp_path / f"nothing-{seed}.h5ad"
        sample_cohort.simulated_cohort(seed, 0).adata.write_h5ad(path)
        fold = search_jobs.load_search_fold(dataset=str(path), group="group", n_genes=32, seed=seed)
        model = fold_selection.baseline_models()["logistic regression"].fit(*fold.inside)
        p = folds.class_probability(model, fold.outside[0], fold.cohort.positive)
        found.append(two_classes.roc_auc(p, fold.outside[1] == fold.cohort.positive))
        assert len(fold.inside[0]) + len(fold.outside[0]) == len(fold.train[0])
        assert fold.train[0].shape[1] == fold.test[0].shape[1] == 32
    assert np.mean(found) < 0.7


def test_too_few_to_be_divided_twice(tmp_path):
    cohort = sample_cohort.simulated_cohort(0, 0, n=2)
    cohort.adata.write_h5ad(tmp_path / "few.h5ad")
    with pytest.raises(DataError, match="in one fold at most, so that nothing is left to learn it from"):
        search_jobs.load_search_fold(dataset=str(tmp_path / "few.h5ad"), group="group")
