"""Counts of all samples of a pipeline as text, TPM and AnnData; comparison with simulated truth."""

from pathlib import Path

import anndata
import numpy as np
import pandas as pd

from epigen_utils.data import datasets, readers, registry
from epigen_utils.expression import normalisation
from epigen_utils.files import whole_file, write_atomically
from epigen_utils.reads import references, tool_reports
from epigen_utils.reads.pipeline import Pipeline


def write_counts(pipeline: Pipeline) -> None:
    """Write ``counts.tsv`` and ``tpm.tsv`` (gene_id, gene_name, length, samples), ``samples.csv``, ``counts.h5ad``.

    The AnnData has integer counts in ``layers["counts"]``; ``symbol`` and ``length`` (bases covered by exons) of each
    gene in ``var``; the table of `tool_reports.sample_summary` in ``obs``.
    """
    table = tool_reports.sample_summary(pipeline)
    counted = {name: _read_feature_counts(pipeline.file("counted", f"{name}.txt")) for name in pipeline.by_name}
    genes = next(iter(counted.values()))
    names = references.gene_names(pipeline.file("reference", "annotation.gtf"))
    var = pd.DataFrame(
        {"symbol": [names[gene] for gene in genes.index], "length": genes["length"].to_numpy()}, genes.index
    )
    counts = np.array([sample["n"].to_numpy() for sample in counted.values()])
    obs = table.set_index("sample").rename_axis(None)
    obs = obs.loc[:, [column for column in obs if column not in ("group", "donor") or (obs[column] != "").all()]]
    adata = anndata.AnnData(obs=obs, var=var.rename_axis(None), layers={"counts": counts})
    if readers.mostly_ensembl_ids(adata.var_names):
        adata.var["ensembl_id"] = readers.without_ensembl_version(adata.var_names)
    adata.layers["tpm"] = normalisation.tpm(adata, adata.var["length"]).to_numpy()
    gene_columns = var.rename(columns={"symbol": "gene_name"}).rename_axis("gene_id")
    for name, values in (("counts", counts), ("tpm", adata.layers["tpm"])):
        matrix = pd.DataFrame(values.T, gene_columns.index, list(counted))
        write_atomically(pipeline.root / f"{name}.tsv", gene_columns.join(matrix).to_csv(sep="\t"))
    write_atomically(pipeline.root / "samples.csv", table.to_csv(index=False))
    with whole_file(pipeline.counts) as part:
        adata.write_h5ad(part)


def load_counts(pipeline: Pipeline, sheet: str) -> anndata.AnnData:
    """Load the counts of a pipeline, with the registry's description of its sheet in ``uns["epigen"]``."""
    adata = datasets.load(pipeline.counts, task="counts")
    about = adata.uns["epigen"] | {"title": f"counts of {Path(sheet).name}"}
    if sheet in registry.entries():
        about |= registry.entry(sheet).facts
    del about["genes_in"]
    adata.uns["epigen"] = about
    return adata


def _read_feature_counts(path: Path) -> pd.DataFrame:
    table = pd.read_csv(path, sep="\t", comment="#", index_col=0)
    return pd.DataFrame(
        {"length": table["Length"].astype(int), "n": table.iloc[:, -1].astype(int)}, table.index.astype(str)
    )


def counts_with_truth(pipeline: Pipeline, truth: pd.DataFrame) -> pd.DataFrame:
    """True and counted fragments, a row a gene and sample: ``sample``, ``gene``, ``planted``, ``counted``.

    Parameters
    ----------
    truth
        True fragment counts, genes x samples.
    """
    counts = pd.read_csv(pipeline.root / "counts.tsv", sep="\t", index_col="gene_id")
    wide = {"planted": truth, "counted": counts.reindex(truth.index)[list(truth.columns)]}
    long = [
        table.rename_axis("gene").reset_index().melt("gene", var_name="sample", value_name=name)
        for name, table in wide.items()
    ]
    return long[0].merge(long[1], on=["gene", "sample"])[["sample", "gene", "planted", "counted"]]


def agreement_with_truth(table: pd.DataFrame) -> pd.DataFrame:
    """Agreement of the counts in `counts_with_truth` with the truth, a row a sample.

    Returns
    -------
    ``sample``, ``planted``, ``counted``, ``found`` (counted / planted), ``correlation`` (Pearson, of log2(n + 1)).
    """
    rows = []
    for sample, by_gene in table.groupby("sample", sort=False):
        planted, counted = by_gene["planted"], by_gene["counted"]
        row = {"sample": sample, "planted": int(planted.sum()), "counted": int(counted.sum())}
        row["found"] = counted.sum() / planted.sum()
        row["correlation"] = float(np.corrcoef(np.log2(planted + 1), np.log2(counted + 1))[0, 1])
        rows.append(row)
    return pd.DataFrame(rows)
