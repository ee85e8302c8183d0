"""Scores of cell classifiers over held-out donors: intervals where donors are enough, and the donors themselves."""

from collections.abc import Iterable, Mapping

import numpy as np
import pandas as pd

from epigen_utils.stats import intervals, multiclass, permutation


def smallest_class(predictions: pd.DataFrame) -> int:
    """Number of donors that an interval rests on: of the class with fewest, or all if donors are in several classes."""
    pairs = predictions[["donor", "true"]].drop_duplicates()
    nested = not pairs["donor"].duplicated().any()
    return int(pairs["true"].value_counts().min() if nested else pairs["donor"].nunique())


def score_tables(predictions: Mapping[str, pd.DataFrame], *, seed: int = 0) -> dict[str, pd.DataFrame]:
    """Scores of each model, from `multiclass.scores_with_intervals`, indexed by the score.

    An interval over fewer donors than `intervals.LEAST_UNITS` is NaN; for accuracy and macro-F1 each class counts.
    """
    tables = {}
    for name, cells in predictions.items():
        table = multiclass.scores_with_intervals(cells, seed=seed).set_index("score")
        n_donors = table["donors"].where(~table.index.isin(["accuracy", "macro-F1"]), smallest_class(cells))
        table.loc[n_donors < intervals.LEAST_UNITS, ["low", "high"]] = np.nan
        tables[name] = table
    return tables


def model_summary(
    tables: Mapping[str, pd.DataFrame], permuted: Mapping[str, pd.DataFrame] | None = None
) -> pd.DataFrame:
    """One row a model: macro-F1 and accuracy with their intervals, and macro-F1 on permuted labels.

    Parameters
    ----------
    tables
        Result of `score_tables`.
    permuted
        Scores of each model on permuted labels, from `folds.cross_validate`.

    Returns
    -------
    ``model``; ``macro-F1``, ``low``, ``high``; ``accuracy``, ``accuracy low``, ``accuracy high``; with ``permuted``
    also ``shuffled`` (mean over permutations), ``shuffles`` (their number) and ``p`` (NaN with fewer than
    `permutation.MIN_PERMUTATIONS`).
    """
    rows = []
    for name, table in tables.items():
        row = {"model": name, "macro-F1": table.at["macro-F1", "value"]}
        row |= {end: table.at["macro-F1", end] for end in ("low", "high")}
        row |= {"accuracy": table.at["accuracy", "value"]}
        row |= {f"accuracy {end}": table.at["accuracy", end] for end in ("low", "high")}
        if permuted is not None:
            scores, n_shuffles = permuted[name], len(permuted[name]) - 1
            row |= {"shuffled": scores["macro_f1"][1:].mean(), "shuffles": n_shuffles}
            row |= {"p": scores["p"][0] if n_shuffles >= permutation.MIN_PERMUTATIONS else np.nan}
        rows.append(row)
    return pd.DataFrame(rows)


def interval_words(predictions: pd.DataFrame) -> str:
    """What a caption says of the intervals: over how many donors they are, or why there are none."""
    n, smallest = predictions["donor"].nunique(), smallest_class(predictions)
    if smallest >= intervals.LEAST_UNITS:
        return f"95% intervals by bootstrap over {n} donors"
    if smallest == n:
        return f"no intervals, since there are only {n} donors"
    return f"no intervals, since the class with fewest donors has {smallest} of {n}"


def accuracy_by_donor(predictions: Mapping[str, pd.DataFrame]) -> pd.DataFrame:
    """Accuracy of each model in the cells of each donor: ``model``, ``donor``, ``class``, ``cells``, ``accuracy``.

    The class of a donor whose cells are of several is empty.
    """
    rows = []
    for name, cells in predictions.items():
        for donor, part in cells.groupby("donor", observed=True):
            classes = part["true"].unique()
            correct = (part["true"] == part["predicted"]).mean()
            rows.append((name, donor, classes[0] if len(classes) == 1 else "", len(part), correct))
    return pd.DataFrame(rows, columns=["model", "donor", "class", "cells", "accuracy"])


