"""Tables of counts and of samples for `malformed_kinds`, the names of their files, and names on a page."""

import csv
import gzip
import io
import json
import random
import re
import zipfile
from collections.abc import Callable
from pathlib import Path

import malformed
import numpy as np
import pandas as pd
from malformed import EITHER, REFUSED, SAME, SAME_OR_REFUSED, Damage, written
from malformed_examples import (
    COUNTS,
    GENES,
    ODD_NAMES,
    SAMPLES,
    as_csv,
    as_workbook,
    bomb,
    check,
    check_bulk,
    count_rows,
    repacked,
    sample_rows,
    table_answer,
    with_samples,
)

from epigen_utils.data import datasets

# Tables of counts


def table_oracle(sep: str) -> Callable[[bytes], object]:
    """What is expected of the bytes of a table, read by `csv` alone; either where our reader is more lenient."""

    def oracle(data: bytes) -> object:
        try:
            text = data.decode()
        except UnicodeDecodeError:
            return EITHER if data[:2] in (b"\xff\xfe", b"\xfe\xff") else REFUSED
        if re.search(r'["\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\xa0\u2028\u2029]', text):
            return EITHER
        rows = [row for row in csv.reader(io.StringIO(text, newline=""), delimiter=sep) if any(map(str.strip, row))]
        if not rows or rows[0] != ["gene", *SAMPLES]:
            return EITHER
        if any(len(row) != len(rows[0]) for row in rows):
            return REFUSED
        names, values = [row[0].strip() for row in rows[1:]], [row[1:] for row in rows[1:]]
        if len(set(names)) < len(names) or "" in names:
            return REFUSED
        if len(values) < 2 or not all(re.fullmatch(r"\d{1,9}", value) for row in values for value in row):
            return EITHER
        return table_answer(names, counts=np.array(values, dtype=int))

    return oracle


def table_damages(sep: str) -> Callable[[Path, random.Random], list[Damage]]:
    def special(path: Path, rng: random.Random) -> list[Damage]:
        def table(
            kind: str, what: str, rows: list[list], expected: object = REFUSED, place: str = "", **form
        ) -> Damage:
            return Damage(kind, what, written(as_csv(rows, **({"sep": sep} | form))), expected, place)

        found = [
            table("separator", "semicolons", count_rows(), SAME, sep=";"),
            table("separator", "commas", count_rows(), SAME, sep=","),
            table("separator", "tabs", count_rows(), SAME, sep="\t"),
            table("separator", "bars", count_rows(), REFUSED, sep="|"),
            table("quotes", "all", count_rows(), SAME, quoting=csv.QUOTE_ALL),
            table("shape", "one column", [row[:1] for row in count_rows()]),
            table("shape", "a header alone", count_rows()[:1]),
            table(
                "shape", "a row too long", [*count_rows()[:4], [*count_rows()[4], 7], *count_rows()[5:]], place="row 5"
            ),
            table(
                "shape", "a row too short", [*count_rows()[:4], count_rows()[4][:-2], *count_rows()[5:]], place="GENE4"
            ),
            table("shape", "turned", list(map(list, zip(*count_rows(), strict=True))), SAME),
            table(
                "value",
                "empty",
                [*count_rows()[:4], ["GENE4", "", *count_rows()[4][2:]], *count_rows()[5:]],
                place="GENE4.*s1",
            ),
            table("names", "a gene twice", [*count_rows(), count_rows()[3]], place="GENE3"),
            table("names", "a sample twice", count_rows(samples=[*SAMPLES[:-1], "s1"]), place="s1"),
            table("names", "no name of a gene", count_rows(["", *GENES[1:]]), place="row 2"),
        ]
        for value in (
            "many",
            "-3",
            "1.5",
            "1e400",
            "nan",
            "inf",
            "0x1F",
            "1_000",
            "1,5",
            "=1+1",
            "9" * 30,
            "<b>5</b>",
            "5 5",
        ):
            row = ["GENE2", 5, value, *count_rows()[2][3:]]
            found.append(
                table("value", value[:12], [*count_rows()[:2], row, *count_rows()[3:]], REFUSED, "GENE2.*s2|s2.*GENE2")
            )
        for name in (*ODD_NAMES, "two\nlines", "a\rb", "a\x1b[31mred"):
            named = count_rows([name, *GENES[1:]])
            expected = table_answer([name, *GENES[1:]]) if name.isprintable() else EITHER
            found.append(table("names", f"gene {name[:30]!r}", named, expected))

            def rename(path: Path, name: str = name) -> None:
                samples = [name, *SAMPLES[1:]]
                path.write_bytes(as_csv(count_rows(samples=samples), sep))
                path.with_name("samples.csv").write_bytes(as_csv(sample_rows(samples)))

            expected = table_answer(samples=[name, *SAMPLES[1:]]) if name.isprintable() else EITHER
            found.append(Damage("names", f"sample {name[:30]!r}", rename, expected))
        return found

    return special


