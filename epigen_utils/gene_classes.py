"""Whether embeddings of genes tell classes of genes apart, and whether expression alone does as well.

Paper B, section 1; Theodoris et al. 2023, who fine-tune, where a linear model on frozen embeddings is asked here. Genes are the units:
they are what is held out, and all of them come from the same cells and donors. Paralogs may stand on both sides of a fold.
"""

import itertools
from collections.abc import Iterator

import anndata
import numpy as np
import pandas as pd
import sklearn
from scipy import stats
from scipy.special import logit
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import KFold, StratifiedKFold
from sklearn.preprocessing import StandardScaler

from epigen_utils import cells, evaluation
from epigen_utils.encoding import TARGET_SUM
from epigen_utils.errors import DataError, closest
from epigen_utils.gene_labels import PAIRED, PUBLISHED

#: Strengths of the penalty that the training fold chooses from; scikit-learn's C.
STRENGTHS = (0.01, 0.1, 1.0)
#: Folds inside the training fold.
INNER = 3


def log_expression(adata: anndata.AnnData, genes: list[str]) -> np.ndarray:
    """log(1 + counts scaled to a depth of 10,000) of genes by Ensembl id, cells x genes; 0 for a gene that is not there."""
    source = cells.InMemory(adata)
    (part,) = source.parts(source.n_obs)
    counts = part.counts()
    column = {gene: place for place, gene in enumerate(source.ensembl_ids)}
    there = [place for place, gene in enumerate(genes) if gene in column]
    values = np.zeros((source.n_obs, len(genes)))
    values[:, there] = counts[:, [column[genes[place]] for place in there]].toarray()
    return np.log1p(values / np.maximum(part.depth(counts), 1)[:, None] * TARGET_SUM)


def expression_of(values: np.ndarray, genes: list[str]) -> pd.DataFrame:
    """What is known of a gene without its neighbours: log ``mean`` expression and log odds of ``detection``, genes x 2.

    Parameters
    ----------
    values
        Cells x genes, `log_expression`.
    """
    shown = ((values > 0).sum(axis=0) + 0.5) / (len(values) + 1)
    mean = np.log(np.expm1(values).mean(axis=0) + 1e-3)
    return pd.DataFrame({"mean": mean, "detection": logit(shown)}, genes)


def coexpression(values: np.ndarray, genes: list[str], *, n_components: int = 20) -> pd.DataFrame:
    """Correlation of each gene with the first principal components of the cells; genes x components.

    No label is read. Components are those of the genes' correlation matrix, which is taken by way of the cells.
    """
    spread = values.std(axis=0)
    scaled = (values - values.mean(axis=0)) / np.where(spread > 0, spread, 1)
    _, vectors = np.linalg.eigh(scaled @ scaled.T)
    first = vectors[:, ::-1][:, :n_components]
    return pd.DataFrame(scaled.T @ first / np.sqrt(len(values)), genes)


