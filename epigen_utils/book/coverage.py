"""What the book covers of the papers, by the metadata of its pages, and which claims its profiles can decide.

A notebook declares ``epigen.covers`` in its metadata, a page written by hand in its front matter: item of
``data/paper_items.csv`` -> ``{"at": "fig:<name>" or "tab:<name>" or "", "own": data set of the paper, or ""}``.
"""

import ast
import functools
import html
import re
from dataclasses import dataclass
from pathlib import Path

import pandas as pd
import yaml

from epigen_utils import paths
from epigen_utils.book import claims, ledger, markup, notebooks
from epigen_utils.book.runs import Run, missing_tools, plan_runs
from epigen_utils.data import registry
from epigen_utils.errors import DataError
from epigen_utils.files import write_atomically

ITEMS = paths.DATA / "paper_items.csv"
#: Place of published weights on a hub -> the preset of their shape, which claims name.
PRESETS = {"ctheodoris/Geneformer:Geneformer-V1-10M": "geneformer-10m"}


@dataclass(frozen=True)
class Cover:
    """A place of the book that covers an item of a paper."""

    item: str
    page: str  # paper/NN_slug of a notebook, or the name of a page written by hand
    at: str  # fig:<name> or tab:<name>; empty for the page as a whole
    own: str  # the paper's own data set, in the registry; empty where the item is about none


def paper_items() -> pd.DataFrame:
    """Items of both papers: id, paper, locus, title."""
    return pd.read_csv(ITEMS, dtype=str)


def declared_covers() -> list[Cover]:
    """What notebooks and pages written by hand say that they cover.

    Raises
    ------
    DataError
        If a page names an unknown item or data set.
    """
    declared = {}
    for source in sorted(paths.NOTEBOOKS.glob("*/*.ipynb")):
        declared[f"{source.parent.name}/{source.stem}"] = notebooks.declared_needs(source).covers
    for page in sorted(paths.BOOK.glob("*.md")):
        declared[page.stem] = _front_matter(page.read_text()).get("epigen", {}).get("covers", {})
    known = set(paper_items()["id"])
    covers = []
    for page, covered in declared.items():
        for item, where in covered.items():
            if item not in known:
                raise DataError(
                    f"{page}: covers {item!r}, which is not in {ITEMS.relative_to(paths.ROOT)}; correct the id"
                )
            if where.get("own") and where["own"] not in registry.entries():
                raise DataError(f"{page}: covers {item!r} on {where['own']!r}, which is not in the registry")
            covers.append(Cover(item, page, where.get("at", ""), where.get("own", "")))
    return covers


def _front_matter(text: str) -> dict:
    return yaml.safe_load(text.split("---\n")[1]) if text.startswith("---\n") else {}


def uncovered_items(covers: list[Cover]) -> list[str]:
    """Ids of the items that no page covers."""
    covered = {cover.item for cover in covers}
    return [item for item in paper_items()["id"] if item not in covered]


def coverage_table(planned: list[Run], run_metrics: dict[str, dict]) -> pd.DataFrame:
    """Each place that covers an item, and the state of the item there.

    Parameters
    ----------
    run_metrics
        Run key -> its ``metrics.json``, for the runs that are finished.

    Returns
    -------
    Columns paper, locus, title, page, link (relative to the book's root; empty for a page that is not in this build),
    and state.
    """
    rows = []
    covers = declared_covers()
    by_item = {item: [cover for cover in covers if cover.item == item] for item in paper_items()["id"]}
    for item in paper_items().itertuples():
        for cover in by_item[item.id]:
            link, state = _state(cover, planned, run_metrics)
            rows.append((item.paper, item.locus, item.title, cover.page, link, state))
    return pd.DataFrame(rows, columns=["paper", "locus", "title", "page", "link", "state"])


def _state(cover: Cover, planned: list[Run], run_metrics: dict[str, dict]) -> tuple[str, str]:
    if (paths.BOOK / f"{cover.page}.md").exists():
        return f"{cover.page}.html", "text"
    chapter = [run for run in planned if run.notebook == cover.page]
    if not chapter:
        return "", f"profile {', '.join(name for name in notebooks.profile_names() if _runs(name, cover.page))}"
    finished = {run.key: run_metrics[run.key]["datasets"] for run in chapter if run.key in run_metrics}
    own = [key for key, used in finished.items() if used.get(cover.own, {}).get("nature") == "real"]
    key = own[0] if own else chapter[0].key
    kind, _, name = cover.at.partition(":")
    link = f"{key}.html" + (f"#{markup.anchor(markup.output_label(key, kind, name))}" if name else "")
    if key not in finished:
        tools = missing_tools(chapter).get(cover.page)
        return f"{key}.html", f"not in this build: needs {', '.join(tools)}" if tools else "still to come"
    if own:
        return link, "on the paper's data"
    if not cover.own:
        return link, "covered"
    matrices = {name: about for name, about in finished[key].items() if about.get("matrix")} or finished[key]
    used = ", ".join(f"{name} ({about['nature']})" for name, about in matrices.items())
    return link, f"same method, on {used}"


def _runs(profile: str, notebook: str) -> bool:
    return any(run.notebook == notebook for run in plan_runs(profile))


