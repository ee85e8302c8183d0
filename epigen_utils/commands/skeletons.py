"""Skeletons: a chapter or a data set that passes the project's tests as it is, to be filled in."""

import contextlib
import hashlib
import re
from pathlib import Path

import nbformat
import yaml

from epigen_utils import paths
from epigen_utils.data import registry
from epigen_utils.errors import DataError
from epigen_utils.files import whole_file, write_atomically

#: Folder of a paper's notebooks -> the paper, its key in book/references.bib, a data set to begin with, and its rows.
PAPERS = {
    "epilepsy": ("A", "latif2025epilepsy", "table-two", "sample"),
    "geneformer": ("B", "saini2025transfer", "corpus-sim", "cell"),
}
#: Profiles that run every chapter.
PROFILES = ("demo", "real", "paper")
#: Cells of a chapter: tags of a cell of code, or None for prose; its text.
CELLS = (
    (
        None,
        """# {title}

This page reports the sum of counts of each {unit} of a data set.

Paper {paper}, section 1 {{cite}}`{citation}`.""",
    ),
    (
        None,
        """:::{{admonition}} In short
- **Question.** How many counts does each {unit} have?
- **Data.** A table of counts: {{glue:text}}`n_rows:.0f` {unit}s.
- **Answer.** Their mean depth is {{glue:text}}`mean_depth:,.0f` counts.
:::""",
    ),
    (
        ["parameters", "hide-input"],
        """dataset: str = "{dataset}"  # name in data/registry.yml, or path of an h5ad file
seed: int = 0  # not used here: nothing on this page is random
results_dir: str = "results/alone/{key}"  # folder that this notebook writes to""",
    ),
    (
        ["remove-input"],
        """import numpy as np
import pandas as pd

from epigen_utils.book import report
from epigen_utils.data import datasets
from epigen_utils.stats import intervals

report.begin("{key}", results_dir=results_dir, seed=seed)""",
    ),
    (
        ["remove-input"],
        """adata = datasets.load(dataset)
depth = np.asarray(adata.layers["counts"].sum(axis=1)).ravel()
mean, low, high = intervals.student_interval(depth)
report.banner(adata)
report.value("n_rows", len(depth))
report.value("mean_depth", mean, low=low, high=high, n=len(depth))""",
    ),
    (None, "## Depth\n\nThe depth of a {unit} is the sum of its counts."),
    (
        ["remove-input"],
        """quantiles = pd.Series(depth).quantile([0, 0.25, 0.5, 0.75, 1]).rename("depth").rename_axis("quantile")
caption = f"Quantiles of the depth of {{len(depth):,}} {unit}s, in counts."
report.table("depth", quantiles.reset_index(), caption=caption, formats={{"depth": "{{:,.0f}}"}})""",
    ),
    (
        None,
        """{{numref}}`tab:depth` has the quantiles of the depth; the mean is {{glue:text}}`mean_depth:,.0f` counts.

## Summary

The {{glue:text}}`n_rows:.0f` {unit}s have a mean depth of {{glue:text}}`mean_depth:,.0f` counts.

## Reported and reproduced""",
    ),
    (["remove-input"], "report.finish()"),
)


def new_chapter(key: str) -> list[Path]:
    """Write a chapter that runs: its notebook, its runs in the profiles, and its line in the table of contents.

    Parameters
    ----------
    key
        ``paper/NN_slug``.

    Returns
    -------
    The files that were written or changed.

    Raises
    ------
    DataError
        If the name is not of this form, or there is such a chapter; nothing is written then.
    """
    paper = key.partition("/")[0]
    if paper not in PAPERS or not re.fullmatch(r"\w+/\d\d[a-z]?_[a-z0-9]+(_[a-z0-9]+)*", key):
        papers = " or ".join(f"{name}/NN_slug" for name in PAPERS)
        raise DataError(f"{key}: no name of a chapter; write {papers}, in small letters, digits and _")
    notebook = paths.NOTEBOOKS / f"{key}.ipynb"
    profiles = [paths.PROFILES / f"{name}.yml" for name in PROFILES]
    lines = {path: path.read_text().splitlines() for path in (paths.TOC, *profiles)}
    if notebook.exists() or any(re.search(rf"\b{key}\b", line) for path in lines for line in lines[path]):
        raise DataError(f"{key}: there is such a chapter; choose another name")
    texts = {notebook: _notebook(key)}
    texts[paths.TOC] = _inserted(lines[paths.TOC], [f"      - file: {key}"], rf"- file: ({paper}/\w+)", key)
    run = [f"{key}:", "  main:", f"    dataset: {PAPERS[paper][2]}"]
    texts |= {path: _inserted(lines[path], run, r"^(\w+/\w+):", key) for path in profiles}
    _write_all(texts)
    return list(texts)


