import numpy as np
import pytest
import torch
from test_classifier import QUICK, samples

from epigen_utils.errors import DataError
from epigen_utils.gpt2.classifier import GPT2Classifier
from epigen_utils.gpt2.objectives import ClassObjective


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
