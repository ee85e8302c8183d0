"""The house style's replacements, and where phrases are searched."""

import json

import pytest
from test_ci import script

from epigen_utils import paths

STYLE = """# Style

| instead of | write |
| --- | --- |
| `old word`, `tell … apart` | new word |
"""


@pytest.fixture
def words():
    return script("words")


@pytest.fixture
def tree(tmp_path):
    """A project with the style page and one place of each kind."""
    cells = [
        {"cell_type": "markdown", "source": ["An\n", "old word.\n"]},
        {"cell_type": "code", "source": ["x = 1\n", 'text = "an Old word"']},
    ]
    files = {
        "book/style.md": STYLE,
        "book/page.md": "```bash\nold word\n```\n\n```{note}\nIt tells two apart; they\ntell two apart.\n```\n",
        "README.md": "`old word`, “old\nword”, an old-word and a bold word are exempt.\n",
        "notebooks/paper/01_page.ipynb": json.dumps({"cells": cells}, indent=1, ensure_ascii=False),
        "epigen_utils/room/module.py": '"""Docstring.\n\nAn old\nword."""\n\nname = ["old", f"{1} old {2} word", f"{1} old word"]\n',
    }
    for name, text in files.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(text)
    return tmp_path


def test_pages_notebooks_and_literals_are_searched(words, tree):
    notebook = (tree / "notebooks/paper/01_page.ipynb").read_text().splitlines()
    prose, code = (1 + next(i for i, line in enumerate(notebook) if part in line) for part in ("old word", "Old word"))
    assert words.found(tree) == [
        "book/page.md:7: tell … apart -> new word",
        f"notebooks/paper/01_page.ipynb:{prose}: old word -> new word",
        f"notebooks/paper/01_page.ipynb:{code}: old word -> new word",
        "epigen_utils/room/module.py:3: old word -> new word",
        "epigen_utils/room/module.py:6: old word -> new word",
    ]


def test_a_clean_tree_has_nothing(words, tree):
    (tree / "book/style.md").write_text(STYLE.replace("old word", "gone").replace("tell … apart", "lost"))
    assert words.found(tree) == []


def test_the_style_page_fits_a_screen_and_each_phrase_has_one_replacement(words):
    style = (paths.ROOT / words.STYLE).read_text()
    rows = [line for line in style.splitlines() if line.startswith("| `")]
    table = words.replacements(style)
    assert 20 <= len(rows) <= 30
    assert len(table) == sum(row.split(" | ")[0].count("`") // 2 for row in rows)
    assert all(words.pattern(phrase).search(f"It was {phrase.replace('…', 'the two')} here.") for phrase in table)
    assert not any(words.pattern(phrase).search(write) for phrase, write in table.items())
