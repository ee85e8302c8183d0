import json

import numpy as np
import pandas as pd
import papermill
import pytest

from epigen_utils import paths
from epigen_utils.models import recorded_speeds

SPECIFICATIONS = pd.read_csv(paths.DATA / "gpu_specifications.csv")
H200 = recorded_speeds.data_sheet(SPECIFICATIONS, "NVIDIA H200")
ABOUT = {"what": "device", "name": "NVIDIA H200", "cuda": "13.0", "torch": "2.11.0", "driver": "580.1", "GiB": 139.8}


def speed(model, precision, tokens, tflops, *, what="training", how="", **more):
    """A row as the benchmark writes it, its three repeats 2% apart."""
    repeats = np.array([1.0, 0.98, 1.02])
    rates = {"tokens a second": (tokens * repeats).round().tolist(), "TFLOP/s": (tflops * repeats).round(2).tolist()}
    about = {"model": model, "precision": precision, "how": how, "what": what, "rows": 24, "length": 1024}
    about |= {"seconds": (24576 / tokens / repeats).round(5).tolist(), **rates, "seconds of the first two": 30.0}
    return about | {"GiB": 70.5, "joules a 1,000 tokens": 14.0} | more


def curve(precision, seed, seconds, losses):
    points = zip((0, 60, 120), (0.0, seconds / 2, seconds), losses, strict=True)
    named = [dict(zip(("step", "seconds", "loss"), point, strict=True)) for point in points]
    return {"model": "gpt2", "precision": precision, "seed": seed, "rows": 32, "length": 256, "curve": named}


def training_results():
    """As `benchmarks/training.py` writes on a GPU."""
    products = {"fp32": 50.0, "tf32": 400.0, "bf16": 750.0, "fp16": 740.0, "fp8": 1300.0}
    peak = [
        {"what": "product", "precision": name, "n": 8192, "TFLOP/s": [x, x - 5, x + 5]} for name, x in products.items()
    ]
    peak += [{"what": "copy", "TB/s": [4.1, 4.0, 4.2]}, ABOUT]
    memory = {"model": "gpt2-xl", "precision": "bf16", "how": "a larger batch still", "what": "memory", "rows": 24}
    memory |= {"weights": 5.8, "gradients": 5.8, "optimiser": 11.6, "activations": 41.0, "length": 1024}
    ladder = [
        speed("gpt2-xl", "fp32", 4_000, 41, how="fp32, as the library has it"),
        speed("gpt2-xl", "bf16", 18_000, 185, how="bf16"),
        speed("gpt2-xl", "bf16", 52_000, 535, how="a larger batch still"),
        memory,
        speed("gpt2-xl", "fp8", 62_000, 638, how="fp8"),
        speed("gpt2-xl", "fp16", 50_000, 514, how="fp16"),
        {"model": "gpt2-xl", "precision": "bf16", "how": "cuDNN's attention", "error": "out of memory"},
    ]
    sizes = []
    for name, tokens in (("geneformer-10m", 900_000), ("student-2m", 4_000_000), ("gpt2", 400_000)):
        for of, times in (("fp32", 0.2), ("bf16", 1.0)):
            sizes.append(speed(name, of, tokens * times, 100 * times, compiled=of == "bf16"))
            sizes.append(speed(name, of, 3 * tokens * times, 110 * times, what="inference", compiled=of == "bf16"))
    curves = [curve("fp32", seed, 40.0, (10.0, 7.0, 6.0 + seed / 100)) for seed in range(3)]
    curves += [curve("bf16", seed, 10.0, (10.0, 7.01, 6.0 + seed / 100)) for seed in range(3)]
    curves += [curve("fp8", seed, 8.0, (10.0, 7.0, 6.02 + seed / 100)) for seed in range(3)]
    kernels = {"nvjet_hsh_256x128": 0.6, "triton_poi_fused_gelu": 0.2, "cudnn_generated_fort_native_sdpa_sm90": 0.1}
    profile = {"model": "gpt2-xl", "precision": "bf16", "seconds of two steps": 1.0, "busy": 0.9, "kernels": kernels}
    tuned = {"model": "gpt2-xl", "precision": "bf16", "samples": 24, "length": 1024, "steps": 45, "batch": 8}
    fine = [tuned | {"epochs": 15, "seconds": 36.0, "seconds of a step": 0.6, "GiB": 40.0, "joules": 18_000}]
    parts = {
        "peak": peak,
        "ladder": ladder,
        "precision": curves,
        "fine-tune": fine,
        "sizes": sizes,
        "profile": [profile],
    }
    return {name: {"rows": rows, "seconds": 60.0} for name, rows in parts.items()}


