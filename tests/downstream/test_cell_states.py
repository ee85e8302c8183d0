import anndata
import numpy as np
import pytest

from epigen_utils.data import simulated_cells
from epigen_utils.downstream import cell_states
from epigen_utils.errors import DataError

LABELS = np.repeat(["dcm", "hcm", "nf"], 4)


def checked(labels=LABELS, alternatives=(), **states):
    return cell_states.check_states(labels, alternatives=alternatives, column="disease", **states)


def test_states_are_those_of_the_cells():
    assert checked(start="dcm", goal="nf") == ("dcm", "nf", [])
    assert checked(start="dcm", goal="nf", alternatives=["hcm"]) == ("dcm", "nf", ["hcm"])
    assert checked(np.array(["0.0", "1.0"]), start="1", goal="0") == ("1.0", "0.0", [])
    assert checked(np.array(["False", "True"]), start="true", goal="false") == ("True", "False", [])


@pytest.mark.parametrize(
    ("states", "said"),
    [
        ({"start": "dmc", "goal": "nf"}, "start 'dmc': no cell is so in 'disease'; did you mean 'dcm'?"),
        ({"start": "dcm", "goal": "healthy"}, "goal 'healthy': no cell is so in 'disease'; known: dcm, hcm, nf"),
        ({"start": "nf", "goal": "nf"}, r"goal 'nf': is the start too; name another state \(dcm, hcm, nf\)"),
        ({"start": "dcm", "goal": "nf", "alternatives": ["dcm"]}, "alternatives 'dcm': is the start too"),
        ({"start": "dcm", "goal": "nf", "alternatives": ["nf"]}, "alternatives 'nf': is the goal too"),
        ({"start": "dcm", "goal": "nf", "alternatives": ["hcm", "hcm"]}, "alternatives 'hcm': is the alternatives too"),
    ],
)
def test_states_that_are_none_or_the_same_are_one_line(states, said):
    with pytest.raises(DataError, match=said):
        checked(**states)


@pytest.fixture
def own(tmp_path):
    """39 donors of three diseases, of whom one has no disease noted; a column of types in every donor."""
    adata = simulated_cells.cardiomyopathy(cells_per_donor=6, n_genes=300)
    adata.X = adata.layers["counts"]
    adata.obs["cell_type"] = np.resize(["A", "B"], adata.n_obs)
    adata.obs["disease"] = adata.obs["disease"].astype(object).mask(adata.obs["donor"] == adata.obs["donor"].iloc[0])
    adata.varm.clear()
    adata.write_h5ad(tmp_path / "own.h5ad")
    return str(tmp_path / "own.h5ad")


def test_what_cells_allow(own):
    facts, lines = cell_states.describe_cells(own, group="disease", donor="donor", species="human")
    n_cells = anndata.read_h5ad(own).n_obs
    assert (facts["kind"], facts["cells"], facts["labels_of"]) == ("cells", n_cells, "donor")
    assert sum(facts["sizes"].values()) == 38, "donors with a disease noted"
    assert f"Rows are cells: {n_cells} rows" in lines[1]
    assert "each donor has one, so labels are of donors" in lines[-1]
    facts, lines = cell_states.describe_cells(own, group="cell_type", donor="donor", species="human")
    assert facts["labels_of"] == "cell"
    assert facts["sizes"] == {"A": 39, "B": 39}
    facts, _ = cell_states.describe_cells(own, species="human", keep="cell_type=A")
    assert (facts["cells"], facts["sizes"]) == (n_cells // 2, {})


@pytest.mark.parametrize(
    ("asked", "said"),
    [
        ({"group": "diseas"}, r"own\.h5ad: obs: no group column 'diseas'; name one that is there \(columns: .*disease"),
        ({"donor": "patient"}, "no donor column 'patient'; name one that is there"),
        ({"keep": "cell_type=C"}, "no cell has 'cell_type=C'; cell_type is one of A, B"),
        ({"start": "dcm"}, "--goal: a perturbation needs it; name one of dcm, hcm, nf"),
        ({"start": "dcm", "goal": "nff"}, "goal 'nff': no cell is so in 'disease'; did you mean 'nf'?"),
        ({"species": "mousey"}, "species 'mousey': no table of genes; write one of homo_sapiens"),
        ({"kind": "cell"}, "--kind cell: write cells or bulk"),
    ],
)
def test_what_chapters_would_stumble_over_is_said_before(own, asked, said):
    with pytest.raises(DataError, match=said):
        cell_states.describe_cells(own, **({"group": "disease", "donor": "donor", "species": "human"} | asked))


def test_samples_of_bulk_are_none(table_files):
    counts, samples = table_files()
    facts, lines = cell_states.describe_cells(str(counts), metadata=str(samples), group="condition")
    assert facts is None
    assert lines[0].startswith("Rows are samples of bulk: 4 rows")
    assert cell_states.describe_cells(str(counts), kind="bulk") == (None, [])
    assert cell_states.describe_cells("table-two") == (None, [])
