import json
import shutil

import numpy as np
import pyarrow as pa
import pytest

from epigen_utils.data import simulated_cells
from epigen_utils.errors import DataError
from epigen_utils.geneformer import encoded_cells, encoding, vocabularies


@pytest.fixture(scope="module")
def tokens(tmp_path_factory):
    """Cells, the encoder, and the folder of the encoded cells."""
    adata = simulated_cells.cardiomyopathy(cells_per_donor=3, n_genes=300)
    adata.X = adata.layers["counts"]
    adata.varm.clear()
    folder = tmp_path_factory.mktemp("encoded")
    adata.write_h5ad(folder / "cells.h5ad")
    vocabulary = vocabularies.vocabulary_from_medians(dict.fromkeys(adata.var_names, 1.0), name="small")
    encoder = encoding.RankValueEncoder.of(vocabulary)
    encoder.encode_file(folder / "cells.h5ad", folder / "tokens")
    return adata, vocabulary, encoder, folder / "tokens"


def test_a_folder_has_what_memory_has(tokens):
    adata, _, encoder, folder = tokens
    expected = encoder.encode(adata)
    stored = encoded_cells.load_arrow(folder)
    assert stored["input_ids"][:] == expected["input_ids"][:]
    assert stored["length"][:] == expected["length"][:]
    assert encoded_cells.is_encoded_folder(folder)
    assert not encoded_cells.is_encoded_folder(folder.parent)
    assert not list(folder.parent.glob(".*.part"))


def test_cells_are_truncated_and_keep_their_sample_table(tokens):
    adata, vocabulary, _, folder = tokens
    stored = encoded_cells.load_arrow(folder)["input_ids"][:]
    encoded = encoded_cells.load_encoded_cells(folder, vocabulary, max_length=20)
    table = encoded_cells.cell_table(encoded, vocabulary, encoded_cells.find_encoded(str(folder))[1])
    assert encoded["input_ids"][:] == [ids[:20] for ids in stored]
    assert encoded["length"][:] == [min(len(ids), 20) for ids in stored]
    assert table.obs["cell_id"].tolist() == list(adata.obs_names)
    assert table.obs["donor"].tolist() == adata.obs["donor"].tolist()
    assert table.uns["epigen"]["measure"] == "tokens"
    assert list(table.var["ensembl_id"]) == vocabulary.genes
    assert encoded_cells.load_encoded_cells(folder, vocabulary, max_length=2048)["length"] == list(map(len, stored))


def test_cells_that_are_torn_are_one_line(tokens, tmp_path):
    shutil.copytree(tokens[3], tmp_path / "torn")
    (tmp_path / "torn" / "data-00000-of-00001.arrow").write_bytes(b"<html>no such file</html>")
    with pytest.raises(DataError, match=r"torn: encoded cells that cannot be read \(.*\); delete it") as raised:
        encoded_cells.load_arrow(tmp_path / "torn")
    assert "\n" not in str(raised.value)


def test_tokens_of_another_vocabulary_are_refused(tokens):
    _, vocabulary, _, folder = tokens
    with pytest.raises(DataError, match="tokenised cells need the vocabulary they are of"):
        encoded_cells.load_encoded_cells(folder, None, max_length=20)
    other = vocabularies.vocabulary_from_medians(dict.fromkeys(vocabulary.genes, 2.0), name="other")
    with pytest.raises(DataError, match="tokens are of vocabulary 'small', the model's is 'other'"):
        encoded_cells.load_encoded_cells(folder, other, max_length=20)
    assert json.loads((folder / "vocabulary.json").read_text())["sha256"] == vocabulary.sha256


def test_a_folder_without_tokens(tmp_path):
    with pytest.raises(DataError, match="no encoded cells; encode a file into it first"):
        encoded_cells.load_arrow(tmp_path)


def test_a_broken_writing_leaves_the_folder_as_it_was(tokens):
    _, _, _, folder = tokens
    before = encoded_cells.load_arrow(folder)

    def broken():
        yield from before.data.to_batches()[:1]
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        encoded_cells.write_arrow(folder, broken(), before.data.schema, {"sha256": "x"})
    assert np.array_equal(encoded_cells.load_arrow(folder)["length"][:], before["length"][:])
    assert not list(folder.parent.glob(".*.part"))


@pytest.mark.parametrize(
    ("name", "text", "said"),
    [
        ("state.json", "[]", "encoded cells that cannot be read"),
        ("dataset_info.json", "7", "encoded cells that cannot be read"),
        ("vocabulary.json", "[", r"vocabulary\.json: cannot be read"),
        ("vocabulary.json", "{}", "tokens are of vocabulary None"),
    ],
)
def test_a_folder_with_other_json_is_one_line(tokens, tmp_path, name, text, said):
    shutil.copytree(tokens[3], tmp_path / "torn")
    (tmp_path / "torn" / name).write_text(text)
    with pytest.raises(DataError, match=said):
        encoded_cells.load_encoded_cells(tmp_path / "torn", tokens[1], max_length=20)


@pytest.mark.parametrize(
    ("ids", "said"),
    [
        (pa.array([[5, -3]], pa.list_(pa.int32())), "token -3, and tokens are numbered from 0"),
        (pa.array([5], pa.int32()), "encoded cells that cannot be read"),
    ],
    ids=["negative", "no lists"],
)
def test_tokens_that_are_none_are_one_line(tokens, tmp_path, ids, said):
    card = {"vocabulary": "small", "sha256": tokens[1].sha256}
    table = pa.record_batch([ids], names=["input_ids"])
    encoded_cells.write_arrow(tmp_path / "made", [table], table.schema, card)
    with pytest.raises(DataError, match=said):
        encoded_cells.load_encoded_cells(tmp_path / "made", tokens[1], max_length=20)
