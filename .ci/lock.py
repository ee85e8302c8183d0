"""Print the lock: what pip would install for this project in an empty environment, as name==version lines."""

import json
import subprocess
import sys
import tempfile

with tempfile.TemporaryDirectory() as folder:
    report = f"{folder}/report.json"
    command = [
        sys.executable,
        "-m",
        "pip",
        "install",
        "--dry-run",
        "--ignore-installed",
        "--quiet",
        "--report",
        report,
        ".[dev,bench]",
        "hatchling",
    ]
    subprocess.run([*command, "editables"], check=True, stdout=sys.stderr)
    with open(report) as stream:
        installed = [item["metadata"] for item in json.load(stream)["install"]]

print("# Written by `make lock` from pyproject.toml, with Python 3.11.2: the oldest that a machine is likely to have.")
print("# A CPU build of torch carries a local version that is cut off here, so that any build of that release will do.")
for name, version in sorted(
    (item["name"].lower().replace("_", "-"), item["version"].partition("+")[0]) for item in installed
):
    if name != "epigen-utils":
        print(f"{name}=={version}")
