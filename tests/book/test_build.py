import json
import os
import time

import pytest

from epigen_utils import paths
from epigen_utils.book import build, progress, runs
from epigen_utils.errors import DataError


@pytest.fixture
def plan(tmp_path, monkeypatch):
    """Two runs, of which the first has results; Snakemake is replaced by what the test says."""
    for name in ("BUILD", "SITE", "RESULTS"):
        monkeypatch.setattr(paths, name, tmp_path / name.lower())
    for name in ("SITE_DONE", "BUILD_LOCK", "JOBS_LOCK", "BUILD_LOG"):
        monkeypatch.setattr(paths, name, tmp_path / "build" / name.lower())
    planned = [runs.Run("demo", "epilepsy/02_table_two", name, {}) for name in ("main", "airway")]
    planned[0].results.mkdir(parents=True)
    planned[0].executed.write_text("{}")
    planned[0].metrics.write_text("{}")
    return build.Plan("demo", [], planned, cores=2)


@pytest.mark.parametrize("error", [DataError("a run failed"), KeyboardInterrupt()])
def test_a_build_that_ends_early_leaves_a_site_of_what_is_finished(plan, monkeypatch, capsys, error):
    from epigen_utils.book import site

    built = []

    def stop(plan, targets, jobs, early):
        plan.remaining.count_jobs("epilepsy_02_table_two__airway")
        built.append([path.name for path in targets])
        raise error

    monkeypatch.setattr(build, "_run_snakemake", stop)
    monkeypatch.setattr(site, "build_site", lambda profile, planned, own, **options: built.append(options))
    with pytest.raises(DataError, match="a run failed|the build was stopped; what was finished is kept"):
        build.build_book(plan)
    assert built == [
        ["demo.stage0", "site_done"],
        {"partial": True, "pending": {"epilepsy/02_table_two--airway"}},
    ]
    assert "writing the site of what is finished" in capsys.readouterr().err


def test_results_that_the_build_was_to_replace_are_not_finished(plan, monkeypatch):
    def stop(plan, targets, jobs, early):
        plan.remaining.count_jobs("epilepsy_02_table_two")
        raise DataError("a run failed")

    monkeypatch.setattr(build, "_run_snakemake", stop)
    with pytest.raises(DataError, match="a run failed"):  # and no site is built
        build.build_book(plan)
    assert not paths.SITE.exists()


def test_a_site_that_is_there_is_built_without_stages(plan, monkeypatch):
    seen = []
    monkeypatch.setattr(build, "_run_snakemake", lambda plan, targets, jobs, early: seen.append((targets, early)))
    paths.SITE.mkdir()
    (paths.SITE / "index.html").touch()
    build.build_book(plan)
    assert seen == [([paths.SITE_DONE], False)]


def test_a_mark_without_its_site_does_not_count(plan, monkeypatch):
    paths.BUILD.mkdir()
    paths.SITE_DONE.touch()
    monkeypatch.setattr(build, "_run_snakemake", lambda *_, **__: None)
    build.build_book(plan)
    assert not paths.SITE_DONE.exists()


def test_time_left_is_by_the_recorded_times_of_the_profile(plan, tmp_path, monkeypatch):
    monkeypatch.setattr(paths, "TIMES", tmp_path / "times.json")
    paths.TIMES.write_text(json.dumps({"pages": {"demo": {"epilepsy/02_table_two": 40.0}}}))
    assert isinstance(plan.remaining, progress.Remaining)
    plan.remaining.count_jobs("epilepsy_02_table_two")
    assert str(plan.remaining) == "0 of 1 runs, about 40 s left"


