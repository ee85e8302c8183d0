"""Containers of matrices for `malformed_kinds`: h5ad, loom, zarr, 10x Genomics, R."""

import gzip
import io
import json
import random
import re
import struct
import zipfile
from collections.abc import Callable, Sequence
from pathlib import Path

import anndata
import h5py
import malformed
import numpy as np
import pandas as pd
from malformed import EITHER, SAME, Damage, written
from malformed_examples import (
    CELL_COUNTS,
    CELL_GENES,
    CELLS,
    COUNTS,
    DISEASE,
    GENES,
    GROUPS,
    ODD_NAMES,
    PATIENT,
    SAMPLES,
    as_csv,
    bomb,
    check_cells,
    repacked,
    table_answer,
)
from scipy import io as matrix_market
from scipy import sparse

from epigen_utils.data import cell_source, converters

# Containers of matrices


def bulk_adata() -> anndata.AnnData:
    obs = pd.DataFrame({"condition": GROUPS}, index=SAMPLES)
    return anndata.AnnData(COUNTS.T.astype(np.float32), obs=obs, var=pd.DataFrame(index=GENES))


def cell_adata() -> anndata.AnnData:
    obs = pd.DataFrame({"disease": DISEASE, "patient": PATIENT}, index=CELLS)
    var = pd.DataFrame({"symbol": [f"G{i}" for i in range(len(CELL_GENES))]}, index=CELL_GENES)
    return anndata.AnnData(sparse.csr_matrix(CELL_COUNTS.astype(np.float32)), obs=obs, var=var)


def change_hdf5(change: Callable[[h5py.File], object]) -> Callable[[Path], None]:
    def apply(path: Path) -> None:
        with h5py.File(path, "a") as file:
            change(file)

    return apply


def put(name: str, values: object, **options: object) -> Callable[[Path], None]:
    """A change of one array of HDF5; its attributes stay."""

    def change(file: h5py.File) -> None:
        attributes = dict(file[name].attrs) if name in file else {}
        if name in file:
            del file[name]
        made = file.create_dataset(name, **options) if options else file.create_dataset(name, data=values)
        made.attrs.update(attributes)

    return change_hdf5(change)


def absurd(name: str, shape: tuple[int, ...]) -> Callable[[Path], None]:
    """An array that was never written takes no place in the file."""
    return put(name, None, shape=shape, dtype="f4", chunks=tuple(min(n, 1000) for n in shape))


def h5ad_damages(path: Path, rng: random.Random) -> list[Damage]:
    objects = np.array([["a"] * len(GENES)] * len(SAMPLES), dtype=object)

    def written_by(change: Callable[[anndata.AnnData], object]) -> Callable[[Path], None]:
        def apply(path: Path) -> None:
            adata = bulk_adata()
            changed = change(adata)
            (adata if changed is None else changed).write_h5ad(path)

        return apply

    def value(number: float) -> Callable[[Path], None]:
        return written_by(lambda adata: adata.X.__setitem__((1, 2), number))

    def without(name: str) -> Callable[[Path], None]:
        return change_hdf5(lambda file: file.__delitem__(name))

    def circle(file: h5py.File) -> None:
        file["uns/again"] = h5py.SoftLink("/uns")

    return [
        Damage("value", "words for counts", put("X", objects, shape=objects.shape, dtype=h5py.string_dtype())),
        Damage("value", "not a number", value(np.nan), place="GENE3.*s2"),
        Damage("value", "infinite", value(np.inf), place="GENE3.*s2"),
        Damage("value", "negative", value(-4), place="GENE3.*s2"),
        Damage("value", "a half", value(0.5), place="GENE3.*s2"),
        Damage("value", "complex", put("X", COUNTS.T.astype(complex))),
        Damage("value", "truth values", put("X", COUNTS.T > 100), EITHER),
        Damage("shape", "a trillion values", absurd("X", (1_000_000, 1_000_000))),
        Damage("shape", "samples without end", absurd("X", (2**40, len(GENES)))),
        Damage("shape", "three dimensions", put("X", np.ones((6, 30, 2)))),
        Damage("shape", "one dimension", put("X", np.ones(30))),
        Damage("shape", "other samples than obs", put("X", np.ones((5, 30)))),
        Damage("shape", "a large array beside", absurd("uns/large", (2**20, 2**20))),
        Damage("shape", "nothing", change_hdf5(lambda file: file.clear())),
        Damage("shape", "no obs", without("obs")),
        Damage("shape", "no X", without("X")),
        Damage("shape", "a circle of links", change_hdf5(circle)),
        Damage(
            "shape",
            "a link to another file",
            change_hdf5(lambda file: file.__setitem__("uns/x", h5py.ExternalLink("/etc/passwd", "/"))),
            EITHER,
        ),
        Damage("names", "a gene twice", written_by(lambda adata: adata[:, [0, 0, 1, 2]].copy()), place="GENE1"),
        Damage(
            "content", "pickled objects", put("uns/pickled", np.frombuffer(malformed.evil_pickle(), np.uint8)), SAME
        ),
        *(
            Damage(
                "names",
                f"gene {name[:30]!r}",
                written_by(lambda adata, name=name: setattr(adata, "var_names", [name, *GENES[1:]])),
                table_answer([name, *GENES[1:]]),
            )
            for name in ODD_NAMES
            if "/" not in name
        ),
    ]


