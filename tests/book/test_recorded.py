import json

import pytest

from epigen_utils import paths
from epigen_utils.book import markup, recorded, runs


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
    run = content["runs"]["epilepsy/03a_calibration"]
    assert {"date", "commit", "machine"} <= set(run)
    assert run["parameters"]["n_genes"] == 5000
    assert "results_dir" not in run["parameters"]
    assert run["seed"] == 3


def test_one_run_is_recorded_anew_and_the_others_stay(kept):
    """Also those of chapters that the profile has no more go."""
    content = json.loads(kept.read_text())
    for run in content["runs"].values():
        run["date"] = "2001-01-01"
    content["runs"]["epilepsy/99_gone"] = content["runs"]["epilepsy/03a_calibration"]
    kept.write_text(json.dumps(content))
    recorded.record_runs("sweeps", "cpu", ["epilepsy/03a_calibration"])
    dates = {key: run["date"] for key, run in json.loads(kept.read_text())["runs"].items()}
    assert dates.pop("epilepsy/03a_calibration") > "2001-01-01"
    assert set(dates.values()) == {"2001-01-01"}
    assert "epilepsy/99_gone" not in dates


def test_a_page_shows_each_recorded_run_under_its_own_sizes(kept):
    found = recorded.recorded_metrics("epilepsy/03a_calibration")
    assert {"main", "three-against-three"} <= set(found["run"])
    metrics = {"false_discoveries": "false discoveries", "other": "other"}
    heading = "{group_size} against {group_size}"
    table = recorded.recorded_columns("epilepsy/03a_calibration", metrics, heading=heading, order="group_size")
    assert list(table)[:3] == ["quantity", "3 against 3", "6 against 6"]
    assert table["quantity"].tolist() == ["false discoveries"]
    assert table["3 against 3"].tolist() == ["0.05 (0.04 to 0.06)"]


def test_a_recorded_number_as_text(kept):
    found = recorded.recorded_metrics("epilepsy/03a_calibration")
    of_run = found[found["run"] == "main"].set_index("metric")
    assert recorded.as_text(of_run, "false_discoveries") == "0.050 (0.040 to 0.060)"
    assert recorded.as_text(of_run, "level") == "0.050"
    assert recorded.as_text(of_run, "other") == "not recorded"


def test_nothing_recorded_is_an_empty_table_and_no_record(tmp_path, monkeypatch):
    monkeypatch.setattr(paths, "RECORDED", tmp_path)
    assert recorded.recorded_columns("epilepsy/03a_calibration", {"x": "x"}, heading="").empty
    assert recorded.read_record("deseq-fuzz") is None


def test_other_records_are_no_runs(kept):
    kept.with_name("deseq-fuzz.json").write_text(json.dumps({"drawn": 2}))
    assert len(recorded.recorded_metrics("epilepsy/03a_calibration"))
    assert recorded.read_record("deseq-fuzz") == {"drawn": 2}


def test_what_kernels_change_is_a_table_or_said_to_be_unmeasured(tmp_path, monkeypatch):
    monkeypatch.setattr(paths, "RECORDED", tmp_path)
    assert recorded.kernels_table().startswith("This is not measured yet")
    rows = [
        {"chapter": "a/b", "kernels": "AVX2", "threads": 1, "numbers": 3, "differ": 0, "largest": 0.0, "metric": "x"},
        {"chapter": "a/b", "kernels": "any", "threads": 2, "numbers": 3, "differ": 1, "largest": 2e-9, "metric": "y"},
    ]
    about = {"libraries": {"AVX2": ["OpenBLAS Zen", "PyTorch AVX2"]}, "device": "CPU", "date": "2026-01-01"}
    (tmp_path / "kernels.json").write_text(json.dumps({"rows": rows, **about}))
    table = recorded.kernels_table()
    assert "| a/b | AVX2 | 1 | 3 | 0 | none |" in table
    assert f"| a/b | any | 2 | 3 | 1 | {markup.escape_text('2.0e-09 (y)')} |" in table
    assert "OpenBLAS Zen, PyTorch AVX2" in table


def test_under_the_same_kernels_and_threads_the_recorded_numbers_are_the_same():
    record = recorded.read_record("kernels")
    if record is None:
        pytest.skip("not measured yet: python benchmarks/kernels.py")
    assert {row["chapter"] for row in record["rows"]} == set(record["parameters"])
    again = [row["differ"] for row in record["rows"] if row["kernels"].endswith("again")]
    assert again == [0] * len(record["parameters"])
