"""Every page of a built site in a browser: what it asks for, weighs, and fails of the accessibility rules.

    python tests/site_pages.py [SITE]        default: _build/html

Each page is opened from its file at the width of a laptop and of a phone, and judged in both themes by axe-core. Prints
the worst of each figure and each finding; exit code 1 if there is one.
"""

import shutil
import sys
from collections import Counter
from pathlib import Path
from urllib.parse import unquote, urlsplit

from axe_playwright_python.sync_playwright import Axe
from playwright.sync_api import Browser, sync_playwright

WIDTHS = (1366, 390)
#: Bytes of a page with all that it loads, but for the weights of a model in the page, which lie under _downloads.
LARGEST_PAGE = 2_000_000
AXE = Axe()


def pages_of(site: Path) -> list[Path]:
    """Pages of a site, without what it offers for download, and without the one that leads to the first at once."""
    pages = [path for path in sorted(site.rglob("*.html")) if not {"_downloads", "_static"} & set(path.parts)]
    return [path for path in pages if path != site / "index.html"]


def examine(browser: Browser, path: Path, width: int, themes: tuple[str, ...] = ("light", "dark")) -> dict:
    """Requests, bytes, width of the content and serious findings of axe-core, of one page opened from its file."""
    page = browser.new_page(viewport={"width": width, "height": 900})
    page.set_default_timeout(120_000)
    asked, errors = [], []
    page.on("request", lambda request: asked.append(request.url))
    page.on("pageerror", lambda error: errors.append(str(error)))
    page.goto(path.as_uri(), wait_until="load")
    files = {Path(unquote(urlsplit(url).path)) for url in asked if url.startswith("file:")}
    errors += [f"{file} is missing" for file in sorted(files) if not file.exists()]
    found = Counter()
    for theme in themes:
        page.evaluate("theme => { document.documentElement.dataset.theme = theme }", theme)
        for rule in AXE.run(page, options={"resultTypes": ["violations"]}).response["violations"]:
            if rule["impact"] in ("serious", "critical"):
                found[f"{theme}: {rule['id']}: {rule['nodes'][0]['html'][:120]}"] += len(rule["nodes"])
    content = page.evaluate("document.documentElement.scrollWidth")
    page.close()
    return {
        "elsewhere": [url for url in asked if not url.startswith(("file:", "data:", "blob:"))],
        "bytes": sum(file.stat().st_size for file in files if file.exists() and "_downloads" not in file.parts),
        "errors": errors,
        "scrolls": content > width,
        "axe": found,
    }


def problems(seen: dict) -> list[str]:
    """What is wrong with a page that was examined."""
    lines = [f"asks for {url}" for url in seen["elsewhere"]] + [f"fails: {error}" for error in seen["errors"]]
    lines += [f"weighs {seen['bytes'] / 1e6:.2f} MB"] * (seen["bytes"] > LARGEST_PAGE)
    lines += ["scrolls sideways"] * seen["scrolls"]
    return lines + [f"{finding} ({n} times)" for finding, n in seen["axe"].items()]


def main(site: Path) -> int:
    """Examine all pages."""
    rows = []
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(
            executable_path=shutil.which("chromium") or shutil.which("google-chrome"), args=["--no-sandbox"]
        )
        for path in pages_of(site):
            for width in WIDTHS:
                seen = examine(browser, path, width)
                rows.append((path.relative_to(site), width, seen))
                for problem in problems(seen):
                    print(f"{rows[-1][0]} at {width}: {problem}", flush=True)
        browser.close()
    heaviest = max(rows, key=lambda row: row[2]["bytes"])
    bad = sum(bool(problems(seen)) for *_, seen in rows)
    print(f"{len(rows)} views of {len(rows) // len(WIDTHS)} pages, {bad} with a finding;", end=" ")
    print(f"heaviest {heaviest[2]['bytes'] / 1e6:.2f} MB ({heaviest[0]});", end=" ")
    print(f"{sum(len(seen['elsewhere']) for *_, seen in rows)} requests elsewhere")
    return int(bad > 0)


if __name__ == "__main__":
    sys.exit(main(Path(*sys.argv[1:2] or ["_build/html"]).resolve()))
