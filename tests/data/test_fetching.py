import errno
import functools
import gzip
import hashlib
import http.server
import io
import json
import os
import re
import shutil
import sys
import tarfile
import threading
import time
import zipfile

import datasets as arrow
import pytest
import yaml
from test_registry import BYTES, ENTRY, SHA, entry
from world import Handler, lay_out, serving

from epigen_utils import paths
from epigen_utils.book import runs
from epigen_utils.data import downloads, fetching, registry
from epigen_utils.errors import DataError, UnreachableError


def test_the_registry_itself():
    known = registry.entries()
    assert len(known) >= 40
    for found in known.values():
        assert found.card
        assert found.licence
        for role, spec in found.files.items():
            if spec.source in ("package", "converted", "bundled"):
                assert len(spec.sha256) == 64, (found.name, role)
    for name in ("table-two",):
        assert fetching.fetch(name)["counts"].exists()


def test_download_checks_the_hash_and_leaves_nothing_behind(cache, serve, with_registry):
    url, folder, asked = serve
    (folder / "genes.tsv").write_bytes(BYTES)
    with_registry(entry(f"url: {url}/genes.tsv, sha256: {SHA}"))
    path = fetching.fetch("one")["genes"]
    assert path.read_bytes() == BYTES
    fetching.fetch("one")
    assert len(asked) == 1, "the second time it comes from the cache"
    path.write_bytes(b"torn")
    assert fetching.fetch("one")["genes"].read_bytes() == BYTES

    with_registry(entry(f"url: {url}/genes.tsv, sha256: {'a' * 64}", name="two"))
    with pytest.raises(DataError, match=f"wrong hash, SHA-256 is {SHA}, expected aaaa"):
        fetching.fetch("two")
    assert [path for path in (cache / "two").rglob("*") if path.is_file()] == []


def test_two_files_of_one_name_do_not_overwrite_each_other(cache, serve, with_registry):
    url, folder, asked = serve
    texts = {"a": b"first", "b": b"second"}
    for name, content in texts.items():
        (folder / name).mkdir()
        (folder / name / "same.csv").write_bytes(content)
    both = [f"{n}: {{url: {url}/{n}/same.csv, sha256: {hashlib.sha256(x).hexdigest()}}}" for n, x in texts.items()]
    with_registry(
        ENTRY.format(name="one", source="url: u, sha256: " + SHA).split("    genes")[0] + "    " + "\n    ".join(both)
    )
    for _ in range(2):
        assert {role: path.read_bytes() for role, path in fetching.fetch("one").items()} == texts
    assert len(asked) == 2


def test_a_missing_file_on_the_server_is_one_line(cache, serve, with_registry):
    with_registry(entry(f"url: {serve[0]}/lost.tsv, sha256: {SHA}"))
    with pytest.raises(DataError, match=r"lost\.tsv: cannot be downloaded \(HTTPError\)"):
        fetching.fetch("one")


def test_an_unknown_hash_is_recorded_at_first_sight_and_held_to(cache, serve, with_registry):
    url, folder, _ = serve
    (folder / "genes.tsv").write_bytes(BYTES)
    with_registry(entry(f"url: {url}/genes.tsv"))
    fetching.fetch("one")
    assert (cache / "one" / "genes" / "genes.tsv.sha256").read_text() == SHA
    (cache / "one" / "genes" / "genes.tsv").unlink()
    (folder / "genes.tsv").write_bytes(b"other bytes")
    with pytest.raises(DataError, match=r"wrong hash, .*if its publisher replaced it, delete .*/genes\.tsv\.sha256$"):
        fetching.fetch("one")


def test_mirror_is_looked_in_first_by_hash(cache, serve, with_registry, tmp_path, monkeypatch):
    mirror = tmp_path / "mirror"
    (mirror / "deep").mkdir(parents=True)
    (mirror / "deep" / "another_name.tsv").write_bytes(BYTES)
    monkeypatch.setattr(paths, "MIRROR", str(mirror))
    with_registry(entry(f"url: {serve[0]}/genes.tsv, sha256: {SHA}"))
    assert fetching.fetch("one")["genes"] == mirror / "deep" / "another_name.tsv"
    assert serve[2] == []


