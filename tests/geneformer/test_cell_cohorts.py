import datasets as arrow
import numpy as np
import pytest

from epigen_utils.data import datasets, genes, registry, simulated_cells
from epigen_utils.errors import DataError
from epigen_utils.geneformer import cell_cohorts, curation, encoded_cells, encoding, vocabularies
from epigen_utils.models import batching


@pytest.fixture(scope="module")
def vocabulary():
    adata = simulated_cells.cardiomyopathy(cells_per_donor=5, n_genes=300)
    return vocabularies.vocabulary_from_medians(dict.fromkeys(adata.var_names, 1.0), name="small")


@pytest.fixture
def own(tmp_path):
    adata = simulated_cells.cardiomyopathy(cells_per_donor=5, n_genes=300)
    adata.X = adata.layers["counts"]
    adata.obs["cell_type"] = np.resize(["Cardiomyocyte1", "Fibroblast"], adata.n_obs)
    adata.varm.clear()
    path = tmp_path / "own.h5ad"
    adata.write_h5ad(path)
    return path


COLUMNS = {"label": "disease", "donor": "donor", "species": "homo_sapiens"}


def test_an_h5ad_and_its_tokens_give_the_same_cohort(own, vocabulary, tmp_path):
    whole = cell_cohorts.load_cell_cohort(str(own), vocabulary, max_length=100, **COLUMNS)
    assert whole.counts
    assert whole.levels("nf") == ["nf", "dcm", "hcm"]
    encoding.RankValueEncoder.of(vocabulary).encode_file(own, tmp_path / "tokens")
    assert encoded_cells.is_encoded_folder(tmp_path / "tokens")
    assert not encoded_cells.is_encoded_folder(own)
    tokens = cell_cohorts.load_cell_cohort(
        str(tmp_path / "tokens"), vocabulary, max_length=100, label="disease", donor="donor"
    )
    assert not tokens.counts
    assert tokens.encoded["input_ids"][:] == whole.encoded["input_ids"][:]
    assert tokens.encoded["length"][:] == whole.encoded["length"][:]
    assert (tokens.labels == whole.labels).all()
    assert (tokens.donors == whole.donors).all()


def test_cells_are_kept_by_type_and_drawn_by_seed(own, vocabulary):
    some = cell_cohorts.load_cell_cohort(
        str(own), vocabulary, keep="cell_type=Cardiomyocyte1,Cardiomyocyte2", **COLUMNS
    )
    assert set(some.adata.obs["cell_type"]) == {"Cardiomyocyte1"}
    one, two = (
        cell_cohorts.load_cell_cohort(str(own), vocabulary, max_cells=90, seed=seed, **COLUMNS) for seed in (0, 0)
    )
    assert len(one.labels) == 90
    assert list(one.adata.obs_names) == list(two.adata.obs_names)


def test_mistakes_are_one_line(own, vocabulary, tmp_path):
    with pytest.raises(DataError, match="no donor column 'patient'"):
        cell_cohorts.load_cell_cohort(str(own), vocabulary, **(COLUMNS | {"donor": "patient"}))
    with pytest.raises(DataError, match="no cell has 'cell_type=Neuron'; cell_type is one of Cardiomyocyte1"):
        cell_cohorts.load_cell_cohort(str(own), vocabulary, keep="cell_type=Neuron", **COLUMNS)
    encoding.RankValueEncoder.of(vocabulary).encode_file(own, tmp_path / "tokens")
    other = vocabularies.vocabulary_from_medians(dict.fromkeys(vocabulary.genes, 2.0), name="other")
    with pytest.raises(DataError, match="tokens are of vocabulary 'small', the model's is 'other'"):
        cell_cohorts.load_cell_cohort(str(tmp_path / "tokens"), other, label="disease", donor="donor")
    (tmp_path / "tokens" / "vocabulary.json").unlink()
    short = vocabularies.vocabulary_from_medians(dict.fromkeys(vocabulary.genes[:50], 1.0), name="short")
    with pytest.raises(DataError, match="is not in the vocabulary 'short', which has 52"):
        cell_cohorts.load_cell_cohort(str(tmp_path / "tokens"), short, label="disease", donor="donor")


@pytest.fixture(scope="module")
def corpus():
    return cell_cohorts.load_corpus("corpus-sim", max_length=64, held_out=0.2, seed=1)


def test_whole_donors_are_held_out_and_medians_do_not_know_them(corpus):
    assert not set(corpus.donors) & set(corpus.train["donor"])
    assert len(corpus.train) + len(corpus.valid) == corpus.adata.n_obs
    assert corpus.valid["cell_id"][:] == list(corpus.adata.obs_names[corpus.held_out])
    assert max(corpus.train["length"]) == 64
    expected = curation.exact_medians([corpus.adata[~corpus.held_out].copy()])
    assert corpus.vocabulary.medians == expected
    everyone = curation.exact_medians([corpus.adata])
    assert np.mean([everyone[gene] == median for gene, median in expected.items()]) < 0.5


def test_tokenised_cells_are_a_corpus_too(corpus, tmp_path):
    adata = datasets.load("corpus-sim")
    adata.X = adata.layers["counts"]
    adata.varm.clear()
    adata.uns.clear()
    adata.write_h5ad(tmp_path / "cells.h5ad")
    corpus.encoder.encode_file(tmp_path / "cells.h5ad", tmp_path / "tokens")
    options = {"max_length": 40, "held_out": 0.2, "seed": 1, "donor": "donor"}
    tokens = cell_cohorts.load_corpus(str(tmp_path / "tokens"), vocabulary=corpus.vocabulary, **options)
    assert set(tokens.donors) == set(corpus.donors)
    assert [ids[:40] for ids in corpus.valid["input_ids"]] == tokens.valid["input_ids"][:]
    assert tokens.train["length"] == [min(n, 40) for n in corpus.train["length"]]
    with pytest.raises(DataError, match="tokenised cells need the vocabulary they are of"):
        cell_cohorts.load_corpus(str(tmp_path / "tokens"), **options)


