"""What the papers report beside what was reproduced, and a verdict on each.

``data/claims/<paper>_<chapter>.csv`` holds one chapter's claims; its columns are `COLUMNS`. A chapter's ``main`` run
leaves the numbers in its ``metrics.json``; a claim names the one it is judged by as ``<paper>/<chapter>:<metric>``.
"""

import json
import math
import re
from pathlib import Path

import pandas as pd

from epigen_utils import paths, registry
from epigen_utils.errors import DataError

#: id; paper (A, B); locus (section, figure, table); quote (short, verbatim); quantity (what the number measures);
#: reported (a number, >x, <x or a..b); tolerance (half of the last digit that the paper prints, 0 where it gives a
#: bound); metric (the number it is judged by); needs (data set, and model after a semicolon, that alone may decide it);
#: otherwise (the verdict if the number disagrees); premise (what the judgement takes for granted).
COLUMNS = [
    "id",
    "paper",
    "locus",
    "quote",
    "quantity",
    "reported",
    "tolerance",
    "metric",
    "needs",
    "otherwise",
    "premise",
]

REPRODUCED = "reproduced"
NOT_REPRODUCED = "not reproduced"
INCONSISTENT = "inconsistent in the paper"
NOT_ATTAINABLE = "not attainable"
NEEDS_DATA = "needs data"
VERDICTS = (REPRODUCED, NOT_REPRODUCED, INCONSISTENT, NOT_ATTAINABLE, NEEDS_DATA)


def read(folder: Path = paths.CLAIMS) -> pd.DataFrame:
    """All claims as the papers make them.

    Raises
    ------
    DataError
        Naming the file and row of a claim with a wrong column, a duplicate id, a value that cannot be read, or a
        verdict or data set that does not exist.
    """
    tables = []
    for path in sorted(folder.glob("*.csv")):
        table = pd.read_csv(path, dtype=str, keep_default_na=False)
        if list(table.columns) != COLUMNS:
            raise DataError(f"{path}: columns {', '.join(table.columns)}; they must be {', '.join(COLUMNS)}")
        for line, row in enumerate(table.itertuples(), start=2):
            _check_row(f"{path}: row {line}", row)
        tables.append(table)
    claims = pd.concat(tables, ignore_index=True) if tables else pd.DataFrame(columns=COLUMNS)
    if (twice := claims["id"].duplicated()).any():
        raise DataError(f"{folder}: claim {claims.loc[twice, 'id'].iloc[0]!r}: id given twice; rename one")
    return claims


def _check_row(where: str, row) -> None:
    if not re.fullmatch(r"\w+/\w+(--[\w-]+)?:\w+", row.metric):
        raise DataError(f"{where}: metric {row.metric!r}; write it as paper/chapter:name")
    if row.otherwise not in VERDICTS:
        raise DataError(f"{where}: otherwise {row.otherwise!r}; one of {', '.join(VERDICTS)}")
    data = row.needs.partition(";")[0].strip()
    if data not in registry.registry():
        raise DataError(f"{where}: needs {data!r}, which is not in the registry; mend the name")
    agrees(row.reported, row.tolerance, 0.0, where=where)


def agrees(reported: str, tolerance: str, value: float, *, where: str = "claim") -> bool:
    """Whether a number is what the paper reports, within the tolerance.

    Parameters
    ----------
    reported
        ``0.90``, ``>0.65``, ``<0.05`` or ``12..16``.
    tolerance
        Absolute; empty is 0.

    Raises
    ------
    DataError
        If either cannot be read.
    """
    try:
        slack = float(tolerance or 0) + 1e-9
        if reported.startswith(">"):
            return value > float(reported[1:]) - float(tolerance or 0)
        if reported.startswith("<"):
            return value < float(reported[1:]) + float(tolerance or 0)
        low, _, high = reported.partition("..")
        return float(low) - slack <= value <= float(high or low) + slack
    except ValueError:
        raise DataError(
            f"{where}: reported {reported!r}, tolerance {tolerance!r}; write a number, >x, <x or a..b"
        ) from None


