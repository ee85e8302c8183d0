"""From a sample sheet to counts: which files each step makes, for the Snakefile, the notebook and the command line alike.

Paper A, section IV.B: FastQC, adapter trimming, STAR (in Parabricks on a GPU), gene-level quantification.
"""

import json
import os
import shutil
import subprocess
import sys
from dataclasses import asdict, dataclass, replace
from functools import cached_property
from pathlib import Path

import pandas as pd

from epigen_utils import paths, processes, read_tools, references, registry, sample_sheets
from epigen_utils.errors import DataError, closest
from epigen_utils.files import locked, sha256, write_atomically
from epigen_utils.sample_sheets import Sample

ALIGNERS = ("star", "parabricks")
#: Tools that every pipeline calls; the notebook's line of metadata names the same.
TOOLS = ("fastqc", "fastp", "STAR", "samtools", "featureCounts", "multiqc")
#: Share of a sample's reads that must map, or the genome is not theirs.
LEAST_MAPPED = 0.1


@dataclass(frozen=True)
class Pipeline:
    """Samples, a reference, and the folder that everything is made in.

    Attributes
    ----------
    index
        A STAR index made before, with the same reference; empty to make one.
    adapter
        What adapters begin with, or ``auto`` (`read_tools.fastp`).
    least_mapped
        Share of a sample's reads that must map, or the genome is not theirs.
    """

    folder: str
    samples: tuple[Sample, ...]
    fasta: str
    gtf: str
    aligner: str = "star"
    index: str = ""
    adapter: str = read_tools.ADAPTER
    least_mapped: float = LEAST_MAPPED

    @classmethod
    def of(cls, given: dict) -> "Pipeline":
        """From what `asdict` or JSON makes of one."""
        samples = tuple(Sample(**row | {"fastq": tuple(row["fastq"])}) for row in given["samples"])
        return cls(**given | {"samples": samples, "least_mapped": float(given["least_mapped"])})

    def to_json(self, sample: str = "") -> str:
        """All of it, or with one sample only, so that its jobs do not depend on what the others are."""
        kept = [self.by_name[sample]] if sample else self.samples
        return json.dumps(asdict(replace(self, samples=tuple(kept))))

    @property
    def root(self) -> Path:
        return Path(self.folder)

    @cached_property
    def by_name(self) -> dict[str, Sample]:
        return {sample.name: sample for sample in self.samples}

    def file(self, step: str, name: str) -> Path:
        return self.root / step / name

    def trimmed(self, sample: str) -> list[Path]:
        return [
            self.file("trimmed", f"{sample}_{mate}.fastq.gz") for mate, _ in enumerate(self.by_name[sample].fastq, 1)
        ]

    def fastqc(self, sample: str) -> list[Path]:
        return [
            self.file("fastqc", f"{sample}_{mate}_fastqc.zip") for mate, _ in enumerate(self.by_name[sample].fastq, 1)
        ]

    @property
    def star_index(self) -> Path:
        return Path(self.index) if self.index else self.root / "index"

    @property
    def counts(self) -> Path:
        """The AnnData that goes on into the expression chapters."""
        return self.root / "counts.h5ad"

    @property
    def report(self) -> Path:
        return self.root / "multiqc" / "multiqc_report.html"

    @property
    def results(self) -> list[Path]:
        """What is there when everything is done."""
        return [self.counts, self.root / "counts.tsv", self.root / "tpm.tsv", self.root / "samples.csv", self.report]

    @property
    def needs(self) -> references.Needs:
        fastq = [file for sample in self.samples for file in sample.fastq]
        return references.needs(references.bases(self.fasta), fastq, indexed=bool(self.index))


def pipeline(
    sheet: str,
    folder: str | Path,
    *,
    genome: str = "",
    gtf: str = "",
    aligner: str = ALIGNERS[0],
    index: str = "",
    adapter: str = read_tools.ADAPTER,
) -> Pipeline:
    """A pipeline, checked as far as that takes no full reading of the reads or of the genome, which its first jobs do.

    Parameters
    ----------
    sheet
        Path of a sample sheet (`sample_sheets.read`), or a data set of the registry of kind ``reads``, which brings its reference.
    genome, gtf
        As `references.files` takes them.
    aligner
        ``star``, or ``parabricks``: NVIDIA's, on a GPU.

    Raises
    ------
    DataError
        One line naming the file, the row, and the mend.
    """
    if aligner not in ALIGNERS:
        raise DataError(f"aligner {aligner!r}; {closest(aligner, ALIGNERS)}")
    if aligner == "parabricks" and not shutil.which("pbrun"):
        raise DataError(
            "aligner parabricks: no pbrun here; run inside NVIDIA's container with a GPU, or give aligner star"
        )
    if sheet in registry.registry():
        path, fasta, annotation = of_registry(sheet)
        if genome or gtf:
            raise DataError(f"{sheet}: brings its own genome; leave {genome or gtf} out")
    else:
        path = Path(sheet)
        if not genome:
            raise DataError(
                f"{sheet}: which genome? give one of {', '.join(references.names())}, or a FASTA file with its GTF"
            )
        if genome in references.names():
            # Before a genome is fetched.
            fastq = [file for sample in sample_sheets.read(path) for file in sample.fastq]
            wanted = references.needs(references.stated_bases(genome), fastq, indexed=bool(index))
            references.check_machine(wanted, Path(folder), sheet)
        fasta, annotation = references.files(genome, gtf)
    samples = sample_sheets.read(path)
    if index and not (Path(index) / "SA").is_file():
        raise DataError(f"index {index}: is no STAR index (no file SA); leave it out, and one is made")
    files = [str(Path(file).resolve()) for file in (folder, fasta, annotation)]
    index = index and str(Path(index).resolve())
    return Pipeline(files[0], tuple(samples), *files[1:], aligner=aligner, index=index, adapter=adapter)


