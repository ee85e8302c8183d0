"""What set-up installs, what the workflows may do, the container, a release, and the promises of SECURITY.md."""

import json
import os
import pty
import re
import shutil
import subprocess
import tomllib
import zipfile
from pathlib import Path

import pytest
import yaml
from test_ci import script

from epigen_utils import paths

WORKFLOWS = sorted((paths.ROOT / ".github" / "workflows").glob("*.yml"))
LOCKS = [paths.ROOT / name for name in ("requirements.lock", ".ci/cuda.lock", ".ci/audit.lock")]
DOCKERFILE = paths.ROOT / "Dockerfile"
ENTRY = r"[a-z0-9-]+==[\w.]+(?: \\\n    --hash=sha256:[0-9a-f]{64})+"
AUDIT = paths.ROOT / "_build" / "audit"


@pytest.fixture
def lock():
    return script("lock")


@pytest.mark.parametrize("file", LOCKS, ids=lambda file: file.name)
def test_each_release_of_a_lock_has_hashes(file):
    lines = file.read_text().splitlines(keepends=True)
    assert re.fullmatch(rf"(?:{ENTRY}\n)+", "".join(line for line in lines if not line.startswith("#")))


def test_the_locks_of_cuda_and_of_the_audit(lock):
    project, cuda, audit = (dict(pin.split("==") for pin in lock.pins(file)) for file in LOCKS)
    assert "nvidia-cublas" in cuda
    assert not set(cuda) & set(project)
    groups = tomllib.loads((paths.ROOT / "pyproject.toml").read_text())["dependency-groups"]
    assert {re.split(">", line)[0] for line in groups["audit"]} <= set(audit)


@pytest.mark.parametrize(
    ("file", "met"),
    [
        ("a-1.0-py3-none-any.whl", True),
        ("a-1.0-py2.py3-none-any.whl", True),
        ("a-1.0-1-cp311-cp311-manylinux_2_17_x86_64.manylinux2014_x86_64.whl", True),
        ("a-1.0+cpu-cp313-cp313-manylinux_2_28_aarch64.whl", True),
        ("a-1.0-cp39-abi3-macosx_11_0_arm64.whl", True),
        ("a-1.0.tar.gz", True),
        ("a-1.0.1.tar.gz", False),
        ("a-1.0.1-py3-none-any.whl", False),
        ("a-1.0-cp310-cp310-manylinux_2_28_x86_64.whl", False),
        ("a-1.0-cp313-cp313t-manylinux_2_28_x86_64.whl", False),
        ("a-1.0-pp311-pypy311_pp73-manylinux_2_28_x86_64.whl", False),
        ("a-1.0-cp311-cp311-musllinux_1_2_x86_64.whl", False),
        ("a-1.0-cp311-cp311-win_amd64.whl", False),
    ],
)
def test_files_that_set_up_may_take(lock, file, met):
    assert lock.may_be_met(file, "1.0") == met


def test_a_lock_has_the_hashes_of_all_indexes_and_of_the_file_at_hand(lock, serve, tmp_path, monkeypatch):
    address, folder, _ = serve
    for index, file in (
        ("one/a", "a-1.0-py3-none-any.whl"),
        ("two/a", "a-1.0%2Bcpu-py3-none-any.whl"),
        ("one/b", "b-2.zip"),
    ):
        (folder / index).mkdir(parents=True)
        sha256 = ("1" if index == "one/a" else "2") * 64
        (folder / index / "index.html").write_text(f'<a href="../../{file}#sha256={sha256}">any</a>')
    monkeypatch.setenv("PIP_INDEX_URL", f"{address}/one")
    monkeypatch.setenv("PIP_EXTRA_INDEX_URL", f"{address}/two")
    file = tmp_path / "some.lock"
    lock.write(file, {("b", "2"): "", ("a", "1.0"): "3" * 64})
    expected = ["a==1.0", *("1" * 64, "2" * 64, "3" * 64), "b==2", "2" * 64]
    assert re.findall(r"^\w+==[\d.]+|[0-9a-f]{64}", file.read_text(), re.M) == expected
    assert lock.pins(file) == ["a==1.0", "b==2"]


