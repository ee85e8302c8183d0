import dataclasses

import anndata
import numpy as np
import pandas as pd
import pytest

from epigen_utils.data import datasets, genes, orthologs, registry
from epigen_utils.errors import DataError


def humans(species, symbol):
    pairs = orthologs.ortholog_pairs(species)
    return set(pairs.loc[pairs["human"] == symbol, "symbol"])


def test_mouse_orthologs():
    for human, mouse in (
        ("GRIA1", "Gria1"),
        ("PVALB", "Pvalb"),
        ("FOSB", "Fosb"),
        ("KCNA1", "Kcna1"),
        ("GFAP", "Gfap"),
    ):
        assert humans("mus_musculus", human) == {mouse}
    pairs = orthologs.ortholog_pairs("mus_musculus").set_index("symbol")
    assert pairs.loc["Gria1", "kind"] == "one2one"
    assert (pairs["kind"] == "one2one").mean() > 0.6


def test_zebrafish_paralogs_are_kept_apart():
    assert humans("danio_rerio", "GRIA1") == {"gria1a", "gria1b"}
    assert humans("danio_rerio", "GRIA2") == {"gria2a", "gria2b"}
    assert {"sst1.1", "sst1.2"} <= humans("danio_rerio", "SST")
    assert {"pvalb6", "pvalb7"} <= humans("danio_rerio", "PVALB")
    pairs = orthologs.ortholog_pairs("danio_rerio").set_index("symbol")
    assert pairs.loc["gria1a", "kind"] == "one2many"


def test_rat_orthologs(mirror):
    assert humans("rattus_norvegicus", "GRIA1") == {"Gria1"}


def test_names_and_rows_in_a_data_set():
    airway = genes.add_symbols(datasets.load("airway"))
    rows = orthologs.find_genes(airway, ["GRIA1", "PVLAB", "FOSB", "NOSUCH"]).set_index("human")
    assert rows.loc["GRIA1", "gene"] == "ENSG00000155511"
    assert rows.loc["PVALB", "symbol"] == "PVALB"
    assert rows.loc["NOSUCH"].isna().all()
    covered = orthologs.ortholog_coverage(airway)
    assert covered["genes"] == 64102
    assert covered["share of counts"] > 0.95


def test_zebrafish_coverage(mirror):
    covered = orthologs.ortholog_coverage(datasets.load("zebrafish-mecp2"))
    assert 0.3 < covered["with a human ortholog"] / covered["genes"] < 0.8
    assert covered["one2many"] > 1000


def test_rats_without_any_table_of_orthologs_go_by_name(cache, monkeypatch):
    """No mirror, and a server that is not there: symbols stand for themselves, and the kind says so."""
    entry = registry.entry("homologene-ncbi")
    groups = dataclasses.replace(entry.files["groups"], url="http://127.0.0.1:9/homologene.data")
    lost = dict(registry.entries()) | {"homologene-ncbi": dataclasses.replace(entry, files={"groups": groups})}
    monkeypatch.setattr(registry, "entries", lambda: lost)
    symbols = pd.DataFrame({"symbol": ["Gria1", "Sst", "LOC1"]})
    human = pd.DataFrame({"symbol": ["GRIA1", "SST", ""]})
    monkeypatch.setattr(genes, "gene_table", {"rattus_norvegicus": symbols, "homo_sapiens": human}.get)
    orthologs.ortholog_pairs.cache_clear()
    pairs = orthologs.ortholog_pairs("rattus_norvegicus")
    orthologs.ortholog_pairs.cache_clear()
    assert pairs.to_dict("list") == {"symbol": ["Gria1", "Sst"], "human": ["GRIA1", "SST"], "kind": ["same name"] * 2}


def test_homologene_as_ncbi_writes_it(cache, serve, monkeypatch):
    url, folder, _ = serve
    rows = ["7\t9606\t2890\tGRIA1\t1\tNP_1", "7\t10116\t50592\tGria1\t2\tNP_2", "7\t10090\t14799\tGria1\t3\tNP_3"]
    (folder / "homologene.data").write_text("\n".join(rows) + "\n")
    entry = registry.entry("homologene-ncbi")
    groups = dataclasses.replace(entry.files["groups"], url=f"{url}/homologene.data")
    local = dict(registry.entries()) | {"homologene-ncbi": dataclasses.replace(entry, files={"groups": groups})}
    monkeypatch.setattr(registry, "entries", lambda: local)
    orthologs.ortholog_pairs.cache_clear()
    pairs = orthologs.ortholog_pairs("rattus_norvegicus")
    orthologs.ortholog_pairs.cache_clear()
    assert pairs.to_dict("list") == {"symbol": ["Gria1"], "human": ["GRIA1"], "kind": ["one2one"]}


def test_counts_under_human_ids():
    fish = datasets.load("airway-as-zebrafish")
    found = orthologs.humanise(fish)
    ids = genes.gene_table("homo_sapiens").drop_duplicates("symbol").set_index("symbol")["ensembl_id"]
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
    assert orthologs.humanise(airway) is airway
    human = airway[:, :2000].copy()
    named = genes.add_symbols(human).var["symbol"].to_numpy()
    human.var = pd.DataFrame({"symbol": named}, index=named)
    human = human[:, ~human.var_names.duplicated()].copy()
    by_symbol = orthologs.humanise(human)
    assert by_symbol.uns["humanised"]["share of counts"] > 0.9
    assert (by_symbol.var_names == by_symbol.var["ensembl_id"]).all()
    fish.uns["epigen"]["species"] = "not stated"
    with pytest.raises(DataError, match="species not stated"):
        orthologs.humanise(fish)


def test_a_species_without_tables_is_read_by_the_names_of_its_genes():
    var = pd.DataFrame({"symbol": ["GAPDH", "gaba", "ACTB"]}, index=["p1", "p2", "p3"])
    adata = anndata.AnnData(layers={"counts": np.array([[5, 1, 2]])}, var=var, obs=pd.DataFrame(index=["cell"]))
    adata.uns["epigen"] = {"name": "pig", "species": "sus_scrofa"}
    found = orthologs.humanise(adata)
    assert list(found.var["symbol"]) == ["GAPDH", "ACTB"]
    assert found.uns["humanised"] == {"species": "sus_scrofa", "genes": 2, "of": 3, "share of counts": 7 / 8}
    adata.uns["epigen"]["species"] = "not stated"
    with pytest.raises(DataError, match="species not stated"):
        orthologs.humanise(adata)
