"""Commands on one's own data from end to end, each in a copy of the checkout: lists, parameter files, skeletons."""

import json
import shutil
import subprocess
import sys

import anndata
import numpy as np
import pandas as pd
import pytest
import yaml
from test_book import WHOLE_BUILD, assert_links_resolve, copy_of_checkout, environment, epigen, pages_of

SMALL = {"epilepsy/02_table_two": {"main": {"dataset": "table-two"}}}
CHAPTER = "epilepsy/03_differential_expression"
NEW = ("epilepsy/03b_batch_effects", "geneformer/12_last_one")


def write_counts(path, seed):
    """Eight samples of two conditions, 60 genes."""
    counts = np.random.default_rng(seed).negative_binomial(5, 0.02, size=(8, 60))
    obs = pd.DataFrame({"condition": ["a"] * 4 + ["b"] * 4}, index=[f"s{i}" for i in range(8)])
    var = pd.DataFrame(index=[f"ENSG{i:011}" for i in range(60)])
    anndata.AnnData(obs=obs, var=var, layers={"counts": counts}).write_h5ad(path)


@pytest.fixture(scope="module")
def copy(tmp_path_factory):
    return copy_of_checkout(tmp_path_factory.mktemp("checkout"))


def python(copy, *arguments):
    command = [sys.executable, "-m", *arguments]
    return subprocess.run(command, cwd=copy, env=environment(copy), capture_output=True, text=True, check=False)


@WHOLE_BUILD
def test_a_list_gives_a_part_for_each_set_and_one_page_of_all(copy, tmp_path):
    (copy / "notebooks" / "profiles" / "small.yml").write_text(yaml.safe_dump(SMALL))
    for seed, name in enumerate(("one", "two")):
        (tmp_path / name).mkdir()
        write_counts(tmp_path / name / "counts.h5ad", seed)
    sets = [{"name": name, "dataset": f"{name}/counts.h5ad", "group": "condition"} for name in ("one", "two")]
    sets.insert(1, sets[0] | {"name": "broken", "group": "tissue"})
    (tmp_path / "sets.yml").write_text(yaml.safe_dump(sets))
    options = ["build", "--profile", "small", "--batch", str(tmp_path / "sets.yml")]
    done = epigen(copy, *options, "--zip", str(tmp_path / "book.zip"), "--with-data")
    assert done.returncode == 1, done.stderr[-2000:]
    said = f"epigen: {tmp_path / 'sets.yml'}: broken: counts.h5ad: obs: no group column 'tissue'"
    assert [line.startswith(said) for line in done.stderr.splitlines()].count(True) == 1
    site = copy / "_build" / "html"
    page = (site / "_generated" / "side-by-side.html").read_text()
    for name in ("one", "two"):
        assert f"Your data: {name}" in (site / "intro.html").read_text()
        assert f'href="../epilepsy/02_table_two--{name}.html"' in page
        results = copy / "results" / "small" / "epilepsy" / "02_table_two" / name / "metrics.json"
        assert f"{json.loads(results.read_text())['metrics']['pc1_raw']['value']:.2%}" in page
    assert "is left out: counts.h5ad: obs: no group column" in page
    assert "is not complete" not in (site / "intro.html").read_text()
    shutil.unpack_archive(tmp_path / "book.zip", tmp_path / "book")
    assert_links_resolve(pages_of(tmp_path / "book"))
    found = sorted(str(path.relative_to(tmp_path / "book")) for path in (tmp_path / "book" / "data").rglob("*.h5ad"))
    assert found == ["data/one/dataset/counts.h5ad", "data/two/dataset/counts.h5ad"]
    assert sum(path.name == "counts.h5ad" for path in (tmp_path / "book").rglob("*")) == 2

    # A run that fails, behind a file where its folder should be.
    sets[1] = sets[0] | {"name": "three"}
    (tmp_path / "sets.yml").write_text(yaml.safe_dump(sets))
    (copy / "results" / "small" / "epilepsy" / "02_table_two" / "three").touch()
    failed = epigen(copy, *options)
    assert failed.returncode == 1
    assert "the build stopped" in failed.stderr.splitlines()[-1]
    page = (site / "_generated" / "side-by-side.html").read_text()
    assert page.count("(not finished)") == 1
    assert "is left out" not in page
    wrong = epigen(copy, *options, "--group", "condition")
    assert wrong.stderr == f"epigen: --group is of one data set; write it in {tmp_path / 'sets.yml'}\n"
    alone = epigen(copy, "build", "--profile", "small")
    assert alone.returncode == 0, alone.stderr[-2000:]
    assert not (site / "_generated" / "side-by-side.html").exists()


