import json
import types
import zipfile

import pytest

from epigen_utils.errors import DataError
from epigen_utils.reads import pipeline, tool_reports
from epigen_utils.reads.sample_sheets import Sample

STAR = """                          Number of input reads |\t2000
                   Uniquely mapped reads number |\t1800
                      Mismatch rate per base, % |\t0.50%
        Number of reads mapped to multiple loci |\t90
        Number of reads mapped to too many loci |\t10
"""


def test_the_log_of_star(tmp_path):
    (tmp_path / "Log.final.out").write_text(STAR)
    found = tool_reports.parse_star_log(tmp_path / "Log.final.out")
    assert found == pytest.approx(
        {"reads": 2000, "unique": 0.9, "multiple": 0.05, "unmapped": 0.05, "mismatches": 0.005}
    )


def test_shares_of_what_is_assigned(tmp_path):
    (tmp_path / "x.summary").write_text(
        "Status\ts.bam\nAssigned\t80\nUnassigned_Unmapped\t50\nUnassigned_NoFeatures\t10\nUnassigned_Chimera\t10\n"
    )
    found = tool_reports.assignment_shares(tool_reports.parse_assignment(tmp_path / "x.summary"))
    assert found == pytest.approx({"assigned": 0.8, "no exon": 0.1, "ambiguous": 0, "multimapping": 0, "other": 0.1})


@pytest.mark.parametrize(
    ("forward", "reverse", "found"),
    [(950, 50, "forward"), (30, 970, "reverse"), (480, 520, "unstranded"), (80, 20, "forward")],
)
def test_strandedness_follows_the_reads(forward, reverse, found):
    assigned = {"forward": forward, "reverse": reverse, "unstranded": forward + reverse}
    assert tool_reports.detect_strandedness(assigned, sample="a") == found
    assert tool_reports.detect_strandedness(assigned, sample="a", stated=found) == found


@pytest.mark.parametrize(
    ("forward", "reverse", "stated", "said"),
    [
        (
            700,
            300,
            "auto",
            "sample a: 70% of its 1,000 fragments in genes are on the strand of the RNA, neither stranded nor unstranded",
        ),
        (
            30,
            970,
            "forward",
            "sample a: 3% of its 1,000 fragments in genes are on the strand of the RNA: reverse, and the sheet says forward",
        ),
        (
            500,
            500,
            "reverse",
            ": unstranded, and the sheet says reverse; correct the sheet, or swap fastq_1 and fastq_2",
        ),
        (9, 1, "auto", "sample a: 10 fragments in genes, too few to tell the strand; state strandedness"),
    ],
)
def test_what_the_sheet_must_not_say(forward, reverse, stated, said):
    with pytest.raises(DataError) as caught:
        tool_reports.detect_strandedness(
            {"forward": forward, "reverse": reverse, "unstranded": 0}, sample="a", stated=stated
        )
    assert said in str(caught.value)


def test_what_is_stated_stands_where_the_reads_say_nothing():
    assert (
        tool_reports.detect_strandedness({"forward": 3, "reverse": 2, "unstranded": 5}, sample="a", stated="reverse")
        == "reverse"
    )
    assert (
        tool_reports.detect_strandedness(
            {"forward": 700, "reverse": 300, "unstranded": 0}, sample="a", stated="forward"
        )
        == "forward"
    )


def test_fastqc_s_archive(tmp_path):
    text = (
        "##FastQC\t0.11.9\n>>Basic Statistics\tpass\n#Measure\tValue\nTotal Sequences\t5\n>>END_MODULE\n"
        ">>Sequence Duplication Levels\twarn\n#Total Deduplicated Percentage\t80.0\n#Duplication Level\tPercentage of total\n1\t67\n>>END_MODULE\n"
        ">>Overrepresented sequences\tfail\n>>END_MODULE\n"
    )
    with zipfile.ZipFile(tmp_path / "a_1_fastqc.zip", "w") as archive:
        archive.writestr("a_1_fastqc/fastqc_data.txt", text)
    found = tool_reports.parse_fastqc(tmp_path / "a_1_fastqc.zip")
    assert [verdict for verdict, _ in found.values()] == ["pass", "warn", "fail"]
    assert found["Sequence Duplication Levels"][1].columns.tolist() == ["Duplication Level", "Percentage of total"]
    assert found["Overrepresented sequences"][1].empty


