"""Prediction of two classes of bulk samples: cohorts, comparison of models out of fold, transfer between data sets."""

from collections.abc import Callable
from dataclasses import dataclass, replace

import anndata
import numpy as np
import pandas as pd
from sklearn.base import clone

from epigen_utils import datasets, evaluation, expression, genes, in_fold, sample_scores, simulate
from epigen_utils.errors import DataError, closest


@dataclass(frozen=True)
class SampleCohort:
    """A data set of samples in two classes.

    Attributes
    ----------
    adata
        Samples x all genes.
    counts
        Values for the models: samples x ``genes``.
    y, positive
        Class of each sample; the class that is not the reference.
    units
        Donor of each sample, or the sample itself.
    batch
        Experiment of each sample, if the registry or the caller names one; else None.
    """

    adata: anndata.AnnData
    counts: np.ndarray
    genes: list[str]
    y: np.ndarray
    positive: str
    units: np.ndarray
    batch: np.ndarray | None

    @property
    def name(self) -> str:
        """Name of the data set."""
        return self.adata.uns["epigen"]["name"]

    @property
    def groups(self) -> np.ndarray:
        """Groups that a fold holds out whole: experiments if there are any, else donors."""
        return self.units if self.batch is None else self.batch

    @property
    def group(self) -> str:
        """Column of the classes."""
        return self.adata.uns["epigen"].get("group") or "group"

    def sizes(self) -> dict[str, int]:
        """Samples of each class, the reference first."""
        sizes = pd.Series(self.y).value_counts()
        return {name: int(sizes[name]) for name in [*sizes.index.drop(self.positive), self.positive]}


def load(dataset: str, *, min_samples: int = 2, human: bool = False, **given) -> SampleCohort:
    """Load a data set in two classes: the reference, and all other levels of its group column.

    Parameters
    ----------
    given
        Options of `datasets.load`.
    min_samples
        Genes with counts in fewer samples are left out; this ignores labels.
    human
        Whether to map genes to human orthologs (`genes.humanised`), if the species is known.

    Raises
    ------
    DataError
        If there is no group column, or one class only.
    """
    adata = datasets.load(dataset, task="counts", **given)
    about = adata.uns["epigen"]
    group = about.get("group")
    if not group:
        raise DataError(f"{dataset}: no group column is named; give one (group)")
    has_species = about["species"] not in ("not applicable", "not stated")
    adata = genes.humanised(adata) if human and has_species else genes.named(adata)
    labels = adata.obs[group].astype(str).to_numpy()
    levels = list(dict.fromkeys(labels))
    if len(levels) < 2:
        raise DataError(f"{dataset}: all {len(labels)} samples are {levels[0]!r}; two classes are needed")
    reference = about.get("reference") or levels[0]
    if reference not in levels:
        raise DataError(f"{dataset}: reference {reference!r} is no level of {group}; there are {', '.join(levels)}")
    others = [level for level in levels if level != reference]
    positive = others[0] if len(others) == 1 else f"not {reference}"
    table = expression.counts(adata)
    table = table.loc[:, (table > 0).sum(axis=0) >= min_samples]
    donor, batch = about.get("donor"), about.get("batch")
    return SampleCohort(
        adata=adata,
        counts=table.to_numpy(),
        genes=[str(gene) for gene in table.columns],
        y=np.where(labels == reference, reference, positive),
        positive=positive,
        units=(adata.obs[donor].astype(str) if donor else adata.obs_names).to_numpy().astype(str),
        batch=adata.obs[batch].astype(str).to_numpy() if batch else None,
    )


#: Sources of a prior over genes: half of the planted genes, half of the panels' genes, or a test in the training fold.
PRIORS = ("planted", "panels", in_fold.SELECTIONS[1])


def prior_genes(cohort: SampleCohort, kind: str) -> tuple[str, ...] | str:
    """Genes that the Attention-Aligned Hybrid Loss rewards attention to.

    Every other gene of a set is taken; those left out can test whether attention finds genes outside the prior.

    Parameters
    ----------
    kind
        Of `PRIORS`; the last is returned unchanged, and each model determines its genes in its training fold.

    Raises
    ------
    DataError
        If the kind is unknown, or the data set has none of its genes.
    """
    if kind not in PRIORS:
        raise DataError(f"prior {kind!r}: {closest(kind, PRIORS)}")
    if kind == in_fold.SELECTIONS[1]:
        return kind
    if kind == "planted":
        truth = cohort.adata.varm.get("log2_fold_change")
        names = [] if truth is None else list(truth.index[(truth != 0).any(axis=1)])
    else:
        names = [gene for members in genes.sets_in_data(cohort.adata, genes.panels()).values() for gene in members]
    names = sorted(set(map(str, names)) & set(cohort.genes))[::2]
    if not names:
        raise DataError(f"{cohort.name}: has no gene of the prior {kind!r}; choose another of {', '.join(PRIORS)}")
    return tuple(names)


