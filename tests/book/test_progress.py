import io
import json

import pytest

from epigen_utils import paths
from epigen_utils.book import progress


@pytest.fixture
def remaining():
    rules = {"a_b": "a/b", "a_c__d": "a/c--d", "a_e": "a/e"}
    return progress.Remaining(
        rules, {"a/b": 90.0, "a/c--d": 10.0, "a/e": 80.0}, {"a/b": 10.0, "a/c--d": 10.0, "a/e": 80.0}, 2
    )


def stream(text: bytes) -> io.BufferedReader:
    return io.BufferedReader(io.BytesIO(text))


def test_progress_tells_bars_from_lines(capsys, remaining):
    text = b"a/b:  10%|#   | 1/9\r        \ra/b:  50%|##  |\rnoise\nepigen: a/b: wrong (log: x)\na/c--d: 3.1 s\n"
    log = io.StringIO()
    assert progress.follow_build(stream(text), log, remaining) is True
    assert log.getvalue() == "noise\nepigen: a/b: wrong (log: x)\na/c--d: 3.1 s\n"
    assert capsys.readouterr().err == "epigen: a/b: wrong (log: x)\na/c--d: 3.1 s (all runs are done)\n"
    assert progress.follow_build(stream(b"noise\n"), log, remaining) is False


def test_the_time_left_is_that_of_the_recorded_runs_at_the_pace_of_this_machine(capsys, remaining):
    text = b"job   count\n----\na_b      1\na_c__d   1\na_e 1\nsite   1\ntotal  4\na/b: 20.0 s\nsite: x can be read\na/e: 160.0 s\n"
    progress.follow_build(stream(text), io.StringIO(), remaining)
    assert capsys.readouterr().err.splitlines() == [
        "a/b: 20.0 s (1 of 3 runs, about 3 min left)",  # the longest chain, 80 s, at half the pace
        "site: x can be read (1 of 3 runs, about 3 min left)",
        "a/e: 160.0 s (2 of 3 runs, about 20 s left)",
    ]


def test_without_recorded_times_only_the_runs_are_counted(remaining):
    remaining.seconds = {}
    remaining.count_jobs("a_b")
    remaining.count_jobs("a_e")
    remaining.finish("a/e", 3.0)
    assert str(remaining) == "1 of 2 runs"
    remaining.seconds = {"a/e": 80.0}
    assert str(remaining) == "1 of 2 runs, about 2 min left", "one recorded, the other counts 30 s in its chain of 90"


def test_recorded_times_are_those_of_the_profile(tmp_path, monkeypatch):
    monkeypatch.setattr(paths, "TIMES", tmp_path / "times.json")
    assert progress.recorded_seconds("demo") == {}
    paths.TIMES.write_text(json.dumps({"pages": {"demo": {"a/b": 2.0}}}))
    assert progress.recorded_seconds("demo") == {"a/b": 2.0}
    assert progress.recorded_seconds("real") == {}
