"""From runs to a site: pages copied into the book, the table of contents that follows from the plan, Sphinx."""

import json
import re
import shutil
import subprocess
import sys
from pathlib import Path

import yaml
from tqdm import tqdm

from epigen_utils import claims, markup, notebooks, paths
from epigen_utils.errors import DataError
from epigen_utils.files import write_atomically
from epigen_utils.runs import Run


def publish(planned: list[Run], lost: dict[str, list[str]] | None = None) -> None:
    """Copy executed notebooks into the book; pages of runs that are no longer planned are removed.

    In the place of a chapter whose programs are not installed (``lost``: notebook -> programs) a page says so.

    In the copy, ``{numref}`fig:pca` `` and ``{ref}`fig:pca` `` name the figure of this very run, and the title of a run
    other than ``main`` says which run it is.
    """
    wanted = {run.page for run in planned}
    for page in paths.BOOK.glob("*/*.ipynb"):
        if page not in wanted:
            page.unlink()
    for run in planned:
        content = _as_page(run)
        if not run.page.exists() or run.page.read_text() != content:
            write_atomically(run.page, content)
    for source in paths.NOTEBOOKS.glob("*/*.ipynb"):
        notebook = f"{source.parent.name}/{source.stem}"
        page = paths.BOOK / f"{notebook}.md"
        page.unlink(missing_ok=True)
        if tools := (lost or {}).get(notebook):
            said = f"This chapter is not in this build: {', '.join(tools)} not installed; `make tools` brings them, as root or by conda."
            write_atomically(page, f"# {notebooks.title(source)}\n\n{said}\n")


def _as_page(run: Run) -> str:
    notebook = json.loads(run.executed.read_text())
    notebook["metadata"].pop("papermill", None)
    titled = run.name == "main"
    for cell in notebook["cells"]:
        cell["metadata"].pop("papermill", None)
        if "injected-parameters" in cell["metadata"].get("tags", []):
            # Where a file of the user's lies is nobody's business.
            cell["source"] = re.sub(r"\"/[^\"]*/([^\"/]+)\"", r'"\1"', "".join(cell["source"]))
        if cell["cell_type"] == "markdown":
            text = re.sub(
                r"(\{(?:num)?ref\}`)(fig|tab):(\w+)`",
                rf"\g<1>{run.key.replace('/', '-')}-\2-\3`",
                "".join(cell["source"]),
            )
            if not titled and text.startswith("# "):
                title, _, rest = text.partition("\n")
                text, titled = f"{title}: {markup.text(run.name)}\n{rest}", True
            cell["source"] = text
    return json.dumps(notebook, indent=1, ensure_ascii=False)


def contents(planned: list[Run], own: str = "") -> str:
    """The table of contents of this plan, as YAML: chapters without a run are left out, further runs stand under theirs.

    Parameters
    ----------
    own
        Name of the runs on the user's data, which get a part of their own.
    """
    toc = yaml.safe_load(paths.TOC.read_text())
    runs = {run.notebook: [] for run in planned}
    for run in planned:
        runs[run.notebook].append(run)
    mine = [{"file": run.key} for run in planned if own and run.name == own]
    for part in toc["parts"]:
        kept = []
        for chapter in part["chapters"]:
            if (paths.BOOK / f"{chapter['file']}.md").exists():
                kept.append(chapter)
            elif chapter["file"] in runs:
                others = [{"file": run.key} for run in runs[chapter["file"]] if run.name not in ("main", own)]
                kept.append(chapter | ({"sections": others} if others else {}))
        part["chapters"] = kept
    toc["parts"] = [part for part in toc["parts"] if part["chapters"]]
    if mine:
        toc["parts"].insert(0, {"caption": f"Your data: {own}", "chapters": mine})
    return yaml.safe_dump(toc, sort_keys=False)


def write_claims(profile: str, markdown: Path, csv: Path) -> None:
    """The claims page's table, counted by verdict, and the same as CSV."""
    judged = claims.table(profile)
    write_atomically(csv, judged.to_csv(index=False))
    kinds = judged["verdict"].str.partition(":")[0]
    counted = ", ".join(f"{kind} {int((kinds == kind).sum())}" for kind in claims.VERDICTS)
    parts = [f"{len(judged)} claims; {counted}.", ""]
    for paper, rows in judged.groupby("paper"):
        shown = claims.for_reading(rows)
        parts.append(f"## Paper {paper}\n")
        parts.append(
            markup.myst_table(
                shown, caption=f"Claims of paper {paper}, reported and reproduced.", label=f"claims-{paper.lower()}"
            )
        )
    parts.append(f"{{download}}`All claims as CSV </../{csv.relative_to(paths.ROOT)}>`")
    write_atomically(markdown, "\n".join(parts) + "\n")


def build(planned: list[Run], own: str = "", lost: dict[str, list[str]] | None = None) -> None:
    """Publish the pages and build the site; any warning of Sphinx fails it. ``lost`` as `publish` takes it.

    Raises
    ------
    DataError
        With the first warning, and the log that has them all.
    """
    publish(planned, lost)
    toc = contents(planned, own)
    if not paths.BUILT_TOC.exists() or paths.BUILT_TOC.read_text() != toc:
        shutil.rmtree(paths.SITE, ignore_errors=True)
        write_atomically(paths.BUILT_TOC, toc)
    log = paths.SITE_LOG
    command = [
        str(Path(sys.executable).with_name("jupyter-book")),
        "build",
        str(paths.BOOK),
        "--toc",
        str(paths.BUILT_TOC),
    ]
    command += ["-W", "-n", "--keep-going"]
    with open(log, "w") as stream, tqdm(total=100, desc="site", unit="%", leave=False) as bar:
        process = subprocess.Popen(command, cwd=paths.ROOT, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
        for line in process.stdout:
            stream.write(line)
            _advance(bar, line)
        code = process.wait()
    if code != 0:
        lines = re.sub(r"\x1b\[[\d;]*m", "", log.read_text()).splitlines()
        first = next(
            (line for line in lines if re.search(r"WARNING|ERROR|Error", line)), lines[-1] if lines else "no output"
        )
        raise DataError(f"site: {first.strip()} (log: {log})")


#: Sphinx reads, then writes: each phase counts for half of the bar.
PHASES = {"reading sources": 0, "writing output": 50}


def _advance(bar: tqdm, line: str) -> None:
    for phase, offset in PHASES.items():
        if match := re.search(rf"{phase}\.\.\. \[ *(\d+)%\]", line):
            bar.update(offset + int(match[1]) // 2 - bar.n)