def test_all_cells_and_a_vocabulary_given(corpus):
    every = cell_cohorts.load_corpus("corpus-sim", max_length=32, held_out=0, vocabulary=corpus.vocabulary)
    assert (len(every.train), len(every.valid)) == (corpus.adata.n_obs, 0)
    assert every.vocabulary == corpus.vocabulary
    with pytest.raises(DataError, match="no donor column 'x'; name one that is there"):
        cell_cohorts.load_corpus("corpus-sim", donor="x")
    assert datasets.load("corpus-sim").n_obs == len(every.train)


def test_the_example_cell_is_of_the_corpus_or_of_another_data_set():
    corpus = cell_cohorts.load_corpus("corpus-sim", max_length=64)
    adata, ids, vocabulary = cell_cohorts.example_cell("", corpus)
    assert adata is corpus.adata
    assert vocabulary is corpus.vocabulary
    assert ids.tolist() == corpus.valid["input_ids"][0]
    adata, ids, vocabulary = cell_cohorts.example_cell("corpus-sim", corpus, max_length=64)
    assert len(ids) == 64
    assert set(ids) <= set(vocabulary.gene_tokens)


HUB_CELLS = """
corpus:
  title: t
  species: homo_sapiens
  kind: annotation
  real: true
  licence: l
  citation: c
  card: c
  files:
    cells: {hub: "someone/Corpus:cells.dataset"}
hearts:
  title: t
  species: homo_sapiens
  kind: annotation
  real: true
  licence: l
  citation: c
  card: c
  group: disease
  reference: nf
  donor: individual
  files:
    cells: {hub: "someone/Corpus:hearts.dataset"}
"""


@pytest.fixture
def on_hub(hub, cache, monkeypatch, vocabulary):
    """Cells of the hub, under names of the registry: 200 without donors, and 24 of 12 donors; as Genecorpus-30M has."""
    rng = np.random.default_rng(0)
    cells = [rng.permutation(vocabulary.gene_tokens)[:n].tolist() for n in rng.integers(3, 40, 224)]
    folder = hub.add("someone/Corpus")
    corpus = {"input_ids": cells[:200], "length": list(map(len, cells[:200]))}
    arrow.Dataset.from_dict(corpus).save_to_disk(folder / "cells.dataset")
    kinds = {"disease": ["nf", "hcm", "dcm"] * 8, "cell_type": ["Cardiomyocyte1"] * 12 + ["Fibroblast"] * 12}
    hearts = {"input_ids": cells[200:], "individual": [str(1400 + i % 12) for i in range(24)], **kinds}
    arrow.Dataset.from_dict(hearts).save_to_disk(folder / "hearts.dataset")
    monkeypatch.setattr(genes, "add_symbols", lambda adata: adata)  # which would fetch them
    known = registry.parse_registry(HUB_CELLS)
    monkeypatch.setattr(registry, "entries", lambda: known)
    return hub, corpus


def test_a_corpus_of_the_hub_is_mapped_and_split_by_cell(on_hub, vocabulary):
    hub, stored = on_hub
    loaded = cell_cohorts.load_corpus("corpus", vocabulary=vocabulary, held_out=0.05, seed=1)
    assert (len(loaded.train), len(loaded.valid)) == (190, 10)
    assert loaded.valid.cache_files, "mapped from the disk"
    for part, rows in ((loaded.train, ~loaded.held_out), (loaded.valid, loaded.held_out)):
        assert part["length"][:] == [stored["length"][row] for row in np.flatnonzero(rows)]
        assert batching.stored_lengths(part).tolist() == part["length"][:]
    assert loaded.donors.dtype.kind == "i"
    assert loaded.adata.n_obs == 10
    about = loaded.adata.uns["epigen"]
    assert (about["name"], about["nature"], about["cells"]) == ("corpus", "real", 200)
    assert about["sha256"] == {"cells": "a" * 40}
    hub.fault = 503
    again = cell_cohorts.load_corpus("corpus", vocabulary=vocabulary, held_out=0.05, seed=1)
    assert again.valid["input_ids"][:] == loaded.valid["input_ids"][:]


def test_a_part_of_the_cells_is_drawn_in_their_order(on_hub, vocabulary):
    train = cell_cohorts.load_corpus("corpus", vocabulary=vocabulary, held_out=0.05).train
    some = cell_cohorts.sample_cells(train, 20, seed=3)
    assert len(some) == 20
    assert some["input_ids"][:] == cell_cohorts.sample_cells(train, 20, seed=3)["input_ids"][:]
    assert cell_cohorts.sample_cells(train, 0) is cell_cohorts.sample_cells(train, 500) is train


def test_a_cohort_of_the_hub_has_the_registrys_columns(on_hub, vocabulary):
    cohort = cell_cohorts.load_cell_cohort("hearts", vocabulary, keep="cell_type=Cardiomyocyte1", per_donor=False)
    assert len(cohort.labels) == len(cohort.encoded) == 12
    assert cohort.levels("nf") == ["nf", "dcm", "hcm"]
    assert cohort.donors[0] == "1400"
    assert not cohort.counts
    with pytest.raises(DataError, match="corpus: no donor column 'x'; name one that is there"):
        cell_cohorts.load_corpus("corpus", vocabulary=vocabulary, donor="x")
