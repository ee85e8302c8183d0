"""Simulated data with the planted truth beside the counts. Effects are drawn at random, never taken from a paper."""

import anndata
import numpy as np
import pandas as pd

from epigen_utils.data import genes, orthologs


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
        Number of genes, and of changed genes in each other group.

    Returns
    -------
    AnnData, samples x genes, with ``layers["counts"]`` and ``obs["group"]``; the truth, genes x groups, is
    ``varm["log2_fold_change"]``.

    Raises
    ------
    ValueError
        If the reference is not one of the groups.
    """
    _check_reference(reference, groups)
    rng = np.random.default_rng(seed)
    mean, truth = _draw_truth(rng, groups, reference, n_genes, n_changed)
    labels = np.repeat(list(groups), list(groups.values()))
    return _as_cohort(_draw_counts(mean, truth, labels, dispersion, rng), truth, {"group": labels})


def _draw_truth(
    rng: np.random.Generator, groups: dict[str, int], reference: str, n_genes: int, n_changed: int
) -> tuple[np.ndarray, pd.DataFrame]:
    """Log-normal means of the genes, and planted log2 fold changes against the reference, genes x groups."""
    mean = rng.lognormal(mean=4, sigma=1.5, size=n_genes)
    truth = pd.DataFrame(0.0, index=[f"SIM{i:05d}" for i in range(n_genes)], columns=list(groups))
    for group in groups:
        if group != reference:
            changed = rng.choice(n_genes, n_changed, replace=False)
            truth.iloc[changed, truth.columns.get_loc(group)] = rng.normal(0, 1.5, n_changed)
    return mean, truth


def _draw_counts(
    mean: np.ndarray,
    truth: pd.DataFrame,
    labels: np.ndarray,
    dispersion: float,
    rng: np.random.Generator,
    *,
    sample_effects: np.ndarray | float = 0.0,
) -> np.ndarray:
    """Counts, samples x genes, for library sizes that vary two-fold; ``sample_effects``: log2, samples x genes."""
    depth = 2 ** rng.uniform(-0.5, 0.5, len(labels))
    mu = depth[:, None] * mean * 2 ** (truth[labels].to_numpy().T + sample_effects)  # (samples, genes)
    return rng.poisson(rng.gamma(1 / dispersion, dispersion * mu)).astype(np.int64)


def two_factor_cohort(
    *, groups: dict[str, int], reference: str, n_genes: int = 64, n_changed: int = 16, seed: int = 0
) -> anndata.AnnData:
    """Bulk counts in which equally many genes differ by group and by a nuisance factor independent of the group.

    Both kinds of genes have the same distribution (`negative_binomial_cohort`, log2 fold changes of 0.5 to 2 up or
    down), so that neither mean nor variance separates them: a method that ranks one kind above the other must have
    learned it from the labels.

    Returns
    -------
    As `negative_binomial_cohort`; ``obs["nuisance"]`` is ``present`` in half of each group, and the truth has a column
    ``nuisance``.

    Raises
    ------
    ValueError
        If the reference is not one of the groups.
    """
    _check_reference(reference, groups)
    rng = np.random.default_rng(seed)
    mean, truth = _draw_truth(rng, groups, reference, n_genes, 0)
    labels = np.repeat(list(groups), list(groups.values()))
    nuisance = np.concatenate([rng.permutation(np.arange(n) % 2) for n in groups.values()]).astype(bool)
    truth["nuisance"] = 0.0
    order = rng.permutation(n_genes)
    for i, column in enumerate([name for name in truth.columns if name != reference]):
        changed = order[i * n_changed : (i + 1) * n_changed]
        effects = rng.choice([-1, 1], n_changed) * rng.uniform(0.5, 2, n_changed)
        truth.iloc[changed, truth.columns.get_loc(column)] = effects
    nuisance_effects = np.where(nuisance, 1.0, 0.0)[:, None] * truth["nuisance"].to_numpy()  # (samples, genes)
    counts = _draw_counts(mean, truth, labels, 0.1, rng, sample_effects=nuisance_effects)
    return _as_cohort(counts, truth, {"group": labels, "nuisance": np.where(nuisance, "present", "absent")})


def cohort_of_species(
    *, part: int, groups: dict[str, int], reference: str, n_genes: int = 1000, n_changed: int = 200, seed: int = 0
) -> anndata.AnnData:
    """One of several cohorts that share only their planted changes, like species with the same disease.

    As `negative_binomial_cohort`, but each part multiplies the mean of each gene by a factor of its own (log-normal,
    sigma 1).

    Parameters
    ----------
    part
        Number of the cohort; all parts of one seed have the same truth.

    Returns
    -------
    As `negative_binomial_cohort`.

    Raises
    ------
    ValueError
        If the reference is not one of the groups.
    """
    _check_reference(reference, groups)
    rng, part_rng = np.random.default_rng(seed), np.random.default_rng([seed, part + 1])
    mean, truth = _draw_truth(rng, groups, reference, n_genes, n_changed)
    mean = mean * part_rng.lognormal(sigma=1.0, size=n_genes)
    labels = np.repeat(list(groups), list(groups.values()))
    return _as_cohort(_draw_counts(mean, truth, labels, 0.1, part_rng), truth, {"group": labels})


def thinned_cohort(
    *,
    base: anndata.AnnData,
    species: str,
    groups: dict[str, int],
    reference: str,
    batch: str,
    n_changed: int = 500,
    effect_sd: float = 1.0,
    min_mean: float = 10,
    seed: int = 0,
) -> anndata.AnnData:
    """A cohort of a given design, made from real libraries by thinning, with planted log2 fold changes.

    Counts retain the means, dispersions and correlations of the libraries. Binomial thinning introduces the effects: it
    turns a Poisson-like count of mean m into one of mean p m (Gerard 2020, BMC Bioinformatics 21:206). If the design
    has more samples than there are libraries, each library is split into equal parts, which are assigned to different
    groups and share their ``library``. A human library is converted to another species through orthologs; the counts of
    a human gene are divided among its paralogs in proportions drawn once per gene.

    Parameters
    ----------
    base
        Libraries: samples x genes with human Ensembl ids.
    species
        Species of the simulated cohort (`orthologs.ortholog_pairs`).
    groups, reference
        Group -> number of samples, in the paper's design; the group without planted changes.
    batch
        Column of the base whose levels are spread over the groups; becomes ``batch``.
    n_changed, effect_sd, min_mean
        Number of genes changed in each other group, standard deviation of their log2 fold changes (normal, mean 0), and
        minimum mean count of a changed gene.

    Returns
    -------
    AnnData, samples x genes: ``obs`` has ``genotype``, ``batch`` and ``library``; the truth, genes x groups, is
    ``varm["log2_fold_change"]``.

    Raises
    ------
    ValueError
        If the reference is not one of the groups.
    """
    _check_reference(reference, groups)
    rng = np.random.default_rng(seed)
    source = genes.add_symbols(base.copy())
    batches = source.obs[batch].astype(str).to_numpy()
    counts, symbols = _convert_species(source, species, rng)
    libraries, labels = _assign_samples(batches, groups, rng)
    parts_left = np.bincount(libraries, minlength=len(counts))
    remaining = counts.copy()
    split = counts[libraries]  # (samples, genes)
    for row, library in enumerate(libraries):
        n_parts = parts_left[library]
        split[row] = remaining[library] if n_parts == 1 else rng.binomial(remaining[library], 1 / n_parts)
        remaining[library] -= split[row]
        parts_left[library] -= 1
    truth = pd.DataFrame(0.0, index=symbols, columns=list(groups))
    expressed = np.flatnonzero(split.mean(axis=0) >= min_mean)
    for group in groups:
        if group != reference:
            changed = rng.choice(expressed, min(n_changed, len(expressed)), replace=False)
            truth.iloc[changed, truth.columns.get_loc(group)] = rng.normal(0, effect_sd, len(changed))
    # Thinning only removes counts: of each gene, the group of highest expression stays whole.
    retained = 2 ** (truth[labels].to_numpy().T - truth.to_numpy().max(axis=1))
    obs = {"genotype": labels, "batch": batches[libraries], "library": source.obs_names[libraries]}
    return _as_cohort(rng.binomial(split, retained), truth, obs)


def _as_cohort(counts: np.ndarray, truth: pd.DataFrame, obs: dict) -> anndata.AnnData:
    """Cohort with the truth beside the counts; samples are named by the first column of ``obs`` and a number."""
    labels = pd.Series(next(iter(obs.values())))
    number = labels.groupby(labels).cumcount() + 1
    return anndata.AnnData(
        obs=pd.DataFrame(obs, index=(labels + "_" + number.astype(str)).to_numpy()),
        var=pd.DataFrame({"symbol": truth.index}, index=truth.index),
        layers={"counts": counts},
        varm={"log2_fold_change": truth},
    )


def _convert_species(source: anndata.AnnData, species: str, rng: np.random.Generator) -> tuple[np.ndarray, list[str]]:
    """Convert counts of human genes to the symbols of their orthologs, one column per paralog."""
    pairs = orthologs.ortholog_pairs(species)
    pairs = pairs[pairs["kind"].isin(["one2one", "one2many"])].drop_duplicates("symbol")
    position = pd.Series(range(source.n_vars), index=source.var["symbol"].to_numpy())
    position = position[~position.index.duplicated()]
    pairs = pairs[pairs["human"].isin(position.index)].sort_values(["human", "symbol"], kind="stable")
    counts = source.layers["counts"][:, position[pairs["human"].unique()].to_numpy()]
    columns = []
    for human_counts, n_paralogs in zip(counts.T, pairs.groupby("human").size(), strict=True):
        shares = rng.dirichlet(np.full(n_paralogs, 2.0))
        columns.append(rng.multinomial(human_counts, shares))  # (samples, paralogs)
    return np.concatenate(columns, axis=1), list(pairs["symbol"])


def _assign_samples(
    batches: np.ndarray, groups: dict[str, int], rng: np.random.Generator
) -> tuple[np.ndarray, list[str]]:
    """Library and group of each sample: batches, and parts of a library, are spread over the groups."""
    n_samples = sum(groups.values())
    parts = -(-n_samples // len(batches))
    n_libraries = n_samples // parts if n_samples % parts == 0 else len(batches)
    levels = list(dict.fromkeys(batches))
    order = {level: list(rng.permutation(np.flatnonzero(batches == level))) for level in levels}
    used = [order[levels[i % len(levels)]].pop() for i in range(n_libraries)]
    by_batch = sorted(used, key=lambda library: levels.index(batches[library]))
    rows = [library for level in levels for _ in range(parts) for library in by_batch if batches[library] == level]
    cycle = [group for i in range(max(groups.values())) for group, size in groups.items() if i < size]
    return np.array(rows[:n_samples]), cycle
