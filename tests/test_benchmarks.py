"""The scripts of ``benchmarks/`` run, at their smallest; what they measure is no matter here."""

import json
import subprocess
import sys

import pytest

from epigen_utils import paths
from epigen_utils.models import precision


@pytest.mark.slow("benchmarks/training.py")
def test_every_part_of_the_training_benchmark_runs_on_this_device(tmp_path):
    out = tmp_path / "training.json"
    command = [sys.executable, paths.BENCHMARKS / "training.py", "--smoke", "--out", out]
    subprocess.run(command, check=True, capture_output=True, cwd=tmp_path)
    found = json.loads(out.read_text())
    parts = [content for content in found.values() if isinstance(content, dict)]
    assert len(parts) == 6
    assert not any("ended" in part for part in parts)
    here = {name for name in precision.PRECISIONS if not precision.why_unavailable(name)}
    for part in ("peak", "ladder", "precision", "sizes"):
        assert {row["precision"] for row in found[part]["rows"] if "precision" in row} == here


@pytest.mark.slow("benchmarks/learning.py")
def test_the_training_of_teacher_and_students_runs_on_this_device(tmp_path):
    script, carried, out = paths.BENCHMARKS / "learning.py", tmp_path / "carried", tmp_path / "learning.json"
    # In the vocabulary of the cells alone, of which logits are small.
    prepare = [sys.executable, script, "--prepare", carried, "--vocabulary", ""]
    subprocess.run(prepare, check=True, capture_output=True)
    subprocess.run([sys.executable, script, "--carried", carried, "--smoke", "--out", out], check=True)
    found = json.loads(out.read_text())
    assert found["finished"]
    assert {"bert-tiny", "student-2m, alone", "student-2m, taught"} <= set(found["models"])


@pytest.mark.slow("benchmarks/kernels.py", "notebooks/epilepsy/02_table_two.ipynb")
def test_a_chapter_under_other_kernels_is_compared_with_itself(tmp_path):
    out = tmp_path / "kernels.json"
    command = [sys.executable, paths.BENCHMARKS / "kernels.py", "--smoke", "--out", out]
    subprocess.run(command, check=True, capture_output=True, cwd=tmp_path)
    found = json.loads(out.read_text())
    assert [(row["kernels"], row["threads"]) for row in found["rows"]] == [
        ("AVX2", 1),
        ("AVX2, again", 1),
        ("AVX2", 2),
        ("any x86-64", 1),
        ("any x86-64", 2),
    ]
    assert found["libraries"]["AVX2"] != found["libraries"]["any x86-64"]
    first, again, *_ = found["rows"]
    assert first["differ"] == again["differ"] == 0
    assert first["numbers"] > 20
    assert all(0 <= row["largest"] < 1e-3 for row in found["rows"])
