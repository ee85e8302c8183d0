"""The scripts of CI: what a change can touch, and the table of times."""

import importlib.util
import json
import os
import re
import subprocess
import sys

import pytest

from epigen_utils import paths


def script(name: str):
    """A module of .ci, which is no package."""
    specification = importlib.util.spec_from_file_location(name, paths.ROOT / ".ci" / f"{name}.py")
    module = importlib.util.module_from_spec(specification)
    specification.loader.exec_module(module)
    return module


@pytest.fixture
def touched():
    return script("touched")


def runs_touched(touched, monkeypatch, capsys, *changed: str) -> set[str]:
    monkeypatch.setattr(touched, "changed_files", lambda since: set(changed))
    touched.main(
        "HEAD", "demo", "epilepsy/02_table_two", "epilepsy/03_differential_expression", "geneformer/04_length_grouping"
    )
    return set(capsys.readouterr().out.split())


@pytest.mark.parametrize(
    ("changed", "expected"),
    [
        ("README.md", set()),
        ("notebooks/epilepsy/02_table_two.ipynb", {"epilepsy/02_table_two"}),
        ("epigen_utils/expression/differential.py", {"epilepsy/03_differential_expression"}),
        ("epigen_utils/geneformer/length_grouping.py", {"geneformer/04_length_grouping"}),
        ("data/claims/epilepsy_02_table_two.csv", {"epilepsy/02_table_two"}),
        (
            "data/gene_aliases.yml",
            {"epilepsy/02_table_two", "epilepsy/03_differential_expression", "geneformer/04_length_grouping"},
        ),
        ("epigen_utils/book/report.py", {"epilepsy/02_table_two", "epilepsy/03_differential_expression", "geneformer/04_length_grouping"}),
    ],
)  # fmt: skip
def test_runs_that_a_change_touches(touched, monkeypatch, capsys, changed, expected):
    assert runs_touched(touched, monkeypatch, capsys, changed) == expected


def test_a_run_is_touched_through_the_runs_that_it_reads(touched, monkeypatch, capsys):
    monkeypatch.setattr(touched, "changed_files", lambda since: {"epigen_utils/models/training.py"})
    touched.main("HEAD", "demo", "geneformer/10_gene_classes", "epilepsy/02_table_two")
    assert capsys.readouterr().out.split() == ["geneformer/10_gene_classes"], "its teacher was trained by it"
    monkeypatch.setattr(touched, "changed_files", lambda since: {"workflow/reads.smk"})
    touched.main("HEAD", "demo", "epilepsy/12_reads_to_counts", "epilepsy/02_table_two")
    assert capsys.readouterr().out.split() == ["epilepsy/12_reads_to_counts"]


def test_the_registry_touches_every_run(touched, monkeypatch, capsys):
    assert len(runs_touched(touched, monkeypatch, capsys, "data/registry.yml")) == 3


TESTS = """
import pytest
from pathlib import Path
from epigen_utils import paths

@pytest.mark.slow
def test_of_a_module():
    from epigen_utils.stats import folds

@pytest.mark.slow("Snakefile", "book/")
def test_of_the_build():
    pass

@pytest.mark.slow("notebooks/geneformer/04_length_grouping.ipynb")
def test_of_a_mark():
    pass

@pytest.mark.slow
@pytest.mark.parametrize("source", [paths.NOTEBOOKS / "epilepsy" / "09_zero_shot.ipynb"])
def test_of_a_notebook(source):
    pass
"""


TOUCHED = {
    "README.md": set(),
    "epigen_utils/stats/folds.py": {"module", "build", "mark", "notebook"},
    "book/intro.md": {"build"},
    "notebooks/epilepsy/09_zero_shot.ipynb": {"notebook"},
    "notebooks/epilepsy/07_classification.ipynb": set(),
    "notebooks/geneformer/04_length_grouping.ipynb": {"mark"},
    "epigen_utils/geneformer/length_grouping.py": {"mark"},
    "epigen_utils/gpt2/zero_shot.py": set(),
    "data/registry.yml": {"mark"},
}
#: Collects the tests of a file once for each changed file, in a process of its own.
COLLECT = """
import sys, pytest
sys.path.insert(0, sys.argv[1])
import touched
for changed in sys.argv[3:]:
    touched.changed_files = lambda since: {changed}
    print("changed:", changed)
    pytest.main(["-p", "touched", "-m", "slow", "-o", "addopts=", "--collect-only", "-q", "-W", "ignore",
                 "-p", "no:cacheprovider", sys.argv[2]])
"""