def _folds(y: np.ndarray, pair: np.ndarray, n_splits: int, seed: int) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Stratified; or whole pairs, since who has seen one of a pair takes the other, its like, for the same class."""
    names, codes = np.unique(pair, return_inverse=True)
    if len(names) == len(pair):
        yield from StratifiedKFold(n_splits, shuffle=True, random_state=seed).split(y, y)
        return
    for _, test in KFold(n_splits, shuffle=True, random_state=seed).split(names):
        out = np.isin(codes, test)
        yield np.flatnonzero(~out), np.flatnonzero(out)


def scores_of(
    X: np.ndarray, y: np.ndarray, held_out: np.ndarray, *, pair: np.ndarray | None = None, seed: int = 0
) -> np.ndarray:
    """Log odds that scaled logistic regression gives to genes it has not seen.

    Parameters
    ----------
    X, y
        Genes x features, and which genes are positive; of the training fold alone. The penalty with the least log-loss in
        folds inside it is taken.
    held_out
        Genes x features.
    """
    losses = np.zeros(len(STRENGTHS))
    pair = np.arange(len(y)) if pair is None else pair
    for train, test in _folds(y, pair, min(INNER, int(y.sum()), int((~y).sum())), seed):
        found = _log_odds(X[train], y[train], X[test], STRENGTHS)
        losses += np.logaddexp(0, np.where(y[test], -found, found)).mean(axis=1)
    return _log_odds(X, y, held_out, [STRENGTHS[int(np.argmin(losses))]])[0]


def _log_odds(X: np.ndarray, y: np.ndarray, held_out: np.ndarray, strengths: list[float]) -> np.ndarray:
    """One row a strength."""
    scale = StandardScaler().fit(X)
    design, asked = scale.transform(X), scale.transform(held_out)
    # Thousands of small fits are made, of which the checks would be most of the time.
    with sklearn.config_context(assume_finite=True, skip_parameter_validation=True):
        models = [
            LogisticRegression(C=strength, solver="newton-cholesky", tol=1e-6).fit(design, y) for strength in strengths
        ]
    return np.array([model.decision_function(asked) for model in models])


def out_of_fold(X: np.ndarray, y: np.ndarray, pair: np.ndarray, *, n_splits: int = 5, seed: int = 0) -> pd.DataFrame:
    """Score of each gene by a model that has not seen it: ``gene`` (position), ``fold`` (from 1) and ``score`` (log odds)."""
    parts = []
    for fold, (train, test) in enumerate(_folds(y, pair, n_splits, seed), start=1):
        score = scores_of(X[train], y[train], X[test], pair=pair[train], seed=seed)
        parts.append(pd.DataFrame({"gene": test, "fold": fold, "score": score}))
    return pd.concat(parts, ignore_index=True)


def fold_aucs(scores: pd.DataFrame, y: np.ndarray) -> np.ndarray:
    """AUC of each fold of `out_of_fold`; scores of two folds are of two models, and are not compared."""
    return np.array([evaluation.auc(some["score"].to_numpy(), y[some["gene"]]) for _, some in scores.groupby("fold")])


def corrected_interval(values: np.ndarray, *, n_splits: int) -> tuple[float, float]:
    """95% interval of the mean over repeated folds, which share genes (Nadeau and Bengio 2003).

    Parameters
    ----------
    values
        One a fold, of all repetitions.
    """
    values = np.asarray(values)
    # The test fold is 1 / (n_splits - 1) of the training fold.
    error = np.sqrt((1 / len(values) + 1 / (n_splits - 1)) * values.var(ddof=1))
    half = stats.t.ppf(0.975, len(values) - 1) * error
    return float(values.mean() - half), float(values.mean() + half)


def compare(
    features: dict[str, pd.DataFrame],
    tasks: dict[str, pd.DataFrame],
    *,
    n_splits: int = 5,
    n_repeats: int = 3,
    n_permutations: int = 19,
    seed: int = 0,
) -> tuple[pd.DataFrame, pd.DataFrame]:
    """How well each kind of features tells the classes of each task apart, in the same folds.

    Parameters
    ----------
    features
        Name -> genes, by Ensembl id, x features.
    tasks
        Task -> its genes; `gene_labels.members`. Labels of pairs are shuffled within pairs.

    Returns
    -------
    A row a task and kind of features: ``task``, ``features``, ``auc`` (mean over folds and repetitions), ``low`` and ``high``
    (`corrected_interval`), ``p`` (of the first repetition, among shuffled labels with which everything is done again, (b + 1) /
    (m + 1)), ``null`` (mean AUC of those), ``positive`` and ``negative`` (genes); and a row a task, features, ``repeat``, ``fold``
    and ``gene`` with ``score`` and ``is_positive``.
    """
    rows, kept = [], []
    for task, name in itertools.product(tasks, features):
        genes, y, pair = tasks[task].index.to_numpy(), *tasks[task][["positive", "pair"]].to_numpy().T
        y = y.astype(bool)
        X = features[name].loc[genes].to_numpy(float)
        found = [out_of_fold(X, y, pair, n_splits=n_splits, seed=seed + repeat) for repeat in range(n_repeats)]
        aucs = np.concatenate([fold_aucs(scores, y) for scores in found])

        def score(labels, X=X, pair=pair):
            return fold_aucs(out_of_fold(X, labels, pair, n_splits=n_splits, seed=seed), labels).mean()

        test = {"donors": pair if task in PAIRED else None, "n_permutations": n_permutations, "seed": seed}
        _, p, null = evaluation.permutation_pvalue(score, y, **test)
        low, high = np.clip(corrected_interval(aucs, n_splits=n_splits), 0, 1)
        row = {"task": task, "features": name, "auc": aucs.mean(), "low": low, "high": high, "p": p}
        rows.append(row | {"null": null.mean(), "positive": int(y.sum()), "negative": int((~y).sum())})
        for repeat, scores in enumerate(found, start=1):
            more = {"task": task, "features": name, "repeat": repeat, "is_positive": y[scores["gene"]]}
            kept.append(scores.assign(**more, gene=genes[scores["gene"]]))
    return pd.DataFrame(rows), pd.concat(kept, ignore_index=True)


def by_fold(scores: pd.DataFrame) -> pd.DataFrame:
    """AUC of each fold of `compare`'s genes: ``task``, ``features``, ``repeat``, ``fold``, ``auc``."""
    keys = ["task", "features", "repeat", "fold"]
    found = scores.groupby(keys, sort=False)[["score", "is_positive"]]
    aucs = found.apply(lambda some: evaluation.auc(some["score"].to_numpy(), some["is_positive"].to_numpy()))
    return aucs.rename("auc").reset_index()


def differences(folds: pd.DataFrame, features: str) -> pd.DataFrame:
    """AUC of one kind of features less that of each other, in the same folds, with its `corrected_interval`.

    Parameters
    ----------
    folds
        As `by_fold` gives them.

    Returns
    -------
    A row a task and rival: ``task``, ``rival``, ``difference``, ``low``, ``high``.

    Raises
    ------
    DataError
        If these features were not compared.
    """
    if features not in set(folds["features"]):
        raise DataError(f"features {features!r}: {closest(features, set(folds['features']))}")
    rows = []
    for task, some in folds.groupby("task", sort=False):
        wide = some.pivot(index=["repeat", "fold"], columns="features", values="auc")
        for rival in some["features"].drop_duplicates():
            if rival != features:
                gain = (wide[features] - wide[rival]).to_numpy()
                low, high = corrected_interval(gain, n_splits=some["fold"].max())
                rows.append({"task": task, "rival": rival, "difference": gain.mean(), "low": low, "high": high})
    return pd.DataFrame(rows)


def side_by_side(folds: pd.DataFrame, task: str) -> pd.DataFrame:
    """AUC of each fold of the first repetition, ``mean`` and ``sd``, a row a kind of features; below them what was published."""
    some = folds[(folds["task"] == task) & (folds["repeat"] == 1)]
    table = some.pivot(index="features", columns="fold", values="auc").reindex(some["features"].unique())
    table = table.assign(mean=table.mean(axis=1), sd=table.std(axis=1, ddof=0))
    if (known := PUBLISHED.get(task)) and table.shape[1] == len(known["folds"]) + 2:
        table.loc["official Geneformer, fine-tuned"] = [*known["folds"], known["mean"], known["sd"]]
    return table.rename(columns=lambda name: f"fold {name}" if isinstance(name, int) else name).reset_index()
