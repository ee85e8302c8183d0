import gzip
import types

import pytest

from epigen_utils.errors import DataError
from epigen_utils.reads import references

FASTA = ">one first\nACGTAC\nGT\n>two\nACGT\n"


def exon(chromosome="one", start=1, end=4, attributes='gene_id "g1"; gene_name "Gria1";'):
    return "\t".join([chromosome, "x", "exon", str(start), str(end), ".", "+", ".", attributes]) + "\n"


@pytest.fixture
def files(tmp_path):
    def write(fasta=FASTA, gtf=None):
        (tmp_path / "g.fa").write_text(fasta)
        (tmp_path / "g.gtf").write_text("# made\n" + (exon() if gtf is None else gtf))
        return tmp_path / "g.fa", tmp_path / "g.gtf"

    return write


def test_sequences_and_genes(files):
    fasta, gtf = files(gtf=exon() + exon(attributes='gene_id "g2"') + exon(start=5, end=8))
    assert references.sequence_lengths(fasta) == {"one": 8, "two": 4}
    assert references.gene_names(gtf) == {"g1": "Gria1", "g2": "g2"}
    references.check_annotation(fasta, gtf)


def test_a_packed_genome(tmp_path):
    plain, packed = tmp_path / "g.fa", tmp_path / "g.fa.gz"
    plain.write_text(">one\n" + "ACGT\n" * 5000)
    packed.write_bytes(gzip.compress(plain.read_bytes()))
    assert references.sequence_lengths(packed) == references.sequence_lengths(plain) == {"one": 20_000}
    assert references.bases_in_fasta(plain) == references.bases_in_fasta(packed) == 25_005
    packed.write_bytes(packed.read_bytes() + gzip.compress(b""))
    assert references.bases_in_fasta(packed) == 4 * packed.stat().st_size


@pytest.mark.parametrize(
    ("fasta", "gtf", "said"),
    [
        ("ACGT\n", None, "g.fa: sequence 1: Error in FASTA file at line 1: Expected '>'"),
        ("", None, "g.fa: holds no sequence"),
        (">one\nAC\n>one\nAC\n", None, "g.fa: sequence 2: 'one' is there twice"),
        (FASTA, exon("chr1"), "g.gtf: its sequences (chr1, ...) are none of g.fa (one, ...)"),
        (FASTA, exon(end=9), "g.gtf: line 2: an exon ends at 9, and one of g.fa at 8"),
        (FASTA, "one\tx\texon\t1\n", "g.gtf: line 2: 4 columns; a GTF file has nine"),
    ],
)
def test_an_annotation_of_another_genome_is_refused(files, fasta, gtf, said):
    with pytest.raises(DataError) as caught:
        references.check_annotation(*files(fasta, gtf))
    assert said in str(caught.value)
    assert "\n" not in str(caught.value)


def test_an_annotation_without_genes(files):
    with pytest.raises(DataError, match="line 2: an exon without gene_id; give a GTF file, not GFF3"):
        references.gene_names(files(gtf=exon(attributes="ID=exon1;Parent=t1"))[1])
    with pytest.raises(DataError, match="has no exon"):
        references.gene_names(files(gtf="")[1])


def test_names_and_paths(files):
    assert {"mm10", "GRCm39", "danRer11", "rn7", "GRCh38"} == set(references.reference_names())
    fasta, gtf = files()
    assert references.reference_files(str(fasta), str(gtf)) == (fasta, gtf)
    with pytest.raises(DataError, match="genome 'mm9': no such file or name; known: GRCh38"):
        references.reference_files("mm9")
    with pytest.raises(DataError, match="a FASTA file needs its annotation beside it; give gtf"):
        references.reference_files(str(fasta))
    with pytest.raises(DataError, match=r"no\.gtf: no such annotation"):
        references.reference_files(str(fasta), "no.gtf")
    with pytest.raises(DataError, match="genome mm10: brings its own annotation"):
        references.reference_files("mm10", str(gtf))


def test_what_a_machine_must_have(tmp_path, monkeypatch):
    reads = tmp_path / "r.fq.gz"
    reads.write_bytes(b"x" * 1000)
    human = references.required_resources(3_100_000_000, [str(reads)])
    assert 30e9 < human.memory < 36e9
    assert human.disk == 12 * 3_100_000_000 + 4000
    assert references.required_resources(3_100_000_000, [str(reads)], indexed=True).disk == 4000
    assert str(human) == "32.5 GB of memory and 37.2 GB of disk"
    machine = types.SimpleNamespace(total=16e9)
    monkeypatch.setattr(references.psutil, "virtual_memory", lambda: machine)
    with pytest.raises(
        DataError, match=r"mine: needs 32\.5 GB of memory, this machine has 16\.0; run it on a larger one"
    ):
        references.check_memory(human, "mine")
    machine.total = 64e9
    references.check_memory(human, "mine")
    monkeypatch.setattr(references.shutil, "disk_usage", lambda _: types.SimpleNamespace(free=1e9))
    with pytest.raises(DataError, match=r"mine: needs 37\.2 GB of disk, .* has 1\.0 free; make room"):
        references.check_disk(human, tmp_path / "not" / "there", "mine")
    monkeypatch.setattr(references.shutil, "disk_usage", lambda _: types.SimpleNamespace(free=1e11))
    references.check_disk(human, tmp_path, "mine")


def test_what_a_folder_holds_already_is_not_asked_for_again(tmp_path, monkeypatch):
    monkeypatch.setattr(references.shutil, "disk_usage", lambda _: types.SimpleNamespace(free=700))
    wanted = references.Requirements(0, 1000)
    with pytest.raises(DataError, match="disk"):
        references.check_disk(wanted, tmp_path, "mine")
    (tmp_path / "aligned").mkdir()
    (tmp_path / "aligned" / "a.bam").write_bytes(b"x" * 400)
    references.check_disk(wanted, tmp_path, "mine")


def test_a_packed_genome_that_is_larger_than_its_last_four_bytes_can_say(tmp_path):
    """Wheat: 14.5 GB, packed to 4.2; a sparse file stands in, with a gzip's first bytes."""
    path = tmp_path / "wheat.fa.gz"
    with open(path, "wb") as stream:
        stream.write(b"\x1f\x8b")
        stream.truncate(4_200_000_000)
        stream.seek(-4, 2)
        stream.write((14_500_000_000 % 2**32).to_bytes(4, "little"))
    assert references.bases_in_fasta(path) == 14_500_000_000
