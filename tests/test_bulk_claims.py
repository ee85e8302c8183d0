"""The claims on the bulk chapters: what judges them, and that each printed number of Table I has one."""

import pandas as pd
import pytest

from epigen_utils import paths
from epigen_utils.book import claims

CHAPTERS = ("02_table_two", "02a_normalisation", "03_differential_expression", "04_heatmaps", "04a_balance")


@pytest.fixture(scope="module")
def frame():
    parts = [pd.read_csv(paths.CLAIMS / f"epilepsy_{name}.csv", dtype=str, keep_default_na=False) for name in CHAPTERS]
    return pd.concat(parts).set_index("id")


def test_printed_tables_judge_the_paper_only_against_itself(frame):
    """Table II's counts decide nothing about embeddings (A6, A7, A8, A14), nor about an AUC (A9)."""
    printed = frame[frame["needs"].isin(["table-one", "table-two"])]
    assert set(printed["evidence"]) == {"paper"}
    assert not frame["metric"].str.contains("pc1_n|pc2_n|silhouette|overlap|tsne|clusters_are|nearest|balance_by").any()


def test_each_number_that_table_one_prints_has_one_claim(frame):
    printed = pd.read_csv(paths.DATA / "table_one.csv", dtype=str)
    for row in printed.itertuples():
        for kind, value in (("change", row.log2FoldChange), ("p", row.padj)):
            claim = frame.loc[f"T1-{row.gene.lower()}-{kind}"]
            assert claim["reported"] == value
            assert claim["quote"].startswith(f"{row.printed} {row.function} ")
            assert float(claim["quote"].split()[-1]) == float(value)
            assert len(claim["metric"].split(claims.READING)) == 2, "mouse and zebrafish"
            assert claim["needs"].split(claims.READING) == ["GSE264537", "GSE275235"]


@pytest.mark.parametrize(
    ("name", "reported"),
    [("F2-gria1", ">0"), ("F2-sst", "<0"), ("F2-shifts", ">0"), ("F3-excitatory", ">0"), ("F3-inhibitory", "<0")],
)
def test_a_direction_is_judged_by_a_change_with_an_interval(frame, name, reported):
    claim = frame.loc[name]
    assert claim["reported"] == reported
    assert claim["metric"].endswith(("_change", "_shifts"))
    below = {"value": -0.5, "low": -0.9, "high": -0.1}
    metric = below if reported == "<0" else {"value": 0.5, "low": 0.1, "high": 0.9}
    key, _, metric_name = claim["metric"].partition(":")
    row = pd.DataFrame([claim.to_dict() | {"id": name}])
    for changed, verdict in (
        (metric, claims.REPRODUCED),
        (metric | {"low": -0.1 if reported == ">0" else -0.9, "high": 0.9}, claims.UNDECIDED),
        ({"value": -metric["value"], "low": -metric["high"], "high": -metric["low"]}, claims.NOT_REPRODUCED),
    ):
        data = {claim["needs"]: {"nature": "real"}}
        judged = claims.judge_claims(row, {key: {"datasets": data, "metrics": {metric_name: changed}}})
        assert judged["verdict"].tolist() == [verdict]


def test_clearly_and_distinct_are_no_lines(frame):
    assert frame.loc[["F2-clusters", "F3-clusters"], "reported"].tolist() == ["", ""]


def test_a_treatment_that_no_table_states_decides_nothing(frame):
    for name in ("AB-restored", "AB-astrogliosis"):
        claim = frame.loc[name]
        key, _, metric = claim["metric"].partition(":")
        row = pd.DataFrame([claim.to_dict() | {"id": name}])
        data = {claim["needs"]: {"nature": "real"}}
        for metrics, verdict in (
            ({}, f"{claims.NEEDS_DATA}: {claim['needs']}"),
            ({metric: {"value": 1, "of": claim["needs"]}}, claims.NOT_ATTAINABLE),
            ({metric: {"value": 2, "of": claim["needs"]}}, claims.UNDECIDED),
        ):
            judged = claims.judge_claims(row, {key: {"datasets": data, "metrics": metrics}})
            assert judged["verdict"].tolist() == [verdict]
