import gzip
import itertools

import numpy as np
import pytest
import torch
from transformers import BertConfig, BertModel, BertTokenizer

from epigen_utils.data import fetching
from epigen_utils.errors import DataError
from epigen_utils.gpt2 import kmers
from epigen_utils.prediction import sample_cohort


def test_fasta_is_read_as_it_is(tmp_path):
    with gzip.open(tmp_path / "a.fa.gz", "wt") as stream:
        stream.write(">one first gene\nACGU\nacgt\n\n>two\nNNAC\n")
    assert kmers.read_fasta(tmp_path / "a.fa.gz") == {"one": "ACGTACGT", "two": "NNAC"}


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("ACGT\n", "sequence 1: Error in FASTA file at line 1: Expected '>'"),
        (">a\nAC\n>a\nAC\n", "sequence 2: 'a' is there twice"),
        (">a\nAC!T\n", "sequence 'a': '!' is no nucleotide"),
        (">\nAC\n", "sequence 1: no name"),
        ("", "no sequence"),
    ],
)
def test_what_is_no_fasta_is_named_by_its_sequence(tmp_path, text, said):
    (tmp_path / "a.fa").write_text(text)
    with pytest.raises(DataError, match=said):
        kmers.read_fasta(tmp_path / "a.fa")


def test_a_truncated_and_a_missing_file(tmp_path):
    (tmp_path / "a.fa.gz").write_bytes(gzip.compress(b">a\n" + b"ACGT" * 5000)[:40])
    with pytest.raises(DataError, match="cannot be read"):
        kmers.read_fasta(tmp_path / "a.fa.gz")
    with pytest.raises(DataError, match="no such file"):
        kmers.read_fasta(tmp_path / "b.fa")


def test_words_overlap_and_leave_out_what_is_ambiguous():
    assert kmers.overlapping_kmers("ACGTACG") == ["ACGTAC", "CGTACG"]
    assert kmers.overlapping_kmers("ACGNACGTACG") == ["ACGTAC", "CGTACG"]
    assert kmers.overlapping_kmers("ACGTA") == []


def test_learned_vectors_bring_words_of_one_context_together():
    """Two motifs that stand in each other's place are near, a third elsewhere is far."""
    rng = np.random.default_rng(0)

    def around(middle, left, right):
        return "".join(rng.choice(list("AC"), 4)) + left + middle + right + "".join(rng.choice(list("AC"), 4))

    found = {f"a{i}": around("GGGGGG", "ATATAT", "CTCTCT") for i in range(60)}
    found |= {f"b{i}": around("TTTTTT", "ATATAT", "CTCTCT") for i in range(60)}
    found |= {f"c{i}": around("GAGAGA", "TGTGTG", "CCCTTT") for i in range(60)}
    table = kmers.learned_kmer_vectors(found, dimensions=8)
    near = [float(np.corrcoef(table.loc["GGGGGG"], table.loc[word])[0, 1]) for word in ("TTTTTT", "GAGAGA")]
    assert near[0] > near[1] + 0.3
    with pytest.raises(DataError, match="2 different ones, for 64 dimensions"):
        kmers.learned_kmer_vectors({"a": "ACGTACG"})


def test_a_published_dnabert_is_read_from_its_folder(tmp_path):
    words = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *map("".join, itertools.product("ACGT", repeat=6))]
    (tmp_path / "vocab.txt").write_text("\n".join(words))
    BertTokenizer(str(tmp_path / "vocab.txt"), do_lower_case=False).save_pretrained(tmp_path)
    torch.manual_seed(0)
    shape = {"hidden_size": 8, "num_hidden_layers": 1, "num_attention_heads": 1, "intermediate_size": 8}
    model = BertModel(BertConfig(vocab_size=len(words), **shape))
    model.save_pretrained(tmp_path)
    table = kmers.dnabert_kmer_vectors(str(tmp_path))
    assert table.shape == (4096, 8)
    np.testing.assert_allclose(
        table.loc["ACGTAC"], model.embeddings.word_embeddings.weight[words.index("ACGTAC")].detach()
    )
    genes = kmers.gene_vectors({"a": "ACGTACG", "b": "NN"}, table)
    np.testing.assert_allclose(genes.loc["a"], table.loc[["ACGTAC", "CGTACG"]].mean(), rtol=1e-5)
    assert list(genes.index) == ["a"]


def test_what_is_no_dnabert_is_said(tmp_path):
    (tmp_path / "empty").mkdir()
    with pytest.raises(DataError, match="DNABERT is not available"):
        kmers.dnabert_kmer_vectors(str(tmp_path / "empty"))
    vectors = kmers.learned_kmer_vectors({"x": "ACGTTGCAACGTAGCTAGCTA" * 3}, dimensions=4)
    with pytest.raises(DataError, match="none of 1 sequences"):
        kmers.gene_vectors({"a": "NNNNNNN"}, vectors)


def test_a_fasta_without_the_cohorts_genes(tmp_path):
    (tmp_path / "a.fa").write_text(">nobody\nACGTACGTACGT\n")
    cohort = sample_cohort.load_cohort("seizures-sim")
    with pytest.raises(DataError, match="has none of the genes of seizures-sim"):
        kmers.gene_vectors_of_cohort(cohort, str(tmp_path / "a.fa"))
    made = kmers.gene_vectors_of_cohort(cohort, "")
    assert made.shape == (len(cohort.genes), 64)
    assert kmers.gene_vectors_of_cohort(sample_cohort.load_cohort("airway"), "") is None


def test_micrornas_have_their_hairpins(monkeypatch):
    cohort = sample_cohort.load_cohort("tcga-brca-subtype")
    assert len(kmers.read_fasta(fetching.resolve_file("mirbase-hairpins"))) == 1917
    table = kmers.gene_vectors_of_cohort(cohort, fetching.resolve_file("mirbase-hairpins"))
    assert len(table) > 0.95 * len(cohort.genes), "R's names and miRBase's are brought together"
    assert float(np.corrcoef(table.loc["hsa.mir.200a"], table.loc["hsa.mir.200b"])[0, 1]) > 0.3, "one family"
