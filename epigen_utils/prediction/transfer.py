"""Verification against a publisher's list of checksums: MD5 (GENCODE, UCSC), or the output of ``sum`` (Ensembl)."""

import hashlib
import re
import subprocess
from pathlib import Path

from epigen_utils.errors import DataError


def check(path: Path, name: str, listed: str, where: str) -> None:
    """Compare a file with its published checksum; delete it if it differs, so that the next call fetches it again.

    Parameters
    ----------
    name
        Name of the file in the list.
    listed
        Text of the list: lines of a checksum and a name.
    where
        Address of the list, for errors.

    Raises
    ------
    DataError
        If the list does not name the file, or gives another checksum.
    """
    lines = [line.split() for line in listed.splitlines()]
    expected = next((fields[:-1] for fields in lines if fields and fields[-1].rpartition("/")[2] == name), None)
    if not expected:
        raise DataError(f"{where}: does not list {name}; mend the registry")
    if re.fullmatch("[0-9a-f]{32}", expected[0]):
        with open(path, "rb") as stream:
            actual = [hashlib.file_digest(stream, "md5").hexdigest()]
    else:
        # The rotating 16-bit BSD checksum and the number of blocks. Every Unix has the program; a Python loop over the
        # bytes of a genome would take minutes.
        printed = subprocess.run(["sum", str(path)], capture_output=True, text=True, check=True).stdout.split()[:2]
        expected, actual = ([str(int(number)) for number in numbers] for numbers in (expected, printed))
    if actual != expected[: len(actual)]:
        path.unlink()
        raise DataError(f"{name}: checksum {' '.join(actual)}, and {where} says {' '.join(expected)}; fetch it again")
