import numpy as np
import pandas as pd
import pytest

from epigen_utils.data import simulated_cells
from epigen_utils.downstream import gene_classes, gene_labels
from epigen_utils.errors import DataError

GENES = [f"ENSG{i:03d}" for i in range(90)]


def test_members_are_those_that_enough_cells_show():
    n = pd.Series(5, GENES[:40])
    n.iloc[3] = 4
    found = gene_labels.task_genes("t", {"a": GENES[:10], "b": GENES[20:60]}, n)
    assert found["positive"].sum() == 9
    assert len(found) == 29
    assert found["pair"].is_unique
    counted = gene_labels.class_sizes({"t": {"a": GENES[:10], "b": GENES[20:60]}}, {"t": found}, n, 10)
    assert counted[["listed", "used"]].to_numpy().tolist() == [[10, 9], [40, 20]]
    assert counted["shown in"].tolist() == [0.5, 0.5]
    with pytest.raises(
        DataError, match=r"t: 3 of 10 genes of class 'a' are detected in 5 cells or more, fewer than the 5"
    ):
        gene_labels.task_genes("t", {"a": GENES[37:47], "b": GENES[:20]}, n)
    with pytest.raises(DataError, match="task 'dosage sensitivty': did you mean 'dosage sensitivity'"):
        gene_labels.select_tasks(dict.fromkeys(gene_labels.PUBLISHED_TASKS, {}), ["dosage sensitivty"])
    assert list(gene_labels.select_tasks({"x": {}, "y": {}}, [])) == ["x", "y"]


def test_pairs_are_near_and_none_is_taken_twice():
    near = pd.DataFrame({"mean": [0, 1, 5, 0.01, 1.01, 1.02, -9]}, list("abcdefg"), dtype=float)
    first, second = gene_labels.matched_pairs(list("abc"), list("defg"), near)
    assert dict(zip(first, second, strict=True)) == {"a": "d", "b": "e"}
    assert gene_labels.matched_pairs(list("abc"), [], near) == ([], [])


def test_planted_classes(small):
    adata = simulated_cells.cell_corpus(n_cells=300, n_genes=2500, seed=1)
    genes = list(adata.var["ensembl_id"])
    alone = gene_classes.expression_features(gene_classes.log_expression(adata, genes), genes)
    found = gene_labels.planted_labels(adata, alone)
    assert list(found) == ["planted regulators", "planted network position", "planted housekeeping"]
    n_regulators = (adata.varm["regulon"] != 0).sum(axis=1)
    many, none = found["planted network position"].values()
    assert len(many) == len(none) == len(set(none)) > 5
    assert (n_regulators[many] >= 3).all()
    assert (n_regulators[none] == 0).all()
    gap = (alone.loc[many].to_numpy() - alone.loc[none].to_numpy()) / alone.std().to_numpy()
    assert np.sqrt(np.square(gap).sum(axis=1)).max() <= 0.15
    assert adata.var["regulator"][found["planted regulators"]["regulator"]].all()
    with pytest.raises(DataError, match="no network is planted in these cells"):
        gene_labels.planted_labels(small, alone)


def test_the_published_lists():
    lists = gene_labels.published_labels("gene-classes")
    assert set(lists) == set(gene_labels.PUBLISHED_TASKS) - {"chromatin, genome-wide"}, "which is fetched"
    assert [len(ids) for ids in lists["dosage sensitivity"].values()] == [122, 368]
    # The file lists some genes twice, and one in both classes.
    assert [len(ids) for ids in lists["chromatin"].values()] == [95, 77]
    for classes in lists.values():
        first, second = classes.values()
        assert not set(first) & set(second)
        assert all(gene.startswith("ENSG") for gene in first + second)
