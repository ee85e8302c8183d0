"""Comparisons of distillation runs over seeds and schedules, and repeated evaluations of one frozen model.

Paper B, section 3.1 and the training logs of its repository.
"""

import itertools
from collections.abc import Iterable
from dataclasses import replace

import datasets
import numpy as np
import pandas as pd
from transformers import PreTrainedModel

from epigen_utils.distillation.students import StudentRun
from epigen_utils.geneformer import masked_genes
from epigen_utils.geneformer.vocabularies import Vocabulary
from epigen_utils.stats import intervals

#: Kinds of student: with a teacher, and by the cross entropy alone.
STUDENT_KINDS = ("distilled", "CE only")


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


def seed_pairs(runs: list[StudentRun], student: str = "") -> dict[int, dict[str, str]]:
    """Names of a student's runs with and without a teacher (`STUDENT_KINDS`), by each seed that has both.

    Parameters
    ----------
    student
        By default the first.
    """
    first, pairs = runs[0], {}
    for run in runs:
        alike = replace(first, name=run.name, student=run.student, seed=run.seed)
        if run.student == (student or first.student) and (run.alpha is None or run == alike):
            pairs.setdefault(run.seed, {})["CE only" if run.alpha is None else "distilled"] = run.name
    return {seed: pairs[seed] for seed in sorted(pairs) if len(pairs[seed]) == len(STUDENT_KINDS)}


def teacher_gains(
    runs: list[StudentRun], predictions: dict[str, pd.DataFrame], *, donors: object, seed: int = 0
) -> pd.DataFrame:
    """What a teacher adds to each student: the run with a teacher less the one without, of each seed.

    Parameters
    ----------
    predictions
        Of each run, by name, on the same masked genes.
    donors
        Donor of each cell, by position.

    Returns
    -------
    ``student``, ``seed``; ``accuracy`` and ``perplexity``, with less than nothing where the teacher does harm, each
    with ``low`` and ``high`` (95% paired bootstrap over donors; NaN where these are few), and ``units``.
    """
    rows = []
    for student in dict.fromkeys(run.student for run in runs):
        for run_seed, names in seed_pairs(runs, student).items():
            pair = (predictions[names[kind]] for kind in STUDENT_KINDS)
            differences = masked_genes.metric_differences(*pair, donors=donors, seed=seed)
            rows.append({"student": student, "seed": run_seed} | differences)
    return pd.DataFrame(rows)


def ways_over_seeds(runs: list[StudentRun], ways: pd.DataFrame) -> pd.DataFrame:
    """Shares of the way to the ceiling, means over seeds, of each student with and without a teacher, and the gain.

    Parameters
    ----------
    ways
        `masked_gene_baselines.way_to_ceiling`, with each run as a ``model``.

    Returns
    -------
    ``student``; ``kind``: of `STUDENT_KINDS`, or ``gain``, the first less the second of each seed; ``n`` seeds;
    ``share`` and ``accuracy``, each with ``low`` and ``high`` (Student's 95% interval; NaN with one seed).
    """
    scores, rows = ways.set_index("model")[["share", "accuracy"]], []
    for student in dict.fromkeys(run.student for run in runs):
        pairs = list(seed_pairs(runs, student).values())
        values = {kind: scores.loc[[pair[kind] for pair in pairs]].to_numpy() for kind in STUDENT_KINDS}
        values["gain"] = values["distilled"] - values["CE only"]
        for kind, table in values.items():
            row = {"student": student, "kind": kind, "n": len(pairs)}
            for column, name in enumerate(scores.columns):
                found = over_seeds(table[:, column])
                row |= {name: found["number"], f"{name} low": np.nan, f"{name} high": np.nan}
                row |= {f"{name} {end}": found[end] for end in ("low", "high") if end in found}
            rows.append(row)
    return pd.DataFrame(rows)


#: Runs of `make sweeps` on simulated ranked cells, and how many cells their students see.
STREAM_RUNS = {"stream": "all training cells", "stream-tenth": "a tenth of the training cells"}


def way_key(model: str, kind: str = "") -> str:
    """Name of a model in metrics, such as ``student_3m_ce_only``."""
    return "_".join(f"{model} {kind}".lower().replace("-", " ").replace(".", " ").split())


