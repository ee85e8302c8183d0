"""The papers' claims beside the reproduced numbers, and a verdict on each.

``data/claims/<paper>_<chapter>.csv`` holds the claims of one chapter; its columns are `COLUMNS`. A chapter's ``main``
run writes its numbers to ``metrics.json``; a claim refers to one of them as ``<paper>/<chapter>:<metric>``.
"""

import math
import re
from collections.abc import Collection
from dataclasses import dataclass
from decimal import Decimal
from pathlib import Path

import pandas as pd

from epigen_utils import paths
from epigen_utils.book import markup, notebooks
from epigen_utils.data import registry
from epigen_utils.errors import DataError
from epigen_utils.files import read_json

COLUMNS = [
    "id",
    "paper",  # A or B
    "locus",  # section, figure or table
    "quote",  # short, verbatim
    "quantity",  # what the number measures
    "reported",  # as `agreement` reads it; empty where the paper draws no line
    "evidence",  # what decides the claim, a key of `EVIDENCE`
    "metric",  # the number by which the claim is judged; several readings are joined by `READING`
    "needs",  # the data set that may decide it and, after a semicolon, the model; for each reading or for all
    "premise",  # what the judgement assumes
]
#: Joins the readings of a claim, such as two units of cost.
READING = " | "

REPRODUCED, NOT_REPRODUCED = "reproduced", "not reproduced"
AGREES, DIFFERS = "agrees with a published file", "differs from a published file"
CONSISTENT, INCONSISTENT = "consistent in the paper", "inconsistent in the paper"
DEPENDS = "depends on the reading"
UNDECIDED = "undecided"
NOT_TESTABLE = "not testable as stated"
NOT_ATTAINABLE = "not attainable"
NEEDS_DATA = "needs data"
#: In the order in which pages list them.
VERDICTS = (
    REPRODUCED,
    AGREES,
    CONSISTENT,
    DEPENDS,
    UNDECIDED,
    NOT_TESTABLE,
    NEEDS_DATA,
    NOT_ATTAINABLE,
    INCONSISTENT,
    DIFFERS,
    NOT_REPRODUCED,
)
#: What decides a claim, with the verdicts where the number agrees and where it does not.
EVIDENCE = {
    "run": (REPRODUCED, NOT_REPRODUCED),  # a run on the claim's own data and model
    "file": (AGREES, DIFFERS),  # a published file: configuration, log, table, notebook
    "paper": (CONSISTENT, INCONSISTENT),  # the paper's own text, tables and figures
    "design": (UNDECIDED, NOT_ATTAINABLE),  # what any experiment of the stated design could give
}
#: What to do about a damaged file of results.
REMEDY = "delete its folder, and build again"
#: In place of a verdict while a build has not yet done the run that judges the claim.
PENDING = "still to come"
#: An interval that is at most this share of the reported number wide can confirm the number.
NARROW = 0.1


