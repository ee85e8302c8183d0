import dataclasses
import json

import pytest

from epigen_utils import paths
from epigen_utils.book import notebooks, progress, runs
from epigen_utils.errors import DataError


@pytest.fixture
def profile(tmp_path, monkeypatch):
    """A profile of one's own."""
    monkeypatch.setattr(paths, "PROFILES", tmp_path)

    def write(text):
        (tmp_path / "mine.yml").write_text(text)
        return runs.plan_runs("mine")

    return write


def test_the_demo_plan():
    planned = {run.key: run for run in runs.plan_runs("demo")}
    assert planned["epilepsy/02_table_two"].page == paths.BOOK / "epilepsy" / "02_table_two.ipynb"
    other = planned["epilepsy/02_table_two--airway"]
    assert other.page == paths.BOOK / "epilepsy" / "02_table_two--airway.ipynb"
    assert other.results == paths.RESULTS / "demo" / "epilepsy" / "02_table_two" / "airway"
    assert other.parameters == {"dataset": "airway", "results_dir": "results/demo/epilepsy/02_table_two/airway"}


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("epilepsy/02_table_two: {main: {datset: airway}}", "unknown parameter 'datset'; did you mean 'dataset'?"),
        ("epilepsy/06_fine_tuning: {main: {shown: rank}}", "main: parameter 'shown' is now 'position_input'"),
        ("epilepsy/11_attention: {main: {shown: rank}}", "main: parameter 'shown' is now 'position_input'"),
        ("epilepsy/02_table_too: {main: {}}", "no notebook notebooks/epilepsy/02_table_too.ipynb"),
        ("epilepsy/02_table_two: {my run: {}}", "run 'my run'; use letters"),
        (
            "epilepsy/02_table_two: {main: {dataset: airwya}}",
            "airwya: no such data set or file; did you mean 'airway'?",
        ),
        ("epilepsy/02_table_two: {dataset: airway}", "write the name of a run, and its parameters under it"),
        ("epilepsy/02_table_two: {main: [", "not YAML, line 1"),
        ("- epilepsy/02_table_two", "write chapters (paper/NN_slug), and their runs under them"),
        ("epilepsy/02_table_two: {7: {}}", "write the name of a run, and its parameters under it"),
        ("epilepsy/02_table_two: {main: {7: 7}}", "unknown parameter 7"),
        ("/etc/passwd: {main: {}}", "write chapters (paper/NN_slug), and their runs under them"),
        ("of: [large]", "no such profile"),
    ],
)
def test_mistakes_in_a_profile_are_one_line(profile, text, said):
    with pytest.raises(DataError, match=r"mine\.yml") as caught:
        profile(text)
    assert said in str(caught.value)
    assert "\n" not in str(caught.value)


def test_an_empty_value_in_a_profile_is_the_default(profile):
    (run,) = profile("epilepsy/02_table_two: {main: {dataset: }}")
    assert list(run.parameters) == ["results_dir"]


def test_a_profile_of_another_has_its_runs_and_results_of_its_own(profile, tmp_path):
    (tmp_path / "large.yml").write_text(
        "geneformer/03_pretraining: {main: {epochs: 3.0, seed: 7}, other: }\n"
        "geneformer/05_attention: {main: {teacher: results/large/geneformer/03_pretraining/main/models/teacher}}\n"
    )
    planned = {run.key: run.parameters for run in profile("of: large\ngeneformer/03_pretraining: {epochs: 0.5}")}
    assert list(planned) == [run.key for run in runs.plan_runs("large")]
    main, other = planned["geneformer/03_pretraining"], planned["geneformer/03_pretraining--other"]
    assert (main["epochs"], main["seed"], other["epochs"]) == (0.5, 7, 0.5)
    assert main["results_dir"] == "results/mine/geneformer/03_pretraining/main"
    teacher = planned["geneformer/05_attention"]["teacher"]
    assert teacher == "results/mine/geneformer/03_pretraining/main/models/teacher"
    assert notebooks.profile_names() == ["large"]
    for text, said in (
        ("epilepsy/06_fine_tuning: {epochs: 1.0}", "epilepsy/06_fine_tuning: no chapter of large.yml; known:"),
        ("geneformer/03_pretraining: 1", "write parameters and their values under it"),
        ("geneformer/03_pretraining: {epoch: 1}", "unknown parameter 'epoch'; did you mean 'epochs'?"),
    ):
        with pytest.raises(DataError, match=r"mine\.yml") as caught:
            profile(f"of: large\n{text}")
        assert said in str(caught.value)
    with pytest.raises(DataError, match="of larg: no such profile; did you mean 'large'"):
        profile("of: larg")


