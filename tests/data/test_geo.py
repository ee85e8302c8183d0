import gzip

import anndata
import numpy as np
import pandas as pd
import pytest

from epigen_utils import paths
from epigen_utils.data import datasets, genes, geo
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


def test_counts_url_prefers_the_table_of_counts(series):
    path = series(SERIES.format(ftp="ftp://host/GSE1"))
    assert geo.counts_url(path) == "https://host/GSE1/suppl/GSE1_raw_counts.csv.gz"


@pytest.mark.parametrize(
    "content",
    [b"<html>no such series</html>", gzip.compress(b"!Series_title" * 99, mtime=0)[:-12]],
    ids=["a page", "half a file"],
)
def test_a_page_in_place_of_a_series_or_half_of_it_is_one_line(tmp_path, content):
    path = tmp_path / "GSE1_series_matrix.txt.gz"
    path.write_bytes(content)
    for read in (geo.counts_url, geo.read_sample_table):
        with pytest.raises(
            DataError, match=f"^{path}: cannot be read as a series matrix .*; delete {tmp_path} and fetch"
        ):
            read(path)


def test_what_a_series_says_of_its_samples(series):
    table = geo.read_sample_table(series(SERIES.format(ftp="ftp://host/GSE1")))
    assert list(table.index) == ["GSM1", "GSM2"]
    assert table["title"].tolist() == ["brain, WT, 1", "brain, KO, 1"]
    assert table["genotype"].tolist() == ["wild type", "Kcna1-/-"]
    assert table["age"].tolist()[0] == "P40"
    assert table["age"].isna().tolist() == [False, True], "a characteristic that one sample lacks"
    assert list(table) == ["title", "source", "genotype", "age"]
    table = geo.read_sample_table(series(SERIES.format(ftp="ftp://host/GSE1").replace("genotype:", "Source:")))
    assert table["source"].tolist() == ["brain", "brain"], "a characteristic of that name does not replace it"
    assert table["source (stated)"].tolist() == ["wild type", "Kcna1-/-"]


def test_mistakes_are_one_line(series):
    with pytest.raises(DataError, match=r"files: GSE1_RAW\.tar"):
        geo.counts_url(series(SERIES.replace("_raw_counts.csv.gz", "_RAW.tar")))


def test_a_series_from_a_server_to_counts(cache, serve, with_registry, series, monkeypatch):
    """The registry's own GSE264537 entry, with its addresses turned to a local server and made-up counts."""
    url, folder, _ = serve
    text = paths.REGISTRY.read_text()
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


ANNOTATION = "\n".join(
    [
        "^Annotation",
        "!Annotation_platform = GPL341",
        "#ID = ID from Platform data table",
        "!platform_table_begin",
        "ID\tGene title\tGene symbol\tGene ID",
        "p1_at\tglial fibrillary acidic protein\tGfap\t24387",
        "p2_at\ttwo genes\tAqp4///Vim\t1///2",
        "p3_at\tno gene\t\t",
        "p4_at\tglial fibrillary acidic protein\tGfap\t24387",
        "!platform_table_end",
    ]
)


def test_a_platforms_annotation_names_genes_of_probes(tmp_path):
    path = tmp_path / "GPL341.annot.gz"
    with gzip.open(path, "wt") as stream:
        stream.write(ANNOTATION)
    symbols = geo.read_probe_symbols(path)
    assert symbols.to_dict() == {"p1_at": "Gfap", "p4_at": "Gfap"}
    values = np.array([[1.0, 5, 5, 9], [2, 5, 5, 9]])
    array = anndata.AnnData(
        obs=pd.DataFrame(index=["a", "b"]),
        var=pd.DataFrame({"symbol": ["p1_at", "p2_at", "p3_at", "p4_at"]}, index=["p1_at", "p2_at", "p3_at", "p4_at"]),
        layers={"intensity": values},
    )
    named = genes.collapse_probes(array, symbols)
    assert list(named.var_names) == ["Gfap"]
    assert named.var["probe"].tolist() == ["p4_at"], "the probe with the higher mean"
    with pytest.raises(DataError, match="none of the 4 probes"):
        genes.collapse_probes(array, pd.Series({"q": "Gfap"}))


@pytest.mark.parametrize(
    ("content", "said"), [("ID\n", "no !platform_table_begin"), ("!platform_table_begin\nA\tB\n", "no columns ID")]
)
def test_what_is_no_annotation_is_one_line(tmp_path, content, said):
    (tmp_path / "x.annot").write_text(content)
    with pytest.raises(DataError, match=said):
        geo.read_probe_symbols(tmp_path / "x.annot")


def test_the_table_of_a_series_runs_is_that_of_its_bioproject(series):
    path = series(
        '!Series_relation\t"BioProject: https://www.ncbi.nlm.nih.gov/bioproject/PRJNA77"\n'
        '!Series_relation\t"SRA: https://www.ncbi.nlm.nih.gov/sra?term=SRP5"\n'
    )
    url = geo.run_table_url(path)
    assert url.startswith(
        "https://www.ebi.ac.uk/ena/portal/api/filereport?accession=PRJNA77&result=read_run&fields=run_"
    )
    with pytest.raises(DataError, match="names no BioProject, so its reads are not known; give a table of its runs"):
        geo.run_table_url(series(SERIES.format(ftp="ftp://host/GSE1")))


@pytest.mark.parametrize(
    ("old", "new", "said"),
    [
        ('\t"brain, KO, 1"', "", "1 values of title, and 2 samples"),
        ('\t"GSM2"', "", "2 values of title, and 1 samples"),
        ('"brain"\t"brain"', '"brain"', "1 values of source, and 2 samples"),
    ],
)
def test_a_series_that_lacks_a_value_of_a_sample_is_one_line(series, old, new, said):
    path = series(SERIES.replace(old, new))
    with pytest.raises(DataError, match=f"{path}: {said}; delete {path.parent} and fetch it again"):
        geo.read_sample_table(path)


@pytest.mark.parametrize(
    ("rows", "said"),
    [
        ("ID\tGene symbol\n1_at\tA\n2_at\n", "probe 2: 1 columns, and 2 names of them; fetch it again"),
        ("", "no columns ID and Gene symbol"),
    ],
)
def test_an_annotation_that_was_cut_off_is_one_line(tmp_path, rows, said):
    (tmp_path / "GPL1.annot").write_text(f"!platform_table_begin\n{rows}")
    with pytest.raises(DataError, match=rf"GPL1\.annot: {said}"):
        geo.read_probe_symbols(tmp_path / "GPL1.annot")
    whole = gzip.compress(b"!platform_table_begin\nID\tGene symbol\n" + b"1_at\tA\n" * 99)
    (tmp_path / "GPL1.annot.gz").write_bytes(whole[:-12])
    with pytest.raises(DataError, match=r"GPL1\.annot\.gz: cannot be read .*; fetch it again"):
        geo.read_probe_symbols(tmp_path / "GPL1.annot.gz")
