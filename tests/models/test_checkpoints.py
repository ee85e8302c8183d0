import errno
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from huggingface_hub import constants, file_download
from transformers import BertForSequenceClassification, GPT2Model

from epigen_utils.errors import DataError, UnreachableError
from epigen_utils.models import checkpoints, presets

PLACE = "someone/Geneformer:V1-small"
COMMIT = "a" * 40


def save_small(folder, **changes):
    """A BERT with the tokens of V1, and the smallest body."""
    shape = {"hidden_size": 8, "num_hidden_layers": 1, "intermediate_size": 8, "max_position_embeddings": 16}
    model = presets.build(presets.preset("bert-tiny", **(shape | changes)), "masked-lm")
    model.save_pretrained(folder)
    return model


def save_pickle(folder, model):
    torch.save(model.state_dict(), folder / "pytorch_model.bin")
    (folder / "model.safetensors").unlink()


def one_line(place, kind=DataError, **options):
    with pytest.raises(kind) as raised:
        checkpoints.find(place, **options)
    assert len(str(raised.value).splitlines()) == 1
    return str(raised.value)


@pytest.fixture
def published(hub):
    """A hub's repository with a checkpoint in a subfolder, and files that are none."""
    folder = hub.add("someone/Geneformer")
    model = save_small(folder / "V1-small")
    (folder / "README.md").write_text("# A card")
    (folder / "V1-small" / "training_args.bin").write_bytes(b"a pickle")
    return hub, folder / "V1-small", model


def cached_files():
    return {path.name for path in Path(constants.HF_HUB_CACHE).glob("*/snapshots/**/*") if path.is_file()}


def assert_nothing_half_written():
    assert not list(Path(constants.HF_HUB_CACHE).rglob("*.incomplete"))
    assert "model.safetensors" not in cached_files()


def test_a_published_checkpoint_is_loaded_from_its_subfolder_at_a_commit(published):
    hub, _, model = published
    found = checkpoints.find(PLACE)
    assert (found.place, found.commit, found.folder.name) == (PLACE, COMMIT, "V1-small")
    assert str(found) == f"{PLACE} at commit {COMMIT}"
    assert cached_files() == {"config.json", "model.safetensors"}
    again = presets.load_checkpoint(PLACE)
    torch.testing.assert_close(again.state_dict(), model.state_dict())
    assert again.get_output_embeddings().weight is again.get_input_embeddings().weight
    assert sum(line.startswith("GET") and "safetensors" in line for line in hub.asked) == 1, "fetched once"


def test_a_branch_a_tag_and_a_commit_are_revisions(published):
    hub, folder, _ = published
    other = hub.add("someone/Geneformer", commit="b" * 40)
    save_small(other / "V1-small", hidden_size=16)
    hub.revisions["v0.1"] = "b" * 40
    assert checkpoints.find(PLACE, revision="v0.1").commit == "b" * 40
    assert checkpoints.find(PLACE, revision="b" * 40).commit == "b" * 40
    assert checkpoints.find(PLACE).commit == COMMIT
    assert presets.load_checkpoint(PLACE, revision="v0.1").config.hidden_size == 16
    assert "no such revision" in one_line(PLACE, revision="v9")
    assert "no such revision" in one_line(PLACE, revision="c" * 40)
    assert "a folder has no revision" in one_line(folder, revision="main")


def test_what_was_fetched_is_used_without_the_hub(published, monkeypatch):
    hub, _, _ = published
    found = checkpoints.find(PLACE)
    hub.fault = 503
    assert checkpoints.find(PLACE) == found
    hub.fault = "silent"
    assert checkpoints.find(PLACE, revision=COMMIT) == found
    hub.asked.clear()
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    assert checkpoints.find(PLACE) == found
    assert "HF_HUB_OFFLINE is set; unset it" in one_line("someone/Other", UnreachableError)
    assert "HF_HUB_OFFLINE is set; unset it" in one_line("someone/Geneformer:V2", UnreachableError)
    assert hub.asked == []


