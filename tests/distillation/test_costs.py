import pandas as pd
import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

from epigen_utils import paths
from epigen_utils.book import claims
from epigen_utils.distillation import costs
from epigen_utils.models import attention_kernels, presets


def test_parts_are_the_whole():
    assert sum(costs.parameters_by_part(presets.preset("student-4.3m")).values()) == 4_352_466
    assert sum(costs.parameters_by_part(presets.preset("geneformer-10m")).values()) == 10_288_722


@pytest.mark.parametrize("name", presets.NAMED_FOR_SIZE)
def test_the_formula_of_the_page_gives_what_is_counted(name):
    """The count with tied embeddings that chapter 06 typesets."""
    config = presets.preset(name)
    tokens, positions, layers = config.vocab_size, config.max_position_embeddings, config.num_hidden_layers
    d, f = config.hidden_size, config.intermediate_size
    blocks = layers * (4 * d**2 + 2 * d * f + 9 * d + f)
    parts = {"genes": tokens * d, "positions": positions * d, "layers": blocks, "rest": d**2 + 7 * d + tokens}
    assert costs.parameters_by_part(config) == parts


def test_the_head_decides_whether_the_first_student_rounds_to_its_name():
    """Section 2.3 prints 4.3M and counts the classification head (facts/papers_audit.md, 1.1)."""
    sizes = {name: costs.classifier_parameters(presets.preset(name)) for name in presets.NAMED_FOR_SIZE[1:]}
    assert sizes == {"student-4.3m": 4_327_171, "student-3m": 3_094_851, "student-2m": 1_962_883}


def test_only_the_largest_student_meets_the_goal_of_40_to_50_percent():
    shares = costs.parameter_table({name: presets.preset(name) for name in presets.NAMED_FOR_SIZE})["share"]
    assert shares.iloc[1:].max() == pytest.approx(0.423, abs=5e-4)
    assert shares.min() == pytest.approx(0.193, abs=5e-4)


def test_every_column_of_the_sizes_is_defined():
    columns = costs.parameter_table({"student-2m": presets.preset("student-2m")}).columns
    assert set(costs.PARAMETER_COLUMNS) == set(columns) - {"model", "parameters"}


@pytest.fixture(scope="module")
def published():
    logs = pd.read_csv(paths.DATA / "student_logs.csv")
    lengths = pd.read_csv(paths.DATA / "genecorpus_lengths.csv", index_col="quantity")["value"]
    return costs.published_costs(logs, lengths, corpus=lengths["cells"]).set_index("model")


def test_the_unit_decides_whether_a_student_cost_a_25th(published):
    """12 V100 for 3 days against the 31.93 hours of the log, and operations (facts/papers_audit.md, B9)."""
    student = published.loc["student-4.3m"]
    assert published.loc["geneformer-10m", "GPU-hours"] == 864
    assert student["compute, GPU-hours"] == pytest.approx(864 / 31.929, abs=0.01)
    assert student["compute, operations"] == pytest.approx(6.8, abs=0.1)
    ratio = student["compute, GPU-hours"] / student["compute, operations"]
    assert ratio == pytest.approx(student["TFLOP/s"] / published.loc["geneformer-10m", "TFLOP/s"])


def test_cells_are_relative_to_all_passes_and_to_the_corpus(published):
    student = published.loc["student-4.3m"]
    assert student["corpora"] == pytest.approx(18_416_000 / 27_406_216)
    assert student["data"] == pytest.approx(3 / student["corpora"])


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


def verdict(claim, *numbers):
    """Verdict on a claim from the numbers of its readings, recorded by a run on the published results and logs."""
    rows = claims.read_claims().query("id == @claim")
    names = [reading.partition(":") for reading in rows["metric"].iloc[0].split(claims.READING)]
    run = {"datasets": {"geneformer-distilled": {"nature": "real"}}}
    run["metrics"] = {name: {"value": number} for (_, _, name), number in zip(names, numbers, strict=True)}
    return claims.judge_claims(rows, {names[0][0]: run})["verdict"].iloc[0]


def test_verdicts_on_sizes_and_costs_are_of_the_published_files(published):
    sizes = costs.parameter_table({name: presets.preset(name) for name in presets.NAMED_FOR_SIZE}).set_index("model")
    student, teacher = sizes.loc["student-4.3m"], presets.preset("geneformer-10m")
    head = costs.classifier_parameters(presets.preset("student-4.3m"))
    assert verdict("B-4.3m", head) == claims.AGREES
    assert verdict("B-43-percent", student["share"]) == verdict("B-goal", student["share"]) == claims.AGREES
    assert verdict("B-20-percent", sizes.loc["student-2m", "share"]) == claims.AGREES
    by_formula = (costs.equation_3_parameters(teacher, feed_forward_ratio=ratio) for ratio in (None, 4))
    assert verdict("B-eq3-count", *by_formula) == claims.DIFFERS
    spent = published.loc["student-4.3m"]
    units = (1 / spent["compute, operations"], 1 / spent["compute, GPU-hours"])
    assert verdict("B-compute", *units) == claims.DEPENDS
    assert verdict("B-data", 1 / spent["data"], spent["corpora"]) == claims.DIFFERS


def test_verdicts_on_table_1_are_of_the_papers_own_numbers():
    """Its gaps against the text and against its own rows, and its teacher, who is one frozen model."""
    table = pd.read_csv(paths.DATA / "student_results.csv").dropna(subset="perplexity").set_index("model")
    gaps = table["mlm_accuracy"] - table["teacher_mlm_accuracy"]
    assert verdict("B-gap-accuracy", -gaps["student-4.3m"]) == claims.INCONSISTENT
    assert gaps["student-3m"] == pytest.approx(-0.1015)
    assert verdict("B-gap-3m", gaps["student-3m"]) == claims.INCONSISTENT
    teachers = [table[column].nunique() for column in ("teacher_mlm_accuracy", "teacher_perplexity")]
    assert teachers == [2, 3]
    assert verdict("B-one-teacher", *teachers) == claims.INCONSISTENT
    draft = pd.read_csv(paths.DATA / "student_trail.csv").query("source == 'draft of the report'").iloc[0]
    assert verdict("B-gap-perplexity", draft["perplexity"] - draft["teacher_perplexity"]) == claims.CONSISTENT


def test_no_line_of_ours_judges_how_much_a_search_or_a_student_gives():
    for claim, number in {"B-tuning": 0.2, "B-comparable": 0.835, "B-close": 24.25 / 16.76}.items():
        assert verdict(claim, number) == claims.NOT_TESTABLE