CONVERTED = "converted: lists.json, sha256: {content}, converter: label_lists, originals: {{labels: {{url: {url}, sha256: {sha}}}}}"
LISTS = b"gene_id,label\nfirst,\"['ENSG1', 'ENSG2']\"\n"


def converted(url, content, original=LISTS):
    return entry(CONVERTED.format(url=url, content=content, sha=hashlib.sha256(original).hexdigest()))


def test_a_file_is_converted_once_and_again_when_it_is_torn(cache, serve, with_registry):
    url, folder, asked = serve
    (folder / "lists.csv").write_bytes(LISTS)
    text = json.dumps({"first": ["ENSG1", "ENSG2"]}, indent=0)
    with_registry(converted(f"{url}/lists.csv", hashlib.sha256(text.encode()).hexdigest()))
    path = fetching.fetch("one")["genes"]
    assert path.read_text() == text
    fetching.fetch("one")
    path.write_text("torn")
    assert fetching.fetch("one")["genes"].read_text() == text
    assert len(asked) == 1, "the original is kept"


def test_a_conversion_with_other_content_is_refused_and_leaves_nothing(cache, serve, with_registry):
    url, folder, _ = serve
    (folder / "lists.csv").write_bytes(LISTS)
    with_registry(converted(f"{url}/lists.csv", "a" * 64))
    with pytest.raises(DataError, match="one: genes: converted content has SHA-256 .*, expected aaaa"):
        fetching.fetch("one")
    assert sorted(path.name for path in (cache / "one" / "genes").glob("*")) == ["originals"]


def test_originals_are_looked_for_in_the_mirror_s_lists(cache, with_registry, tmp_path, monkeypatch):
    mirror = tmp_path / "mirror"
    (mirror / "raw").mkdir(parents=True)
    (mirror / "raw" / "lists.csv").write_bytes(LISTS)
    (mirror / "raw" / "URLS.tsv").write_text(f"path\tsha256\nraw/lists.csv\t{hashlib.sha256(LISTS).hexdigest()}\n")
    (mirror / "other.tsv").write_text("gene\tsymbol\n")
    monkeypatch.setattr(paths, "MIRROR", str(mirror))
    text = json.dumps({"first": ["ENSG1", "ENSG2"]}, indent=0)
    with_registry(converted("https://nowhere.invalid/lists.csv", hashlib.sha256(text.encode()).hexdigest()))
    assert fetching.fetch("one")["genes"].read_text() == text


def test_one_server_stands_for_all(cache, serve, with_registry, monkeypatch):
    url, folder, asked = serve
    (folder / "example.org" / "a").mkdir(parents=True)
    (folder / "example.org" / "a" / "genes.tsv").write_bytes(BYTES)
    monkeypatch.setenv(downloads.SERVER, url)
    with_registry(entry(f"url: https://example.org/a/genes.tsv, sha256: {SHA}"))
    assert fetching.fetch("one")["genes"].read_bytes() == BYTES
    assert asked == ["/example.org/a/genes.tsv"]


def test_a_full_disk_is_one_line_and_leaves_nothing_under_its_name(cache, serve, with_registry, monkeypatch):
    url, folder, _ = serve
    (folder / "genes.tsv").write_bytes(BYTES)
    with_registry(entry(f"url: {url}/genes.tsv, sha256: {SHA}"))

    def full(*_):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(downloads, "_store_version", full)
    with pytest.raises(DataError, match=r"^one: .*: cannot be written \(No space left on device\); free space there"):
        fetching.fetch("one")
    assert not (cache / "one" / "genes" / "genes.tsv").exists()


def test_a_busy_server_is_asked_again_by_name(cache, serve, with_registry, monkeypatch):
    url, folder, _ = serve
    (folder / "genes.tsv").write_bytes(BYTES)
    busy, agents = [503, 429], []
    serving = http.server.SimpleHTTPRequestHandler.do_GET

    def answer(handler):
        agents.append(handler.headers["User-Agent"])
        if busy:
            handler.send_response(busy.pop())
            handler.send_header("Retry-After", "0")
            handler.end_headers()
        else:
            serving(handler)

    monkeypatch.setattr(http.server.SimpleHTTPRequestHandler, "do_GET", answer)
    with_registry(entry(f"url: {url}/genes.tsv, sha256: {SHA}"))
    assert fetching.fetch("one")["genes"].read_bytes() == BYTES
    assert len(agents) == 3
    assert all(agent.startswith("epigen-utils/") for agent in agents)


