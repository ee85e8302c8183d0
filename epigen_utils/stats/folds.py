"""Donor-wise cross-validation, permutation tests, intervals, and the values that a score can attain."""

import itertools
import math
from collections.abc import Callable, Iterator

import numpy as np
import pandas as pd
from scipy.cluster.hierarchy import fcluster
from scipy.stats import false_discovery_control, hypergeom, rankdata
from sklearn.base import clone
from sklearn.metrics import adjusted_rand_score, f1_score, silhouette_score
from sklearn.model_selection import GroupKFold, StratifiedGroupKFold

from epigen_utils import embedding
from epigen_utils.errors import DataError


def labelings(
    labels: np.ndarray, *, donors: np.ndarray | None = None, n_permutations: int = 999, seed: int = 0
) -> Iterator[np.ndarray]:
    """Permuted labels in the order of `permutation_pvalue`, which documents the parameters and errors."""
    units, blocks, codes = _blocks(np.asarray(labels), donors)
    n_others = _n_others(units, blocks)
    if not n_others:
        raise DataError(
            "permutation test: donors and groups leave one permutation only; give more donors, or leave donor out"
        )
    if n_others <= n_permutations:
        permutations = (permuted for permuted in _all_labelings(units, blocks) if not np.array_equal(permuted, units))
    else:
        permutations = _shuffled_labelings(units, blocks, n_permutations, np.random.default_rng(seed))
    yield from (permuted if codes is None else permuted[codes] for permuted in permutations)


def permutation_pvalue(
    score: Callable[[np.ndarray], float],
    labels: np.ndarray,
    *,
    donors: np.ndarray | None = None,
    n_permutations: int = 999,
    seed: int = 0,
) -> tuple[float, float, np.ndarray]:
    """One-sided permutation test of a score of labels.

    All distinct permutations are enumerated if there are at most ``n_permutations + 1``; otherwise ``n_permutations``
    are drawn at random. `pvalue` gives p.

    Parameters
    ----------
    score
        Maps an array of labels to a number; larger is more extreme.
    labels
        Label of each sample.
    donors
        Donor of each sample. If every donor has samples of one label only, donors exchange labels and the samples of a
        donor stay together; otherwise labels are permuted within donors.

    Returns
    -------
    The observed score, p, and the scores of the m permutations, shape (m,).

    Raises
    ------
    DataError
        If the design allows no permutation other than the observed labels.
    """
    observed = score(np.asarray(labels))
    permutations = labelings(labels, donors=donors, n_permutations=n_permutations, seed=seed)
    null = np.array([score(permuted) for permuted in permutations])
    return observed, pvalue(observed, null), null


def pvalue(observed: float, null: np.ndarray) -> float:
    """One-sided p = (b + 1) / (m + 1), b of m null scores being at least the observed one (Phipson and Smyth 2010)."""
    return float(((null >= observed - 1e-12).sum() + 1) / (len(null) + 1))


def n_labelings(labels: np.ndarray, donors: np.ndarray | None = None) -> int:
    """Number of permutations, by the rules of `permutation_pvalue`, that differ from the observed labels."""
    units, blocks, _ = _blocks(np.asarray(labels), donors)
    return _n_others(units, blocks)


def _n_others(units: np.ndarray, blocks: list[np.ndarray]) -> int:
    return math.prod(_n_arrangements(units[index]) for index in blocks) - 1


def _blocks(labels: np.ndarray, donors: np.ndarray | None) -> tuple[np.ndarray, list[np.ndarray], np.ndarray | None]:
    """Labels of the exchangeable units, blocks of units, and, if the units are donors, the donor of each sample."""
    codes = np.zeros(len(labels), int) if donors is None else np.unique(donors, return_inverse=True)[1]
    members = [np.flatnonzero(codes == code) for code in range(codes.max() + 1)]
    if donors is None or any(len(set(labels[index])) > 1 for index in members):
        return labels, members, None
    return np.array([labels[index[0]] for index in members]), [np.arange(len(members))], codes


def _n_arrangements(labels: np.ndarray) -> int:
    sizes = np.unique(labels, return_counts=True)[1]
    return math.factorial(len(labels)) // math.prod(math.factorial(size) for size in sizes)


