"""Two-class metrics of predictions of samples (AUC, F1, accuracy, Brier score), with small-sample intervals.

Paper A, section III.D reports AUC and F1 without folds, intervals or n.
"""

from collections.abc import Iterator

import numpy as np
import pandas as pd
from scipy.optimize import brentq
from scipy.stats import binomtest, norm
from scipy.stats import t as student
from sklearn.base import clone
from sklearn.metrics import roc_curve

from epigen_utils import evaluation
from epigen_utils.errors import DataError

#: Half-width of a 95% interval of the standard normal distribution.
Z = norm.ppf(0.975)


def auc_interval(auc: float, n_positive: int, n_negative: int, *, folds: int = 1) -> tuple[float, float]:
    """95% interval of an AUC that does not shrink to a point at 0 or 1.

    Newcombe 2006 (Stat. Med. 25:559-573, method 5): Hanley and McNeil's variance with both class sizes replaced by
    their mean, inverted for the AUC as Wilson's interval is for a proportion.

    Parameters
    ----------
    folds
        Number of cross-validation folds. The models of several folds share training samples, so the variance is
        multiplied by 1 + folds x test size / training size (after Nadeau and Bengio 2003).
    """
    correction = 1 + folds / (folds - 1) if folds > 1 else 1.0
    extra = (n_positive + n_negative) / 2 - 1

    def variance(value: float) -> float:
        spread = 1 + extra * ((1 - value) / (2 - value) + value / (1 + value))
        return correction * value * (1 - value) * spread / (n_positive * n_negative)

    def excess(value: float) -> float:
        return abs(auc - value) - Z * np.sqrt(variance(value))

    # At an AUC of 0 or 1 that limit itself solves the equation; the interval needs the inner solution.
    inside = min(max(auc, 1e-9), 1 - 1e-9)
    low = 0.0 if auc <= 0 else brentq(excess, 1e-12, inside)
    high = 1.0 if auc >= 1 else brentq(excess, inside, 1 - 1e-12)
    return float(low), float(high)


def repeated(
    estimator: object, X: object, y: np.ndarray, groups: np.ndarray, *, n_splits: int, n_repeats: int, seed: int, **more
) -> pd.DataFrame:
    """Out-of-fold predictions of every sample in several divisions into folds.

    Parameters
    ----------
    estimator, X, y, groups, more
        Arguments of `evaluation.cross_validate`.

    Returns
    -------
    The predictions of `evaluation.cross_validate`, with the number of the division as ``repeat``.

    Raises
    ------
    DataError
        If a class has fewer groups than two folds need.
    """
    parts = []
    for repeat in range(n_repeats):
        predictions, _ = evaluation.cross_validate(
            estimator, X, y, groups, n_splits=n_splits, seed=seed + repeat, **more
        )
        parts.append(predictions.assign(repeat=repeat))
    return pd.concat(parts, ignore_index=True)


def check_folds(y: np.ndarray, groups: np.ndarray, n_splits: int) -> int:
    """Feasible number of folds: ``n_splits``, or the number of groups (donors, or samples) of the rarest class if less.

    Raises
    ------
    DataError
        If there are not exactly two classes, or a class is in one group only.
    """
    pairs = pd.DataFrame({"y": np.asarray(y).astype(str), "group": np.asarray(groups).astype(str)})
    sizes = pairs.drop_duplicates().groupby("y").size()
    if len(sizes) != 2:
        names = ", ".join(sizes.index[:4])
        raise DataError(f"classes: {len(sizes)} ({names}); two are told apart here, give a column with two")
    if sizes.min() < 2:
        raise DataError(
            f"class {sizes.idxmin()!r}: in one fold at most, so that nothing is left to learn it from; "
            "give more samples"
        )
    return int(min(n_splits, sizes.min()))


def pooled(predictions: pd.DataFrame, positive: str) -> dict[str, float]:
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
        "auc": _auc_within(p, true, predictions["fold"].to_numpy()),
        "f1": float(2 * hits / max(predicted.sum() + true.sum(), 1)),
        "accuracy": float((predicted == true).mean()),
        "brier": float(np.square(p - true).mean()),
    }


def _auc_within(p: np.ndarray, true: np.ndarray, fold_of: np.ndarray) -> float:
    concordant = pairs = 0.0
    for fold in np.unique(fold_of):
        inside = fold_of == fold
        n = true[inside].sum() * (~true[inside]).sum()
        concordant += n * np.nan_to_num(evaluation.auc(p[inside], true[inside]))
        pairs += n
    return float(concordant / pairs) if pairs else np.nan


