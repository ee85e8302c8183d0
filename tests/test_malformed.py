"""Malformed files through the doors that read them; `malformed` says how they are made and judged."""

import collections
import os
import pickle
import signal

import malformed
import pytest
from malformed import EITHER, REFUSED, SAME, Damage, Kind

from epigen_utils.errors import DataError

#: Kinds whose doors need no network and no model, and how many of their cases run each time.
CHEAP = {
    "counts .csv": 12,
    "sample table .csv": 8,
    "gene sets .gmt": 8,
    "list of data sets .yml": 6,
    "names on a page": 3,
}


def listed(outcomes):
    return "\n".join(f"{one.verdict}: {one.kind}, {one.damage}, {one.what}: {one.said}" for one in outcomes)


def not_right(outcomes):
    return listed(one for one in outcomes if one.verdict not in malformed.GOOD)


@pytest.fixture(scope="module")
def kinds():
    import malformed_kinds

    return {kind.name: kind for kind in malformed_kinds.kinds()}


@pytest.mark.parametrize("name", CHEAP)
def test_some_malformed_files_are_right_or_one_line(kinds, name, tmp_path):
    found = malformed.run_kind(kinds[name], 1, 0, tmp_path / "work", limit=CHEAP[name])
    assert len(found) >= CHEAP[name]
    assert not_right(found) == ""


def write_one(folder):
    (folder / "a.txt").write_text("one")
    return folder / "a.txt"


def judged(tmp_path, act, damage):
    """The outcome of a damage of a file, by a door that acts on the damaged file alone."""

    def door(path):
        return "one" if path.read_bytes() == b"one" else act(path)

    kind = Kind("made", write_one, door, lambda path, rng: [damage], is_special_alone=True)
    (found,) = malformed.run_kind(kind, 1, 0, tmp_path / "work")
    return found


def refuse(path):
    raise DataError(f"{path}: no good, in row 3")


def refuse_another(path):
    raise DataError("no good")


def warn_and_refuse(path):
    os.write(2, b"a warning\n")
    refuse(path)


def leave_half(path):
    path.with_name("half").touch()
    refuse(path)


def crash(path):
    raise KeyError(path)


def end(path):
    os.kill(os.getpid(), signal.SIGSEGV)


def take_memory(path):
    # A forked process begins without the libraries' pages that its parent has.
    return len(b"x" * (malformed.MEMORY + (768 << 20)))


def read(path):
    return path.read_text()


@pytest.mark.parametrize(
    ("act", "expected", "place", "verdict"),
    [
        (read, "two", "", "right"),
        (read, EITHER, "", "right"),
        (read, "three", "", "wrong"),
        (read, SAME, "", "wrong"),
        (read, REFUSED, "", "silent"),
        (refuse, REFUSED, "row 3", "one line"),
        (refuse, EITHER, "", "one line"),
        (refuse, REFUSED, "row 4", "unclear"),
        (refuse, SAME, "", "wrong"),
        (refuse, "two", "", "wrong"),
        (refuse_another, REFUSED, "", "unclear"),
        (warn_and_refuse, REFUSED, "", "unclear"),
        (crash, REFUSED, "", "traceback"),
        (leave_half, REFUSED, "", "harmful"),
        (take_memory, EITHER, "", "harmful"),
        (end, EITHER, "", "killed"),
    ],
)
def test_each_verdict_is_given(act, expected, place, verdict, tmp_path):
    """A judge that calls everything right would find nothing."""
    damage = Damage("made", "", lambda path: path.write_text("two"), expected, place)
    found = judged(tmp_path, act, damage)
    assert found.verdict == verdict, listed([found])


def test_code_of_a_pickle_that_is_run_is_seen(tmp_path):
    found = judged(
        tmp_path,
        lambda path: str(pickle.loads(path.read_bytes())),
        Damage("made", "", malformed.written(malformed.evil_pickle()), EITHER),
    )
    assert (found.verdict, found.said[:12]) == ("harmful", "code was run")


def test_a_case_without_end_is_ended(tmp_path, monkeypatch):
    monkeypatch.setattr(malformed, "SECONDS", 0.2)
    found = judged(tmp_path, lambda path: signal.pause(), Damage("made", "", malformed.written(b"two")))
    assert found.verdict == "killed"


def test_an_example_that_is_not_read_is_no_example(tmp_path):
    kind = Kind("made", write_one, refuse)
    with pytest.raises(RuntimeError, match="made: the example is not read: epigen: a.txt: no good"):
        malformed.run_kind(kind, 1, 0, tmp_path / "work")


@pytest.mark.slow("epigen_utils")
def test_200_malformed_files_of_each_kind_are_right_or_one_line(kinds, tmp_path):
    outcomes = [one for kind in kinds.values() for one in malformed.run_kind(kind, 1, 200, tmp_path / "work")]
    sizes = collections.Counter(one.kind for one in outcomes)
    assert {name for name, kind in kinds.items() if not kind.is_special_alone and sizes[name] < 200} == set()
    assert not_right(outcomes) == ""
