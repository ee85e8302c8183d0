"""The output of a notebook: values, tables and figures, shown to the reader and written to files.

A notebook calls `begin` once, `banner` for each data set, `value`, `table` and `figure` for its results, and `finish`
last. Each output has two forms: MyST for the book, and HTML for a notebook opened in Jupyter.
"""

import base64
import gc
import gzip
import hashlib
import html
import inspect
import json
import shlex
import time
from collections.abc import Callable
from pathlib import Path

import anndata
import matplotlib.figure
import matplotlib.pyplot as plt
import myst_nb
import pandas as pd
from IPython.core.getipython import get_ipython

from epigen_utils import paths, processes
from epigen_utils.book import claims, ledger, markup, notebooks, open_page, provenance
from epigen_utils.book.open_page import Page, current_page, show
from epigen_utils.data import fetching, registry
from epigen_utils.files import sha256, whole_file, write_atomically
from epigen_utils.plots import hover

#: Bytes of the largest table that the site offers as plain CSV.
LARGEST_DOWNLOAD = 5_000_000

text = markup.escape_text
with_interval = markup.with_interval


def begin(notebook: str, *, results_dir: str, seed: int, model: str = "") -> None:
    """Open the page of a run (`open_page.begin`)."""
    # What was imported stays: collections pass over it from now on, at exit too, which are two seconds of a short run.
    gc.freeze()
    open_page.begin(notebook, results_dir=results_dir, seed=seed, model=model)


def banner(adata: anndata.AnnData) -> None:
    """Describe a data set of the page: its origin and size, and whether it is real, simulated or the user's own."""
    about = adata.uns["epigen"]
    current_page().datasets[about["name"]] = about
    kind = {"real": "Real data", "simulated": "Simulated data"}.get(about["nature"], "Your own data")
    registered = registry.entries().get(about["name"])
    unit = "cell" if registered and registered.kind == "cells" else "sample"
    size = f"{adata.n_obs:,} {unit}{'' if adata.n_obs == 1 else 's'}, {adata.n_vars:,} genes"
    # Of a corpus, the table has those that are held out.
    size = f"{about.get('cells', adata.n_obs):,} tokenised cells" if about["measure"] == "tokens" else size
    facts = f"{size}; species: {about['species'].replace('_', ' ').capitalize()}; licence: {about['licence']}."
    if about["nature"] == "simulated":
        facts += " Nothing on this page is evidence about biology or about a paper's claim."
    if genes_in := about.get("genes_in"):
        facts += f" Genes were taken from {genes_in} (parameter genes_in)."
    facts += "".join(f" {note}" for note in about.get("notes", ()))
    if donors := adata.uns.get("samples_of_donors"):
        facts += f" Each is a donor: the counts of {donors:,} samples were summed by donor."
    if human := adata.uns.get("humanised"):
        facts += (
            f" Genes were mapped to human orthologs: {human['genes']:,} of {human['of']:,} have one, with "
            f"{human['share of counts']:.1%} of the counts."
        )
    cited = f" Source: {about['citation']}." if about["citation"] else ""
    style = {"real": "note", "simulated": "warning"}.get(about["nature"], "tip")
    title = f"{kind}: {about['title']}"
    show(
        f":::{{admonition}} {text(title)}\n:class: {style} epigen-banner\n"
        f"{text(facts + cited)} Profile: {text(current_page().profile)}.\n:::\n",
        f"<p><b>{html.escape(title)}</b><br>{html.escape(facts + cited)}</p>",
    )


def uses(name: str, role: str = "") -> Path:
    """Fetch a data set that is no expression matrix and add it to the page's inputs.

    Returns
    -------
    Its file of that role, by default the first.
    """
    entry, files = registry.entry(name), fetching.fetch(name)
    hashes = {role: sha256(path) for role, path in files.items()}
    current_page().datasets[name] = {"name": name, "nature": entry.nature, "sha256": hashes}
    return files[role] if role else next(iter(files.values()))


