import contextlib
import shutil

import nbformat
import pytest
import yaml

from epigen_utils import paths
from epigen_utils.book import runs
from epigen_utils.commands import skeletons
from epigen_utils.data import datasets, registry
from epigen_utils.errors import DataError


@pytest.fixture
def tree(tmp_path, monkeypatch):
    """The notebooks, the table of contents and data/ of the checkout, to be written to."""
    for name, folder in (("NOTEBOOKS", "notebooks"), ("DATA", "data")):
        shutil.copytree(getattr(paths, name), tmp_path / folder)
        monkeypatch.setattr(paths, name, tmp_path / folder)
    (tmp_path / "book").mkdir()
    shutil.copy(paths.TOC, tmp_path / "book" / "_toc.yml")
    monkeypatch.setattr(paths, "TOC", tmp_path / "book" / "_toc.yml")
    monkeypatch.setattr(paths, "PROFILES", tmp_path / "notebooks" / "profiles")
    monkeypatch.setattr(paths, "REGISTRY", tmp_path / "data" / "registry.yml")
    monkeypatch.setattr(paths, "RESULTS", tmp_path / "results")
    monkeypatch.setattr(paths, "ROOT", tmp_path)
    registry.entries.cache_clear()
    yield tmp_path
    registry.entries.cache_clear()


def contents(folder):
    return {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}


@pytest.mark.parametrize(
    "key", ["epilepsy/03b_batch_effects", "geneformer/99_last", "epilepsy/99_last", "epilepsy/00_first"]
)
def test_a_chapter_has_its_place_and_nothing_else_changes(tree, key):
    found = contents(tree)
    written = skeletons.new_chapter(key)
    assert {path for path, content in contents(tree).items() if found.get(path) != content} == set(written)
    for path in written[1:]:
        lines, earlier = path.read_text().splitlines(), found[path].decode().splitlines()
        (place,) = (place for place, line in enumerate(lines) if key in line)
        added = len(lines) - len(earlier)
        assert lines[:place] + lines[place + added :] == earlier
    parts = yaml.safe_load(paths.TOC.read_text())["parts"]
    listed = [chapter["file"] for part in parts for chapter in part["chapters"] if "/" in chapter["file"]]
    assert key in listed
    assert listed == sorted(listed)
    for profile in ("demo", "real", "paper", "rehearsal"):
        planned = [run.key for run in runs.plan_runs(profile) if run.name == "main"]
        assert key in planned
        assert planned == sorted(planned)


def test_a_chapter_is_a_notebook_with_a_title_of_its_name(tree):
    skeletons.new_chapter("epilepsy/03b_batch_effects")
    notebook = nbformat.read(paths.NOTEBOOKS / "epilepsy" / "03b_batch_effects.ipynb", as_version=4)
    nbformat.validate(notebook)
    assert notebook.cells[0].source.startswith("# Batch effects\n\n")
    assert 'results_dir: str = "results/alone/epilepsy/03b_batch_effects"' in notebook.cells[2].source


@pytest.mark.parametrize(
    ("key", "said"),
    [
        ("epilepsy/02_table_two", "there is such a chapter; choose another name"),
        ("epilepsy/2_x", "no name of a chapter; write epilepsy/NN_slug or geneformer/NN_slug"),
        ("epilepsy/14-x", "no name of a chapter"),
        ("epilepsy/14_X", "no name of a chapter"),
        ("mouse/01_x", "no name of a chapter"),
        ("epilepsy/../14_x", "no name of a chapter"),
    ],
)
def test_a_chapter_that_cannot_be_is_refused(tree, key, said):
    found = contents(tree)
    with pytest.raises(DataError) as caught:
        skeletons.new_chapter(key)
    assert str(caught.value).startswith(f"{key}: {said}")
    assert contents(tree) == found


def test_a_chapter_that_cannot_be_written_leaves_nothing(tree, monkeypatch):
    found, whole_file = contents(tree), skeletons.whole_file

    @contextlib.contextmanager
    def full_disk(path):
        if path.name == "paper.yml":
            raise OSError("no space left on device")
        with whole_file(path) as part:
            yield part

    monkeypatch.setattr(skeletons, "whole_file", full_disk)
    with pytest.raises(OSError, match="no space"):
        skeletons.new_chapter("epilepsy/14_new")
    assert contents(tree) == found


def test_a_data_set_can_be_loaded_and_has_its_card(tree):
    found = contents(tree)
    written = skeletons.new_data_set("my-set")
    assert {path for path, content in contents(tree).items() if found.get(path) != content} == set(written)
    adata = datasets.load("my-set")
    assert adata.shape == (4, 2)
    assert adata.uns["epigen"]["nature"] == "simulated"
    assert (paths.DATA / "README.md").read_text() == registry.data_cards()
    assert "## my-set\n" in registry.data_cards()
    assert paths.REGISTRY.read_bytes().startswith(found[paths.REGISTRY].rstrip())


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("airway", "there is such a data set; choose another name"),
        ("my set", "no name of a data set; write letters and digits, with hyphens between them"),
        ("../x", "no name of a data set"),
        ("Contrasts", "there is such a data set"),
    ],
)
def test_a_data_set_that_cannot_be_is_refused(tree, name, said):
    found = contents(tree)
    with pytest.raises(DataError) as caught:
        skeletons.new_data_set(name)
    assert str(caught.value).startswith(f"{name}: {said}")
    assert contents(tree) == found
