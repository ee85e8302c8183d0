"""Text and tables as MyST and as HTML; every character of the data appears as written."""

import html
import re

import numpy as np
import pandas as pd
from docutils.nodes import make_id

_SPECIAL_CHARACTERS = re.compile(r"([\\`*_{}\[\]()#+\-.!|$~:@^=])")


def escape_text(value: object) -> str:
    """Data as MyST text, with its markup and HTML escaped."""
    escaped = html.escape(str(value), quote=False)
    return _SPECIAL_CHARACTERS.sub(r"\\\1", escaped).replace("\n", " ")


def number(value: float) -> str:
    """A number as cards and pages print it: whole from a thousand on, with three significant digits below."""
    if pd.isna(value):
        return "none"
    if value == 0 or abs(value) >= 1000 or float(value).is_integer():
        return f"{value:,.0f}"
    return np.format_float_positional(value, precision=3, unique=False, fractional=False, trim="-")


def measured(metric: dict) -> str:
    """A metric of ``metrics.json`` as text: its value, interval and n, as far as it has them."""
    low, high, n = (metric.get(key) for key in ("low", "high", "n"))
    parts = [] if low is None or pd.isna(low) else [f"{number(low)} to {number(high)}"]
    parts += [] if n is None or pd.isna(n) else [f"n = {n:,.0f}"]
    return number(metric["value"]) + (f" ({'; '.join(parts)})" if parts else "")


def with_interval(value: float, low: float, high: float, form: str = ".2f") -> str:
    """A number and its interval as text, such as ``0.81 (0.75 to 0.86)``; what is missing is left out."""
    if pd.isna(value):
        return ""
    return f"{value:{form}}" + ("" if pd.isna(low) else f" ({low:{form}} to {high:{form}})")


def output_label(key: str, kind: str, name: str) -> str:
    """Label of a figure (``fig``) or table (``tab``) of a run, unique in the book."""
    return f"{key.replace('/', '-')}-{kind}-{name}"


def anchor(label: str) -> str:
    """The id that Sphinx gives a label in a page's HTML."""
    return make_id(label)


def myst_table(frame: pd.DataFrame, *, caption: str, label: str) -> str:
    """A numbered table; the caption is MyST, the cells are data."""
    lines = [
        ":::{table} " + caption,
        f":name: {label}",
        f":class: epigen-table{' full-width' if frame.shape[1] > 7 else ''}",
        "",
        "| " + " | ".join(escape_text(column) for column in frame.columns) + " |",
        "|" + "|".join(" ---: " if _is_numeric(frame[column]) else " --- " for column in frame.columns) + "|",
    ]
    lines += ["| " + " | ".join(escape_text(cell) for cell in row) + " |" for row in frame.itertuples(index=False)]
    return "\n".join([*lines, ":::", ""])


def _is_numeric(column: pd.Series) -> bool:
    """Whether all cells of a formatted column are numbers or empty; such a column is set flush right."""
    cells = [cell for cell in column.astype(str) if cell]
    return bool(cells) and all(re.fullmatch(r"[-+]?[\d,.]+(e[-+]?\d+)?%?", cell) for cell in cells)


def html_table(frame: pd.DataFrame, *, caption: str) -> str:
    """The table of `myst_table` as HTML, for Jupyter."""
    return frame.to_html(index=False, escape=True, border=0) + f"<p>{html.escape(caption)}</p>"


def plain_text(myst: str) -> str:
    """A caption as plain text, without MyST escapes and roles."""
    return html.unescape(re.sub(r"\\(.)", r"\1", re.sub(r"\{[\w:]+\}`([^`<]*)[^`]*`", r"\1", myst)))