def sparse_damages(
    group: str, names: tuple[str, str, str] = ("data", "indices", "indptr")
) -> Callable[[Path, random.Random], list[Damage]]:
    """Damages of a sparse matrix of HDF5: positions outside of it, and lengths that do not fit."""
    data, indices, indptr = (f"{group}/{name}" for name in names)

    def special(path: Path, rng: random.Random) -> list[Damage]:
        with h5py.File(path) as file:
            columns, ends, values = file[indices][()], file[indptr][()], file[data][()]

        def at(array: np.ndarray, place: int, value: int) -> np.ndarray:
            changed = array.copy()
            changed[place] = value
            return changed

        return [
            Damage("position", "far beyond the columns", put(indices, at(columns, 5, 2**30))),
            Damage("position", "one beyond the columns", put(indices, at(columns, 5, len(CELL_GENES)))),
            Damage("position", "negative", put(indices, at(columns, 5, -7))),
            Damage("position", "rows that end before they begin", put(indptr, at(ends, 3, ends[-1]))),
            Damage("position", "rows beyond the values", put(indptr, at(ends, -1, 2**30))),
            Damage("position", "a negative row", put(indptr, at(ends, 3, -1))),
            Damage("position", "fewer values", put(data, values[:-3])),
            Damage("shape", "fewer rows", put(indptr, ends[:-2])),
            Damage("shape", "a trillion values", absurd(data, (2**40,))),
            Damage("value", "not a number", put(data, at(values.astype(float), 3, np.nan))),
            Damage("value", "negative", put(data, at(values.astype(float), 3, -2))),
        ]

    return special


def in_parts(path: Path) -> dict:
    """The door of files larger than memory."""
    with cell_source.H5adCells(path) as source:
        counts = [chunk.counts().toarray().tolist() for chunk in source.parts(16)]
        return {"genes": list(source.genes), "counts": sum(counts, [])}


def write_h5ad(adata: anndata.AnnData, folder: Path, name: str) -> Path:
    adata.write_h5ad(folder / name)
    return folder / name


def write_10x_h5(folder: Path) -> Path:
    matrix = sparse.csr_matrix(CELL_COUNTS)
    with h5py.File(folder / "cells.h5", "w") as file:
        for name in ("data", "indices", "indptr"):
            file[f"matrix/{name}"] = getattr(matrix, name).astype(np.int64)
        file["matrix/shape"] = matrix.shape[::-1]
        file["matrix/barcodes"] = np.array(CELLS, "S")
        n = len(CELL_GENES)
        features = {"id": CELL_GENES, "name": CELL_GENES, "feature_type": ["Gene Expression"] * n, "genome": ["x"] * n}
        for name, values in features.items():
            file[f"matrix/features/{name}"] = np.array(values, "S")
    return _with_table_of_cells(folder, folder / "cells.h5")


def _with_table_of_cells(folder: Path, path: Path) -> Path:
    rows = [["cell", "disease", "patient"], *map(list, zip(CELLS, DISEASE, PATIENT, strict=True))]
    (folder / "cells.csv").write_bytes(as_csv(rows))
    return path


def check_with_table(path: Path) -> dict:
    return check_cells(path, "--metadata", path.with_name("cells.csv"))


def tenx_h5_damages(path: Path, rng: random.Random) -> list[Damage]:
    return [
        *sparse_damages("matrix")(path, rng),
        Damage("shape", "other than its parts", put("matrix/shape", [7, 9])),
        Damage("shape", "absurd", put("matrix/shape", [2**40, 2**40])),
        Damage("shape", "one number", put("matrix/shape", [7])),
        Damage("shape", "no barcodes", change_hdf5(lambda file: file.__delitem__("matrix/barcodes"))),
        Damage("shape", "fewer barcodes", put("matrix/barcodes", np.array(CELLS[:-1], "S"))),
        Damage("names", "no UTF-8", put("matrix/features/id", np.array([b"\xff\xfe"] * len(CELL_GENES)))),
    ]


