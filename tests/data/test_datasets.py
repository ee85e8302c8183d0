import anndata
import numpy as np
import pytest

from epigen_utils.data import datasets, readers, registry
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


def test_gzipped_tsv(table_files, tmp_path):
    import gzip

    path = tmp_path / "counts.tsv.gz"
    with gzip.open(path, "wt") as stream:
        stream.write(table_files.counts.replace(",", "\t"))
    assert datasets.load(path).shape == (4, 3)
    path.write_bytes(path.read_bytes()[:30])
    assert "cannot be read" in refused(path)


def test_counts_in_x_or_raw(small, tmp_path):
    counts = small.layers.pop("counts")
    small.X = counts.astype(np.float32)
    small.write_h5ad(tmp_path / "x.h5ad")
    assert datasets.load(tmp_path / "x.h5ad").layers["counts"].tolist() == counts.tolist()
    small.raw = small.copy()
    small.X = np.log1p(small.X)
    small.write_h5ad(tmp_path / "raw.h5ad")
    assert datasets.load(tmp_path / "raw.h5ad").layers["counts"].tolist() == counts.tolist()


@pytest.mark.parametrize(
    ("old", "new", "said"),
    [
        ("10,20", "10.5,20", "gene 'g3', sample 'a1': 10.5 is not an integer"),
        ("g2,1", "g2,-1", "gene 'g2', sample 'a1': negative value -1"),
        ("1,0,3", "1,,3", "gene 'g2', sample 'a2': missing or infinite value"),
        ("1,0,3", "1,inf,3", "gene 'g2', sample 'a2': missing or infinite value"),
        ("1,0,3", "1,many,3", "gene 'g2', sample 'a2': 'many' is not a number"),
        ("g3", "g1", "gene 'g1': given more than once"),
        ("a2", "a1", "sample 'a1': given 2 times"),
        ("g3,", ",", "row 4: no gene id"),
        ("g1,5,6,7,8\ng2,1,0,3,4\ng3,10,20,30,40\n", "", "empty, 4 samples x 0 genes"),
        ("5,6,7,8\ng2,1,0,3,4\ng3,10,20,30,40", "5.1,6.2,7.3,8.4\ng2,1.5,0,3.1,4.4", "these look normalised"),
    ],
)
def test_bad_counts_are_refused_in_one_line(table_files, old, new, said):
    counts, samples = table_files(counts=table_files.counts.replace(old, new, 1))
    message = refused(counts, metadata=samples, group="condition")
    assert said in message
    assert message.startswith(str(counts))


@pytest.mark.parametrize(
    ("old", "new", "said"),
    [
        ("b2,b\n", "b2,b\nc9,b\n", "sample 'c9' of samples.csv has no column"),
        ("b2,b\n", "", "sample 'b2' of counts.csv has no row"),
        ("b2,b\n", "b1,b\n", "sample 'b1': given twice"),
        ("b2,b", "b2,a", "group 'b' has one sample"),
    ],
)
def test_bad_sample_tables_are_refused_in_one_line(table_files, old, new, said):
    counts, samples = table_files(samples=table_files.samples.replace(old, new, 1))
    assert said in refused(counts, metadata=samples, group="condition")


