"""Steps that are fitted within a training fold of bulk samples: size factors, gene selection, baseline models.

Paper A, section III.E: "we select informative features (genes) by variance filtering or differential expression". If
genes are selected before the folds are made, the test samples' labels leak into training (Ambroise and McLachlan 2002);
`leaking_pipeline` does so on purpose.
"""

import warnings

import numpy as np
import pandas as pd
from sklearn.base import BaseEstimator, ClassifierMixin, clone
from sklearn.dummy import DummyClassifier
from sklearn.ensemble import RandomForestClassifier
from sklearn.feature_selection import f_classif
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from epigen_utils.deseq import size_factors
from epigen_utils.errors import DataError, suggest

#: Criteria of gene selection: variance of log2 expression, or the F statistic between the classes.
SELECTIONS = ("variance", "expression difference")
#: Number of genes in a prior selected from the training samples.
PRIOR_GENES = 16


class FrozenSizeFactors(BaseEstimator):
    """Median-of-ratios size factors relative to the training samples' geometric means (Love et al. 2014).

    The reference is fixed after fitting: the size factor of a new sample does not depend on the other new samples.
    """

    def fit(self, counts: np.ndarray, y: object = None) -> "FrozenSizeFactors":
        """Fit the reference to counts, samples x genes (`size_factors.log_geometric_means`)."""
        self.log_means_ = size_factors.log_geometric_means(counts, unit="training sample")
        return self

    def transform(self, counts: np.ndarray) -> np.ndarray:
        """log2(count / size factor + 1).

        Raises
        ------
        DataError
            If a sample's size factor is undefined: it lacks too many of the reference genes.
        """
        missing = (counts[:, np.isfinite(self.log_means_)] == 0).mean(axis=1) > 0.5
        if missing.any():
            raise DataError(
                f"sample {missing.argmax()} of {len(counts)}: has too few of the genes that size factors are made of; "
                "leave it out"
            )
        factors = size_factors.median_of_ratios(counts, self.log_means_)
        return np.log2(counts / factors[:, None] + 1)


def ranked_genes(values: np.ndarray, y: np.ndarray, by: str) -> np.ndarray:
    """Positions of genes, the most informative first; ties in the order of the columns.

    Parameters
    ----------
    values
        Log2 expression, samples x genes.
    by
        Criterion, of `SELECTIONS`.

    Raises
    ------
    DataError
        If the criterion is unknown.
    """
    if by not in SELECTIONS:
        raise DataError(f"genes by {by!r}: {suggest(by, SELECTIONS)}")
    score = values.var(axis=0) if by == "variance" else f_statistics(values, y)
    return np.argsort(-score, kind="stable")


def f_statistics(values: np.ndarray, y: np.ndarray) -> np.ndarray:
    """F statistic of each gene between the classes; 0 for a gene that does not vary.

    Parameters
    ----------
    values
        Log2 expression, samples x genes.
    """
    score = np.zeros(values.shape[1])
    varies = values.var(axis=0) > 0
    with np.errstate(divide="ignore", invalid="ignore"), warnings.catch_warnings():
        # `f_classif` warns about genes that are constant within both classes.
        warnings.simplefilter("ignore", UserWarning)
        score[varies] = np.nan_to_num(f_classif(values[:, varies], y)[0], nan=0.0, posinf=np.finfo(float).max)
    return score


def select_genes(
    values: np.ndarray, y: np.ndarray, by: str, n_genes: int, always: np.ndarray | None = None
) -> np.ndarray:
    """Positions of the first ``n_genes`` of `ranked_genes`, in the order of the columns.

    Parameters
    ----------
    always
        Mask of genes that are selected in any case, and count towards ``n_genes``.
    """
    order = ranked_genes(values, y, by)
    wanted = np.zeros(len(order), bool) if always is None else np.asarray(always)[order]
    return np.sort(np.concatenate([order[wanted], order[~wanted][: max(n_genes - wanted.sum(), 0)]]))


