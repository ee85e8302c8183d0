"""Products in FP8 run on a CPU as well, so that their arithmetic is tested here; Transformer Engine's stands in."""

import contextlib
import types

import numpy as np
import pandas as pd
import pytest
import torch
from torch import nn

from epigen_utils.gpt2 import sentence_model, sentences
from epigen_utils.models import float8, presets
from epigen_utils.models.blocks import replaced_layers
from epigen_utils.models.precision import autocast


def gpt2():
    return presets.build(presets.preset("gpt2-tiny", vocab_size=96, n_positions=64), "causal-lm")


def geneformer():
    return presets.build(presets.preset("bert-tiny", vocab_size=96), "masked-lm")


def step(model, precision="bf16"):
    """Logits and the gradients of the loss, by name and in the layout of saved weights, of one batch."""
    ids = torch.randint(2, 96, (4, 32), generator=torch.Generator().manual_seed(0))
    model.zero_grad()
    with autocast("cpu", precision):
        output = model(input_ids=ids, labels=ids)
    output.loss.backward()
    gradients = {}
    for name, weight in model.named_parameters():
        layer = model.get_submodule(name.rpartition(".")[0])
        saved_transposed = isinstance(layer, nn.Linear) and name.startswith("transformer.h") and weight.ndim == 2
        gradients[name] = weight.grad.T.clone() if saved_transposed else weight.grad.clone()
    return output.logits.float(), gradients


@pytest.mark.parametrize("build", [gpt2, geneformer])
def test_products_in_fp8_are_near_those_in_bf16(build):
    model = build().train()
    logits, gradients = step(model)
    with float8.float8_layers(model):
        replaced = [module for module in model.modules() if isinstance(module, float8.Float8Linear)]
        assert len(replaced) == {gpt2: 8, geneformer: 12}[build]
        close, found = step(model)
        # E4M3 has 3 bits of mantissa: a factor is off by 2 to 3%, and two layers add up.
        assert 1e-4 < (close - logits).norm() / logits.norm() < 0.15
        for name, gradient in found.items():
            # The bias of keys has no gradient but rounding, since softmax ignores it.
            if "key.bias" not in name:
                assert (gradient - gradients[name]).norm() < 0.35 * gradients[name].norm() + 1e-6, name
        model.eval()
        evaluated, _ = step(model)
    plain, _ = step(model)
    if build is geneformer:
        torch.testing.assert_close(evaluated, plain, rtol=0, atol=0)
    # GPT-2's weights are replaced transposed, and some processors round products in bf16 by the layout of the factors: a
    # tenth of what fp8 would be off by.
    assert (evaluated - plain).norm() < 3e-3 * plain.norm()


def test_a_product_in_fp8_is_that_of_the_rounded_factors():
    generator = torch.Generator().manual_seed(1)
    inputs, weight = (torch.randn(32, 64, generator=generator).bfloat16() for _ in range(2))
    rounded = [
        (part.float() * (448 / part.abs().max().float())).to(torch.float8_e4m3fn).float() * part.abs().max() / 448
        for part in (inputs, weight)
    ]
    torch.testing.assert_close(
        float8._Float8Product.apply(inputs, weight).float(), rounded[0] @ rounded[1].T, rtol=0.02, atol=0.05
    )


def test_zeros_and_odd_numbers_of_rows():
    layer = float8.Float8Linear(32, 16).train()
    assert torch.isfinite(layer(torch.zeros(16, 32))).all()
    rows = torch.randn(5, 32)
    torch.testing.assert_close(layer(rows), nn.functional.linear(rows, layer.weight, layer.bias))


def test_transformer_engine_multiplies_where_it_is_installed(monkeypatch):
    used = []

    @contextlib.contextmanager
    def fp8_autocast(enabled):
        used.append(enabled)
        yield

    class Engine(nn.Linear):
        """Stand-in of `transformer_engine.pytorch.Linear`."""

    engine = types.SimpleNamespace(Linear=Engine, fp8_autocast=fp8_autocast)
    monkeypatch.setattr(float8, "transformer_engine", engine)
    assert float8.engine_name() == "Transformer Engine"
    model = gpt2()
    forward, weights = model.forward, {name: weight.clone() for name, weight in model.state_dict().items()}
    with float8.float8_layers(model):
        assert isinstance(model.transformer.h[1].mlp.c_fc, Engine)
        step(model.train())
        step(model.eval())
    assert used == [True, False]
    assert model.forward == forward
    assert all(torch.equal(weight, weights[name]) for name, weight in model.state_dict().items())


def test_the_models_of_gene_sentences_train_in_fp8():
    values = pd.DataFrame(np.random.default_rng(0).random((4, 40)), columns=[f"G{i}" for i in range(40)])
    encoder = sentences.GeneSentenceEncoder.fit(values)
    config = sentence_model.sentence_config("gpt2-tiny", encoder, ["a", "b"])
    model = sentence_model.build_sentence_model(config).train()
    ids, bins = torch.randint(1, 40, (4, 16)), torch.zeros(4, 16, dtype=torch.long)
    expected = model(ids, bins).logits
    with replaced_layers(model, nn.Linear):
        torch.testing.assert_close(model(ids, bins).logits, expected)
    with float8.float8_layers(model), torch.autocast("cpu", torch.bfloat16):
        close = model(ids, bins).logits.float()
    assert (close - expected).norm() < 0.35 * expected.norm()
