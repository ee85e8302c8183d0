"""An extension of Sphinx: formulas that need no script, light pages, and previews of what links lead to."""

import html
import json
import re
import shutil
from pathlib import Path

from docutils import nodes
from latex2mathml.converter import convert

from epigen_utils.files import write_atomically

NAVIGATION_BUTTON = '<summary aria-label="Further runs of this chapter">'
#: What a link may lead to: its id, then what the preview shows.
PREVIEWED = (
    re.compile(r'<dt id="(term-[^"]+)">.*?<dd>(<p>.*?</p>)', re.S),
    re.compile(r'<div class="citation" id="([^"]+)".*?(<p>.*?</p>)', re.S),
    re.compile(r'<article class="epigen-claim[^>]* id="([^"]+)".*?(<strong.*?</blockquote>)', re.S),
    re.compile(r'<figure[^>]* id="([^"]+)">\s*(<a .*?)<a class="headerlink"', re.S),
    re.compile(r'<table[^>]* id="([^"]+)">\s*<caption>(.*?)<a class="headerlink"', re.S),
)


def mathml(latex: str, *, block: bool = False) -> str:
    r"""A formula as MathML; ``\tag{}`` of a block stands beside it, in brackets."""
    tags = re.findall(r"\\tag\{(.*?)\}", latex)
    formula = convert(re.sub(r"\\tag\{.*?\}", "", latex).strip(), display="block" if block else "inline")
    return formula + "".join(f"<span>({html.escape(tag)})</span>" for tag in tags)


def _visit_math(translator: nodes.NodeVisitor, node: nodes.math) -> None:
    translator.body.append(mathml(node.astext()))
    raise nodes.SkipNode


def _visit_math_block(translator: nodes.NodeVisitor, node: nodes.math_block) -> None:
    translator.body.append(f'<div class="math" tabindex="0">{mathml(node.astext(), block=True)}</div>\n')
    raise nodes.SkipNode


def previews(page: str, content: str) -> dict[str, str]:
    """What ``book/_static/preview.js`` shows of a page's terms, references, claims, figures and tables.

    Parameters
    ----------
    page
        Address of the page in the site.

    Returns
    -------
    Address with fragment -> HTML without links, whose images are addressed from the site's root.
    """
    found = {}
    for pattern in PREVIEWED:
        for name, shown in pattern.findall(content):
            shown = re.sub(r"</?a\b[^>]*>|</?figcaption>|</?p>| (?:style|id)=\"[^\"]*\"|\n", "", shown)
            found[f"{page}#{name}"] = re.sub(r'src="(\.\./)*', 'src="', shown)
    return found


def light(content: str) -> str:
    """A page without the theme's script and fonts of icons (1.5 MB), that a keyboard and a screen reader can use.

    ``book/_static/fonts.css`` has the glyphs that pages show; wide tables scroll by the arrow keys.
    """
    content = re.sub(r"<(script|link)\b[^>]*/fontawesome/[^>]*\.(js|woff2)\b[^>]*>(</script>)?\n?", "", content)
    content = content.replace(
        '<div role="list" class="citation-list"', '<div class="citation-list"'
    )  # its rows have no role
    content = content.replace('<table class="epigen-table', '<table tabindex="0" class="epigen-table')
    return content.replace('<summary><span class="toctree-toggle"', f'{NAVIGATION_BUTTON}<span class="toctree-toggle"')


def _finish_pages(app: object, exception: Exception | None) -> None:
    site, shown = Path(app.outdir), {}
    for page in sorted(site.rglob("*.html")):
        if not {"_static", "_downloads"} & set(page.parts):
            content = page.read_text()
            shown |= previews(page.relative_to(site).as_posix(), content)
            if (lighter := light(content)) != content:
                write_atomically(page, lighter)
    write_atomically(site / "previews.js", f"epigenPreviews({json.dumps(shown)});\n")
    for folder in site.glob("_static/vendor/fontawesome/*/*"):
        if folder.name in ("js", "webfonts"):
            shutil.rmtree(folder)


def setup(app: object) -> dict[str, bool]:
    """Register the renderer of formulas, named ``mathml``, and what is done to finished pages."""
    app.add_html_math_renderer("mathml", (_visit_math, None), (_visit_math_block, None))
    app.connect("build-finished", _finish_pages)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
