"""Models of the papers by name, as Hugging Face configurations and classes."""

import copy
from pathlib import Path

import torch
from torch import nn
from transformers import (
    BertConfig,
    BertForMaskedLM,
    BertForSequenceClassification,
    BertForTokenClassification,
    GPT2Config,
    GPT2LMHeadModel,
    PretrainedConfig,
    PreTrainedModel,
)

from epigen_utils.errors import DataError, suggest
from epigen_utils.files import read_json
from epigen_utils.models import checkpoints, masked_heads

#: Published sizes. Geneformer-V1-10M: its config.json. Students: paper B's configs/config.yaml; all have four layers,
#: four heads, a vocabulary of 25,426, and BertConfig's default activation and dropout.
BERT_PRESETS = {
    "geneformer-10m": {
        "hidden_size": 256,
        "num_hidden_layers": 6,
        "intermediate_size": 512,
        "hidden_act": "relu",
        "hidden_dropout_prob": 0.02,
        "attention_probs_dropout_prob": 0.02,
    },
    "student-4.3m": {"hidden_size": 128, "num_hidden_layers": 4, "intermediate_size": 512},
    "student-3m": {"hidden_size": 96, "num_hidden_layers": 4, "intermediate_size": 384},
    "student-2m": {"hidden_size": 64, "num_hidden_layers": 4, "intermediate_size": 256},
    # For the demo: no dropout, which a model that sees each cell a few times does not need.
    "bert-tiny": {
        "hidden_size": 64,
        "num_hidden_layers": 2,
        "intermediate_size": 128,
        "hidden_act": "relu",
        "hidden_dropout_prob": 0.0,
        "attention_probs_dropout_prob": 0.0,
    },
}
#: GPT-2 as published (Radford et al. 2019, table 2; paper A uses the largest), and one for the demo, initialised as
#: `bert-tiny`.
GPT2_PRESETS = {
    "gpt2-xl": {"n_embd": 1600, "n_layer": 48, "n_head": 25},
    "gpt2": {"n_embd": 768, "n_layer": 12, "n_head": 12},
    "gpt2-tiny": {
        "n_embd": 64,
        "n_layer": 2,
        "n_head": 4,
        "initializer_range": 0.2,
        "resid_pdrop": 0.0,
        "embd_pdrop": 0.0,
        "attn_pdrop": 0.0,
    },
}
#: Keys of a saved configuration that tell the presets of an architecture apart (`preset_of`).
SHAPE_KEYS = {
    "bert": ("hidden_size", "num_hidden_layers", "num_attention_heads", "intermediate_size", "hidden_act"),
    "gpt2": ("n_embd", "n_layer", "n_head"),
}
#: Presets named for their number of parameters, which vocabulary and positions are part of.
NAMED_FOR_SIZE = ("geneformer-10m", "student-4.3m", "student-3m", "student-2m")
#: Size of the vocabulary of Geneformer-V1.
V1_VOCABULARY_SIZE = 25_426
#: Heads by name, and the class that implements each.
HEADS = {
    "masked-lm": BertForMaskedLM,
    "cell-class": BertForSequenceClassification,
    "gene-class": BertForTokenClassification,
    "causal-lm": GPT2LMHeadModel,
}


def preset(name: str, **changes) -> PretrainedConfig:
    """Configuration of a named model.

    Parameters
    ----------
    changes
        Overrides of the configuration, such as ``vocab_size``.

    Raises
    ------
    ValueError
        If there is no such model.

    Examples
    --------
    >>> from epigen_utils.models import presets
    >>> config = presets.preset("student-3m", vocab_size=1000)
    >>> (config.num_hidden_layers, config.hidden_size, config.vocab_size)
    (4, 96, 1000)
    """
    if name not in BERT_PRESETS | GPT2_PRESETS:
        raise ValueError(f"model {name!r}: {suggest(name, BERT_PRESETS | GPT2_PRESETS)}")
    if name in GPT2_PRESETS:
        # The tokens that begin and end a text belong to the published vocabulary.
        end_tokens = {} if "vocab_size" not in changes else {"bos_token_id": None, "eos_token_id": None}
        return GPT2Config(**(end_tokens | GPT2_PRESETS[name] | changes))
    shared = {
        "vocab_size": V1_VOCABULARY_SIZE,
        "num_attention_heads": 4,
        "max_position_embeddings": 2048,
        "pad_token_id": 0,
    }
    return BertConfig(**(shared | BERT_PRESETS[name] | changes))


