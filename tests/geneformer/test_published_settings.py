import json

import pytest
import torch

from epigen_utils import paths
from epigen_utils.data import fetching
from epigen_utils.errors import DataError
from epigen_utils.geneformer import masked_genes, published_settings, vocabularies
from epigen_utils.models import presets

PUBLISHED, STATED = paths.DATA / "geneformer_settings.csv", paths.DATA / "paper_b_architecture.csv"


def test_settings_are_those_of_the_published_configuration(mirror):
    settings = published_settings.read_settings(PUBLISHED)
    config = json.loads(fetching.fetch("geneformer-published")["config"].read_text())
    for name, key in published_settings.CONFIG_KEYS.items():
        assert settings[name] == config[key]


def test_parameters_are_counted_from_the_published_sizes():
    settings = published_settings.read_settings(PUBLISHED)
    assert published_settings.count_parameters(settings) == 10_288_722
    assert published_settings.count_parameters(settings | {"layers": 1.0}) < 10_288_722


def test_masking_here_is_the_published_one():
    settings = published_settings.read_settings(PUBLISHED)
    shares = masked_genes.MASKED_SHARE, masked_genes.MASK_TOKEN_SHARE, masked_genes.RANDOM_GENE_SHARE
    assert shares == tuple(settings[name] for name in ("masked share", "mask token share", "random gene share"))


def test_the_paper_agrees_with_the_files_on_what_it_states():
    table = published_settings.compare_settings(STATED, PUBLISHED)
    stated = table[table["paper B"] != ""]
    assert len(stated) == 11
    for row in stated.itertuples(index=False):
        assert row[1].lower() == row.published or float(row[1]) == float(row.published)
    here = table[table["preset"] != ""]
    assert set(here["setting"]) == set(published_settings.CONFIG_KEYS)
    for row in here.itertuples():
        assert row.preset == row.published or float(row.preset) == float(row.published)


def test_the_paper_contradicts_itself_on_the_feed_forward_width():
    """Section 1.4 has 512 and 256; section 2.3 takes four times the width for typical."""
    stated = published_settings.read_settings(STATED)
    assert stated["feed-forward width"] / stated["width"] == pytest.approx(2)
    assert stated["feed-forward width over width"] == 4


def save_small(folder, n_tokens, head="masked-lm"):
    shape = {"hidden_size": 8, "num_hidden_layers": 1, "intermediate_size": 8, "max_position_embeddings": 16}
    model = presets.build(presets.preset("bert-tiny", vocab_size=n_tokens, **shape), head)
    model.save_pretrained(folder)
    return model


def test_published_weights_come_with_the_official_vocabulary_of_their_size(hub, tmp_path):
    model = save_small(hub.add("someone/Geneformer") / "V1-small", 25_426)
    loaded, vocabulary, checkpoint = published_settings.load_pretrained("someone/Geneformer:V1-small")
    torch.testing.assert_close(loaded.state_dict(), model.state_dict())
    assert (vocabulary.name, vocabulary.size, checkpoint.commit) == ("v1", 25_426, "a" * 40)
    assert presets.preset_of(checkpoint.folder) == ""
    save_small(tmp_path, 20_275, "cell-class")
    loaded, vocabulary, _ = published_settings.load_pretrained(tmp_path, head="cell-class")
    assert (type(loaded).__name__, vocabulary.name, vocabulary.size) == ("BertForSequenceClassification", "v2", 20_275)


def test_a_model_of_ours_comes_with_its_own_vocabulary(hub, tmp_path):
    own = vocabularies.vocabulary_from_medians({f"ENSG{i:011}": 1.0 + i for i in range(20)}, name="own")
    save_small(tmp_path / "teacher" / "model", own.size)
    with pytest.raises(DataError, match=r"a model of 22 tokens, and no vocabulary\.json beside it"):
        published_settings.load_pretrained(tmp_path / "teacher")
    vocabularies.save_vocabulary(own, tmp_path / "teacher" / "vocabulary.json")
    for place in (tmp_path / "teacher", tmp_path / "teacher" / "model"):
        assert published_settings.load_pretrained(place)[1] == own
    exported = hub.add("me/student")
    save_small(exported, own.size)
    vocabularies.save_vocabulary(own, exported / "vocabulary.json")
    assert published_settings.load_pretrained("me/student")[1] == own


def test_the_vocabulary_of_another_model_is_refused(tmp_path):
    own = vocabularies.vocabulary_from_medians({f"ENSG{i:011}": 1.0 + i for i in range(20)}, name="own")
    save_small(tmp_path, 30)
    vocabularies.save_vocabulary(own, tmp_path / "vocabulary.json")
    with pytest.raises(DataError, match=r"vocabulary\.json: 22 tokens, and the model has 30; give"):
        published_settings.load_pretrained(tmp_path)


@pytest.mark.parametrize(("name", "version"), [("checkpoint_v1_small", "v1"), ("checkpoint_v2_small", "v2")])
def test_official_checkpoints_have_their_vocabularies(mirror, name, version):
    folder = mirror / "reference" / "geneformer_official" / name
    assert published_settings.load_pretrained(folder)[1].name == version
