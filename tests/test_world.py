"""A page of profile `real` on a stranger's machine: with the world's servers, and without them."""

import dataclasses
import functools
import json

import pytest
from conftest import needs_mirror
from world import ORIGINALS, Handler, lay_out, serving

from epigen_utils import paths
from epigen_utils.book import runs
from epigen_utils.data import downloads
from epigen_utils.errors import DataError

KEY = "epilepsy/02_table_two--human-tle"


@pytest.fixture
def run(tmp_path, cache, monkeypatch):
    """A run of the profile, with an empty cache and results of its own."""
    planned = next(run for run in runs.plan_runs("real") if run.key == KEY)
    monkeypatch.setattr(paths, "RESULTS", tmp_path / "results")
    monkeypatch.setenv("EPIGEN_CACHE", str(cache))
    monkeypatch.delenv("EPIGEN_DATA_MIRROR", raising=False)
    return dataclasses.replace(planned, parameters=planned.parameters | {"results_dir": str(planned.results)})


@pytest.mark.slow("data/registry.yml", "notebooks/epilepsy/02_table_two.ipynb")
@needs_mirror
def test_a_page_is_made_from_one_server_that_stands_for_the_world(run, tmp_path, monkeypatch):
    asked = []
    lay_out(ORIGINALS, tmp_path / "world")
    with serving(functools.partial(Handler, alone=True, asked=asked, directory=str(tmp_path / "world"))) as address:
        monkeypatch.setenv(downloads.SERVER, address)
        runs.execute_run(run, 1)
    assert run.finished
    found = json.loads(run.metrics.read_text())
    assert (found["notebook"], found["datasets"]["human-tle"]["nature"]) == ("epilepsy/02_table_two", "real")
    assert sorted(path.rpartition("/")[2] for path in asked) == ["SraRunMetadata.csv", "merged.tsv"]


def test_without_a_server_the_page_says_in_one_line_what_is_missing(run, monkeypatch):
    monkeypatch.setenv(downloads.SERVER, "http://127.0.0.1:9")
    with pytest.raises(DataError, match=r"merged\.tsv: cannot be downloaded \(\w+\); retry") as caught:
        runs.execute_run(run, 1)
    assert "\n" not in str(caught.value)
    assert not run.results.exists()
