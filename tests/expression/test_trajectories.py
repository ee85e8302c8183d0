import anndata
import numpy as np
import pandas as pd
import pytest
from scipy import sparse
from scipy.stats import spearmanr

from epigen_utils.errors import DataError
from epigen_utils.expression import trajectories
from epigen_utils.stats import two_classes

MARKERS = {"fall0": "down", "fall1": "down", "rise0": "up", "rise1": "up"}


@pytest.fixture(scope="module")
def planted():
    """200 cells along a path, each gene with a time at which it turns on or off; and the planted time."""
    rng = np.random.default_rng(3)
    time = pd.Series(np.sort(rng.random(200)), [f"c{i}" for i in range(200)])
    turn = rng.random(120)
    on = 1 / (1 + np.exp(-12 * (time.to_numpy()[:, None] - turn)))
    on[:, 60:] = 1 - on[:, 60:]
    names = [*(f"rise{i}" for i in range(60)), *(f"fall{i}" for i in range(60))]
    counts = rng.poisson(1 + 30 * on)
    adata = anndata.AnnData(
        obs=pd.DataFrame({"day": np.where(time < 0.5, "early", "late")}, time.index),
        var=pd.DataFrame({"symbol": names}, [f"id{i}" for i in range(120)]),
        layers={"counts": sparse.csr_matrix(counts)},
    )
    return adata, trajectories.log_expression(adata), time


@pytest.fixture(scope="module")
def comparison(planted):
    adata, values, time = planted
    depth = pd.Series(adata.layers["counts"].sum(axis=1).A1, adata.obs_names)
    options = {"n_genes": 100, "n_permutations": 99, "n_components": 10}
    return trajectories.compare_orders(values, depth, "fall5", adata.obs["day"], "late", MARKERS, **options)


def test_log_expression_is_of_symbols_and_of_10_000_counts():
    adata = anndata.AnnData(
        obs=pd.DataFrame(index=["x", "y"]),
        var=pd.DataFrame({"symbol": ["a", "b", "a", "none"]}, list("1234")),
        layers={"counts": sparse.csr_matrix(np.array([[1, 3, 6, 0], [0, 5, 5, 0]]))},
    )
    table = trajectories.log_expression(adata)
    assert list(table.columns) == ["b", "a"]
    np.testing.assert_allclose(table.loc["x"], np.log1p([3000, 6000]), rtol=1e-6)


def test_genes_that_validate_are_not_chosen(planted):
    _, values, _ = planted
    chosen = trajectories.variable_genes(values, 1000, without=list(MARKERS))
    assert len(chosen) == 116
    assert not set(chosen) & set(MARKERS)


def test_a_gene_that_no_cell_expresses_is_named(planted):
    with pytest.raises(DataError, match="gene 'rise6o': no cell expresses it; did you mean 'rise60'|'rise"):
        trajectories.gene_values(planted[1], "rise6o")


def test_the_planted_order_is_found_from_its_start(planted):
    _, values, time = planted
    found = trajectories.diffusion_pseudotime(values, values["fall5"], n_components=10)
    assert spearmanr(found["pseudotime"], time).statistic > 0.97
    assert spearmanr(found["component"], time).statistic > 0.97
    backwards = trajectories.diffusion_pseudotime(values, values["rise5"], n_components=10)
    assert spearmanr(backwards["pseudotime"], time).statistic < -0.97


def test_a_start_that_is_the_same_everywhere_is_refused(planted):
    values = planted[1]
    with pytest.raises(DataError, match="the same in all cells"):
        trajectories.diffusion_pseudotime(values, pd.Series(1.0, values.index))


def test_a_graph_in_two_pieces_is_refused():
    rng = np.random.default_rng(0)
    values = pd.DataFrame(rng.normal(size=(60, 5)), [f"c{i}" for i in range(60)])
    values.iloc[30:, 0] += 1000
    with pytest.raises(DataError, match="30 of 60 cells cannot be reached from the root; raise n_neighbors"):
        trajectories.diffusion_pseudotime(values, values[1], n_components=3, n_neighbors=5)
    settings = trajectories.over_settings(
        values, values[1], pd.Series(["a", "b"] * 30, values.index), "b", neighbors=[5], components=[3]
    )
    assert settings[["auc", "within"]].isna().all(axis=None)


def test_orders_and_their_nulls(planted, comparison):
    orders, time = comparison.orders, planted[2]
    agreement = comparison.agreement.set_index("order")
    for name in (trajectories.PSEUDOTIME, trajectories.BY_RANKS, trajectories.COMPONENT):
        assert spearmanr(orders[name], time).statistic > 0.95, name
        assert agreement.loc[name, "auc"] > 0.98
        assert agreement.loc[name, "p"] == pytest.approx(0.02)
        assert agreement.loc[name, "mean p"] == pytest.approx(0.02)
    assert abs(agreement.loc[trajectories.NULL, "auc"] - 0.5) < 0.15
    assert agreement.loc[trajectories.NULL, "p"] > 0.02
    assert agreement.loc[trajectories.NULL, "mean p"] > 0.02


