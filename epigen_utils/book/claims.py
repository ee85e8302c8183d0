"""The papers' claims beside the reproduced numbers, and a verdict on each.

``data/claims/<paper>_<chapter>.csv`` holds the claims of one chapter; its columns are `COLUMNS`. A chapter's ``main``
run writes its numbers to ``metrics.json``; a claim refers to one of them as ``<paper>/<chapter>:<metric>``.
"""

import json
import math
import re
from collections.abc import Collection
from pathlib import Path

import pandas as pd

from epigen_utils import paths
from epigen_utils.book import notebooks
from epigen_utils.data import registry
from epigen_utils.errors import DataError

COLUMNS = [
    "id",
    "paper",  # A or B
    "locus",  # section, figure or table
    "quote",  # short, verbatim
    "quantity",  # what the number measures
    "reported",  # a number, >x, <x or a..b
    "tolerance",  # half of the last digit that the paper prints; 0 if it gives a bound
    "metric",  # the number by which the claim is judged
    "needs",  # the data set that may decide it and, after a semicolon, the model
    "otherwise",  # the verdict if the number disagrees
    "premise",  # what the judgement assumes
]

REPRODUCED = "reproduced"
NOT_REPRODUCED = "not reproduced"
INCONSISTENT = "inconsistent in the paper"
NOT_ATTAINABLE = "not attainable"
NEEDS_DATA = "needs data"
VERDICTS = (REPRODUCED, NOT_REPRODUCED, INCONSISTENT, NOT_ATTAINABLE, NEEDS_DATA)
#: In place of a verdict while a build has not yet done the run that judges the claim.
PENDING = "still to come"


def read_claims(folder: Path = paths.CLAIMS) -> pd.DataFrame:
    """All claims of the papers.

    Raises
    ------
    DataError
        If a claim has a wrong column, a duplicate id, an unreadable value, or an unknown verdict or data set; the
        message gives its file and row.
    """
    tables = []
    for path in sorted(folder.glob("*.csv")):
        table = pd.read_csv(path, dtype=str, keep_default_na=False)
        if list(table.columns) != COLUMNS:
            raise DataError(f"{path}: columns {', '.join(table.columns)}; they must be {', '.join(COLUMNS)}")
        for line, row in enumerate(table.itertuples(), start=2):
            _check_claim(f"{path}: row {line}", row)
        tables.append(table)
    claims = pd.concat(tables, ignore_index=True) if tables else pd.DataFrame(columns=COLUMNS)
    if (duplicated := claims["id"].duplicated()).any():
        raise DataError(f"{folder}: claim {claims.loc[duplicated, 'id'].iloc[0]!r}: id given twice; rename one")
    return claims


def _check_claim(where: str, row) -> None:
    if not re.fullmatch(r"\w+/\w+(--[\w-]+)?:\w+", row.metric):
        raise DataError(f"{where}: metric {row.metric!r}; write it as paper/chapter:name")
    if row.otherwise not in VERDICTS:
        raise DataError(f"{where}: otherwise {row.otherwise!r}; one of {', '.join(VERDICTS)}")
    dataset = row.needs.partition(";")[0].strip()
    if dataset not in registry.entries():
        raise DataError(f"{where}: needs {dataset!r}, which is not in the registry; mend the name")
    agrees_with_paper(row.reported, row.tolerance, 0.0, where=where)


