"""The house: rooms in one order, modules of a size, and dependencies that are declared."""

import ast
import json
import re
import sys
import tomllib
from importlib.metadata import packages_distributions
from pathlib import Path

import pytest

from epigen_utils import paths

#: A module imports from its own room and from those before it; the root's modules come first, `cli` last.
ROOMS = (
    "",
    "data",
    "stats",
    "models",
    "deseq",
    "expression",
    "geneformer",
    "gpt2",
    "reads",
    "prediction",
    "downstream",
    "distillation",
    "interpretation",
    "plots",
    "book",
    "commands",
)
MOST_LINES = 400
FEWEST_MODULES, MOST_MODULES = 3, 15
#: Declared for what it does beside being imported.
WITHOUT_IMPORT = {
    "accelerate": "the Trainer of transformers needs it",
    "ipykernel": "the kernel of the notebooks",
    "jupyter-book": "a command",
    "nbclient": "papermill runs cells by it",
    "onnxscript": "torch writes ONNX by it",
    "openpyxl": "pandas reads Excel by it",
    "pip": "fetches files of package releases, as a command",
    "snakemake": "a command",
    "sphinx-book-theme": "pinned for jupyter-book",
    "transformer-engine": "optional: imported where it is installed",
    "axe-playwright-python": "tests of the site",
    "hypothesis": "tests",
    "playwright": "tests of the site",
    "pre-commit": "a command",
    "pyperf": "benchmarks",
    "pytest": "tests",
    "pytest-cov": "tests",
    "pytest-xdist": "tests",
    "ruff": "a command",
}


def module_files(package: Path) -> dict[str, Path]:
    """Dotted name -> file of each module of the package, ``__init__`` left out."""
    files = (path for path in package.rglob("*.py") if path.stem != "__init__")
    return {".".join(path.relative_to(package).with_suffix("").parts): path for path in files}


def imports(path: Path, known: dict[str, Path]) -> set[str]:
    """Dotted names of the package's modules that a module imports, anywhere in it."""
    targets = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.ImportFrom) and (node.module or "").split(".")[0] == "epigen_utils":
            _, _, parent = node.module.partition(".")
            for alias in node.names:
                name = f"{parent}.{alias.name}" if parent else alias.name
                targets.add(name if name in known else parent)
    return targets


def room(module: str) -> str:
    return module.rpartition(".")[0]


def violations(package: Path) -> list[str]:
    """Imports from a later room, and circles between modules."""
    known = module_files(package)
    graph = {name: imports(path, known) for name, path in known.items() if name != "cli"}
    wrong = [
        f"{name} imports {target}, of a later room"
        for name, targets in graph.items()
        for target in targets
        if ROOMS.index(room(name)) < ROOMS.index(room(target))
    ]
    left = dict(graph)
    while ends := [name for name, targets in left.items() if not targets & left.keys()]:
        for name in ends:
            del left[name]
    return wrong + ([f"a circle among {', '.join(sorted(left))}"] if left else [])


def too_long(package: Path) -> list[str]:
    return [name for name, path in module_files(package).items() if len(path.read_text().splitlines()) > MOST_LINES]


