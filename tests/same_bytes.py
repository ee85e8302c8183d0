"""Compare two builds of a profile byte by byte: ``same_bytes.py OLD NEW [--profile demo]`` with two checkouts.

Compares the site and, of the results, metrics, tables, figures, bundles and claims. A file that differs is compared again
without what equal builds measure anew (`provenance.MEASURED`): wall times, what is computed from them, images of them, and
the memory that a run held. Prints each file that still differs, and where. Exit code 1 if there is any.
"""

import argparse
import csv
import html
import io
import json
import re
import sys
import zipfile
from collections.abc import Callable, Iterator
from itertools import zip_longest
from pathlib import Path

from epigen_utils.book.provenance import MEASURED
from epigen_utils.files import sha256

#: What of the results is compared, by folder or name; logs and executed notebooks have the time of each cell.
FOLDERS, JSON, OTHER = ("tables", "figures"), ("metrics.json", "claims.json"), ("claims.csv", "bundle.zip")
TABLE, ROW = re.compile(r"<table.*?</table>", re.DOTALL), re.compile(r"<tr.*?</tr>", re.DOTALL)
CELL = re.compile(r"(?<=>)[^<>]*(?=(?:</p>)?</t[hd]>)")
PIPES = re.compile(r"(?:^\|.*\n)+", re.MULTILINE)
#: A number in the prose of a page, and the name that its notebook gives it.
PASTED, GLUED = re.compile(r'(?<=<span class="pasted-text">).*?(?=</span>)'), re.compile(r"\{glue:text\}`(\w+)")
#: A word of the search's index that begins with a digit: wall times are among them.
INDEXED_NUMBER = re.compile(r'"\d\w*": (?:\d+|\[[^\]]*\])(?:, )?')


def is_measured(name: str) -> bool:
    """Whether a number or column is measured, by its name; of a claim's metric, by what follows the run."""
    return bool(MEASURED.search(html.unescape(name).replace("\\", "").strip().rpartition(":")[2]))


def without_measured(rows: list[list[str]]) -> list[list[str]]:
    """A table, the first row its head, with empty cells in measured columns, and beside a name that is measured."""
    measured = [is_measured(name) for name in rows[0]] if rows else []
    blanked = rows[:1]
    for row in rows[1:]:
        named = any(is_measured(cell) for cell in row if re.fullmatch(r"\s*(wall time|[\w/-]+:\w+)\s*", cell))
        cells = zip_longest(row, measured[: len(row)], fillvalue=False)
        blanked.append(["" if of_column or (named and not is_measured(cell)) else cell for cell, of_column in cells])
    return blanked


def html_text(text: str) -> str:
    """HTML without the measured cells of its tables."""

    def blank(table: re.Match) -> str:
        rows = iter(without_measured([CELL.findall(row) for row in ROW.findall(table[0])]))

        def fill(row: re.Match) -> str:
            cells = iter(next(rows))
            return CELL.sub(lambda _: next(cells), row[0])

        return ROW.sub(fill, table[0])

    return TABLE.sub(blank, text)


def markdown_text(text: str) -> str:
    """MyST without the measured cells of its tables."""

    def blank(table: re.Match) -> str:
        rows = without_measured([re.split(r"(?<!\\)\|", line) for line in table[0].splitlines()])
        return "".join("|".join(row) + "\n" for row in rows)

    return PIPES.sub(blank, text)


def notebook_text(path: Path) -> str:
    """A notebook without measured cells of tables and measured values."""
    notebook = json.loads(path.read_text())
    for output in (output for cell in notebook["cells"] for output in cell.get("outputs", ())):
        data, name = output.get("data", {}), output.get("metadata", {}).get("scrapbook", {}).get("name", "")
        if is_measured(name.rpartition("/")[2]):
            data.clear()
        for kind, blanked in (("text/html", html_text), ("text/markdown", markdown_text)):
            if kind in data:
                data[kind] = blanked("".join(data[kind]))
    return json.dumps(notebook, indent=1)


def page_text(page: Path, site: Path) -> str:
    """A page without measured cells of tables, and without the measured numbers of its prose."""
    text = html_text(page.read_text())
    notebook = (site / "_sources" / page.relative_to(site)).with_suffix(".ipynb")
    names = glued_names(json.loads(notebook.read_text())) if notebook.exists() else []
    if len(names) == len(PASTED.findall(text)):
        of_page = iter(names)
        text = PASTED.sub(lambda number: "" if is_measured(next(of_page)) else number[0], text)
    return text


def glued_names(notebook: dict) -> list[str]:
    """Names of the numbers in the prose of an executed notebook, in their order."""
    texts = []
    for cell in notebook["cells"]:
        outputs = [output.get("data", {}).get("text/markdown", "") for output in cell.get("outputs", ())]
        texts += [cell["source"]] if cell["cell_type"] == "markdown" else outputs
    return [name for text in texts for name in GLUED.findall("".join(text))]


