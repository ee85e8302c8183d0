"""The ledger: claims as cards and as bars of verdicts, in HTML; a script filters the cards of the claims page."""

import html
import json
import re
from collections.abc import Collection

import numpy as np
import pandas as pd

from epigen_utils import paths
from epigen_utils.book import claims, markup
from epigen_utils.files import write_atomically

#: Which way a verdict goes, for its colour.
TONES = {
    "for": (claims.REPRODUCED, claims.AGREES, claims.CONSISTENT),
    "open": (claims.DEPENDS, claims.UNDECIDED, claims.NOT_TESTABLE, claims.NEEDS_DATA, claims.PENDING),
    "against": (claims.NOT_ATTAINABLE, claims.INCONSISTENT, claims.DIFFERS, claims.NOT_REPRODUCED),
}
#: What decides a claim, in words.
EVIDENCE = {
    "run": "a run on its own data and model",
    "file": "a published file",
    "paper": "the paper's own text, tables and figures",
    "design": "what the stated design allows",
}


def verdict_kind(verdict: str) -> str:
    """A verdict without what it names after a colon."""
    return verdict.partition(":")[0]


def reported_text(reported: str) -> str:
    """What the paper reports, with the tolerance by which a number agrees."""
    if not reported:
        return "no number"
    for sign, words in {">": "more than ", "<": "less than ", "=": "exactly "}.items():
        if reported.startswith(sign):
            return words + _digits(reported[1:])
    if ".." in reported:
        return " to ".join(map(_digits, reported.split("..")))
    slack = np.format_float_positional(claims.tolerance(reported), trim="-")
    slack = f"{float(slack):,.0f}" if float(slack) >= 1000 else slack
    about = "about " if reported.startswith("~") else ""
    return f"{about}{_digits(reported.removeprefix('~'))} (± {slack})"


def _digits(written: str) -> str:
    return f"{float(written):,.0f}" if "e" in written else written


def quote_text(quote: str) -> str:
    """A quote without the marks of the source text's mathematics and emphasis."""
    for mark, sign in {r"\sim ": "~", r"\%": "%", r"\alpha": "α", "*": "", "$": ""}.items():
        quote = quote.replace(mark, sign)
    return quote


def computed_text(claim: pd.Series) -> str:
    """The numbers of a claim with their intervals, n and, for a method check, data; empty if there are none."""
    if claim["readings"]:
        return claim["readings"]
    value = claim["method_check"] if pd.isna(claim["reproduced"]) else claim["reproduced"]
    if pd.isna(value):
        return ""
    checked = "" if claim["decided"] else f", on {claim['data']}"
    return markup.measured({"value": value, **claim[["low", "high", "n"]]}) + checked


def summary_rows(judged: pd.DataFrame) -> pd.DataFrame:
    """A row a claim for the terminal: claim, quantity, reported, computed, verdict."""
    return pd.DataFrame(
        {
            "claim": judged["id"],
            "quantity": judged["quantity"],
            "reported": judged["reported"].map(reported_text),
            "computed": [computed_text(claim) for _, claim in judged.iterrows()],
            "verdict": judged["verdict"],
        }
    )


def _tone(kind: str) -> str:
    return next(tone for tone, kinds in TONES.items() if kind in kinds)


def card(claim: pd.Series, *, root: str = "", anchor: bool = False, ids: Collection[str] = ()) -> str:
    """A claim as HTML.

    Parameters
    ----------
    ids
        Ids of claims; where the premise names one, it leads to its card.
    root
        Way from the page to the book's root, such as ``../``.
    anchor
        Whether the card is the claim's own, to which its id leads elsewhere in the book.
    """
    kind = verdict_kind(claim["verdict"])
    chapter = claim["metric"].partition(":")[0]
    identity = f' id="{card_id(claim["id"])}"' if anchor else ""
    ledger = "" if anchor else f"{root}claims.html"
    # The label is a heading for both screen readers and eyes: what was computed counts only where it decides.
    facts = {
        "quantity": html.escape(claim["quantity"]),
        "reported": html.escape(reported_text(claim["reported"])),
        "this book" if claim["decided"] else "method check": html.escape(computed_text(claim)),
        "premise": _linked(html.escape(claim["premise"]), ledger, ids),
        "decided by": html.escape(f"{EVIDENCE[claim['evidence']]}: {claim['needs']}"),
        "shown in": f'<a href="{root}{claim["shown"]}">{chapter}</a>' if claim["shown"] else chapter,
    }
    rows = "".join(f"<dt>{name}</dt><dd>{fact}</dd>" for name, fact in facts.items() if fact)
    return (
        f'<article class="epigen-claim epigen-{_tone(kind)}"{identity} data-paper="{claim["paper"]}"'
        f' data-verdict="{kind}" data-evidence="{claim["evidence"]}" data-chapter="{chapter.partition("--")[0]}">'
        f'<p class="epigen-claim-head"><span class="epigen-claim-id">{_link(claim["id"], ledger)}</span>'
        f'<strong class="epigen-verdict">{html.escape(claim["verdict"])}</strong></p>'
        f"<blockquote>“{html.escape(quote_text(claim['quote']))}”"
        f" <cite>Paper {claim['paper']}, {html.escape(claim['locus'])}</cite></blockquote><dl>{rows}</dl></article>"
    )