def external(code: str) -> set[str]:
    """Top names of the packages that code imports, but for the standard library and this package."""
    names = set()
    for node in ast.walk(ast.parse(code)):
        if isinstance(node, ast.Import):
            names |= {alias.name.split(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            names.add(node.module.split(".")[0])
    return names - set(sys.stdlib_module_names) - {"epigen_utils"}


def distribution_name(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()


def undeclared_and_unused(package: Path, sources: list[str], declared: set[str]) -> tuple[set[str], set[str]]:
    """Packages that are imported and not declared, and those that are declared and not imported."""
    code = [path.read_text() for path in package.rglob("*.py")] + sources
    names = set().union(*map(external, code))
    owners = packages_distributions()
    used = {name: {distribution_name(owner) for owner in owners.get(name, [name])} for name in names}
    undeclared = {name for name, distributions in used.items() if not distributions & declared}
    return undeclared, declared - set().union(*used.values()) - set(WITHOUT_IMPORT)


def notebook_code() -> list[str]:
    notebooks = (json.loads(path.read_text()) for path in sorted(paths.NOTEBOOKS.rglob("*.ipynb")))
    return ["\n".join("".join(c["source"]) for c in nb["cells"] if c["cell_type"] == "code") for nb in notebooks]


def declared_packages() -> set[str]:
    project = tomllib.loads((paths.ROOT / "pyproject.toml").read_text())["project"]
    lines = project["dependencies"] + sum(project["optional-dependencies"].values(), [])
    return {distribution_name(re.split(r"[^\w.-]", line)[0]) for line in lines}


def write(package: Path, **modules: str) -> Path:
    """A small package: ``room__module`` -> code."""
    for name, code in modules.items():
        path = package / f"{name.replace('__', '/')}.py"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(code)
    return package


def test_imports_go_one_way():
    assert violations(paths.PACKAGE) == []


def test_an_import_of_a_later_room_is_seen(tmp_path):
    code = "def late():\n    from epigen_utils.book import report\n"
    package = write(tmp_path, stats__folds=code, book__report="")
    assert violations(package) == ["stats.folds imports book.report, of a later room"]


def test_a_circle_is_seen(tmp_path):
    package = write(
        tmp_path,
        data__schema="from epigen_utils.data.genes import table\n",
        data__genes="from epigen_utils.data import schema\n",
    )
    assert violations(package) == ["a circle among data.genes, data.schema"]


def test_the_command_line_may_import_all_and_is_imported_by_none(tmp_path):
    assert not any("cli" in imports(path, module_files(paths.PACKAGE)) for path in module_files(paths.PACKAGE).values())
    assert violations(write(tmp_path, cli="from epigen_utils.book import runs\n", book__runs="")) == []


def test_no_module_is_long(tmp_path):
    assert too_long(paths.PACKAGE) == []
    assert too_long(write(tmp_path, stats__folds="x = 1\n" * 401, stats__scores="x = 1\n" * 400)) == ["stats.folds"]


def test_rooms_have_three_to_fifteen_modules_and_a_docstring_alone():
    for name in ROOMS[1:]:
        folder = paths.PACKAGE / name
        assert FEWEST_MODULES <= len(list(folder.glob("[a-z]*.py"))) <= MOST_MODULES, name
        (docstring,) = ast.parse((folder / "__init__.py").read_text()).body
        assert isinstance(docstring.value.value, str), name
    assert {path.parent.name for path in paths.PACKAGE.glob("*/*.py")} == set(ROOMS[1:])


def test_a_modules_name_is_its_own():
    stems = [name.split(".")[-1] for name in module_files(paths.PACKAGE)]
    assert sorted(stems) == sorted(set(stems))


@pytest.mark.parametrize("source", sorted(paths.NOTEBOOKS.rglob("*.ipynb")), ids=lambda path: path.stem)
def test_a_notebook_enters_three_to_seven_rooms(source):
    cells = [c for c in json.loads(source.read_text())["cells"] if c["cell_type"] == "code"]
    tree = ast.parse("\n".join("".join(c["source"]) for c in cells))
    entered = [
        n.module.split(".")[1:] for n in ast.walk(tree) if isinstance(n, ast.ImportFrom) and "epigen" in n.module
    ]
    assert 3 <= len({parts[0] for parts in entered if parts}) <= 7


def test_what_is_imported_is_declared_and_what_is_declared_is_used():
    assert undeclared_and_unused(paths.PACKAGE, notebook_code(), declared_packages()) == (set(), set())


def test_an_import_that_is_not_declared_is_seen(tmp_path):
    package = write(tmp_path, data__readers="import numpy\nimport yaml\n")
    assert undeclared_and_unused(package, [], {"numpy", "scipy"}) == ({"yaml"}, {"scipy"})