def test_slow_tests_that_a_change_touches(tmp_path):
    file = tmp_path / "test_some.py"
    file.write_text(TESTS)
    command = [sys.executable, "-c", COLLECT, str(paths.ROOT / ".ci"), str(file), *TOUCHED]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=True)
    found = {
        part.partition("\n")[0].strip(): set(re.findall(r"::test_of_(?:a_|the_)?(\w+)", part))
        for part in done.stdout.split("changed:")[1:]
    }
    assert found == TOUCHED


@pytest.mark.parametrize(("deadline", "outcome"), [("0", "1 skipped"), ("inf", "1 passed")])
def test_what_a_slow_machine_has_no_time_for_is_left_and_said(tmp_path, deadline, outcome):
    file = tmp_path / "test_some.py"
    file.write_text("def test_of_a_module():\n    pass\n")
    command = [sys.executable, "-m", "pytest", "-p", "touched", "-p", "no:cacheprovider", "-o", "addopts=", "-rs", file]
    environment = os.environ | {"CI_DEADLINE": deadline, "PYTHONPATH": f"{paths.ROOT / '.ci'}:{paths.ROOT}"}
    done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, check=True)
    assert outcome in done.stdout
    assert ("left to the nightly run" in done.stdout) == (deadline == "0")


def test_a_change_of_what_all_depends_on_touches_everything(touched, monkeypatch):
    answers = {"diff": "pyproject.toml\n", "ls-files": ""}

    def run(command, **_):
        return subprocess.CompletedProcess(command, 0, stdout=answers.get(command[1], ""))

    monkeypatch.setattr(touched.subprocess, "run", run)
    assert touched.changed_files("HEAD") is None
    answers["diff"] = "README.md\n"
    assert touched.changed_files("HEAD") == {"README.md"}
    assert touched.changed_files("") is None


REPORT = """<testsuites><testsuite>
<testcase classname="tests.stats.test_folds" name="a" time="1.25"/>
<testcase classname="tests.stats.test_folds.TestMore" name="b" time="2.0"/>
<testcase classname="tests.test_book" name="c" time="40.0"/>
</testsuite></testsuites>"""


def test_what_grew_by_half_is_warned_of(tmp_path, monkeypatch, capsys):
    times = script("times")
    monkeypatch.setattr(paths, "BUILD", tmp_path)
    monkeypatch.setattr(paths, "RESULTS", tmp_path / "results")
    monkeypatch.setattr(paths, "TIMES", tmp_path / "times.json")
    monkeypatch.setattr(times, "STAGES", tmp_path / "stages.tsv")
    times.STAGES.write_text("lint\t61\n")
    (tmp_path / "tests.xml").write_text(REPORT)
    page = tmp_path / "results" / "demo" / "epilepsy" / "02_table_two" / "airway" / "notebook.ipynb"
    page.parent.mkdir(parents=True)
    page.write_text(json.dumps({"metadata": {"papermill": {"duration": 30.0}}}))
    monkeypatch.setattr(times, "calibration_seconds", lambda: 1.0)
    times.record()
    recorded = json.loads(paths.TIMES.read_text())
    assert recorded["pages"] == {"demo": {"epilepsy/02_table_two--airway": 30.0}}
    assert recorded["slow tests"] == {}
    assert recorded["tests"] == {"tests/stats/test_folds.py": 3.2, "tests/test_book.py": 40.0}
    times.print_table()
    assert "WARNING" not in capsys.readouterr().out
    page.write_text(json.dumps({"metadata": {"papermill": {"duration": 50.0}}}))
    times.print_table()
    out = capsys.readouterr().out
    assert "1 m 01 s  lint" in out
    assert [line for line in out.splitlines() if line.startswith("WARNING")] == [
        "WARNING: epilepsy/02_table_two--airway took 50.0 s, 1.7 times its recorded time"
    ]
    monkeypatch.setattr(times, "calibration_seconds", lambda: 2.0)
    times.print_table()
    assert "WARNING" not in capsys.readouterr().out, "a machine of half the speed"
