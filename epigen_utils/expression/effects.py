"""Results of differential expression: genes called, comparison with published values and with a planted truth."""

import itertools

import anndata
import numpy as np
import pandas as pd
from scipy.stats import false_discovery_control, hypergeom

from epigen_utils.data import genes, orthologs
from epigen_utils.errors import DataError
from epigen_utils.expression import designs, differential
from epigen_utils.stats import intervals


def summarise_contrasts(results: dict[str, pd.DataFrame], *, alpha: float) -> pd.DataFrame:
    """A row a contrast: genes with counts, called up and down, and excluded by Cook's distance and by filtering."""
    rows = []
    for name, table in results.items():
        called = table["padj"] < alpha
        rows.append(
            {
                "contrast": name,
                "genes with counts": int((table["baseMean"] > 0).sum()),
                "up": int((called & (table["log2FoldChange"] > 0)).sum()),
                "down": int((called & (table["log2FoldChange"] < 0)).sum()),
                "outliers (Cook)": int((table["pvalue"].isna() & (table["baseMean"] > 0)).sum()),
                "filtered (low counts)": int((table["padj"].isna() & table["pvalue"].notna()).sum()),
            }
        )
    return pd.DataFrame(rows)


def most_pooled(adata: anndata.AnnData, contrasts: dict[str, tuple[str, str, str]]) -> str:
    """Name of the contrast whose target pools the most levels, such as every mutant line; else of the first."""
    return max(contrasts, key=lambda name: len(designs.target_levels(adata, *contrasts[name][:2])))


#: What stands for a gene without an ortholog in the data.
NOT_IN_THE_DATA = "not in the data"


def reported_gene_effects(
    adata: anndata.AnnData, results: dict[str, pd.DataFrame], reported: pd.DataFrame, *, alpha: float
) -> pd.DataFrame:
    """Results of each contrast for the genes that a paper reports.

    Parameters
    ----------
    reported
        Human symbol -> ``function``, ``log2FoldChange`` and ``padj`` in the paper.

    Returns
    -------
    A row a contrast and ortholog: ``human``, ``function``, ``gene`` (symbol in the data), ``contrast``, ``baseMean``,
    ``log2FoldChange``, ``low``, ``high`` (95% Wald interval), ``padj``, ``reported`` and ``reported padj``, ``same
    sign`` (yes, no, or not called). A gene without an ortholog in the data has one row without results.
    """
    rows = []
    for gene in orthologs.find_genes(adata, list(reported.index)).itertuples():
        printed = reported.loc[gene.human]
        row = {"human": gene.human, "function": printed["function"], "reported": printed["log2FoldChange"]}
        row["reported padj"] = printed["padj"]
        if pd.isna(gene.gene):
            rows.append(row | {"gene": NOT_IN_THE_DATA})
            continue
        for name, table in results.items():
            result = table.loc[gene.gene]
            change, half = result["log2FoldChange"], 1.96 * result["lfcSE"]
            same = "yes" if change * row["reported"] > 0 else "no"
            row |= {"gene": gene.symbol, "contrast": name, "baseMean": result["baseMean"], "log2FoldChange": change}
            row |= {"low": change - half, "high": change + half, "padj": result["padj"]}
            rows.append(row | {"same sign": same if result["padj"] < alpha else "not called"})
    columns = ["human", "function", "gene", "contrast", "baseMean", "log2FoldChange", "low", "high", "padj"]
    return pd.DataFrame(rows, columns=[*columns, "reported", "reported padj", "same sign"])


def expressed_effects(table: pd.DataFrame, expressed: pd.DataFrame) -> pd.DataFrame:
    """The rows of `reported_gene_effects` that say something: of expressed genes, and of genes not in the data.

    Parameters
    ----------
    expressed
        The genes of `sample_quality.find_expressed`.
    """
    return table[table["gene"].isin(expressed["symbol"]) | (table["gene"] == NOT_IN_THE_DATA)]


def claimed_effects(table: pd.DataFrame, *, neurons: bool) -> pd.DataFrame:
    """The rows that claims are judged by: of each gene the first ortholog, in the first contrast.

    Parameters
    ----------
    table
        `reported_gene_effects`.
    neurons
        Whether the tissue has neurons.

    Returns
    -------
    Rows with a fold change, by human symbol, with ``tested``: whether the gene has an adjusted p-value, in a tissue
    with neurons. The change of any other gene checks nothing.
    """
    measured = table.dropna(subset=["log2FoldChange"]).drop_duplicates("human").set_index("human")
    return measured.assign(tested=measured["padj"].notna() & neurons)


