"""Colours, markers and fonts of all figures."""

from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import matplotlib.pyplot as plt

#: Okabe and Ito's palette, which colour-blind readers can distinguish; the reference group takes the first, grey.
PALETTE = ("#7f7f7f", "#d55e00", "#0072b2", "#009e73", "#cc79a7", "#e69f00", "#56b4e9", "#f0e442")
MARKERS = "osD^vP*X"
#: Colour map for differences from a mean, from below to above.
DIVERGING = "vlag"
HIGHLIGHT = "#d55e00"
MUTED = "#9aa0a6"
#: Lines of reference: at chance or a nominal level, and at zero.
DASHED = {"color": MUTED, "linestyle": "--", "linewidth": 1}
THIN = {"color": MUTED, "linewidth": 0.8}


def set_house_style() -> None:
    """Set the house style in matplotlib's parameters."""
    plt.style.use(Path(__file__).with_name("epigen.mplstyle"))


def colours(levels: Iterable[str]) -> dict[str, str]:
    """Level -> colour, in the order given; the palette repeats after eight levels."""
    return {level: PALETTE[i % len(PALETTE)] for i, level in enumerate(levels)}


def markers(levels: Iterable[str]) -> dict[str, str]:
    """Level -> marker, so that groups differ without colour too."""
    return {level: MARKERS[i % len(MARKERS)] for i, level in enumerate(levels)}


def series(pairs: Iterable[tuple[str, Any]], palette: tuple = PALETTE[1:]) -> Iterator[tuple[str, Any, str, str]]:
    """Name, data, colour and marker of each series, as many as the palette has colours."""
    for (name, data), colour, marker in zip(pairs, palette, MARKERS, strict=False):
        yield name, data, colour, marker
