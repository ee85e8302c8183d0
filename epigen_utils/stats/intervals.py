"""Confidence intervals over donors, seeds, independent cohorts and repeated folds."""

from collections.abc import Mapping

import numpy as np
import pandas as pd
from scipy.optimize import brentq
from scipy.stats import binomtest, norm
from scipy.stats import t as student

#: Fewest units (donors, cells) of an interval over units. Of three units, 1 bootstrap sample in 27 is the lowest unit
#: three times, more than 2.5%, so that a 95% interval would be the range; Student's and Welch's are given likewise.
LEAST_UNITS = 4


def ends(row: Mapping[str, float], name: str = "") -> dict[str, float]:
    """``low`` and ``high`` of a table's row as arguments: its columns ``<name> low`` and ``<name> high``."""
    return {end: row[f"{name} {end}".strip()] for end in ("low", "high")}


def student_interval(values: np.ndarray) -> tuple[float, float, float]:
    """Mean over seeds, or independent cohorts, with Student's 95% interval (NaN for one value): mean, low, high.

    Examples
    --------
    >>> import numpy as np
    >>> from epigen_utils.stats import intervals
    >>> mean, low, high = intervals.student_interval(np.array([0.7, 0.8, 0.9]))
    >>> print(round(mean, 3), round(low, 3), round(high, 3))
    0.8 0.552 1.048
    """
    values = np.asarray(values, float)
    mean, n = float(values.mean()), len(values)
    half = student.ppf(0.975, n - 1) * values.std(ddof=1) / np.sqrt(n) if n > 1 else np.nan
    return mean, float(mean - half), float(mean + half)


def binomial_interval(hits: int, n: int) -> tuple[float, float]:
    """Exact 95% interval of a share (Clopper and Pearson 1934): low, high."""
    interval = binomtest(hits, n).proportion_ci()
    return float(interval.low), float(interval.high)


def bootstrap_mean(
    values: np.ndarray, units: np.ndarray, *, n_bootstrap: int, rng: np.random.Generator
) -> tuple[float, float, float, int]:
    """Mean of values with a 95% bootstrap interval that resamples whole units (donors, or cells).

    Parameters
    ----------
    units
        Unit of each value.

    Returns
    -------
    Mean, low, high, and the number of units.

    Examples
    --------
    >>> import numpy as np
    >>> from epigen_utils.stats import intervals
    >>> values, donors = np.array([0.9, 0.8, 0.4, 0.5, 0.7]), np.array(["a", "a", "b", "b", "c"])
    >>> mean, low, high, n = intervals.bootstrap_mean(values, donors, n_bootstrap=1000, rng=np.random.default_rng(0))
    >>> print(round(mean, 2), round(low, 2), round(high, 2), n)
    0.66 0.45 0.85 3
    """
    codes, names = pd.factorize(np.asarray(units))
    sums, n = np.bincount(codes, values), np.bincount(codes)
    drawn = rng.integers(len(names), size=(n_bootstrap, len(names)))
    low, high = np.quantile(sums[drawn].sum(axis=1) / n[drawn].sum(axis=1), [0.025, 0.975])
    return float(np.mean(values)), float(low), float(high), len(names)


def resample_donors(strata: np.ndarray, n_bootstrap: int, rng: np.random.Generator) -> list[np.ndarray]:
    """Bootstrap samples of donors, drawn within strata: positions of donors, as many as there are, a sample each.

    Parameters
    ----------
    strata
        Stratum of each donor.
    """
    members = [np.flatnonzero(strata == stratum) for stratum in np.unique(strata)]
    return [np.concatenate([rng.choice(donors, len(donors)) for donors in members]) for _ in range(n_bootstrap)]


#: Half-width of a 95% interval of the standard normal distribution.
Z_95 = norm.ppf(0.975)


def auc_interval(auc: float, n_positive: int, n_negative: int, *, n_folds: int = 1) -> tuple[float, float]:
    """95% interval of an AUC that does not shrink to a point at 0 or 1.

    Newcombe 2006 (Stat. Med. 25:559-573, method 5): Hanley and McNeil's variance with both class sizes replaced by
    their mean, inverted for the AUC as Wilson's interval is for a proportion.

    Parameters
    ----------
    n_folds
        Number of cross-validation folds. The models of several folds share training samples, so the variance is
        multiplied by 1 + folds x test size / training size (after Nadeau and Bengio 2003).

    Examples
    --------
    >>> from epigen_utils.stats import intervals
    >>> low, high = intervals.auc_interval(0.9, n_positive=9, n_negative=3)
    >>> print(round(low, 3), round(high, 3))
    0.507 0.985
    """
    correction = 1 + n_folds / (n_folds - 1) if n_folds > 1 else 1.0
    extra = (n_positive + n_negative) / 2 - 1

    def variance(value: float) -> float:
        spread = 1 + extra * ((1 - value) / (2 - value) + value / (1 + value))
        return correction * value * (1 - value) * spread / (n_positive * n_negative)

    def excess(value: float) -> float:
        return abs(auc - value) - Z_95 * np.sqrt(variance(value))

    # At an AUC of 0 or 1 that limit itself solves the equation; the interval needs the inner solution.
    inside = min(max(auc, 1e-9), 1 - 1e-9)
    low = 0.0 if auc <= 0 else brentq(excess, 1e-12, inside)
    high = 1.0 if auc >= 1 else brentq(excess, inside, 1 - 1e-12)
    return float(low), float(high)


def nadeau_bengio_interval(differences: np.ndarray, *, test_share: float) -> tuple[float, float, float]:
    """Mean over the folds of repeated divisions, with a 95% interval corrected for overlapping training sets.

    Nadeau and Bengio 2003 (Machine Learning 52:239-281): the variance is (1 / folds + test size / training size) times
    the variance of the folds' values.

    Parameters
    ----------
    differences
        A value for each fold of every division.
    test_share
        Share of the samples in a test fold.

    Returns
    -------
    Mean, low, high. The interval is a point if all values are equal, and NaN with one fold.

    Examples
    --------
    >>> import numpy as np
    >>> from epigen_utils.stats import intervals
    >>> mean, low, high = intervals.nadeau_bengio_interval(np.array([0.1, 0.2, 0.0, 0.1, 0.15]), test_share=0.2)
    >>> print(round(mean, 3), round(low, 3), round(high, 3))
    0.11 -0.028 0.248
    """
    values = np.asarray(differences, float)
    values = values[np.isfinite(values)]
    if len(values) < 2:
        return (float(values.mean()) if len(values) else np.nan), np.nan, np.nan
    scale = np.sqrt((1 / len(values) + test_share / (1 - test_share)) * values.var(ddof=1))
    half = student.ppf(0.975, len(values) - 1) * scale
    return float(values.mean()), float(values.mean() - half), float(values.mean() + half)


def means_over_cohorts(table: pd.DataFrame, by: list[str], value: str) -> pd.DataFrame:
    """Means over independent cohorts with Student's 95% interval, truncated to [0, 1].

    Returns
    -------
    A row a group: the columns of ``by``, that of ``value``, the same with `` low`` and `` high``, and ``cohorts``.
    """
    rows = []
    for key, part in table.groupby(by, sort=False):
        mean, low, high = student_interval(part[value].to_numpy())
        row = {value: mean, f"{value} low": max(low, 0.0), f"{value} high": min(high, 1.0)}
        rows.append(dict(zip(by, key, strict=True)) | row | {"cohorts": len(part)})
    return pd.DataFrame(rows)
