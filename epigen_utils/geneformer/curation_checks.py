"""What the curation filters do to a corpus, and whether the paper's own example of it is consistent.

Paper B, section 1.2, Figures 1 and 2, and section 4.1.
"""

import itertools

import numpy as np
import pandas as pd
from scipy.stats import entropy, spearmanr

from epigen_utils.data import cell_source, genes, registry
from epigen_utils.geneformer import curation

#: Values of a sample table to try the filter on malignant cells and cell lines with, and whether each is excluded.
EXCLUSION_EXAMPLES = (
    ("cell_type", "malignant cell", True),
    ("cell_type", "non-malignant epithelial cell", False),
    ("cell_type", "HeLa, immortalised", True),
    ("cell_type", "tumour cell", True),
    ("cell_type", "tumour-infiltrating T cell", False),
    ("cell_type", "cancer-associated fibroblast", False),
    ("cell_type", "B cell lineage", False),
    ("disease", "acute myeloid leukaemia", True),
    ("disease", "lung adenocarcinoma", True),
    ("disease", "no tumour", False),
    ("disease", "dilated cardiomyopathy", False),
    ("tissue_type", "cell line", True),
    ("tissue_type", "tissue", False),
)
#: Definitions of columns of the tables here, for a page.
METADATA_COLUMNS = {"columns": "columns of the sample table that the filter reads", "values": "distinct values in them"}
LIMIT_COLUMNS = {
    "lower": "mean less three standard deviations of the total counts",
    "upper": "mean plus three standard deviations",
    "below": "cells under the lower limit",
    "above": "cells over the upper limit",
    "spread": "standard deviation of the total counts over their mean; 0 after the division by depth",
    "genes and depth": "Spearman correlation of a cell's detected genes and total counts; the division leaves it",
}
COMPOSITION_COLUMNS = {
    "by": "column of the sample table; empty: the cells are not labelled",
    "is organ": "whether it names an organ or tissue",
    "share": "of the largest level",
    "effective levels": "the number of equally large levels that would be as diverse, exp of the entropy",
}
ERROR_COLUMNS = {
    "cells": "number of cells that express the gene",
    "median error": "relative error over the genes of the row",
    "largest error": "relative error over the genes of the row",
    "largest rank error": "distance from one half of the share of a gene's values that lie below the digest's median",
}
EXAMPLE_COLUMNS = {
    "mito": "as the figure heads it, without a unit",
    "passes": "the figure's column QC",
    "id": "what stands in the id column",
    "fits": "whether the id, with eleven digits, is that of the name",
    "above mito": "whether a mitochondrial gene has more counts than the cell's mito",
}
#: Lower limits of the bins of `median_errors`: cells that express a gene.
CELL_BINS = (1, 2, 10, 100, 300)


def pipeline_steps(flow: pd.DataFrame, n_genes: int) -> pd.DataFrame:
    """Steps of the curation pipeline with the numbers of a run (paper B, Figure 2).

    Parameters
    ----------
    flow
        Output of `curation.filter_flow`.
    n_genes
        Genes with a median.

    Returns
    -------
    One row a step: ``step``, ``cells`` (after it), ``removed`` (by it; NaN where nothing is removed) and ``what``.
    """
    by_step = flow.groupby("step", sort=False).agg(
        removed=("removed", "sum"), left=("left", "sum"), what=("what", "first")
    )
    n_datasets, total = flow["dataset"].nunique(), int(by_step["removed"].iloc[0] + by_step["left"].iloc[0])
    rows = [{"step": "raw counts", "cells": total, "what": f"{n_datasets} data sets, human Ensembl ids"}]
    for name, step in by_step.iterrows():
        rows.append(
            {"step": f"filter: {name}", "cells": step["left"], "removed": step["removed"], "what": step["what"]}
        )
    left = int(by_step["left"].iloc[-1])
    rows.append({"step": "medians", "cells": left, "what": f"non-zero median of {n_genes:,} genes, by t-digest"})
    rows.append(
        {"step": "rank value encoding", "cells": left, "what": "genes of each cell in the order of their values"}
    )
    return pd.DataFrame(rows)


def metadata_filter(sources: dict[str, cell_source.CellSource], curated: pd.DataFrame) -> pd.DataFrame:
    """What the filter on malignant cells and cell lines could read in each data set.

    Returns
    -------
    One row a data set: ``dataset``, ``columns`` (of those that the filter reads; ``none``), ``values`` (distinct ones)
    and ``removed`` (cells).
    """
    known = registry.read_data_file(curation.EXCLUDED_CELLS_FILE)
    rows = []
    for name, source in sources.items():
        columns = [column for column in known if column in source.table]
        values = sum(source.table[column].nunique() for column in columns)
        removed = int(((curated["dataset"] == name) & (curated["removed"] == "metadata")).sum())
        rows.append({"dataset": name, "columns": ", ".join(columns) or "none", "values": values, "removed": removed})
    return pd.DataFrame(rows)


def exclusion_examples() -> pd.DataFrame:
    """Try the filter on malignant cells and cell lines on `EXCLUSION_EXAMPLES`.

    Returns
    -------
    One row a value: ``column``, ``value``, ``excluded`` and ``right`` (whether it should be).
    """
    rows = []
    for column, value, expected in EXCLUSION_EXAMPLES:
        excluded = bool(curation.excluded_by_metadata(pd.DataFrame({column: [value]}))[0])
        rows.append({"column": column, "value": value, "excluded": excluded, "right": excluded == expected})
    return pd.DataFrame(rows)


