"""From the publishers' bytes, served by a local server, to what the book reads."""

import csv
import dataclasses
import gzip
import io
import pickle
import shutil

import anndata
import h5py
import numpy as np
import pandas as pd
import pytest
import rdata
import scipy.io
from rdata.parser import RObjectType
from rdata.unparser._unparser import pack_r_object_info
from rdata.unparser._xdr import UnparserXDR
from scipy import sparse

from epigen_utils import paths
from epigen_utils.data import converters, datasets, fetching, registry
from epigen_utils.errors import DataError

CONVERTED = [
    (entry.name, role) for entry in registry.entries().values() for role, spec in entry.files.items() if spec.converter
]
#: What the book read before, by data set: converted by others, by other code.
EARLIER = {
    "cardiac-ipsc": "singlecell/ipsc_cardiac_day2_day5_scGPS_full.h5ad",
    "pbmc-40": "singlecell/onek1k_pbmc_subset_scDesignPop.h5ad",
    "pig-cystic-fibrosis": "singlecell/pig_cystic_fibrosis_small_airway.h5ad",
}


@pytest.fixture
def originals(mirror):
    with open(mirror / "originals" / "URLS.tsv", newline="") as stream:
        return {row["sha256"]: mirror / row["path"] for row in csv.DictReader(stream, delimiter="\t")}


@pytest.mark.parametrize(("name", "role"), CONVERTED)
def test_the_converted_content_is_the_registry_s(name, role, originals, tmp_path):
    """Of bundled files too: whoever doubts them can make them again."""
    spec = registry.entry(name).files[role]
    target = tmp_path / spec.filename
    files = {original: originals[source.sha256] for original, source in spec.originals.items()}
    converters.CONVERTERS[spec.converter](files, target, **spec.args)
    expected = spec.sha256 if spec.source == "converted" else converters.content_sha256(paths.DATA / spec.bundled)
    assert converters.content_sha256(target) == expected


@pytest.mark.parametrize("name", EARLIER)
def test_cells_are_those_of_another_conversion(name, mirror):
    theirs = anndata.read_h5ad(mirror / EARLIER[name])
    ours = anndata.read_h5ad(fetching.fetch(name)["counts"])
    assert ours.var_names.equals(theirs.var_names)
    assert abs(ours.X - theirs.X).max() == 0
    for column in ours.obs:
        assert ours.obs[column].astype(str).tolist() == theirs.obs[column].astype(str).tolist()


def test_other_files_are_those_of_another_conversion(mirror):
    earlier = gzip.decompress((mirror / "annotation" / "homologene2_human_mouse_rat_zebrafish.tsv.gz").read_bytes())
    assert gzip.decompress(fetching.fetch("orthologs-homologene")["groups"].read_bytes()) == earlier
    lists = fetching.fetch("gene-classes") | fetching.fetch("gene-classes-more")
    for path in (mirror / "geneformer" / "gene_classes").glob("*.json"):
        assert lists[path.stem].read_text() == path.read_text()


def test_a_file_that_is_no_r_data_is_one_line(tmp_path):
    (tmp_path / "x.rda").write_bytes(b"<html>not found</html>")
    with pytest.raises(DataError, match=r"x\.rda: no R data file .*; fetch it again"):
        converters.homologene_table({"groups": tmp_path / "x.rda"}, tmp_path / "y.tsv.gz", taxa=[9606])


class Evil:
    def __reduce__(self):
        return (exec, ("import pathlib; pathlib.Path('ran').touch()",))


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (pickle.dumps({"ENSG1": Evil()}), "asks for builtins.exec.*refused"),
        (pickle.dumps({"ENSG1": np.array([Evil()], object)}), "refused"),
        (pickle.dumps({"ENSG1": 1})[:-3], "refused"),
        (b"", "refused"),
        (pickle.dumps([1, 2]), "holds no dictionary"),
        (pickle.dumps({1: 2}), "holds no dictionary of names"),
    ],
)
def test_a_pickle_that_is_more_than_a_dictionary_is_refused(tmp_path, monkeypatch, content, said):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "d.pkl").write_bytes(content)
    with pytest.raises(DataError, match=said):
        converters.read_plain_pickle(tmp_path / "d.pkl")
    assert not (tmp_path / "ran").exists()


