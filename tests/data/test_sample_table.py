import csv
import json
import re
import tempfile
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from epigen_utils.data import fetching, sample_table

SERIES = """!Sample_title\t"a"\t"b"
!Sample_geo_accession\t"GSM1"\t"GSM2"
!Sample_characteristics_ch1\t"{one}"\t"{two}"
"""


def test_summary_and_missing_metadata(small):
    small.uns["epigen"] |= {"nature": "real", "species": "mus_musculus"}
    row = sample_table.cohort_summary(small)
    assert row["groups"] == "a 3, b 3"
    assert row["donors"] == "3"
    assert row["median depth"] == np.median([114, 105, 121, 109, 116, 113])
    assert row["median genes detected"] == 4
    small.obs["Sex"] = ["f", None, "m", "m", "f", "f"]
    missing = sample_table.missing_metadata(small)
    assert missing["donor"] == "donor"
    assert missing["sex"] == "Sex, 1 empty"
    assert missing["age"] == "missing"


def test_samples_with_a_field(small):
    small.obs["diet"] = ["ketogenic", None, "control", "control", None, "control"]
    assert sample_table.count_with_field(small, "treatment") == 4
    assert sample_table.count_with_field(small, "donor") == 6
    assert sample_table.count_with_field(small, "sex") == 0
    small.uns["epigen"]["group"] = "diet"
    assert sample_table.count_with_field(small, "treatment") == 0, "the group is no description of itself"


def test_missing_is_not_untreated(small):
    assert sample_table.stated_treatments(small) is None
    small.obs["Diet"] = ["ketogenic", None, "control", "control", None, "control"]
    assert sample_table.stated_treatments(small) == ["control", "ketogenic"]
    small.uns["epigen"]["group"] = "Diet"
    assert sample_table.stated_treatments(small) == ["control", "ketogenic"], "the group says it, too"
    small.obs["Diet"] = None
    assert sample_table.stated_treatments(small) is None


@pytest.mark.parametrize(
    ("one", "two", "stated"),
    [
        ("genotype: WT", "genotype: DM", None),
        ("treatment: none", "treatment: none", ["none"]),
        ("treatment: none", "treatment: zinc chelator", ["none", "zinc chelator"]),
    ],
)
def test_treatments_by_geos_description_of_a_series(small, tmp_path, monkeypatch, one, two, stated):
    (tmp_path / "matrix.txt").write_text(SERIES.format(one=one, two=two))
    monkeypatch.setattr(fetching, "fetch", lambda name: {"series": tmp_path / "matrix.txt"})
    small.uns["epigen"]["name"] = "GSE275235"
    assert sample_table.stated_treatments(small) == stated


def test_a_wide_table_is_peeked_at(tmp_path):
    """A line of it is one field of 300,000 characters where another separator is tried."""
    path = tmp_path / "wide.csv"
    genes = [f"ENSG{number:011d}" for number in range(20_000)]
    path.write_text(",".join(["cell", *genes]) + "\n" + ",".join(["c1", *["1"] * 20_000]) + "\n")
    layout = sample_table.peek(path)
    assert (layout.sep, layout.width) == (",", 20_001)


#: Words as people write them, without blanks at their ends.
WORDS = st.text("abXY019 .,;:'\"|/_-()+#%µé", min_size=1, max_size=8).filter(
    lambda word: word == word.strip() and word not in sample_table.MISSING
)


@st.composite
def word_tables(draw):
    """A table with a few columns of words; a first name with # would be a comment's, as R writes one."""
    names = draw(st.lists(WORDS, min_size=2, max_size=4, unique=True).filter(lambda names: names[0][0] != "#"))
    cells = st.one_of(WORDS, st.sampled_from([None, "NA", "None", "007", "1.50", "1e3", "TRUE"]))
    rows = draw(st.lists(st.lists(cells, min_size=len(names), max_size=len(names)), min_size=1, max_size=5))
    return pd.DataFrame([row for row in rows if any(row)] or [["a"] * len(names)], columns=names, dtype=object)


def write_words(table, path, sep):
    if path.suffix == ".xlsx":
        table.to_excel(path, index=False)
    elif path.suffix == ".parquet":
        table.to_parquet(path)
    elif path.suffix == ".json":
        path.write_text(json.dumps(table.to_dict("records")))
    else:
        table.to_csv(path, sep=sep, index=False, quoting=csv.QUOTE_ALL)


@given(table=word_tables(), form=st.sampled_from(["csv,", "tsv\t", "csv;", "txt\t", "json", "parquet", "xlsx"]))
def test_words_come_back_from_every_kind_of_file(table, form):
    suffix, sep = form.rstrip(",\t;"), form[-1]
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / f"table.{suffix}"
        write_words(table, path, sep)
        found, notes = sample_table.read_words(path)
    kept = table.map(lambda word: None if word == "NA" else word).dropna(how="all")
    assert list(found.columns) == list(table.columns)
    assert found.astype(object).where(found.notna(), None).to_numpy().tolist() == kept.to_numpy().tolist()
    assert not any("taken off" in note for note in notes)


NAMES = st.text("abX19 ._-+()", min_size=1, max_size=7)


@given(ids=st.lists(NAMES, min_size=1, max_size=6, unique_by=sample_table.sample_key), order=st.randoms())
def test_names_as_r_makes_them_find_the_samples_again(ids, order):
    """R's make.names: other characters become dots, and a name that begins with none of its letters gets an X."""
    made = [re.sub(r"[^A-Za-z0-9._]", ".", name) for name in ids]
    made = [name if re.match(r"[A-Za-z]|\.(?!\d)", name) else f"X{name}" for name in made]
    mixed = order.sample(range(len(ids)), len(ids))
    found = sample_table.matching_names(pd.Index(made)[mixed], pd.Index(ids))
    assert list(found) == [ids[i] for i in mixed]
    assert list(sample_table.matching_names(pd.Index(ids)[mixed], pd.Index(ids))) == [ids[i] for i in mixed]
