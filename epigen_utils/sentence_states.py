"""What GPT-2 makes of samples and genes: hidden states of any layer. Paper A, section III.C.

"After fine-tuning, we extracted hidden-state embeddings from the penultimate transformer layer."
"""

from collections.abc import Iterator
from dataclasses import replace

import numpy as np
import pandas as pd
import torch
from sklearn.base import clone

from epigen_utils.errors import DataError, closest
from epigen_utils.sentence_classes import GPT2Classifier, collated

#: How the states of a sentence's genes become one vector: their mean, or the last gene's, which the class is read off.
POOLINGS = ("mean", "last")


@torch.no_grad()
def read(classifier: GPT2Classifier, values: pd.DataFrame) -> Iterator[tuple[np.ndarray, tuple[torch.Tensor, ...]]]:
    """Sentences one by one: the genes' columns in the encoder, and the states of all layers, each length x width.

    The first state is the input of the first layer, the last one the normed output of the last (`GeneSentenceModel.forward`).
    """
    classifier.model_.eval()
    for row in classifier.encoder_.encode(values):
        batch = {name: x.to(classifier.model_.device) for name, x in collated([row], classifier.scale_).items()}
        states = classifier.model_(**batch, output_hidden_states=True).hidden_states
        yield np.asarray(row["input_ids"]) - 1, tuple(state[0] for state in states)


def check_layer(classifier: GPT2Classifier, layer: int) -> None:
    """Refuse a layer that a model does not have.

    Raises
    ------
    DataError
        If it is above 0 (the last) or below the embeddings.
    """
    n = classifier.model_.config.n_layer
    if not -n <= layer <= 0:
        raise DataError(f"layer {layer}: the model has layers 0 (last) to -{n} (embeddings)")


def of_samples(
    classifier: GPT2Classifier, values: pd.DataFrame, *, layer: int = -1, pooling: str = "mean"
) -> pd.DataFrame:
    """A vector a sample, samples x width.

    Parameters
    ----------
    values
        Log2 expression, samples x genes.
    layer
        0 is the last, -1 the penultimate, and so on to the embeddings.
    pooling
        Of `POOLINGS`.

    Raises
    ------
    DataError
        If there is no such layer or pooling.
    """
    check_layer(classifier, layer)
    if pooling not in POOLINGS:
        raise DataError(f"pooling {pooling!r}: {closest(pooling, POOLINGS)}")
    found = []
    for _, states in read(classifier, values):
        state = states[layer - 1].float().cpu().numpy()
        found.append(state.mean(axis=0) if pooling == "mean" else state[-1])
    return pd.DataFrame(np.array(found), values.index)


def of_genes(classifier: GPT2Classifier, values: pd.DataFrame, *, layer: int = -1) -> pd.DataFrame:
    """How much the states of each gene vary over samples: what paper A's Table II says it is ranked by.

    Returns
    -------
    A row a gene that a sentence shows, the most variable first: ``gene``, ``samples``, ``place`` (mean relative place in the sentence,
    0 first), ``expression`` (mean log2 of ``values``), ``variance of expression`` and ``variance of states`` (summed over dimensions).
    """
    check_layer(classifier, layer)
    n, width = len(classifier.encoder_.genes), classifier.model_.config.n_embd
    seen, places, sums, squares = np.zeros(n), np.zeros(n), np.zeros((n, width)), np.zeros(n)
    for genes, states in read(classifier, values):
        state = states[layer - 1].double().cpu().numpy()
        seen[genes] += 1
        places[genes] += np.arange(len(genes)) / len(genes)
        sums[genes] += state
        squares[genes] += np.square(state).sum(axis=1)
    kept = np.flatnonzero(seen > 1)
    mean = sums[kept] / seen[kept, None]
    variance = (squares[kept] / seen[kept] - np.square(mean).sum(axis=1)) * seen[kept] / (seen[kept] - 1)
    names = [classifier.encoder_.genes[gene] for gene in kept]
    table = pd.DataFrame({"gene": names, "samples": seen[kept].astype(int), "place": places[kept] / seen[kept]})
    table["expression"] = values[names].mean().to_numpy()
    table["variance of expression"] = values[names].var().to_numpy()
    table["variance of states"] = np.maximum(variance, 0)
    return table.sort_values("variance of states", ascending=False, kind="stable", ignore_index=True)


def over_training(
    classifier: GPT2Classifier,
    train: tuple[pd.DataFrame, np.ndarray],
    values: pd.DataFrame,
    *,
    epochs: list[float],
    layer: int = -1,
    pooling: str = "mean",
) -> dict[float, pd.DataFrame]:
    """Where samples lie after so many epochs of fine-tuning from the same start: epochs -> samples x width.

    Each length is a training of its own, with its own fall of the learning rate, as a reader who stops there would have run it.
    """
    found = {}
    for n in epochs:
        made = clone(classifier)
        if n:
            made.set_params(settings=replace(classifier.settings, epochs=n)).fit(*train)
        else:
            made.untrained(*train)
        found[n] = of_samples(made, values, layer=layer, pooling=pooling)
    return found
