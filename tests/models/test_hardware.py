import pytest
import torch
from transformers import GPT2Config

from epigen_utils.models import hardware, presets


def test_operations_are_six_a_weight_and_attention():
    # 12 x layers x width^2 weights in GPT-2's blocks, and its head; biases and norms are below 0.1%.
    weights = 12 * 48 * 1600**2 + 50_257 * 1600
    expected = 6 * weights + 12 * 48 * 1600 * 1024
    assert hardware.training_operations("gpt2-xl", 1024) == pytest.approx(expected, rel=1e-3)


def test_geneformers_head_is_multiplied_for_asked_genes_alone():
    config = presets.preset("student-2m")
    per_layer = 4 * config.hidden_size**2 + 2 * config.hidden_size * config.intermediate_size
    head = 0.15 * config.hidden_size * (config.vocab_size + config.hidden_size)
    expected = 6 * (config.num_hidden_layers * per_layer + head)
    expected += 12 * config.num_hidden_layers * config.hidden_size * 512
    assert hardware.training_operations("student-2m", 512) == pytest.approx(expected, rel=0.02)


def test_a_large_batch_has_more_operations_for_each_byte():
    few, many = (hardware.operations_a_byte("gpt2-xl", n * 1024, 1024, "bf16") for n in (1, 24))
    assert few < many
    assert hardware.operations_a_byte("gpt2-xl", 1024, 1024, "fp32") < few


def test_weights_with_the_tied_head_once():
    assert hardware.n_weights("gpt2-xl") == 1_557_611_200


def test_repeats_after_one_that_is_not_timed():
    calls = []
    found = hardware.seconds_of_repeats(lambda: calls.append(0), times=2, repeats=3)
    assert (len(found), len(calls)) == (3, 8)


def test_products_by_precision_leave_the_setting_of_products():
    before = torch.get_float32_matmul_precision()
    table = hardware.square_products(32, times=1)
    assert {"fp32", "bf16"} <= set(table["precision"])
    assert "fp8" not in set(table["precision"])
    assert (table["low"] <= table["TFLOP/s"]).all()
    assert (table["TFLOP/s"] <= table["high"]).all()
    assert torch.get_float32_matmul_precision() == before


def test_steps_of_both_kinds_of_model(monkeypatch):
    preset = presets.preset

    def small(name, **changes):
        config = preset(name, vocab_size=100, **changes)
        return GPT2Config(**config.to_dict() | {"n_layer": 1}) if name == "gpt2-tiny" else config

    monkeypatch.setattr(presets, "preset", small)
    table = hardware.training_steps(["gpt2-tiny", "student-2m"], rows=2, length=16, times=1)
    assert set(table["model"]) == {"gpt2-tiny", "student-2m"}
    operations = hardware.training_operations("student-2m", 16)
    row = table[table["model"] == "student-2m"].iloc[0]
    assert row["TFLOP/s"] == pytest.approx(row["tokens a second"] * operations * 1e-12)
