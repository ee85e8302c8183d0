"""Genes ranked by everything that could name a biomarker, beside each other: attention, attributions, tests, forests.

Paper A, section I: "identifies top biomarkers (e.g., GRIA1, SST, PVALB) from thousands of genes".
"""

import numpy as np
import pandas as pd
from scipy.stats import false_discovery_control
from sklearn.ensemble import RandomForestClassifier

from epigen_utils import attribution, differential, evaluation, in_fold, sentence_attention
from epigen_utils.sample_cohorts import SampleCohort
from epigen_utils.sentence_classes import GPT2Classifier


def model_scores(
    classifier: GPT2Classifier, values: pd.DataFrame, background: pd.DataFrame, positive: str, *, max_occluded: int = 0
) -> pd.DataFrame:
    """What can be read off a model of a gene.

    Genes x ``attention``, ``attention beyond place``, ``rollout`` (means over samples), ``integrated gradients``, ``gradient x input``,
    ``occlusion`` and ``deletion`` (`attribution.importance`).

    Parameters
    ----------
    values, background
        Samples that are explained, and training samples: log2 expression, samples x genes.
    max_occluded
        Of these samples, the first so many are occluded, which asks the model once a gene; 0: all. Samples should come from both
        classes by turns (`representations.of_both_classes`).
    """
    seen = sentence_attention.of_genes(sentence_attention.read(classifier, values)).set_index("gene")
    found = seen[["attention", "beyond place", "rollout"]].rename(columns={"beyond place": "attention beyond place"})
    options = {"background": background}
    some = values.iloc[: max_occluded or None]
    ways = {
        "integrated gradients": attribution.integrated_gradients(classifier, values, positive, **options),
        "gradient x input": attribution.gradient_x_input(classifier, values, positive, **options),
        "occlusion": attribution.occlusion(classifier, some, positive, **options),
        "deletion": attribution.occlusion(classifier, some, positive, how="deleted", **options),
    }
    return found.assign(**{name: attribution.importance(table) for name, table in ways.items()})


def plain_scores(values: pd.DataFrame, y: np.ndarray, *, seed: int = 0) -> pd.DataFrame:
    """What needs no language model, from training samples: genes x ``variance``, ``F test`` (of the classes) and ``random forest`` (impurity)."""
    tested = in_fold.differences(values.to_numpy(), y)
    forest = RandomForestClassifier(500, n_jobs=1, random_state=seed).fit(values, y)
    columns = {"variance": values.var().to_numpy(), "F test": tested, "random forest": forest.feature_importances_}
    return pd.DataFrame(columns, values.columns)


def tested(cohort: SampleCohort, rows: np.ndarray) -> pd.DataFrame:
    """Differential expression between the classes in some samples (`differential.deseq`), by gene.

    Where the samples are of several experiments that have both classes, the experiment is in the design.

    Parameters
    ----------
    rows
        Positions in the cohort: the training samples.
    """
    adata = cohort.adata[rows][:, cohort.genes].copy()
    levels = list(cohort.sizes())
    adata.obs = pd.DataFrame({"class": pd.Categorical(cohort.y[rows], levels)}, adata.obs_names)
    design = "~class"
    if cohort.batch is not None:
        adata.obs["batch"] = cohort.batch[rows]
        if (pd.crosstab(adata.obs["batch"], adata.obs["class"]) > 0).all(axis=None) and adata.obs[
            "batch"
        ].nunique() > 1:
            design = "~batch + class"
    return differential.deseq(adata, design=design, contrast=("class", cohort.positive, levels[0]))


def ranks(scores: pd.DataFrame) -> pd.DataFrame:
    """Place of each gene by each way, 1 first; ties share the mean of their places."""
    return scores.rank(ascending=False)


def of_named(scores: pd.DataFrame, named: pd.DataFrame) -> pd.DataFrame:
    """Where genes that a paper names stand.

    Parameters
    ----------
    named
        ``human`` and ``gene`` (the data set's id, missing where it has none), as `genes.in_data` gives it.

    Returns
    -------
    A row a name and gene: ``human``, ``gene``, then the place by each way; missing where the model is not shown the gene.
    """
    places = ranks(scores).reindex(named["gene"]).reset_index(drop=True)
    return pd.concat([named[["human", "gene"]].reset_index(drop=True), places], axis=1)


def enriched(scores: pd.DataFrame, sets: dict[str, list[str]], *, n_top: int) -> pd.DataFrame:
    """Over-representation of gene sets among the first genes of each way (`evaluation.overlaps`), one FDR over all ways and sets.

    Returns
    -------
    A row a way and set: ``way``, ``set``, ``genes``, ``chosen``, ``expected``, ``p``, ``padj``.
    """
    universe = list(scores.index)
    tables = [
        evaluation.overlaps(list(column.nlargest(n_top).index), sets, universe).assign(way=way)
        for way, column in scores.items()
    ]
    table = pd.concat(tables, ignore_index=True)
    table["padj"] = false_discovery_control(table["p"])
    return table[["way", "set", "genes", "chosen", "expected", "p", "padj"]]
