import numpy as np
import pandas as pd
import pytest

from epigen_utils.models import precision_losses


def curves(**losses):
    """Precision -> loss at 0, 5 and 10 steps; a step of fp32 takes 2 s, one of the others 1 s."""
    rows = []
    for name, values in losses.items():
        for seed in (0, 1):
            for step, loss in zip((0, 5, 10), values, strict=True):
                seconds = step * (2.0 if name == "fp32" else 1.0)
                rows.append({"precision": name, "seed": seed, "step": step, "seconds": seconds, "loss": loss + seed})
    return pd.DataFrame(rows)


def test_equal_steps_equal_seconds_and_equal_loss():
    table = precision_losses.equal_steps_and_seconds(curves(fp32=(10, 8, 6), fp8=(10, 8.2, 6.4))).set_index("precision")
    row = table.loc["fp8"]
    assert row["equal steps"] == pytest.approx(0.4)
    assert row["equal seconds"] == pytest.approx(6.4 - 8), "fp32 has done half of its steps after 10 s"
    assert row["times, steps"] == 2
    # fp32 is at 6.4 after 18 s, fp8 after 10 s.
    assert row["times, loss"] == pytest.approx(1.8)
    assert row["converged"] == 1
    assert table.loc["fp32", ["equal steps", "times, steps", "times, loss"]].tolist() == [0, 1, 1]


def test_a_training_that_diverges_has_not_converged():
    table = precision_losses.equal_steps_and_seconds(curves(fp32=(10, 8, 6), fp16=(10, 11, np.inf)))
    assert table.set_index("precision").loc["fp16", "converged"] == 0


def test_without_the_reference_there_is_no_row():
    assert precision_losses.equal_steps_and_seconds(curves(bf16=(10, 8, 6))).empty
    beside = precision_losses.equal_steps_and_seconds(curves(bf16=(10, 8, 6), fp8=(10, 8, 6)), "bf16")
    assert beside["times, loss"].tolist() == [1, 1]
