"""Filters that select the cells of a corpus, and the medians of its genes; cells are read in chunks.

Paper B, section 1.2 (Genecorpus-30M's filters) and equation 1; Theodoris et al. 2023, Methods.
"""

from collections.abc import Collection, Iterable, Iterator
from pathlib import Path

import anndata
import numpy as np
import pandas as pd
from crick import TDigest
from scipy import sparse

from epigen_utils.data import cell_source, datasets, genes, orthologs, registry
from epigen_utils.errors import DataError
from epigen_utils.files import sha256
from epigen_utils.geneformer.encoding import TARGET_SUM

#: Cells further from the mean of their data set, in standard deviations, are removed (paper B, section 1.2).
MAX_DEVIATIONS = 3.0
#: Cells with fewer protein-coding or miRNA genes are removed: 15% of fewer than 7 is less than one masked gene.
MIN_GENES = 7
#: File of ``data/``: column of a sample table -> words that mark cells with a high mutational burden or of an
#: immortalised line.
EXCLUDED_CELLS_FILE = "excluded_cells.yml"
#: Cells read at once.
CHUNK = 4096
#: Filter steps in order of application, and the criterion by which each removes a cell.
FILTER_STEPS = {
    "metadata": "malignant or immortalised, by the sample table",
    "empty": "no counts at all",
    "mitochondrial": "mitochondrial share more than 3 SD above the data set's mean",
    "depth": "total counts more than 3 SD from the data set's mean",
    "genes": "fewer than 7 protein-coding or miRNA genes",
}


def open_sources(names: Iterable[str], *, species: str = "") -> dict[str, cell_source.CellSource]:
    """Open data sets, each by its name in the registry or by its path.

    An h5ad with human Ensembl ids is read in chunks. Genes of other data sets are mapped to human ones
    (`orthologs.humanise`).

    Parameters
    ----------
    species
        Species of a user's own data sets (`datasets.load`).

    Raises
    ------
    DataError
        If a data set cannot be loaded (`datasets.load`), mapped to human genes or read (`cell_source.H5adCells`).
    """
    opened = {}
    for name in names:
        if name in registry.entries():
            opened[name] = cell_source.InMemoryCells(orthologs.humanise(datasets.load(name, task="counts")))
        else:
            opened[Path(name).name] = _open_file(name, species)
    return opened


def _open_file(name: str, species: str) -> cell_source.CellSource:
    if name.endswith(".h5ad") and Path(name).is_file() and cell_source.has_human_ids(name):
        source = cell_source.H5adCells(name)
        source.uns["epigen"]["sha256"] = {"counts": sha256(Path(name))}
        return source
    adata = datasets.load(name, task="counts", species=species)
    return cell_source.InMemoryCells(orthologs.humanise(adata))


def measure_cells(source: cell_source.CellSource, *, species: str = "homo_sapiens") -> pd.DataFrame:
    """Quality measures that the filters use, one row a cell of the source.

    Returns
    -------
    Indexed by position in the source: ``total`` (counts), ``mitochondrial`` (share of them; NaN without counts) and
    ``genes`` (protein-coding or miRNA genes with a count).

    Raises
    ------
    DataError
        If none of the genes is a protein-coding or miRNA gene of the species.
    """
    annotation = (
        genes.gene_table(species).drop_duplicates("ensembl_id").set_index("ensembl_id").reindex(source.ensembl_ids)
    )
    coding = annotation["biotype"].isin(["protein_coding", "miRNA"]).to_numpy()
    mitochondrial = annotation["symbol"].fillna("").str.upper().str.startswith("MT-").to_numpy()
    if not coding.any():
        raise DataError(
            f"{source.where}: none of its {len(coding)} genes is a protein-coding or miRNA gene of {species}, "
            f"{source.ensembl_ids[0]} for one; name its species"
        )
    rows = []
    for part in source.parts(CHUNK):
        counts = part.counts()
        total = np.asarray(counts.sum(axis=1)).ravel().astype(float)
        with np.errstate(invalid="ignore"):
            share = np.asarray(counts[:, mitochondrial].sum(axis=1)).ravel() / total
        detected = np.asarray((counts[:, coding] > 0).sum(axis=1)).ravel()
        rows.append(pd.DataFrame({"total": total, "mitochondrial": share, "genes": detected}, part.rows))
    return pd.concat(rows)


