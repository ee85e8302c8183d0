"""Against exact deletions, against finite differences, and by hand."""

import numpy as np
import pandas as pd
import pytest
import torch

from epigen_utils.downstream import perturbation, perturbed_cells, screening, screening_recall
from epigen_utils.errors import DataError
from epigen_utils.geneformer import embeddings, vocabularies
from epigen_utils.models import presets

GENES = [f"ENSG{i:03d}" for i in range(60)]


def made(special=False, **changes):
    vocabulary = vocabularies.vocabulary_from_medians(dict.fromkeys(GENES, 1.0), name="small", special=special)
    changes = {"vocab_size": len(vocabulary.tokens), "max_position_embeddings": 64} | changes
    return presets.build(presets.preset("bert-tiny", **changes), "masked-lm").eval(), vocabulary


def without_places(model):
    with torch.no_grad():
        model.bert.embeddings.position_embeddings.weight.zero_()
    return model


def cell(vocabulary, n=50, seed=0):
    ids = np.random.default_rng(seed).permutation(vocabulary.gene_tokens)[:n]
    sides = [[vocabulary.tokens[name]] if name in vocabulary.tokens else [] for name in ("<cls>", "<eos>")]
    return np.concatenate([sides[0], ids, sides[1]]).astype(np.int64)


def states(*names, seed=1):
    rng = np.random.default_rng(seed)
    return {name: rng.normal(size=64).astype(np.float32) for name in names or ("a", "b")}


def both(model, vocabulary, ids, layer, **options):
    cells = {"input_ids": ids}
    exact = perturbation.delete(model, cells, vocabulary, states=states(), layer=layer)
    found = screening.screen(model, cells, vocabulary, states(), layer=layer, **options)
    assert list(found.columns) == list(exact.columns)
    pd.testing.assert_frame_equal(found[["cell", "gene", "rank"]], exact[["cell", "gene", "rank"]])
    return found[["shift_a", "shift_b"]].to_numpy(), exact[["shift_a", "shift_b"]].to_numpy()


def correlations(found, exact):
    return [np.corrcoef(found[:, s], exact[:, s])[0, 1] for s in range(exact.shape[1])]


def test_without_attention_and_places_it_is_exact():
    """At the embeddings only the pooling is left, which is not estimated."""
    model, vocabulary = made()
    found, exact = both(without_places(model), vocabulary, [cell(vocabulary), cell(vocabulary, 30, 1)], -2)
    np.testing.assert_allclose(found, exact, atol=1e-6)
    embedded = without_places(model).bert.embeddings(torch.tensor([[5, 9, 7]]))[0].detach().numpy()
    goal = states("a")["a"]

    def cosine(x):
        return x @ goal / np.linalg.norm(x) / np.linalg.norm(goal)

    by_hand = [cosine(np.delete(embedded, j, 0).mean(0)) - cosine(embedded.mean(0)) for j in range(3)]
    three = screening.screen(model, {"input_ids": [np.array([5, 9, 7])]}, vocabulary, {"a": goal}, layer=-2)
    np.testing.assert_allclose(three["shift_a"], by_hand, atol=1e-6)


@pytest.mark.parametrize("special", [False, True])
@pytest.mark.parametrize("layer", [-2, -1, 0])
def test_moving_is_near_exact_where_every_place_is_run(special, layer):
    """Values that say nothing leave the pooling and that genes move, which are added."""
    model, vocabulary = made(special)
    with torch.no_grad():
        for block in model.bert.encoder.layer:
            block.attention.self.value.weight.zero_()
    found, exact = both(model, vocabulary, [cell(vocabulary)], layer, exact_runs=100)
    assert min(correlations(found, exact)) > 0.99


@pytest.mark.parametrize("special", [False, True])
@pytest.mark.parametrize("layer", [-1, 0])
def test_even_attention_is_estimated_closely(special, layer):
    model, vocabulary = made(special, initializer_range=0.05)
    found, exact = both(model, vocabulary, [cell(vocabulary)], layer, exact_runs=0)
    assert min(correlations(found, exact)) > 0.95
    some, _ = both(model, vocabulary, [cell(vocabulary)], layer, exact_runs=16)
    assert np.abs(some - exact).mean() < np.abs(found - exact).mean()
    still, exact = both(without_places(model), vocabulary, [cell(vocabulary)], layer)
    assert min(correlations(still, exact)) > 0.99


def linear(model):
    """Leave of a layer its attention only: no normalisation, no feed-forward."""
    for block in model.bert.encoder.layer:
        block.attention.output.LayerNorm = torch.nn.Identity()
        block.output.LayerNorm = torch.nn.Identity()
        torch.nn.init.zeros_(block.output.dense.weight)
    return without_places(model)


