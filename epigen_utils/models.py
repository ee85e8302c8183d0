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

#: Published sizes. Geneformer-V1-10M: its config.json. Students: paper B's configs/config.yaml; all have four layers and four
#: heads, and the activation and dropout that BertConfig has by default. Theirs is a vocabulary of 25,426.
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
    # For the demo: without dropout of attention, for which the CPU has no fast kernel, and with weights so large at the start
    # that attention has something to say within hundreds of steps, not tens of thousands.
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
#: GPT-2 as published (Radford et al. 2019, table 2; paper A's is the largest), and one for the demo, which starts as `bert-tiny` does.
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
#: Keys of a configuration that shape a model.
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
#: Tokens of Geneformer-V1.
V1_TOKENS = 25_426
#: What a model can be asked for, and the class that answers.
HEADS = {
    "masked-lm": BertForMaskedLM,
    "cell-class": BertForSequenceClassification,
    "gene-class": BertForTokenClassification,
    "causal-lm": GPT2LMHeadModel,
}
#: Label of a position that is not to be predicted.
IGNORED = -100


def preset(name: str, **changes) -> PretrainedConfig:
    """The configuration of a named model.

    Parameters
    ----------
    changes
        Of the configuration, such as ``vocab_size`` for a vocabulary of one's own.

    Raises
    ------
    ValueError
        If there is no such model.
    """
    if name not in PRESETS | GPT2:
        raise ValueError(f"model {name!r}: {closest(name, PRESETS | GPT2)}")
    if name in GPT2:
        # The tokens that begin and end a text are of the published vocabulary.
        ends = {} if "vocab_size" not in changes else {"bos_token_id": None, "eos_token_id": None}
        return GPT2Config(**(ends | GPT2[name] | changes))
    shared = {"vocab_size": V1_TOKENS, "num_attention_heads": 4, "max_position_embeddings": 2048, "pad_token_id": 0}
    return BertConfig(**(shared | PRESETS[name] | changes))


def build(config: PretrainedConfig, head: str, *, seed: int = 0) -> PreTrainedModel:
    """A model with fresh weights.

    Parameters
    ----------
    head
        ``masked-lm``: logits only where a label asks for them (`masked_positions_only`). ``cell-class``: of the first position, as
        official Geneformer classifies cells. ``gene-class``: of each position. ``causal-lm``: the next token (GPT-2).
    seed
        Of the weights.

    Raises
    ------
    ValueError
        If there is no such head.
    """
    kind = _head(head)
    torch.manual_seed(seed)
    return _asked_only(kind(config))


def with_head(model: PreTrainedModel, head: str, classes: list[str], *, seed: int = 0) -> PreTrainedModel:
    """A model with the weights of another's body and a fresh head for some classes.

    The body of a masked language model has no pooler, which ``cell-class`` reads the first position by; it starts fresh too.

    Raises
    ------
    ValueError
        If there is no such head.
    """
    config = copy.deepcopy(model.config)
    config.id2label = dict(enumerate(classes))
    config.label2id = {name: label for label, name in enumerate(classes)}
    config.problem_type = "single_label_classification"
    found = build(config, head, seed=seed)
    weights = {name: value for name, value in model.base_model.state_dict().items() if not name.startswith("pooler")}
    found.base_model.load_state_dict(weights, strict=False)
    return found


def with_attention_heads(model: PreTrainedModel, heads: int) -> PreTrainedModel:
    """The same weights read with another number of attention heads.

    They load without a word, since no weight's shape depends on it; attention is another. Paper B's loader does this to its
    students, which were trained with four heads: one for each 64 of the width.
    """
    config = copy.deepcopy(model.config)
    config.num_attention_heads = heads
    found = _asked_only(type(model)(config))
    found.load_state_dict(model.state_dict())
    return found


def frozen(model: PreTrainedModel, layers: int) -> PreTrainedModel:
    """Keep the first layers as they are, in place; embeddings go on learning, as in official Geneformer.

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
    """As large a part of a model's layers as the published two of six."""
    return round(model.config.num_hidden_layers / 3)


def load(folder: str, head: str = "masked-lm") -> PreTrainedModel:
    """A published or a saved checkpoint, from a folder, without asking a model hub."""
    config = AutoConfig.from_pretrained(folder)
    return _asked_only(_head(head).from_pretrained(folder, config=config, local_files_only=True))


def _head(name: str) -> type[PreTrainedModel]:
    if name not in HEADS:
        raise ValueError(f"head {name!r}: {closest(name, HEADS)}")
    return HEADS[name]


def _asked_only(model: PreTrainedModel) -> PreTrainedModel:
    return masked_positions_only(model) if isinstance(model, BertForMaskedLM) else model


def n_parameters(model: nn.Module) -> int:
    """Weights of a model, tied ones once."""
    return sum(parameter.numel() for parameter in model.parameters())