def build(config: PretrainedConfig, head: str, *, seed: int = 0) -> PreTrainedModel:
    """Model with freshly initialised weights.

    Parameters
    ----------
    head
        ``masked-lm``: logits of labelled positions only (`masked_heads.masked_positions_only`). ``cell-class``:
        logits of the first position, as official Geneformer classifies cells. ``gene-class``: logits of each
        position. ``causal-lm``: the next token (GPT-2).
    seed
        Seed of the weights.

    Raises
    ------
    ValueError
        If there is no such head.

    Examples
    --------
    >>> from epigen_utils.models import presets
    >>> model = presets.build(presets.preset("bert-tiny", vocab_size=50), "masked-lm")
    >>> type(model).__name__
    'BertForMaskedLM'
    >>> presets.n_parameters(model)
    205810
    """
    model_class = _head_class(head)
    torch.manual_seed(seed)
    return _with_masked_projection(model_class(config))


def with_head(model: PreTrainedModel, head: str, classes: list[str], *, seed: int = 0) -> PreTrainedModel:
    """Model with the encoder weights of another and a fresh classification head.

    ``cell-class`` reads the first position through a pooler, which a masked language model lacks; it is initialised
    too.

    Raises
    ------
    ValueError
        If there is no such head.
    """
    config = copy.deepcopy(model.config)
    config.id2label = dict(enumerate(classes))
    config.label2id = {name: label for label, name in enumerate(classes)}
    config.problem_type = "single_label_classification"
    classifier = build(config, head, seed=seed)
    weights = {name: value for name, value in model.base_model.state_dict().items() if not name.startswith("pooler")}
    classifier.base_model.load_state_dict(weights, strict=False)
    return classifier


def with_attention_heads(model: PreTrainedModel, n_heads: int) -> PreTrainedModel:
    """Model with the same weights and another number of attention heads.

    No weight's shape depends on the number of heads, so the weights load without an error, but attention differs. Paper
    B's loader does this to its students, trained with four heads: it uses one head for each 64 of the width.
    """
    config = copy.deepcopy(model.config)
    config.num_attention_heads = n_heads
    variant = _with_masked_projection(type(model)(config))
    variant.load_state_dict(model.state_dict())
    return variant


def freeze_layers(model: PreTrainedModel, n_layers: int) -> PreTrainedModel:
    """Freeze the first layers in place; the embeddings stay trainable, as in official Geneformer.

    Raises
    ------
    ValueError
        If the model has fewer layers.
    """
    blocks = model.base_model.encoder.layer
    if not 0 <= n_layers <= len(blocks):
        raise ValueError(f"{n_layers} frozen layers: the model has {len(blocks)}")
    for block in blocks[:n_layers]:
        block.requires_grad_(False)
    return model


def n_layers_to_freeze(model: PreTrainedModel) -> int:
    """Number of layers to freeze at the published share, two of six."""
    return round(model.config.num_hidden_layers / 3)


def load_checkpoint(
    place: str | Path, head: str = "masked-lm", *, revision: str = "", allow_pickle: bool = False
) -> PreTrainedModel:
    """Load a published or saved model from a folder or a model hub (`checkpoints.load`).

    Parameters
    ----------
    head
        As for `build`.
    place, revision, allow_pickle
        Of `checkpoints.find`.

    Raises
    ------
    DataError
        If there is no such model, or it has no such head.
    ValueError
        If there is no such head at all.
    """
    model = checkpoints.load(_head_class(head), place, revision=revision, allow_pickle=allow_pickle)
    return _with_masked_projection(model)


