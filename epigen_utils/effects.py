"""What the results of differential expression say: genes called, beside a paper's values, beside a planted truth."""

import anndata
import gseapy
import numpy as np
import pandas as pd
from scipy.stats import binomtest

from epigen_utils import designs, genes


def summary(results: dict[str, pd.DataFrame], *, alpha: float) -> pd.DataFrame:
    """A row a contrast: genes tested, up and down at the level, left out by Cook's distance and by filtering."""
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


def table_one(
    adata: anndata.AnnData, results: dict[str, pd.DataFrame], reported: pd.Series, *, alpha: float
) -> pd.DataFrame:
    """What each contrast says of the genes that a paper reports, paralogs in rows of their own.

    Parameters
    ----------
    reported
        Human symbol -> log2 fold change in the paper.

    Returns
    -------
    Columns ``human``, ``gene`` (its symbol here), ``contrast``, ``baseMean``, ``log2FoldChange``, ``low``, ``high`` (95%
    Wald interval), ``padj``, ``reported``, ``same sign`` (yes, no, or not called); a gene without an ortholog in the data
    has one row with nothing but its name.
    """
    rows = []
    for gene in genes.in_data(adata, list(reported.index)).itertuples():
        row = {"human": gene.human, "reported": reported[gene.human]}
        if pd.isna(gene.gene):
            rows.append(row | {"gene": "not in the data"})
            continue
        for name, table in results.items():
            found = table.loc[gene.gene]
            change, half = found["log2FoldChange"], 1.96 * found["lfcSE"]
            same = "yes" if change * row["reported"] > 0 else "no"
            row |= {"gene": gene.symbol, "contrast": name, "baseMean": found["baseMean"], "log2FoldChange": change}
            row |= {"low": change - half, "high": change + half, "padj": found["padj"]}
            rows.append(row | {"same sign": same if found["padj"] < alpha else "not called"})
    columns = [
        "human",
        "gene",
        "contrast",
        "baseMean",
        "log2FoldChange",
        "low",
        "high",
        "padj",
        "reported",
        "same sign",
    ]
    return pd.DataFrame(rows, columns=columns)


def planted(truth: pd.DataFrame, adata: anndata.AnnData, contrast: tuple[str, str, str]) -> pd.Series:
    """The planted log2 fold change of every gene in a contrast; pooled levels count the same each.

    Parameters
    ----------
    truth
        Genes x levels of the group, against one level that has no column.
    """
    variable, target, reference = contrast
    change = truth[designs.levels(adata, variable, target)].mean(axis=1)
    return change - truth[reference] if reference in truth else change


def against_truth(results: pd.DataFrame, truth: pd.Series, *, alpha: float, edges: tuple[float, ...]) -> pd.DataFrame:
    r"""Power by the size of the planted effect, and the false discoveries, of one contrast of a simulated cohort.

    Parameters
    ----------
    truth
        Planted log2 fold change of each gene.
    edges
        Limits of the sizes, ascending.

    Returns
    -------
    A row a bin of \|log2 fold change\|: ``size``, ``genes``, ``found`` (share with adjusted p below the level); the first
    row, size 0, gives the genes without an effect, and ``found`` there is the share of them that was called.
    """
    called = results["padj"] < alpha
    tested = results["baseMean"] > 0
    size = truth.abs()
    bins = [("0 (none planted)", size == 0)]
    bins += [
        (f"{low:g} to {high:g}", (size > low) & (size <= high)) for low, high in zip(edges, edges[1:], strict=False)
    ]
    rows = [
        {"size": name, "genes": int((inside & tested).sum()), "found": float(called[inside & tested].mean())}
        for name, inside in bins
    ]
    return pd.DataFrame(rows)


def false_discovery_rate(results: pd.DataFrame, truth: pd.Series, *, alpha: float) -> tuple[float, float, float]:
    """Share of the called genes that have no planted effect, with its 95% interval (Clopper and Pearson 1934).

    Returns
    -------
    Share, low, high; NaN where nothing is called.
    """
    called = results["padj"] < alpha
    if not called.any():
        return np.nan, np.nan, np.nan
    wrong, n = int((truth[called] == 0).sum()), int(called.sum())
    low, high = binomtest(wrong, n).proportion_ci(method="exact")
    return wrong / n, float(low), float(high)


