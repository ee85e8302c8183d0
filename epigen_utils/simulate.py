"""Simulated data with the planted truth kept beside it. Effects are drawn by seed, never copied from a paper."""

import anndata
import numpy as np
import pandas as pd
from scipy import sparse

from epigen_utils import datasets, genes


def _check_reference(reference: str, groups: dict[str, int]) -> None:
    if reference not in groups:
        raise ValueError(f"reference {reference!r} is not one of the groups {', '.join(groups)}")


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
    _check_reference(reference, groups)
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
    return _cohort(counts, truth, {"group": labels})


def thinned_cohort(
    *,
    base: str,
    species: str,
    groups: dict[str, int],
    reference: str,
    batch: str,
    n_changed: int = 500,
    effect_sd: float = 1.0,
    min_mean: float = 10,
    seed: int = 0,
) -> anndata.AnnData:
    """A cohort in a wanted design, made from real libraries, with planted log2 fold changes.

    Real counts keep their own means, dispersions and correlations; effects come in by binomial thinning, which turns a
    Poisson-like count of mean m into one of mean p m (Gerard 2020, BMC Bioinformatics 21:206). Where the design wants
    more samples than there are libraries, each library is split into equal parts, which go to different groups and
    share their ``library``. A human library becomes one of another species by its orthologs; the counts of a human gene
    are dealt to its paralogs in shares drawn once for each gene.

    Parameters
    ----------
    base
        Data set of the registry with human Ensembl ids.
    species
        Of the cohort to make, as `genes.orthologs` knows it.
    groups, reference
        Group -> number of samples, in the paper's design; the group without planted changes.
    batch
        Column of the base whose levels are spread over the groups; kept as ``batch``.
    n_changed, effect_sd, min_mean
        Genes changed in each other group, standard deviation of their log2 fold changes (normal, mean 0), and the mean
        count that a gene must have to be one of them.

    Returns
    -------
    AnnData, samples x genes: ``obs`` has ``genotype``, ``batch`` and ``library``; ``varm["log2_fold_change"]`` the truth,
    genes x groups.

    Raises
    ------
    ValueError
        If the reference is not one of the groups.
    """
    _check_reference(reference, groups)
    rng = np.random.default_rng(seed)
    source = genes.named(datasets.load(base))
    counts, symbols = _as_species(source, species, rng)
    libraries, labels = _deal(source.obs[batch].astype(str).to_numpy(), groups, rng)
    parts = np.bincount(libraries, minlength=len(counts))
    split = counts[libraries]
    seen = dict.fromkeys(range(len(counts)), 0)
    remaining = counts.copy()
    for row, library in enumerate(libraries):
        left = parts[library] - seen[library]
        split[row] = remaining[library] if left == 1 else rng.binomial(remaining[library], 1 / left)
        remaining[library] -= split[row]
        seen[library] += 1
    truth = pd.DataFrame(0.0, index=symbols, columns=list(groups))
    able = np.flatnonzero(split.mean(axis=0) >= min_mean)
    for group in groups:
        if group != reference:
            changed = rng.choice(able, min(n_changed, len(able)), replace=False)
            truth.iloc[changed, truth.columns.get_loc(group)] = rng.normal(0, effect_sd, len(changed))
    keep = 2 ** (truth[labels].to_numpy().T - truth.to_numpy().max(axis=1))
    obs = {"genotype": labels, "batch": source.obs[batch].astype(str).to_numpy()[libraries]}
    return _cohort(rng.binomial(split, keep), truth, obs | {"library": source.obs_names[libraries]})


def _cohort(counts: np.ndarray, truth: pd.DataFrame, obs: dict) -> anndata.AnnData:
    """Samples named by the first column of ``obs`` and their number in it, with the truth kept beside the counts."""
    labels = pd.Series(next(iter(obs.values())))
    number = labels.groupby(labels).cumcount() + 1
    return anndata.AnnData(
        obs=pd.DataFrame(obs, index=(labels + "_" + number.astype(str)).to_numpy()),
        var=pd.DataFrame({"symbol": truth.index}, index=truth.index),
        layers={"counts": counts},
        varm={"log2_fold_change": truth},
    )


