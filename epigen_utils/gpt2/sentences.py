"""Bulk samples as gene sentences, and back: paper A, sections III.A and III.D.

A sample's genes are sorted by log2 expression, highest first, and each becomes a pair of a gene token and an
expression-bin token. The paper does not specify the number of bins, the binning, or the treatment of genes beyond
GPT-2's 1,024 positions; here these are parameters, and the loss of each choice is measured (`decoding_fidelity`,
`sentence_coverage`).
"""

from dataclasses import dataclass

import datasets as arrow
import numpy as np
import pandas as pd
from scipy import stats
from transformers import PreTrainedTokenizerBase

from epigen_utils.errors import DataError, suggest

#: Positions of GPT-2.
GPT2_POSITIONS = 1024
#: Padding token; the tokens of genes start at 1.
PAD_ID = 0
#: Binning of values: equally many values in each bin, or equally wide bins.
BINNINGS = ("quantile", "width")


@dataclass(frozen=True)
class GeneSentenceEncoder:
    """Encoder of samples as genes by rank, each a (gene, expression bin) pair.

    Attributes
    ----------
    genes
        Vocabulary; the token of gene i is i + 1.
    edges
        Edges between bins, ascending, in log2 units; one fewer than the bins.
    levels
        Decoded value of each bin: the mean of the training values in it.
    by_rank
        Decoded value of each rank, without bins: the mean of the training samples' values at it.
    gene_means
        Decoded value of each gene that was cut from a sentence: its mean in the training samples.
    max_length
        Maximum number of genes in a sentence.

    Examples
    --------
    >>> import pandas as pd
    >>> from epigen_utils.gpt2.sentences import GeneSentenceEncoder
    >>> values = pd.DataFrame({"g1": [8.0, 1.0], "g2": [3.0, 5.0], "g3": [0.0, 6.0]}, index=["s1", "s2"])
    >>> encoder = GeneSentenceEncoder.fit(values, n_bins=2)
    >>> sentences = encoder.encode(values)
    >>> sentences["input_ids"][:]
    [[1, 2], [3, 2, 1]]
    >>> sentences["bins"][:]
    [[1, 0], [1, 1, 0]]
    >>> encoder.decode(sentences)
              g1        g2        g3
    s1  6.333333  2.000000  0.000000
    s2  2.000000  6.333333  6.333333
    """

    genes: tuple[str, ...]
    edges: np.ndarray
    levels: np.ndarray
    by_rank: np.ndarray
    gene_means: np.ndarray
    max_length: int = GPT2_POSITIONS

    @classmethod
    def fit(
        cls, values: pd.DataFrame, *, n_bins: int = 10, kind: str = "quantile", max_length: int = GPT2_POSITIONS
    ) -> "GeneSentenceEncoder":
        """Learn vocabulary and bins from training samples alone.

        Bins are of the values that sentences hold. Bins of the values of all expressed genes would leave a much shorter
        sentence with the highest bin alone.

        Parameters
        ----------
        values
            Log2 expression, samples x genes; 0 is not expressed.
        n_bins
            Number of bins; equal quantiles are merged.
        kind
            One of `BINNINGS`.

        Raises
        ------
        DataError
            If there is no such kind, the number of bins or positions is below 1, or no gene is expressed.
        """
        if kind not in BINNINGS:
            raise DataError(f"bins by {kind!r}: {suggest(kind, BINNINGS)}")
        if n_bins < 1 or max_length < 1:
            raise DataError(f"{n_bins} bins, {max_length} positions: there must be at least one of each")
        table = _checked_values(values)
        ranked = np.sort(table, axis=1)[:, ::-1]
        encoded = ranked[:, :max_length][ranked[:, :max_length] > 0]
        if not len(encoded):
            raise DataError("gene sentences: no gene is expressed in the training samples; check the counts")
        inner = np.arange(1, n_bins) / n_bins
        cuts = np.quantile(encoded, inner) if kind == "quantile" else encoded.min() + inner * np.ptp(encoded)
        edges = np.unique(cuts)
        bins = np.searchsorted(edges, encoded, side="right")
        n = np.bincount(bins, minlength=len(edges) + 1)
        means = np.bincount(bins, encoded, minlength=len(edges) + 1) / np.maximum(n, 1)
        # Bins of equal width may hold no training value; these decode to their middle.
        ends = np.concatenate([[encoded.min()], edges, [encoded.max()]])
        levels = np.where(n > 0, means, (ends[1:] + ends[:-1]) / 2)
        names = tuple(map(str, values.columns))
        return cls(names, edges, levels, ranked.mean(axis=0), table.mean(axis=0), max_length)

    @property
    def n_bins(self) -> int:
        """Number of bins."""
        return len(self.levels)

    def encode(self, values: pd.DataFrame) -> arrow.Dataset:
        """Encode samples as sentences; equal values follow the order of the vocabulary.

        Parameters
        ----------
        values
            Log2 expression, samples x genes. Genes outside the vocabulary are left out; missing genes are
            not expressed.

        Returns
        -------
        A row a sample:

        - ``sample``: its name
        - ``input_ids``, ``bins``, ``values``: tokens of genes, their bins (0 lowest) and log2 values
        - ``length``, ``expressed``: number of genes in the sentence and of expressed genes

        Raises
        ------
        DataError
            If no gene is in the vocabulary, a value is missing or negative, or a sample has no expressed gene.
        """
        padded = self.padded(values)
        columns = {"sample": [str(sample) for sample in values.index]}
        for name, array in (("input_ids", padded.ids), ("bins", padded.bins), ("values", padded.values)):
            columns[name] = [row[:length].tolist() for row, length in zip(array, padded.lengths, strict=True)]
        return arrow.Dataset.from_dict(columns | {"length": padded.lengths, "expressed": padded.expressed})

    def padded(self, values: pd.DataFrame) -> "PaddedSentences":
        """The sentences of `encode` as arrays, padded on the right; parameters and errors are those of `encode`."""
        if not any(gene in values.columns for gene in self.genes):
            raise DataError(
                f"gene sentences: none of {values.shape[1]} genes is in the vocabulary ({self.genes[0]!r}, ...); "
                "give the same kind of gene ids"
            )
        table = _checked_values(values.reindex(columns=list(self.genes), fill_value=0.0))
        expressed = (table > 0).sum(axis=1)
        if not expressed.all():
            sample = values.index[np.flatnonzero(expressed == 0)[0]]
            raise DataError(f"sample {sample!r}: no gene of the vocabulary is expressed; leave it out")
        lengths = np.minimum(expressed, self.max_length)
        order = np.argsort(-table, axis=1, kind="stable")[:, : lengths.max(initial=0)]
        sorted_values = np.take_along_axis(table, order, axis=1)
        bins = np.searchsorted(self.edges, sorted_values, side="right")
        absent = np.arange(order.shape[1]) >= lengths[:, None]
        ids, bins, sorted_values = (np.where(absent, 0, array) for array in (order + 1, bins, sorted_values))
        return PaddedSentences(ids, bins, sorted_values, lengths, expressed)

    def decode(self, sentences: arrow.Dataset, *, bins: bool = True) -> pd.DataFrame:
        """Decode sentences to log2 expression, samples x genes.

        A gene that is not in a sentence is 0 where the sentence holds all expressed genes of its sample. Where the
        sentence was cut, such a gene is at its mean in the training samples (`gene_means`), which the decoder knows.

        Parameters
        ----------
        bins
            Whether to decode by the level of each gene's bin, or by its rank alone.
        """
        values = np.zeros((len(sentences), len(self.genes)))
        for row, sentence in enumerate(sentences):
            columns = np.asarray(sentence["input_ids"]) - 1
            if sentence["length"] < sentence["expressed"]:
                values[row] = self.gene_means
            values[row, columns] = self.levels[sentence["bins"]] if bins else self.by_rank[: len(columns)]
        return pd.DataFrame(values, sentences["sample"], list(self.genes))

    def text(self, sentences: arrow.Dataset, symbols: pd.Series) -> list[str]:
        """Sentences as text of gene symbols, for a language model without fine-tuning.

        Parameters
        ----------
        symbols
            By gene; a gene without a symbol is named by its id.
        """
        words = [str(symbols.get(gene, "") or gene) for gene in self.genes]
        return [" ".join(words[token - 1] for token in row["input_ids"]) for row in sentences]


