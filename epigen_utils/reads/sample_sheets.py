"""The sample sheet of the pipeline from reads to counts, and its FASTQ files: their format and its validation.

A CSV file with a row a sample, modelled on nf-core's: ``sample``, ``fastq_1``; ``fastq_2`` for paired reads;
``strandedness``; ``group`` and ``donor`` for later analyses. Paths are absolute, or relative to the sheet.
A table of sequencing runs, as NCBI's SRA Run Selector (CSV) or ENA's file report (TSV) gives it, is a sheet too: the
FASTQ files lie beside it, named by run (``SRR1_1.fastq.gz``), or by sample where a sample has several runs.
"""

import itertools
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import dnaio

from epigen_utils.data import sequence_files
from epigen_utils.errors import DataError, suggest

if TYPE_CHECKING:
    import pandas as pd

SHEET_COLUMNS = ("sample", "fastq_1", "fastq_2", "strandedness", "group", "donor")
REQUIRED_COLUMNS = SHEET_COLUMNS[:2]
#: Strand of the first read; ``auto``: determined from the reads (`tool_reports.detect_strandedness`).
STRANDEDNESS = ("auto", "unstranded", "forward", "reverse")
#: What tables of runs call a run, its sample, layout and kind of library, and its files: SRA's Run Selector, ENA.
RUN_COLUMNS = {
    "Run": {
        "sample": ("GEO_Accession (exp)", "Sample Name", "BioSample"),
        "layout": "LibraryLayout",
        "strategy": "Assay Type",
    },
    "run_accession": {
        "sample": ("sample_alias", "experiment_alias", "sample_accession"),
        "layout": "library_layout",
        "strategy": "library_strategy",
    },
}
#: Pattern of sample names, which become file names.
NAME_PATTERN = r"[A-Za-z0-9][A-Za-z0-9._-]{0,199}"


@dataclass(frozen=True)
class Sample:
    """One row of the sheet; one or two FASTQ files, as absolute paths."""

    name: str
    fastq: tuple[str, ...]
    strandedness: str = "auto"
    group: str = ""
    donor: str = ""

    @property
    def paired(self) -> bool:
        return len(self.fastq) == 2

    @property
    def mates(self) -> range:
        """Numbers of the mates, from 1."""
        return range(1, len(self.fastq) + 1)


@dataclass(frozen=True)
class ReadSummary:
    """Summary of a sample's files: reads (a pair counts once), bases of all mates, shortest and longest read."""

    reads: int
    bases: int
    shortest: int
    longest: int


def read_sheet(path: str | Path) -> list[Sample]:
    """Read a sheet or a table of runs, and the first record of every file that it names.

    Raises
    ------
    DataError
        Naming the sheet and the row: an unknown or missing column, a name that is not a file name, a duplicate sample,
        or a file that is missing, empty, named twice, not FASTQ, of the other mate, or of other fragments than its
        mate.
    """
    path = Path(path)
    table = _read_table(path)
    if RUN_COLUMNS.keys() & set(table):
        table = from_run_table(path)[0]
    if "" in table:
        names = f"{table.shape[1] - 1} names of columns, and {table.shape[1]} values in a row"
        raise DataError(f"{path}: {names}; name each column")
    for column in table.columns:
        if column not in SHEET_COLUMNS:
            raise DataError(f"{path}: unknown column {column!r}; {suggest(column, SHEET_COLUMNS)}")
    for column in REQUIRED_COLUMNS:
        if column not in table:
            raise DataError(f"{path}: no column {column!r}; add it (needed: {', '.join(REQUIRED_COLUMNS)})")
    if table.empty:
        raise DataError(f"{path}: no samples; add a row for each")
    samples, owners = [], {}
    for line, row in table.reindex(columns=SHEET_COLUMNS, fill_value="").to_dict("index").items():
        sample = _parse_row(f"{path}: row {line}", path.parent, row)
        if sample.name in {other.name for other in samples}:
            raise DataError(f"{path}: row {line}: sample {sample.name!r} is there twice; join its files, or rename it")
        for file in sample.fastq:
            if file in owners:
                raise DataError(
                    f"{path}: row {line}: {file}: is a file of sample {owners[file]!r} already; correct the path"
                )
            owners[file] = sample.name
        samples.append(sample)
    return samples


