"""Counts of all samples of a pipeline as text, as TPM, and as the AnnData that the expression chapters read."""

from pathlib import Path

import anndata
import numpy as np
import pandas as pd

from epigen_utils import datasets, expression, read_reports, readers, references, registry
from epigen_utils.files import write_atomically
from epigen_utils.reads import Pipeline


def write_counts(made: Pipeline) -> None:
    """``counts.tsv`` (gene_id, gene_name, length, a column a sample), ``tpm.tsv``, ``samples.csv`` and ``counts.h5ad``.

    The AnnData has integer counts in ``layers["counts"]``, ``var`` by gene id with ``symbol`` and ``length`` (bases that exons of the gene
    cover), and the sample sheet with every sample's shares in ``obs``.
    """
    table = read_reports.samples(made)
    counted = {name: _counts(made.file("counted", f"{name}.txt")) for name in made.by_name}
    genes = next(iter(counted.values()))
    names = references.genes(made.file("reference", "annotation.gtf"))
    var = pd.DataFrame(
        {"symbol": [names[gene] for gene in genes.index], "length": genes["length"].to_numpy()}, genes.index
    )
    counts = np.array([found["n"].to_numpy() for found in counted.values()])
    obs = table.set_index("sample").rename_axis(None)
    obs = obs.loc[:, [column for column in obs if column not in ("group", "donor") or (obs[column] != "").all()]]
    adata = anndata.AnnData(obs=obs, var=var.rename_axis(None), layers={"counts": counts})
    if readers.mostly_ensembl(adata.var_names):
        adata.var["ensembl_id"] = readers.without_version(adata.var_names)
    adata.layers["tpm"] = expression.tpm(adata, adata.var["length"]).to_numpy()
    shown = var.rename(columns={"symbol": "gene_name"}).rename_axis("gene_id")
    for name, values in (("counts", counts), ("tpm", adata.layers["tpm"])):
        matrix = pd.DataFrame(values.T, shown.index, list(counted))
        write_atomically(made.root / f"{name}.tsv", shown.join(matrix).to_csv(sep="\t"))
    write_atomically(made.root / "samples.csv", table.to_csv(index=False))
    part = made.counts.with_name("counts.part.h5ad")
    adata.write_h5ad(part)
    part.replace(made.counts)


def load(made: Pipeline, sheet: str) -> anndata.AnnData:
    """The counts that a pipeline has made, with what its sheet is said to be, for a page's banner."""
    adata = datasets.load(made.counts, task="counts")
    about = adata.uns["epigen"] | {"title": f"counts of {Path(sheet).name}"}
    if sheet in registry.registry():
        entry = registry.entry(sheet)
        about |= {name: getattr(entry, name) for name in ("name", "title", "nature", "species", "licence", "citation")}
    del about["genes_in"]
    adata.uns["epigen"] = about
    return adata


def _counts(path: Path) -> pd.DataFrame:
    table = pd.read_csv(path, sep="\t", comment="#", index_col=0)
    return pd.DataFrame(
        {"length": table["Length"].astype(int), "n": table.iloc[:, -1].astype(int)}, table.index.astype(str)
    )


def beside_truth(made: Pipeline, truth: pd.DataFrame) -> pd.DataFrame:
    """Counts beside planted ones: ``sample``, ``gene``, ``planted``, ``counted``.

    Parameters
    ----------
    truth
        Genes x samples.
    """
    counts = pd.read_csv(made.root / "counts.tsv", sep="\t", index_col="gene_id")
    wide = {"planted": truth, "counted": counts.reindex(truth.index)[list(truth.columns)]}
    long = [
        table.rename_axis("gene").reset_index().melt("gene", var_name="sample", value_name=name)
        for name, table in wide.items()
    ]
    return long[0].merge(long[1], on=["gene", "sample"])[["sample", "gene", "planted", "counted"]]


def against_truth(table: pd.DataFrame) -> pd.DataFrame:
    """A row a sample of `beside_truth`: ``sample``, ``planted``, ``counted``, ``found`` (counted over planted), ``correlation`` (Pearson, log2(n + 1))."""
    rows = []
    for sample, found in table.groupby("sample", sort=False):
        planted, counted = found["planted"], found["counted"]
        row = {"sample": sample, "planted": int(planted.sum()), "counted": int(counted.sum())}
        row["found"] = counted.sum() / planted.sum()
        row["correlation"] = float(np.corrcoef(np.log2(planted + 1), np.log2(counted + 1))[0, 1])
        rows.append(row)
    return pd.DataFrame(rows)
