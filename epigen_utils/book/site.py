"""From runs to a site: copy pages into the book, derive its table of contents from the plan, run Sphinx."""

import ast
import json
import os
import re
import shutil
import subprocess
import sys
import time
from collections.abc import Collection
from pathlib import Path

import nbformat
import yaml
from tqdm import tqdm

from epigen_utils import paths
from epigen_utils.book import claims, coverage, ledger, markup, notebooks, progress, recorded, verdict_pages
from epigen_utils.book.runs import Run, missing_tools, user_run, user_run_names, without_missing_tools
from epigen_utils.errors import DataError, first_error
from epigen_utils.files import folder_lock, read_json, sha256, whole_folder, write_atomically, write_json

#: What stands in a page on the user's data for a number, figure or table that these data do not give.
NOT_GIVEN = "*not from these data*"
#: The page that sets several data sets of the user's side by side.
SIDE_BY_SIDE = "_generated/side-by-side"


def publish_pages(
    planned: list[Run],
    pending: Collection[str] = (),
    missing_programs: dict[str, list[str]] | None = None,
    *,
    user_runs: Collection[str] = (),
) -> None:
    """Copy executed notebooks into the book, and remove pages of runs that are no longer planned.

    In the copy, ``{numref}`fig:pca` `` and ``{ref}`fig:pca` `` refer to the figure of the same run, the title of a run
    other than ``main`` contains its name, and a link to a chapter that has no page is that chapter's title.

    Parameters
    ----------
    pending
        Keys of runs that are not finished; their pages say so.
    missing_programs
        Notebook -> programs that it calls and that are not installed; its pages say so.
    user_runs
        Names of the runs on the user's data, whose prose may refer to what these data do not give.
    """
    pages = {run.page for run in planned}
    for page in paths.BOOK.glob("*/*.ipynb"):
        if page not in pages:
            page.unlink()
    for run in planned:
        if tools := (missing_programs or {}).get(run.notebook):
            content = _notice_page(
                run,
                f"This chapter is not in this build: {', '.join(tools)} not installed; `make tools` brings them, as "
                "root or by conda.",
            )
        elif run.key in pending:
            content = _notice_page(
                run, "This chapter is still to come: its run has not ended. `make book` runs it and puts it here."
            )
        else:
            content = _page_content(run, {run.key for run in planned}, of_user=run.name in user_runs)
        run.page.with_suffix(".md").unlink(missing_ok=True)  # a notice, as earlier versions wrote it
        if not run.page.exists() or run.page.read_text() != content:
            write_atomically(run.page, content)


def _notice_page(run: Run, notice: str) -> str:
    """A page with the title of a run's page and one sentence."""
    title = notebooks.notebook_title(run.source)
    if run.name != "main":
        title += f": {markup.escape_text(run.name)}"
    cell = nbformat.v4.new_markdown_cell(f"# {title}\n\n{notice}", id="notice")
    return nbformat.writes(nbformat.v4.new_notebook(cells=[cell]))


def _page_content(run: Run, planned_keys: Collection[str], *, of_user: bool = False) -> str:
    notebook = _executed(run)
    places = _places(notebook)
    notebook["metadata"].pop("papermill", None)
    titled = run.name == "main"
    for cell in notebook["cells"]:
        for timed in ("papermill", "execution"):
            cell["metadata"].pop(timed, None)
        if "outputs" in cell:
            # No page shows it, and libraries write times and folders there.
            cell["outputs"] = [output for output in cell["outputs"] if output.get("name") != "stderr"]
        if "injected-parameters" in cell["metadata"].get("tags", []):
            cell["id"] = "parameters"  # papermill's is random
            # The site may be public: paths of the user's files are reduced to file names.
            cell["source"] = re.sub(r"\"/[^\"]*/([^\"/]+)\"", r'"\1"', "".join(cell["source"]))
        if cell["cell_type"] == "markdown":
            text = "".join(cell["source"])
            text = _with_labels(text, run.key, places if of_user else None)
            text = _titles_of_absent_chapters(text, planned_keys)
            if not titled and text.startswith("# "):
                title, _, rest = text.partition("\n")
                text, titled = f"{title}: {markup.escape_text(run.name)}\n{rest}", True
            cell["source"] = text
    return json.dumps(notebook, indent=1, ensure_ascii=False)


