"""Multi-class metrics from predictions or confusion counts, per class and per donor, and probability calibration."""

import numpy as np
import pandas as pd

from epigen_utils.errors import DataError
from epigen_utils.stats import intervals

#: Bins of the predicted probability for calibration.
CALIBRATION_BINS = 10


def class_names(predictions: pd.DataFrame) -> list[str]:
    """Classes of a table of predictions, in the order of its columns ``p_<class>``."""
    return [column.removeprefix("p_") for column in predictions if column.startswith("p_")]


def confusion_counts(predictions: pd.DataFrame) -> pd.DataFrame:
    """Confusion counts, true x predicted class.

    Parameters
    ----------
    predictions
        Table of `folds.cross_validate`: ``true``, ``predicted`` and ``p_<class>``.
    """
    names = class_names(predictions)
    counts = pd.crosstab(predictions["true"], predictions["predicted"]).reindex(
        index=names, columns=names, fill_value=0
    )
    return counts.rename_axis(index="true", columns="predicted")


def scores_from_counts(counts: pd.DataFrame) -> tuple[dict[str, float], pd.DataFrame]:
    """Scores from confusion counts, overall and by class.

    Parameters
    ----------
    counts
        True x predicted class, whole numbers.

    Returns
    -------
    ``accuracy``, ``macro_f1``, ``majority`` (accuracy of always predicting the largest class) and ``n``; and a row a
    class: ``class``, ``precision``, ``recall``, ``f1``, ``n``. A class that is never predicted has precision 0, as in
    scikit-learn.

    Raises
    ------
    DataError
        If rows and columns differ in their classes, or a count is negative or fractional.
    """
    table = counts.to_numpy(float)
    if list(counts.index) != list(counts.columns):
        raise DataError(
            f"confusion counts: rows are {list(counts.index)}, columns {list(counts.columns)}; give the same"
        )
    if (table < 0).any() or (table != np.floor(table)).any():
        raise DataError("confusion counts: a count is negative or no whole number; give counts, not shares")
    accuracy, precision, recall, f1 = _scores(table)
    n, n_true = int(table.sum()), table.sum(axis=1).astype(int)
    overall = {"accuracy": accuracy, "macro_f1": f1.mean(), "majority": n_true.max() / n, "n": n}
    by_class = {"class": counts.index, "precision": precision, "recall": recall, "f1": f1, "n": n_true}
    return overall, pd.DataFrame(by_class)


