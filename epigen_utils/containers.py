"""Files that hold more than they seem to: packed ones larger than memory, arrays of any shape, pickles with code.

What is not known to be harmless is refused before it is read.
"""

import bz2
import gzip
import io
import json
import lzma
import math
import pickle
import pickletools
import re
import resource
import warnings
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import psutil

from epigen_utils.errors import DataError, first_line
from epigen_utils.files import check_regular

if TYPE_CHECKING:
    import pandas as pd

#: Share of memory that a text may unpack to: as a table of numbers it takes a few times its size.
SHARE_OF_TEXT = 4
#: Bytes that one byte of gzip stands for at most; https://zlib.net/zlib_tech.html.
MOST_PACKED = 1032
#: First bytes of packed files.
OPENERS = {b"\x1f\x8b": gzip.open, b"BZ": bz2.open, b"\xfd7": lzma.open}
#: Bytes of a cell of a table of Excel, as an object of Python.
BYTES_A_CELL = 8


def memory() -> int:
    """Bytes of memory that this process may take."""
    limit, total = resource.getrlimit(resource.RLIMIT_AS)[0], psutil.virtual_memory().total
    return total if limit == resource.RLIM_INFINITY else min(total, limit)


def _refuse_above(path: Path, n_bytes: float, most: float, remedy: str) -> None:
    if n_bytes > most:
        raise DataError(
            f"{path}: takes {n_bytes / 1e9:,.1f} GB unpacked, and {most / 1e9:,.1f} GB are the most here; {remedy}"
        )


def check_packed(path: Path) -> None:
    """Refuse a file packed by gzip, bzip2 or xz that unpacks to more text than memory has room for.

    Raises
    ------
    DataError
        If it does.
    OSError, EOFError, zlib.error, lzma.LZMAError
        If it is damaged.
    """
    check_regular(path)
    with open(path, "rb") as stream:
        opener = OPENERS.get(stream.read(2))
    most, n_bytes = memory() // SHARE_OF_TEXT, 0
    if opener is None or (opener is gzip.open and path.stat().st_size * MOST_PACKED <= most):
        return
    with opener(path) as stream:
        while chunk := stream.read(1 << 24):
            n_bytes += len(chunk)
            _refuse_above(path, n_bytes, most, "give a smaller table, or take a machine with more memory")


def check_hdf5(path: Path, *, at_once: int = 0) -> None:
    """Refuse an HDF5 file whose arrays are larger than memory; an array that was never written takes no place in it.

    Parameters
    ----------
    at_once
        Columns of a matrix that its reader reads at once; 0 for all.

    Raises
    ------
    DataError
        If they are.
    OSError
        If it is no HDF5 file.
    """
    import h5py  # here, since all but readers of such files do without it

    sizes = []

    def add(_name: str, item: object) -> None:
        if isinstance(item, h5py.Dataset) and item.shape is not None:
            shape = (*item.shape[:1], min(item.shape[1], at_once)) if at_once and item.ndim == 2 else item.shape
            sizes.append(math.prod(shape) * item.dtype.itemsize)

    with h5py.File(path) as file:
        file.visititems(add)
    _refuse_above(path, sum(sizes), memory(), "give fewer cells, or encode them in parts (cell_source.H5adCells)")


def check_zarr(path: Path) -> None:
    """Refuse a zarr folder or zip whose arrays are larger than memory, as `check_hdf5`, or are stored as pickles.

    Raises
    ------
    DataError
        If they are.
    OSError, ValueError, zipfile.BadZipFile
        If it cannot be read.
    """
    for file in path.rglob("*") if path.is_dir() else ():
        if not file.is_dir():
            check_regular(file)
    of_arrays, of_all = 0, 0
    for text in _zarr_descriptions(path):
        parts = list(_mappings(json.loads(text)))
        if any("pickle" in str(part.get(key)).split(".") for part in parts for key in ("id", "name")):
            raise DataError(f"{path}: has arrays stored as pickles, which can run any code; write it by anndata")
        sizes = [8 * math.prod(part["shape"]) for part in parts if isinstance(part.get("shape"), list)]
        # A description may be of one array, or of all of them once more.
        of_arrays, of_all = of_arrays + (sum(sizes) if len(sizes) == 1 else 0), max(of_all, sum(sizes))
    _refuse_above(path, max(of_arrays, of_all), memory(), "give fewer cells")


def _zarr_descriptions(path: Path) -> Iterator[bytes]:
    """What a zarr store says of its arrays, one by one or all at once, in its second and its third format."""
    names = (".zarray", ".zmetadata", "zarr.json")
    if path.is_dir():
        yield from (file.read_bytes() for name in names for file in path.rglob(name))
    else:
        with zipfile.ZipFile(path) as archive:
            n_bytes = sum(item.file_size for item in archive.infolist())
            _refuse_above(path, n_bytes, memory(), "give fewer cells")
            for name in archive.namelist():
                if name.rpartition("/")[2] in names:
                    yield archive.read(name)


