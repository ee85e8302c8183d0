"""Command lines of the tools from reads to counts, with names relative to the folder that they run in.

So a path with spaces, which STAR cannot take, never reaches a tool, and a recorded command line holds no path of anyone's machine.
"""

import math
import re
import shutil
import subprocess
from functools import cache

#: Reads that are shorter after trimming are left out, in bases.
SHORTEST = 30
#: What Illumina's adapters begin with, both mates' alike. fastp's own search among the reads takes what many reads begin with for an
#: adapter, also the start of an abundant transcript.
ADAPTER = "AGATCGGAAGAGC"
#: Bases on each side of a splice junction that STAR's index holds; its manual's value for reads of any length.
OVERHANG = 100
#: Which tools the pipeline calls, and how each says its version.
VERSIONS = {
    "fastqc": ["fastqc", "--version"],
    "fastp": ["fastp", "--version"],
    "STAR": ["STAR", "--version"],
    "pbrun": ["pbrun", "version"],
    "samtools": ["samtools", "--version"],
    "featureCounts": ["featureCounts", "-v"],
    "multiqc": ["multiqc", "--version"],
}
#: featureCounts's number for each strandedness.
STRANDS = {"unstranded": 0, "forward": 1, "reverse": 2}


@cache
def version(tool: str) -> str:
    """The version that a tool states; empty where it is not installed."""
    if not shutil.which(tool):
        return ""
    done = subprocess.run(VERSIONS[tool], capture_output=True, text=True, errors="replace", check=False)
    found = re.search(r"\d+\.\d+[\w.]*", done.stdout + done.stderr)
    return found[0] if found else ""


def fastqc(files: list[str], threads: int) -> list[str]:
    """Quality of raw reads: ``<file>_fastqc.zip`` and ``.html``."""
    return ["fastqc", "--quiet", "--threads", str(threads), "--outdir", ".", *files]


def fastp(files: list[str], trimmed: list[str], name: str, threads: int, adapter: str = ADAPTER) -> list[str]:
    """Adapters and bad reads off; of paired reads also by the overlap of mates.

    Parameters
    ----------
    adapter
        What adapters begin with; ``auto``: fastp looks for it among the reads.
    """
    command = ["fastp", "--in1", files[0], "--out1", trimmed[0]]
    known = [] if adapter == "auto" else ["--adapter_sequence", adapter]
    if len(files) == 2:
        command += ["--in2", files[1], "--out2", trimmed[1]]
        known = ["--detect_adapter_for_pe"] if adapter == "auto" else [*known, "--adapter_sequence_r2", adapter]
    command += known
    command += ["--length_required", str(SHORTEST), "--thread", str(threads)]
    return [*command, "--json", "fastp.json", "--html", "fastp.html", "--report_title", name]


def star_index(bases: int, sequences: int, threads: int, memory: int) -> list[str]:
    """STAR's index of ``genome.fa`` and ``annotation.gtf``, scaled to the genome as STAR's manual asks.

    Parameters
    ----------
    bases, sequences
        Of the genome, and how many sequences it has.
    memory
        Bytes that STAR may take.
    """
    nbases = min(14, int(math.log2(bases) / 2 - 1))
    bits = min(18, int(math.log2(max(bases / sequences, OVERHANG))))
    command = ["STAR", "--runMode", "genomeGenerate", "--runThreadN", str(threads), "--genomeDir", "index"]
    command += ["--genomeFastaFiles", "genome.fa", "--sjdbGTFfile", "annotation.gtf", "--sjdbOverhang", str(OVERHANG)]
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

    Options as its documentation of ``rna_fq2bam`` has them (version 4); it reads the index that STAR has made.
    """
    group = f"@RG\\tID:{name}\\tLB:{name}\\tPL:ILLUMINA\\tSM:{name}\\tPU:{name}"
    command = ["pbrun", "rna_fq2bam", "--in-fq" if len(files) == 2 else "--in-se-fq", *files, group]
    command += ["--ref", "genome.fa", "--genome-lib-dir", "index", "--output-dir", ".", "--out-bam", "sorted.bam"]
    return [*command, "--read-files-command", "zcat", "--two-pass-mode", "Basic", "--num-threads", str(threads)]


def sort_and_mark(threads: int, memory: int) -> list[list[str]]:
    """``Aligned.out.bam`` sorted by place, its duplicates marked and counted: ``sorted.bam``, ``markdup.txt``.

    Parameters
    ----------
    memory
        Bytes that all threads may take; sorting takes half of them, 768 MB a thread at most.
    """
    more = ["-@", str(max(threads - 1, 0))]
    each = max(min(768, memory // 2_000_000 // threads), 16)
    return [
        ["samtools", "fixmate", *more, "-m", "Aligned.out.bam", "mated.bam"],
        ["samtools", "sort", *more, "-m", f"{each}M", "-o", "placed.bam", "mated.bam"],
        ["samtools", "markdup", *more, "-s", "-f", "markdup.txt", "placed.bam", "sorted.bam"],
    ]


def index_and_stats() -> list[list[str]]:
    """``sorted.bam.csi``, since BAI ends at 512 million bases, and ``samtools stats`` on standard output."""
    return [["samtools", "index", "-c", "sorted.bam"], ["samtools", "stats", "sorted.bam"]]


def feature_counts(bam: str, strandedness: str, paired: bool, threads: int) -> list[str]:
    """Fragments by gene, to ``<strandedness>.txt``: those that lie in exons of one gene, and in one place."""
    command = ["featureCounts", "-T", str(threads), "-s", str(STRANDS[strandedness]), "-t", "exon", "-g", "gene_id"]
    command += ["-p", "--countReadPairs", "-C"] if paired else []
    return [*command, "-a", "annotation.gtf", "-o", f"{strandedness}.txt", bam]


def multiqc() -> list[str]:
    """One report over everything that the tools left: ``multiqc_report.html``, ``multiqc_report_data/``."""
    return ["multiqc", "--quiet", "--force", "--no-ansi", "--filename", "multiqc_report.html", "."]