def curate(
    sources: dict[str, cell_source.CellSource], *, species: str = "homo_sapiens", excluded: dict[str, str] | None = None
) -> pd.DataFrame:
    """Apply the paper's filters with the mean and standard deviation of each data set.

    Cells excluded by metadata, and cells without counts, are removed first. Means and standard deviations are computed
    once, over the remaining cells.

    Parameters
    ----------
    sources
        Data set -> its cells.
    excluded
        Column of a sample table -> case-insensitive regular expression of values to exclude; by default
        ``data/excluded_cells.yml``. Columns missing from a data set are ignored.

    Returns
    -------
    One row a cell: ``dataset``, ``position``, ``cell_id``, the columns of `measure_cells`, and ``removed``: the step of
    `FILTER_STEPS` that removes the cell, empty if it passes.
    """
    tables = []
    for name, source in sources.items():
        table = measure_cells(source, species=species)
        ids = source.obs.index[table.index].astype(str)
        removed = pd.Series("", table.index)
        removed[excluded_by_metadata(source.table.iloc[table.index], excluded)] = "metadata"
        removed[(removed == "") & (table["total"] == 0)] = "empty"
        eligible = table[removed == ""]
        mean, sd = eligible.mean(), eligible.std(ddof=0)
        high = (table["mitochondrial"] - mean["mitochondrial"]) > MAX_DEVIATIONS * sd["mitochondrial"]
        far = (table["total"] - mean["total"]).abs() > MAX_DEVIATIONS * sd["total"]
        for step, fails in (("mitochondrial", high), ("depth", far), ("genes", table["genes"] < MIN_GENES)):
            removed[(removed == "") & fails] = step
        tables.append(table.assign(removed=removed, dataset=name, cell_id=ids).rename_axis("position").reset_index())
    columns = ["dataset", "position", "cell_id", "total", "mitochondrial", "genes", "removed"]
    return pd.concat(tables, ignore_index=True)[columns]


def excluded_by_metadata(table: pd.DataFrame, excluded: dict[str, str] | None = None) -> np.ndarray:
    """Whether a sample table calls each cell malignant or immortalised; ``excluded`` as in `curate`."""
    excluded = excluded or registry.read_data_file(EXCLUDED_CELLS_FILE)
    is_excluded = np.zeros(len(table), bool)
    for column, words in excluded.items():
        if column in table:
            is_excluded |= table[column].astype(str).str.contains(words, case=False, regex=True).to_numpy()
    return is_excluded


def filter_flow(curated: pd.DataFrame) -> pd.DataFrame:
    """Number of cells that each step removes from each data set.

    Returns
    -------
    One row a data set and step, in order: ``dataset``, ``step``, ``what``, ``removed`` and ``left`` (cells).
    """
    rows = []
    for name, table in curated.groupby("dataset", sort=False):
        left = len(table)
        for step, what in FILTER_STEPS.items():
            removed = int((table["removed"] == step).sum())
            left -= removed
            rows.append({"dataset": name, "step": step, "what": what, "removed": removed, "left": left})
    return pd.DataFrame(rows)


def example_entries(
    sources: dict[str, cell_source.CellSource], curated: pd.DataFrame, *, n_genes: int = 2
) -> pd.DataFrame:
    """Example entries of the corpus in the layout of the paper's Figure 1: genes of cells with the filter criteria.

    For each data set and outcome (passed, or removed by a step), the first cell is shown with its most abundant genes
    and its most abundant mitochondrial gene.

    Returns
    -------
    One row a gene and cell: ``gene id``, ``name``, ``data set``, ``cell``, ``count``, ``mitochondrial`` (counts of the
    cell), ``type`` (biotype) and ``kept``.
    """
    annotation = genes.gene_table("homo_sapiens").drop_duplicates("ensembl_id").set_index("ensembl_id")
    rows = []
    for cell in curated[curated["total"] > 0].drop_duplicates(["dataset", "removed"]).itertuples():
        source = sources[cell.dataset]
        counts = source.counts_of(cell.position)
        table = annotation.reindex(source.ensembl_ids).assign(count=counts)
        mitochondrial = table["symbol"].fillna("").str.upper().str.startswith("MT-")
        abundant = table.nlargest(n_genes, "count")
        examples = pd.concat([abundant, table[mitochondrial].nlargest(1, "count")])
        for gene in examples[~examples.index.duplicated() & (examples["count"] > 0)].itertuples():
            row = {"gene id": gene.Index, "name": gene.symbol, "data set": cell.dataset, "cell": cell.cell_id}
            row |= {"count": int(gene.count), "mitochondrial": int(table.loc[mitochondrial, "count"].sum())}
            rows.append(row | {"type": gene.biotype, "kept": f"no: {cell.removed}" if cell.removed else "yes"})
    return pd.DataFrame(rows)


