"""Sample sizes for two claims about a treatment: that it restores a mutant, and that it leaves no difference."""

import bisect
import functools
from collections.abc import Callable

import numpy as np
import pandas as pd
from scipy.stats import nct, norm, t


def interaction_power(effect: float, sd: float, n: int, *, alpha: float = 0.05) -> float:
    """Power of the interaction of treatment and genotype in a 2 x 2 design, groups of ``n``, two-sided t test.

    Parameters
    ----------
    effect
        Difference of differences, (treated - untreated mutants) - (treated - untreated wild types).
    sd
        Standard deviation within groups, in the same unit.
    """
    df = 4 * (n - 1)
    limit, shift = t.ppf(1 - alpha / 2, df), effect / (sd * np.sqrt(4 / n))
    if df > 300:  # SciPy's noncentral t loses its tails here; the normal distribution agrees to three digits
        return float(norm.sf(limit - shift) + norm.cdf(-limit - shift))
    return float(nct.sf(limit, df, shift) + nct.cdf(-limit, df, shift))


def equivalence_power(margin: float, sd: float, n: int, *, alpha: float = 0.05) -> float:
    """Power to show that two groups of ``n`` with equal means are equivalent (two one-sided tests, Schuirmann 1987).

    The estimate's error is taken to be t distributed, a close approximation from about five samples a group.

    Parameters
    ----------
    margin
        Largest difference that still counts as equivalent.
    sd
        Standard deviation within groups, in the same unit.
    """
    df = 2 * (n - 1)
    room = margin / (sd * np.sqrt(2 / n)) - t.ppf(1 - alpha, df)
    return float(max(0.0, 2 * t.cdf(room, df) - 1))


def smallest_sample_size(power: Callable[[int], float], *, target_power: float = 0.8, max_n: int = 10_000) -> float:
    """Fewest samples a group that reach the wanted power; infinite if ``max_n`` do not."""
    sizes = range(2, max_n + 1)  # one sample a group leaves no spread to estimate
    position = bisect.bisect_left(sizes, target_power, key=power)
    return float(sizes[position]) if position < len(sizes) else np.inf


def restoration_sample_sizes(effects: tuple[float, ...], *, target_power: float = 0.8) -> pd.DataFrame:
    """Sample sizes for a claim of restoration.

    Parameters
    ----------
    effects
        In standard deviations within groups: the part of the mutants' difference that a treatment removes; for
        equivalence, the largest difference from wild types that still counts as none.

    Returns
    -------
    A row an effect: ``effect``, ``interaction`` (samples in each of four groups) and ``equivalence`` (in each of two).
    """
    tests = {"interaction": interaction_power, "equivalence": equivalence_power}
    table = pd.DataFrame({"effect": effects})
    for name, test in tests.items():
        powers = [functools.partial(test, effect, 1.0) for effect in effects]
        table[name] = [smallest_sample_size(power, target_power=target_power) for power in powers]
    return table