def test_the_first_chapters_come_first_with_those_on_ones_own_data(tmp_path):
    own_file = str(tmp_path / "My set.v2.h5ad")
    (tmp_path / "My set.v2.h5ad").touch()
    planned = runs.plan_runs("demo", {"dataset": own_file, "group": "condition"})
    first, second = build.early_stages(planned, ["My-set"])
    assert [run.key for run in first] == [
        "epilepsy/01_datasets",
        "epilepsy/02_table_two",
        "epilepsy/01_datasets--My-set",
        "epilepsy/02_table_two--My-set",
    ]
    assert {run.key.split("/")[0] for run in second} == {"epilepsy", "geneformer"}, "a chapter of each paper"
    assert build.early_stages([run for run in planned if run.notebook == "epilepsy/07_classification"]) == []
    assert not any(run.needs.after for run in first + second), "nothing that waits for another chapter"


def test_the_longest_chain_of_chapters_begins_first():
    planned = runs.plan_runs("demo")
    chains = build.chain_seconds(planned, {"geneformer/03_pretraining": 100.0, "geneformer/06_distillation": 200.0})
    assert chains["geneformer/03_pretraining"] == 100 + 200 + 30, "it, the distillation, and a chapter on students"
    assert chains["geneformer/09_downscaling"] == 30
    assert max(chains, key=chains.get) == "geneformer/03_pretraining"


def test_a_site_that_cannot_be_left_hides_no_error(plan, monkeypatch, capsys):
    from epigen_utils.book import site

    def fail(*_, **__):
        raise OSError("No space left on device")

    def stop(*_, **__):
        raise DataError("a run failed")

    monkeypatch.setattr(build, "_run_snakemake", stop)
    monkeypatch.setattr(site, "build_site", fail)
    with pytest.raises(DataError, match="a run failed"):
        build.build_book(plan)
    assert "the site of what is finished was not written (No space left on device)" in capsys.readouterr().err


@pytest.mark.parametrize("name", ["BUILD", "RESULTS", "BOOK"])
def test_a_folder_that_cannot_be_written_is_refused_before_anything_runs(plan, monkeypatch, name):
    monkeypatch.setattr(build.os, "access", lambda folder, _: folder != getattr(paths, name))
    with pytest.raises(DataError, match=f"{getattr(paths, name)}: cannot be written"):
        build.build_book(plan)


def test_outputs_of_the_future_get_the_present_time_and_a_user_s_file_is_refused(plan, tmp_path):
    tomorrow = time.time() + 86_400
    os.utime(plan.runs[0].metrics, (tomorrow, tomorrow))
    os.utime(plan.runs[0].executed, (1e9, 1e9))
    build._reach_the_present(plan)
    assert plan.runs[0].metrics.stat().st_mtime < tomorrow - 86_000
    assert plan.runs[0].executed.stat().st_mtime == 1e9, "the past stays"
    own = tmp_path / "own.csv"
    own.touch()
    os.utime(own, (tomorrow, tomorrow))
    run = runs.Run("demo", "epilepsy/02_table_two", "own", {"dataset": str(own)})
    with pytest.raises(DataError, match=r"own\.csv: its time stamp is of the future; touch it"):
        build._reach_the_present(build.Plan("demo", [], [run], cores=1))


def test_a_site_is_done_again_when_the_content_of_its_sources_changes(tmp_path, monkeypatch):
    """Also when an older file takes the place of a newer one; a time stamp alone is no cause."""
    monkeypatch.setattr(paths, "BOOK", tmp_path / "book")
    monkeypatch.setattr(paths, "GENERATED", tmp_path / "book" / "_generated")
    monkeypatch.setattr(paths, "ROOT", tmp_path.parents[-1])
    monkeypatch.setattr(paths, "TOC", tmp_path / "toc.yml")
    for name in ("book/page.md", "book/_generated/claims.md", "toc.yml"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text("one")
    monkeypatch.setattr(build, "sha256", lambda path: path.read_text() if path.exists() else "")
    before = build.site_fingerprint()
    os.utime(tmp_path / "book" / "page.md", (1e9, 1e9))
    (tmp_path / "book" / "_generated" / "claims.md").write_text("derived")
    assert build.site_fingerprint() == before
    (tmp_path / "book" / "page.md").write_text("two")
    os.utime(tmp_path / "book" / "page.md", (1e9, 1e9))
    assert build.site_fingerprint() != before
