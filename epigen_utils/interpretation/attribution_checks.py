"""Checks of attributions: recovery of planted genes in simulated cohorts, and comparison with untrained models.

Adebayo et al. 2018 (arXiv:1810.03292): an attribution that looks the same for a model with random weights does not
explain the trained model.
"""

from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pandas as pd
from sklearn.base import clone

from epigen_utils.gpt2 import readout_attention
from epigen_utils.gpt2.classifier import FINE_TUNING_SETTINGS, GPT2Classifier
from epigen_utils.interpretation import alignment, attribution, biomarkers, representations
from epigen_utils.interpretation.representations import CohortSplit
from epigen_utils.prediction import sample_cohort
from epigen_utils.prediction.sample_cohort import SampleCohort
from epigen_utils.stats import folds, intervals

#: Settings with which a small model classifies the simulated cohorts correctly; only then can attributions be judged.
#: They take 240 steps, and no checkpoint.
SIMULATION_SETTINGS = replace(FINE_TUNING_SETTINGS, learning_rate=2e-3, batch_size=16, epochs=30.0, save_every=1000)


def recovery_in_simulations(
    classifier: GPT2Classifier,
    *,
    seeds: range,
    max_explained: int = 48,
    max_occluded: int = 12,
    cohort: Callable[[int], SampleCohort] = lambda seed: sample_cohort.simulated_cohort_with_nuisance(seed, 16),
) -> pd.DataFrame:
    """How well each way to score genes separates genes of the class from as many that a nuisance factor changes.

    Half of the donors are for training; ``max_explained`` samples of the other half are explained, alternating between
    classes.

    Returns
    -------
    A row a cohort, model and way: ``seed``, ``model`` (``trained``, ``random weights``, or ``no model`` for tests and
    forests), ``way``, ``auroc`` of planted genes, and ``auc`` of the model on the held-out samples.
    """
    rows = []
    for seed in seeds:
        simulated = cohort(seed)
        parts = representations.split_cohort(simulated, n_genes=len(simulated.genes), seed=seed)
        (train, test), y = parts.tables, parts.labels[0].to_numpy()
        explained = test.iloc[representations.alternate_classes(parts.labels[1], max_explained)]
        changed = simulated.adata.varm["log2_fold_change"].loc[list(train.columns)] != 0
        either, planted = changed.any(axis=1).to_numpy(), set(changed.index[changed["case"]])
        start = clone(classifier).set_params(seed=classifier.seed + seed)
        models = {"trained": clone(start).fit(train, y), "random weights": start.untrained(train, y)}
        for name, model in models.items():
            p = folds.class_probability(model, test, simulated.positive)
            auc = representations.held_out_auc(parts, p)["auc"]
            options = {"max_occluded": max_occluded}
            scores = biomarkers.scores_from_model(model, explained, train, simulated.positive, **options)
            rows += _recovery_rows(seed, name, scores[either], planted, auc)
        baseline_scores = biomarkers.scores_without_model(train, y, seed=seed)
        rows += _recovery_rows(seed, "no model", baseline_scores[either], planted, np.nan)
    return pd.DataFrame(rows)


def _recovery_rows(seed: int, model: str, scores: pd.DataFrame, planted: set[str], auc: float) -> list[dict]:
    aurocs = attribution.planted_auroc(scores, planted)
    return [{"seed": seed, "model": model, "way": way, "auroc": auroc, "auc": auc} for way, auroc in aurocs.items()]


def compare_with_random_weights(table: pd.DataFrame) -> pd.DataFrame:
    """AUROC of trained models compared with that of models with random weights, on the same cohorts.

    Returns
    -------
    A row a way: ``way``; ``trained`` and ``random weights`` (mean AUROC); ``difference``, ``low``, ``high`` (paired by
    cohort, Student's 95%); ``random is`` (``at chance`` if the interval of random weights contains 0.5, else ``below
    chance`` or ``above chance``) and ``trained is`` likewise.
    """
    rows = []
    wide = table.pivot(index=["way", "seed"], columns="model", values="auroc").dropna(subset=["trained"])
    for way, aurocs in wide.groupby("way", sort=False):
        difference = intervals.student_interval((aurocs["trained"] - aurocs["random weights"]).to_numpy())
        row = {"way": way} | {kind: aurocs[kind].mean() for kind in ("trained", "random weights")}
        row |= dict(zip(("difference", "low", "high"), difference, strict=True))
        row |= {f"{kind.split()[0]} is": _side_of_chance(aurocs[kind]) for kind in ("random weights", "trained")}
        rows.append(row)
    return pd.DataFrame(rows)


