import anndata
import datasets as arrow
import numpy as np
import pandas as pd
import pytest

from epigen_utils.data import datasets, fetching, readers, registry
from epigen_utils.errors import DataError


def refused(*arguments, **more) -> str:
    with pytest.raises(DataError) as caught:
        datasets.load(*arguments, **more)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_table_two_is_as_printed(cache):
    adata = datasets.load("table-two")
    assert adata.shape == (12, 20)
    assert adata["DM3", "LL0000013464"].layers["counts"].item() == 468572
    assert adata["5b1_3", "LL0000023936"].layers["counts"].item() == 59685
    assert adata.obs["condition"].value_counts().to_dict() == {"mutant": 9, "WT": 3}
    assert adata.obs["genotype"].value_counts().to_dict() == {"WT": 3, "DM": 3, "5a1": 3, "5b1": 3}
    assert adata.obs["condition"].cat.categories[0] == "WT"
    assert adata.uns["epigen"]["nature"] == "real"


def test_own_text_and_h5ad_give_the_same(table_files, tmp_path):
    counts, samples = table_files()
    text = datasets.load(counts, metadata=samples, group="condition")
    assert text.layers["counts"].dtype == np.int64
    assert text.layers["counts"].tolist() == [[5, 1, 10], [6, 0, 20], [7, 3, 30], [8, 4, 40]]
    text.copy().write_h5ad(tmp_path / "same.h5ad")
    again = datasets.load(tmp_path / "same.h5ad", group="condition", reference="b")
    assert again.layers["counts"].tolist() == text.layers["counts"].tolist()
    assert list(again.obs["condition"].cat.categories) == ["b", "a"]


def test_a_named_donor_must_be_there(table_files):
    counts, samples = table_files()
    assert "no donor column 'animal'" in refused(counts, metadata=samples, group="condition", donor="animal")
    assert "no donor column 'cel'" in refused("airway", donor="cel")


def test_the_share_of_integers_is_that_of_the_file(small, tmp_path):
    small.layers["counts"] = small.layers["counts"] + 1e-9
    small.write_h5ad(tmp_path / "noise.h5ad")
    adata = datasets.load(tmp_path / "noise.h5ad", group="condition")
    assert adata.layers["counts"].dtype == np.int64
    assert adata.uns["share_of_integers"] == 0
    assert datasets.load("table-two").uns["share_of_integers"] == 1


def test_other_mistakes(table_files, tmp_path):
    counts, samples = table_files()
    assert "no such file" in refused(tmp_path / "lost.h5ad")
    assert "did you mean 'airway'?" in refused("airwy")
    assert "no group column 'treatment'" in refused(counts, metadata=samples, group="treatment")
    assert "is annotation, not an expression matrix" in refused("gene-sets")
    (tmp_path / "counts.ods").write_text("x")
    assert "give .h5ad, .csv, .tsv (also .gz) or .xlsx" in refused(tmp_path / "counts.ods")
    (tmp_path / "counts.xlsx").write_text("x")
    assert "counts.xlsx: cannot be read as a table" in refused(tmp_path / "counts.xlsx")
    (tmp_path / "bad.h5ad").write_text("not HDF5")
    assert "cannot be read as h5ad" in refused(tmp_path / "bad.h5ad")
    assert "is a directory" in refused(tmp_path, group="condition")
    assert "task 'group': did you mean 'groups'?" in refused("table-two", task="group")
    (tmp_path / "bars.csv").write_text("gene:a:b\ng1:1:2\n")
    assert "one column only" in refused(tmp_path / "bars.csv")
    (tmp_path / "latin.csv").write_bytes("sample,note\na1,caf\xe9\n".encode("latin-1"))
    assert "latin.csv: cannot be read as a table" in refused(counts, metadata=tmp_path / "latin.csv")
    (tmp_path / "corrupt.csv.gz").write_bytes(b"\x1f\x8b\x08\x00" + bytes(range(60)))
    assert "cannot be read" in refused(tmp_path / "corrupt.csv.gz")
    (tmp_path / "void.csv").write_text("")
    assert "empty, 0 samples x 0 genes" in refused(tmp_path / "void.csv")


def test_simulated_sets_keep_their_truth():
    adata = datasets.load("negative-binomial-sim")
    assert adata.uns["epigen"]["nature"] == "simulated"
    assert (adata.varm["log2_fold_change"]["control"] == 0).all()
    assert (adata.varm["log2_fold_change"]["mutant"] != 0).sum() == 100
    again = datasets.load("negative-binomial-sim")
    assert again.uns["epigen"]["sha256"] == adata.uns["epigen"]["sha256"]


EXPECTED = {
    "rat-epilepsy": ((18, 17455), {"SalineSham": 6, "3ClassV1": 5, "Sham": 4, "3ClassV2": 3}),
    "human-tle": ((6, 78932), {"Temporal lobe autopsy control (TL)": 3, "Temporal lobe epilepsy (TLE)": 3}),
    "zebrafish-mecp2": ((20, 32520), {"mutant": 10, "WT": 10}),
    "mouse-fmr1": ((16, 22485), {"FMR1": 8, "WT": 8}),
    "rat-ketogenic": ((11, 15923), {"control": 6, "ketogenic": 5}),
    "pig-cystic-fibrosis": ((2722, 1339), {"CFTRKO": 1491, "WT": 1231}),
    "pbmc-40": ((7811, 1000), None),
    "cardiac-ipsc": ((1090, 18443), {"day2": 590, "day5": 500}),
}