def write_loom(folder: Path) -> Path:
    with h5py.File(folder / "cells.loom", "w") as file:
        file["matrix"] = CELL_COUNTS.T.astype(np.float32)
        file["row_attrs/Accession"] = np.array(CELL_GENES, "S")
        for name, values in {"CellID": CELLS, "disease": DISEASE, "patient": PATIENT}.items():
            file[f"col_attrs/{name}"] = np.array(values, "S")
    return folder / "cells.loom"


def loom_damages(path: Path, rng: random.Random) -> list[Damage]:
    return [
        Damage("shape", "a trillion values", absurd("matrix", (1_000_000, 1_000_000))),
        Damage("shape", "many genes", absurd("matrix", (2**30, len(CELLS)))),
        Damage("shape", "many cells", absurd("matrix", (len(CELL_GENES), 2**30))),
        Damage("shape", "fewer names", put("col_attrs/CellID", np.array(CELLS[:-1], "S")), place="CellID"),
        Damage("shape", "fewer labels", put("col_attrs/disease", np.array(DISEASE[:-1], "S")), place="disease"),
        Damage("shape", "no matrix", change_hdf5(lambda file: file.__delitem__("matrix"))),
        Damage("shape", "no cells", change_hdf5(lambda file: file.__delitem__("col_attrs"))),
        Damage(
            "shape",
            "a group for the matrix",
            change_hdf5(lambda file: (file.__delitem__("matrix"), file.create_group("matrix"))),
        ),
        Damage("value", "words", put("matrix", None, shape=CELL_COUNTS.T.shape, dtype=h5py.string_dtype())),
        Damage("value", "not a number", put("matrix", np.where(CELL_COUNTS.T == 2, np.nan, CELL_COUNTS.T))),
        Damage("names", "no UTF-8", put("row_attrs/Accession", np.array([b"\xff\xfe"] * len(CELL_GENES)))),
    ]


def write_zarr(folder: Path, name: str = "cells.zarr") -> Path:
    import warnings

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # anndata announces its next version
        cell_adata().write_zarr(folder / "cells.zarr")
    if name.endswith(".zip"):
        with zipfile.ZipFile(folder / name, "w") as archive:
            for file in sorted((folder / "cells.zarr").rglob("*")):
                if file.is_file():
                    archive.write(file, file.relative_to(folder / "cells.zarr"))
        import shutil

        shutil.rmtree(folder / "cells.zarr")
    return folder / name


def zarr_damages(path: Path, rng: random.Random) -> list[Damage]:
    def description(name: str, change: Callable[[dict], object]) -> Callable[[Path], None]:
        def apply(path: Path) -> None:
            for file, key in ((path / name / ".zarray", None), (path / ".zmetadata", f"{name}/.zarray")):
                if file.exists():
                    content = json.loads(file.read_text())
                    about = content if key is None else content["metadata"].get(key)
                    if about is not None:
                        change(about)
                        file.write_text(json.dumps(content))

        return apply

    def pickled(path: Path) -> None:
        filters = {"filters": [{"id": "pickle", "protocol": 5}], "compressor": None, "dtype": "|O", "fill_value": None}
        description("X/data", lambda about: about.update(filters))(path)
        for chunk in (path / "X" / "data").glob("[0-9]*"):
            chunk.write_bytes(malformed.evil_pickle())

    def pickled_numbers(path: Path) -> None:
        description("X/data", lambda about: about.update(filters=[{"id": "pickle"}], compressor=None))(path)
        for chunk in (path / "X" / "data").glob("[0-9]*"):
            chunk.write_bytes(malformed.evil_pickle())

    def remove(name: str) -> Callable[[Path], None]:
        import shutil

        return lambda path: shutil.rmtree(path / name)

    return [
        Damage("pickle", "an array of pickles", pickled, place="pickles"),
        Damage("pickle", "numbers by way of pickles", pickled_numbers, place="pickles"),
        Damage("shape", "a trillion values", description("X/data", lambda about: about.update(shape=[2**40]))),
        Damage("shape", "negative", description("X/data", lambda about: about.update(shape=[-5]))),
        Damage("shape", "a word", description("X/data", lambda about: about.update(shape="large"))),
        Damage("shape", "no X", remove("X")),
        Damage("shape", "no obs", remove("obs")),
        Damage(
            "content",
            "another codec",
            description("X/data", lambda about: about.update(compressor={"id": "none such"})),
        ),
        Damage("content", "another type", description("X/data", lambda about: about.update(dtype="<U9"))),
        Damage("content", "another order", description("X/data", lambda about: about.update(order="Q")), EITHER),
    ]


