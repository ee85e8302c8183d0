"""Against outputs of official Geneformer on fixed random checkpoints, where the mirror has them; and by hand."""

import json

import numpy as np
import pandas as pd
import pytest
import torch

from epigen_utils.downstream import perturbation, screening
from epigen_utils.errors import DataError
from epigen_utils.geneformer import embeddings, vocabularies
from epigen_utils.models import batching, presets

LOOSE = 1e-6
#: Cells, or genes, of the mirror that are compared; all of them take minutes.
PART = pytest.mark.parametrize(
    "part", [pytest.param(2, id="some"), pytest.param(None, id="every", marks=pytest.mark.slow)]
)


@pytest.fixture
def official(mirror):
    return mirror / "reference/geneformer_official"


def cells(official, name, only=None, part=None):
    held = np.load(official / f"{name}.npz")
    ids = [held["token_ids"][a:b] for a, b in zip(held["offset"], held["offset"][1:], strict=False)]
    names = list(held["cell_id"])
    only = (names if only is None else list(only))[:part]
    return {"input_ids": [ids[names.index(cell)] for cell in only]}, np.array(only)


def days(names):
    return np.array([name.split("_")[0] for name in names])


@pytest.fixture
def v1(official):
    return presets.load_checkpoint(str(official / "checkpoint_v1_small")).eval(), vocabularies.official_vocabulary("v1")


@pytest.fixture
def v2(official):
    return presets.load_checkpoint(str(official / "checkpoint_v2_small")).eval(), vocabularies.official_vocabulary("v2")


@pytest.fixture
def chosen(official):
    held = json.loads((official / "selection.json").read_text())
    return {name: [gene["ensembl_id"] for gene in held[name]] for name in ("delete3", "over5")}


def compared(ours, names, official, file, columns, on=("cell_id",), genes=None):
    theirs = pd.read_csv(official / f"{file}.csv")
    ours = ours.assign(cell_id=np.asarray(names)[ours["cell"]]).rename(
        columns={"rank": "rank_index", "gene": "ensembl_id"}
    )
    theirs = theirs[theirs["cell_id"].isin(names)]
    if genes is not None:
        theirs = theirs[theirs["ensembl_id"].isin(genes)]
    both = ours.merge(theirs, on=list(on), suffixes=("", "_theirs"))
    assert len(both) == len(ours) == len(theirs)
    for mine, other in columns.items():
        np.testing.assert_allclose(both[mine], both[other], rtol=0, atol=LOOSE)


COSINE = {"cosine": "cosine_similarity"}


SHIFTS = {"shift_day2": "shift_to_day2", "shift_day5": "shift_to_day5"}


@PART
@pytest.mark.parametrize(
    ("file", "kind", "genes", "options"),
    [
        ("delete_group3", "delete", "delete3", {}),
        ("delete_group3_layer0", "delete", "delete3", {"layer": 0}),
        ("overexpress_group5_batch1", "overexpress", "over5", {}),
    ],
)
def test_sets_of_genes_as_official(official, v1, chosen, file, kind, genes, options, part):
    some, names = cells(official, "tokens_v1", part=part)
    found = perturbation.perturb(*v1[:1], some, v1[1], kind, chosen[genes], **options)
    compared(found, names, official, file, COSINE)


@PART
def test_single_genes_as_official(official, v1, chosen, part):
    some, names = cells(official, "tokens_v1", part=part)
    found = perturbation.delete(v1[0], some, v1[1], [chosen["over5"][1]])
    compared(found, names, official, "delete_single_partial", COSINE)
    found = perturbation.overexpress(v1[0], some, v1[1], chosen["over5"], together=False)
    compared(found, names, official, "overexpress_single_each_batch1", COSINE, ("cell_id", "ensembl_id"))


