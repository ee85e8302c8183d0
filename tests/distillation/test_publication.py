import json
import sys
from types import SimpleNamespace

import pytest

from epigen_utils import cli
from epigen_utils.distillation import export, publication
from epigen_utils.errors import DataError
from epigen_utils.geneformer import vocabularies
from epigen_utils.models import presets


@pytest.fixture
def exported(tmp_path):
    vocabulary = vocabularies.vocabulary_from_medians({f"ENSG{i:011}": 1.0 + i for i in range(20)}, name="own")
    model = presets.build(presets.preset("bert-tiny", vocab_size=vocabulary.size), "masked-lm")
    card = export.model_card("A student", {"layers": 2}, description="Small.")
    export.save_model(model, vocabulary, tmp_path / "student", card_text=card)
    (tmp_path / "student" / "optimizer.pt").write_bytes(b"a pickle")
    return tmp_path / "student"


@pytest.fixture
def push(monkeypatch, capsys):
    def call(*arguments):
        capsys.readouterr()
        monkeypatch.setattr(sys, "argv", ["epigen", "push", *map(str, arguments)])
        with pytest.raises(SystemExit) as left:
            cli.main()
        return left.value.code, *capsys.readouterr()

    return call


def test_what_would_be_uploaded_is_said_and_the_hub_is_not_asked(push, exported, hub):
    code, out, _ = push(exported, "me/student")
    assert code == 0
    lines = out.splitlines()
    assert lines[0] == f"{exported} -> {hub.address}/me/student (public, if it is new)"
    assert [line.split()[0] for line in lines[1:5]] == list(publication.FILES)
    size = (exported / "model.safetensors").stat().st_size
    assert lines[2] == f"  model.safetensors  {size:>13,} bytes"
    assert lines[5:8] == ["card: A student", "licence: mit", f"vocabulary: own, 22 tokens, {lines[7][-12:]}"]
    assert lines[8] == "not uploaded: optimizer.pt"
    assert lines[9] == "nothing is uploaded; give --yes to do so"
    assert hub.asked == []


def test_with_yes_the_four_files_are_uploaded(push, exported, hub, monkeypatch):
    calls = []

    def upload_folder(_, **options):
        calls.append(options)
        return SimpleNamespace(commit_url="https://hub/me/student/commit/1")

    monkeypatch.setattr(publication.HfApi, "create_repo", lambda _, *given, **options: calls.append((given, options)))
    monkeypatch.setattr(publication.HfApi, "upload_folder", upload_folder)
    code, out, _ = push(exported, "me/student", "--yes")
    assert code == 0
    assert out.splitlines()[-1] == "https://hub/me/student/commit/1"
    assert calls[0] == (("me/student",), {"exist_ok": True})
    assert calls[1] == {"repo_id": "me/student", "folder_path": exported, "allow_patterns": list(publication.FILES)}


@pytest.mark.parametrize(("fault", "said"), [(401, "refuses the token; log in"), (503, "answers 503; try again later")])
def test_a_hub_that_refuses_is_said_in_one_line(push, exported, hub, fault, said):
    hub.fault = fault
    code, _, err = push(exported, "me/student", "--yes")
    assert code == 1
    assert said in err
    assert err.startswith("epigen: me/student: ")
    assert err.count("\n") == 1


def test_what_is_missing_or_does_not_belong_together_is_said(exported):
    with pytest.raises(DataError, match="no hub id; give owner/name"):
        publication.plan(exported, "student")
    (exported / "README.md").write_text("# A student\n")
    with pytest.raises(DataError, match=r"README\.md: no licence; write it by export\.model_card"):
        publication.plan(exported, "me/student")
    config = json.loads((exported / "config.json").read_text())
    (exported / "config.json").write_text(json.dumps(config | {"vocab_size": 30}))
    with pytest.raises(DataError, match="22 tokens, and the model has 30"):
        publication.plan(exported, "me/student")
    for name in ("vocabulary.json", "README.md"):
        (exported / name).unlink()
    with pytest.raises(DataError, match=r"no vocabulary\.json, README\.md; write the folder by export\.save_model"):
        publication.plan(exported, "me/student")
