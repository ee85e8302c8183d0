"""Tests of perturbation effects: the tables of Geneformer's statistics, and tests over donors.

Theodoris et al. 2023; columns are those of official Geneformer's ``InSilicoPerturberStats``. Cells of one donor are not
independent observations, so p-values over cells are too small; the columns ``Donor_...`` test over donors.
"""

import math

import numpy as np
import pandas as pd
from scipy import stats
from sklearn.mixture import GaussianMixture

from epigen_utils.downstream import baselines
from epigen_utils.errors import DataError
from epigen_utils.geneformer.encoded_cells import EncodedCells
from epigen_utils.geneformer.vocabularies import Vocabulary
from epigen_utils.stats import intervals, two_classes

#: Maximum size of the background sample of shifts, and the seed that draws it (official: 42).
MAX_BACKGROUND, BACKGROUND_SEED = 100_000, 42
SIGNIFICANCE_LEVEL = 0.05


def fewest_detections(n_cells: int) -> int:
    """Fewest of the perturbed cells that must express a gene for it to be tested: a tenth, and at least three (or all).

    A gene in one cell cannot be called by any test, but each one tested makes the correction stricter for the others.
    """
    return max(min(3, n_cells), math.ceil(n_cells / 10))


def goal_state_shift(
    shifts: pd.DataFrame,
    goal: str,
    *,
    alternatives: tuple[str, ...] = (),
    donors: np.ndarray | None = None,
    symbols: pd.Series | None = None,
    min_cells: int = 0,
) -> pd.DataFrame:
    """Rank genes by how far their perturbation moves cells towards a target state.

    Two-sided rank-sum test of a gene's shifts against those of all genes, its own included, without correction for
    ties; Benjamini-Hochberg over genes. Over donors: one-sample t-test of the mean of a gene's shifts in a donor's
    cells less the donor's mean over all genes, for genes with at least three donors.

    Parameters
    ----------
    shifts
        Table of `perturbation.perturb` with ``shift_<goal>`` and ``shift_<alternative>``.
    donors
        Donor of each cell, by position.
    symbols
        By Ensembl id.
    min_cells
        Genes that fewer cells express are left out before the correction (officially none are); their shifts stay in
        the background.

    Returns
    -------
    A row a gene, significant ones first, then by shift:

    - ``Gene_name``, ``Ensembl_ID``
    - ``Shift_to_goal_end``, ``Shift_to_alt_end_<alternative>``: mean shifts
    - ``Goal_end_vs_random_pval``, ``Alt_end_vs_random_pval_<alternative>``: over cells
    - ``Goal_end_FDR``, ``Alt_end_FDR_<alternative>``
    - ``N_Detections`` (cells), ``Sig`` (1 if significant)
    - ``N_Donors``, ``Donor_shift``, ``Donor_low``, ``Donor_high`` (95% t interval; NaN with fewer than four donors),
      ``Donor_pval``, ``Donor_FDR``, only with ``donors``

    Raises
    ------
    DataError
        If there are no shifts towards the target state, or ``min_cells`` leaves no gene.
    """
    for state in (goal, *alternatives):
        if f"shift_{state}" not in shifts:
            states = ", ".join(column.removeprefix("shift_") for column in shifts if column.startswith("shift_"))
            raise DataError(f"goal {state!r}: no shifts towards it; there are {states or 'none'}")
    by_gene = _tested(shifts, min_cells).groupby("gene", sort=True)
    table = pd.DataFrame({"Shift_to_goal_end": by_gene[f"shift_{goal}"].mean()})
    for state in alternatives:
        table[f"Shift_to_alt_end_{state}"] = by_gene[f"shift_{state}"].mean()
    columns = {goal: "Goal_end_vs_random_pval"} | {state: f"Alt_end_vs_random_pval_{state}" for state in alternatives}
    for state, column in columns.items():
        table[column] = _pvalues_against_background(by_gene[f"shift_{state}"], shifts[f"shift_{state}"].to_numpy())
    for column in columns.values():
        table[column.replace("vs_random_pval", "FDR")] = stats.false_discovery_control(table[column])
    table["N_Detections"] = by_gene.size()
    table["Sig"] = (table["Goal_end_FDR"] < SIGNIFICANCE_LEVEL).astype(int)
    if donors is not None:
        table = table.join(_donor_tests(donor_shifts(shifts, f"shift_{goal}", donors).loc[table.index]))
    by = ["Sig", "Shift_to_goal_end", "Goal_end_FDR"]
    return _with_gene_names(table.sort_values(by, ascending=[False, False, True], kind="stable"), symbols)


def _tested(effects: pd.DataFrame, min_cells: int) -> pd.DataFrame:
    """The effects on genes that enough cells express."""
    kept = effects[effects.groupby("gene")["gene"].transform("size") >= min_cells]
    if kept.empty:
        raise DataError(f"genes: none was perturbed in {min_cells} cells or more; perturb more cells")
    return kept


