"""Gene sets from their sources, as genes of a cohort of bulk samples; and halves of a set, one as prior of a loss."""

import numpy as np

from epigen_utils.data import fetching, genes, orthologs, registry
from epigen_utils.errors import DataError, suggest
from epigen_utils.prediction.sample_cohort import SampleCohort

#: The known set of a simulation: genes that differ between the classes.
PLANTED = "planted"
#: Stand-in where no set has members; no signal is expected of it.
RANDOM_SET = "random genes"


def sets_of_cohort(cohort: SampleCohort, sources: list[str]) -> dict[str, list[str]]:
    """Gene sets by name, as genes of a cohort; sets without a member are left out, possibly all.

    The planted genes of a simulated cohort come first. Human symbols are mapped by orthologs, microRNAs by their
    miRBase names, ignoring case and punctuation.

    Parameters
    ----------
    sources
        Names of the registry, or paths of GMT files.

    Raises
    ------
    DataError
        If a file is not a GMT file.
    """
    sets = {PLANTED: planted_genes(cohort)}
    by_name = {genes.normalise_name(gene): gene for gene in cohort.genes}
    for source in sources:
        human_sets = read_gene_sets(source)
        by_ortholog = orthologs.find_gene_sets(cohort.adata, human_sets)
        for name, members in human_sets.items():
            same_name = [
                by_name[genes.normalise_name(member)] for member in members if genes.normalise_name(member) in by_name
            ]
            sets[name] = list(dict.fromkeys([*by_ortholog[name], *same_name]))
    available = set(cohort.genes)
    sets = {name: [gene for gene in members if gene in available] for name, members in sets.items()}
    return {name: members for name, members in sets.items() if members}


def read_gene_sets(source: str) -> dict[str, list[str]]:
    """Sets of human symbols, or of microRNAs, by name: of a GMT file, or of a table that the registry describes.

    Raises
    ------
    DataError
        If a file is not a GMT file.
    """
    options = registry.entry(source).options if source in registry.entries() else {}
    if "set_name" not in options:
        return genes.read_gmt(fetching.resolve_file(source))
    lines = fetching.fetch(source)[options["set_file"]].read_text().splitlines()
    header = lines.pop(0).split("\t") if "column" in options else []
    position = header.index(options["column"]) if header else 0
    return {options["set_name"]: [line.split("\t")[position].strip() for line in lines if line.strip()]}


def planted_genes(cohort: SampleCohort) -> list[str]:
    """Genes that a simulation changed with the class; empty for a real data set."""
    truth = cohort.adata.varm.get("log2_fold_change")
    if truth is None:
        return []
    classes = [name for name in truth.columns if name in set(cohort.adata.obs[cohort.group].astype(str))]
    return [str(gene) for gene in truth.index[(truth[classes] != 0).any(axis=1)]]


def sets_in_sentences(sets: dict[str, list[str]], sentence_genes: list[str], *, seed: int = 0) -> dict[str, list[str]]:
    """Sets restricted to the genes of the sentences.

    `RANDOM_SET` replaces them all if together they have fewer than two of these genes, or leave fewer than two outside.
    """
    available = set(sentence_genes)
    restricted = {name: sorted(available & set(members)) for name, members in sets.items()}
    restricted = {name: members for name, members in restricted.items() if 0 < len(members) < len(available)}
    if 2 <= len(union_of_sets(restricted)) <= len(available) - 2:
        return restricted
    n = min(max(len(available) // 10, 2), len(available) - 1)
    return {RANDOM_SET: sorted(np.random.default_rng(seed).choice(sorted(available), n, replace=False).tolist())}


def union_of_sets(sets: dict[str, list[str]], name: str = "") -> list[str]:
    """Genes of one set, or of all sets.

    Raises
    ------
    DataError
        If there is no such set.
    """
    if name and name not in sets:
        raise DataError(f"gene set {name!r}: {suggest(name, sets)}")
    chosen = [sets[name]] if name else sets.values()
    return sorted({gene for members in chosen for gene in members})


def genes_of_small_sets(sets: dict[str, list[str]], max_size: int) -> list[str]:
    """Genes of the sets with at most ``max_size`` genes; the sentences should contain all of them."""
    return sorted({gene for members in sets.values() if len(members) <= max_size for gene in members})


def split_set(members: list[str], *, seed: int = 0) -> tuple[list[str], list[str]]:
    """A gene set split in two at random: one half for a prior, the other for evaluation.

    Raises
    ------
    DataError
        If there is only one gene.
    """
    if len(members) < 2:
        raise DataError(
            f"gene set of {len(members)}: the prior and the tested half need a gene each; give a larger set"
        )
    order = np.random.default_rng(seed).permutation(sorted(members))
    return sorted(order[::2].tolist()), sorted(order[1::2].tolist())
