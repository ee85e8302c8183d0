"""The pipeline from a sample sheet to counts: the files of each step, for Snakefile, notebook and command line.

Paper A, section IV.B: FastQC, adapter trimming, STAR (in Parabricks on a GPU), gene-level quantification.
"""

import json
import os
import re
import shutil
import subprocess
from collections.abc import Callable, Iterable
from dataclasses import asdict, dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

from epigen_utils import paths, processes
from epigen_utils.data import fetching, registry
from epigen_utils.errors import DataError, UnreachableError, suggest
from epigen_utils.files import folder_lock, read_json, sha256, whole_folder, write_atomically
from epigen_utils.reads import command_lines, references, sample_sheets
from epigen_utils.reads.sample_sheets import Sample

if TYPE_CHECKING:
    import pandas as pd

ALIGNERS = ("star", "parabricks")
#: Bytes of a file (compressed FASTQ, FASTA) that keep a thread busy for longer than it takes to start.
BYTES_A_THREAD = 20_000_000
#: Tools that every pipeline calls; the notebook's metadata names the same.
TOOLS = ("fastqc", "fastp", "STAR", "samtools", "featureCounts", "multiqc")
#: Minimum share of a sample's reads that must map; fewer indicate the wrong genome.
MIN_MAPPED = 0.1


