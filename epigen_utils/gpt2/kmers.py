"""Gene sequences as vectors of their 6-mers: paper A, section III.A.

The paper embeds gene tokens by "DNABERT's pretrained 6-mer embeddings". DNABERT reads sequences, not genes; here a
gene's vector is the mean of the vectors of its sequence's overlapping 6-mers. Where DNABERT is not available, 6-mer
vectors are fitted to the given sequences, and are named so.
"""

import itertools
import re
from pathlib import Path

import numpy as np
import pandas as pd
import scipy.sparse as sp
from sklearn.decomposition import TruncatedSVD
from transformers import AutoModel, AutoTokenizer

from epigen_utils.data import sequence_files
from epigen_utils.data.genes import normalise_name
from epigen_utils.errors import DataError

K = 6
#: Number of 6-mers on each side that count as neighbours.
WINDOW = 5
#: Published DNABERT with 6-mers (Ji et al. 2021).
DNABERT = "zhihan1996/DNA_bert_6"


def read_fasta(path: str | Path) -> dict[str, str]:
    """Sequences by name (`sequence_files.read_fasta`), upper case, U as T.

    Raises
    ------
    DataError
        If the file is missing or not FASTA, a name occurs twice, or a letter is no nucleotide code; with the sequence.
    """
    if not Path(path).is_file():
        raise DataError(f"{path}: no such file; check the path")
    sequences = {}
    for name, letters in sequence_files.read_fasta(path):
        sequences[name] = letters.upper().replace("U", "T")
        if odd := re.search(r"[^ACGTRYSWKMBDHVN]", sequences[name]):
            raise DataError(f"{path}: sequence {name!r}: {odd.group()!r} is no nucleotide; give DNA or RNA")
    return sequences


def overlapping_kmers(sequence: str, k: int = K) -> list[str]:
    """Overlapping k-mers of a sequence, without those that contain an ambiguous letter."""
    words = (sequence[start : start + k] for start in range(len(sequence) - k + 1))
    return [word for word in words if not set(word) - set("ACGT")]


def learned_kmer_vectors(sequences: dict[str, str], *, dimensions: int = 64, seed: int = 0) -> pd.DataFrame:
    """6-mer vectors fitted to the co-occurrence of 6-mers in sequences.

    Positive pointwise mutual information of 6-mers within `WINDOW` of each other, reduced by a truncated SVD: what
    word2vec with negative sampling factorises (Levy and Goldberg 2014, NIPS).

    Returns
    -------
    6-mers that occur x dimensions.

    Raises
    ------
    DataError
        If there are fewer different 6-mers than dimensions.
    """
    words = _all_kmers()
    index = {word: row for row, word in enumerate(words)}
    firsts, seconds = [np.empty(0, np.int64)], [np.empty(0, np.int64)]
    for sequence in sequences.values():
        rows = np.array([index[word] for word in overlapping_kmers(sequence)], dtype=np.int64)
        for step in range(1, min(WINDOW, len(rows) - 1) + 1):
            firsts.append(rows[:-step])
            seconds.append(rows[step:])
    pairs = (np.concatenate(firsts), np.concatenate(seconds))
    counts = sp.csr_matrix((np.ones(len(pairs[0])), pairs), (len(words), len(words)))
    counts = (counts + counts.T).tocoo()
    n = np.asarray(counts.sum(axis=1)).ravel()
    occurring = np.flatnonzero(n)
    if len(occurring) <= dimensions:
        raise DataError(
            f"6-mers: {len(occurring)} different ones, for {dimensions} dimensions; give more or longer sequences"
        )
    information = np.log(counts.data * n.sum() / (n[counts.row] * n[counts.col]))
    positive = sp.csr_matrix((np.maximum(information, 0), (counts.row, counts.col)), counts.shape)
    vectors = TruncatedSVD(dimensions, random_state=seed).fit_transform(positive[occurring][:, occurring])
    return pd.DataFrame(vectors, [words[row] for row in occurring])


def _all_kmers() -> list[str]:
    return ["".join(letters) for letters in itertools.product("ACGT", repeat=K)]


