import re

import pandas as pd
import pytest

from epigen_utils import paths
from epigen_utils.book import claims, coverage, notebooks, runs
from epigen_utils.errors import DataError


def test_every_item_of_both_papers_is_covered():
    assert coverage.uncovered_items(coverage.declared_covers()) == []


def test_a_planted_gap_is_found():
    covers = [cover for cover in coverage.declared_covers() if cover.item != "B-figure-3"]
    assert coverage.uncovered_items(covers) == ["B-figure-3"]


def test_covers_lead_to_figures_and_tables_that_their_notebook_makes():
    for cover in coverage.declared_covers():
        kind, _, name = cover.at.partition(":")
        if name:
            call = {"fig": "figure", "tab": "table"}[kind]
            code = notebooks.code(paths.NOTEBOOKS / f"{cover.page}.ipynb")
            assert re.search(rf'report\.{call}\(\s*"{name}"', code), cover


@pytest.fixture
def one_cover(monkeypatch):
    def declare(**changes):
        cover = coverage.Cover("A-table-2", "epilepsy/02_table_two", "fig:pca", "table-two")
        cover = coverage.Cover(**(cover.__dict__ | changes))
        monkeypatch.setattr(coverage, "declared_covers", lambda: [cover])

    return declare


def state(metrics, profile="demo"):
    return coverage.coverage_table(runs.plan_runs(profile), metrics).iloc[0][["link", "state"]].tolist()


def test_the_state_says_on_which_data(one_cover):
    one_cover()
    link = "epilepsy/02_table_two.html#epilepsy-02-table-two-fig-pca"
    assert state({}) == ["epilepsy/02_table_two.html", "still to come"]
    real = {"epilepsy/02_table_two": {"datasets": {"table-two": {"nature": "real"}}}}
    assert state(real) == [link, "on the paper's data"]
    other = {"epilepsy/02_table_two": {"datasets": {"airway-as-mouse": {"nature": "simulated"}}}}
    assert state(other) == [link, "same method, on airway-as-mouse (simulated)"]
    one_cover(own="")
    assert state(other) == [link, "covered"]
    one_cover(page="intro", at="", own="")
    assert state({}) == ["intro.html", "text"]


def test_a_page_of_another_profile_is_named_by_it(one_cover, monkeypatch):
    one_cover()
    planned = [run for run in runs.plan_runs("demo") if run.notebook != "epilepsy/02_table_two"]
    table = coverage.coverage_table(planned, {})
    assert table.iloc[0]["state"].startswith("profile demo, ")
    assert table.iloc[0]["link"] == ""


def test_unknown_items_and_data_are_refused(tmp_path, monkeypatch):
    monkeypatch.setattr(paths, "BOOK", tmp_path)
    page = "---\nepigen: {covers: {%s: {own: %s}}}\n---\n# Title\n"
    (tmp_path / "some.md").write_text(page % ("A-table-9", "''"))
    with pytest.raises(DataError, match="some: covers 'A-table-9', which is not in data/paper_items.csv"):
        coverage.declared_covers()
    (tmp_path / "some.md").write_text(page % ("A-table-2", "table-tow"))
    with pytest.raises(DataError, match="'table-tow', which is not in the registry"):
        coverage.declared_covers()


#: The data set of claims about counts or studies that its tokenised cells, which `paper` has, do not hold.
NOT_HAD = "genecorpus-30m"
#: What else is missing for a claim: gene names of the zebrafish series, an H100's aligner, an
#: A100 beside an H100, the paper's own samples on a GPU, and what the paper or the maker would have to name.
ELSE_MISSING = {
    "a run epilepsy/08_across_species on GSE275235",
    "a metric parabricks_times",
    "a metric times_a100",
    "a metric training_times_a100",
    "a metric inference_times_a100",
    "a metric fp8_times_a100",
    "a metric genomics_times",
    "a metric days_elsewhere",
    "a run epilepsy/13_hardware on GSE264537",
}


def test_each_claim_can_be_decided_by_a_profile_or_says_what_is_missing():
    ways = coverage.ways_to_decide(claims.read_claims())
    lacks = {re.fullmatch(r"no profile has (.*) yet", way)[1] for way in ways.values() if "make book" not in way}
    assert {lack for lack in lacks if not lack.endswith(NOT_HAD)} == ELSE_MISSING


def test_what_decides_a_claim_is_found_by_real_names():
    row = dict.fromkeys(claims.COLUMNS, "") | {"id": "X"}

    def way(needs, metric="epilepsy/07_classification:auc"):
        return coverage.ways_to_decide(pd.DataFrame([row | {"needs": needs, "metric": metric}]))["X"]

    assert way("GSE264537; gpt2-xl") == "make book PROFILE=paper"
    assert way("GSE264537; openai-community/gpt2-xl") == "make book PROFILE=paper"
    assert way("GSE264537; gpt2-medium") == "no profile has a run epilepsy/07_classification of gpt2-medium yet"
    assert way("pasilla; gpt2-xl") == "no profile has a run epilepsy/07_classification on pasilla yet"
    assert way("GSE264537; gpt2-xl", "epilepsy/07_classification:none") == "no profile has a metric none yet"
    assert way("pasilla", "epilepsy/99_none:auc") == "no profile has a run epilepsy/99_none on pasilla yet"


def test_a_published_teacher_is_its_preset_and_that_of_what_reads_its_students():
    planned = {run.key: run for run in runs.plan_runs("paper")}
    for key in ("geneformer/05_attention", "geneformer/09_downscaling", "geneformer/11_perturbation"):
        assert "geneformer-10m" in coverage.models_of_run(planned[key], planned), key


def test_models_are_those_of_the_folders_that_a_run_reads():
    planned = {run.key: run for run in runs.plan_runs("demo")}
    for key in ("geneformer/05_attention", "geneformer/09_downscaling", "geneformer/11_perturbation"):
        assert coverage.models_of_run(planned[key], planned) == {"bert-tiny"}, key


def test_the_map_has_a_row_for_each_chapter(one_cover):
    one_cover()
    planned = runs.plan_runs("demo")
    key = "epilepsy/02_table_two--airway"
    metrics = {key: {"datasets": {"airway": {"nature": "real"}}, "wall_seconds": 90.0}}
    judged = pd.DataFrame(
        {"metric": [f"{key}:a", "epilepsy/02_table_two:b"], "verdict": ["needs data: x", "needs data: y"]}
    )
    rows = coverage.book_map(planned, metrics, judged).split("<tr>")[2:]
    assert len(rows) == len({run.notebook for run in planned})
    row = next(row for row in rows if "epilepsy/02_table_two.html" in row)
    assert f'<a href="{key}.html">airway</a>' in row
    assert re.findall(r"<td>([^<]*)</td>", row) == ["Table II", "airway (real)", "2 needs data", "1.5"]