def _arrangements(labels: list):
    """Distinct orders of a multiset, by choosing the positions of each label in turn."""
    if len(set(labels)) <= 1:
        yield list(labels)
        return
    first = labels[0]
    rest = [label for label in labels if label != first]
    for positions in itertools.combinations(range(len(labels)), len(labels) - len(rest)):
        for others in _arrangements(rest):
            remaining = iter(others)
            yield [first if i in positions else next(remaining) for i in range(len(labels))]


def _all_labelings(labels: np.ndarray, members: list[np.ndarray]):
    for choice in itertools.product(*(list(_arrangements(list(labels[index]))) for index in members)):
        permuted = labels.copy()
        for index, values in zip(members, choice, strict=True):
            permuted[index] = values
        yield permuted


def _shuffled_labelings(labels: np.ndarray, members: list[np.ndarray], n: int, rng: np.random.Generator):
    for _ in range(n):
        permuted = labels.copy()
        for index in members:
            permuted[index] = rng.permutation(labels[index])
        yield permuted


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
            f"class {lonely.index[0]!r}: has one donor, {donor!r}, who cannot be learned from and tested on; "
            "give more donors, or leave the class out"
        )
    if per_donor and (repeated := pairs["donor"].duplicated(keep=False)).any():
        donor = pairs.loc[repeated, "donor"].iloc[0]
        kinds = " and ".join(repr(label) for label in pairs.loc[pairs["donor"] == donor, "label"])
        raise DataError(f"donor {donor!r}: has cells of {kinds}; mend the column, or say that labels are of cells")


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
    """Out-of-fold predictions, with folds of whole donors, optionally repeated with permuted labels.

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

    Scores, a row a labeling: ``labeling`` (0 is the observed one), ``accuracy`` and ``macro_f1`` of the pooled
    predictions, and ``p`` of macro-F1 (`pvalue`; NaN without permutations).

    Raises
    ------
    DataError
        If `check_donors` or `donor_folds` refuses the labels.
    """
    y, groups = (np.asarray(values).astype(str) for values in (y, groups))
    check_donors(y, groups, per_donor=per_donor)
    predictions = _out_of_fold(estimator, X, y, groups, n_splits, seed)
    rows = [_pooled(predictions)]
    if n_permutations:
        for permuted in labelings(y, donors=groups, n_permutations=n_permutations, seed=seed):
            rows.append(_pooled(_out_of_fold(estimator, X, permuted, groups, n_splits, seed)))
    table = pd.DataFrame(rows).rename_axis("labeling").reset_index()
    table["p"] = pvalue(table["macro_f1"][0], table["macro_f1"][1:]) if n_permutations else np.nan
    return predictions, table


def predict_once(estimator: object, X: object, y: np.ndarray, groups: np.ndarray, test: np.ndarray) -> pd.DataFrame:
    """Fit on the training cells and predict the test cells; columns of `cross_validate` without ``fold``.

    Parameters
    ----------
    test
        Mask of the test cells.
    """
    y, groups = (np.asarray(values).astype(str) for values in (y, groups))
    return _predicted(estimator, X, y, groups, np.flatnonzero(~test), np.flatnonzero(test), sorted(set(y)))


def donor_folds(
    y: np.ndarray, groups: np.ndarray, *, n_splits: int, seed: int
) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Training and test positions of folds of whole donors, stratified by class as far as donors allow.

    There are at most as many folds as the rarest class has donors; every training fold contains all classes.

    Raises
    ------
    DataError
        If no division was found in which every training fold contains all classes.
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
    raise DataError("folds: the donors, or experiments, leave a class without any to learn from; give more of them")


def probability_of(model: object, X: object, name: str) -> np.ndarray:
    """Probability of one class by a fitted classifier, shape (rows,)."""
    return model.predict_proba(X)[:, list(model.classes_).index(name)]


def _pooled(predictions: pd.DataFrame) -> dict[str, float]:
    true, predicted = predictions["true"], predictions["predicted"]
    return {
        "accuracy": float((true == predicted).mean()),
        "macro_f1": float(f1_score(true, predicted, average="macro")),
    }


def _out_of_fold(
    estimator: object, X: object, y: np.ndarray, groups: np.ndarray, n_splits: int, seed: int
) -> pd.DataFrame:
    names, parts = sorted(set(y)), []
    for fold, (train, test) in enumerate(donor_folds(y, groups, n_splits=n_splits, seed=seed)):
        part = _predicted(estimator, X, y, groups, train, test, names)
        part.insert(1, "fold", fold)
        parts.append(part)
    return pd.concat(parts).sort_values("row", ignore_index=True)


