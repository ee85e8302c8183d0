"""The sample sheet that starts the pipeline from reads to counts, and its FASTQ files: their contract, checked at the door.

A CSV with a row a sample, after nf-core's: ``sample``, ``fastq_1``; ``fastq_2`` for paired reads; ``strandedness``; ``group`` and ``donor`` for
what comes after. Paths are as they are, or relative to the sheet.
"""

import gzip
import itertools
import re
import zlib
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pandas as pd

from epigen_utils.errors import DataError, closest

COLUMNS = ("sample", "fastq_1", "fastq_2", "strandedness", "group", "donor")
NEEDED = COLUMNS[:2]
#: Which strand the first read is of; ``auto`` is to be found out (`read_reports.strandedness`).
STRANDEDNESS = ("auto", "unstranded", "forward", "reverse")
#: What names of samples, which become names of files, are made of.
NAME = r"[A-Za-z0-9][A-Za-z0-9._-]*"


@dataclass(frozen=True)
class Sample:
    """One row: its FASTQ files, one or two, as absolute paths."""

    name: str
    fastq: tuple[str, ...]
    strandedness: str = "auto"
    group: str = ""
    donor: str = ""

    @property
    def paired(self) -> bool:
        return len(self.fastq) == 2


@dataclass(frozen=True)
class Reads:
    """What a full reading of a sample's files found: reads (pairs count once), bases of all mates, shortest and longest read."""

    reads: int
    bases: int
    shortest: int
    longest: int


def read(path: str | Path) -> list[Sample]:
    """Read a sheet, and the first record of every file that it names.

    Raises
    ------
    DataError
        Naming the sheet and the row: an unknown or missing column, a name that is no file name, a sample that is there twice, a file that
        is missing, empty, named twice, no FASTQ, of the other mate, or not of the same fragment as its mate.
    """
    path = Path(path)
    if not path.is_file():
        raise DataError(f"{path}: no such sample sheet; check the path")
    try:
        table = pd.read_csv(path, dtype=str, keep_default_na=False, encoding="utf-8-sig", skipinitialspace=True)
    except (pd.errors.ParserError, pd.errors.EmptyDataError, UnicodeDecodeError) as error:
        raise DataError(f"{path}: cannot be read as CSV ({str(error).strip()}); check the file") from None
    for column in table.columns:
        if column not in COLUMNS:
            raise DataError(f"{path}: unknown column {column!r}; {closest(column, COLUMNS)}")
    for column in NEEDED:
        if column not in table:
            raise DataError(f"{path}: no column {column!r}; add it (needed: {', '.join(NEEDED)})")
    if table.empty:
        raise DataError(f"{path}: no samples; add a row for each")
    samples, seen = [], {}
    for line, row in enumerate(table.reindex(columns=COLUMNS, fill_value="").to_dict("records"), 2):
        found = _sample(f"{path}: row {line}", path.parent, {key: value.strip() for key, value in row.items()})
        if found.name in {other.name for other in samples}:
            raise DataError(f"{path}: row {line}: sample {found.name!r} is there twice; join its files, or rename it")
        for file in found.fastq:
            if file in seen:
                raise DataError(
                    f"{path}: row {line}: {file}: is a file of sample {seen[file]!r} already; mend the path"
                )
            seen[file] = found.name
        samples.append(found)
    return samples


def sizes(samples: list[Sample]) -> dict[str, int]:
    """Group -> donors, or samples where not all have a donor; nothing where not all have a group."""
    if not all(sample.group for sample in samples):
        return {}
    names = {sample.group: set() for sample in samples}
    known = all(sample.donor for sample in samples)
    for sample in samples:
        names[sample.group].add(sample.donor if known else sample.name)
    return {group: len(members) for group, members in names.items()}


def _sample(where: str, folder: Path, row: dict[str, str]) -> Sample:
    name = row["sample"]
    if not re.fullmatch(NAME, name):
        raise DataError(f"{where}: sample {name!r}: becomes the name of files; use letters, digits, '.', '_' and '-'")
    strandedness = row["strandedness"] or "auto"
    if strandedness not in STRANDEDNESS:
        raise DataError(f"{where}: strandedness {strandedness!r}; {closest(strandedness, STRANDEDNESS)}")
    if not row["fastq_1"]:
        raise DataError(f"{where}: sample {name!r}: no fastq_1; give the file of its reads")
    files = [folder / row[column] for column in ("fastq_1", "fastq_2") if row[column]]
    for mate, file in enumerate(files, 1):
        if not file.is_file():
            raise DataError(f"{where}: fastq_{mate}: {file}: no such file; check the path")
        if file.stat().st_size == 0:
            raise DataError(f"{where}: fastq_{mate}: {file}: is empty; give the reads again, or drop the sample")
    found = Sample(name, tuple(str(file.resolve()) for file in files), strandedness, row["group"], row["donor"])
    first = [next(records(file), None) for file in files]
    for mate, (file, record) in enumerate(zip(files, first, strict=True), 1):
        if record is None:
            raise DataError(f"{where}: fastq_{mate}: {file}: holds no read; give the reads again, or drop the sample")
        if (said := _mate(record[0])) not in ("", str(mate)):
            raise DataError(
                f"{where}: fastq_{mate}: {file}: holds mates {said} (read {record[0].decode()!r}); put it in column fastq_{said}"
            )
    _same_fragment(found, [record[0] for record in first], 1)
    return found


