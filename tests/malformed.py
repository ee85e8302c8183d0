"""Malformed files through every door: a right answer, or one clear line.

    python tests/malformed.py --seed 1 --each 200 [--only KIND] [--damage WORD] [--record FILE.json] [--list]

`malformed_kinds` has the kinds of files, an example of each and the door that reads it; here they are damaged, each case
goes through its door in a process of its own with bounded memory and time, and is judged:

right      what was read is what the file says (`Damage.expected`)
one line   refused: exit code 1 and one line that names the file, and the place that the damage is at
wrong      read as something else, or refused although it is valid
silent     read although it is not valid
unclear    refused by several lines, or by one that does not name the file or the place
traceback  an error of the program
killed     ended by a signal, or by its limit of time or memory
harmful    a file was left or changed, code of the file was run, or memory grew beyond its bound

The exit code is 1 unless every case is right or one line.
"""

import argparse
import collections
import contextlib
import dataclasses
import importlib
import itertools
import json
import os
import random
import re
import resource
import shutil
import signal
import sys
import tempfile
import time
import traceback
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path

#: Address space that a case may take beyond what its process begins with, memory that it may use, and its seconds.
ADDRESS_SPACE, MEMORY, SECONDS = 4 << 30, 2 << 30, 60
GOOD = ("right", "one line")
VERDICTS = (*GOOD, "wrong", "silent", "unclear", "traceback", "killed", "harmful")


class Expected:
    """What is asked of a case beside one clear line or a value: refused, as the undamaged file, or either."""

    def __init__(self, name: str):
        self.name = name

    def __repr__(self) -> str:
        return self.name


#: Refused; the answer of the undamaged file; that, or refused; anything that is no fault, as bytes of a text may differ.
REFUSED, SAME, SAME_OR_REFUSED, EITHER = map(Expected, ("refused", "same", "same or refused", "either"))


@dataclasses.dataclass(frozen=True)
class Damage:
    """A change of a file: ``apply`` makes it, ``expected`` is a value or one of `Expected`, ``place`` what a line names."""

    kind: str
    what: str
    apply: Callable[[Path], object]
    expected: object = REFUSED
    place: str = ""


@dataclasses.dataclass(frozen=True)
class Kind:
    """A kind of file.

    Attributes
    ----------
    write
        Writes an undamaged example into an empty folder, and gives the file or folder that the door takes.
    door
        Puts it through; gives an answer that JSON can hold.
    special
        Damages of this kind alone.
    parts
        Of a folder, the files to be damaged; they take turns.
    is_text
        Whether encodings and ends of lines are changed.
    is_checked
        Whether the file has checksums of its content, so that whatever is read of it is as it was.
    is_of_programs
        Whether programs alone write it, so that what editors add may be refused.
    is_special_alone
        Whether it has those of its own alone.
    if_damaged
        What is expected of a file that is empty, another or not there.
    may_be_absent
        Whether a file that is not there is none that is damaged.
    oracle
        What is expected of changed bytes; by default either.
    most_lines
        Lines of a refusal.
    """

    name: str
    write: Callable[[Path], Path]
    door: Callable[[Path], object]
    special: Callable[[Path, random.Random], list[Damage]] = lambda path, rng: []
    parts: tuple[str, ...] = ()
    is_text: bool = False
    is_checked: bool = False
    is_of_programs: bool = False
    if_damaged: object = REFUSED
    may_be_absent: bool = False
    is_special_alone: bool = False
    oracle: Callable[[bytes], object] | None = None
    most_lines: int = 1


@dataclasses.dataclass
class Outcome:
    """What became of a case."""

    kind: str
    damage: str
    what: str
    verdict: str
    said: str
    seconds: float
    megabytes: float


def written(content: bytes) -> Callable[[Path], object]:
    """A change that gives a file other bytes."""
    return lambda path: path.write_bytes(content)


def _linked(target: str) -> Callable[[Path], None]:
    def apply(path: Path) -> None:
        path.unlink()
        path.symlink_to(target)

    return apply


def _linked_to_a_copy(path: Path) -> None:
    # Beside the case: a folder of files takes each that it has.
    copy = next(folder for folder in path.parents if folder.name == "case").with_name("copy")
    path.rename(copy)
    path.symlink_to(copy)


