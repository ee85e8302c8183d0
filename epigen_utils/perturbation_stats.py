"""Which perturbations move cells more than others do: the tables that users of Geneformer know, with donors counted beside cells.

Theodoris et al. 2023; official Geneformer's ``InSilicoPerturberStats``, whose columns these are. Cells of one donor are no
independent observations, so that a p-value over cells alone is too small; the columns ``Donor_...`` test over donors.
"""

import numpy as np
import pandas as pd
from scipy import stats
from sklearn.mixture import GaussianMixture

from epigen_utils import evaluation, rivals
from epigen_utils.errors import DataError
from epigen_utils.vocabularies import Vocabulary

#: Shifts of all genes that one gene's are compared with, at most; and the seed by which they are drawn (official: 42).
BACKGROUND, SEED = 100_000, 42
SIGNIFICANT = 0.05


def goal_state_shift(
    shifts: pd.DataFrame,
    goal: str,
    *,
    alternatives: tuple[str, ...] = (),
    donors: np.ndarray | None = None,
    symbols: pd.Series | None = None,
) -> pd.DataFrame:
    """Genes by how far their perturbation moves cells towards a goal.

    Two-sided rank-sum test of a gene's shifts against those of all genes, its own among them, without correction for ties;
    Benjamini-Hochberg over genes. Over donors: the mean of a gene's shifts in a donor's cells, less the mean over all genes there,
    by a one-sample t-test; from three donors.

    Parameters
    ----------
    shifts
        `perturbation.perturb`'s, with ``shift_<goal>`` and ``shift_<alternative>``.
    donors
        Who each cell is from, by position.
    symbols
        By Ensembl id.

    Returns
    -------
    A row a gene, significant ones first, then by shift: ``Gene_name``, ``Ensembl_ID``, ``Shift_to_goal_end``,
    ``Shift_to_alt_end_<alternative>``, ``Goal_end_vs_random_pval``, ``Alt_end_vs_random_pval_<alternative>``, ``Goal_end_FDR``,
    ``Alt_end_FDR_<alternative>``, ``N_Detections`` (cells), ``Sig``; with donors ``N_Donors``, ``Donor_shift``, ``Donor_low`` and
    ``Donor_high`` (95% t interval), ``Donor_pval`` and ``Donor_FDR``.

    Raises
    ------
    DataError
        If there are no shifts towards the goal.
    """
    for state in (goal, *alternatives):
        if f"shift_{state}" not in shifts:
            there = ", ".join(column.removeprefix("shift_") for column in shifts if column.startswith("shift_"))
            raise DataError(f"goal {state!r}: no shifts towards it; there are {there or 'none'}")
    by_gene = shifts.groupby("gene", sort=True)
    found = pd.DataFrame({"Shift_to_goal_end": by_gene[f"shift_{goal}"].mean()})
    for state in alternatives:
        found[f"Shift_to_alt_end_{state}"] = by_gene[f"shift_{state}"].mean()
    columns = {goal: "Goal_end_vs_random_pval"} | {state: f"Alt_end_vs_random_pval_{state}" for state in alternatives}
    for state, column in columns.items():
        found[column] = _against_all(by_gene[f"shift_{state}"], shifts[f"shift_{state}"].to_numpy())
    for column in columns.values():
        found[column.replace("vs_random_pval", "FDR")] = stats.false_discovery_control(found[column])
    found["N_Detections"] = by_gene.size()
    found["Sig"] = (found["Goal_end_FDR"] < SIGNIFICANT).astype(int)
    if donors is not None:
        found = found.join(_over_donors(shifts, f"shift_{goal}", np.asarray(donors)))
    by = ["Sig", "Shift_to_goal_end", "Goal_end_FDR"]
    return _named(found.sort_values(by, ascending=[False, False, True], kind="stable"), symbols)


def _against_all(by_gene, everything: np.ndarray) -> pd.Series:
    """P of `scipy.stats.ranksums` of each group against all values, which are sorted once."""
    if len(everything) > BACKGROUND:
        everything = np.random.default_rng(SEED).choice(everything, BACKGROUND, replace=False)
    background = np.sort(everything)
    return by_gene.agg(lambda values: _rank_sum(values.to_numpy(), background))


