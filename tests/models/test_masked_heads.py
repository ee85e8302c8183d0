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
