import dataclasses
import json

import pandas as pd
import pytest
from test_classifier import QUICK, samples

from epigen_utils import paths
from epigen_utils.book import notebooks, runs
from epigen_utils.commands import search_jobs
from epigen_utils.errors import DataError
from epigen_utils.gpt2 import grid_search, short_training
from epigen_utils.gpt2.classifier import GPT2Classifier


def test_search_goes_over_the_grid_and_names_the_best(tmp_path):
    values, y = samples(16)
    held, truth = samples(8, seed=3)
    grid = {"learning_rate": [1e-6, 1e-3], "max_length": [12, 24]}
    made = GPT2Classifier(settings=QUICK, folder=tmp_path)
    table = grid_search.search_grid(made, (values, y), (held, truth), "b", grid)
    assert len(table) == 4
    best = grid_search.best_point(table, grid)
    assert best["learning_rate"] == 1e-3
    again = grid_search.search_grid(made, (values, y), (held, truth), "b", grid)
    pd.testing.assert_frame_equal(again.drop(columns="seconds"), table.drop(columns="seconds"))
    with pytest.raises(DataError, match="'learning_rate'"):
        grid_search.search_grid(made, (values, y), (held, truth), "b", {"learning_rat": [1]})


def test_points_of_other_jobs_are_found_done_by_the_page(tmp_path, monkeypatch):
    """Two jobs of a run of the notebook itself, then what the page does: nothing is fitted any more."""
    grid = {"learning_rate": [0.001], "batch_size": [8], "max_length": [16], "epochs": [1.0, 2.0, 3.0]}
    given = {"dataset": "seizures-sim", "max_samples": 24, "n_genes": 16, "grid": grid, "search_jobs": 2}
    values = given | {"results_dir": str(tmp_path / "main")}
    run = runs.Run("demo", "epilepsy/06_fine_tuning", "main", values)
    for job in range(run.search_jobs):
        assert search_jobs.main(run.to_json(), str(job)) == 0
    before = {path: path.stat().st_mtime_ns for path in (tmp_path / "main" / "models").glob("*/model.safetensors")}
    assert len(before) == 3
    monkeypatch.setattr(short_training, "train", lambda *_, **__: pytest.fail("it was fitted again"))
    found = search_jobs.load_search_fold(dataset="seizures-sim", max_samples=24, n_genes=16)
    bare = grid_search.base_classifier(results_dir=str(tmp_path / "main"))
    table = grid_search.search_grid(bare, found.inside, found.outside, found.cohort.positive, grid)
    assert len(table) == 3
    after = {path: path.stat().st_mtime_ns for path in (tmp_path / "main" / "models").glob("*/model.safetensors")}
    assert after == before


def test_what_a_page_sets_by_itself_is_what_a_job_takes():
    source = paths.NOTEBOOKS / "epilepsy" / "06_fine_tuning.ipynb"
    found = notebooks.default_values(source)
    assert set(found) == set(notebooks.declared_parameters(source))
    assert found["grid"]["epochs"] == [4.0, 8.0]
    run = runs.Run("demo", "epilepsy/06_fine_tuning", "main", {})
    assert run.search_jobs == 0
    spread = dataclasses.replace(run, parameters={"search_jobs": 2})
    assert [spread.searched(job).name for job in range(2)] == ["0.done", "1.done"]
    assert json.loads(spread.to_json())["parameters"] == {"search_jobs": 2}