def joint_change(table: pd.DataFrame, signs: dict[str, int], *, column: str) -> dict[str, float] | None:
    """The weakest of several changes that a claim states together, each in the direction that it states.

    It is positive only if all changes have the stated direction. Its interval is that of intersection-union tests
    (Berger 1982): the smallest lower and the smallest upper end, so that it lies above zero only if every interval
    does, and below zero as soon as one does.

    Parameters
    ----------
    table
        Effects with ``low`` and ``high``, indexed by gene or score.
    signs
        Gene or score -> 1 if it goes up by the claim, -1 if it goes down.
    column
        Column of the effects.

    Returns
    -------
    ``number``, ``low``, ``high``; None if the table lacks one of them.
    """
    if not set(signs) <= set(table.dropna(subset=[column]).index):
        return None
    part = table.loc[list(signs), [column, "low", "high"]].astype(float)
    down = np.array([sign < 0 for sign in signs.values()])
    lows = np.where(down, -part["high"], part["low"])
    highs = np.where(down, -part["low"], part["high"])
    centres = np.where(down, -part[column], part[column])
    return {"number": float(centres.min()), "low": float(lows.min()), "high": float(highs.min())}


def shares_as_large(results: dict[str, pd.DataFrame], reported: pd.Series) -> pd.DataFrame:
    r"""Share of the genes of each contrast that change at least as much as a reported gene.

    Parameters
    ----------
    reported
        Human symbol -> log2 fold change.

    Returns
    -------
    A row a reported gene: ``human``, ``reported``, and for each contrast the share of its genes with a p-value whose
    \|log2 fold change\| is at least the reported one.
    """
    table = pd.DataFrame({"human": reported.index, "reported": reported.to_numpy()})
    for name, result in results.items():
        size = result.dropna(subset=["pvalue"])["log2FoldChange"].abs()
        table[name] = [(size >= abs(change)).mean() for change in reported]
    return table


def pooled_changes(adata: anndata.AnnData, table: pd.DataFrame) -> pd.DataFrame:
    """Changes of each column of a table between the groups, in the contrast of `most_pooled`.

    Returns
    -------
    The table of `differential.linear_contrasts`, a row a column; empty if there is no column, or if the groups are too
    small for a test.
    """
    try:
        design, contrasts = designs.design_and_contrasts(adata)
        name = most_pooled(adata, contrasts)
        widest = {name: contrasts[name]}
        if table.shape[1]:
            return differential.linear_contrasts(adata, table, design=design, contrasts=widest)
    except DataError:
        pass  # one sample in a group, for example; the page is shown without this table
    return pd.DataFrame(columns=["contrast", "feature", "mean", "difference", "low", "high", "df", "p", "padj"])


def planted_fold_changes(truth: pd.DataFrame, adata: anndata.AnnData, contrast: tuple[str, str, str]) -> pd.Series:
    """The planted log2 fold change of every gene in a contrast; pooled levels have equal weight.

    Parameters
    ----------
    truth
        Log2 fold changes, genes x levels of the group, against a level without a column.
    """
    variable, target, reference = contrast
    change = truth[designs.target_levels(adata, variable, target)].mean(axis=1)
    return change - truth[reference] if reference in truth else change


def power_by_effect_size(
    results: pd.DataFrame, truth: pd.Series, *, alpha: float, edges: tuple[float, ...]
) -> pd.DataFrame:
    r"""Power by the size of the planted effect, and false positives, of one contrast of a simulated cohort.

    Parameters
    ----------
    truth
        Planted log2 fold change of each gene.
    edges
        Bin edges of the sizes, ascending.

    Returns
    -------
    A row a bin of \|log2 fold change\|: ``size``, ``genes`` (with counts), ``found`` (share with adjusted p below
    ``alpha``). The first row, size 0, holds the genes without an effect.
    """
    called = results["padj"] < alpha
    tested = results["baseMean"] > 0
    size = truth.abs()
    bins = {"0 (none planted)": size == 0}
    bins |= {f"{low:g} to {high:g}": (size > low) & (size <= high) for low, high in itertools.pairwise(edges)}
    rows = []
    for name, inside in bins.items():
        rows.append({"size": name, "genes": int((inside & tested).sum()), "found": called[inside & tested].mean()})
    return pd.DataFrame(rows)


def false_discovery_proportion(results: pd.DataFrame, truth: pd.Series, *, alpha: float) -> tuple[float, float, float]:
    """Share of the called genes without a planted effect, with its 95% interval (Clopper and Pearson 1934).

    Returns
    -------
    Share, low, high; NaN if no gene is called.
    """
    called = results["padj"] < alpha
    if not called.any():
        return np.nan, np.nan, np.nan
    wrong, n = int((truth[called] == 0).sum()), int(called.sum())
    return wrong / n, *intervals.binomial_interval(wrong, n)


def _index_by_human_symbol(published: pd.DataFrame, species: str) -> pd.DataFrame:
    human = published["gene"].map(orthologs.one_to_one_orthologs(species))
    return published.assign(human=human).dropna(subset="human").drop_duplicates("human").set_index("human")


