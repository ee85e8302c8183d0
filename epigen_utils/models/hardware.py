"""Short measurements of the device that is here, and operations and bytes of a training step.

A rate is the median of its repeats; ``low`` and ``high`` are its range.
"""

import time
from collections.abc import Callable, Iterable

import numpy as np
import pandas as pd
import torch
from torch.nn import functional

from epigen_utils.models import batching, blocks, precision, presets

#: Share of a cell's genes that Geneformer predicts.
ASKED = 0.15
#: Bytes that a training step moves for a weight in fp32: read in both passes, its gradient written; AdamW reads weight,
#: gradient and two moments, and writes weight and moments.
WEIGHT_BYTES = 4 * (2 + 1 + 4 + 3)
#: Bytes of the activations that a layer keeps for each token and unit of width, in 16 bits, attention's weights not
#: among them (Korthikanti et al. 2022); they are written once and read once.
KEPT_BYTES = 34


def seconds_of_repeats(run: Callable[[], object], *, times: int, repeats: int) -> list[float]:
    """Seconds of one run, for each repeat of ``times`` runs, after one run that is not timed."""
    seconds = []
    for _ in range(repeats + 1):
        start = wait()
        for _ in range(times):
            run()
        seconds.append((wait() - start) / times)
    return seconds[1:]


def wait() -> float:
    """The time in seconds, once the device has finished."""
    if torch.cuda.is_available():
        torch.cuda.synchronize()
    return time.perf_counter()


def here() -> torch.device:
    """The device of this process."""
    return torch.device("cuda" if torch.cuda.is_available() else "cpu")


def square_products(n: int, *, times: int = 3, repeats: int = 3) -> pd.DataFrame:
    """Products of two n x n matrices on this device, in the precisions that it has, but FP8.

    Returns
    -------
    ``precision``, ``TFLOP/s``, ``low``, ``high``.
    """
    rows, before = [], torch.get_float32_matmul_precision()
    for name in _precisions():
        dtype = {"bf16": torch.bfloat16, "fp16": torch.float16}.get(name, torch.float32)
        a, b = (torch.randn(n, n, device=here(), dtype=dtype) for _ in range(2))
        torch.set_float32_matmul_precision("high" if name == "tf32" else "highest")
        seconds = seconds_of_repeats(lambda a=a, b=b: a @ b, times=times, repeats=repeats)
        rows.append({"precision": name} | _rate("TFLOP/s", 2e-12 * n**3, seconds))
    torch.set_float32_matmul_precision(before)
    return pd.DataFrame(rows)


def _precisions() -> list[str]:
    return [name for name in precision.PRECISIONS if name != "fp8" and not precision.why_unavailable(name)]


def _rate(name: str, amount: float, seconds: list[float]) -> dict[str, float]:
    rates = [amount / each for each in seconds]
    return {name: float(np.median(rates)), "low": min(rates), "high": max(rates)}


def training_steps(
    names: Iterable[str], *, rows: int, length: int, times: int = 2, repeats: int = 3, seed: int = 0
) -> pd.DataFrame:
    """Training steps of fresh models on random tokens on this device, in the precisions that it has, but FP8.

    Parameters
    ----------
    names
        Of `presets`; a GPT-2 learns the next token, a Geneformer `ASKED` of a cell's genes.
    rows, length
        Sentences or cells of a batch, and tokens of each.

    Returns
    -------
    ``model``, ``precision``, ``tokens a second``, ``low``, ``high``, ``TFLOP/s``.
    """
    found = []
    for name in names:
        for of in _precisions():
            run, operations = _training_step(name, of, rows, length, seed)
            seconds = seconds_of_repeats(run, times=times, repeats=repeats)
            row = {"model": name, "precision": of} | _rate("tokens a second", rows * length, seconds)
            found.append(row | {"TFLOP/s": row["tokens a second"] * operations * 1e-12})
    return pd.DataFrame(found)


def _training_step(name: str, of: str, rows: int, length: int, seed: int) -> tuple[Callable[[], None], float]:
    """A step of AdamW, and floating-point operations of a token."""
    is_gpt2 = name in presets.GPT2_PRESETS
    model = presets.build(presets.preset(name), "causal-lm" if is_gpt2 else "masked-lm", seed=seed).train().to(here())
    generator = torch.Generator().manual_seed(seed)
    ids = torch.randint(2, model.config.vocab_size, (rows, length), generator=generator)
    asked = torch.rand(rows, length, generator=generator) < ASKED
    ids, labels = ids.to(here()), ids.where(asked, batching.IGNORED).to(here())
    optimiser = torch.optim.AdamW(model.parameters(), lr=1e-5)
    scaler = torch.amp.GradScaler(here().type, enabled=of == "fp16")

    def run() -> None:
        with precision.product_format(model, of), precision.autocast(here(), of):
            if is_gpt2:
                logits = model(input_ids=ids).logits[:, :-1].flatten(0, 1)
                loss = functional.cross_entropy(logits.float(), ids[:, 1:].flatten())
            else:
                loss = model(input_ids=ids, labels=labels).loss
        scaler.scale(loss).backward()
        scaler.step(optimiser)
        scaler.update()
        optimiser.zero_grad()

    return run, training_operations(name, length)


def training_operations(name: str, length: int) -> float:
    """Floating-point operations of a token in a training step of a preset.

    Six for each weight that is multiplied, and 12 x layers x width x length for attention, as if it were not causal
    (Chowdhery et al. 2022, appendix B); a Geneformer's head is multiplied for `ASKED` of the tokens.

    Examples
    --------
    >>> from epigen_utils.models import hardware
    >>> f"{hardware.training_operations('gpt2-xl', 1024):.3g}"
    '1.03e+10'
    """
    config, n_in_blocks, _ = _size(name)
    layers, width = config.num_hidden_layers, config.hidden_size
    is_gpt2 = name in presets.GPT2_PRESETS
    head = config.vocab_size * width if is_gpt2 else ASKED * (config.vocab_size * width + width**2)
    return 6 * (n_in_blocks + head) + 12 * layers * width * length


def _size(name: str) -> tuple[object, int, int]:
    """Configuration of a preset, and its weights in blocks and in all."""
    config = presets.preset(name)
    with torch.device("meta"):
        model = presets.HEADS["causal-lm" if name in presets.GPT2_PRESETS else "masked-lm"](config)
    return config, sum(map(presets.n_parameters, blocks.blocks(model))), presets.n_parameters(model)


def n_weights(name: str) -> int:
    """Weights of a preset with its language model's head, tied ones once."""
    return _size(name)[2]


def operations_a_byte(name: str, tokens: int, length: int, of: str) -> float:
    """Operations of a training step for each byte that it has to move at the least: `WEIGHT_BYTES`, `KEPT_BYTES`.

    Parameters
    ----------
    tokens
        Of a batch.
    of
        Precision: with one of 32 bits, activations have twice the bytes.
    """
    config, _, n_all = _size(name)
    kept = 2 * KEPT_BYTES * config.num_hidden_layers * config.hidden_size * (2 if of in ("fp32", "tf32") else 1)
    return training_operations(name, length) * tokens / (WEIGHT_BYTES * n_all + kept * tokens)