def gzip_damages(path: Path, rng: random.Random) -> list[Damage]:
    return [
        Damage("bomb", "20 GB of rows", written(bomb()), EITHER),
        Damage("bomb", "20 GB in a line", written(bomb(b"", b"0"))),
        Damage("packed", "in two members", repacked(lambda data: _halves(gzip.decompress(data))), SAME),
        Damage("packed", "not at all", repacked(gzip.decompress), EITHER),
        Damage("packed", "twice", repacked(gzip.compress)),
        Damage("packed", "with noise behind it", repacked(lambda data: data + b"noise" * 9), EITHER),
    ]


def _halves(data: bytes) -> bytes:
    return gzip.compress(data[: len(data) // 2]) + gzip.compress(data[len(data) // 2 :])


def change_member(name: str, change: Callable[[bytes], bytes | None]) -> Callable[[Path], None]:
    """A change of one member of a zip; None leaves it out."""

    def apply(path: Path) -> None:
        with zipfile.ZipFile(path) as opened:
            members = {item.filename: opened.read(item) for item in opened.infolist()}
        with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as opened:
            for member, content in members.items():
                changed = change(content) if member == name else content
                if changed is not None:
                    opened.writestr(member, changed)

    return apply


def _bomb_in_zip(path: Path) -> None:
    with (
        zipfile.ZipFile(path, "a", zipfile.ZIP_DEFLATED) as opened,
        opened.open("xl/media/x.bin", "w", force_zip64=True) as to,
    ):
        for _ in range(3000):
            to.write(bytes(1_000_000))


SHEET = "xl/worksheets/sheet1.xml"


def workbook_damages(path: Path, rng: random.Random) -> list[Damage]:
    far = b'<row r="1048576"><c r="XFD1048576"><v>1</v></c></row></sheetData>'
    laughs = b'<!DOCTYPE x [<!ENTITY a "ha">' + b"".join(
        b'<!ENTITY %c "%s">' % (98 + i, b"&%c;" % (97 + i) * 20) for i in range(8)
    )

    def laughing(xml: bytes) -> bytes:
        return laughs + b"]>" + xml.replace(b"<v>", b"<v>&i;", 1)

    found = [
        Damage(
            "shape", "a cell in the last corner", change_member(SHEET, lambda xml: xml.replace(b"</sheetData>", far))
        ),
        Damage("bomb", "3 GB of zeros", _bomb_in_zip),
        Damage("bomb", "entities of entities", change_member(SHEET, laughing)),
        Damage("shape", "no sheet", change_member(SHEET, lambda xml: None)),
        Damage("shape", "half a sheet", change_member(SHEET, lambda xml: xml[: len(xml) // 2])),
        Damage("shape", "no workbook", change_member("xl/workbook.xml", lambda xml: None)),
        Damage("shape", "no styles", change_member("xl/styles.xml", lambda xml: None), SAME_OR_REFUSED),
        Damage("shape", "no list of contents", change_member("[Content_Types].xml", lambda xml: None), SAME_OR_REFUSED),
        Damage("names", "a gene twice", written(as_workbook([*count_rows(), count_rows()[3]])), place="GENE3"),
        Damage(
            "value",
            "no number",
            written(as_workbook([*count_rows()[:2], ["GENE2", "many", *count_rows()[2][2:]], *count_rows()[3:]])),
            place="GENE2",
        ),
    ]
    for name in ODD_NAMES:
        if not name.startswith("="):  # a formula, to openpyxl
            content = written(as_workbook(count_rows([name, *GENES[1:]])))
            found.append(Damage("names", f"gene {name[:30]!r}", content, table_answer([name, *GENES[1:]])))
    return found


def feature_counts() -> bytes:
    head = b'# Program:featureCounts v2.0.3; Command:"featureCounts" "-a" "g.gtf"\n'
    rows = [["Geneid", "Chr", "Start", "End", "Strand", "Length", *(f"out/{name}.bam" for name in SAMPLES)]]
    rows += [[gene, "1;1", "5;90", "50;99", "+;+", 56, *row] for gene, row in zip(GENES, COUNTS.tolist(), strict=True)]
    return head + as_csv(rows, "\t")


def merged_by_salmon() -> bytes:
    rows = [["gene_id", "gene_name", *SAMPLES]]
    rows += [
        [f"ENSG{i:011d}", gene, *(n + 0.25 for n in row)]
        for i, (gene, row) in enumerate(zip(GENES, COUNTS.tolist(), strict=True))
    ]
    return as_csv(rows, "\t")


def write_htseq(folder: Path) -> Path:
    with_samples(folder, "unused", b"").unlink()
    (folder / "counted").mkdir()
    for i, name in enumerate(SAMPLES):
        rows = [[gene, int(n)] for gene, n in zip(GENES, COUNTS[:, i], strict=True)] + [["__no_feature", 9]]
        (folder / "counted" / f"{name}.txt").write_bytes(as_csv(rows, "\t"))
    return folder / "counted"


def write_star(folder: Path) -> Path:
    with_samples(folder, "unused", b"").unlink()
    (folder / "counted").mkdir()
    for i, name in enumerate(SAMPLES):
        rows = [
            ["N_unmapped", 9, 9, 9],
            *([gene, int(n), int(n) // 9, int(n)] for gene, n in zip(GENES, COUNTS[:, i], strict=True)),
        ]
        (folder / "counted" / f"{name}ReadsPerGene.out.tab").write_bytes(as_csv(rows, "\t"))
    return folder / "counted"


def write_transcripts(folder: Path) -> Path:
    """A good table beside what is refused: salmon's and kallisto's folders are all damages."""
    return with_samples(folder, "counts.csv", as_csv(count_rows()))


def folders_of_transcripts(path: Path, rng: random.Random) -> list[Damage]:
    def folder(name: str, content: bytes) -> Callable[[Path], None]:
        def apply(path: Path) -> None:
            path.unlink()
            (path / "s1").mkdir(parents=True)
            (path / "s1" / name).write_bytes(content)

        return apply

    text = b"Name\tLength\tEffectiveLength\tTPM\tNumReads\nT1\t90\t50\t1e6\t7\n"
    contents = {
        "text": text,
        "nothing": b"",
        "noise": random.Random(1).randbytes(300),
        "a page": malformed.FOREIGN["a page"],
    }
    return [
        Damage("quantification", f"{name}, {what}", folder(name, content), place="transcripts")
        for name in ("quant.sf", "abundance.tsv", "abundance.h5")
        for what, content in contents.items()
    ]


# Sample tables


def check_sample_table(path: Path) -> dict:
    return check(path.with_name("counts.csv"), "--metadata", path, "--group", "condition")


def with_counts(folder: Path, name: str, content: bytes) -> Path:
    (folder / "counts.csv").write_bytes(as_csv(count_rows()))
    (folder / name).write_bytes(content)
    return folder / name


def samples_oracle(data: bytes) -> object:
    """What is expected of the bytes of a sample table as CSV."""
    try:
        text = data.decode()
    except UnicodeDecodeError:
        return EITHER if data[:2] in (b"\xff\xfe", b"\xfe\xff") else REFUSED
    if re.search(r'["\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\xa0\u2028\u2029]', text):
        return EITHER
    rows = [row for row in csv.reader(io.StringIO(text, newline="")) if any(map(str.strip, row))]
    if not rows or rows[0] != ["sample", "condition"] or any(len(row) != 2 for row in rows):
        return EITHER
    labels = {name.strip(): group.strip() for name, group in rows[1:]}
    if set(labels) != set(SAMPLES) or len(rows) != len(SAMPLES) + 1:
        return EITHER if any(name.lower() not in SAMPLES for name in labels) else EITHER
    groups = [labels[name] for name in SAMPLES]
    sizes = [groups.count(group) for group in groups]
    return REFUSED if min(sizes) < 2 or len(set(groups)) < 2 or "" in groups else table_answer(groups=groups)


def samples_damages(path: Path, rng: random.Random) -> list[Damage]:
    def table(kind: str, what: str, rows: list[list], expected: object = REFUSED, place: str = "", **form) -> Damage:
        return Damage(kind, what, written(as_csv(rows, **form)), expected, place)

    rows = sample_rows()
    found = [
        table("separator", "semicolons", rows, SAME, sep=";"),
        table("separator", "tabs", rows, SAME, sep="\t"),
        table("quotes", "all", rows, SAME, quoting=csv.QUOTE_ALL),
        table("shape", "a header alone", rows[:1]),
        table("shape", "one column", [row[:1] for row in rows]),
        table("shape", "a row too long", [*rows[:3], [*rows[3], "x"], *rows[4:]]),
        table("shape", "a row too short", [*rows[:3], rows[3][:1], *rows[4:]], place="s3"),
        table("shape", "a sample missing", rows[:-1], place="s6"),
        table("shape", "a sample too many", [*rows, ["s9", "ko"]], place="s9"),
        table("names", "a sample twice", [*rows, rows[1]], place="s1"),
        table("names", "no name of a sample", [*rows[:-1], ["", "ko"]], place="row 7"),
        table(
            "names", "a column twice", [[*rows[0], "condition"], *([*row, "x"] for row in rows[1:])], place="condition"
        ),
        table("names", "a column without a name", [[*rows[0], ""], *([*row, "x"] for row in rows[1:])]),
        table("names", "another column", [["sample", "tissue"], *rows[1:]], place="condition"),
        table("names", "a column in two lines", [["sample", "tis\nsue"], *rows[1:]], place="condition"),
        table("value", "no group", [*rows[:-1], ["s6", ""]], place="s6"),
        table("value", "one group", sample_rows(groups=["wt"] * 6), place="wt"),
        table("value", "a group of one", sample_rows(groups=["wt"] * 5 + ["ko"]), place="ko"),
    ]
    for name in (*ODD_NAMES, "two\nlines"):
        groups = ["wt"] * 3 + [name] * 3
        expected = table_answer(groups=groups) if name.isprintable() else EITHER
        found.append(table("names", f"group {name[:30]!r}", sample_rows(groups=groups), expected))
        found.append(table("names", f"column {name[:30]!r}", [["sample", name], *rows[1:]], REFUSED, "condition"))
    return found


def json_damages(path: Path, rng: random.Random) -> list[Damage]:
    listed = json.loads(path.read_text())
    contents = {
        "a number": b"7",
        "a word": b'"samples"',
        "nothing": b"null",
        "an object": b'{"a": 1}',
        "an empty list": b"[]",
        "numbers": b"[1, 2, 3]",
        "lists": b'[["s1", "wt"]]',
        "deep": b"[" * 100_000,
        "deep objects": b'{"a":' * 100_000,
        "not a number": b"[NaN]",
        "a large number": b"[" + b"9" * 5000 + b"]",
        "a lone surrogate": b'[{"sample": "\\ud800", "condition": "wt"}]',
        "twice": path.read_bytes() * 2,
    }
    found = [Damage("content", what, written(content), REFUSED) for what, content in contents.items()]
    nested = [row | {"more": {"a": [1, 2]}} for row in listed]
    return [*found, Damage("content", "more than words", written(json.dumps(nested).encode()), SAME)]


def as_parquet(rows: list[list]) -> bytes:
    buffer = io.BytesIO()
    pd.DataFrame(rows[1:], columns=rows[0]).to_parquet(buffer)
    return buffer.getvalue()


# Names on a page


def page_of(path: Path) -> bool:
    """Whether a page of a data set has no markup of its names: what the book shows, and what Jupyter does."""
    from epigen_utils.book import open_page, report

    shown = []
    known, open_page.display = open_page.display, lambda data, raw: shown.append(data)
    try:
        adata = datasets.load(path, metadata=path.with_name("samples.csv"), group="condition")
        open_page._page = open_page.Page(
            "epilepsy/02_table_two", path.with_name(".page").absolute(), 1, {}, "demo", "main"
        )
        report.banner(adata)
        table = adata.obs.assign(gene=adata.var_names[: adata.n_obs], sample=adata.obs_names, x=1.0, y=2.0)
        caption = f"Of {report.text(adata.obs_names[0])} and {report.text(adata.var_names[0])}."
        report.table("names", table, caption=caption)
        report.searchable("search", table, text="search")
        report.interactive("points", table, caption=caption, x="x", y="y", label="gene", group="condition")
        report.say(caption)
    finally:
        open_page.display = known
        import shutil

        shutil.rmtree(path.with_name(".page"), ignore_errors=True)
    texts = [text for data in shown for text in data.values()]
    # Within HTML, what MyST would take for markup is text.
    myst = [re.sub(r"```\{raw\} html\n.*?\n```", "", data["text/markdown"], flags=re.DOTALL) for data in shown]
    of_html, of_myst = ("<script", "<img", "<iframe"), ("](javascript", "{raw} html <b", "{glue:text}`n`")
    return len(texts) == 10 and not (
        any(word in text for text in texts for word in of_html)
        or any(word in text for text in myst for word in of_myst)
    )


def page_damages(path: Path, rng: random.Random) -> list[Damage]:
    found = []
    for name in ODD_NAMES:

        def rename(path: Path, name: str = name) -> None:
            samples, groups = [name, *SAMPLES[1:]], ["wt"] * 3 + [name] * 3
            path.write_bytes(as_csv(count_rows([name, *GENES[1:]], samples)))
            path.with_name("samples.csv").write_bytes(as_csv(sample_rows(samples, groups)))

        found.append(Damage("names", repr(name[:30]), rename, True))
    return found


def odd_paths(path: Path, rng: random.Random) -> list[Damage]:
    """The file's own name is changed: the door takes whatever is beside samples.csv."""
    names = [
        "a b.csv",
        "-x.csv",
        "$(touch CANARY).csv",
        "<b>.csv",
        "a\nb.csv",
        "\u57fa.csv",
        "x" * 200 + ".csv",
        "{a}.csv",
        "'.csv",
    ]
    return [
        Damage("names", f"file {name[:30]!r}", lambda path, name=name: path.rename(path.with_name(name)), SAME)
        for name in names
    ] + [Damage("names", "a file that is no UTF-8", lambda path: path.rename(path.with_name("\udcff.csv")), SAME)]


def check_any(path: Path) -> dict:
    (found,) = [file for file in path.absolute().parent.iterdir() if file.name != "samples.csv"]
    return check_bulk(Path(found.parent, found.name))