def index(folder, url, monkeypatch, form="html"):
    """A package index with one project that has a wheel and a source archive; its page is HTML, or JSON (PEP 691)."""
    monkeypatch.setenv("PIP_INDEX_URL", f"{url}/simple")
    fetching._index_url.cache_clear()
    page = folder / "simple" / "some-set"
    page.mkdir(parents=True)
    with zipfile.ZipFile(folder / "some_set-1.0-py3-none-any.whl", "w") as wheel:
        wheel.writestr("some_set/data/genes.tsv", BYTES)
    with tarfile.open(folder / "some_set-0.9.tar.gz", "w:gz") as archive:
        member = tarfile.TarInfo("some_set-0.9/data/genes.tsv")
        member.size = len(BYTES)
        archive.addfile(member, io.BytesIO(BYTES))
        build = tarfile.TarInfo("some_set-0.9/setup.py")
        build.size = len(code := b"raise SystemExit('built')")
        archive.addfile(build, io.BytesIO(code))
    links, listed = [], []
    for name in ("some_set-1.0-py3-none-any.whl", "some_set-0.9.tar.gz"):
        digest = hashlib.sha256((folder / name).read_bytes()).hexdigest()
        links.append(f'<a href="../../{name}#sha256={digest}">{name}</a>')
        listed.append({"filename": name, "url": f"../../{name}", "hashes": {"sha256": digest}})
    content = {"meta": {"api-version": "1.0"}, "name": "some-set", "files": listed}
    text = "<html><body>" + "".join(links) if form == "html" else json.dumps(content)
    (page / "index.html").write_text(text)


@pytest.fixture(params=["html", "json"])
def packages(serve, monkeypatch, request):
    if request.param == "json":
        types = {".html": "application/vnd.pypi.simple.v1+json"}
        monkeypatch.setattr(http.server.SimpleHTTPRequestHandler, "extensions_map", types)
    index(serve[1], serve[0], monkeypatch, request.param)
    yield
    fetching._index_url.cache_clear()


@pytest.mark.parametrize("member", ["some_set==1.0!some_set/data/genes.tsv", "some-set==0.9!data/genes.tsv"])
def test_a_member_of_a_wheel_and_of_a_source_archive(cache, packages, with_registry, member):
    with_registry(entry(f'package: "{member}", sha256: {SHA}'))
    assert fetching.fetch("one")["genes"].read_bytes() == BYTES


@pytest.mark.parametrize(
    ("source", "said"),
    [
        (f'package: "some-set==1.0!some_set/lost.tsv", sha256: {SHA}', "has no member 'some_set/lost.tsv'"),
        (f'package: "some-set==2.0!some_set/data/genes.tsv", sha256: {SHA}', "has no release some-set==2.0"),
        (f'package: "other==1.0!x", sha256: {SHA}', "did not answer"),
        (f'package: "some-set==1.0!some_set/data/genes.tsv", sha256: {"a" * 64}', f"wrong hash, SHA-256 is {SHA}"),
    ],
)
def test_package_mistakes_are_one_line_and_leave_nothing(cache, packages, with_registry, source, said):
    with_registry(entry(source))
    with pytest.raises(DataError) as caught:
        fetching.fetch("one")
    assert said in str(caught.value)
    assert "\n" not in str(caught.value)
    assert [path for path in (cache / "one").rglob("*") if path.is_file()] == []


def test_the_index_is_found_where_a_kernel_asks_for_colours(monkeypatch):
    monkeypatch.delenv("PIP_INDEX_URL", raising=False)
    monkeypatch.setenv("FORCE_COLOR", "1")
    monkeypatch.setenv("COLUMNS", "40")
    fetching._index_url.cache_clear()
    assert fetching._index_url().startswith("https://")
    monkeypatch.setenv("PIP_INDEX_URL", "http://127.0.0.1/simple")
    assert fetching._index_url().startswith("https://"), "asked once"
    fetching._index_url.cache_clear()
    assert fetching._index_url() == "http://127.0.0.1/simple"
    fetching._index_url.cache_clear()


