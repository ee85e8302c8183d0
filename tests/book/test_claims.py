import math

import pandas as pd
import pytest

from epigen_utils.book import claims
from epigen_utils.data import registry
from epigen_utils.errors import DataError

ROW = {
    "id": "X1",
    "paper": "A",
    "locus": "Table II",
    "quote": "a quote",
    "quantity": "a number",
    "reported": "0.90",
    "tolerance": "0.005",
    "metric": "epilepsy/02_table_two:auc",
    "needs": "table-two",
    "otherwise": "not reproduced",
    "premise": "",
}


REAL = {"datasets": {"table-two": {"nature": "real"}}, "model": ""}


def judge(run, **changes):
    return claims.judge_claims(pd.DataFrame([ROW | changes]), {"epilepsy/02_table_two": run}).iloc[0]


def run(value, **changes):
    return REAL | {"metrics": {"auc": {"value": value, "low": 0.8, "high": 1.0}}} | changes


@pytest.mark.parametrize(
    ("reported", "tolerance", "value", "expected"),
    [
        ("0.90", "0.005", 0.9049, True),
        ("0.90", "0.005", 0.9051, False),
        ("0.90", "0.005", 0.895, True),
        ("-2.1", "0.05", -2.06, True),
        (">0.65", "0", 0.6500001, True),
        (">0.65", "0", 0.65, False),
        ("<0.05", "", 0.05, False),
        ("12..16", "0", 12, True),
        ("12..16", "0", 9, False),
        ("0", "0", 0, True),
    ],
)
def test_agreement(reported, tolerance, value, expected):
    assert claims.agrees_with_paper(reported, tolerance, value) is expected


def test_verdicts():
    assert judge(run(0.90))["verdict"] == claims.REPRODUCED
    for otherwise in (claims.NOT_REPRODUCED, claims.INCONSISTENT, claims.NOT_ATTAINABLE):
        assert judge(run(0.80), otherwise=otherwise)["verdict"] == otherwise
    row = judge(run(0.90))
    assert (row["reproduced"], row["low"], row["high"], row["data"]) == (0.90, 0.8, 1.0, "table-two")
    assert math.isnan(row["method_check"])


@pytest.mark.parametrize(
    "other",
    [
        {"datasets": {"airway": {"nature": "real"}}},
        {"datasets": {"table-two": {"nature": "simulated"}}},
        {"datasets": {"negative-binomial-sim": {"nature": "simulated"}}},
    ],
)
def test_other_or_simulated_data_never_decide(other):
    row = judge(run(0.90, **other))
    assert row["verdict"] == "needs data: table-two"
    assert math.isnan(row["reproduced"])
    assert row["method_check"] == 0.90


def test_the_model_is_part_of_what_is_needed():
    needs = "table-two; gpt2-xl"
    assert judge(run(0.90, model="gpt2-tiny"), needs=needs)["verdict"] == f"needs data: {needs}"
    assert judge(run(0.90, model="gpt2-xl"), needs=needs)["verdict"] == claims.REPRODUCED


def test_a_number_of_another_data_set_of_the_page_never_decides():
    pages = {"table-two": {"nature": "real"}, "other": {"nature": "real"}}
    metric = {"auc": {"value": 0.9, "of": "other"}}
    row = judge({"datasets": pages, "model": "", "metrics": metric})
    assert row["verdict"] == "needs data: table-two"
    assert row["method_check"] == 0.9
    metric["auc"]["of"] = "table-two"
    assert judge({"datasets": pages, "model": "", "metrics": metric})["verdict"] == claims.REPRODUCED


def test_a_p_value_that_filtering_took_out_is_no_call():
    row = judge(run(math.nan), reported="<0.05")
    assert row["verdict"] == claims.NOT_REPRODUCED


def test_a_metric_that_was_not_computed_needs_data():
    row = judge(REAL | {"metrics": {}})
    assert row["verdict"] == "needs data: table-two"
    assert math.isnan(row["reproduced"])
    assert math.isnan(row["method_check"])


def test_a_claim_reads_the_main_run_unless_it_names_another():
    frame = pd.DataFrame([ROW, ROW | {"id": "X2", "metric": "epilepsy/02_table_two--other:auc"}])
    judged = claims.judge_claims(frame, {"epilepsy/02_table_two": run(0.5), "epilepsy/02_table_two--other": run(0.9)})
    assert judged["verdict"].tolist() == [claims.NOT_REPRODUCED, claims.REPRODUCED]
    assert len(claims.claims_of_chapter(frame, "epilepsy/02_table_two")) == 2
    assert len(claims.claims_of_chapter(frame, "epilepsy/02_table")) == 0


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"metric": "auc"}, "write it as paper/chapter:name"),
        ({"otherwise": "false"}, "otherwise 'false'"),
        ({"needs": "table-tow"}, "needs 'table-tow', which is not in the registry"),
        ({"reported": "about 1"}, "reported 'about 1'"),
        ({"tolerance": "small"}, "tolerance 'small'"),
    ],
)
def test_a_bad_row_is_named(tmp_path, changes, said):
    pd.DataFrame([ROW, ROW | {"id": "X2"} | changes]).to_csv(tmp_path / "bad.csv", index=False)
    with pytest.raises(DataError, match=r"bad\.csv: row 3") as caught:
        claims.read_claims(tmp_path)
    assert said in str(caught.value)


def test_duplicate_ids_and_wrong_columns(tmp_path):
    pd.DataFrame([ROW, ROW]).to_csv(tmp_path / "a.csv", index=False)
    with pytest.raises(DataError, match="'X1': id given twice"):
        claims.read_claims(tmp_path)
    pd.DataFrame([ROW]).drop(columns="locus").to_csv(tmp_path / "a.csv", index=False)
    with pytest.raises(DataError, match="they must be id, paper, locus"):
        claims.read_claims(tmp_path)


def test_the_claims_themselves():
    frame = claims.read_claims()
    assert len(frame) >= 10
    for row in frame.itertuples():
        for name in row.needs.partition(";")[0].split(","):
            assert registry.entry(name.strip()).real, f"{row.id}: a claim is never decided by simulated data"


def test_quotes_are_in_the_papers(mirror):
    texts = {}
    for paper, name in (("A", "paper_a_epilepsy_gpt2xl.txt"), ("B", "paper_b_geneformer_distilled.txt")):
        text = (mirror.parent / "papers" / name).read_text()
        texts[paper] = " ".join(text.replace("–", "-").replace("\u2019", "'").split()).lower()
    for row in claims.read_claims().itertuples():
        quote = " ".join(row.quote.replace("–", "-").split()).lower()
        assert quote in texts[row.paper], f"{row.id}: {row.quote!r} is not in paper {row.paper}"


def test_for_reading_drops_empty_columns():
    judged = claims.judge_claims(
        pd.DataFrame([ROW]), {"epilepsy/02_table_two": REAL | {"metrics": {"auc": {"value": 0.9}}}}
    )
    shown = claims.display_columns(judged)
    assert "interval" not in shown
    assert shown.loc[0, "reproduced"] == "0.9"
