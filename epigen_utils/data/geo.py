"""Gene Expression Omnibus (GEO): count table, samples and sequencing runs of a series, probes of a platform.

GEO provides a series matrix for every series: a text file with ``!Series_...`` lines about the study and
``!Sample_...`` lines with one quoted value per sample.
"""

import csv
import re
import zlib
from pathlib import Path

import pandas as pd

from epigen_utils.errors import DataError, first_line
from epigen_utils.files import open_text

#: Words in the names of supplementary files of counts, in order of preference.
COUNT_WORDS = ("raw_count", "rawcount", "counts", "count")
#: The European Nucleotide Archive's (ENA) table of the runs of a project.
RUN_TABLE = (
    "https://www.ebi.ac.uk/ena/portal/api/filereport?accession={project}&result=read_run&fields=run_accession,"
    "sample_alias,experiment_alias,library_layout,library_strategy,fastq_ftp,fastq_md5&format=tsv"
)
TABLE_SUFFIXES = (".csv.gz", ".tsv.gz", ".txt.gz", ".csv", ".tsv", ".txt")


def _matrix_lines(path: Path, prefix: str) -> list[list[str]]:
    try:
        with open_text(path, encoding="utf-8", errors="replace", newline="") as stream:
            return [row for row in csv.reader(stream, delimiter="\t") if row and row[0].startswith(prefix)]
    except (OSError, EOFError, zlib.error, csv.Error) as error:
        raise DataError(
            f"{path}: cannot be read as a series matrix ({first_line(error)}); delete {path.parent} and fetch it again"
        ) from None


def counts_url(series_matrix: Path) -> str:
    """Address of the supplementary table of counts that a series matrix names.

    Raises
    ------
    DataError
        If it names none (the message lists the supplementary files), or cannot be read.
    """
    urls = [value for row in _matrix_lines(series_matrix, "!Series_supplementary_file") for value in row[1:] if value]
    tables = [url for url in urls if url.lower().endswith(TABLE_SUFFIXES)]
    for word in COUNT_WORDS:
        for url in tables:
            if word in url.rsplit("/", 1)[-1].lower():
                return url.replace("ftp://", "https://", 1)
    listed = ", ".join(url.rsplit("/", 1)[-1] for url in urls) or "none"
    raise DataError(
        f"{series_matrix}: no supplementary table of counts (files: {listed}); download it and give its path"
    )


def run_table_url(series_matrix: Path) -> str:
    """Address of ENA's table of the sequencing runs of a series, by the BioProject that its matrix names.

    Raises
    ------
    DataError
        If it names none, or cannot be read.
    """
    relations = " ".join(value for row in _matrix_lines(series_matrix, "!Series_relation") for value in row[1:])
    if not (project := re.search(r"/bioproject/(PRJ\w+)", relations)):
        raise DataError(f"{series_matrix}: names no BioProject, so its reads are not known; give a table of its runs")
    return RUN_TABLE.format(project=project[1])


def read_sample_table(series_matrix: Path) -> pd.DataFrame:
    """What a series matrix says of each sample: ``title``, ``source``, and a column for each of its characteristics.

    Returns
    -------
    Samples by accession; characteristics are named in lower case (one called title or source with ``(stated)`` behind
    it), missing where a sample has none.

    Raises
    ------
    DataError
        If the file cannot be read, or lacks a value of a sample.
    """
    lines = _matrix_lines(series_matrix, "!Sample_")
    rows = {row[0].removeprefix("!Sample_"): row[1:] for row in lines if row[0] != "!Sample_characteristics_ch1"}
    titles = rows.get("title", [])
    named = {"title": titles, "source": rows.get("source_name_ch1", titles)}
    accessions = rows.get("geo_accession", range(len(titles)))
    for name, values in named.items():
        if len(values) != len(accessions):
            raise DataError(
                f"{series_matrix}: {len(values)} values of {name}, and {len(accessions)} samples; "
                f"delete {series_matrix.parent} and fetch it again"
            )
    table = pd.DataFrame(named, index=accessions)
    for row in lines:
        if row[0] == "!Sample_characteristics_ch1":
            for accession, entry in zip(table.index, row[1:], strict=False):
                key, colon, content = entry.partition(":")
                name = key.strip().lower()
                if colon:
                    table.loc[accession, f"{name} (stated)" if name in ("title", "source") else name] = content.strip()
    return table


def read_probe_symbols(annotation: Path) -> pd.Series:
    """Probe -> gene symbol, from the annotation of a platform (``GPLnnn.annot``).

    Probes of no gene or of several genes are left out.

    Raises
    ------
    DataError
        If the file cannot be read, has no platform table, or the table has no column of symbols.
    """
    try:
        with open_text(annotation, encoding="utf-8", errors="replace", newline="") as stream:
            lines = iter(stream)
            if not any(line.startswith("!platform_table_begin") for line in lines):
                raise DataError(f"{annotation}: no !platform_table_begin line; is it a platform's annotation?")
            rows = [line.rstrip("\r\n").split("\t") for line in lines if not line.startswith("!platform_table_end")]
    except (OSError, EOFError, zlib.error) as error:
        raise DataError(f"{annotation}: cannot be read ({first_line(error)}); fetch it again") from None
    header = rows[0] if rows else []
    for number, row in enumerate(rows[1:], 1):
        if len(row) != len(header):
            raise DataError(
                f"{annotation}: probe {number:,}: {len(row)} columns, and {len(header)} names of them; fetch it again"
            )
    table = pd.DataFrame(rows[1:], columns=header)
    if not {"ID", "Gene symbol"} <= set(table):
        raise DataError(f"{annotation}: no columns ID and Gene symbol (columns: {', '.join(map(str, table))})")
    symbols = table.set_index("ID")["Gene symbol"].str.strip()
    return symbols[(symbols != "") & ~symbols.str.contains("///", regex=False)]
