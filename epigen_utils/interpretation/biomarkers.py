"""Biomarker rankings of genes side by side: attention, attributions, tests and random forests.

Paper A, section I: "identifies top biomarkers (e.g., GRIA1, SST, PVALB) from thousands of genes".
"""

import numpy as np
import pandas as pd
from scipy.stats import false_discovery_control
from sklearn.ensemble import RandomForestClassifier

from epigen_utils.expression import differential, effects, fold_selection
from epigen_utils.gpt2 import readout_attention
from epigen_utils.gpt2.classifier import GPT2Classifier
from epigen_utils.interpretation import attribution
from epigen_utils.prediction.sample_cohort import SampleCohort


def scores_from_model(
    classifier: GPT2Classifier, values: pd.DataFrame, background: pd.DataFrame, positive: str, *, max_occluded: int = 0
) -> pd.DataFrame:
    """Gene scores that are read off a model.

    Parameters
    ----------
    values, background
        Samples to explain, and training samples: log2 expression, samples x genes.
    max_occluded
        Number of samples, from the first, for occlusion, which runs the model once per gene; 0: all. The samples should
        alternate between classes (`representations.alternate_classes`).

    Returns
    -------
    Genes x ``attention``, ``attention beyond place``, ``rollout`` (means over samples), ``integrated gradients``,
    ``gradient x input``, ``occlusion``, ``deletion`` (mean absolute attributions).
    """
    by_gene = readout_attention.gene_attention(readout_attention.compute_attention(classifier, values)).set_index(
        "gene"
    )
    scores = by_gene[["attention", "beyond place", "rollout"]].rename(
        columns={"beyond place": "attention beyond place"}
    )
    options = {"background": background}
    occluded = values.iloc[: max_occluded or None]
    attributions = {
        "integrated gradients": attribution.integrated_gradients(classifier, values, positive, **options),
        "gradient x input": attribution.gradient_times_input(classifier, values, positive, **options),
        "occlusion": attribution.occlusion(classifier, occluded, positive, **options),
        "deletion": attribution.occlusion(classifier, occluded, positive, how="deleted", **options),
    }
    return scores.assign(**{way: attribution.gene_importance(table) for way, table in attributions.items()})


def scores_without_model(values: pd.DataFrame, y: np.ndarray, *, seed: int = 0) -> pd.DataFrame:
    """Gene scores without a language model, from training samples.

    Returns
    -------
    Genes x ``variance``, ``F test`` (between classes), ``random forest`` (impurity importance).
    """
    f_scores = fold_selection.f_statistics(values.to_numpy(), y)
    forest = RandomForestClassifier(500, n_jobs=1, random_state=seed).fit(values, y)
    columns = {"variance": values.var().to_numpy(), "F test": f_scores, "random forest": forest.feature_importances_}
    return pd.DataFrame(columns, values.columns)


def differential_expression(cohort: SampleCohort, train_rows: np.ndarray) -> pd.DataFrame:
    """Differential expression between the classes in the training samples (`differential.deseq`), by gene.

    The design includes the experiment if there are several and each has both classes.

    Parameters
    ----------
    train_rows
        Positions of the training samples in the cohort.
    """
    adata = cohort.adata[train_rows][:, cohort.genes].copy()
    levels = list(cohort.sizes())
    adata.obs = pd.DataFrame({"class": pd.Categorical(cohort.y[train_rows], levels)}, adata.obs_names)
    design = "~class"
    if cohort.batch is not None:
        adata.obs["batch"] = cohort.batch[train_rows]
        counts = pd.crosstab(adata.obs["batch"], adata.obs["class"])
        if len(counts) > 1 and (counts > 0).all(axis=None):
            design = "~batch + class"
    return differential.deseq(adata, design=design, contrast=("class", cohort.positive, levels[0]))


def gene_ranks(scores: pd.DataFrame) -> pd.DataFrame:
    """Rank of each gene by each way, 1 the highest score; ties share their mean rank."""
    return scores.rank(ascending=False)


def ranks_of_named_genes(scores: pd.DataFrame, named: pd.DataFrame) -> pd.DataFrame:
    """Ranks of genes that a paper names.

    Parameters
    ----------
    named
        Table of `orthologs.find_genes`: ``human`` and ``gene`` (the data set's id; missing where it has none).

    Returns
    -------
    A row a name and gene: ``human``, ``gene``, then the rank by each way, missing if the sentences lack the gene.
    """
    table = gene_ranks(scores).reindex(named["gene"]).reset_index(drop=True)
    return pd.concat([named[["human", "gene"]].reset_index(drop=True), table], axis=1)


def set_enrichment(scores: pd.DataFrame, sets: dict[str, list[str]], *, n_top: int) -> pd.DataFrame:
    """Over-representation of gene sets among the top genes of each way (`effects.over_representation`).

    Returns
    -------
    A row a way and set: ``way``, ``set``, ``genes``, ``chosen``, ``expected``, ``p``, ``padj`` (FDR over all rows).
    """
    universe = list(scores.index)
    tables = [
        effects.over_representation(list(column.nlargest(n_top).index), sets, universe).assign(way=way)
        for way, column in scores.items()
    ]
    table = pd.concat(tables, ignore_index=True)
    table["padj"] = false_discovery_control(table["p"])
    return table[["way", "set", "genes", "chosen", "expected", "p", "padj"]]
