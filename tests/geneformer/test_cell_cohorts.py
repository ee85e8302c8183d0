import json

import numpy as np
import pytest

from epigen_utils import cohorts, encoding, simulate, tokenised, vocabularies
from epigen_utils.errors import DataError


@pytest.fixture(scope="module")
def vocabulary():
    adata = simulate.cardiomyopathy(cells_per_donor=5, n_genes=300)
    return vocabularies.of_medians(dict.fromkeys(adata.var_names, 1.0), name="small")


@pytest.fixture
def own(tmp_path):
    adata = simulate.cardiomyopathy(cells_per_donor=5, n_genes=300)
    adata.X = adata.layers["counts"]
    adata.obs["cell_type"] = np.resize(["Cardiomyocyte1", "Fibroblast"], adata.n_obs)
    adata.varm.clear()
    path = tmp_path / "own.h5ad"
    adata.write_h5ad(path)
    return path


COLUMNS = {"label": "disease", "donor": "donor", "species": "homo_sapiens"}


def test_an_h5ad_and_its_tokens_give_the_same_cohort(own, vocabulary, tmp_path):
    whole = cohorts.load(str(own), vocabulary, max_length=100, **COLUMNS)
    assert whole.counts
    assert whole.levels("nf") == ["nf", "dcm", "hcm"]
    encoding.RankValueEncoder.of(vocabulary).encode_file(own, tmp_path / "tokens")
    assert tokenised.there(tmp_path / "tokens")
    assert not tokenised.there(own)
    tokens = cohorts.load(str(tmp_path / "tokens"), vocabulary, max_length=100, label="disease", donor="donor")
    assert not tokens.counts
    assert tokens.encoded["input_ids"][:] == whole.encoded["input_ids"][:]
    assert tokens.encoded["length"][:] == whole.encoded["length"][:]
    assert (tokens.labels == whole.labels).all()
    assert (tokens.donors == whole.donors).all()


def test_cells_are_kept_by_type_and_drawn_by_seed(own, vocabulary):
    some = cohorts.load(str(own), vocabulary, keep="cell_type=Cardiomyocyte1,Cardiomyocyte2", **COLUMNS)
    assert set(some.adata.obs["cell_type"]) == {"Cardiomyocyte1"}
    one, two = (cohorts.load(str(own), vocabulary, max_cells=90, seed=seed, **COLUMNS) for seed in (0, 0))
    assert len(one.labels) == 90
    assert list(one.adata.obs_names) == list(two.adata.obs_names)


def test_mistakes_are_one_line(own, vocabulary, tmp_path):
    with pytest.raises(DataError, match="no donor column 'patient'"):
        cohorts.load(str(own), vocabulary, **(COLUMNS | {"donor": "patient"}))
    with pytest.raises(DataError, match="no cell has 'cell_type=Neuron'; cell_type is one of Cardiomyocyte1"):
        cohorts.load(str(own), vocabulary, keep="cell_type=Neuron", **COLUMNS)
    encoding.RankValueEncoder.of(vocabulary).encode_file(own, tmp_path / "tokens")
    other = vocabularies.of_medians(dict.fromkeys(vocabulary.genes, 2.0), name="other")
    with pytest.raises(DataError, match="tokens are of vocabulary 'small', the model's is 'other'"):
        cohorts.load(str(tmp_path / "tokens"), other, label="disease", donor="donor")
    (tmp_path / "tokens" / "vocabulary.json").unlink()
    short = vocabularies.of_medians(dict.fromkeys(vocabulary.genes[:50], 1.0), name="short")
    with pytest.raises(DataError, match="is not in the vocabulary 'short', which has 52"):
        cohorts.load(str(tmp_path / "tokens"), short, label="disease", donor="donor")


def test_facts_are_kept_beside_a_model(tmp_path):
    cohorts.note(tmp_path, test_donors=["a"], classes=["x", "y"])
    assert cohorts.noted(tmp_path)["test_donors"] == ["a"]
    assert json.loads((tmp_path / "cohort.json").read_text())["classes"] == ["x", "y"]
    with pytest.raises(DataError, match="no cohort.json"):
        cohorts.noted(tmp_path / "none")
