"""What predictions of samples in two classes are worth: AUC, F1, accuracy, Brier, with intervals that few samples allow.

Paper A, section III.D reports AUC and F1 without folds, intervals or n.
"""

from collections.abc import Iterator

import numpy as np
import pandas as pd
from scipy import optimize, stats
from sklearn.base import clone
from sklearn.metrics import roc_curve

from epigen_utils import evaluation
from epigen_utils.errors import DataError

#: Of a normal distribution's 95%.
Z = stats.norm.ppf(0.975)


def auc_interval(auc: float, n_positive: int, n_negative: int, *, folds: int = 1) -> tuple[float, float]:
    """95% interval of an AUC that does not shrink to a point at 0 or 1.

    Newcombe 2006 (Stat. Med. 25:559-573, method 5): Hanley and McNeil's variance with its mean sizes, solved for the AUC as Wilson's
    interval is for a share.

    Parameters
    ----------
    folds
        Of the cross-validation: the models of several folds share training samples, which leaves their scores less to average out. The
        variance is multiplied as Nadeau and Bengio (2003) do, by 1 + folds x test size / training size.
    """
    shared = 1 + folds / (folds - 1) if folds > 1 else 1.0
    extra = (n_positive + n_negative) / 2 - 1

    def variance(value: float) -> float:
        spread = 1 + extra * ((1 - value) / (2 - value) + value / (1 + value))
        return shared * value * (1 - value) * spread / (n_positive * n_negative)

    def off(value: float) -> float:
        return abs(auc - value) - Z * np.sqrt(variance(value))

    # Both ends are solutions at an AUC of 0 or 1: the inner one is meant.
    inside = min(max(auc, 1e-9), 1 - 1e-9)
    low = 0.0 if auc <= 0 else optimize.brentq(off, 1e-12, inside)
    high = 1.0 if auc >= 1 else optimize.brentq(off, inside, 1 - 1e-12)
    return float(low), float(high)


def repeated(
    estimator: object, X: object, y: np.ndarray, groups: np.ndarray, *, n_splits: int, n_repeats: int, seed: int, **more
) -> pd.DataFrame:
    """Predict every sample once in each of several divisions into folds.

    Parameters
    ----------
    estimator, X, y, groups, more
        As for `evaluation.cross_validate`.

    Returns
    -------
    As `evaluation.cross_validate`, with the division as ``repeat``.

    Raises
    ------
    DataError
        If there are fewer groups of a class than two folds need.
    """
    parts = []
    for repeat in range(n_repeats):
        found, _ = evaluation.cross_validate(estimator, X, y, groups, n_splits=n_splits, seed=seed + repeat, **more)
        parts.append(found.assign(repeat=repeat))
    return pd.concat(parts, ignore_index=True)


def check_folds(y: np.ndarray, groups: np.ndarray, n_splits: int) -> int:
    """How many folds there can be: no more than the rarest class has groups (donors, or samples).

    Raises
    ------
    DataError
        If there is one class only, more than two, or a class is in one group only.
    """
    pairs = pd.DataFrame({"y": np.asarray(y).astype(str), "group": np.asarray(groups).astype(str)})
    sizes = pairs.drop_duplicates().groupby("y").size()
    if len(sizes) != 2:
        names = ", ".join(sizes.index[:4])
        raise DataError(f"classes: {len(sizes)} ({names}); two are told apart here, give a column with two")
    if sizes.min() < 2:
        raise DataError(
            f"class {sizes.idxmin()!r}: in one fold at most, so that nothing is left to learn it from; give more samples"
        )
    return int(min(n_splits, sizes.min()))


def pooled(predictions: pd.DataFrame, positive: str) -> dict[str, float]:
    """Scores of all out-of-fold predictions of one division: ``auc``, ``f1`` (of the positive class), ``accuracy``, ``brier``.

    The AUC is over pairs of one fold: probabilities of models of different folds are on scales of their own, and pooled they favour
    the class that a fold's training samples were short of, so that even the majority class falls below 0.5 (Forman and Scholz 2010).
    """
    true = (predictions["true"] == positive).to_numpy()
    p = predictions[f"p_{positive}"].to_numpy()
    said = (predictions["predicted"] == positive).to_numpy()
    hits = (said & true).sum()
    return {
        "auc": _auc_within(p, true, predictions["fold"].to_numpy()),
        "f1": float(2 * hits / max(said.sum() + true.sum(), 1)),
        "accuracy": float((said == true).mean()),
        "brier": float(np.square(p - true).mean()),
    }


def _auc_within(p: np.ndarray, true: np.ndarray, folds: np.ndarray) -> float:
    right = pairs = 0.0
    for fold in np.unique(folds):
        some = folds == fold
        n = true[some].sum() * (~true[some]).sum()
        right += n * np.nan_to_num(evaluation.auc(p[some], true[some]))
        pairs += n
    return float(right / pairs) if pairs else np.nan


