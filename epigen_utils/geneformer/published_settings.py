"""Geneformer's settings as paper B states them, as published files have them, and as the presets here have them.

Paper B, sections 1.4, 1.4.2 and 2.3.
"""

from pathlib import Path

import pandas as pd
import torch
from transformers import BertForMaskedLM

from epigen_utils.models import presets

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
