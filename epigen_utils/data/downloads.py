"""Verification against a publisher's list of checksums: MD5 (GENCODE, UCSC), or the output of ``sum`` (Ensembl)."""

import hashlib
import re
import shutil
import subprocess
import sys
from pathlib import Path

import requests
from tqdm import tqdm

from epigen_utils.errors import DataError


def check_published_checksum(path: Path, name: str, checksum_list: str, list_url: str) -> None:
    """Compare a file with its published checksum; delete it if it differs, so that the next call fetches it again.

    Parameters
    ----------
    name
        Name of the file in the list.
    checksum_list
        Text of the list: lines of a checksum and a name.
    list_url
        Address of the list, for errors.

    Raises
    ------
    DataError
        If the list does not name the file, or gives another checksum.
    """
    lines = [line.split() for line in checksum_list.splitlines()]
    expected = next((fields[:-1] for fields in lines if fields and fields[-1].rpartition("/")[2] == name), None)
    if not expected:
        raise DataError(f"{list_url}: does not list {name}; mend the registry")
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
        raise DataError(
            f"{name}: checksum {' '.join(actual)}, and {list_url} says {' '.join(expected)}; fetch it again"
        )


CHUNK_BYTES = 1 << 16


class ResumableDownload:
    """A downloader for pooch that keeps partial downloads beside the target and resumes them.

    A range request (RFC 9110, section 14) is sent only if the server identified the version of the file (``ETag`` or
    ``Last-Modified``) the first time, so that two versions are never joined. A server without ranges sends the whole
    file again.

    Parameters
    ----------
    part
        File of the partial download; the version is stored beside it, with the suffix ``.version``.

    Raises
    ------
    requests.RequestException
        If the connection breaks; the bytes received so far remain in ``part``.
    """

    def __init__(self, part: Path):
        self.part = part
        self.version = part.with_name(part.name + ".version")

    def __call__(self, url: str, output_file: str, _pooch: object) -> None:
        offset = self.part.stat().st_size if self.part.exists() and self.version.exists() else 0
        # Ranges count the bytes of the file itself, so the transfer must not be compressed.
        headers = {"Accept-Encoding": "identity"}
        if offset:
            headers |= {"Range": f"bytes={offset}-", "If-Range": self.version.read_text()}
        with requests.get(url, headers=headers, stream=True, timeout=60) as response:
            if response.status_code == requests.codes.requested_range_not_satisfiable:
                self._discard()
                return self(url, output_file, _pooch)
            response.raise_for_status()
            resumed = response.status_code == requests.codes.partial_content
            start = offset if resumed else 0
            self._store_version(response)
            total = int(response.headers.get("Content-Length", 0)) + start
            bar = {"unit": "B", "unit_scale": True, "disable": "ipykernel" in sys.modules, "leave": False}
            with (
                open(self.part, "ab" if resumed else "wb") as stream,
                tqdm(total=total or None, initial=start, desc=self.part.stem, **bar) as progress,
            ):
                for chunk in response.iter_content(CHUNK_BYTES):
                    stream.write(chunk)
                    progress.update(len(chunk))
        shutil.move(self.part, output_file)
        self._discard()
        return None

    def _store_version(self, response: requests.Response) -> None:
        version = response.headers.get("ETag", "")
        # A weak tag does not guarantee identical bytes.
        version = response.headers.get("Last-Modified", "") if version.startswith("W/") or not version else version
        if version:
            self.version.write_text(version)
        else:
            self.version.unlink(missing_ok=True)

    def _discard(self) -> None:
        self.part.unlink(missing_ok=True)
        self.version.unlink(missing_ok=True)
