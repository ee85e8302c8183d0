import numpy as np
import pandas as pd
import pytest
import torch
from transformers import GPT2Config, GPT2LMHeadModel, GPT2Model

from epigen_utils.errors import DataError
from epigen_utils.gpt2 import grid_search, sentence_model
from epigen_utils.gpt2.sentences import GeneSentenceEncoder
from epigen_utils.models import presets

VALUES = pd.DataFrame(np.random.default_rng(0).gamma(2, 2, (6, 30)), columns=[f"g{i}" for i in range(30)])


@pytest.fixture
def encoder():
    return GeneSentenceEncoder.fit(VALUES, max_length=20)


def made(encoder, position_input="bins", **changes):
    config = sentence_model.sentence_config("gpt2-tiny", encoder, ["a", "b"], position_input=position_input)
    for name, value in changes.items():
        setattr(config, name, value)
    return sentence_model.build_sentence_model(config, seed=1).eval()


def batch(lengths=(20, 13, 7)):
    torch.manual_seed(0)
    ids = torch.zeros((len(lengths), max(lengths)), dtype=torch.long)
    for row, n in enumerate(lengths):
        ids[row, :n] = torch.randperm(30)[:n] + 1
    return {"input_ids": ids, "bins": torch.randint(10, ids.shape), "values": torch.randn(ids.shape)}


@pytest.mark.parametrize(("name", "n"), [("gpt2-xl", 1_557_611_200), ("gpt2", 124_439_808)])
def test_published_sizes(name, n):
    """Parameters of the published checkpoints (Radford et al. 2019; the hub's safetensors)."""
    with torch.device("meta"):
        assert presets.n_parameters(GPT2LMHeadModel(presets.preset(name))) == n


def test_unknown_presets_and_positions_are_named(encoder):
    with pytest.raises(ValueError, match="did you mean 'gpt2-xl'"):
        presets.preset("gpt2xl")
    with pytest.raises(DataError, match="position input 'binz'.*'bins'"):
        sentence_model.sentence_config("gpt2-tiny", encoder, ["a", "b"], position_input="binz")
    long = GeneSentenceEncoder.fit(VALUES, max_length=2000)
    with pytest.raises(DataError, match="2000 genes: gpt2-tiny has 1024 positions"):
        sentence_model.sentence_config("gpt2-tiny", long, ["a", "b"])


@pytest.mark.parametrize("position_input", sentence_model.POSITION_INPUTS)
def test_padding_changes_nothing(encoder, position_input):
    model, many = made(encoder, position_input), batch()
    together = model(**many).logits
    for row, n in enumerate((20, 13, 7)):
        alone = model(**{name: values[row : row + 1, :n] for name, values in many.items()}).logits
        torch.testing.assert_close(together[row : row + 1], alone, atol=1e-5, rtol=1e-5)


def test_the_class_is_read_off_gpt2_at_the_last_gene(encoder):
    """The library's own GPT-2 on the same vectors."""
    model, one = made(encoder), batch((9,))
    inputs = model.transformer.wte(one["input_ids"]) + model.bins(one["bins"])
    plain = GPT2Model(model.config).eval()
    plain.load_state_dict(model.transformer.state_dict())
    wanted = plain(inputs_embeds=inputs).last_hidden_state[:, -1] @ model.score.weight.T
    torch.testing.assert_close(model(**one).logits, wanted)


@pytest.mark.parametrize("position_input", ["bins", "continuous"])
def test_the_last_gene_alone_gives_the_logits_and_gradients_of_all_positions(encoder, position_input):
    model, many = made(encoder, position_input).train(), batch()
    gradients, logits = [], []
    for options in ({}, {"all_positions": True}):
        model.zero_grad()
        logits.append(model(**many, **options).logits)
        logits[-1].square().sum().backward()
        gradients.append([weight.grad.clone() for weight in model.parameters()])
    torch.testing.assert_close(*logits, rtol=1e-5, atol=1e-5)
    largest = max(float(gradient.abs().max()) for gradient in gradients[1])
    torch.testing.assert_close(*gradients, rtol=1e-4, atol=1e-6 * largest)
    inputs = model(**many, layer_inputs=True).hidden_states
    states = model(**many, output_hidden_states=True).hidden_states
    assert (len(inputs), len(states)) == (2, 3)
    torch.testing.assert_close(inputs, states[:2])


