"""Models of the papers by name, as Hugging Face configurations and classes."""

import contextlib
import copy
import json
from collections.abc import Iterator
from pathlib import Path
from types import MethodType

import torch
from torch import nn
from transformers import (
    AttentionInterface,
    AttentionMaskInterface,
    AutoConfig,
    BertConfig,
    BertForMaskedLM,
    BertForSequenceClassification,
    BertForTokenClassification,
    GPT2Config,
    GPT2LMHeadModel,
    PretrainedConfig,
    PreTrainedModel,
)
from transformers.modeling_outputs import MaskedLMOutput

from epigen_utils.errors import closest

#: Published sizes. Geneformer-V1-10M: its config.json. Students: paper B's configs/config.yaml; all have four layers,
#: four heads, a vocabulary of 25,426, and BertConfig's default activation and dropout.
PRESETS = {
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
    # For the demo: no attention dropout, for which the CPU has no fast kernel, and large initial weights, so that
    # attention becomes informative within hundreds of steps instead of tens of thousands.
    "bert-tiny": {
        "hidden_size": 64,
        "num_hidden_layers": 2,
        "intermediate_size": 128,
        "hidden_act": "relu",
        "hidden_dropout_prob": 0.02,
        "attention_probs_dropout_prob": 0.0,
        "initializer_range": 0.2,
    },
}
#: GPT-2 as published (Radford et al. 2019, table 2; paper A uses the largest), and one for the demo, initialised as
#: `bert-tiny`.
GPT2 = {
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
#: Keys of a configuration that determine the architecture.
SHAPE = (
    "vocab_size",
    "max_position_embeddings",
    "num_hidden_layers",
    "hidden_size",
    "num_attention_heads",
    "intermediate_size",
    "hidden_act",
    "hidden_dropout_prob",
    "attention_probs_dropout_prob",
    "layer_norm_eps",
    "initializer_range",
    "type_vocab_size",
    "pad_token_id",
)
#: Size of the vocabulary of Geneformer-V1.
V1_TOKENS = 25_426
#: Heads by name, and the class that implements each.
HEADS = {
    "masked-lm": BertForMaskedLM,
    "cell-class": BertForSequenceClassification,
    "gene-class": BertForTokenClassification,
    "causal-lm": GPT2LMHeadModel,
}
#: Label of a position that is not predicted.
IGNORED = -100


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
    """
    if name not in PRESETS | GPT2:
        raise ValueError(f"model {name!r}: {closest(name, PRESETS | GPT2)}")
    if name in GPT2:
        # The tokens that begin and end a text belong to the published vocabulary.
        end_tokens = {} if "vocab_size" not in changes else {"bos_token_id": None, "eos_token_id": None}
        return GPT2Config(**(end_tokens | GPT2[name] | changes))
    shared = {"vocab_size": V1_TOKENS, "num_attention_heads": 4, "max_position_embeddings": 2048, "pad_token_id": 0}
    return BertConfig(**(shared | PRESETS[name] | changes))


def build(config: PretrainedConfig, head: str, *, seed: int = 0) -> PreTrainedModel:
    """Model with freshly initialised weights.

    Parameters
    ----------
    head
        ``masked-lm``: logits of labelled positions only (`masked_positions_only`). ``cell-class``: logits of the first
        position, as official Geneformer classifies cells. ``gene-class``: logits of each position. ``causal-lm``: the
        next token (GPT-2).
    seed
        Seed of the weights.

    Raises
    ------
    ValueError
        If there is no such head.
    """
    model_class = _head(head)
    torch.manual_seed(seed)
    return _asked_only(model_class(config))


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


def with_attention_heads(model: PreTrainedModel, heads: int) -> PreTrainedModel:
    """Model with the same weights and another number of attention heads.

    No weight's shape depends on the number of heads, so the weights load without an error, but attention differs. Paper
    B's loader does this to its students, trained with four heads: it uses one head for each 64 of the width.
    """
    config = copy.deepcopy(model.config)
    config.num_attention_heads = heads
    variant = _asked_only(type(model)(config))
    variant.load_state_dict(model.state_dict())
    return variant


def frozen(model: PreTrainedModel, layers: int) -> PreTrainedModel:
    """Freeze the first layers in place; the embeddings stay trainable, as in official Geneformer.

    Raises
    ------
    ValueError
        If the model has fewer layers.
    """
    blocks = model.base_model.encoder.layer
    if not 0 <= layers <= len(blocks):
        raise ValueError(f"{layers} frozen layers: the model has {len(blocks)}")
    for block in blocks[:layers]:
        block.requires_grad_(False)
    return model


def frozen_share(model: PreTrainedModel) -> int:
    """Number of layers to freeze at the published share, two of six."""
    return round(model.config.num_hidden_layers / 3)


def load(folder: str, head: str = "masked-lm") -> PreTrainedModel:
    """Load a published or saved checkpoint from a folder, without contacting a model hub."""
    config = AutoConfig.from_pretrained(folder)
    return _asked_only(_head(head).from_pretrained(folder, config=config, local_files_only=True))


def _head(name: str) -> type[PreTrainedModel]:
    if name not in HEADS:
        raise ValueError(f"head {name!r}: {closest(name, HEADS)}")
    return HEADS[name]


def _asked_only(model: PreTrainedModel) -> PreTrainedModel:
    return masked_positions_only(model) if isinstance(model, BertForMaskedLM) else model


def n_parameters(model: nn.Module) -> int:
    """Number of weights of a model; tied weights count once."""
    return sum(parameter.numel() for parameter in model.parameters())


def sizes() -> list[dict[str, object]]:
    """Sizes of the papers' models with V1's vocabulary.

    Returns
    -------
    ``model``, ``layers``, ``heads``, ``width``, ``feed-forward`` and ``parameters`` of each.
    """
    rows = []
    for name in PRESETS:
        config = preset(name)
        with torch.device("meta"):
            parameters = n_parameters(BertForMaskedLM(config))
        row = {"model": name, "layers": config.num_hidden_layers, "heads": config.num_attention_heads}
        row |= {"width": config.hidden_size, "feed-forward": config.intermediate_size}
        rows.append(row | {"parameters": parameters})
    return rows


def published(path: Path) -> dict[str, object]:
    """Read a published ``config.json``."""
    return json.loads(path.read_text())


def compared(config: PretrainedConfig, other: dict[str, object]) -> list[dict[str, str]]:
    """Architecture keys present in both configurations: ``key``, ``ours``, ``published``."""
    ours = config.to_dict()
    keys = [key for key in SHAPE if key in other]
    return [{"key": key, "ours": str(ours[key]), "published": str(other[key])} for key in keys]


def checkpointed(model: PreTrainedModel) -> PreTrainedModel:
    """Enable gradient checkpointing in place: activations are recomputed in the backward pass instead of stored."""
    # Later releases of transformers rename the method.
    getattr(model, "activation_checkpointing_enable", model.gradient_checkpointing_enable)()
    return model


def without_attention_dropout(model: PreTrainedModel) -> PreTrainedModel:
    """Disable the dropout of attention weights in place; all other dropout stays.

    PyTorch's fused attention has no dropout on a CPU: with dropout it materialises the matrix of attention weights,
    which dominates the time of a step on long cells.
    """
    for module in model.modules():
        if hasattr(module, "query") and hasattr(module, "dropout"):
            module.dropout.p = 0.0
    return model


@contextlib.contextmanager
def attending(model: PreTrainedModel, how: str) -> Iterator[PreTrainedModel]:
    """Use another attention implementation within a context.

    ``eager`` returns the attention weights. ``matmul`` consists of two matrix products and a softmax in the precision
    of the products. In bf16 on a CPU it is several times faster than PyTorch's fused kernel, at the cost of memory for
    the attention weights (length squared per head). It supports no attention dropout (`without_attention_dropout`);
    gradients equal those of the fused kernel up to rounding (tests/test_models.py).
    """
    previous = model.config._attn_implementation
    model.set_attn_implementation(how)
    try:
        yield model
    finally:
        model.set_attn_implementation(previous)


def _matmul_attention(
    module: nn.Module,
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    attention_mask: torch.Tensor | None,
    scaling: float | None = None,
    dropout: float = 0.0,
    **_options,
) -> tuple[torch.Tensor, None]:
    if dropout:
        raise ValueError("attention by matmul has no dropout; leave it out (models.without_attention_dropout)")
    query = query * (scaling or query.shape[-1] ** -0.5)  # (cells, heads, length, width), as key and value
    # Automatic mixed precision would compute the softmax in 32 bits, which dominates the time.
    with torch.autocast(query.device.type, enabled=False):
        if attention_mask is None:
            out = _attend(query, key, value)
        elif attention_mask.shape[-2] == 1:
            # Each cell without its padding needs no mask.
            lengths = attention_mask[:, 0, 0].sum(dim=-1).tolist()
            cells = [_attend(query[i, :, :n], key[i, :, :n], value[i, :, :n]) for i, n in enumerate(lengths)]
            length = query.shape[-2]
            padded = [nn.functional.pad(cell, (0, 0, 0, length - cell.shape[-2])) for cell in cells]
            out = torch.stack(padded)  # (cells, heads, length, width)
        else:
            out = _attend(query, key, value, ~attention_mask)
    return out.transpose(1, 2).contiguous(), None  # (cells, length, heads, width)


def _attend(
    query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, masked: torch.Tensor | None = None
) -> torch.Tensor:
    scores = torch.matmul(query, key.transpose(-1, -2))  # (..., heads, length, length)
    if masked is not None:
        scores = scores.masked_fill(masked, torch.finfo(scores.dtype).min)
    return torch.matmul(torch.softmax(scores, dim=-1), value)


def _key_mask(*_arguments, attention_mask: torch.Tensor | None = None, **_options) -> torch.Tensor | None:
    """Mask of the keys that are not padding, cells x 1 x 1 x length; None if there is no padding."""
    if attention_mask is None or bool(attention_mask.all()):
        return None
    return attention_mask.bool()[:, None, None, :]


AttentionInterface.register("matmul", _matmul_attention)
AttentionMaskInterface.register("matmul", _key_mask)


def masked_positions_only(model: BertForMaskedLM) -> BertForMaskedLM:
    """Restrict a masked language model's projection to the vocabulary to labelled positions, in place.

    The projection dominates the cost of a small model with a large vocabulary, and 85% of its output would be
    discarded. Loss and gradients equal those of the unmodified model (tests/test_models.py), and so does the output
    without labels.
    """
    model.forward = MethodType(_forward_where_asked, model)
    return model


def _forward_where_asked(
    self: BertForMaskedLM,
    input_ids: torch.Tensor,
    attention_mask: torch.Tensor | None = None,
    labels: torch.Tensor | None = None,
    **options,
) -> MaskedLMOutput:
    """`BertForMaskedLM.forward`; given labels, ``logits`` cover the labelled positions only, labelled x vocabulary.

    ``num_items_in_batch``, set by the Trainer, counts the labels over all devices and accumulated parts.
    """
    if labels is None:
        return BertForMaskedLM.forward(self, input_ids, attention_mask, **options)
    n_labels = options.pop("num_items_in_batch", None)
    hidden = self.bert(input_ids, attention_mask=attention_mask, **options).last_hidden_state  # (cells, length, width)
    labelled = labels != IGNORED
    logits = self.cls(hidden[labelled])  # (labelled, vocabulary)
    if len(logits):
        loss = nn.functional.cross_entropy(logits.float(), labels[labelled], reduction="sum")
    else:
        # A batch of very short cells can lack masked genes: zero loss, zero gradient.
        loss = hidden.sum() * 0
    n_labels = len(logits) if n_labels is None else n_labels
    return MaskedLMOutput(loss=loss / max(int(n_labels), 1), logits=logits)
