"""Two-class cohorts of bulk samples: loading, parts, simulation, genes of a prior."""

import functools
from dataclasses import dataclass, replace

import anndata
import numpy as np
import pandas as pd

from epigen_utils.data import datasets, genes, orthologs, simulated_bulk
from epigen_utils.errors import DataError, suggest
from epigen_utils.expression import fold_selection, normalisation
from epigen_utils.stats import folds


@dataclass(frozen=True)
class SampleCohort:
    """A data set of samples in two classes.

    Attributes
    ----------
    adata
        Samples x all genes, or other features (`with_values`).
    genes
        Features that models are fitted to.
    reference, positive
        The two classes: a level of the group, and all other levels.
    """

    adata: anndata.AnnData
    genes: list[str]
    reference: str
    positive: str

    @functools.cached_property
    def values(self) -> np.ndarray:
        """Values for the models, samples x ``genes``: counts, or those of `with_values`."""
        counts = "counts" in self.adata.layers
        table = normalisation.count_table(self.adata) if counts else self.adata.to_df()
        return table[self.genes].to_numpy()

    @property
    def y(self) -> np.ndarray:
        """Class of each sample."""
        return np.where(self.adata.obs[self.group].astype(str) == self.reference, self.reference, self.positive)

    @property
    def units(self) -> np.ndarray:
        """Donor of each sample, or the sample itself."""
        donor = self.adata.uns["epigen"].get("donor")
        names = self.adata.obs[donor] if donor else self.adata.obs_names
        return names.astype(str).to_numpy().astype(str)

    @property
    def batch(self) -> np.ndarray | None:
        """Experiment of each sample, if the registry or the caller names one; else None."""
        batch = self.adata.uns["epigen"].get("batch")
        return self.adata.obs[batch].astype(str).to_numpy() if batch else None

    @property
    def name(self) -> str:
        """Name of the data set."""
        return self.adata.uns["epigen"]["name"]

    @property
    def groups(self) -> np.ndarray:
        """Groups that a fold holds out whole: experiments if there are any, else donors."""
        return self.units if self.batch is None else self.batch

    @property
    def group(self) -> str:
        """Column of the classes."""
        return self.adata.uns["epigen"].get("group") or "group"

    def sizes(self) -> dict[str, int]:
        """Samples of each class, the reference first."""
        sizes = pd.Series(self.y).value_counts()
        return {name: int(sizes[name]) for name in [*sizes.index.drop(self.positive), self.positive]}


def load_cohort(dataset: str, *, human_orthologs: bool = False, **columns) -> SampleCohort:
    """Load a data set in two classes: the reference, and all other levels of its group column.

    Models are fitted to genes with counts in at least two samples, whatever their labels.

    Parameters
    ----------
    columns
        Options of `datasets.load`.
    human_orthologs
        Whether to map genes to human orthologs (`orthologs.humanise`), if the species is known.

    Raises
    ------
    DataError
        If there is no group column, or one class only.
    """
    adata = datasets.load(dataset, task="counts", **columns)
    about = adata.uns["epigen"]
    group = about.get("group")
    if not group:
        raise DataError(f"{dataset}: no group column is named; give one (group)")
    has_species = about["species"] not in ("not applicable", "not stated")
    adata = orthologs.humanise(adata) if human_orthologs and has_species else genes.add_symbols(adata)
    levels = list(adata.obs[group].astype(str).unique())
    if len(levels) < 2:
        raise DataError(f"{dataset}: all {adata.n_obs} samples are {levels[0]!r}; two classes are needed")
    reference = about.get("reference") or levels[0]
    if reference not in levels:
        raise DataError(f"{dataset}: reference {reference!r} is no level of {group}; there are {', '.join(levels)}")
    others = [level for level in levels if level != reference]
    positive = others[0] if len(others) == 1 else f"not {reference}"
    detected = (normalisation.count_table(adata) > 0).sum() >= 2
    return SampleCohort(adata, list(adata.var_names[detected]), reference, positive)


#: Sources of a prior over genes: half of the planted genes, half of the panels' genes, or a test in the training fold.
PRIORS = ("planted", "panels", fold_selection.SELECTIONS[1])


