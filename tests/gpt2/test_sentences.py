import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from transformers import GPT2Tokenizer

from epigen_utils.data import fetching
from epigen_utils.errors import DataError
from epigen_utils.gpt2 import sentences


@pytest.fixture
def values():
    rng = np.random.default_rng(0)
    counts = rng.poisson(rng.lognormal(3, 2, size=80), size=(6, 80))
    return pd.DataFrame(np.log2(counts + 1), [f"s{i}" for i in range(6)], [f"G{i}" for i in range(80)])


def test_a_sentence_by_hand():
    values = pd.DataFrame([[3.0, 0.0, 5.0, 3.0, 1.0]], ["s"], list("abcde"))
    encoder = sentences.GeneSentenceEncoder.fit(values, n_bins=2, max_length=3)
    (row,) = encoder.encode(values)
    assert row["input_ids"] == [3, 1, 4], "highest first, equal ones in the order of the vocabulary"
    assert row["bins"] == [1, 1, 1]
    assert (row["length"], row["expressed"]) == (3, 4)
    assert encoder.text(encoder.encode(values), pd.Series({"c": "SCN1A"})) == ["SCN1A a d"]


@pytest.mark.parametrize("kind", sentences.BINNINGS)
def test_bins_are_as_asked(values, kind):
    encoder = sentences.GeneSentenceEncoder.fit(values, n_bins=8, kind=kind)
    shown = values.to_numpy()[values.to_numpy() > 0]
    n = np.bincount(np.searchsorted(encoder.edges, shown, side="right"), minlength=encoder.n_bins)
    if kind == "quantile":
        assert n.max() < 2.5 * len(shown) / 8
    else:
        np.testing.assert_allclose(np.diff(encoder.edges), np.ptp(shown) / 8)
    assert (np.diff(encoder.levels) > 0).all()


def test_there_and_back_within_half_a_bin(values):
    encoder = sentences.GeneSentenceEncoder.fit(values, n_bins=20, kind="width")
    back = encoder.decode(encoder.encode(values))
    width = np.diff(encoder.edges)[0]
    assert (back - values).abs().to_numpy()[values.to_numpy() > 0].max() <= width
    assert (back.to_numpy()[values.to_numpy() == 0] == 0).all()


def test_more_bins_keep_more_and_ranks_alone_keep_the_order(values):
    kept = []
    for n_bins in (2, 5, 30):
        encoder = sentences.GeneSentenceEncoder.fit(values, n_bins=n_bins)
        kept.append(sentences.decoding_fidelity(values, encoder.decode(encoder.encode(values)))["r2"].mean())
    assert kept[0] < kept[1] < kept[2]
    ranked = sentences.decoding_fidelity(values, encoder.decode(encoder.encode(values), bins=False))
    assert ranked["spearman"].min() > 0.98
    assert ranked["r2"].mean() > 0.9


def test_fidelity_of_what_was_read_back_as_it_was(values):
    found = sentences.decoding_fidelity(values, values)
    for column, wanted in (("slope", 1), ("intercept", 0), ("r2", 1), ("pearson", 1), ("spearman", 1)):
        np.testing.assert_allclose(found[column], wanted, atol=1e-9)


def test_bins_are_of_the_values_that_a_sentence_holds(values):
    short = sentences.GeneSentenceEncoder.fit(values, n_bins=4, max_length=12)
    long = sentences.GeneSentenceEncoder.fit(values, n_bins=4)
    assert {bin_ for row in short.encode(values) for bin_ in row["bins"]} == {0, 1, 2, 3}
    assert short.edges.min() > long.edges.max()


def test_what_a_cut_sentence_lacks_is_at_its_mean_in_training(values):
    train, held = values[:4], values[4:]
    encoder = sentences.GeneSentenceEncoder.fit(train, max_length=12)
    encoded = encoder.encode(held)
    back = encoder.decode(encoded)
    for sample, row in zip(held.index, encoded, strict=True):
        absent = back.columns.difference([encoder.genes[token - 1] for token in row["input_ids"]])
        assert len(absent) == 68
        np.testing.assert_allclose(back.loc[sample, absent], train[absent].mean())
    whole = sentences.GeneSentenceEncoder.fit(train).encode(held)
    assert (encoder.decode(whole).to_numpy()[held.to_numpy() == 0] == 0).all(), "a whole sentence says what is missing"


def test_bins_know_nothing_of_samples_that_come_later(values):
    encoder = sentences.GeneSentenceEncoder.fit(values[:4])
    encoder.encode(values * 2)
    again = sentences.GeneSentenceEncoder.fit(values[:4])
    np.testing.assert_array_equal(encoder.edges, again.edges)


def test_genes_outside_the_vocabulary_are_left_out(values):
    encoder = sentences.GeneSentenceEncoder.fit(values.iloc[:, :60])
    (first, *_) = encoder.encode(values)
    assert max(first["input_ids"]) <= 60


