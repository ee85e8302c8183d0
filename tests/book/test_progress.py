import io
import json

import pytest

from epigen_utils import paths
from epigen_utils.book import progress, runs

CELLS = {"group": "disease", "donor": "patient", "kind": "cells", "sizes": {"dcm": 3, "nf": 4}, "cells": 7_811}


def chapters_on_cells(**said):
    """Chapter -> its minutes, or why it is left out."""
    main = [run for run in runs.plan_runs("demo") if run.name == "main"]
    return {row[0][11:13]: row[2] for row in progress.forecast(main, CELLS | said)}


def test_what_cells_do_not_allow_is_left_out_with_the_reason():
    assert chapters_on_cells(distil="False")["06"] == "left out: give --distil"
    assert chapters_on_cells()["11"] == "left out: give --start"
    assert chapters_on_cells(group="", sizes={})["08"] == "left out: give --label"
    assert chapters_on_cells(donor="")["08"] == "left out: give --donor"
    assert chapters_on_cells(distil=True, teacher="x")["03"] == "left out: a teacher is given"
    few = chapters_on_cells(sizes={"dcm": 1, "nf": 4}, start="dcm", goal="nf")
    assert few["08"] == "left out: class 'dcm' has one donor; leave it out by --keep"
    assert few["02"].replace(".", "").isdigit()
    assert "01" not in {row[0][11:13] for row in progress.forecast([], CELLS)}


def test_minutes_are_the_recorded_ones_and_grow_with_the_cells(monkeypatch):
    seconds = {
        "geneformer/03_pretraining": 120.0,
        "geneformer/08_cardiomyopathy": 60.0,
        "geneformer/11_perturbation": 1,
    }
    seconds |= {"geneformer/06_distillation": 90.0}
    monkeypatch.setattr(progress, "_recorded", lambda what, profile: seconds if what == "pages" else {})
    said = {"distil": True, "start": "dcm", "goal": "nf"}
    assert chapters_on_cells(**said)["03"] == "2.0"
    ten_times = chapters_on_cells(cells=78_110, **said)
    assert ten_times["03"] == "20.0"
    assert ten_times["08"] == "1.0", "it takes a random part"
    assert ten_times["01"] == "not recorded"
    quick = chapters_on_cells(quick="True", **said)
    assert quick["03"] == "left out: it takes longer than 60 s (--quick)"
    assert quick["09"] == "left out: it needs geneformer/06_distillation"
    assert quick["11"] == "0.1"


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
