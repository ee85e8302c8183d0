"""Which cells go into a corpus, and what its genes' medians are; a part of the cells at a time.

Paper B, section 1.2 (Genecorpus-30M's filters) and equation 1; Theodoris et al. 2023, Methods.
"""

from collections.abc import Iterable, Iterator
from pathlib import Path

import anndata
import numpy as np
import pandas as pd
from crick import TDigest
from scipy import sparse

from epigen_utils import cells, datasets, genes
from epigen_utils.encoding import TARGET_SUM
from epigen_utils.errors import DataError
from epigen_utils.files import sha256

#: Standard deviations from the mean of its data set at which a cell goes (paper B, section 1.2).
MOST_DEVIATIONS = 3.0
#: Protein-coding or miRNA genes below which a cell goes: 15% of fewer are no masked gene.
LEAST_GENES = 7
#: Columns of a sample table, and words in them that mark cells with a high mutational burden or of an immortal line.
EXCLUDED = {
    "disease": r"cancer|carcinoma|tumou?r|leuka?emia|lymphoma|melanoma|gliom|glioblastoma|sarcoma|myeloma|neoplas|malignan",
    "cell_type": r"malignant|neoplastic|cancer|tumou?r cell|cell line|immortali[sz]ed",
    "tissue_type": r"cell line",
}
#: Cells read at once.
CHUNK = 4096
#: Steps in the order in which they are applied, and what each asks.
STEPS = {
    "metadata": "malignant or immortalised, by the sample table",
    "empty": "no counts at all",
    "mitochondrial": "mitochondrial share more than 3 SD above the data set's mean",
    "depth": "total counts more than 3 SD from the data set's mean",
    "genes": "fewer than 7 protein-coding or miRNA genes",
}


def sources(names: Iterable[str]) -> dict[str, cells.Source]:
    """Data sets by name, of the registry, or by the path of an h5ad, which is read a part at a time.

    Genes of the registry's sets are read as human ones (`genes.humanised`); an h5ad needs human Ensembl ids.

    Raises
    ------
    DataError
        As `datasets.load`, `genes.humanised` and `cells.CountsFile`.
    """
    found = {}
    for name in names:
        if str(name).endswith(".h5ad"):
            source = cells.CountsFile(name)
            source.uns["epigen"]["sha256"] = {"counts": sha256(Path(name))}
            found[Path(name).name] = source
        else:
            found[name] = cells.InMemory(genes.humanised(datasets.load(name, task="counts")))
    return found


def measure(source: cells.Source, *, species: str = "homo_sapiens") -> pd.DataFrame:
    """What the filters look at, a row a cell of the source that is kept so far.

    Returns
    -------
    Indexed by position in the source: ``total`` (counts), ``mitochondrial`` (share of them; NaN without counts), ``genes``
    (protein-coding or miRNA, with a count).

    Raises
    ------
    DataError
        If none of the genes is protein-coding or a miRNA of the species.
    """
    known = genes.table(species).drop_duplicates("ensembl_id").set_index("ensembl_id").reindex(source.ensembl_ids)
    coding = known["biotype"].isin(["protein_coding", "miRNA"]).to_numpy()
    mitochondrial = known["symbol"].fillna("").str.upper().str.startswith("MT-").to_numpy()
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
    sources: dict[str, cells.Source], *, species: str = "homo_sapiens", excluded: dict[str, str] | None = None
) -> pd.DataFrame:
    """Apply the paper's filters, each data set by its own mean and standard deviation.

    Cells that the sample table excludes, and cells without counts, go first; means and standard deviations are of the others,
    and do not change with what the filters remove.

    Parameters
    ----------
    sources
        Data set -> its cells.
    excluded
        Column of a sample table -> regular expression of what is left out, in any case; `EXCLUDED` by default. A data set
        without the column loses nothing by it.

    Returns
    -------
    A row a cell: ``dataset``, ``position``, ``cell_id``, what `measure` gives, and ``removed`` by: a name of `STEPS`, or empty
    for a cell that stays.
    """
    tables = []
    for name, source in sources.items():
        table = measure(source, species=species)
        ids = source.obs.index[table.index].astype(str)
        removed = pd.Series("", table.index)
        removed[_by_metadata(source.table.iloc[table.index], excluded or EXCLUDED)] = "metadata"
        removed[(removed == "") & (table["total"] == 0)] = "empty"
        looked_at = table[removed == ""]
        mean, sd = looked_at.mean(), looked_at.std(ddof=0)
        high = (table["mitochondrial"] - mean["mitochondrial"]) > MOST_DEVIATIONS * sd["mitochondrial"]
        far = (table["total"] - mean["total"]).abs() > MOST_DEVIATIONS * sd["total"]
        for step, fails in (("mitochondrial", high), ("depth", far), ("genes", table["genes"] < LEAST_GENES)):
            removed[(removed == "") & fails] = step
        tables.append(table.assign(removed=removed, dataset=name, cell_id=ids).rename_axis("position").reset_index())
    columns = ["dataset", "position", "cell_id", "total", "mitochondrial", "genes", "removed"]
    return pd.concat(tables, ignore_index=True)[columns]