def _executed(run: Run) -> dict:
    """The executed notebook of a run."""
    content = read_json(run.executed, claims.REMEDY)
    cells = content.get("cells")
    if not isinstance(cells, list) or not all(
        isinstance(cell, dict) and {"cell_type", "source"} <= set(cell) for cell in cells
    ):
        raise DataError(f"{run.executed}: is no notebook; {claims.REMEDY}")
    return content


def _with_labels(text: str, key: str, places: set[str] | None) -> str:
    """Prose whose references are to the figures and tables of its run.

    Parameters
    ----------
    places
        What the page has (`_places`), where prose may refer to what it has not; None where it may not.
    """

    def labelled(match: re.Match) -> str:
        name = markup.output_label(key, match[2], match[3])
        return f"{match[1]}{name}`" if places is None or name in places else NOT_GIVEN

    if places is not None:
        text = re.sub(r"\{glue:text\}`(\w+)[^`]*`", lambda match: match[0] if match[1] in places else NOT_GIVEN, text)
    return re.sub(r"(\{(?:num)?ref\}`)(fig|tab):(\w+)`", labelled, text)


def _titles_of_absent_chapters(text: str, planned_keys: Collection[str]) -> str:
    """Prose in which a link to a chapter without a page in this build is that chapter's title."""

    def link_or_title(match: re.Match) -> str:
        source = paths.NOTEBOOKS / f"{match[1]}.ipynb"
        return match[0] if match[1] in planned_keys or not source.exists() else f"*{notebooks.notebook_title(source)}*"

    return re.sub(r"\{doc\}`/(\w+/\w+)`", link_or_title, text)


def _places(notebook: dict) -> set[str]:
    """Labels of figures and tables of an executed notebook, and names of its values."""
    outputs = [output for cell in notebook["cells"] for output in cell.get("outputs", ())]
    shown = ("".join(output.get("data", {}).get("text/markdown", "")) for output in outputs)
    labels = {label for text in shown for label in re.findall(r"^:name: (\S+)$", text, re.MULTILINE)}
    return labels | set(_glued(notebook["cells"]))


def _glued(cells: list[dict]) -> dict[str, str]:
    """What the code of an executed notebook records for its prose, by name: a number, or a word in quotes."""
    outputs = [output for cell in cells for output in cell.get("outputs", ())]
    named = {output.get("metadata", {}).get("scrapbook", {}).get("name", ""): output for output in outputs}
    named.pop("", None)
    prefix = "application/papermill.record/"
    return {name.removeprefix(prefix): "".join(output["data"][f"{prefix}text/plain"]) for name, output in named.items()}


def table_of_contents(planned: list[Run], user_runs: Collection[str] = (), *, compared: bool = False) -> str:
    """The table of contents of a plan, as YAML, without chapters that have no run; further runs are sections.

    Parameters
    ----------
    user_runs
        Names of the runs on the user's data, a part for each.
    compared
        Whether the page that sets several data sets side by side comes first.
    """
    toc = yaml.safe_load(paths.TOC.read_text())
    by_chapter = {run.notebook: [] for run in planned}
    for run in planned:
        by_chapter[run.notebook].append(run)
    for part in toc["parts"]:
        chapters = []
        for chapter in part["chapters"]:
            if (paths.BOOK / f"{chapter['file']}.md").exists():  # a page written by hand
                chapters.append(chapter)
            elif chapter["file"] in by_chapter:
                others = [
                    {"file": run.key} for run in by_chapter[chapter["file"]] if run.name not in ("main", *user_runs)
                ]
                chapters.append(chapter | ({"sections": others} if others else {}))
        part["chapters"] = chapters
    toc["parts"] = [part for part in toc["parts"] if part["chapters"]]
    own_parts = [{"caption": "Your data", "chapters": [{"file": SIDE_BY_SIDE}]}] if compared else []
    for name in user_runs:
        if of_user := [run for run in planned if run.name == name]:
            kind = "data" if of_user[0].needs.cells is None else "cells"
            own_parts.append({"caption": f"Your {kind}: {name}", "chapters": [{"file": run.key} for run in of_user]})
    toc["parts"] = own_parts + toc["parts"]
    return yaml.safe_dump(toc, sort_keys=False)


