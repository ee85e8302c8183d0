"""Biology-Attention Alignment Metric (BAAM): whether attention prefers a set's genes, with two nulls; paper A."""

import numpy as np
import pandas as pd
from scipy.stats import false_discovery_control, rankdata

from epigen_utils.errors import DataError
from epigen_utils.gpt2.readout_attention import ReadoutAttention
from epigen_utils.stats import permutation

#: Bins of mean relative position within which the matched null of `baam` draws genes.
POSITION_BINS = 20
#: Random sets in each null of `baam`.
PERMUTATIONS = 999


def baam(
    scores: np.ndarray,
    positions: np.ndarray,
    members: np.ndarray,
    *,
    name: str = "gene set",
    units: np.ndarray | None = None,
    n_permutations: int = PERMUTATIONS,
    n_bootstrap: int = 1000,
    seed: int = 0,
) -> dict[str, float]:
    """Biology-Attention Alignment Metric of one gene set, with its interval and two nulls.

    Paper A names the metric once without a definition. Here it is the probability that a gene of the set receives more
    attention than a gene outside it within one sentence, averaged over sentences: 0.5 for attention independent of the
    set. The set must not contain genes that the training loss used.

    Parameters
    ----------
    scores
        Attention, samples x genes; NaN if a sentence lacks the gene (`readout_attention.compute_attention`).
    positions
        Relative position of each gene, in the shape of ``scores``.
    members
        True for genes of the set.
    name
        Name of the set, for errors.
    units
        Donor of each sample; None: each sample is a unit.
    n_bootstrap
        Bootstrap draws for the interval; 0 for none.

    Returns
    -------
    - ``baam``;
    - ``low``, ``high``: 95% interval over resampled genes of the set and donors, genes outside fixed; NaN for one gene;
    - ``random``, ``matched``: means over random sets, and over sets with as many genes in each of `POSITION_BINS`
      bins of mean position;
    - ``p random``, ``p matched``: two-sided (`permutation.two_sided_pvalue`): a set may get more or less attention;
    - ``genes`` (of the set), ``others``.

    Raises
    ------
    DataError
        If no gene of the set, or none outside it, is among the genes.

    Examples
    --------
    >>> import numpy as np
    >>> from epigen_utils.interpretation import alignment
    >>> rng = np.random.default_rng(0)
    >>> members = np.arange(40) < 8
    >>> scores = rng.random((5, 40)) + 0.5 * members
    >>> positions = rng.random((5, 40))
    >>> result = alignment.baam(scores, positions, members, n_permutations=99, n_bootstrap=100)
    >>> {name: round(float(result[name]), 2) for name in ("baam", "low", "high", "matched", "p matched")}
    {'baam': 0.89, 'low': 0.82, 'high': 0.93, 'matched': 0.66, 'p matched': 0.02}
    """
    observable = np.isfinite(scores).any(axis=0)
    inside = np.asarray(members, bool)[observable]
    if not inside.any():
        raise DataError(
            f"{name}: has no member among the {observable.sum():,} genes of the sentences; give a set of these genes, "
            "or choose more genes"
        )
    if inside.all():
        raise DataError(
            f"{name}: all {observable.sum():,} genes of the sentences are members; nothing is left to compare with"
        )
    ranks = rankdata(scores[:, observable], axis=1, nan_policy="omit")
    present = np.isfinite(scores[:, observable])
    ranks = np.where(present, ranks, 0.0)
    mean_position = np.nanmean(positions[:, observable], axis=0)
    rng = np.random.default_rng(seed)
    sets = {"random": _matched_sets(inside, np.zeros(len(inside), int), n_permutations, rng)}
    sets["matched"] = _matched_sets(inside, _position_bins(mean_position), n_permutations, rng)
    observed = float(_baam_of_masks(inside[None], ranks, present)[0])
    codes = np.arange(len(present)) if units is None else np.unique(units, return_inverse=True)[1]
    low, high = _baam_interval(inside, ranks, present, codes, n_bootstrap, rng)
    result = {"baam": observed, "low": low, "high": high}
    nulls = {kind: _baam_of_masks(drawn, ranks, present) for kind, drawn in sets.items()}
    result |= {kind: float(null.mean()) for kind, null in nulls.items()}
    result |= {f"p {kind}": permutation.two_sided_pvalue(observed, null) for kind, null in nulls.items()}
    return result | {"genes": int(inside.sum()), "others": int((~inside).sum())}


def _position_bins(positions: np.ndarray) -> np.ndarray:
    return (rankdata(positions, method="ordinal").astype(int) - 1) * POSITION_BINS // len(positions)


def _matched_sets(inside: np.ndarray, bins: np.ndarray, n: int, rng: np.random.Generator) -> np.ndarray:
    """Draw random sets, sets x genes, with as many members in each bin as the given set."""
    order = np.argsort(rng.random((n, len(inside))) + bins, axis=1)
    drawn = np.zeros(order.shape, bool)
    np.put_along_axis(drawn, order, np.broadcast_to(inside[np.argsort(bins, kind="stable")], order.shape), axis=1)
    return drawn