@dataclass(frozen=True)
class PaddedSentences:
    """Sentences as arrays, sentences x length, padded on the right (`PAD_ID`, bin 0, value 0).

    Attributes
    ----------
    ids, bins, values
        Tokens of genes, their bins, and their log2 values.
    lengths, expressed
        Number of genes in each sentence, and of expressed genes.
    """

    ids: np.ndarray
    bins: np.ndarray
    values: np.ndarray
    lengths: np.ndarray
    expressed: np.ndarray

    def __len__(self) -> int:
        return len(self.ids)

    def columns(self, row: int) -> np.ndarray:
        """Columns of a sentence's genes in the encoder's vocabulary, in their order."""
        return self.ids[row, : self.lengths[row]] - 1


def _checked_values(values: pd.DataFrame) -> np.ndarray:
    table = values.to_numpy(float)
    bad = ~(table >= 0)
    if bad.any():
        row, column = np.argwhere(bad)[0]
        raise DataError(
            f"sample {values.index[row]!r}, gene {values.columns[column]!r}: "
            f"log2 expression is {table[row, column]}; it must be 0 or more"
        )
    return table


def decoding_fidelity(values: pd.DataFrame, decoded: pd.DataFrame) -> pd.DataFrame:
    """How well sentences preserve expression, over the expressed genes of each sample.

    Parameters
    ----------
    values, decoded
        Log2 expression, samples x genes; only genes in both are compared.

    Returns
    -------
    A row a sample: ``sample``, ``slope`` and ``intercept`` of the values on the decoded values, ``r2`` (1 less the
    squared decoding errors over the variance), ``pearson``, ``spearman`` and ``genes``.
    """
    shared = [gene for gene in decoded.columns if gene in values.columns]
    rows = []
    for sample in decoded.index:
        true, estimate = values.loc[sample, shared].to_numpy(float), decoded.loc[sample, shared].to_numpy(float)
        true, estimate = true[true > 0], estimate[true > 0]
        row = {"sample": sample, "genes": len(true)}
        if len(true) > 2 and np.ptp(estimate) > 0 and np.ptp(true) > 0:
            line = stats.linregress(estimate, true)
            row |= {"slope": line.slope, "intercept": line.intercept, "pearson": line.rvalue}
            row |= {"r2": 1 - np.square(true - estimate).sum() / np.square(true - true.mean()).sum()}
            row |= {"spearman": stats.spearmanr(true, estimate).statistic}
        rows.append(row)
    return pd.DataFrame(rows, columns=["sample", "slope", "intercept", "r2", "pearson", "spearman", "genes"])


