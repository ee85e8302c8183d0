"""What the published lengths of Genecorpus-30M's cells say: bounds of what padding costs, and the size of the work.

Paper B, sections 2.1, 2.4.1 and 4.2, Figure 5.
"""

from pathlib import Path

import pandas as pd

#: Bytes of memory a parameter takes in training: weight, gradient and AdamW's two moments, 32 bits each.
TRAINING_BYTES = 16


def read_moments(path: Path) -> pd.Series:
    """Moments and quartiles of the lengths by name (``data/genecorpus_lengths.csv``)."""
    return pd.read_csv(path).set_index("quantity")["value"]


def quantiles(moments: pd.Series) -> dict[float, float]:
    """Quantile -> tokens of a cell: smallest, quartiles and largest."""
    names = {0.0: "smallest", 0.25: "lower quartile", 0.5: "median", 0.75: "upper quartile", 1.0: "largest"}
    return {share: float(moments[name]) for share, name in names.items()}


def padding_bounds(moments: pd.Series) -> dict[str, float]:
    """What rows of full length waste, and the largest speed-up that taking all padding away can give.

    Returns
    -------
    ``padding`` and ``padding of pairs`` (shares of the positions, and of the pairs of positions, that are padding),
    ``squared padding`` (mean square of a row's share of padding), ``linear`` and ``quadratic`` (speed-ups if cost goes
    with positions, and with pairs).
    """
    full, mean = moments["full length"], moments["mean"]
    mean_square = moments["standard deviation"] ** 2 + mean**2
    return {
        "padding": 1 - mean / full,
        "padding of pairs": 1 - mean_square / full**2,
        "squared padding": 1 - 2 * mean / full + mean_square / full**2,
        "linear": full / mean,
        "quadratic": full**2 / mean_square,
    }


def bounds_table(bounds: dict[str, float], *, random_padding: float, batch_size: int) -> pd.DataFrame:
    """Bounds with what they are of: ``bound``, ``value``; ``random_padding`` is `least_random_padding`."""
    meanings = {
        "padding": "share of the positions that is padding, rows of the full length",
        "padding of pairs": "share of the pairs of positions that is padding, rows of the full length",
        "squared padding": "mean square of a row's share of padding, rows of the full length",
        "linear": "largest speed-up from removing all padding, if cost is linear in length",
        "quadratic": "largest speed-up from removing all padding, if cost is quadratic",
    }
    rows = [(meanings[name], value) for name, value in bounds.items()]
    rows.append((f"lower bound of the share of padding in random batches of {batch_size}", random_padding))
    return pd.DataFrame(rows, columns=["bound", "value"])


def least_random_padding(moments: pd.Series, *, share_whole: float, batch_size: int) -> float:
    """Lower bound of the share of padding in random batches that are padded to their longest cell.

    The longest of a batch is at least as long as a quantile q with probability 1 - q^batch_size, which bounds its mean
    from below.

    Parameters
    ----------
    share_whole
        Share of the cells that are not cut off at the full length; the others have it.
    """
    ends = {share: length for share, length in quantiles(moments).items() if share < 1} | {
        share_whole: moments["full length"]
    }
    longest = previous = 0.0
    for share, length in sorted(ends.items()):
        longest += (length - previous) * (1 - share**batch_size)
        previous = length
    return 1 - moments["mean"] / longest


def training_size(moments: pd.Series, *, epochs: float, n_parameters: int, tokens_per_second: float) -> pd.DataFrame:
    """What pretraining on the whole corpus takes: memory of ids and of the model's state, and time at a given speed.

    Returns
    -------
    Columns ``quantity``, ``value``, ``unit``.
    """
    tokens = moments["cells"] * moments["mean"]
    rows = [
        ("token ids, 64 bits", tokens * 8 / 1e9, "GB"),
        ("token ids, 16 bits", tokens * 2 / 1e9, "GB"),
        ("weights, gradients and AdamW's moments, 32 bits", n_parameters * TRAINING_BYTES / 1e9, "GB"),
        ("tokens of the whole training", tokens * epochs / 1e9, "billions"),
        ("the same at the recorded speed", tokens * epochs / tokens_per_second / 86_400, "days"),
    ]
    return pd.DataFrame(rows, columns=["quantity", "value", "unit"])