def _baam_of_masks(sets: np.ndarray, ranks: np.ndarray, present: np.ndarray) -> np.ndarray:
    """BAAM of many sets: mean AUROC, by rank sums, over sentences with genes in and outside the set."""
    weights = sets.astype(float)
    k, n = weights @ present.T.astype(float), present.sum(axis=1)
    pairs = k * (n - k)
    with np.errstate(invalid="ignore"):
        return np.nanmean(np.where(pairs > 0, (weights @ ranks.T - k * (k + 1) / 2) / pairs, np.nan), axis=1)


def _baam_interval(
    inside: np.ndarray, ranks: np.ndarray, present: np.ndarray, units: np.ndarray, n: int, rng: np.random.Generator
) -> tuple[float, float]:
    """Interval from a bootstrap over genes of the set and over units of sentences."""
    # A single gene carries no information about the spread between genes.
    if not n or inside.sum() < 2:
        return np.nan, np.nan
    above = _share_outranked(inside, ranks, present)
    finite = np.isfinite(above)
    genes = rng.multinomial(above.shape[1], np.full(above.shape[1], 1 / above.shape[1]), size=n).T
    n_units = units.max() + 1
    weights = rng.multinomial(n_units, np.full(n_units, 1 / n_units), size=n).T[units]
    with np.errstate(invalid="ignore"):
        # Sentences have equal weight, whatever their number of set genes; those with none of the drawn genes have none.
        per_sentence = (np.where(finite, above, 0.0) @ genes) / (finite.astype(float) @ genes)  # (sentences, draws)
        weights = np.where(np.isfinite(per_sentence), weights, 0)
        drawn = np.nansum(weights * per_sentence, axis=0) / weights.sum(axis=0)
    low, high = np.nanquantile(drawn, [0.025, 0.975])
    return float(low), float(high)


def _share_outranked(inside: np.ndarray, ranks: np.ndarray, present: np.ndarray) -> np.ndarray:
    """Share of genes outside the set that each set gene outranks, sentences x genes of the set; NaN if it is absent."""
    scores = np.where(present, ranks, np.nan)
    genes, others = scores[:, inside], scores[:, ~inside]
    outside = np.sort(np.where(np.isnan(others), np.inf, others), axis=1)
    m = present[:, ~inside].sum(axis=1)
    above = np.full(genes.shape, np.nan)
    for row in np.flatnonzero(m):
        left, right = (np.searchsorted(outside[row, : m[row]], genes[row], side=side) for side in ("left", "right"))
        above[row] = np.where(np.isfinite(genes[row]), (left + right) / 2 / m[row], np.nan)
    return above


def baam_of_readout(
    readout: ReadoutAttention, scores: np.ndarray, members: list[str], *, n_bootstrap: int = 0, **options
) -> dict[str, float]:
    """`baam` of the genes of a set, by default without an interval, for scores (samples x genes) of a read-out."""
    return baam(scores, readout.positions, np.isin(readout.genes, members), n_bootstrap=n_bootstrap, **options)


def baam_of_sets(
    scores: np.ndarray, positions: np.ndarray, genes: list[str], sets: dict[str, list[str]], **options
) -> pd.DataFrame:
    """`baam` of several sets.

    Returns
    -------
    One row a set with members: ``set``, the keys of `baam`, and ``padj`` (Benjamini-Hochberg over ``p matched``).
    """
    rows = []
    for name, members in sets.items():
        inside = np.isin(genes, list(members))
        if (inside & np.isfinite(scores).any(axis=0)).any():
            rows.append({"set": name, **baam(scores, positions, inside, name=name, **options)})
    if not rows:
        raise DataError(f"{', '.join(sets)}: none has a member among the {len(genes):,} genes of the sentences")
    table = pd.DataFrame(rows)
    table["padj"] = false_discovery_control(table["p matched"])
    return table


def baam_of_heads(
    scores: np.ndarray,
    positions: np.ndarray,
    members: np.ndarray,
    *,
    name: str,
    n_permutations: int = PERMUTATIONS,
    seed: int = 0,
) -> pd.DataFrame:
    """`baam` of each head, without intervals.

    Parameters
    ----------
    scores
        Attention, layers x heads x samples x genes.

    Returns
    -------
    One row a head: ``layer``, ``head`` (from 1), the keys of `baam`, and ``padj`` over all heads, from ``p matched``.
    """
    rows = []
    for layer, head in np.ndindex(scores.shape[:2]):
        options = {"name": name, "n_permutations": n_permutations, "n_bootstrap": 0, "seed": seed}
        result = baam(scores[layer, head], positions, members, **options)
        rows.append({"layer": layer + 1, "head": head + 1, **result})
    table = pd.DataFrame(rows).drop(columns=["low", "high"])
    table["padj"] = false_discovery_control(table["p matched"])
    return table
