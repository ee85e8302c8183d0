import anndata
import numpy as np
import pandas as pd
import pytest

from epigen_utils.data import cell_source, genes, simulated_cells
from epigen_utils.errors import DataError
from epigen_utils.geneformer import curation, encoding


def cohort(counts, columns, **obs):
    table = genes.gene_table("homo_sapiens").drop_duplicates("symbol").set_index("symbol")["ensembl_id"]
    names = [f"c{i}" for i in range(len(counts))]
    return anndata.AnnData(
        obs=pd.DataFrame(obs, index=names),
        var=pd.DataFrame({"symbol": columns}, index=table[columns].to_numpy()),
        layers={"counts": np.asarray(counts)},
    )


CODING = ["SST", "PVALB", "GRIA1", "GRIA2", "FOSB", "GFAP", "AQP4", "VIM", "MIR21"]


@pytest.fixture
def planted():
    """Forty ordinary cells, and one for each filter: its own row of trouble."""
    rng = np.random.default_rng(0)
    genes_here = [*CODING, "MT-CO1", "MALAT1"]
    counts = np.full((45, len(genes_here)), 10) + rng.integers(0, 3, (45, len(genes_here)))
    counts[40, genes_here.index("MT-CO1")] = 90  # mitochondrial
    counts[41] = counts[41] * 9  # depth
    counts[42, :4] = 0  # six coding genes left, MIR21 and MT-CO1 among them
    counts[42, genes_here.index("MALAT1")] = 40  # no coding gene: it does not help
    counts[43] = 0
    kinds = ["neuron"] * 44 + ["malignant cell"]
    return cohort(counts, genes_here, cell_type=kinds, disease=["normal"] * 45)


def test_each_filter_takes_its_cell(planted):
    found = curation.curate({"x": cell_source.InMemoryCells(planted)})
    taken = found[found["removed"] != ""].set_index("cell_id")["removed"]
    assert taken.to_dict() == {
        "c40": "mitochondrial",
        "c41": "depth",
        "c42": "genes",
        "c43": "empty",
        "c44": "metadata",
    }
    assert found.loc[found["cell_id"] == "c42", "genes"].item() == 6
    flow = curation.filter_flow(found).set_index("step")
    assert flow["removed"].to_dict() == dict.fromkeys(curation.FILTER_STEPS, 1)
    assert flow["left"].to_list() == [44, 43, 42, 41, 40]
    assert list(curation.kept_positions(found, "x")) == list(range(40))


def test_thresholds_are_three_sd_within_each_data_set(planted):
    other = planted[:40].copy()
    other.layers["counts"] = other.layers["counts"] * 9
    alone = curation.curate({"x": cell_source.InMemoryCells(planted)})
    both = curation.curate({"x": cell_source.InMemoryCells(planted), "deeper": cell_source.InMemoryCells(other)})
    pd.testing.assert_frame_equal(both[both["dataset"] == "x"], alone)
    assert (both.loc[both["dataset"] == "deeper", "removed"] == "").all()
    looked_at = alone[~alone["removed"].isin(["metadata", "empty"])]
    z = (looked_at["total"] - looked_at["total"].mean()) / looked_at["total"].std(ddof=0)
    assert set(looked_at.loc[z.abs() > 3, "removed"]) <= {"depth", "mitochondrial"}


@pytest.mark.parametrize(
    ("column", "word", "goes"),
    [
        ("disease", "breast cancer", True),
        ("disease", "dilated cardiomyopathy", False),
        ("disease", "Glioblastoma", True),
        ("cell_type", "immortalized fibroblast", True),
        ("cell_type", "T cell", False),
        ("tissue_type", "cell line", True),
    ],
)
def test_words_of_the_sample_table(planted, column, word, goes):
    some = planted[:20].copy()
    some.obs["cell_type"] = "neuron"
    some.obs[column] = [word] + ["normal"] * 19
    found = curation.curate({"x": cell_source.InMemoryCells(some)})
    assert (found["removed"].iloc[0] == "metadata") is goes
    assert (found["removed"].iloc[1:] == "").all()


