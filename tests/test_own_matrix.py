"""Differential expression on matrices that the project has never seen, as the README says, in all four species."""

import os
import subprocess
import sys

import anndata
import numpy as np
import pandas as pd
import pytest

from epigen_utils import genes, paths

NOTEBOOK = paths.NOTEBOOKS / "epilepsy" / "03_differential_expression.ipynb"
NAMES = {
    "homo_sapiens": ["GRIA1", "GRIA2", "SST", "PVALB", "FOSB"],
    "mus_musculus": ["Gria1", "Gria2", "Sst", "Pvalb", "Fosb"],
    "rattus_norvegicus": ["Gria1", "Gria2", "Sst", "Pvalb", "Fosb"],
    "danio_rerio": ["pvalb2", "pvalb7", "sst1.2"],
}
SAMPLES = pd.DataFrame(
    {"condition": ["wt", "wt", "wt", "ko", "ko", "ko"], "batch": list("xyxyxy")}, index=[f"lib{i}" for i in range(6)]
)


def matrix(species, ids):
    """300 genes of the species, the first of Table I's genes raised eightfold in the knock-outs."""
    table = genes.table(species)
    table = table[(table["symbol"] != "") & ~table["symbol"].duplicated(keep=False)]
    named = table[table["symbol"].isin(NAMES[species])]
    chosen = pd.concat([named, table[~table["symbol"].isin(NAMES[species])].head(300 - len(named))])
    rng = np.random.default_rng(4)
    mean = np.tile(rng.lognormal(5, 1, len(chosen)), (6, 1))
    mean[3:, 0] = 8 * (mean[3:, 0] + 100)
    counts = rng.poisson(rng.gamma(20, mean / 20))
    return pd.DataFrame(counts, SAMPLES.index, chosen[ids].to_numpy()), chosen["symbol"].iloc[0]


@pytest.mark.parametrize(
    ("species", "ids", "file", "genes_in"),
    [
        ("mus_musculus", "symbol", "mine.csv", "rows"),
        ("homo_sapiens", "ensembl_id", "mine.tsv", "columns"),
        ("rattus_norvegicus", "ensembl_id", "mine.h5ad", "columns"),
        ("danio_rerio", "symbol", "mine.tsv.gz", "columns"),
    ],
)
def test_an_unseen_matrix(tmp_path, species, ids, file, genes_in):
    table, raised = matrix(species, ids)
    path = tmp_path / file
    command = ["-p", "dataset", file, "-p", "design", "~batch + condition", "-p", "contrast", "condition,ko,wt"]
    if file.endswith(".h5ad"):
        var = pd.DataFrame(index=table.columns)
        anndata.AnnData(obs=SAMPLES, var=var, X=table.to_numpy().astype(float)).write_h5ad(path)
    else:
        table = table.T if genes_in == "rows" else table
        table.to_csv(path, sep="," if ".csv" in file else "\t")
        SAMPLES.to_csv(tmp_path / "samples.csv", index_label="sample")
        command += ["-p", "metadata", "samples.csv"]
    if ids == "symbol":
        command += ["-p", "species", species]
    command += ["-p", "results_dir", "out"]
    done = subprocess.run(
        [sys.executable, "-m", "papermill", str(NOTEBOOK), "out.ipynb", *command],
        cwd=tmp_path,
        env=os.environ | {"PYTHONWARNINGS": "error,ignore:The set_bad function:PendingDeprecationWarning"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    found = pd.read_csv(tmp_path / "out" / "tables" / "all_genes.csv").set_index("symbol")
    assert found.loc[raised, "padj"] < 0.01
    assert found.loc[raised, "log2FoldChange"] > 2
    assert (found["contrast"] == "ko against wt").all()
    one = pd.read_csv(tmp_path / "out" / "tables" / "table_one.csv").set_index("human")
    assert raised in set(one["gene"])
    assert f"Genes were taken from {genes_in}" in (tmp_path / "out.ipynb").read_text()


def test_a_mistake_is_the_last_line(tmp_path):
    table, _ = matrix("mus_musculus", "symbol")
    table.T.to_csv(tmp_path / "mine.csv")
    SAMPLES.assign(batch=list("xxxyyy")).to_csv(tmp_path / "samples.csv", index_label="sample")
    command = [sys.executable, "-m", "papermill", str(NOTEBOOK), "out.ipynb", "-p", "dataset", "mine.csv"]
    command += [
        "-p",
        "metadata",
        "samples.csv",
        "-p",
        "design",
        "~batch + condition",
        "-p",
        "contrast",
        "condition,ko,wt",
    ]
    command += ["-p", "results_dir", "out"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode != 0
    last = done.stderr.strip().splitlines()[-1]
    assert last.startswith("DataError: design '~batch + condition': ")
    assert "cannot be told apart in these samples; drop a term" in last
    assert not (tmp_path / "out" / "metrics.json").exists()
