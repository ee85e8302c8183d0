"""From runs to a site: copy pages into the book, derive its table of contents from the plan, run Sphinx."""

import json
import re
import shutil
import subprocess
import sys
from pathlib import Path

import yaml
from tqdm import tqdm

from epigen_utils import paths
from epigen_utils.book import claims, markup, notebooks
from epigen_utils.book.runs import Run
from epigen_utils.errors import DataError, first_error
from epigen_utils.files import write_atomically


def publish_pages(planned: list[Run], missing_programs: dict[str, list[str]] | None = None) -> None:
    """Copy executed notebooks into the book, and remove pages of runs that are no longer planned.

    In the copy, ``{numref}`fig:pca` `` and ``{ref}`fig:pca` `` refer to the figure of the same run, and the title of a
    run other than ``main`` contains its name.

    Parameters
    ----------
    missing_programs
        Notebook -> programs that it calls and that are not installed; a page that says so replaces the chapter.
    """
    pages = {run.page for run in planned}
    for page in paths.BOOK.glob("*/*.ipynb"):
        if page not in pages:
            page.unlink()
    for run in planned:
        content = _page_content(run)
        if not run.page.exists() or run.page.read_text() != content:
            write_atomically(run.page, content)
    for source in paths.NOTEBOOKS.glob("*/*.ipynb"):
        notebook = f"{source.parent.name}/{source.stem}"
        page = paths.BOOK / f"{notebook}.md"
        page.unlink(missing_ok=True)
        if tools := (missing_programs or {}).get(notebook):
            notice = (
                f"This chapter is not in this build: {', '.join(tools)} not installed; "
                "`make tools` brings them, as root or by conda."
            )
            write_atomically(page, f"# {notebooks.notebook_title(source)}\n\n{notice}\n")


def _page_content(run: Run) -> str:
    notebook = json.loads(run.executed.read_text())
    notebook["metadata"].pop("papermill", None)
    titled = run.name == "main"
    for cell in notebook["cells"]:
        cell["metadata"].pop("papermill", None)
        if "injected-parameters" in cell["metadata"].get("tags", []):
            # The site may be public: paths of the user's files are reduced to file names.
            cell["source"] = re.sub(r"\"/[^\"]*/([^\"/]+)\"", r'"\1"', "".join(cell["source"]))
        if cell["cell_type"] == "markdown":
            label = rf"\g<1>{run.key.replace('/', '-')}-\2-\3`"
            text = re.sub(r"(\{(?:num)?ref\}`)(fig|tab):(\w+)`", label, "".join(cell["source"]))
            if not titled and text.startswith("# "):
                title, _, rest = text.partition("\n")
                text, titled = f"{title}: {markup.escape_text(run.name)}\n{rest}", True
            cell["source"] = text
    return json.dumps(notebook, indent=1, ensure_ascii=False)


def table_of_contents(planned: list[Run], user_run: str = "") -> str:
    """The table of contents of a plan, as YAML, without chapters that have no run; further runs are sections.

    Parameters
    ----------
    user_run
        Name of the runs on the user's data, which form a separate part.
    """
    toc = yaml.safe_load(paths.TOC.read_text())
    by_chapter = {run.notebook: [] for run in planned}
    for run in planned:
        by_chapter[run.notebook].append(run)
    user_pages = [{"file": run.key} for run in planned if user_run and run.name == user_run]
    for part in toc["parts"]:
        chapters = []
        for chapter in part["chapters"]:
            if (paths.BOOK / f"{chapter['file']}.md").exists():
                chapters.append(chapter)
            elif chapter["file"] in by_chapter:
                others = [
                    {"file": run.key} for run in by_chapter[chapter["file"]] if run.name not in ("main", user_run)
                ]
                chapters.append(chapter | ({"sections": others} if others else {}))
        part["chapters"] = chapters
    toc["parts"] = [part for part in toc["parts"] if part["chapters"]]
    if user_pages:
        toc["parts"].insert(0, {"caption": f"Your data: {user_run}", "chapters": user_pages})
    return yaml.safe_dump(toc, sort_keys=False)


def write_claims_page(profile: str, markdown: Path, csv: Path) -> None:
    """Write the claims page, with the number of claims by verdict and a table for each paper, and all claims as CSV."""
    judged = claims.table(profile)
    write_atomically(csv, judged.to_csv(index=False))
    parts = [f"{len(judged)} claims; {claims.count_verdicts(judged)}.", ""]
    for paper, rows in judged.groupby("paper"):
        caption, label = f"Claims of paper {paper}, reported and reproduced.", f"claims-{paper.lower()}"
        parts.append(f"## Paper {paper}\n")
        parts.append(markup.myst_table(claims.display_columns(rows), caption=caption, label=label))
    parts.append(f"{{download}}`All claims as CSV </../{csv.relative_to(paths.ROOT)}>`")
    write_atomically(markdown, "\n".join(parts) + "\n")


def build_site(planned: list[Run], user_run: str = "", missing_programs: dict[str, list[str]] | None = None) -> None:
    """Publish the pages (`publish_pages`) and build the site.

    Raises
    ------
    DataError
        If Sphinx warns or fails; the message gives the first warning and the log.
    """
    publish_pages(planned, missing_programs)
    toc = table_of_contents(planned, user_run)
    if not paths.BUILT_TOC.exists() or paths.BUILT_TOC.read_text() != toc:
        shutil.rmtree(paths.SITE, ignore_errors=True)
        write_atomically(paths.BUILT_TOC, toc)
    log = paths.SITE_LOG
    jupyter_book = Path(sys.executable).with_name("jupyter-book")
    command = [jupyter_book, "build", paths.BOOK, "--toc", paths.BUILT_TOC, "-W", "-n", "--keep-going"]
    with open(log, "w") as stream, tqdm(total=100, desc="site", unit="%", leave=False) as bar:
        process = subprocess.Popen(command, cwd=paths.ROOT, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
        for line in process.stdout:
            stream.write(line)
            _advance_bar(bar, line)
        code = process.wait()
    if code != 0:
        raise DataError(f"site: {first_error(log.read_text(), 'WARNING|ERROR|Error')} (log: {log})")


#: Phases of Sphinx, each with its start on the bar in percent.
SPHINX_PHASES = {"reading sources": 0, "writing output": 50}


def _advance_bar(bar: tqdm, line: str) -> None:
    for phase, offset in SPHINX_PHASES.items():
        if match := re.search(rf"{phase}\.\.\. \[ *(\d+)%\]", line):
            bar.update(offset + int(match[1]) // 2 - bar.n)