def test_fastqc_must_have_read_what_was_checked(tmp_path):
    made = pipeline.Pipeline(str(tmp_path), (Sample("a", ("/1.fq",)), Sample("b", ("/2.fq",))), "/g.fa", "/g.gtf")
    for folder in ("fastqc", "checked"):
        (tmp_path / folder).mkdir()
    text = "##FastQC\t0.11.9\n>>Basic Statistics\tpass\n#Measure\tValue\nTotal Sequences\t5\n>>END_MODULE\n"
    for name, n in (("a", 5), ("b", 6)):
        with zipfile.ZipFile(tmp_path / "fastqc" / f"{name}_1_fastqc.zip", "w") as archive:
            archive.writestr("x/fastqc_data.txt", text)
        made.file("checked", f"{name}.json").write_text(json.dumps({"reads": n}))
    assert tool_reports.share_complete_in_fastqc(made) == 0.5


def test_time_by_step_and_what_a_faster_one_gives(tmp_path):
    (tmp_path / "records").mkdir()
    for step, sample, seconds in (("align", "a", 30), ("align", "b", 40), ("fastp", "a", 10), ("multiqc", "", 20)):
        record = {
            "step": step,
            "sample": sample,
            "seconds": seconds,
            "cpu_seconds": seconds,
            "commands": [f"{step} x", "y"],
            "versions": {},
        }
        (tmp_path / "records" / f"{step}.{sample}.json").write_text(json.dumps(record))
    records = tool_reports.step_records(types.SimpleNamespace(root=tmp_path, by_name=["a", "b"]))
    assert records["step"].tolist() == ["fastp", "align", "align", "multiqc"]
    assert records["commands"].iloc[0] == "fastp x\ny"
    table = tool_reports.time_by_step(records)
    assert table.set_index("step")["share"].to_dict() == pytest.approx({"fastp": 0.1, "align": 0.7, "multiqc": 0.2})
    assert tool_reports.overall_speedup(table, step="align", speedup=7) == pytest.approx(1 / 0.4)
    assert tool_reports.overall_speedup(table, step="align", speedup=1e9) == pytest.approx(1 / 0.3)


@pytest.mark.parametrize(("aligner", "said"), [("star", "was not run here"), ("parabricks", "Parabricks aligned")])
def test_what_is_said_of_parabricks(aligner, said):
    assert said in tool_reports.parabricks_note(types.SimpleNamespace(aligner=aligner))


def test_duplicates_of_samtools_stats(tmp_path):
    (tmp_path / "s.txt").write_text("# x\nSN\treads mapped:\t200\nSN\treads duplicated:\t30\t# marked\nFFQ\t1\n")
    assert tool_reports.duplicate_share(tmp_path / "s.txt") == pytest.approx(0.15)


@pytest.mark.parametrize(
    "parse",
    [
        tool_reports.parse_star_log,
        tool_reports.parse_assignment,
        tool_reports.parse_fastqc,
        tool_reports.duplicate_share,
    ],
)
@pytest.mark.parametrize("content", [b"", b"\xff\xfe", b"half a repo", b"PK\x05\x06" + bytes(18)])
def test_half_of_a_report_is_one_line(tmp_path, parse, content):
    (tmp_path / "report").write_bytes(content)
    with pytest.raises(DataError, match="report: not as its tool writes it .*; delete it, and run the pipeline again"):
        parse(tmp_path / "report")