def test_a_changed_bundled_file_is_refused(tmp_path, monkeypatch):
    monkeypatch.setattr(paths, "DATA", tmp_path)
    (tmp_path / "table_two.csv").write_text("gene,WT1\n")
    with pytest.raises(DataError, match=r"table_two\.csv: wrong hash, SHA-256 is \w{64}, expected \w{64}; replace"):
        fetching.fetch("table-two")


def test_each_file_is_said_with_its_source_and_what_is_missing_stops_no_other(
    cache, serve, with_registry, tmp_path, monkeypatch
):
    url, folder, _ = serve
    (folder / "lists.csv").write_bytes(LISTS)
    (folder / "genes.tsv").write_bytes(BYTES)
    (tmp_path / "mirror").mkdir()
    (tmp_path / "mirror" / "a.tsv").write_bytes(b"mirrored")
    monkeypatch.setattr(paths, "MIRROR", str(tmp_path / "mirror"))
    text = hashlib.sha256(json.dumps({"first": ["ENSG1", "ENSG2"]}, indent=0).encode()).hexdigest()
    held = hashlib.sha256(b"mirrored").hexdigest()
    names = {
        "lost": f"url: {url}/lost.tsv",
        "converted": CONVERTED.format(url=f"{url}/lists.csv", content=text, sha=hashlib.sha256(LISTS).hexdigest()),
        "mirrored": f"url: {url}/a.tsv, sha256: {held}",
        "new": f"url: {url}/genes.tsv",
        "made": "simulated: bulk",
    }
    with_registry("".join(entry(source, name=name) for name, source in names.items()))
    said = []
    incomplete, first_seen = fetching.fetch_all(list(names), said.append)
    assert incomplete == {"lost"}
    assert first_seen == {"new": {"genes": SHA}}
    assert sorted(said) == [
        "3 of 4 files are there; missing: 1",
        f"converted: genes: {cache}/converted/genes/lists.json, 33.0B, SHA-256 {text[:12]}, converted",
        f"lost: genes: missing: {url}/lost.tsv: cannot be downloaded (HTTPError); check the address",
        f"mirrored: genes: {tmp_path}/mirror/a.tsv, 8.00B, SHA-256 {held[:12]}, mirror",
        f"new: genes: {cache}/new/genes/genes.tsv, 12.0B, SHA-256 {SHA[:12]}, downloaded; hash recorded at first sight",
    ]
    snippet = registry.files_with_hashes(first_seen)
    assert yaml.safe_load(snippet) == {"new": {"files": {"genes": {"url": f"{url}/genes.tsv", "sha256": SHA}}}}
    for name in ("converted", "new"):
        fetching.fetch_all([name], said.append)
    assert said[5].endswith(", cache")
    assert said[7].endswith(", cache; hash recorded at first sight")


def test_an_unknown_name_is_said_before_anything_is_fetched(cache, serve, with_registry):
    with_registry(entry(f"url: {serve[0]}/genes.tsv"))
    with pytest.raises(DataError, match="did you mean 'one'"):
        fetching.fetch_all(["one", "on"], print)
    assert serve[2] == []


def test_two_at_a_time_with_one_bar_and_an_archive_is_fetched_once(cache, serve, with_registry, monkeypatch):
    index(serve[1], serve[0], monkeypatch)
    running, most, lock = [], [], threading.Lock()
    serving = http.server.SimpleHTTPRequestHandler.do_GET

    def answer(handler):
        with lock:
            running.append(handler)
            most.append(len(running))
        time.sleep(0.05)
        serving(handler)
        with lock:
            running.remove(handler)

    monkeypatch.setattr(http.server.SimpleHTTPRequestHandler, "do_GET", answer)
    terminal = io.StringIO()
    terminal.isatty = lambda: True
    monkeypatch.setattr(sys, "stderr", terminal)
    for name in "abc":
        (serve[1] / f"{name}.tsv").write_bytes(BYTES)
    sources = [f"url: {serve[0]}/{name}.tsv" for name in "abc"]
    sources += [f'package: "some_set==1.0!some_set/data/genes.tsv", sha256: {SHA}'] * 2
    with_registry("".join(entry(source, name=f"set{i}") for i, source in enumerate(sources)))
    assert fetching.fetch_all([f"set{i}" for i in range(5)], lambda line: None)[0] == set()
    fetching._index_url.cache_clear()
    assert max(most) == 2
    assert serve[2].count("/some_set-1.0-py3-none-any.whl") == 1
    bars = terminal.getvalue().split("\r")
    assert any("5 of 5 files" in bar for bar in bars)
    assert all(" of 5 files" in bar or ".tsv" not in bar for bar in bars), "no file has a bar of its own"


