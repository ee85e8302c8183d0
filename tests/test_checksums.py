import hashlib
import subprocess

import pytest

from epigen_utils import checksums, registry
from epigen_utils.errors import DataError


@pytest.fixture
def path(tmp_path):
    file = tmp_path / "genome.fa.gz"
    file.write_bytes(bytes(range(256)) * 20)
    return file


def test_md5_lists(path):
    digest = hashlib.md5(path.read_bytes()).hexdigest()
    checksums.check(path, "genome.fa.gz", f"{'0' * 32}  other.fa.gz\n{digest}  genome.fa.gz\n", "list")
    with pytest.raises(DataError, match=f"genome.fa.gz: checksum {digest}, and list says {'0' * 32}; fetch it again"):
        checksums.check(path, "genome.fa.gz", f"{'0' * 32}  ./genome.fa.gz\n", "list")
    assert not path.exists()


def test_lists_of_sum(path):
    said = subprocess.run(["sum", path], capture_output=True, text=True, check=True).stdout.split()[:2]
    checksums.check(path, "genome.fa.gz", f"{said[0]} {said[1]} genome.fa.gz\n", "list")
    with pytest.raises(DataError, match="and list says 7 5; fetch it again"):
        checksums.check(path, "genome.fa.gz", "00007 5 genome.fa.gz\n", "list")


def test_a_list_without_the_file(path):
    with pytest.raises(DataError, match=r"list: does not list genome\.fa\.gz"):
        checksums.check(path, "genome.fa.gz", "00007 5 other.fa.gz\n", "list")


ENTRY = """
tiny:
  title: t
  species: mus_musculus
  kind: reference
  real: true
  licence: l
  citation: c
  card: c
  files:
    fasta: {{url: {0}/g.fa, checksums: {0}/SUMS}}
"""


def test_a_reference_is_fetched_checked_and_remembered(serve, cache, with_registry):
    """Of a local server: the genome, then the publisher's list; what was seen first is kept as its SHA-256."""
    address, folder, asked = serve
    (folder / "g.fa").write_text(">one\nACGT\n")
    with_registry(ENTRY.format(address))
    (folder / "SUMS").write_text(f"{'0' * 32} g.fa\n")
    with pytest.raises(DataError, match="checksum .*, and .*/SUMS says 0000"):
        registry.fetch("tiny")
    assert not list(cache.rglob("g.fa"))
    (folder / "SUMS").write_text(f"{hashlib.md5((folder / 'g.fa').read_bytes()).hexdigest()} g.fa\n")
    found = registry.fetch("tiny")["fasta"]
    assert found.read_text() == ">one\nACGT\n"
    n = len(asked)
    registry.fetch("tiny")
    assert len(asked) == n
    found.write_text("changed")
    registry.fetch("tiny")
    assert found.read_text() == ">one\nACGT\n"


def test_a_file_whose_list_could_not_be_had_is_checked_at_the_next_call(serve, cache, with_registry):
    address, folder, _ = serve
    (folder / "g.fa").write_text(">one\nACGT\n")
    with_registry(ENTRY.format(address))
    with pytest.raises(DataError, match="SUMS: cannot be"):
        registry.fetch("tiny")
    (folder / "SUMS").write_text(f"{'0' * 32} g.fa\n")
    with pytest.raises(DataError, match="checksum .*, and .*/SUMS says 0000"):
        registry.fetch("tiny")
    (folder / "SUMS").write_text(f"{hashlib.md5((folder / 'g.fa').read_bytes()).hexdigest()} g.fa\n")
    assert registry.fetch("tiny")["fasta"].read_text() == ">one\nACGT\n"
