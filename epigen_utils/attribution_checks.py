"""Whether attributions find the genes that are there to be found: cohorts of which the truth is known, and models that know nothing.

Adebayo et al. 2018 (arXiv:1810.03292): what gives the same picture for a model with random weights says nothing about a model.
"""

from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pandas as pd
from sklearn.base import clone

from epigen_utils import (
    attention,
    attribution,
    biomarkers,
    evaluation,
    representations,
    sample_cohorts,
    sample_scores,
    sentence_attention,
    sentence_classes,
)
from epigen_utils.representations import Halves
from epigen_utils.sample_cohorts import SampleCohort
from epigen_utils.sentence_classes import GPT2Classifier

#: Long and fast enough for a small model to be right on cohorts of known truth: what is explained must be worth explaining.
SETTINGS = replace(sentence_classes.SETTINGS, learning_rate=2e-3, batch_size=16, epochs=30.0)


def known_truth(
    classifier: GPT2Classifier,
    *,
    seeds: range,
    n_models: int = 1,
    max_explained: int = 48,
    max_occluded: int = 12,
    cohort: Callable[[int], SampleCohort] = lambda seed: sample_cohorts.with_decoys(seed, 16),
) -> pd.DataFrame:
    """How well each way to score genes finds those that make the class, among these and as many that a nuisance factor makes vary.

    Half of the samples train, by donor; of the other half ``max_explained`` are explained, of both classes by turns. Scores are mean
    ranks over ``n_models`` seeds of weights and order.

    Returns
    -------
    A row a cohort, model and way: ``seed``, ``model`` (``trained``, ``random weights``, or ``no model`` for tests and forests), ``way``,
    ``auroc`` of planted genes, and ``auc`` of the model on the held-out samples.
    """
    rows = []
    for seed in seeds:
        found = cohort(seed)
        parts = representations.halves(found, n_genes=len(found.genes), seed=seed)
        (train, held), y = parts.tables, parts.labels[0].to_numpy()
        some = held.iloc[representations.of_both_classes(parts.labels[1], max_explained)]
        truth = found.adata.varm["log2_fold_change"].loc[list(train.columns)] != 0
        either, planted = truth.any(axis=1).to_numpy(), set(truth.index[truth["case"]])
        for name in ("trained", "random weights"):
            models = _models(classifier, train, y, name == "trained", range(seed * n_models, (seed + 1) * n_models))
            scores = [
                biomarkers.model_scores(one, some, train, found.positive, max_occluded=max_occluded) for one in models
            ]
            p = np.mean([evaluation.probability_of(one, held, found.positive) for one in models], axis=0)
            auc = representations.held_auc(parts, p)["auc"]
            mean = sum(table.rank() for table in scores)
            rows += _rows(seed, name, mean[either], planted, auc)
        plain = biomarkers.plain_scores(train, y, seed=seed)
        rows += _rows(seed, "no model", plain[either], planted, np.nan)
    return pd.DataFrame(rows)


def _models(
    classifier: GPT2Classifier, values: pd.DataFrame, y: np.ndarray, trained: bool, seeds: range
) -> list[GPT2Classifier]:
    made = [clone(classifier).set_params(seed=classifier.seed + seed) for seed in seeds]
    return [one.fit(values, y) if trained else one.untrained(values, y) for one in made]


def _rows(seed: int, model: str, scores: pd.DataFrame, planted: set[str], auc: float) -> list[dict]:
    found = attribution.recovered(scores, planted)
    return [{"seed": seed, "model": model, "way": way, "auroc": x, "auc": auc} for way, x in found.items()]


def over_cohorts(table: pd.DataFrame) -> pd.DataFrame:
    """`sample_scores.over_cohorts` of `known_truth`: ``way``, ``model``, ``auroc``, ``auroc low``, ``auroc high``, ``cohorts``."""
    return sample_scores.over_cohorts(table, ["way", "model"], "auroc")


