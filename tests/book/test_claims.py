import math

import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from epigen_utils import paths
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
    "evidence": "run",
    "metric": "epilepsy/02_table_two:auc",
    "needs": "table-two",
    "premise": "",
}


REAL = {"datasets": {"table-two": {"nature": "real"}}, "model": ""}


def judge(run, **changes):
    return claims.judge_claims(pd.DataFrame([ROW | changes]), {"epilepsy/02_table_two": run}).iloc[0]


def run(value, low=None, high=None, **changes):
    ends = {} if low is None else {"low": low, "high": high}
    return REAL | {"metrics": {"auc": {"value": value, **ends}}} | changes


@pytest.mark.parametrize(
    ("reported", "value", "expected"),
    [
        ("0.90", 0.9049, True),
        ("0.90", 0.9051, False),
        ("0.90", 0.895, True),
        ("-2.1", -2.06, True),
        ("4.3e6", 4_352_466, False),
        ("1.5e9", 1_475_561_600, True),
        ("~0.43", 0.4230, True),
        ("~132e3", 132_595, True),
        ("~132e3", 133_100, False),
        ("=1", 0.999, False),
        ("=1", 1, True),
        (">0.65", 0.6500001, True),
        (">0.65", 0.65, False),
        ("<0.05", 0.05, False),
        ("<0.05", math.nan, False),
        ("12..16", 12, True),
        ("12..16", 9, False),
        ("12..16", math.nan, False),
        ("0", 0.4, True),
    ],
)
def test_agreement_of_a_number(reported, value, expected):
    assert claims.agreement(reported, value) is expected


@pytest.mark.parametrize(
    ("reported", "value", "low", "high", "expected"),
    [
        (">0", 0.2, 0.1, 0.3, True),
        (">0", 0.2, -0.1, 0.5, None),
        (">0", -0.2, -0.3, -0.1, False),
        ("<0.5", 0.45, 0.4, 0.49, True),
        ("<0.5", 0.45, 0.4, 0.6, None),
        ("12..16", 14, 13, 15, True),
        ("12..16", 14, 10, 15, None),
        ("12..16", 20, 18, 22, False),
        ("0.90", 0.90, 0.2, 1.0, True),  # it is the reported one
        ("0.90", 0.85, 0.2, 1.0, None),  # an interval that holds nearly everything confirms nothing
        ("0.90", 0.88, 0.86, 0.94, True),
        ("0.90", 0.80, 0.75, 0.85, False),
    ],
)
def test_agreement_looks_at_the_interval(reported, value, low, high, expected):
    assert claims.agreement(reported, value, low, high) is expected


@pytest.mark.parametrize("evidence", claims.EVIDENCE)
def test_a_verdict_says_what_decided_it(evidence):
    agrees, differs = claims.EVIDENCE[evidence]
    assert judge(run(0.90), evidence=evidence)["verdict"] == agrees
    assert judge(run(0.80), evidence=evidence)["verdict"] == differs


def test_a_run_alone_reproduces():
    assert [key for key, (agrees, _) in claims.EVIDENCE.items() if agrees == claims.REPRODUCED] == ["run"]


def test_what_a_verdict_comes_with():
    row = judge(run(0.90, 0.8, 1.0))
    assert (row["reproduced"], row["low"], row["high"], row["data"]) == (0.90, 0.8, 1.0, "table-two")
    assert math.isnan(row["method_check"])
    assert row["shown"] == "epilepsy/02_table_two.html"
    metrics = {"auc": {"value": 0.9, "at": "epilepsy-02-table-two-fig-pca"}}
    assert judge(REAL | {"metrics": metrics})["shown"] == "epilepsy/02_table_two.html#epilepsy-02-table-two-fig-pca"


def test_an_interval_across_the_bound_is_undecided():
    assert judge(run(0.1, -0.1, 0.3), reported=">0")["verdict"] == claims.UNDECIDED


def test_without_a_line_of_the_paper_there_is_no_verdict():
    row = judge(run(0.3), reported="")
    assert row["verdict"] == claims.NOT_TESTABLE
    assert row["reproduced"] == 0.3


READINGS = {"metric": "epilepsy/02_table_two:auc | epilepsy/02_table_two:other"}


@pytest.mark.parametrize(
    ("other", "expected"),
    [(0.9, claims.REPRODUCED), (0.5, claims.DEPENDS), (None, "needs data: table-two")],
)
def test_readings_that_disagree(other, expected):
    metrics = {"auc": {"value": 0.9}} | ({} if other is None else {"other": {"value": other}})
    row = judge(REAL | {"metrics": metrics}, **READINGS)
    assert row["verdict"] == expected
    assert row["readings"] == f"0.9; {'none' if other is None else other}"
    assert row["decided"] == (other is not None)


def test_each_reading_has_its_own_data_interval_and_n():
    needs = "table-two | airway"
    frame = pd.DataFrame(
        [ROW | {"needs": needs, "metric": "epilepsy/02_table_two:auc | epilepsy/02_table_two--airway:auc"}]
    )
    other = {
        "datasets": {"airway-as-mouse": {"nature": "simulated"}},
        "model": "",
        "metrics": {"auc": {"value": 0.8, "n": 9}},
    }
    runs = {"epilepsy/02_table_two": run(0.9, 0.8, 1.0), "epilepsy/02_table_two--airway": other}
    row = claims.judge_claims(frame, runs).iloc[0]
    assert row["verdict"] == "needs data: airway"
    assert row["readings"] == "0.9 (0.8 to 1); 0.8 (n = 9), on airway-as-mouse"


