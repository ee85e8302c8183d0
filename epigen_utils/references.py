"""A genome and its annotation, by name or by path; and what they ask of a machine, said before anything starts.

Names are data sets of the registry of kind ``reference``, with the files ``fasta`` and ``gtf``.
"""

import gzip
import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import psutil

from epigen_utils import registry
from epigen_utils.errors import DataError, closest

#: Bytes of memory that STAR takes for each base of the genome, and at least; its manual asks 10 to a base.
MEMORY_PER_BASE, LEAST_MEMORY = 10.5, 1_500_000_000
#: Bytes of disk for each base (sequence and index), and for each byte of gzipped reads (trimmed, aligned, sorted).
DISK_PER_BASE, DISK_PER_BYTE = 12, 4


@dataclass(frozen=True)
class Needs:
    """What a pipeline asks of a machine, in bytes."""

    memory: int
    disk: int

    def __str__(self) -> str:
        return f"{self.memory / 1e9:.1f} GB of memory and {self.disk / 1e9:.1f} GB of disk"


def names() -> list[str]:
    """References that the registry knows."""
    return [name for name, entry in registry.registry().items() if entry.kind == "reference"]


def stated_bases(name: str) -> int:
    """About how many bases a genome of the registry has."""
    return int(registry.entry(name).options["bases"])


def bases(fasta: str | Path) -> int:
    """About how many bases a FASTA file has, by its size; of a gzipped one, by the size that it states (its last four bytes)."""
    path = Path(fasta)
    size = path.stat().st_size
    if path.suffix == ".gz":
        with open(path, "rb") as stream:
            stream.seek(-4, 2)
            said = int.from_bytes(stream.read(4), "little")
        # It states its size modulo 4 GiB: meant is the one nearest to what packs so.
        guess = said + max(round((3.6 * size - said) / 2**32), 0) * 2**32
        # A file of several members states its last one's.
        size = guess if guess > size else 4 * size
    return size


def files(genome: str, gtf: str = "") -> tuple[Path, Path]:
    """FASTA and GTF.

    Parameters
    ----------
    genome
        A name of `names`, or the path of a FASTA file.
    gtf
        With a path: the annotation.

    Raises
    ------
    DataError
        If there is no such genome, or one of the two files is missing.
    """
    if genome in names():
        if gtf:
            raise DataError(f"genome {genome}: brings its own annotation; leave {gtf} out, or give the FASTA by path")
        found = registry.fetch(genome)
        return found["fasta"], found["gtf"]
    path = Path(genome)
    if not path.is_file():
        raise DataError(f"genome {genome!r}: no such file or name; {closest(genome, names())}")
    if not gtf:
        raise DataError(f"genome {genome}: a FASTA file needs its annotation beside it; give gtf")
    if not Path(gtf).is_file():
        raise DataError(f"{gtf}: no such annotation; check the path")
    return path, Path(gtf)


def _lines(path: str | Path) -> Iterator[str]:
    opener = gzip.open if str(path).endswith(".gz") else open
    try:
        with opener(path, "rt") as stream:
            yield from stream
    except (OSError, EOFError, UnicodeDecodeError) as error:
        raise DataError(f"{path}: cannot be read ({error}); fetch it again") from None


def sequences(fasta: str | Path) -> list[tuple[str, int]]:
    """Name and length of each sequence of a FASTA file.

    Raises
    ------
    DataError
        If it is none, or a name is there twice.
    """
    found: dict[str, int] = {}
    name = ""
    for number, line in enumerate(_lines(fasta), 1):
        if line.startswith(">"):
            name = line[1:].split()[0] if line[1:].split() else ""
            if not name or name in found:
                what = f"sequence {name!r} is there twice" if name else "a sequence without a name"
                raise DataError(f"{fasta}: line {number}: {what}; mend the file")
            found[name] = 0
        elif not name and line.strip():
            raise DataError(f"{fasta}: line {number}: no '>' before the first sequence; give a FASTA file")
        else:
            found[name] = found.get(name, 0) + len(line.strip())
    if not any(found.values()):
        raise DataError(f"{fasta}: holds no sequence; give the genome's FASTA file")
    return list(found.items())


