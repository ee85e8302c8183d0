"""Classification of genes from their embeddings, with expression features as baselines.

Paper B, section 1; Theodoris et al. 2023, who fine-tune, whereas here a linear model is fitted to frozen embeddings.
Folds hold out genes, and all genes come from the same cells and donors. Paralogs may lie on both sides of a fold.
"""

import itertools
from collections.abc import Iterator

import anndata
import numpy as np
import pandas as pd
import sklearn
from scipy.special import logit
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import KFold, StratifiedKFold
from sklearn.preprocessing import StandardScaler

from epigen_utils.data import cell_source
from epigen_utils.downstream.gene_labels import PAIRED_TASKS, PUBLISHED_AUCS
from epigen_utils.errors import DataError, suggest
from epigen_utils.geneformer.encoding import TARGET_SUM
from epigen_utils.stats import intervals, permutation, two_classes

#: Candidate penalty strengths, chosen within the training fold; scikit-learn's C.
PENALTY_STRENGTHS = (0.01, 0.1, 1.0)
#: Definitions of columns of `compare_features`'s table, for a page.
AUC_COLUMNS = {
    "auc": "mean over folds",
    "p": "one-sided permutation test of an AUC above chance; the labels are permuted",
    "null": "mean AUC of the permutations",
    "positive": "number of positive genes",
    "negative": "number of negative genes",
}
#: Folds inside the training fold.
INNER_FOLDS = 3


def log_expression(adata: anndata.AnnData, genes: list[str]) -> np.ndarray:
    """log(1 + counts scaled to a depth of 10,000) of genes by Ensembl id, cells x genes; 0 for missing genes."""
    source = cell_source.InMemoryCells(adata)
    (part,) = source.parts(source.n_obs)
    counts = part.counts()
    column = {gene: position for position, gene in enumerate(source.ensembl_ids)}
    measured = [position for position, gene in enumerate(genes) if gene in column]
    values = np.zeros((source.n_obs, len(genes)))
    values[:, measured] = counts[:, [column[genes[position]] for position in measured]].toarray()
    return np.log1p(values / np.maximum(part.depth(counts), 1)[:, None] * TARGET_SUM)


def expression_features(values: np.ndarray, genes: list[str]) -> pd.DataFrame:
    """Features of each gene's own expression: log ``mean`` and log odds of ``detection``, genes x 2.

    Parameters
    ----------
    values
        Output of `log_expression`, cells x genes.
    """
    detection = ((values > 0).sum(axis=0) + 0.5) / (len(values) + 1)
    mean = np.log(np.expm1(values).mean(axis=0) + 1e-3)
    return pd.DataFrame({"mean": mean, "detection": logit(detection)}, genes)


def coexpression_features(values: np.ndarray, genes: list[str], *, n_components: int = 20) -> pd.DataFrame:
    """Correlation of each gene with the first principal components of the cells, genes x components.

    The components of the genes' correlation matrix are computed without labels, from the smaller matrix cells x cells.
    """
    spread = values.std(axis=0)
    scaled = (values - values.mean(axis=0)) / np.where(spread > 0, spread, 1)
    _, vectors = np.linalg.eigh(scaled @ scaled.T)
    first = vectors[:, ::-1][:, :n_components]
    return pd.DataFrame(scaled.T @ first / np.sqrt(len(values)), genes)


def _gene_folds(y: np.ndarray, pair: np.ndarray, n_splits: int, seed: int) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Yield stratified folds, or folds of whole pairs, since a model assigns a training gene's match to its class."""
    names, codes = np.unique(pair, return_inverse=True)
    if len(names) == len(pair):
        yield from StratifiedKFold(n_splits, shuffle=True, random_state=seed).split(y, y)
        return
    for _, test in KFold(n_splits, shuffle=True, random_state=seed).split(names):
        is_test = np.isin(codes, test)
        yield np.flatnonzero(~is_test), np.flatnonzero(is_test)