def test_an_interval_that_cannot_be_had_leaves_a_claim_undecided():
    metrics = {"auc": {"value": 0.7, "low": None, "high": None}}
    assert judge(REAL | {"metrics": metrics})["verdict"] == claims.UNDECIDED
    assert judge(REAL | {"metrics": metrics}, reported=">0")["verdict"] == claims.UNDECIDED


@pytest.mark.parametrize(
    "other",
    [
        {"datasets": {"airway": {"nature": "real"}}},
        {"datasets": {"table-two": {"nature": "simulated"}}},
        {"datasets": {"negative-binomial-sim": {"nature": "simulated"}}},
    ],
)
def test_other_or_simulated_data_never_decide(other):
    row = judge(run(0.90, 0.8, 1.0, **other))
    assert row["verdict"] == "needs data: table-two"
    assert math.isnan(row["reproduced"])
    assert (row["method_check"], row["low"], row["high"]) == (0.90, 0.8, 1.0)


def test_a_number_that_checks_nothing_is_left_out():
    metrics = {"auc": {"value": 0.9, "low": 0.8, "high": 1.0, "method_check": False}}
    row = judge({"datasets": {"airway": {"nature": "real"}}, "model": "", "metrics": metrics})
    assert row[["method_check", "low", "high"]].isna().all()
    assert judge(REAL | {"metrics": metrics})["reproduced"] == 0.9, "on the claim's own data it counts"


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
        ({"evidence": "guess"}, "evidence 'guess'"),
        ({"needs": "airway | table-two"}, "write one for all readings"),
        ({"needs": "table-tow"}, "needs 'table-tow', which is not in the registry"),
        ({"reported": "about 1"}, "reported 'about 1'"),
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
    assert len(frame) >= 100
    for row in frame.to_dict("records"):
        for _, needs in claims.paired_readings(row):
            assert registry.entry(needs.partition(";")[0].strip()).real, f"{row['id']}: simulated data decide nothing"
    for column in ("quote", "metric"):
        twice = frame.loc[frame.duplicated(["paper", column], keep=False), ["id", column]]
        assert twice.empty, f"one claim, one {column}:\n{twice}"


def test_quotes_are_in_the_papers(mirror):
    texts = {}
    for paper, name in (("A", "paper_a_epilepsy_gpt2xl.txt"), ("B", "paper_b_geneformer_distilled.txt")):
        text = (mirror.parent / "papers" / name).read_text()
        texts[paper] = " ".join(text.replace("–", "-").replace("\u2019", "'").split()).lower()
    for row in claims.read_claims().itertuples():
        quote = " ".join(row.quote.replace("–", "-").split()).lower()
        assert quote in texts[row.paper], f"{row.id}: {row.quote!r} is not in paper {row.paper}"


NUMBERS = st.one_of(
    st.floats(-1e6, 1e6), st.floats(-1, 1), st.floats(1e-14, 1e-4), st.integers(-(10**6), 10**6).map(float)
)


@given(value=NUMBERS, digits=st.integers(0, 4), kind=st.sampled_from("fe"))
def test_a_number_agrees_with_itself_as_a_paper_prints_it(value, digits, kind):
    printed = f"{value:.{digits}{kind}}"
    last = 10.0 ** (int(printed.partition("e")[2] or 0) - digits)
    assert claims.tolerance(printed) == pytest.approx(last / 2, abs=0)
    assert claims.tolerance(f"~{printed}") == pytest.approx(last, abs=0)
    assert claims.agreement(printed, value) is True
    assert claims.agreement(f"~{printed}", value) is True
    for away in (-2.5 * last, 2.5 * last):
        assert claims.agreement(printed, value + away) is False
        assert claims.agreement(f"~{printed}", value + away) is False


@given(
    value=st.integers(-50, 50),
    ends=st.tuples(st.integers(0, 9), st.integers(0, 9)),
    bound=st.integers(-50, 50),
    width=st.integers(0, 30),
)
def test_bounds_and_ranges_are_what_they_say_of_every_number_of_the_interval(value, ends, bound, width):
    low, high = value - ends[0], value + ends[1]

    def wanted(holds):
        inside = [holds(number) for number in range(low, high + 1)]
        return None if len(set(inside)) > 1 else inside[0]

    found = {sign: claims.agreement(f"{sign}{bound}", value, low, high) for sign in "<>"}
    assert found == {"<": wanted(lambda number: number < bound), ">": wanted(lambda number: number > bound)}
    inside = claims.agreement(f"{bound}..{bound + width}", value, low, high)
    assert inside is wanted(lambda number: bound <= number <= bound + width)
    assert claims.agreement(f">{bound}", value, None, high) is None


@pytest.mark.parametrize(
    "text",
    [
        "[",
        "[]",
        '{"metrics": [1]}',
        '{"metrics": {"a": {"value": "many"}}}',
        '{"datasets": {"x": "real"}}',
        '{"model": []}',
    ],
)
def test_damaged_results_are_one_line(tmp_path, monkeypatch, text):
    monkeypatch.setattr(paths, "RESULTS", tmp_path)
    path = tmp_path / "demo" / "epilepsy" / "02_table_two" / "main" / "metrics.json"
    path.parent.mkdir(parents=True)
    path.write_text(text)
    with pytest.raises(DataError, match=r"main/metrics\.json: .*; delete its folder, and build again"):
        claims.table("demo")
