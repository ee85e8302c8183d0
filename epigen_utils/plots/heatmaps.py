"""Figures that lay out their own axes: clustered heat maps and sample distances."""

import pandas as pd
import seaborn as sns
from matplotlib.figure import Figure
from matplotlib.patches import Patch
from scipy.cluster.hierarchy import linkage
from scipy.spatial.distance import squareform

from epigen_utils.expression import normalisation
from epigen_utils.plots import layout, style
from epigen_utils.stats import clustering


def clustered_heatmap(
    table: pd.DataFrame,
    tracks: pd.DataFrame,
    *,
    names: pd.Series | None = None,
    members: dict[str, list[str]] | None = None,
    value: str,
) -> Figure:
    """Genes x samples, genes standardised, both clustered by Ward linkage on Pearson distance (1 - r).

    Parameters
    ----------
    table
        Samples x genes; genes that are constant over samples have no correlation and are left out.
    tracks
        Samples x categorical columns, such as group and batch, each a colour bar over the samples.
    names
        Gene id -> displayed name.
    members
        Set -> gene ids, a colour bar beside the genes; a gene in several sets takes the colour of the first.
    value
        Name of the values before scaling, for the colour bar's label.

    Raises
    ------
    ValueError
        If fewer than two genes vary.
    """
    table = normalisation.gene_zscores(table)
    if table.shape[1] < 2:
        raise ValueError("a heat map needs at least two genes that vary over samples")
    scaled = table.T
    shades = {name: _shades(tracks[name], i) for i, name in enumerate(tracks)}
    column_colours = pd.DataFrame(
        {name: tracks[name].astype(str).map(shades[name]) for name in tracks}, index=tracks.index
    )
    sets = {name: [gene for gene in ids if gene in scaled.index] for name, ids in (members or {}).items()}
    sets = {name: ids for name, ids in sets.items() if ids}
    set_colours = dict(zip(sets, sns.color_palette("Set2", len(sets)), strict=True))
    row_colours = pd.Series("white", index=scaled.index, name="panel", dtype=object)
    for name, ids in reversed(sets.items()):
        row_colours[ids] = [set_colours[name]] * len(ids)
    row_colours.index = scaled.index = [str(gene if names is None else names.get(gene, gene)) for gene in scaled.index]
    few = len(tracks) <= 40
    height = 2.6 + 0.2 * len(scaled)
    grid = layout.clustermap(
        scaled,
        label=f"{value}\n(z by gene)",
        label_size=8,
        row_linkage=clustering.ward_on_pearson(table.T),
        col_linkage=clustering.ward_on_pearson(table),
        col_colors=column_colours.to_numpy().T.tolist(),
        row_colors=list(row_colours) if sets else None,
        cmap=style.DIVERGING,
        center=0,
        figsize=(7.5, height),
        dendrogram_ratio=(0.14, 0.12 if len(scaled) > 30 else 0.2),
        colors_ratio=(0.025, 0.2 / height),
        cbar_pos=(0.01, 0.88, 0.02, 0.1),
        xticklabels=few,
        yticklabels=True,
    )
    grid.ax_cbar.yaxis.label.set_size(7)
    grid.ax_heatmap.set(xlabel="" if few else f"{len(tracks)} samples", ylabel="")
    _legend_beside(grid, shades | ({"panel": set_colours} if sets else {}))
    return grid.figure


def _shades(labels: pd.Series, track: int) -> dict[str, object]:
    """Colours of a track's levels: the group palette for track 0, softer palettes for later tracks."""
    levels = [str(level) for level in layout.group_order(labels)]
    if track == 0:
        return style.colours(levels)
    return dict(zip(levels, sns.color_palette(("pastel", "Set3")[track % 2], len(levels)), strict=True))


def distance_heatmap(table: pd.DataFrame, labels: pd.Series) -> Figure:
    """Samples x samples distances in the order of an average-linkage tree; groups as a colour bar."""
    colour = _shades(labels, 0)
    tree = linkage(squareform(table.to_numpy(), checks=False), method="average")
    size = min(3.5 + 0.26 * len(table), 9)
    few = len(table) <= 40
    trees = {"row_linkage": tree, "col_linkage": tree, "row_colors": [colour[label] for label in labels]}
    sizes = {"figsize": (size + 1, size), "dendrogram_ratio": 0.12, "colors_ratio": 0.025}
    names = {"label_size": 8, "xticklabels": few, "yticklabels": few}
    cbar_pos = (0.01, 0.86, 0.02, 0.12)
    grid = layout.clustermap(table, label="distance", cmap="mako", cbar_pos=cbar_pos, **trees, **sizes, **names)
    _legend_beside(grid, {str(labels.name or ""): colour})
    return grid.figure


def _legend_beside(grid: sns.matrix.ClusterGrid, tracks: dict[str, dict[str, object]]) -> None:
    """One legend for all tracks, each under its own heading."""
    handles = []
    for name, shades in tracks.items():
        handles.append(Patch(alpha=0, label=name))
        handles += [Patch(color=shade, label=level) for level, shade in shades.items()]
    legend = grid.figure.legend(handles=handles, loc="upper left", bbox_to_anchor=(1.0, 1.0), fontsize=8)
    for text in legend.get_texts():
        if text.get_text() in tracks:
            text.set_fontweight("bold")
