import pytest
import torch
from torch import nn

from epigen_utils.models import presets
from epigen_utils.models.blocks import blocks, compiled_blocks, replaced_layers


def gpt2():
    return presets.build(presets.preset("gpt2-tiny", vocab_size=96, n_positions=64), "causal-lm")


def step(model):
    """Logits and the gradients of the loss, by name and in the layout of saved weights, of one batch."""
    ids = torch.randint(2, 96, (4, 32), generator=torch.Generator().manual_seed(0))
    model.zero_grad()
    output = model(input_ids=ids, labels=ids)
    output.loss.backward()
    linear = {f"{name}.weight" for name, layer in model.named_modules() if type(layer) is nn.Linear} - {
        "lm_head.weight"
    }
    gradients = {name: weight.grad.T if name in linear else weight.grad for name, weight in model.named_parameters()}
    return output.logits, {name: gradient.clone() for name, gradient in gradients.items()}


def test_a_linear_layer_with_gpt2s_transposed_weight_is_the_same_to_the_bit():
    model = gpt2()
    logits, gradients = step(model)
    with replaced_layers(model, nn.Linear):
        assert type(model.transformer.h[0].attn.c_attn) is nn.Linear
        same, found = step(model)
    assert torch.equal(same, logits)
    for name, gradient in found.items():
        torch.testing.assert_close(gradient, gradients[name], rtol=1e-5, atol=1e-7)


def test_weights_are_saved_and_loaded_in_the_published_layout(tmp_path):
    model = gpt2()
    published = {name: weight.clone() for name, weight in model.state_dict().items()}
    with replaced_layers(model, nn.Linear):
        model.save_pretrained(tmp_path)
        for name, weight in model.state_dict().items():
            assert torch.equal(weight, published[name])
        model.load_state_dict({name: weight + 1 for name, weight in published.items()})
    for name, weight in model.state_dict().items():
        assert torch.equal(weight, published[name] + 1)
    loaded = presets.load_checkpoint(tmp_path, "causal-lm").state_dict()
    assert all(torch.equal(loaded[name], weight) for name, weight in published.items())


@pytest.mark.filterwarnings("ignore::DeprecationWarning:torch.jit")
def test_blocks_are_compiled_within_the_context_alone():
    for model in (gpt2(), presets.build(presets.preset("bert-tiny", vocab_size=96), "masked-lm")):
        before = model.config.to_dict()
        with compiled_blocks(model):
            assert all(block._compiled_call_impl for block in blocks(model))
            assert not model.config.use_cache
        assert not any(block._compiled_call_impl for block in blocks(model))
        assert model.config.to_dict() == before


def test_layers_of_odd_sizes_stay():
    model = presets.build(presets.preset("bert-tiny", vocab_size=96, hidden_size=40, intermediate_size=64), "masked-lm")
    layers = [module for module in model.modules() if isinstance(module, nn.Linear)]
    with replaced_layers(model, nn.Linear):
        assert [module for module in model.modules() if isinstance(module, nn.Linear)] == layers
