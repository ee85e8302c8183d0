import pickle

import numpy as np
import pytest

from epigen_utils.errors import DataError
from epigen_utils.geneformer import vocabularies


def published(folder, version, tokens, medians, mapping=None):
    """The three pickles of official Geneformer."""
    folder.mkdir(exist_ok=True)
    parts = {"token_dictionary": tokens, "gene_median_dictionary": medians, "ensembl_mapping_dict": mapping or {}}
    for name, content in parts.items():
        (folder / f"{name}_{vocabularies.PICKLE_SUFFIXES[version]}.pkl").write_bytes(pickle.dumps(content))
    return folder


def test_official_tables(cache):
    one, two = vocabularies.official_vocabulary("v1"), vocabularies.official_vocabulary("v2")
    assert (len(one.tokens), len(one.genes)) == (25_426, 25_424)
    assert (len(two.tokens), len(two.genes)) == (20_275, 20_271)
    assert one.medians["ENSG00000157005"] == pytest.approx(51.98, abs=0.01), "SST, facts/papers_audit.md"
    assert one.mapping == {}
    assert len({one.sha256, two.sha256}) == 2
    for tokens, medians in ((one, two), (two, one)):
        with pytest.raises(DataError, match="genes have no positive median.*one version"):
            vocabularies.Vocabulary(tokens.tokens, medians.medians)


def test_published_pickles_with_numpy_numbers(tmp_path):
    tokens = {"<pad>": 0, "<mask>": 1, "ENSG1": np.int64(2)}
    found = vocabularies.official_vocabulary("v1", published(tmp_path, "v1", tokens, {"ENSG1": np.float64(1.5)}))
    assert found.tokens == {"<pad>": 0, "<mask>": 1, "ENSG1": 2}
    assert found.medians == {"ENSG1": 1.5}
    assert type(found.medians["ENSG1"]) is float


def test_v2_has_cls_and_a_mapping_and_is_not_taken_for_v1(tmp_path):
    tokens = {"<pad>": 0, "<mask>": 1, "<cls>": 2, "<eos>": 3, "ENSG1": 4}
    folder = published(tmp_path, "v2", tokens, {"ENSG1": 1.0}, {"ENSG9": "ENSG1"})
    assert vocabularies.official_vocabulary("v2", folder).mapping == {"ENSG9": "ENSG1"}
    published(tmp_path, "v1", tokens, {"ENSG1": 1.0})
    with pytest.raises(DataError, match="is of v2, not v1"):
        vocabularies.official_vocabulary("v1", tmp_path)
    with pytest.raises(DataError, match="there are v1, v2"):
        vocabularies.official_vocabulary("v3")


@pytest.mark.parametrize(
    ("tokens", "said"),
    [
        ({"<pad>": 0, "ENSG1": 1}, "no token <mask>"),
        ({"<pad>": 0, "<mask>": 0, "ENSG1": 1}, "two tokens share an id"),
        ({"<pad>": 0, "<mask>": 1, "ENSG1": 2, "ENSG2": 3}, "1 of 2 genes have no positive median, ENSG2 first"),
        ({"<pad>": 0, "<mask>": 1, "ENSG1": "2"}, "token of 'ENSG1' is a str"),
        ({"<pad>": 0, "<mask>": 1, "ENSG1": -2}, "token -2; number them from 0"),
        (["<pad>", "<mask>"], "tokens are a list; give them by gene"),
    ],
)
def test_what_is_no_vocabulary(tokens, said):
    with pytest.raises(DataError, match=said):
        vocabularies.Vocabulary(tokens, {"ENSG1": 1.0, "ENSG2": 0.0})


def test_own_vocabulary_of_medians():
    found = vocabularies.vocabulary_from_medians({"ENSG2": 1.0, "ENSG1": 2.0}, name="corpus", special=True)
    assert list(found.tokens) == ["<pad>", "<mask>", "<cls>", "<eos>", "ENSG1", "ENSG2"]
    assert found.genes == ["ENSG1", "ENSG2"]


def test_saved_and_read_again(tmp_path):
    found = vocabularies.vocabulary_from_medians({"ENSG2": 1.5, "ENSG1": 2.0}, name="corpus")
    vocabularies.save_vocabulary(found, tmp_path / "model" / "vocabulary.json")
    assert vocabularies.load_vocabulary(tmp_path / "model" / "vocabulary.json") == found
    (tmp_path / "other.json").write_text("{}")
    for name in ("other.json", "none.json"):
        with pytest.raises(DataError, match="no vocabulary"):
            vocabularies.load_vocabulary(tmp_path / name)


@pytest.mark.parametrize("medians", [["ENSG1"], {"ENSG1": "1"}, {"ENSG1": float("inf")}, {"ENSG1": None}])
def test_medians_that_are_no_numbers(medians):
    with pytest.raises(DataError, match="vocabulary 'own': "):
        vocabularies.Vocabulary({"<pad>": 0, "<mask>": 1, "ENSG1": 2}, medians)


@pytest.mark.parametrize("text", ["[]", "[" * 100_000, '{"tokens": ["<pad>"], "medians": {}}', '{"tokens": 1}'])
def test_a_file_of_other_json_is_one_line(tmp_path, text):
    (tmp_path / "vocabulary.json").write_text(text)
    with pytest.raises(DataError, match=r"vocabulary\.json: no vocabulary .*; give the one beside the model"):
        vocabularies.load_vocabulary(tmp_path / "vocabulary.json")


def test_pickles_of_words_are_one_line(tmp_path):
    folder = published(tmp_path, "v1", {"<pad>": 0, "<mask>": 1, "ENSG1": "two"}, {"ENSG1": 1.0})
    with pytest.raises(DataError, match="no vocabulary .*; take the published files"):
        vocabularies.official_vocabulary("v1", folder)
