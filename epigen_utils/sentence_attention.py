"""What GPT-2's read-out attends to, head by head and rolled out; scores of genes, with what their place explains taken out.

Paper A, section III.F: "attention scores can also be inspected to identify genes most influential in model decisions". Attention
follows place: a gene is looked at for where it stands as much as for what it is, so that both are given here.
"""

from dataclasses import dataclass, replace

import numpy as np
import pandas as pd
import torch

from epigen_utils import sentence_models, sentence_states
from epigen_utils.sentence_classes import GPT2Classifier

#: Bins of relative place within which attention is averaged, to be taken out.
BINS = 40


@dataclass(frozen=True)
class Attention:
    """Attention of a model to some samples; NaN where a sentence does not show a gene.

    Attributes
    ----------
    genes
        Of the encoder.
    places
        Samples x genes: 0 is first, towards 1 is last.
    paid
        Layers x heads x samples x genes: what the last gene, which the class is read off, pays each gene, times the length of the
        sentence: 1 is what even attention would give.
    rolled
        Samples x genes: the same through all layers (attention rollout).
    pairs
        Genes x genes: what a gene pays another one before it, over what even attention would give, mean over layers, heads, samples.
    """

    genes: list[str]
    places: np.ndarray
    paid: np.ndarray
    rolled: np.ndarray
    pairs: np.ndarray

    @property
    def mean(self) -> np.ndarray:
        """Samples x genes, mean over layers and heads."""
        return self.paid.mean(axis=(0, 1))


@torch.no_grad()
def read(classifier: GPT2Classifier, values: pd.DataFrame) -> Attention:
    """Attention of a classifier, trained or not, to the sentences of samples.

    Rollout is Abnar and Zuidema's (2020, arXiv:2005.00928): of each layer the mean over heads, half of it the residual's identity,
    multiplied from the last gene down.

    Parameters
    ----------
    values
        Log2 expression, samples x genes.
    """
    config, genes = classifier.model_.config, list(classifier.encoder_.genes)
    shape = (len(values), len(genes))
    places, rolled = np.full(shape, np.nan), np.full(shape, np.nan)
    paid = np.full((config.n_layer, config.n_head, *shape), np.nan)
    sums, n = np.zeros((len(genes), len(genes))), np.zeros((len(genes), len(genes)))
    for row, (columns, states) in enumerate(sentence_states.read(classifier, values)):
        length = len(columns)
        places[row, columns] = np.arange(length) / length
        means = []
        for layer, block in enumerate(classifier.model_.transformer.h):
            weights = sentence_models.layer_attention(block, states[layer])
            paid[layer, :, row, columns] = weights[:, -1].T.cpu().numpy() * length
            means.append(weights.mean(dim=0))
        rolled[row, columns] = _rolled(means).cpu().numpy() * length
        at = np.ix_(columns, columns)
        even = np.arange(1, length + 1)[:, None]
        sums[at] += torch.stack(means).mean(dim=0).cpu().numpy() * even
        n[at] += np.tri(length, dtype=bool)
    pairs = np.divide(sums, n, out=np.full_like(sums, np.nan), where=n > 0)
    return Attention(genes, places, paid, rolled, pairs)


def mean_of(several: list[Attention]) -> Attention:
    """Of models that differ in their seed and read the same sentences; their heads have no order, so that only means over them compare."""
    first = several[0]
    arrays = {name: np.mean([getattr(one, name) for one in several], axis=0) for name in ("paid", "rolled", "pairs")}
    return replace(first, **arrays)


def _rolled(means: list[torch.Tensor]) -> torch.Tensor:
    found = torch.zeros(len(means[0]), device=means[0].device)
    found[-1] = 1.0
    for weights in reversed(means):
        found = 0.5 * found + 0.5 * (found @ weights)
    return found


