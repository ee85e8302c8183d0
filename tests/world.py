"""The servers of the world on this machine, while a command runs: a stranger's build, without a mirror.

``.venv/bin/python tests/world.py make book PROFILE=real`` serves the original bytes that stand in ../shared/data, at their
publishers' addresses (`downloads.SERVER`), and sends on to its publisher whoever asks for another file, such as a release
on the package index. The cache is a new one in ``_build/world``; ``--cache`` names another, which may have files.
"""

import argparse
import contextlib
import http.server
import os
import subprocess
import sys
import tempfile
import threading
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

from epigen_utils import paths
from epigen_utils.data import downloads, fetching, registry

ORIGINALS = paths.ROOT.parent / "shared" / "data"


def published_files() -> Iterator[registry.File]:
    """The files of the registry that have an address of their own, and the originals of those that are converted."""
    for entry in registry.entries().values():
        for spec in entry.files.values():
            yield from (original for original in (spec.originals or {"": spec}).values() if original.url)


def lay_out(originals: Path, folder: Path) -> None:
    """Link the published files that a folder holds, whatever their names there, as `downloads.SERVER` says."""
    held = fetching._mirror_hashes(str(originals))
    for spec in published_files():
        if spec.sha256 in held:
            link = folder / spec.url.partition("://")[2]
            link.parent.mkdir(parents=True, exist_ok=True)
            link.unlink(missing_ok=True)
            link.symlink_to(held[spec.sha256])


class Handler(http.server.SimpleHTTPRequestHandler):
    """Files of a folder; whoever asks for another is sent on to its publisher, or, ``alone``, told that there is none."""

    def __init__(self, *args, alone: bool = False, asked: list[str] | None = None, **options):
        self.alone, self.asked = alone, [] if asked is None else asked
        super().__init__(*args, **options)

    def translate_path(self, path):
        # A file that was asked for with a query is stored with it.
        query, plain = path.partition("?")[2], super().translate_path(path)
        return f"{plain}?{query}" if Path(f"{plain}?{query}").is_file() else plain

    def do_GET(self):
        self.asked.append(self.path)
        if self.alone or Path(self.translate_path(self.path)).is_file():
            super().do_GET()
            return
        self.send_response(http.HTTPStatus.FOUND)
        self.send_header("Location", f"https:/{self.path}")
        self.end_headers()

    def log_message(self, *_):
        pass


@contextlib.contextmanager
def serving(handler: Callable) -> Iterator[str]:
    """Serve on a free port of this machine; yields the address."""
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        try:
            yield f"http://127.0.0.1:{server.server_port}"
        finally:
            server.shutdown()


def main(command: list[str], cache: Path | None) -> int:
    """Run a command in that world; gives its exit status."""
    if not ORIGINALS.is_dir():
        sys.exit(f"{ORIGINALS}: no such folder of originals; put there what data/registry.yml gives addresses of")
    folder = paths.BUILD / "world"
    folder.mkdir(parents=True, exist_ok=True)
    environment = {key: value for key, value in os.environ.items() if key != "EPIGEN_DATA_MIRROR"}
    environment["EPIGEN_CACHE"] = str((cache or Path(tempfile.mkdtemp(prefix="cache-", dir=folder))).absolute())
    lay_out(ORIGINALS, folder / "files")
    with serving(partial(Handler, directory=str(folder / "files"))) as address:
        return subprocess.run(command, env=environment | {downloads.SERVER: address}, check=False).returncode


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--cache", type=Path)
    parser.add_argument("command", nargs=argparse.REMAINDER)
    given = parser.parse_args()
    sys.exit(main(given.command, given.cache))
