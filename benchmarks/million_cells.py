"""A file of a million cells encoded, and 100,000 of them classified: memory along the way, and cells a second.

    python benchmarks/million_cells.py [--cells 1000000] [--classified 100000] [--threads 2] [--out FILE]

The cells are simulated, with lengths as Genecorpus-30M's, and lie in an h5ad as scanpy writes it (4 bytes a count).
Each part is a process of its own. Its memory is sampled five times a second, without the pages of mapped files, which
go when others need the room (``RssAnon``); given is the highest of each tenth of the run.
"""

import argparse
import json
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable
from pathlib import Path

import anndata
import h5py
import numpy as np
import pandas as pd

from epigen_utils.book import provenance
from epigen_utils.data import cell_source, simulated_cells
from epigen_utils.downstream import cell_classifier
from epigen_utils.geneformer import curation, encoded_cells, encoding, vocabularies
from epigen_utils.models import presets
from epigen_utils.models.training import Settings

TRAINED_CELLS = 2000


def make(path: Path, n_cells: int) -> None:
    """An h5ad of simulated cells, repeated to the number wanted, written piece by piece."""
    base = simulated_cells.cell_corpus(n_cells=min(n_cells, 5000), seed=1)
    counts = base.layers["counts"].astype(np.float32)
    kinds = np.resize(base.obs["cell_type"].to_numpy(dtype=str), n_cells)
    obs = pd.DataFrame({"cell_type": pd.Categorical(kinds)}, index=[f"cell_{i}" for i in range(n_cells)])
    empty = anndata.AnnData(obs=obs, var=base.var[["ensembl_id"]])
    empty.write_h5ad(path)
    with h5py.File(path, "a") as file:
        group = file.require_group("X")
        group.attrs.update(
            {"encoding-type": "csr_matrix", "encoding-version": "0.1.0", "shape": (n_cells, base.n_vars)}
        )
        data = group.create_dataset("data", (0,), "float32", maxshape=(None,), chunks=(1 << 18,))
        indices = group.create_dataset("indices", (0,), "int32", maxshape=(None,), chunks=(1 << 18,))
        ends = [np.zeros(1, np.int64)]
        for first in range(0, n_cells, base.n_obs):
            piece, filled = counts[: n_cells - first], int(ends[-1][-1])
            for stored, values in ((data, piece.data), (indices, piece.indices)):
                stored.resize((filled + piece.nnz,))
                stored[filled:] = values
            ends.append(filled + piece.indptr[1:].astype(np.int64))
        group["indptr"] = np.concatenate(ends)


def own_memory() -> float:
    """What this process holds itself, in MiB."""
    line = next(line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith("RssAnon"))
    return int(line.split()[1]) / 1024


def watched(run: Callable[[], None], n_cells: int) -> dict:
    """Seconds, cells a second and memory of a run."""
    samples, over = [own_memory()], threading.Event()

    def watch() -> None:
        while not over.wait(0.2):
            samples.append(own_memory())

    watcher = threading.Thread(target=watch)
    watcher.start()
    start = time.perf_counter()
    run()
    seconds = time.perf_counter() - start
    over.set()
    watcher.join()
    tenths = [round(float(part.max())) for part in np.array_split(samples, 10) if len(part)]
    return {
        "cells": n_cells,
        "seconds": round(seconds, 1),
        "cells a second": round(n_cells / seconds),
        "MiB before": round(samples[0]),
        "MiB by tenths": tenths,
    }


def encode(path: Path, folder: Path, threads: int) -> dict:
    """Encode the whole file."""
    with cell_source.H5adCells(path, keep=np.arange(1000)) as source:
        known = vocabularies.vocabulary_from_medians(curation.exact_medians([source]), name="benchmark")
    vocabularies.save_vocabulary(known, folder / "vocabulary.json")
    encoder = encoding.RankValueEncoder.of(known)
    encoder.encode_file(path, folder / "warm", keep=np.arange(100))
    n_cells = len(anndata.read_h5ad(path, backed="r").obs)
    return watched(lambda: encoder.encode_file(path, folder / "cells", threads=threads), n_cells)


def classify(folder: Path, n_cells: int) -> dict:
    """Fine-tune on a few cells, and predict the types of others."""
    known = vocabularies.load_vocabulary(folder / "vocabulary.json")
    cells = encoded_cells.load_arrow(folder / "cells")
    start = presets.build(presets.preset("bert-tiny", vocab_size=len(known.tokens)), "masked-lm", seed=0)
    settings = Settings(epochs=1, batch_size=16, learning_rate=1e-3)
    net = cell_classifier.CellClassifier(cells, known, start, folder / "runs", settings)
    kinds = np.asarray(cells.select(range(TRAINED_CELLS + n_cells))["cell_type"])
    net.fit(np.arange(TRAINED_CELLS), kinds[:TRAINED_CELLS])
    found = []
    rows = np.arange(TRAINED_CELLS, TRAINED_CELLS + n_cells)
    result = watched(lambda: found.append(net.predict_proba(rows)), n_cells)
    right = net.classes_[found[0].argmax(axis=1)] == kinds[TRAINED_CELLS:]
    return result | {"accuracy": round(float(right.mean()), 3)}


def main() -> None:
    """Make the file, run both parts, write the result."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--cells", type=int, default=1_000_000)
    parser.add_argument("--classified", type=int, default=100_000)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--out", type=Path, default=Path(__file__).with_suffix(".json"))
    parser.add_argument("--part", choices=["encode", "classify"], help=argparse.SUPPRESS)
    parser.add_argument("--folder", type=Path, help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.part:
        path = given.folder / "cells.h5ad"
        result = (
            encode(path, given.folder, given.threads)
            if given.part == "encode"
            else classify(given.folder, given.classified)
        )
        print(json.dumps(result))
        return
    found = {"what": "rank value encoding of a file, and prediction of cell types by a small classifier"}
    with tempfile.TemporaryDirectory() as scratch:
        path = Path(scratch) / "cells.h5ad"
        make(path, given.cells)
        found["file, GB"] = round(path.stat().st_size / 1e9, 2)
        for part in ("encode", "classify"):
            command = [sys.executable, __file__, "--part", part, "--folder", scratch]
            command += ["--classified", str(given.classified), "--threads", str(given.threads)]
            done = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True)
            found[part] = json.loads(done.stdout.splitlines()[-1])
    provenance.write_benchmark(given.out, found, device="cpu")


if __name__ == "__main__":
    main()