def recorded_ways(metrics: pd.DataFrame, students: Iterable[str]) -> pd.DataFrame:
    """Recorded shares of the way to the ceiling on simulated ranked cells (`STREAM_RUNS`).

    Parameters
    ----------
    metrics
        `recorded.recorded_metrics`, with ``way_share_*`` and ``way_accuracy_*``.

    Returns
    -------
    One row a run and model, in the order of the figure: ``run``, ``model`` (its name in a figure), ``student``,
    ``kind`` (of `STUDENT_KINDS`, ``gain``, or empty), ``n``; ``share`` and ``accuracy``, each with ``low`` and
    ``high``.
    """
    order = [(name, "") for name in ("naive Bayes", "teacher")]
    order += [(student, kind) for student in students for kind in (*STUDENT_KINDS, "gain")]
    by_name, rows = metrics.set_index(["run", "metric"]), []
    for run, (model, kind) in itertools.product(STREAM_RUNS, order):
        row = {"run": run, "model": f"{model}, {kind}" if kind else model, "student": model, "kind": kind}
        for score in ("share", "accuracy"):
            name = (run, f"way_{score}_{way_key(model, kind)}")
            if name in by_name.index:
                found = by_name.loc[name]
                row |= {"n": found["n"], score: found["value"]}
                row |= {f"{score} {end}": found[end] for end in ("low", "high")}
        rows += [row] if "share" in row else []
    return pd.DataFrame(rows)


def describe_ways(ways: pd.DataFrame) -> list[str]:
    """What `recorded_ways` says of the teacher, of the order of the students, and of what the teacher adds."""
    sentences = []
    for run, rows in ways.groupby("run", sort=False):
        by_kind = {kind: part.set_index("student") for kind, part in rows.groupby("kind")}
        taught, gain, teacher = by_kind["distilled"], by_kind["gain"], by_kind[""].loc["teacher"]
        shares = ", ".join(f"{name} {_percent(row, 'share')}" for name, row in taught.iterrows())
        above = taught["share high"] < teacher["share low"]
        place = "above all" if above.all() else f"above {above.sum()} of {len(above)}"
        sentences.append(
            f"On {STREAM_RUNS[run]} the teacher covers {_percent(teacher, 'share')} of the way to the ceiling; its "
            f"students cover {shares}. The teacher's interval lies {place} of theirs."
        )
        order = taught["share"].is_monotonic_decreasing
        gains = ", ".join(f"{name} {_percent(row, 'accuracy', '+.2%')}" for name, row in gain.iterrows())
        sentences.append(
            f"The students' shares {'follow' if order else 'do not follow'} the order of their sizes. "
            f"Distillation changes their accuracy by {gains} (percentage points; interval over seeds)."
        )
    return sentences


def _percent(row: pd.Series, score: str, form: str = ".1%") -> str:
    value, low, high = (format(row[name], form) for name in (score, f"{score} low", f"{score} high"))
    return f"{value} ({low} to {high})"


def relative_examples(taught: pd.DataFrame, alone: pd.DataFrame, metric: str) -> float:
    """Training examples that a student needs with a teacher, relative to one without.

    The student that ends better is followed back to the first step at which it is as good as the other one at its end
    (linear between evaluations; not before the first evaluation). Below 1 the teacher saves examples.

    Parameters
    ----------
    taught, alone
        Histories of equal length: ``step``, and the metric on held-out cells.
    metric
        ``ce``, where less is better, or ``accuracy``.
    """
    sign = -1 if metric == "ce" else 1
    scores = [sign * np.asarray(history[metric], float) for history in (taught, alone)]
    steps = [np.asarray(history["step"], float) for history in (taught, alone)]
    better = 0 if scores[0][-1] >= scores[1][-1] else 1
    share = _first_step(steps[better], scores[better], scores[1 - better][-1]) / steps[1 - better][-1]
    return float(share if better == 0 else 1 / share)


def _first_step(steps: np.ndarray, scores: np.ndarray, goal: float) -> float:
    """First step at which scores reach a target that the last one reaches."""
    i = int(np.argmax(scores >= goal))
    if i == 0:
        return steps[0]
    part = (goal - scores[i - 1]) / (scores[i] - scores[i - 1])
    return steps[i - 1] + part * (steps[i] - steps[i - 1])


def examples_by_seed(runs: list[StudentRun], histories: dict[str, pd.DataFrame]) -> pd.DataFrame:
    """`relative_examples` of the first student, one row per seed: ``seed``, ``by cross entropy``, ``by accuracy``.

    Parameters
    ----------
    histories
        `training.fit`'s, by the name of the run.
    """
    rows = []
    for seed, names in seed_pairs(runs).items():
        pair = [cross_entropy_column(histories[names[kind]]) for kind in STUDENT_KINDS]
        row = {"seed": seed, "by cross entropy": relative_examples(*pair, "ce")}
        rows.append(row | {"by accuracy": relative_examples(*pair, "accuracy")})
    return pd.DataFrame(rows)


