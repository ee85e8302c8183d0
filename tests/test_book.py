"""The site, built in a copy of the checkout with a data set of one's own in it, and looked at."""

import contextlib
import fcntl
import functools
import http.server
import json
import os
import re
import shutil
import subprocess
import sys
import threading
import zipfile
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote, urlsplit

import anndata
import nbformat
import numpy as np
import pandas as pd
import pytest
import site_pages
import yaml

from epigen_utils import paths
from epigen_utils.book import runs
from epigen_utils.errors import DataError
from epigen_utils.files import sha256

#: What is built here is the building. The fast tests look at one chapter, and its twin on one's own data; the slow ones at a
#: chapter of each kind, small. All of them run in test_notebooks and in the book itself.
LEAST = {"epilepsy/02_table_two": {"main": {"dataset": "table-two", "also": "genotype"}}}
FEW = {
    "epilepsy/01_datasets": {"main": {"cohorts": ["table-two", "airway-as-mouse", "airway"]}},
    "epilepsy/02_table_two": {"main": {"dataset": "table-two", "also": "genotype"}, "airway": {"dataset": "airway"}},
    "epilepsy/03_differential_expression": {"main": {"dataset": "airway-as-mouse"}},
    "epilepsy/03a_calibration": {
        "main": {"n_seeds": 2, "n_compared": 1, "n_genes": 300, "n_changed": 30, "n_shuffles": 2, "every": 60}
    },
    "epilepsy/05_gene_sentences": {"main": {"dataset": "airway"}, "airway-as-mouse": {"dataset": "airway-as-mouse"}},
    "epilepsy/11_attention": {"main": {"n_cohorts": 0, "n_models": 1, "epochs": 2.0}},
    "epilepsy/11a_alignment": {"main": {"n_models": 2, "n_sets": 2}},
    "geneformer/01_curation": {"main": {"corpora": ["corpus-sim"]}},
    "geneformer/02_rank_value_encoding": {
        "main": {"dataset": "celltypist-immune"},
        "corpus-sim": {"dataset": "corpus-sim"},
    },
}
#: Rules of these runs.
EVERY = {
    runs.Run("demo", notebook, name, {}).rule.removeprefix("epilepsy_") for notebook, its in FEW.items() for name in its
}
REAL_ONLY = {"05_gene_sentences", "geneformer_02_rank_value_encoding"}
NASTY = "<img src=x onerror=alert(1)>"
#: Whole builds, in a copy of the checkout: what they cover stands in no import.
WHOLE_BUILD = pytest.mark.slow(
    "Snakefile",
    "workflow/",
    "book/",
    "_config.yml",
    "CONTRIBUTING.md",
    "data/claims/",
    *(f"notebooks/{notebook}.ipynb" for notebook in FEW),
    "epigen_utils/book/",
    "epigen_utils/cli.py",
    "epigen_utils/processes.py",
)
on_few = pytest.mark.parametrize("checkout", [pytest.param("few", marks=WHOLE_BUILD)], indirect=True)


