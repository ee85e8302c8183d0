"""Where a page's numbers come from: commit, software, hashes, time; and the bundle that runs the page again."""

import contextlib
import datetime
import importlib.metadata
import json
import os
import platform
import re
import subprocess
import sys
import time
import zipfile
from pathlib import Path

import yaml

from epigen_utils import paths
from epigen_utils.data import registry
from epigen_utils.files import whole_file, write_atomically

#: Names of numbers, and heads of columns, that are wall times or computed from them: equal builds differ in these.
MEASURED = re.compile(
    r"seconds|a second|faster|^times([_ ]|$)|^align_share$|^whole$|^training_(minutes|hours)$|^wall time$"
)


def archive_time() -> tuple[int, ...]:
    """Time of each file in an archive, the same in each build: SOURCE_DATE_EPOCH, else 1 January 2000."""
    first = 315532800  # 1980, of which a zip's times begin
    return time.gmtime(max(int(os.environ.get("SOURCE_DATE_EPOCH", 946684800)), first))[:6]


def current_commit() -> str:
    """The commit that is checked out, and whether tracked files differ from it."""

    def git(*arguments):
        result = subprocess.run(["git", "-C", str(paths.ROOT), *arguments], capture_output=True, text=True, check=False)
        return result.stdout.strip() if result.returncode == 0 else ""

    head = git("rev-parse", "--short=12", "HEAD")
    if not head:
        return "not under version control"
    return head + (" with uncommitted changes" if git("status", "--porcelain", "--untracked-files=no") else "")


def write_benchmark(path: Path, result: dict, *, device: str) -> None:
    """Write and print the result of a script of ``benchmarks/``, followed by device, machine, date and versions.

    On a machine that lacks most of the libraries too, as a lent GPU does.
    """
    about = {"device": device, "machine": machine_description(), "date": datetime.date.today().isoformat()}
    about |= {name: importlib.metadata.version(name) for name in ("torch", "transformers")}
    text = json.dumps(result | about | {"python": platform.python_version()}, indent=1)
    write_atomically(path, text + "\n")
    print(text)


def package_versions(code: str = "") -> dict[str, str]:
    """Version of Python and of each direct dependency that a page's code imports, or the modules of the package do.

    Parameters
    ----------
    code
        The notebook's. What this process has imported is not enough: a warm start has imported other pages' libraries.
    """
    package = f"{paths.PACKAGE.name}."
    loaded = [module.__file__ for name, module in sys.modules.items() if name.startswith(package)]
    codes = [code, *(Path(file).read_text() for file in loaded if file)]
    named = {name for text in codes for name in re.findall(r"^\s*(?:from|import) (\w+)", text, re.MULTILINE)}
    imported = {"python": platform.python_version()}
    requirements = importlib.metadata.requires("epigen-utils") or []
    for name in {re.split(r"[^\w-]", line)[0] for line in requirements if "extra ==" not in line}:
        with contextlib.suppress(importlib.metadata.PackageNotFoundError):
            distribution = importlib.metadata.distribution(name)
            if not _modules(distribution).isdisjoint(named & sys.modules.keys()):
                imported[name] = distribution.version
    return dict(sorted(imported.items()))


def _modules(distribution: importlib.metadata.Distribution) -> set[str]:
    """Names that a distribution is imported by; `packages_distributions` reads those of all that are installed."""
    if declared := distribution.read_text("top_level.txt"):
        return set(declared.split())
    files = (line.split(",")[0] for line in (distribution.read_text("RECORD") or "").splitlines())
    return {file.split("/")[0].removesuffix(".py") for file in files}


def machine_description() -> str:
    """Operating system, architecture, and the threads that numerical libraries may take."""
    return f"{platform.system()} {platform.machine()}, {os.environ.get('OMP_NUM_THREADS', os.cpu_count())} threads"


def without_folder(value: object) -> object:
    """An absolute path as its file name alone, since a bundle is published; other values unchanged."""
    if isinstance(value, list):
        return [without_folder(item) for item in value]
    if isinstance(value, dict):
        return {key: without_folder(item) for key, item in value.items()}
    return Path(value).name if isinstance(value, str) and Path(value).is_absolute() else value


def write_bundle(target: Path, *, notebook: str, parameters: dict, datasets: dict[str, dict]) -> None:
    """Write the zip that runs a page again: notebook, parameters, helper package, registry, inputs or their hashes.

    Parameters
    ----------
    notebook
        ``paper/NN_slug``.
    datasets
        Name -> ``sha256`` of each file, as `datasets.load` recorded them.

    Notes
    -----
    Times inside the archive are those of `archive_time`.
    """
    source = paths.NOTEBOOKS / f"{notebook}.ipynb"
    shipped = [source, *sorted(paths.PACKAGE.rglob("*.py")), *sorted(paths.PACKAGE.rglob("*.mplstyle"))]
    shipped += [paths.ROOT / name for name in ("pyproject.toml", "requirements.lock", "LICENSE", "README.md")]
    shipped += [*sorted(paths.DATA.glob("*.*")), *sorted(paths.CLAIMS.glob("*.csv"))]
    for name in datasets:
        if name in registry.entries() and registry.entry(name).may_be_passed_on:
            files = registry.entry(name).files.values()
            shipped += [paths.DATA / spec.bundled for spec in files if spec.bundled]
    published = {key: without_folder(value) for key, value in parameters.items() if key != "results_dir"}
    command = f"papermill notebooks/{notebook}.ipynb out.ipynb -f parameters.yml"
    note = (
        f"Runs the page {notebook} again.\n\n"
        "  python3 -m venv .venv && .venv/bin/python -m pip install --no-deps -r requirements.lock\n"
        "  .venv/bin/python -m pip install -e .\n"
        f"  .venv/bin/{command}\n\n"
        "inputs.json names each input with its SHA-256; files of your own must be put beside this one.\n"
    )
    contents: dict[str, str | bytes] = {
        "HOW_TO_RUN.txt": note,
        "parameters.yml": yaml.safe_dump(published, sort_keys=True),
        "inputs.json": json.dumps({name: about["sha256"] for name, about in datasets.items()}, indent=1),
    }
    contents |= {str(path.resolve().relative_to(paths.ROOT)): path.read_bytes() for path in shipped if path.exists()}
    with whole_file(target) as part, zipfile.ZipFile(part, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in contents.items():
            archive.writestr(zipfile.ZipInfo(name, archive_time()), content, zipfile.ZIP_DEFLATED)
