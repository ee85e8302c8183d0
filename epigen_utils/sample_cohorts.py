"""Bulk samples in two classes, and models asked about those that they have not seen."""

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
    """What the models of one data set learn from.

    Attributes
    ----------
    counts
        Samples x genes.
    y, positive
        Class of each sample; which of the two is called positive: the one that is not the reference.
    units
        Donor of each sample, or the sample itself.
    batch
        Experiment of each sample where the registry, or the caller, names one; None otherwise.
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
        """Of the data set."""
        return self.adata.uns["epigen"]["name"]

    @property
    def groups(self) -> np.ndarray:
        """What a fold holds out whole: experiments where there are any, else donors."""
        return self.units if self.batch is None else self.batch

    @property
    def group(self) -> str:
        """Column of the classes."""
        return self.adata.uns["epigen"].get("group") or "group"

    def sizes(self) -> dict[str, int]:
        """Samples of each class, the reference first."""
        found = pd.Series(self.y).value_counts()
        return {name: int(found[name]) for name in [*found.index.drop(self.positive), self.positive]}


def load(dataset: str, *, min_samples: int = 2, human: bool = False, **given) -> SampleCohort:
    """A data set in two classes: the reference, and whatever else its group column holds.

    Parameters
    ----------
    given
        As for `datasets.load`.
    min_samples
        Genes that fewer samples express are left out; that looks at no label.
    human
        Whether genes become their human orthologs (`genes.humanised`), where the species is known.

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
    known = about["species"] not in ("not applicable", "not stated")
    adata = genes.humanised(adata) if human and known else genes.named(adata)
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


#: What a prior over genes can be made of: half of the planted genes, half of the panels' genes, or what differs in the training fold.
PRIORS = ("planted", "panels", in_fold.SELECTIONS[1])


def prior_genes(cohort: SampleCohort, kind: str) -> tuple[str, ...] | str:
    """Genes that attention is to be paid to, under the Attention-Aligned Hybrid Loss.

    Of a set every other gene is taken: what a prior was made of cannot tell whether attention found it.

    Parameters
    ----------
    kind
        Of `PRIORS`; the last is found by each model in its training fold, and given back as it is.

    Raises
    ------
    DataError
        If there is no such prior, or the data set has none of its genes.
    """
    if kind not in PRIORS:
        raise DataError(f"prior {kind!r}: {closest(kind, PRIORS)}")
    if kind == in_fold.SELECTIONS[1]:
        return kind
    if kind == "planted":
        truth = cohort.adata.varm.get("log2_fold_change")
        found = [] if truth is None else list(truth.index[(truth != 0).any(axis=1)])
    else:
        found = [gene for members in genes.sets_in_data(cohort.adata, genes.panels()).values() for gene in members]
    found = sorted(set(map(str, found)) & set(cohort.genes))[::2]
    if not found:
        raise DataError(f"{cohort.name}: has no gene of the prior {kind!r}; choose another of {', '.join(PRIORS)}")
    return tuple(found)


def asked(
    cohort: SampleCohort, estimator: object, *, n_splits: int = 5, n_repeats: int = 1, seed: int = 0
) -> pd.DataFrame:
    """Predictions of every sample by models that have not seen its donor, or its experiment; as `sample_scores.repeated`."""
    folds = sample_scores.check_folds(cohort.y, cohort.groups, n_splits)
    # Experiments can be held out in one way only.
    repeats = n_repeats if cohort.batch is None else 1
    options = {"n_splits": folds, "n_repeats": repeats, "seed": seed, "per_donor": False}
    found = sample_scores.repeated(estimator, cohort.counts, cohort.y, cohort.groups, **options)
    return found.assign(donor=cohort.units[found["row"]])


