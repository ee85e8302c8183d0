"""Simulated data with the planted truth kept beside it. Effects are drawn by seed, never copied from a paper."""

from dataclasses import dataclass

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
    mean, truth = _planted(rng, groups, reference, n_genes, n_changed)
    labels = np.repeat(list(groups), list(groups.values()))
    return _cohort(_negative_binomial(mean, truth, labels, dispersion, rng), truth, {"group": labels})


def _planted(
    rng: np.random.Generator, groups: dict[str, int], reference: str, n_genes: int, n_changed: int
) -> tuple[np.ndarray, pd.DataFrame]:
    """Log-normal means of genes, and the log2 fold changes of some of them in each other group, genes x groups."""
    mean = rng.lognormal(mean=4, sigma=1.5, size=n_genes)
    truth = pd.DataFrame(0.0, index=[f"SIM{i:05d}" for i in range(n_genes)], columns=list(groups))
    for group in groups:
        if group != reference:
            changed = rng.choice(n_genes, n_changed, replace=False)
            truth.iloc[changed, truth.columns.get_loc(group)] = rng.normal(0, 1.5, n_changed)
    return mean, truth


def _negative_binomial(
    mean: np.ndarray,
    truth: pd.DataFrame,
    labels: np.ndarray,
    dispersion: float,
    rng: np.random.Generator,
    *,
    more: np.ndarray | float = 0.0,
) -> np.ndarray:
    """Counts, samples x genes, of libraries that vary two-fold in size; ``more`` log2 fold changes are of the samples themselves."""
    depth = 2 ** rng.uniform(-0.5, 0.5, len(labels))
    mu = depth[:, None] * mean * 2 ** (truth[labels].to_numpy().T + more)
    return rng.poisson(rng.gamma(1 / dispersion, dispersion * mu)).astype(np.int64)


def two_factor_cohort(
    *, groups: dict[str, int], reference: str, n_genes: int = 64, n_changed: int = 16, seed: int = 0
) -> anndata.AnnData:
    """Bulk counts in which as many genes differ by group as by a nuisance factor that has nothing to do with it.

    Both kinds of genes are drawn alike (`negative_binomial_cohort`, log2 fold changes of 0.5 to 2 up or down), so that neither their mean
    nor their variance tells them apart: what finds one kind above the other has to have learned it from the labels.

    Returns
    -------
    As `negative_binomial_cohort`; ``obs["nuisance"]`` is present in half of each group, and the truth has a column for it.

    Raises
    ------
    ValueError
        If the reference is not one of the groups.
    """
    _check_reference(reference, groups)
    rng = np.random.default_rng(seed)
    mean, truth = _planted(rng, groups, reference, n_genes, 0)
    labels = np.repeat(list(groups), list(groups.values()))
    nuisance = np.concatenate([rng.permutation(np.arange(n) % 2) for n in groups.values()]).astype(bool)
    truth["nuisance"] = 0.0
    order = rng.permutation(n_genes)
    for place, column in enumerate([name for name in truth.columns if name != reference]):
        changed = order[place * n_changed : (place + 1) * n_changed]
        effects = rng.choice([-1, 1], n_changed) * rng.uniform(0.5, 2, n_changed)
        truth.iloc[changed, truth.columns.get_loc(column)] = effects
    by_nuisance = np.where(nuisance, 1.0, 0.0)[:, None] * truth["nuisance"].to_numpy()
    counts = _negative_binomial(mean, truth, labels, 0.1, rng, more=by_nuisance)
    return _cohort(counts, truth, {"group": labels, "nuisance": np.where(nuisance, "present", "absent")})