def on(cohort: SampleCohort, table: np.ndarray) -> SampleCohort:
    """The same samples with other values, samples x features, in place of the counts."""
    return replace(cohort, counts=np.asarray(table))


def part(cohort: SampleCohort, most: int, seed: int) -> SampleCohort:
    """A random subset of whole donors, stratified by class, of about ``most`` samples; the cohort itself if smaller."""
    if not most or len(cohort.y) <= most:
        return cohort
    n_splits = max(round(len(cohort.y) / most), 2)
    _, rows = next(evaluation.donor_folds(cohort.y, cohort.units, n_splits=n_splits, seed=seed))
    return replace(
        cohort,
        adata=cohort.adata[rows].copy(),
        counts=cohort.counts[rows],
        y=cohort.y[rows],
        units=cohort.units[rows],
        batch=None if cohort.batch is None else cohort.batch[rows],
    )


def simulated(seed: int, n_changed: int, *, n: int = 16, n_genes: int = 1000) -> SampleCohort:
    """A negative binomial cohort with planted differences, ``n`` samples a class."""
    adata = simulate.negative_binomial_cohort(**_sizes(n, n_genes, n_changed), seed=seed)
    return _of_simulated(adata, f"{n_changed} of {n_genes:,} genes changed")


def with_decoys(seed: int, n_changed: int, *, n: int = 128, n_genes: int = 64) -> SampleCohort:
    """A cohort with as many genes changed by a nuisance factor as by the class (`simulate.two_factor_cohort`)."""
    adata = simulate.two_factor_cohort(**_sizes(n, n_genes, n_changed), seed=seed)
    return _of_simulated(adata, f"{n_changed} of {n_genes:,} genes changed, {n_changed} by a nuisance")


def _sizes(n: int, n_genes: int, n_changed: int) -> dict[str, object]:
    return {"groups": {"control": n, "case": n}, "reference": "control", "n_genes": n_genes, "n_changed": n_changed}


def _of_simulated(adata: anndata.AnnData, name: str) -> SampleCohort:
    adata.uns["epigen"] = {"name": name, "species": "not applicable"}
    table, y = expression.counts(adata), adata.obs["group"].astype(str).to_numpy()
    return SampleCohort(adata, table.to_numpy(), list(table.columns), y, "case", adata.obs_names.to_numpy(), None)


def asked(
    cohort: SampleCohort, estimator: object, *, n_splits: int = 5, n_repeats: int = 1, seed: int = 0
) -> pd.DataFrame:
    """Out-of-fold predictions of every sample, with folds of whole donors or experiments (`sample_scores.repeated`)."""
    n_splits = sample_scores.check_folds(cohort.y, cohort.groups, n_splits)
    # There is only one division that holds out each experiment.
    n_repeats = n_repeats if cohort.batch is None else 1
    options = {"n_splits": n_splits, "n_repeats": n_repeats, "seed": seed, "per_donor": False}
    predictions = sample_scores.repeated(estimator, cohort.counts, cohort.y, cohort.groups, **options)
    return predictions.assign(donor=cohort.units[predictions["row"]])


def shuffled(
    cohort: SampleCohort, estimator: object, *, n_splits: int = 5, n_permutations: int, seed: int = 0
) -> np.ndarray:
    """AUC of the same pipeline for permutations of the labels among donors, within experiments if there are any."""
    n_splits = sample_scores.check_folds(cohort.y, cohort.groups, n_splits)
    options = {"n_splits": n_splits, "n_permutations": n_permutations, "seed": seed, "per_donor": False}
    return sample_scores.shuffled(
        estimator, cohort.counts, cohort.y, cohort.groups, cohort.positive, within=cohort.batch, **options
    )


#: Fewest permutations with which p can be 0.05.
LEAST_LABELINGS = 19