def sizes() -> list[dict[str, object]]:
    """The papers' models: ``model``, ``layers``, ``heads``, ``width``, ``feed-forward`` and ``parameters``, V1's vocabulary."""
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
    """A published ``config.json``."""
    return json.loads(path.read_text())


def compared(config: PretrainedConfig, other: dict[str, object]) -> list[dict[str, str]]:
    """Each key that both configurations give and that shapes the model: ``key``, ``ours``, ``published``."""
    ours = config.to_dict()
    keys = [key for key in SHAPE if key in other]
    return [{"key": key, "ours": str(ours[key]), "published": str(other[key])} for key in keys]


def checkpointed(model: PreTrainedModel) -> PreTrainedModel:
    """Compute activations again on the way back instead of keeping them, in place."""
    # Later releases of transformers rename it.
    getattr(model, "activation_checkpointing_enable", model.gradient_checkpointing_enable)()
    return model


def without_attention_dropout(model: PreTrainedModel) -> PreTrainedModel:
    """Leave out the dropout of attention weights, in place; the rest of the model's dropout stays.

    Fused attention cannot drop weights on a CPU: with any dropout PyTorch writes the whole matrix of weights out, which for long
    cells is most of a step's time.
    """
    for module in model.modules():
        if hasattr(module, "query") and hasattr(module, "dropout"):
            module.dropout.p = 0.0
    return model


@contextlib.contextmanager
def attending(model: PreTrainedModel, how: str) -> Iterator[PreTrainedModel]:
    """Attend in another way as long as the context lasts.

    ``eager`` is the one that gives the weights. ``matmul`` is two matrix products and a softmax, all in the products' precision.
    In bf16 on a CPU the products run at many times the speed of PyTorch's fused kernel, which more than makes up for writing
    the weights out; it takes memory for them, length squared for each head. For training without dropout of attention
    (`without_attention_dropout`); gradients are those of the fused kernel but for rounding (tests/test_models.py).
    """
    used = model.config._attn_implementation
    model.set_attn_implementation(how)
    try:
        yield model
    finally:
        model.set_attn_implementation(used)


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
    query = query * (scaling or query.shape[-1] ** -0.5)
    # Automatic mixed precision would take the softmax to 32 bits, which is most of its time.
    with torch.autocast(query.device.type, enabled=False):
        if attention_mask is None:
            out = _attend(query, key, value)
        elif attention_mask.shape[-2] == 1:
            # Cell by cell and without its padding, there is nothing to mask.
            real = attention_mask[:, 0, 0].sum(dim=-1).tolist()
            cells = [_attend(query[i, :, :n], key[i, :, :n], value[i, :, :n]) for i, n in enumerate(real)]
            out = torch.stack([nn.functional.pad(cell, (0, 0, 0, query.shape[-2] - cell.shape[-2])) for cell in cells])
        else:
            out = _attend(query, key, value, ~attention_mask)
    return out.transpose(1, 2).contiguous(), None


def _attend(
    query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, hidden: torch.Tensor | None = None
) -> torch.Tensor:
    scores = torch.matmul(query, key.transpose(-1, -2))
    if hidden is not None:
        scores = scores.masked_fill(hidden, torch.finfo(scores.dtype).min)
    return torch.matmul(torch.softmax(scores, dim=-1), value)


def _key_mask(*_arguments, attention_mask: torch.Tensor | None = None, **_options) -> torch.Tensor | None:
    """Which keys are no padding, cells x 1 x 1 x length; none where all are."""
    if attention_mask is None or bool(attention_mask.all()):
        return None
    return attention_mask.bool()[:, None, None, :]


AttentionInterface.register("matmul", _matmul_attention)
AttentionMaskInterface.register("matmul", _key_mask)


def masked_positions_only(model: BertForMaskedLM) -> BertForMaskedLM:
    """Make a masked language model project to the vocabulary only the positions that have a label.

    The projection is most of the cost of a small model with a large vocabulary, and 85% of it is thrown away otherwise. Loss
    and gradients are those of the plain model (tests/test_models.py); without labels the output is the plain one as well.
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
    """As `BertForMaskedLM.forward`; with labels, ``logits`` are of the labelled positions only, labelled x vocabulary.

    The Trainer says by ``num_items_in_batch`` how many labels there are over all devices and accumulated parts.
    """
    if labels is None:
        return BertForMaskedLM.forward(self, input_ids, attention_mask, **options)
    whole = options.pop("num_items_in_batch", None)
    hidden = self.bert(input_ids, attention_mask=attention_mask, **options).last_hidden_state
    asked = labels != IGNORED
    logits = self.cls(hidden[asked])
    # A batch of very short cells can be without a masked gene: no loss, and no gradient.
    loss = (
        nn.functional.cross_entropy(logits.float(), labels[asked], reduction="sum") if len(logits) else hidden.sum() * 0
    )
    n = len(logits) if whole is None else whole
    loss = loss / max(int(n), 1)
    return MaskedLMOutput(loss=loss, logits=logits)
