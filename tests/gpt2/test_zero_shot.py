import numpy as np
import pytest
import torch
from transformers import GPT2Config, GPT2Model

from epigen_utils.data import fetching
from epigen_utils.errors import DataError
from epigen_utils.gpt2 import zero_shot


@pytest.fixture(scope="module")
def encoder():
    return zero_shot.load_sentence_encoder()


@pytest.fixture(scope="module")
def untrained():
    return zero_shot.load_language_model("", preset="gpt2-tiny", files=fetching.fetch("gpt2-bpe"))


def test_the_sentence_encoder_knows_what_is_alike(encoder):
    """Cosines as the model's authors' card shows them for such sentences: near one, and near zero."""
    texts = ["the cat sat on the mat", "a cat was sitting on a mat", "stock prices fell sharply"]
    vectors, read = zero_shot.embed_texts(*encoder, texts, pooling="mean", max_tokens=256)
    np.testing.assert_allclose(np.linalg.norm(vectors, axis=1), 1, rtol=1e-5)
    near, far = vectors[0] @ vectors[1:].T
    assert near > 0.8
    assert far < 0.2
    assert read.tolist() == [8, 9, 6]


def test_random_weights_are_the_same_network_without_what_it_learned(encoder):
    fresh, tokenizer = zero_shot.load_sentence_encoder(fresh_seed=1)
    assert {name: tensor.shape for name, tensor in fresh.state_dict().items()} == {
        name: tensor.shape for name, tensor in encoder[0].state_dict().items()
    }
    texts = ["the cat sat on the mat", "a cat was sitting on a mat", "stock prices fell sharply"]
    options = {"pooling": "mean", "max_tokens": 256}
    vectors, _ = zero_shot.embed_texts(fresh, tokenizer, texts, **options)
    published, _ = zero_shot.embed_texts(*encoder, texts, **options)
    assert not np.allclose(vectors, published)
    again, _ = zero_shot.embed_texts(*zero_shot.load_sentence_encoder(fresh_seed=1), texts, **options)
    np.testing.assert_array_equal(vectors, again)


def test_readers_have_a_published_gpt2_only_where_one_is_given(tmp_path):
    options = {"preset": "gpt2-tiny", "files": fetching.fetch("gpt2-bpe"), "n_tokens": 8}
    readers = zero_shot.load_readers("all-minilm-l6-v2", "", **options)
    assert list(readers) == [zero_shot.ENCODER, zero_shot.RANDOM_ENCODER, zero_shot.RANDOM_GPT2]
    assert readers[zero_shot.RANDOM_GPT2][2:] == ("last", 8)
    GPT2Model(GPT2Config(n_embd=8, n_layer=1, n_head=1, vocab_size=50)).save_pretrained(tmp_path)
    readers = zero_shot.load_readers("all-minilm-l6-v2", str(tmp_path), **options)
    assert list(readers)[2:] == [zero_shot.GPT2, zero_shot.RANDOM_GPT2]
    assert readers[zero_shot.GPT2][0].config.n_embd == 8


def test_gpt2_is_read_at_its_last_token_and_no_further_than_asked(untrained):
    model, tokenizer = untrained
    vectors, read = zero_shot.embed_texts(model, tokenizer, ["GRIA1 SST PVALB FOSB"], pooling="last", max_tokens=6)
    ids = torch.tensor([tokenizer("GRIA1 SST PVALB FOSB")["input_ids"][:6]])
    with torch.no_grad():
        np.testing.assert_allclose(vectors[0], model.transformer(ids).last_hidden_state[0, -1], rtol=1e-5)
    assert read.tolist() == [6]
    with pytest.raises(DataError, match="give mean or last"):
        zero_shot.embed_texts(model, tokenizer, ["a"], pooling="max", max_tokens=6)


def test_attention_is_spread_over_places(untrained):
    table = zero_shot.text_attention_by_position(
        *untrained, [" ".join(f"GENE{i}" for i in range(80))], max_tokens=200, bins=10
    )
    assert table["place"].tolist() == pytest.approx([0.05 + 0.1 * i for i in range(10)])
    assert table["attention"].mean() == pytest.approx(1, abs=0.02)


def test_what_is_written_on_is_counted(untrained, tmp_path):
    model, tokenizer = untrained
    text = " ".join(f"GENE{i}" for i in range(60))
    told = zero_shot.continuations(model, tokenizer, [text], {"GENE1"}, n_prompt_words=20, n_tokens=20)
    again = zero_shot.continuations(model, tokenizer, [text], {"GENE1"}, n_prompt_words=20, n_tokens=20)
    assert told.equals(again)
    assert told.loc[0, "given"] == "GENE15 GENE16 GENE17 GENE18 GENE19"
    assert told.loc[0, "genes"] < 0.2

    class Repeating(torch.nn.Module):
        """Says the tokens of one gene over and over."""

        config = model.config

        def forward(self, ids, logits_to_keep):
            wanted = tokenizer(" GENE7")["input_ids"]
            logits = torch.full((1, ids.shape[1], model.config.vocab_size), -1e9)
            last = ids[0, -1].item()
            place = (wanted.index(last) + 1) % len(wanted) if last in wanted else 0
            logits[0, -1, wanted[place]] = 0
            return type("Out", (), {"logits": logits})

    found = zero_shot.continuations(Repeating(), tokenizer, [text], {"GENE7"}, n_prompt_words=5, n_tokens=20).iloc[0]
    assert found["genes"] == found["later"] == 1


def test_a_checkpoint_is_taken_from_its_folder_or_missed_in_one_line(tmp_path):
    # The published weights are of the body alone; the head is tied to its words.
    GPT2Model(GPT2Config(n_embd=8, n_layer=1, n_head=1, vocab_size=50)).save_pretrained(tmp_path / "gpt2")
    model, _ = zero_shot.load_language_model(str(tmp_path / "gpt2"), preset="gpt2", files=fetching.fetch("gpt2-bpe"))
    assert model.config.n_embd == 8
    (tmp_path / "empty").mkdir()
    with pytest.raises(DataError, match=r"it has no config\.json"):
        zero_shot.load_language_model(str(tmp_path / "empty"), preset="gpt2", files=fetching.fetch("gpt2-bpe"))