@dataclass(frozen=True)
class Pipeline:
    """Samples, a reference, and the folder of all files.

    Attributes
    ----------
    index
        An existing STAR index of the same reference; empty to build one.
    adapter
        Start of the adapter sequence, or ``auto`` (`command_lines.fastp`).
    least_mapped
        Minimum share of a sample's reads that must map.
    """

    folder: str
    samples: tuple[Sample, ...]
    fasta: str
    gtf: str
    aligner: str = "star"
    index: str = ""
    adapter: str = command_lines.ADAPTER
    least_mapped: float = MIN_MAPPED

    @classmethod
    def read(cls, path: str | Path) -> "Pipeline":
        """Read the file that `save` has written."""
        fields = json.loads(Path(path).read_text())
        samples = tuple(Sample(**row | {"fastq": tuple(row["fastq"])}) for row in fields["samples"])
        return cls(**fields | {"samples": samples})

    def save(self) -> Path:
        """Write ``pipeline.json`` for the jobs; hundreds of samples would exceed the length of a command line."""
        path, text = self.root / "pipeline.json", json.dumps(asdict(self), indent=1)
        if not path.exists() or path.read_text() != text:
            write_atomically(path, text)
        return path

    @property
    def root(self) -> Path:
        return Path(self.folder)

    @cached_property
    def by_name(self) -> dict[str, Sample]:
        return {sample.name: sample for sample in self.samples}

    def file(self, step: str, name: str) -> Path:
        return self.root / step / name

    def read_json(self, step: str, name: str) -> dict:
        """Content of ``<step>/<name>.json``."""
        return read_json(self.file(step, f"{name}.json"), "delete it, and run the pipeline again")

    def trimmed(self, sample: str) -> list[Path]:
        return [self.file("trimmed", f"{sample}_{mate}.fastq.gz") for mate in self.by_name[sample].mates]

    def fastqc(self, sample: str) -> list[Path]:
        return [self.file("fastqc", f"{sample}_{mate}_fastqc.zip") for mate in self.by_name[sample].mates]

    @property
    def star_index(self) -> Path:
        return Path(self.index) if self.index else self.root / "index"

    @property
    def counts(self) -> Path:
        """The AnnData for the expression chapters."""
        return self.root / "counts.h5ad"

    @property
    def report(self) -> Path:
        return self.root / "multiqc" / "multiqc_report.html"

    @property
    def results(self) -> list[Path]:
        """Files of a finished pipeline."""
        return [self.counts, self.root / "counts.tsv", self.root / "tpm.tsv", self.root / "samples.csv", self.report]

    def threads(self, most: int, files: Iterable[str | Path] = ()) -> int:
        """Threads of a job: one for each `BYTES_A_THREAD` of the largest file it may read, up to ``most``.

        Parameters
        ----------
        files
            What the job reads; by default the FASTQ files of all samples.
        """
        files = files or [file for sample in self.samples for file in sample.fastq]
        return min(most, 1 + max(Path(file).stat().st_size for file in files) // BYTES_A_THREAD)

    @property
    def needs(self) -> references.Requirements:
        fastq = [file for sample in self.samples for file in sample.fastq]
        return references.required_resources(references.bases_in_fasta(self.fasta), fastq, indexed=bool(self.index))


def plan_pipeline(
    sheet: str,
    folder: str | Path,
    *,
    genome: str = "",
    gtf: str = "",
    aligner: str = ALIGNERS[0],
    index: str = "",
    adapter: str = command_lines.ADAPTER,
) -> Pipeline:
    """Build a pipeline from a sample sheet, and fetch its genome if necessary.

    Checks all that needs no complete pass over the reads or the genome; the first jobs of the pipeline check the rest.

    Parameters
    ----------
    sheet
        Path of a sample sheet (`sample_sheets.read_sheet`), or a registry data set of kind ``reads``, which includes
        its reference.
    genome, gtf
        A reference of the registry, or the paths of FASTA and GTF files (`references.reference_files`).
    aligner
        ``star``, or NVIDIA's ``parabricks`` on a GPU.

    Raises
    ------
    DataError
        Naming the file, the row, and the remedy.
    """
    if aligner not in ALIGNERS:
        raise DataError(f"aligner {aligner!r}; {suggest(aligner, ALIGNERS)}")
    if aligner == "parabricks" and not index:
        raise DataError(
            "aligner parabricks: needs an index made by the version of STAR that its documentation names; give index"
        )
    if sheet in registry.entries():
        path, fasta, annotation = registry_files(sheet)
        if genome or gtf:
            raise DataError(f"{sheet}: brings its own genome; leave {genome or gtf} out")
    else:
        path = Path(sheet)
        if not genome:
            raise DataError(
                f"{sheet}: which genome? give one of {', '.join(references.reference_names())}, "
                "or a FASTA file with its GTF"
            )
        fasta, annotation = references.reference_files(genome, gtf)
    samples = sample_sheets.read_sheet(path)
    if index and not (Path(index) / "SA").is_file():
        raise DataError(f"index {index}: is no STAR index (no file SA); leave it out, and one is made")
    folder, fasta, annotation = (str(Path(path).resolve()) for path in (folder, fasta, annotation))
    index = index and str(Path(index).resolve())
    for file in (*(file for sample in samples for file in sample.fastq), fasta, annotation, index, folder):
        if re.search(r"[{}]", file):
            raise DataError(f"{file}: has braces in its name, which stand for wildcards in a workflow; rename it")
    return Pipeline(folder, tuple(samples), fasta, annotation, aligner=aligner, index=index, adapter=adapter)


#: Parameters of a notebook that are passed to `plan_pipeline`.
PARAMETERS = ("genome", "gtf", "aligner", "index", "adapter")


def pipeline_of_run(parameters: dict, folder: Path) -> Pipeline:
    """The pipeline of a run whose notebook has a ``sheet``."""
    options = {name: parameters[name] for name in PARAMETERS if name in parameters}
    return plan_pipeline(parameters["sheet"], folder, **options)


def reachable_pipeline(parameters: dict, folder: Path) -> Pipeline | None:
    """As `pipeline_of_run`; None if its reads or genome cannot be reached, of which the run itself will say why."""
    try:
        return pipeline_of_run(parameters, folder)
    except UnreachableError:
        return None


def check_resources(parameters: dict, folder: Path, label: str, *, remote: bool = False) -> str:
    """Describe the resources that a run's pipeline requires, before a genome is fetched.

    Parameters
    ----------
    label
        Name of the run, for the description and for errors.
    remote
        Whether jobs run on other machines, so that only the disk is checked here.

    Raises
    ------
    DataError
        If tools are missing, or memory or disk is too small; a finished pipeline needs no disk.
    """
    sheet, genome = parameters["sheet"], parameters.get("genome", "")
    if genome in references.reference_names() and sheet not in registry.entries():
        samples, n_bases, name = sample_sheets.read_sheet(sheet), references.bases_in_registry(genome), genome
    else:
        planned = pipeline_of_run(parameters, folder)
        samples, n_bases, name = planned.samples, references.bases_in_fasta(planned.fasta), Path(planned.fasta).name
    fastq = [file for sample in samples for file in sample.fastq]
    wanted = references.required_resources(n_bases, fastq, indexed=bool(parameters.get("index")))
    if not remote:
        tools = [*TOOLS, *(["pbrun"] if parameters.get("aligner") == "parabricks" else [])]
        if missing := [tool for tool in tools if not shutil.which(tool)]:
            in_container = missing == ["pbrun"]
            remedy = "run inside NVIDIA's container with a GPU" if in_container else "make tools, as root or by conda"
            raise DataError(f"{label}: {', '.join(missing)} not installed ({remedy})")
        references.check_memory(wanted, label)
    if not (Path(folder) / "counts.h5ad").exists():
        references.check_disk(wanted, Path(folder), label)
    return f"{label}: {len(samples)} samples on {name}; needs {wanted}"


def registry_files(name: str) -> tuple[Path, Path, Path]:
    """Sheet, FASTA and GTF of a data set of kind ``reads``; simulated ones are generated once, in the user's cache.

    Raises
    ------
    DataError
        If the data set is of another kind.
    """
    import pandas as pd  # here, since most jobs do without it

    entry = registry.entry(name)
    if entry.kind != "reads":
        raise DataError(f"{name}: is {entry.kind}, not reads; give a sample sheet, or a data set of kind reads")
    simulated = [spec for spec in entry.files.values() if spec.source == "simulated"]
    if simulated:
        folder = simulated_folder(name)
        return folder / "sheet.csv", folder / "genome.fa", folder / "annotation.gtf"
    if "runs" in entry.files:
        return (_fetched_runs(entry), *references.reference_files(entry.options["genome"]))
    if "samples" not in entry.options:
        raise DataError(f"{name}: says of no sample which files are its own; write a sample sheet")
    fetched = fetching.fetch(name)
    folder = paths.CACHE / name
    rows = [
        {"sample": sample} | {column: str(fetched[role].resolve()) for column, role in files.items()}
        for sample, files in entry.options["samples"].items()
    ]
    write_atomically(folder / "sheet.csv", pd.DataFrame(rows).to_csv(index=False))
    return folder / "sheet.csv", fetched["fasta"], fetched["gtf"]


def _fetched_runs(entry: registry.Entry) -> Path:
    """Fetch the reads of a series by its table of runs; gives their sheet, with what the series says of the group."""
    from epigen_utils.data import geo  # here, since it needs pandas

    fetched = fetching.fetch(entry.name)
    sheet, parts = sample_sheets.from_run_table(fetched["runs"])
    folder = paths.CACHE / entry.name / "fastq"
    for file, published in parts.items():
        if not published:
            remedy = "fetch it from NCBI (fasterq-dump), and give a sheet of your own"
            raise UnreachableError(f"{entry.name}: {file}: ENA has no such file yet; {remedy}")
        fetching.fetch_joined(entry.name, folder / file, published)
    stated = geo.read_sample_table(fetched["series"])
    groups = stated[entry.group].dropna().to_dict() if entry.group in stated else {}
    sheet["group"] = [groups.get(sample, "") for sample in sheet["sample"]]
    write_atomically(folder / "sheet.csv", sheet.to_csv(index=False))
    return folder / "sheet.csv"


def fetch_reads(name: str, say: Callable[[str], object]) -> bool:
    """Fetch the FASTQ files that a data set's table of runs names, and its genome; say a line, and whether all came."""
    try:
        sheet, *_ = registry_files(name)
    except DataError as error:
        say(f"{name}: reads: missing: {str(error).removeprefix(f'{name}: ')}")
        return False
    files = list(sheet.parent.glob("*.fastq.gz"))
    say(f"{name}: reads: {sheet.parent}, {len(files)} files, {sum(file.stat().st_size for file in files) / 1e9:.3g} GB")
    return True


def simulated_folder(name: str) -> Path:
    """Folder of a simulated data set of reads with its truth, generated again whenever the simulation has changed."""
    from epigen_utils.reads import simulated_reads

    entry = registry.entry(name)
    spec = next(iter(entry.files.values()))
    folder = paths.CACHE / name
    made_by = sha256(Path(simulated_reads.__file__))[:16] + json.dumps(spec.args, sort_keys=True)
    with folder_lock(folder.parent):
        if not (folder / "made_by").exists() or (folder / "made_by").read_text() != made_by:
            with whole_folder(folder) as part:
                getattr(simulated_reads, spec.simulated)(part, **spec.args)
                (part / "made_by").write_text(made_by)
    return folder


def run_pipeline(pipeline: Pipeline, *, cores: int = os.cpu_count() or 1) -> None:
    """Run a pipeline outside a build, by the same rules; finished steps are not repeated.

    Raises
    ------
    DataError
        With the error line of the failed step, and the path of its log.
    """
    pipeline.root.mkdir(parents=True, exist_ok=True)
    with folder_lock(pipeline.root):
        limits = processes.snakemake_limits(cores)
        command = processes.snakemake_command(paths.READS_RULES, pipeline.root, *limits, pipeline=pipeline.save())
        options = {"capture_output": True, "text": True, "check": False, "preexec_fn": processes.kill_with_parent}
        options["env"] = os.environ | {"PYTHONPATH": str(paths.ROOT)} | processes.build_environment(os.getpid())
        subprocess.run([*command, "--unlock"], **options)
        process = subprocess.run([*command, "--rerun-incomplete", "--keep-going"], **options)
    if process.returncode:
        lines = [line for line in process.stderr.splitlines() if line.strip()]
        errors = [line.removeprefix("epigen: ") for line in lines if line.startswith("epigen: ")]
        raise DataError(errors[0] if errors else f"reads to counts stopped: {''.join(lines[-1:]).strip()}")


def finished_pipeline(sheet: str, reads_dir: str, results_dir: str, **options) -> Pipeline:
    """A finished pipeline: that of a build, or one that is run now.

    Parameters
    ----------
    reads_dir
        Folder of a build's results; empty: run the rules now, under ``results_dir``.
    options
        Further arguments of `plan_pipeline`.

    Raises
    ------
    DataError
        If a result is missing.
    """
    folder = Path(reads_dir or Path(results_dir) / "reads")
    if not reads_dir:
        check_resources({"sheet": sheet} | options, folder, sheet)
    planned = plan_pipeline(sheet, folder, **options)
    if not reads_dir:
        run_pipeline(planned)
    for path in planned.results:
        if not path.exists():
            raise DataError(f"reads_dir {reads_dir}: no {path.name}; leave reads_dir empty, and the rules are run")
    return planned


def true_counts(sheet: str) -> "pd.DataFrame | None":
    """True fragment counts of a simulated data set, genes x samples; None for other data sets."""
    import pandas as pd

    if sheet not in registry.entries() or registry.entry(sheet).real:
        return None
    return pd.read_csv(simulated_folder(sheet) / "truth.csv", index_col="gene")


#: Modules that the rules of each kind depend on; a change in them makes the rules' results stale.
CODE_MODULES = {
    "checked": ("reads/sample_sheets", "data/sequence_files"),
    "tools": ("reads/pipeline_steps", "reads/command_lines"),
    "counts": ("reads/read_counts", "reads/tool_reports", "reads/pipeline_steps"),
}


def code_hash(kind: str) -> str:
    """Hash of the modules of `CODE_MODULES`."""
    return "-".join(sha256(paths.PACKAGE / f"{name}.py")[:12] for name in CODE_MODULES[kind])
