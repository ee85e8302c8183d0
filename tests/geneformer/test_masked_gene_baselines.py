import itertools

import datasets as arrow
import numpy as np
import pandas as pd
import pytest

from epigen_utils.data import simulated_cells
from epigen_utils.geneformer import curation, encoding, masked_gene_baselines, masked_genes, vocabularies

VOCABULARY = vocabularies.vocabulary_from_medians({f"ENSG{i}": 1.0 for i in range(60)}, name="v")


def test_rivals_by_hand():
    train = {"input_ids": [[2, 3, 4], [2, 3, 5], [2, 6, 3]]}
    counts = masked_gene_baselines.UnigramBaseline(train, VOCABULARY).counts[0]
    assert counts[[0, 1]].tolist() == [0, 0], "no special token is ever guessed"
    assert counts[[2, 3, 4, 61]].tolist() == [4, 4, 2, 1]
    rng = np.random.default_rng(0)
    valid = {"input_ids": [np.r_[2, 3, rng.permutation(50)[:30] + 7] for _ in range(40)]}
    found = masked_gene_baselines.UnigramBaseline(train, VOCABULARY).predict(valid, VOCABULARY, seed=0)
    two = found[found["token"] == 2]
    assert two["nll"].unique() == pytest.approx([-np.log(4 / counts.sum())])
    assert two["correct"].all()
    unseen = masked_gene_baselines.UnigramBaseline(train, VOCABULARY, without_seen=True).predict(
        valid, VOCABULARY, seed=0
    )
    assert (unseen["nll"] < found["nll"]).all(), "what the cell shows is ruled out"
    assert list(unseen["token"]) == list(found["token"])


def test_by_rank_knows_where_genes_stand():
    train = {"input_ids": [np.r_[np.arange(2, 32), np.arange(32, 62)]] * 20}
    found = masked_gene_baselines.UnigramBaseline(train, VOCABULARY, by_rank=True).predict(train, VOCABULARY, seed=0)
    plain = masked_gene_baselines.UnigramBaseline(train, VOCABULARY).predict(train, VOCABULARY, seed=0)
    assert found["nll"].mean() < plain["nll"].mean()


def test_the_copy_rule_answers_what_a_position_shows():
    """The strongest baseline without a model: right wherever a gene stays, in doubt by Bayes' rule."""
    rng = np.random.default_rng(0)
    train = {"input_ids": [rng.permutation(60)[:30] + 2 for _ in range(300)]}
    valid = {"input_ids": [rng.permutation(60)[:30] + 2 for _ in range(300)]}
    options = {"by_rank": True, "without_seen": True}
    plain, copied = (
        masked_gene_baselines.UnigramBaseline(train, VOCABULARY, **options, copy=copy).predict(
            valid, VOCABULARY, seed=0
        )
        for copy in (False, True)
    )
    tables = masked_genes.accuracy_by_kind({"plain": plain, "copied": copied}, n_bootstrap=10)
    accuracy = tables.pivot(index="kind", columns="model", values="accuracy")
    assert accuracy.loc["unchanged", "copied"] == 1
    assert accuracy.loc["hidden", "copied"] == accuracy.loc["hidden", "plain"]
    assert accuracy.loc["all", "copied"] > accuracy.loc["all", "plain"] + 0.08
    # A gene that the cell shows elsewhere was put there, and is not copied: half of the random ones, at this length.
    assert 0 < accuracy.loc["replaced", "copied"] < 0.1
    hidden = plain["kind"] == "hidden"
    np.testing.assert_allclose(copied.loc[hidden, "nll"], plain.loc[hidden, "nll"])
    assert copied["nll"].mean() < plain["nll"].mean()


def test_the_copy_rule_by_hand():
    """Sixty genes, of which the first is three times as frequent: its odds of having stayed are three to one."""
    probability = np.full((2, 62), 0.0)
    probability[:, 2:] = 1 / 62
    probability[:, 2] = 3 / 62
    shown = np.array([2, VOCABULARY.tokens[vocabularies.MASK]])
    before = probability.copy()
    masked_gene_baselines.UnigramBaseline._copy_shown(probability, shown, VOCABULARY)
    left = (3 / 62) / (3 / 62 + 1 / 60)
    assert probability[0, 2] == pytest.approx(left + (1 - left) * 3 / 62)
    assert probability[0, 3] == pytest.approx((1 - left) / 62)
    np.testing.assert_array_equal(probability[1], before[1])
    np.testing.assert_allclose(probability.sum(axis=1), 1)


def test_neighbours_bound_the_median_of_a_gene():
    """Cells of genes with a count of one each, which stand in the order of their medians."""
    medians = {f"ENSG{i:02}": 1.0 + i for i in range(60)}
    vocabulary = vocabularies.vocabulary_from_medians(medians, name="v")
    rng = np.random.default_rng(0)
    ids = [(np.sort(rng.permutation(60)[:30]) + 2).tolist() for _ in range(300)]
    cells = arrow.Dataset.from_dict({"input_ids": ids, "length": [30] * 300}).with_format("numpy")
    baseline = masked_gene_baselines.NeighbourBaseline(cells, vocabulary)
    found = baseline.predict(cells.select(range(100)), vocabulary, seed=1)
    rest = masked_gene_baselines.UnigramBaseline(cells, vocabulary, without_seen=True)
    unordered = rest.predict(cells.select(range(100)), vocabulary, seed=1)
    assert found[["cell", "rank", "token", "shown"]].equals(unordered[["cell", "rank", "token", "shown"]])
    # Half of the genes stand in a cell: few lie between two neighbours, and thirty are left without the order.
    assert found["nll"].mean() < 1.3 < 3.2 < unordered["nll"].mean()
    assert found["correct"].mean() > 8 * unordered["correct"].mean()


