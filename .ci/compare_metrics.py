"""Compare the numbers of two builds: ``compare_metrics.py OLD NEW`` with two folders of results of one profile.

Prints each number of a ``metrics.json`` or a table that differs and each that only one build has, without wall times
and the speeds computed from them. Exit code 1 where there is any.
"""

import csv
import json
import math
import sys
from pathlib import Path

from epigen_utils.book.provenance import MEASURED


def numbers(folder: Path) -> dict[str, object]:
    """Values of every ``metrics.json`` and cells of every table, by run, name and place."""
    values = {}
    for path in sorted(folder.glob("*/*/*/metrics.json")):
        run = path.parent.relative_to(folder)
        for name, entry in json.loads(path.read_text())["metrics"].items():
            if not MEASURED.search(name):
                values |= {f"{run} {name} {key}": value for key, value in entry.items()}
        for table in sorted((path.parent / "tables").glob("*.csv")):
            with open(table, newline="") as stream:
                head, *rows = csv.reader(stream)
            for number, row in enumerate(rows):
                cells = zip(head, row, strict=True)
                values |= {
                    f"{run} {table.name} row {number} {name}": v for name, v in cells if not MEASURED.search(name)
                }
    return values


def equal(old: object, new: object) -> bool:
    """Equal to the last digit, or both not a number."""
    return old == new or all(isinstance(value, float) and math.isnan(value) for value in (old, new))


old, new = (numbers(Path(folder)) for folder in sys.argv[1:3])
changed = [
    f"{name}: {old[name]} -> {new[name]}" for name in sorted(old.keys() & new.keys()) if not equal(old[name], new[name])
]
alone = [f"{name}: only {'before' if name in old else 'after'}" for name in sorted(old.keys() ^ new.keys())]
print("\n".join(changed + alone))
print(f"{len(old)} numbers before, {len(new)} after: {len(changed)} changed, {len(alone)} in one build only")
sys.exit(bool(changed or alone))
