"""A publisher's list of checksums, and whether a file is what it lists: MD5 (GENCODE, UCSC), or what ``sum`` prints (Ensembl)."""

import hashlib
import re
import subprocess
from pathlib import Path

from epigen_utils.errors import DataError


def check(path: Path, name: str, listed: str, where: str) -> None:
    """Refuse a file that is not what the list says; it is removed, so that the next call fetches it again.

    Parameters
    ----------
    name
        Of the file in the list.
    listed
        Lines of a checksum and a name.
    where
        Address of the list, for errors.

    Raises
    ------
    DataError
        If the list does not name the file, or says another checksum.
    """
    lines = [line.split() for line in listed.splitlines()]
    found = next((words[:-1] for words in lines if words and words[-1].rpartition("/")[2] == name), None)
    if not found:
        raise DataError(f"{where}: does not list {name}; mend the registry")
    if re.fullmatch("[0-9a-f]{32}", found[0]):
        with open(path, "rb") as stream:
            actual = [hashlib.file_digest(stream, "md5").hexdigest()]
    else:
        # The rotating 16-bit sum of BSD and its blocks: every Unix has the program, and a loop over a genome's bytes would take minutes.
        actual = subprocess.run(["sum", str(path)], capture_output=True, text=True, check=True).stdout.split()[:2]
        found, actual = ([str(int(number)) for number in numbers] for numbers in (found, actual))
    if actual != found[: len(actual)]:
        path.unlink()
        raise DataError(f"{name}: checksum {' '.join(actual)}, and {where} says {' '.join(found)}; fetch it again")