@PART
@pytest.mark.parametrize(
    ("file", "kind"), [("delete_all_null2cells", "delete"), ("overexpress_all_1cell", "overexpress")]
)
def test_all_genes_as_official(official, v1, file, kind, part):
    every = pd.read_csv(official / f"{file}.csv")
    some, names = cells(official, "tokens_v1", every["cell_id"].unique()[:1])
    every = every[every["cell_id"] == names[0]]
    genes = None if part is None else list(every["ensembl_id"][:: len(every) // 12])
    found = perturbation.perturb(v1[0], some, v1[1], kind, genes or "all", together=False)
    compared(found, names, official, file, COSINE, ("cell_id", "rank_index"), genes)


def test_long_cells_as_official_and_right_where_it_stops(official, v1, chosen):
    """Official Geneformer raises for cells a few tokens short of 2,048, counting an overflow that is none."""
    some, names = cells(official, "tokens_v1_long_cells")
    group = perturbation.overexpress(v1[0], some, v1[1], chosen["over5"]).assign(genes="group5")
    single = perturbation.overexpress(v1[0], some, v1[1], chosen["over5"], together=False)
    ours = pd.concat([group, single.assign(genes=single["gene"])])
    ours["cell_id"] = names[ours["cell"]]
    both = ours.merge(pd.read_csv(official / "overexpress_long_cells_batch1.csv"), on=["cell_id", "genes"])
    stopped = both["error"].notna()
    assert stopped.sum() == 4
    assert both.loc[stopped, "cosine"].between(0.99, 1).all()
    np.testing.assert_allclose(both.loc[~stopped, "cosine"], both.loc[~stopped, "cosine_similarity"], atol=LOOSE)


@PART
def test_states_and_shifts_as_official(official, v1, chosen, part):
    """The median is ours: of an even number official Geneformer takes the lower of the two in the middle."""
    some, names = cells(official, "tokens_v1")
    theirs = np.load(official / "state_embeddings.npz")
    for layer, label in ((-1, "minus1"), (0, "0"))[: 1 if part else 2]:
        embedded = embeddings.embed_cells(*v1[:1], some, v1[1], layer=layer)
        ours = embeddings.state_centres(embedded, days(names), ["day2", "day5"])
        for day in ours:
            np.testing.assert_allclose(ours[day], theirs[f"exact_mean_layer_{label}_{day}"], atol=LOOSE)
            lower = np.sort(embedded[days(names) == day], axis=0)[5]
            np.testing.assert_allclose(lower, theirs[f"exact_median_layer_{label}_{day}"], atol=LOOSE)
            median = embeddings.state_centres(embedded, days(names), [day], statistic="median")[day]
            assert np.abs(median - lower).max() > 0.01
    states = {day: theirs[f"exact_mean_layer_minus1_{day}"] for day in ("day2", "day5")}
    start, of_start = cells(official, "tokens_v1", names[days(names) == "day2"], part)
    found = perturbation.delete(v1[0], start, v1[1], chosen["delete3"], states=states)
    compared(found, of_start, official, "goal_delete_group3", SHIFTS)
    found = perturbation.overexpress(v1[0], start, v1[1], chosen["over5"], states=states)
    compared(found, of_start, official, "goal_overexpress_group5_batch1", SHIFTS)
    file = "goal_delete_all_2cells"
    every = pd.read_csv(official / f"{file}.csv")
    one, of_one = cells(official, "tokens_v1", every["cell_id"].unique()[:1])
    some = list(every.loc[every["cell_id"] == of_one[0], "ensembl_id"][:: 100 if part else 8])
    found = perturbation.delete(v1[0], one, v1[1], some, together=False, states=states)
    compared(found, of_one, official, file, SHIFTS, ("cell_id", "rank_index"), some)


@PART
def test_v2_as_official(official, v2, chosen, part):
    names = np.load(official / "v2_embeddings.npz")["cell_id"][:part]
    some, _ = cells(official, "tokens_v2", names)
    first = {"pooling": "first"}
    compared(
        perturbation.delete(v2[0], some, v2[1], chosen["delete3"], **first),
        names,
        official,
        "v2_delete_group3_cls",
        COSINE,
    )
    there = [gene for gene in chosen["over5"] if gene in v2[1].tokens]
    found = perturbation.overexpress(v2[0], some, v2[1], there, **first)
    compared(found, names, official, "v2_overexpress_group_cls", COSINE)
    file = "v2_delete_all_cls_1cell"
    every = pd.read_csv(official / f"{file}.csv")
    one, of_one = cells(official, "tokens_v2", every["cell_id"].unique())
    genes = None if part is None else list(every["ensembl_id"].dropna()[:: len(every) // 12])
    found = perturbation.delete(v2[0], one, v2[1], genes or "all", together=False, **first)
    compared(found, of_one, official, file, COSINE, ("cell_id", "rank_index"), genes)


GENES = [f"ENSG{i:03d}" for i in range(40)]


@pytest.fixture
def vocabulary():
    return vocabularies.vocabulary_from_medians(dict.fromkeys(GENES, 1.0), name="small")


@pytest.fixture
def model(vocabulary):
    config = presets.preset("bert-tiny", vocab_size=vocabulary.size, max_position_embeddings=32)
    return presets.build(config, "masked-lm").eval()


def some_cells(n=6, seed=0):
    rng = np.random.default_rng(seed)
    return {"input_ids": [rng.permutation(40)[: rng.integers(8, 30)] + 2 for _ in range(n)]}


@pytest.mark.parametrize("kind", list(perturbation.PERTURBATIONS))
@pytest.mark.parametrize("pooling", ["mean", "first"])
def test_batches_do_not_matter(model, vocabulary, monkeypatch, kind, pooling):
    states = {"goal": np.random.default_rng(1).normal(size=64).astype(np.float32)}
    whole = perturbation.perturb(model, some_cells(), vocabulary, kind, states=states, pooling=pooling)
    monkeypatch.setattr(batching, "POSITIONS_PER_BATCH", 1)
    single = perturbation.perturb(model, some_cells(), vocabulary, kind, states=states, pooling=pooling)
    pd.testing.assert_frame_equal(whole, single, atol=2e-6, rtol=0)
    assert not (whole["shift_goal"] == 0).all()


@pytest.mark.parametrize("kind", list(perturbation.PERTURBATIONS))
def test_all_genes_are_each_gene_of_each_cell(model, vocabulary, kind):
    first = int(kind == "overexpress")
    found = perturbation.perturb(model, some_cells(3), vocabulary, kind)
    expected = [
        (cell, ids[rank] - 2, rank)
        for cell, ids in enumerate(some_cells(3)["input_ids"])
        for rank in range(first, len(ids))
    ]
    assert [tuple(row) for row in found[["cell", "gene", "rank"]].to_numpy()] == [
        (cell, GENES[gene], rank) for cell, gene, rank in expected
    ]
    for cell, gene, rank in expected[::9]:
        alone = perturbation.perturb(
            model, {"input_ids": some_cells(3)["input_ids"][cell : cell + 1]}, vocabulary, kind, [GENES[gene]]
        )
        effect = found.loc[(found["cell"] == cell) & (found["rank"] == rank), "cosine"]
        np.testing.assert_allclose(alone["cosine"], effect, atol=2e-6)


@pytest.mark.parametrize("kind", ["delete", "overexpress"])
def test_cells_read_in_two_ways_at_once_are_those_read_in_each(model, vocabulary, kind):
    centres = np.random.default_rng(1).normal(size=(2, 64)).astype(np.float32)
    states = {"mean": {"goal": centres[0]}, "first": {"goal": centres[1]}}
    found = perturbation.shifts_by_pooling(model, some_cells(), vocabulary, kind, states=states)
    assert list(found) == ["mean", "first"]
    for pooling, table in found.items():
        alone = perturbation.perturb(model, some_cells(), vocabulary, kind, states=states[pooling], pooling=pooling)
        pd.testing.assert_frame_equal(table, alone)
    assert not np.allclose(found["mean"]["shift_goal"], found["first"]["shift_goal"])


def test_places_that_are_kept_are_those_of_the_whole_cell(model, vocabulary):
    """Against the model itself, asked for the cell without a gene under the positions that the others had."""
    cell = np.arange(2, 14)
    goal = np.random.default_rng(1).normal(size=64).astype(np.float32)
    options = {"states": {"goal": goal}, "layer": 0}
    found = perturbation.delete(model, {"input_ids": [cell]}, vocabulary, keep_places=True, **options)
    with torch.no_grad():
        left, places = (torch.tensor(np.delete(values, 4))[None] for values in (cell, np.arange(12)))
        after = model.bert(left, position_ids=places).last_hidden_state[0].mean(dim=0)
        before = model.bert(torch.tensor(cell)[None]).last_hidden_state[0].mean(dim=0)
    cosines = [torch.cosine_similarity(side, torch.tensor(goal), dim=0) for side in (after, before)]
    assert found["shift_goal"][4] == pytest.approx(float(cosines[0] - cosines[1]), abs=1e-5)
    moved = perturbation.delete(model, {"input_ids": [cell]}, vocabulary, **options)
    # Behind the last gene there is none to move.
    assert found["shift_goal"][11] == pytest.approx(moved["shift_goal"][11], abs=1e-6)
    assert np.abs(found["shift_goal"][:11] - moved["shift_goal"][:11]).max() > 1e-3
    with pytest.raises(DataError, match="only deletions can keep places"):
        perturbation.overexpress(model, {"input_ids": [cell]}, vocabulary, keep_places=True)


def test_bf16_is_near(model, vocabulary):
    exact, near = (
        perturbation.delete(model, some_cells(), vocabulary, precision=precision)["cosine"]
        for precision in ("fp32", "bf16")
    )
    assert not (exact == near).all()
    assert np.abs(exact - near).max() < 0.02


@pytest.mark.requires_gpu
def test_a_gpu_perturbs_as_the_cpu_does(model, vocabulary):
    cells, states = some_cells(), {"goal": np.random.default_rng(1).normal(size=64).astype(np.float32)}
    exact = perturbation.delete(model, cells, vocabulary, states=states)
    cosines = [perturbation.perturb(model, cells, vocabulary, kind) for kind in perturbation.PERTURBATIONS]
    estimated = screening.screen(model, cells, vocabulary, states)
    model.to("cuda")
    for kind, of_kind in zip(perturbation.PERTURBATIONS, cosines, strict=True):
        pd.testing.assert_frame_equal(perturbation.perturb(model, cells, vocabulary, kind), of_kind, atol=1e-3)
    pd.testing.assert_frame_equal(perturbation.delete(model, cells, vocabulary, states=states), exact, atol=1e-3)
    pd.testing.assert_frame_equal(screening.screen(model, cells, vocabulary, states), estimated, atol=1e-3)
    near = perturbation.delete(model, cells, vocabulary, states=states, precision="bf16")
    assert np.abs(near["shift_goal"] - exact["shift_goal"]).max() < 0.05


def test_mistakes_are_one_line(model, vocabulary):
    some = {"input_ids": [np.arange(2, 12)]}
    with pytest.raises(DataError, match="no cell expresses it"):
        perturbation.delete(model, some, vocabulary, [GENES[30]])
    with pytest.raises(DataError, match="no cell expresses them all"):
        perturbation.delete(model, some, vocabulary, [GENES[3], GENES[30]])
    with pytest.raises(DataError, match="not in the vocabulary"):
        perturbation.overexpress(model, some, vocabulary, ["ENSG999"])
    with pytest.raises(DataError, match="there are delete, overexpress"):
        perturbation.perturb(model, some, vocabulary, "remove")
    assert len(perturbation.overexpress(model, some, vocabulary, [GENES[30]])) == 1


def test_a_deleted_gene_that_is_all_a_cell_has_leaves_nothing(model, vocabulary):
    found = perturbation.delete(model, {"input_ids": [np.array([5]), np.arange(2, 12)]}, vocabulary)
    assert (found["cell"] == 1).all()


def test_one_gene_changes_what_a_model_was_made_to_read(model, vocabulary):
    """A model whose cells are the mean of their genes' embeddings, of which one gene alone points to the goal."""
    with torch.no_grad():
        embeddings = model.bert.embeddings
        embeddings.word_embeddings.weight.normal_(0, 0.1)
        embeddings.position_embeddings.weight.zero_()
        embeddings.word_embeddings.weight[7, 0] = 5.0
    goal = np.zeros(64, np.float32)
    goal[0] = 1
    found = perturbation.delete(model, {"input_ids": [np.arange(2, 20)]}, vocabulary, states={"goal": goal}, layer=-2)
    assert found.loc[found["shift_goal"].idxmin(), "gene"] == GENES[5]