def read_claims(folder: Path = paths.CLAIMS) -> pd.DataFrame:
    """All claims of the papers.

    Raises
    ------
    DataError
        If a claim has a wrong column, a duplicate id, an unreadable value, or an unknown evidence or data set; the
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
    for metric in row.metric.split(READING):
        if not re.fullmatch(r"\w+/\w+(--[\w-]+)?:\w+", metric):
            raise DataError(f"{where}: metric {metric!r}; write it as paper/chapter:name")
    if row.evidence not in EVIDENCE:
        raise DataError(f"{where}: evidence {row.evidence!r}; one of {', '.join(EVIDENCE)}")
    for needs in row.needs.split(READING):
        dataset = needs.partition(";")[0].strip()
        if dataset not in registry.entries():
            raise DataError(f"{where}: needs {dataset!r}, which is not in the registry; correct the name")
    if len(row.needs.split(READING)) not in (1, len(row.metric.split(READING))):
        raise DataError(f"{where}: needs {row.needs!r}; write one for all readings of {row.metric!r}, or one for each")
    if row.reported:
        agreement(row.reported, 0.0, where=where)


def tolerance(reported: str) -> float:
    """How far a number may be from the reported one: half of the last digit printed, or one of it after ``~``."""
    if reported[:1] in "<>=" or ".." in reported:
        return 0.0
    last_digit = 10.0 ** Decimal(reported.removeprefix("~")).as_tuple().exponent
    return last_digit if reported.startswith("~") else last_digit / 2


def agreement(
    reported: str, value: float, low: float | None = math.nan, high: float | None = math.nan, *, where: str = "claim"
) -> bool | None:
    """Whether a number agrees with what the paper reports; None where its interval leaves that open.

    Against a bound or a range the whole interval has to lie on one side, or the number where it is exact. A number
    agrees within its `tolerance`, or where the reported one lies in an interval at most `NARROW` of it wide; it does
    not agree where that lies outside the interval. A NaN, such as the adjusted p of a gene whose mean is too low for a
    test, does not agree.

    Parameters
    ----------
    reported
        ``0.90``; ``~0.43``, for about; ``=1``, for exactly; ``>0.65``, ``<0.05`` or ``12..16``.
    low, high
        95% interval; NaN where the number is exact, None where too few donors or seeds leave the interval unknown.

    Raises
    ------
    DataError
        If ``reported`` cannot be read.
    """
    try:
        slack = tolerance(reported)
        first, _, last = reported.lstrip("<>=~").partition("..")
        least, most = float(first), float(last or first)
        # Rounding decides nothing, and a small number has a small tolerance.
        slack += 1e-9 * (slack or 1) + math.ulp(max(abs(least), abs(most)))
    except (ValueError, ArithmeticError):
        raise DataError(f"{where}: reported {reported!r}; write a number, ~x, =x, >x, <x or a..b") from None
    if low is None or high is None:
        return None
    if math.isnan(low) or math.isnan(high):
        low = high = value
    if reported.startswith(">"):
        return _all_or_none(low > least, high > least)
    if reported.startswith("<"):
        return _all_or_none(low < least, high < least)
    if ".." in reported:
        inside = [least - slack <= end <= most + slack for end in (low, high)]
        apart = high < least - slack or low > most + slack or math.isnan(value)
        return False if apart else all(inside) or None
    if abs(value - least) <= slack:
        return True
    if low - slack <= least <= high + slack and high > low:
        return True if high - low <= NARROW * abs(least) else None
    return False


def _all_or_none(*ends: bool) -> bool | None:
    return ends[0] if len(set(ends)) == 1 else None


def judge_claims(claims: pd.DataFrame, run_metrics: dict[str, dict]) -> pd.DataFrame:
    """Judge each claim by the number of the run that it refers to.

    Only real data of the data set (and the model) in ``needs`` decide a claim. The verdict on any other run is *needs
    data*, and its number is given as ``method_check``, unless the run recorded it as none. A metric with a key ``of``
    counts for that data set alone.

    Parameters
    ----------
    claims
        Claims from `read_claims`.
    run_metrics
        Run key (``paper/chapter``, or ``paper/chapter--run``) -> its ``metrics.json``.

    Returns
    -------
    The claims with further columns.

    decided
        Whether the runs of all readings are on the claim's own data and model.
    reproduced
        The number, if so; of several readings, the first one's.
    method_check
        The number, if not.
    low, high, n
        Interval and size of the sample of either.
    readings
        The numbers of all readings with their intervals, n and, where they decide nothing, data sets, as text; empty
        for a claim with one.
    verdict
        One of `VERDICTS`; *needs data* is followed by the missing data set and model.
    data
        Matrices of the run of the first reading.
    shown
        Page and label of the figure or table that shows the number; empty without the run.
    """
    rows = [claim | _judgement(claim, run_metrics) for claim in claims.to_dict("records")]
    extra = ["decided", "reproduced", "low", "high", "n", "verdict", "data", "method_check", "readings", "shown"]
    return pd.DataFrame(rows, columns=[*claims.columns, *extra])


@dataclass(frozen=True)
class _Reading:
    """The number of one reading of a claim."""

    metric: dict
    needs: str
    decides: bool
    data: str
    shown: str

    @property
    def value(self) -> float:
        return self.metric.get("value", math.nan)

    @property
    def is_check(self) -> bool:
        """Whether the number checks the method where it does not decide the claim."""
        return self.metric.get("method_check", True)

    @property
    def text(self) -> str:
        """The number with its interval, n and, where it decides nothing, its data sets; empty if it says nothing."""
        if math.isnan(self.value) or not (self.decides or self.is_check):
            return ""
        return markup.measured(self.metric) + ("" if self.decides else f", on {self.data}")

    def agreement(self, reported: str) -> bool | None:
        ends = (self.metric.get(key, math.nan) for key in ("low", "high"))
        return agreement(reported, self.value, *ends)


def paired_readings(claim: dict) -> list[tuple[str, str]]:
    """The metric of each reading of a claim, with what it needs."""
    names, needed = claim["metric"].split(READING), claim["needs"].split(READING)
    return list(zip(names, needed * len(names) if len(needed) == 1 else needed, strict=True))


def _readings(claim: dict, run_metrics: dict[str, dict]) -> list[_Reading]:
    readings = []
    for metric_name, needs in paired_readings(claim):
        key, _, name = metric_name.partition(":")
        run = run_metrics.get(key, {})
        metric, data = run.get("metrics", {}).get(name, {}), run.get("datasets", {})
        real = {one for one, about in data.items() if about["nature"] == "real" and metric.get("of", one) == one}
        decides = {part.strip() for part in needs.split(";")} <= real | {run.get("model", "")} and bool(metric)
        shown = f"{key}.html" + (f"#{metric['at']}" if metric.get("at") else "") if run else ""
        # Where the page has a matrix it is what the number is of, not the files beside it, such as an annotation.
        matrices = [one for one, about in data.items() if about.get("matrix")] or list(data)
        readings.append(_Reading(metric, needs, decides, metric.get("of") or ", ".join(matrices), shown))
    return readings


def _judgement(claim: dict, run_metrics: dict[str, dict]) -> dict:
    readings = _readings(claim, run_metrics)
    first, missing = readings[0], [reading.needs for reading in readings if not reading.decides]
    judgement = {"reproduced": math.nan, "method_check": math.nan, "decided": not missing, "readings": ""}
    judgement |= {"data": first.data, "shown": first.shown}
    if len(readings) > 1 and any(reading.text for reading in readings):
        judgement["readings"] = "; ".join(reading.text or "none" for reading in readings)
    if not missing or first.is_check:
        judgement["method_check" if missing else "reproduced"] = first.value
        judgement |= {key: first.metric[key] for key in ("low", "high", "n") if first.metric.get(key) is not None}
    if not claim["reported"]:
        verdict = NOT_TESTABLE
    elif missing:
        verdict = f"{NEEDS_DATA}: {', '.join(dict.fromkeys(missing))}"
    else:
        outcomes = {reading.agreement(claim["reported"]) for reading in readings}
        positive, negative = EVIDENCE[claim["evidence"]]
        verdict = {(True,): positive, (False,): negative}.get(tuple(outcomes), UNDECIDED)
        verdict = DEPENDS if {True, False} <= outcomes else verdict
    return judgement | {"verdict": verdict}


def read_metrics(profile: str) -> dict[str, dict]:
    """The ``metrics.json`` of every run of a profile, by run key.

    Raises
    ------
    DataError
        If one is damaged.
    """
    metrics = {}
    for path in sorted((paths.RESULTS / profile).glob("*/*/*/metrics.json")):
        paper, chapter, run = path.parts[-4:-1]
        content = read_json(path, REMEDY)
        if not _is_record(content):
            raise DataError(f"{path}: is not as a run writes it; {REMEDY}")
        metrics[notebooks.run_key(f"{paper}/{chapter}", run)] = content
    return metrics


def _is_record(content: dict) -> bool:
    """Whether the content of a ``metrics.json`` has what claims are judged by, each of its type."""
    metrics, data = content.get("metrics", {}), content.get("datasets", {})
    if not (isinstance(metrics, dict) and isinstance(data, dict) and isinstance(content.get("model", ""), str)):
        return False
    if not all(isinstance(about, dict) and isinstance(about.get("nature"), str) for about in data.values()):
        return False
    for metric in metrics.values():
        if not isinstance(metric, dict) or not isinstance(metric.get("value", 0.0), int | float):
            return False
        if not all(isinstance(metric.get(key, 0.0), int | float | None) for key in ("low", "high", "n")):
            return False
        if not all(isinstance(metric.get(key, ""), str) for key in ("of", "at")):
            return False
    return True


def table(profile: str = "demo", pending: Collection[str] = ()) -> pd.DataFrame:
    """Every claim with its verdict, judged by the results of a profile.

    Parameters
    ----------
    pending
        Keys of runs that a build has still to do; claims that they judge have the verdict `PENDING`.

    Raises
    ------
    DataError
        If the profile's runs are those of another, as a rehearsal's, whose data and models have only the names of the
        real ones.

    Examples
    --------
    >>> from epigen_utils.book import claims
    >>> judged = claims.table("demo")
    >>> judged.set_index("id").loc["A1", ["locus", "quantity", "reported"]].tolist()
    ['Section IV.D', 'log2 fold change of PVALB in Table I', '<0']
    """
    if (paths.PROFILES / f"{profile}.yml").exists() and profile not in notebooks.profile_names():
        raise DataError(f"{profile}: decides no claim; give one of {', '.join(notebooks.profile_names())}")
    finished = {key: metrics for key, metrics in read_metrics(profile).items() if key not in pending}
    judged = judge_claims(read_claims(), finished)
    waiting = [any(key in pending for key in run_keys(metric)) for metric in judged["metric"]]
    return judged.assign(verdict=judged["verdict"].mask(waiting, PENDING))


def run_keys(metric: str) -> list[str]:
    """Keys of the runs that the readings of a metric refer to."""
    return [reading.partition(":")[0] for reading in metric.split(READING)]


def claims_of_chapter(claims: pd.DataFrame, chapter: str) -> pd.DataFrame:
    """The claims that are judged by runs of one chapter (``paper/NN_slug``)."""
    chapters = [notebooks.split_run_key(run_keys(metric)[0])[0] for metric in claims["metric"]]
    return claims.loc[[name == chapter for name in chapters]]


def count_verdicts(judged: pd.DataFrame) -> pd.DataFrame:
    """Number of claims by verdict (rows: `VERDICTS` and `PENDING`) and paper (columns); rows of zeros are left out."""
    kinds = judged["verdict"].str.partition(":")[0]
    counts = pd.crosstab(kinds, judged["paper"]).reindex([*VERDICTS, PENDING]).dropna()
    return counts.astype(int).rename_axis("verdict")