def kept_positions(curated: pd.DataFrame, dataset: str) -> np.ndarray:
    """Positions of the cells of a data set that pass all filters, the format of `cell_source.H5adCells`'s ``keep``."""
    return curated.loc[(curated["dataset"] == dataset) & (curated["removed"] == ""), "position"].to_numpy()


def digest_medians(
    sources: Iterable[cell_source.CellSource | anndata.AnnData], *, compression: float = 100.0
) -> dict[str, float]:
    """Non-zero median of each gene over all cells, in one pass, from one t-digest a gene (Dunning 2019).

    Values are counts over the cell's depth, times 10,000 (equation 1). Memory grows with the genes, not with the cells.

    Parameters
    ----------
    compression
        Compression of the digests: higher is closer to the exact median and takes more memory.

    Returns
    -------
    Ensembl id -> median, for all genes with a count.
    """
    digests: dict[str, TDigest] = {}
    for gene, values in _expressed_values(sources):
        digests.setdefault(gene, TDigest(compression)).update(values)
    return {gene: float(digest.quantile(0.5)) for gene, digest in sorted(digests.items())}


def exact_medians(sources: Iterable[cell_source.CellSource | anndata.AnnData]) -> dict[str, float]:
    """Exact non-zero median of each gene, with all values in memory; see `digest_medians`."""
    values: dict[str, list[np.ndarray]] = {}
    for gene, chunk in _expressed_values(sources):
        values.setdefault(gene, []).append(chunk)
    return {gene: float(np.median(np.concatenate(chunks))) for gene, chunks in sorted(values.items())}


def compare_medians(
    sources: Collection[cell_source.CellSource | anndata.AnnData], *, compression: float = 100.0
) -> pd.DataFrame:
    """Medians by t-digest beside the exact ones, with all values in memory; see `digest_medians`.

    Returns
    -------
    By ``ensembl_id``: ``median``, ``t-digest``, ``cells`` (that express the gene) and ``rank`` (share of the values
    below the digest's median, ties by half; 0.5 if it is exact).
    """
    digests = digest_medians(sources, compression=compression)
    values: dict[str, list[np.ndarray]] = {}
    for gene, chunk in _expressed_values(sources):
        values.setdefault(gene, []).append(chunk)
    rows = {}
    for gene, found in digests.items():
        every = np.concatenate(values[gene])
        # The digest rounds: a value of the gene itself is to count as equal.
        rank = ((every < found * (1 - 1e-9)).mean() + (every <= found * (1 + 1e-9)).mean()) / 2
        rows[gene] = {"median": np.median(every), "t-digest": found, "cells": len(every), "rank": rank}
    return pd.DataFrame.from_dict(rows, orient="index").rename_axis("ensembl_id").astype({"cells": int})


def _expressed_values(sources: Iterable[cell_source.CellSource | anndata.AnnData]) -> Iterator[tuple[str, np.ndarray]]:
    """Iterate over genes and their non-zero values in each chunk of cells, counts scaled to a depth of 10,000.

    Genes without an Ensembl id are left out; they count in the depth.
    """
    for source in sources:
        source = cell_source.InMemoryCells(source) if isinstance(source, anndata.AnnData) else source
        for part in source.parts(CHUNK):
            counts = part.counts().astype(np.float64)
            counts.eliminate_zeros()
            depth = part.depth(counts)
            scale = np.divide(TARGET_SUM, depth, out=np.zeros(len(depth)), where=depth > 0)
            table = sparse.csc_matrix(sparse.diags(scale) @ counts)
            for column in np.flatnonzero(np.diff(table.indptr)):
                if gene := source.ensembl_ids[column]:
                    yield gene, table.data[table.indptr[column] : table.indptr[column + 1]]