def beyond_place(scores: np.ndarray, places: np.ndarray, *, bins: int = BINS) -> np.ndarray:
    """The log of scores less its mean over all genes at the same place; what stands always at one place has nothing left.

    Parameters
    ----------
    scores
        ... x samples x genes, above 0, NaN where there is none.
    places
        Samples x genes.
    """
    shown = np.isfinite(places)
    bin_of = _bin_of(places[shown], bins)
    logs = np.log(np.maximum(scores[..., shown], 1e-12))
    n = np.maximum(np.bincount(bin_of, minlength=bins), 1)
    flat = logs.reshape(-1, logs.shape[-1])
    means = np.array([np.bincount(bin_of, row, minlength=bins) / n for row in flat])
    found = np.full(scores.shape, np.nan)
    found[..., shown] = (flat - means[:, bin_of]).reshape(logs.shape)
    return found


def _bin_of(places: np.ndarray, bins: int) -> np.ndarray:
    return np.minimum((places * bins).astype(int), bins - 1)


def by_place(scores: np.ndarray, places: np.ndarray, *, bins: int = 20) -> pd.DataFrame:
    """Mean attention along the sentence: ``place`` (middle of a bin), ``attention`` (1 is even), ``genes`` (in the bin)."""
    shown = np.isfinite(places)
    bin_of = _bin_of(places[shown], bins)
    n = np.bincount(bin_of, minlength=bins)
    mean = np.bincount(bin_of, scores[shown], minlength=bins) / np.maximum(n, 1)
    table = pd.DataFrame({"place": (np.arange(bins) + 0.5) / bins, "attention": mean, "genes": n})
    return table[table["genes"] > 0].reset_index(drop=True)


def of_genes(found: Attention) -> pd.DataFrame:
    """A row a gene that a sentence shows: ``gene``, ``samples``, ``place``, ``attention``, ``beyond place``, ``rollout``; means over samples."""
    kept = np.isfinite(found.places).any(axis=0)
    beyond = beyond_place(found.mean, found.places)
    columns = {"place": found.places, "attention": found.mean, "beyond place": beyond, "rollout": found.rolled}
    table = pd.DataFrame({"gene": np.array(found.genes)[kept], "samples": np.isfinite(found.places).sum(axis=0)[kept]})
    return table.assign(**{name: np.nanmean(values[:, kept], axis=0) for name, values in columns.items()})


def top_by_layer(found: Attention, *, n: int = 10, layers: int = 6) -> pd.DataFrame:
    """The genes that the read-out looks at most, a column for each of the last layers: names, most first."""
    kept = np.isfinite(found.places).any(axis=0)
    names = np.array(found.genes)[kept]
    mean = np.nanmean(found.paid[..., kept], axis=(1, 2))
    best = {f"layer {layer + 1}": names[np.argsort(-row, kind="stable")[:n]] for layer, row in enumerate(mean)}
    best = dict(list(best.items())[-layers:])
    return pd.DataFrame({"place": np.arange(1, min(n, len(names)) + 1), **best})


def heads(found: Attention, *, front: float = 0.1) -> pd.DataFrame:
    """What each head is like.

    Returns
    -------
    A row a head: ``layer``, ``head`` (from 1), ``width`` (exp of the entropy of its read-out, over the length: 1 looks at all alike),
    ``front`` (attention to the first ``front`` of a sentence, over what even attention would give) and ``agreement`` (mean Spearman
    correlation of its genes with the other heads').
    """
    kept = np.isfinite(found.places).any(axis=0)
    length = np.isfinite(found.places).sum(axis=1)
    first = found.places < front
    means = np.nanmean(found.paid[..., kept], axis=2)
    ranks = pd.DataFrame(means.reshape(-1, kept.sum())).T.corr(method="spearman").to_numpy()
    rows = []
    for place, (layer, head) in enumerate(np.ndindex(found.paid.shape[:2])):
        share = found.paid[layer, head] / length[:, None]
        entropy = -np.nansum(share * np.log(np.maximum(share, 1e-12)), axis=1)
        to_front = np.nansum(np.where(first, share, 0), axis=1) / (first.sum(axis=1) / length)
        others = np.delete(ranks[place], place)
        row = {"layer": layer + 1, "head": head + 1, "width": float((np.exp(entropy) / length).mean())}
        rows.append(
            row | {"front": float(to_front.mean()), "agreement": float(others.mean()) if len(others) else np.nan}
        )
    return pd.DataFrame(rows)
