"""What a table of predictions, or of confusion counts, says: by class, by donor, and whether its probabilities can be trusted."""

import numpy as np
import pandas as pd
from scipy.stats import binomtest

from epigen_utils.errors import DataError

#: Bins of the predicted probability in which calibration is looked at.
BINS = 10


def levels(predictions: pd.DataFrame) -> list[str]:
    """Classes of a table of predictions, in the order of its columns ``p_<class>``."""
    return [column.removeprefix("p_") for column in predictions if column.startswith("p_")]


def confusion(predictions: pd.DataFrame) -> pd.DataFrame:
    """Counts, true x predicted class.

    Parameters
    ----------
    predictions
        `evaluation.cross_validate`'s: ``true``, ``predicted`` and ``p_<class>``.
    """
    names = levels(predictions)
    counts = pd.crosstab(predictions["true"], predictions["predicted"]).reindex(
        index=names, columns=names, fill_value=0
    )
    return counts.rename_axis(index="true", columns="predicted")


def of_counts(counts: pd.DataFrame) -> tuple[dict[str, float], pd.DataFrame]:
    """Everything that follows from a confusion matrix.

    Parameters
    ----------
    counts
        True x predicted class, whole numbers.

    Returns
    -------
    ``accuracy``, ``macro_f1``, ``majority`` (accuracy of naming the largest class always) and ``n``; and a row a class: ``class``,
    ``precision``, ``recall``, ``f1`` and ``n``. A class that is never predicted has precision 0, as scikit-learn has it.

    Raises
    ------
    DataError
        If rows and columns are not the same classes, or a count is negative or no whole number.
    """
    table = counts.to_numpy(float)
    if list(counts.index) != list(counts.columns):
        raise DataError(
            f"confusion counts: rows are {list(counts.index)}, columns {list(counts.columns)}; give the same"
        )
    if (table < 0).any() or (table != np.floor(table)).any():
        raise DataError("confusion counts: a count is negative or no whole number; give counts, not shares")
    hits, of, said = np.diag(table), table.sum(axis=1), table.sum(axis=0)
    precision, recall = (np.divide(hits, n, out=np.zeros_like(hits), where=n > 0) for n in (said, of))
    f1 = np.divide(2 * hits, of + said, out=np.zeros_like(hits), where=of + said > 0)
    whole = {"accuracy": hits.sum() / table.sum(), "macro_f1": f1.mean(), "majority": of.max() / table.sum()}
    by_class = pd.DataFrame(
        {"class": counts.index, "precision": precision, "recall": recall, "f1": f1, "n": of.astype(int)}
    )
    return whole | {"n": int(table.sum())}, by_class


def two_class(counts: pd.DataFrame, healthy: str) -> dict[str, float]:
    """Any disease against none: ``sensitivity`` (a diseased cell is called diseased, of whichever disease) and ``specificity``.

    Raises
    ------
    DataError
        If there is no such class.
    """
    if healthy not in counts.index:
        raise DataError(f"healthy class {healthy!r}: not there; there are {', '.join(map(str, counts.index))}")
    ill = [name for name in counts.index if name != healthy]
    sick = counts.loc[ill]
    return {
        "sensitivity": float(sick[ill].to_numpy().sum() / sick.to_numpy().sum()),
        "specificity": float(counts.loc[healthy, healthy] / counts.loc[healthy].sum()),
    }


def with_intervals(predictions: pd.DataFrame, *, n_bootstrap: int = 1000, seed: int = 0) -> pd.DataFrame:
    """Scores of pooled predictions with 95% intervals in which whole donors are drawn.

    Parameters
    ----------
    predictions
        With ``donor``. Donors are drawn within their class where each has one, so that no class is lost.

    Returns
    -------
    A row a score: ``score`` (``accuracy``, ``macro-F1``, and precision, recall and F1 of each class), ``value``, ``low``, ``high``,
    ``cells`` and ``donors`` (of the class, for its own scores).
    """
    names = levels(predictions)
    code, donors = pd.factorize(predictions["donor"])
    true, said = (pd.Categorical(predictions[column], names).codes for column in ("true", "predicted"))
    per_donor = np.zeros((len(donors), len(names), len(names)))
    np.add.at(per_donor, (code, true, said), 1)
    own = per_donor.sum(axis=2)
    drawn = _drawn_donors(own, n_bootstrap, np.random.default_rng(seed))
    values = _scores(per_donor.sum(axis=0)[None])[0]
    low, high = np.quantile(_scores(np.stack([per_donor[rows].sum(axis=0) for rows in drawn])), [0.025, 0.975], axis=0)
    labels = ["accuracy", "macro-F1", *(f"{kind}, {name}" for name in names for kind in ("precision", "recall", "F1"))]
    found = pd.DataFrame({"score": labels, "value": values, "low": low, "high": high})
    of_class = [slice(None), slice(None), *(place for place in range(len(names)) for _ in range(3))]
    found["cells"] = [int(own[:, place].sum()) for place in of_class]
    found["donors"] = [int((own[:, place].reshape(len(donors), -1).sum(axis=1) > 0).sum()) for place in of_class]
    return found


