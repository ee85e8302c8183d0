"""Times of pages and test files beside the recorded ones, `benchmarks/times.json`.

`times.py table` prints them and warns of what grew by half on the same machine's measure, a calibration loop;
`times.py record` writes the file anew from the results and the test report that are there.
"""

import json
import statistics
import sys
import time
import xml.etree.ElementTree as ElementTree
from collections import defaultdict

import numpy as np

from epigen_utils import paths
from epigen_utils.book import notebooks
from epigen_utils.files import write_json

#: Reports of pytest (--junitxml): fast and slow tests of one file are told apart.
REPORTS = {"tests": "tests.xml", "slow tests": "tests-slow.xml"}
#: Seconds of the stages of a CI run.
STAGES = paths.BUILD / "ci_stages.tsv"
#: Growth that is warned of, and the least seconds that count.
GROWTH, LEAST = 1.5, 5.0


def calibration_seconds(repeats: int = 5) -> float:
    """Median time of a loop that does what pages and tests do: interpreted steps and matrix products."""
    matrix = np.random.default_rng(0).normal(size=(400, 400))
    seconds = []
    for _ in range(repeats):
        started, total = time.perf_counter(), 0.0
        for step in range(2_000_000):
            total += step % 7
        for _ in range(200):
            matrix @ matrix
        seconds.append(time.perf_counter() - started)
    return statistics.median(seconds)


def page_seconds(profile: str) -> dict[str, float]:
    """Seconds of each run that is finished, by key, as papermill measured them."""
    seconds = {}
    for path in sorted((paths.RESULTS / profile).glob("*/*/*/notebook.ipynb")):
        paper, chapter, run = path.parts[-4:-1]
        duration = json.loads(path.read_text())["metadata"]["papermill"]["duration"]
        seconds[notebooks.run_key(f"{paper}/{chapter}", run)] = round(duration, 1)
    return seconds


def page_memory(profile: str) -> dict[str, float]:
    """Most memory of each run that is finished, GB, by key; runs of earlier versions have none."""
    memory = {}
    for path in sorted((paths.RESULTS / profile).glob("*/*/*/metrics.json")):
        paper, chapter, run = path.parts[-4:-1]
        if "memory" in (record := json.loads(path.read_text())):
            memory[notebooks.run_key(f"{paper}/{chapter}", run)] = record["memory"]
    return memory


def test_seconds(kind: str) -> dict[str, float]:
    """Seconds of each file of tests, set-up included; empty without a report."""
    seconds = defaultdict(float)
    report = paths.BUILD / REPORTS[kind]
    for case in ElementTree.parse(report).iter("testcase") if report.exists() else ():
        parts = case.get("classname").split(".")
        length = next(i for i, part in enumerate(parts, 1) if part.startswith("test_"))
        seconds["/".join(parts[:length]) + ".py"] += float(case.get("time"))
    return {name: round(total, 1) for name, total in sorted(seconds.items())}


def print_table() -> None:
    """Print stages, and the slowest pages and test files, each beside its recorded time on this machine's measure."""
    recorded = json.loads(paths.TIMES.read_text())
    scale = calibration_seconds() / recorded["calibration"]
    print(f"\nTimes; this machine takes {scale:.2f} times as long as that of benchmarks/times.json.")
    for line in STAGES.read_text().splitlines() if STAGES.exists() else ():
        name, seconds = line.split("\t")
        print(f"  {int(seconds) // 60:3d} m {int(seconds) % 60:02d} s  {name}")
    tables = {"pages": (page_seconds("demo"), recorded["pages"].get("demo", {}))}
    tables |= {kind: (test_seconds(kind), recorded[kind]) for kind in REPORTS}
    for title, (now, before) in tables.items():
        print(f"Slowest {title}: seconds, and as recorded on this machine's measure")
        for name, seconds in sorted(now.items(), key=lambda pair: -pair[1])[:10]:
            print(f"  {seconds:7.1f}  {f'{before[name] * scale:7.1f}' if name in before else '    new'}  {name}")
        for name, seconds in now.items():
            expected = before.get(name, seconds) * scale
            if seconds > max(GROWTH * expected, expected + LEAST):
                print(f"WARNING: {name} took {seconds:.1f} s, {seconds / expected:.1f} times its recorded time")


def record() -> None:
    """Write the times of this machine's results and test reports; what is not there keeps its recorded times."""
    recorded = json.loads(paths.TIMES.read_text()) if paths.TIMES.exists() else {"pages": {}}
    profiles = {name: page_seconds(name) for name in notebooks.profile_names()}
    pages = recorded["pages"] | {name: seconds for name, seconds in profiles.items() if seconds}
    memory = {name: gb for name in profiles if (gb := page_memory(name))}
    memory = recorded.get("memory", {}) | memory
    tests = {kind: test_seconds(kind) or recorded.get(kind, {}) for kind in REPORTS}
    write_json(paths.TIMES, {"calibration": calibration_seconds(), "pages": pages, "memory": memory, **tests})


if __name__ == "__main__":
    {"table": print_table, "record": record}[sys.argv[1]]()
