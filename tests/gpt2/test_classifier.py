from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
import torch

from epigen_utils.gpt2 import classifier, fine_tuning_variants, short_training
from epigen_utils.gpt2.classifier import GPT2Classifier
from epigen_utils.models import training
from epigen_utils.stats import two_classes

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


@pytest.mark.parametrize("position_input", ["rank", "bins", "continuous"])
def test_a_strong_difference_is_learned_for_samples_not_seen(tmp_path, position_input):
    values, y = samples(16)
    asked, truth = samples(16, seed=1)
    made = GPT2Classifier(position_input=position_input, folder=tmp_path).fit(values, y)
    p = made.predict_proba(asked)
    assert p.sum(axis=1) == pytest.approx(1, abs=1e-5)
    assert two_classes.roc_auc(p[:, 1], truth == "b") >= 0.9


def test_the_same_data_give_the_same_weights_and_a_finished_run_is_read_back(tmp_path, monkeypatch):
    values, y = samples()
    first = GPT2Classifier(settings=QUICK, folder=tmp_path / "a").fit(values, y)
    torch.testing.assert_close(
        weights(GPT2Classifier(settings=QUICK, folder=tmp_path / "b").fit(values, y).model_), weights(first.model_)
    )
    monkeypatch.setattr(short_training, "train", lambda *_, **__: pytest.fail("it was fitted again"))
    again = GPT2Classifier(settings=QUICK, folder=tmp_path / "a").fit(values, y)
    torch.testing.assert_close(weights(again.model_), weights(first.model_), rtol=0, atol=0)
    monkeypatch.undo()
    GPT2Classifier(settings=QUICK, folder=tmp_path / "a").fit(values, y[::-1])
    assert len(list(tmp_path.joinpath("a").glob("*/model.safetensors"))) == 2


def test_values_alone_tell_runs_apart(tmp_path):
    """Same genes in the same order and bins, other values: a model that reads values is another one."""
    values, y = samples()
    one, other = (
        GPT2Classifier(settings=QUICK, position_input="continuous", folder=tmp_path).fit(table, y)
        for table in (values, values.round(2))
    )
    assert len(list(tmp_path.glob("*/model.safetensors"))) == 2
    assert not torch.equal(weights(one.model_), weights(other.model_))


class Stopped(Exception):
    """What a broken off run raises."""


def test_a_run_that_was_broken_off_ends_in_the_same_weights(tmp_path, monkeypatch):
    """Checkpoints at every 7th step; an epoch has 3."""
    values, y = samples(24)
    settings = replace(QUICK, save_every=7)
    whole = GPT2Classifier(settings=settings, aligned=0.2, prior=("g1", "g2"), folder=tmp_path / "whole").fit(values, y)
    step, steps = training._Trainer.training_step, []

    def breaking(self, *arguments, **options):
        steps.append(1)
        if len(steps) == 17:
            raise Stopped
        return step(self, *arguments, **options)

    broken = GPT2Classifier(settings=settings, aligned=0.2, prior=("g1", "g2"), folder=tmp_path / "broken")
    monkeypatch.setattr(training._Trainer, "training_step", breaking)
    with pytest.raises(Stopped):
        broken.fit(values, y)
    monkeypatch.setattr(training._Trainer, "training_step", step)
    torch.testing.assert_close(weights(broken.fit(values, y).model_), weights(whole.model_), rtol=0, atol=0)


def test_the_hybrid_loss_moves_attention_and_without_lambda_is_cross_entropy(tmp_path):
    values, y = samples()
    plain = GPT2Classifier(settings=QUICK, folder=tmp_path).fit(values, y)
    none = GPT2Classifier(settings=QUICK, aligned=0.0, prior=("g9",), folder=tmp_path).fit(values, y)
    torch.testing.assert_close(weights(none.model_), weights(plain.model_), rtol=0, atol=0)
    hybrid = GPT2Classifier(settings=QUICK, aligned=1.0, prior=("g9", "g10"), folder=tmp_path).fit(values, y)
    shares = [made.attention(values, prior={"g9", "g10"}).mean() for made in (plain, hybrid)]
    assert shares[1]["share"] > 3 * shares[0]["share"]
    assert shares[0]["even"] == pytest.approx(2 / 24)


def test_a_language_stage_makes_the_next_gene_likelier(tmp_path):
    values, _ = samples(24)
    made = GPT2Classifier(settings=QUICK, language_epochs=20, folder=tmp_path)
    found = classifier.next_gene_losses(made, values.iloc[::2], values.iloc[1::2])
    assert found["after"] < found["before"]
    assert found["even"] == pytest.approx(np.log(24))


def test_vectors_become_the_genes_table(tmp_path):
    values, _ = samples()
    vectors = pd.DataFrame(np.random.default_rng(1).normal(size=(23, 5)), [f"g{i}" for i in range(23)])
    vectors.loc["g1"] = vectors.loc["g0"]
    model, _, _ = GPT2Classifier(vectors=vectors, folder=tmp_path).started(values)
    table = model.transformer.wte.weight.detach()
    torch.testing.assert_close(table[1], table[2])
    assert float(table[1:].std()) == pytest.approx(model.config.initializer_range, rel=0.2)
    assert table[0].abs().sum() == 0


def test_variants_change_one_thing_each(tmp_path):
    made = fine_tuning_variants.ablation_variants(
        GPT2Classifier(), aligned=0.1, prior=("g",), vectors=pd.DataFrame(), language_epochs=1
    )
    base = GPT2Classifier().get_params()
    changed = {
        name: {key for key, value in one.get_params().items() if value is not base[key] and value != base[key]}
        for name, one in made.items()
        if name != "6-mer start"
    }
    assert changed["hybrid loss"] == {"aligned", "prior"}
    assert changed["continuous expression"] == changed["genes and ranks alone"] == {"position_input"}