def genes(gtf: str | Path) -> dict[str, str]:
    """Gene id -> its name, the id where it has none, of the exons of a GTF file, in its order.

    Raises
    ------
    DataError
        If it has no exon, or an exon has no ``gene_id``.
    """
    found = {}
    for number, fields in _exons(gtf):
        said = dict(
            part.strip().split(" ", 1) for part in fields[8].strip().rstrip(";").split(";") if " " in part.strip()
        )
        gene = said.get("gene_id", "").strip('"')
        if not gene:
            raise DataError(f"{gtf}: line {number}: an exon without gene_id; give a GTF file, not GFF3")
        found.setdefault(gene, said.get("gene_name", "").strip('"') or gene)
    if not found:
        raise DataError(f"{gtf}: has no exon; give the annotation as GTF")
    return found


def _exons(gtf: str | Path) -> Iterator[tuple[int, list[str]]]:
    for number, line in enumerate(_lines(gtf), 1):
        fields = line.rstrip("\n").split("\t")
        if line.startswith("#") or not line.strip():
            continue
        if len(fields) != 9:
            raise DataError(f"{gtf}: line {number}: {len(fields)} columns; a GTF file has nine, with tabs between them")
        if fields[2] == "exon":
            yield number, fields


def check(fasta: str | Path, gtf: str | Path) -> None:
    """Refuse an annotation of another genome.

    Raises
    ------
    DataError
        If no exon of the annotation lies on a sequence of the genome, or one lies beyond its sequence's end.
    """
    known = dict(sequences(fasta))
    on = {}
    for number, fields in _exons(gtf):
        name, end = fields[0], int(fields[4])
        on.setdefault(name, number)
        if name in known and end > known[name]:
            raise DataError(
                f"{gtf}: line {number}: an exon ends at {end:,}, and {name} of {Path(fasta).name} at {known[name]:,}; "
                "give the annotation of this genome"
            )
    if on and not set(on) & set(known):
        one, other = next(iter(on)), next(iter(known))
        raise DataError(
            f"{gtf}: its sequences ({one}, ...) are none of {Path(fasta).name} ({other}, ...); "
            "give the annotation of this genome, with the same names"
        )


def needs(n_bases: int, fastq: list[str], *, indexed: bool = False) -> Needs:
    """What reads of these files on a genome of so many bases ask for.

    Parameters
    ----------
    indexed
        Whether STAR's index is there already.
    """
    memory = max(int(MEMORY_PER_BASE * n_bases), LEAST_MEMORY)
    disk = DISK_PER_BYTE * sum(Path(file).stat().st_size for file in fastq)
    return Needs(memory, disk + (0 if indexed else DISK_PER_BASE * n_bases))


def check_memory(wanted: Needs, what: str) -> None:
    """Refuse what does not fit into this machine's memory.

    Raises
    ------
    DataError
        Saying what is needed and what there is.
    """
    memory = psutil.virtual_memory().total
    if wanted.memory > memory:
        raise DataError(
            f"{what}: needs {wanted.memory / 1e9:.1f} GB of memory, this machine has {memory / 1e9:.1f}; "
            "run it on a larger one (--executor), or give a smaller genome"
        )


def check_disk(wanted: Needs, folder: Path, what: str) -> None:
    """Refuse what does not fit beside a folder; what it already holds, of a run that was stopped, is taken off.

    Raises
    ------
    DataError
        Saying what is needed and what there is.
    """
    place = next(parent for parent in [folder, *folder.resolve().parents] if parent.exists())
    free = shutil.disk_usage(place).free
    more = wanted.disk - sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())
    if more > free:
        raise DataError(
            f"{what}: needs {more / 1e9:.1f} GB of disk, {folder} has {free / 1e9:.1f} free; make room, or run it elsewhere"
        )
