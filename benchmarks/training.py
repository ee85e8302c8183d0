"""Training and inference of the papers' models by precision, on the GPU that is there, or on the CPU.

    python benchmarks/training.py [--out FILE] [--smoke] [--warm] [--parts peak ladder ...]

Parts, each in a process of its own and written as soon as it is done:

peak       What the device multiplies and copies: products of two square matrices in each precision.
ladder     GPT-2 XL at 1,024 tokens, next token (CPU: GPT-2 at 128): each row changes one thing of the row before.
sizes      GPT-2 and Geneformer of the published sizes by precision, training and inference.
precision  Loss of GPT-2 (124M) on gene sentences of blood cells by precision, over steps and seconds, three seeds.
profile    Where the time of a step of GPT-2 XL goes.
fine-tune  Paper A's protocol with `training.fit`: GPT-2 XL on gene sentences of a cohort of the paper's size.

Floating-point operations of a token in training: 6 a weight that is multiplied, and 12 x layers x width x length for
attention, as if it were not causal (the usual count: Chowdhery et al. 2022, arXiv:2204.02311, appendix B); a third of
that in inference. A product of n x n matrices has 2 n^3. Seconds are read after the device has finished. ``--warm``
compiles what the parts need, from models of one layer, all parts at once, and leaves it in PyTorch's cache.
"""

import argparse
import contextlib
import gc
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from multiprocessing.pool import ThreadPool
from pathlib import Path

import numpy as np
import torch
from torch.nn import functional
from torch.nn.attention import SDPBackend, sdpa_kernel

# Also where the package is not installed, as on a lent GPU.
sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from epigen_utils.book import provenance
from epigen_utils.models import attention_kernels, blocks, float8, presets, training
from epigen_utils.models import precision as formats
from epigen_utils.models.hardware import here, wait

CUDA = torch.cuda.is_available()
DEVICE = here()
REPEATS = 3
#: Whether this process compiles alone.
WARM = "--warm" in sys.argv
#: Precisions that this device has.
PRECISIONS = tuple(name for name in formats.PRECISIONS if not formats.why_unavailable(name))


def main() -> None:
    """Run the parts one after the other, write what each found."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--parts", nargs="*", default=list(PARTS), choices=list(PARTS))
    parser.add_argument("--smoke", action="store_true", help="small models and few steps, to see that all runs")
    parser.add_argument("--cells", type=Path, help="folder of benchmarks/learning.py --prepare; default random genes")
    parser.add_argument("--warm", action="store_true", help="compile alone")
    parser.add_argument("--limit", type=float, default=200, help="seconds that a part may take")
    parser.add_argument("--out", type=Path, default=Path(__file__).with_suffix(".json"))
    parser.add_argument("--one", help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.one:
        for row in PARTS[given.one](given):
            print("ROW " + json.dumps(row), flush=True)
        return
    if given.warm:
        with ThreadPool(len(given.parts)) as pool:
            for part, result in zip(
                given.parts, pool.map(lambda part: run_part(part, given), given.parts), strict=True
            ):
                print(part, result["seconds"], result.get("ended", ""))
        return
    found = {}
    for part in given.parts:
        found[part] = run_part(part, given)
        provenance.write_benchmark(given.out, found, device=formats.device_name() or f"CPU, {os.cpu_count()} cores")


def run_part(part: str, given: argparse.Namespace) -> dict[str, object]:
    """Rows of a part, run in a process of its own, and why it ended early, if it did."""
    command = [sys.executable, __file__, "--one", part]
    command += [f"--{name}" for name in ("smoke", "warm") if getattr(given, name)]
    command += ["--cells", str(given.cells)] if given.cells else []
    started = time.perf_counter()
    with tempfile.TemporaryFile("w+") as output:
        try:
            done = subprocess.run(command, stdout=output, stderr=subprocess.PIPE, text=True, timeout=given.limit)
            ended = "" if done.returncode == 0 else done.stderr.strip().splitlines()[-1]
            print(done.stderr[-3000:] if ended else "", file=sys.stderr)
        except subprocess.TimeoutExpired:
            ended = f"stopped after {given.limit:g} s"
        output.seek(0)
        rows = [json.loads(line.removeprefix("ROW ")) for line in output if line.startswith("ROW ")]
    result = {"rows": rows, "seconds": round(time.perf_counter() - started, 1)}
    return result | ({"ended": ended} if ended else {})


# What a row is measured by


def seconds_each(run: Callable[[], object], *, times: int, repeats: int = REPEATS) -> list[float]:
    """Seconds of one run, by repeat of ``times`` runs."""
    found = []
    for _ in range(repeats):
        start = wait()
        for _ in range(times):
            run()
        found.append((wait() - start) / times)
    return found


def gibibytes(n_bytes: float) -> float:
    """In GiB."""
    return round(n_bytes / 2**30, 2)


def driver() -> object | None:
    """NVIDIA's management library, if there is a GPU that it knows."""
    if not CUDA:
        return None
    import pynvml

    pynvml.nvmlInit()
    return pynvml


