"""Small data, a cache of its own for every test, and the mirror where it stands beside the checkout."""

import hashlib
import http.server
import json
import os
import re
import shutil
import threading
import urllib.parse
from functools import partial
from pathlib import Path

import anndata
import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import pytest
from hypothesis import settings

from epigen_utils import paths
from epigen_utils.data import orthologs, registry

MIRROR = paths.ROOT.parent / "shared" / "data"

# The same few examples at every run; `make properties` draws many others, from the seed that it prints.
settings.register_profile("fast", max_examples=15, deadline=None, derandomize=True, database=None)
settings.register_profile("nightly", max_examples=1000, deadline=None, print_blob=True, database=None)
settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE", "fast"))

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
needs_mirror = pytest.mark.skipif(not MIRROR.exists(), reason=f"no mirror at {MIRROR}")


@pytest.fixture(autouse=True)
def environment():
    """What a test sets in the environment, such as the threads of a run, ends with it."""
    before = dict(os.environ)
    yield
    os.environ.clear()
    os.environ.update(before)


@pytest.fixture
def ax():
    figure, axes = plt.subplots()
    yield axes
    plt.close(figure)


@pytest.fixture
def mirror(monkeypatch):
    if not MIRROR.exists():
        pytest.skip(f"no mirror at {MIRROR}")
    monkeypatch.setattr(paths, "MIRROR", str(MIRROR))
    orthologs.ortholog_pairs.cache_clear()
    yield MIRROR
    orthologs.ortholog_pairs.cache_clear()


@pytest.fixture
def cache(tmp_path, monkeypatch):
    """An empty cache, and no mirror."""
    monkeypatch.setattr(paths, "CACHE", tmp_path / "cache")
    monkeypatch.setattr(paths, "MIRROR", "")
    return tmp_path / "cache"


@pytest.fixture
def with_registry(monkeypatch):
    """Replace the registry by entries given as YAML."""

    def replace(text):
        entries = registry.parse_registry(text)
        monkeypatch.setattr(registry, "entries", lambda: entries)
        return entries

    return replace


@pytest.fixture
def small():
    """Six samples x four genes, two groups of three."""
    counts = np.array([[5, 0, 9, 100], [6, 1, 8, 90], [4, 0, 7, 110], [9, 3, 2, 95], [8, 2, 1, 105], [7, 4, 3, 99]])
    return anndata.AnnData(
        obs=pd.DataFrame({"condition": list("aaabbb"), "donor": list("xyzxyz")}, index=[f"s{i}" for i in range(6)]),
        var=pd.DataFrame({"symbol": ["G1", "G2", "G3", "G4"]}, index=["g1", "g2", "g3", "g4"]),
        layers={"counts": counts},
        uns={"epigen": {"name": "small", "group": "condition", "donor": "donor", "measure": "counts"}},
    )


@pytest.fixture
def serve(tmp_path):
    """A local HTTP server over a folder; gives its address and the list of the paths that were asked for."""
    folder = tmp_path / "served"
    folder.mkdir()
    asked = []

    class Handler(http.server.SimpleHTTPRequestHandler):
        def log_message(self, *_):
            asked.append(self.path)

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), partial(Handler, directory=str(folder)))
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    yield f"http://127.0.0.1:{server.server_port}", folder, asked
    server.shutdown()
    server.server_close()


class Hub:
    """What the local model hub has, and how it misbehaves.

    Attributes
    ----------
    folder
        ``<owner>/<name>/<commit>/`` holds the files of a commit.
    revisions
        Branch or tag -> commit.
    fault
        ``silent`` (no answer), ``cut`` (half of a file of weights or cells), ``stalled`` (half, and no end), a status, or empty.
    asked
        Methods and paths.
    """

    def __init__(self, folder):
        self.folder, self.asked, self.fault, self.address = folder, [], "", ""
        self.revisions = {"main": "a" * 40}
        self.done = threading.Event()

    def add(self, name, *, commit="a" * 40):
        """The folder of a commit, to be filled."""
        folder = self.folder / name / commit
        folder.mkdir(parents=True)
        return folder

    def answer(self, handler):
        """Answer a request as a hub: the files of a revision, or one of them."""
        self.asked.append(f"{handler.command} {handler.path}")
        if self.fault == "silent":
            self.done.wait(20)
            return None
        if isinstance(self.fault, int):
            return self.send(handler, self.fault)
        path = urllib.parse.unquote(handler.path.partition("?")[0])
        listing = re.fullmatch("/api/(?:models|datasets)/([^/]+/[^/]+)(?:/revision/(.+))?", path)
        file = re.fullmatch("(?:/datasets)?/([^/]+/[^/]+)/resolve/([^/]+)/(.+)", path)
        if not (listing or file):
            return self.send(handler, 404)
        name, revision = (listing or file)[1], (listing or file)[2] or "main"
        if not (self.folder / name).exists():
            return self.send(handler, 401, {"X-Error-Code": "RepoNotFound"})
        commit = self.revisions.get(revision, revision)
        if not (folder := self.folder / name / commit).exists():
            return self.send(handler, 404, {"X-Error-Code": "RevisionNotFound"})
        if listing:
            files = [str(path.relative_to(folder)) for path in sorted(folder.rglob("*")) if path.is_file()]
            siblings = [{"rfilename": file} for file in files]
            return self.send(handler, 200, body=json.dumps({"id": name, "sha": commit, "siblings": siblings}).encode())
        if not (folder / file[3]).is_file():
            return self.send(handler, 404, {"X-Error-Code": "EntryNotFound"})
        body = (folder / file[3]).read_bytes()
        headers = {"X-Repo-Commit": commit, "ETag": f'"{hashlib.sha256(body).hexdigest()}"'}
        half = self.fault in ("cut", "stalled") and file[3].endswith((".safetensors", ".arrow"))
        return self.send(handler, 200, headers, body, half=half)

    def send(self, handler, status, headers=None, body=b"", *, half=False):
        handler.send_response(status)
        for key, value in ((headers or {}) | {"Content-Length": str(len(body))}).items():
            handler.send_header(key, value)
        handler.end_headers()
        if handler.command == "GET":
            handler.wfile.write(body[: len(body) // 2] if half else body)
            if half and self.fault == "stalled":
                self.done.wait(20)


@pytest.fixture
def hub(tmp_path, monkeypatch):
    """A local model hub that `huggingface_hub` asks, with an empty cache; it waits a second for an answer."""
    from huggingface_hub import constants

    made = Hub(tmp_path / "hub")

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self):
            made.answer(self)

        do_HEAD = do_POST = do_GET

        def log_message(self, *_):
            pass

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    made.address = f"http://127.0.0.1:{server.server_port}"
    # The library has read its environment when it was imported.
    monkeypatch.setattr(constants, "ENDPOINT", made.address)
    monkeypatch.setattr(
        constants, "HUGGINGFACE_CO_URL_TEMPLATE", made.address + "/{repo_id}/resolve/{revision}/{filename}"
    )
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "hub-cache"))
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    for name in ("HF_HUB_ETAG_TIMEOUT", "HF_HUB_DOWNLOAD_TIMEOUT"):
        monkeypatch.setattr(constants, name, 1)
    yield made
    made.done.set()
    server.shutdown()
    server.server_close()


