"""Baselines of cell classification: majority class, logistic regression, random forest, on ranks and on counts."""

import anndata
import numpy as np
from scipy import sparse
from sklearn.base import ClassifierMixin
from sklearn.dummy import DummyClassifier
from sklearn.ensemble import RandomForestClassifier
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import MaxAbsScaler, StandardScaler

from epigen_utils.geneformer.encoded_cells import EncodedCells, token_ids
from epigen_utils.geneformer.encoding import TARGET_SUM
from epigen_utils.geneformer.vocabularies import Vocabulary


def bag_of_ranks(encoded: EncodedCells, vocabulary: Vocabulary) -> sparse.csr_matrix:
    """Ranks as features, cells x genes: 1 for the first of a cell's n genes, falling linearly to 1 / n."""
    genes = vocabulary.gene_tokens
    column = np.full(vocabulary.size, -1)
    column[genes] = np.arange(len(genes))
    columns = [indices[indices >= 0] for indices in (column[cell] for cell in token_ids(encoded))]
    values = [1 - np.arange(len(indices)) / max(len(indices), 1) for indices in columns]
    indptr = np.concatenate([[0], np.cumsum([len(indices) for indices in columns])])
    bag = sparse.csr_matrix((np.concatenate(values), np.concatenate(columns), indptr), (len(columns), len(genes)))
    bag.sort_indices()
    return bag


def log_normalised_counts(adata: anndata.AnnData) -> sparse.csr_matrix:
    """log(1 + counts scaled to a depth of 10,000), cells x genes."""
    counts = sparse.csr_matrix(adata.layers["counts"]).astype(float)
    depth = np.asarray(counts.sum(axis=1)).ravel()
    return sparse.csr_matrix(sparse.diags(np.divide(TARGET_SUM, depth, where=depth > 0, out=depth)) @ counts).log1p()


def baseline_classifiers(seed: int = 0) -> dict[str, tuple[str, ClassifierMixin]]:
    """Baselines by name, each with its input: ``ranks`` (`bag_of_ranks`) or ``counts`` (`log_normalised_counts`).

    Scalers are part of the pipelines, so that they too are fitted on the training fold only.
    """
    regression = {"max_iter": 300, "C": 0.1, "tol": 1e-2}
    forest = RandomForestClassifier(200, min_samples_leaf=2, n_jobs=1, random_state=seed)
    return {
        "majority": ("counts", DummyClassifier(strategy="prior")),
        "LR on ranks": ("ranks", make_pipeline(MaxAbsScaler(), LogisticRegression(**regression))),
        "LR on counts": ("counts", make_pipeline(StandardScaler(with_mean=False), LogisticRegression(**regression))),
        "random forest": ("counts", forest),
    }
