"""Exercises of the main chapters: their commands name notebooks, parameters and values that exist."""

import re
import shlex

import nbformat
import pytest
import yaml

from epigen_utils import paths
from epigen_utils.book import notebooks

CHAPTERS = [f"epilepsy/{number}_" for number in ("02", "03", "04", "06", "07", "10", "11")]
CHAPTERS += [f"geneformer/{number}_" for number in ("02", "03", "05", "06", "08", "10", "11")]


def exercises(chapter: str) -> tuple[str, str]:
    """Key of a chapter's notebook and the text of its exercises."""
    (source,) = paths.NOTEBOOKS.glob(f"{chapter}*.ipynb")
    prose = "\n".join(cell.source for cell in nbformat.read(source, as_version=4).cells if cell.cell_type == "markdown")
    (text,) = re.findall(r"^## Exercises\n(.+?)^## Summary$", prose, re.M | re.S)
    return f"{chapter.partition('/')[0]}/{source.stem}", text


@pytest.mark.parametrize("chapter", CHAPTERS)
def test_two_exercises_each_with_a_command_and_a_folded_solution(chapter):
    _, text = exercises(chapter)
    one = r"\*\*Exercise \d\.\*\* [^\n]+\?.*?\n\n```bash\n[^\n]+\n```\n\n:::{admonition} Solution\n:class: dropdown\n\n.+?\n:::\n"
    assert len(re.findall(one, text, re.S)) == text.count("**Exercise ") == 2


@pytest.mark.parametrize("chapter", CHAPTERS)
def test_commands_name_this_notebook_and_change_a_parameter_that_it_has(chapter):
    key, text = exercises(chapter)
    source = paths.NOTEBOOKS / f"{key}.ipynb"
    (cell,) = (c for c in nbformat.read(source, as_version=4).cells if "parameters" in c.metadata.get("tags", []))
    defaults = {}
    exec(cell.source, defaults)
    commands = [shlex.split(line) for line in text.splitlines() if line.startswith(".venv/bin/papermill ")]
    assert len(commands) == 2
    for _, notebook, output, option, name, text_of_value in commands:
        assert (notebook, output, option) == (f"notebooks/{key}.ipynb", "out.ipynb", "-p")
        assert name in notebooks.declared_parameters(source)
        value = yaml.safe_load(text_of_value)
        assert type(value) is type(defaults[name])
        assert value != defaults[name]
