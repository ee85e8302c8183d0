"""Read-out attention of GPT-2 by head and by rollout, and gene scores corrected for position.

Paper A, section III.F: "attention scores can also be inspected to identify genes most influential in model decisions".
Attention depends on a gene's position as well as on its identity, so both scores are reported.
"""

from dataclasses import dataclass, replace

import numpy as np
import pandas as pd
import torch

from epigen_utils.gpt2 import sentence_model, sentences
from epigen_utils.gpt2.classifier import GPT2Classifier

#: Bins of relative position within which mean attention is subtracted.
N_POSITION_BINS = 40


@dataclass(frozen=True)
class ReadoutAttention:
    """Attention of a model in sentences of samples; NaN for genes that are not in a sentence.

    Attributes
    ----------
    genes
        Of the encoder.
    positions
        Relative positions, samples x genes: 0 is first, towards 1 is last.
    weights
        Attention of the last gene, which the classifier reads, to each gene, times the length of the sentence (1 is
        uniform attention): layers x heads x samples x genes.
    rollout
        The same through all layers (attention rollout), samples x genes.
    pairs
        Attention of a gene to each earlier gene, relative to uniform attention, mean over layers, heads and samples:
        genes x genes.
    """

    genes: list[str]
    positions: np.ndarray
    weights: np.ndarray
    rollout: np.ndarray
    pairs: np.ndarray

    @property
    def mean(self) -> np.ndarray:
        """Samples x genes, mean over layers and heads."""
        return self.weights.mean(axis=(0, 1))


@torch.no_grad()
def compute_attention(classifier: GPT2Classifier, values: pd.DataFrame) -> ReadoutAttention:
    """Attention of a classifier, trained or not, in the sentences of samples.

    Rollout is that of Abnar and Zuidema (2020, arXiv:2005.00928): in each layer, the mean over heads averaged with the
    identity of the residual connection; multiplied over layers from the last gene.

    Parameters
    ----------
    values
        Log2 expression, samples x genes.
    """
    config, genes = classifier.model_.config, list(classifier.encoder_.genes)
    shape = (len(values), len(genes))
    positions, rollout = np.full(shape, np.nan), np.full(shape, np.nan)
    weights = np.full((config.n_layer, config.n_head, *shape), np.nan)
    sums, n = np.zeros((len(genes), len(genes))), np.zeros((len(genes), len(genes)))
    for row, (columns, states) in enumerate(classifier.iter_hidden_states(values)):
        length = len(columns)
        positions[row, columns] = np.arange(length) / length
        means = []
        for layer, block in enumerate(classifier.model_.transformer.h):
            causal = sentence_model.layer_attention(block, states[layer])  # (heads, queries, keys)
            weights[layer, :, row, columns] = causal[:, -1].T.cpu().numpy() * length
            means.append(causal.mean(dim=0))
        rollout[row, columns] = _rollout(means).cpu().numpy() * length
        pair = np.ix_(columns, columns)
        n_keys = np.arange(1, length + 1)[:, None]
        sums[pair] += torch.stack(means).mean(dim=0).cpu().numpy() * n_keys
        n[pair] += np.tri(length, dtype=bool)
    pairs = np.divide(sums, n, out=np.full_like(sums, np.nan), where=n > 0)
    return ReadoutAttention(genes, positions, weights, rollout, pairs)


def mean_attention(attentions: list[ReadoutAttention]) -> ReadoutAttention:
    """Mean attention of models of different seeds on the same sentences; only means over heads are comparable."""
    fields = ("weights", "rollout", "pairs")
    arrays = {field: np.mean([getattr(attention, field) for attention in attentions], axis=0) for field in fields}
    return replace(attentions[0], **arrays)


def _rollout(means: list[torch.Tensor]) -> torch.Tensor:
    rollout = torch.zeros(len(means[0]), device=means[0].device)  # (length,)
    rollout[-1] = 1.0
    for weights in reversed(means):
        rollout = 0.5 * rollout + 0.5 * (rollout @ weights)
    return rollout


