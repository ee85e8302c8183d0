"""What a model reads of perturbed cells, seen where it reads it."""

import contextlib

import numpy as np
import pytest

from epigen_utils.downstream import perturbation
from epigen_utils.geneformer import vocabularies
from epigen_utils.models import batching, presets

GENES = [f"ENSG{i:03d}" for i in range(40)]


@pytest.fixture
def vocabulary():
    return vocabularies.vocabulary_from_medians(dict.fromkeys(GENES, 1.0), name="small")


@pytest.fixture
def model(vocabulary):
    config = presets.preset("bert-tiny", vocab_size=vocabulary.size, max_position_embeddings=32)
    return presets.build(config, "masked-lm").eval()


@contextlib.contextmanager
def batches_read_by(model):
    """Token ids of each batch that the model reads."""
    batches = []
    hook = model.bert.embeddings.register_forward_pre_hook(
        lambda _module, _positional, given: batches.append(given["input_ids"].tolist()), with_kwargs=True
    )
    try:
        yield batches
    finally:
        hook.remove()


CELL = [10, 11, 12, 13, 14, 15, 16, 17]


@pytest.mark.parametrize("special", [False, True])
@pytest.mark.parametrize(
    ("kind", "genes", "options", "before", "after"),
    [
        ("delete", [12, 10], {}, CELL, [11, 13, 14, 15, 16, 17]),
        ("overexpress", [15, 39], {}, CELL, [15, 39, 10, 11, 12, 13, 14, 16, 17]),
        ("overexpress", [15, 39], {"max_length": 8}, CELL[:-1], [15, 39, 10, 11, 12, 13, 14, 16]),
        # Quarters are ranks 0-1, 2-3, 4-5 and 6-7; the middles 1, 3, 5 and 7.
        ("activate", [15], {}, CELL, [10, 11, 12, 15, 13, 14, 16, 17]),
        ("activate", [15, 13], {}, CELL, [10, 13, 11, 12, 15, 14, 16, 17]),
        ("inhibit", [10], {"quartiles": 3}, CELL, [11, 12, 13, 14, 15, 16, 17, 10]),
        ("activate", [11], {}, CELL, CELL),
        ("inhibit", [16], {}, CELL, CELL),
    ],
)
def test_what_becomes_of_a_cell_by_hand(kind, genes, options, before, after, special):
    vocabulary = vocabularies.vocabulary_from_medians(dict.fromkeys(GENES, 1.0), name="small", special=special)
    model = presets.build(presets.preset("bert-tiny", vocab_size=vocabulary.size), "masked-lm")
    ends = [[vocabulary.tokens[name]] if special else [] for name in ("<cls>", "<eos>")]

    def ids(numbers):
        return ends[0] + [vocabulary.tokens[GENES[i]] for i in numbers] + ends[1]

    options = {name: value + 2 * special * (name == "max_length") for name, value in options.items()}
    with batches_read_by(model) as batches:
        perturbation.perturb(model, {"input_ids": [ids(CELL)]}, vocabulary, kind, [GENES[i] for i in genes], **options)
    assert batches == [[ids(before)], [ids(after)]]


@pytest.mark.parametrize("kind", list(perturbation.PERTURBATIONS))
def test_a_cell_is_read_once_before_and_without_padding(model, vocabulary, monkeypatch, kind):
    monkeypatch.setattr(batching, "POSITIONS_PER_BATCH", 70)
    cells = {"input_ids": [np.arange(2, 22), np.arange(30, 35)]}
    with batches_read_by(model) as batches:
        found = perturbation.perturb(model, cells, vocabulary, kind)
    assert sum(map(len, batches)) == len(found) + 2
    assert max(len(batch) * len(batch[0]) for batch in batches) <= 70
    assert not any(0 in ids for batch in batches for ids in batch)
