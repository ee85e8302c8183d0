import datasets as arrow
import numpy as np
import pytest
import torch

from epigen_utils.errors import DataError
from epigen_utils.geneformer import embeddings, vocabularies
from epigen_utils.models import batching, presets

GENES = [f"ENSG{i:03d}" for i in range(40)]


@pytest.fixture(params=[False, True], ids=["v1", "v2"])
def vocabulary(request):
    return vocabularies.vocabulary_from_medians(dict.fromkeys(GENES, 1.0), name="small", special=request.param)


@pytest.fixture
def model(vocabulary):
    config = presets.preset("bert-tiny", vocab_size=vocabulary.size, max_position_embeddings=64)
    return presets.build(config, "masked-lm").eval()


@pytest.fixture
def cells(vocabulary):
    rng = np.random.default_rng(0)
    genes = vocabulary.gene_tokens
    drawn = [rng.choice(genes, rng.integers(3, 30), replace=False) for _ in range(9)]
    if "<cls>" in vocabulary.tokens:
        ends = [[vocabulary.tokens[name]] for name in ("<cls>", "<eos>")]
        drawn = [np.concatenate([ends[0], cell, ends[1]]) for cell in drawn]
    return {"input_ids": drawn}


@pytest.mark.parametrize("layer", [0, -1, -2])
@pytest.mark.parametrize("pooling", embeddings.POOLINGS)
def test_a_cell_alone_by_the_whole_model(model, vocabulary, cells, layer, pooling, monkeypatch):
    monkeypatch.setattr(batching, "POSITIONS_PER_BATCH", 70)
    found = embeddings.embed_cells(model, cells, vocabulary, layer=layer, pooling=pooling)
    for row, cell in enumerate(cells["input_ids"]):
        with torch.no_grad():
            states = model.bert(torch.tensor(cell)[None], output_hidden_states=True).hidden_states[2 + layer][0]
        inner = states[1:-1] if "<cls>" in vocabulary.tokens else states
        expected = {"mean": inner.mean(dim=0), "max": inner.amax(dim=0), "first": states[0]}[pooling]
        np.testing.assert_allclose(found[row], expected.numpy(), atol=1e-5)


def test_genes_are_means_over_their_cells(model, vocabulary, cells):
    found, n = embeddings.embed_genes(model, cells, vocabulary, layer=0)
    gene = found.index[4]
    token = vocabulary.tokens[gene]
    holding = [cell for cell in cells["input_ids"] if token in cell]
    assert n[gene] == len(holding)
    with torch.no_grad():
        states = [model.bert(torch.tensor(c)[None]).last_hidden_state[0, list(c).index(token)] for c in holding]
    np.testing.assert_allclose(found.loc[gene], torch.stack(states).mean(dim=0).numpy(), atol=1e-5)


def test_the_model_is_as_it_was(model):
    part = embeddings.truncate_model(model, -2)
    assert len(part.encoder.layer) == 0
    assert len(model.bert.encoder.layer) == 2
    assert part.embeddings is model.bert.embeddings


def test_mistakes_are_one_line(model, vocabulary, cells):
    with pytest.raises(DataError, match="layer -3: the model has layers 0 .last. to -2"):
        embeddings.embed_cells(model, cells, vocabulary, layer=-3)
    with pytest.raises(DataError, match="pooling 'mea'"):
        embeddings.embed_cells(model, cells, vocabulary, pooling="mea")
    with pytest.raises(DataError, match="disease: no cell is 'gone'; there are a, b"):
        embeddings.state_centres(np.zeros((2, 3)), ["a", "b"], ["a", "gone"], where="disease")


def test_centres_by_hand():
    values = np.array([[0.0], [2.0], [7.0], [1.0]])
    found = embeddings.state_centres(values, ["a", "a", "a", "b"], ["a"], statistic="median")
    assert found["a"] == [2.0]
    assert embeddings.state_centres(values, ["a", "a", "a", "b"], ["a"])["a"] == [3.0]


