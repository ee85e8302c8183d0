"""DESeq2 in three implementations: the project's engine, R DESeq2 and PyDESeq2, in turn in one run.

    python benchmarks/deseq.py [--samples 8 40 200] [--large 1000] [--repeats 5] [--out benchmarks/deseq.json]

Each times size factors, fit and Wald test of two groups on the same simulated counts of 20,000 genes, in a process of
its own: imports and reading are left out, a small analysis is run before the clock starts. Each has one core and two
(R by BiocParallel's MulticoreParam, PyDESeq2 by its workers), held there by ``taskset``. Peak memory is that of the
main process, without its workers. The calls at an adjusted p-value of 0.05 are compared with R's. With a CUDA device
the engine is timed there too.

For a machine with a GPU and without R or this project's installation, from a checkout and a folder carried there:

    python benchmarks/deseq.py --prepare FOLDER [--samples 8 40 100 200]       where R is
    python benchmarks/deseq.py --carried FOLDER --device cuda --out FILE       there

There all runs are in one process: the engine on the GPU from and to the memory of the CPU, transfers included, after an
analysis of the same size; then, of up to 100 samples, on one core of that machine.
"""

import argparse
import json
import os
import re
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import torch

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))  # where the project is not installed

from epigen_utils.book import provenance
from epigen_utils.deseq import fitting, testing

N_GENES = 20_000

#: Most samples that `run_carried` times on a core too.
LARGEST_ON_A_CORE = 100
ENGINES = ("epigen_utils", "R DESeq2", "PyDESeq2")
R_SCRIPT = """
suppressMessages({library(DESeq2); library(BiocParallel)})
arguments <- commandArgs(TRUE)
cores <- as.integer(arguments[2])
run <- function(counts, groups) {
  dds <- DESeqDataSetFromMatrix(counts, data.frame(condition = factor(groups)), ~ condition)
  if (cores > 1) register(MulticoreParam(cores))
  results(DESeq(dds, quiet = TRUE, parallel = cores > 1), alpha = 0.05, parallel = cores > 1)
}
read <- function(name) matrix(readBin(file.path(arguments[1], name), "integer", 1e9), nrow = NGENES)
counts <- read("counts.bin")
groups <- rep(c("a", "b"), length.out = ncol(counts))
invisible(run(counts[1:1000, 1:min(8, ncol(counts))], groups[1:min(8, ncol(counts))]))
started <- proc.time()[["elapsed"]]
table <- run(counts, groups)
seconds <- proc.time()[["elapsed"]] - started
memory <- as.numeric(gsub("[^0-9]", "", grep("VmHWM", readLines("/proc/self/status"), value = TRUE))) / 1024
writeBin(as.numeric(table$padj), file.path(arguments[1], "padj.bin"))
cat(sprintf('{"seconds": %.4f, "MiB": %.1f}\\n', seconds, memory))
"""


def make(folder: Path, n_samples: int) -> None:
    """Negative binomial counts of two groups; a tenth of the genes is changed, dispersions scatter around a trend."""
    rng = np.random.default_rng(n_samples)
    mean = rng.lognormal(4, 2, N_GENES)
    dispersion = (0.05 + 3 / mean) * rng.lognormal(0, 0.5, N_GENES)
    change = np.where(rng.random(N_GENES) < 0.1, rng.normal(0, 1, N_GENES), 0)
    groups, depth = np.arange(n_samples) % 2, rng.lognormal(0, 0.3, n_samples)
    mu = mean * 2 ** (groups[:, None] * change) * depth[:, None]
    counts = rng.poisson(rng.gamma(1 / dispersion, dispersion * mu)).astype(np.int32)
    counts.tofile(folder / "counts.bin")  # in R: genes x samples, by columns


def read(folder: Path) -> np.ndarray:
    """Counts, samples x genes."""
    return np.fromfile(folder / "counts.bin", np.int32).reshape(-1, N_GENES)


def run_engine(counts: np.ndarray, device: str) -> np.ndarray:
    """Adjusted p-values by the project's engine."""
    design = np.column_stack([np.ones(len(counts)), np.arange(len(counts)) % 2])
    fit = fitting.fit(counts, design, device=device)
    return testing.wald(fit, np.array([0.0, 1.0]), alpha=0.05, two_groups=True).padj


