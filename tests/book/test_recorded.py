import json

import pandas as pd
import pytest

from epigen_utils import paths
from epigen_utils.book import recorded, runs


@pytest.fixture
def kept(tmp_path, monkeypatch):
    monkeypatch.setattr(paths, "ROOT", tmp_path)
    monkeypatch.setattr(paths, "RESULTS", tmp_path / "results")
    monkeypatch.setattr(paths, "RECORDED", tmp_path / "recorded")
    for run in runs.plan_runs("sweeps"):
        run.metrics.parent.mkdir(parents=True)
        metrics = {"false_discoveries": {"value": 0.05, "low": 0.04, "high": 0.06, "n": 20}, "level": {"value": 0.05}}
        run.metrics.write_text(json.dumps({"seed": 3, "metrics": metrics}))
    return recorded.record_runs("sweeps", "cpu")


def test_a_file_names_date_commit_device_seed_and_parameters(kept):
    content = json.loads(kept.read_text())
    assert kept.name == "sweeps-cpu.json"
    assert {"date", "commit", "device", "machine"} <= set(content)
    run = content["runs"]["epilepsy/03a_calibration"]
    assert run["parameters"]["n_genes"] == 5000
    assert "results_dir" not in run["parameters"]
    assert run["seed"] == 3


def test_a_page_gets_its_own_numbers_in_columns_of_their_own(kept):
    found = recorded.recorded_metrics("epilepsy/03a_calibration")
    assert set(found["run"]) == {"main", "three-against-three"}
    summary = pd.DataFrame({"metric": ["false_discoveries", "other"], "mean": [0.07, 1.0]})
    beside = recorded.add_recorded_columns(summary, "epilepsy/03a_calibration")
    assert beside.columns.str.startswith("recorded: ").sum() == 2
    assert beside.iloc[:, -1].tolist() == ["0.050 (0.040 to 0.060)", ""]
    assert beside["mean"].tolist() == [0.07, 1.0]


def test_nothing_recorded_adds_no_column(tmp_path, monkeypatch):
    monkeypatch.setattr(paths, "RECORDED", tmp_path)
    summary = pd.DataFrame({"metric": ["x"], "mean": [1.0]})
    pd.testing.assert_frame_equal(recorded.add_recorded_columns(summary, "epilepsy/03a_calibration"), summary)


def test_a_benchmark_is_kept_with_where_it_ran(tmp_path, capsys):
    recorded.write_benchmark(tmp_path / "b.json", {"what": "seconds"}, device="CPU, 1 threads")
    found = json.loads((tmp_path / "b.json").read_text())
    assert list(found) == ["what", "device", "machine", "date", "torch", "transformers", "python"]
    assert json.loads(capsys.readouterr().out) == found