def test_coverage_by_hand():
    values = pd.DataFrame(np.log2(np.array([[7, 1, 0, 2]]) + 1), ["s"], list("abcd"))
    found = sentences.sentence_coverage(values, np.array([1, 2, 10])).round(6)
    assert list(found["genes"]) == pytest.approx([1 / 3, 2 / 3, 1])
    assert list(found["counts"]) == pytest.approx([0.7, 0.9, 1])


def test_words_take_more_of_gpt2s_tokens_than_there_are_words():
    files = fetching.fetch("gpt2-bpe")
    tokenizer = GPT2Tokenizer(str(files["encoder"]), str(files["merges"]))
    text = " ".join(["SCN1A", "GAPDH", "KCNA1", "MT-CO1"] * 100)
    (fit,) = sentences.genes_that_fit([text], tokenizer, positions=200)
    assert 20 < fit < 100
    assert len(tokenizer.tokenize(" " + " ".join(text.split(" ")[:fit]))) <= 200


@pytest.mark.parametrize(
    ("change", "options", "said"),
    [
        (lambda v: v, {"kind": "quantle"}, "did you mean 'quantile'"),
        (lambda v: v, {"n_bins": 0}, "0 bins"),
        (lambda v: v * 0, {}, "no gene is expressed"),
        (lambda v: v.mask(v > 3), {}, "log2 expression is nan"),
        (lambda v: v - 5, {}, "must be 0 or more"),
    ],
)
def test_what_cannot_be_fitted_is_said_in_one_line(values, change, options, said):
    with pytest.raises(DataError, match=said) as found:
        sentences.GeneSentenceEncoder.fit(change(values), **options)
    assert "\n" not in str(found.value)


def test_a_sample_of_nothing_and_genes_of_another_kind_are_said_in_one_line(values):
    encoder = sentences.GeneSentenceEncoder.fit(values)
    with pytest.raises(DataError, match="sample 's2': no gene"):
        encoder.encode(values.mul([1, 1, 0, 1, 1, 1], axis=0))
    with pytest.raises(DataError, match="none of 80 genes is in the vocabulary"):
        encoder.encode(values.add_prefix("ENSG"))


@st.composite
def expression(draw):
    """Values of samples, some equal and many 0, of which each sample has one above 0."""
    shape = draw(st.tuples(st.integers(1, 4), st.integers(1, 8)))
    table = draw(arrays(np.float64, shape, elements=st.sampled_from([0, 0, 1, 1.5, 2, 3.25, 7, 11])))
    table[:, draw(st.integers(0, shape[1] - 1))] += 1
    return pd.DataFrame(table, [f"s{i}" for i in range(shape[0])], [f"g{i}" for i in range(shape[1])])


@given(
    values=expression(),
    n_bins=st.integers(1, 6),
    kind=st.sampled_from(sentences.BINNINGS),
    length=st.integers(1, 9),
    order=st.randoms(),
)
def test_any_sentence_has_the_highest_genes_and_decodes_to_their_bins(values, n_bins, kind, length, order):
    encoder = sentences.GeneSentenceEncoder.fit(values, n_bins=n_bins, kind=kind, max_length=length)
    encoded = encoder.encode(values)
    decoded = encoder.decode(encoded)
    assert (np.diff(encoder.levels) >= 0).all()
    for (sample, table), row in zip(values.iterrows(), encoded, strict=True):
        expressed = table[table > 0].sort_values(ascending=False, kind="stable")
        genes = [encoder.genes[token - 1] for token in row["input_ids"]]
        assert genes == list(expressed.index[:length]), "equal values in the order of the vocabulary"
        assert (row["length"], row["expressed"]) == (len(genes), len(expressed))
        assert row["bins"] == sorted(row["bins"], reverse=True)
        assert decoded.loc[sample, genes].tolist() == encoder.levels[row["bins"]].tolist()
        left = decoded.loc[sample].drop(genes)
        assert left.tolist() == (values.mean()[left.index].tolist() if len(expressed) > length else [0.0] * len(left))
    mixed = values.iloc[
        order.sample(range(len(values)), len(values)), order.sample(range(values.shape[1]), values.shape[1])
    ]
    again = dict(zip(mixed.index, encoder.encode(mixed)["input_ids"], strict=True))
    assert [again[sample] for sample in values.index] == encoded["input_ids"][:]
    higher = encoder.encode(values.pow(2) * 3)
    assert higher["input_ids"][:] == encoded["input_ids"][:], "ranks alone"
    longer = sentences.GeneSentenceEncoder.fit(values, max_length=length + 1).encode(values)["input_ids"]
    assert [ids[:length] for ids in longer] == encoded["input_ids"][:]
