"""Models compared on held-out bulk samples: scores, permutations, ablations, learning curves, controls."""

from collections.abc import Callable, Iterator

import numpy as np
import pandas as pd
import sklearn
from sklearn.base import clone

from epigen_utils.expression import fold_selection
from epigen_utils.prediction import sample_cohort
from epigen_utils.stats import attainable, folds, permutation, two_classes


def predict_out_of_fold(
    cohort: sample_cohort.SampleCohort, estimator: object, *, n_splits: int = 5, n_repeats: int = 1, seed: int = 0
) -> pd.DataFrame:
    """`folds.repeat_cross_validation` of every sample, with folds of whole donors or experiments."""
    n_splits = folds.feasible_n_splits(cohort.y, cohort.groups, n_splits)
    # There is only one division that holds out each experiment.
    n_repeats = n_repeats if cohort.batch is None else 1
    options = {"n_splits": n_splits, "n_repeats": n_repeats, "seed": seed, "per_donor": False}
    predictions = folds.repeat_cross_validation(estimator, cohort.values, cohort.y, cohort.groups, **options)
    return predictions.assign(donor=cohort.units[predictions["row"]])


def permuted_label_aucs(
    cohort: sample_cohort.SampleCohort, estimator: object, *, n_splits: int = 5, n_permutations: int, seed: int = 0
) -> np.ndarray:
    """AUC of the same pipeline for permutations of the labels among donors, within experiments if there are any."""
    n_splits = folds.feasible_n_splits(cohort.y, cohort.groups, n_splits)
    y, groups, aucs = cohort.y, cohort.groups, []
    options = {"n_splits": n_splits, "per_donor": False, "seed": seed}
    # The fits to the observed labels checked parameters and values; a forest checks them anew in each of its trees.
    with sklearn.config_context(assume_finite=True, skip_parameter_validation=True):
        for permuted in permutation.permuted_labels(y, donors=groups, n_permutations=n_permutations, seed=seed):
            predictions, _ = folds.cross_validate(estimator, cohort.values, permuted, groups, **options)
            aucs.append(two_classes.pooled_scores(predictions, cohort.positive)["auc"])
    return np.array(aucs)


#: Fewest permutations with which p can be 0.05.
MIN_PERMUTATIONS = 19


def compare_models(
    cohort: sample_cohort.SampleCohort,
    estimators: dict[str, object],
    *,
    n_splits: int = 5,
    n_repeats: int = 1,
    n_permutations: dict[str, int] | int = 0,
    seed: int = 0,
) -> tuple[pd.DataFrame, dict[str, pd.DataFrame]]:
    """Evaluate several models in the same folds.

    Parameters
    ----------
    n_permutations
        Permutations of the labels, for all models or by model.

    Returns
    -------
    A row a model: ``data set``, ``model``, the scores of `two_classes.scores_over_repeats`, ``shuffled`` (mean AUC with
    permuted labels), ``labelings`` (their number) and ``p`` of the first division (missing if there are too few
    permutations for 0.05); and the predictions by model.
    """
    rows, predictions = [], {}
    for name, estimator in estimators.items():
        predictions[name] = predict_out_of_fold(cohort, estimator, n_splits=n_splits, n_repeats=n_repeats, seed=seed)
        row = two_classes.scores_over_repeats(predictions[name], cohort.positive, seed=seed)
        m = n_permutations if isinstance(n_permutations, int) else n_permutations.get(name, 0)
        row |= {"shuffled": np.nan, "labelings": m, "p": np.nan}
        if m:
            null = permuted_label_aucs(cohort, estimator, n_splits=n_splits, n_permutations=m, seed=seed)
            first = predictions[name][predictions[name]["repeat"] == 0]
            observed = two_classes.pooled_scores(first, cohort.positive)["auc"]
            row |= {"shuffled": null.mean(), "labelings": len(null)}
            if m >= MIN_PERMUTATIONS:
                row["p"] = permutation.pvalue(observed, null)
        rows.append({"data set": cohort.name, "model": name, **row})
    return pd.DataFrame(rows), predictions


def auc_on_simulations(
    models: Callable[[sample_cohort.SampleCohort], dict[str, object]],
    *,
    seeds: range,
    changed: dict[str, int],
    n_splits: int = 5,
) -> pd.DataFrame:
    """AUC of models on `sample_cohort.simulated_cohort` cohorts, one a seed, with different numbers of changed genes.

    Parameters
    ----------
    models
        Maps a cohort to estimators by name.
    changed
        Name of a condition -> genes changed in it.

    Returns
    -------
    A row a condition, model and seed: ``planted``, ``model``, ``seed``, ``auc``.
    """
    rows = []
    for name, n_changed in changed.items():
        for seed in seeds:
            cohort = sample_cohort.simulated_cohort(1000 + seed, n_changed)
            for model, estimator in models(cohort).items():
                predictions = predict_out_of_fold(cohort, estimator, n_splits=n_splits, seed=seed)
                auc = two_classes.pooled_scores(predictions, cohort.positive)["auc"]
                rows.append({"planted": name, "model": model, "seed": seed, "auc": auc})
    return pd.DataFrame(rows)