def _read_table(path: Path) -> "pd.DataFrame":
    """The words of a sheet, with its lines in the file as index."""
    from epigen_utils.data import sample_table  # here, since the jobs of a pipeline read no sheet

    if not path.is_file():
        raise DataError(f"{path}: no such sample sheet; check the path")
    return sample_table.read_words(path)[0].fillna("")


def from_run_table(path: str | Path) -> "tuple[pd.DataFrame, dict[str, list[tuple[str, str]]]]":
    """Turn a table of sequencing runs into a sheet.

    The samples are GEO's accessions (``GSM``) where the table has them; the user's own columns ``group`` and ``donor``
    are kept.

    Parameters
    ----------
    path
        As NCBI's SRA Run Selector writes it, CSV, or ENA's file report, TSV; `RUN_COLUMNS` are the columns that count.

    Returns
    -------
    The sheet, with the row of each sample's first run as index, and, file of it -> address and MD5 of each run's file
    that it is made of, as ENA gives them; none if the table lacks one.

    Raises
    ------
    DataError
        Naming the file and the row: a column is missing, a run is no RNA-seq, is there twice or has other files than
        its layout says, or the runs of a sample differ in their layout.
    """
    import pandas as pd  # here, as above

    path = Path(path)
    table = _read_table(path)
    key = next((key for key in RUN_COLUMNS if key in table), None)
    if key is None:
        raise DataError(f"{path}: no column {' or '.join(RUN_COLUMNS)}; give SRA's or ENA's table of runs")
    names = RUN_COLUMNS[key]
    if names["layout"] not in table:
        raise DataError(f"{path}: no column {names['layout']!r}; add it")
    if table.empty:
        raise DataError(f"{path}: no runs; add a row for each")
    runs_of, lines = {}, {}
    for line, row in table.to_dict("index").items():
        where, run = f"{path}: row {line}", row[key]
        known = [row[column] for column in names["sample"] if row.get(column)]
        sample = next((gsm[0] for name in known if (gsm := re.match(r"GSM\d+", name))), (known or [run])[0])
        for name in (run, sample):
            _check_name(where, name)
        if (kind := row.get(names["strategy"], "")) and kind.lower() != "rna-seq":
            raise DataError(f"{where}: run {run} is {kind}, not RNA-Seq; leave the row out")
        mates = {"PAIRED": ("_1", "_2"), "SINGLE": ("",)}.get(row[names["layout"]].upper())
        if mates is None:
            raise DataError(f"{where}: {names['layout']} {row[names['layout']]!r}; write PAIRED or SINGLE")
        if any(run == other for runs in runs_of.values() for other, *_ in runs):
            raise DataError(f"{where}: run {run} is there twice; leave one out")
        if (before := runs_of.setdefault(sample, [])) and before[0][1] != mates:
            raise DataError(f"{where}: runs of sample {sample} are paired and single; leave one kind out")
        labels = {column: row[column] for column in ("group", "donor") if column in row}
        before.append((run, mates, _published_files(where, run, mates, row), labels))
        lines.setdefault(sample, line)
    rows, parts = [], {}
    for sample, runs in runs_of.items():
        stem = runs[0][0] if len(runs) == 1 else sample
        files = [f"{stem}{mate}.fastq.gz" for mate in runs[0][1]]
        for mate, file in enumerate(files):
            parts[file] = [published[mate] for _, _, published, _ in runs] if all(run[2] for run in runs) else []
        rows.append({"sample": sample} | dict(zip(("fastq_1", "fastq_2"), files, strict=False)) | runs[0][3])
    return pd.DataFrame(rows, lines.values()).fillna(""), parts


def _published_files(where: str, run: str, mates: Sequence[str], row: dict[str, str]) -> list[tuple[str, str]]:
    """Address and MD5 of the file of each mate, in ENA's table; none in SRA's."""
    urls, sums = (row.get(column, "").split(";") for column in ("fastq_ftp", "fastq_md5"))
    by_name = {url.rpartition("/")[2]: (f"https://{url}", md5) for url, md5 in zip(urls, sums, strict=False) if url}
    # Beside the mates of a paired run there may be a third file, of reads that have lost theirs.
    files = [by_name.get(f"{run}{mate}.fastq.gz") for mate in mates]
    if by_name and None in files:
        raise DataError(
            f"{where}: run {run} should have {len(mates)} files, and ENA has {', '.join(by_name)}; correct its layout, "
            "or leave the row out"
        )
    return files if by_name else []


