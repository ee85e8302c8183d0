"""Models compared on held-out bulk samples: scores, permutations, ablations, learning curves, controls."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass

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
    """`folds.repeat_cross_validation` of every sample, with donor-wise or experiment-wise folds."""
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
    permuted labels), ``permutations`` (their number), ``p`` of the first division and ``smallest p`` (of the best
    permutation, the observed labels included; both missing if there are too few permutations for 0.05); and the
    predictions by model.
    """
    rows, predictions = [], {}
    for name, estimator in estimators.items():
        predictions[name] = predict_out_of_fold(cohort, estimator, n_splits=n_splits, n_repeats=n_repeats, seed=seed)
        row = two_classes.scores_over_repeats(predictions[name], cohort.positive, seed=seed)
        m = n_permutations if isinstance(n_permutations, int) else n_permutations.get(name, 0)
        row |= {"shuffled": np.nan, "permutations": m, "p": np.nan, "smallest p": np.nan}
        if m:
            null = permuted_label_aucs(cohort, estimator, n_splits=n_splits, n_permutations=m, seed=seed)
            first = predictions[name][predictions[name]["repeat"] == 0]
            observed = two_classes.pooled_scores(first, cohort.positive)["auc"]
            row |= {"shuffled": null.mean(), "permutations": len(null)}
            if m >= permutation.MIN_PERMUTATIONS:
                every = np.append(null, observed)
                row |= {"p": permutation.pvalue(observed, null), "smallest p": (every >= every.max() - 1e-12).mean()}
        rows.append({"data set": cohort.name, "model": name, **row})
    return pd.DataFrame(rows), predictions


@dataclass(frozen=True)
class Comparison:
    """A model beside the strongest baseline with the same selection of genes.

    Attributes
    ----------
    ours, baseline
        Their rows of `compare_models`, by column; the model is their name.
    difference
        AUC of the first less that of the second (`paired_difference`).
    """

    ours: pd.Series
    baseline: pd.Series
    difference: dict[str, float]


def against_plain_models(
    comparison: pd.DataFrame,
    predictions: dict[str, pd.DataFrame],
    cohort: sample_cohort.SampleCohort,
    *,
    name: str = "GPT-2",
    by: str = fold_selection.SELECTIONS[1],
) -> Comparison:
    """A model on one data set beside the baseline with the highest AUC among those with the same genes.

    Parameters
    ----------
    comparison, predictions
        Of `compare_models`; the predictions are of this data set.
    by
        Selection of genes (`fold_selection.pipelines_by_selection`).
    """
    rows = comparison[comparison["data set"] == cohort.name].set_index("model")
    rows = rows[rows.index.str.endswith(f", by {by}")]
    ours = rows.loc[f"{name}, by {by}"]
    plain = rows.drop(index=ours.name)
    baseline = plain.loc[plain["auc"].idxmax()]
    tables = (predictions[row.name] for row in (ours, baseline))
    return Comparison(ours, baseline, paired_difference(*tables, cohort.positive))


def paired_difference(predictions: pd.DataFrame, baseline: pd.DataFrame, positive: str) -> dict[str, float]:
    """`two_classes.auc_difference`; no interval (NaN) where it is the same in all folds, which tells nothing of spread.

    Such folds are those of two models that both rank every sample correctly.
    """
    change = two_classes.auc_difference(predictions, baseline, positive)
    # Folds that are the same may differ by rounding.
    return change | ({"low": np.nan, "high": np.nan} if np.isclose(change["low"], change["high"]) else {})


def pretraining_gains(
    predictions: dict[str, pd.DataFrame], pairs: dict[str, tuple[str, str]], positive: str
) -> pd.DataFrame:
    """What published weights give over random weights of the same network, in the same folds.

    Parameters
    ----------
    predictions
        Out-of-fold predictions by name (`compare_models`).
    pairs
        Network -> names of the predictions with published and with random weights.

    Returns
    -------
    A row a network: ``network``, ``published`` and ``random`` (AUCs, means over divisions), ``difference``, ``low``,
    ``high`` (`paired_difference`), ``n``.
    """
    rows = []
    for network, names in pairs.items():
        aucs = [
            np.mean([two_classes.pooled_scores(part, positive)["auc"] for _, part in table.groupby("repeat")])
            for table in (predictions[name] for name in names)
        ]
        row = {"network": network, "published": aucs[0], "random": aucs[1]}
        change = paired_difference(*(predictions[name] for name in names), positive)
        rows.append(row | change | {"n": predictions[names[0]]["row"].nunique()})
    return pd.DataFrame(rows, columns=["network", "published", "random", "difference", "low", "high", "n"])


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


def training_auc(cohort: sample_cohort.SampleCohort, estimator: object) -> float:
    """AUC of a model on the samples that it was trained on, all of the cohort."""
    model = clone(estimator).fit(cohort.values, cohort.y)
    p = folds.class_probability(model, cohort.values, cohort.positive)
    return two_classes.roc_auc(p, cohort.y == cohort.positive)


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
    A row a variant, the base first: ``data set``, ``variant``, ``n`` (samples), ``auc``, ``auc low``, ``auc high``, and
    ``difference`` from the base by fold with `` low`` and `` high`` (`paired_difference`).
    """
    options = {"n_splits": n_splits, "n_repeats": n_repeats, "seed": seed}
    table, predictions = compare_models(cohort, variants | {"": base}, **options)
    rows = []
    for scores in table.sort_values("model", key=lambda names: names != "", kind="stable").to_dict("records"):
        variant = scores["model"]
        row = {"data set": cohort.name, "variant": variant or "GPT-2: bins, cross entropy, random start"}
        row |= {name: scores[name] for name in ("n", "auc", "auc low", "auc high")}
        if variant:
            change = paired_difference(predictions[variant], predictions[""], cohort.positive)
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


def _nested_subsets(
    y: np.ndarray, train: np.ndarray, sizes: list[int], largest: int, rng: np.random.Generator
) -> Iterator[tuple[int, np.ndarray]]:
    orders = [rng.permutation(train[y[train] == name]) for name in sorted(set(y))]
    for size in sizes:
        if size <= largest:
            yield size or largest, np.sort(np.concatenate([order[: size or None] for order in orders]))