def beyond_random(table: pd.DataFrame) -> pd.DataFrame:
    """How much more trained models find than models with random weights, on the same cohorts.

    Returns
    -------
    A row a way: ``way``; ``trained`` and ``random weights`` (mean AUROC); ``difference``, ``low``, ``high`` (Student's 95%, cohort by
    cohort); ``random is chance`` (whether the interval of random weights holds 0.5).
    """
    rows = []
    wide = table.pivot(index=["way", "seed"], columns="model", values="auroc").dropna(subset=["trained"])
    for way, found in wide.groupby("way", sort=False):
        apart = sample_scores.over_seeds((found["trained"] - found["random weights"]).to_numpy())
        mean, low, high = sample_scores.over_seeds(found["random weights"].to_numpy())
        row = {"way": way, "trained": found["trained"].mean(), "random weights": mean}
        row |= dict(zip(("difference", "low", "high"), apart, strict=True))
        rows.append(row | {"random is chance": bool(low <= 0.5 <= high)})
    return pd.DataFrame(rows)


def in_words(over: pd.DataFrame, beyond: pd.DataFrame, auc: float) -> str:
    """What `over_cohorts` and `beyond_random` found, as a page says it.

    Parameters
    ----------
    auc
        Of the trained models on held-out samples.
    """
    found = over.set_index(["model", "way"])["auroc"]
    ways = ("occlusion", "integrated gradients", "gradient x input", "attention")
    by_way = ", ".join(f"{found['trained', way]:.2f} by {way}" for way in ways)
    chance, surely = int(beyond["random is chance"].sum()), int((beyond["low"] > 0).sum())
    return (
        f"There the models tell held-out samples apart with an AUC of {auc:.2f}. The genes that make the class are found with an "
        f"AUROC of {by_way}, and {found['no model', 'random forest']:.2f} by a random forest's importances. "
        f"Of {len(beyond)} ways {surely} find surely more in trained weights than in random ones; with random weights the interval of "
        f"{chance} holds 0.5."
    )


def aligned_halves(
    models: dict[str, GPT2Classifier],
    values: pd.DataFrame,
    halves: dict[str, list[str]],
    *,
    n_permutations: int = attention.PERMUTATIONS,
    seed: int = 0,
) -> pd.DataFrame:
    """BAAM of the halves of a set in the last layer, without intervals: ``model``, ``half``, ``seed`` and what `attention.baam` gives.

    Parameters
    ----------
    halves
        The genes that a loss was told of, and those that it was not; neither is compared with the other.
    """
    rows = []
    for name, one in models.items():
        found = sentence_attention.read(one, values)
        for half, members in halves.items():
            other = np.isin(found.genes, [gene for kind, some in halves.items() if kind != half for gene in some])
            # The hybrid loss aligns the mean over the heads of the last layer.
            scores = np.where(other, np.nan, found.paid[-1].mean(axis=0))
            draws = {"name": half, "n_permutations": n_permutations, "n_bootstrap": 0, "seed": seed}
            row = attention.baam(scores, found.places, np.isin(found.genes, members), **draws)
            rows.append({"model": name, "half": half, "seed": seed, **row})
    return pd.DataFrame(rows)


def of_fold(
    parts: Halves, classifier: GPT2Classifier, *, max_explained: int = 0, max_occluded: int = 0
) -> pd.DataFrame:
    """`biomarkers.model_scores` of one training on a fold and explained on what it held out."""
    made = clone(classifier).fit(parts.tables[0], parts.labels[0].to_numpy())
    held = parts.tables[1].iloc[representations.of_both_classes(parts.labels[1], max_explained)]
    return biomarkers.model_scores(made, held, parts.tables[0], parts.cohort.positive, max_occluded=max_occluded)


def stabilities(runs: dict[str, list[pd.DataFrame]], *, given: pd.Series) -> pd.DataFrame:
    """`attribution.stability` of every way: a row a way and kind of runs.

    Parameters
    ----------
    given
        Scores of a test; what runs agree on beyond it is the last column.

    Returns
    -------
    ``way``, ``between``, ``mean``, ``low``, ``high``, ``pairs``, ``beyond the test`` (mean partial correlation, given its scores).
    """
    rows = []
    for way in next(iter(runs.values()))[0].columns:
        for kind, tables in runs.items():
            scores = [table[way] for table in tables]
            beyond = attribution.stability(scores, given=given)["mean"]
            rows.append({"way": way, "between": kind, **attribution.stability(scores), "beyond the test": beyond})
    return pd.DataFrame(rows)