def group_sizes(samples: list[Sample]) -> dict[str, int]:
    """Group -> number of donors, or of samples unless all have a donor; empty unless all have a group."""
    if not all(sample.group for sample in samples):
        return {}
    units = {sample.group: set() for sample in samples}
    have_donors = all(sample.donor for sample in samples)
    for sample in samples:
        units[sample.group].add(sample.donor if have_donors else sample.name)
    return {group: len(members) for group, members in units.items()}


def _check_name(where: str, name: str) -> None:
    if not re.fullmatch(NAME_PATTERN, name):
        characters = "use letters, digits, '.', '_' and '-', 200 at most"
        raise DataError(f"{where}: sample {name!r}: becomes the name of files; {characters}")


def _parse_row(where: str, folder: Path, row: dict[str, str]) -> Sample:
    name = row["sample"]
    _check_name(where, name)
    strandedness = row["strandedness"] or "auto"
    if strandedness not in STRANDEDNESS:
        raise DataError(f"{where}: strandedness {strandedness!r}; {suggest(strandedness, STRANDEDNESS)}")
    if not row["fastq_1"]:
        raise DataError(f"{where}: sample {name!r}: no fastq_1; give the file of its reads")
    files = [folder / row[column] for column in ("fastq_1", "fastq_2") if row[column]]
    for mate, file in enumerate(files, 1):
        if not file.is_file():
            raise DataError(f"{where}: fastq_{mate}: {file}: no such file; check the path")
        if file.stat().st_size == 0:
            raise DataError(f"{where}: fastq_{mate}: {file}: is empty; give the reads again, or drop the sample")
    sample = Sample(name, tuple(str(file.resolve()) for file in files), strandedness, row["group"], row["donor"])
    first_records = [next(sequence_files.read_fastq(file), None) for file in files]
    for mate, (file, record) in enumerate(zip(files, first_records, strict=True), 1):
        if record is None:
            raise DataError(f"{where}: fastq_{mate}: {file}: holds no read; give the reads again, or drop the sample")
        if (stated := _mate_number(record.name)) not in ("", str(mate)):
            raise DataError(
                f"{where}: fastq_{mate}: {file}: holds mates {stated} (read {record.name!r}); "
                f"put it in column fastq_{stated}"
            )
    _check_mates(sample, first_records, 1)
    return sample


def _mate_number(name: str) -> str:
    """Mate number in a read's name: old (``name/1``), Illumina's (``name 1:N:0:...``) or the archive's; or empty."""
    match = re.search(r"^\S+/([12])(?:\s|$)|^\S+ ([12]):[YN]:|^[SED]RR\d+\.\d+\.([12])(?:\s|$)", name)
    return next(filter(None, match.groups())) if match else ""


def _fragment(read: str) -> str:
    """Part of a read's id that mates share; the archive's ids may end in a third number (``SRR1.1.2``)."""
    return read[:-2] if re.search(r"/[12]$|^[SED]RR\d+\.\d+\.[12]$", read) else read


def _check_mates(sample: Sample, mates: Sequence[dnaio.SequenceRecord], number: int) -> None:
    # dnaio's own test ignores a last digit 1 to 3, so that SRR1.1 and SRR1.2, two fragments, would pass.
    if sample.paired and _fragment(mates[0].id) != _fragment(mates[1].id):
        first, second = mates
        raise DataError(
            f"{sample.fastq[1]}: read {number:,} is {second.id!r}, and {first.id!r} in {Path(sample.fastq[0]).name}; "
            "mates stand in the same order in both files: give the two files of one sample"
        )


def check_fastq(sample: Sample) -> ReadSummary:
    """Read a sample's files completely.

    Raises
    ------
    DataError
        If a file is not valid FASTQ, or the two files do not hold the mates of the same fragments in the same order.
    """
    n, bases, shortest, longest = 0, 0, 1 << 30, 0
    for mates in itertools.zip_longest(*map(sequence_files.read_fastq, sample.fastq)):
        if any(read is None for read in mates):
            shorter, longer = sample.fastq if mates[0] is None else reversed(sample.fastq)
            raise DataError(
                f"{shorter}: {n:,} reads, and more in {Path(longer).name}; each read needs its mate: "
                "fetch both files again"
            )
        n += 1
        _check_mates(sample, mates, n)
        lengths = [len(read) for read in mates]
        bases, shortest, longest = bases + sum(lengths), min(shortest, *lengths), max(longest, *lengths)
    return ReadSummary(n, bases, shortest, longest)