def cross_entropy_column(history: pd.DataFrame) -> pd.DataFrame:
    """History with its held-out cross entropy as ``ce``, which is the loss of a student without a teacher."""
    return history.assign(ce=history.get("ce", history["loss"]))


def over_seeds(values: pd.Series, *, ratio: bool = False) -> dict[str, float]:
    """Mean over seeds with Student's 95% interval, for `report.value`; one seed has no interval.

    Parameters
    ----------
    ratio
        Whether the values are ratios, whose mean is geometric.

    Returns
    -------
    ``number`` and ``n``; ``low`` and ``high`` from two seeds on.

    Examples
    --------
    >>> import pandas as pd
    >>> from epigen_utils.distillation import student_comparison
    >>> found = student_comparison.over_seeds(pd.Series([0.5, 1.0, 2.0]), ratio=True)
    >>> {name: round(value, 2) for name, value in found.items()}
    {'number': 1.0, 'n': 3, 'low': 0.18, 'high': 5.59}
    """
    numbers = np.log(values) if ratio else np.asarray(values, float)
    mean, low, high = (float(np.exp(end)) if ratio else end for end in intervals.student_interval(numbers))
    return {"number": mean, "n": len(values)} | ({"low": low, "high": high} if len(values) > 1 else {})


def table_one(
    predictions: dict[str, pd.DataFrame], kinds: pd.DataFrame, *, donors: object, seed: int = 0
) -> pd.DataFrame:
    """Masked genes of each model as in paper B's Table 1, and by what the model sees in their place.

    Parameters
    ----------
    kinds
        `masked_genes.accuracy_by_kind` of the predictions.

    Returns
    -------
    One row per model: ``model``; ``accuracy`` and ``perplexity`` of all selected genes, means over batches as in the
    paper's code, each with `` low`` and `` high``; ``hidden accuracy`` and ``hidden perplexity``, over the genes that
    the mask token hides; ``replaced`` and ``unchanged``, the accuracies of the others.
    """
    accuracy, perplexity = (
        kinds.pivot(index="model", columns="kind", values=score).reindex(columns=masked_genes.KINDS)
        for score in ("accuracy", "perplexity")
    )
    rows = []
    for name, table in predictions.items():
        averages = masked_genes.summarise_predictions(table, donors=donors, seed=seed).set_index("over").loc["batch"]
        row = {"model": name, **averages.drop("n")}
        row |= {"hidden accuracy": accuracy.loc[name, "hidden"], "hidden perplexity": perplexity.loc[name, "hidden"]}
        rows.append(row | accuracy.loc[name, ["replaced", "unchanged"]].to_dict())
    return pd.DataFrame(rows)


def paired_gaps(
    predictions: dict[str, pd.DataFrame], reference: str, *, donors: object, seed: int = 0
) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Differences of models from one of them on the same masked genes, over all donors and of each donor.

    Returns
    -------
    `masked_genes.metric_differences` of each other model, with its name in ``model``; and ``model``, ``donor`` and the
    differences in ``accuracy`` and ``perplexity`` on that donor's cells.
    """
    pooled = pd.DataFrame(
        {"model": name} | masked_genes.metric_differences(table, predictions[reference], donors=donors, seed=seed)
        for name, table in predictions.items()
        if name != reference
    )
    by_donor = masked_genes.metrics_by_donor(predictions, donors).set_index(["model", "donor"])
    scores = by_donor[["accuracy", "perplexity"]]
    gaps = scores - scores.loc[reference].reindex(scores.index, level="donor")
    return pooled, gaps.drop(index=reference, level="model").reset_index()


def gap_table(pooled: pd.DataFrame, by_donor: pd.DataFrame) -> pd.DataFrame:
    """`paired_gaps` as one table: with the interval over donors or, where they are too few for one, with each donor."""
    table = pooled.dropna(axis=1, how="all").set_index("model")
    if "accuracy low" not in table:
        each = by_donor.pivot(index="model", columns="donor", values=["accuracy", "perplexity"])
        each.columns = [f"{score}, {donor}" for score, donor in each.columns]
        table = table.join(each)
    return table.reset_index()


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
