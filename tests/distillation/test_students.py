import gzip
import json
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
import torch
import yaml
from test_teachers import MEDIANS, VOCABULARY, cells, tiny

from epigen_utils import paths
from epigen_utils.data import fetching
from epigen_utils.distillation import students, teachers
from epigen_utils.errors import DataError
from epigen_utils.geneformer import masked_genes, vocabularies
from epigen_utils.geneformer.masked_genes import MaskedGenes
from epigen_utils.models import presets, training

#: Keys of a configuration that determine the architecture.
ARCHITECTURE_KEYS = (
    "vocab_size",
    "max_position_embeddings",
    "num_hidden_layers",
    "hidden_size",
    "num_attention_heads",
    "intermediate_size",
    "hidden_act",
    "hidden_dropout_prob",
    "attention_probs_dropout_prob",
    "layer_norm_eps",
    "initializer_range",
    "type_vocab_size",
    "pad_token_id",
)


@pytest.fixture(scope="module")
def teacher(tmp_path_factory):
    net = tiny(hidden_size=32)
    settings = training.Settings(learning_rate=1e-2, warmup_steps=5, batch_size=8, epochs=8, evaluate_every=0)
    objective = masked_genes.MaskedGeneObjective(VOCABULARY)
    folder = tmp_path_factory.mktemp("teacher")
    training.fit(
        net, cells(160), cells(20, 1), objective=objective, output_dir=folder, settings=settings, progress=False
    )
    return teachers.Teacher(net, VOCABULARY)


SETTINGS = training.Settings(
    learning_rate=5e-3, warmup_steps=5, batch_size=8, epochs=3, schedule="cosine", evaluate_every=20
)


def fitted(run, teacher, folder, *, settings=SETTINGS, **options):
    return students.fit(run, teacher, cells(160), cells(40, 1), settings=settings, folder=folder, **options)


SMALLEST = students.StudentRun("student-2m", "student-2m")


@pytest.fixture(scope="module")
def smallest(teacher, tmp_path_factory):
    """The smallest student after a whole run."""
    return fitted(SMALLEST, teacher, tmp_path_factory.mktemp("smallest"))[0]


def weights(model):
    return torch.cat([parameter.detach().ravel() for parameter in model.parameters()])


def test_students_beside_the_published_teacher_are_the_papers():
    published = presets.preset("geneformer-10m")
    counts = {}
    for name in ("student-4.3m", "student-3m", "student-2m"):
        config = students.student_config(name, published)
        assert config.to_dict() == presets.preset(name).to_dict()
        with torch.device("meta"):
            counts[name] = presets.n_parameters(presets.HEADS["masked-lm"](config))
    assert counts == {"student-4.3m": 4_352_466, "student-3m": 3_120_178, "student-2m": 1_988_242}


def test_students_of_a_small_teacher_keep_the_ratios():
    small = presets.preset("bert-tiny", vocab_size=300)
    widths = [students.student_config(name, small).hidden_size for name in ("student-4.3m", "student-3m", "student-2m")]
    assert widths == [32, 24, 16]
    assert students.student_config("student-2m", small).num_hidden_layers == 2


def test_remembering_changes_no_student(teacher, smallest, tmp_path):
    memory = teachers.CachedStates.of(teacher, cells(160), epochs=3, seed=0, folder=tmp_path / "memory")
    remembered, _ = fitted(SMALLEST, teacher, tmp_path / "remembered", cached_states=memory)
    torch.testing.assert_close(weights(smallest), weights(remembered), rtol=1e-3, atol=1e-3)


class Stopped(Exception):
    pass


