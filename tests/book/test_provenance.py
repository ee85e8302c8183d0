import json
import zipfile

import nbformat
import pandas as pd

from epigen_utils.book import provenance
from epigen_utils.data import datasets


def test_the_bundle_has_what_runs_the_page_and_equal_content_gives_equal_bytes(tmp_path):
    about = datasets.load("table-two").uns["epigen"]
    for name in ("a.zip", "b.zip"):
        provenance.write_bundle(
            tmp_path / name,
            notebook="epilepsy/02_table_two",
            parameters={"dataset": "table-two", "results_dir": "x"},
            datasets={"table-two": about},
        )
    assert (tmp_path / "a.zip").read_bytes() == (tmp_path / "b.zip").read_bytes()
    with zipfile.ZipFile(tmp_path / "a.zip") as archive:
        names = archive.namelist()
        assert json.loads(archive.read("inputs.json")) == {"table-two": about["sha256"]}
        assert archive.read("parameters.yml") == b"dataset: table-two\n"
    for wanted in (
        "notebooks/epilepsy/02_table_two.ipynb",
        "epigen_utils/book/report.py",
        "requirements.lock",
        "data/species.yml",
        "data/table_two.csv",
    ):
        assert wanted in names


def test_provenance():
    versions = provenance.package_versions("import json\nfrom nbformat import v4")
    assert versions["pandas"] == pd.__version__
    assert versions["nbformat"] == nbformat.__version__
    assert set(provenance.package_versions()) <= set(versions), "what a warm start imported is not the page's"
    assert "threads" in provenance.machine_description()
    assert provenance.current_commit()


def test_a_benchmark_is_kept_with_where_it_ran(tmp_path, capsys):
    provenance.write_benchmark(tmp_path / "b.json", {"what": "seconds"}, device="CPU, 1 threads")
    found = json.loads((tmp_path / "b.json").read_text())
    assert list(found) == ["what", "device", "machine", "date", "torch", "transformers", "python"]
    assert json.loads(capsys.readouterr().out) == found


def test_the_time_of_archives_is_one_that_a_zip_can_say(monkeypatch):
    assert provenance.archive_time() == (2000, 1, 1, 0, 0, 0)
    monkeypatch.setenv("SOURCE_DATE_EPOCH", "0")
    assert provenance.archive_time() == (1980, 1, 1, 0, 0, 0)


def test_measured_numbers_are_known_by_their_names():
    measured = ("seconds", "cpu_seconds", "tokens a second", "times_plain", "times", "times the teacher", "whole")
    assert all(provenance.MEASURED.search(name) for name in (*measured, "training_minutes", "wall time"))
    others = ("auc", "n_samples", "sometimes", "whole_genome", "minutes", "second")
    assert not any(provenance.MEASURED.search(name) for name in others)