def _by_metadata(table: pd.DataFrame, excluded: dict[str, str]) -> np.ndarray:
    found = np.zeros(len(table), bool)
    for column, words in excluded.items():
        if column in table:
            found |= table[column].astype(str).str.contains(words, case=False, regex=True).to_numpy()
    return found


def flow(curated: pd.DataFrame) -> pd.DataFrame:
    """What each step removes from each data set.

    Returns
    -------
    A row a data set and step, in order: ``dataset``, ``step``, ``what``, ``removed`` and ``left`` (cells).
    """
    rows = []
    for name, table in curated.groupby("dataset", sort=False):
        left = len(table)
        for step, what in STEPS.items():
            removed = int((table["removed"] == step).sum())
            left -= removed
            rows.append({"dataset": name, "step": step, "what": what, "removed": removed, "left": left})
    return pd.DataFrame(rows)


def example(sources: dict[str, cells.Source], curated: pd.DataFrame, *, n_genes: int = 2) -> pd.DataFrame:
    """A few entries of the corpus as the paper's Figure 1 shows them: genes of some cells with what the filters go by.

    Of each data set the first cell of each fate (staying, or removed by a step) is shown with its most abundant genes, and its
    most abundant mitochondrial one.

    Returns
    -------
    A row a gene and cell: ``gene id``, ``name``, ``data set``, ``cell``, ``count``, ``mitochondrial`` (counts of the cell),
    ``type`` (biotype) and ``kept``.
    """
    known = genes.table("homo_sapiens").drop_duplicates("ensembl_id").set_index("ensembl_id")
    rows = []
    for cell in curated[curated["total"] > 0].drop_duplicates(["dataset", "removed"]).itertuples():
        source = sources[cell.dataset]
        counts = source.matrix[cell.position : cell.position + 1].toarray().ravel()
        table = known.reindex(source.ensembl_ids).assign(count=counts)
        mitochondrial = table["symbol"].fillna("").str.upper().str.startswith("MT-")
        best = table.nlargest(n_genes, "count")
        shown = pd.concat([best, table[mitochondrial].nlargest(1, "count")])
        for gene in shown[~shown.index.duplicated()].itertuples():
            row = {"gene id": gene.Index, "name": gene.symbol, "data set": cell.dataset, "cell": cell.cell_id}
            row |= {"count": int(gene.count), "mitochondrial": int(table.loc[mitochondrial, "count"].sum())}
            rows.append(row | {"type": gene.biotype, "kept": f"no: {cell.removed}" if cell.removed else "yes"})
    return pd.DataFrame(rows)


def kept(curated: pd.DataFrame, dataset: str) -> np.ndarray:
    """Positions of the cells of a data set that stay, as `cells.CountsFile` takes them."""
    return curated.loc[(curated["dataset"] == dataset) & (curated["removed"] == ""), "position"].to_numpy()


def medians(sources: Iterable[cells.Source | anndata.AnnData], *, compression: float = 100.0) -> dict[str, float]:
    """Non-zero median of each gene over all cells, in one pass, by a t-digest for each gene (Dunning 2019).

    Values are counts over the cell's depth, times 10,000 (equation 1). Memory grows with the genes, not with the cells.

    Parameters
    ----------
    compression
        Of the digests: more is closer to the exact median and takes more memory.

    Returns
    -------
    Ensembl id -> median, for genes with a count.
    """
    digests: dict[str, TDigest] = {}
    for gene, values in _expressed(sources):
        digests.setdefault(gene, TDigest(compression)).update(values)
    return {gene: float(digest.quantile(0.5)) for gene, digest in sorted(digests.items())}


def exact_medians(sources: Iterable[cells.Source | anndata.AnnData]) -> dict[str, float]:
    """The same with all values in memory, exactly."""
    values: dict[str, list[np.ndarray]] = {}
    for gene, some in _expressed(sources):
        values.setdefault(gene, []).append(some)
    return {gene: float(np.median(np.concatenate(some))) for gene, some in sorted(values.items())}


def _expressed(sources: Iterable[cells.Source | anndata.AnnData]) -> Iterator[tuple[str, np.ndarray]]:
    """Genes with their non-zero values in a part of the cells, counts scaled to a depth of 10,000."""
    for source in sources:
        source = cells.InMemory(source) if isinstance(source, anndata.AnnData) else source
        for part in source.parts(CHUNK):
            counts = part.counts().astype(np.float64)
            counts.eliminate_zeros()
            depth = part.depth(counts)
            scale = np.divide(TARGET_SUM, depth, out=np.zeros(len(depth)), where=depth > 0)
            table = sparse.csc_matrix(sparse.diags(scale) @ counts)
            for column in np.flatnonzero(np.diff(table.indptr)):
                yield source.ensembl_ids[column], table.data[table.indptr[column] : table.indptr[column + 1]]