def test_an_unknown_profile():
    with pytest.raises(DataError, match="there are demo, paper, real"):
        runs.plan_runs("dmo")


def test_what_makes_a_run_stale(profile):
    first = profile("epilepsy/02_table_two: {main: {dataset: table-two}}")[0]
    same = profile("epilepsy/02_table_two: {main: {dataset: table-two}}")[0]
    other = profile("epilepsy/02_table_two: {main: {dataset: table-two, seed: 1}}")[0]
    assert first.fingerprint == same.fingerprint != other.fingerprint
    names = {path.name for path in first.sources}
    assert {"02_table_two.ipynb", "epilepsy_02_table_two.csv", "layout.py"} <= names
    assert "simulated_bulk.py" not in names


def test_the_content_of_a_source_counts_and_not_its_time_stamp(profile, monkeypatch):
    run = profile("epilepsy/02_table_two: {main: {dataset: table-two}}")[0]
    before = run.fingerprint
    hashes = {path: runs._content_hash(path) for path in run.sources}
    layout = next(path for path in run.sources if path.name == "layout.py")
    monkeypatch.setattr(runs, "_content_hash", lambda path: "another" if path == layout else hashes[path])
    assert run.fingerprint != before
    monkeypatch.setattr(runs, "_content_hash", hashes.get)
    assert run.fingerprint == before


def test_a_changed_registry_entry_makes_its_runs_stale(profile, monkeypatch):
    from epigen_utils.data import registry

    run = profile("epilepsy/02_table_two: {main: {dataset: airway}}")[0]
    before = run.fingerprint
    known = dict(registry.entries())
    changed = dataclasses.replace(known["airway"].files["counts"], sha256="0" * 64)
    known["airway"] = dataclasses.replace(known["airway"], files={"counts": changed})
    monkeypatch.setattr(registry, "entries", lambda: known)
    assert run.fingerprint != before


@pytest.fixture
def own_file(tmp_path):
    path = tmp_path / "My set.v2.h5ad"
    path.touch()
    return str(path)


def test_own_data_get_a_run_of_every_chapter_that_takes_them(own_file):
    from epigen_utils.book import notebooks

    own = {"dataset": own_file, "group": "condition", "reference": "", "metadata": "", "donor": ""}
    mine = [run for run in runs.plan_runs("demo", own) if run.name == "My-set"]
    takes = [
        run.notebook
        for run in runs.plan_runs("demo")
        if run.name == "main" and run.needs.cells is None and "metadata" in notebooks.declared_parameters(run.source)
    ]
    assert [run.notebook for run in mine] == takes, "chapters on cells take no groups of samples"
    assert mine[0].parameters["cohorts"] == [own_file]
    assert mine[1].parameters["dataset"] == own_file
    assert mine[1].parameters["group"] == "condition"
    assert "reference" not in mine[1].parameters
    assert any(str(path) == own_file for path in mine[1].user_files)


CELLS = {"group": "disease", "donor": "patient", "kind": "cells", "labels_of": "donor", "sizes": {"dcm": 3, "nf": "4"}}


