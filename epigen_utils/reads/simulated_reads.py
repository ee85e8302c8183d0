"""Simulated RNA-seq reads with known counts, to test a pipeline from reads to counts against the truth.

The small genome has spliced genes on both strands; libraries differ in kind, and reads have adapters and errors. The
true counts are in ``truth.csv`` beside the reads.
"""

import gzip
import itertools
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd

#: Illumina's TruSeq adapters that the first and the second mate of a short fragment run into.
ADAPTERS = ("AGATCGGAAGAGCACACGTCTGAACTCCAGTCA", "AGATCGGAAGAGCGTCGTGTAGGGAAAGAGTGT")
#: Mean and standard deviation of the fragment length, in bases.
FRAGMENT_LENGTH = (190, 60)
MIN_FRAGMENT = 45
BASES = np.frombuffer(b"ACGT", np.uint8)
_COMPLEMENT = np.zeros(256, np.uint8)
_COMPLEMENT[BASES] = BASES[::-1]

#: Libraries of the default cohort, by sample: paired or single reads, and strandedness.
LIBRARIES = (
    ("paired", "reverse"),
    ("paired", "unstranded"),
    ("single", "reverse"),
    ("paired", "reverse"),
    ("paired", "forward"),
    ("single", "unstranded"),
)


@dataclass(frozen=True)
class Genome:
    """A genome and its annotation.

    Attributes
    ----------
    chromosomes
        Name -> bases, as unsigned bytes.
    exons
        A row an exon, in the order of the genome: ``gene``, ``transcript``, ``chromosome``, ``strand``, ``start``,
        ``end`` (0-based, half-open).
    """

    chromosomes: dict[str, np.ndarray]
    exons: pd.DataFrame

    @property
    def genes(self) -> list[str]:
        return list(dict.fromkeys(self.exons["gene"]))

    def transcripts(self) -> dict[str, list[np.ndarray]]:
        """Gene -> its spliced transcripts, in sense direction."""
        by_gene = {}
        for (gene, _name), exons in self.exons.groupby(["gene", "transcript"], sort=False):
            first = exons.iloc[0]
            bases = self.chromosomes[first["chromosome"]]
            spliced = np.concatenate([bases[a:b] for a, b in zip(exons["start"], exons["end"], strict=True)])
            by_gene.setdefault(gene, []).append(spliced if first["strand"] == "+" else reverse_complement(spliced))
        return by_gene

    def between(self) -> list[np.ndarray]:
        """Segments of the genome without exons, at least two mean fragments long."""
        segments = []
        for name, bases in self.chromosomes.items():
            free = np.ones(len(bases), bool)
            for exon in self.exons[self.exons["chromosome"] == name].itertuples():
                free[exon.start : exon.end] = False
            ends = np.flatnonzero(np.diff(np.concatenate([[False], free, [False]]).astype(int)))
            segments += [bases[a:b] for a, b in ends.reshape(-1, 2) if b - a >= 2 * FRAGMENT_LENGTH[0]]
        return segments


def reverse_complement(bases: np.ndarray) -> np.ndarray:
    """Reverse complement along the last axis."""
    return _COMPLEMENT[bases][..., ::-1]


