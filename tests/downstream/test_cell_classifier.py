import datasets
import numpy as np
import pytest
import torch

from epigen_utils.data import simulated_cells
from epigen_utils.downstream import cell_classifier
from epigen_utils.errors import DataError
from epigen_utils.geneformer import cell_cohorts, vocabularies
from epigen_utils.models import presets, training
from epigen_utils.models.batching import pad
from epigen_utils.stats import folds

SETTINGS = training.Settings(
    learning_rate=3e-3, warmup_steps=2, epochs=4, weight_decay=0.0, batch_size=8, grouped=False
)


@pytest.fixture(scope="module")
def vocabulary():
    return vocabularies.vocabulary_from_medians({f"ENSG{i:03d}": 1.0 for i in range(60)}, name="small")


@pytest.fixture(scope="module")
def told_by_the_first_gene():
    """Cells of six donors whose class is their first gene's."""
    rng = np.random.default_rng(0)
    y = np.repeat(["ill", "well"], 48)
    cells = [np.concatenate([[2 + (label == "ill")], 10 + rng.permutation(40)[:12]]) for label in y]
    encoded = datasets.Dataset.from_dict({"input_ids": cells, "length": [len(cell) for cell in cells]})
    return encoded, y, np.resize(list("abc"), 96) + np.where(y == "ill", "x", "y")


@pytest.fixture
def estimator(vocabulary, told_by_the_first_gene, tmp_path):
    config = presets.preset("bert-tiny", vocab_size=vocabulary.size, max_position_embeddings=32)
    start = presets.build(config, "masked-lm")
    return cell_classifier.CellClassifier(told_by_the_first_gene[0], vocabulary, start, tmp_path, settings=SETTINGS)


def test_what_the_first_gene_tells_is_learned_and_shuffled_labels_are_not(estimator, told_by_the_first_gene):
    _, y, donors = told_by_the_first_gene
    predictions, table = folds.cross_validate(estimator, np.arange(96), y, donors, n_splits=2, n_permutations=1, seed=1)
    assert table["macro_f1"][0] > 0.95
    assert table["macro_f1"][1] < 0.8
    assert (predictions["row"] == np.arange(96)).all()
    np.testing.assert_allclose(predictions[["p_ill", "p_well"]].sum(axis=1), 1, atol=1e-5)


def test_no_donor_is_in_its_own_training(told_by_the_first_gene):
    _, y, donors = told_by_the_first_gene
    seen = np.zeros(96, int)
    for train, test in folds.donor_folds(y, donors, n_splits=3, seed=0):
        assert not set(donors[train]) & set(donors[test])
        assert set(y[train]) == {"ill", "well"}
        seen[test] += 1
    assert (seen == 1).all()


def test_a_finished_fit_is_read_again_and_other_labels_are_not(estimator, told_by_the_first_gene):
    _, y, _ = told_by_the_first_gene
    rows = np.arange(0, 96, 2)
    first = estimator.fit(rows, y[rows]).predict_proba(rows)
    again = estimator.__sklearn_clone__().fit(rows, y[rows]).predict_proba(rows)
    np.testing.assert_array_equal(first, again)
    other = estimator.__sklearn_clone__().fit(rows, y[rows][::-1]).predict_proba(rows)
    assert np.abs(first - other).max() > 0.1
    for change in ({"layers_frozen": 1}, {"start": presets.build(estimator.start.config, "masked-lm", seed=9)}):
        changed = estimator.__sklearn_clone__().set_params(**change).fit(rows, y[rows]).predict_proba(rows)
        assert np.abs(first - changed).max() > 1e-4


def test_probabilities_are_those_of_the_model_alone(vocabulary, told_by_the_first_gene):
    config = presets.preset("bert-tiny", vocab_size=vocabulary.size, max_position_embeddings=32)
    net = presets.with_head(presets.build(config, "masked-lm"), "cell-class", ["a", "b", "c"]).eval()
    cells = {"input_ids": [np.arange(2, 9), np.arange(2, 30), np.arange(5, 8)]}
    found = cell_classifier.class_probabilities(net, cells, vocabulary)
    with torch.no_grad():
        alone = [torch.softmax(net(pad([cell], 0)).logits, dim=-1)[0] for cell in cells["input_ids"]]
    np.testing.assert_allclose(found, torch.stack(alone).numpy(), atol=1e-5)


