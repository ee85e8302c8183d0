"""Reports of the tools from reads to counts as tables; strandedness of the libraries."""

import contextlib
import io
import zipfile
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pandas as pd

from epigen_utils.errors import DataError, first_line
from epigen_utils.files import check_regular, read_json
from epigen_utils.reads.pipeline import Pipeline

#: Share of one strand from which a library is stranded; distance from one half within which it is unstranded.
STRANDED, UNSTRANDED = 0.8, 0.15
#: Minimum number of assigned fragments to determine the strand.
MIN_FRAGMENTS = 100


@contextlib.contextmanager
def _report(path: Path) -> Iterator[None]:
    """Say of which report an error is: a tool that was killed leaves half of one."""
    check_regular(path)
    try:
        yield
    except Exception as error:  # noqa: BLE001 - what is missing shows where it is used
        reason = first_line(error)
        raise DataError(
            f"{path}: not as its tool writes it ({reason}); delete it, and run the pipeline again"
        ) from None


def parse_star_log(path: Path) -> dict[str, float]:
    """Summary of STAR's ``Log.final.out``.

    Returns
    -------
    ``reads``; shares ``unique``, ``multiple`` (including too many loci), ``unmapped``; ``mismatches`` per base.
    """
    with _report(path):
        fields = {}
        for line in path.read_text().splitlines():
            key, _, value = line.partition("|")
            fields[key.strip()] = value.strip()

        def number(key: str) -> float:
            return float(fields.get(key, "0").rstrip("%"))

        reads = float(fields["Number of input reads"])
        unique = number("Uniquely mapped reads number")
        multiple = number("Number of reads mapped to multiple loci") + number("Number of reads mapped to too many loci")
        summary = {"reads": int(reads), "unique": unique / max(reads, 1), "multiple": multiple / max(reads, 1)}
        summary["unmapped"] = max(1 - summary["unique"] - summary["multiple"], 0.0)
        return summary | {"mismatches": number("Mismatch rate per base, %") / 100}


def parse_assignment(path: Path) -> dict[str, int]:
    """The ``.summary`` file of featureCounts: status -> number of fragments."""
    with _report(path):
        table = pd.read_csv(path, sep="\t", index_col=0)
        return {str(status): int(n) for status, n in table.iloc[:, 0].items()}


def sense_share(assigned: dict[str, int]) -> float:
    """Share of stranded assignments whose first read is on the strand of the RNA; one half if there are none."""
    either = assigned["forward"] + assigned["reverse"]
    return assigned["forward"] / either if either else 0.5


def detect_strandedness(assigned: dict[str, int], *, sample: str, stated: str = "auto") -> str:
    """Strandedness of a library, detected from the fragments counted on each strand.

    Parameters
    ----------
    assigned
        Number of fragments assigned when counted as ``forward``, ``reverse`` and ``unstranded``.
    stated
        Strandedness in the sample sheet.

    Returns
    -------
    The stated strandedness or, for ``auto``, the detected one.

    Raises
    ------
    DataError
        If the reads contradict the stated strandedness, or ``auto`` detects none.
    """
    either = assigned["forward"] + assigned["reverse"]
    share = sense_share(assigned)
    detected = "unstranded" if abs(share - 0.5) <= UNSTRANDED else ""
    detected = "forward" if share >= STRANDED else "reverse" if share <= 1 - STRANDED else detected
    where = f"sample {sample}: {share:.0%} of its {either:,} fragments in genes are on the strand of the RNA"
    if either < MIN_FRAGMENTS:
        if stated == "auto":
            raise DataError(
                f"sample {sample}: {either:,} fragments in genes, too few to tell the strand; state strandedness"
            )
        return stated
    if stated == "auto":
        if not detected:
            raise DataError(
                f"{where}, neither stranded nor unstranded; look at the library, then state strandedness in the sheet"
            )
        return detected
    if detected and detected != stated:
        raise DataError(
            f"{where}: {detected}, and the sheet says {stated}; "
            "correct the sheet, or swap fastq_1 and fastq_2 if these are exchanged"
        )
    return stated