def enrichment(
    statistic: pd.Series, sets: dict[str, list[str]], *, n_permutations: int = 1000, seed: int = 0
) -> pd.DataFrame:
    """Gene set enrichment of a ranked list (Subramanian et al. 2005, by GSEApy's ``prerank``).

    Genes are permuted, not samples, so correlation within a set makes the p-values too small; they rank, they do not prove.

    Parameters
    ----------
    statistic
        Gene -> what the genes are ranked by, such as the Wald statistic; missing values are left out.
    sets
        Name -> genes; sets with fewer than five ranked genes are left out.

    Returns
    -------
    A row a set, strongest first: ``set``, ``genes`` (ranked), ``NES`` (positive: higher in the target), ``p``, ``FDR``,
    ``leading`` (genes of the leading edge, separated by semicolons). Empty where no set has five genes.
    """
    columns = {
        "Term": "set",
        "genes": "genes",
        "NES": "NES",
        "NOM p-val": "p",
        "FDR q-val": "FDR",
        "Lead_genes": "leading",
    }
    ranked = statistic.dropna()
    inside = {name: [gene for gene in dict.fromkeys(members) if gene in ranked.index] for name, members in sets.items()}
    inside = {name: members for name, members in inside.items() if 5 <= len(members) < len(ranked)}
    if not inside:
        return pd.DataFrame(columns=list(columns.values()))
    # A tie broken by the table's order would be arbitrary in another way on each machine.
    ranked = ranked.sort_index(kind="stable").sort_values(ascending=False, kind="stable")
    found = gseapy.prerank(
        rnk=ranked,
        gene_sets=inside,
        min_size=5,
        max_size=len(ranked),
        permutation_num=n_permutations,
        seed=seed,
        threads=1,
        outdir=None,
        no_plot=True,
    ).res2d
    found["genes"] = [len(inside[name]) for name in found["Term"]]
    found = found[list(columns)].rename(columns=columns)
    found = found.astype({"NES": float, "p": float, "FDR": float})
    return found.sort_values("NES", key=abs, ascending=False, kind="stable", ignore_index=True)


def _by_human(published: pd.DataFrame, species: str) -> pd.DataFrame:
    human = published.assign(human=published["gene"].map(genes.one_to_one(species))).dropna(subset=["human"])
    return human.drop_duplicates("human").set_index("human")


def beside_published(
    adata: anndata.AnnData, results: dict[str, pd.DataFrame], published: pd.DataFrame, species: str, *, alpha: float
) -> pd.DataFrame:
    r"""How large the fold changes of a cohort are beside those of a published table, and whether they point the same way.

    Genes are matched by their human orthologs, one to one on both sides.

    Parameters
    ----------
    published
        Columns ``gene`` (symbols of ``species``), ``log2FoldChange``, ``padj``.

    Returns
    -------
    A row for the published table and each contrast: ``genes`` (matched, with a fold change), ``called``, quantiles of
    \|log2 fold change\| (``median``, ``95%``, ``99%``), ``Spearman`` (with the published fold changes), ``both called`` and
    ``same sign`` (share of these).
    """
    human = _by_human(published, species)
    mine = adata.var["symbol"].map(genes.one_to_one(genes.species_of(adata))).dropna()
    mine = mine[~mine.duplicated(keep=False)]

    def sizes(name, change, called):
        low, middle, high = change.abs().quantile([0.5, 0.95, 0.99])
        return {
            "table": name,
            "genes": len(change),
            "called": int(called.sum()),
            "median": low,
            "95%": middle,
            "99%": high,
        }

    rows = [sizes("published", human["log2FoldChange"], human["padj"] < alpha)]
    for name, table in results.items():
        own = (
            table.loc[mine.index, ["log2FoldChange", "padj"]]
            .set_axis(mine.to_numpy())
            .dropna(subset=["log2FoldChange"])
        )
        row = sizes(name, own["log2FoldChange"], own["padj"] < alpha)
        pair = own.join(human, how="inner", rsuffix="_published")
        both = pair[(pair["padj"] < alpha) & (pair["padj_published"] < alpha)]
        row["Spearman"] = pair["log2FoldChange"].corr(pair["log2FoldChange_published"], method="spearman")
        row["both called"] = len(both)
        row["same sign"] = (both["log2FoldChange"] * both["log2FoldChange_published"] > 0).mean()
        rows.append(row)
    return pd.DataFrame(rows)


def places_in_published(reported: pd.Series, published: pd.DataFrame, species: str) -> pd.DataFrame:
    r"""Where fold changes that a paper reports would stand among those of a published table.

    Parameters
    ----------
    reported
        Human symbol -> log2 fold change.
    published
        As of `beside_published`.

    Returns
    -------
    A row a gene: ``human``, ``reported``, ``published`` and ``padj`` (that gene there), ``as large`` (share of all genes there
    whose \|log2 fold change\| is at least the reported one).
    """
    human = _by_human(published, species)
    size = published["log2FoldChange"].abs()
    rows = [
        {
            "human": gene,
            "reported": change,
            "published": human["log2FoldChange"].get(gene, np.nan),
            "padj": human["padj"].get(gene, np.nan),
            "as large": float((size >= abs(change)).mean()),
        }
        for gene, change in reported.items()
    ]
    return pd.DataFrame(rows)
