import shutil
import subprocess

import pytest

from epigen_utils.reads import command_lines

#: Options of `pbrun rna_fq2bam` that its documentation (version 4) lists, as far as the command could use them.
DOCUMENTED = {
    "--ref",
    "--in-fq",
    "--in-se-fq",
    "--genome-lib-dir",
    "--output-dir",
    "--out-bam",
    "--out-prefix",
    "--read-files-command",
    "--two-pass-mode",
    "--num-threads",
    "--num-gpus",
    "--no-markdups",
    "--out-sam-unmapped",
    "--tmp-dir",
}


REQUIRED = {"--ref", "--genome-lib-dir", "--output-dir", "--out-bam"}


@pytest.mark.parametrize("files", [["1.fastq.gz", "2.fastq.gz"], ["1.fastq.gz"]])
def test_the_parabricks_command_is_the_documented_one(files):
    command = command_lines.parabricks_align(files, "ko_1", 8)
    assert command[:2] == ["pbrun", "rna_fq2bam"]
    options = {word for word in command if word.startswith("--")}
    assert REQUIRED <= options <= DOCUMENTED
    given = "--in-fq" if len(files) == 2 else "--in-se-fq"
    place = command.index(given)
    assert command[place + 1 : place + 1 + len(files)] == files
    group = command[place + 1 + len(files)]
    assert group.startswith("@RG\\tID:")
    assert "SM:ko_1" in group
    assert command[command.index("--two-pass-mode") + 1] == "Basic"
    assert command[command.index("--read-files-command") + 1] == "zcat"


def test_the_index_is_scaled_as_star_s_manual_asks():
    def value(command, option):
        return int(command[command.index(option) + 1])

    small = command_lines.star_index(330_000, 2, 2, 0)
    assert value(small, "--genomeSAindexNbases") == 8
    assert value(small, "--genomeChrBinNbits") == 17
    human = command_lines.star_index(3_100_000_000, 194, 16, 33_000_000_000)
    assert value(human, "--genomeSAindexNbases") == 14
    assert value(human, "--genomeChrBinNbits") == 18
    assert value(human, "--limitGenomeGenerateRAM") == 33_000_000_000
    assert value(command_lines.star_index(10**9, 10**6, 1, 0), "--genomeChrBinNbits") == 9


def test_paired_and_single_reads():
    paired, single = (command_lines.fastp(["1"] * n, ["a", "b"][:n], "s", 2) for n in (2, 1))
    assert "--in2" in paired
    assert "--in2" not in single
    assert paired[paired.index("--adapter_sequence_r2") + 1] == command_lines.ADAPTER
    assert "--adapter_sequence" not in command_lines.fastp(["1"], ["a"], "s", 2, "auto")
    assert "--detect_adapter_for_pe" in command_lines.fastp(["1", "2"], ["a", "b"], "s", 2, "auto")
    assert "--countReadPairs" in command_lines.feature_counts("a.bam", "reverse", True, 1)
    assert "-p" not in command_lines.feature_counts("a.bam", "reverse", False, 1)
    assert [
        command_lines.feature_counts("a.bam", name, True, 1)[4] for name in ("unstranded", "forward", "reverse")
    ] == [
        "0",
        "1",
        "2",
    ]
    assert command_lines.star_align(["1", "2"], "s", 4)[6:8] == ["1", "2"]


@pytest.mark.skipif(not shutil.which("STAR"), reason="STAR is not installed (make tools)")
def test_every_option_of_star_is_one_that_it_knows():
    known = subprocess.run(["STAR", "--help"], capture_output=True, text=True, check=True).stdout
    for command in (command_lines.star_index(10**6, 3, 1, 0), command_lines.star_align(["1"], "s", 1)):
        for option in [word[2:] for word in command if word.startswith("--")]:
            assert f"\n{option} " in known, option


def test_a_tool_that_is_not_there_has_no_version(monkeypatch):
    monkeypatch.setattr(command_lines.shutil, "which", lambda tool: None)
    command_lines.tool_version.cache_clear()
    assert command_lines.tool_version("STAR") == ""
    command_lines.tool_version.cache_clear()


def test_sorting_keeps_within_the_memory_that_is_asked_for():
    def each(threads, memory):
        command = command_lines.sort_and_mark(threads, memory)[1]
        return int(command[command.index("-m") + 1].removesuffix("M"))

    assert each(8, 32_000_000_000) == 768
    assert 8 * each(8, 1_500_000_000) <= 1500