@pytest.fixture
def table_files(tmp_path):
    """A good count matrix and sample table as text; `write` makes variants of them."""
    counts = "gene,a1,a2,b1,b2\ng1,5,6,7,8\ng2,1,0,3,4\ng3,10,20,30,40\n"
    samples = "sample,condition\na1,a\na2,a\nb1,b\nb2,b\n"

    def write(counts=counts, samples=samples) -> tuple[Path, Path]:
        (tmp_path / "counts.csv").write_text(counts)
        (tmp_path / "samples.csv").write_text(samples)
        return tmp_path / "counts.csv", tmp_path / "samples.csv"

    write.counts, write.samples = counts, samples
    return write


@pytest.fixture
def shown(monkeypatch):
    """What a page would display, and what it would glue."""
    from epigen_utils.book import open_page, report

    outputs, glued = [], {}
    monkeypatch.setattr(open_page, "display", lambda data, raw: outputs.append(data))
    monkeypatch.setattr(report.myst_nb, "glue", lambda name, value, display: glued.update({name: value}))
    return outputs, glued


@pytest.fixture
def page(tmp_path, shown):
    """The results of a page that is open."""
    from epigen_utils.book import open_page, report

    report.begin("epilepsy/02_table_two", results_dir=str(tmp_path / "out"), seed=1)
    yield tmp_path / "out"
    open_page._page = None


@pytest.fixture(scope="session")
def browser():
    if not CHROMIUM:
        pytest.skip("no Chromium on this machine (apt-get install chromium)")
    from playwright.sync_api import sync_playwright

    flags = ["--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-sync"]
    flags += ["--disable-background-networking", "--disable-component-update"]
    with sync_playwright() as play:
        opened = play.chromium.launch(executable_path=CHROMIUM, args=flags)
        yield opened
        opened.close()


@pytest.fixture
def run_here(tmp_path, monkeypatch):
    """Run the cells of a notebook in this process, which has the imports of earlier ones; gives its ``metrics.json``, and keeps what it showed.

    As in a kernel, what a cell leaves open or ends in would be shown: neither may be, so that a page shows what is reported.
    """
    from IPython.core.displaypub import CapturingDisplayPublisher
    from IPython.core.interactiveshell import InteractiveShell
    from papermill.iorw import load_notebook_node
    from papermill.parameterize import parameterize_notebook
    from traitlets.config import Config

    def run(source, **values):
        values = {"results_dir": "results"} | values
        notebook = parameterize_notebook(load_notebook_node(str(source)), values)
        shell = InteractiveShell.instance(config=Config(HistoryManager={"enabled": False}))
        shell.display_pub = CapturingDisplayPublisher()
        for cell in notebook.cells:
            if cell.cell_type == "code":
                done = shell.run_cell(cell.source, store_history=True)
                done.raise_error()
                assert done.result is None, f"shown beside what is reported: {cell.source[-200:]}"
                assert plt.get_fignums() == [], f"shown beside what is reported: {cell.source[-200:]}"
        shown = [output for output in shell.display_pub.outputs if "scrapbook" not in output["metadata"]]
        assert shown
        assert all("text/markdown" in output["data"] for output in shown)
        run.shown = "\n".join(output["data"]["text/markdown"] for output in shown)
        return json.loads((tmp_path / "results" / "metrics.json").read_text())

    monkeypatch.chdir(tmp_path)
    plt.close("all")
    yield run
    plt.close("all")
    InteractiveShell.clear_instance()


def pytest_configure(config):
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    config.addinivalue_line("markers", "requires_gpu: runs only where PyTorch has a CUDA device")


def pytest_runtest_setup(item):
    if item.get_closest_marker("requires_gpu"):
        import torch  # here, so that the other tests do not wait for it

        if not torch.cuda.is_available():
            pytest.skip("no CUDA device")
