import math
import re

import pandas as pd
import pytest

from epigen_utils import paths
from epigen_utils.book import claims, markup, verdict_pages
from epigen_utils.data import registry
from epigen_utils.errors import DataError

CLAIM = {
    "paper": "A",
    "locus": "Table II",
    "quote": "a quote",
    "quantity": "a number",
    "reported": "0.90",
    "evidence": "run",
    "metric": "epilepsy/02_table_two:auc",
    "needs": "table-two",
    "premise": "",
    "reproduced": math.nan,
    "method_check": math.nan,
    "low": math.nan,
    "high": math.nan,
    "n": math.nan,
    "data": "table-two",
    "readings": "",
    "decided": True,
    "shown": "",
}


@pytest.fixture
def judged():
    return pd.DataFrame(
        [
            CLAIM | {"id": "A1", "verdict": claims.CONSISTENT, "reproduced": 0.9},
            CLAIM | {"id": "A2", "verdict": claims.INCONSISTENT, "reproduced": 0.5},
            CLAIM | {"id": "A3", "verdict": f"{claims.NEEDS_DATA}: table-two", "decided": False},
            CLAIM | {"id": "B1", "verdict": claims.REPRODUCED, "reproduced": 0.9, "paper": "B"},
        ]
    )


def test_every_verdict_has_a_section():
    listed = [kind for kinds in verdict_pages.SECTIONS.values() for kind in kinds]
    assert sorted(listed) == sorted([*claims.VERDICTS, claims.PENDING])


def test_findings_count_what_the_claims_say(judged):
    text = verdict_pages.findings("demo", judged, {})
    assert "judges 4 claims" in text
    assert "Claims of paper A, 3 in all: 1 hold as far as they can be checked, 1 do not, 1 stay open." in text
    assert "Reproduced by a run on the paper's own data and model: 1;" in text
    run = {"model": "gpt2-tiny", "metrics": {"auc": {"value": 0.683}, "rival": {"value": 0.828}}}
    metrics = {"epilepsy/07_classification": run}
    assert "`gpt2-tiny` on gene sentences has a held-out AUC of 0.68, the best baseline 0.83" in verdict_pages.findings(
        "demo", judged, metrics
    )


def test_a_verdict_page_lists_highlights_where_they_belong(judged):
    chosen = {"highlights": ["A2", "A1", "A3"], "advice": ["Print {A2} instead."]}
    page = verdict_pages.verdict_page(judged, chosen, {"A3": "make book PROFILE=paper"})
    sections = dict(zip(re.findall(r"^## (.*)$", page, re.M), re.split(r"^## .*$", page, flags=re.M)[1:], strict=True))
    assert "claim-A1" in sections["What holds"]
    assert "claim-A2" in sections["What does not hold"]
    assert "make book PROFILE=paper" in sections["What cannot be known from this build, and what it would take"]
    assert "- Print 0.5 instead." in sections["What we would tell the authors"]


def test_a_claim_that_no_profile_can_decide_says_so(judged):
    page = verdict_pages.verdict_page(
        judged, {"highlights": ["A3"], "advice": []}, {"A3": "no profile has a run x on y yet"}
    )
    assert "no profile has a run x on y yet" in page


def test_choices_name_claims_that_exist(tmp_path, monkeypatch):
    existing = claims.judge_claims(claims.read_claims(), {})
    choices = verdict_pages.read_choices(existing)
    assert set(choices) == {"A", "B"}
    for paper, chosen in choices.items():
        assert chosen["highlights"], paper
        assert chosen["advice"], paper
    path = tmp_path / "verdicts.yml"
    path.write_text("A: {highlights: [], advice: ['Mend {nothing}.']}\n")
    monkeypatch.setattr(verdict_pages, "CHOICES", path)
    with pytest.raises(DataError, match="paper A: 'nothing' is no claim"):
        verdict_pages.read_choices(existing)


def test_numbers_in_the_advice_are_computed():
    """A digit in the advice is a number that nobody computed, unless it names a table, a figure or a section."""
    existing = claims.judge_claims(claims.read_claims(), {})
    for chosen in verdict_pages.read_choices(existing).values():
        for text in chosen["advice"]:
            rest = re.sub(r"\{[\w-]+\}|F1|log2|(Table|Figure|Section|Eq\.|GPT-|FP|V)\s?[\w.]+", "", text)
            assert not re.search(r"\d", rest), text


@pytest.fixture
def built(tmp_path, monkeypatch):
    monkeypatch.setattr(verdict_pages.paths, "RESULTS", tmp_path)
    figures = tmp_path / "demo" / "epilepsy" / "07_classification" / "main" / "figures"
    figures.mkdir(parents=True)
    (figures / "roc.png").touch()
    number = {"value": 0.683, "low": 0.488, "high": 0.824, "n": 41}
    return {
        "epilepsy/07_classification": {"model": "gpt2-tiny", "datasets": {"airway": {}}, "metrics": {"auc": number}}
    }


@pytest.mark.parametrize(
    ("field", "expected"),
    [
        ("[[epilepsy/07_classification:auc]]", "0.683 (0.488 to 0.824; n = 41)"),
        ("[[epilepsy/07_classification:auc|.1%]]", "68.3%"),
        ("[[epilepsy/07_classification|model]]", "gpt2-tiny"),
        ("[[epilepsy/07_classification:f1]]", verdict_pages.NOT_IN_BUILD),
        ("[[epilepsy/08_across_species:auc]]", verdict_pages.NOT_IN_BUILD),
        ("![[epilepsy/07_classification:gone]](A caption.)", f"*A caption.* {verdict_pages.NOT_IN_BUILD}"),
    ],
)
def test_an_article_has_the_numbers_of_the_build(built, field, expected):
    assert verdict_pages.article(field, "demo", built) == expected


def test_an_article_names_data_and_has_figures(built):
    text = "On [[epilepsy/07_classification|data]]:\n\n![[epilepsy/07_classification:roc]](A caption.)\n"
    made = verdict_pages.article(text, "demo", built)
    assert made.startswith(f"On {markup.escape_text(registry.entries()['airway'].title)}:")
    assert re.search(r"^:::\{figure\} .*07_classification/main/figures/roc\.png$", made, re.M)
    assert "A caption. From {doc}`/epilepsy/07_classification`." in made


def test_the_articles_name_chapters_that_exist():
    for path in (paths.BOOK / "articles").glob("*.md"):
        keys = {key for key, *_ in re.findall(verdict_pages.RUN_FIELD, path.read_text())}
        assert keys
        assert {key for key in keys if not (paths.NOTEBOOKS / f"{key}.ipynb").exists()} == set()
