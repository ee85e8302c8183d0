import numpy as np

from epigen_utils.data import simulated_cells


def test_a_corpus_has_the_lengths_of_genecorpus_and_a_network_that_shows():
    corpus = simulated_cells.cell_corpus(n_cells=1500, seed=4)
    counts = corpus.layers["counts"]
    detected = np.diff(counts.indptr)
    np.testing.assert_allclose(np.quantile(detected, [0.25, 0.5, 0.75]), [74, 234, 897], rtol=0.2)
    assert 0.03 < (detected > 2048).mean() < 0.12
    assert detected.min() >= 7
    assert corpus.var_names.str.startswith("ENSG").all()
    assert corpus.var["regulator"].sum() == 60
    assert not (corpus.var["regulator"] & corpus.var["housekeeping"]).any()
    assert corpus.obs.groupby("donor")["disease"].nunique().eq(1).all()
    deep = corpus[detected > 800]
    values = np.log1p(deep.layers["counts"].toarray() / deep.layers["counts"].sum(axis=1) * 1e4)
    values = np.asarray(values)
    regulon = corpus.varm["regulon"]
    place = {gene: i for i, gene in enumerate(corpus.var_names)}
    linked, free = [], []
    values += np.random.default_rng(0).normal(
        0, 1e-9, values.shape
    )  # genes that no deep cell shows have no correlation
    values = (values - values.mean(axis=0)) / values.std(axis=0)
    for regulator in regulon.columns[:20]:
        r = values.T @ values[:, place[regulator]] / len(values)
        linked.append(np.nanmean(r[(regulon[regulator] > 0).to_numpy()]))
        free.append(np.nanmean(r[(regulon[regulator] == 0).to_numpy()]))
    assert np.mean(linked) > np.mean(free) + 0.1
    again = simulated_cells.cell_corpus(n_cells=1500, seed=4)
    assert (again.layers["counts"] != counts).nnz == 0


def test_ranked_cells_follow_their_rates():
    """The first gene of a cell, by count, is drawn in proportion to the rates of its state."""
    cells = simulated_cells.plackett_luce_cells(n_cells=6000, n_genes=30, n_types=1, n_programs=1, seed=1)
    assert cells.varm["log_rates"].shape == (30, 2)
    assert (np.diff(cells.layers["counts"].indptr) == 30).all()
    first = cells.layers["counts"].toarray().argmax(axis=1)
    for programs, column in (("0", 0), ("1", 1)):
        rows = (cells.obs["programs"] == programs).to_numpy()
        share = np.exp(cells.varm["log_rates"].iloc[:, column])
        expected = (share / share.sum()).to_numpy()
        found = np.bincount(first[rows], minlength=30) / rows.sum()
        assert np.abs(found - expected).max() < 4 * np.sqrt(expected.max() / rows.sum())
    again = simulated_cells.plackett_luce_cells(n_cells=6000, n_genes=30, n_types=1, n_programs=1, seed=1)
    assert (again.layers["counts"] != cells.layers["counts"]).nnz == 0
