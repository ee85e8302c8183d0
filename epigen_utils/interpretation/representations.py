"""Representations of the same samples: counts, and GPT-2's embeddings before and after fine-tuning.

Paper A, section III.C and Figure 4. Fine-tuning can separate the training samples by whatever labels it is given; so
the embedding of training samples is compared with that of held-out samples, and that of a model trained with permuted
labels.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd
from sklearn.base import clone
from sklearn.metrics import adjusted_rand_score, pairwise_distances, silhouette_score

from epigen_utils.errors import DataError
from epigen_utils.expression import fold_selection, normalisation
from epigen_utils.gpt2 import sentence_states
from epigen_utils.gpt2.classifier import GPT2Classifier
from epigen_utils.prediction.sample_cohort import SampleCohort
from epigen_utils.stats import clustering, folds, intervals, permutation, projections, two_classes

#: Names of the representations, in the order of the book's figures.
RAW_COUNTS, VST, LOG2_GENES, UNTRAINED = "raw counts", "VST", "log2 of the model's genes", "untrained GPT-2"
HELD_OUT, TRAINING_SAMPLES, SHUFFLED_LABELS, SHUFFLED_READOUT = (
    "fine-tuned, held out",
    "fine-tuned, its training samples",
    "permuted labels, its training samples",
    "permuted labels, its read-out state",
)


@dataclass(frozen=True)
class CohortSplit:
    """A training and a held-out part of a cohort that share no donor, or no experiment.

    Attributes
    ----------
    rows
        Positions of the training and of the held-out samples in the cohort.
    tables
        Log2 expression of both, samples x genes; the training samples determine the size factors and the genes.
    labels, units, groups
        Classes and donors of both, and the units by which labels are permuted: experiments if any, else donors.
    """

    cohort: SampleCohort
    rows: tuple[np.ndarray, np.ndarray]
    tables: tuple[pd.DataFrame, pd.DataFrame]
    labels: tuple[pd.Series, pd.Series]

    @property
    def units(self) -> tuple[np.ndarray, np.ndarray]:
        return tuple(self.cohort.units[part] for part in self.rows)

    @property
    def groups(self) -> tuple[np.ndarray, np.ndarray]:
        return tuple(self.cohort.groups[part] for part in self.rows)


@dataclass(frozen=True)
class Representation:
    """Samples x features, their classes, and whether the model was trained with these classes.

    ``groups``, by which labels are permuted, are the samples' experiments if any, else their donors.
    """

    table: pd.DataFrame
    labels: pd.Series
    groups: np.ndarray
    trained_with_labels: bool = False


def split_cohort(
    cohort: SampleCohort,
    *,
    n_genes: int,
    by: str = "variance",
    always: Iterable[str] = (),
    n_splits: int = 2,
    fold: int = 0,
    seed: int = 0,
) -> CohortSplit:
    """Split a cohort into a training part and one held-out fold.

    Parameters
    ----------
    n_genes, by
        Number of genes, and the criterion that selects them in the training samples (`fold_selection.SELECTIONS`).
    always
        Genes that are always selected.
    fold
        Index among the folds that leave enough samples on both sides.

    Raises
    ------
    DataError
        If the cohort cannot be split (`folds.feasible_n_splits`), or no split leaves two training samples of each
        class and three held-out samples of both classes.
    """
    n_splits = folds.feasible_n_splits(cohort.y, cohort.groups, n_splits)
    splits = folds.donor_folds(cohort.y, cohort.groups, n_splits=n_splits, seed=seed)
    usable = [split for split in splits if _enough(cohort.y, *split)]
    if fold >= len(usable):
        sizes = ", ".join(f"{n} {name!r}" for name, n in cohort.sizes().items())
        raise DataError(
            f"{cohort.name}: {sizes}: too few to train on two of each class and to hold out three, of both"
            f"{', in more than one way' if usable else ''}; give more samples or donors"
        )
    return split_of_rows(cohort, *usable[fold], n_genes=n_genes, by=by, always=always)


def split_of_rows(
    cohort: SampleCohort,
    train: np.ndarray,
    test: np.ndarray,
    *,
    n_genes: int,
    by: str = "variance",
    always: Iterable[str] = (),
) -> CohortSplit:
    """Training and held-out samples at given positions; the other parameters are those of `split_cohort`."""
    rows = train, test
    selection = fold_selection.FoldPipeline(None, cohort.genes, n_genes, by, always=tuple(always))
    tables = selection.tables(cohort.values[train], cohort.y[train], cohort.values[test])
    tables = tuple(table.set_axis(cohort.adata.obs_names[part]) for table, part in zip(tables, rows, strict=True))
    levels = list(cohort.sizes())
    labels = [
        pd.Series(pd.Categorical(cohort.y[part], levels), table.index) for table, part in zip(tables, rows, strict=True)
    ]
    return CohortSplit(cohort, rows, tables, tuple(labels))


def _enough(y: np.ndarray, train: np.ndarray, test: np.ndarray) -> bool:
    n_train, n_test = (np.unique(y[part], return_counts=True)[1] for part in (train, test))
    return len(n_train) == len(n_test) == 2 and n_train.min() >= 2 and n_test.sum() >= 3


def alternate_classes(labels: Sequence[str], max_samples: int = 0) -> np.ndarray:
    """Positions of at most ``max_samples`` samples (0: all), classes in turn, each class in its original order.

    Where rows are sorted by class, as in simulated tables, the first rows alone would be of one class.
    """
    labels = np.asarray(labels).astype(str)
    turn = pd.Series(labels).groupby(labels).cumcount().to_numpy()
    return np.lexsort([labels, turn])[: max_samples or None]


def compute_representations(
    split: CohortSplit, classifier: GPT2Classifier, *, layer: int = -1, pooling: str = "mean"
) -> tuple[dict[str, Representation], dict[str, GPT2Classifier]]:
    """Every representation by name, and the models, by the names of the representations of their training samples.

    Raw counts and VST (`normalisation.vst`, blind) comprise all genes of the held-out samples. The read-out state is
    the last gene's in the last layer, from which the class is read.
    """
    (train, test), (y, y_test), (groups, groups_test) = split.tables, split.labels, split.groups
    adata = split.cohort.adata[split.rows[1]].copy()
    tuned, untrained = clone(classifier).fit(train, y.to_numpy()), clone(classifier).untrained(train, y.to_numpy())
    permuted = uninformative_permutation(y.to_numpy(), groups, seed=classifier.seed)
    permuted = pd.Series(pd.Categorical(permuted, y.cat.categories), y.index)
    mistrained = clone(classifier).fit(train, permuted.to_numpy())

    def embedded(model: GPT2Classifier, values: pd.DataFrame) -> pd.DataFrame:
        return sentence_states.sample_embeddings(model, values, layer=layer, pooling=pooling)

    readout = sentence_states.sample_embeddings(mistrained, train, layer=0, pooling="last")

    representations = {
        RAW_COUNTS: Representation(normalisation.count_table(adata), y_test, groups_test),
        VST: Representation(normalisation.vst(adata), y_test, groups_test),
        LOG2_GENES: Representation(test, y_test, groups_test),
        UNTRAINED: Representation(embedded(untrained, test), y_test, groups_test),
        HELD_OUT: Representation(embedded(tuned, test), y_test, groups_test),
        TRAINING_SAMPLES: Representation(embedded(tuned, train), y, groups, trained_with_labels=True),
        SHUFFLED_LABELS: Representation(embedded(mistrained, train), permuted, groups, trained_with_labels=True),
        SHUFFLED_READOUT: Representation(readout, permuted, groups, trained_with_labels=True),
    }
    return representations, {TRAINING_SAMPLES: tuned, SHUFFLED_LABELS: mistrained}


def states_of_all_samples(
    cohort: SampleCohort, classifier: GPT2Classifier, *, n_genes: int, layer: int = -1, pooling: str = "mean"
) -> Representation:
    """States of all samples by a model that was fine-tuned on all of them, as Figure 4 may have been drawn."""
    every = np.arange(len(cohort.y))
    parts = split_of_rows(cohort, every, every, n_genes=n_genes)
    values, labels = parts.tables[0], parts.labels[0]
    model = clone(classifier).fit(values, labels.to_numpy())
    states = sentence_states.sample_embeddings(model, values, layer=layer, pooling=pooling)
    return Representation(states, labels, cohort.groups, trained_with_labels=True)


def uninformative_permutation(
    labels: np.ndarray, groups: np.ndarray, *, n_permutations: int = 49, seed: int = 0
) -> np.ndarray:
    """Of ``n_permutations`` permutations by group, the one whose adjusted Rand index with the labels is nearest to 0.

    With few samples, a single random permutation is often the true labels or their mirror image.
    """
    permutations = permutation.permuted_labels(labels, donors=groups, n_permutations=n_permutations, seed=seed)
    return min(permutations, key=lambda permuted: abs(adjusted_rand_score(labels, permuted)))


def class_separation(
    by_name: dict[str, Representation], *, n_permutations: int = 999, seed: int = 0
) -> tuple[pd.DataFrame, dict[str, pd.DataFrame]]:
    """How far apart the classes lie in each representation.

    Returns
    -------
    The planes of the first two components by name, second; first a table with a row a representation:
        ``representation``, ``samples``, ``features``
        ``PC1``, ``PC1 + PC2``: shares of the variance
        ``noise``: share of two components in noise of the same shape
        ``silhouette`` in the plane of PC1 and PC2
        ``p``: its permutation p, by donor or within experiments; missing if the model was trained with the classes
        ``smallest p`` that the permutations allow; missing likewise
        ``overlap``: number of samples nearer to the other class's mean than to their own
        ``in all dimensions``: silhouette in the full space
    """
    rows, planes = [], {}
    for name, representation in by_name.items():
        table, classes = representation.table, representation.labels.astype(str)
        planes[name], shares = projections.pca(table)
        row = {"representation": name, "samples": len(classes), "features": table.shape[1], "PC1": shares[0]}
        row["PC1 + PC2"] = shares[:2].sum()
        row["noise"] = projections.noise_variance_share(*table.shape, n_draws=20, seed=seed)
        row |= {"silhouette": float(silhouette_score(planes[name], classes)), "p": np.nan, "smallest p": np.nan}
        if not representation.trained_with_labels:
            options = {"donors": representation.groups, "n_permutations": n_permutations, "seed": seed}
            test = clustering.silhouette_test(planes[name], classes, **options)
            row |= {"p": test["p"], "smallest p": test["smallest_p"]}
        row["overlap"] = count_overlapping(planes[name], classes)
        rows.append(row | {"in all dimensions": float(silhouette_score(table.to_numpy(float), classes))})
    return pd.DataFrame(rows), planes


def separation_difference(
    plane: pd.DataFrame,
    other_plane: pd.DataFrame,
    representation: Representation,
    *,
    n_permutations: int = 999,
    seed: int = 0,
) -> dict[str, float]:
    """How much further apart the classes lie in one plane than in another plane of the same samples.

    Returns
    -------
    ``value``, the difference of the silhouettes, and its permutation ``p``: labels are permuted by donor, or within
    experiments, in both planes alike.
    """
    # Distances once, not for every permutation.
    distances, other_distances = (pairwise_distances(points.to_numpy()) for points in (plane, other_plane))
    observed, p, _ = permutation.permutation_test(
        lambda labels: (
            silhouette_score(distances, labels, metric="precomputed")
            - silhouette_score(other_distances, labels, metric="precomputed")
        ),
        representation.labels.astype(str).to_numpy(),
        donors=representation.groups,
        n_permutations=n_permutations,
        seed=seed,
    )
    return {"value": float(observed), "p": p}


def memorisation(
    model: GPT2Classifier,
    values: pd.DataFrame,
    trained: Representation,
    plane: pd.DataFrame,
    *,
    n_permutations: int = 999,
    seed: int = 0,
) -> dict[str, float]:
    """How far a model trained on permuted labels, and a plane of its states, show these labels.

    Parameters
    ----------
    values
        Its training samples, log2 expression.
    trained
        The representation in the plane, with the labels that the model was trained with.

    Returns
    -------
    ``accuracy`` (share of the labels that the model predicts), ``majority`` (that of the commonest label),
    ``silhouette`` of the labels in the plane, and its permutation ``p``.
    """
    classes, labels = np.asarray(model.classes_), trained.labels.astype(str)
    predicted = classes[model.predict_proba(values).argmax(axis=1)] == labels.to_numpy()
    options = {"donors": trained.groups, "n_permutations": n_permutations, "seed": seed}
    test = clustering.silhouette_test(plane, trained.labels, **options)
    majority = float(labels.value_counts(normalize=True).max())
    found = {"accuracy": float(predicted.mean()), "majority": majority}
    return found | {"silhouette": test["value"], "p": test["p"]}


def describe_memorisation(mean_state: dict[str, float], readout: dict[str, float]) -> str:
    """What a figure of training samples shows of the permuted labels that the model was trained with.

    Parameters
    ----------
    mean_state, readout
        `memorisation` in the plane that the page draws, and in that of the read-out state.
    """

    def shown(test: dict[str, float]) -> str:
        return f"{test['silhouette']:.2f} (p {test['p']:.2g})"

    # Two tests at 5% together.
    if min(mean_state["p"], readout["p"]) <= 0.025:
        lesson = "A figure of training samples can thus show permuted labels; only held-out samples distinguish "
        lesson += "permuted from true labels."
    elif mean_state["accuracy"] > mean_state["majority"]:
        lesson = f"Always predicting the majority label would give {mean_state['majority']:.0%}: the model has "
        lesson += "memorised permuted labels, and neither figure shows it."
    else:
        lesson = "It has not memorised them, since always predicting the majority label would give "
        lesson += f"{mean_state['majority']:.0%}, and neither figure shows them."
    return (
        f"The model trained on permuted labels predicts {mean_state['accuracy']:.0%} of them correctly on its training "
        f"samples. The silhouette by these labels is {shown(mean_state)} in the states that the figure draws, and "
        f"{shown(readout)} in the state from which the class is read. {lesson}"
    )


def describe_learning(auc: dict[str, float]) -> str:
    """Whether a model has learned to separate the classes, by `held_out_auc`."""
    text = f"On the held-out samples its AUC is {auc['auc']:.2f} (95% interval {auc['low']:.2f} to {auc['high']:.2f})"
    if auc["low"] > 0.5:
        return f"{text}: it has learned to separate the classes."
    return (
        f"{text}, which does not lie above 0.5: **this model has not learned to separate the classes.** The rest of "
        "this page shows how the methods work; its results are not findings about these data."
    )


def count_overlapping(plane: pd.DataFrame, classes: pd.Series) -> int:
    """Number of samples of a plane that are nearer to the other class's mean than to their own."""
    points, labels = plane.to_numpy(), classes.astype(str).to_numpy()
    names = np.unique(labels)
    means = np.array([points[labels == name].mean(axis=0) for name in names])
    distances = np.linalg.norm(points[:, None] - means, axis=2)  # (samples, classes)
    nearest = names[distances.argmin(axis=1)]
    return int((nearest != labels).sum())