def test_an_object_hidden_in_a_numpy_scalar_is_refused(tmp_path):
    (tmp_path / "d.pkl").write_bytes(pickle.dumps({"a": np.datetime64("2020-01-01")}))
    with pytest.raises(DataError, match="refused"):
        converters.read_plain_pickle(tmp_path / "d.pkl")


@pytest.fixture
def cells():
    """300 cells of 60 genes with ids, symbols of which one is there twice, and a table."""
    rng = np.random.default_rng(3)
    symbols = [f"GENE{i}" for i in range(59)] + ["GENE0"]
    return anndata.AnnData(
        sparse.csr_matrix(rng.poisson(0.4, (300, 60)).astype(np.float32)),
        obs=pd.DataFrame(
            {"disease": np.resize(["dcm", "nf"], 300), "patient": np.resize(list("abcd"), 300)},
            [f"AAC{i}-1" for i in range(300)],
        ),
        var=pd.DataFrame({"symbol": symbols}, [f"ENSG{i:011d}" for i in range(60)]),
    )


def write_10x(folder, cells, *, names=("features.tsv", "barcodes.tsv", "matrix.mtx"), prefix="", columns=3, gz=True):
    folder.mkdir()
    opened = gzip.open if gz else open
    genes = [cells.var_names, cells.var["symbol"], ["Gene Expression"] * cells.n_vars][:columns]
    texts = [
        "".join("\t".join(row) + "\n" for row in zip(*genes, strict=True)),
        "".join(f"{n}\n" for n in cells.obs_names),
    ]
    for name, text in zip(names[:2], texts, strict=True):
        with opened(folder / f"{prefix}{name}{'.gz' * gz}", "wt") as stream:
            stream.write(text)
    buffer = io.BytesIO()
    scipy.io.mmwrite(buffer, cells.X.T.astype(int))
    with opened(folder / f"{prefix}{names[2]}{'.gz' * gz}", "wb") as stream:
        stream.write(buffer.getvalue())
    return folder


def write_10x_h5(path, cells):
    matrix = cells.X.tocsr()
    with h5py.File(path, "w") as file:
        group = file.create_group("matrix")
        for name in ("data", "indices", "indptr"):
            group[name] = getattr(matrix, name).astype(int)
        group["shape"] = matrix.shape[::-1]
        group["barcodes"] = np.array(cells.obs_names, "S")
        for name, values in {
            "id": cells.var_names,
            "name": cells.var["symbol"],
            "feature_type": ["Gene Expression"] * 60,
            "genome": ["GRCh38"] * 60,
        }.items():
            group[f"features/{name}"] = np.array(values, "S")
    return path


def write_loom(path, cells):
    with h5py.File(path, "w") as file:
        file["matrix"] = cells.X.toarray().T
        for column, values in {"CellID": cells.obs_names, **cells.obs}.items():
            file[f"col_attrs/{column}"] = np.array(values, "S")
        file["row_attrs/Accession"] = np.array(cells.var_names, "S")
        file["row_attrs/Gene"] = np.array(cells.var["symbol"], "S")
    return path


