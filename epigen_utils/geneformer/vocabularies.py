"""Token ids and gene medians: Geneformer's vocabularies and custom ones."""

import hashlib
import json
import math
import numbers
from dataclasses import asdict, dataclass, field
from pathlib import Path

import numpy as np
import pandas as pd

from epigen_utils.containers import read_plain_pickle
from epigen_utils.data import fetching
from epigen_utils.errors import DataError, first_line
from epigen_utils.files import read_json, write_atomically

#: Suffixes of official Geneformer's file names, by version.
PICKLE_SUFFIXES = {"v1": "gc30M", "v2": "gc104M"}
PAD, MASK, CLS, EOS = "<pad>", "<mask>", "<cls>", "<eos>"


@dataclass(frozen=True)
class Vocabulary:
    """Token ids of genes and the medians that normalise their expression before ranking.

    Attributes
    ----------
    tokens
        Ensembl id, or special token, -> token id.
    medians
        Ensembl id -> non-zero median of normalised expression over a corpus.
    mapping
        Upper-case Ensembl id -> Ensembl id in `tokens`; empty: ids are used unchanged.
    name
        ``v1``, ``v2`` or any other name.
    """

    tokens: dict[str, int]
    medians: dict[str, float]
    mapping: dict[str, str] = field(default_factory=dict)
    name: str = "own"

    def __post_init__(self) -> None:
        """Check that tokens and medians form one vocabulary.

        Raises
        ------
        DataError
            If a token or median is no number, pad or mask is missing, two genes share an id, or a gene has no positive
            median, a sign that tokens and medians are of two versions.
        """
        kinds = {"token": (self.tokens, numbers.Integral), "median": (self.medians, numbers.Real)}
        for part, (values, kind) in (kinds | {"other id": (self.mapping, str)}).items():
            if not isinstance(values, dict):
                raise DataError(f"vocabulary {self.name!r}: {part}s are a {type(values).__name__}; give them by gene")
            wrong = [gene for gene, value in values.items() if not isinstance(value, kind) or isinstance(value, bool)]
            if wrong:
                found = type(values[wrong[0]]).__name__
                raise DataError(f"vocabulary {self.name!r}: {part} of {wrong[0]!r} is a {found}; correct it")
        for special in (PAD, MASK):
            if special not in self.tokens:
                raise DataError(f"vocabulary {self.name!r}: no token {special}; add it")
        if min(self.tokens.values()) < 0:
            raise DataError(f"vocabulary {self.name!r}: token {min(self.tokens.values())}; number them from 0")
        if len(set(self.tokens.values())) < len(self.tokens):
            raise DataError(f"vocabulary {self.name!r}: two tokens share an id; renumber them")
        without_median = [gene for gene in self.genes if not 0 < self.medians.get(gene, 0) < math.inf]
        if without_median:
            raise DataError(
                f"vocabulary {self.name!r}: {len(without_median)} of {len(self.genes)} genes have no positive median, "
                f"{without_median[0]} first; take tokens and medians of one version"
            )

    @property
    def genes(self) -> list[str]:
        return [gene for gene in self.tokens if not gene.startswith("<")]

    @property
    def gene_tokens(self) -> np.ndarray:
        """Token ids of the genes, in the order of `genes`."""
        return np.array([self.tokens[gene] for gene in self.genes])

    @property
    def size(self) -> int:
        """Length of an array that is indexed by token id."""
        return max(self.tokens.values()) + 1

    @property
    def sha256(self) -> str:
        """Hash of tokens and medians; equal hashes mean compatible data sets."""
        content = [[gene, token, self.medians.get(gene)] for gene, token in sorted(self.tokens.items())]
        return hashlib.sha256(json.dumps(content).encode()).hexdigest()


def vocabulary_from_medians(medians: dict[str, float], *, name: str, special: bool = False) -> Vocabulary:
    """Build a vocabulary of the genes with a median, in alphabetical order after the special tokens.

    Parameters
    ----------
    special
        Include ``<cls>`` and ``<eos>``, as in V2.
    """
    names = [PAD, MASK, *([CLS, EOS] if special else []), *sorted(medians)]
    return Vocabulary({gene: token for token, gene in enumerate(names)}, dict(medians), name=name)


def save_vocabulary(vocabulary: Vocabulary, path: Path) -> None:
    """Write a vocabulary as JSON, beside a model trained with it."""
    write_atomically(path, json.dumps(asdict(vocabulary)))


def load_vocabulary(path: str | Path) -> Vocabulary:
    """Read a vocabulary that `save_vocabulary` wrote.

    Raises
    ------
    DataError
        If the file is missing or is no vocabulary.
    """
    try:
        return Vocabulary(**read_json(Path(path), "give the one beside the model"))
    except (DataError, TypeError) as error:
        raise DataError(f"{path}: no vocabulary ({first_line(error)}); give the one beside the model") from None


def official_vocabulary(version: str, path: str | Path | None = None) -> Vocabulary:
    """Load a vocabulary of official Geneformer.

    Parameters
    ----------
    version
        ``v1`` (Genecorpus-30M, 25,426 tokens, no ``<cls>``) or ``v2`` (104M cells, 20,275 tokens).
    path
        Folder of the published pickles (``token_dictionary_gc30M.pkl`` etc.); by default the project's own tables.

    Raises
    ------
    DataError
        If a file is missing, is no plain dictionary, or belongs to the other version.
    """
    version = version.lower()
    if version not in PICKLE_SUFFIXES:
        raise DataError(f"vocabulary {version!r}: there are {', '.join(PICKLE_SUFFIXES)}")
    if path is None:
        files = fetching.fetch(f"geneformer-{version}")
        parts = {part: _read_two_columns(path) for part, path in files.items()}
    else:
        names = {"tokens": "token_dictionary", "medians": "gene_median_dictionary"}
        names |= {"ensembl": "ensembl_mapping_dict"} if version == "v2" else {}
        parts = {
            part: read_plain_pickle(Path(path) / f"{name}_{PICKLE_SUFFIXES[version]}.pkl")
            for part, name in names.items()
        }
    try:
        tokens = {gene: int(token) for gene, token in parts["tokens"].items()}
        medians = {gene: float(median) for gene, median in parts["medians"].items()}
    except (ValueError, TypeError, OverflowError) as error:
        raise DataError(f"{path or version}: no vocabulary ({first_line(error)}); take the published files") from None
    if (CLS in tokens) != (version == "v2"):
        other = "v1" if version == "v2" else "v2"
        raise DataError(f"{path or version}: this token dictionary is of {other}, not {version}; ask for {other}")
    return Vocabulary(tokens, medians, parts.get("ensembl", {}), version)


def _read_two_columns(path: Path) -> dict:
    """Read a tab-separated table as a dictionary: first column -> second column."""
    frame = pd.read_csv(path, sep="\t", keep_default_na=False)
    return dict(zip(frame.iloc[:, 0], frame.iloc[:, 1], strict=True))
