"""Examples, and ways to damage and to read them, that several kinds of `malformed_kinds` share."""

import csv
import gzip
import io
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

import anndata
import numpy as np
import pandas as pd
from scipy import sparse

from epigen_utils import cli
from epigen_utils.data import datasets

SAMPLES = [f"s{i}" for i in range(1, 7)]
GROUPS = ["wt"] * 3 + ["ko"] * 3
GENES = [f"GENE{i}" for i in range(1, 31)]
COUNTS = np.random.default_rng(27).integers(5, 900, (len(GENES), len(SAMPLES)))
CELLS, CELL_GENES = [f"AAC{i}-1" for i in range(40)], [f"ENSG{i:011d}" for i in range(30)]
CELL_COUNTS = np.random.default_rng(28).poisson(0.8, (len(CELLS), len(CELL_GENES)))
DISEASE, PATIENT = ["dcm", "nf"] * 20, list("abcd") * 10
#: Names that a page, a shell or a terminal could take for more than names.
ODD_NAMES = [
    "<script>alert(1)</script>",
    "<img src=x onerror=alert(1)>",
    "</td></table><iframe src='//x'>",
    "`{raw} html <b>x</b>`",
    "{glue:text}`n`",
    "[a](javascript:alert(1))",
    "| a | b |",
    "$(touch CANARY)",
    "`touch CANARY`",
    "a; touch CANARY",
    "../../etc/passwd",
    "%s%n{0}{x}",
    "$x_1$ \\frac",
    "=1+cmd",
    "\u202egnp.exe",
    "Zo\u00eb \u2126 \u57fa\u56e0",
    "a'b\"c",
    "x" * 300,
]


def count_rows(
    genes: Sequence[str] = GENES, samples: Sequence[str] = SAMPLES, counts: np.ndarray = COUNTS
) -> list[list]:
    return [["gene", *samples], *([gene, *row] for gene, row in zip(genes, counts.tolist(), strict=True))]


def as_csv(rows: list[list], sep: str = ",", **options: object) -> bytes:
    text = io.StringIO()
    csv.writer(text, delimiter=sep, lineterminator="\n", **options).writerows(rows)
    return text.getvalue().encode()


def sample_rows(names: Sequence[str] = SAMPLES, groups: Sequence[str] = GROUPS) -> list[list[str]]:
    return [["sample", "condition"], *([name, group] for name, group in zip(names, groups, strict=True))]


def answer_of(adata: anndata.AnnData) -> dict:
    """What of a data set is compared: its names, counts and labels."""
    counts = adata.layers["counts"]
    counts = counts.toarray() if sparse.issparse(counts) else np.asarray(counts)
    obs = adata.obs.astype(object).where(adata.obs.notna(), "").map(str)
    labels = {name: obs[name].tolist() for name in ("condition", "disease", "patient") if name in obs}
    return {"samples": list(adata.obs_names), "genes": list(adata.var_names), "counts": counts.tolist()} | labels


def table_answer(
    genes: Sequence[str] = GENES, samples: Sequence[str] = SAMPLES, counts: np.ndarray = COUNTS, groups=GROUPS
) -> dict:
    """The answer that is right for a matrix of bulk."""
    return {
        "samples": list(samples),
        "genes": list(genes),
        "counts": np.asarray(counts).T.tolist(),
        "condition": list(groups),
    }


def epigen(*arguments: object) -> None:
    """The command line; only what is refused leaves by `SystemExit`."""
    sys.argv = ["epigen", *map(str, arguments)]
    try:
        cli.main()
    except SystemExit as left:
        if left.code:
            raise


def check(*arguments: object) -> dict:
    """`epigen check`, with what it has loaded."""
    loaded, load = [], datasets.load

    def load_and_keep(*given: object, **options: object) -> anndata.AnnData:
        loaded.append(load(*given, **options))
        return loaded[-1]

    datasets.load = load_and_keep
    try:
        epigen("check", *arguments)
    finally:
        datasets.load = load
    return answer_of(loaded[-1])


def check_bulk(path: Path, *more: object) -> dict:
    return check(path, "--metadata", path.with_name("samples.csv"), "--group", "condition", *more)


def check_cells(path: Path, *more: object) -> dict:
    return check(path, "--kind", "cells", "--label", "disease", "--donor", "patient", *more)


def with_samples(folder: Path, name: str, content: bytes) -> Path:
    (folder / "samples.csv").write_bytes(as_csv(sample_rows()))
    (folder / name).write_bytes(content)
    return folder / name


def repacked(content: Callable[[bytes], bytes]) -> Callable[[Path], None]:
    return lambda path: path.write_bytes(content(path.read_bytes()))


def bomb(header: bytes = b"gene,s1,s2\n", row: bytes = b"0,0,0\n") -> bytes:
    """A gzip that unpacks to 20 GB: its members are repeated."""
    return gzip.compress(header) + gzip.compress(row * (50_000_000 // len(row))) * 400


def as_workbook(rows: list[list]) -> bytes:
    buffer = io.BytesIO()
    pd.DataFrame(rows[1:], columns=rows[0]).to_excel(buffer, index=False)
    return buffer.getvalue()