def _folder(path: Path) -> None:
    path.unlink()
    path.mkdir()


def _pipe(path: Path) -> None:
    path.unlink()
    os.mkfifo(path)


#: Touched by code that a file carries; `run_case` names it.
CANARY = "EPIGEN_CANARY"


class Evil:
    """Runs code when it is unpickled."""

    def __reduce__(self):
        return (exec, (f"import os; open(os.environ[{CANARY!r}], 'w').close()",))


def evil_pickle() -> bytes:
    import pickle

    return pickle.dumps({"ENSG1": Evil(), "<pad>": 0})


FOREIGN = {
    "a PNG": b"\x89PNG\r\n\x1a\n" + bytes(range(256)) * 4,
    "a page": b"<!DOCTYPE html>\n<html><head><title>404</title></head>\n<body>Not found</body></html>\n",
    "a PDF": b"%PDF-1.7\n%\xe2\xe3\xcf\xd3\n1 0 obj\n<< /Type /Catalog >>\nendobj\n",
    "a program": b"\x7fELF\x02\x01\x01" + bytes(200),
    "a gzip of noise": b"\x1f\x8b\x08\x00" + bytes(range(255, 0, -1)),
    "a zip's end": b"PK\x05\x06" + bytes(18),
    "HDF5's first bytes": b"\x89HDF\r\n\x1a\n" + bytes(300),
    "noise": random.Random(0).randbytes(2000),
    "zeros": bytes(2000),
}


def changer(kind: Kind, data: bytes) -> Callable[..., Damage]:
    """A function that makes a damage of other bytes, and knows what is expected of them."""

    def change(group: str, what: str, changed: bytes, expected: object = None) -> Damage:
        if changed == data:
            expected = SAME
        elif expected is None:
            expected = SAME_OR_REFUSED if kind.is_checked else kind.oracle(changed) if kind.oracle else EITHER
        return Damage(group, what, written(changed), expected)

    return change


