import os
import subprocess
import sys
import types

import datasets
import numpy as np
import pandas as pd
import pytest
import torch
from accelerate import FullyShardedDataParallelPlugin
from accelerate.commands.config.config_args import load_config_from_file
from transformers.models.gpt2.modeling_gpt2 import GPT2Block

from epigen_utils import paths
from epigen_utils.geneformer import masked_genes, vocabularies
from epigen_utils.models import float8, presets, training

VOCABULARY = vocabularies.vocabulary_from_medians({f"ENSG{i}": 1.0 for i in range(40)}, name="v")


def paired_cells(n, seed=0):
    """Cells whose genes come in pairs, so that there is something to learn."""
    rng = np.random.default_rng(seed)
    pairs = [rng.permutation(20)[: rng.integers(3, 12)] for _ in range(n)]
    ids = [np.stack([2 * pair, 2 * pair + 1], axis=1).ravel() + 2 for pair in pairs]
    return datasets.Dataset.from_dict({"input_ids": ids, "length": [len(cell) for cell in ids]})


def setup(**changes):
    model = presets.build(presets.preset("bert-tiny", vocab_size=42, initializer_range=0.02), "masked-lm", seed=1)
    settings = training.Settings(
        **{"learning_rate": 3e-3, "warmup_steps": 5, "batch_size": 8, "evaluate_every": 20, "save_every": 13} | changes
    )
    return model, settings


def fit(folder, model, settings, *, n_cells=160, **more):
    objective = masked_genes.MaskedGeneObjective(VOCABULARY)
    return training.fit(
        model,
        paired_cells(n_cells),
        paired_cells(40, 1),
        objective=objective,
        output_dir=folder,
        settings=settings,
        progress=False,
        **more,
    )


def weights(model):
    return torch.cat([parameter.detach().ravel() for parameter in model.parameters()])


def test_it_learns_and_leaves_a_model_and_a_history(tmp_path):
    model, settings = setup(epochs=6)
    history = fit(tmp_path, model, settings)
    assert history["loss"].iloc[-1] < history["loss"].iloc[0] - 0.3
    assert history["step"].tolist() == [20, 40, 60, 80, 100, 120]
    assert history["train_loss"].between(1, 5).all(), "also where an epoch ends"
    assert history["tokens"].is_monotonic_increasing
    assert sorted(path.name for path in tmp_path.iterdir()) == ["history.csv", "model", "settings.json"]
    again, _ = setup(epochs=6)
    pd.testing.assert_frame_equal(fit(tmp_path, again, settings), history)
    torch.testing.assert_close(weights(again), weights(model))


@pytest.mark.requires_gpu
@pytest.mark.parametrize("precision", ["fp32", "bf16", "fp16"])
def test_it_learns_on_a_gpu_and_is_loaded_there(tmp_path, precision):
    model, settings = setup(epochs=6)
    history = fit(tmp_path, model, settings, precision=precision)
    assert history["loss"].iloc[-1] < history["loss"].iloc[0] - 0.3
    assert (model.device.type, model.dtype) == ("cuda", torch.float32)
    again, _ = setup(epochs=6)
    pd.testing.assert_frame_equal(fit(tmp_path, again, settings, precision=precision), history)
    torch.testing.assert_close(weights(again), weights(model))


class Stopped(Exception):
    """What a broken off run raises."""


SHORT = {"epochs": 3, "save_every": 5, "evaluate_every": 0}


@pytest.fixture(scope="module")
def whole_run(tmp_path_factory):
    """Weights of a run of three epochs of eight steps."""
    model, settings = setup(**SHORT)
    fit(tmp_path_factory.mktemp("whole"), model, settings, n_cells=64)
    return weights(model)


@pytest.mark.parametrize("at", [12, 19])
def test_a_run_that_was_broken_off_ends_in_the_same_weights(whole_run, tmp_path, monkeypatch, at):
    """Checkpoints are at every 5th step, epochs are 8 steps: both are in the middle of one."""
    step = training._Trainer.training_step
    broken, settings = setup(**SHORT)

    def breaks(self, *arguments, **options):
        if self.state.global_step == at:
            raise Stopped
        return step(self, *arguments, **options)

    monkeypatch.setattr(training._Trainer, "training_step", breaks)
    with pytest.raises(Stopped):
        fit(tmp_path, broken, settings, n_cells=64)
    monkeypatch.undo()
    assert list(tmp_path.glob("checkpoint-*"))
    resumed, _ = setup(**SHORT)
    fit(tmp_path, resumed, settings, n_cells=64)
    torch.testing.assert_close(weights(resumed), whole_run, rtol=0, atol=0)


def test_another_setting_starts_afresh(tmp_path):
    model, settings = setup(steps=20)
    fit(tmp_path, model, settings)
    other, changed = setup(steps=20, learning_rate=1e-3)
    fit(tmp_path, other, changed)
    assert not torch.equal(weights(other), weights(model))
    seeded, _ = setup(steps=20)
    fit(tmp_path, seeded, settings, seed=2)
    assert not torch.equal(weights(seeded), weights(model))


def test_bf16_learns_too_and_fp8_says_why_not(tmp_path):
    model, settings = setup(steps=60)
    history = fit(tmp_path, model, settings, precision="bf16")
    assert history["loss"].iloc[-1] < history["loss"].iloc[0]
    with pytest.raises(ValueError, match="fp8 needs a CUDA device; use fp32 or bf16"):
        fit(tmp_path / "other", model, settings, precision="fp8")


