"""Transformer blocks of a model: compiled, or with other linear layers."""

import contextlib
from collections.abc import Callable, Iterator

import torch
import torch._functorch.config
from torch import nn
from transformers import PreTrainedModel
from transformers.pytorch_utils import Conv1D

#: FP8 matrix products need both sides of a weight to be a multiple of this.
MULTIPLE_OF = 16


def blocks(model: PreTrainedModel) -> nn.ModuleList:
    """Transformer blocks of a BERT or GPT-2."""
    body = model.base_model
    return body.h if hasattr(body, "h") else body.encoder.layer


@contextlib.contextmanager
def compiled_blocks(model: PreTrainedModel) -> Iterator[PreTrainedModel]:
    """Within the context, the blocks of a model are compiled, all of them to one code."""
    # A cache of keys and values, which training does not use, would have each block compiled apart.
    use_cache, model.config.use_cache = model.config.use_cache, False
    for block in blocks(model):
        block.compile()
    try:
        # The key of that cache lacks the precision of autocast in PyTorch 2.11: fp16 would run bf16's code.
        with torch._functorch.config.patch(enable_autograd_cache=False):
            yield model
    finally:
        model.config.use_cache = use_cache
        for block in blocks(model):
            block._compiled_call_impl = None


@contextlib.contextmanager
def replaced_layers(model: PreTrainedModel, make: Callable[..., nn.Module]) -> Iterator[PreTrainedModel]:
    """Within the context, the linear layers of a model's blocks are others with the same weights.

    GPT-2's `Conv1D`, whose weight is inputs x outputs, becomes a layer with the transposed weight; saved and loaded
    weights keep the published layout. At the end the weights are copied back.

    Parameters
    ----------
    make
        Takes inputs and outputs, and returns a layer with a ``weight`` (outputs x inputs) and a ``bias``.
    """
    places = [
        (parent, name, layer)
        for block in blocks(model)
        for parent in block.modules()
        for name, layer in parent.named_children()
        if isinstance(layer, nn.Linear | Conv1D) and not any(n % MULTIPLE_OF for n in layer.weight.shape)
    ]
    for parent, name, layer in places:
        setattr(parent, name, _layer_like(layer, make))
    try:
        yield model
    finally:
        for parent, name, layer in places:
            weights = getattr(parent, name).state_dict()
            layer.to(weights["weight"].device).load_state_dict({part: weights[part] for part in layer.state_dict()})
            setattr(parent, name, layer)


def _layer_like(layer: nn.Linear | Conv1D, make: Callable[..., nn.Module]) -> nn.Module:
    transposed = isinstance(layer, Conv1D)
    n_out, n_in = reversed(layer.weight.shape) if transposed else layer.weight.shape
    like = make(n_in, n_out).to(layer.weight)
    if transposed:
        like.register_state_dict_post_hook(_transpose_saved)
        like.register_load_state_dict_pre_hook(_transpose_loaded)
    like.load_state_dict(layer.state_dict(), strict=False)
    for part, weight in layer.named_parameters():
        getattr(like, part).requires_grad_(weight.requires_grad)
    return like.train(layer.training)


def _transpose_saved(_layer: nn.Module, weights: dict, prefix: str, _metadata: dict) -> None:
    weights[f"{prefix}weight"] = weights[f"{prefix}weight"].t().contiguous()


def _transpose_loaded(_layer: nn.Module, weights: dict, prefix: str, *_others: object) -> None:
    weights[f"{prefix}weight"] = weights[f"{prefix}weight"].t()