def simulate_genome(*, n_genes: int = 80, n_chromosomes: int = 2, overlapping: int = 12, seed: int = 0) -> Genome:
    """Random genome: genes with two to six exons, GT-AG introns, and two transcripts for a third of the genes.

    Parameters
    ----------
    overlapping
        Number of genes that overlap a neighbour on the other strand; only a stranded library can distinguish the two.
    """
    rng = np.random.default_rng(seed)
    chromosomes, rows = {}, []
    for number in range(n_chromosomes):
        name = f"sim{number + 1}"
        exons, end = _place_exons(rng, list(range(number, n_genes, n_chromosomes)), overlapping // n_chromosomes)
        bases = BASES[rng.integers(0, 4, end + 2000)]
        rows += [exon | {"chromosome": name} for exon in exons]
        _write_splice_sites(bases, exons)
        chromosomes[name] = bases
    return Genome(chromosomes, pd.DataFrame(rows)[["gene", "transcript", "chromosome", "strand", "start", "end"]])


def _place_exons(rng: np.random.Generator, numbers: list[int], overlapping: int) -> tuple[list[dict], int]:
    """Exons of the genes of one chromosome, one gene after another, and the end of the last one."""
    rows, at, strand = [], 2000, "+"
    for position, number in enumerate(numbers):
        overlaps = 0 < position <= overlapping and position % 2 == 1
        strand = {"+": "-", "-": "+"}[strand] if overlaps else rng.choice(["+", "-"])
        # An overlapping gene starts 150 bases before the end of the previous one.
        at += -150 if overlaps else int(rng.integers(500, 1500))
        exons = []
        for _ in range(int(rng.integers(2, 7))):
            length = int(rng.integers(160, 500))
            exons.append((at, at + length))
            at += length + int(rng.integers(120, 900))
        at = exons[-1][1]
        gene = f"SIMG{number:05d}"
        of_gene = {"gene": gene, "strand": strand}
        rows += [of_gene | {"transcript": f"{gene}.1", "start": a, "end": b} for a, b in exons]
        if len(exons) > 2 and number % 3 == 0:
            rows += [of_gene | {"transcript": f"{gene}.2", "start": a, "end": b} for a, b in [exons[0], *exons[2:]]]
    return rows, at


def _write_splice_sites(bases: np.ndarray, exons: list[dict]) -> None:
    """Write GT at the start and AG at the end of each intron, in sense direction of its gene."""
    for before, after in itertools.pairwise(exons):
        if before["transcript"] != after["transcript"]:
            continue
        first, last = (b"GT", b"AG") if before["strand"] == "+" else (b"CT", b"AC")
        bases[before["end"] : before["end"] + 2] = np.frombuffer(first, np.uint8)
        bases[after["start"] - 2 : after["start"]] = np.frombuffer(last, np.uint8)


def simulate_counts(
    genome: Genome, groups: list[str], *, n_fragments: int, seed: int = 0
) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Negative binomial fragment counts; library sizes differ, and a fifth of the genes changes in each further level.

    Returns
    -------
    Counts, genes x samples; true log2 fold changes against the first level, genes x levels.
    """
    rng = np.random.default_rng([seed, 1])
    levels = list(dict.fromkeys(groups))
    mean = rng.lognormal(0, 1.0, len(genome.genes))
    mean *= n_fragments / mean.sum()
    truth = pd.DataFrame(0.0, genome.genes, levels)
    for level in levels[1:]:
        changed = rng.choice(len(mean), len(mean) // 5, replace=False)
        effects = rng.choice([-1, 1], len(changed)) * rng.uniform(0.7, 2, len(changed))
        truth.iloc[changed, truth.columns.get_loc(level)] = effects
    mu = mean[:, None] * 2 ** truth[groups].to_numpy() * 2 ** rng.uniform(-0.4, 0.4, len(groups))
    return pd.DataFrame(rng.poisson(rng.gamma(10, mu / 10)), genome.genes), truth


def simulate_library(
    genome: Genome,
    counts: pd.Series,
    *,
    paired: bool = True,
    strandedness: str = "reverse",
    length: int = 75,
    background: float = 0.03,
    foreign: float = 0.01,
    seed: int = 0,
) -> list[tuple[np.ndarray, np.ndarray]]:
    """Reads of one sample.

    Parameters
    ----------
    counts
        Number of fragments of each gene.
    strandedness
        ``forward``: the first read is in sense direction; ``reverse``: in antisense; ``unstranded``: in either.
    background, foreign
        Fragments from outside exons, and from outside the genome, as shares of those from genes.

    Returns
    -------
    For each mate: bases and qualities (ASCII), reads x length, in random order. Reads that are longer than their
    fragment continue into the adapter.
    """
    rng = np.random.default_rng([seed, 2])
    transcripts = genome.transcripts()
    sources = [transcripts[gene][rng.integers(len(transcripts[gene]))] for gene, n in counts.items() for _ in range(n)]
    n_genic = len(sources)
    between = genome.between()
    sources += [between[i] for i in rng.integers(0, len(between), int(background * n_genic))]
    sources += [BASES[rng.integers(0, 4, 1000)] for _ in range(int(foreign * n_genic))]
    sense, size = [], []
    for source in sources:
        longest = min(len(source), 4 * FRAGMENT_LENGTH[0])
        n = int(np.clip(rng.normal(*FRAGMENT_LENGTH), MIN_FRAGMENT, longest))
        at = int(rng.integers(0, len(source) - n + 1))
        piece = np.full(max(n, length), ord("N"), np.uint8)
        piece[:n] = source[at : at + n]
        sense.append(piece)
        size.append(n)
    order = rng.permutation(len(sense))
    if strandedness in ("forward", "reverse"):
        antisense = np.full(len(sense), strandedness == "reverse")
    else:
        antisense = rng.random(len(sense)) < 0.5
    antisense[n_genic:] = rng.random(len(sense) - n_genic) < 0.5
    mates = []
    for mate in range(2 if paired else 1):
        bases = np.empty((len(sense), length), np.uint8)
        adapter = np.frombuffer((ADAPTERS[mate] * 4).encode(), np.uint8)
        for row, i in enumerate(order):
            piece = sense[i][: size[i]]
            piece = reverse_complement(piece) if antisense[i] != bool(mate) else piece
            read = piece[:length]
            bases[row, : len(read)] = read
            bases[row, len(read) :] = adapter[: length - len(read)]
        mates.append(_add_errors(bases, mate, rng))
    return mates


def _add_errors(bases: np.ndarray, mate: int, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """Add errors at the rates of simulated qualities, which fall along the read and are lower in second mates.

    Returns
    -------
    Bases and qualities (ASCII), reads x length.
    """
    n, length = bases.shape
    fall = 38 - 2 * mate - 10 * (np.arange(length) / length) ** 2
    quality = np.clip(np.rint(fall + rng.normal(0, 2, (n, 1)) + rng.normal(0, 2, (n, length))), 2, 40).astype(int)
    wrong = rng.random((n, length)) < 10 ** (-quality / 10)
    bases = bases.copy()
    # A shift by one to three bases never gives the right base.
    right = np.searchsorted(BASES, bases[wrong])
    bases[wrong] = BASES[(right + rng.integers(1, 4, wrong.sum())) % 4]
    return bases, (quality + 33).astype(np.uint8)


def write_fastq(path: Path, bases: np.ndarray, qualities: np.ndarray, *, mate: int) -> None:
    """Write gzipped FASTQ; the same reads give the same bytes."""
    lines = bytearray()
    for number, (read, quality) in enumerate(zip(bases, qualities, strict=True), 1):
        lines += b"@SIM:1:%d %d:N:0:ACGT\n%b\n+\n%b\n" % (number, mate, read.tobytes(), quality.tobytes())
    with open(path, "wb") as stream, gzip.GzipFile("", "wb", 6, stream, mtime=0) as packed:
        packed.write(lines)


def write_reference(genome: Genome, folder: Path) -> tuple[Path, Path]:
    """Write ``genome.fa`` and ``annotation.gtf``."""
    fasta, gtf = folder / "genome.fa", folder / "annotation.gtf"
    with open(fasta, "w") as stream:
        for name, bases in genome.chromosomes.items():
            text = bases.tobytes().decode()
            stream.write(f">{name}\n" + "\n".join(text[i : i + 60] for i in range(0, len(text), 60)) + "\n")
    with open(gtf, "w") as stream:
        for row in genome.exons.itertuples():
            attributes = f'gene_id "{row.gene}"; transcript_id "{row.transcript}"; gene_name "{row.gene.title()}";'
            fields = (row.chromosome, "sim", "exon", row.start + 1, row.end, ".", row.strand, ".", attributes)
            stream.write("\t".join(map(str, fields)) + "\n")
    return fasta, gtf


def write_cohort(
    folder: Path,
    *,
    kinds: list[tuple[str, str]] | tuple = LIBRARIES,
    groups: dict[str, int] | None = None,
    n_fragments: int = 12_000,
    n_genes: int = 80,
    seed: int = 0,
) -> Path:
    """Write a sample sheet with its reads, a reference and the truth into a folder.

    Parameters
    ----------
    kinds
        ``paired`` or ``single``, and the strandedness, of each sample in turn.
    groups
        Level -> number of samples, the reference level first. By default three controls and three cases.
    n_fragments
        Mean number of fragments of genes in a sample.

    Returns
    -------
    The sheet, ``sheet.csv``, with strandedness ``auto``. Beside it, ``truth.csv`` has the fragments of each gene,
    ``changes.csv`` the true log2 fold changes, and ``kinds.csv`` the kinds of the libraries.
    """
    levels = [level for level, n in (groups or {"control": 3, "case": 3}).items() for _ in range(n)]
    simulated = simulate_genome(n_genes=n_genes, seed=seed)
    counts, changes = simulate_counts(simulated, levels, n_fragments=n_fragments, seed=seed)
    names = [f"{level}_{levels[: i + 1].count(level)}" for i, level in enumerate(levels)]
    rows = []
    for i, (name, level) in enumerate(zip(names, levels, strict=True)):
        library, strandedness = kinds[i % len(kinds)]
        options = {"paired": library == "paired", "strandedness": strandedness, "seed": seed * 1000 + i}
        row = {"sample": name, "fastq_1": "", "fastq_2": "", "strandedness": "auto"}
        row |= {"group": level, "donor": f"animal {i + 1}"}
        for mate, (bases, qualities) in enumerate(simulate_library(simulated, counts[i], **options), 1):
            row[f"fastq_{mate}"] = f"{name}_{mate}.fq.gz"
            write_fastq(folder / row[f"fastq_{mate}"], bases, qualities, mate=mate)
        rows.append(row)
    write_reference(simulated, folder)
    counts.set_axis(names, axis=1).rename_axis("gene").to_csv(folder / "truth.csv")
    changes.rename_axis("gene").to_csv(folder / "changes.csv")
    libraries = [kinds[i % len(kinds)] for i in range(len(names))]
    table = pd.DataFrame(libraries, pd.Index(names, name="sample"), ["library", "strandedness"])
    table.to_csv(folder / "kinds.csv")
    pd.DataFrame(rows).to_csv(folder / "sheet.csv", index=False)
    return folder / "sheet.csv"
