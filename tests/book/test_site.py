import json

import nbformat
import pytest
import yaml

from epigen_utils import paths
from epigen_utils.book import runs, site


@pytest.fixture
def own_file(tmp_path):
    path = tmp_path / "My set.v2.h5ad"
    path.touch()
    return str(path)


def test_contents_follow_from_the_plan(own_file):
    planned = runs.plan_runs("demo", {"dataset": own_file, "group": "condition"})
    toc = yaml.safe_load(site.table_of_contents(planned, "My-set"))
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
    toc = yaml.safe_load(site.table_of_contents(runs.plan_runs("demo", own), "My-set"))
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
    site.publish_pages(folders[:1], user_run="main")
    source = nbformat.read(finished.page, 4).cells[0].source
    assert source == f"# Table II\n\nSee {site.NOT_GIVEN}.", "own data need not give every figure"
    site.publish_pages(folders[:1])
    assert [run.page.exists() for run in folders] == [True, False, False]


def test_a_link_to_a_chapter_that_is_not_in_the_build_is_its_title(folders):
    first = folders[0]
    linked = "# Table II\n\nNext: {doc}`/epilepsy/12_reads_to_counts`, {doc}`/epilepsy/01_datasets`, {doc}`/claims`."
    nbformat.write(nbformat.v4.new_notebook(cells=[nbformat.v4.new_markdown_cell(linked, id="a")]), first.executed)
    site.publish_pages(folders, {folders[1].key, folders[2].key})
    source = nbformat.read(first.page, 4).cells[0].source
    assert source == linked.replace("{doc}`/epilepsy/01_datasets`", "*The cohorts*")
