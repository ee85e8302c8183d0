"""Simulated data with the planted truth kept beside it. Effects are drawn by seed, never copied from a paper."""

import anndata
import numpy as np
import pandas as pd


def negative_binomial_cohort(
    *,
    groups: dict[str, int],
    reference: str,
    n_genes: int = 2000,
    n_changed: int = 100,
    dispersion: float = 0.1,
    seed: int = 0,
) -> anndata.AnnData:
    """Bulk counts with planted log2 fold changes.

    Means are log-normal, library sizes vary two-fold, counts are negative binomial with variance
    ``mu + dispersion * mu**2`` (the model of DESeq2, Love et al. 2014, eq. 1-2).

    Parameters
    ----------
    groups
        Group name -> number of samples.
    reference
        The group without planted changes.
    n_genes, n_changed
        Genes, and how many of them differ in each other group.

    Returns
    -------
    AnnData, samples x genes: counts in ``layers["counts"]``, ``obs["group"]``; ``varm["log2_fold_change"]`` holds the
    truth, genes x groups.

    Raises
    ------
    ValueError
        If the reference is not one of the groups.
    """
    if reference not in groups:
        raise ValueError(f"reference {reference!r} is not one of the groups {', '.join(groups)}")
    rng = np.random.default_rng(seed)
    mean = rng.lognormal(mean=4, sigma=1.5, size=n_genes)
    truth = pd.DataFrame(0.0, index=[f"SIM{i:05d}" for i in range(n_genes)], columns=list(groups))
    for group in groups:
        if group != reference:
            changed = rng.choice(n_genes, n_changed, replace=False)
            truth.iloc[changed, truth.columns.get_loc(group)] = rng.normal(0, 1.5, n_changed)
    labels = np.repeat(list(groups), list(groups.values()))
    depth = 2 ** rng.uniform(-0.5, 0.5, len(labels))
    mu = depth[:, None] * mean * 2 ** truth[labels].to_numpy().T
    counts = rng.poisson(rng.gamma(1 / dispersion, dispersion * mu)).astype(np.int64)
    names = [f"{label}_{i + 1}" for label, size in groups.items() for i in range(size)]
    return anndata.AnnData(
        obs=pd.DataFrame({"group": labels}, index=names),
        var=pd.DataFrame({"symbol": truth.index}, index=truth.index),
        layers={"counts": counts},
        varm={"log2_fold_change": truth},
    )