def test_the_eager_kernel_gives_the_same_logits(encoder):
    model, many = made(encoder), batch()
    fast = model(**many).logits
    model.set_attn_implementation("eager")
    torch.testing.assert_close(model(**many).logits, fast, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("layers", [1, 2])
def test_attention_of_the_last_gene_is_the_eager_kernels(encoder, layers):
    model, many = made(encoder), batch()
    mask = many["input_ids"] != 0
    states = model(**many, output_hidden_states=True).hidden_states
    ours = sentence_model.last_gene_attention(model, states, mask, layers=layers)
    model.set_attn_implementation("eager")
    inputs = model.transformer.wte(many["input_ids"]) + model.bins(many["bins"])
    weights = torch.stack(model.transformer(inputs_embeds=inputs, output_attentions=True).attentions[-layers:])
    for row, n in enumerate((20, 13, 7)):
        torch.testing.assert_close(ours[row, :n], weights[:, row, :, n - 1, :n].mean(dim=(0, 1)), atol=1e-5, rtol=1e-4)
        assert ours[row, n:].sum() == 0
    with pytest.raises(DataError, match="3 layers: the model has 2"):
        sentence_model.last_gene_attention(model, states, mask, layers=3)


def test_a_published_body_is_taken_but_its_words(encoder, tmp_path):
    shape = {"n_embd": 64, "n_layer": 2, "n_head": 4}
    GPT2LMHeadModel(GPT2Config(**shape, vocab_size=99)).save_pretrained(tmp_path / "gpt2")
    config = sentence_model.sentence_config("gpt2-tiny", encoder, ["a", "b"])
    model = sentence_model.build_sentence_model(config, start=tmp_path / "gpt2")
    body = GPT2Model.from_pretrained(tmp_path / "gpt2")
    torch.testing.assert_close(model.transformer.h[1].mlp.c_fc.weight, body.h[1].mlp.c_fc.weight)
    torch.testing.assert_close(model.transformer.wpe.weight, body.wpe.weight)
    assert model.transformer.wte.weight.shape == (31, 64)
    GPT2LMHeadModel(GPT2Config(n_embd=32, n_layer=2, n_head=4, vocab_size=9)).save_pretrained(tmp_path / "narrow")
    with pytest.raises(DataError, match="not of this model's shape"):
        sentence_model.build_sentence_model(config, start=tmp_path / "narrow")
    (tmp_path / "empty").mkdir()
    with pytest.raises(DataError, match=r"it has no config\.json"):
        sentence_model.build_sentence_model(config, start=tmp_path / "empty")


def test_a_published_body_comes_from_a_hub(encoder, hub):
    body = GPT2Model(GPT2Config(n_embd=64, n_layer=2, n_head=4, vocab_size=99))
    body.save_pretrained(hub.add("someone/gpt2-small"))
    config = sentence_model.sentence_config("gpt2-tiny", encoder, ["a", "b"])
    model = sentence_model.build_sentence_model(config, start="someone/gpt2-small")
    torch.testing.assert_close(model.transformer.h[1].mlp.c_fc.weight, body.h[1].mlp.c_fc.weight)


def test_a_published_start_is_of_a_revision_and_says_its_commit(encoder, hub, tmp_path):
    bodies = [GPT2Model(GPT2Config(n_embd=64, n_layer=2, n_head=4, vocab_size=99)) for _ in range(2)]
    for body, commit in zip(bodies, ("a" * 40, "b" * 40), strict=True):
        body.save_pretrained(hub.add("someone/gpt2-small", commit=commit))
    hub.revisions["v2"] = "b" * 40
    found = sentence_model.find_start("someone/gpt2-small", revision="v2")
    config = sentence_model.sentence_config("gpt2-tiny", encoder, ["a", "b"])
    # What is found stays what it is, wherever the branch goes.
    hub.revisions["v2"] = "a" * 40
    options = {"results_dir": str(tmp_path), "start": found}
    for start in (found, grid_search.base_classifier(**options).start):
        model = sentence_model.build_sentence_model(config, start=start)
        torch.testing.assert_close(model.transformer.h[1].mlp.c_fc.weight, bodies[1].h[1].mlp.c_fc.weight)
    said = sentence_model.describe_model("gpt2-tiny", found, n_genes=64)
    assert f"fine-tuned from the published weights someone/gpt2-small at commit {'b' * 40}." in said
    options |= {"start": "someone/gpt2-small", "revision": "v2"}
    assert grid_search.base_classifier(**options).start.commit == "a" * 40
    assert sentence_model.find_start("") == ""
    with pytest.raises(DataError, match="someone/gpt2-small: .* has no such revision of it; give a branch"):
        sentence_model.find_start("someone/gpt2-small", revision="v3")