def table_text(path: Path) -> str:
    """A CSV without its measured cells."""
    with open(path, newline="") as stream:
        rows = without_measured(list(csv.reader(stream)))
    target = io.StringIO()
    csv.writer(target).writerows(rows)
    return target.getvalue()


def json_text(path: Path) -> str:
    """The metrics of a run, or the claims, without what is measured."""
    content = json.loads(path.read_text())
    if isinstance(content, list):
        content = [claim for claim in content if not is_measured(claim.get("metric", ""))]
    else:
        content = {key: value for key, value in content.items() if key not in ("wall_seconds", "memory")}
        metrics = content.get("metrics", {})
        content["metrics"] = {name: value for name, value in metrics.items() if not is_measured(name)}
    return json.dumps(content, indent=1)


def script_text(path: Path) -> str:
    """The rows of a table that a page loads on demand without measured cells; the search's index without numbers."""
    text = path.read_text()
    if not text.startswith("epigenRows("):
        return INDEXED_NUMBER.sub("", text)
    table = json.loads(text.removeprefix("epigenRows(").rstrip().removesuffix(");"))
    rows = [[json.dumps(cell) for cell in row] for row in table["rows"]]
    return "\n".join(map(",".join, without_measured([table["columns"], *rows])))


class Tree:
    """The results of a profile and the site of a checkout."""

    def __init__(self, checkout: Path, profile: str):
        self.checkout, self.site = checkout, checkout / "_build" / "html"
        self.results = checkout / "results" / profile

    def files(self) -> dict[str, Path]:
        """What is compared, by its path in the checkout."""
        found = [path for path in self.results.rglob("*") if path.parent.name in FOLDERS or path.name in JSON + OTHER]
        found += self.site.rglob("*")
        return {str(path.relative_to(self.checkout)): path for path in sorted(found) if path.is_file()}

    def images_of_measured(self) -> Iterator[str]:
        """SHA-256 of each figure whose numbers, the CSV beside it, are measured."""
        for image in self.results.glob("*/*/*/figures/*.png"):
            with open(image.with_suffix(".csv"), newline="") as stream:
                if any(map(is_measured, next(csv.reader(stream), []))):
                    yield sha256(image)

    def text(self, path: Path) -> str | None:
        """A file without what is measured; None of a kind that has nothing measured."""
        kinds: dict[str, Callable[[Path], str]] = {
            ".html": lambda page: page_text(page, self.site),
            ".ipynb": notebook_text,
            ".csv": table_text,
            ".js": script_text,
            **dict.fromkeys(JSON, json_text),
        }
        return next((kinds[kind](path) for kind in (path.suffix, path.name) if kind in kinds), None)


def place(old: Path, new: Path) -> str:
    """Where two binary files differ: the member of an archive, or the byte."""
    if old.suffix == ".zip":
        with zipfile.ZipFile(old) as one, zipfile.ZipFile(new) as other:
            members = [{(x.filename, x.CRC, x.date_time) for x in zipped.infolist()} for zipped in (one, other)]
        names = sorted({name for name, *_ in members[0] ^ members[1]})
        return f"{len(names)} members, {names[0]} first" if names else "in how it is packed"
    pairs = enumerate(zip_longest(old.read_bytes(), new.read_bytes()))
    return f"byte {next(at for at, (one, other) in pairs if one != other)}"


def line(old: str, new: str) -> str:
    """The first line in which two texts differ; empty if none does."""
    for number, (one, other) in enumerate(zip_longest(old.splitlines(), new.splitlines(), fillvalue="(no line)"), 1):
        if one != other:
            at = next(at for at, (a, b) in enumerate(zip_longest(one, other)) if a != b)
            start = max(at - 30, 0)
            return f"line {number}: {one[start : at + 50]!r} -> {other[start : at + 50]!r}"
    return ""


def differences(old: Path, new: Path, profile: str) -> list[str]:
    """Each file that differs between two built checkouts, and where."""
    trees = [Tree(old, profile), Tree(new, profile)]
    files = [tree.files() for tree in trees]
    drawn = [set(tree.images_of_measured()) for tree in trees]
    alone = sorted(files[0].keys() ^ files[1].keys())
    found = [f"{name}: only in {old if name in files[0] else new}" for name in alone]
    for name in files[0].keys() & files[1].keys():
        pair = [each[name] for each in files]
        hashes = [sha256(path) for path in pair]
        if hashes[0] == hashes[1] or all(digest in known for digest, known in zip(hashes, drawn, strict=True)):
            continue
        texts = [tree.text(path) for tree, path in zip(trees, pair, strict=True)]
        if where := place(*pair) if None in texts else line(*texts):
            found.append(f"{name}: {where}")
    return sorted(found)


def main() -> int:
    """Compare, and say what differs."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("old", type=Path)
    parser.add_argument("new", type=Path)
    parser.add_argument("--profile", default="demo")
    given = parser.parse_args()
    found = differences(given.old, given.new, given.profile)
    n = len(Tree(given.old, given.profile).files())
    print("\n".join([*found, f"{n} files, {len(found)} differ"]))
    return bool(found) or not n


if __name__ == "__main__":
    sys.exit(main())