def _predicted(
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


def mean_over_units(
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


def auc(score: np.ndarray, positive: np.ndarray) -> float:
    """Area under the ROC curve (Mann-Whitney), ties counting half; NaN if there is one class only."""
    n = int(positive.sum())
    if n in (0, len(positive)):
        return np.nan
    return float((rankdata(score)[positive].sum() - n * (n + 1) / 2) / (n * (len(positive) - n)))


def silhouette(
    points: pd.DataFrame,
    labels: pd.Series,
    *,
    donors: np.ndarray | None = None,
    n_permutations: int = 999,
    seed: int = 0,
) -> dict[str, float]:
    """Mean silhouette of the groups (Rousseeuw 1987), from -1 (mixed) to 1 (separated), with its permutation p-value.

    Returns
    -------
    ``value``, ``p``, ``n`` (samples), ``m`` (permutations) and ``smallest_p`` (the p-value that the best of the
    permutations and the observed labels would have).
    """
    table = points.to_numpy()
    observed, p, null = permutation_pvalue(
        lambda permuted: silhouette_score(table, permuted),
        labels.astype(str).to_numpy(),
        donors=donors,
        n_permutations=n_permutations,
        seed=seed,
    )
    values = np.append(null, observed)
    smallest = float((values >= values.max() - 1e-12).mean())
    return {"value": float(observed), "p": p, "n": len(table), "m": len(null), "smallest_p": smallest}


def principal_planes(
    tables: dict[str, pd.DataFrame], labels: pd.Series, **test
) -> tuple[pd.DataFrame, dict[str, pd.DataFrame]]:
    """PCA of the same samples in several matrices, and the separation of their groups in each plane.

    Parameters
    ----------
    tables
        Name -> samples x features.
    test
        Options of `silhouette`.

    Returns
    -------
    A row a matrix: ``matrix``, ``PC1`` and ``PC1 + PC2`` (shares of the variance), ``silhouette``, ``p``, ``m``,
    ``smallest_p``; and the scores by name, samples x 2.
    """
    rows, planes = [], {}
    for name, table in tables.items():
        planes[name], shares = embedding.pca(table)
        separation = silhouette(planes[name], labels, **test)
        row = {"matrix": name, "PC1": shares[0], "PC1 + PC2": shares[:2].sum(), "silhouette": separation["value"]}
        rows.append(row | {key: separation[key] for key in ("p", "m", "smallest_p")})
    return pd.DataFrame(rows), planes


def cluster_agreement(
    tree: np.ndarray, labels: pd.Series, *, donors: np.ndarray | None = None, n_permutations: int = 999, seed: int = 0
) -> dict[str, float]:
    """Adjusted Rand index of the groups with the clusters of a tree cut into as many, with its permutation p-value.

    Parameters
    ----------
    tree
        Linkage of the samples, SciPy's format.

    Returns
    -------
    ``value`` (1 perfect, 0 chance), ``p``, ``n``.
    """
    clusters = fcluster(tree, labels.nunique(), "maxclust")
    observed, p, _ = permutation_pvalue(
        lambda permuted: adjusted_rand_score(permuted, clusters),
        labels.astype(str).to_numpy(),
        donors=donors,
        n_permutations=n_permutations,
        seed=seed,
    )
    return {"value": float(observed), "p": p, "n": len(labels)}


def overlaps(chosen: list[str], sets: dict[str, list[str]], universe: list[str]) -> pd.DataFrame:
    """Over-representation of gene sets among chosen genes (hypergeometric test, one-sided).

    Returns
    -------
    A row a set: ``set``, ``genes`` (of the set in the universe), ``chosen`` (of these among the chosen), ``expected``,
    ``p`` and ``padj`` (Benjamini-Hochberg over the sets).
    """
    background, selected = set(universe), set(chosen)
    rows = []
    for name, members in sets.items():
        inside = set(members) & background
        hits = len(inside & selected)
        n = (len(background), len(inside), len(selected))
        expected = n[1] * n[2] / n[0]
        p = float(hypergeom.sf(hits - 1, *n))
        rows.append({"set": name, "genes": n[1], "chosen": hits, "expected": expected, "p": p})
    table = pd.DataFrame(rows)
    table["padj"] = false_discovery_control(table["p"])
    return table


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


def nearest(values: np.ndarray, target: float) -> float:
    """The value closest to the target; the lower one of two equally close."""
    return float(values[np.argmin(np.abs(values - target))])
