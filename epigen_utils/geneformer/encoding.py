"""Rank value encoding: a cell as the sequence of its genes in descending order of normalised expression.

Paper B, section 1.3, equations 1 and 2; Theodoris et al. 2023, Methods. Conventions follow official Geneformer's
``TranscriptomeTokenizer``. Ties, whose order its sort leaves undefined, are broken by the lower token id.
"""

import functools
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from itertools import islice
from pathlib import Path

import anndata
import datasets
import numba
import numpy as np
import pandas as pd
import pyarrow as pa
from scipy import sparse

from epigen_utils.data import cell_source, genes
from epigen_utils.errors import DataError
from epigen_utils.geneformer import encoded_cells
from epigen_utils.geneformer.vocabularies import CLS, EOS, Vocabulary, official_vocabulary

#: Total counts to which a cell is scaled before division by the medians (equation 1).
TARGET_SUM = 10_000
#: Cells encoded at once; larger chunks take more memory and no less time.
CHUNK = 1024
#: Smallest share of a data set's counts in the vocabulary; a smaller one indicates a mistake.
LEAST_COVERAGE = 0.2


class RankValueEncoder:
    """Encode cells as token ids in descending order of expression over the cell's depth and the gene's median.

    Parameters
    ----------
    vocabulary
        Ensembl id, or special token, -> token id. If it has ``<cls>`` and ``<eos>``, cells begin and end with them, as
        in V2.
    medians
        Ensembl id -> non-zero median.
    max_length
        Tokens of a cell, special ones included; lower ranks are truncated.
    mapping
        Upper-case Ensembl id -> id in the vocabulary; columns that map to one id are summed, as in V2.
    least_coverage
        Smallest share of the counts that must lie in the vocabulary.

    Examples
    --------
    >>> import anndata
    >>> import numpy as np
    >>> from epigen_utils.geneformer.encoding import RankValueEncoder
    >>> genes = [f"ENSG{i:011d}" for i in range(3)]
    >>> adata = anndata.AnnData(var={"var_names": genes}, layers={"counts": np.array([[6, 3, 1], [0, 2, 8]])})
    >>> vocabulary = {"<pad>": 0, "<mask>": 1} | {gene: token for token, gene in enumerate(genes, start=2)}
    >>> encoder = RankValueEncoder(vocabulary, medians=dict(zip(genes, [4.0, 1.0, 1.0])))
    >>> encoder.encode(adata)["input_ids"][:]
    [[3, 2, 4], [4, 3]]
    >>> encoder.decode([3, 2])
    ['ENSG00000000001', 'ENSG00000000000']
    """

    def __init__(
        self,
        vocabulary: dict[str, int],
        medians: dict[str, float],
        max_length: int = 2048,
        *,
        mapping: dict[str, str] | None = None,
        name: str = "own",
        least_coverage: float = LEAST_COVERAGE,
    ):
        self.vocabulary = Vocabulary(vocabulary, medians, mapping or {}, name)
        self.special = CLS in vocabulary and EOS in vocabulary
        if max_length <= 2 * self.special:
            raise DataError(f"max_length {max_length}: leaves no room for genes; give more")
        self.max_length = max_length
        self.least_coverage = least_coverage

    @classmethod
    def official(cls, version: str, path: str | Path | None = None, **options) -> "RankValueEncoder":
        """Geneformer's encoder: V1 (2,048 tokens) or V2 (4,096, with ``<cls>`` and ``<eos>``)."""
        options.setdefault("max_length", 4096 if version.lower() == "v2" else 2048)
        return cls.of(official_vocabulary(version, path), **options)

    @classmethod
    def of(cls, vocabulary: Vocabulary, **options) -> "RankValueEncoder":
        """Return the encoder of a vocabulary."""
        return cls(vocabulary.tokens, vocabulary.medians, mapping=vocabulary.mapping, name=vocabulary.name, **options)

    def encode(self, adata: anndata.AnnData, *, threads: int = 1) -> datasets.Dataset:
        """Encode cells in memory.

        Parameters
        ----------
        adata
            Cells x genes, counts in ``layers["counts"]``; ``var["ensembl_id"]``, or Ensembl ids as names. The depth of
            a cell is ``obs["n_counts"]`` if present, else the sum of its counts over all genes given.

        Returns
        -------
        One row a cell: ``input_ids`` (16 bits each), ``length`` and the columns of ``obs``.

        Raises
        ------
        DataError
            If a cell has no counts or values that are no counts, Ensembl ids are missing, or too small a share of the
            counts lies in the vocabulary.
        """
        source = cell_source.InMemoryCells(adata)
        batches = list(self._batches(source, threads))
        table = pa.Table.from_batches(batches, self._schema(source))
        return datasets.Dataset(table)

    def encode_file(
        self, path: str | Path, folder: str | Path, *, keep: np.ndarray | None = None, threads: int = 1
    ) -> datasets.Dataset:
        """Encode an h5ad of any size into an Arrow folder, one chunk of cells at a time.

        Parameters
        ----------
        path
            h5ad with counts in ``layers["counts"]``, ``X`` or ``raw``, whichever holds integers.
        folder
            Output, in the format of ``datasets.load_from_disk``; written beside, then renamed.
        keep
            Cells to encode, as positions or a mask; all by default.

        Returns
        -------
        The data set of `encode`, memory-mapped from disk.

        Raises
        ------
        DataError
            In the cases of `encode`, and if the file cannot be read.
        """
        with cell_source.H5adCells(path, keep=keep) as source:
            return encoded_cells.write_arrow(
                Path(folder), self._batches(source, threads), self._schema(source), self.card
            )

    def lengths(self, adata: anndata.AnnData) -> np.ndarray:
        """Number of genes of the vocabulary that each cell expresses, before truncation."""
        untruncated = RankValueEncoder.of(
            self.vocabulary, max_length=len(self.vocabulary.tokens), least_coverage=self.least_coverage
        )
        return np.array(untruncated.encode(adata)["length"]) - 2 * self.special

    @property
    def card(self) -> dict[str, object]:
        """Metadata stored with encoded cells: vocabulary, its SHA-256, longest cell, number of tokens."""
        return {
            "vocabulary": self.vocabulary.name,
            "sha256": self.vocabulary.sha256,
            "max_length": self.max_length,
            "tokens": len(self.vocabulary.tokens),
        }

    def decode(self, input_ids: Iterable[int]) -> list[str]:
        """Return Ensembl ids in rank order, without special tokens."""
        return [self._names[token] for token in input_ids if token in self._names]

    @functools.cached_property
    def _names(self) -> dict[int, str]:
        return {self.vocabulary.tokens[gene]: gene for gene in self.vocabulary.genes}

    @property
    def dtype(self) -> np.dtype:
        """Type of token ids: 16 bits, unless the vocabulary needs more."""
        return np.dtype(np.uint16 if self.vocabulary.size <= 2**16 else np.uint32)

    def _schema(self, source: cell_source.CellSource) -> pa.Schema:
        ids = [pa.field("input_ids", pa.list_(pa.from_numpy_dtype(self.dtype))), pa.field("length", pa.int32())]
        return pa.schema([*ids, *source.schema])

    def _batches(self, source: cell_source.CellSource, threads: int) -> Iterator[pa.RecordBatch]:
        columns = _Columns.of(self.vocabulary, source)
        schema = self._schema(source)
        covered = total = 0
        with ThreadPoolExecutor(threads) as pool:
            parts = source.parts(CHUNK)
            # A few parts are submitted ahead: reading and ranking overlap, and memory stays bounded.
            running = [pool.submit(self._part, columns, part) for part in islice(parts, threads + 1)]
            while running:
                ids, lengths, obs, inside, all_counts = running.pop(0).result()
                covered, total = covered + inside, total + all_counts
                running += [pool.submit(self._part, columns, part) for part in islice(parts, 1)]
                offsets = np.concatenate([[0], np.cumsum(lengths)]).astype(np.int32)
                arrays = [pa.ListArray.from_arrays(offsets, ids), pa.array(lengths, pa.int32())]
                arrays += [pa.array(obs[field.name], field.type, from_pandas=True) for field in source.schema]
                yield pa.RecordBatch.from_arrays(arrays, schema=schema)
        if total and covered / total < self.least_coverage:
            raise DataError(
                f"{source.where}: {covered / total:.1%} of the counts are of genes in the vocabulary "
                f"{self.vocabulary.name!r}, {self.least_coverage:.0%} are required; give human Ensembl ids "
                "(orthologs.humanise), or lower least_coverage"
            )

    def _part(self, columns: "_Columns", part: cell_source.CellChunk) -> tuple:
        counts = part.counts()
        invalid = _first_invalid_count(counts.indptr, counts.data)
        if invalid >= 0:
            row = int(np.searchsorted(counts.indptr, invalid, side="right")) - 1
            value, gene = counts.data[invalid], part.source.genes[counts.indices[invalid]]
            raise DataError(
                f"{part.source.where}: cell {part.names[row]!r}, gene {gene!r}: {value:g} is no count; give raw counts"
            )
        sums = np.asarray(counts.sum(axis=1, dtype=np.float64)).ravel()
        totals = part.depth(counts)
        if (empty := np.flatnonzero(~(sums > 0))).size:
            raise DataError(
                f"{part.source.where}: cell {part.names[empty[0]]!r} has no counts ({empty.size} such cells here); "
                "filter cells first (curation.curate)"
            )
        if (low := np.flatnonzero(~(totals >= sums * (1 - 1e-6)))).size:
            raise DataError(
                f"{part.source.where}: cell {part.names[low[0]]!r}: n_counts is {totals[low[0]]:g}, less than its "
                f"counts here, {sums[low[0]]:g}; correct the column, or drop it"
            )
        counts = columns.collapsed(counts)
        room = self.max_length - 2 * self.special
        lengths, inside = _encoded_lengths(counts.indptr, counts.indices, counts.data, columns.token, room)
        if (bare := np.flatnonzero(lengths == 0)).size:
            raise DataError(
                f"{part.source.where}: cell {part.names[bare[0]]!r}: none of its genes is in the vocabulary "
                f"{self.vocabulary.name!r}; filter cells first (curation.curate)"
            )
        lengths += 2 * self.special
        ends = np.array([self.vocabulary.tokens[CLS], self.vocabulary.tokens[EOS]] if self.special else [], self.dtype)
        ids = np.empty(lengths.sum(), self.dtype)
        _rank_genes(
            counts.indptr,
            counts.indices,
            counts.data,
            columns.token,
            columns.median,
            totals.astype(np.float32),
            np.concatenate([[0], np.cumsum(lengths)]),
            ends,
            ids,
        )
        return ids, lengths, part.obs, inside, float(sums.sum())


