"""Labels of gene classification tasks: published gene lists, and classes planted by a simulation.

Paper B, section 1; Theodoris et al. 2023. The first of a task's two classes is the positive one.
"""

import json

import anndata
import numpy as np
import pandas as pd
from scipy.spatial.distance import cdist

from epigen_utils.data import fetching, registry
from epigen_utils.errors import DataError, suggest

#: Task of Theodoris et al. 2023 -> file of the registry's entry; the first of its two classes is the positive one.
PUBLISHED_TASKS = registry.read_data_file("gene_class_tasks.yml")["files"]
#: Task -> AUC of official Geneformer, fine-tuned: ``folds``, and the printed ``mean`` and ``sd``.
PUBLISHED_AUCS = registry.read_data_file("gene_class_tasks.yml")["auc"]
#: Planted tasks with matched pairs: a gene and its match have the same position in both lists.
PAIRED_TASKS = ("planted regulators", "planted network position")


def published_labels(name: str) -> dict[str, dict[str, list[str]]]:
    """Published classes: task -> class -> Ensembl ids, the positive class first; genes listed in both are left out."""
    files = fetching.fetch(name)
    labels = {}
    for task, role in PUBLISHED_TASKS.items():
        if role in files:
            first, second = json.loads(files[role].read_text()).items()
            both = set(first[1]) & set(second[1])
            labels[task] = {kind.replace("_", " "): sorted(set(members) - both) for kind, members in (first, second)}
    return labels


def planted_labels(
    adata: anndata.AnnData, expression: pd.DataFrame, *, seed: int = 0
) -> dict[str, dict[str, list[str]]]:
    """Classes planted by a simulation, in the format of `published_labels`.

    Regulators against targets, and genes of three or more regulators against genes of none, both in pairs matched by
    expression; housekeeping genes against a random sample of other genes, a task that expression alone can solve.

    Parameters
    ----------
    adata
        Simulated corpus: ``var`` columns ``regulator`` and ``housekeeping``, ``varm["regulon"]`` (genes x regulators).
    expression
        Eligible genes, by Ensembl id, x measures; `gene_classes.expression_features`.

    Raises
    ------
    DataError
        If the data have no planted network.
    """
    if "regulon" not in adata.varm or not {"regulator", "housekeeping"} <= set(adata.var):
        raise DataError("gene classes: no network is planted in these cells; name label lists, such as gene-classes")
    roles = adata.var.set_index("ensembl_id")[["regulator", "housekeeping"]]
    roles["regulators"] = (adata.varm["regulon"].to_numpy() != 0).sum(axis=1)
    roles = roles.loc[[gene for gene in expression.index if gene in roles.index]]
    ordinary = ~roles["regulator"] & ~roles["housekeeping"]
    pools = {
        "planted regulators": (roles["regulator"], ordinary & (roles["regulators"] > 0), ("regulator", "target")),
        "planted network position": (
            ordinary & (roles["regulators"] >= 3),
            ordinary & (roles["regulators"] == 0),
            ("three regulators or more", "no regulator"),
        ),
    }
    labels = {}
    for task, (positive, negative, names) in pools.items():
        pairs = matched_pairs(list(roles.index[positive]), list(roles.index[negative]), expression)
        labels[task] = dict(zip(names, pairs, strict=True))
    housekeeping, rest = list(roles.index[roles["housekeeping"]]), list(roles.index[ordinary])
    drawn = np.random.default_rng(seed).choice(rest, min(len(housekeeping), len(rest)), replace=False)
    labels["planted housekeeping"] = {"housekeeping": housekeeping, "other": sorted(drawn)}
    return labels