def parse_fastqc(path: Path) -> dict[str, tuple[str, pd.DataFrame]]:
    """Contents of FastQC's archive: module -> verdict (``pass``, ``warn``, ``fail``) and table."""
    with _report(path):
        with zipfile.ZipFile(path) as opened:
            name = next(name for name in opened.namelist() if name.endswith("fastqc_data.txt"))
            text = opened.read(name).decode()
        modules = {}
        for block in text.split(">>END_MODULE")[:-1]:
            head, _, body = block[block.index(">>") + 2 :].partition("\n")
            module, verdict = head.split("\t")
            # Some modules have lines with a single value before their header.
            lines = body.splitlines()
            start = max((i for i, line in enumerate(lines) if line.startswith("#")), default=0)
            rows = "\n".join(lines[start:]).lstrip("#")
            modules[module] = (verdict, pd.read_csv(io.StringIO(rows), sep="\t") if rows.strip() else pd.DataFrame())
        return modules


def quality_by_position(pipeline: Pipeline, sample: str) -> pd.DataFrame:
    """Mean base quality by position, before and after trimming (fastp).

    Returns
    -------
    A row a mate, time and position: ``sample``, ``mate``, ``when``, ``position``, ``quality`` (Phred).
    """
    report = pipeline.read_json("fastp", f"{sample}.fastp")
    rows = []
    for mate in pipeline.by_name[sample].mates:
        for when in ("before", "after"):
            curve = report[f"read{mate}_{when}_filtering"]["quality_curves"]["mean"]
            table = pd.DataFrame({"position": np.arange(1, len(curve) + 1), "quality": curve})
            rows.append(table.assign(sample=sample, mate=mate, when=when))
    return pd.concat(rows, ignore_index=True)[["sample", "mate", "when", "position", "quality"]]


def share_complete_in_fastqc(pipeline: Pipeline) -> float:
    """Share of samples for which FastQC has processed all reads that the check of the files counted."""
    complete = []
    for sample in pipeline.by_name:
        reads = pipeline.read_json("checked", sample)["reads"]
        basics = [
            parse_fastqc(path)["Basic Statistics"][1].set_index("Measure")["Value"] for path in pipeline.fastqc(sample)
        ]
        complete.append(all(int(table["Total Sequences"]) == reads for table in basics))
    return float(np.mean(complete))


def fastqc_verdicts(pipeline: Pipeline) -> pd.DataFrame:
    """FastQC's verdicts, files x modules."""
    columns = {}
    for sample in pipeline.by_name:
        for path in pipeline.fastqc(sample):
            by_module = {module: verdict for module, (verdict, _) in parse_fastqc(path).items()}
            columns[path.name.removesuffix("_fastqc.zip")] = by_module
    return pd.DataFrame(columns).T.rename_axis("file")


def sample_summary(pipeline: Pipeline) -> pd.DataFrame:
    """Summary of all steps, a row a sample.

    Returns
    -------
    ``sample``, ``group``, ``donor``, ``library`` (``paired``, ``single``)
    ``strandedness`` of the counts, ``stated`` in the sheet, ``on the strand`` (share, `sense_share`)
    ``reads``: a pair counts once
    ``with adapter``: share of mates with an adapter
    ``kept``: share of reads left after trimming
    ``duplicates``: share of mapped reads
    ``unique``, ``multiple``, ``unmapped``: shares of the trimmed reads
    ``assigned``, ``no exon``, ``ambiguous``, ``multimapping``, ``other``: shares of the alignments in featureCounts
    """
    rows = []
    for name, sample in pipeline.by_name.items():
        trimming = pipeline.read_json("fastp", f"{name}.fastp")
        before, after = (trimming["summary"][f"{when}_filtering"]["total_reads"] for when in ("before", "after"))
        counting = pipeline.read_json("counted", name)
        row = {"sample": name, "group": sample.group, "donor": sample.donor}
        row["library"] = "paired" if sample.paired else "single"
        row |= {"strandedness": counting["strandedness"], "stated": counting["stated"]}
        row["on the strand"] = sense_share(counting["assigned"])
        row["reads"] = pipeline.read_json("checked", name)["reads"]
        row["with adapter"] = trimming.get("adapter_cutting", {}).get("adapter_trimmed_reads", 0) / max(before, 1)
        row["kept"] = after / max(before, 1)
        row["duplicates"] = duplicate_share(pipeline.file("aligned", f"{name}.stats.txt"))
        mapped = parse_star_log(pipeline.file("aligned", f"{name}.Log.final.out"))
        row |= {key: mapped[key] for key in ("unique", "multiple", "unmapped")}
        rows.append(row | assignment_shares(parse_assignment(pipeline.file("counted", f"{name}.txt.summary"))))
    return pd.DataFrame(rows)