def held_out_log_odds(
    X: np.ndarray, y: np.ndarray, held_out: np.ndarray, *, pair: np.ndarray | None = None, seed: int = 0
) -> np.ndarray:
    """Log odds of held-out genes by logistic regression on scaled features.

    The penalty is the one with the smallest log-loss in folds within the training genes.

    Parameters
    ----------
    X, y
        Features of the training genes, genes x features, and whether each is positive.
    held_out
        Features of the held-out genes, genes x features.
    """
    losses = np.zeros(len(PENALTY_STRENGTHS))
    pair = np.arange(len(y)) if pair is None else pair
    for train, test in _gene_folds(y, pair, min(INNER_FOLDS, int(y.sum()), int((~y).sum())), seed):
        log_odds = _log_odds(X[train], y[train], X[test], PENALTY_STRENGTHS)
        losses += np.logaddexp(0, np.where(y[test], -log_odds, log_odds)).mean(axis=1)
    return _log_odds(X, y, held_out, [PENALTY_STRENGTHS[int(np.argmin(losses))]])[0]


def _log_odds(X: np.ndarray, y: np.ndarray, held_out: np.ndarray, strengths: list[float]) -> np.ndarray:
    """Log odds of the held-out genes, strengths x genes."""
    scale = StandardScaler().fit(X)
    X, held_out = scale.transform(X), scale.transform(held_out)
    # With thousands of small fits, scikit-learn's checks would dominate the run time.
    with sklearn.config_context(assume_finite=True, skip_parameter_validation=True):
        regressions = [
            LogisticRegression(C=strength, solver="newton-cholesky", tol=1e-6).fit(X, y) for strength in strengths
        ]
    return np.array([regression.decision_function(held_out) for regression in regressions])


def out_of_fold_scores(
    X: np.ndarray, y: np.ndarray, pair: np.ndarray, *, n_splits: int = 5, seed: int = 0
) -> pd.DataFrame:
    """Out-of-fold score of each gene: ``gene`` (position), ``fold`` (from 1) and ``score`` (log odds)."""
    parts = []
    for fold, (train, test) in enumerate(_gene_folds(y, pair, n_splits, seed), start=1):
        score = held_out_log_odds(X[train], y[train], X[test], pair=pair[train], seed=seed)
        parts.append(pd.DataFrame({"gene": test, "fold": fold, "score": score}))
    return pd.concat(parts, ignore_index=True)


def fold_aucs(scores: pd.DataFrame, y: np.ndarray) -> np.ndarray:
    """AUC of each fold of `out_of_fold_scores`; folds have different models, so that scores are not pooled."""
    return np.array(
        [two_classes.roc_auc(fold["score"].to_numpy(), y[fold["gene"]]) for _, fold in scores.groupby("fold")]
    )


