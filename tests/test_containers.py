import gzip
import json
import zipfile

import h5py
import pandas as pd
import pytest

from epigen_utils import containers
from epigen_utils.data import datasets
from epigen_utils.errors import DataError


@pytest.fixture
def little_memory(monkeypatch):
    """A machine of a hundred megabytes."""
    monkeypatch.setattr(containers, "memory", lambda: 100_000_000)


def test_a_limit_of_the_process_counts(monkeypatch):
    whole = containers.memory()
    monkeypatch.setattr(containers.resource, "getrlimit", lambda _: (1000, 1000))
    assert (containers.memory(), whole > 10**8) == (1000, True)


@pytest.mark.usefixtures("little_memory")
def test_a_packed_table_larger_than_memory_is_refused_before_it_is_read(tmp_path):
    bomb = tmp_path / "counts.csv.gz"
    bomb.write_bytes(gzip.compress(b"0,0\n" * 1_000_000) * 10)
    with pytest.raises(DataError, match=r"counts\.csv\.gz: takes 0\.0 GB unpacked, and 0\.0 GB are the most here"):
        datasets.load(bomb)
    bomb.write_bytes(gzip.compress(b"0,0\n" * 1_000_000))
    containers.check_packed(bomb)


@pytest.mark.usefixtures("little_memory")
def test_an_array_that_was_never_written_is_as_large_as_its_shape(tmp_path):
    for shape, refused in (((10_000, 10_000), True), ((1000, 1000), False)):
        with h5py.File(tmp_path / "x.h5ad", "w") as file:
            file.create_dataset("X", shape, "f4", chunks=(100, 100))
        if refused:
            with pytest.raises(DataError, match=r"x\.h5ad: takes 0\.4 GB unpacked"):
                datasets.load(tmp_path / "x.h5ad")
            containers.check_hdf5(tmp_path / "x.h5ad", at_once=100)
        else:
            containers.check_hdf5(tmp_path / "x.h5ad")


@pytest.mark.parametrize("packed", [False, True])
@pytest.mark.parametrize(
    ("about", "said"),
    [
        ({"shape": [100_000_000], "dtype": "<f8"}, "takes 0.8 GB unpacked"),
        ({"shape": [4], "filters": [{"id": "pickle"}]}, "stored as pickles, which can run any code"),
        ({"shape": [4], "codecs": [{"name": "numcodecs.pickle"}]}, "stored as pickles, which can run any code"),
    ],
)
@pytest.mark.usefixtures("little_memory")
def test_arrays_of_zarr_are_looked_at_before_they_are_read(tmp_path, about, said, packed):
    store = tmp_path / "cells.zarr"
    (store / "X").mkdir(parents=True)
    (store / "X" / ".zarray").write_text(json.dumps(about))
    if packed:
        store = tmp_path / "cells.zarr.zip"
        with zipfile.ZipFile(store, "w") as archive:
            archive.write(tmp_path / "cells.zarr" / "X" / ".zarray", "X/.zarray")
    with pytest.raises(DataError, match=said):
        containers.check_zarr(store)
    with pytest.raises(DataError, match=said):
        datasets.load(store)


def change_sheet(path, old, new):
    with zipfile.ZipFile(path) as archive:
        members = {name: archive.read(name) for name in archive.namelist()}
    members["xl/worksheets/sheet1.xml"] = members["xl/worksheets/sheet1.xml"].replace(old, new)
    with zipfile.ZipFile(path, "w") as archive:
        for name, content in members.items():
            archive.writestr(name, content)


def test_a_workbook_with_a_cell_in_its_last_corner_is_refused(tmp_path):
    path = tmp_path / "counts.xlsx"
    pd.DataFrame({"gene": ["A", "B"], "s1": [5, 6], "s2": [7, 8]}).to_excel(path, index=False)
    assert containers.read_workbook(path).to_numpy().tolist() == [["A", "5", "7"], ["B", "6", "8"]]
    change_sheet(path, b"</sheetData>", b'<row r="1048576"><c r="XFD1048576"><v>1</v></c></row></sheetData>')
    with pytest.raises(
        DataError, match=r"counts\.xlsx: 1,048,576 rows x 16,384 columns, more than there is memory for"
    ):
        datasets.load(path)


@pytest.mark.usefixtures("little_memory")
def test_a_workbook_that_unpacks_to_more_than_memory_is_refused(tmp_path):
    path = tmp_path / "counts.xlsx"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("xl/worksheets/sheet1.xml", bytes(30_000_000))
    with pytest.raises(DataError, match=r"counts\.xlsx: takes 0\.0 GB unpacked"):
        datasets.load(path)


@pytest.mark.parametrize(
    "content",
    [
        b"\x80\x04}r\xff\xff\xff\x7f.",
        b"\x80\x04\x8d" + b"\xff" * 7 + b"\x3fx.",
        b"\x80\x04.",
        b"\x80\x04})" + b"\x85" * 10**6 + b"K\x01s.",
    ],
)
def test_a_pickle_that_would_fill_memory_or_the_stack_is_one_line(tmp_path, content):
    (tmp_path / "d.pkl").write_bytes(content)
    with pytest.raises(DataError, match=r"d\.pkl: no plain pickle"):
        containers.read_plain_pickle(tmp_path / "d.pkl")
