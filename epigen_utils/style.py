"""Colours and fonts, once."""

from collections.abc import Iterable
from pathlib import Path

import matplotlib.pyplot as plt

#: Okabe and Ito's palette, told apart by colour-blind readers; the reference group takes the first, grey.
PALETTE = ("#7f7f7f", "#d55e00", "#0072b2", "#009e73", "#cc79a7", "#e69f00", "#56b4e9", "#f0e442")
MARKERS = "osD^vP*X"
#: Differences from a mean, below to above.
DIVERGING = "vlag"
HIGHLIGHT = "#d55e00"
MUTED = "#9aa0a6"


def use() -> None:
    """Make the house style matplotlib's own."""
    plt.style.use(Path(__file__).with_name("epigen.mplstyle"))


def colours(levels: Iterable[str]) -> dict[str, str]:
    """A colour for each level, in the order given; the palette repeats after eight."""
    return {level: PALETTE[i % len(PALETTE)] for i, level in enumerate(levels)}


def markers(levels: Iterable[str]) -> dict[str, str]:
    """A marker for each level, so that groups differ without colour too."""
    return {level: MARKERS[i % len(MARKERS)] for i, level in enumerate(levels)}
