"""Reference genomes and annotations, by name or by path, and the memory and disk space that they require.

Names are data sets of kind ``reference`` in the registry, with the files ``fasta`` and ``gtf``.
"""

import shutil
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import psutil

from epigen_utils.data import fetching, registry, sequence_files
from epigen_utils.errors import DataError, suggest
from epigen_utils.files import is_gzipped, open_text

#: Bytes of memory that STAR needs per base of the genome, and its minimum; its manual recommends 10 per base.
MEMORY_PER_BASE, MIN_MEMORY = 10.5, 1_500_000_000
#: Bytes of disk per base (sequence and index), and per byte of gzipped reads (trimmed, aligned, sorted).
DISK_PER_BASE, DISK_PER_BYTE = 12, 4


@dataclass(frozen=True)
class Requirements:
    """Memory and disk space that a pipeline requires, in bytes."""

    memory: int
    disk: int

    def __str__(self) -> str:
        return f"{self.memory / 1e9:.1f} GB of memory and {self.disk / 1e9:.1f} GB of disk"


def reference_names() -> list[str]:
    """Names of the references in the registry."""
    return [name for name, entry in registry.entries().items() if entry.kind == "reference"]


def bases_in_registry(name: str) -> int:
    """Approximate number of bases of a genome in the registry."""
    return int(registry.entry(name).options["bases"])


def bases_in_fasta(fasta: str | Path) -> int:
    """Approximate number of bases of a FASTA file: its size; if gzipped, the size stated in its last four bytes."""
    path = Path(fasta)
    size = path.stat().st_size
    if is_gzipped(path):
        with open(path, "rb") as stream:
            stream.seek(-4, 2)
            stated = int.from_bytes(stream.read(4), "little")
        # The stated size is modulo 4 GiB; choose the one nearest to a typical compression ratio.
        unpacked = stated + max(round((3.6 * size - stated) / 2**32), 0) * 2**32
        # A file of several gzip members states the size of the last member only.
        size = unpacked if unpacked > size else 4 * size
    return size


def reference_files(genome: str, gtf: str = "") -> tuple[Path, Path]:
    """FASTA and GTF files of a reference.

    Parameters
    ----------
    genome
        A reference of the registry, or the path of a FASTA file.
    gtf
        The annotation, if ``genome`` is a path.

    Raises
    ------
    DataError
        If there is no such genome, or one of the two files is missing.
    """
    if genome in reference_names():
        if gtf:
            raise DataError(f"genome {genome}: brings its own annotation; leave {gtf} out, or give the FASTA by path")
        fetched = fetching.fetch(genome)
        return fetched["fasta"], fetched["gtf"]
    path = Path(genome)
    if not path.is_file():
        raise DataError(f"genome {genome!r}: no such file or name; {suggest(genome, reference_names())}")
    if not gtf:
        raise DataError(f"genome {genome}: a FASTA file needs its annotation beside it; give gtf")
    if not Path(gtf).is_file():
        raise DataError(f"{gtf}: no such annotation; check the path")
    return path, Path(gtf)


def sequence_lengths(fasta: str | Path) -> dict[str, int]:
    """Name -> length of each sequence of a FASTA file (`sequence_files.read_fasta`)."""
    return {name: len(sequence) for name, sequence in sequence_files.read_fasta(fasta)}


def gene_names(gtf: str | Path) -> dict[str, str]:
    """Gene id -> gene name (the id if it has none) of the exons of a GTF file, in file order.

    Raises
    ------
    DataError
        If the file has no exon, or an exon has no ``gene_id``.
    """
    by_id = {}
    for number, fields in _exons(gtf):
        parts = fields[8].strip().rstrip(";").split(";")
        attributes = dict(part.strip().split(" ", 1) for part in parts if " " in part.strip())
        gene = attributes.get("gene_id", "").strip('"')
        if not gene:
            raise DataError(f"{gtf}: line {number}: an exon without gene_id; give a GTF file, not GFF3")
        by_id.setdefault(gene, attributes.get("gene_name", "").strip('"') or gene)
    if not by_id:
        raise DataError(f"{gtf}: has no exon; give the annotation as GTF")
    return by_id


