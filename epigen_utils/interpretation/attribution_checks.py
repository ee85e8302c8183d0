"""Checks of attributions: recovery of planted genes in simulated cohorts, and comparison with untrained models.

Adebayo et al. 2018 (arXiv:1810.03292): an attribution that looks the same for a model with random weights does not
explain the trained model.
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

#: Settings with which a small model classifies the simulated cohorts correctly; only then can attributions be judged.
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
    """How well each way to score genes separates genes of the class from as many that a nuisance factor changes.

    Half of the donors are for training; ``max_explained`` samples of the other half are explained, alternating between
    classes. A gene's score is its mean rank over ``n_models`` seeds of weights and order.

    Returns
    -------
    A row a cohort, model and way: ``seed``, ``model`` (``trained``, ``random weights``, or ``no model`` for tests and
    forests), ``way``, ``auroc`` of planted genes, and ``auc`` of the model on the held-out samples.
    """
    rows = []
    for seed in seeds:
        simulated = cohort(seed)
        parts = representations.halves(simulated, n_genes=len(simulated.genes), seed=seed)
        (train, test), y = parts.tables, parts.labels[0].to_numpy()
        explained = test.iloc[representations.of_both_classes(parts.labels[1], max_explained)]
        changed = simulated.adata.varm["log2_fold_change"].loc[list(train.columns)] != 0
        either, planted = changed.any(axis=1).to_numpy(), set(changed.index[changed["case"]])
        for name in ("trained", "random weights"):
            models = _models(classifier, train, y, name == "trained", range(seed * n_models, (seed + 1) * n_models))
            scores = [
                biomarkers.model_scores(model, explained, train, simulated.positive, max_occluded=max_occluded)
                for model in models
            ]
            p = np.mean([evaluation.probability_of(model, test, simulated.positive) for model in models], axis=0)
            auc = representations.held_auc(parts, p)["auc"]
            rank_sums = sum(table.rank() for table in scores)
            rows += _rows(seed, name, rank_sums[either], planted, auc)
        baseline_scores = biomarkers.plain_scores(train, y, seed=seed)
        rows += _rows(seed, "no model", baseline_scores[either], planted, np.nan)
    return pd.DataFrame(rows)


def _models(
    classifier: GPT2Classifier, values: pd.DataFrame, y: np.ndarray, trained: bool, seeds: range
) -> list[GPT2Classifier]:
    models = [clone(classifier).set_params(seed=classifier.seed + seed) for seed in seeds]
    return [model.fit(values, y) if trained else model.untrained(values, y) for model in models]


def _rows(seed: int, model: str, scores: pd.DataFrame, planted: set[str], auc: float) -> list[dict]:
    aurocs = attribution.recovered(scores, planted)
    return [{"seed": seed, "model": model, "way": way, "auroc": auroc, "auc": auc} for way, auroc in aurocs.items()]


def over_cohorts(table: pd.DataFrame) -> pd.DataFrame:
    """Mean over the cohorts of `known_truth`, with a 95% interval.

    Returns
    -------
    A row a way and model: ``way``, ``model``, ``auroc``, ``auroc low``, ``auroc high``, ``cohorts``.
    """
    return sample_scores.over_cohorts(table, ["way", "model"], "auroc")


def beyond_random(table: pd.DataFrame) -> pd.DataFrame:
    """AUROC of trained models compared with that of models with random weights, on the same cohorts.

    Returns
    -------
    A row a way: ``way``; ``trained`` and ``random weights`` (mean AUROC); ``difference``, ``low``, ``high`` (paired by
    cohort, Student's 95%); ``random is chance`` (whether the interval of random weights contains 0.5).
    """
    rows = []
    wide = table.pivot(index=["way", "seed"], columns="model", values="auroc").dropna(subset=["trained"])
    for way, aurocs in wide.groupby("way", sort=False):
        difference = sample_scores.over_seeds((aurocs["trained"] - aurocs["random weights"]).to_numpy())
        mean, low, high = sample_scores.over_seeds(aurocs["random weights"].to_numpy())
        row = {"way": way, "trained": aurocs["trained"].mean(), "random weights": mean}
        row |= dict(zip(("difference", "low", "high"), difference, strict=True))
        rows.append(row | {"random is chance": bool(low <= 0.5 <= high)})
    return pd.DataFrame(rows)


def in_words(over: pd.DataFrame, beyond: pd.DataFrame, auc: float) -> str:
    """Summary of `over_cohorts` and `beyond_random` in sentences.

    Parameters
    ----------
    auc
        AUC of the trained models on held-out samples.
    """
    auroc = over.set_index(["model", "way"])["auroc"]
    ways = ("occlusion", "integrated gradients", "gradient x input", "attention")
    by_way = ", ".join(f"{auroc['trained', way]:.2f} by {way}" for way in ways)
    at_chance, better = int(beyond["random is chance"].sum()), int((beyond["low"] > 0).sum())
    return (
        f"There the models tell held-out samples apart with an AUC of {auc:.2f}. The genes that make the class are "
        f"found with an AUROC of {by_way}, and {auroc['no model', 'random forest']:.2f} by a random forest's "
        f"importances. Of {len(beyond)} ways {better} find surely more in trained weights than in random ones; with "
        f"random weights the interval of {at_chance} holds 0.5."
    )


def aligned_halves(
    models: dict[str, GPT2Classifier],
    values: pd.DataFrame,
    halves: dict[str, list[str]],
    *,
    n_permutations: int = attention.PERMUTATIONS,
    seed: int = 0,
) -> pd.DataFrame:
    """BAAM of the halves of a gene set in the last layer, without intervals.

    Parameters
    ----------
    halves
        The genes that the loss was trained with, and the held-out ones; each half is compared with genes outside both.

    Returns
    -------
    A row a model and half: ``model``, ``half``, ``seed`` and the columns of `attention.baam`.
    """
    rows = []
    for name, model in models.items():
        readout = sentence_attention.read(model, values)
        for half, members in halves.items():
            others = [gene for other, genes in halves.items() if other != half for gene in genes]
            # The hybrid loss aligns the mean over the heads of the last layer.
            scores = readout.paid[-1].mean(axis=0)  # (samples, genes)
            scores = np.where(np.isin(readout.genes, others), np.nan, scores)
            options = {"name": half, "n_permutations": n_permutations, "n_bootstrap": 0, "seed": seed}
            row = attention.baam(scores, readout.places, np.isin(readout.genes, members), **options)
            rows.append({"model": name, "half": half, "seed": seed, **row})
    return pd.DataFrame(rows)


def of_fold(
    parts: Halves, classifier: GPT2Classifier, *, max_explained: int = 0, max_occluded: int = 0
) -> pd.DataFrame:
    """Gene scores (`biomarkers.model_scores`) of a model trained on one fold and explained on its held-out samples."""
    model = clone(classifier).fit(parts.tables[0], parts.labels[0].to_numpy())
    explained = parts.tables[1].iloc[representations.of_both_classes(parts.labels[1], max_explained)]
    return biomarkers.model_scores(model, explained, parts.tables[0], parts.cohort.positive, max_occluded=max_occluded)


def stabilities(runs: dict[str, list[pd.DataFrame]], *, given: pd.Series) -> pd.DataFrame:
    """Stability (`attribution.stability`) of every way to score genes, for each kind of runs.

    Parameters
    ----------
    given
        Scores of a test, which the last column controls for.

    Returns
    -------
    A row a way and kind of runs: ``way``, ``between`` (the kind), ``mean``, ``low``, ``high``, ``pairs``,
    ``beyond the test`` (mean partial correlation given the test's scores).
    """
    rows = []
    for way in next(iter(runs.values()))[0].columns:
        for kind, tables in runs.items():
            scores = [table[way] for table in tables]
            beyond = attribution.stability(scores, given=given)["mean"]
            rows.append({"way": way, "between": kind, **attribution.stability(scores), "beyond the test": beyond})
    return pd.DataFrame(rows)
