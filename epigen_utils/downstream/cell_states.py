"""States of cells: their choice from the labels that there are, and what a user's data set of cells allows."""

from collections.abc import Sequence

import numpy as np
import pandas as pd
from scipy import sparse

from epigen_utils.data import cell_source, datasets, orthologs, registry, sample_table, schema
from epigen_utils.errors import DataError, suggest
from epigen_utils.geneformer import cell_cohorts


def check_states(
    labels: np.ndarray, *, start: str, goal: str, alternatives: Sequence[str], column: str
) -> tuple[str, str, list[str]]:
    """Start, goal and other states, as the cells have them.

    Parameters
    ----------
    labels
        State of each cell.
    column
        Column that they are of, for the message.

    Raises
    ------
    DataError
        If no cell is in one of them, or two of them are the same.
    """
    levels, named = sorted(set(map(str, labels))), {}
    for role, word in (("start", start), ("goal", goal), *(("alternatives", word) for word in alternatives)):
        level = schema.find_level(levels, word)
        if level is None:
            raise DataError(f"{role} {word!r}: no cell is so in {column!r}; {suggest(str(word), levels)}")
        if level in named:
            raise DataError(f"{role} {word!r}: is the {named[level]} too; name another state ({', '.join(levels)})")
        named[level] = role
    start, goal, *others = named
    return start, goal, others


def describe_cells(
    dataset: str,
    *,
    kind: str = "",
    keep: str = "",
    start: str = "",
    goal: str = "",
    **options: str | bool,
) -> tuple[dict | None, list[str]]:
    """What a data set of cells allows, with all that chapters would refuse it for.

    Parameters
    ----------
    dataset, options
        Arguments of `datasets.load`; ``group`` is the column of the labels.
    keep
        As in `cell_cohorts.load_cell_cohort`.
    kind
        ``cells`` or ``bulk``; found out if empty (`cell_source.kind_of`).

    Returns
    -------
    ``kind``, ``cells`` (their number), ``gigabytes`` (of their counts), ``group`` and ``donor`` (columns), ``sizes``
    (label -> donors) and ``labels_of`` (``donor`` or ``cell``); None for samples of bulk. Sentences for the user.

    Raises
    ------
    DataError
        If the data set cannot be loaded or read as human genes, or it lacks a column, a state or a cell to keep.
    """
    if kind not in ("", "cells", "bulk"):
        raise DataError(f"--kind {kind}: write cells or bulk, or leave it out")
    registered = registry.entries().get(dataset)
    if kind == "bulk" or (registered and registered.kind != "cells"):
        return None, []
    adata = datasets.load(dataset, task="counts", **options)
    found, evidence = cell_source.kind_of(adata)
    if not (kind or registered) and found == "bulk":
        return None, [f"{evidence[:-1]}; --kind cells if they are cells."]
    adata = orthologs.humanise(adata)
    about = adata.uns["epigen"]
    rows = cell_cohorts.selected_rows(dataset, adata.obs, keep)
    counts = sparse.csr_matrix(adata.layers["counts"])
    facts = {"kind": "cells", "cells": len(rows), "gigabytes": round(12e-9 * counts.nnz, 3), "sizes": {}}
    lines = [f"{dataset}: {adata.n_obs:,} cells x {adata.n_vars:,} genes; --kind bulk if they are samples"]
    lines += [note for note in about.get("notes", ()) if note != evidence] + ([] if kind else [evidence])
    columns = {role: about[role] for role in ("group", "donor") if about.get(role)}
    table = adata.obs.iloc[rows]
    if "group" in columns and "donor" in columns:
        complete = ~table[list(columns.values())].astype(object).isin(sample_table.MISSING).any(axis=1)
        table = table[complete & table[list(columns.values())].notna().all(axis=1)]
        labels, donors = (table[column].astype(str).to_numpy() for column in columns.values())
        pairs = pd.DataFrame({"label": labels, "donor": donors}).drop_duplicates()
        facts["sizes"] = pairs.groupby("label").size().to_dict()
        facts["labels_of"] = "cell" if pairs["donor"].duplicated().any() else "donor"
        of_each = "donors have cells of several" if facts["labels_of"] == "cell" else "each donor has one"
        sizes = ", ".join(f"{name} {n}" for name, n in facts["sizes"].items())
        lines.append(f"{columns['group']}, with donors: {sizes}; {of_each}, so labels are of {facts['labels_of']}s")
        if start or goal:
            column = columns["group"]
            for role, word in (("start", start), ("goal", goal)):
                if not word:
                    raise DataError(f"--{role}: a perturbation needs it; name one of {', '.join(facts['sizes'])}")
            check_states(labels, start=start, goal=goal, alternatives=(), column=column)
    return facts | columns, lines