def fixed_damages(kind: Kind, data: bytes) -> Iterator[Damage]:
    """Damages that any file can have."""
    change, bad = changer(kind, data), kind.if_damaged
    for tenth in range(1, 10):
        yield change("cut", f"after {tenth}0%", data[: len(data) * tenth // 10])
    yield change("cut", "the last byte", data[:-1])
    yield change("empty", "no byte", b"", bad)
    yield change("empty", "an end of line", b"\n", bad)
    yield change("empty", "zeros of its length", bytes(len(data)), bad)
    for name, content in FOREIGN.items():
        yield change("foreign", name, content, bad)
    yield change("pickle", "with code", evil_pickle(), bad)
    yield Damage("link", "to a copy", _linked_to_a_copy, SAME)
    absent = EITHER if kind.may_be_absent else bad
    yield Damage("link", "to nothing", _linked("nowhere"), absent)
    yield Damage("link", "to itself", lambda path: _linked(path.name)(path), absent)
    yield Damage("link", "to zeros without end", _linked("/dev/zero"), bad)
    yield Damage("link", "a folder in its place", _folder, bad)
    yield Damage("link", "a pipe in its place", _pipe, bad)
    if kind.is_text:
        yield from _encodings(kind, data, change)


def _encodings(kind: Kind, data: bytes, change: Callable[..., Damage]) -> Iterator[Damage]:
    text, same = data.decode(), SAME_OR_REFUSED if kind.is_of_programs else SAME
    yield change("encoding", "UTF-8 with a mark", b"\xef\xbb\xbf" + data, same)
    for name in ("utf-16", "utf-16-le", "utf-16-be", "utf-32", "utf-7"):
        yield change("encoding", name, text.encode(name), EITHER)
    yield change("encoding", "a letter of Latin-1", data.replace(b"1", b"\xe9", 1))
    yield change("encoding", "a byte that is none of UTF-8", data[: len(data) // 2] + b"\xff" + data[len(data) // 2 :])
    yield change("lines", "CRLF", data.replace(b"\n", b"\r\n"), same)
    yield change("lines", "CR", data.replace(b"\n", b"\r"), EITHER)
    yield change("lines", "CRLF in some", data.replace(b"\n", b"\r\n", 2), same)
    yield change("lines", "none at the end", data.rstrip(b"\n"), same)
    yield change("lines", "an empty one at the end", data + b"\n", same)
    yield change("lines", "zeros at the end", data + bytes(3), EITHER)
    yield change("lines", "Ctrl-Z at the end", data + b"\x1a", EITHER)
    yield change("shape", "a line of three million characters", data + b"A" * 3_000_000 + b"\n", EITHER)


def random_damage(kind: Kind, data: bytes, rng: random.Random) -> Damage:
    """A damage at random: bits, bytes, an end, or a block of bytes that is lost, zero or there twice."""
    change, changed, at = changer(kind, data), bytearray(data), rng.randrange(len(data))
    what = rng.choice(["bit", "bit", "bit", "bytes", "cut", "block"])
    if what == "bit":
        changed[at] ^= 1 << rng.randrange(8)
        return change("flip", f"a bit of byte {at}", bytes(changed))
    if what == "bytes":
        for _ in range(rng.randrange(2, 30)):
            changed[rng.randrange(len(data))] = rng.randrange(256)
        return change("flip", f"some bytes, {at}", bytes(changed))
    if what == "cut":
        return change("cut", f"after byte {at}", data[:at])
    end = min(at + rng.randrange(1, 200), len(data))
    block = rng.choice([b"", bytes(end - at), data[at:end] * 2])
    return change("block", f"bytes {at} to {end} for {len(block)}", data[:at] + block + data[end:])


def cases(kind: Kind, example: Path, door_file: str, rng: random.Random, each: int) -> list[tuple[str, Damage]]:
    """Damages of an example by the file of it that they are of, at least ``each``: special ones, fixed ones, random ones."""
    found = [("", damage) for damage in kind.special(example / door_file, rng)]
    if kind.is_special_alone:
        return found
    contents = {part: (example / part).read_bytes() for part in kind.parts or (door_file,)}
    for part, data in contents.items():
        found += [(part, damage) for damage in fixed_damages(kind, data)]
    for part in itertools.islice(itertools.cycle(contents), max(each - len(found), 0)):
        found.append((part, random_damage(kind, contents[part], rng)))
    return found


def _state(folder: Path) -> dict[str, tuple]:
    """What a folder holds, to see what is left or changed in it."""
    state = {}
    for path in folder.rglob("*"):
        about = path.lstat()
        state[str(path.relative_to(folder))] = (about.st_mode, about.st_size, about.st_mtime_ns)
    return state


def run_case(kind: Kind, example: Path, door_file: str, part: str, damage: Damage, base: object, work: Path) -> Outcome:
    """Put one damaged copy of an example through its door, in a process of its own, and judge it."""
    folder, beside = work / "case", work / "beside"
    for made in (folder, beside):
        shutil.rmtree(made, ignore_errors=True)
    shutil.copytree(example, folder, symlinks=True)
    beside.mkdir()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of libraries that write what is odd
        damage.apply(folder / (part or door_file))
    before, started = _state(folder), time.perf_counter()
    resident = _memory("VmRSS")
    child = _in_child(folder, beside, lambda: _through(kind, Path(door_file), beside / "answer.json"))
    status, usage = _wait(child)
    seconds = time.perf_counter() - started
    grown = usage.ru_maxrss * 1024 - resident
    said = (beside / "err").read_text(errors="replace")
    outcome = Outcome(kind.name, damage.kind, damage.what, "", said[-600:], round(seconds, 2), round(grown / 1e6))
    answer = beside / "answer.json"
    answered = json.loads(answer.read_text()) if answer.exists() else None
    if os.WIFSIGNALED(status):
        outcome.verdict, outcome.said = "killed", f"signal {os.WTERMSIG(status)} {said[-300:]}"
    elif (beside / "canary").exists() or (changes := _changes(before, _state(folder))) or grown > MEMORY:
        outcome.verdict = "harmful"
        outcome.said = f"{'code was run' if (beside / 'canary').exists() else changes or 'memory'}: {said[-300:]}"
    else:
        outcome.verdict, why = _verdict(kind, damage, folder, os.WEXITSTATUS(status), said, answered, base)
        outcome.said = f"{why}: {outcome.said}" if why else outcome.said
    return outcome


def _changes(before: dict, after: dict) -> list[str]:
    return sorted(name for name in before.keys() | after.keys() if before.get(name) != after.get(name))


def _memory(field: str) -> int:
    """Memory of this process by ``/proc``, in bytes."""
    return int(re.search(rf"{field}:\s+(\d+)", Path("/proc/self/status").read_text())[1]) * 1024


def _in_child(folder: Path, beside: Path, work: Callable[[], int]) -> int:
    """Start a process in a folder, with bounded memory, that does some work and says what it says beside; its id."""
    sys.stdout.flush()
    child = os.fork()
    if child:
        return child
    code = 1
    try:
        for number, name in ((1, "out"), (2, "err")):
            os.dup2(os.open(beside / name, os.O_WRONLY | os.O_CREAT), number)
        sys.stdout, sys.stderr = os.fdopen(1, "w"), os.fdopen(2, "w", errors="backslashreplace")
        limit = _memory("VmSize") + ADDRESS_SPACE
        resource.setrlimit(resource.RLIMIT_AS, (limit, limit))
        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
        os.environ[CANARY] = str(beside / "canary")
        os.chdir(folder)
        code = work()
    except BaseException:  # noqa: BLE001 - what the interpreter would do
        traceback.print_exc()
    finally:
        with contextlib.suppress(BaseException):
            sys.stdout.flush()
            sys.stderr.flush()
        os._exit(code)


def _through(kind: Kind, path: Path, answer: Path) -> int:
    from epigen_utils.errors import DataError

    try:
        found = kind.door(path)
    except SystemExit as left:
        return int(left.code or 0)
    except DataError as error:
        print(f"epigen: {error}", file=sys.stderr)
        return 1
    answer.write_text(json.dumps(found))
    return 0


def _write_example(kind: Kind, folder: Path, work: Path) -> tuple[str, object]:
    """Write an undamaged example, in a process of its own; gives what the door takes, and its answer.

    Its imports are made here, so that no case waits for them; threads that libraries start would be lost to the cases.
    """

    def write() -> int:
        known, path = set(sys.modules), kind.write(folder).relative_to(folder)
        code = _through(kind, path, work / "answer.json")
        (work / "about.json").write_text(json.dumps([str(path), sorted(set(sys.modules) - known)]))
        return code

    status, _ = _wait(_in_child(folder, work, write))
    if status:
        raise RuntimeError(f"{kind.name}: the example is not read: {(work / 'err').read_text()}")
    door_file, modules = json.loads((work / "about.json").read_text())
    for name in modules:
        with contextlib.suppress(ImportError, KeyError):
            importlib.import_module(name)
    return door_file, json.loads((work / "answer.json").read_text())


def _wait(child: int) -> tuple[int, resource.struct_rusage]:
    """Wait for a case, and kill it at its limit of time."""
    for _ in range(int(SECONDS * 200)):
        ended, status, usage = os.wait4(child, os.WNOHANG)
        if ended:
            return status, usage
        time.sleep(0.005)
    os.kill(child, signal.SIGKILL)
    return os.wait4(child, 0)[1:]


def _verdict(
    kind: Kind, damage: Damage, folder: Path, code: int, said: str, answer: object, base: object
) -> tuple[str, str]:
    """The verdict on a case that ended by itself, and why."""
    if "Traceback (most recent call last)" in said:
        return "traceback", ""
    expected = damage.expected
    if code == 0:
        if not all(line.startswith("epigen: ") for line in said.splitlines()):  # what is no note
            return "unclear", "said beside an answer"
        if expected is REFUSED:
            return "silent", ""
        if expected is EITHER:
            return "right", ""
        wanted = base if expected in (SAME, SAME_OR_REFUSED) else expected
        return ("right", "") if answer == wanted else ("wrong", f"read as {json.dumps(answer)[:300]}")
    if not isinstance(expected, Expected) or expected is SAME:
        return "wrong", "refused"
    lines = said.splitlines()
    if not 1 <= len(lines) <= kind.most_lines or not all(line.startswith("epigen: ") for line in lines):
        return "unclear", f"{len(lines)} lines"
    names = {path.name for path in folder.rglob("*")} | {folder.name}
    if damage.place and not re.search(damage.place, said):
        return "unclear", f"no {damage.place!r}"
    if not damage.place and not any(name in said for name in names - {""}):
        return "unclear", "no file is named"
    return "one line", ""


def run_kind(kind: Kind, seed: int, each: int, work: Path, *, damage: str = "", limit: int = 0) -> list[Outcome]:
    """All cases of a kind, after its undamaged example.

    Parameters
    ----------
    damage
        Only those whose kind has this word.
    limit
        Every n-th, such that there are about so many; 0 for all.
    """
    rng, example = random.Random(f"{seed} {kind.name}"), work / "example"
    shutil.rmtree(work, ignore_errors=True)
    example.mkdir(parents=True)
    door_file, base = _write_example(kind, example, work)
    chosen = [case for case in cases(kind, example, door_file, rng, each) if damage in case[1].kind]
    chosen = chosen[:: max(len(chosen) // limit, 1)] if limit else chosen
    return [run_case(kind, example, door_file, part, one, base, work) for part, one in chosen]


def table(outcomes: list[Outcome]) -> str:
    """Number of cases by kind of file, kind of damage and verdict, as text."""
    counts = collections.Counter((one.kind, one.damage, one.verdict) for one in outcomes)
    rows = list(dict.fromkeys((one.kind, one.damage) for one in outcomes))
    lines = [["file", "damage", *VERDICTS]]
    lines += [[*row, *(str(counts[(*row, verdict)] or "") for verdict in VERDICTS)] for row in rows]
    total = collections.Counter(one.verdict for one in outcomes)
    lines.append([f"all {len(outcomes)}", "", *(str(total[verdict]) for verdict in VERDICTS)])
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    return "\n".join(
        "  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip() for line in lines
    )


def main(arguments: list[str] | None = None) -> int:
    """Run the command line; gives its exit code."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--each", type=int, default=200, help="files of each kind, at least")
    parser.add_argument("--limit", type=int, default=0, help="about so many of them")
    parser.add_argument("--only", default="", help="kinds whose name has this word")
    parser.add_argument("--damage", default="", help="damages whose kind has this word")
    parser.add_argument("--record", type=Path, help="JSON file for the counts, and the cases that are not right")
    parser.add_argument("--list", action="store_true", help="print every case")
    options = parser.parse_args(arguments)
    outcomes = []
    with tempfile.TemporaryDirectory() as name:
        # Before the package is imported: nothing is fetched, and a process that is to be forked has no threads.
        os.environ |= {"EPIGEN_CACHE": f"{name}/cache", "EPIGEN_DATA_MIRROR": "", "HF_HUB_OFFLINE": "1"}
        os.environ["OMP_NUM_THREADS"] = "1"
        import malformed_kinds

        chosen = [kind for kind in malformed_kinds.kinds() if options.only in kind.name]
        for kind in chosen:
            started = time.perf_counter()
            found = run_kind(
                kind, options.seed, options.each, Path(name) / "work", damage=options.damage, limit=options.limit
            )
            outcomes += found
            n_bad = sum(one.verdict not in GOOD for one in found)
            print(
                f"{kind.name}: {len(found)} files, {n_bad} not right, {time.perf_counter() - started:.0f} s", flush=True
            )
            for one in found:
                if options.list or one.verdict not in GOOD:
                    print(f"  {one.verdict}: {one.damage}, {one.what}: {one.said.strip()[-500:]}")
    print(table(outcomes))
    if options.record:
        from epigen_utils.files import write_json

        bad = [dataclasses.asdict(one) for one in outcomes if one.verdict not in GOOD]
        counts = collections.Counter(f"{one.kind}: {one.damage}: {one.verdict}" for one in outcomes)
        most = {name: max(getattr(one, name) for one in outcomes) for name in ("seconds", "megabytes")}
        write_json(
            options.record,
            {"seed": options.seed, "files": len(outcomes), "counts": counts, "most": most, "not right": bad},
        )
    return int(any(one.verdict not in GOOD for one in outcomes))


if __name__ == "__main__":
    import malformed  # the module that `malformed_kinds` knows

    sys.exit(malformed.main())
