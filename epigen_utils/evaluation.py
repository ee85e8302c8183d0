"""Scores, their nulls, and the values that a score can take at all."""

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
    """Permuted labels, as `permutation_pvalue` visits them; parameters and errors as there."""
    units, blocks, codes = _blocks(np.asarray(labels), donors)
    others = _n_others(units, blocks)
    if not others:
        raise DataError(
            "permutation test: donors and groups leave one labeling only; give more donors, or leave donor out"
        )
    if others <= n_permutations:
        permuted = (new for new in _all_labelings(units, blocks) if not np.array_equal(new, units))
    else:
        permuted = _shuffled_labelings(units, blocks, n_permutations, np.random.default_rng(seed))
    yield from (new if codes is None else new[codes] for new in permuted)


def permutation_pvalue(
    score: Callable[[np.ndarray], float],
    labels: np.ndarray,
    *,
    donors: np.ndarray | None = None,
    n_permutations: int = 999,
    seed: int = 0,
) -> tuple[float, float, np.ndarray]:
    """Test one-sidedly how often permuted labels score at least as high.

    All distinct labelings are visited where they are no more than ``n_permutations + 1``; otherwise labels are shuffled
    at random. p = (b + 1) / (m + 1) (Phipson and Smyth 2010), with m the labelings other than the observed one.

    Parameters
    ----------
    score
        Of an array of labels, larger is more extreme.
    labels
        One a sample.
    donors
        Who each sample is from. Where every donor has samples of one label only, labels are permuted among donors, each
        donor's samples together; otherwise within donors.

    Returns
    -------
    The observed score, p, and the scores of the permuted labelings, shape (m,).

    Raises
    ------
    DataError
        If the design leaves only the observed labeling, so that nothing can be tested.
    """
    observed = score(np.asarray(labels))
    null = np.array([score(new) for new in labelings(labels, donors=donors, n_permutations=n_permutations, seed=seed)])
    return observed, float(((null >= observed - 1e-12).sum() + 1) / (len(null) + 1)), null


def n_labelings(labels: np.ndarray, donors: np.ndarray | None = None) -> int:
    """How many other labelings there are by the rules of `labelings`."""
    units, blocks, _ = _blocks(np.asarray(labels), donors)
    return _n_others(units, blocks)


def _n_others(units: np.ndarray, blocks: list[np.ndarray]) -> int:
    return math.prod(_n_arrangements(units[index]) for index in blocks) - 1


def _blocks(labels: np.ndarray, donors: np.ndarray | None) -> tuple[np.ndarray, list[np.ndarray], np.ndarray | None]:
    """Labels of what is permuted, within which blocks, and, where donors are, the donor of each sample."""
    codes = np.zeros(len(labels), int) if donors is None else np.unique(donors, return_inverse=True)[1]
    members = [np.flatnonzero(codes == code) for code in range(codes.max() + 1)]
    if donors is None or any(len(set(labels[index])) > 1 for index in members):
        return labels, members, None
    return np.array([labels[index[0]] for index in members]), [np.arange(len(members))], codes


def _n_arrangements(labels: np.ndarray) -> int:
    sizes = np.unique(labels, return_counts=True)[1]
    return math.factorial(len(labels)) // math.prod(math.factorial(size) for size in sizes)


def _arrangements(labels: list):
    """Distinct orders of a multiset, by placing each label's positions in turn."""
    if len(set(labels)) <= 1:
        yield list(labels)
        return
    first = labels[0]
    rest = [label for label in labels if label != first]
    for places in itertools.combinations(range(len(labels)), len(labels) - len(rest)):
        for others in _arrangements(rest):
            remaining = iter(others)
            yield [first if i in places else next(remaining) for i in range(len(labels))]


def _all_labelings(labels: np.ndarray, members: list[np.ndarray]):
    for choice in itertools.product(*(list(_arrangements(list(labels[index]))) for index in members)):
        new = labels.copy()
        for index, values in zip(members, choice, strict=True):
            new[index] = values
        yield new


def _shuffled_labelings(labels: np.ndarray, members: list[np.ndarray], n: int, rng: np.random.Generator):
    for _ in range(n):
        new = labels.copy()
        for index in members:
            new[index] = rng.permutation(labels[index])
        yield new


def hold_out(groups: np.ndarray, *, share: float, seed: int) -> np.ndarray:
    """Rows to hold out: whole groups (donors), drawn until they are a share of the rows; True where held out.

    Raises
    ------
    DataError
        If fewer than two groups are there, so that nothing would be left.
    """
    codes, names = pd.factorize(np.asarray(groups))
    if len(names) < 2:
        raise DataError(f"hold-out: all {len(codes)} rows are of one group; name donors, or give more of them")
    order = np.random.default_rng(seed).permutation(len(names))
    sizes = np.bincount(codes)[order]
    enough = 1 + int(np.searchsorted(np.cumsum(sizes), share * len(codes)))
    return np.isin(codes, order[: min(enough, len(names) - 1)])


