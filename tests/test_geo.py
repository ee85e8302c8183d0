import gzip

import pytest

from epigen_utils import datasets, geo, paths
from epigen_utils.errors import DataError

# The layout of a series matrix as GEO writes it; the values are made up.
SERIES = """!Series_title\t"A series"
!Series_geo_accession\t"GSE1"
!Series_supplementary_file\t"{ftp}/suppl/GSE1_RAW.tar"
!Series_supplementary_file\t"{ftp}/suppl/GSE1_raw_counts.csv.gz"

!Sample_title\t"brain, WT, 1"\t"brain, KO, 1"
!Sample_geo_accession\t"GSM1"\t"GSM2"
!Sample_organism_ch1\t"Mus musculus"\t"Mus musculus"
!Sample_source_name_ch1\t"brain"\t"brain"
!Sample_characteristics_ch1\t"genotype: wild type"\t"genotype: Kcna1-/-"
!Sample_characteristics_ch1\t"age: P40"\t""
!series_matrix_table_begin
"""


@pytest.fixture
def series(tmp_path):
    path = tmp_path / "GSE1_series_matrix.txt.gz"

    def write(text):
        with gzip.open(path, "wt") as stream:
            stream.write(text)
        return path

    return write


def test_samples(series):
    table = geo.samples(series(SERIES))
    assert list(table.index) == ["GSM1", "GSM2"]
    assert table.loc["GSM2", "genotype"] == "Kcna1-/-"
    assert table.loc["GSM1", "age"] == "P40"
    assert table["age"].isna().tolist() == [False, True]
    assert table["organism"].tolist() == ["Mus musculus"] * 2


def test_counts_url_prefers_the_table_of_counts(series):
    path = series(SERIES.format(ftp="ftp://host/GSE1"))
    assert geo.counts_url(path) == "https://host/GSE1/suppl/GSE1_raw_counts.csv.gz"


def test_mistakes_are_one_line(series):
    with pytest.raises(DataError, match=r"files: GSE1_RAW\.tar"):
        geo.counts_url(series(SERIES.replace("_raw_counts.csv.gz", "_RAW.tar")))
    with pytest.raises(DataError, match="is it a series matrix"):
        geo.samples(series("gene\tsample\n"))


def test_a_series_from_a_server_to_counts(cache, serve, with_registry, series, monkeypatch):
    """The registry's own GSE264537 entry, with its addresses turned to a local server and made-up counts."""
    url, folder, _ = serve
    text = (paths.REGISTRY).read_text()
    entry = text[text.index("GSE264537:") : text.index("GSE275235:")]
    matrix = "https://ftp.ncbi.nlm.nih.gov/geo/series/GSE264nnn/GSE264537/matrix/GSE264537_series_matrix.txt.gz"
    assert matrix in entry
    with_registry(entry.replace(matrix, f"{url}/matrix.txt.gz"))
    (folder / "matrix.txt.gz").write_bytes(series(SERIES.format(ftp=url)).read_bytes())
    (folder / "suppl").mkdir()
    counts = "ID,HP.WT.1,HP.WT.2,HP.KO.1,HP.KO.2,Gene.name\nENSMUSG1,5,6,7,8,Kcna1\nENSMUSG2,0,1,2,3,Gria1\n"
    with gzip.open(folder / "suppl" / "GSE1_raw_counts.csv.gz", "wt") as stream:
        stream.write(counts)
    adata = datasets.load("GSE264537")
    assert adata.obs["genotype"].tolist() == ["WT", "WT", "KO", "KO"]
    assert adata.var["symbol"].tolist() == ["Kcna1", "Gria1"]
    assert adata.layers["counts"].tolist() == [[5, 0], [6, 1], [7, 2], [8, 3]]
    recorded = {path.name for path in cache.rglob("*.sha256")}
    assert recorded == {"matrix.txt.gz.sha256", "GSE1_raw_counts.csv.gz.sha256"}