def run_pydeseq2(counts: np.ndarray, cores: int) -> np.ndarray:
    """Adjusted p-values by PyDESeq2."""
    import pandas as pd
    from pydeseq2.dds import DeseqDataSet
    from pydeseq2.default_inference import DefaultInference
    from pydeseq2.ds import DeseqStats

    samples = [f"s{i}" for i in range(len(counts))]
    table = pd.DataFrame(counts, index=samples, columns=[f"g{i}" for i in range(counts.shape[1])])
    about = pd.DataFrame({"condition": ["ab"[i % 2] for i in range(len(counts))]}, index=samples)
    inference = DefaultInference(n_cpus=cores)
    dds = DeseqDataSet(counts=table, metadata=about, design="~condition", inference=inference, quiet=True)
    dds.deseq2()
    test = DeseqStats(dds, contrast=["condition", "b", "a"], alpha=0.05, inference=inference, quiet=True)
    test.summary()
    return test.results_df["padj"].to_numpy()


def peak_memory() -> float:
    """Most memory that this process has held, MiB."""
    return int(re.search(r"VmHWM:\s+(\d+) kB", Path("/proc/self/status").read_text())[1]) / 1024


def one(engine: str, folder: Path, cores: int, device: str) -> None:
    """What `timed` runs in a process of its own."""
    counts = read(folder)

    def run(table: np.ndarray) -> np.ndarray:
        return run_pydeseq2(table, cores) if engine == "PyDESeq2" else run_engine(table, device)

    run(counts[:8, :1000])
    started = time.perf_counter()
    padj = run(counts)
    seconds = time.perf_counter() - started
    padj.astype(float).tofile(folder / "padj.bin")
    print(json.dumps({"seconds": seconds, "MiB": peak_memory()}))


def timed(engine: str, folder: Path, cores: int, device: str = "cpu") -> dict[str, float]:
    """Seconds, peak memory in MiB, and the mask of called genes of one analysis in a process of its own."""
    held = ["taskset", "-c", ",".join(map(str, sorted(os.sched_getaffinity(0))[:cores]))]
    command = [sys.executable, __file__, "--one", engine, str(folder), "--cores", str(cores), "--device", device]
    if engine == "R DESeq2":
        script = folder / "deseq.R"
        script.write_text(R_SCRIPT.replace("NGENES", str(N_GENES)))
        command = ["Rscript", str(script), str(folder), str(cores)]
    threads = {"OMP_NUM_THREADS": str(cores if engine == "epigen_utils" else 1), "OPENBLAS_NUM_THREADS": "1"}
    done = subprocess.run([*held, *command], env=os.environ | threads, check=True, capture_output=True, text=True)
    found = json.loads(done.stdout.splitlines()[-1])
    return found | {"called": np.fromfile(folder / "padj.bin") < 0.05}


def compare(n_samples: int, runs: list[tuple[str, int, str]], repeats: int) -> list[dict]:
    """A row a run: medians over the repeats, and ratios of R's time on as many cores to it, repeat by repeat."""
    with tempfile.TemporaryDirectory() as scratch:
        make(Path(scratch), n_samples)
        found = {run: [] for run in runs}
        for _ in range(repeats):  # in turn, so that a noisy neighbour meets all of them
            for run in runs:
                found[run].append(timed(run[0], Path(scratch), *run[1:]))
                print(n_samples, *run, f"{found[run][-1]['seconds']:.2f} s", flush=True)
    rows = []
    for (engine, cores, device), times in found.items():
        peers = found.get(("R DESeq2", cores, "cpu"), [])
        ratios = sorted(peer["seconds"] / mine["seconds"] for peer, mine in zip(peers, times, strict=False))
        row = {"samples": n_samples, "engine": engine, "cores": cores, "device": device, "repeats": repeats}
        row["seconds"] = [round(mine["seconds"], 4) for mine in times]
        row |= {"median seconds": statistics.median(row["seconds"]), "MiB": max(mine["MiB"] for mine in times)}
        if ratios:
            row |= {"R over it": statistics.median(ratios), "low": ratios[0], "high": ratios[-1]}
            row["calls that differ from R's"] = int((times[0]["called"] != peers[0]["called"]).sum())
        rows.append(row | {"called": int(times[0]["called"].sum())})
    return rows


def prepare(folder: Path, sizes: list[int]) -> None:
    """Write counts (genes x samples) and R's adjusted p-values of each number of samples."""
    folder.mkdir(parents=True, exist_ok=True)
    for n_samples in sizes:
        with tempfile.TemporaryDirectory() as scratch:
            make(Path(scratch), n_samples)
            timed("R DESeq2", Path(scratch), 1)
            padj = np.fromfile(Path(scratch) / "padj.bin")
            counts = np.ascontiguousarray(read(Path(scratch)).T)  # genes side by side take less room
        np.savez_compressed(folder / f"{n_samples}.npz", counts=counts, padj=padj)


