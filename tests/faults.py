"""Faults of a machine while a small book is built: ``faults.py [--kills 20] [--seed 1] [--only kills network ...]``.

A copy of the checkout has a book of two runs. Each fault is followed by a build that goes on to its end. Of each fault:
what was said is in lines of the project's, never a traceback; no result under its final name differs from that of a build
that nothing disturbed, and no page ends early; the book at the end is the same bytes as that one, measured times apart
(`same_bytes`), and nothing unfinished lies beside it. Prints a row a fault; exit code 1 if one failed.

kills      SIGKILL of the process group, at random moments of a first build and of one that does a run again
disk       a disk that is full, at some shares of what a build writes (a tmpfs, by mount)
read-only  results or _build on a read-only disk (by mount)
network    a server that closes in the middle of a file
two        a second build beside the first
clock      outputs of tomorrow, and changed sources of tomorrow or of long ago
"""

import argparse
import http.server
import json
import os
import random
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple

import same_bytes
import world
import yaml
from test_book import copy_of_checkout, environment

from epigen_utils import paths
from epigen_utils.data import downloads
from epigen_utils.files import sha256

PROFILE = {"epilepsy/02_table_two": {"main": {"dataset": "table-two"}, "far": {"dataset": "far"}}}
#: A data set of the registry, one file of which is on a server.
ENTRY = """
far:
  title: Table II, from a server
  species: danio_rerio
  kind: bulk
  real: true
  licence: facts of a publication
  citation: none
  card: The values of table-two.
  group: condition
  reference: WT
  read: table
  files:
    counts: {{url: "http://far.invalid/far.csv", sha256: {counts}}}
    samples: {{bundled: table_two_samples.csv, sha256: {samples}}}
"""
DERIVED = ("_build", "results", ".snakemake", "book/_generated", "book/epilepsy", "book/geneformer")
DAY = 86_400


class Row(NamedTuple):
    """A fault, the first line that was said, and what is wrong, if anything."""

    fault: str
    said: str
    wrong: str


