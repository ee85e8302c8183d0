"""How many samples a claim needs: that a treatment brings a mutant back, or that it leaves no difference."""

import functools
from collections.abc import Callable

import numpy as np
import pandas as pd
from scipy.stats import nct, norm, t


def interaction(effect: float, sd: float, n: int, *, alpha: float = 0.05) -> float:
    """Power to see that a treatment acts otherwise in mutants than in wild types: 2 x 2 groups of ``n``, two-sided t test.

    Parameters
    ----------
    effect
        Difference of differences, (treated - untreated mutants) - (treated - untreated wild types).
    sd
        Standard deviation within groups, in the same unit.
    """
    df = 4 * (n - 1)
    limit, shift = t.ppf(1 - alpha / 2, df), effect / (sd * np.sqrt(4 / n))
    if df > 300:  # SciPy's noncentral t loses its tails here, where it is normal to three digits
        return float(norm.sf(limit - shift) + norm.cdf(-limit - shift))
    return float(nct.sf(limit, df, shift) + nct.cdf(-limit, df, shift))


def equivalence(margin: float, sd: float, n: int, *, alpha: float = 0.05) -> float:
    """Power to show two groups of ``n`` alike within a margin where they truly are (two one-sided tests, Schuirmann 1987).

    The probability treats the estimate's error as t distributed, which is close from about five samples a group.

    Parameters
    ----------
    margin
        Largest difference that still counts as alike.
    sd
        Standard deviation within groups, in the same unit.
    """
    df = 2 * (n - 1)
    room = margin / (sd * np.sqrt(2 / n)) - t.ppf(1 - alpha, df)
    return float(max(0.0, 2 * t.cdf(room, df) - 1))


def smallest_n(power: Callable[[int], float], *, wanted: float = 0.8, most: int = 10_000) -> float:
    """Fewest samples a group with which a power is reached; infinite where ``most`` are too few."""
    if power(most) < wanted:
        return np.inf
    low, high = 1, most  # one sample a group leaves no spread to estimate
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (low, middle) if power(middle) >= wanted else (middle, high)
    return float(high)


def restoration(effects: tuple[float, ...], *, wanted: float = 0.8) -> pd.DataFrame:
    """Samples that a claim of restoration needs.

    Parameters
    ----------
    effects
        In standard deviations within groups: what a treatment takes back of the mutants' difference; for equivalence, the
        largest difference from wild types that still counts as none.

    Returns
    -------
    A row an effect: ``effect``, ``interaction`` and ``equivalence`` (samples in each of four, and in each of two groups, for
    the wanted power).
    """
    tests = (interaction, equivalence)
    rows = [
        {"effect": effect}
        | {test.__name__: smallest_n(functools.partial(test, effect, 1.0), wanted=wanted) for test in tests}
        for effect in effects
    ]
    return pd.DataFrame(rows)
