"""The steps from reads to counts, one job each: ``python -m epigen_utils.read_steps <pipeline.json> <step> <sample> <threads>``.

Each works in a room of its own, where its inputs have plain names, and moves what it made to where the next step looks when all of it is
there; beside it stays a record of its commands, the tools' versions and the seconds they took.
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
    """A folder that a step works in, and what it calls there."""

    def __init__(self, folder: Path, log: Path, where: str):
        self.folder, self.log, self.where, self.commands, self.versions = folder, log, where, [], {}

    def link(self, target: Path | str, name: str) -> str:
        (self.folder / name).symlink_to(Path(target).resolve())
        return name

    def call(self, command: list[str], *, into: str = "") -> None:
        """Run a tool here; what it prints goes to the log, or to a file.

        Raises
        ------
        DataError
            With the line by which the tool says what went wrong.
        """
        self.commands.append(shlex.join(command) + (f" > {into}" if into else ""))
        if command[0] in read_tools.VERSIONS:
            self.versions[command[0]] = read_tools.version(command[0])
        # Programs in Python of the machine's own, MultiQC among them, must not see what is set for this one.
        theirs = {name: value for name, value in os.environ.items() if not name.startswith("PYTHON")}
        with open(self.log, "a") as log, open(self.folder / into if into else os.devnull, "w") as out:
            log.write(f"$ {self.commands[-1]}\n")
            log.flush()
            options = {
                "cwd": self.folder,
                "env": theirs,
                "stderr": log,
                "preexec_fn": processes.die_with_parent,
                "check": False,
            }
            done = subprocess.run(command, stdout=out if into else log, **options)
        if done.returncode:
            raise DataError(f"{self.where}: {command[0]} stopped: {_complaint(self.log)} (log: {self.log})")

    def move(self, name: str, target: Path) -> None:
        target.parent.mkdir(parents=True, exist_ok=True)
        os.replace(self.folder / name, target)


def _complaint(log: Path) -> str:
    """The line of a log that says what is wrong."""
    said = log.read_text(errors="replace").splitlines()
    lines = [line.strip() for line in said if line.strip() and not line.startswith("$ ")]
    told = [
        line
        for line in lines
        if any(word in line.lower() for word in ("error", "exiting", "fail", "cannot", "could not"))
    ]
    return (told or lines or ["no output"])[0][:300]


@contextlib.contextmanager
def _room(made: Pipeline, step: str, sample: str) -> Iterator[Room]:
    name = f"{step}.{sample}" if sample else step
    folder, log = made.root / "rooms" / name, made.root / "logs" / f"{name}.log"
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    log.parent.mkdir(exist_ok=True)
    log.unlink(missing_ok=True)
    started = time.perf_counter()
    room = Room(folder, log, f"sample {sample}: {step}" if sample else step)
    try:
        yield room
    finally:
        shutil.rmtree(folder, ignore_errors=True)
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    record = {"step": step, "sample": sample, "seconds": round(time.perf_counter() - started, 3)}
    record |= {"cpu_seconds": round(used.ru_utime + used.ru_stime, 3), "commands": room.commands}
    record["versions"] = room.versions
    write_atomically(made.root / "records" / f"{name}.json", json.dumps(record, indent=1))


def checked(made: Pipeline, sample: str, threads: int) -> None:
    """Read every read; what was found goes to ``checked/<sample>.json``."""
    with _room(made, "checked", sample):
        found = sample_sheets.check(made.by_name[sample])
        write_atomically(made.file("checked", f"{sample}.json"), json.dumps(dataclasses.asdict(found)))


def quality(made: Pipeline, sample: str, threads: int) -> None:
    """FastQC of the raw reads."""
    with _room(made, "fastqc", sample) as room:
        files = [
            room.link(file, f"{sample}_{mate}.fastq{_gz(file)}")
            for mate, file in enumerate(made.by_name[sample].fastq, 1)
        ]
        room.call(read_tools.fastqc(files, threads))
        for target in made.fastqc(sample):
            for kind in (".zip", ".html"):
                room.move(target.with_suffix(kind).name, target.with_suffix(kind))


def trimmed(made: Pipeline, sample: str, threads: int) -> None:
    """Adapters off; the reads are for the aligner only."""
    with _room(made, "fastp", sample) as room:
        files = [
            room.link(file, f"{sample}_{mate}.fastq{_gz(file)}")
            for mate, file in enumerate(made.by_name[sample].fastq, 1)
        ]
        targets = {f"trimmed_{mate}.fastq.gz": target for mate, target in enumerate(made.trimmed(sample), 1)}
        room.call(read_tools.fastp(files, list(targets), sample, threads, made.adapter))
        for name, target in targets.items():
            room.move(name, target)
        # By this name MultiQC knows it.
        for kind in (".html", ".json"):
            room.move(f"fastp{kind}", made.file("fastp", f"{sample}.fastp{kind}"))


def _gz(file: str) -> str:
    with open(file, "rb") as stream:
        return ".gz" if stream.read(2) == b"\x1f\x8b" else ""


def index(made: Pipeline, sample: str, threads: int) -> None:
    """Genome and annotation unpacked, and STAR's index of both.

    Raises
    ------
    DataError
        If the annotation is of another genome.
    """
    with _room(made, "index", sample) as room:
        for given, name in ((made.fasta, "genome.fa"), (made.gtf, "annotation.gtf")):
            _unpack(Path(given), room.folder / name)
        references.check(room.folder / "genome.fa", room.folder / "annotation.gtf")
        if not made.index:
            sizes = [length for _, length in references.sequences(room.folder / "genome.fa")]
            (room.folder / "index").mkdir()
            room.call(read_tools.star_index(sum(sizes), len(sizes), threads, made.needs.memory))
            shutil.rmtree(made.star_index, ignore_errors=True)
            room.move("index", made.star_index)
        for name in ("genome.fa", "annotation.gtf"):
            room.move(name, made.file("reference", name))


def _unpack(given: Path, target: Path) -> None:
    if given.suffix != ".gz":
        shutil.copyfile(given, target)
        return
    try:
        with gzip.open(given) as packed, open(target, "wb") as plain:
            shutil.copyfileobj(packed, plain, 1 << 20)
    except (EOFError, gzip.BadGzipFile, zlib.error):
        raise DataError(f"{given}: is no whole gzip; fetch it again") from None


def aligned(made: Pipeline, sample: str, threads: int) -> None:
    """Two-pass alignment, sorted, duplicates marked.

    Raises
    ------
    DataError
        If fewer reads map than `Pipeline.least_mapped`.
    """
    with _room(made, "align", sample) as room:
        room.link(made.star_index, "index")
        room.link(made.file("reference", "genome.fa"), "genome.fa")
        files = [room.link(file, file.name) for file in made.trimmed(sample)]
        if made.aligner == "parabricks":
            room.call(read_tools.parabricks_align(files, sample, threads))
            (room.folder / "markdup.txt").touch()
        else:
            room.call(read_tools.star_align(files, sample, threads))
            for command in read_tools.sort_and_mark(threads, made.needs.memory):
                room.call(command)
        for command in read_tools.index_and_stats():
            room.call(command, into="stats.txt" if "stats" in command else "")
        found = read_reports.star_log(room.folder / "Log.final.out")
        if found["unique"] + found["multiple"] < made.least_mapped:
            raise DataError(
                f"sample {sample}: {found['unique'] + found['multiple']:.1%} of its {found['reads']:,} reads map to "
                f"{Path(made.fasta).name}, which must be {made.least_mapped:.0%}; give the genome of this species"
            )
        kept = {"Log.final.out": ".Log.final.out", "SJ.out.tab": ".SJ.out.tab", "stats.txt": ".stats.txt"}
        kept |= {"markdup.txt": ".markdup.txt", "sorted.bam.csi": ".bam.csi", "sorted.bam": ".bam"}
        for name, suffix in kept.items():
            room.move(name, made.file("aligned", f"{sample}{suffix}"))


def counted(made: Pipeline, sample: str, threads: int) -> None:
    """Fragments by gene, for each strandedness; kept are those of the one that the sheet states, or that is found.

    Raises
    ------
    DataError
        If the sheet states another strandedness than the reads have, or none can be told.
    """
    given = made.by_name[sample]
    with _room(made, "count", sample) as room:
        room.link(made.file("reference", "annotation.gtf"), "annotation.gtf")
        bam = room.link(made.file("aligned", f"{sample}.bam"), f"{sample}.bam")
        assigned = {}
        for strandedness in read_tools.STRANDS:
            room.call(read_tools.feature_counts(bam, strandedness, given.paired, threads))
            assigned[strandedness] = read_reports.assignment(room.folder / f"{strandedness}.txt.summary")["Assigned"]
        found = read_reports.strandedness(assigned, sample=sample, stated=given.strandedness)
        room.move(f"{found}.txt.summary", made.file("counted", f"{sample}.txt.summary"))
        room.move(f"{found}.txt", made.file("counted", f"{sample}.txt"))
        record = {"strandedness": found, "stated": given.strandedness, "assigned": assigned}
        write_atomically(made.file("counted", f"{sample}.json"), json.dumps(record))


def merged(made: Pipeline, sample: str, threads: int) -> None:
    """Counts and TPM of all samples, and the AnnData that goes on."""
    from epigen_utils import read_counts

    with _room(made, "merge", ""):
        read_counts.write_counts(made)


def reported(made: Pipeline, sample: str, threads: int) -> None:
    """MultiQC over what the tools left."""
    with _room(made, "multiqc", sample) as room:
        for name in made.by_name:
            files = [
                *made.fastqc(name),
                made.file("fastp", f"{name}.fastp.json"),
                made.file("counted", f"{name}.txt.summary"),
            ]
            files += [made.file("aligned", f"{name}{kind}") for kind in (".Log.final.out", ".stats.txt")]
            for file in files:
                room.link(file, file.name)
        room.call(read_tools.multiqc())
        room.move("multiqc_report.html", made.report)


STEPS: dict[str, Callable[[Pipeline, str, int], None]] = {
    step.__name__: step for step in (checked, quality, trimmed, index, aligned, counted, merged, reported)
}


def main(pipeline: str, step: str, sample: str, threads: str = "1") -> int:
    """Entry of a job."""
    made = Pipeline.read(pipeline)
    made.root.mkdir(parents=True, exist_ok=True)
    return processes.job(lambda: STEPS[step](made, sample, int(threads)))


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