@pytest.mark.filterwarnings("ignore:Writing zarr v2:UserWarning")  # by which anndata announces its next version
def test_every_format_gives_the_same_counts(cells, tmp_path):
    cells.write_h5ad(tmp_path / "cells.h5ad")
    cells.write_zarr(tmp_path / "cells.zarr")
    shutil.make_archive(tmp_path / "cells.zarr", "zip", tmp_path / "cells.zarr")
    cells.obs.rename_axis("barcode").to_csv(tmp_path / "table.csv")
    paths = {
        "v3": write_10x(tmp_path / "v3", cells),
        "v2": write_10x(tmp_path / "v2", cells, names=("genes.tsv", "barcodes.tsv", "matrix.mtx"), columns=2, gz=False),
        "starsolo": write_10x(tmp_path / "starsolo", cells, gz=False),
        "geo": write_10x(tmp_path / "geo", cells, prefix="GSM1_"),
        "h5": write_10x_h5(tmp_path / "cells.h5", cells),
        "loom": write_loom(tmp_path / "cells.loom", cells),
        "zarr": tmp_path / "cells.zarr",
        "zip of zarr": tmp_path / "cells.zarr.zip",
    }
    expected = datasets.load(tmp_path / "cells.h5ad", group="disease", donor="patient", task="counts")
    for name, path in paths.items():
        table = {} if name in ("loom", "zarr", "zip of zarr") else {"metadata": tmp_path / "table.csv"}
        found = datasets.load(path, group="disease", donor="patient", task="counts", **table)
        assert list(found.var_names) == list(expected.var_names), name
        assert list(found.obs_names) == list(expected.obs_names), name
        assert (found.layers["counts"] != expected.layers["counts"]).nnz == 0, name
        assert found.obs["disease"].astype(str).tolist() == expected.obs["disease"].astype(str).tolist(), name
        assert found.uns["epigen"]["kind"] == "cells", name
        assert all(len(digest) == 64 for digest in found.uns["epigen"]["sha256"].values()), name


