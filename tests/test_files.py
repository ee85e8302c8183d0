import errno
import gzip
import multiprocessing
import os
import shutil
import subprocess
import sys

import pytest
import yaml

from epigen_utils import files
from epigen_utils.errors import DataError


def test_the_hash_of_the_standard(tmp_path):
    """FIPS 180-4's example."""
    (tmp_path / "abc").write_text("abc")
    assert files.sha256(tmp_path / "abc") == "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"


def test_a_file_is_written_whole_or_not_at_all(tmp_path):
    path = tmp_path / "new" / "table.csv"
    files.write_atomically(path, "first")
    inode = path.stat().st_ino
    files.write_atomically(path, "second")
    assert path.read_text() == "second"
    assert path.stat().st_ino != inode, "a reader of the first keeps the first"
    with pytest.raises(UnicodeEncodeError):
        files.write_atomically(path, "\ud800")
    assert path.read_text() == "second"


def test_json_is_read_as_written_or_its_absence_explained(tmp_path):
    files.write_json(tmp_path / "facts.json", {"donors": ["a"]})
    assert files.read_json(tmp_path / "facts.json", "") == {"donors": ["a"]}
    with pytest.raises(DataError, match=r"none: no facts\.json; give another folder"):
        files.read_json(tmp_path / "none" / "facts.json", "give another folder")


def hold(folder, pipe):
    with files.folder_lock(folder):
        pipe.send("held")
        pipe.recv()


def test_a_folder_is_locked_for_other_processes_until_the_holder_ends(tmp_path):
    folder = tmp_path / "new"
    context = multiprocessing.get_context("spawn")
    ours, theirs = context.Pipe()
    holder = context.Process(target=hold, args=(folder, theirs))
    holder.start()
    assert ours.recv() == "held"
    descriptor = os.open(folder, os.O_RDONLY)
    with pytest.raises(BlockingIOError):
        files.fcntl.flock(descriptor, files.fcntl.LOCK_EX | files.fcntl.LOCK_NB)
    holder.kill()
    holder.join()
    with files.folder_lock(folder):
        pass
    os.close(descriptor)


def fail_halfway(folder):
    with files.whole_folder(folder) as part:
        (part / "b").write_text("2")
        raise KeyError


def test_a_folder_is_written_whole_or_not_at_all(tmp_path):
    folder = tmp_path / "deep" / "new"
    with files.whole_folder(folder) as part:
        (part / "a").write_text("1")
        assert not folder.exists()
    with pytest.raises(KeyError):
        fail_halfway(folder)
    assert [path.name for path in folder.iterdir()] == ["a"], "the older one stays"
    with files.whole_folder(folder) as part:
        (part / "c").write_text("3")
    assert [path.name for path in folder.iterdir()] == ["c"]
    assert list(folder.parent.iterdir()) == [folder]


def test_a_folder_left_by_a_killed_process_is_no_part_of_the_next(tmp_path):
    (tmp_path / ".new.part").mkdir()
    (tmp_path / ".new.part" / "torn").touch()
    with files.whole_folder(tmp_path / "new") as part:
        assert list(part.iterdir()) == []
    assert [path.name for path in tmp_path.iterdir()] == ["new"]


def test_text_is_read_packed_or_not(tmp_path):
    (tmp_path / "a.txt").write_text("one\n")
    (tmp_path / "a.txt.gz").write_bytes(gzip.compress(b"two\n"))
    for name, text in (("a.txt", "one\n"), ("a.txt.gz", "two\n")):
        with files.open_text(tmp_path / name, encoding="utf-8") as stream:
            assert stream.read() == text


def test_what_a_killed_process_left_of_a_file_is_removed(tmp_path):
    """Not what one that runs is writing, nor what lies beside."""
    gone = subprocess.Popen([sys.executable, "-c", ""])
    gone.wait()
    host = os.uname().nodename
    for name in (f".a.csv.{host}-{gone.pid}.part", f".a.csv.{host}-1.part", f".a.csv.elsewhere-{gone.pid}.part"):
        (tmp_path / name).touch()
    (tmp_path / f".ab.csv.{host}-{gone.pid}.part").touch()
    files.write_atomically(tmp_path / "a.csv", "whole")
    assert {path.name for path in tmp_path.iterdir()} == {
        "a.csv",
        f".a.csv.{host}-1.part",
        f".a.csv.elsewhere-{gone.pid}.part",
        f".ab.csv.{host}-{gone.pid}.part",
    }


