"""What the tools from reads to counts say, as tables; and which strand a library is of."""

import io
import json
import zipfile
from pathlib import Path

import numpy as np
import pandas as pd

from epigen_utils.errors import DataError
from epigen_utils.reads import Pipeline

#: A library is stranded where one strand has this share of what either has, and unstranded within the second of one half.
STRANDED, UNSTRANDED = 0.8, 0.15
#: Assigned fragments below which nothing is said of the strand.
FEWEST = 100


def star_log(path: Path) -> dict[str, float]:
    """STAR's ``Log.final.out``: ``reads``; shares ``unique``, ``multiple`` (also to too many places), ``unmapped``; ``mismatches`` by base."""
    said = {}
    for line in path.read_text().splitlines():
        key, _, value = line.partition("|")
        said[key.strip()] = value.strip()

    def number(key: str) -> float:
        return float(said.get(key, "0").rstrip("%"))

    reads = number("Number of input reads")
    unique = number("Uniquely mapped reads number")
    multiple = number("Number of reads mapped to multiple loci") + number("Number of reads mapped to too many loci")
    found = {"reads": int(reads), "unique": unique / max(reads, 1), "multiple": multiple / max(reads, 1)}
    found["unmapped"] = max(1 - found["unique"] - found["multiple"], 0.0)
    return found | {"mismatches": number("Mismatch rate per base, %") / 100}


def assignment(path: Path) -> dict[str, int]:
    """The ``.summary`` of featureCounts: status -> fragments."""
    table = pd.read_csv(path, sep="\t", index_col=0)
    return {str(status): int(n) for status, n in table.iloc[:, 0].items()}


def on_strand(assigned: dict[str, int]) -> float:
    """Share of the fragments assigned on either strand whose first read is on that of the RNA; a half where there are none."""
    either = assigned["forward"] + assigned["reverse"]
    return assigned["forward"] / either if either else 0.5


def strandedness(assigned: dict[str, int], *, sample: str, stated: str = "auto") -> str:
    """Which strand the first reads of a library are of, by what counting finds on either.

    Parameters
    ----------
    assigned
        Fragments that are assigned when counted as ``forward``, ``reverse`` and ``unstranded``.
    stated
        What the sample sheet says.

    Returns
    -------
    The stated one, or, for ``auto``, the one that is found.

    Raises
    ------
    DataError
        If the reads have another than the stated one, or ``auto`` finds none.
    """
    either = assigned["forward"] + assigned["reverse"]
    share = on_strand(assigned)
    found = "unstranded" if abs(share - 0.5) <= UNSTRANDED else ""
    found = "forward" if share >= STRANDED else "reverse" if share <= 1 - STRANDED else found
    where = f"sample {sample}: {share:.0%} of its {either:,} fragments in genes are on the strand of the RNA"
    if either < FEWEST:
        if stated == "auto":
            raise DataError(
                f"sample {sample}: {either:,} fragments in genes, too few to tell the strand; state strandedness"
            )
        return stated
    if stated == "auto":
        if not found:
            raise DataError(
                f"{where}, neither stranded nor unstranded; look at the library, then state strandedness in the sheet"
            )
        return found
    if found and found != stated:
        raise DataError(
            f"{where}: {found}, and the sheet says {stated}; mend the sheet, or swap fastq_1 and fastq_2 if these are exchanged"
        )
    return stated


def fastqc_modules(path: Path) -> dict[str, tuple[str, pd.DataFrame]]:
    """FastQC's archive: module -> its verdict (``pass``, ``warn``, ``fail``) and table."""
    with zipfile.ZipFile(path) as opened:
        name = next(name for name in opened.namelist() if name.endswith("fastqc_data.txt"))
        text = opened.read(name).decode()
    found = {}
    for block in text.split(">>END_MODULE")[:-1]:
        head, _, body = block[block.index(">>") + 2 :].partition("\n")
        module, verdict = head.split("\t")
        # Some modules have lines of one value before their header.
        lines = body.splitlines()
        start = max((i for i, line in enumerate(lines) if line.startswith("#")), default=0)
        rows = "\n".join(lines[start:]).lstrip("#")
        found[module] = (verdict, pd.read_csv(io.StringIO(rows), sep="\t") if rows.strip() else pd.DataFrame())
    return found


def qualities(made: Pipeline, sample: str) -> pd.DataFrame:
    """Mean quality by position, before and after trimming, by fastp: ``sample``, ``mate``, ``when``, ``position``, ``quality`` (Phred)."""
    said = json.loads(made.file("fastp", f"{sample}.fastp.json").read_text())
    rows = []
    for mate in range(1, len(made.by_name[sample].fastq) + 1):
        for when in ("before", "after"):
            curve = said[f"read{mate}_{when}_filtering"]["quality_curves"]["mean"]
            table = pd.DataFrame({"position": np.arange(1, len(curve) + 1), "quality": curve})
            rows.append(table.assign(sample=sample, mate=mate, when=when))
    return pd.concat(rows, ignore_index=True)[["sample", "mate", "when", "position", "quality"]]


def seen_by_fastqc(made: Pipeline) -> float:
    """Share of samples of which FastQC has read every file to its end: as many reads as were counted when the files were checked."""
    seen = []
    for sample in made.by_name:
        reads = json.loads(made.file("checked", f"{sample}.json").read_text())["reads"]
        basics = [
            fastqc_modules(path)["Basic Statistics"][1].set_index("Measure")["Value"] for path in made.fastqc(sample)
        ]
        seen.append(all(int(found["Total Sequences"]) == reads for found in basics))
    return float(np.mean(seen))