def shuffled(
    cohort: SampleCohort, estimator: object, *, n_splits: int = 5, n_permutations: int, seed: int = 0
) -> np.ndarray:
    """AUC of the same pipeline with labels shuffled among donors, within experiments where there are any."""
    folds = sample_scores.check_folds(cohort.y, cohort.groups, n_splits)
    options = {"n_splits": folds, "n_permutations": n_permutations, "seed": seed, "per_donor": False}
    return sample_scores.shuffled(
        estimator, cohort.counts, cohort.y, cohort.groups, cohort.positive, within=cohort.batch, **options
    )


#: Labelings with which a p can be 0.05.
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
    """Every model in the same folds.

    Parameters
    ----------
    n_shuffles
        Labelings by model.

    Returns
    -------
    A row a model: ``data set``, ``model``, what `sample_scores.of_repeats` gives, ``shuffled`` (mean AUC of shuffled labels),
    ``labelings`` (how many) and ``p`` ((b + 1) / (m + 1); missing where so few labelings could not bring it to 0.05); and the predictions
    by model.
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
                row["p"] = ((null >= observed - 1e-12).sum() + 1) / (len(null) + 1)
        rows.append({"data set": cohort.name, "model": name, **row})
    return pd.DataFrame(rows), predictions


def on(cohort: SampleCohort, table: np.ndarray) -> SampleCohort:
    """The same samples with other values, samples x features, in the place of the counts."""
    return replace(cohort, counts=np.asarray(table))


def simulated(seed: int, n_changed: int, *, n: int = 16, n_genes: int = 1000) -> SampleCohort:
    """A cohort of which the truth is known, drawn by seed: negative binomial, n against n samples."""
    adata = simulate.negative_binomial_cohort(**_sizes(n, n_genes, n_changed), seed=seed)
    return _of_simulated(adata, f"{n_changed} of {n_genes:,} genes changed")


def with_decoys(seed: int, n_changed: int, *, n: int = 128, n_genes: int = 64) -> SampleCohort:
    """As `simulated`, with as many genes changed by a nuisance factor (`simulate.two_factor_cohort`)."""
    adata = simulate.two_factor_cohort(**_sizes(n, n_genes, n_changed), seed=seed)
    return _of_simulated(adata, f"{n_changed} of {n_genes:,} genes changed, {n_changed} by a nuisance")


def _sizes(n: int, n_genes: int, n_changed: int) -> dict[str, object]:
    return {"groups": {"control": n, "case": n}, "reference": "control", "n_genes": n_genes, "n_changed": n_changed}


def _of_simulated(adata: anndata.AnnData, name: str) -> SampleCohort:
    adata.uns["epigen"] = {"name": name, "species": "not applicable"}
    table, y = expression.counts(adata), adata.obs["group"].astype(str).to_numpy()
    return SampleCohort(adata, table.to_numpy(), list(table.columns), y, "case", adata.obs_names.to_numpy(), None)


def known_truth(
    models: Callable[[SampleCohort], dict[str, object]], *, seeds: range, changed: dict[str, int], n_splits: int = 5
) -> pd.DataFrame:
    """AUC of models on cohorts with a strong signal and with none, one cohort a seed.

    Parameters
    ----------
    models
        Estimators by name, for a cohort.
    changed
        Name of a truth -> genes changed in it.

    Returns
    -------
    A row a truth, model and seed: ``planted``, ``model``, ``seed``, ``auc``.
    """
    rows = []
    for name, n_changed in changed.items():
        for seed in seeds:
            cohort = simulated(1000 + seed, n_changed)
            for model, estimator in models(cohort).items():
                found = sample_scores.pooled(asked(cohort, estimator, n_splits=n_splits, seed=seed), cohort.positive)
                rows.append({"planted": name, "model": model, "seed": seed, "auc": found["auc"]})
    return pd.DataFrame(rows)


def attainable(cohort: SampleCohort, predictions: pd.DataFrame, *, target: float) -> dict[str, object]:
    """What an AUC of a cohort can be at all.

    Returns
    -------
    ``data set``, ``samples`` (of the classes), ``folds``, ``pairs``, ``pairs in one fold`` (of all folds of one division together), the
    share of these, without ties, that is nearest to a target, and the ``smallest p`` that its labelings allow.
    """
    n_negative, n_positive = cohort.sizes().values()
    row = {"data set": cohort.name, "samples": f"{n_negative} v {n_positive}", "folds": predictions["fold"].nunique()}
    row |= {
        "pairs": n_negative * n_positive,
        "pairs in one fold": sample_scores.pairs_within(predictions, cohort.positive),
    }
    values = np.arange(row["pairs in one fold"] + 1) / row["pairs in one fold"]
    row[f"nearest to {target:.2f}"] = evaluation.nearest(values, target)
    return row | {"smallest p": 1 / (1 + evaluation.n_labelings(cohort.y, cohort.groups))}


def overfitting(cohort: SampleCohort, estimator: object, held_out: pd.DataFrame) -> float:
    """AUC of a model on the samples that it was fitted on, less that of its `asked`: what it knows by heart."""
    model = clone(estimator).fit(cohort.counts, cohort.y)
    p = evaluation.probability_of(model, cohort.counts, cohort.positive)
    seen = evaluation.auc(p, cohort.y == cohort.positive)
    return seen - sample_scores.of_repeats(held_out, cohort.positive, n_bootstrap=1)["auc"]


def inside_and_outside(cohort: SampleCohort, *, n_genes: int) -> dict[str, object]:
    """Logistic regression with genes chosen inside the folds, and the mistake: before they were made, with all labels."""
    plain, by = in_fold.rivals()["logistic regression"], in_fold.SELECTIONS[1]
    return {
        "inside the folds": in_fold.InFold(plain, cohort.genes, n_genes, by),
        "outside": in_fold.leaking(plain, cohort.genes, cohort.counts, cohort.y, n_genes=n_genes, by=by),
    }


def over_seeds(table: pd.DataFrame) -> pd.DataFrame:
    """`sample_scores.over_cohorts` of `known_truth`: ``planted``, ``model``, ``auc``, ``auc low``, ``auc high``, ``cohorts``."""
    return sample_scores.over_cohorts(table, ["planted", "model"], "auc")


def ablation(
    cohort: SampleCohort,
    base: object,
    variants: dict[str, object],
    *,
    n_splits: int = 5,
    n_repeats: int = 1,
    seed: int = 0,
) -> pd.DataFrame:
    """A model and its variants in the same folds.

    Returns
    -------
    A row a variant, the base first: ``data set``, ``variant``, ``auc`` with its interval, and ``difference`` from the base by fold with
    `` low`` and `` high`` (`sample_scores.beside`).
    """
    options = {"n_splits": n_splits, "n_repeats": n_repeats, "seed": seed}
    table, predictions = compare(cohort, variants | {"": base}, **options)
    plain, rows = predictions[""], []
    for row in table.sort_values("model", key=lambda names: names != "", kind="stable").itertuples(index=False):
        found = dict(zip(table.columns, row, strict=True))
        kept = {"data set": cohort.name, "variant": found["model"] or "GPT-2: bins, cross entropy, random start"}
        kept |= {name: found[name] for name in ("auc", "auc low", "auc high")}
        if found["model"]:
            apart = sample_scores.beside(predictions[found["model"]], plain, cohort.positive)
            kept |= {
                "difference": apart["difference"],
                "difference low": apart["low"],
                "difference high": apart["high"],
            }
        rows.append(kept)
    return pd.DataFrame(rows)


def part(cohort: SampleCohort, most: int, seed: int) -> SampleCohort:
    """A random part of a cohort, whole donors, with the classes' shares; all of it where it is small enough."""
    if not most or len(cohort.y) <= most:
        return cohort
    n_splits = max(round(len(cohort.y) / most), 2)
    _, rows = next(evaluation.donor_folds(cohort.y, cohort.units, n_splits=n_splits, seed=seed))
    batch = None if cohort.batch is None else cohort.batch[rows]
    kept = {"counts": cohort.counts[rows], "y": cohort.y[rows], "units": cohort.units[rows], "batch": batch}
    return replace(cohort, adata=cohort.adata[rows].copy(), **kept)