def pairs_within(predictions: pd.DataFrame, positive: str) -> int:
    """Number of pairs of a positive and a negative within a fold, over the folds of the first division.

    It is the denominator of the AUC of one division (`pooled`).
    """
    first = predictions[predictions["repeat"] == predictions["repeat"].iloc[0]]
    true = first["true"] == positive
    return int(sum(true[part].sum() * (~true[part]).sum() for part in first.groupby("fold").groups.values()))


def of_repeats(predictions: pd.DataFrame, positive: str, *, n_bootstrap: int = 1000, seed: int = 0) -> dict[str, float]:
    """Scores, averaged over divisions into folds, with 95% intervals in which the donor is the unit.

    Parameters
    ----------
    predictions
        Table of `repeated`.

    Returns
    -------
    ``auc``, ``f1``, ``accuracy``, ``brier``, ``n`` (samples) and ``donors``; the first three also with `` low`` and
    `` high``: `auc_interval`, bootstrap over donors within their class, and Clopper and Pearson's.
    """
    values = pd.DataFrame([pooled(part, positive) for _, part in predictions.groupby("repeat")]).mean().to_dict()
    first = predictions[predictions["repeat"] == predictions["repeat"].iloc[0]]
    donors = first.groupby("true")["donor"].nunique()
    n_positive, n_negative = int(donors[positive]), int(donors.drop(positive).sum())
    auc_low, auc_high = auc_interval(values["auc"], n_positive, n_negative, folds=first["fold"].nunique())
    f1_low, f1_high = _bootstrapped_f1(predictions, positive, n_bootstrap, seed)
    # Not n_positive + n_negative: a donor may have samples of both classes.
    n = first["donor"].nunique()
    interval = binomtest(round(values["accuracy"] * n), n).proportion_ci()
    scores = {"auc": values["auc"], "auc low": auc_low, "auc high": auc_high}
    scores |= {"f1": values["f1"], "f1 low": f1_low, "f1 high": f1_high}
    scores |= {"accuracy": values["accuracy"], "accuracy low": interval.low, "accuracy high": interval.high}
    return scores | {"brier": values["brier"], "n": len(first), "donors": n}


def _bootstrapped_f1(predictions: pd.DataFrame, positive: str, n_bootstrap: int, seed: int) -> tuple[float, float]:
    true, predicted = (predictions[column] == positive for column in ("true", "predicted"))
    table = pd.DataFrame(
        {"hit": true & predicted, "both": true.astype(int) + predicted, "donor": predictions["donor"], "true": true}
    )
    donors = table.groupby("donor").agg(hit=("hit", "sum"), both=("both", "sum"), share=("true", "mean"))
    # Three strata: donors of the positive class, of the other class, and of both.
    strata = np.select([donors["share"] == 1, donors["share"] == 0], [0, 1], 2)
    hit, both = donors["hit"].to_numpy(), donors["both"].to_numpy()
    drawn = evaluation.resample_donors(strata, n_bootstrap, np.random.default_rng(seed))
    low, high = np.quantile([2 * hit[rows].sum() / max(both[rows].sum(), 1) for rows in drawn], [0.025, 0.975])
    return float(low), float(high)