def attainable_scores(
    cohort: sample_cohort.SampleCohort, predictions: pd.DataFrame, *, target: float
) -> dict[str, object]:
    """Resolution of the AUC and of the permutation p-value of a cohort.

    Returns
    -------
    ``data set``, ``samples`` (by class), ``folds``, ``pairs``, ``pairs in one fold`` (within folds, summed over one
    division), ``nearest to <target>`` (the attainable AUC, without ties, nearest to the target), ``smallest p``.
    """
    n_negative, n_positive = cohort.sizes().values()
    n_pairs = two_classes.count_pairs_within_folds(predictions, cohort.positive)
    return {
        "data set": cohort.name,
        "samples": f"{n_negative} v {n_positive}",
        "folds": predictions["fold"].nunique(),
        "pairs": n_negative * n_positive,
        "pairs in one fold": n_pairs,
        f"nearest to {target:.2f}": attainable.nearest_value(np.arange(n_pairs + 1) / n_pairs, target),
        "smallest p": 1 / (1 + permutation.count_permutations(cohort.y, cohort.groups)),
    }


def overfitting(cohort: sample_cohort.SampleCohort, estimator: object, held_out: pd.DataFrame) -> float:
    """AUC of a model on its training samples minus that of ``held_out``, its predictions out of fold."""
    model = clone(estimator).fit(cohort.values, cohort.y)
    p = folds.class_probability(model, cohort.values, cohort.positive)
    training_auc = two_classes.roc_auc(p, cohort.y == cohort.positive)
    return training_auc - two_classes.scores_over_repeats(held_out, cohort.positive, n_bootstrap=1)["auc"]


def selection_inside_and_outside(cohort: sample_cohort.SampleCohort, *, n_genes: int) -> dict[str, object]:
    """Logistic regression with genes selected within the folds, and with genes selected beforehand on all labels."""
    baseline, by = fold_selection.baseline_models()["logistic regression"], fold_selection.SELECTIONS[1]
    return {
        "inside the folds": fold_selection.FoldPipeline(baseline, cohort.genes, n_genes, by),
        "outside": fold_selection.leaking_pipeline(
            baseline, cohort.genes, cohort.values, cohort.y, n_genes=n_genes, by=by
        ),
    }


def ablation(
    cohort: sample_cohort.SampleCohort,
    base: object,
    variants: dict[str, object],
    *,
    n_splits: int = 5,
    n_repeats: int = 1,
    seed: int = 0,
) -> pd.DataFrame:
    """Evaluate a model and its variants in the same folds.

    Returns
    -------
    A row a variant, the base first: ``data set``, ``variant``, ``auc``, ``auc low``, ``auc high``, and ``difference``
    from the base by fold with `` low`` and `` high`` (`two_classes.auc_difference`).
    """
    options = {"n_splits": n_splits, "n_repeats": n_repeats, "seed": seed}
    table, predictions = compare_models(cohort, variants | {"": base}, **options)
    rows = []
    for scores in table.sort_values("model", key=lambda names: names != "", kind="stable").to_dict("records"):
        variant = scores["model"]
        row = {"data set": cohort.name, "variant": variant or "GPT-2: bins, cross entropy, random start"}
        row |= {name: scores[name] for name in ("auc", "auc low", "auc high")}
        if variant:
            change = two_classes.auc_difference(predictions[variant], predictions[""], cohort.positive)
            row |= {"difference": change["difference"]}
            row |= {"difference low": change["low"], "difference high": change["high"]}
        rows.append(row)
    return pd.DataFrame(rows)


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
    rows, splits = [], list(folds.donor_folds(y, groups, n_splits=n_splits, seed=seed))
    largest = min(np.unique(y[train], return_counts=True)[1].min() for train, _ in splits)
    for fold, (train, test) in enumerate(splits):
        for size, subset in _nested_subsets(y, train, sizes, int(largest), np.random.default_rng([seed, fold])):
            for name, estimator in estimators.items():
                model = clone(estimator).fit(X[subset], y[subset])
                p = folds.class_probability(model, X[test], positive)
                row = {"model": name, "per class": size, "samples": len(subset), "fold": fold}
                rows.append(row | {"auc": two_classes.roc_auc(p, y[test] == positive)})
    return pd.DataFrame(rows)


def describe_learning_curve(curve: pd.DataFrame, *, ours: str) -> str:
    """A sentence on `learning_curve`: AUC with the fewest and with all samples, of one model and the best other one."""
    means = curve.groupby(["model", "per class"])["auc"].mean().unstack()
    few, many = means.iloc[:, 0], means.iloc[:, -1]
    most = curve.loc[curve["per class"] == means.columns[-1], "samples"].mean()
    return (
        f"With {means.columns[0]} samples of each class {ours} has an AUC of {few[ours]:.2f}, the better of the plain "
        f"models {few.drop(ours).max():.2f}; with {means.columns[-1]} of the rarer class, {most:.0f} samples in all, "
        f"{many[ours]:.2f} and {many.drop(ours).max():.2f}."
    )


def _nested_subsets(
    y: np.ndarray, train: np.ndarray, sizes: list[int], largest: int, rng: np.random.Generator
) -> Iterator[tuple[int, np.ndarray]]:
    orders = [rng.permutation(train[y[train] == name]) for name in sorted(set(y))]
    for size in sizes:
        if size <= largest:
            yield size or largest, np.sort(np.concatenate([order[: size or None] for order in orders]))
