"""Bulk samples as sentences of genes, and back: paper A, sections III.A and III.D.

A sample's genes are sorted by their log2 expression, highest first, and each becomes a pair of a gene's token and an expression
bin's. The paper leaves the number of bins, their kind and what becomes of genes beyond GPT-2's 1,024 positions open; here they are
parameters, and what each choice loses is measured (`fidelity`, `coverage`).
"""

from dataclasses import dataclass

import datasets as arrow
import numpy as np
import pandas as pd
from scipy import stats
from transformers import PreTrainedTokenizerBase

from epigen_utils.errors import DataError, closest

#: Positions of GPT-2.
POSITIONS = 1024
#: Token that fills a batch up; genes start behind it.
PAD = 0
#: How values are cut into bins: as many values in each, or each as wide.
KINDS = ("quantile", "width")


@dataclass(frozen=True)
class GeneSentenceEncoder:
    """Genes by rank, each a (gene, expression bin) pair.

    Attributes
    ----------
    genes
        Vocabulary; the token of gene i is i + 1.
    edges
        Between bins, rising, in log2 units; one fewer than there are bins.
    levels
        What each bin is read back as: the mean of the training values in it.
    by_rank
        What each rank is read back as where bins are left out: the mean of the training samples' values at it.
    max_length
        Genes that a sentence holds at most.
    """

    genes: tuple[str, ...]
    edges: np.ndarray
    levels: np.ndarray
    by_rank: np.ndarray
    max_length: int = POSITIONS

    @classmethod
    def fit(
        cls, values: pd.DataFrame, *, n_bins: int = 10, kind: str = "quantile", max_length: int = POSITIONS
    ) -> "GeneSentenceEncoder":
        """Learn vocabulary and bins from training samples alone.

        Bins are of the values that sentences hold: of those of all expressed genes, a sentence that is much shorter shows the highest
        bin alone.

        Parameters
        ----------
        values
            Log2 expression, samples x genes; 0 is not expressed.
        n_bins
            Quantiles that fall together make one bin.
        kind
            Of `KINDS`.

        Raises
        ------
        DataError
            If there is no such kind, the number of bins or positions is not above 0, or nothing is expressed.
        """
        if kind not in KINDS:
            raise DataError(f"bins by {kind!r}: {closest(kind, KINDS)}")
        if n_bins < 1 or max_length < 1:
            raise DataError(f"{n_bins} bins, {max_length} positions: there must be at least one of each")
        table = _checked(values)
        ranked = np.sort(table, axis=1)[:, ::-1]
        shown = ranked[:, :max_length][ranked[:, :max_length] > 0]
        if not len(shown):
            raise DataError("gene sentences: no gene is expressed in the training samples; check the counts")
        inner = np.arange(1, n_bins) / n_bins
        cuts = np.quantile(shown, inner) if kind == "quantile" else shown.min() + inner * np.ptp(shown)
        edges = np.unique(cuts)
        place = np.searchsorted(edges, shown, side="right")
        n = np.bincount(place, minlength=len(edges) + 1)
        means = np.bincount(place, shown, minlength=len(edges) + 1) / np.maximum(n, 1)
        # A bin of no training value, as bins of one width have them, is read back as its middle.
        ends = np.concatenate([[shown.min()], edges, [shown.max()]])
        levels = np.where(n > 0, means, (ends[1:] + ends[:-1]) / 2)
        return cls(tuple(map(str, values.columns)), edges, levels, ranked.mean(axis=0), max_length)

    @property
    def n_bins(self) -> int:
        """Bins there are."""
        return len(self.levels)

    def encode(self, values: pd.DataFrame) -> arrow.Dataset:
        """Make sentences; values equal to each other stand in the order of the vocabulary.

        Parameters
        ----------
        values
            Log2 expression, samples x genes. Genes outside the vocabulary are left out (`outside`), missing ones are not expressed.

        Returns
        -------
        A row a sample: ``sample``, ``input_ids`` (tokens of genes), ``bins`` (0 lowest), ``values`` (log2), ``length`` and ``expressed``
        (genes that were expressed, of which the first ``length`` are kept).

        Raises
        ------
        DataError
            If no gene is in the vocabulary, a value is missing or negative, or a sample has no expressed gene.
        """
        known = [gene for gene in self.genes if gene in values.columns]
        if not known:
            raise DataError(
                f"gene sentences: none of {values.shape[1]} genes is in the vocabulary ({self.genes[0]!r}, ...); "
                "give the same kind of gene ids"
            )
        table = _checked(values.reindex(columns=list(self.genes), fill_value=0.0))
        rows = []
        for sample, row in zip(values.index, table, strict=True):
            expressed = int((row > 0).sum())
            if not expressed:
                raise DataError(f"sample {sample!r}: no gene of the vocabulary is expressed; leave it out")
            order = np.argsort(-row, kind="stable")[: min(expressed, self.max_length)]
            bins = np.searchsorted(self.edges, row[order], side="right")
            made = {"sample": str(sample), "input_ids": order + 1, "bins": bins, "values": row[order]}
            rows.append(made | {"length": len(order), "expressed": expressed})
        return arrow.Dataset.from_list([{key: _plain(value) for key, value in row.items()} for row in rows])

    def outside(self, values: pd.DataFrame) -> list[str]:
        """Genes of a table that the vocabulary does not have."""
        known = set(self.genes)
        return [str(gene) for gene in values.columns if str(gene) not in known]

    def decode(self, sentences: arrow.Dataset, *, bins: bool = True) -> pd.DataFrame:
        """Read sentences back as log2 expression, samples x genes; what a sentence does not show is 0.

        Parameters
        ----------
        bins
            By the level of each gene's bin; else by its rank alone.
        """
        found = np.zeros((len(sentences), len(self.genes)))
        for place, row in enumerate(sentences):
            tokens = np.asarray(row["input_ids"]) - 1
            found[place, tokens] = self.levels[row["bins"]] if bins else self.by_rank[: len(tokens)]
        return pd.DataFrame(found, sentences["sample"], list(self.genes))

    def text(self, sentences: arrow.Dataset, symbols: pd.Series) -> list[str]:
        """Sentences of words, the symbols of the genes, for a model of language as it is.

        Parameters
        ----------
        symbols
            By gene; a gene without one is named by its id.
        """
        words = [str(symbols.get(gene, "") or gene) for gene in self.genes]
        return [" ".join(words[token - 1] for token in row["input_ids"]) for row in sentences]