def record():
    """As `benchmarks/accelerator.py` merges what it ran."""
    about = {"device": "NVIDIA H200", "date": "2026-11-27", "torch": "2.11.0"}
    cell = {"model": "geneformer-10m", "genes": 930, "seconds for all genes of the cell": {"ours, bf16": 0.31}}
    perturbation = {"exact": [cell], **about}
    deseq = {"runs": [{"samples": 200, "engine": "epigen_utils", "device": "cuda", "median seconds": 0.4}], **about}
    steps = {"cells": 64, "rows": [{"step": "asked positions only", "seconds": 0.5}]}
    return {
        "commit": "0123abc",
        "device": about["device"],
        "date": about["date"],
        "training": training_results() | about,
        "perturbation": perturbation,
        "deseq": deseq,
        "distillation": {"length": 2048, "steps": steps, **about},
    }


def ladder_of(results):
    return recorded_speeds.speeds(results, "ladder", recorded_speeds.peaks(results, H200), H200)


def test_repeats_become_median_and_range():
    rows = recorded_speeds.recorded_rows(training_results(), "peak", "copy")
    assert rows.loc[0, ["TB/s", "TB/s low", "TB/s high"]].tolist() == [4.1, 4.0, 4.2]


@pytest.mark.parametrize("results", [None, {}, {"device": "CPU, 2 cores"}])
def test_without_results_tables_have_no_rows(results):
    peaks = recorded_speeds.peaks(results, H200[:0])
    ladder = recorded_speeds.speeds(results, "ladder", peaks, H200[:0])
    curves, tuned = recorded_speeds.loss_curves(results), recorded_speeds.fine_tunes(results, dollars_an_hour=1)
    tables = [peaks, ladder, curves, tuned, recorded_speeds.memory_by_part(results)]
    tables += [recorded_speeds.kernel_shares(results), recorded_speeds.roofline_points(ladder, ladder)]
    tables += [recorded_speeds.times_the_cpu(ladder, ladder), recorded_speeds.with_ranges(ladder, [])]
    assert [len(table) for table in tables] == [0] * len(tables)
    assert recorded_speeds.headline(ladder, curves, tuned) == {}
    assert recorded_speeds.describe({}) == recorded_speeds.machine(results) == ""
    assert recorded_speeds.unfinished(results, ["peak"]) == {"peak": "not measured"}


def test_a_part_that_ended_early_says_why():
    results = training_results()
    results["sizes"] |= {"ended": "stopped after 150 s"}
    results["profile"]["rows"] = []
    found = recorded_speeds.unfinished(results, results)
    assert found == {"sizes": "stopped after 150 s", "profile": "not measured"}


@pytest.mark.parametrize(
    ("device", "bf16"),
    [("NVIDIA H100 80GB HBM3", 989.4), ("NVIDIA H100 PCIe", 756), ("NVIDIA H200", 989.4), ("NVIDIA A100", None)],
)
def test_the_data_sheet_is_that_of_the_device(device, bf16):
    assert recorded_speeds.data_sheet(SPECIFICATIONS, device).get("bf16") == bf16


def test_peaks_that_were_not_measured_are_the_data_sheets():
    peaks = recorded_speeds.peaks({"device": "NVIDIA H200"}, H200).set_index("quantity")
    assert peaks["measured"].isna().all()
    assert peaks["data sheet"].to_dict() == {
        "fp32": 66.9, "tf32": 494.7, "bf16": 989.4, "fp16": 989.4, "fp8": 1978.9, "memory": 4.8
    }  # fmt: skip
    measured = recorded_speeds.peaks(training_results(), H200).set_index("quantity").loc["bf16"]
    assert measured[["measured", "low"]].tolist() == [755, 745]


