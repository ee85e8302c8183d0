"""Genes' sequences as vectors of their 6-mers: paper A, section III.A.

The paper embeds gene tokens by "DNABERT's pretrained 6-mer embeddings". DNABERT reads sequences, not genes; the reading taken here is that
a gene's vector is the mean of the vectors of its sequence's overlapping 6-mers. Where DNABERT is not to be had, 6-mer vectors are learned
from the sequences at hand, and are called that.
"""

import gzip
import itertools
import re
from pathlib import Path

import numpy as np
import pandas as pd
import scipy.sparse as sp
from sklearn.decomposition import TruncatedSVD
from transformers import AutoModel, AutoTokenizer

from epigen_utils.errors import DataError
from epigen_utils.genes import plain

K = 6
#: 6-mers on each side of one that count as its neighbours.
WINDOW = 5
#: Published DNABERT with 6-mers (Ji et al. 2021).
DNABERT = "zhihan1996/DNA_bert_6"


def read_fasta(path: str | Path) -> dict[str, str]:
    """Sequences by the first word of their header, upper case, U as T; gzipped or not.

    Raises
    ------
    DataError
        If the file is not there or no FASTA, a name is twice there, or a letter is none of a nucleotide's; with the line.
    """
    path = Path(path)
    if not path.is_file():
        raise DataError(f"{path}: no such file; check the path")
    found, name, parts = {}, None, []
    try:
        with gzip.open(path, "rt") if path.suffix == ".gz" else open(path, encoding="utf-8") as stream:
            for number, line in enumerate(map(str.strip, stream), 1):
                if line.startswith(">"):
                    if name is not None:
                        found[name] = "".join(parts)
                    name, parts = (line[1:].split() or [""])[0], []
                    if not name or name in found:
                        raise DataError(
                            f"{path}: line {number}: {'no name' if not name else f'{name!r} is there twice'}; mend the header"
                        )
                elif line:
                    if name is None:
                        raise DataError(f"{path}: line {number}: no header before the sequence; give FASTA")
                    text = line.upper().replace("U", "T")
                    if odd := re.search(r"[^ACGTRYSWKMBDHVN]", text):
                        raise DataError(f"{path}: line {number}: {odd.group()!r} is no nucleotide; give DNA or RNA")
                    parts.append(text)
    except (UnicodeDecodeError, OSError, EOFError) as error:
        raise DataError(f"{path}: cannot be read ({error}); check the file") from None
    if name is None:
        raise DataError(f"{path}: no sequence in it; give FASTA")
    return found | {name: "".join(parts)}


def kmers(sequence: str, k: int = K) -> list[str]:
    """Overlapping words of a sequence, without those that hold an ambiguous letter."""
    words = (sequence[start : start + k] for start in range(len(sequence) - k + 1))
    return [word for word in words if not set(word) - set("ACGT")]


def learned_vectors(sequences: dict[str, str], *, dimensions: int = 64, seed: int = 0) -> pd.DataFrame:
    """6-mer vectors learned from sequences: which 6-mers stand near each other.

    Positive pointwise mutual information of 6-mers within `WINDOW` of each other, reduced by a truncated SVD, which is what word2vec
    with negative sampling factorises (Levy and Goldberg 2014, NIPS).

    Returns
    -------
    6-mers that occur x dimensions.

    Raises
    ------
    DataError
        If there are fewer different 6-mers than dimensions.
    """
    words = ["".join(letters) for letters in itertools.product("ACGT", repeat=K)]
    place = {word: row for row, word in enumerate(words)}
    counts = sp.csr_matrix((len(words), len(words)))
    for sequence in sequences.values():
        row = np.array([place[word] for word in kmers(sequence)], dtype=np.int64)
        for step in range(1, min(WINDOW, len(row) - 1) + 1):
            counts += sp.csr_matrix((np.ones(len(row) - step), (row[:-step], row[step:])), counts.shape)
    counts = (counts + counts.T).tocoo()
    n = np.asarray(counts.sum(axis=1)).ravel()
    kept = np.flatnonzero(n)
    if len(kept) <= dimensions:
        raise DataError(
            f"6-mers: {len(kept)} different ones, for {dimensions} dimensions; give more or longer sequences"
        )
    information = np.log(counts.data * n.sum() / (n[counts.row] * n[counts.col]))
    table = sp.csr_matrix((np.maximum(information, 0), (counts.row, counts.col)), counts.shape)[kept][:, kept]
    made = TruncatedSVD(dimensions, random_state=seed).fit_transform(table)
    return pd.DataFrame(made, [words[row] for row in kept])


