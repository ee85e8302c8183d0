"""What a change can touch, by the graph of imports that Snakemake's plan has.

As a pytest plugin (`pytest -m slow -p touched --since REVISION`, with `.ci` on the path) it keeps the tests that the
changes since a revision can touch. As a program (`touched.py REVISION PROFILE RUN...`) it prints those of the runs.
An empty revision touches everything. After the time that the environment's CI_DEADLINE gives (seconds since 1970) the
tests that are left are skipped, and the report says so.
"""

import os
import re
import subprocess
import sys
import time
from functools import cache
from pathlib import Path

import pytest

from epigen_utils import paths
from epigen_utils.book import notebooks, runs
from epigen_utils.reads import pipeline

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
    changed = git("diff", "--name-only", "--no-renames", since) | git("ls-files", "--others", "--exclude-standard")
    return None if any(name.startswith(EVERYTHING) for name in changed) else changed


def is_touched(files: set[Path], prefixes: tuple[str, ...], changed: set[str] | None) -> bool:
    """Whether a changed file is among some files, or begins with one of some prefixes."""
    if changed is None:
        return True
    names = {str(file.relative_to(paths.ROOT)) for file in files if file.is_relative_to(paths.ROOT)}
    return bool(names & changed) or any(name.startswith(prefix) for name in changed for prefix in prefixes)


@cache
def files_of_notebook(source: Path) -> set[Path]:
    """A notebook, what it imports, and the registry, which names its data."""
    return {source, paths.REGISTRY} | notebooks.with_tables(notebooks.imported_modules(source, simulated=True))


@cache
def files_of_module(file: Path) -> set[Path]:
    """A file of tests, what it imports, its neighbours' files of tests among this included."""
    files = {file, file.with_name("conftest.py")} | notebooks.with_tables(notebooks.modules_of_code(file))
    for name in re.findall(r"^from (test_\w+) import", file.read_text(), re.M):
        files |= files_of_module(file.with_name(f"{name}.py"))
    return files


def files_of_test(item) -> set[Path]:
    """Files that a test depends on: those of its module, of the notebooks among its marks, and notebooks as parameters.

    A notebook that is a parameter runs alone, on its defaults: the book that CI builds runs the modules it imports.
    """
    values = item.callspec.params.values() if hasattr(item, "callspec") else ()
    alone = {value for value in values if isinstance(value, Path) and value.suffix == ".ipynb"}
    named = {
        paths.ROOT / value for mark in item.iter_markers("slow") for value in mark.args if value.endswith(".ipynb")
    }
    return files_of_module(item.path).union(alone, *map(files_of_notebook, named))


def files_of_run(run: runs.Run, planned: list[runs.Run]) -> set[Path]:
    """Sources of a run, of the runs whose results it reads, and of its way from reads to counts."""
    files = set(run.sources)
    upstream = runs.upstream_metrics(run, planned)
    for other in planned:
        if other.metrics in upstream:
            files |= files_of_run(other, planned)
    if run.reads:
        modules = {name for kind in pipeline.CODE_MODULES.values() for name in kind}
        files |= {paths.READS_RULES} | {paths.PACKAGE / f"{name}.py" for name in modules}
    return files


def pytest_addoption(parser):
    """Add the option."""
    parser.addoption("--since", default="", help="keep tests that changes since this revision can touch")


def pytest_collection_modifyitems(config, items):
    """Deselect the tests that the changes cannot touch."""
    changed = changed_files(config.getoption("--since"))
    kept, left = [], []
    for item in items:
        prefixes = tuple(prefix for mark in item.iter_markers("slow") for prefix in mark.args)
        (kept if is_touched(files_of_test(item), prefixes, changed) else left).append(item)
    items[:] = kept
    config.hook.pytest_deselected(items=left)


def pytest_runtest_setup(item):
    """Skip what a slow machine has no time for."""
    if time.time() > float(os.environ.get("CI_DEADLINE", "inf")):
        pytest.skip("left to the nightly run: the time of CI is over")


def main(since: str, profile: str, *keys: str) -> None:
    """Print the runs of a profile that the changes can touch, one a line."""
    changed = changed_files(since)
    planned = runs.plan_runs(profile)
    by_key = {run.key: run for run in planned}
    shared = (str(paths.REGISTRY.relative_to(paths.ROOT)), f"notebooks/profiles/{profile}.yml", "Snakefile")
    for key in keys:
        if is_touched(files_of_run(by_key[key], planned), shared, changed):
            print(key)


if __name__ == "__main__":
    main(*sys.argv[1:])
