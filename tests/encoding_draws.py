"""Random cells for tests/fuzz_encoding.py: a vocabulary, a matrix in some form, and perturbations, from a seed.

Most cases are such as data sets are; the others have a defect that the encoder, or a perturbation, refuses.
"""

import dataclasses
import functools
import warnings

import anndata
import numpy as np
import pandas as pd
from scipy import sparse

from epigen_utils.geneformer.vocabularies import CLS, EOS, MASK, PAD, Vocabulary, official_vocabulary

#: Positions of the model that reads perturbed cells, and tokens of the model for vocabularies that are drawn.
POSITIONS, TOKENS = 24, 64
#: Kinds of vocabulary, and how often each is drawn.
VOCABULARIES = {"own": 0.42, "own, with ends": 0.24, "own, mapped": 0.14, "wide": 0.04, "v1": 0.08, "v2": 0.08}
#: Medians of an own vocabulary: those that make ties, and those that differ in the last bits alone.
MEDIANS = {"equal": 0.2, "few": 0.35, "spread": 0.35, "close": 0.1}
#: Counts of a gene in a cell.
COUNTS = {"small": 0.45, "spread": 0.4, "huge": 0.15}
#: Types of the values, and forms of the matrix.
TYPES = {
    "int64": 0.3, "float32": 0.3, "int32": 0.12, "float64": 0.12, "uint16": 0.04, "uint8": 0.04, "int16": 0.03,
    "uint32": 0.02, "bool": 0.02, "float16": 0.01,
}  # fmt: skip
FORMS = {"csr": 0.4, "dense": 0.25, "csc": 0.15, "zeros stored": 0.08, "unsorted": 0.08, "entries twice": 0.04}
#: What is wrong with a matrix, and with its column of depths.
DEFECTS = {
    "none": 0.78, "empty cell": 0.03, "bare cell": 0.03, "negative": 0.03, "fraction": 0.02, "nan": 0.02, "inf": 0.01,
    "symbols": 0.02, "another species": 0.01, "gene twice": 0.03, "no genes": 0.01, "no cells": 0.01,
}  # fmt: skip
DEPTHS = {"sums": 0.7, "more": 0.24, "less": 0.02, "missing": 0.02, "words": 0.02}
#: Perturbations, the genes that are perturbed, and what is wrong with these.
PERTURBED = {"delete": 0.5, "overexpress": 0.47, "remove": 0.03}
GENES = {"all": 0.3, "one": 0.2, "group": 0.3, "one by one": 0.2}
SPOILT = {
    "nothing": 0.78, "gene twice": 0.06, "unknown gene": 0.04, "special token": 0.04, "no gene": 0.03, "one word": 0.02,
    "empty cell": 0.03,
}  # fmt: skip


@dataclasses.dataclass(frozen=True)
class Request:
    """A perturbation, by the arguments of `perturbation.perturb`, and whether a cell without tokens is among the cells."""

    kind: str
    genes: tuple[str, ...] | str
    together: bool
    pooling: str
    layer: int
    to_state: bool
    keep_places: bool
    max_length: int | None
    empty_cell: bool = False


@dataclasses.dataclass(frozen=True)
class Case:
    """A matrix and how it is encoded.

    Attributes
    ----------
    counts
        Cells x genes, as the matrix holds them, whatever its type and form.
    names
        Ensembl id of each gene, as the data set writes it.
    in_column
        Whether ids are in ``var["ensembl_id"]`` rather than in the index.
    depth
        ``obs["n_counts"]``, if it has that column.
    chunk
        Cells that are encoded at once.
    in_file
        Whether the cells are encoded from an h5ad.
    kinds
        What was drawn, in words.
    """

    seed: int
    number: int
    vocabulary: Vocabulary
    counts: np.ndarray
    names: tuple[str, ...]
    in_column: bool
    dtype: str
    form: str
    depth: tuple[object, ...] | None
    max_length: int
    least_coverage: float
    chunk: int
    in_file: bool
    requests: tuple[Request, ...]
    kinds: tuple[str, ...]

    @property
    def special(self) -> bool:
        """Whether cells begin with ``<cls>`` and end with ``<eos>``."""
        return CLS in self.vocabulary.tokens

    def adata(self) -> anndata.AnnData:
        """The data set, as `epigen_utils` takes it."""
        index = [f"gene {i}" for i in range(len(self.names))] if self.in_column else list(self.names)
        var = pd.DataFrame(index=pd.Index(index, dtype=object))
        if self.in_column:
            var["ensembl_id"] = list(self.names)
        obs = pd.DataFrame(index=pd.Index([f"c{i}" for i in range(len(self.counts))], dtype=object))
        if self.depth is not None:
            obs["n_counts"] = list(self.depth)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # a gene that is there twice
            return anndata.AnnData(obs=obs, var=var, layers={"counts": in_form(self.counts, self.dtype, self.form)})


