"""Quotes that contradict each other are the papers' own."""

import pandas as pd

from epigen_utils import paths

TEXTS = {"A": "paper_a_epilepsy_gpt2xl.txt", "B": "paper_b_geneformer_distilled.txt"}


def test_every_statement_is_verbatim_and_in_the_section_named(mirror):
    statements = pd.read_csv(paths.DATA / "paper_statements.csv")
    for row in statements.itertuples():
        text = " ".join((mirror.parent / "papers" / TEXTS[row.paper]).read_text().split())
        assert row.quote in text, row.quote
    assert {topic: set(says) for topic, says in statements.groupby("topic")["says"]} == {
        "DNABERT": {"used", "future"},
        "loss": {"cross entropy", "hybrid loss"},
        "normalisation": {"log2", "TPM or size factors", "VST"},
    }


def test_sections_are_in_the_order_of_their_quotes(mirror):
    """III.A lies before III.B, and V between V and VI."""
    text = (mirror.parent / "papers" / TEXTS["A"]).read_text()
    statements = pd.read_csv(paths.DATA / "paper_statements.csv")
    first, second = statements.loc[statements["topic"] == "DNABERT", "quote"]
    assert text.index("A. Tokenization and Embedding") < text.index(first) < text.index("B. GPT-2 XL Fine-Tuning")
    assert text.index("V. DISCUSSION") < text.index(second) < text.index("VI. LIMITATIONS")
