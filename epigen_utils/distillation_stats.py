"""What runs of distillation say together: over seeds, over schedules, and of one frozen model that is measured again.

Paper B, section 3.1 and the training logs of its repository.
"""

from dataclasses import replace

import numpy as np
import pandas as pd
from scipy import stats
from transformers import PreTrainedModel

from epigen_utils import masked_genes
from epigen_utils.distillation import Run
from epigen_utils.vocabularies import Vocabulary

#: Names of a student with a teacher and without, and whether it is without.
KINDS = {"distilled": False, "CE only": True}


def drift(
    model: PreTrainedModel,
    cells: object,
    vocabulary: Vocabulary,
    *,
    n_draws: int,
    n_cells: int,
    seed: int = 0,
) -> pd.DataFrame:
    """One frozen model measured again and again as paper B's evaluation does it: other cells and other masks each time.

    Returns
    -------
    A row a draw: ``accuracy`` and ``perplexity``, means over random batches of 16.
    """
    rng = np.random.default_rng(seed)
    rows = []
    for draw in range(n_draws):
        some = cells.select(rng.choice(len(cells), min(n_cells, len(cells)), replace=False))
        found = masked_genes.predict(model, some, vocabulary, seed=seed + 1 + draw)
        over = masked_genes.summary(found, n_bootstrap=1, seed=seed + draw).set_index("over").loc["batch"]
        rows.append({"draw": draw, "accuracy": over["accuracy"], "perplexity": over["perplexity"]})
    return pd.DataFrame(rows)


def by_seed(runs: list[Run], metrics: pd.DataFrame) -> pd.DataFrame:
    """The first student with its teacher and without, a row a seed that has both.

    Parameters
    ----------
    metrics
        ``accuracy`` and ``perplexity`` by the name of the run.

    Returns
    -------
    ``seed``; ``accuracy, distilled``, ``accuracy, CE only``, and so for perplexity.
    """
    first = runs[0]
    same = [run for run in runs if run.alpha is None or replace(run, name=first.name, seed=first.seed) == first]
    rows = []
    for seed in sorted({run.seed for run in same}):
        names = {run.alpha is None: run.name for run in same if run.seed == seed}
        if len(names) == 2:
            row = {"seed": seed}
            for what in ("accuracy", "perplexity"):
                row |= {f"{what}, {kind}": metrics.loc[names[alone], what] for kind, alone in KINDS.items()}
            rows.append(row)
    return pd.DataFrame(rows)


def mean_over_seeds(values: pd.Series) -> tuple[float, float, float]:
    """Mean over seeds with its 95% interval by t; of one seed without."""
    mean, n = float(np.mean(values)), len(values)
    half = stats.t.ppf(0.975, n - 1) * np.std(values, ddof=1) / np.sqrt(n) if n > 1 else np.nan
    return mean, mean - half, mean + half


def spread(values: pd.Series) -> float:
    """From the lowest to the highest, over the mean; NaN where that is 0."""
    mean = float(np.mean(values))
    return float(np.ptp(values) / mean) if mean else float("nan")


def after_zero(loss: pd.Series, rate: pd.Series) -> dict[str, float]:
    """What a held-out loss does after the learning rate has first come down to (a hundredth of its highest) zero.

    Parameters
    ----------
    loss, rate
        In the order of the steps.

    Returns
    -------
    ``rise`` and ``fall``: how far it goes above and below where it was then, both 0 where nothing changes any more.
    """
    values, rates = np.asarray(loss, float), np.asarray(rate, float)
    warm = int(np.argmax(rates >= rates.max() / 2))
    low = warm + np.flatnonzero(rates[warm:] <= rates.max() / 100)
    if not len(low):
        return {"rise": 0.0, "fall": 0.0}
    later = values[low[0] :]
    return {"rise": float(later.max() - later[0]), "fall": float(later[0] - later.min())}