def _exons(gtf: str | Path) -> Iterator[tuple[int, list[str]]]:
    """Line numbers and fields of the exons of a GTF file, whose places are checked."""
    try:
        with open_text(gtf) as stream:
            for number, line in enumerate(stream, 1):
                if line.startswith("#") or not line.strip():
                    continue
                fields = line.rstrip("\n").split("\t")
                if len(fields) != 9:
                    raise DataError(
                        f"{gtf}: line {number}: {len(fields)} columns; a GTF file has nine, with tabs between them"
                    )
                if fields[2] != "exon":
                    continue
                start, end = fields[3:5]
                are_numbers = start.isdecimal() and end.isdecimal() and f"{start}{end}".isascii()
                if not (are_numbers and 1 <= int(start) <= int(end)):
                    raise DataError(
                        f"{gtf}: line {number}: an exon from {start!r} to {end!r}; columns 4 and 5 are its first and "
                        "last base, from 1: correct the line, or fetch the annotation again"
                    )
                yield number, fields
    except (OSError, EOFError, zlib.error, UnicodeDecodeError) as error:
        raise DataError(f"{gtf}: cannot be read ({error}); fetch it again") from None


def check_annotation(fasta: str | Path, gtf: str | Path) -> dict[str, int]:
    """Refuse an annotation of another genome; returns the `sequence_lengths` of the genome.

    Raises
    ------
    DataError
        If no exon of the annotation lies on a sequence of the genome, or an exon extends beyond its sequence.
    """
    lengths = sequence_lengths(fasta)
    annotated = {}
    for number, fields in _exons(gtf):
        name, end = fields[0], int(fields[4])
        annotated.setdefault(name, number)
        if name in lengths and end > lengths[name]:
            raise DataError(
                f"{gtf}: line {number}: an exon ends at {end:,}, and {name} of {Path(fasta).name} at "
                f"{lengths[name]:,}; give the annotation of this genome"
            )
    if annotated and not set(annotated) & set(lengths):
        in_gtf, in_fasta = next(iter(annotated)), next(iter(lengths))
        raise DataError(
            f"{gtf}: its sequences ({in_gtf}, ...) are none of {Path(fasta).name} ({in_fasta}, ...); "
            "give the annotation of this genome, with the same names"
        )
    return lengths


def required_resources(n_bases: int, fastq: list[str], *, indexed: bool = False) -> Requirements:
    """Memory and disk space for aligning these files to a genome of ``n_bases``.

    Parameters
    ----------
    indexed
        Whether STAR's index exists already.
    """
    memory = max(int(MEMORY_PER_BASE * n_bases), MIN_MEMORY)
    disk = DISK_PER_BYTE * sum(Path(file).stat().st_size for file in fastq)
    return Requirements(memory, disk + (0 if indexed else DISK_PER_BASE * n_bases))


def check_memory(required: Requirements, label: str) -> None:
    """Refuse a pipeline that does not fit into this machine's memory.

    Raises
    ------
    DataError
        Stating the required and the available memory.
    """
    memory = psutil.virtual_memory().total
    if required.memory > memory:
        raise DataError(
            f"{label}: needs {required.memory / 1e9:.1f} GB of memory, this machine has {memory / 1e9:.1f}; "
            "run it on a larger one (--executor), or give a smaller genome"
        )


def check_disk(required: Requirements, folder: Path, label: str) -> None:
    """Refuse a pipeline that does not fit on the disk of a folder; files of an interrupted run in it count as done.

    Raises
    ------
    DataError
        Stating the required and the available space.
    """
    existing = next(parent for parent in [folder, *folder.resolve().parents] if parent.exists())
    free = shutil.disk_usage(existing).free
    missing = required.disk - sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())
    if missing > free:
        raise DataError(
            f"{label}: needs {missing / 1e9:.1f} GB of disk, {folder} has {free / 1e9:.1f} free; "
            "make room, or run it elsewhere"
        )