def test_what_make_installs_is_held_to_a_hash():
    """What is installed beside the locks is the project itself."""
    makefile = (paths.ROOT / "Makefile").read_text()
    assert re.search(r"^FROM_LOCK = .*--require-hashes -r$", makefile, re.M)
    installs = [
        line for line in makefile.splitlines() if re.search(r"^\t.*(PIP_INSTALL|pip\)? install|python install)", line)
    ]
    assert len([line for line in installs if "$(FROM_LOCK)" in line]) == 5
    assert [line for line in installs if "$(FROM_LOCK)" not in line] == [
        "\t@$(PIP_INSTALL) --no-deps --no-build-isolation -e ."
    ]


def jobs(workflow: dict) -> list[dict]:
    return list(workflow["jobs"].values())


@pytest.mark.parametrize("file", WORKFLOWS, ids=lambda file: file.name)
def test_actions_are_pinned_and_may_only_read(file):
    text = file.read_text()
    used = re.findall(r"uses: (.*)", text)
    assert used
    assert [line for line in used if not re.fullmatch(r"[\w/-]+@[0-9a-f]{40} # v\d+\.\d+\.\d+", line)] == []
    workflow = yaml.safe_load(text)
    assert workflow["permissions"] == {"contents": "read"}
    assert "pull_request_target" not in text
    for job in jobs(workflow):
        steps = [step for step in job["steps"] if "actions/checkout@" in step.get("uses", "")]
        assert all(step["with"]["persist-credentials"] is False for step in steps)
        assert re.fullmatch(r"python@sha256:[0-9a-f]{64}", job.get("container", "python@sha256:" + "0" * 64))
        if "write" in job.get("permissions", {}).values():
            assert not steps, "what may write runs nothing of the checkout"


def test_the_container():
    text = DOCKERFILE.read_text()
    first, *others = re.findall(r"^FROM (\S+)", text, re.M)
    python = re.fullmatch(r"python:(3\.\d+)-slim-bookworm@sha256:[0-9a-f]{64}", first)[1]
    assert others == ["base"]
    requires = tomllib.loads((paths.ROOT / "pyproject.toml").read_text())["project"]["requires-python"]
    assert requires == f">={python}"
    assert re.findall(r"^USER (\S+)", text, re.M) == ["epigen"]
    assert text.index("apt-get") < text.index("USER epigen") < text.index("make venv")
    assert not re.search(r":latest|\bsudo\b|(curl|wget).*\|", text)
    development = json.loads((paths.ROOT / ".devcontainer" / "devcontainer.json").read_text())
    assert development["remoteUser"] == "epigen"
    assert (paths.ROOT / ".devcontainer" / development["build"]["dockerfile"]).resolve() == DOCKERFILE


def test_the_container_gets_what_is_committed_and_nothing_else():
    everything, *lines = (paths.ROOT / ".dockerignore").read_text().split()
    assert everything == "*"
    shown = {line[1:] for line in lines if line.startswith("!")}
    copied = re.findall(r"^COPY --chown=epigen (.*) \S+$", DOCKERFILE.read_text(), re.M)
    sources = {source.split("/")[0] for line in copied for source in line.split()} - {"."}
    assert "requirements.lock" in sources
    assert sources <= shown
    tracked = subprocess.run(
        ["git", "ls-files", "--cached", "--others", "--exclude-standard"],
        cwd=paths.ROOT,
        capture_output=True,
        text=True,
        check=False,
    ).stdout
    tops = {name.split("/")[0] for name in tracked.split()}
    assert not tops or shown - {".git"} == tops


@pytest.fixture
def apt(tmp_path, monkeypatch):
    """Programs of a root user with apt-get, which notes what it is asked to do."""
    for name, does in (("id", "echo 0"), ("apt-get", f'echo "$*" >> {tmp_path}/asked')):
        (tmp_path / name).write_text(f"#!/bin/sh\n{does}\n")
        (tmp_path / name).chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    monkeypatch.delenv("CI", raising=False)
    return tmp_path / "asked"


