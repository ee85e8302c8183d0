import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

from epigen_utils import costs, models


def test_parts_are_the_whole():
    assert sum(costs.parts(models.preset("student-4.3m")).values()) == 4_352_466
    assert sum(costs.parts(models.preset("geneformer-10m")).values()) == 10_288_722


def test_equation_three_by_hand():
    assert costs.equation_three(models.preset("student-2m")) == 2 * 25_426 * 64 + 4 * (4 * 64**2 + 2 * 64 * 256)
    assert costs.equation_three(models.preset("geneformer-10m"), ratio=4) == 2 * 25_426 * 256 + 6 * 12 * 256**2


def test_operations_are_those_that_pytorch_counts():
    config = models.preset("bert-tiny", vocab_size=500)
    model = models.build(config, "masked-lm")
    ids = torch.randint(2, 500, (3, 40))
    labels = torch.full_like(ids, -100)
    labels[:, :6] = ids[:, :6]
    with models.attending(model, "eager"), FlopCounterMode(display=False) as counted:
        model(input_ids=ids, attention_mask=torch.ones_like(ids), labels=labels)
    ours = costs.forward(config, 3 * 40, 3 * 40**2, asked=6 / 40)
    assert counted.get_total_flops() == pytest.approx(ours, rel=0.01)


def test_training_costs_three_passes_and_the_teachers_one():
    student, teacher = models.preset("student-2m"), models.preset("geneformer-10m")
    alone = costs.training(student, 1000, 1e5)
    assert alone == 3 * costs.forward(student, 1000, 1e5)
    assert costs.training(student, 1000, 1e5, teacher=teacher) == alone + costs.forward(teacher, 1000, 1e5)
