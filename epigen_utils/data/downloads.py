"""Downloads that are resumed, and publishers' checksums: MD5 (GENCODE, UCSC), or the output of ``sum`` (Ensembl)."""

import contextlib
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import requests
from tqdm import tqdm
from urllib3.util import Retry

import epigen_utils
from epigen_utils.errors import DataError
from epigen_utils.files import digest

#: Environment variable with the address of a server that stands for all others, laid out as ``wget --recursive`` stores
#: what it fetches: ``https://host/path`` is requested as ``<server>/host/path``.
SERVER = "EPIGEN_DATA_SERVER"
#: Seconds in which a server has to answer, and in which it may send nothing.
TIMEOUT = (10, 60)


def address(url: str) -> str:
    """The address that a file is requested from: its own, or the one on the server that stands for all (`SERVER`)."""
    server = os.environ.get(SERVER, "").rstrip("/")
    return f"{server}/{url.partition('://')[2]}" if server and not url.startswith(f"{server}/") else url


def session() -> requests.Session:
    """Session that says who asks, and waits longer before each of four repeats when a server is busy."""
    opened = requests.Session()
    busy = (429, 500, 502, 503, 504)
    retries = Retry(total=4, connect=1, read=0, other=0, backoff_factor=1, status_forcelist=busy)
    for scheme in ("http://", "https://"):
        opened.mount(scheme, requests.adapters.HTTPAdapter(max_retries=retries))
    opened.headers["User-Agent"] = f"epigen-utils/{epigen_utils.__version__}"
    return opened


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
        raise DataError(f"{list_url}: does not list {name}; correct the registry")
    if re.fullmatch("[0-9a-f]{32}", expected[0]):
        actual = [digest(path, "md5")]
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
BAR_STYLE = {"unit": "B", "unit_scale": True, "leave": False}


class SharedBar(tqdm):
    """Bar, in bytes, of the downloads of several threads; once it is stopped, their next bytes end them."""

    stopped = False

    def update(self, n: float = 1) -> bool | None:
        """Count bytes.

        Raises
        ------
        requests.ConnectionError
            If the bar was stopped, so that the download ends as one whose connection broke.
        """
        if self.stopped:
            raise requests.ConnectionError("stopped")
        with self.get_lock():
            return super().update(n)


_shared: SharedBar | None = None


class PartOfShared(tqdm):
    """Bar of a file that another library downloads: it shows nothing, and moves the shared bar."""

    def __init__(self, *_: object, total: float | None = None, initial: float = 0, **__: object):
        super().__init__(total=total, initial=initial, disable=True)
        self.shared = _shared
        with self.shared.get_lock():
            self.shared.total += (total or initial) - initial

    def update(self, n: float = 1) -> bool | None:
        """Count bytes in the shared bar, which ends the download once it is stopped (`SharedBar.update`)."""
        return self.shared.update(n)


def part_of_shared() -> type[tqdm] | None:
    """The class of bars that move the shared one; None where there is none."""
    return None if _shared is None else PartOfShared


@contextlib.contextmanager
def one_bar() -> Iterator[SharedBar]:
    """One bar, on a terminal, for all downloads until the block ends."""
    global _shared
    with SharedBar(total=0, disable=None, **BAR_STYLE) as _shared:
        try:
            yield _shared
        finally:
            _shared = None


@contextlib.contextmanager
def _progress(name: str, start: int, length: int) -> Iterator[tqdm]:
    """The shared bar, made longer by what is still to come, else a bar of this download; none in a notebook's page."""
    # A bar without a total yet is false.
    if (bar := _shared) is not None:
        with bar.get_lock():
            bar.total += length
        yield bar
        return
    total = start + length if length else None
    with tqdm(total=total, initial=start, desc=name, disable="ipykernel" in sys.modules, **BAR_STYLE) as bar:
        yield bar


def download_part(url: str, part: Path) -> None:
    """Download a file, or the rest of it.

    A range request (RFC 9110, section 14) is sent only if the server identified the version of the file (``ETag`` or
    ``Last-Modified``) the first time, so that two versions are never joined. A server without ranges sends the whole
    file again.

    Parameters
    ----------
    part
        The file; until it is complete, its version is stored beside it, with the suffix ``.version``.

    Raises
    ------
    requests.RequestException
        If the connection breaks; the bytes received so far remain in ``part``.
    """
    version = part.with_name(part.name + ".version")
    offset = part.stat().st_size if part.exists() and version.exists() else 0
    # Ranges count the bytes of the file itself, so the transfer must not be compressed.
    headers = {"Accept-Encoding": "identity"}
    if offset:
        headers |= {"Range": f"bytes={offset}-", "If-Range": version.read_text()}
    with session() as opened, opened.get(address(url), headers=headers, stream=True, timeout=TIMEOUT) as response:
        if response.status_code == requests.codes.requested_range_not_satisfiable:
            part.unlink()
            return download_part(url, part)
        response.raise_for_status()
        resumed = response.status_code == requests.codes.partial_content
        start = offset if resumed else 0
        _store_version(response, version)
        # Some servers call a file that is gzipped a coding of its content, which would be undone.
        if url.endswith(".gz"):
            response.raw.headers.pop("Content-Encoding", None)
        length = int(response.headers.get("Content-Length", 0))
        with open(part, "ab" if resumed else "wb") as stream, _progress(part.stem, start, length) as progress:
            for chunk in response.iter_content(CHUNK_BYTES):
                stream.write(chunk)
                progress.update(len(chunk))
    version.unlink(missing_ok=True)
    return None


def _store_version(response: requests.Response, target: Path) -> None:
    version = response.headers.get("ETag", "")
    # A weak tag does not guarantee identical bytes.
    version = response.headers.get("Last-Modified", "") if version.startswith("W/") or not version else version
    if version:
        target.write_text(version)
    else:
        target.unlink(missing_ok=True)
