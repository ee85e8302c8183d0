import pytest
import torch

from epigen_utils.models import precision


@pytest.fixture
def device(monkeypatch):
    def pretend(capability=None, engine=None):
        monkeypatch.setattr(torch.cuda, "is_available", lambda: capability is not None)
        monkeypatch.setattr(torch.cuda, "get_device_capability", lambda: capability)
        monkeypatch.setattr(precision, "transformer_engine", engine)

    return pretend


def test_without_a_gpu(device):
    device()
    assert precision.device_name() == ""
    assert precision.why_unavailable("fp32") == precision.why_unavailable("bf16") == ""
    for name in ("fp16", "fp8"):
        assert "needs a CUDA device" in precision.why_unavailable(name)


def test_with_gpus(device):
    device((8, 0))
    assert precision.why_unavailable("fp16") == ""
    assert "this device has 8.0" in precision.why_unavailable("fp8")
    device((9, 0))
    assert "needs transformer-engine" in precision.why_unavailable("fp8")
    device((9, 0), engine=object())
    assert precision.why_unavailable("fp8") == ""


def test_an_unknown_precision():
    with pytest.raises(ValueError, match="'fp4' is not one of"):
        precision.why_unavailable("fp4")
