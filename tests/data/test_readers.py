import csv
import io
import json
import tempfile
from pathlib import Path

import anndata
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from epigen_utils.data import datasets, readers
from epigen_utils.errors import DataError


def refused(*arguments, **more) -> str:
    with pytest.raises(DataError) as caught:
        datasets.load(*arguments, **more)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_gzipped_tsv(table_files, tmp_path):
    import gzip

    path = tmp_path / "counts.tsv.gz"
    with gzip.open(path, "wt") as stream:
        stream.write(table_files.counts.replace(",", "\t"))
    assert datasets.load(path).shape == (4, 3)
    path.write_bytes(path.read_bytes()[:30])
    assert "cannot be read" in refused(path)


def test_counts_in_x_or_raw(small, tmp_path):
    counts = small.layers.pop("counts")
    small.X = counts.astype(np.float32)
    small.write_h5ad(tmp_path / "x.h5ad")
    assert datasets.load(tmp_path / "x.h5ad").layers["counts"].tolist() == counts.tolist()
    small.raw = small.copy()
    small.X = np.log1p(small.X)
    small.write_h5ad(tmp_path / "raw.h5ad")
    assert datasets.load(tmp_path / "raw.h5ad").layers["counts"].tolist() == counts.tolist()


@pytest.mark.parametrize(
    ("old", "new", "said"),
    [
        ("10,20", "10.5,20", "gene 'g3', sample 'a1': 10.5 is not an integer"),
        ("g2,1", "g2,-1", "gene 'g2', sample 'a1': negative value -1"),
        ("1,0,3", "1,,3", "gene 'g2', sample 'a2': missing or infinite value"),
        ("1,0,3", "1,inf,3", "gene 'g2', sample 'a2': missing or infinite value"),
        ("1,0,3", "1,many,3", "gene 'g2', sample 'a2': 'many' is not a number"),
        ("g3", "g1", "gene 'g1': given more than once"),
        ("a2", "a1", "sample 'a1': given 2 times"),
        ("g3,", ",", "row 4: no gene id"),
        ("g1,5,6,7,8\ng2,1,0,3,4\ng3,10,20,30,40\n", "", "empty, 4 samples x 0 genes"),
        ("5,6,7,8\ng2,1,0,3,4\ng3,10,20,30,40", "5.1,6.2,7.3,8.4\ng2,1.5,0,3.1,4.4", "these look normalised"),
    ],
)
def test_bad_counts_are_refused_in_one_line(table_files, old, new, said):
    counts, samples = table_files(counts=table_files.counts.replace(old, new, 1))
    message = refused(counts, metadata=samples, group="condition")
    assert said in message
    assert message.startswith(str(counts))


@pytest.mark.parametrize(
    ("old", "new", "said"),
    [
        ("b2,b\n", "b2,b\nc9,b\n", "sample 'c9' of samples.csv has no column"),
        ("b2,b\n", "", "sample 'b2' of counts.csv has no row"),
        ("b2,b\n", "b1,b\n", "sample 'b1': given twice"),
        ("b2,b", "b2,a", "group 'b' has one sample"),
    ],
)
def test_bad_sample_tables_are_refused_in_one_line(table_files, old, new, said):
    counts, samples = table_files(samples=table_files.samples.replace(old, new, 1))
    assert said in refused(counts, metadata=samples, group="condition")


def test_a_table_as_r_writes_it(table_files):
    """write.table leaves the first column without a name: the ids must not be lost for a sample's counts."""
    counts, samples = table_files(counts=table_files.counts.replace("gene,", "", 1))
    adata = datasets.load(counts, metadata=samples, group="condition")
    assert list(adata.var_names) == ["g1", "g2", "g3"]
    assert list(adata.obs_names) == ["a1", "a2", "b1", "b2"]
    assert adata.layers["counts"][0].tolist() == [5, 1, 10]


def test_duplicate_genes_in_h5ad(small, tmp_path):
    small.var_names = ["g1", "g1", "g3", "g4"]
    small.write_h5ad(tmp_path / "twice.h5ad")
    assert "gene 'g1': given 2 times" in refused(tmp_path / "twice.h5ad")


GENES = ["ENSMUSG00000000001", "ENSMUSG00000000002", "ENSMUSG00000000003"]


def written(path, index, columns):
    sep = "," if path.suffix == ".csv" else "\t"
    rows = [sep.join(["id", *columns])]
    rows += [sep.join([name, *(str(10 * i + j) for j in range(len(columns)))]) for i, name in enumerate(index, start=1)]
    path.write_text("\n".join(rows) + "\n")
    return path


