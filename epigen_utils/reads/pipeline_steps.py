"""The steps from reads to counts, one job each.

A job is ``python -m epigen_utils.reads.pipeline_steps <pipeline.json> <step> <sample> <threads>``. Each step works
in a folder of its own, where its inputs have simple names, and moves its output to the final location once it is
complete; a record lists its commands, the tools' versions and the seconds they took.
"""

import contextlib
import dataclasses
import gzip
import json
import os
import resource
import shlex
import shutil
import subprocess
import sys
import time
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path

from epigen_utils import processes
from epigen_utils.errors import DataError
from epigen_utils.files import is_gzipped, write_atomically
from epigen_utils.reads import command_lines, references, sample_sheets
from epigen_utils.reads.pipeline import Pipeline


class Workspace:
    """The working folder of a step, and the commands that it has run there."""

    def __init__(self, folder: Path, log: Path, where: str):
        self.folder, self.log, self.where, self.commands, self.versions = folder, log, where, [], {}

    def link(self, target: Path | str, name: str) -> str:
        (self.folder / name).symlink_to(Path(target).resolve())
        return name

    def call(self, command: list[str], *, into: str = "") -> None:
        """Run a tool here; its standard output goes to the log, or to a file.

        Raises
        ------
        DataError
            With the tool's error message, if it fails.
        """
        self.commands.append(shlex.join(command) + (f" > {into}" if into else ""))
        if command[0] in command_lines.VERSION_COMMANDS:
            self.versions[command[0]] = command_lines.tool_version(command[0])
        # Tools in another Python installation, such as MultiQC, must not inherit this interpreter's settings.
        environment = {name: value for name, value in os.environ.items() if not name.startswith("PYTHON")}
        with open(self.log, "a") as log, open(self.folder / into if into else os.devnull, "w") as out:
            log.write(f"$ {self.commands[-1]}\n")
            log.flush()
            options = {"cwd": self.folder, "env": environment, "preexec_fn": processes.kill_with_parent, "check": False}
            process = subprocess.run(command, stdout=out if into else log, stderr=log, **options)
        if process.returncode:
            raise DataError(f"{self.where}: {command[0]} stopped: {_error_line(self.log)} (log: {self.log})")

    def move(self, name: str, target: Path) -> None:
        target.parent.mkdir(parents=True, exist_ok=True)
        os.replace(self.folder / name, target)


def _error_line(log: Path) -> str:
    """The first line of a log that looks like an error message, else its first line."""
    raw = log.read_text(errors="replace").splitlines()
    lines = [line.strip() for line in raw if line.strip() and not line.startswith("$ ")]
    words = ("error", "exiting", "fail", "cannot", "could not")
    errors = [line for line in lines if any(word in line.lower() for word in words)]
    return (errors or lines or ["no output"])[0][:300]


@contextlib.contextmanager
def _workspace(pipeline: Pipeline, step: str, sample: str) -> Iterator[Workspace]:
    name = f"{step}.{sample}" if sample else step
    folder, log = pipeline.root / "rooms" / name, pipeline.root / "logs" / f"{name}.log"
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    log.parent.mkdir(exist_ok=True)
    log.unlink(missing_ok=True)
    started = time.perf_counter()
    workspace = Workspace(folder, log, f"sample {sample}: {step}" if sample else step)
    try:
        yield workspace
    finally:
        shutil.rmtree(folder, ignore_errors=True)
    usage = resource.getrusage(resource.RUSAGE_CHILDREN)
    record = {"step": step, "sample": sample, "seconds": round(time.perf_counter() - started, 3)}
    record |= {"cpu_seconds": round(usage.ru_utime + usage.ru_stime, 3), "commands": workspace.commands}
    record["versions"] = workspace.versions
    write_atomically(pipeline.root / "records" / f"{name}.json", json.dumps(record, indent=1))


def check_sample(pipeline: Pipeline, sample: str, threads: int) -> None:
    """Read and check all reads; their numbers and lengths go to ``checked/<sample>.json``."""
    with _workspace(pipeline, "checked", sample):
        summary = sample_sheets.check_fastq(pipeline.by_name[sample])
        write_atomically(pipeline.file("checked", f"{sample}.json"), json.dumps(dataclasses.asdict(summary)))


