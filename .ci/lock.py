"""Write the locks: what pip would install in an empty environment, and the SHA-256 of the files that it may take.

`requirements.lock` is the project and its development tools, `cuda.lock` what torch's CUDA build needs beside them,
`audit.lock` the tools of `make audit`. With `--keep`, releases stay as they are and the hashes alone are read again.
Runs before there is an environment: by pip, whose configuration names the indexes, and the standard library alone.
"""

import json
import re
import subprocess
import sys
import tempfile
import tomllib
import urllib.error
import urllib.parse
import urllib.request
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from pip._internal.commands import create_command  # the one place that joins pip's files, environment and defaults

ROOT = Path(__file__).resolve().parents[1]
LOCK, CUDA, AUDIT = ROOT / "requirements.lock", ROOT / ".ci" / "cuda.lock", ROOT / ".ci" / "audit.lock"
HEADER = """\
# Written by `make lock` from pyproject.toml, with the oldest Python that a machine is likely to have.
# The hashes are those of the source archive and of the wheels for CPython from 3.11 on Linux and macOS. A CPU build of
# torch carries a local version that is cut off here, so that any build of that release whose hash is listed will do.
"""
PIN = re.compile(r"^([\w.-]+)==([\w.]+)", re.M)
LINK = re.compile(r'href="(?:[^"#]*/)?([^"#/]+)#sha256=([0-9a-f]{64})"')


def resolve(*arguments: str) -> dict[tuple[str, str], str]:
    """SHA-256 of the file that pip would install, by name and public version."""
    command = [sys.executable, "-m", "pip", "install", "--dry-run", "--ignore-installed", "--quiet", "--report"]
    with tempfile.NamedTemporaryFile("r") as report:
        subprocess.run([*command, report.name, *arguments], cwd=ROOT, check=True, stdout=sys.stderr)
        items = json.load(report)["install"]
    found = {}
    for item in items:
        name = re.sub(r"[-_.]+", "-", item["metadata"]["name"]).lower()
        hashes = item["download_info"].get("archive_info", {}).get("hashes", {})
        found[name, item["metadata"]["version"].partition("+")[0]] = hashes.get("sha256", "")
    return {pin: sha256 for pin, sha256 in found.items() if pin[0] != "epigen-utils"}


def pins(file: Path) -> list[str]:
    """Requirements of a lock, as name==version."""
    return ["==".join(pin) for pin in PIN.findall(file.read_text())]


def may_be_met(filename: str, version: str) -> bool:
    """Whether a file is of a release, and one that set-up may take."""
    if not filename.endswith(".whl"):
        return filename.endswith((f"-{version}.tar.gz", f"-{version}.zip"))
    _, found, *_, python, abi, platform = filename.removesuffix(".whl").split("-")
    return (
        found.partition("+")[0] == version
        and re.search(r"\b(py3|cp31[1-9]|abi3)", f"{python}-{abi}") is not None
        and not re.fullmatch(r"cp\d+t", abi)
        and re.search(r"any|manylinux.*(x86_64|aarch64)|macosx", platform) is not None
    )


def hashes(indexes: list[str], name: str, version: str) -> set[str]:
    """SHA-256 of the files of a release that set-up may take."""
    found = set()
    for index in indexes:
        try:
            with urllib.request.urlopen(f"{index.rstrip('/')}/{name}/", timeout=60) as answer:
                links = LINK.findall(answer.read().decode())
        except urllib.error.HTTPError as error:
            if error.code not in (403, 404):  # what an index of few projects says of the others
                raise
        else:
            found |= {sha256 for file, sha256 in links if may_be_met(urllib.parse.unquote(file), version)}
    return found


def write(file: Path, resolved: dict[tuple[str, str], str]) -> None:
    """Write a lock."""
    options, _ = create_command("install").parse_args([])
    indexes = [url for url in (options.index_url, *options.extra_index_urls) if url.startswith("http")]
    with ThreadPoolExecutor(8) as pool:
        listed = pool.map(lambda pin: hashes(indexes, *pin), resolved)
    part = file.with_name(f"{file.name}.part")
    with open(part, "w") as stream:
        stream.write(HEADER)
        for ((name, version), own), others in sorted(zip(resolved.items(), listed, strict=True)):
            lines = [f"--hash=sha256:{sha256}" for sha256 in sorted(others | {own} - {""})]
            stream.write(" \\\n    ".join([f"{name}=={version}", *lines]) + "\n")
    part.replace(file)


def main(*arguments: str) -> None:
    """Write all locks."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())
    if arguments == ("--keep",):
        for file in (LOCK, CUDA, AUDIT):
            write(file, resolve("--no-deps", *pins(file)))
        return
    # papermill asks for aiohttp on Python 3.12 alone, where this does not run.
    locked = resolve(".[dev,bench]", "hatchling", "editables", "aiohttp")
    write(LOCK, locked)
    torch = next(version for name, version in locked if name == "torch")
    # `===` leaves out a CPU build, whose version has a local part.
    cuda = resolve(f"torch==={torch}")
    write(CUDA, {pin: sha256 for pin, sha256 in cuda.items() if pin[0] not in dict(locked)})
    write(AUDIT, resolve(*project["dependency-groups"]["audit"]))


if __name__ == "__main__":
    main(*sys.argv[1:])