def matched_pairs(
    genes: list[str], others: list[str], measures: pd.DataFrame, *, max_distance: float = 0.15
) -> tuple[list[str], list[str]]:
    """Match genes to others with similar measures, without replacement; genes without a match are left out.

    Parameters
    ----------
    measures
        Genes x measures; distances are computed on measures scaled to unit standard deviation.
    max_distance
        Largest distance of a pair.
    """
    if not genes or not others:
        return [], []
    scaled = measures / measures.std()
    distances = cdist(scaled.loc[genes], scaled.loc[others])
    first, second = [], []
    # Genes with the most distant neighbours are matched first.
    for row in np.argsort(-distances.min(axis=1), kind="stable"):
        nearest = int(np.argmin(distances[row]))
        if distances[row, nearest] <= max_distance:
            first.append(genes[row])
            second.append(others[nearest])
            distances[:, nearest] = np.inf
    return first, second


def select_tasks(labels: dict[str, dict[str, list[str]]], tasks: list[str]) -> dict[str, dict[str, list[str]]]:
    """Select tasks, in the order given; all tasks if the list is empty.

    Raises
    ------
    DataError
        If a task is unknown.
    """
    for task in tasks:
        if task not in labels:
            raise DataError(f"task {task!r}: {suggest(task, labels)}")
    return {task: labels[task] for task in tasks or labels}


def task_genes(
    task: str, classes: dict[str, list[str]], n_cells: pd.Series, *, min_cells: int = 5, n_splits: int = 5
) -> pd.DataFrame:
    """Genes of a task expressed in enough cells: ``positive`` and ``pair`` (number of the pair) by Ensembl id.

    Parameters
    ----------
    classes
        Class -> Ensembl ids, the positive class first.
    n_cells
        Number of cells that express each gene, by Ensembl id; `embeddings.embed_genes`.
    min_cells
        Smallest number of cells.

    Raises
    ------
    DataError
        If a class has fewer such genes than there are folds.
    """
    parts = []
    for kind, ids in classes.items():
        pair = np.arange(len(ids)) + (0 if task in PAIRED_TASKS else sum(len(part) for part in parts))
        part = pd.DataFrame({"positive": kind == next(iter(classes)), "pair": pair}, index=ids)
        parts.append(part)
    table = pd.concat(parts)
    expressed = table[n_cells.reindex(table.index, fill_value=0).to_numpy() >= min_cells]
    for kind, part in zip(classes, parts, strict=True):
        if (n := len(part.index.intersection(expressed.index))) < n_splits:
            raise DataError(
                f"{task}: {n} of {len(part)} genes of class {kind!r} are detected in {min_cells} cells or more, "
                f"fewer than the {n_splits} folds; give more cells, longer cells or fewer folds, or leave the task out"
            )
    return expressed


def genes_of_tasks(
    labels: dict[str, dict[str, list[str]]], n_cells: pd.Series, **options: int
) -> tuple[dict[str, pd.DataFrame], list[str]]:
    """Genes of each task with enough genes detected in these cells (`task_genes`), and why other tasks are left out.

    Raises
    ------
    DataError
        If no task is left.
    """
    tables, left_out = {}, []
    for task, classes in labels.items():
        try:
            tables[task] = task_genes(task, classes, n_cells, **options)
        except DataError as error:
            left_out.append(str(error))
    if not tables:
        raise DataError(left_out[0])
    return tables, left_out


def class_sizes(
    labels: dict[str, dict[str, list[str]]], tasks: dict[str, pd.DataFrame], n_cells: pd.Series, total: int
) -> pd.DataFrame:
    """Size of each class: ``task``, ``class``, ``listed``, ``used``, ``shown in`` (share of cells, mean over genes).

    Parameters
    ----------
    tasks
        Task -> output of `task_genes`.
    total
        Number of all cells.
    """
    rows = []
    for task, genes in tasks.items():
        for kind, ids in labels[task].items():
            used = genes.index.intersection(ids)
            share = n_cells[used].mean() / total
            rows.append({"task": task, "class": kind, "listed": len(ids), "used": len(used), "shown in": share})
    return pd.DataFrame(rows)
