"""A scatter plot whose points show their name on hover, tap or keyboard focus: inline SVG without script.

It works from ``file://`` and in print, and needs only the rules for it in ``book/_static/epigen.css``.
"""

import html
from typing import NamedTuple

import pandas as pd
from matplotlib.ticker import MaxNLocator

from epigen_utils.plots import style

#: Size of the SVG, in pixels.
WIDTH, HEIGHT = 720, 460
#: Margins around the axes, in pixels: left, right, top, bottom.
MARGINS = (78, 16, 14, 58)


def scatter_svg(table: pd.DataFrame, *, x: str, y: str, name: str, group: str = "") -> str:
    """Scatter plot as an SVG element.

    Parameters
    ----------
    table
        One row per point: columns ``x`` and ``y`` (numbers; the names label the axes), ``name``, and optionally
        ``group``, whose levels are coloured in order of appearance.

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
        cx, cy = across.pixel(row[x]), up.pixel(row[y])
        text = html.escape(f"{row[name]}: {row[x]:.3g}, {row[y]:.3g}")
        anchor, offset = (' text-anchor="end"', -9) if cx > WIDTH * 0.6 else ("", 9)
        shade = colour[row[group]] if group else style.PALETTE[2]
        parts.append(
            f'<g class="point" tabindex="0"><circle cx="{cx:.1f}" cy="{cy:.1f}" r="5" fill="{shade}"/>'
            f'<text x="{cx + offset:.1f}" y="{cy - 7:.1f}"{anchor}>{text}</text></g>'
        )
    for i, (level, shade) in enumerate(colour.items()):
        top = MARGINS[2] + 18 + 21 * i
        parts.append(
            f'<circle cx="{WIDTH - 190}" cy="{top - 5}" r="6" fill="{shade}"/>'
            f'<text class="legend" x="{WIDTH - 178}" y="{top}">{html.escape(str(level))}</text>'
        )
    return (
        f'<svg class="epigen-hover" viewBox="0 0 {WIDTH} {HEIGHT}" role="img" '
        f'aria-label="{html.escape(f"{y} against {x}, a point each {name}")}">{"".join(parts)}</svg>'
    )


class _Scale(NamedTuple):
    """Linear map of the values ``low`` to ``high`` onto the pixels ``first`` to ``last``."""

    low: float
    high: float
    first: float
    last: float

    def pixel(self, value: float) -> float:
        return self.first + (value - self.low) / (self.high - self.low) * (self.last - self.first)

    def ticks(self) -> list[float]:
        values = MaxNLocator(6, steps=[1, 2, 5, 10]).tick_values(self.low, self.high)
        return [value for value in values if self.low <= value <= self.high]


def _scale(values: pd.Series, first: float, last: float) -> _Scale:
    """Scale that covers the values with a margin of 5%."""
    low, high = float(values.min()), float(values.max())
    margin = (high - low) * 0.05 or 1.0
    return _Scale(low - margin, high + margin, first, last)


def _axis(scale: _Scale, label: str, *, horizontal: bool) -> list[str]:
    """SVG elements of an axis: line, tick labels and label."""
    bottom, left = HEIGHT - MARGINS[3], MARGINS[0]
    first, last = scale.first, scale.last
    ends = (first, bottom, last, bottom) if horizontal else (left, first, left, last)
    parts = ['<line x1="{:.1f}" y1="{:.1f}" x2="{:.1f}" y2="{:.1f}"/>'.format(*ends)]
    anchor = "middle" if horizontal else "end"
    for tick in scale.ticks():
        pixel = scale.pixel(tick)
        x, y = (pixel, bottom + 20) if horizontal else (left - 8, pixel + 5)
        parts.append(f'<text class="tick" x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}">{tick:g}</text>')
    middle = (first + last) / 2
    position = (
        f'x="{middle:.1f}" y="{HEIGHT - 12}"' if horizontal else f'transform="translate(18 {middle:.1f}) rotate(-90)"'
    )
    parts.append(f'<text class="label" {position} text-anchor="middle">{html.escape(label)}</text>')
    return parts