def test_a_table_as_r_writes_it(table_files):
    """write.table leaves the first column without a name: the ids must not be lost for a sample's counts."""
    counts, samples = table_files(counts=table_files.counts.replace("gene,", "", 1))
    adata = datasets.load(counts, metadata=samples, group="condition")
    assert list(adata.var_names) == ["g1", "g2", "g3"]
    assert list(adata.obs_names) == ["a1", "a2", "b1", "b2"]
    assert adata.layers["counts"][0].tolist() == [5, 1, 10]


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
    (tmp_path / "counts.xlsx").write_text("x")
    assert "give .h5ad, .csv or .tsv" in refused(tmp_path / "counts.xlsx")
    (tmp_path / "bad.h5ad").write_text("not HDF5")
    assert "cannot be read as h5ad" in refused(tmp_path / "bad.h5ad")
    assert "is a directory" in refused(tmp_path, group="condition")
    assert "task 'group': did you mean 'groups'?" in refused("table-two", task="group")
    (tmp_path / "semicolons.csv").write_text("gene;a;b\ng1;1;2\n")
    assert "one column only" in refused(tmp_path / "semicolons.csv")
    (tmp_path / "latin.csv").write_bytes("sample,note\na1,caf\xe9\n".encode("latin-1"))
    assert "latin.csv: cannot be read as a table" in refused(counts, metadata=tmp_path / "latin.csv")
    (tmp_path / "corrupt.csv.gz").write_bytes(b"\x1f\x8b\x08\x00" + bytes(range(60)))
    assert "cannot be read" in refused(tmp_path / "corrupt.csv.gz")
    (tmp_path / "void.csv").write_text("")
    assert "empty, 0 samples x 0 genes" in refused(tmp_path / "void.csv")


def test_duplicate_genes_in_h5ad(small, tmp_path):
    small.var_names = ["g1", "g1", "g3", "g4"]
    small.write_h5ad(tmp_path / "twice.h5ad")
    assert "gene 'g1': given 2 times" in refused(tmp_path / "twice.h5ad")


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


GENES = ["ENSMUSG00000000001", "ENSMUSG00000000002", "ENSMUSG00000000003"]


def written(path, index, columns):
    sep = "," if path.suffix == ".csv" else "\t"
    rows = [sep.join(["id", *columns])]
    rows += [sep.join([name, *(str(10 * i + j) for j in range(len(columns)))]) for i, name in enumerate(index, start=1)]
    path.write_text("\n".join(rows) + "\n")
    return path


def test_genes_in_rows_or_columns_are_found_out_and_said(tmp_path):
    samples = tmp_path / "samples.csv"
    samples.write_text("sample,condition\n" + "".join(f"s{i},{'ab'[i % 2]}\n" for i in range(4)))
    names = [f"s{i}" for i in range(4)]
    by_rows = datasets.load(written(tmp_path / "rows.csv", ["g1", "g2"], names), metadata=samples)
    by_columns = datasets.load(written(tmp_path / "columns.tsv", names, ["g1", "g2"]), metadata=samples)
    assert by_rows.shape == by_columns.shape == (4, 2)
    assert by_rows.uns["epigen"]["genes_in"] == "rows: the others are the sample table's ids"
    assert by_columns.uns["epigen"]["genes_in"] == "columns: the others are the sample table's ids"
    by_ids = datasets.load(written(tmp_path / "ids.csv", names, GENES))
    assert list(by_ids.var_names) == GENES
    assert by_ids.uns["epigen"]["genes_in"] == "columns: they have Ensembl's ids"
    by_shape = datasets.load(written(tmp_path / "shape.csv", ["x", "y"], [f"gene{i}" for i in range(9)]))
    assert by_shape.shape == (2, 9)
    asked = datasets.load(tmp_path / "shape.csv", genes_in="rows")
    assert asked.shape == (9, 2)
    assert asked.uns["epigen"]["genes_in"] == "rows, as asked"
    assert "genes_in 'sideways': write rows or columns" in refused(tmp_path / "shape.csv", genes_in="sideways")


def test_an_h5ad_with_genes_in_rows_is_turned_round(tmp_path):
    adata = anndata.AnnData(
        X=np.arange(1, 13).reshape(3, 4).astype(float), obs={"obs_names": GENES}, var={"var_names": list("wxyz")}
    )
    adata.write_h5ad(tmp_path / "turned.h5ad")
    assert list(datasets.load(tmp_path / "turned.h5ad").var_names) == GENES
    assert datasets.load(tmp_path / "turned.h5ad", genes_in="columns").shape == (3, 4)


def test_a_bad_cell_is_named_the_right_way_round(tmp_path):
    path = tmp_path / "columns.csv"
    path.write_text("id," + ",".join(GENES) + "\ns1,1,2,3\ns2,4,many,6\n")
    assert f"sample 's2', gene '{GENES[1]}': 'many' is not a number" in refused(path)
