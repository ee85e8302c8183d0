"""The contract of a source notebook, and a run of each on its defaults: of one quickly, of all of them slowly."""

import ast
import json
import os
import re
import subprocess
import sys
from pathlib import Path

import nbformat
import pytest
from conftest import MIRROR

from epigen_utils import paths
from epigen_utils.book import notebooks, runs
from epigen_utils.data import registry
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


#: Functions beside those of `report` that a cell may end in: they write files, and give nothing that would be shown.
GIVE_NOTHING = {"files.write_json", "student_runs.write_runs", "vocabularies.save_vocabulary"}


@EACH
def test_no_cell_ends_in_a_value_that_would_be_shown(source):
    for cell in code_of(source):
        last = ast.parse(cell.source).body[-1]
        if isinstance(last, ast.Expr):
            called = ast.unparse(last.value.func)
            assert called.startswith("report.") or called in GIVE_NOTHING, cell.source


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
def test_is_in_the_table_of_contents_and_in_every_profile_or_in_those_it_names(source):
    key = f"{source.parent.name}/{source.stem}"
    assert f"file: {key}" in paths.TOC.read_text()
    wanted = set(notebooks.declared_needs(source).profiles)
    for profile in set(notebooks.profile_names()) - {"sweeps"}:
        is_run = any(run.notebook == key and run.name == "main" for run in runs.plan_runs(profile))
        assert is_run == (not wanted or profile in wanted), profile


def names_in(module: Path) -> dict[str, ast.AST]:
    """What a module defines at its top, by name."""
    found = {}
    for node in ast.parse(module.read_text()).body:
        if isinstance(node, ast.FunctionDef | ast.ClassDef):
            found[node.name] = node
        elif isinstance(node, ast.Import | ast.ImportFrom):
            found |= {(alias.asname or alias.name).partition(".")[0]: node for alias in node.names}
        else:
            targets = getattr(node, "targets", None) or [getattr(node, "target", None)]
            inside = [name for target in targets if target for name in ast.walk(target)]  # of A, B = 1, 2 as well
            found |= {name.id: node for name in inside if isinstance(name, ast.Name)}
    return found


def misfit(call: ast.Call, function: ast.FunctionDef) -> str:
    """Why a function does not take a call's arguments; empty if it does."""
    taken = function.args
    names = [argument.arg for argument in taken.posonlyargs + taken.args]
    given = [keyword.arg for keyword in call.keywords]
    starred = None in given or any(isinstance(argument, ast.Starred) for argument in call.args)
    if not taken.kwarg and (unknown := set(given) - {None, *names, *(argument.arg for argument in taken.kwonlyargs)}):
        return f"no parameter {min(unknown)}"
    if not taken.vararg and not starred and len(call.args) > len(names):
        return "too many arguments"
    needed = names[len(call.args) : len(names) - len(taken.defaults)]
    needed += [
        argument.arg for argument, default in zip(taken.kwonlyargs, taken.kw_defaults, strict=True) if not default
    ]
    missing = [] if starred else [name for name in needed if name not in given]
    return f"{missing[0]} is not given" if missing else ""


def misfits(code: str) -> list[str]:
    """Names of the package's modules that code uses and that are not there, and calls that they do not take."""
    tree = ast.parse(code)
    modules, functions, found = {}, {}, []
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("epigen_utils"):
            folder = paths.ROOT.joinpath(*node.module.split("."))
            for alias in node.names:
                name = alias.asname or alias.name
                if (folder / f"{alias.name}.py").exists():
                    modules[name] = names_in(folder / f"{alias.name}.py")
                elif folder.with_suffix(".py").exists() and alias.name in (
                    inside := names_in(folder.with_suffix(".py"))
                ):
                    functions[name] = inside[alias.name]
                else:
                    found.append(f"{node.module}.{alias.name}")
    called = {id(node.func): node for node in ast.walk(tree) if isinstance(node, ast.Call)}
    for node in ast.walk(tree):
        if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name) and node.value.id in modules:
            name, target = f"{node.value.id}.{node.attr}", modules[node.value.id].get(node.attr)
        elif isinstance(node, ast.Name) and node.id in functions:
            name, target = node.id, functions[node.id]
        else:
            continue
        if target is None:
            found.append(name)
        elif id(node) in called and isinstance(target, ast.FunctionDef) and (why := misfit(called[id(node)], target)):
            found.append(f"{name}: {why}")
    return found


@EACH
def test_uses_what_the_package_has_as_it_takes_it(source):
    """Without a run: a function that was renamed, or a parameter that went, in any of its cells."""
    assert misfits("\n".join(cell.source for cell in code_of(source))) == []


def test_a_use_that_does_not_fit_is_named():
    code = """
from epigen_utils.book import report
from epigen_utils.stats import folds, lost
from epigen_utils.data.datasets import load
report.begin("a/b", results_dir="x", seed=0)
report.begin("a/b", results="x", seed=0)
report.begin("a/b", seed=0)
report.value("a", 1, 2)
report.lost
load()
load("airway", "samples.csv")
load(*names, **options)
"""
    assert sorted(misfits(code)) == [
        "epigen_utils.stats.lost",
        "load: name_or_path is not given",
        "load: too many arguments",
        "report.begin: no parameter results",
        "report.begin: results_dir is not given",
        "report.lost",
        "report.value: too many arguments",
    ]


#: As a reader would run them. That of one is quick; test_own_matrix has the cells of others, and each runs in the book.
ALONE = [
    pytest.param(
        source,
        id=f"{source.parent.name}/{source.stem}",
        marks=[] if source.stem == "02_table_two" else pytest.mark.slow,
    )
    for source in SOURCES
]


def default_data(source: Path) -> list[str]:
    return runs.Run("demo", f"{source.parent.name}/{source.stem}", "main", {}).datasets


def downloaded(name: str) -> bool:
    """Whether a data set comes from the publisher's server."""
    entry = registry.entries().get(name)
    return entry is not None and any(spec.source in ("url", "geo", "converted") for spec in entry.files.values())


@pytest.mark.parametrize("source", ALONE)
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
    environment = os.environ | {"PYTHONWARNINGS": "error,ignore:The set_bad function:PendingDeprecationWarning"}
    if any(downloaded(name) for name in default_data(source)):
        if not MIRROR.exists():
            pytest.skip(f"no mirror at {MIRROR}")
        environment["EPIGEN_DATA_MIRROR"] = str(MIRROR)
    before = set((paths.RESULTS / "alone").rglob("*"))
    done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, check=False)
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