def agrees_with_paper(reported: str, tolerance: str, value: float, *, where: str = "claim") -> bool:
    """Whether a number agrees with what the paper reports, within the tolerance.

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


def judge_claims(claims: pd.DataFrame, run_metrics: dict[str, dict]) -> pd.DataFrame:
    """Judge each claim by the number of the run that it refers to.

    Only real data of the data set (and the model) in ``needs`` decide a claim. The verdict on any other run is *needs
    data*, and its number is given as ``method_check``. A metric with a key ``of`` counts for that data set alone. A
    metric that is NaN, such as the adjusted p of a gene whose mean is too low for a test, contradicts the claim.

    Parameters
    ----------
    claims
        Claims from `read_claims`.
    run_metrics
        Run key (``paper/chapter``, or ``paper/chapter--run``) -> its ``metrics.json``.

    Returns
    -------
    The claims with six further columns.

    reproduced, low, high
        The number and its interval, if it decides the claim.
    verdict
        One of `VERDICTS`; *needs data* is followed by the missing data set and model.
    data
        Data sets of the run.
    method_check
        The number, if it does not decide the claim.
    """
    rows = []
    for claim in claims.to_dict("records"):
        key, _, name = claim["metric"].partition(":")
        run = run_metrics.get(key, {})
        metric = run.get("metrics", {}).get(name, {})
        value = metric.get("value", math.nan)
        needs = {part.strip() for part in claim["needs"].split(";")}
        data = run.get("datasets", {})
        real = {name for name, about in data.items() if about["nature"] == "real" and metric.get("of", name) == name}
        decided = needs <= real | {run.get("model", "")} and bool(metric)
        judgement = dict.fromkeys(("reproduced", "low", "high"), math.nan)
        judgement |= {"verdict": f"{NEEDS_DATA}: {claim['needs']}", "data": ", ".join(data), "method_check": value}
        if decided:
            agrees = agrees_with_paper(claim["reported"], claim["tolerance"], value)
            judgement |= {"verdict": REPRODUCED if agrees else claim["otherwise"], "method_check": math.nan}
            judgement |= {"reproduced": value} | {key: metric[key] for key in ("low", "high") if key in metric}
        rows.append(claim | judgement)
    extra = ["reproduced", "low", "high", "verdict", "data", "method_check"]
    return pd.DataFrame(rows, columns=[*claims.columns, *extra])


def read_metrics(profile: str) -> dict[str, dict]:
    """The ``metrics.json`` of every run of a profile, by run key."""
    metrics = {}
    for path in sorted((paths.RESULTS / profile).glob("*/*/*/metrics.json")):
        paper, chapter, run = path.parts[-4:-1]
        metrics[notebooks.run_key(f"{paper}/{chapter}", run)] = json.loads(path.read_text())
    return metrics


def table(profile: str = "demo", pending: Collection[str] = ()) -> pd.DataFrame:
    """Every claim with its verdict, judged by the results of a profile.

    Parameters
    ----------
    pending
        Keys of runs that a build has still to do; claims that they judge have the verdict `PENDING`.

    Examples
    --------
    >>> from epigen_utils.book import claims
    >>> judged = claims.table("demo")
    >>> judged.set_index("id").loc["A1", ["locus", "quantity", "reported"]].tolist()
    ['Section IV.D', 'log2 fold change of PVALB in Table I', '<0']
    """
    judged = judge_claims(read_claims(), read_metrics(profile))
    waiting = judged["metric"].str.partition(":")[0].isin(list(pending))
    return judged.assign(verdict=judged["verdict"].mask(waiting, PENDING))


def claims_of_chapter(claims: pd.DataFrame, chapter: str) -> pd.DataFrame:
    """The claims that are judged by runs of one chapter (``paper/NN_slug``)."""
    keys = [metric.partition(":")[0] for metric in claims["metric"]]
    return claims.loc[[notebooks.split_run_key(key)[0] == chapter for key in keys]]


def count_verdicts(judged: pd.DataFrame) -> str:
    """Number of claims of each of `VERDICTS`, and of `PENDING` if there are any, as text."""
    kinds = [verdict.partition(":")[0] for verdict in judged["verdict"]]
    counted = [*VERDICTS, *([PENDING] if PENDING in kinds else [])]
    return ", ".join(f"{kind} {kinds.count(kind)}" for kind in counted)


def display_columns(judged: pd.DataFrame) -> pd.DataFrame:
    """The columns that a page shows, with rounded numbers; empty columns are dropped."""

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
    columns = pd.DataFrame(rows)
    return columns.loc[:, (columns != "").any()] if len(columns) else columns