def judge(claims: pd.DataFrame, runs: dict[str, dict]) -> pd.DataFrame:
    """Set each claim beside the number of the run it names.

    A claim is decided only by the data set (and model) in its ``needs``, real; any other run gives *needs data*, and
    its number stands in ``method_check``. A number that says what it was computed ``of`` stands for that data set alone. A
    number that is NaN was looked for and is not there, such as the adjusted p of a gene that is too low to be tested:
    the claim does not hold.

    Parameters
    ----------
    claims
        As `read` gives them.
    runs
        Run key (``paper/chapter``, or ``paper/chapter--run``) -> its ``metrics.json``.

    Returns
    -------
    The claims with ``reproduced``, ``low``, ``high``, ``verdict``, ``data`` (what the number was computed from) and
    ``method_check``.
    """
    rows = []
    for claim in claims.to_dict("records"):
        key, _, name = claim["metric"].partition(":")
        run = runs.get(key, {})
        metric = run.get("metrics", {}).get(name, {})
        value = metric.get("value", math.nan)
        wanted = {part.strip() for part in claim["needs"].split(";")}
        data = run.get("datasets", {})
        real = {name for name, about in data.items() if about["nature"] == "real" and metric.get("of", name) == name}
        decided = wanted <= real | {run.get("model", "")} and bool(metric)
        if decided:
            verdict = REPRODUCED if agrees(claim["reported"], claim["tolerance"], value) else claim["otherwise"]
        else:
            verdict = f"{NEEDS_DATA}: {claim['needs']}"
        found = {"reproduced": value, "low": metric.get("low", math.nan), "high": metric.get("high", math.nan)}
        if not decided:
            found = dict.fromkeys(found, math.nan)
        check = math.nan if decided else value
        rows.append(claim | found | {"verdict": verdict, "data": ", ".join(data), "method_check": check})
    extra = ["reproduced", "low", "high", "verdict", "data", "method_check"]
    return pd.DataFrame(rows, columns=[*claims.columns, *extra])


def recorded(profile: str) -> dict[str, dict]:
    """The ``metrics.json`` of every run of a profile, by run key; ``main`` runs carry no suffix."""
    found = {}
    for path in sorted((paths.RESULTS / profile).glob("*/*/*/metrics.json")):
        paper, chapter, run = path.parts[-4:-1]
        found[f"{paper}/{chapter}" + ("" if run == "main" else f"--{run}")] = json.loads(path.read_text())
    return found


def table(profile: str = "demo") -> pd.DataFrame:
    """Every claim with its verdict, from the results of a profile."""
    return judge(read(), recorded(profile))


def of_chapter(claims: pd.DataFrame, chapter: str) -> pd.DataFrame:
    """Those claims that one chapter (``paper/NN_slug``) judges."""
    return claims[claims["metric"].str.match(rf"{re.escape(chapter)}(--[\w-]+)?:")]


def for_reading(judged: pd.DataFrame) -> pd.DataFrame:
    """The columns a page shows, numbers rounded for the eye."""

    def number(row, column):
        return "" if pd.isna(row[column]) else f"{row[column]:.3g}"

    def interval(row):
        return "" if pd.isna(row["low"]) else f"{row['low']:.3g} to {row['high']:.3g}"

    rows = [
        {
            "claim": row["id"],
            "verdict": row["verdict"],
            "the paper says": f"“{row['quote']}”",
            "reported": row["reported"],
            "reproduced": number(row, "reproduced"),
            "interval": interval(row),
            "quantity": row["quantity"],
            "where": row["locus"],
            "premise": row["premise"],
            "method check": number(row, "method_check"),
        }
        for _, row in judged.iterrows()
    ]
    shown = pd.DataFrame(rows)
    return shown.loc[:, (shown != "").any()] if len(shown) else shown
