"""The same samples as counts, as GPT-2 sees them untrained, and as it sees them after fine-tuning: paper A, section III.C and Figure 4.

A model that is fine-tuned on labels can lay its training samples out by them, whatever they mean; so the picture of training samples
stands beside one of samples that the model has not seen, and one of a model that was told shuffled labels.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd
from sklearn.base import clone
from sklearn.metrics import silhouette_score

from epigen_utils import embedding, evaluation, expression, in_fold, sample_scores, sentence_states
from epigen_utils.errors import DataError
from epigen_utils.sample_cohorts import SampleCohort
from epigen_utils.sentence_classes import GPT2Classifier

#: In the order of the book's figures.
RAW, STABLE, SAME, FRESH = "raw counts", "VST", "log2 of the model's genes", "untrained GPT-2"
HELD, SEEN, SHUFFLED = (
    "fine-tuned, held out",
    "fine-tuned, its training samples",
    "shuffled labels, its training samples",
)


@dataclass(frozen=True)
class Halves:
    """A cohort in two parts that share no donor, or no experiment; each with its log2 expression of the chosen genes.

    Attributes
    ----------
    rows
        Positions of the training and of the held-out samples in the cohort.
    tables
        Samples x genes of both; size factors and genes are of the training samples.
    labels, units
        Classes and donors of both.
    """

    cohort: SampleCohort
    rows: tuple[np.ndarray, np.ndarray]
    tables: tuple[pd.DataFrame, pd.DataFrame]
    labels: tuple[pd.Series, pd.Series]
    units: tuple[np.ndarray, np.ndarray]


@dataclass(frozen=True)
class Representation:
    """Samples x features, with the classes that they are coloured by and their donors; whether the model was told these classes."""

    table: pd.DataFrame
    labels: pd.Series
    units: np.ndarray
    told: bool = False


def halves(
    cohort: SampleCohort,
    *,
    n_genes: int,
    by: str = "variance",
    always: Iterable[str] = (),
    n_splits: int = 2,
    fold: int = 0,
    seed: int = 0,
) -> Halves:
    """Hold out one of the folds of a cohort.

    Parameters
    ----------
    n_genes, by
        How many genes, and by what they are chosen in the training samples (`in_fold.SELECTIONS`).
    always
        Genes that are among these whatever they do.

    Raises
    ------
    DataError
        If the cohort cannot be held out in part (`sample_scores.check_folds`), or not with two samples of each class.
    """
    n_splits = sample_scores.check_folds(cohort.y, cohort.groups, n_splits)
    rows = list(evaluation.donor_folds(cohort.y, cohort.groups, n_splits=n_splits, seed=seed))[fold]
    for part, name in zip(rows, ("learn from", "hold out"), strict=True):
        classes, sizes = np.unique(cohort.y[part], return_counts=True)
        if len(classes) < 2 or sizes.min() < 2:
            few = str(classes[sizes.argmin()]) if len(classes) == 2 else "one of the classes"
            raise DataError(f"{cohort.name}: fewer than two samples of {few!r} to {name}; give more samples or donors")
    given = cohort.counts[rows[0]], cohort.y[rows[0]], cohort.counts[rows[1]]
    asked = np.flatnonzero(np.isin(cohort.genes, list(always)))
    made = in_fold.InFold(None, cohort.genes, max(n_genes - len(asked), 0), by)
    tables = made.tables(*given)
    if len(asked):
        chosen = np.union1d(made.chosen_, asked)
        tables = in_fold.InFold(None, cohort.genes, chosen=chosen).tables(*given)
    levels = list(cohort.sizes())
    named = [table.set_axis(cohort.adata.obs_names[part]) for table, part in zip(tables, rows, strict=True)]
    labels = [
        pd.Series(pd.Categorical(cohort.y[part], levels), table.index) for table, part in zip(named, rows, strict=True)
    ]
    return Halves(cohort, rows, tuple(named), tuple(labels), tuple(cohort.units[part] for part in rows))


def of_both_classes(labels: Sequence[str], most: int = 0) -> np.ndarray:
    """Positions of samples, the classes by turns, each in its own order; so many at most, 0 for all.

    The first of a table would be of one class where its rows are sorted by class, as simulated ones are.
    """
    labels = np.asarray(labels).astype(str)
    turn = pd.Series(labels).groupby(labels).cumcount().to_numpy()
    return np.lexsort([labels, turn])[: most or None]


def of_halves(
    parts: Halves, classifier: GPT2Classifier, *, layer: int = -1, pooling: str = "mean"
) -> tuple[dict[str, Representation], GPT2Classifier]:
    """Every representation by name, and the fine-tuned model.

    Raw counts and VST (`expression.vst`, blind) are of all the held-out samples' genes.
    """
    (train, held), (y, y_held) = parts.tables, parts.labels
    adata = parts.cohort.adata[parts.rows[1]].copy()
    made, fresh = clone(classifier).fit(train, y.to_numpy()), clone(classifier).untrained(train, y.to_numpy())
    told = next(evaluation.labelings(y.to_numpy(), donors=parts.units[0], n_permutations=1, seed=classifier.seed))
    shuffled = pd.Series(pd.Categorical(told, y.cat.categories), y.index)
    misled = clone(classifier).fit(train, shuffled.to_numpy())

    def seen(model: GPT2Classifier, values: pd.DataFrame) -> pd.DataFrame:
        return sentence_states.of_samples(model, values, layer=layer, pooling=pooling)

    units, of_held = parts.units
    found = {
        RAW: Representation(expression.counts(adata), y_held, of_held),
        STABLE: Representation(expression.vst(adata), y_held, of_held),
        SAME: Representation(held, y_held, of_held),
        FRESH: Representation(seen(fresh, held), y_held, of_held),
        HELD: Representation(seen(made, held), y_held, of_held),
        SEEN: Representation(seen(made, train), y, units, told=True),
        SHUFFLED: Representation(seen(misled, train), shuffled, units, told=True),
    }
    return found, made


def apart(
    shown: dict[str, Representation], *, n_permutations: int = 999, seed: int = 0
) -> tuple[pd.DataFrame, dict[str, pd.DataFrame]]:
    """How far apart the classes lie in each representation.

    Returns
    -------
    A row a representation: ``representation``, ``samples``, ``features``, ``PC1``, ``PC1 + PC2`` (shares of the variance), ``noise`` (what
    two components have of noise, for as many samples and features), ``silhouette`` in the plane of both, its permutation ``p`` (by donor;
    missing where the model was told the classes), ``overlap`` (samples nearer to the other class's mean than to their own) and ``in all
    dimensions``; and the planes.
    """
    rows, planes = [], {}
    for name, one in shown.items():
        planes[name], shares = embedding.pca(one.table)
        words = one.labels.astype(str)
        row = {"representation": name, "samples": len(words), "features": one.table.shape[1], "PC1": shares[0]}
        row |= {"PC1 + PC2": shares[:2].sum(), "noise": embedding.noise_share(*one.table.shape, n_draws=20, seed=seed)}
        row |= {"silhouette": float(silhouette_score(planes[name], words)), "p": np.nan}
        if not one.told:
            test = {"donors": one.units, "n_permutations": n_permutations, "seed": seed}
            row["p"] = evaluation.silhouette(planes[name], one.labels, **test)["p"]
        row["overlap"] = _overlapping(planes[name].to_numpy(), words.to_numpy())
        rows.append(row | {"in all dimensions": float(silhouette_score(one.table.to_numpy(float), words))})
    return pd.DataFrame(rows), planes


def _overlapping(points: np.ndarray, labels: np.ndarray) -> int:
    names = np.unique(labels)
    means = np.array([points[labels == name].mean(axis=0) for name in names])
    nearest = names[np.linalg.norm(points[:, None] - means, axis=2).argmin(axis=1)]
    return int((nearest != labels).sum())


def layouts(table: pd.DataFrame, *, perplexity: float, seed: int = 0) -> dict[str, pd.DataFrame]:
    """The same samples by PCA, t-SNE and UMAP, samples x 2 each."""
    flat = embedding.umap(table.to_numpy(float), seed=seed)
    return {
        "PCA": embedding.pca(table)[0],
        "t-SNE": embedding.tsne(table, perplexity=perplexity, seed=seed),
        "UMAP": pd.DataFrame(flat, table.index, ["UMAP 1", "UMAP 2"]),
    }


def trajectory(
    parts: Halves, classifier: GPT2Classifier, *, epochs: list[float], layer: int = -1, pooling: str = "mean"
) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Where samples lie as training goes on, in one plane for all of it: the components of all training samples at all times.

    Returns
    -------
    A row a sample and time (``epochs``, ``part``, ``sample``, ``class``, ``PC1``, ``PC2``), and a row a part and time: ``epochs``, ``part``,
    ``silhouette`` in all dimensions.
    """
    rows, summary, paths = [], [], {}
    for part, values in zip(("training", "held out"), parts.tables, strict=True):
        options = {"epochs": epochs, "layer": layer, "pooling": pooling}
        train = (parts.tables[0], parts.labels[0].to_numpy())
        paths[part] = sentence_states.over_training(classifier, train, values, **options)
    stacked = np.concatenate([table.to_numpy() for table in paths["training"].values()])
    centre = stacked.mean(axis=0)
    axes = np.linalg.svd(stacked - centre, full_matrices=False)[2][:2]
    for (part, path), labels in zip(paths.items(), parts.labels, strict=True):
        for n, table in path.items():
            plane = (table.to_numpy() - centre) @ axes.T
            row = pd.DataFrame({"epochs": n, "part": part, "sample": table.index, "class": labels.array})
            rows.append(row.assign(PC1=plane[:, 0], PC2=plane[:, 1]))
            value = float(silhouette_score(table.to_numpy(), labels.astype(str)))
            summary.append({"epochs": n, "part": part, "silhouette": value})
    return pd.concat(rows, ignore_index=True), pd.DataFrame(summary)


def held_auc(parts: Halves, probabilities: np.ndarray) -> dict[str, float]:
    """AUC on the held-out samples, with Newcombe's interval: ``auc``, ``low``, ``high``."""
    truth = parts.labels[1].to_numpy() == parts.cohort.positive
    auc = evaluation.auc(np.asarray(probabilities), truth)
    low, high = sample_scores.auc_interval(auc, int(truth.sum()), int((~truth).sum()), folds=1)
    return {"auc": auc, "low": low, "high": high}
