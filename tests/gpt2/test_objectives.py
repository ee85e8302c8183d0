from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
import torch

from epigen_utils.errors import DataError
from epigen_utils.gpt2 import classifier, fine_tuning_variants
from epigen_utils.gpt2.classifier import GPT2Classifier
from epigen_utils.gpt2.objectives import ClassObjective

QUICK = replace(classifier.FINE_TUNING_SETTINGS, epochs=10, warmup_steps=2)


def samples(n=12, n_genes=24, shift=4.0, seed=0):
    """Half of the samples have the first genes raised."""
    rng = np.random.default_rng(seed)
    mean = np.random.default_rng(9).uniform(2, 10, n_genes)
    values = pd.DataFrame(mean + rng.uniform(0, 1, (n, n_genes)), columns=[f"g{i}" for i in range(n_genes)])
    y = np.repeat(["a", "b"], n // 2)
    values.iloc[n // 2 :, :6] += shift
    return values, y


def weights(model):
    return torch.cat([parameter.detach().ravel() for parameter in model.parameters()])


def test_gradients_of_the_hybrid_loss_through_the_model(tmp_path):
    values, y = samples(4, 6)
    made = GPT2Classifier(settings=QUICK, folder=tmp_path)
    model, encoder, scale = made.started(values)
    model = model.double().eval()
    prior = np.array([0.0, 1, 0, 0, 1, 0, 0])
    objective = ClassObjective(
        encoder.encode(values), [0, 0, 1, 1], scale=scale, prior=prior, weight=0.7, layers=2, language_weight=0.3
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
    monkeypatch.setattr(ClassObjective, "loss", lambda self, model, batch, n: model(**batch).logits.sum() * np.nan)
    with pytest.raises(DataError, match="step 1: the loss is nan; lower the learning rate"):
        GPT2Classifier(settings=QUICK, folder=tmp_path).fit(values, y)
    assert not list(tmp_path.glob("*/model"))


def test_memory_of_the_papers_model_on_meta_tensors():
    taken = fine_tuning_variants.memory_dry_run("gpt2-xl", n_genes=20_000)
    assert taken["parameters"] == 1_557_611_200
    assert taken["optimiser"] == pytest.approx(8 * taken["ours"] / fine_tuning_variants.GIB)
    assert 40 < sum(taken[part] for part in ("weights", "gradients", "optimiser", "activations")) < 74, "fits in 80 GB"
    less = fine_tuning_variants.memory_dry_run("gpt2-xl", n_genes=20_000, checkpointing=True)
    assert less["activations"] < taken["activations"] / 20
    assert fine_tuning_variants.recurrent_layers("gpt2-xl") == 0


def test_meta_tensors_count_what_real_ones_keep():
    config = fine_tuning_variants._config_without_data("gpt2-tiny", 200, 256)
    model = fine_tuning_variants.GeneSentenceModel(config).train()
    ids = torch.ones((4, 256), dtype=torch.long)
    real = fine_tuning_variants.activation_bytes(model, {"input_ids": ids, "bins": ids}) / fine_tuning_variants.GIB
    assert fine_tuning_variants.memory_dry_run("gpt2-tiny", n_genes=200, length=256, batch_size=4)[
        "activations"
    ] == pytest.approx(real, rel=0.2)


def test_a_real_step_of_a_narrow_copy_lowers_the_loss():
    step = fine_tuning_variants.narrow_training_step("gpt2-xl")
    assert step["layers"] == 48
    assert step["after"] < step["before"]
