import gzip
import json
from dataclasses import replace

import pytest

from epigen_utils.errors import DataError
from epigen_utils.reads import pipeline, pipeline_steps, tool_reports
from epigen_utils.reads.sample_sheets import Sample


@pytest.fixture
def made(tmp_path):
    (tmp_path / "r.fastq").write_text("@r0\nACGT\n+\nIIII\n")
    return pipeline.Pipeline(str(tmp_path / "out"), (Sample("a", (str(tmp_path / "r.fastq"),)),), "/g.fa", "/g.gtf")


def test_a_step_leaves_a_record_and_no_room(made):
    with pipeline_steps._workspace(made, "align", "a") as room:
        room.call(["sh", "-c", "echo said; echo made > x"], into="out.txt")
        assert (room.folder / "out.txt").read_text() == "said\n"
        room.move("x", made.file("aligned", "a.bam"))
    assert made.file("aligned", "a.bam").read_text() == "made\n"
    record = json.loads((made.root / "records" / "align.a.json").read_text())
    assert record["commands"] == ["sh -c 'echo said; echo made > x' > out.txt"]
    assert record["seconds"] > 0
    assert record["versions"] == {}
    assert not list((made.root / "rooms").iterdir())


def test_a_tool_that_fails_is_said_in_one_line_and_leaves_nothing(made):
    script = "echo starting; echo 'EXITING because of FATAL ERROR: no memory'; touch half; exit 3"
    with pytest.raises(DataError) as caught, pipeline_steps._workspace(made, "align", "a") as room:
        room.call(["sh", "-c", script])
    log = made.root / "logs" / "align.a.log"
    assert str(caught.value) == f"sample a: align: sh stopped: EXITING because of FATAL ERROR: no memory (log: {log})"
    assert not list((made.root / "rooms").iterdir())
    assert not (made.root / "records").exists()


def test_a_tool_in_python_does_not_see_our_settings_and_its_last_line_is_told(made, monkeypatch):
    monkeypatch.setenv("PYTHONWARNINGS", "error")
    monkeypatch.setenv("PYTHONPATH", "/nowhere")
    with pipeline_steps._workspace(made, "multiqc", "") as room:
        room.call(["sh", "-c", "env"], into="env.txt")
        assert "PYTHON" not in (room.folder / "env.txt").read_text()
    with (
        pytest.raises(DataError, match="multiqc: python3 stopped: ZeroDivisionError: "),
        pipeline_steps._workspace(made, "multiqc", "") as room,
    ):
        room.call(["python3", "-c", "print('fine'); 1 / 0"])


def test_versions_are_those_of_the_tools_that_ran(made, monkeypatch):
    monkeypatch.setattr(pipeline_steps.command_lines, "tool_version", lambda tool: "1.2")
    monkeypatch.setitem(pipeline_steps.command_lines.VERSION_COMMANDS, "true", ["true"])
    with pipeline_steps._workspace(made, "align", "a") as room:
        room.call(["true"])
        room.call(["sh", "-c", "true"])
    assert tool_reports.tool_versions(made).to_dict("records") == [{"tool": "true", "version": "1.2"}]
    assert len(tool_reports.step_records(made)) == 1
    other = replace(made, samples=(replace(made.samples[0], name="b"),))
    assert tool_reports.tool_versions(other).empty, "a sample that is no longer in the sheet"


def test_a_genome_that_breaks_off(made, tmp_path):
    packed = gzip.compress(b">one\n" + b"ACGT\n" * 5000)
    (tmp_path / "g.fa.gz").write_bytes(packed[:-20])
    with pytest.raises(DataError, match=r"g\.fa\.gz: is no whole gzip; fetch it again"):
        pipeline_steps.build_index(replace(made, fasta=str(tmp_path / "g.fa.gz")), "", 1)


def test_the_entry_of_a_job_says_what_went_wrong(made, capsys):
    path = str(made.save())
    assert pipeline_steps.main(path, "checked", "a") == 0
    assert json.loads(made.file("checked", "a.json").read_text()) == {
        "reads": 1,
        "bases": 4,
        "shortest": 4,
        "longest": 4,
    }
    with open(made.samples[0].fastq[0], "a") as stream:
        stream.write("@r1\nAC")
    assert pipeline_steps.main(path, "checked", "a") == 1
    said = capsys.readouterr().err
    assert said.startswith("epigen: ")
    assert "r.fastq: read 2: " in said
    assert "Premature end of file" in said
    assert said.count("\n") == 1
