"""Donor-wise cross-validation: held-out donors, folds, and repeated divisions into folds."""

from collections.abc import Iterator

import numpy as np
import pandas as pd
from sklearn.base import clone
from sklearn.metrics import f1_score
from sklearn.model_selection import GroupKFold, StratifiedGroupKFold

from epigen_utils.errors import DataError
from epigen_utils.stats import permutation


def hold_out(groups: np.ndarray, *, share: float, seed: int) -> np.ndarray:
    """Mask of held-out rows: whole groups (donors), drawn at random until they make up a share of the rows.

    Raises
    ------
    DataError
        If there are fewer than two groups.
    """
    codes, names = pd.factorize(np.asarray(groups))
    if len(names) < 2:
        raise DataError(f"hold-out: all {len(codes)} rows are of one group; name donors, or give more of them")
    order = np.random.default_rng(seed).permutation(len(names))
    sizes = np.bincount(codes)[order]
    enough = 1 + int(np.searchsorted(np.cumsum(sizes), share * len(codes)))
    return np.isin(codes, order[: min(enough, len(names) - 1)])


def check_donors(labels: np.ndarray, donors: np.ndarray, *, per_donor: bool) -> None:
    """Require at least two classes, and at least two donors in each.

    Parameters
    ----------
    per_donor
        Whether labels belong to donors (a disease) rather than to cells (a cell type).

    Raises
    ------
    DataError
        If there is one class only, a class has one donor only, or, with ``per_donor``, a donor is in two classes.
    """
    labels, donors = (np.asarray(values).astype(str) for values in (labels, donors))
    pairs = pd.DataFrame({"label": labels, "donor": donors}).drop_duplicates()
    if pairs["label"].nunique() < 2:
        raise DataError(f"classes: all cells are '{labels[0]}'; give a column with two classes or more")
    per_class = pairs.groupby("label")["donor"].agg(["size", "first"])
    if len(lonely := per_class[per_class["size"] == 1]):
        donor = lonely["first"].iloc[0]
        raise DataError(
            f"class {lonely.index[0]!r}: has one donor, {donor!r}, who cannot be in both the training and the test "
            "fold; give more donors, or leave the class out"
        )
    if per_donor and (repeated := pairs["donor"].duplicated(keep=False)).any():
        donor = pairs.loc[repeated, "donor"].iloc[0]
        kinds = " and ".join(repr(label) for label in pairs.loc[pairs["donor"] == donor, "label"])
        raise DataError(f"donor {donor!r}: has cells of {kinds}; correct the column, or say that labels are of cells")


def cross_validate(
    estimator: object,
    X: object,
    y: np.ndarray,
    groups: np.ndarray,
    *,
    n_splits: int = 5,
    n_permutations: int = 0,
    per_donor: bool = True,
    seed: int = 0,
) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Out-of-fold predictions with donor-wise folds, optionally repeated with permuted labels.

    Parameters
    ----------
    estimator
        Has scikit-learn's ``fit`` and ``predict_proba``; a clone is fitted, and tuned, within each training fold.
    X
        Rows that can be indexed by position; a matrix, or the positions of encoded cells.
    groups
        Donors; `donor_folds` divides them.
    n_permutations
        Permutations of the labels (donors exchange theirs) for which the whole cross-validation is repeated.
    per_donor
        Whether labels belong to donors (`check_donors`).

    Returns
    -------
    Predictions, a row a cell: ``row``, ``fold``, ``donor``, ``true``, ``predicted`` and ``p_<class>``.

    Scores, a row a permutation: ``permutation`` (0: the observed labels), ``accuracy`` and ``macro_f1`` of the pooled
    predictions, and ``p`` of macro-F1 (`permutation.pvalue`; NaN without permutations).

    Raises
    ------
    DataError
        If `check_donors` or `donor_folds` refuses the labels.

    Examples
    --------
    >>> import numpy as np
    >>> from sklearn.linear_model import LogisticRegression
    >>> from epigen_utils.stats import folds
    >>> y = np.repeat(["KO", "WT"], 6)
    >>> donors = np.repeat(np.arange(6), 2)
    >>> X = np.random.default_rng(0).normal(size=(12, 3)) + 2.0 * (y == "KO")[:, None]
    >>> predictions, scores = folds.cross_validate(LogisticRegression(), X, y, donors, n_splits=3, n_permutations=9)
    >>> predictions.head(2)
       row  fold donor true predicted      p_KO      p_WT
    0    0     0     0   KO        KO  0.949736  0.050264
    1    1     0     0   KO        KO  0.906755  0.093245
    >>> scores.head(1)
       permutation  accuracy  macro_f1    p
    0            0  0.916667  0.916084  0.2
    """
    y, groups = (np.asarray(values).astype(str) for values in (y, groups))
    check_donors(y, groups, per_donor=per_donor)
    predictions = _out_of_fold_predictions(estimator, X, y, groups, n_splits, seed)
    rows = [_accuracy_and_macro_f1(predictions)]
    if n_permutations:
        for permuted in permutation.permuted_labels(y, donors=groups, n_permutations=n_permutations, seed=seed):
            rows.append(
                _accuracy_and_macro_f1(_out_of_fold_predictions(estimator, X, permuted, groups, n_splits, seed))
            )
    table = pd.DataFrame(rows).rename_axis("permutation").reset_index()
    table["p"] = permutation.pvalue(table["macro_f1"][0], table["macro_f1"][1:]) if n_permutations else np.nan
    return predictions, table


def predict_held_out(estimator: object, X: object, y: np.ndarray, groups: np.ndarray, test: np.ndarray) -> pd.DataFrame:
    """Fit on the training cells and predict the test cells; columns of `cross_validate` without ``fold``.

    Parameters
    ----------
    test
        Mask of the test cells.
    """
    y, groups = (np.asarray(values).astype(str) for values in (y, groups))
    return _fit_and_predict(estimator, X, y, groups, np.flatnonzero(~test), np.flatnonzero(test), sorted(set(y)))


def donor_folds(
    y: np.ndarray, groups: np.ndarray, *, n_splits: int, seed: int
) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Training and test positions of donor-wise folds, stratified by class as far as donors allow.

    There are at most as many folds as the rarest class has donors; every training fold contains all classes.

    Raises
    ------
    DataError
        If no division was found in which every training fold contains all classes.

    Examples
    --------
    >>> import numpy as np
    >>> from epigen_utils.stats import folds
    >>> y = np.array(["WT", "WT", "WT", "KO", "KO", "KO"])
    >>> donors = np.array(["a", "a", "b", "c", "d", "d"])
    >>> for train, test in folds.donor_folds(y, donors, n_splits=2, seed=0):
    ...     print(donors[train].tolist(), donors[test].tolist())
    ['a', 'a', 'c'] ['b', 'd', 'd']
    ['b', 'd', 'd'] ['a', 'a', 'c']
    """
    donors = pd.DataFrame({"y": y, "group": groups}).drop_duplicates().groupby("y").size()
    n_splits, n_classes = min(n_splits, int(donors.min()), len(set(groups))), len(donors)
    shuffled = {"n_splits": n_splits, "shuffle": True}
    # A seed gives one stratified division; where it leaves a class out of a training fold, unstratified ones are drawn.
    splitters = [StratifiedGroupKFold(**shuffled, random_state=seed)] if n_splits > 1 else []
    splitters += [GroupKFold(**shuffled, random_state=seed + i) for i in range(20 * len(splitters))]
    for splitter in splitters:
        splits = list(splitter.split(np.zeros(len(y)), y, groups))
        if all(len(np.unique(y[train])) == n_classes for train, _ in splits):
            yield from splits
            return
    raise DataError("folds: the donors, or experiments, leave a class without training samples; give more of them")