class _Columns:
    """Token id and median of each column of a source; the token is -1 for genes outside the vocabulary."""

    def __init__(self, token: np.ndarray, median: np.ndarray, sums: sparse.csr_matrix | None):
        self.token, self.median, self.sums = token, median, sums

    @classmethod
    def of(cls, vocabulary: Vocabulary, source: cell_source.CellSource) -> "_Columns":
        ids = pd.Series(source.ensembl_ids)
        if vocabulary.mapping:
            ids = ids.str.upper().map(vocabulary.mapping)
        encodable = ids.where(ids.isin(vocabulary.medians) & ids.isin(vocabulary.tokens))
        if encodable.isna().all():
            raise DataError(
                f"{source.where}: none of its {len(ids)} genes is in the vocabulary {vocabulary.name!r}, {ids.iloc[0]} "
                "for one; is it of another species? (orthologs.humanise)"
            )
        duplicated = encodable.dropna().duplicated(keep=False)
        sums = None
        if duplicated.any():
            if not vocabulary.mapping:
                gene = encodable.dropna()[duplicated].iloc[0]
                raise DataError(f"{source.where}: gene {gene!r}: given more than once; keep one column, or sum them")
            sums, names = genes.summing_matrix(encodable)
            encodable = pd.Series(names)
        token = encodable.map(vocabulary.tokens).fillna(-1).to_numpy(np.int32)
        return cls(token, encodable.map(vocabulary.medians).to_numpy(np.float64), sums)

    def collapsed(self, counts: sparse.csr_matrix) -> sparse.csr_matrix:
        """Sum the columns that map to the same gene."""
        return counts if self.sums is None else (counts @ self.sums).tocsr()