def retention_table(
    predictions: Mapping[str, pd.DataFrame], students: Iterable[str], teacher: str, *, seed: int = 0
) -> pd.DataFrame:
    """What each student retains of its teacher (`multiclass.retention`), without intervals over too few donors.

    Retention by lift is NaN where the teacher has none, since it is not better than naming the largest class.
    """
    few = smallest_class(predictions[teacher]) < intervals.LEAST_UNITS
    truth = predictions[teacher]["true"]
    has_lift = (predictions[teacher]["predicted"] == truth).sum() > truth.value_counts().max()
    rows = []
    for name in students:
        with np.errstate(divide="ignore", invalid="ignore"):
            row = multiclass.retention(predictions[name], predictions[teacher], seed=seed)
        if few:
            row |= {key: np.nan for key in row if key.endswith((" low", " high"))}
        if not has_lift:
            row |= {key: np.nan for key in row if key.startswith("by lift")}
        rows.append({"model": name} | row)
    return pd.DataFrame(rows)


def macro_f1_gaps(
    predictions: Mapping[str, pd.DataFrame],
    pairs: Iterable[tuple[str, str]],
    *,
    n_bootstrap: int = 1000,
    seed: int = 0,
) -> pd.DataFrame:
    """Difference in macro-F1 of pairs of models on the same cells, with a 95% bootstrap interval over donors.

    Returns
    -------
    A row a pair: ``model``, ``against``, ``difference`` (of the first less the second), ``low``, ``high`` (NaN if
    donors are too few) and ``apart`` (whether the interval leaves 0 out).
    """
    counts = {name: multiclass.counts_by_donor(cells) for name, cells in predictions.items()}
    rows = []
    for first, second in pairs:
        both = counts[first], counts[second]
        strata = multiclass.donor_strata(counts[first])
        drawn = intervals.resample_donors(strata, n_bootstrap, np.random.default_rng(seed))
        low, high = np.quantile([_gap(both, donors) for donors in drawn], [0.025, 0.975])
        if smallest_class(predictions[first]) < intervals.LEAST_UNITS:
            low = high = np.nan
        difference = _gap(both, np.arange(len(strata)))
        rows.append((first, second, difference, low, high, bool(low > 0 or high < 0)))
    return pd.DataFrame(rows, columns=["model", "against", "difference", "low", "high", "apart"])


def describe_gap(gap: pd.Series) -> str:
    """A row of `macro_f1_gaps` as words."""
    side = "above" if gap["difference"] > 0 else "below"
    words = f"{abs(gap['difference']):.2f} {side} {gap['against']}"
    if pd.isna(gap["low"]):
        return words + " (too few donors for an interval)"
    words += f" (95% interval of the difference {gap['low']:+.2f} to {gap['high']:+.2f}"
    return words + (")" if gap["apart"] else ", which includes 0)")


def unnamed_classes(predictions: Mapping[str, pd.DataFrame]) -> dict[str, list[str]]:
    """Classes that a model gives to fewer than one in a hundred cells, of the models that have such classes."""
    found = {}
    for name, cells in predictions.items():
        shares = cells["predicted"].value_counts(normalize=True)
        found[name] = [level for level in multiclass.class_names(cells) if shares.get(level, 0.0) < 0.01]
    return {name: levels for name, levels in found.items() if levels}


def confidence(predictions: pd.DataFrame, healthy: str, *, seed: int = 0) -> dict[str, float]:
    """Mean probability of the predicted class in correctly predicted diseased cells: ``value``, ``n``, its interval.

    The interval is a bootstrap over donors; it is left out with too few donors.
    """
    right = predictions[(predictions["true"] == predictions["predicted"]) & (predictions["true"] != healthy)]
    if right.empty:
        return {"value": np.nan, "n": 0}
    top = right[[f"p_{name}" for name in multiclass.class_names(right)]].max(axis=1).to_numpy()
    rng = np.random.default_rng(seed)
    mean, low, high, n_donors = intervals.bootstrap_mean(top, right["donor"].to_numpy(), n_bootstrap=1000, rng=rng)
    return {"value": mean, "n": len(right)} | ({"low": low, "high": high} if n_donors >= intervals.LEAST_UNITS else {})


def _gap(counts: tuple[np.ndarray, np.ndarray], donors: np.ndarray) -> float:
    """Macro-F1 of the first model less that of the second, in the cells of some donors."""
    first, second = (multiclass.macro_f1(table[donors].sum(axis=0)) for table in counts)
    return first - second