def pairs_within(predictions: pd.DataFrame, positive: str) -> int:
    """Pairs of a positive and a negative that one fold of the first division holds: what the AUC of one division is a share of."""
    first = predictions[predictions["repeat"] == predictions["repeat"].iloc[0]]
    true = first["true"] == positive
    return int(sum(true[part].sum() * (~true[part]).sum() for part in first.groupby("fold").groups.values()))


def of_repeats(predictions: pd.DataFrame, positive: str, *, n_bootstrap: int = 1000, seed: int = 0) -> dict[str, float]:
    """Scores, means over divisions into folds, with intervals.

    Parameters
    ----------
    predictions
        As `repeated` gives them.

    Returns
    -------
    ``auc``, ``f1``, ``accuracy`` and ``brier``, each but the last with `` low`` and `` high``: `auc_interval`, Clopper and
    Pearson's of the accuracy, both with donors counted once, and a bootstrap over donors within their class for F1; ``n`` and
    ``donors``.
    """
    values = pd.DataFrame([pooled(part, positive) for _, part in predictions.groupby("repeat")]).mean().to_dict()
    first = predictions[predictions["repeat"] == predictions["repeat"].iloc[0]]
    donors = first.groupby("true")["donor"].nunique()
    n_positive, n_negative = int(donors[positive]), int(donors.drop(positive).sum())
    found = {"auc": values["auc"]}
    found["auc low"], found["auc high"] = auc_interval(
        values["auc"], n_positive, n_negative, folds=first["fold"].nunique()
    )
    found["f1"] = values["f1"]
    found["f1 low"], found["f1 high"] = _bootstrapped_f1(predictions, positive, n_bootstrap, seed)
    # One donor's samples may be of both classes.
    n = first["donor"].nunique()
    interval = stats.binomtest(round(values["accuracy"] * n), n).proportion_ci()
    found |= {"accuracy": values["accuracy"], "accuracy low": interval.low, "accuracy high": interval.high}
    return found | {"brier": values["brier"], "n": len(first), "donors": n}


def _bootstrapped_f1(predictions: pd.DataFrame, positive: str, n_bootstrap: int, seed: int) -> tuple[float, float]:
    rng = np.random.default_rng(seed)
    true, said = (predictions[column] == positive for column in ("true", "predicted"))
    table = pd.DataFrame(
        {"hit": true & said, "both": true.astype(int) + said, "donor": predictions["donor"], "true": true}
    )
    donors = table.groupby("donor").agg(hit=("hit", "sum"), both=("both", "sum"), share=("true", "mean"))
    # Donors of one class, of the other, and of both, are drawn among their like.
    members = [
        np.flatnonzero(found)
        for found in (donors["share"] == 1, donors["share"] == 0, donors["share"].between(0, 1, "neither"))
    ]
    members = [some for some in members if len(some)]
    hit, both = donors["hit"].to_numpy(), donors["both"].to_numpy()
    drawn = [np.concatenate([rng.choice(some, len(some)) for some in members]) for _ in range(n_bootstrap)]
    low, high = np.quantile([2 * hit[some].sum() / max(both[some].sum(), 1) for some in drawn], [0.025, 0.975])
    return float(low), float(high)


def corrected_interval(differences: np.ndarray, *, test_share: float) -> tuple[float, float, float]:
    """Mean over folds, of repeated divisions, with a 95% interval that knows that training sets overlap.

    Nadeau and Bengio 2003 (Machine Learning 52:239-281): the variance is (1 / folds + test size / training size) times that of the
    folds' values.

    Parameters
    ----------
    differences
        One value a fold of every division.
    test_share
        Share of the samples that a fold holds out.

    Returns
    -------
    Mean, low, high; without spread both are the mean, and with one fold NaN.
    """
    values = np.asarray(differences, float)
    values = values[np.isfinite(values)]
    if len(values) < 2:
        return (float(values.mean()) if len(values) else np.nan), np.nan, np.nan
    scale = np.sqrt((1 / len(values) + test_share / (1 - test_share)) * values.var(ddof=1))
    half = stats.t.ppf(0.975, len(values) - 1) * scale
    return float(values.mean()), float(values.mean() - half), float(values.mean() + half)


def beside(one: pd.DataFrame, other: pd.DataFrame, positive: str) -> dict[str, float]:
    """How much better one model is than another in the same folds, by AUC: ``difference``, ``low``, ``high`` (`corrected_interval`).

    Folds that hold one class only say nothing and are left out.
    """
    keys = ["repeat", "fold"]
    by_fold = [
        found.groupby(keys).apply(
            lambda part: evaluation.auc(part[f"p_{positive}"].to_numpy(), (part["true"] == positive).to_numpy()),
            include_groups=False,
        )
        for found in (one, other)
    ]
    share = (one.groupby(keys).size() / one.groupby("repeat").size().iloc[0]).mean()
    mean, low, high = corrected_interval((by_fold[0] - by_fold[1]).to_numpy(), test_share=share)
    # With two folds Student's interval is wider than a difference can be.
    return {"difference": mean, "low": max(low, -1.0), "high": min(high, 1.0)}