def _scores(counts: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Accuracy (...), and precision, recall and F1 by class (..., classes); counts: (..., true, predicted)."""
    hits, n_true, n_predicted = np.diagonal(counts, axis1=-2, axis2=-1), counts.sum(axis=-1), counts.sum(axis=-2)
    precision, recall = (np.divide(hits, n, out=np.zeros_like(hits), where=n > 0) for n in (n_predicted, n_true))
    f1 = np.divide(2 * hits, n_true + n_predicted, out=np.zeros_like(hits), where=n_true + n_predicted > 0)
    return hits.sum(axis=-1) / counts.sum(axis=(-2, -1)), precision, recall, f1


def sensitivity_specificity(counts: pd.DataFrame, healthy: str) -> dict[str, float]:
    """Any disease against none: ``sensitivity`` and ``specificity``.

    A diseased cell that is predicted to have another disease counts as detected.

    Raises
    ------
    DataError
        If the healthy class is missing.
    """
    if healthy not in counts.index:
        raise DataError(f"healthy class {healthy!r}: not there; there are {', '.join(map(str, counts.index))}")
    diseases = [name for name in counts.index if name != healthy]
    diseased = counts.loc[diseases]
    return {
        "sensitivity": float(diseased[diseases].to_numpy().sum() / diseased.to_numpy().sum()),
        "specificity": float(counts.loc[healthy, healthy] / counts.loc[healthy].sum()),
    }


def scores_with_intervals(predictions: pd.DataFrame, *, n_bootstrap: int = 1000, seed: int = 0) -> pd.DataFrame:
    """Scores of pooled predictions with 95% bootstrap intervals over donors.

    Parameters
    ----------
    predictions
        With ``donor``. If each donor is in one class, donors are resampled within classes, so that none is lost.

    Returns
    -------
    A row a score: ``score`` (``accuracy``, ``macro-F1``, and precision, recall and F1 of each class), ``value``,
    ``low``, ``high``, ``cells`` and ``donors`` (of the class, for its own scores).
    """
    names = class_names(predictions)
    counts = counts_by_donor(predictions)
    n = counts.sum(axis=2)  # (donors, true)
    drawn = intervals.resample_donors(donor_strata(counts), n_bootstrap, np.random.default_rng(seed))
    # The observed counts, then those of the draws: (1 + draws, true, predicted).
    samples = np.stack([counts.sum(axis=0), *(counts[rows].sum(axis=0) for rows in drawn)])
    accuracy, precision, recall, f1 = _scores(samples)
    by_class = np.stack([precision, recall, f1], axis=2).reshape(len(samples), -1)  # (1 + draws, 3 * classes)
    values = np.column_stack([accuracy, f1.mean(axis=1), by_class])
    low, high = np.quantile(values[1:], [0.025, 0.975], axis=0)
    labels = ["accuracy", "macro-F1", *(f"{kind}, {name}" for name in names for kind in ("precision", "recall", "F1"))]
    table = pd.DataFrame({"score": labels, "value": values[0], "low": low, "high": high})
    of_class = [slice(None), slice(None), *(column for column in range(len(names)) for _ in range(3))]
    table["cells"] = [int(n[:, column].sum()) for column in of_class]
    table["donors"] = [int((n[:, column].reshape(len(n), -1).sum(axis=1) > 0).sum()) for column in of_class]
    return table


def donor_predictions(predictions: pd.DataFrame) -> pd.DataFrame:
    """Prediction for each donor: the class with the highest mean probability over its cells.

    Returns
    -------
    A row a donor: ``donor``, ``true``, ``predicted``, ``cells``, ``right`` (share of its cells), ``p_<class>`` (mean).

    Raises
    ------
    DataError
        If a donor's cells are of two classes.
    """
    donors = predictions["donor"]
    grouped = predictions.groupby("donor", sort=False, observed=True)
    table = grouped.agg(true=("true", "first"), kinds=("true", "nunique"), cells=("true", "size"))
    if (table["kinds"] > 1).any():
        raise DataError(
            f"donor {table.index[table['kinds'] > 1][0]!r}: has cells of two classes; a donor-level score needs one"
        )
    correct = predictions["true"] == predictions["predicted"]
    means = grouped[[f"p_{name}" for name in class_names(predictions)]].mean()
    table = table.drop(columns="kinds").join(means)
    table["right"] = correct.groupby(donors, sort=False, observed=True).mean()
    table.insert(1, "predicted", means.idxmax(axis=1).str.removeprefix("p_"))
    return table.reset_index()


def lift(accuracy: float, majority: float) -> float:
    """Accuracy rescaled so that always predicting the largest class gives 0, and perfect predictions 1."""
    return (accuracy - majority) / (1 - majority)


def retention(
    student: pd.DataFrame, teacher: pd.DataFrame, *, n_bootstrap: int = 1000, seed: int = 0
) -> dict[str, float]:
    """Share of a teacher's performance that its student retains on the same cells.

    Parameters
    ----------
    student, teacher
        Tables of predictions with the same ``row``.

    Returns
    -------
    ``by accuracy`` (ratio of accuracies) and ``by lift`` (ratio of `lift`), each with `` low`` and `` high``: 95%
    bootstrap over donors, the same for both models, within classes if each donor is in one class.

    Raises
    ------
    DataError
        If the tables are of different cells.
    """
    if list(student["row"]) != list(teacher["row"]):
        raise DataError("retention: the two tables hold different cells; predict the same cells with both")
    counts = [counts_by_donor(table) for table in (student, teacher)]
    n, hits = counts[1].sum(axis=2), [np.trace(table, axis1=1, axis2=2) for table in counts]  # n: (donors, classes)

    def ratios(rows: np.ndarray) -> tuple[float, float]:
        cells = n[rows].sum(axis=0)
        of_student, of_teacher = (correct[rows].sum() / cells.sum() for correct in hits)
        majority = cells.max() / cells.sum()
        return of_student / of_teacher, lift(of_student, majority) / lift(of_teacher, majority)

    drawn = intervals.resample_donors(donor_strata(counts[1]), n_bootstrap, np.random.default_rng(seed))
    low, high = np.nanquantile([ratios(rows) for rows in drawn], [0.025, 0.975], axis=0)
    observed = ratios(np.arange(len(n)))
    values = {}
    for i, name in enumerate(("by accuracy", "by lift")):
        values |= {name: observed[i], f"{name} low": low[i], f"{name} high": high[i]}
    return values


def counts_by_donor(predictions: pd.DataFrame) -> np.ndarray:
    """Confusion counts of each donor: donors (sorted) x true x predicted class."""
    names = class_names(predictions)
    code, donors = pd.factorize(predictions["donor"], sort=True)
    true, predicted = (pd.Categorical(predictions[column], names).codes for column in ("true", "predicted"))
    counts = np.zeros((len(donors), len(names), len(names)))
    np.add.at(counts, (code, true, predicted), 1)
    return counts


def macro_f1(counts: np.ndarray) -> float:
    """Macro-F1 of counts, true x predicted; a class that is neither there nor predicted counts 0."""
    return float(_scores(counts)[3].mean())


def donor_strata(counts: np.ndarray) -> np.ndarray:
    """Stratum of each donor, from `counts_by_donor`: its class if each donor is in one class, else 0 for all."""
    n = counts.sum(axis=2)
    nested = ((n > 0).sum(axis=1) == 1).all()
    return n.argmax(axis=1) if nested else np.zeros(len(n), int)


def share_of_donors_correct(table: pd.DataFrame) -> dict[str, float]:
    """Share of donors predicted correctly, with Clopper-Pearson's 95% interval: ``value``, ``low``, ``high``, ``n``."""
    correct = int((table["true"] == table["predicted"]).sum())
    low, high = intervals.binomial_interval(correct, len(table))
    return {"value": correct / len(table), "low": low, "high": high, "n": len(table)}


def probability_calibration(
    predictions: pd.DataFrame, *, n_bins: int = CALIBRATION_BINS
) -> tuple[pd.DataFrame, dict[str, float]]:
    """Calibration of the highest predicted probability: whether it equals the share of correct predictions.

    Returns
    -------
    A row a non-empty bin of the highest probability: ``said`` (mean probability), ``right`` (share), ``cells``; and
    ``error`` (expected calibration error: mean absolute difference of the two over cells), ``brier`` (mean squared
    distance of probabilities from the truth, summed over classes) and ``majority_brier`` (of predicting the classes'
    shares for every cell).
    """
    names = class_names(predictions)
    p = predictions[[f"p_{name}" for name in names]].to_numpy()
    truth = (predictions["true"].to_numpy()[:, None] == np.array(names)).astype(float)
    top, correct = p.max(axis=1), (predictions["true"] == predictions["predicted"]).to_numpy()
    bin_of = np.minimum((top * n_bins).astype(int), n_bins - 1)
    table = pd.DataFrame({"bin": bin_of, "said": top, "right": correct.astype(float)})
    table = table.groupby("bin").agg(said=("said", "mean"), right=("right", "mean"), cells=("said", "size"))
    error = ((table["said"] - table["right"]).abs() * table["cells"]).sum() / table["cells"].sum()
    brier, baseline = (np.square(guess - truth).sum(axis=1).mean() for guess in (p, truth.mean(axis=0)))
    summary = {"error": float(error), "brier": float(brier), "majority_brier": float(baseline)}
    return table.reset_index(drop=True), summary


def printed_bounds(shares: pd.DataFrame) -> tuple[pd.DataFrame, pd.DataFrame, pd.DataFrame]:
    """Printed shares as numbers, and the smallest and the largest shares that round to them.

    Parameters
    ----------
    shares
        True x predicted class, as printed (strings, so that the last digit is known).
    """
    half = shares.map(lambda word: 0.5 * 10.0 ** -len(str(word).partition(".")[2]))
    value = shares.astype(float)
    return value, (value - half).clip(lower=0), value + half


def scores_from_shares(shares: pd.DataFrame, sizes: pd.Series) -> pd.DataFrame:
    """Scores that follow from the rounded row shares of a printed confusion matrix.

    Parameters
    ----------
    shares
        True x predicted class, as printed (strings, so that the last digit is known).
    sizes
        Cells of each true class.

    Returns
    -------
    A row a score (``accuracy``, and precision, recall and F1 of each class): ``score``, ``value``, and ``low`` and
    ``high``, its range over all matrices that round to the printed one.
    """
    n = sizes[shares.index]
    middle, low, high = (table.mul(n, axis=0) for table in printed_bounds(shares))
    rows = [("accuracy", *(np.trace(table) / n.sum() for table in (middle, low, high)))]
    for name in shares.index:
        for kind in ("precision", "recall", "F1"):
            # A class's score is highest where its hits are most and its false positives fewest.
            corners = [(middle, middle), (low, high), (high, low)]
            values = []
            for hits, others in corners:
                hit, false = hits.at[name, name], others[name].drop(name).sum()
                bottom = {"precision": hit + false, "recall": n[name], "F1": (n[name] + hit + false) / 2}[kind]
                values.append(hit / bottom)
            rows.append((f"{kind}, {name}", *values))
    return pd.DataFrame(rows, columns=["score", "value", "low", "high"])
