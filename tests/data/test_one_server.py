"""The publishers' files, served by one local server in place of the world, and no mirror."""

import http.server
import threading

import pytest

from epigen_utils import paths
from epigen_utils.book import runs
from epigen_utils.data import downloads, fetching, registry
from epigen_utils.errors import DataError


def remote_files(name):
    """Files that a publisher's server has, of one data set."""
    for spec in registry.entry(name).files.values():
        yield from (original for original in (spec.originals or {"": spec}).values() if original.url)


@pytest.fixture
def world(mirror, cache, monkeypatch):
    """Addresses that were asked for, on a server that has every file of the mirror under its publisher's address."""
    files = fetching._mirror_hashes(str(mirror))
    served = {
        f"/{spec.url.partition('://')[2]}": files[spec.sha256]
        for name in registry.entries()
        for spec in remote_files(name)
        if spec.sha256 in files
    }
    asked = []

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self):
            asked.append(self.path)
            if self.path not in served:
                self.send_error(404)
                return
            content = served[self.path].read_bytes()
            self.send_response(200)
            self.send_header("Content-Length", str(len(content)))
            self.end_headers()
            self.wfile.write(content)

        def log_message(self, *_):
            pass

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    monkeypatch.setenv(downloads.SERVER, f"http://127.0.0.1:{server.server_port}")
    yield asked
    server.shutdown()
    server.server_close()


def names_without_packages(profile):
    return [
        name
        for name in runs.profile_data(profile)
        if not any(spec.package for spec in registry.entry(name).files.values())
    ]


def test_the_data_of_the_real_profile_come_from_one_server(world):
    assert not paths.MIRROR
    names = names_without_packages("real")
    assert {"cardiac-ipsc", "pig-cystic-fibrosis", "rat-epilepsy", "ggal-gut"} <= set(names)
    for name in names:
        for path in fetching.fetch(name).values():
            assert path.exists()
    assert len(world) > 10
    n = len(world)
    for name in names:
        fetching.fetch(name)
    assert len(world) == n, "nothing is asked for twice"


def test_without_a_server_what_is_shipped_comes_and_the_others_are_one_line(cache, monkeypatch):
    monkeypatch.setenv(downloads.SERVER, "http://127.0.0.1:9")
    for name in names_without_packages("real"):
        if any(spec.source in ("url", "geo", "converted") for spec in registry.entry(name).files.values()):
            with pytest.raises(DataError, match=r"cannot be downloaded .*; retry") as caught:
                fetching.fetch(name)
            assert "\n" not in str(caught.value)
        else:
            fetching.fetch(name)
    assert fetching.fetch("pbmc-40")["counts"].parent == paths.DATA / "shipped"