def _mate(name: bytes) -> str:
    """Which mate a read's name says it is, in the old way (``name/1``), Illumina's (``name 1:N:0:...``) or the archive's; or empty."""
    found = re.search(rb"^\S+/([12])(?:\s|$)|^\S+ ([12]):[YN]:|^[SED]RR\d+\.\d+\.([12])(?:\s|$)", name)
    return next(filter(None, found.groups())).decode() if found else ""


def _fragment(name: bytes) -> bytes:
    """What mates share of their names; the archive's own have a third number where they were dumped with it (``SRR1.1.2``)."""
    first = name.split(None, 1)[0]
    return first[:-2] if re.search(rb"/[12]$|^[SED]RR\d+\.\d+\.[12]$", first) else first


def _same_fragment(sample: Sample, names: Iterable[bytes], number: int) -> None:
    one, *others = map(_fragment, names)
    for other in others:
        if other != one:
            raise DataError(
                f"{sample.fastq[1]}: read {number:,} is {other.decode()!r}, and {one.decode()!r} in {Path(sample.fastq[0]).name}; "
                "mates stand in the same order in both files: give the two files of one sample"
            )


def records(path: str | Path) -> Iterator[tuple[bytes, int]]:
    """Names (without ``@``) and lengths of the reads of a FASTQ file, gzipped or not.

    Raises
    ------
    DataError
        Naming the file and the read: a gzip that ends early or is none, a record that is not four lines, as many qualities as bases.
    """
    number = 0
    with open(path, "rb") as stream:
        packed = stream.read(2) == b"\x1f\x8b"
    if str(path).endswith(".gz") and not packed:
        raise DataError(f"{path}: is named .gz and is no gzip; give the file as it was delivered, or rename it")
    try:
        with gzip.open(path, "rb") if packed else open(path, "rb") as stream:
            while lines := list(itertools.islice(stream, 4)):
                number += 1
                # As all but the last lines of a good file are: no more is looked at then.
                good = (
                    len(lines) == 4 and lines[0][:1] == b"@" and lines[2][:1] == b"+" and len(lines[1]) == len(lines[3])
                )
                if not good and (wrong := _wrong(lines)):
                    raise DataError(
                        f"{path}: read {number:,}: {wrong}; the file is cut off or no FASTQ: fetch it again"
                    )
                yield lines[0][1:].rstrip(), len(lines[1].rstrip())
    except (EOFError, gzip.BadGzipFile, zlib.error):
        raise DataError(f"{path}: gzip breaks off after read {number:,}; fetch the file again") from None


def _wrong(lines: list[bytes]) -> str:
    if len(lines) < 4:
        return f"{len(lines)} of its four lines"
    if not lines[0].startswith(b"@") or not lines[2].startswith(b"+"):
        return "no @ before its name, or no + after its bases"
    bases, qualities = len(lines[1].rstrip()), len(lines[3].rstrip())
    return "" if bases == qualities else f"{bases} bases and {qualities} qualities"


def check(sample: Sample) -> Reads:
    """Read a sample's files to their ends.

    Raises
    ------
    DataError
        As `records`; if mates are not the same fragments in the same order, or one file has more of them.
    """
    n, bases, shortest, longest = 0, 0, 1 << 30, 0
    for mates in itertools.zip_longest(*(records(file) for file in sample.fastq)):
        if None in mates:
            short, long = (sample.fastq[i] for i in sorted(range(2), key=lambda i: mates[i] is not None))
            raise DataError(
                f"{short}: {n:,} reads, and more in {Path(long).name}; each read needs its mate: fetch both files again"
            )
        n += 1
        names, lengths = zip(*mates, strict=True)
        _same_fragment(sample, names, n)
        bases, shortest, longest = bases + sum(lengths), min(shortest, *lengths), max(longest, *lengths)
    return Reads(n, bases, shortest, longest)
