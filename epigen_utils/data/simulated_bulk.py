"""Simulated data with the planted truth beside the counts. Effects are drawn at random, never taken from a paper."""

from dataclasses import dataclass

import anndata
import numpy as np
import pandas as pd
from scipy import sparse

from epigen_utils import genes


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
    mean, truth = _planted(rng, groups, reference, n_genes, n_changed)
    labels = np.repeat(list(groups), list(groups.values()))
    return _cohort(_negative_binomial(mean, truth, labels, dispersion, rng), truth, {"group": labels})


def _planted(
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


def _negative_binomial(
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
    mean, truth = _planted(rng, groups, reference, n_genes, 0)
    labels = np.repeat(list(groups), list(groups.values()))
    nuisance = np.concatenate([rng.permutation(np.arange(n) % 2) for n in groups.values()]).astype(bool)
    truth["nuisance"] = 0.0
    order = rng.permutation(n_genes)
    for i, column in enumerate([name for name in truth.columns if name != reference]):
        changed = order[i * n_changed : (i + 1) * n_changed]
        effects = rng.choice([-1, 1], n_changed) * rng.uniform(0.5, 2, n_changed)
        truth.iloc[changed, truth.columns.get_loc(column)] = effects
    nuisance_effects = np.where(nuisance, 1.0, 0.0)[:, None] * truth["nuisance"].to_numpy()  # (samples, genes)
    counts = _negative_binomial(mean, truth, labels, 0.1, rng, sample_effects=nuisance_effects)
    return _cohort(counts, truth, {"group": labels, "nuisance": np.where(nuisance, "present", "absent")})


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
    mean, truth = _planted(rng, groups, reference, n_genes, n_changed)
    mean = mean * part_rng.lognormal(sigma=1.0, size=n_genes)
    labels = np.repeat(list(groups), list(groups.values()))
    return _cohort(_negative_binomial(mean, truth, labels, 0.1, part_rng), truth, {"group": labels})


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
        Species of the simulated cohort (`genes.orthologs`).
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
    source = genes.named(base.copy())
    batches = source.obs[batch].astype(str).to_numpy()
    counts, symbols = _as_species(source, species, rng)
    libraries, labels = _deal(batches, groups, rng)
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
    return _cohort(rng.binomial(split, retained), truth, obs)


def _cohort(counts: np.ndarray, truth: pd.DataFrame, obs: dict) -> anndata.AnnData:
    """Cohort with the truth beside the counts; samples are named by the first column of ``obs`` and a number."""
    labels = pd.Series(next(iter(obs.values())))
    number = labels.groupby(labels).cumcount() + 1
    return anndata.AnnData(
        obs=pd.DataFrame(obs, index=(labels + "_" + number.astype(str)).to_numpy()),
        var=pd.DataFrame({"symbol": truth.index}, index=truth.index),
        layers={"counts": counts},
        varm={"log2_fold_change": truth},
    )


def _as_species(source: anndata.AnnData, species: str, rng: np.random.Generator) -> tuple[np.ndarray, list[str]]:
    """Convert counts of human genes to the symbols of their orthologs, one column per paralog."""
    pairs = genes.orthologs(species)
    pairs = pairs[pairs["kind"].isin(["one2one", "one2many"])].drop_duplicates("symbol")
    position = pd.Series(range(source.n_vars), index=source.var["symbol"].to_numpy())
    position = position[~position.index.duplicated()]
    pairs = pairs[pairs["human"].isin(position.index)].sort_values(["human", "symbol"], kind="stable")
    columns, symbols = [], []
    for human, paralogs in pairs.groupby("human")["symbol"]:
        human_counts = source.layers["counts"][:, position[human]]
        shares = rng.dirichlet(np.full(len(paralogs), 2.0))
        columns.append(rng.multinomial(human_counts, shares))  # (samples, paralogs)
        symbols += list(paralogs)
    return np.concatenate(columns, axis=1), symbols


def _deal(batches: np.ndarray, groups: dict[str, int], rng: np.random.Generator) -> tuple[np.ndarray, list[str]]:
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


#: Quantiles of the number of genes per cell of Genecorpus-30M (paper B, Figure 5, and its authors' notebook).
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
    """Single cells in which regulators set the expression of their targets, with the network beside the counts.

    The activity of a regulator in a cell is the sum of an effect of the cell type, an effect of the donor's disease on
    a few regulators, and noise. The log rate of a regulator increases with its activity, that of each target by a
    weight, positive or negative. Donors have small effects on all genes but housekeeping genes, which no regulator
    affects. Counts are Poisson draws at a depth that gives the expected number of detected genes.

    Parameters
    ----------
    n_donors
        Half of them have the disease ``disease``, the others are ``normal``.
    n_targets
        Targets per regulator; a gene can have several regulators.
    lengths
        Quantile -> number of genes detected in a cell; those of Genecorpus-30M by default.
    spread, effect
        Standard deviation of the log rates of the genes; activity of a regulator in a cell type where it is active, in
        log units.

    Returns
    -------
    AnnData, cells x human protein-coding genes (Ensembl ids): ``obs`` has ``cell_type``, ``donor`` and ``disease``;
    ``var`` has ``symbol``, ``regulator`` and ``housekeeping``; ``varm["regulon"]`` are the weights, genes x regulators.
    """
    rng = np.random.default_rng(seed)
    network = _Network.drawn(rng, seed, n_genes, n_regulators, n_targets, n_housekeeping, spread)
    types = rng.integers(n_types, size=n_cells)
    donors = rng.integers(n_donors, size=n_cells)
    has_disease = np.arange(n_donors) % 2 == 1
    type_effect = np.where(rng.random((n_types, n_regulators)) < 0.25, effect, -0.5)
    disease_effect = np.where(rng.random(n_regulators) < 0.15, 1.0, 0.0) * rng.choice([-1, 1], n_regulators)
    noise = rng.normal(0, 0.5, (n_cells, n_regulators))
    activity = type_effect[types] + has_disease[donors][:, None] * disease_effect + noise  # (cells, regulators)
    donor_effect = rng.normal(0, 0.15, (n_donors, n_genes))
    donor_effect[:, network.housekeeping] = 0

    lengths = lengths or GENECORPUS_LENGTHS
    n_detected = _lengths(rng, n_cells, lengths)
    obs = pd.DataFrame(index=[f"cell_{i}" for i in range(n_cells)])
    obs["cell_type"] = [f"type {number}" for number in types]
    obs["donor"] = [f"donor {number}" for number in donors]
    obs["disease"] = np.where(has_disease[donors], "disease", "normal")
    return _long_enough(network.cells(rng, obs, activity, donor_effect[donors], n_detected), lengths)


#: Donors of each class, 39 in all as published; the shares are those of the published test cells (26, 57 and 17 %).
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
    """Cells of one type from healthy and diseased donors, with the genes, regulators and targets of `cell_corpus`.

    Each disease changes the activity of some regulators, equally many up and down; half of these changes are common to
    all diseases. Donors vary in the strength of the disease, in the activity of each regulator and in the expression of
    each gene.

    Parameters
    ----------
    donors
        Class -> number of donors; the first class is healthy. `CARDIOMYOPATHY` by default.
    cells_per_donor
        Mean number; donors differ (log-normal, standard deviation 0.3).
    n_planted, effect
        Number of regulators that each disease changes, and the mean size of the change in log units.
    response
        Fraction of the change that is passed on to the targets; below 1, a regulator changes more than its targets,
        without which single-gene deletion in a model could not separate them.
    donor_sd
        Standard deviation of a donor's effect on a gene, in log units; 0.2 in `pbmc-40` and 0.25 in
        `pig-cystic-fibrosis` (median gene, between pooled donors of one cell type, less Poisson noise).
    network_seed
        The ``seed`` of the `cell_corpus` of the pretrained model.

    Returns
    -------
    AnnData, cells x genes, as `cell_corpus`; ``obs`` has ``disease`` and ``donor``; ``varm["disease"]`` are the planted
    changes of activity, genes x diseases, zero for genes other than regulators.
    """
    donors = donors or CARDIOMYOPATHY
    network = _Network.drawn(np.random.default_rng(network_seed), network_seed, n_genes)
    rng = np.random.default_rng([seed, 39])
    healthy, *diseases = donors
    n_regulators = network.weights.shape[1]
    order = rng.permutation(n_regulators)
    shared, specific = order[: n_planted // 2], order[n_planted // 2 :]
    n_specific = n_planted - len(shared)
    change = pd.DataFrame(0.0, range(n_regulators), list(donors))
    signs = np.resize([1, -1], n_regulators)
    shared_change = signs[: len(shared)] * rng.uniform(0.6, 1.4, len(shared)) * effect
    for i, disease in enumerate(diseases):
        regulators = specific[i * n_specific : (i + 1) * n_specific]
        change.loc[shared, disease] = shared_change
        change.loc[regulators, disease] = signs[: len(regulators)] * rng.uniform(0.6, 1.4, len(regulators)) * effect
    classes = np.repeat(list(donors), list(donors.values()))
    n_cells = np.maximum(rng.lognormal(np.log(cells_per_donor), 0.3, len(classes)).astype(int), 5)
    baseline = np.where(rng.random(n_regulators) < 0.25, 2.0, -0.5)
    # Regulators that a disease changes are active in this cell type; otherwise their changes could not be detected.
    baseline[(change != 0).any(axis=1)] = 3.0
    strength = rng.uniform(0.6, 1.4, len(classes))
    disease_effect = strength[:, None] * change[classes].to_numpy().T  # (donors, regulators)
    state = baseline + response * disease_effect + rng.normal(0, 0.3, (len(classes), n_regulators))
    donor_effect = rng.normal(0, donor_sd, (len(classes), n_genes))
    donor_effect[:, network.regulators] += (1 - response) * disease_effect
    donor_of_cell = np.repeat(np.arange(len(classes)), n_cells)
    activity = state[donor_of_cell] + rng.normal(0, 0.5, (len(donor_of_cell), n_regulators))  # (cells, regulators)
    n_detected = _lengths(rng, len(donor_of_cell), GENECORPUS_LENGTHS)
    obs = pd.DataFrame({"disease": classes[donor_of_cell], "donor": [f"donor {i:02d}" for i in donor_of_cell]})
    obs.index = [f"cell_{i}" for i in range(len(donor_of_cell))]
    adata = network.cells(rng, obs, activity, donor_effect[donor_of_cell], n_detected)
    planted = pd.DataFrame(0.0, adata.var_names, diseases)
    planted.iloc[network.regulators] = change[diseases].to_numpy()
    adata.varm["disease"] = planted
    return _long_enough(adata, GENECORPUS_LENGTHS)


def _lengths(rng: np.random.Generator, n_cells: int, lengths: dict[float, float]) -> np.ndarray:
    """Numbers of detected genes of the cells, drawn from quantiles."""
    return np.interp(rng.random(n_cells), *zip(*sorted(lengths.items()), strict=True))


def _long_enough(adata: anndata.AnnData, lengths: dict[float, float]) -> anndata.AnnData:
    """Drop cells with fewer detected genes than the lowest quantile."""
    return adata[np.diff(adata.layers["counts"].indptr) >= min(lengths.values())].copy()


@dataclass(frozen=True)
class _Network:
    """A regulatory network of protein-coding genes."""

    coding: pd.DataFrame
    housekeeping: np.ndarray  # positions of genes
    regulators: np.ndarray  # positions of genes
    weights: np.ndarray  # genes x regulators
    baseline: np.ndarray  # log rate of each gene without active regulators

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
        donor_effect: np.ndarray,
        n_detected: np.ndarray,
    ) -> anndata.AnnData:
        """Poisson counts at depths that give each cell its expected number of detected genes.

        Parameters
        ----------
        activity, donor_effect
            Cells x regulators, cells x genes, in log units.
        """
        weights = self.weights.copy()
        weights[self.regulators, np.arange(len(self.regulators))] = 1.0
        counts = []
        for first in range(0, len(obs), 500):
            rows = slice(first, first + 500)
            rate = np.exp(self.baseline + activity[rows] @ weights.T + donor_effect[rows])  # (cells, genes)
            share = rate / rate.sum(axis=1, keepdims=True)
            depth = _depth(share, n_detected[rows])
            counts.append(sparse.csr_matrix(rng.poisson(share * depth[:, None]).astype(np.int32)))
        names = self.coding["ensembl_id"].to_numpy()
        var = pd.DataFrame({"symbol": self.coding["symbol"].to_numpy(), "ensembl_id": names}, index=names)
        var["regulator"], var["housekeeping"] = False, False
        var.iloc[self.regulators, 2], var.iloc[self.housekeeping, 3] = True, True
        regulon = pd.DataFrame(self.weights, names, names[self.regulators])
        layers = {"counts": sparse.vstack(counts, format="csr")}
        return anndata.AnnData(obs=obs, var=var, layers=layers, varm={"regulon": regulon})


def _depth(share: np.ndarray, n_detected: np.ndarray) -> np.ndarray:
    """Depth at which a cell has the given expected number of detected genes, by bisection on a log scale."""
    low, high = np.full(len(n_detected), 0.0), np.full(len(n_detected), 18.0)
    for _ in range(25):
        middle = (low + high) / 2
        too_few = (1 - np.exp(-np.exp(middle)[:, None] * share)).sum(axis=1) < n_detected
        low, high = np.where(too_few, middle, low), np.where(too_few, high, middle)
    return np.exp(high)
