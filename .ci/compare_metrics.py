"""Compare the numbers of two builds: ``compare_metrics.py OLD NEW`` with two folders of results of one profile.

Prints each number that differs and each that only one build has; the exit code is the count of these, 255 at most.
Wall times are left out.
"""

import csv
import json
import math
import sys
from pathlib import Path


def numbers(folder: Path) -> dict[str, object]:
    """Values of every ``metrics.json``, and cells of every table, by the names under which they were written."""
    values = {}
    for path in sorted(folder.glob("*/*/*/metrics.json")):
        run = path.parent.relative_to(folder)
        for name, entry in json.loads(path.read_text())["metrics"].items():
            values |= {f"{run} {name} {key}": value for key, value in entry.items()}
        for table in sorted((path.parent / "tables").glob("*.csv")):
            with open(table, newline="") as stream:
                for row, cells in enumerate(csv.reader(stream)):
                    values |= {
                        f"{run} {table.name} row {row} column {column}": cell for column, cell in enumerate(cells)
                    }
    return values


def equal(old: object, new: object) -> bool:
    return old == new or all(isinstance(value, float) and math.isnan(value) for value in (old, new))


old, new = (numbers(Path(folder)) for folder in sys.argv[1:3])
differ = [name for name in old.keys() & new.keys() if not equal(old[name], new[name])]
for name in sorted(differ):
    print(f"{name}: {old[name]} -> {new[name]}")
for name in sorted(old.keys() ^ new.keys()):
    print(f"{name}: only {'before' if name in old else 'after'}")
count = len(differ) + len(old.keys() ^ new.keys())
print(f"{len(old)} numbers before, {len(new)} after, {count} differ")
sys.exit(min(count, 255))