def check_donors(labels: np.ndarray, donors: np.ndarray, *, per_donor: bool) -> None:
    """Refuse labels that cannot be told apart donor-wise.

    Parameters
    ----------
    per_donor
        Whether a label is of the donor (a disease), and not of the cell (a type).

    Raises
    ------
    DataError
        If there is one class only, a class has cells of one donor only, or a donor is of two classes where labels are of donors.
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
    if per_donor and (twice := pairs["donor"].duplicated(keep=False)).any():
        donor = pairs.loc[twice, "donor"].iloc[0]
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
    """Predict every cell by a model that has seen no cell of its donor.

    Parameters
    ----------
    estimator
        Scikit-learn's ``fit`` and ``predict_proba``; it is cloned for each fold, and makes its choices inside it.
    X
        Rows that can be indexed by position; a matrix, or the positions of encoded cells.
    groups
        Donors; folds are theirs, and keep the shares of the classes as well as they can.
    n_permutations
        Labelings with which everything is done again (`labelings`: donors exchange their labels).
    per_donor
        As of `check_donors`.

    Returns
    -------
    A row a cell: ``row``, ``fold``, ``donor``, ``true``, ``predicted`` and ``p_<class>``; and a row a labeling, the true one first:
    ``labeling`` (0 true), ``accuracy`` and ``macro_f1`` of the pooled predictions, and ``p`` ((b + 1) / (m + 1) over macro-F1; NaN
    without permutations).

    Raises
    ------
    DataError
        As `check_donors`.
    """
    y, groups = (np.asarray(values).astype(str) for values in (y, groups))
    check_donors(y, groups, per_donor=per_donor)
    truth = _out_of_fold(estimator, X, y, groups, n_splits, seed)
    rows = [_pooled(truth)]
    if n_permutations:
        for new in labelings(y, donors=groups, n_permutations=n_permutations, seed=seed):
            rows.append(_pooled(_out_of_fold(estimator, X, new, groups, n_splits, seed)))
    table = pd.DataFrame(rows).rename_axis("labeling").reset_index()
    null = table["macro_f1"][1:]
    table["p"] = ((null >= table["macro_f1"][0] - 1e-12).sum() + 1) / (len(null) + 1) if len(null) else np.nan
    return truth, table


def predict_once(estimator: object, X: object, y: np.ndarray, groups: np.ndarray, test: np.ndarray) -> pd.DataFrame:
    """Learn from some cells and predict others, in the columns of `cross_validate`.

    Parameters
    ----------
    test
        True where a cell is tested on.
    """
    y, groups = (np.asarray(values).astype(str) for values in (y, groups))
    return _predicted(estimator, X, y, groups, np.flatnonzero(~test), np.flatnonzero(test), sorted(set(y)))


def donor_folds(
    y: np.ndarray, groups: np.ndarray, *, n_splits: int, seed: int
) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Positions to learn from and to test on, whole donors, with the classes' shares kept as well as may be.

    There are no more folds than the rarest class has donors; all classes are among the training cells of each.

    Raises
    ------
    DataError
        If no division was found that leaves every class to learn from.
    """
    donors = pd.DataFrame({"y": y, "group": groups}).drop_duplicates().groupby("y").size()
    n_splits, n_classes = min(n_splits, int(donors.min()), len(set(groups))), len(donors)
    shuffled = {"n_splits": n_splits, "shuffle": True}
    # The best kept shares are one division; where that leaves a class out, others are drawn.
    tried = [StratifiedGroupKFold(**shuffled, random_state=seed)] if n_splits > 1 else []
    tried += [GroupKFold(**shuffled, random_state=seed + i) for i in range(20 * len(tried))]
    for divided in tried:
        folds = list(divided.split(np.zeros(len(y)), y, groups))
        if all(len(np.unique(y[train])) == n_classes for train, _ in folds):
            yield from folds
            return
    raise DataError("folds: the donors, or experiments, leave a class without any to learn from; give more of them")


def probability_of(model: object, X: object, name: str) -> np.ndarray:
    """What a fitted classifier gives one class, a number a row."""
    return model.predict_proba(X)[:, list(model.classes_).index(name)]


def _pooled(predictions: pd.DataFrame) -> dict[str, float]:
    true, said = predictions["true"], predictions["predicted"]
    return {"accuracy": float((true == said).mean()), "macro_f1": float(f1_score(true, said, average="macro"))}


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
    part = {"row": test, "donor": groups[test], "true": y[test], "predicted": p.idxmax(axis=1)}
    return pd.DataFrame(part).join(p.add_prefix("p_"))