def side_by_side(planned: list[Run], own: list[dict], pending: Collection[str] = ()) -> str:
    """The user's data sets side by side, as MyST: for each chapter what its box *In short* says, a row a data set.

    Parameters
    ----------
    own
        The data sets, as `runs.plan_runs` takes them; the page states why one was ``refused``.
    pending
        Keys of runs that are not finished.
    """
    by_key, main_runs = {run.key: run for run in planned}, [run for run in planned if run.name == "main"]
    text = ["# Your data side by side", "Each table has what a chapter says in its box *In short*, for each data set."]
    left_out = {}
    for user_data in own:
        if reason := user_data.get("refused"):
            text.append(f"*{user_run(user_data)}* is left out: {markup.escape_text(reason)}")
        else:
            left_out[user_run(user_data)] = progress.excluded_notebooks(main_runs, user_data)
    for main in main_runs:
        keys = {name: notebooks.run_key(main.notebook, name) for name in left_out}
        of_chapter = {name: by_key[key] for name, key in keys.items() if key in by_key}
        if of_chapter:
            text += [f"## {notebooks.notebook_title(main.source)}", _chapter_table(of_chapter, pending)]
            reasons = {name: reasons[main.notebook] for name, reasons in left_out.items() if main.notebook in reasons}
            text += [f"Left out for *{name}*: {markup.escape_text(why)}." for name, why in reasons.items()]
    return "\n\n".join(text) + "\n"


def _chapter_table(of_chapter: dict[str, Run], pending: Collection[str]) -> str:
    """What the runs of a chapter say in short, as MyST: a row a run, with a link to its page."""
    said = {
        name: _in_short(run) if run.finished and run.key not in pending else None for name, run in of_chapter.items()
    }
    columns = list(dict.fromkeys(column for values in said.values() for column in values or ()))
    rows = [["data set", *(column.removesuffix("_with_interval").replace("_", " ") for column in columns)]]
    rows.append(["---"] * len(rows[0]))
    for name, run in of_chapter.items():
        cells = ["" if said[name] is None else said[name].get(column, "") for column in columns]
        state = " (not finished)" if said[name] is None else ""
        rows.append([f"{{doc}}`{name} </{run.key}>`{state}", *map(markup.escape_text, cells)])
    return "\n".join(f"| {' | '.join(row)} |" for row in rows)


def _in_short(run: Run) -> dict[str, str]:
    """Numbers and words of the box *In short* of an executed notebook, as its prose shows them, by name."""
    cells = _executed(run)["cells"]
    texts = ("".join(cell["source"]) for cell in cells if cell["cell_type"] == "markdown")
    box, glued = next((text for text in texts if "{admonition} In short" in text), ""), _glued(cells)
    written = re.findall(r"\{glue:text\}`(\w+):?([^`]*)`", box)
    return {name: _in_prose(glued[name], form) for name, form in written if name in glued}


def _in_prose(recorded: str, form: str) -> str:
    """What the prose shows of a recorded number, in its format, or of a recorded word."""
    try:
        return format(float(recorded), form)
    except ValueError:
        return str(ast.literal_eval(recorded))


def build_site(
    profile: str, planned: list[Run], own: list[dict], *, partial: bool = False, pending: Collection[str] = ()
) -> None:
    """Write the claims page, publish the pages (`publish_pages`), and build the site beside the present one.

    Parameters
    ----------
    own
        The user's data sets, as `runs.plan_runs` takes them.
    partial
        Whether runs may be unfinished. References to their figures do not resolve, so Sphinx's warnings are only
        logged; the whole site is built afresh, in a folder of its own.
    pending
        Keys of runs whose results are those of an earlier build; runs without results are pending too.

    Raises
    ------
    DataError
        If Sphinx fails, or warns about a whole site; the message gives the first warning and the log.
    """
    if partial:
        paths.SITE_DONE.unlink(missing_ok=True)
    with folder_lock(paths.SPHINX):
        _write_pages(profile, planned, set(pending), own)
        html = _run_sphinx(table_of_contents(planned, user_run_names(own), compared=len(own) > 1), partial)
        with whole_folder(paths.SITE) as part:
            shutil.copytree(html, part, dirs_exist_ok=True)
    if partial:
        print(f"site: {os.path.relpath(paths.SITE / 'index.html', paths.ROOT)} can be read", file=sys.stderr)
    else:
        shutil.rmtree(paths.SPHINX / "partial", ignore_errors=True)


