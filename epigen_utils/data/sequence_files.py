"""Records of FASTA and FASTQ files, gzipped or not, read by dnaio; its errors are raised as `DataError`."""

from collections.abc import Iterator
from pathlib import Path

import dnaio

from epigen_utils.errors import DataError, first_line
from epigen_utils.files import first_lines, is_gzipped

#: Characters of a record of FASTQ at most; nanopores read a few million bases.
LONGEST_READ = 100_000_000


def read_fastq(path: str | Path) -> Iterator[dnaio.SequenceRecord]:
    """Iterate over the reads of a FASTQ file: ``name`` (the header without ``@``), ``id`` (its first word), length.

    Raises
    ------
    DataError
        Naming the file and the read: a defective record, or a packed file that is damaged or cut off.
    """
    return _read_records(path, "fastq", "read")


def read_fasta(path: str | Path) -> Iterator[tuple[str, str]]:
    """Iterate over a FASTA file: name (first word of the header) and sequence of each record.

    Raises
    ------
    DataError
        Naming the file and the sequence: not FASTA, a packed file that is damaged or cut off, a missing or repeated
        name, or no sequence at all.
    """
    names, n_bases = set(), 0
    for number, record in enumerate(_read_records(path, "fasta", "sequence"), 1):
        name = next(iter(record.name.split()), "")
        if not name or name in names:
            defect = f"{name!r} is there twice" if name else "no name"
            raise DataError(f"{path}: sequence {number:,}: {defect}; correct its header")
        names.add(name)
        n_bases += len(record)
        yield name, record.sequence
    if not n_bases:
        raise DataError(f"{path}: holds no sequence; give a FASTA file")


def _read_records(path: str | Path, kind: str, noun: str) -> Iterator[dnaio.SequenceRecord]:
    if not Path(path).is_file():
        raise DataError(f"{path}: no such file; check the path")
    if str(path).endswith(".gz") and not is_gzipped(path):
        raise DataError(f"{path}: is named .gz and is no gzip; give the file as it was delivered, or rename it")
    number = 0
    try:
        if kind == "fastq":  # a chromosome may be one line, a read may not
            first_lines(path, 4, LONGEST_READ, encoding="latin-1")
        with dnaio.open(path, fileformat=kind) as reader:
            for record in reader:
                number += 1
                yield record
    except DataError:
        raise
    except dnaio.FileFormatError as error:
        defect = " ".join(str(error).split()).rstrip(".")
        raise DataError(f"{path}: {noun} {number + 1:,}: {defect}; give a whole {kind.upper()} file") from None
    # dnaio unpacks by one of several libraries, and each has errors of its own.
    except Exception as error:  # noqa: BLE001
        reason = first_line(error)
        raise DataError(f"{path}: cannot be read after {noun} {number:,} ({reason}); fetch it again") from None
