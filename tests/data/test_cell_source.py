import anndata
import numpy as np
import pandas as pd
import pytest
from scipy import sparse

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