def test_own_cells_get_a_run_of_every_chapter_that_they_allow(own_file):
    def mine(**said):
        planned = runs.plan_runs("demo", CELLS | {"dataset": own_file} | said)
        return {run.notebook[11:13]: run for run in planned if run.name == "My-set"}, planned

    some, planned = mine()
    assert list(some) == ["01", "02", "05", "08", "10"]
    assert some["01"].parameters["corpora"] == [own_file]
    of_states = some["08"].parameters
    assert (of_states["dataset"], of_states["label"], of_states["donor"]) == (own_file, "disease", "patient")
    assert (of_states["labels_of"], of_states["healthy"], of_states["published"]) == ("donor", "", "")
    assert "teacher" not in some["05"].parameters, "no model of other cells"
    assert runs.upstream_metrics(some["05"], planned) == []
    every, planned = mine(start="dcm", goal="nf", distil="True")
    assert list(every) == ["01", "02", "03", "04", "05", "06", "07", "08", "09", "10", "11"]
    results = {number: run.parameters["results_dir"] for number, run in every.items()}
    assert every["08"].parameters["teacher"] == f"{results['03']}/models/teacher"
    assert every["09"].parameters["students"] == f"{results['06']}/models"
    assert every["11"].parameters["classifier"] == f"{results['08']}/models/classifier"
    assert (every["11"].parameters["start"], every["08"].parameters["healthy"]) == ("dcm", "nf")
    assert runs.upstream_metrics(every["11"], planned) == [every["08"].metrics]
    given, _ = mine(teacher="someone/Geneformer", distil=True)
    assert "03" not in given
    assert {run.parameters["teacher"] for n, run in given.items() if n in ("05", "06", "07", "08", "09", "10")} == {
        "someone/Geneformer"
    }


def test_a_run_waits_for_the_run_whose_results_it_names():
    planned = runs.plan_runs("sweeps")
    by_key = {run.key: run for run in planned}
    tenth = by_key["geneformer/06_distillation--stream-tenth"]
    assert runs.upstream_metrics(tenth, planned) == [by_key["geneformer/03_pretraining--stream"].metrics]


def test_a_run_survives_the_way_to_its_job():
    run = runs.plan_runs("demo")[0]
    assert runs.Run(**json.loads(run.to_json())) == run


def test_order_and_tools(profile, monkeypatch):
    from epigen_utils.book import notebooks

    planned = profile("epilepsy/01_datasets: {main: {}}\nepilepsy/02_table_two: {main: {}, airway: {dataset: airway}}")
    needs = {
        "01_datasets": notebooks.Needs(tools=("no-such-program",)),
        "02_table_two": notebooks.Needs(after=("epilepsy/01_datasets",), threads=2),
    }
    monkeypatch.setattr(notebooks, "declared_needs", lambda source: needs[source.stem])
    assert runs.upstream_metrics(planned[2], planned) == [planned[0].metrics]
    assert runs.missing_tools(planned) == {"epilepsy/01_datasets": ["no-such-program"]}
    assert runs.without_missing_tools(planned) == [], "what waits for a chapter that is left out is left out"
    needs["02_table_two"] = notebooks.Needs()
    assert [run.key for run in runs.without_missing_tools(planned)] == [
        "epilepsy/02_table_two",
        "epilepsy/02_table_two--airway",
    ]
    needs["02_table_two"] = notebooks.Needs(after=("epilepsy/03_lost",))
    with pytest.raises(DataError, match="waits for 'epilepsy/03_lost'"):
        runs.plan_runs("mine")


def test_chapters_that_need_more_than_there_is_are_left_out(own_file):
    main = [run for run in runs.plan_runs("demo") if run.name == "main"]

    def lost(**sizes):
        return progress.excluded_notebooks(main, {"sizes": sizes})

    assert lost(a="4", b="4") == {}
    few = lost(a=3, b=9)
    assert few["epilepsy/11_attention"] == "it needs 4 samples or donors of each group, and 'a' has 3"
    assert "epilepsy/07_classification" not in few
    many = lost(a=9, b=9, c=9)
    assert many["epilepsy/07_classification"] == "it takes 2 groups, and there are 3"
    assert "epilepsy/03_differential_expression" not in many
    own = {"dataset": own_file, "group": "condition", "sizes": {"a": 3, "b": 3}}
    kept = {run.notebook for run in runs.plan_runs("demo", own) if run.name == runs.user_run(own)}
    assert "epilepsy/07_classification" in kept
    assert "epilepsy/11_attention" not in kept


def test_data_sets_are_those_of_the_declared_parameters(profile):
    text = "{cohorts: [airway, seizures-sim], sequences: {airway: mirbase-hairpins}, seed: 1}"
    (run,) = profile(f"epilepsy/07_classification: {{main: {text}}}")
    assert run.datasets == ["airway", "seizures-sim", "mirbase-hairpins"]
    assert run.simulated
