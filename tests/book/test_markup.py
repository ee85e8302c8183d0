import pandas as pd
import pytest
from markdown_it import MarkdownIt

from epigen_utils.book import markup

NASTY = [
    "<script>alert(1)</script>",
    "a|b",
    "*bold*",
    "`code`",
    "[x](y)",
    "$1+1$",
    "{ref}`x`",
    "# h",
    "1. a",
    "a_b_c",
    "&lt;",
    "~x~",
]


@pytest.mark.parametrize("name", NASTY)
def test_text_comes_out_as_written(name):
    """Rendered by markdown-it, the escaped text reads as the data did, with no element made of it."""
    html = MarkdownIt("commonmark").enable("table").render(markup.escape_text(name))
    assert html == f"<p>{name.replace('&', '&amp;').replace('<', '&lt;').replace('>', '&gt;')}</p>\n"


def test_a_table_keeps_its_cells():
    frame = pd.DataFrame({"gene": NASTY, "n": range(len(NASTY))})
    html = (
        MarkdownIt("commonmark")
        .enable("table")
        .render("\n".join(markup.myst_table(frame, caption="c", label="l").splitlines()[4:-1]))
    )
    assert html.count("<tr>") == len(NASTY) + 1
    assert "<script>" not in html
    assert "<strong>" not in html
    assert "<em>" not in html


def test_html_table_escapes():
    assert "<script>" not in markup.html_table(pd.DataFrame({"gene": NASTY}), caption="<b>")


def test_plain_undoes_text():
    for name in NASTY[:6]:
        assert markup.plain_text(markup.escape_text(name)) == name


@pytest.mark.parametrize(
    ("value", "expected"),
    [(2048.0, "2,048"), (11800.4, "11,800"), (0.90, "0.9"), (0.0312345, "0.0312"), (-2.061, "-2.06"), (3.0, "3")],
)
def test_numbers_are_as_a_reader_writes_them(value, expected):
    assert markup.number(value) == expected