def cohort_of_species(
    *, part: int, groups: dict[str, int], reference: str, n_genes: int = 1000, n_changed: int = 200, seed: int = 0
) -> anndata.AnnData:
    """One of several cohorts that share their planted changes, and nothing else: species with the same disease.

    As `negative_binomial_cohort`, with means that each part's own factors (log-normal, sigma 1) move gene by gene.

    Parameters
    ----------
    part
        Which of them; parts of one seed have one truth.

    Returns
    -------
    As `negative_binomial_cohort`.

    Raises
    ------
    ValueError
        If the reference is not one of the groups.
    """
    _check_reference(reference, groups)
    rng, own = np.random.default_rng(seed), np.random.default_rng([seed, part + 1])
    mean, truth = _planted(rng, groups, reference, n_genes, n_changed)
    mean = mean * own.lognormal(sigma=1.0, size=n_genes)
    labels = np.repeat(list(groups), list(groups.values()))
    return _cohort(_negative_binomial(mean, truth, labels, 0.1, own), truth, {"group": labels})


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
    network = _Network.drawn(rng, seed, n_genes, n_regulators, n_targets, n_housekeeping, spread)
    types = rng.integers(n_types, size=n_cells)
    donors = rng.integers(n_donors, size=n_cells)
    ill = np.arange(n_donors) % 2 == 1
    of_type = np.where(rng.random((n_types, n_regulators)) < 0.25, effect, -0.5)
    of_disease = np.where(rng.random(n_regulators) < 0.15, 1.0, 0.0) * rng.choice([-1, 1], n_regulators)
    activity = of_type[types] + ill[donors][:, None] * of_disease + rng.normal(0, 0.5, (n_cells, n_regulators))
    of_donor = rng.normal(0, 0.15, (n_donors, n_genes))
    of_donor[:, network.housekeeping] = 0

    lengths = lengths or GENECORPUS_LENGTHS
    wanted = _lengths(rng, n_cells, lengths)
    obs = pd.DataFrame({"cell_type": types, "donor": donors}, index=[f"cell_{i}" for i in range(n_cells)])
    obs["cell_type"], obs["disease"] = (
        "type " + obs["cell_type"].astype(str),
        np.where(ill[donors], "disease", "normal"),
    )
    obs["donor"] = "donor " + obs["donor"].astype(str)
    return _long_enough(network.cells(rng, obs, activity, of_donor[donors], wanted), lengths)


#: Donors of each class (their shares are those of the published test cells: 26% NF, 57% HCM, 17% DCM), 39 as published.
CARDIOMYOPATHY = {"nf": 10, "hcm": 22, "dcm": 7}