def transferred(
    source: SampleCohort, target: SampleCohort, estimators: dict[str, object], *, n_genes: int = 256, seed: int = 0
) -> tuple[pd.DataFrame, dict[str, pd.DataFrame]]:
    """Learn from one data set, ask about another, over the genes that both have.

    The reference of each is ``control``, the other class ``case``. Each data set has size factors of its own, and the target's genes
    are brought to mean and standard deviation of the source's, which looks at no label: what a tissue, a species or a laboratory adds
    to a gene is in both classes of a data set. Genes are chosen by their expression difference in the source.

    Parameters
    ----------
    estimators
        On log2 expression, a DataFrame of samples x genes.

    Returns
    -------
    A row a model: ``from``, ``to``, ``model``, ``genes`` (shared) and what `sample_scores.of_repeats` gives; and the predictions by
    model.

    Raises
    ------
    DataError
        If fewer than ten genes are shared.
    """
    shared = [gene for gene in source.genes if gene in set(target.genes)]
    if len(shared) < 10:
        raise DataError(
            f"{source.name} and {target.name}: {len(shared)} genes in common; give data sets with orthologs"
        )
    train, test = (expression.log2_normalised(cohort.adata)[shared] for cohort in (source, target))
    labels, truth = (np.where(cohort.y == cohort.positive, "case", "control") for cohort in (source, target))
    scale = train.std(ddof=0) / test.std(ddof=0).replace(0, np.inf)
    test = ((test - test.mean()) * scale + train.mean()).clip(lower=0)
    chosen = in_fold.chosen_genes(train.to_numpy(), labels, in_fold.SELECTIONS[1], n_genes)
    rows, predictions = [], {}
    for name, estimator in estimators.items():
        model = clone(estimator).fit(train.iloc[:, chosen], labels)
        p = evaluation.probability_of(model, test.iloc[:, chosen], "case")
        found = pd.DataFrame({"row": range(len(truth)), "fold": 0, "repeat": 0, "donor": target.units, "true": truth})
        found["predicted"] = np.where(p > 0.5, "case", "control")
        predictions[name] = found.assign(p_case=p, p_control=1 - p)
        row = {"from": source.name, "to": target.name, "model": name, "genes": train.shape[1]}
        rows.append(row | sample_scores.of_repeats(predictions[name], "case", seed=seed))
    return pd.DataFrame(rows), predictions