def compare_features(
    features: dict[str, pd.DataFrame],
    tasks: dict[str, pd.DataFrame],
    *,
    n_splits: int = 5,
    n_repeats: int = 3,
    n_permutations: int = 19,
    seed: int = 0,
) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Classify the genes of each task from each kind of features, in the same folds.

    Parameters
    ----------
    features
        Name -> genes, by Ensembl id, x features.
    tasks
        Task -> output of `gene_labels.task_genes`. Labels of matched pairs are permuted within pairs.

    Returns
    -------
    First, one row a task and kind of features:

    - ``task``, ``features``, ``auc``, ``low``, ``high`` (over folds and repetitions:
      `intervals.nadeau_bengio_interval`);
    - ``p``: of the first repetition, (b + 1) / (m + 1); each permutation repeats the whole procedure;
    - ``null``: mean AUC of the permutations; ``positive``, ``negative``: number of genes.

    Second, one row a ``task``, ``features``, ``repeat``, ``fold`` and ``gene``, with ``score`` and ``is_positive``.
    """
    rows, gene_scores = [], []
    for task, name in itertools.product(tasks, features):
        genes, y, pair = tasks[task].index.to_numpy(), *tasks[task][["positive", "pair"]].to_numpy().T
        y = y.astype(bool)
        X = features[name].loc[genes].to_numpy(float)
        repeats = [out_of_fold_scores(X, y, pair, n_splits=n_splits, seed=seed + repeat) for repeat in range(n_repeats)]
        aucs = np.concatenate([fold_aucs(scores, y) for scores in repeats])

        def score(labels, X=X, pair=pair):
            return fold_aucs(out_of_fold_scores(X, labels, pair, n_splits=n_splits, seed=seed), labels).mean()

        blocks = pair if task in PAIRED_TASKS else None
        _, p, null = permutation.permutation_test(score, y, donors=blocks, n_permutations=n_permutations, seed=seed)
        mean, *limits = intervals.nadeau_bengio_interval(aucs, test_share=1 / n_splits)
        low, high = np.clip(limits, 0, 1)
        row = {"task": task, "features": name, "auc": mean, "low": low, "high": high, "p": p}
        rows.append(row | {"null": null.mean(), "positive": int(y.sum()), "negative": int((~y).sum())})
        for repeat, scores in enumerate(repeats, start=1):
            columns = {"task": task, "features": name, "repeat": repeat, "is_positive": y[scores["gene"]]}
            gene_scores.append(scores.assign(**columns, gene=genes[scores["gene"]]))
    return pd.DataFrame(rows), pd.concat(gene_scores, ignore_index=True)


def aucs_by_fold(scores: pd.DataFrame) -> pd.DataFrame:
    """AUC of each fold from the scores of `compare_features`: ``task``, ``features``, ``repeat``, ``fold``, ``auc``."""
    keys = ["task", "features", "repeat", "fold"]
    grouped = scores.groupby(keys, sort=False)[["score", "is_positive"]]
    aucs = grouped.apply(lambda fold: two_classes.roc_auc(fold["score"].to_numpy(), fold["is_positive"].to_numpy()))
    return aucs.rename("auc").reset_index()


def auc_differences(aucs: pd.DataFrame, features: str) -> pd.DataFrame:
    """AUC of one kind of features minus that of each baseline in the same folds, with a 95% interval.

    Parameters
    ----------
    aucs
        Output of `aucs_by_fold`.

    Returns
    -------
    One row a task and baseline: ``task``, ``baseline``, ``difference``, ``low``, ``high``, ``folds``.

    Raises
    ------
    DataError
        If these features were not compared.
    """
    if features not in set(aucs["features"]):
        raise DataError(f"features {features!r}: {suggest(features, set(aucs['features']))}")
    rows = []
    for task, table in aucs.groupby("task", sort=False):
        wide = table.pivot(index=["repeat", "fold"], columns="features", values="auc")
        for baseline in table["features"].drop_duplicates():
            if baseline != features:
                gain, share = wide[features] - wide[baseline], 1 / table["fold"].max()
                mean, low, high = intervals.nadeau_bengio_interval(gain.to_numpy(), test_share=share)
                row = {"task": task, "baseline": baseline, "difference": mean, "low": low, "high": high}
                rows.append(row | {"folds": len(gain)})
    return pd.DataFrame(rows)


def fold_table_with_published(aucs: pd.DataFrame, task: str) -> pd.DataFrame:
    """AUC by fold of the first repetition, ``mean`` and ``sd``, one row a kind of features; published values last."""
    first = aucs[(aucs["task"] == task) & (aucs["repeat"] == 1)]
    table = first.pivot(index="features", columns="fold", values="auc").reindex(first["features"].unique())
    table = table.assign(mean=table.mean(axis=1), sd=table.std(axis=1, ddof=0))
    if (published := PUBLISHED_AUCS.get(task)) and table.shape[1] == len(published["folds"]) + 2:
        table.loc["official Geneformer, fine-tuned"] = [*published["folds"], published["mean"], published["sd"]]
    return table.rename(columns=lambda name: f"fold {name}" if isinstance(name, int) else name).reset_index()
