"""Number formats of matrix products in training, and whether this machine supports them.

Weights and optimiser are in fp32 throughout. Transformer Engine is optional (``pip install epigen-utils[gpu]``):
without it PyTorch multiplies in FP8 (`epigen_utils.models.float8`).
"""

import contextlib
from collections.abc import Iterator

import torch
from transformers import PreTrainedModel

from epigen_utils.models import float8

#: tf32 is fp32 with products of 10-bit mantissas; the others are automatic mixed precision.
PRECISIONS = ("fp32", "tf32", "bf16", "fp16", "fp8")
#: Compute capability of Ada and Hopper, the first GPUs with FP8 tensor cores.
FP8_CAPABILITY = (8, 9)


def device_name() -> str:
    """Name of the CUDA device; empty without one."""
    return torch.cuda.get_device_name() if torch.cuda.is_available() else ""


def why_unavailable(precision: str) -> str:
    """Reason why a precision cannot be used on this machine; empty if it can.

    Raises
    ------
    ValueError
        If the precision is not one of `PRECISIONS`.
    """
    if precision not in PRECISIONS:
        raise ValueError(f"precision {precision!r} is not one of {', '.join(PRECISIONS)}")
    if precision in ("fp32", "bf16"):
        return ""
    if not torch.cuda.is_available():
        return f"{precision} needs a CUDA device; use fp32 or bf16"
    if precision != "fp8":
        return ""
    if (capability := torch.cuda.get_device_capability()) < FP8_CAPABILITY:
        return f"fp8 needs compute capability 8.9 or newer, this device has {capability[0]}.{capability[1]}; use bf16"
    return ""


@contextlib.contextmanager
def product_format(model: PreTrainedModel, precision: str) -> Iterator[PreTrainedModel]:
    """Within the context, a model's products are prepared for a precision; for bf16 and fp16 autocast does the rest."""
    before = torch.get_float32_matmul_precision()
    torch.set_float32_matmul_precision("high" if precision == "tf32" else "highest")
    try:
        with float8.float8_layers(model) if precision == "fp8" else contextlib.nullcontext():
            yield model
    finally:
        torch.set_float32_matmul_precision(before)


def autocast(device: torch.device | str, precision: str) -> contextlib.AbstractContextManager:
    """Automatic mixed precision of a forward pass; fp8 runs under bf16."""
    if precision in ("fp32", "tf32"):
        return contextlib.nullcontext()
    return torch.autocast(torch.device(device).type, torch.float16 if precision == "fp16" else torch.bfloat16)
