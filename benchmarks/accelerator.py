"""All that is measured on a GPU, in one call of at most ten minutes.

    python benchmarks/accelerator.py --carried FOLDER --commit COMMIT --out FOLDER [--only NAME ...] [--smoke]

First, side by side, what is not timed closely: the training of teacher and students (`learning.py`) and the
compilation of what the other parts need (`training.py --warm`). Then, one after the other, what is: `perturbation.py`,
`deseq.py`, `training.py` and the steps of `distillation.py`. Each writes a file of its own into the folder, so
that what ended stays; ``--merge FILE`` puts those of a folder together, for ``data/recorded/``, and needs no GPU.

What is carried to a machine without the internet is made before by ``learning.py --prepare FOLDER/learning`` and
``deseq.py --prepare FOLDER/deseq``.
"""

import argparse
import json
import subprocess
import sys
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from epigen_utils import files

HERE = Path(__file__).parent


def commands(given: argparse.Namespace) -> dict[str, list[str]]:
    """Name of a result -> the command that writes it; the first two run side by side."""
    smoke, cells = ["--smoke"] if given.smoke else [], given.carried / "learning"
    of_training = ["training.py", "--cells", str(cells), *smoke]
    return {
        "learning": ["learning.py", "--carried", str(cells), "--seconds", str(given.seconds), *smoke],
        "warm": [*of_training, "--warm"],
        "perturbation": ["perturbation.py", "--device", "cuda", "--screen-cells", "0"],
        "deseq": ["deseq.py", "--device", "cuda", "--carried", str(given.carried / "deseq")],
        "training": of_training,
        "distillation": ["distillation.py", "--device", "cuda", "--length", "2048", "--batches", "8", "--batch", "32"],
    }


def start(name: str, command: list[str], folder: Path) -> tuple[subprocess.Popen, float]:
    """A running command, whose output goes to a log, and when it was started."""
    with (folder / f"{name}.log").open("w") as log:
        output = ["--out", str(folder / f"{name}.json")]
        arguments = [sys.executable, str(HERE / command[0]), *command[1:], *output]
        return subprocess.Popen(arguments, stdout=log, stderr=subprocess.STDOUT), time.perf_counter()


def main() -> None:
    """Run all, print how each ended."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--carried", type=Path)
    parser.add_argument("--commit", default="")
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--only", nargs="*", default=[])
    parser.add_argument("--seconds", type=int, default=150, help="for learning.py")
    parser.add_argument("--smoke", action="store_true")
    parser.add_argument("--merge", type=Path)
    given = parser.parse_args()
    if given.merge:
        merge(given.out, given.merge)
        return
    given.out.mkdir(parents=True, exist_ok=True)
    todo = {name: command for name, command in commands(given).items() if not given.only or name in given.only}
    beside = {name: start(name, todo.pop(name), given.out) for name in ("learning", "warm") if name in todo}
    ended = {name: wait(*job) for name, job in beside.items()}
    for name, command in todo.items():
        ended[name] = wait(*start(name, command, given.out))
        files.write_json(given.out / "about.json", {"commit": given.commit, "ended": ended})
    for name, (code, seconds) in ended.items():
        print(f"{name:14} exit code {code}, {seconds:.0f} s")
        if code:
            print("\n".join((given.out / f"{name}.log").read_text().splitlines()[-12:]))


def wait(job: subprocess.Popen, started: float) -> tuple[int, float]:
    """Exit code of a command and its seconds."""
    return job.wait(), time.perf_counter() - started


def merge(folder: Path, target: Path) -> None:
    """Put the results of a folder into one file, by name."""
    results = {path.stem: json.loads(path.read_text()) for path in sorted(folder.glob("*.json"))}
    about = results.pop("about")
    made = {name: results["training"][name] for name in ("device", "date")}
    files.write_json(target, made | {"commit": about["commit"]} | results)


if __name__ == "__main__":
    main()
