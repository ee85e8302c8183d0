"""Simulated cells with the planted truth kept beside it: corpora for pretraining and cohorts of donors."""

from dataclasses import dataclass

import anndata
import numpy as np
import pandas as pd
from scipy import sparse

from epigen_utils.data import genes

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
    n_detected = _draw_lengths(rng, n_cells, lengths)
    obs = pd.DataFrame(index=[f"cell_{i}" for i in range(n_cells)])
    obs["cell_type"] = [f"type {number}" for number in types]
    obs["donor"] = [f"donor {number}" for number in donors]
    obs["disease"] = np.where(has_disease[donors], "disease", "normal")
    return _drop_short_cells(network.cells(rng, obs, activity, donor_effect[donors], n_detected), lengths)


#: Donors of each class, 39 in all as published; the shares are those of the published test cells (26, 57 and 17 %).
CARDIOMYOPATHY_DONORS = {"nf": 10, "hcm": 22, "dcm": 7}


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
        Class -> number of donors; the first class is healthy. `CARDIOMYOPATHY_DONORS` by default.
    cells_per_donor
        Mean number; donors differ (log-normal, standard deviation 0.3).
    n_planted, effect
        Number of regulators that each disease changes, and the mean size of the change in log units.
    response
        Fraction of the change that reaches the targets; below 1, a regulator changes more than its targets,
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
    donors = donors or CARDIOMYOPATHY_DONORS
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
    n_detected = _draw_lengths(rng, len(donor_of_cell), GENECORPUS_LENGTHS)
    obs = pd.DataFrame({"disease": classes[donor_of_cell], "donor": [f"donor {i:02d}" for i in donor_of_cell]})
    obs.index = [f"cell_{i}" for i in range(len(donor_of_cell))]
    adata = network.cells(rng, obs, activity, donor_effect[donor_of_cell], n_detected)
    planted = pd.DataFrame(0.0, adata.var_names, diseases)
    planted.iloc[network.regulators] = change[diseases].to_numpy()
    adata.varm["disease"] = planted
    return _drop_short_cells(adata, GENECORPUS_LENGTHS)


def plackett_luce_cells(
    *,
    n_cells: int = 20_000,
    n_genes: int = 500,
    n_types: int = 8,
    n_programs: int = 3,
    n_donors: int = 40,
    spread: float = 2.0,
    effect: float = 2.0,
    seed: int = 0,
) -> anndata.AnnData:
    """Single cells whose rank value encoding has a known distribution, so that the best prediction can be computed.

    A cell is in one of ``n_types * 2 ** n_programs`` equally probable states: its type, and which programs are on. The
    count of a gene is its rate in the state times the exponential of a standard Gumbel draw, which makes the order of
    count over median a Plackett-Luce ranking (Yellott 1977). Every gene is detected. Each cell is a new draw, so that
    one pass over the cells is a stream.

    Parameters
    ----------
    n_donors
        Donors, which differ in nothing: they are the units of a split.
    spread
        Standard deviation of a gene's log rate between types.
    effect
        Change of the log rate by a program, up or down, of a tenth of the genes.

    Returns
    -------
    AnnData, cells x human protein-coding genes (Ensembl ids): ``obs`` has ``cell_type``, ``programs`` and ``donor``;
    ``varm["log_rates"]``, genes x states; ``uns["state_probability"]``.
    """
    rng = np.random.default_rng([seed, 77])
    coding = _coding_genes(n_genes, seed)
    by_type = rng.normal(0, spread, (n_types, n_genes))
    by_program = (rng.random((n_programs, n_genes)) < 0.1) * effect * rng.choice([-1, 1], (n_programs, n_genes))
    switches = np.arange(2**n_programs)[:, None] >> np.arange(n_programs) & 1  # (combinations, programs)
    log_rates = (by_type[:, None] + switches @ by_program).reshape(-1, n_genes)  # (states, genes)
    names = [f"type {kind}, programs {''.join(map(str, row))}" for kind in range(n_types) for row in switches]
    state = rng.integers(len(log_rates), size=n_cells)
    counts = []
    for first in range(0, n_cells, 5000):
        part = state[first : first + 5000]
        value = np.exp(log_rates[part] + rng.gumbel(size=(len(part), n_genes)))
        # Large counts, so that rounding does not change the order.
        counts.append(sparse.csr_matrix(np.clip(1000 * value, 1, 2**31 - 1).astype(np.int32)))
    obs = pd.DataFrame({"cell_type": [f"type {kind}" for kind in state // len(switches)]})
    obs["programs"] = ["".join(map(str, row)) for row in switches[state % len(switches)]]
    obs["donor"] = [f"donor {number:02d}" for number in rng.integers(n_donors, size=n_cells)]
    obs.index = [f"cell_{i}" for i in range(n_cells)]
    ids = coding["ensembl_id"].to_numpy()
    var = pd.DataFrame({"symbol": coding["symbol"].to_numpy(), "ensembl_id": ids}, index=ids)
    varm = {"log_rates": pd.DataFrame(log_rates.T, ids, names)}
    uns = {"state_probability": np.full(len(names), 1 / len(names))}
    return anndata.AnnData(obs=obs, var=var, layers={"counts": sparse.vstack(counts, format="csr")}, varm=varm, uns=uns)


def _coding_genes(n_genes: int, seed: int) -> pd.DataFrame:
    """A random part of the human protein-coding genes, in the order of their Ensembl ids."""
    coding = genes.gene_table("homo_sapiens").query("biotype == 'protein_coding' and symbol != ''")
    return coding.drop_duplicates("symbol").sample(n_genes, random_state=seed).sort_values("ensembl_id")


def _draw_lengths(rng: np.random.Generator, n_cells: int, lengths: dict[float, float]) -> np.ndarray:
    """Numbers of detected genes of the cells, drawn from quantiles."""
    return np.interp(rng.random(n_cells), *zip(*sorted(lengths.items()), strict=True))


def _drop_short_cells(adata: anndata.AnnData, lengths: dict[float, float]) -> anndata.AnnData:
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
        coding = _coding_genes(n_genes, seed)
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