def _as_species(source: anndata.AnnData, species: str, rng: np.random.Generator) -> tuple[np.ndarray, list[str]]:
    """Counts of human genes under the symbols of their orthologs, paralogs in columns of their own."""
    pairs = genes.orthologs(species)
    pairs = pairs[pairs["kind"].isin(["one2one", "one2many"])].drop_duplicates("symbol")
    position = pd.Series(range(source.n_vars), index=source.var["symbol"].to_numpy())
    position = position[~position.index.duplicated()]
    pairs = pairs[pairs["human"].isin(position.index)].sort_values(["human", "symbol"], kind="stable")
    columns, symbols = [], []
    for human, paralogs in pairs.groupby("human")["symbol"]:
        whole = source.layers["counts"][:, position[human]]
        shares = rng.dirichlet(np.full(len(paralogs), 2.0))
        columns.append(rng.multinomial(whole, shares))
        symbols += list(paralogs)
    return np.concatenate(columns, axis=1), symbols


def _deal(batches: np.ndarray, groups: dict[str, int], rng: np.random.Generator) -> tuple[np.ndarray, list[str]]:
    """Which library and which group each sample is of: batches spread over groups, parts of a library over groups."""
    wanted = sum(groups.values())
    parts = -(-wanted // len(batches))
    n_libraries = wanted // parts if wanted % parts == 0 else len(batches)
    levels = list(dict.fromkeys(batches))
    order = {level: list(rng.permutation(np.flatnonzero(batches == level))) for level in levels}
    used = [order[levels[i % len(levels)]].pop() for i in range(n_libraries)]
    by_batch = sorted(used, key=lambda library: levels.index(batches[library]))
    rows = [library for level in levels for _ in range(parts) for library in by_batch if batches[library] == level]
    cycle = [group for i in range(max(groups.values())) for group, size in groups.items() if i < size]
    return np.array(rows[:wanted]), cycle


#: Quantiles of the number of genes in a cell of Genecorpus-30M (paper B, Figure 5; facts of its authors' notebook).
GENECORPUS_LENGTHS = {0.0: 7, 0.25: 74, 0.5: 234, 0.75: 897, 0.93: 2048, 1.0: 2500}


def cell_corpus(
    *,
    n_cells: int = 2000,
    n_genes: int = 3000,
    n_types: int = 6,
    n_donors: int = 12,
    n_regulators: int = 60,
    n_targets: int = 60,
    n_housekeeping: int = 200,
    lengths: dict[float, float] | None = None,
    spread: float = 3.0,
    effect: float = 4.0,
    seed: int = 0,
) -> anndata.AnnData:
    """Single cells in which regulators set the expression of their targets, with the network kept beside the counts.

    A cell's regulators have activities: what its type gives them, what its donor's disease adds to a few of them, and noise of
    the cell's own. The log rate of a regulator and of each of its targets goes up with the activity (the target's by a
    weight, some of them negative); donors have small effects of their own; housekeeping genes follow nothing.
    Counts are Poisson draws at a depth that gives the wanted number of detected genes.

    Parameters
    ----------
    n_donors
        Half of them have the disease ``disease``, the others are ``normal``.
    n_targets
        Of each regulator; a gene can have several regulators.
    lengths
        Quantile -> number of genes detected in a cell; Genecorpus-30M's by default.
    spread, effect
        Standard deviation of the genes' log rates; activity of a regulator in a type that has it, in log units.

    Returns
    -------
    AnnData, cells x genes with human Ensembl ids (protein-coding): ``obs`` has ``cell_type``, ``donor`` and ``disease``,
    ``var`` has ``symbol``, ``regulator`` and ``housekeeping``, ``varm["regulon"]`` the weights, genes x regulators.
    """
    rng = np.random.default_rng(seed)
    coding = genes.table("homo_sapiens").query("biotype == 'protein_coding' and symbol != ''")
    coding = coding.drop_duplicates("symbol").sample(n_genes, random_state=seed).sort_values("ensembl_id")
    roles = rng.permutation(n_genes)
    housekeeping, regulators = roles[:n_housekeeping], roles[n_housekeeping : n_housekeeping + n_regulators]
    others = np.setdiff1d(np.arange(n_genes), housekeeping)
    weights = np.zeros((n_genes, n_regulators))
    for k, regulator in enumerate(regulators):
        targets = rng.choice(np.setdiff1d(others, [regulator]), n_targets, replace=False)
        weights[targets, k] = rng.choice([1.0, 1.0, 1.0, -1.0], n_targets) * rng.uniform(0.6, 1.2, n_targets)
    baseline = rng.normal(0, spread, n_genes)
    baseline[housekeeping] = rng.normal(4, 0.6, n_housekeeping)
    baseline[regulators] = rng.normal(0.5, 0.5, n_regulators)
    follows = weights.copy()
    follows[regulators, np.arange(n_regulators)] = 1.0

    types = rng.integers(n_types, size=n_cells)
    donors = rng.integers(n_donors, size=n_cells)
    ill = np.arange(n_donors) % 2 == 1
    of_type = np.where(rng.random((n_types, n_regulators)) < 0.25, effect, -0.5)
    of_disease = np.where(rng.random(n_regulators) < 0.15, 1.0, 0.0) * rng.choice([-1, 1], n_regulators)
    activity = of_type[types] + ill[donors][:, None] * of_disease + rng.normal(0, 0.5, (n_cells, n_regulators))
    of_donor = rng.normal(0, 0.15, (n_donors, n_genes))
    of_donor[:, housekeeping] = 0

    wanted = np.interp(rng.random(n_cells), *zip(*sorted((lengths or GENECORPUS_LENGTHS).items()), strict=True))
    counts = []
    for first in range(0, n_cells, 500):
        rows = slice(first, first + 500)
        rate = np.exp(baseline + activity[rows] @ follows.T + of_donor[donors[rows]])
        share = rate / rate.sum(axis=1, keepdims=True)
        counts.append(sparse.csr_matrix(rng.poisson(share * _depth(share, wanted[rows])[:, None]).astype(np.int32)))
    names = coding["ensembl_id"].to_numpy()
    var = pd.DataFrame({"symbol": coding["symbol"].to_numpy(), "ensembl_id": names}, index=names)
    var["regulator"], var["housekeeping"] = False, False
    var.iloc[regulators, 2], var.iloc[housekeeping, 3] = True, True
    obs = pd.DataFrame({"cell_type": types, "donor": donors}, index=[f"cell_{i}" for i in range(n_cells)])
    obs["cell_type"], obs["disease"] = (
        "type " + obs["cell_type"].astype(str),
        np.where(ill[donors], "disease", "normal"),
    )
    obs["donor"] = "donor " + obs["donor"].astype(str)
    regulon = pd.DataFrame(weights, names, names[regulators])
    adata = anndata.AnnData(
        obs=obs, var=var, layers={"counts": sparse.vstack(counts, format="csr")}, varm={"regulon": regulon}
    )
    detected = np.diff(adata.layers["counts"].indptr) >= min((lengths or GENECORPUS_LENGTHS).values())
    return adata[detected].copy()


def _depth(share: np.ndarray, wanted: np.ndarray) -> np.ndarray:
    """Depth at which a cell is expected to show the wanted number of genes, by bisection on a log scale."""
    low, high = np.full(len(wanted), 0.0), np.full(len(wanted), 18.0)
    for _ in range(25):
        middle = (low + high) / 2
        too_few = (1 - np.exp(-np.exp(middle)[:, None] * share)).sum(axis=1) < wanted
        low, high = np.where(too_few, middle, low), np.where(too_few, high, middle)
    return np.exp(high)