def test_fp8_learns_where_it_is_available_and_leaves_the_layers_as_they_were(tmp_path, monkeypatch):
    """PyTorch's scaled product runs on a CPU too, slowly."""
    monkeypatch.setattr(training, "why_unavailable", lambda precision: "")
    losses = {}
    for precision in ("bf16", "fp8"):
        model, settings = setup(steps=60)
        losses[precision] = fit(tmp_path / precision, model, settings, precision=precision)["loss"]
    assert losses["fp8"].iloc[-1] < losses["fp8"].iloc[0]
    assert losses["fp8"].iloc[-1] == pytest.approx(losses["bf16"].iloc[-1], rel=0.05)
    assert losses["fp8"].iloc[-1] != losses["bf16"].iloc[-1]
    assert not any(isinstance(module, float8.Float8Linear) for module in model.modules())


def test_a_finished_run_says_what_a_fresh_one_said_in_mixed_precision_too(tmp_path):
    model, settings = setup(steps=4)
    fit(tmp_path, model, settings, precision="bf16")
    again, _ = setup(steps=4)
    fit(tmp_path, again, settings, precision="bf16")
    ids = torch.tensor(paired_cells(1)[0]["input_ids"])[None]
    with torch.no_grad():
        fresh, read = (one.eval()(input_ids=ids, attention_mask=torch.ones_like(ids)).logits for one in (model, again))
    assert fresh.dtype == torch.float32
    torch.testing.assert_close(fresh, read, rtol=0, atol=0)


def test_a_loss_of_our_own_counts_every_device():
    """Its gradients are averaged over devices, and it has divided by the labels of all."""
    trainer = object.__new__(training._Trainer)
    objective = types.SimpleNamespace(loss=lambda model, batch, n: torch.tensor(3.0))
    trainer.callback_handler = types.SimpleNamespace(callbacks=[training._ProgressCallback(objective, [])])
    trainer.accelerator = types.SimpleNamespace(num_processes=2)
    assert trainer.compute_loss(None, {}, num_items_in_batch=8) == 6
    assert trainer.compute_loss(None, {}) == 3


TWO = """
import sys, torch
sys.path.insert(0, "tests/models")
import test_training as t
from epigen_utils.geneformer import masked_genes
from epigen_utils.models import training
torch.set_num_threads(1)
processes = int(sys.argv[2])
model, settings = t.setup(steps=6, accumulate=2 // processes, warmup_steps=0, save_every=100, evaluate_every=3, grouped=False)
model.config.hidden_dropout_prob = 0.0
for module in model.modules():
    if isinstance(module, torch.nn.Dropout):
        module.p = 0.0
objective = masked_genes.MaskedGeneObjective(t.VOCABULARY)
training.fit(model, t.paired_cells(160), t.paired_cells(40, 1), objective=objective, output_dir=sys.argv[1], settings=settings, progress=False)
"""


@pytest.mark.slow
def test_two_processes_give_the_loss_of_one(tmp_path):
    """The same cells in each step: eight in two processes, or twice eight accumulated in one."""
    (tmp_path / "two.py").write_text(TWO)
    found = {}
    for n in (1, 2):
        folder = tmp_path / str(n)
        launch = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"] if n == 2 else []
        done = subprocess.run(
            [sys.executable, *launch, tmp_path / "two.py", folder, str(n)],
            cwd=paths.ROOT,
            env=os.environ | {"OMP_NUM_THREADS": "1", "PYTHONPATH": str(paths.ROOT)},
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == 0, done.stderr[-2000:]
        found[n] = pd.read_csv(folder / "history.csv")
    np.testing.assert_allclose(found[1]["loss"], found[2]["loss"], rtol=2e-4)


def test_the_configuration_for_several_gpus_is_one_of_accelerates_and_wraps_gpt2s_blocks():
    """FSDP itself needs GPUs."""
    config = load_config_from_file(str(paths.DATA / "fsdp.yml"))
    assert str(config.distributed_type).endswith("FSDP")
    given = {name.removeprefix("fsdp_"): value for name, value in config.fsdp_config.items()}
    given["fsdp_version"] = given.pop("version")
    names = given.pop("transformer_layer_cls_to_wrap").split(",")
    plugin = FullyShardedDataParallelPlugin(**given, transformer_cls_names_to_wrap=names)
    model = presets.build(presets.preset("gpt2-tiny", vocab_size=42), "causal-lm")
    plugin.set_auto_wrap_policy(model)
    wrapped = [type(module) for module in model.modules() if plugin.auto_wrap_policy(module, False, 0)]
    assert wrapped == [GPT2Block, GPT2Block]


def test_cells_of_many_lengths_are_not_read_by_cudnns_attention(tmp_path, monkeypatch):
    seen, step = [], training._Trainer.training_step

    def looks(self, *arguments, **options):
        seen.append(torch.backends.cuda.cudnn_sdp_enabled())
        return step(self, *arguments, **options)

    monkeypatch.setattr(training._Trainer, "training_step", looks)
    model, settings = setup(steps=2)
    fit(tmp_path, model, settings)
    assert seen == [False, False]
    assert torch.backends.cuda.cudnn_sdp_enabled()
