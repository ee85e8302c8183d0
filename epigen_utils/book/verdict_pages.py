"""The first page's findings, the verdict on each paper and its article, from the judged claims and runs of a build."""

import html
import os
import re

import pandas as pd
import yaml

from epigen_utils import paths
from epigen_utils.book import claims, ledger, markup, notebooks
from epigen_utils.data import registry
from epigen_utils.errors import DataError
from epigen_utils.files import write_atomically

CHOICES = paths.DATA / "verdicts.yml"
#: The number of a claim in a piece of advice; ids may have dots.
FIELD = r"\{([^}]+)\}"
#: In an article: ``[[key:metric]]``, a run's number with its interval; ``[[key:metric|.2f]]``, the number alone;
#: ``[[key|model]]`` and ``[[key|data]]``; on a line of its own ``![[key:figure]](caption)``.
RUN_FIELD = r"\[\[([\w/-]+)(?::(\w+))?(?:\|([^\]]+))?\]\]"
RUN_FIGURE = r"^!\[\[([\w/-]+):(\w+)\]\]\((.+)\)$"
#: What an article has for the number or figure of a run that a build does not have.
NOT_IN_BUILD = "(not in this build)"

#: Headings of a verdict page, with the verdicts under each.
SECTIONS = {
    "What holds": ledger.TONES["for"],
    "What does not hold": ledger.TONES["against"],
    "What depends on the reading, or cannot be tested as it is stated": (
        claims.DEPENDS,
        claims.UNDECIDED,
        claims.NOT_TESTABLE,
    ),
    "What cannot be known from this build, and what it would take": (claims.NEEDS_DATA, claims.PENDING),
}
#: Scores of the first page, ours and the baseline's: key of the run -> (metric, baseline's metric, sentence).
COMPARISONS = {
    "epilepsy/07_classification": ("auc", "rival", "`{}` on gene sentences has a held-out AUC of {}"),
    "geneformer/08_cardiomyopathy": (
        "model_macro_f1",
        "rival_macro_f1",
        "`{}`, pretrained on ranked genes and fine-tuned, has a held-out macro F1 of {}",
    ),
}


def read_choices(judged: pd.DataFrame) -> dict[str, dict]:
    """Highlights and advice of each paper.

    Raises
    ------
    DataError
        If they name a claim that does not exist.
    """
    choices, known = yaml.safe_load(CHOICES.read_text()), set(judged["id"])
    for paper, chosen in choices.items():
        named = {name for text in chosen["advice"] for name in re.findall(FIELD, text)}
        if unknown := {*chosen["highlights"], *named} - known:
            raise DataError(f"data/{CHOICES.name}: paper {paper}: {min(unknown)!r} is no claim; correct the id")
    return choices


def write_pages(profile: str, judged: pd.DataFrame, run_metrics: dict[str, dict], ways: dict[str, str]) -> None:
    """Write the parts of the first page and of the verdict pages that follow from the runs.

    Parameters
    ----------
    judged
        From `claims.table`.
    ways
        From `coverage.ways_to_decide`.
    """
    front = f"{findings(profile, judged, run_metrics)}\n\n```{{raw}} html\n{ledger.bars(judged)}\n```\n"
    write_atomically(paths.GENERATED / "findings.md", front)
    for paper, chosen in read_choices(judged).items():
        content = verdict_page(judged.loc[judged["paper"] == paper], chosen, ways)
        write_atomically(paths.GENERATED / f"verdict-{paper.lower()}.md", content)


def findings(profile: str, judged: pd.DataFrame, run_metrics: dict[str, dict]) -> str:
    """What a build found, in a few sentences."""
    kinds = judged["verdict"].map(ledger.verdict_kind)

    def count(*verdicts: str, paper: str = "") -> int:
        return int((kinds.isin(verdicts) & (judged["paper"].eq(paper) | (not paper))).sum())

    for_it, open_, against = (ledger.TONES[tone] for tone in ("for", "open", "against"))
    parts = [
        f"The book judges {len(judged)} claims of the two papers, and this is its build of the profile `{profile}`."
    ]
    for paper, number in judged["paper"].value_counts(sort=False).sort_index().items():
        parts.append(
            f"Claims of paper {paper}, {number} in all: {count(*for_it, paper=paper)} hold as far as they can be"
            f" checked, {count(*against, paper=paper)} do not, {count(*open_, paper=paper)} stay open."
        )
    reproduced, needs = count(claims.REPRODUCED), count(claims.NEEDS_DATA)
    parts.append(
        f"Reproduced by a run on the paper's own data and model: {reproduced or 'none'}; the others that hold agree"
        f" with a published file or with another place in the paper, and {needs} claims need data or models that this"
        " build does not have."
    )
    compared = [
        f"{sentence.format(run['model'], _score(run, name))}, the best baseline {_score(run, baseline)}"
        for key, (name, baseline, sentence) in COMPARISONS.items()
        if (run := run_metrics.get(key)) and {name, baseline} <= set(run["metrics"])
    ]
    if compared:
        parts.append(f"On the data of this build, {' and '.join(compared)}.")
    return " ".join(parts)