def describe_prior(kind: str) -> str:
    """The genes of a prior of `PRIORS`, in words."""
    return {
        "planted": "every second gene that the simulation changed",
        "panels": "every second gene of the panels in data/gene_panels.gmt",
        fold_selection.SELECTIONS[1]: f"the {fold_selection.PRIOR_GENES} genes with the highest F statistic between "
        "the classes in the training samples, which is the label in another form and no biology",
    }[kind]


def prior_genes(cohort: SampleCohort, kind: str) -> tuple[str, ...] | str:
    """Genes to which the Attention-Aligned Hybrid Loss rewards attention.

    Every second gene of a set is taken; those left out can test whether attention finds genes outside the prior.

    Parameters
    ----------
    kind
        Of `PRIORS`; the last is returned unchanged, and each model determines its genes in its training fold.

    Raises
    ------
    DataError
        If the kind is unknown, or the data set has none of its genes.
    """
    if kind not in PRIORS:
        raise DataError(f"prior {kind!r}: {suggest(kind, PRIORS)}")
    if kind == fold_selection.SELECTIONS[1]:
        return kind
    if kind == "planted":
        truth = cohort.adata.varm.get("log2_fold_change")
        names = [] if truth is None else list(truth.index[(truth != 0).any(axis=1)])
    else:
        names = [
            gene for members in orthologs.find_gene_sets(cohort.adata, genes.gene_panels()).values() for gene in members
        ]
    names = sorted(set(map(str, names)) & set(cohort.genes))[::2]
    if not names:
        raise DataError(f"{cohort.name}: has no gene of the prior {kind!r}; choose another of {', '.join(PRIORS)}")
    return tuple(names)


def with_values(cohort: SampleCohort, values: np.ndarray) -> SampleCohort:
    """The same samples with other features, such as embeddings, samples x features, in place of the genes' counts."""
    adata = anndata.AnnData(np.asarray(values), cohort.adata.obs, uns=cohort.adata.uns)
    return replace(cohort, adata=adata, genes=list(adata.var_names))


def subsample_cohort(cohort: SampleCohort, max_samples: int, seed: int) -> SampleCohort:
    """A random subset of whole donors, stratified by class, of about ``max_samples`` samples; smaller cohorts whole."""
    if not max_samples or len(cohort.y) <= max_samples:
        return cohort
    n_splits = max(round(len(cohort.y) / max_samples), 2)
    _, rows = next(folds.donor_folds(cohort.y, cohort.units, n_splits=n_splits, seed=seed))
    return replace(cohort, adata=cohort.adata[rows].copy())


def simulated_cohort(seed: int, n_changed: int, *, n: int = 16, n_genes: int = 1000) -> SampleCohort:
    """A negative binomial cohort with planted differences, ``n`` samples a class."""
    adata = simulated_bulk.negative_binomial_cohort(**_simulation_sizes(n, n_genes, n_changed), seed=seed)
    return _cohort_from_simulation(adata, f"{n_changed} of {n_genes:,} genes changed")


def simulated_cohort_with_nuisance(seed: int, n_changed: int, *, n: int = 128, n_genes: int = 64) -> SampleCohort:
    """A cohort with as many genes changed by a nuisance factor as by the class (`simulated_bulk.two_factor_cohort`)."""
    adata = simulated_bulk.two_factor_cohort(**_simulation_sizes(n, n_genes, n_changed), seed=seed)
    return _cohort_from_simulation(adata, f"{n_changed} of {n_genes:,} genes changed, {n_changed} by a nuisance")


def _simulation_sizes(n: int, n_genes: int, n_changed: int) -> dict[str, object]:
    return {"groups": {"control": n, "case": n}, "reference": "control", "n_genes": n_genes, "n_changed": n_changed}


def _cohort_from_simulation(adata: anndata.AnnData, name: str) -> SampleCohort:
    adata.uns["epigen"] = {"name": name, "species": "not applicable"}
    return SampleCohort(adata, list(adata.var_names), "control", "case")
