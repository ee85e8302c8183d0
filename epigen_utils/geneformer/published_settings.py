"""Geneformer as published: its weights with their vocabulary, and its settings beside paper B's and the presets'.

Paper B, sections 1.4, 1.4.2 and 2.3.
"""

from pathlib import Path

import pandas as pd
import torch
from transformers import BertForMaskedLM, PreTrainedModel

from epigen_utils.errors import DataError
from epigen_utils.files import read_json
from epigen_utils.geneformer.vocabularies import Vocabulary, load_vocabulary, official_vocabulary
from epigen_utils.models import checkpoints, presets
from epigen_utils.models.checkpoints import Checkpoint

#: Tokens of a published model -> version of its vocabulary.
OFFICIAL_SIZES = {presets.V1_VOCABULARY_SIZE: "v1", 20_275: "v2"}

#: Setting of ``data/geneformer_settings.csv`` -> key of a BERT configuration.
CONFIG_KEYS = {
    "layers": "num_hidden_layers",
    "heads": "num_attention_heads",
    "width": "hidden_size",
    "feed-forward width": "intermediate_size",
    "activation": "hidden_act",
    "dropout": "hidden_dropout_prob",
    "attention dropout": "attention_probs_dropout_prob",
    "positions": "max_position_embeddings",
    "vocabulary": "vocab_size",
    "token types": "type_vocab_size",
}


def load_pretrained(
    place: str | Path, *, revision: str = "", head: str = "masked-lm", allow_pickle: bool = False
) -> tuple[PreTrainedModel, Vocabulary, Checkpoint]:
    """Load a pretrained Geneformer, published or of this project, with the vocabulary that its cells are encoded in.

    Parameters
    ----------
    place, revision, allow_pickle
        Of `checkpoints.find`; official Geneformer is ``ctheodoris/Geneformer:Geneformer-V1-10M``.
    head
        As for `presets.build`.

    Returns
    -------
    The model, its vocabulary (`vocabulary_of`), and where both come from.

    Raises
    ------
    DataError
        If there is no such model, or no vocabulary of its size.
    """
    checkpoint = checkpoints.find(place, revision=revision, allow_pickle=allow_pickle)
    vocabulary = vocabulary_of(checkpoint)
    return presets.load_checkpoint(checkpoint.folder, head, allow_pickle=allow_pickle), vocabulary, checkpoint


def vocabulary_of(checkpoint: Checkpoint) -> Vocabulary:
    """Vocabulary of a model: its ``vocabulary.json``, or the official one with as many tokens (`OFFICIAL_SIZES`).

    Raises
    ------
    DataError
        If there is none, or it has another number of tokens than the model.
    """
    folder = checkpoint.folder
    n_tokens = read_json(folder / checkpoints.CONFIG, "fetch or copy it again").get("vocab_size")
    # Beside `model`, as a run of this project writes it, or in the folder of an exported model.
    files = [folder / checkpoints.VOCABULARY]
    files += [folder.parent / checkpoints.VOCABULARY] if folder.name == "model" else []
    file = next((file for file in files if file.exists()), None)
    if file:
        vocabulary = load_vocabulary(file)
        if vocabulary.size != n_tokens:
            raise DataError(
                f"{file}: {vocabulary.size:,} tokens, and the model has {n_tokens:,}; give the vocabulary that it was "
                "trained with"
            )
        return vocabulary
    if n_tokens not in OFFICIAL_SIZES:
        known = " or ".join(f"{size:,} ({version})" for size, version in OFFICIAL_SIZES.items())
        raise DataError(
            f"{checkpoint.place}: a model of {n_tokens or 'no'} tokens, and no {checkpoints.VOCABULARY} beside it; put "
            f"one there, or give a model of {known} tokens"
        )
    return official_vocabulary(OFFICIAL_SIZES[n_tokens])


def read_settings(path: Path) -> dict[str, float | str]:
    """Settings by name, numbers as numbers, from a table whose first two columns are name and value."""
    table = pd.read_csv(path, dtype=str)
    return {name: _number(value) for name, value in table.iloc[:, :2].itertuples(index=False)}


def _number(text: str) -> float | str:
    try:
        return float(text)
    except ValueError:
        return text


def count_parameters(settings: dict[str, float | str]) -> int:
    """Parameters of a masked language model of these sizes, with tied embeddings as published."""
    values = {key: settings[name] for name, key in CONFIG_KEYS.items()}
    sizes = {key: int(value) for key, value in values.items() if isinstance(value, float) and value >= 1}
    with torch.device("meta"):
        return presets.n_parameters(BertForMaskedLM(presets.preset("geneformer-10m", **sizes)))


def compare_settings(stated_file: Path, published_file: Path, *, preset: str = "geneformer-10m") -> pd.DataFrame:
    """Each setting as the paper states it, as a published file has it, and as the preset here has it.

    Parameters
    ----------
    stated_file, published_file
        Files of ``paper-b`` and of ``geneformer-settings``: name, value, and section or file.

    Returns
    -------
    One row a setting of a published file: ``setting``, ``paper B`` and its ``section`` (empty where it is silent),
    ``published``, ``preset`` (empty for settings of the training) and ``file``.
    """
    stated, published = (pd.read_csv(path, dtype=str).fillna("") for path in (stated_file, published_file))
    said = stated.set_index("name")
    config = presets.preset(preset).to_dict()
    rows = []
    for row in published.itertuples():
        value, section = said.loc[row.setting, ["value", "locus"]] if row.setting in said.index else ("", "")
        texts = {"paper B": value, "section": section.removeprefix("Section "), "published": row.value}
        texts |= {"preset": str(config.get(CONFIG_KEYS.get(row.setting), "")), "file": row.file.rpartition("/")[2]}
        rows.append({"setting": row.setting} | texts)
    return pd.DataFrame(rows)
