import dataclasses

import anndata
import numpy as np
import pandas as pd
import pytest
from scipy import sparse

from epigen_utils import datasets, genes, registry
from epigen_utils.errors import DataError


def humans(species, symbol):
    pairs = genes.orthologs(species)
    return set(pairs.loc[pairs["human"] == symbol, "symbol"])


def test_the_papers_spelling_is_mended():
    assert genes.repair("PVLAB") == "PVALB"
    assert genes.repair("SST") == "SST"


def test_mouse_orthologs():
    for human, mouse in (
        ("GRIA1", "Gria1"),
        ("PVALB", "Pvalb"),
        ("FOSB", "Fosb"),
        ("KCNA1", "Kcna1"),
        ("GFAP", "Gfap"),
    ):
        assert humans("mus_musculus", human) == {mouse}
    pairs = genes.orthologs("mus_musculus").set_index("symbol")
    assert pairs.loc["Gria1", "kind"] == "one2one"
    assert (pairs["kind"] == "one2one").mean() > 0.6


def test_zebrafish_paralogs_are_kept_apart():
    assert humans("danio_rerio", "GRIA1") == {"gria1a", "gria1b"}
    assert humans("danio_rerio", "GRIA2") == {"gria2a", "gria2b"}
    assert {"sst1.1", "sst1.2"} <= humans("danio_rerio", "SST")
    assert {"pvalb6", "pvalb7"} <= humans("danio_rerio", "PVALB")
    pairs = genes.orthologs("danio_rerio").set_index("symbol")
    assert pairs.loc["gria1a", "kind"] == "one2many"


def test_rat_orthologs(mirror):
    assert humans("rattus_norvegicus", "GRIA1") == {"Gria1"}


def test_an_unknown_species():
    with pytest.raises(DataError, match="no table of orthologs"):
        genes.orthologs("drosophila_melanogaster")
    with pytest.raises(DataError, match="no table of genes"):
        genes.table("drosophila_melanogaster")


def test_tables_of_genes():
    human = genes.table("homo_sapiens").set_index("ensembl_id")
    assert human.loc["ENSG00000155511", "symbol"] == "GRIA1"
    assert human.loc["ENSG00000155511", "biotype"] == "protein_coding"
    assert human.loc["ENSG00000155511", "length"] > 1000


def test_names_and_rows_in_a_data_set():
    airway = genes.named(datasets.load("airway"))
    rows = genes.in_data(airway, ["GRIA1", "PVLAB", "FOSB", "NOSUCH"]).set_index("human")
    assert rows.loc["GRIA1", "gene"] == "ENSG00000155511"
    assert rows.loc["PVALB", "symbol"] == "PVALB"
    assert rows.loc["NOSUCH"].isna().all()
    covered = genes.coverage(airway)
    assert covered["genes"] == 64102
    assert covered["share of counts"] > 0.95


def test_panels_have_sources_and_known_symbols():
    known = set(genes.table("homo_sapiens")["symbol"])
    lines = genes.PANELS.read_text().splitlines()
    assert len(lines) == len(genes.panels()) >= 5
    for line in lines:
        name, source, *symbols = line.split("\t")
        assert len(source) > 20, name
        assert set(symbols) <= known, (name, set(symbols) - known)
        assert len(symbols) == len(set(symbols)) >= 4


def test_gmt_of_the_registry():
    from epigen_utils import registry

    hallmark = genes.read_gmt(registry.fetch("gene-sets")["hallmark"])
    assert len(hallmark) == 50
    assert "HALLMARK_HYPOXIA" in hallmark


def test_zebrafish_coverage(mirror):
    covered = genes.coverage(datasets.load("zebrafish-mecp2"))
    assert 0.3 < covered["with a human ortholog"] / covered["genes"] < 0.8
    assert covered["one2many"] > 1000


def test_panels_in_a_data_set_bring_paralogs():
    fish = datasets.load("slc13a5-sim")
    panels = genes.sets_in_data(fish, genes.panels())
    assert {"gria1a", "gria1b"} <= set(panels["Glutamatergic"])
    assert set(panels) == set(genes.panels())


def test_species_from_the_ids_or_symbols_without_case(small):
    assert genes.species_of(datasets.load("airway")) == "homo_sapiens"
    small.uns["epigen"]["species"] = "not stated"
    small.var["symbol"] = ["Gria1", "GFAP", "sst", "x"]
    assert genes.species_of(small) == ""
    rows = genes.in_data(small, ["GRIA1", "SST", "PVALB"]).set_index("human")
    assert rows.loc["GRIA1", "gene"] == "g1"
    assert rows.loc["SST", "symbol"] == "sst"
    assert rows.loc["PVALB"].isna().all()


def test_rats_without_any_table_of_orthologs_go_by_name(cache, monkeypatch):
    """No mirror, and a server that is not there: symbols stand for themselves, and the kind says so."""
    entry = registry.entry("homologene-ncbi")
    groups = dataclasses.replace(entry.files["groups"], url="http://127.0.0.1:9/homologene.data")
    lost = dict(registry.registry()) | {"homologene-ncbi": dataclasses.replace(entry, files={"groups": groups})}
    monkeypatch.setattr(registry, "registry", lambda: lost)
    symbols = pd.DataFrame({"symbol": ["Gria1", "Sst", "LOC1"]})
    human = pd.DataFrame({"symbol": ["GRIA1", "SST", ""]})
    monkeypatch.setattr(genes, "table", {"rattus_norvegicus": symbols, "homo_sapiens": human}.get)
    genes.orthologs.cache_clear()
    pairs = genes.orthologs("rattus_norvegicus")
    genes.orthologs.cache_clear()
    assert pairs.to_dict("list") == {"symbol": ["Gria1", "Sst"], "human": ["GRIA1", "SST"], "kind": ["same name"] * 2}


