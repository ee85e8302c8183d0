"""Gene sets, sequences, sheets, files of GEO and reports of tools for `malformed_kinds`."""

import csv
import dataclasses
import gzip
import io
import random
import re
import zipfile
from collections.abc import Callable, Sequence
from pathlib import Path

from malformed import EITHER, REFUSED, SAME, Damage, written
from malformed_examples import ODD_NAMES, as_csv, bomb, epigen

from epigen_utils.data import geo
from epigen_utils.reads import references, sample_sheets, tool_reports

# Gene sets, sequences, reads


GMT = b"SET1\thttps://x\tA\tB\tC\nSET2\tna\tB\tD\n"


def gmt_oracle(data: bytes) -> object:
    try:
        text = data.decode()
    except UnicodeDecodeError:
        return REFUSED
    if re.search(r"[\x00-\x08\x0b-\x1f\x7f-\xa0]", text):
        return EITHER
    rows = [line.split("\t") for line in text.split("\n") if line.strip()]
    if not rows or any(len(row) < 3 for row in rows) or len({row[0].strip() for row in rows}) < len(rows):
        return REFUSED
    return {row[0].strip(): [gene.strip() for gene in row[2:] if gene.strip()] for row in rows}


def gmt_damages(path: Path, rng: random.Random) -> list[Damage]:
    return [
        Damage("separator", "commas", written(GMT.replace(b"\t", b",")), place="line 1"),
        Damage("separator", "blanks", written(GMT.replace(b"\t", b" ")), place="line 1"),
        Damage("names", "a set twice", written(GMT + b"SET1\tna\tE\n"), place="line 3.*SET1"),
        Damage("shape", "a set without genes", written(GMT + b"SET3\tna\n"), place="line 3"),
        Damage("lines", "an empty one between", written(GMT.replace(b"\n", b"\n\n", 1)), SAME),
        *(
            Damage("names", f"gene {name[:30]!r}", written(f"S\tna\t{name}\n".encode()), {"S": [name]})
            for name in ODD_NAMES
        ),
    ]


GTF = "".join(
    f'chr1\tx\texon\t{1 + 10 * i}\t{9 + 10 * i}\t.\t+\t.\tgene_id "G{i}"; gene_name "N{i}";\n' for i in range(6)
).encode()
FASTA = b">chr1 a description\n" + b"ACGTNACGTA\n" * 7 + b">chr2\nACGT\n"


def write_reference(folder: Path) -> Path:
    (folder / "genome.fa").write_bytes(FASTA)
    (folder / "genes.gtf").write_bytes(GTF)
    return folder / "genome.fa"


def check_fasta(path: Path) -> dict:
    return references.check_annotation(path, path.with_name("genes.gtf"))


def check_gtf(path: Path) -> list:
    return [references.check_annotation(path.with_name("genome.fa"), path), references.gene_names(path)]


def fasta_damages(path: Path, rng: random.Random) -> list[Damage]:
    return [
        Damage("names", "a sequence twice", written(FASTA + b">chr1\nAC\n"), place="sequence 3.*chr1"),
        Damage("names", "none", written(FASTA + b">\nAC\n"), place="sequence 3"),
        Damage("names", "of another genome", written(FASTA.replace(b"chr", b"")), place="chr1"),
        Damage("shape", "shorter than its genes", written(b">chr1\nACGT\n"), place="line 1"),
        Damage("shape", "no header", written(FASTA[20:])),
        Damage("content", "reads", written(b"@r1\nACGT\n+\nIIII\n")),
        Damage("packed", "by gzip under this name", written(gzip.compress(FASTA)), EITHER),
    ]


def gtf_damages(path: Path, rng: random.Random) -> list[Damage]:
    line = GTF.splitlines(keepends=True)[0]
    found = [
        Damage(
            "value",
            f"from {a} to {b}",
            written(GTF + line.replace(b"\t1\t9\t", f"\t{a}\t{b}\t".encode())),
            place="line 7",
        )
        for a, b in ((0, 5), (9, 5), (-4, 5), ("x", 5), (1, "."), ("\u0661", 5), (1, 10**30), ("1e3", 5))
    ]
    return [
        *found,
        Damage("shape", "eight columns", written(GTF + line.replace(b"\t.\t+\t", b"\t+\t")), place="line 7"),
        Damage("content", "GFF3", written(line.replace(b'gene_id "G0"; gene_name "N0";', b"ID=G0")), place="line 1"),
        Damage("content", "no exon", written(GTF.replace(b"exon", b"gene"))),
        Damage("names", "of another genome", written(GTF.replace(b"chr1", b"7")), place="7"),
    ]


READS = b"".join(b"@r%d\nACGTACGTAC\n+\nIIIIIIIIII\n" % i for i in range(8))


