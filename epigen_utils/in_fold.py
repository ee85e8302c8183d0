"""What is fitted inside a training fold of bulk samples: size factors, gene selection, scales, the plain rivals.

Paper A, section III.E: "we select informative features (genes) by variance filtering or differential expression". Selected before the
folds are made, genes carry the test samples' labels into training (Ambroise and McLachlan 2002); `leaking` does so on purpose.
"""

import warnings

import numpy as np
import pandas as pd
from pydeseq2.preprocessing import deseq2_norm_fit, deseq2_norm_transform
from sklearn.base import BaseEstimator, ClassifierMixin, clone
from sklearn.dummy import DummyClassifier
from sklearn.ensemble import RandomForestClassifier
from sklearn.feature_selection import f_classif
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from epigen_utils.errors import DataError, closest

#: How genes are chosen: variance of their log2 expression, or the F test of differential expression between the classes.
SELECTIONS = ("variance", "expression difference")


class FrozenFactors(BaseEstimator):
    """Median-of-ratios size factors whose reference, the geometric mean of each gene, is of the training samples alone.

    Love et al. 2014, computed by PyDESeq2; a new sample is compared with the training reference, and changes nothing in it.
    """

    def fit(self, counts: np.ndarray, y: object = None) -> "FrozenFactors":
        """Learn the reference of counts, samples x genes.

        Raises
        ------
        DataError
            If no gene is detected in every training sample.
        """
        if not (counts > 0).all(axis=0).any():
            raise DataError("size factors: no gene is detected in every training sample; drop the shallowest samples")
        self.log_means_, self.kept_ = deseq2_norm_fit(counts)
        return self

    def transform(self, counts: np.ndarray) -> np.ndarray:
        """log2(count / size factor + 1).

        Raises
        ------
        DataError
            If a sample has none of the genes that factors are made of.
        """
        with np.errstate(divide="ignore", invalid="ignore"):
            normed, factors = deseq2_norm_transform(counts, self.log_means_, self.kept_)
        if not (np.isfinite(factors) & (factors > 0)).all():
            row = int(np.flatnonzero(~(np.isfinite(factors) & (factors > 0)))[0])
            raise DataError(
                f"sample {row} of {len(counts)}: has too few of the genes that size factors are made of; leave it out"
            )
        return np.log2(normed + 1)


def ranked_genes(values: np.ndarray, y: np.ndarray, by: str) -> np.ndarray:
    """Positions of genes, the most informative first; equal ones in the order of the columns.

    Parameters
    ----------
    values
        Log2 expression, samples x genes.
    by
        Of `SELECTIONS`.

    Raises
    ------
    DataError
        If there is no such selection.
    """
    if by not in SELECTIONS:
        raise DataError(f"genes by {by!r}: {closest(by, SELECTIONS)}")
    spread = values.var(axis=0)
    if by == "variance":
        return np.argsort(-spread, kind="stable")
    return np.argsort(-differences(values, y), kind="stable")


def differences(values: np.ndarray, y: np.ndarray) -> np.ndarray:
    """F statistic of each gene between the classes; 0 for a gene that does not vary.

    Parameters
    ----------
    values
        Log2 expression, samples x genes.
    """
    score = np.zeros(values.shape[1])
    able = values.var(axis=0) > 0
    with np.errstate(divide="ignore", invalid="ignore"), warnings.catch_warnings():
        # A gene without spread in either class is told apart by nothing or by everything, which scikit-learn warns of.
        warnings.simplefilter("ignore", UserWarning)
        score[able] = np.nan_to_num(f_classif(values[:, able], y)[0], nan=0.0, posinf=np.finfo(float).max)
    return score


def chosen_genes(
    values: np.ndarray, y: np.ndarray, by: str, n_genes: int, always: np.ndarray | None = None
) -> np.ndarray:
    """Positions of the first of `ranked_genes`, in the order of the table, so that equal values are always sorted alike.

    Parameters
    ----------
    always
        True for genes that take the first places whatever they do; of others there are fewer then.
    """
    order = ranked_genes(values, y, by)
    wanted = np.zeros(len(order), bool) if always is None else np.asarray(always)[order]
    return np.sort(np.concatenate([order[wanted], order[~wanted][: max(n_genes - wanted.sum(), 0)]]))


class InFold(ClassifierMixin, BaseEstimator):
    """A classifier with all that comes before it fitted on the same samples: size factors, then genes, then the model.

    Parameters
    ----------
    model
        Scikit-learn's ``fit`` and ``predict_proba`` on log2 expression, a DataFrame of samples x chosen genes.
    genes
        Names of the columns of the counts.
    n_genes, by
        How many genes are chosen, and by what (`SELECTIONS`).
    chosen
        Positions of genes that were chosen elsewhere, as `leaking` does; None to choose them where the rest is fitted.
    always
        Names of genes that are among the chosen whatever they do.
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

    def fit(self, counts: np.ndarray, y: np.ndarray) -> "InFold":
        """Fit all of it on counts, samples x genes."""
        self.model_ = clone(self.model).fit(self._learned(counts, y), y)
        self.classes_ = self.model_.classes_
        return self

    def tables(self, counts: np.ndarray, y: np.ndarray, others: np.ndarray) -> tuple[pd.DataFrame, pd.DataFrame]:
        """Log2 expression of the chosen genes, of the samples that they are chosen in and of others; no model is fitted."""
        return self._learned(counts, y), self._table(self.factors_.transform(others))

    def _learned(self, counts: np.ndarray, y: np.ndarray) -> pd.DataFrame:
        self.factors_ = FrozenFactors().fit(counts)
        values = self.factors_.transform(counts)
        if self.chosen is None:
            asked = set(self.always)
            always = np.array([gene in asked for gene in self.genes], bool)
            self.chosen_ = chosen_genes(values, y, self.by, self.n_genes, always)
        else:
            self.chosen_ = self.chosen
        return self._table(values)

    def predict_proba(self, counts: np.ndarray) -> np.ndarray:
        """Probabilities, samples x classes."""
        return self.model_.predict_proba(self._table(self.factors_.transform(counts)))

    def _table(self, values: np.ndarray) -> pd.DataFrame:
        names = [str(self.genes[place]) for place in self.chosen_]
        return pd.DataFrame(values[:, self.chosen_], [f"row {row}" for row in range(len(values))], names)


def leaking(
    model: object, genes: list[str], counts: np.ndarray, y: np.ndarray, *, n_genes: int, by: str = SELECTIONS[1]
) -> InFold:
    """A classifier whose genes were chosen with all labels, the test samples' too: the mistake, on purpose, to be seen.

    Parameters
    ----------
    counts, y
        Of all samples, whatever the folds will be.
    """
    values = FrozenFactors().fit(counts).transform(counts)
    return InFold(model, genes, n_genes, by, chosen=chosen_genes(values, y, by, n_genes))


def rivals(seed: int = 0) -> dict[str, ClassifierMixin]:
    """Plain models on log2 expression by name; scales are part of the model, so that they are fitted in the fold."""
    return {
        "majority": DummyClassifier(strategy="prior"),
        "logistic regression": make_pipeline(StandardScaler(), LogisticRegression(C=0.1, max_iter=1000)),
        "random forest": RandomForestClassifier(100, n_jobs=1, random_state=seed),
    }


def by_selections(
    models: dict[str, object], genes: list[str], n_genes: int, selections: tuple[str, ...] = SELECTIONS
) -> dict[str, InFold]:
    """Every model behind every selection of genes, named by both."""
    return {
        f"{name}, by {by}": InFold(model, genes, n_genes, by) for by in selections for name, model in models.items()
    }