def _rank_sum(values: np.ndarray, background: np.ndarray) -> float:
    n, m = len(values), len(background)
    below = (np.searchsorted(background, values, "left") + np.searchsorted(background, values, "right")) / 2
    ranks = stats.rankdata(values).sum() + below.sum()
    z = (ranks - n * (n + m + 1) / 2) / np.sqrt(n * m * (n + m + 1) / 12)
    return float(2 * stats.norm.sf(abs(z)))


def _over_donors(shifts: pd.DataFrame, column: str, donors: np.ndarray) -> pd.DataFrame:
    table = pd.DataFrame({"gene": shifts["gene"], "donor": donors[shifts["cell"]], "shift": shifts[column]})
    table["shift"] -= table.groupby("donor")["shift"].transform("mean")
    by_gene = table.groupby(["gene", "donor"])["shift"].mean().groupby("gene")
    found = by_gene.agg(N_Donors="size", Donor_shift="mean", sd=lambda values: values.std(ddof=1))
    enough = found["N_Donors"] >= 3
    n, se = found["N_Donors"], (found["sd"] / np.sqrt(found["N_Donors"])).where(enough)
    half = se * stats.t.ppf(0.975, np.maximum(n - 1, 1))
    found["Donor_low"], found["Donor_high"] = found["Donor_shift"] - half, found["Donor_shift"] + half
    with np.errstate(divide="ignore", invalid="ignore"):
        found["Donor_pval"] = 2 * stats.t.sf((found["Donor_shift"] / se).abs(), np.maximum(n - 1, 1))
    found["Donor_FDR"] = np.nan
    tested = found["Donor_pval"].notna()
    if tested.any():
        found.loc[tested, "Donor_FDR"] = stats.false_discovery_control(found.loc[tested, "Donor_pval"])
    return found.drop(columns="sd")


def vs_null(test: pd.DataFrame, null: pd.DataFrame, *, symbols: pd.Series | None = None) -> pd.DataFrame:
    """Genes by how differently their perturbation moves cells of two kinds, by the cosine before and after.

    Rank-sum test of a gene in one against the same gene in the other; a gene that the other lacks has p = 1.

    Returns
    -------
    A row a gene of ``test``: ``Test_avg_shift`` and ``Null_avg_shift`` (cosines: 1 is no effect), ``Test_vs_null_avg_shift``,
    ``Test_vs_null_pval``, ``Test_vs_null_FDR``, ``N_Detections_test``, ``N_Detections_null``, ``Sig``.
    """
    one, other = (table.groupby("gene")["cosine"] for table in (test, null))
    found = pd.DataFrame({"Test_avg_shift": one.mean()})
    found["Null_avg_shift"] = other.mean().reindex(found.index)
    found["Test_vs_null_avg_shift"] = found["Test_avg_shift"] - found["Null_avg_shift"]
    theirs = {gene: np.sort(values.to_numpy()) for gene, values in other}
    p = {gene: _rank_sum(values.to_numpy(), theirs[gene]) if gene in theirs else 1.0 for gene, values in one}
    found["Test_vs_null_pval"] = pd.Series(p)
    found["Test_vs_null_FDR"] = stats.false_discovery_control(found["Test_vs_null_pval"])
    found["N_Detections_test"] = one.size()
    found["N_Detections_null"] = other.size().reindex(found.index).fillna(0).astype(int)
    found["Sig"] = (found["Test_vs_null_FDR"] < SIGNIFICANT).astype(int)
    by = ["Sig", "Test_vs_null_avg_shift", "Test_vs_null_FDR"]
    return _named(found.sort_values(by, ascending=[False, False, True], kind="stable"), symbols)