def _write_pages(profile: str, planned: list[Run], pending: set[str], own: list[dict]) -> None:
    built = without_missing_tools(planned)
    pending = {run.key for run in built if run.key in pending or not run.finished}
    notice = f"This book is not complete: {len(built) - len(pending)} of its {len(built)} runs are finished; "
    notice += "`make book` does the others."
    write_atomically(paths.GENERATED / "progress.md", f":::{{note}}\n{notice}\n:::\n" if pending else "")
    judged = ledger.write_claims_page(profile, pending)
    finished = {key: metrics for key, metrics in claims.read_metrics(profile).items() if key not in pending}
    verdict_pages.write_pages(profile, judged, finished, coverage.ways_to_decide(judged))
    for path in sorted((paths.BOOK / "articles").glob("*.md")):
        article = verdict_pages.article(path.read_text(), profile, finished)
        article = _titles_of_absent_chapters(article, {run.key for run in planned})
        write_atomically(paths.GENERATED / f"article-{path.name}", article)
    coverage.write_coverage_table(planned, finished)
    map_of_book = coverage.book_map(planned, finished, judged)
    write_atomically(paths.GENERATED / "map.md", f"```{{raw}} html\n{map_of_book}\n```\n")
    write_atomically(paths.GENERATED / "kernels.md", recorded.kernels_table())
    publish_pages(planned, pending, missing_tools(planned), user_runs=user_run_names(own))
    if len(own) > 1:
        write_atomically(paths.BOOK / f"{SIDE_BY_SIDE}.md", side_by_side(planned, own, pending))


def _run_sphinx(contents: str, partial: bool) -> Path:
    """Build the site; returns the folder of its pages.

    Sphinx goes on from its last build, by time stamps, unless that was cut short or failed, the clock has gone back
    since, or what draws every page, or its navigation, changes.
    """
    folder = paths.SPHINX / ("partial" if partial else "whole")
    html, toc, ended = folder / "_build" / "html", folder / "toc.yml", folder / "ended.json"
    renderer = Path(__file__).with_name("sphinx_pages.py")
    read = [path for path in (*paths.BOOK.rglob("*"), paths.ROOT / "CONTRIBUTING.md", renderer) if path.is_file()]
    hashes = {str(path): sha256(path) for path in read}
    of_the_past = ended.exists() and ended.stat().st_mtime <= time.time()
    before = json.loads(ended.read_text()) if of_the_past else {}
    same_renderer = before.get(str(renderer)) == hashes[str(renderer)]
    if same_renderer and toc.exists() and toc.read_text() == contents:
        for path in hashes:
            if hashes[path] != before.get(path):
                os.utime(path)
    else:
        shutil.rmtree(folder / "_build", ignore_errors=True)
        write_atomically(toc, contents)
    ended.unlink(missing_ok=True)
    jupyter_book = Path(sys.executable).with_name("jupyter-book")
    command = [jupyter_book, "build", paths.BOOK, "--path-output", folder, "--toc", toc]
    command += ["--keep-going"] if partial else ["-W", "-n", "--keep-going"]
    with open(paths.SITE_LOG, "w") as stream, tqdm(total=100, desc="site", unit="%", leave=False) as bar:
        process = subprocess.Popen(command, cwd=paths.ROOT, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
        for line in process.stdout:
            stream.write(line)
            _advance_bar(bar, line)
        code = process.wait()
    if code != 0:
        raise DataError(
            f"site: {first_error(paths.SITE_LOG.read_text(), 'WARNING|ERROR|Error')} (log: {paths.SITE_LOG})"
        )
    write_json(ended, hashes)
    return html


#: Phases of Sphinx, each with its start on the bar in percent.
SPHINX_PHASES = {"reading sources": 0, "writing output": 50}


def _advance_bar(bar: tqdm, line: str) -> None:
    for phase, offset in SPHINX_PHASES.items():
        if match := re.search(rf"{phase}\.\.\. \[ *(\d+)%\]", line):
            bar.update(offset + int(match[1]) // 2 - bar.n)
