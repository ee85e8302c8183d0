"""The rehearsal of profile `paper`: each of its runs with the smaller values of profile `rehearsal`, on stand-ins.

Data sets whose hashes are registered are the originals; the others, and the published weights, come from a local server
(`stand_ins`), into a cache of their own. Results are in results/rehearsal. Named runs are done with those whose results they
need, and keep what is there; without names, all are done from nothing. The exit status says whether each run ended well.
"""

import argparse
import json
import os
import shutil
import subprocess
import sys
import time
from pathlib import Path

import stand_ins

from epigen_utils import paths
from epigen_utils.book import runs
from epigen_utils.data import registry

PROFILE = "rehearsal"


def link_pinned_data(cache: Path) -> None:
    """Share the user's cache for package releases, and for the fetched data sets whose files all have a registered hash."""
    shared = ["packages"]
    for name, entry in registry.entries().items():
        fetched = [spec for spec in entry.files.values() if spec.source != "bundled"]
        if fetched and all(spec.sha256 for spec in fetched):
            shared.append(name)
    for name in shared:
        (paths.CACHE / name).mkdir(parents=True, exist_ok=True)
        (cache / name).symlink_to(paths.CACHE / name)


def seconds_of(run: runs.Run) -> float:
    """Time of a finished run, as papermill measured it."""
    return json.loads(run.executed.read_text())["metadata"]["papermill"]["duration"]


def rehearse(keys: list[str], cores: int) -> int:
    """Do the runs, print a line for each, and return how many did not end well."""
    planned = [run for run in runs.plan_runs(PROFILE) if not keys or run.key in keys]
    folder = paths.BUILD / PROFILE
    shutil.rmtree(folder, ignore_errors=True)
    if not keys:
        shutil.rmtree(paths.RESULTS / PROFILE, ignore_errors=True)
    (folder / "cache").mkdir(parents=True)
    link_pinned_data(folder / "cache")
    started = time.perf_counter()
    with stand_ins.served(folder) as addresses:
        folders = {"EPIGEN_CACHE": str(folder / "cache"), "HF_HOME": str(folder / "huggingface")}
        environment = os.environ | addresses | folders
        epigen = [sys.executable, "-m", "epigen_utils.cli"]
        fetched = subprocess.run(
            [*epigen, "fetch", "--profile", PROFILE], cwd=paths.ROOT, env=environment, stdout=subprocess.PIPE, text=True
        )
        # Hashes of stand-ins belong in no registry.
        print(fetched.stdout.partition("# Hashes recorded")[0], flush=True)
        only = [word for run in planned for word in ("--only", run.key)]
        command = [*epigen, "build", "--profile", PROFILE, "--cores", str(cores), *only]
        subprocess.run(command, cwd=paths.ROOT, env=environment, check=False)
    for run in planned:
        seconds = f"{seconds_of(run):6.1f} s" if run.finished else "       -"
        print(f"{'ok    ' if run.finished else 'FAILED'}  {seconds}  {run.key}")
    n_failed = sum(not run.finished for run in planned)
    minutes = (time.perf_counter() - started) / 60
    print(
        f"rehearsal: {len(planned) - n_failed} of {len(planned)} runs of paper, {minutes:.1f} minutes on {cores} cores"
    )
    return n_failed


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("runs", nargs="*", metavar="RUN", help="paper/NN_slug, or with --run")
    parser.add_argument("--cores", type=int, default=2)
    given = parser.parse_args()
    sys.exit(min(1, rehearse(given.runs, given.cores)))
