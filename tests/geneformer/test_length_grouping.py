import numpy as np
import pytest
import torch

from epigen_utils.geneformer import length_grouping, masked_genes, vocabularies
from epigen_utils.models import batching, presets

VOCABULARY = vocabularies.vocabulary_from_medians({f"ENSG{i}": 1.0 for i in range(60)}, name="v")


@pytest.fixture
def cells():
    rng = np.random.default_rng(0)
    return [{"input_ids": rng.permutation(60)[: rng.integers(8, 50)] + 2, "row": row} for row in range(40)]


@pytest.mark.parametrize("strategy", length_grouping.STRATEGIES)
def test_every_cell_is_in_one_batch(cells, strategy):
    lengths = np.array([len(cell["input_ids"]) for cell in cells])
    made = length_grouping.make_batches(lengths, strategy, batch_size=8, seed=1)
    assert sorted(np.concatenate(made)) == list(range(40))
    assert max(map(len, made)) == 8


def test_grouping_leaves_less_padding_than_chance_and_sorting_the_least():
    lengths = np.random.default_rng(0).integers(7, 2048, 2000)
    share = {
        name: batching.padding_cost(lengths, length_grouping.make_batches(lengths, name, batch_size=16))["share"]
        for name in length_grouping.STRATEGIES
    }
    assert share["sorted"] <= share["grouped"] < 0.1 < share["random"]
    with pytest.raises(ValueError, match="random, grouped, sorted"):
        length_grouping.make_batches(lengths, "lucky", batch_size=4)


def test_packing_fills_rows(cells):
    lengths = np.array([len(cell["input_ids"]) for cell in cells])
    rows = length_grouping.pack_cells(lengths, row_length=100)
    assert sorted(np.concatenate(rows)) == list(range(40))
    assert max(lengths[row].sum() for row in rows) <= 100
    assert len(rows) <= np.ceil(lengths.sum() / 100) + 2


def test_a_packed_row_gives_the_loss_of_its_cells_apart(cells):
    """Block-diagonal attention: packing changes the shape of the work, not the model."""
    config = presets.preset("bert-tiny", vocab_size=62, hidden_dropout_prob=0.0)
    model = presets.build(config, "masked-lm").eval()
    collate = masked_genes.MaskedGenes(VOCABULARY, seed=3)
    apart, together = model(**collate(cells[:4])), model(**length_grouping.packed_batch(collate, cells[:4]))
    torch.testing.assert_close(apart.loss, together.loss, rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(apart.logits, together.logits, rtol=1e-3, atol=1e-3)


@pytest.mark.parametrize("bf16", [False, True])
def test_steps_with_all_logits_and_with_masked_ones_are_the_same_training(cells, bf16):
    collate = masked_genes.MaskedGenes(VOCABULARY, seed=3)
    made = [lambda first=first: collate(cells[first : first + 8]) for first in range(0, 40, 8)]
    found = {}
    for all_logits in (True, False):
        config = presets.preset("bert-tiny", vocab_size=62, hidden_dropout_prob=0.0)
        model = presets.build(config, "masked-lm", seed=2)
        found[all_logits] = length_grouping.measure_throughput(model, made, bf16=bf16, all_logits=all_logits)
    assert found[True]["loss"] == pytest.approx(found[False]["loss"], rel=2e-2 if bf16 else 1e-4)
    assert found[True]["tokens"] == sum(len(cell["input_ids"]) for cell in cells)
    assert 0 < found[True]["padding"] < 1


def test_the_benchmark_says_that_its_factor_is_of_another_baseline():
    steps = [("plain", 10.0), ("random", 20.0), ("grouped", 45.0), ("ours: and attention by matmul", 299.0)]
    benchmark = {
        "steps": [{"step": step, "tokens a second": speed} for step, speed in steps],
        "ours over the plain step": 29.9,
        "ours over the Trainer's, same precision": 6.6,
    }
    sentence = length_grouping.describe_benchmark(benchmark)
    assert "29.9 times as fast as the plain one" in sentence
    assert "coincidence" in sentence
    assert "4.5 times as fast as the plain step and 2.2 times as fast as random batches" in sentence
    assert "6.6 times" in sentence
