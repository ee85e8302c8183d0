"""What a source notebook declares: its parameters, its one line of metadata, and the modules it imports."""

import ast
import re
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import nbformat

from epigen_utils import paths
from epigen_utils.errors import DataError


@dataclass(frozen=True)
class Needs:
    """The line ``"epigen": {...}`` of a notebook's metadata.

    ``after``: chapters whose results it reads; ``threads``: how many it may use; ``tools``: programs it calls; ``samples``: how many it needs
    of each group (donors, where there are any); ``groups``: how many groups it takes, 0 for any number.
    """

    after: tuple[str, ...] = ()
    threads: int = 1
    tools: tuple[str, ...] = ()
    samples: int = 0
    groups: int = 0


@cache
def _read(source: Path) -> nbformat.NotebookNode:
    return nbformat.read(source, as_version=4)


def needs(source: Path) -> Needs:
    """The notebook's line of metadata; raises `DataError` on a key it cannot have."""
    given = dict(_read(source).metadata.get("epigen", {}))
    if unknown := set(given) - set(Needs.__dataclass_fields__):
        raise DataError(
            f"{source}: metadata epigen: unknown key {min(unknown)!r}; known: {', '.join(Needs.__dataclass_fields__)}"
        )
    lists = {key: tuple(given.get(key, ())) for key in ("after", "tools")}
    return Needs(**lists, **{key: int(given[key]) for key in ("threads", "samples", "groups") if key in given})


def parameters(source: Path) -> dict[str, str]:
    """Parameters of a notebook: name -> the comment that explains it, in order.

    Raises
    ------
    DataError
        If no cell is tagged ``parameters``, or one of its lines is not ``name: type = default  # what it is``.
    """
    cells = [cell for cell in _read(source).cells if "parameters" in cell.metadata.get("tags", [])]
    if not cells:
        raise DataError(f"{source}: no cell is tagged 'parameters'; tag one")
    found = {}
    for line in filter(str.strip, cells[0].source.splitlines()):
        match = re.fullmatch(r"(\w+): [\w\[\], ]+ = .+?  # (.+)", line)
        if not match:
            raise DataError(f"{source}: parameter line {line!r}; write it as name: type = default  # what it is")
        found[match[1]] = match[2]
    return found


def defaults(source: Path) -> dict[str, object]:
    """Values that the parameters cell of a notebook gives by itself."""
    cell = next(cell for cell in _read(source).cells if "parameters" in cell.metadata.get("tags", []))
    tree = ast.parse(cell.source)
    return {node.target.id: ast.literal_eval(node.value) for node in tree.body if isinstance(node, ast.AnnAssign)}


def title(source: Path) -> str:
    """The first heading of a notebook."""
    return (
        next(cell.source for cell in _read(source).cells if cell.cell_type == "markdown").splitlines()[0].lstrip("# ")
    )


def modules(source: Path, *, simulated: bool = False) -> list[Path]:
    """Files of the helper package that a notebook depends on: what it imports, and what that imports at its top.

    An import inside a function is not followed: it is how `datasets` reaches `simulate`, which counts only for runs on
    ``simulated`` data.
    """
    code = "\n".join(cell.source for cell in _read(source).cells if cell.cell_type == "code")
    todo = _imports(code) | ({"simulate"} if simulated else set())
    found: set[str] = set()
    while todo:
        name = todo.pop()
        if name not in found and (paths.PACKAGE / f"{name}.py").exists():
            found.add(name)
            todo |= _imports((paths.PACKAGE / f"{name}.py").read_text())
    files = [paths.PACKAGE / f"{name}.py" for name in sorted(found)]
    return files + ([paths.PACKAGE / "epigen.mplstyle"] if "style" in found else [])


def _imports(code: str) -> set[str]:
    """Names of the package's modules that top-level statements import."""
    names = set()
    for node in ast.parse(code).body:
        if isinstance(node, ast.ImportFrom) and node.module:
            package, _, module = node.module.partition(".")
            if package == "epigen_utils":
                names |= {module} if module else {alias.name for alias in node.names}
        elif isinstance(node, ast.Import):
            names |= {alias.name.split(".")[1] for alias in node.names if alias.name.startswith("epigen_utils.")}
    return names