def corrected_interval(differences: np.ndarray, *, test_share: float) -> tuple[float, float, float]:
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
    """
    values = np.asarray(differences, float)
    values = values[np.isfinite(values)]
    if len(values) < 2:
        return (float(values.mean()) if len(values) else np.nan), np.nan, np.nan
    scale = np.sqrt((1 / len(values) + test_share / (1 - test_share)) * values.var(ddof=1))
    half = student.ppf(0.975, len(values) - 1) * scale
    return float(values.mean()), float(values.mean() - half), float(values.mean() + half)


def beside(one: pd.DataFrame, other: pd.DataFrame, positive: str) -> dict[str, float]:
    """Difference in AUC of two models in the same folds: ``difference``, ``low``, ``high`` (`corrected_interval`).

    Folds with one class only are left out.
    """
    keys = ["repeat", "fold"]
    by_fold = [
        table.groupby(keys).apply(
            lambda part: evaluation.auc(part[f"p_{positive}"].to_numpy(), (part["true"] == positive).to_numpy()),
            include_groups=False,
        )
        for table in (one, other)
    ]
    share = (one.groupby(keys).size() / one.groupby("repeat").size().iloc[0]).mean()
    mean, low, high = corrected_interval((by_fold[0] - by_fold[1]).to_numpy(), test_share=share)
    # With two folds Student's interval exceeds the range of a difference of AUCs.
    return {"difference": mean, "low": max(low, -1.0), "high": min(high, 1.0)}


def roc_band(predictions: pd.DataFrame, positive: str, *, grid: int = 101) -> pd.DataFrame:
    """Mean ROC curve over divisions: ``fpr``, ``tpr``, and ``low`` and ``high``.

    The band is the range over divisions, not an interval for the population.
    """
    rates = np.linspace(0, 1, grid)
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


def shuffled(
    estimator: object,
    X: object,
    y: np.ndarray,
    groups: np.ndarray,
    positive: str,
    *,
    n_splits: int,
    n_permutations: int,
    seed: int,
    within: np.ndarray | None = None,
    **more,
) -> np.ndarray:
    """AUC of the same pipeline for each permutation of the labels, shape (permutations,).

    Parameters
    ----------
    within
        Batches within which labels are permuted; by default donors exchange theirs (`evaluation.labelings`).
    """
    blocks = groups if within is None else within
    aucs = []
    for permuted in evaluation.labelings(np.asarray(y), donors=blocks, n_permutations=n_permutations, seed=seed):
        predictions, _ = evaluation.cross_validate(
            clone(estimator), X, permuted, groups, n_splits=n_splits, seed=seed, **more
        )
        aucs.append(pooled(predictions, positive)["auc"])
    return np.array(aucs)


def learning_curve(
    estimators: dict[str, object],
    X: np.ndarray,
    y: np.ndarray,
    groups: np.ndarray,
    positive: str,
    *,
    sizes: list[int],
    n_splits: int,
    seed: int,
) -> pd.DataFrame:
    """AUC on held-out groups as a function of the number of training samples of each class.

    Parameters
    ----------
    sizes
        Training samples of each class; 0 for all. Smaller sets are subsets of larger ones.

    Returns
    -------
    A row a model, size and fold: ``model``, ``per class`` (for size 0 the smallest number of samples of the rarer class
    in any training fold), ``samples``, ``fold``, ``auc``.
    """
    rows, splits = [], list(evaluation.donor_folds(y, groups, n_splits=n_splits, seed=seed))
    largest = min(np.unique(y[train], return_counts=True)[1].min() for train, _ in splits)
    for fold, (train, test) in enumerate(splits):
        for size, subset in _nested(y, train, sizes, int(largest), np.random.default_rng([seed, fold])):
            for name, estimator in estimators.items():
                model = clone(estimator).fit(X[subset], y[subset])
                p = evaluation.probability_of(model, X[test], positive)
                row = {"model": name, "per class": size, "samples": len(subset), "fold": fold}
                rows.append(row | {"auc": evaluation.auc(p, y[test] == positive)})
    return pd.DataFrame(rows)


def learning_in_words(curve: pd.DataFrame, *, ours: str) -> str:
    """A sentence on `learning_curve`: AUC with the fewest and with all samples, of one model and the best other one."""
    means = curve.groupby(["model", "per class"])["auc"].mean().unstack()
    few, many = means.iloc[:, 0], means.iloc[:, -1]
    most = curve.loc[curve["per class"] == means.columns[-1], "samples"].mean()
    return (
        f"With {means.columns[0]} samples of each class {ours} has an AUC of {few[ours]:.2f}, the better of the plain "
        f"models {few.drop(ours).max():.2f}; with {means.columns[-1]} of the rarer class, {most:.0f} samples in all, "
        f"{many[ours]:.2f} and {many.drop(ours).max():.2f}."
    )


def _nested(
    y: np.ndarray, train: np.ndarray, sizes: list[int], largest: int, rng: np.random.Generator
) -> Iterator[tuple[int, np.ndarray]]:
    orders = [rng.permutation(train[y[train] == name]) for name in sorted(set(y))]
    for size in sizes:
        if size <= largest:
            yield size or largest, np.sort(np.concatenate([order[: size or None] for order in orders]))


def over_cohorts(table: pd.DataFrame, by: list[str], value: str) -> pd.DataFrame:
    """Means over independent cohorts with Student's 95% interval, truncated to [0, 1].

    Returns
    -------
    A row a group: the columns of ``by``, that of ``value``, the same with `` low`` and `` high``, and ``cohorts``.
    """
    rows = []
    for key, part in table.groupby(by, sort=False):
        mean, low, high = over_seeds(part[value].to_numpy())
        row = {value: mean, f"{value} low": max(low, 0.0), f"{value} high": min(high, 1.0)}
        rows.append(dict(zip(by, key, strict=True)) | row | {"cohorts": len(part)})
    return pd.DataFrame(rows)


def over_seeds(values: np.ndarray) -> tuple[float, float, float]:
    """Mean over independent cohorts with Student's 95% interval: mean, low, high."""
    values = np.asarray(values, float)
    half = (
        student.ppf(0.975, len(values) - 1) * values.std(ddof=1) / np.sqrt(len(values)) if len(values) > 1 else np.nan
    )
    return float(values.mean()), float(values.mean() - half), float(values.mean() + half)