def transferred_shuffled(
    source: SampleCohort, target: SampleCohort, *, n_genes: int = 256, n_permutations: int, seed: int = 0
) -> np.ndarray:
    """AUC of logistic regression, `transferred`, with the source's labels shuffled (within experiments), one a labeling."""
    train, test = _on_one_scale(source, target)
    values, asked = train.to_numpy(), test.to_numpy()
    blocks = source.units if source.batch is None else source.batch
    found = []
    for new in evaluation.labelings(source.y, donors=blocks, n_permutations=n_permutations, seed=seed):
        chosen = in_fold.chosen_genes(values, new, in_fold.SELECTIONS[1], n_genes)
        model = in_fold.rivals(seed)["logistic regression"].fit(values[:, chosen], new)
        p = evaluation.probability_of(model, asked[:, chosen], source.positive)
        found.append(evaluation.auc(p, target.y == target.positive))
    return np.array(found)


def _on_one_scale(source: SampleCohort, target: SampleCohort) -> tuple[pd.DataFrame, pd.DataFrame]:
    shared = [gene for gene in source.genes if gene in set(target.genes)]
    if len(shared) < 10:
        raise DataError(
            f"{source.name} and {target.name}: {len(shared)} genes in common; give data sets with orthologs"
        )
    train, test = (expression.log2_normalised(cohort.adata)[shared] for cohort in (source, target))
    scale = train.std(ddof=0) / test.std(ddof=0).replace(0, np.inf)
    return train, ((test - test.mean()) * scale + train.mean()).clip(lower=0)