def value(
    name: str,
    number: float,
    *,
    low: float | None = None,
    high: float | None = None,
    n: int | None = None,
    of: str = "",
    method_check: bool = True,
) -> None:
    """Record a number, with its interval and n if given, for the prose (``{glue:text}``) and for ``metrics.json``.

    Claims link to the figure or table that the page shows next.

    Parameters
    ----------
    of
        The data set that it was computed from, needed if the page has several and a claim is judged by the number.
    low, high
        95% interval; NaN where too few donors or seeds give none, so that the number decides nothing by itself.
    method_check
        Whether the number checks the method where the data cannot decide a claim; not so for a gene that is not tested.
    """
    page, number = current_page(), float(number)
    metric = {"value": number} | ({} if n is None else {"n": float(n)})
    if low is not None and high is not None:
        # None in the file: an interval is asked for and cannot be had.
        metric |= {key: None if pd.isna(end) else float(end) for key, end in (("low", low), ("high", high))}
    page.metrics[name] = metric | ({"of": of} if of else {}) | ({} if method_check else {"method_check": False})
    page.unplaced.append(name)
    myst_nb.glue(name, number, display=False)


def say(sentence: str) -> None:
    """Show prose that depends on the data, as MyST; data in it must be escaped by `text`."""
    show(sentence + "\n", f"<p>{html.escape(markup.plain_text(sentence))}</p>")


def word(name: str, content: str) -> None:
    """Record a word, such as the name of a group or a gene, for the prose."""
    myst_nb.glue(name, content, display=False)


def _write_csv(kind: str, name: str, frame: pd.DataFrame, *, index: bool = False) -> Path:
    """Write the numbers of a table or figure to ``<results>/<kind>/<name>.csv``."""
    path = current_page().results / kind / f"{name}.csv"
    write_atomically(path, frame.to_csv(index=index))
    return path


def _download(path: Path) -> str:
    """Link to a CSV file of the page, or to its gzip form if it is larger than `LARGEST_DOWNLOAD`."""
    if path.stat().st_size > LARGEST_DOWNLOAD:
        content, path = path.read_bytes(), path.with_name(f"{path.name}.gz")
        with whole_file(path) as part:
            part.write_bytes(gzip.compress(content, mtime=0))
    return current_page().link(path)


def table(
    name: str,
    frame: pd.DataFrame,
    *,
    caption: str,
    formats: dict[str, str] | None = None,
    columns: dict[str, str] | None = None,
) -> None:
    """Show a numbered table and write it as CSV; an empty table is shown too, so that references to it resolve.

    Parameters
    ----------
    caption
        MyST; data in it must be escaped by `text`.
    formats
        Column -> format, e.g. ``{"mean": "{:,.0f}"}``; the CSV has full precision.
    columns
        Column -> its definition, shown below the table, as MyST.

    Raises
    ------
    ValueError
        If ``columns`` defines a column that the table does not have.
    """
    page, path = current_page(), _write_csv("tables", name, frame)
    columns = columns if len(frame.columns) else {}
    if absent := set(columns or {}) - set(map(str, frame.columns)):
        raise ValueError(f"table {name!r} has no column {min(absent)!r} to define")
    cells = frame.copy()
    for column in cells.columns:
        default = "{:,.3g}" if pd.api.types.is_float_dtype(frame[column]) else "{}"
        template = (formats or {}).get(column, default)
        cells[column] = ["" if pd.isna(cell) else template.format(cell) for cell in frame[column]]
    cells.columns = [str(column).replace("_", " ") for column in cells.columns]
    if cells.empty:
        cells = pd.DataFrame({"rows": ["none in this run"]})
    defined = "; ".join(f"*{text(column.replace('_', ' '))}*: {words}" for column, words in (columns or {}).items())
    caption = f"{caption} {defined}." if defined else caption
    myst = markup.myst_table(cells, caption=caption, label=page.place("tab", name))
    show(
        f"{myst}\n{{download}}`This table as CSV <{_download(path)}>`\n",
        markup.html_table(cells, caption=markup.plain_text(caption)),
    )


