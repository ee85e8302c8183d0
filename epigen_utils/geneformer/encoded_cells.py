"""Cells encoded earlier: Genecorpus-30M, Geneformer's example data sets, or output of `encoding`."""

import json
from pathlib import Path

import anndata
import datasets as arrow
import pyarrow.compute as pc

from epigen_utils import cells, readers
from epigen_utils.errors import DataError
from epigen_utils.vocabularies import Vocabulary


def there(folder: str | Path) -> bool:
    """Whether a path is a folder of tokenised cells, as ``datasets.save_to_disk`` writes it."""
    return (Path(folder) / "state.json").is_file()


def load(
    folder: str | Path, vocabulary: Vocabulary | None, *, max_length: int
) -> tuple[anndata.AnnData, arrow.Dataset]:
    """Load tokenised cells, truncated to a length, and their sample table as an AnnData without genes.

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
    encoded = cells.load_arrow(folder)
    if "input_ids" not in encoded.column_names:
        raise DataError(f"{folder}: no column 'input_ids'; give tokenised cells")
    card = folder / "vocabulary.json"
    if card.is_file():
        stored = json.loads(card.read_text())
        if stored["sha256"] != vocabulary.sha256:
            raise DataError(
                f"{folder}: tokens are of vocabulary {stored['vocabulary']!r}, the model's is {vocabulary.name!r}; "
                "encode the cells anew, or take the other model"
            )
    tokens = encoded.data.column("input_ids")
    highest = pc.max(pc.list_flatten(tokens)).as_py() or 0
    if highest >= vocabulary.size:
        raise DataError(
            f"{folder}: token {highest} is not in the vocabulary {vocabulary.name!r}, which has {vocabulary.size:,}; "
            "is it of the other version?"
        )
    table = encoded.remove_columns(["input_ids"]).to_pandas()
    table.index = table.index.astype(str)
    if pc.max(pc.list_value_length(tokens)).as_py() > max_length:
        arrow.disable_progress_bars()
        encoded = encoded.map(lambda row: {"input_ids": row["input_ids"][:max_length]})
        arrow.enable_progress_bars()
    lengths = pc.list_value_length(encoded.data.column("input_ids")).to_numpy()
    if "length" in encoded.column_names:
        encoded = encoded.remove_columns(["length"])
    encoded = encoded.add_column("length", lengths)
    adata = anndata.AnnData(obs=table)
    adata.uns["epigen"] = readers.about_own(folder) | {"species": "homo_sapiens", "measure": "tokens"}
    return adata, encoded