def duplicate_share(path: Path) -> float:
    """Share of mapped reads that are marked as duplicates, from ``samtools stats``."""
    with _report(path):
        numbers = dict(line.split("\t")[1:3] for line in path.read_text().splitlines() if line.startswith("SN\t"))
        return int(numbers["reads duplicated:"]) / max(int(numbers["reads mapped:"]), 1)


def assignment_shares(statuses: dict[str, int]) -> dict[str, float]:
    """Statuses of featureCounts as shares of all but the unmapped reads.

    Returns
    -------
    ``assigned``, ``no exon``, ``ambiguous``, ``multimapping``, ``other``.
    """
    n = {status: count for status, count in statuses.items() if status != "Unassigned_Unmapped"}
    total = max(sum(n.values()), 1)
    columns = {"assigned": "Assigned", "no exon": "Unassigned_NoFeatures", "ambiguous": "Unassigned_Ambiguity"}
    columns["multimapping"] = "Unassigned_MultiMapping"
    by_column = {column: n.get(status, 0) / total for column, status in columns.items()}
    return by_column | {"other": max(1 - sum(by_column.values()), 0.0)}


def _step_records(pipeline: Pipeline) -> list[dict]:
    """Records of the steps, without those of samples that the sheet no longer lists."""
    paths = sorted((pipeline.root / "records").glob("*.json"))
    all_records = [read_json(path, "delete it, and run the pipeline again") for path in paths]
    return [record for record in all_records if record.get("sample") in {"", *pipeline.by_name}]


def step_records(pipeline: Pipeline) -> pd.DataFrame:
    """Time and commands of every step, in order: ``step``, ``sample``, ``seconds``, ``cpu_seconds``, ``commands``."""
    table = pd.DataFrame(_step_records(pipeline))
    order = ["checked", "fastqc", "fastp", "index", "align", "count", "merge", "multiqc"]
    table["commands"] = ["\n".join(commands) for commands in table["commands"]]
    table["place"] = table["step"].map(order.index)
    columns = ["step", "sample", "seconds", "cpu_seconds", "commands"]
    return table.sort_values(["place", "sample"], kind="stable")[columns].reset_index(drop=True)


def tool_versions(pipeline: Pipeline) -> pd.DataFrame:
    """Versions of the tools when they ran: ``tool``, ``version`` (several if steps ran with different versions)."""
    by_tool: dict[str, set[str]] = {}
    for record in _step_records(pipeline):
        for tool, version in record["versions"].items():
            by_tool.setdefault(tool, set()).add(version)
    rows = [{"tool": tool, "version": ", ".join(sorted(by_tool[tool]))} for tool in sorted(by_tool)]
    return pd.DataFrame(rows)


def time_by_step(table: pd.DataFrame) -> pd.DataFrame:
    """`step_records` summed over samples: ``step``, ``jobs``, ``seconds`` and their ``share`` of the total."""
    steps = table.groupby("step", sort=False).agg(jobs=("seconds", "size"), seconds=("seconds", "sum")).reset_index()
    return steps.assign(share=steps["seconds"] / steps["seconds"].sum())


def parabricks_note(pipeline: Pipeline) -> str:
    """Note on whether this run used Parabricks."""
    if pipeline.aligner == "parabricks":
        return (
            "Parabricks aligned these reads. STAR was not run on the same reads, so the speed-up of this step was not "
            "measured."
        )
    return (
        "Parabricks was not run here: its container needs a GPU, and `aligner: parabricks` builds the documented "
        "command (`pbrun rna_fq2bam`) for those who have one."
    )


def overall_speedup(table: pd.DataFrame, *, step: str, speedup: float) -> float:
    """Speed-up of the pipeline if one step is ``speedup`` times faster (Amdahl's law), by `time_by_step`."""
    share = float(table.loc[table["step"] == step, "share"].sum())
    return 1 / (1 - share + share / speedup)