def test_neighbours_of_other_counts_leave_both_sides():
    """The count falls between the neighbours, so that the gene has a median above the first or below the second."""
    vocabulary = vocabularies.vocabulary_from_medians({f"ENSG{i}": float(i + 1) for i in range(6)}, name="v")
    ids = np.array([2 + 3, 2 + 4, 2 + 1, 2 + 2])  # medians 4, 5 | 2, 3
    cells = arrow.Dataset.from_dict({"input_ids": [ids.tolist()], "length": [4]}).with_format("numpy")
    baseline = masked_gene_baselines.NeighbourBaseline(cells, vocabulary)
    candidates, (in_order, _) = baseline._candidates(ids, np.array([False, True, False, False]))
    assert np.flatnonzero(candidates[0]).tolist() == [2 + 0, 2 + 4, 2 + 5]
    assert in_order.tolist() == [0]
    candidates, (in_order, _) = baseline._candidates(ids, np.array([True, False, False, False]))
    assert np.flatnonzero(candidates[0]).tolist() == [2 + 0, 2 + 3], "before the first shown gene there is no bound"
    assert in_order.tolist() == [1]


def test_the_oracle_equals_a_count_over_all_cells():
    """Six genes in three states: the probability of every cell is a product, and Bayes' rule a sum over all cells."""
    rng = np.random.default_rng(3)
    names, length = [f"ENSG{i}" for i in range(6)], 4
    vocabulary = vocabularies.vocabulary_from_medians(dict(zip(names, rng.uniform(0.5, 2, 6), strict=True)), name="v")
    log_rates = pd.DataFrame(rng.normal(0, 1.5, (6, 3)), names, ["a", "b", "c"])
    prior = np.array([0.5, 0.3, 0.2])
    rates = np.exp(log_rates.loc[list(vocabulary.genes)]).to_numpy()
    rates /= np.array([vocabulary.medians[gene] for gene in vocabulary.genes])[:, None]

    def probability(cell):
        left, likelihood = rates.sum(axis=0), prior.copy()
        for gene in cell:
            likelihood, left = likelihood * rates[gene] / left, left - rates[gene]
        return likelihood.sum()

    cells = {cell: probability(cell) for cell in itertools.permutations(range(6), length)}
    assert sum(cells.values()) == pytest.approx(1)
    oracle = masked_gene_baselines.OracleBaseline(log_rates, prior, vocabulary)
    for cell in itertools.islice(cells, 0, None, 7):
        ids = vocabulary.gene_tokens[list(cell)]
        for place in range(length):
            selected = np.arange(length) == place
            found = oracle._probabilities(ids, ids, selected, vocabulary)[0]
            options = {gene: cells.get((*cell[:place], gene, *cell[place + 1 :]), 0.0) for gene in range(6)}
            expected = np.array(list(options.values())) / sum(options.values())
            np.testing.assert_allclose(found[vocabulary.gene_tokens], expected, atol=1e-12)


@pytest.fixture(scope="module")
def stream():
    adata = simulated_cells.plackett_luce_cells(n_cells=3000, n_genes=120, n_types=4, n_programs=1, seed=2)
    vocabulary = vocabularies.vocabulary_from_medians(curation.exact_medians([adata]), name="stream")
    encoded = encoding.RankValueEncoder.of(vocabulary, max_length=24).encode(adata)
    return adata, vocabulary, encoded.select(range(2400)), encoded.select(range(2400, 3000))


def test_the_oracle_of_simulated_cells_knows_what_it_does_not_know(stream):
    """The two ways to compute the ceiling: the loss on cells that were drawn, and the entropy that is stated."""
    adata, vocabulary, _, valid = stream
    oracle = masked_gene_baselines.OracleBaseline(adata.varm["log_rates"], adata.uns["state_probability"], vocabulary)
    entropies, inner = [], oracle._probabilities

    def watched(*arguments):
        found = inner(*arguments)
        entropies.append(-np.sum(found[found > 0] * np.log(found[found > 0])))
        return found

    oracle._probabilities = watched
    found = oracle.predict(valid, vocabulary, seed=0, single=True)
    difference = found["nll"] - entropies
    assert abs(difference.mean()) < 3 * difference.std() / np.sqrt(len(found))
    assert (found["kind"] == "hidden").all()
    assert len(found) == len(valid)


def test_models_stand_between_the_unigram_and_the_oracle(stream):
    adata, vocabulary, train, valid = stream
    predictions = masked_gene_baselines.predict_single_genes({}, train, valid, adata, vocabulary, seed=0)
    donors = adata.obs["donor"].to_numpy()[2400:]
    table = masked_gene_baselines.way_to_ceiling(predictions, donors=donors).set_index("model")
    assert table.loc["unigram", "share"] == 0
    assert table.loc["oracle", "share"] == 1
    row = table.loc["naive Bayes"]
    assert 0.3 < row["share low"] < row["share"] < row["share high"] < 1
    assert row["nll"] == pytest.approx(predictions["naive Bayes"]["nll"].mean())
    assert table["accuracy"].is_monotonic_increasing == (list(table.index) == ["unigram", "naive Bayes", "oracle"])
    assert table.loc["oracle", "accuracy"] > row["accuracy"] > table.loc["unigram", "accuracy"]
    few = masked_gene_baselines.way_to_ceiling(predictions, donors=donors == donors[0])
    assert few["share low"].isna().all(), "two units have no interval"
