import contextlib

import pytest
import torch

from epigen_utils.models import attention_kernels, batching, presets


@pytest.fixture
def batch():
    torch.manual_seed(0)
    ids = torch.randint(2, 50, (3, 12))
    ids[1, 9:] = 0
    labels = torch.where(torch.rand(3, 12) < 0.3, ids, batching.IGNORED)
    labels[1, 9:] = batching.IGNORED
    return {"input_ids": ids, "attention_mask": (ids != 0).long(), "labels": labels}


def test_without_attention_dropout_the_rest_of_it_stays():
    model = attention_kernels.disable_attention_dropout(
        presets.build(presets.preset("student-2m", vocab_size=50), "masked-lm")
    )
    left = [module.p for module in model.modules() if isinstance(module, torch.nn.Dropout)]
    assert left.count(0.0) == 4, "one a layer"
    assert left.count(0.1) == 9, "embeddings, and two a layer"


@pytest.mark.parametrize("mixed", [False, True])
def test_attention_by_matmul_is_the_fused_one_but_for_rounding(batch, mixed):
    model = presets.build(presets.preset("bert-tiny", vocab_size=50, hidden_dropout_prob=0.0), "masked-lm").train()
    found = {}
    for by_matmul in (False, True):
        model.zero_grad()
        used = model.config._attn_implementation
        with attention_kernels.attention_implementation(model, "matmul") if by_matmul else contextlib.nullcontext():
            with torch.autocast("cpu", torch.bfloat16, enabled=mixed):
                loss = model(**batch).loss
            loss.backward()
        assert model.config._attn_implementation == used
        found[by_matmul] = loss.detach(), [parameter.grad.clone() for parameter in model.parameters()]
    close = {"rtol": 5e-2, "atol": 1e-1} if mixed else {"rtol": 1e-4, "atol": 1e-5}
    torch.testing.assert_close(found[True][0], found[False][0], rtol=5e-3, atol=5e-3)
    for ours, fused in zip(found[True][1], found[False][1], strict=True):
        torch.testing.assert_close(ours, fused, **close)
    unmasked = {name: values[:1] for name, values in batch.items()}
    with attention_kernels.attention_implementation(model, "matmul"):
        assert torch.isfinite(model(**unmasked).loss)


@pytest.mark.requires_gpu
@pytest.mark.parametrize("implementation", ["eager", "matmul"])
def test_kernels_on_a_gpu_are_the_fused_one_on_the_cpu(batch, implementation):
    model = presets.build(presets.preset("bert-tiny", vocab_size=50), "masked-lm").eval()
    with torch.no_grad():
        expected = model(**batch).logits
        model.to("cuda")
        with attention_kernels.attention_implementation(model, implementation):
            logits = model(**batching.to_device(batch, "cuda")).logits
    torch.testing.assert_close(logits.cpu(), expected, rtol=1e-3, atol=1e-3)


def test_attention_by_matmul_refuses_dropout(batch):
    model = presets.build(presets.preset("student-2m", vocab_size=50), "masked-lm").train()
    with attention_kernels.attention_implementation(model, "matmul"), pytest.raises(ValueError, match="no dropout"):
        model(**batch)