def report_quality(pipeline: Pipeline, sample: str, threads: int) -> None:
    """FastQC of the raw reads."""
    with _workspace(pipeline, "fastqc", sample) as workspace:
        workspace.call(command_lines.fastqc(_linked_reads(workspace, pipeline, sample), threads))
        for target in pipeline.fastqc(sample):
            for kind in (".zip", ".html"):
                workspace.move(target.with_suffix(kind).name, target.with_suffix(kind))


def trim_reads(pipeline: Pipeline, sample: str, threads: int) -> None:
    """Trim adapters and low-quality reads; only the aligner uses the trimmed reads."""
    with _workspace(pipeline, "fastp", sample) as workspace:
        files = _linked_reads(workspace, pipeline, sample)
        targets = {f"trimmed_{mate}.fastq.gz": target for mate, target in enumerate(pipeline.trimmed(sample), 1)}
        workspace.call(command_lines.fastp(files, list(targets), sample, threads, pipeline.adapter))
        for name, target in targets.items():
            workspace.move(name, target)
        # MultiQC recognises the report by this name.
        for kind in (".html", ".json"):
            workspace.move(f"fastp{kind}", pipeline.file("fastp", f"{sample}.fastp{kind}"))


def _linked_reads(workspace: Workspace, pipeline: Pipeline, sample: str) -> list[str]:
    """Link a sample's raw reads into a workspace under names that state their compression."""
    names = []
    for mate, file in enumerate(pipeline.by_name[sample].fastq, 1):
        suffix = ".gz" if is_gzipped(file) else ""
        names.append(workspace.link(file, f"{sample}_{mate}.fastq{suffix}"))
    return names


def build_index(pipeline: Pipeline, sample: str, threads: int) -> None:
    """Unpack genome and annotation, and build STAR's index of both.

    Raises
    ------
    DataError
        If the annotation is of another genome.
    """
    with _workspace(pipeline, "index", sample) as workspace:
        for source, name in ((pipeline.fasta, "genome.fa"), (pipeline.gtf, "annotation.gtf")):
            _unpack(Path(source), workspace.folder / name)
        lengths = references.check_annotation(workspace.folder / "genome.fa", workspace.folder / "annotation.gtf")
        if not pipeline.index:
            (workspace.folder / "index").mkdir()
            workspace.call(
                command_lines.star_index(sum(lengths.values()), len(lengths), threads, pipeline.needs.memory)
            )
            shutil.rmtree(pipeline.star_index, ignore_errors=True)
            workspace.move("index", pipeline.star_index)
        for name in ("genome.fa", "annotation.gtf"):
            workspace.move(name, pipeline.file("reference", name))


def _unpack(source: Path, target: Path) -> None:
    if not is_gzipped(source):
        shutil.copyfile(source, target)
        return
    try:
        with gzip.open(source) as packed, open(target, "wb") as plain:
            shutil.copyfileobj(packed, plain, 1 << 20)
    except (EOFError, gzip.BadGzipFile, zlib.error):
        raise DataError(f"{source}: is no whole gzip; fetch it again") from None