def run_carried(folder: Path, device: str, repeats: int) -> list[dict]:
    """A row a number of samples and device, of what `prepare` wrote."""
    tables = {}
    for path in sorted(folder.glob("*.npz"), key=lambda path: int(path.stem)):
        with np.load(path) as table:
            tables[int(path.stem)] = np.ascontiguousarray(table["counts"].T), table["padj"] < 0.05
    rows = [row_of(*table, device, repeats) for table in tables.values()]
    if device != "cpu":
        torch.set_num_threads(1)
        os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[:1])
        rows += [row_of(*table, "cpu", 3) for n, table in tables.items() if n <= LARGEST_ON_A_CORE]
    return rows


def row_of(counts: np.ndarray, called_by_r: np.ndarray, device: str, repeats: int) -> dict:
    """Times, peak memory on the device and calls of the engine, after a small analysis and one of the same size."""
    run_engine(counts[:8, :1000], device)
    run_engine(counts, device)
    row = {"samples": len(counts), "engine": ENGINES[0], "cores": 1, "device": device, "repeats": repeats}
    row["seconds"] = []
    on_gpu = device != "cpu"
    if on_gpu:
        torch.cuda.reset_peak_memory_stats()
    for _ in range(repeats):
        if on_gpu:
            torch.cuda.synchronize()
        started = time.perf_counter()
        padj = run_engine(counts, device)
        if on_gpu:
            torch.cuda.synchronize()
        row["seconds"].append(round(time.perf_counter() - started, 4))
    row["median seconds"] = statistics.median(row["seconds"])
    if on_gpu:
        row["MiB"] = round(torch.cuda.max_memory_allocated() / 2**20, 1)
    called = padj < 0.05
    row |= {"calls that differ from R's": int((called != called_by_r).sum()), "called": int(called.sum())}
    print(row, flush=True)
    return row


def main() -> None:
    """Time all in turn, write the result."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--samples", type=int, nargs="*", help="default: 8 40 200, and 100 with --prepare")
    parser.add_argument("--large", type=int, nargs="*", default=[1000], help="sizes that are run once, on one core")
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--engines", nargs="*", default=ENGINES)
    parser.add_argument("--out", type=Path, default=Path(__file__).with_suffix(".json"))
    parser.add_argument("--prepare", type=Path, help="write counts and R's results into a folder, and time nothing")
    parser.add_argument("--carried", type=Path, help="time the engine alone, on what --prepare wrote")
    parser.add_argument("--device", default="cpu", help="of --carried")
    parser.add_argument("--one", nargs=2, help=argparse.SUPPRESS)
    parser.add_argument("--cores", type=int, default=1, help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.one:
        one(given.one[0], Path(given.one[1]), given.cores, given.device)
        return
    if given.carried:
        if given.out == parser.get_default("out"):
            parser.error("--carried: name a file (--out); the default is that of the comparison with R")
        rows = run_carried(given.carried, given.device, given.repeats)
        device = "cpu" if given.device == "cpu" else torch.cuda.get_device_name()
        provenance.write_benchmark(given.out, {"genes": N_GENES, "runs": rows}, device=device)
        return
    if "R DESeq2" in given.engines and not shutil.which("Rscript"):
        sys.exit("benchmarks/deseq.py: no Rscript; install R with DESeq2 (make r), or leave it out (--engines)")
    if given.prepare:
        prepare(given.prepare, given.samples or [8, 40, 100, 200])
        return
    runs = [(engine, cores, "cpu") for cores in (1, 2) for engine in given.engines]
    if torch.cuda.is_available():
        runs.append(("epigen_utils", 1, "cuda"))
    rows = [row for n in given.samples or [8, 40, 200] for row in compare(n, runs, given.repeats)]
    once = [run for run in runs if run[1] == 1]
    rows += [row for n in given.large for row in compare(n, once, 1)]
    device = torch.cuda.get_device_name() if torch.cuda.is_available() else "cpu"
    about = {"commit": provenance.current_commit(), "cores": os.cpu_count(), "genes": N_GENES}
    provenance.write_benchmark(given.out, about | {"runs": rows}, device=device)


if __name__ == "__main__":
    main()
