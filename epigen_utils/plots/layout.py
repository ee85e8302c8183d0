"""What plots share: panels, legends, axes, named points, rows of estimates, lines, stacked bars and matrices."""

from collections.abc import Iterable, Iterator, Sequence

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import seaborn as sns
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Patch
from matplotlib.ticker import PercentFormatter

from epigen_utils.plots import style

sns.set_theme(style="ticks")
style.set_house_style()


def group_order(labels: pd.Series) -> list[str]:
    """Groups in the order in which colours are assigned: the reference first."""
    return list(labels.cat.categories) if hasattr(labels, "cat") else sorted(labels.unique())


def groups(labels: pd.Series) -> Iterator[tuple[str, np.ndarray, dict[str, str]]]:
    """Each group, whether each sample is in it, and its colour and marker as matplotlib's options."""
    levels = group_order(labels)
    colour, marker = style.colours(levels), style.markers(levels)
    for level in levels:
        yield level, (labels == level).to_numpy(), {"color": colour[level], "marker": marker[level]}


def short_number(value: float, _position: int) -> str:
    """A short tick label: 250000 as 250k."""
    return f"{value / 1000:g}k" if abs(value) >= 10_000 else f"{value:g}"


def group_legend(ax: Axes, labels: pd.Series, **options) -> Axes:
    """Legend of the groups for a plot coloured by group; ``options`` go to `matplotlib.axes.Axes.legend`."""
    handles = [
        Patch(color=look["color"], label=f"{level} (n = {members.sum()})") for level, members, look in groups(labels)
    ]
    ax.legend(handles=handles, **options)
    return ax


def legend_above(ax: Axes, *, x: float = 0.5, **options) -> None:
    """Legend above the axes, centred at ``x``; ``options`` go to `matplotlib.axes.Axes.legend`."""
    ax.legend(loc="lower center", bbox_to_anchor=(x, 1.0), **options)


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


def name_points(
    ax: Axes, points: np.ndarray, names: Sequence[str], *, span: Sequence, offset: tuple = (3, 2), **options
) -> None:
    """Write names beside points, those that `spaced_labels` chooses with ``options``; ``span`` is that of the axes."""
    for i in spaced_labels(points / span, **options):
        ax.annotate(names[i], points[i], xytext=offset, textcoords="offset points", fontsize=7)


def called_points(
    ax: Axes, x: pd.Series, y: pd.Series, called: pd.Series, *, colour: str = style.HIGHLIGHT, size: float = 6
) -> None:
    """Dots coloured where a test calls them; the labels count both kinds."""
    for rows, shade, word in ((~called, style.MUTED, "not called"), (called, colour, "called")):
        label = f"{word} ({rows.sum():,})"
        ax.scatter(x[rows], y[rows], s=size, color=shade, edgecolor="none", label=label, rasterized=True)


def log_scale(ax: Axes, names: str, *, form: str = "{x:,g}", base: int = 10) -> None:
    """Make axes (``"x"``, ``"y"`` or ``"xy"``) logarithmic with plain numbers: the house style draws no mathematics."""
    for name in names:
        getattr(ax, f"set_{name}scale")("log", base=base)
        axis = getattr(ax, f"{name}axis")
        axis.set_major_formatter(form)
        axis.set_minor_formatter("")


def percent(ax: Axes, names: str) -> None:
    """Write the shares on axes (``"x"``, ``"y"`` or ``"xy"``) in per cent."""
    for name in names:
        getattr(ax, f"{name}axis").set_major_formatter(PercentFormatter(1))


def rows(ax: Axes, names: Iterable[str], *, margin: float | None = None, **options) -> None:
    """Name the rows 0, 1, ... from the top; ``margin`` is the space beyond the first and the last."""
    names = list(names)
    ax.set_yticks(range(len(names)), names, **options)
    if margin is None:
        ax.invert_yaxis()
    else:
        ax.set_ylim(len(names) - 1 + margin, -margin)


def columns(ax: Axes, names: Iterable[str], *, margin: float = 0.5, **options) -> None:
    """Name the columns 0, 1, ... from the left; ``margin`` is the space beyond the first and the last."""
    names = list(names)
    ax.set_xticks(range(len(names)), names, **options)
    ax.set_xlim(-margin, len(names) - 1 + margin)


def sample_ticks(ax: Axes, names: Sequence[str], *, most: int) -> bool:
    """Names of samples below the axes if there are at most ``most``; returns whether they are written."""
    few = len(names) <= most
    ax.set_xticks(range(len(names)) if few else [], names if few else [], rotation=90, fontsize=8)
    return few


