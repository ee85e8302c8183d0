import anndata
import numpy as np
import pandas as pd
import pytest

from epigen_utils.commands import own_data
from epigen_utils.errors import DataError


@pytest.fixture
def write_list(tmp_path):
    def write(text):
        (tmp_path / "sets.yml").write_text(text)
        return tmp_path / "sets.yml"

    return write


def test_options_that_are_given():
    values = {"dataset": "a.csv", "group": "", "round_counts": False, "reference": "0", "cores": 2, "profile": "demo"}
    assert own_data.given_options(values) == {"dataset": "a.csv", "reference": "0"}


def test_a_data_set_has_the_sizes_of_its_groups_and_files_by_their_full_paths(table_files):
    counts, _ = table_files()
    given = {"dataset": "counts.csv", "metadata": "samples.csv", "group": "condition", "kind": "bulk"}
    found, lines = own_data.user_data(given, counts.parent)
    assert found == {
        "dataset": str(counts),
        "metadata": str(counts.parent / "samples.csv"),
        "group": "condition",
        "sizes": {"a": 2, "b": 2},
    }
    assert lines[0].startswith(f"{counts}: good, 4 samples x 3 genes; condition: a 2, b 2")


def test_a_data_set_of_the_registry_is_its_name():
    found, _ = own_data.user_data({"dataset": "table-two"})
    assert (found["dataset"], found["sizes"]) == ("table-two", {"WT": 3, "mutant": 9})


def test_cells_keep_what_is_said_of_cells(tmp_path):
    rng = np.random.default_rng(0)
    obs = pd.DataFrame({"state": list("ab") * 12, "donor": np.repeat(list("wxyz"), 6)})
    obs.index = [f"c{i}" for i in range(24)]
    genes = [f"ENSG{i:011}" for i in range(40)]
    adata = anndata.AnnData(rng.poisson(1.0, (24, 40)).astype(float), obs=obs, var=pd.DataFrame(index=genes))
    adata.write_h5ad(tmp_path / "cells.h5ad")
    given = {"dataset": str(tmp_path / "cells.h5ad"), "group": "state", "donor": "donor", "kind": "cells"}
    given |= {"teacher": "someone/Geneformer", "distil": True, "species": "homo_sapiens"}
    found, _ = own_data.user_data(given)
    assert {name: found[name] for name in ("kind", "cells", "labels_of", "sizes")} == {
        "kind": "cells",
        "cells": 24,
        "labels_of": "cell",
        "sizes": {"a": 4, "b": 4},
    }
    assert (found["teacher"], found["distil"]) == ("someone/Geneformer", True)


LIST = """
- name: plain
  dataset: counts.csv
  metadata: samples.csv
  label: condition
  reference: no
  round-counts: yes
- name: of-the-book
  dataset: airway
  donor:
"""


def test_a_list_has_the_options_of_the_command(write_list):
    plain, other = own_data.read_list(write_list(LIST))
    assert plain == {
        "name": "plain",
        "dataset": "counts.csv",
        "metadata": "samples.csv",
        "group": "condition",
        "reference": "no",
        "round_counts": True,
    }
    assert other == {"name": "of-the-book", "dataset": "airway"}


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (("label:", "lable:"), "plain: unknown option 'lable'; did you mean 'label'?"),
        (("name: plain", "nam: plain"), "entry 1: give a name of letters, digits, - and _, and the options under it"),
        (("name: plain", "name: my set"), "entry 1: give a name"),
        (("name: plain", "name: of_the_book"), "of-the-book: an earlier entry is called so, or nearly; rename one"),
        (
            ("dataset: airway", "sheet: s.csv\n  dataset: airway"),
            "of-the-book: --dataset and --sheet are two data sets",
        ),
        (("dataset: airway", "genome: mm10"), "of-the-book: options about reads go with --sheet; give it"),
        (("dataset: airway", "group: x"), "of-the-book: options about a data set go with --dataset; give it"),
        (("dataset: airway", "sheet: s.csv\n  keep: a=b"), "of-the-book: --keep goes with --dataset, not with --sheet"),
        (("round-counts: yes", "round-counts: maybe"), "plain: round-counts: 'maybe' is neither true nor false"),
        (("reference: no", "reference: [no]"), "plain: reference: write one word for it, once"),
        (("reference: no", "group: x"), "plain: group: write one word for it, once"),
        (("- name: of-the-book", "- [of-the-book]\n- name: x"), "entry 2: give a name"),
        ((LIST, "name: plain"), "write a list of data sets, each with a name"),
        ((LIST, ""), "write a list of data sets"),
        ((LIST, "- name: ["), "not YAML, line 1"),
    ],
)
def test_a_wrong_entry_is_one_line_with_file_and_entry(write_list, change, said):
    path = write_list(LIST.replace(*change))
    with pytest.raises(DataError) as caught:
        own_data.read_list(path)
    assert str(caught.value).startswith(f"{path}: {said}")
    assert "\n" not in str(caught.value)


def test_a_list_that_is_not_there(tmp_path):
    with pytest.raises(DataError, match="no such list of data sets; check the path"):
        own_data.read_list(tmp_path / "lost.yml")


def test_a_data_set_that_is_refused_leaves_the_others(table_files, write_list):
    counts, _ = table_files()
    bad = "- {name: bad, dataset: counts.csv, metadata: samples.csv, group: tissue}\n"
    good = "- {name: good, dataset: counts.csv, metadata: samples.csv, group: condition}\n"
    path = write_list("- {name: lost, dataset: lost.csv}\n" + bad + good)
    lost, bad, good = (found for found, _ in own_data.check_list(path))
    assert lost["refused"].startswith("lost.csv: no such file")
    assert bad["refused"].startswith("counts.csv: obs: no group column 'tissue'")
    assert str(counts.parent) not in lost["refused"] + bad["refused"], "a page shows it"
    assert "refused" not in good
    assert good["sizes"] == {"a": 2, "b": 2}
