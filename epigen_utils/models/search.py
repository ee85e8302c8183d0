"""Hyper-parameter search by optuna's tree-structured Parzen estimator."""

from collections.abc import Callable

import optuna
import pandas as pd


def search(
    score: Callable[[optuna.Trial], dict[str, float]], *, by: str, direction: str, n_trials: int, seed: int = 0
) -> pd.DataFrame:
    """Evaluate candidates one by one, each suggested from the scores of those before it.

    Parameters
    ----------
    score
        Trial, which suggests the settings of the candidate -> metrics.
    by, direction
        Metric that is optimised; ``minimize`` or ``maximize``.

    Returns
    -------
    One row per trial, best first: the suggested settings, then the metrics.
    """
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    study = optuna.create_study(direction=direction, sampler=optuna.samplers.TPESampler(seed=seed))
    rows = []
    for _ in range(n_trials):
        trial = study.ask()
        metrics = score(trial)
        study.tell(trial, metrics[by])
        rows.append(trial.params | metrics)
    return pd.DataFrame(rows).sort_values(by, ascending=direction == "minimize", kind="stable", ignore_index=True)