def planar_layouts(table: pd.DataFrame, *, perplexity: float, seed: int = 0) -> dict[str, pd.DataFrame]:
    """The same samples by PCA, t-SNE and UMAP, samples x 2 each."""
    umap = projections.umap(table.to_numpy(float), seed=seed)
    return {
        "PCA": projections.pca(table)[0],
        "t-SNE": projections.tsne(table, perplexity=perplexity, seed=seed),
        "UMAP": pd.DataFrame(umap, table.index, ["UMAP 1", "UMAP 2"]),
    }


def training_trajectory(
    split: CohortSplit, classifier: GPT2Classifier, *, epochs: list[float], layer: int = -1, pooling: str = "mean"
) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Samples over the course of training, in one plane: PC1 and PC2 of the training samples of all times.

    Returns
    -------
    A row a sample and time (``epochs``, ``part``, ``sample``, ``class``, ``PC1``, ``PC2``); and a row a part and time
    (``epochs``, ``part``, ``silhouette`` in all dimensions).
    """
    train = (split.tables[0], split.labels[0].to_numpy())
    options = {"epochs": epochs, "layer": layer, "pooling": pooling}
    states = {
        part: sentence_states.embeddings_over_training(classifier, train, values, **options)
        for part, values in zip(("training", "held out"), split.tables, strict=True)
    }
    stacked = np.concatenate([table.to_numpy() for table in states["training"].values()])
    centre = stacked.mean(axis=0)
    axes = np.linalg.svd(stacked - centre, full_matrices=False)[2][:2]
    rows, summary = [], []
    for (part, by_epoch), labels in zip(states.items(), split.labels, strict=True):
        for n, table in by_epoch.items():
            plane = (table.to_numpy() - centre) @ axes.T  # (samples, 2)
            row = pd.DataFrame({"epochs": n, "part": part, "sample": table.index, "class": labels.array})
            rows.append(row.assign(PC1=plane[:, 0], PC2=plane[:, 1]))
            value = float(silhouette_score(table.to_numpy(), labels.astype(str)))
            summary.append({"epochs": n, "part": part, "silhouette": value})
    return pd.concat(rows, ignore_index=True), pd.DataFrame(summary)


def held_out_auc(split: CohortSplit, probabilities: np.ndarray) -> dict[str, float]:
    """AUC on held-out samples with Newcombe's interval, which counts each donor once: ``auc``, ``low``, ``high``."""
    truth = split.labels[1].to_numpy() == split.cohort.positive
    auc = two_classes.roc_auc(np.asarray(probabilities), truth)
    sizes = [len(np.unique(split.units[1][members])) for members in (truth, ~truth)]
    low, high = intervals.auc_interval(auc, *sizes, n_folds=1)
    return {"auc": auc, "low": low, "high": high}