@pytest.mark.parametrize("name", EXPECTED)
def test_real_sets_have_the_shapes_and_groups_that_are_published(mirror, name):
    shape, groups = EXPECTED[name]
    adata = datasets.load(name)
    assert adata.shape == shape
    if groups:
        assert adata.obs[adata.uns["epigen"]["group"]].value_counts().to_dict() == groups


def test_every_expression_entry_names_a_reader():
    for entry in registry.entries().values():
        if entry.kind in ("bulk", "cells") and not any(spec.simulated for spec in entry.files.values()):
            assert entry.read in readers.READERS, entry.name


def test_load_does_not_change_the_file(small, tmp_path):
    path = tmp_path / "own.h5ad"
    small.write_h5ad(path)
    before = path.read_bytes()
    datasets.load(path, group="condition")
    assert path.read_bytes() == before
    assert anndata.read_h5ad(path).uns["epigen"]["name"] == "small"


#: Data set of Expression Atlas -> species' genes in the table, samples of the reference and of the other group, and the sign
#: that the published fold changes have beside those of the registry's contrast.
ATLAS = {
    "slc2a5-xenografts": (58735, (5, 5), -1),
    "klf1-erythroid": (55573, (3, 3), -1),
    "prostate-paired": (61860, (14, 14), 1),
    "elp3-bt549": (58735, (3, 3), -1),
    "dmd-myoblasts": (56748, (3, 6), -1),
    "mdx-myoblasts": (56748, (3, 3), -1),
    "mdx-bgeo-myoblasts": (56748, (3, 3), -1),
}


@pytest.mark.parametrize("name", ATLAS)
def test_the_contrasts_of_expression_atlas(name):
    n_genes, sizes, sign = ATLAS[name]
    adata = datasets.load(name, task="donors" if name == "prostate-paired" else "groups")
    groups = adata.obs["condition"]
    assert adata.n_vars == n_genes
    assert tuple(groups.value_counts(sort=False)) == sizes, "the reference is the first level"
    counts = adata.layers["counts"]
    share = counts / counts.sum(axis=1, keepdims=True)
    reference = (groups == groups.cat.categories[0]).to_numpy()
    published = pd.read_csv(fetching.fetch("deseq2-r-atlas")[name], sep="\t", index_col=0)["log2_fold_change"]
    assert set(published.index) == set(adata.var_names[counts.sum(axis=0) > 0])
    many = (counts > 100).all(axis=0)
    change = np.log2(share[~reference][:, many].mean(axis=0) / share[reference][:, many].mean(axis=0))
    assert sign * np.corrcoef(change, published[adata.var_names[many]])[0, 1] > 0.9


def test_patients_are_blocks_and_the_parts_of_one_study_share_their_controls():
    prostate = datasets.load("prostate-paired")
    assert pd.crosstab(prostate.obs["individual"], prostate.obs["condition"]).eq(1).all(axis=None)
    whole, *parts = (datasets.load(name) for name in ("dmd-myoblasts", "mdx-myoblasts", "mdx-bgeo-myoblasts"))
    assert set(whole.obs_names) == set.union(*(set(part.obs_names) for part in parts))
    for part in parts:
        np.testing.assert_array_equal(part.layers["counts"], whole[part.obs_names, part.var_names].layers["counts"])


STATED = """
atlas:
  title: t
  species: homo_sapiens
  kind: annotation
  real: true
  licence: l
  citation: c
  card: c
  stated:
    records: {{cells: {n}}}
    keep: {{cell_type: [Cardiomyocyte1, Cardiomyocyte2]}}
  files:
    cells: {{hub: someone/Atlas:cells.dataset}}
"""


def publish(hub, **columns):
    """A data set on the hub of the entry above."""
    folder = hub.add("someone/Atlas") / "cells.dataset"
    arrow.Dataset.from_dict(columns).save_to_disk(folder, num_shards=2)
    return folder


def test_stated_cells_are_those_of_the_kept_types_in_a_folder_of_arrow(cache, hub, with_registry):
    publish(hub, cell_type=["Cardiomyocyte1", "Fibroblast", "Cardiomyocyte2"] * 4)
    with_registry(STATED.format(n=8))
    assert list(datasets.check_stated("atlas")) == [(True, "atlas: records of cells: 8, stated 8: holds")]
    with_registry(STATED.format(n=12).replace("    keep", "    # keep"))
    assert list(datasets.check_stated("atlas")) == [(True, "atlas: records of cells: 12, stated 12: holds")]
    with_registry(STATED.format(n="9..12"))
    assert list(datasets.check_stated("atlas")) == [(False, "atlas: records of cells: 8, stated 9..12: DOES NOT HOLD")]


@pytest.mark.parametrize("torn", [False, True])
def test_a_folder_of_arrow_without_the_column_or_torn_is_a_finding(cache, hub, with_registry, torn):
    folder = publish(hub, type=["a", "b"])
    if torn:
        next(folder.glob("*.arrow")).write_bytes(b"<html>no such file</html>")
    with_registry(STATED.format(n=8))
    ((holds, line),) = datasets.check_stated("atlas")
    assert not holds
    assert "atlas: what is stated of it cannot be checked: " in line
    assert line.endswith(f"delete {cache}/atlas/cells, fetch it again")
    assert "\n" not in line


def test_only_what_has_counts_can_be_loaded_for_what_is_stated(with_registry):
    with_registry("\n".join(STATED.format(n=8).splitlines()).replace("records: {cells: 8}", "table: table-two"))
    ((holds, line),) = datasets.check_stated("atlas")
    assert not holds
    assert "atlas: is annotation, not an expression matrix" in line
