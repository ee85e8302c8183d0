import gzip
import hashlib
import http.server
import subprocess
import threading

import pytest
import requests

from epigen_utils import paths
from epigen_utils.data import downloads, fetching, registry
from epigen_utils.errors import DataError


@pytest.fixture
def path(tmp_path):
    file = tmp_path / "genome.fa.gz"
    file.write_bytes(bytes(range(256)) * 20)
    return file


def test_md5_lists(path):
    digest = hashlib.md5(path.read_bytes()).hexdigest()
    downloads.check_published_checksum(
        path, "genome.fa.gz", f"{'0' * 32}  other.fa.gz\n{digest}  genome.fa.gz\n", "list"
    )
    with pytest.raises(DataError, match=f"genome.fa.gz: checksum {digest}, and list says {'0' * 32}; fetch it again"):
        downloads.check_published_checksum(path, "genome.fa.gz", f"{'0' * 32}  ./genome.fa.gz\n", "list")
    assert not path.exists()


def test_lists_of_sum(path):
    said = subprocess.run(["sum", path], capture_output=True, text=True, check=True).stdout.split()[:2]
    downloads.check_published_checksum(path, "genome.fa.gz", f"{said[0]} {said[1]} genome.fa.gz\n", "list")
    with pytest.raises(DataError, match="and list says 7 5; fetch it again"):
        downloads.check_published_checksum(path, "genome.fa.gz", "00007 5 genome.fa.gz\n", "list")


def test_a_list_without_the_file(path):
    with pytest.raises(DataError, match=r"list: does not list genome\.fa\.gz"):
        downloads.check_published_checksum(path, "genome.fa.gz", "00007 5 other.fa.gz\n", "list")


ENTRY = """
tiny:
  title: t
  species: mus_musculus
  kind: reference
  real: true
  licence: l
  citation: c
  card: c
  files:
    fasta: {{url: {0}/g.fa, checksums: {0}/SUMS}}
"""


def test_a_reference_is_fetched_checked_and_remembered(serve, cache, with_registry):
    """Of a local server: the genome, then the publisher's list; what was seen first is kept as its SHA-256."""
    address, folder, asked = serve
    (folder / "g.fa").write_text(">one\nACGT\n")
    with_registry(ENTRY.format(address))
    (folder / "SUMS").write_text(f"{'0' * 32} g.fa\n")
    with pytest.raises(DataError, match="checksum .*, and .*/SUMS says 0000"):
        fetching.fetch("tiny")
    assert not list(cache.rglob("g.fa"))
    (folder / "SUMS").write_text(f"{hashlib.md5((folder / 'g.fa').read_bytes()).hexdigest()} g.fa\n")
    found = fetching.fetch("tiny")["fasta"]
    assert found.read_text() == ">one\nACGT\n"
    n = len(asked)
    fetching.fetch("tiny")
    assert len(asked) == n
    found.write_text("changed")
    fetching.fetch("tiny")
    assert found.read_text() == ">one\nACGT\n"


def test_a_file_whose_list_could_not_be_had_is_checked_at_the_next_call(serve, cache, with_registry):
    address, folder, _ = serve
    (folder / "g.fa").write_text(">one\nACGT\n")
    with_registry(ENTRY.format(address))
    with pytest.raises(DataError, match="SUMS: cannot be"):
        fetching.fetch("tiny")
    (folder / "SUMS").write_text(f"{'0' * 32} g.fa\n")
    with pytest.raises(DataError, match="checksum .*, and .*/SUMS says 0000"):
        fetching.fetch("tiny")
    (folder / "SUMS").write_text(f"{hashlib.md5((folder / 'g.fa').read_bytes()).hexdigest()} g.fa\n")
    assert fetching.fetch("tiny")["fasta"].read_text() == ">one\nACGT\n"


CONTENT = bytes(range(256)) * 4000