def _scores(counts: np.ndarray) -> np.ndarray:
    """Accuracy, macro-F1, and precision, recall and F1 by class, of confusion counts, draws x true x predicted."""
    hits, of, said = np.diagonal(counts, axis1=1, axis2=2), counts.sum(axis=2), counts.sum(axis=1)
    precision, recall = (np.divide(hits, n, out=np.zeros_like(hits), where=n > 0) for n in (said, of))
    f1 = np.divide(2 * hits, of + said, out=np.zeros_like(hits), where=of + said > 0)
    accuracy = hits.sum(axis=1) / counts.sum(axis=(1, 2))
    by_class = np.stack([precision, recall, f1], axis=2).reshape(len(counts), -1)
    return np.column_stack([accuracy, f1.mean(axis=1), by_class])


def by_donor(predictions: pd.DataFrame) -> pd.DataFrame:
    """What the cells of each donor say together: the class with the highest mean probability.

    Returns
    -------
    A row a donor: ``donor``, ``true``, ``predicted``, ``cells``, ``right`` (share of its cells) and ``p_<class>`` (mean).

    Raises
    ------
    DataError
        If a donor's cells are of two classes.
    """
    found = predictions.groupby("donor", sort=False, observed=True).agg(
        true=("true", "first"), kinds=("true", "nunique"), cells=("true", "size")
    )
    if (found["kinds"] > 1).any():
        raise DataError(
            f"donor {found.index[found['kinds'] > 1][0]!r}: has cells of two classes; nothing can be said of it"
        )
    right = (
        (predictions["true"] == predictions["predicted"])
        .groupby(predictions["donor"], sort=False, observed=True)
        .mean()
    )
    columns = [f"p_{name}" for name in levels(predictions)]
    means = predictions.groupby("donor", sort=False, observed=True)[columns].mean()
    found = found.drop(columns="kinds").join(means)
    found["right"] = right
    found.insert(1, "predicted", means.idxmax(axis=1).str.removeprefix("p_"))
    return found.reset_index()


def lift(accuracy: float, majority: float) -> float:
    """How much of what naming the largest class leaves wrong is right: 0 as good as that, 1 perfect."""
    return (accuracy - majority) / (1 - majority)


def retention(
    student: pd.DataFrame, teacher: pd.DataFrame, *, n_bootstrap: int = 1000, seed: int = 0
) -> dict[str, float]:
    """What a student keeps of its teacher, both asked for the same cells.

    Parameters
    ----------
    student, teacher
        Tables of predictions with the same ``row``.

    Returns
    -------
    ``by accuracy`` (ratio of accuracies) and ``by lift`` (ratio of what both have above naming the largest class), each with
    `` low`` and `` high``: 95% bootstrap over donors, the same ones drawn for both, within their class where each has one.

    Raises
    ------
    DataError
        If they are not of the same cells.
    """
    if list(student["row"]) != list(teacher["row"]):
        raise DataError("retention: the two tables are of other cells; ask both for the same")
    code, donors = pd.factorize(teacher["donor"])
    names = levels(teacher)
    n = np.zeros((len(donors), len(names)))
    np.add.at(n, (code, pd.Categorical(teacher["true"], names).codes), 1)
    right = [
        np.bincount(code, table["true"] == table["predicted"], minlength=len(donors)) for table in (student, teacher)
    ]

    def kept(rows: np.ndarray) -> tuple[float, float]:
        cells = n[rows].sum(axis=0)
        one, other = (hits[rows].sum() / cells.sum() for hits in right)
        largest = cells.max() / cells.sum()
        return one / other, lift(one, largest) / lift(other, largest)

    rng = np.random.default_rng(seed)
    drawn = [kept(rows) for rows in _drawn_donors(n, n_bootstrap, rng)]
    low, high = np.nanquantile(drawn, [0.025, 0.975], axis=0)
    found = {}
    for place, name in enumerate(("by accuracy", "by lift")):
        found |= {name: kept(np.arange(len(donors)))[place], f"{name} low": low[place], f"{name} high": high[place]}
    return found


