import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from test_classifier import QUICK, samples

from epigen_utils.errors import DataError
from epigen_utils.gpt2.classifier import GPT2Classifier
from epigen_utils.gpt2.objectives import ClassObjective, NextGeneObjective
from epigen_utils.models.batching import IGNORED


def test_gradients_of_the_hybrid_loss_through_the_model(tmp_path):
    values, y = samples(4, 6)
    made = GPT2Classifier(settings=QUICK, folder=tmp_path)
    model, encoder, scale = made.started(values)
    model = model.double().eval()
    prior = np.array([0.0, 1, 0, 0, 1, 0, 0])
    objective = ClassObjective(
        encoder.padded(values), [0, 0, 1, 1], scale=scale, prior=prior, weight=0.7, layers=2, language_weight=0.3
    )
    batch = objective.collate([{"row": row} for row in range(4)])
    loss = objective.loss(model, batch, None)
    loss.backward()
    for name in ("transformer.h.0.attn.c_attn.weight", "transformer.wte.weight", "bins.weight", "score.weight"):
        weight = dict(model.named_parameters())[name]
        place = tuple(int(i) for i in torch.unravel_index(weight.grad.abs().argmax(), weight.shape))
        found = []
        for step in (1e-3, -1e-3):
            with torch.no_grad():
                weight[place] += step
                found.append(objective.loss(model, batch, None).item())
                weight[place] -= step
        assert float(weight.grad[place]) == pytest.approx((found[0] - found[1]) / 2e-3, rel=1e-2)


def test_a_loss_that_is_no_number_is_said(tmp_path, monkeypatch):
    values, y = samples()
    monkeypatch.setattr(
        ClassObjective,
        "loss",
        lambda self, model, batch, n: model(batch["input_ids"], batch["bins"]).logits.sum() * np.nan,
    )
    with pytest.raises(DataError, match="step 1: the loss is nan; lower the learning rate"):
        GPT2Classifier(settings=QUICK, folder=tmp_path).fit(values, y)
    assert not list(tmp_path.glob("*/model.safetensors"))


@pytest.fixture(scope="module")
def started(tmp_path_factory):
    """A model of double precision, and objectives over eight sentences of unequal length."""
    values, _ = samples(8, 6)
    values = values.where(np.arange(6) < np.array([6, 3, 5, 6, 2, 4, 6, 5])[:, None], 0.0)
    model, encoder, scale = GPT2Classifier(settings=QUICK, folder=tmp_path_factory.mktemp("model")).started(values)
    encoded, labels = encoder.padded(values), [0, 1] * 4
    prior = np.array([0.0, 1, 0, 0, 1, 0, 0])
    aligned = ClassObjective(encoded, labels, scale=scale, prior=prior, weight=0.7)
    return model.double().eval(), {
        "classes": ClassObjective(encoded, labels, scale=scale),
        "aligned": aligned,
        "next genes": NextGeneObjective(encoded, scale),
    }


@given(
    kind=st.sampled_from(["classes", "next genes"]), order=st.permutations(range(8)), cuts=st.sets(st.integers(1, 7))
)
def test_a_step_in_any_parts_has_the_loss_of_the_whole(started, kind, order, cuts):
    model, objective = started[0], started[1][kind]
    whole = objective.collate([{"row": row} for row in range(8)])
    ends = [0, *sorted(cuts), 8]
    n = 8 if kind == "classes" else int((whole["labels"] != IGNORED).sum())
    with torch.no_grad():
        expected = objective.loss(model, whole, None).item()
        parts = [objective.collate([{"row": row} for row in order[a:b]]) for a, b in zip(ends, ends[1:], strict=False)]
        found = sum(objective.loss(model, part, n).item() for part in parts)
    assert found == pytest.approx(expected, rel=1e-6)


@given(rows=st.lists(st.integers(0, 7), min_size=1, max_size=8, unique=True))
def test_the_hybrid_loss_of_sentences_is_its_terms_and_none_is_negative(started, rows):
    model, objective = started[0], started[1]["aligned"]
    batch = objective.collate([{"row": row} for row in rows])
    with torch.no_grad():
        found = {name: value.item() for name, value in objective.parts(model, batch).items()}
        reversed_batch = objective.collate([{"row": row} for row in rows[::-1]])
        assert objective.loss(model, reversed_batch, None).item() == pytest.approx(found["total"], rel=1e-6)
    assert found["total"] == pytest.approx(found["ce"] + 0.7 * found["kl"])
    assert min(found.values()) >= 0
