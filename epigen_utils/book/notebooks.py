"""What a source notebook declares: parameters, needs, and modules it imports; its runs in a profile, and their keys."""

import ast
import itertools
import math
import re
from collections.abc import Iterable
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING

import nbformat
import yaml

from epigen_utils import paths
from epigen_utils.errors import DataError, suggest
from epigen_utils.files import read_yaml

if TYPE_CHECKING:
    import pandas as pd

#: Modules that `datasets` imports inside a function: runs on simulated data depend on them, others do not.
SIMULATION_MODULES = ("data.simulated_bulk", "data.simulated_cells")


@dataclass(frozen=True)
class Needs:
    """The key ``epigen`` of a notebook's metadata.

    Attributes
    ----------
    after
        Chapters whose results it reads.
    threads
        Number of threads it may use.
    tools
        Programs it calls.
    samples
        Least number of samples (donors, if there are any) in each group.
    groups
        Number of groups it takes; 0 for any number.
    datasets
        Parameters that name data sets: one, a list, or a mapping to them. A run is out of date when their entries in
        the registry change.
    renamed
        Former names of parameters, which are refused with the present name: former -> present.
    covers
        Items of the papers that its pages cover (`coverage`).
    profiles
        The profiles that have the data that it is about; by default, all have some.
    cells
        Values of its parameters in runs on a user's own cells; None if it takes none.
    asks
        What a user must say of the cells for such a run: options of ``epigen build``, such as ``label``.
    """

    after: tuple[str, ...] = ()
    threads: int = 1
    tools: tuple[str, ...] = ()
    samples: int = 0
    groups: int = 0
    datasets: tuple[str, ...] = ()
    renamed: dict[str, str] = field(default_factory=dict)
    covers: dict[str, dict] = field(default_factory=dict)
    profiles: tuple[str, ...] = ()
    cells: dict | None = None
    asks: tuple[str, ...] = ()


def run_key(notebook: str, run: str) -> str:
    """Key of a run on pages and in claims: ``paper/NN_slug`` for the run ``main``, else ``paper/NN_slug--run``."""
    return notebook if run == "main" else f"{notebook}--{run}"


def split_run_key(key: str) -> tuple[str, str]:
    """Notebook and name of a run, from its key."""
    notebook, _, run = key.partition("--")
    return notebook, run or "main"


def profile_names() -> list[str]:
    """Names of all profiles with runs of their own."""
    contents = {path.stem: read_yaml(path) for path in paths.PROFILES.glob("*.yml")}
    return sorted(name for name, content in contents.items() if not isinstance(content, dict) or "of" not in content)


def read_profile(path: Path) -> dict[str, dict]:
    """Runs of a profile: notebook -> run -> parameter values.

    A profile with the key ``of`` has the runs of that other profile; it lists, for each notebook, the values in all of
    its runs that differ.

    Raises
    ------
    DataError
        If it is not written so.
    """
    profile = read_yaml(path)
    if (
        not profile
        or not isinstance(profile, dict)
        or not all(re.fullmatch(r"of|\w+/\w+", str(name)) for name in profile)
    ):
        raise DataError(f"{path}: write chapters (paper/NN_slug), and their runs under them")
    if "of" in profile:
        return _cut_profile(path, profile.pop("of"), profile)
    for notebook, chapter_runs in profile.items():
        if (
            not isinstance(chapter_runs, dict)
            or not all(isinstance(name, str) for name in chapter_runs)
            or not all(isinstance(values, dict | None) for values in chapter_runs.values())
        ):
            raise DataError(f"{path}: {notebook}: write the name of a run, and its parameters under it")
    return profile


def _cut_profile(path: Path, original: str, changed: dict[str, dict]) -> dict[str, dict]:
    """Runs of another profile that read the results of this one; ``changed``: notebook -> values of all of its runs."""
    original = str(original)
    if original not in profile_names():
        raise DataError(f"{path}: of {original}: no such profile; {suggest(original, profile_names())}")
    chapters = read_profile(path.with_name(f"{original}.yml"))
    for notebook, values in changed.items():
        if notebook not in chapters:
            raise DataError(f"{path}: {notebook}: no chapter of {original}.yml; {suggest(notebook, chapters)}")
        if not isinstance(values, dict):
            raise DataError(f"{path}: {notebook}: write parameters and their values under it")

    def own(value: object) -> object:
        folder = f"results/{original}/"
        return value.replace(folder, f"results/{path.stem}/") if isinstance(value, str) else value

    return {
        notebook: {
            name: {parameter: own(value) for parameter, value in (values or {}).items()} | changed.get(notebook, {})
            for name, values in chapter_runs.items()
        }
        for notebook, chapter_runs in chapters.items()
    }


@cache
def _read_notebook(source: Path) -> nbformat.NotebookNode:
    return nbformat.read(source, as_version=4)


