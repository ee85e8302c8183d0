import gzip

import numpy as np
import pandas as pd
import pytest

from epigen_utils.reads import references, simulated_reads


@pytest.fixture(scope="module")
def made():
    return simulated_reads.simulate_genome(n_genes=20, seed=3)


def test_introns_go_from_gt_to_ag_in_the_sense_of_the_gene(made):
    seen = set()
    for (_gene, _name), exons in made.exons.groupby(["gene", "transcript"], sort=False):
        bases = made.chromosomes[exons["chromosome"].iloc[0]]
        for end, start in zip(exons["end"].iloc[:-1], exons["start"].iloc[1:], strict=True):
            intron = bases[end:start]
            sense = intron if exons["strand"].iloc[0] == "+" else simulated_reads.reverse_complement(intron)
            assert sense[:2].tobytes() + sense[-2:].tobytes() == b"GTAG"
            seen.add(exons["strand"].iloc[0])
    assert seen == {"+", "-"}


def test_some_genes_overlap_on_opposite_strands(made):
    ends = made.exons.groupby("gene", sort=False).agg(
        chromosome=("chromosome", "first"), strand=("strand", "first"), start=("start", "min"), end=("end", "max")
    )
    pairs = [
        (one.strand, other.strand)
        for one, other in zip(ends.itertuples(), list(ends.itertuples())[1:], strict=False)
        if one.chromosome == other.chromosome and other.start < one.end
    ]
    assert pairs
    assert all(one != other for one, other in pairs)


@pytest.mark.parametrize("strandedness", ["forward", "reverse", "unstranded"])
@pytest.mark.parametrize("paired", [True, False])
def test_reads_come_from_their_genes_in_the_sense_of_the_library(made, strandedness, paired):
    gene = made.genes[0]
    counts = pd.Series(0, made.genes)
    counts[gene] = 400
    options = {"paired": paired, "strandedness": strandedness, "background": 0, "foreign": 0}
    mates = simulated_reads.simulate_library(made, counts, **options)
    assert len(mates) == 1 + paired
    transcripts = [transcript.tobytes() for transcript in made.transcripts()[gene]]

    def share(bases):
        """Of reads whose first 20 bases stand in a transcript as they are."""
        return np.mean([any(read[:20].tobytes() in one for one in transcripts) for read in bases])

    first = share(mates[0][0])
    expected = {"forward": 1, "reverse": 0, "unstranded": 0.5}[strandedness]
    assert first == pytest.approx(expected, abs=0.1)
    if paired:
        assert share(mates[1][0]) == pytest.approx(1 - expected, abs=0.1)


def test_short_fragments_go_on_into_the_adapter(made):
    counts = pd.Series(50, made.genes)
    (first, _), (second, _) = simulated_reads.simulate_library(made, counts)
    for bases, adapter in zip((first, second), simulated_reads.ADAPTERS, strict=True):
        with_it = np.mean([adapter[:10].encode() in read.tobytes() for read in bases])
        assert 0.005 < with_it < 0.1


def test_errors_are_as_frequent_as_qualities_say():
    rng = np.random.default_rng(0)
    bases = simulated_reads.BASES[rng.integers(0, 4, (4000, 75))]
    read, quality = simulated_reads._add_errors(bases, 0, rng)
    stated = 10 ** -((quality - 33.0) / 10)
    assert (read != bases).mean() == pytest.approx(stated.mean(), rel=0.1)
    assert stated[:, 60:].mean() > 3 * stated[:, :15].mean()


def test_a_cohort_keeps_its_truth_and_is_the_same_twice(tmp_path):
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
        simulated_reads.write_cohort(tmp_path / name, n_fragments=300, n_genes=12, seed=5)
    files = sorted(path.name for path in (tmp_path / "a").iterdir())
    assert {"sheet.csv", "truth.csv", "kinds.csv", "genome.fa", "annotation.gtf"} <= set(files)
    for name in files:
        assert (tmp_path / "a" / name).read_bytes() == (tmp_path / "b" / name).read_bytes(), name
    truth = pd.read_csv(tmp_path / "a" / "truth.csv", index_col="gene")
    assert truth.shape == (12, 6)
    with gzip.open(tmp_path / "a" / "control_1_1.fq.gz", "rt") as stream:
        n = sum(1 for _ in stream) / 4
    assert n == truth["control_1"].sum() + int(0.03 * truth["control_1"].sum()) + int(0.01 * truth["control_1"].sum())
    references.check_annotation(tmp_path / "a" / "genome.fa", tmp_path / "a" / "annotation.gtf")
    assert set(references.gene_names(tmp_path / "a" / "annotation.gtf")) == set(truth.index)
