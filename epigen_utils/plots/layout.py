"""Layout helpers shared by all plots: the order of groups, panels, legends and label thinning."""

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import seaborn as sns
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Patch

from epigen_utils.plots import style

sns.set_theme(style="ticks")
style.set_house_style()


def group_order(labels: pd.Series) -> list[str]:
    """Groups in the order in which colours are assigned: the reference first."""
    return list(labels.cat.categories) if hasattr(labels, "cat") else sorted(labels.unique())


def short_number(value: float, _position: int) -> str:
    """A short tick label: 250000 as 250k."""
    return f"{value / 1000:g}k" if abs(value) >= 10_000 else f"{value:g}"


def group_legend(ax: Axes, labels: pd.Series, **options) -> Axes:
    """Legend of the groups for a plot coloured by group; ``options`` go to `matplotlib.axes.Axes.legend`."""
    levels = group_order(labels)
    sizes = labels.value_counts()
    ax.legend(
        handles=[
            Patch(color=colour, label=f"{level} (n = {sizes[level]})")
            for level, colour in style.colours(levels).items()
        ],
        **options,
    )
    return ax


def panels(n: int, *, columns: int, width: float, height: float) -> tuple[Figure, list[Axes]]:
    """A figure of ``n`` axes, each ``width`` x ``height`` inches, in rows of at most ``columns``."""
    columns = min(n, columns)
    rows = -(-n // columns)
    figure, grid = plt.subplots(rows, columns, figsize=(width * columns, height * rows), squeeze=False)
    for ax in grid.flat[n:]:
        ax.remove()
    return figure, list(grid.flat[:n])


def spaced_labels(positions: np.ndarray, *, gap: tuple[float, float], limit: int | None = None) -> list[int]:
    """Points whose names fit beside those of the points before them.

    Parameters
    ----------
    positions
        Points x 2, the most important first, in units of the axes' spans.
    gap
        Names overlap if their points are nearer than this in both directions.

    Returns
    -------
    list of int
        Rows of ``positions``, at most ``limit``.
    """
    chosen: list[int] = []
    for i, position in enumerate(positions):
        if all((np.abs(position - positions[j]) >= gap).any() for j in chosen):
            chosen.append(i)
    return chosen[:limit]