@pytest.fixture
def world(mirror, cache, tmp_path, monkeypatch):
    """Addresses that were asked for, on a server that has every file of the mirror under its publisher's address."""
    asked = []
    lay_out(mirror, tmp_path / "world")
    monkeypatch.setattr(paths, "MIRROR", "")
    with serving(functools.partial(Handler, alone=True, asked=asked, directory=str(tmp_path / "world"))) as address:
        monkeypatch.setenv(downloads.SERVER, address)
        yield asked


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
    monkeypatch.setenv("PIP_INDEX_URL", "https://index.invalid/simple")
    fetching._index_url.cache_clear()
    names, said = runs.profile_data("real"), []
    incomplete, _ = fetching.fetch_all(names, said.append)
    fetching._index_url.cache_clear()
    shipped = {name for name in names if all(spec.bundled for spec in registry.entry(name).files.values())}
    assert {"pbmc-40", "gene-classes", "human-tfs", "table-two"} <= shipped
    assert incomplete == set(names) - shipped
    remedies = (
        r"cannot be downloaded \(\w+\); retry: it goes on|the package index did not answer \(\w+\); check the connect"
    )
    missing = [line for line in said if ": missing: " in line]
    assert {line.partition(":")[0] for line in missing} == incomplete
    assert [line for line in missing if "\n" in line or not re.search(remedies, line)] == []
    assert fetching.fetch("pbmc-40")["counts"].parent == paths.DATA / "shipped"


def published_cells(hub):
    """A data set on the hub, as `datasets` writes it."""
    folder = hub.add("someone/Corpus") / "cells.dataset"
    columns = {"input_ids": [[2, 3], [4]], "length": [2, 1], "cell_type": ["a", "b"]}
    arrow.Dataset.from_dict(columns).save_to_disk(folder)


def test_a_hubs_folder_is_fetched_once_at_a_commit_and_said_with_its_size(cache, hub, with_registry):
    published_cells(hub)
    with_registry(entry("hub: someone/Corpus:cells.dataset"))
    said = []
    _, first_seen = fetching.fetch_all(["one"], said.append)
    target = cache / "one" / "genes" / "cells.dataset"
    size = re.escape(f"one: genes: {target}, ") + r"[\d.]+kB"
    assert re.fullmatch(f"{size}, commit {'a' * 12}, downloaded; commit recorded at first sight", said[0])
    snippet = yaml.safe_load(registry.files_with_hashes(first_seen))
    assert snippet["one"]["files"]["genes"] == {"hub": "someone/Corpus:cells.dataset", "revision": "a" * 40}
    hub.asked.clear()
    assert fetching.fetch("one") == {"genes": target}
    assert hub.asked == []
    assert sorted(path.name for path in target.parent.iterdir() if path.is_dir()) == ["cells.dataset"]


def test_a_hubs_files_move_the_one_bar_and_end_when_it_is_stopped(cache, hub, with_registry):
    published_cells(hub)
    with_registry(entry("hub: someone/Corpus:cells.dataset"))
    with downloads.one_bar() as bar:
        bar.stopped = True
        with pytest.raises(DataError, match="one: genes: someone/Corpus:cells.dataset: cannot be fetched .*stopped"):
            fetching.fetch("one")
        bar.stopped, bar.total = False, 0
        path = fetching.fetch("one")["genes"]
        sizes = {file.stat().st_size for file in path.iterdir()}
        assert bar.total >= max(sizes)


