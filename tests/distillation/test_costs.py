import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

from epigen_utils.distillation import costs
from epigen_utils.models import attention_kernels, presets


def test_parts_are_the_whole():
    assert sum(costs.parameters_by_part(presets.preset("student-4.3m")).values()) == 4_352_466
    assert sum(costs.parameters_by_part(presets.preset("geneformer-10m")).values()) == 10_288_722


def test_equation_three_by_hand():
    assert costs.equation_3_parameters(presets.preset("student-2m")) == 2 * 25_426 * 64 + 4 * (4 * 64**2 + 2 * 64 * 256)
    assert (
        costs.equation_3_parameters(presets.preset("geneformer-10m"), feed_forward_ratio=4)
        == 2 * 25_426 * 256 + 6 * 12 * 256**2
    )


def test_operations_are_those_that_pytorch_counts():
    config = presets.preset("bert-tiny", vocab_size=500)
    model = presets.build(config, "masked-lm")
    ids = torch.randint(2, 500, (3, 40))
    labels = torch.full_like(ids, -100)
    labels[:, :6] = ids[:, :6]
    with attention_kernels.attention_implementation(model, "eager"), FlopCounterMode(display=False) as counted:
        model(input_ids=ids, attention_mask=torch.ones_like(ids), labels=labels)
    ours = costs.forward_operations(config, 3 * 40, 3 * 40**2, masked_share=6 / 40)
    assert counted.get_total_flops() == pytest.approx(ours, rel=0.01)


def test_training_costs_three_passes_and_the_teachers_one():
    student, teacher = presets.preset("student-2m"), presets.preset("geneformer-10m")
    alone = costs.training_operations(student, 1000, 1e5)
    assert alone == 3 * costs.forward_operations(student, 1000, 1e5)
    assert costs.training_operations(student, 1000, 1e5, teacher_config=teacher) == alone + costs.forward_operations(
        teacher, 1000, 1e5
    )