def _score(run: dict, name: str) -> str:
    return f"{run['metrics'][name]['value']:.2f}"


def verdict_page(judged: pd.DataFrame, chosen: dict, ways: dict[str, str]) -> str:
    """The highlights of a paper by what became of them, with the number of other claims, and the advice; MyST."""
    kinds = judged["verdict"].map(ledger.verdict_kind)
    highlights = judged.set_index("id", drop=False).loc[chosen["highlights"]]
    parts = []
    for heading, verdicts in SECTIONS.items():
        listed = [claim for _, claim in highlights.iterrows() if ledger.verdict_kind(claim["verdict"]) in verdicts]
        total = int(kinds.isin(verdicts).sum())
        items = "".join(f"<li>{_line(claim, ways)}</li>" for claim in listed)
        body = f"<ul>{items}</ul>" if items else ""
        if others := total - len(listed):
            body += f"<p>{'And ' if items else ''}{others} more in the <a href='claims.html'>ledger</a>.</p>"
        parts.append(f"## {heading}\n\n```{{raw}} html\n{body or '<p>No claim.</p>'}\n```\n")
    numbers = {claim["id"]: ledger.computed_text(claim) or "none" for _, claim in judged.iterrows()}
    advice = "\n".join(f"- {re.sub(FIELD, lambda name: numbers[name[1]], text)}" for text in chosen["advice"])
    return "\n".join(parts) + (f"\n## What we would tell the authors\n\n{advice}\n" if advice else "")


def _line(claim: pd.Series, ways: dict[str, str]) -> str:
    """One highlight: the quote, what the paper reports, what was computed, and the way to its card; HTML."""
    kind, computed = ledger.verdict_kind(claim["verdict"]), ledger.computed_text(claim)
    text = f"“{html.escape(ledger.quote_text(claim['quote']))}” ({html.escape(claim['locus'])}). "
    text += f"{html.escape(claim['quantity'][:1].upper() + claim['quantity'][1:])}: "
    if kind == claims.NEEDS_DATA:
        text += f"needs {html.escape(claim['needs'])}; {html.escape(ways[claim['id']])}."
    else:
        reported = f"reported {html.escape(ledger.reported_text(claim['reported']))}; " if claim["reported"] else ""
        text += f"{reported}computed {html.escape(computed) or 'nothing'}."
    return f'{text} <strong>{kind}</strong> <a href="claims.html#{ledger.card_id(claim["id"])}">{claim["id"]}</a>'


def article(template: str, profile: str, run_metrics: dict[str, dict]) -> str:
    """An article of a paper: its template with the numbers and figures of a build; MyST.

    Parameters
    ----------
    template
        MyST with fields, see `RUN_FIELD`.
    run_metrics
        Key of a run -> its metrics file.
    """

    def figure(match: re.Match) -> str:
        key, name, caption = match.groups()
        notebook, run = notebooks.split_run_key(key)
        image = paths.RESULTS / profile / notebook / run / "figures" / f"{name}.png"
        if key not in run_metrics or not image.exists():
            return f"*{caption}* {NOT_IN_BUILD}"
        label = markup.output_label(f"article/{key}", "fig", name)
        lines = [f":::{{figure}} {os.path.relpath(image, paths.BOOK)}", f":name: {label}", f":alt: {caption}"]
        return "\n".join([*lines, ":class: epigen-figure", "", f"{caption} From {{doc}}`/{key}`.", ":::"])

    def field(match: re.Match) -> str:
        key, metric, form = match.groups()
        run = run_metrics.get(key)
        if run is None or (metric and metric not in run["metrics"]):
            return NOT_IN_BUILD
        if metric:
            number = run["metrics"][metric]
            return f"{number['value']:{form}}" if form else markup.measured(number)
        if form == "model":
            return run["model"]
        titles = [registry.entries()[name].title for name in run["datasets"] if name in registry.entries()]
        return ", ".join(map(markup.escape_text, titles[:1])) or "your own data"

    return re.sub(RUN_FIELD, field, re.sub(RUN_FIGURE, figure, template, flags=re.MULTILINE))