@pytest.mark.slow(f"notebooks/{CHAPTER}.ipynb", "epigen_utils/book/", "epigen_utils/commands/", "epigen_utils/cli.py")
def test_papermill_and_a_build_give_equal_metrics_from_one_file_of_parameters(copy, tmp_path):
    write_counts(tmp_path / "counts.h5ad", seed=3)
    mine = {"dataset": str(tmp_path / "counts.h5ad"), "group": "condition", "alpha": 0.1}
    printed = epigen(copy, "params", CHAPTER).stdout
    values = yaml.safe_load(printed) | mine
    for name, value in mine.items():
        (line,) = (line for line in printed.splitlines() if line.startswith(f"{name}: "))
        printed = printed.replace(line, yaml.safe_dump({name: value}, default_flow_style=True)[1:-2])
    (tmp_path / "my.yml").write_text(printed)
    assert yaml.safe_load(printed) == values
    notebook = f"notebooks/{CHAPTER}.ipynb"
    done = python(copy, "papermill", notebook, str(tmp_path / "out.ipynb"), "-f", str(tmp_path / "my.yml"))
    assert done.returncode == 0, done.stderr[-2000:]
    del values["results_dir"]
    (copy / "notebooks" / "profiles" / "mine.yml").write_text(yaml.safe_dump({CHAPTER: {"main": values}}))
    built = epigen(copy, "build", "--profile", "mine", "--only", CHAPTER)
    assert built.returncode == 0, built.stderr[-2000:]
    alone = json.loads((copy / "results" / "alone" / CHAPTER / "metrics.json").read_text())["metrics"]
    of_build = json.loads((copy / "results" / "mine" / CHAPTER / "main" / "metrics.json").read_text())["metrics"]
    for metric in (*alone.values(), *of_build.values()):
        metric.pop("at", None)  # labels have the name of the run
    assert alone == of_build
    assert alone["n_tested"]["value"] == 60


@pytest.mark.slow("epigen_utils/commands/", "epigen_utils/cli.py", "tests/test_notebooks.py", "data/registry.yml")
def test_skeletons_pass_the_tests_of_chapters_and_data_sets_as_they_are(tmp_path):
    copy = copy_of_checkout(tmp_path)
    for command in (["chapter", NEW[0]], ["chapter", NEW[1]], ["dataset", "my-set"]):
        done = epigen(copy, "new", *command)
        assert done.returncode == 0, done.stderr
    files = ["tests/test_notebooks.py", "tests/test_rooms.py", "tests/test_rehearsal.py", "tests/data/test_registry.py"]
    slugs = " or ".join(key.partition("/")[2] for key in NEW)
    chosen = f"{slugs} or cards or is_rehearsed or changes_nothing"
    options = ["-n", "0", "-q", "-p", "no:cacheprovider", "-m", "slow or not slow", "-k", chosen]
    tested = python(copy, "pytest", *options, *files)
    assert tested.returncode == 0, tested.stdout[-3000:]
    assert int(tested.stdout.split(" passed")[0].split()[-1]) > 30
    sources = [f"notebooks/{key}.ipynb" for key in NEW]
    for command in (["check"], ["format", "--check"]):
        linted = python(copy, "ruff", *command, *sources)
        assert linted.returncode == 0, linted.stdout
