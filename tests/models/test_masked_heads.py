import pytest
import torch
from transformers import BertForMaskedLM

from epigen_utils.models import batching, masked_heads, presets


@pytest.fixture
def batch():
    torch.manual_seed(0)
    ids = torch.randint(2, 50, (3, 12))
    ids[1, 9:] = 0
    labels = torch.where(torch.rand(3, 12) < 0.3, ids, batching.IGNORED)
    labels[1, 9:] = batching.IGNORED
    return {"input_ids": ids, "attention_mask": (ids != 0).long(), "labels": labels}


def test_masked_positions_only_gives_the_plain_loss_and_gradients(batch):
    config = presets.preset("bert-tiny", vocab_size=50, hidden_dropout_prob=0.0)
    plain = BertForMaskedLM(config)
    ours = masked_heads.masked_positions_only(BertForMaskedLM(config))
    ours.load_state_dict(plain.state_dict())
    a, b = plain(**batch), ours(**batch)
    torch.testing.assert_close(a.loss, b.loss)
    torch.testing.assert_close(a.logits[batch["labels"] != batching.IGNORED], b.logits)
    a.loss.backward()
    b.loss.backward()
    for (name, one), (_, two) in zip(plain.named_parameters(), ours.named_parameters(), strict=True):
        torch.testing.assert_close(one.grad, two.grad, msg=name)
    n = int((batch["labels"] != batching.IGNORED).sum())
    torch.testing.assert_close(ours(**batch, num_items_in_batch=2 * n).loss, a.loss / 2)
    unlabelled = {name: values for name, values in batch.items() if name != "labels"}
    torch.testing.assert_close(plain(**unlabelled).logits, ours(**unlabelled).logits)


def penalised(**changes):
    config = presets.preset("bert-tiny", vocab_size=50, visible_penalty=6.0, mask_token_id=1, **changes)
    return presets.build(config, "masked-lm").eval()


def test_only_hidden_positions_lose_what_the_cell_shows_elsewhere(batch):
    asked = batch["labels"] != batching.IGNORED
    cell, place = (indices[0] for indices in torch.where(asked))
    batch["input_ids"][cell, place] = 1  # one hidden, the others as they are
    ours = penalised()
    plain = presets.build(presets.preset("bert-tiny", vocab_size=50), "masked-lm").eval()
    plain.load_state_dict(ours.state_dict())
    lowered, logits = ours(**batch).logits, plain(**batch).logits
    shown = torch.zeros(50)
    shown[batch["input_ids"][cell]] = 6.0
    torch.testing.assert_close(lowered[0], logits[0] - shown)
    torch.testing.assert_close(lowered[1:], logits[1:])
    unlabelled = {name: values for name, values in batch.items() if name != "labels"}
    torch.testing.assert_close(ours(**unlabelled).logits[asked], lowered)
    assert torch.isfinite(ours(**batch).loss)


def test_a_saved_model_keeps_its_penalty(batch, tmp_path):
    ours = penalised()
    ours.save_pretrained(tmp_path)
    torch.testing.assert_close(presets.load_checkpoint(str(tmp_path))(**batch).logits, ours(**batch).logits)