def test_an_error_of_the_disk_names_the_file(tmp_path):
    with (
        pytest.raises(OSError, match="No space left on device: .*a\\.csv") as caught,
        files.whole_file(tmp_path / "a.csv"),
    ):
        raise OSError(errno.ENOSPC, "No space left on device")
    assert caught.value.filename == str(tmp_path / "a.csv")
    assert list(tmp_path.iterdir()) == []


def test_a_folder_is_never_half_deleted(tmp_path, monkeypatch):
    """Its former content is deleted under another name, when the new one is in place."""
    folder, seen, rmtree = tmp_path / "site", [], shutil.rmtree
    with files.whole_folder(folder) as part:
        (part / "a").touch()

    def watch(path, **options):
        if path.exists():
            seen.append((path.name, [file.name for file in folder.iterdir()]))
        rmtree(path, **options)

    monkeypatch.setattr(files.shutil, "rmtree", watch)
    with files.whole_folder(folder) as part:
        (part / "b").touch()
    assert seen == [(".site.former", ["b"])]
    assert list(tmp_path.iterdir()) == [folder]


def test_a_folder_put_aside_by_a_killed_process_is_put_back(tmp_path):
    folder, former = tmp_path / "model", tmp_path / ".model.former"
    former.mkdir()
    (former / "weights").write_text("before")
    with pytest.raises(KeyError), files.whole_folder(folder):
        raise KeyError
    assert (folder / "weights").read_text() == "before"
    assert [path.name for path in tmp_path.iterdir()] == ["model"]


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("[", r"cannot be read \(Expecting value"),
        ("[1]", "holds a list, not a dict"),
        ("[" * 100_000, r"cannot be read \(maximum recursion depth"),
    ],
)
def test_json_of_another_kind_is_one_line(tmp_path, text, said):
    (tmp_path / "facts.json").write_text(text)
    with pytest.raises(DataError, match=rf"facts\.json: {said}.*; mend it"):
        files.read_json(tmp_path / "facts.json", "mend it")


def test_json_with_a_byte_order_mark(tmp_path):
    (tmp_path / "facts.json").write_text("[1]", encoding="utf-8-sig")
    assert files.read_json(tmp_path / "facts.json", "", list) == [1]


#: Nine lists, each of which has the one before nine times.
ALIASES = "".join(f"- &{b} [{', '.join([f'*{a}'] * 9)}]\n" for a, b in zip("abcdefgh", "bcdefghi", strict=True))


@pytest.mark.parametrize("loader", [yaml.SafeLoader, yaml.BaseLoader])
@pytest.mark.parametrize(
    ("text", "said"),
    [
        (f"- &a x\n{ALIASES}", "aliases"),
        ("&a [*a]", "aliases"),
        ("a:\n\t- b", "not YAML, line 2"),
        ("[" * 5000, "recursion"),
        ("\udcff", "UTF-8"),
    ],
)
def test_yaml_that_is_none_or_too_much_is_one_line(tmp_path, text, said, loader):
    (tmp_path / "sets.yml").write_text(text, errors="surrogateescape")
    with pytest.raises(DataError, match=rf"sets\.yml: .*{said}"):
        files.read_yaml(tmp_path / "sets.yml", loader)


def test_aliases_are_read(tmp_path):
    (tmp_path / "sets.yml").write_text("a: &x [1, 2]\nb: *x\n")
    assert files.read_yaml(tmp_path / "sets.yml") == {"a": [1, 2], "b": [1, 2]}


def test_first_lines_have_an_end(tmp_path):
    (tmp_path / "a.txt").write_text("one\ntwo\nthree\n")
    assert files.first_lines(tmp_path / "a.txt", 2, 20) == ["one\n", "two\n"]
    (tmp_path / "b.txt").write_text("x" * 50)
    with pytest.raises(DataError, match=r"b\.txt: 20 characters in its first lines; end each row"):
        files.first_lines(tmp_path / "b.txt", 2, 20)


def test_what_has_no_end_is_not_read(tmp_path):
    os.mkfifo(tmp_path / "pipe.txt")
    (tmp_path / "zeros.txt").symlink_to("/dev/zero")
    for path in (tmp_path / "pipe.txt", tmp_path / "zeros.txt"):
        with pytest.raises(DataError, match="is no file, but a pipe or device; give a file"):
            files.open_text(path)
