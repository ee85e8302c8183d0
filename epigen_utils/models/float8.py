"""Linear layers in 8-bit floating point (FP8), on GPUs that multiply it: Ada, Hopper and later.

By Transformer Engine where it is installed, else by PyTorch's scaled matrix product with one scale a tensor, computed
in each step: inputs and weights in E4M3, gradients in E5M2 (Micikevicius et al. 2022, arXiv:2209.05433). Only the
layers of a model's blocks are replaced; attention, norms, embeddings and heads stay in bf16. The weights stay in fp32.
"""

import contextlib
from collections.abc import Iterator

import torch
from torch import nn
from transformers import PreTrainedModel

from epigen_utils.models.blocks import MULTIPLE_OF, replaced_layers

try:
    import transformer_engine.pytorch as transformer_engine
except ImportError:
    transformer_engine = None


def engine_name() -> str:
    """What multiplies in FP8 here."""
    return "Transformer Engine" if transformer_engine else "PyTorch's scaled matrix product"


@contextlib.contextmanager
def float8_layers(model: PreTrainedModel) -> Iterator[PreTrainedModel]:
    """Within the context, the linear layers of a model's blocks multiply in FP8 in training; for use under bf16."""
    if transformer_engine is None:
        with replaced_layers(model, Float8Linear):
            yield model
        return
    forward = model.forward

    def in_float8(*arguments, **options) -> object:
        with transformer_engine.fp8_autocast(enabled=model.training):
            return forward(*arguments, **options)

    with replaced_layers(model, transformer_engine.Linear):
        model.forward = in_float8
        try:
            yield model
        finally:
            model.forward = forward


class Float8Linear(nn.Linear):
    """A linear layer whose products are in FP8 in training: that with the weight, and both of the gradients."""

    def forward(self, inputs: torch.Tensor) -> torch.Tensor:
        """Output, ... x outputs, in bf16 in training, from ... x inputs.

        The product of all but the last dimension must be a multiple of `MULTIPLE_OF`; other inputs are multiplied as
        by `nn.Linear`.
        """
        rows = inputs.reshape(-1, inputs.shape[-1])
        if not self.training or len(rows) % MULTIPLE_OF:
            return super().forward(inputs)
        output = _Float8Product.apply(rows.bfloat16(), self.weight) + self.bias.bfloat16()
        return output.view(*inputs.shape[:-1], -1)


class _Float8Product(torch.autograd.Function):
    """Rows x outputs in bf16, from rows x inputs and a weight, outputs x inputs."""

    @staticmethod
    def forward(ctx: torch.autograd.function.FunctionCtx, inputs: torch.Tensor, weight: torch.Tensor) -> torch.Tensor:
        a, scale_a = scaled(inputs, torch.float8_e4m3fn)
        b, scale_b = scaled(weight, torch.float8_e4m3fn)
        ctx.save_for_backward(a, scale_a, b, scale_b)
        # The hardware's product takes its second factor by columns.
        return torch._scaled_mm(a, b.t(), scale_a, scale_b, out_dtype=torch.bfloat16, use_fast_accum=True)

    @staticmethod
    def backward(ctx: torch.autograd.function.FunctionCtx, gradient: torch.Tensor) -> tuple:
        a, scale_a, b, scale_b = ctx.saved_tensors
        g, scale = scaled(gradient, torch.float8_e5m2)
        of_inputs = torch._scaled_mm(g, b.t().contiguous().t(), scale, scale_b, out_dtype=torch.bfloat16)
        of_weight = torch._scaled_mm(
            g.t().contiguous(), a.t().contiguous().t(), scale, scale_a, out_dtype=torch.float32
        )
        return of_inputs, of_weight


def scaled(values: torch.Tensor, dtype: torch.dtype) -> tuple[torch.Tensor, torch.Tensor]:
    """Values in FP8, by rows, and the scale that they are to be multiplied by."""
    largest = values.abs().amax().float().clamp(min=torch.finfo(torch.bfloat16).tiny)
    scale = largest / torch.finfo(dtype).max
    return (values.float() / scale).to(dtype).contiguous(), scale
