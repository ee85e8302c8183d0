import anndata
import h5py
import numpy as np
import pandas as pd
import pytest
from scipy import sparse

from epigen_utils.data import cell_source
from epigen_utils.data.cell_source import H5adCells, InMemoryCells
from epigen_utils.errors import DataError

COUNTS = np.random.default_rng(0).poisson(0.7, (11, 4))


@pytest.fixture
def adata():
    return anndata.AnnData(
        obs=pd.DataFrame(
            {"donor": pd.Categorical(list("aabbccddeef")), "length": 1.0}, index=[f"c{i}" for i in range(11)]
        ),
        var=pd.DataFrame({"symbol": list("wxyz")}, index=[f"ENSG{i:011d}.2" for i in range(4)]),
        layers={"counts": COUNTS},
    )


def parts(source, size=3):
    chunks = list(source.parts(size))
    counts = np.vstack([chunk.counts().toarray() for chunk in chunks])
    return [len(chunk.rows) for chunk in chunks], [name for chunk in chunks for name in chunk.names], counts


def test_cells_in_memory_in_chunks(adata):
    source = InMemoryCells(adata)
    assert (source.n_obs, source.n_vars) == (11, 4)
    assert list(source.ensembl_ids) == [f"ENSG{i:011d}" for i in range(4)], "without version"
    sizes, names, counts = parts(source)
    assert sizes == [3, 3, 3, 2]
    assert names == list(adata.obs_names)
    np.testing.assert_array_equal(counts, COUNTS)


@pytest.mark.parametrize("keep", [np.array([8, 1, 2]), np.isin(np.arange(11), [1, 2, 8])])
def test_cells_are_selected_by_position_or_mask(adata, keep):
    sizes, names, counts = parts(InMemoryCells(adata, keep))
    assert sizes == [2, 1], "a chunk without cells is skipped"
    assert names == ["c1", "c2", "c8"]
    np.testing.assert_array_equal(counts, COUNTS[[1, 2, 8]])


@pytest.mark.parametrize("form", [np.asarray, sparse.csr_matrix, sparse.csc_matrix])
@pytest.mark.parametrize("element", ["layers", "X", "raw"])
def test_a_file_gives_what_memory_gives(adata, tmp_path, form, element):
    counts = form(adata.layers.pop("counts").astype(np.float32))
    adata.X = counts
    if element == "layers":
        adata.layers["counts"] = counts
    if element == "raw":
        adata.raw = adata.copy()
    if element != "X":
        adata.X = counts / 3
    adata.write_h5ad(tmp_path / "cells.h5ad")
    with H5adCells(tmp_path / "cells.h5ad", keep=np.array([0, 1, 9, 10])) as source:
        sizes, names, values = parts(source)
        assert source.uns["epigen"]["nature"] == "your own"
    assert (sizes, names) == ([2, 2], ["c0", "c1", "c9", "c10"])
    np.testing.assert_array_equal(values, COUNTS[[0, 1, 9, 10]])


@pytest.mark.parametrize("form", [np.asarray, sparse.csr_matrix, sparse.csc_matrix])
def test_the_counts_of_one_cell(adata, tmp_path, form):
    adata.X = form(adata.layers.pop("counts").astype(np.float32))
    adata.write_h5ad(tmp_path / "cells.h5ad")
    with H5adCells(tmp_path / "cells.h5ad") as source:
        np.testing.assert_array_equal(source.counts_of(7), COUNTS[7])


WHOLE, PARTS = np.array([3.0, 0.0, 1.0]), np.array([0.4, 1.0])


