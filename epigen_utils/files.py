"""File hashes, files and folders written whole, text that may be compressed, and folder locks."""

import contextlib
import fcntl
import gzip
import hashlib
import json
import os
import re
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import TextIO

from epigen_utils.errors import DataError


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


def read_json(path: Path, remedy: str) -> object:
    """Read JSON.

    Raises
    ------
    DataError
        If the file cannot be read; ``remedy`` is what to do about it.
    """
    try:
        return json.loads(path.read_text())
    except FileNotFoundError:
        raise DataError(f"{path.parent}: no {path.name}; {remedy}") from None
    except (OSError, ValueError) as error:
        raise DataError(f"{path}: cannot be read ({error}); {remedy}") from None


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
            left.unlink(missing_ok=True)
    part = path.with_name(f"{before}{os.getpid()}.part")
    try:
        yield part
        part.replace(path)
    except OSError as error:
        error.filename = error.filename or str(path)  # a write that fails does not say where
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
        for left in (part, former):
            shutil.rmtree(left, ignore_errors=True)


def is_gzipped(path: str | Path) -> bool:
    """Whether a file is gzipped, by its first two bytes, whatever its name."""
    with open(path, "rb") as stream:
        return stream.read(2) == b"\x1f\x8b"


def open_text(path: str | Path, **options: str) -> TextIO:
    """Open a file of text for reading, gzipped if its name ends in ``.gz``; options as for `open`."""
    opener = gzip.open if str(path).lower().endswith(".gz") else open
    return opener(path, "rt", **options)


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