def _linked(text: str, ledger: str, ids: Collection[str]) -> str:
    """Text in which each id of a claim leads to its card."""
    if not ids:
        return text
    pattern = rf"(?<![\w-])(?:{'|'.join(map(re.escape, sorted(ids, key=len, reverse=True)))})(?![\w-])"
    return re.sub(pattern, lambda found: _link(found[0], ledger), text)


def _link(claim: str, ledger: str) -> str:
    return f'<a href="{ledger}#{card_id(claim)}">{claim}</a>'


def card_id(claim: str) -> str:
    """The id of a claim's card in the ledger; scripts of the theme take it for a CSS selector, which has no dots."""
    return f"claim-{claim.replace('.', '-')}"


def cards(judged: pd.DataFrame, *, root: str = "", anchor: bool = False) -> str:
    """The cards of claims, as one block of HTML."""
    ids = set(claims.read_claims()["id"])
    inside = "\n".join(card(claim, root=root, anchor=anchor, ids=ids) for _, claim in judged.iterrows())
    return f'<div class="epigen-claims">\n{inside}\n</div>'


def bars(judged: pd.DataFrame) -> str:
    """The claims of each paper as a bar of verdicts; a part leads to its claims in the ledger. HTML, with a legend."""
    counts = claims.count_verdicts(judged)
    lines = []
    for paper in counts.columns:
        parts = []
        for kind, count in counts[paper][counts[paper] > 0].items():
            link = f"claims.html?paper={paper}&amp;verdict={kind.replace(' ', '+')}"
            parts.append(
                f'<a class="{_shade(kind)}" style="flex-grow:{count}" href="{link}"'
                f' title="{kind}: {count}" aria-label="Paper {paper}, {kind}: {count} claims">{count}</a>'
            )
        lines.append(f'<p class="epigen-bar-name">Paper {paper}: {counts[paper].sum()} claims</p>')
        lines.append(f'<div class="epigen-bar">{"".join(parts)}</div>')
    legend = [f'<li><span class="{_shade(kind)}"></span>{kind}: {row.sum()}</li>' for kind, row in counts.iterrows()]
    return f'<div class="epigen-bars">{"".join(lines)}<ul class="epigen-legend">{"".join(legend)}</ul></div>'


def _shade(kind: str) -> str:
    """CSS classes of a verdict: its tone, and its shade among those of this tone."""
    tone = _tone(kind)
    return f"epigen-{tone} epigen-shade-{TONES[tone].index(kind)}"


#: Fields by which the claims page is filtered: attribute of a card -> its name on the page.
FILTERS = {"paper": "Paper", "verdict": "Verdict", "evidence": "Decided by", "chapter": "Chapter"}


def _filter_form(judged: pd.DataFrame) -> str:
    """The controls, hidden until the script that serves them shows them."""
    values = {
        "paper": {paper: paper for paper in sorted(judged["paper"].unique())},
        "verdict": {kind: kind for kind in claims.count_verdicts(judged).index},
        "evidence": {key: words for key, words in EVIDENCE.items() if key in set(judged["evidence"])},
        "chapter": {key: key for key in dict.fromkeys(judged["metric"].str.extract(r"^([^:-]+)")[0])},
    }
    fields = []
    for name, title in FILTERS.items():
        options = "".join(
            f'<option value="{html.escape(key)}">{html.escape(text)}</option>' for key, text in values[name].items()
        )
        fields.append(f'<label>{title}<select name="{name}"><option value="">all</option>{options}</select></label>')
    return (
        f'<form class="epigen-filter" hidden>{"".join(fields)}<button type="reset">Show all</button>'
        '<output aria-live="polite"></output></form>'
    )


def write_claims_page(profile: str, pending: set[str]) -> pd.DataFrame:
    """Write the cards of the claims page, and all claims as CSV and JSON.

    Parameters
    ----------
    pending
        Keys of runs that are not finished; their claims have the verdict `claims.PENDING`.

    Returns
    -------
    The judged claims.
    """
    judged = claims.table(profile, pending)
    csv = paths.RESULTS / profile / "claims.csv"
    write_atomically(csv, judged.to_csv(index=False))
    write_atomically(csv.with_suffix(".json"), json.dumps(json.loads(judged.to_json(orient="records")), indent=1))
    page = [f"```{{raw}} html\n{bars(judged)}\n{_filter_form(judged)}\n{cards(judged, anchor=True)}\n```\n"]
    for path, name in ((csv, "CSV"), (csv.with_suffix(".json"), "JSON")):
        page.append(f"{{download}}`All claims as {name} </../{path.relative_to(paths.ROOT)}>`\n")
    write_atomically(paths.GENERATED / "claims.md", "\n".join(page))
    return judged