def test_a_run_that_was_broken_off_ends_in_the_same_weights(teacher, smallest, tmp_path, monkeypatch):
    step = training._Trainer.training_step

    def breaks(self, *arguments, **options):
        if self.state.global_step >= 47:
            raise Stopped
        return step(self, *arguments, **options)

    monkeypatch.setattr(training._Trainer, "training_step", breaks)
    settings = replace(SETTINGS, save_every=7)
    with pytest.raises(Stopped):
        fitted(SMALLEST, teacher, tmp_path, settings=settings)
    monkeypatch.undo()
    resumed, _ = fitted(SMALLEST, teacher, tmp_path, settings=settings)
    torch.testing.assert_close(weights(resumed), weights(smallest), rtol=0, atol=0)


def test_a_distilled_student_is_nearer_to_its_teacher_than_one_that_was_not(teacher, tmp_path):
    held = cells(40, 1)
    ruler = students.DistillationObjective(teacher, alpha=0.0)
    apart = {}
    for run in (
        students.StudentRun("kd", "student-4.3m", alpha=0.0),
        students.StudentRun("ce", "student-4.3m", alpha=None),
    ):
        model, history = fitted(run, teacher, tmp_path)
        apart[run.name] = ruler.measure(model, held)
        assert history["learning_rate"].iloc[-1] == pytest.approx(0, abs=1e-5)
    assert apart["kd"]["kl"] < apart["ce"]["kl"]
    assert ruler.measure(teacher.model, held)["kl"] == pytest.approx(0, abs=1e-5)


def test_what_is_measured_is_what_masked_genes_measures(teacher):
    held = cells(40, 1)
    found = students.DistillationObjective(teacher, alpha=0.65).measure(teacher.model, held)
    other = masked_genes.MaskedGeneObjective(VOCABULARY).measure(teacher.model, held)
    assert found["ce"] == pytest.approx(other["loss"], rel=1e-5)
    assert found["accuracy"] == pytest.approx(other["accuracy"])


def test_other_cells_are_measured_afresh(teacher):
    objective = students.DistillationObjective(teacher)
    first = objective.measure(teacher.model, cells(40, 1))
    other = objective.measure(teacher.model, cells(40, 2))
    assert other == students.DistillationObjective(teacher).measure(teacher.model, cells(40, 2))
    assert other != first


@pytest.mark.parametrize("alpha", [0.65, None])
def test_a_run_with_other_masks_is_another_run(teacher, tmp_path, alpha):
    run = students.StudentRun("student-2m", "student-2m", alpha=alpha)
    settings = replace(SETTINGS, epochs=0.5)
    one, other = (fitted(run, teacher, tmp_path, settings=settings, mask_seed=seed)[0] for seed in (0, 1))
    assert not torch.equal(weights(one), weights(other))


def test_accumulated_parts_are_one_batch(teacher):
    objective = students.DistillationObjective(teacher)
    some = cells(8)
    rows = [{"input_ids": some[i]["input_ids"], "row": i, "epoch": 0} for i in range(8)]
    model = tiny().eval()
    n = int((objective.collate(rows)["labels"] != -100).sum())
    whole = objective.loss(model, objective.collate(rows), n)
    parts = [objective.loss(model, objective.collate(part), n) for part in (rows[:3], rows[3:])]
    assert float(sum(parts).detach()) == pytest.approx(float(whole.detach()), rel=1e-5)


def test_a_student_of_another_vocabulary_is_refused_in_one_line(teacher):
    half = vocabularies.vocabulary_from_medians(dict(list(MEDIANS.items())[:20]), name="half")
    some = cells(4)
    batch = MaskedGenes(VOCABULARY)([{"input_ids": some[i]["input_ids"] % 20, "row": i} for i in range(4)])
    batch["labels"] = torch.where(batch["labels"] >= 22, 5, batch["labels"])
    batch["input_ids"] = batch["input_ids"] % 20
    with pytest.raises(DataError, match="one vocabulary"):
        students.DistillationObjective(teacher).loss(tiny(vocabulary=half), batch, None)


@pytest.mark.parametrize("options", [{"alpha": 1.5}, {"temperature": 0}])
def test_alpha_and_temperature_are_checked_before_anything_runs(teacher, tmp_path, options):
    with pytest.raises(DataError, match=next(iter(options))):
        fitted(students.StudentRun("wrong", "student-2m", **options), teacher, tmp_path)
    assert not list(tmp_path.iterdir())