def joules() -> float | None:
    """Energy that the GPU has used so far; None where no driver tells."""
    if (library := driver()) is None:
        return None
    try:
        return library.nvmlDeviceGetTotalEnergyConsumption(library.nvmlDeviceGetHandleByIndex(0)) / 1000
    except library.NVMLError:
        return None


def free() -> None:
    """Return the memory of models that are gone."""
    gc.collect()
    if CUDA:
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats()


# peak


def peak_rows(given: argparse.Namespace) -> Iterator[dict]:
    """Products by precision, a copy, and what the device is."""
    about = {"name": formats.device_name() or "CPU", "cuda": torch.version.cuda or "", "torch": torch.__version__}
    if CUDA:
        about |= {"driver": driver().nvmlSystemGetDriverVersion(), "fp8": float8.engine_name()}
        about["GiB"] = gibibytes(torch.cuda.get_device_properties(0).total_memory)
    yield {"what": "device", **about}
    n = 8192 if CUDA and not given.smoke else 1024
    for name in PRECISIONS:
        seconds = seconds_each(product(n, name), times=20 if CUDA else 2)
        yield {"what": "product", "precision": name, "n": n, "TFLOP/s": [round(2e-12 * n**3 / s, 2) for s in seconds]}
    source = torch.rand(2**30 if CUDA and not given.smoke else 2**22, device=DEVICE)
    target = torch.empty_like(source)
    target.copy_(source)
    seconds = seconds_each(lambda: target.copy_(source), times=10)
    yield {"what": "copy", "TB/s": [round(2e-12 * source.nbytes / s, 3) for s in seconds]}


def product(n: int, name: str) -> Callable[[], torch.Tensor]:
    """A product of two random matrices, run once."""
    dtype = {"bf16": torch.bfloat16, "fp16": torch.float16}.get(name, torch.float32)
    a, b = (torch.randn(n, n, device=DEVICE, dtype=dtype) for _ in range(2))
    torch.set_float32_matmul_precision("high" if name == "tf32" else "highest")
    if name == "fp8":
        (a, scale_a), (b, scale_b) = (float8.scaled(part, torch.float8_e4m3fn) for part in (a, b))
        options = {"out_dtype": torch.bfloat16, "use_fast_accum": True}

        def run() -> torch.Tensor:
            return torch._scaled_mm(a, b.t(), scale_a, scale_b, **options)
    else:

        def run() -> torch.Tensor:
            return a @ b.t()

    run()
    return run


# Steps


def next_token_loss(states: torch.Tensor, embedding: torch.Tensor, ids: torch.Tensor) -> torch.Tensor:
    """Mean cross entropy of the next token, the vocabulary padded to a size that matrix units like."""
    logits = functional.linear(states, functional.pad(embedding, (0, 0, 0, -len(embedding) % 128)))
    labels = functional.pad(ids[:, 1:], (0, 1), value=-100)
    return functional.cross_entropy(logits[..., : len(embedding)].flatten(0, 1).float(), labels.flatten())