def _pvalues_against_background(by_gene, background: np.ndarray) -> pd.Series:
    """P-values of `scipy.stats.ranksums` of each group against all values, which are sorted once."""
    if len(background) > MAX_BACKGROUND:
        background = np.random.default_rng(BACKGROUND_SEED).choice(background, MAX_BACKGROUND, replace=False)
    background = np.sort(background)
    return by_gene.agg(lambda values: _rank_sum_pvalue(values.to_numpy(), background))


def _rank_sum_pvalue(values: np.ndarray, background: np.ndarray) -> float:
    n, m = len(values), len(background)
    below = (np.searchsorted(background, values, "left") + np.searchsorted(background, values, "right")) / 2
    ranks = stats.rankdata(values).sum() + below.sum()
    z = (ranks - n * (n + m + 1) / 2) / np.sqrt(n * m * (n + m + 1) / 12)
    return float(2 * stats.norm.sf(abs(z)))


def donor_shifts(shifts: pd.DataFrame, column: str, donors: np.ndarray) -> pd.DataFrame:
    """Mean of a gene's shifts in a donor's cells less the donor's mean over all genes: genes x donors.

    NaN where none of a donor's cells expresses the gene.
    """
    table = pd.DataFrame({"gene": shifts["gene"], "donor": np.asarray(donors)[shifts["cell"]], "shift": shifts[column]})
    table["shift"] -= table.groupby("donor")["shift"].transform("mean")
    return table.groupby(["gene", "donor"])["shift"].mean().unstack()


def _donor_tests(by_donor: pd.DataFrame) -> pd.DataFrame:
    """Columns of `goal_state_shift` over donors, from `donor_shifts`."""
    summary = pd.DataFrame({"N_Donors": by_donor.notna().sum(axis=1), "Donor_shift": by_donor.mean(axis=1)})
    n, enough = summary["N_Donors"], summary["N_Donors"] >= 3
    se = (by_donor.std(axis=1, ddof=1) / np.sqrt(n)).where(enough)
    half_width = (se * stats.t.ppf(0.975, np.maximum(n - 1, 1))).where(n >= intervals.LEAST_UNITS)
    summary["Donor_low"] = summary["Donor_shift"] - half_width
    summary["Donor_high"] = summary["Donor_shift"] + half_width
    with np.errstate(divide="ignore", invalid="ignore"):
        summary["Donor_pval"] = 2 * stats.t.sf((summary["Donor_shift"] / se).abs(), np.maximum(n - 1, 1))
    summary["Donor_FDR"] = np.nan
    tested = summary["Donor_pval"].notna()
    if tested.any():
        summary.loc[tested, "Donor_FDR"] = stats.false_discovery_control(summary.loc[tested, "Donor_pval"])
    return summary


def called_genes(table: pd.DataFrame, alpha: float) -> tuple[str, pd.Series]:
    """Which genes of `goal_state_shift` are called, over donors, or over cells where no gene has donors enough.

    Returns
    -------
    ``donors`` or ``cells``, and whether each gene's FDR there is below alpha.
    """
    over_donors = "Donor_FDR" in table and table["Donor_FDR"].notna().any()
    unit, column = ("donors", "Donor_FDR") if over_donors else ("cells", "Goal_end_FDR")
    return unit, table[column] < alpha


def vs_null(
    test: pd.DataFrame, null: pd.DataFrame, *, symbols: pd.Series | None = None, min_cells: int = 0
) -> pd.DataFrame:
    """Rank genes by how differently their perturbation affects two groups of cells, by the cosine before and after.

    Rank-sum test of each gene between the groups; a gene missing in ``null`` gets p = 1.

    Parameters
    ----------
    min_cells
        Genes that fewer cells of either group express are left out before the correction; officially none are.

    Returns
    -------
    A row a gene of ``test``: ``Test_avg_shift`` and ``Null_avg_shift`` (cosines: 1 is no effect),
    ``Test_vs_null_avg_shift``, ``Test_vs_null_pval``, ``Test_vs_null_FDR``, ``N_Detections_test``,
    ``N_Detections_null``, ``Sig``.
    """
    if min_cells:
        null = _tested(null, min_cells)
        test = _tested(test[test["gene"].isin(null["gene"])], min_cells)
    by_gene, null_by_gene = (cosines.groupby("gene")["cosine"] for cosines in (test, null))
    table = pd.DataFrame({"Test_avg_shift": by_gene.mean()})
    table["Null_avg_shift"] = null_by_gene.mean().reindex(table.index)
    table["Test_vs_null_avg_shift"] = table["Test_avg_shift"] - table["Null_avg_shift"]
    background = {gene: np.sort(values.to_numpy()) for gene, values in null_by_gene}
    p = {
        gene: _rank_sum_pvalue(values.to_numpy(), background[gene]) if gene in background else 1.0
        for gene, values in by_gene
    }
    table["Test_vs_null_pval"] = pd.Series(p)
    table["Test_vs_null_FDR"] = stats.false_discovery_control(table["Test_vs_null_pval"])
    table["N_Detections_test"] = by_gene.size()
    table["N_Detections_null"] = null_by_gene.size().reindex(table.index).fillna(0).astype(int)
    table["Sig"] = (table["Test_vs_null_FDR"] < SIGNIFICANCE_LEVEL).astype(int)
    by = ["Sig", "Test_vs_null_avg_shift", "Test_vs_null_FDR"]
    return _with_gene_names(table.sort_values(by, ascending=[False, False, True], kind="stable"), symbols)


