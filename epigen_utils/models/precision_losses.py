"""Held-out loss by precision of training, at equal steps, at equal seconds and at equal loss."""

import numpy as np
import pandas as pd


def equal_steps_and_seconds(curves: pd.DataFrame, reference: str = "fp32") -> pd.DataFrame:
    """Each precision beside a reference, at equal steps, at equal seconds and at equal loss.

    Parameters
    ----------
    curves
        `recorded_speeds.loss_curves`.

    Returns
    -------
    A row a precision: ``seconds`` of the whole training; ``loss`` after it; ``equal steps``, the loss beyond
    that of the reference with the same seed, with ``low`` and ``high`` over seeds; ``equal seconds``, the
    same once the fastest has finished; ``converged``, the share of seeds whose loss is finite and ends below its start;
    ``times, steps``, the reference's seconds over these for the same steps; and ``times, loss``, the same until both
    have reached the higher of their two last losses.
    """
    runs = {key: run.sort_values("step") for key, run in curves.groupby(["precision", "seed"], sort=False)}
    names = list(dict.fromkeys(name for name, _ in runs))
    if reference not in names:
        return pd.DataFrame(columns=["precision", "seconds", "loss"])
    shortest = min(run["seconds"].iloc[-1] for run in runs.values())
    rows = []
    for name in names:
        pairs = [
            (run, runs[reference, seed]) for (of, seed), run in runs.items() if of == name and (reference, seed) in runs
        ]
        more = [run["loss"].iloc[-1] - theirs["loss"].iloc[-1] for run, theirs in pairs]
        then = [_loss_at(run, shortest) - _loss_at(theirs, shortest) for run, theirs in pairs]
        faster = [theirs["seconds"].iloc[-1] / run["seconds"].iloc[-1] for run, theirs in pairs]
        lasts = [max(run["loss"].iloc[-1], theirs["loss"].iloc[-1]) for run, theirs in pairs]
        sooner = [
            _seconds_to(theirs, last) / _seconds_to(run, last) for (run, theirs), last in zip(pairs, lasts, strict=True)
        ]
        row = {"precision": name, "seconds": np.median([run["seconds"].iloc[-1] for run, _ in pairs])}
        row |= {"loss": np.median([run["loss"].iloc[-1] for run, _ in pairs])}
        row |= {"equal steps": np.median(more), "low": min(more), "high": max(more)}
        ended = [np.isfinite(run["loss"]).all() and run["loss"].iloc[-1] < run["loss"].iloc[0] for run, _ in pairs]
        row |= {
            "equal seconds": np.median(then),
            "converged": np.mean(ended),
            "times, steps": np.median(faster),
        }
        rows.append(row | {"times, loss": np.median(sooner)})
    return pd.DataFrame(rows)


def _loss_at(run: pd.DataFrame, seconds: float) -> float:
    return float(np.interp(seconds, run["seconds"], run["loss"]))


def _seconds_to(run: pd.DataFrame, loss: float) -> float:
    """Seconds until the loss is first reached, between two points by a line; NaN if it is from the start."""
    reached = np.flatnonzero(run["loss"].to_numpy() <= loss)
    if not reached[0]:
        return np.nan
    before, after = run.iloc[reached[0] - 1], run.iloc[reached[0]]
    share = (before["loss"] - loss) / (before["loss"] - after["loss"])
    return float(before["seconds"] + share * (after["seconds"] - before["seconds"]))
