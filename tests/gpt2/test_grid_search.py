import dataclasses
import json

import numpy as np
import pandas as pd
import pytest
from test_sentence_classes import QUICK, samples

from epigen_utils import evaluation, grid_search, in_fold, notebooks, paths, runs, sample_cohorts
from epigen_utils.errors import DataError
from epigen_utils.sentence_classes import GPT2Classifier


def test_search_goes_over_the_grid_and_names_the_best(tmp_path):
    values, y = samples(16)
    held, truth = samples(8, seed=3)
    grid = {"learning_rate": [1e-6, 1e-3], "max_length": [12, 24]}
    made = GPT2Classifier(settings=QUICK, folder=tmp_path)
    table = grid_search.search(made, (values, y), (held, truth), "b", grid)
    assert len(table) == 4
    best = grid_search.best(table, grid)
    assert best["learning_rate"] == 1e-3
    again = grid_search.search(made, (values, y), (held, truth), "b", grid)
    pd.testing.assert_frame_equal(again.drop(columns="seconds"), table.drop(columns="seconds"))
    with pytest.raises(DataError, match="'learning_rate'"):
        grid_search.search(made, (values, y), (held, truth), "b", {"learning_rat": [1]})


def test_points_of_other_jobs_are_found_done_by_the_page(tmp_path, monkeypatch):
    """Two jobs of a run of the notebook itself, then what the page does: nothing is fitted any more."""
    grid = {"learning_rate": [0.001], "batch_size": [8], "max_length": [16], "epochs": [1.0, 2.0, 3.0]}
    given = {"dataset": "seizures-sim", "max_samples": 24, "n_genes": 16, "grid": grid, "search_jobs": 2}
    values = given | {"results_dir": str(tmp_path / "main")}
    run = runs.Run("demo", "epilepsy/06_fine_tuning", "main", values)
    for job in range(run.search_jobs):
        assert grid_search.main(run.to_json(), str(job)) == 0
    before = {path: path.stat().st_mtime_ns for path in (tmp_path / "main" / "models").rglob("history.csv")}
    assert len(before) == 3
    monkeypatch.setattr(
        "epigen_utils.training.Trainer.train", lambda self, *_, **__: pytest.fail("it was fitted again"), raising=False
    )
    found = grid_search.fold(dataset="seizures-sim", max_samples=24, n_genes=16)
    bare = grid_search.classifier(results_dir=str(tmp_path / "main"))
    table = grid_search.search(bare, found.inside, found.outside, found.cohort.positive, grid)
    assert len(table) == 3
    after = {path: path.stat().st_mtime_ns for path in (tmp_path / "main" / "models").rglob("history.csv")}
    assert after == before


def test_a_job_says_in_one_line_what_is_wrong(tmp_path, capsys):
    values = {
        "dataset": "seizures-sim",
        "grid": {"learning_rat": [1.0]},
        "search_jobs": 1,
        "results_dir": str(tmp_path),
    }
    run = runs.Run("demo", "epilepsy/06_fine_tuning", "main", values)
    assert grid_search.main(run.to_json(), "0") == 1
    assert capsys.readouterr().err == "epigen: grid over 'learning_rat': did you mean 'learning_rate'?\n"


def test_what_a_page_sets_by_itself_is_what_a_job_takes():
    source = paths.NOTEBOOKS / "epilepsy" / "06_fine_tuning.ipynb"
    found = notebooks.defaults(source)
    assert set(found) == set(notebooks.parameters(source))
    assert found["grid"]["epochs"] == [4.0, 8.0]
    run = runs.Run("demo", "epilepsy/06_fine_tuning", "main", {})
    assert run.search_jobs == 0
    spread = dataclasses.replace(run, parameters={"search_jobs": 2})
    assert [spread.searched(job).name for job in range(2)] == ["0.done", "1.done"]
    assert json.loads(spread.to_json())["parameters"] == {"search_jobs": 2}


def test_a_search_is_measured_on_samples_that_chose_nothing(tmp_path):
    """Of cohorts without any difference; genes chosen with the samples held back would find one (AUC 1.00)."""
    found = []
    for seed in range(12):
        path = tmp_path / f"nothing-{seed}.h5ad"
        sample_cohorts.simulated(seed, 0).adata.write_h5ad(path)
        fold = grid_search.fold(dataset=str(path), group="group", n_genes=32, seed=seed)
        model = in_fold.rivals()["logistic regression"].fit(*fold.inside)
        p = evaluation.probability_of(model, fold.outside[0], fold.cohort.positive)
        found.append(evaluation.auc(p, fold.outside[1] == fold.cohort.positive))
        assert len(fold.inside[0]) + len(fold.outside[0]) == len(fold.train[0])
        assert fold.train[0].shape[1] == fold.test[0].shape[1] == 32
    assert np.mean(found) < 0.7


def test_too_few_to_be_divided_twice(tmp_path):
    cohort = sample_cohorts.simulated(0, 0, n=2)
    cohort.adata.write_h5ad(tmp_path / "few.h5ad")
    with pytest.raises(DataError, match="in one fold at most, so that nothing is left to learn it from"):
        grid_search.fold(dataset=str(tmp_path / "few.h5ad"), group="group")
