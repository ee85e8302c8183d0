from dataclasses import replace

import pytest
import torch
from test_classifier import QUICK, samples, weights

from epigen_utils.gpt2 import classifier, short_training
from epigen_utils.gpt2.classifier import GPT2Classifier


@pytest.mark.parametrize(
    "changes", [{}, {"aligned": 0.3, "prior": ("g1", "g2")}, {"language": 0.2}, {"language_epochs": 2.0}]
)
def test_weights_are_those_of_the_trainer(tmp_path, monkeypatch, changes):
    """The Hugging Face Trainer with the same settings; a warm-up, and a last batch that is not full."""
    values, y = samples(20)
    ours, trainers = (
        GPT2Classifier(settings=replace(QUICK, epochs=4.5), folder=tmp_path / name, seed=3, **changes)
        for name in ("ours", "trainers")
    )
    ours.fit(values, y)
    assert not list(tmp_path.joinpath("ours").glob("*/model")), "no run of the Trainer"
    monkeypatch.setattr(short_training, "is_short", lambda *_: False)
    trainers.fit(values, y)
    assert list(tmp_path.joinpath("trainers").glob("*/model"))
    torch.testing.assert_close(weights(ours.model_), weights(trainers.model_), rtol=1e-5, atol=1e-6)


def test_only_runs_without_a_checkpoint_are_short(monkeypatch):
    settings = classifier.FINE_TUNING_SETTINGS
    assert short_training.count_steps(20, settings) == 60
    assert short_training.is_short(20, settings, "fp32")
    assert not short_training.is_short(20, replace(settings, save_every=60), "fp32")
    assert not short_training.is_short(20, replace(settings, evaluate_every=5), "fp32")
    assert not short_training.is_short(20, settings, "bf16")
    monkeypatch.setenv("WORLD_SIZE", "2")
    assert not short_training.is_short(20, settings, "fp32")
