from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
import torch

from epigen_utils import evaluation, sentence_classes, sentence_training, training
from epigen_utils.errors import DataError
from epigen_utils.sentence_classes import GPT2Classifier, SampleClasses

QUICK = replace(sentence_classes.SETTINGS, epochs=10, warmup_steps=2)


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


@pytest.mark.parametrize("shown", ["rank", "bins", "continuous"])
def test_a_strong_difference_is_learned_for_samples_not_seen(tmp_path, shown):
    values, y = samples(16)
    asked, truth = samples(16, seed=1)
    made = GPT2Classifier(shown=shown, folder=tmp_path).fit(values, y)
    p = made.predict_proba(asked)
    assert p.sum(axis=1) == pytest.approx(1, abs=1e-5)
    assert evaluation.auc(p[:, 1], truth == "b") >= 0.9


def test_the_same_data_give_the_same_weights_and_a_finished_run_is_read_back(tmp_path):
    values, y = samples()
    first = GPT2Classifier(settings=QUICK, folder=tmp_path / "a").fit(values, y)
    torch.testing.assert_close(
        weights(GPT2Classifier(settings=QUICK, folder=tmp_path / "b").fit(values, y).model_), weights(first.model_)
    )
    runs = sorted(tmp_path.joinpath("a").iterdir())
    before = [path.stat().st_mtime_ns for path in runs[0].joinpath("model").iterdir()]
    GPT2Classifier(settings=QUICK, folder=tmp_path / "a").fit(values, y)
    assert [path.stat().st_mtime_ns for path in runs[0].joinpath("model").iterdir()] == before
    GPT2Classifier(settings=QUICK, folder=tmp_path / "a").fit(values, y[::-1])
    assert len(list(tmp_path.joinpath("a").iterdir())) == 2


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


def test_gradients_of_the_hybrid_loss_through_the_model(tmp_path):
    values, y = samples(4, 6)
    made = GPT2Classifier(settings=QUICK, folder=tmp_path)
    model, encoder, scale = made.started(values)
    model = model.double().eval()
    prior = np.array([0.0, 1, 0, 0, 1, 0, 0])
    objective = SampleClasses(
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


def test_a_language_stage_makes_the_next_gene_likelier(tmp_path):
    values, _ = samples(24)
    made = GPT2Classifier(settings=QUICK, language_epochs=20, folder=tmp_path)
    found = sentence_classes.next_gene_losses(made, values.iloc[::2], values.iloc[1::2])
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


def test_a_loss_that_is_no_number_is_said(tmp_path, monkeypatch):
    values, y = samples()
    monkeypatch.setattr(SampleClasses, "loss", lambda self, model, batch, n: model(**batch).logits.sum() * np.nan)
    with pytest.raises(DataError, match="step 1: the loss is nan; lower the learning rate"):
        GPT2Classifier(settings=QUICK, folder=tmp_path).fit(values, y)
    assert not list(tmp_path.glob("*/model"))


def test_variants_change_one_thing_each(tmp_path):
    made = sentence_training.variants(
        GPT2Classifier(), aligned=0.1, prior=("g",), vectors=pd.DataFrame(), language_epochs=1
    )
    base = GPT2Classifier().get_params()
    changed = {
        name: {key for key, value in one.get_params().items() if value is not base[key] and value != base[key]}
        for name, one in made.items()
        if name != "6-mer start"
    }
    assert changed["hybrid loss"] == {"aligned", "prior"}
    assert changed["continuous expression"] == changed["genes and ranks alone"] == {"shown"}


def test_memory_of_the_papers_model_on_meta_tensors():
    taken = sentence_training.dry_run("gpt2-xl", n_genes=20_000)
    assert taken["parameters"] == 1_557_611_200
    assert taken["optimiser"] == pytest.approx(8 * taken["ours"] / sentence_training.GIB)
    assert 40 < sum(taken[part] for part in ("weights", "gradients", "optimiser", "activations")) < 74, "fits in 80 GB"
    less = sentence_training.dry_run("gpt2-xl", n_genes=20_000, checkpointing=True)
    assert less["activations"] < taken["activations"] / 20
    assert sentence_training.recurrent_layers("gpt2-xl") == 0


def test_meta_tensors_count_what_real_ones_keep():
    config = sentence_training._without_data("gpt2-tiny", 200, 256)
    model = sentence_training.GeneSentenceModel(config).train()
    ids = torch.ones((4, 256), dtype=torch.long)
    real = sentence_training.activation_bytes(model, {"input_ids": ids, "bins": ids}) / sentence_training.GIB
    assert sentence_training.dry_run("gpt2-tiny", n_genes=200, length=256, batch_size=4)[
        "activations"
    ] == pytest.approx(real, rel=0.2)


def test_a_real_step_of_a_narrow_copy_lowers_the_loss():
    step = sentence_training.narrow_step("gpt2-xl")
    assert step["layers"] == 48
    assert step["after"] < step["before"]