def _mappings(content: object) -> Iterator[dict]:
    """Each mapping in the content of a JSON file."""
    if isinstance(content, dict):
        yield content
    if isinstance(content, dict | list):
        for part in content.values() if isinstance(content, dict) else content:
            yield from _mappings(part)


def read_rows(path: Path, **options: object) -> "pd.DataFrame":
    """`pandas.read_csv`, which raises a ``ParserError`` where it would leave out values of rows that are too long."""
    import pandas as pd  # here, since most files are no tables

    with warnings.catch_warnings():
        warnings.simplefilter("error", pd.errors.ParserWarning)
        try:
            return pd.read_csv(path, **options)
        except pd.errors.ParserWarning as error:
            raise pd.errors.ParserError(str(error)) from None


def read_workbook(path: Path) -> "pd.DataFrame":
    """The first sheet of a workbook of Excel, with every value as a word, empty where there is none.

    A workbook is refused that unpacks to more than memory has room for, or has a cell far from its table: pandas fills
    every row to the last column.

    Raises
    ------
    DataError
        If so.
    Exception
        If it is no whole workbook; openpyxl has errors of many kinds.
    """
    import pandas as pd  # here, since most files are none of Excel

    most = memory() // SHARE_OF_TEXT
    with zipfile.ZipFile(path) as archive:
        sheets = [item for item in archive.infolist() if item.filename.startswith("xl/worksheets/")]
        _refuse_above(path, sum(item.file_size for item in archive.infolist()), most, "give a smaller table")
        for sheet in sheets:
            rows, columns = _last_cell(archive, sheet)
            if rows * columns * BYTES_A_CELL > most:
                raise DataError(
                    f"{path}: {rows:,} rows x {columns:,} columns, more than there is memory for; delete what stands "
                    "beyond the table, or give it as CSV"
                )
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of styles and links, which are not read
        return pd.read_excel(path, dtype=str, keep_default_na=False)


def _last_cell(archive: zipfile.ZipFile, sheet: zipfile.ZipInfo) -> tuple[int, int]:
    """The last row and the last column of a sheet that have a cell."""
    row, column, rest = 0, 0, b""
    with archive.open(sheet) as stream:
        while chunk := stream.read(1 << 20):
            text = rest + chunk
            for letters, number in re.findall(rb'\br="([A-Z]{1,3})(\d{1,7})"', text):
                row = max(row, int(number))
                column = max(column, sum((letter - 64) * 26**i for i, letter in enumerate(reversed(letters))))
            rest = text[-20:]
    return row, column


class _PlainUnpickler(pickle.Unpickler):
    """Unpickles dictionaries, strings and numbers; the only callables admitted are stand-ins for NumPy's scalars."""

    def find_class(self, module: str, name: str) -> object:
        if module in ("numpy.core.multiarray", "numpy._core.multiarray") and name == "scalar":
            return _plain_scalar
        if (module, name) == ("numpy", "dtype"):
            return _DtypeStub
        raise pickle.UnpicklingError(f"asks for {module}.{name}")


class _DtypeStub:
    """Stands in for ``numpy.dtype`` in a pickle; only the type code is used."""

    def __init__(self, code: str, *_rest: object):
        self.code = code

    def __setstate__(self, _state: object) -> None:
        """Ignore byte order and alignment: the type code's defaults apply."""


def _plain_scalar(kind: _DtypeStub, content: bytes) -> float:
    dtype = np.dtype(kind.code)
    if dtype.kind not in "iuf":
        raise pickle.UnpicklingError(f"holds a value of type {kind.code}")
    return np.frombuffer(content, dtype).item()


def _check_opcodes(content: bytes) -> None:
    """Refuse what fills memory or the stack while it is unpickled; tuples are arguments of NumPy's scalars alone."""
    is_argument = False
    for opcode, argument, _ in pickletools.genops(content):
        if opcode.name.endswith("PUT") and int(argument) > len(content):
            raise pickle.UnpicklingError("asks for more places than it has bytes")
        if opcode.name.endswith("PUT") or opcode.name == "MEMOIZE":
            continue
        if opcode.name == "FROZENSET" or (is_argument and opcode.name not in ("REDUCE", "BUILD")):
            raise pickle.UnpicklingError("holds tuples or sets")
        is_argument = "TUPLE" in opcode.name


def read_plain_pickle(path: Path) -> dict:
    """Read a pickled dictionary of strings and numbers without executing any code of the file.

    Raises
    ------
    DataError
        If the file is missing or broken, references anything but plain values, or holds no dictionary.
    """
    if not path.is_file():
        raise DataError(f"{path}: no such file; check the folder")
    try:
        content = path.read_bytes()
        _check_opcodes(content)
        dictionary = _PlainUnpickler(io.BytesIO(content)).load()
    except Exception as error:  # noqa: BLE001 - a broken pickle may raise anything, says the documentation of pickle
        repair = "refused, since a dictionary needs no code; take the published file"
        raise DataError(f"{path}: no plain pickle ({first_line(error)}): {repair}") from None
    if not isinstance(dictionary, dict) or not all(isinstance(key, str) for key in dictionary):
        raise DataError(f"{path}: holds no dictionary of names; take the published file")
    return dictionary