def mixture_model(cosines: pd.DataFrame, *, symbols: pd.Series | None = None, seed: int = 0) -> pd.DataFrame:
    """Genes whose perturbation has an impact, by two Gaussians fitted to the genes' mean cosines.

    The impact component is the one with the lower mean. (Official Geneformer takes the first that the fit returns, whichever that
    is: see tests/test_perturbation_stats.py.) A value below its mean is impact, one above the other's mean is not, and between
    them the mixture decides.

    Returns
    -------
    A row a gene: ``Test_avg_shift`` (mean cosine), ``Impact_component`` (1 where its mean is), ``Impact_component_percent``
    (of its cells), ``N_Detections``.

    Raises
    ------
    DataError
        If there are fewer than two genes.
    """
    by_gene = cosines.groupby("gene", sort=True)["cosine"]
    means = by_gene.mean()
    if len(means) < 2:
        raise DataError("mixture model: fewer than two genes were perturbed; perturb more")
    model = GaussianMixture(2, random_state=seed).fit(means.to_numpy()[:, None])
    impact = int(np.argmin(model.means_.ravel()))
    low, high = model.means_[impact, 0], model.means_[1 - impact, 0]

    def has_impact(values: pd.Series) -> pd.Series:
        between = model.predict(values.to_numpy()[:, None]) == impact
        return (values < low) | ((values <= high) & between)

    found = pd.DataFrame({"Test_avg_shift": means, "Impact_component": has_impact(means).astype(int)})
    found["Impact_component_percent"] = has_impact(cosines["cosine"]).groupby(cosines["gene"]).mean() * 100
    found["N_Detections"] = by_gene.size()
    by = ["Impact_component", "Impact_component_percent", "Test_avg_shift"]
    return _named(found.sort_values(by, ascending=[False, False, True], kind="stable"), symbols)


def plain_difference(encoded: object, vocabulary: Vocabulary, labels: np.ndarray, start: str, goal: str) -> pd.Series:
    """The plain rival of a perturbation: how much further to the front a gene stands in one state than in another.

    Returns
    -------
    By Ensembl id: mean of `rivals.bag_of_ranks` over the cells of ``start`` less that over those of ``goal``.
    """
    bag = rivals.bag_of_ranks(encoded, vocabulary)
    means = [np.asarray(bag[np.asarray(labels) == name].mean(axis=0)).ravel() for name in (start, goal)]
    return pd.Series(means[0] - means[1], vocabulary.genes)


def planted(
    shifts: pd.DataFrame,
    genes: set[str],
    column: str,
    donors: np.ndarray,
    *,
    least: int = 3,
    top: int = 20,
    n_bootstrap: int = 500,
    seed: int = 0,
) -> dict[str, float]:
    """How well genes that are known to matter stand before others by mean shift, with a 95% interval over donors.

    Parameters
    ----------
    column
        ``shift_<state>``.
    donors
        Who each cell is from; they are drawn whole.
    least
        Cells in which a gene must have been perturbed.
    top
        First genes among which the planted ones are counted.

    Returns
    -------
    ``auc``, ``low``, ``high``, ``genes`` and ``planted`` (numbers of them), ``donors``; ``first``, the planted among the ``top``
    genes with the largest shifts, and ``by_chance``, how many are expected there.
    """
    code, names = pd.factorize(np.asarray(donors)[shifts["cell"]])
    gene, known = pd.factorize(shifts["gene"])
    sums, n = np.zeros((len(names), len(known))), np.zeros((len(names), len(known)))
    np.add.at(sums, (code, gene), shifts[column])
    np.add.at(n, (code, gene), 1)
    is_planted = np.isin(known, list(genes))

    def ranked(rows: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        some = n[rows].sum(axis=0)
        there = some >= least
        return sums[rows].sum(axis=0)[there] / some[there], is_planted[there]

    def score(rows: np.ndarray) -> float:
        return evaluation.auc(*ranked(rows))

    rng = np.random.default_rng(seed)
    everyone = np.arange(len(names))
    drawn = [score(rng.choice(everyone, len(everyone))) for _ in range(n_bootstrap)]
    low, high = np.nanquantile(drawn, [0.025, 0.975])
    mean, known_to_matter = ranked(everyone)
    found = {"auc": score(everyone), "low": float(low), "high": float(high)}
    found |= {"genes": len(mean), "planted": int(known_to_matter.sum()), "donors": len(names)}
    first = np.argsort(-mean, kind="stable")[:top]
    return found | {"first": int(known_to_matter[first].sum()), "by_chance": len(first) * float(known_to_matter.mean())}


def _named(found: pd.DataFrame, symbols: pd.Series | None) -> pd.DataFrame:
    names = found.index.to_series().map(symbols) if symbols is not None else found.index
    found = found.rename_axis("Ensembl_ID").reset_index()
    found.insert(0, "Gene_name", np.asarray(names))
    return found
