"""A scatter whose points say their name when they are pointed at, tapped or reached by the tab key: inline SVG, no script.

It works from ``file://`` and in print; what it needs beside the page is a rule of ``book/_static/epigen.css``.
"""

import html

import numpy as np
import pandas as pd
from matplotlib.ticker import MaxNLocator

from epigen_utils import style

WIDTH, HEIGHT = 720, 460
#: Left, right, top, bottom.
MARGINS = (78, 16, 14, 58)


def scatter(table: pd.DataFrame, *, x: str, y: str, name: str, group: str = "") -> str:
    """The SVG.

    Parameters
    ----------
    table
        A row a point: columns ``x`` and ``y`` (numbers, also the axes' labels), ``name``, and ``group``, whose levels are coloured in their
        order.

    Raises
    ------
    ValueError
        If a coordinate is missing.
    """
    if table[[x, y]].isna().any(axis=None):
        raise ValueError(f"points without {x} or {y}: leave them out")
    across, up = _scale(table[x], MARGINS[0], WIDTH - MARGINS[1]), _scale(table[y], HEIGHT - MARGINS[3], MARGINS[2])
    colour = style.colours(dict.fromkeys(table[group])) if group else {}
    parts = [*_axis(across, x, horizontal=True), *_axis(up, y, horizontal=False)]
    for row in table.to_dict("records"):
        at, over = across["place"](row[x]), up["place"](row[y])
        said = f"{row[name]}: {row[x]:.3g}, {row[y]:.3g}"
        end = ' text-anchor="end"' if at > WIDTH * 0.6 else ""
        shade = colour[row[group]] if group else style.PALETTE[2]
        parts.append(
            f'<g class="point" tabindex="0"><circle cx="{at:.1f}" cy="{over:.1f}" r="5" fill="{shade}"/>'
            f'<text x="{at + (-9 if end else 9):.1f}" y="{over - 7:.1f}"{end}>{html.escape(said)}</text></g>'
        )
    for place, (level, shade) in enumerate(colour.items()):
        top = MARGINS[2] + 18 + 21 * place
        parts.append(
            f'<circle cx="{WIDTH - 190}" cy="{top - 5}" r="6" fill="{shade}"/>'
            f'<text class="legend" x="{WIDTH - 178}" y="{top}">{html.escape(str(level))}</text>'
        )
    return (
        f'<svg class="epigen-hover" viewBox="0 0 {WIDTH} {HEIGHT}" role="img" '
        f'aria-label="{html.escape(f"{y} against {x}, a point each {name}")}">{"".join(parts)}</svg>'
    )


def _scale(values: pd.Series, first: float, last: float) -> dict[str, object]:
    low, high = float(values.min()), float(values.max())
    pad = (high - low) * 0.05 or 1.0
    low, high = low - pad, high + pad

    def place(value: float) -> float:
        return first + (value - low) / (high - low) * (last - first)

    ticks = [tick for tick in MaxNLocator(6, steps=[1, 2, 5, 10]).tick_values(low, high) if low <= tick <= high]
    return {"place": place, "ticks": np.array(ticks), "ends": (first, last)}


def _axis(scale: dict[str, object], label: str, *, horizontal: bool) -> list[str]:
    parts = []
    bottom, left = HEIGHT - MARGINS[3], MARGINS[0]
    first, last = scale["ends"]
    ends = (first, bottom, last, bottom) if horizontal else (left, first, left, last)
    parts.append('<line x1="{:.1f}" y1="{:.1f}" x2="{:.1f}" y2="{:.1f}"/>'.format(*ends))
    for tick in scale["ticks"]:
        at = scale["place"](tick)
        x, y = (at, bottom + 20) if horizontal else (left - 8, at + 5)
        anchor = "middle" if horizontal else "end"
        parts.append(f'<text class="tick" x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}">{tick:g}</text>')
    middle = (first + last) / 2
    where = (
        f'x="{middle:.1f}" y="{HEIGHT - 12}"' if horizontal else f'transform="translate(18 {middle:.1f}) rotate(-90)"'
    )
    parts.append(f'<text class="label" {where} text-anchor="middle">{html.escape(label)}</text>')
    return parts
