import numpy as np
import pytest
import torch

from epigen_utils.distillation import export
from epigen_utils.errors import DataError
from epigen_utils.geneformer import vocabularies
from epigen_utils.models import presets

VOCABULARY = vocabularies.vocabulary_from_medians({f"ENSG{i}": 1.0 for i in range(300)}, name="v")


def cells():
    rng = np.random.default_rng(0)
    return [rng.permutation(300)[:n] + 2 for n in (5, 61, 30)]


@pytest.mark.parametrize("head", ["masked-lm", "cell-class"])
def test_exported_models_give_the_same_answers(tmp_path, head):
    config = presets.preset("student-2m", vocab_size=VOCABULARY.size, initializer_range=0.3)
    model = presets.build(config, head, seed=3)
    full, small = export.write_onnx(model, tmp_path)
    found = export.export_agreement(model, full, cells(), VOCABULARY)
    assert found["largest"] < 1e-4
    assert found["same"] == 1
    eight = export.export_agreement(model, small, cells(), VOCABULARY)
    assert eight["largest"] < 1
    # A processor without 8-bit dot products saturates its sums, and a dozen cells are few.
    assert eight["same"] > 0.6
    assert eight["megabytes"] < 0.5 * found["megabytes"]
    assert not list(tmp_path.glob(".*"))


def test_a_saved_model_is_loaded_again_with_its_card(tmp_path):
    model = presets.build(presets.preset("student-2m", vocab_size=VOCABULARY.size), "masked-lm")
    text = export.model_card("student", {"accuracy": "0.2"}, description="A student.")
    for _ in range(2):
        export.save_model(model, VOCABULARY, tmp_path / "student", card_text=text)
    again = presets.load_checkpoint(str(tmp_path / "student"))
    weights = zip(model.parameters(), again.parameters(), strict=True)
    assert all(torch.equal(one, other) for one, other in weights)
    assert vocabularies.load_vocabulary(tmp_path / "student" / "vocabulary.json").sha256 == VOCABULARY.sha256
    assert "| accuracy | 0.2 |" in (tmp_path / "student" / "README.md").read_text()
    assert (tmp_path / "student" / "model.safetensors").exists()
    assert [path.name for path in tmp_path.iterdir()] == ["student"]


def test_a_file_that_is_not_there_is_said_in_one_line(tmp_path):
    with pytest.raises(DataError, match=r"model\.onnx"):
        export.OnnxModel(tmp_path / "model.onnx")
