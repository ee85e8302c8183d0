import gzip

import pytest

from epigen_utils.data import sequence_files
from epigen_utils.errors import DataError

FASTQ = "".join(f"@r{i} {i % 97} {i**3}\n{'ACGT' * 10}\n+\n{'IIII' * 10}\n" for i in range(5000)).encode()


@pytest.mark.parametrize("name", ["a.fq", "a.fq.gz", "packed without the suffix.fq"])
def test_reads_of_plain_and_packed_files(tmp_path, name):
    (tmp_path / name).write_bytes(FASTQ if name == "a.fq" else gzip.compress(FASTQ))
    reads = list(sequence_files.read_fastq(tmp_path / name))
    assert len(reads) == 5000
    assert reads[1].name == "r1 1 1"
    assert reads[1].id == "r1"
    assert len(reads[1]) == 40


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda packed: packed[: len(packed) // 2], r"a\.fq\.gz: cannot be read after read 2,\d+ \(.*; fetch it again"),
        (lambda packed: packed[:100] + bytes(20) + packed[120:], r"a\.fq\.gz: cannot be read after read 0 \("),
        (lambda packed: packed[:-8] + bytes(8), r"a\.fq\.gz: cannot be read after read \d,\d+ \(.*CRC"),
    ],
)
def test_a_damaged_packed_file_is_one_line(tmp_path, change, message):
    (tmp_path / "a.fq.gz").write_bytes(change(gzip.compress(FASTQ)))
    with pytest.raises(DataError, match=message) as caught:
        list(sequence_files.read_fastq(tmp_path / "a.fq.gz"))
    assert "\n" not in str(caught.value)


def test_sequences_of_a_file_with_comments_and_dos_line_breaks(tmp_path):
    (tmp_path / "a.fa").write_bytes(b"> one first\r\nACGU\r\nacgt\r\n\r\n>two\r\nNNAC\r\n")
    assert list(sequence_files.read_fasta(tmp_path / "a.fa")) == [("one", "ACGUacgt"), ("two", "NNAC")]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"ACGT\n", "sequence 1: Error in FASTA file at line 1: Expected '>'"),
        (b">a\nAC\n>a\nAC\n", "sequence 2: 'a' is there twice; correct its header"),
        (b">\nAC\n", "sequence 1: no name; correct its header"),
        (b">a\n", "holds no sequence; give a FASTA file"),
        (b">a\nAC\xe9T\n", "cannot be read after sequence 0"),
    ],
)
def test_defects_of_a_fasta_file_are_one_line(tmp_path, content, message):
    (tmp_path / "a.fa").write_bytes(content)
    with pytest.raises(DataError) as caught:
        list(sequence_files.read_fasta(tmp_path / "a.fa"))
    assert f"a.fa: {message}" in str(caught.value)
    assert "\n" not in str(caught.value)