def write_coverage_table(planned: list[Run], run_metrics: dict[str, dict]) -> None:
    """Write the table of the coverage page."""
    parts = []
    for paper, places in coverage_table(planned, run_metrics).groupby("paper"):
        rows = []
        for (locus, title), same in places.groupby(["locus", "title"], sort=False):
            item = f"<th scope=row rowspan={len(same)}>{html.escape(locus)}</th>"
            item += f"<td rowspan={len(same)}>{html.escape(title)}</td>"
            for row in same.itertuples():
                page = html.escape(row.page)
                link = f'<a href="{row.link}">{page}</a>' if row.link else page
                rows.append(f"<tr>{item}<td>{link}</td><td>{html.escape(row.state)}</td></tr>")
                item = ""
        head = "<tr><th>Item</th><th>What it is</th><th>Where in this book</th><th>State in this build</th></tr>"
        table = f'<table class="epigen-table"><thead>{head}</thead><tbody>{"".join(rows)}</tbody></table>'
        parts.append(f"## Paper {paper}\n\n```{{raw}} html\n{table}\n```\n")
    write_atomically(paths.GENERATED / "coverage.md", "\n".join(parts))


def book_map(planned: list[Run], run_metrics: dict[str, dict], judged: pd.DataFrame) -> str:
    """A row a chapter, as HTML: its pages, what it covers of the paper, data, verdicts, and minutes that its runs took.

    Parameters
    ----------
    run_metrics
        Run key -> its ``metrics.json``, for the runs that are finished.
    judged
        Claims with their verdicts, from `claims.judge_claims`.
    """
    loci = paper_items().set_index("id")["locus"]
    covers = declared_covers()
    chapters = judged["metric"].str.partition(":")[0].str.partition("--")[0]
    rows = []
    for notebook in dict.fromkeys(run.notebook for run in planned):
        chapter = [run for run in planned if run.notebook == notebook]
        finished = [run_metrics[run.key] for run in chapter if run.key in run_metrics]
        titles = [notebooks.notebook_title(chapter[0].source), *(run.name for run in chapter[1:])]
        used = {
            f"{name} ({about['nature']})": None
            for metrics in finished
            for name, about in metrics.get("datasets", {}).items()
        }
        verdicts = judged.loc[chapters == notebook, "verdict"].map(ledger.verdict_kind).value_counts(sort=False)
        cells = [
            "; ".join(
                f'<a href="{run.key}.html">{html.escape(title)}</a>' for run, title in zip(chapter, titles, strict=True)
            ),
            html.escape("; ".join(dict.fromkeys(loci[cover.item] for cover in covers if cover.page == notebook))),
            html.escape(", ".join(used)),
            "; ".join(f"{n} {kind}" for kind, n in verdicts.items()),
            f"{sum(metrics.get('wall_seconds', 0) for metrics in finished) / 60:.1f}" if finished else "",
        ]
        rows.append(f"<tr>{''.join(f'<td>{cell}</td>' for cell in cells)}</tr>")
    head = "".join(
        f"<th>{name}</th>" for name in ("Chapter", "Of the paper", "Data in this build", "Claims", "Minutes")
    )
    return f'<table class="epigen-table"><thead><tr>{head}</tr></thead><tbody>{"".join(rows)}</tbody></table>'


def ways_to_decide(frame: pd.DataFrame) -> dict[str, str]:
    """Claim id -> the profiles whose runs can decide it, as text, or what no profile has.

    Parameters
    ----------
    frame
        Claims from `claims.read_claims`.
    """
    plans = {profile: {run.key: run for run in plan_runs(profile)} for profile in notebooks.profile_names()}
    ways = {}
    for claim in frame.to_dict("records"):
        lacks = {profile: _missing(claim, planned) for profile, planned in plans.items()}
        commands = [f"make book PROFILE={profile}" for profile, lack in lacks.items() if lack is None]
        ways[claim["id"]] = " or ".join(commands) or f"no profile has {max(lacks.values())[1]} yet"
    return ways


def _missing(claim: dict, planned: dict[str, Run]) -> tuple[int, str] | None:
    """The first thing that a profile lacks for a claim, with its place in the order of looking; None if it has all."""
    for metric, needs in claims.paired_readings(claim):
        key, _, name = metric.partition(":")
        run = planned.get(key)
        dataset, _, model = (part.strip() for part in needs.partition(";"))
        if run is None:
            return 0, f"a run {key} on {dataset}"
        if not any(re.fullmatch(pattern, name) for pattern in recorded_metrics(run.source)):
            return 1, f"a metric {name}"
        if dataset not in data_of_run(run):
            return 2, f"a run {key} on {dataset}"
        if model and model not in models_of_run(run, planned):
            return 3, f"a run {key} of {model}"
    return None


def data_of_run(run: Run) -> set[str]:
    """Data sets of a run: those of its parameters, and those that its notebook names itself."""
    named = re.findall(r"""report\.uses\(["']([\w-]+)["']""", notebooks.code(run.source))
    return {*run.datasets, *named}


def models_of_run(run: Run, planned: dict[str, Run]) -> set[str]:
    """Models of a run: presets and published weights of its parameters, or those of the runs whose folders it reads."""
    values = notebooks.default_values(run.source) | run.parameters
    upstream = [
        other
        for value in values.values()
        if isinstance(value, str)
        for other in planned.values()
        if other.key != run.key and value.startswith(f"{other.results.relative_to(paths.ROOT)}/")
    ]
    if upstream:
        return set().union(*(models_of_run(other, planned) for other in upstream))
    named = {values[name] for name in ("model", "start", "teacher") if isinstance(values.get(name), str)}
    return named | {PRESETS[name] for name in named & PRESETS.keys()}


@functools.cache
def recorded_metrics(source: Path) -> list[str]:
    """Names of the metrics that a notebook records, as regular expressions: a name that is computed stands for any."""
    patterns = []
    for node in ast.walk(ast.parse(notebooks.code(source))):
        if isinstance(node, ast.Call) and ast.unparse(node.func) == "report.value":
            name = node.args[0]
            parts = name.values if isinstance(name, ast.JoinedStr) else [name]
            patterns.append(
                "".join(re.escape(part.value) if isinstance(part, ast.Constant) else r"\w+" for part in parts)
            )
    return patterns