def compare(
    cohort: SampleCohort,
    estimators: dict[str, object],
    *,
    n_splits: int = 5,
    n_repeats: int = 1,
    n_shuffles: dict[str, int] | int = 0,
    seed: int = 0,
) -> tuple[pd.DataFrame, dict[str, pd.DataFrame]]:
    """Evaluate several models in the same folds.

    Parameters
    ----------
    n_shuffles
        Permutations of the labels, for all models or by model.

    Returns
    -------
    A row a model: ``data set``, ``model``, the scores of `sample_scores.of_repeats`, ``shuffled`` (mean AUC with
    permuted labels), ``labelings`` (their number) and ``p`` of the first division (missing if there are too few
    permutations for 0.05); and the predictions by model.
    """
    rows, predictions = [], {}
    for name, estimator in estimators.items():
        predictions[name] = asked(cohort, estimator, n_splits=n_splits, n_repeats=n_repeats, seed=seed)
        row = sample_scores.of_repeats(predictions[name], cohort.positive, seed=seed)
        m = n_shuffles if isinstance(n_shuffles, int) else n_shuffles.get(name, 0)
        row |= {"shuffled": np.nan, "labelings": m, "p": np.nan}
        if m:
            null = shuffled(cohort, estimator, n_splits=n_splits, n_permutations=m, seed=seed)
            first = predictions[name][predictions[name]["repeat"] == 0]
            observed = sample_scores.pooled(first, cohort.positive)["auc"]
            row |= {"shuffled": null.mean(), "labelings": len(null)}
            if m >= LEAST_LABELINGS:
                row["p"] = evaluation.pvalue(observed, null)
        rows.append({"data set": cohort.name, "model": name, **row})
    return pd.DataFrame(rows), predictions


def known_truth(
    models: Callable[[SampleCohort], dict[str, object]], *, seeds: range, changed: dict[str, int], n_splits: int = 5
) -> pd.DataFrame:
    """AUC of models on `simulated` cohorts, one a seed, with different numbers of changed genes.

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
            cohort = simulated(1000 + seed, n_changed)
            for model, estimator in models(cohort).items():
                predictions = asked(cohort, estimator, n_splits=n_splits, seed=seed)
                auc = sample_scores.pooled(predictions, cohort.positive)["auc"]
                rows.append({"planted": name, "model": model, "seed": seed, "auc": auc})
    return pd.DataFrame(rows)


def over_seeds(table: pd.DataFrame) -> pd.DataFrame:
    """Mean AUC of `known_truth` over cohorts (`sample_scores.over_cohorts`).

    Returns
    -------
    A row a condition and model: ``planted``, ``model``, ``auc``, ``auc low``, ``auc high``, ``cohorts``.
    """
    return sample_scores.over_cohorts(table, ["planted", "model"], "auc")


def attainable(cohort: SampleCohort, predictions: pd.DataFrame, *, target: float) -> dict[str, object]:
    """Resolution of the AUC and of the permutation p-value of a cohort.

    Returns
    -------
    ``data set``, ``samples`` (by class), ``folds``, ``pairs``, ``pairs in one fold`` (within folds, summed over one
    division), ``nearest to <target>`` (the attainable AUC, without ties, nearest to the target), ``smallest p``.
    """
    n_negative, n_positive = cohort.sizes().values()
    n_pairs = sample_scores.pairs_within(predictions, cohort.positive)
    return {
        "data set": cohort.name,
        "samples": f"{n_negative} v {n_positive}",
        "folds": predictions["fold"].nunique(),
        "pairs": n_negative * n_positive,
        "pairs in one fold": n_pairs,
        f"nearest to {target:.2f}": evaluation.nearest(np.arange(n_pairs + 1) / n_pairs, target),
        "smallest p": 1 / (1 + evaluation.n_labelings(cohort.y, cohort.groups)),
    }


def overfitting(cohort: SampleCohort, estimator: object, held_out: pd.DataFrame) -> float:
    """AUC of a model on its training samples minus its out-of-fold AUC (``held_out``: predictions of `asked`)."""
    model = clone(estimator).fit(cohort.counts, cohort.y)
    p = evaluation.probability_of(model, cohort.counts, cohort.positive)
    training_auc = evaluation.auc(p, cohort.y == cohort.positive)
    return training_auc - sample_scores.of_repeats(held_out, cohort.positive, n_bootstrap=1)["auc"]


def inside_and_outside(cohort: SampleCohort, *, n_genes: int) -> dict[str, object]:
    """Logistic regression with genes selected within the folds, and with genes selected beforehand on all labels."""
    baseline, by = in_fold.rivals()["logistic regression"], in_fold.SELECTIONS[1]
    return {
        "inside the folds": in_fold.InFold(baseline, cohort.genes, n_genes, by),
        "outside": in_fold.leaking(baseline, cohort.genes, cohort.counts, cohort.y, n_genes=n_genes, by=by),
    }


def ablation(
    cohort: SampleCohort,
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
    from the base by fold with `` low`` and `` high`` (`sample_scores.beside`).
    """
    options = {"n_splits": n_splits, "n_repeats": n_repeats, "seed": seed}
    table, predictions = compare(cohort, variants | {"": base}, **options)
    rows = []
    for scores in table.sort_values("model", key=lambda names: names != "", kind="stable").to_dict("records"):
        variant = scores["model"]
        row = {"data set": cohort.name, "variant": variant or "GPT-2: bins, cross entropy, random start"}
        row |= {name: scores[name] for name in ("auc", "auc low", "auc high")}
        if variant:
            change = sample_scores.beside(predictions[variant], predictions[""], cohort.positive)
            row |= {"difference": change["difference"]}
            row |= {"difference low": change["low"], "difference high": change["high"]}
        rows.append(row)
    return pd.DataFrame(rows)