#: Parameters of a notebook that `pipeline` takes.
PARAMETERS = ("genome", "gtf", "aligner", "index", "adapter")


def of_run(parameters: dict, folder: Path) -> Pipeline:
    """The pipeline of a run whose notebook has a ``sheet``."""
    given = {name: parameters[name] for name in PARAMETERS if name in parameters}
    return pipeline(parameters["sheet"], folder, **given)


def door(made: Pipeline, what: str) -> str:
    """What a pipeline will ask for, in words; refused where the tools are missing, or the machine is too small.

    Raises
    ------
    DataError
        Saying what is missing.
    """
    lost = [tool for tool in TOOLS if not shutil.which(tool)]
    if lost:
        raise DataError(f"{what}: {', '.join(lost)} not installed (make tools, as root or by conda)")
    references.check_machine(made.needs, made.root, what)
    return f"{what}: {len(made.samples)} samples on {Path(made.fasta).name}; needs {made.needs}"


def of_registry(name: str) -> tuple[Path, Path, Path]:
    """Sheet, FASTA and GTF of a data set of kind ``reads``; simulated ones are made once, in the user's cache.

    Raises
    ------
    DataError
        If the data set is of another kind.
    """
    entry = registry.entry(name)
    if entry.kind != "reads":
        raise DataError(f"{name}: is {entry.kind}, not reads; give a sample sheet, or a data set of kind reads")
    simulated = [spec for spec in entry.files.values() if spec.source == "simulated"]
    if simulated:
        folder = simulated_folder(name)
        return folder / "sheet.csv", folder / "genome.fa", folder / "annotation.gtf"
    found = registry.fetch(name)
    folder = paths.CACHE / name
    rows = [
        {"sample": sample} | {key: str(found[role].resolve()) for key, role in files.items()}
        for sample, files in entry.options["samples"].items()
    ]
    write_atomically(folder / "sheet.csv", pd.DataFrame(rows).to_csv(index=False))
    return folder / "sheet.csv", found["fasta"], found["gtf"]


def simulated_folder(name: str) -> Path:
    """Where a simulated data set of reads lies, with ``truth.csv`` and ``kinds.csv``; made anew where the simulation has changed."""
    from epigen_utils import simulate_reads

    entry = registry.entry(name)
    spec = next(iter(entry.files.values()))
    folder = paths.CACHE / name
    made_by = sha256(Path(simulate_reads.__file__))[:16] + json.dumps(spec.args, sort_keys=True)
    with locked(folder.parent):
        if not (folder / "made_by").exists() or (folder / "made_by").read_text() != made_by:
            shutil.rmtree(folder, ignore_errors=True)
            part = folder.with_name(f"{name}.part")
            shutil.rmtree(part, ignore_errors=True)
            part.mkdir(parents=True)
            getattr(simulate_reads, spec.simulated)(part, **spec.args)
            (part / "made_by").write_text(made_by)
            part.rename(folder)
    return folder


def run(made: Pipeline, *, cores: int = os.cpu_count() or 1) -> None:
    """Run a pipeline by itself, outside a build, by the same rules; what is finished is not done again.

    Raises
    ------
    DataError
        With the line that a step left, and where its log is.
    """
    door(made, "reads to counts")
    made.root.mkdir(parents=True, exist_ok=True)
    with locked(made.root):
        command = [
            sys.executable,
            "-m",
            "snakemake",
            "--snakefile",
            str(paths.READS_RULES),
            "--directory",
            str(made.root),
        ]
        command += [*processes.local_limits(cores), "--config", f"pipeline={made.to_json()}"]
        options = {"capture_output": True, "text": True, "check": False, "preexec_fn": processes.die_with_parent}
        options["env"] = os.environ | {"PYTHONPATH": str(paths.ROOT)}
        subprocess.run([*command, "--unlock"], **options)
        done = subprocess.run([*command, "--rerun-incomplete", "--keep-going"], **options)
    if done.returncode:
        said = [line for line in done.stderr.splitlines() if line.startswith("epigen: ")]
        raise DataError(
            said[0].removeprefix("epigen: ") if said else f"reads to counts stopped: {done.stderr.strip()[-400:]}"
        )


def finished(sheet: str, reads_dir: str, results_dir: str, **options) -> Pipeline:
    """A pipeline whose results are there: those of a build, or made now.

    Parameters
    ----------
    reads_dir
        Where a build has left them; empty: the rules are run now, under ``results_dir``.
    options
        As `pipeline` takes them.

    Raises
    ------
    DataError
        If a result is missing.
    """
    made = pipeline(sheet, reads_dir or Path(results_dir) / "reads", **options)
    if not reads_dir:
        run(made)
    for path in made.results:
        if not path.exists():
            raise DataError(f"reads_dir {reads_dir}: no {path.name}; leave reads_dir empty, and the rules are run")
    return made


def truth(sheet: str) -> pd.DataFrame | None:
    """Planted fragments of a simulated data set, genes x samples; nothing for others."""
    if sheet not in registry.registry() or registry.entry(sheet).real:
        return None
    return pd.read_csv(simulated_folder(sheet) / "truth.csv", index_col="gene")


def versions(aligner: str = "star") -> dict[str, str]:
    """Tool -> the version that is installed."""
    names = [*TOOLS, *(["pbrun"] if aligner == "parabricks" else [])]
    return {name: read_tools.version(name) for name in names}
