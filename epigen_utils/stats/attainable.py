"""Values that AUC and F1 can take for given numbers of samples."""

import numpy as np
import pandas as pd


def attainable_auc(n_positive: int, n_negative: int, *, ties: bool = False) -> np.ndarray:
    """Every attainable AUC of pooled predictions: k / (n_positive * n_negative); half steps where scores may tie."""
    steps = n_positive * n_negative * (2 if ties else 1)
    return np.arange(steps + 1) / steps


def auc_lattices(sizes: list[tuple[int, int]]) -> pd.DataFrame:
    """Attainable AUCs by class sizes, the first pair also with ties: columns ``classes`` (its name) and ``auc``."""
    named = [(f"{a} v {b}", attainable_auc(a, b)) for a, b in sizes]
    first, second = sizes[0]
    named.insert(1, (f"{first} v {second}, ties", attainable_auc(first, second, ties=True)))
    return pd.concat([pd.DataFrame({"classes": name, "auc": values}) for name, values in named], ignore_index=True)


def attainable_f1(n_positive: int, n_negative: int) -> np.ndarray:
    """Every attainable F1 = 2 TP / (2 TP + FP + FN) of pooled predictions, ascending."""
    values = {0.0}
    for true_positive in range(1, n_positive + 1):
        for false_positive in range(n_negative + 1):
            values.add(2 * true_positive / (n_positive + true_positive + false_positive))
    return np.array(sorted(values))


def nearest_value(values: np.ndarray, target: float) -> float:
    """The value closest to the target; the lower one of two equally close."""
    return float(values[np.argmin(np.abs(values - target))])
