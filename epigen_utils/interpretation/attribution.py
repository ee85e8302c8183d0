"""Attribution of a gene-sentence classifier's decision to genes: gradients (captum), occlusion, and their agreement.

Paper A, section VI: "Domain-specific interpretability methods, such as saliency attribution or embedding trajectory
analysis, are needed". The explained quantity is the margin: the logit of the positive class minus that of the other.
"""

import itertools
from collections.abc import Callable, Sequence

import numpy as np
import pandas as pd
import torch
from captum.attr import InputXGradient, IntegratedGradients

from epigen_utils.errors import DataError, suggest
from epigen_utils.gpt2.classifier import GPT2Classifier
from epigen_utils.gpt2.objectives import collate_sentences, iter_outputs
from epigen_utils.gpt2.sentences import PAD_ID, PaddedSentences
from epigen_utils.models.batching import length_batches
from epigen_utils.stats import intervals, two_classes

#: Ways to occlude a gene: set it to its mean expression and rebuild the sentence, or delete it from the sentence.
OCCLUSIONS = ("mean", "deleted")
#: Steps of the path integral of the gradients (Gauss-Legendre).
N_STEPS = 32


def logit_margin(classifier: GPT2Classifier, logits: torch.Tensor, positive: str) -> torch.Tensor:
    """Logit of the positive class minus that of the other.

    Raises
    ------
    DataError
        If the classifier has no such class, or not two.
    """
    classes = [str(name) for name in classifier.classes_]
    if len(classes) != 2:
        raise DataError(f"classes {', '.join(classes)}: attributions are of two classes")
    if positive not in classes:
        raise DataError(f"class {positive!r}: {suggest(positive, classes)}")
    column = classes.index(positive)
    return logits[:, column] - logits[:, 1 - column]  # (samples, 2) -> (samples,)


def sample_margins(classifier: GPT2Classifier, values: pd.DataFrame, positive: str) -> np.ndarray:
    """`logit_margin` of each sample (log2 expression, samples x genes)."""
    encoded = classifier.encoder_.padded(values)
    margins = np.empty(len(encoded))
    for rows, _, output in iter_outputs(classifier.model_, encoded, classifier.scale_):
        margins[rows] = logit_margin(classifier, output.logits.float(), positive).cpu().numpy()
    return margins


def mean_embeddings(classifier: GPT2Classifier, background: pd.DataFrame) -> torch.Tensor:
    """Baseline of the attributions: mean input embedding of each gene, vocabulary x width, padding first.

    Where a position shows nothing but the gene (``rank``), a gene's own mean is as informative as the gene itself;
    there the baseline is the mean over all genes.

    Parameters
    ----------
    background
        Training samples, log2 expression, samples x genes.
    """
    config = classifier.model_.config
    with torch.no_grad():
        sums = torch.zeros(config.vocab_size, config.n_embd, device=classifier.model_.device)
        n = torch.zeros(config.vocab_size, 1, device=sums.device)
        encoded = classifier.encoder_.padded(background)
        for rows in length_batches(encoded.lengths):
            embedded, in_sentence, ids = _embedded(classifier, encoded, rows)
            ids = ids[in_sentence]
            sums.index_add_(0, ids, embedded[in_sentence])
            n.index_add_(0, ids, torch.ones(len(ids), 1, device=sums.device))
        overall = sums.sum(dim=0) / n.sum()  # (width,)
        by_gene = (n > 0) & (config.position_input != "rank")  # (vocabulary, 1)
        return torch.where(by_gene, sums / n.clamp(min=1), overall)