def write_reads(folder: Path, name: str) -> Path:
    (folder / name).write_bytes(gzip.compress(READS, mtime=0) if name.endswith(".gz") else READS)
    (folder / "sheet.csv").write_bytes(as_csv([["sample", "fastq_1"], ["a", name]]))
    return folder / name


def check_reads(path: Path) -> dict:
    (sample,) = sample_sheets.read_sheet(path.with_name("sheet.csv"))
    return dataclasses.asdict(sample_sheets.check_fastq(sample))


def reads_damages(path: Path, rng: random.Random) -> list[Damage]:
    pack = gzip.compress if path.suffix == ".gz" else bytes

    def reads(kind: str, what: str, content: bytes, expected: object = REFUSED) -> Damage:
        return Damage(kind, what, written(pack(content)), expected)

    found = [
        reads("shape", "qualities too short", READS.replace(b"IIIIIIIIII", b"III", 1)),
        reads("shape", "no plus", READS.replace(b"+\n", b"-\n", 1)),
        reads("shape", "three lines", READS[:30]),
        reads("content", "FASTA", FASTA),
        reads("lines", "an empty one between", READS.replace(b"\n@", b"\n\n@", 1), EITHER),
        reads("shape", "a read of no base", b"@a\n\n+\n\n", EITHER),
        reads("names", "none", READS.replace(b"@r0", b"@", 1), EITHER),
        reads("names", "HTML", READS.replace(b"@r0", b"@<script>", 1), SAME),
    ]
    if path.suffix == ".gz":
        # Reads are counted one by one: what unpacks to a line without end is the only bomb.
        found += [reads("bomb", "a line without end", b"")]
        found[-1] = Damage("bomb", "20 GB in a line", written(gzip.compress(b"@a\n") + bomb(b"", b"A")))
    return found


# Sheets


def write_sheet(folder: Path, name: str, content: bytes, files: Sequence[str]) -> Path:
    for file in files:
        (folder / file).write_bytes(gzip.compress(READS.replace(b"@r", f"@{file[:1]}".encode())))
    (folder / name).write_bytes(content)
    return folder / name


SHEET_ROWS = [
    ["sample", "fastq_1", "strandedness", "group", "donor"],
    *([f"s{i}", f"{i}.fastq.gz", "auto", "ab"[i % 2], f"d{i // 2}"] for i in range(4)),
]
SHEET_FILES = [f"{i}.fastq.gz" for i in range(4)]
SRA_ROWS = [
    ["Run", "Assay Type", "GEO_Accession (exp)", "LibraryLayout", "group"],
    *([f"{i}", "RNA-Seq", f"GSM{i}", "SINGLE", "ab"[i % 2]] for i in range(4)),
]
ENA_ROWS = [
    ["run_accession", "sample_alias", "library_layout", "library_strategy", "fastq_ftp", "fastq_md5", "group"],
    *([f"{i}", f"GSM{i}", "SINGLE", "RNA-Seq", f"x/{i}.fastq.gz", "0" * 32, "ab"[i % 2]] for i in range(4)),
]


def plan_reads(path: Path) -> list[dict]:
    """`epigen build --sheet`, as far as its plan."""
    epigen("build", "--sheet", path, "--genome", "mm10", "--plan")
    samples = [dataclasses.asdict(sample) for sample in sample_sheets.read_sheet(path)]
    return [sample | {"fastq": [Path(file).name for file in sample["fastq"]]} for sample in samples]


def sheet_damages(rows: list[list[str]], sep: str) -> Callable[[Path, random.Random], list[Damage]]:
    def special(path: Path, rng: random.Random) -> list[Damage]:
        def table(
            kind: str, what: str, changed: list[list], expected: object = REFUSED, place: str = "", **form
        ) -> Damage:
            return Damage(kind, what, written(as_csv(changed, **({"sep": sep} | form))), expected, place)

        name = rows[0].index("sample") if "sample" in rows[0] else 0
        found = [
            table("separator", "semicolons", rows, SAME, sep=";"),
            table("quotes", "all", rows, SAME, quoting=csv.QUOTE_ALL),
            table("shape", "a header alone", rows[:1]),
            table("shape", "a row too short", [*rows[:2], rows[2][:1], *rows[3:]], place="row 3"),
            table("shape", "a row too long", [*rows[:2], [*rows[2], "x"], *rows[3:]]),
            table("shape", "a row twice", [*rows, rows[1]], place="row 6"),
            table("lines", "empty rows", [*rows[:2], [""] * len(rows[0]), *rows[2:]], SAME),
        ]
        for odd in (*ODD_NAMES, "two\nlines", "", ".", "..", "-rf", "a b"):
            row = [odd if i == name else cell for i, cell in enumerate(rows[1])]
            found.append(table("names", f"sample {odd[:30]!r}", [rows[0], row, *rows[2:]]))
        if "fastq_1" in rows[0]:
            for file in (
                "nowhere.fq",
                "$(touch CANARY).fq",
                "/dev/zero",
                "/etc/passwd",
                ".",
                "sheet.csv",
                "https://x/y.fq",
            ):
                found.append(
                    table(
                        "names",
                        f"file {file}",
                        [rows[0], ["x", file, *rows[1][2:]], *rows[2:]],
                        place="row 2|passwd|sheet",
                    )
                )
        return found

    return special