def verdicts(made: Pipeline) -> pd.DataFrame:
    """FastQC's verdicts, files x modules."""
    rows = {}
    for sample in made.by_name:
        for path in made.fastqc(sample):
            rows[path.name.removesuffix("_fastqc.zip")] = {
                module: verdict for module, (verdict, _) in fastqc_modules(path).items()
            }
    return pd.DataFrame(rows).T.rename_axis("file")


def samples(made: Pipeline) -> pd.DataFrame:
    """A row a sample, from what every step left.

    Returns
    -------
    ``sample``, ``group``, ``donor``, ``library``, ``strandedness``, ``stated``, ``on the strand`` (`on_strand`); ``reads`` (pairs count once); ``with adapter`` (share of the
    mates that an adapter was cut off), ``kept`` (after trimming, share of the reads), ``duplicates`` (share of what is aligned);
    ``unique``, ``multiple``, ``unmapped`` (shares of the trimmed reads); ``assigned``, ``no exon``, ``ambiguous``, ``multimapping`` and ``other``
    (shares of the alignments that featureCounts reads).
    """
    rows = []
    for name, sample in made.by_name.items():
        trimming = json.loads(made.file("fastp", f"{name}.fastp.json").read_text())
        before, after = (trimming["summary"][f"{when}_filtering"]["total_reads"] for when in ("before", "after"))
        told = json.loads(made.file("counted", f"{name}.json").read_text())
        row = {
            "sample": name,
            "group": sample.group,
            "donor": sample.donor,
            "library": "paired" if sample.paired else "single",
        }
        row |= {
            "strandedness": told["strandedness"],
            "stated": told["stated"],
            "on the strand": on_strand(told["assigned"]),
        }
        row["reads"] = json.loads(made.file("checked", f"{name}.json").read_text())["reads"]
        row["with adapter"] = trimming.get("adapter_cutting", {}).get("adapter_trimmed_reads", 0) / max(before, 1)
        row |= {"kept": after / max(before, 1), "duplicates": duplicates(made.file("aligned", f"{name}.stats.txt"))}
        mapped = star_log(made.file("aligned", f"{name}.Log.final.out"))
        row |= {key: mapped[key] for key in ("unique", "multiple", "unmapped")}
        rows.append(row | shares(assignment(made.file("counted", f"{name}.txt.summary"))))
    return pd.DataFrame(rows)


def duplicates(path: Path) -> float:
    """Share of mapped reads that are marked as duplicates, of ``samtools stats``."""
    said = dict(line.split("\t")[1:3] for line in path.read_text().splitlines() if line.startswith("SN\t"))
    return int(said["reads duplicated:"]) / max(int(said["reads mapped:"]), 1)


def shares(statuses: dict[str, int]) -> dict[str, float]:
    """Statuses of featureCounts as shares: ``assigned``, ``no exon``, ``ambiguous``, ``multimapping``, ``other``; unmapped reads are no part."""
    n = {status: count for status, count in statuses.items() if status != "Unassigned_Unmapped"}
    whole = max(sum(n.values()), 1)
    named = {"assigned": "Assigned", "no exon": "Unassigned_NoFeatures", "ambiguous": "Unassigned_Ambiguity"}
    named["multimapping"] = "Unassigned_MultiMapping"
    found = {name: n.get(status, 0) / whole for name, status in named.items()}
    return found | {"other": max(1 - sum(found.values()), 0.0)}


def _recorded(made: Pipeline) -> list[dict]:
    """Records of the steps of the samples that the sheet has now."""
    found = [json.loads(path.read_text()) for path in sorted((made.root / "records").glob("*.json"))]
    return [record for record in found if record["sample"] in {"", *made.by_name}]


def records(made: Pipeline) -> pd.DataFrame:
    """What every step took: ``step``, ``sample``, ``seconds``, ``cpu_seconds``, ``commands``; in the order of the steps."""
    table = pd.DataFrame(_recorded(made))
    order = ["checked", "fastqc", "fastp", "index", "align", "count", "merge", "multiqc"]
    table["commands"] = ["\n".join(commands) for commands in table["commands"]]
    table["place"] = table["step"].map(order.index)
    columns = ["step", "sample", "seconds", "cpu_seconds", "commands"]
    return table.sort_values(["place", "sample"], kind="stable")[columns].reset_index(drop=True)


def versions(made: Pipeline) -> pd.DataFrame:
    """Versions that the tools had when they ran: ``tool``, ``version`` (several, where steps were run at different times)."""
    found: dict[str, set[str]] = {}
    for record in _recorded(made):
        for tool, version in record["versions"].items():
            found.setdefault(tool, set()).add(version)
    return pd.DataFrame([{"tool": tool, "version": ", ".join(sorted(said))} for tool, said in sorted(found.items())])


def by_step(table: pd.DataFrame) -> pd.DataFrame:
    """`records` summed over samples: ``step``, ``jobs``, ``seconds`` and ``share`` of all."""
    found = table.groupby("step", sort=False).agg(jobs=("seconds", "size"), seconds=("seconds", "sum")).reset_index()
    return found.assign(share=found["seconds"] / found["seconds"].sum())


def of_parabricks(made: Pipeline) -> str:
    """Whether this run says anything of Parabricks."""
    if made.aligner == "parabricks":
        return "Alignment here was by Parabricks; STAR was not run beside it, so that how much faster it is was not measured."
    return (
        "Parabricks was not run here: its container needs a GPU, and `aligner: parabricks` builds the documented command "
        "(`pbrun rna_fq2bam`) for those who have one."
    )


def whole_speedup(table: pd.DataFrame, *, step: str, times: float) -> float:
    """How many times faster all of it is when one step is so many times faster (Amdahl's law), for the shares of `by_step`."""
    share = float(table.loc[table["step"] == step, "share"].sum())
    return 1 / (1 - share + share / times)
