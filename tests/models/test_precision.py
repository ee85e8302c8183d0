import pytest
import torch

from epigen_utils.models import float8, precision, presets


@pytest.fixture
def device(monkeypatch):
    def pretend(capability=None):
        monkeypatch.setattr(torch.cuda, "is_available", lambda: capability is not None)
        monkeypatch.setattr(torch.cuda, "get_device_capability", lambda: capability)

    return pretend


def test_without_a_gpu(device):
    device()
    assert precision.device_name() == ""
    assert precision.why_unavailable("fp32") == precision.why_unavailable("bf16") == ""
    for name in ("tf32", "fp16", "fp8"):
        assert "needs a CUDA device" in precision.why_unavailable(name)


def test_with_gpus(device):
    device((8, 0))
    assert precision.why_unavailable("fp16") == ""
    assert "this device has 8.0" in precision.why_unavailable("fp8")
    device((9, 0))
    assert precision.why_unavailable("tf32") == precision.why_unavailable("fp8") == ""


def test_the_format_of_products_is_put_back():
    model = presets.build(presets.preset("bert-tiny", vocab_size=50), "masked-lm")
    before = torch.get_float32_matmul_precision()
    layer = model.bert.encoder.layer[0].output.dense
    for name, products, layer_class in (("tf32", "high", torch.nn.Linear), ("fp8", "highest", float8.Float8Linear)):
        with precision.product_format(model, name):
            assert torch.get_float32_matmul_precision() == products
            assert type(model.bert.encoder.layer[0].output.dense) is layer_class
        assert torch.get_float32_matmul_precision() == before
        assert model.bert.encoder.layer[0].output.dense is layer


def test_an_unknown_precision():
    with pytest.raises(ValueError, match="'fp4' is not one of"):
        precision.why_unavailable("fp4")
