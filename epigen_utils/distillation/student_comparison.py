"""Comparisons of distillation runs over seeds and schedules, and repeated evaluations of one frozen model.

Paper B, section 3.1 and the training logs of its repository.
"""

from dataclasses import replace

import datasets
import numpy as np
import pandas as pd
from transformers import PreTrainedModel

from epigen_utils.distillation.students import StudentRun
from epigen_utils.geneformer import masked_genes
from epigen_utils.geneformer.vocabularies import Vocabulary

#: Kinds of student, and whether each is trained without a teacher.
STUDENT_KINDS = {"distilled": False, "CE only": True}


def repeated_evaluations(
    model: PreTrainedModel,
    cells: datasets.Dataset,
    vocabulary: Vocabulary,
    *,
    n_draws: int,
    n_cells: int,
    seed: int = 0,
) -> pd.DataFrame:
    """Evaluate one frozen model repeatedly as paper B does: on other cells with other masks each time.

    Returns
    -------
    One row per draw: ``draw``, ``accuracy`` and ``perplexity``, means over random batches of 16.
    """
    rng = np.random.default_rng(seed)
    rows = []
    for draw in range(n_draws):
        sample = cells.select(rng.choice(len(cells), min(n_cells, len(cells)), replace=False))
        predictions = masked_genes.predict_masked_genes(model, sample, vocabulary, seed=seed + 1 + draw)
        averages = masked_genes.summarise_predictions(predictions, n_bootstrap=1, seed=seed + draw).set_index("over")
        rows.append({"draw": draw, **averages.loc["batch", ["accuracy", "perplexity"]]})
    return pd.DataFrame(rows)


def compare_by_seed(runs: list[StudentRun], metrics: pd.DataFrame) -> pd.DataFrame:
    """Compare the first student with and without its teacher, one row per seed that has both.

    Parameters
    ----------
    metrics
        ``accuracy`` and ``perplexity`` by the name of the run.

    Returns
    -------
    ``seed``; ``accuracy, distilled``, ``accuracy, CE only``, and the same for perplexity.
    """
    first = runs[0]
    comparable = [run for run in runs if run.alpha is None or replace(run, name=first.name, seed=first.seed) == first]
    rows = []
    for seed in sorted({run.seed for run in comparable}):
        names = {run.alpha is None: run.name for run in comparable if run.seed == seed}
        if len(names) == 2:
            row = {"seed": seed}
            for metric in ("accuracy", "perplexity"):
                row |= {
                    f"{metric}, {kind}": metrics.loc[names[ce_only], metric] for kind, ce_only in STUDENT_KINDS.items()
                }
            rows.append(row)
    return pd.DataFrame(rows)


def relative_range(values: pd.Series) -> float:
    """Range relative to the mean; NaN if the mean is 0."""
    mean = float(np.mean(values))
    return float(np.ptp(values) / mean) if mean else float("nan")


def loss_change_after_decay(loss: pd.Series, rate: pd.Series) -> dict[str, float]:
    """Change of a held-out loss after the learning rate has first decayed to zero (below a hundredth of its maximum).

    Parameters
    ----------
    loss, rate
        In the order of the steps.

    Returns
    -------
    ``rise`` and ``fall``: the largest increase and decrease relative to the loss at that step; 0 if there is no such
    step.
    """
    values, rates = np.asarray(loss, float), np.asarray(rate, float)
    warm = int(np.argmax(rates >= rates.max() / 2))
    low = warm + np.flatnonzero(rates[warm:] <= rates.max() / 100)
    if not len(low):
        return {"rise": 0.0, "fall": 0.0}
    later = values[low[0] :]
    return {"rise": float(later.max() - later[0]), "fall": float(later[0] - later.min())}