def dnabert_kmer_vectors(source: str = DNABERT) -> pd.DataFrame:
    """Input embeddings of the 6-mers of a published DNABERT (hub id or folder), 4,096 x 768.

    Raises
    ------
    DataError
        If it is not available, or its vocabulary lacks 6-mers.
    """
    local = Path(source).exists()
    try:
        tokenizer = AutoTokenizer.from_pretrained(source, local_files_only=local)
        model = AutoModel.from_pretrained(source, local_files_only=local)
    except (OSError, ValueError) as error:
        raise DataError(
            f"{source}: DNABERT is not available ({str(error).splitlines()[0]}); give a folder with it"
        ) from None
    vocabulary, words = tokenizer.get_vocab(), _all_kmers()
    if missing := [word for word in words if word not in vocabulary]:
        raise DataError(
            f"{source}: {len(missing):,} of 4,096 6-mers, such as {missing[0]}, are no words of it; "
            "give DNABERT with 6-mers"
        )
    table = model.get_input_embeddings().weight.detach().numpy()
    return pd.DataFrame(table[[vocabulary[word] for word in words]], words)


def gene_vectors(sequences: dict[str, str], vectors: pd.DataFrame) -> pd.DataFrame:
    """Mean vector of each gene's 6-mers, genes x dimensions; genes without a 6-mer in ``vectors`` are left out.

    Raises
    ------
    DataError
        If no gene is left.
    """
    index = {word: row for row, word in enumerate(vectors.index)}
    table, means = vectors.to_numpy(float), {}
    for gene, sequence in sequences.items():
        rows = [index[word] for word in overlapping_kmers(sequence) if word in index]
        if rows:
            means[gene] = table[rows].mean(axis=0)
    if not means:
        raise DataError(
            f"6-mers: none of {len(sequences)} sequences has one of the known; give sequences of DNA or RNA"
        )
    return pd.DataFrame(means).T


def gene_vectors_of_cohort(
    cohort: object, fasta: str | Path = "", *, dnabert: str = "", seed: int = 0
) -> pd.DataFrame | None:
    """Vectors of a cohort's genes, from a FASTA file or, where effects are planted, from `simulated_sequences`.

    Names are compared without regard to case and punctuation, which tables written by R have lost.

    Parameters
    ----------
    cohort
        A `sample_cohort.SampleCohort`.

    Returns
    -------
    Genes x dimensions; None if there are no sequences.

    Raises
    ------
    DataError
        If the FASTA file has none of the genes, by id or symbol.
    """
    adata = cohort.adata
    if fasta:
        by_name = {normalise_name(name): sequence for name, sequence in read_fasta(fasta).items()}
        symbols = {str(gene): str(symbol) for gene, symbol in zip(adata.var_names, adata.var["symbol"], strict=True)}
        sequences = {
            gene: by_name.get(normalise_name(gene), by_name.get(normalise_name(symbols[gene]), ""))
            for gene in cohort.genes
        }
        sequences = {gene: sequence for gene, sequence in sequences.items() if sequence}
        if not sequences:
            raise DataError(f"{fasta}: has none of the genes of {cohort.name}; name sequences by gene id or symbol")
    elif "log2_fold_change" in adata.varm:
        truth = adata.varm["log2_fold_change"]
        sequences = simulated_sequences(cohort.genes, set(truth.index[(truth != 0).any(axis=1)]), seed=seed)
    else:
        return None
    kmer_vectors = dnabert_kmer_vectors(dnabert) if dnabert else learned_kmer_vectors(sequences, seed=seed)
    return gene_vectors(sequences, kmer_vectors)


def simulated_sequences(
    genes: list[str], informative: set[str], *, length: int = 400, motif: str = "GATTACAGATTACA", seed: int = 0
) -> dict[str, str]:
    """Random sequences in which informative genes carry copies of a motif: a positive control for 6-mer vectors."""
    rng = np.random.default_rng(seed)
    sequences = {}
    for gene in genes:
        letters = rng.choice(list("ACGT"), length)
        if gene in informative:
            for start in rng.choice(length - len(motif), 8, replace=False):
                letters[start : start + len(motif)] = list(motif)
        sequences[gene] = "".join(letters)
    return sequences