def test_folders_ask_no_hub(hub, tmp_path):
    save_small(tmp_path / "teacher" / "model")
    ours = checkpoints.find(tmp_path / "teacher")
    plain = checkpoints.find(tmp_path / "teacher" / "model")
    assert ours.folder == plain.folder == tmp_path / "teacher" / "model"
    assert (str(ours), ours.commit) == (str(tmp_path / "teacher"), "")
    assert presets.load_checkpoint(tmp_path / "teacher").config.vocab_size == 25_426
    assert "no such folder, and no hub id" in one_line(tmp_path / "lost" / "model")
    (tmp_path / "empty").mkdir()
    assert "it has no config.json" in one_line(tmp_path / "empty")
    assert hub.asked == []


def test_what_a_hub_lacks_is_named(published):
    hub, folder, _ = published
    assert f"someone/Genefromer: no such folder, and no such model on {hub.address}" in one_line("someone/Genefromer")
    said = one_line("someone/Geneformer:V1-smal")
    assert "no model in its subfolder V1-smal" in said
    assert "did you mean 'V1-small'?" in said
    said = one_line("someone/Geneformer")
    assert "no model at its top, since there is no config.json; give owner/name:subfolder (known: V1-small)" in said
    (folder / "config.json").unlink()
    assert "no model in its subfolder V1-small, since there is no config.json; give another" in one_line(PLACE)
    for place in ("gpt2", "a/b/c", "./a", "../a", "someone/a:b:c", "someone/a@main", "someone/a--b"):
        assert "no hub id" in one_line(place)


def test_a_pickle_is_read_only_where_that_is_asked_for(published, tmp_path):
    _, folder, model = published
    save_pickle(folder, model)
    assert "its weights are a pickle alone (pytorch_model.bin)" in one_line(PLACE)
    assert cached_files() == set()
    torch.testing.assert_close(presets.load_checkpoint(PLACE, allow_pickle=True).state_dict(), model.state_dict())
    save_pickle(tmp_path / "own", save_small(tmp_path / "own"))
    assert "a pickle alone" in one_line(tmp_path / "own")
    (folder / "pytorch_model.bin").unlink()
    assert "no weights there, but a config.json" in one_line(PLACE)


def test_a_pickle_beside_safetensors_is_not_fetched(published):
    _, folder, _ = published
    (folder / "pytorch_model.bin").write_bytes(b"anything")
    presets.load_checkpoint(PLACE, allow_pickle=True)
    assert cached_files() == {"config.json", "model.safetensors"}


def test_weights_in_several_files(published, tmp_path):
    _, folder, model = published
    (folder / "model.safetensors").unlink()
    model.save_pretrained(folder, max_shard_size="300KB")
    assert (folder / "model.safetensors.index.json").exists()
    torch.testing.assert_close(presets.load_checkpoint(PLACE).state_dict(), model.state_dict())
    next(folder.glob("model-00002*")).unlink()
    with pytest.raises(DataError, match="cannot be loaded"):
        presets.load_checkpoint(folder)


def test_a_hub_that_hangs_fails_or_is_not_there(published, monkeypatch):
    hub, _, _ = published
    hub.fault = "silent"
    assert f"{PLACE}: {hub.address} cannot be reached (ReadTimeout); try again" in one_line(PLACE, UnreachableError)
    hub.fault = 503
    assert f"{hub.address} answers 503; try again later" in one_line(PLACE, UnreachableError)
    hub.fault = 403
    assert "refuses the token; log in" in one_line(PLACE)
    monkeypatch.setattr(constants, "ENDPOINT", "http://127.0.0.1:9")
    assert "http://127.0.0.1:9 cannot be reached (ConnectError)" in one_line(PLACE, UnreachableError)
    assert not Path(constants.HF_HUB_CACHE).exists()


def test_a_server_that_is_no_hub(serve, hub, monkeypatch):
    address, folder, _ = serve
    (folder / "api/models/someone").mkdir(parents=True)
    (folder / "api/models/someone/Geneformer").write_text("<html>Log in to the network</html>")
    monkeypatch.setattr(constants, "ENDPOINT", address)
    assert "answers, but not as a model hub; set HF_ENDPOINT" in one_line("someone/Geneformer")