@pytest.mark.parametrize("name", ["features.tsv.gz", "barcodes.tsv.gz", "matrix.mtx.gz"])
def test_a_torn_file_is_one_line(cells, tmp_path, name):
    folder = write_10x(tmp_path / "torn", cells)
    whole = (folder / name).read_bytes()
    for torn in (whole[: len(whole) // 2], whole[:20] + bytes(20) + whole[40:]):
        (folder / name).write_bytes(torn)
        with pytest.raises(DataError, match=r"torn: cannot be read \(.+\); check the file"):
            converters.read_cells(folder)


def test_a_torn_file_of_counts_is_one_line(tmp_path):
    text = "".join(f"g{i}\t{i * i}\n" for i in range(99))
    (tmp_path / "s1.txt.gz").write_bytes(gzip.compress(text.encode())[:-60])
    with pytest.raises(DataError, match=r"s1.txt.gz: no genes and counts as HTSeq or STAR write them"):
        converters.read_count_files(tmp_path)


def test_the_table_of_cells_has_the_cells_and_goes_first(cells, tmp_path):
    path = write_loom(tmp_path / "cells.loom", cells)
    table = cells.obs.assign(disease="hcm", batch="1").rename_axis("cell")
    table.to_csv(tmp_path / "table.csv")
    found = datasets.load(path, metadata=tmp_path / "table.csv", task="counts")
    assert list(found.obs) == ["disease", "patient", "batch"]
    assert set(found.obs["disease"]) == {"hcm"}
    said = "The table's columns replace those of cells.loom: disease, patient."
    assert said in found.uns["epigen"]["notes"]
    table.set_axis([f"x{name}" for name in table.index]).rename_axis("cell").to_csv(tmp_path / "table.csv")
    with pytest.raises(DataError, match=r"has no cell of cells.loom: cells are 'xAAC0-1' here and 'AAC0-1' there"):
        datasets.load(path, metadata=tmp_path / "table.csv", task="counts")


def test_folders_that_are_none_are_one_line(cells, tmp_path):
    folder = write_10x(tmp_path / "two", cells)
    (folder / "GSM2_matrix.mtx.gz").write_bytes((folder / "matrix.mtx.gz").read_bytes())
    with pytest.raises(DataError, match=r"two: 2 files matrix\.mtx \(or \.gz\); give the folder of one sample"):
        converters.read_cells(folder)
    folder = write_10x(tmp_path / "cut", cells, gz=False)
    (folder / "barcodes.tsv").write_text("AAC\n")
    with pytest.raises(DataError, match=r"barcodes\.tsv: 1 lines, and 300 cells in the matrix"):
        converters.read_cells(folder)
    (folder / "features.tsv").unlink()
    with pytest.raises(DataError, match=r"cut: no file features\.tsv or genes\.tsv"):
        converters.read_cells(folder)
    (tmp_path / "text.loom").write_text("x")
    with pytest.raises(DataError, match=r"text\.loom: cannot be read \(.*\); check the file"):
        converters.read_cells(tmp_path / "text.loom")
    assert converters.cell_format(tmp_path) == ""


class WithClasses(UnparserXDR):
    """Writes what rdata has parsed of an object of Bioconductor; its own writer stops at classes.

    A reference counts the names before it, of which an .rds has one less, that of the object.
    """

    def unparse_r_object(self, obj):
        if obj.info.type is RObjectType.S4:
            self.unparse_int(pack_r_object_info(obj.info))
            self.unparse_r_object(obj.attributes)
        elif obj.info.type is RObjectType.REF:
            self.unparse_int(pack_r_object_info(dataclasses.replace(obj.info, reference=obj.info.reference - 1)))
        else:
            super().unparse_r_object(obj)


def as_rds(path, target):
    """The only object of an .rda as .rds."""
    parsed = rdata.parser.parse_file(path)
    with gzip.open(target, "wb") as stream:
        WithClasses(stream).unparse_r_data(dataclasses.replace(parsed, object=parsed.object.value[0]))
    return target


def test_an_experiment_of_r_has_the_numbers_of_its_h5ad(mirror, tmp_path):
    (original,) = (mirror / "originals").rglob("example_sce.rda")
    path = as_rds(original, tmp_path / "pbmc.rds")
    found = datasets.load(path, group="cell_type", donor="indiv", species="human", task="counts")
    expected = datasets.load("pbmc-40")
    assert list(found.var_names) == list(expected.var_names)
    assert (found.layers["counts"] != expected.layers["counts"]).nnz == 0
    assert found.obs["cell_type"].astype(str).tolist() == expected.obs["cell_type"].astype(str).tolist()


def test_another_object_of_r_is_one_line(tmp_path):
    rdata.write_rds(tmp_path / "numbers.rds", np.arange(3))
    with pytest.raises(
        DataError, match=r"numbers\.rds: no SummarizedExperiment or SingleCellExperiment; in R, saveRDS"
    ):
        converters.read_cells(tmp_path / "numbers.rds")


def test_quotation_marks_and_na_are_parts_of_names(cells, tmp_path):
    """10x Genomics quotes nothing."""
    cells.var["symbol"] = ['"A', "NA", *cells.var["symbol"][2:]]
    found = converters.read_cells(write_10x(tmp_path / "odd", cells))
    assert found.var["symbol"].tolist() == cells.var["symbol"].tolist()


@pytest.mark.parametrize("size", ["99999999999 99999999999 5", "60 300 99999999999", "300 60 5"])
def test_a_matrix_of_absurd_size_is_one_line(cells, tmp_path, size):
    folder = write_10x(tmp_path / "absurd", cells, gz=False)
    text = (folder / "matrix.mtx").read_text().splitlines()
    place = next(i for i, line in enumerate(text) if not line.startswith("%"))
    (folder / "matrix.mtx").write_text("\n".join([*text[:place], size, *text[place + 1 :]]))
    with pytest.raises(DataError, match="absurd"):
        converters.read_cells(folder)


def test_a_loom_whose_parts_do_not_fit_is_one_line(cells, tmp_path):
    path = write_loom(tmp_path / "cells.loom", cells)
    with h5py.File(path, "a") as file:
        del file["col_attrs/CellID"]
        file["col_attrs/CellID"] = np.array(cells.obs_names[:-1], "S")
    with pytest.raises(DataError, match=r"cells\.loom: col_attrs/CellID has 299 values, and the matrix 300"):
        converters.read_cells(path)


def test_positions_outside_of_a_file_of_cells_are_one_line(cells, tmp_path):
    path = write_10x_h5(tmp_path / "cells.h5", cells)
    with h5py.File(path, "a") as file:
        file["matrix/indices"][7] = 2**30
    with pytest.raises(DataError, match=r"cells\.h5: X: damaged"):
        converters.read_cells(path)
