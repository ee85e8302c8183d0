import anndata
import numpy as np
import pandas as pd
import pytest

from epigen_utils import paths
from epigen_utils.data import cell_source
from epigen_utils.geneformer import curation, curation_checks


def source(counts, **obs):
    names = [f"c{i}" for i in range(len(counts))]
    adata = anndata.AnnData(
        obs=pd.DataFrame(obs, index=names),
        var=pd.DataFrame(index=[f"ENSG{i:011d}" for i in range(np.shape(counts)[1])]),
        layers={"counts": np.asarray(counts)},
    )
    adata.uns["epigen"] = {"group": "kind"}
    return cell_source.InMemoryCells(adata)


def curated_cells(total, genes, removed=""):
    columns = {"dataset": "a", "total": total, "genes": genes, "removed": removed}
    return pd.DataFrame(columns).assign(position=range(len(total)))


def test_the_pipeline_has_the_numbers_of_the_flow():
    flow = pd.DataFrame(
        {
            "dataset": ["a", "a", "b", "b"],
            "step": ["metadata", "depth"] * 2,
            "what": ["w", "d"] * 2,
            "removed": [1, 2, 0, 3],
            "left": [9, 7, 20, 17],
        }
    )
    steps = curation_checks.pipeline_steps(flow, 500).set_index("step")
    assert steps["cells"].tolist() == [30, 29, 24, 24, 24]
    assert steps["removed"].dropna().tolist() == [1, 5]
    assert "2 data sets" in steps.loc["raw counts", "what"]
    assert "500 genes" in steps.loc["medians", "what"]


def test_the_filter_on_malignant_cells_works_on_every_example():
    table = curation_checks.exclusion_examples()
    assert table["right"].all()
    assert table["excluded"].any()
    assert not table["excluded"].all()


def test_the_metadata_filter_says_what_it_could_read():
    sources = {
        "a": source(np.ones((3, 4)), cell_type=["T cell", "malignant", "T cell"], kind="x"),
        "b": source(np.ones((2, 4)), kind="y"),
    }
    curated = pd.DataFrame({"dataset": ["a"] * 3 + ["b"] * 2, "removed": ["", "metadata", "", "", ""]})
    table = curation_checks.metadata_filter(sources, curated).set_index("dataset")
    assert table.loc["a"].tolist() == ["cell_type", 2, 1]
    assert table.loc["b"].tolist() == ["none", 0, 0]


def test_a_skewed_depth_has_no_lower_limit():
    """Three standard deviations below the mean of a skewed distribution lie below zero: no cell can be too shallow."""
    total = np.exp(np.random.default_rng(0).normal(8, 1, 2000))
    table = curation_checks.depth_limits(curated_cells(total, total)).iloc[0]
    assert table["lower"] < 0 < table["upper"]
    assert (table["below"], table["cells"]) == (0, 2000)
    assert table["above"] > 0
    assert table["genes and depth"] == pytest.approx(1)
    even = curation_checks.depth_limits(curated_cells(np.array([9.0, 10, 11] * 50), np.arange(150))).iloc[0]
    assert even["lower"] > 0
    assert even["spread"] == pytest.approx(np.sqrt(2 / 3) / 10)


def test_composition_is_by_organ_where_there_is_one():
    sources = {
        "organ": source(np.ones((4, 3)), Organ=["heart", "heart", "liver", "lung"], kind="x"),
        "kind": source(np.ones((4, 3)), kind=["T", "T", "B", "B"]),
    }
    curated = pd.DataFrame(
        {
            "dataset": ["organ"] * 4 + ["kind"] * 4,
            "removed": ["", "", "", "depth"] + [""] * 4,
            "position": [0, 1, 2, 3] * 2,
        }
    )
    cells, table = curation_checks.composition(sources, curated)
    assert cells["organ"].to_dict() == {"heart": 2, "liver": 1, "T": 0, "B": 0}
    by = table.set_index("dataset")
    assert (by.loc["organ", "by"], by.loc["organ", "is organ"]) == ("Organ", True)
    assert (by.loc["kind", "by"], by.loc["kind", "is organ"]) == ("kind", False)
    assert by.loc["organ", "share"] == pytest.approx(2 / 3)
    assert by.loc["kind", "effective levels"] == pytest.approx(2)
    assert "named in `organ`; elsewhere" in curation_checks.describe_composition(table)
    assert "names an organ; kinds" in curation_checks.describe_composition(table[table["dataset"] == "kind"])
    assert curation_checks.describe_composition(table[table["is organ"]]).endswith("`organ`.")


def test_a_digest_is_exact_for_few_values_and_right_in_rank_for_many():
    """A median between two clusters of values is off by a factor, while its rank is right to a percentage point."""
    rng = np.random.default_rng(0)
    few, many = rng.lognormal(size=40), np.r_[rng.lognormal(-6, 0.3, 301), rng.lognormal(2, 0.3, 300)]
    counts = np.zeros((601, 3))
    counts[:40, 0], counts[:, 1] = few, many
    counts[:, 2] = 1e4 - counts[:, :2].sum(axis=1)
    table = curation.compare_medians([source(counts, kind="x")], compression=20.0)
    assert table["cells"].tolist() == [40, 601, 601]
    assert table["median"].iloc[1] == pytest.approx(np.median(many))
    assert table["rank"].sub(0.5).abs().max() < 0.03
    errors = curation_checks.median_errors(table).set_index("cells")
    assert errors["genes"].to_dict() == {"10 to 99": 1, "300 or more": 2}
    assert errors.loc["300 or more", "largest error"] > 1
    exact = curation.compare_medians([source(counts, kind="x")], compression=100.0).iloc[0]
    assert exact["t-digest"] == pytest.approx(exact["median"])
    assert exact["rank"] == pytest.approx(0.5)


def test_the_papers_example_row_by_row():
    """Two symbols stand in the id column, four ids lack a digit or have one too many, and each id fits its name."""
    rows = pd.read_csv(paths.DATA / "paper_b_figure1.csv")
    table = curation_checks.check_example_rows(rows)
    assert len(table) == 12
    assert table["id"].value_counts().to_dict() == {
        "Ensembl id": 6,
        "Ensembl id with 12 digits": 3,
        "Ensembl id with 10 digits": 1,
        "symbol": 2,
    }
    assert table.loc[table["id"] != "symbol", "fits"].all(), "C1orf112 is FIRRM today"
    assert table.loc[table["id"] == "symbol", "fits"].isna().all()
    assert table.loc[table["above mito"], "name"].tolist() == ["MT-CO1"]
