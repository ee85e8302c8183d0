"""Cells as people have them, each with the right answer: what shared/data/own_data_cases has, and its brothers."""

import anndata
import numpy as np
import pandas as pd
import pytest
from conftest import MIRROR
from scipy import sparse

from epigen_utils.data import datasets, orthologs
from epigen_utils.downstream import cell_states
from epigen_utils.errors import DataError
from epigen_utils.geneformer import cell_cohorts, curation, encoding, encoding_checks, vocabularies
from epigen_utils.stats import folds

CASES = MIRROR / "own_data_cases"
HUMAN = {"species": "homo_sapiens"}


@pytest.fixture(scope="module")
def case():
    if not CASES.exists():
        pytest.skip(f"no cases at {CASES}")
    return lambda name: str(CASES / name)


@pytest.fixture(scope="module")
def base(case):
    """Counts of the plain case, cells x genes, by Ensembl id."""
    adata = datasets.load(case("c00_base/cells.h5ad"), task="counts", **HUMAN)
    return pd.DataFrame(adata.layers["counts"].toarray(), adata.obs_names, adata.var["ensembl_id"])


def encoded(path, **options):
    """Human counts of a file, and its cells encoded by medians of their own."""
    adata = orthologs.humanise(datasets.load(path, task="counts", **(HUMAN | options)))
    vocabulary = vocabularies.vocabulary_from_medians(curation.exact_medians([adata]), name="own")
    return adata, encoding.RankValueEncoder.of(vocabulary).encode(adata)["input_ids"][:]


@pytest.mark.parametrize("name", ["symbols_made_unique", "symbols_twice"])
def test_genes_of_10x_are_their_ids(case, base, name):
    adata, ids = encoded(case(f"c04_10x_gene_ids/{name}.h5ad"))
    found = pd.DataFrame(adata.layers["counts"].toarray(), adata.obs_names, adata.var["ensembl_id"])
    pd.testing.assert_frame_equal(found, base, check_names=False)
    assert ids == encoded(case("c00_base/cells.h5ad"))[1]
    assert "Genes are those of var['gene_ids']" in " ".join(adata.uns["epigen"]["notes"])


def test_counts_of_raw_have_its_genes(case, base):
    adata = datasets.load(case("c01_raw_more_genes/cells.h5ad"), task="counts", **HUMAN)
    assert adata.shape == (36, 120)
    found = pd.DataFrame(adata.layers["counts"].toarray(), adata.obs_names, adata.var["ensembl_id"])
    pd.testing.assert_frame_equal(found, base.loc[adata.obs_names], check_names=False)


def test_dense_counts_are_curated_as_sparse_ones(case):
    sources = curation.open_sources([case("c05_csc_dense/dense.h5ad"), case("c00_base/cells.h5ad")])
    curated = curation.curate(sources)
    entries = [
        curation.example_entries({name: source}, curated[curated["dataset"] == name])
        for name, source in sources.items()
    ]
    pd.testing.assert_frame_equal(*(table.drop(columns="data set") for table in entries))
    assert entries[0]["count"].gt(0).all()


def test_two_states_need_no_others_and_a_misspelt_column_is_one_line(case):
    path, columns = case("c13_two_states/cells.h5ad"), {"donor": "individual", **HUMAN}
    cohort = cell_cohorts.load_cell_cohort(path, None, label="disease", **columns)
    states = {"start": "disease", "goal": "healthy", "alternatives": [], "column": cohort.label}
    assert cell_states.check_states(cohort.labels, **states) == ("disease", "healthy", [])
    with pytest.raises(DataError, match=r"no group column 'diseas'; .* \(columns: disease, individual, cell_type\)"):
        cell_cohorts.load_cell_cohort(path, None, label="diseas", **columns)
    numbers = cell_cohorts.load_cell_cohort(case("c13_two_states/numeric.h5ad"), None, label="disease", **columns)
    assert numbers.levels() == ["0", "1"]
    states = {"start": 1, "goal": 0, "alternatives": [], "column": "disease"}
    assert cell_states.check_states(numbers.labels, **states) == ("1", "0", [])


def test_a_species_has_its_names_and_no_others(case, base):
    path = case("c18_mouse_symbols/cells.h5ad")
    mouse = encoded(path, species="mouse")[0]
    assert mouse.uns["humanised"]["species"] == "mus_musculus"
    assert len(set(mouse.var_names) - set(base.columns)) < 3, "orthologs of other names"
    assert mouse.n_vars > 100
    with pytest.raises(DataError, match=r"species 'moose': .* mus_musculus \(mouse\)"):
        datasets.load(path, species="moose")


