import json
import os
import time

import nbformat
import pytest
import yaml

from epigen_utils import paths
from epigen_utils.book import runs, site
from epigen_utils.errors import DataError


@pytest.fixture
def own_file(tmp_path):
    path = tmp_path / "My set.v2.h5ad"
    path.touch()
    return str(path)


def test_contents_follow_from_the_plan(own_file):
    planned = runs.plan_runs("demo", {"dataset": own_file, "group": "condition"})
    toc = yaml.safe_load(site.table_of_contents(planned, ["My-set"]))
    mine, *others = toc["parts"]
    assert mine["caption"] == "Your data: My-set"
    assert [chapter["file"] for chapter in mine["chapters"]][:2] == [
        "epilepsy/01_datasets--My-set",
        "epilepsy/02_table_two--My-set",
    ]
    chapters = {chapter["file"]: chapter for part in others for chapter in part["chapters"]}
    assert chapters["epilepsy/02_table_two"]["sections"] == [{"file": "epilepsy/02_table_two--airway"}]
    only = yaml.safe_load(site.table_of_contents([run for run in planned if run.notebook == "epilepsy/01_datasets"]))
    assert "epilepsy/02_table_two" not in str(only)
    assert "reproduce" in str(only)


def test_cells_have_a_part_of_their_name(own_file):
    own = {"dataset": own_file, "kind": "cells", "sizes": {}}
    toc = yaml.safe_load(site.table_of_contents(runs.plan_runs("demo", own), ["My-set"]))
    assert toc["parts"][0]["caption"] == "Your cells: My-set"
    assert toc["parts"][0]["chapters"][0]["file"] == "geneformer/01_curation--My-set"


@pytest.fixture
def folders(tmp_path, monkeypatch):
    """Book and results of their own, with one finished run."""
    monkeypatch.setattr(paths, "BOOK", tmp_path / "book")
    monkeypatch.setattr(paths, "RESULTS", tmp_path / "results")
    monkeypatch.setattr(paths, "GENERATED", tmp_path / "book" / "_generated")
    monkeypatch.setattr(paths, "ROOT", tmp_path)
    planned = [
        runs.Run("demo", "epilepsy/02_table_two", "main", {}),
        runs.Run("demo", "epilepsy/02_table_two", "air-way", {}),
        runs.Run("demo", "epilepsy/12_reads_to_counts", "main", {}),
    ]
    planned[0].results.mkdir(parents=True)
    cells = [nbformat.v4.new_markdown_cell("# Table II\n\nSee {numref}`fig:pca`.", id="a")]
    nbformat.write(nbformat.v4.new_notebook(cells=cells), planned[0].executed)
    record = {"metrics": {"silhouette": {"value": 0.43}}, "datasets": {"table-two": {"nature": "real"}}}
    planned[0].metrics.write_text(json.dumps(record))
    return planned


def test_a_run_that_is_not_finished_has_a_page_that_says_so(folders):
    finished, pending, toolless = folders
    site.publish_pages(folders, {pending.key}, {toolless.notebook: ["STAR"]})
    text = {run.key: nbformat.read(run.page, 4).cells[0].source for run in folders}
    assert text[finished.key] == "# Table II\n\nSee {numref}`epilepsy-02_table_two-fig-pca`."
    title, notice = text[pending.key].split("\n\n")
    assert title.startswith("# ")
    assert title.endswith(": air\\-way")
    assert notice.startswith("This chapter is still to come")
    assert "STAR not installed" in text[toolless.key]
    toc = yaml.safe_load(site.table_of_contents(folders))
    assert "epilepsy/02_table_two--air-way" in str(toc)
    assert "epilepsy/12_reads_to_counts" in str(toc)
    site.publish_pages(folders[:1], user_runs=["main"])
    source = nbformat.read(finished.page, 4).cells[0].source
    assert source == f"# Table II\n\nSee {site.NOT_GIVEN}.", "own data need not give every figure"
    site.publish_pages(folders[:1])
    assert [run.page.exists() for run in folders] == [True, False, False]


def executed(run, **recorded):
    """A finished run whose box and code record numbers and words."""
    box = ":::{admonition} In short\n- {glue:text}`score:.2f`, {glue:text}`first`, {glue:text}`lost:.1f`\n:::"
    prefix = "application/papermill.record/"
    outputs = [
        nbformat.v4.new_output(
            "display_data",
            {f"{prefix}text/plain": repr(content)},
            metadata={"scrapbook": {"name": f"{prefix}{name}", "mime_prefix": prefix}},
        )
        for name, content in recorded.items()
    ]
    cells = [nbformat.v4.new_markdown_cell(box, id="a"), nbformat.v4.new_code_cell("", outputs=outputs, id="b")]
    run.results.mkdir(parents=True, exist_ok=True)
    nbformat.write(nbformat.v4.new_notebook(cells=cells), run.executed)
    run.metrics.write_text("{}")