def transferred(
    source: SampleCohort, target: SampleCohort, estimators: dict[str, object], *, n_genes: int = 256, seed: int = 0
) -> tuple[pd.DataFrame, dict[str, pd.DataFrame]]:
    """Train models on one data set and evaluate them on another, over shared genes.

    The classes are called ``control`` (the reference) and ``case``. Each data set has its own size factors, and each
    target gene is scaled to the source's mean and standard deviation without use of labels: effects of tissue, species
    or laboratory are common to both classes of a data set. Genes are selected by expression difference in the source.

    Parameters
    ----------
    estimators
        Models of log2 expression, a DataFrame, samples x genes.

    Returns
    -------
    A row a model: ``from``, ``to``, ``model``, ``genes`` (shared) and the scores of `sample_scores.of_repeats`; and the
    predictions by model.

    Raises
    ------
    DataError
        If fewer than ten genes are shared.
    """
    train, test = _on_one_scale(source, target)
    labels, truth = (np.where(cohort.y == cohort.positive, "case", "control") for cohort in (source, target))
    chosen = in_fold.chosen_genes(train.to_numpy(), labels, in_fold.SELECTIONS[1], n_genes)
    rows, predictions = [], {}
    for name, estimator in estimators.items():
        model = clone(estimator).fit(train.iloc[:, chosen], labels)
        p = evaluation.probability_of(model, test.iloc[:, chosen], "case")
        table = pd.DataFrame({"row": range(len(truth)), "fold": 0, "repeat": 0, "donor": target.units, "true": truth})
        table["predicted"] = np.where(p > 0.5, "case", "control")
        predictions[name] = table.assign(p_case=p, p_control=1 - p)
        row = {"from": source.name, "to": target.name, "model": name, "genes": train.shape[1]}
        rows.append(row | sample_scores.of_repeats(predictions[name], "case", seed=seed))
    return pd.DataFrame(rows), predictions


def transferred_shuffled(
    source: SampleCohort, target: SampleCohort, *, n_genes: int = 256, n_permutations: int, seed: int = 0
) -> np.ndarray:
    """AUC in the target of logistic regression trained with permuted labels of the source, shape (permutations,).

    Labels are permuted within experiments if there are any.
    """
    train, test = (table.to_numpy() for table in _on_one_scale(source, target))
    blocks = source.units if source.batch is None else source.batch
    aucs = []
    for labels in evaluation.labelings(source.y, donors=blocks, n_permutations=n_permutations, seed=seed):
        chosen = in_fold.chosen_genes(train, labels, in_fold.SELECTIONS[1], n_genes)
        model = in_fold.rivals(seed)["logistic regression"].fit(train[:, chosen], labels)
        p = evaluation.probability_of(model, test[:, chosen], source.positive)
        aucs.append(evaluation.auc(p, target.y == target.positive))
    return np.array(aucs)


def _on_one_scale(source: SampleCohort, target: SampleCohort) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Log2 expression of both cohorts over shared genes, the target's scaled gene by gene to the source's."""
    in_target = set(target.genes)
    shared = [gene for gene in source.genes if gene in in_target]
    if len(shared) < 10:
        raise DataError(
            f"{source.name} and {target.name}: {len(shared)} genes in common; give data sets with orthologs"
        )
    train, test = (expression.log2_normalised(cohort.adata)[shared] for cohort in (source, target))
    scale = train.std(ddof=0) / test.std(ddof=0).replace(0, np.inf)
    return train, ((test - test.mean()) * scale + train.mean()).clip(lower=0)