def in_form(counts: np.ndarray, dtype: str, form: str) -> np.ndarray | sparse.spmatrix:
    """The same matrix as it may be stored: by columns, with zeros, in any order, or with an entry in two parts."""
    values = counts.astype(dtype)
    if form == "dense":
        return values
    if dtype == "float16":  # which SciPy's matrices do not hold
        values = counts.astype("float32")
    matrix = sparse.csr_matrix(values)
    if form == "csc":
        return matrix.tocsc()
    if form == "zeros stored":
        rows, columns = np.indices(counts.shape).reshape(2, -1)
        ends = np.arange(len(counts) + 1) * counts.shape[1]
        return sparse.csr_matrix((values[rows, columns], columns, ends), counts.shape)
    if form == "unsorted":
        parts = [np.arange(a, b)[::-1] for a, b in zip(matrix.indptr, matrix.indptr[1:], strict=False)]
        order = np.concatenate([*parts, np.array([], int)])
        return sparse.csr_matrix((matrix.data[order], matrix.indices[order], matrix.indptr), counts.shape)
    if form == "entries twice" and matrix.nnz and matrix.data[0] > 1:
        one = np.ones(1, matrix.dtype)
        data, indices = np.r_[one, matrix.data[:1] - one, matrix.data[1:]], np.r_[matrix.indices[:1], matrix.indices]
        row = np.searchsorted(matrix.indptr, 0, side="right") - 1
        return sparse.csr_matrix((data, indices, matrix.indptr + (np.arange(len(counts) + 1) > row)), counts.shape)
    return matrix


def choice(rng: np.random.Generator, weights: dict) -> object:
    """One of the keys, by their weights."""
    shares = np.array(list(weights.values()))
    return list(weights)[int(rng.choice(len(weights), p=shares / shares.sum()))]


@functools.cache
def published(version: str) -> tuple[Vocabulary, np.ndarray, np.ndarray]:
    """An official vocabulary, its genes, and the ids that it maps to others of them."""
    vocabulary = official_vocabulary(version)
    mapped = [one for one, other in vocabulary.mapping.items() if one != other and other in vocabulary.tokens]
    return vocabulary, np.array(vocabulary.genes), np.array(mapped)


