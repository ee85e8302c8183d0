"""Phrases that the house style replaces (`book/style.md`), wherever a reader of the project can meet them.

Prints ``file:line: phrase -> replacement`` for each in the Markdown pages, the notebooks and the string literals of
the package, and exits with 1 if there is any. Code, fields of articles, quotations of the papers (“...”) and literals
of a single word, which are names, are exempt.
"""

import ast
import json
import re
import sys
from collections.abc import Iterator
from pathlib import Path

from epigen_utils import paths

STYLE = Path("book/style.md")
EXEMPT = re.compile(r"^```\w+\n.*?^```$|(`+)[^`\n]+\1|“[^”]*”|\[\[[^\]]+\]\]", re.MULTILINE | re.DOTALL)


def replacements(style: str) -> dict[str, str]:
    """Replacement of each phrase in the table of the style page."""
    rows = (line.strip("| ").split(" | ") for line in style.splitlines() if line.startswith("| `"))
    return {phrase: write for instead_of, write in rows for phrase in re.findall("`([^`]+)`", instead_of)}


def pattern(phrase: str) -> re.Pattern:
    """A phrase as whole words in any case; ``…`` stands for up to four words."""
    words = [re.escape(word) for word in phrase.split()]
    text = r"\s+".join(words).replace(r"\s+…\s+", r"\s+(?:\S+\s+){0,4}?")
    return re.compile(rf"(?<![\w-]){text}(?![\w-])", re.IGNORECASE)


def literals(code: str) -> Iterator[tuple[int, str]]:
    """Literals of more than one word, with their lines; what an f-string inserts stands as braces."""
    nodes = list(ast.walk(ast.parse(code)))
    parts = {id(part) for node in nodes if isinstance(node, ast.JoinedStr) for part in node.values}
    for node in nodes:
        text = ""
        if isinstance(node, ast.JoinedStr):
            text = "".join(part.value if isinstance(part, ast.Constant) else "{}" for part in node.values)
        elif isinstance(node, ast.Constant) and isinstance(node.value, str) and id(node) not in parts:
            text = node.value
        if " " in text.strip():
            yield node.lineno, text


def texts(path: Path) -> Iterator[tuple[int, str]]:
    """What a file says to readers, in parts with the line at which each begins."""
    text = path.read_text()
    if path.suffix == ".py":
        yield from literals(text)
    elif path.suffix == ".md":
        yield 1, text
    else:
        at = 0
        for cell in (cell for cell in json.loads(text)["cells"] if cell["source"]):
            # The file has a line for each line of a cell.
            at = text.index(json.dumps(cell["source"][0], ensure_ascii=False), at)
            first, source = text.count("\n", 0, at) + 1, "".join(cell["source"])
            at += 1
            parts = [(1, source)] if cell["cell_type"] == "markdown" else literals(source)
            yield from ((first + line - 1, part) for line, part in parts)


def found(root: Path) -> list[str]:
    """Each phrase with its file, line and replacement."""
    style = (root / STYLE).read_text()
    table = [(phrase, pattern(phrase), write) for phrase, write in replacements(style).items()]
    pages = [page for folder in ("", "book", "book/articles") for page in sorted((root / folder).glob("*.md"))]
    pages = [page for page in pages if page not in (root / STYLE, root / "CHANGELOG.md")]
    sources = sorted(root.glob("notebooks/*/*.ipynb")) + sorted(root.glob("epigen_utils/**/*.py"))
    lines = []
    for path in [*pages, *sources]:
        for line, part in texts(path):
            part = EXEMPT.sub(lambda code: re.sub(r"[^\n]", " ", code[0]), part)
            for phrase, searched, write in table:
                for match in searched.finditer(part):
                    place = f"{path.relative_to(root)}:{line + part.count(chr(10), 0, match.start())}"
                    lines.append(f"{place}: {phrase} -> {write}")
    return lines


if __name__ == "__main__":
    lines = found(paths.ROOT)
    print("\n".join(lines), end="\n" if lines else "")
    sys.exit(bool(lines))
