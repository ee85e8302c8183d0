"""What a change can touch, by the graph of imports that Snakemake's plan has.

As a pytest plugin (`pytest -m slow -p touched --since REVISION`, with `.ci` on the path) it keeps the tests that the
changes since a revision can touch. As a program (`touched.py REVISION PROFILE RUN...`) it prints those of the runs.
An empty revision touches everything.
"""

import subprocess
import sys
from pathlib import Path

from epigen_utils import paths
from epigen_utils.book import notebooks, runs

#: Changes of these touch everything.
EVERYTHING = ("pyproject.toml", "requirements.lock", "Makefile", ".ci/", "tests/conftest.py")


def changed_files(since: str) -> set[str] | None:
    """Paths, relative to the root, that differ from a revision, new files included; None for everything.

    That is an empty revision, one that this clone does not have, or a change of what everything depends on.
    """

    def git(*arguments: str) -> set[str]:
        done = subprocess.run(["git", *arguments], cwd=paths.ROOT, capture_output=True, text=True, check=True)
        return set(done.stdout.splitlines())

    known = ["git", "cat-file", "-e", f"{since}^{{commit}}"]
    if not since or subprocess.run(known, cwd=paths.ROOT, stderr=subprocess.DEVNULL, check=False).returncode:
        return None
    changed = git("diff", "--name-only", since) | git("ls-files", "--others", "--exclude-standard")
    return None if any(name.startswith(EVERYTHING) for name in changed) else changed


def is_touched(files: set[Path], prefixes: tuple[str, ...], changed: set[str] | None) -> bool:
    """Whether a changed file is among some files, or begins with one of some prefixes."""
    if changed is None:
        return True
    names = {str(file.relative_to(paths.ROOT)) for file in files if file.is_relative_to(paths.ROOT)}
    return bool(names & changed) or any(name.startswith(prefix) for name in changed for prefix in prefixes)


def with_tables(modules: list[Path]) -> set[Path]:
    """Modules, and the tables of data/ that these name."""
    return set(modules).union(*map(notebooks.tables_named, modules))


def files_of_test(item) -> set[Path]:
    """Files that a test depends on: its own, what this imports, and the notebooks among its parameters."""
    files = {item.path, item.path.with_name("conftest.py")} | with_tables(notebooks.modules_of_code(item.path))
    for value in getattr(item, "callspec", None) and item.callspec.params.values() or ():
        if isinstance(value, Path) and value.suffix == ".ipynb":
            files |= {value} | with_tables(notebooks.imported_modules(value, simulated=True))
    return files


def pytest_addoption(parser):
    """Add the option."""
    parser.addoption("--since", default="", help="keep tests that changes since this revision can touch")


def pytest_collection_modifyitems(config, items):
    """Deselect the tests that the changes cannot touch."""
    changed = changed_files(config.getoption("--since"))
    kept, left = [], []
    for item in items:
        prefixes = [prefix for mark in item.iter_markers("slow") for prefix in mark.args]
        (kept if is_touched(files_of_test(item), tuple(prefixes), changed) else left).append(item)
    items[:] = kept
    config.hook.pytest_deselected(items=left)


def main(since: str, profile: str, *keys: str) -> None:
    """Print the runs of a profile that the changes can touch, one a line."""
    changed = changed_files(since)
    planned = {run.key: run for run in runs.plan_runs(profile)}
    shared = (str(paths.REGISTRY.relative_to(paths.ROOT)), f"notebooks/profiles/{profile}.yml", "Snakefile")
    for key in keys:
        if is_touched(set(planned[key].inputs), shared, changed):
            print(key)


if __name__ == "__main__":
    main(*sys.argv[1:])