def test_genes_in_rows_or_columns_are_found_out_and_said(tmp_path):
    samples = tmp_path / "samples.csv"
    samples.write_text("sample,condition\n" + "".join(f"s{i},{'ab'[i % 2]}\n" for i in range(4)))
    names = [f"s{i}" for i in range(4)]
    by_rows = datasets.load(written(tmp_path / "rows.csv", ["g1", "g2"], names), metadata=samples)
    by_columns = datasets.load(written(tmp_path / "columns.tsv", names, ["g1", "g2"]), metadata=samples)
    assert by_rows.shape == by_columns.shape == (4, 2)
    assert by_rows.uns["epigen"]["genes_in"] == "rows: the others are the sample table's ids"
    assert by_columns.uns["epigen"]["genes_in"] == "columns: the others are the sample table's ids"
    by_ids = datasets.load(written(tmp_path / "ids.csv", names, GENES))
    assert list(by_ids.var_names) == GENES
    assert by_ids.uns["epigen"]["genes_in"] == "columns: they have Ensembl's ids"
    by_shape = datasets.load(written(tmp_path / "shape.csv", ["x", "y"], [f"gene{i}" for i in range(9)]))
    assert by_shape.shape == (2, 9)
    asked = datasets.load(tmp_path / "shape.csv", genes_in="rows")
    assert asked.shape == (9, 2)
    assert asked.uns["epigen"]["genes_in"] == "rows, as given"
    assert "genes_in 'sideways': write rows or columns" in refused(tmp_path / "shape.csv", genes_in="sideways")


def test_an_h5ad_with_genes_in_rows_is_turned_round(tmp_path):
    adata = anndata.AnnData(
        X=np.arange(1, 13).reshape(3, 4).astype(float), obs={"obs_names": GENES}, var={"var_names": list("wxyz")}
    )
    adata.write_h5ad(tmp_path / "turned.h5ad")
    assert list(datasets.load(tmp_path / "turned.h5ad").var_names) == GENES
    assert datasets.load(tmp_path / "turned.h5ad", genes_in="columns").shape == (3, 4)


def test_a_bad_cell_is_named_the_right_way_round(tmp_path):
    path = tmp_path / "columns.csv"
    path.write_text("id," + ",".join(GENES) + "\ns1,1,2,3\ns2,4,many,6\n")
    assert f"sample 's2', gene '{GENES[1]}': 'many' is not a number" in refused(path)


def test_samples_as_json_and_a_choice_of_their_columns(table_files, tmp_path):
    counts, samples = table_files()
    listed = [{"id": f"{group}{i}", "condition": group, "batch": i} for group in "ab" for i in (1, 2)]
    path = tmp_path / "samples.json"
    path.write_text(json.dumps(listed))
    by_json = datasets.load(counts, metadata=path, group="condition")
    assert by_json.obs["condition"].tolist() == list("aabb")
    assert by_json.obs["batch"].tolist() == list("1212"), "as text, like the columns of a CSV file"
    inputs = {"counts": counts, "samples": path}
    chosen = readers.read_table(inputs, sample_columns={"batch": "individual", "condition": "condition"})
    assert chosen.obs.to_dict("list") == {"individual": list("1212"), "condition": list("aabb")}
    for content, said in (("[", "cannot be read as a table"), ('{"a": 1}', "cannot be read"), ("[]", "no samples")):
        path.write_text(content)
        assert said in refused(counts, metadata=path, group="condition")


@st.composite
def forms(draw):
    """Ways to write the same matrix and sample table."""
    return {
        "sep": draw(st.sampled_from(",\t; ")),
        "suffix": draw(st.sampled_from(["csv", "tsv", "txt"])),
        "newline": draw(st.sampled_from(["\n", "\r\n", "\r"])),
        "encoding": draw(st.sampled_from(["utf-8", "utf-8-sig", "utf-16"])),
        "quoting": draw(st.sampled_from([csv.QUOTE_MINIMAL, csv.QUOTE_ALL, csv.QUOTE_NONNUMERIC])),
        "ids": draw(st.sampled_from(["gene_id", "", "left out"])),
        "numbered": draw(st.booleans()),
        "about": draw(st.booleans()),
        "blank": draw(st.sampled_from(["", " "])),
        "columns": draw(st.permutations(range(4))),
        "rows": draw(st.permutations(range(4))),
        "turned": draw(st.booleans()),
        "empty": draw(st.booleans()),
    }


def write(path, rows, form):
    """Write rows of words; a separator that is a blank cannot have blanks beside it."""
    text = io.StringIO()
    writer = csv.writer(text, delimiter=form["sep"], quoting=form["quoting"], lineterminator="\n")
    blank = form["blank"] if form["sep"] != " " else ""
    for row in rows:
        writer.writerow([f"{cell}{blank}" if isinstance(cell, str) and cell else cell for cell in row])
    if form["empty"] and form["sep"] != " ":
        text.write(form["sep"] * (len(rows[-1]) - 1) + "\n")
    path.write_bytes(text.getvalue().replace("\n", form["newline"]).encode(form["encoding"]))