@numba.njit(nogil=True, cache=True)
def _first_invalid_count(indptr, data):
    """Position of the first value that is no count, or -1."""
    for entry in range(indptr[0], indptr[-1]):
        value = data[entry]
        if not (value >= 0 and value == np.floor(value) and value < np.inf):
            return entry
    return -1


@numba.njit(nogil=True, cache=True)
def _encoded_lengths(indptr, indices, data, token, room):
    """Number of genes encoded for each cell, and total counts of all genes in the vocabulary."""
    lengths = np.zeros(len(indptr) - 1, np.int64)
    inside = 0.0
    for row in range(len(lengths)):
        n = 0
        for entry in range(indptr[row], indptr[row + 1]):
            if data[entry] != 0 and token[indices[entry]] >= 0:
                n += 1
                inside += data[entry]
        lengths[row] = min(n, room)
    return lengths, inside


@numba.njit(nogil=True, cache=True)
def _rank_genes(indptr, indices, data, token, median, totals, offsets, ends, ids):
    """Fill ``ids`` with the genes of each cell, highest value first.

    Values are computed as in official Geneformer: counts over depth in 32 bits, over the median in 64. A radix sort by
    the upper 24 bits of their bit patterns, which sort as the positive numbers themselves, orders all but nearly equal
    values; `_sort_equal_keys` then orders those exactly.
    """
    longest = 0
    for row in range(len(indptr) - 1):
        longest = max(longest, indptr[row + 1] - indptr[row])
    value, gene = np.empty(longest, np.float64), np.empty(longest, np.int64)
    key, order, spare = np.empty(longest, np.uint32), np.empty(longest, np.int32), np.empty(longest, np.int32)
    start = np.empty(4096, np.int32)
    scale = np.float32(TARGET_SUM)
    for row in range(len(indptr) - 1):
        n = 0
        for entry in range(indptr[row], indptr[row + 1]):
            column = indices[entry]
            if data[entry] != 0 and token[column] >= 0:
                value[n] = np.float64(np.float32(np.float32(data[entry]) / totals[row]) * scale) / median[column]
                gene[n] = token[column]
                n += 1
        bits = value.view(np.uint64)
        for i in range(n):
            key[i] = ~np.uint32(bits[i] >> np.uint64(40)) & np.uint32(0xFFFFFF)
            order[i] = i
        width = np.uint32(8 if n < 1024 else 12)
        last = np.uint32((1 << width) - 1)
        for digit in range(24 // width):
            shift = np.uint32(digit * width)
            start[: last + 1] = 0
            for i in range(n):
                start[(key[i] >> shift) & last] += 1
            total = np.int32(0)
            for d in range(last + 1):
                total, start[d] = total + start[d], total
            for i in range(n):
                d = (key[order[i]] >> shift) & last
                spare[start[d]] = order[i]
                start[d] += 1
            order, spare = spare, order
        _sort_equal_keys(value, gene, key, order, n)
        at, end = offsets[row], offsets[row + 1]
        if len(ends):
            ids[at], ids[end - 1] = ends[0], ends[1]
            at, end = at + 1, end - 1
        for i in range(end - at):
            ids[at + i] = gene[order[i]]


@numba.njit(nogil=True, cache=True)
def _sort_equal_keys(value, gene, key, order, n):
    """Sort each run of equal keys by descending value, then by ascending token id."""
    first = 0
    while first < n:
        last = first + 1
        while last < n and key[order[last]] == key[order[first]]:
            last += 1
        if last - first > 32:
            run = order[first:last].copy()
            run = run[np.argsort(gene[run])]
            order[first:last] = run[np.argsort(-value[run], kind="mergesort")]
        else:
            for i in range(first + 1, last):
                moved = order[i]
                j = i
                while j > first:
                    before = order[j - 1]
                    if value[before] > value[moved] or (value[before] == value[moved] and gene[before] < gene[moved]):
                        break
                    order[j] = before
                    j -= 1
                order[j] = moved
        first = last
