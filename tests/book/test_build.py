import json

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
