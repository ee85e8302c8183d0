"""The promises that files of the project make to each other."""

import re
import subprocess
import tomllib

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
    locked = dict(line.split("==") for line in lines if not line.startswith("#"))
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


def test_every_module_has_a_test_and_is_in_the_tour():
    tour = (paths.ROOT / "CONTRIBUTING.md").read_text()
    tested = " ".join(path.read_text() for path in (paths.ROOT / "tests").glob("test_*.py"))
    for path in paths.PACKAGE.glob("[a-z]*.py"):
        assert re.search(rf"\b{path.stem}\b", tour), f"{path.stem} is not in CONTRIBUTING's tour"
        assert re.search(rf"\b{path.stem}\b", tested), f"{path.stem} has no test"


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
    for text in (script, workflow):
        assert text.index("make test") < text.index("make book")