class Steps:
    """Training steps of a fresh model on random tokens; GPT-2 without dropout, Geneformer without that of attention.

    Parameters
    ----------
    name
        Of `presets`; a GPT-2 learns the next token, a Geneformer 15% masked genes.
    rows, length
        Sentences or cells of a batch, and tokens of each.
    attention
        ``eager``, ``sdpa`` (PyTorch's fused kernel), or ``cudnn``.
    own_loss
        Whether the loss of the next token is `next_token_loss`, compiled, or the library's.
    """

    def __init__(
        self,
        name: str,
        *,
        rows: int,
        length: int,
        precision: str = "bf16",
        attention: str = "sdpa",
        compiled: bool = True,
        fused: bool = True,
        checkpointing: bool = False,
        own_loss: bool = True,
        seed: int = 0,
        **changes: int,
    ):
        free()
        self.rows, self.length, self.precision, self.attention = rows, length, precision, attention
        self.during = contextlib.ExitStack()
        self.is_gpt2 = name in presets.GPT2_PRESETS
        changes = dict.fromkeys(("resid_pdrop", "embd_pdrop", "attn_pdrop"), 0.0) | changes if self.is_gpt2 else changes
        config = presets.preset(name, **changes | ({"num_hidden_layers": 1} if WARM else {}))
        with DEVICE:
            self.model = presets.build(config, "causal-lm" if self.is_gpt2 else "masked-lm", seed=seed).train()
        attention_kernels.disable_attention_dropout(self.model)
        self.model.set_attn_implementation("eager" if attention == "eager" else "sdpa")
        self.model.config.use_cache = False
        if checkpointing:
            presets.enable_gradient_checkpointing(self.model)
        self.during.enter_context(formats.product_format(self.model, precision))
        if compiled:
            self.during.enter_context(blocks.compiled_blocks(self.model))
        self.loss_of = (torch.compile(next_token_loss) if compiled else next_token_loss) if own_loss else None
        self.optimiser = torch.optim.AdamW(self.model.parameters(), lr=1e-5, fused=fused)
        self.scaler = torch.amp.GradScaler(DEVICE.type, enabled=precision == "fp16")
        generator = torch.Generator().manual_seed(0)
        ids = torch.randint(2, config.vocab_size, (rows, length), generator=generator)
        asked = torch.rand(rows, length, generator=generator) < 0.15
        self.ids, self.labels = ids.to(DEVICE), ids.where(asked, -100).to(DEVICE)

    def close(self) -> None:
        """Leave the contexts, drop the model and what was compiled."""
        self.during.close()
        del self.model, self.optimiser
        # A later shape of the same code would be compiled for shapes of any size.
        torch.compiler.reset()

    def loss(self) -> torch.Tensor:
        """Loss of the batch."""
        with formats.autocast(DEVICE, self.precision), self.kernel():
            if not self.is_gpt2:
                return self.model(input_ids=self.ids, labels=self.labels).loss
            if self.loss_of is None:
                return self.model(input_ids=self.ids, labels=self.ids).loss
            states = self.model.transformer(input_ids=self.ids).last_hidden_state
            return self.loss_of(states, self.model.transformer.wte.weight, self.ids)

    def kernel(self) -> contextlib.AbstractContextManager:
        """Choice of the fused attention."""
        return sdpa_kernel(SDPBackend.CUDNN_ATTENTION) if self.attention == "cudnn" else contextlib.nullcontext()

    def step(self) -> None:
        """One step of AdamW."""
        self.scaler.scale(self.loss()).backward()
        self.scaler.step(self.optimiser)
        self.scaler.update()
        self.optimiser.zero_grad(set_to_none=True)

    @torch.no_grad()
    def infer(self) -> None:
        """Final hidden states of the batch."""
        with formats.autocast(DEVICE, self.precision), self.kernel():
            self.model.base_model(input_ids=self.ids)

    def operations(self, *, training_step: bool = True) -> float:
        """Floating-point operations of a token; see the top of this file."""
        config, model = self.model.config, self.model
        layers, width = config.num_hidden_layers, config.hidden_size
        in_blocks = sum(weight.numel() for block in blocks.blocks(model) for weight in block.parameters())
        attention = 4 * layers * width * self.length
        if not training_step:
            return 2 * in_blocks + attention
        share = 1.0 if self.is_gpt2 else float((self.labels != -100).float().mean())
        head = config.vocab_size * width + (0 if self.is_gpt2 else width * width)
        return 3 * (2 * (in_blocks + share * head) + attention)

    def row(self, *, times: int, inference: bool = False) -> dict[str, object]:
        """Speed of steps, or of inference, with memory; a warming up runs two steps alone."""
        tokens = self.rows * self.length
        run = self.infer if inference else self.step
        if inference:
            self.model.eval()
        start = wait()
        run()
        run()
        warm = wait() - start
        if WARM:
            self.model.train()
            return {"seconds of the first two": round(warm, 1)}
        if CUDA:
            torch.cuda.reset_peak_memory_stats()
        energy = joules()
        seconds = seconds_each(run, times=times)
        rate = self.operations(training_step=not inference) * tokens * 1e-12
        found = {"what": "inference" if inference else "training", "rows": self.rows, "length": self.length}
        found |= {"seconds": [round(s, 5) for s in seconds], "tokens a second": [round(tokens / s) for s in seconds]}
        found |= {"TFLOP/s": [round(rate / s, 2) for s in seconds], "seconds of the first two": round(warm, 1)}
        if CUDA:
            found["GiB"] = gibibytes(torch.cuda.max_memory_allocated())
            if energy is not None:
                found["joules a 1,000 tokens"] = round(1000 * (joules() - energy) / (times * REPEATS * tokens), 3)
        self.model.train()
        return found


