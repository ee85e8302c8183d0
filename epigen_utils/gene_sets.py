"""Gene sets with their sources, as genes of a cohort of bulk samples; and their halves, of which one may be a loss's prior."""

from pathlib import Path

import numpy as np

from epigen_utils import genes, registry
from epigen_utils.errors import DataError, closest
from epigen_utils.sample_cohorts import SampleCohort

#: Data sets of the registry that are tables: the role to take, and the column of symbols (None: one symbol a line).
TABLES = {"genes4epilepsy": ("v2026_03", "Gene"), "human-tfs": ("lambert2018", None)}
#: What the set of each of these is called.
NAMES = {"genes4epilepsy": "Genes4Epilepsy", "human-tfs": "Transcription factors"}
#: The set that a simulation knows: genes that make the class.
PLANTED = "planted"
#: The set that stands in where no other has members: of it nothing is to be expected.
RANDOM = "random genes"


def of_cohort(cohort: SampleCohort, sources: list[str]) -> dict[str, list[str]]:
    """Sets of the genes of a cohort, by name; those without a member are left out, so that there may be none.

    A simulated cohort's own truth comes first. Human symbols go through orthologs, a microRNA by its name in miRBase, without
    regard to case and punctuation.

    Parameters
    ----------
    sources
        Names of the registry, or paths of GMT files.

    Raises
    ------
    DataError
        If a file is no GMT.
    """
    found = {PLANTED: planted(cohort)}
    for source in sources:
        sets = read(source)
        of_symbols = genes.sets_in_data(cohort.adata, sets)
        by_name = {genes.plain(gene): gene for gene in cohort.genes}
        for name, members in sets.items():
            plain = [by_name[genes.plain(member)] for member in members if genes.plain(member) in by_name]
            found[name] = list(dict.fromkeys([*of_symbols[name], *plain]))
    have = set(cohort.genes)
    found = {name: [gene for gene in members if gene in have] for name, members in found.items()}
    return {name: members for name, members in found.items() if members}


def read(source: str) -> dict[str, list[str]]:
    """Sets of human symbols, or of microRNAs, by name.

    Raises
    ------
    DataError
        If a file is no GMT.
    """
    if source in TABLES:
        role, column = TABLES[source]
        lines = registry.fetch(source)[role].read_text().splitlines()
        place = lines[0].split("\t").index(column) if column else 0
        rows = lines[1:] if column else lines
        return {NAMES[source]: [line.split("\t")[place].strip() for line in rows if line.strip()]}
    path = registry.file(source)
    for number, line in enumerate(Path(path).read_text().splitlines(), 1):
        if line.count("\t") < 2:
            raise DataError(f"{path}: line {number}: a set is a name, a source and genes, with tabs between them")
    return genes.read_gmt(Path(path))


def planted(cohort: SampleCohort) -> list[str]:
    """Genes that a simulation changed with the class; none for a data set that is not simulated."""
    truth = cohort.adata.varm.get("log2_fold_change")
    if truth is None:
        return []
    classes = [name for name in truth.columns if name in set(cohort.adata.obs[cohort.group].astype(str))]
    return [str(gene) for gene in truth.index[(truth[classes] != 0).any(axis=1)]]


def in_sentences(sets: dict[str, list[str]], shown: list[str], *, seed: int = 0) -> dict[str, list[str]]:
    """Sets as far as sentences hold their genes; where they have fewer than two, or all but one, `RANDOM` stands in for them."""
    have = set(shown)
    found = {name: sorted(have & set(members)) for name, members in sets.items()}
    found = {name: members for name, members in found.items() if 0 < len(members) < len(have)}
    if 2 <= len(union(found)) <= len(have) - 2:
        return found
    n = min(max(len(have) // 10, 2), len(have) - 1)
    return {RANDOM: sorted(np.random.default_rng(seed).choice(sorted(have), n, replace=False).tolist())}


def union(sets: dict[str, list[str]], name: str = "") -> list[str]:
    """Genes of one set, or of all.

    Raises
    ------
    DataError
        If there is no such set.
    """
    if name and name not in sets:
        raise DataError(f"gene set {name!r}: {closest(name, sets)}")
    chosen = [sets[name]] if name else sets.values()
    return sorted({gene for members in chosen for gene in members})


def small(sets: dict[str, list[str]], most: int) -> list[str]:
    """Genes of the sets that have no more than so many: what is asked about by name is to be in every sentence."""
    return sorted({gene for members in sets.values() if len(members) <= most for gene in members})


def halves(members: list[str], *, seed: int = 0) -> tuple[list[str], list[str]]:
    """A set dealt in two at random: one half for a prior, the other to be asked about.

    Raises
    ------
    DataError
        If there is one gene only.
    """
    if len(members) < 2:
        raise DataError(
            f"gene set of {len(members)}: a prior and what is asked about need a gene each; give a larger set"
        )
    order = np.random.default_rng(seed).permutation(sorted(members))
    return sorted(order[::2].tolist()), sorted(order[1::2].tolist())