def test_the_plan_has_each_run_once_and_its_controls():
    runs = students.plan_runs(["student-4.3m", "student-3m"], n_seeds=3, controls=True)
    names = [run.name for run in runs]
    assert len(set(names)) == len(names) == len({students.folder_name(name) for name in names})
    assert [run.seed for run in runs if run.alpha is None] == [0, 0, 1, 1, 2, 2]
    assert {run.alpha_on for run in runs} == {"ce", "kl"}
    assert {run.cycles for run in runs} == {0.5, 1.5}
    assert runs[: 2 * 2 * 3] == students.plan_runs(["student-4.3m", "student-3m"], n_seeds=3)
    other = students.plan_runs(["student-4.3m"], n_seeds=1, controls=True, alpha=0.0, temperature=1.0)
    by_name = {run.name: run for run in other}
    published = by_name["student-4.3m, published loss"]
    assert (published.alpha, published.temperature, published.scaled) == (0.65, 2.5, True)
    assert not by_name["student-4.3m, published loss, T² left out"].scaled
    assert by_name["student-4.3m, alpha on KL"].temperature == 1.0
    on_kl = students.plan_runs(["student-4.3m"], n_seeds=1, controls=True, alpha_on="kl")
    assert {run.name: run.alpha_on for run in on_kl if run.alpha is not None} == {
        "student-4.3m": "kl",
        "student-4.3m, alpha on CE": "ce",
        "student-4.3m, T² left out": "kl",
        "student-4.3m, restarted, 3 times as long": "kl",
    }


def test_tokens_of_the_second_vocabulary_are_never_asked_for(tmp_path):
    vocabulary = vocabularies.vocabulary_from_medians(MEDIANS, name="v2", special=True)
    some = cells(40, vocabulary=vocabulary)
    teacher = teachers.Teacher(tiny(vocabulary=vocabulary), vocabulary)
    run = students.StudentRun("student-2m", "student-2m")
    options = {"settings": training.Settings(warmup_steps=2, batch_size=8, epochs=1, evaluate_every=0)}
    model, _ = students.fit(run, teacher, some, some.select([]), folder=tmp_path, **options)
    assert model.config.vocab_size == vocabulary.size == 44


def test_a_search_stays_inside_its_donors(teacher, tmp_path):
    donors = np.repeat(["a", "b", "c", "d"], 20)
    options = {"settings": replace(SETTINGS, epochs=1), "folder": tmp_path, "n_trials": 2}
    found = students.tune_distillation(teacher, "student-2m", cells(80), donors, **options)
    assert list(found) == ["alpha", "temperature", "learning_rate", "ce", "accuracy"]
    assert len(found) == 2
    assert found["ce"].is_monotonic_increasing


def test_students_are_found_again_by_their_runs(teacher, tmp_path):
    run = students.StudentRun("student-2m, T² left out", "student-2m", scaled=False)
    model, _ = fitted(run, teacher, tmp_path, settings=replace(SETTINGS, epochs=0.5))
    students.write_runs(tmp_path, [run])
    (again,) = students.read_runs(tmp_path)
    assert again == run
    torch.testing.assert_close(weights(students.load_student(tmp_path, again)), weights(model), rtol=0, atol=0)
    with pytest.raises(DataError, match=r"students\.json"):
        students.read_runs(tmp_path / "other")
    for text in ("{}", "[1]", '[{"nobody": 1}]'):
        (tmp_path / "students.json").write_text(text)
        with pytest.raises(DataError, match=r"students\.json: .*; give the folder models"):
            students.read_runs(tmp_path)


def save_students(folder, teacher_config):
    runs = [students.StudentRun(name, name) for name in ("student-4.3m", "student-2m")]
    for run in runs:
        config = students.student_config(run.student, teacher_config)
        config.save_pretrained(folder / students.folder_name(run.name) / "model")
    students.write_runs(folder, runs)
    return str(folder)


