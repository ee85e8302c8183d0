import json

import pytest
import torch

from epigen_utils.data import fetching
from epigen_utils.errors import DataError
from epigen_utils.models import batching, presets


@pytest.mark.parametrize(
    ("name", "parameters"),
    [("geneformer-10m", 10_288_722), ("student-4.3m", 4_352_466), ("student-3m", 3_120_178), ("student-2m", 1_988_242)],
)
def test_published_sizes(name, parameters):
    """Parameters of the published checkpoints (facts/papers_audit.md, 1.1), which the papers round."""
    assert presets.n_parameters(presets.build(presets.preset(name), "masked-lm")) == parameters


def test_the_teacher_is_the_published_configuration(mirror):
    published = json.loads(fetching.fetch("geneformer-published")["config"].read_text())
    ours = presets.preset("geneformer-10m").to_dict()
    same = {"hidden_size", "num_hidden_layers", "num_attention_heads", "intermediate_size", "hidden_act", "vocab_size"}
    same |= {"hidden_dropout_prob", "attention_probs_dropout_prob", "layer_norm_eps", "initializer_range"}
    same |= {"max_position_embeddings", "type_vocab_size", "pad_token_id"}
    assert {key: ours[key] for key in same} == {key: published[key] for key in same}


def test_mistakes():
    with pytest.raises(ValueError, match="did you mean 'student-3m'"):
        presets.preset("student3m")
    with pytest.raises(ValueError, match="masked-lm"):
        presets.build(presets.preset("bert-tiny"), "masked_lm")


@pytest.fixture
def batch():
    torch.manual_seed(0)
    ids = torch.randint(2, 50, (3, 12))
    ids[1, 9:] = 0
    labels = torch.where(torch.rand(3, 12) < 0.3, ids, batching.IGNORED)
    labels[1, 9:] = batching.IGNORED
    return {"input_ids": ids, "attention_mask": (ids != 0).long(), "labels": labels}


def test_a_batch_without_a_masked_gene_has_no_loss_and_no_gradient(batch):
    model = presets.build(presets.preset("bert-tiny", vocab_size=50), "masked-lm")
    loss = model(**batch | {"labels": torch.full((3, 12), batching.IGNORED)}).loss
    loss.backward()
    assert loss.item() == 0
    assert all(p.grad is None or not p.grad.any() for p in model.parameters())


def test_saved_as_hugging_face_has_it_and_read_again(tmp_path, batch):
    model = presets.build(presets.preset("bert-tiny", vocab_size=50), "masked-lm", seed=3).eval()
    model.save_pretrained(tmp_path)
    assert json.loads((tmp_path / "config.json").read_text())["architectures"] == ["BertForMaskedLM"]
    assert (tmp_path / "model.safetensors").exists()
    again = presets.load_checkpoint(str(tmp_path)).eval()
    torch.testing.assert_close(model(**batch).loss, again(**batch).loss)


@pytest.mark.parametrize("name", [*presets.BERT_PRESETS, *presets.GPT2_PRESETS])
def test_a_saved_configuration_is_known_by_its_sizes(tmp_path, name):
    presets.preset(name).save_pretrained(tmp_path / "model")
    assert presets.preset_of(tmp_path) == presets.preset_of(tmp_path / "model") == name


@pytest.mark.parametrize(
    ("name", "changes"),
    [
        ("student-4.3m", {"hidden_size": 32, "intermediate_size": 128, "num_hidden_layers": 2}),  # scaled to bert-tiny
        ("student-4.3m", {"num_attention_heads": 2}),  # as paper B's loader has it
        ("geneformer-10m", {"vocab_size": 20_275}),
        ("geneformer-10m", {"max_position_embeddings": 4096}),
        ("geneformer-10m", {"hidden_act": "gelu"}),
    ],
)
def test_a_network_of_another_size_is_none_of_the_papers(tmp_path, name, changes):
    presets.preset(name, **changes).save_pretrained(tmp_path)
    assert presets.preset_of(tmp_path) == ""


def test_small_models_keep_their_name_with_any_vocabulary_and_head(tmp_path):
    model = presets.build(presets.preset("bert-tiny", vocab_size=60, max_position_embeddings=64), "masked-lm")
    presets.with_head(model, "cell-class", ["a", "b"]).save_pretrained(tmp_path)
    assert presets.preset_of(tmp_path) == "bert-tiny"
    assert presets.describe_size(model).startswith("2 layers of width 64, 4 heads, 60 tokens, ")


def test_a_folder_without_a_model_is_named(tmp_path):
    with pytest.raises(DataError, match=r"no config\.json"):
        presets.preset_of(tmp_path)


def test_the_official_configurations_are_known(mirror, tmp_path):
    for role in ("config", "classifier_config"):
        text = fetching.fetch("geneformer-published")[role].read_text()
        (tmp_path / "config.json").write_text(text)
        assert presets.preset_of(tmp_path) == "geneformer-10m"


def test_official_checkpoints_load(mirror):
    folder = mirror / "reference/geneformer_official/checkpoint_v1_small"
    model = presets.load_checkpoint(str(folder))
    assert model.config.vocab_size == presets.V1_VOCABULARY_SIZE
    assert model.get_output_embeddings().weight is model.get_input_embeddings().weight


def test_the_table_of_sizes_is_of_the_presets():
    rows = {row["model"]: row for row in presets.model_sizes()}
    assert rows["geneformer-10m"]["parameters"] == 10_288_722
    assert (rows["student-3m"]["layers"], rows["student-3m"]["width"]) == (4, 96)


def test_another_number_of_heads_loads_the_same_weights_and_is_another_model():
    model = presets.build(presets.preset("student-2m", vocab_size=60, initializer_range=0.3), "masked-lm").eval()
    ids = torch.arange(2, 22)[None]
    same, other = (presets.with_attention_heads(model, heads).eval() for heads in (4, 1))
    with torch.no_grad():
        assert torch.equal(same(ids).logits, model(ids).logits)
        assert (other(ids).logits - model(ids).logits).abs().max() > 0.1
    assert torch.equal(
        other.bert.encoder.layer[0].attention.self.query.weight, model.bert.encoder.layer[0].attention.self.query.weight
    )
    assert model.config.num_attention_heads == 4
