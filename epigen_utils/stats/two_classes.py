"""Two-class metrics of predictions of samples (AUC, F1, accuracy, Brier score), with small-sample intervals.

Paper A, section III.D reports AUC and F1 without folds, intervals or n.
"""

import numpy as np
import pandas as pd
from scipy.stats import rankdata
from sklearn.metrics import roc_curve

from epigen_utils.stats import intervals


def roc_auc(score: np.ndarray, positive: np.ndarray) -> float:
    """Area under the ROC curve (Mann-Whitney), ties counting half; NaN if there is one class only.

    Examples
    --------
    >>> import numpy as np
    >>> from epigen_utils.stats import two_classes
    >>> two_classes.roc_auc(np.array([0.9, 0.6, 0.6, 0.1]), np.array([True, True, False, False]))
    0.875
    """
    n = int(positive.sum())
    if n in (0, len(positive)):
        return np.nan
    return float((rankdata(score)[positive].sum() - n * (n + 1) / 2) / (n * (len(positive) - n)))


def pooled_scores(predictions: pd.DataFrame, positive: str) -> dict[str, float]:
    """Scores of the out-of-fold predictions of one division: ``auc``, ``f1``, ``accuracy``, ``brier``.

    F1 is that of the positive class. The AUC counts pairs within folds only: probabilities of models of different folds
    are on different scales, and pooling them favours the class that was underrepresented in a training fold, so that
    even the majority classifier falls below 0.5 (Forman and Scholz 2010).
    """
    true = (predictions["true"] == positive).to_numpy()
    p = predictions[f"p_{positive}"].to_numpy()
    predicted = (predictions["predicted"] == positive).to_numpy()
    hits = (predicted & true).sum()
    return {
        "auc": _auc_within_folds(p, true, predictions["fold"].to_numpy()),
        "f1": float(2 * hits / max(predicted.sum() + true.sum(), 1)),
        "accuracy": float((predicted == true).mean()),
        "brier": float(np.square(p - true).mean()),
    }


def _auc_within_folds(p: np.ndarray, true: np.ndarray, fold_of: np.ndarray) -> float:
    concordant = pairs = 0.0
    for fold in np.unique(fold_of):
        inside = fold_of == fold
        n = true[inside].sum() * (~true[inside]).sum()
        concordant += n * np.nan_to_num(roc_auc(p[inside], true[inside]))
        pairs += n
    return float(concordant / pairs) if pairs else np.nan


def count_pairs_within_folds(predictions: pd.DataFrame, positive: str) -> int:
    """Number of pairs of a positive and a negative within a fold, over the folds of the first division.

    It is the denominator of the AUC of one division (`pooled_scores`).
    """
    first = predictions[predictions["repeat"] == predictions["repeat"].iloc[0]]
    true = first["true"] == positive
    return int(sum(true[part].sum() * (~true[part]).sum() for part in first.groupby("fold").groups.values()))


def scores_over_repeats(
    predictions: pd.DataFrame, positive: str, *, n_bootstrap: int = 1000, seed: int = 0
) -> dict[str, float]:
    """Scores, averaged over divisions into folds, with 95% intervals in which the donor is the unit.

    Parameters
    ----------
    predictions
        Table of `folds.repeat_cross_validation`.

    Returns
    -------
    ``auc``, ``f1``, ``accuracy``, ``brier``, ``n`` (samples) and ``donors``; the first three also with `` low`` and
    `` high``: `intervals.auc_interval`, bootstrap over donors within their class (NaN if a class has fewer donors than
    `intervals.LEAST_UNITS`), and Clopper and Pearson's.
    """
    values = pd.DataFrame([pooled_scores(part, positive) for _, part in predictions.groupby("repeat")]).mean().to_dict()
    first = predictions[predictions["repeat"] == predictions["repeat"].iloc[0]]
    donors = first.groupby("true")["donor"].nunique()
    n_positive, n_negative = int(donors[positive]), int(donors.drop(positive).sum())
    auc_low, auc_high = intervals.auc_interval(values["auc"], n_positive, n_negative, n_folds=first["fold"].nunique())
    f1_low, f1_high = _f1_interval(predictions, positive, n_bootstrap, seed)
    # Not n_positive + n_negative: a donor may have samples of both classes.
    n = first["donor"].nunique()
    accuracy_low, accuracy_high = intervals.binomial_interval(round(values["accuracy"] * n), n)
    scores = {"auc": values["auc"], "auc low": auc_low, "auc high": auc_high}
    scores |= {"f1": values["f1"], "f1 low": f1_low, "f1 high": f1_high}
    scores |= {"accuracy": values["accuracy"], "accuracy low": accuracy_low, "accuracy high": accuracy_high}
    return scores | {"brier": values["brier"], "n": len(first), "donors": n}