def _plain(value: object) -> object:
    return value.tolist() if isinstance(value, np.ndarray) else value


def _checked(values: pd.DataFrame) -> np.ndarray:
    table = values.to_numpy(float)
    bad = ~(table >= 0)
    if bad.any():
        row, column = np.argwhere(bad)[0]
        raise DataError(
            f"sample {values.index[row]!r}, gene {values.columns[column]!r}: log2 expression is {table[row, column]}; it must be 0 or more"
        )
    return table


def fidelity(values: pd.DataFrame, decoded: pd.DataFrame, *, shown_only: bool = False) -> pd.DataFrame:
    """How much of the expression a sentence keeps, over the expressed genes of each sample.

    Parameters
    ----------
    values, decoded
        Log2 expression, samples x genes; genes that only one of them has are left out.
    shown_only
        Leave out genes that the sentence was too short for.

    Returns
    -------
    A row a sample: ``sample``, ``slope`` and ``intercept`` of values against what was read back, ``r2`` (1 less the squared errors over
    the variance, of what was read back as it is), ``pearson``, ``spearman`` and ``genes``.
    """
    shared = [gene for gene in decoded.columns if gene in values.columns]
    rows = []
    for sample in decoded.index:
        true, read = values.loc[sample, shared].to_numpy(float), decoded.loc[sample, shared].to_numpy(float)
        some = (true > 0) & ((read > 0) if shown_only else True)
        true, read = true[some], read[some]
        row = {"sample": sample, "genes": len(true)}
        if len(true) > 2 and np.ptp(read) > 0 and np.ptp(true) > 0:
            line = stats.linregress(read, true)
            row |= {"slope": line.slope, "intercept": line.intercept, "pearson": line.rvalue}
            row |= {"r2": 1 - np.square(true - read).sum() / np.square(true - true.mean()).sum()}
            row |= {"spearman": stats.spearmanr(true, read).statistic}
        rows.append(row)
    return pd.DataFrame(rows, columns=["sample", "slope", "intercept", "r2", "pearson", "spearman", "genes"])


def coverage(values: pd.DataFrame, lengths: np.ndarray) -> pd.DataFrame:
    """What sentences of so many genes hold of a sample's expressed genes, and of its counts.

    Parameters
    ----------
    values
        Log2 expression of counts plus one, samples x genes.

    Returns
    -------
    A row a length: ``length``, ``genes`` and ``counts`` (shares, means over samples).
    """
    ranked = np.sort(_checked(values), axis=1)[:, ::-1]
    expressed = (ranked > 0).sum(axis=1)
    counts = np.cumsum(2**ranked - 1, axis=1)
    rows = []
    for length in lengths:
        last = np.minimum(length, ranked.shape[1]) - 1
        genes = np.minimum(expressed, length) / expressed
        rows.append({"length": int(length), "genes": genes.mean(), "counts": (counts[:, last] / counts[:, -1]).mean()})
    return pd.DataFrame(rows)


def genes_that_fit(texts: list[str], tokenizer: PreTrainedTokenizerBase, *, positions: int = POSITIONS) -> np.ndarray:
    """How many of a sentence's words GPT-2's own tokens leave room for, one number a sentence."""
    found = []
    for text in texts:
        pieces = np.cumsum([len(tokenizer.tokenize(" " + word)) for word in text.split(" ")])
        found.append(int((pieces <= positions).sum()))
    return np.array(found)
