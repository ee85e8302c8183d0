"""Number formats for training, and whether this machine supports them.

Transformer Engine is optional (``pip install epigen-utils[gpu]``): without it, or without a GPU with FP8 units, only
fp8 is refused.
"""

import torch

try:
    import transformer_engine.pytorch as transformer_engine
except ImportError:
    transformer_engine = None

PRECISIONS = ("fp32", "bf16", "fp16", "fp8")
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
    if precision == "fp16":
        return ""
    if (capability := torch.cuda.get_device_capability()) < FP8_CAPABILITY:
        return f"fp8 needs compute capability 8.9 or newer, this device has {capability[0]}.{capability[1]}; use bf16"
    return "" if transformer_engine else "fp8 needs transformer-engine; pip install epigen-utils[gpu], or use bf16"