def test_secant_is_exact_for_one_layer_of_attention_and_the_gradient_is_not():
    model, vocabulary = made()
    linear(model)
    ids = cell(vocabulary, 40)
    cells = {"input_ids": [ids]}
    # A bias that all cells share makes the cosine linear in what differs.
    with torch.no_grad():
        shared = torch.from_numpy(np.eye(64)[3].astype(np.float32)) * 1e4
        model.bert.encoder.layer[0].output.dense.bias.copy_(shared)
    goal = {"a": np.eye(64)[7].astype(np.float32)}
    exact = perturbation.delete(model, cells, vocabulary, states=goal)["shift_a"].to_numpy() * 1e4
    by = {
        rule: screening.screen(model, cells, vocabulary, goal, rule=rule)["shift_a"] * 1e4
        for rule in screening.ABSENCE_RULES
    }
    assert np.abs(by["secant"] - exact).max() < 0.02 * np.abs(exact).max()
    assert np.abs(by["gradient"] - exact).max() > 5 * np.abs(by["secant"] - exact).max()


def cosines_with_presence(model, ids, vocabulary, goals, presence, layer):
    """Cosines of the "gradient" rule, as a function of how far each token is present."""
    tokens = perturbed_cells.CellTokens.of(ids, vocabulary)
    targets = torch.tensor(np.stack(list(goals.values())))
    part = embeddings.truncate_model(model, layer)
    screened = screening._ScreenedCell(part, ids, len(tokens.before), len(tokens.genes), targets)
    return screened.with_presence(screened.embedded([len(ids)]), presence)


@pytest.mark.parametrize("special", [False, True])
@pytest.mark.parametrize("layer", [-2, -1, 0])
def test_all_present_is_the_model_itself(special, layer):
    model, vocabulary = made(special)
    ids = cell(vocabulary)
    own = embeddings.embed_cells(model, {"input_ids": [ids]}, vocabulary, layer=layer)[0]
    wanted = [own @ goal / np.linalg.norm(own) / np.linalg.norm(goal) for goal in states().values()]
    found = cosines_with_presence(model, ids, vocabulary, states(), torch.ones(len(ids)), layer=layer)
    np.testing.assert_allclose(found.detach(), wanted, atol=1e-6)


def test_absent_is_deleted_where_places_say_nothing():
    model, vocabulary = made()
    ids, presence = cell(vocabulary, 30), torch.ones(30)
    presence[4] = 0
    found = cosines_with_presence(without_places(model), ids, vocabulary, states(), presence, layer=0)
    other = cosines_with_presence(model, np.delete(ids, 4), vocabulary, states(), torch.ones(29), layer=0)
    np.testing.assert_allclose(found.detach(), other.detach(), atol=1e-6)


def test_gradient_is_that_of_finite_differences():
    model, vocabulary = made()
    ids, model = cell(vocabulary, 20), model.double()
    presence = torch.ones(20, dtype=torch.double, requires_grad=True)
    goal = states("a")
    slope = torch.autograd.grad(cosines_with_presence(model, ids, vocabulary, goal, presence, layer=0)[0], presence)[0]
    for place in (0, 7, 19):
        sides = []
        for sign in (1, -1):
            other = presence.detach().clone()
            other[place] += sign * 1e-5
            sides.append(float(cosines_with_presence(model, ids, vocabulary, goal, other, layer=0)[0].detach()))
        assert float(slope[place]) == pytest.approx((sides[0] - sides[1]) / 2e-5, rel=1e-5)


def table(shifts):
    return pd.DataFrame({"cell": 0, "gene": GENES[: len(shifts)], "rank": range(len(shifts)), "shift_a": shifts})


def test_mistakes_are_one_line():
    model, vocabulary = made()
    some = {"input_ids": [cell(vocabulary)]}
    with pytest.raises(DataError, match="there are secant, gradient"):
        screening.screen(model, some, vocabulary, states(), rule="exact")
    with pytest.raises(DataError, match="at least one step"):
        screening.screen(model, some, vocabulary, states(), steps=0)
    with pytest.raises(DataError, match="embed it by this model"):
        screening.screen(model, some, vocabulary, {"a": np.ones(3)})
    with pytest.raises(DataError, match="none is given"):
        screening.screen(model, some, vocabulary, {})
    with pytest.raises(DataError, match="give longer cells"):
        screening.screen(model, {"input_ids": [np.array([5])]}, vocabulary, states())
    with pytest.raises(DataError, match="not in the table"):
        screening_recall.top_gene_recall(table([1.0]), table([1.0]), column="shift_b")
    with pytest.raises(DataError, match="give both the same cells"):
        screening_recall.top_gene_recall(table([1.0]), table([1.0, 2]), column="shift_a")