def attention_beyond_position(scores: np.ndarray, positions: np.ndarray, *, bins: int = N_POSITION_BINS) -> np.ndarray:
    """Log scores less their mean over all genes at the same position; a gene with a constant position has nothing left.

    Parameters
    ----------
    scores
        Positive, ... x samples x genes, NaN where a gene is not in the sentence.
    positions
        Relative positions, samples x genes.
    """
    in_sentence = np.isfinite(positions)
    entries = positions[in_sentence]
    bin_of = sentences.position_bins(entries, bins)
    logs = np.log(np.maximum(scores[..., in_sentence], 1e-12))
    flat = logs.reshape(-1, logs.shape[-1])  # (layers x heads, entries)
    means = np.array([sentences.mean_by_position(row, entries, bins)[0] for row in flat])  # (layers x heads, bins)
    residuals = np.full(scores.shape, np.nan)
    residuals[..., in_sentence] = (flat - means[:, bin_of]).reshape(logs.shape)
    return residuals


def mean_attention_by_position(scores: np.ndarray, positions: np.ndarray, *, bins: int = 20) -> pd.DataFrame:
    """Mean attention along the sentence: ``place`` (middle of a bin), ``attention`` (1 is uniform), ``genes``."""
    in_sentence = np.isfinite(positions)
    mean, n = sentences.mean_by_position(scores[in_sentence], positions[in_sentence], bins)
    table = pd.DataFrame({"place": (np.arange(bins) + 0.5) / bins, "attention": mean, "genes": n})
    return table[table["genes"] > 0].reset_index(drop=True)


def gene_attention(attention: ReadoutAttention) -> pd.DataFrame:
    """Mean attention scores of genes over samples.

    Returns
    -------
    A row a gene that is in a sentence: ``gene``, ``samples``, ``place``, ``attention``, ``beyond place``, ``rollout``.
    """
    in_sentence = np.isfinite(attention.positions)
    genes = in_sentence.any(axis=0)
    scores = {"place": attention.positions, "attention": attention.mean}
    scores["beyond place"] = attention_beyond_position(attention.mean, attention.positions)
    scores["rollout"] = attention.rollout
    table = pd.DataFrame({"gene": np.array(attention.genes)[genes], "samples": in_sentence.sum(axis=0)[genes]})
    return table.assign(**{name: np.nanmean(score[:, genes], axis=0) for name, score in scores.items()})


def top_genes_by_layer(attention: ReadoutAttention, *, n: int = 10, layers: int = 6) -> pd.DataFrame:
    """Genes with the highest read-out attention, in descending order: one column for each of the last layers."""
    genes = np.isfinite(attention.positions).any(axis=0)
    names = np.array(attention.genes)[genes]
    means = np.nanmean(attention.weights[..., genes], axis=(1, 2))  # (layers, genes)
    top = {f"layer {layer + 1}": names[np.argsort(-row, kind="stable")[:n]] for layer, row in enumerate(means)}
    top = dict(list(top.items())[-layers:])
    return pd.DataFrame({"place": np.arange(1, min(n, len(names)) + 1), **top})


def head_statistics(attention: ReadoutAttention, *, front: float = 0.1) -> pd.DataFrame:
    """Width, position and agreement of each attention head.

    Returns
    -------
    A row a head:

    - ``layer``, ``head``: from 1
    - ``width``: exponential of the entropy of its read-out attention, over the length: 1 is uniform attention
    - ``front``: attention to the first ``front`` of a sentence, relative to uniform attention
    - ``agreement``: mean Spearman correlation of its gene scores with those of the other heads
    """
    in_sentence = np.isfinite(attention.positions)
    genes, length = in_sentence.any(axis=0), in_sentence.sum(axis=1)
    in_front = attention.positions < front
    means = np.nanmean(attention.weights[..., genes], axis=2)  # (layers, heads, genes)
    correlations = pd.DataFrame(means.reshape(-1, genes.sum())).T.corr(method="spearman").to_numpy()
    rows = []
    for i, (layer, head) in enumerate(np.ndindex(attention.weights.shape[:2])):
        share = attention.weights[layer, head] / length[:, None]  # (samples, genes)
        entropy = -np.nansum(share * np.log(np.maximum(share, 1e-12)), axis=1)
        front_share = np.nansum(np.where(in_front, share, 0), axis=1) / (in_front.sum(axis=1) / length)
        others = np.delete(correlations[i], i)
        row = {"layer": layer + 1, "head": head + 1, "width": float((np.exp(entropy) / length).mean())}
        row |= {"front": float(front_share.mean()), "agreement": float(others.mean()) if len(others) else np.nan}
        rows.append(row)
    return pd.DataFrame(rows)
