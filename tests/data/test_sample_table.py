import numpy as np
import pytest

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