def test_rates_are_shares_of_both_peaks_and_rows_out_of_memory_are_left_out():
    ladder = ladder_of(training_results())
    assert len(ladder) == 5
    row = ladder.iloc[2]
    assert row["of measured"] == pytest.approx(535 / 755)
    assert row["of data sheet"] == pytest.approx(535 / 989.4)
    assert row["times"] == 13
    shown = recorded_speeds.with_ranges(ladder, ["how", "tokens a second", "joules a 1,000 tokens", "none"])
    assert list(shown) == ["how", "tokens a second", "range", "joules a 1,000 tokens"]
    assert shown.loc[2, "range"] == "50,960 to 53,040"


def test_a_steps_time_is_all_of_it():
    shares = recorded_speeds.kernel_shares(training_results())
    assert shares.sum() == pytest.approx(1)
    expected = {"matrix products": 0.54, "elementwise, norms and loss": 0.18, "attention": 0.09, "idle": 0.1}
    assert {kind: shares[kind] for kind in expected} == pytest.approx(expected)


def test_memory_and_a_fine_tuning():
    assert recorded_speeds.memory_by_part(training_results()).to_numpy().tolist() == [
        ["a larger batch still", 5.8, 5.8, 11.6, 41.0]
    ]
    tuned = recorded_speeds.fine_tunes(training_results(), dollars_an_hour=3.5)
    assert tuned["hours"].tolist() == [0.01]
    assert tuned["dollars"].tolist() == pytest.approx([0.035])
    assert tuned["kWh"].tolist() == pytest.approx([0.005])
    results = training_results()
    for row in results["fine-tune"]["rows"]:
        del row["joules"]
    assert "kWh" not in recorded_speeds.fine_tunes(results, dollars_an_hour=3.5), "no counter of energy"


def test_headline_and_what_stands_beside_it():
    results = training_results()
    tuned = recorded_speeds.fine_tunes(results, dollars_an_hour=1)
    found = recorded_speeds.headline(ladder_of(results), recorded_speeds.loss_curves(results), tuned)
    assert found["mfu_bf16"]["value"] == pytest.approx(100 * 535 / 989.4)
    assert found["tflops_fp8"] == pytest.approx({"value": 638, "low": 625.24, "high": 650.76})
    assert found["fp8_times_bf16"] == pytest.approx({"value": 62 / 52, "low": 60.76 / 53.04, "high": 63.24 / 50.96})
    assert found["fp8_loss"] == pytest.approx({"value": 0.02, "low": 0.02, "high": 0.02})
    assert found["fp8_converged"] == {"value": 1}
    assert found["fine_tune_hours"] == {"value": 0.01}
    assert found["fine_tune_step_seconds"] == {"value": 0.6}
    text = recorded_speeds.describe(found)
    assert "reaches 54% of the data sheet's peak. In fp8 it makes 1.19 (1.15 to 1.24) times" in text
    assert text.endswith("A fine-tuning of GPT-2 XL takes 0.6 minutes.")
    published = pd.read_csv(paths.DATA / "published_speeds.csv")
    beside = recorded_speeds.beside_published(published, found)
    assert beside["ours"].iloc[0] == "54.1 (53 to 55.2)"
    assert set(recorded_speeds.beside_published(published, {})["ours"]) == {""}
    assert set(published["ours"]) <= set(found)


def test_points_of_the_roofline_are_the_fastest_steps():
    results = training_results()
    sizes = recorded_speeds.speeds(results, "sizes", recorded_speeds.peaks(results, H200), H200)
    points = recorded_speeds.roofline_points(ladder_of(results), sizes)
    assert points[["model", "precision", "TFLOP/s"]].iloc[0].tolist() == ["gpt2-xl", "fp8", 638]
    assert not points.duplicated(["model", "precision"]).any()
    assert points["operations a byte"].between(100, 2000).all()
    assert len(recorded_speeds.roofline_points(ladder_of(results), sizes[:0])) == 4, "the other models ended early"


