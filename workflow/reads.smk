# From a sample sheet to counts, a job for each sample and step. The Snakefile includes these rules for each run that has a
# sheet; alone, they are started with --config pipeline=<the file that epigen_utils.reads.Pipeline.save writes>.
#
# A rule's parameters name what it depends on beside its files, and no more: a sample that is added, or a group that is mended,
# leaves the others' jobs done.
import sys

from epigen_utils import reads

if "PIPELINES" not in globals():
    PIPELINES = {"": reads.Pipeline.read(config["pipeline"])}

    rule all:
        input:
            PIPELINES[""].results,


READS_STEP = "{params.python:q} -m epigen_utils.read_steps {params.pipeline:q} "

for prefix, made in PIPELINES.items():
    READS_NAMES = "|".join(made.by_name).replace(".", r"\.")
    READS_JOB = {"pipeline": str(made.save()), "python": sys.executable}
    READS_TOOLS = READS_JOB | {"code": reads.code("tools")}
    READS_MATES = lambda wildcards, made=made: made.by_name[wildcards.sample].fastq
    READS_TRIMMED = lambda wildcards, made=made: made.trimmed(wildcards.sample)
    READS_INDEX = [made.file("reference", "genome.fa"), made.file("reference", "annotation.gtf")]
    READS_INDEX += [] if made.index else [made.star_index / "SA"]
    READS_MEMORY = made.needs.memory // 1_000_000

    rule:
        name: f"{prefix}checked"
        input: READS_MATES
        output: made.file("checked", "{sample}.json")
        params: **READS_JOB, code=reads.code("checked")
        wildcard_constraints: sample=READS_NAMES
        shell: READS_STEP + "checked {wildcards.sample} {threads}"

    for library in ("single", "paired"):
        READS_OF = [sample.name for sample in made.samples if sample.paired == (library == "paired")]
        if not READS_OF:
            continue
        READS_FILES = range(1, 2 + (library == "paired"))

        rule:
            name: f"{prefix}fastqc_{library}"
            input: made.file("checked", "{sample}.json"), READS_MATES
            output: [made.file("fastqc", f"{{sample}}_{mate}_fastqc.zip") for mate in READS_FILES]
            params: **READS_TOOLS
            wildcard_constraints: sample="|".join(READS_OF).replace(".", r"\.")
            threads: 2
            shell: READS_STEP + "quality {wildcards.sample} {threads}"

        rule:
            name: f"{prefix}fastp_{library}"
            input: made.file("checked", "{sample}.json"), READS_MATES
            output: [temp(made.file("trimmed", f"{{sample}}_{mate}.fastq.gz")) for mate in READS_FILES], made.file("fastp", "{sample}.fastp.json")
            params: **READS_TOOLS, adapter=made.adapter
            wildcard_constraints: sample="|".join(READS_OF).replace(".", r"\.")
            threads: 4
            shell: READS_STEP + "trimmed {wildcards.sample} {threads}"

    rule:
        name: f"{prefix}index"
        input: made.fasta, made.gtf
        output: READS_INDEX
        params: **READS_TOOLS
        threads: 16
        resources: mem_mb=READS_MEMORY
        shell: READS_STEP + "index '' {threads}"

    rule:
        name: f"{prefix}align"
        input: READS_TRIMMED, READS_INDEX
        output: made.file("aligned", "{sample}.bam"), made.file("aligned", "{sample}.Log.final.out"), made.file("aligned", "{sample}.stats.txt")
        params: **READS_TOOLS, aligner=made.aligner, index=made.index, least_mapped=made.least_mapped
        wildcard_constraints: sample=READS_NAMES
        threads: 8
        resources: mem_mb=READS_MEMORY, **({"gpu": 1} if made.aligner == "parabricks" else {})
        shell: READS_STEP + "aligned {wildcards.sample} {threads}"

    rule:
        name: f"{prefix}count"
        input: made.file("aligned", "{sample}.bam"), made.file("reference", "annotation.gtf")
        output: made.file("counted", "{sample}.txt"), made.file("counted", "{sample}.txt.summary"), made.file("counted", "{sample}.json")
        params: **READS_TOOLS, stated=lambda wildcards, made=made: made.by_name[wildcards.sample].strandedness
        wildcard_constraints: sample=READS_NAMES
        threads: 4
        shell: READS_STEP + "counted {wildcards.sample} {threads}"

    rule:
        name: f"{prefix}merge"
        input:
            [made.file("counted", f"{name}.json") for name in made.by_name],
            [made.file("fastp", f"{name}.fastp.json") for name in made.by_name],
            [made.file("aligned", f"{name}.stats.txt") for name in made.by_name],
        output: made.counts, made.root / "counts.tsv", made.root / "tpm.tsv", made.root / "samples.csv"
        params: **READS_JOB, code=reads.code("counts"), about=[f"{sample.name} {sample.group} {sample.donor}" for sample in made.samples]
        shell: READS_STEP + "merged '' {threads}"

    rule:
        name: f"{prefix}multiqc"
        input: made.counts, [file for name in made.by_name for file in made.fastqc(name)]
        output: made.report
        params: **READS_TOOLS
        shell: READS_STEP + "reported '' {threads}"
