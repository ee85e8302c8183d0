import json
import math
import re

import pandas as pd
import pytest

from epigen_utils import paths
from epigen_utils.book import claims, ledger

CLAIM = {
    "id": "X1",
    "paper": "A",
    "locus": "Table II",
    "quote": r"**4.3M** \\sim 43\\% <of> $\\alpha$".replace("\\\\", "\\"),
    "quantity": "a & b",
    "reported": "0.90",
    "evidence": "run",
    "metric": "epilepsy/02_table_two:auc",
    "needs": "table-two",
    "premise": "none",
    "reproduced": 0.876,
    "method_check": math.nan,
    "low": 0.81,
    "high": 0.93,
    "n": 30.0,
    "verdict": claims.NOT_REPRODUCED,
    "data": "table-two",
    "readings": "",
    "decided": True,
    "shown": "epilepsy/02_table_two.html#fig",
}


def card(root="", anchor=False, **changes):
    return ledger.card(pd.Series(CLAIM | changes), root=root, anchor=anchor)


@pytest.mark.parametrize(
    ("reported", "expected"),
    [
        ("0.90", "0.90 (± 0.005)"),
        ("~132e3", "about 132,000 (± 1,000)"),
        ("4.3e6", "4,300,000 (± 50,000)"),
        (">0.65", "more than 0.65"),
        ("=1", "exactly 1"),
        ("12..16", "12 to 16"),
        ("", "no number"),
    ],
)
def test_reported_numbers_come_with_their_tolerance(reported, expected):
    assert ledger.reported_text(reported) == expected


def test_a_card_has_what_a_reader_needs():
    text = re.sub(r"<[^>]+>", " ", card())
    for part in (
        "X1",
        "not reproduced",
        "“4.3M ~43% &lt;of&gt; α”",
        "a &amp; b",
        "0.90 (± 0.005)",
        "0.876 (0.81 to 0.93; n = 30)",
    ):
        assert part in text
    assert "this book" in text
    assert 'href="../epilepsy/02_table_two.html#fig"' in card(root="../")


def test_a_claims_id_leads_to_its_card_and_only_the_ledger_has_the_anchor():
    assert 'id="claim-X1"' in card(anchor=True)
    assert 'href="#claim-X1"' in card(anchor=True)
    assert ' id="' not in card(root="../")
    assert 'href="../claims.html#claim-X1"' in card(root="../")


def test_a_premise_leads_to_the_claims_that_it_names():
    text = ledger.card(
        pd.Series(CLAIM | {"premise": "as B-mlm-4.3m, not B-mlm"}), root="../", ids={"B-mlm", "B-mlm-4.3m"}
    )
    assert '<dd>as <a href="../claims.html#claim-B-mlm-4-3m">B-mlm-4.3m</a>, not <a href=' in text
    assert '#claim-B-mlm">B-mlm</a></dd>' in text


def test_a_method_check_is_called_one_and_an_empty_one_is_left_out():
    text = card(decided=False, reproduced=math.nan, method_check=0.5, verdict="needs data: table-two", data="airway")
    assert "<dt>method check</dt><dd>0.5 (0.81 to 0.93; n = 30), on airway</dd>" in text
    assert "this book" not in text
    assert "method check" not in card(decided=False, reproduced=math.nan, verdict="needs data: table-two")


def test_every_verdict_has_a_tone():
    assert sorted(kind for kinds in ledger.TONES.values() for kind in kinds) == sorted(
        [*claims.VERDICTS, claims.PENDING]
    )
    assert set(ledger.EVIDENCE) == set(claims.EVIDENCE)


def test_bars_count_and_lead_to_the_ledger():
    judged = pd.DataFrame([CLAIM, CLAIM | {"id": "X2", "verdict": "needs data: table-two"}, CLAIM | {"paper": "B"}])
    bars = ledger.bars(judged)
    assert "Paper A: 2 claims" in bars
    assert 'href="claims.html?paper=A&amp;verdict=needs+data"' in bars
    assert bars.count("<a ") == 3


def test_the_claims_page(tmp_path, monkeypatch):
    for name in ("RESULTS", "GENERATED"):
        monkeypatch.setattr(paths, name, tmp_path / name)
    monkeypatch.setattr(paths, "ROOT", tmp_path)
    judged = ledger.write_claims_page("demo", {"epilepsy/04_heatmaps"})
    page = (paths.GENERATED / "claims.md").read_text()
    assert len(re.findall(r'<article [^>]*id="claim-', page)) == len(judged)
    waiting = judged["metric"].str.startswith("epilepsy/04_heatmaps:")
    assert waiting.any()
    assert set(judged.loc[waiting, "verdict"]) == {claims.PENDING}
    assert claims.PENDING not in set(judged.loc[~waiting, "verdict"])
    written = json.loads((paths.RESULTS / "demo" / "claims.json").read_text())
    assert [claim["id"] for claim in written] == list(judged["id"])
    assert list(pd.read_csv(paths.RESULTS / "demo" / "claims.csv")["id"]) == list(judged["id"])
    for name in ledger.FILTERS:
        values = set(re.findall(rf'<article [^>]*data-{name}="([^"]+)"', page))
        options = re.search(rf'<select name="{name}">(.*?)</select>', page)[1]
        assert values <= set(re.findall(r'value="([^"]+)"', options)), name