def _side_of_chance(aurocs: pd.Series) -> str:
    _, low, high = intervals.student_interval(aurocs.to_numpy())
    if np.isnan(low):
        return "not known"
    return "below chance" if high < 0.5 else "above chance" if low > 0.5 else "at chance"


def recovery_summary(recovery: pd.DataFrame, comparison: pd.DataFrame, auc: float) -> str:
    """Summary of `recovery_in_simulations`, its means over cohorts and `compare_with_random_weights`, in sentences.

    Parameters
    ----------
    auc
        AUC of the trained models on held-out samples.
    """
    auroc = recovery.set_index(["model", "way"])["auroc"]
    ways = ("occlusion", "integrated gradients", "gradient x input", "attention")
    by_way = ", ".join(f"{auroc['trained', way]:.2f} by {way}" for way in ways)
    more = comparison["low"] > 0
    learned = more & (comparison["trained is"] == "above chance") & (comparison["random is"] != "below chance")
    text = (
        f"There the models separate held-out samples with an AUC of {auc:.2f}. The genes that determine the class are "
        f"recovered with an AUROC of {by_way}, and {auroc['no model', 'random forest']:.2f} by a random forest's "
        f"importances. In trained weights {learned.sum()} of {len(comparison)} scores recover these genes above "
        "chance, and better than in random weights by the interval of the paired difference."
    )
    if below := list(comparison.loc[comparison["random is"] == "below chance", "way"]):
        text += (
            f" With random weights {' and '.join(below)} {'lies' if len(below) == 1 else 'lie'} below chance: part of "
            "that difference is a bias of the random weights, so it is not counted."
        )
    return text


def describe_stability_gain(trained: pd.Series, untrained: pd.Series, gain: float, low: float, high: float) -> str:
    """What seeds agree on beyond a test, from rows of `stability_table` and `attribution.stability_gain`."""
    if np.isnan(gain):
        return "With one model, agreement between seeds cannot be computed."
    text = (
        "After DESeq2's statistic is partialled out, occlusion agrees between seeds at "
        f"{trained['beyond the test']:.2f} (trained) and {untrained['beyond the test']:.2f} (random weights). "
    )
    if np.isnan(low):
        excess = (
            "there is none" if gain <= 0 else f"it is {gain:.2f} here, without an interval, which needs three seeds"
        )
    else:
        excess = f"it is {gain:+.2f} (95% interval over seeds {low:+.2f} to {high:+.2f})"
    return f"{text}Only an excess of trained over random weights counts as learned; {excess}."


def alignment_of_halves(
    models: dict[str, GPT2Classifier],
    values: pd.DataFrame,
    halves: dict[str, list[str]],
    *,
    n_permutations: int = alignment.PERMUTATIONS,
    seed: int = 0,
) -> pd.DataFrame:
    """BAAM of the halves of a gene set in the last layer, without intervals.

    Parameters
    ----------
    halves
        The genes that the loss was trained with, and the held-out ones; each half is compared with genes outside both.

    Returns
    -------
    A row a model and half: ``model``, ``half``, ``seed`` and the columns of `alignment.baam`.
    """
    rows = []
    for name, model in models.items():
        readout = readout_attention.compute_attention(model, values)
        for half, members in halves.items():
            others = [gene for other, genes in halves.items() if other != half for gene in genes]
            # The hybrid loss aligns the mean over the heads of the last layer.
            scores = readout.weights[-1].mean(axis=0)  # (samples, genes)
            scores = np.where(np.isin(readout.genes, others), np.nan, scores)
            options = {"name": half, "n_permutations": n_permutations, "seed": seed}
            row = alignment.baam_of_readout(readout, scores, members, **options)
            rows.append({"model": name, "half": half, "seed": seed, **row})
    return pd.DataFrame(rows)


def fold_scores(
    split: CohortSplit, classifier: GPT2Classifier, *, max_explained: int = 0, max_occluded: int = 0
) -> pd.DataFrame:
    """Gene scores (`biomarkers.scores_from_model`) of a model trained on one fold, on its held-out samples."""
    model = clone(classifier).fit(split.tables[0], split.labels[0].to_numpy())
    explained = split.tables[1].iloc[representations.alternate_classes(split.labels[1], max_explained)]
    return biomarkers.scores_from_model(
        model, explained, split.tables[0], split.cohort.positive, max_occluded=max_occluded
    )


def stability_table(runs: dict[str, list[pd.DataFrame]], *, control: pd.Series) -> pd.DataFrame:
    """Stability (`attribution.stability_over_runs`) of every way to score genes, for each kind of runs.

    Parameters
    ----------
    control
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
            beyond = attribution.stability_over_runs(scores, control=control)["mean"]
            rows.append(
                {"way": way, "between": kind, **attribution.stability_over_runs(scores), "beyond the test": beyond}
            )
    return pd.DataFrame(rows)