def intervals(
    ax: Axes,
    table: pd.DataFrame,
    value: str,
    *,
    ends: tuple[str, str] = ("low", "high"),
    at: np.ndarray | None = None,
    vertical: bool = False,
    colour: str = style.PALETTE[2],
    linewidth: float = 2,
    marker: str = "o",
    **options,
) -> None:
    """Estimates as markers on their intervals, one row (or column, if ``vertical``) per row of a table.

    Parameters
    ----------
    value, ends
        Columns with the estimate and with the ends of its interval.
    at
        Positions across the intervals; by default 0, 1, ...
    options
        For the markers, passed to `matplotlib.axes.Axes.plot`.
    """
    at = np.arange(len(table)) if at is None else at
    draw = ax.vlines if vertical else ax.hlines
    draw(at, table[ends[0]], table[ends[1]], color=colour, linewidth=linewidth)
    x, y = (at, table[value]) if vertical else (table[value], at)
    ax.plot(x, y, marker, color=colour, **options)


def error_bars(
    ax: Axes, table: pd.DataFrame, value: str, at: np.ndarray, *, colour: str, marker: str, **options
) -> None:
    """Estimates at the heights ``at`` with intervals from ``low`` to ``high`` as error bars, which the legend shows."""
    errors = [(table[value] - table["low"]).to_numpy(), (table["high"] - table[value]).to_numpy()]
    ax.errorbar(table[value].to_numpy(), at, xerr=errors, fmt=marker, color=colour, markersize=5, **options)


def lines(
    ax: Axes, tables: Iterable[tuple[str, pd.DataFrame]], x: str, y: str, *, most_markers: float = np.inf, **options
) -> None:
    """Column ``y`` against column ``x``, one line per named table; without markers beyond ``most_markers`` points."""
    options = {"markersize": 4} | options
    for name, table, colour, marker in style.series(tables):
        marker = marker if len(table) <= most_markers else ""
        ax.plot(table[x], table[y], color=colour, marker=marker, label=name, **options)


def stacked_bars(
    ax: Axes, names: Iterable[str], parts: dict[str, np.ndarray], colours: Iterable = style.PALETTE[1:], **options
) -> None:
    """Horizontal bars from the top, stacked from parts (part -> one width per bar)."""
    names = list(names)
    left = np.zeros(len(names))
    for (part, widths), colour in zip(parts.items(), colours, strict=False):
        ax.barh(names, widths, left=left, color=colour, label=part, **options)
        left = left + np.asarray(widths)
    ax.invert_yaxis()


def noted_bars(ax: Axes, names: Iterable[str], values: pd.Series, notes: Iterable[str]) -> None:
    """Horizontal bars from the top, with a note at the end of each."""
    bars = ax.barh(names, values, color=style.PALETTE[2], height=0.65)
    ax.bar_label(bars, list(notes), fontsize=8)
    ax.invert_yaxis()
    ax.set_xlim(0, values.max() * 1.15)


def points_with_mean(
    ax: Axes, x: float, offsets: np.ndarray, values: pd.Series, *, reach: float, linewidth: float = 1.5, **dots
) -> None:
    """Values as dots in a column at ``x``, each moved by its offset, and their mean as a bar from ``x`` ± ``reach``."""
    ax.scatter(x + offsets, values, **dots)
    ax.hlines(values.mean(), x - reach, x + reach, color="black", linewidth=linewidth)


def annotated_matrix(
    ax: Axes,
    table: pd.DataFrame,
    notes: pd.DataFrame,
    *,
    white: pd.DataFrame | None = None,
    label: str = "",
    fontsize: float = 8,
    box: dict[str, object] | None = None,
    **options,
) -> None:
    """A table as an image with a text in each cell.

    Parameters
    ----------
    notes
        Texts, of the table's shape; an empty one is not drawn.
    white
        Whether each text is white instead of black, of the table's shape; by default, all have the house's colour.
    label
        Label of the colour bar; without it, there is none.
    fontsize, box
        Size of the texts, and the patch behind each.
    options
        For `matplotlib.axes.Axes.imshow`.
    """
    image = ax.imshow(table, **{"aspect": "auto"} | options)
    for (y, x), note in np.ndenumerate(notes.to_numpy()):
        if note:
            colour = None if white is None else "white" if white.iat[y, x] else "black"
            ax.text(x, y, note, ha="center", va="center", color=colour, fontsize=fontsize, bbox=box)
    ax.set_xticks(range(table.shape[1]), table.columns)
    ax.set_yticks(range(table.shape[0]), table.index)
    ax.tick_params(length=0)
    if label:
        ax.figure.colorbar(image, ax=ax, label=label, pad=0.02)


def clustermap(table: pd.DataFrame, *, label: str, label_size: float, **options) -> sns.matrix.ClusterGrid:
    """A clustered heat map; ``label`` is the colour bar's, ``label_size`` the size of the names of rows and columns."""
    # clustermap lays its axes out itself.
    with plt.rc_context({"figure.constrained_layout.use": False}):
        grid = sns.clustermap(table, cbar_kws={"label": label}, **options)
    grid.ax_cbar.tick_params(labelsize=7)
    grid.ax_heatmap.tick_params(labelsize=label_size, length=0)
    return grid
