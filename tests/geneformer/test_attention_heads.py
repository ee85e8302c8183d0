import numpy as np
import pandas as pd
import pytest
import torch

from epigen_utils.geneformer import attention_heads, vocabularies
from epigen_utils.models import presets

VOCABULARY = vocabularies.vocabulary_from_medians({f"ENSG{i:011d}": 1.0 for i in range(60)}, name="v")


@pytest.fixture
def model():
    return presets.build(presets.preset("bert-tiny", vocab_size=62, hidden_dropout_prob=0.0), "masked-lm").eval()


@pytest.fixture
def cells():
    rng = np.random.default_rng(0)
    return {"input_ids": [rng.permutation(60)[: rng.integers(20, 50)] + 2 for _ in range(60)]}


def test_weights_are_those_of_the_model_and_the_model_is_as_before(model, cells):
    before = model(torch.as_tensor(cells["input_ids"][0])[None]).logits
    used = model.config._attn_implementation
    found = list(attention_heads.attention_matrices(model, cells, VOCABULARY, batch_size=7))
    assert model.config._attn_implementation == used
    torch.testing.assert_close(model(torch.as_tensor(cells["input_ids"][0])[None]).logits, before)
    assert len(found) == 60
    for cell, weights in found:
        assert weights.shape == (2, 4, len(cell), len(cell))
        np.testing.assert_allclose(weights.sum(axis=-1), 1, rtol=1e-4)
    lengths = [len(cell) for cell, _ in found]
    assert lengths == sorted(lengths, reverse=True)


def even(model):
    """Queries of zero attend to all keys alike."""
    for layer in model.bert.encoder.layer:
        torch.nn.init.zeros_(layer.attention.self.query.weight)
        torch.nn.init.zeros_(layer.attention.self.query.bias)
    return model


def test_even_attention_is_wide_and_looks_nowhere(model, cells):
    found = attention_heads.head_widths(even(model), cells, VOCABULARY)
    np.testing.assert_allclose(found["width"], 1, rtol=1e-3)
    np.testing.assert_allclose(found["front"], 1, rtol=1e-3)
    _, residuals = attention_heads.attention_received(even(model), cells, VOCABULARY)
    np.testing.assert_allclose(residuals, 0, atol=1e-4)


def planted(model, tokens, strength=4.0):
    """The first head of the first layer looks at some tokens: their keys have a direction that every query has."""
    even(model)
    attend = model.bert.encoder.layer[0].attention.self
    with torch.no_grad():
        mark = torch.zeros(64)
        mark[0] = 30.0
        model.bert.embeddings.word_embeddings.weight[tokens] = mark
        attend.query.bias[0] = strength
        attend.key.weight[:16] = 0
        attend.key.weight[0, 0] = 1.0
    return model


def test_a_head_that_looks_at_a_class_is_found_and_no_other(model, cells):
    members = set(range(10, 20))
    table, residuals = attention_heads.attention_received(planted(model, list(members)), cells, VOCABULARY)
    assert set(table["token"]) <= set(range(2, 62))
    assert table["cells"].sum() == sum(len(cell) for cell in cells["input_ids"])
    found = attention_heads.head_preferences(table, residuals, members, n_permutations=199).set_index(["layer", "head"])
    assert found.loc[(1, 1), "padj"] < 0.05
    assert found.loc[(1, 1), "difference"] > 1
    assert (found.drop((1, 1))["p"] > 0.05).mean() > 0.7


def test_planted_regulators_are_found_by_a_head_that_looks_at_them(model, cells):
    names = VOCABULARY.genes
    rng = np.random.default_rng(1)
    regulon = pd.DataFrame((rng.random((60, 8)) < 0.25).astype(float), names, names[:8])
    regulon.iloc[:, 0] = 1.0  # one regulator of all
    model = planted(model, [VOCABULARY.tokens[names[0]]])
    found = attention_heads.regulator_attention(model, cells, VOCABULARY, regulon, n_permutations=49).set_index(
        ["layer", "head"]
    )
    assert found.loc[(1, 1), "auc"] > found.loc[(1, 2), "auc"]
    assert found.loc[(1, 1), "p"] <= 0.2
    assert (found["pairs"] > 100).all()


def test_coexpression_finds_what_goes_together():
    rng = np.random.default_rng(0)
    regulator = rng.normal(size=(200, 2))
    linked = regulator[:, [0, 0, 1]] + 0.3 * rng.normal(size=(200, 3))
    values = np.column_stack([regulator, linked, rng.normal(size=(200, 5))])
    names = [f"g{i}" for i in range(10)]
    regulon = pd.DataFrame(0.0, names, names[:2])
    regulon.iloc[[2, 3], 0] = 1.0
    regulon.iloc[4, 1] = -1.0
    assert attention_heads.coexpression_auc(values, names, regulon) > 0.95