def cardiomyopathy(
    *,
    donors: dict[str, int] | None = None,
    cells_per_donor: int = 100,
    n_planted: int = 16,
    effect: float = 3.0,
    response: float = 0.15,
    donor_sd: float = 0.25,
    n_genes: int = 3000,
    network_seed: int = 0,
    seed: int = 0,
) -> anndata.AnnData:
    """Cells of one type from healthy and diseased donors, in the world of `cell_corpus`: its genes, regulators and targets.

    Each disease changes the activity of some regulators, as many up as down; half of them are changed alike in all diseases. A donor has
    the disease more or less strongly, effects on every gene, and a state of its own in every regulator.

    Parameters
    ----------
    donors
        Class -> donors; the first class is healthy. `CARDIOMYOPATHY` by default.
    cells_per_donor
        On average; donors differ (log-normal, standard deviation 0.3).
    n_planted, effect
        Regulators that each disease changes, and by how much on average, in log units.
    response
        How much of that a regulator's targets follow: below 1 a regulator changes more than what it regulates, as it must for a
        model that takes genes away one by one to tell it from them.
    donor_sd
        Of a donor's effect on a gene, in log units; 0.2 in `pbmc-40` and 0.25 in `pig-cystic-fibrosis` (median gene, between pooled
        donors of one cell type, less Poisson noise).
    network_seed
        The ``seed`` of the `cell_corpus` that a model was pretrained on.

    Returns
    -------
    AnnData, cells x genes, as of `cell_corpus`; ``obs`` has ``disease`` and ``donor``, and ``varm["disease"]`` the planted change of
    activity, genes x diseases, zero but for regulators.
    """
    donors = donors or CARDIOMYOPATHY
    network = _Network.drawn(np.random.default_rng(network_seed), network_seed, n_genes)
    rng = np.random.default_rng([seed, 39])
    healthy, *diseases = donors
    n_regulators = network.weights.shape[1]
    order = rng.permutation(n_regulators)
    shared, own = order[: n_planted // 2], order[n_planted // 2 :]
    change = pd.DataFrame(0.0, range(n_regulators), list(donors))
    signs = np.resize([1, -1], n_regulators)
    both = signs[: len(shared)] * rng.uniform(0.6, 1.4, len(shared)) * effect
    for i, disease in enumerate(diseases):
        some = own[i * (n_planted - len(shared)) : (i + 1) * (n_planted - len(shared))]
        change.loc[shared, disease] = both
        change.loc[some, disease] = signs[: len(some)] * rng.uniform(0.6, 1.4, len(some)) * effect
    classes = np.repeat(list(donors), list(donors.values()))
    n_cells = np.maximum(rng.lognormal(np.log(cells_per_donor), 0.3, len(classes)).astype(int), 5)
    of_type = np.where(rng.random(n_regulators) < 0.25, 2.0, -0.5)
    # What a disease changes is at work in these cells, or nothing of it could be seen.
    of_type[(change != 0).any(axis=1)] = 3.0
    strength = rng.uniform(0.6, 1.4, len(classes))
    of_disease = strength[:, None] * change[classes].to_numpy().T
    state = of_type + response * of_disease + rng.normal(0, 0.3, (len(classes), n_regulators))
    of_donor = rng.normal(0, donor_sd, (len(classes), n_genes))
    of_donor[:, network.regulators] += (1 - response) * of_disease
    who = np.repeat(np.arange(len(classes)), n_cells)
    activity = state[who] + rng.normal(0, 0.5, (len(who), n_regulators))
    wanted = _lengths(rng, len(who), GENECORPUS_LENGTHS)
    obs = pd.DataFrame({"disease": classes[who], "donor": [f"donor {i:02d}" for i in who]})
    obs.index = [f"cell_{i}" for i in range(len(who))]
    adata = network.cells(rng, obs, activity, of_donor[who], wanted)
    planted = pd.DataFrame(0.0, adata.var_names, diseases)
    planted.iloc[network.regulators] = change[diseases].to_numpy()
    adata.varm["disease"] = planted
    return _long_enough(adata, GENECORPUS_LENGTHS)


def _lengths(rng: np.random.Generator, n_cells: int, lengths: dict[float, float]) -> np.ndarray:
    """Genes that each cell is to show, drawn by quantiles."""
    return np.interp(rng.random(n_cells), *zip(*sorted(lengths.items()), strict=True))


def _long_enough(adata: anndata.AnnData, lengths: dict[float, float]) -> anndata.AnnData:
    """Cells that show at least the fewest genes that were wanted of any."""
    return adata[np.diff(adata.layers["counts"].indptr) >= min(lengths.values())].copy()


@dataclass(frozen=True)
class _Network:
    """Genes, who regulates whom, and how much there is of each when nothing is active."""

    coding: pd.DataFrame
    housekeeping: np.ndarray
    regulators: np.ndarray
    weights: np.ndarray
    baseline: np.ndarray

    @classmethod
    def drawn(
        cls,
        rng: np.random.Generator,
        seed: int,
        n_genes: int,
        n_regulators: int = 60,
        n_targets: int = 60,
        n_housekeeping: int = 200,
        spread: float = 3.0,
    ) -> "_Network":
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
        return cls(coding, housekeeping, regulators, weights, baseline)

    def cells(
        self,
        rng: np.random.Generator,
        obs: pd.DataFrame,
        activity: np.ndarray,
        of_donor: np.ndarray,
        wanted: np.ndarray,
    ) -> anndata.AnnData:
        """Poisson draws at a depth that gives each cell the wanted number of detected genes.

        Parameters
        ----------
        activity, of_donor
            Cells x regulators, cells x genes, in log units.
        """
        follows = self.weights.copy()
        follows[self.regulators, np.arange(len(self.regulators))] = 1.0
        counts = []
        for first in range(0, len(obs), 500):
            rows = slice(first, first + 500)
            rate = np.exp(self.baseline + activity[rows] @ follows.T + of_donor[rows])
            share = rate / rate.sum(axis=1, keepdims=True)
            counts.append(sparse.csr_matrix(rng.poisson(share * _depth(share, wanted[rows])[:, None]).astype(np.int32)))
        names = self.coding["ensembl_id"].to_numpy()
        var = pd.DataFrame({"symbol": self.coding["symbol"].to_numpy(), "ensembl_id": names}, index=names)
        var["regulator"], var["housekeeping"] = False, False
        var.iloc[self.regulators, 2], var.iloc[self.housekeeping, 3] = True, True
        regulon = pd.DataFrame(self.weights, names, names[self.regulators])
        layers = {"counts": sparse.vstack(counts, format="csr")}
        return anndata.AnnData(obs=obs, var=var, layers=layers, varm={"regulon": regulon})


def _depth(share: np.ndarray, wanted: np.ndarray) -> np.ndarray:
    """Depth at which a cell is expected to show the wanted number of genes, by bisection on a log scale."""
    low, high = np.full(len(wanted), 0.0), np.full(len(wanted), 18.0)
    for _ in range(25):
        middle = (low + high) / 2
        too_few = (1 - np.exp(-np.exp(middle)[:, None] * share)).sum(axis=1) < wanted
        low, high = np.where(too_few, middle, low), np.where(too_few, high, middle)
    return np.exp(high)