def _notebook(key: str) -> str:
    paper, citation, dataset, unit = PAPERS[key.partition("/")[0]]
    title = key.partition("_")[2].replace("_", " ").capitalize()
    values = {"key": key, "title": title, "paper": paper, "citation": citation, "dataset": dataset, "unit": unit}
    cells = []
    for place, (tags, text) in enumerate(CELLS):
        make = nbformat.v4.new_markdown_cell if tags is None else nbformat.v4.new_code_cell
        metadata = {} if tags is None else {"tags": tags}
        cells.append(make(text.format(**values), id=f"c{place:02}", metadata=metadata))
    metadata = {
        "epigen": {"after": [], "datasets": ["dataset"], "threads": 1, "tools": []},
        "kernelspec": {"display_name": "Python 3", "language": "python", "name": "python3"},
        "language_info": {"name": "python"},
    }
    return nbformat.writes(nbformat.v4.new_notebook(cells=cells, metadata=metadata)) + "\n"


def _inserted(lines: list[str], new: list[str], pattern: str, key: str) -> str:
    """Lines with new ones before the first that has a later key; after the last that has a key, if none has."""
    keys = {place: found[1] for place, line in enumerate(lines) if (found := re.search(pattern, line))}
    indents = [len(line) - len(line.lstrip()) for line in lines]
    place, last = min((place for place, known in keys.items() if known > key), default=max(keys) + 1), max(keys)
    while last < place < len(lines) and indents[place] > indents[last]:
        place += 1  # past what stands under the last key
    return "\n".join([*lines[:place], *new, *lines[place:]]) + "\n"


def new_data_set(name: str) -> list[Path]:
    """Write a data set that can be loaded: its entry in the registry, two tables of four samples, and its card.

    Returns
    -------
    The files that were written or changed.

    Raises
    ------
    DataError
        If the name is not one of letters, digits and hyphens, or is taken; nothing is written then.
    """
    if not re.fullmatch(r"[A-Za-z0-9]+(-[A-Za-z0-9]+)*", name):
        raise DataError(f"{name}: no name of a data set; write letters and digits, with hyphens between them")
    stem = name.replace("-", "_").lower()
    tables = {
        "counts": (paths.DATA / f"{stem}.csv", "gene,a1,a2,b1,b2\nGENE1,12,15,30,28\nGENE2,40,38,41,44\n"),
        "samples": (paths.DATA / f"{stem}_samples.csv", "sample,condition\na1,a\na2,a\nb1,b\nb2,b\n"),
    }
    taken = [path for path, _ in tables.values() if path.exists()]
    if name in registry.entries() or taken:
        raise DataError(f"{name}: there is such a data set{f', {taken[0]}' if taken else ''}; choose another name")
    entry = {
        "title": "Four samples of nobody",
        "species": "homo_sapiens",
        "kind": "bulk",
        "real": False,
        "licence": "CC0-1.0",
        "citation": "none",
        "card": "What it is, and what it is not.",
        "group": "condition",
        "reference": "a",
        "read": "table",
        "files": {
            role: {"bundled": path.name, "sha256": hashlib.sha256(text.encode()).hexdigest()}
            for role, (path, text) in tables.items()
        },
    }
    text = f"{paths.REGISTRY.read_text().rstrip()}\n\n{yaml.safe_dump({name: entry}, sort_keys=False, width=1000)}"
    registry.data_cards()  # raises before anything is written, where a file of data/ is described nowhere
    _write_all(dict(tables.values()) | {paths.REGISTRY: text})
    registry.entries.cache_clear()
    cards = paths.DATA / "README.md"
    write_atomically(cards, registry.data_cards())
    return [*(path for path, _ in tables.values()), paths.REGISTRY, cards]


def _write_all(texts: dict[Path, str]) -> None:
    """Write files, all of them or none."""
    with contextlib.ExitStack() as stack:
        for path, text in texts.items():
            stack.enter_context(whole_file(path)).write_text(text)
