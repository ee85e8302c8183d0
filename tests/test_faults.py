"""A short form of `faults`: what befalls a machine in the middle of a build."""

import os
import re
import subprocess
import sys

import pytest
from test_book import WHOLE_BUILD

from epigen_utils import paths


@WHOLE_BUILD
@pytest.mark.slow("tests/faults.py", "tests/same_bytes.py")
def test_a_build_survives_the_faults_of_a_machine():
    command = [sys.executable, paths.ROOT / "tests" / "faults.py", "--kills", "2", "--shares", "0.4"]
    variables = {"PYTHONPATH": os.pathsep.join([str(paths.ROOT), str(paths.ROOT / "tests")])}
    done = subprocess.run(command, env=os.environ | variables, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    rows = re.findall(r"^(ok|SKIPPED) +(.+)$", done.stdout, re.M)
    assert len(rows) >= 9, done.stdout
