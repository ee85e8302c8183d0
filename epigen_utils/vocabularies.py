"""Token ids and medians of Geneformer's vocabularies, and of one's own; no code runs when they are read."""

import hashlib
import io
import json
import pickle
from dataclasses import asdict, dataclass, field
from pathlib import Path

import numpy as np

from epigen_utils.errors import DataError
from epigen_utils.files import write_atomically

#: Names that official Geneformer gives its files, by part of the vocabulary.
PICKLES = {"v1": "gc30M", "v2": "gc104M"}
PAD, MASK, CLS, EOS = "<pad>", "<mask>", "<cls>", "<eos>"


@dataclass(frozen=True)
class Vocabulary:
    """Genes with their token ids and the medians that ranks are taken by.

    Attributes
    ----------
    tokens
        Ensembl id, or one of the special tokens, -> id.
    medians
        Ensembl id -> non-zero median of normalised expression over a corpus.
    mapping
        Ensembl id, in capitals, -> the id that it goes by here; empty where ids are taken as they are.
    name
        ``v1``, ``v2`` or what its maker calls it.
    """

    tokens: dict[str, int]
    medians: dict[str, float]
    mapping: dict[str, str] = field(default_factory=dict)
    name: str = "own"

    def __post_init__(self) -> None:
        """Refuse what cannot be one vocabulary.

        Raises
        ------
        DataError
            If pad or mask is missing, two genes share an id, or a gene has no usable median: then tokens and medians are of
            two versions.
        """
        for special in (PAD, MASK):
            if special not in self.tokens:
                raise DataError(f"vocabulary {self.name!r}: no token {special}; add it")
        if len(set(self.tokens.values())) < len(self.tokens):
            raise DataError(f"vocabulary {self.name!r}: two tokens share an id; number them anew")
        lost = [gene for gene in self.genes if not self.medians.get(gene, 0) > 0]
        if lost:
            raise DataError(
                f"vocabulary {self.name!r}: {len(lost)} of {len(self.genes)} genes have no positive median, {lost[0]} first; "
                "take tokens and medians of one version"
            )

    @property
    def genes(self) -> list[str]:
        return [gene for gene in self.tokens if not gene.startswith("<")]

    @property
    def gene_tokens(self) -> np.ndarray:
        """Ids of the genes, in the order of `genes`."""
        return np.array([self.tokens[gene] for gene in self.genes])

    @property
    def size(self) -> int:
        """Length of an array that is indexed by id."""
        return max(self.tokens.values()) + 1

    @property
    def sha256(self) -> str:
        """Of tokens and medians: two data sets go together where it is the same."""
        content = [[gene, token, self.medians.get(gene)] for gene, token in sorted(self.tokens.items())]
        return hashlib.sha256(json.dumps(content).encode()).hexdigest()


def of_medians(medians: dict[str, float], *, name: str, special: bool = False) -> Vocabulary:
    """A vocabulary of the genes that have a median, in alphabetical order after the special tokens.

    Parameters
    ----------
    special
        Whether there are ``<cls>`` and ``<eos>``, as in V2.
    """
    names = [PAD, MASK, *([CLS, EOS] if special else []), *sorted(medians)]
    return Vocabulary({gene: token for token, gene in enumerate(names)}, dict(medians), name=name)


def save(vocabulary: Vocabulary, path: Path) -> None:
    """Write a vocabulary as JSON, beside a model that was trained on it."""
    path.parent.mkdir(parents=True, exist_ok=True)
    write_atomically(path, json.dumps(asdict(vocabulary)))


def load(path: str | Path) -> Vocabulary:
    """Read what `save` wrote.

    Raises
    ------
    DataError
        If there is no such file, or it is no vocabulary.
    """
    try:
        return Vocabulary(**json.loads(Path(path).read_text()))
    except (OSError, ValueError, TypeError) as error:
        raise DataError(
            f"{path}: no vocabulary ({str(error).splitlines()[0]}); give the one beside the model"
        ) from None


def official(version: str, path: str | Path | None = None) -> Vocabulary:
    """Geneformer's own vocabulary.

    Parameters
    ----------
    version
        ``v1`` (Genecorpus-30M, 25,426 tokens, none of them ``<cls>``) or ``v2`` (104M cells, 20,275 tokens).
    path
        Folder with the published pickles (``token_dictionary_gc30M.pkl`` and so on); by default the registry's tables.

    Raises
    ------
    DataError
        If a file is missing, is no plain dictionary, or is of the other version.
    """
    version = version.lower()
    if version not in PICKLES:
        raise DataError(f"vocabulary {version!r}: there are {', '.join(PICKLES)}")
    if path is None:
        from epigen_utils import registry  # not needed where a model is trained

        files = registry.fetch(f"geneformer-{version}")
        parts = {part: _table(files[part]) for part in ("tokens", "medians", "ensembl")}
    else:
        names = {"tokens": "token_dictionary", "medians": "gene_median_dictionary", "ensembl": "ensembl_mapping_dict"}
        parts = {part: read_pickle(Path(path) / f"{name}_{PICKLES[version]}.pkl") for part, name in names.items()}
    tokens = {gene: int(token) for gene, token in parts["tokens"].items()}
    if (CLS in tokens) != (version == "v2"):
        other = "v1" if version == "v2" else "v2"
        raise DataError(f"{path or version}: this token dictionary is of {other}, not {version}; ask for {other}")
    medians = {gene: float(median) for gene, median in parts["medians"].items()}
    return Vocabulary(tokens, medians, parts["ensembl"] if version == "v2" else {}, version)


def _table(path: Path) -> dict:
    """The first two columns of a table, first -> second."""
    import pandas as pd  # not needed where a model is trained

    frame = pd.read_csv(path, sep="\t", keep_default_na=False)
    return dict(zip(frame.iloc[:, 0], frame.iloc[:, 1], strict=True))


class _Plain(pickle.Unpickler):
    """Reads dictionaries, words and numbers; NumPy's scalars are rebuilt here, and nothing else is called."""

    def find_class(self, module: str, name: str) -> object:
        if module in ("numpy.core.multiarray", "numpy._core.multiarray") and name == "scalar":
            return _scalar
        if (module, name) == ("numpy", "dtype"):
            return _Kind
        raise pickle.UnpicklingError(f"asks for {module}.{name}")


class _Kind:
    """What a pickle says of a NumPy number's type; only its letter counts."""

    def __init__(self, code: str, *_rest: object):
        self.code = code

    def __setstate__(self, _state: object) -> None:
        """Byte order and alignment, which the letter's default has."""


def _scalar(kind: _Kind, content: bytes) -> float:
    dtype = np.dtype(kind.code)
    if dtype.kind not in "iuf":
        raise pickle.UnpicklingError(f"holds a value of type {kind.code}")
    return np.frombuffer(content, dtype).item()


def read_pickle(path: Path) -> dict:
    """A pickled dictionary of words and numbers, read so that no code of the file can run.

    Raises
    ------
    DataError
        If the file is missing, broken, asks for anything but plain values, or holds no dictionary.
    """
    if not path.is_file():
        raise DataError(f"{path}: no such file; check the folder")
    try:
        found = _Plain(io.BytesIO(path.read_bytes())).load()
    except (pickle.UnpicklingError, EOFError, ValueError, TypeError, AttributeError, IndexError, KeyError) as error:
        mend = "refused, since a dictionary needs no code; take the published file"
        raise DataError(f"{path}: no plain pickle ({error}): {mend}") from None
    if not isinstance(found, dict) or not all(isinstance(key, str) for key in found):
        raise DataError(f"{path}: holds no dictionary of names; take the published file")
    return found
