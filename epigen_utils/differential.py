"""One door to differential expression: a design, its contrasts, DESeq2's columns.

The engine is PyDESeq2 (Muzellec et al. 2023); what it does differently from R is measured in
tests/test_differential.py against values of R DESeq2 1.38.3.
"""

import anndata
import numpy as np
import pandas as pd
from formulaic import model_matrix
from formulaic.errors import FormulaicError
from pydeseq2.dds import DeseqDataSet
from pydeseq2.default_inference import DefaultInference
from pydeseq2.ds import DeseqStats
from scipy.stats import binomtest

from epigen_utils import expression, genes, paths
from epigen_utils.errors import DataError

COLUMNS = ["baseMean", "log2FoldChange", "lfcSE", "stat", "pvalue", "padj"]
ENGINES = ("pydeseq2",)


def parse_contrast(text: str) -> tuple[str, str, str]:
    """Read ``variable,target,reference``, as a command line gives it.

    Raises
    ------
    DataError
        If there are not three parts.
    """
    parts = tuple(part.strip() for part in text.split(","))
    if len(parts) != 3 or not all(parts):
        raise DataError(f"contrast {text!r}: write it as variable,target,reference")
    return parts


def deseq(
    adata: anndata.AnnData,
    *,
    design: str,
    contrast: tuple[str, str, str],
    engine: str = "pydeseq2",
    alpha: float = 0.05,
    independent_filter: bool = True,
    cooks_filter: bool = True,
    shrink: bool = False,
    threads: int = 1,
) -> pd.DataFrame:
    """Differential expression of one contrast (Love, Huber and Anders 2014).

    Parameters
    ----------
    adata
        Samples x genes, integer counts in ``layers["counts"]``.
    design
        A formula over columns of ``obs``, e.g. ``~batch + condition``.
    contrast
        (variable, target, reference): a positive log2 fold change is higher in the target.
    alpha
        Level that independent filtering is tuned for.
    shrink
        Whether ``log2FoldChange`` and ``lfcSE`` are shrunk (apeglm's prior, Zhu et al. 2019); p-values are not touched.

    Returns
    -------
    A row a gene, in the order of the data set: ``baseMean`` (counts), ``log2FoldChange``, ``lfcSE`` (log2),
    ``stat`` (Wald), ``pvalue``, ``padj`` (Benjamini-Hochberg). Genes without counts, and genes that Cook's distance or
    independent filtering takes out, have NaN where R has NA.

    Raises
    ------
    DataError
        Naming a column, level or term: not there, too few samples, or confounded with another.
    """
    return deseq_contrasts(
        adata,
        design=design,
        contrasts={"only": contrast},
        engine=engine,
        alpha=alpha,
        independent_filter=independent_filter,
        cooks_filter=cooks_filter,
        shrink=shrink,
        threads=threads,
    )["only"]


def deseq_contrasts(
    adata: anndata.AnnData,
    *,
    design: str,
    contrasts: dict[str, tuple[str, str, str]],
    engine: str = "pydeseq2",
    alpha: float = 0.05,
    independent_filter: bool = True,
    cooks_filter: bool = True,
    shrink: bool = False,
    threads: int = 1,
) -> dict[str, pd.DataFrame]:
    """Several contrasts of one fitted design; otherwise as `deseq`."""
    if engine not in ENGINES:
        raise DataError(f"engine {engine!r}: there is {', '.join(ENGINES)}")
    _check(adata, design, contrasts)
    dds = _fit(adata, design, threads)
    found = {}
    for name, (variable, target, reference) in contrasts.items():
        with expression.quiet_pydeseq2():
            stats = DeseqStats(
                dds,
                contrast=[variable, target, reference],
                alpha=alpha,
                cooks_filter=cooks_filter,
                independent_filter=independent_filter,
                inference=DefaultInference(n_cpus=threads),
                quiet=True,
            )
            stats.summary()
            if shrink:
                stats.lfc_shrink(coeff=f"{variable}[T.{target}]", adapt=True)
        found[name] = stats.results_df[COLUMNS].reindex(adata.var_names)
    return found


