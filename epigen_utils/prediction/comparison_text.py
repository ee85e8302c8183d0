"""Sentences on compared models (`model_comparison`)."""

import numpy as np
import pandas as pd

from epigen_utils.stats.permutation import MIN_PERMUTATIONS

#: What the columns of `model_comparison.compare_models` are, for readers of a table.
SCORE_DEFINITIONS = {
    "shuffled": "mean AUC of the same pipeline trained on permuted labels",
    "permutations": "number of permutations of the labels",
    "p": f"{{term}}`permutation p-value` of the first division's AUC; needs at least {MIN_PERMUTATIONS}",
    "smallest p": "smallest p-value possible: that of the best permutation, the observed labels included",
    "f1": "F1 of the class that is not the reference",
    "brier": "{term}`Brier score`, lower is better",
    "n": "number of samples",
    "donors": "number of donors, the units of folds and intervals unless whole experiments are held out",
}


def describe_permutations(n: int, *, model: str = "GPT-2") -> str:
    """A sentence on the permutations of a model's labels, and whether they give it a p-value."""
    permutations = f"{n} permutation{'' if n == 1 else 's'} of the labels"
    if n >= MIN_PERMUTATIONS:
        return f"{model} was also trained on {permutations}, which give its p-value."
    trained = f"was trained on only {permutations}" if n else "was not trained on permuted labels"
    return f"{model} {trained} and has no p-value here, which needs at least {MIN_PERMUTATIONS}."


def describe_difference(change: dict[str, float]) -> str:
    """A difference of AUCs (`model_comparison.paired_difference`) in words, with its interval if it has one.

    Examples
    --------
    >>> from epigen_utils.prediction import comparison_text
    >>> comparison_text.describe_difference({"difference": -0.147, "low": -0.327, "high": 0.034})
    '0.15 lower (95% interval: 0.33 lower to 0.03 higher)'
    """

    def words(value: float) -> str:
        return f"{abs(value):.2f} {'lower' if value < 0 else 'higher'}"

    if np.isnan(change["low"]):
        size = words(change["difference"]) if change["difference"] else "the same"
        return f"{size} (no interval: the folds agree, or there is only one)"
    return f"{words(change['difference'])} (95% interval: {words(change['low'])} to {words(change['high'])})"


def describe_pretraining(gains: pd.DataFrame) -> str:
    """Sentences on `model_comparison.pretraining_gains`, one a network."""
    sentences = []
    for row in gains.to_dict("records"):
        text = f"The published {row['network']} has an AUC of {row['published']:.2f}, the same network with random "
        text += f"weights {row['random']:.2f}; fold by fold the first is {describe_difference(row)}."
        if row["random"] > 1 - 1e-9:
            text += " Random weights are at the ceiling: these samples cannot show an effect of pretraining."
        sentences.append(text)
    return " ".join(sentences)


def describe_against_majority(ours: pd.Series, majority: pd.Series) -> str:
    """Sentences on accuracy and Brier score of a model beside those of the majority classifier.

    Parameters
    ----------
    ours, majority
        Rows of `model_comparison.compare_models`.
    """

    def relation(score: str, higher_is_better: bool) -> str:
        gap = round(ours[score], 2) - round(majority[score], 2)
        return "equal to" if not gap else "better than" if (gap > 0) == higher_is_better else "worse than"

    return (
        f"The accuracy of {ours['accuracy']:.2f} is {relation('accuracy', True)} that of always predicting the "
        f"majority class, {majority['accuracy']:.2f}; the Brier score of {ours['brier']:.2f} (lower is better) is "
        f"{relation('brier', False)} that of always predicting the classes' shares in training, "
        f"{majority['brier']:.2f}."
    )


def describe_ceilings(ablations: pd.DataFrame) -> str:
    """A sentence on data sets on which the unchanged model is at the ceiling; empty if there is none.

    Parameters
    ----------
    ablations
        Of `model_comparison.ablation`, for one or more data sets.
    """
    first = ablations.groupby("data set", sort=False)["auc"].first()
    names = [str(name) for name in first.index[first > 1 - 1e-9]]
    if not names:
        return ""
    return (
        f"On {' and '.join(names)} the unchanged model has an AUC of 1.00, which no variant can exceed: that data set "
        "cannot compare the variants."
    )


def describe_learning_curve(curve: pd.DataFrame, *, ours: str) -> str:
    """AUC by fewest and by all samples, of a model and the best other one (`model_comparison.learning_curve`)."""
    means = curve.groupby(["model", "per class"])["auc"].mean().unstack()
    few, many = means.iloc[:, 0], means.iloc[:, -1]
    most = curve.loc[curve["per class"] == means.columns[-1], "samples"].mean()
    return (
        f"With {means.columns[0]} samples of each class {ours} has an AUC of {few[ours]:.2f}, the better of the two "
        f"baselines {few.drop(ours).max():.2f}; with {means.columns[-1]} of the rarer class, {most:.0f} samples in "
        f"all, {many[ours]:.2f} and {many.drop(ours).max():.2f}."
    )