@settings(max_examples=max(60, settings.default.max_examples))
@given(form=forms())
def test_every_form_of_a_table_gives_the_same_data(form):
    """Separator, name of the file, ends of lines, BOM, quotes, the column of ids, order, orientation, blanks, empty rows."""
    genes_ids, names = ["JUN", "nan", "NA", "MARCHF1"], ["s1", "s2", "s3", "s4"]
    counts = np.arange(1, 17).reshape(4, 4)
    rows = [[gene, *counts[i][form["columns"]].tolist()] for i, gene in enumerate(genes_ids)]
    header = [form["ids"], *(names[i] for i in form["columns"])]
    if form["turned"]:
        header, rows = [form["ids"], *genes_ids], [[names[j], *counts[:, j].tolist()] for j in form["columns"]]
    elif form["about"]:
        header.insert(1, "length")
        rows = [[gene, 1000 + i, *values] for i, (gene, *values) in enumerate(rows)]
    samples = [[names[i], "ab"[i % 2], "café au lait", 20 + i] for i in form["rows"]]
    of_samples = [form["ids"], "condition", "note", "age"]
    if form["ids"] == "left out":
        header, of_samples = header[1:], of_samples[1:]
    elif form["numbered"]:
        header, rows = ["", *header], [[i, *row] for i, row in enumerate(rows)]
        of_samples, samples = ["", *of_samples], [[i, *row] for i, row in enumerate(samples)]
    if form["ids"] == "" and form["numbered"]:
        header[1] = of_samples[1] = "name"
    with tempfile.TemporaryDirectory() as folder:
        paths = [Path(folder) / f"{name}.{form['suffix']}" for name in ("counts", "samples")]
        write(paths[0], [header, *rows], form)
        write(paths[1], [of_samples, *samples], form)
        adata = datasets.load(paths[0], metadata=paths[1])
    assert set(adata.var_names) == set(genes_ids)
    assert adata[names, genes_ids].layers["counts"].T.tolist() == counts.tolist()
    table = adata.obs.loc[names]
    assert table["condition"].tolist() == list("abab")
    assert set(table["note"]) == {"café au lait"}
    assert table["age"].tolist() == ["20", "21", "22", "23"]
    assert adata.uns["epigen"]["genes_in"].startswith("columns" if form["turned"] else "rows")


#: Names of genes and samples: antisense transcripts, fusions, tRNAs, genotypes and times, in any letters.
NAMES = st.text("ABCxyz0123 .,;:'\"|/_-()+*#µé中", min_size=1, max_size=10).filter(lambda name: name == name.strip())
COUNTS = st.one_of(st.integers(0, 30), st.integers(0, 2**53))


def is_plain(names):
    """Whether no name is that of a column of genes, or begins as a line of comment does."""
    return names[0][0] != "#" and not any(
        readers._bare(name) in (*readers._ID_COLUMNS, *readers._GENE_COLUMNS) for name in names
    )


@st.composite
def matrices(draw):
    """Names of genes and of samples, and counts, genes x samples, of which no sample has none."""
    genes = draw(st.lists(NAMES, min_size=1, max_size=6, unique=True))
    samples = draw(st.lists(NAMES, min_size=2, max_size=5, unique=True).filter(is_plain))
    counts = draw(
        st.lists(
            st.lists(COUNTS, min_size=len(samples), max_size=len(samples)), min_size=len(genes), max_size=len(genes)
        )
    )
    return genes, samples, [[max(count, 1) for count in counts[0]], *counts[1:]]


@given(
    matrix=matrices(), sep=st.sampled_from(",\t;"), suffix=st.sampled_from(["csv", "tsv", "txt"]), turned=st.booleans()
)
def test_any_names_and_counts_come_back(matrix, sep, suffix, turned):
    genes, samples, counts = matrix
    rows = [["id", *samples], *([gene, *row] for gene, row in zip(genes, counts, strict=True))]
    if turned:
        rows = [list(column) for column in zip(*rows, strict=True)]
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / f"counts.{suffix}"
        with open(path, "w", newline="") as stream:
            csv.writer(stream, delimiter=sep, quoting=csv.QUOTE_NONNUMERIC).writerows(rows)
        adata = readers.read_table({"counts": path}, genes_in="columns" if turned else "rows")
    assert list(adata.var_names) == genes
    assert list(adata.obs_names) == samples
    assert adata.X.T.tolist() == counts
