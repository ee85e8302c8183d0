"""The numbers of a few pages under two kinds of CPU kernels and one and two threads, beside each other.

    python benchmarks/kernels.py [--smoke] [--out data/recorded/kernels.json]

Each chapter runs alone, by papermill, under each setting; the first is run twice. Of every number of its
``metrics.json`` (value and ends of the interval) the relative difference from the first run is taken,
``|a - b| / max(|a|, |b|)``. The page *How to reproduce this book* shows the largest of each setting. Needs AVX2.
"""

import argparse
import json
import os
import platform
import subprocess
import sys
import tempfile
from pathlib import Path

import yaml

from epigen_utils import paths, processes
from epigen_utils.book import provenance

#: What is run: a cohort's projections and permutations, a model of counts for each gene, and a training.
CHAPTERS = {
    "epilepsy/02_table_two": {},
    "epilepsy/03_differential_expression": {"dataset": "airway"},
    "epilepsy/11_attention": {"n_cohorts": 0, "n_models": 1, "epochs": 2.0},
}
#: Kernels of OpenBLAS (NumPy, SciPy), MKL, oneDNN and PyTorch itself.
KERNELS = {
    "AVX2": {"OPENBLAS_CORETYPE": "Haswell", "ATEN_CPU_CAPABILITY": "avx2", "ONEDNN_MAX_CPU_ISA": "AVX2"},
    "any x86-64": {
        "OPENBLAS_CORETYPE": "Prescott",
        "ATEN_CPU_CAPABILITY": "default",
        "ONEDNN_MAX_CPU_ISA": "SSE41",
        "MKL_CBWR": "COMPATIBLE",
    },
}
SETTINGS = [("AVX2", 1, ""), ("AVX2", 1, "again"), ("AVX2", 2, ""), ("any x86-64", 1, ""), ("any x86-64", 2, "")]
#: Prints what the libraries of a process take.
ASK = """
import json, numpy, scipy.linalg, threadpoolctl, torch
blas = {f"OpenBLAS {found['architecture']}" for found in threadpoolctl.threadpool_info() if "architecture" in found}
print(json.dumps([*sorted(blas), f"PyTorch {torch.backends.cpu.get_cpu_capability()}"]))
"""


def environment(kernels: str, threads: int) -> dict[str, str]:
    """Environment of a process that takes some kernels and threads."""
    return os.environ | dict.fromkeys(processes.THREAD_VARIABLES, str(threads)) | KERNELS[kernels]


def numbers(chapter: str, parameters: dict, kernels: str, threads: int, folder: Path) -> dict[str, float]:
    """Run a chapter alone; every number of its metrics, by name."""
    results = folder / "results"
    command = [sys.executable, "-m", "papermill", paths.NOTEBOOKS / f"{chapter}.ipynb", folder / "out.ipynb"]
    command += ["-k", "python3", "--no-progress-bar", "-y", yaml.safe_dump(parameters | {"results_dir": str(results)})]
    subprocess.run(command, check=True, env=environment(kernels, threads), cwd=paths.ROOT)
    metrics = json.loads((results / "metrics.json").read_text())["metrics"]
    names = {name: found for name, found in metrics.items() if not provenance.MEASURED.search(name)}
    return {
        f"{name} {end}".removesuffix(" value"): found[end]
        for name, found in names.items()
        for end in ("value", "low", "high")
        if found.get(end) is not None
    }


def relative(one: float, other: float) -> float:
    """Relative difference of two numbers; none of two that are no numbers."""
    if one == other or (one != one and other != other):
        return 0.0
    return abs(one - other) / max(abs(one), abs(other))


def main() -> None:
    """Measure, and write the file."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=paths.RECORDED / "kernels.json")
    parser.add_argument("--smoke", action="store_true", help="the first chapter alone")
    given = parser.parse_args()
    libraries, rows = {}, []
    for kernels in KERNELS:
        asked = subprocess.run(
            [sys.executable, "-c", ASK], env=environment(kernels, 1), capture_output=True, text=True, check=True
        )
        libraries[kernels] = json.loads(asked.stdout)
    for chapter, parameters in list(CHAPTERS.items())[: 1 if given.smoke else None]:
        first = {}
        for kernels, threads, again in SETTINGS:
            with tempfile.TemporaryDirectory() as folder:
                found = numbers(chapter, parameters, kernels, threads, Path(folder))
            first = first or found
            apart = {name: relative(first[name], found[name]) for name in first}
            worst = max(apart, key=apart.get)
            differ = sum(difference > 0 for difference in apart.values())
            setting = {"chapter": chapter, "kernels": f"{kernels}, {again}" if again else kernels, "threads": threads}
            rows.append(setting | {"numbers": len(apart), "differ": differ, "largest": apart[worst], "metric": worst})
            print(rows[-1], file=sys.stderr)
    result = {"parameters": CHAPTERS, "environment": KERNELS, "libraries": libraries, "rows": rows}
    provenance.write_benchmark(given.out, result, device=processor())


def processor() -> str:
    """The name of this machine's processor, as Linux gives it."""
    listed = Path("/proc/cpuinfo")
    lines = listed.read_text().splitlines() if listed.exists() else []
    return next((line.partition(":")[2].strip() for line in lines if line.startswith("model name")), platform.machine())


if __name__ == "__main__":
    main()