def align_reads(pipeline: Pipeline, sample: str, threads: int) -> None:
    """Align in two passes, sort, and mark duplicates.

    Raises
    ------
    DataError
        If fewer reads map than `Pipeline.least_mapped`.
    """
    from epigen_utils.reads import tool_reports  # here, as below: the other jobs do without pandas

    with _workspace(pipeline, "align", sample) as workspace:
        workspace.link(pipeline.star_index, "index")
        workspace.link(pipeline.file("reference", "genome.fa"), "genome.fa")
        files = [workspace.link(file, file.name) for file in pipeline.trimmed(sample)]
        if pipeline.aligner == "parabricks":
            workspace.call(command_lines.parabricks_align(files, sample, threads))
            (workspace.folder / "markdup.txt").touch()
        else:
            workspace.call(command_lines.star_align(files, sample, threads))
            for command in command_lines.sort_and_mark(threads, pipeline.needs.memory):
                workspace.call(command)
        for command in command_lines.index_and_stats():
            workspace.call(command, into="stats.txt" if "stats" in command else "")
        log = tool_reports.parse_star_log(workspace.folder / "Log.final.out")
        mapped = log["unique"] + log["multiple"]
        if mapped < pipeline.least_mapped:
            raise DataError(
                f"sample {sample}: {mapped:.1%} of its {log['reads']:,} reads map to {Path(pipeline.fasta).name}, "
                f"which must be {pipeline.least_mapped:.0%}; give the genome of this species"
            )
        suffixes = {"Log.final.out": ".Log.final.out", "SJ.out.tab": ".SJ.out.tab", "stats.txt": ".stats.txt"}
        suffixes |= {"markdup.txt": ".markdup.txt", "sorted.bam.csi": ".bam.csi", "sorted.bam": ".bam"}
        for name, suffix in suffixes.items():
            workspace.move(name, pipeline.file("aligned", f"{sample}{suffix}"))


def count_reads(pipeline: Pipeline, sample: str, threads: int) -> None:
    """Count fragments by gene for each strandedness, and keep the counts of the stated, or detected, one.

    Raises
    ------
    DataError
        If the reads contradict the stated strandedness, or none can be detected.
    """
    from epigen_utils.reads import tool_reports

    row = pipeline.by_name[sample]
    with _workspace(pipeline, "count", sample) as workspace:
        workspace.link(pipeline.file("reference", "annotation.gtf"), "annotation.gtf")
        bam = workspace.link(pipeline.file("aligned", f"{sample}.bam"), f"{sample}.bam")
        assigned = {}
        for strandedness in command_lines.STRAND_CODES:
            workspace.call(command_lines.feature_counts(bam, strandedness, row.paired, threads))
            assigned[strandedness] = tool_reports.parse_assignment(workspace.folder / f"{strandedness}.txt.summary")[
                "Assigned"
            ]
        chosen = tool_reports.detect_strandedness(assigned, sample=sample, stated=row.strandedness)
        workspace.move(f"{chosen}.txt.summary", pipeline.file("counted", f"{sample}.txt.summary"))
        workspace.move(f"{chosen}.txt", pipeline.file("counted", f"{sample}.txt"))
        record = {"strandedness": chosen, "stated": row.strandedness, "assigned": assigned}
        write_atomically(pipeline.file("counted", f"{sample}.json"), json.dumps(record))


def merge_counts(pipeline: Pipeline, sample: str, threads: int) -> None:
    """Write counts and TPM of all samples, as text and as AnnData."""
    from epigen_utils.reads import read_counts

    with _workspace(pipeline, "merge", ""):
        read_counts.write_counts(pipeline)


def write_multiqc(pipeline: Pipeline, sample: str, threads: int) -> None:
    """Run MultiQC over the output of the tools."""
    with _workspace(pipeline, "multiqc", sample) as workspace:
        for name in pipeline.by_name:
            files = [
                *pipeline.fastqc(name),
                pipeline.file("fastp", f"{name}.fastp.json"),
                pipeline.file("counted", f"{name}.txt.summary"),
            ]
            files += [pipeline.file("aligned", f"{name}{kind}") for kind in (".Log.final.out", ".stats.txt")]
            for file in files:
                workspace.link(file, file.name)
        workspace.call(command_lines.multiqc())
        workspace.move("multiqc_report.html", pipeline.report)


#: Steps by the names in ``workflow/reads.smk``.
STEPS: dict[str, Callable[[Pipeline, str, int], None]] = {
    "checked": check_sample,
    "quality": report_quality,
    "trimmed": trim_reads,
    "index": build_index,
    "aligned": align_reads,
    "counted": count_reads,
    "merged": merge_counts,
    "reported": write_multiqc,
}


def main(pipeline_file: str, step: str, sample: str, threads: str = "1") -> int:
    """Entry point of a job; the exit status."""
    loaded = Pipeline.read(pipeline_file)
    loaded.root.mkdir(parents=True, exist_ok=True)
    return processes.run_job(lambda: STEPS[step](loaded, sample, int(threads)))


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