def test_homologene_as_ncbi_writes_it(cache, serve, monkeypatch):
    url, folder, _ = serve
    rows = ["7\t9606\t2890\tGRIA1\t1\tNP_1", "7\t10116\t50592\tGria1\t2\tNP_2", "7\t10090\t14799\tGria1\t3\tNP_3"]
    (folder / "homologene.data").write_text("\n".join(rows) + "\n")
    entry = registry.entry("homologene-ncbi")
    groups = dataclasses.replace(entry.files["groups"], url=f"{url}/homologene.data")
    local = dict(registry.registry()) | {"homologene-ncbi": dataclasses.replace(entry, files={"groups": groups})}
    monkeypatch.setattr(registry, "registry", lambda: local)
    genes.orthologs.cache_clear()
    pairs = genes.orthologs("rattus_norvegicus")
    genes.orthologs.cache_clear()
    assert pairs.to_dict("list") == {"symbol": ["Gria1"], "human": ["GRIA1"], "kind": ["one2one"]}


def test_lengths_by_ensembl_id_or_symbol(small):
    airway = datasets.load("airway")
    found = genes.lengths(airway)
    assert found.index.isin(airway.var_names).all()
    assert found["ENSG00000155511"] > 1000, "GRIA1"
    small.uns["epigen"]["species"] = "mus_musculus"
    small.var["symbol"] = ["Gria1", "Sst", "Sst", "nothing"]
    assert list(genes.lengths(small).index) == ["g1", "g2", "g3"]
    small.uns["epigen"]["species"] = "not stated"
    assert genes.lengths(small).empty


def test_sparse_counts_and_ids_with_versions():
    human = genes.table("homo_sapiens").query("symbol in ['SST', 'GFAP', 'GRIA1']")
    adata = anndata.AnnData(
        var=pd.DataFrame(index=[f"{name}.{place}" for place, name in enumerate(human["ensembl_id"])]),
        X=sparse.csr_matrix(np.arange(6).reshape(2, 3)),
        obs=pd.DataFrame(index=["a", "b"]),
    )
    adata = datasets._finish(adata, "counts", "own")
    adata.uns["epigen"] = {"name": "own", "species": "not stated", "measure": "counts"}
    assert set(genes.named(adata).var["symbol"]) == {"SST", "GFAP", "GRIA1"}
    assert genes.lengths(adata).notna().all()
    assert len(genes.lengths(adata)) == 3
    assert genes.coverage(adata)["share of counts"] == 1


def test_counts_under_human_ids():
    fish = datasets.load("slc13a5-sim")
    found = genes.humanised(fish)
    ids = genes.table("homo_sapiens").drop_duplicates("symbol").set_index("symbol")["ensembl_id"]
    both = fish[:, ["gria1a", "gria1b"]].layers["counts"].sum(axis=1)
    np.testing.assert_array_equal(found[:, ids["GRIA1"]].layers["counts"].toarray().ravel(), both)
    assert found.var.loc[ids["GRIA1"], "symbol"] == "GRIA1"
    assert found.var_names.str.startswith("ENSG").all()
    assert not found.var_names.has_duplicates
    lost = found.uns["humanised"]
    assert 0.9 < lost["share of counts"] <= 1
    assert lost["genes"] <= lost["of"] == fish.n_vars
    np.testing.assert_array_equal(found.obs["n_counts"], fish.layers["counts"].sum(axis=1))
    airway = datasets.load("airway")
    assert genes.humanised(airway) is airway
    human = airway[:, :2000].copy()
    named = genes.named(human).var["symbol"].to_numpy()
    human.var = pd.DataFrame({"symbol": named}, index=named)
    human = human[:, ~human.var_names.duplicated()].copy()
    by_symbol = genes.humanised(human)
    assert by_symbol.uns["humanised"]["share of counts"] > 0.9
    assert (by_symbol.var_names == by_symbol.var["ensembl_id"]).all()
    fish.uns["epigen"]["species"] = "not stated"
    with pytest.raises(DataError, match="species not stated"):
        genes.humanised(fish)


def test_a_species_without_tables_is_read_by_the_names_of_its_genes():
    var = pd.DataFrame({"symbol": ["GAPDH", "gaba", "ACTB"]}, index=["p1", "p2", "p3"])
    adata = anndata.AnnData(layers={"counts": np.array([[5, 1, 2]])}, var=var, obs=pd.DataFrame(index=["cell"]))
    adata.uns["epigen"] = {"name": "pig", "species": "sus_scrofa"}
    found = genes.humanised(adata)
    assert list(found.var["symbol"]) == ["GAPDH", "ACTB"]
    assert found.uns["humanised"] == {"species": "sus_scrofa", "genes": 2, "of": 3, "share of counts": 7 / 8}
    adata.uns["epigen"]["species"] = "not stated"
    with pytest.raises(DataError, match="species not stated"):
        genes.humanised(adata)