def draw_vocabulary(rng: np.random.Generator) -> tuple[Vocabulary, list[str], list[str], list[str]]:
    """A vocabulary, some of its genes, some ids that it maps to these or others, and what was drawn."""
    kind = choice(rng, VOCABULARIES)
    if kind in ("v1", "v2"):
        vocabulary, known, aliases = published(kind)
        genes = [str(gene) for gene in known[rng.choice(len(known), int(rng.integers(2, 40)), replace=False)]]
        some = [str(one) for one in aliases[rng.choice(len(aliases), 6)]] if len(aliases) and rng.random() < 0.7 else []
        some = list(dict.fromkeys(some))
        some += [other for alias in some[:3] if (other := vocabulary.mapping[alias]) not in genes]
        return vocabulary, genes, some, [f"vocabulary: {kind}"]
    medians = choice(rng, MEDIANS)
    genes = [f"ENSG{i:011d}" for i in rng.choice(10**6, int(rng.integers(1, 41)), replace=False)]
    values = {
        "equal": np.ones(len(genes)),
        "few": rng.choice([0.5, 1.0, 2.0, 3.0, 0.1], len(genes)),
        "spread": rng.lognormal(0, 1.5, len(genes)),
        "close": 1 + np.arange(len(genes)) * 2.0**-45,
    }[medians]
    specials = [PAD, MASK, *([CLS, EOS] if kind == "own, with ends" or rng.random() < 0.1 else [])]
    ids = rng.choice(np.arange(4, TOKENS), len(genes), replace=False)
    if kind == "wide":
        ids = ids * 9_001
    tokens = dict(zip(specials, range(4), strict=False)) | dict(zip(genes, map(int, ids), strict=True))
    mapping, aliases = {}, []
    if kind == "own, mapped":
        aliases = [f"ENSG{10**6 + i:011d}" for i in rng.choice(10**6, 8, replace=False)]
        mapping = {gene: gene for gene in genes} | {alias: str(rng.choice(genes)) for alias in aliases[:6]}
        mapping |= dict.fromkeys(aliases[6:], "ENSG99999999999")
    vocabulary = Vocabulary(tokens, dict(zip(genes, map(float, values), strict=True)), mapping, kind)
    return vocabulary, genes, aliases, [f"vocabulary: {kind}", f"medians: {medians}"]


def draw_names(rng: np.random.Generator, mapped: bool, genes: list[str], aliases: list[str], defect: str) -> list[str]:
    """Ensembl ids of the columns: genes of the vocabulary in another order, others, and as files write them."""
    kept = [gene for gene in genes if rng.random() < 0.9] or genes[:1]
    others = [f"ENSG{10**8 + i:011d}" for i in rng.choice(10**6, int(rng.integers(0, 8)), replace=False)]
    names = list(rng.permutation([*kept, *aliases, *others]))
    if rng.random() < 0.2:
        names = [f"{name}.{rng.integers(1, 20)}" for name in names]
    if mapped and rng.random() < 0.2:
        names = [name.lower() if i % 3 == 0 and len(names) > 6 else name for i, name in enumerate(names)]
    if defect == "gene twice":
        names.append(kept[0])
    if defect == "symbols":
        names = [f"GENE{i}" for i in range(len(names))]
    if defect == "another species":
        names = [name.upper().replace("ENSG", "ENSMUSG") for name in names]
    return [] if defect == "no genes" else names


