import numpy as np
import pandas as pd
import pytest

from epigen_utils.distillation import costs
from epigen_utils.models import presets
from epigen_utils.plots import distillation_plots


def test_the_scheme_says_both_weights(ax):
    distillation_plots.distillation_scheme(ax, ce_weight="0.65", kl_weight="0.35")
    words = [text.get_text() for text in ax.texts]
    assert "0.35 × divergence" in words
    assert "0.65 × cross entropy" in words


def test_parts_end_at_the_whole(ax):
    table = costs.parameter_table({name: presets.preset(name) for name in ("geneformer-10m", "student-2m")})
    distillation_plots.parameters_by_part(ax, table)
    ends = max(bar.get_x() + bar.get_width() for bar in ax.patches)
    assert ends == 10_288_722
    assert [text.get_text() for text in ax.texts] == [" 10,288,722", " 1,988,242"]


def test_curves_name_every_run(ax):
    history = pd.DataFrame({"step": [10, 20], "ce": [2.0, 1.0]})
    distillation_plots.curves_by_step(ax, {"one": history, "two": history + 1}, value="ce", label="loss")
    assert [text.get_text() for text in ax.get_legend().get_texts()] == ["one", "two"]


def test_gaps_have_a_row_each_from_the_top_with_their_donors(ax):
    pooled = pd.DataFrame(
        {"model": ["a", "b"], "accuracy": [-0.1, 0.1], "accuracy low": np.nan, "accuracy high": np.nan}
    )
    donors = pd.DataFrame({"model": ["a", "b", "b", "c"], "donor": [*"xxyx"], "accuracy": [-0.1, 0.3, -0.1, 9.0]})
    distillation_plots.model_gaps(ax, pooled, donors, value="accuracy", label="less", percent=True)
    low, high = ax.get_ylim()
    assert low > high
    assert [text.get_text() for text in ax.get_yticklabels()] == ["a", "b"]
    rings = ax.lines[1]
    assert list(zip(rings.get_xdata(), rings.get_ydata(), strict=True)) == [(-0.1, 0), (0.3, 1), (-0.1, 1)]


def test_retention_draws_this_run_and_the_papers(ax):
    own = {"model": "s", "source": "this run", "by accuracy": 0.9, "by lift": 0.8}
    own |= {f"by {kind} {end}": 0.7 for kind in ("accuracy", "lift") for end in ("low", "high")}
    table = pd.DataFrame([own, {"model": "s", "source": "the paper's numbers", "by accuracy": 0.98, "by lift": 0.94}])
    distillation_plots.teacher_retention(ax, table)
    assert len(ax.get_legend().get_texts()) == 4
    assert len(ax.collections) == 2


def test_cost_names_its_ratios(ax):
    costs_of = {"model": ["s"], "data": [4.46], "compute, operations": [6.8], "compute, GPU-hours": [27.06]}
    distillation_plots.cost_ratios(ax, pd.DataFrame(costs_of))
    assert [text.get_text() for text in ax.texts] == [" 1/4.5", " 1/6.8", " 1/27.1"]


def test_an_axis_about_one_is_even():
    low, high = distillation_plots.limits_about_one(pd.DataFrame({"a": [0.9, 1.2], "b": [1.0, np.nan]}))
    assert 1 - low == pytest.approx(high - 1) == pytest.approx(0.23)