def _drawn_donors(n: np.ndarray, n_bootstrap: int, rng: np.random.Generator) -> list[np.ndarray]:
    """Donors drawn again, within their class where each has one; ``n`` is donors x classes."""
    nested = ((n > 0).sum(axis=1) == 1).all()
    strata = n.argmax(axis=1) if nested else np.zeros(len(n), int)
    members = [np.flatnonzero(strata == stratum) for stratum in np.unique(strata)]
    return [np.concatenate([rng.choice(some, len(some)) for some in members]) for _ in range(n_bootstrap)]


def of_donors(table: pd.DataFrame) -> dict[str, float]:
    """Share of donors that are named rightly, with the exact (Clopper-Pearson) 95% interval: ``value``, ``low``, ``high``, ``n``."""
    right = int((table["true"] == table["predicted"]).sum())
    interval = binomtest(right, len(table)).proportion_ci()
    return {"value": right / len(table), "low": interval.low, "high": interval.high, "n": len(table)}


def calibration(predictions: pd.DataFrame, *, bins: int = BINS) -> tuple[pd.DataFrame, dict[str, float]]:
    """Whether a class that is given probability p is right in a share p of the cells.

    Returns
    -------
    A row a bin of the highest probability that has cells: ``said`` (mean probability), ``right`` (share) and ``cells``; and
    ``error`` (expected calibration error: mean of their difference over cells), ``brier`` (mean squared distance of probabilities
    from the truth, summed over classes) and ``majority_brier`` (of giving every cell the classes' shares).
    """
    names = levels(predictions)
    p = predictions[[f"p_{name}" for name in names]].to_numpy()
    truth = (predictions["true"].to_numpy()[:, None] == np.array(names)).astype(float)
    top, right = p.max(axis=1), (predictions["true"] == predictions["predicted"]).to_numpy()
    place = np.minimum((top * bins).astype(int), bins - 1)
    table = pd.DataFrame({"bin": place, "said": top, "right": right.astype(float)})
    table = table.groupby("bin").agg(said=("said", "mean"), right=("right", "mean"), cells=("said", "size"))
    error = ((table["said"] - table["right"]).abs() * table["cells"]).sum() / table["cells"].sum()
    brier, plain = (np.square(guess - truth).sum(axis=1).mean() for guess in (p, truth.mean(axis=0)))
    return table.reset_index(drop=True), {"error": float(error), "brier": float(brier), "majority_brier": float(plain)}


def of_shares(shares: pd.DataFrame, sizes: pd.Series) -> pd.DataFrame:
    """What rounded row shares of a confusion matrix leave open.

    Parameters
    ----------
    shares
        True x predicted class, as they are printed (words, so that their last digit is known).
    sizes
        Cells of each true class.

    Returns
    -------
    A row a score (``accuracy``, and precision, recall and F1 of each class): ``score``, ``value``, and the ``low`` and ``high`` that
    it has over all matrices that round to the printed one.
    """
    text = shares.map(str)
    value, half = text.astype(float), text.map(lambda word: 0.5 * 10.0 ** -len(word.partition(".")[2]))
    n = sizes[shares.index]
    middle, low, high = (table.clip(lower=0).mul(n, axis=0) for table in (value, value - half, value + half))
    found = [("accuracy", *(np.trace(table) / n.sum() for table in (middle, low, high)))]
    for name in shares.index:
        for kind in ("precision", "recall", "F1"):
            # A score of a class is highest with most of its hits and fewest of the others called so.
            corners = [(middle, middle), (low, high), (high, low)]
            row = []
            for hits, others in corners:
                hit, false = hits.at[name, name], others[name].drop(name).sum()
                bottom = {"precision": hit + false, "recall": n[name], "F1": (n[name] + hit + false) / 2}[kind]
                row.append(hit / bottom)
            found.append((f"{kind}, {name}", *row))
    return pd.DataFrame(found, columns=["score", "value", "low", "high"])