class Broken(http.server.BaseHTTPRequestHandler):
    """Sends half of what is asked for until ``whole`` is set; understands ranges unless told not to."""

    whole, ranges, etag = False, True, '"one"'
    asked: list = []

    def do_GET(self):
        self.asked.append(self.headers.get("Range"))
        start = 0
        wanted = self.headers.get("Range")
        if wanted and self.ranges and self.headers.get("If-Range") == self.etag:
            start = int(wanted.removeprefix("bytes=").removesuffix("-"))
            if start >= len(CONTENT):
                self.send_error(416)
                return
            self.send_response(206)
        else:
            self.send_response(200)
        self.send_header("Content-Length", str(len(CONTENT) - start))
        if self.etag:
            self.send_header("ETag", self.etag)
        self.end_headers()
        rest = CONTENT[start:]
        self.wfile.write(rest if self.whole else rest[: len(rest) // 2])

    def log_message(self, *_):
        pass


@pytest.fixture
def server():
    handler = type("Handler", (Broken,), {"asked": []})
    running = http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler)
    threading.Thread(target=running.serve_forever, daemon=True).start()
    yield handler, f"http://127.0.0.1:{running.server_port}/counts.txt"
    running.shutdown()
    running.server_close()


@pytest.fixture
def fetch(cache, with_registry, server):
    entry = (
        "x: {title: t, species: s, kind: reads, real: true, licence: l, citation: c, card: k, files: {a: {url: '%s'}}}"
    )
    with_registry(entry % server[1])
    return lambda: fetching.fetch("x")["a"]


def folder():
    return sorted(path.name for path in (paths.CACHE / "x" / "a").glob("*"))


def test_a_broken_download_is_one_line_and_goes_on(fetch, server):
    handler, _ = server
    with pytest.raises(DataError, match="cannot be downloaded .*it goes on where it broke off"):
        fetch()
    assert folder() == ["counts.txt.part", "counts.txt.part.version"]
    handler.whole = True
    assert fetch().read_bytes() == CONTENT
    first, second = handler.asked
    assert first is None
    came = int(second.removeprefix("bytes=").removesuffix("-"))
    assert len(CONTENT) // 2 - downloads.CHUNK_BYTES < came <= len(CONTENT) // 2, "all but the last chunk is kept"
    assert folder() == ["counts.txt", "counts.txt.sha256"]


@pytest.mark.parametrize("change", [{"etag": '"two"'}, {"ranges": False}])
def test_a_changed_file_or_a_server_without_ranges_starts_again(fetch, server, change):
    handler, _ = server
    with pytest.raises(DataError):
        fetch()
    for name, value in change.items():
        setattr(handler, name, value)
    handler.whole = True
    assert fetch().read_bytes() == CONTENT


def test_without_a_version_nothing_is_joined(fetch, server):
    handler, _ = server
    handler.etag = ""
    with pytest.raises(DataError):
        fetch()
    handler.whole = True
    assert fetch().read_bytes() == CONTENT
    assert handler.asked == [None, None]


def test_a_part_that_is_already_whole_is_asked_for_again(fetch, server):
    handler, url = server
    handler.whole = True
    (paths.CACHE / "x" / "a").mkdir(parents=True)
    (paths.CACHE / "x" / "a" / "counts.txt.part").write_bytes(CONTENT)
    (paths.CACHE / "x" / "a" / "counts.txt.part.version").write_text('"one"')
    assert fetch().read_bytes() == CONTENT
    assert requests.get(url, timeout=5).content == CONTENT


def test_a_stop_leaves_the_part_that_the_next_call_goes_on_from(fetch, server, monkeypatch):
    handler, _ = server
    half, go_on = threading.Event(), threading.Event()

    def slow(handler):
        if handler.whole:
            return Broken.do_GET(handler)
        handler.asked.append(None)
        handler.send_response(200)
        handler.send_header("Content-Length", str(len(CONTENT)))
        handler.send_header("ETag", handler.etag)
        handler.end_headers()
        handler.wfile.write(CONTENT[: len(CONTENT) // 2])
        half.set()
        go_on.wait(10)
        handler.wfile.write(CONTENT[len(CONTENT) // 2 :])

    handler.do_GET = slow
    found = registry.parse_registry(paths.REGISTRY.read_text())
    entries = registry.entries() | {"table-two": found["table-two"]}
    monkeypatch.setattr(registry, "entries", lambda: entries)
    said = []

    def interrupt(line):
        said.append(line)
        if len(said) == 1:
            half.wait(10)
            threading.Timer(0.2, go_on.set).start()
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        fetching.fetch_all(["table-two", "x"], interrupt)
    assert said[1] == "stopped after 1 of 3 files; the same command goes on there"
    assert folder() == ["counts.txt.part", "counts.txt.part.version"]
    handler.whole = True
    assert fetch().read_bytes() == CONTENT
    assert handler.asked[1].startswith("bytes=")


def test_a_gzipped_file_is_kept_as_it_is_where_its_server_calls_that_a_coding(serve, tmp_path, monkeypatch):
    url, folder, _ = serve
    packed = gzip.compress(b"series")
    (folder / "series.txt.gz").write_bytes(packed)
    ending = http.server.SimpleHTTPRequestHandler.end_headers

    def end_headers(handler):
        handler.send_header("Content-Encoding", "x-gzip")
        ending(handler)

    monkeypatch.setattr(http.server.SimpleHTTPRequestHandler, "end_headers", end_headers)
    downloads.download_part(f"{url}/series.txt.gz", tmp_path / "part")
    assert (tmp_path / "part").read_bytes() == packed