@pytest.mark.parametrize(
    ("values", "found"),
    [
        ({"layers/counts": WHOLE, "X": WHOLE}, "layers/counts"),
        ({"layers/Raw_Counts": WHOLE, "X": WHOLE}, "layers/Raw_Counts"),
        ({"X": WHOLE, "raw/X": WHOLE, "layers/spliced": WHOLE}, "X"),
        ({"X": PARTS, "raw/X": WHOLE, "layers/other": WHOLE}, "raw/X"),
        ({"X": PARTS, "raw/X": PARTS, "layers/other": WHOLE}, "layers/other"),
        ({"X": -WHOLE, "layers/other": WHOLE}, "layers/other"),
        ({"layers/counts": PARTS, "X": WHOLE}, None),
        ({"X": PARTS, "layers/words": np.array(["1", "2"])}, None),
        ({"X": np.array([])}, None),
    ],
)
def test_the_matrix_of_counts(values, found):
    assert cell_source.counts_element("mine", values) == found


def test_two_layers_of_integers_are_not_guessed_between():
    with pytest.raises(
        DataError, match="mine: which layer has the counts is not clear, of spliced, unspliced; name it"
    ):
        cell_source.counts_element("mine", {"X": PARTS, "layers/spliced": WHOLE, "layers/unspliced": WHOLE})


def test_counts_of_raw_are_under_its_genes_in_memory_as_in_a_file(adata, tmp_path):
    adata.X = adata.layers.pop("counts").astype(np.float32)
    adata.raw = adata.copy()
    few = adata[:, [2, 0]].copy()
    few.X = np.log1p(few.X)
    few.write_h5ad(tmp_path / "cells.h5ad")
    taken, note = cell_source.take_counts(few, "mine")
    np.testing.assert_array_equal(taken.layers["counts"], COUNTS)
    assert list(taken.var_names) == list(adata.var_names)
    assert note.startswith("The counts are those of raw, with its genes")
    with H5adCells(tmp_path / "cells.h5ad") as source:
        assert source.n_vars == 4
        assert source.uns["epigen"]["notes"] == [note]


@pytest.mark.parametrize("column", ["gene_ids", "feature_id", "Accession", "anything"])
def test_ids_are_found_in_any_column(adata, tmp_path, column):
    adata.var[column] = adata.var_names
    adata.var_names = ["TBCE", "TBCE", "y", "z"]
    adata.var["chromosome"] = "1"
    adata.X = adata.layers.pop("counts").astype(np.float32)
    adata.write_h5ad(tmp_path / "cells.h5ad")
    with H5adCells(tmp_path / "cells.h5ad") as source:
        assert list(source.ensembl_ids) == [f"ENSG{i:011d}" for i in range(4)]
        assert f"var['{column}']" in source.uns["epigen"]["notes"][0]
    del adata.var["symbol"]
    note = cell_source.index_by_ensembl_ids(adata, "mine")
    assert note.startswith(f"Genes are those of var['{column}']")
    assert adata.var_names[0] == "ENSG00000000000.2"
    assert adata.var["symbol"].tolist() == ["TBCE", "TBCE", "y", "z"]
    assert cell_source.index_by_ensembl_ids(adata, "mine") == ""


def test_two_columns_of_different_ids_are_not_guessed_between(adata):
    adata.var_names = list("wxyz")
    adata.var["human"] = [f"ENSG{i:011d}" for i in range(4)]
    adata.var["mouse"] = [f"ENSMUSG{i:011d}" for i in range(4)]
    with pytest.raises(
        DataError, match="mine: var has Ensembl ids in 'human' and 'mouse'; name the right ones 'ensembl"
    ):
        cell_source.ensembl_column("mine", adata.var)
    adata.var["ensembl_id"] = adata.var["mouse"]
    assert cell_source.ensembl_column("mine", adata.var) == "ensembl_id"


