import anndata
import numpy as np
import pandas as pd
import pytest
from scipy import sparse

from epigen_utils.data import datasets, genes, orthologs
from epigen_utils.errors import DataError


def test_the_papers_spelling_is_mended():
    assert genes.approved_symbol("PVLAB") == "PVALB"
    assert genes.approved_symbol("SST") == "SST"


def test_an_unknown_species():
    with pytest.raises(DataError, match="no table of orthologs"):
        orthologs.ortholog_pairs("drosophila_melanogaster")
    with pytest.raises(DataError, match="no table of genes"):
        genes.gene_table("drosophila_melanogaster")


def test_tables_of_genes():
    human = genes.gene_table("homo_sapiens").set_index("ensembl_id")
    assert human.loc["ENSG00000155511", "symbol"] == "GRIA1"
    assert human.loc["ENSG00000155511", "biotype"] == "protein_coding"
    assert human.loc["ENSG00000155511", "length"] > 1000


def test_panels_have_sources_and_known_symbols():
    known = set(genes.gene_table("homo_sapiens")["symbol"])
    lines = genes.PANELS_FILE.read_text().splitlines()
    assert len(lines) == len(genes.gene_panels()) >= 5
    for line in lines:
        name, source, *symbols = line.split("\t")
        assert len(source) > 20, name
        assert set(symbols) <= known, (name, set(symbols) - known)
        assert len(symbols) == len(set(symbols)) >= 4


def test_gmt_of_the_registry():
    from epigen_utils.data import fetching

    hallmark = genes.read_gmt(fetching.fetch("gene-sets")["hallmark"])
    assert len(hallmark) == 50
    assert "HALLMARK_HYPOXIA" in hallmark


def test_a_line_that_is_no_gene_set_is_named(tmp_path):
    path = tmp_path / "sets.gmt"
    path.write_text("one\tsource\tA\tB\nanother one\n")
    with pytest.raises(DataError, match=r"sets.gmt: line 2: a set is a name, a source and genes"):
        genes.read_gmt(path)


def test_panels_in_a_data_set_bring_paralogs():
    fish = datasets.load("airway-as-zebrafish")
    panels = orthologs.find_gene_sets(fish, genes.gene_panels())
    assert {"gria1a", "gria1b"} <= set(panels["Glutamatergic"])
    assert set(panels) == set(genes.gene_panels())


def test_species_from_the_ids_or_symbols_without_case(small):
    assert genes.species_of(datasets.load("airway")) == "homo_sapiens"
    small.uns["epigen"]["species"] = "not stated"
    small.var["symbol"] = ["Gria1", "GFAP", "sst", "x"]
    assert genes.species_of(small) == ""
    rows = orthologs.find_genes(small, ["GRIA1", "SST", "PVALB"]).set_index("human")
    assert rows.loc["GRIA1", "gene"] == "g1"
    assert rows.loc["SST", "symbol"] == "sst"
    assert rows.loc["PVALB"].isna().all()


def test_lengths_by_ensembl_id_or_symbol(small):
    airway = datasets.load("airway")
    found = genes.gene_lengths(airway)
    assert found.index.isin(airway.var_names).all()
    assert found["ENSG00000155511"] > 1000, "GRIA1"
    small.uns["epigen"]["species"] = "mus_musculus"
    small.var["symbol"] = ["Gria1", "Sst", "Sst", "nothing"]
    assert list(genes.gene_lengths(small).index) == ["g1", "g2", "g3"]
    small.uns["epigen"]["species"] = "not stated"
    assert genes.gene_lengths(small).empty


def test_sparse_counts_and_ids_with_versions():
    human = genes.gene_table("homo_sapiens").query("symbol in ['SST', 'GFAP', 'GRIA1']")
    adata = anndata.AnnData(
        var=pd.DataFrame(index=[f"{name}.{place}" for place, name in enumerate(human["ensembl_id"])]),
        X=sparse.csr_matrix(np.arange(6).reshape(2, 3)),
        obs=pd.DataFrame(index=["a", "b"]),
    )
    adata = datasets._standardise(adata, "counts", "own")
    adata.uns["epigen"] = {"name": "own", "species": "not stated", "measure": "counts"}
    assert set(genes.add_symbols(adata).var["symbol"]) == {"SST", "GFAP", "GRIA1"}
    assert genes.gene_lengths(adata).notna().all()
    assert len(genes.gene_lengths(adata)) == 3
    assert orthologs.ortholog_coverage(adata)["share of counts"] == 1


def test_names_of_an_annotation(small):
    first, second = small.var_names[:2]
    named = genes.use_names(small, {first: "gria1a", "elsewhere": "x"})
    assert named.var["symbol"].tolist()[:2] == ["gria1a", small.var["symbol"].iloc[1]]
    assert second in named.var_names
    with pytest.raises(DataError, match="none of its .* genes .* is in the annotation \\(elsewhere"):
        genes.use_names(small, {"elsewhere": "x"})


@pytest.mark.parametrize("word", ["mouse", "Mouse", "Mus musculus", "mus_musculus", "Mmu", " M. musculus "])
def test_a_species_by_any_of_its_names(word):
    assert genes.species_named(word) == "mus_musculus"


def test_another_species_is_refused_with_the_list():
    with pytest.raises(
        DataError, match=r"species 'mouze': no table of genes; write one of homo_sapiens \(human\), mus_"
    ):
        genes.species_named("mouze")


@pytest.mark.parametrize(
    ("name", "gene"),
    [
        ("2-Sep", "SEPT2, now SEPTIN2"),
        ("Sep-02", "SEPT2, now SEPTIN2"),
        ("2023-09-02 00:00:00", "SEPT2, now SEPTIN2"),
        ("1-Mar", "MARCH1, now MARCHF1, or MARC1, now MTARC1"),
        ("4-Oct", "OCT4"),
        ("SEPTIN2", ""),
        ("2-SEP", ""),
        ("H2-Ab1", ""),
        ("2023-13-02", ""),
    ],
)
def test_the_gene_of_a_date(name, gene):
    assert genes.gene_of_date(name) == gene


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"S\tna\tA\xff\n", "cannot be read as gene sets .*give a GMT file"),
        (b"S\tna\tA\nS\tna\tB\n", "line 2: set 'S' is there twice; keep one, or rename it"),
        (b"\n", "no gene sets; give a GMT file"),
    ],
)
def test_what_is_no_file_of_gene_sets_is_one_line(tmp_path, content, said):
    path = tmp_path / "sets.gmt"
    path.write_bytes(content)
    with pytest.raises(DataError, match=rf"sets\.gmt: {said}"):
        genes.read_gmt(path)
    for other in (tmp_path / "none.gmt", tmp_path):
        with pytest.raises(DataError, match=str(other)):
            genes.read_gmt(other)


def test_gene_sets_as_other_programs_write_them(tmp_path):
    """A byte order mark, ends of lines of Windows, an empty line, and tabs behind the last gene."""
    (tmp_path / "sets.gmt").write_bytes(b"\xef\xbb\xbfS\tna\tA\tB\t\r\n\r\nT\tna\tC\r\n")
    assert genes.read_gmt(tmp_path / "sets.gmt") == {"S": ["A", "B"], "T": ["C"]}


def test_sums_of_large_counts_of_32_bits_do_not_wrap():
    summing, names = genes.summing_matrix(pd.Series(["a", "b", "a", None]))
    counts = sparse.csr_matrix(np.array([[2**31 - 1, 1, 2**30, 7]], np.int32))
    assert list(names) == ["a", "b"]
    assert (counts @ summing).toarray().tolist() == [[2**31 - 1 + 2**30, 1]]
