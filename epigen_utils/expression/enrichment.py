"""Gene set enrichment of a ranked list, by GSEApy."""

import gseapy
import pandas as pd

#: Smallest p-value that is computed: the time grows as p-values fall.
LEAST_P = 1e-6


def gene_set_enrichment(
    statistic: pd.Series, sets: dict[str, list[str]], *, n_permutations: int = 1000, seed: int = 0
) -> pd.DataFrame:
    """Gene set enrichment of a ranked list (Subramanian et al. 2005), with fgsea's p-values (Korotkevich et al. 2021).

    Genes are permuted, not samples, so correlation within a set makes the p-values too small: they rank sets only.

    Parameters
    ----------
    statistic
        Gene -> ranking statistic, such as Wald's; missing values are left out.
    sets
        Name -> genes; sets with fewer than five ranked genes are left out.
    n_permutations
        Of the normalised score; p-values take as many as they need, down to `LEAST_P`.

    Returns
    -------
    A row a set, strongest first: ``set``, ``genes`` (number ranked), ``NES`` (positive: higher in the target), ``p``,
    ``FDR`` (Benjamini-Hochberg), ``leading`` (genes of the leading edge, separated by semicolons). Empty if no set has
    five genes.
    """
    columns = {"Term": "set", "genes": "genes", "NES": "NES", "NOM p-val": "p", "FDR q-val": "FDR"}
    columns |= {"Lead_genes": "leading"}
    ranked = statistic.dropna()
    inside = {name: [gene for gene in dict.fromkeys(members) if gene in ranked.index] for name, members in sets.items()}
    inside = {name: members for name, members in inside.items() if 5 <= len(members) < len(ranked)}
    if not inside:
        return pd.DataFrame(columns=list(columns.values()))
    # Sorted by name first, so that ties do not depend on the order of the table.
    ranked = ranked.sort_index(kind="stable").sort_values(ascending=False, kind="stable")
    table = gseapy.prerank(
        rnk=ranked,
        gene_sets=inside,
        min_size=5,
        max_size=len(ranked),
        permutation_num=n_permutations,
        method="multilevel",
        eps=LEAST_P,
        seed=seed,
        threads=1,
        outdir=None,
        no_plot=True,
    ).res2d
    table["genes"] = [len(inside[name]) for name in table["Term"]]
    table = table[list(columns)].rename(columns=columns).astype({"NES": float, "p": float, "FDR": float})
    return table.sort_values("NES", key=abs, ascending=False, kind="stable", ignore_index=True)