def mean_over_units(
    values: np.ndarray, units: np.ndarray, *, n_bootstrap: int, rng: np.random.Generator
) -> tuple[float, float, float, int]:
    """Mean of values with a 95% bootstrap interval in which whole units (donors, or cells) are drawn.

    Parameters
    ----------
    units
        Who each value is from.

    Returns
    -------
    Mean, low, high, and the number of units.
    """
    codes, names = pd.factorize(np.asarray(units))
    sums, n = np.bincount(codes, values), np.bincount(codes)
    drawn = rng.integers(len(names), size=(n_bootstrap, len(names)))
    low, high = np.quantile(sums[drawn].sum(axis=1) / n[drawn].sum(axis=1), [0.025, 0.975])
    return float(np.mean(values)), float(low), float(high), len(names)


def auc(score: np.ndarray, positive: np.ndarray) -> float:
    """Probability that a positive scores above a negative, ties half (Mann-Whitney); NaN where there is one kind only."""
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
    """Mean silhouette of the groups (Rousseeuw 1987) with its permutation p-value; -1 mixed, 1 apart.

    Returns
    -------
    ``value``, ``p``, ``n`` (samples), ``m`` (other labelings visited) and ``smallest_p``, the p that the best of the
    labelings visited would have got.
    """
    table = points.to_numpy()
    observed, p, null = permutation_pvalue(
        lambda new: silhouette_score(table, new),
        labels.astype(str).to_numpy(),
        donors=donors,
        n_permutations=n_permutations,
        seed=seed,
    )
    visited = np.append(null, observed)
    smallest = float((visited >= visited.max() - 1e-12).mean())
    return {"value": float(observed), "p": p, "n": len(table), "m": len(null), "smallest_p": smallest}


def principal_planes(
    tables: dict[str, pd.DataFrame], labels: pd.Series, **test
) -> tuple[pd.DataFrame, dict[str, pd.DataFrame]]:
    """PCA of the same samples in several matrices, and how far apart their groups lie in each plane.

    Parameters
    ----------
    tables
        Name -> samples x features.
    test
        As for `silhouette`.

    Returns
    -------
    A row a matrix (``matrix``, ``PC1``, ``PC1 + PC2`` as shares of the variance, ``silhouette``, ``p``,
    ``m``, ``smallest_p``), and the scores, samples x 2, by name.
    """
    rows, planes = [], {}
    for name, table in tables.items():
        planes[name], shares = embedding.pca(table)
        apart = silhouette(planes[name], labels, **test)
        row = {"matrix": name, "PC1": shares[0], "PC1 + PC2": shares[:2].sum(), "silhouette": apart["value"]}
        rows.append(row | {key: apart[key] for key in ("p", "m", "smallest_p")})
    return pd.DataFrame(rows), planes


def cluster_agreement(
    tree: np.ndarray, labels: pd.Series, *, donors: np.ndarray | None = None, n_permutations: int = 999, seed: int = 0
) -> dict[str, float]:
    """Adjusted Rand index of a tree's clusters, as many as there are groups, with the groups; permutation p.

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
        lambda new: adjusted_rand_score(new, clusters),
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
    A row a set: ``set``, ``genes`` (of the set in the universe), ``chosen`` (of these among the chosen), ``expected``, ``p``
    and ``padj`` (Benjamini-Hochberg over the sets).
    """
    everything, picked = set(universe), set(chosen)
    rows = []
    for name, members in sets.items():
        inside = set(members) & everything
        hits = len(inside & picked)
        n = (len(everything), len(inside), len(picked))
        expected = n[1] * n[2] / n[0]
        rows.append(
            {"set": name, "genes": n[1], "chosen": hits, "expected": expected, "p": float(hypergeom.sf(hits - 1, *n))}
        )
    table = pd.DataFrame(rows)
    table["padj"] = false_discovery_control(table["p"])
    return table


def attainable_auc(n_positive: int, n_negative: int, *, ties: bool = False) -> np.ndarray:
    """Every AUC that one pooled evaluation can give: k / (n_positive * n_negative); half steps where scores may tie."""
    steps = n_positive * n_negative * (2 if ties else 1)
    return np.arange(steps + 1) / steps


def auc_lattices(sizes: list[tuple[int, int]]) -> pd.DataFrame:
    """Attainable AUCs by class sizes, the first pair also with ties: columns ``classes`` (its name) and ``auc``."""
    named = [(f"{a} v {b}", attainable_auc(a, b)) for a, b in sizes]
    first, second = sizes[0]
    named.insert(1, (f"{first} v {second}, ties", attainable_auc(first, second, ties=True)))
    return pd.concat([pd.DataFrame({"classes": name, "auc": values}) for name, values in named], ignore_index=True)


def attainable_f1(n_positive: int, n_negative: int) -> np.ndarray:
    """Every F1 = 2 TP / (2 TP + FP + FN) that one pooled evaluation can give, ascending."""
    values = {0.0}
    for true_positive in range(1, n_positive + 1):
        for false_positive in range(n_negative + 1):
            values.add(2 * true_positive / (n_positive + true_positive + false_positive))
    return np.array(sorted(values))


def nearest(values: np.ndarray, target: float) -> float:
    """The value closest to the target; the lower one of two equally close."""
    return float(values[np.argmin(np.abs(values - target))])
