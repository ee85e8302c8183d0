"""Encoded cells: their type, and those encoded earlier: Genecorpus-30M, Geneformer's examples, output of `encoding`.

The files of encoded cells are mapped, not read; of 27 million cells only arrays of numbers are held in memory.
"""

import json
from collections.abc import Iterable
from pathlib import Path
from typing import Protocol

import anndata
import datasets
import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc

from epigen_utils.data import fetching, genes, readers, registry
from epigen_utils.errors import DataError, first_line
from epigen_utils.files import check_regular, read_json, whole_folder
from epigen_utils.geneformer.vocabularies import Vocabulary

#: Cells whose tokens are compared with the vocabulary; those of another version are seen in the first of them.
CHECKED_CELLS = 100_000


class EncodedCells(Protocol):
    """Encoded cells: a `datasets.Dataset`, or a mapping, whose ``["input_ids"]`` are the token ids of each cell."""

    def __getitem__(self, column: str) -> Iterable[Iterable[int]]: ...


def token_ids(cells: EncodedCells) -> list[np.ndarray]:
    """Token ids of each cell, highest rank first."""
    return [np.asarray(cell) for cell in cells["input_ids"]]


def write_arrow(
    folder: Path, record_batches: Iterable[pa.RecordBatch], arrow_schema: pa.Schema, card: dict[str, object]
) -> datasets.Dataset:
    """Write record batches to a folder for ``datasets.load_from_disk``, through a temporary folder that is renamed.

    Parameters
    ----------
    card
        Description of the vocabulary, stored as ``vocabulary.json``.
    """
    with whole_folder(folder) as part:
        with (
            pa.OSFile(str(part / "data-00000-of-00001.arrow"), "wb") as sink,
            pa.ipc.new_stream(sink, arrow_schema) as writer,
        ):
            for batch in record_batches:
                writer.write_batch(batch)
        datasets.DatasetInfo(features=datasets.Features.from_arrow_schema(arrow_schema)).write_to_directory(str(part))
        state = {
            "_data_files": [{"filename": "data-00000-of-00001.arrow"}],
            "_fingerprint": str(card["sha256"])[:16],
            "_format_columns": None,
            "_format_kwargs": {},
            "_format_type": None,
            "_output_all_columns": False,
            "_split": None,
        }
        (part / "state.json").write_text(json.dumps(state, indent=1))
        (part / "vocabulary.json").write_text(json.dumps(card, indent=1))
    return load_arrow(folder)


def load_arrow(folder: str | Path) -> datasets.Dataset:
    """Load the encoded cells of a folder, memory-mapped.

    Raises
    ------
    DataError
        If the folder has none.
    """
    if not is_encoded_folder(folder):
        raise DataError(f"{folder}: no encoded cells; encode a file into it first")
    for file in (file for file in Path(folder).iterdir() if not file.is_dir()):
        check_regular(file)
    try:
        return datasets.load_from_disk(str(folder))
    except Exception as error:  # noqa: BLE001 - datasets takes its files for whole, and raises what their content leads to
        raise _damaged(folder, error) from None


def _damaged(folder: str | Path, error: Exception) -> DataError:
    reason = first_line(error)
    return DataError(f"{folder}: encoded cells that cannot be read ({reason}); delete it, make it again")


def is_encoded_folder(folder: str | Path) -> bool:
    """Whether a path is a folder of tokenised cells, as ``datasets.save_to_disk`` writes it."""
    return (Path(folder) / "state.json").is_file()


def find_encoded(name_or_path: str) -> tuple[Path, dict] | None:
    """Folder of tokenised cells and its description; None for any other data set.

    Parameters
    ----------
    name_or_path
        Name of a data set of the registry that is such a folder of a hub, fetched if need be; or the folder.
    """
    entry = registry.entries().get(name_or_path)
    if entry and any(spec.hub for spec in entry.files.values()):
        design = {"group": entry.group, "reference": entry.reference, "donor": entry.donor}
        about = entry.facts | {key: value for key, value in design.items() if value}
        ((role, fetched),) = fetching.fetch_versions(name_or_path).items()
        return fetched.path, about | {"measure": "tokens", "sha256": {role: fetched.version}}
    if not is_encoded_folder(name_or_path):
        return None
    about = readers.describe_user_file(Path(name_or_path))
    return Path(name_or_path), about | {"species": "homo_sapiens", "measure": "tokens"}


def load_encoded_cells(folder: str | Path, vocabulary: Vocabulary | None, *, max_length: int) -> datasets.Dataset:
    """Load tokenised cells, truncated to a length, with their columns and ``length``.

    Parameters
    ----------
    vocabulary
        Vocabulary of the tokens; it must match the folder's ``vocabulary.json``, if present (`encoding` writes one).

    Raises
    ------
    DataError
        If there are no tokens, no vocabulary is given, or the tokens belong to another one.
    """
    folder = Path(folder)
    if vocabulary is None:
        raise DataError(f"{folder}: tokenised cells need the vocabulary they are of; give v1 or v2, or a teacher")
    encoded = load_arrow(folder)
    if "input_ids" not in encoded.column_names:
        raise DataError(f"{folder}: no column 'input_ids'; give tokenised cells")
    card = folder / "vocabulary.json"
    if card.is_file():
        stored = read_json(card, "encode the cells again")
        if stored.get("sha256") != vocabulary.sha256:
            raise DataError(
                f"{folder}: tokens are of vocabulary {stored.get('vocabulary')!r}, the model's is {vocabulary.name!r}; "
                "encode the cells again, or take the other model"
            )
    tokens = encoded.data.column("input_ids")
    try:
        tokens.validate(full=True)  # positions outside of the file would be read
        bounds = pc.min_max(pc.list_flatten(tokens.slice(0, CHECKED_CELLS)).cast("int64")).as_py()
    except (pa.ArrowInvalid, pa.ArrowNotImplementedError) as error:
        raise _damaged(folder, error) from None
    lowest, highest = bounds["min"] or 0, bounds["max"] or 0
    if lowest < 0:
        raise DataError(f"{folder}: token {lowest}, and tokens are numbered from 0; encode the cells again")
    if highest >= vocabulary.size:
        raise DataError(
            f"{folder}: token {highest} is not in the vocabulary {vocabulary.name!r}, which has {vocabulary.size:,}; "
            "is it of the other version?"
        )
    if (pc.max(pc.list_value_length(tokens)).as_py() or 0) > max_length:
        datasets.disable_progress_bars()
        encoded = encoded.map(lambda row: {"input_ids": row["input_ids"][:max_length]})
        datasets.enable_progress_bars()
    lengths = pc.list_value_length(encoded.data.column("input_ids")).to_numpy()
    if "length" in encoded.column_names:
        if np.array_equal(encoded.data.column("length").to_numpy(), lengths):
            return encoded
        encoded = encoded.remove_columns(["length"])
    return encoded.add_column("length", lengths)


def cell_table(encoded: datasets.Dataset, vocabulary: Vocabulary, about: dict) -> anndata.AnnData:
    """Sample table of tokenised cells, and the genes of their vocabulary, as an AnnData without counts.

    Parameters
    ----------
    about
        Description of the data set (`find_encoded`), which becomes ``uns["epigen"]``.
    """
    table = encoded.remove_columns(["input_ids"]).to_pandas()
    table.index = table.index.astype(str)
    names = pd.Index(vocabulary.genes)
    var = pd.DataFrame({"symbol": names, "ensembl_id": names}, index=names)
    return genes.add_symbols(anndata.AnnData(obs=table, var=var, uns={"epigen": dict(about)}))