def test_antibodies_are_no_genes(adata, tmp_path):
    adata.var["feature_types"] = ["Gene Expression", "Antibody Capture", "Gene Expression", "Gene Expression"]
    few, note = cell_source.genes_alone(adata)
    assert few.n_vars == 3
    assert note == "1 features that are no genes were left out (var['feature_types'])."
    adata.X = adata.layers.pop("counts").astype(np.float32)
    adata.write_h5ad(tmp_path / "cells.h5ad")
    with H5adCells(tmp_path / "cells.h5ad") as source:
        np.testing.assert_array_equal(parts(source)[2], COUNTS[:, [0, 2, 3]])
        (chunk,) = source.parts(20)
        np.testing.assert_array_equal(chunk.depth(chunk.counts()), COUNTS[:, [0, 2, 3]].sum(axis=1))
        assert source.uns["epigen"]["notes"] == [note]
    adata.var["feature_types"] = "Peaks"
    assert cell_source.are_genes(adata.var).all(), "a file without genes is not emptied"


@pytest.mark.parametrize(
    ("rows", "genes", "mean", "kind"),
    [
        (400, 300, 0.1, "cells"),
        (72, 120, 0.2, "cells"),
        (12, 300, 400, "bulk"),
        (300, 300, 1000, "bulk"),
        (12, 300, 3, "bulk"),
    ],
)
def test_cells_are_told_from_samples(rows, genes, mean, kind):
    counts = np.random.default_rng(0).poisson(mean, (rows, genes))
    found, evidence = cell_source.kind_of(anndata.AnnData(layers={"counts": counts}, shape=counts.shape))
    assert found == kind
    assert f"{rows} rows" in evidence


def test_depth_is_that_of_the_sample_table_else_the_sum(adata):
    (chunk,) = InMemoryCells(adata).parts(20)
    np.testing.assert_array_equal(chunk.depth(chunk.counts()), COUNTS.sum(axis=1))
    adata.obs["n_counts"] = np.arange(11) + 100
    _, chunk, *_ = InMemoryCells(adata).parts(4)
    np.testing.assert_array_equal(chunk.depth(chunk.counts()), [104, 105, 106, 107])


def test_the_sample_table_is_as_arrow_stores_it(adata):
    source = InMemoryCells(adata)
    assert source.schema.names == ["cell_id", "donor"], "length is the encoder's own"
    (chunk,) = InMemoryCells(adata, keep=[10]).parts(20)
    assert chunk.obs.to_dict("records") == [{"cell_id": "c10", "donor": "f"}]


def test_mistakes_are_one_line(adata, tmp_path):
    with pytest.raises(DataError, match=r"none\.h5ad: no such file; check the path"):
        H5adCells(tmp_path / "none.h5ad")
    (tmp_path / "text.h5ad").write_text("not HDF5")
    with pytest.raises(DataError, match=r"text\.h5ad: cannot be read as h5ad \(.*\); check the file"):
        H5adCells(tmp_path / "text.h5ad")
    named = adata.copy()
    named.var_names = list("wxyz")
    with pytest.raises(DataError, match="data: no Ensembl ids, 'w' for one"):
        InMemoryCells(named)
    adata.X = adata.layers.pop("counts") / 3
    with pytest.raises(DataError, match=r"data: no layers\['counts'\]; put the raw counts there"):
        InMemoryCells(adata)
    adata.write_h5ad(tmp_path / "normalised.h5ad")
    with pytest.raises(DataError, match="no counts in X; put the raw counts in layers"):
        H5adCells(tmp_path / "normalised.h5ad")


def test_positions_outside_of_a_file_are_refused_in_parts(tmp_path):
    ids = [f"ENSG{i:011d}" for i in range(5)]
    matrix = sparse.csr_matrix(np.arange(1.0, 31.0).reshape(6, 5))
    anndata.AnnData(matrix, var=pd.DataFrame(index=ids)).write_h5ad(tmp_path / "cells.h5ad")
    with h5py.File(tmp_path / "cells.h5ad", "a") as file:
        file["X/indices"][17] = 2**20
    with cell_source.H5adCells(tmp_path / "cells.h5ad") as source:
        first, second = source.parts(3)
        assert first.counts().sum() == sum(range(1, 16))
        with pytest.raises(DataError, match=r"cells\.h5ad: damaged"):
            second.counts()