def contrasts_of(adata: anndata.AnnData, *, design: str = "", contrast: str = "") -> tuple[str, dict[str, tuple]]:
    """The design and the contrasts of a data set: the caller's, else those of ``data/contrasts.csv``, else the plain ones.

    Parameters
    ----------
    design, contrast
        As `deseq` takes them, the contrast as text; empty to look them up. Without a row in the table, every level of the
        group is compared with the first, within donors where there are any.

    Returns
    -------
    The design, and name -> contrast.
    """
    about = adata.uns["epigen"]
    if contrast:
        variable, target, reference = parse_contrast(contrast)
        return design or f"~{variable}", {f"{target} against {reference}": (variable, target, reference)}
    table = pd.read_csv(paths.CONTRASTS, dtype=str, keep_default_na=False)
    rows = table[table["id"].str.startswith(about["name"] + ":")]
    if len(rows):
        blocking = [term for term in rows["blocking"].iloc[0].split(";") if term]
        found = {row.id.partition(":")[2]: (row.variable, row.target, row.reference) for row in rows.itertuples()}
        return design or "~" + " + ".join([*blocking, rows["variable"].iloc[0]]), found
    group = about["group"]
    reference, *others = adata.obs[group].cat.categories
    blocking = [about["donor"]] if about.get("donor") else []
    return design or "~" + " + ".join([*blocking, group]), {
        f"{level} against {reference}": (group, level, reference) for level in others
    }


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


def _fit(adata: anndata.AnnData, design: str, threads: int) -> DeseqDataSet:
    with expression.quiet_pydeseq2():
        dds = DeseqDataSet(
            counts=expression.counts(adata),
            metadata=adata.obs,
            design=design,
            inference=DefaultInference(n_cpus=threads),
            quiet=True,
        )
        dds.deseq2()
    return dds


def _check(adata: anndata.AnnData, design: str, contrasts: dict[str, tuple[str, str, str]]) -> None:
    """Say in one line what a design or a contrast cannot be."""
    for variable, target, reference in contrasts.values():
        if variable not in adata.obs:
            raise DataError(f"contrast: no column {variable!r} in obs (columns: {', '.join(map(str, adata.obs))})")
        sizes = adata.obs[variable].astype(str).value_counts()
        for level in (target, reference):
            if level not in sizes:
                levels = ", ".join(sorted(sizes.index))
                raise DataError(f"contrast: {variable!r} has no level {level!r} (levels: {levels})")
            if sizes[level] < 2:
                raise DataError(f"contrast: {level!r} of {variable!r} has one sample; a comparison needs replicates")
        if target == reference:
            raise DataError(f"contrast: {target!r} is compared with itself; name two levels")
    matrix = design_matrix(adata, design)
    rank = np.linalg.matrix_rank(matrix.to_numpy())
    if rank < matrix.shape[1]:
        raise DataError(f"design {design!r}: {_dependent(matrix)} cannot be told apart in these samples; drop a term")
    if len(matrix) <= matrix.shape[1]:
        raise DataError(
            f"design {design!r}: {matrix.shape[1]} coefficients for {len(matrix)} samples leave nothing to estimate "
            "dispersion from; add replicates"
        )


def design_matrix(adata: anndata.AnnData, design: str) -> pd.DataFrame:
    """The model matrix of a formula over ``obs``, samples x coefficients.

    Raises
    ------
    DataError
        If the formula cannot be read or names a column that is not there.
    """
    try:
        return pd.DataFrame(model_matrix(design, adata.obs))
    except FormulaicError as error:
        columns = ", ".join(map(str, adata.obs))
        raise DataError(f"design {design!r}: {str(error).splitlines()[0]} (columns: {columns})") from None


def _dependent(matrix: pd.DataFrame) -> str:
    """Names of coefficients whose columns are linear combinations of others."""
    full = np.linalg.matrix_rank(matrix.to_numpy())
    names = [name for name in matrix if np.linalg.matrix_rank(matrix.drop(columns=name).to_numpy()) == full]
    return " and ".join(name for name in names if name != "Intercept") or "its coefficients"