@cache
def declared_needs(source: Path) -> Needs:
    """Needs of a notebook, from its metadata; raises `DataError` on an unknown key."""
    values = dict(_read_notebook(source).metadata.get("epigen", {}))
    if unknown := set(values) - set(Needs.__dataclass_fields__):
        raise DataError(
            f"{source}: metadata epigen: unknown key {min(unknown)!r}; known: {', '.join(Needs.__dataclass_fields__)}"
        )
    lists = {key: tuple(values.get(key, ())) for key in ("after", "tools", "datasets", "profiles", "asks")}
    numbers = {key: int(values[key]) for key in ("threads", "samples", "groups") if key in values}
    mappings = {key: dict(values.get(key, {})) for key in ("renamed", "covers")}
    return Needs(**lists, **numbers, **mappings, cells=values.get("cells"))


def _parameters_cell(source: Path) -> str:
    for cell in _read_notebook(source).cells:
        if "parameters" in cell.metadata.get("tags", []):
            return cell.source
    raise DataError(f"{source}: no cell is tagged 'parameters'; tag one")


def declared_parameters(source: Path) -> dict[str, str]:
    """Parameters of a notebook: name -> the comment that explains it, in order.

    Raises
    ------
    DataError
        If no cell is tagged ``parameters``, or one of its lines is not ``name: type = default  # what it is``.
    """
    comments = {}
    for line in filter(str.strip, _parameters_cell(source).splitlines()):
        match = re.fullmatch(r"(\w+): [\w\[\], ]+ = .+?  # (.+)", line)
        if not match:
            raise DataError(f"{source}: parameter line {line!r}; write it as name: type = default  # what it is")
        comments[match[1]] = match[2]
    return comments


def check_parameters(where: str, source: Path, names: Iterable[str]) -> None:
    """Refuse a parameter that the notebook does not have; papermill accepts any."""
    declared, renamed = declared_parameters(source), declared_needs(source).renamed
    for name in names:
        if name in renamed:
            raise DataError(f"{where}: parameter {name!r} is now {renamed[name]!r}")
        if name not in declared:
            raise DataError(f"{where}: unknown parameter {name!r}; {suggest(str(name), declared)}")


def default_values(source: Path) -> dict[str, object]:
    """Default value of each parameter of a notebook."""
    return ast.literal_eval(_default_literals(source))


@cache
def _default_literals(source: Path) -> str:
    """Default values as the text of a dictionary, which each caller evaluates for values of its own."""
    tree = ast.parse(_parameters_cell(source))
    pairs = [f"{node.target.id!r}: {ast.unparse(node.value)}" for node in tree.body if isinstance(node, ast.AnnAssign)]
    return "{" + ", ".join(pairs) + "}"


#: What may be written for a parameter that is true or false.
_TRUTH = {"true": True, "yes": True, "1": True, "false": False, "no": False, "0": False}


def cast_parameters(where: str, source: Path, values: dict[str, object]) -> dict[str, object]:
    """Values in the types that the notebook declares for them.

    papermill makes numbers, True, False and None of words that look like them (``-p reference 0``) and keeps the rest
    as words (``-p round_counts false``): a parameter of text has a word again, and a list of words has words.

    Parameters
    ----------
    where
        The notebook, or profile and run, for the message.
    values
        Parameter -> value; all of them declared (`check_parameters`).

    Raises
    ------
    DataError
        Naming the parameter whose value cannot be of its type.
    """
    types, defaults = _declared_types(source), default_values(source)
    return {name: _cast(f"{where}: parameter {name}", types[name], defaults[name], values[name]) for name in values}


@cache
def _declared_types(source: Path) -> dict[str, str]:
    body = ast.parse(_parameters_cell(source)).body
    return {node.target.id: ast.unparse(node.annotation) for node in body if isinstance(node, ast.AnnAssign)}


def _cast(where: str, kind: str, default: object, value: object) -> object:
    if kind == "str":
        return value if isinstance(value, str) else str(value)
    if kind == "bool":
        if str(value).strip().lower() not in _TRUTH:
            raise DataError(f"{where}: {value!r} is neither true nor false; write one of them")
        return _TRUTH[str(value).strip().lower()]
    if kind in ("int", "float"):
        return _number(where, kind, value)
    if kind.startswith("list"):
        return _list(where, kind, default, value)
    if not isinstance(value, dict):
        raise DataError(f"{where}: {value!r} is no mapping; write it by -y, as {{name: value}}")
    return value


def _number(where: str, kind: str, value: object) -> float:
    try:
        number = float("nan" if isinstance(value, bool) else value)
    except (TypeError, ValueError, OverflowError):
        number = float("nan")
    if not math.isfinite(number) or (kind == "int" and number != int(number)):
        raise DataError(f"{where}: {value!r} is no {'whole number' if kind == 'int' else 'number'}; write one")
    if kind == "float":
        return number
    return value if isinstance(value, int) else int(number)  # a number above 2**53 stays whole