def dnabert_vectors(source: str = DNABERT) -> pd.DataFrame:
    """6-mer vectors of a published DNABERT, hub id or folder: its table of words, 4,096 x 768.

    Raises
    ------
    DataError
        If it is not there, or its words are not the 6-mers.
    """
    local = Path(source).exists()
    try:
        tokenizer = AutoTokenizer.from_pretrained(source, local_files_only=local)
        model = AutoModel.from_pretrained(source, local_files_only=local)
    except (OSError, ValueError) as error:
        raise DataError(
            f"{source}: DNABERT is not to be had ({str(error).splitlines()[0]}); give a folder with it"
        ) from None
    known = tokenizer.get_vocab()
    words = ["".join(letters) for letters in itertools.product("ACGT", repeat=K)]
    if lost := [word for word in words if word not in known]:
        raise DataError(
            f"{source}: {len(lost):,} of 4,096 6-mers, such as {lost[0]}, are no words of it; give DNABERT with 6-mers"
        )
    table = model.get_input_embeddings().weight.detach().numpy()
    return pd.DataFrame(table[[known[word] for word in words]], words)


def gene_vectors(sequences: dict[str, str], vectors: pd.DataFrame) -> pd.DataFrame:
    """Mean of the vectors of each gene's 6-mers; genes x dimensions, without those that have no known 6-mer.

    Raises
    ------
    DataError
        If none has one.
    """
    place = {word: row for row, word in enumerate(vectors.index)}
    table, found = vectors.to_numpy(float), {}
    for gene, sequence in sequences.items():
        rows = [place[word] for word in kmers(sequence) if word in place]
        if rows:
            found[gene] = table[rows].mean(axis=0)
    if not found:
        raise DataError(
            f"6-mers: none of {len(sequences)} sequences has one of the known; give sequences of DNA or RNA"
        )
    return pd.DataFrame(found).T


def of_cohort(cohort: object, fasta: str | Path = "", *, dnabert: str = "", seed: int = 0) -> pd.DataFrame | None:
    """Vectors of the genes of a cohort (`sample_cohorts.SampleCohort`), from a FASTA or, where its truth is planted, from `simulated`.

    Names are compared without regard to case and punctuation, which tables written by R have lost.

    Returns
    -------
    Genes x dimensions; None where there are no sequences.

    Raises
    ------
    DataError
        If the FASTA has none of the genes, by id or symbol.
    """
    adata = cohort.adata
    if fasta:
        known = {plain(name): sequence for name, sequence in read_fasta(fasta).items()}
        symbols = {str(gene): str(symbol) for gene, symbol in zip(adata.var_names, adata.var["symbol"], strict=True)}
        found = {gene: known.get(plain(gene), known.get(plain(symbols[gene]), "")) for gene in cohort.genes}
        found = {gene: sequence for gene, sequence in found.items() if sequence}
        if not found:
            raise DataError(f"{fasta}: has none of the genes of {cohort.name}; name sequences by gene id or symbol")
    elif "log2_fold_change" in adata.varm:
        truth = adata.varm["log2_fold_change"]
        found = simulated(cohort.genes, set(truth.index[(truth != 0).any(axis=1)]), seed=seed)
    else:
        return None
    return gene_vectors(found, dnabert_vectors(dnabert) if dnabert else learned_vectors(found, seed=seed))


def simulated(
    genes: list[str], informative: set[str], *, length: int = 400, motif: str = "GATTACAGATTACA", seed: int = 0
) -> dict[str, str]:
    """Random sequences in which informative genes carry copies of a motif: what 6-mers could tell of, if they can of anything."""
    rng = np.random.default_rng(seed)
    found = {}
    for gene in genes:
        letters = rng.choice(list("ACGT"), length)
        if gene in informative:
            for start in rng.choice(length - len(motif), 8, replace=False):
                letters[start : start + len(motif)] = list(motif)
        found[gene] = "".join(letters)
    return found
