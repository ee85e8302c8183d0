"""The steps from reads to counts, one job each.

A job is ``python -m epigen_utils.read_steps <pipeline.json> <step> <sample> <threads>``. Each step works in a folder of
its own, where its inputs have simple names, and moves its output to the final location once it is complete; a record
lists its commands, the tools' versions and the seconds they took.
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

from epigen_utils import processes, read_reports, read_tools, references, sample_sheets
from epigen_utils.errors import DataError
from epigen_utils.files import write_atomically
from epigen_utils.reads import Pipeline


class Room:
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
        if command[0] in read_tools.VERSIONS:
            self.versions[command[0]] = read_tools.version(command[0])
        # Tools in another Python installation, such as MultiQC, must not inherit this interpreter's settings.
        environment = {name: value for name, value in os.environ.items() if not name.startswith("PYTHON")}
        with open(self.log, "a") as log, open(self.folder / into if into else os.devnull, "w") as out:
            log.write(f"$ {self.commands[-1]}\n")
            log.flush()
            options = {"cwd": self.folder, "env": environment, "preexec_fn": processes.die_with_parent, "check": False}
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
def _room(pipeline: Pipeline, step: str, sample: str) -> Iterator[Room]:
    name = f"{step}.{sample}" if sample else step
    folder, log = pipeline.root / "rooms" / name, pipeline.root / "logs" / f"{name}.log"
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    log.parent.mkdir(exist_ok=True)
    log.unlink(missing_ok=True)
    started = time.perf_counter()
    workspace = Room(folder, log, f"sample {sample}: {step}" if sample else step)
    try:
        yield workspace
    finally:
        shutil.rmtree(folder, ignore_errors=True)
    usage = resource.getrusage(resource.RUSAGE_CHILDREN)
    record = {"step": step, "sample": sample, "seconds": round(time.perf_counter() - started, 3)}
    record |= {"cpu_seconds": round(usage.ru_utime + usage.ru_stime, 3), "commands": workspace.commands}
    record["versions"] = workspace.versions
    write_atomically(pipeline.root / "records" / f"{name}.json", json.dumps(record, indent=1))


def checked(made: Pipeline, sample: str, threads: int) -> None:
    """Read and check all reads; their numbers and lengths go to ``checked/<sample>.json``."""
    with _room(made, "checked", sample):
        summary = sample_sheets.check(made.by_name[sample])
        write_atomically(made.file("checked", f"{sample}.json"), json.dumps(dataclasses.asdict(summary)))


def quality(made: Pipeline, sample: str, threads: int) -> None:
    """FastQC of the raw reads."""
    with _room(made, "fastqc", sample) as workspace:
        workspace.call(read_tools.fastqc(_linked_reads(workspace, made, sample), threads))
        for target in made.fastqc(sample):
            for kind in (".zip", ".html"):
                workspace.move(target.with_suffix(kind).name, target.with_suffix(kind))


def trimmed(made: Pipeline, sample: str, threads: int) -> None:
    """Trim adapters and low-quality reads; only the aligner uses the trimmed reads."""
    with _room(made, "fastp", sample) as workspace:
        files = _linked_reads(workspace, made, sample)
        targets = {f"trimmed_{mate}.fastq.gz": target for mate, target in enumerate(made.trimmed(sample), 1)}
        workspace.call(read_tools.fastp(files, list(targets), sample, threads, made.adapter))
        for name, target in targets.items():
            workspace.move(name, target)
        # MultiQC recognises the report by this name.
        for kind in (".html", ".json"):
            workspace.move(f"fastp{kind}", made.file("fastp", f"{sample}.fastp{kind}"))


def _linked_reads(workspace: Room, pipeline: Pipeline, sample: str) -> list[str]:
    """Link a sample's raw reads into a workspace under names that state their compression."""
    names = []
    for mate, file in enumerate(pipeline.by_name[sample].fastq, 1):
        with open(file, "rb") as stream:
            suffix = ".gz" if stream.read(2) == b"\x1f\x8b" else ""
        names.append(workspace.link(file, f"{sample}_{mate}.fastq{suffix}"))
    return names


def index(made: Pipeline, sample: str, threads: int) -> None:
    """Unpack genome and annotation, and build STAR's index of both.

    Raises
    ------
    DataError
        If the annotation is of another genome.
    """
    with _room(made, "index", sample) as workspace:
        for source, name in ((made.fasta, "genome.fa"), (made.gtf, "annotation.gtf")):
            _unpack(Path(source), workspace.folder / name)
        references.check(workspace.folder / "genome.fa", workspace.folder / "annotation.gtf")
        if not made.index:
            sizes = [length for _, length in references.sequences(workspace.folder / "genome.fa")]
            (workspace.folder / "index").mkdir()
            workspace.call(read_tools.star_index(sum(sizes), len(sizes), threads, made.needs.memory))
            shutil.rmtree(made.star_index, ignore_errors=True)
            workspace.move("index", made.star_index)
        for name in ("genome.fa", "annotation.gtf"):
            workspace.move(name, made.file("reference", name))