def mixture_model(
    cosines: pd.DataFrame, *, symbols: pd.Series | None = None, min_cells: int = 0, seed: int = 0
) -> pd.DataFrame:
    """Classify genes by impact with two Gaussians fitted to the genes' mean cosines.

    The impact component is the one with the lower mean. (Official Geneformer takes the first component of the fit; see
    tests/downstream/test_perturbation_tests.py.) A value below its mean has impact, one above the other component's
    mean has none, and between the means the mixture decides.

    Parameters
    ----------
    min_cells
        Genes that fewer cells express are left out; officially none are.

    Returns
    -------
    A row a gene: ``Test_avg_shift`` (mean cosine), ``Impact_component`` (1 if the mean has impact),
    ``Impact_component_percent`` (of its cells), ``N_Detections``.

    Raises
    ------
    DataError
        If there are fewer than two genes.
    """
    cosines = _tested(cosines, min_cells)
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

    table = pd.DataFrame({"Test_avg_shift": means, "Impact_component": has_impact(means).astype(int)})
    table["Impact_component_percent"] = has_impact(cosines["cosine"]).groupby(cosines["gene"]).mean() * 100
    table["N_Detections"] = by_gene.size()
    by = ["Impact_component", "Impact_component_percent", "Test_avg_shift"]
    return _with_gene_names(table.sort_values(by, ascending=[False, False, True], kind="stable"), symbols)


def rank_difference_baseline(
    cells: EncodedCells, vocabulary: Vocabulary, labels: np.ndarray, start: str, goal: str
) -> pd.Series:
    """Baseline without perturbation: how much higher a gene ranks in the start state than in the target state.

    Returns
    -------
    By Ensembl id: mean of `baselines.bag_of_ranks` over the cells of ``start`` less that over the cells of ``goal``.
    """
    bag = baselines.bag_of_ranks(cells, vocabulary)
    means = [np.asarray(bag[np.asarray(labels) == name].mean(axis=0)).ravel() for name in (start, goal)]
    return pd.Series(means[0] - means[1], vocabulary.genes)


def planted_gene_scores(
    shifts: pd.DataFrame,
    genes: set[str],
    column: str,
    donors: np.ndarray,
    *,
    min_cells: int = 3,
    top: int = 20,
    n_bootstrap: int = 500,
    seed: int = 0,
) -> dict[str, float]:
    """How well the mean shift ranks planted genes above the others, with a 95% interval over donors.

    Parameters
    ----------
    genes
        The planted genes, by Ensembl id.
    column
        ``shift_<state>``.
    donors
        Donor of each cell; the bootstrap draws whole donors.
    min_cells
        Minimum number of cells in which a gene was perturbed.
    top
        Number of first-ranked genes among which planted ones are counted.

    Returns
    -------
    ``auc``, ``low``, ``high`` (NaN with fewer than four donors); numbers of ``genes``, ``planted`` genes and
    ``donors``; ``first`` (planted genes among the ``top`` largest shifts) and ``by_chance`` (their expected number).
    """
    donor_codes, donor_names = pd.factorize(np.asarray(donors)[shifts["cell"]])
    gene_codes, gene_names = pd.factorize(shifts["gene"])
    shape = (len(donor_names), len(gene_names))
    sums, n = np.zeros(shape), np.zeros(shape)
    np.add.at(sums, (donor_codes, gene_codes), shifts[column])
    np.add.at(n, (donor_codes, gene_codes), 1)
    is_planted = np.isin(gene_names, list(genes))

    def mean_shifts(rows: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        n_cells = n[rows].sum(axis=0)
        enough = n_cells >= min_cells
        return sums[rows].sum(axis=0)[enough] / n_cells[enough], is_planted[enough]

    def score(rows: np.ndarray) -> float:
        return two_classes.roc_auc(*mean_shifts(rows))

    every_donor = np.arange(len(donor_names))
    drawn = intervals.resample_donors(np.zeros(len(donor_names)), n_bootstrap, np.random.default_rng(seed))
    low, high = np.nanquantile([score(rows) for rows in drawn], [0.025, 0.975])
    if len(donor_names) < intervals.LEAST_UNITS:
        low = high = np.nan
    means, planted_mask = mean_shifts(every_donor)
    first = np.argsort(-means, kind="stable")[:top]
    return {
        "auc": score(every_donor),
        "low": float(low),
        "high": float(high),
        "genes": len(means),
        "planted": int(planted_mask.sum()),
        "donors": len(donor_names),
        "first": int(planted_mask[first].sum()),
        "by_chance": len(first) * float(planted_mask.mean()),
    }


def _with_gene_names(table: pd.DataFrame, symbols: pd.Series | None) -> pd.DataFrame:
    names = table.index.to_series().map(symbols) if symbols is not None else table.index
    table = table.rename_axis("Ensembl_ID").reset_index()
    table.insert(0, "Gene_name", np.asarray(names))
    return table