def zarr_parts(folder: Path) -> tuple[str, ...]:
    names = (".zmetadata", "X/data/.zarray", "X/data/0", "X/indices/0", "obs/.zattrs")
    return tuple(f"cells.zarr/{name}" for name in names)


def write_10x(folder: Path) -> Path:
    made = folder / "tenx"
    made.mkdir()
    for name, columns in {
        "features.tsv": [CELL_GENES, CELL_GENES, ["Gene Expression"] * len(CELL_GENES)],
        "barcodes.tsv": [CELLS],
    }.items():
        (made / name).write_bytes(as_csv(list(zip(*columns, strict=True)), "\t"))
    buffer = io.BytesIO()
    matrix_market.mmwrite(buffer, sparse.csc_matrix(CELL_COUNTS.T))
    (made / "matrix.mtx").write_bytes(buffer.getvalue())
    return _with_table_of_cells(folder, made)


def tenx_damages(path: Path, rng: random.Random) -> list[Damage]:
    def file(name: str, change: Callable[[bytes], bytes]) -> Callable[[Path], None]:
        return lambda path: (path / name).write_bytes(change((path / name).read_bytes()))

    def header(line: bytes) -> Callable[[Path], None]:
        return file("matrix.mtx", lambda data: re.sub(rb"\n\d+ \d+ \d+\n", b"\n" + line + b"\n", data, count=1))

    def packed(path: Path) -> None:
        (path / "matrix.mtx").unlink()
        (path / "matrix.mtx.gz").write_bytes(
            bomb(b"%%MatrixMarket matrix coordinate integer general\n30 40 900000000\n", b"1 1 1\n")
        )

    quoted = [f'"{name}' if i == 3 else name for i, name in enumerate(CELL_GENES)]
    rows = zip(CELL_GENES, quoted, ["Gene Expression"] * len(CELL_GENES), strict=True)
    features = "".join("\t".join(row) + "\n" for row in rows).encode()
    return [
        Damage("shape", "absurd", header(b"99999999999 99999999999 5")),
        Damage("shape", "many values", header(b"30 40 99999999999")),
        Damage("shape", "negative", header(b"-30 40 5")),
        Damage("shape", "turned", header(b"40 30 5")),
        Damage("shape", "no features", lambda path: (path / "features.tsv").unlink(), place="features"),
        Damage("shape", "no barcodes", lambda path: (path / "barcodes.tsv").unlink(), place="barcodes"),
        Damage("shape", "two matrices", lambda path: (path / "b_matrix.mtx").write_bytes(b""), place="2 files"),
        Damage(
            "position",
            "beyond the genes",
            file("matrix.mtx", lambda data: re.sub(rb"\n\d+ (\d+ \d+)\n$", rb"\n99 \1\n", data)),
        ),
        Damage("value", "complex", file("matrix.mtx", lambda data: data.replace(b"integer", b"complex"))),
        Damage("value", "a pattern", file("matrix.mtx", lambda data: data.replace(b"integer", b"pattern"))),
        Damage("quotes", "one in a symbol", lambda path: (path / "features.tsv").write_bytes(features), SAME),
        Damage("bomb", "a matrix of 20 GB", packed),
    ]


# R's serialization, https://cran.r-project.org/doc/manuals/r-release/R-ints.html#Serialization-Formats.

NIL = struct.pack(">i", 254)


def _r_text(text: str) -> bytes:
    return struct.pack(">ii", 9 | 64 << 12, len(text)) + text.encode()


def _r_attributes(attributes: dict[str, bytes]) -> bytes:
    pairs = (
        struct.pack(">i", 2 | 1 << 10) + struct.pack(">i", 1) + _r_text(name) + value
        for name, value in attributes.items()
    )
    return b"".join(pairs) + NIL


def _r_vector(kind: int, values: Sequence, **attributes: bytes) -> bytes:
    """Integers (13), reals (14), words (16) or a list of serialized objects (19)."""
    form = {13: lambda x: struct.pack(">i", x), 14: lambda x: struct.pack(">d", x), 16: _r_text, 19: lambda x: x}[kind]
    head = struct.pack(">ii", kind | (512 if attributes else 0), len(values))
    return head + b"".join(map(form, values)) + (_r_attributes(attributes) if attributes else b"")