def compare_with_published(
    adata: anndata.AnnData, results: dict[str, pd.DataFrame], published: pd.DataFrame, species: str, *, alpha: float
) -> pd.DataFrame:
    r"""Sizes and signs of a cohort's fold changes compared with those of a published table.

    Genes are matched by one-to-one human orthologs.

    Parameters
    ----------
    published
        Columns ``gene`` (symbols of ``species``), ``log2FoldChange``, ``padj``.

    Returns
    -------
    A row for the published table and each contrast: ``table``, ``genes`` (matched, with a fold change), ``called``,
    quantiles of \|log2 fold change\| (``median``, ``95%``, ``99%``), ``Spearman`` (with the published fold changes),
    ``both called`` and ``same sign`` (share of these).
    """
    human = _index_by_human_symbol(published, species)
    orthologs_of = adata.var["symbol"].map(orthologs.one_to_one_orthologs(genes.species_of(adata))).dropna()
    orthologs_of = orthologs_of[~orthologs_of.duplicated(keep=False)]

    def sizes(name: str, change: pd.Series, called: pd.Series) -> dict[str, object]:
        quantiles = dict(zip(("median", "95%", "99%"), change.abs().quantile([0.5, 0.95, 0.99]), strict=True))
        return {"table": name, "genes": len(change), "called": int(called.sum()), **quantiles}

    rows = [sizes("published", human["log2FoldChange"], human["padj"] < alpha)]
    for name, table in results.items():
        matched = table.loc[orthologs_of.index, ["log2FoldChange", "padj"]].set_axis(orthologs_of.to_numpy())
        matched = matched.dropna(subset=["log2FoldChange"])
        row = sizes(name, matched["log2FoldChange"], matched["padj"] < alpha)
        pair = matched.join(human, how="inner", rsuffix="_published")
        both = pair[(pair["padj"] < alpha) & (pair["padj_published"] < alpha)]
        row["Spearman"] = pair["log2FoldChange"].corr(pair["log2FoldChange_published"], method="spearman")
        row["both called"] = len(both)
        row["same sign"] = (both["log2FoldChange"] * both["log2FoldChange_published"] > 0).mean()
        rows.append(row)
    return pd.DataFrame(rows)


def reported_among_published(reported: pd.Series, published: pd.DataFrame, species: str) -> pd.DataFrame:
    r"""Reported fold changes compared with the distribution of those of a published table.

    Parameters
    ----------
    reported
        Human symbol -> log2 fold change.
    published
        Table of `compare_with_published`.

    Returns
    -------
    A row a gene: ``human``, ``reported``, ``published`` and ``padj`` (the gene's values in the table), ``as large``
    (share of all genes of the table whose \|log2 fold change\| is at least the reported one).
    """
    human = _index_by_human_symbol(published, species)
    size = published["log2FoldChange"].abs()
    table = pd.DataFrame({"human": reported.index, "reported": reported.to_numpy()})
    for name, column in (("published", "log2FoldChange"), ("padj", "padj")):
        table[name] = human[column].reindex(reported.index).to_numpy()
    table["as large"] = [(size >= abs(change)).mean() for change in reported]
    return table


def over_representation(chosen: list[str], sets: dict[str, list[str]], universe: list[str]) -> pd.DataFrame:
    """Over-representation of gene sets among chosen genes (hypergeometric test, one-sided).

    Returns
    -------
    A row a set: ``set``, ``genes`` (of the set in the universe), ``chosen`` (of these among the chosen), ``expected``,
    ``p`` and ``padj`` (Benjamini-Hochberg over the sets).
    """
    background = set(universe)
    selected = background.intersection(chosen)
    rows = []
    for name, members in sets.items():
        inside = set(members) & background
        hits = len(inside & selected)
        n = (len(background), len(inside), len(selected))
        expected = n[1] * n[2] / n[0]
        p = float(hypergeom.sf(hits - 1, *n))
        rows.append({"set": name, "genes": n[1], "chosen": hits, "expected": expected, "p": p})
    table = pd.DataFrame(rows)
    table["padj"] = false_discovery_control(table["p"])
    return table


#: Formats of the columns of `balance_readings`.
SIGNED = dict.fromkeys(["excitation", "inhibition", "index"], "{:+.2f}")


def balance_readings(changes: pd.Series) -> pd.DataFrame:
    """The balance of excitation and inhibition in a paper's fold changes, by two readings of GRIA2.

    Receptors without the subunit that GRIA2 encodes pass calcium (Isaac, Ashby and McBain 2007), so that its fall can
    mean less excitation, by the amount of receptor, or more.

    Parameters
    ----------
    changes
        Log2 fold changes of GRIA1, GRIA2, SST and PVALB.

    Returns
    -------
    A row a reading: ``fall of GRIA2``, ``excitation`` (mean of GRIA1 and GRIA2, as read), ``inhibition`` (mean of SST
    and PVALB), ``index`` (their difference).
    """
    inhibition = changes[["SST", "PVALB"]].mean()
    rows = []
    for reading, sign in (("less receptor, less excitation", 1), ("calcium passes, more excitation", -1)):
        excitation = (changes["GRIA1"] + sign * changes["GRIA2"]) / 2
        row = {"fall of GRIA2": reading, "excitation": excitation, "inhibition": inhibition}
        rows.append(row | {"index": excitation - inhibition})
    return pd.DataFrame(rows)
