"""Command lines of the tools from reads to counts, with file names relative to their working folder.

Paths with spaces, which STAR does not accept, never reach a tool, and recorded command lines contain no local path.
"""

import math
import re
import shutil
import subprocess
from functools import cache

#: Minimum length of a read after trimming, in bases.
MIN_LENGTH = 30
#: Start of Illumina's adapters, the same for both mates. The default, since fastp's own search may take the start of an
#: abundant transcript for an adapter.
ADAPTER = "AGATCGGAAGAGC"
#: Bases on each side of a splice junction in STAR's index; the value that its manual gives for reads of any length.
SPLICE_OVERHANG = 100
#: Tools of the pipeline, and the command that prints the version of each.
VERSION_COMMANDS = {
    "fastqc": ["fastqc", "--version"],
    "fastp": ["fastp", "--version"],
    "STAR": ["STAR", "--version"],
    "pbrun": ["pbrun", "version"],
    "samtools": ["samtools", "--version"],
    "featureCounts": ["featureCounts", "-v"],
    "multiqc": ["multiqc", "--version"],
}
#: featureCounts' code for each strandedness.
STRAND_CODES = {"unstranded": 0, "forward": 1, "reverse": 2}


@cache
def tool_version(tool: str) -> str:
    """The version of an installed tool; empty if it is not installed."""
    if not shutil.which(tool):
        return ""
    process = subprocess.run(VERSION_COMMANDS[tool], capture_output=True, text=True, errors="replace", check=False)
    match = re.search(r"\d+\.\d+[\w.]*", process.stdout + process.stderr)
    return match[0] if match else ""


def fastqc(files: list[str], threads: int) -> list[str]:
    """Quality of raw reads: ``<file>_fastqc.zip`` and ``.html``."""
    return ["fastqc", "--quiet", "--threads", str(threads), "--outdir", ".", *files]


def fastp(files: list[str], trimmed: list[str], name: str, threads: int, adapter: str = ADAPTER) -> list[str]:
    """Removal of adapters and low-quality reads; adapters of paired reads also by the overlap of mates.

    Parameters
    ----------
    adapter
        Start of the adapter sequence; ``auto``: fastp infers it from the reads.
    """
    paired = len(files) == 2
    command = ["fastp", "--in1", files[0], "--out1", trimmed[0]]
    command += ["--in2", files[1], "--out2", trimmed[1]] if paired else []
    if adapter == "auto":
        command += ["--detect_adapter_for_pe"] if paired else []
    else:
        command += ["--adapter_sequence", adapter]
        command += ["--adapter_sequence_r2", adapter] if paired else []
    command += ["--length_required", str(MIN_LENGTH), "--thread", str(threads)]
    return [*command, "--json", "fastp.json", "--html", "fastp.html", "--report_title", name]


def star_index(bases: int, sequences: int, threads: int, memory: int) -> list[str]:
    """STAR's index of ``genome.fa`` and ``annotation.gtf``, scaled to the genome as STAR's manual recommends.

    Parameters
    ----------
    bases, sequences
        Number of bases and of sequences of the genome.
    memory
        Maximum memory, in bytes.
    """
    nbases = min(14, int(math.log2(bases) / 2 - 1))
    bits = min(18, int(math.log2(max(bases / sequences, SPLICE_OVERHANG))))
    command = ["STAR", "--runMode", "genomeGenerate", "--runThreadN", str(threads), "--genomeDir", "index"]
    command += ["--genomeFastaFiles", "genome.fa", "--sjdbGTFfile", "annotation.gtf"]
    command += ["--sjdbOverhang", str(SPLICE_OVERHANG)]
    command += ["--genomeSAindexNbases", str(nbases), "--genomeChrBinNbits", str(bits)]
    return [*command, "--limitGenomeGenerateRAM", str(memory)]


def star_align(files: list[str], name: str, threads: int) -> list[str]:
    """Two-pass alignment: ``Aligned.out.bam``, ``Log.final.out``, ``SJ.out.tab``."""
    command = ["STAR", "--runThreadN", str(threads), "--genomeDir", "index", "--readFilesIn", *files]
    command += ["--readFilesCommand", "gunzip", "-c", "--twopassMode", "Basic", "--outFileNamePrefix", "./"]
    command += ["--outSAMtype", "BAM", "Unsorted", "--outSAMunmapped", "Within", "--outSAMattributes", "NH", "HI", "AS"]
    return [*command, "nM", "NM", "--outSAMattrRGline", f"ID:{name}", f"SM:{name}"]


def parabricks_align(files: list[str], name: str, threads: int) -> list[str]:
    """The same alignment by NVIDIA Parabricks on a GPU, sorted and with duplicates marked: ``sorted.bam``.

    Options are those of the documentation of ``rna_fq2bam`` (version 4); it reads STAR's index.
    """
    group = f"@RG\\tID:{name}\\tLB:{name}\\tPL:ILLUMINA\\tSM:{name}\\tPU:{name}"
    command = ["pbrun", "rna_fq2bam", "--in-fq" if len(files) == 2 else "--in-se-fq", *files, group]
    command += ["--ref", "genome.fa", "--genome-lib-dir", "index", "--output-dir", ".", "--out-bam", "sorted.bam"]
    return [*command, "--read-files-command", "zcat", "--two-pass-mode", "Basic", "--num-threads", str(threads)]


def sort_and_mark(threads: int, memory: int) -> list[list[str]]:
    """``Aligned.out.bam`` sorted by coordinate, duplicates marked and counted: ``sorted.bam``, ``markdup.txt``.

    Parameters
    ----------
    memory
        Maximum memory of all threads, in bytes; sorting uses half of it, at most 768 MB per thread.
    """
    extra_threads = ["-@", str(max(threads - 1, 0))]
    megabytes = max(min(768, memory // 2_000_000 // threads), 16)
    return [
        ["samtools", "fixmate", *extra_threads, "-m", "Aligned.out.bam", "mated.bam"],
        ["samtools", "sort", *extra_threads, "-m", f"{megabytes}M", "-o", "placed.bam", "mated.bam"],
        ["samtools", "markdup", *extra_threads, "-s", "-f", "markdup.txt", "placed.bam", "sorted.bam"],
    ]


def index_and_stats() -> list[list[str]]:
    """``sorted.bam.csi`` (BAI is limited to 512 million bases), and ``samtools stats`` on standard output."""
    return [["samtools", "index", "-c", "sorted.bam"], ["samtools", "stats", "sorted.bam"]]


def feature_counts(bam: str, strandedness: str, paired: bool, threads: int) -> list[str]:
    """Uniquely mapped fragments in the exons of exactly one gene, counted by gene to ``<strandedness>.txt``."""
    command = ["featureCounts", "-T", str(threads), "-s", str(STRAND_CODES[strandedness])]
    command += ["-t", "exon", "-g", "gene_id"]
    command += ["-p", "--countReadPairs", "-C"] if paired else []
    return [*command, "-a", "annotation.gtf", "-o", f"{strandedness}.txt", bam]


def multiqc() -> list[str]:
    """One report over the output of all tools: ``multiqc_report.html``, ``multiqc_report_data/``."""
    return ["multiqc", "--quiet", "--force", "--no-ansi", "--filename", "multiqc_report.html", "."]