def test_a_head_keeps_the_body_and_frozen_layers_stay(vocabulary):
    config = presets.preset("bert-tiny", vocab_size=vocabulary.size, max_position_embeddings=32)
    body = presets.build(config, "masked-lm", seed=5)
    net = presets.freeze_layers(presets.with_head(body, "cell-class", ["a", "b"]), 1)
    torch.testing.assert_close(
        net.bert.encoder.layer[1].output.dense.weight, body.bert.encoder.layer[1].output.dense.weight
    )
    assert not any(weight.requires_grad for weight in net.bert.encoder.layer[0].parameters())
    assert all(weight.requires_grad for weight in net.bert.encoder.layer[1].parameters())
    assert net.bert.embeddings.word_embeddings.weight.requires_grad
    with pytest.raises(ValueError, match="the model has 2"):
        presets.freeze_layers(net, 3)


def test_published_settings_keep_the_share_of_the_warm_up():
    settings = cell_classifier.published_settings(93_600)
    assert settings.warmup_steps == pytest.approx(1812, abs=1)
    assert cell_classifier.published_settings(936).warmup_steps == 18
    assert (settings.learning_rate, settings.batch_size, settings.schedule) == (8.04e-4, 12, "polynomial")


def test_settings_are_chosen_inside_the_training_cells(estimator, told_by_the_first_gene):
    encoded, y, donors = told_by_the_first_gene
    rows = np.flatnonzero(~np.isin(donors, ["cx", "cy"]))
    touched = []
    encoded_select = encoded.select
    estimator.encoded = type(
        "Watched", (), {"select": lambda self, some: touched.extend(some) or encoded_select(some)}
    )()
    settings, layers, trials = cell_classifier.tune_settings(
        estimator, rows, y[rows], donors[rows], n_trials=2, epochs=(0.5, 1.0), n_splits=2
    )
    assert set(touched) <= set(rows)
    assert len(trials) == 2
    assert trials["macro_f1"].is_monotonic_decreasing
    assert 0.5 <= settings.epochs <= 1
    assert layers in (0, 1)


def test_settings_are_chosen_on_the_donors_that_are_named(estimator, told_by_the_first_gene, monkeypatch):
    _, y, donors = told_by_the_first_gene
    rows = np.flatnonzero(~np.isin(donors, ["cx", "cy"]))
    held_out, asked = np.isin(donors[rows], [donors[rows][y[rows] == name][0] for name in set(y)]), []
    monkeypatch.setattr(cell_classifier.CellClassifier, "fit", lambda self, some, labels: asked.append(some) or self)
    monkeypatch.setattr(
        cell_classifier.CellClassifier,
        "predict_proba",
        lambda self, some: asked.append(some) or np.ones((len(some), len(set(y)))),
    )
    options = {"n_trials": 1, "epochs": (0.5, 1.0), "held_out": held_out}
    cell_classifier.tune_settings(estimator, rows, y[rows], donors[rows], **options)
    assert [some.tolist() for some in asked] == [rows[~held_out].tolist(), rows[held_out].tolist()]


def test_mistakes_are_one_line():
    with pytest.raises(DataError, match="class 'rare': has one donor, 'd4'"):
        folds.check_donors(["a", "a", "rare", "b", "b"], ["d1", "d2", "d4", "d3", "d5"], per_donor=True)
    with pytest.raises(DataError, match="donor 'd2': has cells of 'a' and 'b'"):
        folds.check_donors(["a", "a", "b", "b"], ["d1", "d2", "d2", "d3"], per_donor=True)
    folds.check_donors(["a", "a", "b", "b"], ["d1", "d2", "d2", "d3"], per_donor=False)
    with pytest.raises(DataError, match="all cells are 'a'"):
        folds.check_donors(["a", "a"], ["d1", "d2"], per_donor=True)
    with pytest.raises(DataError, match="test donor '9'"):
        cell_cohorts.test_cell_mask(np.array(["1", "2"]), [9])


def test_the_simulated_disease_is_in_the_world_of_the_corpus():
    adata = simulated_cells.cardiomyopathy(cells_per_donor=5, n_genes=400, network_seed=2)
    corpus = simulated_cells.cell_corpus(n_cells=20, n_genes=400, seed=2)
    assert (adata.var_names == corpus.var_names).all()
    assert (adata.varm["regulon"] == corpus.varm["regulon"]).all().all()
    planted = adata.varm["disease"]
    assert (planted[~adata.var["regulator"].to_numpy()] == 0).all().all()
    assert ((planted != 0).sum() == 16).all()
    assert ((planted > 0).sum() == 8).all()
    donors = adata.obs.drop_duplicates("donor")["disease"].value_counts()
    assert donors.to_dict() == {"hcm": 22, "nf": 10, "dcm": 7}
