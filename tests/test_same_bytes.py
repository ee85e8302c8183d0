"""Two builds of the same sources are the same bytes, measured times apart, and ask no server."""

import json
import os
import shutil
import subprocess
import sys
import textwrap
import zipfile

import nbformat
import pytest
import same_bytes
import yaml
from test_book import WHOLE_BUILD, copy_of_checkout, environment

from epigen_utils import paths
from epigen_utils.book import site

TABLE = "<table>\n<tr><th class='head'><p>step</p></th>\n<th><p>seconds</p></th></tr>\n<tr><td><p>fit</p></td>\n<td><p>{seconds}</p></td></tr>\n</table>"
PAGE = '<html><p>It took <span class="pasted-text">{minutes}</span> minutes; <span class="pasted-text">{auc}</span>.</p>\n{table}<table><tr><td>commit</td><td>{commit}</td></tr><tr><td>wall time</td><td>{seconds} s</td></tr></table></html>\n'


def tree(folder, *, seconds="3.1", minutes="0.1", auc="0.81", commit="abc", image=b"one", plain=b"one", member="one"):
    """A checkout with one run and its page."""
    run, built = folder / "results" / "demo" / "a" / "b" / "main", folder / "_build" / "html"
    for place in (run / "tables", run / "figures", built / "a", built / "_sources" / "a", built / "_images"):
        place.mkdir(parents=True, exist_ok=True)
    metrics = {"auc": {"value": float(auc)}, "times_plain": {"value": float(seconds)}}
    (run / "metrics.json").write_text(json.dumps({"metrics": metrics, "wall_seconds": float(seconds), "memory": 1.0}))
    (run / "log.txt").write_text(seconds)
    (run / "tables" / "steps.csv").write_text(f'step,seconds\n"fit, once",{seconds}\n{auc},1\n')
    for name, head, content in (("speed", "seconds", image), ("plain", "auc", plain)):
        (run / "figures" / f"{name}.csv").write_text(f"x,{head}\n")
        (run / "figures" / f"{name}.png").write_bytes(content)
        (built / "_images" / f"{name}.png").write_bytes(content)
    (folder / "results" / "demo" / "claims.csv").write_text(
        f"id,metric,reproduced\nA1,a/b:training_minutes,{minutes}\nA2,a/b:auc,{auc}\n"
    )
    with zipfile.ZipFile(run / "bundle.zip", "w") as bundle:
        bundle.writestr(zipfile.ZipInfo("first.txt"), "same")
        bundle.writestr(zipfile.ZipInfo("second.txt"), member)
    table = TABLE.format(seconds=seconds)
    (built / "a" / "b.html").write_text(
        PAGE.format(seconds=seconds, minutes=minutes, auc=auc, commit=commit, table=table)
    )
    prose = "It took {glue:text}`training_minutes:.1f` minutes; {glue:text}`auc:.2f`."
    shown = {"text/markdown": f"| step | seconds |\n| --- | --- |\n| fit | {seconds} |\n", "text/html": table}
    glued = nbformat.v4.new_output(
        "display_data",
        {"application/papermill.record/text/plain": minutes},
        metadata={"scrapbook": {"name": "application/papermill.record/training_minutes"}},
    )
    outputs = [nbformat.v4.new_output("display_data", shown), glued]
    cells = [nbformat.v4.new_markdown_cell(prose, id="a"), nbformat.v4.new_code_cell("", outputs=outputs, id="b")]
    nbformat.write(nbformat.v4.new_notebook(cells=cells), built / "_sources" / "a" / "b.ipynb")
    word = seconds.partition(".")[0]
    (built / "searchindex.js").write_text(f'Search.setIndex({{"terms": {{"{word}": [1, 2], "auc": {len(commit)}}}}})')
    rows = json.dumps({"columns": ["step", "seconds"], "rows": [["fit", float(seconds)]]})
    (built / "a" / "steps.js").write_text(f"epigenRows({rows});\n")
    return folder


def test_what_is_measured_may_differ_and_nothing_else(tmp_path, capsys, monkeypatch):
    old = tree(tmp_path / "old")
    new = tree(tmp_path / "new", seconds="155.4", minutes="2.5", image=b"two")
    assert same_bytes.differences(old, new, "demo") == []
    monkeypatch.setattr(sys, "argv", ["same_bytes.py", str(old), str(new)])
    assert same_bytes.main() == 0
    tree(new, auc="0.82", commit="defg", plain=b"onf", member="two")
    (new / "_build" / "html" / "left.html").touch()
    files = {found.partition(": ")[0]: found.partition(": ")[2] for found in same_bytes.differences(old, new, "demo")}
    html, run = "_build/html", "results/demo/a/b/main"
    assert set(files) == {
        f"{html}/_images/plain.png",
        f"{html}/a/b.html",
        f"{html}/left.html",
        f"{html}/searchindex.js",
        "results/demo/claims.csv",
        *(f"{run}/{name}" for name in ("bundle.zip", "figures/plain.png", "metrics.json", "tables/steps.csv")),
    }
    assert files[f"{run}/figures/plain.png"] == "byte 2"
    assert files[f"{run}/bundle.zip"] == "1 members, second.txt first"
    assert files[f"{run}/tables/steps.csv"] == "line 3: '0.81,' -> '0.82,'"
    assert files[f"{html}/left.html"] == f"only in {new}"
    assert files["results/demo/claims.csv"] == "line 3: 'A2,a/b:auc,0.81' -> 'A2,a/b:auc,0.82'"
    assert same_bytes.main() == 1
    assert capsys.readouterr().out.splitlines()[-1].endswith(" files, 9 differ")