@pytest.fixture
def official(mirror):
    return mirror / "reference/geneformer_official"


def tokens(official, name, wanted):
    held = np.load(official / f"{name}.npz")
    place = {cell: row for row, cell in enumerate(held["cell_id"])}
    rows = [place[cell] for cell in wanted]
    return {"input_ids": [held["token_ids"][held["offset"][row] : held["offset"][row + 1]] for row in rows]}


@pytest.mark.parametrize(("layer", "name"), [(-1, "layer_minus1"), (0, "layer_0")])
def test_cells_as_official(official, layer, name):
    theirs = np.load(official / "cell_embeddings.npz")
    net = presets.load_checkpoint(str(official / "checkpoint_v1_small"))
    cells = tokens(official, "tokens_v1", theirs["cell_id"])
    found = embeddings.embed_cells(net, cells, vocabularies.official_vocabulary("v1"), layer=layer)
    np.testing.assert_allclose(found, theirs[name], atol=1e-6)
    theirs = np.load(official / "v2_embeddings.npz")
    net = presets.load_checkpoint(str(official / "checkpoint_v2_small"))
    cells = tokens(official, "tokens_v2", theirs["cell_id"])
    for pooling, kind in (("mean", "cell"), ("first", "cls")):
        found = embeddings.embed_cells(net, cells, vocabularies.official_vocabulary("v2"), layer=layer, pooling=pooling)
        np.testing.assert_allclose(found, theirs[f"{kind}_{name}"], atol=1e-6)


def test_summaries_and_genes_as_official(official):
    """Genes to 2e-6, by processor: official Geneformer sums their states in 32 bits, ours in 64."""
    theirs = np.load(official / "gene_embeddings_mean.npz")
    net, vocabulary = (
        presets.load_checkpoint(str(official / "checkpoint_v1_small")),
        vocabularies.official_vocabulary("v1"),
    )
    names = np.load(official / "tokens_v1.npz")["cell_id"]
    cells = tokens(official, "tokens_v1", names)
    found, _ = embeddings.embed_genes(net, cells, vocabulary)
    np.testing.assert_allclose(found.loc[theirs["ensembl_id"]], theirs["layer_minus1"], atol=2e-6)
    whole = np.load(official / "cell_embedding_summaries.npz")
    embedded = embeddings.embed_cells(net, cells, vocabulary)
    np.testing.assert_allclose(embedded.mean(axis=0), whole["exact_mean"], atol=1e-6)
    np.testing.assert_allclose(np.median(embedded, axis=0), whole["exact_median"], atol=1e-6)


def test_genes_that_stand_together_start_side_by_side():
    """Two groups of genes, each cell of one group."""
    vocabulary = vocabularies.vocabulary_from_medians({f"ENSG{i:02}": 1.0 for i in range(40)}, name="v")
    rng = np.random.default_rng(0)
    ids = [(rng.permutation(20)[:12] + 20 * (cell % 2) + 2).tolist() for cell in range(100)]
    cells = arrow.Dataset.from_dict({"input_ids": ids, "length": [12] * 100}).with_format("numpy")
    net = presets.build(presets.preset("bert-tiny", vocab_size=vocabulary.size), "masked-lm")
    before = net.get_input_embeddings().weight.detach().clone()
    embeddings.start_from_coexpression(net, cells, vocabulary)
    vectors = net.get_input_embeddings().weight.detach()
    assert torch.equal(vectors[:2], before[:2]), "special tokens stay"
    assert float(vectors[2:].std()) == pytest.approx(float(before.std()), rel=0.1)
    cosine = torch.nn.functional.normalize(vectors[2:], dim=1)
    similarity = cosine @ cosine.T
    within = similarity[:20, :20].fill_diagonal_(0).sum() / (20 * 19)
    assert within > 0.1 > 10 * similarity[:20, 20:].mean()
    assert net.cls.predictions.decoder.weight is net.get_input_embeddings().weight