# ladder

#: Sentences of GPT-2 XL's largest batch.
BATCH = 24 if CUDA and torch.cuda.get_device_properties(0).total_memory > 100e9 else 10
#: What each row changes: label, and options of `Steps`.
LADDER = [
    ("fp32, as the library has it", {"precision": "fp32", "rows": 4}),
    ("tf32", {"precision": "tf32", "rows": 4}),
    ("bf16", {"precision": "bf16", "rows": 4}),
    ("fused attention", {"attention": "sdpa"}),
    ("fused optimiser", {"fused": True}),
    *([("a larger batch", {"rows": BATCH // 2})] if CUDA else []),
    ("compiled blocks", {"compiled": True}),
    ("padded vocabulary, compiled loss", {"own_loss": True}),
    *([("a larger batch still", {"rows": BATCH})] if CUDA else []),
    *([("cuDNN's attention", {"attention": "cudnn"})] if CUDA else []),
    ("fp8", {"precision": "fp8"}),
    ("fp16", {"precision": "fp16"}),
    ("bf16, activations recomputed", {"precision": "bf16", "checkpointing": True}),
]


def ladder_rows(given: argparse.Namespace) -> Iterator[dict]:
    """GPT-2 XL, or the smallest on a CPU, each row with one thing changed."""
    name = "gpt2-xl" if CUDA else "gpt2"
    options = {"attention": "eager", "fused": False, "compiled": False, "own_loss": False, "length": 1024}
    small = {"n_layer": 2, "n_embd": 64, "n_head": 4, "vocab_size": 500, "rows": 2, "length": 64}
    shape = small if given.smoke else {} if CUDA else {"rows": 2, "length": 128}
    for label, change in LADDER:
        options |= change
        if options["precision"] not in PRECISIONS or (WARM and not options["compiled"]):
            continue
        steps = Steps(name, **options | shape)
        about = {"model": name, "precision": options["precision"], "how": label}
        try:
            yield about | steps.row(times=2 if CUDA else 1)
            if not WARM and steps.rows == BATCH:
                yield about | memory_row(steps)
        except torch.OutOfMemoryError:
            yield about | {"error": "out of memory"}
        finally:
            steps.close()
            del steps


def memory_row(steps: Steps) -> dict[str, object]:
    """Memory of a step by part."""
    found = {"what": "memory", "rows": steps.rows, "length": steps.length}
    weights = sum(weight.nbytes for weight in steps.model.parameters())
    states = sum(part.nbytes for state in steps.optimiser.state.values() for part in state.values())
    found |= {"weights": gibibytes(weights), "gradients": gibibytes(weights), "optimiser": gibibytes(states)}
    if CUDA:
        found["activations"] = gibibytes(torch.cuda.max_memory_allocated() - 2 * weights - states)
    return found


# profile


def profile_rows(given: argparse.Namespace) -> Iterator[dict]:
    """Share of GPT-2 XL's step in which the GPU works, and its kernels by their share of that."""
    if not CUDA or WARM:
        return
    from torch.profiler import ProfilerActivity, profile

    shape = {"rows": BATCH, "length": 1024} if not given.smoke else {"rows": 2, "length": 64, "n_layer": 2}
    steps = Steps("gpt2-xl", **shape)
    for _ in range(3):
        steps.step()
    start = wait()
    for _ in range(2):
        steps.step()
    alone = wait() - start
    with profile(activities=[ProfilerActivity.CPU, ProfilerActivity.CUDA]) as found:
        for _ in range(2):
            steps.step()
        wait()
    kernels = [
        event
        for event in found.key_averages()
        if event.device_type == torch.autograd.DeviceType.CUDA and not event.key.startswith(("Optimizer.", "Profiler"))
    ]
    busy = sum(event.self_device_time_total for event in kernels) * 1e-6
    kernels.sort(key=lambda event: -event.self_device_time_total)
    shares = {event.key[:70]: round(event.self_device_time_total * 1e-6 / busy, 4) for event in kernels[:20]}
    yield {"model": "gpt2-xl", "precision": "bf16", "seconds of two steps": alone, "busy": busy, "kernels": shares}


# sizes


def size_rows(given: argparse.Namespace) -> Iterator[dict]:
    """The published models by precision, in bf16 and fp8 compiled; of GPT-2 XL, which the ladder trains, inference."""
    geneformer = {"rows": 64, "length": 2048}
    shapes = {"geneformer-10m": geneformer, "student-4.3m": geneformer, "student-3m": geneformer}
    shapes |= {
        "student-2m": geneformer,
        "gpt2": {"rows": 64, "length": 1024},
        "gpt2-xl": {"rows": BATCH, "length": 1024},
    }
    for name, shape in shapes.items():
        for of in ("fp32", "tf32", "bf16", "fp16", "fp8"):
            compiled = CUDA and of in ("bf16", "fp8")
            skipped = name.startswith("student") and of not in ("fp32", "bf16")
            if skipped or of not in PRECISIONS or (WARM and not compiled) or (name == "gpt2-xl" and not CUDA):
                continue
            few = {"rows": shape["rows"] // 4} if of in ("fp32", "tf32") and name.startswith("gpt2") else {}
            small = {} if CUDA else {"rows": 2, "length": 128 if name == "gpt2" else 512}
            small = {"rows": 2, "length": 64, "vocab_size": 500, "num_hidden_layers": 1} if given.smoke else small
            steps = Steps(name, precision=of, compiled=compiled, **shape | few | small)
            about, times = (
                {"model": name, "precision": of, "compiled": compiled},
                3 if name == "gpt2-xl" else 8 if CUDA else 1,
            )
            try:
                if name != "gpt2-xl":
                    yield about | steps.row(times=times)
                yield about | steps.row(times=times, inference=True)
            except torch.OutOfMemoryError:
                yield about | {"error": "out of memory"}
            finally:
                steps.close()
                del steps


# precision


def precision_rows(given: argparse.Namespace) -> Iterator[dict]:
    """Held-out loss over steps and seconds, by precision and seed."""
    n_steps, every, rows = (120, 20, 64) if CUDA and not given.smoke else (4, 2, 4)
    name = "gpt2" if CUDA and not given.smoke else "gpt2-tiny"
    train, valid = sentences_of_cells(given.cells, rows * n_steps)
    changes = {"vocab_size": int(max(train.max(), valid.max())) + 1, "n_positions": train.shape[1]}
    for of in PRECISIONS:
        for seed in range(REPEATS if CUDA and not WARM else 1):
            steps = Steps(name, precision=of, rows=rows, length=train.shape[1], compiled=CUDA, seed=seed, **changes)
            for group in steps.optimiser.param_groups:
                group["lr"] = 6e-4
            # Code is compiled before the clock starts.
            steps.loss().backward()
            steps.optimiser.zero_grad(set_to_none=True)
            if WARM:
                yield {"precision": of}
                continue
            order = torch.randperm(len(train), generator=torch.Generator().manual_seed(seed))
            curve, seconds = [{"step": 0, "seconds": 0.0, "loss": held_out_loss(steps, valid)}], 0.0
            for done in range(0, n_steps, every):
                start = wait()
                for step in range(done, done + every):
                    batch = order[(torch.arange(rows) + step * rows) % len(order)]
                    steps.ids = train[batch].to(DEVICE)
                    steps.step()
                seconds += wait() - start
                point = {"step": done + every, "seconds": round(seconds, 4), "loss": held_out_loss(steps, valid)}
                curve.append(point)
            yield {"model": name, "precision": of, "seed": seed, "rows": rows, "length": train.shape[1], "curve": curve}
            steps.close()
            del steps


def sentences_of_cells(folder: Path | None, n: int, length: int = 128) -> tuple[torch.Tensor, torch.Tensor]:
    """Training and held-out gene sentences, cells x length: of blood cells, or of genes with a planted order."""
    if folder is None:
        rng = np.random.default_rng(0)
        ranks = rng.gumbel(size=(n + 64, 2 * length)) - np.arange(2 * length) / 100
        ids = torch.from_numpy(np.argsort(-ranks, axis=1)[:, :length].copy())
        return ids[64:], ids[:64]
    with np.load(folder / "cells.npz") as cells:
        tokens, lengths, n_train = cells["tokens"], cells["lengths"].astype(np.int64), int(cells["n_train"])
    starts = np.cumsum(lengths) - lengths
    long = np.flatnonzero(lengths >= length)
    # Of the vocabulary, only the tokens that occur.
    _, ids = np.unique(np.stack([tokens[starts[cell] : starts[cell] + length] for cell in long]), return_inverse=True)
    ids, is_train = torch.from_numpy(ids.reshape(-1, length)), torch.from_numpy(long < n_train)
    return ids[is_train], ids[~is_train][:128]


@torch.no_grad()
def held_out_loss(steps: Steps, valid: torch.Tensor) -> float:
    """Mean loss in fp32, whatever the training's precision."""
    steps.model.eval()
    total = 0.0
    # Compiled code would be compiled again for this batch.
    with torch.compiler.set_stance("force_eager"):
        for part in valid.split(64):
            ids = part.to(DEVICE)
            states = steps.model.transformer(input_ids=ids).last_hidden_state
            total += float(next_token_loss(states, steps.model.transformer.wte.weight, ids)) * len(part)
    steps.model.train()
    return round(total / len(valid), 5)


# fine-tune


def fine_tune_rows(given: argparse.Namespace) -> Iterator[dict]:
    """A fine-tuning of GPT-2 XL on 24 samples, as of 12 a group, by the Trainer."""
    if WARM:
        return
    import pandas as pd

    from epigen_utils.gpt2 import objectives, sentence_model, sentences

    big = CUDA and not given.smoke
    n_samples, n_genes, length = (24, 2000, 1024) if big else (6, 60, 32)
    rng = np.random.default_rng(0)
    values = pd.DataFrame(rng.gamma(2.0, 2.0, (n_samples, n_genes)), columns=[f"G{i}" for i in range(n_genes)])
    encoder = sentences.GeneSentenceEncoder.fit(values, max_length=length)
    encoded = encoder.padded(values)
    labels = np.arange(n_samples) % 2
    for of in ("bf16",):
        config = sentence_model.sentence_config("gpt2-xl" if big else "gpt2-tiny", encoder, ["control", "epilepsy"])
        free()
        with DEVICE:
            model = sentence_model.build_sentence_model(config)
        objective = objectives.ClassObjective(encoded, labels, scale=(float(values.to_numpy().mean()), 1.0))
        settings = training.Settings(
            learning_rate=5e-5, warmup_steps=5, batch_size=8, epochs=15 if big else 2, grouped=False,
            evaluate_every=0, save_every=10_000,
        )  # fmt: skip
        batches: list[float] = []

        def timed(rows: list[dict], batches: list = batches, collate: Callable = objective.collate) -> dict:
            batches.append(time.perf_counter())
            return collate(rows)

        objective.collate = timed
        energy, start = joules(), wait()
        with tempfile.TemporaryDirectory() as folder:
            given_fit = {"objective": objective, "precision": of, "output_dir": folder, "settings": settings}
            training.fit(model, objective.cells(), objective.cells(), progress=False, **given_fit)
            seconds = wait() - start
        steps = int(settings.epochs * -(-n_samples // settings.batch_size))
        row = {"model": "gpt2-xl" if big else "gpt2-tiny", "precision": of, "samples": n_samples, "length": length}
        row |= {"steps": steps, "batch": settings.batch_size, "epochs": settings.epochs, "seconds": round(seconds, 1)}
        # Fingerprint and saving of the weights are around the steps.
        row["seconds of a step"] = round((batches[-1] - batches[-11]) / 10, 4) if big else None
        if CUDA:
            row["GiB"] = gibibytes(torch.cuda.max_memory_allocated())
            row |= {} if energy is None else {"joules": round(joules() - energy)}
        yield row
        del model


PARTS = {
    "peak": peak_rows,
    "ladder": ladder_rows,
    "precision": precision_rows,
    "fine-tune": fine_tune_rows,
    "sizes": size_rows,
    "profile": profile_rows,
}

if __name__ == "__main__":
    main()
