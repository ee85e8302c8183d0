"""The contract of a source notebook, and a run of each on its defaults."""

import ast
import json
import os
import re
import subprocess
import sys
from pathlib import Path

import nbformat
import pytest

from epigen_utils import paths
from epigen_utils.book import notebooks, runs
from epigen_utils.errors import DataError

SOURCES = sorted(paths.NOTEBOOKS.glob("*/*.ipynb"))
EACH = pytest.mark.parametrize("source", SOURCES, ids=lambda path: f"{path.parent.name}/{path.stem}")


def cells(source: Path):
    return nbformat.read(source, as_version=4).cells


def code_of(source: Path):
    return [cell for cell in cells(source) if cell.cell_type == "code"]


def test_there_are_notebooks():
    assert len(SOURCES) >= 2


@EACH
def test_no_outputs_in_the_source(source):
    assert all(not cell.outputs and cell.execution_count is None for cell in code_of(source))


@EACH
def test_opens_with_a_title_one_sentence_and_a_citation(source):
    first = cells(source)[0].source
    title, blank, sentence, *_ = first.splitlines()
    assert re.fullmatch(r"# \S.*", title)
    assert blank == ""
    assert sentence.endswith(".")
    assert "{cite}`" in first
    assert re.search(r"Paper [AB], ", first)


@EACH
def test_parameters_are_typed_and_commented(source):
    found = notebooks.declared_parameters(source)
    assert {"seed", "results_dir"} <= set(found)
    tagged = [cell for cell in code_of(source) if "parameters" in cell.metadata.get("tags", [])]
    assert len(tagged) == 1
    defaults = {}
    exec(tagged[0].source, defaults)
    assert defaults["results_dir"] == f"results/alone/{source.parent.name}/{source.stem}"


@EACH
def test_parameters_that_name_data_sets_are_declared(source):
    declared = set(notebooks.declared_needs(source).datasets)
    comments = notebooks.declared_parameters(source)
    assert declared <= set(comments)
    named = {name for name, comment in comments.items() if re.search(r"\bnames? in data/registry.yml", comment)}
    assert named <= declared


@EACH
def test_former_names_of_parameters_lead_to_present_ones(source):
    renamed, declared = notebooks.declared_needs(source).renamed, set(notebooks.declared_parameters(source))
    assert set(renamed.values()) <= declared
    assert not set(renamed) & declared


@EACH
def test_cells_are_short_and_hold_no_logic(source):
    for cell in code_of(source):
        lines = [line for line in cell.source.splitlines() if line.strip()]
        declared = "parameters" in cell.metadata.get("tags", [])
        assert len(lines) <= 12 or declared, cell.source
        tree = ast.parse(cell.source)
        assert not any(isinstance(node, ast.FunctionDef | ast.ClassDef) for node in ast.walk(tree)), cell.source
        assert not re.search(r"^\s*[!%]|sys\.path|filterwarnings|import \*", cell.source, re.M)


@EACH
def test_ends_with_reported_and_reproduced(source):
    *_, heading, last = cells(source)
    assert heading.source.rstrip().endswith("## Reported and reproduced")
    assert last.source == "report.finish()"


@EACH
def test_begin_names_this_notebook(source):
    key = f"{source.parent.name}/{source.stem}"
    assert any(f'report.begin("{key}"' in cell.source for cell in code_of(source))


@EACH
def test_numbers_glued_into_the_prose_are_made_on_the_page(source):
    prose = "\n".join(cell.source for cell in cells(source) if cell.cell_type == "markdown")
    code = "\n".join(cell.source for cell in code_of(source))
    for name in re.findall(r"\{glue:text\}`(\w+)", prose):
        assert re.search(rf'report\.(value|word)\("{name}"', code), name
    for kind, name in re.findall(r"\{(?:num)?ref\}`(fig|tab):(\w+)`", prose):
        call = "figure" if kind == "fig" else "table"
        assert re.search(rf'report\.{call}\(\s*"{name}"', code), f"{kind}:{name}"


@EACH
def test_is_in_the_table_of_contents_and_in_every_profile(source):
    key = f"{source.parent.name}/{source.stem}"
    assert f"file: {key}" in paths.TOC.read_text()
    for profile in set(runs.profile_names()) - {"sweeps"}:
        assert any(run.notebook == key and run.name == "main" for run in runs.plan_runs(profile)), profile


@EACH
def test_runs_alone_by_papermill_on_its_defaults(source, tmp_path):
    """As a reader would run it: warnings are errors in the kernel, and only its results_dir is written to."""
    command = [
        sys.executable,
        "-m",
        "papermill",
        str(source),
        str(tmp_path / "out.ipynb"),
        "-p",
        "results_dir",
        str(tmp_path / "results"),
    ]
    filters = "error,ignore:The set_bad function:PendingDeprecationWarning"
    before = set((paths.RESULTS / "alone").rglob("*"))
    done = subprocess.run(
        command, cwd=tmp_path, env=os.environ | {"PYTHONWARNINGS": filters}, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr[-3000:]
    metrics = json.loads((tmp_path / "results" / "metrics.json").read_text())
    assert metrics["notebook"] == f"{source.parent.name}/{source.stem}"
    assert metrics["metrics"]
    assert set((paths.RESULTS / "alone").rglob("*")) == before


def write(tmp_path, *lines, **metadata):
    notebook = nbformat.v4.new_notebook(metadata=metadata)
    cell = nbformat.v4.new_code_cell("\n".join(lines))
    cell.metadata["tags"] = ["parameters"]
    notebook.cells.append(cell)
    path = tmp_path / "n.ipynb"
    nbformat.write(notebook, path)
    return path


def test_a_parameter_without_type_or_comment_is_named(tmp_path):
    with pytest.raises(DataError, match="parameter line 'n = 1'"):
        notebooks.declared_parameters(write(tmp_path, "seed: int = 0  # seed", "n = 1"))


def test_an_unknown_key_of_the_metadata_is_named(tmp_path):
    with pytest.raises(DataError, match="unknown key 'threds'"):
        notebooks.declared_needs(write(tmp_path, epigen={"threds": 2}))


def test_modules_follow_imports_at_the_top_only():
    names = {path.name for path in notebooks.imported_modules(paths.NOTEBOOKS / "epilepsy" / "02_table_two.ipynb")}
    assert {"datasets.py", "registry.py", "layout.py", "style.py", "epigen.mplstyle"} <= names
    assert not {"simulated_bulk.py", "cli.py", "runs.py", "site.py"} & names
    simulated = notebooks.imported_modules(paths.NOTEBOOKS / "epilepsy" / "01_datasets.ipynb", simulated=True)
    assert "simulated_bulk.py" in {path.name for path in simulated}


def test_chapters_that_take_counts_come_in_the_book_s_order():
    table = notebooks.chapters_on_counts()
    assert table["chapter"].iloc[0] == "01_datasets"
    assert {"03_differential_expression", "11_attention"} <= set(table["chapter"])
    assert "12_reads_to_counts" not in set(table["chapter"])
    assert table["title"].iloc[0] == notebooks.notebook_title(paths.NOTEBOOKS / "epilepsy" / "01_datasets.ipynb")
