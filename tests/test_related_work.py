"""The hand-written page on citations, held to the papers' texts and reference lists."""

import re

import nbformat
import pytest

from epigen_utils import paths

PAGE = paths.BOOK / "related-work.md"
HARDWARE = paths.NOTEBOOKS / "epilepsy" / "13_hardware.ipynb"
TEXTS = {"A": "paper_a_epilepsy_gpt2xl.txt", "B": "paper_b_geneformer_distilled.txt"}
#: A sentence ends in its citations; this many characters after a quote hold them.
REACH = 420


def plain(text: str) -> str:
    """Text without the converter's markup, in one line, in lower case."""
    text = re.sub(r"</?u>|\*\*", "", text)
    for written, read in (("–", "-"), ("’", "'"), ("“", '"'), ("”", '"')):
        text = text.replace(written, read)
    return " ".join(text.split()).lower()


def rows(page: str) -> list[tuple[str, list[str]]]:
    """Paper and cells of each row of the page's tables that has a quote."""
    found, paper = [], ""
    for line in page.splitlines():
        if line.startswith("## "):
            paper = {"A": "A", "B": "B"}.get(line.rpartition("aper ")[2][:1], "")
        if line.startswith("| ") and "“" in line:
            found.append((paper, [cell.strip() for cell in line.strip("|").split("|")]))
    return found


def reference(text: str, number: str) -> str:
    """An entry of a reference list."""
    listed = text[text.rindex("references") :]
    start = listed.index(f"[{number}] ")
    end = listed.find(f"- [{int(number) + 1}] ", start)
    return listed[start : end if end > 0 else None]


def mistakes(page: str, texts: dict[str, str]) -> list[str]:
    wrong = []
    for paper, cells in rows(page):
        text, quote = texts[paper], plain(re.search("“(.+?)”", cells[0])[1])
        places = [match.end() for match in re.finditer(re.escape(quote), text)]
        if not places:
            wrong.append(f"not in paper {paper}: {quote}")
        elif cited := re.match(r"\[(\d+)\] (.+)", cells[1]):
            number, work = cited.groups()
            if not any(f"[{number}]" in text[place : place + REACH] for place in places):
                wrong.append(f"not cited there: [{number}] after {quote}")
            author = plain(work.partition(" et al")[0].partition(",")[0].partition(" and ")[0])
            title = plain(re.search(r"\*(.+?)\*", work)[1])
            entry = reference(text, number)
            if title not in entry or author not in entry:
                wrong.append(f"not reference [{number}]: {work}")
    return wrong


@pytest.fixture
def texts(mirror):
    return {paper: plain((mirror.parent / "papers" / name).read_text()) for paper, name in TEXTS.items()}


def test_quotes_citations_and_references_are_those_of_the_papers(texts):
    page = PAGE.read_text()
    assert len(rows(page)) > 30
    assert {paper for paper, _ in rows(page)} == {"A", "B"}
    assert mistakes(page, texts) == []


def test_the_sentences_on_hardware_are_those_of_the_paper(texts):
    cells = nbformat.read(HARDWARE, as_version=4).cells
    page = "\n".join(cell.source for cell in cells if cell.cell_type == "markdown")
    assert len(rows(page)) == 15
    assert mistakes(page, texts) == []


@pytest.mark.parametrize(
    ("cells", "said"),
    [
        ("“such as those by Zeibich et al” | [11] R. Zeibich et al., *Applications for deep", "not in paper A"),
        ("“such as those by Brink-Kazubinski et al” | [61] S. Kumar et al., *Predicting dynamic", "not cited there"),
        ("“such as those by Brink-Kazubinski et al” | [11] R. Zeibich et al., *Seizures", "not reference [11]"),
    ],
)
def test_a_row_that_the_paper_does_not_have_is_named(texts, cells, said):
    page = f"## Citations of paper A\n\n| II: {cells}* |\n"
    (mistake,) = mistakes(page, texts)
    assert said in mistake


def test_every_quote_in_the_prose_is_in_a_paper(texts):
    prose = [line for line in PAGE.read_text().splitlines() if not line.startswith("|")]
    for quote in re.findall("“(.+?)”", " ".join(prose)):
        assert any(plain(quote) in text for text in texts.values()), quote


#: What pages name, and the work that they cite for it.
NAMED = {
    "Newcombe": "newcombe2006confidence",
    "Nadeau and Bengio": "nadeau2003inference",
    "integrated gradients": "sundararajan2017axiomatic",
    "t-SNE": "vandermaaten2008visualizing",
    "UMAP": "mcinnes2018umap",
    "STAR": "dobin2013star",
    "FastQC": "andrews2010fastqc",
    "featureCounts": "liao2014featurecounts",
}


def cited_keys() -> set[str]:
    pages = [*paths.BOOK.glob("*.md"), *paths.NOTEBOOKS.glob("*/*.ipynb")]
    roles = re.findall(r"\{cite(?::\w+)?\}`([^`]+)`", "\n".join(page.read_text() for page in pages))
    return {key.strip() for role in roles for key in role.split(",")}


def test_what_is_named_is_cited_and_what_is_cited_is_listed():
    bibliography = (paths.BOOK / "references.bib").read_text()
    listed = re.findall(r"^@\w+\{(\w+),", bibliography, re.M)
    assert sorted(set(listed)) == sorted(listed)
    assert set(NAMED.values()) <= cited_keys() <= set(listed)
    report = bibliography[bibliography.index("{saini2025transfer,") :].partition("\n}")[0]
    assert "year = {2026}" in report
    assert "14 January 2026" in report