def _unpack(source: Path, target: Path) -> None:
    if source.suffix != ".gz":
        shutil.copyfile(source, target)
        return
    try:
        with gzip.open(source) as packed, open(target, "wb") as plain:
            shutil.copyfileobj(packed, plain, 1 << 20)
    except (EOFError, gzip.BadGzipFile, zlib.error):
        raise DataError(f"{source}: is no whole gzip; fetch it again") from None


def aligned(made: Pipeline, sample: str, threads: int) -> None:
    """Align in two passes, sort, and mark duplicates.

    Raises
    ------
    DataError
        If fewer reads map than `Pipeline.least_mapped`.
    """
    with _room(made, "align", sample) as workspace:
        workspace.link(made.star_index, "index")
        workspace.link(made.file("reference", "genome.fa"), "genome.fa")
        files = [workspace.link(file, file.name) for file in made.trimmed(sample)]
        if made.aligner == "parabricks":
            workspace.call(read_tools.parabricks_align(files, sample, threads))
            (workspace.folder / "markdup.txt").touch()
        else:
            workspace.call(read_tools.star_align(files, sample, threads))
            for command in read_tools.sort_and_mark(threads, made.needs.memory):
                workspace.call(command)
        for command in read_tools.index_and_stats():
            workspace.call(command, into="stats.txt" if "stats" in command else "")
        log = read_reports.star_log(workspace.folder / "Log.final.out")
        mapped = log["unique"] + log["multiple"]
        if mapped < made.least_mapped:
            raise DataError(
                f"sample {sample}: {mapped:.1%} of its {log['reads']:,} reads map to {Path(made.fasta).name}, "
                f"which must be {made.least_mapped:.0%}; give the genome of this species"
            )
        suffixes = {"Log.final.out": ".Log.final.out", "SJ.out.tab": ".SJ.out.tab", "stats.txt": ".stats.txt"}
        suffixes |= {"markdup.txt": ".markdup.txt", "sorted.bam.csi": ".bam.csi", "sorted.bam": ".bam"}
        for name, suffix in suffixes.items():
            workspace.move(name, made.file("aligned", f"{sample}{suffix}"))


def counted(made: Pipeline, sample: str, threads: int) -> None:
    """Count fragments by gene for each strandedness, and keep the counts of the stated, or detected, one.

    Raises
    ------
    DataError
        If the reads contradict the stated strandedness, or none can be detected.
    """
    row = made.by_name[sample]
    with _room(made, "count", sample) as workspace:
        workspace.link(made.file("reference", "annotation.gtf"), "annotation.gtf")
        bam = workspace.link(made.file("aligned", f"{sample}.bam"), f"{sample}.bam")
        assigned = {}
        for strandedness in read_tools.STRANDS:
            workspace.call(read_tools.feature_counts(bam, strandedness, row.paired, threads))
            assigned[strandedness] = read_reports.assignment(workspace.folder / f"{strandedness}.txt.summary")[
                "Assigned"
            ]
        chosen = read_reports.strandedness(assigned, sample=sample, stated=row.strandedness)
        workspace.move(f"{chosen}.txt.summary", made.file("counted", f"{sample}.txt.summary"))
        workspace.move(f"{chosen}.txt", made.file("counted", f"{sample}.txt"))
        record = {"strandedness": chosen, "stated": row.strandedness, "assigned": assigned}
        write_atomically(made.file("counted", f"{sample}.json"), json.dumps(record))


def merged(made: Pipeline, sample: str, threads: int) -> None:
    """Write counts and TPM of all samples, as text and as AnnData."""
    from epigen_utils import read_counts

    with _room(made, "merge", ""):
        read_counts.write_counts(made)


def reported(made: Pipeline, sample: str, threads: int) -> None:
    """Run MultiQC over the output of the tools."""
    with _room(made, "multiqc", sample) as workspace:
        for name in made.by_name:
            files = [
                *made.fastqc(name),
                made.file("fastp", f"{name}.fastp.json"),
                made.file("counted", f"{name}.txt.summary"),
            ]
            files += [made.file("aligned", f"{name}{kind}") for kind in (".Log.final.out", ".stats.txt")]
            for file in files:
                workspace.link(file, file.name)
        workspace.call(read_tools.multiqc())
        workspace.move("multiqc_report.html", made.report)


#: Steps by the names in ``workflow/reads.smk``.
STEPS: dict[str, Callable[[Pipeline, str, int], None]] = {
    "checked": checked,
    "quality": quality,
    "trimmed": trimmed,
    "index": index,
    "aligned": aligned,
    "counted": counted,
    "merged": merged,
    "reported": reported,
}


def main(pipeline: str, step: str, sample: str, threads: str = "1") -> int:
    """Entry point of a job; the exit status."""
    loaded = Pipeline.read(pipeline)
    loaded.root.mkdir(parents=True, exist_ok=True)
    return processes.job(lambda: STEPS[step](loaded, sample, int(threads)))


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