def depth_limits(curated: pd.DataFrame) -> pd.DataFrame:
    """Limits of the filter on total counts, and what depth does to a cell, in each data set.

    Returns
    -------
    One row a data set: ``dataset``, ``cells`` (with counts, not removed by metadata), ``median``, ``lower`` and
    ``upper`` (limits: mean -+ 3 standard deviations), ``below`` and ``above`` (cells outside), ``spread`` (standard
    deviation over mean; 0 once counts are divided by the depth), and ``genes and depth`` (Spearman correlation of the
    detected genes with the total counts, which the division leaves as it is).
    """
    rows = []
    for name, cells in curated[~curated["removed"].isin(["metadata", "empty"])].groupby("dataset", sort=False):
        total, sd = cells["total"], cells["total"].std(ddof=0)
        lower, upper = (total.mean() + sign * curation.MAX_DEVIATIONS * sd for sign in (-1, 1))
        row = {"dataset": name, "cells": len(cells), "median": total.median(), "lower": lower, "upper": upper}
        row |= {"below": int((total < lower).sum()), "above": int((total > upper).sum()), "spread": sd / total.mean()}
        rows.append(row | {"genes and depth": spearmanr(total, cells["genes"]).statistic})
    return pd.DataFrame(rows)


def composition(sources: dict[str, cell_source.CellSource], curated: pd.DataFrame) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Composition of the cells that stay, by organ or tissue if the sample table names it, else by kind of cell.

    Returns
    -------
    First, cells by level (rows) and data set (columns). Second, one row a data set: ``dataset``, ``by`` (column that
    names the levels; empty: unlabelled), ``is organ``, ``levels``, ``largest`` (level) with its ``share``, and
    ``effective levels`` (exp of the entropy: of levels of equal size, as many would be as diverse).
    """
    organ_names = registry.read_data_file("metadata_columns.yml")["tissue"]
    counts, rows = {}, []
    for name, source in sources.items():
        organ = next((column for column in source.table if str(column).lower() in organ_names), "")
        column = organ or source.uns["epigen"].get("group") or ""
        kept = curation.kept_positions(curated, name)
        levels = source.table[column].astype(str) if column else pd.Series("not labelled", source.table.index)
        counts[name] = levels.iloc[kept].value_counts()
        shares = counts[name] / counts[name].sum()
        row = {"dataset": name, "by": column, "is organ": bool(organ), "levels": len(shares)}
        row |= {"largest": shares.index[0], "share": shares.iloc[0], "effective levels": np.exp(entropy(shares))}
        rows.append(row)
    return pd.DataFrame(counts).fillna(0).astype(int), pd.DataFrame(rows)


def describe_composition(kinds: pd.DataFrame) -> str:
    """Which data sets name an organ or tissue, as a sentence in MyST; ``kinds`` is `composition`'s second table."""
    named = kinds.loc[kinds["is organ"], "dataset"]
    if named.empty:
        return "No sample table of this run names an organ; kinds of cells take its place."
    sentence = f"An organ or tissue is named in {', '.join(f'`{name}`' for name in named)}"
    return f"{sentence}; elsewhere kinds of cells take its place." if len(named) < len(kinds) else f"{sentence}."


def median_errors(medians: pd.DataFrame) -> pd.DataFrame:
    """Errors of medians by t-digest, by the number of cells that express the gene.

    Parameters
    ----------
    medians
        Output of `curation.compare_medians`.

    Returns
    -------
    One row a bin of `CELL_BINS`: ``cells`` (range), ``genes``, ``median error`` and ``largest error`` (relative), and
    ``largest rank error`` (distance of the digest's rank from the middle).
    """
    table = medians.assign(
        error=(medians["t-digest"] / medians["median"] - 1).abs(), rank_error=(medians["rank"] - 0.5).abs()
    )
    bins = np.searchsorted(CELL_BINS, table["cells"], side="right") - 1
    ends = [str(low) if low == high - 1 else f"{low} to {high - 1}" for low, high in itertools.pairwise(CELL_BINS)]
    names = [*ends, f"{CELL_BINS[-1]} or more"]
    by_bin = table.groupby(bins).agg(
        genes=("error", "size"),
        median_error=("error", "median"),
        largest_error=("error", "max"),
        largest_rank_error=("rank_error", "max"),
    )
    by_bin = by_bin.rename(index=dict(enumerate(names)), columns=lambda name: name.replace("_", " "))
    return by_bin.rename_axis("cells").reset_index()


def check_example_rows(rows: pd.DataFrame) -> pd.DataFrame:
    """Check the rows of the paper's Figure 1 against the gene table and against each other.

    Parameters
    ----------
    rows
        ``data/paper_b_figure1.csv``: ``gene_id``, ``name``, ``sample``, ``count``, ``mito``, ...

    Returns
    -------
    The rows with ``id`` (``Ensembl id``, ``symbol``, or ``Ensembl id with <n> digits`` where n is not 11), ``fits``
    (whether the gene table has the name for the id, its number of digits put right; None for a symbol) and ``above
    mito`` (a mitochondrial gene with more counts than the cell's mitochondrial ones).
    """
    symbols = genes.gene_table("homo_sapiens").drop_duplicates("ensembl_id").set_index("ensembl_id")["symbol"]
    kinds, fits = [], []
    for gene_id, name in zip(rows["gene_id"], rows["name"], strict=True):
        digits = gene_id.removeprefix("ENSG")
        if not (gene_id.startswith("ENSG") and digits.isdigit()):
            kinds.append("symbol")
            fits.append(None)
            continue
        kinds.append("Ensembl id" if len(digits) == 11 else f"Ensembl id with {len(digits)} digits")
        fits.append(symbols.get(f"ENSG{int(digits):011d}") == genes.approved_symbol(name))
    above = rows["name"].str.startswith("MT-") & (rows["count"] > rows["mito"])
    return rows.assign(id=kinds, fits=fits, **{"above mito": above})
