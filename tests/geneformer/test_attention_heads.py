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
    for row, cell, weights in found:
        assert cell.tolist() == list(cells["input_ids"][row])
        assert weights.shape == (2, 4, len(cell), len(cell))
        np.testing.assert_allclose(weights.sum(axis=-1), 1, rtol=1e-4)
    lengths = [len(cell) for _, cell, _ in found]
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
    received = attention_heads.attention_received(even(model), cells, VOCABULARY)
    np.testing.assert_allclose(received.residuals, 0, atol=1e-4)
    np.testing.assert_allclose(received.log_attention, 0, atol=1e-4)
    changes, by_unit = attention_heads.layer_changes(found, np.arange(60) % 5)
    np.testing.assert_allclose(changes[["change", "low", "high"]], 0, atol=1e-3)
    assert by_unit.shape == (5, 2)


def test_changes_over_layers_are_paired_by_cell_and_drawn_by_donor():
    """Cells differ far more than layers do; a change that all of them share has a narrow interval."""
    rng = np.random.default_rng(0)
    index = pd.MultiIndex.from_product([range(40), (1, 2, 3), (1, 2)], names=["cell", "layer", "head"])
    heads = index.to_frame(index=False)
    heads["width"] = rng.random(40)[heads["cell"]] - 0.1 * heads["layer"] + 0.01 * rng.random(len(heads))
    heads["front"] = 1 + 0.5 * (heads["layer"] - 1) * (heads["cell"] % 4 == 0)
    table, by_donor = attention_heads.layer_changes(heads, np.arange(40) % 4)
    width, front = table.set_index("measure").loc[["width", "front"]].to_dict("records")
    assert width["change"] == pytest.approx(-0.2, abs=0.005)
    assert width["high"] - width["low"] < 0.01
    assert front["low"] == 0
    assert front["change"] == pytest.approx(0.25)
    assert by_donor["front"].tolist() == [1, 0, 0, 0]
    few, _ = attention_heads.layer_changes(heads, np.arange(40) % 3)
    assert few[["low", "high"]].isna().all(axis=None)


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


@pytest.mark.parametrize("against", [attention_heads.LIKE_RANK, attention_heads.ALL_OTHERS])
def test_a_head_that_looks_at_a_class_is_found_and_no_other(model, cells, against):
    members = set(range(10, 20))
    received = attention_heads.attention_received(planted(model, list(members)), cells, VOCABULARY)
    assert set(received.genes["token"]) <= set(range(2, 62))
    assert received.genes["cells"].sum() == sum(len(cell) for cell in cells["input_ids"])
    found = attention_heads.head_preferences(received, members, against=against, n_permutations=399)
    found = found.set_index(["layer", "head"])
    assert found.loc[(1, 1), "padj"] < 0.05
    assert found.loc[(1, 1), "difference"] > 1
    assert (found.drop((1, 1))["p"] > 0.05).mean() > 0.7
    rest = set(range(2, 62)) - members
    away = attention_heads.head_preferences(received, rest, against=against, n_permutations=399)
    away = away.set_index(["layer", "head"]).loc[(1, 1)]
    if against == attention_heads.ALL_OTHERS:
        assert away["difference"] < -1, "a head that looks away is called too"
        assert away["padj"] < 0.05


def test_preferences_are_counted_in_both_directions_and_against_both():
    rng = np.random.default_rng(0)
    genes = pd.DataFrame({"token": range(200), "cells": 20, "rank": rng.permutation(200) / 200})
    values = rng.normal(size=(200, 1, 3))
    values[:40, 0, 0] += 2
    values[:40, 0, 1] -= 2
    received = {"m": attention_heads.ReceivedAttention(genes, values, values)}
    table = attention_heads.compare_preferences(received, {"c": set(range(40))}, n_permutations=199)
    counts = attention_heads.count_preferences(table, alpha=0.05)
    assert counts["against"].tolist() == [attention_heads.LIKE_RANK, attention_heads.ALL_OTHERS]
    assert counts[["prefer", "avoid", "heads"]].to_numpy().tolist() == [[1, 1, 3]] * 2
    assert counts["share"].tolist() == pytest.approx([1 / 3] * 2)
    for classes in ({}, {"none": set()}, {"elsewhere": {900}}, {"all": set(range(300))}):
        none = attention_heads.compare_preferences(received, classes)
        assert none.empty, classes
        assert attention_heads.count_preferences(none, alpha=0.05).empty


def test_stand_ins_are_as_many_in_each_bin_of_ranks():
    """The null exchanges genes within bins of rank: of values that are the bins themselves, it cannot differ."""
    rank = np.linspace(0, 1, 400)
    bins = pd.qcut(rank, attention_heads.RANK_BINS, labels=False).astype(float)
    genes = pd.DataFrame({"token": range(400), "cells": 20, "rank": rank})
    received = attention_heads.ReceivedAttention(genes, bins[:, None, None], bins[:, None, None])
    inside = np.random.default_rng(0).random(400) < rank
    observed, null = attention_heads._matched_null(received, inside, 450, 0)
    assert null.shape == (450, 1, 1)
    np.testing.assert_allclose(null - observed, 0, atol=1e-12)


def test_a_head_that_looks_to_the_front_prefers_what_stands_there_but_not_over_genes_of_like_rank():
    """Both readings of the paper's 20%: without matching, rank alone makes a preference."""
    rng = np.random.default_rng(0)
    rank = np.linspace(0, 1, 400)
    log_attention = (-3 * rank + 0.3 * rng.normal(size=400))[:, None, None]
    residuals = log_attention + 3 * rank[:, None, None]
    genes = pd.DataFrame({"token": range(400), "cells": 20, "rank": rank})
    received = attention_heads.ReceivedAttention(genes, log_attention, residuals)
    members = set(rng.choice(400, 60, replace=False, p=(1 - rank) / (1 - rank).sum()))
    padj = {
        against: attention_heads.head_preferences(received, members, against=against, n_permutations=399)["padj"].item()
        for against in (attention_heads.LIKE_RANK, attention_heads.ALL_OTHERS)
    }
    assert padj[attention_heads.ALL_OTHERS] < 0.01
    assert padj[attention_heads.LIKE_RANK] > 0.05


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
    assert found.loc[(1, 1), "p"] <= 0.4
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