class Server(http.server.BaseHTTPRequestHandler):
    """Has one file, of which it sends half while it is ``cut``."""

    content, cut = (paths.DATA / "table_two.csv").read_bytes(), False

    def do_GET(self):
        self.send_response(200)
        self.send_header("Content-Length", str(len(self.content)))
        self.send_header("ETag", '"one"')
        self.end_headers()
        self.wfile.write(self.content[: len(self.content) // 2] if Server.cut else self.content)

    def log_message(self, *_):
        pass


class Book:
    """A copy of the checkout, the cache that it fills, and what an undisturbed build of it gave."""

    def __init__(self, folder: Path, address: str):
        self.checkout, self.kept, self.cache = folder / "checkout", folder / "kept", folder / "cache"
        self.variables = {"EPIGEN_CACHE": str(self.cache), "EPIGEN_DATA_MIRROR": "", downloads.SERVER: address}
        copy_of_checkout(self.checkout)
        (self.checkout / "notebooks" / "profiles" / "small.yml").write_text(yaml.safe_dump(PROFILE))
        files = {name: sha256(paths.DATA / f"table_two{name}.csv") for name in ("", "_samples")}
        with open(self.checkout / "data" / "registry.yml", "a") as registry:
            registry.write(ENTRY.format(counts=files[""], samples=files["_samples"]))

    def start(self) -> subprocess.Popen:
        """A build, in a process group of its own."""
        command = [sys.executable, "-m", "epigen_utils.cli", "build", "--profile", "small", "--cores", "2"]
        options = {"stderr": subprocess.PIPE, "stdout": subprocess.DEVNULL, "text": True, "start_new_session": True}
        return subprocess.Popen(command, cwd=self.checkout, env=environment(self.checkout) | self.variables, **options)

    def build(self) -> tuple[int, str]:
        """Exit code and what was said."""
        process = self.start()
        said = process.communicate(timeout=900)[1]
        return process.returncode, said

    def clear(self) -> None:
        """Leave what is committed, and an empty cache."""
        for name in DERIVED:
            shutil.rmtree(self.checkout / name, ignore_errors=True)
        shutil.rmtree(self.cache, ignore_errors=True)

    def keep(self) -> float:
        """Build undisturbed from nothing, and keep what that gives; returns the seconds."""
        self.clear()
        start = time.monotonic()
        code, said = self.build()
        assert code == 0, said
        seconds = time.monotonic() - start
        shutil.rmtree(self.kept, ignore_errors=True)
        for name in DERIVED:
            if (self.checkout / name).exists():
                shutil.copytree(self.checkout / name, self.kept / name)
        return seconds

    def restore(self) -> None:
        """The finished book that was kept."""
        for name in DERIVED:
            shutil.rmtree(self.checkout / name, ignore_errors=True)
            if (self.kept / name).exists():
                shutil.copytree(self.kept / name, self.checkout / name)

    def torn(self) -> list[str]:
        """Results under their final names that are not those of the undisturbed build, and pages that end early."""
        found = same_bytes.differences(self.kept, self.checkout, "small")
        found = [line for line in found if line.startswith("results/") and f"only in {self.kept}" not in line]
        found = [line for line in found if not re.match(r"results/\w+/claims|\S+\.part: ", line)]
        site = self.checkout / "_build" / "html"
        pages = [page for page in site.rglob("*.html") if "_static" not in page.parts]
        found += [str(page) for page in pages if not page.read_text().rstrip().endswith("</html>")]
        for notebook in self.checkout.glob("results/small/*/*/*/notebook.ipynb"):
            json.loads(notebook.read_text())
        return found + ([str(site)] if pages and not (site / "index.html").exists() else [])

    def after(self, fault: str, said: str = "", *, refused: bool = True, of_these: bool = True) -> Row:
        """Look at what a fault left, build to the end, and compare.

        ``refused``: something has to be said; ``of_these``: what is there is of the present sources.
        """
        lines = said.splitlines()
        first = next((line for line in lines if line.startswith("epigen: ")), "")
        wrong = [line for line in lines if not re.match(r"epigen: |site: |[\w/-]+: [\d.]+ s", line)]
        wrong += [] if first or not refused else ["nothing was said"]
        wrong += self.torn() if of_these else []
        code, said = self.build()
        wrong += [] if code == 0 else [f"the next build: {said}"]
        wrong += same_bytes.differences(self.kept, self.checkout, "small")
        left = [path for path in self.checkout.rglob(".*") if path.suffix in (".part", ".former")]
        left += self.cache.rglob("*.part")
        return Row(fault, first, "; ".join([*wrong, *map(str, left)]))


def kills(book: Book, given: argparse.Namespace) -> Iterator[Row]:
    """Half of them in a build that does one run again, and its site, so that there is something to spoil."""
    drawn = random.Random(given.seed)
    seconds = {"first": given.seconds, "again": 0.6 * given.seconds}
    for number in range(given.kills):
        kind = "again" if number % 2 else "first"
        if kind == "first":
            book.clear()
        else:
            book.restore()
            shutil.rmtree(book.checkout / "results/small/epilepsy/02_table_two" / drawn.choice(["main", "far"]))
        moment = drawn.uniform(0, seconds[kind])
        process = book.start()
        try:
            process.communicate(timeout=moment)
            ended = ", after its end"
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)
            process.communicate()
            ended = ""
        yield book.after(f"SIGKILL of a {kind} build at {moment:.1f} s{ended}", refused=False)


def mounted() -> str:
    """Why nothing can be mounted here; empty where it can."""
    with tempfile.TemporaryDirectory() as folder:
        done = subprocess.run(["mount", "-t", "tmpfs", "none", folder], capture_output=True, text=True, check=False)
        if done.returncode == 0:
            subprocess.run(["umount", folder], check=True)
        return done.stderr.strip()


def mount(*arguments: object) -> None:
    subprocess.run(["mount", *map(str, arguments)], check=True)


def used(folder: Path) -> int:
    """Bytes of a folder as a tmpfs counts them, in whole pages."""
    return sum(-(-path.lstat().st_size // 4096) * 4096 for path in folder.rglob("*"))


def disk(book: Book, given: argparse.Namespace) -> Iterator[Row]:
    """The checkout on a disk that has room for a share of what a build writes."""
    written, plain = sum(used(book.kept / name) for name in DERIVED), book.checkout
    for share in given.shares:
        book.clear()
        folder = plain.with_name("small-disk")
        folder.mkdir(exist_ok=True)
        size = used(plain) + int(share * written)
        mount("-t", "tmpfs", "-o", f"size={size}", "none", folder)
        try:
            book.checkout = Path(shutil.copytree(plain, folder / "checkout"))
            code, said = book.build()
            mount("-o", f"remount,size={size + 3 * written}", folder)
            row = book.after(f"a disk with room for {share:.0%} of a build", said)
            yield row if code == 1 else row._replace(wrong=f"exit code {code}; {row.wrong}")
        finally:
            book.checkout = plain
            subprocess.run(["umount", "--lazy", folder], check=True)


def read_only(book: Book, given: argparse.Namespace) -> Iterator[Row]:
    for name in ("results", "_build"):
        book.clear()
        folder = book.checkout / name
        folder.mkdir()
        mount("--bind", folder, folder)
        mount("-o", "remount,bind,ro", folder)
        try:
            code, said = book.build()
        finally:
            subprocess.run(["umount", folder], check=True)
        row, right = book.after(f"{name} on a read-only disk", said), code == 1 and said.count("\n") == 1
        yield row if right else row._replace(wrong=f"exit code {code}: {said}; {row.wrong}")


def network(book: Book, given: argparse.Namespace) -> Iterator[Row]:
    book.clear()
    Server.cut = True
    code, said = book.build()
    Server.cut = False
    kept = [str(path) for path in book.cache.rglob("far.csv")]
    row = book.after("a connection that breaks in the middle of a file", said)
    yield row if code == 1 and not kept else row._replace(wrong=f"exit code {code}; {kept}; {row.wrong}")


def two(book: Book, given: argparse.Namespace) -> Iterator[Row]:
    book.clear()
    first, lock = book.start(), book.checkout / "_build" / "build.lock"
    while not (lock.exists() and lock.read_text()):
        time.sleep(0.05)
    code, said = book.build()
    first.communicate()
    row = book.after("a second build beside the first", said)
    right = code == 1 and first.returncode == 0 and said.count("\n") == 1
    yield row if right else row._replace(wrong=f"exit codes {first.returncode}, {code}: {said}; {row.wrong}")


def clock(book: Book, given: argparse.Namespace) -> Iterator[Row]:
    """Sources change after a build; at the end all is as in a build of the changed ones from nothing."""
    page, notebook = book.checkout / "book/style.md", book.checkout / "notebooks/epilepsy/02_table_two.ipynb"
    before, finished = {path: path.read_text() for path in (page, notebook)}, book.kept
    after = {page: f"{before[page]}\nA further sentence.\n", notebook: before[notebook].replace("# ", "# On ", 1)}

    def write(texts: dict[Path, str], when: float) -> None:
        for path, text in texts.items():
            path.write_text(text)
            os.utime(path, (when, when))

    changed = finished.with_name("changed")
    write(after, time.time())
    book.kept = changed
    book.keep()
    for fault, of_outputs, of_sources in (
        ("outputs of tomorrow", DAY, 0),
        ("changed sources of tomorrow", 0, DAY),
        ("changed sources of long ago", 0, -9_000 * DAY),
    ):
        book.kept = finished
        write(before, time.time())
        book.restore()
        now = time.time()
        for path in (path for name in DERIVED for path in (book.checkout / name).rglob("*") if of_outputs):
            os.utime(path, (now + of_outputs,) * 2)
        write(after, now + of_sources)
        book.kept = changed
        yield book.after(f"a clock that jumped: {fault}", refused=False, of_these=False)
    write(before, time.time())
    book.kept = finished


FAULTS: dict[str, Callable[[Book, argparse.Namespace], Iterator[Row]]] = {
    "two": two,
    "network": network,
    "read-only": read_only,
    "disk": disk,
    "kills": kills,
    "clock": clock,
}


def main() -> int:
    """Do the faults, and print a row of each."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kills", type=int, default=20)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--shares", type=float, nargs="+", default=[0.0, 0.2, 0.4, 0.6, 0.8])
    parser.add_argument("--only", nargs="+", choices=FAULTS, default=list(FAULTS))
    given = parser.parse_args()
    failed = 0
    with tempfile.TemporaryDirectory(prefix="faults-") as folder, world.serving(Server) as address:
        book = Book(Path(folder), address)
        given.seconds = book.keep()
        print(f"an undisturbed build takes {given.seconds:.0f} s", flush=True)
        for name in given.only:
            if name in ("disk", "read-only") and (why := mounted()):
                print(f"SKIPPED  {name}: {why}", flush=True)
                continue
            for row in FAULTS[name](book, given):
                failed += bool(row.wrong)
                parts = [row.fault, *([row.said] if row.said else []), *([row.wrong] if row.wrong else [])]
                print(f"{'WRONG' if row.wrong else 'ok':7}  {' | '.join(parts)}", flush=True)
    print(f"{failed} failed")
    return bool(failed)


#: In a mount namespace of its own, what is mounted is gone at the end, and no one else sees it.
ALONE = ["unshare", "--mount", "--map-root-user"]
if __name__ == "__main__":
    may = shutil.which("unshare") and not subprocess.run([*ALONE, "true"], capture_output=True, check=False).returncode
    if may and "EPIGEN_FAULTS" not in os.environ:
        os.environ["EPIGEN_FAULTS"] = "alone"
        os.execvp(ALONE[0], [*ALONE, sys.executable, *sys.argv])
    sys.exit(main())
