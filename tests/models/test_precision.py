import pytest
import torch

from epigen_utils import precision


@pytest.fixture
def device(monkeypatch):
    def pretend(capability=None, engine=None):
        monkeypatch.setattr(torch.cuda, "is_available", lambda: capability is not None)
        monkeypatch.setattr(torch.cuda, "get_device_capability", lambda: capability)
        monkeypatch.setattr(precision, "transformer_engine", engine)

    return pretend


def test_without_a_gpu(device):
    device()
    assert precision.obstacle("fp32") == precision.obstacle("bf16") == ""
    for name in ("fp16", "fp8"):
        assert "needs a CUDA device" in precision.obstacle(name)


def test_with_gpus(device):
    device((8, 0))
    assert precision.obstacle("fp16") == ""
    assert "this device has 8.0" in precision.obstacle("fp8")
    device((9, 0))
    assert "needs transformer-engine" in precision.obstacle("fp8")
    device((9, 0), engine=object())
    assert precision.obstacle("fp8") == ""


def test_an_unknown_precision():
    with pytest.raises(ValueError, match="'fp4' is not one of"):
        precision.obstacle("fp4")