def test_a_hubs_folder_that_is_lost_comes_again_from_its_commit(cache, hub, with_registry):
    published_cells(hub)
    with_registry(entry("hub: someone/Corpus:cells.dataset"))
    target = fetching.fetch("one")["genes"]
    shutil.rmtree(target)
    (hub.add("someone/Corpus", commit="b" * 40) / "cells.dataset").mkdir()
    hub.revisions["main"] = "b" * 40
    assert len(arrow.load_from_disk(fetching.fetch("one")["genes"])) == 2
    assert fetching.fetch_versions("one")["genes"].version == "a" * 40
    with_registry(entry(f"hub: someone/Corpus:cells.dataset, revision: {'b' * 40}"))
    with pytest.raises(DataError, match="one: genes: someone/Corpus:cells.dataset: no folder cells.dataset there"):
        fetching.fetch("one")


def test_a_hub_that_is_off_is_one_line_with_the_name_of_the_data_set(cache, hub, with_registry):
    hub.fault = 503
    with_registry(entry("hub: someone/Corpus:cells.dataset"))
    with pytest.raises(UnreachableError, match=r"^one: genes: someone/Corpus:cells.dataset: http\S+ answers 503; try"):
        fetching.fetch("one")
    assert not (cache / "one" / "genes" / "cells.dataset").exists()


def test_runs_of_a_sample_are_checked_and_joined(cache, serve):
    url, folder, asked = serve
    contents = {f"SRR{i}.fastq.gz": gzip.compress(f"@{i}\nAC\n+\nII\n".encode(), mtime=0) for i in (1, 2)}
    for name, content in contents.items():
        (folder / name).write_bytes(content)
    parts = [(f"{url}/{name}", hashlib.md5(content).hexdigest()) for name, content in contents.items()]
    target = cache / "one" / "fastq" / "GSM1.fastq.gz"
    wrong = [parts[0], (parts[1][0], "a" * 32)]
    with pytest.raises(
        DataError, match=rf"^one: {url}/SRR2\.fastq\.gz: wrong hash, MD5 is {parts[1][1]}, expected aaaa"
    ):
        fetching.fetch_joined("one", target, wrong)
    assert sorted(path.name for path in target.parent.rglob("*") if path.is_file()) == ["SRR1.fastq.gz"]
    fetching.fetch_joined("one", target, parts)
    assert gzip.decompress(target.read_bytes()) == b"@1\nAC\n+\nII\n@2\nAC\n+\nII\n"
    assert [path.name for path in target.parent.rglob("*") if path.is_file()] == ["GSM1.fastq.gz"]
    fetching.fetch_joined("one", target, parts)
    assert asked.count("/SRR1.fastq.gz") == 1, "what came is kept"


@pytest.mark.parametrize("sent", [0, 6])
def test_a_server_that_hangs_is_one_line_and_what_it_sent_is_gone_on_with(
    cache, serve, with_registry, monkeypatch, sent
):
    url, folder, _ = serve
    (folder / "genes.tsv").write_bytes(BYTES)
    serving, done = http.server.SimpleHTTPRequestHandler.do_GET, threading.Event()

    def answer(handler):
        if sent:
            handler.send_response(200)
            handler.send_header("ETag", '"one"')
            handler.send_header("Content-Length", str(len(BYTES)))
            handler.end_headers()
            handler.wfile.write(BYTES[:sent])
        done.wait(20)

    monkeypatch.setattr(http.server.SimpleHTTPRequestHandler, "do_GET", answer)
    monkeypatch.setattr(downloads, "TIMEOUT", (1, 0.3))
    with_registry(entry(f"url: {url}/genes.tsv, sha256: {SHA}"))
    started = time.perf_counter()
    with pytest.raises(
        UnreachableError, match=r"genes\.tsv: cannot be downloaded \(\w+\); retry: it goes on"
    ) as caught:
        fetching.fetch("one")
    assert time.perf_counter() - started < 5
    assert "\n" not in str(caught.value)
    assert not (cache / "one" / "genes" / "genes.tsv").exists()
    done.set()
    monkeypatch.setattr(http.server.SimpleHTTPRequestHandler, "do_GET", serving)
    assert fetching.fetch("one")["genes"].read_bytes() == BYTES