def test_two_folders_without_a_build_are_not_the_same(tmp_path, monkeypatch):
    monkeypatch.setattr(sys, "argv", ["same_bytes.py", str(tmp_path), str(tmp_path)])
    assert same_bytes.main() == 1


def test_a_page_has_neither_times_nor_random_ids_in_its_source(tmp_path, monkeypatch):
    """Papermill adds a cell with a random id, and to each cell when it ran; libraries log with times."""
    from epigen_utils.book import runs

    monkeypatch.setattr(paths, "RESULTS", tmp_path)
    run, pages = runs.Run("demo", "epilepsy/02_table_two", "main", {}), []
    run.results.mkdir(parents=True)
    for when in ("2026", "2027"):
        cells = [nbformat.v4.new_markdown_cell("# Table II", id="a"), nbformat.v4.new_code_cell("dataset = 'x'")]
        cells[1].outputs = [nbformat.v4.new_output("stream", name="stderr", text=f"{when} [WARNING] found")]
        cells[1].metadata |= {"tags": ["injected-parameters"], "execution": {"iopub.execute_input": when}}
        cells[0].metadata["papermill"] = {"start_time": when}
        nbformat.write(
            nbformat.v4.new_notebook(cells=cells, metadata={"papermill": {"start_time": when}}), run.executed
        )
        pages.append(site._page_content(run, {run.key}))
    assert pages[0] == pages[1]


#: Writes down each address outside this machine that a process of Python connects to or asks the name of.
GUARD = """
import os, sys

def watch(event, given):
    if event in ("socket.connect", "socket.sendto") and isinstance(given[1], tuple):
        host = given[1][0]
    elif event == "socket.getaddrinfo":
        host = given[0]
    else:
        return
    if host not in (None, "", "localhost", "127.0.0.1", "::1", "0.0.0.0", os.uname().nodename):
        with open({asked!r}, "a") as stream:
            stream.write(f"{{event}} {{host}} {{sys.argv}}\\n")

sys.addaudithook(watch)
"""
#: Runs a command where there is no network but this machine's loopback, which it brings up (SIOCSIFFLAGS, IFF_UP).
ALONE = """
import fcntl, os, socket, struct, sys
with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as any_socket:
    fcntl.ioctl(any_socket, 0x8914, struct.pack("16sH14x", b"lo", 1))
os.execv(sys.argv[1], sys.argv[1:])
"""
CUT = ["unshare", "--net", "--map-root-user"]
PROFILE = {
    "epilepsy/02_table_two": {"main": {"dataset": "table-two", "also": "genotype"}, "airway": {"dataset": "airway"}},
    "epilepsy/03_differential_expression": {"main": {"dataset": "airway-as-mouse"}},
    "geneformer/02_rank_value_encoding": {"main": {"dataset": "corpus-sim"}},
}


def build(copy, cores, *, before=(), **variables):
    command = [*before, sys.executable, "-m", "epigen_utils.cli", "build", "--profile", "small", "--cores", str(cores)]
    found = environment(copy) | variables
    done = subprocess.run(command, cwd=copy, env=found, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-2000:]


@pytest.fixture(scope="module")
def checkout(tmp_path_factory):
    """A book built with two jobs at a time; its data are in the cache now."""
    copy = copy_of_checkout(tmp_path_factory.mktemp("two") / "checkout")
    (copy / "notebooks" / "profiles" / "small.yml").write_text(yaml.safe_dump(PROFILE))
    build(copy, 2)
    return copy


@WHOLE_BUILD
@pytest.mark.slow("tests/same_bytes.py")
def test_one_job_at_a_time_and_no_network_give_the_same_bytes(checkout, tmp_path):
    """In another folder. The network is cut where that is permitted; who asks for another machine is seen anywhere."""
    copy, asked = copy_of_checkout(tmp_path / "elsewhere" / "copy"), tmp_path / "asked"
    shutil.copy(checkout / "notebooks" / "profiles" / "small.yml", copy / "notebooks" / "profiles")
    (tmp_path / "guard").mkdir()
    (tmp_path / "guard" / "sitecustomize.py").write_text(textwrap.dedent(GUARD.format(asked=str(asked))))
    tried = shutil.which("unshare") and subprocess.run([*CUT, "true"], capture_output=True, check=False)
    before = [*CUT, sys.executable, "-c", ALONE] if tried and tried.returncode == 0 else []
    build(copy, 1, before=before, PYTHONPATH=f"{tmp_path / 'guard'}{os.pathsep}{copy}", EPIGEN_DATA_MIRROR="")
    assert not asked.exists(), asked.read_text()
    assert same_bytes.differences(checkout, copy, "small") == []
    # The guard sees what it is to see.
    code = "import socket\ntry: socket.create_connection(('192.0.2.1', 9), 0.01)\nexcept OSError: pass"
    subprocess.run([sys.executable, "-c", code], env={"PYTHONPATH": str(tmp_path / "guard")}, check=True)
    assert "192.0.2.1" in asked.read_text()
