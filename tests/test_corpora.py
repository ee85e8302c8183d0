import numpy as np
import pytest

from epigen_utils import corpora, curation, datasets
from epigen_utils.errors import DataError


@pytest.fixture(scope="module")
def corpus():
    return corpora.load("corpus-sim", max_length=64, held_out=0.2, seed=1)


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
    tokens = corpora.load(str(tmp_path / "tokens"), vocabulary=corpus.vocabulary, **options)
    assert set(tokens.donors) == set(corpus.donors)
    assert [ids[:40] for ids in corpus.valid["input_ids"]] == tokens.valid["input_ids"][:]
    assert tokens.train["length"] == [min(n, 40) for n in corpus.train["length"]]
    with pytest.raises(DataError, match="tokenised cells need the vocabulary they are of"):
        corpora.load(str(tmp_path / "tokens"), **options)


def test_all_cells_and_a_vocabulary_given(corpus):
    every = corpora.load("corpus-sim", max_length=32, held_out=0, vocabulary=corpus.vocabulary)
    assert (len(every.train), len(every.valid)) == (corpus.adata.n_obs, 0)
    assert every.vocabulary == corpus.vocabulary
    with pytest.raises(DataError, match="no donor column 'x'; name one that is there"):
        corpora.load("corpus-sim", donor="x")
    assert datasets.load("corpus-sim").n_obs == len(every.train)