class FoldPipeline(ClassifierMixin, BaseEstimator):
    """A classifier of counts that fits size factors, gene selection and a model, in this order, on the same samples.

    Parameters
    ----------
    model
        Has scikit-learn's ``fit`` and ``predict_proba``, for log2 expression: a DataFrame, samples x selected genes.
    genes
        Names of the columns of the counts.
    n_genes, by
        Number of genes to select, and the criterion (`SELECTIONS`).
    chosen
        Positions of genes that were selected beforehand, as in `leaking_pipeline`; None to select them when fitting.
    always
        Names of genes that are selected in any case.
    """

    def __init__(
        self,
        model: object,
        genes: list[str],
        n_genes: int = 256,
        by: str = "variance",
        chosen: np.ndarray | None = None,
        always: tuple[str, ...] = (),
    ):
        self.model, self.genes, self.n_genes, self.by = model, genes, n_genes, by
        self.chosen, self.always = chosen, always

    def fit(self, counts: np.ndarray, y: np.ndarray) -> "FoldPipeline":
        """Fit all steps on counts, samples x genes."""
        self.model_ = clone(self.model).fit(self._learned(counts, y), y)
        self.classes_ = self.model_.classes_
        return self

    def tables(self, counts: np.ndarray, y: np.ndarray, others: np.ndarray) -> tuple[pd.DataFrame, pd.DataFrame]:
        """Log2 expression of the selected genes in the training samples, and in other samples; no model is fitted."""
        return self._learned(counts, y), self._table(self.factors_.transform(others))

    def _learned(self, counts: np.ndarray, y: np.ndarray) -> pd.DataFrame:
        self.factors_ = FrozenSizeFactors().fit(counts)
        values = self.factors_.transform(counts)
        if self.chosen is None:
            names = set(self.always)
            always = np.array([gene in names for gene in self.genes], bool)
            self.chosen_ = select_genes(values, y, self.by, self.n_genes, always)
        else:
            self.chosen_ = self.chosen
        return self._table(values)

    def predict_proba(self, counts: np.ndarray) -> np.ndarray:
        """Probabilities, samples x classes."""
        return self.model_.predict_proba(self._table(self.factors_.transform(counts)))

    def _table(self, values: np.ndarray) -> pd.DataFrame:
        names = [str(self.genes[column]) for column in self.chosen_]
        return pd.DataFrame(values[:, self.chosen_], [f"row {row}" for row in range(len(values))], names)


def leaking_pipeline(
    model: object, genes: list[str], counts: np.ndarray, y: np.ndarray, *, n_genes: int, by: str = SELECTIONS[1]
) -> FoldPipeline:
    """A classifier with leakage, for demonstration: its genes are selected with the labels of all samples.

    Parameters
    ----------
    counts, y
        Of all samples, test samples included.
    """
    values = FrozenSizeFactors().fit(counts).transform(counts)
    return FoldPipeline(model, genes, n_genes, by, chosen=select_genes(values, y, by, n_genes))


def baseline_models(seed: int = 0) -> dict[str, ClassifierMixin]:
    """Baseline models on log2 expression, by name; scaling is part of the model, and so fitted within the fold."""
    return {
        "majority": DummyClassifier(strategy="prior"),
        "logistic regression": make_pipeline(StandardScaler(), LogisticRegression(C=0.1, max_iter=1000)),
        "random forest": RandomForestClassifier(100, n_jobs=1, random_state=seed),
    }


def pipelines_by_selection(
    models: dict[str, object], genes: list[str], n_genes: int, selections: tuple[str, ...] = SELECTIONS
) -> dict[str, FoldPipeline]:
    """Every model with every criterion of gene selection, named by both."""
    return {
        f"{name}, by {by}": FoldPipeline(model, genes, n_genes, by)
        for by in selections
        for name, model in models.items()
    }