def _r_list(**items: bytes) -> bytes:
    return _r_vector(19, list(items.values()), names=_r_vector(16, list(items)))


def _r_object(kind: str, **slots: bytes) -> bytes:
    return struct.pack(">i", 25 | 1 << 8 | 1 << 9) + _r_attributes(slots | {"class": _r_vector(16, [kind])})


def r_experiment(
    values: Sequence[float] | None = None, rows: Sequence[int] | None = None, shape: Sequence[int] = ()
) -> bytes:
    """An .rds of a SingleCellExperiment of the cells."""
    matrix = sparse.csc_matrix(CELL_COUNTS.T)
    counts = _r_object(
        "dgCMatrix",
        i=_r_vector(13, matrix.indices.tolist() if rows is None else rows),
        p=_r_vector(13, matrix.indptr.tolist()),
        Dim=_r_vector(13, shape or matrix.shape),
        Dimnames=_r_vector(19, [_r_vector(16, CELL_GENES), _r_vector(16, CELLS)]),
        x=_r_vector(14, matrix.data.astype(float).tolist() if values is None else values),
    )
    table = _r_object(
        "DFrame",
        nrows=_r_vector(13, [len(CELLS)]),
        listData=_r_list(disease=_r_vector(16, DISEASE), patient=_r_vector(16, PATIENT)),
    )
    assays = _r_object("Assays", data=_r_object("SimpleList", listData=_r_list(counts=counts)))
    body = _r_object("SingleCellExperiment", assays=assays, colData=table)
    return gzip.compress(b"X\n" + struct.pack(">iii", 2, 0x040001, 0x020300) + body, mtime=0)


def rds_damages(path: Path, rng: random.Random) -> list[Damage]:
    matrix = sparse.csc_matrix(CELL_COUNTS.T)
    rows, values = matrix.indices.tolist(), matrix.data.astype(float).tolist()
    plain = gzip.decompress(path.read_bytes())
    flipped = []
    for at in sorted(rng.sample(range(2, len(plain)), 60)):
        changed = bytearray(plain)
        changed[at] ^= 1 << rng.randrange(8)
        flipped.append(Damage("flip", f"unpacked byte {at}", written(gzip.compress(bytes(changed), mtime=0)), EITHER))
    nested = b"X\n" + struct.pack(">iii", 2, 0x040001, 0x020300) + struct.pack(">ii", 19, 1) * 50_000 + NIL
    return [
        Damage("packed", "not at all", repacked(gzip.decompress), SAME),
        Damage("packed", "cut, then packed", written(gzip.compress(plain[: len(plain) // 2]))),
        Damage("bomb", "20 GB", written(bomb(plain, b"0"))),
        Damage("position", "beyond the genes", written(r_experiment(rows=[*rows[:-1], 2**30]))),
        Damage("position", "negative", written(r_experiment(rows=[*rows[:-1], -5]))),
        Damage("shape", "absurd", written(r_experiment(shape=[2**31 - 1, 2**31 - 1]))),
        Damage("shape", "fewer values", written(r_experiment(values=values[:-3]))),
        Damage("shape", "deep lists", written(gzip.compress(nested))),
        Damage("value", "not a number", written(r_experiment(values=[float("nan"), *values[1:]]))),
        *flipped,
    ]


def homologene(path: Path) -> str:
    """The door of an .rda: a converter of the registry."""
    target = path.with_name(".made.tsv.gz")
    try:
        converters.homologene_table({"groups": path}, target, taxa=[9606])
        return gzip.decompress(target.read_bytes()).decode()
    finally:
        target.unlink(missing_ok=True)


def write_rda(folder: Path) -> Path:
    frame = _r_vector(
        19,
        [_r_vector(13, [9606, 10090]), _r_vector(16, ["A", "b"])],
        names=_r_vector(16, ["Taxonomy", "Gene.Symbol"]),
        **{"row.names": _r_vector(13, [1, 2]), "class": _r_vector(16, ["data.frame"])},
    )
    flags = struct.unpack(">i", frame[:4])[0] | 1 << 8
    content = b"RDX2\nX\n" + struct.pack(">iii", 2, 0x040001, 0x020300)
    content += _r_attributes({"homologeneData": struct.pack(">i", flags) + frame[4:]})
    (folder / "homologene.rda").write_bytes(gzip.compress(content, mtime=0))
    return folder / "homologene.rda"