@pytest.mark.parametrize(("answer", "installed"), [("y", True), ("n", False), ("", False), (None, True)])
def test_tools_are_installed_after_a_yes(apt, answer, installed):
    terminal, stdin = pty.openpty() if answer is not None else (None, subprocess.DEVNULL)
    if terminal:
        os.write(terminal, f"{answer}\n".encode())
    done = subprocess.run(
        ["make", "--no-print-directory", "tools"],
        cwd=paths.ROOT,
        stdin=stdin,
        capture_output=True,
        text=True,
        check=False,
    )
    for opened in (terminal, stdin) if terminal else ():
        os.close(opened)
    assert done.stdout.startswith("make tools: apt-get installs fastqc fastp")
    assert ("Go on?" in done.stdout) == (answer is not None)
    assert apt.exists() == installed == (done.returncode == 0)


def test_ci_is_not_asked(apt, monkeypatch):
    monkeypatch.setenv("CI", "true")
    terminal, stdin = pty.openpty()
    subprocess.run(
        ["make", "--no-print-directory", "tools"],
        cwd=paths.ROOT,
        stdin=stdin,
        capture_output=True,
        check=True,
        timeout=60,
    )
    os.close(terminal)
    os.close(stdin)
    assert "fastqc" in apt.read_text()


@pytest.mark.slow("Makefile", "pyproject.toml", ".ci/")
@pytest.mark.skipif(not (AUDIT / ".ready").exists(), reason="make audit sets up what writes the bill of materials")
def test_a_release(tmp_path):
    for name in ("Makefile", "pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(paths.ROOT / name, tmp_path)
    shutil.copytree(paths.PACKAGE, tmp_path / "epigen_utils", ignore=shutil.ignore_patterns("__pycache__"))
    (tmp_path / "_build" / "html").mkdir(parents=True)
    (tmp_path / "_build" / "html" / "index.html").write_text("a page")
    identity = ["-c", "user.name=a", "-c", "user.email=a@b"]
    for command in (["init", "-q"], [*identity, "commit", "-q", "--allow-empty", "-m", "first"]):
        subprocess.run(["git", *command], cwd=tmp_path, check=True)
    ready = [f"{paths.ROOT}/.venv/.ready", f"{AUDIT}/.ready"]
    command = [
        "make",
        "release",
        f"VENV={paths.ROOT}/.venv",
        f"AUDIT={AUDIT}",
        *(f"--old-file={file}" for file in ready),
    ]
    sums = [subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=True).stdout for _ in range(2)]
    assert sums[0] == sums[1]
    folder = tmp_path / "_build" / "release"
    subprocess.run(["sha256sum", "--check", "--strict", "SHA256SUMS"], cwd=folder, check=True, capture_output=True)
    wheel, *_ = folder.glob("*.whl")
    assert {file.name for file in folder.iterdir()} == {wheel.name, "site.tar.gz", "sbom.json", "SHA256SUMS"}
    assert "epigen_utils/cli.py" in zipfile.ZipFile(wheel).namelist()
    materials = json.loads((folder / "sbom.json").read_text())
    assert materials["bomFormat"] == "CycloneDX"
    assert materials["metadata"]["component"]["name"] == "epigen-utils"
    assert {"torch", "numpy"} <= {component["name"] for component in materials["components"]}


def test_each_promise_has_its_test():
    rows = re.findall(r"^\| (.+) \| (.+) \|$", (paths.ROOT / "SECURITY.md").read_text(), re.M)[2:]
    assert len(rows) > 5
    for promise, holds in rows:
        tests = re.findall(r"`(tests/[\w/]+\.py)::(\w+)`", holds)
        assert tests, promise
        for file, name in tests:
            assert f"def {name}(" in Path(paths.ROOT / file).read_text(), name
