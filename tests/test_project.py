"""The promises that files of the project make to each other."""

import re
import subprocess
import tomllib
from pathlib import Path

import pytest
import yaml

from epigen_utils import paths

TRACKED = subprocess.run(
    ["git", "ls-files"], cwd=paths.ROOT, capture_output=True, text=True, check=False
).stdout.split()


@pytest.fixture(scope="module")
def project():
    return tomllib.loads((paths.ROOT / "pyproject.toml").read_text())["project"]


def test_the_lock_has_every_dependency_and_no_cuda(project):
    lines = (paths.ROOT / "requirements.lock").read_text().splitlines()
    locked = dict(line.removesuffix(" \\").split("==") for line in lines if not line.startswith(("#", " ")))
    assert all(re.fullmatch(r"[\w.]+", version) for version in locked.values()), "one plain version each"
    assert not [name for name in locked if name.startswith(("nvidia", "triton", "cuda"))]
    wanted = (
        project["dependencies"] + project["optional-dependencies"]["dev"] + project["optional-dependencies"]["bench"]
    )
    for line in wanted:
        assert re.split(r"[^\w-]", line)[0] in locked, line


def test_environment_has_one_list_of_python_packages():
    environment = yaml.safe_load((paths.ROOT / "environment.yml").read_text())
    *conda, pip = environment["dependencies"]
    assert pip == {"pip": ["-e ."]}
    assert all(isinstance(name, str) for name in conda)


def test_extras(project):
    assert set(project["optional-dependencies"]) == {"gpu", "bench", "dev"}
    assert project["scripts"] == {"epigen": "epigen_utils.cli:main"}


def file_of_tests(module: Path) -> Path:
    """Where the tests of a module stand."""
    parts = module.relative_to(paths.PACKAGE).with_suffix("").parts
    if parts == ("book", "notebooks"):
        return paths.ROOT / "tests" / "test_notebooks.py"
    return paths.ROOT.joinpath("tests", *parts[:-1], f"test_{parts[-1]}.py")


def test_every_module_has_its_file_of_tests_and_every_file_its_module():
    expected = {file_of_tests(module) for module in paths.PACKAGE.rglob("[a-z]*.py") if module.stem != "paths"}
    assert sorted(file for file in expected if not file.exists()) == []
    assert sorted(set((paths.ROOT / "tests").glob("*/test_*.py")) - expected) == []


def test_the_tour_has_a_row_for_each_room():
    tour = re.findall(r"^\| `(\w+)` \|", (paths.ROOT / "CONTRIBUTING.md").read_text(), re.M)
    assert sorted(tour) == sorted(folder.parent.name for folder in paths.PACKAGE.glob("*/__init__.py"))


@pytest.mark.skipif(not TRACKED, reason="not a git checkout")
def test_nothing_derived_is_committed():
    for name in TRACKED:
        assert not re.match(r"(results|_build|book/(epilepsy|geneformer|_generated))/", name), name


def test_the_readme_names_what_is_there():
    text = (paths.ROOT / "README.md").read_text()
    for name in re.findall(r"^([\w.]+/)\s{2,}", text, re.M):
        assert (paths.ROOT / name).is_dir(), name
    for target in re.findall(r"\]\((?!https?:)([\w./-]+)\)", text):
        assert (paths.ROOT / target).exists(), target
    makefile = (paths.ROOT / "Makefile").read_text()
    for target in re.findall(r"\bmake (\w+)", text):
        assert re.search(rf"^{target}:", makefile, re.M), target


def test_ci_runs_what_the_readme_says():
    script = (paths.ROOT / ".ci" / "run").read_text()
    workflow = (paths.ROOT / ".github" / "workflows" / "ci.yml").read_text()
    assert script.index("make test") < script.index("make book")
    assert re.search(r"^ +- run: \.ci/run$", workflow, re.M)


def test_the_hosted_book_is_of_the_real_data_and_whole():
    push, nightly = (
        yaml.safe_load((paths.ROOT / ".github" / "workflows" / f"{name}.yml").read_text()) for name in ("ci", "nightly")
    )
    assert "deploy-pages" not in str(push), "a push does not put the book of profile demo in its place"
    commands = [step.get("run") for step in nightly["jobs"]["real"]["steps"]]
    assert "make book PROFILE=real" in commands
    assert nightly["jobs"]["publish"]["needs"] == "real"
    assert [name for name, job in nightly["jobs"].items() if "deploy-pages" in str(job)] == ["publish"]
