"""File hashes, files and folders written whole, JSON and YAML, text that may be compressed, and folder locks."""

import contextlib
import fcntl
import gzip
import hashlib
import itertools
import json
import os
import re
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import TextIO

import yaml

from epigen_utils.errors import DataError, first_line


def sha256(path: Path) -> str:
    """SHA-256 of a file, in hexadecimal."""
    return digest(path, "sha256")


def digest(path: Path, kind: str) -> str:
    """Digest of a file by an algorithm of `hashlib`, in hexadecimal."""
    with open(path, "rb") as stream:
        return hashlib.file_digest(stream, kind).hexdigest()


def write_atomically(path: Path, text: str) -> None:
    """Write text by `whole_file`."""
    with whole_file(path) as part:
        part.write_text(text)


def write_json(path: Path, content: object) -> None:
    """Write content as JSON by `whole_file`."""
    write_atomically(path, json.dumps(content, indent=1))


def read_json(path: Path, remedy: str, kind: type = dict) -> object:
    """Read JSON whose content is of a kind.

    Raises
    ------
    DataError
        If the file cannot be read or holds another kind; ``remedy`` is what to do about it.
    """
    check_regular(path)
    try:
        content = json.loads(path.read_text(encoding="utf-8-sig"))
    except FileNotFoundError:
        raise DataError(f"{path.parent}: no {path.name}; {remedy}") from None
    except (OSError, ValueError, RecursionError) as error:
        raise DataError(f"{path}: cannot be read ({first_line(error)}); {remedy}") from None
    if not isinstance(content, kind):
        raise DataError(f"{path}: holds a {type(content).__name__}, not a {kind.__name__}; {remedy}")
    return content


#: Values of a YAML file with its aliases in full; those of aliases of aliases would fill any memory.
MOST_VALUES = 100_000


def read_yaml(path: Path, loader: type = yaml.SafeLoader) -> dict | list:
    """Content of a YAML file, empty if it is.

    Raises
    ------
    DataError
        Naming the line that is not YAML; or if the file cannot be read, or its aliases stand for too much.
    """
    check_regular(path)
    try:
        parser = loader(path.read_text(encoding="utf-8-sig"))
        node = parser.get_single_node()
        n_values = _count_values(node, {})
        content = parser.construct_document(node) if node and n_values <= MOST_VALUES else None
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        raise DataError(f"{path}: not YAML{f', line {mark.line + 1}' if mark else ''}; correct it") from None
    except (OSError, ValueError, RecursionError) as error:
        raise DataError(f"{path}: cannot be read as YAML ({first_line(error)}); write it as UTF-8 text") from None
    if n_values > MOST_VALUES:
        raise DataError(
            f"{path}: its aliases (*name) stand for more than {MOST_VALUES:,} values; write out what is meant"
        )
    return content or {}


def _count_values(node: yaml.Node | None, known: dict[int, int]) -> int:
    """Number of values of a part of a YAML file with its aliases in full; ``known`` are those that were counted."""
    if not isinstance(node, yaml.CollectionNode):
        return 1
    if id(node) not in known:
        known[id(node)] = MOST_VALUES + 1  # of a part that has itself as a part
        parts = itertools.chain(*node.value) if isinstance(node, yaml.MappingNode) else node.value
        known[id(node)] = 1 + sum(_count_values(part, known) for part in parts)
    return known[id(node)]


@contextlib.contextmanager
def whole_file(path: Path) -> Iterator[Path]:
    """Yield a path beside a file, to be written; it is renamed at the end, so that readers never see a partial file.

    What a killed process of this machine left there is removed. An error of the disk names the file.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    before = f".{path.name}.{os.uname().nodename}-"
    for left in path.parent.iterdir():
        found = re.fullmatch(rf"{re.escape(before)}(\d+)\.part", left.name)
        if found and not _is_running(int(found[1])):
            with contextlib.suppress(OSError):
                left.unlink()
    part = path.with_name(f"{before}{os.getpid()}.part")
    try:
        yield part
        part.replace(path)
    except OSError as error:
        if error.errno and not error.filename:  # a write that fails does not say where
            error.filename = str(path)
        raise
    finally:
        part.unlink(missing_ok=True)


def _is_running(pid: int) -> bool:
    """Whether there is such a process on this machine."""
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:  # another user's
        return True
    return True


@contextlib.contextmanager
def whole_folder(folder: Path) -> Iterator[Path]:
    """Yield an empty folder beside a folder; it replaces the folder at the end, unless the block raises.

    The folder is whole at every moment, or, between two renamings, not there: what a process that was killed then had
    put aside is put back.
    """
    part, former = (folder.with_name(f".{folder.name}.{kind}") for kind in ("part", "former"))
    if former.exists() and not folder.exists():
        former.rename(folder)
    for left in (part, former):
        shutil.rmtree(left, ignore_errors=True)
    part.mkdir(parents=True)
    try:
        yield part
        if folder.exists():
            folder.rename(former)
        part.rename(folder)
    finally:
        if former.exists() and not folder.exists():
            former.rename(folder)
        for left in (part, former):
            shutil.rmtree(left, ignore_errors=True)


def is_gzipped(path: str | Path) -> bool:
    """Whether a file is gzipped, by its first two bytes, whatever its name."""
    with open(path, "rb") as stream:
        return stream.read(2) == b"\x1f\x8b"


def check_regular(path: str | Path) -> None:
    """Refuse a folder, and a pipe or device, which may have no end; what is not there is neither.

    Raises
    ------
    DataError
        If it is one.
    """
    if os.path.exists(path) and not os.path.isfile(path):
        raise DataError(
            f"{path}: is no file, but a {'folder' if os.path.isdir(path) else 'pipe or device'}; give a file"
        )


def open_text(path: str | Path, **options: str) -> TextIO:
    """Open a file of text for reading, gzipped if its name ends in ``.gz``; options as for `open`."""
    check_regular(path)
    opener = gzip.open if str(path).lower().endswith(".gz") else open
    return opener(path, "rt", **options)


def first_lines(path: Path, n: int, most: int, **options: str) -> list[str]:
    """The first lines of a file of text, as `open_text` opens it.

    Raises
    ------
    DataError
        If they have more characters than ``most``.
    """
    lines, left = [], most
    with open_text(path, **options) as stream:
        while len(lines) < n and (line := stream.readline(left)):
            lines.append(line)
            left -= len(line)
            if left <= 0:
                raise DataError(f"{path}: {most:,} characters in its first lines; end each row by a new line")
    return lines


@contextlib.contextmanager
def folder_lock(folder: Path) -> Iterator[None]:
    """Hold an exclusive lock on a folder, so that only one process at a time creates a file in it."""
    folder.mkdir(parents=True, exist_ok=True)
    lock = os.open(folder, os.O_RDONLY)
    try:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield
    finally:
        os.close(lock)
