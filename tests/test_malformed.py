"""Malformed files through the doors that read them; `malformed` says how they are made and judged."""

import collections

import malformed
import pytest

from epigen_utils import containers, files  # noqa: F401 - what this covers, for .ci/touched.py

#: Kinds whose doors need no network and no model, and how many of their cases run each time.
CHEAP = {
    "counts .csv": 14,
    "sample table .csv": 10,
    "gene sets .gmt": 8,
    "list of data sets .yml": 8,
    "names on a page": 4,
}


def kind(name):
    import malformed_kinds

    return next(kind for kind in malformed_kinds.kinds() if kind.name == name)


def listed(outcomes):
    return "\n".join(f"{one.verdict}: {one.kind}, {one.damage}, {one.what}: {one.said}" for one in outcomes)


@pytest.mark.parametrize("name", CHEAP)
def test_some_malformed_files_are_right_or_one_line(name, tmp_path):
    found = malformed.run_kind(kind(name), 1, 0, tmp_path / "work", limit=CHEAP[name])
    assert len(found) >= CHEAP[name]
    assert listed(one for one in found if one.verdict not in malformed.GOOD) == ""


def outcome(door, damage=None, **more):
    """What is said of a file that a door of the test's own takes."""

    def write(folder):
        (folder / "a.txt").write_text("one")
        return folder / "a.txt"

    damage = damage or malformed.Damage("made", "", lambda path: path.write_text("two"), **more)
    return malformed.Kind("made", write, door, lambda path, rng: [damage])


def refuse(path):
    from epigen_utils.errors import DataError

    raise DataError(f"{path}: no good, in row 3")


def left_behind(path):
    path.with_name("half").touch()


def leave_and_refuse(path):
    if path.read_text() == "two":
        left_behind(path)
        refuse(path)


def on_damage(act):
    """A door that acts on a damaged file alone; the undamaged one is taken in this process."""
    return lambda path: act(path) if path.read_text() == "two" else path.read_text()


def raise_key_error(path):
    raise KeyError(path)


def take_memory(path):
    return len(b"x" * (malformed.MEMORY + (64 << 20)))


def end(path):
    import os
    import signal

    os.kill(os.getpid(), signal.SIGSEGV)


@pytest.mark.parametrize(
    ("act", "expected", "place", "verdict"),
    [
        (lambda path: path.read_text(), "two", "", "right"),
        (lambda path: path.read_text(), "three", "", "wrong"),
        (lambda path: path.read_text(), malformed.SAME, "", "wrong"),
        (lambda path: path.read_text(), malformed.REFUSED, "", "silent"),
        (refuse, malformed.REFUSED, "row 3", "one line"),
        (refuse, malformed.REFUSED, "row 4", "unclear"),
        (refuse, malformed.SAME, "", "wrong"),
        (lambda path: refuse("nothing"), malformed.REFUSED, "", "unclear"),
        (raise_key_error, malformed.REFUSED, "", "traceback"),
        (leave_and_refuse, malformed.REFUSED, "", "harmful"),
        (take_memory, malformed.EITHER, "", "harmful"),
        (end, malformed.EITHER, "", "killed"),
    ],
)
def test_each_verdict_is_given(act, expected, place, verdict, tmp_path):
    """A judge that calls everything right would find nothing."""
    made = outcome(on_damage(act), expected=expected, place=place)
    found = malformed.run_kind(made, 1, 0, tmp_path / "work", damage="made")
    assert [one.verdict for one in found] == [verdict], listed(found)


def test_code_of_a_pickle_that_is_run_is_seen(tmp_path):
    import pickle

    damage = malformed.Damage("made", "", lambda path: path.write_bytes(malformed.evil_pickle()))

    def unpickle(path):
        return str(pickle.loads(path.read_bytes())) if path.read_bytes() != b"one" else "one"

    (found,) = malformed.run_kind(outcome(unpickle, damage), 1, 0, tmp_path / "work", damage="made")
    assert (found.verdict, found.said[:12]) == ("harmful", "code was run")


@pytest.mark.slow("epigen_utils")
def test_200_malformed_files_of_each_kind_are_right_or_one_line(tmp_path):
    import malformed_kinds

    kinds = malformed_kinds.kinds()
    outcomes = [one for kind in kinds for one in malformed.run_kind(kind, 1, 200, tmp_path / "work")]
    sizes = collections.Counter(one.kind for one in outcomes)
    assert len(sizes) == len(kinds)
    assert listed(one for one in outcomes if one.verdict not in malformed.GOOD) == ""