def searchable(name: str, frame: pd.DataFrame, *, text: str) -> None:
    """Show a long table that can be searched and sorted in the page, also from ``file://``, and write it as CSV.

    A script beside the page holds the rows; the page loads it on demand (``book/_static/search.js``).

    Parameters
    ----------
    frame
        The page shows numbers with three significant digits; the CSV has full precision.
    """
    page, path = current_page(), _write_csv("tables", name, frame)
    short = frame.copy()
    for column in short.select_dtypes("float"):
        short[column] = [float(f"{cell:.3g}") for cell in frame[column].tolist()]
    short = short.astype(object).where(short.notna(), None)
    content = json.dumps({"columns": list(short), "rows": short.to_numpy().tolist()}, separators=(",", ":"))
    script = path.with_suffix(".js")
    write_atomically(script, f"epigenRows({content});\n")
    show(
        f"::::{{div}} epigen-search\n{{download}}`{text} <{page.link(script)}>`\n\n"
        f"{{download}}`The same as CSV <{_download(path)}>`\n::::\n",
        f"<p>{html.escape(text)}: {path}</p>",
    )


def figure(
    name: str,
    fig: matplotlib.figure.Figure,
    *,
    caption: str,
    alt: str,
    data: pd.DataFrame,
    code: Callable | None = None,
) -> None:
    """Show a numbered figure and, under it, its data as CSV, the code that drew it and the hashes of its inputs.

    Parameters
    ----------
    caption
        MyST; data in it must be escaped by `text`.
    alt
        Description of the figure for readers who cannot see it.
    data
        The numbers in the figure.
    code
        The function that drew it; the page shows its source below the notebook's cell.
    """
    page, path = current_page(), _write_csv("figures", name, data, index=True)
    image = path.with_name(f"{name}.png")
    with whole_file(image) as part:
        fig.savefig(part, format="png", bbox_inches="tight", metadata={"Software": None})
    plt.close(fig)
    digest = hashlib.sha256(path.read_bytes()).hexdigest()
    sources = "; ".join(
        f"{dataset} {'+'.join(x[:12] for x in about['sha256'].values())}" for dataset, about in page.datasets.items()
    )
    myst = "\n".join(
        [
            f":::{{figure}} {page.link(image)}",
            f":name: {page.place('fig', name)}",
            f":alt: {' '.join(alt.split())}",
            f":width: {round(100 * fig.get_figwidth())}px",
            ":class: epigen-figure",
            "",
            caption,
            ":::",
            "",
            "::::{dropdown} Data, code and hash",
            f"{{download}}`The numbers in this figure as CSV <{_download(path)}>`, SHA-256 `{digest[:12]}`;"
            f" drawn from {text(sources or 'no data set')} (SHA-256, first 12 digits).",
            "",
            "```python",
            _source_code(code),
            "```",
            "::::",
            "",
        ]
    )
    encoded = base64.b64encode(image.read_bytes()).decode()
    plain = f'<figure><img style="max-width:100%" src="data:image/png;base64,{encoded}" alt="{html.escape(alt)}">'
    show(myst, plain + f"<figcaption>{html.escape(markup.plain_text(caption))}</figcaption></figure>")


def interactive(name: str, frame: pd.DataFrame, *, caption: str, x: str, y: str, label: str, group: str = "") -> None:
    """Show a scatter plot whose points show their names under the pointer (`hover.scatter_svg`), and write it as CSV.

    Parameters
    ----------
    label
        Column of the points' names.
    caption
        MyST; data in it must be escaped by `text`.
    """
    path = _write_csv("figures", name, frame)
    svg = hover.scatter_svg(frame, x=x, y=y, name=label, group=group)
    myst = f"```{{raw}} html\n{svg}\n```\n\n{caption} {{download}}`The points as CSV <{_download(path)}>`\n"
    show(myst, svg + f"<p>{html.escape(markup.plain_text(caption))}</p>")


def attached(path: Path, text: str) -> None:
    """Offer a file that another program wrote for download."""
    show(f"{{download}}`{text} <{current_page().link(path)}>`\n", f"<p>{html.escape(text)}: {path}</p>")


def _source_code(function: Callable | None) -> str:
    """Source of the running notebook cell and of the function that draws."""
    shell = get_ipython()
    cell = shell.user_ns["In"][-1].strip() if shell is not None else ""
    if function is None:
        return cell
    return f"{cell}\n\n# {function.__module__}.{function.__name__}\n{inspect.getsource(function).strip()}"


