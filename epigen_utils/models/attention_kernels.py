"""Attention implementations: batched matrix products where SDPA returns no weights."""

import contextlib
from collections.abc import Iterator

import torch
from torch import nn
from transformers import AttentionInterface, AttentionMaskInterface, PreTrainedModel


def disable_attention_dropout(model: PreTrainedModel) -> PreTrainedModel:
    """Disable the dropout of attention weights in place; all other dropout stays.

    PyTorch's fused attention has no dropout on a CPU: with dropout it materialises the matrix of attention weights,
    which dominates the time of a step on long cells.
    """
    for module in model.modules():
        if hasattr(module, "query") and hasattr(module, "dropout"):
            module.dropout.p = 0.0
    return model


@contextlib.contextmanager
def attention_implementation(model: PreTrainedModel, implementation: str) -> Iterator[PreTrainedModel]:
    """Use another attention implementation within a context.

    ``eager`` returns the attention weights. ``matmul`` consists of two matrix products and a softmax in the precision
    of the products. In bf16 on a CPU it is several times faster than PyTorch's fused kernel, at the cost of memory for
    the attention weights (length squared per head). It supports no attention dropout (`disable_attention_dropout`);
    gradients equal those of the fused kernel up to rounding (tests/models/test_attention_kernels.py).
    """
    previous = model.config._attn_implementation
    model.set_attn_implementation(implementation)
    try:
        yield model
    finally:
        model.set_attn_implementation(previous)


@contextlib.contextmanager
def without_cudnn() -> Iterator[None]:
    """Within the context, PyTorch's fused attention leaves out cuDNN's kernel.

    On a GPU it is PyTorch's first choice, and it builds a plan for each new shape, in tenths of a second: batches that
    are grouped by length have a new one in most steps.
    """
    enabled = torch.backends.cuda.cudnn_sdp_enabled()
    torch.backends.cuda.enable_cudnn_sdp(False)
    try:
        yield
    finally:
        torch.backends.cuda.enable_cudnn_sdp(enabled)


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
        raise ValueError("attention by matmul has no dropout; leave it out (disable_attention_dropout)")
    query = query * (scaling or query.shape[-1] ** -0.5)  # (cells, heads, length, width), as key and value
    # Automatic mixed precision would compute the softmax in 32 bits, which dominates the time.
    with torch.autocast(query.device.type, enabled=False):
        if attention_mask is None:
            out = _attend(query, key, value)
        elif attention_mask.shape[-2] == 1:
            # Each cell without its padding needs no mask.
            lengths = attention_mask[:, 0, 0].sum(dim=-1).tolist()
            # Each (heads, length of the cell, width).
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
    return torch.matmul(torch.softmax(scores, dim=-1), value)  # (..., heads, length, width)


def _key_mask(*_arguments, attention_mask: torch.Tensor | None = None, **_options) -> torch.Tensor | None:
    """Mask of the keys that are not padding, cells x 1 x 1 x length; None if there is no padding."""
    if attention_mask is None or bool(attention_mask.all()):
        return None
    return attention_mask.bool()[:, None, None, :]


AttentionInterface.register("matmul", _matmul_attention)
AttentionMaskInterface.register("matmul", _key_mask)
