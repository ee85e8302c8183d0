"""What paper B's own confusion matrices (Figures 6 and 7) say, with the bounds that their rounding leaves."""

from collections.abc import Iterable, Mapping

import pandas as pd

from epigen_utils.models import presets
from epigen_utils.stats import multiclass


def loader_heads(width: int) -> int:
    """Attention heads that paper B's fine-tuning repository gives a student: one for each 64 of its width.

    AnshulSaini17/Finetuning_Geneformer, src/models/distilled_loader.py, commit ccdefc0. The students were trained with
    four (kkkamur07/geneformer-distillation, configs/config.yaml).
    """
    return max(1, width // 64)


def head_counts(models: Iterable[str]) -> pd.DataFrame:
    """Heads of paper B's students: ``model``, ``width``, ``heads in training`` and ``heads in the loader``."""
    rows = []
    for name in models:
        config = presets.preset(name)
        rows.append((name, config.hidden_size, config.num_attention_heads, loader_heads(config.hidden_size)))
    return pd.DataFrame(rows, columns=["model", "width", "heads in training", "heads in the loader"])


def shared_donors(split: pd.DataFrame) -> int:
    """Donors that a published split names both among those to choose settings by (``eval:``) and to test on."""
    chosen, tested = (set(split.loc[part, "individuals"].split()) for part in ("train and eval", "test"))
    return len(chosen & tested)


def detection(shares: pd.DataFrame, sizes: pd.Series, healthy: str) -> pd.DataFrame:
    """Any disease against none: ``sensitivity``, ``specificity`` and ``precision`` of the healthy class.

    Parameters
    ----------
    shares
        Printed shares of each true class.
    sizes
        Cells of each true class.

    Returns
    -------
    Indexed by the score: ``value``, and its range over all matrices that round to the printed one: ``low``, ``high``.
    """
    value, low, high = multiclass.printed_bounds(shares)
    diseases = [name for name in shares.index if name != healthy]
    weights = sizes[diseases] / sizes[diseases].sum()
    missed = [(table.loc[diseases, healthy] * weights).sum() for table in (value, high, low)]
    scores = {"sensitivity": [1 - share for share in missed]}
    scores["specificity"] = [table.at[healthy, healthy] for table in (value, low, high)]
    by_class = multiclass.scores_from_shares(shares, sizes).set_index("score")
    scores["precision"] = by_class.loc[f"precision, {healthy}", ["value", "low", "high"]].to_list()
    return pd.DataFrame(scores, index=["value", "low", "high"]).T


def difference(first: pd.Series, second: pd.Series) -> dict[str, float]:
    """First less second, with the range that both ranges leave: ``value``, ``low``, ``high``."""
    low, high = first["low"] - second["high"], first["high"] - second["low"]
    return {"value": first["value"] - second["value"], "low": low, "high": high}


def false_calls(shares: pd.DataFrame, sizes: pd.Series, called: str) -> pd.DataFrame:
    """Of the cells wrongly called one class, the share of each true class: ``value``, and the range of rounding.

    Returns
    -------
    Indexed by the true class: ``cells`` (about), ``value``, ``low``, ``high``.
    """
    others = [name for name in shares.index if name != called]
    middle, low, high = (table.loc[others, called] * sizes[others] for table in multiclass.printed_bounds(shares))
    rows = {}
    for name in others:
        rest = [other for other in others if other != name]
        ends = [(middle, middle), (low, high), (high, low)]
        values = [own[name] / (own[name] + other[rest].sum()) for own, other in ends]
        rows[name] = {"cells": middle[name], **dict(zip(("value", "low", "high"), values, strict=True))}
    return pd.DataFrame(rows).T.rename_axis("class")


def detection_table(matrices: Mapping[str, pd.DataFrame], sizes: pd.Series, healthy: str) -> pd.DataFrame:
    """`detection` of several printed matrices, a row each, with the ranges as ``<score> low`` and ``<score> high``."""
    rows = []
    for name, shares in matrices.items():
        row = {"model": name}
        for score, ends in detection(shares, sizes, healthy).iterrows():
            row |= {score: ends["value"], f"{score} low": ends["low"], f"{score} high": ends["high"]}
        rows.append(row)
    return pd.DataFrame(rows)


def detection_gaps(teacher: pd.DataFrame, student: pd.DataFrame) -> dict[str, dict[str, float]]:
    """How far the teacher is ahead in sensitivity, and the student in specificity and precision (`difference`).

    Parameters
    ----------
    teacher, student
        Results of `detection`.
    """
    ahead = {"sensitivity": (teacher, student), "specificity": (student, teacher), "precision": (student, teacher)}
    return {name: difference(first.loc[name], second.loc[name]) for name, (first, second) in ahead.items()}


def describe_detection(teacher: pd.DataFrame, student: pd.DataFrame) -> str:
    """Sentences on the trade-off that paper B's section 5 states, and whether these matrices have it."""
    gaps = {name: gap["value"] for name, gap in detection_gaps(teacher, student).items()}
    holds = "holds" if min(gaps["sensitivity"], gaps["specificity"]) > 0 else "does not hold"
    precision = [table.at["precision", "value"] for table in (teacher, student)]
    return (
        f"The teacher's sensitivity less the student's is {gaps['sensitivity']:+.3f}, and the student's specificity "
        f"less the teacher's {gaps['specificity']:+.3f}: for disease against none, the trade-off of section 5 {holds}. "
        f"The section names the student's precision for non-failing hearts as its strength: {precision[1]:.1%} here, "
        f"against {precision[0]:.1%} for the teacher. Each number comes from one run and has no interval."
    )


def describe_imbalance(by_class: pd.DataFrame, healthy: str, rare: str, wrong: pd.DataFrame) -> str:
    """Sentences on class imbalance and on the cells that are wrongly given the rare class.

    Parameters
    ----------
    by_class
        Columns ``f1`` and ``n`` by class, as printed.
    wrong
        Result of `false_calls` for the rare class.
    """
    n, f1 = by_class["n"], by_class["f1"]
    likeliest = wrong["value"].idxmax()
    return (
        "Section 3.4.1 calls the student robust to class imbalance, as diseased samples are rare. Of these test cells "
        f"{1 - n[healthy] / n.sum():.1%} come from diseased donors. The rarest class, {rare.upper()}, has "
        f"{n[rare] / n.sum():.1%} of the cells and an F1 {f1[n.idxmax()] - f1[rare]:.3f} below that of the largest. Of "
        f"the cells wrongly called {rare.upper()}, {wrong.at[likeliest, 'value']:.1%} are {likeliest.upper()}, which "
        f"makes up {n[likeliest] / n.drop(rare).sum():.1%} of the cells of all other classes."
    )