def sentence_coverage(values: pd.DataFrame, lengths: np.ndarray) -> pd.DataFrame:
    """Share of a sample's expressed genes, and of its counts, in sentences of given lengths.

    Parameters
    ----------
    values
        log2(count + 1), samples x genes.

    Returns
    -------
    A row a length: ``length``, ``genes`` and ``counts`` (shares, means over samples).
    """
    ranked = np.sort(_checked_values(values), axis=1)[:, ::-1]
    expressed = (ranked > 0).sum(axis=1)
    counts = np.cumsum(2**ranked - 1, axis=1)
    rows = []
    for length in lengths:
        last = np.minimum(length, ranked.shape[1]) - 1
        genes = np.minimum(expressed, length) / expressed
        rows.append({"length": int(length), "genes": genes.mean(), "counts": (counts[:, last] / counts[:, -1]).mean()})
    return pd.DataFrame(rows)


def position_bins(positions: np.ndarray, bins: int) -> np.ndarray:
    """Bin of each relative position (0 is first in its sentence, towards 1 is last)."""
    return np.minimum((positions * bins).astype(int), bins - 1)


def mean_by_position(scores: np.ndarray, positions: np.ndarray, bins: int) -> tuple[np.ndarray, np.ndarray]:
    """Mean score in each bin of `position_bins` (0 if it is empty), and the number of scores in it."""
    bin_of = position_bins(positions, bins)
    n = np.bincount(bin_of, minlength=bins)
    return np.bincount(bin_of, scores, minlength=bins) / np.maximum(n, 1), n


def genes_that_fit(
    texts: list[str], tokenizer: PreTrainedTokenizerBase, *, positions: int = GPT2_POSITIONS
) -> np.ndarray:
    """Number of words of each text whose byte-pair tokens fit into GPT-2's positions."""
    n_words = []
    for text in texts:
        ends = np.cumsum([len(tokenizer.tokenize(" " + word)) for word in text.split(" ")])
        n_words.append(int((ends <= positions).sum()))
    return np.array(n_words)
