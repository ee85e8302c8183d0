import datasets
import numpy as np
import pytest

from epigen_utils.geneformer import masked_genes, vocabularies
from epigen_utils.models import batching
from epigen_utils.models.batching import IGNORED

VOCABULARY = vocabularies.vocabulary_from_medians({f"ENSG{i}": 1.0 for i in range(500)}, name="v", special=True)


def rows(n, length, seed=0):
    rng = np.random.default_rng(seed)
    return [{"input_ids": np.r_[2, rng.permutation(500)[:length] + 4, 3], "row": i} for i in range(n)]


def test_shares_of_masks():
    cells = rows(200, 400)
    batch = masked_genes.MaskedGenes(VOCABULARY)(cells)
    ids = batching.pad([cell["input_ids"] for cell in cells], 0)
    chosen = batch["labels"] != IGNORED
    assert chosen.sum() / (200 * 400) == pytest.approx(0.15, abs=0.005)
    assert (batch["labels"][chosen] == ids[chosen]).all()
    assert (batch["input_ids"][~chosen] == ids[~chosen]).all()
    became = batch["input_ids"][chosen]
    assert (became == 1).float().mean() == pytest.approx(0.8, abs=0.01)
    assert (became == ids[chosen]).float().mean() == pytest.approx(0.1, abs=0.01)
    assert became.min() >= 1
    assert not ((became == 0) | (became == 2) | (became == 3)).any(), "no special token takes a gene's place"


def test_special_tokens_and_padding_are_never_asked_for():
    cells = [*rows(1, 30), *rows(1, 5)]
    for seed in range(30):
        batch = masked_genes.MaskedGenes(VOCABULARY, seed=seed)(cells)
        assert batch["input_ids"].shape == (2, 32)
        assert (batch["labels"][:, 0] == IGNORED).all()
        assert (batch["labels"][1, 6:] == IGNORED).all()
        assert batch["attention_mask"].sum(axis=1).tolist() == [32, 7]


def test_padding_by_hand():
    lengths = np.array([10, 10, 2, 2])
    mixed = batching.padding_cost(lengths, [np.array([0, 2]), np.array([1, 3])])
    assert mixed == pytest.approx({"share": 16 / 40, "linear": 40 / 24, "quadratic": 400 / 208})
    grouped = batching.padding_cost(lengths, [np.array([0, 1]), np.array([2, 3])])
    assert grouped == pytest.approx({"share": 0, "linear": 1, "quadratic": 1})
    assert batching.padding_cost(lengths, [np.arange(4)], pad_to=20)["share"] == pytest.approx(1 - 24 / 80)


def test_batches_are_longest_first_and_of_a_size_or_of_positions():
    lengths = [3, 9, 5, 9, 1]
    assert [list(rows) for rows in batching.length_batches(lengths, size=2)] == [[1, 3], [2, 0], [4]]
    assert [list(rows) for rows in batching.length_batches(lengths, positions=10)] == [[1], [3], [2, 0], [4]]
    batch = batching.pad_batch([[5, 6], [7]], 0)
    assert batch["input_ids"].tolist() == [[5, 6], [7, 0]]
    assert batch["attention_mask"].tolist() == [[1, 1], [1, 0]]


def test_lengths_are_those_of_the_chosen_cells_in_their_order():
    cells = datasets.Dataset.from_dict({"input_ids": [[1] * n for n in (3, 1, 4, 1, 5)], "length": [3, 1, 4, 1, 5]})
    assert batching.stored_lengths(cells).tolist() == [3, 1, 4, 1, 5]
    assert batching.stored_lengths(cells.select([4, 0, 2])).tolist() == [5, 3, 4]
    assert batching.stored_lengths(cells.select([4, 0, 2]).select([1, 0])).tolist() == [3, 5]
    assert batching.stored_lengths(cells.select(range(1, 3))).tolist() == [1, 4]
