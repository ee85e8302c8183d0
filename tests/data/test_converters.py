"""From the publishers' bytes, served by a local server, to what the book reads."""

import csv
import gzip
import pickle

import anndata
import numpy as np
import pytest

from epigen_utils import paths
from epigen_utils.data import converters, fetching, registry
from epigen_utils.errors import DataError

CONVERTED = [
    (entry.name, role) for entry in registry.entries().values() for role, spec in entry.files.items() if spec.converter
]
#: What the book read before, by data set: converted by others, by other code.
EARLIER = {
    "cardiac-ipsc": "singlecell/ipsc_cardiac_day2_day5_scGPS_full.h5ad",
    "pbmc-40": "singlecell/onek1k_pbmc_subset_scDesignPop.h5ad",
    "pig-cystic-fibrosis": "singlecell/pig_cystic_fibrosis_small_airway.h5ad",
}


@pytest.fixture
def originals(mirror):
    with open(mirror / "originals" / "URLS.tsv", newline="") as stream:
        return {row["sha256"]: mirror / row["path"] for row in csv.DictReader(stream, delimiter="\t")}


@pytest.mark.parametrize(("name", "role"), CONVERTED)
def test_the_converted_content_is_the_registry_s(name, role, originals, tmp_path):
    """Of bundled files too: whoever doubts them can make them again."""
    spec = registry.entry(name).files[role]
    target = tmp_path / spec.filename
    files = {original: originals[source.sha256] for original, source in spec.originals.items()}
    converters.CONVERTERS[spec.converter](files, target, **spec.args)
    expected = spec.sha256 if spec.source == "converted" else converters.content_sha256(paths.DATA / spec.bundled)
    assert converters.content_sha256(target) == expected


@pytest.mark.parametrize("name", EARLIER)
def test_cells_are_those_of_another_conversion(name, mirror):
    theirs = anndata.read_h5ad(mirror / EARLIER[name])
    ours = anndata.read_h5ad(fetching.fetch(name)["counts"])
    assert ours.var_names.equals(theirs.var_names)
    assert abs(ours.X - theirs.X).max() == 0
    for column in ours.obs:
        assert ours.obs[column].astype(str).tolist() == theirs.obs[column].astype(str).tolist()


def test_other_files_are_those_of_another_conversion(mirror):
    earlier = gzip.decompress((mirror / "annotation" / "homologene2_human_mouse_rat_zebrafish.tsv.gz").read_bytes())
    assert gzip.decompress(fetching.fetch("orthologs-homologene")["groups"].read_bytes()) == earlier
    lists = fetching.fetch("gene-classes") | fetching.fetch("gene-classes-more")
    for path in (mirror / "geneformer" / "gene_classes").glob("*.json"):
        assert lists[path.stem].read_text() == path.read_text()


def test_a_file_that_is_no_r_data_is_one_line(tmp_path):
    (tmp_path / "x.rda").write_bytes(b"<html>not found</html>")
    with pytest.raises(DataError, match=r"x\.rda: no R data file .*; fetch it again"):
        converters.homologene_table({"groups": tmp_path / "x.rda"}, tmp_path / "y.tsv.gz", taxa=[9606])


class Evil:
    def __reduce__(self):
        return (exec, ("import pathlib; pathlib.Path('ran').touch()",))


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (pickle.dumps({"ENSG1": Evil()}), "asks for builtins.exec.*refused"),
        (pickle.dumps({"ENSG1": np.array([Evil()], object)}), "refused"),
        (pickle.dumps({"ENSG1": 1})[:-3], "refused"),
        (b"", "refused"),
        (pickle.dumps([1, 2]), "holds no dictionary"),
        (pickle.dumps({1: 2}), "holds no dictionary of names"),
    ],
)
def test_a_pickle_that_is_more_than_a_dictionary_is_refused(tmp_path, monkeypatch, content, said):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "d.pkl").write_bytes(content)
    with pytest.raises(DataError, match=said):
        converters.read_plain_pickle(tmp_path / "d.pkl")
    assert not (tmp_path / "ran").exists()


def test_an_object_hidden_in_a_numpy_scalar_is_refused(tmp_path):
    (tmp_path / "d.pkl").write_bytes(pickle.dumps({"a": np.datetime64("2020-01-01")}))
    with pytest.raises(DataError, match="refused"):
        converters.read_plain_pickle(tmp_path / "d.pkl")