def fewest_donors(y: np.ndarray, groups: np.ndarray) -> int:
    """Number of donors of the class that has fewest; `donor_folds` makes at most as many folds."""
    return int(pd.DataFrame({"y": y, "group": groups}).drop_duplicates().groupby("y").size().min())


def some_donors(y: np.ndarray, groups: np.ndarray, level: str, *, most: int) -> list[str]:
    """Donors to hold out, first by name: at most ``most`` and half of those with rows of a class."""
    names = sorted(set(groups[y == level]))
    return names[: max(1, min(most, len(names) // 2))]


def class_probability(model: object, X: object, name: str) -> np.ndarray:
    """Probability of one class by a fitted classifier, shape (rows,)."""
    return model.predict_proba(X)[:, list(model.classes_).index(name)]


def _accuracy_and_macro_f1(predictions: pd.DataFrame) -> dict[str, float]:
    true, predicted = predictions["true"], predictions["predicted"]
    return {
        "accuracy": float((true == predicted).mean()),
        "macro_f1": float(f1_score(true, predicted, average="macro")),
    }


def _out_of_fold_predictions(
    estimator: object, X: object, y: np.ndarray, groups: np.ndarray, n_splits: int, seed: int
) -> pd.DataFrame:
    names, parts = sorted(set(y)), []
    for fold, (train, test) in enumerate(donor_folds(y, groups, n_splits=n_splits, seed=seed)):
        part = _fit_and_predict(estimator, X, y, groups, train, test, names)
        part.insert(1, "fold", fold)
        parts.append(part)
    return pd.concat(parts).sort_values("row", ignore_index=True)


def _fit_and_predict(
    estimator: object,
    X: object,
    y: np.ndarray,
    groups: np.ndarray,
    train: np.ndarray,
    test: np.ndarray,
    names: list[str],
) -> pd.DataFrame:
    model = clone(estimator).fit(X[train], y[train])
    p = pd.DataFrame(model.predict_proba(X[test]), columns=list(model.classes_)).reindex(columns=names, fill_value=0.0)
    predictions = {"row": test, "donor": groups[test], "true": y[test], "predicted": p.idxmax(axis=1)}
    return pd.DataFrame(predictions).join(p.add_prefix("p_"))


def repeat_cross_validation(
    estimator: object,
    X: object,
    y: np.ndarray,
    groups: np.ndarray,
    *,
    n_splits: int,
    n_repeats: int,
    seed: int,
    **options,
) -> pd.DataFrame:
    """Out-of-fold predictions of every sample in several divisions into folds.

    Parameters
    ----------
    estimator, X, y, groups, options
        Arguments of `cross_validate`.

    Returns
    -------
    The predictions of `cross_validate`, with the number of the division as ``repeat``.

    Raises
    ------
    DataError
        If a class has fewer groups than two folds need.
    """
    parts = []
    for repeat in range(n_repeats):
        predictions, _ = cross_validate(estimator, X, y, groups, n_splits=n_splits, seed=seed + repeat, **options)
        parts.append(predictions.assign(repeat=repeat))
    return pd.concat(parts, ignore_index=True)


def feasible_n_splits(y: np.ndarray, groups: np.ndarray, n_splits: int) -> int:
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
        raise DataError(f"classes: {len(sizes)} ({names}); this needs exactly two, give a column with two")
    if sizes.min() < 2:
        raise DataError(
            f"class {sizes.idxmin()!r}: in one fold at most, so that nothing is left to learn it from; "
            "give more samples"
        )
    return int(min(n_splits, sizes.min()))