def _f1_interval(predictions: pd.DataFrame, positive: str, n_bootstrap: int, seed: int) -> tuple[float, float]:
    true, predicted = (predictions[column] == positive for column in ("true", "predicted"))
    table = pd.DataFrame(
        {"hit": true & predicted, "both": true.astype(int) + predicted, "donor": predictions["donor"], "true": true}
    )
    donors = table.groupby("donor").agg(hit=("hit", "sum"), both=("both", "sum"), share=("true", "mean"))
    if min((donors["share"] > 0).sum(), (donors["share"] < 1).sum()) < intervals.LEAST_UNITS:
        return np.nan, np.nan
    # Three strata: donors of the positive class, of the other class, and of both.
    strata = np.select([donors["share"] == 1, donors["share"] == 0], [0, 1], 2)
    hit, both = donors["hit"].to_numpy(), donors["both"].to_numpy()
    drawn = intervals.resample_donors(strata, n_bootstrap, np.random.default_rng(seed))
    low, high = np.quantile([2 * hit[rows].sum() / max(both[rows].sum(), 1) for rows in drawn], [0.025, 0.975])
    return float(low), float(high)


def auc_difference(predictions: pd.DataFrame, baseline: pd.DataFrame, positive: str) -> dict[str, float]:
    """Difference in AUC of two models in the same folds: ``difference``, ``low``, ``high``.

    The interval is `intervals.nadeau_bengio_interval`; folds with one class only are left out.
    """
    keys = ["repeat", "fold"]
    by_fold = [
        table.groupby(keys).apply(
            lambda part: roc_auc(part[f"p_{positive}"].to_numpy(), (part["true"] == positive).to_numpy()),
            include_groups=False,
        )
        for table in (predictions, baseline)
    ]
    share = (predictions.groupby(keys).size() / predictions.groupby("repeat").size().iloc[0]).mean()
    mean, low, high = intervals.nadeau_bengio_interval((by_fold[0] - by_fold[1]).to_numpy(), test_share=share)
    # With two folds Student's interval exceeds the range of a difference of AUCs.
    return {"difference": mean, "low": max(low, -1.0), "high": min(high, 1.0)}


def roc_band(predictions: pd.DataFrame, positive: str, *, n_points: int = 101) -> pd.DataFrame:
    """Mean ROC curve over divisions: ``fpr``, ``tpr``, and ``low`` and ``high``.

    The band is the range over divisions, not an interval for the population.
    """
    rates = np.linspace(0, 1, n_points)
    curves = []
    for _, part in predictions.groupby("repeat"):
        fpr, tpr, _ = roc_curve(part["true"] == positive, part[f"p_{positive}"])
        curves.append(np.interp(rates, fpr, tpr))
    curves = np.array(curves)
    table = pd.DataFrame(
        {"fpr": rates, "tpr": curves.mean(axis=0), "low": curves.min(axis=0), "high": curves.max(axis=0)}
    )
    table.loc[0, ["tpr", "low"]] = 0.0
    return table