def draw_counts(rng: np.random.Generator, n_genes: int, dtype: str, kind: str) -> np.ndarray:
    """Counts, cells x genes, that the type can hold; every cell has some."""
    shape = int(rng.integers(1, 13)), n_genes
    values = {
        "small": rng.poisson(1.2, shape),
        "spread": rng.poisson(rng.lognormal(0, 2, n_genes), shape),
        "huge": np.floor(2.0 ** rng.uniform(0, 40, shape)) * (rng.random(shape) < 0.6),
    }[kind].astype(float)
    if n_genes:
        values[:, rng.integers(n_genes)] += 1
    largest = {"bool": 1, "float16": 2048, "float32": 2.0**40, "float64": 2.0**40}
    most = largest[dtype] if dtype in largest else float(np.iinfo(dtype).max // 2 + 1)
    return np.minimum(values, most).astype(dtype).astype(float)


def spoil(rng: np.random.Generator, counts: np.ndarray, defect: str, outside: np.ndarray) -> np.ndarray:
    """A matrix with one cell that is wrong; ``outside`` masks the genes that the vocabulary lacks."""
    counts = counts[:0] if defect == "no cells" else counts.copy()
    if not counts.size:
        return counts
    cell, gene = int(rng.integers(len(counts))), int(rng.integers(counts.shape[1]))
    if defect == "empty cell":
        counts[cell] = 0
    elif defect == "bare cell":
        counts[cell] = outside
    elif defect in (wrong := {"negative": -1.0, "fraction": 0.5, "nan": np.nan, "inf": np.inf}):
        counts[cell, gene] = wrong[defect]
    return counts


def draw_request(rng: np.random.Generator, vocabulary: Vocabulary, genes: list[str]) -> tuple[Request, list[str]]:
    """A perturbation of genes of the vocabulary, most of them such as cells may express."""
    kind, which, wrong = choice(rng, PERTURBED), choice(rng, GENES), choice(rng, SPOILT)
    named = "all"
    if which != "all":
        n = 1 if which == "one" else int(rng.integers(2, 5))
        named = [str(gene) for gene in rng.choice(genes, min(n, len(genes)), replace=False)]
        extra = {
            "gene twice": named[0],
            "unknown gene": "ENSG77777777777",
            "special token": str(rng.choice([MASK, PAD])),
        }
        named += [extra[wrong]] if wrong in extra else []
        named = {"no gene": [], "one word": named[0]}.get(wrong, named)
    length = choice(rng, {"default": 0.72, "short": 0.2, "no": 0.03, "too long": 0.05})
    lengths = {"default": None, "short": int(rng.integers(1, 12)), "no": 0, "too long": POSITIONS + 1}
    request = Request(
        kind,
        named if isinstance(named, str) else tuple(named),
        which != "one by one",
        str(rng.choice(["mean", "mean", "first", "max"])),
        int(rng.choice([-1, -1, 0, -2])),
        bool(rng.random() < 0.5),
        bool(rng.random() < 0.12),
        lengths[length],
        wrong == "empty cell",
    )
    kinds = [f"perturbation: {kind}", f"perturbed: {which}", f"length: {length}", f"pooling: {request.pooling}"]
    kinds += [f"genes: {wrong}"] if wrong != "nothing" else []
    return request, kinds


def draw(seed: int, number: int) -> Case:
    """The case of a seed and number, which depends on nothing else."""
    rng = np.random.default_rng([seed, number])
    vocabulary, genes, aliases, kinds = draw_vocabulary(rng)
    defect, depths, dtype, form = (choice(rng, weights) for weights in (DEFECTS, DEPTHS, TYPES, FORMS))
    if defect in ("negative", "fraction", "nan", "inf"):
        dtype = "float32"
    names = draw_names(rng, bool(vocabulary.mapping), genes, aliases, defect)
    size = choice(rng, COUNTS)
    counts = draw_counts(rng, len(names), dtype, size)
    ids = [name.upper().partition(".")[0] for name in names]
    outside = np.array([vocabulary.mapping.get(one, one) not in vocabulary.tokens for one in ids], float)
    counts = spoil(rng, counts, defect, outside)
    sums = np.nan_to_num(counts, posinf=0).sum(axis=1)
    depth = {
        "sums": None,
        "more": tuple(np.ceil(sums * rng.uniform(1, 3, len(sums)))),
        "less": tuple(sums * 0.5),
        "missing": tuple(np.where(np.arange(len(sums)) == 0, np.nan, sums)),
        "words": ("many", *map(str, sums[1:])),
    }[depths if len(sums) or depths != "words" else "sums"]
    special = CLS in vocabulary.tokens
    short = int(rng.integers(0, 12)) if rng.random() < 0.35 else 4096
    requests = [draw_request(rng, vocabulary, genes) for _ in range(2 * (vocabulary.size < 30_000))]
    kinds += [
        f"counts: {size}",
        f"type: {dtype}",
        f"form: {form}",
        f"depth: {depths}",
        f"max_length: {'short' if short < 4096 else 'long'}",
    ]
    kinds += [f"defect: {defect}", *(kind for _, drawn in requests for kind in drawn)]
    in_file = bool(rng.random() < 0.15)
    kinds += ["from: file" if in_file else "from: memory", "ends" if special else "no ends"]
    return Case(
        seed,
        number,
        vocabulary,
        counts,
        tuple(map(str, names)),
        bool(rng.random() < 0.3),
        dtype,
        form,
        depth,
        short,
        float(rng.choice([0.2, 0.0, 0.0, 0.0, 0.9])),
        int(rng.choice([1024, 1024, 2, 5])),
        in_file,
        tuple(request for request, _ in requests),
        tuple(kinds),
    )
