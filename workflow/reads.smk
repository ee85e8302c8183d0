# From a sample sheet to counts, a job for each sample and step. The Snakefile includes these rules for each run that has a
# sheet; alone, they are started with --config pipeline=<the file that epigen_utils.reads.pipeline.Pipeline.save writes>.
#
# A rule's parameters name what it depends on beside its files, and no more: a sample that is added, or a group that is mended,
# leaves the others' jobs done.
import sys

from epigen_utils.reads.pipeline import Pipeline, code_hash

if "PIPELINES" not in globals():
    READS_PRIORITY = 0
    PIPELINES = {"": Pipeline.read(config["pipeline"])}

    rule all:
        input:
            PIPELINES[""].results,


READS_STEP = "{params.python:q} -m epigen_utils.reads.pipeline_steps {params.pipeline:q} "

for prefix, pipeline in PIPELINES.items():
    READS_NAMES = "|".join(pipeline.by_name).replace(".", r"\.")
    READS_JOB = {"pipeline": str(pipeline.save()), "python": sys.executable}
    READS_TOOLS = READS_JOB | {"code": code_hash("tools")}
    READS_MATES = lambda wildcards, pipeline=pipeline: pipeline.by_name[wildcards.sample].fastq
    READS_TRIMMED = lambda wildcards, pipeline=pipeline: pipeline.trimmed(wildcards.sample)
    READS_INDEX = [pipeline.file("reference", "genome.fa"), pipeline.file("reference", "annotation.gtf")]
    READS_INDEX += [] if pipeline.index else [pipeline.star_index / "SA"]
    READS_MEMORY = pipeline.needs.memory // 1_000_000

    rule:
        name: f"{prefix}checked"
        input: READS_MATES
        output: pipeline.file("checked", "{sample}.json")
        params: **READS_JOB, code=code_hash("checked")
        wildcard_constraints: sample=READS_NAMES
        priority: READS_PRIORITY
        shell: READS_STEP + "checked {wildcards.sample} {threads}"

    for library in ("single", "paired"):
        READS_OF = [sample.name for sample in pipeline.samples if sample.paired == (library == "paired")]
        if not READS_OF:
            continue
        READS_FILES = range(1, 2 + (library == "paired"))

        rule:
            name: f"{prefix}fastqc_{library}"
            input: pipeline.file("checked", "{sample}.json"), READS_MATES
            output: [pipeline.file("fastqc", f"{{sample}}_{mate}_fastqc.zip") for mate in READS_FILES]
            params: **READS_TOOLS
            wildcard_constraints: sample="|".join(READS_OF).replace(".", r"\.")
            threads: pipeline.threads(2)
            priority: READS_PRIORITY
            shell: READS_STEP + "quality {wildcards.sample} {threads}"

        rule:
            name: f"{prefix}fastp_{library}"
            input: pipeline.file("checked", "{sample}.json"), READS_MATES
            output: [temp(pipeline.file("trimmed", f"{{sample}}_{mate}.fastq.gz")) for mate in READS_FILES], pipeline.file("fastp", "{sample}.fastp.json")
            params: **READS_TOOLS, adapter=pipeline.adapter
            wildcard_constraints: sample="|".join(READS_OF).replace(".", r"\.")
            threads: pipeline.threads(4)
            priority: READS_PRIORITY
            shell: READS_STEP + "trimmed {wildcards.sample} {threads}"

    rule:
        name: f"{prefix}index"
        input: pipeline.fasta, pipeline.gtf
        output: READS_INDEX
        params: **READS_TOOLS
        threads: pipeline.threads(16, [pipeline.fasta])
        resources: mem_mb=READS_MEMORY
        priority: READS_PRIORITY
        shell: READS_STEP + "index '' {threads}"

    rule:
        name: f"{prefix}align"
        input: READS_TRIMMED, READS_INDEX
        output: pipeline.file("aligned", "{sample}.bam"), pipeline.file("aligned", "{sample}.Log.final.out"), pipeline.file("aligned", "{sample}.stats.txt")
        params: **READS_TOOLS, aligner=pipeline.aligner, index=pipeline.index, least_mapped=pipeline.least_mapped
        wildcard_constraints: sample=READS_NAMES
        threads: pipeline.threads(8)
        resources: mem_mb=READS_MEMORY, **({"gpu": 1} if pipeline.aligner == "parabricks" else {})
        priority: READS_PRIORITY
        shell: READS_STEP + "aligned {wildcards.sample} {threads}"

    rule:
        name: f"{prefix}count"
        input: pipeline.file("aligned", "{sample}.bam"), pipeline.file("reference", "annotation.gtf")
        output: pipeline.file("counted", "{sample}.txt"), pipeline.file("counted", "{sample}.txt.summary"), pipeline.file("counted", "{sample}.json")
        params: **READS_TOOLS, stated=lambda wildcards, pipeline=pipeline: pipeline.by_name[wildcards.sample].strandedness
        wildcard_constraints: sample=READS_NAMES
        threads: pipeline.threads(4)
        priority: READS_PRIORITY
        shell: READS_STEP + "counted {wildcards.sample} {threads}"

    rule:
        name: f"{prefix}merge"
        input:
            [pipeline.file("counted", f"{name}.json") for name in pipeline.by_name],
            [pipeline.file("fastp", f"{name}.fastp.json") for name in pipeline.by_name],
            [pipeline.file("aligned", f"{name}.stats.txt") for name in pipeline.by_name],
        output: pipeline.counts, pipeline.root / "counts.tsv", pipeline.root / "tpm.tsv", pipeline.root / "samples.csv"
        params: **READS_JOB, code=code_hash("counts"), about=[f"{sample.name} {sample.group} {sample.donor}" for sample in pipeline.samples]
        priority: READS_PRIORITY
        shell: READS_STEP + "merged '' {threads}"

    rule:
        name: f"{prefix}multiqc"
        input: pipeline.counts, [file for name in pipeline.by_name for file in pipeline.fastqc(name)]
        output: pipeline.report
        params: **READS_TOOLS
        priority: READS_PRIORITY
        shell: READS_STEP + "reported '' {threads}"