def _list(where: str, kind: str, default: list, value: object) -> list:
    """A list; one word is a list of it, and words with commas between them are several."""
    if isinstance(value, str) and value.startswith("["):
        try:
            words = yaml.safe_load(value)
        except yaml.YAMLError:
            words = None
        if not isinstance(words, list):
            raise DataError(f"{where}: {value!r} is no list; write it as [a, b]")
        value = words
    elif isinstance(value, str):
        value = [word.strip() for word in value.split(",")]
    value = value if isinstance(value, list | tuple) else [value]
    item = re.sub(r"list\[?(\w*)\]?", r"\1", kind) or (type(default[0]).__name__ if default else "str")
    return [_cast(where, item, None, element) for element in value]


def notebook_title(source: Path) -> str:
    """The first heading of a notebook."""
    first = next(cell.source for cell in _read_notebook(source).cells if cell.cell_type == "markdown")
    return first.splitlines()[0].lstrip("# ")


def imported_modules(source: Path, *, simulated: bool = False) -> list[Path]:
    """Files of the helper package that a notebook depends on: its imports, and the top-level imports of these.

    Imports inside functions are not followed. The package's ``__init__`` files hold docstrings only and are left out.

    Parameters
    ----------
    simulated
        Whether the run is on simulated data, which adds `SIMULATION_MODULES`.
    """
    added = _module_files({f"{paths.PACKAGE.name}.{name}" for name in SIMULATION_MODULES}) if simulated else set()
    return _closure(_imported_files(ast.parse(code(source)).body) | added)


@cache
def code(source: Path) -> str:
    """The code of a notebook."""
    return "\n".join(cell.source for cell in _read_notebook(source).cells if cell.cell_type == "code")


def library_imports(source: Path) -> str:
    """Statements by which a notebook, and the modules that it imports, import others than the package's, one a line."""
    modules = (_statements(file) for file in imported_modules(source) if file.suffix == ".py")
    statements = {
        ast.unparse(node)
        for node in itertools.chain(ast.parse(code(source)).body, *modules)
        if isinstance(node, ast.Import | ast.ImportFrom) and not _imported_files([node])
    }
    return "\n".join(sorted(statements))


def modules_of_code(file: Path) -> list[Path]:
    """Files of the helper package that a Python file outside it depends on; its imports inside functions count too."""
    return _closure(_imported_files(ast.walk(ast.parse(file.read_text()))))


def _closure(files: set[Path]) -> list[Path]:
    """Modules and what they import at their top, directly or through others, with the style file of the plots."""
    todo, closed = set(files), set()
    while todo:
        file = todo.pop()
        if file not in closed:
            closed.add(file)
            todo |= _imports_of_module(file)
    return sorted(closed) + [file.with_name("epigen.mplstyle") for file in closed if file.stem == "style"]


@cache
def _statements(file: Path) -> list[ast.stmt]:
    """Statements at the top of a module."""
    return ast.parse(file.read_text()).body


@cache
def _imports_of_module(file: Path) -> set[Path]:
    return _imported_files(_statements(file))


def _imported_files(nodes: Iterable[ast.AST]) -> set[Path]:
    """Files of the package's modules that the import statements among the nodes name."""
    names = set()
    for node in nodes:
        if isinstance(node, ast.ImportFrom) and node.module:
            # What follows `import` is a module, or a name in the module before it.
            names |= {node.module} | {f"{node.module}.{alias.name}" for alias in node.names}
        elif isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
    return _module_files(names)


def _module_files(names: set[str]) -> set[Path]:
    """Files of those dotted names that are modules of the package; folders and names inside modules have none."""
    inside = {name for name in names if name.startswith(f"{paths.PACKAGE.name}.")}
    files = {paths.PACKAGE.parent.joinpath(*name.split(".")).with_suffix(".py") for name in inside}
    return {file for file in files if file.is_file()}


@cache
def tables_named(module: Path) -> frozenset[Path]:
    """Small tables of ``data/`` whose file names a module contains.

    ``paths`` and ``registry`` name every table and read none by itself: they count as naming none.
    """
    if module.stem in ("paths", "registry"):
        return frozenset()
    code = module.read_text()
    tables = {path for path in paths.DATA.glob("*.*") if path.suffix != ".md" and path.name in code}
    return frozenset(tables - {paths.REGISTRY})


def with_tables(modules: Iterable[Path]) -> set[Path]:
    """Modules, and the tables that they name (`tables_named`)."""
    modules = set(modules)
    return modules.union(*map(tables_named, modules))


def chapters_on_counts(paper: str = "epilepsy") -> "pd.DataFrame":
    """Chapters that take a data set and its sample table, hence also counts from reads: ``chapter``, ``title``."""
    import pandas as pd  # here, since the plan of a build does without it

    in_order = [
        chapter["file"] for part in yaml.safe_load(paths.TOC.read_text())["parts"] for chapter in part["chapters"]
    ]
    rows = []
    for name in in_order:
        source = paths.NOTEBOOKS / f"{name}.ipynb"
        if name.startswith(f"{paper}/") and source.exists() and "metadata" in declared_parameters(source):
            rows.append({"chapter": name.partition("/")[2], "title": notebook_title(source)})
    return pd.DataFrame(rows)