def preset_of(folder: str | Path) -> str:
    """Name of the preset that a saved model has the shape of, by its configuration; empty if it has none.

    Layers, width, heads, feed-forward width and activation decide (`SHAPE_KEYS`). A preset that is named for its number
    of parameters (`NAMED_FOR_SIZE`) has its published vocabulary and positions too, so that a student scaled to a small
    teacher, or Geneformer's shape with another vocabulary, is none of the papers' models. Weights and dropout are not
    compared.

    Parameters
    ----------
    folder
        Folder with a ``config.json``, or with one in its folder ``model``.

    Raises
    ------
    DataError
        If there is no configuration.

    Examples
    --------
    >>> import tempfile
    >>> from epigen_utils.models import presets
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     presets.preset("student-3m").save_pretrained(folder)
    ...     published = presets.preset_of(folder)
    ...     presets.preset("student-3m", hidden_size=24, intermediate_size=96).save_pretrained(folder)
    ...     scaled = presets.preset_of(folder)
    >>> (published, scaled)
    ('student-3m', '')
    """
    path = checkpoints.model_folder(folder) / checkpoints.CONFIG
    if not path.exists():
        raise DataError(f"{folder}: no model there, since it has no config.json; give the folder of a saved model")
    saved = read_config(path)
    for name in BERT_PRESETS | GPT2_PRESETS:
        config = preset(name)
        keys = (*SHAPE_KEYS[config.model_type], "model_type")
        keys += ("vocab_size", "max_position_embeddings") if name in NAMED_FOR_SIZE else ()
        if all(getattr(config, key) == saved.get(key) for key in keys):
            return name
    return ""


def describe_size(model: PreTrainedModel) -> str:
    """Size of a model as text: layers, width, heads, tokens of the vocabulary, and parameters.

    Examples
    --------
    >>> from epigen_utils.models import presets
    >>> presets.describe_size(presets.build(presets.preset("bert-tiny", vocab_size=50), "masked-lm"))
    '2 layers of width 64, 4 heads, 50 tokens, 205,810 parameters'
    """
    config = model.config
    layers, heads = config.num_hidden_layers, config.num_attention_heads
    shape = f"{layers} layer{'' if layers == 1 else 's'} of width {config.hidden_size}, {heads} heads"
    return f"{shape}, {config.vocab_size:,} tokens, {n_parameters(model):,} parameters"


def _head_class(name: str) -> type[PreTrainedModel]:
    if name not in HEADS:
        raise ValueError(f"head {name!r}: {suggest(name, HEADS)}")
    return HEADS[name]


def _with_masked_projection(model: PreTrainedModel) -> PreTrainedModel:
    return masked_heads.masked_positions_only(model) if isinstance(model, BertForMaskedLM) else model


def n_parameters(model: nn.Module) -> int:
    """Number of weights of a model; tied weights count once."""
    return sum(parameter.numel() for parameter in model.parameters())


def model_sizes() -> list[dict[str, object]]:
    """Sizes of the papers' models with V1's vocabulary.

    Returns
    -------
    ``model``, ``layers``, ``heads``, ``width``, ``feed-forward`` and ``parameters`` of each.
    """
    rows = []
    for name in BERT_PRESETS:
        config = preset(name)
        with torch.device("meta"):
            parameters = n_parameters(BertForMaskedLM(config))
        row = {"model": name, "layers": config.num_hidden_layers, "heads": config.num_attention_heads}
        row |= {"width": config.hidden_size, "feed-forward": config.intermediate_size}
        rows.append(row | {"parameters": parameters})
    return rows


def read_config(path: Path) -> dict[str, object]:
    """Read a published ``config.json``."""
    return read_json(path, "fetch or copy it again")


def enable_gradient_checkpointing(model: PreTrainedModel) -> PreTrainedModel:
    """Enable gradient checkpointing in place: activations are recomputed in the backward pass instead of stored."""
    # Later releases of transformers rename the method.
    getattr(model, "activation_checkpointing_enable", model.gradient_checkpointing_enable)()
    return model