def copy_of_checkout(target: Path) -> Path:
    listed = subprocess.run(
        ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"],
        cwd=paths.ROOT,
        capture_output=True,
        check=True,
    )
    for name in filter(None, listed.stdout.decode().split("\0")):
        source = paths.ROOT / name
        if source.is_file():
            (target / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(source, target / name)
    return target


def environment(checkout: Path) -> dict[str, str]:
    """The copy's package, not the installed one; and no build around this one."""
    return {key: value for key, value in os.environ.items() if key != "MAKELEVEL"} | {"PYTHONPATH": str(checkout)}


def epigen(checkout: Path, *arguments: str) -> subprocess.CompletedProcess:
    command = [sys.executable, "-m", "epigen_utils.cli", *arguments]
    return subprocess.run(command, cwd=checkout, env=environment(checkout), capture_output=True, text=True, check=False)


def planned_jobs(checkout: Path, **config: str) -> set[str]:
    """Runs that a build would do now, by rule."""
    command = [sys.executable, "-m", "snakemake", "--dry-run", "--cores", "1", "--config", "profile=demo"]
    command += [f"{name}={value}" for name, value in config.items()]
    done = subprocess.run(command, cwd=checkout, env=environment(checkout), capture_output=True, text=True, check=True)
    return set(re.findall(r"^rule (\w+):", done.stdout + done.stderr, re.M))


@pytest.fixture(scope="session")
def own_data(tmp_path_factory):
    """Cells of nobody, with a gene and a group whose names are HTML."""
    rng = np.random.default_rng(0)
    names = [f"gene{i}" for i in range(59)] + [NASTY]
    counts = rng.negative_binomial(5, 0.05, size=(8, 60))
    counts[:, -1] += 5000
    adata = anndata.AnnData(
        obs=pd.DataFrame({"condition": ["a"] * 4 + ["<b>b</b>"] * 4}, index=[f"s{i}" for i in range(8)]),
        var=pd.DataFrame(index=names),
        layers={"counts": counts},
    )
    path = tmp_path_factory.mktemp("own") / "mine.h5ad"
    adata.write_h5ad(path)
    return path


def built_copy(target: Path, chapters: dict, own_data: Path) -> Path:
    """A copy in which the book of some chapters has been built, with the part on one's own data."""
    copy = copy_of_checkout(target)
    (copy / "notebooks" / "profiles" / "demo.yml").write_text(yaml.safe_dump(chapters, sort_keys=False))
    done = epigen(copy, "build", "--dataset", str(own_data), "--group", "condition")
    assert done.returncode == 0, done.stderr[-2000:]
    return copy


@pytest.fixture(scope="session")
def least(tmp_path_factory, own_data):
    return built_copy(tmp_path_factory.mktemp("checkout"), LEAST, own_data)


@pytest.fixture(scope="session")
def few(tmp_path_factory, own_data):
    return built_copy(tmp_path_factory.mktemp("checkout"), FEW, own_data)


@pytest.fixture(scope="session", params=["least", pytest.param("few", marks=WHOLE_BUILD)])
def checkout(request):
    return request.getfixturevalue(request.param)


@pytest.fixture(scope="session")
def site(checkout):
    return checkout / "_build" / "html"


#: Links of a page's head that a browser follows by itself, or resolves the host of.
FETCHED = {"stylesheet", "icon", "preload", "modulepreload", "prefetch", "preconnect", "dns-prefetch", "manifest"}


class Page(HTMLParser):
    """What a page refers to, and the ids it has."""

    def __init__(self, path: Path):
        super().__init__()
        self.links, self.assets, self.ids, self.images, self.path = [], [], set(), [], path
        self.feed(path.read_text())

    def handle_starttag(self, tag, attributes):
        found = dict(attributes)
        self.ids |= {found[key] for key in ("id", "name") if found.get(key)}
        if tag == "a" and "href" in found:
            self.links.append(found["href"])
        if tag == "link" and FETCHED & set((found.get("rel") or "").split()):
            self.assets.append(found["href"])
        if "src" in found:
            self.assets.append(found["src"])
        if tag == "img":
            self.images.append(found)


def pages_of(site: Path) -> dict[Path, Page]:
    return {path: Page(path) for path in site.rglob("*.html") if "_static" not in path.parts}


@pytest.fixture(scope="session")
def pages(site):
    return pages_of(site)


def test_every_page_of_the_plan_is_there(site, checkout):
    for name in sorted(path.stem for path in paths.BOOK.glob("*.md")):
        assert (site / f"{name}.html").exists()
    planned = yaml.safe_load((checkout / "notebooks" / "profiles" / "demo.yml").read_text())
    for notebook, its in planned.items():
        for name in its:
            assert (site / f"{notebook}{'' if name == 'main' else f'--{name}'}.html").exists()
    for run in ("01_datasets", "02_table_two"):
        if f"epilepsy/{run}" in planned:
            assert (site / "epilepsy" / f"{run}--mine.html").exists()
    assert "Your data: mine" in (site / "intro.html").read_text()


def test_a_page_shows_only_what_is_reported(checkout):
    """A cell that ends in an axes, or leaves a figure open, would show it beside the numbered one; stderr is left out by the site."""
    for path in sorted((checkout / "results" / "demo").rglob("notebook.ipynb")):
        for cell in json.loads(path.read_text())["cells"]:
            for output in cell.get("outputs", []):
                if output.get("name") == "stderr" or "scrapbook" in output["metadata"]:
                    continue
                assert "text/markdown" in output.get("data", {}), f"{path}: {''.join(cell['source'])[-200:]}"


def test_no_remote_asset(pages):
    for page in pages.values():
        for asset in page.assets:
            assert not re.match(r"(https?:)?//", asset), f"{page.path}: {asset}"


def assert_links_resolve(pages: dict[Path, Page]):
    for path, page in pages.items():
        for link in page.links + page.assets:
            parts = urlsplit(link)
            if parts.scheme or link.startswith("#") and link in ("#", ""):
                continue
            target = (path.parent / unquote(parts.path)).resolve() if parts.path else path
            target = target / "index.html" if target.is_dir() else target
            assert target.exists(), f"{path}: {link}"
            if parts.fragment and target in pages:
                assert unquote(parts.fragment) in pages[target].ids, f"{path}: {link}"


def test_every_link_and_asset_is_there(pages):
    assert_links_resolve(pages)


def test_figures_are_numbered_captioned_and_described(site, pages):
    page = pages[site / "epilepsy" / "02_table_two.html"]
    text = page.path.read_text()
    chapter = 2 if (site / "epilepsy" / "01_datasets.html").exists() else 1
    assert re.findall(r'caption-number">Figure (\d\.\d)', text) == [f"{chapter}.{i}" for i in range(1, 6)]
    assert len(re.findall(r'caption-number">Table \d', text)) == 3
    figures = [image for image in page.images if "_images" in image["src"]]
    assert len(figures) == 5
    assert all(len(image["alt"]) > 20 for image in figures)


def test_under_each_figure_its_data_code_and_hash(site, checkout):
    text = (site / "epilepsy" / "02_table_two.html").read_text()
    folder = checkout / "results" / "demo" / "epilepsy" / "02_table_two" / "main" / "figures"
    for table in sorted(folder.glob("*.csv")):
        assert re.search(rf'href="\.\./_downloads/\w+/{table.name}"', text), table.name
    assert text.count("Data, code and hash") == 5
    assert "epigen_utils.plots.heatmaps.clustered_heatmap" in text


def test_banner_values_provenance_and_bundle(site):
    text = (site / "epilepsy" / "02_table_two.html").read_text()
    assert "Real data: " in text
    assert "tag_injected-parameters" in text
    for word in ("commit", "wall time", "seed", "SHA-256 of table-two", "scikit-learn", "bundle.zip"):
        assert word in text, word


@on_few
def test_a_banner_says_whether_data_are_real(site):
    text = (site / "epilepsy" / "02_table_two--airway.html").read_text()
    assert "Real data: Airway smooth muscle cells" in text
    assert "SHA-256 of airway" in text
    assert "Simulated data" in (site / "epilepsy" / "01_datasets.html").read_text()


def assert_names_are_text(page, shown):
    text = page.read_text()
    assert NASTY not in text
    assert "<b>b</b>" not in text
    assert shown in text


def test_names_that_are_html_appear_as_text(site):
    assert_names_are_text(site / "epilepsy" / "02_table_two--mine.html", "&lt;img src=x onerror=alert(1)&gt;")


@on_few
def test_groups_whose_names_are_html_appear_as_text(site):
    assert_names_are_text(site / "epilepsy" / "01_datasets--mine.html", "&lt;b&gt;b&lt;/b&gt; 4")


def test_where_ones_file_lies_is_not_published(site, own_data):
    pages = list((site / "epilepsy").glob("*--mine.html"))
    assert pages
    for page in pages:
        assert str(own_data.parent) not in page.read_text()


def test_claims_have_cards_with_the_verdicts_of_this_build(site, checkout):
    text = (site / "claims.html").read_text()
    table = pd.read_csv(checkout / "results" / "demo" / "claims.csv").set_index("id")
    assert len(table) >= 100
    cards = {card[1]: card[0] for card in re.finditer(r'<article [^>]*id="claim-([^"]+)".*?</article>', text, re.S)}
    assert list(cards) == [name.replace(".", "-") for name in table.index]
    for name, row in table.iterrows():
        assert row["verdict"].split(":")[0] in cards[name.replace(".", "-")]
    assert table.loc["A5a", "verdict"] == "inconsistent in the paper"
    chapter = (site / "epilepsy" / "02_table_two.html").read_text()
    assert 'href="../claims.html#claim-A5a"' in chapter
    decided = re.search(r'href="(epilepsy/02_table_two.html)#([^"]+)"', cards["A5a"])
    assert f'id="{decided[2]}"' in chapter, "the card leads to the figure or table that decides it"


@on_few
def test_the_bundle_runs_the_page_again(checkout, tmp_path):
    results = checkout / "results" / "demo" / "epilepsy" / "02_table_two" / "main"
    shutil.unpack_archive(results / "bundle.zip", tmp_path)
    command = [
        sys.executable,
        "-m",
        "papermill",
        "notebooks/epilepsy/02_table_two.ipynb",
        "out.ipynb",
        "-f",
        "parameters.yml",
    ]
    done = subprocess.run(command, cwd=tmp_path, env=environment(tmp_path), capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-2000:]
    again = json.loads((tmp_path / "results" / "alone" / "epilepsy" / "02_table_two" / "metrics.json").read_text())
    first = json.loads((results / "metrics.json").read_text())
    for metric in (*again["metrics"].values(), *first["metrics"].values()):
        metric.pop("at", None)  # labels have the name of the run
    assert again["metrics"] == first["metrics"]
    assert again["datasets"] == first["datasets"]


def test_a_second_build_does_nothing(least, own_data):
    for path in [*(least / "epigen_utils").rglob("*.py"), least / "notebooks" / "epilepsy" / "02_table_two.ipynb"]:
        path.touch()  # a time stamp alone is no cause
    written = [least / "_build" / "html" / "index.html", *(least / "results").rglob("metrics.json")]
    assert len(written) == 3
    before = [path.stat().st_mtime_ns for path in written]
    done = epigen(least, "build", "--dataset", str(own_data), "--group", "condition")
    assert done.returncode == 0, done.stderr[-2000:]
    assert [path.stat().st_mtime_ns for path in written] == before


def test_the_site_is_passed_on_as_one_zip(least, own_data, tmp_path):
    options = ["build", "--dataset", str(own_data), "--group", "condition", "--zip"]
    done = epigen(least, *options, str(tmp_path / "book.zip"))
    assert done.returncode == 0, done.stderr[-2000:]
    shutil.unpack_archive(tmp_path / "book.zip", tmp_path / "book")
    found = pages_of(tmp_path / "book")
    assert {"index.html", "02_table_two--mine.html"} <= {path.name for path in found}
    assert_links_resolve(found)
    inside = [path.name for path in (tmp_path / "book").rglob("*")]
    for bundle in (tmp_path / "book").rglob("*.zip"):
        inside += [Path(name).name for name in zipfile.ZipFile(bundle).namelist()]
    assert own_data.name not in inside
    assert "inputs.json" in inside
    readme = (tmp_path / "book" / "README.txt").read_text()
    assert "    epigen build --dataset mine.h5ad --group condition --zip book.zip\n" in readme
    assert f"{sha256(own_data)}  data/mine/dataset/mine.h5ad\n" in readme


@contextlib.contextmanager
def changed_file(path: Path, change):
    """A file with other bytes, and as before afterwards."""
    before, stat = path.read_bytes(), path.stat()
    try:
        path.write_bytes(change(before))
        yield
    finally:
        path.write_bytes(before)
        os.utime(path, (stat.st_atime, stat.st_mtime))


def redone(checkout: Path, **config: str) -> set[str]:
    """Runs of notebooks that a build would do now, by rule."""
    return {rule.removeprefix("epilepsy_") for rule in planned_jobs(checkout, **config)} - {"site", "all"}


def test_snakemake_redoes_what_a_change_touches_and_no_more(least, own_data):
    """One dry run of several: a parameter of the one run; the other has the same notebook and modules, and stays done."""
    own = json.dumps([{"dataset": str(own_data), "group": "condition"}])
    profile = least / "notebooks" / "profiles" / "demo.yml"
    with changed_file(profile, lambda text: text + b"    n_top: 20\n"):
        assert redone(least, own=own) == {"02_table_two"}
    with changed_file(least / "epigen_utils" / "plots" / "heatmaps.py", lambda text: text + b"\n"):
        assert redone(least, own=own) == {"02_table_two", "02_table_two__mine"}


CHANGES = pytest.mark.parametrize(
    ("changed", "expected"),
    [
        ("notebooks/epilepsy/02_table_two.ipynb", {"02_table_two", "02_table_two__airway"}),
        (
            "epigen_utils/data/simulated_bulk.py",
            {run for run in EVERY if run[:2] != "02"} - REAL_ONLY,
        ),
        (
            "epigen_utils/stats/permutation.py",
            {run for run in EVERY if not run.startswith(("01", "05"))}
            - {run for run in EVERY if "geneformer_01" in run},
        ),
        ("epigen_utils/stats/attainable.py", {"02_table_two", "02_table_two__airway"}),
        (
            "epigen_utils/stats/two_classes.py",
            {run for run in EVERY if run.startswith(("11", "geneformer_02"))},
        ),
        ("epigen_utils/plots/attention_plots.py", {"11_attention", "11a_alignment"}),
        ("epigen_utils/plots/sentence_plots.py", {run for run in EVERY if run.startswith("05")}),
        ("epigen_utils/plots/heatmaps.py", {"02_table_two", "02_table_two__airway"}),
        ("epigen_utils/cli.py", set()),
        ("data/claims/epilepsy_02_table_two.csv", {"02_table_two", "02_table_two__airway"}),
        ("epigen_utils/data/schema.py", EVERY),
    ],
)


@pytest.fixture
def planned_few(tmp_path, monkeypatch):
    """Runs of the larger book, planned and not run."""
    monkeypatch.setattr(paths, "PROFILES", tmp_path)
    (tmp_path / "few.yml").write_text(yaml.safe_dump(FEW, sort_keys=False))
    return runs.plan_runs("few")


@CHANGES
def test_a_run_depends_on_what_it_uses_and_no_more(planned_few, changed, expected):
    """What Snakemake is told; that it acts on it, the test before and the slow one after this show."""
    assert (paths.ROOT / changed).exists()
    depending = {run.rule.removeprefix("epilepsy_") for run in planned_few if paths.ROOT / changed in run.sources}
    assert depending == expected


@pytest.fixture(scope="session")
def demo(few):
    """The larger book, built again without one's own data, after every test that looks at that part."""
    shutil.copytree(few / "_build" / "html", few / "site-with-own-part")
    done = epigen(few, "build")
    assert done.returncode == 0, done.stderr[-2000:]
    return few


@WHOLE_BUILD
def test_without_the_option_the_part_is_gone(demo):
    site = demo / "_build" / "html"
    assert not (site / "epilepsy" / "02_table_two--mine.html").exists()
    assert "Your data: mine" not in (site / "intro.html").read_text()


@WHOLE_BUILD
def test_nothing_is_done_twice(demo):
    assert planned_jobs(demo) == set()
    for path in (demo / "epigen_utils").rglob("*.py"):
        path.touch()
    (demo / "notebooks" / "epilepsy" / "02_table_two.ipynb").touch()
    assert planned_jobs(demo) == set(), "a time stamp alone is no cause"


@WHOLE_BUILD
@CHANGES
def test_a_change_redoes_what_depends_on_it_and_no_more(demo, changed, expected):
    def change(before):
        return before.replace(b"\n", b"\n\n", 1) if changed.endswith(".ipynb") else before + b"\n"

    with changed_file(demo / changed, change):
        assert redone(demo) == expected


@WHOLE_BUILD
def test_a_changed_parameter_redoes_its_run(demo):
    path = demo / "notebooks" / "profiles" / "demo.yml"
    before = path.read_text()
    try:
        path.write_text(before.replace("dataset: airway", "dataset: airway\n    n_top: 20", 1))
        assert planned_jobs(demo) & {"epilepsy_02_table_two", "epilepsy_02_table_two__airway"} == {
            "epilepsy_02_table_two__airway"
        }
        path.write_text(before.replace("dataset: airway", "datset: airway", 1))
        done = epigen(demo, "build")
        assert done.returncode == 1
        assert "unknown parameter 'datset'; did you mean 'dataset'?" in done.stderr
        assert done.stderr.count("\n") == 1
    finally:
        path.write_text(before)


def test_a_second_build_at_once_is_refused_in_one_line(least):
    with open(least / "_build" / "build.lock", "a") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        done = epigen(least, "build")
    assert done.returncode == 1
    assert re.fullmatch(
        r"epigen: another build is running here \(process \d+\); wait for it, or stop it\n", done.stderr
    )


def test_a_run_that_fails_leaves_nothing_under_its_final_name(tmp_path, monkeypatch):
    """A notebook of two lines, by a kernel."""
    monkeypatch.setattr(paths, "NOTEBOOKS", tmp_path / "notebooks")
    monkeypatch.setattr(paths, "RESULTS", tmp_path / "results")
    source = tmp_path / "notebooks" / "epilepsy" / "99_fails.ipynb"
    source.parent.mkdir(parents=True)
    parameters = nbformat.v4.new_code_cell("seed: int = 0  # not used")
    parameters.metadata["tags"] = ["parameters"]
    fails = nbformat.v4.new_code_cell("from epigen_utils.errors import DataError\nraise DataError('no column; add it')")
    python = {"language_info": {"name": "python"}}
    nbformat.write(nbformat.v4.new_notebook(cells=[parameters, fails], metadata=python), source)
    run = runs.Run("mine", "epilepsy/99_fails", "main", {"seed": 1})
    with pytest.raises(DataError) as caught:
        runs.execute_run(run, 1)
    assert str(caught.value) == f"epilepsy/99_fails: no column; add it (traceback: {run.log})"
    assert "no column; add it" in run.log.read_text()
    assert not run.executed.exists()
    assert run.executed.with_name("notebook.failed.ipynb").exists()


@WHOLE_BUILD
def test_a_failing_notebook_is_said_in_one_line_and_leaves_nothing_under_its_final_name(demo):
    profile = demo / "notebooks" / "profiles" / "broken.yml"
    profile.write_text("epilepsy/02_table_two:\n  main: {dataset: table-two, group: tissue}\n")
    done = epigen(demo, "build", "--profile", "broken")
    assert done.returncode == 1
    first, last = done.stderr.splitlines()
    assert first.startswith("epigen: epilepsy/02_table_two: table-two: obs: no group column 'tissue'")
    assert "the build stopped" in last
    results = demo / "results" / "broken" / "epilepsy" / "02_table_two" / "main"
    assert not (results / "notebook.ipynb").exists()
    assert not (results / "metrics.json").exists()


@pytest.fixture(scope="session")
def address(checkout):
    kept = checkout / "site-with-own-part"  # of before `demo`
    handler = functools.partial(QuietHandler, directory=str(kept if kept.exists() else checkout / "_build" / "html"))
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()
    server.server_close()


class QuietHandler(http.server.SimpleHTTPRequestHandler):
    def log_message(self, *_):
        pass


@pytest.mark.parametrize("width", [1366, 390])
@pytest.mark.parametrize(
    "name", ["epilepsy/02_table_two", "epilepsy/02_table_two--mine", "claims", "intro", "verdict-a"]
)
def test_in_a_browser(browser, address, name, width):
    assert_page_is_good(browser, address, name, width)


def test_no_page_asks_another_server(browser, address, pages, site):
    """Every request of every page, and of its search."""
    page, asked = browser.new_page(), []
    page.on("request", lambda request: asked.append(request.url))
    page.on("websocket", lambda opened: asked.append(opened.url))
    for path in pages:
        page.goto(f"{address}/{path.relative_to(site)}")
    page.goto(f"{address}/search.html?q=gene")
    page.locator("#search-results li").first.wait_for()
    page.close()
    assert len(asked) > 10 * len(pages)
    assert {url for url in asked if not url.startswith((f"{address}/", "data:", "blob:"))} == set()


@on_few
@pytest.mark.parametrize("width", [1366, 390])
def test_wide_tables_in_a_browser(browser, address, width):
    assert_page_is_good(browser, address, "epilepsy/03a_calibration", width)


def assert_page_is_good(browser, address, name, width):
    page = browser.new_page(viewport={"width": width, "height": 900})
    errors = []
    page.on("console", lambda message: errors.append(message.text) if message.type == "error" else None)
    page.on("pageerror", lambda error: errors.append(str(error)))
    page.on("request", lambda request: None if request.url.startswith(address) else errors.append(request.url))
    page.on("dialog", lambda dialog: (errors.append(dialog.message), dialog.dismiss()))
    page.goto(f"{address}/{name}.html")
    page.wait_for_timeout(500)
    assert errors == []
    assert page.evaluate("document.documentElement.scrollWidth") <= width, "the page scrolls sideways"
    if name.startswith("epilepsy"):
        injected = page.locator(".tag_injected-parameters")
        before = injected.evaluate("cell => getComputedStyle(cell, '::before').content")
        assert before == '"Values used for this run"'
    for theme in ("light", "dark"):
        page.evaluate(f"document.documentElement.dataset.theme = '{theme}'")
        contrast = page.evaluate(CONTRAST)
        assert contrast > 4.5, f"{theme}: text against background {contrast:.1f}"
        filters = page.evaluate(
            "[...document.querySelectorAll('img.epigen-figure')].map(x => getComputedStyle(x).filter)"
        )
        assert set(filters) <= {"none"}
    page.close()


@pytest.mark.parametrize("width", site_pages.WIDTHS)
def test_every_page_is_light_asks_no_server_and_can_be_used_by_all(browser, site, width):
    seen = {path: site_pages.examine(browser, path, width, ("light",)) for path in site_pages.pages_of(site)}
    assert {path.name: problems for path, about in seen.items() if (problems := site_pages.problems(about))} == {}


def test_a_link_shows_what_it_leads_to_from_a_file(browser, site):
    page = browser.new_page(viewport={"width": 1366, "height": 900})
    page.goto((site / "intro.html").as_uri())
    link, preview = page.locator(".bd-article a[href*='bibliography.html#']").first, page.locator("#epigen-preview")
    link.hover()
    preview.wait_for(state="visible")
    assert "2025" in preview.inner_text()
    assert link.get_attribute("aria-describedby") == "epigen-preview"
    page.keyboard.press("Escape")
    assert not preview.is_visible()
    link.focus()
    preview.wait_for(state="visible")
    page.close()


def test_the_ledger_is_filtered_from_a_file_by_address_and_keyboard(browser, site):
    page = browser.new_page(viewport={"width": 390, "height": 900})
    address = (site / "claims.html").as_uri()
    page.goto(f"{address}?paper=A&verdict=inconsistent+in+the+paper")
    cards, visible = page.locator(".epigen-claim"), page.locator(".epigen-claim:visible")
    page.locator(".epigen-filter").wait_for()
    assert 0 < visible.count() < cards.count()
    for field, value in (("paper", "A"), ("verdict", "inconsistent in the paper")):
        assert set(visible.evaluate_all(f"found => found.map(card => card.dataset.{field})")) == {value}
    assert page.locator(".epigen-filter output").inner_text() == f"{visible.count()} of {cards.count()} claims"
    page.get_by_role("button", name="Show all").press("Enter")
    page.get_by_text(f"{cards.count()} of {cards.count()} claims").wait_for()
    page.locator("select[name=paper]").press("B")
    page.get_by_text(re.compile(r"^(?!0 )\d+ of")).wait_for()
    assert page.evaluate("location.search") == "?paper=B"
    page.close()


def test_a_link_to_a_claim_shows_its_card(browser, site):
    page = browser.new_page(viewport={"width": 1366, "height": 900})
    page.goto(f"{(site / 'claims.html').as_uri()}#claim-A5a")
    page.wait_for_timeout(300)
    place = page.locator("#claim-A5a").bounding_box()
    assert 0 <= place["y"] < 900
    page.close()


def test_the_ledger_is_a_plain_list_without_scripts(browser, site):
    context = browser.new_context(java_script_enabled=False)
    page = context.new_page()
    page.goto((site / "claims.html").as_uri())
    assert not page.locator(".epigen-filter").is_visible()
    assert page.locator(".epigen-claim:visible").count() == page.locator(".epigen-claim").count() > 100
    context.close()


@on_few
def test_the_gene_table_is_searched_and_sorted_from_a_file(browser, site):
    """No server: the rows come by a script, and only when they are asked for."""
    page = browser.new_page(viewport={"width": 390, "height": 900})
    errors = []
    page.on("pageerror", lambda error: errors.append(str(error)))
    page.goto((site / "epilepsy" / "03_differential_expression.html").as_uri())
    box = page.locator(".epigen-search").first
    assert box.locator("tbody tr").count() == 0
    box.locator(".epigen-search-open").click()
    box.locator("tbody tr").first.wait_for()
    assert box.locator("tbody tr").count() == 15
    box.locator("input").fill("gria1")
    box.get_by_text("1 to 1 of 1 rows").wait_for()
    assert "Gria1" in box.locator("tbody tr").inner_text()
    box.locator("input").fill("no such gene at all")
    box.get_by_text("no such gene", exact=True).wait_for()
    box.locator("input").fill("")
    box.get_by_role("button", name="baseMean").click()
    heads = box.locator("thead th")
    column = [heads.nth(i).inner_text() for i in range(heads.count())].index("baseMean")
    lowest = [float(x) for x in box.locator(f"tbody td:nth-child({column + 1})").all_inner_texts()]
    assert lowest == sorted(lowest)
    box.get_by_role("button", name="Next").click()
    box.get_by_text("16 to 30 of").wait_for()
    assert page.evaluate("document.documentElement.scrollWidth") <= 390
    assert errors == []
    page.close()


@on_few
@pytest.mark.parametrize("width", [1366, 390])
def test_points_say_their_names_from_a_file(browser, site, width):
    page = browser.new_page(viewport={"width": width, "height": 900})
    page.goto((site / "epilepsy" / "11_attention.html").as_uri())
    point = page.locator("svg.epigen-hover .point").last
    said = point.locator("text")
    assert not said.is_visible()
    point.locator("circle").hover()
    said.wait_for()
    name, values = said.text_content().rsplit(": ", 1)
    assert name
    assert len([float(value) for value in values.split(", ")]) == 2
    page.close()


#: WCAG contrast of the article's text against the page.
CONTRAST = """() => {
  const light = c => { const [r, g, b] = c.match(/[\\d.]+/g).map(x => { x /= 255; return x <= .03928 ? x / 12.92 : ((x + .055) / 1.055) ** 2.4; });
    return .2126 * r + .7152 * g + .0722 * b; };
  const text = light(getComputedStyle(document.querySelector('.bd-article p')).color);
  const page = light(getComputedStyle(document.body).backgroundColor);
  return (Math.max(text, page) + .05) / (Math.min(text, page) + .05);
}"""
