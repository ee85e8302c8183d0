"""Matrices that the project has never seen: differential expression as the README says, in all four species, and every other chapter."""

import os
import subprocess
import sys

import anndata
import numpy as np
import pandas as pd
import pytest

from epigen_utils import paths
from epigen_utils.book import notebooks
from epigen_utils.data import genes
from epigen_utils.errors import DataError

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


def write_matrix(folder, species, ids, file, genes_in):
    """Write a matrix, and its sample table where the file has none; parameters of the notebook, and the raised gene."""
    table, raised = matrix(species, ids)
    path = folder / file
    values = {"dataset": file, "design": "~batch + condition", "contrast": "condition,ko,wt"}
    if file.endswith(".h5ad"):
        var = pd.DataFrame(index=table.columns)
        anndata.AnnData(obs=SAMPLES, var=var, X=table.to_numpy().astype(float)).write_h5ad(path)
    else:
        table = table.T if genes_in == "rows" else table
        table.to_csv(path, sep="," if ".csv" in file else "\t")
        SAMPLES.to_csv(folder / "samples.csv", index_label="sample")
        values |= {"metadata": "samples.csv"}
    return values | ({"species": species} if ids == "symbol" else {}), raised


def assert_raised_gene_is_found(results, raised):
    found = pd.read_csv(results / "tables" / "all_genes.csv").set_index("symbol")
    assert found.loc[raised, "padj"] < 0.01
    assert found.loc[raised, "log2FoldChange"] > 2
    assert (found["contrast"] == "ko against wt").all()
    one = pd.read_csv(results / "tables" / "table_one.csv").set_index("human")
    assert raised in set(one["gene"])


def by_papermill(folder, values, **environment):
    """As the README says."""
    command = [sys.executable, "-m", "papermill", str(NOTEBOOK), "out.ipynb"]
    command += [word for name, value in (values | {"results_dir": "out"}).items() for word in ("-p", name, value)]
    options = {"cwd": folder, "env": os.environ | environment, "capture_output": True, "text": True}
    return subprocess.run(command, check=False, **options)


IN_EVERY_FORM = pytest.mark.parametrize(
    ("species", "ids", "file", "genes_in"),
    [
        ("mus_musculus", "symbol", "mine.csv", "rows"),
        ("homo_sapiens", "ensembl_id", "mine.tsv", "columns"),
        ("rattus_norvegicus", "ensembl_id", "mine.h5ad", "columns"),
        ("danio_rerio", "symbol", "mine.tsv.gz", "columns"),
    ],
)


@IN_EVERY_FORM
def test_an_unseen_matrix(tmp_path, run_here, species, ids, file, genes_in):
    values, raised = write_matrix(tmp_path, species, ids, file, genes_in)
    run_here(NOTEBOOK, **values)
    assert_raised_gene_is_found(tmp_path / "results", raised)
    assert f"Genes were taken from {genes_in}" in run_here.shown


@pytest.mark.slow("notebooks/epilepsy/03_differential_expression.ipynb")
@IN_EVERY_FORM
def test_an_unseen_matrix_by_papermill(tmp_path, species, ids, file, genes_in):
    values, raised = write_matrix(tmp_path, species, ids, file, genes_in)
    done = by_papermill(tmp_path, values, PYTHONWARNINGS="error,ignore:The set_bad function:PendingDeprecationWarning")
    assert done.returncode == 0, done.stderr[-3000:]
    assert_raised_gene_is_found(tmp_path / "out", raised)
    assert f"Genes were taken from {genes_in}" in (tmp_path / "out.ipynb").read_text()


CHAPTERS = [
    source
    for source in sorted(paths.NOTEBOOKS.glob("epilepsy/*.ipynb"))
    if "metadata" in notebooks.declared_parameters(source) and source != NOTEBOOK
]
#: Those that train many models, or fit many cohorts.
LONG = (
    "03a_calibration",
    "06_fine_tuning",
    "07_classification",
    "09_zero_shot",
    "10_embeddings",
    "11_attention",
    "11a_alignment",
)


@pytest.mark.parametrize(
    "source",
    [
        pytest.param(source, id=source.stem, marks=pytest.mark.slow if source.stem in LONG else [])
        for source in CHAPTERS
    ],
)
def test_every_chapter_that_takes_a_sample_table_takes_this_one(tmp_path, run_here, source):
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
    values = {name: value for name, value in small.items() if name in known}
    values |= {"n_cohorts": 0 if "0: none" in known["n_cohorts"] else 1} if "n_cohorts" in known else {}
    values |= {"cohorts": ["mine.h5ad"]} if "cohorts" in known else {"dataset": "mine.h5ad"}
    values |= {"group": "condition"} if "group" in known else {}
    record = run_here(source, **values)
    assert record["notebook"] == f"{source.parent.name}/{source.stem}"
    assert "mine.h5ad" in record["datasets"]
    assert record["metrics"]


def without_a_rank(folder):
    """Parameters of a run whose batches are its groups."""
    values, _ = write_matrix(folder, "mus_musculus", "symbol", "mine.csv", "rows")
    SAMPLES.assign(batch=list("xxxyyy")).to_csv(folder / "samples.csv", index_label="sample")
    return values


def test_a_mistake_is_said_in_one_line(tmp_path, run_here):
    with pytest.raises(
        DataError, match=r"^design '~batch \+ condition': .* separated in these samples; drop a term"
    ) as caught:
        run_here(NOTEBOOK, **without_a_rank(tmp_path))
    assert "\n" not in str(caught.value)
    assert not (tmp_path / "results" / "metrics.json").exists()


@pytest.mark.slow("notebooks/epilepsy/03_differential_expression.ipynb")
def test_a_mistake_is_the_last_line_of_papermill(tmp_path):
    done = by_papermill(tmp_path, without_a_rank(tmp_path))
    assert done.returncode != 0
    last = done.stderr.strip().splitlines()[-1]
    assert last.startswith("DataError: design '~batch + condition': ")
    assert "cannot be separated in these samples; drop a term" in last
    assert not (tmp_path / "out" / "metrics.json").exists()
