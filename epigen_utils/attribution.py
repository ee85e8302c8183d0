"""Which genes a classifier of gene sentences decides by: gradients by captum, occlusion, and how far they agree with anything else.

Paper A, section VI: "Domain-specific interpretability methods, such as saliency attribution or embedding trajectory analysis, are
needed". What is explained is the logit of the positive class less that of the other.
"""

import itertools
from collections.abc import Callable

import numpy as np
import pandas as pd
import torch
from captum.attr import InputXGradient, IntegratedGradients

from epigen_utils import evaluation
from epigen_utils.errors import DataError, closest
from epigen_utils.hidden_states import batches
from epigen_utils.sentence_classes import GPT2Classifier, collated

#: What occlusion does to a gene: it gets its mean expression, and the sentence is made anew; or it is taken out of the sentence.
OCCLUSIONS = ("mean", "deleted")
#: Steps of the path that gradients are integrated along (Gauss-Legendre).
STEPS = 32


def margin(classifier: GPT2Classifier, logits: torch.Tensor, positive: str) -> torch.Tensor:
    """Logit of the positive class less that of the other.

    Raises
    ------
    DataError
        If the classifier knows no such class, or not two.
    """
    classes = [str(name) for name in classifier.classes_]
    if len(classes) != 2:
        raise DataError(f"classes {', '.join(classes)}: attributions are of two classes")
    if positive not in classes:
        raise DataError(f"class {positive!r}: {closest(positive, classes)}")
    place = classes.index(positive)
    return logits[:, place] - logits[:, 1 - place]


@torch.no_grad()
def margins(classifier: GPT2Classifier, values: pd.DataFrame, positive: str) -> np.ndarray:
    """`margin` of samples (log2 expression, samples x genes)."""
    classifier.model_.eval()
    encoded = classifier.encoder_.encode(values)
    found = np.empty(len(encoded))
    for rows in batches(np.array(encoded["length"])):
        batch = collated([encoded[int(row)] for row in rows], classifier.scale_)
        logits = classifier.model_(**{name: x.to(classifier.model_.device) for name, x in batch.items()}).logits
        found[rows] = margin(classifier, logits.float(), positive).cpu().numpy()
    return found


def averages(classifier: GPT2Classifier, background: pd.DataFrame) -> torch.Tensor:
    """What the model is shown of each gene on average, vocabulary x width, padding first: where attributions start from.

    Where a position shows a gene and nothing else (``rank``), its own average says as much as the gene: there it is that of all genes.

    Parameters
    ----------
    background
        Training samples, log2 expression.
    """
    config = classifier.model_.config
    with torch.no_grad():
        sums = torch.zeros(config.vocab_size, config.n_embd, device=classifier.model_.device)
        n = torch.zeros(config.vocab_size, 1, device=sums.device)
        for row in classifier.encoder_.encode(background):
            shown, _ = _shown(classifier, row)
            ids = torch.as_tensor(row["input_ids"], device=sums.device)
            sums.index_add_(0, ids, shown[0])
            n.index_add_(0, ids, torch.ones(len(ids), 1, device=sums.device))
        everywhere = sums.sum(dim=0) / n.sum()
        known = (n > 0) & (config.shown != "rank")
        return torch.where(known, sums / n.clamp(min=1), everywhere)


def _shown(classifier: GPT2Classifier, row: dict) -> tuple[torch.Tensor, torch.Tensor]:
    batch = {name: x.to(classifier.model_.device) for name, x in collated([row], classifier.scale_).items()}
    return classifier.model_.shown(**batch), batch["input_ids"] > 0


def integrated_gradients(
    classifier: GPT2Classifier, values: pd.DataFrame, positive: str, *, background: pd.DataFrame, steps: int = STEPS
) -> pd.DataFrame:
    """Integrated gradients (Sundararajan et al. 2017, arXiv:1703.01365) from each gene's average at its place; by captum.

    Parameters
    ----------
    values, background
        Samples to explain, and training samples: log2 expression, samples x genes.

    Returns
    -------
    Samples x genes, summed over dimensions; a sample's sum is its margin less that of its genes' averages, but for the error of
    ``steps``. NaN where a sentence does not show a gene.
    """

    def explained(forward: Callable, shown: torch.Tensor, even: torch.Tensor) -> torch.Tensor:
        return IntegratedGradients(forward).attribute(shown, baselines=even, n_steps=steps, internal_batch_size=steps)

    return _by_gradient(classifier, values, positive, background, explained)


def gradient_x_input(
    classifier: GPT2Classifier, values: pd.DataFrame, positive: str, *, background: pd.DataFrame
) -> pd.DataFrame:
    """Gradient times what is shown less the gene's average; by captum. As `integrated_gradients`, of one step."""

    def explained(forward: Callable, shown: torch.Tensor, even: torch.Tensor) -> torch.Tensor:
        return InputXGradient(lambda apart: forward(even + apart)).attribute(shown - even)

    return _by_gradient(classifier, values, positive, background, explained)


