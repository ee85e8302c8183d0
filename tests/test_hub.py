import errno

import datasets
import pytest

from epigen_utils import hub as hubs
from epigen_utils.errors import DataError, UnreachableError

PLACE = "someone/Corpus:deep/cells.dataset"
COMMIT = "a" * 40


@pytest.fixture
def published(hub):
    """A hub's repository of a data set: a folder of 200 cells in two shards, another one, and a file beside them."""
    folder = hub.add("someone/Corpus")
    cells = datasets.Dataset.from_dict({"input_ids": [[2, 3, 4]] * 200, "length": [3] * 200})
    cells.save_to_disk(folder / "deep" / "cells.dataset", num_shards=2)
    cells.save_to_disk(folder / "others.dataset")
    (folder / "README.md").write_text("# A card")
    return hub, folder


def one_line(target, place=PLACE, kind=DataError, **options):
    with pytest.raises(kind) as raised:
        hubs.download_folder(place, target, **options)
    assert len(str(raised.value).splitlines()) == 1
    assert not target.exists()
    return str(raised.value)


def test_a_folder_of_a_data_set_is_downloaded_at_its_commit_and_nothing_else(published, tmp_path):
    _, folder = published
    target = tmp_path / "kept" / "cells.dataset"
    assert hubs.download_folder(PLACE, target) == COMMIT
    assert list(target.parent.iterdir()) == [target]
    assert {path.name for path in target.iterdir()} == {path.name for path in (folder / "deep/cells.dataset").iterdir()}
    assert len(datasets.load_from_disk(target)) == 200


def test_a_whole_repository_and_another_revision(published, tmp_path):
    hub, _ = published
    (hub.add("someone/Corpus", commit="b" * 40) / "other.txt").write_text("other")
    hubs.download_folder("someone/Corpus", tmp_path / "all")
    assert {path.name for path in (tmp_path / "all").iterdir()} == {"deep", "others.dataset", "README.md"}
    assert hubs.download_folder("someone/Corpus", tmp_path / "all", revision="b" * 40) == "b" * 40
    assert [path.name for path in (tmp_path / "all").iterdir()] == ["other.txt"]
    assert "no such revision" in one_line(tmp_path / "none", revision="v9")


def test_what_a_hub_lacks_is_one_line(published, tmp_path):
    hub, _ = published
    target = tmp_path / "cells"
    assert f"someone/Corpsu:x: no such data set on {hub.address}; check the" in one_line(target, "someone/Corpsu:x")
    said = one_line(target, "someone/Corpus:deep/cells.datset")
    assert "no folder deep/cells.datset there; did you mean 'deep/cells.dataset'?" in said
    assert "no hub id; give owner/name or owner/name:folder" in one_line(target, "corpus")


@pytest.mark.parametrize("fault", [503, "silent"])
def test_a_hub_that_does_not_answer_is_one_line(published, tmp_path, fault):
    hub, _ = published
    hub.fault = fault
    assert hub.address in one_line(tmp_path / "cells", kind=UnreachableError)


def test_an_interrupted_download_goes_on(published, tmp_path):
    hub, _ = published
    hub.fault = "cut"
    one_line(tmp_path / "cells")
    hub.fault = ""
    hub.asked.clear()
    hubs.download_folder(PLACE, tmp_path / "cells")
    assert len(datasets.load_from_disk(tmp_path / "cells")) == 200
    assert sum(asked.startswith("GET") and ".arrow" in asked for asked in hub.asked) == 2


def test_a_full_disk_is_left_to_the_caller(published, tmp_path, monkeypatch):
    def full(*_, **__):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(hubs, "hf_hub_download", full)
    with pytest.raises(OSError, match="No space left"):
        hubs.download_folder(PLACE, tmp_path / "cells")
