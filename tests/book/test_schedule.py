from epigen_utils.book import runs, schedule


def test_the_first_chapters_come_first_with_those_on_ones_own_data(tmp_path):
    own_file = str(tmp_path / "My set.v2.h5ad")
    (tmp_path / "My set.v2.h5ad").touch()
    planned = runs.plan_runs("demo", {"dataset": own_file, "group": "condition"})
    first, second = schedule.early_stages(planned, "My-set")
    assert [run.key for run in first] == [
        "epilepsy/01_datasets",
        "epilepsy/02_table_two",
        "epilepsy/01_datasets--My-set",
        "epilepsy/02_table_two--My-set",
    ]
    assert {run.key.split("/")[0] for run in second} == {"epilepsy", "geneformer"}, "a chapter of each paper"
    assert schedule.early_stages([run for run in planned if run.notebook == "epilepsy/07_classification"]) == []
    assert not any(run.needs.after for run in first + second), "nothing that waits for another chapter"


def test_the_longest_chain_of_chapters_begins_first():
    planned = runs.plan_runs("demo")
    chains = schedule.chain_seconds(planned, {"geneformer/03_pretraining": 100.0, "geneformer/06_distillation": 200.0})
    assert chains["geneformer/03_pretraining"] == 100 + 200 + 30, "it, the distillation, and a chapter on students"
    assert chains["geneformer/09_downscaling"] == 30
    assert max(chains, key=chains.get) == "geneformer/03_pretraining"
