import os
import zipfile

import pytest

from epigen_utils import paths
from epigen_utils.commands import archives, own_data
from epigen_utils.errors import DataError
from epigen_utils.files import sha256


@pytest.fixture
def built(tmp_path, monkeypatch):
    """A site of two pages, and two data sets of one's own; another was refused, and another is the registry's."""
    monkeypatch.setattr(paths, "SITE", tmp_path / "html")
    for name in ("html/index.html", "html/epilepsy/a.html", "one/counts.csv", "one/samples.csv", "two/10x/genes.tsv"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(name)
    return [
        {"dataset": str(tmp_path / "one" / "counts.csv"), "metadata": str(tmp_path / "one" / "samples.csv")},
        {
            "name": "cells",
            "dataset": str(tmp_path / "two" / "10x"),
            "group": "state",
            "round_counts": True,
            "teacher": str(tmp_path / "model"),
            "sizes": {"a": 3},
        },
        {"name": "bad", "dataset": str(tmp_path / "bad.csv"), "refused": "bad.csv: no such file"},
        {"name": "known", "dataset": "airway"},
    ]


FILES = ["data/cells/dataset/10x/genes.tsv", "data/counts/dataset/counts.csv", "data/counts/metadata/samples.csv"]


@pytest.mark.parametrize("with_data", [False, True])
def test_a_zip_has_the_site_the_command_and_the_data_only_if_asked(built, tmp_path, with_data):
    command = ["epigen", "build", "--dataset", f"{tmp_path}/one/counts.csv", f"--metadata={tmp_path}/one/samples.csv"]
    archives.write_zip(tmp_path / "book.zip", built, command=[*command, "--keep", "a=b c"], with_data=with_data)
    with zipfile.ZipFile(tmp_path / "book.zip") as archive:
        names, readme = archive.namelist(), archive.read("README.txt").decode()
        assert archive.read("index.html") == b"html/index.html"
        listed = archive.read("sets.yml")
    assert sorted(names) == ["README.txt", *(FILES if with_data else []), "epilepsy/a.html", "index.html", "sets.yml"]
    assert "    epigen build --dataset counts.csv --metadata=samples.csv --keep 'a=b c'\n" in readme
    assert ("in this zip:" in readme, "not in this zip" in readme) == (with_data, not with_data)
    assert f"{sha256(tmp_path / 'one' / 'counts.csv')}  data/counts/dataset/counts.csv\n" in readme
    assert str(tmp_path) not in readme + listed.decode()
    (tmp_path / "sets.yml").write_bytes(listed)
    assert own_data.read_list(tmp_path / "sets.yml") == [
        {
            "name": "cells",
            "dataset": "data/cells/dataset/10x",
            "group": "state",
            "round_counts": True,
            "teacher": "model",
        },
        {"name": "bad", "dataset": "data/bad/dataset/bad.csv"},
        {"name": "known", "dataset": "airway"},
    ]


def test_a_book_without_own_data_speaks_of_none(built, tmp_path):
    archives.write_zip(tmp_path / "book.zip", [], command=["epigen", "build", "--zip", "book.zip"])
    with zipfile.ZipFile(tmp_path / "book.zip") as archive:
        assert "The data are" not in archive.read("README.txt").decode()
        assert "sets.yml" not in archive.namelist()


def test_without_a_site_or_a_folder_there_is_no_zip(built, tmp_path):
    with pytest.raises(DataError, match=r"lost/book\.zip: no such folder; make it first"):
        archives.write_zip(tmp_path / "lost" / "book.zip", built, command=["epigen"])
    (tmp_path / "html" / "index.html").unlink()
    with pytest.raises(DataError, match="html: no site; build one first"):
        archives.write_zip(tmp_path / "book.zip", built, command=["epigen"])
    assert not list(tmp_path.glob("*book.zip*"))


def test_equal_sites_are_equal_zips_whatever_the_clock(built, tmp_path, monkeypatch):
    """Also of files from before 1980, which no zip can say."""
    page, found = tmp_path / "html" / "index.html", []
    for when in (0, 1e9):
        os.utime(page, (when, when))
        archives.write_zip(tmp_path / "book.zip", [], command=["epigen"])
        found.append((tmp_path / "book.zip").read_bytes())
    assert found[0] == found[1]
    monkeypatch.setenv("SOURCE_DATE_EPOCH", "1600000000")
    archives.write_zip(tmp_path / "book.zip", [], command=["epigen"])
    with zipfile.ZipFile(tmp_path / "book.zip") as archive:
        assert {about.date_time for about in archive.infolist()} == {(2020, 9, 13, 12, 26, 40)}