def roc_band(predictions: pd.DataFrame, positive: str, *, grid: int = 101) -> pd.DataFrame:
    """ROC curves of the divisions: ``fpr``, ``tpr`` (mean), ``low`` and ``high`` (of the divisions, no interval of the population)."""
    places = np.linspace(0, 1, grid)
    curves = []
    for _, part in predictions.groupby("repeat"):
        fpr, tpr, _ = roc_curve(part["true"] == positive, part[f"p_{positive}"])
        curves.append(np.interp(places, fpr, tpr))
    curves = np.array(curves)
    table = pd.DataFrame(
        {"fpr": places, "tpr": curves.mean(axis=0), "low": curves.min(axis=0), "high": curves.max(axis=0)}
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
    """AUC of the same pipeline on shuffled labels, one a labeling.

    Parameters
    ----------
    within
        Batches that labels stay in; by default donors exchange theirs (`evaluation.labelings`).
    """
    blocks = groups if within is None else within
    found = []
    for new in evaluation.labelings(np.asarray(y), donors=blocks, n_permutations=n_permutations, seed=seed):
        truth, _ = evaluation.cross_validate(clone(estimator), X, new, groups, n_splits=n_splits, seed=seed, **more)
        found.append(pooled(truth, positive)["auc"])
    return np.array(found)


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
    """AUC on held-out groups against the samples of a class that are learned from.

    Parameters
    ----------
    sizes
        Samples of each class; 0 for all there are. Smaller sets are parts of larger ones.

    Returns
    -------
    A row a model, size and fold: ``model``, ``per class`` (for 0 what every fold has of the rarer class), ``samples``, ``fold``, ``auc``.
    """
    rows, folds = [], list(evaluation.donor_folds(y, groups, n_splits=n_splits, seed=seed))
    every = min(np.unique(y[train], return_counts=True)[1].min() for train, _ in folds)
    for fold, (train, test) in enumerate(folds):
        for size, some in _nested(y, train, sizes, int(every), np.random.default_rng([seed, fold])):
            for name, estimator in estimators.items():
                model = clone(estimator).fit(X[some], y[some])
                p = evaluation.probability_of(model, X[test], positive)
                row = {"model": name, "per class": size, "samples": len(some), "fold": fold}
                rows.append(row | {"auc": evaluation.auc(p, y[test] == positive)})
    return pd.DataFrame(rows)


def learning_in_words(curve: pd.DataFrame, *, ours: str) -> str:
    """What `learning_curve` says with the fewest and with all samples, of one model and of the best of the others."""
    means = curve.groupby(["model", "per class"])["auc"].mean().unstack()
    few, many = means.iloc[:, 0], means.iloc[:, -1]
    most = curve.loc[curve["per class"] == means.columns[-1], "samples"].mean()
    return (
        f"With {means.columns[0]} samples of each class {ours} has an AUC of {few[ours]:.2f}, the better of the plain models "
        f"{few.drop(ours).max():.2f}; with {means.columns[-1]} of the rarer class, {most:.0f} samples in all, "
        f"{many[ours]:.2f} and {many.drop(ours).max():.2f}."
    )


def _nested(
    y: np.ndarray, train: np.ndarray, sizes: list[int], every: int, rng: np.random.Generator
) -> Iterator[tuple[int, np.ndarray]]:
    orders = [rng.permutation(train[y[train] == name]) for name in sorted(set(y))]
    for size in sizes:
        if size <= every:
            yield size or every, np.sort(np.concatenate([order[: size or None] for order in orders]))


def over_cohorts(table: pd.DataFrame, by: list[str], value: str) -> pd.DataFrame:
    """Means over independent cohorts with Student's 95% interval, inside [0, 1].

    Returns
    -------
    A row a group: the columns of ``by``, ``value``'s, the same with `` low`` and `` high``, and ``cohorts``.
    """
    rows = []
    for key, found in table.groupby(by, sort=False):
        mean, low, high = over_seeds(found[value].to_numpy())
        row = {value: mean, f"{value} low": max(low, 0.0), f"{value} high": min(high, 1.0)}
        rows.append(dict(zip(by, key, strict=True)) | row | {"cohorts": len(found)})
    return pd.DataFrame(rows)


def over_seeds(values: np.ndarray) -> tuple[float, float, float]:
    """Mean over independent cohorts with Student's 95% interval."""
    values = np.asarray(values, float)
    half = (
        stats.t.ppf(0.975, len(values) - 1) * values.std(ddof=1) / np.sqrt(len(values)) if len(values) > 1 else np.nan
    )
    return float(values.mean()), float(values.mean() - half), float(values.mean() + half)
