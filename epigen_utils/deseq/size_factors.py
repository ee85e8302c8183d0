"""Size factors of samples by the median of ratios to a reference (Anders and Huber 2010; Love et al. 2014, eq. 5)."""

import numpy as np

from epigen_utils.errors import DataError


def log_geometric_means(counts: np.ndarray, kind: str = "ratio", *, unit: str = "sample") -> np.ndarray:
    """Log geometric mean of each gene over samples x genes; -inf where a gene gives no ratio.

    Parameters
    ----------
    kind
        ``ratio``: of the genes with counts in every sample. ``poscounts``: the n-th root of the product of the counts
        above zero, for data in which no gene is detected everywhere.
    unit
        What the rows are called in the error; ``poscounts`` is named as a remedy for samples alone.

    Raises
    ------
    DataError
        If no gene gives a ratio, or the kind is unknown.
    """
    if kind not in ("ratio", "poscounts"):
        raise DataError(f"size factors {kind!r}: there is ratio, poscounts")
    with np.errstate(divide="ignore"):
        logs = np.log(counts)
    if kind == "ratio":
        means = logs.mean(axis=0)
        if not np.isfinite(means).any():
            mend = "take size_factors='poscounts', or " if unit == "sample" else ""
            raise DataError(f"size factors: no gene is detected in every {unit}; {mend}drop the shallowest {unit}s")
        return means
    means = np.where(np.isfinite(logs), logs, 0.0).mean(axis=0)
    return np.where((counts > 0).any(axis=0), means, -np.inf)


def median_of_ratios(counts: np.ndarray, log_means: np.ndarray) -> np.ndarray:
    """Median of each row's ratios to a reference, over the genes with counts in both; samples.

    Raises
    ------
    DataError
        Naming the first row without a gene in common with the reference.
    """
    usable = np.isfinite(log_means)
    reference, factors = log_means[usable], np.empty(len(counts))
    for row, values in enumerate(counts[:, usable]):
        positive = values > 0
        if not positive.any():
            raise DataError(f"size factors: row {row + 1} has no counts in the genes that the factors are medians of")
        kept = slice(None) if positive.all() else positive
        factors[row] = np.exp(np.median(np.log(values[kept]) - reference[kept]))
    return factors


def estimate(counts: np.ndarray, kind: str = "ratio") -> np.ndarray:
    """Size factors of samples x genes; of ``poscounts``, scaled to a geometric mean of one.

    Raises
    ------
    DataError
        As `log_geometric_means` and `median_of_ratios`.
    """
    factors = median_of_ratios(counts, log_geometric_means(counts, kind))
    return factors if kind == "ratio" else factors / np.exp(np.log(factors).mean())