def finish() -> None:
    """Close the page: judge its claims, write the bundle and the metrics file, show the provenance."""
    page = current_page()
    page.close()
    record = {
        "notebook": page.notebook,
        "run": page.run,
        "profile": page.profile,
        "seed": page.seed,
        "model": page.model,
        "datasets": {
            name: {"nature": about["nature"], "sha256": about["sha256"], "matrix": "measure" in about}
            for name, about in page.datasets.items()
        },
        "memory": round(processes.peak_memory(), 2),
        "metrics": page.metrics,
    }
    _show_claims(page, record)
    bundle = page.results / "bundle.zip"
    provenance.write_bundle(bundle, notebook=page.notebook, parameters=page.parameters, datasets=page.datasets)
    wall = time.perf_counter() - page.started
    rows = {
        "commit": provenance.current_commit(),
        "run": f"{page.key}, profile {page.profile}",
        "seed": str(page.seed),
        "wall time": f"{wall:.1f} s",
        "machine": provenance.machine_description(),
    }
    rows |= {
        f"{'SHA-256' if len(digest) == 64 else 'Commit'} of {name}, {role}": digest
        for name, about in page.datasets.items()
        for role, digest in about["sha256"].items()
    }
    code = notebooks.code(paths.NOTEBOOKS / f"{page.notebook}.ipynb")
    rows |= provenance.package_versions(code)
    lines = "\n".join(f"| {text(key)} | {text(content)} |" for key, content in rows.items())
    command = papermill_line(page.notebook, page.parameters)
    show(f"::::{{dropdown}} Run this page again\n```bash\n{command}\n```\n::::\n", f"<pre>{html.escape(command)}</pre>")
    show(
        "::::{dropdown} Software, provenance, and a bundle that runs this page again\n"
        ":class-container: epigen-provenance\n\n"
        f"{{download}}`Notebook, parameters, helper package and input hashes (zip) <{page.link(bundle)}>`\n\n"
        f"| what | value |\n| --- | --- |\n{lines}\n::::\n",
        markup.html_table(pd.DataFrame(rows.items(), columns=["what", "value"]), caption=f"Bundle: {bundle}"),
    )
    write_atomically(page.results / "metrics.json", json.dumps(record | {"wall_seconds": round(wall, 2)}, indent=1))


def papermill_line(notebook: str, parameters: dict) -> str:
    """The command that runs a page again from the project's root, with what differs from the notebook's defaults.

    Absolute paths are reduced to file names, since the line is published.
    """
    defaults = notebooks.default_values(paths.NOTEBOOKS / f"{notebook}.ipynb")
    changed = {name: provenance.without_folder(value) for name, value in parameters.items() if value != defaults[name]}
    changed.pop("results_dir", None)
    values = json.dumps(changed, ensure_ascii=False).replace("`", r"\u0060")  # it stands in a fence of backticks
    options = f" -y {shlex.quote(values)}" if changed else ""
    return f"papermill notebooks/{notebook}.ipynb out.ipynb{options}"


def _show_claims(page: Page, record: dict) -> None:
    """Show the chapter's claims, judged by this run."""
    chapter_claims = claims.claims_of_chapter(claims.read_claims(), page.notebook)
    if chapter_claims.empty:
        sentence = "This page judges no claim of the papers."
        show(f"{sentence}\n", f"<p>{sentence}</p>")
        return
    # The claims of other runs of the chapter, also those with a reading there, stand in the ledger.
    own = {page.key, page.notebook} if page.run == "alone" else {page.key}
    judged = claims.judge_claims(chapter_claims, dict.fromkeys(own, record))
    judged = judged.loc[[own.issuperset(claims.run_keys(metric)) for metric in judged["metric"]]]
    if judged.empty:
        say("The claims that this chapter judges are about other data; {doc}`/claims` has them.")
        return
    _write_csv("tables", "claims", judged)
    content = ledger.cards(judged, root="../")
    show(f"```{{raw}} html\n{content}\n```\n", content)