def test_no_class_of_genes_need_be_known(case):
    adata, ids = encoded(case("c20_no_ribosomal/cells.h5ad"))
    assert encoding_checks.reference_gene_classes(adata.var.set_index("ensembl_id"), []) == {}
    means = encoding_checks.means_by_class(
        pd.DataFrame(columns=["cell", "class", "genes", "place", "auc"]), np.arange(adata.n_obs)
    )
    assert list(means) == ["class", "mean", "low", "high", "cells", "units"]
    assert means.empty


def test_cells_without_a_label_are_left_out_and_counted(case):
    columns = {"donor": "individual", **HUMAN}
    types = cell_cohorts.load_cell_cohort(
        case("c21_nan_labels/cells_without_type.h5ad"), None, label="cell_type", per_donor=False, **columns
    )
    assert types.levels() == ["Cardiomyocyte1", "Fibroblast"]
    assert len(types.labels) == 57
    assert "15 of 72 cells have no label in obs['cell_type'] and are left out." in types.adata.uns["epigen"]["notes"]
    donors = cell_cohorts.load_cell_cohort(
        case("c21_nan_labels/two_donors_without_label.h5ad"), None, label="disease", **columns
    )
    assert donors.levels() == ["dcm", "hcm", "nf"]
    assert len(donors.labels) == 56


# The brothers, on cells that are made here.


def cells(n_donors=4, n_cells=10, n_genes=60, seed=0):
    """Cells of donors in two states, with human ids."""
    rng = np.random.default_rng(seed)
    n = n_donors * n_cells
    obs = {"state": np.repeat(["sick", "well"], n // 2), "donor": np.repeat(np.arange(n_donors) + 1400, n_cells)}
    return anndata.AnnData(
        sparse.csr_matrix(rng.poisson(1.0, (n, n_genes)).astype(np.float32)),
        obs=pd.DataFrame(obs, [f"c{i}" for i in range(n)]),
        var=pd.DataFrame(index=[f"ENSG{i:011d}.7" for i in range(n_genes)]),
    )


def load(adata, path, **options):
    adata.write_h5ad(path / "mine.h5ad")
    return cell_cohorts.load_cell_cohort(
        str(path / "mine.h5ad"), None, label="state", donor="donor", **HUMAN, **options
    )


@pytest.mark.parametrize("word", [None, "", "NA", "nan", np.nan])
def test_every_word_for_nothing_is_no_label(tmp_path, word):
    adata = cells()
    adata.obs["state"] = pd.Categorical(adata.obs["state"].astype(object).mask(np.arange(40) % 10 == 3, word))
    cohort = load(adata, tmp_path)
    assert cohort.levels() == ["sick", "well"]
    assert len(cohort.labels) == len(cohort.encoded) == 36


def test_unused_levels_are_no_classes_and_numbers_of_donors_are_names(tmp_path):
    adata = cells()
    adata.obs["state"] = pd.Categorical(adata.obs["state"], ["gone", "sick", "well"])
    adata.obs["donor"] = adata.obs["donor"].astype(float)
    cohort = load(adata, tmp_path)
    assert cohort.levels() == ["sick", "well"]
    assert cell_cohorts.test_cell_mask(cohort.donors, [1400, "1403"]).sum() == 20
    with pytest.raises(DataError, match="test donor '1500': not among the donors"):
        cell_cohorts.test_cell_mask(cohort.donors, [1500])


def test_barcodes_that_come_back_and_cells_without_counts(tmp_path):
    adata = cells(n_donors=8, n_cells=30)
    adata.obs_names = [f"AAC{i % 30}-1" for i in range(240)]
    adata.X = adata.X.multiply(np.arange(240)[:, None] % 20 > 0).tocsr()
    cohort = load(adata, tmp_path)
    notes = " ".join(cohort.adata.uns["epigen"]["notes"])
    assert len(cohort.encoded) == 228
    assert "12 of 240 cells have no counts" in notes
    assert "made unique" in notes


@pytest.mark.parametrize("n_donors", [4, 6])
def test_two_donors_of_each_class_are_enough(tmp_path, n_donors):
    cohort = load(cells(n_donors=n_donors), tmp_path)
    fewest = folds.fewest_donors(cohort.labels, cohort.donors)
    assert fewest == n_donors // 2
    splits = list(folds.donor_folds(cohort.labels, cohort.donors, n_splits=5, seed=0))
    assert len(splits) == fewest
    held_out = folds.some_donors(cohort.labels, cohort.donors, "sick", most=2)
    assert len(held_out) == 1, "half of the donors of the class, so that some are left to learn from"