def test_a_page_has_the_published_teacher_only_with_its_own_students(tmp_path):
    """Claims about the published students must not be decided by scaled ones that carry their names."""
    published, small = presets.preset("geneformer-10m"), presets.preset("bert-tiny", vocab_size=300)
    for name, config in (("published", published), ("small", small)):
        config.save_pretrained(tmp_path / name / "model")
    large_teacher, small_teacher = str(tmp_path / "published"), str(tmp_path / "small")
    theirs, scaled = save_students(tmp_path / "theirs", published), save_students(tmp_path / "scaled", small)
    assert students.teacher_preset(large_teacher, theirs) == "geneformer-10m"
    assert students.teacher_preset(large_teacher, scaled) == ""
    assert students.teacher_preset(large_teacher, "") == ""
    assert students.teacher_preset(small_teacher, scaled) == students.teacher_preset("", "") == "bert-tiny"


def test_what_the_page_says_of_the_published_code_is_in_its_configuration_and_logs(mirror):
    said = pd.read_csv(paths.DATA / "student_code.csv", index_col="what")["code"]
    config = yaml.safe_load(fetching.fetch("paper-b-logs")["config"].read_text())
    training_options, shape = config["training"], config["model"]
    assert said["temperature"].startswith(f"{training_options['temperature']} ")
    assert f"0.01 ({training_options['weight_decay']} in the configuration" in said["optimiser"]
    assert said["schedule"].startswith(f"{training_options['warmup_steps']:,} steps of warm-up")
    assert "masked genes only, over all 25,426 tokens" in said["genes that the divergence covers"]
    assert (shape["vocab_size"], shape["num_hidden_layers"], shape["num_attention_heads"]) == (25_426, 4, 4)
    assert said["cells a step"].endswith(str(training_options["batch_size"] * training_options["grad_accum_steps"]))
    ours = presets.preset("student-4.3m").to_dict()
    assert all(ours[key] == shape[key] for key in ARCHITECTURE_KEYS if key in shape)
    last = pd.read_csv(paths.DATA / "student_logs.csv").groupby("student", sort=False)["step"].last()
    assert said["steps"] == ", ".join(f"{last[name]:,} ({name[8:].upper()})" for name in last.index)


def test_the_bundled_logs_are_those_that_were_published():
    """Validations of the repository's logs, where they lie beside the checkout."""
    folder = paths.ROOT.parent / "shared" / "data" / "geneformer" / "paperB_logs"
    if not folder.is_dir():
        pytest.skip("the published logs are not here")
    ours = pd.read_csv(paths.DATA / "student_logs.csv")
    for student, file in (("student-4.3m", "4M"), ("student-3m", "3M"), ("student-2m", "2M")):
        with gzip.open(folder / f"geneformer{file}.jsonl.gz", "rt") as lines:
            log = [json.loads(line) for line in lines]
        rows, rate = [], 0.0
        for row in log:
            rate = float(row.get("learning_rate", rate))
            if "val_loss" in row:
                rows.append((row["step"], rate, row["val_loss"], row["val_kl_loss"], row["val_ce_loss"]))
        columns = ["step", "learning_rate", "val_loss", "val_kl", "val_ce"]
        part = ours[ours["student"] == student]
        np.testing.assert_allclose(part[columns], pd.DataFrame(rows), atol=5.1e-5)
        times = pd.to_datetime([row["timestamp"] for row in log])
        hours = np.diff(times.values) / np.timedelta64(1, "h")
        assert part["hours"].iloc[-1] == pytest.approx(hours[hours <= 0.5].sum(), abs=1e-3)
        first, then = (int((times < pd.Timestamp("2025-11-26")).sum() > 0), 32)
        assert part["cells"].iloc[0] == 1000 * (24 if first else then)