def _embedded(
    classifier: GPT2Classifier, encoded: PaddedSentences, rows: Sequence[int]
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Input embeddings (sentences, length, width), mask and tokens (sentences, length) of sentences."""
    batch = collate_sentences(encoded, rows, classifier.scale_, classifier.model_.device)
    return classifier.model_.input_embeddings(**batch), batch["input_ids"] != PAD_ID, batch["input_ids"]


def integrated_gradients(
    classifier: GPT2Classifier, values: pd.DataFrame, positive: str, *, background: pd.DataFrame, steps: int = N_STEPS
) -> pd.DataFrame:
    """Integrated gradients (Sundararajan et al. 2017, arXiv:1703.01365) by captum, from `mean_embeddings`.

    Parameters
    ----------
    values, background
        Samples to explain, and training samples: log2 expression, samples x genes.

    Returns
    -------
    Samples x genes, summed over dimensions; NaN where a sentence does not contain a gene. Up to the error of ``steps``,
    a sample's attributions add up to its margin minus the margin at the baseline.
    """

    def attribute(forward: Callable, inputs: torch.Tensor, baseline: torch.Tensor) -> torch.Tensor:
        options = {"n_steps": steps, "internal_batch_size": steps}
        return IntegratedGradients(forward).attribute(inputs, baselines=baseline, **options)

    return _gradient_attributions(classifier, values, positive, background, attribute)


def gradient_times_input(
    classifier: GPT2Classifier, values: pd.DataFrame, positive: str, *, background: pd.DataFrame
) -> pd.DataFrame:
    """Gradient times (input - baseline), by captum; parameters and result are those of `integrated_gradients`."""

    def attribute(forward: Callable, inputs: torch.Tensor, baseline: torch.Tensor) -> torch.Tensor:
        return InputXGradient(lambda difference: forward(baseline + difference)).attribute(inputs - baseline)

    return _gradient_attributions(classifier, values, positive, background, attribute)


def _gradient_attributions(
    classifier: GPT2Classifier,
    values: pd.DataFrame,
    positive: str,
    background: pd.DataFrame,
    attribute: Callable[[Callable, torch.Tensor, torch.Tensor], torch.Tensor],
) -> pd.DataFrame:
    classifier.model_.eval()
    means = mean_embeddings(classifier, background)
    genes = list(classifier.encoder_.genes)
    attributions = np.full((len(values), len(genes)), np.nan)
    encoded = classifier.encoder_.padded(values)
    for sample in range(len(encoded)):
        with torch.no_grad():
            inputs, mask, ids = _embedded(classifier, encoded, [sample])

        def forward(states: torch.Tensor, mask: torch.Tensor = mask) -> torch.Tensor:
            logits = classifier.model_.classified(states, mask.expand(len(states), -1)).logits
            return logit_margin(classifier, logits.float(), positive)

        baseline = means[ids]  # (1, length, width)
        scores = attribute(forward, inputs.clone().requires_grad_(True), baseline).sum(dim=-1)  # (1, length)
        attributions[sample, encoded.columns(sample)] = scores[0].detach().cpu().numpy()
    return pd.DataFrame(attributions, values.index, genes)


def occlusion(
    classifier: GPT2Classifier,
    values: pd.DataFrame,
    positive: str,
    *,
    background: pd.DataFrame,
    how: str = OCCLUSIONS[0],
) -> pd.DataFrame:
    """Exact decrease of the margin when a gene is occluded: one run of the model per sample and gene.

    Parameters
    ----------
    how
        One of `OCCLUSIONS`. Deletion also shifts all genes that follow by one position, to which a model may react more
        than to the gene; replacement by the mean expression moves the gene alone.

    Returns
    -------
    Samples x genes, positive where the gene supports the positive class; NaN where a sentence does not contain a gene.

    Raises
    ------
    DataError
        If there is no such occlusion.
    """
    if how not in OCCLUSIONS:
        raise DataError(f"occlusion {how!r}: {suggest(how, OCCLUSIONS)}")
    genes = list(classifier.encoder_.genes)
    intact = sample_margins(classifier, values, positive)
    replacements = background[genes].mean().to_numpy() if how == "mean" else np.zeros(len(genes))
    decreases = np.full((len(values), len(genes)), np.nan)
    encoded = classifier.encoder_.padded(values)
    for sample in range(len(encoded)):
        columns = encoded.columns(sample)
        occluded = np.repeat(values[genes].to_numpy()[[sample]], len(columns), axis=0)  # (occluded, genes)
        occluded[np.arange(len(columns)), columns] = replacements[columns]
        margins_without = sample_margins(classifier, pd.DataFrame(occluded, columns=genes), positive)
        decreases[sample, columns] = intact[sample] - margins_without
    return pd.DataFrame(decreases, values.index, genes)


def gene_importance(attributions: pd.DataFrame) -> pd.Series:
    """Mean absolute attribution of each gene over samples."""
    return attributions.abs().mean()


def score_correlations(scores: pd.DataFrame) -> pd.DataFrame:
    """Spearman correlations between ways to score genes (genes x ways), over genes that both score."""
    return scores.corr(method="spearman")


def stability_over_runs(scores: list[pd.Series], *, control: pd.Series | None = None) -> dict[str, float]:
    """Mean, lowest and highest Spearman correlation between runs (seeds, or folds), over the genes that both score.

    One pair has no lowest and highest: both are NaN.

    Parameters
    ----------
    control
        Another score of the genes to control for: the correlations are then partial ones.
    """
    correlations = []
    for first, second in itertools.combinations(scores, 2):
        shared = pd.concat([first, second] + ([] if control is None else [control]), axis=1).dropna()
        if len(shared) > 3:
            correlations.append(_partial_correlation(shared.corr(method="spearman").to_numpy()))
    if not correlations:
        return {"mean": np.nan, "low": np.nan, "high": np.nan, "pairs": 0}
    low, high = (min(correlations), max(correlations)) if len(correlations) > 1 else (np.nan, np.nan)
    return {"mean": float(np.mean(correlations)), "low": low, "high": high, "pairs": len(correlations)}


def stability_gain(
    trained: list[pd.Series], untrained: list[pd.Series], *, control: pd.Series
) -> tuple[float, float, float]:
    """Mean partial correlation between seeds (`stability_over_runs`) of trained models less that of untrained ones.

    Parameters
    ----------
    trained, untrained
        Scores of the genes by seed, in the same order of seeds.

    Returns
    -------
    The difference, and its 95% interval over seeds: Student's, of the jackknife's pseudo-values, each of which leaves
    out the pairs of one seed. NaN with fewer than three seeds, which leave no pair.
    """

    def gain(seeds: list[int]) -> float:
        means = [
            stability_over_runs([scores[seed] for seed in seeds], control=control)["mean"]
            for scores in (trained, untrained)
        ]
        return means[0] - means[1]

    n = len(trained)
    whole = gain(list(range(n)))
    if n < 3:
        return whole, np.nan, np.nan
    pseudo = [n * whole - (n - 1) * gain([seed for seed in range(n) if seed != left_out]) for left_out in range(n)]
    half = intervals.student_interval(np.array(pseudo))[2] - np.mean(pseudo)
    return whole, float(whole - half), float(whole + half)


def _partial_correlation(r: np.ndarray) -> float:
    """Correlation of the first two variables given the third, if any; NaN if the third determines one of them."""
    if len(r) == 2:
        return float(r[0, 1])
    if max(abs(r[0, 2]), abs(r[1, 2])) > 1 - 1e-12:
        return np.nan
    return float((r[0, 1] - r[0, 2] * r[1, 2]) / np.sqrt((1 - r[0, 2] ** 2) * (1 - r[1, 2] ** 2)))


def planted_auroc(scores: pd.DataFrame, planted: set[str]) -> pd.Series:
    """AUROC of planted genes against the others, for each way to score genes (genes x ways)."""
    is_planted = scores.index.isin(planted)
    return scores.apply(lambda column: two_classes.roc_auc(column.fillna(column.min()).to_numpy(), is_planted))
