import pytest
import yaml

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
