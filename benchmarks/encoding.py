"""Rank value encoding, h5ad on disk to Arrow on disk: ours beside the official procedure in plain NumPy, in one run.

    python benchmarks/encoding.py [--cells 20000] [--threads 2] [--out benchmarks/encoding.json]

Both read the same simulated corpus (`simulated_cells.cell_corpus`: lengths as Genecorpus-30M's) and write token ids
that are compared. The peer does what official Geneformer's tokenizer does: 512 cells at a time, counts over depth
over medians on the sparse chunk, an argsort for each cell, a Python list made into a data set, which is saved. It has
no second thread to use, as the official one has none for this. Ours is timed with one thread as well. Peak memory is
of a process of its own.
"""

import argparse
import json
import platform
import re
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import anndata
import datasets
import numpy as np
from scipy import sparse

from epigen_utils.book import provenance
from epigen_utils.data import cell_source, simulated_cells
from epigen_utils.geneformer import curation, encoding, vocabularies


def make(path: Path, n_cells: int) -> None:
    """An h5ad as scanpy writes it, of simulated cells, repeated to the number wanted."""
    base = simulated_cells.cell_corpus(n_cells=min(n_cells, 5000), seed=1)
    counts = base.layers["counts"].astype(np.float32)
    rows = np.arange(n_cells) % base.n_obs
    adata = anndata.AnnData(X=counts[rows], var=base.var[["ensembl_id"]])
    adata.obs_names = [f"cell_{i}" for i in range(n_cells)]
    adata.obs["n_counts"] = np.asarray(adata.X.sum(axis=1)).ravel()
    adata.write_h5ad(path)


def vocabulary(path: Path) -> vocabularies.Vocabulary:
    """Of the medians of the first thousand cells, over all genes seen in them."""
    with cell_source.H5adCells(path, keep=np.arange(1000)) as source:
        return vocabularies.vocabulary_from_medians(curation.exact_medians([source]), name="benchmark")


def official_procedure(path: Path, folder: Path, known: vocabularies.Vocabulary) -> None:
    """The peer: see above."""
    adata = anndata.read_h5ad(path, backed="r")
    columns = [i for i, gene in enumerate(adata.var["ensembl_id"]) if gene in known.medians]
    genes = adata.var["ensembl_id"].iloc[columns]
    medians = np.array([known.medians[gene] for gene in genes])
    tokens = np.array([known.tokens[gene] for gene in genes])
    found = []
    for first in range(0, adata.n_obs, 512):
        chunk = adata[first : first + 512]
        depth = chunk.obs["n_counts"].to_numpy()[:, None]
        values = sparse.csr_matrix(chunk.X[:, columns] / depth * 10_000 / medians)
        for i in range(values.shape[0]):
            cell = values[i]
            order = np.argsort(-cell.data)
            found.append(tokens[cell.indices][order][:2048].tolist())
    lengths = [len(cell) for cell in found]
    datasets.Dataset.from_dict({"input_ids": found, "length": lengths}).save_to_disk(str(folder))


def ours(path: Path, folder: Path, known: vocabularies.Vocabulary, threads: int) -> None:
    """The encoder of the project."""
    encoding.RankValueEncoder.of(known).encode_file(path, folder, threads=threads)


def timed(what: str, path: Path, folder: Path, threads: int) -> dict[str, float]:
    """One encoding in a process of its own: seconds without start-up, and peak memory in MiB."""
    command = [sys.executable, __file__, "--one", what, str(path), str(folder), "--threads", str(threads)]
    return json.loads(subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout.splitlines()[-1])


def peak_memory() -> float:
    """Most memory that this process has held, in MiB; ``ru_maxrss`` would count the process that started it."""
    status = Path("/proc/self/status").read_text()
    return int(re.search(r"VmHWM:\s+(\d+) kB", status)[1]) / 1024


def one(what: str, path: Path, folder: Path, threads: int) -> None:
    """What `timed` runs."""
    datasets.disable_progress_bars()
    known = vocabulary(path)
    small = simulated_cells.cell_corpus(n_cells=50)
    encoding.RankValueEncoder.of(known, least_coverage=0).encode(
        small
    )  # compiled or read from the cache before the clock
    before = peak_memory()
    start = time.perf_counter()
    official_procedure(path, folder, known) if what == "peer" else ours(path, folder, known, threads)
    seconds = time.perf_counter() - start
    print(json.dumps({"seconds": seconds, "MiB before": before, "MiB peak": peak_memory()}))


def main() -> None:
    """Make the data, time both in turn, write the result."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--cells", type=int, default=20_000)
    parser.add_argument("--memory-cells", type=int, nargs=2, default=[5_000, 100_000])
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--out", type=Path, default=Path(__file__).with_suffix(".json"))
    parser.add_argument("--one", nargs=3, help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.one:
        one(given.one[0], Path(given.one[1]), Path(given.one[2]), given.threads)
        return
    with tempfile.TemporaryDirectory() as scratch:
        path = Path(scratch) / "cells.h5ad"
        make(path, given.cells)
        runs = {"peer": 1, "ours, 1 thread": 1, f"ours, {given.threads} threads": given.threads}
        found = {name: [] for name in runs}
        for _ in range(given.repeats):  # in turn, so that a noisy neighbour meets all of them
            for name, threads in runs.items():
                found[name].append(timed(name.split(",")[0], path, Path(scratch) / name.replace(" ", ""), threads))
        a, b = (
            datasets.load_from_disk(str(Path(scratch) / name.replace(" ", ""))) for name in (next(iter(runs)), name)
        )
        differ = sum(x != y for x, y in zip(a["input_ids"], b["input_ids"], strict=True))
        memory = {}
        for n_cells in given.memory_cells:
            make(path, n_cells)
            memory[n_cells] = timed("ours", path, Path(scratch) / "memory", given.threads)
    best = {name: min(run["seconds"] for run in table) for name, table in found.items()}
    result = {
        "what": "rank value encoding, h5ad on disk to Arrow on disk",
        "cells": given.cells,
        "cells a second": {name: round(given.cells / seconds) for name, seconds in best.items()},
        "times as fast as the peer": {name: round(best["peer"] / seconds, 1) for name, seconds in best.items()},
        "cells in another order (ties)": differ,
        "MiB peak, by cells": {str(n_cells): round(run["MiB peak"]) for n_cells, run in memory.items()},
        "repeats": given.repeats,
        "machine": provenance.machine_description(),
        "python": platform.python_version(),
    }
    given.out.write_text(json.dumps(result, indent=1) + "\n")
    print(json.dumps(result, indent=1))


if __name__ == "__main__":
    main()