def test_agreement_is_the_auc_with_a_paired_difference(planted, comparison):
    late = (planted[0].obs["day"] == "late").to_numpy()
    row = comparison.agreement.set_index("order").loc[trajectories.DEPTH]
    expected = two_classes.roc_auc(comparison.orders[trajectories.DEPTH].to_numpy(), late)
    first = two_classes.roc_auc(comparison.orders[trajectories.PSEUDOTIME].to_numpy(), late)
    assert row["auc"] == pytest.approx(expected)
    assert row["difference"] == pytest.approx(expected - first)
    assert row["difference low"] <= row["difference"] <= row["difference high"]
    itself = comparison.agreement.iloc[0]
    assert itself[["difference", "difference low", "difference high"]].tolist() == [0, 0, 0]


def test_times_must_be_two_and_known():
    orders = pd.DataFrame({"a": range(4)})
    with pytest.raises(DataError, match="two are needed"):
        trajectories.agreement_with_labels(orders, pd.Series(list("xyzx")), "x")
    with pytest.raises(DataError, match="'lat': did you mean 'late'"):
        trajectories.agreement_with_labels(orders, pd.Series(["late", "early"] * 2), "lat")


def test_markers_are_correlated_within_each_time_alone():
    """Here a marker is tied to the order between the times, and against it within each."""
    order = pd.DataFrame({"order": np.arange(40.0)})
    times = pd.Series(["early"] * 20 + ["late"] * 20)
    within = -np.tile(np.arange(20.0), 2)
    values = pd.DataFrame({"marker": within + 100 * (times == "late"), "constant": 1.0})
    assert spearmanr(values["marker"], order["order"]).statistic > 0
    table, summary = trajectories.markers_along(values, order, times, {"marker": "up", "constant": "up", "gone": "up"})
    assert table["gene"].tolist() == ["marker", "marker"]
    np.testing.assert_allclose(table["spearman"], -1)
    assert not table["as expected"].any()
    assert summary.loc[0, ["right", "tests", "mean"]].tolist() == [0, 2, pytest.approx(-1)]
    assert summary.loc[0, "p"] == pytest.approx(0.002)
    _, other = trajectories.markers_along(values, order, times, {"marker": "down"})
    assert other.loc[0, "mean"] == pytest.approx(1)
    with pytest.raises(DataError, match="markers constant, gone: no cell has them, or all alike; name others"):
        trajectories.markers_along(values, order, times, {"constant": "up", "gone": "up"})


def test_bins_have_equally_many_cells_and_their_means(planted):
    _, values, time = planted
    table = trajectories.expression_along(values, time, ["rise0", "fall0"], n_bins=8)
    assert table["cells"].tolist() == [25] * 16
    first = table.iloc[0]
    assert first["mean"] == pytest.approx(values["rise0"].iloc[:25].mean())
    assert first["low"] < first["mean"] < first["high"]
    assert table[table["gene"] == "fall0"]["mean"].is_monotonic_decreasing or table["mean"].notna().all()


def test_genes_are_ordered_by_their_correlation_within_the_times(planted):
    adata, values, time = planted
    table = trajectories.genes_along(values.assign(silent=0.0), time, adata.obs["day"])
    assert "silent" not in set(table["gene"])
    assert table["within"].abs().is_monotonic_decreasing
    row = table.set_index("gene").loc["rise7"]
    by_time = [
        spearmanr(values.loc[inside, "rise7"], time[inside]).statistic
        for inside in (adata.obs["day"] == "early", adata.obs["day"] == "late")
    ]
    assert row["within"] == pytest.approx(np.mean(by_time))
    assert row["spearman"] == pytest.approx(spearmanr(values["rise7"], time).statistic)


def test_settings_are_compared_with_the_first(planted):
    adata, values, _ = planted
    table = trajectories.over_settings(
        values, values["fall5"], adata.obs["day"], "late", neighbors=[15, 30], components=[10]
    )
    assert table["within"].iloc[0] == pytest.approx(1)
    assert table["within"].iloc[1] > 0.9
    assert (table["auc"] > 0.98).all()


def test_the_first_setting_is_not_computed_again(planted, monkeypatch):
    adata, values, _ = planted
    options = {"neighbors": [15, 30], "components": [10]}
    arguments = values, values["fall5"], adata.obs["day"], "late"
    first = trajectories.diffusion_pseudotime(*arguments[:2], n_components=10)["pseudotime"]
    expected = trajectories.over_settings(*arguments, **options)
    pd.testing.assert_frame_equal(trajectories.over_settings(*arguments, **options, first=first[::-1]), expected)
    monkeypatch.setattr(trajectories, "diffusion_pseudotime", None)
    alone = trajectories.over_settings(*arguments, neighbors=[15], components=[10], first=first)
    pd.testing.assert_frame_equal(alone, expected.head(1))
