"""The same samples as counts, as GPT-2 sees them untrained, and as it sees them after fine-tuning: paper A, section III.C and Figure 4.

A model that is fine-tuned on labels can lay its training samples out by them, whatever they mean; so the picture of training samples
stands beside one of samples that the model has not seen, and one of a model that was told shuffled labels.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd
from sklearn.base import clone
from sklearn.metrics import adjusted_rand_score, silhouette_score

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
    labels, units, groups
        Classes and donors of both; and what labels are permuted by: experiments where there are any, else donors.
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
    """Samples x features, with the classes that they are coloured by; whether the model was told these classes.

    ``groups`` are the samples' experiments where there are any, else their donors: labels are permuted by them.
    """

    table: pd.DataFrame
    labels: pd.Series
    groups: np.ndarray
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
    fold
        Which of the folds, of those that leave enough on both sides.

    Raises
    ------
    DataError
        If the cohort cannot be held out in part (`sample_scores.check_folds`), or not so that two samples of each class are left to learn
        from and three, of both classes, are held out.
    """
    n_splits = sample_scores.check_folds(cohort.y, cohort.groups, n_splits)
    folds = list(evaluation.donor_folds(cohort.y, cohort.groups, n_splits=n_splits, seed=seed))
    able = [pair for pair in folds if _enough(cohort.y, *pair)]
    if fold >= len(able):
        sizes = ", ".join(f"{n} {name!r}" for name, n in cohort.sizes().items())
        raise DataError(
            f"{cohort.name}: {sizes}: too few to learn from two of each class and to hold out three, of both"
            f"{', in more than one way' if able else ''}; give more samples or donors"
        )
    rows = able[fold]
    given = cohort.counts[rows[0]], cohort.y[rows[0]], cohort.counts[rows[1]]
    tables = in_fold.InFold(None, cohort.genes, n_genes, by, always=tuple(always)).tables(*given)
    levels = list(cohort.sizes())
    named = [table.set_axis(cohort.adata.obs_names[part]) for table, part in zip(tables, rows, strict=True)]
    labels = [
        pd.Series(pd.Categorical(cohort.y[part], levels), table.index) for table, part in zip(named, rows, strict=True)
    ]
    return Halves(cohort, rows, tuple(named), tuple(labels))


def _enough(y: np.ndarray, train: np.ndarray, held: np.ndarray) -> bool:
    learned, asked = (np.unique(y[part], return_counts=True)[1] for part in (train, held))
    return len(learned) == len(asked) == 2 and learned.min() >= 2 and asked.sum() >= 3


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
    told = meaningless(y.to_numpy(), parts.groups[0], seed=classifier.seed)
    shuffled = pd.Series(pd.Categorical(told, y.cat.categories), y.index)
    misled = clone(classifier).fit(train, shuffled.to_numpy())

    def seen(model: GPT2Classifier, values: pd.DataFrame) -> pd.DataFrame:
        return sentence_states.of_samples(model, values, layer=layer, pooling=pooling)

    groups, of_held = parts.groups
    found = {
        RAW: Representation(expression.counts(adata), y_held, of_held),
        STABLE: Representation(expression.vst(adata), y_held, of_held),
        SAME: Representation(held, y_held, of_held),
        FRESH: Representation(seen(fresh, held), y_held, of_held),
        HELD: Representation(seen(made, held), y_held, of_held),
        SEEN: Representation(seen(made, train), y, groups, told=True),
        SHUFFLED: Representation(seen(misled, train), shuffled, groups, told=True),
    }
    return found, made


def meaningless(labels: np.ndarray, groups: np.ndarray, *, n: int = 49, seed: int = 0) -> np.ndarray:
    """Labels permuted by group that say as little as can be of the true ones: of ``n``, those whose adjusted Rand index is nearest to 0.

    Of few samples, labels that are drawn blindly are often the true ones, or their mirror image.
    """
    drawn = evaluation.labelings(labels, donors=groups, n_permutations=n, seed=seed)
    return min(drawn, key=lambda new: abs(adjusted_rand_score(labels, new)))


def apart(
    shown: dict[str, Representation], *, n_permutations: int = 999, seed: int = 0
) -> tuple[pd.DataFrame, dict[str, pd.DataFrame]]:
    """How far apart the classes lie in each representation.

    Returns
    -------
    A row a representation: ``representation``, ``samples``, ``features``, ``PC1``, ``PC1 + PC2`` (shares of the variance), ``noise`` (what
    two components have of noise, for as many samples and features), ``silhouette`` in the plane of both, its permutation ``p`` (by donor, or
    within experiments) and the ``smallest p`` that these labelings allow (both missing where the model was told the classes), ``overlap``
    (samples nearer to the other class's mean than to their own) and ``in all dimensions``; and the planes.
    """
    rows, planes = [], {}
    for name, one in shown.items():
        planes[name], shares = embedding.pca(one.table)
        words = one.labels.astype(str)
        row = {"representation": name, "samples": len(words), "features": one.table.shape[1], "PC1": shares[0]}
        row |= {"PC1 + PC2": shares[:2].sum(), "noise": embedding.noise_share(*one.table.shape, n_draws=20, seed=seed)}
        if one.told:
            row |= {"silhouette": float(silhouette_score(planes[name], words)), "p": np.nan, "smallest p": np.nan}
        else:
            test = {"donors": one.groups, "n_permutations": n_permutations, "seed": seed}
            found = evaluation.silhouette(planes[name], one.labels, **test)
            row |= {"silhouette": found["value"], "p": found["p"], "smallest p": found["smallest_p"]}
        row["overlap"] = _overlapping(planes[name].to_numpy(), words.to_numpy())
        rows.append(row | {"in all dimensions": float(silhouette_score(one.table.to_numpy(float), words))})
    return pd.DataFrame(rows), planes


def further_apart(
    one: pd.DataFrame, other: pd.DataFrame, shown: Representation, *, n_permutations: int = 999, seed: int = 0
) -> dict[str, float]:
    """How much further apart the classes lie in one plane than in another plane of the same samples.

    Returns
    -------
    ``value``, the difference of the silhouettes, and its permutation ``p``; labels are permuted as `apart` does, for both planes alike.
    """
    observed, p, _ = evaluation.permutation_pvalue(
        lambda new: silhouette_score(one.to_numpy(), new) - silhouette_score(other.to_numpy(), new),
        shown.labels.astype(str).to_numpy(),
        donors=shown.groups,
        n_permutations=n_permutations,
        seed=seed,
    )
    return {"value": float(observed), "p": p}


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
    """AUC on the held-out samples, with Newcombe's interval, in which donors count once: ``auc``, ``low``, ``high``."""
    truth = parts.labels[1].to_numpy() == parts.cohort.positive
    auc = evaluation.auc(np.asarray(probabilities), truth)
    sizes = [len(np.unique(parts.units[1][of])) for of in (truth, ~truth)]
    low, high = sample_scores.auc_interval(auc, *sizes, folds=1)
    return {"auc": auc, "low": low, "high": high}
