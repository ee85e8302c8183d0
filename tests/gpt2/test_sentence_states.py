import numpy as np
import pandas as pd
import pytest
import torch

from epigen_utils.errors import DataError
from epigen_utils.gpt2 import sentence_states
from epigen_utils.gpt2.classifier import GPT2Classifier
from epigen_utils.gpt2.objectives import collate_sentences


@pytest.fixture(scope="module")
def untrained():
    rng = np.random.default_rng(0)
    values = pd.DataFrame(rng.uniform(1, 9, (6, 15)), [f"s{i}" for i in range(6)], [f"g{i}" for i in range(15)])
    return GPT2Classifier().untrained(values, np.repeat(["a", "b"], 3)), values


def test_layers_are_counted_from_the_last_and_pooled_as_said(untrained):
    made, values = untrained
    encoded = made.encoder_.padded(values)
    with torch.no_grad():
        states = made.model_(**collate_sentences(encoded, [2], made.scale_), output_hidden_states=True).hidden_states
    for layer, state in ((0, states[-1]), (-1, states[-2]), (-2, states[-3])):
        mean = sentence_states.sample_embeddings(made, values, layer=layer)
        np.testing.assert_allclose(mean.iloc[2], state[0].mean(dim=0), rtol=1e-4, atol=1e-5)
        last = sentence_states.sample_embeddings(made, values, layer=layer, pooling="last")
        np.testing.assert_allclose(last.iloc[2], state[0, -1], rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(
    ("asked", "message"),
    [({"layer": 1}, r"layer 1: the model has layers 0 \(last\) to -2"), ({"pooling": "men"}, "did you mean 'mean'")],
)
def test_what_is_not_there(untrained, asked, message):
    with pytest.raises(DataError, match=message):
        sentence_states.sample_embeddings(*untrained, **asked)


def test_variance_of_a_genes_states_is_that_of_the_states(untrained):
    made, values = untrained
    table = sentence_states.gene_state_variances(made, values)
    assert table["variance of states"].is_monotonic_decreasing
    gene = table["gene"][4]
    column = list(made.encoder_.genes).index(gene)
    states = [state[-2][list(columns).index(column)].numpy() for columns, state in made.iter_hidden_states(values)]
    assert table["variance of states"][4] == pytest.approx(np.var(states, axis=0, ddof=1).sum(), rel=1e-4)
    assert table["expression"][4] == pytest.approx(values[gene].mean())


def test_training_starts_at_the_untrained_model(untrained, tmp_path):
    made, values = untrained
    classifier = GPT2Classifier(folder=tmp_path)
    path = sentence_states.embeddings_over_training(
        classifier, (values, np.repeat(["a", "b"], 3)), values, epochs=[0, 2]
    )
    np.testing.assert_allclose(path[0], sentence_states.sample_embeddings(made, values), rtol=1e-5)
    assert not np.allclose(path[2], path[0], atol=1e-3)
