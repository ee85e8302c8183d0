"""Our differential expression beside recorded numbers of R DESeq2, where there is no R.

`python tests/fuzz_deseq.py --fix tests/reference` makes them; the tolerances are those of `fuzz_deseq.TOLERANCES`.
"""

import json

import deseq_draws
import fuzz_deseq
import pytest

from epigen_utils import paths
from epigen_utils.expression import differential  # noqa: F401 - what this covers, for .ci/touched.py

REFERENCE = paths.ROOT / "tests" / "reference"
CASES = sorted(path.parent for path in REFERENCE.glob("*/case.json"))


@pytest.mark.parametrize("folder", CASES, ids=lambda folder: folder.name)
def test_ours_is_r_within_the_tolerances(folder):
    case = deseq_draws.read(folder)
    row = fuzz_deseq.compare(case, fuzz_deseq.run_ours(case), fuzz_deseq.read_r(folder))
    assert row.unexplained == [], str(row)
    assert row.n_unsettled < 0.1 * len(case.counts.columns), "a reference is to compare most of its genes"


def test_every_wanted_case_is_there_and_small():
    assert {folder.name for folder in CASES} == set(fuzz_deseq.WANTED)
    assert sum(path.stat().st_size for path in REFERENCE.rglob("*") if path.is_file()) < 300_000
    assert json.loads((REFERENCE / "session.json").read_text())["DESeq2"] == "1.38.3"
    for folder in CASES:
        assert set(fuzz_deseq.WANTED[folder.name]) <= set(deseq_draws.read(folder).kinds), folder.name
