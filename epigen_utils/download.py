"""A download that goes on where it broke off."""

import shutil
import sys
from pathlib import Path

import requests
from tqdm import tqdm

CHUNK = 1 << 16


class Resumed:
    """A downloader for pooch: what has come is kept in a file beside the target, and asked for no second time.

    A server is asked to go on (RFC 9110, section 14) only where it named the file's version (``ETag`` or ``Last-Modified``)
    the first time, so that two versions are never joined; one that cannot go on sends all of it again.

    Parameters
    ----------
    part
        Where the bytes are kept; its name with ``.version`` holds the version.

    Raises
    ------
    requests.RequestException
        If the connection breaks; the bytes that came are kept.
    """

    def __init__(self, part: Path):
        self.part = part
        self.version = part.with_name(part.name + ".version")

    def __call__(self, url: str, output_file: str, _pooch: object) -> None:
        have = self.part.stat().st_size if self.part.exists() and self.version.exists() else 0
        # Ranges count the bytes of the file, so nothing may be compressed on the way.
        headers = {"Accept-Encoding": "identity"}
        if have:
            headers |= {"Range": f"bytes={have}-", "If-Range": self.version.read_text()}
        with requests.get(url, headers=headers, stream=True, timeout=60) as answer:
            if answer.status_code == requests.codes.requested_range_not_satisfiable:
                self._forget()
                return self(url, output_file, _pooch)
            answer.raise_for_status()
            goes_on = answer.status_code == requests.codes.partial_content
            self._note(answer)
            total = int(answer.headers.get("Content-Length", 0)) + (have if goes_on else 0)
            bar = {"unit": "B", "unit_scale": True, "disable": "ipykernel" in sys.modules, "leave": False}
            with (
                open(self.part, "ab" if goes_on else "wb") as stream,
                tqdm(total=total or None, initial=have if goes_on else 0, desc=self.part.stem, **bar) as progress,
            ):
                for chunk in answer.iter_content(CHUNK):
                    stream.write(chunk)
                    progress.update(len(chunk))
        shutil.move(self.part, output_file)
        self._forget()
        return None

    def _note(self, answer: requests.Response) -> None:
        version = answer.headers.get("ETag", "")
        # A weak tag does not promise the same bytes.
        version = answer.headers.get("Last-Modified", "") if version.startswith("W/") or not version else version
        if version:
            self.version.write_text(version)
        else:
            self.version.unlink(missing_ok=True)

    def _forget(self) -> None:
        self.part.unlink(missing_ok=True)
        self.version.unlink(missing_ok=True)