def test_data_sets_stand_side_by_side(folders):
    main = folders[0]
    one, two, three = (runs.Run("demo", main.notebook, name, {}) for name in ("one", "two", "three"))
    executed(one, score=0.125, first="a*b against c", other=3.0)
    executed(two, score=-2.0)
    planned = [main, one, two, three, runs.Run("demo", "epilepsy/11_attention", "main", {})]
    planned.append(runs.Run("demo", "epilepsy/11_attention", "two", {}))
    own = [{"name": name, "dataset": f"{name}.csv", "sizes": {"a": 9, "b": 9}} for name in ("one", "two", "three")]
    own[0]["sizes"] = {"a": 3, "b": 9}
    own.append({"name": "four", "dataset": "four.csv", "refused": "four.csv: no group column 'x'"})
    page = site.side_by_side(planned, own, pending={"epilepsy/11_attention--two"})
    first, second = page.split("\n\n## ")[1:]
    assert first.split("\n\n")[1].splitlines() == [
        "| data set | score | first |",
        "| --- | --- | --- |",
        "| {doc}`one </epilepsy/02_table_two--one>` | 0\\.12 | a\\*b against c |",
        "| {doc}`two </epilepsy/02_table_two--two>` | \\-2\\.00 |  |",
        "| {doc}`three </epilepsy/02_table_two--three>` (not finished) |  |  |",
    ]
    assert "| {doc}`two </epilepsy/11_attention--two>` (not finished) |" in second
    assert "Left out for *one*: it needs 4 samples or donors of each group, and 'a' has 3." in second
    assert "*four* is left out: four\\.csv\\: no group column 'x'" in page


def test_several_data_sets_have_a_part_each_and_a_page_of_all(own_file):
    own = [{"name": name, "dataset": own_file, "group": "x"} for name in ("one", "two")]
    planned = runs.plan_runs("demo", *own, {"name": "three", "dataset": "lost.csv", "refused": "no such file"})
    assert runs.user_run_names([*own, {"name": "three", "refused": "no such file"}]) == ["one", "two"]
    toc = yaml.safe_load(site.table_of_contents(planned, ["one", "two"], compared=True))
    captions = [part["caption"] for part in toc["parts"]]
    assert captions[:3] == ["Your data", "Your data: one", "Your data: two"]
    assert toc["parts"][0]["chapters"] == [{"file": site.SIDE_BY_SIDE}]
    assert toc["parts"][2]["chapters"][0]["file"] == "epilepsy/01_datasets--two"
    assert "02_table_two--one" not in str(toc["parts"][3:])


def test_a_link_to_a_chapter_that_is_not_in_the_build_is_its_title(folders):
    first = folders[0]
    linked = "# Table II\n\nNext: {doc}`/epilepsy/12_reads_to_counts`, {doc}`/epilepsy/01_datasets`, {doc}`/claims`."
    nbformat.write(nbformat.v4.new_notebook(cells=[nbformat.v4.new_markdown_cell(linked, id="a")]), first.executed)
    site.publish_pages(folders, {folders[1].key, folders[2].key})
    source = nbformat.read(first.page, 4).cells[0].source
    assert source == linked.replace("{doc}`/epilepsy/01_datasets`", "*The cohorts*")


class Sphinx:
    """Stands for jupyter-book; notes whether it finds what it left."""

    code, found = 0, []

    def __init__(self, command, **_):
        self.folder, self.stdout = command[4] / "_build", []
        self.found.append((self.folder / "left").exists())
        self.folder.mkdir(exist_ok=True)
        (self.folder / "left").touch()

    def wait(self):
        if self.code is None:
            raise KeyboardInterrupt
        return self.code


@pytest.fixture
def sphinx(tmp_path, monkeypatch):
    """Builds a site of one page by it; gives the folder."""
    for name in ("BOOK", "ROOT", "SPHINX"):
        monkeypatch.setattr(paths, name, tmp_path / name.lower())
    monkeypatch.setattr(paths, "SITE_LOG", tmp_path / "log")
    monkeypatch.setattr(site.subprocess, "Popen", Sphinx)
    monkeypatch.setattr(Sphinx, "found", [])
    for path in (paths.BOOK / "page.md", paths.ROOT / "CONTRIBUTING.md"):
        path.parent.mkdir()
        path.write_text("one")
    (paths.SPHINX / "whole").mkdir(parents=True)
    return lambda contents="toc": site._run_sphinx(contents, False)


def test_sphinx_goes_on_from_a_build_that_ended_well_and_from_no_other(sphinx, monkeypatch):
    sphinx()
    sphinx()
    assert Sphinx.found == [False, True]
    sphinx("another toc")
    monkeypatch.setattr(Sphinx, "code", None)  # killed
    with pytest.raises(KeyboardInterrupt):
        sphinx("another toc")
    monkeypatch.setattr(Sphinx, "code", 1)
    with pytest.raises(DataError, match="site: no output"):
        sphinx("another toc")
    monkeypatch.setattr(Sphinx, "code", 0)
    sphinx("another toc")
    assert Sphinx.found[2:] == [False, True, False, False]
    os.utime(paths.SPHINX / "whole" / "ended.json", (time.time() + 100,) * 2)
    sphinx("another toc")
    assert Sphinx.found[-1] is False, "its time stamps are of another clock"


def test_sphinx_sees_a_page_whose_place_an_older_one_takes(sphinx):
    page, beside = paths.BOOK / "page.md", paths.BOOK / "beside.md"
    beside.write_text("same")
    sphinx()
    page.write_text("two")
    for path in (page, beside):
        os.utime(path, (1e9, 1e9))
    sphinx()
    assert page.stat().st_mtime > 1e9
    assert beside.stat().st_mtime == 1e9, "its content is the same"


@pytest.mark.parametrize("text", ["{", "[]", "{}", '{"cells": [1]}', '{"cells": [{"cell_type": "code"}]}'])
def test_a_damaged_notebook_is_one_line(folders, text):
    folders[0].executed.write_text(text)
    with pytest.raises(DataError, match=r"main/notebook\.ipynb: .*; delete its folder, and build again"):
        site.publish_pages(folders[:1])
