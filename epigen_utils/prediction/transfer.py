"""Transfer of a two-class model from one cohort to another."""

import numpy as np
import pandas as pd
from sklearn.base import clone

from epigen_utils.errors import DataError
from epigen_utils.expression import fold_selection, normalisation
from epigen_utils.prediction import sample_cohort
from epigen_utils.stats import folds, permutation, two_classes


def evaluate_transfer(
    source: sample_cohort.SampleCohort,
    target: sample_cohort.SampleCohort,
    estimators: dict[str, object],
    *,
    n_genes: int = 256,
    seed: int = 0,
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
    A row a model: ``from``, ``to``, ``model``, ``genes`` (shared) and the scores of `two_classes.scores_over_repeats`;
    and the predictions by model.

    Raises
    ------
    DataError
        If fewer than ten genes are shared.
    """
    train, test = _scaled_to_source(source, target)
    labels, truth = (np.where(cohort.y == cohort.positive, "case", "control") for cohort in (source, target))
    chosen = fold_selection.select_genes(train.to_numpy(), labels, fold_selection.SELECTIONS[1], n_genes)
    rows, predictions = [], {}
    for name, estimator in estimators.items():
        model = clone(estimator).fit(train.iloc[:, chosen], labels)
        p = folds.class_probability(model, test.iloc[:, chosen], "case")
        table = pd.DataFrame({"row": range(len(truth)), "fold": 0, "repeat": 0, "donor": target.units, "true": truth})
        table["predicted"] = np.where(p > 0.5, "case", "control")
        predictions[name] = table.assign(p_case=p, p_control=1 - p)
        row = {"from": source.name, "to": target.name, "model": name, "genes": train.shape[1]}
        rows.append(row | two_classes.scores_over_repeats(predictions[name], "case", seed=seed))
    return pd.DataFrame(rows), predictions


def permuted_transfer_aucs(
    source: sample_cohort.SampleCohort,
    target: sample_cohort.SampleCohort,
    *,
    n_genes: int = 256,
    n_permutations: int,
    seed: int = 0,
) -> np.ndarray:
    """AUC in the target of logistic regression trained with permuted labels of the source, shape (permutations,).

    Labels are permuted within experiments if there are any.
    """
    train, test = (table.to_numpy() for table in _scaled_to_source(source, target))
    y, aucs = source.y, []
    for labels in permutation.permuted_labels(y, donors=source.groups, n_permutations=n_permutations, seed=seed):
        chosen = fold_selection.select_genes(train, labels, fold_selection.SELECTIONS[1], n_genes)
        model = fold_selection.baseline_models(seed)["logistic regression"].fit(train[:, chosen], labels)
        p = folds.class_probability(model, test[:, chosen], source.positive)
        aucs.append(two_classes.roc_auc(p, target.y == target.positive))
    return np.array(aucs)


def _scaled_to_source(
    source: sample_cohort.SampleCohort, target: sample_cohort.SampleCohort
) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Log2 expression of both cohorts over shared genes, the target's scaled gene by gene to the source's."""
    in_target = set(target.genes)
    shared = [gene for gene in source.genes if gene in in_target]
    if len(shared) < 10:
        names = f"{source.name} and {target.name}"
        raise DataError(f"{names}: {len(shared)} genes in common; give data sets with orthologs")
    train, test = (normalisation.log2_normalised(cohort.adata)[shared] for cohort in (source, target))
    scale = train.std(ddof=0) / test.std(ddof=0).replace(0, np.inf)
    return train, ((test - test.mean()) * scale + train.mean()).clip(lower=0)
