import numpy as np
import pandas as pd
import pytest
import torch

from epigen_utils.gpt2 import readout_attention
from epigen_utils.gpt2.classifier import GPT2Classifier
from epigen_utils.gpt2.objectives import collate_sentences
from epigen_utils.models import attention_kernels


def samples(n=6, n_genes=20, seed=0):
    rng = np.random.default_rng(seed)
    values = pd.DataFrame(
        rng.uniform(1, 9, (n, n_genes)), [f"s{i}" for i in range(n)], [f"g{i}" for i in range(n_genes)]
    )
    return values, np.repeat(["a", "b"], n // 2)


@pytest.fixture
def untrained():
    values, y = samples()
    # One gene that only some samples express, so that sentences differ in length.
    values.iloc[::2, 3] = 0
    return GPT2Classifier().untrained(values, y), values


def eager(made, values, row):
    with attention_kernels.attention_implementation(made.model_, "eager"), torch.no_grad():
        batch = collate_sentences(made.encoder_.padded(values), [row], made.scale_)
        inputs = made.model_.input_embeddings(**batch)
        return [x[0] for x in made.model_.transformer(inputs_embeds=inputs, output_attentions=True).attentions]


def test_attention_is_the_eager_kernels(untrained):
    made, values = untrained
    found = readout_attention.compute_attention(made, values)
    for place, row in enumerate(made.encoder_.encode(values)):
        columns, layers = np.array(row["input_ids"]) - 1, eager(made, values, place)
        for layer, weights in enumerate(layers):
            expected = weights[:, -1].numpy() * len(columns)
            np.testing.assert_allclose(found.weights[layer, :, place, columns].T, expected, rtol=1e-4, atol=1e-5)
    assert np.isnan(found.weights[:, :, 0, 3]).all()
    assert np.isfinite(found.weights[:, :, 1, 3]).all()


def test_rollout_against_the_whole_product(untrained):
    made, values = untrained
    found = readout_attention.compute_attention(made, values)
    row = made.encoder_.encode(values)[0]
    whole = torch.eye(len(row["input_ids"]))
    for weights in eager(made, values, 0):
        whole = (0.5 * weights.mean(dim=0) + 0.5 * torch.eye(len(whole))) @ whole
    columns = np.array(row["input_ids"]) - 1
    np.testing.assert_allclose(found.rollout[0, columns], whole[-1] * len(whole), rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(np.nansum(found.rollout, axis=1), np.isfinite(found.positions).sum(axis=1), rtol=1e-4)


def test_pairs_are_what_the_eager_kernel_pays_over_even_attention():
    values, y = samples(n=2)
    made = GPT2Classifier().untrained(values, y)
    found = readout_attention.compute_attention(made, values.iloc[:1])
    row = made.encoder_.encode(values.iloc[:1])[0]
    columns = np.array(row["input_ids"]) - 1
    mean = torch.stack(eager(made, values, 0)).mean(dim=(0, 1)).numpy()
    expected = mean * np.arange(1, len(columns) + 1)[:, None]
    later = np.triu_indices(len(columns), 1)
    expected[later] = np.nan
    np.testing.assert_allclose(found.pairs[np.ix_(columns, columns)], expected, rtol=1e-4, atol=1e-5)
    # The first gene of a sentence sees itself alone; of all that it sees, a gene pays one on the mean.
    np.testing.assert_allclose(np.nanmean(found.pairs, axis=1), 1.0, rtol=1e-4)


def test_place_is_taken_out_where_it_is_all_there_is():
    rng = np.random.default_rng(0)
    places = np.argsort(np.argsort(rng.random((40, 100)), axis=1), axis=1) / 100
    scores = np.exp(-3 * places)
    left = readout_attention.attention_beyond_position(scores, places)
    assert np.abs(left.mean(axis=0)).max() < 0.05
    scores[:, 7] *= 4
    assert readout_attention.attention_beyond_position(scores, places).mean(axis=0).argmax() == 7
    assert readout_attention.mean_attention_by_position(np.exp(-3 * places), places)[
        "attention"
    ].is_monotonic_decreasing


def test_tables_of_genes_layers_and_heads(untrained):
    made, values = untrained
    found = readout_attention.compute_attention(made, values)
    genes = readout_attention.gene_attention(found)
    assert list(genes.columns) == ["gene", "samples", "place", "attention", "beyond place", "rollout"]
    assert genes.set_index("gene").loc["g3", "samples"] == 3
    assert list(readout_attention.top_genes_by_layer(found, n=4).columns) == ["place", "layer 1", "layer 2"]
    heads = readout_attention.head_statistics(found)
    assert len(heads) == 8
    assert heads["width"].between(0, 1).all()
    even = readout_attention.ReadoutAttention(
        found.genes, found.positions, np.where(np.isnan(found.weights), np.nan, 1.0), found.rollout, found.pairs
    )
    np.testing.assert_allclose(readout_attention.head_statistics(even)[["width", "front"]], 1.0, rtol=1e-6)


def test_the_mean_of_models(untrained):
    made, values = untrained
    found = readout_attention.compute_attention(made, values)
    other = readout_attention.ReadoutAttention(
        found.genes, found.positions, 3 * found.weights, found.rollout, found.pairs
    )
    np.testing.assert_allclose(readout_attention.mean_attention([found, other]).weights, 2 * found.weights)