def test_a_download_that_breaks_off_leaves_nothing(published, monkeypatch):
    hub, _, model = published
    monkeypatch.setattr(file_download.time, "sleep", lambda seconds: None)
    monkeypatch.setattr(constants, "HF_HUB_DOWNLOAD_TIMEOUT", 0.2)
    for hub.fault in ("cut", "stalled"):
        assert "cannot be reached" in one_line(PLACE, UnreachableError)
        assert_nothing_half_written()
    hub.fault = ""
    torch.testing.assert_close(presets.load_checkpoint(PLACE).state_dict(), model.state_dict())


def test_a_full_disk_is_said_and_leaves_nothing(published, monkeypatch):
    def full(*_, **__):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    with monkeypatch.context() as patch:
        patch.setattr(file_download, "http_get", full)
        said = one_line(PLACE)
        assert f"cannot be kept in {constants.HF_HUB_CACHE} (No space left on device); free space there" in said
        assert_nothing_half_written()
    assert checkpoints.find(PLACE).commit == COMMIT


def test_a_file_that_is_cut_off_is_named_and_the_mend_mends(published, tmp_path):
    _, _, model = published
    weights = checkpoints.find(PLACE).folder / "model.safetensors"
    os.truncate(weights, 1000)
    said = one_line(PLACE)
    assert "no whole safetensors file" in said
    assert "delete it, and fetch or copy it again" in said
    Path(said.partition(": ")[0]).unlink()
    torch.testing.assert_close(presets.load_checkpoint(PLACE).state_dict(), model.state_dict())
    save_small(tmp_path / "own")
    os.truncate(tmp_path / "own" / "model.safetensors", 3)
    assert str(tmp_path / "own" / "model.safetensors") in one_line(tmp_path / "own")


def test_another_architecture_and_missing_weights_are_no_random_ones(tmp_path):
    save_small(tmp_path)
    with pytest.raises(DataError, match=r"its config\.json is of a bert; give a gpt2"):
        checkpoints.load(GPT2Model, tmp_path)
    with pytest.raises(DataError, match="weights of BertForSequenceClassification are missing"):
        checkpoints.load(BertForSequenceClassification, tmp_path)
    config = json.loads((tmp_path / "config.json").read_text())
    (tmp_path / "config.json").write_text(json.dumps(config | {"hidden_size": 12}))
    with pytest.raises(DataError, match="cannot be loaded"):
        presets.load_checkpoint(tmp_path)
    (tmp_path / "config.json").write_text('{"model_ty')
    with pytest.raises(DataError, match=r"config\.json: cannot be read"):
        presets.load_checkpoint(tmp_path)


def test_weights_of_16_bits_are_read_in_32(tmp_path):
    save_small(tmp_path).bfloat16().save_pretrained(tmp_path)
    assert presets.load_checkpoint(tmp_path).dtype == torch.float32


def test_the_environment_chooses_hub_and_cache(published, tmp_path):
    hub, _, _ = published
    code = f"from epigen_utils.models import checkpoints; print(checkpoints.find({PLACE!r}).folder)"
    chosen = {"HF_ENDPOINT": hub.address, "HF_HOME": str(tmp_path / "home"), "HF_HUB_DISABLE_PROGRESS_BARS": "1"}
    done = subprocess.run([sys.executable, "-c", code], env=os.environ | chosen, capture_output=True, text=True)
    assert done.stdout.startswith(str(tmp_path / "home" / "hub")), done.stderr


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"num_hidden_layers": 10**9}, "num_hidden_layers of its config.json is 1,000,000,000, and its weights have"),
        ({"hidden_size": "many"}, "cannot be loaded"),
        ({"hidden_act": "none such"}, "cannot be loaded"),
        (None, "holds a list, not a dict; fetch or copy it again"),
    ],
)
def test_a_configuration_of_no_model_is_one_line(tmp_path, changes, said):
    save_small(tmp_path)
    path = tmp_path / "config.json"
    content = [] if changes is None else json.loads(path.read_text()) | changes
    path.write_text(json.dumps(content))
    with pytest.raises(DataError, match=said) as raised:
        presets.load_checkpoint(tmp_path)
    assert "\n" not in str(raised.value)