# GEO


SERIES = (
    b'!Series_title\t"A series"\n!Series_supplementary_file\t"ftp://host/GSE1_raw_counts.csv.gz"\n'
    b'!Series_relation\t"BioProject: https://www.ncbi.nlm.nih.gov/bioproject/PRJNA1"\n\n'
    b'!Sample_title\t"brain, WT"\t"brain, KO"\n!Sample_geo_accession\t"GSM1"\t"GSM2"\n'
    b'!Sample_source_name_ch1\t"brain"\t"brain"\n!Sample_characteristics_ch1\t"genotype: WT"\t"genotype: KO"\n'
    b"!series_matrix_table_begin\n"
)


def read_series(path: Path) -> list:
    """All that is taken from a series."""
    table = geo.read_sample_table(path).astype(str)
    return [geo.counts_url(path), geo.run_table_url(path), list(table.index), table.to_dict("list")]


def series_damages(path: Path, rng: random.Random) -> list[Damage]:
    pack = gzip.compress if path.suffix == ".gz" else bytes

    def series(kind: str, what: str, old: bytes, new: bytes, expected: object = REFUSED) -> Damage:
        assert old in SERIES
        return Damage(kind, what, written(pack(SERIES.replace(old, new))), expected)

    found = [
        series("shape", "a title too few", b'\t"brain, KO"', b""),
        series("shape", "a title too many", b'\t"brain, KO"', b'\t"brain, KO"\t"x"'),
        series("shape", "an accession too few", b'\t"GSM2"', b""),
        series("shape", "no accessions", b"!Sample_geo_accession", b"!Sample_other", EITHER),
        series("shape", "no samples", b"!Sample_", b"!Other_", EITHER),
        series("shape", "a characteristic too many", b'\t"genotype: KO"', b'\t"genotype: KO"\t"age: 4"', SAME),
        series("shape", "no counts", b"raw_counts.csv.gz", b"RAW.tar"),
        series("shape", "no project", b"bioproject/PRJNA1", b"other"),
        series("quotes", "one that does not end", b'"brain, KO"', b'"brain, KO', EITHER),
        series("names", "a sample twice", b"GSM2", b"GSM1", EITHER),
    ]
    return (
        [*found, Damage("bomb", "20 GB in a line", written(bomb(b"!Series_title\t", b"x")), EITHER)]
        if path.suffix == ".gz"
        else found
    )


ANNOTATION = b"^Annotation\n!platform_table_begin\nID\tGene title\tGene symbol\n1_at\tone\tA\n2_at\ttwo\tB\n3_at\t\t\n!platform_table_end\n"


def read_annotation(path: Path) -> dict:
    return geo.read_probe_symbols(path).to_dict()


def annotation_damages(path: Path, rng: random.Random) -> list[Damage]:
    return [
        Damage("shape", "a column too many", written(ANNOTATION.replace(b"one\tA", b"one\tA\tx")), place="probe 1"),
        Damage("shape", "a column too few", written(ANNOTATION.replace(b"\tB", b"")), place="probe 2"),
        Damage("shape", "no table", written(ANNOTATION.replace(b"begin", b"start"))),
        Damage("shape", "nothing in the table", written(ANNOTATION[: ANNOTATION.index(b"ID")])),
        Damage("names", "no symbols", written(ANNOTATION.replace(b"symbol", b"name"))),
    ]


# Reports of the tools from reads to counts

STAR_LOG = b"""                          Number of input reads |\t2000
                   Uniquely mapped reads number |\t1500
        Number of reads mapped to multiple loci |\t100
        Number of reads mapped to too many loci |\t20
                      Mismatch rate per base, % |\t0.30%
"""
ASSIGNED = b"Status\ta.bam\nAssigned\t90\nUnassigned_NoFeatures\t7\nUnassigned_Unmapped\t3\n"
STATS = b"# samtools\nSN\treads mapped:\t1000\nSN\treads duplicated:\t50\n"
FASTQC = b"##FastQC\t0.12.1\n>>Basic Statistics\tpass\n#Measure\tValue\nTotal Sequences\t100\n>>END_MODULE\n"


def fastqc_archive() -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("a_fastqc/fastqc_data.txt", FASTQC)
    return buffer.getvalue()


def read_fastqc(path: Path) -> dict:
    return {
        name: [verdict, table.astype(str).to_numpy().tolist()]
        for name, (verdict, table) in tool_reports.parse_fastqc(path).items()
    }