def _by_gradient(
    classifier: GPT2Classifier,
    values: pd.DataFrame,
    positive: str,
    background: pd.DataFrame,
    explained: Callable[[Callable, torch.Tensor, torch.Tensor], torch.Tensor],
) -> pd.DataFrame:
    classifier.model_.eval()
    start = averages(classifier, background)
    found = pd.DataFrame(np.nan, values.index, list(classifier.encoder_.genes))
    table = found.to_numpy(copy=True)
    for place, row in enumerate(classifier.encoder_.encode(values)):
        with torch.no_grad():
            shown, mask = _shown(classifier, row)

        def forward(states: torch.Tensor, mask: torch.Tensor = mask) -> torch.Tensor:
            logits = classifier.model_.classified(states, mask.expand(len(states), -1)).logits
            return margin(classifier, logits.float(), positive)

        even = start[torch.as_tensor(row["input_ids"], device=start.device)][None]
        given = explained(forward, shown.clone().requires_grad_(True), even)
        table[place, np.asarray(row["input_ids"]) - 1] = given.sum(dim=-1)[0].detach().cpu().numpy()
    return pd.DataFrame(table, found.index, found.columns)


def occlusion(
    classifier: GPT2Classifier,
    values: pd.DataFrame,
    positive: str,
    *,
    background: pd.DataFrame,
    how: str = OCCLUSIONS[0],
) -> pd.DataFrame:
    """How much the margin falls without what a gene says: the model is asked again for each gene, nothing is approximated.

    Parameters
    ----------
    how
        Of `OCCLUSIONS`. A gene that is taken out moves all that follow up by one place, which a model may notice more than the gene; with
        its mean expression it moves alone.

    Returns
    -------
    Samples x genes; positive where the gene speaks for the positive class. NaN where a sentence does not show a gene.

    Raises
    ------
    DataError
        If there is no such occlusion.
    """
    if how not in OCCLUSIONS:
        raise DataError(f"occlusion {how!r}: {closest(how, OCCLUSIONS)}")
    genes = list(classifier.encoder_.genes)
    whole = margins(classifier, values, positive)
    means = background[genes].mean().to_numpy() if how == "mean" else np.zeros(len(genes))
    found = np.full((len(values), len(genes)), np.nan)
    for place, row in enumerate(classifier.encoder_.encode(values)):
        columns = np.asarray(row["input_ids"]) - 1
        changed = np.repeat(values[genes].to_numpy()[[place]], len(columns), axis=0)
        changed[np.arange(len(columns)), columns] = means[columns]
        found[place, columns] = whole[place] - margins(classifier, pd.DataFrame(changed, columns=genes), positive)
    return pd.DataFrame(found, values.index, genes)


def importance(attributions: pd.DataFrame) -> pd.Series:
    """One number a gene: the mean of its absolute attributions over samples."""
    return attributions.abs().mean()


def agreement(scores: pd.DataFrame) -> pd.DataFrame:
    """Spearman correlations of ways to score genes (genes x ways), over genes that both score."""
    return scores.corr(method="spearman")


def stability(scores: list[pd.Series], *, given: pd.Series | None = None) -> dict[str, float]:
    """Mean Spearman correlation of pairs of runs (seeds, or folds) over the genes that both have, with the lowest and highest pair.

    Parameters
    ----------
    given
        Another score of the genes, which the correlations are partial to: what runs agree on and it does not say.
    """
    pairs = []
    for one, other in itertools.combinations(scores, 2):
        both = pd.concat([one, other] + ([] if given is None else [given]), axis=1).dropna()
        if len(both) > 3:
            pairs.append(_partial(both.corr(method="spearman").to_numpy()))
    if not pairs:
        return {"mean": np.nan, "low": np.nan, "high": np.nan, "pairs": 0}
    return {"mean": float(np.mean(pairs)), "low": min(pairs), "high": max(pairs), "pairs": len(pairs)}


def _partial(r: np.ndarray) -> float:
    """Correlation of the first two, given the third where there is one; NaN where that says all of one of them."""
    if len(r) == 2:
        return float(r[0, 1])
    if max(abs(r[0, 2]), abs(r[1, 2])) > 1 - 1e-12:
        return np.nan
    return float((r[0, 1] - r[0, 2] * r[1, 2]) / np.sqrt((1 - r[0, 2] ** 2) * (1 - r[1, 2] ** 2)))


def recovered(scores: pd.DataFrame, planted: set[str]) -> pd.Series:
    """AUROC of planted genes above the others, by each way to score genes (genes x ways)."""
    inside = scores.index.isin(planted)
    return scores.apply(lambda column: evaluation.auc(column.fillna(column.min()).to_numpy(), inside))