def test_times_the_cpu_are_of_the_fastest_precision_of_each():
    results = training_results()
    sizes = recorded_speeds.speeds(results, "sizes", recorded_speeds.peaks(results, H200), H200)
    cpu = sizes[(sizes["model"] == "gpt2") & (sizes["precision"] == "fp32")]
    row, other = recorded_speeds.times_the_cpu(sizes, cpu).to_dict("records")
    assert (row["what"], row["model"], row["value"]) == ("training", "gpt2", 5)
    assert other["what"] == "inference"
    assert (row["low"], row["high"]) == pytest.approx((5 * 0.98 / 1.02, 5 * 1.02 / 0.98))


def test_other_programs_stand_beside_the_cpus():
    seconds = {"peer": 434.19, "ours, bf16": 74.4}
    cell = {"model": "geneformer-10m", "genes": 930, "seconds for all genes of the cell": seconds}
    cpu = {"perturbation": {"exact": [cell]}, "deseq": None, "distillation": None}
    table = recorded_speeds.other_programs(record(), cpu)
    row = table.set_index("what").loc["deletions of 930 genes, geneformer-10m, ours, bf16"]
    assert (row["device"], row["CPU"]) == pytest.approx((3000, 12.5))
    assert len(table) == 3, "the peer on the CPU has no partner"
    assert recorded_speeds.other_programs(None, cpu).empty


def test_the_source_names_device_date_and_commit():
    about = {"device": "NVIDIA H200", "date": "2026-11-27"}
    assert recorded_speeds.source(about) == "NVIDIA H200, 2026-11-27"
    assert recorded_speeds.machine(training_results()) == "driver 580.1, CUDA 13.0, PyTorch 2.11.0"
    assert recorded_speeds.source(about | {"commit": "0123abc"}).endswith(", commit 0123abc")


def test_step_time_falls():
    logs = pd.DataFrame({"student": "a", "step": range(0, 5000, 1000), "hours": [0, 1, 2, 2.1, 2.2]})
    found = recorded_speeds.seconds_a_step(logs)
    assert found["seconds"].tolist() == pytest.approx([3.6, 3.6, 0.36, 0.36])
    assert recorded_speeds.fall(found["seconds"], of=2) == pytest.approx(10)


def incomplete():
    """A record whose call was stopped: no products, no loss, no energy, no other programs."""
    results = training_results()
    for part in ("peak", "precision", "profile"):
        del results[part]
    results["ladder"] = {"rows": [results["ladder"]["rows"][0]], "ended": "stopped after 150 s"}
    for row in results["ladder"]["rows"]:
        del row["joules a 1,000 tokens"]
    return {name: content for name, content in record().items() if name in ("commit", "device", "date")} | {
        "training": results | {"device": "NVIDIA H100 PCIe", "date": "2026-11-27", "torch": "2.11.0"}
    }


@pytest.mark.slow("notebooks/epilepsy/13_hardware.ipynb")
@pytest.mark.parametrize(
    ("content", "ended", "reaches"),
    [(None, False, False), (record(), False, True), (incomplete(), True, False)],
    ids=["none", "whole", "incomplete"],
)
def test_the_page_is_made_of_what_there_is(tmp_path, content, ended, reaches):
    records = []
    if content:
        (tmp_path / "accelerator.json").write_text(json.dumps(content))
        records = [str(tmp_path / "accelerator")]
    given = {"records": records, "models": ["student-2m"], "product": 64, "results_dir": str(tmp_path / "results")}
    source, page = paths.NOTEBOOKS / "epilepsy" / "13_hardware.ipynb", tmp_path / "out.ipynb"
    cells = papermill.execute_notebook(source, page, parameters=given, progress_bar=False).cells
    text = str([cell.outputs for cell in cells if cell.cell_type == "code"])
    assert ("No GPU is recorded" in text) == (content is None)
    assert ("stopped after 150 s" in text) == ended
    metrics = json.loads((tmp_path / "results" / "metrics.json").read_text())["metrics"]
    assert ("recorded_mfu_bf16" in metrics) == reaches
    assert ("recorded_fine_tune_hours" in metrics) == bool(content)