def test_genes_of_another_species_are_one_line(planted):
    with pytest.raises(DataError, match="none of its 11 genes is a protein-coding or miRNA gene of mus_musculus"):
        curation.curate({"x": cell_source.InMemoryCells(planted)}, species="mus_musculus")


def test_medians_by_hand_and_by_digest():
    adata = cohort([[2, 0, 8], [5, 5, 0], [0, 3, 7]], ["SST", "PVALB", "GRIA1"])
    exact = curation.exact_medians([adata])
    sst, pvalb, gria1 = adata.var_names
    assert exact == pytest.approx({sst: 3500, pvalb: 4000, gria1: 7500})
    assert curation.digest_medians([cell_source.InMemoryCells(adata)]) == pytest.approx(exact)
    twice = curation.exact_medians([adata, adata])
    assert twice == pytest.approx(exact)
    adata.obs["n_counts"] = [20, 20, 20]
    assert curation.exact_medians([adata])[sst] == pytest.approx(1750)


def test_genes_without_an_ensembl_id_have_no_median_and_count_in_the_depth():
    named = cohort(np.full((3, 3), 10), ["SST", "GRIA1", "GRIA2"])
    unnamed = named.copy()
    unnamed.var["ensembl_id"] = [*unnamed.var_names[:2], ""]
    assert curation.exact_medians([unnamed]) == {
        gene: value for gene, value in curation.exact_medians([named]).items() if gene != unnamed.var_names[2]
    }


def test_digests_are_close_to_exact_medians_in_many_parts(monkeypatch):
    monkeypatch.setattr(curation, "CHUNK", 100)
    corpus = simulated_cells.cell_corpus(n_cells=900, n_genes=400, n_housekeeping=50, lengths={0: 20, 1: 200})
    exact = pd.Series(curation.exact_medians([corpus]))
    digest = pd.Series(curation.digest_medians([cell_source.InMemoryCells(corpus)]))
    assert list(exact.index) == list(digest.index)
    assert (digest / exact - 1).abs().quantile(0.95) < 0.06


def test_a_curated_file_is_encoded_without_what_was_removed(planted, tmp_path):
    planted.X = planted.layers.pop("counts").astype(np.float32)
    planted.write_h5ad(tmp_path / "cells.h5ad")
    with cell_source.H5adCells(tmp_path / "cells.h5ad") as source:
        curated = curation.curate({"x": source})
    keep = curation.kept_positions(curated, "x")
    with cell_source.H5adCells(tmp_path / "cells.h5ad", keep=keep) as source:
        medians = curation.digest_medians([source])
    encoder = encoding.RankValueEncoder(
        {gene: token for token, gene in enumerate(["<pad>", "<mask>", *medians])}, medians
    )
    found = encoder.encode_file(tmp_path / "cells.h5ad", tmp_path / "out", keep=keep)
    assert found["cell_id"][:] == [f"c{i}" for i in range(40)]


def test_sources_by_name_and_by_path(planted, tmp_path):
    planted.X = planted.layers.pop("counts").astype(np.float32)
    planted.write_h5ad(tmp_path / "mine.h5ad")
    found = curation.open_sources(["corpus-sim", str(tmp_path / "mine.h5ad")])
    assert list(found) == ["corpus-sim", "mine.h5ad"]
    assert (found["mine.h5ad"].n_obs, found["mine.h5ad"].n_vars) == (45, 11)
    assert found["mine.h5ad"].uns["epigen"]["nature"] == "your own"
    assert len(found["mine.h5ad"].uns["epigen"]["sha256"]["counts"]) == 64
    with pytest.raises(DataError, match="did you mean 'corpus-sim'"):
        curation.open_sources(["corpus_sim"])


def test_the_example_shows_a_cell_of_each_fate(planted):
    found = {"x": cell_source.InMemoryCells(planted)}
    curated = curation.curate(found)
    table = curation.example_entries(found, curated)
    assert set(table["kept"]) == {"yes", "no: mitochondrial", "no: depth", "no: genes", "no: metadata"}
    row = table[(table["cell"] == "c40") & (table["name"] == "MT-CO1")]
    assert (row["count"].item(), row["mitochondrial"].item(), row["type"].item()) == (90, 90, "protein_coding")
