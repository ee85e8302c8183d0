import datasets as arrow
import numpy as np
import pytest
import torch

from epigen_utils.distillation import students, teachers
from epigen_utils.errors import DataError
from epigen_utils.geneformer import masked_genes, vocabularies
from epigen_utils.geneformer.masked_genes import MaskedGenes
from epigen_utils.models import presets, training

MEDIANS = {f"ENSG{i}": 1.0 for i in range(40)}


VOCABULARY = vocabularies.vocabulary_from_medians(MEDIANS, name="v")


def cells(n, seed=0, vocabulary=VOCABULARY):
    """Genes come in pairs, so that there is something to learn."""
    rng = np.random.default_rng(seed)
    first = min(vocabulary.gene_tokens)
    pairs = [rng.permutation(20)[: rng.integers(3, 12)] for _ in range(n)]
    ids = [(np.stack([2 * pair, 2 * pair + 1], axis=1).ravel() + first).tolist() for pair in pairs]
    return arrow.Dataset.from_dict({"input_ids": ids, "length": [len(cell) for cell in ids]}).with_format("numpy")


def tiny(seed=0, vocabulary=VOCABULARY, **changes):
    shape = {"hidden_size": 16, "intermediate_size": 32, "initializer_range": 0.1} | changes
    return presets.build(presets.preset("bert-tiny", vocab_size=vocabulary.size, **shape), "masked-lm", seed=seed)


@pytest.fixture(scope="module")
def teacher(tmp_path_factory):
    net = tiny(hidden_size=32)
    settings = training.Settings(learning_rate=1e-2, warmup_steps=5, batch_size=8, epochs=1, evaluate_every=0)
    objective = masked_genes.MaskedGeneObjective(VOCABULARY)
    folder = tmp_path_factory.mktemp("teacher")
    training.fit(
        net, cells(160), cells(20, 1), objective=objective, output_dir=folder, settings=settings, progress=False
    )
    return teachers.Teacher(net, VOCABULARY)


def test_what_is_remembered_is_what_the_teacher_says(teacher, tmp_path):
    some = cells(30)
    found = teachers.CachedStates.of(teacher, some, epochs=1.5, seed=3, folder=tmp_path)
    rows = [{"input_ids": some[i]["input_ids"], "row": i, "epoch": 1} for i in (4, 17, 2)]
    asked = teacher.states(MaskedGenes(VOCABULARY, seed=3)(rows))
    torch.testing.assert_close(found.states(rows), asked, rtol=1e-5, atol=1e-5)
    written = [path.stat().st_mtime_ns for path in sorted(tmp_path.rglob("*.npy"))]
    teachers.CachedStates.of(teacher, some, epochs=2, seed=3, folder=tmp_path)
    assert [path.stat().st_mtime_ns for path in sorted(tmp_path.rglob("*.npy"))] == written
    teachers.CachedStates.of(teacher, some, epochs=2, seed=4, folder=tmp_path)
    assert len(list(tmp_path.iterdir())) == 2


def test_a_teacher_of_another_vocabulary_is_refused_in_one_line():
    with pytest.raises(DataError, match=r"vocabulary\.json") as found:
        teachers.Teacher(tiny(), vocabularies.vocabulary_from_medians(dict(list(MEDIANS.items())[:20]), name="half"))
    assert "\n" not in str(found.value)


def test_a_student_s_teacher_lowers_what_the_cell_shows_too():
    net = tiny(visible_penalty=6.0, mask_token_id=VOCABULARY.tokens["<mask>"])
    some = cells(5)
    batch = MaskedGenes(VOCABULARY, seed=3)([{"input_ids": some[i]["input_ids"], "row": i} for i in range(5)])
    teacher = teachers.Teacher(net, VOCABULARY)
    torch.testing.assert_close(teacher.logits(teacher.states(batch), batch), net(**batch).logits)
    config = students.student_config("student-2m", net.config)
    assert (config.visible_penalty, config.mask_token_id) == (6.0, 1)


def test_entropy_is_of_what_it_predicts_at_a_temperature(teacher):
    some = cells(20)
    logits = []
    for _, batch in MaskedGenes(VOCABULARY, seed=3).batches(some, 7):
        logits.append(teacher.logits(teacher.states(batch), batch))
    found = teacher.entropies(some, (1.0, 2.5, 1e6), seed=3)
    for temperature in (1.0, 2.5):
        expected = torch.distributions.Categorical(logits=torch.cat(logits) / temperature).entropy().mean()
        assert found[temperature] == pytest.approx(float(expected), rel=1e-5)
    assert found[1e6] == pytest.approx(np.log(VOCABULARY.size), rel=1e-4)
