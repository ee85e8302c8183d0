"""Matrices that the project has never seen: differential expression as the README says, in all four species, and every other chapter."""

import json
import os
import subprocess
import sys

import anndata
import numpy as np
import pandas as pd
import papermill
import pytest

from epigen_utils import paths
from epigen_utils.book import notebooks
from epigen_utils.data import genes

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
    table = genes.gene_table(species)
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


CHAPTERS = [
    source
    for source in sorted(paths.NOTEBOOKS.glob("*/*.ipynb"))
    if "metadata" in notebooks.declared_parameters(source) and source != NOTEBOOK
]


@pytest.mark.parametrize("source", CHAPTERS, ids=lambda path: f"{path.parent.name}/{path.stem}")
def test_every_chapter_that_takes_a_sample_table_takes_this_one(tmp_path, source):
    """Eight samples of a species that nobody states, by file and group alone; figures and claims are of their own."""
    rng = np.random.default_rng(0)
    samples = pd.DataFrame({"condition": list("aaaabbbb")}, index=[f"s{i}" for i in range(8)])
    counts = rng.negative_binomial(5, 0.05, size=(8, 60))
    adata = anndata.AnnData(
        obs=samples, var=pd.DataFrame(index=[f"gene{i}" for i in range(60)]), layers={"counts": counts}
    )
    adata.write_h5ad(tmp_path / "mine.h5ad")
    known = notebooks.declared_parameters(source)
    small = {
        "n_models": 2,
        "n_sets": 2,
        "n_cohorts": 0,
        "n_seeds": 1,
        "n_shuffles": 2,
        "epochs": 1.0,
        "n_permutations": 99,
    }
    values = {"results_dir": "out"} | {name: value for name, value in small.items() if name in known}
    values |= {"n_cohorts": 0 if "0: none" in known["n_cohorts"] else 1} if "n_cohorts" in known else {}
    values |= {"cohorts": ["mine.h5ad"]} if "cohorts" in known else {"dataset": "mine.h5ad"}
    values |= {"group": "condition"} if "group" in known else {}
    papermill.execute_notebook(
        source, tmp_path / "out.ipynb", parameters=values, kernel_name="python3", cwd=tmp_path, progress_bar=False
    )
    record = json.loads((tmp_path / "out" / "metrics.json").read_text())
    assert "mine.h5ad" in record["datasets"]
    assert record["metrics"]


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
