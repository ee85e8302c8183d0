"""Hidden states of samples and genes in GPT-2, from any layer: paper A, section III.C.

"After fine-tuning, we extracted hidden-state embeddings from the penultimate transformer layer."
"""

from dataclasses import replace

import numpy as np
import pandas as pd
from sklearn.base import clone

from epigen_utils.errors import DataError, suggest
from epigen_utils.gpt2.classifier import GPT2Classifier

#: Pooling of a sentence's hidden states: their mean, or the state of the last gene, which the classifier reads.
STATE_POOLINGS = ("mean", "last")


def check_layer(classifier: GPT2Classifier, layer: int) -> None:
    """Require that the model has the layer.

    Raises
    ------
    DataError
        If it is above 0 (the last) or below the embeddings.
    """
    n = classifier.model_.config.n_layer
    if not -n <= layer <= 0:
        raise DataError(f"layer {layer}: the model has layers 0 (last) to -{n} (embeddings)")


def sample_embeddings(
    classifier: GPT2Classifier, values: pd.DataFrame, *, layer: int = -1, pooling: str = "mean"
) -> pd.DataFrame:
    """One vector per sample: samples x width.

    Parameters
    ----------
    values
        Log2 expression, samples x genes.
    layer
        0 is the last, -1 the penultimate, and so on to the embeddings.
    pooling
        One of `STATE_POOLINGS`.

    Raises
    ------
    DataError
        If there is no such layer or pooling.
    """
    check_layer(classifier, layer)
    if pooling not in STATE_POOLINGS:
        raise DataError(f"pooling {pooling!r}: {suggest(pooling, STATE_POOLINGS)}")
    vectors = []
    for _, states in classifier.iter_hidden_states(values):
        state = states[layer - 1].float().cpu().numpy()  # (length, width)
        vectors.append(state.mean(axis=0) if pooling == "mean" else state[-1])
    return pd.DataFrame(np.array(vectors), values.index)


def gene_state_variances(classifier: GPT2Classifier, values: pd.DataFrame, *, layer: int = -1) -> pd.DataFrame:
    """Variance of each gene's states over samples, by which paper A's Table II ranks genes.

    Returns
    -------
    A row a gene, the most variable first; genes in at least two sentences:

    - ``gene``, ``samples``: name, and number of sentences with it
    - ``place``: mean relative position in the sentence, 0 first
    - ``expression``, ``variance of expression``: of its log2 ``values`` over all samples
    - ``variance of states``: summed over dimensions
    """
    check_layer(classifier, layer)
    n, width = len(classifier.encoder_.genes), classifier.model_.config.n_embd
    counts, positions, sums, squares = np.zeros(n), np.zeros(n), np.zeros((n, width)), np.zeros(n)
    for genes, states in classifier.iter_hidden_states(values):
        state = states[layer - 1].double().cpu().numpy()
        counts[genes] += 1
        positions[genes] += np.arange(len(genes)) / len(genes)
        sums[genes] += state
        squares[genes] += np.square(state).sum(axis=1)
    rows = np.flatnonzero(counts > 1)
    counts = counts[rows]
    mean = sums[rows] / counts[:, None]
    variance = (squares[rows] / counts - np.square(mean).sum(axis=1)) * counts / (counts - 1)
    names = [classifier.encoder_.genes[row] for row in rows]
    table = pd.DataFrame({"gene": names, "samples": counts.astype(int), "place": positions[rows] / counts})
    table["expression"] = values[names].mean().to_numpy()
    table["variance of expression"] = values[names].var().to_numpy()
    table["variance of states"] = np.maximum(variance, 0)
    return table.sort_values("variance of states", ascending=False, kind="stable", ignore_index=True)


def embeddings_over_training(
    classifier: GPT2Classifier,
    train: tuple[pd.DataFrame, np.ndarray],
    values: pd.DataFrame,
    *,
    epochs: list[float],
    layer: int = -1,
    pooling: str = "mean",
) -> dict[float, pd.DataFrame]:
    """Sample vectors after several lengths of fine-tuning from the same start: epochs -> samples x width.

    Each length is a separate training with its own learning-rate decay, as if training had been planned to stop there.
    """
    vectors = {}
    for n in epochs:
        variant = clone(classifier)
        if n:
            variant.set_params(settings=replace(classifier.settings, epochs=n)).fit(*train)
        else:
            variant.untrained(*train)
        vectors[n] = sample_embeddings(variant, values, layer=layer, pooling=pooling)
    return vectors
