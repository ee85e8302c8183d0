"""Which genes are of which class: published lists, and what a simulation planted.

Paper B, section 1; Theodoris et al. 2023. Of the two classes of a task the first is the positive one.
"""

import json

import anndata
import numpy as np
import pandas as pd
from scipy.spatial.distance import cdist

from epigen_utils import registry
from epigen_utils.errors import DataError, closest

#: Tasks of Theodoris et al. 2023 -> the file of the registry's entry; of its two classes the first is the positive one.
TASKS = {
    "dosage sensitivity": "dosage_sensitivity_TFs",
    "chromatin": "bivalent_vs_lys4_only",
    "chromatin, no methylation": "bivalent_vs_no_methyl",
    "chromatin, genome-wide": "bivalent_vs_lys4_only_genomewide",
    "range of factors": "tf_regulatory_range",
    "network position": "n1_network",
    "network targets": "n1_target",
}
#: AUC of official Geneformer, fine-tuned, by fold, and the mean (weighted by fold) and sd that it prints; its
#: examples/gene_classification.ipynb.
PUBLISHED = {"dosage sensitivity": {"folds": (0.9373, 0.9411, 0.9635, 0.8904, 0.8782), "mean": 0.914, "sd": 0.032}}
#: Planted tasks whose classes stand pair by pair, the same place in both lists.
PAIRED = ("planted regulators", "planted network position")


def listed(name: str) -> dict[str, dict[str, list[str]]]:
    """Published classes: task -> class -> Ensembl ids, the positive class first; a gene listed in both classes is left out."""
    files = registry.fetch(name)
    found = {}
    for task, role in TASKS.items():
        if role in files:
            first, second = json.loads(files[role].read_text()).items()
            both = set(first[1]) & set(second[1])
            found[task] = {kind.replace("_", " "): sorted(set(members) - both) for kind, members in (first, second)}
    return found


def planted(adata: anndata.AnnData, expression: pd.DataFrame, *, seed: int = 0) -> dict[str, dict[str, list[str]]]:
    """Classes that a simulation knows, as `listed` gives them.

    Regulators stand against targets, and genes of three regulators or more against genes of none, both in pairs of like
    expression; housekeeping genes against any other, so that expression tells them apart.

    Parameters
    ----------
    adata
        With ``var`` columns ``regulator`` and ``housekeeping`` and ``varm["regulon"]`` (genes x regulators), as a simulated corpus has.
    expression
        Genes that may be taken, by Ensembl id, x measures; `gene_classes.expression_of`.

    Raises
    ------
    DataError
        If nothing is planted in the data.
    """
    if "regulon" not in adata.varm or not {"regulator", "housekeeping"} <= set(adata.var):
        raise DataError("gene classes: no network is planted in these cells; name label lists, such as gene-classes")
    about = adata.var.set_index("ensembl_id")[["regulator", "housekeeping"]]
    about["regulators"] = (adata.varm["regulon"].to_numpy() != 0).sum(axis=1)
    about = about.loc[[gene for gene in expression.index if gene in about.index]]
    plain = ~about["regulator"] & ~about["housekeeping"]
    pools = {
        "planted regulators": (about["regulator"], plain & (about["regulators"] > 0), ("regulator", "target")),
        "planted network position": (
            plain & (about["regulators"] >= 3),
            plain & (about["regulators"] == 0),
            ("three regulators or more", "no regulator"),
        ),
    }
    found = {}
    for task, (positive, others, names) in pools.items():
        pairs = alike(list(about.index[positive]), list(about.index[others]), expression)
        found[task] = dict(zip(names, pairs, strict=True))
    kept, rest = list(about.index[about["housekeeping"]]), list(about.index[plain])
    drawn = np.random.default_rng(seed).choice(rest, min(len(kept), len(rest)), replace=False)
    found["planted housekeeping"] = {"housekeeping": kept, "other": sorted(drawn)}
    return found


def alike(
    genes: list[str], others: list[str], table: pd.DataFrame, *, within: float = 0.15
) -> tuple[list[str], list[str]]:
    """Pairs of a gene and another that is near it in a table, none taken twice; genes that have none near are left out.

    Parameters
    ----------
    table
        Genes x measures; distances are taken with each measure scaled to one standard deviation.
    within
        The greatest distance of a pair.
    """
    if not genes or not others:
        return [], []
    scaled = table / table.std()
    apart = cdist(scaled.loc[genes], scaled.loc[others])
    first, second = [], []
    # Those that are hardest to place choose first.
    for row in np.argsort(-apart.min(axis=1), kind="stable"):
        nearest = int(np.argmin(apart[row]))
        if apart[row, nearest] <= within:
            first.append(genes[row])
            second.append(others[nearest])
            apart[:, nearest] = np.inf
    return first, second


def chosen(labels: dict[str, dict[str, list[str]]], tasks: list[str]) -> dict[str, dict[str, list[str]]]:
    """The tasks asked for, in that order; all of them where none is named.

    Raises
    ------
    DataError
        If there is no such task.
    """
    for task in tasks:
        if task not in labels:
            raise DataError(f"task {task!r}: {closest(task, labels)}")
    return {task: labels[task] for task in tasks or labels}


def members(
    task: str, classes: dict[str, list[str]], n_cells: pd.Series, *, least: int = 5, n_splits: int = 5
) -> pd.DataFrame:
    """Genes of a task that enough cells show: ``positive`` and ``pair`` by Ensembl id; genes of a pair have one number.

    Parameters
    ----------
    classes
        Positive class first.
    n_cells
        Cells that show each gene, by Ensembl id; `hidden_states.embed_genes`.

    Raises
    ------
    DataError
        If a class has fewer such genes than there are folds.
    """
    parts = []
    for kind, ids in classes.items():
        pair = np.arange(len(ids)) + (0 if task in PAIRED else sum(len(part) for part in parts))
        part = pd.DataFrame({"positive": kind == next(iter(classes)), "pair": pair}, index=ids)
        parts.append(part)
    found = pd.concat(parts)
    shown = found[n_cells.reindex(found.index, fill_value=0).to_numpy() >= least]
    for kind, part in zip(classes, parts, strict=True):
        if (n := len(part.index.intersection(shown.index))) < n_splits:
            raise DataError(
                f"{task}: {n} of {len(part)} genes of class {kind!r} are shown by {least} cells or more, "
                f"fewer than the {n_splits} folds; give more cells, longer cells or fewer folds, or leave the task out"
            )
    return shown


def counted(
    labels: dict[str, dict[str, list[str]]], tasks: dict[str, pd.DataFrame], n_cells: pd.Series, total: int
) -> pd.DataFrame:
    """Genes of each class: ``task``, ``class``, ``listed``, ``used``, and ``shown in`` (share of the cells, mean over those used).

    Parameters
    ----------
    tasks
        Task -> `members`.
    total
        Cells that were asked.
    """
    rows = []
    for task, found in tasks.items():
        for kind, ids in labels[task].items():
            used = found.index.intersection(ids)
            share = n_cells[used].mean() / total
            rows.append({"task": task, "class": kind, "listed": len(ids), "used": len(used), "shown in": share})
    return pd.DataFrame(rows)
